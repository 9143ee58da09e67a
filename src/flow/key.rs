//! [`FlowKey`]: everything about a packet that a flow can match, in lines of 64 bytes.
//!
//! ```text
//!   line 0  base      in_port recirc_id eth vlan[0] ipv4 tp tcp_flags ct_state/zone/mark marks     every packet
//!   line 1  ipv6      addresses, flow label, nd_target, ARP/ND hardware addresses                  IPv6, ARP
//!   line 2  misc      vlan[1] mpls nd options ct_orig IPv4 ct_label                                where present
//!   line 3  nsh       NSH header, ct_orig IPv6 addresses                                           where present
//!   line 4  tunnel    outer addresses, id, flags                                                   after tunnel_pop
//!   line 5…8 options  Geneve options                                                               after tunnel_pop
//! ```
//!
//! A mask has the same shape. A line that is all zero in a mask is never looked at, and a line that a packet does not
//! have is all zero, so the packet path copies and compares line 0 and only those further lines that some flow
//! needs. Multi-byte fields that come from the wire stay in network byte order (`U16`, `U32`, `[u8; N]`); metadata
//! is in native order. Fields that OVS's `struct flow` shares (an ARP's addresses in the IPv4 fields, ICMP's type and code
//! in the port fields, an ARP's opcode in `nw_proto`) are shared here too.

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// 64 bytes of a key or a mask, as the packet path handles them.
pub type Line = [u64; 8];

/// Lines in a key.
pub const LINES: usize = 9;

/// Which lines of a key or mask are in use: bit *n* for line *n*.
pub type LineSet = u16;

/// Line 0's bit.
pub const LINE_BASE: LineSet = 1;
/// Line 1's bit.
pub const LINE_IPV6: LineSet = 2;
/// Line 2's bit.
pub const LINE_MISC: LineSet = 4;
/// Line 3's bit.
pub const LINE_NSH: LineSet = 8;
/// Line 4's bit.
pub const LINE_TUNNEL: LineSet = 16;
/// Bits of lines 5 to 8.
pub const LINE_OPTIONS: LineSet = 0x1e0;

/// In `vlan_tci`: a tag is there. It takes the place of the CFI/DEI bit, as in OVS.
pub const VLAN_PRESENT: u16 = 0x1000;
/// In `nw_frag`: some fragment.
pub const FRAG_ANY: u8 = 1;
/// In `nw_frag`: not the first fragment, so there is no transport header.
pub const FRAG_LATER: u8 = 2;

/// In `tunnel.flags`: `OVS_TUNNEL_KEY_ATTR_DONT_FRAGMENT`.
pub const TUNNEL_DF: u16 = 1;
/// In `tunnel.flags`: `OVS_TUNNEL_KEY_ATTR_CSUM`.
pub const TUNNEL_CSUM: u16 = 2;
/// In `tunnel.flags`: the tunnel id is present.
pub const TUNNEL_KEY: u16 = 4;
/// In `tunnel.flags`: `OVS_TUNNEL_KEY_ATTR_OAM`.
pub const TUNNEL_OAM: u16 = 8;
/// In `tunnel.flags`: `opts` holds VXLAN GBP: id (2 bytes), flags (1 byte).
pub const TUNNEL_GBP: u16 = 0x100;
/// In `tunnel.flags`: `opts` holds ERSPAN: version, direction, hardware id (1 byte each), 0, index (4 bytes).
pub const TUNNEL_ERSPAN: u16 = 0x200;
/// In `tunnel.flags`: `opts` holds GTP-U: flags, message type (1 byte each).
pub const TUNNEL_GTPU: u16 = 0x400;
/// In `tunnel.flags`: `opts[0]` is the length of the Geneve options in units of 4 bytes; the bytes are in `options`.
pub const TUNNEL_GENEVE: u16 = 0x800;

