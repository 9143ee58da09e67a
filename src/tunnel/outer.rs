//! The outer IP and UDP headers of a packet that a tunnel brought.

use super::contract::{Carrier, Options};
use crate::flow::key::{Line, TUNNEL_CSUM, TunnelLine};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::{checksum, ethernet, ip, ipv4, ipv6, udp};
use zerocopy::byteorder::network_endian::U64;
use zerocopy::{FromBytes, FromZeros};

/// Where the tunnel's own header begins, and where what the carrier carries ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outer {
    pub at: usize,
    pub end: usize,
}

/// Checks the outer headers of `packet`, at the offsets that extraction found, and writes what they say to `tunnel`.
#[inline(always)]
pub(super) fn check(
    packet: &Packet,
    tunnel: &mut TunnelLine,
    carrier: Carrier,
    options: &Options,
) -> Result<Outer, DropReason> {
    if carrier == Carrier::Udp
        && let Some(outer) = check_usual(packet, tunnel)
    {
        return Ok(outer);
    }
    check_any(packet, tunnel, carrier, options)
}

/// As [`check_any`], of an untagged IPv4 header without options and a UDP header without checksum; `None` if they are something else or
/// not right.
#[inline(always)]
pub(super) fn check_usual(packet: &Packet, tunnel: &mut TunnelLine) -> Option<Outer> {
    const L3: usize = ethernet::HEADER_LEN;
    const L4: usize = L3 + ipv4::HEADER_LEN;
    const AT: usize = L4 + udp::HEADER_LEN;
    let bytes = packet.data();
    let h: &[u8; AT] = bytes.first_chunk()?;
    let (total, len) =
        (usize::from(u16::from_be_bytes([h[16], h[17]])), usize::from(u16::from_be_bytes([h[38], h[39]])));
    let is_usual = (packet.l3, packet.l4) == (L3 as u16, L4 as u16)
        && h[14] == 0x45
        && [h[20] & 0x3f, h[21]] == [0; 2]
        && h[23] == ip::UDP
        && [h[40], h[41]] == [0; 2]
        && (udp::HEADER_LEN..=total.wrapping_sub(ipv4::HEADER_LEN)).contains(&len)
        && total <= bytes.len() - L3;
    if !is_usual
        || !packet.flags.contains(PacketFlags::CHECKSUM_GOOD) && !checksum::is_right_v4(h[L3..L4].first_chunk()?)
    {
        return None;
    }
    write_usual(h, tunnel);
    Some(Outer { at: AT, end: L4 + len })
}

/// What the headers that [`check_usual`] finds right say.
#[inline(always)]
pub(super) fn write_usual(h: &[u8; 42], tunnel: &mut TunnelLine) {
    let addresses = [h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33]];
    let ports = [h[34], h[35], h[36], h[37]];
    let line: &mut Line = zerocopy::transmute_mut!(tunnel);
    *line = [0, u64::from_ne_bytes(addresses), 0, 0, 0, 0, word_of(h[15], h[22], ports), 0];
}

/// The seventh word of a tunnel line: TOS, TTL, no flags yet, and both ports.
#[inline(always)]
fn word_of(tos: u8, ttl: u8, ports: [u8; 4]) -> u64 {
    let (low, high) = (u16::from_ne_bytes([tos, ttl]), u32::from_ne_bytes(ports));
    if cfg!(target_endian = "little") {
        u64::from(low) | u64::from(high) << 32
    } else {
        u64::from(low) << 48 | u64::from(high)
    }
}

