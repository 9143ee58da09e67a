//! From 64-bit hashes to 32-bit numbers: a hash table with one writer and lock-free readers.
//!
//! The table stores no keys. A bucket is one cache line: a header word that counts the entries which belonged here but
//! had to go further, and seven entries of 32 hash bits and a number. A reader asks its caller about each number whose
//! 32 bits agree. All state is integers in atomics, so a reader that races with the writer can miss an entry that is
//! just being inserted or moved, never read garbage; the numbers it gets are checked against a
//! [`slab`](super::slab).
//!
//! ```text
//!   bucket:  overflow │ tag:number │ tag:number │ … 7        bucket+1, if overflow > 0: …
//!               8 B        8 B
//! ```

use super::primitive::{Arc, AtomicU64, Ordering};
use super::qsbr::{Burst, Domain};
use super::snapshot::Snapshot;

/// Two for the model checker, whose work grows exponentially with each atomic that a reader visits.
const ENTRIES: usize = if cfg!(loom) { 2 } else { 7 };

#[repr(align(64))]
struct Bucket {
    overflow: AtomicU64,
    entries: [AtomicU64; ENTRIES],
}

impl Bucket {
    fn empty() -> Self {
        Bucket { overflow: AtomicU64::new(0), entries: core::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// Zero means empty, so numbers are stored plus one.
#[inline(always)]
fn entry(hash: u64, number: u32) -> u64 {
    (hash >> 32) << 32 | u64::from(number + 1)
}

#[derive(Clone)]
struct Buckets {
    /// Shared with the writer, which needs no burst to look at what it published itself.
    buckets: Arc<[Bucket]>,
    mask: usize,
}

impl Buckets {
    fn new(count: usize) -> Self {
        debug_assert!(count.is_power_of_two());
        Buckets { buckets: (0..count).map(|_| Bucket::empty()).collect(), mask: count - 1 }
    }

    /// Visits the candidates for `hash` in probe order until `accept` says yes.
    #[inline(always)]
    fn find(&self, hash: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = hash >> 32;
        let home = hash as usize & self.mask;
        // A full circle at most, even while the writer changes headers under us.
        for step in 0..=self.mask {
            let bucket = &self.buckets[(home + step) & self.mask];
            for e in &bucket.entries {
                let e = e.load(Ordering::Acquire);
                if e >> 32 == tag && e as u32 != 0 && accept(e as u32 - 1) {
                    return Some(e as u32 - 1);
                }
            }
            if bucket.overflow.load(Ordering::Acquire) == 0 {
                return None;
            }
        }
        None
    }

    fn insert(&self, hash: u64, number: u32) -> bool {
        let home = hash as usize & self.mask;
        for step in 0..=self.mask {
            let bucket = &self.buckets[(home + step) & self.mask];
            if let Some(e) = bucket.entries.iter().find(|e| e.load(Ordering::Relaxed) == 0) {
                // Headers first: a reader that sees the entry's path must be told to go on.
                for s in 0..step {
                    let header = &self.buckets[(home + s) & self.mask].overflow;
                    header.store(header.load(Ordering::Relaxed) + 1, Ordering::Release);
                }
                e.store(entry(hash, number), Ordering::Release);
                return true;
            }
        }
        false
    }

    fn remove(&self, hash: u64, number: u32) -> bool {
        let wanted = entry(hash, number);
        let home = hash as usize & self.mask;
        for step in 0..=self.mask {
            let bucket = &self.buckets[(home + step) & self.mask];
            if let Some(e) = bucket.entries.iter().find(|e| e.load(Ordering::Relaxed) == wanted) {
                e.store(0, Ordering::Release);
                for s in 0..step {
                    let header = &self.buckets[(home + s) & self.mask].overflow;
                    header.store(header.load(Ordering::Relaxed) - 1, Ordering::Release);
                }
                return true;
            }
            if bucket.overflow.load(Ordering::Relaxed) == 0 {
                return false;
            }
        }
        false
    }
}

/// The table. Several entries may share a hash.
///
/// *Thread-safety.* Entries are atomic; `insert` and `remove` must be serialised by the caller (one writer).
pub struct Map {
    buckets: Snapshot<Buckets>,
}

impl core::fmt::Debug for Map {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Map")
    }
}

/// The writer's side of a [`Map`].
pub struct MapWriter {
    map: Arc<Map>,
    now: Buckets,
    len: usize,
}

impl Map {
    /// An empty table for the readers of `domain`, and its only writer.
    pub fn new(domain: &Arc<Domain>) -> (Arc<Self>, MapWriter) {
        let now = Buckets::new(if cfg!(loom) { 1 } else { 4 });
        let map = Arc::new(Map { buckets: Snapshot::new(domain, now.clone()) });
        (Arc::clone(&map), MapWriter { map, now, len: 0 })
    }

    /// The table as the burst sees it.
    #[inline(always)]
    pub fn view<'b>(&'b self, burst: &'b Burst<'_>) -> MapView<'b> {
        MapView { buckets: self.buckets.load(burst) }
    }
}

