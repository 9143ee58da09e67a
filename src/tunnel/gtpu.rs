//! GTP-U (3GPP TS 29.281): user packets between a radio network and its core, and the messages of the tunnels' ends.
//!
//! ```text
//!   |version|PT|-|E|S|PN|  type  |     length      |           tunnel endpoint id (TEID)           |
//!   |    sequence number    | N-PDU no. | next ext. |     there if any of E, S and PN is set
//!   | length in 4 bytes |      content      | next  |     extension headers, while E and "next" say so
//! ```
//!
//! The length counts what is behind the first 8 bytes. A G-PDU carries an IP packet, whose version stands in its first byte.

use super::contract::{Opened, ethertype_of_version};
use super::sequence::Moment;
use crate::flow::key::{TUNNEL_GTPU, TUNNEL_KEY, TunnelLine};
use crate::packet::DropReason;
use zerocopy::byteorder::network_endian::U64;

/// The UDP port that IANA assigned.
pub const PORT: u16 = 2152;
/// Length of the header without optional fields.
pub const LEN: usize = 8;
/// Length of sequence number, N-PDU number and type of the next extension header.
const OPTIONAL_LEN: usize = 4;
/// Length of an extension header with a PDU session container of one word.
const CONTAINER_LEN: usize = 4;

/// Message type of a user packet (§6.1).
pub const G_PDU: u8 = 255;
/// Extension header with a PDU session container (§5.2.2.7).
pub const PDU_SESSION_CONTAINER: u8 = 0x85;

/// Version 1, protocol type GTP.
const FLAGS: u8 = 0x30;
/// Bits of version and protocol type.
const VERSION: u8 = 0xf0;
/// There is an extension header.
const E: u8 = 0x04;
/// The sequence number means something.
const S: u8 = 0x02;
/// The N-PDU number means something.
const PN: u8 = 0x01;
/// In an extension header's type: whoever does not understand it drops the packet (§5.2.1).
const REQUIRED: u8 = 0x80;

/// Length of the header that `bytes` begin with, with all extensions. The walk is bounded by the bytes: each extension takes 4 or more.
fn len_of(bytes: &[u8]) -> Result<usize, DropReason> {
    let &[flags, ..] = bytes.first_chunk::<LEN>().ok_or(DropReason::TunnelHeader)?;
    if flags & VERSION != FLAGS {
        return Err(DropReason::TunnelHeader);
    }
    if flags & (E | S | PN) == 0 {
        return Ok(LEN);
    }
    let mut at = LEN + OPTIONAL_LEN;
    let mut next = *bytes.get(at - 1).ok_or(DropReason::TunnelHeader)?;
    // §5.1: without E the type of the next extension header is not looked at.
    if flags & E == 0 {
        next = 0;
    }
    while next != 0 {
        if next & REQUIRED != 0 && next != PDU_SESSION_CONTAINER {
            return Err(DropReason::TunnelOption);
        }
        let len = usize::from(*bytes.get(at).ok_or(DropReason::TunnelHeader)?) * 4;
        if len == 0 {
            return Err(DropReason::TunnelHeader);
        }
        at += len;
        next = *bytes.get(at - 1).ok_or(DropReason::TunnelHeader)?;
    }
    Ok(at)
}

/// See [`Kind::open`](super::Kind::open). A message that is no G-PDU stays whole.
#[inline(never)]
pub(super) fn open(bytes: &[u8], tunnel: &mut TunnelLine) -> Result<Opened, DropReason> {
    let &[flags, kind, high, low, teid @ ..] = bytes.first_chunk::<LEN>().ok_or(DropReason::TunnelHeader)?;
    let end = LEN + usize::from(u16::from_be_bytes([high, low]));
    let bytes_of_message = bytes.get(..end).ok_or(DropReason::TunnelHeader)?;
    let len = len_of(bytes_of_message)?;
    tunnel.id = U64::new(u32::from_be_bytes(teid).into());
    tunnel.flags |= TUNNEL_KEY | TUNNEL_GTPU;
    tunnel.opts = [flags, kind, 0, 0, 0, 0, 0, 0];
    let mut opened = Opened { padding: bytes.len() - end, ..Opened::new(len, None) };
    if kind == G_PDU {
        opened.layer3 = Some(ethertype_of_version(&bytes_of_message[len..])?);
    } else {
        opened.is_message = true;
    }
    Ok(opened)
}

/// See [`Kind::check`](super::Kind::check).
pub(super) fn check(own: &[u8]) -> Result<(), &'static str> {
    match len_of(own) {
        Ok(len) if len == own.len() => Ok(()),
        _ => Err("a GTP-U header of version 1 with the fields and extensions that it announces, and no others"),
    }
}

/// See [`Kind::fill`](super::Kind::fill).
pub(super) fn fill(own: &mut [u8], inner: &[u8], moment: Moment<'_>) {
    // No packet is longer than an outer IP packet can be.
    let len = (own.len() - LEN + inner.len()) as u16;
    own[2..4].copy_from_slice(&len.to_be_bytes());
    if own[0] & S != 0 {
        let sequence = moment.sequence.next() as u16;
        own[LEN..LEN + 2].copy_from_slice(&sequence.to_be_bytes());
    }
}

/// A PDU session container (TS 38.415 §5.5.2) without optional parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    /// Towards the core; else towards the radio network.
    pub is_uplink: bool,
    /// QoS flow identifier, 6 bits.
    pub qfi: u8,
}

/// Appends the header for what `tunnel` says: its flags and its message type, or those of a user packet if it has none. `sequence` and
/// `container` add what they name, and set the flag for it.
///
/// # Errors
/// Why there is no such header.
pub fn write(
    tunnel: &TunnelLine,
    sequence: bool,
    container: Option<Container>,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let teid = u32::try_from(tunnel.id.get()).map_err(|_| "a TEID has 32 bits")?;
    let [flags, kind, ..] = if tunnel.flags & TUNNEL_GTPU != 0 { tunnel.opts } else { [0; 8] };
    let mut flags = if flags != 0 { flags } else { FLAGS };
    let kind = if kind != 0 { kind } else { G_PDU };
    if flags & VERSION != FLAGS {
        return Err("GTP-U has version 1 and protocol type 1");
    }
    if flags & E != 0 && container.is_none() {
        return Err("the GTP-U flags announce an extension header, and there is none");
    }
    if container.is_some_and(|container| container.qfi > 0x3f) {
        return Err("a QoS flow identifier has 6 bits");
    }
    flags |= if sequence { S } else { 0 } | if container.is_some() { E } else { 0 };
    out.extend_from_slice(&[flags, kind, 0, 0]);
    out.extend_from_slice(&teid.to_be_bytes());
    if flags & (E | S | PN) != 0 {
        out.extend_from_slice(&[0, 0, 0, if container.is_some() { PDU_SESSION_CONTAINER } else { 0 }]);
    }
    if let Some(Container { is_uplink, qfi }) = container {
        let words = (CONTAINER_LEN / 4) as u8;
        out.extend_from_slice(&[words, u8::from(is_uplink) << 4, qfi, 0]);
    }
    Ok(())
}
