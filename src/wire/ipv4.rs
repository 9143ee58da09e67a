//! IPv4 (RFC 791).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;
/// Longest header.
pub const HEADER_LEN_MAX: usize = 60;
/// Don't fragment.
pub const FLAG_DF: u16 = 0x4000;
/// More fragments.
pub const FLAG_MF: u16 = 0x2000;
/// Offset of the fragment in units of 8 bytes.
pub const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;

/// The header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4) and header length in units of 4 bytes.
    pub version_ihl: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Length of header and data.
    pub total_len: U16,
    /// Identification of the datagram that a fragment belongs to.
    pub id: U16,
    /// Flags and fragment offset.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the data.
    pub proto: u8,
    /// Checksum of the header.
    pub checksum: U16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// Length with options, in bytes, as the header says: 0 to 60.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 15) as usize * 4
    }

    /// True for any fragment but the first: there is no transport header.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.get() & FRAGMENT_OFFSET_MASK != 0
    }

    /// True for a fragment, the first included.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & (FRAGMENT_OFFSET_MASK | FLAG_MF) != 0
    }
}
