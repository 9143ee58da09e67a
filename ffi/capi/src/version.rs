//! Versions.

use core::ffi::{CStr, c_char};

/// The version of the interface that this header describes: major << 16 | minor << 8 | patch. A program that was built with one
/// version works with every library of the same major version that is not older.
pub const WYE_API_VERSION: u32 = 0x00_01_00;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("the package's version has a NUL"),
};

/// The library's version, `"0.1.0"`. The string is static.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The `WYE_API_VERSION` of the library that is running, to compare with the header's.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_api_version() -> u32 {
    WYE_API_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_and_package_have_one_version() {
        let part = |shift: u32| WYE_API_VERSION >> shift & 0xff;
        assert_eq!(VERSION.to_str().unwrap(), format!("{}.{}.{}", part(16), part(8), part(0)));
        assert_eq!(wye_api_version(), WYE_API_VERSION);
    }
}
