//! ERSPAN types II and III (draft-foschiano-erspan): mirrored frames behind a GRE header with a sequence number.
//!
//! ```text
//!   type II    |version|     VLAN      | COS |En|T|    session    |  index (20 bits)  |
//!   type III   |version|     VLAN      | COS |BSO|T|   session    |  timestamp  |  SGT  |P| FT | hardware |D|Gra|O|
//! ```
//!
//! In the headers the versions are 1 and 2. Type I has no header of its own and no sequence number; Open vSwitch knows it neither.

use super::contract::{Opened, ethertype_of_version};
use super::gre;
use super::sequence::Moment;
use crate::flow::key::{TUNNEL_ERSPAN, TUNNEL_KEY, TunnelLine};
use crate::packet::DropReason;
use zerocopy::byteorder::network_endian::U64;

/// Length of the GRE header with its sequence number.
const GRE_LEN: usize = gre::LEN + 4;
/// Length of both headers, type II.
const LEN_V1: usize = GRE_LEN + 8;
/// Length of both headers, type III.
const LEN_V2: usize = GRE_LEN + 12;
/// Length of the platform-specific subheader that type III may have.
const SUBHEADER_LEN: usize = 8;

/// EtherType of type II.
const TYPE_II: u16 = 0x88be;
/// EtherType of type III.
const TYPE_III: u16 = 0x22eb;

/// Bits of a session.
const SESSION: u16 = 0x3ff;
/// Bits of type II's index.
const INDEX: u32 = 0xf_ffff;
/// Nanoseconds that type III's timestamp counts, with a granularity of 0.
const TICK_NS: u64 = 100_000;

/// Version, and length of both headers, of those that `bytes` begin with; `None` if they are none.
fn version_and_len(bytes: &[u8]) -> Option<(u8, usize)> {
    let (flags, ethertype) = gre::head(bytes)?;
    if flags != gre::S {
        return None;
    }
    let (version, len) = match (ethertype, bytes.get(GRE_LEN)? >> 4) {
        (TYPE_II, 1) => (1, LEN_V1),
        (TYPE_III, 2) => (2, LEN_V2 + if bytes.get(LEN_V2 - 1)? & 1 != 0 { SUBHEADER_LEN } else { 0 }),
        _ => return None,
    };
    (len <= bytes.len()).then_some((version, len))
}

/// See [`Kind::open`](super::Kind::open).
#[inline(never)]
pub(super) fn open(bytes: &[u8], tunnel: &mut TunnelLine) -> Result<Opened, DropReason> {
    let (version, len) = version_and_len(bytes).ok_or(DropReason::TunnelHeader)?;
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
    tunnel.id = U64::new((word(GRE_LEN) as u16 & SESSION).into());
    tunnel.flags |= TUNNEL_KEY | TUNNEL_ERSPAN;
    let mut layer3 = None;
    if version == 1 {
        let index = (word(GRE_LEN + 4) & INDEX).to_be_bytes();
        tunnel.opts = [version, 0, 0, 0, index[0], index[1], index[2], index[3]];
    } else {
        let last = word(LEN_V2 - 4);
        // Direction, and the hardware's number.
        tunnel.opts = [version, (last >> 3 & 1) as u8, (last >> 4 & 0x3f) as u8, 0, 0, 0, 0, 0];
        // The frame's type: Ethernet, or IP alone.
        layer3 = match last >> 10 & 0x1f {
            0 => None,
            2 => Some(ethertype_of_version(&bytes[len..])?),
            _ => return Err(DropReason::TunnelHeader),
        };
    }
    Ok(Opened::new(len, layer3))
}

/// See [`Kind::check`](super::Kind::check).
pub(super) fn check(own: &[u8]) -> Result<(), &'static str> {
    match version_and_len(own) {
        Some((_, len)) if len == own.len() => Ok(()),
        _ => Err("a GRE header with a sequence number and an ERSPAN header of version 1 or 2"),
    }
}

/// See [`Kind::fill`](super::Kind::fill). Type III's timestamp counts 100 µs, whatever granularity the header says: it is the caller's
/// clock, as in Open vSwitch.
pub(super) fn fill(own: &mut [u8], moment: Moment<'_>) {
    own[gre::LEN..GRE_LEN].copy_from_slice(&moment.sequence.next().to_be_bytes());
    if own[GRE_LEN] >> 4 == 2 {
        let ticks = (moment.now.0 / TICK_NS) as u32;
        own[GRE_LEN + 4..GRE_LEN + 8].copy_from_slice(&ticks.to_be_bytes());
    }
}

/// Appends the GRE and ERSPAN headers for what `tunnel` says.
///
/// # Errors
/// Why there are no such headers.
pub fn write(tunnel: &TunnelLine, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let session = tunnel.id.get();
    if session > SESSION.into() {
        return Err("an ERSPAN session has 10 bits");
    }
    let [version, direction, hardware, _, index @ ..] = tunnel.opts;
    let ethertype = match version {
        1 => TYPE_II,
        2 => TYPE_III,
        _ => return Err("ERSPAN has the versions 1 and 2"),
    };
    let index = u32::from_be_bytes(index);
    if version == 1 && index > INDEX {
        return Err("an ERSPAN index has 20 bits");
    }
    if version == 2 && (direction > 1 || hardware > 0x3f) {
        return Err("an ERSPAN direction has 1 bit, a hardware id 6");
    }
    out.extend_from_slice(&gre::S.to_be_bytes());
    out.extend_from_slice(&ethertype.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(u32::from(version) << 28 | session as u32).to_be_bytes());
    if version == 1 {
        out.extend_from_slice(&index.to_be_bytes());
    } else {
        let last = u16::from(hardware) << 4 | u16::from(direction) << 3;
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&last.to_be_bytes());
    }
    Ok(())
}
