//! Geneve and GRE whose other end is Linux: its devices in a guest with a kernel of its own.

use serde_json::Value;

use crate::guest::Guest;
use crate::hosts::host;
use crate::namespace::{self, Host, skip};
use crate::sweep::{self, sweep};
use crate::switch::{Scratch, Switch, await_equal, number};
use crate::vpc::assert_little_was_dropped;
use crate::wires::port_table;

/// Seconds that a test may take that boots a guest.
const LIMIT_S: u32 = 240;

/// The longest IP packet on the wire between the two.
const MTU: usize = 1500;

/// A network that host 1 of it, on a port of the switch, and the guest have in common.
struct Network {
    /// Its number, which is in the names of all that belongs to it.
    n: usize,
    /// The guest's device.
    device: &'static str,
    /// Bytes in front of the inner IP packet on the wire.
    overhead: usize,
    /// The VPC's settings; without them the network carries IP packets of one version, by flows.
    vpc: Option<&'static str>,
    /// IP versions of what is carried, the first of them at length.
    versions: &'static [u8],
}

const NETWORKS: [Network; 6] = [
    Network {
        n: 1,
        device: "geneve id 5001 remote 192.0.2.1 udpcsum",
        overhead: 20 + 8 + 8 + 14,
        vpc: Some("kind = \"geneve\"\nremotes = [\"192.0.2.2\"]\nchecksum = true"),
        versions: &[4, 6],
    },
    Network {
        n: 2,
        device: "geneve id 5002 remote fd02::1",
        overhead: 40 + 8 + 8 + 14,
        vpc: Some("kind = \"geneve\"\nremotes = [\"fd02::2\"]"),
        versions: &[6, 4],
    },
    Network {
        n: 3,
        device: "gretap key 5003 csum local 192.0.2.2 remote 192.0.2.1",
        overhead: 20 + 12 + 14,
        vpc: Some("kind = \"gre\"\nremotes = [\"192.0.2.2\"]\nchecksum = true"),
        versions: &[4, 6],
    },
    Network {
        n: 4,
        device: "ip6gretap key 5004 local fd02::2 remote fd02::1 encaplimit none",
        overhead: 40 + 8 + 14,
        vpc: Some("kind = \"gre\"\nremotes = [\"fd02::2\"]"),
        versions: &[6, 4],
    },
    Network {
        n: 5,
        device: "gre key 42 local 192.0.2.2 remote 192.0.2.3",
        overhead: 20 + 8,
        vpc: None,
        versions: &[4],
    },
    Network {
        n: 6,
        device: "ip6gre key 43 local fd02::2 remote fd02::3 encaplimit none",
        overhead: 40 + 8,
        vpc: None,
        versions: &[6],
    },
];

/// What the networks without a VPC have instead.
const FLOWS: &str = "\
tunnel 47 gre
in_port(9),eth_type(0x0800),ipv4(dst=192.0.2.3,proto=47), actions:tnl_pop(47)
in_port(9),eth_type(0x86dd),ipv6(dst=fd02::3,proto=47), actions:tnl_pop(47)
in_port(5),eth_type(0x0800), actions:pop_eth,tnl_push(tnl_port(47),header(size=42,type=3,eth(dst=02:00:00:00:09:02,src=02:00:00:00:09:01,\
dl_type=0x0800),ipv4(src=192.0.2.3,dst=192.0.2.2,proto=47,tos=0,ttl=64,frag=0x4000),gre((flags=0x2000,proto=0x800),key=0x2a)),out_port(9)),9
in_port(6),eth_type(0x86dd),ipv6(src=fd09:6::1), actions:pop_eth,tnl_push(tnl_port(47),header(size=62,type=109,eth(dst=02:00:00:00:09:02,\
src=02:00:00:00:09:01,dl_type=0x86dd),ipv6(src=fd02::3,dst=fd02::2,label=0,proto=47,tclass=0x0,hlimit=64),\
gre((flags=0x2000,proto=0x86dd),key=0x2b)),out_port(9)),9
tunnel(tun_id=0x2a),in_port(47),packet_type(ns=1,id=0x0800),eth_type(0x0800), actions:push_eth(src=02:00:00:00:05:02,dst=02:00:00:00:05:01),5
tunnel(tun_id=0x2b),in_port(47),packet_type(ns=1,id=0x86dd),eth_type(0x86dd), actions:push_eth(src=02:00:00:00:06:02,dst=02:00:00:00:06:01),6
";

impl Network {
    fn address(&self, version: u8, end: usize) -> String {
        let n = self.n;
        if version == 4 { format!("10.9.{n}.{end}") } else { format!("fd09:{n}::{end}") }
    }

    fn mtu(&self) -> usize {
        MTU - self.overhead
    }

    /// Its part of the switch's configuration.
    fn settings(&self) -> String {
        let n = self.n;
        let port = port_table(&format!("p{n}"), "tap", &format!("number = {n}"));
        match self.vpc {
            Some(vpc) => format!("{port}[[vpc]]\nvni = {}\nmembers = [\"p{n}\"]\n{vpc}\n", 5000 + n),
            None => port,
        }
    }

    /// The guest's end; says `SKIP` if its kernel has no such device.
    fn settle_guest(&self, test: &str, guest: &mut Guest) -> bool {
        let (n, mtu) = (self.n, self.mtu());
        let (is_there, said) = guest.attempt(&format!("ip link add t{n} type {}", self.device));
        if !is_there {
            skip(test, &format!("the guest has no such device: {}: {}", self.device, said.trim()));
            return false;
        }
        if self.vpc.is_some() {
            guest.run(&format!("ip link set t{n} address 02:00:00:00:0{n}:02"));
        }
        guest.run(&format!("ip link set t{n} mtu {mtu} gso_max_segs 1 addrgenmode none up"));
        for version in self.versions {
            let (len, nodad) = if *version == 4 { (24, "") } else { (64, "nodad") };
            guest.run(&format!("ip addr add {}/{len} dev t{n} {nodad}", self.address(*version, 2)));
        }
        true
    }

