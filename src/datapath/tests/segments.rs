//! Paths of SRv6 segments through workers: H.Encaps, and each segment's behaviour where the packet comes by.

use super::*;
use crate::flow::action::TunnelPush;
use crate::testing::checksums;
use crate::tunnel::{Behaviour, Flavours, Kind, Options, Tunnel, srv6};
use crate::wire::ethernet;

/// The port that packets come in again on; those of further segments follow.
const TUNNEL: u32 = 9;
/// Where the path begins, and its segments.
const SOURCE: [u8; 16] = [0xfd; 16];
const PATH: [[u8; 16]; 3] = [[0xa; 16], [0xb; 16], [0xc; 16]];
const PSP: Flavours = Flavours { psp: true, ..Flavours::NONE };

/// Outer headers of a path, from which the first segment is left out if it is `reduced`.
fn path(segments: &[[u8; 16]], reduced: bool, layer3: Option<u16>) -> Action {
    let listed = &segments[usize::from(reduced)..];
    let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv6(SOURCE, segments[0]).ttl(64).label(1);
    let mut header = outer.proto(srv6::next_header(listed, layer3).unwrap()).build();
    srv6::write(listed, segments.len() as u8 - 1, layer3, &mut header).unwrap();
    let push = TunnelPush { tnl_port: TUNNEL, out_port: 2, tnl_type: Kind::Srv6.number(), header };
    Action::TunnelPush(Box::new(push))
}

/// A flow for packets of `in_port` with this IPv6 destination.
fn to(datapath: &Datapath, in_port: u32, dst: [u8; 16], actions: Vec<Action>) {
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    (key.base.in_port, mask.0.base.in_port) = (in_port, u32::MAX);
    key.base.eth_type.set(ethernet::IPV6);
    mask.0.base.eth_type.set(u16::MAX);
    (key.ipv6.dst, mask.0.ipv6.dst) = (dst, [255; 16]);
    datapath.flow_put(FlowPut::create(&key, &mask, actions)).unwrap();
}

/// Has segment `sid` stand for `behaviour`; its packets come from `in_port`, and again on `port`.
fn segment(datapath: &Datapath, in_port: u32, sid: [u8; 16], behaviour: Behaviour, port: u32) {
    let options = Options { behaviour: Some(behaviour), ..Options::default() };
    datapath.tunnel_set(port, Tunnel::new(Kind::Srv6, options));
    to(datapath, in_port, sid, vec![Action::TunnelPop(port)]);
}

/// A flow for all else of `port`, with these actions.
fn out_of(datapath: &Datapath, port: u32, ethertype: u16, actions: Vec<Action>) {
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    (key.base.in_port, mask.0.base.in_port) = (port, u32::MAX);
    key.base.eth_type.set(ethertype);
    mask.0.base.eth_type.set(u16::MAX);
    // By what the outer headers said.
    (key.tunnel.ipv6_src, mask.0.tunnel.ipv6_src) = (SOURCE, [255; 16]);
    datapath.flow_put(FlowPut::create(&key, &mask, actions)).unwrap();
}

/// The actions that put `frame`'s own Ethernet header in front again.
fn reframed(frame: &[u8], port: u32) -> Vec<Action> {
    let (dst, src) = (frame[..6].try_into().unwrap(), frame[6..12].try_into().unwrap());
    vec![Action::PushEth { dst, src }, Action::Output(port)]
}

