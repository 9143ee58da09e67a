//! Large arrays that begin as zeros: memory straight from the kernel, unless an embedder has its own.
//!
//! Pages cost memory only once they are touched, so that a table may have a generous bound; and large pages spare lookups
//! at random most of their TLB misses. An ordinary zeroed allocation with a cache line's alignment would clear, and so
//! touch, all of it.
//!
//! A first touch is slow (see [`region`](super::region)), so it is not left to whoever comes first: an array is *ready* as a whole when it
//! is made, or, if it fills up from the front, a step at a time, and its writer says how far it goes on. A step is a large page where there are
//! such pages, and some small ones else: an array that is small is also made soon.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use zerocopy::FromZeros;

use super::region::{ALIGN, LARGE_PAGE, Region, Source};

/// How far an array of `bytes` is made ready at a time.
fn step(bytes: usize) -> usize {
    if bytes < LARGE_PAGE { 16 * ALIGN } else { LARGE_PAGE }
}

/// An array of `T`, all zero at first. Elements are not dropped.
///
/// *Thread-safety.* Immutable: all but the elements, whose rule is that of `[T]`, and `ready`, which is atomic.
#[derive(Debug)]
pub struct Mapped<T> {
    region: Region,
    len: usize,
    /// Bytes in front that no first touch waits for.
    ready: AtomicUsize,
    _elements: PhantomData<T>,
}

impl<T> Mapped<T> {
    /// `len` elements in memory of `source`, all ready.
    ///
    /// # Errors
    /// The address space or the kernel's limits do not allow it.
    pub fn zeroed(source: &Source, len: usize) -> std::io::Result<Self>
    where
        T: FromZeros,
    {
        Mapped::map(source, len, true)
    }

    /// `len` elements in memory of `source` that will be used from the front on: the first step of them is ready, further ones
    /// when [`make_ready`](Self::make_ready) asks for them.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn growing(source: &Source, len: usize) -> std::io::Result<Self>
    where
        T: FromZeros,
    {
        Mapped::map(source, len, false)
    }

    /// As [`growing`](Self::growing), of elements whose type the caller knows to be valid when all its bytes are zero.
    ///
    /// # Safety
    /// All-zero bytes must be a valid `T`.
    #[allow(unsafe_code)]
    pub(super) unsafe fn growing_unchecked(source: &Source, len: usize) -> std::io::Result<Self> {
        Mapped::map(source, len, false)
    }

    fn map(source: &Source, len: usize, is_ready: bool) -> std::io::Result<Self> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let mut region = Region::zeroed(source, bytes)?;
        let ready = if is_ready { bytes } else { bytes.min(step(bytes)) };
        region.populate_new(ready);
        Ok(Mapped { region, len, ready: AtomicUsize::new(ready), _elements: PhantomData })
    }

    /// Makes the first `count` elements ready, and the rest of their step. Cheap when they are.
    #[inline]
    pub fn make_ready(&self, count: usize) {
        if count.saturating_mul(size_of::<T>()) > self.ready.load(Ordering::Relaxed) {
            self.make_more_ready(count);
        }
    }

    #[cold]
    fn make_more_ready(&self, count: usize) {
        let bytes = self.len * size_of::<T>();
        let end = (count.min(self.len) * size_of::<T>()).next_multiple_of(step(bytes)).min(bytes);
        // Nothing is lost if two threads do this at a time, or if the kernel refuses.
        self.region.populate(self.ready.load(Ordering::Relaxed), end);
        self.ready.fetch_max(end, Ordering::Relaxed);
    }

    /// The elements in front that are ready.
    pub fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed).checked_div(size_of::<T>()).unwrap_or(self.len)
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

    /// How many of the array's pages have memory, as `/proc/self/pagemap` says; `None` where there is no such file.
    fn resident_pages<T>(array: &Mapped<T>) -> Option<usize> {
        use std::os::unix::fs::FileExt;
        let pages = (array.len() * size_of::<T>()).div_ceil(ALIGN);
        let mut entries = vec![0; pages * 8];
        let first = array.region.at().as_ptr().addr() / ALIGN * 8;
        std::fs::File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entries, first as u64).ok()?;
        // Bit 63: in memory, bit 62: swapped out.
        Some(entries.chunks(8).filter(|e| e[7] & 0xc0 != 0).count())
    }

    #[test]
    #[cfg_attr(miri, ignore = "there is no kernel")]
    fn small_and_large_arrays_have_their_memory_when_they_are_made() {
        for bytes in [1, ALIGN, 100_000, 1 << 20, LARGE_PAGE - 1, LARGE_PAGE, 5_000_000] {
            let array = Mapped::<u8>::zeroed(&Source::default(), bytes).unwrap();
            assert_eq!(array.ready(), bytes);
            let Some(resident) = resident_pages(&array) else { return };
            assert_eq!(resident, bytes.div_ceil(ALIGN), "{bytes} bytes");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "there is no kernel")]
    fn a_growing_array_takes_a_large_page_at_a_time_before_it_is_used() {
        let pages = LARGE_PAGE / ALIGN;
        let len = 10 * LARGE_PAGE + 5;
        let array = Mapped::<u8>::growing(&Source::default(), len).unwrap();
        let check = |ready: usize| {
            assert_eq!(array.ready(), ready);
            let Some(resident) = resident_pages(&array) else { return };
            assert_eq!(resident, ready.div_ceil(ALIGN));
        };
        check(LARGE_PAGE);
        array.make_ready(LARGE_PAGE);
        check(pages * ALIGN);
        array.make_ready(LARGE_PAGE + 1);
        check(2 * LARGE_PAGE);
        array.make_ready(1);
        check(2 * LARGE_PAGE);
        array.make_ready(5 * LARGE_PAGE - 1);
        check(5 * LARGE_PAGE);
        array.make_ready(usize::MAX);
        check(len);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there is no kernel")]
    fn a_small_growing_array_takes_small_steps() {
        let array = Mapped::<u64>::growing(&Source::default(), 20_000).unwrap();
        for (asked, ready, pages) in [(0, 8192, 16), (8192, 8192, 16), (8193, 16_384, 32), (20_000, 20_000, 40)] {
            array.make_ready(asked);
            assert_eq!(array.ready(), ready);
            assert_eq!(resident_pages(&array).unwrap_or(pages), pages);
        }
        assert_eq!(Mapped::<u64>::growing(&Source::default(), 1000).unwrap().ready(), 1000);
    }
}
