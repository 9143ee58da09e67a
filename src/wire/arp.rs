//! ARP and RARP for IPv4 over Ethernet (RFC 826, RFC 903).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a packet.
pub const LEN: usize = 28;
/// Opcode of a request.
pub const REQUEST: u16 = 1;
/// Opcode of a reply.
pub const REPLY: u16 = 2;

/// A packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Arp {
    /// Hardware type: 1, Ethernet.
    pub hardware: U16,
    /// Protocol type: IPv4's EtherType.
    pub protocol: U16,
    /// Length of a hardware address: 6.
    pub hardware_len: u8,
    /// Length of a protocol address: 4.
    pub protocol_len: u8,
    /// Opcode.
    pub op: U16,
    /// Sender hardware address.
    pub sha: [u8; 6],
    /// Sender protocol address.
    pub sip: [u8; 4],
    /// Target hardware address.
    pub tha: [u8; 6],
    /// Target protocol address.
    pub tip: [u8; 4],
}

const _: () = assert!(size_of::<Arp>() == LEN);

impl Arp {
    /// True if types and lengths are those of IPv4 over Ethernet.
    #[inline]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware.get() == 1
            && self.protocol.get() == super::ethernet::IPV4
            && self.hardware_len == 6
            && self.protocol_len == 4
    }
}
