//! A meter, one packet at a time.

use crate::meter::{MeterConfig, MeterCount, MeterStats, MeterUnit};
use crate::time::Nanos;

/// Token buckets that start full.
#[derive(Clone, Debug)]
pub struct Meter {
    config: MeterConfig,
    /// Per band, in bits or thousandths of a packet.
    buckets: Vec<u64>,
    refilled_ms: u64,
    stats: MeterStats,
}

impl Meter {
    /// A meter made at `now`.
    pub fn new(config: MeterConfig, now: Nanos) -> Meter {
        let bands = config.bands.len();
        let mut meter =
            Meter { config, buckets: Vec::new(), refilled_ms: now.as_millis(), stats: MeterStats::default() };
        meter.buckets = (0..bands).map(|band| meter.capacity(band)).collect();
        meter.stats.bands = vec![MeterCount::default(); bands];
        meter
    }

    /// What it counted.
    pub fn stats(&self) -> &MeterStats {
        &self.stats
    }

    fn capacity(&self, band: usize) -> u64 {
        let band = &self.config.bands[band];
        u64::from(if band.burst == 0 { band.rate } else { band.burst }) * 1000
    }

    /// Counts a packet; true if it is too much. Of the bands that it exceeds, the one with the highest rate counts it, of equal ones the
    /// first.
    pub fn exceeds(&mut self, now: Nanos, len: u64) -> bool {
        let gained_ms = now.as_millis().saturating_sub(self.refilled_ms);
        self.refilled_ms += gained_ms;
        count(&mut self.stats.input, len);
        let volume = match self.config.unit {
            MeterUnit::Kbps => len * 8,
            MeterUnit::PacketsPerSecond => 1000,
        };
        let mut exceeded: Option<usize> = None;
        for band in 0..self.buckets.len() {
            let rate = |band: usize| self.config.bands[band].rate;
            let level = (self.buckets[band] + u64::from(rate(band)) * gained_ms).min(self.capacity(band));
            self.buckets[band] = level;
            if level >= volume {
                self.buckets[band] -= volume;
            } else if exceeded.is_none_or(|other| rate(other) < rate(band)) {
                exceeded = Some(band);
            }
        }
        if let Some(band) = exceeded {
            count(&mut self.stats.bands[band], len);
        }
        exceeded.is_some()
    }
}

fn count(to: &mut MeterCount, len: u64) {
    to.packets += 1;
    to.bytes += len;
}
