//! Meters: token buckets that police the packets of many flows and workers together (OpenFlow 1.3 §5.7, as OVS keeps them).
//!
//! A meter has bands. Each band has a bucket that starts full and refills with the band's rate, by the millisecond. A packet takes its
//! length (or 1, for a rate in packets) out of every bucket that holds enough; a bucket that does not is an exceeded band. Of the
//! exceeded bands the one with the highest rate counts the packet, and it is dropped.
//!
//! *Units.* A bucket counts bits for rates in kbit/s and thousandths of a packet for rates in packets/s, so that one millisecond always
//! refills `rate` of them.

use std::sync::Arc;

use crate::sync::primitive::{AtomicU64, Ordering};
use crate::time::Nanos;

/// Meter ids are below this.
pub const METERS_MAX: u32 = 1 << 18;

/// Bands that a meter may have.
pub const BANDS_MAX: usize = 8;

/// Packets whose verdicts are kept at a time; a longer group is policed in parts.
const PART: usize = 64;

/// What rates and bursts count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeterUnit {
    /// Rate in 1000 bit/s, burst in 1000 bits. Lengths count from the Ethernet header on, without FCS.
    Kbps,
    /// Rate in packets/s, burst in packets.
    PacketsPerSecond,
}

/// A band: what exceeds it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Band {
    /// Rate, in the meter's unit. 0 never refills.
    pub rate: u32,
    /// Size of the bucket, in the meter's unit; 0 stands for the value of `rate`: one second's worth.
    pub burst: u32,
}

/// What a meter is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeterConfig {
    /// Unit of all its rates and bursts.
    pub unit: MeterUnit,
    /// Its bands, at most [`BANDS_MAX`]. Without any it only counts.
    pub bands: Vec<Band>,
}

/// Why a meter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// The id is [`METERS_MAX`] or above.
    #[error("meter id {0} is not below {METERS_MAX}")]
    IdOutOfRange(u32),
    /// More than [`BANDS_MAX`] bands.
    #[error("{0} bands are more than {BANDS_MAX}")]
    TooManyBands(usize),
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterCount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a meter has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeterStats {
    /// Everything that came in.
    pub input: MeterCount,
    /// What each band dropped, in the configuration's order.
    pub bands: Vec<MeterCount>,
}

