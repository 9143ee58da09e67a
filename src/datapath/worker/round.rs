//! A round: one pass of a burst's packets over the stages, from keys to actions.

mod alike;
mod keys;
mod pop;

use super::outside::{Outer, miss};
use crate::action::execute::{Exec, Recirculated};
use crate::action::hash;
use crate::cache::exact::ExactCache;
use crate::cache::megaflow::{Entry, MegaflowView, PacketKey};
use crate::datapath::observe::{Observer, Stage, Tier};
use crate::datapath::stats::{FlowColumn, WorkerCounters};
use crate::datapath::table::FlowValue;
use crate::flow::FlowKey;
use crate::flow::extract::{self, extract_base};
use crate::flow::key::{LINE_BASE, LINE_OPTIONS, LINE_TUNNEL, Line, LineSet};
use crate::packet::{DropReason, Fate, Packet};
use crate::port::driver::{BURST_MAX, EXTRA_BASE};
use crate::sync::qsbr::Burst;
use crate::tunnel::Alike;
use crate::wire::simd::Level;

/// No flow: not looked up yet, or not found.
const NO_FLOW: u32 = u32::MAX;
/// How far ahead packet headers are fetched.
const AHEAD: usize = 6;

/// Per-burst arrays, by position in the round.
pub(super) struct Scratch {
    pub(super) refs: [u16; BURST_MAX],
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
    pub(super) bytes: u64,
    /// For how many rounds of one flow each it will not be tried whether all packets look alike. First rounds and later ones apart.
    patience: [u8; 2],
    /// As `patience`, for whole bursts that come out of one tunnel.
    pub(super) pop_patience: u8,
    /// The outer headers of such a burst.
    alike: Alike,
    /// Only the first packet's lines are in `more`, and the others' look the same to all flows; what they are is told by the bytes in front
    /// of the packets.
    unwritten: bool,
    /// Lines 1 and up of the packets that have any.
    more: Box<[FlowKey; BURST_MAX]>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Scratch {
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
            pop_patience: 1,
            alike: Alike::default(),
            unwritten: false,
            more: vec![FlowKey::default(); BURST_MAX].try_into().expect("as many as asked for"),
        }
    }

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
pub(super) struct Groups {
    /// Group of a flow number's low bits, if that group has that number.
    slots: [u16; SLOTS],
    flow: [u32; BURST_MAX],
    len: [u16; BURST_MAX],
    of: [u16; BURST_MAX],
    sorted: [u16; BURST_MAX],
}

impl Groups {
    pub(super) fn new() -> Self {
        Groups {
            slots: [0; SLOTS],
            flow: [0; BURST_MAX],
            len: [0; BURST_MAX],
            of: [0; BURST_MAX],
            sorted: [0; BURST_MAX],
        }
    }
}

/// One pass over the stages.
pub(super) struct Round<'a, 'b> {
    pub(super) view: MegaflowView<'b, FlowValue>,
    pub(super) cache: &'a mut ExactCache,
    pub(super) column: &'a FlowColumn,
    pub(super) scratch: &'a mut Scratch,
    pub(super) groups: &'a mut Groups,
    pub(super) missed: &'a mut Vec<u16>,
    pub(super) counters: &'a WorkerCounters,
    pub(super) level: Level,
}

/// What running a group of a round's packets needs, apart from the scratch.
#[derive(Clone, Copy)]
struct Whole<'a, 'b, 's> {
    view: MegaflowView<'b, FlowValue>,
    column: &'a FlowColumn,
    /// The base lines of the batch's packets, which nothing has changed yet.
    bases: Option<&'s [Line; BURST_MAX]>,
    plain: bool,
    longest: usize,
    /// Packets that are only to be taken out of a tunnel wait for the round's others.
    defers: bool,
}

impl Whole<'_, '_, '_> {
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
                if let Some(port) = program.only_pop()
                    && self.defers
                    && exec.executor.defer_pop(port, refs)
                {
                    return;
                }
                if let Some(bases) = self.bases
                    && program.hashes_first()
                {
                    if refs.len() == exec.batch.len() {
                        // Of all packets, in whatever order.
                        exec.batch.iter_mut().zip(bases).for_each(|(packet, base)| keep_hash(packet, base));
                    } else {
                        for &r in refs {
                            if let Some(packet) = exec.batch.get_mut(r as usize) {
                                keep_hash(packet, &bases[r as usize % BURST_MAX]);
                            }
                        }
                    }
                }
                exec.run(program, refs, self.plain.then_some(self.longest));
            }
        }
    }
}

pub(super) type Running<'x, 'o, O> = Exec<'x, Outer<'o, O>>;

