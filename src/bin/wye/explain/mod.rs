//! `wye explain`: one packet against a file of flows, and why it ends as it does.
//!
//! The packet goes through the worker that `wye replay` uses, watched by an observer that keeps each lookup. What single actions do is then
//! found out by asking the same worker to carry out the list up to each of them on the packet as the lookup saw it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use wye::datapath::observe::{Observer, Tier};
use wye::datapath::{Sink, Worker};
use wye::flow::FlowKey;
use wye::flow::action::Action;
use wye::flow::extract::{ExtractOptions, extract_whole};
use wye::flow::netlink::exact_mask;
use wye::flow::text::{PortNames, format_actions, format_flow, format_key};
use wye::packet::{DropReason, Fate, Packet};
use wye::port::trace::read_trace;
use wye::port::{PortEntry, TxBurst};

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

/// The name of the port on which a step's result is caught. Its number is one that neither a flow nor a bond names.
const CATCH: &str = "catch";

#[derive(Serialize)]
struct Explanation {
    bytes: usize,
    hex: String,
    in_port: u32,
    lookups: Vec<Lookup>,
    sent: Vec<Sent>,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Lookup {
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
    action: String,
    effect: String,
}

#[derive(Serialize)]
struct Sent {
    port: u32,
    bytes: usize,
    hex: String,
}

/// Runs it.
///
/// # Errors
/// A file that cannot be read or is not what it should be, a packet that is not there.
pub fn run(args: Args) -> crate::Outcome {
    let bytes = packet(&args)?;
    let flows = FlowFile::read(&args.flows)?;
    let loaded = flows.load(&[args.in_port]).map_err(|what| format!("{}: {what}", args.flows.display()))?;
    let number = loaded.datapath.ports().free_number(0).ok_or("no port number is left to watch the actions with")?;
    loaded.datapath.port_add(PortEntry { number, name: CATCH.into(), packet_len_max: 65_535, up: true })?;
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

/// A lookup as it happened.
struct Seen {
    packet: Caught,
    key: FlowKey,
    tier: Tier,
    flow: Option<u32>,
}

#[derive(Default)]
struct Watcher(Vec<Seen>);

impl Observer for Watcher {
    fn lookup(&mut self, packet: &Packet, key: &FlowKey, tier: Tier, flow: Option<u32>) {
        self.0.push(Seen { packet: Caught::of(packet), key: *key, tier, flow });
    }
}

/// A packet's bytes and metadata.
struct Caught {
    bytes: Vec<u8>,
    metadata: Packet,
}

impl Caught {
    fn of(packet: &Packet) -> Self {
        let mut metadata = Packet::gone();
        metadata.copy_metadata(packet);
        metadata.ext = 0;
        Caught { bytes: packet.data().to_vec(), metadata }
    }

    /// The key that a lookup would see now.
    fn key(&self, worker: &mut Worker) -> Option<FlowKey> {
        let mut packet = self.packet(worker)?;
        let key = extract_whole(&mut packet, None, ExtractOptions::default()).ok();
        worker.pool().free(&mut packet);
        key
    }

    fn packet(&self, worker: &mut Worker) -> Option<Packet> {
        let mut packet = worker.pool().alloc(self.bytes.len())?;
        packet.data_mut().copy_from_slice(&self.bytes);
        packet.copy_metadata(&self.metadata);
        Some(packet)
    }
}

/// Keeps what is sent.
#[derive(Default)]
struct Net(Vec<(u32, Caught)>);

impl Sink for Net {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        for i in 0..burst.len() {
            self.0.push((port, Caught::of(burst.get(i))));
        }
        (burst.len(), DropReason::TxFull)
    }
}

fn explain(loaded: &Loaded, bytes: &[u8], in_port: u32) -> Result<Explanation, String> {
    let mut worker = loaded.datapath.worker().map_err(|e| e.to_string())?;
    let mut packet = worker.pool().alloc(bytes.len()).ok_or("no buffer for the packet")?;
    packet.data_mut().copy_from_slice(bytes);
    packet.in_port = in_port;
    let (mut net, mut watcher) = (Net::default(), Watcher::default());
    let mut burst = [packet];
    worker.process_observed(&mut burst, START, &mut net, &mut watcher);
    let fate = worker.fates()[0];
    worker.free(&mut burst, |_| {});
    let mut lookups = Vec::new();
    for seen in watcher.0 {
        let flow = seen.flow.and_then(|number| loaded.datapath.flow_by_number(number));
        let mut steps = Vec::new();
        if let Some(flow) = &flow {
            walk(&mut worker, &seen.packet, &flow.actions, &mut Vec::new(), 0, &mut steps);
        }
        lookups.push(Lookup {
            key: key_in_words(&seen.key),
            tier: match seen.tier {
                Tier::Exact => "exact-match cache",
                Tier::Megaflow => "megaflow table",
                Tier::Miss => "no flow matches",
            },
            line: flow.as_ref().and_then(|flow| loaded.lines.get(&flow.number).copied()),
            flow: flow.map(|flow| format_flow(&flow.key, &flow.mask, &flow.actions, &PortNames::NONE)),
            steps,
        });
    }
    let (fate, reason) = match fate {
        Fate::Dropped(reason) => ("dropped", Some(reason.name())),
        Fate::Transmitted => ("transmitted", None),
        Fate::Upcall => ("upcall", None),
        Fate::Parked => ("parked", None),
        Fate::Delivered => ("delivered", None),
        Fate::Undecided => return Err("the packet has no fate: this is a bug".to_owned()),
    };
    let sent = net.0.iter().map(|(port, sent)| Sent { port: *port, bytes: sent.bytes.len(), hex: hex(&sent.bytes) });
    Ok(Explanation { bytes: bytes.len(), hex: hex(bytes), in_port, lookups, sent: sent.collect(), fate, reason })
}

/// Carries out `path` on the packet as it was looked up: what it is then, or why it did not get so far.
fn reach(worker: &mut Worker, from: &Caught, path: &[Action]) -> Result<Caught, &'static str> {
    let Some(catch) = worker.datapath().ports().by_name(CATCH).map(|port| port.number) else { return Err("no port") };
    let Some(packet) = from.packet(worker) else { return Err("no buffer") };
    let mut actions = path.to_vec();
    actions.push(Action::Output(catch));
    let (mut net, mut burst) = (Net::default(), [packet]);
    if worker.execute(&mut burst, &actions, START, &mut net).is_err() {
        return Err("nested too deep");
    }
    let fate = worker.fates()[0];
    worker.free(&mut burst, |_| {});
    match (net.0.pop(), fate) {
        (Some((port, caught)), _) if port == catch => Ok(caught),
        (_, Fate::Dropped(reason)) => Err(reason.name()),
        _ => Err("the packet went elsewhere"),
    }
}

