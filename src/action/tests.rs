//! Every leaf, on frames of every kind: what it changes, that all checksums are right afterwards, and that offsets stay true.

use super::{ethernet as eth, mpls, nsh, set_field, ttl, vlan};
use crate::flow::action::{Masked, Nsh, SetField};
use crate::flow::extract::{ExtractOptions, extract_whole};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags, Pool};
use crate::testing::checksums::{verify, verify_network};
use crate::testing::packets::{Extension, IP_A, IP_B, IP6_A, IP6_B, MAC_A, MAC_B, join, split};
use crate::testing::{Frame, checksums};
use crate::wire::{ethernet, icmpv6, ip};
use proptest::prelude::*;

const OPTIONS: ExtractOptions = ExtractOptions { vlan_depth: 2 };

/// Runs `f` on a packet of `bytes` with its offsets extracted.
fn with<R>(bytes: &[u8], f: impl FnOnce(&mut Packet) -> R) -> R {
    let pool = Pool::new(1, 68_000, 512).unwrap();
    let mut packet = pool.packet(bytes).unwrap();
    let _ = extract_whole(&mut packet, None, OPTIONS);
    let out = f(&mut packet);
    pool.free(&mut packet);
    out
}

/// The bytes after `f`, whose offsets must be those of a new extraction.
fn after(bytes: &[u8], f: impl FnOnce(&mut Packet) -> Result<(), DropReason>) -> Vec<u8> {
    with(bytes, |p| {
        assert_eq!(f(p), Ok(()));
        offsets_are_true(p);
        p.data().to_vec()
    })
}

fn offsets_are_true(p: &mut Packet) {
    let kept = (p.l2_5, p.l3, p.l4);
    let _ = extract_whole(p, None, OPTIONS);
    assert_eq!((kept.0, kept.1), (p.l2_5, p.l3), "offsets l2_5, l3");
    // Extraction does not look behind a label stack: the transport header is known until then, or not yet.
    if p.l2_5 == NONE && kept.2 != NONE {
        assert_eq!(kept.2, p.l4, "offset l4");
    }
}

fn set(bytes: &[u8], field: SetField) -> Vec<u8> {
    after(bytes, |p| set_field::apply(p, &field))
}

const ALL: fn([u8; 6], [u8; 6]) -> [u8; 12] = |dst, src| [dst, src].concat().try_into().unwrap();

fn set_ipv4(src: [u8; 4], dst: [u8; 4], tos: u8, ttl: u8) -> SetField {
    SetField::Ipv4 {
        src: Masked::<[u8; 4]>::full(src),
        dst: Masked::<[u8; 4]>::full(dst),
        tos: Masked::<u8>::full(tos),
        ttl: Masked::<u8>::full(ttl),
    }
}

fn set_ipv6_addresses(src: [u8; 16], dst: [u8; 16]) -> SetField {
    SetField::Ipv6 {
        src: Masked::<[u8; 16]>::full(src),
        dst: Masked::<[u8; 16]>::full(dst),
        label: Masked::<u32>::none(),
        tclass: Masked::<u8>::none(),
        hlimit: Masked::<u8>::none(),
    }
}

