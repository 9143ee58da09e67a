//! Ways: looked up, made into headers, told to the datapath.

use super::*;

impl Underlay {
    pub(super) fn look_up_all(&self, state: &mut State, now: Nanos) {
        let numbers: Vec<u32> = state.endpoints.keys().copied().collect();
        self.look_up(state, &numbers, now);
    }

    /// Looks for the next hops of endpoints, and tells their ways where the next hop's address is known; else asks for that.
    pub(super) fn look_up(&self, state: &mut State, numbers: &[u32], now: Nanos) {
        let (mut events, mut found) = (Events::new(), Vec::with_capacity(numbers.len()));
        for number in numbers {
            let Some(target) = state.endpoints.get(number) else { continue };
            let (old, hop) = (target.hop, state.hop_of(&target.config));
            if old != hop {
                state.unlink(*number, old);
                if let Some(hop) = hop {
                    state.by_hop.entry(hop.next).or_default().insert(*number);
                }
            }
            let mac =
                hop.and_then(|hop| state.neighbours.resolve(hop.next, now, None, &mut |event| events.push(event)));
            if let Some(target) = state.endpoints.get_mut(number) {
                target.hop = hop;
            }
            found.push((*number, mac));
        }
        self.tell(state, found);
        self.apply(state, events);
    }

    /// Tells the datapath the ways of endpoints whose next hops are at these addresses; `None` takes a way away. All at once: each time a whole
    /// table is published.
    pub(super) fn tell(&self, state: &mut State, found: impl IntoIterator<Item = (u32, Option<[u8; 6]>)>) {
        let Some(datapath) = self.datapath.upgrade() else { return };
        let changes: Vec<(u32, Tunnel)> =
            found.into_iter().filter_map(|(number, mac)| state.tunnel_to(number, mac)).collect();
        if !changes.is_empty() {
            datapath.tunnels_set(changes);
        }
    }

    /// Tells the ways to `remote` again, as wide as they are now.
    pub(super) fn tell_again(&self, state: &mut State, remote: IpAddr) {
        let numbers = state.by_remote.get(&remote).into_iter().flatten();
        let known: Vec<(u32, Option<[u8; 6]>)> =
            numbers.filter_map(|number| Some((*number, Some(state.endpoints.get(number)?.told?)))).collect();
        self.tell(state, known);
    }

    /// Carries out what the neighbour cache wants done.
    pub(super) fn apply(&self, state: &mut State, events: Events) {
        for event in events {
            match event {
                Event::Solicit { key, mac } => self.solicit(state, key, mac),
                Event::Known { key, mac, waiting } => {
                    let numbers: Vec<u32> = state.by_hop.get(&key).into_iter().flatten().copied().collect();
                    self.tell(state, numbers.into_iter().map(|number| (number, Some(mac))));
                    waiting.into_iter().for_each(|waiter| self.release(&mut state.stats, &waiter));
                }
                Event::Lost { key, waiting } => {
                    let numbers: Vec<u32> = state.by_hop.get(&key).into_iter().flatten().copied().collect();
                    self.tell(state, numbers.into_iter().map(|number| (number, None)));
                    state.stats.lost += waiting.len() as u64;
                }
            }
        }
    }

    /// Interfaces whose port is up and was not.
    pub(super) fn come_up(&self, state: &mut State) -> Vec<u32> {
        let Some(datapath) = self.datapath.upgrade() else { return Vec::new() };
        let ports = datapath.ports();
        let State { interfaces, down, .. } = state;
        let mut has_come_up = |port: &u32| {
            if ports.get(*port).is_some_and(|entry| entry.up) {
                return down.remove(port);
            }
            down.insert(*port);
            false
        };
        interfaces.keys().copied().filter(|port| has_come_up(port)).collect()
    }

    /// Announces our addresses now and a little later.
    pub(super) fn announce_twice(&self, state: &mut State, port: u32, now: Nanos) {
        self.announce(state, port);
        state.announcements.retain(|(_, other)| *other != port);
        state.announcements.push((now + ANNOUNCE_AGAIN_NS, port));
    }

    /// Tells all on the link where our addresses are: gratuitous ARP, unsolicited advertisements.
    pub(super) fn announce(&self, state: &mut State, port: u32) {
        let Some(interface) = state.interfaces.get(&port) else { return };
        let link = interface.link();
        let of = |address: &IpNet| match address.addr() {
            IpAddr::V4(ip) => messages::arp_announcement(link, ip),
            IpAddr::V6(ip) => messages::nd_advertisement(link, (link.src, ip), None),
        };
        let frames: Vec<Vec<u8>> = interface.addresses.iter().map(of).collect();
        for frame in frames {
            self.send(&mut state.stats, port, &frame);
        }
    }

    fn solicit(&self, state: &mut State, (port, target): NeighbourKey, mac: Option<[u8; 6]>) {
        let Some(interface) = state.interfaces.get(&port) else { return };
        let frame = match (interface.source_for(target), target) {
            (Some(IpAddr::V4(source)), IpAddr::V4(target)) => {
                messages::arp_request(interface.link(), source, target, mac)
            }
            (Some(IpAddr::V6(source)), IpAddr::V6(target)) => {
                messages::nd_solicitation(interface.link(), source, target, mac)
            }
            _ => return,
        };
        self.send(&mut state.stats, port, &frame);
    }