/// Tells what each action of a list does. `path` are the actions that brought the packet so far; returns false if it goes no further.
fn walk(
    worker: &mut Worker,
    from: &Caught,
    actions: &[Action],
    path: &mut Vec<Action>,
    depth: usize,
    steps: &mut Vec<Step>,
) -> bool {
    let mut cut: Option<u32> = None;
    for action in actions {
        let text = format_actions(&vec![action.clone()], &PortNames::NONE);
        let Ok(now) = reach(worker, from, path) else { return false };
        let len = now.bytes.len();
        let mut tell = |action: String, effect: String| steps.push(Step { depth, action, effect });
        match action {
            Action::Output(port) => {
                let sent = cut.take().map_or(len, |cut| len.min(cut as usize));
                tell(text, format!("sends {sent} bytes to port {port}"));
            }
            Action::LbOutput(bond) => tell(text, format!("sends {len} bytes to a member of bond {bond}")),
            Action::Trunc(max) => {
                cut = Some(*max);
                tell(text, format!("the next output sends at most {max} bytes"));
            }
            Action::Recirc(id) => tell(text, format!("is looked up again with recirc_id {id:#x}")),
            Action::Userspace(_) => tell(text, format!("hands {len} bytes to the upcall handler")),
            Action::Drop(_) => {
                tell(text, "ends the packet".to_owned());
                return false;
            }
            Action::Clone(list) => {
                tell("clone".to_owned(), "on a copy:".to_owned());
                walk(worker, from, list, &mut path.clone(), depth + 1, steps);
            }
            Action::Sample { probability, actions } => {
                let percent = f64::from(*probability) * 100.0 / f64::from(u32::MAX);
                tell("sample".to_owned(), format!("on {percent:.3} % of the packets:"));
                walk(worker, from, actions, &mut path.clone(), depth + 1, steps);
            }
            Action::CheckPktLen { len: limit, if_greater, if_less_equal } => {
                let is_greater = len > usize::from(*limit);
                let (what, list) = if is_greater { ("more than", if_greater) } else { ("at most", if_less_equal) };
                tell("check_pkt_len".to_owned(), format!("{len} bytes are {what} {limit}:"));
                walk(worker, from, list, &mut path.clone(), depth + 1, steps);
                if list.is_empty() {
                    steps.push(Step { depth: depth + 1, action: "drop".to_owned(), effect: "ends there".to_owned() });
                }
            }
            Action::Meter(_) => tell(text, "passes it, or drops it if a band is exceeded".to_owned()),
            _ => {
                path.push(action.clone());
                match reach(worker, from, path) {
                    Ok(then) => tell(text, difference(worker, &now, &then)),
                    Err(reason) => {
                        tell(text, format!("drops the packet: {reason}"));
                        return false;
                    }
                }
            }
        }
    }
    true
}

