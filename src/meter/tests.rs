use super::*;
use proptest::prelude::*;

fn meter(unit: MeterUnit, bands: &[(u32, u32)]) -> Meter {
    let bands = bands.iter().map(|&(rate, burst)| Band { rate, burst }).collect();
    Meter::new(MeterConfig { unit, bands }, Nanos(0)).unwrap()
}

fn police(meter: &Meter, now_ms: u64, lens: &[u32]) -> Vec<bool> {
    let mut dropped = vec![false; lens.len()];
    let n = meter.police(Nanos::from_millis(now_ms), lens, &mut dropped);
    assert_eq!(n, dropped.iter().filter(|d| **d).count());
    dropped
}

#[test]
fn bucket_starts_full_and_refills_by_the_millisecond() {
    // 1000 packets/s, bucket of 5: one packet per millisecond.
    let m = meter(MeterUnit::PacketsPerSecond, &[(1000, 5)]);
    assert_eq!(police(&m, 0, &[64; 7]), [false, false, false, false, false, true, true]);
    assert_eq!(m.police(Nanos(999_999), &[64], &mut [false]), 1);
    assert_eq!(police(&m, 1, &[64; 2]), [false, true]);
    assert_eq!(police(&m, 1_000_000, &[64; 6]).iter().filter(|d| **d).count(), 1);
    assert_eq!(m.stats().bands, [MeterCount { packets: 5, bytes: 320 }]);
    assert_eq!(m.stats().input, MeterCount { packets: 16, bytes: 1024 });
}

#[test]
fn burst_of_zero_is_one_second_of_the_rate() {
    let m = meter(MeterUnit::PacketsPerSecond, &[(3, 0)]);
    assert_eq!(police(&m, 0, &[64; 4]), [false, false, false, true]);
    // 8 kbit/s: 1000 bytes.
    let m = meter(MeterUnit::Kbps, &[(8, 0)]);
    assert_eq!(police(&m, 0, &[600, 600, 400, 1]), [false, true, false, true]);
}

#[test]
fn exceeded_band_with_the_highest_rate_counts_the_packet() {
    let m = meter(MeterUnit::PacketsPerSecond, &[(1, 1), (10, 2), (10, 2)]);
    assert_eq!(police(&m, 0, &[100; 4]), [false, true, true, true]);
    let count = |packets| MeterCount { packets, bytes: packets * 100 };
    // The second packet exceeds only the slow band; the others exceed all, and of the equal ones the first counts.
    assert_eq!(m.stats().bands, [count(1), count(2), count(0)]);
}

#[test]
fn meter_without_bands_only_counts() {
    let m = meter(MeterUnit::Kbps, &[]);
    assert_eq!(police(&m, 0, &[1500; 3]), [false; 3]);
    assert_eq!(m.stats().input, MeterCount { packets: 3, bytes: 4500 });
}

#[test]
fn time_that_runs_backwards_refills_nothing() {
    let m = meter(MeterUnit::PacketsPerSecond, &[(1000, 1)]);
    assert_eq!(police(&m, 100, &[64; 2]), [false, true]);
    assert_eq!(police(&m, 50, &[64]), [true]);
    assert_eq!(police(&m, 101, &[64]), [false]);
}

#[test]
fn groups_beyond_a_part_are_policed_to_the_end() {
    let m = meter(MeterUnit::PacketsPerSecond, &[(1, 100)]);
    let dropped = police(&m, 0, &[64; 256]);
    assert!(dropped.iter().enumerate().all(|(i, d)| *d == (i >= 100)));
}

#[test]
fn verdicts_of_workers_together_keep_the_rate() {
    let m = Arc::new(meter(MeterUnit::PacketsPerSecond, &[(1000, 1000)]));
    let passed = AtomicU64::new(0);
    // 10,000 packets in 100 ms by four threads: the bucket and 100 ms of refill pass.
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for ms in 0..100 {
                    let mut dropped = [false; 25];
                    let n = m.police(Nanos::from_millis(ms), &[64; 25], &mut dropped);
                    passed.fetch_add(25 - n as u64, Ordering::Relaxed);
                }
            });
        }
    });
    let passed = passed.load(Ordering::Relaxed);
    assert!((1000..=1099).contains(&passed), "{passed}");
    let stats = m.stats();
    assert_eq!((stats.input.packets, stats.bands[0].packets), (10_000, 10_000 - passed));
}

