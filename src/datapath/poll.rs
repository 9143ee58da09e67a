//! Ports that the engine owns: [`LocalPorts`] are one worker's drivers, [`Worker::poll`] carries what they receive.
//!
//! ```text
//!   worker 0                              worker 1
//!   ┌ LocalPorts ───────────┐             ┌ LocalPorts ───────────┐
//!   │ port 1 queue 0 (home) │             │ port 1 queue 1        │
//!   │ port 2 queue 0 (home) │◀── ring 2 ──│ port 3 queue 0 (home) │
//!   └───────────▲───────────┘             └───────────────────────┘
//!               └─────────── Exchange: one bounded ring per port
//! ```
//!
//! A packet for a port of which this worker has a queue goes straight to that driver. Otherwise it goes, in a buffer of the
//! datapath's pool, onto the port's ring in the [`Exchange`]; the worker that has the port's first queue (its *home*) sends it in its
//! next poll. A full ring is a drop of `tx_full`. A packet on the ring counts as transmitted by the worker that put it there; what the
//! home's driver then refuses is in [`PortCounters::handed_over_dropped`].

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::{Datapath, Sink, Worker};
use crate::flow::Ext;
use crate::packet::{DropReason, Owner, Packet, Pool, PoolCache};
use crate::port::driver::BURST_MAX;
use crate::port::wait::Doorbell;
use crate::port::{Driver, Link, PortStats, TxBurst};
use crate::sync::counter::Counter;
use crate::time::Nanos;

/// Packets that one driver gives per turn, unless [`LocalPorts::set_burst`] says otherwise.
pub const BURST_DEFAULT: usize = 32;

/// Nanoseconds between two looks at a link.
pub const LINK_INTERVAL_NS: u64 = 1_000_000_000;
/// Nanoseconds between two looks at a link that was down, or if packets were refused in between.
const LINK_SUSPECT_NS: u64 = 20_000_000;
/// Nanoseconds between two readings of the drivers' statistics.
const STATS_INTERVAL_NS: u64 = 100_000_000;

/// References to the first packets of a batch, in order.
const IN_ORDER: [u16; BURST_MAX] = {
    let mut refs = [0; BURST_MAX];
    let mut i = 0;
    while i < BURST_MAX {
        refs[i] = i as u16;
        i += 1;
    }
    refs
};

/// What one queue of a port counted, as of a tenth of a second ago at most.
///
/// *Thread-safety.* Written by the worker, read by anyone.
#[derive(Debug, Default)]
pub struct PortCounters {
    stats: [Counter; 7],
    link: Counter,
    handed_over: Counter,
    handed_over_dropped: Counter,
}

impl PortCounters {
    /// The driver's statistics.
    pub fn stats(&self) -> PortStats {
        let [rx_packets, rx_bytes, rx_dropped, rx_errors, tx_packets, tx_bytes, tx_dropped] =
            [0, 1, 2, 3, 4, 5, 6].map(|i: usize| self.stats[i].get());
        PortStats { rx_packets, rx_bytes, rx_dropped, rx_errors, tx_packets, tx_bytes, tx_dropped }
    }

    /// The link's state.
    pub fn link(&self) -> Link {
        match self.link.get() {
            0 => Link::Up,
            1 => Link::Down,
            _ => Link::Gone,
        }
    }

    /// Packets that came over the exchange to be sent here.
    pub fn handed_over(&self) -> u64 {
        self.handed_over.get()
    }

    /// Those of them that the driver did not take.
    pub fn handed_over_dropped(&self) -> u64 {
        self.handed_over_dropped.get()
    }

    fn set(&self, stats: PortStats) {
        let PortStats { rx_packets, rx_bytes, rx_dropped, rx_errors, tx_packets, tx_bytes, tx_dropped } = stats;
        let values = [rx_packets, rx_bytes, rx_dropped, rx_errors, tx_packets, tx_bytes, tx_dropped];
        self.stats.iter().zip(values).for_each(|(counter, value)| counter.set(value));
    }

