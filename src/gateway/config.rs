//! The configuration file of `wye run`: TOML in, checked settings out.
//!
//! ```toml
//! control = "/run/wye.sock"      # Unix socket for `wye stats` and the like
//!
//! [workers]
//! cores = [2, 3]                 # one worker on each; or count = 2
//!
//! [bridge]
//! aging_s = 300
//! storm_pps = 10000
//!
//! [[port]]
//! name = "lan"
//! kind = "af_xdp"
//! interface = "eth1"
//! access = 10                    # or trunk = [10, "20-29"] and native = 1
//!
//! [[port]]
//! name = "wan"
//! kind = "af_packet"
//! address = ["192.0.2.1/24"]     # of the gateway itself: tunnels come and go here
//!
//! [[vpc]]
//! vni = 5001
//! members = ["vm1"]
//! remotes = ["192.0.2.2"]
//! ```
//!
//! Every error names the file, the line and what is wrong there. A file is refused as a whole.

use std::collections::HashSet;
use std::ops::Range;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use toml::Spanned;

pub use self::overlay::{InterfaceConfig, NeighbourSetting, RouteSetting, VpcSetting};
use self::overlay::{NeighbourTable, RouteTable, VpcTable};
use super::bridge::BridgeConfig;
use super::vlan::{PortVlans, VlanId, VlanSet};
use crate::datapath;
use crate::packet::Pool;
use crate::port::driver::BURST_MAX;
use crate::port::table::{PORT_NUMBER_END, PORTS_MAX};
use crate::port::{Attach, Copying, PortError, PortKind, PortOptions, PortSpec};
use crate::sync::qsbr::READERS_MAX;

/// The longest file that is read, in bytes.
pub const FILE_LEN_MAX: u64 = 1 << 20;

/// What a file asks for.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where the control socket is to be; `None` for no such socket.
    pub control: Option<PathBuf>,
    /// A file of flows that are there from the beginning.
    pub flows: Option<PathBuf>,
    /// Settings of the datapath.
    pub datapath: datapath::Config,
    /// Settings of the bridge.
    pub bridge: BridgeConfig,
    /// The workers.
    pub workers: WorkersConfig,
    /// The ports, at least one.
    pub ports: Vec<PortConfig>,
    /// Routes of the underlay beside those of its interfaces.
    pub routes: Vec<RouteSetting>,
    /// Neighbours whose address is known for good.
    pub neighbours: Vec<NeighbourSetting>,
    /// VPCs.
    pub vpcs: Vec<VpcSetting>,
}

/// The threads that carry packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkersConfig {
    /// How many.
    pub count: usize,
    /// The CPU core of each; empty if the kernel may choose.
    pub cores: Vec<usize>,
    /// Packets that a driver gives per turn.
    pub burst: usize,
    /// Never sleep.
    pub busy_poll: bool,
    /// Packets that may wait for a port of another worker.
    pub exchange: usize,
}

/// A port of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its number in the datapath.
    pub number: u32,
    /// How it is opened.
    pub spec: PortSpec,
    /// Its VLANs; `None` for an interface of the underlay, for a port that is only a member of VPCs, and for one that only the file of flows has.
    pub vlans: Option<PortVlans>,
    /// It is an interface of the underlay.
    pub interface: Option<InterfaceConfig>,
}

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and where in the line.
    pub message: String,
}

/// A number within limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Within<const MIN: u64, const MAX: u64>(u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(from)?;
        let fits = u64::try_from(number).ok().filter(|n| (MIN..=MAX).contains(n));
        fits.map(Within).ok_or_else(|| D::Error::custom(format!("{number} is not in {MIN} to {MAX}")))
    }
}

/// A value that is written as a word.
#[derive(Clone, Copy, Debug)]
struct Word<T>(T);

impl<'de, T: FromStr<Err: core::fmt::Display>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Word).map_err(D::Error::custom)
    }
}

