//! Words in memory that the kernel shares with the process: rings of packet sockets.
//!
//! Always the hardware's atomics, never the model checker's: the other side is not in the model.

use core::sync::atomic::{AtomicU32, Ordering};

/// Reads a word; what the kernel wrote before it is visible afterwards.
///
/// # Safety
/// `at` must be valid for reads, aligned to four bytes, and accessed only atomically while others write to it.
#[allow(unsafe_code)]
#[inline(always)]
pub unsafe fn load_acquire(at: *mut u32) -> u32 {
    // SAFETY: demanded of the caller.
    unsafe { AtomicU32::from_ptr(at) }.load(Ordering::Acquire)
}

/// Writes a word; what was written before it is visible to whoever sees it.
///
/// # Safety
/// `at` must be valid for writes, aligned to four bytes, and accessed only atomically while others read it.
#[allow(unsafe_code)]
#[inline(always)]
pub unsafe fn store_release(at: *mut u32, word: u32) {
    // SAFETY: demanded of the caller.
    unsafe { AtomicU32::from_ptr(at) }.store(word, Ordering::Release);
}
