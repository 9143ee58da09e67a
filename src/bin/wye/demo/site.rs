//! One site: a datapath with its policy, a worker, three memory ports, and the people at two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use wye::datapath::{Config, Datapath, Sink, Worker};
use wye::gateway::Bridge;
use wye::packet::{DropReason, Packet};
use wye::port::memory::{Memory, Peer, cable, pair};
use wye::port::{Driver, PortEntry, TxBurst};
use wye::time::Nanos;

use crate::bench::measure::tsc_ghz;

use super::policy::{CABLE, LAN, Policy, SERVERS};
use super::timing::{StageTicks, Stopwatch};
use super::traffic::{Edge, Traffic};

/// Packets that a port gives at a time.
const BURST: usize = 32;
/// Packets that wait at an edge at most.
const EDGE_LEN: usize = 1024;
/// Packets that are on the cable at most, each way.
const CABLE_LEN: usize = 4096;
/// With more than this many of them on the cable, a site waits for the other.
const CABLE_BUSY: u64 = CABLE_LEN as u64 / 2;
/// Stages are timed in one of so many bursts.
const SAMPLE_EVERY: u64 = 32;
/// A stage that took so long was interrupted.
const TOO_LONG_NS: f64 = 200_000.0;
/// One connection is renewed in so many turns.
const RENEW_EVERY: u64 = 8;
/// Packet buffers of a site.
const BUFFERS: u32 = 16_384;

/// What a site's thread tells the one that draws.
#[derive(Debug, Default)]
pub struct Told {
    /// Time by stage.
    pub stages: StageTicks,
    /// Packets that its people sent.
    pub sent: AtomicU64,
    /// Packets that reached its people.
    pub received: AtomicU64,
    /// Packets that it put onto the cable.
    pub to_cable: AtomicU64,
    /// Packets that it took from the cable.
    pub from_cable: AtomicU64,
}

/// A site before its thread starts.
pub struct Site {
    /// Its name.
    pub name: &'static str,
    /// Its datapath.
    pub datapath: Datapath,
    /// Its bridge.
    pub bridge: Arc<Bridge>,
    /// What its thread tells.
    pub told: Arc<Told>,
    other: Arc<Told>,
    worker: Worker,
    ports: Ports,
    lan: Peer,
    servers: Peer,
    traffic: Traffic,
    /// A stage that took so many ticks was interrupted.
    too_long: u64,
}

/// The three ports in the order of their numbers.
struct Ports([Memory; 3]);

impl Sink for Ports {
    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        match self.0.get_mut((port as usize).wrapping_sub(1)) {
            Some(driver) => (driver.tx_burst(burst), DropReason::TxFull),
            None => (0, DropReason::InvalidPort),
        }
    }
}

/// Makes two sites and joins them.
///
/// # Errors
/// Memory for the buffers.
pub fn two_sites() -> Result<[Site; 2], Box<dyn std::error::Error>> {
    let config = Config { pool_buffers: BUFFERS, flows_max: 1 << 17, ..Config::default() };
    let (a, b) = (Datapath::new(config.clone())?, Datapath::new(config)?);
    let (cable_a, cable_b) = cable(CABLE_LEN, a.pool(), b.pool());
    let (told_a, told_b) = (Arc::<Told>::default(), Arc::<Told>::default());
    Ok([site("site a", 1, 2, a, cable_a, [&told_a, &told_b])?, site("site b", 2, 1, b, cable_b, [&told_b, &told_a])?])
}

fn site(
    name: &'static str,
    own: u8,
    other: u8,
    datapath: Datapath,
    cable: Memory,
    told: [&Arc<Told>; 2],
) -> Result<Site, Box<dyn std::error::Error>> {
    let (lan_port, lan) = pair(EDGE_LEN, datapath.pool());
    let (servers_port, servers) = pair(EDGE_LEN, datapath.pool());
    for (number, name) in [(LAN, "lan"), (SERVERS, "servers"), (CABLE, "cable")] {
        datapath.port_add(PortEntry { number, name: name.into(), packet_len_max: 1518, up: true })?;
    }
    Ok(Site {
        name,
        bridge: Policy::attach(&datapath, own, other)?,
        told: Arc::clone(told[0]),
        other: Arc::clone(told[1]),
        worker: datapath.worker()?,
        datapath,
        ports: Ports([lan_port, servers_port, cable]),
        lan,
        servers,
        traffic: Traffic::new(own, other),
        too_long: (tsc_ghz() * TOO_LONG_NS) as u64,
    })
}

