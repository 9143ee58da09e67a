//! Tunnels for the switch under test: what comes out of them, what goes into them, and packets of theirs, true ones and such as lie.

use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::choices::Choices;
use super::frames::{self, ipv4, ipv6, mac};
use crate::datapath::Datapath;
use crate::flow::action::TunnelPush;
use crate::sim::oracle::tunnel::{Headers, Tunnel, Way};
use crate::testing::packets::{Extension, Frame};
use crate::tunnel::template::{FlowLabel, Inherit, Template};
use crate::tunnel::{self, Kind, Options};

/// Numbers that tunnels may have. No port has any of them.
pub const TUNNELS: Range<u32> = 20..24;

/// The kinds that the oracle knows.
const KINDS: [Kind; 4] = [Kind::Vxlan, Kind::Geneve, Kind::Gre, Kind::Ip6Gre];

/// The tunnel that a number has when a scenario starts: each kind is opened, into two there is a way, by headers that take over what they
/// can.
fn at_first(number: u32) -> Option<Tunnel> {
    let known_options = (number == 21).then(|| Box::from([(0x0101, 0x81)]));
    let options = Options { ecn: number != 22, known_options, ..Options::default() };
    let (kind, way) = match number {
        20 => (Kind::Vxlan, Some((Frame::udp4().no_checksum().build(), 2, 1500))),
        21 => (Kind::Geneve, Some((Frame::udp6().build(), 3, 150))),
        22 => (Kind::Gre, None),
        _ => return None,
    };
    let way = way.map(|(outer, out_port, mtu)| {
        let mut headers = Headers::new(kind, [outer, own_to_push(&mut Choices(&[]), kind)].concat());
        headers.inherit = Inherit { dscp: true, ecn: true, ttl: true, df: true };
        headers.label = FlowLabel::Inner;
        Way { headers, out_port, mtu }
    });
    Some(Tunnel { kind, options, way })
}

/// All of these.
pub fn all_at_first() -> BTreeMap<u32, Tunnel> {
    TUNNELS.filter_map(|number| Some((number, at_first(number)?))).collect()
}

/// A packet of each of these with one of `inner` inside, and of their kinds over the other version of IP.
pub fn frames_at_first(inner: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let outer = |is_v6| match is_v6 {
        false => Frame::new().eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2]),
        true => Frame::new().eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv6([0xfd; 16], [0xfe; 16]),
    };
    let own = [
        (Kind::Vxlan, &[8, 0, 0, 0, 0, 0, 1, 0][..]),
        (Kind::Geneve, &[2, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 1, 1, 0x21, 5, 6, 7, 8]),
        (Kind::Gre, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 1]),
    ];
    let variants = [false, true].into_iter().flat_map(|is_v6| own.map(|(kind, own)| (is_v6, kind, own)));
    let frames = variants.zip(inner.iter().cycle()).map(|((is_v6, kind, own), inner)| {
        let f = match kind {
            Kind::Gre => outer(is_v6).proto(47),
            kind if is_v6 => outer(is_v6).udp(50_000, kind.port()),
            kind => outer(is_v6).udp(50_000, kind.port()).no_checksum(),
        };
        f.payload(&[own, inner].concat()).build()
    });
    frames.collect()
}

/// Gives the datapath this tunnel, or takes it away.
pub fn set(datapath: &Datapath, number: u32, tunnel: Option<&Tunnel>) {
    let Some(Tunnel { kind, options, way }) = tunnel else {
        datapath.tunnel_del(number);
        return;
    };
    let way = way.as_ref().map(|Way { headers, out_port, mtu }| {
        let template = Template::new(headers.kind, &headers.bytes).expect("the headers are legal ones");
        let (first, last) = headers.source_ports;
        let template = template.with_source_ports(first, last).with_inherit(headers.inherit);
        Arc::new(tunnel::Way { template: template.with_flow_label(headers.label), out_port: *out_port, mtu: *mtu })
    });
    datapath.tunnel_set(number, tunnel::Tunnel { kind: *kind, options: options.clone(), way });
}

/// One of the numbers.
pub fn number(c: &mut Choices<'_>) -> u32 {
    c.pick(&[20, 21, 22, 20, 21, 23, 20, 21])
}

