//! The datapath: a control handle for ports, flows, meters and bonds, and workers that carry the packets.
//!
//! [`Datapath`] is the control handle: any thread may call it, operations are serialised by a mutex that workers never take
//! on the packet path. [`Worker`] is owned by one thread. Several datapaths in one process share nothing.
//!
//! ```text
//!   Datapath ──publish──▶ Settings (ports, meters, bonds, handler)   Megaflows ◀──look up── Worker ◀── packets
//!        ▲                                                                                   │  │
//!        └── flow put/get/del/dump, upkeep ◀── Upcall ring ◀──────────── misses, userspace ──┘  └──▶ Sink
//! ```

pub mod explain;
pub mod inject;
pub mod observe;
pub mod poll;
pub mod stats;
pub mod table;
pub mod upcall;
pub mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

pub use inject::InjectError;
pub use poll::{Exchange, LocalPorts, PortCounters};
pub use stats::{FlowStats, Stats};
pub use table::{FlowError, FlowId, FlowInfo, FlowPut};
pub use upcall::{Answer, Install, Miss, Punt, Undeliverable, Upcall, UpcallHandler};
pub use worker::{Sink, Worker};

use crate::action::bond::{Bond, BondTable};
use crate::cache::exact::ExactCache;
use crate::cache::hash::LineHasher;
use crate::cache::megaflow::Megaflows;
use crate::flow::extract::{ExtractOptions, VLAN_DEPTH_MAX};
use crate::meter::{MeterConfig, MeterError, MeterStats, MeterTable};
use crate::packet::pool::HEADROOM_DEFAULT;
use crate::packet::{Packet, Pool};
use crate::port::PortTable;
use crate::port::table::{PortAddError, PortEntry};
use crate::sync::primitive::{self, Mutex, lock};
use crate::sync::qsbr::Domain;
use crate::sync::region::Source;
use crate::sync::snapshot::Snapshot;
use crate::time::Nanos;
use crate::tunnel::{Sequences, Tunnel, TunnelTable};
use stats::{FlowColumn, WorkerCounters};
use table::{FlowTable, FlowValue};

/// Settings of a datapath. `Config::default()` suits a gateway with a few workers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Flows that may be installed at a time. Memory is taken as flows are, at most 2 MiB at a time.
    pub flows_max: u32,
    /// Entries of each worker's exact-match cache, of 8 bytes, taken at once; 0 turns it off.
    pub cache_entries: usize,
    /// Buffers of the pool for copies, queued upcalls and received packets. Their memory is taken at once.
    pub pool_buffers: u32,
    /// Bytes of one buffer, headroom included.
    pub buffer_len: u32,
    /// Bytes kept free before a packet in a pool buffer.
    pub headroom: u16,
    /// Upcalls that may wait on the ring.
    pub upcalls_max: usize,
    /// VLAN tags that a flow key takes in, 0 to 2.
    pub vlan_depth: u8,
    /// Seed of all hashes and of `sample`; `None` draws one.
    pub seed: Option<u64>,
    /// Where packet buffers, flows, their statistics and the exact-match caches come from. Default: the kernel.
    pub memory: Source,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            flows_max: 1 << 20,
            cache_entries: 1 << 16,
            pool_buffers: 8192,
            buffer_len: 2048 + HEADROOM_DEFAULT as u32,
            headroom: HEADROOM_DEFAULT,
            upcalls_max: 1024,
            vlan_depth: VLAN_DEPTH_MAX,
            seed: None,
            memory: Source::default(),
        }
    }
}

