//! The control side of the flow table: identifiers, actions, ages and statistics of flows, around the megaflow table.

use std::sync::Arc;

use ahash::AHashMap;

use super::stats::{FlowColumn, FlowStats};
use crate::action::{CompileError, Program};
use crate::cache::megaflow::{InsertError, MegaflowWriter};
use crate::flow::action::Actions;
use crate::flow::{FlowKey, FlowMask};
use crate::sync::primitive::{AtomicU32, Ordering};
use crate::sync::qsbr::{Burst, Domain};
use crate::sync::snapshot::Snapshot;
use crate::time::Nanos;

/// What the packet path needs of a flow beyond key and mask.
#[derive(Debug)]
pub struct FlowValue {
    program: Snapshot<Program>,
    /// The port, if the program only outputs there; [`NO_PORT`] else. Saves the packet path the program's cache lines.
    only_output: AtomicU32,
}

const NO_PORT: u32 = u32::MAX;

impl FlowValue {
    fn new(domain: &crate::sync::primitive::Arc<Domain>, program: Program) -> Self {
        let port = program.only_output().unwrap_or(NO_PORT);
        FlowValue { program: Snapshot::new(domain, program), only_output: AtomicU32::new(port) }
    }

    /// The port, if that is all.
    #[inline(always)]
    pub(super) fn only_output(&self) -> Option<u32> {
        let port = self.only_output.load(Ordering::Relaxed);
        (port != NO_PORT).then_some(port)
    }

    /// The program.
    #[inline(always)]
    pub(super) fn program<'b>(&'b self, burst: &'b Burst<'_>) -> &'b Program {
        self.program.load(burst)
    }

    fn replace(&self, program: Program) {
        let port = program.only_output().unwrap_or(NO_PORT);
        // First the slow way, then the short cut: a worker in between runs the old or the new actions, nothing else.
        self.only_output.store(NO_PORT, Ordering::Release);
        self.program.publish(program);
        self.only_output.store(port, Ordering::Release);
    }
}

/// Which flow.
#[derive(Clone, Copy, Debug)]
pub enum FlowId<'a> {
    /// By its unique identifier.
    Ufid(u128),
    /// By key and mask.
    Exactly(&'a FlowKey, &'a FlowMask),
    /// Any flow that matches the key.
    Matching(&'a FlowKey),
}

/// A request to install or change a flow.
#[derive(Clone, Debug)]
pub struct FlowPut<'a> {
    /// Identifier; made up from key and mask if absent.
    pub ufid: Option<u128>,
    /// What to match. Bits outside the mask are ignored.
    pub key: &'a FlowKey,
    /// Which bits count.
    pub mask: &'a FlowMask,
    /// What to do.
    pub actions: Actions,
    /// Install it if it is not there.
    pub create: bool,
    /// Change it if it is there.
    pub modify: bool,
    /// On change, restart its statistics.
    pub zero_stats: bool,
    /// It goes after this many ns without a packet; 0 = never.
    pub idle_timeout_ns: u64,
    /// It goes this many ns after its installation; 0 = never.
    pub hard_timeout_ns: u64,
    /// The time of installation.
    pub now: Nanos,
}

impl<'a> FlowPut<'a> {
    /// Installs a flow that stays; fails if it exists.
    pub fn create(key: &'a FlowKey, mask: &'a FlowMask, actions: Actions) -> Self {
        FlowPut {
            ufid: None,
            key,
            mask,
            actions,
            create: true,
            modify: false,
            zero_stats: false,
            idle_timeout_ns: 0,
            hard_timeout_ns: 0,
            now: Nanos(0),
        }
    }
}

/// Why a flow operation failed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// `create` without `modify`, and it is there. (With an identifier given: OVS's `EEXIST`.)
    #[error("the flow exists")]
    Exists,
    /// No such flow.
    #[error("no such flow")]
    NotFound,
    /// The flow limit is reached.
    #[error("the flow table is full")]
    Full,
    /// The limit of different masks is reached.
    #[error("too many different masks")]
    TooManyMasks,
    /// The actions were refused.
    #[error("actions: {0}")]
    Actions(#[from] CompileError),
    /// Neither `create` nor `modify`.
    #[error("neither create nor modify was asked for")]
    NothingAsked,
}

/// A flow, as the control side sees it.
#[derive(Clone, Debug)]
pub struct FlowInfo {
    /// Its number in the table; reused after removal.
    pub number: u32,
    /// Identifier.
    pub ufid: u128,
    /// Masked key.
    pub key: FlowKey,
    /// Mask.
    pub mask: FlowMask,
    /// Actions.
    pub actions: Arc<Actions>,
    /// Statistics so far.
    pub stats: FlowStats,
    /// When it was installed.
    pub created: Nanos,
}

