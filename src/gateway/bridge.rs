//! A learning Ethernet bridge with VLANs, as an upcall handler over the datapath.
//!
//! Every flow that the bridge installs matches the ingress port, the VLAN tag, and both addresses. So a source that was not seen before
//! always misses, and the bridge learns it; and each flow depends on exactly two *stations* (addresses within a VLAN), its source
//! and its destination. When a station moves to another port or ages out, its flows go in the same breath, under the lock under which
//! flows are installed: no flow outlives what it was made from.
//!
//! *Flooding.* A frame for an address that is not known, or for a group, goes to all other ports of its VLAN. Such frames
//! miss each time: a cached flood would outlive the learning of its destination. They are limited per ingress port (`storm`). Only
//! where that limit is turned off, frames for groups, which no station ever owns, get a flow.
//!
//! *Ages.* A station was last seen when a packet of it came, whether it missed or hit a flow. The bridge asks the flows only when a
//! station seems to be too old, so upkeep costs little.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::vlan::{PortVlans, Tag, VlanId};
use crate::datapath::{Answer, Datapath, FlowId, FlowPut, Miss, Punt, UpcallHandler, WeakDatapath};
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
    /// Stations known at a time, over all ports. Further ones are not learned, and frames for them are flooded.
    pub stations_max: u32,
    /// Stations known at a time on one port.
    pub stations_per_port_max: u32,
    /// Frames per second that may be flooded from one ingress port; the others are dropped (`storm`). 0 = no limit.
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
    /// Flows that the datapath had no room for; their frames went on.
    pub flows_refused: u64,
}

/// A station as the bridge knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StationInfo {
    /// Its VLAN.
    pub vlan: VlanId,
    /// Its address.
    pub mac: [u8; 6],
    /// The port that it is behind.
    pub port: u32,
    /// When its last packet came.
    pub seen: Nanos,
}

type StationKey = (VlanId, [u8; 6]);

#[derive(Debug)]
struct Station {
    port: u32,
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

#[derive(Debug)]
struct BridgePort {
    vlans: PortVlans,
    stations: u32,
    /// When the flood limit's bucket will be full again.
    flood_full_at: Nanos,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered, so that floods are.
    ports: BTreeMap<u32, BridgePort>,
    stations: AHashMap<StationKey, Station>,
    flows: AHashMap<u128, FlowOf>,
    stats: BridgeStats,
    swept_at: Nanos,
}

/// The bridge of one datapath.
///
/// *Thread-safety.* Configuration immutable; everything else behind one mutex, which upcalls take but packets that hit a flow do not.
/// It is taken before the datapath's control mutex, never after.
#[derive(Debug)]
pub struct Bridge {
    config: BridgeConfig,
    datapath: WeakDatapath,
    state: Mutex<State>,
}

/// Nanoseconds between two looks at all stations' ages.
const SWEEP_NS: u64 = 1_000_000_000;
/// Flows that one upkeep looks at.
const UPKEEP_FLOWS: u32 = 65_536;

impl Bridge {
    /// Makes a bridge and sets it as the upcall handler of `datapath`. It forwards nothing until ports are set.
    ///
    /// # Errors
    /// [`BridgeError::VlanDepth`].
    pub fn attach(datapath: &Datapath, config: BridgeConfig) -> Result<Arc<Bridge>, BridgeError> {
        if datapath.config().vlan_depth == 0 {
            return Err(BridgeError::VlanDepth);
        }
        let bridge = Arc::new(Bridge { config, datapath: datapath.downgrade(), state: Mutex::default() });
        datapath.set_upcall_handler(Some(Arc::clone(&bridge) as Arc<dyn UpcallHandler>));
        Ok(bridge)
    }

    /// Makes a datapath port a member of the bridge, or changes its VLANs. Stations behind it are forgotten.
    ///
    /// # Errors
    /// [`BridgeError::PortNumber`].
    pub fn set_port(&self, number: u32, vlans: PortVlans) -> Result<(), BridgeError> {
        if number >= PORT_NUMBER_END {
            return Err(BridgeError::PortNumber(number));
        }
        let mut state = lock(&self.state);
        self.forget_port(&mut state, number);
        state.ports.insert(number, BridgePort { vlans, stations: 0, flood_full_at: Nanos(0) });
        Ok(())
    }

    /// Takes a port out of the bridge; false if it was not in it.
    pub fn remove_port(&self, number: u32) -> bool {
        let mut state = lock(&self.state);
        self.forget_port(&mut state, number);
        state.ports.remove(&number).is_some()
    }

