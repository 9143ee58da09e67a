//! [`Action`]: what a flow does to its packets, as the control side writes it.
//!
//! This is the meaning of `OVS_ACTION_ATTR_*`, independent of its encodings; `action/` (floor 5) compiles a list of
//! these into the program that the packet path runs.

use super::key::TunnelLine;

/// A list of actions, carried out in order.
pub type Actions = Vec<Action>;

/// One action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Send the packet to a datapath port.
    Output(u32),
    /// Send the packet to the member of bond `0` that its hash selects.
    LbOutput(u32),
    /// Hand the packet to the upcall handler.
    Userspace(Userspace),
    /// Change fields. `mask` bits of `None` means all bits of the field.
    Set(SetField),
    /// Push an 802.1Q or 802.1ad tag. `tci` carries [`VLAN_PRESENT`](super::key::VLAN_PRESENT).
    PushVlan {
        /// EtherType of the tag.
        tpid: u16,
        /// Tag control information.
        tci: u16,
    },
    /// Remove the outermost VLAN tag.
    PopVlan,
    /// Push an MPLS label stack entry behind the Ethernet header and its VLAN tags.
    PushMpls {
        /// The label stack entry.
        lse: u32,
        /// The new EtherType (MPLS unicast or multicast).
        ethertype: u16,
    },
    /// `OVS_ACTION_ATTR_ADD_MPLS`: as `PushMpls`, or in front of the packet, which then is a layer-3 one.
    AddMpls {
        /// The label stack entry.
        lse: u32,
        /// The new EtherType.
        ethertype: u16,
        /// `OVS_MPLS_L3_TUNNEL_FLAG_MASK`: bit 0 set = insert at the network header, keep the Ethernet header outside.
        tun_flags: u16,
    },
    /// Remove the outermost MPLS label stack entry; `ethertype` is what follows it.
    PopMpls {
        /// EtherType of what is behind the entry.
        ethertype: u16,
    },
    /// Put an Ethernet header in front of a layer-3 packet.
    PushEth {
        /// Destination address.
        dst: [u8; 6],
        /// Source address.
        src: [u8; 6],
    },
    /// Remove the Ethernet header: the packet becomes a layer-3 one.
    PopEth,
    /// Put an NSH header in front.
    PushNsh(Nsh),
    /// Remove the NSH header.
    PopNsh,
    /// Put ready-made outer headers in front: `OVS_ACTION_ATTR_TUNNEL_PUSH`. Lengths, checksums and the UDP source port are filled in.
    TunnelPush(Box<TunnelPush>),
    /// Take the outer headers off, note them in the packet's tunnel metadata, and look the packet up again as one that came in
    /// on this tunnel port.
    TunnelPop(u32),
    /// Put the outer headers of a tunnel of the datapath in front, and send the packet its way. Whoever answers upcalls is asked if that way is
    /// not known or the packet is too long for it.
    Encap {
        /// The tunnel's number.
        tunnel: u32,
        /// The identifier, in place of the tunnel's own.
        id: Option<u32>,
    },
    /// Decrement TTL or hop limit; a packet whose value is 1 or 0 is dropped.
    DecTtl,
    /// Look the packet up again with this recirculation id.
    Recirc(u32),
    /// Compute `dp_hash`.
    Hash {
        /// Which algorithm.
        algorithm: HashAlgorithm,
        /// Basis mixed into the hash.
        basis: u32,
    },
    /// Carry out `actions` on a copy of a share of the packets.
    Sample {
        /// Share: 0 = never, `u32::MAX` = always.
        probability: u32,
        /// What is done to the sampled packet.
        actions: Actions,
    },
    /// Carry out the actions on a copy; the packet itself goes on unchanged.
    Clone(Actions),
    /// Choose by length.
    CheckPktLen {
        /// Length in bytes (Ethernet header included).
        len: u16,
        /// For longer packets.
        if_greater: Actions,
        /// For the others.
        if_less_equal: Actions,
    },
    /// At the next output or upcall, leave out what the packet has beyond this length now; 14 bytes always stay, as in OVS.
    Trunc(u32),
    /// Police with a meter; a missing meter passes everything.
    Meter(u32),
    /// End the packet here. 0 = no error; OVS's `XLATE_*` codes otherwise.
    Drop(u32),
}

