//! Bonds: 256 buckets of a hash, each with the port of a member, as OVS's `bond_add` configures them.

use crate::sync::counter::Counter;
use crate::sync::primitive::Arc;
use ahash::AHashMap;

/// Hash buckets of a bond.
pub const BUCKETS: usize = 256;

/// One bond.
///
/// *Thread-safety.* Members are immutable. Byte counts are relaxed and may lose an addition when two workers count into one
/// bucket at the same instant: they steer rebalancing, nothing else.
#[derive(Debug)]
pub struct Bond {
    members: [u32; BUCKETS],
    bytes: Box<[Counter]>,
}

impl Bond {
    /// A bond with the port of each bucket; `u32::MAX` for none.
    pub fn new(members: [u32; BUCKETS]) -> Self {
        Bond { members, bytes: (0..BUCKETS).map(|_| Counter::default()).collect() }
    }

    /// As [`Bond::new`], with the byte counts of `old`: a change of members does not restart them.
    pub fn with_counts_of(members: [u32; BUCKETS], old: &Bond) -> Self {
        let bond = Bond::new(members);
        bond.bytes.iter().zip(&old.bytes).for_each(|(new, old)| new.set(old.get()));
        bond
    }

    /// The port for a packet with this hash, whose bytes are counted.
    #[inline]
    pub fn select(&self, hash: u32, bytes: usize) -> Option<u32> {
        let bucket = hash as usize % BUCKETS;
        self.bytes[bucket].add(bytes as u64);
        Some(self.members[bucket]).filter(|&port| port != u32::MAX)
    }

    /// Bytes per bucket since the bond was made.
    pub fn bytes(&self) -> impl Iterator<Item = u64> {
        self.bytes.iter().map(Counter::get)
    }
}

/// All bonds by id.
pub type BondTable = AHashMap<u32, Arc<Bond>>;
