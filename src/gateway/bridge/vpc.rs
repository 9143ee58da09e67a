//! VPCs: bridge domains that several bridges share, over tunnels whose identifier is the VPC's.
//!
//! A frame for a station behind another bridge goes to that bridge's endpoint; one that is flooded goes to all of them, one copy each (head-end
//! replication), and never from one tunnel into another (split horizon). Which other ends a VPC has is configured, or learned from their
//! packets. What comes out of a tunnel belongs to the VPC of its identifier and to no other, and goes nowhere else.

use std::net::IpAddr;

use super::*;
use crate::flow::FlowKey;
use crate::flow::key::{TUNNEL_KEY, TUNNEL_OAM};
use crate::gateway::underlay::messages::{self, Link, Message};
use crate::gateway::underlay::{UnderlayError, routes};
use crate::packet::Packet;

/// Messages of our own to one place: one in so many ns, on the average, and so many at once.
const TELL_EACH_NS: u64 = 1_000_000;
const TELL_BURST: u64 = 100;

/// Settings of a VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcConfig {
    /// Its identifier, which no other VPC of the bridge has.
    pub vni: Vni,
    /// Where its packets come out of their tunnel: what [`Underlay::listen`] returned.
    pub listener: u32,
    /// How packets get into tunnels; `remote` is replaced by each other end's.
    pub endpoint: Endpoint,
    /// Other ends that are not configured are learned from their packets; else those are dropped (`policy`).
    pub learn: bool,
    /// Other ends at most, configured ones included.
    pub remotes_max: usize,
    /// Questions (ARP, neighbour discovery) for an address whose station is known are answered here, and not flooded.
    pub suppress: bool,
    /// Addresses that are known of stations for that.
    pub bindings_max: usize,
    /// Stations known at a time, at least 1. Further ones are not learned, and frames for them are flooded. The bridge's own limits hold beside it.
    pub stations_max: u32,
    /// Flows installed at a time, at least 1. Beyond that packets are looked at one by one.
    pub flows_max: u32,
}

impl VpcConfig {
    /// A VPC whose other ends are configured.
    pub fn new(vni: Vni, listener: u32, endpoint: Endpoint) -> VpcConfig {
        VpcConfig {
            vni,
            listener,
            endpoint,
            learn: false,
            remotes_max: 1024,
            suppress: true,
            bindings_max: 16_384,
            stations_max: 16_384,
            flows_max: 65_536,
        }
    }
}

