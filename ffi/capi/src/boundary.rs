//! Where C meets Rust: every cast of a caller's pointer, every NULL check, the reading of structs whose size the caller states, and
//! the catching of panics. The other files see references and slices.
//!
//! Handles are parameters of type `Option<&T>`: C's NULL is `None`. What a caller can still do wrong is to pass a pointer that
//! was freed or never was one; each object starts its life with a [`Tag`] of its type and loses it when freed, so that most such mistakes
//! are answered with `WYE_E_INVALID`. That is a courtesy to the one who debugs, not a guarantee.

use core::mem::{MaybeUninit, size_of};
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::panic::catch_unwind;

use crate::datapath::{Inner, wye_datapath};
use crate::status::{Fault, Outcome, WYE_E_PANIC, WYE_E_UNSUPPORTED, WYE_OK, wye_error, wye_status};

/// An attribute list is at most this long.
const ATTRIBUTES_MAX: usize = wye::flow::netlink::LEN_MAX;

/// An object that C holds by pointer.
pub(crate) trait Handle {
    /// What its tag says while it lives.
    const TAG: u64;
    /// Its name in messages.
    const NAME: &'static str;
    /// Its tag.
    fn tag(&self) -> &Tag;
}

/// Says what an object is, and that it lives.
#[derive(Debug)]
pub(crate) struct Tag(AtomicU64);

impl Tag {
    pub(crate) fn live<T: Handle>() -> Tag {
        Tag(AtomicU64::new(T::TAG))
    }

    /// Ends the life; false if it had ended, or never begun.
    fn kill<T: Handle>(&self) -> bool {
        self.0.compare_exchange(T::TAG, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The object behind a handle.
pub(crate) fn live<T: Handle>(handle: Option<&T>) -> Outcome<&T> {
    let Some(object) = handle else { return Err(Fault::invalid(format!("{} is NULL", T::NAME))) };
    if object.tag().0.load(Ordering::Relaxed) != T::TAG {
        return Err(Fault::invalid(format!("this is no {}, or it was freed", T::NAME)));
    }
    Ok(object)
}

/// Gives an object to C.
pub(crate) fn give<T: Handle>(object: T, out: &mut MaybeUninit<*mut T>) {
    out.write(Box::into_raw(Box::new(object)));
}

/// Frees an object; NULL, and what is detected as freed before, is left alone. A panic of a destructor ends here.
///
/// # Safety
/// `object` is NULL or came from [`give`] as a `T`.
pub(crate) unsafe fn free<T: Handle>(object: *mut T) {
    // SAFETY: NULL becomes `None`; the contract makes any other pointer one to a `T`.
    let Some(live) = (unsafe { object.as_ref() }) else { return };
    if live.tag().kill::<T>() {
        // SAFETY: it came from `Box::into_raw`, and the tag says that nobody freed it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(object) })));
    }
}

/// An out-parameter that may not be NULL.
pub(crate) fn out<'a, T>(out: Option<&'a mut MaybeUninit<T>>, name: &str) -> Outcome<&'a mut MaybeUninit<T>> {
    out.ok_or_else(|| Fault::invalid(format!("{name} is NULL")))
}

/// A list of attributes, or any bytes, of the caller's. NULL with a length of 0 is the empty list.
///
/// # Safety
/// `at` is NULL or valid for reads of `len` bytes while `'a` lasts, and nobody writes them meanwhile.
pub(crate) unsafe fn bytes<'a>(at: *const core::ffi::c_void, len: usize, name: &str) -> Outcome<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(Fault::invalid(format!("{name} is NULL, its length {len}")));
    }
    if len > ATTRIBUTES_MAX {
        return Err(Fault::invalid(format!("{name} has {len} bytes, more than {ATTRIBUTES_MAX}")));
    }
    // SAFETY: not NULL, the length is within `isize`, the rest is this function's contract.
    Ok(unsafe { core::slice::from_raw_parts(at.cast(), len) })
}

/// A string of the caller's.
///
/// # Safety
/// `at` is NULL or a NUL-terminated string that lasts `'a` and is not written meanwhile.
pub(crate) unsafe fn text<'a>(at: *const core::ffi::c_char, name: &str) -> Outcome<Option<&'a str>> {
    if at.is_null() {
        return Ok(None);
    }
    // SAFETY: this function's contract.
    let text = unsafe { core::ffi::CStr::from_ptr(at) };
    text.to_str().map(Some).map_err(|_| Fault::invalid(format!("{name} is not UTF-8")))
}

/// An array of the caller's.
///
/// # Safety
/// `at` is NULL or valid for reads of `N` elements.
pub(crate) unsafe fn array<T: Copy, const N: usize>(at: *const T, name: &str) -> Outcome<[T; N]> {
    if at.is_null() || !at.is_aligned() {
        return Err(Fault::invalid(format!("{name} is NULL or misaligned")));
    }
    // SAFETY: not NULL, aligned, and this function's contract.
    Ok(unsafe { at.cast::<[T; N]>().read() })
}