    fn set_link(&self, link: Link) {
        self.link.set(match link {
            Link::Up => 0,
            Link::Down => 1,
            Link::Gone => 2,
        });
    }
}

/// The way to one port for workers that have no queue of it.
struct Ring {
    port: u32,
    queue: ArrayQueue<Packet>,
    home: Option<Arc<Doorbell>>,
}

/// Carries packets between the workers of one datapath. Made once, before they start.
///
/// *Thread-safety.* The rings are lock-free queues of many producers; each ring's packets are taken by its port's home.
pub struct Exchange {
    rings: Box<[Ring]>,
    pool: Arc<Pool>,
}

impl core::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Exchange").field("ports", &self.rings.len()).finish_non_exhaustive()
    }
}

impl Exchange {
    /// An exchange with a ring of `capacity` packets for each of `ports`. With a port comes the bell of its home's waiter, if that
    /// ever sleeps.
    pub fn new(
        datapath: &Datapath,
        capacity: usize,
        ports: impl IntoIterator<Item = (u32, Option<Arc<Doorbell>>)>,
    ) -> Arc<Exchange> {
        let ring = |(port, home)| Ring { port, queue: ArrayQueue::new(capacity.max(1)), home };
        Arc::new(Exchange { rings: ports.into_iter().map(ring).collect(), pool: Arc::clone(datapath.pool()) })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for ring in &self.rings {
            while let Some(mut packet) = ring.queue.pop() {
                self.pool.free(&mut packet);
            }
        }
    }
}

/// Where this worker sends the packets of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nobody drives the port.
    None,
    /// Entry of [`LocalPorts::ports`].
    Local(u16),
    /// Ring of the exchange.
    Ring(u16),
}

struct LocalPort {
    number: u32,
    /// The first queue: the home of the port, which speaks for its link.
    is_home: bool,
    driver: Box<dyn Driver>,
    link: Link,
    /// What the datapath was told about the link last.
    told: Option<(bool, u32)>,
    counters: Arc<PortCounters>,
}

/// The drivers that one worker polls, and its ways to the other ports.
///
/// *Thread-safety.* Owned by the worker's thread (`Send`).
pub struct LocalPorts {
    ports: Vec<LocalPort>,
    /// By port number.
    ways: Vec<Way>,
    exchange: Option<Arc<Exchange>>,
    /// Rings of which this worker is the home: ring, port.
    homes: Vec<(u16, u16)>,
    batch: Vec<Packet>,
    burst: usize,
    pool: PoolCache,
    /// A driver refused packets since its link was looked at, or the link was down.
    is_suspect: bool,
    link_at: Nanos,
    stats_at: Nanos,
    is_checked: bool,
}

impl core::fmt::Debug for LocalPorts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.ports.iter().map(|p| (p.number, p.driver.kind(), p.link))).finish()
    }
}

impl LocalPorts {
    /// No ports yet.
    pub fn new(datapath: &Datapath) -> Self {
        LocalPorts {
            ports: Vec::new(),
            ways: Vec::new(),
            exchange: None,
            homes: Vec::new(),
            batch: (0..BURST_MAX).map(|_| Packet::gone()).collect(),
            burst: BURST_DEFAULT,
            pool: PoolCache::new(datapath.pool()),
            is_suspect: false,
            link_at: Nanos(0),
            stats_at: Nanos(0),
            is_checked: false,
        }
    }

    /// Sets how many packets a driver gives per turn, 1 to [`BURST_MAX`].
    pub fn set_burst(&mut self, packets: usize) {
        self.burst = packets.clamp(1, BURST_MAX);
    }

