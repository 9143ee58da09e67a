//! Large arrays that begin as zeros: memory straight from the kernel, unless an embedder has its own.
//!
//! Pages cost memory only once they are touched, so that a table may have a generous bound; and large pages spare lookups
//! at random most of their TLB misses. An ordinary zeroed allocation with a cache line's alignment would clear, and so
//! touch, all of it.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use zerocopy::FromZeros;

use super::region::{ALIGN, Region, Source};

/// An array of `T`, all zero at first. Elements are not dropped.
///
/// *Thread-safety.* That of `[T]`.
#[derive(Debug)]
pub struct Mapped<T> {
    region: Region,
    len: usize,
    _elements: PhantomData<T>,
}

impl<T> Mapped<T> {
    /// `len` elements in memory of `source`.
    ///
    /// # Errors
    /// The address space or the kernel's limits do not allow it.
    pub fn zeroed(source: &Source, len: usize) -> std::io::Result<Self>
    where
        T: FromZeros,
    {
        Mapped::map(source, len)
    }

    /// `len` elements whose type the caller knows to be valid when all its bytes are zero.
    ///
    /// # Safety
    /// All-zero bytes must be a valid `T`.
    #[allow(unsafe_code)]
    pub(super) unsafe fn zeroed_unchecked(source: &Source, len: usize) -> std::io::Result<Self> {
        Mapped::map(source, len)
    }

    fn map(source: &Source, len: usize) -> std::io::Result<Self> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Mapped { region: Region::zeroed(source, bytes)?, len, _elements: PhantomData })
    }
}

impl<T> Deref for Mapped<T> {
    type Target = [T];
    #[allow(unsafe_code)]
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the region is page-aligned, which is enough for `T`, holds at least `len` elements and lives as long as
        // `self`. Its bytes began as zeros, a valid `T` by the constructors, and are changed only through references to `T`.
        unsafe { core::slice::from_raw_parts(self.region.at().as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Mapped<T> {
    #[allow(unsafe_code)]
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as `deref`; `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.region.at().as_ptr().cast(), self.len) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn elements_begin_as_zeros_and_keep_what_is_written() {
        let mut array = Mapped::<u64>::zeroed(&Source::default(), 100_000).unwrap();
        assert!(array.iter().all(|&x| x == 0));
        array[99_999] = 7;
        assert_eq!((array.len(), array[99_999]), (100_000, 7));
        assert!(Mapped::<u64>::zeroed(&Source::default(), 0).unwrap().is_empty());
        assert!(Mapped::<u64>::zeroed(&Source::default(), usize::MAX).is_err());
    }
}
