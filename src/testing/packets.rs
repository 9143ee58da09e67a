//! [`Frame`]: a builder of frames, outermost header first; lengths, types and checksums follow from what is inside.
//!
//! ```
//! use wye::testing::Frame;
//! let bytes = Frame::new().eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).vlan(7)
//!     .ipv4([10, 0, 0, 1], [10, 0, 0, 2]).ttl(3).udp(1000, 53).payload(b"hello").build();
//! assert_eq!(bytes.len(), 14 + 4 + 20 + 8 + 5);
//! ```

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::checksums::naive;
use crate::wire::{arp, ethernet, icmp, icmpv6, igmp, ip, ipv4, ipv6, mpls, nsh, sctp, tcp, udp, vlan};

/// A source address that the ready-made frames use.
pub const MAC_A: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// A destination address that the ready-made frames use.
pub const MAC_B: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
/// An IPv4 source address that the ready-made frames use.
pub const IP_A: [u8; 4] = [10, 0, 0, 1];
/// An IPv4 destination address that the ready-made frames use.
pub const IP_B: [u8; 4] = [10, 0, 0, 2];
/// An IPv6 source address that the ready-made frames use.
pub const IP6_A: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// An IPv6 destination address that the ready-made frames use.
pub const IP6_B: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// EtherType of a payload that no layer names: local experimental (IEEE 802).
pub const ETHERTYPE_UNKNOWN: u16 = 0x88b5;
/// IP protocol of a payload that no layer names: for experiments (RFC 3692).
pub const PROTO_UNKNOWN: u8 = 253;

