//! The executor's way out: a queue per port, sent at the end of the burst or when it is full.
//!
//! Packets that several ports send have queues of their own, which are sent first: a port that gets a packet of its own may take
//! it, and then there is nothing left for others to send.

use zerocopy::FromZeros;

use super::{Exec, Executor, NONE, Outside, Plain};
use crate::action::step::Step;
use crate::packet::{DropReason, Fate};
use crate::port::driver::{BURST_MAX, EXTRA_BASE, TxBurst};
use crate::port::table::PORTS_MAX;

/// The packets that wait for one port.
#[derive(Clone, Copy, Debug, zerocopy::FromZeros)]
struct TxQueue {
    len: u16,
    /// An extra is among them.
    mixed: bool,
    refs: [u16; BURST_MAX],
}

impl TxQueue {
    #[inline(always)]
    fn add(&mut self, at: usize, group: &[u16]) {
        match group {
            // Where each packet of a burst has its own flow, a group is one packet: no call to copy two bytes.
            &[r] => self.refs[at % BURST_MAX] = r,
            _ => self.refs[at..at + group.len()].copy_from_slice(group),
        }
        self.len += group.len() as u16;
    }
}

/// A port that was looked up in this burst.
#[derive(Clone, Copy, Debug)]
struct Way {
    port: u32,
    slot: u16,
    packet_len_max: u32,
}

/// Ports that an executor remembers at a time, by the low bits of their numbers.
const WAYS: usize = 8;

/// Queues that have memory from the beginning: those of the first ports that a datapath gets.
const SLOTS_READY: usize = 32;

/// No port remembered: each place has a number that belongs in another, so that no port is taken for it.
const NO_WAYS: [Way; WAYS] = {
    let mut ways = [Way { port: 1, slot: 0, packet_len_max: 0 }; WAYS];
    ways[1].port = 0;
    ways
};

/// Everything that waits to be sent.
#[derive(Debug)]
pub(super) struct Transmit {
    queues: Box<[TxQueue]>,
    /// Slots with a non-empty queue, and the port's number.
    active: Vec<(u16, u32)>,
    /// The same for packets that other ports send too.
    shared_queues: Box<[TxQueue]>,
    shared_active: Vec<(u16, u32)>,
    /// Ports that were output to lately.
    ways: [Way; WAYS],
}

impl Transmit {
    pub(super) fn new() -> Self {
        // Two MiB of zeros for each kind, of which a switch with few ports, whose slots are the first, uses a page or two: those are
        // touched here, so that no packet waits for memory.
        let queues = || {
            let mut queues =
                <[TxQueue]>::new_box_zeroed_with_elems(PORTS_MAX).expect("memory for the queues of all ports");
            queues[..SLOTS_READY].fill(TxQueue { len: 0, mixed: false, refs: [0; BURST_MAX] });
            queues
        };
        Transmit {
            queues: queues(),
            active: Vec::with_capacity(PORTS_MAX),
            shared_queues: queues(),
            shared_active: Vec::with_capacity(PORTS_MAX),
            ways: NO_WAYS,
        }
    }

    /// Forgets the ports: a burst may see others.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.ways = NO_WAYS;
    }
}

