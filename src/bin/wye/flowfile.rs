//! A file of flows, as `wye replay`, `wye explain` and `wye run` read it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use wye::action::bond::BUCKETS;
use wye::datapath::{Config, Datapath, FlowId, FlowPut};
use wye::flow::action::Action;
use wye::flow::text::{FlowText, PortNames, parse_flow};
use wye::gateway::underlay::Endpoint;
use wye::gateway::underlay::messages::Link;
use wye::meter::{Band, MeterConfig, MeterUnit};
use wye::port::PortEntry;
use wye::port::table::{PORT_NUMBER_END, PortAddError};
use wye::time::Nanos;
use wye::tunnel::{Behaviour, Kind, Options, Template, Tunnel, Way};

/// What `--help` says of the format.
pub const FORMAT: &str = "\
The flow file has one flow a line, in the words of ovs-dpctl:

  in_port(1),eth_type(0x0800),ipv4(dst=10.1.0.0/16), actions:push_vlan(vid=5,pcp=0),2
  in_port(1),eth_type(0x0806), actions:2,3

Empty lines and what follows a # are comments; 'ufid:…' in front and statistics, as dump-flows prints them, are read over. Three kinds of
line set up what actions may name:

  meter 1 kbps 8000 burst 1000      (or pps; several 'RATE burst SIZE' are several bands)
  bond 7 2 3                        (bond 7 spreads over ports 2 and 3)
  tunnel 4789 vxlan                 (what tnl_pop(4789) takes out comes in again on port 4789; any kind of Open vSwitch's)
  tunnel 5 srv6 End.DX4             (tnl_pop(5) is a segment's behaviour, by its name in IANA's registry: 'End with PSP', 'End.DX2')
  tunnel 9 vxlan 192.0.2.1 192.0.2.2 port 3 mtu 1500
                                    (encap(tunnel=9) sends from the first address to the second by port 3; vxlan, geneve, gre)

Ports are numbers, and exist because a flow or a bond names them; 'wye run' has those of its configuration. There 'tunnel' is without
addresses: tnl_push has outer headers as they are to be sent, and VPCs find out about the other end by themselves.";

/// The longest flow file that is read.
const LEN_MAX: u64 = 64 << 20;

/// Bytes that every port sends.
const PACKET_LEN_MAX: u32 = 65_535;

/// What the file says.
#[derive(Debug, Default)]
pub struct FlowFile {
    /// What messages call it.
    name: String,
    /// Flows with their lines.
    flows: Vec<(usize, FlowText)>,
    meters: Vec<(usize, u32, MeterConfig)>,
    bonds: Vec<(usize, u32, Vec<u32>)>,
    tunnels: Vec<(usize, u32, Tunnel)>,
    /// Ports, with the first lines that name them.
    ports: BTreeMap<u32, usize>,
}

/// What is wrong, and in which line.
type Wrong = (usize, String);

/// A datapath with everything that a file asks for.
#[derive(Debug)]
pub struct Loaded {
    /// The datapath; time begins at 1 s.
    pub datapath: Datapath,
    /// Lines of the flows, by their numbers.
    pub lines: BTreeMap<u32, usize>,
}

impl FlowFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The kernel's, or what is wrong and in which line.
    pub fn read(path: &Path) -> Result<FlowFile, String> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| format!("{name}: {e}"))?;
        file.take(LEN_MAX + 1).read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
        if bytes.len() as u64 > LEN_MAX {
            return Err(format!("{name}: longer than {LEN_MAX} bytes"));
        }
        match text_of(&bytes).and_then(FlowFile::parse) {
            Ok(file) => Ok(FlowFile { name, ..file }),
            Err((line, what)) => Err(format!("{name}:{line}: {what}")),
        }
    }

    fn parse(text: &str) -> Result<FlowFile, Wrong> {
        let mut file = FlowFile::default();
        for (i, line) in text.lines().enumerate() {
            let at = |what: String| (i + 1, what);
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                ["meter", id, unit, ref bands @ ..] => {
                    let (id, config) = meter(id, unit, bands).map_err(at)?;
                    file.meters.push((i + 1, id, config));
                }
                ["tunnel", number_, kind, ref ends @ ..] => {
                    let number = number("tunnel", number_).map_err(at)?;
                    let (tunnel, port) = tunnel(kind, ends).map_err(at)?;
                    if let Some(port) = port {
                        file.port("tunnel", port, i + 1).map_err(at)?;
                    }
                    file.tunnels.push((i + 1, number, tunnel));
                }
                ["bond", id, ref ports @ ..] => {
                    let ports: Result<Vec<u32>, String> = ports.iter().map(|p| number("bond", p)).collect();
                    let ports = ports.map_err(at)?;
                    if ports.is_empty() {
                        return Err(at("bond: no port is named".to_owned()));
                    }
                    ports.iter().try_for_each(|&port| file.port("bond", port, i + 1)).map_err(at)?;
                    file.bonds.push((i + 1, number("bond", id).map_err(at)?, ports));
                }
                _ => {
                    let flow = parse_flow(line, &PortNames::NONE).map_err(|e| at(e.to_string()))?;
                    each_action(&flow.actions, &mut |action| match action {
                        Action::Output(port) => file.port("output", *port, i + 1),
                        _ => Ok(()),
                    })
                    .map_err(at)?;
                    file.flows.push((i + 1, flow));
                }
            }
        }
        // A meter may be defined below the flow that has it.
        let meters: BTreeSet<u32> = file.meters.iter().map(|(_, id, _)| *id).collect();
        let bonds: BTreeSet<u32> = file.bonds.iter().map(|(_, id, _)| *id).collect();
        let tunnels: BTreeMap<u32, &Tunnel> = file.tunnels.iter().map(|(_, id, tunnel)| (*id, tunnel)).collect();
        once("meter", file.meters.iter().map(|(line, id, _)| (*line, *id)))?;
        once("bond", file.bonds.iter().map(|(line, id, _)| (*line, *id)))?;
        once("tunnel", file.tunnels.iter().map(|(line, id, _)| (*line, *id)))?;
        for (line, flow) in &file.flows {
            each_action(&flow.actions, &mut |action| match action {
                Action::Meter(id) if !meters.contains(id) => {
                    Err(format!("meter({id}): no line of the file defines meter {id}"))
                }
                Action::LbOutput(id) if !bonds.contains(id) => {
                    Err(format!("bond {id}: no line of the file defines it"))
                }
                Action::TunnelPop(id) | Action::Encap { tunnel: id, .. } if !tunnels.contains_key(id) => {
                    Err(format!("tunnel {id}: no line of the file defines it"))
                }
                Action::Encap { tunnel: id, .. } if tunnels.get(id).is_some_and(|tunnel| tunnel.way.is_none()) => {
                    Err(format!("encap(tunnel={id}): the tunnel's line says no addresses, so packets have no way to its other end"))
                }
                _ => Ok(()),
            })
            .map_err(|what| (*line, what))?;
        }
        Ok(file)
    }

    /// Notes that `line` names the port.
    fn port(&mut self, field: &str, port: u32, line: usize) -> Result<(), String> {
        if port >= PORT_NUMBER_END {
            return Err(format!("{field}: {}", PortAddError::NumberOutOfRange(port)));
        }
        self.ports.entry(port).or_insert(line);
        Ok(())
    }

    /// Sets up a datapath in which `in_ports` exist too. Its random numbers are the same every time.
    ///
    /// # Errors
    /// What could not be set up, and its line; of `in_ports`, after `whose`.
    pub fn load(&self, in_ports: &[u32], whose: &str) -> Result<Loaded, String> {
        let datapath = self.datapath(4096, 65_535 + 256)?;
        let add = |number| add_port(&datapath, number);
        for (&number, &line) in &self.ports {
            add(number).map_err(|e| self.wrong(line, &format!("port {number}: {e}")))?;
        }
        for &number in in_ports.iter().filter(|number| !self.ports.contains_key(number)) {
            add(number).map_err(|e| format!("{whose}: packets come in on port {number}: {e}"))?;
        }
        let lines = self.install(&datapath, START)?;
        Ok(Loaded { datapath, lines })
    }

    /// An empty datapath with room for the flows.
    fn datapath(&self, pool_buffers: u32, buffer_len: u32) -> Result<Datapath, String> {
        let flows_max = u32::try_from(self.flows.len()).unwrap_or(u32::MAX).max(1);
        let config = Config { flows_max, pool_buffers, buffer_len, seed: Some(1), ..Config::default() };
        Datapath::new(config).map_err(|e| e.to_string())
    }

    /// Checks that the file fits a running switch, which has these ports; it is set up once on trial.
    ///
    /// # Errors
    /// What does not, and its line.
    pub fn check(&self, ports: &BTreeSet<u32>) -> Result<(), String> {
        for (number, line) in &self.ports {
            if !ports.contains(number) {
                return Err(self.wrong(*line, &format!("port {number}: the switch has none of this number")));
            }
        }
        let mut tunnels = BTreeSet::new();
        for (line, number, tunnel) in &self.tunnels {
            let failed = |what: &str| Err(self.wrong(*line, &format!("tunnel {number}: {what}")));
            if *number >= PORT_NUMBER_END {
                return failed(&format!("{}", PortAddError::NumberOutOfRange(*number)));
            }
            if ports.contains(number) {
                return failed("a port has this number");
            }
            if tunnel.way.is_some() {
                return failed("nobody asks for the other end's link-layer address: use tnl_push, or a VPC");
            }
            tunnels.insert(*number);
        }
        for (line, flow) in &self.flows {
            let (from, is_exact) = (flow.key.base.in_port, flow.mask.0.base.in_port == u32::MAX);
            if is_exact && !ports.contains(&from) && !tunnels.contains(&from) {
                return Err(self.wrong(*line, &format!("in_port({from}): neither a port of the switch nor a tunnel")));
            }
        }
        let trial = self.datapath(256, 2304)?;
        for &number in ports {
            add_port(&trial, number).map_err(|e| format!("{}: port {number}: {e}", self.name))?;
        }
        self.install(&trial, START).map(drop)
    }

    /// Puts meters, bonds, tunnels and flows into a datapath, which has the ports; returns the lines of the flows, by their numbers.
    ///
    /// # Errors
    /// What could not be set up, and its line.
    pub fn install(&self, datapath: &Datapath, now: Nanos) -> Result<BTreeMap<u32, usize>, String> {
        for (line, id, config) in &self.meters {
            let set = datapath.meter_set(*id, config.clone(), now);
            set.map_err(|e| self.wrong(*line, &format!("meter {id}: {e}")))?;
        }
        for (_, id, ports) in &self.bonds {
            datapath.bond_set(*id, core::array::from_fn::<u32, BUCKETS, _>(|bucket| ports[bucket % ports.len()]));
        }
        for (_, number, tunnel) in &self.tunnels {
            datapath.tunnel_set(*number, tunnel.clone());
        }
        let mut lines = BTreeMap::new();
        for (line, flow) in &self.flows {
            let ufid = flow.ufid.map(u128::from_be_bytes);
            let put = FlowPut { ufid, now, ..FlowPut::create(&flow.key, &flow.mask, flow.actions.clone()) };
            datapath.flow_put(put).map_err(|e| self.wrong(*line, &e))?;
            let info = datapath.flow_get(FlowId::Exactly(&flow.key, &flow.mask)).map_err(|e| self.wrong(*line, &e))?;
            lines.insert(info.number, *line);
        }
        Ok(lines)
    }

    /// The one form of what is wrong in a line.
    fn wrong(&self, line: usize, what: &dyn std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.name)
    }
}

