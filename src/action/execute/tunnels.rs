//! The executor's part in tunnels: outer headers on and off.

use super::{Exec, Executor, Outside, Plain, Recirculated};
use crate::action::tunnel::Pushed;
use crate::action::{RECIRCULATIONS_MAX, hash, tunnel};
use crate::flow::FlowKey;
use crate::flow::key::{LINE_OPTIONS, LINE_TUNNEL, LineSet};
use crate::packet::{DropReason, Fate, Packet};
use crate::port::driver::EXTRA_BASE;
use crate::tunnel::{Moment, Obstacle, Stamp, Template};

/// True if `group` is all `n` packets of a batch, in order.
#[inline(always)]
fn is_whole(group: &[u16], n: usize) -> bool {
    group.len() == n && group.iter().zip(0u16..).fold(0, |differing, (&r, i)| differing | (r ^ i)) == 0
}

/// As [`Exec::stamp`] for all packets of the batch.
#[inline(always)]
fn stamp_all(batch: &mut [Packet], stamp: &Stamp, out_port: u32) -> usize {
    let n = batch.len();
    for (i, packet) in batch.iter_mut().enumerate() {
        if !tunnel::push_usual(packet, stamp, out_port) {
            return i;
        }
    }
    n
}

impl<'a, O: Outside> Exec<'a, O> {
    /// Puts the outer headers of tunnel `number` in front of the packets, with identifier `id` if one is given, and sends them its way.
    #[inline(never)]
    pub(super) fn encap(&mut self, number: u32, id: Option<u32>, group: &mut [u16], mut plain: Plain) {
        let tunnels = self.settings.tunnels;
        let Some(tunnel) = tunnels.get(&number) else {
            return self.end_all(group, DropReason::UnknownTunnel);
        };
        let Some(way) = &tunnel.way else {
            for &r in group.iter() {
                self.cannot_encap(number, id, Obstacle::Unresolved, r);
            }
            return;
        };
        let (template, out_port) = (&way.template, way.out_port);
        let longest = plain.unwrap_or(usize::MAX);
        let mut n = group.len();
        if longest.saturating_add(template.overhead()) > way.mtu as usize {
            n = 0;
            for i in 0..group.len() {
                let r = group[i];
                self.hash_and_cut(r);
                if self.packet(r).len() + template.overhead() > way.mtu as usize {
                    let inner_max = (way.mtu as usize).saturating_sub(template.overhead());
                    self.cannot_encap(number, id, Obstacle::TooBig { inner_max: inner_max as u32 }, r);
                } else {
                    group[n] = r;
                    n += 1;
                }
            }
        }
        let id = id.map(|id| tunnel.kind.id_bytes(id));
        let pushed = Pushed { out_port, id, moment: self.moment(number) };
        let n = self.tunnel_push(template, pushed, &mut group[..n], &mut plain);
        match plain {
            Some(longest) => self.output_plain(out_port, &group[..n], longest),
            None => self.output(out_port, &group[..n]),
        }
    }

