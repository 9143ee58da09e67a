//! Meters.

use core::mem::{MaybeUninit, size_of};

use wye::meter::{BANDS_MAX, Band, MeterConfig, MeterStats, MeterUnit};
use wye::time::Nanos;

use crate::boundary::{self, Intent, Sized_, on_datapath};
use crate::datapath::wye_datapath;
use crate::status::{Fault, Outcome, WYE_E_NOT_FOUND, wye_error, wye_status};

/// Bands that a meter may have.
pub const WYE_METER_BANDS_MAX: usize = 8;

/// Rates in 1000 bit/s, bursts in 1000 bit.
pub const WYE_METER_KBPS: u32 = 0;
/// Rates in packets/s, bursts in packets.
pub const WYE_METER_PPS: u32 = 1;

/// One band: what exceeds it is dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wye_meter_band {
    /// Rate, in the meter's unit.
    pub rate: u32,
    /// Size of the bucket, in the meter's unit; 0 = one second's worth.
    pub burst: u32,
}

/// What a meter is to do.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_meter_config {
    /// `sizeof(struct wye_meter_config)`.
    pub size: u32,
    /// `WYE_METER_KBPS` or `WYE_METER_PPS`.
    pub unit: u32,
    /// Bands in use.
    pub n_bands: u32,
    /// Zero.
    pub reserved: u32,
    /// The bands.
    pub bands: [wye_meter_band; WYE_METER_BANDS_MAX],
}

// SAFETY: `repr(C)`, `size` first; integers.
unsafe impl Sized_ for wye_meter_config {
    const FIRST: usize = size_of::<wye_meter_config>();
    const NAME: &'static str = "wye_meter_config";
}

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wye_meter_count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a meter has counted. The layout is fixed for ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wye_meter_stats {
    /// Everything that came in.
    pub input: wye_meter_count,
    /// What each band dropped.
    pub bands: [wye_meter_count; WYE_METER_BANDS_MAX],
    /// Bands in use.
    pub n_bands: u32,
    /// Zero.
    pub reserved: u32,
}

impl From<MeterStats> for wye_meter_stats {
    fn from(s: MeterStats) -> Self {
        let count = |c: &wye::meter::MeterCount| wye_meter_count { packets: c.packets, bytes: c.bytes };
        let mut out = wye_meter_stats { input: count(&s.input), ..Default::default() };
        out.n_bands = s.bands.len().min(WYE_METER_BANDS_MAX) as u32;
        out.bands.iter_mut().zip(&s.bands).for_each(|(to, from)| *to = count(from));
        out
    }
}

const _: () = assert!(BANDS_MAX == WYE_METER_BANDS_MAX);

/// Sets a meter, new or instead of the old one; its buckets start full, its counts at zero.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_RANGE` (the id), `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `config` is NULL or a struct of the size that its first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_meter_set(
    datapath: Option<&wye_datapath>,
    id: u32,
    config: *const wye_meter_config,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract.
        let c = unsafe { boundary::sized(config) }?;
        let unit = match c.unit {
            WYE_METER_KBPS => MeterUnit::Kbps,
            WYE_METER_PPS => MeterUnit::PacketsPerSecond,
            other => return Err(Fault::invalid(format!("unit: {other} is not known"))),
        };
        let bands = c.bands.get(..c.n_bands as usize).ok_or_else(|| Fault::invalid("n_bands: must be at most 8"))?;
        let bands = bands.iter().map(|b| Band { rate: b.rate, burst: b.burst }).collect();
        Ok(inner.engine.meter_set(id, MeterConfig { unit, bands }, Nanos(now_ns))?)
    })
}

fn no_meter() -> Fault {
    Fault::new(WYE_E_NOT_FOUND, "no such meter")
}

fn answer(stats: Option<MeterStats>, out: Option<&mut MaybeUninit<wye_meter_stats>>) -> Outcome {
    let stats = stats.ok_or_else(no_meter)?;
    if let Some(out) = out {
        out.write(stats.into());
    }
    Ok(())
}

/// Reads a meter's counts; `stats` may be NULL to ask only whether it exists.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_meter_get(
    datapath: Option<&wye_datapath>,
    id: u32,
    stats: Option<&mut MaybeUninit<wye_meter_stats>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| answer(inner.engine.meter_get(id), stats))
}

/// Removes a meter; `*last` (may be NULL) gets its final counts. Flows that use it pass everything from now on.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_meter_del(
    datapath: Option<&wye_datapath>,
    id: u32,
    last: Option<&mut MaybeUninit<wye_meter_stats>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| answer(inner.engine.meter_del(id), last))
}
