//! `tnl_push` and `tnl_pop` through the worker.

use proptest::prelude::*;
use zerocopy::FromZeros;

use super::*;
use crate::flow::action::TunnelPush;
use crate::flow::key::{TUNNEL_KEY, TunnelLine};
use crate::testing::checksums;
use crate::tunnel::{Kind, Options, Tunnel, geneve, gre, gtpu, vxlan};

/// The port that tunnels come out of.
pub(super) const TUNNEL: u32 = 9;

/// Outer headers from 192.0.2.1 to 192.0.2.2 with identifier `id`; Geneve has an option.
fn outer(kind: Kind, id: u32) -> Vec<u8> {
    let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2]).ttl(64);
    let mut header = outer.udp(0, kind.port()).no_checksum().build();
    let mut line = TunnelLine::new_zeroed();
    line.id.set(id.into());
    match kind {
        Kind::Vxlan => vxlan::write(&line, false, None, &mut header).unwrap(),
        _ => geneve::write(&line, &[1, 2, 3, 1, 4, 5, 6, 7], None, &mut header).unwrap(),
    }
    header
}

fn push(kind: Kind, id: u32) -> Action {
    let push = TunnelPush { tnl_port: TUNNEL, out_port: 2, tnl_type: kind.number(), header: outer(kind, id) };
    Action::TunnelPush(Box::new(push))
}

/// What `tnl_push` makes of `frame`.
pub(super) fn wrapped(kind: Kind, id: u32, frame: &[u8]) -> Vec<u8> {
    let datapath = datapath();
    let mask = FlowMask::default();
    let actions = vec![push(kind, id), Action::Output(2)];
    datapath.flow_put(FlowPut::create(&FlowKey::default(), &mask, actions)).unwrap();
    let mut sink = sent();
    run(&mut datapath.worker().unwrap(), &[frame.to_vec()], &mut sink);
    sink.packets.remove(0).1
}

/// A flow for packets that came out of the tunnel with identifier `id`.
pub(super) fn inside(datapath: &Datapath, id: u32, dport: Option<u16>, actions: Vec<Action>) {
    let (mut key, mut mask) = on_dport(dport.unwrap_or(0));
    if dport.is_none() {
        mask.0.base.tp_dst.set(0);
        mask.0.base.eth_type.set(0);
    }
    key.base.in_port = TUNNEL;
    mask.0.tunnel.id.set(u64::MAX);
    key.tunnel.id.set(id.into());
    mask.0.tunnel.flags = TUNNEL_KEY;
    key.tunnel.flags = TUNNEL_KEY;
    datapath.flow_put(FlowPut::create(&key, &mask, actions)).unwrap();
}

#[test]
fn what_is_pushed_is_popped_and_looked_up_by_what_the_outer_headers_said() {
    for kind in [Kind::Vxlan, Kind::Geneve] {
        let bytes = wrapped(kind, 77, &udp(53));
        checksums::verify(&bytes).unwrap();
        assert!(bytes.ends_with(&udp(53)));
        let datapath = datapath();
        datapath.tunnel_set(TUNNEL, Tunnel::new(kind, Options::default()));
        flow(&datapath, kind.port(), vec![Action::TunnelPop(TUNNEL)]);
        inside(&datapath, 77, Some(53), vec![Action::Output(3)]);
        inside(&datapath, 78, Some(53), vec![Action::Output(4)]);
        let mut worker = datapath.worker().unwrap();
        let mut sink = sent();
        for _ in 0..3 {
            let frames = [bytes.clone(), wrapped(kind, 78, &udp(53)), wrapped(kind, 79, &udp(53))];
            let fates = run(&mut worker, &frames, &mut sink);
            assert_eq!(fates, [Fate::Transmitted, Fate::Transmitted, Fate::Dropped(DropReason::Miss)]);
        }
        sink.packets.sort();
        assert_eq!(sink.packets, [(3, udp(53)), (3, udp(53)), (3, udp(53)), (4, udp(53)), (4, udp(53)), (4, udp(53))]);
        assert_eq!(datapath.stats().recirculated, 9);
        assert_whole(&datapath);
        assert!(datapath.tunnel_del(TUNNEL) && !datapath.tunnel_del(TUNNEL));
        assert_eq!(run(&mut worker, &[bytes], &mut sink), [Fate::Dropped(DropReason::UnknownTunnel)]);
        assert_whole(&datapath);
    }
}

