//! IGMP (RFC 3376 §4; RFC 2236 for version 2).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header that all versions share.
pub const HEADER_LEN: usize = 8;
/// Type of a membership query.
pub const QUERY: u8 = 0x11;
/// Type of a version 2 report.
pub const REPORT_V2: u8 = 0x16;
/// Type of a version 2 leave.
pub const LEAVE_V2: u8 = 0x17;
/// Type of a version 3 report.
pub const REPORT_V3: u8 = 0x22;

/// The header that all versions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Maximum response time of a query.
    pub max_response: u8,
    /// Checksum of the IGMP message.
    pub checksum: U16,
    /// Group address; other things in a version 3 report.
    pub group: [u8; 4],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);
