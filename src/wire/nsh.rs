//! Network service header (RFC 8300 §2).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of base header and service path header.
pub const HEADER_LEN: usize = 8;
/// Length of a header with metadata type 1.
pub const MD1_LEN: usize = 24;
/// Length of the longest header: 63 words of 4 bytes.
pub const LEN_MAX: usize = 252;
/// Metadata type 1: four context words.
pub const MD_TYPE_1: u8 = 1;
/// Metadata type 2: TLVs.
pub const MD_TYPE_2: u8 = 2;
/// Next protocol IPv4.
pub const NEXT_IPV4: u8 = 1;
/// Next protocol IPv6.
pub const NEXT_IPV6: u8 = 2;
/// Next protocol Ethernet.
pub const NEXT_ETHERNET: u8 = 3;
/// Next protocol NSH.
pub const NEXT_NSH: u8 = 4;
/// Next protocol MPLS.
pub const NEXT_MPLS: u8 = 5;

/// Version bits of the first word.
pub const VERSION_MASK: u16 = 0xc000;
/// Flag bits (O and the one behind it) of the first word.
pub const FLAGS_MASK: u16 = 0x3000;
/// Lowest flag bit.
pub const FLAGS_SHIFT: u16 = 12;
/// TTL bits of the first word.
pub const TTL_MASK: u16 = 0x0fc0;
/// Lowest TTL bit.
pub const TTL_SHIFT: u16 = 6;
/// Length bits of the first word, in units of 4 bytes.
pub const LEN_MASK: u16 = 0x003f;

/// Base header and service path header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version, flags, TTL, length.
    pub version_flags_ttl_len: U16,
    /// Metadata type in the lower 4 bits.
    pub md_type: u8,
    /// Next protocol.
    pub next: u8,
    /// Service path identifier (24 bits) and service index (8 bits).
    pub path: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// Length in bytes, as the header says: 0 to 252.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_flags_ttl_len.get() & LEN_MASK) * 4
    }
}
