//! Action lists, one packet at a time.
//!
//! A list owns its packet. An action that consumes a packet (output, recirculation, an inner list …) gets the packet itself if it comes
//! last, else a copy. A packet that is left over when its list ends counts as transmitted if copies of it were made, else it had no output.

use super::parcel::Parcel;
use super::tunnel::Headers;
use super::tunnel::pop::pop;
use super::tunnel::push::push;
use super::{Punted, Sent, Switch, encap, rewrite};
use crate::action::{RECIRCULATIONS_MAX, hash};
use crate::datapath::Answer;
use crate::flow::FlowKey;
use crate::flow::action::{Action, HashAlgorithm, SetField, Userspace};
use crate::packet::{DropReason, Fate};
use crate::tunnel::{Kind, Obstacle};

/// The shortest packet that `trunc` makes: an Ethernet header.
const TRUNCATED_MIN: usize = 14;

impl Switch {
    /// Carries out a list on a packet that it owns.
    pub(super) fn list(&mut self, mut parcel: Parcel, actions: &[Action]) {
        for (i, action) in actions.iter().enumerate() {
            let is_last = i + 1 == actions.len();
            match action {
                Action::Output(_)
                | Action::LbOutput(_)
                | Action::Userspace(_)
                | Action::Recirc(_)
                | Action::TunnelPop(_)
                | Action::Encap { .. }
                | Action::Clone(_)
                | Action::CheckPktLen { .. } => {
                    if is_last {
                        parcel.path.push(i as u32);
                        return self.consume(parcel, action);
                    }
                    let mut copy = self.copy(&mut parcel);
                    copy.path.push(i as u32);
                    self.consume(copy, action);
                }
                Action::Sample { probability, actions } => {
                    let is_chosen = match *probability {
                        0 => false,
                        u32::MAX => true,
                        _ => panic!("the oracle does not throw dice"),
                    };
                    parcel.path.push(is_chosen.into());
                    if is_chosen && is_last {
                        return self.list(parcel, actions);
                    }
                    if is_chosen {
                        let copy = self.copy(&mut parcel);
                        self.list(copy, actions);
                    }
                }
                action => {
                    if let Err(reason) = self.change(&mut parcel, action) {
                        return self.end(parcel, Fate::Dropped(reason));
                    }
                    self.longest = self.longest.max(parcel.bytes.len());
                }
            }
        }
        let fate = if parcel.was_copied { Fate::Transmitted } else { Fate::Dropped(DropReason::NoOutput) };
        self.end(parcel, fate);
    }

    fn copy(&mut self, parcel: &mut Parcel) -> Parcel {
        self.stats.copies += 1;
        let copy = Parcel { is_copy: true, was_copied: false, ..parcel.clone() };
        parcel.was_copied = true;
        // What `trunc` said was for whoever has the copy.
        parcel.cut = 0;
        copy
    }

    /// Actions with which a packet leaves its list.
    fn consume(&mut self, mut parcel: Parcel, action: &Action) {
        match action {
            Action::Output(port) => self.output(parcel, *port),
            Action::LbOutput(bond) => self.lb_output(parcel, *bond),
            Action::Userspace(request) => self.userspace(parcel, request),
            Action::Clone(actions) => self.list(parcel, actions),
            Action::CheckPktLen { len, if_greater, if_less_equal } => {
                let is_greater = parcel.bytes.len() > usize::from(*len);
                parcel.path.push(is_greater.into());
                self.list(parcel, if is_greater { if_greater } else { if_less_equal });
            }
            Action::Recirc(id) => {
                if parcel.depth == RECIRCULATIONS_MAX {
                    return self.end(parcel, Fate::Dropped(DropReason::RecirculationLimit));
                }
                parcel.depth += 1;
                parcel.recirc_id = *id;
                self.stats.recirculated += 1;
                self.recirculated_copies += usize::from(parcel.is_copy);
                self.waiting.push_back(parcel);
            }
            Action::TunnelPop(port) => self.tunnel_pop(parcel, *port),
            Action::Encap { tunnel, id } => self.encap(parcel, *tunnel, *id),
            _ => unreachable!("not a consumer: {action:?}"),
        }
    }

    fn tunnel_pop(&mut self, mut parcel: Parcel, port: u32) {
        let Some(tunnel) = self.tunnels.get(&port) else {
            return self.end(parcel, Fate::Dropped(DropReason::UnknownTunnel));
        };
        if parcel.depth == RECIRCULATIONS_MAX {
            return self.end(parcel, Fate::Dropped(DropReason::RecirculationLimit));
        }
        cut(&mut parcel);
        // Whatever is inside, it was to be looked up again.
        self.stats.recirculated += 1;
        if let Err(reason) = pop(&mut parcel, tunnel, port) {
            return self.end(parcel, Fate::Dropped(reason));
        }
        parcel.depth += 1;
        self.popped += 1;
        self.recirculated_copies += usize::from(parcel.is_copy);
        self.waiting.push_back(parcel);
    }

