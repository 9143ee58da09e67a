//! A learning Ethernet bridge with VLANs and VPCs, as an upcall handler over the datapath.
//!
//! Every flow that the bridge installs matches where the packet came from (port and VLAN tag, or VPC and the other end of its tunnel), and
//! both addresses. So a source that was not seen before always misses, and the bridge learns it; and each flow depends on exactly two
//! *stations* (addresses within a [`Domain`]), its source and its destination. When a station moves to another port or ages out, its flows go in the same breath, under the lock under which
//! flows are installed: no flow outlives what it was made from.
//!
//! *Flooding.* A frame for an address that is not known, or for a group, goes to all other ports of its VLAN. Such frames
//! miss each time: a cached flood would outlive the learning of its destination. They are limited per ingress port (`storm`). Only
//! where that limit is turned off, frames for groups, which no station ever owns, get a flow.
//!
//! *Limits.* What frames of a VPC cause is counted for that VPC alone: stations, floods and answers per port or other end, and the VPC's stations
//! and flows. Of the bounds for all together each VPC has a share that the others cannot take, see `shares`. The VLANs are one party in this.
//!
//! *Ages.* A station was last seen when a packet of it came, whether it missed or hit a flow. The bridge asks the flows only when a
//! station seems to be too old, so upkeep costs little.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use self::shares::{Party, Shares};
use self::vpc::Vpc;
use super::domain::{Domain, Place, Vni};
use super::underlay::{Endpoint, Underlay};
use super::vlan::{PortVlans, Tag, VlanId};
use crate::datapath::{
    Answer, Datapath, FlowId, FlowInfo, FlowPut, Miss, Punt, Undeliverable, UpcallHandler, WeakDatapath,
};
use crate::flow::action::{Action, Actions};
use crate::flow::key::{BaseLine, FlowMask, VLAN_PRESENT};
use crate::packet::DropReason;
use crate::port::table::PORT_NUMBER_END;
use crate::sync::primitive::{Mutex, lock};
use crate::time::Nanos;
use crate::wire::ethernet;

/// Settings of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeConfig {
    /// A station is forgotten after this many ns without a packet.
    pub aging_ns: u64,
    /// Stations known at a time, over all ports. Further ones are not learned, and frames for them are flooded. Of half of them each VPC, and the
    /// VLANs together, have an even share for themselves.
    pub stations_max: u32,
    /// Stations known at a time on one port, of the VLANs and of each VPC; the same for other ends of tunnels.
    pub stations_per_port_max: u32,
    /// Frames per second that may be flooded from one ingress port, those of each VPC apart; the others are dropped (`storm`). 0 = no limit.
    pub flood_rate: u32,
    /// Frames that may be flooded at once after a pause; at least 1.
    pub flood_burst: u32,
    /// Flows go after this many ns without a packet.
    pub flow_idle_ns: u64,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig {
            aging_ns: 300_000_000_000,
            stations_max: 65_536,
            stations_per_port_max: 16_384,
            flood_rate: 10_000,
            flood_burst: 1_000,
            flow_idle_ns: 10_000_000_000,
        }
    }
}

/// Why there is no bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The datapath's flow keys have no VLAN tag.
    #[error("the datapath's vlan_depth must be at least 1")]
    VlanDepth,
    /// The port number is too large.
    #[error("port number {0} is out of range (0 to 65535)")]
    PortNumber(u32),
    /// Frames of the port with one of these tags belong to a VPC.
    #[error("vlans: frames of port {0} with one of these tags belong to a VPC")]
    Vpc(u32),
    /// The port is an interface of the underlay.
    #[error("port {0} is an interface of the underlay")]
    Interface(u32),
}

/// What a bridge counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeStats {
    /// Stations learned.
    pub learned: u64,
    /// Stations that were seen on another port than before.
    pub moved: u64,
    /// Stations forgotten for their age.
    pub aged: u64,
    /// Times that a station was not learned, or its move not believed, because a limit was reached.
    pub learn_refused: u64,
    /// Frames flooded.
    pub flooded: u64,
    /// Frames that the flood limit dropped.
    pub storm_dropped: u64,
    /// Flows installed.
    pub flows_installed: u64,
    /// Flows that the datapath, or their VPC's limit, had no room for; their frames went on.
    pub flows_refused: u64,
    /// Other ends of tunnels that were learned from their packets.
    pub remotes_learned: u64,
    /// Questions for an address (ARP, neighbour discovery) that were answered for another station, or by proxy.
    pub answered_for: u64,
    /// Senders that were told that their packets are too long for a tunnel.
    pub told_too_big: u64,
}

