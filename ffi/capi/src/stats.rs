//! Statistics of a datapath or a worker.

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};
use std::ffi::CString;

use wye::datapath::Stats;
use wye::gateway::BridgeStats;
use wye::gateway::underlay::UnderlayStats;
use wye::packet::DropReason;

use crate::boundary::{self, Handle, Intent, Tag, on_datapath};
use crate::datapath::wye_datapath;
use crate::packet::WYE_DROPS_MAX;
use crate::status::{Fault, WYE_E_NOT_FOUND, wye_error, wye_status};
use crate::worker::wye_worker;

/// Packets that the engine counted as upcalls and that were dropped then, by reason.
///
/// *Thread-safety.* Relaxed atomics.
#[derive(Debug)]
pub(crate) struct Drops([AtomicU64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Drops([const { AtomicU64::new(0) }; DropReason::COUNT])
    }
}

impl Drops {
    pub(crate) fn count(&self, reason: DropReason) {
        self.0[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds them to `sums`, and returns how many they are.
    fn add_to(&self, sums: &mut [u64]) -> u64 {
        let mut total = 0;
        for (sum, dropped) in sums.iter_mut().zip(&self.0) {
            let dropped = dropped.load(Ordering::Relaxed);
            *sum += dropped;
            total += dropped;
        }
        total
    }
}

/// What the C side does to packets after the engine has counted them as upcalls: they come in again with their answer. So that each
/// packet counts once, with its last fate, this is taken off.
///
/// *Thread-safety.* Relaxed atomics, added to by any worker.
#[derive(Debug, Default)]
pub(crate) struct Corrections {
    /// Packets that came in again.
    pub(crate) again: AtomicU64,
    /// Their bytes.
    pub(crate) again_bytes: AtomicU64,
    /// Upcalls that the callback refused, or for which nobody was there when their turn came.
    pub(crate) dropped: Drops,
}

impl Corrections {
    fn apply(&self, stats: &mut Stats) {
        let again = self.again.load(Ordering::Relaxed);
        stats.packets_in = stats.packets_in.saturating_sub(again);
        stats.bytes_in = stats.bytes_in.saturating_sub(self.again_bytes.load(Ordering::Relaxed));
        let dropped = self.dropped.add_to(&mut stats.dropped);
        stats.upcall = stats.upcall.saturating_sub(again + dropped);
    }
}

/// A reading of statistics: names and values.
pub struct wye_stats {
    tag: Tag,
    values: Vec<(CString, u64)>,
}

impl Handle for wye_stats {
    const TAG: u64 = u64::from_be_bytes(*b"WyeStats");
    const NAME: &'static str = "wye_stats";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl wye_stats {
    fn new(stats: &Stats) -> Self {
        let name = |prefix: &str, name: &str| CString::new(format!("{prefix}{name}")).unwrap_or_default();
        let mut values: Vec<_> = stats.named().map(|(n, value)| (name("", n), value)).collect();
        for (prefix, counts) in [("dropped.", &stats.dropped), ("copies_dropped.", &stats.copies_dropped)] {
            values.extend(DropReason::ALL.iter().map(|r| (name(prefix, r.name()), counts[r.index()])));
        }
        wye_stats { tag: Tag::live::<wye_stats>(), values }
    }
}

impl wye_stats {
    /// Every field is named, so that none is forgotten.
    pub(crate) fn of_gateway(bridge: BridgeStats, underlay: UnderlayStats) -> Self {
        let BridgeStats {
            learned,
            moved,
            aged,
            learn_refused,
            flooded,
            storm_dropped,
            flows_installed,
            flows_refused,
            remotes_learned,
            answered_for,
            told_too_big,
        } = bridge;
        let UnderlayStats {
            neighbours,
            answered,
            echoes,
            released,
            lost,
            fragmented,
            unsent,
            conflicts,
            paths_narrowed,
            path_errors_ignored,
        } = underlay;
        let values = [
            (c"stations.learned", learned),
            (c"stations.moved", moved),
            (c"stations.aged", aged),
            (c"stations.refused", learn_refused),
            (c"flooded", flooded),
            (c"flooded.storm", storm_dropped),
            (c"flows.installed", flows_installed),
            (c"flows.refused", flows_refused),
            (c"remotes.learned", remotes_learned),
            (c"vpc.answered_for", answered_for),
            (c"vpc.told_too_big", told_too_big),
            (c"neighbours.solicited", neighbours.solicited),
            (c"neighbours.learned", neighbours.learned),
            (c"neighbours.lost", neighbours.lost),
            (c"neighbours.evicted", neighbours.evicted),
            (c"waiting.overflowed", neighbours.overflowed),
            (c"waiting.released", released),
            (c"waiting.lost", lost),
            (c"underlay.answered", answered),
            (c"underlay.echoes", echoes),
            (c"underlay.fragmented", fragmented),
            (c"underlay.unsent", unsent),
            (c"underlay.conflicts", conflicts),
            (c"paths.narrowed", paths_narrowed),
            (c"paths.errors_ignored", path_errors_ignored),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value)).into();
        wye_stats { tag: Tag::live::<wye_stats>(), values }
    }
}

/// Reads a datapath's statistics, summed over all workers that it ever had. Names are those of `wye_stats_next`.
///
/// Any thread, also from a callback. Takes the control lock, waits for no worker. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_datapath_stats(
    datapath: Option<&wye_datapath>,
    stats: Option<&mut MaybeUninit<*mut wye_stats>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| {
        let out = boundary::out(stats, "stats")?;
        let mut sum = inner.engine.stats();
        inner.corrections.apply(&mut sum);
        boundary::give(wye_stats::new(&sum), out);
        Ok(())
    })
}

