//! The packet path does not touch the heap: every allocation of this thread is counted while a worker carries packets.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use wye::datapath::{Config, Datapath, FlowPut, Sink, Worker};
use wye::flow::action::{Action, HashAlgorithm, Masked, SetField, Userspace};
use wye::flow::{FlowKey, FlowMask};
use wye::meter::{Band, MeterConfig, MeterUnit};
use wye::packet::{DropReason, Packet};
use wye::port::TxBurst;
use wye::port::table::PortEntry;
use wye::time::Nanos;

std::thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged. Counting touches a constant-initialised cell of a type
// without a destructor, which neither allocates nor fails while the thread ends.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        CALLS.with(|c| c.set(c.get() + 1));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        CALLS.with(|c| c.set(c.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Takes everything and keeps nothing.
struct Hole(u64);

impl Sink for Hole {
    fn transmit(&mut self, _port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        self.0 += burst.len() as u64;
        (burst.len(), DropReason::TxFull)
    }
}

fn udp(last_byte: u8, dport: u16) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0];
    f.extend([10, 0, 0, 1, 10, 0, 0, last_byte, 0x12, 0x34]);
    f.extend(dport.to_be_bytes());
    f.extend([0, 26, 0, 0]);
    f.extend([0; 18]);
    f
}

fn ipv6_tcp() -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64];
    f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    f.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    f.extend([0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    f
}

fn datapath() -> Datapath {
    let config = Config { flows_max: 4096, seed: Some(1), upcalls_max: 32, ..Config::default() };
    let datapath = Datapath::new(config).unwrap();
    for number in 1..=3 {
        let name = format!("p{number}").into();
        datapath.port_add(PortEntry { number, name, packet_len_max: 1518, up: true }).unwrap();
    }
    datapath
}

/// A flow that matches `in_port` and `recirc_id` only.
fn flow(datapath: &Datapath, recirc_id: u32, actions: Vec<Action>) {
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    key.base.in_port = 1;
    mask.0.base.in_port = u32::MAX;
    key.base.recirc_id = recirc_id;
    mask.0.base.recirc_id = u32::MAX;
    datapath.flow_put(FlowPut::create(&key, &mask, actions)).unwrap();
}

/// Bursts of `frames` through the worker; returns the calls of the allocator that the worker made.
fn carry(worker: &mut Worker, frames: &[Vec<u8>], bursts: usize) -> u64 {
    let pool = worker.datapath().pool().clone();
    let mut packets: Vec<Packet> = Vec::with_capacity(frames.len());
    let (mut calls, mut sink) = (0, Hole(0));
    for burst in 0..bursts {
        packets.clear();
        packets.extend(frames.iter().map(|f| pool.packet(f).expect("buffers come back")));
        packets.iter_mut().for_each(|p| p.in_port = 1);
        let before = CALLS.get();
        worker.process(&mut packets, Nanos(burst as u64 * 1000), &mut sink);
        worker.free(&mut packets, |_| {});
        calls += CALLS.get() - before;
    }
    calls
}

/// Asserts that packets under a flow with these actions touch the heap never, not even the first time.
#[track_caller]
fn assert_none(what: &str, frames: &[Vec<u8>], actions: Vec<Action>) {
    let datapath = datapath();
    let bands = vec![Band { rate: 1000, burst: 10 }];
    datapath.meter_set(1, MeterConfig { unit: MeterUnit::PacketsPerSecond, bands }, Nanos(0)).unwrap();
    datapath.bond_set(5, std::array::from_fn(|i| 2 + (i as u32 & 1)));
    flow(&datapath, 0, actions);
    flow(&datapath, 9, vec![Action::Output(3)]);
    let mut worker = datapath.worker().unwrap();
    let calls = carry(&mut worker, frames, 20);
    assert_eq!(calls, 0, "{what}: calls of the allocator");
    let stats = datapath.stats();
    assert_eq!((stats.packets_in, stats.fates()), (20 * frames.len() as u64, stats.packets_in), "{what}");
}

fn burst() -> Vec<Vec<u8>> {
    (0..32).map(|i| if i % 8 == 7 { ipv6_tcp() } else { udp(i, 50 + u16::from(i % 3)) }).collect()
}

#[test]
fn the_allocator_counts() {
    let before = CALLS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(CALLS.get() - before, 2);
}

#[test]
fn no_action_touches_the_heap() {
    use Action::{CheckPktLen, Clone, DecTtl, Drop, Hash, LbOutput, Meter, Output, PopEth, PopVlan};
    use Action::{PushEth, PushMpls, PushVlan, Recirc, Sample, Set, Trunc};
    let ethernet = SetField::Ethernet(Masked::<[u8; 12]>::full([7; 12]));
    let ipv4 = SetField::Ipv4 {
        src: Masked::<[u8; 4]>::none(),
        dst: Masked::<[u8; 4]>::full([192, 168, 0, 1]),
        tos: Masked::<u8>::none(),
        ttl: Masked::<u8>::full(9),
    };
    let output = || vec![Output(3)];
    let cases: Vec<(&str, Vec<Action>)> = vec![
        ("drop", vec![]),
        ("drop with a reason", vec![Drop(1)]),
        ("output", vec![Output(2)]),
        ("output to two ports", vec![Output(2), Output(3)]),
        ("output to a port that is not there", vec![Output(77)]),
        ("set ethernet", vec![Set(ethernet.clone()), Output(2)]),
        ("set ipv4", vec![Set(ipv4), Output(2)]),
        ("set udp", vec![Set(SetField::Udp { src: Masked::<u16>::full(1), dst: Masked::<u16>::none() }), Output(2)]),
        ("output, change, output", vec![Output(2), Set(ethernet), Output(3)]),
        ("push vlan", vec![PushVlan { tpid: 0x8100, tci: 0x1005 }, Output(2)]),
        ("push and pop vlan", vec![PushVlan { tpid: 0x8100, tci: 0x1005 }, PopVlan, Output(2)]),
        ("push mpls", vec![PushMpls { lse: 0x10140, ethertype: 0x8847 }, Output(2)]),
        ("pop ethernet", vec![PopEth, PushEth { dst: [1; 6], src: [2; 6] }, Output(2)]),
        ("dec_ttl", vec![DecTtl, Output(2)]),
        ("hash", vec![Hash { algorithm: HashAlgorithm::L4, basis: 1 }, Output(2)]),
        ("hash and recirculate", vec![Hash { algorithm: HashAlgorithm::SymL4, basis: 1 }, Recirc(9)]),
        ("change and recirculate", vec![PushVlan { tpid: 0x8100, tci: 0x1005 }, Recirc(9)]),
        ("recirculate to nowhere", vec![Recirc(10)]),
        ("sample", vec![Sample { probability: u32::MAX / 2, actions: output() }, Output(2)]),
        ("clone", vec![Clone(vec![PopEth, Output(3)]), Output(2)]),
        ("clone and recirculate", vec![Clone(vec![Recirc(9)]), Output(2)]),
        ("check_pkt_len", vec![CheckPktLen { len: 61, if_greater: output(), if_less_equal: vec![Output(2)] }]),
        ("trunc", vec![Trunc(20), Output(2), Output(3)]),
        ("meter", vec![Meter(1), Output(2)]),
        ("bond", vec![LbOutput(5)]),
        ("userspace, on a ring that fills up", vec![Action::Userspace(Userspace::default()), Output(2)]),
    ];
    for (what, actions) in cases {
        assert_none(what, &burst(), actions);
    }
}

#[test]
fn misses_that_queue_and_then_do_not_fit_touch_no_heap() {
    let datapath = datapath();
    let mut worker = datapath.worker().unwrap();
    assert_eq!(carry(&mut worker, &burst(), 10), 0);
    let stats = datapath.stats();
    assert_eq!((stats.packets_in, stats.fates()), (320, 320));
}

#[test]
fn lookups_under_many_masks_touch_no_heap() {
    let datapath = datapath();
    for len in 8..32 {
        let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
        mask.0.base.ipv4_dst = (!0u32 << (32 - len)).to_be_bytes();
        mask.0.base.in_port = u32::MAX;
        key.base.in_port = 1;
        key.base.ipv4_dst = [10, 0, 0, 255 - len];
        datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(2)])).unwrap();
    }
    let mut worker = datapath.worker().unwrap();
    // More than one burst's worth, all different.
    let frames: Vec<_> = (0..=255).flat_map(|b| [udp(b, 1), udp(b, 2)]).collect();
    assert_eq!(carry(&mut worker, &frames, 4), 0);
}