/// A station as the bridge knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StationInfo {
    /// Its VLAN or VPC.
    pub domain: Domain,
    /// Its address.
    pub mac: [u8; 6],
    /// Where it is.
    pub place: Place,
    /// When its last packet came.
    pub seen: Nanos,
}

type StationKey = (Domain, [u8; 6]);

#[derive(Debug)]
struct Station {
    place: Place,
    seen: Nanos,
    /// Flows from and to it.
    flows: AHashSet<u128>,
}

/// What a flow was made from.
#[derive(Clone, Copy, Debug)]
struct FlowOf {
    src: StationKey,
    /// `None` for a group.
    dst: Option<StationKey>,
}

/// What is counted per port and per other end of a tunnel, of the VLANs and of each VPC.
#[derive(Debug, Default)]
struct Tally {
    stations: u32,
    /// When the flood limit's bucket will be full again.
    flood_full_at: Nanos,
    /// When that of answers and errors will be.
    told_full_at: Nanos,
}

/// Takes one out of a bucket that holds `burst`, gains one in `each` ns, and will be full at `full_at`; false if it is empty.
fn take_one(full_at: &mut Nanos, now: Nanos, each: u64, burst: u64) -> bool {
    let then = (*full_at).max(now) + each;
    let may = then.since(now) <= each * burst;
    if may {
        *full_at = then;
    }
    may
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug)]
struct Source {
    domain: Domain,
    place: Place,
    /// In the number of its flows, see [`ufid`].
    segment: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered, so that floods are.
    ports: BTreeMap<u32, PortVlans>,
    /// VPCs that frames of a port belong to, by the VLAN number of their tag, 0 for none. They are looked for before the port's VLANs.
    members: BTreeMap<(u32, u16), Vni>,
    /// Some of them go by a tag.
    has_tagged_members: bool,
    vpcs: BTreeMap<Vni, Vpc>,
    /// Other ends of tunnels: the number of each, and how many VPCs need it.
    endpoints: AHashMap<Endpoint, (u32, usize)>,
    tallies: AHashMap<(Party, Place), Tally>,
    station_shares: Shares,
    flow_shares: Shares,
    segments: u32,
    stations: AHashMap<StationKey, Station>,
    flows: AHashMap<u128, FlowOf>,
    stats: BridgeStats,
    swept_at: Nanos,
}

/// The bridge of one datapath.
///
/// *Thread-safety.* Configuration immutable; everything else behind one mutex, which upcalls take but packets that hit a flow do not.
/// It is taken before the underlay's mutex, and that before the datapath's control mutex, never the other way round.
#[derive(Debug)]
pub struct Bridge {
    config: BridgeConfig,
    datapath: WeakDatapath,
    underlay: Option<Arc<Underlay>>,
    state: Mutex<State>,
}

/// Nanoseconds between two looks at all stations' ages.
const SWEEP_NS: u64 = 1_000_000_000;
/// Flows that one upkeep looks at.
const UPKEEP_FLOWS: u32 = 65_536;
/// The bridge leaves the datapath the so many-th part of its flows, if it has an underlay.
const FLOWS_KEPT: u32 = 16;

impl Bridge {
    /// Makes a bridge and sets it as the upcall handler of `datapath`. It forwards nothing until ports are set.
    ///
    /// # Errors
    /// [`BridgeError::VlanDepth`].
    pub fn attach(datapath: &Datapath, config: BridgeConfig) -> Result<Arc<Bridge>, BridgeError> {
        Bridge::attach_over(datapath, config, None)
    }

    /// As [`Bridge::attach`], with an underlay of the same datapath: its upcalls are handed on to it, and it carries the VPCs.
    ///
    /// # Errors
    /// [`BridgeError::VlanDepth`].
    pub fn attach_over(
        datapath: &Datapath,
        config: BridgeConfig,
        underlay: Option<Arc<Underlay>>,
    ) -> Result<Arc<Bridge>, BridgeError> {
        let bridge = Bridge::over(datapath, config, underlay)?;
        datapath.set_upcall_handler(Some(Arc::clone(&bridge) as Arc<dyn UpcallHandler>));
        Ok(bridge)
    }