/// An IPv4 packet for port 53, with checksums.
fn v4() -> Vec<u8> {
    Frame::new().eth([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(9, 53).payload(b"wye").build()
}

/// Runs one frame through a datapath, which sends it by port 3, and returns it.
#[track_caller]
fn pass(datapath: &Datapath, frame: Vec<u8>) -> Vec<u8> {
    let mut sink = sent();
    assert_eq!(run(&mut datapath.worker().unwrap(), &[frame], &mut sink), [Fate::Transmitted]);
    assert_whole(datapath);
    assert_eq!((sink.packets.len(), sink.packets[0].0), (1, 3));
    let (_, bytes) = sink.packets.remove(0);
    checksums::verify(&bytes).unwrap();
    bytes
}

#[test]
fn a_packet_goes_by_way_of_two_segments_to_the_third_and_comes_out_as_it_was() {
    let (v4, v6) = (v4(), Frame::tcp6().payload(&[7; 301]).build());
    let (dt4, dt46) = (Behaviour::EndDt4, Behaviour::EndDt46);
    for (frame, layer3, last) in [
        (&v4, Some(ethernet::IPV4), dt4),
        (&v4, Some(ethernet::IPV4), dt46),
        (&v6, Some(ethernet::IPV6), dt46),
        (&v6, Some(ethernet::IPV6), Behaviour::EndDx6),
        (&v4, None, Behaviour::EndDx2),
        (&v6, None, Behaviour::EndDx2),
    ] {
        for (reduced, flavours) in [(false, Flavours::NONE), (true, Flavours::NONE), (false, PSP), (true, PSP)] {
            let [source, first, second, third] = [(); 4].map(|()| datapath());
            let mut list = vec![path(&PATH, reduced, layer3), Action::Output(3)];
            if layer3.is_some() {
                list.insert(0, Action::PopEth);
            }
            let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
            (key.base.in_port, mask.0.base.in_port) = (1, u32::MAX);
            source.flow_put(FlowPut::create(&key, &mask, list)).unwrap();
            segment(&first, 1, PATH[0], Behaviour::End(flavours), TUNNEL);
            to(&first, TUNNEL, PATH[1], vec![Action::Output(3)]);
            segment(&second, 1, PATH[1], Behaviour::EndX(flavours), TUNNEL);
            out_of(&second, TUNNEL, ethernet::IPV6, vec![Action::Output(3)]);
            segment(&third, 1, PATH[2], last, TUNNEL);
            let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
            let list = if layer3.is_some() { reframed(frame, 3) } else { vec![Action::Output(3)] };
            out_of(&third, TUNNEL, ethertype, list);

            let pushed = pass(&source, frame.clone());
            let header = if reduced { 40 + 40 } else { 40 + 56 };
            let inner = if layer3.is_some() { frame.len() - 14 } else { frame.len() };
            assert_eq!(pushed.len(), 14 + header + inner);
            let at_second = pass(&first, pushed.clone());
            assert_eq!((at_second.len(), at_second[21], &at_second[38..54]), (pushed.len(), 63, &PATH[1][..]));
            let at_third = pass(&second, at_second);
            assert_eq!((at_third[21], &at_third[38..54]), (62, &PATH[2][..]));
            assert_eq!(at_third.len(), 14 + inner + if flavours.psp { 40 } else { header });
            assert_eq!(pass(&third, at_third), *frame, "{} {reduced} {flavours:?}", last.name());
            let recirculated = [&source, &first, &second, &third].map(|datapath| datapath.stats().recirculated);
            assert_eq!(recirculated, [0, 1, 1, 1]);
        }
    }
}

#[test]
fn several_segments_of_a_path_may_be_one_nodes() {
    let frame = v4();
    let source = datapath();
    flow(&source, 53, vec![Action::PopEth, path(&PATH, false, Some(ethernet::IPV4)), Action::Output(3)]);
    let node = datapath();
    segment(&node, 1, PATH[0], Behaviour::End(Flavours::NONE), TUNNEL);
    segment(&node, TUNNEL, PATH[1], Behaviour::EndT(PSP), TUNNEL + 1);
    segment(&node, TUNNEL + 1, PATH[2], Behaviour::EndDx4, TUNNEL + 2);
    out_of(&node, TUNNEL + 2, ethernet::IPV4, reframed(&frame, 3));
    for round in 1..=3 {
        assert_eq!(pass(&node, pass(&source, frame.clone())), frame);
        assert_eq!(node.stats().recirculated, 3 * round);
    }
    // Each flow saw each packet once.
    for flow in node.flow_dump() {
        assert_eq!(flow.stats.packets, 3);
    }
}

#[test]
fn a_path_of_more_segments_of_one_node_than_it_looks_up_a_packet_ends_there() {
    let segments = [PATH[0]; 10];
    let source = datapath();
    flow(&source, 53, vec![Action::PopEth, path(&segments, true, Some(ethernet::IPV4)), Action::Output(3)]);
    let node = datapath();
    segment(&node, 1, PATH[0], Behaviour::End(Flavours::NONE), TUNNEL);
    to(&node, TUNNEL, PATH[0], vec![Action::TunnelPop(TUNNEL)]);
    let fates = run(&mut node.worker().unwrap(), &[pass(&source, v4())], &mut sent());
    assert_eq!(fates, [Fate::Dropped(DropReason::RecirculationLimit)]);
    assert_eq!(node.stats().recirculated, 8);
    assert_whole(&node);
}

#[test]
fn packets_that_a_segment_does_not_take_are_dropped_with_the_reason_and_others_of_the_burst_are_not() {
    let source = datapath();
    flow(&source, 53, vec![Action::PopEth, path(&PATH, false, Some(ethernet::IPV4)), Action::Output(3)]);
    let good = pass(&source, v4());
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    // Hop limit; segments left of none and of too many; a length beyond the packet.
    let frames = [good.clone(), with(21, 1), with(57, 0), with(57, 4), with(55, 99), good.clone()];
    let node = datapath();
    segment(&node, 1, PATH[0], Behaviour::End(Flavours::NONE), TUNNEL);
    to(&node, TUNNEL, PATH[1], vec![Action::Output(3)]);
    let mut sink = sent();
    let fates = run(&mut node.worker().unwrap(), &frames, &mut sink);
    let dropped = Fate::Dropped;
    let header = dropped(DropReason::TunnelHeader);
    let expected = [Fate::Transmitted, dropped(DropReason::TtlExpired), header, header, header, Fate::Transmitted];
    assert_eq!(fates, expected);
    assert_eq!(sink.packets.len(), 2);
    assert_eq!(sink.packets[0], sink.packets[1]);
    let mut counters = node.stats().dropped;
    assert_eq!(core::mem::take(&mut counters[DropReason::TtlExpired.index()]), 1);
    assert_eq!(core::mem::take(&mut counters[DropReason::TunnelHeader.index()]), 3);
    assert_eq!(counters.iter().sum::<u64>(), 0);
    assert_whole(&node);
}
