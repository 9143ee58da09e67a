//! The four rings of an AF_XDP socket, each a single-producer single-consumer queue shared with the kernel.
//!
//! ```text
//!            producer's           consumer's
//!   fill        us       frames →  kernel      free frames to receive into
//!   rx        kernel     packets →   us
//!   tx          us       packets → kernel
//!   completion kernel    frames →    us        frames that were sent
//! ```
//!
//! The two positions are words that count up for ever; each side publishes its own with a release store after it has written (or
//! read) the entries.

use std::io;
use std::os::fd::OwnedFd;

use libc::c_int;
use memmap2::{MmapOptions, MmapRaw};

use super::SOL_XDP;
use crate::port::sys;
use crate::sync::shared;

const MMAP_OFFSETS: c_int = 1;
const FLAG_NEED_WAKEUP: u32 = 1;

/// Which ring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Rx,
    Tx,
    Fill,
    Completion,
}

impl Which {
    /// The socket option that makes the ring.
    fn option(self) -> c_int {
        match self {
            Which::Rx => 2,
            Which::Tx => 3,
            Which::Fill => 5,
            Which::Completion => 6,
        }
    }

    /// Where the ring is in the socket's address space.
    fn page_offset(self) -> u64 {
        match self {
            Which::Rx => 0,
            Which::Tx => 0x8000_0000,
            Which::Fill => 0x1_0000_0000,
            Which::Completion => 0x1_8000_0000,
        }
    }

    /// Index in `struct xdp_mmap_offsets`.
    fn position(self) -> usize {
        match self {
            Which::Rx => 0,
            Which::Tx => 1,
            Which::Fill => 2,
            Which::Completion => 3,
        }
    }
}

/// `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) options: u32,
}

/// What a ring can hold: any bytes are a value.
pub(super) trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for Descriptor {}

/// A ring of `T`. The methods for producers and consumers are both here; each ring uses one half.
pub(super) struct Ring<T: Entry> {
    map: MmapRaw,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    len: u32,
    /// Our own position, and the other side's as last seen.
    ours: u32,
    theirs: u32,
    entry: core::marker::PhantomData<T>,
}

impl<T: Entry> Ring<T> {
    /// Makes the ring with `len` entries, a power of two, and maps it.
    pub(super) fn new(socket: &OwnedFd, which: Which, len: u32) -> io::Result<Self> {
        assert!(len.is_power_of_two());
        sys::set_option(socket, SOL_XDP, which.option(), &len.to_ne_bytes())?;
        // Four times producer, consumer, entries, flags, 64 bits each.
        let offsets = sys::get_option::<128>(socket, SOL_XDP, MMAP_OFFSETS)?;
        let offset = |field: usize| {
            let at = 32 * which.position() + 8 * field;
            let bytes = core::array::from_fn(|i| offsets[at + i]);
            usize::try_from(u64::from_ne_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (producer, consumer, entries, flags) = (offset(0), offset(1), offset(2), offset(3));
        let bytes = entries.saturating_add(len as usize * size_of::<T>());
        let is_sane = [producer, consumer, flags].iter().all(|at| at % 4 == 0 && at + 4 <= bytes) && entries % 8 == 0;
        if !is_sane {
            return Err(io::Error::other("the kernel is too old: its rings have no flags (Linux 5.4)"));
        }
        let map = MmapOptions::new().offset(which.page_offset()).len(bytes).populate().map_raw(socket)?;
        Ok(Ring { map, producer, consumer, flags, entries, len, ours: 0, theirs: 0, entry: core::marker::PhantomData })
    }

    fn word(&self, at: usize) -> *mut u32 {
        self.map.as_mut_ptr().wrapping_add(at).cast()
    }

    #[allow(unsafe_code)]
    fn load(&self, at: usize) -> u32 {
        // SAFETY: `at` is one of the three offsets, which `new` checked to be aligned and inside the mapping; those words
        // are only accessed atomically.
        unsafe { shared::load_acquire(self.word(at)) }
    }

    #[allow(unsafe_code)]
    fn store(&self, at: usize, value: u32) {
        // SAFETY: as `load`.
        unsafe { shared::store_release(self.word(at), value) }
    }

    fn slot(&self, position: u32) -> *mut T {
        let index = (position & (self.len - 1)) as usize;
        self.map.as_mut_ptr().wrapping_add(self.entries + index * size_of::<T>()).cast()
    }

    /// Producer: entries that can be put.
    pub(super) fn room(&mut self) -> u32 {
        if self.len - self.ours.wrapping_sub(self.theirs) == 0 {
            self.theirs = self.load(self.consumer);
        }
        self.len.saturating_sub(self.ours.wrapping_sub(self.theirs))
    }

    /// Producer: puts an entry, to be seen after [`Ring::submit`]. False if the ring is full.
    #[allow(unsafe_code)]
    pub(super) fn put(&mut self, entry: T) -> bool {
        if self.room() == 0 {
            return false;
        }
        // SAFETY: the slot lies in the mapping (`new` mapped `len` of them, and the index is below `len`) and is aligned to 8. The
        // kernel does not read it before `submit`, since the consumer is at most `ours`, and has finished with it, since
        // there is room.
        unsafe { self.slot(self.ours).write(entry) };
        self.ours = self.ours.wrapping_add(1);
        true
    }

    /// Producer: shows the kernel what was put.
    pub(super) fn submit(&mut self) {
        self.store(self.producer, self.ours);
    }

    /// Producer: entries that the kernel has not consumed yet.
    pub(super) fn outstanding(&mut self) -> u32 {
        self.theirs = self.load(self.consumer);
        self.ours.wrapping_sub(self.theirs)
    }

    /// Producer: the entries that the kernel has not consumed, when it will not any more.
    #[allow(unsafe_code)]
    pub(super) fn unconsumed(&mut self) -> impl Iterator<Item = T> + '_ {
        let count = self.outstanding().min(self.len);
        // SAFETY: in the mapping and aligned, as in `put`, which wrote the last `len` entries before our position; the kernel only
        // reads them.
        (0..count).map(move |i| unsafe { self.slot(self.ours.wrapping_sub(count - i)).read() })
    }

    /// Producer: true if the kernel sleeps and waits for a system call.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.load(self.flags) & FLAG_NEED_WAKEUP != 0
    }

    /// Consumer: takes the next entry; its slot is free again after [`Ring::finish`].
    #[allow(unsafe_code)]
    pub(super) fn take(&mut self) -> Option<T> {
        if self.ours == self.theirs {
            self.theirs = self.load(self.producer);
            if self.ours == self.theirs {
                return None;
            }
        }
        // SAFETY: in the mapping and aligned, as in `put`; the kernel wrote it before the producer's position that was read with
        // acquire, and does not write it again before `finish`. Any bytes are a `T`.
        let entry = unsafe { self.slot(self.ours).read() };
        self.ours = self.ours.wrapping_add(1);
        Some(entry)
    }

    /// Consumer: gives the slots of what was taken back to the kernel.
    pub(super) fn finish(&mut self) {
        self.store(self.consumer, self.ours);
    }
}
