//! The clock around a case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use wye::datapath::{Sink, Worker};
use wye::packet::{DropReason, Packet, Pool};
use wye::port::TxBurst;
use wye::time::Nanos;
use wye::wire::simd::timestamp;

use super::trace::Trace;

/// The frequency of the time stamp counter to which cycle figures are converted.
pub const REFERENCE_GHZ: f64 = 2.6;
/// Packets in a burst.
pub const BURST: usize = 32;
/// Buffers that the bursts go through, as many as a small receive ring.
const BUFFERS: usize = 512;

/// One case's result.
#[derive(Serialize)]
pub struct Figure {
    /// Its name.
    pub case: String,
    /// Cycles of a 2.6 GHz time stamp counter.
    pub tsc_cycles_per_packet: f64,
    /// Nanoseconds.
    pub ns_per_packet: f64,
    /// Million packets a second.
    pub mpps: f64,
    /// The core's real clock during the measurement.
    pub core_ghz: f64,
    /// Distance of the best three windows, percent of their median.
    pub spread_pct: f64,
}

/// Takes everything and keeps nothing.
struct Taking;

impl Sink for Taking {
    #[inline]
    fn transmit(&mut self, _port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        (burst.len(), DropReason::TxFull)
    }

    fn shares(&self) -> bool {
        true
    }
}

/// The frequency of the time stamp counter, GHz.
pub fn tsc_ghz() -> f64 {
    static GHZ: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    *GHZ.get_or_init(|| {
        let (start, from) = (Instant::now(), timestamp());
        while start.elapsed() < Duration::from_millis(40) {
            std::hint::spin_loop();
        }
        (timestamp() - from) as f64 / start.elapsed().as_nanos() as f64
    })
}

/// The core's clock, GHz: how long a chain of dependent additions takes.
fn core_ghz() -> f64 {
    const STEPS: u64 = 200_000;
    let mut best = 0f64;
    for _ in 0..3 {
        let from = timestamp();
        let mut x = std::hint::black_box(1u64);
        for _ in 0..STEPS / 8 {
            // Each step waits for the one before: a rotate takes one cycle.
            for _ in 0..8 {
                x = std::hint::black_box(x.rotate_left(1));
            }
        }
        std::hint::black_box(x);
        let ns = (timestamp() - from) as f64 / tsc_ghz();
        best = best.max(STEPS as f64 / ns);
    }
    best
}

/// Puts a trace into buffers as a NIC would: at the headroom, with the sender's bytes, in a ring of buffers.
struct Receiver<'t> {
    trace: &'t Trace,
    pool: Arc<Pool>,
    buffers: Vec<Packet>,
    at: usize,
    ring: usize,
    now: u64,
}

impl<'t> Receiver<'t> {
    fn new(trace: &'t Trace) -> Self {
        let pool = Pool::new(BUFFERS as u32, 2304, 128).expect("a pool for the bench");
        let buffers = (0..BUFFERS).filter_map(|_| pool.alloc(64)).collect();
        Receiver { trace, pool, buffers, at: 0, ring: 0, now: 1 }
    }

    fn bursts_in_a_pass(&self) -> usize {
        self.trace.count().div_ceil(BURST).max(4096 / BURST)
    }

    /// The next burst, and when it came.
    fn next(&mut self) -> (&mut [Packet], Nanos) {
        let burst = &mut self.buffers[self.ring..self.ring + BURST];
        for packet in burst.iter_mut() {
            self.pool.free(packet);
            let frame = self.trace.frame(self.at);
            let mut fresh = self.pool.alloc(frame.len()).expect("its own buffer is free");
            fresh.data_mut().copy_from_slice(frame);
            fresh.in_port = 1;
            *packet = fresh;
            self.at += 1;
            if self.at == self.trace.count() {
                self.at = 0;
            }
        }
        self.now += 1000;
        self.ring = (self.ring + BURST) % BUFFERS;
        (burst, Nanos(self.now))
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.buffers.iter_mut().for_each(|p| self.pool.free(p));
    }
}

/// Carries `packets` packets through `worker` after one pass over the trace, without a clock: a tool that counts instructions looks
/// at [`counted`] alone.
pub fn carry(worker: &mut Worker, trace: &Trace, packets: u64) {
    let mut receiver = Receiver::new(trace);
    let mut sink = Taking;
    for _ in 0..receiver.bursts_in_a_pass() {
        let (burst, now) = receiver.next();
        worker.process(burst, now, &mut sink);
    }
    for _ in 0..packets.div_ceil(BURST as u64) {
        let (burst, now) = receiver.next();
        counted(worker, burst, now, &mut sink);
    }
}

/// What `callgrind --toggle-collect=*bench::measure::counted*` counts.
#[inline(never)]
fn counted(worker: &mut Worker, burst: &mut [Packet], now: Nanos, sink: &mut Taking) {
    worker.process(burst, now, sink);
}

/// Runs `trace` through `worker` for at most `limit` and returns the figure of the best windows.
pub fn run(case: &str, worker: &mut Worker, trace: &Trace, limit: Duration) -> Figure {
    let mut sink = Taking;
    let overhead =
        (0..1000).map(|_| timestamp()).collect::<Vec<_>>().windows(2).map(|w| w[1] - w[0]).min().unwrap_or(0);
    let mut receiver = Receiver::new(trace);
    let mut windows: Vec<f64> = Vec::new();
    let mut bursts: Vec<u32> = Vec::new();
    let started = Instant::now();
    // The first pass over the trace fills tables and caches, and is not counted.
    for _ in 0..receiver.bursts_in_a_pass() {
        let (burst, now) = receiver.next();
        worker.process(burst, now, &mut sink);
    }
    loop {
        bursts.clear();
        let window = Instant::now();
        while window.elapsed() < Duration::from_millis(40) {
            for _ in 0..16 {
                let (burst, now) = receiver.next();
                let from = timestamp();
                worker.process(burst, now, &mut sink);
                bursts.push((timestamp() - from).saturating_sub(overhead) as u32);
            }
        }
        windows.push(trimmed_mean(&mut bursts) / BURST as f64 / tsc_ghz());
        windows.sort_by(f64::total_cmp);
        let spread = |w: &[f64]| if w.len() < 3 { f64::MAX } else { (w[2] - w[0]) / w[1] * 100.0 };
        if spread(&windows) <= 4.0 && windows.len() >= 4 || started.elapsed() > limit {
            let ns = windows[windows.len().min(2) - 1];
            return Figure {
                case: case.to_owned(),
                tsc_cycles_per_packet: round(ns * REFERENCE_GHZ),
                ns_per_packet: round(ns),
                mpps: round(1e3 / ns),
                core_ghz: round(core_ghz()),
                spread_pct: if windows.len() < 3 { 0.0 } else { round(spread(&windows)) },
            };
        }
    }
}

/// The mean without the slowest 2 %: those are bursts in which the core was taken away.
fn trimmed_mean(bursts: &mut [u32]) -> f64 {
    let keep = (bursts.len() * 98).div_ceil(100).max(1);
    bursts.select_nth_unstable(keep - 1);
    bursts[..keep].iter().map(|&c| f64::from(c)).sum::<f64>() / keep as f64
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}
