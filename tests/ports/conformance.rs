//! What every member of the family must do. [`check`] is given a driver and the world at its far end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wye::packet::{Owner, Packet, Pool};
use wye::port::{Driver, Link, TxBurst, driver::BURST_MAX};

/// The world at the far end of a port.
pub trait World {
    /// Puts a frame on the wire towards the driver.
    fn send(&mut self, frame: &[u8]);
    /// The next frame that the driver sent, if one has arrived.
    fn recv(&mut self) -> Option<Vec<u8>>;
    /// False if this port only sends or only receives in this test.
    fn both_ways(&self) -> bool {
        true
    }
}

/// How long a frame may take through the kernel.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An Ethernet frame of `len` bytes that says its number, with a local experimental EtherType; some carry one VLAN tag, some two.
pub fn frame(number: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match number % 8 {
        5 => bytes.extend([0x81, 0, 0xa0, 7]),
        6 => bytes.extend([0x88, 0xa8, 0, 9, 0x81, 0, 0x20, 8]),
        _ => {}
    }
    bytes.extend([0x88, 0xb5]);
    bytes.extend(number.to_be_bytes());
    let from = bytes.len();
    bytes.resize(len.max(from), 0);
    bytes[from..].iter_mut().enumerate().for_each(|(i, b)| *b = (i as u8) ^ (number as u8));
    bytes
}

/// A pool, its buffers, and where packets that a driver hands out go back to.
pub fn free(pool: &Pool, driver: &mut dyn Driver, packet: &mut Packet) {
    match packet.owner() {
        Owner::Pool => pool.free(packet),
        Owner::Port => driver.release(packet),
        _ => {}
    }
}

/// Sends `frames` in one burst from buffers of `pool`, and frees what the driver left. Returns how many were accepted.
pub fn transmit(pool: &Pool, driver: &mut dyn Driver, frames: &[Vec<u8>]) -> usize {
    assert!(frames.len() <= BURST_MAX);
    let mut batch: Vec<Packet> = frames.iter().map(|f| pool.packet(f).expect("pool is large enough")).collect();
    let refs: Vec<u16> = (0..batch.len() as u16).collect();
    let accepted = driver.tx_burst(TxBurst::new(&mut batch, &mut [], &refs));
    driver.flush();
    batch.iter_mut().for_each(|p| free(pool, driver, p));
    accepted
}

/// Receives `count` packets or runs out of patience. Every one has room for a tunnel header in front.
pub fn receive(pool: &Pool, driver: &mut dyn Driver, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let until = Instant::now() + PATIENCE;
    let mut out: Vec<Packet> = (0..BURST_MAX).map(|_| Packet::gone()).collect();
    while got.len() < count && Instant::now() < until {
        let n = driver.rx_burst(&mut out);
        driver.flush();
        for packet in &mut out[..n] {
            assert!(packet.headroom() >= 64, "headroom {}", packet.headroom());
            got.push(packet.data().to_vec());
            free(pool, driver, packet);
            assert_eq!(packet.owner(), Owner::Gone);
        }
        if n == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    got
}

/// Polls `world` until `count` frames came or patience ends; keeps the driver's device going meanwhile.
pub fn collect(driver: &mut dyn Driver, world: &mut dyn World, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let until = Instant::now() + PATIENCE;
    while got.len() < count && Instant::now() < until {
        match world.recv() {
            Some(bytes) => got.push(bytes),
            None => {
                driver.flush();
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
    got
}

/// Waits for the port's link to become `link`: kernels settle such things in their own time.
pub fn await_link(driver: &mut dyn Driver, link: Link) {
    let until = Instant::now() + PATIENCE;
    while driver.link() != link {
        assert!(Instant::now() < until, "{}: link is {:?}, not {link:?}", driver.kind(), driver.link());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The contract. Takes the driver, because some buffers come home only when it is dropped.
pub fn check(pool: &Arc<Pool>, mut driver: Box<dyn Driver>, world: &mut dyn World) {
    let lens = [60, 61, 64, 127, 128, 590, 1024, 1513, 1514];
    let frames: Vec<Vec<u8>> = (0..BURST_MAX as u16).map(|i| frame(i, lens[i as usize % lens.len()])).collect();
    let total: u64 = frames.iter().map(|f| f.len() as u64).sum();
    let start = driver.stats();
    assert_eq!((start.rx_packets, start.tx_packets, start.tx_dropped), (0, 0, 0));

    // Bytes in are bytes out, in order, a whole burst at once.
    if world.both_ways() {
        frames.iter().for_each(|f| world.send(f));
    }
    assert_eq!(receive(pool, &mut *driver, frames.len()), frames, "{}: received", driver.kind());
    let stats = driver.stats();
    assert_eq!((stats.rx_packets, stats.rx_bytes), (BURST_MAX as u64, total), "{}", driver.kind());
    assert_eq!((stats.rx_dropped, stats.rx_errors), (0, 0));

    assert_eq!(transmit(pool, &mut *driver, &frames), frames.len());
    assert_eq!(collect(&mut *driver, world, frames.len()), frames, "{}: sent", driver.kind());
    let stats = driver.stats();
    assert_eq!((stats.tx_packets, stats.tx_bytes, stats.tx_dropped), (BURST_MAX as u64, total, 0), "{}", driver.kind());

    // One that is too long is skipped and counted, its neighbours are sent.
    let long = frame(1, driver.packet_len_max() + 1);
    if long.len() <= pool.packet_len_max() {
        assert_eq!(transmit(pool, &mut *driver, &[frames[0].clone(), long, frames[1].clone()]), 3);
        assert_eq!(collect(&mut *driver, world, 2), frames[..2]);
        let stats = driver.stats();
        assert_eq!((stats.tx_packets, stats.tx_dropped), (BURST_MAX as u64 + 2, 1), "{}", driver.kind());
    }

    // Of a shared burst nothing is taken and nothing changed, whoever owns the buffers.
    let mut shared: Vec<Packet> = frames[..8].iter().map(|f| pool.packet(f).expect("pool is large enough")).collect();
    let before = driver.stats().tx_packets;
    assert_eq!(driver.tx_burst(TxBurst::new(&mut shared, &mut [], &[0, 1, 2, 3, 4, 5, 6, 7]).shared()), 8);
    driver.flush();
    for (packet, frame) in shared.iter_mut().zip(&frames) {
        assert_eq!((packet.owner(), packet.data()), (Owner::Pool, &frame[..]), "{}", driver.kind());
        pool.free(packet);
    }
    assert_eq!(collect(&mut *driver, world, 8), frames[..8], "{}: shared", driver.kind());
    assert_eq!(driver.stats().tx_packets, before + 8);

    // What was sent is not received.
    let mut out = [Packet::gone()];
    assert_eq!(driver.rx_burst(&mut out), 0, "{}: hears itself", driver.kind());

    // An empty burst and a descriptor of nothing are harmless.
    assert_eq!(driver.tx_burst(TxBurst::new(&mut [], &mut [], &[])), 0);
    assert_eq!(driver.tx_burst(TxBurst::new(&mut out, &mut [], &[0])), 1);
    assert_eq!(driver.stats(), driver.stats());

    drop(driver);
    while world.recv().is_some() {}
    assert_eq!(pool.available(), pool.capacity(), "buffers are missing");
}