/// The next statistic: returns 1 and writes name and value, or returns 0 at the end. `*cursor` starts at 0. The name is valid until the reading
/// is freed.
///
/// `packets_in` packets came in; each has one fate, so it is the sum of `transmitted`, `upcall`, `parked`, `delivered` and all
/// `dropped.REASON`. Copies that actions make are counted in `copies`, `copies_transmitted` (those that went up included) and
/// `copies_dropped.REASON` only. A packet that goes up and is answered, by the callback or by `wye_worker_answer`, counts once, with its last
/// fate; but what is carried out for a copy that went up comes in as a packet of its own.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_stats_next(
    stats: Option<&wye_stats>,
    cursor: Option<&mut u32>,
    name: Option<&mut MaybeUninit<*const c_char>>,
    value: Option<&mut MaybeUninit<u64>>,
) -> u32 {
    let (Ok(stats), Some(cursor)) = (boundary::live(stats), cursor) else { return 0 };
    let Some((n, v)) = stats.values.get(*cursor as usize) else { return 0 };
    *cursor += 1;
    if let Some(name) = name {
        name.write(n.as_ptr());
    }
    if let Some(value) = value {
        value.write(*v);
    }
    1
}

/// The statistic of this name.
///
/// Any thread; does not block. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`. Since 0.1.
///
/// # Safety
/// `name` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_stats_get(
    stats: Option<&wye_stats>,
    name: *const c_char,
    value: Option<&mut MaybeUninit<u64>>,
) -> wye_status {
    boundary::call(None, || {
        let stats = boundary::live(stats)?;
        let out = boundary::out(value, "value")?;
        // SAFETY: as this function's contract.
        let name = unsafe { boundary::text(name, "name") }?.ok_or_else(|| Fault::invalid("name is NULL"))?;
        let is_it = |n: &CStr| n.to_bytes() == name.as_bytes();
        let found = stats.values.iter().find(|(n, _)| is_it(n));
        out.write(found.ok_or_else(|| Fault::new(WYE_E_NOT_FOUND, "no statistic has this name"))?.1);
        Ok(())
    })
}

/// Frees a reading; NULL is legal. Any thread; does not block. Since 0.1.
///
/// # Safety
/// `stats` is NULL or came from this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_stats_free(stats: *mut wye_stats) {
    // SAFETY: as this function's contract.
    unsafe { boundary::free(stats) }
}

/// What one worker has counted, for who reads it after every burst. The layout is fixed for ever.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wye_counters {
    /// Lookups that found a flow, those of recirculated packets included.
    pub hits: u64,
    /// Of those, in the exact-match cache.
    pub cache_hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Recirculations.
    pub recirculated: u64,
    /// Sum of `drops`: one comparison tells that nothing was dropped.
    pub drops_total: u64,
    /// By `enum wye_drop`: packets, and copies that actions made.
    pub drops: [u64; WYE_DROPS_MAX],
}

/// Reads what a worker has counted.
///
/// Any thread, while the worker lives; cheap, takes no lock. `WYE_E_INVALID`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_worker_counters(
    worker: Option<&wye_worker>,
    counters: Option<&mut MaybeUninit<wye_counters>>,
) -> wye_status {
    boundary::call(None, || {
        let worker = boundary::live(worker)?;
        let out = boundary::out(counters, "counters")?;
        let c = worker.counters();
        let mut drops = [0; WYE_DROPS_MAX];
        let by_reason = c.dropped.iter().zip(&c.copies_dropped);
        drops.iter_mut().zip(by_reason).for_each(|(sum, (packets, copies))| *sum = packets.get() + copies.get());
        worker.dropped().add_to(&mut drops);
        let cache_hits = c.exact_hits.get();
        out.write(wye_counters {
            hits: cache_hits + c.megaflow_hits.get(),
            cache_hits,
            misses: c.misses.get(),
            recirculated: c.recirculated.get(),
            drops_total: drops.iter().sum(),
            drops,
        });
        Ok(())
    })
}