    /// As [`Bridge::attach_over`], but for a handler that shares the datapath's upcalls out and hands the bridge those that it [owns](Bridge::owns).
    ///
    /// # Errors
    /// [`BridgeError::VlanDepth`].
    pub fn over(
        datapath: &Datapath,
        config: BridgeConfig,
        underlay: Option<Arc<Underlay>>,
    ) -> Result<Arc<Bridge>, BridgeError> {
        if datapath.config().vlan_depth == 0 {
            return Err(BridgeError::VlanDepth);
        }
        let flows_max = datapath.config().flows_max;
        // The flows that take packets out of tunnels must find room as well.
        let kept = if underlay.is_some() { flows_max / FLOWS_KEPT } else { 0 };
        let state = State {
            station_shares: Shares::new(config.stations_max),
            flow_shares: Shares::new(flows_max - kept),
            ..State::default()
        };
        Ok(Arc::new(Bridge { config, datapath: datapath.downgrade(), underlay, state: Mutex::new(state) }))
    }

    /// True if packets that come in on this port are for the bridge to judge: it is a port of a VLAN or of a VPC, an interface of the underlay, or
    /// what comes out of a tunnel that the underlay listens for.
    pub fn owns(&self, port: u32) -> bool {
        if self.underlay.as_ref().is_some_and(|underlay| underlay.owns(port)) {
            return true;
        }
        let state = lock(&self.state);
        state.ports.contains_key(&port) || state.members_of(port).next().is_some()
    }

    /// Makes a datapath port a member of the bridge, or changes its VLANs. Stations behind it are forgotten.
    ///
    /// # Errors
    /// [`BridgeError`] says what is wrong; nothing is changed then.
    pub fn set_port(&self, number: u32, vlans: PortVlans) -> Result<(), BridgeError> {
        if number >= PORT_NUMBER_END {
            return Err(BridgeError::PortNumber(number));
        }
        if self.underlay.as_ref().is_some_and(|underlay| underlay.has_interface(number)) {
            return Err(BridgeError::Interface(number));
        }
        let mut state = lock(&self.state);
        if state.members_of(number).any(|tag| vpc::is_bridged(&vlans, tag)) {
            return Err(BridgeError::Vpc(number));
        }
        self.forget_port(&mut state, number);
        state.ports.insert(number, vlans);
        Ok(())
    }

    /// Takes a port out of the bridge; false if it was not in it.
    pub fn remove_port(&self, number: u32) -> bool {
        let mut state = lock(&self.state);
        self.forget_port(&mut state, number);
        let was_member = state.leave_all(number);
        state.ports.remove(&number).is_some() || was_member
    }

    /// Forgets the stations behind `port`, or all; returns how many there were. They are learned again from their next packets.
    pub fn forget(&self, port: Option<u32>) -> usize {
        let mut state = lock(&self.state);
        let gone: Vec<StationKey> = state
            .stations
            .iter()
            .filter(|(_, s)| port.is_none_or(|p| Place::Port(p) == s.place))
            .map(|(key, _)| *key)
            .collect();
        let datapath = self.datapath.upgrade();
        gone.iter().for_each(|key| state.forget(key, datapath.as_ref()));
        gone.len()
    }

    /// What the bridge counted.
    pub fn stats(&self) -> BridgeStats {
        lock(&self.state).stats
    }

    /// The stations known, in order of domain and address.
    pub fn stations(&self) -> Vec<StationInfo> {
        let datapath = self.datapath.upgrade();
        let mut keys: Vec<StationKey> = lock(&self.state).stations.keys().copied().collect();
        keys.sort_unstable();
        // One at a time: upcalls need not wait for the whole list.
        let info = |key: StationKey| {
            let mut state = lock(&self.state);
            let seen = state.refresh(&key, datapath.as_ref())?;
            let place = state.stations.get(&key)?.place;
            Some(StationInfo { domain: key.0, mac: key.1, place, seen })
        };
        keys.into_iter().filter_map(info).collect()
    }