/// `"all"`, or a list of numbers and ranges like `"20-29"`.
#[derive(Clone, Debug)]
struct Trunk(VlanSet);

/// One entry of the list.
struct VlanRange(Range<u16>);

impl<'de> Deserialize<'de> for VlanRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entry;
        impl Visitor<'_> for Entry {
            type Value = VlanRange;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a VLAN number from 1 to 4094, or a range like \"20-29\"")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<VlanRange, E> {
                let vlan = u16::try_from(number).ok().and_then(VlanId::new);
                let number = vlan.ok_or_else(|| E::custom(format!("{number} is not in 1 to 4094")))?.number();
                Ok(VlanRange(number..number + 1))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<VlanRange, E> {
                let bounds = text.split_once('-').and_then(|(first, last)| {
                    let vlan = |text: &str| text.trim().parse().ok().and_then(VlanId::new);
                    Some((vlan(first)?, vlan(last)?)).filter(|(first, last)| first <= last)
                });
                let (first, last) = bounds.ok_or_else(|| E::custom(format!("{text:?} is no range like \"20-29\"")))?;
                Ok(VlanRange(first.number()..last.number() + 1))
            }
        }
        from.deserialize_any(Entry)
    }
}

impl<'de> Deserialize<'de> for Trunk {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Trunk;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("\"all\" or a list of VLANs like [10, \"20-29\"]")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Trunk, E> {
                if text == "all" {
                    Ok(Trunk(VlanSet::all()))
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Trunk, A::Error> {
                let mut set = VlanSet::none();
                while let Some(VlanRange(range)) = list.next_element()? {
                    range.filter_map(VlanId::new).for_each(|vlan| set.insert(vlan));
                }
                if set == VlanSet::none() {
                    return Err(A::Error::custom("the list is empty: a trunk has at least one VLAN"));
                }
                Ok(Trunk(set))
            }
        }
        from.deserialize_any(List)
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    control: Option<Spanned<PathBuf>>,
    flows: Option<PathBuf>,
    #[serde(default)]
    datapath: DatapathTable,
    #[serde(default)]
    bridge: BridgeTable,
    workers: Option<Spanned<WorkersTable>>,
    #[serde(default)]
    port: Vec<Spanned<PortTable>>,
    #[serde(default)]
    route: Vec<Spanned<RouteTable>>,
    #[serde(default)]
    neighbour: Vec<Spanned<NeighbourTable>>,
    #[serde(default)]
    vpc: Vec<Spanned<VpcTable>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct DatapathTable {
    flows_max: Option<Within<1, { 1 << 26 }>>,
    cache_entries: Option<Within<0, { 1 << 27 }>>,
    pool_buffers: Option<Within<256, { 1 << 22 }>>,
    buffer_len: Option<Within<512, { 1 << 17 }>>,
    seed: Option<Within<0, { i64::MAX as u64 }>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BridgeTable {
    // IEEE 802.1Q §8.8.3 has the range.
    aging_s: Option<Within<10, 1_000_000>>,
    stations_max: Option<Within<1, { 1 << 22 }>>,
    stations_per_port_max: Option<Within<1, { 1 << 22 }>>,
    storm_pps: Option<Within<0, 1_000_000_000>>,
    storm_burst: Option<Within<1, 1_000_000_000>>,
    flow_idle_s: Option<Within<1, 86_400>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkersTable {
    count: Option<Within<1, { READERS_MAX as u64 }>>,
    cores: Option<Vec<Within<0, 1023>>>,
    burst: Option<Within<1, { BURST_MAX as u64 }>>,
    #[serde(default)]
    busy_poll: bool,
    exchange: Option<Within<1, 65_536>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PortTable {
    name: String,
    number: Option<Within<0, { PORT_NUMBER_END as u64 - 1 }>>,
    kind: Word<PortKind>,
    access: Option<Within<1, 4094>>,
    trunk: Option<Trunk>,
    native: Option<Within<1, 4094>>,
    address: Option<Vec<overlay::Net>>,
    mac: Option<overlay::Mac>,
    vlan: Option<Within<1, 4094>>,
    ip_mtu: Option<Within<68, 65_535>>,
    // As `PortOptions`.
    interface: Option<String>,
    queues: Option<Within<1, 256>>,
    mtu: Option<Within<68, 65_521>>,
    up: Option<bool>,
    promiscuous: Option<bool>,
    ring_bytes: Option<Within<1, { u32::MAX as u64 }>>,
    frames: Option<Within<1, { u32::MAX as u64 }>>,
    copying: Option<Word<Copying>>,
    attach: Option<Word<Attach>>,
    read: Option<PathBuf>,
    looped: Option<bool>,
    write: Option<PathBuf>,
}

impl<const MIN: u64, const MAX: u64> Within<MIN, MAX> {
    /// The number in a type that holds `MAX`.
    fn to<T: TryFrom<u64>>(self, or: T) -> T {
        T::try_from(self.0).unwrap_or(or)
    }
}

/// `table`'s field if it is given, else the default.
fn or<const MIN: u64, const MAX: u64, T: TryFrom<u64> + Copy>(field: Option<Within<MIN, MAX>>, default: T) -> T {
    field.map_or(default, |number| number.to(default))
}

impl GatewayConfig {
    /// Reads the text of `file`, whose name is for messages.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(file: &str, text: &str) -> Result<GatewayConfig, ConfigError> {
        let fail = |span: Option<Range<usize>>, message: String| {
            // An offset that is no boundary of characters would be the parser's mistake; the file's beginning is then near enough.
            let before = span.and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count();
            let shown = text.lines().nth(line).unwrap_or("").trim();
            ConfigError { file: file.to_owned(), line: line + 1, message: format!("{message} (`{shown}`)") }
        };
        let parsed: File = toml::from_str(text).map_err(|e| fail(e.span(), e.message().to_owned()))?;

        let control = parsed.control.map(|path| {
            let (span, path) = (path.span(), path.into_inner());
            // The kernel has 108 bytes for it, with a NUL.
            let is_path = !path.as_os_str().is_empty() && SocketAddr::from_pathname(&path).is_ok();
            let message = "control: no path for a Unix socket (1 to 107 bytes)".to_owned();
            if is_path { Ok(path) } else { Err(fail(Some(span), message)) }
        });
        let control = control.transpose()?;

        let span = parsed.workers.as_ref().map(Spanned::span);
        let workers = workers(parsed.workers.map(Spanned::into_inner).unwrap_or_default());
        let workers = workers.map_err(|message| fail(span, message))?;

        let datapath = datapath(&parsed.datapath);
        let packet_len_max = Pool::packet_len_max_of(datapath.buffer_len, datapath.headroom);
        let (mut names, mut interfaces, mut numbers) = (HashSet::new(), HashSet::new(), HashSet::new());
        let given: HashSet<u32> = parsed.port.iter().filter_map(|p| p.get_ref().number).map(|n| n.to(0)).collect();
        let mut ports = Vec::new();
        for table in parsed.port {
            let span = table.span();
            let mut table = table.into_inner();
            let failed = |message: String| fail(Some(span.clone()), message);
            let number = match table.number {
                Some(number) => number.to(0),
                None => (1..PORT_NUMBER_END).find(|n| !given.contains(n) && !numbers.contains(n)).unwrap_or(0),
            };
            let name = core::mem::take(&mut table.name);
            let port = port(number, name.clone(), table, packet_len_max)
                .map_err(|message| failed(format!("port {name:?}: {message}")))?;
            if !names.insert(name.clone()) {
                return Err(failed(format!("two ports have the name {name:?}")));
            }
            if !numbers.insert(number) {
                return Err(failed(format!("port {name:?}: number {number} is another port's")));
            }
            let interface = port.spec.options.interface.as_ref().unwrap_or(&name);
            if port.spec.kind != PortKind::Pcap && !interfaces.insert(interface.clone()) {
                return Err(failed(format!("port {name:?}: interface {interface:?} is another port's")));
            }
            ports.push(port);
        }
        if ports.is_empty() || ports.len() > PORTS_MAX {
            return Err(fail(None, format!("a switch needs 1 to {PORTS_MAX} [[port]] tables")));
        }
        let (mut routes, mut neighbours, mut vpcs) = (Vec::new(), Vec::new(), Vec::new());
        for (at, table) in parsed.route.into_iter().enumerate() {
            let span = table.span();
            let route = overlay::route(table.into_inner(), &ports);
            routes.push(route.map_err(|message| fail(Some(span), format!("route {}: {message}", at + 1)))?);
        }
        for (at, table) in parsed.neighbour.into_iter().enumerate() {
            let span = table.span();
            let neighbour = overlay::neighbour(table.into_inner(), &ports);
            neighbours.push(neighbour.map_err(|message| fail(Some(span), format!("neighbour {}: {message}", at + 1)))?);
        }
        for table in parsed.vpc {
            let span = table.span();
            let (vni, vpc) = overlay::vpc(table.into_inner(), &mut ports, &vpcs);
            vpcs.push(vpc.map_err(|message| fail(Some(span), format!("vpc {vni}: {message}")))?);
        }
        overlay::settle(&mut ports, &vpcs, parsed.flows.is_some());
        let bridge = bridge(&parsed.bridge);
        Ok(GatewayConfig { control, flows: parsed.flows, datapath, bridge, workers, ports, routes, neighbours, vpcs })
    }
}

fn datapath(table: &DatapathTable) -> datapath::Config {
    let default = datapath::Config::default();
    datapath::Config {
        flows_max: or(table.flows_max, default.flows_max),
        cache_entries: or(table.cache_entries, default.cache_entries),
        pool_buffers: or(table.pool_buffers, default.pool_buffers),
        buffer_len: or(table.buffer_len, default.buffer_len),
        seed: table.seed.map(|seed| seed.0),
        ..default
    }
}

fn bridge(table: &BridgeTable) -> BridgeConfig {
    let default = BridgeConfig::default();
    let seconds = |n: u64| n * 1_000_000_000;
    BridgeConfig {
        aging_ns: table.aging_s.map_or(default.aging_ns, |s| seconds(s.0)),
        stations_max: or(table.stations_max, default.stations_max),
        stations_per_port_max: or(table.stations_per_port_max, default.stations_per_port_max),
        flood_rate: or(table.storm_pps, default.flood_rate),
        flood_burst: or(table.storm_burst, default.flood_burst),
        flow_idle_ns: table.flow_idle_s.map_or(default.flow_idle_ns, |s| seconds(s.0)),
    }
}

fn workers(table: WorkersTable) -> Result<WorkersConfig, String> {
    let cores: Vec<usize> = table.cores.unwrap_or_default().iter().map(|core| core.to(0)).collect();
    let count = or(table.count, cores.len().max(1));
    if !cores.is_empty() && cores.len() != count {
        return Err(format!("workers: cores names {} cores for {count} workers", cores.len()));
    }
    if let Some((_, core)) = cores.iter().enumerate().find(|(at, core)| cores[..*at].contains(core)) {
        return Err(format!("workers: cores names core {core} twice"));
    }
    if cores.len() > READERS_MAX {
        return Err(format!("workers: cores names more than {READERS_MAX} cores"));
    }
    let (burst, exchange) = (or(table.burst, datapath::poll::BURST_DEFAULT), or(table.exchange, 1024));
    Ok(WorkersConfig { count, cores, burst, busy_poll: table.busy_poll, exchange })
}

fn port(number: u32, name: String, table: PortTable, packet_len_max: usize) -> Result<PortConfig, String> {
    if name.is_empty() || name.len() > 64 || name.contains(char::is_control) {
        return Err("name: 1 to 64 bytes, none of them a control character".to_owned());
    }
    let vlan = |n: Within<1, 4094>| VlanId::new(n.to(1)).unwrap_or(VlanId::DEFAULT);
    let vlans = match (table.access, table.trunk, table.native) {
        (Some(_), Some(_), _) => return Err("access and trunk exclude one another".to_owned()),
        (_, None, Some(_)) => return Err("native: only a trunk has a native VLAN".to_owned()),
        (Some(access), None, None) => Some(PortVlans::Access(vlan(access))),
        (None, None, None) => None,
        (None, Some(Trunk(allowed)), native) => Some(PortVlans::Trunk { native: native.map(vlan), allowed }),
    };
    let interface = match table.address {
        Some(addresses) if addresses.is_empty() => return Err("address: at least one".to_owned()),
        Some(_) if vlans.is_some() => {
            return Err("address: an interface of the underlay has no access, trunk or native".to_owned());
        }
        Some(addresses) => Some(InterfaceConfig {
            addresses: addresses.into_iter().map(|address| address.0).collect(),
            mac: table.mac.map(|mac| mac.0),
            vlan: table.vlan.map(vlan),
            mtu: table.ip_mtu.map(|mtu| mtu.to(u32::from(u16::MAX))),
        }),
        None if table.mac.is_some() || table.vlan.is_some() || table.ip_mtu.is_some() => {
            return Err("mac, vlan and ip_mtu mean nothing without address".to_owned());
        }
        None => None,
    };
    let kind = table.kind.0;
    let options = PortOptions {
        interface: table.interface,
        queues: table.queues.map(|n| n.to(1)),
        mtu: table.mtu.map(|n| n.to(u16::MAX)),
        up: table.up,
        promiscuous: table.promiscuous,
        ring_bytes: table.ring_bytes.map(|n| n.to(u32::MAX)),
        frames: table.frames.map(|n| n.to(u32::MAX)),
        copying: table.copying.map(|word| word.0),
        attach: table.attach.map(|word| word.0),
        read: table.read,
        looped: table.looped,
        write: table.write,
    };
    let spec = PortSpec { kind, name, options };
    match spec.check(packet_len_max) {
        Ok(()) => Ok(PortConfig { number, spec, vlans, interface }),
        Err(PortError::Setting { field, reason, .. }) => Err(format!("{field}: {reason}")),
        Err(e) => Err(e.to_string()),
    }
}

mod overlay;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GatewayConfig, String> {
        GatewayConfig::parse("wye.toml", text).map_err(|e| e.to_string())
    }

    fn refused(text: &str, line: usize, parts: &[&str]) {
        let message = parse(text).expect_err(text);
        assert!(message.starts_with(&format!("wye.toml:{line}: ")), "{message}");
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }

    const PORT: &str = "[[port]]\nname = 'a'\nkind = 'tap'\n";

    #[test]
    fn everything_that_can_be_set_is_set() {
        let config = parse(
            "control = '/run/w.sock'\n\
             [datapath]\nflows_max = 1000\ncache_entries = 0\npool_buffers = 512\nbuffer_len = 4096\nseed = 7\n\
             [workers]\ncores = [3, 1]\nburst = 64\nbusy_poll = true\nexchange = 99\n\
             [bridge]\naging_s = 60\nstations_max = 9\nstations_per_port_max = 8\nstorm_pps = 0\nstorm_burst = 3\nflow_idle_s = 4\n\
             [[port]]\nname = 'lan'\nkind = 'af_xdp'\ninterface = 'eth1'\nqueues = 2\nframes = 64\ncopying = 'copy'\nattach = 'generic'\n\
             [[port]]\nname = 'up'\nnumber = 1\nkind = 'af_packet'\ntrunk = [10, '20-22']\nnative = 5\npromiscuous = false\n\
             [[port]]\nname = 'rec'\nkind = 'pcap'\naccess = 10\nwrite = 'out.pcap'\n",
        )
        .unwrap();
        assert_eq!(config.control, Some("/run/w.sock".into()));
        assert_eq!(
            (config.datapath.flows_max, config.datapath.cache_entries, config.datapath.pool_buffers),
            (1000, 0, 512)
        );
        assert_eq!((config.datapath.buffer_len, config.datapath.seed), (4096, Some(7)));
        let workers = WorkersConfig { count: 2, cores: vec![3, 1], burst: 64, busy_poll: true, exchange: 99 };
        assert_eq!(config.workers, workers);
        let bridge = BridgeConfig {
            aging_ns: 60_000_000_000,
            stations_max: 9,
            stations_per_port_max: 8,
            flood_rate: 0,
            flood_burst: 3,
            flow_idle_ns: 4_000_000_000,
        };
        assert_eq!(config.bridge, bridge);
        assert_eq!(config.ports.iter().map(|p| p.number).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(config.ports[0].vlans, Some(PortVlans::Access(VlanId::DEFAULT)));
        assert_eq!(config.ports[0].spec.options.copying, Some(Copying::Copy));
        let allowed = [10, 20, 21, 22].into_iter().filter_map(VlanId::new).collect();
        assert_eq!(config.ports[1].vlans, Some(PortVlans::Trunk { native: VlanId::new(5), allowed }));
        assert_eq!(config.ports[2].spec.options.write, Some("out.pcap".into()));
    }

    #[test]
    fn a_vpc_has_limits_of_its_own() {
        let head = format!("{PORT}address = ['192.0.2.1/24']\n[[vpc]]\nvni = 7\n");
        let limits = |text: &str| {
            let config = &parse(&format!("{head}{text}")).unwrap().vpcs[0].config;
            (config.stations_max, config.flows_max)
        };
        assert_eq!(limits("stations_max = 5\nflows_max = 6\n"), (5, 6));
        assert_eq!(limits(""), (16_384, 65_536));
        refused(&format!("{head}stations_max = 0\n"), 7, &["stations_max = 0", "1 to 4194304"]);
        refused(&format!("{head}flows_max = 67108865\n"), 7, &["flows_max = 67108865", "1 to 67108864"]);
    }

    #[test]
    fn little_is_needed() {
        let config = parse(PORT).unwrap();
        let workers = WorkersConfig { count: 1, cores: vec![], burst: 32, busy_poll: false, exchange: 1024 };
        assert_eq!((config.workers, config.ports[0].number, config.control), (workers, 1, None));
        assert_eq!(config.bridge, BridgeConfig::default());
    }

    #[test]
    fn with_a_file_of_flows_only_ports_that_say_so_are_bridged() {
        let ports = format!("{PORT}\n[[port]]\nname = 'b'\nkind = 'tap'\naccess = 1\n");
        let bridged = |text: &str| parse(text).unwrap().ports.iter().map(|p| p.vlans.is_some()).collect::<Vec<_>>();
        assert_eq!(bridged(&ports), [true, true]);
        assert_eq!(bridged(&format!("flows = 'f'\n{ports}")), [false, true]);
        assert_eq!(parse(&format!("flows = 'f'\n{ports}")).unwrap().flows, Some("f".into()));
    }

    #[test]
    fn a_vpc_over_gre_has_no_udp() {
        let wan = "[[port]]\nname = 'wan'\nkind = 'tap'\naddress = ['192.0.2.1/24']\n";
        let vpc = format!("{PORT}{wan}[[vpc]]\nvni = 7\nmembers = ['a']\nkind = 'gre'\nchecksum = true\n");
        let endpoint = parse(&vpc).unwrap().vpcs[0].config.endpoint.clone();
        assert_eq!((endpoint.kind, endpoint.checksum), (crate::tunnel::Kind::Gre, true));
        for more in ["udp_port = 9", "zero_checksum6 = true"] {
            refused(&format!("{vpc}{more}\n"), 8, &["vpc 7", "udp_port and zero_checksum6 mean nothing to gre"]);
        }
        refused(&vpc.replace("'gre'", "'ipip'"), 11, &["kind = 'ipip'", "(vxlan, geneve, gre)"]);
    }

    #[test]
    fn an_error_names_file_line_and_field() {
        refused("", 1, &["[[port]]"]);
        refused("[datapath]\nflows_mx = 3\n", 2, &["flows_mx", "flows_max"]);
        refused("[datapath]\n\nflows_max = 0\n", 3, &["flows_max = 0", "1 to 67108864"]);
        refused("[bridge]\naging_s = 'x'\n", 2, &["aging_s", "expected i64"]);
        refused("[workers]\ncount = 2\ncores = [1]\n", 1, &["cores names 1"]);
        refused("[[port]]\nname = 'a'\nkind = 'dpdk'\n", 3, &["dpdk", "af_xdp"]);
        refused("[[port]]\nkind = 'tap'\n", 1, &["name"]);
        refused(&format!("{PORT}access = 4095\n"), 4, &["access = 4095", "1 to 4094"]);
        refused(&format!("{PORT}trunk = [1,\n 5000]\n"), 5, &["5000"]);
        refused(&format!("{PORT}trunk = ['9-3']\n"), 4, &["9-3"]);
        refused(&format!("{PORT}trunk = 'some'\n"), 4, &["some", "all"]);
        refused(&format!("{PORT}native = 3\n"), 1, &["\"a\"", "native"]);
        refused(&format!("{PORT}access = 3\ntrunk = 'all'\n"), 1, &["exclude"]);
        refused(&format!("{PORT}write = 'x'\n"), 1, &["write: means nothing to a port of kind tap"]);
        refused(&format!("{PORT}\n{PORT}"), 5, &["two ports have the name \"a\""]);
        refused(&format!("{PORT}number = 3\n[[port]]\nname = 'b'\nkind = 'tap'\nnumber = 3\n"), 5, &["number 3"]);
        refused(&format!("{PORT}[[port]]\nname = 'b'\nkind = 'tap'\ninterface = 'a'\n"), 4, &["interface \"a\""]);
        refused("x = [\n", 1, &["unclosed array"]);
    }

    #[test]
    fn what_could_not_be_opened_anywhere_is_refused() {
        let core_twice = "[workers]\ncores = [1, 0, 1]\n";
        refused(core_twice, 1, &["workers: cores names core 1 twice"]);
        refused(&format!("{PORT}trunk = []\n"), 4, &["trunk = []", "at least one VLAN"]);
        let long = format!("\ncontrol = '/{}'\n{PORT}", "x".repeat(107));
        refused(&long, 2, &["control: no path for a Unix socket"]);
        refused(&format!("control = ''\n{PORT}"), 1, &["control: no path"]);
        parse(&long.replacen('x', "", 1)).unwrap();
        for name in ["a b", "a/b", "a:b", "..", "sixteen-letters-"] {
            let part = &format!("port {name:?}: interface: {name:?} is not an interface name");
            refused(&PORT.replace("'a'", &format!("'{name}'")), 1, &[part]);
            parse(&format!("[[port]]\nname = '{name}'\nkind = 'pcap'\nread = 'x'\n")).unwrap();
            parse(&PORT.replace("'a'", &format!("'{name}'\ninterface = 'a'"))).unwrap();
        }
        refused(&format!("{PORT}interface = ''\n"), 1, &["interface: \"\" is not"]);
        refused(&format!("{PORT}mtu = 9000\n"), 1, &["mtu: 9000 needs buffers for"]);
        let pcap = "[[port]]\nname = 'a'\nkind = 'pcap'\n";
        refused(pcap, 1, &["read: neither"]);
        refused(&format!("{pcap}write = 'x'\nlooped = true\n"), 1, &["looped: there is no file"]);
        refused("[[port]]\nname = 'a'\nkind = 'af_xdp'\nframes = 100\n", 1, &["frames: 100 is not a power of two"]);
    }
}
