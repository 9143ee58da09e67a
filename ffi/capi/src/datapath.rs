//! The datapath: one switch.

use core::ffi::c_void;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use wye::datapath::{Config, Datapath, FlowInfo};
use wye::packet::pool::HEADROOM_DEFAULT;
use wye::time::Nanos;

use crate::allocator::{self, wye_alloc_fn, wye_dealloc_fn};
use crate::boundary::{self, Handle, Intent, Sized_, Tag, on_datapath};
use crate::flow::{Records, wye_flow_stats};
use crate::fork::ForkMark;
use crate::gateway::{Gate, or};
use crate::inject::Bells;
use crate::log::{Log, WYE_LOG_ERROR, wye_log_fn};
use crate::stats::Corrections;
use crate::status::{Fault, Outcome, WYE_E_BUSY, WYE_E_FORKED, WYE_E_PANIC, WYE_E_TIMED_OUT, wye_error, wye_status};
use crate::turn::Turns;
use crate::upcall::Dispatcher;

/// Settings of a datapath. Zero is each field's default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_datapath_config {
    /// `sizeof(struct wye_datapath_config)`.
    pub size: u32,
    /// Flows at a time. Default 1,048,576.
    pub flows_max: u32,
    /// Entries of each worker's exact-match cache; `UINT32_MAX` for no cache. Default 65,536.
    pub cache_entries: u32,
    /// Buffers for copies, queued upcalls and packets that engine-owned ports receive, 16,777,216 at most. Default 8,192.
    pub pool_buffers: u32,
    /// Bytes of one such buffer, headroom included. Default 2,304. A longer packet cannot be copied, which drops the copy: `no_buffer`, nor
    /// move for want of headroom: `no_headroom`.
    pub buffer_len: u32,
    /// Bytes that are kept free before a packet in such a buffer. Default 256.
    pub headroom: u32,
    /// Upcalls that may wait on the ring. Default 1,024.
    pub upcalls_max: u32,
    /// VLAN tags that a flow key takes in, 1 or 2. Default 2.
    pub vlan_limit: u32,
    /// Seed of hashes and of `sample`; 0 draws one.
    pub seed: u64,
    /// Takes log lines; NULL for none.
    pub log: wye_log_fn,
    /// Handed to `log`.
    pub log_ctx: *mut c_void,
    /// Where the large memory comes from, all of it that grows with a setting of this struct: packet buffers, the flow table and each worker's
    /// flow statistics (`flows_max`), exact-match caches (`cache_entries`). Each is one piece, rounded up to 2 MiB unless it is small. NULL: from
    /// the kernel, which gives pages when they are first used. Handles, hash tables of masks and ports, and attributes come from `malloc`.
    pub alloc: wye_alloc_fn,
    /// Takes it back; given exactly if `alloc` is.
    pub dealloc: wye_dealloc_fn,
    /// Handed to `alloc` and `dealloc`.
    pub alloc_ctx: *mut c_void,
}

// SAFETY: `repr(C)`, `size` first; integers, raw pointers and `Option`s of function pointers.
unsafe impl Sized_ for wye_datapath_config {
    const FIRST: usize = offset_of!(wye_datapath_config, alloc);
    const NAME: &'static str = "wye_datapath_config";
}

/// One switch: ports, flows, meters, bonds, upcalls. Several in one process know nothing of each other.
pub struct wye_datapath {
    tag: Tag,
    inner: Arc<Inner>,
}

impl Handle for wye_datapath {
    const TAG: u64 = u64::from_be_bytes(*b"WyeDatap");
    const NAME: &'static str = "wye_datapath";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl wye_datapath {
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

/// What the handle and everything that was made from it share.
pub(crate) struct Inner {
    pub(crate) engine: Datapath,
    records: Mutex<Records>,
    workers: Mutex<Vec<Weak<Turns>>>,
    poisoned: AtomicBool,
    upcalls_enabled: AtomicBool,
    fork: ForkMark,
    pub(crate) log: Log,
    pub(crate) corrections: Corrections,
    pub(crate) bells: Arc<Bells>,
    gate: Mutex<Option<Arc<Gate>>>,
}

/// A lock whose holder panicked protects nothing that is half changed: the poisoned datapath refuses changes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Whether the datapath may be used for this.
    pub(crate) fn check(&self, intent: Intent) -> Outcome {
        if self.fork.is_forked() {
            return Err(Fault::new(WYE_E_FORKED, "the datapath belongs to the process that made it, not to its fork"));
        }
        if intent == Intent::Change && self.poisoned.load(Ordering::Relaxed) {
            return Err(Fault::new(WYE_E_PANIC, "the datapath is poisoned by an earlier panic"));
        }
        Ok(())
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked()
    }

