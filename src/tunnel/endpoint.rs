//! What a node does with a packet whose destination is one of its segments (RFC 8986 §4).
//!
//! ```text
//!   | IPv6, to this segment | options | segment routing header | options | upper layer |
//!                                       segments are left: the packet goes on to the next
//!                                       none is left: what is behind it is for this node, and the behaviour says what that may be
//! ```
//!
//! A segment routing header is changed in no part that a checksum covers: a transport's pseudo-header has the last segment of the path as its
//! destination (RFC 8200 §8.1), which stays the same however far the packet is. TLVs stay as they are; that of an HMAC is not verified.

use super::behaviour::{Behaviour, Flavours};
use super::contract::Options;
use super::outer::check_v6;
use super::srv6::{LEN, ROUTING_TYPE, SEGMENT_LEN, extension};
use super::take_off;
use crate::flow::Ext;
use crate::flow::key::{LINE_OPTIONS, LINE_TUNNEL};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::{ethernet, ip, ipv6};
use zerocopy::FromBytes;

/// Where in the IPv6 header the type of what follows stands.
const NEXT_AT: usize = 6;
/// Bits of an option's type that say what becomes of a packet with it where it is not understood; 0 is to skip it (RFC 8200 §4.2).
const OPTION_ACTION: u8 = 0xc0;

/// A segment routing header: where it begins, where its type stands, and its length. The first two count from the IPv6 header.
#[derive(Clone, Copy, Debug)]
struct Routing {
    at: usize,
    named_at: usize,
    len: usize,
}

/// Where the walk over the headers of a packet ends.
#[derive(Debug)]
enum Stop {
    /// At a segment routing header in which segments are left.
    Segments(Routing),
    /// At the upper layer: its type, where it begins, and the first segment routing header in front of it.
    Upper { next: u8, at: usize, used_up: Option<Routing> },
}

/// Has a packet whose destination is a segment undergo its behaviour. As [`open`](super::open).
#[inline(never)]
pub(super) fn open(
    packet: &mut Packet,
    ext: &mut Ext,
    behaviour: Behaviour,
    options: &Options,
) -> Result<(), DropReason> {
    let l3 = ipv6_at(packet).ok_or(DropReason::TunnelHeader)?;
    let header = packet.data().get(l3..).ok_or(DropReason::TunnelHeader)?;
    let len = check_v6(header, &mut ext.tunnel, None)?;
    let stop = walk(header.get(..len).ok_or(DropReason::TunnelHeader)?)?;
    ext.lines &= !LINE_OPTIONS;
    match (stop, behaviour.flavours()) {
        (Stop::Segments(routing), Some(flavours)) => advance(packet, l3, routing, flavours)?,
        // Whoever takes the outer headers off is the last one (§4.4 to §4.9, S02).
        (Stop::Segments(_), None) => return Err(DropReason::TunnelHeader),
        (Stop::Upper { next, at, used_up }, flavours) => {
            if let Some(layer3) = behaviour.takes_out(next) {
                return take_off(packet, ext, l3 + at, l3 + len, layer3, options);
            }
            if !options.upper_layer {
                return Err(if next == ip::FRAGMENT { DropReason::TunnelFragment } else { DropReason::TunnelHeader });
            }
            if let (Some(Flavours { usp: true, .. }), Some(routing)) = (flavours, used_up) {
                remove(packet, l3, routing);
            }
        }
    }
    ext.lines |= LINE_TUNNEL;
    // What the receiver knew was of the packet's old destination.
    packet.flags.remove(PacketFlags::RSS_VALID);
    packet.flags.remove(PacketFlags::CHECKSUM_GOOD);
    Ok(())
}

/// Where the IPv6 header is, according to extraction and to what is in front of it.
fn ipv6_at(packet: &Packet) -> Option<usize> {
    let l3 = packet.l3 as usize;
    let ethertype = match packet.flags.contains(PacketFlags::LAYER3) && l3 == 0 {
        true => packet.l3_type,
        false => u16::from_be_bytes(*packet.data().get(l3.checked_sub(2)?..)?.first_chunk()?),
    };
    let is_ipv6 = packet.l2_5 == NONE
        && ethertype == ethernet::IPV6
        && packet.data().get(l3).is_some_and(|first| first >> 4 == 6);
    is_ipv6.then_some(l3)
}

