//! `wye demo`: two sites in one process, without root and without interfaces.
//!
//! ```text
//!   people ─ lan ─┐                                   ┌─ lan ─ people
//!                 ├─ site a: datapath ─ cable ─ site b┤
//!         servers ┘   bridge, gateway                 └ servers
//! ```
//!
//! Each site is a whole switch on a thread of its own, with a learning bridge and a small routing gateway as its upcall handler. What
//! people send is drawn from a table of frames of many kinds, some of which must be dropped, each for a reason that is
//! counted. A packet that crosses the cable comes in twice, once at each site.

mod policy;
mod site;
mod timing;
mod traffic;
mod view;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use wye::datapath::{Datapath, Stats, observe::Stage};
use wye::gateway::Bridge;

use crate::bench::measure::tsc_ghz;
use crate::report::{self, Drops, Fates, Tiers, grouped, rate};
use site::{Site, Stop, Told};
use view::{Reading, Screen};

/// Arguments of `wye demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show nothing while it runs, and print one JSON object at the end.
    #[arg(long)]
    json: bool,
    /// How long it runs.
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = seconds, allow_negative_numbers = true)]
    seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.1..=86_400.0).contains(&n) => Ok(n),
        _ => Err("expected a number of seconds from 0.1 to 86400".to_owned()),
    }
}

/// The picture is drawn so often.
const FRAME_TIME: Duration = Duration::from_millis(200);
/// Where there is no terminal, a line is printed so often.
const LINE_TIME: Duration = Duration::from_secs(1);

/// What the drawing thread keeps of a site.
struct Watched {
    name: &'static str,
    datapath: Datapath,
    bridge: Arc<Bridge>,
    told: Arc<Told>,
    /// Packets in, lately.
    lately: VecDeque<(Instant, u64)>,
}

impl Watched {
    fn of(site: &Site) -> Self {
        Watched {
            name: site.name,
            datapath: site.datapath.clone(),
            bridge: Arc::clone(&site.bridge),
            told: Arc::clone(&site.told),
            lately: VecDeque::from([(Instant::now(), 0)]),
        }
    }

    fn read(&mut self) -> Reading {
        let (now, stats) = (Instant::now(), self.datapath.stats());
        self.lately.push_back((now, stats.packets_in));
        // A second's worth, and at least the two last.
        while self.lately.len() > 2 && now - self.lately[1].0 >= Duration::from_secs(1) {
            self.lately.pop_front();
        }
        let (then, packets) = self.lately[0];
        let elapsed = (now - then).as_secs_f64();
        Reading {
            name: self.name,
            stats,
            rate: if elapsed > 0.0 { (stats.packets_in - packets) as f64 / elapsed } else { 0.0 },
            flows: (self.datapath.flow_count(), self.datapath.mask_count()),
            stations: self.bridge.stats().learned as usize,
            from_cable: self.told.from_cable.load(Ordering::Relaxed),
            stages_ns: self.told.stages.per_packet().map(|ticks| ticks.map(|t| t / tsc_ghz())),
        }
    }

    /// Buffers that have not come back, once the site's thread has ended.
    fn missing_buffers(&self) -> usize {
        self.datapath.pool().capacity() - self.datapath.pool().available()
    }
}

/// Runs it.
///
/// # Errors
/// No memory for the sites; standard output is closed; a packet has no fate or a buffer did not come back.
pub fn run(args: Args) -> crate::Outcome {
    let sites = site::two_sites()?;
    let mut watched: Vec<Watched> = sites.iter().map(Watched::of).collect();
    let stop = Stop::not_yet();
    let is_interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&is_interrupted))?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&is_interrupted))?;
    let began = Instant::now();
    let watching = std::thread::scope(|scope| {
        for site in sites {
            scope.spawn(|| site.run(&stop));
        }
        let watching = watch(&args, &mut watched, began, &stop, &is_interrupted);
        stop.quiet.store(true, Ordering::Release);
        watching
    });
    watching?;
    let elapsed = began.elapsed().as_secs_f64();
    let last: Vec<Reading> = watched.iter_mut().map(Watched::read).collect();
    finish(&args, elapsed, &last, watched.iter().map(Watched::missing_buffers).sum())
}