    pub(crate) fn poison(&self, message: &str) {
        if !self.poisoned.swap(true, Ordering::Relaxed) {
            self.log.line(WYE_LOG_ERROR, &format!("a panic was caught, the datapath stops: {message}"));
        }
    }

    /// Attributes as the caller gave them. The lock also makes compound flow operations atomic.
    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }

    /// The datapath's gateway, if it has one. The lock is held while it comes or goes.
    pub(crate) fn gate(&self) -> MutexGuard<'_, Option<Arc<Gate>>> {
        lock(&self.gate)
    }

    pub(crate) fn upcalls_enabled(&self) -> bool {
        self.upcalls_enabled.load(Ordering::Acquire)
    }

    pub(crate) fn add_worker(&self, turns: &Arc<Turns>) {
        let mut workers = lock(&self.workers);
        workers.retain(|w| w.strong_count() != 0);
        workers.push(Arc::downgrade(turns));
    }

    /// Does `upkeep`, and tells `expired` of the flows that went, when no lock is held.
    ///
    /// # Safety
    /// `expired` is NULL or may be called with `ctx`.
    pub(crate) unsafe fn expire(
        &self,
        expired: wye_expired_fn,
        ctx: *mut c_void,
        upkeep: impl FnOnce(&mut dyn FnMut(&FlowInfo)),
    ) {
        let mut gone = Vec::new();
        {
            let mut records = self.records();
            upkeep(&mut |flow| gone.push((flow.ufid, flow.stats)));
            gone.iter().for_each(|(ufid, _)| records.remove(*ufid));
        }
        let Some(expired) = expired else { return };
        for (ufid, stats) in gone {
            let (ufid, stats) = (ufid.to_be_bytes(), wye_flow_stats::from(stats));
            // SAFETY: the contract allows the call; both pointers are valid during it.
            unsafe { expired(ctx, ufid.as_ptr(), &stats) };
        }
    }

    fn workers(&self) -> Vec<Arc<Turns>> {
        lock(&self.workers).iter().filter_map(Weak::upgrade).collect()
    }
}

/// Makes a datapath without ports, flows or workers. `config` may be NULL for defaults; it is copied.
///
/// Any thread. Maps memory; does not block otherwise. `WYE_E_INVALID` names the setting that is out of range, `WYE_E_NO_MEMORY`.
/// Since 0.1.
///
/// # Safety
/// `config` is NULL or points to a struct of the size that its first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_datapath_new(
    config: *const wye_datapath_config,
    datapath: Option<&mut MaybeUninit<*mut wye_datapath>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let out = boundary::out(datapath, "datapath")?;
        let default = Config::default();
        let (config, log) = if config.is_null() {
            (default, Log { callback: None, ctx: core::ptr::null_mut() })
        } else {
            // SAFETY: as this function's contract.
            let c = unsafe { boundary::sized(config) }?;
            let headroom = u16::try_from(or(c.headroom, HEADROOM_DEFAULT.into()));
            let config = Config {
                flows_max: or(c.flows_max, default.flows_max),
                cache_entries: match c.cache_entries {
                    0 => default.cache_entries,
                    u32::MAX => 0,
                    n => n as usize,
                },
                pool_buffers: or(c.pool_buffers, default.pool_buffers),
                buffer_len: or(c.buffer_len, default.buffer_len),
                headroom: headroom.map_err(|_| Fault::invalid("headroom: must be at most 65535"))?,
                upcalls_max: or(c.upcalls_max as usize, default.upcalls_max),
                vlan_depth: match c.vlan_limit {
                    0 => default.vlan_depth,
                    n @ 1..=2 => n as u8,
                    _ => return Err(Fault::invalid("vlan_limit: must be 1 or 2")),
                },
                seed: (c.seed != 0).then_some(c.seed),
                memory: allocator::source(c.alloc, c.dealloc, c.alloc_ctx)?,
            };
            (config, Log { callback: c.log, ctx: c.log_ctx })
        };
        let engine = Datapath::new(config)?;
        engine.set_upcall_handler(Some(Arc::new(Dispatcher)));
        let bells = Arc::new(Bells::default());
        let rung = Arc::clone(&bells);
        engine.set_injected(Some(Arc::new(move || rung.ring())));
        let inner = Arc::new(Inner {
            engine,
            records: Mutex::default(),
            workers: Mutex::default(),
            poisoned: AtomicBool::new(false),
            upcalls_enabled: AtomicBool::new(true),
            fork: ForkMark::new(),
            log,
            corrections: Corrections::default(),
            bells,
            gate: Mutex::default(),
        });
        boundary::give(wye_datapath { tag: Tag::live::<wye_datapath>(), inner }, out);
        Ok(())
    })
}

