//! The worker as a whole: packets in, fates and packets out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::flow::action::{Action, Masked, SetField, Userspace};
use crate::flow::{FlowKey, FlowMask};
use crate::packet::{DropReason, Fate, Owner};
use crate::port::TxBurst;
use crate::testing::Frame;

/// Keeps what was sent: port and bytes.
#[derive(Default)]
struct Sent {
    packets: Vec<(u32, Vec<u8>)>,
    room: usize,
}

impl Sink for Sent {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        let n = burst.len().min(self.room);
        for i in 0..n {
            self.packets.push((port, burst.get(i).data().to_vec()));
        }
        self.room -= n;
        (n, DropReason::TxFull)
    }
}

fn sent() -> Sent {
    Sent { packets: Vec::new(), room: usize::MAX }
}

fn datapath() -> Datapath {
    let config = Config { flows_max: 1000, pool_buffers: 600, seed: Some(3), ..Config::default() };
    let datapath = Datapath::new(config).unwrap();
    for number in 1..=4 {
        let name = format!("p{number}").into();
        datapath.port_add(PortEntry { number, name, packet_len_max: 1518, up: true }).unwrap();
    }
    datapath
}

fn udp(dport: u16) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    f.extend([10, 0, 0, 1, 20, 0, 0, 2, 0x12, 0x34]);
    f.extend(dport.to_be_bytes());
    f.extend([0, 8, 0, 0]);
    f
}

fn on_dport(dport: u16) -> (FlowKey, FlowMask) {
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    key.base.in_port = 1;
    mask.0.base.in_port = u32::MAX;
    mask.0.base.recirc_id = u32::MAX;
    key.base.eth_type.set(0x800);
    mask.0.base.eth_type.set(0xffff);
    key.base.tp_dst.set(dport);
    mask.0.base.tp_dst.set(0xffff);
    (key, mask)
}

fn flow(datapath: &Datapath, dport: u16, actions: Vec<Action>) {
    let (key, mask) = on_dport(dport);
    datapath.flow_put(FlowPut::create(&key, &mask, actions)).unwrap();
}

/// Runs frames through a worker in one burst; returns their fates. Everything must be back in the pool afterwards.
fn run(worker: &mut Worker, frames: &[Vec<u8>], sink: &mut Sent) -> Vec<Fate> {
    let pool = Arc::clone(worker.datapath().pool());
    let mut packets: Vec<Packet> = frames.iter().map(|f| pool.packet(f).unwrap()).collect();
    packets.iter_mut().for_each(|p| p.in_port = 1);
    worker.process(&mut packets, Nanos(1000), sink);
    worker.free(&mut packets, |_| {});
    worker.fates()[..frames.len()].to_vec()
}

#[track_caller]
fn assert_whole(datapath: &Datapath) {
    let stats = datapath.stats();
    assert_eq!(stats.fates(), stats.packets_in, "{stats:?}");
}

#[test]
fn first_packet_asks_the_megaflow_table_and_the_next_the_cache() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Transmitted]);
    assert_eq!(run(&mut worker, &[udp(53), udp(54)], &mut sink), [Fate::Transmitted, Fate::Dropped(DropReason::Miss)]);
    assert_eq!(sink.packets, [(2, udp(53)), (2, udp(53))]);
    let stats = datapath.stats();
    assert_eq!((stats.exact_hits, stats.megaflow_hits, stats.misses), (1, 1, 1));
    assert_whole(&datapath);
    let (key, mask) = on_dport(53);
    let info = datapath.flow_get(FlowId::Exactly(&key, &mask)).unwrap();
    assert_eq!((info.stats.packets, info.stats.bytes, info.stats.used), (2, 84, Some(Nanos(1000))));
    drop(worker);
    // A worker that goes leaves its counts behind.
    assert_eq!(datapath.flow_get(FlowId::Exactly(&key, &mask)).unwrap().stats.packets, 2);
    assert_eq!(datapath.stats().transmitted, 2);
    assert_eq!(datapath.pool().available(), 600);
}