    fn encap(&mut self, mut parcel: Parcel, number: u32, id: Option<u32>) {
        if parcel.cut != 0 {
            self.five_tuple(&mut parcel);
        }
        cut(&mut parcel);
        let Some(tunnel) = self.tunnels.get(&number) else {
            return self.end(parcel, Fate::Dropped(DropReason::UnknownTunnel));
        };
        let Some(way) = tunnel.way.clone() else {
            return self.undeliverable(parcel, number, Obstacle::Unresolved);
        };
        let (mtu, overhead) = (way.mtu as usize, way.headers.overhead());
        if parcel.bytes.len() + overhead > mtu {
            let inner_max = mtu.saturating_sub(overhead) as u32;
            return self.undeliverable(parcel, number, Obstacle::TooBig { inner_max });
        }
        let hash = self.five_tuple(&mut parcel);
        push(&mut parcel, &way.headers, id, hash, way.out_port);
        self.longest = self.longest.max(parcel.bytes.len());
        self.pushed += 1;
        self.output(parcel, way.out_port);
    }

    /// Whoever answers upcalls may know what to do with it. The ring is not for such packets.
    fn undeliverable(&mut self, mut parcel: Parcel, tunnel: u32, obstacle: Obstacle) {
        let reason = match obstacle {
            Obstacle::Unresolved => DropReason::Unresolved,
            Obstacle::TooBig { .. } => DropReason::TooBig,
        };
        let (Some(policy), true) = (&self.policy, self.upcalls_enabled) else {
            return self.end(parcel, Fate::Dropped(reason));
        };
        let Some(key) = parcel.look(self.vlan_depth) else {
            return self.end(parcel, Fate::Dropped(DropReason::RxInvalid));
        };
        match policy.undeliverable(&key, tunnel, obstacle) {
            Answer::Execute { actions, .. } => self.list(parcel, &actions),
            Answer::Queue | Answer::Refuse => self.end(parcel, Fate::Dropped(reason)),
            other => self.answered(parcel, &key, other, None),
        }
    }

    /// Actions after which the list goes on.
    fn change(&mut self, parcel: &mut Parcel, action: &Action) -> encap::Done {
        match action {
            Action::Set(field) => {
                set_metadata(parcel, field);
                rewrite::set(parcel, field);
                Ok(())
            }
            Action::PushVlan { tpid, tci } => encap::push_vlan(parcel, *tpid, *tci),
            Action::PopVlan => {
                encap::pop_vlan(parcel, self.vlan_depth);
                Ok(())
            }
            Action::PushMpls { lse, ethertype } => encap::push_mpls(parcel, *lse, *ethertype),
            Action::AddMpls { lse, ethertype, tun_flags } => encap::add_mpls(parcel, *lse, *ethertype, *tun_flags),
            Action::PopMpls { ethertype } => encap::pop_mpls(parcel, *ethertype, self.vlan_depth),
            Action::PushEth { dst, src } => encap::push_eth(parcel, *dst, *src),
            Action::PopEth => encap::pop_eth(parcel),
            Action::PushNsh(nsh) => encap::push_nsh(parcel, nsh),
            Action::PopNsh => encap::pop_nsh(parcel, self.vlan_depth),
            Action::TunnelPush(ready) => {
                // The flow's hash, which what is left after a cut may not show.
                let hash = self.five_tuple(parcel);
                cut(parcel);
                let kind = Kind::from_number(ready.tnl_type).expect("a flow of an unknown kind is refused");
                push(parcel, &Headers::new(kind, ready.header.clone()), None, hash, ready.out_port);
                self.pushed += 1;
                Ok(())
            }
            Action::DecTtl => rewrite::dec_ttl(parcel),
            Action::Hash { algorithm, basis } => {
                parcel.dp_hash = match algorithm {
                    HashAlgorithm::L4 => hash::l4(self.five_tuple(parcel), *basis),
                    HashAlgorithm::SymL4 => hash::symmetric_l4(&self.headers(parcel), *basis),
                };
                Ok(())
            }
            Action::Trunc(len) => {
                parcel.cut = parcel.bytes.len().saturating_sub((*len as usize).max(TRUNCATED_MIN));
                Ok(())
            }
            Action::Meter(id) => {
                let len = parcel.bytes.len() as u64;
                // A meter that is not there lets everything pass.
                let is_too_much = self.meters.get_mut(id).is_some_and(|meter| meter.exceeds(self.now, len));
                if is_too_much { Err(DropReason::Meter) } else { Ok(()) }
            }
            Action::Drop(_) => Err(DropReason::Explicit),
            action => unreachable!("not a change: {action:?}"),
        }
    }