/// Any tunnel; now and then none.
pub fn tunnel(c: &mut Choices<'_>) -> Option<Tunnel> {
    if c.once_in(8) {
        return None;
    }
    let kind = c.pick(&KINDS);
    let bits = c.byte();
    let options = Options {
        gbp: bits & 1 != 0,
        gpe: bits & 2 != 0,
        zero_checksum6: bits & 4 == 0,
        ecn: bits & 8 != 0,
        known_options: (bits & 16 != 0).then(|| Box::from([(0x0101, 0x81)])),
        ..Options::default()
    };
    let way = (!c.once_in(4)).then(|| {
        let bits = c.byte();
        let inherit = Inherit { dscp: bits & 1 != 0, ecn: bits & 2 != 0, ttl: bits & 4 != 0, df: bits & 8 != 0 };
        let headers = Headers {
            kind,
            bytes: headers(c, kind),
            source_ports: c.pick(&[(32_768, 60_999), (1000, 1003), (7, 7), (0, 65_535)]),
            inherit: if c.once_in(2) { inherit } else { Inherit::NONE },
            label: c.pick(&[FlowLabel::Fixed, FlowLabel::Inner, FlowLabel::Hash]),
        };
        Way { headers, out_port: c.pick(&[2, 3, 1, 4, 5, 9]), mtu: c.pick(&[1500, 1500, 150, 100, 20, 4000]) }
    });
    Some(Tunnel { kind, options, way })
}

/// Parameters of `tnl_push`.
pub fn push(c: &mut Choices<'_>) -> TunnelPush {
    let kind = c.pick(&KINDS);
    TunnelPush {
        tnl_port: number(c),
        out_port: c.pick(&[2, 3, 1, 5, 9]),
        tnl_type: kind.number(),
        header: headers(c, kind),
    }
}

/// Outer headers to put in front of packets. Lengths and checksums in them do not matter.
fn headers(c: &mut Choices<'_>, kind: Kind) -> Vec<u8> {
    let mut f = Frame::new().eth(mac(c), mac(c));
    for _ in 0..[0, 0, 0, 0, 1, 2][c.below(6)] {
        f = f.tag(c.pick(&[0x8100, 0x88a8]), c.short() & 0xe003);
    }
    let ttl = c.pick(&[64, 1, 0, 255]);
    f = if c.once_in(2) {
        let f = f.ipv6(ipv6(c), ipv6(c)).label(c.word() & 0xf_ffff);
        match c.below(8) {
            6 => f.extension(Extension::HopByHop(c.byte() & 1)),
            7 => f.extension(Extension::Destination(0)),
            _ => f,
        }
    } else {
        let f = f.ipv4(ipv4(c), ipv4(c));
        if c.once_in(2) { f.dont_fragment() } else { f }
    };
    f = f.ttl(ttl).tos(c.byte());
    f = match kind {
        Kind::Gre | Kind::Ip6Gre => f.proto(47),
        _ => {
            let f = f.udp(c.short(), if c.once_in(8) { c.short() } else { kind.port() });
            if c.once_in(2) { f } else { f.no_checksum() }
        }
    };
    [f.build(), own_to_push(c, kind)].concat()
}

/// A kind's own header to put in front of packets.
fn own_to_push(c: &mut Choices<'_>, kind: Kind) -> Vec<u8> {
    let id = c.byte() & 3;
    match kind {
        Kind::Vxlan => {
            let [first, policy, group, next] =
                c.pick(&[[8, 0, 0, 0], [8, 0, 0, 0], [0x88, 0x48, 1, 2], [0x0c, 0, 0, 3]]);
            vec![first, policy, group, next, 0, 0, id, 0]
        }
        Kind::Geneve => {
            let mut options = Vec::new();
            for _ in 0..[0, 0, 1, 2][c.below(4)] {
                option(c, &mut options);
            }
            let bits = c.pick(&[0, 0, 0x80, 0x40]);
            let mut own = vec![(options.len() / 4) as u8, bits, 0x65, 0x58, 0, 0, id, 0];
            own.extend(options);
            own
        }
        _ => gre(c, id, false),
    }
}

/// A Geneve option.
fn option(c: &mut Choices<'_>, options: &mut Vec<u8>) {
    let words = c.pick(&[1, 0, 2, 4, 31]);
    let reserved = c.pick(&[0, 0, 0, 0x20, 0xe0]);
    options.extend([1, c.byte() & 3, c.pick(&[1, 0x80, 0x81]), words | reserved]);
    options.extend((0..words * 4).map(|at| at ^ id_of(c)));
    if options.len() > 252 {
        options.truncate(0);
    }
}

fn id_of(c: &mut Choices<'_>) -> u8 {
    if c.has_more() { c.byte() & 3 } else { 0 }
}

/// A GRE header; its checksum is filled in by whoever sends it.
fn gre(c: &mut Choices<'_>, id: u8, may_have_sequence: bool) -> Vec<u8> {
    let mut flags = c.pick(&[0x20, 0, 0xa0, 0x80]);
    if may_have_sequence {
        flags |= c.pick(&[0, 0, 0x10, 0]);
    }
    let mut own = vec![flags, 0, 0x65, 0x58];
    if flags & 0x80 != 0 {
        own.extend([0; 4]);
    }
    if flags & 0x20 != 0 {
        own.extend([0, 0, 0, id]);
    }
    if flags & 0x10 != 0 {
        own.extend(c.array::<4>());
    }
    own
}