/// An IPv6 extension header to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options with this many further units of 8 bytes of padding.
    HopByHop(u8),
    /// Destination options with this many further units of 8 bytes of padding.
    Destination(u8),
    /// Segment routing header (RFC 8754); the first segment of the list is the final destination.
    Routing {
        /// Segments left.
        left: u8,
        /// Segment list.
        segments: Vec<[u8; 16]>,
    },
    /// Fragment header.
    Fragment {
        /// Offset in units of 8 bytes.
        offset: u16,
        /// More fragments follow.
        more: bool,
    },
    /// Authentication header with a value of 12 bytes.
    Ah,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Layer {
    Ethernet { dst: [u8; 6], src: [u8; 6], ethertype: Option<u16> },
    Vlan { tpid: u16, tci: u16, ethertype: Option<u16> },
    Snap,
    Mpls { label: u32, tc: u8, ttl: u8, multicast: bool },
    Arp { op: u16, sha: [u8; 6], sip: [u8; 4], tha: [u8; 6], tip: [u8; 4] },
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    Tcp { src: u16, dst: u16, flags: u16, options: Vec<u8> },
    Udp { src: u16, dst: u16, checksum: bool },
    Sctp { src: u16, dst: u16 },
    Icmp { kind: u8, code: u8, rest: u32 },
    Icmpv6 { kind: u8, code: u8, rest: u32 },
    Neighbour { kind: u8, reserved: u32, target: [u8; 16], options: Vec<u8> },
    Igmp { kind: u8, max_response: u8, group: [u8; 4] },
    Nsh { flags: u8, ttl: u8, md_type: u8, path: u32, context: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ipv4 {
    src: [u8; 4],
    dst: [u8; 4],
    tos: u8,
    ttl: u8,
    id: u16,
    fragment: u16,
    proto: Option<u8>,
    options: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ipv6 {
    src: [u8; 16],
    dst: [u8; 16],
    class: u8,
    label: u32,
    hop_limit: u8,
    proto: Option<u8>,
    extensions: Vec<Extension>,
}

/// Addresses of the enclosing IP header, for the checksums that cover a pseudo-header.
#[derive(Clone, Copy)]
enum Pseudo {
    None,
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

impl Pseudo {
    fn checksum(self, proto: u8, segment: &[u8]) -> u16 {
        let mut all = Vec::new();
        match self {
            Pseudo::None => {}
            Pseudo::V4(src, dst) => {
                all.extend(src);
                all.extend(dst);
                all.extend([0, proto]);
                all.extend((segment.len() as u16).to_be_bytes());
            }
            Pseudo::V6(src, dst) => {
                all.extend(src);
                all.extend(dst);
                all.extend((segment.len() as u32).to_be_bytes());
                all.extend([0, 0, 0, proto]);
            }
        }
        all.extend(segment);
        naive(&all)
    }
}

/// A frame under construction. Methods that change "the last header" do nothing if it is of another kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    layers: Vec<Layer>,
    payload: Vec<u8>,
    len_min: usize,
}

impl Frame {
    /// A frame of nothing.
    pub fn new() -> Self {
        Frame::default()
    }

    /// Ethernet, IPv4, UDP from port 1000 to 2000, between the addresses of this module.
    pub fn udp4() -> Self {
        Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).udp(1000, 2000)
    }

    /// As [`Frame::udp4`] with TCP.
    pub fn tcp4() -> Self {
        Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).tcp(1000, 2000)
    }

    /// As [`Frame::udp4`] with IPv6.
    pub fn udp6() -> Self {
        Frame::new().eth(MAC_B, MAC_A).ipv6(IP6_A, IP6_B).udp(1000, 2000)
    }

    /// As [`Frame::udp6`] with TCP.
    pub fn tcp6() -> Self {
        Frame::new().eth(MAC_B, MAC_A).ipv6(IP6_A, IP6_B).tcp(1000, 2000)
    }

    fn with(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// An Ethernet header.
    pub fn eth(self, dst: [u8; 6], src: [u8; 6]) -> Self {
        self.with(Layer::Ethernet { dst, src, ethertype: None })
    }

    /// An 802.1Q tag with this tag control information.
    pub fn vlan(self, tci: u16) -> Self {
        self.tag(ethernet::VLAN, tci)
    }

    /// A VLAN tag of any EtherType.
    pub fn tag(self, tpid: u16, tci: u16) -> Self {
        self.with(Layer::Vlan { tpid, tci, ethertype: None })
    }

    /// 802.2 LLC with SNAP (RFC 1042): the header before it carries a length.
    pub fn snap(self) -> Self {
        self.with(Layer::Snap)
    }

    /// Overrides the EtherType that the last header (Ethernet or VLAN tag) carries.
    pub fn ethertype(mut self, value: u16) -> Self {
        if let Some(Layer::Ethernet { ethertype, .. } | Layer::Vlan { ethertype, .. }) = self.layers.last_mut() {
            *ethertype = Some(value);
        }
        self
    }

    /// An MPLS label stack entry; the bottom of the stack is found by itself.
    pub fn mpls(self, label: u32, tc: u8, ttl: u8) -> Self {
        self.with(Layer::Mpls { label, tc, ttl, multicast: false })
    }

    /// As [`Frame::mpls`], under the multicast EtherType if it is the outermost entry.
    pub fn mpls_multicast(self, label: u32, tc: u8, ttl: u8) -> Self {
        self.with(Layer::Mpls { label, tc, ttl, multicast: true })
    }

    /// ARP for IPv4 over Ethernet; nothing may follow.
    pub fn arp(self, op: u16, sha: [u8; 6], sip: [u8; 4], tha: [u8; 6], tip: [u8; 4]) -> Self {
        self.with(Layer::Arp { op, sha, sip, tha, tip })
    }

    /// An IPv4 header with TTL 64.
    pub fn ipv4(self, src: [u8; 4], dst: [u8; 4]) -> Self {
        self.with(Layer::Ipv4(Ipv4 { src, dst, tos: 0, ttl: 64, id: 1, fragment: 0, proto: None, options: Vec::new() }))
    }

    /// An IPv6 header with hop limit 64.
    pub fn ipv6(self, src: [u8; 16], dst: [u8; 16]) -> Self {
        let extensions = Vec::new();
        self.with(Layer::Ipv6(Ipv6 { src, dst, class: 0, label: 0, hop_limit: 64, proto: None, extensions }))
    }

    /// TTL or hop limit of the last header (IPv4 or IPv6).
    pub fn ttl(mut self, value: u8) -> Self {
        match self.layers.last_mut() {
            Some(Layer::Ipv4(h)) => h.ttl = value,
            Some(Layer::Ipv6(h)) => h.hop_limit = value,
            _ => {}
        }
        self
    }

    /// TOS or traffic class of the last header (IPv4 or IPv6).
    pub fn tos(mut self, value: u8) -> Self {
        match self.layers.last_mut() {
            Some(Layer::Ipv4(h)) => h.tos = value,
            Some(Layer::Ipv6(h)) => h.class = value,
            _ => {}
        }
        self
    }

    /// Overrides the protocol number of the last header (IPv4 or IPv6).
    pub fn proto(mut self, value: u8) -> Self {
        match self.layers.last_mut() {
            Some(Layer::Ipv4(h)) => h.proto = Some(value),
            Some(Layer::Ipv6(h)) => h.proto = Some(value),
            _ => {}
        }
        self
    }

    /// Flow label of the last header (IPv6).
    pub fn label(mut self, value: u32) -> Self {
        if let Some(Layer::Ipv6(h)) = self.layers.last_mut() {
            h.label = value & ipv6::LABEL_MASK;
        }
        self
    }

    /// Adds options to the last header (IPv4 or TCP), padded with zeros to a multiple of 4 and cut at 40 bytes.
    pub fn options(mut self, bytes: &[u8]) -> Self {
        if let Some(Layer::Ipv4(Ipv4 { options, .. }) | Layer::Tcp { options, .. }) = self.layers.last_mut() {
            options.extend(bytes);
            options.resize(options.len().next_multiple_of(4).min(40), 0);
        }
        self
    }

    /// Identification of the last header (IPv4).
    pub fn id(mut self, value: u16) -> Self {
        if let Some(Layer::Ipv4(h)) = self.layers.last_mut() {
            h.id = value;
        }
        self
    }

    /// Sets "don't fragment" in the last header (IPv4).
    pub fn dont_fragment(mut self) -> Self {
        if let Some(Layer::Ipv4(h)) = self.layers.last_mut() {
            h.fragment |= ipv4::FLAG_DF;
        }
        self
    }

    /// Makes the last header (IPv4, or IPv6 with an extension header) one of a fragment, `offset` in units of 8 bytes. The headers behind
    /// it are built as if this fragment were the whole datagram; see [`split`] for fragments of one datagram. Use no transport layer
    /// behind a later fragment, but [`Frame::proto`] and a payload.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        match self.layers.last_mut() {
            Some(Layer::Ipv4(h)) => {
                h.fragment = offset & ipv4::FRAGMENT_OFFSET_MASK | if more { ipv4::FLAG_MF } else { 0 };
            }
            Some(Layer::Ipv6(h)) => h.extensions.push(Extension::Fragment { offset, more }),
            _ => {}
        }
        self
    }

    /// Adds an extension header to the last header (IPv6).
    pub fn extension(mut self, extension: Extension) -> Self {
        if let Some(Layer::Ipv6(h)) = self.layers.last_mut() {
            h.extensions.push(extension);
        }
        self
    }

    /// A TCP header with the ACK flag.
    pub fn tcp(self, src: u16, dst: u16) -> Self {
        self.with(Layer::Tcp { src, dst, flags: tcp::ACK, options: Vec::new() })
    }

    /// Flags of the last header (TCP).
    pub fn flags(mut self, value: u16) -> Self {
        if let Some(Layer::Tcp { flags, .. }) = self.layers.last_mut() {
            *flags = value & 0xfff;
        }
        self
    }

    /// A UDP header.
    pub fn udp(self, src: u16, dst: u16) -> Self {
        self.with(Layer::Udp { src, dst, checksum: true })
    }

    /// The last header (UDP) carries no checksum.
    pub fn no_checksum(mut self) -> Self {
        if let Some(Layer::Udp { checksum, .. }) = self.layers.last_mut() {
            *checksum = false;
        }
        self
    }

    /// An SCTP common header.
    pub fn sctp(self, src: u16, dst: u16) -> Self {
        self.with(Layer::Sctp { src, dst })
    }

    /// An ICMP header.
    pub fn icmp(self, kind: u8, code: u8, rest: u32) -> Self {
        self.with(Layer::Icmp { kind, code, rest })
    }

    /// An ICMPv6 header.
    pub fn icmpv6(self, kind: u8, code: u8, rest: u32) -> Self {
        self.with(Layer::Icmpv6 { kind, code, rest })
    }

    /// A neighbour solicitation.
    pub fn neighbour_solicitation(self, target: [u8; 16]) -> Self {
        let kind = icmpv6::NEIGHBOUR_SOLICITATION;
        self.with(Layer::Neighbour { kind, reserved: 0, target, options: Vec::new() })
    }

    /// A neighbour advertisement; `reserved` has its flags in the upper three bits.
    pub fn neighbour_advertisement(self, reserved: u32, target: [u8; 16]) -> Self {
        let kind = icmpv6::NEIGHBOUR_ADVERTISEMENT;
        self.with(Layer::Neighbour { kind, reserved, target, options: Vec::new() })
    }

    /// Adds a link-layer address option to the last header (neighbour discovery).
    pub fn link_option(mut self, kind: u8, address: [u8; 6]) -> Self {
        if let Some(Layer::Neighbour { options, .. }) = self.layers.last_mut() {
            options.extend([kind, 1]);
            options.extend(address);
        }
        self
    }

    /// An IGMP header.
    pub fn igmp(self, kind: u8, max_response: u8, group: [u8; 4]) -> Self {
        self.with(Layer::Igmp { kind, max_response, group })
    }

    /// An NSH header of metadata type 1.
    pub fn nsh(self, flags: u8, ttl: u8, path: u32, context: [u8; 16]) -> Self {
        self.with(Layer::Nsh { flags, ttl, md_type: nsh::MD_TYPE_1, path, context: context.to_vec() })
    }

    /// An NSH header of metadata type 2 with these TLVs, a multiple of 4 bytes.
    pub fn nsh_md2(self, flags: u8, ttl: u8, path: u32, tlvs: &[u8]) -> Self {
        self.with(Layer::Nsh { flags, ttl, md_type: nsh::MD_TYPE_2, path, context: tlvs.to_vec() })
    }

    /// What follows the last header.
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Pads the frame with zeros behind everything, as a sender of short Ethernet frames does.
    pub fn pad_to(mut self, len: usize) -> Self {
        self.len_min = len;
        self
    }

    /// Fills the payload so that the frame has `len` bytes, if it is shorter. Unlike padding, IP counts it.
    pub fn fill_to(mut self, len: usize) -> Self {
        let short = len.saturating_sub(self.build().len());
        let from = self.payload.len();
        self.payload.extend((from..from + short).map(|i| i as u8));
        self
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = encode(&self.layers, &self.payload, Pseudo::None);
        if bytes.len() < self.len_min {
            bytes.resize(self.len_min, 0);
        }
        bytes
    }

    /// A pseudo-random valid frame of any kind that the engine parses, drawn from `random`: the same numbers give the same frame.
    pub fn random(random: &mut impl FnMut() -> u32) -> Frame {
        fn bytes<const N: usize>(random: &mut impl FnMut() -> u32) -> [u8; N] {
            core::array::from_fn(|_| random() as u8)
        }
        let mut mac = bytes::<6>(random);
        mac[0] &= 0xfe;
        let mut f = Frame::new().eth(mac, bytes(random));
        for _ in 0..[0, 0, 0, 1, 1, 2, 3][random() as usize % 7] {
            let tpid = if random().is_multiple_of(2) { ethernet::VLAN } else { ethernet::VLAN_8021AD };
            f = f.tag(tpid, random() as u16);
        }
        if random().is_multiple_of(16) {
            f = f.snap();
        }
        for _ in 0..[0, 0, 0, 0, 0, 0, 1, 2, 3][random() as usize % 9] {
            f = f.mpls(random() & 0xf_ffff, random() as u8 & 7, random() as u8);
        }
        let v6 = match random() % 8 {
            0 => {
                let op = 1 + (random() % 2) as u16;
                return f.arp(op, bytes(random), bytes(random), bytes(random), bytes(random)).pad_to(60);
            }
            1 => {
                f = f.nsh(random() as u8 & 3, random() as u8 & 63, random(), bytes(random));
                f = f.eth(bytes(random), bytes(random));
                random().is_multiple_of(2)
            }
            2..5 => true,
            _ => false,
        };
        let mut later = false;
        if v6 {
            f = f.ipv6(bytes(random), bytes(random)).tos(random() as u8).ttl(random() as u8).label(random());
            if random().is_multiple_of(4) {
                f = f.extension(Extension::HopByHop(random() as u8 % 3));
            }
            if random().is_multiple_of(8) {
                let segments = vec![bytes(random), bytes(random)];
                f = f.extension(Extension::Routing { left: random() as u8 % 2, segments });
            }
            if random().is_multiple_of(8) {
                f = f.extension(Extension::Ah);
            }
            match random() % 12 {
                0 => f = f.fragment(0, true),
                1 => f = f.fragment(0, false),
                2 => {
                    later = true;
                    f = f.fragment(1 + random() as u16 % 100, random().is_multiple_of(2)).proto(ip::UDP);
                }
                3 => f = f.extension(Extension::Destination(random() as u8 % 2)),
                _ => {}
            }
        } else {
            f = f.ipv4(bytes(random), bytes(random)).tos(random() as u8).ttl(random() as u8).id(random() as u16);
            if random().is_multiple_of(5) {
                let options = vec![1u8; 1 + random() as usize % 40];
                f = f.options(&options);
            }
            match random() % 10 {
                0 => f = f.fragment(0, true),
                1 => {
                    later = true;
                    f = f.fragment(1 + random() as u16 % 100, random().is_multiple_of(2)).proto(ip::TCP);
                }
                2 => f = f.dont_fragment(),
                _ => {}
            }
        }
        if !later {
            let (src, dst) = (random() as u16, random() as u16);
            f = match random() % 8 {
                0 => f.sctp(src, dst),
                1 if v6 => f.icmpv6(icmpv6::ECHO_REQUEST, 0, random()),
                1 => f.icmp(icmp::ECHO_REQUEST, 0, random()),
                2 if v6 => f.neighbour_solicitation(bytes(random)).link_option(1, bytes(random)),
                2 => f.igmp(igmp::QUERY, random() as u8, bytes(random)),
                3 if v6 => f.neighbour_advertisement(random(), bytes(random)).link_option(2, bytes(random)),
                3 => f.udp(src, dst).no_checksum(),
                4 => f,
                5 => f.udp(src, dst),
                6 => f.tcp(src, dst).flags(random() as u16),
                _ => f.tcp(src, dst).flags(random() as u16).options(&[1; 12]),
            };
        }
        // Neighbour discovery ends with its options.
        if !matches!(f.layers.last(), Some(Layer::Neighbour { .. })) {
            let len = random() as usize % 64;
            f.payload = (0..len).map(|_| random() as u8).collect();
        }
        if random().is_multiple_of(3) { f.pad_to(60) } else { f }
    }
}