#[test]
fn what_was_known_of_the_outer_packet_is_not_known_of_the_inner_one() {
    // A list that is nothing but `tnl_pop` takes another way than one that does something first.
    for first in [None, Some(Action::Set(SetField::Priority(Masked::<u32>::full(3))))] {
        let datapath = datapath();
        datapath.tunnel_set(TUNNEL, Tunnel::new(Kind::Vxlan, Options::default()));
        let list = first.into_iter().chain([Action::TunnelPop(TUNNEL)]).collect();
        flow(&datapath, Kind::Vxlan.port(), list);
        let mut mask = FlowMask::default();
        mask.0.base.in_port = u32::MAX;
        let mut key = FlowKey::default();
        key.base.in_port = TUNNEL;
        let hand_up = Action::Userspace(Userspace::default());
        datapath.flow_put(FlowPut::create(&key, &mask, vec![hand_up])).unwrap();
        let mut packet = datapath.pool().packet(&wrapped(Kind::Vxlan, 77, &udp(53))).unwrap();
        (packet.in_port, packet.dp_hash, packet.skb_mark) = (1, 5, 6);
        (packet.ct_state, packet.ct_zone, packet.ct_mark) = (1, 7, 8);
        let mut worker = datapath.worker().unwrap();
        worker.process(core::slice::from_mut(&mut packet), Nanos(1), &mut sent());
        assert_eq!(worker.fates()[..1], [Fate::Upcall]);
        let mut upcall = datapath.upcall_pop().unwrap();
        let base = &upcall.key.base;
        assert_eq!((base.in_port, base.dp_hash, base.skb_mark, base.skb_priority), (TUNNEL, 0, 0, 0));
        assert_eq!((base.ct_state, base.ct_zone, base.ct_mark), (0, 0, 0));
        assert_eq!((upcall.key.tunnel.id.get(), upcall.packet.data()), (77, &udp(53)[..]));
        datapath.free(&mut upcall.packet);
        assert_whole(&datapath);
    }
}

#[test]
fn what_was_cut_goes_out_of_the_source_port_of_its_flow() {
    let frame = Frame::udp6().payload(&[7; 100]).build();
    let ports = [None, Some(Action::Trunc(64))].map(|cut| {
        let datapath = datapath();
        let list = cut.into_iter().chain([push(Kind::Vxlan, 1), Action::Output(2)]).collect();
        datapath.flow_put(FlowPut::create(&FlowKey::default(), &FlowMask::default(), list)).unwrap();
        let mut sink = sent();
        run(&mut datapath.worker().unwrap(), core::slice::from_ref(&frame), &mut sink);
        let bytes = sink.packets.remove(0).1;
        (bytes.len(), [bytes[34], bytes[35]])
    });
    assert_eq!(ports.map(|(len, _)| len), [50 + frame.len(), 50 + 64]);
    assert_eq!(ports[0].1, ports[1].1);
}

