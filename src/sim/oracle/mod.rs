//! The oracle: a slow switch that says what the engine has to do with each packet.
//!
//! It is the specification, to be read from top to bottom: a list of rules that is searched from its beginning ([`Switch`]), packets in
//! vectors ([`parcel`]), a parser ([`parse`]), an interpreter of actions ([`actions`]) over functions that change one packet
//! ([`rewrite`], [`encap`], [`tunnel`]), and token buckets ([`meter`]). It has no caches, no bursts, no buffers, no incremental
//! checksums, and shares no code with the engine but the types in which both are told what to do, and the hash function (of fields that
//! the oracle extracts by itself). Tunnels of some kinds are beyond it, see there.
//!
//! A packet is looked up, its rule's actions are carried out, and what they recirculate is looked up again when all packets that came in
//! before it have had their turn. Rules must not overlap unless they do the same: which one wins is unspecified.

pub mod actions;
pub mod encap;
pub mod meter;
pub mod parcel;
pub mod parse;
pub mod rewrite;
pub mod tunnel;

use std::collections::{BTreeMap, VecDeque};

use self::meter::Meter;
use self::parcel::Parcel;
use self::tunnel::Tunnel;
use crate::action::bond::BUCKETS;
use crate::datapath::{Answer, FlowError, FlowPut, FlowStats, Stats};
use crate::flow::action::{Actions, Userspace};
use crate::flow::{FlowKey, FlowMask};
use crate::packet::{DropReason, Fate};
use crate::time::Nanos;
use crate::tunnel::Obstacle;

/// What a flow is to the oracle.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Names it in paths.
    pub serial: u32,
    /// Identifier, if it was given one.
    pub ufid: Option<u128>,
    /// Masked key.
    pub key: FlowKey,
    /// Mask.
    pub mask: FlowMask,
    /// What it does.
    pub actions: Actions,
    /// What it counted.
    pub stats: FlowStats,
    created: Nanos,
    idle_timeout_ns: u64,
    hard_timeout_ns: u64,
}

/// A port.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The longest packet that it sends.
    pub packet_len_max: usize,
    /// It carries traffic.
    pub is_up: bool,
}

/// A bond.
#[derive(Clone, Debug)]
pub struct Bond {
    /// The port of each bucket, `u32::MAX` for none.
    pub members: [u32; BUCKETS],
    /// Bytes that each bucket sent.
    pub bytes: [u64; BUCKETS],
}

/// Who answers upcalls: the same answer for the same question.
pub trait Policy {
    /// A packet that no rule matches.
    fn miss(&self, key: &FlowKey) -> Answer;
    /// A packet that a rule hands up.
    fn punt(&self, key: &FlowKey, request: &Userspace) -> Answer;
    /// A packet that cannot go into a tunnel.
    fn undeliverable(&self, key: &FlowKey, tunnel: u32, obstacle: Obstacle) -> Answer;
}

/// A packet that a port sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which packet of the burst it is, or is a copy of.
    pub packet: usize,
    /// The port.
    pub port: u32,
    /// What it sent.
    pub bytes: Vec<u8>,
    /// The connection mark that it had last: none of a packet that went into or out of a tunnel on its way.
    pub ct_mark: u32,
    /// The way that it took, see [`Parcel::path`].
    pub path: Vec<u32>,
}

/// A packet on the upcall ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punted {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its key.
    pub key: Box<FlowKey>,
    /// The action's parameters; `None` for a miss.
    pub request: Option<Userspace>,
}

/// What became of a burst.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Of each packet.
    pub fates: Vec<Fate>,
    /// Everything that was sent. The order is the oracle's; only packets of one path have to keep it.
    pub sent: Vec<Sent>,
    /// What went onto the upcall ring.
    pub punted: Vec<Punted>,
    /// What was counted; of the lookups only `misses`, and `megaflow_hits` for all others.
    pub stats: Stats,
    /// Copies that were looked up again.
    pub recirculated_copies: usize,
    /// Length of the longest packet that there was.
    pub longest: usize,
    /// How often outer headers were put on.
    pub pushed: u64,
    /// How often they were taken off.
    pub popped: u64,
}