    /// Does the datapath's upkeep (see [`Datapath::upkeep`]) and forgets stations that are too old. Call it several times a second, instead of
    /// the datapath's.
    pub fn upkeep(&self, now: Nanos) {
        self.upkeep_telling(now, |_| ());
    }

    /// As [`Bridge::upkeep`]; `gone` is told of each flow whose time was over, whoever installed it. It must not use the bridge.
    pub fn upkeep_telling(&self, now: Nanos, mut gone: impl FnMut(&FlowInfo)) {
        let Some(datapath) = self.datapath.upgrade() else { return };
        let mut state = lock(&self.state);
        let mut expired = Vec::new();
        datapath.upkeep(now, UPKEEP_FLOWS, |flow| {
            expired.push((flow.ufid, flow.stats.used));
            gone(&flow);
        });
        expired.into_iter().for_each(|(ufid, used)| state.flow_gone(ufid, used));
        if now.since(state.swept_at) < SWEEP_NS {
            drop(state);
            if let Some(underlay) = &self.underlay {
                underlay.upkeep(now);
            }
            return;
        }
        state.swept_at = now;
        let is_old = |seen: Nanos| now.since(seen) >= self.config.aging_ns;
        let old: Vec<StationKey> = state.stations.iter().filter(|(_, s)| is_old(s.seen)).map(|(key, _)| *key).collect();
        for key in old {
            if state.refresh(&key, Some(&datapath)).is_some_and(is_old) {
                state.forget(&key, Some(&datapath));
                state.stats.aged += 1;
            }
        }
        self.forget_remotes(&mut state);
        drop(state);
        if let Some(underlay) = &self.underlay {
            underlay.upkeep(now);
        }
    }

    /// Takes back all that the bridge and its underlay have put into the datapath, flows and tunnels, and forgets all settings: for one that nobody hands
    /// upcalls to any more.
    pub fn withdraw(&self) {
        let (vpcs, ports): (Vec<Vni>, Vec<u32>) = {
            let state = lock(&self.state);
            (state.vpcs.keys().copied().collect(), state.ports.keys().copied().collect())
        };
        for vni in vpcs {
            // Gone meanwhile is gone as well.
            let _ = self.vpc_del(vni);
        }
        for port in ports {
            self.remove_port(port);
        }
        if let Some(underlay) = &self.underlay {
            underlay.withdraw();
        }
    }

    /// Forgets all flows, and the stations behind a port.
    fn forget_port(&self, state: &mut State, number: u32) {
        let datapath = self.datapath.upgrade();
        state.remove_all_flows(datapath.as_ref());
        state.forget_place(Place::Port(number), datapath.as_ref());
        state.tallies.retain(|(_, place), _| *place != Place::Port(number));
    }

