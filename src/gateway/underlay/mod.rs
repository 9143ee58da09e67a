//! The way to the other ends of tunnels: interfaces of our own, routes, neighbours, and the [`Way`]s that `encap` takes.
//!
//! An *interface* is a datapath port with an address of its own. What comes in there is for us or for nobody: the underlay answers ARP,
//! neighbour discovery and pings, and has packets of tunnels that it listens for taken out of them (`tnl_pop`). An *endpoint* is another end
//! of a tunnel. Its way is looked up (route, then neighbour), told to the datapath, and kept up to date: packets only ever see a finished
//! header. A packet for an endpoint whose next hop is still being asked for waits here, and goes on when it has answered.

pub mod fragment;
pub mod messages;
pub mod neighbours;
pub mod paths;
pub mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHashMap;
use ipnet::IpNet;
use zerocopy::{FromZeros, IntoBytes};

use self::messages::{Link, Message};
use self::neighbours::{
    Event, Heard, NeighbourConfig, NeighbourInfo, NeighbourKey, NeighbourStats, Neighbours, Waiting,
};
use self::paths::{PATHS_MAX, PathInfo, Paths};
use self::routes::{MAIN, Route, RouteError, Routes};
use super::vlan::VlanId;
use crate::datapath::{Answer, Datapath, FlowId, Install, Miss, Undeliverable, WeakDatapath};
use crate::flow::action::Action;
use crate::flow::key::{FlowMask, TUNNEL_KEY, TunnelLine, VLAN_PRESENT};
use crate::packet::DropReason;
use crate::port::table::PORT_NUMBER_END;
use crate::sync::primitive::{Arc as SharedArc, Mutex, lock};
use crate::time::Nanos;
use crate::tunnel::template::Inherit;
use crate::tunnel::{Kind, Moment, Obstacle, Options, Sequence, Template, Tunnel, Way, geneve, gre, vxlan};
use crate::wire::{ethernet, ip, ipv4, ipv6, udp};

/// Numbers of endpoints begin here: behind those of ports, because a tunnel has both kinds.
pub const ENDPOINTS_BEGIN: u32 = 1 << 17;
/// Numbers of listeners begin here.
pub const LISTENERS_BEGIN: u32 = PORT_NUMBER_END;
/// Endpoints at most.
pub const ENDPOINTS_MAX: usize = 65_536;
/// Nanoseconds between two looks at all next hops.
const SWEEP_NS: u64 = 1_000_000_000;
/// Neighbours that one upkeep looks at.
const NEIGHBOURS_PER_UPKEEP: usize = 4096;
/// The flows that take packets out of tunnels go after so many ns without one.
const FLOW_IDLE_NS: u64 = 60_000_000_000;
/// Addresses are announced twice, so long apart (RFC 5227 §1.1).
const ANNOUNCE_AGAIN_NS: u64 = 2_000_000_000;
/// The shortest MTU that an interface may have (RFC 791 §3.2).
const MTU_MIN: u32 = 68;

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayConfig {
    /// The neighbour cache.
    pub neighbours: NeighbourConfig,
}

/// A port with addresses of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The datapath port.
    pub port: u32,
    /// Our link-layer address.
    pub mac: [u8; 6],
    /// Frames have this tag; `None` for none.
    pub vlan: Option<VlanId>,
    /// The longest IP packet that its link carries.
    pub mtu: u32,
    /// Our addresses, with the length of the prefix that is on the link.
    pub addresses: Vec<IpNet>,
}

/// A tunnel's packets are taken out if they come to one of our addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Kind: VXLAN, Geneve or GRE.
    pub kind: Kind,
    /// UDP port; the kind's own if `None`.
    pub udp_port: Option<u16>,
    /// How packets are checked.
    pub options: Options,
}

/// Another end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Kind: VXLAN, Geneve or GRE.
    pub kind: Kind,
    /// Its address.
    pub remote: IpAddr,
    /// The address that packets come from; if `None`, the route's or the interface's.
    pub local: Option<IpAddr>,
    /// UDP port; the kind's own if `None`.
    pub udp_port: Option<u16>,
    /// Send UDP checksums. Over IPv6 they are always sent, unless `zero_checksum6`; GRE has one of its own.
    pub checksum: bool,
    /// Send IPv6 packets without a UDP checksum (RFC 6935).
    pub zero_checksum6: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Differentiated services and congestion marks.
    pub tos: u8,
    /// What comes from the inner packet instead.
    pub inherit: Inherit,
    /// Split outer packets that are too long, instead of telling the inner packet's sender.
    pub fragment: bool,
    /// The routing table that is asked before [`MAIN`].
    pub table: u32,
}

