//! How long each stage of the pipeline takes, on a sample of bursts.

use std::sync::atomic::{AtomicU64, Ordering};

use wye::datapath::observe::{Observer, Stage, Tier};
use wye::flow::FlowKey;
use wye::packet::Packet;
use wye::wire::simd::timestamp;

/// Ticks of the time stamp counter by stage, over all sampled bursts.
///
/// *Thread-safety.* Written by the site's thread, read by the one that draws.
#[derive(Debug, Default)]
pub struct StageTicks {
    ticks: [AtomicU64; Stage::ALL.len()],
    packets: AtomicU64,
}

impl StageTicks {
    /// Mean ticks per packet of each stage, in the order of [`Stage::ALL`]; `None` if nothing was sampled.
    pub fn per_packet(&self) -> Option<[f64; Stage::ALL.len()]> {
        let packets = self.packets.load(Ordering::Relaxed);
        let mean = |ticks: &AtomicU64| ticks.load(Ordering::Relaxed) as f64 / packets as f64;
        (packets != 0).then(|| std::array::from_fn(|i| mean(&self.ticks[i])))
    }
}

/// Watches one burst.
pub struct Stopwatch {
    ticks: [u64; Stage::ALL.len()],
    /// When the stage before ended.
    since: u64,
    /// When the worker began to tell about a stage's packets. That is no part of the work, so the stage ended there.
    told: Option<u64>,
}

impl Stopwatch {
    /// Starts the watch.
    pub fn start() -> Self {
        Stopwatch { ticks: [0; Stage::ALL.len()], since: timestamp(), told: None }
    }

    /// Adds what it saw of a burst of `packets` to `to`, unless the core was taken away meanwhile: then the time says nothing
    /// about the stages. A burst full of upcalls takes a tenth of `too_long` ticks.
    pub fn stop(self, packets: usize, to: &StageTicks, too_long: u64) {
        if self.ticks.iter().all(|&ticks| ticks < too_long) {
            to.packets.fetch_add(packets as u64, Ordering::Relaxed);
            to.ticks.iter().zip(self.ticks).for_each(|(sum, ticks)| _ = sum.fetch_add(ticks, Ordering::Relaxed));
        }
    }
}

impl Observer for Stopwatch {
    fn stage(&mut self, stage: Stage) {
        let end = self.told.take().unwrap_or_else(timestamp);
        self.ticks[stage as usize] += end.saturating_sub(self.since);
        self.since = timestamp();
    }

    fn lookup(&mut self, _: u16, _: &Packet, _: &FlowKey, tier: Tier, _: Option<u32>) {
        // A miss is told before its upcall, which is the work.
        if tier != Tier::Miss && self.told.is_none() {
            self.told = Some(timestamp());
        }
    }
}
