//! The neighbour cache: link-layer addresses of next hops, by ARP (RFC 826) and neighbour discovery (RFC 4861 §7.3).
//!
//! One state machine for both, which is that of RFC 4861. Time is an argument; what is to be sent comes out as [`Event`]s.
//!
//! *Sooner than the RFCs.* A first request is often lost: the link is not up yet, or the neighbour's. RFC 4861 §10 and RFC 1122 §2.3.2.1 would ask
//! again after a second. Here up to three more requests are sent within that second, without jitter, while a packet waits for the answer
//! (`early_ns`), and one at once where a packet begins to wait for an answer that is late. Those of RFC 4861 come when they would have, and a
//! neighbour is given up no later and no sooner. [`Neighbours::ask_again`] is for links that have come up.
//!
//! *Bounds.* Entries are made for next hops of our own and for who asks us, never for who merely announces itself; there are at most
//! `entries_max`, and the one unused for longest makes room. Packets wait per entry and in all up to limits; the oldest give way.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use ahash::AHashMap;

use crate::time::Nanos;

/// Settings of a neighbour cache; the defaults are those of RFC 4861 §10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourConfig {
    /// An address that was confirmed is believed for this many ns.
    pub reachable_ns: u64,
    /// One that is not believed any more is used this many ns before it is asked for again.
    pub delay_ns: u64,
    /// Between two requests, ns.
    pub retransmit_ns: u64,
    /// When after a packet has begun to wait the request to all is repeated early, ns: in ascending order, and sooner than `retransmit_ns`.
    pub early_ns: [u64; 3],
    /// Requests to all before an address counts as nobody's.
    pub multicast_max: u8,
    /// Requests to the known address before it is given up.
    pub unicast_max: u8,
    /// For so many ns nobody is asked again after a failure.
    pub failed_ns: u64,
    /// Entries.
    pub entries_max: usize,
    /// Packets that wait for one address.
    pub queue_max: usize,
    /// Bytes that wait for all addresses.
    pub queue_bytes_max: usize,
}

impl Default for NeighbourConfig {
    fn default() -> Self {
        NeighbourConfig {
            reachable_ns: 30_000_000_000,
            delay_ns: 5_000_000_000,
            retransmit_ns: 1_000_000_000,
            // 50, 100, 200 ms apart.
            early_ns: [50_000_000, 150_000_000, 350_000_000],
            multicast_max: 3,
            unicast_max: 3,
            failed_ns: 3_000_000_000,
            entries_max: 16_384,
            queue_max: 16,
            queue_bytes_max: 4 << 20,
        }
    }
}

/// A neighbour: the port that it is behind, and its address.
pub type NeighbourKey = (u32, IpAddr);

/// What is known of a neighbour (RFC 4861 §7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// It is being asked for.
    Incomplete,
    /// Its address was confirmed lately.
    Reachable,
    /// Its address was confirmed once.
    Stale,
    /// It was used while stale, and somebody else may confirm it.
    Delay,
    /// It is being asked whether it is still there.
    Probe,
    /// It did not answer.
    Failed,
    /// Its address was configured.
    Permanent,
}

/// A neighbour as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Port and address.
    pub key: NeighbourKey,
    /// Its link-layer address, if known.
    pub mac: Option<[u8; 6]>,
    /// What is known.
    pub state: NeighbourState,
    /// Packets that wait for it.
    pub waiting: usize,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<W> {
    /// Ask for a neighbour: all on the link, or the one at `mac`.
    Solicit {
        /// Who.
        key: NeighbourKey,
        /// Where; `None` for all.
        mac: Option<[u8; 6]>,
    },
    /// A neighbour has an address that it did not have.
    Known {
        /// Who.
        key: NeighbourKey,
        /// Where.
        mac: [u8; 6],
        /// What waited for it, oldest first.
        waiting: Vec<W>,
    },
    /// A neighbour does not answer.
    Lost {
        /// Who.
        key: NeighbourKey,
        /// What waited for it.
        waiting: Vec<W>,
    },
}

/// How a neighbour told its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered us.
    Answer {
        /// Its new address counts (RFC 4861 §7.2.5: the override flag); ARP replies always do.
        overriding: bool,
    },
    /// It asked for one of our addresses.
    Question,
    /// It announced itself to all: gratuitous ARP, unsolicited advertisement.
    Announcement,
}

/// What waits for a neighbour.
pub trait Waiting {
    /// Bytes that it takes.
    fn len(&self) -> usize;

