//! Outer headers off.

use zerocopy::byteorder::network_endian::{U16, U64};

use super::push::forget;
use super::{Tunnel, find_ip, gre, is_over_udp, pseudo};
use crate::flow::FlowKey;
use crate::flow::key::{TUNNEL_CSUM, TUNNEL_GBP, TUNNEL_GENEVE, TUNNEL_KEY, TUNNEL_OAM, TunnelLine};
use crate::packet::DropReason;
use crate::packet::DropReason::{TunnelChecksum, TunnelEcn, TunnelFragment, TunnelHeader, TunnelOption};
use crate::sim::oracle::encap::Done;
use crate::sim::oracle::parcel::{Marks, Parcel};
use crate::testing::checksums::naive;
use crate::tunnel::{Kind, Options};

/// Takes the outer headers off. What they said is the inner packet's tunnel metadata, and all else that is known of it is its port.
///
/// # Errors
/// Why the packet is dropped.
pub fn pop(parcel: &mut Parcel, tunnel: &Tunnel, port: u32) -> Done {
    let Outer { mut line, at, end } = outer(parcel, tunnel)?;
    let header = &parcel.bytes[at..end];
    let Own { len, layer3, options } = match tunnel.kind {
        Kind::Vxlan => vxlan(header, &tunnel.options, &mut line)?,
        Kind::Geneve => geneve(header, &tunnel.options, &mut line)?,
        _ => gre(header, &mut line)?,
    };
    let mut inner = parcel.bytes[at + len..end].to_vec();
    if tunnel.options.ecn {
        carry_mark(&mut inner, layer3, line.tos & 3)?;
    }
    forget(parcel, port);
    (parcel.bytes, parcel.layer3, parcel.marks) = (inner, layer3, Marks::default());
    parcel.tunnel = Some((line, options));
    // What the receiver knew was of the outer packet.
    (parcel.five_tuple, parcel.checksums_are_good) = (None, false);
    Ok(())
}

/// The key of a packet as it looks when it is out of the tunnel; `None` if it does not come out.
pub fn key_inside(parcel: &Parcel, tunnel: &Tunnel, port: u32, vlan_depth: u8) -> Option<FlowKey> {
    let mut parcel = parcel.clone();
    parcel.look(vlan_depth)?;
    pop(&mut parcel, tunnel, port).ok()?;
    parcel.look(vlan_depth)
}

/// What the outer headers say, where the tunnel's own header begins, and where what carries it ends.
struct Outer {
    line: TunnelLine,
    at: usize,
    end: usize,
}

fn outer(parcel: &Parcel, tunnel: &Tunnel) -> Result<Outer, DropReason> {
    let (Some((ip, kind)), Some(behind), None) = (parcel.marks.network, parcel.marks.transport, parcel.marks.labels)
    else {
        return Err(TunnelHeader);
    };
    // `trunc` may have cut off what was there when the packet was looked at.
    let header = parcel.bytes.get(ip..behind).ok_or(TunnelHeader)?;
    let proto = if is_over_udp(tunnel.kind) { 17 } else { 47 };
    let is_v6 = kind == 0x86dd;
    let (mut line, len) = match kind {
        0x0800 => ipv4(header, proto, parcel.checksums_are_good)?,
        0x86dd => ipv6(header, proto)?,
        _ => return Err(TunnelHeader),
    };
    let segment = parcel.bytes.get(behind..ip + len).ok_or(TunnelHeader)?;
    if proto == 47 {
        return Ok(Outer { line, at: behind, end: ip + len });
    }
    let addresses = if is_v6 { &header[8..40] } else { &header[12..20] };
    let len = udp(segment, addresses, is_v6, parcel.checksums_are_good, &tunnel.options, &mut line)?;
    Ok(Outer { line, at: behind + 8, end: behind + len })
}

/// RFC 791; returns the packet's length too. VXLAN's ends must not fragment (RFC 7348 §4.3), and nobody joins fragments here.
fn ipv4(header: &[u8], proto: u8, is_checked: bool) -> Result<(TunnelLine, usize), DropReason> {
    if header[9] != proto {
        return Err(TunnelHeader);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(TunnelFragment);
    }
    if !is_checked && naive(header) != 0 {
        return Err(TunnelChecksum);
    }
    let mut line = FlowKey::default().tunnel;
    (line.tos, line.ttl) = (header[1], header[8]);
    line.ipv4_src.copy_from_slice(&header[12..16]);
    line.ipv4_dst.copy_from_slice(&header[16..20]);
    Ok((line, u16::from_be_bytes([header[2], header[3]]).into()))
}

