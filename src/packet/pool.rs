//! Buffers of one size from one mapping, with a bounded lock-free free list.

use core::ptr::NonNull;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::buffer::{Owner, Packet};
use crate::sync::region::{Region, Source};

/// Bytes left free before a packet's data unless the pool says otherwise: room for two tunnels.
pub const HEADROOM_DEFAULT: u16 = 256;

/// A buffer's length is rounded up to a multiple of this: a cache line.
const BUFFER_ALIGN: u32 = 64;

/// A fixed set of equal buffers.
///
/// *Thread-safety.* The free list is lock-free and may be used by any thread; a buffer's bytes belong to whoever holds its
/// [`Packet`]. The mapping is released only when no buffer is out: a pool that is dropped while some are leaks the mapping
/// rather than freeing memory under a descriptor.
pub struct Pool {
    region: core::mem::ManuallyDrop<Region>,
    base: NonNull<u8>,
    buffer_len: u32,
    count: u32,
    headroom: u16,
    free: ArrayQueue<u32>,
}

// SAFETY: the mapping is only touched through packets, each the sole descriptor of its buffer; `base` is a plain
// address of memory that the pool owns.
#[allow(unsafe_code)]
unsafe impl Send for Pool {}
// SAFETY: as above; the free list is itself `Sync`.
#[allow(unsafe_code)]
unsafe impl Sync for Pool {}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool").field("count", &self.count).field("available", &self.available()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Maps `count` buffers of `buffer_len` bytes (rounded up to a multiple of 64), each with `headroom` bytes free before
    /// the data of a new packet.
    ///
    /// # Errors
    /// `InvalidInput` when `headroom` does not fit the buffer or the product overflows; else the kernel's error.
    pub fn new(count: u32, buffer_len: u32, headroom: u16) -> std::io::Result<Arc<Pool>> {
        Pool::new_in(&Source::default(), count, buffer_len, headroom)
    }

    /// As [`new`](Self::new), in memory of `source`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when `source` has not so much.
    pub fn new_in(source: &Source, count: u32, buffer_len: u32, headroom: u16) -> std::io::Result<Arc<Pool>> {
        let invalid = |what| std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
        if count == 0 || buffer_len == 0 {
            return Err(invalid("a pool needs at least one buffer of at least one byte"));
        }
        let buffer_len =
            buffer_len.checked_next_multiple_of(BUFFER_ALIGN).ok_or_else(|| invalid("buffer_len too large"))?;
        if u32::from(headroom) >= buffer_len {
            return Err(invalid("headroom does not fit the buffer"));
        }
        let bytes = (count as usize).checked_mul(buffer_len as usize).ok_or_else(|| invalid("pool too large"))?;
        // Large pages spare the packet path most TLB misses. The free list takes the buffers in turn, so all will be used soon.
        let mut region = Region::zeroed(source, bytes)?;
        region.populate_new(bytes);
        let base = region.at();
        let free = ArrayQueue::new(count as usize);
        for i in 0..count {
            let _ = free.push(i);
        }
        Ok(Arc::new(Pool { region: core::mem::ManuallyDrop::new(region), base, buffer_len, count, headroom, free }))
    }

    /// Takes a buffer and describes `len` bytes of it behind the headroom; `None` when none is free or `len` does not fit.
    /// The bytes hold whatever was there before.
    #[inline]
    pub fn alloc(&self, len: usize) -> Option<Packet> {
        let index = self.free.pop()?;
        let packet = self.describe(index, len);
        if packet.is_none() {
            let _ = self.free.push(index);
        }
        packet
    }

    /// A packet with a copy of `bytes`; `None` when no buffer is free or they do not fit.
    pub fn packet(&self, bytes: &[u8]) -> Option<Packet> {
        let mut packet = self.alloc(bytes.len())?;
        packet.data_mut().copy_from_slice(bytes);
        Some(packet)
    }

    /// Gives a buffer back. A packet of another owner, or already gone, is left alone.
    #[inline]
    pub fn free(&self, packet: &mut Packet) {
        if self.owns(packet) {
            let index = packet.token() as u32;
            packet.set_gone();
            let _ = self.free.push(index);
        }
    }

    /// True if `packet` describes a buffer of this pool.
    #[inline]
    pub fn owns(&self, packet: &Packet) -> bool {
        packet.owner() == Owner::Pool && {
            let at = (packet.buffer_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
            at < self.count as usize * self.buffer_len as usize
        }
    }

    /// Buffers on the free list. Buffers in a [`PoolCache`] are not counted.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Buffers in all.
    pub fn capacity(&self) -> usize {
        self.count as usize
    }

    /// Longest packet that fits behind the headroom.
    pub fn packet_len_max(&self) -> usize {
        Self::packet_len_max_of(self.buffer_len, self.headroom)
    }

    /// What [`Pool::packet_len_max`] is of a pool that is made with these; 0 if there is no room for packets.
    pub fn packet_len_max_of(buffer_len: u32, headroom: u16) -> usize {
        (buffer_len as usize).next_multiple_of(BUFFER_ALIGN as usize).saturating_sub(headroom.into())
    }

    #[allow(unsafe_code)]
    #[inline]
    fn describe(&self, index: u32, len: usize) -> Option<Packet> {
        let len = u32::try_from(len).ok()?;
        debug_assert!(index < self.count);
        // SAFETY: `index < count`, so the buffer lies inside the mapping, which is zero-initialised, writable and
        // outlives the packet (see `Drop`). The index came off the free list, so this is its only descriptor.
        unsafe {
            let at = self.base.add(index as usize * self.buffer_len as usize);
            Packet::from_raw_parts(at, self.buffer_len, self.headroom, len, Owner::Pool, u64::from(index))
        }
    }
}