impl<O: Outside> Exec<'_, O> {
    /// Queues the group for `port`.
    #[inline(always)]
    pub fn output(&mut self, port: u32, group: &[u16]) {
        let (mut longest, mut ext, mut mixed) = (0, 0, false);
        for &r in group {
            mixed |= r >= EXTRA_BASE;
            let packet = self.packet(r);
            longest = longest.max(packet.len());
            ext |= packet.ext;
        }
        if ext != 0 { self.output_any(port, group) } else { self.queue(port, group, longest, mixed) }
    }

    /// As [`Exec::output`] for packets of the batch that have no rarer metadata and are at most `longest` bytes.
    #[inline(always)]
    pub fn output_plain(&mut self, port: u32, group: &[u16], longest: usize) {
        self.queue(port, group, longest, false);
    }

    #[inline(always)]
    fn queue(&mut self, port: u32, group: &[u16], longest: usize, mixed: bool) {
        let Some(way) = self.way(port) else { return self.no_way(port, group) };
        let queue = &mut self.executor.tx.queues[way.slot as usize];
        let at = queue.len as usize;
        // Strictly less, so that a full queue is always sent by `enqueue`.
        if longest > way.packet_len_max as usize || at + group.len() >= BURST_MAX {
            return self.output_any(port, group);
        }
        queue.add(at, group);
        queue.mixed |= mixed;
        if at == 0 && !group.is_empty() {
            self.executor.tx.active.push((way.slot, way.port));
        }
        if O::WATCHED {
            group.iter().for_each(|&r| self.tell_queued(r, port));
        }
    }

    /// Tells that packet `r` waits to be sent.
    #[cold]
    fn tell_queued(&mut self, r: u16, port: u32) {
        let len = self.packet(r).len();
        self.outside.step(r, Step::Queued { port, len });
    }

    /// Outputs to several ports with which a list ends.
    #[inline(always)]
    pub(super) fn outputs(&mut self, ports: &[u32], group: &mut [u16], plain: Plain) {
        let Some((&last, others)) = ports.split_last() else { return };
        match plain {
            Some(longest) if self.outside.shares() => {
                for &port in others {
                    self.queue_shared(port, group, longest);
                }
                self.output_plain(last, group, longest);
            }
            _ => {
                for &port in others {
                    self.with_copies(group, |exec, copies| exec.output(port, copies));
                }
                self.output(last, group);
            }
        }
    }

    /// Queues plain packets for `port` that will be output again.
    #[inline(always)]
    fn queue_shared(&mut self, port: u32, group: &[u16], longest: usize) {
        self.executor.tally.copies += group.len() as u64;
        let Some(way) = self.way(port) else {
            let reason = self.why_no_way(port);
            self.executor.tally.copies_dropped[reason.index()] += group.len() as u64;
            return;
        };
        let queue = &mut self.executor.tx.shared_queues[way.slot as usize];
        let at = queue.len as usize;
        if longest > way.packet_len_max as usize || at + group.len() > BURST_MAX {
            return self.queue_shared_any(way, group);
        }
        queue.add(at, group);
        if at == 0 && !group.is_empty() {
            self.executor.tx.shared_active.push((way.slot, way.port));
        }
    }

    /// As `queue_shared`, a packet at a time.
    #[cold]
    fn queue_shared_any(&mut self, way: Way, group: &[u16]) {
        for &r in group {
            if self.packet(r).len() > way.packet_len_max as usize {
                self.executor.tally.copies_dropped[DropReason::TxTooLong.index()] += 1;
                continue;
            }
            if self.executor.tx.shared_queues[way.slot as usize].len as usize == BURST_MAX {
                self.flush_shared();
            }
            let queue = &mut self.executor.tx.shared_queues[way.slot as usize];
            let at = queue.len as usize;
            queue.add(at, &[r]);
            if at == 0 {
                self.executor.tx.shared_active.push((way.slot, way.port));
            }
        }
    }

    /// As [`Exec::output`], a packet at a time.
    #[inline(never)]
    fn output_any(&mut self, port: u32, group: &[u16]) {
        let Some(way) = self.way(port) else { return self.no_way(port, group) };
        for &r in group {
            let packet = self.packet(r);
            if packet.ext != 0 || packet.len() > way.packet_len_max as usize {
                self.output_unusual(way, r);
            } else {
                self.enqueue(way, r);
            }
        }
    }

    #[inline(always)]
    fn enqueue(&mut self, way: Way, r: u16) {
        if O::WATCHED {
            self.tell_queued(r, way.port);
        }
        let mixed = r >= EXTRA_BASE;
        let queue = &mut self.executor.tx.queues[way.slot as usize];
        let at = queue.len as usize;
        if at == 0 {
            self.executor.tx.active.push((way.slot, way.port));
        }
        queue.refs[at % BURST_MAX] = r;
        queue.len += 1;
        queue.mixed |= mixed;
        if at + 1 == BURST_MAX {
            // What is taken now may still wait elsewhere to be sent as well.
            self.flush_shared();
            self.flush_port(way.slot, way.port);
            self.executor.tx.active.retain(|(slot, _)| *slot != way.slot);
        }
    }

    /// The way to a port that can be sent to.
    #[inline(always)]
    fn way(&mut self, port: u32) -> Option<Way> {
        let way = self.executor.tx.ways[port as usize % WAYS];
        if way.port == port { Some(way) } else { self.find_way(port) }
    }

    #[cold]
    fn find_way(&mut self, port: u32) -> Option<Way> {
        let (slot, entry) = self.settings.ports.with_slot(port).filter(|(_, entry)| entry.up)?;
        let way = Way { port, slot, packet_len_max: entry.packet_len_max };
        self.executor.tx.ways[port as usize % WAYS] = way;
        Some(way)
    }

    /// Why there is no way to `port`.
    fn why_no_way(&self, port: u32) -> DropReason {
        match self.settings.ports.with_slot(port) {
            Some(_) => DropReason::PortDown,
            None => DropReason::InvalidPort,
        }
    }

    /// Ends packets for a port that cannot be sent to.
    #[cold]
    fn no_way(&mut self, port: u32, group: &[u16]) {
        let reason = self.why_no_way(port);
        group.iter().for_each(|&r| self.end(r, Fate::Dropped(reason)));
    }

    /// Output of a packet with rarer metadata, or too long.
    #[cold]
    fn output_unusual(&mut self, way: Way, r: u16) {
        self.cut(r);
        if self.packet(r).len() > way.packet_len_max as usize {
            return self.end(r, Fate::Dropped(DropReason::TxTooLong));
        }
        // Who sends may take the descriptor that names the place of the rarer metadata: what of it is of use is told before.
        let ext = core::mem::take(&mut self.packet(r).ext);
        if ext != 0 {
            let packet =
                if r < EXTRA_BASE { &self.batch[r as usize] } else { &self.executor.extra[(r - EXTRA_BASE) as usize] };
            self.outside.sends(way.port, packet, &self.executor.exts[ext as usize]);
            self.executor.free_exts.push(ext);
        }
        self.enqueue(way, r);
    }

    /// Sends everything that is queued.
    #[inline(always)]
    pub fn flush(&mut self) {
        if !self.executor.tx.shared_active.is_empty() {
            self.flush_shared();
        }
        while let Some((slot, port)) = self.executor.tx.active.pop() {
            self.flush_port(slot, port);
        }
    }

    #[inline(always)]
    fn flush_port(&mut self, slot: u16, port: u32) {
        let Executor { tx, extra, fates, transmitted, .. } = &mut *self.executor;
        let queue = &mut tx.queues[slot as usize];
        let refs = &queue.refs[..core::mem::take(&mut queue.len) as usize];
        let (taken, reason) = self.outside.transmit(port, TxBurst::new(self.batch, extra, refs));
        let taken = taken.min(refs.len());
        let len = refs.len();
        if taken == len && !queue.mixed {
            for &r in refs {
                fates[r as usize % BURST_MAX] = Fate::Transmitted;
            }
            *transmitted += len;
        } else {
            queue.mixed = false;
            self.flush_unusual(slot, len, taken, reason);
        }
    }

    /// Sends what other ports send as well.
    fn flush_shared(&mut self) {
        let Executor { tx, extra, tally, .. } = &mut *self.executor;
        let Transmit { shared_queues, shared_active, .. } = tx;
        while let Some((slot, port)) = shared_active.pop() {
            let queue = &mut shared_queues[slot as usize];
            let refs = &queue.refs[..core::mem::take(&mut queue.len) as usize];
            let (taken, reason) = self.outside.transmit(port, TxBurst::new(self.batch, extra, refs).shared());
            let taken = taken.min(refs.len());
            tally.copies_transmitted += taken as u64;
            tally.copies_dropped[reason.index()] += (refs.len() - taken) as u64;
        }
    }

    /// Ends the packets of a flushed queue some of which were refused, are extras, or have metadata to free.
    #[inline(never)]
    fn flush_unusual(&mut self, slot: u16, len: usize, taken: usize, reason: DropReason) {
        for i in 0..len {
            let r = self.executor.tx.queues[slot as usize].refs[i];
            if i < taken && r >= EXTRA_BASE && self.executor.stands_for[(r - EXTRA_BASE) as usize] == NONE {
                self.executor.tally.copies_transmitted += 1;
                self.free_extra(r);
            } else if i < taken {
                self.settle(r, Fate::Transmitted);
            } else {
                self.end(r, Fate::Dropped(reason));
            }
        }
    }
}
