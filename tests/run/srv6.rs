//! SRv6 whose other end is Linux: segments of the kernel's `seg6` and `seg6local` in a namespace of its own, and Wye's as flows.

use std::net::Ipv6Addr;

use serde_json::Value;

use crate::hosts::{Lan, address, host, settle_in};
use crate::namespace::{self, Host, skip, veth};
use crate::sweep::{self, sweep};
use crate::switch::{Scratch, Switch, await_equal, await_that, number};
use crate::vpc::{assert_little_was_dropped, interface_counts};
use crate::wires::{far_end, port_table};

/// The longest IP packet on the wire between the two.
const MTU: usize = 1500;
const IPV6: usize = 40;
/// A segment routing header, and each segment in it.
const ROUTING: usize = 8;
const SEGMENT: usize = 16;

/// What is carried.
#[derive(Clone, Copy, PartialEq)]
enum Inner {
    V4,
    V6,
    Frame,
}

impl Inner {
    /// The IP protocol for it (RFC 8986 §10.1 has that of a frame).
    fn proto(self) -> u8 {
        match self {
            Inner::V4 => 4,
            Inner::V6 => 41,
            Inner::Frame => 143,
        }
    }
}

/// One way to be joined.
struct Case {
    inner: Inner,
    /// The path from Wye to Linux: its segments, and whether the first is left out of the list (H.Encaps.Red).
    there: &'static [&'static str],
    reduced: bool,
    /// The path back, in the words of `ip route`.
    back: &'static str,
}

impl Case {
    /// Segments in the list.
    fn listed(&self) -> usize {
        self.there.len() - usize::from(self.reduced)
    }

    /// Bytes in front of the inner IP packet on the wire.
    fn overhead(&self) -> usize {
        let list = self.listed();
        let routing = if list == 0 { 0 } else { ROUTING + SEGMENT * list };
        IPV6 + routing + if self.inner == Inner::Frame { 14 } else { 0 }
    }

    /// Host 2 is behind Linux, rather than Linux itself: an End.DX6 of Linux does not lead to Linux.
    fn is_behind(&self) -> bool {
        self.inner == Inner::Frame || self.there.ends_with(&["fc00:2::6"])
    }

    /// The action that puts the outer headers on.
    fn push(&self) -> String {
        let (first, left) = (self.there[0], self.there.len() - 1);
        let size = 14 + IPV6 + if self.listed() == 0 { 0 } else { ROUTING + SEGMENT * self.listed() };
        let proto = self.inner.proto();
        let header = if self.reduced {
            // Open vSwitch has no words for it.
            let hex = |segment: &str| format!("{:032x}", segment.parse::<Ipv6Addr>().unwrap().to_bits());
            let (next, routing) = match self.there {
                [_] => (proto, String::new()),
                [_, second] => (43, format!("{proto:02x}02040100000000{}", hex(second))),
                _ => unreachable!("no case has more"),
            };
            let ethernet = "02000000090202000000090186dd";
            let addresses = hex("fd02::1") + &hex(first);
            format!("raw({ethernet}600000000000{next:02x}40{addresses}{routing})")
        } else {
            let segments = self.there.join(",");
            format!(
                "eth(dst=02:00:00:00:09:02,src=02:00:00:00:09:01,dl_type=0x86dd),\
                 ipv6(src=fd02::1,dst={first},label=0,proto=43,tclass=0x0,hlimit=64),\
                 srv6(segments_left={left},segs({segments}),proto={proto})"
            )
        };
        format!("tnl_push(tnl_port(4),header(size={size},type=112,{header}),out_port(9)),9")
    }