/// Line 0: what nearly every flow matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct BaseLine {
    /// Datapath port of ingress.
    pub in_port: u32,
    /// Recirculation id.
    pub recirc_id: u32,
    /// Destination MAC address. This field, `eth_src` and `eth_type` stand as on the wire.
    pub eth_dst: [u8; 6],
    /// Source MAC address.
    pub eth_src: [u8; 6],
    /// Innermost EtherType behind the VLAN tags; [`DL_TYPE_NONE`](crate::wire::ethernet::DL_TYPE_NONE) for 802.3 without SNAP.
    pub eth_type: U16,
    /// Outer VLAN tag control information with [`VLAN_PRESENT`]; 0 without a tag.
    pub vlan_tci: U16,
    /// IP protocol, or the low byte of an ARP opcode.
    pub nw_proto: u8,
    /// IP TOS or traffic class (DSCP and ECN).
    pub nw_tos: u8,
    /// IP TTL or hop limit.
    pub nw_ttl: u8,
    /// [`FRAG_ANY`], [`FRAG_LATER`].
    pub nw_frag: u8,
    /// Low 12 bits of the TCP flags word.
    pub tcp_flags: U16,
    /// Connection tracking zone.
    pub ct_zone: u16,
    /// IPv4 source, or ARP sender protocol address.
    pub ipv4_src: [u8; 4],
    /// IPv4 destination, or ARP target protocol address.
    pub ipv4_dst: [u8; 4],
    /// TCP, UDP or SCTP source port; ICMP or ICMPv6 type.
    pub tp_src: U16,
    /// TCP, UDP or SCTP destination port; ICMP or ICMPv6 code.
    pub tp_dst: U16,
    /// Result of the last `hash` action.
    pub dp_hash: u32,
    /// Connection mark.
    pub ct_mark: u32,
    /// Packet mark.
    pub skb_mark: u32,
    /// EtherType of the outer VLAN tag.
    pub vlan_tpid: U16,
    /// `OVS_CS_F_*`.
    pub ct_state: u8,
    /// Packet type namespace: 0 Ethernet, 1 = `eth_type` says what the packet starts with.
    pub packet_type_ns: u8,
    /// QoS priority.
    pub skb_priority: u32,
}

/// Line 1: IPv6, neighbour discovery and ARP's hardware addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Ipv6Line {
    /// IPv6 source.
    pub src: [u8; 16],
    /// IPv6 destination.
    pub dst: [u8; 16],
    /// Neighbour discovery target.
    pub nd_target: [u8; 16],
    /// IPv6 flow label, 20 bits.
    pub label: U32,
    /// ARP sender hardware address, or ND source link-layer address.
    pub arp_sha: [u8; 6],
    /// ARP target hardware address, or ND target link-layer address.
    pub arp_tha: [u8; 6],
}

/// Line 2: the inner VLAN tag, MPLS, ND flags, conntrack's original IPv4 tuple and label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct MiscLine {
    /// EtherType of the inner VLAN tag.
    pub vlan1_tpid: U16,
    /// Inner VLAN tag with [`VLAN_PRESENT`].
    pub vlan1_tci: U16,
    /// MPLS label stack entries, outermost first; zero behind the bottom of the stack.
    pub mpls: [U32; 3],
    /// The reserved word of a neighbour advertisement or solicitation.
    pub nd_reserved: U32,
    /// Type of the ND option that was read.
    pub nd_options_type: u8,
    /// Protocol of the original direction's tuple (both IP versions).
    pub ct_orig_proto: u8,
    _pad0: [u8; 2],
    /// Original direction's IPv4 source.
    pub ct_orig_ipv4_src: [u8; 4],
    /// Original direction's IPv4 destination.
    pub ct_orig_ipv4_dst: [u8; 4],
    /// Original direction's source port (both IP versions).
    pub ct_orig_tp_src: U16,
    /// Original direction's destination port (both IP versions).
    pub ct_orig_tp_dst: U16,
    /// Connection label, in the byte order of the netlink attribute.
    pub ct_label: [u8; 16],
    _pad1: [u8; 12],
}

/// Line 3: NSH (RFC 8300) and conntrack's original IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct NshLine {
    /// Flags.
    pub flags: u8,
    /// Time to live.
    pub ttl: u8,
    /// Metadata type.
    pub mdtype: u8,
    /// Next protocol.
    pub np: u8,
    /// Service path identifier (24 bits) and service index (8 bits).
    pub path_hdr: U32,
    /// Context headers of metadata type 1.
    pub context: [U32; 4],
    /// Original direction's IPv6 source.
    pub ct_orig_ipv6_src: [u8; 16],
    /// Original direction's IPv6 destination.
    pub ct_orig_ipv6_dst: [u8; 16],
    _pad: [u8; 8],
}

/// Line 4: the outer header that `tunnel_pop` removed, or that `set(tunnel)` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct TunnelLine {
    /// Tunnel id: VNI, GRE key, TEID.
    pub id: U64,
    /// Outer IPv4 source.
    pub ipv4_src: [u8; 4],
    /// Outer IPv4 destination.
    pub ipv4_dst: [u8; 4],
    /// Outer IPv6 source.
    pub ipv6_src: [u8; 16],
    /// Outer IPv6 destination.
    pub ipv6_dst: [u8; 16],
    /// Outer TOS or traffic class.
    pub tos: u8,
    /// Outer TTL or hop limit.
    pub ttl: u8,
    /// `TUNNEL_*` bits.
    pub flags: u16,
    /// Outer source port.
    pub tp_src: U16,
    /// Outer destination port.
    pub tp_dst: U16,
    /// What `flags` says it is.
    pub opts: [u8; 8],
}