#[test]
fn table_changes_in_a_clone_and_shares_the_meters() {
    let config = MeterConfig { unit: MeterUnit::Kbps, bands: vec![Band { rate: 1, burst: 0 }] };
    let mut table = MeterTable::new();
    table.set(7, config.clone(), Nanos(0)).unwrap();
    table.set(METERS_MAX - 1, config.clone(), Nanos(0)).unwrap();
    let old = table.clone();
    assert!(table.del(7).is_some());
    assert!(table.del(7).is_none() && table.del(METERS_MAX).is_none() && table.get(u32::MAX).is_none());
    assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), [METERS_MAX - 1]);
    assert_eq!((table.len(), old.len()), (1, 2));
    assert!(Arc::ptr_eq(table.get(METERS_MAX - 1).unwrap(), old.get(METERS_MAX - 1).unwrap()));
    assert_eq!(table.set(METERS_MAX, config.clone(), Nanos(0)), Err(MeterError::IdOutOfRange(METERS_MAX)));
    let too_many = MeterConfig { bands: vec![config.bands[0]; 9], ..config };
    assert_eq!(table.set(1, too_many, Nanos(0)), Err(MeterError::TooManyBands(9)));
    assert!(table.get(1).is_none());
}

/// OVS's rule written plainly: one packet at a time, all bands.
struct Plain {
    unit: MeterUnit,
    bands: Vec<(u64, u64, u64)>,
    last: u64,
}

impl Plain {
    fn refill(&mut self, now: u64) {
        for (rate, capacity, bucket) in &mut self.bands {
            *bucket = (*bucket + *rate * now.saturating_sub(self.last)).min(*capacity);
        }
        self.last = self.last.max(now);
    }

    fn packet(&mut self, len: u32) -> Option<usize> {
        let volume = if self.unit == MeterUnit::Kbps { u64::from(len) * 8 } else { 1000 };
        let mut fired: Option<usize> = None;
        for i in 0..self.bands.len() {
            if self.bands[i].2 >= volume {
                self.bands[i].2 -= volume;
            } else if fired.is_none_or(|f| self.bands[i].0 > self.bands[f].0) {
                fired = Some(i);
            }
        }
        fired
    }
}

proptest! {
    #[test]
    fn police_agrees_with_the_plain_rule(
        pps in any::<bool>(),
        bands in proptest::collection::vec((0u32..2000, 0u32..30), 0..=BANDS_MAX),
        groups in proptest::collection::vec((0u64..20, proptest::collection::vec(60u32..1600, 0..80)), 0..20),
    ) {
        let unit = if pps { MeterUnit::PacketsPerSecond } else { MeterUnit::Kbps };
        let m = meter(unit, &bands);
        let full = |&(rate, burst): &(u32, u32)| u64::from(if burst == 0 { rate } else { burst }) * 1000;
        let plain = bands.iter().map(|b| (u64::from(b.0), full(b), full(b))).collect();
        let mut plain = Plain { unit, bands: plain, last: 0 };
        let mut counts = vec![MeterCount::default(); bands.len()];
        let mut now = 0;
        for (step, lens) in groups {
            now += step;
            plain.refill(now);
            let dropped = police(&m, now, &lens);
            for (&len, dropped) in lens.iter().zip(dropped) {
                let fired = plain.packet(len);
                prop_assert_eq!(dropped, fired.is_some());
                if let Some(band) = fired {
                    counts[band].packets += 1;
                    counts[band].bytes += u64::from(len);
                }
            }
        }
        prop_assert_eq!(m.stats().bands, counts);
    }
}
