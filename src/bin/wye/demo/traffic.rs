//! What the people of the demo send: a table of ready frames, drawn from at random, in which connections come and go.

use wye::testing::Frame;

/// A port at the edge of a site, where hosts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// People's computers, and guests in a VLAN of their own.
    Lan,
    /// Servers.
    Servers,
}

/// Hosts on the LAN port of each site.
const LAN_HOSTS: u32 = 96;
/// Servers of each site.
const SERVERS: u32 = 24;
/// Guests on the LAN port of each site.
const GUESTS: u32 = 32;
/// The guests' VLAN, which both sites share.
pub const GUEST_VLAN: u16 = 20;
/// The guests' network is 10.20.0.0/16, with a part for each site.
const GUEST_NET: u8 = 20;
/// A VLAN that no port allows.
const FOREIGN_VLAN: u16 = 666;
/// Frames in the table.
const FRAMES: usize = 8192;

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Between hosts and servers of one site: bridged.
    Local,
    /// To the other site: routed, a flow for each connection.
    Remote,
    /// Between guests of both sites, tagged: bridged over the cable.
    Guests,
    /// ARP for a host: flooded within the site.
    ArpHost,
    /// ARP for the gateway: the gateway keeps it.
    ArpGateway,
    /// To the other site, at the end of its TTL.
    Expired,
    /// To an address that no route knows.
    Unrouted,
    /// With a VLAN tag that the port does not allow.
    ForeignVlan,
    /// Too short for an Ethernet header.
    Runt,
}

/// Frames of each kind in a thousand.
const MIX: &[(Kind, u32)] = &[
    (Kind::Local, 480),
    (Kind::Remote, 330),
    (Kind::Guests, 130),
    (Kind::ArpHost, 4),
    (Kind::ArpGateway, 4),
    (Kind::Expired, 16),
    (Kind::Unrouted, 20),
    (Kind::ForeignVlan, 12),
    (Kind::Runt, 4),
];

/// The address of a site's gateway within the site.
pub fn gateway_mac(site: u8) -> [u8; 6] {
    [2, 0xfe, site, 0, 0, 1]
}

/// The IPv4 address of a site's gateway.
pub fn gateway_ip(site: u8) -> [u8; 4] {
    [10, site, 0, 1]
}

/// The hardware address of the host with an IPv4 address.
pub fn mac_of(ip: [u8; 4]) -> [u8; 6] {
    [2, 0, ip[0], ip[1], ip[2], ip[3]]
}

/// The port behind which a site has an address.
pub fn edge_of(ip: [u8; 4]) -> Edge {
    if ip[1] != GUEST_NET && ip[2] == 2 { Edge::Servers } else { Edge::Lan }
}

fn lan_host(site: u8, i: u32) -> [u8; 4] {
    [10, site, 1, (1 + i % LAN_HOSTS) as u8]
}

fn server(site: u8, i: u32) -> [u8; 4] {
    [10, site, 2, (1 + i % SERVERS) as u8]
}

fn guest(site: u8, i: u32) -> [u8; 4] {
    [10, GUEST_NET, site, (1 + i % GUESTS) as u8]
}

/// A small generator of numbers that are random enough for a demo.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
}

struct Slot {
    edge: Edge,
    kind: Kind,
    bytes: Vec<u8>,
}

/// All that is sent at one site.
pub struct Traffic {
    site: u8,
    other: u8,
    random: Random,
    slots: Vec<Slot>,
    /// Slots of connections to the other site.
    remote: Vec<usize>,
}

impl Traffic {
    /// The traffic of `site`, some of it to `other`.
    pub fn new(site: u8, other: u8) -> Self {
        let mut traffic =
            Traffic { site, other, random: Random(u64::from(site) << 32 | 1), slots: Vec::new(), remote: Vec::new() };
        for i in 0..FRAMES {
            let kind = traffic.draw();
            let slot = traffic.slot(kind);
            traffic.slots.push(slot);
            if kind == Kind::Remote {
                traffic.remote.push(i);
            }
        }
        traffic
    }

    fn draw(&mut self) -> Kind {
        let mut at = self.random.next() % MIX.iter().map(|(_, share)| share).sum::<u32>();
        for &(kind, share) in MIX {
            if at < share {
                return kind;
            }
            at -= share;
        }
        Kind::Local
    }

    /// Some frame and where it is sent.
    pub fn next(&mut self) -> (Edge, &[u8]) {
        let slot = &self.slots[self.random.next() as usize % self.slots.len()];
        (slot.edge, &slot.bytes)
    }

    /// Ends a connection to the other site and begins another one.
    pub fn renew(&mut self) {
        if let Some(&at) = self.remote.get(self.random.next() as usize % self.remote.len().max(1)) {
            self.slots[at] = self.slot(self.slots[at].kind);
        }
    }

    fn slot(&mut self, kind: Kind) -> Slot {
        let (site, other) = (self.site, self.other);
        let [a, b, ports, size] = [0; 4].map(|_| self.random.next());
        let (from, to) = match kind {
            Kind::Local if ports.is_multiple_of(2) => (server(site, b), lan_host(site, a)),
            Kind::Local => (lan_host(site, a), server(site, b)),
            Kind::Remote | Kind::Expired if ports.is_multiple_of(3) => (server(site, a), lan_host(other, b)),
            Kind::Guests => (guest(site, a), guest(other, b)),
            Kind::ForeignVlan => (lan_host(site, a), server(site, b)),
            Kind::ArpHost => (lan_host(site, a), server(site, b)),
            Kind::ArpGateway => (lan_host(site, a), gateway_ip(site)),
            Kind::Unrouted => (lan_host(site, a), [192, 0, 2, b as u8]),
            _ => (lan_host(site, a), server(other, b)),
        };
        // What is not for the own network goes to the gateway.
        let next_hop = if to[1] == site || to[1] == GUEST_NET { mac_of(to) } else { gateway_mac(site) };
        let unicast = Frame::new().eth(next_hop, mac_of(from));
        let broadcast = Frame::new().eth([0xff; 6], mac_of(from));
        // A common mix of lengths: 7 parts short, 4 parts middling, 1 part full.
        let len = [64, 64, 64, 64, 64, 64, 64, 590, 590, 590, 590, 1514][size as usize % 12];
        let client = 1024 + (ports >> 8) as u16 % 60_000;
        let talk = |frame: Frame, ttl: u8| {
            let frame = frame.ipv4(from, to).ttl(ttl);
            if edge_of(from) == Edge::Servers { frame.tcp(443, client) } else { frame.tcp(client, 443) }.fill_to(len)
        };
        let frame = match kind {
            Kind::Local | Kind::Remote | Kind::Unrouted => talk(unicast, 64),
            Kind::Guests => unicast.vlan(GUEST_VLAN).ipv4(from, to).udp(client, 443).fill_to(len),
            Kind::ArpHost | Kind::ArpGateway => broadcast.arp(1, mac_of(from), from, [0; 6], to).pad_to(60),
            Kind::Expired => talk(unicast, 1),
            Kind::ForeignVlan => talk(unicast.vlan(FOREIGN_VLAN), 64),
            Kind::Runt => Frame::new(),
        };
        let mut bytes = frame.build();
        if kind == Kind::Runt {
            bytes = vec![0xff; 10];
        }
        Slot { edge: edge_of(from), kind, bytes }
    }
}
