//! Outer headers on and off, without an engine around.

mod conformance;
mod decoders;
mod endpoint;
mod golden;
mod hostile;
mod variants;

use super::template::Inherit;
use super::*;
use crate::flow::extract::{ExtractOptions, extract_whole};
use crate::flow::key::{TUNNEL_CSUM, TUNNEL_GBP, TUNNEL_GENEVE, TUNNEL_KEY, TUNNEL_OAM, TunnelLine};
use crate::packet::Pool;
use crate::testing::{Frame, checksums};
use crate::time::Nanos;
use zerocopy::FromZeros;

/// Outer headers of `kind` from 192.0.2.1 to 192.0.2.2, or the same over IPv6; with `sum`, a UDP checksum.
fn header(kind: Kind, v6: bool, sum: bool, own: &[u8]) -> Vec<u8> {
    let outer = Frame::new().eth([0xb; 6], [0xa; 6]);
    let outer = if v6 { outer.ipv6([1; 16], [2; 16]) } else { outer.ipv4([192, 0, 2, 1], [192, 0, 2, 2]) };
    let outer = outer.ttl(64).tos(0).udp(0, kind.port());
    let mut bytes = if sum { outer } else { outer.no_checksum() }.build();
    bytes.extend_from_slice(own);
    bytes
}

fn vxlan_header(vni: u32) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes()].concat()
}

/// Pushes `template` in front of `inner` and looks at what comes out.
fn push(template: &Template, inner: &[u8]) -> Result<Vec<u8>, DropReason> {
    let pool = Pool::new(1, 70_000, 640).unwrap();
    let mut packet = pool.packet(inner).unwrap();
    extract_whole(&mut packet, None, ExtractOptions::default()).unwrap();
    let moment = Moment { sequence: &Sequence::starting(7), now: Nanos(12_345_678_900_000) };
    let result = template.push(&mut packet, 0x8000_0000, None, moment).map(|()| packet.data().to_vec());
    pool.free(&mut packet);
    result
}

/// Opens `bytes`; the inner packet's bytes and what is known of the outer one.
fn open_bytes(kind: Kind, options: &Options, bytes: &[u8]) -> Result<(Vec<u8>, Ext, Option<u16>), DropReason> {
    let pool = Pool::new(1, 70_000, 640).unwrap();
    let mut packet = pool.packet(bytes).unwrap();
    extract_whole(&mut packet, None, ExtractOptions::default()).unwrap();
    let mut ext = Ext::default();
    let before = packet.data().to_vec();
    let result = open(&mut packet, &mut ext, kind, options);
    let layer3 = packet.flags.contains(PacketFlags::LAYER3).then_some(packet.l3_type);
    let after = packet.data().to_vec();
    pool.free(&mut packet);
    match result {
        Ok(()) => Ok((after, ext, layer3)),
        Err(reason) => {
            assert_eq!(before, after, "a packet that is dropped is unchanged");
            Err(reason)
        }
    }
}

/// The UDP checksum field of an untagged packet, and what is right there.
fn udp_checksum(bytes: &[u8], v6: bool) -> u16 {
    let at = if v6 { 60 } else { 40 };
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[test]
fn congestion_marks_go_into_no_header_that_ends_behind_the_inner_packet() {
    let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2]).tos(ecn::CE);
    let inner = Frame::new().eth([2; 6], [4; 6]).ipv4([10; 4], [11; 4]).tos(ecn::ECT_0).build();
    let options = Options { ecn: true, ..Options::default() };
    for (len, marked) in [(inner.len(), true), (inner.len() - 1, false)] {
        for sum in [false, true] {
            let datagram = outer.clone().udp(7, Kind::Vxlan.port());
            let datagram = if sum { datagram } else { datagram.no_checksum() };
            let mut bytes = datagram.payload(&[&vxlan_header(1)[..], &inner[..len]].concat()).build();
            // What follows is no part of the datagram, but of what the port received.
            bytes.extend_from_slice(&inner[len..]);
            let (opened, ..) = open_bytes(Kind::Vxlan, &options, &bytes).unwrap();
            let expected = if marked { ecn::CE } else { ecn::ECT_0 };
            assert_eq!((opened.len(), opened[15] & ecn::MASK), (len, expected));
        }
    }
}