/// When a loaded datapath's time begins.
pub const START: Nanos = Nanos(1_000_000_000);

/// Checks that no line defines again what an earlier one did.
fn once(what: &str, defined: impl Iterator<Item = (usize, u32)>) -> Result<(), Wrong> {
    let mut first = BTreeMap::new();
    for (line, id) in defined {
        if let Some(earlier) = first.insert(id, line) {
            return Err((line, format!("{what} {id}: line {earlier} defines it already")));
        }
    }
    Ok(())
}

/// Adds a port of which only the number matters.
fn add_port(datapath: &Datapath, number: u32) -> Result<(), PortAddError> {
    let entry = PortEntry { number, name: number.to_string().into(), packet_len_max: PACKET_LEN_MAX, up: true };
    datapath.port_add(entry)
}

fn number(field: &str, word: &str) -> Result<u32, String> {
    word.parse().map_err(|_| format!("{field}: '{word}' is not a number below 4294967296"))
}

/// The file's text.
fn text_of(bytes: &[u8]) -> Result<&str, Wrong> {
    std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        (line, "not UTF-8".to_owned())
    })
}

fn meter(id: &str, unit: &str, bands: &[&str]) -> Result<(u32, MeterConfig), String> {
    let unit = match unit {
        "pps" => MeterUnit::PacketsPerSecond,
        "kbps" => MeterUnit::Kbps,
        other => return Err(format!("meter: '{other}' is neither pps nor kbps")),
    };
    let mut out = Vec::new();
    let mut words = bands;
    while let [rate, rest @ ..] = words {
        let (burst, rest) = match rest {
            ["burst", burst, rest @ ..] => (number("meter burst", burst)?, rest),
            _ => (0, rest),
        };
        out.push(Band { rate: number("meter rate", rate)?, burst });
        words = rest;
    }
    if out.is_empty() {
        return Err("meter: no rate is given".to_owned());
    }
    Ok((number("meter", id)?, MeterConfig { unit, bands: out }))
}