/// Why a datapath or a worker was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatapathError {
    /// A setting is out of range.
    #[error("{field}: {reason}")]
    Setting {
        /// The field of [`Config`].
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The pool could not be mapped.
    #[error("pool of packet buffers: {0}")]
    Pool(#[from] std::io::Error),
    /// Not enough memory for the flow table.
    #[error("not enough memory for the flow table")]
    NoFlowMemory,
    /// Too many workers.
    #[error("no more than {} workers", crate::sync::qsbr::READERS_MAX)]
    TooManyWorkers,
    /// Not enough memory for a worker's flow statistics or its cache.
    #[error("not enough memory for a worker's flow statistics or its exact-match cache")]
    OutOfMemory,
}

/// What a burst sees of the configuration, published as a whole.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) ports: Arc<PortTable>,
    pub(crate) meters: Arc<MeterTable>,
    pub(crate) bonds: Arc<BondTable>,
    pub(crate) tunnels: Arc<TunnelTable>,
    pub(crate) sequences: Arc<Sequences>,
    pub(crate) handler: Option<Arc<dyn UpcallHandler>>,
    pub(crate) upcalls_enabled: bool,
}

struct Control {
    flows: FlowTable,
    published: Published,
    counters: Vec<Arc<WorkerCounters>>,
    /// What workers that have gone had counted.
    inherited: Stats,
    expire_at: u32,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) domain: primitive::Arc<Domain>,
    pub(crate) megaflows: Megaflows<FlowValue>,
    pub(crate) settings: Snapshot<Published>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) upcalls: ArrayQueue<Upcall>,
    injected: ArrayQueue<inject::Injected>,
    on_inject: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    pub(crate) extract: ExtractOptions,
    seed: u64,
    control: Mutex<Control>,
}

/// The control handle of one datapath. Cloning it gives another handle of the same datapath.
///
/// *Thread-safety.* Every method may be called from any thread, also from an upcall handler.
#[derive(Clone)]
pub struct Datapath {
    pub(crate) shared: Arc<Shared>,
}

/// A reference to a datapath that does not keep it: what an upcall handler holds, which the datapath itself holds.
#[derive(Clone, Debug)]
pub struct WeakDatapath(std::sync::Weak<Shared>);

impl WeakDatapath {
    /// The datapath, if it is still there.
    pub fn upgrade(&self) -> Option<Datapath> {
        self.0.upgrade().map(|shared| Datapath { shared })
    }
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Datapath").field("flows", &self.flow_count()).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Makes a datapath without ports, flows or workers.
    ///
    /// # Errors
    /// See [`DatapathError`].
    pub fn new(config: Config) -> Result<Self, DatapathError> {
        let setting = |field, reason| Err(DatapathError::Setting { field, reason });
        if config.flows_max == 0 || config.flows_max > 1 << 26 {
            return setting("flows_max", "must be 1 to 67,108,864");
        }
        if config.vlan_depth > VLAN_DEPTH_MAX {
            return setting("vlan_depth", "must be 0 to 2");
        }
        if config.upcalls_max == 0 || config.upcalls_max > 1 << 20 {
            return setting("upcalls_max", "must be 1 to 1,048,576");
        }
        if config.pool_buffers > 1 << 24 {
            return setting("pool_buffers", "must be at most 16,777,216");
        }
        if config.cache_entries > 1 << 27 {
            return setting("cache_entries", "must be at most 134,217,728");
        }
        let seed = config.seed.unwrap_or_else(|| ahash::RandomState::new().hash_one(0u8));
        let pool = Pool::new_in(&config.memory, config.pool_buffers, config.buffer_len, config.headroom)?;
        let domain = primitive::Arc::new(Domain::new());
        let (megaflows, writer) = Megaflows::new_in(&config.memory, &domain, config.flows_max, LineHasher::new(seed))
            .map_err(|_| DatapathError::NoFlowMemory)?;
        let published = Published {
            ports: Arc::default(),
            meters: Arc::default(),
            bonds: Arc::default(),
            tunnels: Arc::default(),
            sequences: Arc::default(),
            handler: None,
            upcalls_enabled: true,
        };
        Ok(Datapath {
            shared: Arc::new(Shared {
                settings: Snapshot::new(&domain, published.clone()),
                control: Mutex::new(Control {
                    flows: FlowTable::new(writer, &domain, seed),
                    published,
                    counters: Vec::new(),
                    inherited: Stats::default(),
                    expire_at: 0,
                }),
                upcalls: ArrayQueue::new(config.upcalls_max),
                injected: ArrayQueue::new(config.upcalls_max),
                on_inject: Mutex::new(None),
                extract: ExtractOptions { vlan_depth: config.vlan_depth },
                config,
                domain,
                megaflows,
                pool,
                seed,
            }),
        })
    }

