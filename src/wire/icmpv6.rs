//! ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header that all messages share.
pub const HEADER_LEN: usize = 4;
/// Offset of the checksum field.
pub const CHECKSUM_AT: usize = 2;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Type of a neighbour solicitation (RFC 4861 §4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Type of a neighbour advertisement (RFC 4861 §4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Length of a neighbour message without options.
pub const NEIGHBOUR_LEN: usize = 24;
/// Length of a link-layer address option for Ethernet.
pub const LINK_OPTION_LEN: usize = 8;
/// Option type: source link-layer address (RFC 4861 §4.6.1).
pub const OPTION_SOURCE_LINK: u8 = 1;
/// Option type: target link-layer address (RFC 4861 §4.6.1).
pub const OPTION_TARGET_LINK: u8 = 2;

/// The header that all messages share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum over pseudo-header and message.
    pub checksum: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// A neighbour solicitation or advertisement without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Neighbour {
    /// Type, code, checksum.
    pub header: Header,
    /// Reserved; in an advertisement the upper three bits are router, solicited, override.
    pub reserved: U32,
    /// Target address.
    pub target: [u8; 16],
}

const _: () = assert!(size_of::<Neighbour>() == NEIGHBOUR_LEN);

/// A link-layer address option for Ethernet (RFC 4861 §4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LinkOption {
    /// Type.
    pub kind: u8,
    /// Length in units of 8 bytes: 1.
    pub units: u8,
    /// Address.
    pub address: [u8; 6],
}

const _: () = assert!(size_of::<LinkOption>() == LINK_OPTION_LEN);