    /// Forgets the stations behind `port`, or all; returns how many there were. They are learned again from their next packets.
    pub fn forget(&self, port: Option<u32>) -> usize {
        let mut state = lock(&self.state);
        let gone: Vec<StationKey> =
            state.stations.iter().filter(|(_, s)| port.is_none_or(|p| p == s.port)).map(|(key, _)| *key).collect();
        let datapath = self.datapath.upgrade();
        gone.iter().for_each(|key| state.forget(key, datapath.as_ref()));
        gone.len()
    }

    /// What the bridge counted.
    pub fn stats(&self) -> BridgeStats {
        lock(&self.state).stats
    }

    /// The stations known, in order of VLAN and address.
    pub fn stations(&self) -> Vec<StationInfo> {
        let datapath = self.datapath.upgrade();
        let mut keys: Vec<StationKey> = lock(&self.state).stations.keys().copied().collect();
        keys.sort_unstable();
        // One at a time: upcalls need not wait for the whole list.
        let info = |key: StationKey| {
            let mut state = lock(&self.state);
            let seen = state.refresh(&key, datapath.as_ref())?;
            let port = state.stations.get(&key)?.port;
            Some(StationInfo { vlan: key.0, mac: key.1, port, seen })
        };
        keys.into_iter().filter_map(info).collect()
    }

    /// Does the datapath's upkeep (see [`Datapath::upkeep`]) and forgets stations that are too old. Call it several times a second, instead of
    /// the datapath's.
    pub fn upkeep(&self, now: Nanos) {
        let Some(datapath) = self.datapath.upgrade() else { return };
        let mut state = lock(&self.state);
        let mut expired = Vec::new();
        datapath.upkeep(now, UPKEEP_FLOWS, |flow| expired.push((flow.ufid, flow.stats.used)));
        expired.into_iter().for_each(|(ufid, used)| state.flow_gone(ufid, used));
        if now.since(state.swept_at) < SWEEP_NS {
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
    }

    fn forget_port(&self, state: &mut State, number: u32) {
        let datapath = self.datapath.upgrade();
        // Every flow may name the port in a flood, and any station may be behind it.
        let flows: Vec<u128> = state.flows.keys().copied().collect();
        flows.into_iter().for_each(|ufid| state.remove_flow(ufid, datapath.as_ref()));
        let gone: Vec<StationKey> =
            state.stations.iter().filter(|(_, s)| s.port == number).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| state.forget(key, datapath.as_ref()));
    }

    /// Decides about a packet, and installs its flow if it may have one.
    fn decide(&self, miss: &Miss<'_>) -> Result<Actions, DropReason> {
        let key = &miss.key.base;
        // IEEE 802.1Q §8.6.3: a bridge does not relay frames for these addresses (STP, pause, LACP, LLDP …).
        let is_reserved = key.eth_dst[..5] == [0x01, 0x80, 0xc2, 0, 0] && key.eth_dst[5] < 16;
        // A group does not send. An address of zeros is what a packet without an Ethernet header has.
        if is_reserved || key.eth_src[0] & 1 != 0 || key.eth_src == [0; 6] {
            return Err(DropReason::Policy);
        }
        let datapath = self.datapath.upgrade().ok_or(DropReason::Shutdown)?;
        let (tag, number) = Tag::of(key);
        let state = &mut *lock(&self.state);
        let vlans = state.ports.get(&key.in_port).map(|port| &port.vlans);
        let vlan = vlans.and_then(|vlans| vlans.classify(tag, number)).ok_or(DropReason::Policy)?;
        let src = (vlan, key.eth_src);
        let is_known = self.learn(state, &datapath, src, key.in_port, miss.now);

        let dst = (vlan, key.eth_dst);
        let is_group = key.eth_dst[0] & 1 != 0;
        let target = if is_group { None } else { state.stations.get(&dst).map(|s| s.port) };
        let actions = state.outputs(tag, vlan, key.in_port, target);
        if actions.is_empty() {
            return Err(DropReason::NoDestination);
        }
        if target.is_none() {
            if !self.may_flood(state, key.in_port, miss.now) {
                state.stats.storm_dropped += 1;
                return Err(DropReason::Storm);
            }
            state.stats.flooded += 1;
        }
        if is_known && (target.is_some() || is_group && self.config.flood_rate == 0) {
            let of = FlowOf { src, dst: (!is_group).then_some(dst) };
            self.install(state, &datapath, miss, tag, of, actions.clone());
        }
        Ok(actions)
    }

    /// Notes that `src` was seen on `port`. False if it could not be learned; then nothing may depend on it.
    fn learn(&self, state: &mut State, datapath: &Datapath, src: StationKey, port: u32, now: Nanos) -> bool {
        let known = state.stations.get_mut(&src);
        if let Some(station) = known.filter(|s| s.port == port) {
            station.seen = now;
            return true;
        }
        let is_move = state.stations.contains_key(&src);
        let on_port = state.ports.get(&port).map_or(0, |p| p.stations);
        let is_full = !is_move && state.stations.len() >= self.config.stations_max as usize;
        if is_full || on_port >= self.config.stations_per_port_max {
            state.stats.learn_refused += 1;
            return false;
        }
        if is_move {
            state.forget(&src, Some(datapath));
            state.stats.moved += 1;
        } else {
            state.stats.learned += 1;
        }
        state.stations.insert(src, Station { port, seen: now, flows: AHashSet::new() });
        if let Some(port) = state.ports.get_mut(&port) {
            port.stations += 1;
        }
        true
    }