#[test]
fn removed_and_changed_flows_act_at_once_despite_the_cache() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    run(&mut worker, &[udp(53)], &mut sink);
    let (key, mask) = on_dport(53);
    let change = FlowPut { create: false, modify: true, ..FlowPut::create(&key, &mask, vec![Action::Output(3)]) };
    assert_eq!(datapath.flow_put(change).unwrap().unwrap().packets, 1);
    run(&mut worker, &[udp(53)], &mut sink);
    assert_eq!(datapath.flow_del(FlowId::Exactly(&key, &mask)).unwrap().stats.packets, 2);
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Dropped(DropReason::Miss)]);
    assert_eq!(sink.packets.iter().map(|p| p.0).collect::<Vec<_>>(), [2, 3]);
    // The number is reused by another flow: the cache's stale entry must not lead there.
    flow(&datapath, 80, vec![Action::Output(4)]);
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Dropped(DropReason::Miss)]);
    assert_eq!(run(&mut worker, &[udp(80)], &mut sink), [Fate::Transmitted]);
    let (key, mask) = on_dport(80);
    assert_eq!(datapath.flow_get(FlowId::Exactly(&key, &mask)).unwrap().stats.packets, 1);
    assert_whole(&datapath);
}

#[test]
fn two_outputs_send_a_copy_and_the_packet() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2), Action::Output(3)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    let fates = run(&mut worker, &vec![udp(53); 32], &mut sink);
    assert!(fates.iter().all(|f| *f == Fate::Transmitted));
    assert_eq!(sink.packets.len(), 64);
    let stats = datapath.stats();
    assert_eq!((stats.copies, stats.copies_transmitted, stats.transmitted), (32, 32, 32));
    assert_whole(&datapath);
    drop(worker);
    assert_eq!(datapath.pool().available(), 600);
}

#[test]
fn changes_after_a_clone_do_not_reach_the_copy() {
    let datapath = datapath();
    let push = Action::PushVlan { tpid: 0x8100, tci: 0x1064 };
    flow(&datapath, 53, vec![Action::Clone(vec![push, Action::Output(2)]), Action::Output(3)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    run(&mut worker, &[udp(53)], &mut sink);
    sink.packets.sort();
    assert_eq!(sink.packets[0].1.len(), 46);
    assert_eq!(sink.packets[1], (3, udp(53)));
}

#[test]
fn recirculation_is_bounded() {
    let datapath = datapath();
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    key.base.in_port = 1;
    mask.0.base.in_port = u32::MAX;
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(2), Action::Recirc(7)])).unwrap();
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    assert_eq!(run(&mut worker, &[udp(1)], &mut sink), [Fate::Dropped(DropReason::RecirculationLimit)]);
    assert_eq!(sink.packets.len(), 9);
    assert_whole(&datapath);
}

#[test]
fn every_drop_has_its_reason() {
    let datapath = datapath();
    flow(&datapath, 1, vec![]);
    flow(&datapath, 2, vec![Action::Drop(0)]);
    flow(&datapath, 3, vec![Action::Output(99)]);
    flow(&datapath, 4, vec![Action::Output(4)]);
    flow(&datapath, 5, vec![Action::LbOutput(1)]);
    flow(&datapath, 6, vec![Action::Output(2)]);
    datapath.port_set_up(4, false);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    let mut frames: Vec<Vec<u8>> = (1..=6).map(udp).collect();
    frames[5].resize(1519, 0);
    frames.push(vec![0; 13]);
    let fates = run(&mut worker, &frames, &mut sink);
    let reasons = [
        DropReason::NoOutput,
        DropReason::Explicit,
        DropReason::InvalidPort,
        DropReason::PortDown,
        DropReason::InvalidBond,
        DropReason::TxTooLong,
        DropReason::RxInvalid,
    ];
    assert_eq!(fates, reasons.map(Fate::Dropped));
    sink.room = 1;
    let fates = run(&mut worker, &[udp(6), udp(6)], &mut sink);
    assert_eq!(fates, [Fate::Transmitted, Fate::Dropped(DropReason::TxFull)]);
    assert_whole(&datapath);
}