#[test]
fn rewritten_frame_is_the_frame_built_that_way() {
    let mac = [2, 9, 9, 9, 9, 9];
    let base = || Frame::new().eth(MAC_B, MAC_A).vlan(5);
    let four = |src, dst, tos, ttl| base().ipv4(src, dst).tos(tos).ttl(ttl);
    let six = |src, dst| base().ipv6(src, dst);
    let (s4, d4, s6, d6) = ([1, 2, 3, 4], [5, 6, 7, 8], [0x20; 16], [0x99; 16]);
    let cases: Vec<(Frame, SetField, Frame)> = vec![
        (
            Frame::udp4(),
            SetField::Ethernet(Masked::<[u8; 12]>::full(ALL(mac, MAC_B))),
            Frame::new().eth(mac, MAC_B).ipv4(IP_A, IP_B).udp(1000, 2000),
        ),
        (four(IP_A, IP_B, 0, 64).udp(1, 2), set_ipv4(s4, d4, 0x2e, 9), four(s4, d4, 0x2e, 9).udp(1, 2)),
        (
            four(IP_A, IP_B, 0, 64).udp(1, 2).no_checksum(),
            set_ipv4(s4, d4, 1, 1),
            four(s4, d4, 1, 1).udp(1, 2).no_checksum(),
        ),
        (
            four(IP_A, IP_B, 0, 64).options(&[1; 9]).tcp(1, 2),
            set_ipv4(s4, d4, 0, 64),
            four(s4, d4, 0, 64).options(&[1; 9]).tcp(1, 2),
        ),
        (four(IP_A, IP_B, 0, 64).icmp(8, 0, 1), set_ipv4(s4, d4, 0, 64), four(s4, d4, 0, 64).icmp(8, 0, 1)),
        (four(IP_A, IP_B, 0, 64).sctp(1, 2), set_ipv4(s4, d4, 0, 64), four(s4, d4, 0, 64).sctp(1, 2)),
        (six(IP6_A, IP6_B).udp(1, 2), set_ipv6_addresses(s6, d6), six(s6, d6).udp(1, 2)),
        (six(IP6_A, IP6_B).tcp(1, 2), set_ipv6_addresses(s6, d6), six(s6, d6).tcp(1, 2)),
        (six(IP6_A, IP6_B).icmpv6(128, 0, 7), set_ipv6_addresses(s6, d6), six(s6, d6).icmpv6(128, 0, 7)),
        (
            six(IP6_A, IP6_B).tcp(1, 2),
            SetField::Ipv6 {
                src: Masked::<[u8; 16]>::none(),
                dst: Masked::<[u8; 16]>::none(),
                label: Masked::<u32>::full(0x1_2345),
                tclass: Masked::<u8>::full(0xb8),
                hlimit: Masked::<u8>::full(3),
            },
            six(IP6_A, IP6_B).label(0x1_2345).tos(0xb8).ttl(3).tcp(1, 2),
        ),
        (
            four(IP_A, IP_B, 0, 64).tcp(1, 2).options(&[1; 4]),
            SetField::Tcp { src: Masked::<u16>::full(80), dst: Masked::<u16>::none() },
            four(IP_A, IP_B, 0, 64).tcp(80, 2).options(&[1; 4]),
        ),
        (
            six(IP6_A, IP6_B).extension(Extension::HopByHop(1)).udp(1, 2),
            SetField::Udp { src: Masked::<u16>::none(), dst: Masked { value: 0x1200, mask: 0xff00 } },
            six(IP6_A, IP6_B).extension(Extension::HopByHop(1)).udp(1, 0x1202),
        ),
        (
            four(IP_A, IP_B, 0, 64).sctp(1, 2),
            SetField::Sctp { src: Masked::<u16>::full(9), dst: Masked::<u16>::full(10) },
            four(IP_A, IP_B, 0, 64).sctp(9, 10),
        ),
        (
            four(IP_A, IP_B, 0, 64).icmp(8, 0, 5),
            SetField::Icmp { v6: false, kind: Masked::<u8>::full(0), code: Masked::<u8>::full(3) },
            four(IP_A, IP_B, 0, 64).icmp(0, 3, 5),
        ),
        (
            six(IP6_A, IP6_B).icmpv6(128, 0, 5),
            SetField::Icmp { v6: true, kind: Masked::<u8>::full(129), code: Masked::<u8>::none() },
            six(IP6_A, IP6_B).icmpv6(129, 0, 5),
        ),
        (
            base().arp(1, MAC_A, IP_A, [0; 6], IP_B),
            SetField::Arp {
                sip: Masked::<[u8; 4]>::full(s4),
                tip: Masked::<[u8; 4]>::full(d4),
                op: Masked::<u16>::full(2),
                sha: Masked::<[u8; 6]>::full(mac),
                tha: Masked { value: [7, 0, 0, 0, 0, 0], mask: [0xff, 0, 0, 0, 0, 0] },
            },
            base().arp(2, mac, s4, [7, 0, 0, 0, 0, 0], d4),
        ),
        (
            six(IP6_A, IP6_B).neighbour_solicitation(IP6_B).link_option(1, MAC_A),
            SetField::Nd {
                target: Masked::<[u8; 16]>::full(d6),
                sll: Masked::<[u8; 6]>::full(mac),
                tll: Masked::<[u8; 6]>::full(MAC_B),
            },
            six(IP6_A, IP6_B).neighbour_solicitation(d6).link_option(1, mac),
        ),
        (
            // An option of another length and kind (14, nonce) comes first.
            six(IP6_A, IP6_B).neighbour_advertisement(1 << 29, IP6_B).link_option(14, MAC_B).link_option(2, MAC_A),
            SetField::Nd {
                target: Masked::<[u8; 16]>::none(),
                sll: Masked::<[u8; 6]>::full(MAC_B),
                tll: Masked::<[u8; 6]>::full(mac),
            },
            six(IP6_A, IP6_B).neighbour_advertisement(1 << 29, IP6_B).link_option(14, MAC_B).link_option(2, mac),
        ),
        (
            six(IP6_A, IP6_B).neighbour_solicitation(IP6_B).link_option(1, MAC_A),
            SetField::NdExtensions { reserved: Masked::<u32>::full(0xe000_0001), options_type: Masked::<u8>::full(2) },
            six(IP6_A, IP6_B).neighbour_advertisement(0xe000_0001, IP6_B).link_option(2, MAC_A),
        ),
        (
            base().mpls(10, 1, 64).mpls(20, 2, 65).ipv4(IP_A, IP_B).udp(1, 2),
            SetField::Mpls(Masked { value: 0x0003_3000, mask: 0xffff_f000 }),
            base().mpls(0x33, 1, 64).mpls(20, 2, 65).ipv4(IP_A, IP_B).udp(1, 2),
        ),
        (
            base().nsh(1, 63, 0x0102_0304, [0; 16]).ipv4(IP_A, IP_B).udp(1, 2),
            SetField::Nsh {
                flags: Masked::<u8>::full(2),
                ttl: Masked::<u8>::full(5),
                path_hdr: Masked { value: 0xff, mask: 0xff },
                context: Masked::<[u8; 16]>::full([9; 16]),
            },
            base().nsh(2, 5, 0x0102_03ff, [9; 16]).ipv4(IP_A, IP_B).udp(1, 2),
        ),
    ];
    for (before, field, expected) in cases {
        for (before, mut expected) in
            [(before.clone(), expected.clone().build()), (before.clone().pad_to(120), expected.pad_to(120).build())]
        {
            if let SetField::NdExtensions { .. } = field {
                // The message keeps its type, 135 for 136, and the checksum knows.
                let at = 18 + 40;
                expected[at] = icmpv6::NEIGHBOUR_SOLICITATION;
                let checksum = u16::from_be_bytes([expected[at + 2], expected[at + 3]]) + 0x100;
                expected[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
            }
            let got = set(&before.build(), field.clone());
            assert_eq!(hex(&got), hex(&expected), "{field:?}");
            assert!(verify(&got).is_ok(), "{:?} {field:?}", verify(&got));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn header_that_is_not_there_is_not_set() {
    let frames = [
        Frame::udp4().build(),
        Frame::tcp6().build(),
        Frame::new().eth(MAC_B, MAC_A).arp(1, MAC_A, IP_A, MAC_B, IP_B).build(),
        Frame::new().eth(MAC_B, MAC_A).payload(&[0x45; 60]).build(),
        Frame::new().eth(MAC_B, MAC_A).mpls(5, 0, 1).ipv4(IP_A, IP_B).udp(1, 2).build(),
        Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).fragment(3, true).proto(ip::UDP).payload(&[1; 40]).build(),
    ];
    let (p, b) = (Masked::<u16>::full(0x5555), Masked::<u8>::full(0x55));
    for (i, frame) in frames.iter().enumerate() {
        let same = |field: SetField| assert_eq!(set(frame, field), *frame, "frame {i}");
        same(SetField::Sctp { src: p, dst: p });
        same(SetField::Icmp { v6: i % 2 == 0, kind: b, code: b });
        if i != 0 {
            same(SetField::Udp { src: p, dst: p });
            if i != 5 {
                same(set_ipv4([9; 4], [9; 4], 9, 9));
            }
        }
        if i != 1 {
            same(SetField::Tcp { src: p, dst: p });
            same(set_ipv6_addresses([9; 16], [9; 16]));
        }
        if i != 4 {
            same(SetField::Mpls(Masked::<u32>::full(9)));
        }
        same(SetField::SkbMark(Masked::<u32>::full(9)));
    }
}

#[test]
fn rfc8200_s8_1_destination_behind_a_routing_header_is_not_in_the_checksum() {
    let routed = |left, dst| {
        let segments = vec![[7; 16], [8; 16]];
        Frame::new().eth(MAC_B, MAC_A).ipv6(IP6_A, dst).extension(Extension::Routing { left, segments }).udp(1, 2)
    };
    for left in [0, 1] {
        let got = set(&routed(left, IP6_B).build(), set_ipv6_addresses(IP6_A, [9; 16]));
        assert_eq!(hex(&got), hex(&routed(left, [9; 16]).build()), "segments left {left}");
    }
}

#[test]
fn datagram_in_fragments_has_the_right_checksum_after_all_were_rewritten() {
    for frame in [Frame::udp4(), Frame::tcp4(), Frame::udp6(), Frame::tcp6()] {
        let parts = split(&frame.clone().payload(&[0xa5; 300]).build(), 14, 64);
        let rewritten: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| {
                let part = set(part, set_ipv4([1, 2, 3, 4], [4, 3, 2, 1], 0, 9));
                let part = set(&part, set_ipv6_addresses([0x11; 16], [0x23; 16]));
                let part = set(&part, SetField::Udp { src: Masked::<u16>::full(9), dst: Masked::<u16>::none() });
                let part = set(&part, SetField::Tcp { src: Masked::<u16>::full(9), dst: Masked::<u16>::none() });
                assert!(verify(&part).is_ok());
                part
            })
            .collect();
        let whole = join(&rewritten, 14);
        assert!(verify(&whole).unwrap() >= 1, "{:?}", verify(&whole));
        assert_ne!(rewritten[0], parts[0]);
        // Later fragments keep their data.
        let last = rewritten.last().unwrap();
        assert!(last.ends_with(&[0xa5; 8]));
    }
}

#[test]
fn checksum_that_was_wrong_stays_wrong() {
    let mut frame = Frame::tcp4().build();
    frame[14 + 20 + 16] ^= 0x10;
    let got = set(&frame, set_ipv4([1, 2, 3, 4], IP_B, 0, 64));
    assert!(verify(&got).unwrap_err().contains("TCP"));
    let mut frame = Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).sctp(1, 2).build();
    frame[14 + 20 + 8] ^= 0x10;
    let got = set(&frame, SetField::Sctp { src: Masked::<u16>::full(9), dst: Masked::<u16>::full(9) });
    assert!(verify(&got).unwrap_err().contains("SCTP"));
}

#[test]
fn udp_checksum_that_becomes_zero_is_sent_as_all_ones() {
    // Some source port makes the sum 0xffff; all of them are tried.
    let mut seen = 0;
    with(&Frame::udp4().build(), |p| {
        for port in 0..=u16::MAX {
            set_field::ports(p, ip::UDP, Masked::<u16>::full(port), Masked::<u16>::none());
            let checksum = [p.data()[40], p.data()[41]];
            assert_ne!(checksum, [0, 0]);
            if checksum == [0xff, 0xff] {
                seen += 1;
                assert_eq!(verify(p.data()), Ok(2));
            }
        }
        assert_eq!(verify(p.data()), Ok(2));
    });
    assert!(seen >= 1);
}

#[test]
fn udp_lite_checksum_follows_the_addresses() {
    // With full coverage (length 0) UDP-Lite sums as UDP does, with its own protocol number (RFC 3828 §3.1).
    let header = |src: [u8; 4]| {
        let mut segment = vec![0, 1, 0, 2, 0, 0, 0, 0, 5, 5];
        let pseudo = [&src[..], &IP_B, &[0, ip::UDP_LITE, 0, segment.len() as u8], &segment].concat();
        let checksum = checksums::naive(&pseudo);
        segment[6..8].copy_from_slice(&checksum.to_be_bytes());
        Frame::new().eth(MAC_B, MAC_A).ipv4(src, IP_B).proto(ip::UDP_LITE).payload(&segment).build()
    };
    assert_eq!(set(&header(IP_A), set_ipv4([9, 8, 7, 6], IP_B, 0, 64)), header([9, 8, 7, 6]));
}

#[test]
fn tags_nest_and_come_off_in_reverse() {
    let inner = Frame::udp4().build();
    let one = after(&inner, |p| vlan::push(p, ethernet::VLAN, 0xf00a));
    assert_eq!(one, Frame::new().eth(MAC_B, MAC_A).vlan(0xe00a).ipv4(IP_A, IP_B).udp(1000, 2000).build());
    let two = after(&one, |p| vlan::push(p, ethernet::VLAN_8021AD, 0x1014));
    let expected = Frame::new().eth(MAC_B, MAC_A).tag(ethernet::VLAN_8021AD, 0x14).vlan(0xe00a).ipv4(IP_A, IP_B);
    assert_eq!(two, expected.udp(1000, 2000).build());
    assert_eq!(after(&two, vlan::pop), one);
    assert_eq!(after(&one, vlan::pop), inner);
    assert_eq!(after(&inner, vlan::pop), inner);
}

#[test]
fn label_stack_entries_nest_and_come_off_in_reverse() {
    for frame in [Frame::udp4(), Frame::new().eth(MAC_B, MAC_A).vlan(5).ipv4(IP_A, IP_B).tcp(1, 2)] {
        let inner = frame.build();
        let one = after(&inner, |p| mpls::push(p, 0x0000_a140, ethernet::MPLS));
        let two = after(&one, |p| mpls::add(p, 0x0000_b040, ethernet::MPLS_MULTICAST, mpls::TUNNEL_L3));
        let link = inner.len() - frame_tail(&inner);
        assert_eq!(two[link..link + 8], [0, 0, 0xb0, 0x40, 0, 0, 0xa1, 0x40]);
        assert_eq!(two[link - 2..link], [0x88, 0x48]);
        assert_eq!(two[link + 8..], inner[link..]);
        assert_eq!(after(&two, |p| mpls::pop(p, ethernet::MPLS)), one);
        assert_eq!(after(&one, |p| mpls::pop(p, ethernet::IPV4)), inner);
        assert_eq!(after(&inner, |p| mpls::pop(p, ethernet::IPV4)), inner);
        // Any other EtherType pushes nothing.
        assert_eq!(after(&inner, |p| mpls::push(p, 1, ethernet::IPV4)), inner);
    }
}

/// Length of an IPv4 frame from its network header on.
fn frame_tail(frame: &[u8]) -> usize {
    with(frame, |p| p.len() - p.l3 as usize)
}

#[test]
fn ethernet_over_mpls_goes_in_and_out() {
    let inner = Frame::udp4().build();
    with(&inner, |p| {
        mpls::add(p, 0x0000_a140, ethernet::MPLS, 0).unwrap();
        assert!(p.flags.contains(PacketFlags::LAYER3));
        assert_eq!((p.l3_type, p.l2_5), (ethernet::MPLS, 0));
        eth::push(p, MAC_A, MAC_B).unwrap();
        assert_eq!(p.data()[..18], [&MAC_A[..], &MAC_B, &[0x88, 0x47, 0, 0, 0xa1, 0x40]].concat());
        assert_eq!(p.data()[18..], inner);
        eth::pop(p).unwrap();
        mpls::pop(p, ethernet::TEB).unwrap();
        assert!(!p.flags.contains(PacketFlags::LAYER3));
        assert_eq!(p.data(), inner);
        offsets_are_true(p);
    });
}

#[test]
fn ethernet_header_goes_with_its_tags_and_comes_back() {
    let frame = Frame::new().eth(MAC_B, MAC_A).vlan(7).vlan(8).ipv6(IP6_A, IP6_B).udp(1, 2).build();
    with(&frame, |p| {
        eth::pop(p).unwrap();
        assert_eq!((p.l3_type, p.data()), (ethernet::IPV6, &frame[22..]));
        offsets_are_true(p);
        assert_eq!(eth::pop(p), Err(DropReason::ActionHeader));
        // What is in the packet can be set without an Ethernet header too.
        set_field::apply(p, &set_ipv6_addresses([1; 16], [2; 16])).unwrap();
        ttl::dec_ttl(p).unwrap();
        assert_eq!(verify_network(ethernet::IPV6, p.data()), Ok(1));
        vlan::pop(p).unwrap();
        assert_eq!(vlan::push(p, ethernet::VLAN, 1), Err(DropReason::ActionHeader));
        eth::set_addresses(p, &[3; 12]).unwrap();
        eth::push(p, MAC_B, MAC_A).unwrap();
        let frame = Frame::new().eth(MAC_B, MAC_A).ipv6([1; 16], [2; 16]).ttl(63).udp(1, 2).build();
        assert_eq!(hex(p.data()), hex(&frame));
        offsets_are_true(p);
        assert_eq!(eth::push(p, MAC_A, MAC_B), Err(DropReason::ActionHeader));
    });
}

#[test]
fn nsh_carries_ethernet_ip_and_itself() {
    let header = |context: Vec<u8>, mdtype| Nsh { flags: 2, ttl: 63, mdtype, np: 0, path_hdr: 0x0102_03ff, context };
    let inner = Frame::udp4().build();
    with(&inner, |p| {
        nsh::push(p, &header(vec![4; 16], 1)).unwrap();
        assert_eq!(p.data()[..8], [0x2f, 0xc6, 1, 3, 1, 2, 3, 0xff]);
        nsh::push(p, &header(vec![6; 4], 2)).unwrap();
        assert_eq!(p.data()[..8], [0x2f, 0xc3, 2, 4, 1, 2, 3, 0xff]);
        assert_eq!((p.l3_type, p.l3, p.len()), (ethernet::NSH, 0, inner.len() + 36));
        offsets_are_true(p);
        nsh::pop(p).unwrap();
        let _ = extract_whole(p, None, OPTIONS);
        nsh::pop(p).unwrap();
        assert_eq!((p.data(), p.flags.contains(PacketFlags::LAYER3)), (&inner[..], false));
        // Now as a layer-3 packet.
        let _ = extract_whole(p, None, OPTIONS);
        eth::pop(p).unwrap();
        nsh::push(p, &header(vec![4; 16], 1)).unwrap();
        assert_eq!(p.data()[3], 1);
        nsh::pop(p).unwrap();
        assert_eq!((p.l3_type, p.data()), (ethernet::IPV4, &inner[14..]));
        nsh::pop(p).unwrap();
        assert_eq!(p.data(), &inner[14..]);
    });
    for bad in [header(vec![0; 12], 1), header(vec![0; 5], 2), header(vec![0; 248], 2), header(vec![0; 16], 3)] {
        assert_eq!(with(&inner, |p| nsh::push(p, &bad)), Err(DropReason::ActionHeader));
    }
}

#[test]
fn nsh_that_extraction_does_not_take_for_nsh_is_not_set() {
    let frame = Frame::new().eth(MAC_B, MAC_A).nsh(0, 1, 2, [0; 16]).ipv4(IP_A, IP_B).build();
    let field = || SetField::Nsh {
        flags: Masked::<u8>::full(3),
        ttl: Masked::<u8>::full(9),
        path_hdr: Masked::<u32>::full(7),
        context: Masked::<[u8; 16]>::full([5; 16]),
    };
    assert_ne!(set(&frame, field()), frame);
    // Another version, a length that is not that of the metadata type, an unknown type, a header that is cut off.
    for (at, byte) in [(14, 0x40), (15, 0x45), (16, 3), (15, 0x7f)] {
        let mut bad = frame.clone();
        bad[at] = byte;
        assert_eq!(set(&bad, field()), bad);
    }
}

#[test]
fn nsh_of_unknown_content_is_dropped() {
    with(&Frame::new().eth(MAC_B, MAC_A).nsh(0, 1, 2, [0; 16]).ipv4(IP_A, IP_B).build(), |p| {
        eth::pop(p).unwrap();
        p.data_mut()[3] = 0xfe;
        assert_eq!(nsh::pop(p), Err(DropReason::ActionHeader));
    });
}

#[test]
fn packet_that_would_go_on_with_ttl_zero_is_dropped() {
    for ttl in [0, 1, 2, 255] {
        let four = |ttl| Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).ttl(ttl).udp(1, 2);
        let five = |ttl| Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).options(&[1; 4]).ttl(ttl).udp(1, 2);
        let six = |ttl| Frame::new().eth(MAC_B, MAC_A).vlan(1).ipv6(IP6_A, IP6_B).ttl(ttl).udp(1, 2);
        let makers: [&dyn Fn(u8) -> Frame; 3] = [&four, &five, &six];
        for frame in makers {
            if ttl <= 1 {
                let expired = with(&frame(ttl).build(), |p| (ttl::dec_ttl(p), p.data().to_vec()));
                assert_eq!(expired, (Err(DropReason::TtlExpired), frame(ttl).build()));
            } else {
                assert_eq!(after(&frame(ttl).build(), ttl::dec_ttl), frame(ttl - 1).build());
            }
        }
    }
    let other = Frame::new().eth(MAC_B, MAC_A).mpls(1, 0, 0).ipv4(IP_A, IP_B).ttl(0).udp(1, 2).build();
    assert_eq!(after(&other, ttl::dec_ttl), other);
}