    /// Decides about a packet, and installs its flow if it may have one.
    fn decide(&self, miss: &Miss<'_>) -> Result<Answer, DropReason> {
        let key = &miss.key.base;
        // IEEE 802.1Q §8.6.3: a bridge does not relay frames for these addresses (STP, pause, LACP, LLDP …).
        let is_reserved = key.eth_dst[..5] == [0x01, 0x80, 0xc2, 0, 0] && key.eth_dst[5] < 16;
        // A group does not send. An address of zeros is what a packet without an Ethernet header has.
        if is_reserved || key.eth_src[0] & 1 != 0 || key.eth_src == [0; 6] {
            return Err(DropReason::Policy);
        }
        let datapath = self.datapath.upgrade().ok_or(DropReason::Shutdown)?;
        let tag = Tag::of(key);
        let state = &mut *lock(&self.state);
        let source = self.source(state, miss, tag)?;
        // In a VLAN a second tag is payload. Where tags also tell VPCs, what is behind one that comes off would be taken for one of theirs.
        let is_strict = matches!(source.domain, Domain::Vpc(_)) || state.has_tagged_members;
        let is_second = miss.key.misc.vlan1_tci.get() & VLAN_PRESENT != 0 || ethernet::is_vlan(key.eth_type.get());
        if is_strict && tag.0 != Tag::None && is_second {
            return Err(DropReason::Policy);
        }
        let src = (source.domain, key.eth_src);
        let is_known = self.learn(state, &datapath, src, source.place, miss.now);
        if let Domain::Vpc(vni) = source.domain
            && self.answer_for(state, &datapath, vni, source.place, miss)
        {
            return Ok(Answer::Consumed);
        }

        let dst = (source.domain, key.eth_dst);
        let is_group = key.eth_dst[0] & 1 != 0;
        let target = if is_group { None } else { state.stations.get(&dst).map(|s| s.place) };
        let actions = match source.domain {
            Domain::Vlan(vlan) => state.outputs(tag.0, vlan, key.in_port, target),
            Domain::Vpc(vni) => state.outputs_of_vpc(tag.0, vni, source.place, target),
        };
        if actions.is_empty() {
            return Err(DropReason::NoDestination);
        }
        if target.is_none() {
            if !self.may_flood(state, (source.domain.into(), source.place), miss.now) {
                state.stats.storm_dropped += 1;
                return Err(DropReason::Storm);
            }
            state.stats.flooded += 1;
        }
        // In keys of one tag a second one cannot be told from another EtherType.
        let can_match = !is_strict || tag.0 == Tag::None || datapath.config().vlan_depth > 1;
        if is_known && can_match && (target.is_some() || is_group && self.config.flood_rate == 0) {
            let of = FlowOf { src, dst: (!is_group).then_some(dst) };
            let mut mask = mask(key, tag.0);
            if is_strict && tag.0 != Tag::None {
                mask.0.misc.vlan1_tci.set(VLAN_PRESENT);
            }
            if source.segment.is_some() {
                vpc::match_tunnel(miss.key, &mut mask);
            }
            self.install(state, &datapath, miss, (ufid(key, tag.0, source.segment), &mask), of, actions.clone());
        }
        Ok(Answer::Execute { actions, install: None })
    }

    /// Where a frame came from, if whoever sent it there may.
    fn source(&self, state: &mut State, miss: &Miss<'_>, (tag, number): (Tag, u16)) -> Result<Source, DropReason> {
        let key = &miss.key.base;
        let place = Place::Port(key.in_port);
        if key.in_port >= PORT_NUMBER_END {
            return self.source_of_tunnel(state, miss, tag);
        }
        if let Some(vni) = state.members.get(&(key.in_port, number)) {
            return Ok(Source { domain: Domain::Vpc(*vni), place, segment: None });
        }
        let vlans = state.ports.get(&key.in_port);
        let vlan = vlans.and_then(|vlans| vlans.classify(tag, number)).ok_or(DropReason::Policy)?;
        Ok(Source { domain: Domain::Vlan(vlan), place, segment: None })
    }

    /// Notes that `src` was seen in `place`. False if it could not be learned; then nothing may depend on it.
    fn learn(&self, state: &mut State, datapath: &Datapath, src: StationKey, place: Place, now: Nanos) -> bool {
        let known = state.stations.get_mut(&src);
        if let Some(station) = known.filter(|s| s.place == place) {
            station.seen = now;
            return true;
        }
        let is_move = state.stations.contains_key(&src);
        let party = Party::from(src.0);
        let in_place = state.tallies.get(&(party, place)).map_or(0, |tally| tally.stations);
        let is_full = !is_move && !state.station_shares.has_room(party);
        if is_full || in_place >= self.config.stations_per_port_max {
            state.stats.learn_refused += 1;
            return false;
        }
        if is_move {
            state.forget(&src, Some(datapath));
            state.stats.moved += 1;
        } else {
            state.stats.learned += 1;
        }
        state.stations.insert(src, Station { place, seen: now, flows: AHashSet::new() });
        state.tallies.entry((party, place)).or_default().stations += 1;
        state.station_shares.take(party);
        true
    }

    /// Takes one frame out of the bucket of whose it is, where it came from.
    fn may_flood(&self, state: &mut State, whose: (Party, Place), now: Nanos) -> bool {
        if self.config.flood_rate == 0 {
            return true;
        }
        let tally = state.tallies.entry(whose).or_default();
        let each = 1_000_000_000 / u64::from(self.config.flood_rate).min(1_000_000_000);
        take_one(&mut tally.flood_full_at, now, each, self.config.flood_burst.max(1).into())
    }