    /// Makes a worker.
    ///
    /// # Errors
    /// [`DatapathError::TooManyWorkers`], [`DatapathError::OutOfMemory`].
    pub fn worker(&self) -> Result<Worker, DatapathError> {
        let reader = self.shared.domain.reader().ok_or(DatapathError::TooManyWorkers)?;
        let Config { memory, flows_max, cache_entries, .. } = &self.shared.config;
        let column = Arc::new(FlowColumn::new(memory, *flows_max).ok_or(DatapathError::OutOfMemory)?);
        let cache = ExactCache::new_in(memory, *cache_entries).map_err(|_| DatapathError::OutOfMemory)?;
        let counters = Arc::new(WorkerCounters::default());
        // Most of this before the lock, for which other workers may wait.
        let flows = lock(&self.shared.control).flows.writer.high_water();
        column.make_ready(flows);
        {
            let mut control = lock(&self.shared.control);
            control.flows.add_column(&column);
            control.counters.push(Arc::clone(&counters));
        }
        let seed = self.shared.seed ^ (reader.seat() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Worker::new(self.clone(), reader, column, counters, cache, seed))
    }

    pub(crate) fn worker_gone(&self, column: &Arc<FlowColumn>, counters: &Arc<WorkerCounters>) {
        let mut control = lock(&self.shared.control);
        control.flows.remove_column(column);
        let before = control.counters.len();
        control.counters.retain(|c| !Arc::ptr_eq(c, counters));
        if control.counters.len() < before {
            counters.add_to(&mut control.inherited);
        }
    }