#[test]
fn rfc1624_s3_checksum_after_dec_ttl_for_every_checksum_before() {
    with(&Frame::udp4().build(), |p| {
        for checksum in 0..=u16::MAX {
            p.data_mut()[22..24].copy_from_slice(&[64, ip::UDP]);
            p.data_mut()[24..26].copy_from_slice(&checksum.to_be_bytes());
            if checksum & 1 == 0 { ttl::dec_ttl(p) } else { ttl::route(p, &[1; 12]) }.unwrap();
            let expected = crate::wire::checksum::update16(checksum, 0x4011, 0x3f11).to_be_bytes();
            assert_eq!(p.data()[22..26], [63, ip::UDP, expected[0], expected[1]], "{checksum:04x}");
        }
    });
}

#[test]
fn push_without_headroom_changes_nothing() {
    let pool = Pool::new(1, 256, 3).unwrap();
    let frame = Frame::udp4().build();
    let header = Nsh { flags: 0, ttl: 1, mdtype: 2, np: 0, path_hdr: 0, context: vec![] };
    let mut p = pool.packet(&frame).unwrap();
    let _ = extract_whole(&mut p, None, OPTIONS);
    let before = (p.l2_5, p.l3, p.l4);
    assert_eq!(vlan::push(&mut p, ethernet::VLAN, 1), Err(DropReason::NoHeadroom));
    assert_eq!(mpls::push(&mut p, 1, ethernet::MPLS), Err(DropReason::NoHeadroom));
    assert_eq!(mpls::add(&mut p, 1, ethernet::MPLS, 0), Err(DropReason::NoHeadroom));
    assert_eq!(nsh::push(&mut p, &header), Err(DropReason::NoHeadroom));
    assert_eq!((p.data(), (p.l2_5, p.l3, p.l4)), (&frame[..], before));
    p.flags.insert(PacketFlags::LAYER3);
    assert_eq!(eth::push(&mut p, MAC_A, MAC_B), Err(DropReason::NoHeadroom));
    pool.free(&mut p);
}

