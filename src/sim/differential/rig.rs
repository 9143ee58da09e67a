//! [`Rig`]: the oracle and several engines, to which the same is done, and the comparison of everything that can be seen of them.

use core::fmt::Debug;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::{Engine, LENGTH_MAX, LONG, PORTS, SHORT, Sent, Way, number_of, without_number};
use super::flows::{self, BOND, METERS, NUMBER_BITS};
use super::scenario::{Event, Put, Reply, Scenario};
use super::tunnels::{self, TUNNELS};
use crate::action::bond::BUCKETS;
use crate::datapath::{Answer, FlowId, FlowPut, Stats};
use crate::flow::action::Userspace;
use crate::flow::{FlowKey, FlowMask};
use crate::meter::{Band, MeterConfig, MeterUnit};
use crate::packet::DropReason;
use crate::sim::oracle::meter::Meter;
use crate::sim::oracle::parcel::Parcel;
use crate::sim::oracle::{Bond, Outcome, Policy, Port, Punted, Switch};
use crate::sync::primitive::{Mutex, lock};
use crate::time::Nanos;
use crate::tunnel::Obstacle;
use crate::wire::simd::Level;

/// Copies that may go round again in one burst, so that the engine's bound on copies is not reached.
const RECIRCULATED_COPIES_MAX: usize = 200;

/// Copies that may be made in one burst, so that neither pools nor the queues of memory ports are exhausted.
const COPIES_MAX: u64 = 7000;

/// What a scenario came to, for tests that want to know that something was tested.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Bursts that were compared.
    pub bursts: u64,
    /// Flows that were installed.
    pub flows: u64,
    /// The oracle's counters.
    pub stats: Stats,
    /// Packets that ports sent.
    pub sent: u64,
    /// Packets on the upcall ring.
    pub punted: u64,
    /// Packets that went into tunnels.
    pub pushed: u64,
    /// Packets that came out of tunnels.
    pub popped: u64,
    /// The scenario ended early because a burst multiplied too much, or its packets grew too long.
    pub was_cut: bool,
}

/// Answers by what the replies say; which one depends on the key alone.
struct Replies {
    replies: Vec<Reply>,
    /// Every bit that some flow has looked at: a flow under this mask overlaps with none.
    mask: Arc<Mutex<FlowMask>>,
    /// Packets come without their numbers.
    is_plain: bool,
}

impl Replies {
    fn answer(&self, key: &FlowKey, more: u32) -> Answer {
        let base = &key.base;
        let choice = more as usize + base.in_port as usize + base.recirc_id as usize + usize::from(base.nw_proto);
        let reply = &self.replies[choice % self.replies.len()];
        let mut mask = *lock(&self.mask);
        // Whose copies go round first is unspecified, so what is installed then must concern no other packet.
        let came_round = base.recirc_id != 0 || base.in_port >= TUNNELS.start;
        mask.0.base.ct_mark |= if came_round { NUMBER_BITS } else { 0 };
        match reply.answer(&mask) {
            Answer::Execute { actions, .. } if came_round && (self.is_plain || number_of(base.ct_mark).is_none()) => {
                Answer::Execute { actions, install: None }
            }
            answer => answer,
        }
    }
}

impl Policy for Replies {
    fn miss(&self, key: &FlowKey) -> Answer {
        self.answer(key, 0)
    }

    fn punt(&self, key: &FlowKey, _: &Userspace) -> Answer {
        self.answer(key, 0)
    }

    fn undeliverable(&self, key: &FlowKey, tunnel: u32, obstacle: Obstacle) -> Answer {
        let how = match obstacle {
            Obstacle::Unresolved => 0,
            Obstacle::TooBig { inner_max } => inner_max + 1,
        };
        self.answer(key, tunnel + how)
    }
}

/// The oracle's handle of the same policy.
struct Shared(Arc<Replies>);

impl Policy for Shared {
    fn miss(&self, key: &FlowKey) -> Answer {
        self.0.miss(key)
    }

    fn punt(&self, key: &FlowKey, request: &Userspace) -> Answer {
        self.0.punt(key, request)
    }

    fn undeliverable(&self, key: &FlowKey, tunnel: u32, obstacle: Obstacle) -> Answer {
        self.0.undeliverable(key, tunnel, obstacle)
    }
}