    fn install(
        &self,
        state: &mut State,
        datapath: &Datapath,
        miss: &Miss<'_>,
        (ufid, mask): (u128, &FlowMask),
        of: FlowOf,
        actions: Actions,
    ) {
        let party = Party::from(of.src.0);
        if !state.flows.contains_key(&ufid) && !state.flow_shares.has_room(party) {
            state.stats.flows_refused += 1;
            return;
        }
        let put = FlowPut {
            ufid: Some(ufid),
            // There may be a flow of this number that somebody else removed and the bridge still remembers, or the other way round.
            modify: true,
            idle_timeout_ns: self.config.flow_idle_ns,
            now: miss.now,
            ..FlowPut::create(miss.key, mask, actions)
        };
        if datapath.flow_put(put).is_err() {
            state.stats.flows_refused += 1;
            return;
        }
        state.stats.flows_installed += 1;
        if let Some(old) = state.flows.insert(ufid, of) {
            state.flow_shares.give(old.src.0.into());
        }
        state.flow_shares.take(party);
        for station in [Some(of.src), of.dst].into_iter().flatten() {
            if let Some(station) = state.stations.get_mut(&station) {
                station.flows.insert(ufid);
            }
        }
    }
}

impl UpcallHandler for Bridge {
    fn miss(&self, mut miss: Miss<'_>) -> Answer {
        if let Some(answer) = self.underlay.as_ref().and_then(|underlay| underlay.miss(&mut miss)) {
            return answer;
        }
        self.decide(&miss).unwrap_or_else(Answer::Drop)
    }

    fn undeliverable(&self, packet: Undeliverable<'_>) -> Answer {
        match &self.underlay {
            Some(underlay) => underlay.undeliverable(&packet, |error| self.tell_sender(&packet, error)),
            None => Answer::Refuse,
        }
    }

    /// The bridge hands nothing up, so nobody would answer.
    fn punt(&self, _: Punt<'_>) -> Answer {
        Answer::Refuse
    }
}

impl State {
    /// What a frame of `vlan` needs to leave by `target`, or by all ports but its own. Empty if it leaves nowhere.
    fn outputs(&self, tag: Tag, vlan: VlanId, in_port: u32, target: Option<Place>) -> Actions {
        let (mut tagged, mut untagged) = (Vec::new(), Vec::new());
        let mut add = |number: u32, port: &PortVlans| match port.leaves_tagged(vlan) {
            // Never back to where it came from.
            _ if number == in_port => {}
            Some(true) => tagged.push(Action::Output(number)),
            Some(false) => untagged.push(Action::Output(number)),
            None => {}
        };
        match target {
            Some(Place::Port(number)) => self.ports.get(&number).into_iter().for_each(|port| add(number, port)),
            // A VLAN is of this bridge only.
            Some(Place::Remote(_)) => {}
            None => self.ports.iter().for_each(|(&number, port)| add(number, port)),
        }
        let push = |pcp: u16| Action::PushVlan { tpid: ethernet::VLAN, tci: pcp | VLAN_PRESENT | vlan.number() };
        let parts: [(Vec<Action>, Vec<Action>); 2] = match tag {
            Tag::None => [(vec![], untagged), (vec![push(0)], tagged)],
            Tag::Vlan => [(vec![], tagged), (vec![Action::PopVlan], untagged)],
            // The tag of VLAN 0 comes off in any case.
            Tag::Priority(pcp) if untagged.is_empty() => [(vec![Action::PopVlan, push(pcp)], tagged), (vec![], vec![])],
            Tag::Priority(pcp) => [(vec![Action::PopVlan], untagged), (vec![push(pcp)], tagged)],
        };
        let with_outputs = parts.into_iter().filter(|(_, outputs)| !outputs.is_empty());
        with_outputs.flat_map(|(change, outputs)| change.into_iter().chain(outputs)).collect()
    }

    /// Brings a station's age up to date from its flows, and returns when it was seen.
    fn refresh(&mut self, key: &StationKey, datapath: Option<&Datapath>) -> Option<Nanos> {
        let station = self.stations.get_mut(key)?;
        let own = station.flows.iter().filter(|ufid| self.flows.get(*ufid).is_some_and(|of| of.src == *key));
        let used = own.filter_map(|&ufid| datapath?.flow_get(FlowId::Ufid(ufid)).ok()?.stats.used).max();
        station.seen = station.seen.max(used.unwrap_or_default());
        Some(station.seen)
    }