    /// True if it takes none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Waiting for Vec<u8> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }
}

#[derive(Debug)]
struct Neighbour<W> {
    state: NeighbourState,
    mac: Option<[u8; 6]>,
    /// When the state ends by itself.
    due: Option<Nanos>,
    /// Requests since the last answer, without early ones.
    tries: u8,
    /// When the last request was sent, early ones included.
    sent: Nanos,
    /// When the next one is due that is not early.
    regular: Nanos,
    /// When the first of the packets that wait has come.
    wanted: Nanos,
    used: Nanos,
    waiting: VecDeque<W>,
}

impl<W> Neighbour<W> {
    fn new(state: NeighbourState, mac: Option<[u8; 6]>, now: Nanos) -> Self {
        Neighbour {
            state,
            mac,
            due: None,
            tries: 0,
            sent: now,
            regular: now,
            wanted: now,
            used: now,
            waiting: VecDeque::new(),
        }
    }
}

/// What a cache counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourStats {
    /// Requests sent.
    pub solicited: u64,
    /// Addresses that became known or changed.
    pub learned: u64,
    /// Neighbours that did not answer.
    pub lost: u64,
    /// Waiting packets that gave way to later ones, or found no room.
    pub overflowed: u64,
    /// Entries that gave way to others.
    pub evicted: u64,
}

/// The neighbours of all ports.
#[derive(Debug)]
pub struct Neighbours<W> {
    config: NeighbourConfig,
    entries: AHashMap<NeighbourKey, Neighbour<W>>,
    /// Entries by when their state ends.
    due: BTreeSet<(Nanos, NeighbourKey)>,
    /// Entries that may give way, by their last use.
    used: BTreeSet<(Nanos, NeighbourKey)>,
    bytes: usize,
    /// What was counted.
    pub stats: NeighbourStats,
}

impl<W: Waiting> Neighbours<W> {
    /// An empty cache.
    pub fn new(config: NeighbourConfig) -> Self {
        Neighbours {
            config,
            entries: AHashMap::new(),
            due: BTreeSet::new(),
            used: BTreeSet::new(),
            bytes: 0,
            stats: NeighbourStats::default(),
        }
    }

    /// The address of a neighbour that is to be sent to; without one, `waiting` waits for it, and what is to be sent is told to `then`.
    pub fn resolve(
        &mut self,
        key: NeighbourKey,
        now: Nanos,
        waiting: Option<W>,
        then: &mut impl FnMut(Event<W>),
    ) -> Option<[u8; 6]> {
        use NeighbourState::{Delay, Failed, Incomplete, Permanent, Probe, Reachable, Stale};
        if !self.entries.contains_key(&key) {
            self.make_room(then);
            self.insert(key, Neighbour::new(Incomplete, None, now));
            self.ask(key, now, then);
        }
        self.touch(key, now);
        let entry = self.entries.get_mut(&key)?;
        match entry.state {
            Reachable | Delay | Probe | Permanent => {}
            Stale => {
                entry.state = Delay;
                self.set_due(key, Some(now + self.config.delay_ns));
            }
            Failed | Incomplete => {
                if let Some(waiting) = waiting {
                    self.wait(key, waiting, now, then);
                }
                return None;
            }
        }
        self.entries.get(&key)?.mac
    }

    /// A neighbour told its address.
    pub fn heard(&mut self, key: NeighbourKey, mac: [u8; 6], how: Heard, now: Nanos, then: &mut impl FnMut(Event<W>)) {
        use NeighbourState::{Incomplete, Permanent, Reachable, Stale};
        // No host has a group's address or none.
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return;
        }
        if !self.entries.contains_key(&key) {
            // Who announces itself is not remembered: we may never speak to it.
            if how != Heard::Question {
                return;
            }
            self.make_room(then);
            self.insert(key, Neighbour::new(Stale, Some(mac), now));
            self.stats.learned += 1;
            return then(Event::Known { key, mac, waiting: Vec::new() });
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let is_other = entry.mac != Some(mac);
        let was_asked = matches!(how, Heard::Answer { .. });
        match entry.state {
            Permanent => return,
            // Without override a different address is doubted, and the known one asked for again (RFC 4861 §7.2.5).
            Reachable if is_other && how == (Heard::Answer { overriding: false }) => {
                entry.state = Stale;
                return self.set_due(key, None);
            }
            _ if is_other && entry.mac.is_some() && how == (Heard::Answer { overriding: false }) => return,
            _ => {}
        }
        let was_unknown = entry.mac.is_none() || entry.state == Incomplete;
        entry.mac = Some(mac);
        entry.tries = 0;
        // Only an answer confirms that our packets arrive there.
        let confirmed = was_asked;
        entry.state = if confirmed {
            Reachable
        } else if is_other || was_unknown {
            Stale
        } else {
            entry.state
        };
        let state = entry.state;
        let waiting: Vec<W> = core::mem::take(&mut entry.waiting).into();
        self.bytes -= waiting.iter().map(Waiting::len).sum::<usize>();
        match state {
            Reachable => self.set_due(key, Some(now + self.config.reachable_ns)),
            Stale => self.set_due(key, None),
            _ => {}
        }
        if is_other || was_unknown || !waiting.is_empty() {
            self.stats.learned += u64::from(is_other || was_unknown);
            then(Event::Known { key, mac, waiting });
        }
    }