#[test]
fn without_buffers_copies_are_dropped_and_counted_and_the_packet_goes_on() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2), Action::Output(3)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    let mut hoard: Vec<Packet> = core::iter::from_fn(|| datapath.pool().alloc(64)).collect();
    datapath.pool().free(&mut hoard[0]);
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Transmitted]);
    assert_eq!(sink.packets, [(3, udp(53))]);
    assert_eq!(datapath.stats().copies_dropped[DropReason::NoBuffer.index()], 1);
    assert_whole(&datapath);
    hoard.iter_mut().for_each(|p| datapath.pool().free(p));
}

struct Handler {
    calls: AtomicU64,
    answer: fn(&FlowKey) -> Answer,
}

impl UpcallHandler for Handler {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        (self.answer)(miss.key)
    }
}

#[test]
fn one_upcall_serves_the_whole_burst_once_its_flow_is_installed() {
    let datapath = datapath();
    let handler = Arc::new(Handler {
        calls: AtomicU64::new(0),
        answer: |_| Answer::Execute {
            actions: vec![Action::Output(2)],
            install: Some(Install::with_mask(on_dport(0).1)),
        },
    });
    datapath.set_upcall_handler(Some(handler.clone()));
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    run(&mut worker, &[udp(53), udp(53), udp(54), udp(53)], &mut sink);
    assert_eq!((handler.calls.load(Ordering::Relaxed), datapath.flow_count(), sink.packets.len()), (2, 2, 4));
    datapath.set_upcalls_enabled(false);
    assert_eq!(run(&mut worker, &[udp(55)], &mut sink), [Fate::Dropped(DropReason::UpcallLost)]);
    assert_whole(&datapath);
}

#[test]
fn upcall_ring_is_bounded_and_gives_packets_back() {
    let datapath = Datapath::new(Config { upcalls_max: 2, pool_buffers: 600, ..Config::default() }).unwrap();
    datapath.set_upcall_handler(Some(Arc::new(Handler { calls: AtomicU64::new(0), answer: |_| Answer::Queue })));
    let mut worker = datapath.worker().unwrap();
    let fates = run(&mut worker, &[udp(1), udp(2), udp(3)], &mut sent());
    assert_eq!(fates, [Fate::Upcall, Fate::Upcall, Fate::Dropped(DropReason::UpcallLost)]);
    let mut upcall = datapath.upcall_pop().unwrap();
    assert_eq!((upcall.packet.data(), upcall.key.base.tp_dst.get()), (&udp(1)[..], 1));
    assert_eq!(upcall.packet.owner(), Owner::Pool);
    datapath.free(&mut upcall.packet);
    let pool = Arc::clone(datapath.pool());
    assert_whole(&datapath);
    drop(worker);
    drop(datapath);
    assert_eq!(pool.available(), 600);
}

#[test]
fn userspace_action_without_a_handler_goes_onto_the_ring_with_its_data() {
    let datapath = datapath();
    let request = Userspace { userdata: Some(vec![1, 2]), ..Userspace::default() };
    flow(&datapath, 53, vec![Action::Output(2), Action::Userspace(request.clone())]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Upcall]);
    let mut upcall = datapath.upcall_pop().unwrap();
    assert_eq!(upcall.request.as_deref(), Some(&request));
    datapath.free(&mut upcall.packet);
}

#[test]
fn idle_flows_go_and_busy_ones_stay() {
    let datapath = datapath();
    for dport in [53, 54] {
        let (key, mask) = on_dport(dport);
        let put =
            FlowPut { idle_timeout_ns: 500, now: Nanos(800), ..FlowPut::create(&key, &mask, vec![Action::Output(2)]) };
        datapath.flow_put(put).unwrap();
    }
    let mut worker = datapath.worker().unwrap();
    run(&mut worker, &[udp(53)], &mut sent());
    let mut gone = Vec::new();
    datapath.upkeep(Nanos(1400), 100, |info| gone.push(info.key.base.tp_dst.get()));
    assert_eq!(gone, [54]);
    datapath.upkeep(Nanos(1500), 100, |info| gone.push(info.key.base.tp_dst.get()));
    assert_eq!((gone, datapath.flow_count()), (vec![54, 53], 0));
}

