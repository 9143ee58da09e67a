//! The worker: carries bursts of packets from a receiver to their fates.
//!
//! A burst goes through the stages of [`Stage`] as a whole. Each stage that will touch memory which is not in the nearest cache asks
//! for it one stage ahead: packet headers while earlier ones are parsed, cache buckets while later packets are parsed, flows
//! while later packets are looked up, statistics while later flows are compared.
//!
//! Packets that recirculate go round again in the same call, so that nothing is in flight when it returns.

use std::sync::Arc;

use super::observe::{Nobody, Observer, Stage, Tier};
use super::stats::{FlowColumn, WorkerCounters};
use super::table::{FlowPut, FlowValue};
use super::upcall::{Answer, Miss, Punt, Undeliverable, Upcall};
use super::{Datapath, Published};
use crate::action::Program;
use crate::action::execute::{Exec, Executor, Outside, Recirculated, Settings, Tally};
use crate::action::step::Step;
use crate::action::tunnel;
use crate::cache::exact::ExactCache;
use crate::cache::megaflow::{Entry, MegaflowView, PacketKey};
use crate::flow::action::{Action, Userspace};
use crate::flow::extract::{self, ExtractOptions, extract_base, extract_base_and_tunnel};
use crate::flow::key::{LINE_BASE, LINE_OPTIONS, LINE_TUNNEL, Line, LineSet};
use crate::flow::{Ext, FlowKey};
use crate::packet::{DropReason, Fate, Owner, Packet, PoolCache};
use crate::port::driver::{BURST_MAX, EXTRA_BASE, TxBurst};
use crate::sync::qsbr::{Burst, Reader};
use crate::time::Nanos;
use crate::tunnel::{Kind, Obstacle, Tunnel};
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

/// No flow: not looked up yet, or not found.
const NO_FLOW: u32 = u32::MAX;
/// How far ahead packet headers are fetched.
const AHEAD: usize = 6;

/// Per-burst arrays, by position in the round.
struct Scratch {
    refs: [u16; BURST_MAX],
    base: [Line; BURST_MAX],
    lines: [LineSet; BURST_MAX],
    hash: [u64; BURST_MAX],
    flow: [u32; BURST_MAX],
    /// Of packets whose flow only outputs: the port.
    out: [u32; BURST_MAX],
    /// How many such packets there are.
    outs: usize,
    len: [u16; BURST_MAX],
    /// All TCP flags of the round, in the place where a base line has them.
    tcp_flags: u64,
    /// The round is the batch's first, and none of its packets has rarer metadata.
    plain: bool,
    /// The round is a later one, all its packets are of the batch, none is to be cut, and what else is rare about them is of a tunnel.
    sheds: bool,
    /// The longest packet of the round.
    longest: usize,
    /// Bytes of the round.
    bytes: u64,
    /// For how many rounds of one flow each it will not be tried whether all packets look alike. First rounds and later ones apart.
    patience: [u8; 2],
    /// Lines 1 and up of the packets that have any.
    more: Box<[FlowKey; BURST_MAX]>,
}

impl Scratch {
    /// Learns whether a round's packets were all of one flow.
    #[inline(always)]
    fn learn<const FIRST: bool>(&mut self, one_flow: bool) {
        let patience = &mut self.patience[usize::from(!FIRST)];
        *patience = if one_flow { patience.saturating_sub(1) } else { (*patience).max(1) };
    }
}

/// Rounds of one flow that pass until it is tried again whether packets look alike, after it was tried in vain: one flow may well have
/// packets that others tell apart.
const PATIENCE: u8 = 32;

/// Places of the grouping's hash table.
const SLOTS: usize = 128;