    /// Host 1.
    fn host(&self) -> Host {
        let n = self.n;
        let host = host(&format!("p{n}"));
        host.run(&format!("ip link set eth0 address 02:00:00:00:0{n}:01 mtu {}", self.mtu()));
        host.run("sysctl -qw net.ipv6.conf.eth0.accept_ra=0 net.ipv6.conf.eth0.disable_ipv6=0");
        for version in self.versions {
            let (len, nodad) = if *version == 4 { (24, "") } else { (64, "nodad") };
            host.run(&format!("ip addr add {}/{len} dev eth0 {nodad}", self.address(*version, 1)));
            if self.vpc.is_none() {
                let there = self.address(*version, 2);
                host.run(&format!("ip neigh replace {there} lladdr 02:00:00:00:0{n}:02 dev eth0 nud permanent"));
            }
        }
        host
    }

    /// Echoes and TCP, both ways.
    fn talk(&self, test: &str, host: &Host, guest: &mut Guest) {
        for version in self.versions {
            let here = self.address(*version, 1);
            for size in [0, 56, self.longest(*version)] {
                let said = guest.run(&format!("ping -{version} -c 2 -i 0.05 -W 5 -s {size} {here}"));
                assert!(said.contains(" 2 packets received"), "{said}");
            }
        }
        let version = self.versions[0];
        let there = self.address(version, 2);
        sweep(test, host, &there, self.longest(version));
        for more in ["", "--reverse"] {
            guest.run("iperf3 -s -1 -D; until grep -q ':1451 [0-9A-F:]* 0A' /proc/net/tcp6; do sleep 0.05; done");
            // No more under way than waits for a slow guest.
            let said = host.run(&format!("iperf3 -{version} -c {there} -n 2M -w 128K -J {more}"));
            let said: Value = serde_json::from_str(&said).unwrap();
            assert!(said["end"]["sum_received"]["bytes"].as_u64() > Some(1_000_000), "{said}");
        }
    }

    /// Bytes of the longest echo.
    fn longest(&self, version: u8) -> usize {
        self.mtu() - if version == 4 { 28 } else { 48 }
    }
}

/// Packets of the flows that do this.
fn packets_of(switch: &Switch, action: &str) -> u64 {
    let flows = switch.ask("flows");
    let of = |flow: &&Value| flow["actions"].as_str().unwrap().contains(action);
    flows.iter().filter(of).map(|flow| number(flow, "packets")).sum()
}

#[test]
fn linux_in_a_guest_and_wye_talk_geneve_and_gre() {
    if sweep::plays() {
        return;
    }
    let test = "geneve_gre::linux_in_a_guest_and_wye_talk_geneve_and_gre";
    namespace::run_within(LIMIT_S, test, || {
        if std::process::Command::new("iperf3").arg("--version").output().is_err() {
            return skip(test, "no iperf3");
        }
        let Some(mut guest) = Guest::start(test, "g0") else { return };
        let flows = Scratch::new("flows");
        std::fs::write(&flows.0, FLOWS).unwrap();
        let wire = "number = 9\ninterface = \"g0\"\nmac = \"02:00:00:00:09:01\"\n\
                    address = [\"192.0.2.1/24\", \"192.0.2.3/24\", \"fd02::1/64\", \"fd02::3/64\"]";
        let settings: String = NETWORKS.iter().map(Network::settings).collect();
        let config = format!("flows = {:?}\n{}{settings}", flows.0, port_table("wire", "af_packet", wire));
        let Some(switch) = Switch::start_or_skip(test, &config) else { return };
        guest.run("ip link set eth0 addrgenmode none up");
        guest.run("ip addr add 192.0.2.2/24 dev eth0 && ip addr add fd02::2/64 dev eth0 nodad");
        // So that Linux counts packets where it receives them, and not what it makes of several.
        guest.run("ethtool -K eth0 gro off");
        let mut hosts = Vec::new();
        for network in &NETWORKS {
            if !network.settle_guest(test, &mut guest) {
                return;
            }
            hosts.push(network.host());
            switch.await_link(&format!("p{}", network.n), "up");
        }
        switch.await_link("wire", "up");
        let mut dropped = 0;
        for (network, host) in NETWORKS.iter().zip(&hosts) {
            network.talk(test, host, &mut guest);
            if network.vpc.is_some() {
                dropped = number(&switch.port("wire"), "tx_dropped");
            }
        }
        // What one side sent is what the other received, both ways.
        await_equal("packets on the wire", || {
            let wye = switch.port("wire");
            let came = number(&wye, "rx_packets") + number(&wye, "rx_dropped");
            (guest.counts("eth0"), (number(&wye, "tx_packets"), came))
        });
        // Of what flows alone carry, the tunnel devices count what the flows count.
        await_equal("packets in the tunnels of flows", || {
            let lost = number(&switch.port("wire"), "tx_dropped") - dropped;
            let ([there, back], of) = (["tnl_push(", "tnl_pop(47)"], |action| packets_of(&switch, action));
            let (gre, ip6gre) = (guest.counts("t5"), guest.counts("t6"));
            ((gre.0 + ip6gre.0, gre.1 + ip6gre.1), (of(there) - lost, of(back)))
        });
        let total = switch.stop();
        assert_little_was_dropped(&total);
    });
}