    /// Takes over the driver of queue `queue` of port `number`, which the datapath knows already (or will). Queue 0 makes this worker
    /// the port's home.
    ///
    /// # Panics
    /// If `number` is not below [`PORT_NUMBER_END`](crate::port::table::PORT_NUMBER_END).
    pub fn add(&mut self, number: u32, queue: u16, driver: Box<dyn Driver>) -> Arc<PortCounters> {
        let slot = self.ports.len() as u16;
        let way = self.way_mut(number);
        if !matches!(way, Way::Local(_)) {
            *way = Way::Local(slot);
        }
        let counters = Arc::new(PortCounters::default());
        let shown = Arc::clone(&counters);
        let is_home = queue == 0;
        self.ports.push(LocalPort { number, is_home, driver, link: Link::Up, told: None, counters });
        self.is_checked = false;
        self.join();
        shown
    }

    /// Gives up this worker's queues of a port; their drivers close. False if it had none.
    pub fn remove(&mut self, number: u32) -> bool {
        let before = self.ports.len();
        self.ports.retain(|port| port.number != number);
        if self.ports.len() == before {
            return false;
        }
        self.ways.iter_mut().filter(|way| matches!(way, Way::Local(_))).for_each(|way| *way = Way::None);
        for slot in (0..self.ports.len()).rev() {
            *self.way_mut(self.ports[slot].number) = Way::Local(slot as u16);
        }
        self.join();
        true
    }

    /// True if this worker drives the port or knows the way to who does.
    pub fn reaches(&self, number: u32) -> bool {
        !matches!(self.ways.get(number as usize), None | Some(Way::None))
    }

    /// Joins the exchange: ports that this worker has no queue of are reached over it.
    pub fn connect(&mut self, exchange: &Arc<Exchange>) {
        self.exchange = Some(Arc::clone(exchange));
        self.join();
    }

    fn join(&mut self) {
        let Some(exchange) = self.exchange.clone() else { return };
        self.homes.clear();
        for (at, ring) in exchange.rings.iter().enumerate() {
            let way = self.way_mut(ring.port);
            if !matches!(way, Way::Local(_)) {
                *way = Way::Ring(at as u16);
            }
            if let Some(slot) = self.ports.iter().position(|p| p.number == ring.port && p.is_home) {
                self.homes.push((at as u16, slot as u16));
            }
        }
    }

    fn way_mut(&mut self, number: u32) -> &mut Way {
        assert!(number < crate::port::table::PORT_NUMBER_END, "port number {number}");
        let at = number as usize;
        if self.ways.len() <= at {
            self.ways.resize(at + 1, Way::None);
        }
        &mut self.ways[at]
    }

    /// Looks at links and statistics when it is time to. Makes system calls, so it is not part of [`Worker::poll`]; call it after each
    /// poll, it costs two comparisons nearly always.
    ///
    /// The links of ports whose home this is are told to `datapath`: packets to a port that is not up are dropped with `port_down`.
    pub fn check(&mut self, datapath: &Datapath, now: Nanos) {
        let since = now.since(self.link_at);
        if !self.is_checked || since >= LINK_INTERVAL_NS || self.is_suspect && since >= LINK_SUSPECT_NS {
            self.link_at = now;
            self.is_checked = true;
            for port in &mut self.ports {
                port.link = port.driver.link();
                port.counters.set_link(port.link);
                let tell = (port.link == Link::Up, port.driver.packet_len_max().min(u32::MAX as usize) as u32);
                if port.is_home && port.told != Some(tell) && datapath.port_set_link(port.number, tell.0, tell.1) {
                    port.told = Some(tell);
                }
            }
            // A link that is down is awaited: what goes its way is dropped until it is seen to be up.
            self.is_suspect = self.ports.iter().any(|port| port.link == Link::Down);
            self.read_stats(now);
        } else if now.since(self.stats_at) >= STATS_INTERVAL_NS {
            self.read_stats(now);
        }
    }