    /// A packet that waited goes on.
    pub(super) fn release(&self, stats: &mut UnderlayStats, waiter: &Waiter) {
        let encap = [Action::Encap { tunnel: waiter.tunnel, id: waiter.id }];
        if self.forward(stats, &waiter.bytes, waiter.in_port, &encap) {
            stats.released += 1;
        }
    }

    /// Sends a message of ARP or neighbour discovery; false if there was no room for it.
    pub(super) fn send(&self, stats: &mut UnderlayStats, port: u32, frame: &[u8]) -> bool {
        let datapath = self.datapath.upgrade();
        let is_sent =
            datapath.is_some_and(|datapath| datapath.inject(frame, u32::MAX, &[Action::Output(port)]).is_ok());
        stats.unsent += u64::from(!is_sent);
        is_sent
    }

    /// Sends what others caused, and of which there may be any amount: it does not take the places of what [`Underlay::send`] sends, without which
    /// no tunnel has a way.
    pub(super) fn forward(&self, stats: &mut UnderlayStats, bytes: &[u8], in_port: u32, actions: &[Action]) -> bool {
        let datapath = self.datapath.upgrade();
        let is_sent = datapath.is_some_and(|datapath| datapath.inject_spare(bytes, in_port, actions).is_ok());
        stats.unsent += u64::from(!is_sent);
        is_sent
    }
}

impl State {
    /// The tunnel to an endpoint whose next hop is at `mac`; `None` if there is nothing new to tell.
    fn tunnel_to(&mut self, number: u32, mac: Option<[u8; 6]>) -> Option<(u32, Tunnel)> {
        let target = self.endpoints.get_mut(&number)?;
        let way = mac.zip(target.hop).and_then(|(mac, hop)| {
            let interface = self.interfaces.get(&hop.next.0)?;
            let header = outer(&target.config, interface.link(), mac, hop.source);
            let template = Template::new(target.config.kind, &header).ok()?.with_inherit(target.config.inherit);
            let mtu = interface.mtu.min(self.paths.mtu(target.config.remote));
            Some(Way { template, out_port: interface.port, mtu })
        });
        if way.is_none() && target.told.is_none() {
            return None;
        }
        target.told = mac.filter(|_| way.is_some());
        let kind = target.config.kind;
        Some((number, Tunnel { way: way.map(SharedArc::new), ..Tunnel::new(kind, Options::default()) }))
    }
}

impl Endpoint {
    /// Headers for its packets, from `source` over the host at `mac`: a template for [`Template::new`]. The identifier is 0: `encap` fills it
    /// in. Empty if `source` is of another IP version than the other end.
    pub fn header(&self, link: Link, mac: [u8; 6], source: IpAddr) -> Vec<u8> {
        outer(self, link, mac, source)
    }
}

/// See [`Endpoint::header`].
pub(super) fn outer(endpoint: &Endpoint, link: Link, mac: [u8; 6], source: IpAddr) -> Vec<u8> {
    let proto = if endpoint.kind == Kind::Gre { ip::GRE } else { ip::UDP };
    let mut header = match (source, endpoint.remote) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = link.header(mac, ethernet::IPV4);
            let mut ip = ipv4::Header::new_zeroed();
            (ip.version_ihl, ip.tos, ip.ttl, ip.proto) = (0x45, endpoint.tos, endpoint.ttl, proto);
            ip.fragment.set(if endpoint.fragment { 0 } else { ipv4::FLAG_DF });
            (ip.src, ip.dst) = (src.octets(), dst.octets());
            header.extend_from_slice(ip.as_bytes());
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = link.header(mac, ethernet::IPV6);
            let mut ip = ipv6::Header::new_zeroed();
            ip.version_class_label.set(6 << 28 | u32::from(endpoint.tos) << 20);
            (ip.next_header, ip.hop_limit, ip.src, ip.dst) = (proto, endpoint.ttl, src.octets(), dst.octets());
            header.extend_from_slice(ip.as_bytes());
            header
        }
        // Refused when the endpoint was made.
        _ => return Vec::new(),
    };
    if proto == ip::UDP {
        let mut udp = udp::Header::new_zeroed();
        udp.dst.set(endpoint.udp_port.unwrap_or(endpoint.kind.port()));
        let has_checksum = endpoint.checksum || endpoint.remote.is_ipv6() && !endpoint.zero_checksum6;
        udp.checksum.set(u16::from(has_checksum));
        header.extend_from_slice(udp.as_bytes());
    }
    let mut line = TunnelLine::new_zeroed();
    line.flags = TUNNEL_KEY | if endpoint.checksum { crate::flow::key::TUNNEL_CSUM } else { 0 };
    // None of these has anything to refuse: identifier 0, no options, Ethernet frames.
    let _ = match endpoint.kind {
        Kind::Geneve => geneve::write(&line, &[], None, &mut header),
        Kind::Gre => gre::write(&line, false, None, &mut header),
        _ => vxlan::write(&line, false, None, &mut header),
    };
    header
}
