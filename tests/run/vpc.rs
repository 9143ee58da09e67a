//! VPCs whose other end is Linux: its VXLAN device in a namespace of its own.

use serde_json::{Value, json};

use crate::hosts::{Lan, address, host, settle_in};
use crate::namespace::{self, Host, ip, skip, veth};
use crate::sweep;
use crate::switch::{Switch, await_that, number};
use crate::wires::{far_end, port_table};

/// The address of the underlay at end `n`.
fn underlay(version: u8, n: usize) -> String {
    if version == 4 { format!("192.0.2.{n}") } else { format!("fd02::{n}") }
}

const MTU: u64 = 1500;

/// A switch with host 1 on `p1`, and behind `p9` a Linux host whose VXLAN device is host 2 of the same VPC.
struct Joined {
    lan: Lan,
    linux: Host,
}

impl Joined {
    fn new(test: &str, kind: &str, version: u8, device: &str, vpc: &str) -> Option<Joined> {
        let far = far_end(kind, "p9");
        if kind != "tap" {
            veth("p9", &far);
        }
        let address = format!("address = [\"{}/24\", \"{}/64\"]", underlay(4, 1), underlay(6, 1));
        let ports = port_table("p1", "tap", "") + &port_table("p9", kind, &address);
        let remotes = format!("remotes = [\"{}\"]", underlay(version, 2));
        let vpc = format!("[[vpc]]\nvni = 5001\nmembers = [\"p1\"]\n{remotes}\n{vpc}\n");
        let switch = Switch::start_or_skip(test, &format!("{ports}{vpc}"))?;
        let linux = host(&far);
        linux.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
        linux.run(&format!("ip addr add {}/24 dev eth0", underlay(4, 2)));
        linux.run(&format!("ip addr add {}/64 dev eth0 nodad", underlay(6, 2)));
        let ends = format!("local {} remote {}", underlay(version, 2), underlay(version, 1));
        let line = format!("link add vx type vxlan id 5001 dstport 4789 {ends} dev eth0 {device}");
        let added = linux.command("ip").args(line.split_whitespace()).output().unwrap();
        if !added.status.success() {
            skip(test, &format!("this kernel has no such VXLAN device: {}", String::from_utf8_lossy(&added.stderr)));
            return None;
        }
        linux.run("sysctl -qw net.ipv6.conf.vx.disable_ipv6=0");
        // What is left to a network card to do, nobody would do here: to make packets of many in one, and to finish checksums, which in a
        // tunnel neither kind of port is told of.
        if linux.command("ethtool").args(["-K", "vx", "tx", "off"]).output().is_err() {
            skip(test, "no ethtool");
            return None;
        }
        linux.run("ip link set vx gso_max_segs 1");
        linux.run("ip link set vx address 02:00:00:00:00:02 up");
        linux.run(&format!("ip addr add {}/24 dev vx", self::address(4, 2)));
        linux.run(&format!("ip addr add {}/64 dev vx nodad", self::address(6, 2)));
        let one = host("p1");
        settle_in(&one, 1);
        for port in ["p1", "p9"] {
            switch.await_link(port, "up");
        }
        Some(Joined { lan: Lan { switch, hosts: vec![one] }, linux })
    }
}

/// Packets that a host's `eth0` received, and sent.
pub fn interface_counts(host: &Host) -> (u64, u64) {
    let text = host.run("cat /proc/net/dev");
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:")).unwrap();
    let counts: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    (counts[1], counts[9])
}

/// Of what a switch that was stopped counted: nothing was dropped but a little of what hosts and Linux say to all on their link, which is
/// nothing to the switch, what comes before the link, and what a host sends faster than it is taken.
pub fn assert_little_was_dropped(total: &Value) {
    let drops = total["drops"].as_object().unwrap();
    assert!(drops.keys().all(|reason| ["tx_full", "policy", "port_down"].contains(&reason.as_str())), "{total:#}");
    let few = |reason: &str| total["drops"][reason].as_u64().is_none_or(|n| n < 20);
    assert!(few("policy") && few("port_down"), "{total:#}");
    assert_eq!(total["copies_dropped"], json!({}));
}

/// Zero and real checksums over both IP versions.
const DEVICES: [(u8, &str, &str); 4] = [
    (4, "noudpcsum", "checksum = false"),
    (4, "udpcsum", "checksum = true"),
    (6, "noudp6zerocsumtx noudp6zerocsumrx", ""),
    (6, "udp6zerocsumtx udp6zerocsumrx", "zero_checksum6 = true"),
];

