//! Statistics that one thread writes and any thread reads.

use super::primitive::{AtomicU64, Ordering};

/// A 64-bit count with a single writer.
///
/// *Thread-safety.* Atomic: `add` must be called from the owning thread only (a second writer would
/// lose counts, never corrupt them); `get` from anywhere. No read-modify-write instruction is used.
#[derive(Debug, Default)]
#[cfg_attr(not(loom), derive(zerocopy::FromBytes))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n` (wrapping). Owner only.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        // A plain load and store: a locked add would cost 5 ns per packet for nothing.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Overwrites the count. Owner only.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The present count.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