/// Engines that live from case to case, so that each meets the caches and free lists that earlier ones left.
pub struct Rig {
    engines: Vec<Engine>,
    vlan_depth: u8,
    now: Nanos,
    /// An earlier case has set ports up or down. Setting one copies the table of ports, which is most of a short case's time.
    ports_were_set: bool,
    /// An earlier case has set tunnels, or none has yet.
    tunnels_were_set: bool,
}

/// One run of a scenario.
struct Run<'r> {
    engines: Vec<&'r mut Engine>,
    now: &'r mut Nanos,
    ports_were_set: &'r mut bool,
    tunnels_were_set: &'r mut bool,
    is_plain: bool,
    oracle: Switch,
    mask: Arc<Mutex<FlowMask>>,
    report: Report,
}

impl Rig {
    /// A rig whose keys take in `vlan_depth` tags: caches off, tiny and ample, each instruction-set level of the CPU, every way in and out.
    pub fn new(vlan_depth: u8) -> Rig {
        let best = Level::of_cpu();
        let engine =
            |way, cache, level: Level, is_tight| Engine::new(way, cache, level.min(best), is_tight, vlan_depth);
        let mut engines = vec![
            engine(Way::Copying, 0, Level::Portable, false),
            engine(Way::Sharing, 8, Level::Avx2, false),
            engine(Way::Taking, 4096, Level::Avx512, true),
            engine(Way::Polling, 64, Level::Avx512, false),
        ];
        if best == Level::Avx512 {
            engines.push(engine(Way::Copying, 64, Level::Avx512, false));
        }
        Rig { engines, vlan_depth, now: Nanos::from_millis(1), ports_were_set: false, tunnels_were_set: true }
    }

    /// Runs `scenario` on the oracle and on all engines.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn run(&mut self, scenario: &Scenario) -> Result<Report, String> {
        assert_eq!(scenario.vlan_depth, self.vlan_depth);
        let mut oracle = Switch::new(self.vlan_depth);
        for number in 1..=PORTS {
            let packet_len_max = if number == 4 { SHORT } else { LONG } as usize;
            oracle.ports.insert(number, Port { packet_len_max, is_up: true });
        }
        // Every mask has at least these, so that flows which are made while packets go round concern no others.
        let mut mask = FlowMask::default();
        (mask.0.base.recirc_id, mask.0.base.in_port) = (u32::MAX, u32::MAX);
        mask.0.base.packet_type_ns = 0xff;
        let Rig { engines, now, ports_were_set, tunnels_were_set, .. } = self;
        // The engine for packets from ports is out of this if they have other metadata, but not out of date.
        if core::mem::take(ports_were_set) {
            let ports = engines.iter().flat_map(|engine| (1..=PORTS).map(|port| (&engine.datapath, port)));
            ports.for_each(|(datapath, port)| assert!(datapath.port_set_up(port, true)));
        }
        oracle.tunnels = tunnels::all_at_first();
        if core::mem::take(tunnels_were_set) {
            for (engine, port) in engines.iter().flat_map(|engine| TUNNELS.map(move |port| (engine, port))) {
                tunnels::set(&engine.datapath, port, oracle.tunnels.get(&port));
            }
        }
        // What comes in through a port has no other metadata.
        let engines = engines.iter_mut().filter(|engine| scenario.is_plain || engine.way != Way::Polling).collect();
        let mut run = Run {
            engines,
            now,
            ports_were_set,
            tunnels_were_set,
            is_plain: scenario.is_plain,
            oracle,
            mask: Arc::new(Mutex::new(mask)),
            report: Report::default(),
        };
        run.clear();
        for (at, event) in scenario.events.iter().enumerate() {
            run.event(event).map_err(|what| format!("event {at}: {what}"))?;
            if run.report.was_cut {
                return Ok(run.report);
            }
        }
        run.flows().map_err(|what| format!("at the end: {what}"))?;
        run.meters_and_bonds().map_err(|what| format!("at the end: {what}"))?;
        Ok(run.report)
    }

    /// Ends the engines.
    ///
    /// # Errors
    /// One of them has lost buffers.
    pub fn finish(self) -> Result<(), String> {
        for engine in self.engines {
            let name = engine.name.clone();
            engine.set_policy(None);
            let missing = engine.buffers_missing();
            if missing != 0 {
                return Err(format!("{name}: {missing} buffers did not come back"));
            }
        }
        Ok(())
    }
}

