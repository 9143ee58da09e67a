//! What comes in: packets for us, and packets that a tunnel could not carry.

use super::headers::outer;
use super::paths::TooBig;
use super::*;

impl Underlay {
    /// Answers for a packet that missed, if it came in on an interface; `None` else.
    pub fn miss(&self, miss: &mut Miss<'_>) -> Option<Answer> {
        let key = &miss.key.base;
        let state = &mut *lock(&self.state);
        let interface = state.interfaces.get(&key.in_port)?;
        let tci = key.vlan_tci.get();
        let is_tagged = tci & VLAN_PRESENT != 0;
        let is_right_vlan = match interface.vlan {
            Some(vlan) => is_tagged && key.vlan_tpid.get() == ethernet::VLAN && tci & 0xfff == vlan.number(),
            // VLAN 0 is a priority only.
            None => !is_tagged || key.vlan_tpid.get() == ethernet::VLAN && tci & 0xfff == 0,
        };
        let is_for_us = key.eth_dst == interface.mac || key.eth_dst[0] & 1 != 0;
        if !is_right_vlan || !is_for_us || key.eth_src[0] & 1 != 0 {
            return Some(Answer::Drop(DropReason::Policy));
        }
        let l3 = ethernet::HEADER_LEN + if is_tagged { 4 } else { 0 };
        let bytes = miss.packet.data().get(l3..).unwrap_or_default();
        Some(match key.eth_type.get() {
            ethernet::ARP => match messages::read_arp(bytes) {
                Some(message) => self.message(state, key.in_port, key.eth_src, message, miss.now),
                None => Answer::Drop(DropReason::Policy),
            },
            ethernet::IPV4 => self.ip(state, miss, bytes, IpAddr::from(key.ipv4_dst)),
            ethernet::IPV6 => match messages::read_nd(bytes) {
                Some(message) => self.message(state, key.in_port, key.eth_src, message, miss.now),
                None => self.ip(state, miss, bytes, IpAddr::from(miss.key.ipv6.dst)),
            },
            _ => Answer::Drop(DropReason::Policy),
        })
    }

    /// An IP packet for `dst`.
    fn ip(&self, state: &mut State, miss: &Miss<'_>, bytes: &[u8], dst: IpAddr) -> Answer {
        let key = &miss.key.base;
        // In a frame to a group it is for nobody (RFC 1122 §3.3.6), and each group would have a flow of its own.
        let is_ours = |interface: &&Interface| interface.has(dst) && key.eth_dst == interface.mac;
        let Some(interface) = state.interfaces.get(&key.in_port).filter(is_ours) else {
            return Answer::Drop(DropReason::Policy);
        };
        let is_tunnel = |listener: &Listener| {
            let (proto, port) = listener.carrier();
            proto == key.nw_proto && (proto == ip::GRE || key.nw_frag != 0 || port == key.tp_dst.get())
        };
        // Of a later fragment of IPv6 the key does not tell what is in it.
        let is_later_fragment = key.nw_frag != 0 && key.nw_proto == ip::FRAGMENT;
        let listener = state.listeners.iter().position(is_tunnel);
        if is_later_fragment || listener.is_some() && key.nw_frag != 0 {
            return Answer::Drop(DropReason::TunnelFragment);
        }
        if let Some(at) = listener {
            let mut mask = FlowMask::default();
            let m = &mut mask.0;
            (m.base.in_port, m.base.recirc_id, m.base.eth_dst) = (u32::MAX, u32::MAX, [0xff; 6]);
            m.base.vlan_tpid.set(0xffff);
            m.base.vlan_tci.set(VLAN_PRESENT | 0xfff);
            m.base.eth_type.set(0xffff);
            (m.base.nw_proto, m.base.nw_frag) = (0xff, 0xff);
            if dst.is_ipv4() {
                m.base.ipv4_dst = [0xff; 4];
            } else {
                m.ipv6.dst = [0xff; 16];
            }
            if key.nw_proto == ip::UDP {
                m.base.tp_dst.set(0xffff);
            }
            let actions = vec![Action::TunnelPop(LISTENERS_BEGIN + at as u32)];
            let install = Some(Install { idle_timeout_ns: FLOW_IDLE_NS, ..Install::with_mask(mask) });
            return Answer::Execute { actions, install };
        }
        if let Some(told) = paths::read(bytes) {
            return self.narrow(state, told, miss.now);
        }
        match messages::echo_reply(interface.link(), key.eth_src, bytes) {
            Some(reply) => {
                let is_sent = self.forward(&mut state.stats, &reply, u32::MAX, &[Action::Output(key.in_port)]);
                state.stats.echoes += u64::from(is_sent);
                Answer::Consumed
            }
            None => Answer::Drop(DropReason::Policy),
        }
    }

