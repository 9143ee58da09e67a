//! SCTP's common header (RFC 9260 §3.1).

use zerocopy::byteorder::little_endian;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the common header.
pub const HEADER_LEN: usize = 12;
/// Offset of the checksum field.
pub const CHECKSUM_AT: usize = 8;

/// The common header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub src: U16,
    /// Destination port.
    pub dst: U16,
    /// Verification tag.
    pub tag: U32,
    /// CRC32c of the packet with this field zero, least significant byte first (appendix A).
    pub checksum: little_endian::U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// The checksum of the packet `bytes` with its checksum field taken as zero; `None` if it is shorter than the header.
pub fn checksum(bytes: &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_at_checked(HEADER_LEN)?;
    let mut header = [0; HEADER_LEN];
    header[..CHECKSUM_AT].copy_from_slice(&head[..CHECKSUM_AT]);
    Some(super::checksum::crc32c_append(super::checksum::crc32c(&header), rest))
}
