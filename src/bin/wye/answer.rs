//! What a running switch says about itself: on its control socket, in `wye stats` and the like, and at its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wye::datapath::FlowInfo;
use wye::flow::text::{self, PortNames};
use wye::gateway::config::PortConfig;
use wye::gateway::{Bridge, Domain, Place, PortVlans, Underlay};
use wye::packet::DropReason;
use wye::port::{Link, PortStats};

use crate::run::switch::{PortView, View};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// One line: [`Stats`].
    Stats,
    /// One [`Port`] per line.
    Ports,
    /// One [`Flow`] per line.
    Flows,
    /// One [`Station`] per line.
    Fdb,
}

/// The last line of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct End {
    /// How many lines came before it.
    pub end: usize,
}

/// Instead of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub error: String,
}

/// Counts by name.
type Counts = BTreeMap<String, u64>;

/// Counters of the whole switch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Seconds since its start.
    pub seconds: f64,
    /// Packets that came in.
    pub packets_in: u64,
    /// What became of them; the sum is `packets_in`.
    pub fates: Counts,
    /// Those dropped, by reason.
    pub drops: Counts,
    /// Copies (of floods) dropped, by reason. They are not packets that came in.
    pub copies_dropped: Counts,
    /// Lookups, copies, and whatever else workers count.
    pub counters: Counts,
    /// What the bridge counted.
    pub bridge: Counts,
    /// What the underlay counted; nothing if there is none.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub underlay: Counts,
    /// Flows installed now.
    pub flows: u64,
    /// Different masks among them.
    pub masks: u64,
}

/// Counters that [`Stats::fates`] has, or that have a field.
const FATES: [&str; 4] = ["transmitted", "upcall", "parked", "delivered"];

fn counts<'a>(named: impl IntoIterator<Item = (&'a str, u64)>) -> Counts {
    named.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}

impl Stats {
    /// The counters now.
    pub fn of(view: &View) -> Stats {
        let stats = view.datapath.stats();
        let mut fates = counts(stats.named().filter(|(name, _)| FATES.contains(name)));
        fates.insert("dropped".to_owned(), stats.dropped_total());
        let copies = DropReason::ALL.iter().map(|r| (r.name(), stats.copies_dropped[r.index()]));
        let is_other = |name: &str| !FATES.contains(&name) && name != "packets_in";
        let b = view.bridge.stats();
        let bridge = [
            ("learned", b.learned),
            ("moved", b.moved),
            ("aged", b.aged),
            ("learn_refused", b.learn_refused),
            ("flooded", b.flooded),
            ("storm_dropped", b.storm_dropped),
            ("flows_installed", b.flows_installed),
            ("flows_refused", b.flows_refused),
            ("remotes_learned", b.remotes_learned),
            ("answered_for", b.answered_for),
            ("told_too_big", b.told_too_big),
        ];
        Stats {
            seconds: view.now().0 as f64 / 1e9,
            packets_in: stats.packets_in,
            fates,
            drops: counts(stats.drops().map(|(reason, n)| (reason.name(), n))),
            copies_dropped: counts(copies.filter(|(_, n)| *n != 0)),
            counters: counts(stats.named().filter(|(name, _)| is_other(name))),
            bridge: counts(bridge),
            underlay: view.underlay.as_deref().map(underlay).unwrap_or_default(),
            flows: view.datapath.flow_count().into(),
            masks: view.datapath.mask_count() as u64,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = vec![row("running", format!("{:.1} s", self.seconds)), row("packets in", self.packets_in)];
        let indented =
            |counts: &Counts| counts.iter().map(|(name, n)| row(&format!("  {name}"), n)).collect::<Vec<_>>();
        rows.extend(indented(&self.fates));
        for (title, counts) in [("drops", &self.drops), ("copies dropped", &self.copies_dropped)] {
            if !counts.is_empty() {
                rows.push(row(title, ""));
                rows.extend(indented(counts));
            }
        }
        rows.push(row("workers", ""));
        rows.extend(indented(&self.counters));
        rows.push(row("bridge", ""));
        rows.extend(indented(&self.bridge));
        if !self.underlay.is_empty() {
            rows.push(row("underlay", ""));
            rows.extend(indented(&self.underlay));
        }
        rows.extend([row("flows", self.flows), row("masks", self.masks)]);
        table(&[], &rows)
    }
}

fn underlay(underlay: &Underlay) -> Counts {
    let stats = underlay.stats();
    let n = stats.neighbours;
    counts([
        ("solicited", n.solicited),
        ("neighbours_learned", n.learned),
        ("neighbours_lost", n.lost),
        ("neighbours_evicted", n.evicted),
        ("waiting_overflowed", n.overflowed),
        ("answered", stats.answered),
        ("echoes", stats.echoes),
        ("released", stats.released),
        ("lost", stats.lost),
        ("fragmented", stats.fragmented),
        ("unsent", stats.unsent),
        ("conflicts", stats.conflicts),
        ("paths_narrowed", stats.paths_narrowed),
        ("path_errors_ignored", stats.path_errors_ignored),
    ])
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

/// A port.
#[derive(Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its number in flows.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// `up`, `down` or `gone`.
    pub link: String,
    /// Its VLANs.
    pub vlans: String,
    /// Queues.
    pub queues: usize,
    /// Packets received by each queue; together they are `rx_packets`.
    pub rx_packets_of_queue: Vec<u64>,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets that arrived but were lost before the switch saw them.
    pub rx_dropped: u64,
    /// Packets that were malformed at the port's own level.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that the port would not take.
    pub tx_dropped: u64,
    /// Packets that came from other workers to be sent.
    pub handed_over: u64,
    /// Those of them that the port would not take; they are in `tx_dropped` too.
    pub handed_over_dropped: u64,
}

/// The ports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports {
    /// In order of number.
    pub ports: Vec<Port>,
}

