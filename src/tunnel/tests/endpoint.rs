//! The behaviours of SRv6's segments.

pub mod oracle;

use super::variants::{self, V6, address};
use super::*;
use crate::testing::packets::Extension;
use crate::wire::{ethernet, ip};
use oracle::Expected;
use proptest::prelude::*;

const HEADER: Option<DropReason> = Some(DropReason::TunnelHeader);
const PSP: Flavours = Flavours { psp: true, ..Flavours::NONE };
const USP: Flavours = Flavours { usp: true, ..Flavours::NONE };
const USD: Flavours = Flavours { usd: true, ..Flavours::NONE };

/// The path of the golden frames.
const PATH: [[u8; 16]; 3] = [address(0x11), address(0x12), address(0x13)];

fn options(behaviour: Behaviour, upper_layer: bool) -> Options {
    Options { behaviour: Some(behaviour), upper_layer, ..Options::default() }
}

/// What comes out of `frame`, and of which EtherType it is if it begins without an Ethernet header.
///
/// What is known of the packet is right: its offsets, if it stays in its outer headers; its metadata; and that the receiver's knowledge is no
/// longer of it.
fn open_with(behaviour: Behaviour, upper_layer: bool, frame: &[u8]) -> Result<(Vec<u8>, Option<u16>), DropReason> {
    let pool = Pool::new(1, 70_000, 640).unwrap();
    let mut packet = pool.packet(frame).unwrap();
    let key = extract_whole(&mut packet, None, ExtractOptions::default())?;
    packet.flags.insert(PacketFlags::RSS_VALID);
    packet.flags.insert(PacketFlags::CHECKSUM_GOOD);
    let (before, flags) = ((packet.l2_5, packet.l3, packet.l4), packet.flags);
    let mut ext = Ext { lines: LINE_OPTIONS, ..Ext::default() };
    let result = open(&mut packet, &mut ext, Kind::Srv6, &options(behaviour, upper_layer));
    let layer3 = packet.flags.contains(PacketFlags::LAYER3).then_some(packet.l3_type);
    let bytes = packet.data().to_vec();
    let stays = result.is_ok() && bytes.len() >= 54 && bytes[..14] == frame[..14] && layer3.is_none();
    let after = (packet.l2_5, packet.l3, packet.l4);
    if result.is_err() {
        assert_eq!((&bytes[..], after, packet.flags), (frame, before, flags), "a packet that is dropped is unchanged");
    } else {
        let mut line = TunnelLine::new_zeroed();
        (line.ipv6_src, line.ipv6_dst) = (key.ipv6.src, key.ipv6.dst);
        let first = u16::from_be_bytes([frame[14], frame[15]]);
        (line.tos, line.ttl) = ((first >> 4) as u8, frame[21]);
        assert_eq!((ext.tunnel, ext.lines), (line, LINE_TUNNEL));
        let known = [PacketFlags::RSS_VALID, PacketFlags::CHECKSUM_GOOD];
        assert_eq!(known.map(|flag| packet.flags.contains(flag)), [false; 2]);
    }
    if stays {
        extract_whole(&mut packet, None, ExtractOptions::default()).unwrap();
        assert_eq!(after, (packet.l2_5, packet.l3, packet.l4));
    }
    pool.free(&mut packet);
    result.map(|()| (bytes, layer3))
}

/// As [`open_with`], of what no upper layer is there for.
fn open_as(behaviour: Behaviour, frame: &[u8]) -> Result<(Vec<u8>, Option<u16>), DropReason> {
    open_with(behaviour, false, frame)
}

/// The same with three segments on the way: the second is this node's, as in the golden frames.
fn on_the_way() -> Vec<u8> {
    golden::frames("srv6.txt").remove("h.encaps-of-0800-end").unwrap()
}

/// Where in an untagged frame the routing header begins.
const SRH: usize = 54;

