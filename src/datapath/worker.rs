//! The worker: carries bursts of packets from a receiver to their fates.
//!
//! A burst goes through the stages of [`Stage`] as a whole. Each stage that will touch memory which is not in the nearest cache asks
//! for it one stage ahead: packet headers while earlier ones are parsed, cache buckets while later packets are parsed, flows
//! while later packets are looked up, statistics while later flows are compared.
//!
//! Packets that recirculate go round again in the same call, so that nothing is in flight when it returns.

mod outside;
mod round;

use std::sync::Arc;

use self::outside::Outer;
use self::round::{Groups, Round, Scratch};
use super::observe::{Nobody, Observer, Stage};
use super::stats::{FlowColumn, WorkerCounters};
use super::{Datapath, Published};
use crate::action::Program;
use crate::action::execute::{Exec, Executor, Recirculated, Settings, Tally};
use crate::cache::exact::ExactCache;
use crate::flow::Ext;
use crate::flow::action::Action;
use crate::flow::extract::ExtractOptions;
use crate::packet::{DropReason, Fate, Owner, Packet, PoolCache};
use crate::port::driver::{BURST_MAX, TxBurst};
use crate::sync::qsbr::Reader;
use crate::time::Nanos;
use crate::wire::simd::Level;

/// Where a worker's packets go.
pub trait Sink {
    /// Sends a burst to a port. Returns how many packets were taken from the front, and the reason that counts for the others. Of the
    /// taken packets, those whose descriptor was not [taken](Packet::take) are freed by the worker.
    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason);

    /// True if the sink leaves alone what is in a [shared](TxBurst::is_shared) burst. Then a packet for several ports is sent to all
    /// of them from one buffer; else all ports but the last get copies.
    fn shares(&self) -> bool {
        false
    }

    /// `packet`, which will be in a burst of [`Sink::transmit`] to `port` before this burst is over, has rarer metadata: what it carries
    /// of that out of the switch is the sink's to keep. By default nothing.
    fn sends(&mut self, port: u32, packet: &Packet, ext: &Ext) {
        let _ = (port, packet, ext);
    }

    /// `packet`, one of those handed in, ends here unsent and has rarer metadata. Its descriptor stays its owner's.
    fn ends(&mut self, packet: &Packet, ext: &Ext) {
        let _ = (packet, ext);
    }
}
/// Carries packets. Owned by one thread (`Send`, not `Sync`).
pub struct Worker {
    datapath: Datapath,
    reader: Reader,
    cache: ExactCache,
    executor: Executor,
    counters: Arc<WorkerCounters>,
    column: Arc<FlowColumn>,
    scratch: Box<Scratch>,
    groups: Box<Groups>,
    missed: Vec<u16>,
    again: Vec<Recirculated>,
    level: Level,
}

impl core::fmt::Debug for Worker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Worker").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.datapath.worker_gone(&self.column, &self.counters);
    }
}

impl Worker {
    /// Has the next burst tried as one that comes out of one tunnel as a whole.
    #[cfg(test)]
    pub(super) fn expect_pops(&mut self) {
        self.scratch.pop_patience = 0;
    }

    #[cfg(test)]
    pub(super) fn expects_pops(&self) -> bool {
        self.scratch.pop_patience == 0
    }

    pub(super) fn count_injected(&self) {
        self.counters.injected.add(1);
    }

    pub(super) fn new(
        datapath: Datapath,
        reader: Reader,
        column: Arc<FlowColumn>,
        counters: Arc<WorkerCounters>,
        cache: ExactCache,
        seed: u64,
    ) -> Self {
        let pool = PoolCache::new(datapath.pool());
        Worker {
            reader,
            cache,
            executor: Executor::new(pool, seed),
            counters,
            column,
            scratch: Box::new(Scratch::new()),
            groups: Box::new(Groups::new()),
            missed: Vec::with_capacity(BURST_MAX),
            again: Vec::with_capacity(4 * BURST_MAX),
            level: Level::detected(),
            datapath,
        }
    }

    /// The datapath that this worker belongs to.
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// What this worker counted.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// The worker's stock of pool buffers.
    pub fn pool(&mut self) -> &mut PoolCache {
        self.executor.pool()
    }

    /// Uses another instruction-set level than the detected one; one that the CPU lacks is lowered.
    pub fn set_level(&mut self, level: Level) {
        self.level = level.min(Level::of_cpu());
    }

    /// Rarer metadata for a packet that is carried next, empty at first; `None` if a burst of packets has some already.
    pub fn ext_mut(&mut self, packet: &mut Packet) -> Option<&mut Ext> {
        self.executor.ext_mut(packet)
    }

    /// Takes rarer metadata back from a packet that is not carried after all.
    pub fn free_ext(&mut self, packet: &mut Packet) {
        self.executor.free_ext(packet);
    }

    /// Carries `packets` to their fates: looks them up, runs their flows' actions, and hands what is to be sent to `sink`.
    ///
    /// Every packet has its fate when this returns (see [`Worker::fates`], valid for the last [`BURST_MAX`] of them). Descriptors
    /// that the sink did not take are still in `packets`, their buffers untouched or rewritten by the actions; they belong
    /// to the caller, who frees them.
    pub fn process(&mut self, packets: &mut [Packet], now: Nanos, sink: &mut dyn Sink) {
        self.process_observed(packets, now, sink, &mut Nobody);
    }

    /// As [`Worker::process`], watched by `observer`.
    pub fn process_observed<O: Observer>(
        &mut self,
        packets: &mut [Packet],
        now: Nanos,
        sink: &mut dyn Sink,
        observer: &mut O,
    ) {
        if self.has_injected() {
            self.carry_injected(now, sink);
        }
        let level = self.level;
        for chunk in packets.chunks_mut(BURST_MAX) {
            level.run(
                #[inline(always)]
                || self.burst(chunk, now, sink, observer),
            );
        }
    }

