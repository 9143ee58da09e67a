//! One of each kind and variant: outer headers, what they carry, and what must be known of them afterwards. The golden frames
//! (`tests/golden/tunnels`) are the same by their names, made elsewhere.

use super::*;
use crate::flow::key::{TUNNEL_ERSPAN, TUNNEL_GTPU};
use crate::packet::Packet;
use crate::tunnel::gtpu::Container;
use crate::wire::{ethernet, ip};

pub const V4: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
pub const V6: [[u8; 16]; 2] = [address(1), address(2)];

/// 2001:db8::`last`.
pub const fn address(last: u8) -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// The hash of the packets' flows: it gives the source port in the middle of all, and the flow label 0x01234.
pub const ENTROPY: u32 = 0x8000_1234;

/// The sequence number that packets of these tests get, and the time that it is.
pub const SEQUENCE: u32 = 7;
pub const NOW: Nanos = Nanos(12_345_678_900_000);

/// What a variant is.
pub struct Variant {
    pub name: String,
    pub kind: Kind,
    pub v6: bool,
    /// There is a checksum over what is inside: UDP's or GRE's.
    pub sum: bool,
    pub options: Options,
    /// The outer headers.
    pub header: Vec<u8>,
    /// What is known of them afterwards.
    pub line: TunnelLine,
    pub geneve: Vec<u8>,
    /// EtherType of the inner packet if that has no Ethernet header.
    pub layer3: Option<u16>,
}

