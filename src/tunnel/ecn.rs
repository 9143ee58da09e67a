//! Explicit congestion notification between inner and outer header (RFC 6040).

use core::ops::Range;

use crate::packet::{DropReason, Packet};
use crate::wire::{checksum, ethernet, ipv4, ipv6, vlan};
use zerocopy::FromBytes;

/// The two bits of a TOS or traffic class.
pub const MASK: u8 = 3;
/// Not capable.
pub const NOT_ECT: u8 = 0;
/// Capable, ECT(1).
pub const ECT_1: u8 = 1;
/// Capable, ECT(0).
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

/// The inner mark after decapsulation (§4.2); `None` where the packet must be dropped: a mark of congestion that the inner transport
/// could not be told of.
#[inline(always)]
pub const fn inner(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) | (CE, _) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// The outer mark of a packet whose inner mark is `inner` (§4.1, normal mode): a copy.
#[inline(always)]
pub const fn outer(inner: u8) -> u8 {
    inner & MASK
}

/// Where the IP header of a packet is, and its EtherType: behind the Ethernet header and its tags.
#[inline(always)]
pub(super) fn find_ip(bytes: &[u8], layer3: Option<u16>) -> Option<(usize, u16)> {
    let (mut at, mut ethertype) = match layer3 {
        Some(ethertype) => (0, ethertype),
        None => (ethernet::HEADER_LEN, u16_at(bytes, 12)?),
    };
    let mut tags = 0;
    while ethernet::is_vlan(ethertype) && tags < 2 {
        ethertype = u16_at(bytes, at + 2)?;
        at += vlan::TAG_LEN;
        tags += 1;
    }
    (ethertype == ethernet::IPV4 || ethertype == ethernet::IPV6).then_some((at, ethertype))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// The TOS or traffic class of the IP header at `at`.
#[inline(always)]
pub(super) fn tos_at(bytes: &[u8], at: usize, ethertype: u16) -> Option<u8> {
    let [first, second] = *bytes.get(at..)?.first_chunk()?;
    Some(if ethertype == ethernet::IPV4 { second } else { first << 4 | second >> 4 })
}

/// Brings the outer mark `tos` into the inner packet, which is all of `inner` and nothing more.
///
/// # Errors
/// [`DropReason::TunnelEcn`], see [`inner`].
#[inline(always)]
pub(super) fn decapsulate(
    packet: &mut Packet,
    inner: Range<usize>,
    layer3: Option<u16>,
    tos: u8,
) -> Result<(), DropReason> {
    if changes(tos) { mark(packet, inner, layer3, tos) } else { Ok(()) }
}

/// True if the outer mark `tos` may change an inner one.
#[inline(always)]
const fn changes(tos: u8) -> bool {
    matches!(tos & MASK, CE | ECT_1)
}

#[inline(never)]
fn mark(packet: &mut Packet, within: Range<usize>, layer3: Option<u16>, outer: u8) -> Result<(), DropReason> {
    let Some(bytes) = packet.data_mut().get_mut(within) else { return Ok(()) };
    let Some((at, ethertype)) = find_ip(bytes, layer3) else { return Ok(()) };
    let Some(tos) = tos_at(bytes, at, ethertype) else { return Ok(()) };
    let new = inner(tos, outer).ok_or(DropReason::TunnelEcn)?;
    set(bytes, at, ethertype, new);
    Ok(())
}

/// Sets the mark of the IP header at `at`; an IPv4 checksum follows.
pub(super) fn set(bytes: &mut [u8], at: usize, ethertype: u16, mark: u8) {
    let Some(bytes) = bytes.get_mut(at..) else { return };
    if ethertype == ethernet::IPV4 {
        let Ok((header, _)) = ipv4::Header::mut_from_prefix(bytes) else { return };
        let old = u16::from_be_bytes([header.version_ihl, header.tos]);
        header.tos = header.tos & !MASK | mark;
        let new = u16::from_be_bytes([header.version_ihl, header.tos]);
        header.checksum.set(checksum::update16(header.checksum.get(), old, new));
    } else if let Ok((header, _)) = ipv6::Header::mut_from_prefix(bytes) {
        let word = header.version_class_label.get();
        header.version_class_label.set(word & !(u32::from(MASK) << 20) | u32::from(mark) << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040, figure 4: rows are inner marks, columns outer ones, both in the order Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn marks_are_those_of_the_table() {
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for (row, &i) in table.iter().zip(&order) {
            for (&expected, &o) in row.iter().zip(&order) {
                assert_eq!(inner(i, o), expected, "inner {i}, outer {o}");
            }
        }
    }
}