#[test]
fn source_ports_are_all_from_the_first_to_the_last() {
    let pool = Pool::new(1, 2048, 640).unwrap();
    for (first, last) in [(0, u16::MAX), (7, 7), (1000, 1003), (9, 6)] {
        let headers = header(Kind::Vxlan, false, false, &vxlan_header(1));
        let template = Template::new(Kind::Vxlan, &headers).unwrap().with_source_ports(first, last);
        let port = |entropy| {
            let mut packet = pool.packet(&Frame::udp4().build()).unwrap();
            let moment = Moment { sequence: &Sequence::default(), now: Nanos(0) };
            template.push(&mut packet, entropy, None, moment).unwrap();
            let port = u16::from_be_bytes([packet.data()[34], packet.data()[35]]);
            pool.free(&mut packet);
            port
        };
        assert_eq!((port(0), port(u32::MAX)), (first.min(last), first.max(last)));
    }
}

#[test]
fn vxlan_over_ipv4_is_the_inner_frame_behind_fifty_bytes() {
    let inner = Frame::udp4().payload(b"wye").build();
    let template = Template::new(Kind::Vxlan, &header(Kind::Vxlan, false, false, &vxlan_header(1000))).unwrap();
    let bytes = push(&template, &inner).unwrap();
    let mut expected = Frame::new().eth([0xb; 6], [0xa; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2]);
    // The middle of the source ports: the hash was the middle of all.
    expected = expected.ttl(64).tos(0).udp(32_768 + 14_116, 4789).no_checksum();
    let expected = expected.payload(&[&vxlan_header(1000)[..], &inner].concat()).build();
    assert_eq!(bytes, expected);
    let (opened, ext, layer3) = open_bytes(Kind::Vxlan, &Options::default(), &bytes).unwrap();
    assert_eq!((opened, layer3), (inner, None));
    let mut line = TunnelLine::new_zeroed();
    (line.ipv4_src, line.ipv4_dst, line.ttl, line.flags) = ([192, 0, 2, 1], [192, 0, 2, 2], 64, TUNNEL_KEY);
    line.id.set(1000);
    line.tp_src.set(46_884);
    line.tp_dst.set(4789);
    assert_eq!((ext.tunnel, ext.lines), (line, LINE_TUNNEL));
}

#[test]
fn every_outer_header_is_opened_to_what_was_inside() {
    let inner = Frame::tcp6().payload(&[7; 301]).build();
    for kind in [Kind::Vxlan, Kind::Geneve] {
        for (v6, sum) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut own = Vec::new();
            let mut line = TunnelLine::new_zeroed();
            line.id.set(0xab_cdef);
            match kind {
                Kind::Vxlan => vxlan::write(&line, false, None, &mut own).unwrap(),
                _ => geneve::write(&line, &[], None, &mut own).unwrap(),
            }
            let template = Template::new(kind, &header(kind, v6, sum, &own)).unwrap();
            let bytes = push(&template, &inner).unwrap();
            checksums::verify(&bytes).unwrap();
            assert_eq!(udp_checksum(&bytes, v6) != 0, sum);
            let (opened, ext, layer3) = open_bytes(kind, &Options::default(), &bytes).unwrap();
            assert_eq!((opened, layer3), (inner.clone(), None), "{kind:?} {v6} {sum}");
            assert_eq!(ext.tunnel.id.get(), 0xab_cdef);
            assert_eq!(ext.tunnel.flags, TUNNEL_KEY | if sum { TUNNEL_CSUM } else { 0 });
            let addresses = (ext.tunnel.ipv6_src, ext.tunnel.ipv4_src);
            assert_eq!(addresses, if v6 { ([1; 16], [0; 4]) } else { ([0; 16], [192, 0, 2, 1]) });
            if sum {
                let mut wrong = bytes.clone();
                *wrong.last_mut().unwrap() ^= 1;
                let reason = open_bytes(kind, &Options::default(), &wrong).unwrap_err();
                assert_eq!(reason, DropReason::TunnelChecksum);
            }
            let strict = Options { zero_checksum6: false, ..Options::default() };
            let reason = open_bytes(kind, &strict, &bytes).err();
            assert_eq!(reason, (v6 && !sum).then_some(DropReason::TunnelChecksum));
        }
    }
}