/// Parameters of `userspace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Userspace {
    /// `OVS_USERSPACE_ATTR_PID`.
    pub pid: u32,
    /// `OVS_USERSPACE_ATTR_USERDATA`, handed back to the handler.
    pub userdata: Option<Vec<u8>>,
    /// `OVS_USERSPACE_ATTR_EGRESS_TUN_PORT`.
    pub egress_tun_port: Option<u32>,
    /// `OVS_USERSPACE_ATTR_ACTIONS`: the handler wants the flow's actions too.
    pub actions: bool,
}

/// Bytes of outer headers in `tnl_push` at most, as in Open vSwitch.
pub const TUNNEL_HEADER_MAX: usize = 512;

/// Parameters of `tnl_push`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelPush {
    /// The tunnel port whose traffic it is.
    pub tnl_port: u32,
    /// The port that the outer packet belongs to from now on.
    pub out_port: u32,
    /// `OVS_VPORT_TYPE_*`.
    pub tnl_type: u32,
    /// Ethernet, IP, and the tunnel's headers: at most 512 bytes.
    pub header: Vec<u8>,
}

/// Algorithms of `hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// `OVS_HASH_ALG_L4`: the 5-tuple.
    L4,
    /// `OVS_HASH_ALG_SYM_L4`: the same for both directions.
    SymL4,
}

/// An NSH header to push (RFC 8300).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nsh {
    /// Flags.
    pub flags: u8,
    /// Time to live.
    pub ttl: u8,
    /// Metadata type: 1 or 2.
    pub mdtype: u8,
    /// Next protocol.
    pub np: u8,
    /// Service path identifier and index.
    pub path_hdr: u32,
    /// Context of type 1 (16 bytes) or TLVs of type 2 (a multiple of 4, at most 248).
    pub context: Vec<u8>,
}