impl Port {
    fn of(view: &PortView, bridge: &Bridge) -> Port {
        let sum = |of: fn(&PortStats) -> u64| view.queues.iter().map(|queue| of(&queue.stats())).sum();
        let link = match view.queues.first().map(|queue| queue.link()) {
            Some(Link::Up) => "up",
            Some(Link::Down) => "down",
            Some(Link::Gone) | None => "gone",
        };
        Port {
            number: view.config.number,
            name: view.config.spec.name.clone(),
            kind: view.config.spec.kind.name().to_owned(),
            link: link.to_owned(),
            vlans: vlans(&view.config, bridge),
            queues: view.queues.len(),
            rx_packets_of_queue: view.queues.iter().map(|queue| queue.stats().rx_packets).collect(),
            rx_packets: sum(|s| s.rx_packets),
            rx_bytes: sum(|s| s.rx_bytes),
            rx_dropped: sum(|s| s.rx_dropped),
            rx_errors: sum(|s| s.rx_errors),
            tx_packets: sum(|s| s.tx_packets),
            tx_bytes: sum(|s| s.tx_bytes),
            tx_dropped: sum(|s| s.tx_dropped),
            handed_over: view.queues.iter().map(|queue| queue.handed_over()).sum(),
            handed_over_dropped: view.queues.iter().map(|queue| queue.handed_over_dropped()).sum(),
        }
    }
}

fn vlans(port: &PortConfig, bridge: &Bridge) -> String {
    let Some(vlans) = &port.vlans else {
        let has = if port.interface.is_some() { "underlay" } else { "vpc" };
        return if bridge.owns(port.number) { has } else { "flows" }.to_owned();
    };
    match vlans {
        PortVlans::Access(vlan) => format!("access {vlan}"),
        PortVlans::Trunk { native, allowed } => {
            let native = native.map_or(String::new(), |vlan| format!(", native {vlan}"));
            format!("trunk {allowed}{native}")
        }
    }
}

impl Ports {
    /// The ports now.
    pub fn of(view: &View) -> Ports {
        let mut ports: Vec<Port> = view.ports.iter().map(|port| Port::of(port, &view.bridge)).collect();
        ports.sort_unstable_by_key(|port| port.number);
        Ports { ports }
    }

    /// For people.
    pub fn table(&self) -> String {
        let titles = [
            "port",
            "name",
            "kind",
            "link",
            "vlans",
            "rx packets",
            "rx bytes",
            "rx lost",
            "tx packets",
            "tx bytes",
            "tx lost",
        ];
        let rows = self.ports.iter().map(|p| {
            let words = [p.number.to_string(), p.name.clone(), p.kind.clone(), p.link.clone(), p.vlans.clone()];
            let counts = [p.rx_packets, p.rx_bytes, p.rx_dropped + p.rx_errors, p.tx_packets, p.tx_bytes, p.tx_dropped];
            words.into_iter().chain(counts.map(|n| n.to_string())).collect()
        });
        table(&titles, &rows.collect::<Vec<Vec<String>>>())
    }
}

/// A flow.
#[derive(Debug, Serialize, Deserialize)]
pub struct Flow {
    /// Its identifier, in hexadecimal.
    pub ufid: String,
    /// What it matches, as `ovs-dpctl dump-flows` writes it.
    pub key: String,
    /// What it does.
    pub actions: String,
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds since the last of them; `null` if there was none.
    pub idle_s: Option<f64>,
}