/// RFC 8200; returns the packet's length too.
fn ipv6(header: &[u8], proto: u8) -> Result<(TunnelLine, usize), DropReason> {
    let (mut next, mut at) = (header[6], 40);
    while at < header.len() {
        let units = usize::from(header[at + 1]);
        let len = match next {
            // Also one that is all of a packet (RFC 6946).
            44 => return Err(TunnelFragment),
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        (next, at) = (header[at], at + len);
    }
    if next != proto {
        return Err(TunnelHeader);
    }
    let mut line = FlowKey::default().tunnel;
    (line.tos, line.ttl) = (header[0] << 4 | header[1] >> 4, header[7]);
    line.ipv6_src.copy_from_slice(&header[8..24]);
    line.ipv6_dst.copy_from_slice(&header[24..40]);
    Ok((line, 40 + usize::from(u16::from_be_bytes([header[4], header[5]]))))
}

/// RFC 768; returns the datagram's length. A zero checksum over IPv6: RFC 6935.
fn udp(
    segment: &[u8],
    addresses: &[u8],
    is_v6: bool,
    is_checked: bool,
    options: &Options,
    line: &mut TunnelLine,
) -> Result<usize, DropReason> {
    let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    if segment.len() < 8 {
        return Err(TunnelHeader);
    }
    let len = usize::from(word(4));
    if !(8..=segment.len()).contains(&len) {
        return Err(TunnelHeader);
    }
    (line.tp_src, line.tp_dst) = (U16::new(word(0)), U16::new(word(2)));
    if word(6) != 0 {
        line.flags |= TUNNEL_CSUM;
        if !is_checked && naive(&pseudo(is_v6, addresses, &segment[..len])) != 0 {
            return Err(TunnelChecksum);
        }
    } else if is_v6 && !options.zero_checksum6 {
        return Err(TunnelChecksum);
    }
    Ok(len)
}

/// What a kind's own header came to.
struct Own {
    len: usize,
    /// EtherType of an inner packet without link layer.
    layer3: Option<u16>,
    /// Geneve options.
    options: Vec<u8>,
}

/// RFC 7348 §5, with the group policy of draft-smith-vxlan-group-policy and the next protocol of draft-ietf-nvo3-vxlan-gpe where they are
/// in use. The RFC has any other bit ignored; here, as in Linux and Open vSwitch, it must be 0.
fn vxlan(header: &[u8], options: &Options, line: &mut TunnelLine) -> Result<Own, DropReason> {
    let header = header.get(..8).ok_or(TunnelHeader)?;
    let has = |bit: u8| header[0] & bit != 0;
    let mut layer3 = None;
    let expected = if options.gpe && has(0x04) {
        layer3 = match header[3] {
            1 => Some(0x0800),
            2 => Some(0x86dd),
            3 => None,
            4 => Some(0x894f),
            5 => Some(0x8847),
            _ => return Err(TunnelHeader),
        };
        [0x0c, 0, 0, header[3]]
    } else if options.gbp && has(0x80) {
        let policy = header[1] & 0x48;
        if [policy, header[2], header[3]] != [0; 3] {
            line.flags |= TUNNEL_GBP;
            line.opts = [header[2], header[3], policy, 0, 0, 0, 0, 0];
        }
        [0x88, policy, header[2], header[3]]
    } else {
        [0x08, 0, 0, 0]
    };
    if header[..4] != expected || header[7] != 0 {
        return Err(TunnelHeader);
    }
    line.flags |= TUNNEL_KEY;
    line.id = U64::new(u32::from_be_bytes([0, header[4], header[5], header[6]]).into());
    Ok(Own { len: 8, layer3, options: Vec::new() })
}

/// RFC 8926 §3.4 and §3.5. Reserved bits are ignored.
fn geneve(header: &[u8], known: &Options, line: &mut TunnelLine) -> Result<Own, DropReason> {
    let fixed = header.get(..8).ok_or(TunnelHeader)?;
    if fixed[0] >> 6 != 0 {
        return Err(TunnelHeader);
    }
    let len = usize::from(fixed[0] & 0x3f) * 4;
    let mut options = header.get(8..8 + len).ok_or(TunnelHeader)?.to_vec();
    let mut at = 0;
    while at < len {
        // The upper bits of the length are reserved, and no part of the metadata.
        options[at + 3] &= 0x1f;
        let next = at + 4 + usize::from(options[at + 3]) * 4;
        if next > len {
            return Err(TunnelHeader);
        }
        let (class, kind) = (u16::from_be_bytes([options[at], options[at + 1]]), options[at + 2]);
        if let Some(known) = &known.known_options
            && kind & 0x80 != 0
            && !known.contains(&(class, kind))
        {
            return Err(TunnelOption);
        }
        at = next;
    }
    line.flags |= TUNNEL_KEY | if fixed[1] & 0x80 != 0 { TUNNEL_OAM } else { 0 };
    if len > 0 {
        line.flags |= TUNNEL_GENEVE;
        line.opts[0] = (len / 4) as u8;
    }
    line.id = U64::new(u32::from_be_bytes([0, fixed[4], fixed[5], fixed[6]]).into());
    let ethertype = u16::from_be_bytes([fixed[2], fixed[3]]);
    Ok(Own { len: 8 + len, layer3: (ethertype != 0x6558).then_some(ethertype), options })
}

/// RFC 2784 §2.3 and §2.4, RFC 2890 §2. The order of sequence numbers is not looked at.
fn gre(packet: &[u8], line: &mut TunnelLine) -> Result<Own, DropReason> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (flags, ethertype) = word(0).zip(word(2)).ok_or(TunnelHeader)?;
    // Bits 1, 4 and 5, and the version.
    if flags & 0x4c07 != 0 {
        return Err(TunnelHeader);
    }
    let has = |flag: u16| flags & flag != 0;
    let (mut len, mut key_at) = (4, None);
    if has(gre::CHECKSUM) {
        len += 4;
    }
    if has(gre::KEY) {
        key_at = Some(len);
        len += 4;
    }
    if has(gre::SEQUENCE) {
        len += 4;
    }
    // Below 0x600 is no EtherType.
    if packet.len() < len || ethertype < 0x600 {
        return Err(TunnelHeader);
    }
    if has(gre::CHECKSUM) {
        if naive(packet) != 0 {
            return Err(TunnelChecksum);
        }
        line.flags |= TUNNEL_CSUM;
    }
    if let Some(at) = key_at {
        line.flags |= TUNNEL_KEY;
        line.id = U64::new(u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]).into());
    }
    Ok(Own { len, layer3: (ethertype != 0x6558).then_some(ethertype), options: Vec::new() })
}