/// In a path, instead of a rule: nothing matched.
const MISS: u32 = u32::MAX;

/// The switch.
pub struct Switch {
    /// Rules, oldest first.
    pub rules: Vec<Rule>,
    /// Ports by number.
    pub ports: BTreeMap<u32, Port>,
    /// Meters by id.
    pub meters: BTreeMap<u32, Meter>,
    /// Bonds by id.
    pub bonds: BTreeMap<u32, Bond>,
    /// Tunnels by port.
    pub tunnels: BTreeMap<u32, Tunnel>,
    /// Who answers upcalls.
    pub policy: Option<Box<dyn Policy>>,
    /// Upcalls may be made.
    pub upcalls_enabled: bool,
    vlan_depth: u8,
    serial: u32,
    // Of the present burst:
    now: Nanos,
    waiting: VecDeque<Parcel>,
    fates: Vec<Fate>,
    sent: Vec<Sent>,
    punted: Vec<Punted>,
    stats: Stats,
    recirculated_copies: usize,
    longest: usize,
    pushed: u64,
    popped: u64,
}

impl Switch {
    /// A switch without ports and rules, whose keys take in `vlan_depth` tags.
    pub fn new(vlan_depth: u8) -> Switch {
        Switch {
            rules: Vec::new(),
            ports: BTreeMap::new(),
            meters: BTreeMap::new(),
            bonds: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            policy: None,
            upcalls_enabled: true,
            vlan_depth,
            serial: 0,
            now: Nanos(0),
            waiting: VecDeque::new(),
            fates: Vec::new(),
            sent: Vec::new(),
            punted: Vec::new(),
            stats: Stats::default(),
            recirculated_copies: 0,
            longest: 0,
            pushed: 0,
            popped: 0,
        }
    }

    /// Carries a burst to its packets' fates.
    pub fn process(&mut self, parcels: Vec<Parcel>, now: Nanos) -> Outcome {
        self.now = now;
        self.fates = vec![Fate::Undecided; parcels.len()];
        self.stats.bursts = 1;
        self.stats.packets_in = parcels.len() as u64;
        self.stats.bytes_in = parcels.iter().map(|parcel| parcel.bytes.len() as u64).sum();
        self.waiting.extend(parcels.into_iter().enumerate().map(|(number, parcel)| Parcel { number, ..parcel }));
        while let Some(parcel) = self.waiting.pop_front() {
            self.look_up(parcel);
        }
        let mut stats = core::mem::take(&mut self.stats);
        for fate in &self.fates {
            match fate {
                Fate::Transmitted => stats.transmitted += 1,
                Fate::Upcall => stats.upcall += 1,
                Fate::Dropped(reason) => stats.dropped[reason.index()] += 1,
                fate => panic!("the oracle left a packet {fate:?}"),
            }
        }
        Outcome {
            fates: core::mem::take(&mut self.fates),
            sent: core::mem::take(&mut self.sent),
            punted: core::mem::take(&mut self.punted),
            stats,
            recirculated_copies: core::mem::take(&mut self.recirculated_copies),
            longest: core::mem::take(&mut self.longest),
            pushed: core::mem::take(&mut self.pushed),
            popped: core::mem::take(&mut self.popped),
        }
    }