/// Per-round grouping of packets by flow.
struct Groups {
    /// Group of a flow number's low bits, if that group has that number.
    slots: [u16; SLOTS],
    flow: [u32; BURST_MAX],
    len: [u16; BURST_MAX],
    of: [u16; BURST_MAX],
    sorted: [u16; BURST_MAX],
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
            scratch: Box::new(Scratch {
                refs: [0; BURST_MAX],
                base: [[0; 8]; BURST_MAX],
                lines: [0; BURST_MAX],
                hash: [0; BURST_MAX],
                flow: [0; BURST_MAX],
                out: [0; BURST_MAX],
                outs: 0,
                len: [0; BURST_MAX],
                tcp_flags: 0,
                plain: false,
                sheds: false,
                longest: 0,
                bytes: 0,
                patience: [1; 2],
                more: vec![FlowKey::default(); BURST_MAX].try_into().expect("as many as asked for"),
            }),
            groups: Box::new(Groups {
                slots: [0; SLOTS],
                flow: [0; BURST_MAX],
                len: [0; BURST_MAX],
                of: [0; BURST_MAX],
                sorted: [0; BURST_MAX],
            }),
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
        let mut outer = Outer { sink, observer, published, datapath, counters, now, burst: &burst };
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
        round.run::<O, true>(&mut exec, n, &burst);
        let bytes = round.scratch.bytes;
        if let Some(port) = exec.executor.deferred_pops() {
            round.pop(&mut exec, port, &burst);
        }
        // Recirculated packets go round in order of depth, a burst at a time.
        loop {
            exec.executor.take_recirculated(again);
            let Some(&Recirculated { depth, .. }) = again.first() else { break };
            let n = again.iter().take(BURST_MAX).take_while(|a| a.depth == depth).count();
            for (r, a) in round.scratch.refs.iter_mut().zip(again.drain(..n)) {
                *r = a.packet;
            }
            exec.depth = depth;
            round.again(&mut exec, n, &burst);
        }
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
        let mut outer = Outer { sink, observer, published, datapath, counters, now, burst: &burst };
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
        loop {
            exec.executor.take_recirculated(again);
            let Some(&Recirculated { depth, .. }) = again.first() else { break };
            let n = again.iter().take(BURST_MAX).take_while(|a| a.depth == depth).count();
            for (r, a) in round.scratch.refs.iter_mut().zip(again.drain(..n)) {
                *r = a.packet;
            }
            exec.depth = depth;
            round.again(&mut exec, n, &burst);
        }
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

/// One pass over the stages.
struct Round<'a, 'b> {
    view: MegaflowView<'b, FlowValue>,
    cache: &'a mut ExactCache,
    column: &'a FlowColumn,
    scratch: &'a mut Scratch,
    groups: &'a mut Groups,
    missed: &'a mut Vec<u16>,
    counters: &'a WorkerCounters,
    level: Level,
}

/// What running a group of a round's packets needs, apart from the scratch.
#[derive(Clone, Copy)]
struct Whole<'a, 'b> {
    view: MegaflowView<'b, FlowValue>,
    column: &'a FlowColumn,
    plain: bool,
    longest: usize,
    /// Packets that are only to be taken out of a tunnel wait for the round's others.
    defers: bool,
}

impl Whole<'_, '_> {
    /// Counts and runs one group.
    #[inline(always)]
    fn group<O: Observer>(
        self,
        exec: &mut Running<'_, '_, O>,
        number: u32,
        refs: &[u16],
        bytes: u64,
        tcp_flags: u64,
        burst: &Burst<'_>,
    ) {
        let Some(entry) = self.view.flow(number) else { return look_up_again(exec, self.column, refs, burst) };
        if let Some(cell) = self.column.cell(number) {
            cell.count(refs.len() as u64, bytes, tcp_flags_of(tcp_flags), exec.settings.now);
        }
        match entry.value.only_output().filter(|_| !O::STEPS) {
            Some(port) if self.plain => exec.output_plain(port, refs, self.longest),
            Some(port) => exec.output(port, refs),
            None => {
                let program = entry.value.program(burst);
                match program.only_pop() {
                    Some(port) if self.defers && exec.executor.defer_pop(port, refs) => {}
                    _ => exec.run(program, refs, self.plain.then_some(self.longest)),
                }
            }
        }
    }
}

type Running<'x, 'o, O> = Exec<'x, Outer<'o, O>>;

impl<'a, 'b> Round<'a, 'b> {
    /// A round of recirculated packets. Not inlined: once in the machine code is enough for the rarer case.
    #[inline(never)]
    fn again<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, burst: &Burst<'_>) {
        self.level.run(
            #[inline(always)]
            || self.run::<O, false>(exec, n, burst),
        );
    }