#[test]
fn rfc8986_s4_1_end_changes_exactly_destination_hop_limit_and_segments_left() {
    let segments: [[u8; 16]; 3] = [[0xc; 16], [0xb; 16], [0xa; 16]];
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    // Traffic class 0x12, label 0x34567, 64 bytes of payload, hop limit 9.
    frame.extend([0x61, 0x23, 0x45, 0x67, 0, 64, 43, 9]);
    frame.extend([1; 16]);
    frame.extend([0xa; 16]);
    // Of 6 units; two segments are left of three; flags and a tag.
    frame.extend([59, 6, 4, 2, 2, 0xaa, 0xbb, 0xcc]);
    frame.extend(segments.as_flattened());
    // What follows is nobody's here; and there is padding behind the packet.
    frame.extend([1, 2, 3, 4, 5, 6, 7, 8, 0xee, 0xee, 0xee]);
    let mut expected = frame.clone();
    expected[21] = 8;
    expected[38..54].fill(0xb);
    expected[SRH + 3] = 1;
    for behaviour in [Behaviour::End(PSP), Behaviour::EndX(USP), Behaviour::EndT(USD)] {
        assert_eq!(open_as(behaviour, &frame), Ok((expected.clone(), None)));
    }
    let mut last = expected.clone();
    last[21] = 7;
    last[38..54].fill(0xc);
    last[SRH + 3] = 0;
    assert_eq!(open_as(Behaviour::End(Flavours::NONE), &expected), Ok((last.clone(), None)));
    // §4.16.1: with PSP the header of 56 bytes goes.
    last.drain(SRH..SRH + 56);
    (last[19], last[20]) = (8, 59);
    assert_eq!(open_as(Behaviour::End(PSP), &expected), Ok((last, None)));
    // The others are the last ones, and it is not.
    for behaviour in Behaviour::all().filter(|behaviour| behaviour.flavours().is_none()) {
        assert_eq!(open_with(behaviour, true, &frame).err(), HEADER);
    }
}

#[test]
fn rfc8986_s5_paths_are_pushed_as_another_maker_pushes_them() {
    let frames = golden::frames("srv6.txt");
    for (what, layer3) in [("-of-0800", Some(ethernet::IPV4)), ("-of-86dd", Some(ethernet::IPV6)), ("-l2", None)] {
        // H.Encaps, H.Encaps.Red, and the latter of a path of one segment.
        for (name, path, listed) in [
            ("h.encaps", &PATH[..], &PATH[..]),
            ("h.encaps.red", &PATH, &PATH[1..]),
            ("h.encaps.red.one", &PATH[2..], &[]),
        ] {
            // A label of 1 is Open vSwitch's for one that is 0.
            let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv6(V6[0], path[0]).label(1);
            let mut header = outer.proto(srv6::next_header(listed, layer3).unwrap()).build();
            srv6::write(listed, path.len() as u8 - 1, layer3, &mut header).unwrap();
            let template = Template::new(Kind::Srv6, &header).unwrap();
            let bytes = variants::push_from(&template, &variants::inner(layer3), layer3);
            assert_eq!(bytes, frames[&format!("{name}{what}")], "{name}{what}");
            checksums::verify(&bytes).unwrap();
        }
    }
}

#[test]
fn frames_of_another_maker_go_from_segment_to_segment_and_come_out() {
    let frames = golden::frames("srv6.txt");
    let end = |name: &str, behaviour: Behaviour, then: &str| {
        let (bytes, layer3) = open_as(behaviour, &frames[name]).unwrap();
        assert_eq!((&bytes, layer3), (&frames[then], None), "{name}, {}", behaviour.name());
        checksums::verify(&bytes).unwrap();
    };
    let out = |name: &str, behaviour: Behaviour, inner: &(Vec<u8>, Option<u16>)| {
        assert_eq!(open_as(behaviour, &frames[name]).as_ref(), Ok(inner), "{name}, {}", behaviour.name());
    };
    let taking = |layer3: Option<u16>| match layer3 {
        Some(ethernet::IPV4) => vec![Behaviour::EndDx4, Behaviour::EndDt4, Behaviour::EndDt46, Behaviour::End(USD)],
        Some(_) => vec![Behaviour::EndDx6, Behaviour::EndDt6, Behaviour::EndDt46, Behaviour::EndX(USD)],
        None => vec![Behaviour::EndDx2],
    };
    for (what, layer3) in [("of-0800", Some(ethernet::IPV4)), ("of-86dd", Some(ethernet::IPV6)), ("l2", None)] {
        for name in [format!("h.encaps-{what}"), format!("h.encaps.red-{what}")] {
            end(&name, Behaviour::End(Flavours::NONE), &format!("{name}-end"));
            end(&format!("{name}-end"), Behaviour::EndX(USD), &format!("{name}-end-end"));
            end(&format!("{name}-end"), Behaviour::EndT(PSP), &format!("{name}-end-end.psp"));
            for behaviour in taking(layer3) {
                let inner = (variants::inner(layer3), layer3);
                out(&format!("{name}-end-end"), behaviour, &inner);
                out(&format!("{name}-end-end.psp"), behaviour, &inner);
                out(&format!("h.encaps.red.one-{what}"), behaviour, &inner);
            }
            // Whoever takes something else out drops it.
            for behaviour in Behaviour::all().filter(|behaviour| behaviour.flavours().is_none()) {
                if !taking(layer3).contains(&behaviour) {
                    assert_eq!(open_as(behaviour, &frames[&format!("{name}-end-end")]).err(), HEADER);
                }
            }
        }
    }
    // A transport behind options and a segment routing header with TLVs.
    end("udp", Behaviour::End(Flavours::NONE), "udp-end");
    end("udp", Behaviour::EndX(PSP), "udp-end.psp");
    checksums::verify(&frames["udp"]).unwrap();
    // §4.16.2: with USP the upper layer gets it without the header, and without USP as it is.
    let last = |flavours| open_with(Behaviour::End(flavours), true, &frames["udp-end"]).unwrap().0;
    assert_eq!(last(USP), frames["udp-end.psp"]);
    assert_eq!(last(USD), frames["udp-end"]);
    assert_eq!(open_as(Behaviour::End(USP), &frames["udp-end"]).err(), HEADER);
    assert_eq!(open_with(Behaviour::EndDt4, true, &frames["udp-end"]).unwrap().0, frames["udp-end"]);
}

