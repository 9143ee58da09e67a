//! Ethernet (IEEE 802.3) and the EtherTypes that the engine knows.

/// Length of the header without tags.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// EtherType of RARP (RFC 903).
pub const RARP: u16 = 0x8035;
/// EtherType of Transparent Ethernet Bridging.
pub const TEB: u16 = 0x6558;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of MPLS unicast (RFC 3032).
pub const MPLS: u16 = 0x8847;
/// EtherType of MPLS multicast (RFC 3032).
pub const MPLS_MULTICAST: u16 = 0x8848;
/// EtherType of an 802.1ad service tag.
pub const VLAN_8021AD: u16 = 0x88a8;
/// EtherType of NSH (RFC 8300).
pub const NSH: u16 = 0x894f;
/// Below this the field is an 802.3 length, not an EtherType.
pub const ETHERTYPE_MIN: u16 = 0x600;
/// What a flow key carries for an 802.3 frame without SNAP: OVS's `FLOW_DL_TYPE_NONE`.
pub const DL_TYPE_NONE: u16 = 0x5ff;

/// True for the EtherTypes of both VLAN tags.
#[inline(always)]
pub const fn is_vlan(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == VLAN_8021AD
}

/// True for the EtherTypes of MPLS.
#[inline(always)]
pub const fn is_mpls(ethertype: u16) -> bool {
    ethertype == MPLS || ethertype == MPLS_MULTICAST
}
