//! Status codes, and the detail that goes with one.

use core::ffi::{CStr, c_char, c_int};
use std::borrow::Cow;
use std::ffi::CString;

use wye::action::CompileError;
use wye::datapath::{DatapathError, FlowError};
use wye::flow::netlink::{CodecError, Fault as Broken};
use wye::meter::MeterError;
use wye::port::PortError;
use wye::port::table::PortAddError;

use crate::boundary::{self, Handle, Tag};

/// What a function answers: `WYE_OK`, or one of the negative `WYE_E_*`. The numbers never change; later versions may add some.
pub type wye_status = i32;

/// It worked.
pub const WYE_OK: wye_status = 0;
/// An argument is wrong: NULL, out of range, malformed attributes, a struct of an impossible size, a handle that is none.
pub const WYE_E_INVALID: wye_status = -1;
/// It is there already.
pub const WYE_E_EXISTS: wye_status = -2;
/// It is not there.
pub const WYE_E_NOT_FOUND: wye_status = -3;
/// `WYE_PUT_UNLESS_MATCHED`: an installed flow matches the key already.
pub const WYE_E_MATCHED: wye_status = -4;
/// Well formed, but this library cannot do it: an action or a key field that it lacks, a field of a newer header.
pub const WYE_E_UNSUPPORTED: wye_status = -5;
/// The caller's buffer is too small; the length that is needed has been written.
pub const WYE_E_NO_SPACE: wye_status = -6;
/// Not enough memory.
pub const WYE_E_NO_MEMORY: wye_status = -7;
/// A number is beyond what the object can have (a meter's id).
pub const WYE_E_RANGE: wye_status = -8;
/// The library or a callback panicked, now or earlier. The datapath is poisoned: it carries no packet and changes no flow any more, but
/// flows, statistics and queued upcalls can be read, and everything can be freed.
pub const WYE_E_PANIC: wye_status = -9;
/// The object is in use: a worker by another thread, or by the call whose callback this is.
pub const WYE_E_BUSY: wye_status = -10;
/// The handle was made by a process of which this one is a fork.
pub const WYE_E_FORKED: wye_status = -11;
/// A limit is reached: flows, masks, ports, workers.
pub const WYE_E_FULL: wye_status = -12;
/// The system refused; the detail says what is missing.
pub const WYE_E_IO: wye_status = -13;
/// The time was over before it was done.
pub const WYE_E_TIMED_OUT: wye_status = -14;

const NAMES: [(wye_status, &CStr, c_int); 15] = [
    (WYE_OK, c"ok", 0),
    (WYE_E_INVALID, c"invalid", libc::EINVAL),
    (WYE_E_EXISTS, c"exists", libc::EEXIST),
    (WYE_E_NOT_FOUND, c"not_found", libc::ENOENT),
    (WYE_E_MATCHED, c"matched", libc::EEXIST),
    (WYE_E_UNSUPPORTED, c"unsupported", libc::EINVAL),
    (WYE_E_NO_SPACE, c"no_space", libc::ENOBUFS),
    (WYE_E_NO_MEMORY, c"no_memory", libc::ENOMEM),
    (WYE_E_RANGE, c"range", libc::EFBIG),
    (WYE_E_PANIC, c"panic", libc::ENOTRECOVERABLE),
    (WYE_E_BUSY, c"busy", libc::EBUSY),
    (WYE_E_FORKED, c"forked", libc::ECHILD),
    (WYE_E_FULL, c"full", libc::ENOSPC),
    (WYE_E_IO, c"io", libc::EIO),
    (WYE_E_TIMED_OUT, c"timed_out", libc::ETIMEDOUT),
];

fn known(status: wye_status) -> Option<&'static (wye_status, &'static CStr, c_int)> {
    NAMES.iter().find(|(s, ..)| *s == status)
}

/// The name of a status: `"ok"`, `"invalid"`, … ; `"unknown"` for a number that is none.
///
/// The string is static. Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_status_name(status: wye_status) -> *const c_char {
    known(status).map_or(c"unknown", |(_, name, _)| name).as_ptr()
}

/// The `errno` value (positive) that comes nearest to a status: 0 for `WYE_OK`, `EINVAL` for a number that is none.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_status_to_errno(status: wye_status) -> c_int {
    known(status).map_or(libc::EINVAL, |(.., errno)| *errno)
}

