use super::*;
use crate::datapath::{Config, FlowPut};
use crate::flow::action::Action;
use crate::flow::{FlowKey, FlowMask};
use crate::port::PortEntry;
use crate::port::memory::{Peer, pair};
use crate::port::wait::Waiter;

const SECOND: u64 = 1_000_000_000;

fn datapath(ports: u32) -> Datapath {
    let config = Config { pool_buffers: 512, flows_max: 64, cache_entries: 64, ..Config::default() };
    let datapath = Datapath::new(config).unwrap();
    for number in 1..=ports {
        let name = format!("p{number}").into();
        datapath.port_add(PortEntry { number, name, packet_len_max: 1518, up: true }).unwrap();
    }
    datapath
}

fn forward(datapath: &Datapath, from: u32, to: u32) {
    let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
    (key.base.in_port, mask.0.base.in_port) = (from, u32::MAX);
    datapath.flow_put(FlowPut::create(&key, &mask, vec![Action::Output(to)])).unwrap();
}

fn frame(i: u8) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    frame[20] = i;
    frame
}

fn owned(ports: &mut LocalPorts, datapath: &Datapath, number: u32) -> Peer {
    let (port, peer) = pair(64, datapath.pool());
    ports.add(number, 0, Box::new(port));
    peer
}

fn dropped(datapath: &Datapath, reason: DropReason) -> u64 {
    let stats = datapath.stats();
    assert_eq!(stats.fates(), stats.packets_in);
    stats.dropped[reason.index()]
}

#[test]
fn packets_go_from_one_owned_port_to_another_and_no_buffer_is_lost() {
    let datapath = datapath(2);
    forward(&datapath, 1, 2);
    let mut worker = datapath.worker().unwrap();
    let mut ports = LocalPorts::new(&datapath);
    let (mut one, mut two) = (owned(&mut ports, &datapath, 1), owned(&mut ports, &datapath, 2));
    for round in 0..20 {
        for i in 0..40 {
            assert!(one.send(&frame(i)));
        }
        assert!(two.send(&frame(0)), "no flow takes this one");
        let carried = worker.poll(&mut ports, Nanos(round)) + worker.poll(&mut ports, Nanos(round));
        assert_eq!(carried, 41);
        for i in 0..40 {
            assert_eq!(two.recv().unwrap(), frame(i));
        }
        assert!(two.recv().is_none() && one.recv().is_none());
    }
    assert_eq!(dropped(&datapath, DropReason::Miss), 20);
    assert_eq!(datapath.stats().transmitted, 800);
    drop((ports, worker));
    assert_eq!(datapath.pool().available(), datapath.pool().capacity());
}

#[test]
fn a_port_that_vanishes_is_counted_and_comes_back() {
    let datapath = datapath(2);
    forward(&datapath, 1, 2);
    let mut worker = datapath.worker().unwrap();
    let mut ports = LocalPorts::new(&datapath);
    let (mut one, mut two) = (owned(&mut ports, &datapath, 1), owned(&mut ports, &datapath, 2));
    let mut at = 0;
    let mut turn = |one: &mut Peer, ns: u64| {
        at += ns;
        assert!(one.send(&frame(1)));
        worker.poll(&mut ports, Nanos(at));
        ports.check(&datapath, Nanos(at));
    };
    turn(&mut one, 0);
    two.set_link(Link::Gone);
    // The driver refuses; that makes the link suspect, so it is looked at before its second is over.
    turn(&mut one, SECOND / 10);
    assert!(!datapath.ports().get(2).unwrap().up);
    turn(&mut one, 1);
    turn(&mut one, 1);
    assert_eq!(dropped(&datapath, DropReason::PortDown), 2);
    assert_eq!(dropped(&datapath, DropReason::TxFull), 1);
    two.set_link(Link::Up);
    turn(&mut one, SECOND);
    assert!(datapath.ports().get(2).unwrap().up);
    turn(&mut one, 1);
    assert_eq!(datapath.stats().transmitted, 2);
    assert!(two.recv().is_some() && two.recv().is_some() && two.recv().is_none());
}

