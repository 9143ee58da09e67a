//! Questions to a running switch by the command-line tool, at rest and while it has work.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wye::testing::Frame;
use wye::testing::packets::{IP_A, IP_B};

use crate::namespace;
use crate::switch::{Scratch, Switch, number, sum};
use crate::wires::{Panel, port_table};

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: u8) -> Vec<u8> {
    Frame::new().eth(to, mac(from)).ipv4(IP_A, IP_B).udp(1000, 2000).payload(b"a datagram of sixty-odd bytes").build()
}

/// `wye WHAT --socket …`, which must succeed; what it printed.
fn ask(switch: &Switch, what: &str, more: &[&str]) -> String {
    let mut wye = Command::new(env!("CARGO_BIN_EXE_wye"));
    let output = wye.arg(what).arg("--socket").arg(&switch.socket.0).args(more).output().unwrap();
    let (out, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && errors.is_empty(), "{what}: {}\n{out}\n{errors}", output.status);
    out
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect()
}

#[test]
fn stats_ports_and_flows_say_what_happened() {
    let test = "ask::stats_ports_and_flows_say_what_happened";
    namespace::run(test, || {
        let Some(mut panel) = Panel::new(test, "af_packet", "", &["access = 10", "trunk = [10]"]) else { return };
        let len = frame(BROADCAST, 1).len();
        panel.try_out(1, &frame(BROADCAST, 1));
        let back = Frame::new().eth(mac(1), mac(2)).vlan(10).ipv4(IP_A, IP_B).udp(1000, 2000).build();
        (0..3).for_each(|_| panel.send(2, &back));
        panel.settle();
        let switch = &panel.switch;

        let [stats] = &objects(&ask(switch, "stats", &["--json"]))[..] else { panic!("one line") };
        assert_eq!(
            (number(stats, "packets_in"), sum(&stats["fates"]), number(&stats["fates"], "transmitted")),
            (4, 4, 4)
        );
        assert_eq!((&stats["drops"], number(stats, "flows"), number(stats, "masks")), (&json!({}), 1, 1));
        let counters = &stats["counters"];
        let tiers = ["exact_hits", "megaflow_hits", "misses"].map(|tier| number(counters, tier));
        assert_eq!((tiers.iter().sum::<u64>(), tiers[2]), (4, 2));
        let table = ask(switch, "stats", &[]);
        assert!(table.lines().any(|line| line.split_whitespace().eq(["packets", "in", "4"])), "{table}");

        let ports = objects(&ask(switch, "ports", &["--json"]));
        let port = &ports[0];
        assert_eq!(
            (ports.len(), &port["name"], &port["kind"], &port["link"]),
            (2, &json!("p1"), &json!("af_packet"), &json!("up"))
        );
        assert_eq!((&port["vlans"], &ports[1]["vlans"]), (&json!("access 10"), &json!("trunk 10")));
        let counts = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"].map(|name| number(port, name));
        assert_eq!(counts, [1, len as u64, 3, 3 * (back.len() as u64 - 4)]);
        let table = ask(switch, "ports", &[]);
        assert_eq!(table.lines().count(), 3, "{table}");

        let [flow] = &objects(&ask(switch, "flows", &["--json"]))[..] else { panic!("one flow") };
        let key = "eth(src=02:00:00:00:00:02,dst=02:00:00:00:00:01),eth_type(0x8100),vlan(vid=10)";
        assert!(flow["key"].as_str().unwrap().contains(key), "{flow}");
        assert!(flow["key"].as_str().unwrap().contains("in_port(2),"), "{flow}");
        assert_eq!((&flow["actions"], number(flow, "packets")), (&json!("pop_vlan,1"), 2));
        let line = ask(switch, "flows", &[]);
        assert!(
            line.contains(key) && line.contains("packets:2, bytes:") && line.ends_with("actions:pop_vlan,1\n"),
            "{line}"
        );
        panel.switch.stop();
    });
}

#[test]
fn questions_while_packets_run_lose_none() {
    let test = "ask::questions_while_packets_run_lose_none";
    namespace::run(test, || {
        let Some(mut panel) = Panel::new(test, "af_packet", "", &[""; 2]) else { return };
        panel.try_out(1, &frame(BROADCAST, 1));
        panel.try_out(2, &frame(BROADCAST, 2));
        let (there, back) = (frame(mac(2), 1), frame(mac(1), 2));
        let begin = Instant::now();
        let mut rounds = 0;
        while begin.elapsed() < Duration::from_secs(2) {
            for _ in 0..100 {
                panel.send(1, &there);
                panel.send(2, &back);
            }
            rounds += 1;
            for what in ["stats", "ports", "flows", "fdb"] {
                let answer = panel.switch.ask(what);
                assert!(!answer.is_empty(), "{what}");
            }
            let came = panel.settle();
            assert_eq!((came[0].len(), came[1].len()), (100, 100));
        }
        let total = panel.switch.stop();
        assert_eq!((number(&total, "packets_in"), &total["drops"]), (200 * rounds + 2, &json!({})));
    });
}

#[test]
fn without_a_switch_the_answer_is_an_error() {
    let nobody = Scratch::new("nobody");
    for what in ["stats", "ports", "flows", "fdb"] {
        let output = Command::new(env!("CARGO_BIN_EXE_wye")).arg(what).arg("--socket").arg(&nobody.0).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert_eq!(said.lines().count(), 1);
        assert!(said.contains(&format!("{}: no switch answers: No such file", nobody.0.display())), "{said}");
    }
}

/// Seconds of CPU time that a process has used.
fn cpu_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // Fields 14 and 15, behind the name in brackets; hundredths on Linux.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

#[test]
fn a_switch_without_packets_sleeps_unless_it_is_told_to_poll() {
    let test = "ask::a_switch_without_packets_sleeps_unless_it_is_told_to_poll";
    namespace::run(test, || {
        for kind in ["af_packet", "af_xdp", "tap"] {
            namespace::veth("p1", "w1");
            let port = port_table("p1", kind, if kind == "tap" { "interface = 't1'" } else { "" });
            for (head, share) in [("[workers]\ncount = 2", 0.0..0.15), ("[workers]\nbusy_poll = true", 0.15..1.5)] {
                let Some(switch) = Switch::start_or_skip(test, &format!("{head}\n{port}")) else { continue };
                std::thread::sleep(Duration::from_millis(200));
                let (before, begin) = (cpu_seconds(switch.id()), Instant::now());
                std::thread::sleep(Duration::from_secs(1));
                let used = (cpu_seconds(switch.id()) - before) / begin.elapsed().as_secs_f64();
                assert!(share.contains(&used), "{kind}, {head}: {used} of a core");
                switch.stop();
            }
            namespace::ip("link del p1");
        }
    });
}