fn masked<const N: usize>() -> impl Strategy<Value = Masked<[u8; N]>> {
    (any::<[u8; N]>(), any::<[u8; N]>(), 0u8..3).prop_map(|(value, mask, kind)| match kind {
        0 => Masked { value, mask: [0xff; N] },
        1 => Masked { value: [0; N], mask: [0; N] },
        _ => Masked { value: core::array::from_fn(|i| value[i] & mask[i]), mask },
    })
}

fn masked_u8() -> impl Strategy<Value = Masked<u8>> {
    masked::<1>().prop_map(|m| Masked { value: m.value[0], mask: m.mask[0] })
}

fn masked_u16() -> impl Strategy<Value = Masked<u16>> {
    masked::<2>().prop_map(|m| Masked { value: u16::from_be_bytes(m.value), mask: u16::from_be_bytes(m.mask) })
}

fn masked_u32() -> impl Strategy<Value = Masked<u32>> {
    masked::<4>().prop_map(|m| Masked { value: u32::from_be_bytes(m.value), mask: u32::from_be_bytes(m.mask) })
}

fn any_set() -> impl Strategy<Value = SetField> {
    let ports = || (masked_u16(), masked_u16());
    prop_oneof![
        masked().prop_map(SetField::Ethernet),
        (masked(), masked(), masked_u8(), masked_u8()).prop_map(|(src, dst, tos, ttl)| SetField::Ipv4 {
            src,
            dst,
            tos,
            ttl
        }),
        (masked(), masked(), masked_u32(), masked_u8(), masked_u8())
            .prop_map(|(src, dst, label, tclass, hlimit)| SetField::Ipv6 { src, dst, label, tclass, hlimit }),
        ports().prop_map(|(src, dst)| SetField::Tcp { src, dst }),
        ports().prop_map(|(src, dst)| SetField::Udp { src, dst }),
        ports().prop_map(|(src, dst)| SetField::Sctp { src, dst }),
        (any::<bool>(), masked_u8(), masked_u8()).prop_map(|(v6, kind, code)| SetField::Icmp { v6, kind, code }),
        (masked(), masked(), masked_u16(), masked(), masked()).prop_map(|(sip, tip, op, sha, tha)| SetField::Arp {
            sip,
            tip,
            op,
            sha,
            tha
        }),
        (masked(), masked(), masked()).prop_map(|(target, sll, tll)| SetField::Nd { target, sll, tll }),
        (masked_u32(), masked_u8())
            .prop_map(|(reserved, options_type)| SetField::NdExtensions { reserved, options_type }),
        masked_u32().prop_map(SetField::Mpls),
        (masked_u8(), masked_u8(), masked_u32(), masked()).prop_map(|(flags, ttl, path_hdr, context)| SetField::Nsh {
            flags,
            ttl,
            path_hdr,
            context
        }),
    ]
}