#[test]
fn rfc8986_s4_1_checks_come_in_their_order() {
    let reason = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = on_the_way();
        change(&mut frame);
        open_as(Behaviour::End(Flavours::NONE), &frame).err()
    };
    assert_eq!(reason(&|_| {}), None);
    // S05: before the fields are looked at.
    let expired = Some(DropReason::TtlExpired);
    assert_eq!([2, 1, 0].map(|limit| reason(&|f| f[21] = limit)), [None, expired, expired]);
    assert_eq!(reason(&|f| (f[21], f[SRH + 3]) = (1, 200)), expired);
    // S09: the last entry is beyond the header; more segments are left than a reduced header has.
    assert_eq!([2, 3, 255].map(|last| reason(&|f| f[SRH + 4] = last)), [None, HEADER, HEADER]);
    assert_eq!([3, 4, 255].map(|left| reason(&|f| f[SRH + 3] = left)), [None, HEADER, HEADER]);
    assert_eq!(reason(&|f| (f[SRH + 3], f[SRH + 4]) = (255, 254)), HEADER);
    assert_eq!(reason(&|f| (f[SRH + 3], f[SRH + 4]) = (255, 255)), HEADER);
    // Headers of 0 and of 8 bytes of segments have no entry.
    assert_eq!([0, 1].map(|units| reason(&|f| (f[SRH + 1], f[SRH + 4]) = (units, 0))), [HEADER; 2]);
    // S02: with no segment left, neither hop limit nor list matter to whoever takes the packet out of it.
    let mut frame = on_the_way();
    (frame[21], frame[SRH + 3], frame[SRH + 4]) = (0, 0, 200);
    assert_eq!(open_as(Behaviour::End(USD), &frame).unwrap().0, variants::inner(Some(ethernet::IPV4)));
    // Longer than the packet.
    assert_eq!(reason(&|f| f[SRH + 1] = 200), HEADER);
    // The payload is longer than the packet; shorter than the header.
    assert_eq!(reason(&|f| f[18] = 9), HEADER);
    assert_eq!(reason(&|f| f[19] = 55), HEADER);
    // Other routing headers count only while segments are left in them.
    assert_eq!(reason(&|f| f[SRH + 2] = 0), HEADER);
    let mut frame = on_the_way();
    (frame[SRH + 2], frame[SRH + 3]) = (3, 0);
    assert_eq!(open_as(Behaviour::EndDt4, &frame).unwrap().0, variants::inner(Some(ethernet::IPV4)));
    // It is no IPv6 packet at all, or begins behind a label.
    assert_eq!(reason(&|f| f[14] = 0x40), HEADER);
    let labelled = Frame::new().eth([1; 6], [2; 6]).mpls(5, 0, 9).ipv6(V6[0], V6[1]).udp(1, 2).build();
    for frame in [labelled, Frame::udp4().build()] {
        assert_eq!(open_with(Behaviour::End(USD), true, &frame).err(), HEADER);
    }
}