    /// Publishes the drivers' statistics to [`PortCounters`].
    pub fn read_stats(&mut self, now: Nanos) {
        self.stats_at = now;
        self.ports.iter().for_each(|port| port.counters.set(port.driver.stats()));
    }

    /// The drivers' descriptors to wait on, for a [`Waiter`](crate::port::wait::Waiter).
    pub fn poll_fds(&self) -> impl Iterator<Item = i32> + '_ {
        self.ports.iter().filter_map(|port| port.driver.poll_fd())
    }

    /// True if some driver may have packets without a descriptor that tells.
    pub fn must_be_polled(&self) -> bool {
        self.ports.iter().any(|p| p.link == Link::Up && p.driver.poll_fd().is_none() && !p.driver.is_exhausted())
    }

    /// True if no packet waits on a ring of which this worker is the home.
    pub fn is_idle(&self) -> bool {
        let Some(exchange) = &self.exchange else { return true };
        self.homes.iter().all(|&(ring, _)| exchange.rings[usize::from(ring)].queue.is_empty())
    }

    /// True if no driver will ever receive again.
    pub fn is_exhausted(&self) -> bool {
        self.ports.iter().all(|port| port.driver.is_exhausted())
    }

    fn receive(&mut self, at: usize, batch: &mut [Packet]) -> usize {
        let port = &mut self.ports[at];
        let n = port.driver.rx_burst(&mut batch[..self.burst]).min(self.burst);
        batch[..n].iter_mut().for_each(|packet| packet.in_port = port.number);
        n
    }

    /// Sends what other workers handed over: one burst per ring and poll, so that no ring starves the ports.
    fn send_handed_over(&mut self) -> usize {
        let Some(exchange) = &self.exchange else { return 0 };
        let mut sent = 0;
        for &(ring, slot) in &self.homes {
            let queue = &exchange.rings[usize::from(ring)].queue;
            let mut n = 0;
            while n < BURST_MAX
                && let Some(packet) = queue.pop()
            {
                self.batch[n] = packet;
                n += 1;
            }
            if n == 0 {
                continue;
            }
            let port = &mut self.ports[usize::from(slot)];
            let taken = port.driver.tx_burst(TxBurst::new(&mut self.batch, &mut [], &IN_ORDER[..n])).min(n);
            self.is_suspect |= taken < n;
            port.counters.handed_over.add(n as u64);
            port.counters.handed_over_dropped.add((n - taken) as u64);
            self.batch[..n].iter_mut().for_each(|packet| self.pool.free(packet));
            sent += n;
        }
        sent
    }

    /// The last thing before the ports are closed, when no worker carries packets any more: sends what other workers handed over,
    /// which counts as transmitted already, and publishes the statistics.
    pub fn finish(&mut self, now: Nanos) {
        while self.send_handed_over() > 0 {}
        self.ports.iter_mut().for_each(|port| port.driver.flush());
        self.read_stats(now);
    }

    fn hand_over(&mut self, ring: u16, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        let Some(exchange) = &self.exchange else { return (0, DropReason::PortDown) };
        let Ring { queue, home, .. } = &exchange.rings[usize::from(ring)];
        let may_take = !burst.is_shared();
        let mut n = 0;
        let mut reason = DropReason::TxFull;
        while n < burst.len() && !queue.is_full() {
            let packet = burst.get(n);
            let is_ours = may_take && exchange.pool.owns(packet);
            let Some(mut moved) = (if is_ours { Some(packet.take()) } else { self.pool.alloc(packet.len()) }) else {
                reason = DropReason::NoBuffer;
                break;
            };
            if !is_ours {
                moved.data_mut().copy_from_slice(packet.data());
            }
            // The place of its rarer metadata is this worker's; whoever only sends needs none.
            let ext = core::mem::take(&mut moved.ext);
            packet.ext = if is_ours { ext } else { packet.ext };
            if let Err(mut back) = queue.push(moved) {
                if is_ours {
                    back.ext = ext;
                    *packet = back;
                } else {
                    self.pool.free(&mut back);
                }
                break;
            }
            n += 1;
        }
        if n > 0
            && let Some(home) = home
        {
            home.ring();
        }
        (n, reason)
    }
}