#[test]
fn packets_that_congestion_marked_on_their_way_stay_in_order() {
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    let datapath = popping(Kind::Vxlan, false);
    let marked = |number: u8, mark: u8| {
        let inner =
            |mark| Frame::new().eth([2; 6], [4; 6]).ipv4([10; 4], [11; 4]).tos(mark).udp(1000, 53).payload(&[number]);
        let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2]).tos(mark);
        let own = vec![8, 0, 0, 0, 0, 0, 1, 0];
        let whole = outer.udp(7, Kind::Vxlan.port()).no_checksum().payload(&[own, inner(ECT_0).build()].concat());
        (whole.build(), (2, inner(mark).build()))
    };
    let packets: Vec<_> = (0..32).map(|number| marked(number, if number % 3 == 0 { CE } else { ECT_0 })).collect();
    let (whole, out): (Vec<_>, Vec<_>) = packets.into_iter().unzip();
    let mut sink = sent();
    assert_eq!(run(&mut datapath.worker().unwrap(), &whole, &mut sink), [Fate::Transmitted; 32]);
    assert_eq!(sink.packets, out);
    assert_whole(&datapath);
}

#[test]
fn what_has_labels_in_front_is_no_packet_of_a_tunnel() {
    let datapath = datapath();
    datapath.tunnel_set(TUNNEL, Tunnel::new(Kind::Vxlan, Options::default()));
    let add = Action::AddMpls { lse: 0x100, ethertype: 0x8847, tun_flags: 0 };
    let list = vec![add, Action::PopMpls { ethertype: 0x8847 }, Action::TunnelPop(TUNNEL)];
    flow(&datapath, Kind::Vxlan.port(), list);
    let push = Action::PushMpls { lse: 0x100, ethertype: 0x8847 };
    flow(&datapath, Kind::Geneve.port(), vec![push, Action::TunnelPop(TUNNEL)]);
    let frames = [Kind::Vxlan, Kind::Geneve].map(|kind| wrapped(kind, 1, &udp(53)));
    let fates = run(&mut datapath.worker().unwrap(), &frames, &mut sent());
    assert_eq!(fates, [Fate::Dropped(DropReason::TunnelHeader); 2]);
    assert_whole(&datapath);
}

#[test]
fn sequence_numbers_are_a_tunnels_whichever_flow_a_packet_is_of() {
    let datapath = datapath();
    let outer = Frame::new().eth([0xb; 6], [0xa; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2]);
    let mut header = outer.proto(47).build();
    gre::write(&TunnelLine::new_zeroed(), true, None, &mut header).unwrap();
    let push = |tnl_port| {
        let push = TunnelPush { tnl_port, out_port: 2, tnl_type: Kind::Gre.number(), header: header.clone() };
        vec![Action::TunnelPush(Box::new(push)), Action::Output(2)]
    };
    for (dport, tunnel) in [(53, TUNNEL), (54, TUNNEL), (55, TUNNEL + 1)] {
        flow(&datapath, dport, push(tunnel));
    }
    let mut workers = [datapath.worker().unwrap(), datapath.worker().unwrap()];
    let mut sink = sent();
    for (i, dport) in [53, 54, 55, 53, 54].into_iter().enumerate() {
        assert_eq!(run(&mut workers[i % 2], &[udp(dport)], &mut sink), [Fate::Transmitted]);
    }
    let numbers: Vec<u32> =
        sink.packets.iter().map(|(_, bytes)| u32::from_be_bytes(*bytes[38..].first_chunk().unwrap())).collect();
    assert_eq!(numbers, [0, 1, 0, 2, 3]);
    assert_whole(&datapath);
}