#[test]
fn the_first_of_several_segment_routing_headers_with_segments_left_counts() {
    let frame = |lefts: [u8; 2]| {
        let routing = |left, segments: &[[u8; 16]]| Extension::Routing { left, segments: segments.to_vec() };
        let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv6(V6[0], V6[1]).ttl(9);
        let outer = outer.extension(routing(lefts[0], &PATH)).extension(routing(lefts[1], &PATH[..1]));
        outer.proto(ip::NO_NEXT).build()
    };
    let end = |lefts| {
        let (bytes, _) = open_with(Behaviour::End(PSP), true, &frame(lefts)).unwrap();
        (bytes.len() - 54, bytes[21], bytes[53])
    };
    // Lengths of both, then hop limits, then the last byte of the destination.
    assert_eq!(end([2, 1]), (56 + 24, 8, 0x12));
    assert_eq!(end([1, 1]), (24, 8, 0x11));
    assert_eq!(end([0, 1]), (56, 8, 0x11));
    assert_eq!(end([0, 0]), (56 + 24, 9, 2));
}

#[test]
fn fragments_go_on_but_nothing_is_taken_out_of_them() {
    let fragment = |left, offset, more| {
        let routing = Extension::Routing { left, segments: PATH.to_vec() };
        let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv6(V6[0], V6[1]).extension(routing);
        outer.extension(Extension::Fragment { offset, more }).proto(ip::IPIP).payload(&[0x45; 40]).build()
    };
    for (offset, more) in [(0, true), (3, true), (3, false)] {
        let (bytes, _) = open_as(Behaviour::End(Flavours::NONE), &fragment(2, offset, more)).unwrap();
        assert_eq!((bytes[SRH + 3], &bytes[38..54]), (1, &PATH[1][..]));
        let frame = fragment(0, offset, more);
        for behaviour in [Behaviour::End(USD), Behaviour::EndDt46] {
            assert_eq!(open_as(behaviour, &frame).err(), Some(DropReason::TunnelFragment));
            assert_eq!(open_with(behaviour, true, &frame).unwrap().0, frame);
        }
    }
}

#[test]
fn rfc8200_s4_2_destination_options_that_must_be_understood_are_not() {
    let reason = |options: [u8; 6]| {
        let mut frame = on_the_way();
        frame.splice(SRH..SRH, [&[ip::ROUTING, 0][..], &options].concat());
        (frame[19], frame[20]) = (frame[19] + 8, ip::DESTINATION_OPTIONS);
        let reason = open_as(Behaviour::End(PSP), &frame).err();
        // Hop-by-hop options are not for this node to look at (RFC 8200 §4).
        frame[20] = ip::HOP_BY_HOP;
        assert_eq!(open_as(Behaviour::End(PSP), &frame).err(), None);
        reason
    };
    let option = Some(DropReason::TunnelOption);
    assert_eq!(reason([0; 6]), None);
    assert_eq!(reason([1, 4, 0, 0, 0, 0]), None);
    assert_eq!(reason([0x3e, 2, 9, 9, 0, 0]), None);
    assert_eq!([0x40, 0x80, 0xc9].map(|kind| reason([1, 0, kind, 2, 0, 0])), [option; 3]);
    // Cut off in its value, and behind its type.
    assert_eq!([reason([1, 5, 0, 0, 0, 0]), reason([0, 0, 0, 0, 0, 4])], [HEADER; 2]);
}

#[test]
fn outer_tags_stay_and_packets_without_an_ethernet_header_are_taken_too() {
    let frame = on_the_way();
    let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    let (bytes, _) = open_as(Behaviour::End(Flavours::NONE), &frame).unwrap();
    let pool = Pool::new(1, 4096, 640).unwrap();
    for (packet_bytes, at, layer3) in [(&tagged[..], 18, false), (&frame[14..], 0, true)] {
        let mut packet = pool.packet(packet_bytes).unwrap();
        if layer3 {
            packet.flags.insert(PacketFlags::LAYER3);
            packet.l3_type = ethernet::IPV6;
        }
        extract_whole(&mut packet, None, ExtractOptions::default()).unwrap();
        let mut ext = Ext::default();
        open(&mut packet, &mut ext, Kind::Srv6, &options(Behaviour::End(Flavours::NONE), false)).unwrap();
        assert_eq!((&packet.data()[at..], &packet.data()[..at]), (&bytes[14..], &packet_bytes[..at]));
        assert_eq!(packet.flags.contains(PacketFlags::LAYER3), layer3);
        pool.free(&mut packet);
    }
}