#[derive(Clone, Debug)]
enum Leaf {
    Set(SetField),
    Addresses([u8; 12]),
    DecTtl,
    Route([u8; 12]),
    PushVlan(u16),
    PopVlan,
    PushMpls(u32),
    AddMpls(u32, u16),
    PopMpls(u16),
    PushEth,
    PopEth,
    PushNsh(u8),
    PopNsh,
}

fn any_leaf() -> impl Strategy<Value = Leaf> {
    prop_oneof![
        8 => any_set().prop_map(Leaf::Set),
        1 => any::<[u8; 12]>().prop_map(Leaf::Addresses),
        2 => Just(Leaf::DecTtl),
        1 => any::<[u8; 12]>().prop_map(Leaf::Route),
        1 => any::<u16>().prop_map(Leaf::PushVlan),
        1 => Just(Leaf::PopVlan),
        1 => any::<u32>().prop_map(Leaf::PushMpls),
        1 => (any::<u32>(), 0u16..2).prop_map(|(lse, flags)| Leaf::AddMpls(lse, flags)),
        1 => prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8847), Just(0x6558), any::<u16>()].prop_map(Leaf::PopMpls),
        1 => Just(Leaf::PushEth),
        1 => Just(Leaf::PopEth),
        1 => (0u8..64).prop_map(Leaf::PushNsh),
        1 => Just(Leaf::PopNsh),
    ]
}