impl Variant {
    pub fn template(&self) -> Template {
        Template::new(self.kind, &self.header).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// A packet for it to carry.
    pub fn inner(&self) -> Vec<u8> {
        inner(self.layer3)
    }

    /// The same behind the outer headers.
    pub fn wrapped(&self) -> Vec<u8> {
        push_from(&self.template(), &self.inner(), self.layer3)
    }

    /// Where the tunnel's own header begins.
    pub fn own_at(&self) -> usize {
        let ip = if self.v6 { 54 } else { 34 };
        match self.kind.carrier() {
            Carrier::Udp => ip + 8,
            Carrier::Ip(_) => ip,
            Carrier::Ipv6 => 14,
        }
    }
}

/// A packet that begins with a header of `layer3`, or with an Ethernet header.
pub fn inner(layer3: Option<u16>) -> Vec<u8> {
    match layer3 {
        None => Frame::udp4().payload(b"wye").build(),
        Some(ethernet::IPV4) => Frame::udp4().payload(b"wye").build().split_off(14),
        Some(_) => Frame::udp6().payload(b"wye").build().split_off(14),
    }
}

/// Pushes `template` in front of `inner`, which begins as `layer3` says.
pub fn push_from(template: &Template, inner: &[u8], layer3: Option<u16>) -> Vec<u8> {
    let pool = Pool::new(1, 70_000, 640).unwrap();
    let mut packet = pool.packet(inner).unwrap();
    if let Some(ethertype) = layer3 {
        packet.flags.insert(PacketFlags::LAYER3);
        packet.l3_type = ethertype;
    }
    extract_whole(&mut packet, None, ExtractOptions::default()).unwrap();
    let sequence = Sequence::starting(SEQUENCE);
    template.push(&mut packet, ENTROPY, None, Moment { sequence: &sequence, now: NOW }).unwrap();
    let bytes = packet.data().to_vec();
    assert_offsets(&mut packet);
    pool.free(&mut packet);
    bytes
}

/// The offsets and flags that a packet has after it was pushed are those that it would get if it were received.
fn assert_offsets(packet: &mut Packet) {
    let after = (packet.l2_5, packet.l3, packet.l4, packet.flags.contains(PacketFlags::LAYER3));
    extract_whole(packet, None, ExtractOptions::default()).unwrap();
    assert_eq!(after, (packet.l2_5, packet.l3, packet.l4, false));
}

/// All variants.
pub fn all() -> Vec<Variant> {
    let mut out = Vec::new();
    for v6 in [false, true] {
        vxlan_and_geneve(v6, &mut out);
        gre(v6, &mut out);
        erspan(v6, &mut out);
        gtpu(v6, &mut out);
    }
    srv6(&mut out);
    out
}

fn line(id: u64, flags: u16) -> TunnelLine {
    let mut line = TunnelLine::new_zeroed();
    line.id.set(id);
    line.flags = flags;
    line
}

/// `line` with the outer headers' fields.
fn with_outer(mut line: TunnelLine, kind: Kind, v6: bool) -> TunnelLine {
    if v6 {
        [line.ipv6_src, line.ipv6_dst] = V6;
    } else {
        [line.ipv4_src, line.ipv4_dst] = V4;
    }
    line.ttl = 64;
    if kind.carrier() == Carrier::Udp {
        line.tp_src.set(46_884);
        line.tp_dst.set(kind.port());
    }
    line
}

/// A variant whose own header is `own`.
fn variant(name: &str, kind: Kind, v6: bool, sum: bool, line: TunnelLine, layer3: Option<u16>, own: &[u8]) -> Variant {
    let outer = Frame::new().eth([0xb; 6], [0xa; 6]);
    let outer = if v6 { outer.ipv6(V6[0], V6[1]) } else { outer.ipv4(V4[0], V4[1]) };
    let outer = match kind.carrier() {
        Carrier::Udp if sum => outer.udp(0, kind.port()),
        Carrier::Udp => outer.udp(0, kind.port()).no_checksum(),
        _ => outer.proto(ip::GRE),
    };
    let name = format!("{name}-{}{}", if v6 { "ipv6" } else { "ipv4" }, if sum { "-checksum" } else { "" });
    let options = Options { gbp: true, ..Options::default() };
    let header = [&outer.build()[..], own].concat();
    let line = with_outer(line, kind, v6);
    Variant { name, kind, v6, sum, options, header, line, geneve: Vec::new(), layer3 }
}

fn vxlan_and_geneve(v6: bool, out: &mut Vec<Variant>) {
    for sum in [false, true] {
        let flags = TUNNEL_KEY | if sum { TUNNEL_CSUM } else { 0 };
        let plain = line(0xab_cdef, flags);
        let mut group = line(1000, flags | TUNNEL_GBP);
        group.opts = [0x12, 0x34, 0x48, 0, 0, 0, 0, 0];
        let gpe = [None, Some(ethernet::IPV4), Some(ethernet::IPV6)];
        for (name, line, gpe, layer3) in [("vxlan", plain, false, None), ("vxlan-gbp", group, false, None)]
            .into_iter()
            .chain(gpe.map(|layer3| ("vxlan-gpe", plain, true, layer3)))
        {
            let mut own = Vec::new();
            vxlan::write(&line, gpe, layer3, &mut own).unwrap();
            let name = match layer3 {
                None => name.to_string(),
                Some(ethertype) => format!("{name}-of-{ethertype:04x}"),
            };
            let mut variant = variant(&name, Kind::Vxlan, v6, sum, line, layer3, &own);
            if gpe {
                // The port that IANA assigned to it.
                variant.options.gpe = true;
                variant.line.tp_dst.set(4790);
                let at = variant.own_at() - 6;
                variant.header[at..at + 2].copy_from_slice(&4790u16.to_be_bytes());
            }
            out.push(variant);
        }
        for (name, geneve) in [("geneve", &[][..]), ("geneve-options", &[1, 2, 0x80, 1, 1, 2, 3, 4, 0xff, 0xff, 3, 0])]
        {
            let mut line = plain;
            if !geneve.is_empty() {
                line.flags |= TUNNEL_GENEVE | TUNNEL_OAM;
                line.opts[0] = (geneve.len() / 4) as u8;
            }
            let mut own = Vec::new();
            geneve::write(&line, geneve, None, &mut own).unwrap();
            let variant = variant(name, Kind::Geneve, v6, sum, line, None, &own);
            out.push(Variant { geneve: geneve.to_vec(), ..variant });
        }
    }
}

fn gre(v6: bool, out: &mut Vec<Variant>) {
    let kind = if v6 { Kind::Ip6Gre } else { Kind::Gre };
    for (name, sum, key, sequence) in [
        ("gre", false, false, false),
        ("gre", true, false, false),
        ("gre-key", false, true, false),
        ("gre-seq", false, false, true),
        ("gre-key-seq", true, true, true),
    ] {
        for layer3 in [None, Some(ethernet::IPV4), Some(ethernet::IPV6)] {
            let flags = if sum { TUNNEL_CSUM } else { 0 } | if key { TUNNEL_KEY } else { 0 };
            let line = line(if key { 0xfedc_ba98 } else { 0 }, flags);
            let mut own = Vec::new();
            gre::write(&line, sequence, layer3, &mut own).unwrap();
            let name = match layer3 {
                None => name.to_string(),
                Some(ethertype) => format!("{name}-of-{ethertype:04x}"),
            };
            out.push(variant(&name, kind, v6, sum, line, layer3, &own));
        }
    }
}

fn erspan(v6: bool, out: &mut Vec<Variant>) {
    let kind = if v6 { Kind::Ip6Erspan } else { Kind::Erspan };
    for (name, opts) in [("erspan-2", [1, 0, 0, 0, 0, 0xa, 0xbc, 0xde]), ("erspan-3", [2, 1, 0x2a, 0, 0, 0, 0, 0])] {
        let mut line = line(0x2bc, TUNNEL_KEY | TUNNEL_ERSPAN);
        line.opts = opts;
        let mut own = Vec::new();
        erspan::write(&line, &mut own).unwrap();
        out.push(variant(name, kind, v6, false, line, None, &own));
    }
}

fn gtpu(v6: bool, out: &mut Vec<Variant>) {
    let container = Some(Container { is_uplink: true, qfi: 9 });
    for (name, sum, flags, sequence, container) in [
        ("gtpu", false, 0x30, false, None),
        ("gtpu", true, 0x30, false, None),
        ("gtpu-seq", false, 0x32, true, None),
        ("gtpu-npdu", false, 0x31, false, None),
        ("gtpu-qfi", false, 0x34, false, container),
        ("gtpu-seq-qfi", true, 0x36, true, container),
    ] {
        for layer3 in [ethernet::IPV4, ethernet::IPV6] {
            let mut line = line(0x1234_5678, TUNNEL_KEY | TUNNEL_GTPU | if sum { TUNNEL_CSUM } else { 0 });
            line.opts = [flags, gtpu::G_PDU, 0, 0, 0, 0, 0, 0];
            let mut own = Vec::new();
            gtpu::write(&line, sequence, container, &mut own).unwrap();
            out.push(variant(&format!("{name}-of-{layer3:04x}"), Kind::Gtpu, v6, sum, line, Some(layer3), &own));
        }
    }
}

fn srv6(out: &mut Vec<Variant>) {
    let one = [address(2)];
    let three = [address(0x23), address(0x22), address(2)];
    for (name, segments) in [("srv6-reduced", &[][..]), ("srv6", &one), ("srv6-three", &three)] {
        for layer3 in [ethernet::IPV4, ethernet::IPV6] {
            // The label says: from the flow's hash.
            let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv6(V6[0], V6[1]).label(2);
            let mut header = outer.proto(srv6::next_header(segments, layer3).unwrap()).build();
            srv6::write(segments, 0, layer3, &mut header).unwrap();
            out.push(Variant {
                name: format!("{name}-of-{layer3:04x}-ipv6"),
                kind: Kind::Srv6,
                v6: true,
                sum: false,
                options: Options { reduced: segments.is_empty(), ..Options::default() },
                header,
                line: with_outer(line(0, 0), Kind::Srv6, true),
                geneve: Vec::new(),
                layer3: Some(layer3),
            });
        }
    }
}