/// Draws, and keeps the datapaths' house in order, until the time is over.
fn watch(
    args: &Args,
    sites: &mut [Watched],
    began: Instant,
    stop: &Stop,
    is_interrupted: &AtomicBool,
) -> std::io::Result<()> {
    let out = std::io::stdout();
    let is_terminal = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let mut screen = (!args.json && is_terminal).then(|| Screen::new(out.lock()));
    let mut line_at = began + LINE_TIME;
    loop {
        let elapsed = began.elapsed().as_secs_f64();
        let left = args.seconds - elapsed;
        if left <= 0.0 || is_interrupted.load(Ordering::Relaxed) {
            break;
        }
        if let Some(screen) = &mut screen {
            let readings: Vec<Reading> = sites.iter_mut().map(Watched::read).collect();
            screen.draw(elapsed / args.seconds, args.seconds, &readings)?;
        } else if !args.json && Instant::now() >= line_at {
            line_at += LINE_TIME;
            let readings: Vec<Reading> = sites.iter_mut().map(Watched::read).collect();
            writeln!(std::io::stdout(), "{}", view::line(elapsed, &readings))?;
        }
        sites.iter().for_each(|site| site.bridge.upkeep(stop.now()));
        std::thread::sleep(FRAME_TIME.min(Duration::from_secs_f64(left)));
    }
    screen.as_mut().map_or(Ok(()), Screen::clear)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    seconds: f64,
    packets_in: u64,
    fates: Fates,
    drops: Drops,
    tiers: Tiers,
    sites: Vec<SiteReport>,
}

#[derive(Serialize)]
struct SiteReport {
    name: &'static str,
    packets_in: u64,
    from_cable: u64,
    fates: Fates,
    drops: Drops,
    tiers: Tiers,
    flows: u32,
    stages_ns_per_packet: std::collections::BTreeMap<&'static str, f64>,
}

impl SiteReport {
    fn of(reading: &Reading) -> Self {
        let stats = &reading.stats;
        let stages = reading.stages_ns.unwrap_or_default();
        SiteReport {
            name: reading.name,
            packets_in: stats.packets_in,
            from_cable: reading.from_cable,
            fates: Fates::of(stats),
            drops: report::drops(stats),
            tiers: Tiers::of(stats),
            flows: reading.flows.0,
            stages_ns_per_packet: Stage::ALL
                .iter()
                .map(|&s| (s.name(), (stages[s as usize] * 10.0).round() / 10.0))
                .collect(),
        }
    }
}

fn finish(args: &Args, elapsed: f64, last: &[Reading], missing_buffers: usize) -> crate::Outcome {
    let all = report::sum(last.iter().map(|r| r.stats));
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = Report {
            seconds: (elapsed * 1000.0).round() / 1000.0,
            packets_in: all.packets_in,
            fates: Fates::of(&all),
            drops: report::drops(&all),
            tiers: Tiers::of(&all),
            sites: last.iter().map(SiteReport::of).collect(),
        };
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        let mean: Vec<Reading> =
            last.iter().map(|r| Reading { rate: r.stats.packets_in as f64 / elapsed, ..r.clone() }).collect();
        for line in view::table("  on the mean", &mean) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", summary(elapsed, &all))?;
    }
    report::check(&all)?;
    for one in last {
        report::check(&one.stats)?;
    }
    if missing_buffers != 0 {
        return Err(format!("{missing_buffers} packet buffers did not come back: this is a bug").into());
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(elapsed: f64, all: &Stats) -> String {
    let fates = Fates::of(all);
    let named: Vec<String> =
        fates.named().iter().filter(|(_, n)| *n != 0).map(|(name, n)| format!("{} {name}", grouped(*n))).collect();
    format!(
        "In {elapsed:.1} s {} packets came in, {} on the mean.\n\
         {}: every one has its fate.",
        grouped(all.packets_in),
        rate(all.packets_in as f64 / elapsed),
        named.join(" + "),
    )
}