    /// The key of the bytes as they are now, for hashing; nothing else about the packet changes.
    fn headers(&self, parcel: &Parcel) -> FlowKey {
        parcel.clone().look(self.vlan_depth).unwrap_or_default()
    }

    /// The hash of the 5-tuple. Once known, it stays with the packet.
    fn five_tuple(&self, parcel: &mut Parcel) -> u32 {
        let hash = parcel.five_tuple.unwrap_or_else(|| hash::five_tuple_of_key(&self.headers(parcel)));
        if parcel.layer3.is_some() || parcel.bytes.len() >= 14 {
            parcel.five_tuple = Some(hash);
        }
        hash
    }

    fn output(&mut self, mut parcel: Parcel, number: u32) {
        let Some(port) = self.ports.get(&number) else {
            return self.end(parcel, Fate::Dropped(DropReason::InvalidPort));
        };
        if !port.is_up {
            return self.end(parcel, Fate::Dropped(DropReason::PortDown));
        }
        cut(&mut parcel);
        if parcel.bytes.len() > port.packet_len_max {
            return self.end(parcel, Fate::Dropped(DropReason::TxTooLong));
        }
        let Parcel { number: packet, path, bytes, ct_mark, .. } = &parcel;
        self.sent.push(Sent {
            packet: *packet,
            port: number,
            bytes: bytes.clone(),
            ct_mark: *ct_mark,
            path: path.clone(),
        });
        self.end(parcel, Fate::Transmitted);
    }

    fn lb_output(&mut self, mut parcel: Parcel, id: u32) {
        let hash = self.five_tuple(&mut parcel);
        cut(&mut parcel);
        let Some(bond) = self.bonds.get_mut(&id) else {
            return self.end(parcel, Fate::Dropped(DropReason::InvalidBond));
        };
        let bucket = hash as usize % bond.members.len();
        bond.bytes[bucket] += parcel.bytes.len() as u64;
        match bond.members[bucket] {
            u32::MAX => self.end(parcel, Fate::Dropped(DropReason::InvalidBond)),
            port => self.output(parcel, port),
        }
    }

    fn userspace(&mut self, mut parcel: Parcel, request: &Userspace) {
        cut(&mut parcel);
        if !self.upcalls_enabled {
            return self.end(parcel, Fate::Dropped(DropReason::UpcallLost));
        }
        let Some(key) = parcel.look(self.vlan_depth) else {
            return self.end(parcel, Fate::Dropped(DropReason::RxInvalid));
        };
        let answer = match &self.policy {
            Some(policy) => policy.punt(&key, request),
            None => Answer::Queue,
        };
        match answer {
            Answer::Execute { actions, .. } => self.list(parcel, &actions),
            other => self.answered(parcel, &key, other, Some(request)),
        }
    }

    /// Answers that end the packet.
    pub(super) fn answered(&mut self, parcel: Parcel, key: &FlowKey, answer: Answer, request: Option<&Userspace>) {
        let fate = match answer {
            Answer::Execute { .. } => unreachable!("handled by the caller"),
            Answer::Consumed => Fate::Upcall,
            Answer::Queue => {
                let bytes = parcel.bytes.clone();
                self.punted.push(Punted { bytes, key: Box::new(*key), request: request.cloned() });
                Fate::Upcall
            }
            Answer::Refuse => Fate::Dropped(DropReason::UpcallRefused),
            Answer::Drop(reason) => Fate::Dropped(reason),
        };
        self.end(parcel, fate);
    }
}

/// Leaves out what `trunc` said.
fn cut(parcel: &mut Parcel) {
    let len = parcel.bytes.len().saturating_sub(core::mem::take(&mut parcel.cut));
    parcel.bytes.truncate(len);
}

fn set_metadata(parcel: &mut Parcel, field: &SetField) {
    match field {
        SetField::Priority(m) => parcel.skb_priority = m.apply(parcel.skb_priority),
        SetField::SkbMark(m) => parcel.skb_mark = m.apply(parcel.skb_mark),
        SetField::DpHash(m) => parcel.dp_hash = m.apply(parcel.dp_hash),
        SetField::RecircId(m) => parcel.recirc_id = m.apply(parcel.recirc_id),
        SetField::Tunnel(tunnel) => parcel.tunnel = Some((**tunnel).clone()),
        _ => {}
    }
}
