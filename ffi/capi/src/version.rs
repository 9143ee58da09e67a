//! Versions.

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;

use crate::boundary;
use crate::status::{Fault, WYE_E_UNSUPPORTED, wye_error, wye_status};

/// The version of the interface that this header describes: major << 16 | minor << 8 | patch. A program that was built with one
/// version works with every library of the same `WYE_ABI` that is not older: `wye_version_check`.
pub const WYE_API_VERSION: u32 = 0x00_01_00;

/// The number in the library's soname, `libwye.so.0`. It is raised when a program that was linked before would not run correctly any more; the
/// dynamic linker keeps such programs apart.
pub const WYE_ABI: u32 = 0;

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

/// Whether the library that is running serves a program that was built with this header: call it with `WYE_API_VERSION`. A library that is
/// older than the header may lack what the program was built to use: `WYE_E_UNSUPPORTED`.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_version_check(
    header_version: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        if header_version <= WYE_API_VERSION {
            return Ok(());
        }
        let part = |shift: u32| header_version >> shift & 0xff;
        let (major, minor, patch) = (header_version >> 16, part(8), part(0));
        let here = env!("CARGO_PKG_VERSION");
        let detail = format!("the header is of version {major}.{minor}.{patch}, this library is {here}");
        Err(Fault::new(WYE_E_UNSUPPORTED, detail))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::WYE_OK;

    #[test]
    fn a_newer_header_is_refused_and_an_older_one_served() {
        assert_eq!(wye_version_check(WYE_API_VERSION, None), WYE_OK);
        assert_eq!(wye_version_check(WYE_API_VERSION - 1, None), WYE_OK);
        assert_eq!(wye_version_check(WYE_API_VERSION + 1, None), WYE_E_UNSUPPORTED);
    }

    #[test]
    fn interface_and_package_have_one_version() {
        let part = |shift: u32| WYE_API_VERSION >> shift & 0xff;
        assert_eq!(VERSION.to_str().unwrap(), format!("{}.{}.{}", part(16), part(8), part(0)));
        assert_eq!(wye_api_version(), WYE_API_VERSION);
    }
}
