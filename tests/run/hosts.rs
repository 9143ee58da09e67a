//! Hosts that talk through the switch with the system's tools.

use serde_json::{Value, json};

use crate::for_every_kind;
use crate::namespace::{Host, ip, skip, veth};
use crate::switch::{Switch, await_that, number, over_ports};
use crate::wires::{far_end, port_table};

/// Hosts, each with an interface `eth0` on one port of a switch.
pub struct Lan {
    pub switch: Switch,
    pub hosts: Vec<Host>,
}

/// The address of host `n` that a command takes, by its IP version.
pub fn address(version: u8, n: usize) -> String {
    if version == 4 { format!("10.9.0.{n}") } else { format!("fd09::{n}") }
}

impl Lan {
    /// Host 1 is on port `p1` and so on.
    pub fn new(test: &str, kind: &str, head: &str, count: usize) -> Option<Lan> {
        Lan::with_ports(test, kind, head, "", count)
    }

    /// As [`Lan::new`], with further lines in the table of each port.
    pub fn with_ports(test: &str, kind: &str, head: &str, lines: &str, count: usize) -> Option<Lan> {
        let ports: Vec<String> = (1..=count).map(|n| format!("p{n}")).collect();
        if kind != "tap" {
            ports.iter().for_each(|port| veth(port, &far_end(kind, port)));
        }
        let tables: String = ports.iter().map(|port| port_table(port, kind, lines)).collect();
        let switch = Switch::start_or_skip(test, &format!("{head}\n{tables}"))?;
        let hosts: Vec<Host> = ports.iter().map(|port| host(&far_end(kind, port))).collect();
        ports.iter().for_each(|port| switch.await_link(port, "up"));
        hosts.iter().enumerate().for_each(|(i, host)| settle_in(host, i + 1));
        Some(Lan { switch, hosts })
    }

    /// Host `from` pings host `to`: every packet is answered.
    fn ping(&self, version: u8, from: usize, to: usize, size: usize) {
        let target = address(version, to);
        let said = self.hosts[from - 1].run(&format!("ping -{version} -c 3 -i 0.2 -W 5 -M do -s {size} {target}"));
        assert!(said.contains(" 3 received"), "{said}");
    }

    /// Host `from` moves data to host `to` for a second (`--reverse`: the other way round); iperf3's summary.
    fn iperf(&self, version: u8, from: usize, to: usize, more: &str) -> Value {
        let mut server = self.hosts[to - 1].command("iperf3");
        let mut server = server.args(["-s", "-1", "-p", "5201"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        await_that("iperf3 listens", || self.hosts[to - 1].run("ss -Hltn sport = 5201").contains("5201"));
        let target = address(version, to);
        let said = self.hosts[from - 1].run(&format!("iperf3 -{version} -c {target} -t 1 -J {more}"));
        server.wait().unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        said["end"].clone()
    }
}

/// A host with `interface` as its `eth0`, which is up and silent.
pub fn host(interface: &str) -> Host {
    let host = Host::start();
    ip(&format!("link set {interface} netns {} name eth0", host.id()));
    host.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    host.run("ip link set lo up");
    host.run("ip link set eth0 up addrgenmode none");
    host
}

/// Gives host `n` its addresses of both versions.
pub fn settle_in(host: &Host, n: usize) {
    host.run(&format!("ip link set eth0 address 02:00:00:00:00:0{n}"));
    host.run(&format!("ip addr add {}/24 dev eth0", address(4, n)));
    for set in ["accept_ra=0", "accept_dad=0", "disable_ipv6=0"] {
        host.run(&format!("sysctl -qw net.ipv6.conf.eth0.{set}"));
    }
    host.run(&format!("ip addr add {}/64 dev eth0 nodad", address(6, n)));
}

for_every_kind!(hosts_ping_and_talk_tcp_and_udp_with_the_offloads_that_linux_sets, hosts_talk_through_two_workers,);

fn hosts_ping_and_talk_tcp_and_udp_with_the_offloads_that_linux_sets(test: &str, kind: &str) {
    talk(test, kind, "");
}

fn hosts_talk_through_two_workers(test: &str, kind: &str) {
    talk(test, kind, "[workers]\ncount = 2");
}

fn talk(test: &str, kind: &str, head: &str) {
    if std::process::Command::new("iperf3").arg("--version").output().is_err() {
        return skip(test, "no iperf3");
    }
    let Some(lan) = Lan::new(test, kind, head, 2) else { return };
    for (version, headers) in [(4, 28), (6, 48)] {
        for size in [0, 56, 1500 - headers] {
            lan.ping(version, 1, 2, size);
        }
    }
    let stats = lan.switch.stats();
    assert_eq!((&stats["drops"], &stats["copies_dropped"]), (&json!({}), &json!({})));
    for version in [4, 6] {
        for more in ["", "--reverse"] {
            let end = lan.iperf(version, 1, 2, more);
            assert!(number(&end["sum_received"], "bytes") > 1_000_000, "{end}");
        }
        let end = lan.iperf(version, 2, 1, "-u -b 20M");
        assert!(number(&end["sum"], "packets") > 1000, "{end}");
    }
    let total = lan.switch.stop();
    // TCP finds the limits of queues; nothing else may be lost, and that has its name.
    let drops = total["drops"].as_object().unwrap();
    assert!(drops.keys().all(|reason| reason == "tx_full"), "{total:#}");
    assert_eq!((over_ports(&total, "rx_errors"), &total["copies_dropped"]), (0, &json!({})), "{total:#}");
    assert!(lost(&total) * 50 < number(&total, "packets_in"), "{total:#}");
}

/// Packets lost between the hosts, whatever the name.
fn lost(total: &Value) -> u64 {
    number(&total["fates"], "dropped") + over_ports(total, "rx_dropped") + over_ports(total, "handed_over_dropped")
}
