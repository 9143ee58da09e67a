//! `wye replay`: a trace against a file of flows, and what came out at each port.
//!
//! Everything is written into a folder beside the one that was asked for, which takes its place at the end: an error leaves nothing.

mod output;
mod summary;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use wye::packet::{Fate, Packet};
use wye::port::trace::{TracePacket, load_trace};

use crate::flowfile::{FORMAT, FlowFile, START};
use output::Folder;

/// Packets in a burst.
const BURST: usize = 32;
/// Packets of one burst lie within so much time, which is the resolution of meters and of recorded times.
const BURST_NS: u64 = 1_000_000;

/// Arguments of `wye replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub struct Args {
    /// The trace to play (pcap or pcapng).
    trace: PathBuf,
    /// The flows to install.
    #[arg(long, value_name = "FILE")]
    flows: PathBuf,
    /// The folder to write into, one 'port-N.pcap' per port that was sent to and 'drops.txt'; it must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The port that packets come in on. Those of a pcapng file's further interfaces come in on the ports behind it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..65_536))]
    in_port: u32,
    /// Play the trace so many times. Only what the first time sends and drops is written.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Print one JSON object instead of a summary.
    #[arg(long)]
    json: bool,
}

/// Runs it.
///
/// # Errors
/// A file that cannot be read or is not what it should be, a folder that cannot be written.
pub fn run(args: Args) -> crate::Outcome {
    let flows = FlowFile::read(&args.flows)?;
    let trace = load_trace(&args.trace)?;
    let interfaces = trace.packets.iter().map(|p| p.interface).max().unwrap_or(0);
    let in_ports: Vec<u32> = (0..=interfaces).map(|i| args.in_port.saturating_add(i)).collect();
    let loaded = flows.load(&in_ports, &args.trace.display().to_string())?;
    if let Some(at) = trace.truncated_at {
        eprintln!("wye: {}: ends inside the record at byte {at}, which is left out", args.trace.display());
    }
    let trace = trace.packets;
    // Whoever is interrupted leaves nothing either. A second signal does not wait for that.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut folder = Folder::new(args.out.as_deref())?;
    let datapath = loaded.datapath.clone();
    let mut worker = datapath.worker()?;
    let pool = Arc::clone(datapath.pool());
    let progress = progress(trace.len() as u64 * u64::from(args.repeat), !args.json);
    let begin = trace.first().map_or(0, |p| p.timestamp_ns);
    // Each time begins where the one before ended, so that meters see time go on.
    let lasts = trace.iter().map(|p| p.timestamp_ns.saturating_sub(begin)).max().unwrap_or(0).saturating_add(BURST_NS);
    let mut too_long = 0u64;
    let mut carried = std::time::Duration::ZERO;
    for round in 0..args.repeat {
        folder.record(round == 0);
        let mut at = 0;
        while at < trace.len() {
            if stop.load(Ordering::Relaxed) {
                return Err("interrupted; nothing was written".into());
            }
            let n = burst(&trace[at..]);
            let stamp = trace[at].timestamp_ns;
            let mut packets: Vec<Packet> = Vec::with_capacity(n);
            let mut numbers = Vec::with_capacity(n);
            for (i, from) in trace[at..at + n].iter().enumerate() {
                match pool.packet(&from.data) {
                    Some(mut packet) => {
                        packet.in_port = in_ports[from.interface as usize];
                        packets.push(packet);
                        numbers.push(at + i + 1);
                    }
                    None => {
                        too_long += 1;
                        folder.drop(at + i + 1, "longer than 65535 bytes")?;
                    }
                }
            }
            folder.time(stamp);
            let now = START + lasts.saturating_mul(round.into()).saturating_add(stamp.saturating_sub(begin));
            let clock = Instant::now();
            worker.process(&mut packets, now, &mut folder);
            carried += clock.elapsed();
            for (fate, number) in worker.fates().iter().zip(&numbers) {
                if let Fate::Dropped(reason) = fate {
                    folder.drop(*number, reason.name())?;
                }
            }
            worker.free(&mut packets, |_| {});
            // Nobody listens to upcalls here: they are counted and let go.
            while let Some(mut upcall) = datapath.upcall_pop() {
                datapath.free(&mut upcall.packet);
            }
            folder.check()?;
            at += n;
            progress.inc(n as u64);
        }
    }
    progress.finish_and_clear();
    drop(worker);
    let ports = folder.finish()?;
    summary::print(&args, &loaded, &ports, too_long, carried)?;
    Ok(ExitCode::SUCCESS)
}

/// How many packets from the front of `trace` make a burst.
fn burst(trace: &[TracePacket]) -> usize {
    let from = trace[0].timestamp_ns;
    trace.iter().take(BURST).take_while(|p| p.timestamp_ns.abs_diff(from) < BURST_NS).count()
}

fn progress(packets: u64, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} packets, {per_sec}, {eta} left");
    ProgressBar::new(packets).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