    /// Runs `actions` on packets without looking them up first (packet-out, answers to queued upcalls).
    ///
    /// # Errors
    /// The actions do not compile; then no packet was touched.
    pub fn execute(
        &mut self,
        packets: &mut [Packet],
        actions: &[Action],
        now: Nanos,
        sink: &mut dyn Sink,
    ) -> Result<(), crate::action::CompileError> {
        let program = Program::compile(actions)?;
        for chunk in packets.chunks_mut(BURST_MAX) {
            self.run_program(chunk, &program, now, sink);
        }
        Ok(())
    }

    /// The fates of the last burst's packets, in order.
    pub fn fates(&self) -> &[Fate; BURST_MAX] {
        self.executor.fates()
    }

    /// Frees the pool buffers still described in `packets`; hands those of ports to `release`.
    pub fn free(&mut self, packets: &mut [Packet], mut release: impl FnMut(&mut Packet)) {
        for packet in packets {
            match packet.owner() {
                Owner::Pool => self.executor.pool().free(packet),
                Owner::Port => release(packet),
                Owner::Caller | Owner::Gone => {}
            }
        }
    }

    #[inline(always)]
    fn burst<O: Observer>(&mut self, packets: &mut [Packet], now: Nanos, sink: &mut dyn Sink, observer: &mut O) {
        let Worker { datapath, reader, cache, executor, counters, column, scratch, groups, missed, again, level } =
            self;
        let level = *level;
        let shared = &*datapath.shared;
        let burst = reader.enter();
        let published = shared.settings.load(&burst);
        let n = packets.len();
        executor.begin(n);
        let mut outer = Outer { sink, observer, published, datapath, counters, now };
        let mut exec = Exec {
            executor,
            batch: packets,
            outside: &mut outer,
            settings: settings(published, shared.extract, now),
            depth: 0,
        };
        for (i, r) in scratch.refs[..n].iter_mut().enumerate() {
            *r = i as u16;
        }
        let view = shared.megaflows.view(&burst);
        let mut round = Round { view, cache, column, scratch, groups, missed, counters, level };
        let bytes = match round.pop_alike(&mut exec, n, &burst) {
            Some(bytes) => bytes,
            // Not by a closure, which would be compiled for any CPU.
            None => {
                round.run::<O, true>(&mut exec, n, &burst);
                let bytes = round.scratch.bytes;
                let pops = exec.executor.deferred_pops();
                round.learn_pops(pops.is_some_and(|(_, pops)| pops == n));
                if let Some((port, _)) = pops {
                    round.pop(&mut exec, port, &burst);
                }
                bytes
            }
        };
        round.rest(&mut exec, again, &burst);
        exec.flush();
        if O::ACTIVE {
            exec.outside.observer.stage(Stage::Transmit);
        }
        counters.packets_in.add(n as u64);
        counters.bytes_in.add(bytes);
        counters.bursts.add(1);
        finish(exec.executor, counters, n);
    }

    pub(super) fn run_program(&mut self, packets: &mut [Packet], program: &Program, now: Nanos, sink: &mut dyn Sink) {
        let Worker { datapath, reader, executor, counters, again, cache, column, scratch, groups, missed, level } =
            self;
        let level = *level;
        let shared = &*datapath.shared;
        let burst = reader.enter();
        let published = shared.settings.load(&burst);
        let n = packets.len();
        executor.begin(n);
        let bytes: u64 = packets.iter().map(|p| p.len() as u64).sum();
        let observer = &mut Nobody;
        let mut outer = Outer { sink, observer, published, datapath, counters, now };
        let mut exec = Exec {
            executor,
            batch: packets,
            outside: &mut outer,
            settings: settings(published, shared.extract, now),
            depth: 0,
        };
        // Parsed for their header offsets only.
        let mut group = [0u16; BURST_MAX];
        let mut valid = 0;
        for r in 0..n as u16 {
            match exec.key(r) {
                Ok(_) => {
                    group[valid] = r;
                    valid += 1;
                }
                Err(reason) => exec.end(r, Fate::Dropped(reason)),
            }
        }
        exec.run(program, &group[..valid], None);
        let view = shared.megaflows.view(&burst);
        let mut round = Round { view, cache, column, scratch, groups, missed, counters, level };
        round.rest(&mut exec, again, &burst);
        exec.flush();
        counters.packets_in.add(n as u64);
        counters.bytes_in.add(bytes);
        counters.bursts.add(1);
        finish(exec.executor, counters, n);
    }
}

fn settings(published: &Published, extract: ExtractOptions, now: Nanos) -> Settings<'_> {
    Settings {
        ports: &published.ports,
        meters: &published.meters,
        bonds: &published.bonds,
        tunnels: &published.tunnels,
        sequences: &published.sequences,
        extract,
        now,
    }
}

#[inline(always)]
fn finish(executor: &mut Executor, counters: &WorkerCounters, n: usize) {
    counters.count_fates(&executor.fates()[..n], executor.transmitted());
    let tally = &mut executor.tally;
    if tally.copies | tally.moved | tally.recirculated != 0 {
        let tally = core::mem::take(tally);
        count_tally(&tally, counters);
    }
}

#[cold]
fn count_tally(tally: &Tally, counters: &WorkerCounters) {
    counters.copies.add(tally.copies);
    counters.copies_transmitted.add(tally.copies_transmitted);
    counters.moved.add(tally.moved);
    counters.recirculated.add(tally.recirculated);
    if tally.copies == 0 {
        return;
    }
    for (counter, n) in counters.copies_dropped.iter().zip(tally.copies_dropped) {
        if n != 0 {
            counter.add(n);
        }
    }
}