#[test]
fn gtpu_messages_that_carry_no_packet_reach_flows_whole_with_what_their_header_said() {
    let datapath = datapath();
    datapath.tunnel_set(TUNNEL, Tunnel::new(Kind::Gtpu, Options::default()));
    flow(&datapath, gtpu::PORT, vec![Action::TunnelPop(TUNNEL)]);
    inside(&datapath, 5, Some(gtpu::PORT), vec![Action::Output(3)]);
    inside(&datapath, 5, Some(53), vec![Action::PushEth { dst: [2; 6], src: [4; 6] }, Action::Output(4)]);
    let message = |kind: u8, inner: &[u8]| {
        let [high, low] = (inner.len() as u16).to_be_bytes();
        let own = [&[0x30, kind, high, low, 0, 0, 0, 5], inner].concat();
        Frame::new()
            .eth([0xb; 6], [0xa; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2])
            .udp(9, gtpu::PORT)
            .payload(&own)
            .build()
    };
    let (echo, user) = (message(1, &[]), message(gtpu::G_PDU, &udp(53)[14..]));
    let mut sink = sent();
    let fates = run(&mut datapath.worker().unwrap(), &[echo.clone(), user], &mut sink);
    assert_eq!(fates, [Fate::Transmitted, Fate::Transmitted]);
    sink.packets.sort();
    let framed = [&[2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0][..], &udp(53)[14..]].concat();
    assert_eq!(sink.packets, [(3, echo), (4, framed)]);
    assert_whole(&datapath);
}

#[test]
fn tunnel_in_tunnel_ends_at_the_limit_of_recirculations() {
    let mut bytes = udp(53);
    for _ in 0..9 {
        bytes = wrapped(Kind::Vxlan, 5, &bytes);
    }
    let datapath = datapath();
    datapath.tunnel_set(TUNNEL, Tunnel::new(Kind::Vxlan, Options::default()));
    let (mut key, mut mask) = on_dport(4789);
    (key.base.in_port, mask.0.base.in_port) = (0, 0);
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::TunnelPop(TUNNEL)])).unwrap();
    let mut worker = datapath.worker().unwrap();
    assert_eq!(run(&mut worker, &[bytes], &mut sent()), [Fate::Dropped(DropReason::RecirculationLimit)]);
    assert_eq!(datapath.stats().recirculated, 8);
    assert_whole(&datapath);
}

#[test]
fn pushed_packets_begin_with_new_metadata_and_without_what_was_cut() {
    let datapath = datapath();
    let list = vec![
        Action::Set(SetField::SkbMark(Masked::<u32>::full(7))),
        Action::Trunc(30),
        push(Kind::Vxlan, 5),
        Action::Recirc(3),
    ];
    flow(&datapath, 53, list);
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    (key.base.in_port, key.base.recirc_id) = (2, 3);
    (mask.0.base.in_port, mask.0.base.recirc_id, mask.0.base.skb_mark) = (u32::MAX, u32::MAX, u32::MAX);
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(4)])).unwrap();
    let mut sink = sent();
    assert_eq!(run(&mut datapath.worker().unwrap(), &[udp(53)], &mut sink), [Fate::Transmitted]);
    assert_eq!(sink.packets.len(), 1);
    assert_eq!((sink.packets[0].0, &sink.packets[0].1[50..]), (4, &udp(53)[..30]));
    checksums::verify(&sink.packets[0].1[..50 + 30]).unwrap();
}

#[test]
fn packets_without_headroom_are_moved_to_be_pushed() {
    let datapath = datapath();
    flow(&datapath, 53, vec![push(Kind::Vxlan, 5), Action::Output(2)]);
    let mut worker = datapath.worker().unwrap();
    let pool = Arc::clone(datapath.pool());
    let mut packets: Vec<Packet> = (0..3).map(|_| pool.packet(&udp(53)).unwrap()).collect();
    // The middle one begins at the start of its buffer.
    let len = packets[1].len();
    let room = packets[1].headroom();
    assert!(packets[1].push_front(room));
    packets[1].data_mut()[..len].copy_from_slice(&udp(53));
    packets[1].truncate(len);
    packets.iter_mut().for_each(|p| p.in_port = 1);
    let mut sink = sent();
    worker.process(&mut packets, Nanos(1), &mut sink);
    worker.free(&mut packets, |_| {});
    assert_eq!(worker.fates()[..3], [Fate::Transmitted; 3]);
    let expected = wrapped(Kind::Vxlan, 5, &udp(53));
    assert_eq!(sink.packets, vec![(2, expected); 3]);
    assert_eq!(datapath.stats().moved, 1);
    assert_whole(&datapath);
    drop(worker);
    assert_eq!(pool.available(), 600);
}