impl<'a, 'b> Round<'a, 'b> {
    /// Carries what recirculates, in order of depth, a burst at a time, until nothing does. `again` is for that only.
    #[inline(always)]
    pub(super) fn rest<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        again: &mut Vec<Recirculated>,
        burst: &Burst<'_>,
    ) {
        loop {
            exec.executor.take_recirculated(again);
            let Some(&Recirculated { depth, .. }) = again.first() else { break };
            let n = again.iter().take(BURST_MAX).take_while(|a| a.depth == depth).count();
            for (r, a) in self.scratch.refs.iter_mut().zip(again.drain(..n)) {
                *r = a.packet;
            }
            exec.depth = depth;
            self.again(exec, n, burst);
        }
    }

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
    pub(super) fn run<O: Observer, const FIRST: bool>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        n: usize,
        burst: &Burst<'_>,
    ) {
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
                    let port = self.view.flow(number).and_then(|flow| flow.value.only_output());
                    self.keep_or_shed(exec, n, bare, port.is_some());
                    // The flow may go or change meanwhile, and what was shed cannot be had back: it is not asked again.
                    if let Some(port) = port.filter(|_| self.scratch.plain) {
                        let Scratch { bytes, tcp_flags, longest, ref refs, .. } = *self.scratch;
                        if let Some(cell) = self.column.cell(number) {
                            cell.count(n as u64, bytes, tcp_flags_of(tcp_flags), exec.settings.now);
                        }
                        exec.output_plain(port, &refs[..n], longest);
                        return;
                    }
                }
                self.one_flow::<O, FIRST>(exec, number, n, burst);
                if O::ACTIVE {
                    exec.outside.observer.stage(Stage::Execute);
                }
                return;
            }
        } else if !FIRST && self.scratch.unwritten {
            self.exact::<true>(n);
        } else {
            self.exact::<false>(n);
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
    /// Of a later round. If all its packets are only `output`, their rarer metadata is not needed any more, and without it they are as plain as
    /// those of a first round, unless one of them is a copy or is to be cut. Else those that are `bare` get a place for it.
    #[inline(always)]
    fn keep_or_shed<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize, bare: bool, output: bool) {
        if !output || O::STEPS {
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
        if self.scratch.unwritten {
            self.write_lines(exec.batch, n);
        }
        for i in 0..n {
            let (r, lines) = (self.scratch.refs[i], self.scratch.lines[i]);
            let given = exec.give_tunnel(r, &self.scratch.more[i], lines);
            debug_assert!(given, "the batch and its copies fit the table");
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
                    && self.view.knows_base_of(flow, key.base)
                    && (key.lines == LINE_BASE || self.view.knows_beyond_of(flow, key.base))
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

    /// Asks the exact-match cache; positions that it does not answer go to `missed`. With `ALIKE`, lines 1 and up of the first packet are
    /// those of all.
    #[inline(always)]
    fn exact<const ALIKE: bool>(&mut self, n: usize) {
        let (view, cache, cells) = (self.view, self.cache.view(), self.column.cells());
        let Scratch { base, lines, more, hash, flow, out, .. } = &mut *self.scratch;
        self.missed.clear();
        for (flow, &hash) in flow[..n].iter_mut().zip(&hash[..n]) {
            *flow = cache.lookup(hash).unwrap_or(NO_FLOW);
            view.prefetch(*flow);
        }
        // Counted are the rarer cases.
        let (mut misses, mut others) = (0, 0);
        // As in `exact_once`, of a flow that is newer than the view it is not known whether all packets look alike to it.
        let mut known = None;
        let mut beyond = |found: &'b Entry<FlowValue>, i: usize| {
            if !ALIKE {
                return beyond_base(found, &base[i], lines[i], &more[i]);
            }
            if !found.is_under(known) {
                if !view.knows_beyond_of(found, &base[i]) {
                    return false;
                }
                known = Some(found.mask());
            }
            beyond_base(found, &base[i], lines[i], &more[0])
        };
        for i in 0..n {
            let number = flow[i];
            // An ended packet has no lines, and no flow must match it, not even one that matches everything.
            let found = match view.flow(number) {
                Some(found)
                    if lines[i] != 0 && found.matches_base(&base[i]) && (found.is_base() || beyond(found, i)) =>
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
    fn whole<O: Observer, const FIRST: bool>(&self) -> Whole<'a, 'b, '_> {
        let Scratch { plain, longest, .. } = *self.scratch;
        let first = FIRST && plain && !O::ACTIVE;
        let bases = first.then_some(&self.scratch.base);
        Whole { view: self.view, column: self.column, bases, plain, longest, defers: first }
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

/// Keeps with `packet` the hash of its 5-tuple, which is in its base line.
#[inline(always)]
fn keep_hash(packet: &mut Packet, base: &Line) {
    hash::keep(packet, &zerocopy::transmute!(*base));
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
