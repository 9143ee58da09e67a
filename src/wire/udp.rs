//! UDP (RFC 768) and UDP-Lite (RFC 3828), whose length field is the checksum's coverage.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum field.
pub const CHECKSUM_AT: usize = 6;

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub src: U16,
    /// Destination port.
    pub dst: U16,
    /// Length of header and data.
    pub len: U16,
    /// Checksum over pseudo-header, header and data; 0 for none.
    pub checksum: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);
