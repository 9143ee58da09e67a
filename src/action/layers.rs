//! Where a packet's headers are, for the leaves: offsets in, checked views out.
//!
//! Offsets are believed only as far as the bytes agree: the EtherType in front of the network header, its version nibble, its
//! protocol field. A leaf that finds another header than it is for does nothing, and none reads or writes outside the packet.

use crate::packet::buffer::NONE;
use crate::packet::{Packet, PacketFlags};
use crate::wire::{ethernet, ip, ipv4, ipv6, tcp, udp};
use zerocopy::FromBytes;

/// `offset` after `n` bytes were pushed before it. [`NONE`] stays, and so becomes what no longer fits.
#[inline(always)]
pub(super) const fn raised(offset: u16, n: u16) -> u16 {
    offset.saturating_add(n)
}

/// `offset` after `n` bytes before it went. [`NONE`] stays, and so becomes what was among those bytes.
#[inline(always)]
pub(super) const fn lowered(offset: u16, n: u16) -> u16 {
    if offset == NONE || offset < n { NONE } else { offset - n }
}

/// The 16-bit number at `at`.
#[inline(always)]
pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// The EtherType of what is at `packet.l3`; 0 when there is no network header, or a label stack is in front of it.
#[inline(always)]
pub(super) fn ethertype(packet: &Packet) -> u16 {
    if packet.l2_5 != NONE || packet.l3 == NONE {
        0
    } else if packet.l3 >= ethernet::HEADER_LEN as u16 {
        u16_at(packet.data(), packet.l3 as usize - 2).unwrap_or(0)
    } else if packet.flags.contains(PacketFlags::LAYER3) && packet.l3 == 0 {
        packet.l3_type
    } else {
        0
    }
}

/// The IPv4 header, with everything behind it up to the packet's end; `None` if there is none or it is malformed.
#[inline(always)]
pub(super) fn ipv4_mut(packet: &mut Packet) -> Option<(&mut ipv4::Header, &mut [u8])> {
    if ethertype(packet) != ethernet::IPV4 {
        return None;
    }
    let l3 = packet.l3 as usize;
    let (header, rest) = ipv4::Header::mut_from_prefix(packet.data_mut().get_mut(l3..)?).ok()?;
    (header.version_ihl & 0xf0 == 0x40 && header.header_len() >= ipv4::HEADER_LEN).then_some((header, rest))
}

/// The bytes from the IPv6 header to the end of its payload; `None` if there is none or it is malformed.
#[inline(always)]
pub(super) fn ipv6_mut(packet: &mut Packet) -> Option<&mut [u8]> {
    if ethertype(packet) != ethernet::IPV6 {
        return None;
    }
    let l3 = packet.l3 as usize;
    let bytes = packet.data_mut().get_mut(l3..)?;
    let (header, rest) = ipv6::Header::ref_from_prefix(bytes).ok()?;
    let len = usize::from(header.payload_len.get());
    (header.version_class_label.get() >> 28 == 6 && len <= rest.len()).then_some(())?;
    bytes.get_mut(..ipv6::HEADER_LEN + len)
}

/// A packet's transport header and data.
pub(super) struct Segment<'p> {
    /// IP protocol.
    pub proto: u8,
    /// It is in an IPv6 packet.
    pub v6: bool,
    /// From the first byte of the transport header to the end of the IP packet: padding behind it is left out.
    pub bytes: &'p mut [u8],
}

/// The transport segment at `packet.l4`; `None` for later fragments, truncated headers and what is not IP.
#[inline(always)]
pub(super) fn segment(packet: &mut Packet) -> Option<Segment<'_>> {
    let (l3, l4) = (packet.l3 as usize, packet.l4 as usize);
    if packet.l4 == NONE || l4 < l3 {
        return None;
    }
    match ethertype(packet) {
        ethernet::IPV4 => {
            let (header, _) = ipv4_mut(packet)?;
            let (proto, end) = (header.proto, l3 + usize::from(header.total_len.get()));
            (!header.is_later_fragment() && l4 - l3 == header.header_len()).then_some(())?;
            let bytes = packet.data_mut().get_mut(l4..end)?;
            Some(Segment { proto, v6: false, bytes })
        }
        ethernet::IPV6 => {
            let bytes = ipv6_mut(packet)?;
            // Byte 6 is the next header, and nearly always there is no extension.
            let proto = if l4 - l3 == ipv6::HEADER_LEN && !is_extension(bytes[6]) {
                bytes[6]
            } else {
                let upper = ipv6::walk(bytes)?;
                (!upper.is_later_fragment && upper.at == l4 - l3).then_some(upper.proto)?
            };
            Some(Segment { proto, v6: true, bytes: bytes.get_mut(l4 - l3..)? })
        }
        _ => None,
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, ip::HOP_BY_HOP | ip::ROUTING | ip::FRAGMENT | ip::AH | ip::DESTINATION_OPTIONS)
}

/// Where the checksum that covers a pseudo-header is in a segment of `proto` and `len` bytes; `None` if there is none.
#[inline(always)]
pub(super) fn pseudo_checksum_at(proto: u8, v6: bool, len: usize) -> Option<usize> {
    match proto {
        ip::TCP if len >= tcp::HEADER_LEN => Some(tcp::CHECKSUM_AT),
        ip::UDP | ip::UDP_LITE if len >= udp::HEADER_LEN => Some(udp::CHECKSUM_AT),
        ip::ICMPV6 if v6 && len >= crate::wire::icmpv6::HEADER_LEN => Some(crate::wire::icmpv6::CHECKSUM_AT),
        _ => None,
    }
}

/// Changes the checksum at `at` of a segment of `proto` by `delta`; UDP without a checksum stays without.
#[inline(always)]
pub(super) fn adjust(segment: &mut [u8], at: usize, proto: u8, delta: crate::wire::checksum::Delta) {
    if let Some(field) = segment.get_mut(at..).and_then(|s| s.first_chunk_mut::<2>()) {
        let old = u16::from_be_bytes(*field);
        // UDP-Lite (RFC 3828 §3.1) sends a computed 0 as 0xffff too, and 0 is no legal value there.
        let new = if proto == ip::UDP || proto == ip::UDP_LITE { delta.apply_udp(old) } else { delta.apply(old) };
        *field = new.to_be_bytes();
    }
}