impl Endpoint {
    /// A tunnel to `remote` as most are: TTL 64, congestion marks carried along, no fragments.
    pub fn new(kind: Kind, remote: IpAddr) -> Endpoint {
        Endpoint {
            kind,
            remote,
            local: None,
            udp_port: None,
            checksum: false,
            zero_checksum6: false,
            ttl: 64,
            tos: 0,
            inherit: Inherit { ecn: true, ..Inherit::NONE },
            fragment: false,
            table: MAIN,
        }
    }
}

/// Why the underlay was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnderlayError {
    /// The port number is too large.
    #[error("port: {0} is out of range (0 to 65535)")]
    Port(u32),
    /// The link-layer address is a group's, or none.
    #[error("mac: not the address of a host")]
    Mac,
    /// The MTU is too small.
    #[error("mtu: {0} is less than {MTU_MIN}")]
    Mtu(u32),
    /// An address is no host's, or is given twice.
    #[error("address: {0} is not the address of a host, or another interface has it")]
    Address(IpAddr),
    /// The kind is none that the underlay makes headers of.
    #[error("kind: {} is not one of vxlan, geneve, gre", .0.name())]
    Kind(Kind),
    /// The other end is no host, or we are it, or our address is of another IP version.
    #[error("{0}: not the address of another host, or not of the other end's IP version")]
    End(&'static str),
    /// There are too many.
    #[error("no more than {ENDPOINTS_MAX} endpoints")]
    TooManyEndpoints,
    /// Another listener has the UDP port.
    #[error("udp_port: another tunnel is listened for there")]
    Listener,
    /// A route was refused.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// There is no such thing.
    #[error("{0}: there is none")]
    NotFound(&'static str),
}

/// What an underlay counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderlayStats {
    /// Of the neighbour cache.
    pub neighbours: NeighbourStats,
    /// Requests of neighbours that were answered.
    pub answered: u64,
    /// Echo requests that were answered.
    pub echoes: u64,
    /// Packets that waited for a neighbour and went on.
    pub released: u64,
    /// Packets that waited for a neighbour which did not answer, or whose route went.
    pub lost: u64,
    /// Packets that were split because a way was too narrow.
    pub fragmented: u64,
    /// Frames that the datapath had no room for.
    pub unsent: u64,
    /// Other hosts that claimed one of our addresses.
    pub conflicts: u64,
    /// ICMP errors that told that a way is narrower than was known.
    pub paths_narrowed: u64,
    /// Those that told nothing new, or were about no packet of ours, or said what cannot be.
    pub path_errors_ignored: u64,
}

/// A packet that waits for the next hop of its tunnel.
#[derive(Debug)]
struct Waiter {
    bytes: Vec<u8>,
    in_port: u32,
    tunnel: u32,
    id: Option<u32>,
}

impl Waiting for Waiter {
    fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Where packets of an endpoint leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    next: NeighbourKey,
    source: IpAddr,
}

#[derive(Debug)]
struct Target {
    config: Endpoint,
    hop: Option<Hop>,
    /// The next hop's address that the datapath was told.
    told: Option<[u8; 6]>,
}

#[derive(Debug)]
struct State {
    interfaces: BTreeMap<u32, Interface>,
    routes: Routes,
    neighbours: Neighbours<Waiter>,
    listeners: Vec<Listener>,
    endpoints: BTreeMap<u32, Target>,
    /// Endpoints by their next hop.
    by_hop: AHashMap<NeighbourKey, BTreeSet<u32>>,
    /// And by the address of the other end.
    by_remote: AHashMap<IpAddr, BTreeSet<u32>>,
    paths: Paths,
    stats: UnderlayStats,
    swept_at: Nanos,
    /// Interfaces whose port was not up when it was last looked at.
    down: BTreeSet<u32>,
    /// Interfaces whose addresses are to be announced again, and when.
    announcements: Vec<(Nanos, u32)>,
    /// Identifies the fragments of one packet.
    fragment_id: u32,
}

/// The underlay of one datapath.
///
/// *Thread-safety.* Everything is behind one mutex, which packets with a flow never take. It is taken after a bridge's mutex and before the
/// datapath's control mutex, never the other way round. What [`Datapath::set_injected`] set is called with it held.
#[derive(Debug)]
pub struct Underlay {
    datapath: WeakDatapath,
    state: Mutex<State>,
}