/// What an action changed, attribute by attribute as a lookup would see them.
fn difference(worker: &mut Worker, before: &Caught, after: &Caught) -> String {
    let mut changes = Vec::new();
    if before.bytes.len() != after.bytes.len() {
        changes.push(format!("{} bytes become {}", before.bytes.len(), after.bytes.len()));
    }
    let texts = [before, after].map(|caught| {
        let key = caught.key(worker).unwrap_or_default();
        attributes(&format_key(&key, &exact_mask(&key), &PortNames::NONE))
    });
    for attribute in texts[1].iter().filter(|a| !texts[0].contains(a)) {
        let name = attribute.split('(').next().unwrap_or_default();
        match texts[0].iter().find(|a| a.split('(').next() == Some(name)) {
            Some(old) => changes.push(format!("{name}: {}", fields_changed(old, attribute))),
            None => changes.push(format!("now has {attribute}")),
        }
    }
    if changes.is_empty() {
        let same = before.bytes == after.bytes;
        changes.push(if same { "changes nothing" } else { "changes bytes that no key has" }.to_owned());
    }
    changes.join("; ")
}

/// `ttl=64 becomes ttl=63`: those fields of an attribute that differ, or all of it.
fn fields_changed(old: &str, new: &str) -> String {
    let fields = |text: &str| {
        let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        attributes(inner.unwrap_or(text))
    };
    let (old, new) = (fields(old), fields(new));
    if old.len() != new.len() {
        return format!("{} becomes {}", old.join(","), new.join(","));
    }
    let changed: Vec<_> = old.iter().zip(&new).filter(|(old, new)| old != new).collect();
    let side = |pick: fn(&(&String, &String)) -> String| changed.iter().map(pick).collect::<Vec<_>>().join(",");
    format!("{} becomes {}", side(|pair| pair.0.clone()), side(|pair| pair.1.clone()))
}

/// What a packet's key says, without metadata that is not there.
fn key_in_words(key: &FlowKey) -> String {
    let text = format_key(key, &exact_mask(key), &PortNames::NONE);
    let absent = [
        "recirc_id(0)",
        "dp_hash(0)",
        "skb_priority(0)",
        "skb_mark(0)",
        "ct_state(-new-est-rel-rpl-inv-trk-snat-dnat)",
        "ct_zone(0)",
        "ct_mark(0)",
        "ct_label(0)",
        "packet_type(ns=0,id=0)",
    ];
    let attributes = attributes(&text).into_iter().filter(|attribute| !absent.contains(&attribute.as_str()));
    attributes.collect::<Vec<_>>().join(",")
}

/// The attributes of a key in text: split at commas outside of parentheses.
fn attributes(text: &str) -> Vec<String> {
    let (mut depth, mut out) = (0usize, vec![String::new()]);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}

fn in_words(out: &mut impl Write, args: &Args, explanation: &Explanation) -> std::io::Result<()> {
    writeln!(out, "{} bytes from port {}", explanation.bytes, explanation.in_port)?;
    for (i, lookup) in explanation.lookups.iter().enumerate() {
        writeln!(out, "\nlookup {}: {}", i + 1, lookup.key)?;
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
    match explanation.reason {
        Some(reason) => writeln!(out, "fate: {}: {reason}", explanation.fate),
        None => writeln!(out, "fate: {}", explanation.fate),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