    /// A round over the packets in `refs`. In the `FIRST` round these are the batch's own, in order.
    #[inline(always)]
    fn run<O: Observer, const FIRST: bool>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, burst: &Burst<'_>) {
        // Also tells the compiler that no index below `n` is out of the scratch arrays' bounds.
        let n = n.min(BURST_MAX);
        if O::ACTIVE {
            exec.outside.observer.round(n);
        }
        let one_flow = if FIRST { self.extract(exec, n) } else { self.extract_again(exec, n) };
        if O::ACTIVE {
            exec.outside.observer.stage(Stage::Extract);
        }
        self.carry_on::<O, FIRST>(exec, n, one_flow, false, burst);
    }

    /// What comes after extraction. With `bare`, of a later round, the packets' tunnel metadata is in the scratch alone.
    #[inline(always)]
    fn carry_on<O: Observer, const FIRST: bool>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        n: usize,
        one_flow: bool,
        mut bare: bool,
        burst: &Burst<'_>,
    ) {
        self.scratch.outs = 0;
        if one_flow && n != 0 {
            if let Some(number) = self.exact_once(n) {
                if O::ACTIVE {
                    exec.outside.observer.stage(Stage::Exact);
                    self.scratch.flow[..n].fill(number);
                    self.tell(exec, 0..n as u16, Tier::Exact);
                }
                if !FIRST {
                    let outputs = self.view.flow(number).is_some_and(|flow| flow.value.only_output().is_some());
                    self.keep_or_shed(exec, n, bare, outputs);
                }
                self.one_flow::<O, FIRST>(exec, number, n, burst);
                if O::ACTIVE {
                    exec.outside.observer.stage(Stage::Execute);
                }
                return;
            }
        } else {
            self.exact(n);
        }
        if O::ACTIVE {
            exec.outside.observer.stage(Stage::Exact);
            self.tell(exec, 0..n as u16, Tier::Exact);
        }
        if !self.missed.is_empty() {
            if !FIRST && bare {
                self.keep_or_shed(exec, n, true, false);
                bare = false;
            }
            let asked = if O::ACTIVE { self.missed.clone() } else { Vec::new() };
            self.megaflow();
            if O::ACTIVE {
                exec.outside.observer.stage(Stage::Megaflow);
                self.tell(exec, asked, Tier::Megaflow);
            }
            if !self.missed.is_empty() {
                self.upcall(exec, burst);
                if O::ACTIVE {
                    exec.outside.observer.stage(Stage::Upcall);
                }
            }
        }
        if !FIRST {
            self.keep_or_shed(exec, n, bare, self.scratch.outs == n);
        }
        if !O::STEPS && self.scratch.plain && self.scratch.outs == n && n != 0 {
            self.forward::<O, FIRST>(exec, n);
        } else {
            self.execute::<O, FIRST>(exec, n, burst);
        }
        if O::ACTIVE {
            exec.outside.observer.stage(Stage::Execute);
        }
    }

    /// Takes the packets that wait for it out of the tunnel of `port`, and gives them their second round. Those that are nothing out of the
    /// ordinary, most of them, never get a place for rarer metadata nor go through the list of those that recirculate. The others come after
    /// them: what keeps its order is packets whose headers, outer and inner, are of the same form, as those of one flow are.
    #[inline(never)]
    fn pop<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, port: u32, burst: &Burst<'_>) {
        let n = exec.executor.take_pops(&mut self.scratch.refs);
        let tunnels = exec.settings.tunnels;
        let Some(tunnel) = tunnels.get(&port) else {
            return exec.tunnel_pop(port, &self.scratch.refs[..n]);
        };
        exec.depth = 1;
        self.level.run(
            #[inline(always)]
            || self.pop_and_carry_on(exec, tunnel, port, n, burst),
        );
        exec.depth = 0;
    }

    #[inline(always)]
    fn pop_and_carry_on<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        tunnel: &Tunnel,
        port: u32,
        n: usize,
        burst: &Burst<'_>,
    ) {
        // A loop for each kind, and one for each half of the work: what a loop needs should be in registers.
        let popped = match tunnel.kind {
            Kind::Vxlan => self.pop_usual(exec, Kind::Vxlan, tunnel, port, n),
            kind => self.pop_usual(exec, kind, tunnel, port, n),
        };
        let n = self.extract_popped(exec, popped);
        if n == 0 {
            return;
        }
        exec.executor.tally.recirculated += n as u64;
        (self.scratch.plain, self.scratch.sheds) = (false, true);
        let first = self.scratch.lines[0];
        let differing = self.scratch.lines[..n].iter().fold(0, |d, lines| d | lines ^ first);
        let one_flow = if differing == 0 {
            self.hash_or_compare(n, first)
        } else {
            self.hash_all(n);
            false
        };
        self.carry_on::<O, false>(exec, n, one_flow, true, burst);
    }

    /// Takes the first `n` packets of `refs` out of the tunnel. Those that are out of the ordinary go their own way; returns how many are
    /// left, at the front of `refs`, `lines` and `more`.
    #[inline(always)]
    fn pop_usual<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        kind: Kind,
        tunnel: &Tunnel,
        port: u32,
        n: usize,
    ) -> usize {
        let Scratch { more, lines, refs, .. } = &mut *self.scratch;
        let mut kept = 0;
        for i in 0..n.min(BURST_MAX) {
            let r = refs[i];
            let packet = &mut exec.batch[r as usize];
            match tunnel::pop_usual(packet, &mut more[kept], kind, &tunnel.options, port) {
                Some(filled) => {
                    lines[kept] = LINE_BASE | filled;
                    refs[kept] = r;
                    kept += 1;
                }
                None => {
                    exec.depth = 0;
                    exec.tunnel_pop(port, &[r]);
                    exec.depth = 1;
                }
            }
        }
        kept
    }

    /// The base lines of the first `n` packets, which are just out of a tunnel. Those of a rarer kind are to be looked up with others of their
    /// depth; returns how many are left, at the front.
    #[inline(always)]
    fn extract_popped<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) -> usize {
        let Scratch { base, more, lines, refs, len: lens, .. } = &mut *self.scratch;
        let (mut tcp_flags, mut longest, mut bytes, mut kept) = (0, 0, 0, 0);
        for i in 0..n.min(BURST_MAX) {
            let r = refs[i];
            let packet = &mut exec.batch[r as usize];
            let len = packet.len();
            let Some(line) = extract_base(packet) else {
                if exec.give_tunnel(r, &more[i], lines[i]) {
                    exec.look_up_again(r, 1);
                } else {
                    exec.end(r, Fate::Dropped(DropReason::NoBuffer));
                }
                continue;
            };
            base[kept] = line;
            lens[kept] = len as u16;
            tcp_flags |= line[3];
            longest = longest.max(len);
            bytes += len as u64;
            if kept != i {
                (refs[kept], lines[kept]) = (r, lines[i]);
                more.copy_within(i..=i, kept);
            }
            kept += 1;
        }
        self.scratch.tcp_flags = tcp_flags & TCP_FLAGS_WORD;
        (self.scratch.longest, self.scratch.bytes) = (longest, bytes);
        kept
    }

    /// Of a later round all of whose packets have the same `lines` of their keys: their hashes, or true if they look the same to all flows.
    #[inline(always)]
    fn hash_or_compare(&mut self, n: usize, lines: LineSet) -> bool {
        let (view, cache) = (self.view, self.cache.view());
        let Scratch { base, more, hash, patience, .. } = &mut *self.scratch;
        if !view.differ_beyond(&more[..n], lines) {
            if patience[1] == 0 {
                if !view.differ(&base[..n]) {
                    return true;
                }
                patience[1] = PATIENCE;
            }
            view.cache_hashes(&base[..n], &more[0], lines, |i, it| {
                hash[i] = it;
                cache.prefetch(it);
            });
        } else {
            self.hash_all(n);
        }
        false
    }

    /// Keys of the packets in `refs`, and their hashes unless all packets look the same to every installed flow: then
    /// this returns true, and one lookup serves them all. Invalid packets are ended; their `lines` are 0.
    #[inline(always)]
    fn extract<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) -> bool {
        for i in 0..n.min(AHEAD) {
            exec.packet(self.scratch.refs[i]).prefetch();
        }
        let (mut tcp_flags, mut longest, mut bytes) = (0, 0, 0);
        // Comparing with the first packet is a third of the work of hashing and looking up. It is tried only where the last
        // round suggests that it will do.
        let mut comparing = self.scratch.patience[0] == 0;
        let view = self.view;
        self.scratch.plain = true;
        for i in 0..n {
            if i + AHEAD < n {
                exec.batch[i + AHEAD].prefetch();
            }
            let packet = &mut exec.batch[i];
            self.scratch.len[i] = packet.len() as u16;
            longest = longest.max(packet.len());
            bytes += packet.len() as u64;
            let hash = match extract_base(packet) {
                Some(line) => {
                    tcp_flags |= line[3];
                    self.scratch.base[i] = line;
                    self.scratch.lines[i] = LINE_BASE;
                    if comparing {
                        continue;
                    }
                    view.cache_hash(PacketKey { base: &line, lines: LINE_BASE, more: &self.scratch.more[i] })
                }
                None => {
                    if core::mem::take(&mut comparing) {
                        self.hash_all(i);
                    }
                    self.extract_any(exec, self.scratch.refs[i], i, &mut tcp_flags)
                }
            };
            self.cache.view().prefetch(hash);
            self.scratch.hash[i] = hash;
        }
        self.scratch.tcp_flags = tcp_flags & TCP_FLAGS_WORD;
        self.scratch.longest = longest;
        self.scratch.bytes = bytes;
        if comparing && self.view.differ(&self.scratch.base[..n]) {
            self.hash_all(n);
            self.scratch.patience[0] = PATIENCE;
            comparing = false;
        }
        comparing
    }

    /// As `extract`, of a later round: most packets have just come out of one tunnel, and their headers are at hand.
    #[inline(always)]
    fn extract_again<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) -> bool {
        let (mut tcp_flags, mut longest, mut bytes) = (0, 0, 0);
        let (mut extras, mut told) = (0, 0);
        // So many packets from the front are of one kind: with a tunnel line, or without.
        let (mut alike, mut kind) = (0, LINE_BASE);
        self.scratch.plain = false;
        for i in 0..n {
            let r = self.scratch.refs[i];
            extras |= u16::from(r >= EXTRA_BASE);
            let (packet, ext) = exec.packet_and_ext(r);
            let len = packet.len();
            self.scratch.len[i] = len as u16;
            longest = longest.max(len);
            bytes += len as u64;
            let (known, lines) = if packet.ext == 0 {
                (extract_base(packet), LINE_BASE)
            } else {
                // What the sink is told of when it goes.
                told |= u32::from(ext.cut) | ext.skb_priority | u32::from(ext.lines & !(LINE_TUNNEL | LINE_OPTIONS));
                let tunnel = &mut self.scratch.more[i].tunnel;
                (extract_base_and_tunnel(packet, ext, tunnel), LINE_BASE | LINE_TUNNEL)
            };
            match known {
                Some(line) => {
                    tcp_flags |= line[3];
                    self.scratch.base[i] = line;
                    self.scratch.lines[i] = lines;
                    if i == 0 {
                        kind = lines;
                    }
                    if alike == i && lines == kind {
                        alike += 1;
                    } else {
                        self.scratch.hash[i] = self.view.cache_hash(self.key(i as u16));
                    }
                }
                None => self.scratch.hash[i] = self.extract_any(exec, r, i, &mut tcp_flags),
            }
        }
        self.scratch.tcp_flags = tcp_flags & TCP_FLAGS_WORD;
        self.scratch.longest = longest;
        self.scratch.bytes = bytes;
        self.scratch.sheds = extras == 0 && told == 0;
        if alike == n {
            return self.hash_or_compare(n, kind);
        }
        for i in 0..alike {
            self.scratch.hash[i] = self.view.cache_hash(self.key(i as u16));
        }
        let cache = self.cache.view();
        self.scratch.hash[..n].iter().for_each(|&hash| cache.prefetch(hash));
        false
    }

    /// Of a later round. If all its packets are only `output`, their rarer metadata is not needed any more, and without it they are as plain as
    /// those of a first round, unless one of them is a copy or is to be cut. Else those that are `bare` get a place for it.
    #[inline(always)]
    fn keep_or_shed<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, bare: bool, output: bool) {
        if !output {
            if bare {
                self.keep(exec, n);
            }
        } else if self.scratch.sheds {
            if !bare {
                self.scratch.refs[..n].iter().for_each(|&r| exec.free_ext(r));
            }
            self.scratch.plain = true;
        }
    }

    /// Gives `n` packets a place for their tunnel metadata. There are as many places as packets can be.
    #[inline(never)]
    fn keep<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) {
        for i in 0..n {
            let (r, lines) = (self.scratch.refs[i], self.scratch.lines[i]);
            let given = exec.give_tunnel(r, &self.scratch.more[i], lines);
            debug_assert!(given, "the batch and its copies fit the table");
        }
    }

    /// The hashes of the first `n` packets, which the round left out in vain.
    #[inline(never)]
    fn hash_all(&mut self, n: usize) {
        for i in 0..n {
            let hash = self.view.cache_hash(self.key(i as u16));
            self.cache.view().prefetch(hash);
            self.scratch.hash[i] = hash;
        }
    }

    /// One lookup for all packets of the round, and their flow if the cache knows it.
    #[inline(always)]
    fn exact_once(&mut self, n: usize) -> Option<u32> {
        self.missed.clear();
        let key = self.key(0);
        let hash = self.view.cache_hash(key);
        let number = self.cache.view().lookup(hash).unwrap_or(NO_FLOW);
        let hit = match self.view.flow(number) {
            // The packets look the same to the flows of the burst's beginning. One that is newer may tell them apart: its number, reused,
            // can be in the cache.
            Some(flow) => {
                flow.matches(key)
                    && self.view.knows_base_of(flow)
                    && (key.lines == LINE_BASE || self.view.knows_beyond_of(flow))
            }
            None => false,
        };
        if hit {
            self.counters.exact_hits.add(n as u64);
            return Some(number);
        }
        self.scratch.hash[..n].fill(hash);
        self.scratch.flow[..n].fill(NO_FLOW);
        self.missed.extend(0..n as u16);
        None
    }

    /// The parser for whatever is not the most frequent kind of packet.
    #[inline(never)]
    fn extract_any<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        r: u16,
        at: usize,
        tcp_flags: &mut u64,
    ) -> u64 {
        let options = exec.settings.extract;
        let mut packet = exec.packet(r).take();
        self.scratch.plain &= packet.ext == 0;
        let result = {
            let ext = exec.executor.ext(packet.ext);
            extract::extract(&mut packet, ext, options, &mut self.scratch.more[at])
        };
        *exec.packet(r) = packet;
        match result {
            Ok(lines) => {
                self.scratch.lines[at] = lines;
                self.scratch.base[at] = self.scratch.more[at].lines()[0];
                *tcp_flags |= self.scratch.base[at][3];
                self.view.cache_hash(self.key(at as u16))
            }
            Err(reason) => {
                self.scratch.lines[at] = 0;
                self.scratch.base[at] = [u64::MAX; 8];
                exec.end(r, Fate::Dropped(reason));
                0
            }
        }
    }

    #[inline(always)]
    fn key(&self, i: u16) -> PacketKey<'_> {
        let i = i as usize;
        PacketKey { base: &self.scratch.base[i], lines: self.scratch.lines[i], more: &self.scratch.more[i] }
    }

    /// The whole key of position `i`.
    fn whole_key(&self, i: u16) -> FlowKey {
        let mut key = self.scratch.more[i as usize];
        key.lines_mut()[0] = self.scratch.base[i as usize];
        extract::clear_unused(&mut key, self.scratch.lines[i as usize]);
        key
    }

    /// Asks the exact-match cache; positions that it does not answer go to `missed`.
    #[inline(always)]
    fn exact(&mut self, n: usize) {
        let (view, cache, cells) = (self.view, self.cache.view(), self.column.cells());
        let Scratch { base, lines, more, hash, flow, out, .. } = &mut *self.scratch;
        self.missed.clear();
        for (flow, &hash) in flow[..n].iter_mut().zip(&hash[..n]) {
            *flow = cache.lookup(hash).unwrap_or(NO_FLOW);
            view.prefetch(*flow);
        }
        // Counted are the rarer cases.
        let (mut misses, mut others) = (0, 0);
        for i in 0..n {
            let number = flow[i];
            // An ended packet has no lines, and no flow must match it, not even one that matches everything.
            let found = match view.flow(number) {
                Some(found)
                    if lines[i] != 0
                        && found.matches_base(&base[i])
                        && (found.is_base() || beyond_base(found, &base[i], lines[i], &more[i])) =>
                {
                    found
                }
                _ => {
                    misses += 1;
                    flow[i] = NO_FLOW;
                    if lines[i] != 0 {
                        self.missed.push(i as u16);
                    }
                    continue;
                }
            };
            if let Some(cell) = cells.get(number as usize) {
                crate::wire::simd::prefetch(cell);
            }
            match found.value.only_output() {
                Some(port) => out[i] = port,
                None => others += 1,
            }
        }
        self.scratch.outs = n - misses - others;
        self.counters.exact_hits.add((n - misses) as u64);
    }

    /// Counts and outputs a round all of whose packets go to the port in `out` and nowhere else. Packets in a row for one port are
    /// queued together; to group them by flow would cost more than it saves.
    #[inline(always)]
    fn forward<O: Observer, const FIRST: bool>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) {
        let (cells, now) = (self.column.cells(), exec.settings.now);
        let Scratch { base, flow, out, len, tcp_flags, .. } = &*self.scratch;
        let (first, first_flow) = (out[0], flow[0]);
        let (mut ports, mut flows) = (0, 0);
        let mut each = |i: usize, flags: u64| {
            ports |= out[i] ^ first;
            flows |= flow[i] ^ first_flow;
            if let Some(cell) = cells.get(flow[i] as usize) {
                cell.count(1, u64::from(len[i]), flags, now);
            }
        };
        if *tcp_flags == 0 {
            (0..n).for_each(|i| each(i, 0));
        } else {
            (0..n).for_each(|i| each(i, tcp_flags_of(base[i][3] & TCP_FLAGS_WORD)));
        }
        self.scratch.learn::<FIRST>(flows == 0);
        let scratch = &*self.scratch;
        if ports == 0 {
            return exec.output_plain(first, &scratch.refs[..n], scratch.longest);
        }
        let mut start = 0;
        while start < n {
            let port = scratch.out[start];
            let len = scratch.out[start..n].iter().take_while(|&&out| out == port).count();
            exec.output_plain(port, &scratch.refs[start..start + len], scratch.longest);
            start += len;
        }
    }

    /// Asks the megaflow table for what is in `missed`.
    #[inline(never)]
    fn megaflow(&mut self) {
        let asked = self.missed.len();
        let Scratch { base, lines, more, flow, out, outs, hash, .. } = &mut *self.scratch;
        let key = |i: u16| PacketKey { base: &base[i as usize], lines: lines[i as usize], more: &more[i as usize] };
        let cache = &mut *self.cache;
        let probes = self.view.lookup_burst(self.missed, key, |i, number, found| {
            flow[i as usize] = number;
            if let Some(port) = found.value.only_output() {
                out[i as usize] = port;
                *outs += 1;
            }
            cache.insert(hash[i as usize], number);
        });
        self.counters.megaflow_hits.add((asked - self.missed.len()) as u64);
        self.counters.subtable_probes.add(probes);
    }

    /// Upcalls for what is left in `missed`.
    #[cold]
    #[inline(never)]
    fn upcall<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, burst: &Burst<'_>) {
        for at in 0..self.missed.len() {
            let i = self.missed[at];
            // An earlier miss of this burst may have installed the flow. A fresh view also sees a mask that is new.
            let datapath = exec.outside.datapath;
            let view = datapath.shared.megaflows.view(burst);
            if let (Some((number, _)), probes) = view.lookup(self.key(i)) {
                self.scratch.flow[i as usize] = number;
                self.counters.megaflow_hits.add(1);
                self.counters.subtable_probes.add(probes as u64);
                if O::ACTIVE {
                    self.tell(exec, [i], Tier::Megaflow);
                }
                continue;
            }
            self.counters.misses.add(1);
            let key = self.whole_key(i);
            let r = self.scratch.refs[i as usize];
            if O::ACTIVE {
                let (packet, _, outside) = exec.watched(r);
                outside.observer.lookup(r, packet, &key, Tier::Miss, None);
            }
            miss(exec, r, &key);
        }
    }

    /// Groups the round's packets by flow, counts them, and runs the flows' actions.
    #[inline(always)]
    fn execute<O: Observer, const FIRST: bool>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, burst: &Burst<'_>) {
        let first = self.scratch.flow[0];
        let others = self.scratch.flow[..n].iter().fold(0, |d, f| d | f ^ first);
        self.scratch.learn::<FIRST>(others == 0);
        if others == 0 {
            if first != NO_FLOW && n != 0 {
                self.one_flow::<O, FIRST>(exec, first, n, burst);
            }
            return;
        }
        self.by_flow::<O, FIRST>(exec, n, burst);
    }

    /// Counts and runs the whole round as one group.
    #[inline(always)]
    fn one_flow<O: Observer, const FIRST: bool>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        number: u32,
        n: usize,
        burst: &Burst<'_>,
    ) {
        let (bytes, flags) = (self.scratch.bytes, self.scratch.tcp_flags);
        self.whole::<O, FIRST>().group(exec, number, &self.scratch.refs[..n], bytes, flags, burst);
    }

    /// The round's packets are of several flows.
    #[inline(always)]
    fn by_flow<O: Observer, const FIRST: bool>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, burst: &Burst<'_>) {
        let Groups { slots, flow, len, of, sorted } = &mut *self.groups;
        let scratch = &*self.scratch;
        slots.fill(0);
        let mut groups = 0usize;
        for (i, of) in of[..n].iter_mut().enumerate() {
            let number = scratch.flow[i];
            let slot = &mut slots[number as usize % SLOTS];
            let g = *slot as usize;
            if g < groups && flow[g % BURST_MAX] == number {
                len[g % BURST_MAX] += 1;
                *of = g as u16;
            } else {
                flow[groups % BURST_MAX] = number;
                len[groups % BURST_MAX] = 1;
                *of = groups as u16;
                *slot = groups as u16;
                groups += 1;
            }
        }
        let groups = groups.min(BURST_MAX);
        if groups == n {
            return self.singles::<O, FIRST>(exec, n, burst);
        }
        // Where each group starts in `sorted`, then its members in order of arrival.
        let mut start = 0;
        let mut starts = [0u16; BURST_MAX];
        for g in 0..groups {
            starts[g] = start;
            start += len[g];
        }
        for (i, &g) in of[..n].iter().enumerate() {
            let at = &mut starts[g as usize % BURST_MAX];
            sorted[*at as usize % BURST_MAX] = i as u16;
            *at += 1;
        }
        let mut start = 0usize;
        let mut refs = [0u16; BURST_MAX];
        for g in 0..groups {
            let members = &self.groups.sorted[start..start + self.groups.len[g] as usize];
            let number = self.groups.flow[g];
            start += members.len();
            if number == NO_FLOW {
                continue;
            }
            let (mut bytes, mut flags) = (0u64, 0u64);
            for (out, &i) in refs.iter_mut().zip(members) {
                let i = i as usize % BURST_MAX;
                bytes += u64::from(self.scratch.len[i]);
                flags |= self.scratch.base[i][3];
                *out = self.scratch.refs[i];
            }
            self.whole::<O, FIRST>().group(exec, number, &refs[..members.len()], bytes, flags & TCP_FLAGS_WORD, burst);
        }
    }

    /// Each packet of the round has its own flow.
    #[inline(always)]
    fn singles<O: Observer, const FIRST: bool>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, burst: &Burst<'_>) {
        let whole = self.whole::<O, FIRST>();
        for i in 0..n {
            let number = self.scratch.flow[i];
            if number == NO_FLOW {
                continue;
            }
            let r = if FIRST { i as u16 } else { self.scratch.refs[i] };
            let flags = if self.scratch.tcp_flags == 0 { 0 } else { self.scratch.base[i][3] & TCP_FLAGS_WORD };
            whole.group(exec, number, &[r], u64::from(self.scratch.len[i]), flags, burst);
        }
    }

    /// What running a group needs.
    #[inline(always)]
    fn whole<O: Observer, const FIRST: bool>(&self) -> Whole<'a, 'b> {
        let Scratch { plain, longest, .. } = *self.scratch;
        Whole { view: self.view, column: self.column, plain, longest, defers: FIRST && plain && !O::ACTIVE }
    }

    /// Tells an observer about those of `positions` whose flow `tier` has just found.
    fn tell<O: Observer>(&self, exec: &mut Running<'_, '_, O>, positions: impl IntoIterator<Item = u16>, tier: Tier) {
        for i in positions {
            let number = self.scratch.flow[i as usize];
            if number != NO_FLOW {
                let key = self.whole_key(i);
                let r = self.scratch.refs[i as usize];
                let (packet, _, outside) = exec.watched(r);
                outside.observer.lookup(r, packet, &key, tier, Some(number));
            }
        }
    }
}

