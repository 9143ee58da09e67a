//! Bursts that come out of one tunnel as a whole, as those before them did.
//!
//! Only the first packet is parsed and looked up. The others' outer headers are compared with its headers (see [`Alike`]), under the mask of
//! the flow that it matched: installed flows do not overlap, so whatever the flow matches is the flow's. If one packet is different in what
//! counts, the burst goes the way of all others.

use super::*;
use crate::action::tunnel;
use crate::flow::extract::extract_base;
use crate::packet::Packet;

/// Bursts of fewer packets are not worth it.
const WORTH_IT: usize = 4;

impl<'b> Round<'_, 'b> {
    /// Takes all of the burst's `n` packets out of their tunnel and carries on with what was inside; returns how many bytes they had. `None`,
    /// and nothing is changed, if that cannot be done with all of them.
    #[inline(always)]
    pub fn pop_alike<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        n: usize,
        burst: &Burst<'_>,
    ) -> Option<u64> {
        if O::ACTIVE || self.scratch.pop_patience != 0 || !(WORTH_IT..=BURST_MAX).contains(&n) {
            return None;
        }
        self.try_pop_alike(exec, n, burst)
    }

    /// Not inlined: other bursts' loops have the registers for themselves.
    #[inline(never)]
    fn try_pop_alike<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        n: usize,
        burst: &Burst<'_>,
    ) -> Option<u64> {
        self.level.run(
            #[inline(always)]
            || {
                // As in `run`, for the compiler.
                let n = n.min(BURST_MAX);
                let Some((number, port)) = self.compare(exec, n, burst) else {
                    self.scratch.pop_patience = PATIENCE;
                    return None;
                };
                self.scratch.sum_up(n, 0);
                let bytes = self.scratch.bytes;
                self.counters.exact_hits.add(n as u64);
                if let Some(cell) = self.column.cell(number) {
                    cell.count(n as u64, bytes, 0, exec.settings.now);
                }
                exec.depth = 1;
                self.carry_inner(exec, port, n, burst);
                exec.depth = 0;
                Some(bytes)
            },
        )
    }

    /// Learns whether a burst came out of one tunnel.
    #[inline(always)]
    pub fn learn_pops(&mut self, all: bool) {
        let patience = &mut self.scratch.pop_patience;
        *patience = if all { patience.saturating_sub(1) } else { (*patience).max(1) };
    }

    /// The flow of all `n` packets and the port of the tunnel that it takes them out of, if they are all of that kind. Their lengths and the
    /// first one's lines behind line 0 are in the scratch then.
    #[inline(always)]
    fn compare<O: Observer>(
        &mut self,
        exec: &mut Running<'_, '_, O>,
        n: usize,
        burst: &Burst<'_>,
    ) -> Option<(u32, u32)> {
        let batch = &mut *exec.batch;
        batch.iter().take(AHEAD).for_each(Packet::prefetch);
        self.scratch.base[0] = extract_base(batch.first_mut()?)?;
        self.scratch.lines[0] = LINE_BASE;
        let key = self.key(0);
        let number = self.cache.view().lookup(self.view.cache_hash(key))?;
        let flow = self.view.flow(number).filter(|flow| flow.matches(key))?;
        let port = flow.value.program(burst).only_pop()?;
        let tunnel = exec.settings.tunnels.get(&port)?;
        let inner = self.view.union_of(u64::from(port)).whole();
        let Scratch { more, len, alike, .. } = &mut *self.scratch;
        *alike = Alike::of(&batch[0], &mut more[0], tunnel.kind, &tunnel.options, &flow.mask().0.base, inner)?;
        len[0] = batch[0].len() as u16;
        // A copy for the loop's registers.
        let mut taking = alike.clone();
        for i in 1..n {
            if let Some(ahead) = batch.get(i + AHEAD) {
                ahead.prefetch();
            }
            let packet = &batch[i];
            packet.prefetch_second();
            if !taking.take_in(packet) {
                return None;
            }
            len[i] = packet.len() as u16;
        }
        *alike = taking;
        Some((number, port))
    }

    /// Takes the packets out, and carries on.
    #[inline(always)]
    fn carry_inner<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, port: u32, n: usize, burst: &Burst<'_>) {
        let len = self.scratch.alike.len();
        let lines = self.scratch.alike.lines();
        self.scratch.lines[..n].fill(lines);
        self.scratch.unwritten = true;
        let mut progress = Progress::default();
        while let Some(rarer) = self.scratch.pop_known(&mut exec.batch[..n], port, &mut progress) {
            // It is looked up with others of its depth. The first one's lines are those of all, but for what the headers say.
            let r = rarer as u16;
            let Scratch { more, alike, .. } = &mut *self.scratch;
            let mut key = more[0];
            if let Some(head) = exec.batch[rarer].bytes_before(len) {
                alike.write(head, &mut key);
            }
            if exec.give_tunnel(r, &key, lines) {
                exec.look_up_again(r, 1);
            } else {
                exec.end(r, Fate::Dropped(DropReason::NoBuffer));
            }
        }
        let Progress { kept, tcp_flags, .. } = progress;
        let kept = kept.min(BURST_MAX);
        if kept != 0 {
            self.scratch.sum_up(kept, tcp_flags);
            exec.executor.tally.recirculated += kept as u64;
            (self.scratch.plain, self.scratch.sheds) = (false, true);
            if self.scratch.alike.tells_apart() {
                self.write_lines(exec.batch, kept);
            }
            let one_flow = self.hash_popped(kept, lines);
            self.carry_on::<O, false>(exec, kept, one_flow, true, burst);
        }
        self.scratch.unwritten = false;
    }

    /// Writes the lines of the first `n` packets that were left unwritten.
    #[inline(never)]
    pub(super) fn write_lines(&mut self, batch: &[Packet], n: usize) {
        let Scratch { more, refs, alike, unwritten, .. } = &mut *self.scratch;
        *unwritten = false;
        let len = alike.len();
        for (key, &r) in more[..n].iter_mut().zip(&*refs) {
            if let Some(head) = batch[r as usize].bytes_before(len) {
                alike.write(head, key);
            }
        }
    }

    /// Hashes of the first `n` packets, all of which have the same `lines` of their keys; or true if they look the same to all flows.
    #[inline(always)]
    fn hash_popped(&mut self, n: usize, lines: LineSet) -> bool {
        if self.scratch.unwritten {
            return self.hash_or_compare_bases(n, lines);
        }
        let cache = self.cache.view();
        let Scratch { base, more, hash, .. } = &mut *self.scratch;
        self.view.cache_hashes_beyond(&base[..n], &more[..n], lines, |i, it| {
            hash[i] = it;
            cache.prefetch(it);
        });
        false
    }
}

/// How far a burst has come out of its tunnel.
#[derive(Default)]
struct Progress {
    /// Packets that are out.
    out: usize,
    /// Of these, the ones that go on together.
    kept: usize,
    tcp_flags: u64,
}

impl Scratch {
    /// Takes the packets of `batch` out of their tunnel, up to the first whose inner headers are of a rarer kind, whose place is returned. Base
    /// lines and lengths of the others go next to those that are there.
    #[inline(always)]
    fn pop_known(&mut self, batch: &mut [Packet], port: u32, progress: &mut Progress) -> Option<usize> {
        let len = self.alike.len();
        for (i, packet) in batch.iter_mut().enumerate().skip(progress.out) {
            tunnel::pop_known(packet, len, port);
            let Some(line) = extract_base(packet) else {
                progress.out = i + 1;
                return Some(i);
            };
            progress.tcp_flags |= line[3];
            let at = progress.kept % BURST_MAX;
            self.base[at] = line;
            self.len[at] = packet.len() as u16;
            self.refs[at] = i as u16;
            progress.kept = at + 1;
        }
        None
    }
}