/// The EtherType that names `layer`.
fn ethertype_of(layer: Option<&Layer>) -> u16 {
    match layer {
        Some(Layer::Vlan { tpid, .. }) => *tpid,
        Some(Layer::Mpls { multicast: true, .. }) => ethernet::MPLS_MULTICAST,
        Some(Layer::Mpls { .. }) => ethernet::MPLS,
        Some(Layer::Arp { .. }) => ethernet::ARP,
        Some(Layer::Ipv4(_)) => ethernet::IPV4,
        Some(Layer::Ipv6(_)) => ethernet::IPV6,
        Some(Layer::Nsh { .. }) => ethernet::NSH,
        Some(Layer::Ethernet { .. }) => ethernet::TEB,
        _ => ETHERTYPE_UNKNOWN,
    }
}

/// The IP protocol that names `layer`.
fn proto_of(layer: Option<&Layer>) -> u8 {
    match layer {
        Some(Layer::Tcp { .. }) => ip::TCP,
        Some(Layer::Udp { .. }) => ip::UDP,
        Some(Layer::Sctp { .. }) => ip::SCTP,
        Some(Layer::Icmp { .. }) => ip::ICMP,
        Some(Layer::Icmpv6 { .. } | Layer::Neighbour { .. }) => ip::ICMPV6,
        Some(Layer::Igmp { .. }) => ip::IGMP,
        Some(Layer::Ipv4(_)) => ip::IPIP,
        Some(Layer::Ipv6(_)) => ip::IPV6,
        _ => PROTO_UNKNOWN,
    }
}