#[test]
fn two_datapaths_share_nothing() {
    let (a, b) = (datapath(), datapath());
    flow(&a, 53, vec![Action::Output(2)]);
    let (mut wa, mut wb) = (a.worker().unwrap(), b.worker().unwrap());
    assert_eq!(run(&mut wa, &[udp(53)], &mut sent()), [Fate::Transmitted]);
    assert_eq!(run(&mut wb, &[udp(53)], &mut sent()), [Fate::Dropped(DropReason::Miss)]);
    assert_eq!((a.stats().packets_in, b.stats().packets_in), (1, 1));
}

#[test]
fn caller_owned_packet_without_headroom_moves_to_a_pool_buffer() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::PushVlan { tpid: 0x8100, tci: 0x1064 }, Action::Output(2)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    let pool = crate::packet::Pool::new(1, 64, 0).unwrap();
    let mut packets = [pool.packet(&udp(53)).unwrap()];
    packets[0].in_port = 1;
    worker.process(&mut packets, Nanos(1), &mut sink);
    assert_eq!(worker.fates()[0], Fate::Transmitted);
    assert_eq!((sink.packets[0].1.len(), packets[0].data()), (46, &udp(53)[..]));
    assert_eq!(datapath.stats().moved, 1);
    pool.free(&mut packets[0]);
    drop(worker);
    assert_eq!(datapath.pool().available(), 600);
}

#[test]
fn flow_that_matches_everything_does_not_match_an_invalid_packet() {
    let datapath = datapath();
    datapath.flow_put(FlowPut::create(&FlowKey::default(), &FlowMask::default(), vec![Action::Output(2)])).unwrap();
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    for _ in 0..3 {
        let fates = run(&mut worker, &[vec![1; 14], vec![0; 13], vec![2; 60]], &mut sink);
        assert_eq!(fates, [Fate::Transmitted, Fate::Dropped(DropReason::RxInvalid), Fate::Transmitted]);
    }
    assert_eq!(sink.packets.len(), 6);
    assert_whole(&datapath);
}

#[test]
fn observer_is_told_once_per_packet_which_table_knew_its_flow() {
    #[derive(Default)]
    struct Tiers(Vec<(observe::Tier, u16)>);
    impl observe::Observer for Tiers {
        fn lookup(&mut self, _: u16, _: &Packet, key: &FlowKey, tier: observe::Tier, _: Option<u32>) {
            self.0.push((tier, key.base.tp_dst.get()));
        }
    }
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2)]);
    flow(&datapath, 54, vec![Action::Output(2)]);
    let mut worker = datapath.worker().unwrap();
    let pool = Arc::clone(datapath.pool());
    let mut told = Tiers::default();
    for dports in [&[53][..], &[53, 54, 55], &[53, 53], &[54, 54]] {
        let mut packets: Vec<Packet> = dports.iter().map(|&d| pool.packet(&udp(d)).unwrap()).collect();
        packets.iter_mut().for_each(|p| p.in_port = 1);
        worker.process_observed(&mut packets, Nanos(1), &mut sent(), &mut told);
        worker.free(&mut packets, |_| {});
    }
    use observe::Tier::{Exact, Megaflow, Miss};
    let expected = [(Megaflow, 53), (Exact, 53), (Megaflow, 54), (Miss, 55)];
    assert_eq!(told.0[..4], expected);
    assert_eq!(told.0[4..], [(Exact, 53), (Exact, 53), (Exact, 54), (Exact, 54)]);
}

#[test]
fn trunc_is_for_the_next_output_and_no_other() {
    let datapath = datapath();
    let mut worker = datapath.worker().unwrap();
    flow(&datapath, 53, vec![Action::Trunc(20), Action::Output(1), Action::Output(2), Action::Output(3)]);
    let mut sink = sent();
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Transmitted]);
    sink.packets.sort_unstable();
    let lens: Vec<_> = sink.packets.iter().map(|(port, bytes)| (*port, bytes.len())).collect();
    assert_eq!(lens, [(1, 20), (2, 42), (3, 42)]);
}