/// RFC 6040 §4.2: the outer mark of congestion goes into an inner IP header.
fn carry_mark(inner: &mut [u8], layer3: Option<u16>, outer: u8) -> Done {
    let Some((ip, kind)) = find_ip(inner, layer3) else { return Ok(()) };
    let Some(&[first, second]) = inner.get(ip..).and_then(|header| header.first_chunk()) else { return Ok(()) };
    let tos = if kind == 0x0800 { second } else { first << 4 | second >> 4 };
    // 0 is "not capable", 1 and 2 are "capable", 3 is "congestion experienced".
    let mark = match (tos & 3, outer) {
        (0, 3) => return Err(TunnelEcn),
        (0, _) => 0,
        (2, 1) => 1,
        (_, 3) => 3,
        (inner, _) => inner,
    };
    let header = &mut inner[ip..];
    if tos & 3 == mark {
        return Ok(());
    }
    if kind == 0x86dd {
        if header.len() >= 40 {
            header[1] = header[1] & !0x30 | mark << 4;
        }
    } else if header.len() >= 20 {
        // A wrong checksum stays as wrong as it was.
        const ONES: u32 = 0xffff;
        let len = header.len().min(usize::from(header[0] & 15).max(5) * 4);
        let right = |header: &[u8]| u32::from(naive(&[&header[..10], &[0, 0], &header[12..len]].concat()));
        let error = u32::from(u16::from_be_bytes([header[10], header[11]])) + ONES - right(header);
        header[1] = header[1] & !3 | mark;
        let sum = ((right(header) + error) % ONES) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}