/// `Err` that names what differs, unless `ours` is `right`.
fn same<T: PartialEq + Debug>(what: impl FnOnce() -> String, right: &T, ours: &T) -> Result<(), String> {
    if right == ours { Ok(()) } else { Err(format!("{}:\n  oracle {right:?}\n  engine {ours:?}", what())) }
}

impl Run<'_> {
    /// Brings every engine to where the oracle begins.
    fn clear(&mut self) {
        for engine in &self.engines {
            let datapath = &engine.datapath;
            datapath.flow_flush();
            engine.set_policy(None);
            datapath.set_upcalls_enabled(true);
            // Without counts of earlier cases.
            datapath.bond_del(BOND);
        }
        let config = MeterConfig { unit: MeterUnit::PacketsPerSecond, bands: vec![Band { rate: 5, burst: 4 }] };
        (0..METERS).for_each(|id| self.meter(id, &config));
        self.bond(&[1, 2, 3, u32::MAX]);
    }

    fn event(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Put(put) => self.put(put)?,
            Event::Del(at) => self.del(*at)?,
            Event::Burst(parcels) => self.burst(parcels)?,
            Event::Wait(ms) => self.wait(*ms)?,
            Event::Port(number, is_up) => {
                *self.ports_were_set = true;
                if let Some(port) = self.oracle.ports.get_mut(number) {
                    port.is_up = *is_up;
                }
                self.engines.iter().for_each(|e| assert!(e.datapath.port_set_up(*number, *is_up)));
            }
            Event::Upcalls(enabled) => {
                self.oracle.upcalls_enabled = *enabled;
                self.engines.iter().for_each(|e| e.datapath.set_upcalls_enabled(*enabled));
            }
            Event::Meter(id, config) => self.meter(*id, config),
            Event::Bond(members) => self.bond(members),
            Event::Tunnel(port, tunnel) => {
                *self.tunnels_were_set = true;
                match tunnel {
                    Some(tunnel) => self.oracle.tunnels.insert(*port, tunnel.clone()),
                    None => self.oracle.tunnels.remove(port),
                };
                self.engines.iter().for_each(|e| tunnels::set(&e.datapath, *port, tunnel.as_ref()));
            }
            Event::Handler(replies) => self.handler(replies),
        }
        Ok(())
    }

    fn meter(&mut self, id: u32, config: &MeterConfig) {
        let now = *self.now;
        self.oracle.meters.insert(id, Meter::new(config.clone(), now));
        for engine in &self.engines {
            engine.datapath.meter_set(id, config.clone(), now).expect("the meter is a legal one");
        }
    }

    fn bond(&mut self, members: &[u32]) {
        let members: [u32; BUCKETS] = core::array::from_fn(|bucket| members[bucket % members.len()]);
        let bytes = self.oracle.bonds.get(&BOND).map_or([0; BUCKETS], |bond| bond.bytes);
        self.oracle.bonds.insert(BOND, Bond { members, bytes });
        self.engines.iter().for_each(|e| e.datapath.bond_set(BOND, members));
    }

    fn handler(&mut self, replies: &[Reply]) {
        if replies.is_empty() {
            self.oracle.policy = None;
            self.engines.iter().for_each(|e| e.set_policy(None));
            return;
        }
        let policy =
            Arc::new(Replies { replies: replies.to_vec(), mask: Arc::clone(&self.mask), is_plain: self.is_plain });
        self.oracle.policy = Some(Box::new(Shared(Arc::clone(&policy))));
        self.engines.iter().for_each(|e| e.set_policy(Some(policy.clone())));
    }

    fn put(&mut self, put: &Put) -> Result<(), String> {
        let (mut key, mut mask) = (put.key, put.mask);
        let rules = &self.oracle.rules;
        if let (Some(of), false) = (put.of, rules.is_empty()) {
            (key, mask) = (rules[of % rules.len()].key, rules[of % rules.len()].mask);
        }
        if !rules.iter().any(|rule| rule.mask == mask && rule.key == key.masked(&mask)) {
            // Each change of the mask keeps what was told apart before.
            for rule in rules {
                if !flows::tell_apart(&key, &mut mask, &rule.key, &rule.mask) {
                    return Ok(());
                }
            }
        }
        lock(&self.mask).unite(&mask);
        let request = || FlowPut {
            ufid: put.ufid,
            create: put.create,
            modify: put.modify,
            zero_stats: put.zero_stats,
            idle_timeout_ns: put.idle_ms * 1_000_000,
            hard_timeout_ns: put.hard_ms * 1_000_000,
            now: *self.now,
            ..FlowPut::create(&key, &mask, put.actions.clone())
        };
        let right = self.oracle.put(request());
        self.report.flows += u64::from(right == Ok(None));
        for engine in &self.engines {
            same(|| format!("{}: flow_put", engine.name), &right, &engine.datapath.flow_put(request()))?;
        }
        Ok(())
    }

    fn del(&mut self, at: usize) -> Result<(), String> {
        if self.oracle.rules.is_empty() {
            return Ok(());
        }
        let rule = self.oracle.rules.remove(at % self.oracle.rules.len());
        for engine in &self.engines {
            let id = rule.ufid.map_or(FlowId::Exactly(&rule.key, &rule.mask), FlowId::Ufid);
            let gone = engine.datapath.flow_del(id).map(|info| info.stats);
            same(|| format!("{}: flow_del", engine.name), &Ok(rule.stats), &gone)?;
        }
        Ok(())
    }

    fn wait(&mut self, ms: u64) -> Result<(), String> {
        *self.now = *self.now + ms * 1_000_000;
        let now = *self.now;
        let mut right: Vec<_> = self.oracle.expire(now).iter().map(|rule| (rule.key, rule.stats)).collect();
        right.sort_by_key(|(key, _)| *key.lines());
        for engine in &self.engines {
            let mut gone = Vec::new();
            engine.datapath.upkeep(now, u32::MAX, |info| gone.push((info.key, info.stats)));
            gone.sort_by_key(|(key, _)| *key.lines());
            same(|| format!("{}: flows that upkeep removed", engine.name), &right, &gone)?;
        }
        Ok(())
    }

    fn burst(&mut self, parcels: &[Parcel]) -> Result<(), String> {
        let mut parcels = parcels.to_vec();
        for (number, parcel) in parcels.iter_mut().enumerate() {
            parcel.ct_mark = parcel.ct_mark & !NUMBER_BITS | (number as u32 + 1);
        }
        let now = *self.now;
        let right = self.oracle.process(parcels.clone(), now);
        let copies = right.recirculated_copies > RECIRCULATED_COPIES_MAX || right.stats.copies > COPIES_MAX;
        if copies || right.longest > LENGTH_MAX {
            self.report.was_cut = true;
            return Ok(());
        }
        self.report.bursts += 1;
        self.report.sent += right.sent.len() as u64;
        self.report.punted += right.punted.len() as u64;
        self.report.pushed += right.pushed;
        self.report.popped += right.popped;
        self.report.stats.merge(&right.stats);
        for engine in &mut self.engines {
            compare(engine, &parcels, now, &right).map_err(|what| format!("{}: {what}", engine.name))?;
        }
        Ok(())
    }

    /// Every flow, and what it counted.
    fn flows(&self) -> Result<(), String> {
        for engine in &self.engines {
            let count = engine.datapath.flow_count() as usize;
            same(|| format!("{}: flows", engine.name), &self.oracle.rules.len(), &count)?;
            for rule in &self.oracle.rules {
                let ours = engine.datapath.flow_get(FlowId::Exactly(&rule.key, &rule.mask)).map(|info| info.stats);
                same(|| format!("{}: statistics of flow {}", engine.name, rule.serial), &Ok(rule.stats), &ours)?;
            }
        }
        Ok(())
    }

    fn meters_and_bonds(&self) -> Result<(), String> {
        for engine in &self.engines {
            for (id, meter) in &self.oracle.meters {
                let ours = engine.datapath.meter_get(*id).unwrap_or_default();
                same(|| format!("{}: meter {id}", engine.name), meter.stats(), &ours)?;
            }
            for (id, bond) in &self.oracle.bonds {
                let ours = engine.datapath.bond_stats(*id).unwrap_or_default();
                same(|| format!("{}: bytes of bond {id}", engine.name), &bond.bytes.to_vec(), &ours)?;
            }
        }
        Ok(())
    }
}