/// True if the flow, which looks at further lines, matches in them.
#[inline(always)]
fn beyond_base(flow: &Entry<FlowValue>, base: &Line, lines: LineSet, more: &FlowKey) -> bool {
    let at_hand = if lines & LINE_TUNNEL != 0 { flow.matches_tunnel(more, lines) } else { None };
    at_hand.unwrap_or_else(|| further(flow, base, lines, more))
}

/// Packets whose flow was removed after it had been found, earlier in this burst: another flow may match them, else they go up.
#[cold]
#[inline(never)]
fn look_up_again<O: Observer>(exec: &mut Running<'_, '_, O>, column: &FlowColumn, refs: &[u16], burst: &Burst<'_>) {
    let (datapath, counters) = (exec.outside.datapath, exec.outside.counters);
    let view = datapath.shared.megaflows.view(burst);
    for &r in refs {
        let key = match exec.key(r) {
            Ok(key) => key,
            Err(reason) => {
                exec.end(r, Fate::Dropped(reason));
                continue;
            }
        };
        let (found, probes) = view.lookup(PacketKey::whole(&key));
        counters.subtable_probes.add(probes as u64);
        if O::ACTIVE {
            let (tier, number) = found.map_or((Tier::Miss, None), |(number, _)| (Tier::Megaflow, Some(number)));
            let (packet, _, outside) = exec.watched(r);
            outside.observer.lookup(r, packet, &key, tier, number);
        }
        let Some((number, entry)) = found else {
            counters.misses.add(1);
            miss(exec, r, &key);
            continue;
        };
        counters.megaflow_hits.add(1);
        if let Some(cell) = column.cell(number) {
            let flags = tcp_flags_of(key.lines()[0][3] & TCP_FLAGS_WORD);
            cell.count(1, exec.packet(r).len() as u64, flags, exec.settings.now);
        }
        exec.run(entry.value.program(burst), &[r], None);
    }
}

