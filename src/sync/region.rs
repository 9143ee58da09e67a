//! Large memory: from the kernel, or from an embedder that has its own.
//!
//! A region begins as zeros and at a page's border. The kernel's costs memory only once it is touched, and is asked for large pages; an
//! embedder's is cleared here, and so touched as a whole, and where it comes from (huge pages, a NUMA node, memory that a card can reach)
//! is the embedder's choice.

use core::ptr::NonNull;
use std::io;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

/// Every region begins at a multiple of this.
pub const ALIGN: usize = 4096;

/// The usual size of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// `bytes`, rounded up so that the kernel can give large pages: it aligns only mappings whose length is a whole number of them.
/// Small regions stay small.
fn whole_pages(bytes: usize) -> Option<usize> {
    if bytes < LARGE_PAGE / 16 { Some(bytes.max(1)) } else { bytes.checked_next_multiple_of(LARGE_PAGE) }
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
    Kernel(#[expect(dead_code, reason = "held to be dropped")] MmapMut),
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
        // A kernel that refuses costs only speed.
        let _ = map.advise(Advice::HugePage);
        let at = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { at, bytes, keeper: Keeper::Kernel(map) })
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