#[test]
fn a_packet_that_moves_for_want_of_headroom_still_counts_as_copied_out() {
    let datapath = datapath();
    let mut worker = datapath.worker().unwrap();
    flow(&datapath, 53, vec![Action::Output(1), Action::PushVlan { tpid: 0x8100, tci: 0x1005 }]);
    let pool = Arc::clone(datapath.pool());
    let mut packet = pool.packet(&udp(53)).unwrap();
    let headroom = packet.headroom();
    assert!(packet.push_front(headroom));
    packet.data_mut()[..42].copy_from_slice(&udp(53));
    packet.in_port = 1;
    let (mut sink, mut packets) = (sent(), [packet]);
    worker.process(&mut packets, Nanos(1), &mut sink);
    worker.free(&mut packets, |_| {});
    assert_eq!(worker.fates()[0], Fate::Transmitted);
    assert_eq!((sink.packets.len(), datapath.stats().moved), (1, 1));
}

/// Takes the descriptors of what it sends, as a driver with its own buffers does.
struct Taking(Datapath);

impl Sink for Taking {
    fn transmit(&mut self, _: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        (0..burst.len()).for_each(|i| self.0.free(&mut burst.get(i).take()));
        (burst.len(), DropReason::TxFull)
    }
}

#[test]
fn places_of_rarer_metadata_do_not_go_with_the_packets_that_a_port_takes() {
    let datapath = datapath();
    let mut worker = datapath.worker().unwrap();
    flow(&datapath, 53, vec![Action::Trunc(20), Action::Output(1)]);
    let mut sink = Taking(datapath.clone());
    // More packets than there are places.
    for i in 0..3000 {
        let mut packets = [datapath.pool().packet(&udp(53)).unwrap()];
        packets[0].in_port = 1;
        worker.process(&mut packets, Nanos(i), &mut sink);
        assert_eq!(worker.fates()[0], Fate::Transmitted, "packet {i}");
    }
}

#[test]
fn trunc_leaves_out_what_is_too_much_now_and_never_the_ethernet_header() {
    let push = Action::PushVlan { tpid: 0x8100, tci: 0x1005 };
    for (actions, len) in [
        (vec![Action::Trunc(1)], 14),
        (vec![Action::Trunc(20)], 20),
        (vec![Action::Trunc(60)], 42),
        (vec![Action::Trunc(20), push.clone()], 24),
        (vec![push, Action::Trunc(20)], 20),
    ] {
        let datapath = datapath();
        let mut worker = datapath.worker().unwrap();
        flow(&datapath, 53, [actions.clone(), vec![Action::Output(1)]].concat());
        let mut sink = sent();
        assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Transmitted]);
        assert_eq!(sink.packets[0].1.len(), len, "{actions:?}");
    }
}

#[test]
fn trunc_is_for_the_next_upcall_too() {
    let datapath = datapath();
    let mut worker = datapath.worker().unwrap();
    flow(&datapath, 53, vec![Action::Trunc(20), Action::Userspace(Userspace::default()), Action::Output(2)]);
    let mut sink = sent();
    assert_eq!(run(&mut worker, &[udp(53)], &mut sink), [Fate::Transmitted]);
    assert_eq!(sink.packets, [(2, udp(53))]);
    let mut upcall = datapath.upcall_pop().unwrap();
    assert_eq!(upcall.packet.data(), &udp(53)[..20]);
    datapath.free(&mut upcall.packet);
}

/// What is sent of one packet under a flow that takes everything.
fn carried(vlan_depth: u8, frame: &[u8], actions: Vec<Action>) -> Vec<u8> {
    let config = Config { pool_buffers: 600, vlan_depth, ..Config::default() };
    let datapath = Datapath::new(config).unwrap();
    datapath.port_add(PortEntry { number: 1, name: "p1".into(), packet_len_max: 1518, up: true }).unwrap();
    let actions = [actions, vec![Action::Output(1)]].concat();
    datapath.flow_put(FlowPut::create(&FlowKey::default(), &FlowMask::default(), actions)).unwrap();
    let mut sink = sent();
    assert_eq!(run(&mut datapath.worker().unwrap(), &[frame.to_vec()], &mut sink), [Fate::Transmitted]);
    sink.packets.remove(0).1
}

