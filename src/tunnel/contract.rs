//! What a kind of tunnel is: [`Kind`] and what it answers for each.

use super::sequence::Moment;
use super::{erspan, geneve, gre, gtpu, srv6, vxlan};
use crate::flow::Ext;
use crate::packet::DropReason;
use crate::wire::{ethernet, ip};

/// The kinds of tunnels, numbered as `OVS_VPORT_TYPE_*`, which is how Open vSwitch's `tnl_push` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Kind {
    /// GRE (RFC 2784, RFC 2890).
    Gre = 3,
    /// VXLAN (RFC 7348), with the group-policy and generic-protocol extensions.
    Vxlan = 4,
    /// Geneve (RFC 8926).
    Geneve = 5,
    /// ERSPAN types II and III: mirrored frames in GRE.
    Erspan = 107,
    /// The same under the number that Open vSwitch has for it over IPv6. Both are pushed and opened alike.
    Ip6Erspan = 108,
    /// GRE under the number that Open vSwitch has for it over IPv6. Both are pushed and opened alike.
    Ip6Gre = 109,
    /// GTP-U (3GPP TS 29.281).
    Gtpu = 110,
    /// Segment routing over IPv6 (RFC 8754, RFC 8986).
    Srv6 = 112,
}

/// What carries a kind's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// IP itself: a protocol number.
    Ip(u8),
    /// Nothing: the IPv6 header and its extensions are the tunnel's own header.
    Ipv6,
}

impl Carrier {
    /// The IP protocol; `None` if it says what is inside.
    pub const fn proto(self) -> Option<u8> {
        match self {
            Carrier::Udp => Some(ip::UDP),
            Carrier::Ip(proto) => Some(proto),
            Carrier::Ipv6 => None,
        }
    }
}

/// How the packets of a tunnel are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// VXLAN: the group-policy extension may be there.
    pub gbp: bool,
    /// VXLAN: the generic-protocol extension may be there.
    pub gpe: bool,
    /// Take IPv6 UDP packets without a checksum (RFC 6935).
    pub zero_checksum6: bool,
    /// Carry congestion marks from the outer header to the inner one (RFC 6040). Open vSwitch does that by actions of its own.
    pub ecn: bool,
    /// Geneve: classes and types of the options that are understood; `None` if whoever matches on them judges. A packet with a critical
    /// option of another type is dropped.
    pub known_options: Option<Box<[(u16, u8)]>>,
    /// SRv6: take packets without a segment routing header, as H.Encaps.Red with a single segment makes them (RFC 8986 §5.2).
    pub reduced: bool,
}

impl Default for Options {
    /// As Open vSwitch's userspace datapath.
    fn default() -> Self {
        Options { gbp: false, gpe: false, zero_checksum6: true, ecn: false, known_options: None, reduced: false }
    }
}

/// What a tunnel's own header came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its length in bytes.
    pub len: usize,
    /// EtherType of the inner packet if that begins with layer 3; `None` if it begins with an Ethernet header.
    pub layer3: Option<u16>,
    /// Bytes behind the inner packet, which the header says are no part of it.
    pub padding: usize,
    /// It is a message between the tunnel's ends, not an inner packet: it stays as it is, for whoever the flows send it to.
    pub is_message: bool,
}

impl Opened {
    /// A header of `len` bytes in front of an inner packet that takes all the rest.
    #[inline(always)]
    pub(super) const fn new(len: usize, layer3: Option<u16>) -> Opened {
        Opened { len, layer3, padding: 0, is_message: false }
    }
}