/// Flows, drops, rounds and fates have been counted alike; all counters.
pub(super) fn same_counts(datapaths: &[Datapath; 2]) -> Result<[Stats; 2], TestCaseError> {
    let flows = datapaths.each_ref().map(|datapath| {
        let mut flows: Vec<_> = datapath.flow_dump().into_iter().map(|flow| (*flow.key.lines(), flow.stats)).collect();
        flows.sort_by_key(|(lines, _)| *lines);
        flows
    });
    prop_assert_eq!(&flows[0], &flows[1]);
    let [ours, right] = datapaths.each_ref().map(|datapath| datapath.stats());
    prop_assert_eq!(ours.dropped, right.dropped);
    prop_assert_eq!((ours.recirculated, ours.fates()), (right.recirculated, right.packets_in));
    Ok([ours, right])
}

/// A datapath that takes packets out of tunnels: in one pass, or, because of an action more, in two.
pub(super) fn popping(kind: Kind, two_passes: bool) -> Datapath {
    let datapath = datapath();
    datapath.tunnel_set(TUNNEL, Tunnel::new(kind, Options { ecn: true, ..Options::default() }));
    let mut list = vec![Action::TunnelPop(TUNNEL)];
    if two_passes {
        list.insert(0, Action::Set(SetField::SkbMark(Masked::<u32>::none())));
    }
    flow(&datapath, kind.port(), list);
    inside(&datapath, 1, Some(53), vec![Action::Output(2)]);
    inside(&datapath, 1, Some(54), vec![Action::PushVlan { tpid: 0x8100, tci: 0x1005 }, Action::Output(3)]);
    inside(&datapath, 1, Some(55), vec![Action::Recirc(1)]);
    inside(&datapath, 2, None, vec![Action::Output(4)]);
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    (key.base.in_port, key.base.recirc_id) = (TUNNEL, 1);
    (mask.0.base.in_port, mask.0.base.recirc_id) = (u32::MAX, u32::MAX);
    mask.0.tunnel.ipv4_src = [255; 4];
    key.tunnel.ipv4_src = [192, 0, 2, 1];
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(2)])).unwrap();
    flow(&datapath, 53, vec![Action::Output(3)]);
    datapath
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_pass_does_what_two_do(
        geneve in any::<bool>(),
        bursts in proptest::collection::vec(
            proptest::collection::vec((0u32..4, 52u16..57, 0u8..6, 0usize..100, any::<u8>()), 1..40),
            1..5,
        ),
    ) {
        let kind = if geneve { Kind::Geneve } else { Kind::Vxlan };
        let datapaths = [popping(kind, false), popping(kind, true)];
        let mut workers = datapaths.each_ref().map(|datapath| datapath.worker().unwrap());
        for burst in bursts {
            let frames: Vec<Vec<u8>> = burst.into_iter().map(|(id, dport, what, at, value)| {
                let inner = match what {
                    0 => Frame::udp6().build(),
                    1 => Frame::tcp4().build(),
                    _ => udp(dport),
                };
                let mut bytes = if id == 3 { udp(dport) } else { wrapped(kind, id, &inner) };
                // Something of the outer or inner headers is another.
                if what == 5 && at < bytes.len() && at >= 12 {
                    bytes[at] = value;
                }
                bytes
            }).collect();
            let mut sinks = [sent(), sent()];
            let fates: Vec<Vec<Fate>> =
                workers.iter_mut().zip(&mut sinks).map(|(worker, sink)| run(worker, &frames, sink)).collect();
            prop_assert_eq!(&fates[0], &fates[1]);
            let [mut ours, mut right] = sinks.map(|sink| sink.packets);
            ours.sort();
            right.sort();
            prop_assert_eq!(ours, right);
        }
        same_counts(&datapaths)?;
    }
}
