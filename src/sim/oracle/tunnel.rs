//! VXLAN and Geneve, on and off: from the RFCs, with every length and checksum computed from scratch.

use zerocopy::byteorder::network_endian::{U16, U64};

use super::encap::Done;
use super::parcel::{Marks, Parcel};
use crate::flow::FlowKey;
use crate::flow::action::TunnelPush;
use crate::flow::key::{TUNNEL_CSUM, TUNNEL_GBP, TUNNEL_GENEVE, TUNNEL_KEY, TUNNEL_OAM, TunnelLine};
use crate::packet::DropReason;
use crate::packet::buffer::PACKET_LEN_MAX;
use crate::testing::checksums::naive;
use crate::tunnel::{Kind, Options, Tunnel};

/// Source ports, and how many there are.
const PORTS: (u16, u64) = (32_768, 28_232);

/// Where the IP header of `bytes` is, behind a link layer with up to two tags, and its EtherType.
fn find_ip(bytes: &[u8], layer3: Option<u16>) -> Option<(usize, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut at = if layer3.is_some() { 0 } else { 14 };
    let mut kind = layer3.or_else(|| word(12))?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            (kind, at) = (word(at + 2)?, at + 4);
        }
    }
    matches!(kind, 0x0800 | 0x86dd).then_some((at, kind))
}

/// RFC 768 and RFC 8200 §8.1: what a UDP checksum is computed over.
fn pseudo(is_v6: bool, addresses: &[u8], segment: &[u8]) -> Vec<u8> {
    let mut all = addresses.to_vec();
    if is_v6 {
        all.extend((segment.len() as u32).to_be_bytes());
        all.extend([0, 0, 0, 17]);
    } else {
        all.extend([0, 17]);
        all.extend((segment.len() as u16).to_be_bytes());
    }
    all.extend(segment);
    all
}

