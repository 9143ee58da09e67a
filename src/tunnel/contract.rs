//! What a kind of tunnel is: [`Kind`] and what it answers for each.

use super::{geneve, vxlan};
use crate::flow::Ext;
use crate::packet::DropReason;
use crate::wire::ip;

/// The kinds of tunnels, numbered as `OVS_VPORT_TYPE_*`, which is how Open vSwitch's `tnl_push` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Kind {
    /// VXLAN (RFC 7348), with the group-policy and generic-protocol extensions.
    Vxlan = 4,
    /// Geneve (RFC 8926).
    Geneve = 5,
}

/// What carries a kind's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// IP itself: a protocol number.
    Ip(u8),
}

impl Carrier {
    /// The IP protocol.
    pub const fn proto(self) -> u8 {
        match self {
            Carrier::Udp => ip::UDP,
            Carrier::Ip(proto) => proto,
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
}

impl Default for Options {
    /// As Open vSwitch's userspace datapath.
    fn default() -> Self {
        Options { gbp: false, gpe: false, zero_checksum6: true, ecn: false, known_options: None }
    }
}

/// What a tunnel's own header came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its length in bytes.
    pub len: usize,
    /// EtherType of the inner packet if that begins with layer 3; `None` if it begins with an Ethernet header.
    pub layer3: Option<u16>,
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Kind] = &[Kind::Vxlan, Kind::Geneve];

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
            Kind::Vxlan => "vxlan",
            Kind::Geneve => "geneve",
        }
    }

    /// What carries it.
    pub const fn carrier(self) -> Carrier {
        match self {
            Kind::Vxlan | Kind::Geneve => Carrier::Udp,
        }
    }

    /// The well-known UDP port.
    pub const fn port(self) -> u16 {
        match self {
            Kind::Vxlan => vxlan::PORT,
            Kind::Geneve => geneve::PORT,
        }
    }

    /// Length of the shortest header of its own.
    pub const fn len_min(self) -> usize {
        match self {
            Kind::Vxlan => vxlan::LEN,
            Kind::Geneve => geneve::LEN,
        }
    }

    /// Where in `own`, the kind's own header, four bytes hold the identifier; `None` if there is none.
    pub fn id_at(self, own: &[u8]) -> Option<usize> {
        match self {
            Kind::Vxlan | Kind::Geneve => (own.len() >= 8).then_some(4),
        }
    }

    /// Those four bytes for identifier `id`, of which as many bits count as the kind has.
    #[inline(always)]
    pub const fn id_bytes(self, id: u32) -> [u8; 4] {
        match self {
            Kind::Vxlan | Kind::Geneve => (id << 8).to_be_bytes(),
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
        }
    }
}