    fn look_up(&mut self, mut parcel: Parcel) {
        let Some(key) = parcel.look(self.vlan_depth) else {
            return self.end(parcel, Fate::Dropped(DropReason::RxInvalid));
        };
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.mask.matches(&rule.key, &key)) else {
            self.stats.misses += 1;
            parcel.path.push(MISS);
            return self.miss(parcel, &key);
        };
        self.stats.megaflow_hits += 1;
        rule.stats.packets += 1;
        rule.stats.bytes += parcel.bytes.len() as u64;
        rule.stats.used = Some(self.now);
        rule.stats.tcp_flags |= key.base.tcp_flags.get();
        parcel.path.push(rule.serial);
        let actions = rule.actions.clone();
        self.list(parcel, &actions);
    }

    fn miss(&mut self, parcel: Parcel, key: &FlowKey) {
        let Some(policy) = &self.policy else {
            return self.end(parcel, Fate::Dropped(DropReason::Miss));
        };
        if !self.upcalls_enabled {
            return self.end(parcel, Fate::Dropped(DropReason::UpcallLost));
        }
        match policy.miss(key) {
            Answer::Execute { actions, install } => {
                if let Some(install) = install {
                    let put = FlowPut {
                        ufid: install.ufid,
                        idle_timeout_ns: install.idle_timeout_ns,
                        hard_timeout_ns: install.hard_timeout_ns,
                        now: self.now,
                        ..FlowPut::create(key, &install.mask, install.actions.unwrap_or_else(|| actions.clone()))
                    };
                    // The packet that missed is not counted by the rule that is made for it.
                    let put = self.put(put);
                    debug_assert!(put.is_ok(), "a packet missed a rule that is there");
                }
                self.list(parcel, &actions);
            }
            other => self.answered(parcel, key, other, None),
        }
    }

    /// The end of a packet, or of a copy.
    fn end(&mut self, parcel: Parcel, fate: Fate) {
        match (parcel.is_copy, fate) {
            (false, fate) => self.fates[parcel.number] = fate,
            (true, Fate::Dropped(reason)) => self.stats.copies_dropped[reason.index()] += 1,
            (true, _) => self.stats.copies_transmitted += 1,
        }
    }

    // The control side.

    fn index_of(&self, ufid: Option<u128>, key: &FlowKey, mask: &FlowMask) -> Option<usize> {
        let masked = key.masked(mask);
        self.rules.iter().position(|rule| match ufid {
            Some(ufid) => rule.ufid == Some(ufid),
            None => rule.key == masked && rule.mask == *mask,
        })
    }

    /// Installs or changes a rule; on a change, returns what it had counted before.
    ///
    /// # Errors
    /// As the engine's flow table, but for its limits.
    pub fn put(&mut self, put: FlowPut<'_>) -> Result<Option<FlowStats>, FlowError> {
        if !put.create && !put.modify {
            return Err(FlowError::NothingAsked);
        }
        if let Some(at) = self.index_of(put.ufid, put.key, put.mask) {
            if !put.modify {
                return Err(FlowError::Exists);
            }
            let rule = &mut self.rules[at];
            let before = rule.stats;
            rule.actions = put.actions;
            if put.zero_stats {
                rule.stats = FlowStats::default();
            }
            return Ok(Some(before));
        }
        if !put.create {
            return Err(FlowError::NotFound);
        }
        // Another identifier for the same packets.
        if self.index_of(None, put.key, put.mask).is_some() {
            return Err(FlowError::Exists);
        }
        self.serial += 1;
        self.rules.push(Rule {
            serial: self.serial,
            ufid: put.ufid,
            key: put.key.masked(put.mask),
            mask: *put.mask,
            actions: put.actions,
            stats: FlowStats::default(),
            created: put.now,
            idle_timeout_ns: put.idle_timeout_ns,
            hard_timeout_ns: put.hard_timeout_ns,
        });
        Ok(None)
    }

    /// Removes the rules whose time is over, and returns them.
    pub fn expire(&mut self, now: Nanos) -> Vec<Rule> {
        self.rules
            .extract_if(.., |rule| {
                let last = rule.stats.used.unwrap_or(rule.created).max(rule.created);
                let is_idle = rule.idle_timeout_ns != 0 && now.since(last) >= rule.idle_timeout_ns;
                let is_old = rule.hard_timeout_ns != 0 && now.since(rule.created) >= rule.hard_timeout_ns;
                is_idle || is_old
            })
            .collect()
    }
}