/// All lines of a packet's key, or of a flow's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct FlowKey {
    /// Line 0.
    pub base: BaseLine,
    /// Line 1.
    pub ipv6: Ipv6Line,
    /// Line 2.
    pub misc: MiscLine,
    /// Line 3.
    pub nsh: NshLine,
    /// Line 4.
    pub tunnel: TunnelLine,
    /// Lines 5 to 8: Geneve options as on the wire.
    pub options: [u8; 256],
}

const _: () = assert!(core::mem::size_of::<FlowKey>() == LINES * 64);
const _: () = assert!(core::mem::size_of::<BaseLine>() == 64 && core::mem::size_of::<Ipv6Line>() == 64);
const _: () = assert!(core::mem::size_of::<MiscLine>() == 64 && core::mem::size_of::<NshLine>() == 64);
const _: () = assert!(core::mem::size_of::<TunnelLine>() == 64);

impl Default for FlowKey {
    fn default() -> Self {
        FlowKey::new_zeroed()
    }
}

impl core::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut out = f.debug_struct("FlowKey");
        out.field("base", &self.base);
        let used = self.lines_used();
        if used & LINE_IPV6 != 0 {
            out.field("ipv6", &self.ipv6);
        }
        if used & LINE_MISC != 0 {
            out.field("misc", &self.misc);
        }
        if used & LINE_NSH != 0 {
            out.field("nsh", &self.nsh);
        }
        if used & LINE_TUNNEL != 0 {
            out.field("tunnel", &self.tunnel);
        }
        if used & LINE_OPTIONS != 0 {
            out.field("options", &self.options);
        }
        out.finish()
    }
}

impl FlowKey {
    /// The key as lines.
    #[inline(always)]
    pub fn lines(&self) -> &[Line; LINES] {
        zerocopy::transmute_ref!(self)
    }

    /// The key as lines, for changing.
    #[inline(always)]
    pub fn lines_mut(&mut self) -> &mut [Line; LINES] {
        zerocopy::transmute_mut!(self)
    }

    /// The lines that hold anything but zero, and always line 0.
    pub fn lines_used(&self) -> LineSet {
        let mut used = LINE_BASE;
        for (i, line) in self.lines().iter().enumerate() {
            used |= LineSet::from(line.iter().any(|&w| w != 0)) << i;
        }
        used
    }

    /// This key with every bit cleared that `mask` does not have.
    #[must_use]
    pub fn masked(&self, mask: &FlowMask) -> FlowKey {
        let mut out = *self;
        for (line, mask) in out.lines_mut().iter_mut().zip(mask.0.lines()) {
            for (word, mask) in line.iter_mut().zip(mask) {
                *word &= mask;
            }
        }
        out
    }
}

/// Which bits of a [`FlowKey`] a flow matches: same shape, 1 = compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowMask(pub FlowKey);

impl FlowMask {
    /// The mask that matches every bit.
    pub fn exact() -> Self {
        let mut mask = FlowKey::default();
        mask.as_mut_bytes().fill(0xff);
        FlowMask(mask)
    }

    /// True if `packet` agrees with `flow` in every bit of this mask.
    pub fn matches(&self, flow: &FlowKey, packet: &FlowKey) -> bool {
        let lines = flow.lines().iter().zip(packet.lines()).zip(self.0.lines());
        lines.flat_map(|((f, p), m)| f.iter().zip(p).zip(m)).all(|((f, p), m)| (f ^ p) & m == 0)
    }

    /// Adds the bits of `other`.
    pub fn unite(&mut self, other: &FlowMask) {
        for (line, other) in self.0.lines_mut().iter_mut().zip(other.0.lines()) {
            for (word, other) in line.iter_mut().zip(other) {
                *word |= other;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_fields_are_one_memory() {
        let mut key = FlowKey::default();
        assert_eq!(key.lines_used(), LINE_BASE);
        key.ipv6.label = U32::new(5);
        key.options[255] = 1;
        assert_eq!(key.lines_used(), LINE_BASE | LINE_IPV6 | 0x100);
        key.lines_mut()[0][0] = 7;
        assert_eq!(key.base.in_port, if cfg!(target_endian = "little") { 7 } else { 0 });
    }

    #[test]
    fn mask_matches_only_its_bits() {
        let mut mask = FlowMask::default();
        mask.0.base.ipv4_dst = [255, 0, 0, 0];
        let mut flow = FlowKey::default();
        flow.base.ipv4_dst = [10, 0, 0, 0];
        let mut packet = flow;
        packet.base.ipv4_dst = [10, 9, 9, 9];
        packet.base.nw_ttl = 3;
        assert!(mask.matches(&flow, &packet));
        assert_eq!(packet.masked(&mask), flow);
        packet.base.ipv4_dst[0] = 11;
        assert!(!mask.matches(&flow, &packet));
    }
}