/// A packet of a tunnel, `nesting` of which may be in it.
pub fn frame(c: &mut Choices<'_>, nesting: u8) -> Vec<u8> {
    let kind = c.pick(&KINDS);
    let mut inner = match c.below(4) {
        3 if nesting > 0 => frame(c, nesting - 1),
        0 => {
            let f = Frame::new().eth(mac(c), mac(c));
            let f = if c.once_in(3) { f.ipv6(ipv6(c), ipv6(c)) } else { f.ipv4(ipv4(c), ipv4(c)) };
            f.tos(c.byte() & 3).udp(1000, 2000).payload(&[c.byte()]).build()
        }
        _ => frames::frame(c),
    };
    let mut own = own_to_open(c, kind);
    // Without link layer: the tunnel's header has the EtherType, if it has a place for it.
    if c.once_in(4) && inner.len() >= 14 && own.len() >= 8 {
        let ethertype = [inner[12], inner[13]];
        match kind {
            Kind::Vxlan => {
                let next = match ethertype {
                    [0x08, 0x00] => 1,
                    [0x86, 0xdd] => 2,
                    [0x89, 0x4f] => 4,
                    [0x88, 0x47] => 5,
                    _ => 3,
                };
                own[..4].copy_from_slice(&[0x0c, 0, 0, next]);
                inner.drain(..if next == 3 { 0 } else { 14 });
            }
            _ => {
                own[2..4].copy_from_slice(&ethertype);
                inner.drain(..14);
            }
        }
    }
    let is_gre = matches!(kind, Kind::Gre | Kind::Ip6Gre);
    if is_gre && own.len() >= 8 && own[0] & 0x80 != 0 && !c.once_in(8) {
        let sum = crate::testing::checksums::naive(&[&own[..], &inner].concat());
        own[4..6].copy_from_slice(&sum.to_be_bytes());
    }
    outer(c, kind, is_gre, &[own, inner].concat())
}

/// A kind's own header on a packet that arrives, now and then a wrong one.
fn own_to_open(c: &mut Choices<'_>, kind: Kind) -> Vec<u8> {
    let mut own = match kind {
        Kind::Gre | Kind::Ip6Gre => {
            let id = c.byte() & 3;
            gre(c, id, true)
        }
        _ => own_to_push(c, kind),
    };
    match c.below(16) {
        // Any byte: flags, version, length of the options, reserved bits.
        15 => {
            let at = c.below(8).min(own.len() - 1);
            own[at] ^= 1 << c.below(8);
        }
        14 => {
            let at = c.below(own.len());
            own[at] = c.byte();
        }
        13 => own.truncate(c.below(own.len())),
        _ => {}
    }
    own
}

/// Outer headers around `payload`, now and then wrong ones.
fn outer(c: &mut Choices<'_>, kind: Kind, is_gre: bool, payload: &[u8]) -> Vec<u8> {
    let mut f = Frame::new().eth(mac(c), mac(c));
    for _ in 0..[0, 0, 0, 0, 0, 0, 1, 2][c.below(8)] {
        f = f.tag(0x8100, c.short() & 0xe003);
    }
    let ttl = c.pick(&[64, 64, 1, 0]);
    let fragment = c.below(32);
    f = if c.once_in(3) {
        let f = f.ipv6(ipv6(c), ipv6(c));
        match c.below(16) {
            15 => f.extension(Extension::HopByHop(0)),
            14 => f.extension(Extension::Destination(0)).extension(Extension::Ah),
            13 => f.extension(Extension::Routing { left: c.byte() & 1, segments: vec![ipv6(c)] }),
            _ => f,
        }
    } else {
        let f = f.ipv4(ipv4(c), ipv4(c));
        if c.once_in(8) { f.options(&[1; 4]) } else { f }
    };
    f = f.ttl(ttl).tos(c.byte() & 7);
    f = match fragment {
        31 => f.fragment(0, true),
        30 => f.fragment(3, false),
        29 => f.fragment(0, false),
        _ => f,
    };
    f = if is_gre {
        f.proto(47)
    } else {
        let f = f.udp(c.short(), kind.port());
        if c.once_in(2) { f } else { f.no_checksum() }
    };
    let mut bytes = f.payload(payload).build();
    let headers = bytes.len() - payload.len();
    match c.below(16) {
        // Any bit of the IP header or what carries the tunnel: lengths, checksums, protocol, flags.
        15 => bytes[12 + c.below(headers - 12)] ^= 1 << c.below(8),
        // UDP lengths that are a little off; in GRE it is the key or the like.
        14 if headers >= 8 => {
            let [a, b] = [bytes[headers - 4], bytes[headers - 3]];
            let len = u16::from_be_bytes([a, b]).wrapping_add(c.pick(&[1, 0xffff, 0xfff8, 4]));
            bytes[headers - 4..headers - 2].copy_from_slice(&len.to_be_bytes());
        }
        13 => bytes.truncate(headers + c.below(24)),
        12 => bytes.extend(vec![0; c.below(16)]),
        _ => {}
    }
    bytes
}