/// No flow matches packet `r`: asks the handler.
fn miss<O: Observer>(exec: &mut Running<'_, '_, O>, r: u16, key: &FlowKey) {
    let published = exec.outside.published;
    let Some(handler) = &published.handler else {
        return exec.end(r, Fate::Dropped(DropReason::Miss));
    };
    if !published.upcalls_enabled {
        return exec.end(r, Fate::Dropped(DropReason::UpcallLost));
    }
    let now = exec.settings.now;
    let mut packet = exec.packet(r).take();
    // The place of the rarer metadata stays here, also when the handler keeps the packet.
    let place = core::mem::take(&mut packet.ext);
    let ext = exec.executor.ext(place).cloned();
    let is_copy = exec.is_copy(r);
    let answer = handler.miss(Miss { packet: &mut packet, ext: ext.as_ref(), key, is_copy, now });
    packet.ext = place;
    let fate = match answer {
        Answer::Execute { actions, install } => {
            *exec.packet(r) = packet;
            if let Some(install) = install {
                let put = FlowPut {
                    ufid: install.ufid,
                    idle_timeout_ns: install.idle_timeout_ns,
                    hard_timeout_ns: install.hard_timeout_ns,
                    now,
                    ..FlowPut::create(key, &install.mask, install.actions.unwrap_or_else(|| actions.clone()))
                };
                // Another worker may have been faster; then its flow stands.
                match exec.outside.datapath.flow_put(put) {
                    Ok(_) | Err(super::FlowError::Exists) => {}
                    Err(_) => exec.outside.counters.flows_refused.add(1),
                }
            }
            match Program::compile(&actions) {
                Ok(program) => exec.run(&program, &[r], None),
                Err(_) => exec.end(r, Fate::Dropped(DropReason::UnsupportedAction)),
            }
            return;
        }
        Answer::Consumed => Fate::Upcall,
        Answer::Queue => {
            if let Some(ext) = &ext {
                exec.outside.ends(&packet, ext);
            }
            exec.executor.free_ext(&mut packet);
            exec.outside.queue(&mut packet, key, None, is_copy)
        }
        Answer::Refuse => Fate::Dropped(DropReason::UpcallRefused),
        Answer::Drop(reason) => Fate::Dropped(reason),
    };
    *exec.packet(r) = packet;
    exec.end(r, fate);
}

