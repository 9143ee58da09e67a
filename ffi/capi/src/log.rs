//! The log hook of one datapath.

use core::ffi::{c_char, c_void};
use std::ffi::CString;

/// Something that an operator should know: a refused flow, a port that went.
pub const WYE_LOG_WARN: u32 = 1;
/// Something that should not happen: a panic was caught, a function was used against its contract.
pub const WYE_LOG_ERROR: u32 = 0;

/// Takes a line of the log: one of `WYE_LOG_*`, and text without a line end that is valid during the call. May be called from every
/// thread that calls the library, several at a time, also while the library holds locks: it must not call the library.
pub type wye_log_fn = Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, level: u32, message: *const c_char)>;

/// Where a datapath's lines go.
#[derive(Clone, Copy)]
pub(crate) struct Log {
    pub(crate) callback: wye_log_fn,
    pub(crate) ctx: *mut c_void,
}

// SAFETY: the pointer is only handed back to the callback, whose contract says that every thread may call it.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Log {
    pub(crate) fn line(&self, level: u32, message: &str) {
        let Some(callback) = self.callback else { return };
        let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // A callback that panics must not change what the caller of the function sees.
        let call = || {
            // SAFETY: the callback came with this context, and its contract allows the call.
            unsafe { callback(self.ctx, level, text.as_ptr()) }
        };
        let _ = std::panic::catch_unwind(core::panic::AssertUnwindSafe(call));
    }
}