/// What came of a neighbour cache's step.
type Events = Vec<Event<Waiter>>;

impl Underlay {
    /// An underlay without interfaces. Whoever answers the datapath's upcalls hands it those of its ports: [`Underlay::miss`],
    /// [`Underlay::undeliverable`].
    pub fn new(datapath: &Datapath, config: UnderlayConfig) -> Arc<Underlay> {
        let state = State {
            interfaces: BTreeMap::new(),
            routes: Routes::default(),
            neighbours: Neighbours::new(config.neighbours),
            listeners: Vec::new(),
            endpoints: BTreeMap::new(),
            by_hop: AHashMap::new(),
            by_remote: AHashMap::new(),
            paths: Paths::default(),
            stats: UnderlayStats::default(),
            swept_at: Nanos(0),
            down: BTreeSet::new(),
            announcements: Vec::new(),
            fragment_id: 1,
        };
        Arc::new(Underlay { datapath: datapath.downgrade(), state: Mutex::new(state) })
    }

    /// Makes a datapath port an interface, or changes it; announces its addresses. The prefixes of its addresses become routes of table
    /// [`MAIN`]. Other routes over the port stay.
    ///
    /// # Errors
    /// [`UnderlayError`] names the field; nothing is changed then.
    pub fn interface_set(&self, interface: Interface, now: Nanos) -> Result<(), UnderlayError> {
        let state = &mut *lock(&self.state);
        if interface.port >= PORT_NUMBER_END {
            return Err(UnderlayError::Port(interface.port));
        }
        if interface.mac[0] & 1 != 0 || interface.mac == [0; 6] {
            return Err(UnderlayError::Mac);
        }
        if interface.mtu < MTU_MIN {
            return Err(UnderlayError::Mtu(interface.mtu));
        }
        let others = state.interfaces.values().filter(|other| other.port != interface.port);
        let taken: BTreeSet<IpAddr> = others.flat_map(|other| &other.addresses).map(IpNet::addr).collect();
        for (at, address) in interface.addresses.iter().enumerate() {
            let ip = address.addr();
            let is_twice = taken.contains(&ip) || interface.addresses[..at].iter().any(|other| other.addr() == ip);
            if !routes::is_host(ip) || is_twice {
                return Err(UnderlayError::Address(ip));
            }
        }
        if state.routes.len() + interface.addresses.len() > routes::ROUTES_MAX {
            return Err(RouteError::TooMany.into());
        }
        state.forget_connected(interface.port);
        for address in &interface.addresses {
            let (prefix, source) = (address.trunc(), Some(address.addr()));
            let route = Route { prefix, via: None, port: interface.port, source, metric: 0 };
            // Two addresses of one prefix, or a configured route for it: one way there is enough.
            match state.routes.add(MAIN, route) {
                Ok(()) | Err(RouteError::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let port = interface.port;
        if state.interfaces.insert(port, interface).is_some() {
            self.forget_pops(port);
        }
        self.announce_twice(state, port, now);
        self.look_up_all(state, now);
        Ok(())
    }

    /// Takes a port's addresses away, and its neighbours and routes.
    ///
    /// # Errors
    /// [`UnderlayError::NotFound`].
    pub fn interface_del(&self, port: u32, now: Nanos) -> Result<(), UnderlayError> {
        let state = &mut *lock(&self.state);
        state.interfaces.remove(&port).ok_or(UnderlayError::NotFound("interface"))?;
        self.forget_pops(port);
        state.down.remove(&port);
        state.routes.remove_port(port);
        state.stats.lost += state.neighbours.forget_port(port) as u64;
        self.look_up_all(state, now);
        Ok(())
    }

    /// What came to an address of a port's may be for nobody now: its packets are looked at anew.
    fn forget_pops(&self, port: u32) {
        if let Some(datapath) = self.datapath.upgrade() {
            remove_pops(&datapath, |in_port, listener| in_port == port && listener >= LISTENERS_BEGIN);
        }
    }

    /// The interfaces.
    pub fn interfaces(&self) -> Vec<Interface> {
        lock(&self.state).interfaces.values().cloned().collect()
    }

    /// True if the port is an interface.
    pub fn has_interface(&self, port: u32) -> bool {
        lock(&self.state).interfaces.contains_key(&port)
    }

    /// True if packets that come in on this port are the underlay's: it is an interface, or what comes out of a tunnel that is listened for.
    pub fn owns(&self, port: u32) -> bool {
        let state = lock(&self.state);
        match port.checked_sub(LISTENERS_BEGIN) {
            Some(at) => (at as usize) < state.listeners.len(),
            None => state.interfaces.contains_key(&port),
        }
    }

    /// Adds a route to a table.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route_add(&self, table: u32, route: Route, now: Nanos) -> Result<(), UnderlayError> {
        let state = &mut *lock(&self.state);
        if !state.interfaces.contains_key(&route.port) {
            return Err(UnderlayError::NotFound("interface"));
        }
        state.routes.add(table, route)?;
        self.look_up_all(state, now);
        Ok(())
    }

    /// Removes a route, see [`Routes::remove`].
    ///
    /// # Errors
    /// [`UnderlayError::NotFound`].
    pub fn route_del(
        &self,
        table: u32,
        prefix: IpNet,
        metric: Option<u32>,
        now: Nanos,
    ) -> Result<Route, UnderlayError> {
        let state = &mut *lock(&self.state);
        let route = state.routes.remove(table, prefix, metric).ok_or(UnderlayError::NotFound("route"))?;
        self.look_up_all(state, now);
        Ok(route)
    }

    /// All routes with their tables.
    pub fn routes(&self) -> Vec<(u32, Route)> {
        lock(&self.state).routes.iter().map(|(table, route)| (table, *route)).collect()
    }

    /// Sets a neighbour's address for good.
    ///
    /// # Errors
    /// [`UnderlayError::Mac`].
    pub fn neighbour_set(&self, key: NeighbourKey, mac: [u8; 6], now: Nanos) -> Result<(), UnderlayError> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(UnderlayError::Mac);
        }
        let state = &mut *lock(&self.state);
        let mut events = Events::new();
        state.neighbours.set(key, mac, now, &mut |event| events.push(event));
        self.apply(state, events);
        Ok(())
    }