/// Frees a datapath; NULL is legal. Takes the handle. Workers, dumps and queued upcalls that still exist stay usable and keep what they
/// need; the rest of the memory goes with the last of them.
///
/// Any thread, not while another thread is inside a function with this handle. Does not block. Since 0.1.
///
/// # Safety
/// `datapath` is NULL or came from `wye_datapath_new` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_datapath_free(datapath: *mut wye_datapath) {
    // SAFETY: as this function's contract.
    unsafe { boundary::free(datapath) }
}

/// Turns upcalls off (0) or on. While off, packets that need one are dropped: `upcall_lost`. An upcall that is being answered when they are
/// turned off may still run when this returns: `wye_datapath_quiesce` waits for it.
///
/// Any thread, also from a callback. Does not block. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_datapath_set_upcalls(
    datapath: Option<&wye_datapath>,
    enabled: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        inner.upcalls_enabled.store(enabled != 0, Ordering::Release);
        inner.engine.set_upcalls_enabled(enabled != 0);
        Ok(())
    })
}

/// Waits until every burst, and every upcall callback, that had begun before this call has ended: from then on all workers see every
/// change that was made before the call. Workers need not do anything for it, idle ones do not delay it.
///
/// Any thread, but not from a callback of a worker (`WYE_E_BUSY`). Blocks for `timeout_ns` at most, then `WYE_E_TIMED_OUT`. `WYE_E_INVALID`,
/// `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_datapath_quiesce(
    datapath: Option<&wye_datapath>,
    timeout_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| {
        if crate::turn::is_inside_worker() {
            return Err(Fault::new(WYE_E_BUSY, "a callback cannot wait for itself"));
        }
        let began = Instant::now();
        let ticket = inner.engine.quiesce();
        let turns: Vec<_> = inner.workers().into_iter().map(|w| (w.ticket(), w)).collect();
        while !inner.engine.has_quiesced(ticket) || turns.iter().any(|(ticket, w)| !w.has_passed(*ticket)) {
            if began.elapsed() >= Duration::from_nanos(timeout_ns) {
                return Err(Fault::new(WYE_E_TIMED_OUT, "a worker has not left its burst or callback in time"));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    })
}

/// Told of each flow whose time was over: its identifier and final statistics. May call the library.
pub type wye_expired_fn =
    Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, ufid: *const u8, stats: *const wye_flow_stats)>;

/// The work that packets do not do: removes flows whose idle or hard time is over (looking at `budget` flows at most, 0 for all), sorts
/// subtables by hits, frees what no worker can see any more. Call it about every second. `expired` may be NULL.
///
/// Any thread. Takes the control lock, never waits for a worker. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `expired` is NULL or may be called with `ctx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_datapath_upkeep(
    datapath: Option<&wye_datapath>,
    now_ns: u64,
    budget: u32,
    expired: wye_expired_fn,
    ctx: *mut c_void,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        let budget = or(budget, u32::MAX);
        // SAFETY: as this function's contract.
        unsafe { inner.expire(expired, ctx, |tell| inner.engine.upkeep(Nanos(now_ns), budget, |flow| tell(&flow))) };
        Ok(())
    })
}