/// Why a call failed, in words. Functions that take a `wye_error **` write one there when they fail and the pointer is not NULL;
/// the caller frees it. A success writes nothing.
pub struct wye_error {
    tag: Tag,
    status: wye_status,
    message: CString,
}

impl Handle for wye_error {
    const TAG: u64 = u64::from_be_bytes(*b"WyeError");
    const NAME: &'static str = "wye_error";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

/// The detail in words: one line, without a full stop. Valid until the error is freed; `""` for NULL.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_error_message(error: Option<&wye_error>) -> *const c_char {
    boundary::live(error).map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// The status that came with the error; `WYE_OK` for NULL.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_error_status(error: Option<&wye_error>) -> wye_status {
    boundary::live(error).map_or(WYE_OK, |e| e.status)
}

/// Frees an error; NULL is legal.
///
/// Any thread; does not block. Since 0.1.
///
/// # Safety
/// `error` is NULL or came from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_error_free(error: *mut wye_error) {
    // SAFETY: as this function's contract.
    unsafe { boundary::free(error) }
}

/// A status with its detail, on its way out.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) status: wye_status,
    pub(crate) detail: Cow<'static, str>,
}

/// What the inside of an exported function answers.
pub(crate) type Outcome<T = ()> = Result<T, Fault>;

impl Fault {
    pub(crate) fn new(status: wye_status, detail: impl Into<Cow<'static, str>>) -> Self {
        Fault { status, detail: detail.into() }
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Fault::new(WYE_E_INVALID, detail)
    }

    pub(crate) fn into_error(self) -> Box<wye_error> {
        let mut bytes = self.detail.into_owned().into_bytes();
        bytes.retain(|&b| b != 0);
        let message = CString::new(bytes).unwrap_or_default();
        Box::new(wye_error { tag: Tag::live::<wye_error>(), status: self.status, message })
    }

    /// Prefixes the detail.
    pub(crate) fn of(self, what: &str) -> Self {
        Fault::new(self.status, format!("{what}: {}", self.detail))
    }
}

impl From<CodecError> for Fault {
    fn from(e: CodecError) -> Self {
        let status = match e.fault {
            Broken::Unknown | Broken::Unsupported(_) => WYE_E_UNSUPPORTED,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<FlowError> for Fault {
    fn from(e: FlowError) -> Self {
        let status = match e {
            FlowError::Exists => WYE_E_EXISTS,
            FlowError::NotFound => WYE_E_NOT_FOUND,
            FlowError::Full | FlowError::TooManyMasks => WYE_E_FULL,
            FlowError::Actions(_) | FlowError::NothingAsked => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<CompileError> for Fault {
    fn from(e: CompileError) -> Self {
        Fault::invalid(format!("actions: {e}"))
    }
}

impl From<DatapathError> for Fault {
    fn from(e: DatapathError) -> Self {
        let status = match &e {
            DatapathError::TooManyWorkers => WYE_E_FULL,
            DatapathError::Pool(e) if e.kind() == std::io::ErrorKind::InvalidInput => WYE_E_INVALID,
            DatapathError::OutOfMemory | DatapathError::NoFlowMemory | DatapathError::Pool(_) => WYE_E_NO_MEMORY,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<PortAddError> for Fault {
    fn from(e: PortAddError) -> Self {
        let status = match e {
            PortAddError::NumberInUse(_) | PortAddError::NameInUse => WYE_E_EXISTS,
            PortAddError::NumberOutOfRange(_) => WYE_E_RANGE,
            PortAddError::TooMany => WYE_E_FULL,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<PortError> for Fault {
    fn from(e: PortError) -> Self {
        let status = match e {
            PortError::Io { .. } => WYE_E_IO,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<MeterError> for Fault {
    fn from(e: MeterError) -> Self {
        let status = match e {
            MeterError::IdOutOfRange(_) => WYE_E_RANGE,
            MeterError::TooManyBands(_) => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_name_and_an_errno() {
        for (i, (status, name, errno)) in NAMES.iter().enumerate() {
            assert_eq!(*status, -(i as i32));
            assert!(!name.is_empty());
            assert_eq!(*errno == 0, *status == WYE_OK);
            assert_eq!(wye_status_to_errno(*status), *errno);
        }
        assert_eq!(wye_status_to_errno(-999), libc::EINVAL);
        assert_eq!(wye_status_name(7), c"unknown".as_ptr());
    }
}