/// Has `engine` do what came to `right`, and compares.
fn compare(engine: &mut Engine, parcels: &[Parcel], now: Nanos, right: &Outcome) -> Result<(), String> {
    let before = engine.datapath.stats();
    let (fates, sent) = engine.process(parcels, now);
    let is_polling = engine.way == Way::Polling;
    if let Some(fates) = fates {
        for (number, (right, ours)) in right.fates.iter().zip(&fates).enumerate() {
            same(|| format!("fate of packet {number}, {}", shown(&parcels[number])), right, ours)?;
        }
    }
    if !is_polling {
        sent_per_packet(parcels, right, &sent)?;
        order_without_numbers(parcels, right, &sent)?;
    }
    sent_per_port(right, &sent, is_polling)?;
    punted(right, engine.punted(), is_polling)?;
    counters(right, &before, &engine.datapath.stats(), is_polling)
}

/// A packet for a message.
fn shown(parcel: &Parcel) -> String {
    let kind = parcel.layer3.map_or(String::new(), |kind| format!("layer 3 {kind:#06x} "));
    format!("{kind}{}", hex(&parcel.bytes))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where something was sent, and what; the order of the fields is the order of lists.
type Sending<'a> = (u32, &'a [u8]);

/// `Err` with what only one of the lists holds, unless both hold the same in whatever order.
fn same_sendings<'a>(
    what: impl FnOnce() -> String,
    mut right: Vec<Sending<'a>>,
    mut ours: Vec<Sending<'a>>,
) -> Result<(), String> {
    right.sort_unstable();
    ours.sort_unstable();
    if right == ours {
        return Ok(());
    }
    let lens = (right.len(), ours.len());
    let mut only_ours = Vec::new();
    for sending in ours {
        match right.iter().position(|other| *other == sending) {
            Some(at) => drop(right.remove(at)),
            None => only_ours.push(sending),
        }
    }
    let shown = |list: &[Sending<'_>]| -> String {
        list.iter().take(4).map(|(port, bytes)| format!("\n    port {port}: {}", hex(bytes))).collect()
    };
    let (right, ours) = (shown(&right), shown(&only_ours));
    Err(format!("{}: {lens:?} in all\n  only the oracle:{right}\n  only the engine:{ours}", what()))
}

