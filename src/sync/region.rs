//! Large memory: from the kernel, or from an embedder that has its own.
//!
//! A region begins as zeros and at a page's border. The kernel's costs memory only once it is touched, and that takes time: some
//! microseconds for a page of 4 KiB, and for a large page 0.1 ms to clear it and, where `transparent_hugepage/defrag` says so, up to
//! 60 ms in which the kernel moves other pages out of the way. So whoever will use a part makes it ready with
//! [`populate`](Region::populate) before a packet waits for it. An embedder's memory is cleared here, and so touched as a whole, and where
//! it comes from (huge pages, a NUMA node, memory that a card can reach) is the embedder's choice.
//!
//! Large pages are asked for where they matter: in regions of one large page and more. A smaller one has 512 small pages at most, a
//! third or less of what the second level of a server's TLB holds (1536 on Skylake, 2048 on Zen 2), and its unused end is not rounded up.

use core::ptr::NonNull;
use std::io;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

/// Every region begins at a multiple of this.
pub const ALIGN: usize = 4096;

/// The usual size of a large page.
pub const LARGE_PAGE: usize = 2 << 20;

/// `bytes`, rounded up so that the kernel can give large pages: it aligns only mappings whose length is a whole number of them.
/// Small regions stay small.
fn whole_pages(bytes: usize) -> Option<usize> {
    if bytes < LARGE_PAGE { Some(bytes.max(1)) } else { bytes.checked_next_multiple_of(LARGE_PAGE) }
}

/// An embedder's memory.
///
/// # Safety
/// What `alloc` gives is valid for reads and writes of `bytes` bytes, aligned to [`ALIGN`], and nobody else's until `free` gets it back.
#[allow(unsafe_code)]
pub unsafe trait Memory: Send + Sync {
    /// `bytes` bytes, not 0, whatever is in them; `None` when there are none.
    fn alloc(&self, bytes: usize) -> Option<NonNull<u8>>;
    /// Takes back what `alloc` gave for this number of bytes.
    fn free(&self, at: NonNull<u8>, bytes: usize);
}

/// Where large memory comes from; the kernel unless something else is said.
#[derive(Clone, Default)]
pub struct Source(Option<Arc<dyn Memory>>);

impl Source {
    /// An embedder's.
    pub fn new(memory: Arc<dyn Memory>) -> Self {
        Source(Some(memory))
    }
}

impl core::fmt::Debug for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.0.is_some() { "Source(embedder)" } else { "Source(kernel)" })
    }
}

enum Keeper {
    /// Unmaps the region when it is dropped.
    Kernel(MmapMut),
    Embedder(Arc<dyn Memory>),
}

/// A piece of large memory.
///
/// *Thread-safety.* A plain address: who may touch the bytes is its owner's to say.
pub struct Region {
    at: NonNull<u8>,
    bytes: usize,
    keeper: Keeper,
}

// SAFETY: the region owns its memory, as a box does, and hands out nothing but its address.
#[allow(unsafe_code)]
unsafe impl Send for Region {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Region {}

impl core::fmt::Debug for Region {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Region").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Region {
    /// At least `bytes` zeros.
    ///
    /// # Errors
    /// The address space or the kernel's limits do not allow it, or the embedder has no memory.
    #[allow(unsafe_code)]
    pub fn zeroed(source: &Source, bytes: usize) -> io::Result<Region> {
        let bytes = whole_pages(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        if let Source(Some(memory)) = source {
            let at = memory.alloc(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
            if at.as_ptr().addr() % ALIGN != 0 {
                memory.free(at, bytes);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "memory that is not aligned to 4096 bytes"));
            }
            // SAFETY: the contract of `Memory`: valid for writes of so many bytes, and nobody else's.
            unsafe { at.write_bytes(0, bytes) };
            return Ok(Region { at, bytes, keeper: Keeper::Embedder(Arc::clone(memory)) });
        }
        let mut map = MmapMut::map_anon(bytes)?;
        if bytes >= LARGE_PAGE {
            // A kernel that refuses costs only speed.
            let _ = map.advise(Advice::HugePage);
        }
        let at = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { at, bytes, keeper: Keeper::Kernel(map) })
    }

    /// Makes the bytes from `from` to `end` (as far as the region goes) ready, so that nobody waits for the kernel on first touching
    /// them. False if the kernel does not know how (before Linux 5.14) or has no memory left now: then they are made ready one page at a
    /// time as they are used. An embedder's memory is ready from the beginning.
    pub fn populate(&self, from: usize, end: usize) -> bool {
        let Keeper::Kernel(map) = &self.keeper else { return true };
        let (from, end) = (from / ALIGN * ALIGN, end.min(self.bytes));
        from >= end || !cfg!(miri) && map.advise_range(Advice::PopulateWrite, from, end - from).is_ok()
    }

    /// As [`populate`](Self::populate), on every kernel: page by page where it has nothing better. `&mut`, because that writes.
    #[allow(unsafe_code)]
    pub fn populate_new(&mut self, end: usize) {
        if self.populate(0, end) {
            return;
        }
        for offset in (0..end.min(self.bytes)).step_by(ALIGN) {
            // SAFETY: `offset < bytes`, so the byte is in the region, which is valid for reads and writes, and no one else's by `&mut`.
            // It keeps its value. Volatile, so that the touch stays.
            unsafe {
                let byte = self.at.add(offset);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }

    /// Where it begins: aligned to [`ALIGN`], valid for reads and writes of as many bytes as were asked for while the region lives.
    #[inline(always)]
    pub fn at(&self) -> NonNull<u8> {
        self.at
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Keeper::Embedder(memory) = &self.keeper {
            memory.free(self.at, self.bytes);
        }
    }
}