#[derive(Debug, Default)]
struct SharedCount {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl SharedCount {
    #[inline]
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> MeterCount {
        MeterCount { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

#[derive(Debug)]
struct BandState {
    /// What the bucket gains per millisecond.
    rate: u64,
    /// What the bucket holds when full.
    capacity: u64,
    bucket: AtomicU64,
    dropped: SharedCount,
}

/// A meter.
///
/// *Thread-safety.* Configuration immutable; buckets, time of the last refill and counts atomic: any worker may police at any time,
/// without a lock. Orderings are relaxed, for nothing else depends on a bucket.
#[derive(Debug)]
pub struct Meter {
    config: MeterConfig,
    /// Highest rate first; of equal rates the earlier in the configuration first.
    by_rate: Box<[u8]>,
    bands: Box<[BandState]>,
    /// Time of the last refill in milliseconds.
    refilled_ms: AtomicU64,
    input: SharedCount,
}

impl Meter {
    /// A meter with full buckets.
    ///
    /// # Errors
    /// [`MeterError::TooManyBands`].
    pub fn new(config: MeterConfig, now: Nanos) -> Result<Meter, MeterError> {
        if config.bands.len() > BANDS_MAX {
            return Err(MeterError::TooManyBands(config.bands.len()));
        }
        let bands = config.bands.iter().map(|band| {
            let burst = if band.burst == 0 { band.rate } else { band.burst };
            let capacity = u64::from(burst) * 1000;
            let dropped = SharedCount::default();
            BandState { rate: band.rate.into(), capacity, bucket: AtomicU64::new(capacity), dropped }
        });
        let bands: Box<[BandState]> = bands.collect();
        let mut by_rate: Box<[u8]> = (0..bands.len() as u8).collect();
        by_rate.sort_by_key(|&i| core::cmp::Reverse(config.bands[usize::from(i)].rate));
        let refilled_ms = AtomicU64::new(now.as_millis());
        Ok(Meter { config, by_rate, bands, refilled_ms, input: SharedCount::default() })
    }

    /// What it was configured to do.
    pub fn config(&self) -> &MeterConfig {
        &self.config
    }

    /// What it has counted.
    pub fn stats(&self) -> MeterStats {
        MeterStats { input: self.input.get(), bands: self.bands.iter().map(|b| b.dropped.get()).collect() }
    }

    /// Polices packets of lengths `lens` that arrive at `now`; `dropped[i]` becomes true for each that exceeds a band and is left alone
    /// otherwise. The slices have equal lengths; what one has more is ignored. Returns how many are to be dropped.
    ///
    /// A group that the buckets hold costs one atomic exchange per band, however many packets it has. Time that runs backwards refills
    /// nothing.
    pub fn police(&self, now: Nanos, lens: &[u32], dropped: &mut [bool]) -> usize {
        self.refill(now.as_millis());
        let mut total = 0;
        for (lens, dropped) in lens.chunks(PART).zip(dropped.chunks_mut(PART)) {
            let n = lens.len().min(dropped.len());
            total += self.police_part(&lens[..n], &mut dropped[..n]);
        }
        total
    }

    fn refill(&self, now_ms: u64) {
        let mut last = self.refilled_ms.load(Ordering::Relaxed);
        // One worker moves the time, and it refills for all: the interval is counted once.
        while last < now_ms {
            match self.refilled_ms.compare_exchange_weak(last, now_ms, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    for band in &self.bands {
                        let gain = band.rate.saturating_mul(now_ms - last);
                        let fill = |level: u64| Some(level.saturating_add(gain).min(band.capacity));
                        // `fill` never declines.
                        let _ = band.bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
                    }
                    return;
                }
                Err(seen) => last = seen,
            }
        }
    }

    #[inline]
    fn volume(&self, packets: u64, bytes: u64) -> u64 {
        match self.config.unit {
            MeterUnit::Kbps => bytes * 8,
            MeterUnit::PacketsPerSecond => packets * 1000,
        }
    }

    fn police_part(&self, lens: &[u32], dropped: &mut [bool]) -> usize {
        let (packets, bytes) = (lens.len() as u64, lens.iter().map(|&len| u64::from(len)).sum());
        self.input.add(packets, bytes);
        let all = self.volume(packets, bytes);
        // Bit i: packet i exceeded a band already looked at, whose rate is at least as high.
        let mut exceeded = 0u64;
        for &i in &self.by_rate {
            let band = &self.bands[usize::from(i)];
            let fresh = self.draw(band, lens, all) & !exceeded;
            if fresh != 0 {
                exceeded |= fresh;
                let bytes =
                    lens.iter().enumerate().filter(|(p, _)| fresh >> p & 1 != 0).map(|(_, &len)| u64::from(len)).sum();
                band.dropped.add(fresh.count_ones().into(), bytes);
            }
        }
        for (i, dropped) in dropped.iter_mut().enumerate() {
            *dropped |= exceeded >> i & 1 != 0;
        }
        exceeded.count_ones() as usize
    }

    /// Takes what it can out of the band's bucket; returns the packets that found too little in it.
    fn draw(&self, band: &BandState, lens: &[u32], all: u64) -> u64 {
        let mut level = band.bucket.load(Ordering::Relaxed);
        loop {
            let mut exceeded = 0u64;
            let mut left = level;
            match left.checked_sub(all) {
                Some(rest) => left = rest,
                None => {
                    for (i, &len) in lens.iter().enumerate() {
                        match left.checked_sub(self.volume(1, len.into())) {
                            Some(rest) => left = rest,
                            None => exceeded |= 1 << i,
                        }
                    }
                }
            }
            match band.bucket.compare_exchange_weak(level, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return exceeded,
                Err(seen) => level = seen,
            }
        }
    }
}

const PAGE: usize = 512;
type Page = [Option<Arc<Meter>>; PAGE];

/// All meters by id.
///
/// *Thread-safety.* A value: the control side clones it, changes the clone and publishes that in a
/// [`Snapshot`](crate::sync::snapshot::Snapshot). A clone shares the meters (and so their buckets and counts) and copies pages of 512
/// ids only where it is changed.
#[derive(Clone, Debug, Default)]
pub struct MeterTable {
    pages: Vec<Option<Arc<Page>>>,
}

impl MeterTable {
    /// No meters.
    pub fn new() -> Self {
        MeterTable::default()
    }

    /// Makes meter `id`, or makes it anew: buckets full, counts zero.
    ///
    /// # Errors
    /// See [`MeterError`]; the table is unchanged then.
    pub fn set(&mut self, id: u32, config: MeterConfig, now: Nanos) -> Result<(), MeterError> {
        if id >= METERS_MAX {
            return Err(MeterError::IdOutOfRange(id));
        }
        let meter = Arc::new(Meter::new(config, now)?);
        let (page, slot) = (id as usize / PAGE, id as usize % PAGE);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page].get_or_insert_with(|| Arc::new([const { None }; PAGE]));
        Arc::make_mut(page)[slot] = Some(meter);
        Ok(())
    }

    /// Meter `id`; packets of a flow whose meter is missing pass.
    #[inline]
    pub fn get(&self, id: u32) -> Option<&Arc<Meter>> {
        self.pages.get(id as usize / PAGE)?.as_ref()?[id as usize % PAGE].as_ref()
    }

    /// Removes meter `id` and returns it, for its last counts.
    pub fn del(&mut self, id: u32) -> Option<Arc<Meter>> {
        self.get(id)?;
        let page = self.pages.get_mut(id as usize / PAGE)?.as_mut()?;
        Arc::make_mut(page)[id as usize % PAGE].take()
    }

    /// All meters, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<Meter>)> {
        let pages = self.pages.iter().enumerate().filter_map(|(i, page)| Some((i, page.as_ref()?)));
        pages.flat_map(|(i, page)| {
            page.iter().enumerate().filter_map(move |(j, meter)| Some(((i * PAGE + j) as u32, meter.as_ref()?)))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

#[cfg(all(test, loom))]
mod races;
#[cfg(all(test, not(loom)))]
mod tests;
