//! Frames for the switch under test: mostly valid ones between few hosts, so that flows meet packets, and damaged ones.

use super::choices::Choices;
use crate::testing::packets::{Extension, Frame};

/// One of a few hosts' MAC addresses.
pub fn mac(c: &mut Choices<'_>) -> [u8; 6] {
    [2, 0, 0, 0, 0, c.byte() & 3]
}

/// One of a few hosts' IPv4 addresses.
pub fn ipv4(c: &mut Choices<'_>) -> [u8; 4] {
    let bits = c.byte();
    [10, 0, bits >> 6, bits & 3]
}

/// One of a few hosts' IPv6 addresses.
pub fn ipv6(c: &mut Choices<'_>) -> [u8; 16] {
    let bits = c.byte();
    let mut address = [0; 16];
    (address[0], address[7], address[15]) = (0xfd, bits >> 6, bits & 3);
    address
}

/// One of a few ports, now and then any.
pub fn port(c: &mut Choices<'_>) -> u16 {
    match c.byte() {
        bits @ ..0xf0 => u16::from(bits & 3) + 1000,
        _ => c.pick(&[0, 53, 0xffff, 0x1234]),
    }
}

/// A frame.
pub fn frame(c: &mut Choices<'_>) -> Vec<u8> {
    let kind = c.below(32);
    if kind == 31 {
        return (0..c.byte()).map(|_| c.byte()).collect();
    }
    if kind == 30 {
        // Anything that the builder can build.
        let mut state = c.word();
        let mut random = move || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (state >> ((state >> 28) + 4) ^ state).wrapping_mul(277_803_737) >> 8
        };
        return damaged(c, Frame::random(&mut random).build());
    }
    let mut f = Frame::new().eth(mac(c), mac(c));
    let tags = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3][c.below(12)];
    for _ in 0..tags {
        f = f.tag(c.pick(&[0x8100, 0x88a8]), c.short() & 0xe003);
    }
    if c.once_in(16) {
        f = f.snap();
    }
    let labels = if kind >= 26 { 1 + c.below(4) } else { 0 };
    for _ in 0..labels {
        f = f.mpls(u32::from(c.byte() & 3), 0, c.byte());
    }
    if kind == 25 {
        f = f.nsh(c.byte() & 3, c.byte() & 63, u32::from(c.byte()), c.array()).eth(mac(c), mac(c));
    }
    if kind == 24 {
        f = f.arp(1 + u16::from(c.byte() & 1), mac(c), ipv4(c), mac(c), ipv4(c));
        return damaged(c, f.pad_to(60).build());
    }
    let is_v6 = kind % 3 == 2;
    f = if is_v6 { internet6(c, f) } else { internet4(c, f) };
    let (f, is_whole) = transport(c, f, kind / 3, is_v6);
    let f = if is_whole { f } else { f.payload(&vec![0x5a; usize::from(c.byte() & 31)]) };
    let f = if c.once_in(3) { f.pad_to(60) } else { f };
    damaged(c, f.build())
}

fn ttl(c: &mut Choices<'_>) -> u8 {
    c.pick(&[64, 2, 1, 0, 255, 3, 63, 64])
}

fn internet4(c: &mut Choices<'_>, f: Frame) -> Frame {
    let mut f = f.ipv4(ipv4(c), ipv4(c)).ttl(ttl(c)).tos(c.byte() & 0x2d);
    if c.once_in(8) {
        f = f.options(&[1; 12]);
    }
    match c.below(16) {
        15 => f.fragment(0, true),
        14 => f.dont_fragment(),
        _ => f,
    }
}

fn internet6(c: &mut Choices<'_>, f: Frame) -> Frame {
    let mut f = f.ipv6(ipv6(c), ipv6(c)).ttl(ttl(c)).tos(c.byte() & 0x2d).label(u32::from(c.byte() & 3));
    match c.below(16) {
        15 => f = f.extension(Extension::HopByHop(c.byte() & 1)),
        14 => {
            let segments = vec![ipv6(c), ipv6(c)];
            f = f.extension(Extension::Routing { left: c.byte() & 1, segments });
        }
        13 => f = f.extension(Extension::Ah),
        12 => {
            // Longer than any sender would make it.
            for _ in 0..c.byte() & 63 {
                f = f.extension(Extension::Destination(0));
            }
        }
        11 => f = f.fragment(0, c.once_in(2)),
        _ => {}
    }
    f
}

/// What is behind the IP header. True if nothing may follow.
fn transport(c: &mut Choices<'_>, f: Frame, kind: usize, is_v6: bool) -> (Frame, bool) {
    let f = match (kind, is_v6) {
        (0 | 1, _) => f.udp(port(c), port(c)),
        (2 | 3, _) => {
            let f = f.tcp(port(c), port(c)).flags(u16::from(c.byte()));
            if c.once_in(4) { f.options(&[1; 8]) } else { f }
        }
        (4, true) => f.udp(port(c), port(c)),
        (4, false) => f.udp(port(c), port(c)).no_checksum(),
        (5, _) => f.sctp(port(c), port(c)),
        (6, true) => f.icmpv6(c.pick(&[128, 129, 1]), c.byte() & 1, c.word()),
        (6, false) => f.icmp(c.pick(&[8, 0, 3]), c.byte() & 1, c.word()),
        (7, true) => {
            let f = match c.below(2) {
                0 => f.neighbour_solicitation(ipv6(c)),
                _ => f.neighbour_advertisement(c.word(), ipv6(c)),
            };
            let options = c.below(3);
            return ((0..options).fold(f, |f, _| f.link_option(c.pick(&[1, 2, 14]), mac(c))), true);
        }
        (7, false) => f.igmp(0x11, c.byte(), [224, 0, 0, 1]),
        // A later fragment, UDP-Lite (with a checksum over all of it), no protocol at all.
        (8, _) => match c.below(4) {
            0 => f.fragment(1 + u16::from(c.byte()), c.once_in(2)).proto(17),
            1 => return (f.proto(136).payload(&[3, 0xe8, 7, 0xd0, 0, 12, 0x12, 0x34, 1, 2, 3, 4]), true),
            _ => f,
        },
        _ => f.udp(port(c), port(c)),
    };
    (f, false)
}

/// Mostly the same; sometimes cut short, or with bytes changed.
fn damaged(c: &mut Choices<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    match c.below(12) {
        11 => bytes.truncate(c.below(120)),
        10 => {
            for _ in 0..1 + c.below(3) {
                let (at, value) = (c.below(90), c.byte());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
        9 => bytes.extend(vec![0; c.below(8)]),
        _ => {}
    }
    bytes
}