    /// Takes one frame out of the port's bucket.
    fn may_flood(&self, state: &mut State, port: u32, now: Nanos) -> bool {
        if self.config.flood_rate == 0 {
            return true;
        }
        let Some(port) = state.ports.get_mut(&port) else { return false };
        let each = 1_000_000_000 / u64::from(self.config.flood_rate).min(1_000_000_000);
        let room = each * u64::from(self.config.flood_burst.max(1));
        let full_at = port.flood_full_at.max(now) + each;
        let may = full_at.since(now) <= room;
        if may {
            port.flood_full_at = full_at;
        }
        may
    }

    fn install(&self, state: &mut State, datapath: &Datapath, miss: &Miss<'_>, tag: Tag, of: FlowOf, actions: Actions) {
        let ufid = ufid(&miss.key.base, tag);
        let mask = mask(&miss.key.base, tag);
        let put = FlowPut {
            ufid: Some(ufid),
            // There may be a flow of this number that somebody else removed and the bridge still remembers, or the other way round.
            modify: true,
            idle_timeout_ns: self.config.flow_idle_ns,
            now: miss.now,
            ..FlowPut::create(miss.key, &mask, actions)
        };
        if datapath.flow_put(put).is_err() {
            state.stats.flows_refused += 1;
            return;
        }
        state.stats.flows_installed += 1;
        state.flows.insert(ufid, of);
        for station in [Some(of.src), of.dst].into_iter().flatten() {
            if let Some(station) = state.stations.get_mut(&station) {
                station.flows.insert(ufid);
            }
        }
    }
}

impl UpcallHandler for Bridge {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        match self.decide(&miss) {
            Ok(actions) => Answer::Execute { actions, install: None },
            Err(reason) => Answer::Drop(reason),
        }
    }

    /// The bridge hands nothing up, so nobody would answer.
    fn punt(&self, _: Punt<'_>) -> Answer {
        Answer::Refuse
    }
}

impl State {
    /// What a frame of `vlan` needs to leave by `target`, or by all ports but its own. Empty if it leaves nowhere.
    fn outputs(&self, tag: Tag, vlan: VlanId, in_port: u32, target: Option<u32>) -> Actions {
        let (mut tagged, mut untagged) = (Vec::new(), Vec::new());
        let mut add = |number: u32, port: &BridgePort| match port.vlans.leaves_tagged(vlan) {
            // Never back to where it came from.
            _ if number == in_port => {}
            Some(true) => tagged.push(Action::Output(number)),
            Some(false) => untagged.push(Action::Output(number)),
            None => {}
        };
        match target {
            Some(number) => self.ports.get(&number).into_iter().for_each(|port| add(number, port)),
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
        if let Some(port) = self.ports.get_mut(&station.port) {
            port.stations -= 1;
        }
        station.flows.into_iter().for_each(|ufid| self.remove_flow(ufid, datapath));
    }

    fn remove_flow(&mut self, ufid: u128, datapath: Option<&Datapath>) {
        let info = datapath.and_then(|datapath| datapath.flow_del(FlowId::Ufid(ufid)).ok());
        self.flow_gone(ufid, info.and_then(|info| info.stats.used));
    }

    /// A flow is no longer in the datapath; `used` is when its last packet came.
    fn flow_gone(&mut self, ufid: u128, used: Option<Nanos>) {
        let Some(of) = self.flows.remove(&ufid) else { return };
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

/// The flow's number: everything that it matches, so that no two flows have the same one.
fn ufid(key: &BaseLine, tag: Tag) -> u128 {
    let tci = match tag {
        Tag::None if key.vlan_tpid.get() == 0 => 0,
        // Without `VLAN_PRESENT`, so unlike any tag of the bridge's own.
        Tag::None => 1,
        Tag::Vlan | Tag::Priority(_) => key.vlan_tci.get() & tci_mask(tag, key),
    };
    let mac = |mac: &[u8; 6]| mac.iter().fold(0u128, |n, &byte| n << 8 | u128::from(byte));
    // `set_port` refuses numbers of more than 16 bits.
    mac(&key.eth_dst) << 80 | mac(&key.eth_src) << 32 | u128::from(key.in_port & 0xffff) << 16 | u128::from(tci)
}

#[cfg(test)]
mod tests;
