//! `wye explain`: one packet against a file of flows, and why it ends as it does.
//!
//! The packet goes through the worker that `wye replay` uses; [`wye::datapath::explain`] watches it, and here is put into words what
//! it saw.

mod words;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use wye::datapath::explain::{self as engine, End};
use wye::datapath::observe::Tier;
use wye::flow::text::{PortNames, format_flow};
use wye::packet::Fate;
use wye::port::trace::read_trace;

use crate::flowfile::{FORMAT, FlowFile, Loaded, START};

/// Arguments of `wye explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub struct Args {
    /// A trace (pcap or pcapng), or the packet's bytes in hexadecimal; '-' reads those from standard input.
    packet: String,
    /// The flows to install.
    #[arg(long, value_name = "FILE")]
    flows: PathBuf,
    /// Which packet of the trace, from 1.
    #[arg(long = "packet", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    number: u64,
    /// The port that the packet comes in on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..65_536))]
    in_port: u32,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Explanation {
    bytes: usize,
    hex: String,
    in_port: u32,
    lookups: Vec<Lookup>,
    sent: Vec<Sent>,
    copies: Vec<Copy>,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Lookup {
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<usize>,
    key: String,
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<String>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    depth: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<usize>,
    action: String,
    effect: String,
}

#[derive(Serialize)]
struct Sent {
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<usize>,
    port: u32,
    bytes: usize,
    hex: String,
}

/// What became of a copy.
#[derive(Serialize)]
struct Copy {
    copy: usize,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Runs it.
///
/// # Errors
/// A file that cannot be read or is not what it should be, a packet that is not there.
pub fn run(args: Args) -> crate::Outcome {
    let bytes = packet(&args)?;
    let flows = FlowFile::read(&args.flows)?;
    let loaded = flows.load(&[args.in_port], "--in-port")?;
    let explanation = explain(&loaded, &bytes, args.in_port)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&explanation)?)?;
    } else {
        in_words(&mut out, &args, &explanation)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn packet(args: &Args) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let text = if args.packet == "-" { std::io::read_to_string(std::io::stdin())? } else { args.packet.clone() };
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let is_hex = digits.len() >= 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
    if args.packet == "-" || is_hex && !std::path::Path::new(&args.packet).exists() {
        if digits.is_empty() {
            return Err("the packet: standard input is empty".into());
        }
        if !is_hex || !digits.len().is_multiple_of(2) {
            return Err("the packet: not an even number of hexadecimal digits".into());
        }
        let byte = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16);
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
        if bytes.len() > 65_535 {
            return Err("the packet: longer than 65535 bytes".into());
        }
        return Ok(bytes);
    }
    let trace = read_trace(&args.packet)?;
    let n = trace.len();
    let wanted = usize::try_from(args.number - 1).ok().and_then(|at| trace.into_iter().nth(at));
    let packet = wanted.ok_or_else(|| format!("{}: has {n} packets, not {}", args.packet, args.number))?;
    if packet.data.len() > 65_535 {
        return Err(format!("{}: packet {} is longer than 65535 bytes", args.packet, args.number).into());
    }
    Ok(packet.data)
}

fn explain(loaded: &Loaded, bytes: &[u8], in_port: u32) -> Result<Explanation, Box<dyn std::error::Error>> {
    let mut worker = loaded.datapath.worker()?;
    let mut packet = worker.pool().alloc(bytes.len()).ok_or("no buffer for the packet")?;
    packet.data_mut().copy_from_slice(bytes);
    packet.in_port = in_port;
    let engine::Explanation { passes, sent, fate, ends } = engine::explain(&mut worker, &mut packet, START)?;
    let lookups = passes.into_iter().map(|pass| lookup(loaded, &pass)).collect();
    let (fate, reason) = fate_and_reason(fate);
    let sent = sent.iter().map(|engine::Sent { who, port, bytes }| Sent {
        copy: words::copy(*who),
        port: *port,
        bytes: bytes.len(),
        hex: hex(bytes),
    });
    let sent = sent.collect();
    let copies = ends.iter().enumerate().skip(1).map(|(copy, end)| match end {
        End::Sent(port) => Copy { copy, fate: fate_and_reason(Fate::Transmitted).0, port: Some(*port), reason: None },
        End::Fate(fate) => {
            let (fate, reason) = fate_and_reason(*fate);
            Copy { copy, fate, port: None, reason }
        }
    });
    let copies = copies.collect();
    Ok(Explanation { bytes: bytes.len(), hex: hex(bytes), in_port, lookups, sent, copies, fate, reason })
}

fn lookup(loaded: &Loaded, pass: &engine::Pass) -> Lookup {
    let flow = pass.flow.and_then(|number| loaded.datapath.flow_by_number(number));
    Lookup {
        copy: words::copy(pass.who),
        key: words::key(&pass.key),
        tier: match pass.tier {
            Tier::Exact => "exact-match cache",
            Tier::Megaflow => "megaflow table",
            Tier::Miss => "no flow matches",
        },
        line: flow.as_ref().and_then(|flow| loaded.lines.get(&flow.number).copied()),
        flow: flow.map(|flow| format_flow(&flow.key, &flow.mask, &flow.actions, &PortNames::NONE)),
        steps: words::steps(pass),
    }
}

fn fate_and_reason(fate: Fate) -> (&'static str, Option<&'static str>) {
    match fate {
        Fate::Dropped(reason) => ("dropped", Some(reason.name())),
        Fate::Transmitted => ("transmitted", None),
        Fate::Upcall => ("upcall", None),
        Fate::Parked => ("parked", None),
        Fate::Delivered => ("delivered", None),
        Fate::Undecided => ("undecided", None),
    }
}

fn in_words(out: &mut impl Write, args: &Args, explanation: &Explanation) -> std::io::Result<()> {
    writeln!(out, "{} bytes from port {}", explanation.bytes, explanation.in_port)?;
    for (i, lookup) in explanation.lookups.iter().enumerate() {
        let copy = lookup.copy.map_or(String::new(), |copy| format!(", copy {copy}"));
        writeln!(out, "\nlookup {}{copy}: {}", i + 1, lookup.key)?;
        match (&lookup.flow, lookup.line) {
            (Some(flow), Some(line)) => {
                writeln!(out, "  {}: {}:{line}", lookup.tier, args.flows.display())?;
                writeln!(out, "  {flow}")?;
            }
            _ => writeln!(out, "  {}", lookup.tier)?,
        }
        for step in &lookup.steps {
            writeln!(out, "  {:width$}- {}: {}", "", step.action, step.effect, width = 2 * step.depth)?;
        }
    }
    writeln!(out)?;
    for sent in &explanation.sent {
        writeln!(out, "sent to port {}: {} bytes: {}", sent.port, sent.bytes, sent.hex)?;
    }
    for Copy { copy, fate, port, reason } in &explanation.copies {
        match (port, reason) {
            (Some(port), _) => writeln!(out, "copy {copy}: {fate} to port {port}")?,
            (_, Some(reason)) => writeln!(out, "copy {copy}: {fate}: {reason}")?,
            _ => writeln!(out, "copy {copy}: {fate}")?,
        }
    }
    match explanation.reason {
        Some(reason) => writeln!(out, "fate: {}: {reason}", explanation.fate),
        None => writeln!(out, "fate: {}", explanation.fate),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