    fn forget(&mut self, key: &StationKey, datapath: Option<&Datapath>) {
        let Some(station) = self.stations.remove(key) else { return };
        let party = Party::from(key.0);
        self.station_shares.give(party);
        if let Some(tally) = self.tallies.get_mut(&(party, station.place)) {
            tally.stations -= 1;
        }
        station.flows.into_iter().for_each(|ufid| self.remove_flow(ufid, datapath));
    }

    fn forget_place(&mut self, place: Place, datapath: Option<&Datapath>) {
        let gone: Vec<StationKey> =
            self.stations.iter().filter(|(_, s)| s.place == place).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| self.forget(key, datapath));
    }

    /// Every flow may name a port or an endpoint in a flood.
    fn remove_all_flows(&mut self, datapath: Option<&Datapath>) {
        let flows: Vec<u128> = self.flows.keys().copied().collect();
        flows.into_iter().for_each(|ufid| self.remove_flow(ufid, datapath));
    }

    fn remove_flow(&mut self, ufid: u128, datapath: Option<&Datapath>) {
        let info = datapath.and_then(|datapath| datapath.flow_del(FlowId::Ufid(ufid)).ok());
        self.flow_gone(ufid, info.and_then(|info| info.stats.used));
    }

    /// A flow is no longer in the datapath; `used` is when its last packet came.
    fn flow_gone(&mut self, ufid: u128, used: Option<Nanos>) {
        let Some(of) = self.flows.remove(&ufid) else { return };
        self.flow_shares.give(of.src.0.into());
        for station in [Some(of.src), of.dst].into_iter().flatten() {
            if let Some(station) = self.stations.get_mut(&station) {
                station.flows.remove(&ufid);
            }
        }
        if let (Some(src), Some(used)) = (self.stations.get_mut(&of.src), used) {
            src.seen = src.seen.max(used);
        }
    }
}

/// What of the VLAN tag a flow matches.
fn tci_mask(tag: Tag, key: &BaseLine) -> u16 {
    match tag {
        Tag::Vlan => VLAN_PRESENT | 0xfff,
        // The priority goes into the new tag.
        Tag::Priority(_) => 0xffff,
        // No tag; the same mask as with one, so that both share a subtable.
        Tag::None if key.vlan_tpid.get() == 0 => VLAN_PRESENT | 0xfff,
        // A service tag is there; its VLAN is none of the bridge's.
        Tag::None => 0,
    }
}

fn mask(key: &BaseLine, tag: Tag) -> FlowMask {
    let mut mask = FlowMask::default();
    let base = &mut mask.0.base;
    base.in_port = u32::MAX;
    (base.eth_dst, base.eth_src) = ([0xff; 6], [0xff; 6]);
    base.vlan_tpid.set(0xffff);
    base.vlan_tci.set(tci_mask(tag, key));
    mask
}

/// The flow's number: everything that it matches, so that no two flows have the same one. `segment` stands for the VPC and the other end of
/// its tunnel.
fn ufid(key: &BaseLine, tag: Tag, segment: Option<u32>) -> u128 {
    let tci = match tag {
        Tag::None if key.vlan_tpid.get() == 0 => 0,
        // Without `VLAN_PRESENT`, so unlike any tag of the bridge's own.
        Tag::None => 1,
        Tag::Vlan | Tag::Priority(_) => key.vlan_tci.get() & tci_mask(tag, key),
    };
    let mac = |mac: &[u8; 6]| mac.iter().fold(0u128, |n, &byte| n << 8 | u128::from(byte));
    let addresses = mac(&key.eth_dst) << 80 | mac(&key.eth_src) << 32;
    match segment {
        // `set_port` refuses numbers of more than 16 bits.
        None => addresses | u128::from(key.in_port & 0xffff) << 16 | u128::from(tci),
        // No station has a group's address, so that bit of the source tells the two apart. Of a tag only the priority is left here.
        Some(segment) => {
            let priority = matches!(tag, Tag::Priority(_));
            let bits = tci >> 13 & 7 | (tci & 1) << 3 | u16::from(priority) << 4;
            addresses | 1 << 72 | u128::from(segment) << 5 | u128::from(bits)
        }
    }
}

mod shares;
mod vpc;

pub use vpc::{VpcConfig, VpcError, VpcInfo};

#[cfg(test)]
mod tests;