struct Cold {
    ufid: u128,
    actions: Arc<Actions>,
    created: Nanos,
    idle_timeout_ns: u64,
    hard_timeout_ns: u64,
    /// What workers that have gone had counted.
    inherited: FlowStats,
    /// Packets and bytes that had been counted when the statistics began anew. Cells are not cleared then: a worker may be counting.
    zero: (u64, u64),
}

/// All flows. Behind the datapath's control mutex.
pub(super) struct FlowTable {
    pub(super) writer: MegaflowWriter<FlowValue>,
    cold: Vec<Option<Cold>>,
    by_ufid: AHashMap<u128, u32>,
    columns: Vec<Arc<FlowColumn>>,
    domain: crate::sync::primitive::Arc<Domain>,
    ufid_hasher: ahash::RandomState,
}

impl core::fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FlowTable").field("flows", &self.writer.len()).finish_non_exhaustive()
    }
}

impl FlowTable {
    pub(super) fn new(
        writer: MegaflowWriter<FlowValue>,
        domain: &crate::sync::primitive::Arc<Domain>,
        seed: u64,
    ) -> Self {
        FlowTable {
            writer,
            cold: Vec::new(),
            by_ufid: AHashMap::new(),
            columns: Vec::new(),
            domain: crate::sync::primitive::Arc::clone(domain),
            ufid_hasher: ahash::RandomState::with_seeds(seed, 1, 2, 3),
        }
    }

    pub(super) fn add_column(&mut self, column: &Arc<FlowColumn>) {
        column.make_ready(self.writer.high_water());
        self.columns.push(Arc::clone(column));
    }

    /// A worker goes: its counts stay with the flows.
    pub(super) fn remove_column(&mut self, column: &Arc<FlowColumn>) {
        let before = self.columns.len();
        self.columns.retain(|c| !Arc::ptr_eq(c, column));
        if self.columns.len() == before {
            return;
        }
        for (number, cold) in self.cold.iter_mut().enumerate() {
            if let (Some(cold), Some(cell)) = (cold, column.cell(number as u32)) {
                cold.inherited.add(cell);
            }
        }
    }

    fn number(&self, id: FlowId<'_>) -> Option<u32> {
        match id {
            FlowId::Ufid(ufid) => self.by_ufid.get(&ufid).copied(),
            FlowId::Exactly(key, mask) => self.writer.find(key, mask),
            FlowId::Matching(key) => self.writer.lookup(key),
        }
    }

    fn stats(&self, number: u32) -> FlowStats {
        let mut stats = self.all_stats(number);
        if let Some(cold) = self.cold.get(number as usize).and_then(Option::as_ref) {
            stats.packets = stats.packets.wrapping_sub(cold.zero.0);
            stats.bytes = stats.bytes.wrapping_sub(cold.zero.1);
        }
        if stats.packets == 0 {
            stats.used = None;
        }
        stats
    }

    /// Statistics since the flow was installed, whether or not they began anew since.
    fn all_stats(&self, number: u32) -> FlowStats {
        let mut stats = FlowStats::default();
        for cell in self.columns.iter().filter_map(|c| c.cell(number)) {
            stats.add(cell);
        }
        if let Some(cold) = self.cold.get(number as usize).and_then(Option::as_ref) {
            stats.merge(&cold.inherited);
        }
        stats
    }

    /// Lets the statistics begin anew after `before`, so that a packet counts either in it or from now on.
    fn begin_anew(&mut self, number: u32, before: FlowStats) {
        // Flags are no sum. One that is seen at this very moment may survive.
        self.columns.iter().filter_map(|c| c.cell(number)).for_each(|cell| cell.forget_flags());
        if let Some(cold) = self.cold.get_mut(number as usize).and_then(Option::as_mut) {
            cold.zero = (cold.zero.0.wrapping_add(before.packets), cold.zero.1.wrapping_add(before.bytes));
            cold.inherited.tcp_flags = 0;
        }
    }

    /// Identifier of a flow that was given none: a hash of key and mask, as in OVS.
    fn made_up_ufid(&self, key: &FlowKey, mask: &FlowMask) -> u128 {
        let masked = key.masked(mask);
        let high = self.ufid_hasher.hash_one((&masked, mask));
        let low = self.ufid_hasher.hash_one((mask, &masked, 1u8));
        u128::from(high) << 64 | u128::from(low)
    }