fn ping_and_talk(test: &'static str, kind: &str, at: usize) {
    if sweep::plays() {
        return;
    }
    namespace::run(test, || {
        let (version, device, vpc) = DEVICES[at];
        let Some(Joined { lan, linux }) = Joined::new(test, kind, version, device, vpc) else { return };
        let overhead = if version == 4 { 50 } else { 70 };
        for (inner, headers) in [(4, 28), (6, 48)] {
            for size in [0, 56, MTU - overhead - headers] {
                let said =
                    lan.hosts[0].run(&format!("ping -{inner} -c 3 -i 0.2 -W 5 -M do -s {size} {}", address(inner, 2)));
                assert!(said.contains(" 3 received"), "{said}");
            }
            sweep::sweep(test, &lan.hosts[0], &address(inner, 2), (MTU - overhead - headers) as usize);
        }
        let said = linux.run(&format!("ping -c 1 -W 5 {}", address(4, 1)));
        assert!(said.contains(" 1 received"), "{said}");
        // Host 1 believes in 1500 bytes until it is told.
        let long = ["-c", "1", "-W", "5", "-M", "do", "-s", "1472", &address(4, 2)];
        let said = lan.hosts[0].command("ping").args(long).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(said.contains(&format!("mtu = {}", MTU - overhead)), "{said}");
        // The switch itself answers on the underlay.
        let said = linux.run(&format!("ping -{version} -c 3 -i 0.2 -W 5 {}", underlay(version, 1)));
        assert!(said.contains(" 3 received"), "{said}");
        if std::process::Command::new("iperf3").arg("--version").output().is_err() {
            return skip(test, "no iperf3");
        }
        for more in ["", "--reverse"] {
            let mut server = linux.command("iperf3");
            let mut server =
                server.args(["-s", "-1", "-p", "5201"]).stdout(std::process::Stdio::null()).spawn().unwrap();
            await_that("iperf3 listens", || linux.run("ss -Hltn sport = 5201").contains("5201"));
            let said = lan.hosts[0].run(&format!("iperf3 -4 -c {} -t 1 -J {more}", address(4, 2)));
            server.wait().unwrap();
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert!(number(&said["end"]["sum_received"], "bytes") > 500_000, "{}", said["end"]);
        }
        let stats = lan.switch.stats();
        assert_eq!(number(&stats["bridge"], "told_too_big"), 1, "{stats:#}");
        assert_eq!(number(&stats["underlay"], "echoes"), 3, "{stats:#}");
        // What one side sent is what the other received, both ways.
        await_that("both sides have counted the same", || {
            let (linux, wye) = (interface_counts(&linux), lan.switch.port("p9"));
            linux == (number(&wye, "tx_packets"), number(&wye, "rx_packets") + number(&wye, "rx_dropped"))
        });
        let total = lan.switch.stop();
        assert_little_was_dropped(&total);
    });
}

#[test]
fn linux_and_wye_share_a_vpc_over_ipv4_without_checksums() {
    ping_and_talk("vpc::linux_and_wye_share_a_vpc_over_ipv4_without_checksums", "af_packet", 0);
}

#[test]
fn linux_and_wye_share_a_vpc_over_ipv4_with_checksums() {
    ping_and_talk("vpc::linux_and_wye_share_a_vpc_over_ipv4_with_checksums", "af_xdp", 1);
}

#[test]
fn linux_and_wye_share_a_vpc_over_ipv6_with_checksums() {
    ping_and_talk("vpc::linux_and_wye_share_a_vpc_over_ipv6_with_checksums", "af_packet", 2);
}

#[test]
fn linux_and_wye_share_a_vpc_over_ipv6_without_checksums() {
    ping_and_talk("vpc::linux_and_wye_share_a_vpc_over_ipv6_without_checksums", "af_xdp", 3);
}

#[test]
fn another_network_of_linux_is_no_part_of_the_vpc() {
    let test = "vpc::another_network_of_linux_is_no_part_of_the_vpc";
    namespace::run(test, || {
        let Some(Joined { lan, linux }) = Joined::new(test, "af_packet", 4, "noudpcsum", "") else { return };
        let said = lan.hosts[0].run(&format!("ping -c 1 -W 5 {}", address(4, 2)));
        assert!(said.contains(" 1 received"), "{said}");
        ip("link show p9");
        linux.run("ip link del vx");
        linux.run(&format!(
            "ip link add vx type vxlan id 5002 dstport 4789 local {} remote {} dev eth0",
            underlay(4, 2),
            underlay(4, 1)
        ));
        linux.run("ip link set vx address 02:00:00:00:00:02 up");
        linux.run(&format!("ip addr add {}/24 dev vx", address(4, 2)));
        let pinged = linux.command("ping").args(["-c", "3", "-i", "0.05", "-W", "1", &address(4, 1)]).output().unwrap();
        assert!(!pinged.status.success());
        let stats = lan.switch.stats();
        assert!(number(&stats["drops"], "unknown_vni") > 0, "{stats:#}");
    });
}