#[test]
fn outer_headers_that_lie_are_dropped_with_the_reason() {
    let template = Template::new(Kind::Vxlan, &header(Kind::Vxlan, false, false, &vxlan_header(1))).unwrap();
    let good = push(&template, &Frame::udp4().build()).unwrap();
    let reason = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        open_bytes(Kind::Vxlan, &Options::default(), &bytes).err()
    };
    assert_eq!(reason(&|_| {}), None);
    let header = Some(DropReason::TunnelHeader);
    // UDP length: less than its header, more than the packet, into the tunnel's header.
    assert_eq!(reason(&|b| b[38..40].copy_from_slice(&[0, 7])), header);
    assert_eq!(reason(&|b| b[38..40].copy_from_slice(&[1, 0])), header);
    assert_eq!(reason(&|b| b[38..40].copy_from_slice(&[0, 15])), header);
    // Without the flag of a valid identifier, with another flag, with reserved bits.
    assert_eq!(reason(&|b| b[42] = 0), header);
    assert_eq!(reason(&|b| b[42] = 0x88), header);
    assert_eq!(reason(&|b| b[42] = 0x0c), header);
    assert_eq!(reason(&|b| b[43] = 1), header);
    assert_eq!(reason(&|b| b[49] = 1), header);
    // IP header: checksum, fragment (with a checksum that is right).
    assert_eq!(reason(&|b| b[24] ^= 1), Some(DropReason::TunnelChecksum));
    let fragment = |b: &mut Vec<u8>| {
        b[20] = 0x20;
        let sum = crate::wire::checksum::update16(u16::from_be_bytes([b[24], b[25]]), 0, 0x2000);
        b[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    assert_eq!(reason(&fragment), Some(DropReason::TunnelFragment));
    // Bytes behind the outer IP packet are padding, not part of the inner frame.
    let padded = [&good[..], &[9; 10]].concat();
    let (inner, ..) = open_bytes(Kind::Vxlan, &Options::default(), &padded).unwrap();
    assert_eq!(inner, Frame::udp4().build());
}

#[test]
fn vxlan_extensions_are_read_where_they_are_configured() {
    let frame = Frame::udp4().build();
    let of = |own: [u8; 8], options: &Options| {
        let template = Template::new(Kind::Vxlan, &header(Kind::Vxlan, false, false, &own)).unwrap();
        open_bytes(Kind::Vxlan, options, &push(&template, &frame).unwrap())
    };
    let gbp = Options { gbp: true, ..Options::default() };
    let gpe = Options { gpe: true, ..Options::default() };
    let with_group = [0x88, 0x48, 0x12, 0x34, 0, 0, 9, 0];
    assert_eq!(of(with_group, &Options::default()).unwrap_err(), DropReason::TunnelHeader);
    assert_eq!(of(with_group, &gpe).unwrap_err(), DropReason::TunnelHeader);
    let (_, ext, _) = of(with_group, &gbp).unwrap();
    assert_eq!((ext.tunnel.opts, ext.tunnel.flags), ([0x12, 0x34, 0x48, 0, 0, 0, 0, 0], TUNNEL_KEY | TUNNEL_GBP));
    let mut own = Vec::new();
    vxlan::write(&ext.tunnel, false, None, &mut own).unwrap();
    assert_eq!(own, with_group);
    for (next, layer3) in [(1, Some(0x0800)), (2, Some(0x86dd)), (3, None), (4, Some(0x894f)), (5, Some(0x8847))] {
        let own = [0x0c, 0, 0, next, 0, 0, 9, 0];
        assert_eq!(of(own, &gpe).unwrap().2, layer3);
        assert_eq!(of(own, &gbp).unwrap_err(), DropReason::TunnelHeader);
        let mut written = Vec::new();
        let line = of(own, &gpe).unwrap().1.tunnel;
        vxlan::write(&line, true, layer3, &mut written).unwrap();
        assert_eq!(written, own);
    }
    assert_eq!(of([0x0c, 0, 0, 9, 0, 0, 9, 0], &gpe).unwrap_err(), DropReason::TunnelHeader);
}

#[test]
fn geneve_options_are_noted_and_unknown_critical_ones_refused() {
    let data = [0x01, 0x02, 0x80, 1, 1, 2, 3, 4, 0xff, 0xff, 0x03, 0];
    let mut line = TunnelLine::new_zeroed();
    line.id.set(5);
    line.flags = TUNNEL_OAM;
    let mut own = Vec::new();
    geneve::write(&line, &data, None, &mut own).unwrap();
    assert_eq!(own[..8], [3, 0xc0, 0x65, 0x58, 0, 0, 5, 0]);
    let of = |own: &[u8], options: &Options| {
        let template = Template::new(Kind::Geneve, &header(Kind::Geneve, false, false, own)).unwrap();
        open_bytes(Kind::Geneve, options, &push(&template, &Frame::udp4().build()).unwrap())
    };
    let (inner, ext, layer3) = of(&own, &Options::default()).unwrap();
    assert_eq!((inner, layer3), (Frame::udp4().build(), None));
    assert_eq!(ext.tunnel.flags, TUNNEL_KEY | TUNNEL_OAM | TUNNEL_GENEVE);
    assert_eq!((ext.tunnel.opts[0], &ext.options[..12], ext.lines), (3, &data[..], LINE_TUNNEL | LINE_OPTIONS));
    let knows = |known: &[(u16, u8)]| Options { known_options: Some(known.into()), ..Options::default() };
    assert_eq!(of(&own, &knows(&[])).unwrap_err(), DropReason::TunnelOption);
    assert_eq!(of(&own, &knows(&[(0x0102, 0)])).unwrap_err(), DropReason::TunnelOption);
    assert!(of(&own, &knows(&[(0x0102, 0x80)])).is_ok());
    // Version 1; options longer than the packet; an option longer than the options.
    let template = Template::new(Kind::Geneve, &header(Kind::Geneve, false, false, &own)).unwrap();
    let pushed = push(&template, &Frame::udp4().build()).unwrap();
    for (at, value) in [(0, own[0] | 0x40), (0, 63), (11, 3)] {
        let mut wrong = pushed.clone();
        wrong[42 + at] = value;
        let opened = open_bytes(Kind::Geneve, &Options::default(), &wrong);
        assert_eq!(opened.unwrap_err(), DropReason::TunnelHeader, "byte {at} = {value}");
    }
}

#[test]
fn congestion_marks_come_in_and_go_out_where_that_is_configured() {
    let headers = header(Kind::Vxlan, false, false, &vxlan_header(1));
    let inherit = Inherit { ecn: true, ..Inherit::NONE };
    let template = Template::new(Kind::Vxlan, &headers).unwrap().with_inherit(inherit);
    let ecn = Options { ecn: true, ..Options::default() };
    let link = || Frame::new().eth([2; 6], [4; 6]);
    let tagged = link().vlan(5).ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
    let frames = [link().ipv4([10, 0, 0, 1], [10, 0, 0, 2]), link().ipv6([1; 16], [2; 16]), tagged];
    for inner in frames.map(|frame| frame.tos(0x2a).udp(1, 2).build()) {
        let mut bytes = push(&template, &inner).unwrap();
        checksums::verify(&bytes).unwrap();
        assert_eq!(bytes[15], 2);
        // A router on the way marks it.
        bytes[15] = 3;
        let sum = crate::wire::checksum::update16(u16::from_be_bytes([bytes[24], bytes[25]]), 0x4502, 0x4503);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        let (opened, ..) = open_bytes(Kind::Vxlan, &ecn, &bytes).unwrap();
        checksums::verify(&opened).unwrap();
        assert_ne!(opened, inner);
        assert_eq!(open_bytes(Kind::Vxlan, &Options::default(), &bytes).unwrap().0, inner);
    }
    let mut bytes = push(&template, &Frame::udp4().build()).unwrap();
    bytes[15] = 3;
    let sum = crate::wire::checksum::update16(u16::from_be_bytes([bytes[24], bytes[25]]), 0x4500, 0x4503);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(open_bytes(Kind::Vxlan, &ecn, &bytes).unwrap_err(), DropReason::TunnelEcn);
}

#[test]
fn a_packet_that_would_be_longer_than_ip_allows_stays_as_it_is() {
    let template = Template::new(Kind::Vxlan, &header(Kind::Vxlan, false, false, &vxlan_header(1))).unwrap();
    // 36 bytes of outer IP, UDP and VXLAN headers, and all lengths count from the outer IP header.
    let longest = 65_535 - 14 - 36;
    let inner = |len| Frame::udp4().pad_to(len).build();
    assert_eq!(push(&template, &inner(longest)).unwrap().len(), 65_535);
    assert_eq!(push(&template, &inner(longest + 1)).unwrap_err(), DropReason::TxTooLong);
}

#[test]
fn headers_that_are_none_are_refused() {
    let good = header(Kind::Vxlan, false, false, &vxlan_header(1));
    let refused = |bytes: &[u8]| Template::new(Kind::Vxlan, bytes).unwrap_err().to_string();
    assert_eq!(refused(&[]), "the outer headers lack an IP header");
    assert_eq!(refused(&good[..30]), "the outer headers lack an IPv4 header");
    assert_eq!(refused(&good[..40]), "the outer headers lack a UDP header");
    let lacks_own = "the outer headers lack the tunnel's own header, and nothing behind it";
    assert_eq!(refused(&good[..45]), lacks_own);
    assert_eq!(refused(&[&good[..], &[0]].concat()), lacks_own);
    let mut wrong = good.clone();
    wrong[23] = 6;
    assert_eq!(refused(&wrong), "the outer headers lack the protocol of the tunnel in the IP header");
    let mut long = good;
    long.resize(513, 0);
    assert_eq!(refused(&long), "outer headers take at most 512 bytes");
}
