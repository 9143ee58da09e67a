//! `wye run`: a bridge over real interfaces, until it is told to stop.

mod control;
mod overlay;
pub mod switch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wye::gateway::config::{FILE_LEN_MAX, GatewayConfig};

use crate::Outcome;
use crate::answer::{Ports, Stats, Total};
use crate::flowfile::{FORMAT, FlowFile};
use control::Control;
use switch::Switch;

/// Arguments of `wye run`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = FORMAT)]
pub struct Args {
    /// The configuration (TOML).
    #[arg(required_unless_present = "sample_config")]
    config: Option<PathBuf>,
    /// Only check the configuration; open nothing.
    #[arg(long)]
    check: bool,
    /// Print the summary at the end as one JSON object.
    #[arg(long)]
    json: bool,
    /// Print a configuration that shows and explains every setting, and do nothing else.
    #[arg(long, exclusive = true)]
    sample_config: bool,
}

/// What `--sample-config` prints.
const SAMPLE: &str = include_str!("sample.toml");

/// How often the control side works: upkeep, and whether it is time to stop.
const TICK: Duration = Duration::from_millis(50);

/// Runs a switch.
pub fn run(args: Args) -> Outcome {
    let Some(path) = args.config.as_deref() else {
        std::io::stdout().write_all(SAMPLE.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    let config = read(path)?;
    // Of all that `Switch::start` asks of the machine, this is known without opening anything.
    switch::try_cores(&config.workers.cores).map_err(|e| format!("{}: workers: cores: {e}", path.display()))?;
    let flows = config.flows.as_deref().map(FlowFile::read).transpose();
    let flows = flows.map_err(|e| format!("{}: flows: {e}", path.display()))?;
    if let Some(flows) = &flows {
        flows.check(&config.ports.iter().map(|port| port.number).collect())?;
    }
    if args.check {
        let (ports, workers) = (config.ports.len(), config.workers.count);
        writeln!(std::io::stdout(), "{}: {ports} ports, {workers} workers", path.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything exists that a signal should clean up. A second signal does not wait for the clean stop.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let path = config.control.clone();
    let control = path.map(|path| Control::bind(&path).map_err(|e| format!("{}: {e}", path.display()))).transpose()?;
    let switch = Switch::start(config, flows.as_ref())?;
    if let Some(control) = &control {
        control.serve(switch.view())?;
    }
    eprintln!("wye: running");
    let failure = loop {
        std::thread::sleep(TICK);
        switch.upkeep();
        if let Some(failure) = switch.failure() {
            break Some(failure);
        }
        if stop.load(Ordering::Relaxed) || switch.is_exhausted() {
            break None;
        }
    };
    // The socket goes first: who still asks gets no answer rather than half of one.
    drop(control);
    let view = switch.stop();
    let (stats, ports) = (Stats::of(&view), Ports::of(&view));
    let summary = if args.json {
        serde_json::to_string(&Total { stats, ports })? + "\n"
    } else {
        format!("{}\n{}", stats.table(), ports.table())
    };
    let printed = std::io::stdout().write_all(summary.as_bytes());
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(printed.map(|()| ExitCode::SUCCESS)?),
    }
}

fn read(path: &Path) -> Result<GatewayConfig, Box<dyn std::error::Error>> {
    use std::io::Read;
    let name = path.display().to_string();
    let cannot = |e| format!("{name}: cannot read: {e}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(format!("{name}: longer than {FILE_LEN_MAX} bytes").into());
    }
    Ok(GatewayConfig::parse(&name, &text)?)
}
