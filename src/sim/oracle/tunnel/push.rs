//! Outer headers on.

use super::{Headers, find_ip, gre, is_over_udp, pseudo};
use crate::sim::oracle::parcel::{Marks, Parcel};
use crate::testing::checksums::naive;
use crate::tunnel::Kind;
use crate::tunnel::template::FlowLabel;

/// Puts the headers in front, with lengths, checksums and what else differs from packet to packet: a source port, or a flow label, by
/// `hash`, and the identifier `id` if one is given. All metadata begins anew, as a packet's of `out_port`.
pub fn push(parcel: &mut Parcel, headers: &Headers, id: Option<u32>, hash: u32, out_port: u32) {
    let (ip, kind) = find_ip(&headers.bytes, None).expect("headers that were taken have an IP header");
    let is_v6 = kind == 0x86dd;
    let behind_ip = ip + if is_v6 { 40 + len_of_options(&headers.bytes[ip..]) } else { 20 };
    let own = behind_ip + if is_over_udp(headers.kind) { 8 } else { 0 };
    let mut bytes = headers.bytes.clone();
    bytes.extend(&parcel.bytes);

    if let Some(id) = id {
        set_id(&mut bytes[own..], headers.kind, id);
    }
    let inherited = Inherited::of(parcel);
    let len = bytes.len() - ip;
    if is_v6 {
        ipv6(&mut bytes[ip..], headers, inherited, hash, len - 40);
    } else {
        ipv4(&mut bytes[ip..behind_ip], headers, inherited, len);
    }
    if is_over_udp(headers.kind) {
        let addresses = if is_v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let addresses = bytes[addresses].to_vec();
        let (first, last) = headers.source_ports;
        let ports = u64::from(last - first) + 1;
        let port = first + ((u64::from(hash) * ports) >> 32) as u16;
        let has_checksum = headers.bytes[behind_ip + 6..behind_ip + 8] != [0, 0];
        udp(&mut bytes[behind_ip..], port, has_checksum, is_v6, &addresses);
    } else {
        gre_checksum(&mut bytes[behind_ip..]);
    }
    parcel.bytes = bytes;
    parcel.layer3 = None;
    parcel.checksums_are_good = false;
    parcel.marks = Marks { labels: None, network: Some((ip, kind)), transport: Some(behind_ip) };
    forget(parcel, out_port);
}

/// The packet is one of `port`, and nothing else is known about it.
pub(super) fn forget(parcel: &mut Parcel, port: u32) {
    (parcel.in_port, parcel.recirc_id, parcel.dp_hash) = (port, 0, 0);
    (parcel.skb_mark, parcel.skb_priority) = (0, 0);
    (parcel.ct_state, parcel.ct_zone, parcel.ct_mark) = (0, 0, 0);
    parcel.tunnel = None;
}

/// Length of the hop-by-hop and destination options behind an IPv6 header.
fn len_of_options(ip: &[u8]) -> usize {
    let (mut next, mut at) = (ip[6], 40);
    while matches!(next, 0 | 60) {
        (next, at) = (ip[at], at + (usize::from(ip[at + 1]) + 1) * 8);
    }
    at - 40
}

fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// RFC 7348 §5, RFC 8926 §3.4: 24 bits. RFC 2890 §2.1: 32 bits, if there is a key.
fn set_id(own: &mut [u8], kind: Kind, id: u32) {
    match kind {
        Kind::Vxlan | Kind::Geneve => own[4..7].copy_from_slice(&id.to_be_bytes()[1..]),
        _ => {
            let flags = u16::from_be_bytes([own[0], own[1]]);
            let at = if flags & gre::CHECKSUM != 0 { 8 } else { 4 };
            if flags & gre::KEY != 0 {
                own[at..at + 4].copy_from_slice(&id.to_be_bytes());
            }
        }
    }
}

/// What an inner IP header has for the outer one.
struct Inherited {
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    label: u32,
}

impl Inherited {
    fn of(parcel: &Parcel) -> Option<Inherited> {
        let header = |at: usize, len: usize| parcel.bytes.get(at..at + len);
        if let Some(h) = parcel.network(0x0800).and_then(|at| header(at, 20)) {
            return Some(Inherited { tos: h[1], ttl: h[8], dont_fragment: h[6] & 0x40 != 0, label: 0 });
        }
        let h = header(parcel.network(0x86dd)?, 40)?;
        let label = u32::from_be_bytes([0, h[1] & 15, h[2], h[3]]);
        Some(Inherited { tos: h[0] << 4 | h[1] >> 4, ttl: h[7], dont_fragment: true, label })
    }

    /// The code point, and the congestion mark (RFC 6040 §4.1, normal mode).
    fn tos(&self, headers: &Headers, fixed: u8) -> u8 {
        let dscp = if headers.inherit.dscp { self.tos } else { fixed };
        let mark = if headers.inherit.ecn { self.tos } else { fixed };
        dscp & 0xfc | mark & 3
    }
}

fn ipv4(ip: &mut [u8], headers: &Headers, inherited: Option<Inherited>, len: usize) {
    put(ip, 2, len);
    if let Some(inherited) = inherited {
        ip[1] = inherited.tos(headers, ip[1]);
        if headers.inherit.ttl {
            ip[8] = inherited.ttl;
        }
        if headers.inherit.df {
            ip[6] = ip[6] & !0x40 | if inherited.dont_fragment { 0x40 } else { 0 };
        }
    }
    put(ip, 10, 0);
    let sum = naive(ip);
    put(ip, 10, sum.into());
}

fn ipv6(ip: &mut [u8], headers: &Headers, inherited: Option<Inherited>, hash: u32, len: usize) {
    put(ip, 4, len);
    let first = u32::from_be_bytes([ip[0], ip[1], ip[2], ip[3]]);
    let label = match headers.label {
        FlowLabel::Fixed => first,
        FlowLabel::Inner => inherited.as_ref().map_or(0, |inherited| inherited.label),
        // RFC 6438 §3.
        FlowLabel::Hash => hash,
    };
    let mut class = (first >> 20) as u8;
    if let Some(inherited) = inherited {
        class = inherited.tos(headers, class);
        if headers.inherit.ttl {
            ip[7] = inherited.ttl;
        }
    }
    let first = 6 << 28 | u32::from(class) << 20 | label & 0xf_ffff;
    ip[..4].copy_from_slice(&first.to_be_bytes());
}

fn udp(datagram: &mut [u8], port: u16, has_checksum: bool, is_v6: bool, addresses: &[u8]) {
    let len = datagram.len();
    put(datagram, 0, port.into());
    put(datagram, 4, len);
    put(datagram, 6, 0);
    if has_checksum {
        let sum = naive(&pseudo(is_v6, addresses, datagram));
        // RFC 768: 0 says that there is none.
        put(datagram, 6, if sum == 0 { 0xffff } else { sum.into() });
    }
}

/// RFC 2784 §2.5: over header and payload, with the field taken as 0.
fn gre_checksum(packet: &mut [u8]) {
    let flags = u16::from_be_bytes([packet[0], packet[1]]);
    assert_eq!(flags & gre::SEQUENCE, 0, "no scenario pushes sequence numbers");
    if flags & gre::CHECKSUM != 0 {
        put(packet, 4, 0);
        let sum = naive(packet);
        put(packet, 4, sum.into());
    }
}