fn run(leaf: &Leaf, p: &mut Packet) -> Result<(), DropReason> {
    match leaf {
        Leaf::Set(field) => set_field::apply(p, field),
        Leaf::Addresses(a) => eth::set_addresses(p, a),
        Leaf::DecTtl => ttl::dec_ttl(p),
        Leaf::Route(a) => ttl::route(p, a),
        Leaf::PushVlan(tci) => vlan::push(p, ethernet::VLAN, *tci),
        Leaf::PopVlan => vlan::pop(p),
        Leaf::PushMpls(lse) => mpls::push(p, *lse, ethernet::MPLS),
        Leaf::AddMpls(lse, flags) => mpls::add(p, *lse, ethernet::MPLS, *flags),
        Leaf::PopMpls(ethertype) => mpls::pop(p, *ethertype),
        Leaf::PushEth => eth::push(p, MAC_A, MAC_B),
        Leaf::PopEth => eth::pop(p),
        Leaf::PushNsh(units) => {
            let context = vec![0; usize::from(*units) * 4];
            nsh::push(p, &Nsh { flags: 0, ttl: 9, mdtype: 2, np: 0, path_hdr: 7, context })
        }
        Leaf::PopNsh => nsh::pop(p),
    }
}

fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        // splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as u32
    }
}