#[test]
fn what_was_under_labels_tags_or_nsh_is_set_with_its_checksums() {
    let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let link = || Frame::new().eth(b, a);
    let inner = |frame: Frame, src| frame.ipv4(src, [10, 0, 0, 2]).tcp(7, 8).payload(b"whole").build();
    let (old, new) = ([10, 0, 0, 1], [192, 0, 2, 200]);
    let set = || {
        let src = Masked::<[u8; 4]>::full(new);
        let dst = Masked::<[u8; 4]>::none();
        Action::Set(SetField::Ipv4 { src, dst, tos: Masked::<u8>::none(), ttl: Masked::<u8>::none() })
    };
    let right = inner(link(), new);
    let labelled = inner(link().mpls(5, 0, 64), old);
    assert_eq!(carried(2, &labelled, vec![Action::PopMpls { ethertype: 0x800 }, set()]), right);
    let twice = inner(link().mpls(5, 0, 64).mpls(6, 0, 64), old);
    let pops = vec![Action::PopMpls { ethertype: 0x8847 }, Action::PopMpls { ethertype: 0x800 }, set()];
    assert_eq!(carried(2, &twice, pops), right);
    let tagged = inner(link().vlan(5), old);
    assert_eq!(carried(0, &tagged, vec![Action::PopVlan, set()]), right);
    let in_nsh = Frame::new().eth(b, a).nsh(0, 1, 2, [0; 16]).ipv4(old, [10, 0, 0, 2]).tcp(7, 8).payload(b"whole");
    let actions = vec![Action::PopEth, Action::PopNsh, set(), Action::PushEth { dst: b, src: a }];
    assert_eq!(carried(2, &in_nsh.build(), actions), right);
}

#[test]
fn flow_that_a_burst_installs_tells_packets_apart_when_they_go_round_again() {
    let datapath = datapath();
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    (key.base.in_port, mask.0.base.in_port, mask.0.base.recirc_id) = (1, u32::MAX, u32::MAX);
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Recirc(8)])).unwrap();
    // The cache remembers a flow under the same mask for packets that have gone round; then its number is free.
    key.base.recirc_id = 8;
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(4)])).unwrap();
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    run(&mut worker, &[udp(53), udp(54)], &mut sink);
    let number = datapath.flow_del(FlowId::Exactly(&key, &mask)).unwrap().number;
    // Now each packet that has gone round gets a flow of its own, under a mask that was not there when the burst began.
    let answer = |key: &FlowKey| {
        let (_, mut mask) = on_dport(0);
        mask.0.base.eth_type.set(0);
        let port = if key.base.tp_dst.get() == 53 { 2 } else { 3 };
        let install = Install { actions: Some(vec![Action::Output(port)]), ..Install::with_mask(mask) };
        Answer::Execute { actions: vec![Action::Recirc(8)], install: Some(install) }
    };
    datapath.set_upcall_handler(Some(Arc::new(Handler { calls: AtomicU64::new(0), answer })));
    sink.packets.clear();
    assert_eq!(run(&mut worker, &[udp(53), udp(54)], &mut sink), [Fate::Transmitted; 2]);
    sink.packets.sort_unstable();
    assert_eq!(sink.packets, [(2, udp(53)), (3, udp(54))]);
    for dport in [53, 54] {
        let (_, mut mask) = on_dport(0);
        mask.0.base.eth_type.set(0);
        key.base.tp_dst.set(dport);
        let info = datapath.flow_get(FlowId::Exactly(&key, &mask)).unwrap();
        assert_eq!(info.stats.packets, 1);
        assert!(dport != 53 || info.number == number, "the number was to be used again");
    }
}

/// Keeps every packet that comes up.
struct Keeper(Mutex<Vec<Packet>>);

impl UpcallHandler for Keeper {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        assert!(miss.ext.is_some());
        lock(&self.0).push(miss.packet.take());
        Answer::Consumed
    }

    fn punt(&self, punt: Punt<'_>) -> Answer {
        assert!(punt.ext.is_some());
        lock(&self.0).push(punt.packet.take());
        Answer::Consumed
    }
}