impl Drop for Pool {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.free.len() == self.count as usize {
            // SAFETY: dropped once, here, and no packet is out that could reach the mapping.
            unsafe { core::mem::ManuallyDrop::drop(&mut self.region) };
        }
    }
}

/// A worker's own stock of a pool's buffers, so that most copies need no atomic operation.
#[derive(Debug)]
pub struct PoolCache {
    pool: Arc<Pool>,
    stock: Vec<u32>,
}

/// Buffers moved between a cache and its pool at a time.
const REFILL: usize = 64;

impl PoolCache {
    /// An empty cache of `pool`.
    pub fn new(pool: &Arc<Pool>) -> Self {
        PoolCache { pool: Arc::clone(pool), stock: Vec::with_capacity(4 * REFILL) }
    }

    /// As [`Pool::alloc`].
    #[inline]
    pub fn alloc(&mut self, len: usize) -> Option<Packet> {
        if self.stock.is_empty() {
            while self.stock.len() < REFILL {
                let Some(index) = self.pool.free.pop() else { break };
                self.stock.push(index);
            }
        }
        let index = self.stock.pop()?;
        let packet = self.pool.describe(index, len);
        if packet.is_none() {
            self.stock.push(index);
        }
        packet
    }

    /// As [`Pool::free`].
    #[inline]
    pub fn free(&mut self, packet: &mut Packet) {
        if !self.pool.owns(packet) {
            return;
        }
        let index = packet.token() as u32;
        packet.set_gone();
        if self.stock.len() == self.stock.capacity() {
            for index in self.stock.drain(2 * REFILL..) {
                let _ = self.pool.free.push(index);
            }
        }
        self.stock.push(index);
    }

    /// The pool behind the cache.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for PoolCache {
    fn drop(&mut self) {
        for index in self.stock.drain(..) {
            let _ = self.pool.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pool_says_so_and_freed_buffers_come_back() {
        let pool = Pool::new(2, 2048, 128).unwrap();
        let mut a = pool.packet(&[1, 2, 3]).unwrap();
        let mut b = pool.alloc(pool.packet_len_max()).unwrap();
        assert!(pool.alloc(1).is_none());
        assert_eq!(a.data(), [1, 2, 3]);
        assert_eq!((a.headroom(), b.tailroom()), (128, 0));
        pool.free(&mut a);
        pool.free(&mut a);
        assert_eq!(pool.available(), 1);
        pool.free(&mut b);
        assert_eq!(pool.available(), 2);
        assert!(pool.alloc(2048).is_none());
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn cache_returns_its_stock_when_dropped() {
        let pool = Pool::new(300, 256, 64).unwrap();
        let mut cache = PoolCache::new(&pool);
        let mut all: Vec<_> = (0..300).map(|_| cache.alloc(10).unwrap()).collect();
        assert!(cache.alloc(1).is_none());
        all.iter_mut().for_each(|p| cache.free(p));
        drop(cache);
        assert_eq!(pool.available(), 300);
    }
}