/// A tunnel, and the port that its packets leave by.
fn tunnel(kind: &str, ends: &[&str]) -> Result<(Tunnel, Option<u32>), String> {
    let named = Kind::ALL.iter().copied().find(|k| k.name() == kind);
    let kind = named.ok_or_else(|| format!("tunnel: '{kind}' is no kind of tunnel"))?;
    if let (Kind::Srv6, [_, ..]) = (kind, ends) {
        let name = ends.join(" ");
        let behaviour = Behaviour::from_name(&name);
        let behaviour = behaviour.ok_or_else(|| format!("tunnel: '{name}' is no behaviour of a segment"))?;
        let options = Options { behaviour: Some(behaviour), ..Options::default() };
        return Ok((Tunnel::new(kind, options), None));
    }
    let tunnel = Tunnel::new(kind, Options::default());
    let (from, to, port, mtu) = match *ends {
        [] => return Ok((tunnel, None)),
        [from, to, "port", port] => (from, to, port, u32::MAX),
        [from, to, "port", port, "mtu", mtu] => (from, to, port, number("tunnel mtu", mtu)?),
        _ => return Err("tunnel: what follows the kind is not 'FROM TO port PORT mtu MTU'".to_owned()),
    };
    if !matches!(kind, Kind::Vxlan | Kind::Geneve | Kind::Gre) {
        return Err(format!("tunnel: {} is only taken off here", kind.name()));
    }
    let address = |word: &str| word.parse().map_err(|_| format!("tunnel: '{word}' is no IP address"));
    let (from, endpoint) = (address(from)?, Endpoint::new(kind, address(to)?));
    let out_port = number("tunnel port", port)?;
    // Nobody's addresses: there is no link.
    let link = Link { src: [2, 0, 0, 0, 0, 1], vlan: None };
    let header = endpoint.header(link, [2, 0, 0, 0, 0, 2], from);
    let template = Template::new(kind, &header).map_err(|_| "tunnel: both addresses must be of one IP version")?;
    let way = Way { template: template.with_inherit(endpoint.inherit), out_port, mtu };
    Ok((Tunnel { way: Some(way.into()), ..tunnel }, Some(out_port)))
}