/// Puts the headers in front, with lengths, checksums and a source port by `hash`. All metadata begins anew, as a packet's of `out_port`.
///
/// # Errors
/// The packet would be too long.
pub fn push(parcel: &mut Parcel, push: &TunnelPush, hash: u32) -> Done {
    let (ip, kind) = find_ip(&push.header, None).expect("headers that were taken have an IP header");
    let is_v6 = kind == 0x86dd;
    let udp = ip + if is_v6 { 40 } else { 20 };
    let mut bytes = push.header.clone();
    bytes.extend(&parcel.bytes);
    if bytes.len() > PACKET_LEN_MAX {
        return Err(DropReason::TxTooLong);
    }
    let mut put = |at: usize, value: usize| bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
    let end = push.header.len() + parcel.bytes.len();
    put(udp, usize::from(PORTS.0) + (u64::from(hash) * PORTS.1 >> 32) as usize);
    put(udp + 4, end - udp);
    put(udp + 6, 0);
    if is_v6 {
        put(ip + 4, end - udp);
    } else {
        put(ip + 2, end - ip);
        put(ip + 10, 0);
        let sum = naive(&bytes[ip..udp]);
        bytes[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
    // A checksum is asked for by one that is not zero.
    if push.header[udp + 6..udp + 8] != [0, 0] {
        let addresses = if is_v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let sum = naive(&pseudo(is_v6, &bytes[addresses], &bytes[udp..]));
        let sum = if sum == 0 { 0xffff } else { sum };
        bytes[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    }
    parcel.bytes = bytes;
    parcel.layer3 = None;
    parcel.marks = Marks { labels: None, network: Some((ip, kind)), transport: Some(udp) };
    forget(parcel, push.out_port);
    Ok(())
}

/// The packet is one of `port`, and nothing else is known about it.
fn forget(parcel: &mut Parcel, port: u32) {
    (parcel.in_port, parcel.recirc_id, parcel.dp_hash) = (port, 0, 0);
    (parcel.skb_mark, parcel.skb_priority) = (0, 0);
    (parcel.ct_state, parcel.ct_zone, parcel.ct_mark) = (0, 0, 0);
    parcel.tunnel = None;
}

/// Takes the outer headers off. What they said is the inner packet's tunnel metadata, and all else that is known of it is its port.
///
/// # Errors
/// Why the packet is dropped.
pub fn pop(parcel: &mut Parcel, tunnel: &Tunnel, port: u32) -> Done {
    let Outer { mut line, at, end } = outer(parcel, &tunnel.options)?;
    let header = &parcel.bytes[at..end];
    let (len, layer3, options) = match tunnel.kind {
        Kind::Vxlan => vxlan(header, &tunnel.options, &mut line)?,
        Kind::Geneve => geneve(header, &tunnel.options, &mut line)?,
        kind => unreachable!("no scenario has tunnels of {kind:?}"),
    };
    let mut inner = parcel.bytes[at + len..end].to_vec();
    if tunnel.options.ecn {
        carry_mark(&mut inner, layer3, line.tos & 3)?;
    }
    forget(parcel, port);
    (parcel.bytes, parcel.layer3, parcel.marks) = (inner, layer3, Marks::default());
    parcel.tunnel = Some((line, options));
    parcel.five_tuple = None;
    Ok(())
}

/// The outer IP and UDP headers: what they say, where the tunnel's own header begins, and where the datagram ends.
struct Outer {
    line: TunnelLine,
    at: usize,
    end: usize,
}

fn outer(parcel: &Parcel, options: &Options) -> Result<Outer, DropReason> {
    use DropReason::{TunnelChecksum, TunnelFragment, TunnelHeader};
    let (Some((ip, kind)), Some(udp), None) = (parcel.marks.network, parcel.marks.transport, parcel.marks.labels)
    else {
        return Err(TunnelHeader);
    };
    let bytes = &parcel.bytes;
    let u16_at = |at: usize| parcel.u16_at(at).ok_or(TunnelHeader);
    let mut line = FlowKey::default().tunnel;
    let is_v6 = kind == 0x86dd;
    let (end, addresses) = match kind {
        0x0800 => {
            if bytes[ip + 9] != 17 {
                return Err(TunnelHeader);
            }
            if u16_at(ip + 6)? & 0x3fff != 0 {
                return Err(TunnelFragment);
            }
            if naive(&bytes[ip..udp]) != 0 {
                return Err(TunnelChecksum);
            }
            (line.tos, line.ttl) = (bytes[ip + 1], bytes[ip + 8]);
            line.ipv4_src.copy_from_slice(&bytes[ip + 12..ip + 16]);
            line.ipv4_dst.copy_from_slice(&bytes[ip + 16..ip + 20]);
            (ip + usize::from(u16_at(ip + 2)?), ip + 12..ip + 20)
        }
        0x86dd => {
            // A fragment header is refused even where it is all of the packet (RFC 6946).
            let mut next = bytes[ip + 6];
            let mut at = ip + 40;
            while at < udp {
                let units = usize::from(bytes[at + 1]);
                match next {
                    44 => return Err(TunnelFragment),
                    51 => (next, at) = (bytes[at], at + (units + 2) * 4),
                    _ => (next, at) = (bytes[at], at + (units + 1) * 8),
                }
            }
            if next != 17 {
                return Err(TunnelHeader);
            }
            line.tos = bytes[ip] << 4 | bytes[ip + 1] >> 4;
            line.ttl = bytes[ip + 7];
            line.ipv6_src.copy_from_slice(&bytes[ip + 8..ip + 24]);
            line.ipv6_dst.copy_from_slice(&bytes[ip + 24..ip + 40]);
            (ip + 40 + usize::from(u16_at(ip + 4)?), ip + 8..ip + 40)
        }
        _ => return Err(TunnelHeader),
    };
    // What `trunc` cut off was there when the packet was looked at.
    let segment = bytes.get(udp..end).ok_or(TunnelHeader)?;
    if segment.len() < 8 {
        return Err(TunnelHeader);
    }
    let len = usize::from(u16_at(udp + 4)?);
    if !(8..=segment.len()).contains(&len) {
        return Err(TunnelHeader);
    }
    line.tp_src = U16::new(u16_at(udp)?);
    line.tp_dst = U16::new(u16_at(udp + 2)?);
    if u16_at(udp + 6)? != 0 {
        line.flags |= TUNNEL_CSUM;
        if naive(&pseudo(is_v6, &bytes[addresses], &segment[..len])) != 0 {
            return Err(TunnelChecksum);
        }
    } else if is_v6 && !options.zero_checksum6 {
        return Err(TunnelChecksum);
    }
    Ok(Outer { line, at: udp + 8, end: udp + len })
}

/// Length, EtherType of an inner packet without link layer, Geneve options.
type Own = (usize, Option<u16>, Vec<u8>);

/// RFC 7348 §5, with the group policy of draft-smith-vxlan-group-policy and the next protocol of draft-ietf-nvo3-vxlan-gpe where they are
/// in use. Any other bit of the flags, and of the last byte, must be 0.
fn vxlan(header: &[u8], options: &Options, line: &mut TunnelLine) -> Result<Own, DropReason> {
    let header = header.get(..8).ok_or(DropReason::TunnelHeader)?;
    let has = |bit: u8| header[0] & bit != 0;
    let mut layer3 = None;
    let expected = if options.gpe && has(0x04) {
        layer3 = match header[3] {
            1 => Some(0x0800),
            2 => Some(0x86dd),
            3 => None,
            4 => Some(0x894f),
            5 => Some(0x8847),
            _ => return Err(DropReason::TunnelHeader),
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
        return Err(DropReason::TunnelHeader);
    }
    line.flags |= TUNNEL_KEY;
    line.id = U64::new(u64::from(u32::from_be_bytes([0, header[4], header[5], header[6]])));
    Ok((8, layer3, Vec::new()))
}

/// RFC 8926 §3.4 and §3.5. Reserved bits are ignored.
fn geneve(header: &[u8], known: &Options, line: &mut TunnelLine) -> Result<Own, DropReason> {
    let fixed = header.get(..8).ok_or(DropReason::TunnelHeader)?;
    if fixed[0] >> 6 != 0 {
        return Err(DropReason::TunnelHeader);
    }
    let len = usize::from(fixed[0] & 0x3f) * 4;
    let mut options = header.get(8..8 + len).ok_or(DropReason::TunnelHeader)?.to_vec();
    let mut at = 0;
    while at < len {
        // The upper bits of the length are reserved, and no part of the metadata.
        options[at + 3] &= 0x1f;
        let next = at + 4 + usize::from(options[at + 3]) * 4;
        if next > len {
            return Err(DropReason::TunnelHeader);
        }
        let (class, kind) = (u16::from_be_bytes([options[at], options[at + 1]]), options[at + 2]);
        if let Some(known) = &known.known_options
            && kind & 0x80 != 0
            && !known.contains(&(class, kind))
        {
            return Err(DropReason::TunnelOption);
        }
        at = next;
    }
    line.flags |= TUNNEL_KEY | if fixed[1] & 0x80 != 0 { TUNNEL_OAM } else { 0 };
    if len > 0 {
        line.flags |= TUNNEL_GENEVE;
        line.opts[0] = (len / 4) as u8;
    }
    line.id = U64::new(u64::from(u32::from_be_bytes([0, fixed[4], fixed[5], fixed[6]])));
    let ethertype = u16::from_be_bytes([fixed[2], fixed[3]]);
    Ok((8 + len, (ethertype != 0x6558).then_some(ethertype), options))
}

/// RFC 6040 §4.2: the outer mark of congestion goes into an inner IP header.
fn carry_mark(inner: &mut [u8], layer3: Option<u16>, outer: u8) -> Done {
    let Some((ip, kind)) = find_ip(inner, layer3) else { return Ok(()) };
    let Some(&[first, second]) = inner.get(ip..).and_then(|header| header.first_chunk()) else { return Ok(()) };
    let tos = if kind == 0x0800 { second } else { first << 4 | second >> 4 };
    // 0 is "not capable", 1 and 2 are "capable", 3 is "congestion experienced".
    let mark = match (tos & 3, outer) {
        (0, 3) => return Err(DropReason::TunnelEcn),
        (0, _) => 0,
        (2, 1) => 1,
        (inner, 3) if inner != 0 => 3,
        (inner, _) => inner,
    };
    let header = &mut inner[ip..];
    if kind == 0x86dd {
        if header.len() >= 40 {
            header[1] = header[1] & !0x30 | mark << 4;
        }
    } else if header.len() >= 20 && tos & 3 != mark {
        // A wrong checksum stays as wrong as it was.
        const ONES: u32 = 0xffff;
        let right = |header: &[u8]| u32::from(naive(&[&header[..10], &[0, 0], &header[12..20]].concat()));
        let error = u32::from(u16::from_be_bytes([header[10], header[11]])) + ONES - right(header);
        header[1] = header[1] & !3 | mark;
        let sum = ((right(header) + error) % ONES) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

/// The key of a packet as it looks when it is out of the tunnel; `None` if it does not come out.
pub fn key_inside(parcel: &Parcel, tunnel: &Tunnel, port: u32, vlan_depth: u8) -> Option<FlowKey> {
    let mut parcel = parcel.clone();
    parcel.look(vlan_depth)?;
    pop(&mut parcel, tunnel, port).ok()?;
    parcel.look(vlan_depth)
}
