//! Segment routing over IPv6 (RFC 8754): an outer IPv6 header, most often with a segment routing header, around an IP packet
//! (RFC 8986: H.Encaps, H.Encaps.Red, and the ends that take it off).
//!
//! ```text
//!   | next | length | type 4 | left | last entry | flags |   tag   |
//!   |   segments, 16 bytes each, the last of the path first         |
//!   |   TLVs                                                        |
//! ```
//!
//! What a tunnel of this kind has as its own header begins with the outer IPv6 header: there is no other between it and the inner packet.

use super::contract::{Opened, Options};
use crate::packet::DropReason;
use crate::wire::{ethernet, ip, ipv6};
use zerocopy::FromBytes;

/// Length of the routing header in front of its segments.
const LEN: usize = 8;
/// Length of a segment.
const SEGMENT_LEN: usize = 16;
/// Segments in a header at most: its length field counts units of 8 bytes in 8 bits.
pub const SEGMENTS_MAX: usize = 127;
/// Type of the routing header (RFC 8754 §8).
const ROUTING_TYPE: u8 = 4;
/// A TLV that is one byte long (RFC 8754 §2.1).
const PAD1: u8 = 0;

/// EtherType of what `next` stands for.
const fn inner_of(next: u8) -> Option<u16> {
    match next {
        ip::IPIP => Some(ethernet::IPV4),
        ip::IPV6 => Some(ethernet::IPV6),
        _ => None,
    }
}

/// Checks the segment routing header that is all of `header`. Returns how many segments are left.
fn check_segments(header: &[u8]) -> Option<u8> {
    let &[_, _, kind, left, last, ..] = header.first_chunk::<LEN>()?;
    let (segments, mut tlvs) = header[LEN..].split_at_checked((usize::from(last) + 1) * SEGMENT_LEN)?;
    // RFC 8754 §4.3.1.1. A reduced header lacks the first segment of its path, so that one more may be left than it lists.
    if kind != ROUTING_TYPE || usize::from(left) > segments.len() / SEGMENT_LEN {
        return None;
    }
    while let [kind, rest @ ..] = tlvs {
        tlvs = match (*kind, rest) {
            (PAD1, rest) => rest,
            (_, [len, rest @ ..]) => rest.get(usize::from(*len)..)?,
            (_, []) => return None,
        };
    }
    Some(left)
}

/// Walks from the IPv6 header to the inner packet; its EtherType, where it begins, and how many segments are left, if there is a segment
/// routing header. The walk is bounded by the bytes: each header takes 8 or more.
fn walk(bytes: &[u8]) -> Result<(u16, usize, Option<u8>), DropReason> {
    let (header, _) = ipv6::Header::ref_from_prefix(bytes).map_err(|_| DropReason::TunnelHeader)?;
    let (mut next, mut at, mut left) = (header.next_header, ipv6::HEADER_LEN, None);
    loop {
        if let Some(ethertype) = inner_of(next) {
            return Ok((ethertype, at, left));
        }
        let &[following, units] = bytes.get(at..).and_then(|h| h.first_chunk()).ok_or(DropReason::TunnelHeader)?;
        let len = (usize::from(units) + 1) * 8;
        let header = bytes.get(at..at + len).ok_or(DropReason::TunnelHeader)?;
        match next {
            ip::ROUTING => left = Some(check_segments(header).ok_or(DropReason::TunnelHeader)?),
            ip::HOP_BY_HOP | ip::DESTINATION_OPTIONS => {}
            ip::FRAGMENT => return Err(DropReason::TunnelFragment),
            _ => return Err(DropReason::TunnelHeader),
        }
        if left.is_some_and(|left| left > 0) {
            // What follows is for the nodes behind the segments that are left.
            return inner_of(following).map(|ethertype| (ethertype, at + len, left)).ok_or(DropReason::TunnelHeader);
        }
        (next, at) = (following, at + len);
    }
}

/// See [`Kind::open`](super::Kind::open).
#[inline(never)]
pub(super) fn open(bytes: &[u8], options: &Options) -> Result<Opened, DropReason> {
    match walk(bytes)? {
        // A packet that has a way to go is not for whoever opens it, as in Open vSwitch.
        (_, _, Some(1..)) => Err(DropReason::TunnelHeader),
        (_, _, None) if !options.reduced => Err(DropReason::TunnelHeader),
        (ethertype, len, _) => Ok(Opened::new(len, Some(ethertype))),
    }
}

/// See [`Kind::check`](super::Kind::check).
pub(super) fn check(own: &[u8]) -> Result<(), &'static str> {
    match walk(own) {
        Ok((_, len, _)) if len == own.len() => Ok(()),
        _ => Err("a segment routing header, or none, in front of an IP packet"),
    }
}

/// The `next_header` of an outer IPv6 header in front of what [`write()`] writes.
///
/// # Errors
/// Why there is none.
pub fn next_header(segments: &[[u8; 16]], layer3: u16) -> Result<u8, &'static str> {
    match (segments, layer3) {
        (_, layer3) if layer3 != ethernet::IPV4 && layer3 != ethernet::IPV6 => Err("SRv6 carries IPv4 and IPv6 only"),
        ([], ethernet::IPV4) => Ok(ip::IPIP),
        ([], _) => Ok(ip::IPV6),
        _ => Ok(ip::ROUTING),
    }
}

/// Appends a segment routing header: `segments` is what it lists of the path, its first one first, and `left` how many of them are left.
/// The outer header's destination is the path's first segment. Without segments there is no header. `layer3` is the EtherType of the inner
/// packet.
///
/// # Errors
/// Why there is no such header.
pub fn write(segments: &[[u8; 16]], left: u8, layer3: u16, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let inner = next_header(&[], layer3)?;
    if segments.len() > SEGMENTS_MAX {
        return Err("a segment routing header lists at most 127 segments");
    }
    if usize::from(left) > segments.len() {
        return Err("more segments are left than there are");
    }
    let Some(last) = segments.len().checked_sub(1) else { return Ok(()) };
    out.extend_from_slice(&[inner, (2 * segments.len()) as u8, ROUTING_TYPE, left, last as u8, 0, 0, 0]);
    segments.iter().rev().for_each(|segment| out.extend_from_slice(segment));
    Ok(())
}