impl Flow {
    /// The flow as it is said.
    pub fn of(flow: &FlowInfo, view: &View) -> Flow {
        let now = view.now();
        Flow {
            ufid: format!("{:032x}", flow.ufid),
            key: text::format_key(&flow.key, &flow.mask, &PortNames::NONE),
            actions: text::format_actions(&flow.actions, &PortNames::NONE),
            packets: flow.stats.packets,
            bytes: flow.stats.bytes,
            idle_s: flow.stats.used.map(|used| now.since(used) as f64 / 1e9),
        }
    }

    /// One line, in the way of `ovs-dpctl dump-flows`.
    pub fn line(&self) -> String {
        let used = self.idle_s.map_or("never".to_owned(), |s| format!("{s:.3}s"));
        let Flow { key, actions, packets, bytes, .. } = self;
        format!("{key}, packets:{packets}, bytes:{bytes}, used:{used}, actions:{actions}")
    }
}

/// A learned address.
#[derive(Debug, Serialize, Deserialize)]
pub struct Station {
    /// Its VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Its VPC, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Its address.
    pub mac: String,
    /// The number of the port that it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// That port's name, or the address of the other end of the tunnel that it is behind.
    pub name: String,
    /// Seconds since its last packet.
    pub age_s: f64,
}

/// All learned addresses.
#[derive(Debug)]
pub struct Fdb {
    /// In order of VLAN, VPC and address.
    pub stations: Vec<Station>,
}

impl Fdb {
    /// The stations now.
    pub fn of(view: &View) -> Fdb {
        let now = view.now();
        let name = |number| view.ports.iter().find(|p| p.config.number == number).map(|p| p.config.spec.name.clone());
        let ends = view.underlay.as_ref().map(|underlay| underlay.endpoints()).unwrap_or_default();
        let end = |number| ends.iter().find(|end| end.0 == number).map(|(_, end, _)| end.remote.to_string());
        let stations = view.bridge.stations().into_iter().map(|s| {
            let (vlan, vni) = match s.domain {
                Domain::Vlan(vlan) => (Some(vlan.number()), None),
                Domain::Vpc(vni) => (None, Some(vni.number())),
            };
            let (port, name) = match s.place {
                Place::Port(number) => (Some(number), name(number)),
                Place::Remote(number) => (None, end(number)),
            };
            let mac = s.mac.map(|byte| format!("{byte:02x}")).join(":");
            let age_s = now.since(s.seen) as f64 / 1e9;
            Station { vlan, vni, mac, port, name: name.unwrap_or_default(), age_s }
        });
        Fdb { stations: stations.collect() }
    }

    /// For people.
    pub fn table(&self) -> String {
        let row = |s: &Station| {
            let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let (vlan, vni) = (number(s.vlan.map(u32::from)), number(s.vni));
            vec![vlan, vni, s.mac.clone(), number(s.port), s.name.clone(), format!("{:.1} s", s.age_s)]
        };
        table(&["vlan", "vni", "address", "port", "name", "age"], &self.stations.iter().map(row).collect::<Vec<_>>())
    }
}

/// What `wye run --json` ends with.
#[derive(Debug, Serialize)]
pub struct Total {
    /// The switch's counters.
    #[serde(flatten)]
    pub stats: Stats,
    /// Its ports.
    pub ports: Ports,
}

/// Columns of equal width: numbers to the right, words to the left.
fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0).max(titles.len());
    let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let all: Vec<&Vec<String>> = (!titles.is_empty()).then_some(&titles).into_iter().chain(rows).collect();
    let width = |i: usize| all.iter().map(|row| cell(row, i).chars().count()).max().unwrap_or(0);
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains([':', ',']);
    let is_numeric = |i: usize| rows.iter().all(|row| cell(row, i).is_empty() || is_number(&cell(row, i)));
    let mut out = String::new();
    for row in &all {
        let line: Vec<String> = (0..columns)
            .map(|i| {
                let (cell, width) = (cell(row, i), width(i));
                if is_numeric(i) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            })
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let rows = [vec!["a".to_owned(), "7".to_owned()], vec!["long".to_owned(), "1234".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "name     n\na        7\nlong  1234\n");
        assert_eq!(table(&[], &rows), "a        7\nlong  1234\n");
    }

    #[test]
    fn requests_are_known_by_name() {
        let read = serde_json::from_str::<Request>;
        assert_eq!(read(r#"{"request": "fdb"}"#).unwrap(), Request::Fdb);
        assert!(read(r#"{"request": "reboot"}"#).is_err() && read(r#"{}"#).is_err() && read("[1").is_err());
    }
}