impl Sink for LocalPorts {
    #[inline]
    fn shares(&self) -> bool {
        true
    }

    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        match self.ways.get(port as usize).copied().unwrap_or(Way::None) {
            Way::Local(slot) => {
                let port = &mut self.ports[usize::from(slot)];
                let len = burst.len();
                let taken = port.driver.tx_burst(burst);
                self.is_suspect |= taken < len;
                // The link may have gone since it was looked at.
                let is_up = port.link == Link::Up && !port.driver.refused_as_down();
                (taken, if is_up { DropReason::TxFull } else { DropReason::PortDown })
            }
            Way::Ring(ring) => self.hand_over(ring, burst),
            Way::None => (0, DropReason::PortDown),
        }
    }
}

impl Drop for LocalPorts {
    fn drop(&mut self) {
        self.batch.iter_mut().for_each(|packet| self.pool.free(packet));
    }
}

/// The ports of a worker, and a sink for those that it does not reach.
struct Beside<'a> {
    ports: &'a mut LocalPorts,
    elsewhere: &'a mut dyn Sink,
}

impl Sink for Beside<'_> {
    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        if self.ports.reaches(port) { self.ports.transmit(port, burst) } else { self.elsewhere.transmit(port, burst) }
    }

    fn sends(&mut self, port: u32, packet: &Packet, ext: &Ext) {
        if !self.ports.reaches(port) {
            self.elsewhere.sends(port, packet, ext);
        }
    }

    fn ends(&mut self, packet: &Packet, ext: &Ext) {
        self.elsewhere.ends(packet, ext);
    }
}

impl Worker {
    /// Carries one burst of each driver in `ports` to its packets' fates, and sends what other workers handed over. Returns how many
    /// packets there were. Takes no lock, allocates nothing, and makes no system call but those of the drivers and the bell of a worker
    /// that sleeps.
    ///
    /// `ports` must have been made for this worker's datapath.
    pub fn poll(&mut self, ports: &mut LocalPorts, now: Nanos) -> usize {
        self.poll_through(ports, |worker, batch, ports| worker.process(batch, now, ports))
    }

    /// As [`poll`](Self::poll); what is for a port that `ports` does not reach goes to `elsewhere`.
    pub fn poll_beside(&mut self, ports: &mut LocalPorts, now: Nanos, elsewhere: &mut dyn Sink) -> usize {
        self.poll_through(ports, |worker, batch, ports| {
            worker.process(batch, now, &mut Beside { ports, elsewhere: &mut *elsewhere });
        })
    }

    #[inline]
    fn poll_through(
        &mut self,
        ports: &mut LocalPorts,
        mut carry: impl FnMut(&mut Worker, &mut [Packet], &mut LocalPorts),
    ) -> usize {
        let mut carried = ports.send_handed_over();
        // Out of `ports`, which is the sink too. An empty vector needs no memory.
        let mut batch = core::mem::take(&mut ports.batch);
        for at in 0..ports.ports.len() {
            let n = ports.receive(at, &mut batch);
            if n == 0 {
                continue;
            }
            carry(self, &mut batch[..n], ports);
            let driver = &mut ports.ports[at].driver;
            self.free(&mut batch[..n], |packet| driver.release(packet));
            debug_assert!(batch[..n].iter().all(|p| p.owner() == Owner::Gone), "every buffer has gone back");
            carried += n;
        }
        ports.batch = batch;
        if self.has_injected() {
            carry(self, &mut [], ports);
            carried += 1;
        }
        ports.ports.iter_mut().for_each(|port| port.driver.flush());
        carried
    }
}

#[cfg(test)]
mod tests;