    /// A router told that a packet was too long for it; `None` if that cannot be.
    fn narrow(&self, state: &mut State, told: Option<TooBig>, now: Nanos) -> Answer {
        let is_news = |told: &TooBig| {
            let numbers = state.by_remote.get(&told.remote).into_iter().flatten();
            let mut targets = numbers.filter_map(|number| state.endpoints.get(number));
            targets.any(|target| {
                let hop = target.hop.filter(|hop| hop.source == told.source);
                let interface = hop.and_then(|hop| state.interfaces.get(&hop.next.0));
                let mtu = interface.map(|interface| interface.mtu.min(state.paths.mtu(told.remote)));
                // What is longer than the way was known to be was not sent.
                target.config.carrier() == told.carrier && mtu.is_some_and(|mtu| told.mtu < mtu && told.len <= mtu)
            }) && state.paths.takes(told.remote, told.mtu, now)
        };
        let Some(told) = told.filter(is_news) else {
            state.stats.path_errors_ignored += 1;
            return Answer::Drop(DropReason::Policy);
        };
        state.stats.paths_narrowed += 1;
        if let Some(forgotten) = state.paths.set(told.remote, told.mtu, now, PATHS_MAX) {
            self.tell_again(state, forgotten);
        }
        self.tell_again(state, told.remote);
        Answer::Consumed
    }

    /// A message of ARP or neighbour discovery, from the host at `mac`.
    fn message(&self, state: &mut State, port: u32, mac: [u8; 6], message: Message, now: Nanos) -> Answer {
        let Some(interface) = state.interfaces.get(&port) else { return Answer::Drop(DropReason::Policy) };
        let link = interface.link();
        let mut events = Events::new();
        let mut then = |event| events.push(event);
        match message {
            Message::Question { sender, target } => {
                if interface.has(sender.ip) && sender.mac.is_some_and(|mac| mac != interface.mac) {
                    state.stats.conflicts += 1;
                }
                let is_ours = interface.has(target) && !interface.has(sender.ip);
                if !sender.ip.is_unspecified()
                    && !interface.has(sender.ip)
                    && let Some(mac) = sender.mac
                {
                    // Of whoever asks only those are remembered that we send to: others could fill the cache.
                    let is_hop = state.by_hop.contains_key(&(port, sender.ip));
                    let how = if is_ours && is_hop { Heard::Question } else { Heard::Announcement };
                    state.neighbours.heard((port, sender.ip), mac, how, now, &mut then);
                }
                if is_ours {
                    let to = sender.mac.unwrap_or(mac);
                    let reply = match (target, sender.ip) {
                        (IpAddr::V4(target), IpAddr::V4(ip)) => messages::arp_reply(link, (link.src, target), (to, ip)),
                        (IpAddr::V6(target), IpAddr::V6(ip)) => {
                            let to = (!ip.is_unspecified()).then_some((to, ip));
                            messages::nd_advertisement(link, (link.src, target), to)
                        }
                        _ => return Answer::Drop(DropReason::Policy),
                    };
                    let is_sent = self.send(&mut state.stats, port, &reply);
                    state.stats.answered += u64::from(is_sent);
                }
            }
            Message::Answer { target, mac, .. } if interface.has(target) => {
                state.stats.conflicts += u64::from(mac.is_some_and(|mac| mac != interface.mac));
            }
            // What was asked for from one host need not say where that is (RFC 4861 §7.2.4).
            Message::Answer { target, mac: None, solicited, .. } => {
                if solicited {
                    state.neighbours.confirm((port, target), now);
                }
            }
            Message::Answer { target, mac: Some(mac), solicited, overriding, .. } => {
                let how = if solicited { Heard::Answer { overriding } } else { Heard::Announcement };
                state.neighbours.heard((port, target), mac, how, now, &mut then);
            }
        }
        self.apply(state, events);
        Answer::Consumed
    }

    /// What is done about a packet that `encap` could not send: it waits for the next hop, or is split, or its sender is told by `back`, which
    /// gets the bytes of an ICMP error without link layer and says whether it could send them.
    pub fn undeliverable(&self, packet: &Undeliverable<'_>, back: impl FnOnce(&[u8]) -> bool) -> Answer {
        match packet.obstacle {
            Obstacle::Unresolved => self.wait(packet),
            Obstacle::TooBig { inner_max } => self.too_big(packet, inner_max, back),
        }
    }

    fn wait(&self, packet: &Undeliverable<'_>) -> Answer {
        let state = &mut *lock(&self.state);
        let Some(hop) = state.endpoints.get(&packet.tunnel).and_then(|target| target.hop) else {
            return Answer::Drop(DropReason::Unresolved);
        };
        let waiter = Waiter {
            bytes: packet.packet.data().to_vec(),
            in_port: packet.packet.in_port,
            tunnel: packet.tunnel,
            id: packet.id,
        };
        let mut events = Events::new();
        let overflowed = state.neighbours.stats.overflowed;
        let known = state.neighbours.resolve(hop.next, packet.now, Some(waiter), &mut |event| events.push(event));
        self.apply(state, events);
        match known {
            // It has become known since the packet's burst began, which goes on with what was known then: the packet comes again.
            Some(mac) => {
                self.tell(state, [(packet.tunnel, Some(mac))]);
                let encap = [Action::Encap { tunnel: packet.tunnel, id: packet.id }];
                let (bytes, in_port) = (packet.packet.data(), packet.packet.in_port);
                let is_sent = self.forward(&mut state.stats, bytes, in_port, &encap);
                if is_sent { Answer::Consumed } else { Answer::Drop(DropReason::Unresolved) }
            }
            // It does not answer, or too many wait; an older packet that gave way is counted there.
            None if state.neighbours.stats.overflowed > overflowed && !state.neighbours.waits(hop.next) => {
                Answer::Drop(DropReason::Unresolved)
            }
            None => Answer::Consumed,
        }
    }