/// EtherType of an IP packet of which only the version is known, which stands in its first byte.
pub(super) fn ethertype_of_version(bytes: &[u8]) -> Result<u16, DropReason> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => Ok(ethernet::IPV4),
        Some(6) => Ok(ethernet::IPV6),
        _ => Err(DropReason::TunnelHeader),
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Kind] =
        &[Kind::Gre, Kind::Vxlan, Kind::Geneve, Kind::Erspan, Kind::Ip6Erspan, Kind::Ip6Gre, Kind::Gtpu, Kind::Srv6];

    /// The kind that Open vSwitch numbers so.
    pub fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.number() == number)
    }

    /// `OVS_VPORT_TYPE_*`.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The name, as in Open vSwitch's `type=`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Gre => "gre",
            Kind::Vxlan => "vxlan",
            Kind::Geneve => "geneve",
            Kind::Erspan => "erspan",
            Kind::Ip6Erspan => "ip6erspan",
            Kind::Ip6Gre => "ip6gre",
            Kind::Gtpu => "gtpu",
            Kind::Srv6 => "srv6",
        }
    }

    /// What carries it.
    pub const fn carrier(self) -> Carrier {
        match self {
            Kind::Vxlan | Kind::Geneve | Kind::Gtpu => Carrier::Udp,
            Kind::Gre | Kind::Ip6Gre | Kind::Erspan | Kind::Ip6Erspan => Carrier::Ip(ip::GRE),
            Kind::Srv6 => Carrier::Ipv6,
        }
    }

    /// The well-known UDP port; 0 for a kind that UDP does not carry.
    pub const fn port(self) -> u16 {
        match self {
            Kind::Vxlan => vxlan::PORT,
            Kind::Geneve => geneve::PORT,
            Kind::Gtpu => gtpu::PORT,
            Kind::Gre | Kind::Ip6Gre | Kind::Erspan | Kind::Ip6Erspan | Kind::Srv6 => 0,
        }
    }

    /// Where in `own`, the kind's own header, four bytes hold the identifier; `None` if there is none.
    pub fn id_at(self, own: &[u8]) -> Option<usize> {
        match self {
            Kind::Vxlan | Kind::Geneve | Kind::Gtpu => (own.len() >= 8).then_some(4),
            Kind::Gre | Kind::Ip6Gre => gre::key_at(own),
            Kind::Erspan | Kind::Ip6Erspan | Kind::Srv6 => None,
        }
    }

    /// Those four bytes for identifier `id`, of which as many bits count as the kind has.
    #[inline(always)]
    pub const fn id_bytes(self, id: u32) -> [u8; 4] {
        match self {
            Kind::Vxlan | Kind::Geneve => (id << 8).to_be_bytes(),
            _ => id.to_be_bytes(),
        }
    }

    /// Reads the tunnel's own header, with which `bytes` begin, into `ext.tunnel`, whose outer fields are filled in already.
    ///
    /// # Errors
    /// The reason for which the packet is dropped.
    #[inline(always)]
    pub fn open(self, bytes: &[u8], options: &Options, ext: &mut Ext) -> Result<Opened, DropReason> {
        match self {
            Kind::Vxlan => vxlan::open(bytes, options, &mut ext.tunnel),
            Kind::Geneve => geneve::open(bytes, options, ext),
            Kind::Gre | Kind::Ip6Gre => gre::open(bytes, &mut ext.tunnel),
            Kind::Erspan | Kind::Ip6Erspan => erspan::open(bytes, &mut ext.tunnel),
            Kind::Gtpu => gtpu::open(bytes, &mut ext.tunnel),
            Kind::Srv6 => srv6::open(bytes, options),
        }
    }

    /// Checks the tunnel's own header at the end of outer headers that are to be pushed, so that [`Kind::fill`] finds what it fills in.
    pub(super) fn check(self, own: &[u8]) -> Result<(), &'static str> {
        let len = match self {
            Kind::Vxlan => vxlan::LEN,
            Kind::Geneve => geneve::LEN + own.first().map_or(0, |first| usize::from(first & 0x3f) * 4),
            Kind::Gre | Kind::Ip6Gre => return gre::check(own),
            Kind::Erspan | Kind::Ip6Erspan => return erspan::check(own),
            Kind::Gtpu => return gtpu::check(own),
            Kind::Srv6 => return srv6::check(own),
        };
        if own.len() == len { Ok(()) } else { Err("the tunnel's own header, and nothing behind it") }
    }

    /// Fills in what differs from packet to packet in the tunnel's own header, behind which `inner` follows.
    #[inline]
    pub(super) fn fill(self, own: &mut [u8], inner: &[u8], moment: Moment<'_>) {
        match self {
            Kind::Gre | Kind::Ip6Gre => gre::fill(own, inner, moment),
            Kind::Erspan | Kind::Ip6Erspan => erspan::fill(own, moment),
            Kind::Gtpu => gtpu::fill(own, inner, moment),
            Kind::Vxlan | Kind::Geneve | Kind::Srv6 => {}
        }
    }
}