/// Walks from the IPv6 header at the start of `bytes`, which end where its payload does. The walk is bounded by the bytes: each header takes
/// 8 or more.
fn walk(bytes: &[u8]) -> Result<Stop, DropReason> {
    let (mut named_at, mut at, mut used_up) = (NEXT_AT, ipv6::HEADER_LEN, None);
    let mut next = *bytes.get(named_at).ok_or(DropReason::TunnelHeader)?;
    loop {
        if !matches!(next, ip::HOP_BY_HOP | ip::ROUTING | ip::DESTINATION_OPTIONS) {
            return Ok(Stop::Upper { next, at, used_up });
        }
        let (following, header) = extension(bytes, at)?;
        let len = header.len();
        match (next, header) {
            (ip::ROUTING, &[_, _, ROUTING_TYPE, left, ..]) => {
                let routing = Routing { at, named_at, len };
                if left > 0 {
                    return Ok(Stop::Segments(routing));
                }
                // S02 to S04 of End (§4.1): the rest of the header does not matter.
                used_up = used_up.or(Some(routing));
            }
            // Another type of routing header: nothing if it is used up (RFC 8200 §4.4).
            (ip::ROUTING, &[_, _, _, left, ..]) if left > 0 => return Err(DropReason::TunnelHeader),
            (ip::DESTINATION_OPTIONS, &[_, _, ref options @ ..]) => check_options(options)?,
            _ => {}
        }
        (next, named_at, at) = (following, at, at + len);
    }
}

/// Checks that none of these destination options must be understood (RFC 8200 §4.2), for none is.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        options = match (*kind, rest) {
            // Pad1, the one option without a length.
            (0, rest) => rest,
            (kind, _) if kind & OPTION_ACTION != 0 => return Err(DropReason::TunnelOption),
            (_, [len, rest @ ..]) => rest.get(usize::from(*len)..).ok_or(DropReason::TunnelHeader)?,
            (_, []) => return Err(DropReason::TunnelHeader),
        };
    }
    Ok(())
}

/// End from its step S05 on (RFC 8986 §4.1), with PSP (§4.16.1). Only what was checked is changed: nothing is of a packet that is dropped.
fn advance(packet: &mut Packet, l3: usize, routing: Routing, flavours: Flavours) -> Result<(), DropReason> {
    let bytes = packet.data_mut().get_mut(l3..).ok_or(DropReason::TunnelHeader)?;
    let (outer, rest) = ipv6::Header::mut_from_prefix(bytes).map_err(|_| DropReason::TunnelHeader)?;
    let from = routing.at - ipv6::HEADER_LEN;
    let header = rest.get_mut(from..from + routing.len).ok_or(DropReason::TunnelHeader)?;
    let (fixed, lists) = header.split_first_chunk_mut::<LEN>().ok_or(DropReason::TunnelHeader)?;
    let &mut [_, units, _, ref mut left, last, ..] = fixed;
    // S05. Who sends ICMPv6 errors is the control side.
    if outer.hop_limit <= 1 {
        return Err(DropReason::TtlExpired);
    }
    // S08, S09: the last entry is in the list, and no more segments are left than a reduced header, which lacks the first, has.
    if usize::from(last) >= usize::from(units) / 2 || *left > last.saturating_add(1) {
        return Err(DropReason::TunnelHeader);
    }
    let next = usize::from(*left).saturating_sub(1) * SEGMENT_LEN;
    let segment = lists.get(next..).and_then(|list| list.first_chunk()).ok_or(DropReason::TunnelHeader)?;
    // S12 to S14.
    outer.hop_limit -= 1;
    outer.dst = *segment;
    *left -= 1;
    if *left == 0 && flavours.psp {
        remove(packet, l3, routing);
    }
    Ok(())
}

/// Takes a header out of the chain; what is in front of it moves.
fn remove(packet: &mut Packet, l3: usize, Routing { at, named_at, len }: Routing) {
    let bytes = packet.data_mut();
    debug_assert!(named_at < at && l3 + at + len <= bytes.len(), "the walk passed it");
    bytes[l3 + named_at] = bytes[l3 + at];
    if let Ok((outer, _)) = ipv6::Header::mut_from_prefix(&mut bytes[l3..]) {
        outer.payload_len.set(outer.payload_len.get() - len as u16);
    }
    bytes.copy_within(..l3 + at, len);
    let popped = packet.pop_front(len);
    debug_assert!(popped, "a packet is longer than a header in it");
    if packet.l4 != NONE {
        packet.l4 -= len as u16;
    }
}