/// A masked field assignment: `field = (field & !mask) | (value & mask)`.
///
/// Values and masks are as on the wire. In the flow key a set of a whole header names each of its fields; a mask of all
/// zero bits leaves one alone. Setting the fields of a header that the packet lacks does nothing, as in OVS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SetField {
    /// `OVS_KEY_ATTR_PRIORITY`.
    Priority(Masked<u32>),
    /// `OVS_KEY_ATTR_SKB_MARK`.
    SkbMark(Masked<u32>),
    /// `OVS_KEY_ATTR_DP_HASH`.
    DpHash(Masked<u32>),
    /// `OVS_KEY_ATTR_RECIRC_ID`.
    RecircId(Masked<u32>),
    /// `OVS_KEY_ATTR_TUNNEL`: replaces the whole tunnel metadata; the bytes are Geneve options.
    Tunnel(Box<(TunnelLine, Vec<u8>)>),
    /// `OVS_KEY_ATTR_ETHERNET`: destination, source.
    Ethernet(Masked<[u8; 12]>),
    /// `OVS_KEY_ATTR_IPV4`: source, destination, TOS, TTL.
    Ipv4 {
        /// Source address.
        src: Masked<[u8; 4]>,
        /// Destination address.
        dst: Masked<[u8; 4]>,
        /// Type of service.
        tos: Masked<u8>,
        /// Time to live.
        ttl: Masked<u8>,
    },
    /// `OVS_KEY_ATTR_IPV6`.
    Ipv6 {
        /// Source address.
        src: Masked<[u8; 16]>,
        /// Destination address.
        dst: Masked<[u8; 16]>,
        /// Flow label, 20 bits.
        label: Masked<u32>,
        /// Traffic class.
        tclass: Masked<u8>,
        /// Hop limit.
        hlimit: Masked<u8>,
    },
    /// `OVS_KEY_ATTR_TCP`: ports.
    Tcp {
        /// Source port.
        src: Masked<u16>,
        /// Destination port.
        dst: Masked<u16>,
    },
    /// `OVS_KEY_ATTR_UDP`: ports.
    Udp {
        /// Source port.
        src: Masked<u16>,
        /// Destination port.
        dst: Masked<u16>,
    },
    /// `OVS_KEY_ATTR_SCTP`: ports. The CRC32c is recomputed.
    Sctp {
        /// Source port.
        src: Masked<u16>,
        /// Destination port.
        dst: Masked<u16>,
    },
    /// `OVS_KEY_ATTR_ICMP` and `OVS_KEY_ATTR_ICMPV6`: type and code.
    Icmp {
        /// True for ICMPv6.
        v6: bool,
        /// Type.
        kind: Masked<u8>,
        /// Code.
        code: Masked<u8>,
    },
    /// `OVS_KEY_ATTR_ARP`.
    Arp {
        /// Sender protocol address.
        sip: Masked<[u8; 4]>,
        /// Target protocol address.
        tip: Masked<[u8; 4]>,
        /// Opcode.
        op: Masked<u16>,
        /// Sender hardware address.
        sha: Masked<[u8; 6]>,
        /// Target hardware address.
        tha: Masked<[u8; 6]>,
    },
    /// `OVS_KEY_ATTR_ND`.
    Nd {
        /// Target address.
        target: Masked<[u8; 16]>,
        /// Source link-layer address.
        sll: Masked<[u8; 6]>,
        /// Target link-layer address.
        tll: Masked<[u8; 6]>,
    },
    /// `OVS_KEY_ATTR_ND_EXTENSIONS`.
    NdExtensions {
        /// The reserved word.
        reserved: Masked<u32>,
        /// Option type.
        options_type: Masked<u8>,
    },
    /// `OVS_KEY_ATTR_MPLS`: the outermost label stack entry.
    Mpls(Masked<u32>),
    /// `OVS_KEY_ATTR_NSH`.
    Nsh {
        /// Flags.
        flags: Masked<u8>,
        /// Time to live.
        ttl: Masked<u8>,
        /// Service path identifier and index.
        path_hdr: Masked<u32>,
        /// Context headers of type 1.
        context: Masked<[u8; 16]>,
    },
}

/// A value and the bits of it that count. Numbers are in native byte order here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Masked<T> {
    /// The value; bits outside the mask are zero.
    pub value: T,
    /// 1 = set this bit.
    pub mask: T,
}

macro_rules! masked_int {
    ($($t:ty),*) => {$(
        impl Masked<$t> {
            /// All bits.
            pub const fn full(value: $t) -> Self {
                Masked { value, mask: <$t>::MAX }
            }
            /// No bit.
            pub const fn none() -> Self {
                Masked { value: 0, mask: 0 }
            }
            /// `old` with the masked bits replaced.
            #[inline(always)]
            pub const fn apply(self, old: $t) -> $t {
                old & !self.mask | self.value & self.mask
            }
        }
    )*};
}
masked_int!(u8, u16, u32);

impl<const N: usize> Masked<[u8; N]> {
    /// All bits.
    pub const fn full(value: [u8; N]) -> Self {
        Masked { value, mask: [0xff; N] }
    }
    /// No bit.
    pub const fn none() -> Self {
        Masked { value: [0; N], mask: [0; N] }
    }
    /// `old` with the masked bits replaced.
    #[inline(always)]
    pub fn apply(self, old: [u8; N]) -> [u8; N] {
        core::array::from_fn(|i| old[i] & !self.mask[i] | self.value[i] & self.mask[i])
    }
}
