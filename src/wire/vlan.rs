//! VLAN tags (IEEE 802.1Q §9): four bytes between the Ethernet addresses and the EtherType.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a tag.
pub const TAG_LEN: usize = 4;
/// VLAN id bits of the tag control information.
pub const VID_MASK: u16 = 0x0fff;
/// Drop eligible (formerly: canonical format) indicator.
pub const DEI: u16 = 0x1000;
/// Priority code point bits.
pub const PCP_MASK: u16 = 0xe000;

/// A tag as it stands behind the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tag {
    /// EtherType of the tag.
    pub tpid: U16,
    /// Priority, DEI, VLAN id.
    pub tci: U16,
}

const _: () = assert!(size_of::<Tag>() == TAG_LEN);
