//! Bursts that come out of one tunnel as a whole.

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::prelude::*;

use super::tunnels::{TUNNEL, inside, popping, same_counts, wrapped};
use super::*;
use crate::tunnel::{Kind, Options, Tunnel};

/// What is sent, and every upcall's key and packet.
type Seen = (Vec<(u32, Vec<u8>)>, Vec<(FlowKey, Vec<u8>)>);

fn carry(datapath: &Datapath, worker: &mut Worker, frames: &[(Vec<u8>, u32)], expects: bool) -> (Vec<Fate>, Seen) {
    let pool = Arc::clone(datapath.pool());
    let mut packets: Vec<Packet> = frames.iter().map(|(frame, _)| pool.packet(frame).unwrap()).collect();
    for (packet, (_, mark)) in packets.iter_mut().zip(frames) {
        (packet.in_port, packet.skb_mark) = (1, *mark);
    }
    if expects {
        worker.expect_pops();
    }
    let mut sink = sent();
    worker.process(&mut packets, Nanos(1000), &mut sink);
    worker.free(&mut packets, |_| {});
    let mut upcalls = Vec::new();
    while let Some(mut upcall) = datapath.upcall_pop() {
        upcalls.push((upcall.key, upcall.packet.data().to_vec()));
        datapath.free(&mut upcall.packet);
    }
    sink.packets.sort();
    upcalls.sort_by_key(|(key, bytes)| (*key.lines(), bytes.clone()));
    (worker.fates()[..frames.len()].to_vec(), (sink.packets, upcalls))
}

/// As [`wrapped`], which takes its time, once for each packet.
fn wrapped_before(kind: Kind, id: u32, inner: &[u8]) -> Vec<u8> {
    type Frames = HashMap<(u32, u32, Vec<u8>), Vec<u8>>;
    thread_local!(static FRAMES: RefCell<Frames> = RefCell::default());
    FRAMES.with_borrow_mut(|frames| {
        frames.entry((kind.number(), id, inner.to_vec())).or_insert_with(|| wrapped(kind, id, inner)).clone()
    })
}

/// Sets the outer IPv4 header's checksum right again.
fn mend(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = crate::wire::checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn bursts_out_of_one_tunnel_are_expected_after_the_first_and_not_after_one_that_differs() {
    let datapath = popping(Kind::Vxlan, false);
    let mut worker = datapath.worker().unwrap();
    let good = vec![(wrapped(Kind::Vxlan, 1, &udp(53)), 0); 8];
    let mut bad = good.clone();
    bad[7].0[22] ^= 1;
    let mut expectations = Vec::new();
    for burst in [&good, &good, &good, &bad, &good] {
        let _ = carry(&datapath, &mut worker, burst, false);
        expectations.push(worker.expects_pops());
    }
    // After the bad one the worker is patient for a while.
    assert_eq!(expectations, [true, true, true, false, false]);
    let stats = datapath.stats();
    assert_eq!((stats.transmitted, stats.dropped[DropReason::TunnelChecksum as usize]), (39, 1));
    assert_whole(&datapath);
}

#[test]
fn a_newer_flow_that_looks_at_more_of_the_outer_headers_tells_packets_of_a_burst_apart() {
    let datapath = popping(Kind::Vxlan, false);
    let mut worker = datapath.worker().unwrap();
    let mut frames = vec![(wrapped(Kind::Vxlan, 2, &udp(60)), 0); 8];
    frames[5].0[15] = 0x20;
    mend(&mut frames[5].0);
    let ports = |seen: &Seen| seen.0.iter().map(|(port, _)| *port).collect::<Vec<_>>();
    // The first burst makes the caches know the flow.
    for expects in [false, true] {
        let (_, seen) = carry(&datapath, &mut worker, &frames, expects);
        assert!(worker.expects_pops());
        assert_eq!(ports(&seen), [4; 8]);
    }
    datapath.flow_flush();
    flow(&datapath, Kind::Vxlan.port(), vec![Action::TunnelPop(TUNNEL)]);
    for (tos, port) in [(0, 2), (0x20, 3)] {
        let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
        (key.base.in_port, mask.0.base.in_port) = (TUNNEL, u32::MAX);
        (key.tunnel.tos, mask.0.tunnel.tos) = (tos, 0xff);
        datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(port)])).unwrap();
    }
    for expects in [true, false, true] {
        let (_, seen) = carry(&datapath, &mut worker, &frames, expects);
        assert_eq!(ports(&seen), [2, 2, 2, 2, 2, 2, 2, 3]);
    }
}