    /// Changes what the control mutex protects, then drops what no worker can see any more: without the mutex, because a destructor, such as an
    /// upcall handler's, may use the datapath.
    fn change<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        let result = change(&mut lock(&self.shared.control));
        self.shared.domain.collect();
        result
    }

    fn publish<R>(&self, change: impl FnOnce(&mut Published) -> R) -> R {
        self.change(|control| {
            let result = change(&mut control.published);
            self.shared.settings.publish(control.published.clone());
            result
        })
    }

    /// A handle that does not keep the datapath.
    pub fn downgrade(&self) -> WeakDatapath {
        WeakDatapath(Arc::downgrade(&self.shared))
    }

    /// The pool of packet buffers.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.shared.pool
    }

    /// The configuration that the datapath was made with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    // Ports.

    /// Adds a port. Packets may be output to it from now on; who receives them is the worker's [`Sink`].
    ///
    /// # Errors
    /// See [`PortAddError`].
    pub fn port_add(&self, entry: PortEntry) -> Result<(), PortAddError> {
        self.publish(|p| Arc::make_mut(&mut p.ports).add(entry))
    }

    /// Removes a port. Flows that output to it drop their packets with `invalid_port`.
    pub fn port_del(&self, number: u32) -> Option<PortEntry> {
        self.publish(|p| Arc::make_mut(&mut p.ports).remove(number))
    }

    /// Marks a port up or down; false if there is none.
    pub fn port_set_up(&self, number: u32, up: bool) -> bool {
        self.publish(|p| Arc::make_mut(&mut p.ports).get_mut(number).map(|port| port.up = up).is_some())
    }

    /// Tells what is known of a port's link: whether it carries traffic, and the longest packet that it sends. False if there is no such
    /// port.
    pub fn port_set_link(&self, number: u32, up: bool, packet_len_max: u32) -> bool {
        self.publish(|p| {
            let port = Arc::make_mut(&mut p.ports).get_mut(number);
            port.map(|port| (port.up, port.packet_len_max) = (up, packet_len_max)).is_some()
        })
    }

    /// The ports now.
    pub fn ports(&self) -> Arc<PortTable> {
        Arc::clone(&lock(&self.shared.control).published.ports)
    }

    // Flows.

    /// Installs or changes a flow. On a change, returns the statistics before it.
    ///
    /// # Errors
    /// See [`FlowError`].
    pub fn flow_put(&self, put: FlowPut<'_>) -> Result<Option<FlowStats>, FlowError> {
        self.change(|control| control.flows.put(put))
    }

    /// A flow.
    ///
    /// # Errors
    /// [`FlowError::NotFound`].
    pub fn flow_get(&self, id: FlowId<'_>) -> Result<FlowInfo, FlowError> {
        lock(&self.shared.control).flows.get(id)
    }

    /// Removes a flow; returns it with its final statistics.
    ///
    /// # Errors
    /// [`FlowError::NotFound`].
    pub fn flow_del(&self, id: FlowId<'_>) -> Result<FlowInfo, FlowError> {
        self.change(|control| control.flows.del(id))
    }

    /// Removes all flows; returns how many there were.
    pub fn flow_flush(&self) -> u32 {
        self.change(|control| control.flows.flush())
    }

    /// The first flow whose number is `cursor` or higher; sets `cursor` behind it. A dump starts with a cursor of 0; flows
    /// that come or go meanwhile may or may not be seen, no flow is seen twice. Several threads may share a dump by
    /// serialising their use of its cursor.
    pub fn flow_next(&self, cursor: &mut u32) -> Option<FlowInfo> {
        let flow = lock(&self.shared.control).flows.next(*cursor)?;
        *cursor = flow.number + 1;
        Some(flow)
    }

    /// All flows.
    pub fn flow_dump(&self) -> Vec<FlowInfo> {
        let mut cursor = 0;
        core::iter::from_fn(|| self.flow_next(&mut cursor)).collect()
    }

    /// Flows installed.
    pub fn flow_count(&self) -> u32 {
        lock(&self.shared.control).flows.writer.len()
    }

    /// Different masks installed.
    pub fn mask_count(&self) -> usize {
        lock(&self.shared.control).flows.writer.masks()
    }

    /// Flow number `number`.
    pub fn flow_by_number(&self, number: u32) -> Option<FlowInfo> {
        lock(&self.shared.control).flows.info(number)
    }

    // Meters and bonds.

    /// Sets a meter, new or instead of an old one.
    ///
    /// # Errors
    /// See [`MeterError`].
    pub fn meter_set(&self, id: u32, config: MeterConfig, now: Nanos) -> Result<(), MeterError> {
        self.publish(|p| Arc::make_mut(&mut p.meters).set(id, config, now))
    }

    /// A meter's statistics.
    pub fn meter_get(&self, id: u32) -> Option<MeterStats> {
        lock(&self.shared.control).published.meters.get(id).map(|m| m.stats())
    }

    /// Removes a meter and returns its final statistics. Flows that refer to it pass everything from now on.
    pub fn meter_del(&self, id: u32) -> Option<MeterStats> {
        self.publish(|p| Arc::make_mut(&mut p.meters).del(id).map(|m| m.stats()))
    }

    /// Sets the members of a bond, new or changed: the port of each hash bucket, `u32::MAX` for none.
    pub fn bond_set(&self, id: u32, members: [u32; crate::action::bond::BUCKETS]) {
        self.publish(|p| {
            let bonds = Arc::make_mut(&mut p.bonds);
            let bond = match bonds.get(&id) {
                Some(old) => Bond::with_counts_of(members, old),
                None => Bond::new(members),
            };
            bonds.insert(id, primitive::Arc::new(bond));
        });
    }

    /// Removes a bond; false if there is none.
    pub fn bond_del(&self, id: u32) -> bool {
        self.publish(|p| Arc::make_mut(&mut p.bonds).remove(&id).is_some())
    }

    /// Bytes that each bucket of a bond has sent.
    pub fn bond_stats(&self, id: u32) -> Option<Vec<u64>> {
        lock(&self.shared.control).published.bonds.get(&id).map(|b| b.bytes().collect())
    }

    // Tunnels.

    /// Sets how `tnl_pop` of port `port` opens packets, new or changed. The port need not exist: nothing is output to it.
    pub fn tunnel_set(&self, port: u32, tunnel: Tunnel) {
        self.publish(|p| Arc::make_mut(&mut p.tunnels).insert(port, primitive::Arc::new(tunnel)));
    }

    /// Sets several tunnels at once, each as [`Datapath::tunnel_set`]: workers see all or none of them.
    pub fn tunnels_set(&self, tunnels: impl IntoIterator<Item = (u32, Tunnel)>) {
        let tunnels = tunnels.into_iter().map(|(port, tunnel)| (port, primitive::Arc::new(tunnel)));
        self.publish(|p| Arc::make_mut(&mut p.tunnels).extend(tunnels));
    }

    /// Removes a tunnel; false if there is none. Packets that `tnl_pop` gives it from now on are dropped: `unknown_tunnel`.
    pub fn tunnel_del(&self, port: u32) -> bool {
        self.publish(|p| Arc::make_mut(&mut p.tunnels).remove(&port).is_some())
    }

    // Upcalls.

    /// Sets who answers upcalls; without a handler, misses are dropped (`miss`) and `userspace` actions go onto the ring.
    ///
    /// A handler that holds a handle of this datapath keeps it alive until the handler is replaced or unset.
    pub fn set_upcall_handler(&self, handler: Option<Arc<dyn UpcallHandler>>) {
        self.publish(|p| p.handler = handler);
    }

    /// Turns upcalls off or on. While off, packets that need one are dropped: `upcall_lost`. A handler that is running when
    /// upcalls are turned off may still be running when this returns; [`Datapath::quiesce`] waits for it.
    pub fn set_upcalls_enabled(&self, enabled: bool) {
        self.publish(|p| p.upcalls_enabled = enabled);
    }

    /// Begins a grace period. It is over when [`Datapath::has_quiesced`] says so of the ticket: every worker has then left the burst
    /// that it was in, so it sees all changes made before.
    pub fn quiesce(&self) -> u64 {
        self.shared.domain.ticket()
    }

    /// Whether the grace period is over.
    pub fn has_quiesced(&self, ticket: u64) -> bool {
        self.shared.domain.has_passed(ticket)
    }

    /// Takes the oldest upcall off the ring.
    pub fn upcall_pop(&self) -> Option<Upcall> {
        self.shared.upcalls.pop()
    }

    /// Upcalls that wait on the ring.
    pub fn upcalls_waiting(&self) -> usize {
        self.shared.upcalls.len()
    }

    /// Gives a packet's buffer back to the pool.
    pub fn free(&self, packet: &mut Packet) {
        self.shared.pool.free(packet);
    }

    // Upkeep.

    /// The work that packets do not do: removes flows whose time is over (looking at no more than `budget` flows), sorts the
    /// subtables by hits, frees what no worker can see any more. Call it about every second. `expired` is called for each
    /// removed flow, with the control mutex held: it must not call the datapath.
    pub fn upkeep(&self, now: Nanos, budget: u32, expired: impl FnMut(FlowInfo)) {
        self.change(|control| {
            let from = control.expire_at;
            control.expire_at = control.flows.expire(from, budget, now, expired);
            control.flows.writer.sort_by_hits();
            control.flows.writer.reclaim();
        });
    }

    /// The sum of all workers' counters since the datapath was made.
    pub fn stats(&self) -> Stats {
        let control = lock(&self.shared.control);
        let mut sum = control.inherited;
        control.counters.iter().for_each(|c| c.add_to(&mut sum));
        sum
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        while let Some(mut upcall) = self.upcalls.pop() {
            self.pool.free(&mut upcall.packet);
        }
        while let Some(mut injected) = self.injected.pop() {
            self.pool.free(&mut injected.packet);
        }
        // What waits holds tables, and those hold the domain that it waits in: nobody but this breaks the circle. No worker is left, so no
        // burst keeps anything.
        self.domain.collect();
    }
}
