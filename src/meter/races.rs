//! Every interleaving of small scenes, by the loom model checker: `make loom`.

use loom::thread;

use super::{Band, Meter, MeterConfig, MeterUnit};
use crate::sync::primitive::Arc;
use crate::time::Nanos;

fn meter(burst: u32) -> Arc<Meter> {
    let config = MeterConfig { unit: MeterUnit::PacketsPerSecond, bands: vec![Band { rate: 1000, burst }] };
    Arc::new(Meter::new(config, Nanos(0)).unwrap())
}

/// Polices two packets and says how many went through.
fn police_two(meter: &Meter, now: Nanos) -> u64 {
    let mut dropped = [false; 2];
    2 - meter.police(now, &[60; 2], &mut dropped) as u64
}

/// Unproven: more than two workers, more than one band.
#[test]
fn two_workers_share_what_the_bucket_holds() {
    loom::model(|| {
        let meter = meter(3);
        let theirs = meter.clone();
        let t = thread::spawn(move || police_two(&theirs, Nanos(0)));
        let through = police_two(&meter, Nanos(0)) + t.join().unwrap();
        let stats = meter.stats();
        assert_eq!(through, 3);
        assert_eq!((stats.input.packets, stats.bands[0].packets), (4, 1));
    });
}

/// Unproven: that the refill comes before the draw of a worker that saw the time move, which nobody promises.
#[test]
fn an_interval_refills_the_bucket_once() {
    loom::model(|| {
        let meter = meter(2);
        // Empty, one millisecond from a further packet.
        assert_eq!(police_two(&meter, Nanos(0)), 2);
        let theirs = meter.clone();
        let now = Nanos::from_millis(1);
        let t = thread::spawn(move || police_two(&theirs, now));
        let through = police_two(&meter, now) + t.join().unwrap();
        assert!(through <= 1, "one millisecond let {through} packets through");
        assert_eq!(through + police_two(&meter, now), 1);
    });
}
