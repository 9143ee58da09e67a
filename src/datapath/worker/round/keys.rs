//! Keys of a round's packets, and their hashes.

use super::*;
use crate::flow::extract::extract_base_and_tunnel;
use crate::packet::Packet;

impl Scratch {
    /// The base lines of packets `from` up to the first of a rarer kind, whose place is returned, but at most up to `n`. Nothing else is in
    /// this loop, so that what it needs is in registers.
    #[inline(always)]
    fn extract_usual(&mut self, batch: &mut [Packet], from: usize, n: usize, tcp_flags: &mut u64) -> usize {
        let n = n.min(batch.len());
        for i in from..n {
            if let Some(ahead) = batch.get(i + AHEAD) {
                ahead.prefetch();
            }
            let packet = &mut batch[i];
            let Some(line) = extract_base(packet) else { return i };
            *tcp_flags |= line[3];
            self.len[i] = packet.len() as u16;
            self.base[i] = line;
        }
        n
    }

    /// What is to be known of all `n` packets, whose lengths are at hand; `tcp_flags` are all words 3 of their base lines.
    #[inline(always)]
    pub(super) fn sum_up(&mut self, n: usize, tcp_flags: u64) {
        self.tcp_flags = tcp_flags & TCP_FLAGS_WORD;
        self.longest = self.len[..n].iter().copied().max().unwrap_or(0).into();
        self.bytes = self.len[..n].iter().map(|&len| u32::from(len)).sum::<u32>().into();
    }
}

impl Round<'_, '_> {
    /// Of a later round all of whose packets have the same `lines` of their keys: their hashes, or true if they look the same to all flows.
    #[inline(always)]
    pub(super) fn hash_or_compare(&mut self, n: usize, lines: LineSet) -> bool {
        let Scratch { base, more, .. } = &*self.scratch;
        if !self.view.differ_beyond(&base[0], &more[..n], lines) {
            return self.hash_or_compare_bases(n, lines);
        }
        self.hash_all(n);
        false
    }

    /// As [`hash_or_compare`](Self::hash_or_compare), of packets that flows can tell apart by line 0 alone.
    #[inline(always)]
    pub(super) fn hash_or_compare_bases(&mut self, n: usize, lines: LineSet) -> bool {
        let (view, cache) = (self.view, self.cache.view());
        let Scratch { base, more, hash, patience, .. } = &mut *self.scratch;
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
        false
    }

    /// Keys of the packets in `refs`, and their hashes unless all packets look the same to every installed flow: then
    /// this returns true, and one lookup serves them all. Invalid packets are ended; their `lines` are 0.
    #[inline(always)]
    pub(super) fn extract<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) -> bool {
        for i in 0..n.min(AHEAD) {
            exec.packet(self.scratch.refs[i]).prefetch();
        }
        // Comparing with the first packet is a third of the work of hashing and looking up. It is tried only where the last
        // round suggests that it will do.
        let mut comparing = self.scratch.patience[0] == 0;
        self.scratch.plain = true;
        self.scratch.lines[..n].fill(LINE_BASE);
        let (mut i, mut tcp_flags) = (0, 0);
        loop {
            i = self.scratch.extract_usual(exec.batch, i, n, &mut tcp_flags);
            if i >= n {
                break;
            }
            comparing = false;
            let r = self.scratch.refs[i];
            self.scratch.len[i] = exec.packet(r).len() as u16;
            self.extract_any(exec, r, i, &mut tcp_flags);
            i += 1;
        }
        self.scratch.sum_up(n, tcp_flags);
        if comparing {
            if !self.view.differ(&self.scratch.base[..n]) {
                return true;
            }
            self.scratch.patience[0] = PATIENCE;
        }
        self.hash(n);
        false
    }

    /// The hashes of the first `n` packets. A loop of its own needs fewer registers than one in which packets are parsed too.
    #[inline(always)]
    fn hash(&mut self, n: usize) {
        let (view, cache) = (self.view, self.cache.view());
        let Scratch { base, more, lines, hash, .. } = &mut *self.scratch;
        // Most bursts are of one port.
        let word = base[0][0];
        let union = view.union_of(word);
        for i in 0..n {
            hash[i] = if lines[i] == LINE_BASE && base[i][0] == word {
                view.cache_hash_of_base(&base[i], union)
            } else {
                view.cache_hash(PacketKey { base: &base[i], lines: lines[i], more: &more[i] })
            };
            cache.prefetch(hash[i]);
        }
    }

    /// As `extract`, of a later round: most packets have just come out of one tunnel, and their headers are at hand.
    #[inline(always)]
    pub(super) fn extract_again<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, n: usize) -> bool {
        let (mut tcp_flags, mut longest, mut bytes) = (0, 0, 0);
        let (mut extras, mut told) = (0, 0);
        // So many packets from the front are of one kind: with a tunnel line, or without.
        let (mut alike, mut kind) = (0, LINE_BASE);
        // Bits in which their words 0 differ: packets of different classes are looked at by different flows.
        let (mut word, mut words) = (0, 0);
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
                        (kind, word) = (lines, line[0]);
                    }
                    words |= line[0] ^ word;
                    if alike == i && lines == kind {
                        alike += 1;
                    } else {
                        self.scratch.hash[i] = self.view.cache_hash(self.key(i as u16));
                    }
                }
                None => {
                    self.extract_any(exec, r, i, &mut tcp_flags);
                    self.scratch.hash[i] = self.view.cache_hash(self.key(i as u16));
                }
            }
        }
        self.scratch.tcp_flags = tcp_flags & TCP_FLAGS_WORD;
        self.scratch.longest = longest;
        self.scratch.bytes = bytes;
        self.scratch.sheds = extras == 0 && told == 0;
        if alike == n && words == 0 {
            return self.hash_or_compare(n, kind);
        }
        for i in 0..alike {
            self.scratch.hash[i] = self.view.cache_hash(self.key(i as u16));
        }
        let cache = self.cache.view();
        self.scratch.hash[..n].iter().for_each(|&hash| cache.prefetch(hash));
        false
    }

    /// [`hash`](Self::hash) where it is rarer.
    #[inline(never)]
    pub(super) fn hash_all(&mut self, n: usize) {
        self.hash(n);
    }

    /// The parser for whatever is not the most frequent kind of packet.
    #[inline(never)]
    fn extract_any<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, r: u16, at: usize, tcp_flags: &mut u64) {
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
            }
            Err(reason) => {
                self.scratch.lines[at] = 0;
                self.scratch.base[at] = [u64::MAX; 8];
                exec.end(r, Fate::Dropped(reason));
            }
        }
    }
}