#[test]
fn a_port_that_nobody_drives_is_down() {
    let datapath = datapath(2);
    forward(&datapath, 1, 2);
    let mut worker = datapath.worker().unwrap();
    let mut ports = LocalPorts::new(&datapath);
    let mut one = owned(&mut ports, &datapath, 1);
    assert!(one.send(&frame(1)));
    worker.poll(&mut ports, Nanos(1));
    assert_eq!(dropped(&datapath, DropReason::PortDown), 1);
}

#[test]
fn packets_for_another_workers_port_are_handed_over_until_its_ring_is_full() {
    let datapath = datapath(2);
    forward(&datapath, 1, 2);
    forward(&datapath, 2, 1);
    let (mut worker_a, mut worker_b) = (datapath.worker().unwrap(), datapath.worker().unwrap());
    let (mut ports_a, mut ports_b) = (LocalPorts::new(&datapath), LocalPorts::new(&datapath));
    let (mut one, mut two) = (owned(&mut ports_a, &datapath, 1), owned(&mut ports_b, &datapath, 2));
    let waiter = Waiter::new().unwrap();
    let exchange = Exchange::new(&datapath, 8, [(1, None), (2, Some(Arc::clone(waiter.doorbell())))]);
    ports_a.connect(&exchange);
    ports_b.connect(&exchange);
    for i in 0..10 {
        assert!(one.send(&frame(i)));
    }
    assert!(two.send(&frame(99)));
    worker_a.poll(&mut ports_a, Nanos(1));
    assert!(ports_a.is_idle() && !ports_b.is_idle());
    assert_eq!(dropped(&datapath, DropReason::TxFull), 2);
    assert_eq!(worker_b.poll(&mut ports_b, Nanos(1)), 9);
    assert_eq!(worker_a.poll(&mut ports_a, Nanos(1)), 1);
    assert_eq!(one.recv().unwrap(), frame(99));
    for i in 0..8 {
        assert_eq!(two.recv().unwrap(), frame(i));
    }
    assert!(two.recv().is_none());
    // What still waits on a ring at the end goes back to the pool.
    assert!(one.send(&frame(1)));
    worker_a.poll(&mut ports_a, Nanos(2));
    drop((exchange, ports_a, ports_b, worker_a, worker_b));
    assert_eq!(datapath.pool().available(), datapath.pool().capacity());
}

#[test]
fn what_a_home_cannot_send_is_counted_at_the_port() {
    let datapath = datapath(2);
    forward(&datapath, 1, 2);
    let (mut worker_a, mut worker_b) = (datapath.worker().unwrap(), datapath.worker().unwrap());
    let (mut ports_a, mut ports_b) = (LocalPorts::new(&datapath), LocalPorts::new(&datapath));
    let mut one = owned(&mut ports_a, &datapath, 1);
    let (port, peer) = pair(2, datapath.pool());
    let counters = ports_b.add(2, 0, Box::new(port));
    let exchange = Exchange::new(&datapath, 8, [(1, None), (2, None)]);
    ports_a.connect(&exchange);
    ports_b.connect(&exchange);
    for i in 0..5 {
        assert!(one.send(&frame(i)));
    }
    worker_a.poll(&mut ports_a, Nanos(1));
    worker_b.poll(&mut ports_b, Nanos(1));
    ports_b.read_stats(Nanos(1));
    assert_eq!((counters.handed_over(), counters.handed_over_dropped()), (5, 3));
    assert_eq!((counters.stats().tx_packets, counters.stats().tx_dropped), (2, 3));
    drop((peer, exchange, one, ports_a, ports_b, worker_a, worker_b));
    assert_eq!(datapath.pool().available(), datapath.pool().capacity());
}
