//! TCP (RFC 9293 §3.1).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;
/// Offset of the checksum field.
pub const CHECKSUM_AT: usize = 16;
/// No more data from the sender.
pub const FIN: u16 = 0x001;
/// Synchronise sequence numbers.
pub const SYN: u16 = 0x002;
/// Reset the connection.
pub const RST: u16 = 0x004;
/// Push function.
pub const PSH: u16 = 0x008;
/// The acknowledgement number is valid.
pub const ACK: u16 = 0x010;
/// The urgent pointer is valid.
pub const URG: u16 = 0x020;
/// ECN echo (RFC 3168).
pub const ECE: u16 = 0x040;
/// Congestion window reduced (RFC 3168).
pub const CWR: u16 = 0x080;

/// The header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub src: U16,
    /// Destination port.
    pub dst: U16,
    /// Sequence number.
    pub seq: U32,
    /// Acknowledgement number.
    pub ack: U32,
    /// Data offset in units of 4 bytes (upper 4 bits) and flags (lower 12).
    pub offset_flags: U16,
    /// Receive window.
    pub window: U16,
    /// Checksum over pseudo-header, header and data.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// Length with options, in bytes, as the header says: 0 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.offset_flags.get() >> 12) * 4
    }
}