/// Calls `f` for every action, those inside of others included, up to the first that it refuses.
fn each_action(actions: &[Action], f: &mut impl FnMut(&Action) -> Result<(), String>) -> Result<(), String> {
    for action in actions {
        f(action)?;
        match action {
            Action::Sample { actions, .. } | Action::Clone(actions) => each_action(actions, f)?,
            Action::CheckPktLen { if_greater, if_less_equal, .. } => {
                each_action(if_greater, f)?;
                each_action(if_less_equal, f)?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("\n# nothing\nin_port(1),eth_type(0x0800), actions:outputt", 3, "column"),
            ("meter 1 mbps 5", 1, "'mbps' is neither pps nor kbps"),
            ("meter 1 pps", 1, "no rate"),
            ("meter x pps 5", 1, "'x' is not a number"),
            ("bond 7", 1, "no port"),
            ("tunnel 7 ipip", 1, "'ipip' is no kind"),
            ("tunnel 7 vxlan 10.0.0.1", 1, "'FROM TO port PORT mtu MTU'"),
            ("tunnel 7 vxlan 10.0.0.1 ::1 port 2", 1, "one IP version"),
            ("tunnel 7 gtpu 10.0.0.1 10.0.0.2 port 2", 1, "gtpu is only taken off"),
            ("tunnel 7 srv6 End.DX5", 1, "'End.DX5' is no behaviour"),
            ("in_port(1), actions:tnl_pop(7)", 1, "tunnel 7: no line of the file defines it"),
            ("in_port(1), actions:lb_output(7)", 1, "bond 7: no line of the file defines it"),
            ("tunnel 7 gre\ntunnel 7 vxlan", 2, "tunnel 7: line 1 defines it already"),
            ("meter 1 pps 5\n\nmeter 1 pps 6", 3, "meter 1: line 1 defines it already"),
            ("bond 7 2\nbond 7 3", 2, "bond 7: line 1 defines it already"),
            ("tunnel 7 vxlan\nin_port(1), actions:encap(tunnel=7)", 2, "says no addresses"),
            ("bond 7 2 65536", 1, "bond: port number 65536 is out of range"),
            (
                "meter 1 pps 5\nin_port(1), actions:sample(sample=1%,actions(meter(2))),2",
                2,
                "meter(2): no line of the file defines",
            ),
            ("in_port(1), actions:2\nin_port(2), actions:clone(70000)", 2, "output: port number 70000 is out of range"),
        ] {
            let (at, message) = FlowFile::parse(text).unwrap_err();
            assert!(at == line && message.contains(what), "{text}: {at}: {message}");
        }
    }

    #[test]
    fn what_cannot_be_loaded_is_told_with_file_and_line() {
        let file = |text: &str| FlowFile { name: "f".to_owned(), ..FlowFile::parse(text).unwrap() };
        let error = |text: &str| file(text).load(&[1], "it").unwrap_err();
        assert_eq!(error("in_port(1), actions:2\n# again\nin_port(1), actions:3"), "f:3: the flow exists");
        let bands: String = (0..100).map(|i| format!(" {i} burst 1")).collect();
        let many = error(&format!("in_port(1), actions:2\nmeter 4 pps{bands}"));
        assert!(many.starts_with("f:2: meter 4: "), "{many}");
        let bonds: String = (0..66)
            .map(|bond| {
                let ports: String = (0..1000).map(|port| format!(" {}", (bond * 1000 + port) % 65_536)).collect();
                format!("bond {bond}{ports}\n")
            })
            .collect();
        let many = error(&bonds);
        assert!(many.starts_with("f:") && many.contains(": port "), "{many}");
    }

    #[test]
    fn what_does_not_fit_a_running_switch_is_told_with_file_and_line() {
        let check = |text: &str| {
            let file = FlowFile { name: "f".to_owned(), ..FlowFile::parse(text).unwrap() };
            file.check(&BTreeSet::from([1, 2])).err().unwrap_or_default()
        };
        for (text, message) in [
            ("in_port(1), actions:2", ""),
            ("tunnel 9 srv6 End with PSP\nin_port(1), actions:tnl_pop(9)\nin_port(9), actions:2", ""),
            ("in_port(1), actions:2\nin_port(2), actions:3", "f:2: port 3: the switch has none of this number"),
            ("in_port(9), actions:2", "f:1: in_port(9): neither a port of the switch nor a tunnel"),
            ("\ntunnel 2 gre", "f:2: tunnel 2: a port has this number"),
            ("tunnel 65536 gre", "f:1: tunnel 65536: port number 65536 is out of range (0 to 65535)"),
            (
                "tunnel 9 gre 10.0.0.1 10.0.0.2 port 2",
                "f:1: tunnel 9: nobody asks for the other end's link-layer address: use tnl_push, or a VPC",
            ),
        ] {
            assert_eq!(check(text), message, "{text}");
        }
    }

    #[test]
    fn a_segment_has_the_behaviour_that_its_line_names() {
        let file = FlowFile::parse("tunnel 5 srv6 End.X with PSP & USD\ntunnel 6 srv6").unwrap();
        let behaviours: Vec<_> = file.tunnels.iter().map(|(_, id, tunnel)| (*id, tunnel.options.behaviour)).collect();
        let flavours = wye::tunnel::Flavours { psp: true, usp: false, usd: true };
        assert_eq!(behaviours, [(5, Some(Behaviour::EndX(flavours))), (6, None)]);
    }

    #[test]
    fn a_meter_may_be_defined_below_the_flow_that_has_it() {
        assert!(FlowFile::parse("in_port(1), actions:meter(1),2\nmeter 1 pps 5").is_ok());
    }

    #[test]
    fn what_is_not_utf8_is_told_with_its_line() {
        assert_eq!(text_of(b"in_port(1), actions:2\n# caf\xe9\n"), Err((2, "not UTF-8".to_owned())));
        assert_eq!(text_of("# café".as_bytes()), Ok("# café"));
    }

    #[test]
    fn ports_are_those_that_flows_and_bonds_name() {
        let text = "in_port(1), actions:2,clone(3),sample(sample=50%,actions(4))\nbond 7 8 9\n";
        let loaded = FlowFile::parse(text).unwrap().load(&[1], "it").unwrap();
        let ports: Vec<u32> = (0..10).filter(|&n| loaded.datapath.ports().with_slot(n).is_some()).collect();
        assert_eq!(ports, [1, 2, 3, 4, 8, 9]);
        assert_eq!(loaded.lines.into_values().collect::<Vec<_>>(), [1]);
    }
}