/// Not inlined, so that a key is put together only where it is needed.
#[inline(never)]
fn further(flow: &Entry<FlowValue>, base: &Line, lines: LineSet, more: &FlowKey) -> bool {
    flow.matches_further(PacketKey { base, lines, more })
}

/// Where a base line's word 3 has the TCP flags.
const TCP_FLAGS_WORD: u64 = if cfg!(target_endian = "little") { 0xffff << 32 } else { 0xffff << 16 };

/// TCP flags in host order from [`TCP_FLAGS_WORD`].
#[inline(always)]
fn tcp_flags_of(word: u64) -> u64 {
    u64::from(if cfg!(target_endian = "little") { ((word >> 32) as u16).swap_bytes() } else { (word >> 16) as u16 })
}

/// The executor's outside: the sink, the observer, the handler, the ring.
struct Outer<'o, O> {
    sink: &'o mut dyn Sink,
    observer: &'o mut O,
    published: &'o Published,
    datapath: &'o Datapath,
    counters: &'o WorkerCounters,
    now: Nanos,
    burst: &'o Burst<'o>,
}

impl<O> Outer<'_, O> {
    /// Puts a packet onto the upcall ring, in a pool buffer; the packet's fate.
    fn queue(&mut self, packet: &mut Packet, key: &FlowKey, request: Option<&Arc<Userspace>>, is_copy: bool) -> Fate {
        let pool = self.datapath.pool();
        let queued = if packet.owner() == Owner::Pool { Some(packet.take()) } else { copy_to(pool, packet) };
        let Some(mut queued) = queued else {
            return Fate::Dropped(DropReason::NoBuffer);
        };
        // The metadata's place is the worker's to free; the key has all of it.
        queued.ext = 0;
        let upcall = Upcall { packet: queued, key: *key, is_copy, request: request.cloned() };
        match self.datapath.shared.upcalls.push(upcall) {
            Ok(()) => Fate::Upcall,
            Err(mut back) => {
                pool.free(&mut back.packet);
                Fate::Dropped(DropReason::UpcallLost)
            }
        }
    }
}

