//! The hosts' interfaces and the switch's ports count the same packets and bytes.

use serde_json::Value;

use crate::for_every_kind;
use crate::hosts::{Lan, address};
use crate::namespace::Host;
use crate::switch::{await_that, number};

for_every_kind!(interfaces_of_hosts_count_what_the_ports_count,);

/// Packets and bytes that something received and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    rx: [u64; 2],
    tx: [u64; 2],
}

impl Counts {
    /// What the host's kernel has counted on its interface.
    fn of_host(host: &Host) -> Counts {
        let said: Value = serde_json::from_str(&host.run("ip -s -json link show eth0")).unwrap();
        let stats = &said[0]["stats64"];
        let read = |way: &str| ["packets", "bytes"].map(|what| number(&stats[way], what));
        for way in ["rx", "tx"] {
            assert_eq!((number(&stats[way], "dropped"), number(&stats[way], "errors")), (0, 0), "{way}: {said}");
        }
        Counts { rx: read("rx"), tx: read("tx") }
    }

    /// What the switch has counted on its port.
    fn of_port(lan: &Lan, name: &str) -> Counts {
        let port = lan.switch.port(name);
        for lost in ["rx_dropped", "rx_errors", "tx_dropped"] {
            assert_eq!(number(&port, lost), 0, "{lost}: {port}");
        }
        let read = |way: &str| ["packets", "bytes"].map(|what| number(&port, &format!("{way}_{what}")));
        Counts { rx: read("rx"), tx: read("tx") }
    }

    fn since(self, before: Counts) -> Counts {
        let less = |now: [u64; 2], then: [u64; 2]| [now[0] - then[0], now[1] - then[1]];
        Counts { rx: less(self.rx, before.rx), tx: less(self.tx, before.tx) }
    }

    /// The same packets seen from the other end of the wire.
    fn seen_from_afar(self) -> Counts {
        Counts { rx: self.tx, tx: self.rx }
    }
}

/// Bytes of the frame that carries an ICMP echo with `size` bytes in IPv4.
fn frame_len(size: u64) -> u64 {
    14 + 20 + 8 + size
}

fn interfaces_of_hosts_count_what_the_ports_count(test: &str, kind: &str) {
    let Some(lan) = Lan::new(test, kind, "", 2) else { return };
    for (at, other) in [(1, 2), (2, 1)] {
        // Nobody asks for an address, and nobody speaks of IPv6.
        let host = &lan.hosts[at - 1];
        host.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
        host.run(&format!(
            "ip neigh replace {} lladdr 02:00:00:00:00:0{other} dev eth0 nud permanent",
            address(4, other)
        ));
    }
    let read = || {
        let hosts = [0, 1].map(|at| Counts::of_host(&lan.hosts[at]));
        (hosts, ["p1", "p2"].map(|name| Counts::of_port(&lan, name)))
    };
    // What was sent while the hosts settled in is over when nothing is counted for a while.
    let mut before = read();
    await_that("the hosts are silent", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        std::mem::replace(&mut before, read()) == before
    });

    // 40 echoes there and back, of three sizes, and then 25 that are not answered.
    let echoes = [(10, 0), (20, 56), (10, 1472)];
    for (count, size) in echoes {
        let said = lan.hosts[0].run(&format!("ping -4 -c {count} -i 0.005 -W 5 -s {size} {}", address(4, 2)));
        assert!(said.contains(&format!(" {count} received")), "{said}");
    }
    lan.hosts[1].run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
    let mut ping = lan.hosts[0].command("ping");
    ping.args(["-4", "-c", "25", "-i", "0.005", "-W", "0.1", "-s", "1000", &address(4, 2)]);
    // No answer is no success.
    assert!(!ping.stdout(std::process::Stdio::null()).status().unwrap().success());

    let both: [u64; 2] = [40, echoes.iter().map(|&(count, size)| count * frame_len(size)).sum()];
    let there = [both[0] + 25, both[1] + 25 * frame_len(1000)];
    let expected = [Counts { rx: both, tx: there }, Counts { rx: there, tx: both }];
    // The port's counters are read out a moment after the packets.
    await_that("the ports count what was sent", || {
        let (_, ports) = read();
        ports[0].since(before.1[0]).rx[0] >= there[0] && ports[1].since(before.1[1]).tx[0] >= there[0]
    });
    let (hosts, ports) = read();
    for at in 0..2 {
        let mut host = hosts[at].since(before.0[at]);
        let without_headers = expected[at].tx[1] - 14 * expected[at].tx[0];
        if kind == "af_xdp" && host.tx[1] == without_headers {
            // With XDP at the other end, a veth counts what it sends there, behind the Ethernet header (drivers/net/veth.c, veth_xdp_rcv).
            host.tx[1] = expected[at].tx[1];
        }
        assert_eq!(host, expected[at], "host {}", at + 1);
        assert_eq!(ports[at].since(before.1[at]).seen_from_afar(), expected[at], "port {}", at + 1);
    }
    let total = lan.switch.stop();
    assert_eq!((&total["drops"], &total["copies_dropped"]), (&serde_json::json!({}), &serde_json::json!({})));
}