#[test]
fn packets_that_a_handler_keeps_leave_the_place_of_their_metadata() {
    let datapath = datapath();
    let keeper = Arc::new(Keeper(Mutex::new(Vec::new())));
    datapath.set_upcall_handler(Some(keeper.clone()));
    let marked = || Action::Set(SetField::Priority(Masked::<u32>::full(7)));
    flow(&datapath, 53, vec![marked(), Action::Recirc(1)]);
    flow(&datapath, 54, vec![marked(), Action::Userspace(Userspace::default())]);
    flow(&datapath, 55, vec![marked(), Action::Output(2)]);
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    // More than there are places.
    for _ in 0..700 {
        assert_eq!(run(&mut worker, &[udp(53), udp(54)], &mut sink), [Fate::Upcall, Fate::Upcall]);
        for mut kept in lock(&keeper.0).drain(..) {
            assert_eq!(kept.ext, 0);
            datapath.free(&mut kept);
        }
    }
    assert_eq!(run(&mut worker, &[udp(55)], &mut sink), [Fate::Transmitted]);
    assert_whole(&datapath);
}

#[test]
fn no_port_has_the_highest_number() {
    let datapath = datapath();
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    for (port, dport) in [(u32::MAX, 53), (0, 54), (1 << 16, 55)] {
        flow(&datapath, dport, vec![Action::Output(port)]);
        assert_eq!(run(&mut worker, &[udp(dport)], &mut sink), [Fate::Dropped(DropReason::InvalidPort)]);
    }
    assert!(sink.packets.is_empty());
    assert_whole(&datapath);
}

#[test]
fn statistics_that_begin_anew_lose_no_packet_and_no_age() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2)]);
    let (key, mask) = on_dport(53);
    let anew = || {
        let put = FlowPut {
            create: false,
            modify: true,
            zero_stats: true,
            ..FlowPut::create(&key, &mask, vec![Action::Output(2)])
        };
        datapath.flow_put(put).unwrap().unwrap()
    };
    let mut worker = datapath.worker().unwrap();
    let other = datapath.worker().unwrap();
    let mut counted = 0;
    std::thread::scope(|scope| {
        let carrier = scope.spawn(|| {
            for _ in 0..2000 {
                run(&mut worker, &[udp(53), udp(53), udp(53)], &mut sent());
            }
        });
        while !carrier.is_finished() {
            counted += anew().packets;
        }
    });
    drop(other);
    counted += anew().packets;
    assert_eq!(counted, 6000);
    let stats = datapath.flow_get(FlowId::Exactly(&key, &mask)).unwrap().stats;
    assert_eq!(stats, FlowStats::default());
    assert_whole(&datapath);

    // A flow whose statistics began anew was used when it was.
    let (key, mask) = on_dport(80);
    let put = FlowPut { idle_timeout_ns: 500, now: Nanos(1), ..FlowPut::create(&key, &mask, vec![Action::Output(2)]) };
    datapath.flow_put(put.clone()).unwrap();
    run(&mut worker, &[udp(80)], &mut sent());
    datapath.flow_put(FlowPut { create: false, modify: true, zero_stats: true, ..put }).unwrap();
    datapath.upkeep(Nanos(1400), u32::MAX, |flow| panic!("{flow:?}"));
    let mut gone = 0;
    datapath.upkeep(Nanos(1500), u32::MAX, |_| gone += 1);
    assert_eq!(gone, 1);
}

/// Answers each packet that is handed up by handing it up again.
struct Echo(AtomicU64);

impl UpcallHandler for Echo {
    fn miss(&self, _: Miss<'_>) -> Answer {
        Answer::Execute { actions: vec![Action::Userspace(Userspace::default())], install: None }
    }

    fn punt(&self, punt: Punt<'_>) -> Answer {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answer::Execute { actions: vec![Action::Userspace(punt.request.clone())], install: None }
    }
}

#[test]
fn an_answer_that_hands_the_packet_up_again_ends() {
    let datapath = datapath();
    let handler = Arc::new(Echo(AtomicU64::new(0)));
    datapath.set_upcall_handler(Some(handler.clone()));
    let mut worker = datapath.worker().unwrap();
    let limit = Fate::Dropped(DropReason::RecirculationLimit);
    assert_eq!(run(&mut worker, &[udp(53), udp(54)], &mut sent()), [limit; 2]);
    assert_eq!(handler.0.load(Ordering::Relaxed), 2 * 9);
    assert_whole(&datapath);
}