    /// Packets of a neighbour show that ours arrive there (RFC 4861 §7.3.1).
    pub fn confirm(&mut self, key: NeighbourKey, now: Nanos) {
        use NeighbourState::{Delay, Probe, Reachable, Stale};
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if matches!(entry.state, Reachable | Stale | Delay | Probe) {
            entry.state = Reachable;
            entry.tries = 0;
            self.set_due(key, Some(now + self.config.reachable_ns));
        }
    }

    /// Sets a neighbour's address for good.
    pub fn set(&mut self, key: NeighbourKey, mac: [u8; 6], now: Nanos, then: &mut impl FnMut(Event<W>)) {
        let waiting = self.forget(key);
        self.insert(key, Neighbour::new(NeighbourState::Permanent, Some(mac), now));
        self.used.remove(&(now, key));
        then(Event::Known { key, mac, waiting });
    }

    /// Forgets a neighbour; returns what waited for it.
    pub fn forget(&mut self, key: NeighbourKey) -> Vec<W> {
        let Some(entry) = self.entries.remove(&key) else { return Vec::new() };
        self.used.remove(&(entry.used, key));
        if let Some(due) = entry.due {
            self.due.remove(&(due, key));
        }
        let waiting: Vec<W> = entry.waiting.into();
        self.bytes -= waiting.iter().map(Waiting::len).sum::<usize>();
        waiting
    }

    /// Forgets the neighbours behind `port`; returns how many packets waited for them.
    pub fn forget_port(&mut self, port: u32) -> usize {
        let keys: Vec<NeighbourKey> = self.entries.keys().filter(|key| key.0 == port).copied().collect();
        keys.into_iter().map(|key| self.forget(key).len()).sum()
    }

    /// What time brings: requests again, addresses that are believed no longer. At most `budget` entries.
    pub fn tick(&mut self, now: Nanos, budget: usize, then: &mut impl FnMut(Event<W>)) {
        use NeighbourState::{Delay, Failed, Incomplete, Permanent, Probe, Reachable, Stale};
        for _ in 0..budget {
            let Some(&(due, key)) = self.due.first() else { return };
            if due > now {
                return;
            }
            let Some(entry) = self.entries.get_mut(&key) else { return };
            match entry.state {
                Reachable => {
                    entry.state = Stale;
                    self.set_due(key, None);
                }
                Delay => {
                    entry.state = Probe;
                    entry.tries = 0;
                    self.ask(key, now, then);
                }
                Incomplete if now < entry.regular => self.send_request(key, now, then),
                Incomplete if entry.tries < self.config.multicast_max => self.ask(key, now, then),
                Probe if entry.tries < self.config.unicast_max => self.ask(key, now, then),
                Incomplete | Probe => {
                    entry.state = Failed;
                    entry.mac = None;
                    let waiting: Vec<W> = core::mem::take(&mut entry.waiting).into();
                    self.bytes -= waiting.iter().map(Waiting::len).sum::<usize>();
                    self.stats.lost += 1;
                    self.set_due(key, Some(now + self.config.failed_ns));
                    then(Event::Lost { key, waiting });
                }
                // The next packet for it asks anew.
                Failed => drop(self.forget(key)),
                Stale | Permanent => self.set_due(key, None),
            }
        }
    }