#[test]
fn packets_whose_inside_would_begin_beyond_16_bits_are_not_taken_out() {
    let datapath = popping(Kind::Vxlan, false);
    let mut worker = datapath.worker().unwrap();
    let frame = wrapped(Kind::Vxlan, 1, &udp(53));
    let good = vec![(frame.clone(), 0); 8];
    for _ in 0..2 {
        let _ = carry(&datapath, &mut worker, &good, false);
    }
    assert!(worker.expects_pops());
    let pool = crate::packet::Pool::new(8, 140_000, 65_500).unwrap();
    let mut packets: Vec<Packet> = (0..8).map(|_| pool.packet(&frame).unwrap()).collect();
    packets.iter_mut().for_each(|packet| packet.in_port = 1);
    worker.process(&mut packets, Nanos(1), &mut sent());
    assert_eq!(worker.fates()[..8], [Fate::Dropped(DropReason::TunnelHeader); 8]);
    packets.iter_mut().for_each(|packet| pool.free(packet));
    assert_whole(&datapath);
}

fn prepared(kind: Kind, two_passes: bool, ecn: bool, looks_at: (u8, u8, u8)) -> Datapath {
    let datapath = popping(kind, two_passes);
    datapath.tunnel_set(TUNNEL, Tunnel::new(kind, Options { ecn, ..Options::default() }));
    inside(&datapath, 4, None, vec![Action::Userspace(Userspace::default())]);
    // The flow that takes packets out looks at more than the port.
    let list: Vec<Action> = datapath
        .flow_dump()
        .into_iter()
        .find(|flow| flow.key.base.tp_dst.get() == kind.port())
        .map(|flow| {
            datapath.flow_del(FlowId::Exactly(&flow.key, &flow.mask)).unwrap();
            flow.actions.to_vec()
        })
        .unwrap();
    let (mut key, mut mask) = on_dport(kind.port());
    (mask.0.base.nw_tos, mask.0.base.nw_ttl) = (looks_at.0, looks_at.1);
    key.base.nw_ttl = 64;
    mask.0.base.eth_src = [looks_at.2; 6];
    key.base.eth_src = [0xa; 6];
    datapath.flow_put(FlowPut::create(&key, &mask, list)).unwrap();
    datapath
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whole_bursts_do_what_single_packets_do(
        geneve in any::<bool>(),
        ecn in any::<bool>(),
        looks_at in prop_oneof![Just((0, 0, 0)), (any::<u8>(), any::<u8>(), any::<u8>())],
        // Identifiers, inner packets.
        ids in prop_oneof![Just(vec![1u32]), Just(vec![2]), Just(vec![1, 2]), Just(vec![1, 2, 4]), Just(vec![5])],
        bursts in proptest::collection::vec(
            proptest::collection::vec((any::<proptest::sample::Index>(), 53u16..57, 0u8..24, any::<u8>()), 4..40),
            1..5,
        ),
        // What is another in some packets: where in the outer headers, which value, how often, and whether the checksum is mended.
        flip in proptest::option::of((12usize..60, any::<u8>(), 1u8..8, any::<bool>())),
    ) {
        let kind = if geneve { Kind::Geneve } else { Kind::Vxlan };
        let datapaths = [prepared(kind, false, ecn, looks_at), prepared(kind, true, ecn, looks_at)];
        let mut workers = datapaths.each_ref().map(|datapath| datapath.worker().unwrap());
        for (number, burst) in bursts.into_iter().enumerate() {
            let frames: Vec<(Vec<u8>, u32)> = burst.into_iter().enumerate().map(|(i, (id, dport, what, other))| {
                let inner = match what {
                    0 => Frame::udp6().build(),
                    1 => Frame::tcp4().build(),
                    2 => Frame::udp4().vlan(5).build(),
                    _ => udp(dport),
                };
                let mut bytes = wrapped_before(kind, *id.get(&ids), &inner);
                match flip {
                    Some((at, value, often, mends)) if other % 8 < often && number + i != 0 => {
                        bytes[at] = value;
                        if mends {
                            mend(&mut bytes);
                        }
                    }
                    _ => {}
                }
                if what == 23 {
                    bytes.extend([0; 6]);
                }
                (bytes, u32::from(what == 22))
            }).collect();
            let [ours, right] = [0, 1].map(|i| carry(&datapaths[i], &mut workers[i], &frames, number > 0));
            prop_assert_eq!(ours, right);
        }
        let [ours, right] = same_counts(&datapaths)?;
        prop_assert_eq!((ours.packets_in, ours.bytes_in), (right.packets_in, right.bytes_in));
        let hits = |stats: &Stats| stats.exact_hits + stats.megaflow_hits + stats.misses;
        prop_assert_eq!(hits(&ours), hits(&right));
    }
}