fn copy_to(pool: &crate::packet::Pool, packet: &Packet) -> Option<Packet> {
    let mut copy = pool.packet(packet.data())?;
    copy.copy_metadata(packet);
    copy.ext = 0;
    Some(copy)
}

impl<O: Observer> Outside for Outer<'_, O> {
    const WATCHED: bool = O::STEPS;

    fn step(&mut self, r: u16, step: Step<'_>) {
        self.observer.step(r, step);
    }

    #[inline]
    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        self.sink.transmit(port, burst)
    }

    #[inline]
    fn shares(&self) -> bool {
        self.sink.shares()
    }

    fn sends(&mut self, port: u32, packet: &Packet, ext: &Ext) {
        self.sink.sends(port, packet, ext);
    }

    fn ends(&mut self, packet: &Packet, ext: &Ext) {
        self.sink.ends(packet, ext);
    }

    fn userspace(
        &mut self,
        request: &Arc<Userspace>,
        packet: &mut Packet,
        ext: Option<&Ext>,
        is_copy: bool,
    ) -> Result<Vec<Action>, Fate> {
        let _ = (self.counters, self.burst);
        if !self.published.upcalls_enabled {
            return Err(Fate::Dropped(DropReason::UpcallLost));
        }
        let key = extract::extract_whole(packet, ext, self.datapath.shared.extract).map_err(Fate::Dropped)?;
        let Some(handler) = &self.published.handler else {
            return Err(self.queue(packet, &key, Some(request), is_copy));
        };
        match handler.punt(Punt { packet, ext, key: &key, is_copy, request, now: self.now }) {
            Answer::Execute { actions, .. } => Ok(actions),
            Answer::Consumed => Err(Fate::Upcall),
            Answer::Queue => Err(self.queue(packet, &key, Some(request), is_copy)),
            Answer::Refuse => Err(Fate::Dropped(DropReason::UpcallRefused)),
            Answer::Drop(reason) => Err(Fate::Dropped(reason)),
        }
    }

    fn undeliverable(
        &mut self,
        tunnel: u32,
        id: Option<u32>,
        obstacle: Obstacle,
        packet: &mut Packet,
        ext: Option<&Ext>,
        is_copy: bool,
    ) -> Result<Vec<Action>, Fate> {
        let reason = match obstacle {
            Obstacle::Unresolved => DropReason::Unresolved,
            Obstacle::TooBig { .. } => DropReason::TooBig,
        };
        let (Some(handler), true) = (&self.published.handler, self.published.upcalls_enabled) else {
            return Err(Fate::Dropped(reason));
        };
        let key = extract::extract_whole(packet, ext, self.datapath.shared.extract).map_err(Fate::Dropped)?;
        let now = self.now;
        match handler.undeliverable(Undeliverable { packet, ext, key: &key, is_copy, tunnel, id, obstacle, now }) {
            Answer::Execute { actions, .. } => Ok(actions),
            Answer::Consumed => Err(Fate::Upcall),
            Answer::Queue | Answer::Refuse => Err(Fate::Dropped(reason)),
            Answer::Drop(reason) => Err(Fate::Dropped(reason)),
        }
    }
}