    /// The link of `port` has come up: whoever was asked for before is asked for anew.
    pub fn ask_again(&mut self, port: u32, now: Nanos, then: &mut impl FnMut(Event<W>)) {
        use NeighbourState::{Failed, Incomplete};
        let is_asked =
            |(key, entry): &(&NeighbourKey, &Neighbour<W>)| key.0 == port && matches!(entry.state, Incomplete | Failed);
        let keys: BTreeSet<NeighbourKey> = self.entries.iter().filter(is_asked).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            (entry.state, entry.tries, entry.wanted) = (Incomplete, 0, now);
            self.ask(key, now, then);
        }
    }

    /// True if packets wait for a neighbour.
    pub fn waits(&self, key: NeighbourKey) -> bool {
        self.entries.get(&key).is_some_and(|entry| !entry.waiting.is_empty())
    }

    /// A neighbour.
    pub fn get(&self, key: NeighbourKey) -> Option<NeighbourInfo> {
        let entry = self.entries.get(&key)?;
        Some(NeighbourInfo { key, mac: entry.mac, state: entry.state, waiting: entry.waiting.len() })
    }

    /// All neighbours, in no order.
    pub fn iter(&self) -> impl Iterator<Item = NeighbourInfo> + '_ {
        self.entries.keys().filter_map(|key| self.get(*key))
    }

    /// When [`Neighbours::tick`] will have something to do.
    pub fn next_due(&self) -> Option<Nanos> {
        self.due.first().map(|(due, _)| *due)
    }

    fn insert(&mut self, key: NeighbourKey, entry: Neighbour<W>) {
        self.used.insert((entry.used, key));
        self.entries.insert(key, entry);
    }

    /// Sends one of the requests after which a neighbour is given up.
    fn ask(&mut self, key: NeighbourKey, now: Nanos, then: &mut impl FnMut(Event<W>)) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.tries += 1;
        entry.regular = now + self.config.retransmit_ns;
        self.send_request(key, now, then);
    }

    /// Sends a request, and notes when the next one is due.
    fn send_request(&mut self, key: NeighbourKey, now: Nanos, then: &mut impl FnMut(Event<W>)) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.sent = now;
        let mac = entry.mac;
        self.stats.solicited += 1;
        self.set_next_request(key, now);
        then(Event::Solicit { key, mac });
    }

    /// The next request is due when it always is, or sooner if a packet waits.
    fn set_next_request(&mut self, key: NeighbourKey, now: Nanos) {
        let Some(entry) = self.entries.get(&key) else { return };
        let is_wanted = entry.state == NeighbourState::Incomplete && !entry.waiting.is_empty();
        let early =
            self.config.early_ns.into_iter().map(|early| entry.wanted + early).find(|early| is_wanted && *early > now);
        let due = early.map_or(entry.regular, |early| early.min(entry.regular));
        self.set_due(key, Some(due));
    }

    fn wait(&mut self, key: NeighbourKey, waiting: W, now: Nanos, then: &mut impl FnMut(Event<W>)) {
        let len = waiting.len();
        if self.config.queue_max == 0 || self.bytes + len > self.config.queue_bytes_max {
            self.stats.overflowed += 1;
            return;
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        // RFC 4861 §7.2.2: the newest are kept.
        if entry.state == NeighbourState::Failed {
            self.stats.overflowed += 1;
            return;
        }
        if entry.waiting.len() >= self.config.queue_max
            && let Some(oldest) = entry.waiting.pop_front()
        {
            self.bytes -= oldest.len();
            self.stats.overflowed += 1;
        }
        let is_first = entry.waiting.is_empty();
        entry.waiting.push_back(waiting);
        self.bytes += len;
        if is_first {
            entry.wanted = now;
            // Not right behind or before another one.
            let soon = self.config.early_ns[0];
            let is_late = now.since(entry.sent) >= soon && entry.regular.since(now) > soon;
            if is_late { self.send_request(key, now, then) } else { self.set_next_request(key, now) }
        }
    }

    fn set_due(&mut self, key: NeighbourKey, due: Option<Nanos>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = core::mem::replace(&mut entry.due, due) {
            self.due.remove(&(old, key));
        }
        if let Some(due) = due {
            self.due.insert((due, key));
        }
    }

    fn touch(&mut self, key: NeighbourKey, now: Nanos) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if self.used.remove(&(core::mem::replace(&mut entry.used, now), key)) {
            self.used.insert((now, key));
        }
    }

    /// Makes room for one entry.
    fn make_room(&mut self, then: &mut impl FnMut(Event<W>)) {
        while self.entries.len() >= self.config.entries_max.max(1) {
            let Some(&(_, key)) = self.used.first() else { return };
            let waiting = self.forget(key);
            self.stats.evicted += 1;
            then(Event::Lost { key, waiting });
        }
    }
}

#[cfg(test)]
mod tests;