/// Each packet went to the same ports with the same bytes, and per port packets of one path are in order of arrival.
fn sent_per_packet(parcels: &[Parcel], right: &Outcome, ours: &[Sent]) -> Result<(), String> {
    let mut should: Vec<Vec<Sending<'_>>> = vec![Vec::new(); parcels.len()];
    let mut did = should.clone();
    let of_right: Vec<_> = right.sent.iter().filter(|s| number_of(s.ct_mark).is_some()).collect();
    let ours: Vec<_> = ours.iter().filter_map(|s| Some((s.packet?, s.port, &*s.bytes))).collect();
    of_right.iter().for_each(|s| should[s.packet].push((s.port, &s.bytes)));
    for (packet, port, bytes) in &ours {
        let of_packet = did.get_mut(*packet).ok_or_else(|| format!("packet {packet} was sent, which never came in"))?;
        of_packet.push((*port, bytes));
    }
    for (number, (should, did)) in should.into_iter().zip(did).enumerate() {
        same_sendings(|| format!("what was sent of packet {number}, {}", shown(&parcels[number])), should, did)?;
    }
    for port in 1..=PORTS {
        let mut times = vec![0; parcels.len()];
        of_right.iter().filter(|s| s.port == port).for_each(|s| times[s.packet] += 1);
        // A packet that a port sent several times is in several places.
        let mut paths: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
        for s in of_right.iter().filter(|s| s.port == port && times[s.packet] == 1) {
            paths.entry(&s.path).or_default().push(s.packet);
        }
        let mut places = vec![None; parcels.len()];
        ours.iter().enumerate().filter(|(_, s)| s.1 == port).for_each(|(i, s)| places[s.0] = Some(i));
        for (path, packets) in paths {
            if packets.is_sorted_by_key(|&packet| places[packet]) {
                continue;
            }
            let mut did = packets.clone();
            did.sort_by_key(|&packet| places[packet]);
            same(|| format!("order at port {port} of packets on path {path:?}"), &packets, &did)?;
        }
    }
    Ok(())
}

