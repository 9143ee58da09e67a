//! What a replay says at its end.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use wye::flow::text::{PortNames, format_flow};

use super::Args;
use super::output::Port;
use crate::flowfile::Loaded;
use crate::report::{Drops, Fates, Tiers, check, drops, drops_in_words, grouped, rate};

#[derive(Serialize)]
struct Summary {
    packets_in: u64,
    bytes_in: u64,
    fates: Fates,
    drops: Drops,
    tiers: Tiers,
    /// Packets of the trace that are longer than any packet may be; they did not come in.
    too_long: u64,
    copies: u64,
    flows: Vec<Flow>,
    ports: Vec<Sent>,
    seconds: f64,
    packets_per_second: f64,
}

#[derive(Serialize)]
struct Flow {
    line: usize,
    packets: u64,
    bytes: u64,
    flow: String,
}

#[derive(Serialize)]
struct Sent {
    port: u32,
    packets: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Prints it.
pub fn print(
    args: &Args,
    loaded: &Loaded,
    ports: &BTreeMap<u32, Port>,
    too_long: u64,
    carried: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let stats = loaded.datapath.stats();
    check(&stats)?;
    let mut flows: Vec<Flow> = loaded
        .datapath
        .flow_dump()
        .into_iter()
        .map(|flow| Flow {
            line: loaded.lines.get(&flow.number).copied().unwrap_or(0),
            packets: flow.stats.packets,
            bytes: flow.stats.bytes,
            flow: format_flow(&flow.key, &flow.mask, &flow.actions, &PortNames::NONE),
        })
        .collect();
    flows.sort_by_key(|flow| flow.line);
    let seconds = carried.as_secs_f64();
    let summary = Summary {
        packets_in: stats.packets_in,
        bytes_in: stats.bytes_in,
        fates: Fates::of(&stats),
        drops: drops(&stats),
        tiers: Tiers::of(&stats),
        too_long,
        copies: stats.copies,
        flows,
        ports: ports
            .iter()
            .map(|(number, port)| Sent {
                port: *number,
                packets: port.packets,
                bytes: port.bytes,
                file: port.file.as_ref().map(|file| file.display().to_string()),
            })
            .collect(),
        seconds,
        packets_per_second: if seconds > 0.0 { stats.packets_in as f64 / seconds } else { 0.0 },
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    } else {
        in_words(&mut out, args, &summary)?;
    }
    Ok(())
}

fn in_words(out: &mut impl Write, args: &Args, summary: &Summary) -> std::io::Result<()> {
    let times = if args.repeat > 1 { format!(", {} times", grouped(args.repeat.into())) } else { String::new() };
    writeln!(out, "{} packets came in ({}{times})", grouped(summary.packets_in), args.trace.display())?;
    for (name, n) in summary.fates.named().into_iter().filter(|(_, n)| *n > 0) {
        writeln!(out, "  {name:12} {:>14}", grouped(n))?;
    }
    for line in drops_in_words(&summary.drops, 72) {
        writeln!(out, "    dropped:  {line}")?;
    }
    if summary.too_long > 0 {
        writeln!(out, "  {} more are longer than 65,535 bytes and did not", grouped(summary.too_long))?;
    }
    writeln!(out, "\n  line        packets           bytes  flow")?;
    for flow in &summary.flows {
        writeln!(out, "{:6} {:>14} {:>15}  {}", flow.line, grouped(flow.packets), grouped(flow.bytes), flow.flow)?;
    }
    writeln!(out, "\n  port        packets           bytes")?;
    for port in &summary.ports {
        let file = port.file.as_deref().unwrap_or_default();
        let line = format!("{:6} {:>14} {:>15}  {file}", port.port, grouped(port.packets), grouped(port.bytes));
        writeln!(out, "{}", line.trim_end())?;
    }
    if summary.ports.is_empty() {
        writeln!(out, "     nothing was sent")?;
    }
    let shares = summary.tiers.shares().map(|(name, share)| format!("{name} {share:.1} %"));
    // Few packets say nothing about speed.
    let speed = if summary.packets_in < 1000 {
        String::new()
    } else {
        format!("; {} in the worker", rate(summary.packets_per_second))
    };
    writeln!(out, "\n{}{speed}", shares.join(" · "))
}