/// As [`Handler`], with more than a function.
struct Asked<F>(AtomicU64, F);

impl<F: Fn(&FlowKey) -> Answer + Send + Sync> UpcallHandler for Asked<F> {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1(miss.key)
    }
}

#[test]
fn packets_whose_flow_is_removed_within_their_burst_are_looked_up_again_and_go_up() {
    let datapath = datapath();
    flow(&datapath, 53, vec![Action::Output(2)]);
    flow(&datapath, 54, vec![Action::Output(2)]);
    let (wide, mut wide_mask) = on_dport(54);
    wide_mask.0.base.tp_dst.set(0xfffe);
    let control = datapath.downgrade();
    // The one that misses removes both, and has another take the place of the second.
    let answer = move |key: &FlowKey| {
        if key.base.tp_dst.get() != 99 {
            return Answer::Execute { actions: vec![Action::Output(1)], install: None };
        }
        let datapath = control.upgrade().unwrap();
        for dport in [53, 54] {
            let (key, mask) = on_dport(dport);
            assert_eq!(datapath.flow_del(FlowId::Exactly(&key, &mask)).unwrap().stats.packets, 0);
        }
        datapath.flow_put(FlowPut::create(&wide, &wide_mask, vec![Action::Output(4)])).unwrap();
        Answer::Execute { actions: vec![Action::Output(3)], install: None }
    };
    let handler = Arc::new(Asked(AtomicU64::new(0), answer));
    datapath.set_upcall_handler(Some(handler.clone()));
    let mut worker = datapath.worker().unwrap();
    let mut sink = sent();
    let frames = [udp(53), udp(99), udp(54), udp(53)];
    assert_eq!(run(&mut worker, &frames, &mut sink), [Fate::Transmitted; 4]);
    sink.packets.sort_unstable();
    assert_eq!(sink.packets, [(1, udp(53)), (1, udp(53)), (3, udp(99)), (4, udp(54))]);
    let stats = datapath.stats();
    assert_eq!((stats.exact_hits, stats.megaflow_hits, stats.misses, stats.dropped), (0, 4, 3, [0; DropReason::COUNT]));
    assert_eq!(handler.0.load(Ordering::Relaxed), 3);
    let info = datapath.flow_get(FlowId::Exactly(&wide, &wide_mask)).unwrap();
    assert_eq!((info.stats.packets, info.stats.bytes), (1, 42));
    assert_whole(&datapath);
}

/// Uses the datapath when it goes.
struct Leaver(WeakDatapath, Arc<AtomicU64>);

impl UpcallHandler for Leaver {
    fn miss(&self, _: Miss<'_>) -> Answer {
        // The worker that asks keeps it a while longer.
        self.0.upgrade().unwrap().set_upcall_handler(None);
        Answer::Refuse
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        let datapath = self.0.upgrade().unwrap();
        assert!(datapath.port_set_up(4, false));
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_handler_may_use_the_datapath_when_it_is_dropped() {
    let datapath = datapath();
    let dropped = Arc::new(AtomicU64::new(0));
    let leaver = || Some(Arc::new(Leaver(datapath.downgrade(), dropped.clone())) as Arc<dyn UpcallHandler>);
    datapath.set_upcall_handler(leaver());
    datapath.set_upcall_handler(None);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let mut worker = datapath.worker().unwrap();
    // Whatever changes the datapath next drops it.
    let changes: [&dyn Fn(); 4] = [
        &|| flow(&datapath, 54, vec![]),
        &|| assert_eq!(datapath.flow_flush(), 1),
        &|| assert!(datapath.port_set_up(3, true)),
        &|| datapath.upkeep(Nanos(1), 1, |_| ()),
    ];
    for (change, before) in changes.into_iter().zip(1..) {
        datapath.set_upcall_handler(leaver());
        let refused = Fate::Dropped(DropReason::UpcallRefused);
        assert_eq!(run(&mut worker, &[udp(53)], &mut sent()), [refused]);
        assert_eq!(dropped.load(Ordering::Relaxed), before);
        change();
        assert_eq!(dropped.load(Ordering::Relaxed), before + 1);
    }
}

mod alike;
mod segments;
mod tunnels;
