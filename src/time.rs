//! Time as a value: the engine never reads a clock, its callers hand it one.

use core::ops::{Add, Sub};

/// A point on a monotonic clock, in nanoseconds since an origin that the embedder chooses.
///
/// All calls into one datapath must use the same origin. `0` is a legal time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The instant `ms` milliseconds after the origin.
    pub const fn from_millis(ms: u64) -> Self {
        Nanos(ms.saturating_mul(1_000_000))
    }

    /// Whole milliseconds since the origin (truncated), the unit of OVS's `used` statistics.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds from `earlier` to `self`; zero if the clock seems to have gone backwards.
    pub const fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Nanos {
    type Output = Nanos;
    fn add(self, ns: u64) -> Nanos {
        Nanos(self.0.saturating_add(ns))
    }
}

impl Sub<u64> for Nanos {
    type Output = Nanos;
    fn sub(self, ns: u64) -> Nanos {
        Nanos(self.0.saturating_sub(ns))
    }
}
