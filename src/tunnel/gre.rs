//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//!    0                   1                   2                   3
//!   |C| |K|S|  reserved   | version |         EtherType             |
//!   |       checksum (C)            |          reserved             |
//!   |                            key (K)                            |
//!   |                      sequence number (S)                      |
//! ```

use super::contract::Opened;
use super::sequence::Moment;
use crate::flow::key::{TUNNEL_CSUM, TUNNEL_KEY, TunnelLine};
use crate::packet::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::ethernet;
use zerocopy::byteorder::network_endian::U64;

/// Length of the header without optional fields.
pub const LEN: usize = 4;
/// Length of each optional field.
const FIELD_LEN: usize = 4;

/// In the first word: there is a checksum.
const C: u16 = 0x8000;
/// There is a key.
const K: u16 = 0x2000;
/// There is a sequence number.
pub(super) const S: u16 = 0x1000;
/// RFC 2784 §2.3: a receiver of this RFC discards packets with any of bits 1, 4 and 5 (2 and 3 came with RFC 2890), and other versions
/// than 0. Bits 6 to 12 are ignored.
const INVALID: u16 = 0x4c07;

/// The flags and the EtherType that `bytes` begin with, if the version and the flags are such that the rest can be read.
pub(super) fn head(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    let flags = u16::from_be_bytes([a, b]);
    (flags & INVALID == 0).then(|| (flags & (C | K | S), u16::from_be_bytes([c, d])))
}

/// Length of a header with these flags.
const fn len_of(flags: u16) -> usize {
    LEN + FIELD_LEN * (flags & (C | K | S)).count_ones() as usize
}

/// See [`Kind::open`](super::Kind::open). The order of sequence numbers is not looked at, as in Open vSwitch.
#[inline(never)]
pub(super) fn open(bytes: &[u8], tunnel: &mut TunnelLine) -> Result<Opened, DropReason> {
    let (flags, ethertype) = head(bytes).ok_or(DropReason::TunnelHeader)?;
    let mut fields = bytes.get(LEN..len_of(flags)).ok_or(DropReason::TunnelHeader)?;
    let layer3 = match ethertype {
        ethernet::TEB => None,
        // RFC 1701's and RFC 2784's other protocol types are no EtherTypes.
        0..ethernet::ETHERTYPE_MIN => return Err(DropReason::TunnelHeader),
        ethertype => Some(ethertype),
    };
    if flags & C != 0 {
        if checksum::of(bytes) != 0 {
            return Err(DropReason::TunnelChecksum);
        }
        tunnel.flags |= TUNNEL_CSUM;
        fields = &fields[FIELD_LEN..];
    }
    if flags & K != 0
        && let Some(key) = fields.first_chunk()
    {
        tunnel.id = U64::new(u32::from_be_bytes(*key).into());
        tunnel.flags |= TUNNEL_KEY;
    }
    Ok(Opened::new(len_of(flags), layer3))
}

/// See [`Kind::check`](super::Kind::check).
pub(super) fn check(own: &[u8]) -> Result<(), &'static str> {
    let (flags, _) = head(own).ok_or("a GRE header of version 0")?;
    if own.len() == len_of(flags) { Ok(()) } else { Err("the fields that the GRE flags announce, and no others") }
}

/// See [`Kind::id_at`](super::Kind::id_at).
pub(super) fn key_at(own: &[u8]) -> Option<usize> {
    let (flags, _) = head(own)?;
    (flags & K != 0).then(|| len_of(flags & C))
}

/// See [`Kind::fill`](super::Kind::fill).
pub(super) fn fill(own: &mut [u8], inner: &[u8], moment: Moment<'_>) {
    let Some((flags, _)) = head(own) else { return };
    if flags & S != 0 {
        let at = len_of(flags) - FIELD_LEN;
        own[at..at + FIELD_LEN].copy_from_slice(&moment.sequence.next().to_be_bytes());
    }
    if flags & C != 0 {
        // RFC 2784 §2.5: of the GRE header and the payload, as if the field were 0.
        own[LEN..LEN + 2].fill(0);
        let sum = Sum::default().both(own, inner);
        own[LEN..LEN + 2].copy_from_slice(&sum.finish().to_be_bytes());
    }
}

/// Appends the header for what `tunnel` says: with a checksum and a key if its flags have them, and a sequence number if `sequence`.
/// `layer3` is the EtherType of an inner packet without Ethernet header.
///
/// # Errors
/// Why there is no such header.
pub fn write(tunnel: &TunnelLine, sequence: bool, layer3: Option<u16>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let key = u32::try_from(tunnel.id.get()).map_err(|_| "a GRE key has 32 bits")?;
    let ethertype = layer3.unwrap_or(ethernet::TEB);
    if ethertype < ethernet::ETHERTYPE_MIN {
        return Err("GRE names its payload by an EtherType");
    }
    let has = |bit: u16| tunnel.flags & bit != 0;
    let flag = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
    let flags = flag(has(TUNNEL_CSUM), C) | flag(has(TUNNEL_KEY), K) | flag(sequence, S);
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&ethertype.to_be_bytes());
    if flags & C != 0 {
        out.extend_from_slice(&[0; FIELD_LEN]);
    }
    if flags & K != 0 {
        out.extend_from_slice(&key.to_be_bytes());
    }
    if flags & S != 0 {
        out.extend_from_slice(&[0; FIELD_LEN]);
    }
    Ok(())
}