/// A slice of the caller's.
///
/// # Safety
/// `at` is NULL or valid for reads of `len` elements while `'a` lasts, and nobody writes them meanwhile.
pub(crate) unsafe fn slice<'a, T>(at: *const T, len: usize, name: &str) -> Outcome<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if at.is_null() || !at.is_aligned() || len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Fault::invalid(format!("{name} is NULL or misaligned")));
    }
    // SAFETY: not NULL, aligned, within `isize`; the rest is this function's contract.
    Ok(unsafe { core::slice::from_raw_parts(at, len) })
}

/// A slice of the caller's for writing.
///
/// # Safety
/// `at` is NULL or valid for reads and writes of `len` elements while `'a` lasts, and nobody else touches them meanwhile.
pub(crate) unsafe fn slice_mut<'a, T>(at: *mut T, len: usize, name: &str) -> Outcome<&'a mut [T]> {
    if len == 0 {
        return Ok(&mut []);
    }
    if at.is_null() || !at.is_aligned() || len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Fault::invalid(format!("{name} is NULL or misaligned")));
    }
    // SAFETY: not NULL, aligned, within `isize`; the rest is this function's contract.
    Ok(unsafe { core::slice::from_raw_parts_mut(at, len) })
}

/// Structs that C fills and whose first field, a `u32`, says how long the caller's version of them is.
///
/// # Safety
/// All bytes zero is a valid value, and so is any prefix of a valid value followed by zeros: integers, raw pointers and `Option`s of
/// function pointers. The first field is `size: u32`, the struct is `repr(C)`.
pub(crate) unsafe trait Sized_: Copy {
    /// Length in the first version of the ABI.
    const FIRST: usize;
    /// Its name in messages.
    const NAME: &'static str;
}

/// Reads a struct of the caller's. A shorter one is of an older header: the rest is zero, the default. A longer one is of a newer header:
/// its unknown tail must be zero, for what it asks cannot be done.
///
/// # Safety
/// `at` is NULL or valid for reads of as many bytes as the `u32` there says, and of those four.
pub(crate) unsafe fn sized<T: Sized_>(at: *const T) -> Outcome<T> {
    if at.is_null() {
        return Err(Fault::invalid(format!("{} is NULL", T::NAME)));
    }
    // SAFETY: `size` is the first field (contract of the trait), valid for reads (contract of this function).
    let size = unsafe { at.cast::<u32>().read_unaligned() } as usize;
    // A struct that is a thousand times its known length is a size field that was never set.
    if size < T::FIRST || size > size_of::<T>() + 4096 {
        let name = T::NAME;
        return Err(Fault::invalid(format!("{name}.size is {size}: set it to sizeof(struct {name})")));
    }
    // SAFETY: the contract makes `size` bytes readable.
    let bytes = unsafe { core::slice::from_raw_parts(at.cast::<u8>(), size) };
    let known = size.min(size_of::<T>());
    if bytes[known..].iter().any(|&b| b != 0) {
        return Err(Fault::new(WYE_E_UNSUPPORTED, format!("{} has fields that this library does not know", T::NAME)));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` is at most the size of both.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: a prefix of a valid value and zeros (contract of the trait).
    Ok(unsafe { value.assume_init() })
}

/// The message of a panic.
pub(crate) fn panic_message(payload: &(dyn core::any::Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message,
        _ => "no message",
    }
}

/// Runs the inside of an exported function: a fault becomes a status and, if asked for, a detail; a panic becomes `WYE_E_PANIC`.
pub(crate) fn call(error: Option<&mut MaybeUninit<*mut wye_error>>, f: impl FnOnce() -> Outcome) -> wye_status {
    let outcome = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        Err(Fault::new(WYE_E_PANIC, format!("the library panicked: {}", panic_message(&*payload))))
    });
    match outcome {
        Ok(()) => WYE_OK,
        Err(fault) => {
            let status = fault.status;
            if let Some(error) = error {
                error.write(Box::into_raw(fault.into_error()));
            }
            status
        }
    }
}

/// What a function does with a datapath, which decides what a poisoned one answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// It changes something.
    Change,
    /// It reads, or drains what is left.
    Drain,
}

/// As [`call`], on a datapath: the handle lives, the process is the one that made it, it is not poisoned; a panic poisons it.
pub(crate) fn on_datapath(
    datapath: Option<&wye_datapath>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
    intent: Intent,
    f: impl FnOnce(&Inner) -> Outcome,
) -> wye_status {
    call(error, || guarded(live(datapath)?.inner(), intent, f))
}

/// Runs `f` unless the datapath may not be used; if it panics, poisons the datapath.
pub(crate) fn guarded<R>(inner: &Inner, intent: Intent, f: impl FnOnce(&Inner) -> Outcome<R>) -> Outcome<R> {
    inner.check(intent)?;
    catch_unwind(AssertUnwindSafe(|| f(inner))).unwrap_or_else(|payload| {
        let message = panic_message(&*payload);
        inner.poison(message);
        Err(Fault::new(WYE_E_PANIC, format!("the library panicked: {message}")))
    })
}