    /// Forgets a neighbour: it is asked for again when it is needed.
    ///
    /// # Errors
    /// [`UnderlayError::NotFound`].
    pub fn neighbour_del(&self, key: NeighbourKey, now: Nanos) -> Result<(), UnderlayError> {
        let state = &mut *lock(&self.state);
        state.neighbours.get(key).ok_or(UnderlayError::NotFound("neighbour"))?;
        let waiting = state.neighbours.forget(key);
        state.stats.lost += waiting.len() as u64;
        self.look_up_all(state, now);
        Ok(())
    }

    /// The neighbours, in order of port and address.
    pub fn neighbours(&self) -> Vec<NeighbourInfo> {
        let mut all: Vec<NeighbourInfo> = lock(&self.state).neighbours.iter().collect();
        all.sort_unstable_by_key(|info| info.key);
        all
    }

    /// Has packets of a tunnel that come to our addresses taken out of it. Returns the port number that they then are of, whoever sent them.
    ///
    /// # Errors
    /// [`UnderlayError::Kind`], [`UnderlayError::Listener`].
    pub fn listen(&self, listener: Listener) -> Result<u32, UnderlayError> {
        let datapath = self.datapath.upgrade().ok_or(UnderlayError::NotFound("datapath"))?;
        let state = &mut *lock(&self.state);
        check_kind(listener.kind)?;
        if state.listeners.iter().any(|other| other.carrier() == listener.carrier()) {
            return Err(UnderlayError::Listener);
        }
        let number = LISTENERS_BEGIN + state.listeners.len() as u32;
        datapath.tunnel_set(number, Tunnel::new(listener.kind, listener.options.clone()));
        state.listeners.push(listener);
        Ok(number)
    }

    /// What is listened for, by the numbers that [`Underlay::listen`] returned.
    pub fn listeners(&self) -> Vec<(u32, Listener)> {
        (LISTENERS_BEGIN..).zip(lock(&self.state).listeners.iter().cloned()).collect()
    }

