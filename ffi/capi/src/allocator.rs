//! The allocator hooks of one datapath: large memory from the caller.

use core::ffi::c_void;
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use std::panic::catch_unwind;
use std::sync::Arc;

use wye::sync::region::{ALIGN, Memory, Source};

use crate::status::{Fault, Outcome};

/// Gives `size` bytes at a multiple of `align`, or NULL if there are none. What is in them does not matter: the library clears them, and so
/// touches them all.
///
/// Called in `wye_datapath_new` and `wye_worker_new`, on the thread that calls these, never while packets are carried. Must not call the library.
pub type wye_alloc_fn = Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, size: usize, align: usize) -> *mut c_void>;

/// Takes back what `wye_alloc_fn` gave, with the same `size` and `align`.
///
/// Called when the last object that uses the memory is freed, on the thread that does that. Must not call the library.
pub type wye_dealloc_fn =
    Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, at: *mut c_void, size: usize, align: usize)>;

/// The caller's functions.
struct Hooks {
    alloc: unsafe extern "C-unwind" fn(*mut c_void, usize, usize) -> *mut c_void,
    dealloc: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, usize, usize),
    ctx: *mut c_void,
}

// SAFETY: the pointer is only handed back to the functions, whose contracts name the threads that they are called on.
unsafe impl Send for Hooks {}
// SAFETY: as above.
unsafe impl Sync for Hooks {}

// SAFETY: the contract of `wye_alloc_fn`: `size` bytes at a multiple of `align`, the library's until they are given back.
unsafe impl Memory for Hooks {
    fn alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: the function came with this context.
        let call = || unsafe { (self.alloc)(self.ctx, bytes, ALIGN) };
        // A panic or an exception is no memory.
        NonNull::new(catch_unwind(AssertUnwindSafe(call)).ok()?.cast())
    }

    fn free(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: the function came with this context, and `alloc` gave what it gets.
        let call = || unsafe { (self.dealloc)(self.ctx, at.as_ptr().cast(), bytes, ALIGN) };
        let _ = catch_unwind(AssertUnwindSafe(call));
    }
}

/// The source that a configuration names.
pub(crate) fn source(alloc: wye_alloc_fn, dealloc: wye_dealloc_fn, ctx: *mut c_void) -> Outcome<Source> {
    match (alloc, dealloc) {
        (None, None) => Ok(Source::default()),
        (Some(alloc), Some(dealloc)) => Ok(Source::new(Arc::new(Hooks { alloc, dealloc, ctx }))),
        _ => Err(Fault::invalid("alloc and dealloc: one is given without the other")),
    }
}