    /// The flows of the switch: host 1 is on port 1, Linux on port 9.
    fn flows(&self) -> String {
        let into = match self.inner {
            Inner::V4 => "in_port(1),eth_type(0x0800), actions:pop_eth,",
            Inner::V6 => "in_port(1),eth_type(0x86dd),ipv6(src=fd09::1), actions:pop_eth,",
            Inner::Frame => "in_port(1),eth(src=02:00:00:00:00:01), actions:",
        };
        let framed = "push_eth(src=02:00:00:00:00:02,dst=02:00:00:00:00:01),1";
        format!(
            "tunnel 2 srv6 End.DX2\n\
             tunnel 4 srv6 End.DX4\n\
             tunnel 6 srv6 End.DX6\n\
             tunnel 46 srv6 End.DT46\n\
             tunnel 14 srv6 End\n\
             tunnel 15 srv6 End with PSP\n\
             {into}{}\n\
             in_port(9),eth_type(0x86dd),ipv6(dst=fc00:1::2), actions:tnl_pop(2)\n\
             in_port(9),eth_type(0x86dd),ipv6(dst=fc00:1::4), actions:tnl_pop(4)\n\
             in_port(9),eth_type(0x86dd),ipv6(dst=fc00:1::6), actions:tnl_pop(6)\n\
             in_port(9),eth_type(0x86dd),ipv6(dst=fc00:1::46), actions:tnl_pop(46)\n\
             in_port(9),eth_type(0x86dd),ipv6(dst=fc00:1::e), actions:tnl_pop(14)\n\
             in_port(9),eth_type(0x86dd),ipv6(dst=fc00:1::ee), actions:tnl_pop(15)\n\
             in_port(14),eth_type(0x86dd),ipv6(dst=fc00:1::4), actions:tnl_pop(4)\n\
             in_port(15),eth_type(0x86dd),ipv6(dst=fc00:1::46), actions:tnl_pop(46)\n\
             in_port(2),eth(dst=02:00:00:00:00:01), actions:1\n\
             in_port(4),packet_type(ns=1,id=0x0800),eth_type(0x0800), actions:{framed}\n\
             in_port(6),packet_type(ns=1,id=0x86dd),eth_type(0x86dd), actions:{framed}\n\
             in_port(46),packet_type(ns=1,id=0x0800),eth_type(0x0800), actions:{framed}\n\
             in_port(46),packet_type(ns=1,id=0x86dd),eth_type(0x86dd), actions:{framed}\n",
            self.push()
        )
    }
}

/// A switch with host 1 on port 1, and Linux behind port 9, whose segments lead to host 2: Linux itself, or a host behind it.
struct Joined {
    lan: Lan,
    linux: Host,
    behind: Option<Host>,
    _flows: Scratch,
}

/// What a network card would be left to do, nobody would do here.
fn without_offloads(host: &Host, interface: &str) -> bool {
    host.run(&format!("ip link set {interface} gso_max_segs 1"));
    host.command("ethtool").args(["-K", interface, "tx", "off"]).output().is_ok()
}

impl Joined {
    fn new(test: &str, kind: &str, case: &Case) -> Option<Joined> {
        let far = far_end(kind, "p9");
        veth("p9", &far);
        let flows = Scratch::new("flows");
        std::fs::write(&flows.0, case.flows()).unwrap();
        let here = "number = 9\naddress = [\"fd02::1/64\"]\nmac = \"02:00:00:00:09:01\"";
        let ports = port_table("p1", "tap", "number = 1") + &port_table("p9", kind, here);
        let switch = Switch::start_or_skip(test, &format!("flows = {:?}\n{ports}", flows.0))?;
        let linux = host(&far);
        linux.run("ip link set eth0 address 02:00:00:00:09:02");
        for set in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.all.seg6_enabled"] {
            linux.run(&format!("sysctl -qw {set}=1"));
        }
        linux.run("sysctl -qw net.ipv6.conf.eth0.seg6_enabled=1 net.ipv6.conf.eth0.disable_ipv6=0");
        linux.run("ip addr add fd02::2/64 dev eth0 nodad");
        linux.run("ip -6 route add fc00:1::/64 via fd02::1 dev eth0");
        let probe = "-6 route add fc00:2::e/128 encap seg6local action End count dev eth0";
        let probed = linux.command("ip").args(probe.split_whitespace()).output().unwrap();
        if !probed.status.success() {
            let why = String::from_utf8_lossy(&probed.stderr);
            skip(test, &format!("this kernel has no SRv6 (CONFIG_IPV6_SEG6_LWTUNNEL): {}", why.trim()));
            return None;
        }
        let behind = case.is_behind().then(|| host_behind(&linux, MTU - case.overhead()));
        if behind.is_none() {
            linux.run(&format!("ip addr add {}/32 dev lo", address(4, 2)));
            linux.run(&format!("ip addr add {}/128 dev lo nodad", address(6, 2)));
        }
        let (v4, v6) = (address(4, 2), address(6, 2));
        for (segment, action) in [
            ("2", "End.DX2 oif l2".to_owned()),
            ("4", format!("End.DX4 nh4 {v4}")),
            ("6", format!("End.DX6 nh6 {v6}")),
            ("d6", "End.DT6 table local".to_owned()),
            ("ee", "End flavors psp".to_owned()),
        ] {
            if segment != "2" || behind.is_some() {
                linux.run(&format!(
                    "ip -6 route add fc00:2::{segment}/128 encap seg6local action {action} count dev eth0"
                ));
            }
        }
        let (version, len) = if case.inner == Inner::V6 { (6, 128) } else { (4, 32) };
        let from = if behind.is_some() { String::new() } else { format!("src {}", address(version, 2)) };
        let to = address(version, 1);
        linux.run(&format!("ip -{version} route add {to}/{len} encap seg6 {} dev eth0 {from}", case.back));
        if !without_offloads(&linux, "eth0") || behind.as_ref().is_some_and(|host| !without_offloads(host, "eth0")) {
            skip(test, "no ethtool");
            return None;
        }
        let one = host("p1");
        settle_in(&one, 1);
        one.run(&format!("ip link set eth0 mtu {}", MTU - case.overhead()));
        for to in [v4, v6] {
            one.run(&format!("ip neigh replace {to} lladdr 02:00:00:00:00:02 dev eth0 nud permanent"));
        }
        for port in ["p1", "p9"] {
            switch.await_link(port, "up");
        }
        Some(Joined { lan: Lan { switch, hosts: vec![one] }, linux, behind, _flows: flows })
    }

    /// The host that is host 2.
    fn two(&self) -> &Host {
        self.behind.as_ref().unwrap_or(&self.linux)
    }
}