proptest! {
    #[test]
    fn every_checksum_is_right_after_any_rewrite(seed in any::<u64>(), fields in proptest::collection::vec(any_set(), 1..4)) {
        let before = Frame::random(&mut numbers(seed)).build();
        let count = verify(&before).unwrap();
        let mut bytes = before.clone();
        for field in &fields {
            // A neighbour message whose type was changed is still verified; a label of the bottom bit would move what is verified,
            // and a new first ND option type changes which option is found, not the sum.
            if matches!(field, SetField::Mpls(_)) {
                continue;
            }
            bytes = with(&bytes, |p| {
                prop_assert_eq!(set_field::apply(p, field), Ok(()));
                let offsets = (p.l2_5, p.l3, p.l4);
                let _ = extract_whole(p, None, OPTIONS);
                prop_assert_eq!(offsets, (p.l2_5, p.l3, p.l4));
                Ok(p.data().to_vec())
            })?;
            prop_assert_eq!(verify(&bytes), Ok(count), "{:?}\n{}\n{}", field, hex(&before), hex(&bytes));
        }
        prop_assert_eq!(bytes.len(), before.len());
    }

    #[test]
    fn dec_ttl_is_a_set_of_the_ttl_less_one(seed in any::<u64>()) {
        let bytes = Frame::random(&mut numbers(seed)).build();
        with(&bytes, |p| {
            let key = extract_whole(p, None, OPTIONS).unwrap();
            let ttl = key.base.nw_ttl;
            let dec = ttl::dec_ttl(p);
            let got = p.data().to_vec();
            p.data_mut().copy_from_slice(&bytes);
            if !matches!(key.base.eth_type.get(), ethernet::IPV4 | ethernet::IPV6) {
                prop_assert_eq!((dec, got), (Ok(()), bytes.clone()));
            } else if ttl <= 1 {
                prop_assert_eq!((dec, got), (Err(DropReason::TtlExpired), bytes.clone()));
            } else {
                let less = Masked::<u8>::full(ttl - 1);
                let none = Masked::<u8>::none();
                set_field::ipv4(p, &Masked::<[u8; 4]>::none(), &Masked::<[u8; 4]>::none(), none, less);
                set_field::ipv6(p, &Masked::<[u8; 16]>::none(), &Masked::<[u8; 16]>::none(), Masked::<u32>::none(), none, less);
                prop_assert_eq!((dec, &got[..]), (Ok(()), p.data()));
            }
            Ok(())
        })?;
    }

    #[test]
    fn route_is_set_addresses_and_dec_ttl(seed in any::<u64>(), addresses in any::<[u8; 12]>(), layer3 in any::<bool>()) {
        let bytes = Frame::random(&mut numbers(seed)).build();
        let start = |p: &mut Packet| {
            if layer3 {
                let _ = eth::pop(p);
            }
        };
        let both = with(&bytes, |p| {
            start(p);
            let result = eth::set_addresses(p, &addresses).and_then(|()| ttl::dec_ttl(p));
            (result, p.data().to_vec())
        });
        let routed = with(&bytes, |p| {
            start(p);
            (ttl::route(p, &addresses), p.data().to_vec())
        });
        prop_assert_eq!(both, routed);
    }

    #[test]
    fn leaves_keep_inside_the_packet_whatever_it_and_its_offsets_are(
        seed in any::<u64>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        from_frame in any::<bool>(),
        cut in 0usize..200,
        flips in proptest::collection::vec((0usize..160, any::<u8>()), 0..4),
        offsets in proptest::option::of((any::<u16>(), any::<u16>(), any::<u16>(), 0u16..210)),
        layer3 in any::<bool>(),
        l3_type in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x894f), Just(0x8847), any::<u16>()],
        headroom in 0u16..80,
        leaves in proptest::collection::vec(any_leaf(), 1..12),
    ) {
        let mut bytes = if from_frame { Frame::random(&mut numbers(seed)).build() } else { garbage };
        bytes.truncate(cut.max(1));
        for (at, value) in flips {
            if let Some(b) = bytes.get_mut(at) { *b = value; }
        }
        // The packet ends where the buffer does, so that a write behind it is seen by the debug build's slice checks or the sanitizer.
        let pool = Pool::new(1, 320, headroom.min(319)).unwrap();
        let Some(mut p) = pool.packet(&bytes) else { return Ok(()) };
        if layer3 {
            p.flags.insert(PacketFlags::LAYER3);
            p.l3_type = l3_type;
        }
        let _ = extract_whole(&mut p, None, OPTIONS);
        if let Some((l2_5, l3, l4, bound)) = offsets {
            let near = |o: u16| if o & 7 == 0 { NONE } else { o % bound.max(1) };
            (p.l2_5, p.l3, p.l4) = (near(l2_5), near(l3), near(l4));
        }
        for leaf in &leaves {
            let _ = run(leaf, &mut p);
            prop_assert!(p.headroom() + p.len() + p.tailroom() == 320);
        }
        pool.free(&mut p);
    }

    #[test]
    fn what_is_pushed_comes_off_again(seed in any::<u64>(), tci in any::<u16>(), lse in any::<u32>()) {
        let bytes = Frame::random(&mut numbers(seed)).build();
        with(&bytes, |p| {
            let offsets = (p.l2_5, p.l3, p.l4);
            prop_assert_eq!(vlan::push(p, ethernet::VLAN_8021AD, tci), Ok(()));
            prop_assert_eq!(vlan::pop(p), Ok(()));
            prop_assert_eq!(p.data(), &bytes[..]);
            prop_assert_eq!(offsets, (p.l2_5, p.l3, p.l4));
            let at = if p.l2_5 != NONE { p.l2_5 } else { p.l3 };
            if at != NONE {
                let ethertype = u16::from_be_bytes([bytes[usize::from(at) - 2], bytes[usize::from(at) - 1]]);
                // The bottom of the stack is where it was.
                let lse = if p.l2_5 == NONE { lse | 0x100 } else { lse & !0x100 };
                prop_assert_eq!(mpls::push(p, lse, ethernet::MPLS), Ok(()));
                prop_assert_eq!(mpls::pop(p, ethertype), Ok(()));
                prop_assert_eq!(p.data(), &bytes[..]);
                prop_assert_eq!(offsets, (p.l2_5, p.l3, p.l4));
            }
            Ok(())
        })?;
    }
}