/// An extension header, right or nearly so, without its first byte.
fn header() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let units = |bytes: Vec<u8>| {
        let mut header = vec![0, (bytes.len() / 8) as u8];
        header.extend(bytes);
        header
    };
    let options = (0usize..3, any::<[u8; 4]>()).prop_map(move |(n, start)| {
        let mut bytes = vec![0; 6 + 8 * n];
        bytes[..4].copy_from_slice(&start);
        units(bytes)
    });
    let kind = prop_oneof![3 => Just(ip::DESTINATION_OPTIONS), 1 => Just(ip::HOP_BY_HOP)];
    let options = (kind, prop_oneof![3 => Just(units(vec![0; 14])), 1 => options]);
    let routing = (0usize..5, prop_oneof![6 => 0u8..6, 1 => any::<u8>()], -1i8..2, 0usize..3, any::<[u8; 64]>());
    let routing = (routing, prop_oneof![8 => Just(4u8), 1 => any::<u8>()]).prop_map(
        move |((segments, left, last, tlvs, random), kind)| {
            let mut bytes = vec![kind, left, (segments as u8).wrapping_add_signed(last - 1), 0, 0, 0];
            bytes.extend(random.iter().cycle().take(16 * segments + 8 * tlvs));
            (ip::ROUTING, units(bytes))
        },
    );
    prop_oneof![1 => options, 3 => routing]
}

/// A frame with a chain of them.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let upper = prop_oneof![
        Just(ip::IPIP),
        Just(ip::IPV6),
        Just(ip::ETHERNET),
        Just(ip::UDP),
        Just(ip::FRAGMENT),
        Just(ip::NO_NEXT),
        any::<u8>()
    ];
    let rest = proptest::collection::vec(any::<u8>(), 0..80);
    let hop_limit = prop_oneof![1 => 0u8..3, 8 => Just(64u8)];
    let change = proptest::collection::vec((14usize..200, any::<u8>()), 0..2);
    (proptest::collection::vec(header(), 0..4), upper, rest, hop_limit, change, 0usize..8).prop_map(
        |(chain, upper, rest, hop_limit, changes, padding)| {
            let kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).chain([upper]).collect();
            let mut payload = Vec::new();
            for ((_, mut header), next) in chain.into_iter().zip(&kinds[1..]) {
                header[0] = *next;
                payload.append(&mut header);
            }
            payload.extend(rest);
            let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv6(V6[0], V6[1]).ttl(hop_limit).proto(kinds[0]);
            let mut bytes = outer.payload(&payload).build();
            bytes.extend(vec![0xee; padding]);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_is_treated_as_if_it_were_taken_apart_and_put_together(
        which in any::<prop::sample::Index>(),
        upper_layer in any::<bool>(),
        mut frame in frame(),
    ) {
        let behaviours: Vec<Behaviour> = Behaviour::all().collect();
        let behaviour = *which.get(&behaviours);
        // Each segment that a packet goes to takes one from its hop limit, so that it ends, whatever its headers say.
        for step in 0.. {
            prop_assert!(step <= 255);
            let expected = oracle::open(&frame, behaviour, upper_layer);
            let opened = open_with(behaviour, upper_layer, &frame);
            let as_opened = expected.as_ref().map(|it| (it.bytes.clone(), it.layer3)).map_err(|reason| *reason);
            prop_assert_eq!(opened, as_opened);
            match expected {
                Ok(Expected { bytes, advanced: true, .. }) => {
                    prop_assert!(bytes[21] < frame[21] && bytes.len() <= frame.len());
                    frame = bytes;
                }
                _ => break,
            }
        }
    }

    #[test]
    fn whatever_the_bytes_are_nothing_but_a_packet_comes_out(
        which in any::<prop::sample::Index>(),
        upper_layer in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let behaviours: Vec<Behaviour> = Behaviour::all().collect();
        let expected = oracle::open(&bytes, *which.get(&behaviours), upper_layer);
        let opened = open_with(*which.get(&behaviours), upper_layer, &bytes);
        prop_assert_eq!(opened.map(|(bytes, _)| bytes), expected.map(|expected| expected.bytes));
    }
}
