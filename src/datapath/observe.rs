//! Watching a packet on its way: what `explain` and stage timing hook into. The worker's pipeline is compiled once for
//! each observer, so [`Nobody`] costs nothing.

use crate::action::step::Step;
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

    /// True if [`Observer::step`] is to be called: packets of one flow are then carried one by one and without short cuts.
    const STEPS: bool = false;

    /// A burst, or a round of recirculated packets, of `packets` begins.
    fn round(&mut self, packets: usize) {
        let _ = packets;
    }

    /// A stage has ended for the whole round.
    fn stage(&mut self, stage: Stage) {
        let _ = stage;
    }

    /// Packet `r` was looked up; `flow` is the flow's number. References are those of the burst: the packets that came in are
    /// numbered from 0, copies get other numbers, which are used again when a copy has come to its end.
    fn lookup(&mut self, r: u16, packet: &Packet, key: &FlowKey, tier: Tier, flow: Option<u32>) {
        let _ = (r, packet, key, tier, flow);
    }

    /// Something happens to packet `r` while actions are carried out.
    fn step(&mut self, r: u16, step: Step<'_>) {
        let _ = (r, step);
    }
}

/// The observer that is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Observer for Nobody {
    const ACTIVE: bool = false;
}