    /// What the headers of tunnel `number` get that comes from outside.
    #[inline(always)]
    pub(super) fn moment(&self, number: u32) -> Moment<'a> {
        Moment { sequence: self.settings.sequences.of(number), now: self.settings.now }
    }

    #[cold]
    fn cannot_encap(&mut self, number: u32, id: Option<u32>, obstacle: Obstacle, r: u16) {
        self.hash_and_cut(r);
        self.hand_up(r, |outside, packet, ext, is_copy| {
            outside.undeliverable(number, id, obstacle, packet, ext, is_copy)
        });
    }

    /// Puts `template` in front of the packets; returns how many are left, at the front. They are packets of `out_port` from now on.
    #[inline(never)]
    pub(super) fn tunnel_push(
        &mut self,
        template: &Template,
        pushed: Pushed<'_>,
        group: &mut [u16],
        plain: &mut Plain,
    ) -> usize {
        if plain.is_none() {
            for &r in group.iter() {
                // What `trunc` left out, and the metadata, are of the inner packet.
                self.hash_and_cut(r);
                let ext = self.packet(r).ext;
                if ext != 0 {
                    self.executor.exts[ext as usize].clear();
                }
            }
        }
        let extract = self.settings.extract;
        // The usual group: packets of the batch with headroom, none of which fails.
        let mut done = 0;
        if let Some(stamp) = template.stamp(pushed.id) {
            if group.len() > 1 && is_whole(group, self.batch.len()) {
                done = stamp_all(self.batch, &stamp, pushed.out_port);
            }
            while done < group.len() {
                done += self.stamp(&stamp, pushed.out_port, &group[done..]);
                // One that had no hash is tried again with one; another goes the other way, as all behind it.
                let without = group.get(done).and_then(|&r| self.batch.get_mut(r as usize));
                let Some(packet) = without.filter(|packet| hash::at_hand(packet).is_none()) else { break };
                hash::five_tuple(packet, extract);
                if hash::at_hand(packet).is_none() {
                    break;
                }
            }
        } else {
            for &r in group.iter() {
                let Some(packet) = self.batch.get_mut(r as usize) else { break };
                if tunnel::push(packet, template, pushed, extract).is_err() {
                    break;
                }
                done += 1;
            }
        }
        if done < group.len() {
            return done + self.tunnel_push_any(template, pushed, &mut group[done..], plain);
        }
        if let Some(longest) = plain {
            *longest += template.len();
        }
        done
    }

    /// Puts the headers in front of packets of the batch that have a hash; returns how many they are, up to the first that is different.
    #[inline(always)]
    fn stamp(&mut self, stamp: &Stamp, out_port: u32, group: &[u16]) -> usize {
        for (i, &r) in group.iter().enumerate() {
            let Some(packet) = self.batch.get_mut(r as usize) else { return i };
            if !tunnel::push_usual(packet, stamp, out_port) {
                return i;
            }
        }
        group.len()
    }

    #[cold]
    fn tunnel_push_any(
        &mut self,
        template: &Template,
        pushed: Pushed<'_>,
        group: &mut [u16],
        plain: &mut Plain,
    ) -> usize {
        let extract = self.settings.extract;
        self.push(group, template.len(), plain, |p| tunnel::push(p, template, pushed, extract))
    }

    /// Gives packet `r` of the batch the rarer metadata that `key` has in `lines`; false if there is no place for it.
    pub fn give_tunnel(&mut self, r: u16, key: &FlowKey, lines: LineSet) -> bool {
        let Executor { exts, free_exts, .. } = &mut *self.executor;
        let Some(place) = free_exts.pop() else { return false };
        self.batch[r as usize].ext = place;
        let ext = &mut exts[place as usize];
        ext.clear();
        ext.tunnel = key.tunnel;
        ext.lines = LINE_TUNNEL;
        if lines & LINE_OPTIONS != 0 {
            // The first of the lines, see `open_usual`.
            ext.options = [0; 256];
            ext.options[..64].copy_from_slice(&key.options[..64]);
            ext.lines |= LINE_OPTIONS;
        }
        true
    }

    /// Has packet `r`, which is out of a tunnel, looked up again.
    pub fn look_up_again(&mut self, r: u16, depth: u8) {
        self.executor.tally.recirculated += 1;
        self.executor.recirculated.push(Recirculated { packet: r, depth });
    }

    /// Takes the packets out of the tunnel that comes out of `port`, and has them looked up again.
    pub fn tunnel_pop(&mut self, port: u32, group: &[u16]) {
        let depth = self.depth + 1;
        let tunnels = self.settings.tunnels;
        let tunnel = match tunnels.get(&port) {
            Some(tunnel) if depth <= RECIRCULATIONS_MAX => tunnel,
            Some(_) => return self.end_all(group, DropReason::RecirculationLimit),
            None => return self.end_all(group, DropReason::UnknownTunnel),
        };
        for &r in group {
            self.cut(r);
            let Executor { extra, exts, free_exts, .. } = &mut *self.executor;
            let packet =
                if r < EXTRA_BASE { &mut self.batch[r as usize] } else { &mut extra[(r - EXTRA_BASE) as usize] };
            if packet.ext == 0 {
                let Some(place) = free_exts.pop() else {
                    self.end(r, Fate::Dropped(DropReason::NoBuffer));
                    continue;
                };
                packet.ext = place;
                exts[place as usize].clear();
            }
            match tunnel::pop(packet, &mut exts[packet.ext as usize], tunnel, port) {
                Ok(()) => self.executor.recirculated.push(Recirculated { packet: r, depth }),
                Err(reason) => self.end(r, Fate::Dropped(reason)),
            }
        }
        self.executor.tally.recirculated += group.len() as u64;
    }
}