/// A host behind the router that Linux is. To it the router's address is that of host 1, so that what it sends there, and the router puts into
/// a frame of its own accord, is a frame for host 1.
fn host_behind(linux: &Host, mtu: usize) -> Host {
    let behind = Host::start();
    linux.run(&format!("ip link add l2 type veth peer name eth0 netns {}", behind.id()));
    linux.run("sysctl -qw net.ipv6.conf.l2.disable_ipv6=0");
    linux.run("ip link set l2 address 02:00:00:00:00:01 up");
    behind.run("ip link set lo up");
    behind.run("ip link set eth0 up addrgenmode none");
    settle_in(&behind, 2);
    behind.run(&format!("ip link set eth0 mtu {mtu}"));
    for version in [4, 6] {
        let (here, there) = (address(version, 2), address(version, 1));
        behind.run(&format!("ip neigh replace {there} lladdr 02:00:00:00:00:01 dev eth0 nud permanent"));
        linux.run(&format!("ip -{version} route add {here} dev l2"));
        linux.run(&format!("ip neigh replace {here} lladdr 02:00:00:00:00:02 dev l2 nud permanent"));
    }
    behind
}

/// Packets of the flows whose actions begin so.
fn packets_of(flows: &[Value], actions: &str) -> u64 {
    let of = |flow: &&Value| flow["actions"].as_str().unwrap().contains(actions);
    flows.iter().filter(of).map(|flow| number(flow, "packets")).sum()
}

/// What Linux counted at one of its segments: packets, and errors.
fn segment_counts(linux: &Host, segment: &str) -> (u64, u64) {
    let said = linux.run(&format!("ip -6 -s route show {segment}"));
    let words: Vec<&str> = said.split_whitespace().collect();
    let count = |name: &str| {
        let at = words.iter().position(|word| *word == name).unwrap_or_else(|| panic!("no {name} in {said}"));
        words[at + 1].parse().unwrap()
    };
    (count("packets"), count("errors"))
}

