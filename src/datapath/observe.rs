//! Watching a packet on its way: what `explain` and stage timing hook into. The worker's pipeline is compiled once for
//! each observer, so [`Nobody`] costs nothing.

use crate::flow::FlowKey;
use crate::packet::Packet;

/// Stages of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Parsing and hashing.
    Extract,
    /// The exact-match cache.
    Exact,
    /// The megaflow table, for what the cache did not know.
    Megaflow,
    /// Upcalls.
    Upcall,
    /// Grouping, statistics and actions.
    Execute,
    /// Handing packets to the ports.
    Transmit,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 6] =
        [Stage::Extract, Stage::Exact, Stage::Megaflow, Stage::Upcall, Stage::Execute, Stage::Transmit];

    /// The stage's name.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Extract => "extract",
            Stage::Exact => "exact",
            Stage::Megaflow => "megaflow",
            Stage::Upcall => "upcall",
            Stage::Execute => "execute",
            Stage::Transmit => "transmit",
        }
    }
}

/// Which table knew a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The exact-match cache.
    Exact,
    /// The megaflow table.
    Megaflow,
    /// None: an upcall.
    Miss,
}

/// Sees what the pipeline does.
pub trait Observer {
    /// False if nothing is to be observed: the pipeline then skips what only an observer needs.
    const ACTIVE: bool = true;

    /// A burst, or a round of recirculated packets, of `packets` begins.
    fn round(&mut self, packets: usize) {
        let _ = packets;
    }

    /// A stage has ended for the whole round.
    fn stage(&mut self, stage: Stage) {
        let _ = stage;
    }

    /// A packet was looked up; `flow` is the flow's number.
    fn lookup(&mut self, packet: &Packet, key: &FlowKey, tier: Tier, flow: Option<u32>) {
        let _ = (packet, key, tier, flow);
    }
}

/// The observer that is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Observer for Nobody {
    const ACTIVE: bool = false;
}