    fn too_big(&self, packet: &Undeliverable<'_>, inner_max: u32, back: impl FnOnce(&[u8]) -> bool) -> Answer {
        let too_big = Answer::Drop(DropReason::TooBig);
        let l3 = usize::from(packet.packet.l3);
        let frame = packet.packet.data();
        let Some((front, inner)) = frame.split_at_checked(l3) else { return too_big };
        // What every link carries (RFC 8200 §5, RFC 791 §3.2), and so a tunnel for whom it is one. Less is not told; what is no longer than that is
        // carried in pieces, for its sender cannot make it shorter (RFC 2473 §7.1).
        let least = match packet.key.base.eth_type.get() {
            ethernet::IPV6 => Some(messages::MTU_MIN_V6 as u32),
            ethernet::IPV4 => Some(MTU_MIN),
            _ => None,
        };
        let is_short = least.is_some_and(|least| inner.len() <= least as usize);
        {
            let state = &mut *lock(&self.state);
            let Some(target) = state.endpoints.get(&packet.tunnel) else { return too_big };
            if target.config.fragment || is_short {
                return if self.send_split(state, packet) { Answer::Consumed } else { too_big };
            }
        }
        // Without the lock: whoever sends the error may have one that comes before.
        let Some(least) = least else { return too_big };
        let mtu = inner_max.saturating_sub(front.len() as u32).max(least);
        if let Some(error) = messages::too_big(inner, mtu) {
            return if back(&error) { Answer::Consumed } else { too_big };
        }
        // IPv4 whose sender allows fragments.
        let Some(parts) =
            fragment::fragments(inner, mtu as usize, 0).filter(|_| packet.key.base.eth_type.get() == ethernet::IPV4)
        else {
            return too_big;
        };
        let encap = [Action::Encap { tunnel: packet.tunnel, id: packet.id }];
        let in_port = packet.packet.in_port;
        let state = &mut *lock(&self.state);
        let all_sent =
            parts.iter().all(|part| self.forward(&mut state.stats, &[front, part].concat(), in_port, &encap));
        state.stats.fragmented += u64::from(all_sent);
        if all_sent { Answer::Consumed } else { too_big }
    }

    /// Puts the outer headers on, and sends the outer packet in pieces.
    fn send_split(&self, state: &mut State, packet: &Undeliverable<'_>) -> bool {
        let Some(datapath) = self.datapath.upgrade() else { return false };
        let Some(target) = state.endpoints.get(&packet.tunnel) else { return false };
        let (Some(mac), Some(hop)) = (target.told, target.hop) else { return false };
        let Some(interface) = state.interfaces.get(&hop.next.0) else { return false };
        let (port, mtu) = (interface.port, interface.mtu.min(state.paths.mtu(target.config.remote)) as usize);
        let header = outer(&target.config, interface.link(), mac, hop.source);
        let Ok(template) = Template::new(target.config.kind, &header) else { return false };
        let template = template.with_inherit(target.config.inherit);
        let Some(mut whole) = datapath.pool().packet(packet.packet.data()) else { return false };
        (whole.l3, whole.l4, whole.flags) = (packet.packet.l3, packet.packet.l4, packet.packet.flags);
        let moment = Moment { sequence: &Sequence::default(), now: packet.now };
        let id = packet.id.map(|id| target.config.kind.id_bytes(id));
        let entropy = crate::action::hash::five_tuple(&mut whole, crate::flow::extract::ExtractOptions::default());
        let pushed = template.push(&mut whole, entropy, id, moment);
        let l3 = usize::from(whole.l3);
        state.fragment_id = state.fragment_id.wrapping_add(1).max(1);
        let mut bytes = whole.data().to_vec();
        datapath.pool().free(&mut whole);
        if pushed.is_err() {
            return false;
        }
        // RFC 6864 §4.3: fragments of one datagram share an identification that no other has for a while. "Don't fragment" is for those who do not
        // know how long a packet may be.
        if target.config.remote.is_ipv4() {
            bytes[l3 + 4..l3 + 6].copy_from_slice(&(state.fragment_id as u16).to_be_bytes());
            bytes[l3 + 6] &= !((ipv4::FLAG_DF >> 8) as u8);
        }
        let (front, outer) = bytes.split_at(l3);
        let Some(parts) = fragment::fragments(outer, mtu, state.fragment_id) else { return false };
        let out = [Action::Output(port)];
        let all_sent = parts.iter().all(|part| self.forward(&mut state.stats, &[front, part].concat(), u32::MAX, &out));
        state.stats.fragmented += u64::from(all_sent);
        all_sent
    }
}