fn join(test: &'static str, kind: &str, case: &Case) {
    if sweep::plays() {
        return;
    }
    namespace::run(test, || {
        let Some(joined) = Joined::new(test, kind, case) else { return };
        let (one, switch) = (&joined.lan.hosts[0], &joined.lan.switch);
        let version = if case.inner == Inner::V6 { 6 } else { 4 };
        let headers = if version == 4 { 28 } else { 48 };
        sweep(test, one, &address(version, 2), MTU - case.overhead() - headers);
        let said = joined.two().run(&format!("ping -{version} -c 3 -i 0.2 -W 5 {}", address(version, 1)));
        assert!(said.contains(" 3 received"), "{said}");
        if std::process::Command::new("iperf3").arg("--version").output().is_err() {
            return skip(test, "no iperf3");
        }
        for more in ["", "--reverse"] {
            let mut server = joined.two().command("iperf3");
            let mut server =
                server.args(["-s", "-1", "-p", "5201"]).stdout(std::process::Stdio::null()).spawn().unwrap();
            await_that("iperf3 listens", || joined.two().run("ss -Hltn sport = 5201").contains("5201"));
            let said = one.run(&format!("iperf3 -{version} -c {} -t 1 -J {more}", address(version, 2)));
            server.wait().unwrap();
            let said: Value = serde_json::from_str(&said).unwrap();
            assert!(number(&said["end"]["sum_received"], "bytes") > 500_000, "{}", said["end"]);
        }
        // What one side sent is what the other received, both ways: on the wire, and at each segment of the path there.
        await_equal("packets on the wire", || {
            let wye = switch.port("p9");
            let came = number(&wye, "rx_packets") + number(&wye, "rx_dropped");
            (interface_counts(&joined.linux), (number(&wye, "tx_packets"), came))
        });
        for at in case.there {
            await_equal(at, || {
                // What found no room at the port was not sent.
                let lost = number(&switch.port("p9"), "tx_dropped");
                (segment_counts(&joined.linux, at), (packets_of(&switch.ask("flows"), "tnl_push(") - lost, 0))
            });
        }
        let flows = switch.ask("flows");
        let came = number(&switch.port("p9"), "rx_packets");
        // Each packet is opened once, after it went by the segments in front of the last; the rest is neighbour discovery.
        let out = packets_of(&flows, "push_eth(")
            + flows.iter().filter(|f| f["actions"] == "1").map(|f| number(f, "packets")).sum::<u64>();
        assert!(out <= came && came - out < 30, "{out} of {came}");
        let total = joined.lan.switch.stop();
        assert_little_was_dropped(&total);
    });
}

#[test]
fn linux_and_wye_open_ipv4_of_one_another_at_dx4() {
    let case = Case { inner: Inner::V4, there: &["fc00:2::4"], reduced: false, back: "mode encap segs fc00:1::4" };
    join("srv6::linux_and_wye_open_ipv4_of_one_another_at_dx4", "af_packet", &case);
}

#[test]
fn linux_and_wye_open_ipv6_of_one_another_at_dx6() {
    let case = Case { inner: Inner::V6, there: &["fc00:2::6"], reduced: false, back: "mode encap segs fc00:1::6" };
    join("srv6::linux_and_wye_open_ipv6_of_one_another_at_dx6", "af_xdp", &case);
}

#[test]
fn a_table_of_linux_and_one_of_wye_take_ipv6_without_a_segment_routing_header() {
    let case = Case { inner: Inner::V6, there: &["fc00:2::d6"], reduced: true, back: "mode encap.red segs fc00:1::46" };
    join("srv6::a_table_of_linux_and_one_of_wye_take_ipv6_without_a_segment_routing_header", "af_packet", &case);
}

#[test]
fn packets_go_by_two_segments_of_linux_and_by_two_of_wye() {
    let there = &["fc00:2::e", "fc00:2::4"];
    let case = Case { inner: Inner::V4, there, reduced: false, back: "mode encap segs fc00:1::e,fc00:1::4" };
    join("srv6::packets_go_by_two_segments_of_linux_and_by_two_of_wye", "af_packet", &case);
}

#[test]
fn the_last_segment_but_one_takes_a_reduced_header_off() {
    let there = &["fc00:2::ee", "fc00:2::4"];
    let case = Case { inner: Inner::V4, there, reduced: true, back: "mode encap.red segs fc00:1::ee,fc00:1::46" };
    join("srv6::the_last_segment_but_one_takes_a_reduced_header_off", "af_xdp", &case);
}

#[test]
fn linux_and_wye_carry_frames_to_dx2_of_one_another() {
    let case = Case { inner: Inner::Frame, there: &["fc00:2::2"], reduced: false, back: "mode l2encap segs fc00:1::2" };
    join("srv6::linux_and_wye_carry_frames_to_dx2_of_one_another", "af_packet", &case);
}