    /// Makes an endpoint, whose number is what `encap` is told. Its way is asked for at once.
    ///
    /// # Errors
    /// [`UnderlayError`] names the field; nothing is changed then.
    pub fn endpoint_add(&self, endpoint: Endpoint, now: Nanos) -> Result<u32, UnderlayError> {
        check_kind(endpoint.kind)?;
        if !routes::is_host(endpoint.remote) {
            return Err(UnderlayError::End("remote"));
        }
        let is_wrong = |local: IpAddr| !routes::is_host(local) || local.is_ipv4() != endpoint.remote.is_ipv4();
        if endpoint.local.is_some_and(is_wrong) {
            return Err(UnderlayError::End("local"));
        }
        let datapath = self.datapath.upgrade().ok_or(UnderlayError::NotFound("datapath"))?;
        let state = &mut *lock(&self.state);
        let is_ours = state.interfaces.values().any(|interface| interface.has(endpoint.remote));
        if is_ours || endpoint.remote.is_loopback() {
            return Err(UnderlayError::End("remote"));
        }
        if state.endpoints.len() >= ENDPOINTS_MAX {
            return Err(UnderlayError::TooManyEndpoints);
        }
        let behind = state.endpoints.last_key_value().map_or(ENDPOINTS_BEGIN, |(last, _)| last + 1);
        let number = if behind < ENDPOINTS_BEGIN + ENDPOINTS_MAX as u32 {
            behind
        } else {
            (ENDPOINTS_BEGIN..).find(|n| !state.endpoints.contains_key(n)).unwrap_or(ENDPOINTS_BEGIN)
        };
        datapath.tunnel_set(number, Tunnel::new(endpoint.kind, Options::default()));
        state.by_remote.entry(endpoint.remote).or_default().insert(number);
        state.endpoints.insert(number, Target { config: endpoint, hop: None, told: None });
        self.look_up(state, &[number], now);
        Ok(number)
    }

    /// Removes an endpoint. Flows that name it drop their packets: `unknown_tunnel`.
    ///
    /// # Errors
    /// [`UnderlayError::NotFound`].
    pub fn endpoint_del(&self, number: u32) -> Result<(), UnderlayError> {
        let state = &mut *lock(&self.state);
        let target = state.endpoints.remove(&number).ok_or(UnderlayError::NotFound("endpoint"))?;
        state.unlink(number, target.hop);
        let remote = target.config.remote;
        if let Some(numbers) = state.by_remote.get_mut(&remote) {
            numbers.remove(&number);
            if numbers.is_empty() {
                state.by_remote.remove(&remote);
            }
        }
        if let Some(datapath) = self.datapath.upgrade() {
            datapath.tunnel_del(number);
        }
        Ok(())
    }

    /// True if the number is an endpoint's.
    pub fn has_endpoint(&self, number: u32) -> bool {
        lock(&self.state).endpoints.contains_key(&number)
    }

    /// The endpoints: number, settings, and whether their way is known.
    pub fn endpoints(&self) -> Vec<(u32, Endpoint, bool)> {
        let state = lock(&self.state);
        state.endpoints.iter().map(|(number, target)| (*number, target.config.clone(), target.told.is_some())).collect()
    }

    /// The ways to other ends that are known to be narrower than their interface's link.
    pub fn paths(&self) -> Vec<PathInfo> {
        lock(&self.state).paths.list()
    }

    /// Takes back all flows and tunnels, and forgets interfaces, routes, neighbours, listeners and endpoints.
    pub(crate) fn withdraw(&self) {
        let state = &mut *lock(&self.state);
        let listeners = LISTENERS_BEGIN..LISTENERS_BEGIN + state.listeners.len() as u32;
        let waiting: usize = state.neighbours.iter().map(|neighbour| neighbour.waiting).sum();
        state.stats.lost += waiting as u64;
        for port in core::mem::take(&mut state.interfaces).into_keys() {
            state.neighbours.forget_port(port);
        }
        state.routes = Routes::default();
        state.down.clear();
        state.announcements.clear();
        state.listeners.clear();
        state.by_hop.clear();
        state.by_remote.clear();
        state.paths = Paths::default();
        let endpoints = core::mem::take(&mut state.endpoints);
        let Some(datapath) = self.datapath.upgrade() else { return };
        remove_pops(&datapath, |_, listener| listeners.contains(&listener));
        for number in listeners.clone().chain(endpoints.into_keys()) {
            datapath.tunnel_del(number);
        }
    }

    /// What was counted.
    pub fn stats(&self) -> UnderlayStats {
        let state = lock(&self.state);
        UnderlayStats { neighbours: state.neighbours.stats, ..state.stats }
    }