/// Per port, packets without numbers that took one path are in order too if they differ in nothing but their last bytes: those that come
/// out of a tunnel go one way if they are as most are, another if not. Of packets that are equal the order cannot be told.
fn order_without_numbers(parcels: &[Parcel], right: &Outcome, ours: &[Sent]) -> Result<(), String> {
    // Such as is the same of all packets that were made from one.
    let kind = |number: usize| {
        let parcel = &parcels[number];
        let (front, _) = parcel.bytes.split_at(parcel.bytes.len().saturating_sub(2));
        (parcel.layer3, front)
    };
    for port in 1..=PORTS {
        let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        let ours = ours.iter().filter(|s| s.port == port && s.packet.is_none());
        ours.enumerate().for_each(|(place, s)| places.entry(&s.bytes).or_default().push(place));
        let of_right: Vec<_> = right.sent.iter().filter(|s| s.port == port && number_of(s.ct_mark).is_none()).collect();
        let mut times = vec![0; parcels.len()];
        of_right.iter().for_each(|s| times[s.packet] += 1);
        let mut last = BTreeMap::new();
        for s in of_right.into_iter().filter(|s| times[s.packet] == 1) {
            let Some([place]) = places.get(&*s.bytes).map(Vec::as_slice) else { continue };
            if last.insert((&s.path, kind(s.packet)), *place).is_some_and(|earlier| earlier > *place) {
                let (path, bytes) = (&s.path, hex(&s.bytes));
                return Err(format!(
                    "port {port} sent {bytes} before others that came first and took the same path {path:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Each port sent the same packets, in whatever order: all, or those whose number is lost because they went into or out of a tunnel.
fn sent_per_port(right: &Outcome, ours: &[Sent], all: bool) -> Result<(), String> {
    let should = right.sent.iter().filter(|s| all || number_of(s.ct_mark).is_none());
    let did = ours.iter().filter(|s| all || s.packet.is_none());
    let should = should.map(|s| (s.port, &*s.bytes)).collect();
    same_sendings(|| "what ports sent".into(), should, did.map(|s| (s.port, &*s.bytes)).collect())
}

fn punted(right: &Outcome, ours: Vec<Punted>, is_polling: bool) -> Result<(), String> {
    let list = |list: &[Punted]| {
        let mut list: Vec<Punted> = list.to_vec();
        if is_polling {
            list.iter_mut().for_each(|p| *p.key = without_number(&p.key));
        }
        let data = |p: &Punted| p.request.as_ref().map(|request| request.userdata.clone());
        list.sort_by_cached_key(|p| (*p.key.lines(), p.bytes.clone(), data(p)));
        list
    };
    let (right, ours) = (list(&right.punted), list(&ours));
    same(|| "packets on the upcall ring".into(), &right.len(), &ours.len())?;
    right.iter().zip(&ours).try_for_each(|(right, ours)| same(|| "packet on the upcall ring".into(), right, ours))
}

/// Every counter moved by as much as it should, and the fates add up to the packets.
fn counters(right: &Outcome, before: &Stats, after: &Stats, is_polling: bool) -> Result<(), String> {
    same(|| "sum of fates".into(), &after.packets_in, &after.fates())?;
    let copies = after.copies_transmitted + after.copies_dropped.iter().sum::<u64>();
    same(|| "sum of the ends of copies".into(), &after.copies, &copies)?;
    let was: Vec<(&str, u64)> = before.named().collect();
    let mut lookups = (0, 0);
    for (((name, right), (_, before)), (_, after)) in right.stats.named().zip(was).zip(after.named()) {
        match name {
            "exact_hits" | "megaflow_hits" => {
                lookups.0 += right;
                lookups.1 += after - before;
            }
            // The oracle has no buffers and no subtables, and a poll is a burst for each port.
            "moved" | "subtable_probes" | "flows_refused" => {}
            "bursts" if is_polling => {}
            _ => same(|| format!("counter {name}"), &right, &(after - before))?,
        }
    }
    same(|| "lookups that found a flow".into(), &lookups.0, &lookups.1)?;
    for reason in DropReason::ALL {
        let i = reason.index();
        let (dropped, copies) =
            (after.dropped[i] - before.dropped[i], after.copies_dropped[i] - before.copies_dropped[i]);
        same(|| format!("packets dropped for {reason}"), &right.stats.dropped[i], &dropped)?;
        same(|| format!("copies dropped for {reason}"), &right.stats.copies_dropped[i], &copies)?;
    }
    Ok(())
}