/// A reader's access for one burst.
#[derive(Clone, Copy)]
pub struct MapView<'b> {
    buckets: &'b Buckets,
}

impl core::fmt::Debug for MapView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("MapView")
    }
}

impl MapView<'_> {
    /// The first number stored under `hash` that `accept` agrees to. `accept` may see numbers of other hashes.
    #[inline(always)]
    pub fn find(self, hash: u64, accept: impl FnMut(u32) -> bool) -> Option<u32> {
        self.buckets.find(hash, accept)
    }

    /// Asks the CPU to load the bucket of `hash`.
    #[inline(always)]
    pub fn prefetch(self, hash: u64) {
        crate::wire::simd::prefetch(&raw const self.buckets.buckets[hash as usize & self.buckets.mask]);
    }
}

impl MapWriter {
    /// Adds `number` under `hash`. `hash_of` gives the hash of any number in the table; it is called when the table grows.
    /// A number is in the table at most once, and `hash_of` is consistent: else removals lengthen probes or miss.
    ///
    /// # Panics
    /// If `number` is `u32::MAX`.
    pub fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        assert_ne!(number, u32::MAX, "number out of range");
        // Three quarters full: longer probes would cost readers more than the memory is worth.
        let room = self.now.buckets.len() * ENTRIES * 3 / 4 > self.len;
        if !(room && self.now.insert(hash, number)) {
            let mut count = self.now.buckets.len() * 2;
            self.now = loop {
                let grown = Buckets::new(count);
                let all = self.now.buckets.iter().flat_map(|b| &b.entries).map(|e| e.load(Ordering::Relaxed) as u32);
                let moved = all.filter(|&e| e != 0).all(|e| grown.insert(hash_of(e - 1), e - 1));
                if moved && grown.insert(hash, number) {
                    break grown;
                }
                count *= 2;
            };
            self.map.buckets.publish(self.now.clone());
        }
        self.len += 1;
    }

    /// Removes `number` from under `hash`; false if it was not there.
    pub fn remove(&mut self, hash: u64, number: u32) -> bool {
        let removed = self.now.remove(hash, number);
        self.len -= usize::from(removed);
        removed
    }

    /// The first number stored under `hash` that `accept` agrees to.
    pub fn find(&self, hash: u64, accept: impl FnMut(u32) -> bool) -> Option<u32> {
        self.now.find(hash, accept)
    }

    /// Entries in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl core::fmt::Debug for MapWriter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MapWriter").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn random_operations_agree_with_a_hash_map() {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (map, mut writer) = Map::new(&domain);
        // Few distinct low bits, so that buckets overflow and chains form.
        let hash_of = |n: u32| (u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15) << 32) | u64::from(n % 5);
        let mut model: HashMap<u32, ()> = HashMap::new();
        let mut seed = 7u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let n = (seed >> 40) as u32 % 300;
            if seed >> 33 & 1 == 0 {
                if model.insert(n, ()).is_none() {
                    writer.insert(hash_of(n), n, hash_of);
                }
            } else {
                assert_eq!(writer.remove(hash_of(n), n), model.remove(&n).is_some());
            }
            let burst = reader.enter();
            let found = map.view(&burst).find(hash_of(n), |m| m == n);
            assert_eq!(found.is_some(), model.contains_key(&n));
        }
        let burst = reader.enter();
        for n in 0..300 {
            assert_eq!(map.view(&burst).find(hash_of(n), |m| m == n), model.get(&n).map(|()| n));
        }
        drop(burst);
        assert_eq!(writer.len(), model.len());
    }
}