fn next_of_nsh(layer: Option<&Layer>) -> u8 {
    match layer {
        Some(Layer::Ipv4(_)) => nsh::NEXT_IPV4,
        Some(Layer::Ipv6(_)) => nsh::NEXT_IPV6,
        Some(Layer::Nsh { .. }) => nsh::NEXT_NSH,
        Some(Layer::Mpls { .. }) => nsh::NEXT_MPLS,
        _ => nsh::NEXT_ETHERNET,
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn encode(layers: &[Layer], payload: &[u8], pseudo: Pseudo) -> Vec<u8> {
    let Some((layer, rest)) = layers.split_first() else { return payload.to_vec() };
    let next = rest.first();
    let inner = |pseudo| encode(rest, payload, pseudo);
    match layer {
        Layer::Ethernet { dst, src, ethertype } => {
            let inner = inner(Pseudo::None);
            let mut out = [*dst, *src].concat();
            out.extend(link_type(*ethertype, next, inner.len()).to_be_bytes());
            out.extend(inner);
            out
        }
        Layer::Vlan { tci, ethertype, .. } => {
            let inner = inner(Pseudo::None);
            let mut out = Vec::with_capacity(vlan::TAG_LEN + inner.len());
            out.extend(tci.to_be_bytes());
            out.extend(link_type(*ethertype, next, inner.len()).to_be_bytes());
            out.extend(inner);
            out
        }
        Layer::Snap => {
            let mut out = vec![0xaa, 0xaa, 3, 0, 0, 0];
            out.extend(ethertype_of(next).to_be_bytes());
            out.extend(inner(Pseudo::None));
            out
        }
        Layer::Mpls { label, tc, ttl, .. } => {
            let bottom = !matches!(next, Some(Layer::Mpls { .. }));
            let mut out = mpls::lse(*label, *tc, bottom, *ttl).to_be_bytes().to_vec();
            out.extend(inner(Pseudo::None));
            out
        }
        Layer::Arp { op, sha, sip, tha, tip } => {
            let h = arp::Arp {
                hardware: U16::new(1),
                protocol: U16::new(ethernet::IPV4),
                hardware_len: 6,
                protocol_len: 4,
                op: U16::new(*op),
                sha: *sha,
                sip: *sip,
                tha: *tha,
                tip: *tip,
            };
            let mut out = h.as_bytes().to_vec();
            out.extend(payload);
            out
        }
        Layer::Ipv4(h) => encode_ipv4(h, next, &inner(Pseudo::V4(h.src, h.dst))),
        Layer::Ipv6(h) => {
            // RFC 8200 §8.1: behind a routing header the pseudo-header has the final destination.
            let routed = h.extensions.iter().find_map(|e| match e {
                Extension::Routing { left, segments } if *left > 0 => segments.first(),
                _ => None,
            });
            encode_ipv6(h, next, &inner(Pseudo::V6(h.src, *routed.unwrap_or(&h.dst))))
        }
        Layer::Tcp { src, dst, flags, options } => {
            let h = tcp::Header {
                src: U16::new(*src),
                dst: U16::new(*dst),
                seq: U32::new(0x0102_0304),
                ack: U32::new(0x0506_0708),
                offset_flags: U16::new(((tcp::HEADER_LEN + options.len()) as u16 / 4) << 12 | flags),
                window: U16::new(0xfff0),
                checksum: U16::ZERO,
                urgent: U16::ZERO,
            };
            let mut out = [h.as_bytes(), options, &inner(Pseudo::None)].concat();
            let checksum = pseudo.checksum(ip::TCP, &out);
            put(&mut out, tcp::CHECKSUM_AT, checksum);
            out
        }
        Layer::Udp { src, dst, checksum } => {
            let inner = inner(Pseudo::None);
            let h = udp::Header {
                src: U16::new(*src),
                dst: U16::new(*dst),
                len: U16::new((udp::HEADER_LEN + inner.len()) as u16),
                checksum: U16::ZERO,
            };
            let mut out = [h.as_bytes(), &inner].concat();
            if *checksum {
                let value = pseudo.checksum(ip::UDP, &out);
                put(&mut out, udp::CHECKSUM_AT, if value == 0 { 0xffff } else { value });
            }
            out
        }
        Layer::Sctp { src, dst } => {
            let tag = U32::new(0x1122_3344);
            let h = sctp::Header { src: U16::new(*src), dst: U16::new(*dst), tag, checksum: 0.into() };
            let mut out = [h.as_bytes(), &inner(Pseudo::None)].concat();
            let checksum = super::checksums::naive_crc32c(&out);
            out[sctp::CHECKSUM_AT..sctp::HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
            out
        }
        Layer::Icmp { kind, code, rest } => {
            let h = icmp::Header { kind: *kind, code: *code, checksum: U16::ZERO, rest: U32::new(*rest) };
            let mut out = [h.as_bytes(), &inner(Pseudo::None)].concat();
            let checksum = naive(&out);
            put(&mut out, 2, checksum);
            out
        }
        Layer::Icmpv6 { kind, code, rest } => {
            let h = icmpv6::Header { kind: *kind, code: *code, checksum: U16::ZERO };
            let mut out = [h.as_bytes(), &rest.to_be_bytes(), &inner(Pseudo::None)].concat();
            let checksum = pseudo.checksum(ip::ICMPV6, &out);
            put(&mut out, icmpv6::CHECKSUM_AT, checksum);
            out
        }
        Layer::Neighbour { kind, reserved, target, options } => {
            let header = icmpv6::Header { kind: *kind, code: 0, checksum: U16::ZERO };
            let h = icmpv6::Neighbour { header, reserved: U32::new(*reserved), target: *target };
            let mut out = [h.as_bytes(), options, &inner(Pseudo::None)].concat();
            let checksum = pseudo.checksum(ip::ICMPV6, &out);
            put(&mut out, icmpv6::CHECKSUM_AT, checksum);
            out
        }
        Layer::Igmp { kind, max_response, group } => {
            let h = igmp::Header { kind: *kind, max_response: *max_response, checksum: U16::ZERO, group: *group };
            let mut out = [h.as_bytes(), &inner(Pseudo::None)].concat();
            let checksum = naive(&out);
            put(&mut out, 2, checksum);
            out
        }
        Layer::Nsh { flags, ttl, md_type, path, context } => {
            let len = (nsh::HEADER_LEN + context.len()) as u16 / 4;
            let first = u16::from(*flags) << nsh::FLAGS_SHIFT & nsh::FLAGS_MASK
                | u16::from(*ttl) << nsh::TTL_SHIFT & nsh::TTL_MASK
                | len & nsh::LEN_MASK;
            let h = nsh::Header {
                version_flags_ttl_len: U16::new(first),
                md_type: *md_type,
                next: next_of_nsh(next),
                path: U32::new(*path),
            };
            [h.as_bytes(), context, &inner(Pseudo::None)].concat()
        }
    }
}

/// The type field in front of `next`: what was asked for, a length for SNAP, or what names `next`.
fn link_type(asked: Option<u16>, next: Option<&Layer>, len: usize) -> u16 {
    asked.unwrap_or_else(|| if next == Some(&Layer::Snap) { len as u16 } else { ethertype_of(next) })
}

fn encode_ipv4(h: &Ipv4, next: Option<&Layer>, inner: &[u8]) -> Vec<u8> {
    let header_len = ipv4::HEADER_LEN + h.options.len();
    let header = ipv4::Header {
        version_ihl: 0x40 | (header_len / 4) as u8,
        tos: h.tos,
        total_len: U16::new((header_len + inner.len()) as u16),
        id: U16::new(h.id),
        fragment: U16::new(h.fragment),
        ttl: h.ttl,
        proto: h.proto.unwrap_or(proto_of(next)),
        checksum: U16::ZERO,
        src: h.src,
        dst: h.dst,
    };
    let mut out = [header.as_bytes(), &h.options].concat();
    let checksum = naive(&out);
    put(&mut out, 10, checksum);
    out.extend(inner);
    out
}

fn encode_ipv6(h: &Ipv6, next: Option<&Layer>, inner: &[u8]) -> Vec<u8> {
    // From the last extension header outwards, so that each knows what follows it.
    let mut next = h.proto.unwrap_or(proto_of(next));
    let mut chain: Vec<u8> = Vec::new();
    for extension in h.extensions.iter().rev() {
        let (kind, mut bytes) = match extension {
            Extension::HopByHop(units) => (ip::HOP_BY_HOP, padding_options(*units)),
            Extension::Destination(units) => (ip::DESTINATION_OPTIONS, padding_options(*units)),
            Extension::Routing { left, segments } => {
                // RFC 8754 §2: type 4.
                let last = segments.len().saturating_sub(1) as u8;
                let mut bytes = vec![0, segments.len() as u8 * 2, 4, *left, last, 0, 0, 0];
                bytes.extend(segments.concat());
                (ip::ROUTING, bytes)
            }
            Extension::Fragment { offset, more } => {
                let offset_more = U16::new(offset << 3 | u16::from(*more));
                let header = ipv6::Fragment { next_header: 0, reserved: 0, offset_more, id: U32::new(0x0bad_cafe) };
                (ip::FRAGMENT, header.as_bytes().to_vec())
            }
            Extension::Ah => {
                let mut bytes = vec![0, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
                bytes.extend([0x5a; 12]);
                (ip::AH, bytes)
            }
        };
        bytes[0] = next;
        bytes.extend(&chain);
        chain = bytes;
        next = kind;
    }
    let header = ipv6::Header {
        version_class_label: U32::new(6 << 28 | u32::from(h.class) << 20 | h.label),
        payload_len: U16::new((chain.len() + inner.len()) as u16),
        next_header: next,
        hop_limit: h.hop_limit,
        src: h.src,
        dst: h.dst,
    };
    [header.as_bytes(), &chain, inner].concat()
}

/// An options header of `8 + 8 * units` bytes: one PadN option (RFC 8200 §4.2).
fn padding_options(units: u8) -> Vec<u8> {
    let len = 8 + 8 * usize::from(units);
    let mut bytes = vec![0; len];
    (bytes[1], bytes[2], bytes[3]) = (units, 1, (len - 4) as u8);
    bytes
}

/// Splits the IP datagram at `l3` of `frame` into fragments of `chunk` data bytes (rounded down to a multiple of 8, at least 8), each with
/// the bytes before `l3` in front. An IPv6 fragment header goes right behind the fixed header. A frame that is no IP datagram comes back
/// alone.
pub fn split(frame: &[u8], l3: usize, chunk: usize) -> Vec<Vec<u8>> {
    let chunk = (chunk & !7).max(8);
    let (link, packet) = frame.split_at(l3.min(frame.len()));
    let v4 = packet.first().map(|b| b >> 4);
    let (header_len, data) = match v4 {
        Some(4) => {
            let header_len = usize::from(packet[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            (header_len, &packet[header_len..total])
        }
        Some(6) => {
            let len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (ipv6::HEADER_LEN, &packet[ipv6::HEADER_LEN..ipv6::HEADER_LEN + len])
        }
        _ => return vec![frame.to_vec()],
    };
    let chunks = data.chunks(chunk).count();
    let parts = data.chunks(chunk).enumerate().map(|(i, part)| {
        let more = i + 1 < chunks;
        let mut header = packet[..header_len].to_vec();
        let offset = (i * chunk / 8) as u16;
        if v4 == Some(4) {
            put(&mut header, 2, (header_len + part.len()) as u16);
            put(&mut header, 6, offset | if more { ipv4::FLAG_MF } else { 0 });
            put(&mut header, 10, 0);
            let checksum = naive(&header);
            put(&mut header, 10, checksum);
        } else {
            let mut fragment = [header[6], 0, 0, 0, 0, 0, 0, 7];
            put(&mut fragment, 2, offset << 3 | u16::from(more));
            header[6] = ip::FRAGMENT;
            put(&mut header, 4, (part.len() + ipv6::FRAGMENT_LEN) as u16);
            header.extend(fragment);
        }
        [link, &header, part].concat()
    });
    parts.collect()
}

/// Undoes [`split`] for fragments in order: the frame whose transport checksum can be verified as a whole again. The fragments' addresses,
/// TTL and so on come from the first.
pub fn join(fragments: &[Vec<u8>], l3: usize) -> Vec<u8> {
    let Some(first) = fragments.first() else { return Vec::new() };
    let v4 = first.get(l3).is_some_and(|b| b >> 4 == 4);
    let header_len = if v4 { usize::from(first[l3] & 15) * 4 } else { ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN };
    let mut out = first[..l3 + header_len].to_vec();
    if !v4 {
        out[l3 + 6] = out[l3 + ipv6::HEADER_LEN];
        out.truncate(l3 + ipv6::HEADER_LEN);
    }
    for fragment in fragments {
        out.extend(&fragment[l3 + header_len..]);
    }
    if v4 {
        let total = out.len() - l3;
        put(&mut out, l3 + 2, total as u16);
        put(&mut out, l3 + 6, 0);
        put(&mut out, l3 + 10, 0);
        let checksum = naive(&out[l3..l3 + header_len]);
        put(&mut out, l3 + 10, checksum);
    } else {
        let payload = out.len() - l3 - ipv6::HEADER_LEN;
        put(&mut out, l3 + 4, payload as u16);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::checksums::verify;
    use super::*;

    // The checksums 14ab and f7fd were summed by hand.
    #[test]
    fn icmp_echo_has_exactly_these_bytes() {
        let frame = Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).id(0x1234).dont_fragment();
        let bytes = frame.icmp(8, 0, 0x0001_0001).build();
        let expected = "02000000000b02000000000a08004500001c12344000400114ab0a0000010a0000020800f7fd00010001";
        assert_eq!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn every_random_frame_verifies() {
        let mut state = 1u32;
        let mut random = move || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (state >> ((state >> 28) + 4) ^ state).wrapping_mul(277_803_737) >> 8
        };
        let mut counted = 0;
        for _ in 0..3000 {
            let frame = Frame::random(&mut random);
            counted += verify(&frame.build()).unwrap_or_else(|e| panic!("{e}: {frame:?}"));
        }
        assert!(counted > 2000, "{counted}");
    }

    #[test]
    fn fragments_join_to_the_datagram_again() {
        for frame in [Frame::udp4(), Frame::tcp6()] {
            let whole = frame.payload(&[7; 100]).build();
            let parts = split(&whole, 14, 40);
            assert!(parts.len() > 2);
            parts.iter().for_each(|p| assert!(verify(p).is_ok()));
            let mut expected = whole.clone();
            if whole[12] == 8 {
                expected = join(std::slice::from_ref(&whole), 14);
            }
            assert_eq!(join(&parts, 14), expected);
            assert!(verify(&join(&parts, 14)).unwrap() >= 1);
        }
    }
}
