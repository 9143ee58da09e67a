//! The exact-match cache: from a packet's hash to the number of the flow that matched it last time. One per worker.
//!
//! OVS's exact-match cache stores each packet's whole key and compares it. This one stores 8 bytes per entry and compares
//! the packet with the *flow it points to*, under that flow's mask. That is just as exact, because installed flows do not
//! overlap, and it has three advantages:
//!
//! * a million entries take 8 MB instead of 600;
//! * nothing has to be invalidated: a dead or reused flow number fails the comparison;
//! * the hash is taken over the key *masked with the union of all installed masks*, so that packets which no flow can tell
//!   apart share one entry. A hundred thousand connections under one `/16` megaflow need one entry, not a hundred thousand.
//!
//! A bucket is one cache line of eight entries. An entry has a preferred place in its bucket, which nearly always answers
//! with one load and one comparison.

use crate::sync::mapped::Mapped;
use crate::sync::region::Source;

const WAYS: usize = 8;

#[derive(Clone, Copy, zerocopy::FromBytes)]
#[repr(C, align(64))]
struct Bucket([u64; WAYS]);

/// The cache. Owned by one worker.
pub struct ExactCache {
    buckets: Mapped<Bucket>,
    mask: usize,
}

impl core::fmt::Debug for ExactCache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ExactCache").field("entries", &(self.buckets.len() * WAYS)).finish()
    }
}

#[inline(always)]
fn preferred(hash: u64) -> usize {
    (hash >> 29) as usize % WAYS
}

impl ExactCache {
    /// A cache of at least `entries` entries, rounded up to a power of two; 0 makes one that never hits.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub fn new(entries: usize) -> Self {
        Self::new_in(&Source::default(), entries).expect("no memory for an exact-match cache")
    }

    /// As [`new`](Self::new), in memory of `source`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new_in(source: &Source, entries: usize) -> std::io::Result<Self> {
        let buckets = if entries == 0 { 0 } else { entries.div_ceil(WAYS).next_power_of_two().min(1 << 24) };
        Ok(ExactCache { buckets: Mapped::zeroed(source, buckets)?, mask: buckets.wrapping_sub(1) })
    }

    /// True if the cache has any entry to offer.
    #[inline(always)]
    pub fn is_enabled(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// The cache for a loop of lookups.
    #[inline(always)]
    pub fn view(&self) -> CacheView<'_> {
        CacheView { buckets: &self.buckets, mask: self.mask }
    }

    /// Remembers `flow` for `hash`: in place of what was remembered for it, else in its preferred place if that is free, else
    /// in any free place, else in its preferred place at the cost of whoever is there.
    #[inline]
    pub fn insert(&mut self, hash: u64, flow: u32) {
        let Some(bucket) = self.buckets.get_mut(hash as usize & self.mask) else { return };
        let bucket = &mut bucket.0;
        let tag = hash >> 32;
        let free = |e: &u64| *e as u32 == 0;
        let place = match bucket.iter().position(|e| e >> 32 == tag && !free(e)) {
            Some(place) => place,
            None if free(&bucket[preferred(hash)]) => preferred(hash),
            None => bucket.iter().position(free).unwrap_or(preferred(hash)),
        };
        bucket[place] = tag << 32 | u64::from(flow.wrapping_add(1));
    }

    /// Forgets what is remembered for `hash`.
    #[inline]
    pub fn forget(&mut self, hash: u64) {
        let Some(bucket) = self.buckets.get_mut(hash as usize & self.mask) else { return };
        for e in &mut bucket.0 {
            if *e >> 32 == hash >> 32 {
                *e = 0;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(Bucket([0; WAYS]));
    }
}

/// A cache while nothing is remembered or forgotten: what a loop of lookups needs, for registers to hold.
#[derive(Clone, Copy)]
pub struct CacheView<'c> {
    buckets: &'c [Bucket],
    mask: usize,
}

impl core::fmt::Debug for CacheView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CacheView").field("entries", &(self.buckets.len() * WAYS)).finish()
    }
}

impl CacheView<'_> {
    /// Asks the CPU to load the bucket of `hash`.
    #[inline(always)]
    pub fn prefetch(self, hash: u64) {
        if let Some(bucket) = self.buckets.get(hash as usize & self.mask) {
            crate::wire::simd::prefetch(bucket);
        }
    }

    /// The flow number remembered for `hash`. It may be stale: the caller compares.
    #[inline(always)]
    pub fn lookup(self, hash: u64) -> Option<u32> {
        let bucket = &self.buckets.get(hash as usize & self.mask)?.0;
        let tag = hash >> 32;
        let e = bucket[preferred(hash)];
        if e >> 32 == tag && e as u32 != 0 {
            return Some(e as u32 - 1);
        }
        bucket.iter().find(|&&e| e >> 32 == tag && e as u32 != 0).map(|&e| e as u32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_hashes_of_one_bucket_keep_eight() {
        let mut cache = ExactCache::new(64);
        let hash = |i: u64| i << 32 | 5;
        (0..9).for_each(|i| cache.insert(hash(i + 1), i as u32));
        let kept = (0..9).filter(|&i| cache.view().lookup(hash(i + 1)) == Some(i as u32)).count();
        assert_eq!(kept, 8);
        assert_eq!(cache.view().lookup(hash(9)), Some(8));
        cache.forget(hash(9));
        assert_eq!(cache.view().lookup(hash(9)), None);
    }

    #[test]
    fn cache_of_no_entries_never_hits() {
        let mut cache = ExactCache::new(0);
        cache.insert(1, 1);
        cache.view().prefetch(1);
        assert_eq!(cache.view().lookup(1), None);
        assert!(!cache.is_enabled());
    }

    #[test]
    fn newer_flow_replaces_the_older_of_the_same_hash() {
        let mut cache = ExactCache::new(8);
        cache.insert(7, 1);
        cache.insert(7, 2);
        assert_eq!(cache.view().lookup(7), Some(2));
    }
}
