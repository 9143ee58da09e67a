//! Packets that only come out of a tunnel: all of a round at once, and looked up again at once.

use super::*;
use crate::action::tunnel;
use crate::tunnel::{Kind, Tunnel};

impl Round<'_, '_> {
    /// Takes the packets that wait for it out of the tunnel of `port`, and gives them their second round. Those that are nothing out of the
    /// ordinary, most of them, never get a place for rarer metadata nor go through the list of those that recirculate. The others come after
    /// them: what keeps its order is packets whose headers, outer and inner, are of the same form, as those of one flow are.
    #[inline(never)]
    pub fn pop<O: Observer>(&mut self, exec: &mut Running<'_, '_, O>, port: u32, burst: &Burst<'_>) {
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
}