/// Why VPCs were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VpcError {
    /// The bridge has no underlay.
    #[error("a VPC needs an underlay")]
    NoUnderlay,
    /// There is a VPC, a member or another end like that already.
    #[error("{0}: there is one already")]
    Exists(&'static str),
    /// There is none.
    #[error("{0}: there is none")]
    NotFound(&'static str),
    /// The port is an interface of the underlay, or its number is too large.
    #[error("port: {0} cannot be a member")]
    Port(u32),
    /// The port's frames with this tag belong to a VLAN, or the other way round.
    #[error("port: {0}: its frames with this tag belong to a VLAN")]
    Vlan(u32),
    /// As many other ends as there may be are there.
    #[error("no more than {0} other ends")]
    TooManyRemotes(usize),
    /// A limit of 0.
    #[error("{0}: at least 1")]
    Limit(&'static str),
    /// What all VPCs share has no share for another: stations of the bridge, flows of the datapath.
    #[error("{0}: {1} for all are too few for another VPC")]
    NoShare(&'static str, u32),
    /// An address that the underlay refuses, or one of our own.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    /// Not an address that a host has.
    #[error("{0}: not the address of a host")]
    Address(&'static str),
}

/// A VPC as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcInfo {
    /// Its settings.
    pub config: VpcConfig,
    /// Ports, and the VLAN of their tags.
    pub members: Vec<(u32, Option<VlanId>)>,
    /// Other ends: address, number of the endpoint, whether it was configured, stations behind it.
    pub remotes: Vec<(IpAddr, u32, bool, u32)>,
    /// Addresses that are known of stations.
    pub bindings: usize,
    /// Stations known.
    pub stations: u32,
    /// Flows installed.
    pub flows: u32,
}

#[derive(Debug)]
struct Remote {
    endpoint: Endpoint,
    number: u32,
    is_static: bool,
    /// Stands for it and the VPC in the numbers of flows.
    segment: u32,
    /// Stations of this VPC behind it were seen since the last sweep; a learned one without goes.
    is_used: bool,
}

/// What a station told of itself.
#[derive(Clone, Copy, Debug)]
struct Binding {
    mac: [u8; 6],
    /// It is a router; `None` if its messages do not say so: whoever answers for it would.
    router: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Vpc {
    config: VpcConfig,
    members: BTreeMap<u32, Option<VlanId>>,
    remotes: BTreeMap<IpAddr, Remote>,
    /// Link-layer addresses of stations, as they told them.
    bindings: AHashMap<IpAddr, Binding>,
    /// Addresses that are answered for, whether or not somebody has them.
    proxied: AHashMap<IpAddr, [u8; 6]>,
}

impl Bridge {
    /// Makes a VPC.
    ///
    /// # Errors
    /// [`VpcError`] says what is wrong; nothing is changed then.
    pub fn vpc_add(&self, config: VpcConfig) -> Result<(), VpcError> {
        self.underlay.as_ref().ok_or(VpcError::NoUnderlay)?;
        let state = &mut *lock(&self.state);
        let vni = config.vni;
        if state.vpcs.contains_key(&vni) {
            return Err(VpcError::Exists("vni"));
        }
        for (field, limit) in [("stations_max", config.stations_max), ("flows_max", config.flows_max)] {
            if limit == 0 {
                return Err(VpcError::Limit(field));
            }
        }
        let party = Party::Vpc(vni);
        if !state.station_shares.join(party, config.stations_max) {
            return Err(VpcError::NoShare("stations_max", state.station_shares.max()));
        }
        if !state.flow_shares.join(party, config.flows_max) {
            state.station_shares.leave(party);
            return Err(VpcError::NoShare("flows_max", state.flow_shares.max()));
        }
        let datapath = self.datapath.upgrade();
        state.make_room(datapath.as_ref());
        let vpc = Vpc {
            config,
            members: BTreeMap::new(),
            remotes: BTreeMap::new(),
            bindings: AHashMap::new(),
            proxied: AHashMap::new(),
        };
        state.vpcs.insert(vni, vpc);
        Ok(())
    }

    /// Removes a VPC, and all that is known in it.
    ///
    /// # Errors
    /// [`VpcError::NotFound`].
    pub fn vpc_del(&self, vni: Vni) -> Result<(), VpcError> {
        let state = &mut *lock(&self.state);
        let vpc = state.vpcs.remove(&vni).ok_or(VpcError::NotFound("vni"))?;
        let datapath = self.datapath.upgrade();
        state.remove_all_flows(datapath.as_ref());
        state.members.retain(|_, of| *of != vni);
        state.note_members();
        let gone: Vec<StationKey> = state.stations.keys().filter(|key| key.0 == Domain::Vpc(vni)).copied().collect();
        gone.iter().for_each(|key| state.forget(key, datapath.as_ref()));
        vpc.remotes.into_values().for_each(|remote| self.give_back(state, &remote));
        let party = Party::Vpc(vni);
        state.tallies.retain(|(whose, _), _| *whose != party);
        state.station_shares.leave(party);
        state.flow_shares.leave(party);
        Ok(())
    }

    /// Frames of a port, with a tag of this VLAN or with none, belong to the VPC from now on.
    ///
    /// # Errors
    /// [`VpcError`] says what is wrong; nothing is changed then.
    pub fn vpc_port_add(&self, vni: Vni, port: u32, vlan: Option<VlanId>) -> Result<(), VpcError> {
        let is_interface = self.underlay.as_ref().is_some_and(|underlay| underlay.has_interface(port));
        if is_interface || port >= PORT_NUMBER_END {
            return Err(VpcError::Port(port));
        }
        let state = &mut *lock(&self.state);
        let vpc = state.vpcs.get_mut(&vni).ok_or(VpcError::NotFound("vni"))?;
        let key = (port, vlan.map_or(0, VlanId::number));
        if state.ports.get(&port).is_some_and(|vlans| is_bridged(vlans, key.1)) {
            return Err(VpcError::Vlan(port));
        }
        // With two tags of one port in one VPC, a frame would have to go back to where it came from.
        if state.members.contains_key(&key) || vpc.members.contains_key(&port) {
            return Err(VpcError::Exists("port"));
        }
        vpc.members.insert(port, vlan);
        state.members.insert(key, vni);
        state.note_members();
        let datapath = self.datapath.upgrade();
        state.remove_all_flows(datapath.as_ref());
        Ok(())
    }

    /// The opposite of [`Bridge::vpc_port_add`].
    ///
    /// # Errors
    /// [`VpcError::NotFound`].
    pub fn vpc_port_del(&self, vni: Vni, port: u32) -> Result<(), VpcError> {
        let state = &mut *lock(&self.state);
        let vpc = state.vpcs.get_mut(&vni).ok_or(VpcError::NotFound("vni"))?;
        let vlan = vpc.members.remove(&port).ok_or(VpcError::NotFound("port"))?;
        state.members.remove(&(port, vlan.map_or(0, VlanId::number)));
        state.note_members();
        let datapath = self.datapath.upgrade();
        state.remove_all_flows(datapath.as_ref());
        state.forget_in(vni, Place::Port(port), datapath.as_ref());
        Ok(())
    }

    /// Adds another end to a VPC, or makes a learned one stay.
    ///
    /// # Errors
    /// [`VpcError`] says what is wrong; nothing is changed then.
    pub fn vpc_remote_add(&self, vni: Vni, remote: IpAddr, now: Nanos) -> Result<u32, VpcError> {
        let state = &mut *lock(&self.state);
        let number = self.remote(state, vni, remote, true, now)?;
        let datapath = self.datapath.upgrade();
        state.remove_all_flows(datapath.as_ref());
        Ok(number)
    }

    /// Takes another end out of a VPC.
    ///
    /// # Errors
    /// [`VpcError::NotFound`].
    pub fn vpc_remote_del(&self, vni: Vni, remote: IpAddr) -> Result<(), VpcError> {
        let state = &mut *lock(&self.state);
        let vpc = state.vpcs.get_mut(&vni).ok_or(VpcError::NotFound("vni"))?;
        let remote = vpc.remotes.remove(&remote).ok_or(VpcError::NotFound("remote"))?;
        self.remote_gone(state, vni, &remote);
        Ok(())
    }

    /// Questions for `ip` in a VPC are answered with `mac` from now on (ARP proxy, RFC 1027; proxy advertisements, RFC 4861 §7.2.8); without
    /// `mac` no longer.
    ///
    /// # Errors
    /// [`VpcError::NotFound`], [`VpcError::Address`].
    pub fn vpc_proxy_set(&self, vni: Vni, ip: IpAddr, mac: Option<[u8; 6]>) -> Result<(), VpcError> {
        if !routes::is_host(ip) {
            return Err(VpcError::Address("ip"));
        }
        let state = &mut *lock(&self.state);
        let vpc = state.vpcs.get_mut(&vni).ok_or(VpcError::NotFound("vni"))?;
        match mac {
            Some(mac) if mac[0] & 1 != 0 || mac == [0; 6] => return Err(VpcError::Address("mac")),
            Some(mac) => drop(vpc.proxied.insert(ip, mac)),
            None => drop(vpc.proxied.remove(&ip).ok_or(VpcError::NotFound("ip"))?),
        }
        Ok(())
    }

    /// The VPCs in order of their identifiers.
    pub fn vpcs(&self) -> Vec<VpcInfo> {
        let state = lock(&self.state);
        let info = |vpc: &Vpc| {
            let behind = |number| {
                let of_vpc = state.stations.iter().filter(|(key, _)| key.0 == Domain::Vpc(vpc.config.vni));
                of_vpc.filter(|(_, station)| station.place == Place::Remote(number)).count() as u32
            };
            VpcInfo {
                config: vpc.config.clone(),
                members: vpc.members.iter().map(|(port, vlan)| (*port, *vlan)).collect(),
                remotes: vpc.remotes.iter().map(|(ip, r)| (*ip, r.number, r.is_static, behind(r.number))).collect(),
                bindings: vpc.bindings.len(),
                stations: state.station_shares.used(Party::Vpc(vpc.config.vni)),
                flows: state.flow_shares.used(Party::Vpc(vpc.config.vni)),
            }
        };
        state.vpcs.values().map(info).collect()
    }

    /// The number of another end's endpoint, which is made if there is none.
    fn remote(&self, state: &mut State, vni: Vni, ip: IpAddr, is_static: bool, now: Nanos) -> Result<u32, VpcError> {
        let underlay = self.underlay.as_ref().ok_or(VpcError::NoUnderlay)?;
        let vpc = state.vpcs.get_mut(&vni).ok_or(VpcError::NotFound("vni"))?;
        if let Some(remote) = vpc.remotes.get_mut(&ip) {
            if is_static && core::mem::replace(&mut remote.is_static, true) {
                return Err(VpcError::Exists("remote"));
            }
            return Ok(remote.number);
        }
        if vpc.remotes.len() >= vpc.config.remotes_max {
            return Err(VpcError::TooManyRemotes(vpc.config.remotes_max));
        }
        let endpoint = Endpoint { remote: ip, ..vpc.config.endpoint.clone() };
        let number = match state.endpoints.get_mut(&endpoint) {
            Some((number, users)) => {
                *users += 1;
                *number
            }
            None => {
                let number = underlay.endpoint_add(endpoint.clone(), now)?;
                state.endpoints.insert(endpoint.clone(), (number, 1));
                number
            }
        };
        // 27 bits are left beside the tag's; what is as old as that is long gone.
        let segment = state.segments & 0x7ff_ffff;
        state.segments = state.segments.wrapping_add(1);
        vpc.remotes.insert(ip, Remote { endpoint, number, is_static, segment, is_used: true });
        Ok(number)
    }

    /// A VPC no longer has another end.
    fn remote_gone(&self, state: &mut State, vni: Vni, remote: &Remote) {
        let datapath = self.datapath.upgrade();
        state.remove_floods(Domain::Vpc(vni), datapath.as_ref());
        state.forget_in(vni, Place::Remote(remote.number), datapath.as_ref());
        self.give_back(state, remote);
    }

    fn give_back(&self, state: &mut State, remote: &Remote) {
        let Some((number, users)) = state.endpoints.get_mut(&remote.endpoint) else { return };
        *users -= 1;
        if *users > 0 {
            return;
        }
        let number = *number;
        state.endpoints.remove(&remote.endpoint);
        if let Some(underlay) = &self.underlay {
            // It was made here, so it is there.
            let _ = underlay.endpoint_del(number);
        }
    }

    /// Forgets learned ends behind which no station is known any more, and addresses of stations that are not.
    pub(super) fn forget_remotes(&self, state: &mut State) {
        let used: AHashSet<(Domain, Place)> = state.stations.iter().map(|(key, s)| (key.0, s.place)).collect();
        let State { vpcs, stations, .. } = state;
        let mut gone = Vec::new();
        for (vni, vpc) in vpcs {
            let domain = Domain::Vpc(*vni);
            vpc.bindings.retain(|_, binding| stations.contains_key(&(domain, binding.mac)));
            vpc.remotes.retain(|ip, remote| {
                let is_used = used.contains(&(domain, Place::Remote(remote.number)));
                let stays = remote.is_static || is_used || remote.is_used;
                remote.is_used = is_used;
                if !stays {
                    gone.push((*vni, *ip, remote.endpoint.clone(), remote.number));
                }
                stays
            });
        }
        for (vni, _, endpoint, number) in gone {
            // No station is behind it: only floods name it.
            let remote = Remote { endpoint, number, is_static: false, segment: 0, is_used: false };
            let datapath = self.datapath.upgrade();
            state.remove_floods(Domain::Vpc(vni), datapath.as_ref());
            state.tallies.remove(&(Party::Vpc(vni), Place::Remote(number)));
            self.give_back(state, &remote);
        }
    }

    /// Where a frame out of a tunnel came from.
    pub(super) fn source_of_tunnel(&self, state: &mut State, miss: &Miss<'_>, tag: Tag) -> Result<Source, DropReason> {
        let tunnel = &miss.key.tunnel;
        // GRE may have no key, which is not key 0.
        if tunnel.flags & TUNNEL_KEY == 0 {
            return Err(DropReason::UnknownVni);
        }
        let vni = u32::try_from(tunnel.id.get()).ok().and_then(Vni::new).ok_or(DropReason::UnknownVni)?;
        let vpc = state.vpcs.get(&vni).filter(|vpc| vpc.config.listener == miss.key.base.in_port);
        let vpc = vpc.ok_or(DropReason::UnknownVni)?;
        // RFC 8926 §3.4: a control packet is for the tunnel's end, not for what is behind it.
        if tunnel.flags & TUNNEL_OAM != 0 {
            return Err(DropReason::Policy);
        }
        // RFC 7348 §6.1: an inner tag means nothing in a VXLAN network.
        if tag == Tag::Vlan {
            return Err(DropReason::Policy);
        }
        let ip = match tunnel.ipv4_src {
            [0, 0, 0, 0] => IpAddr::from(tunnel.ipv6_src),
            ip => IpAddr::from(ip),
        };
        if !vpc.remotes.contains_key(&ip) {
            if !vpc.config.learn {
                return Err(DropReason::Policy);
            }
            self.remote(state, vni, ip, false, miss.now).map_err(|_| DropReason::Policy)?;
            state.stats.remotes_learned += 1;
            // What was flooded so far must reach it too.
            let datapath = self.datapath.upgrade();
            state.remove_floods(Domain::Vpc(vni), datapath.as_ref());
        }
        let vpc = state.vpcs.get_mut(&vni).ok_or(DropReason::UnknownVni)?;
        let remote = vpc.remotes.get(&ip).ok_or(DropReason::Policy)?;
        Ok(Source { domain: Domain::Vpc(vni), place: Place::Remote(remote.number), segment: Some(remote.segment) })
    }

    /// Learns from questions and answers who has which address, and answers for others. True if the packet is done with.
    pub(super) fn answer_for(
        &self,
        state: &mut State,
        datapath: &Datapath,
        vni: Vni,
        place: Place,
        miss: &Miss<'_>,
    ) -> bool {
        let Some(message) = message(miss.packet, miss.key) else { return false };
        let State { vpcs, stations, stats, tallies, .. } = state;
        let Some(vpc) = vpcs.get_mut(&vni) else { return false };
        let domain = Domain::Vpc(vni);
        let told = match message {
            Message::Question { sender, target } => {
                let router = (sender.ip.is_ipv4() && target.is_ipv4()).then_some(false);
                sender.mac.map(|mac| (sender.ip, Binding { mac, router }))
            }
            Message::Answer { target, mac, router, .. } => {
                mac.map(|mac| (target, Binding { mac, router: Some(router) }))
            }
        };
        // Nobody speaks for another: what a frame says of an address must be of its own sender.
        let is_own = |binding: &Binding| binding.mac == miss.key.base.eth_src;
        if let Some((ip, told)) = told.filter(|(ip, binding)| is_own(binding) && routes::is_host(*ip)) {
            let has_room = vpc.bindings.len() < vpc.config.bindings_max || vpc.bindings.contains_key(&ip);
            if has_room && stations.contains_key(&(domain, told.mac)) {
                let binding = vpc.bindings.entry(ip).or_insert(told);
                // A question does not say whether its sender is a router; an answer of the same station did.
                let router = if binding.mac == told.mac { told.router.or(binding.router) } else { told.router };
                *binding = Binding { mac: told.mac, router };
            }
        }
        let Message::Question { sender, target } = message else { return false };
        // Whoever looks whether an address is free, or tells that it has one, must be heard by all; a question to one host is for that host.
        if message.is_announcement() || !routes::is_host(sender.ip) || miss.key.base.eth_dst[0] & 1 == 0 {
            return false;
        }
        // Of a question out of a tunnel only what is behind our own ports is ours to answer: its asker learns from the answer where that is.
        let is_ours_to_tell = |mac: &[u8; 6]| {
            let at = stations.get(&(domain, *mac)).map(|station| station.place);
            at.is_some_and(|at| at != place && (matches!(place, Place::Port(_)) || matches!(at, Place::Port(_))))
        };
        let known = || {
            let binding = vpc.bindings.get(&target).filter(|_| vpc.config.suppress)?;
            Some((binding.mac, binding.router?)).filter(|(mac, _)| is_ours_to_tell(mac))
        };
        let proxied = vpc.proxied.get(&target).map(|mac| (*mac, false));
        let Some((mac, router)) = proxied.or_else(known) else { return false };
        if !may_tell(tallies.entry((Party::Vpc(vni), place)).or_default(), miss.now) {
            return false;
        }
        let vlan = match place {
            Place::Port(port) => vpc.members.get(&port).copied().flatten().map(VlanId::number),
            Place::Remote(_) => None,
        };
        let link = Link { src: mac, vlan };
        let to = sender.mac.unwrap_or(miss.key.base.eth_src);
        let reply = match (target, sender.ip) {
            (IpAddr::V4(target), IpAddr::V4(ip)) => messages::arp_reply(link, (mac, target), (to, ip)),
            (IpAddr::V6(target), IpAddr::V6(ip)) => {
                messages::nd_advertisement_for(link, (mac, target), (to, ip), router)
            }
            _ => return false,
        };
        let back = match place {
            Place::Port(port) => Action::Output(port),
            Place::Remote(number) => Action::Encap { tunnel: number, id: Some(vni.number()) },
        };
        let is_sent = datapath.inject_spare(&reply, u32::MAX, &[back]).is_ok();
        stats.answered_for += u64::from(is_sent);
        is_sent
    }

    /// Sends an ICMP error back to the station whose packet was too long for its tunnel.
    pub(super) fn tell_sender(&self, packet: &Undeliverable<'_>, error: &[u8]) -> bool {
        let key = &packet.key.base;
        let Some(datapath) = self.datapath.upgrade() else { return false };
        let state = &mut *lock(&self.state);
        let Some(vni) = packet.id.and_then(Vni::new) else { return false };
        let vpc = state.vpcs.get(&vni);
        let Some(member) = vpc.and_then(|vpc| vpc.members.get(&key.in_port)).copied() else { return false };
        // Of a flood each copy is too long, and its sender is told once.
        let is_flood = !state.stations.contains_key(&(Domain::Vpc(vni), key.eth_dst));
        let whose = (Party::Vpc(vni), Place::Port(key.in_port));
        if is_flood && packet.is_copy || !may_tell(state.tallies.entry(whose).or_default(), packet.now) {
            return false;
        }
        let link = Link { src: key.eth_dst, vlan: member.map(VlanId::number) };
        let frame = [&link.header(key.eth_src, key.eth_type.get())[..], error].concat();
        let is_sent = datapath.inject_spare(&frame, u32::MAX, &[Action::Output(key.in_port)]).is_ok();
        state.stats.told_too_big += u64::from(is_sent);
        is_sent
    }
}

/// Takes one message of our own out of a bucket: answers and errors (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8).
fn may_tell(tally: &mut Tally, now: Nanos) -> bool {
    take_one(&mut tally.told_full_at, now, TELL_EACH_NS, TELL_BURST)
}

/// True if frames of a port with a tag of this VLAN, 0 for none, belong to a VLAN.
pub(super) fn is_bridged(vlans: &PortVlans, number: u16) -> bool {
    vlans.classify(if number == 0 { Tag::None } else { Tag::Vlan }, number).is_some()
}

/// The message of ARP or neighbour discovery that a packet is.
fn message(packet: &Packet, key: &FlowKey) -> Option<Message> {
    let l3 = crate::wire::ethernet::HEADER_LEN + if key.base.vlan_tci.get() & VLAN_PRESENT != 0 { 4 } else { 0 };
    match key.base.eth_type.get() {
        ethernet::ARP => messages::read_arp(packet.data().get(l3..)?),
        ethernet::IPV6 if key.base.nw_proto == crate::wire::ip::ICMPV6 => messages::read_nd(packet.data().get(l3..)?),
        _ => None,
    }
}

/// Adds to a flow's mask the VPC and the other end.
pub(super) fn match_tunnel(key: &FlowKey, mask: &mut FlowMask) {
    let tunnel = &mut mask.0.tunnel;
    tunnel.id.set(u64::MAX);
    tunnel.flags = TUNNEL_KEY | TUNNEL_OAM;
    if key.tunnel.ipv4_src == [0; 4] {
        tunnel.ipv6_src = [0xff; 16];
    } else {
        tunnel.ipv4_src = [0xff; 4];
    }
}

impl State {
    /// Tags by which frames of a port belong to VPCs: VLAN numbers, 0 for none.
    pub(super) fn members_of(&self, port: u32) -> impl Iterator<Item = u16> {
        self.members.range((port, 0)..=(port, u16::MAX)).map(|((_, tag), _)| *tag)
    }

    /// A port is no longer a member of any VPC; true if it was of one.
    pub(super) fn leave_all(&mut self, port: u32) -> bool {
        let before = self.members.len();
        self.members.retain(|(member, _), _| *member != port);
        self.note_members();
        for vpc in self.vpcs.values_mut() {
            vpc.members.remove(&port);
        }
        self.members.len() < before
    }

    /// The members have changed.
    fn note_members(&mut self) {
        self.has_tagged_members = self.members.keys().any(|(_, tag)| *tag != 0);
    }

    /// Removes the flows of frames for groups: they name each port and endpoint of the domain.
    fn remove_floods(&mut self, domain: Domain, datapath: Option<&Datapath>) {
        let of_domain = |of: &FlowOf| of.dst.is_none() && of.src.0 == domain;
        let floods: Vec<u128> = self.flows.iter().filter(|(_, of)| of_domain(of)).map(|(ufid, _)| *ufid).collect();
        floods.into_iter().for_each(|ufid| self.remove_flow(ufid, datapath));
    }

    /// Forgets what is known of a place that is no longer one of a VPC's.
    fn forget_in(&mut self, vni: Vni, place: Place, datapath: Option<&Datapath>) {
        let is_there = |key: &StationKey, station: &Station| key.0 == Domain::Vpc(vni) && station.place == place;
        let gone: Vec<StationKey> =
            self.stations.iter().filter(|(key, station)| is_there(key, station)).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| self.forget(key, datapath));
        self.tallies.remove(&(Party::Vpc(vni), place));
    }

    /// Makes room for the share of a VPC that has joined: of whoever has most, the stations that were not seen for longest are forgotten.
    fn make_room(&mut self, datapath: Option<&Datapath>) {
        while let Some((party, over)) = self.station_shares.overdrawn() {
            let of_party = self.stations.iter().filter(|(key, _)| Party::from(key.0) == party);
            let mut oldest: Vec<(Nanos, StationKey)> = of_party.map(|(key, station)| (station.seen, *key)).collect();
            oldest.sort_unstable();
            oldest.iter().take(over as usize).for_each(|(_, key)| self.forget(key, datapath));
        }
        // They come again with their next packets.
        if self.flow_shares.overdrawn().is_some() {
            self.remove_all_flows(datapath);
        }
    }

    /// What a frame of a VPC needs to get to `target`, or to all of it but where it came from. Empty if that is nowhere.
    pub(super) fn outputs_of_vpc(&self, tag: Tag, vni: Vni, from: Place, target: Option<Place>) -> Actions {
        let Some(vpc) = self.vpcs.get(&vni) else { return Vec::new() };
        let is_wanted = |place: Place| place != from && target.is_none_or(|target| target == place);
        let mut untagged = Vec::new();
        let mut tagged: BTreeMap<VlanId, Vec<Action>> = BTreeMap::new();
        for (port, vlan) in vpc.members.iter().filter(|(port, _)| is_wanted(Place::Port(**port))) {
            match vlan {
                None => untagged.push(Action::Output(*port)),
                Some(vlan) => tagged.entry(*vlan).or_default().push(Action::Output(*port)),
            }
        }
        // Split horizon: each end sends to all others itself.
        if matches!(from, Place::Port(_)) {
            let wanted = vpc.remotes.values().filter(|remote| is_wanted(Place::Remote(remote.number)));
            let encap = |remote: &Remote| Action::Encap { tunnel: remote.number, id: Some(vni.number()) };
            untagged.extend(wanted.map(encap));
        }
        if untagged.is_empty() && tagged.is_empty() {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if tag != Tag::None {
            actions.push(Action::PopVlan);
        }
        actions.extend(untagged);
        let mut is_tagged = false;
        for (vlan, outputs) in tagged {
            if core::mem::replace(&mut is_tagged, true) {
                actions.push(Action::PopVlan);
            }
            actions.push(Action::PushVlan { tpid: ethernet::VLAN, tci: VLAN_PRESENT | vlan.number() });
            actions.extend(outputs);
        }
        actions
    }
}

#[cfg(test)]
mod tests;