    /// Installs or changes a flow. On a change, returns the statistics before it.
    pub(super) fn put(&mut self, put: FlowPut<'_>) -> Result<Option<FlowStats>, FlowError> {
        if !put.create && !put.modify {
            return Err(FlowError::NothingAsked);
        }
        let program = Program::compile(&put.actions)?;
        let existing = match put.ufid {
            Some(ufid) => self.number(FlowId::Ufid(ufid)),
            None => self.number(FlowId::Exactly(put.key, put.mask)),
        };
        match existing {
            Some(_) if !put.modify => Err(FlowError::Exists),
            Some(number) => {
                let before = self.stats(number);
                if let Some(flow) = self.writer.get(number) {
                    flow.value.replace(program);
                }
                if let Some(cold) = self.cold.get_mut(number as usize).and_then(Option::as_mut) {
                    cold.actions = Arc::new(put.actions);
                }
                if put.zero_stats {
                    self.begin_anew(number, before);
                }
                Ok(Some(before))
            }
            None if !put.create => Err(FlowError::NotFound),
            None => {
                let value = FlowValue::new(&self.domain, program);
                // A worker that was inside a burst when this number's last flow was removed may have counted into its cells.
                if let Some(number) = self.writer.next_number() {
                    self.columns.iter().for_each(|c| c.make_ready(number + 1));
                    self.reset_cells(number);
                }
                let number = self.writer.insert(put.key, put.mask, value).map_err(|e| match e {
                    InsertError::Full => FlowError::Full,
                    InsertError::TooManyMasks => FlowError::TooManyMasks,
                    InsertError::Exists(_) => FlowError::Exists,
                })?;
                let ufid = put.ufid.unwrap_or_else(|| self.made_up_ufid(put.key, put.mask));
                let at = number as usize;
                if self.cold.len() <= at {
                    self.cold.resize_with(at + 1, || None);
                }
                self.cold[at] = Some(Cold {
                    ufid,
                    actions: Arc::new(put.actions),
                    created: put.now,
                    idle_timeout_ns: put.idle_timeout_ns,
                    hard_timeout_ns: put.hard_timeout_ns,
                    inherited: FlowStats::default(),
                    zero: (0, 0),
                });
                self.by_ufid.insert(ufid, number);
                Ok(None)
            }
        }
    }

    pub(super) fn info(&self, number: u32) -> Option<FlowInfo> {
        let flow = self.writer.get(number)?;
        let cold = self.cold.get(number as usize)?.as_ref()?;
        Some(FlowInfo {
            number,
            ufid: cold.ufid,
            key: flow.key(),
            mask: *flow.mask(),
            actions: Arc::clone(&cold.actions),
            stats: self.stats(number),
            created: cold.created,
        })
    }

    pub(super) fn get(&self, id: FlowId<'_>) -> Result<FlowInfo, FlowError> {
        self.number(id).and_then(|n| self.info(n)).ok_or(FlowError::NotFound)
    }

    /// Removes a flow and returns what it was, with its final statistics.
    pub(super) fn del(&mut self, id: FlowId<'_>) -> Result<FlowInfo, FlowError> {
        let info = self.get(id)?;
        self.writer.remove(info.number);
        self.by_ufid.remove(&info.ufid);
        self.cold[info.number as usize] = None;
        Ok(info)
    }

    fn reset_cells(&self, number: u32) {
        self.columns.iter().filter_map(|c| c.cell(number)).for_each(|cell| cell.reset());
    }

    pub(super) fn flush(&mut self) -> u32 {
        let all: Vec<u32> = (0..self.writer.high_water()).filter(|&n| self.writer.get(n).is_some()).collect();
        for &number in &all {
            self.writer.remove(number);
        }
        self.cold.clear();
        self.by_ufid.clear();
        all.len() as u32
    }

    /// The first flow numbered `from` or higher.
    pub(super) fn next(&self, from: u32) -> Option<FlowInfo> {
        (from..self.writer.high_water()).find_map(|n| self.info(n))
    }

    /// Removes flows whose time is over, looking at `budget` numbers from `from` on; returns where to go on (0 = from the start)
    /// and hands each removed flow to `expired`.
    pub(super) fn expire(&mut self, from: u32, budget: u32, now: Nanos, mut expired: impl FnMut(FlowInfo)) -> u32 {
        let end = self.writer.high_water().min(from.saturating_add(budget));
        for number in from..end {
            let Some(Some(cold)) = self.cold.get(number as usize) else { continue };
            if cold.idle_timeout_ns == 0 && cold.hard_timeout_ns == 0 {
                continue;
            }
            let (idle, hard, created, ufid) = (cold.idle_timeout_ns, cold.hard_timeout_ns, cold.created, cold.ufid);
            let last = self.all_stats(number).used.unwrap_or(created).max(created);
            let over = idle != 0 && now.since(last) >= idle || hard != 0 && now.since(created) >= hard;
            if over && let Ok(info) = self.del(FlowId::Ufid(ufid)) {
                expired(info);
            }
        }
        if end >= self.writer.high_water() { 0 } else { end }
    }
}