#[inline(never)]
fn check_any(
    packet: &Packet,
    tunnel: &mut TunnelLine,
    carrier: Carrier,
    options: &Options,
) -> Result<Outer, DropReason> {
    let (l3, l4) = (packet.l3 as usize, packet.l4 as usize);
    if packet.l4 == NONE || l4 <= l3 {
        return Err(DropReason::TunnelHeader);
    }
    let bytes = packet.data();
    let header = bytes.get(l3..l4).ok_or(DropReason::TunnelHeader)?;
    let is_v6 = match header[0] >> 4 {
        4 => false,
        6 => true,
        _ => return Err(DropReason::TunnelHeader),
    };
    let len = match (is_v6, carrier.proto()) {
        (true, proto) => check_v6(header, tunnel, proto)?,
        (false, Some(proto)) => check_v4(packet, header, tunnel, proto)?,
        (false, None) => return Err(DropReason::TunnelHeader),
    };
    let end = l3 + len;
    let segment = bytes.get(l4..end).ok_or(DropReason::TunnelHeader)?;
    match carrier {
        Carrier::Ip(_) => Ok(Outer { at: l4, end }),
        Carrier::Ipv6 => Ok(Outer { at: l3, end }),
        Carrier::Udp => {
            let (header, _) = udp::Header::ref_from_prefix(segment).map_err(|_| DropReason::TunnelHeader)?;
            let len = usize::from(header.len.get());
            if len < udp::HEADER_LEN || len > segment.len() {
                return Err(DropReason::TunnelHeader);
            }
            (tunnel.tp_src, tunnel.tp_dst) = (header.src, header.dst);
            if header.checksum.get() != 0 {
                tunnel.flags |= TUNNEL_CSUM;
                if !packet.flags.contains(PacketFlags::CHECKSUM_GOOD) {
                    verify(tunnel, is_v6, &segment[..len])?;
                }
            } else if is_v6 && !options.zero_checksum6 {
                return Err(DropReason::TunnelChecksum);
            }
            Ok(Outer { at: l4 + udp::HEADER_LEN, end: l4 + len })
        }
    }
}

/// A line of zeros but for what every packet of a version has.
#[inline(always)]
fn blank(tos: u8, ttl: u8) -> TunnelLine {
    TunnelLine { id: U64::ZERO, tos, ttl, ..TunnelLine::new_zeroed() }
}

/// Returns the length of the IP packet.
#[inline(always)]
fn check_v4(packet: &Packet, bytes: &[u8], tunnel: &mut TunnelLine, proto: u8) -> Result<usize, DropReason> {
    let (header, _) = ipv4::Header::ref_from_prefix(bytes).map_err(|_| DropReason::TunnelHeader)?;
    if header.header_len() != bytes.len() || header.proto != proto {
        return Err(DropReason::TunnelHeader);
    }
    if header.is_fragment() {
        return Err(DropReason::TunnelFragment);
    }
    if !packet.flags.contains(PacketFlags::CHECKSUM_GOOD) && checksum::of(bytes) != 0 {
        return Err(DropReason::TunnelChecksum);
    }
    *tunnel = TunnelLine { ipv4_src: header.src, ipv4_dst: header.dst, ..blank(header.tos, header.ttl) };
    Ok(usize::from(header.total_len.get()))
}

/// Returns the length of the IP packet. Without `proto` the extension headers are the tunnel's to check.
#[inline(never)]
pub(super) fn check_v6(bytes: &[u8], tunnel: &mut TunnelLine, proto: Option<u8>) -> Result<usize, DropReason> {
    let (header, _) = ipv6::Header::ref_from_prefix(bytes).map_err(|_| DropReason::TunnelHeader)?;
    if let Some(proto) = proto {
        check_extensions(&bytes[ipv6::HEADER_LEN..], header.next_header, proto)?;
    }
    let class = (header.version_class_label.get() >> 20) as u8;
    *tunnel = TunnelLine { ipv6_src: header.src, ipv6_dst: header.dst, ..blank(class, header.hop_limit) };
    Ok(ipv6::HEADER_LEN + usize::from(header.payload_len.get()))
}

/// Walks the extension headers in `bytes`, at whose end `proto` must follow.
fn check_extensions(mut bytes: &[u8], mut next: u8, proto: u8) -> Result<(), DropReason> {
    while let Some(&[following, len]) = bytes.first_chunk() {
        let len = match next {
            ip::FRAGMENT => return Err(DropReason::TunnelFragment),
            ip::AH => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        next = following;
        bytes = bytes.get(len..).ok_or(DropReason::TunnelHeader)?;
    }
    if next == proto { Ok(()) } else { Err(DropReason::TunnelHeader) }
}

/// Verifies a UDP checksum.
#[inline(never)]
fn verify(tunnel: &TunnelLine, is_v6: bool, segment: &[u8]) -> Result<(), DropReason> {
    let len = segment.len();
    let pseudo = if is_v6 {
        checksum::pseudo_v6(&tunnel.ipv6_src, &tunnel.ipv6_dst, ip::UDP, len as u32)
    } else {
        checksum::pseudo_v4(tunnel.ipv4_src, tunnel.ipv4_dst, ip::UDP, len as u16)
    };
    if pseudo.bytes(segment).finish() == 0 { Ok(()) } else { Err(DropReason::TunnelChecksum) }
}
