//! Counters: per worker, and per flow and worker.

use crate::packet::{DropReason, Fate};
use crate::sync::counter::Counter;
use crate::sync::region::Source;
use crate::time::Nanos;

macro_rules! worker_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one worker counted.
        ///
        /// *Thread-safety.* Written by the worker, read by anyone.
        #[derive(Debug, Default)]
        pub struct WorkerCounters {
            $($(#[$doc])* pub $name: Counter,)*
            /// Packets dropped, by reason.
            pub dropped: [Counter; DropReason::COUNT],
            /// Copies dropped, by reason. Copies are not packets that came in, so they are in no other sum.
            pub copies_dropped: [Counter; DropReason::COUNT],
        }

        /// A reading of [`WorkerCounters`], or the sum over several workers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Packets dropped, by reason.
            pub dropped: [u64; DropReason::COUNT],
            /// Copies dropped, by reason.
            pub copies_dropped: [u64; DropReason::COUNT],
        }

        impl WorkerCounters {
            /// Adds this worker's counts to `sum`.
            pub fn add_to(&self, sum: &mut Stats) {
                $(sum.$name += self.$name.get();)*
                for (sum, counter) in sum.dropped.iter_mut().zip(&self.dropped) {
                    *sum += counter.get();
                }
                for (sum, counter) in sum.copies_dropped.iter_mut().zip(&self.copies_dropped) {
                    *sum += counter.get();
                }
            }
        }

        impl Stats {
            /// Adds another reading to this one, counter by counter.
            pub fn merge(&mut self, other: &Stats) {
                $(self.$name += other.$name;)*
                for (sum, n) in self.dropped.iter_mut().zip(&other.dropped) {
                    *sum += n;
                }
                for (sum, n) in self.copies_dropped.iter_mut().zip(&other.copies_dropped) {
                    *sum += n;
                }
            }

            /// Name and value of each counter that is not by reason.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

worker_counters! {
    /// Packets that came in.
    packets_in,
    /// Bytes that came in.
    bytes_in,
    /// Bursts that came in.
    bursts,
    /// Packets that a port took, and packets whose actions ended after a copy was made. What became of copies is counted apart.
    transmitted,
    /// Packets that ended as an upcall: on the ring, or consumed by the handler.
    upcall,
    /// Packets that wait for an asynchronous stage.
    parked,
    /// Packets handed to the local stack or the caller.
    delivered,
    /// Lookups answered by the exact-match cache. A packet is looked up once per recirculation.
    exact_hits,
    /// Lookups answered by the megaflow table.
    megaflow_hits,
    /// Lookups that no flow answered.
    misses,
    /// Subtables asked, over all lookups that the cache did not answer.
    subtable_probes,
    /// Copies made.
    copies,
    /// Copies that a port took.
    copies_transmitted,
    /// Packets moved to another buffer for want of headroom.
    moved,
    /// Recirculations.
    recirculated,
    /// Flows that could not be installed because the table was full; their packets went on.
    flows_refused,
    /// Packets that no port received, but the control side sent; they are among those that came in.
    injected,
}

impl Stats {
    /// The sum over all fates. Equals [`Stats::packets_in`] whenever no worker is inside a burst.
    pub fn fates(&self) -> u64 {
        self.transmitted + self.upcall + self.parked + self.delivered + self.dropped_total()
    }

    /// All packets dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Reasons with a non-zero count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&r| (r, self.dropped[r.index()])).filter(|&(_, n)| n != 0)
    }
}

impl WorkerCounters {
    /// Counts the fates of a burst of which `transmitted` packets were transmitted.
    #[inline(always)]
    pub(super) fn count_fates(&self, fates: &[Fate], transmitted: usize) {
        self.transmitted.add(transmitted as u64);
        if transmitted != fates.len() {
            self.count_other_fates(fates);
        }
    }

    #[inline(never)]
    fn count_other_fates(&self, fates: &[Fate]) {
        for fate in fates {
            match fate {
                Fate::Transmitted => {}
                Fate::Upcall => self.upcall.add(1),
                Fate::Parked => self.parked.add(1),
                Fate::Delivered => self.delivered.add(1),
                Fate::Dropped(reason) => self.dropped[reason.index()].add(1),
                Fate::Undecided => debug_assert!(false, "a packet left the engine without a fate"),
            }
        }
    }
}

/// A flow's statistics as one worker counts them.
#[derive(Debug, Default)]
#[cfg_attr(not(loom), derive(zerocopy::FromBytes))]
#[repr(C)]
pub struct FlowCell {
    packets: Counter,
    bytes: Counter,
    /// Time of the last packet, ns; 0 = never.
    used: Counter,
    tcp_flags: Counter,
}

impl FlowCell {
    /// Counts a group of packets.
    #[inline(always)]
    pub(super) fn count(&self, packets: u64, bytes: u64, tcp_flags: u64, now: Nanos) {
        self.packets.add(packets);
        self.bytes.add(bytes);
        self.used.set(now.0);
        if tcp_flags != 0 {
            self.tcp_flags.set(self.tcp_flags.get() | tcp_flags);
        }
    }

    pub(super) fn forget_flags(&self) {
        self.tcp_flags.set(0);
    }

    pub(super) fn reset(&self) {
        self.packets.set(0);
        self.bytes.set(0);
        self.used.set(0);
        self.tcp_flags.set(0);
    }
}

/// One worker's cells for all flows, by flow number. Memory is taken, some pages at a time, as numbers are first used.
#[derive(Debug)]
pub struct FlowColumn {
    #[cfg(not(loom))]
    cells: crate::sync::mapped::Mapped<FlowCell>,
    #[cfg(loom)]
    cells: Box<[FlowCell]>,
}

impl FlowColumn {
    #[cfg(not(loom))]
    pub(super) fn new(source: &Source, flows_max: u32) -> Option<Self> {
        Some(FlowColumn { cells: crate::sync::mapped::Mapped::growing(source, flows_max as usize).ok()? })
    }

    #[cfg(loom)]
    pub(super) fn new(_source: &Source, flows_max: u32) -> Option<Self> {
        Some(FlowColumn { cells: (0..flows_max).map(|_| FlowCell::default()).collect() })
    }

    /// Makes the cells of the flows before `number` ready, so that no packet waits for memory.
    #[cfg(not(loom))]
    pub(super) fn make_ready(&self, number: u32) {
        self.cells.make_ready(number as usize);
    }

    #[cfg(loom)]
    pub(super) fn make_ready(&self, _number: u32) {}

    /// Flow `number`'s cell.
    #[inline(always)]
    pub(super) fn cell(&self, number: u32) -> Option<&FlowCell> {
        self.cells.get(number as usize)
    }

    /// All cells, by flow number.
    #[inline(always)]
    pub(super) fn cells(&self) -> &[FlowCell] {
        &self.cells
    }
}

/// A flow's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
    /// When the last one did; `None` if none ever did.
    pub used: Option<Nanos>,
    /// All TCP flags seen.
    pub tcp_flags: u16,
}

impl FlowStats {
    pub(super) fn add(&mut self, cell: &FlowCell) {
        self.packets += cell.packets.get();
        self.bytes += cell.bytes.get();
        self.tcp_flags |= cell.tcp_flags.get() as u16;
        let used = Nanos(cell.used.get());
        if cell.packets.get() != 0 {
            self.used = Some(self.used.map_or(used, |u| u.max(used)));
        }
    }

    pub(super) fn merge(&mut self, other: &FlowStats) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.tcp_flags |= other.tcp_flags;
        self.used = self.used.max(other.used);
    }
}