/// When the sites stop.
#[derive(Debug)]
pub struct Stop {
    /// People send no more.
    pub quiet: AtomicBool,
    /// Sites whose people send no more and whose edges are empty.
    silent: AtomicU32,
    began: Instant,
}

impl Stop {
    /// Not yet.
    pub fn not_yet() -> Self {
        Stop { quiet: AtomicBool::new(false), silent: AtomicU32::new(0), began: Instant::now() }
    }

    /// The sites' common clock.
    pub fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Site {
    /// Carries packets until `stop` says so and none is under way.
    pub fn run(mut self, stop: &Stop) {
        let mut batch: Vec<Packet> = (0..BURST).map(|_| Packet::gone()).collect();
        let mut is_silent = false;
        for turn in 0u64.. {
            let is_quiet = stop.quiet.load(Ordering::Relaxed);
            if !is_quiet && !self.is_cable_busy() {
                self.send(turn);
            }
            let carried = self.turn(turn, &mut batch, stop.now());
            self.receive();
            if carried != 0 {
                continue;
            }
            if is_quiet {
                if !is_silent {
                    is_silent = true;
                    stop.silent.fetch_add(1, Ordering::AcqRel);
                } else if stop.silent.load(Ordering::Acquire) == 2 && self.has_taken_all() {
                    break;
                }
            }
            std::thread::yield_now();
        }
    }

    /// The people send a burst.
    fn send(&mut self, turn: u64) {
        if turn.is_multiple_of(RENEW_EVERY) {
            self.traffic.renew();
        }
        let mut sent = 0;
        for _ in 0..BURST {
            let (edge, frame) = self.traffic.next();
            let peer = if edge == Edge::Lan { &mut self.lan } else { &mut self.servers };
            sent += u64::from(peer.send(frame));
        }
        self.told.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// A burst of each port; how many packets that were.
    fn turn(&mut self, turn: u64, batch: &mut [Packet], now: Nanos) -> usize {
        let mut carried = 0;
        for at in 0..self.ports.0.len() {
            let n = self.ports.0[at].rx_burst(batch);
            if n == 0 {
                continue;
            }
            carried += n;
            let burst = &mut batch[..n];
            burst.iter_mut().for_each(|packet| packet.in_port = at as u32 + 1);
            if turn.is_multiple_of(SAMPLE_EVERY) {
                let mut watch = Stopwatch::start();
                self.worker.process_observed(burst, now, &mut self.ports, &mut watch);
                watch.stop(n, &self.told.stages, self.too_long);
            } else {
                self.worker.process(burst, now, &mut self.ports);
            }
            self.worker.free(burst, |_| {});
        }
        let cable = self.ports.0[CABLE as usize - 1].stats();
        self.told.to_cable.store(cable.tx_packets, Ordering::Release);
        self.told.from_cable.store(cable.rx_packets, Ordering::Release);
        carried
    }

    /// What reached the people.
    fn receive(&mut self) {
        let mut received = 0;
        for peer in [&mut self.lan, &mut self.servers] {
            while let Some(mut packet) = peer.recv_packet() {
                self.datapath.free(&mut packet);
                received += 1;
            }
        }
        self.told.received.fetch_add(received, Ordering::Relaxed);
    }

    /// The other site is behind.
    fn is_cable_busy(&self) -> bool {
        let taken = self.other.from_cable.load(Ordering::Acquire);
        self.told.to_cable.load(Ordering::Acquire).saturating_sub(taken) > CABLE_BUSY
    }

    /// Nothing is on its way here from the other site, which put all that it had onto the cable before it fell silent.
    fn has_taken_all(&self) -> bool {
        self.other.to_cable.load(Ordering::Acquire) == self.told.from_cable.load(Ordering::Acquire)
    }
}
