//! Large arrays that begin as zeros: memory straight from the kernel.
//!
//! Pages cost memory only once they are touched, so that a table may have a generous bound; and large pages spare lookups
//! at random most of their TLB misses. An ordinary zeroed allocation with a cache line's alignment would clear, and so
//! touch, all of it.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};
use zerocopy::FromZeros;

/// The usual size of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// `bytes`, rounded up so that the kernel can give large pages: it aligns only mappings whose length is a whole number of them.
/// Small arrays stay small.
fn whole_pages(bytes: usize) -> Option<usize> {
    if bytes < LARGE_PAGE / 16 { Some(bytes.max(1)) } else { bytes.checked_next_multiple_of(LARGE_PAGE) }
}

/// An array of `T`, all zero at first. Elements are not dropped.
///
/// *Thread-safety.* That of `[T]`.
#[derive(Debug)]
pub struct Mapped<T> {
    map: MmapMut,
    len: usize,
    _elements: PhantomData<T>,
}

impl<T> Mapped<T> {
    /// `len` elements.
    ///
    /// # Errors
    /// The address space or the kernel's limits do not allow it.
    pub fn zeroed(len: usize) -> std::io::Result<Self>
    where
        T: FromZeros,
    {
        Mapped::map(len)
    }

    /// `len` elements whose type the caller knows to be valid when all its bytes are zero.
    ///
    /// # Safety
    /// All-zero bytes must be a valid `T`.
    #[allow(unsafe_code)]
    pub(super) unsafe fn zeroed_unchecked(len: usize) -> std::io::Result<Self> {
        Mapped::map(len)
    }

    fn map(len: usize) -> std::io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(whole_pages(bytes).ok_or(std::io::ErrorKind::OutOfMemory)?)?;
        // A kernel that refuses costs only speed.
        let _ = map.advise(Advice::HugePage);
        Ok(Mapped { map, len, _elements: PhantomData })
    }
}

impl<T> Deref for Mapped<T> {
    type Target = [T];
    #[allow(unsafe_code)]
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is page-aligned, which is enough for `T`, holds at least `len` elements and lives as long as
        // `self`. Its bytes began as zeros, a valid `T` by the constructors, and are changed only through references to `T`.
        unsafe { core::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Mapped<T> {
    #[allow(unsafe_code)]
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as `deref`; `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn elements_begin_as_zeros_and_keep_what_is_written() {
        let mut array = Mapped::<u64>::zeroed(100_000).unwrap();
        assert!(array.iter().all(|&x| x == 0));
        array[99_999] = 7;
        assert_eq!((array.len(), array[99_999]), (100_000, 7));
        assert!(Mapped::<u64>::zeroed(0).unwrap().is_empty());
        assert!(Mapped::<u64>::zeroed(usize::MAX).is_err());
    }
}