    /// Asks neighbours again, and keeps those fresh that endpoints need. Where a port has come up, what was sent before may be lost: addresses are
    /// announced, and neighbours asked for, anew. Call it several times a second.
    pub fn upkeep(&self, now: Nanos) {
        let state = &mut *lock(&self.state);
        let mut events = Events::new();
        for port in self.come_up(state) {
            self.announce_twice(state, port, now);
            state.neighbours.ask_again(port, now, &mut |event| events.push(event));
        }
        if now.since(state.swept_at) >= SWEEP_NS {
            state.swept_at = now;
            let hops: Vec<NeighbourKey> = state.by_hop.keys().copied().collect();
            for key in hops {
                state.neighbours.resolve(key, now, None, &mut |event| events.push(event));
            }
        }
        let (due, later) = state.announcements.drain(..).partition(|(at, _)| *at <= now);
        state.announcements = later;
        let due: Vec<(Nanos, u32)> = due;
        due.into_iter().for_each(|(_, port)| self.announce(state, port));
        state.neighbours.tick(now, NEIGHBOURS_PER_UPKEEP, &mut |event| events.push(event));
        self.apply(state, events);
        while let Some(remote) = state.paths.expire(now) {
            self.tell_again(state, remote);
        }
    }
}

impl Interface {
    fn link(&self) -> Link {
        Link { src: self.mac, vlan: self.vlan.map(VlanId::number) }
    }

    fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.addr() == ip)
    }

    /// The address to ask `target` from: one of its prefix if there is one.
    fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let same = self.addresses.iter().filter(|address| address.addr().is_ipv4() == target.is_ipv4());
        let near = same.clone().find(|address| address.contains(&target));
        near.or_else(|| same.clone().next()).map(IpNet::addr)
    }
}

/// Protocol and UDP port that tell a tunnel's packets.
fn carrier(kind: Kind, udp_port: Option<u16>) -> (u8, u16) {
    if kind == Kind::Gre { (ip::GRE, 0) } else { (ip::UDP, udp_port.unwrap_or(kind.port())) }
}

impl Listener {
    fn carrier(&self) -> (u8, u16) {
        carrier(self.kind, self.udp_port)
    }
}

impl Endpoint {
    fn carrier(&self) -> (u8, u16) {
        carrier(self.kind, self.udp_port)
    }
}

/// Removes flows that take packets out of tunnels, by their port and listener.
fn remove_pops(datapath: &Datapath, is_gone: impl Fn(u32, u32) -> bool) {
    let mut cursor = 0;
    while let Some(flow) = datapath.flow_next(&mut cursor) {
        if let [Action::TunnelPop(listener)] = flow.actions[..]
            && is_gone(flow.key.base.in_port, listener)
        {
            // Gone meanwhile is gone as well.
            let _ = datapath.flow_del(FlowId::Ufid(flow.ufid));
        }
    }
}

fn check_kind(kind: Kind) -> Result<(), UnderlayError> {
    if matches!(kind, Kind::Vxlan | Kind::Geneve | Kind::Gre) { Ok(()) } else { Err(UnderlayError::Kind(kind)) }
}

impl State {
    /// Removes the routes that a port's addresses made.
    fn forget_connected(&mut self, port: u32) {
        let Some(interface) = self.interfaces.get(&port) else { return };
        let prefixes: Vec<IpNet> = interface.addresses.iter().map(IpNet::trunc).collect();
        let ours: Vec<IpNet> = self
            .routes
            .iter()
            .filter(|(table, route)| {
                *table == MAIN
                    && (route.port, route.metric, route.via) == (port, 0, None)
                    && prefixes.contains(&route.prefix)
            })
            .map(|(_, route)| route.prefix)
            .collect();
        ours.into_iter().for_each(|prefix| {
            self.routes.remove(MAIN, prefix, Some(0));
        });
    }

    fn hop_of(&self, endpoint: &Endpoint) -> Option<Hop> {
        let route = self.routes.lookup(&[endpoint.table, MAIN], endpoint.remote)?;
        let interface = self.interfaces.get(&route.port)?;
        let next = route.via.unwrap_or(endpoint.remote);
        let source = endpoint.local.or(route.source).or_else(|| interface.source_for(next))?;
        Some(Hop { next: (route.port, next), source })
    }

    fn unlink(&mut self, number: u32, hop: Option<Hop>) {
        let Some(key) = hop.map(|hop| hop.next) else { return };
        if let Some(numbers) = self.by_hop.get_mut(&key) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_hop.remove(&key);
            }
        }
    }
}

mod answer;
mod headers;

#[cfg(test)]
mod tests;
