//! Ports with several queues, and workers on cores of their own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::hosts::{Lan, address};
use crate::namespace::{self, skip};
use crate::switch::{Switch, await_that, number};
use crate::wires::port_table;

#[test]
fn af_packet_queues_share_a_port_between_two_workers() {
    share("queues::af_packet_queues_share_a_port_between_two_workers", "af_packet");
}

#[test]
fn tap_queues_share_a_port_between_two_workers() {
    share("queues::tap_queues_share_a_port_between_two_workers", "tap");
}

/// Datagrams of each of the hosts' flows, and the flows.
const DATAGRAMS: u64 = 8;
const FLOWS: u64 = 64;

/// Two hosts on ports of two queues, each queue with a worker of its own.
fn share(test: &'static str, kind: &'static str) {
    namespace::run(test, || {
        if let Some(role) = namespace::role() {
            return send(&role);
        }
        let Some(lan) = Lan::with_ports(test, kind, "[workers]\ncount = 2", "queues = 2", 2) else { return };
        assert_eq!(number(&lan.switch.port("p1"), "queues"), 2);
        for (at, other) in [(1, 2), (2, 1)] {
            let host = &lan.hosts[at - 1];
            host.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
            let neighbour = format!("{} lladdr 02:00:00:00:00:0{other}", address(4, other));
            host.run(&format!("ip neigh replace {neighbour} dev eth0 nud permanent"));
        }
        // Each has spoken, so neither is flooded to, and nobody complains of datagrams that nobody waits for.
        lan.hosts[0].run(&format!("ping -4 -c 1 -W 5 {}", address(4, 2)));
        let received = |of: &str| -> Vec<u64> {
            let port = lan.switch.port(of);
            port["rx_packets_of_queue"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
        };
        let sent = || number(&lan.switch.port("p2"), "tx_packets");
        // What a queue counted is told with up to a tenth of a second's delay, by each worker for itself: the ping may not be in yet.
        let (mut before, mut sent_before) = (Vec::new(), 0);
        await_that("the counters rest", || {
            let last = (std::mem::replace(&mut before, received("p1")), std::mem::replace(&mut sent_before, sent()));
            std::thread::sleep(std::time::Duration::from_millis(300));
            last == (before.clone(), sent_before)
        });
        let mut sender = lan.hosts[0].play(test, &address(4, 2));
        assert!(sender.wait().unwrap().success());
        let all = DATAGRAMS * FLOWS;
        await_that("every datagram has gone out", || sent() >= sent_before + all);
        let came_in = || received("p1").iter().sum::<u64>() >= before.iter().sum::<u64>() + all;
        await_that("every datagram has come in", came_in);
        let now = received("p1");
        let came: Vec<u64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        assert_eq!(came.len(), 2);
        assert_eq!(came.iter().sum::<u64>(), all);
        assert!(came.iter().all(|&n| n > 0), "a queue was left out: {came:?}");
        // The kernel keeps a flow on one queue, so each queue has whole flows.
        assert!(came.iter().all(|n| n % DATAGRAMS == 0), "flows were torn apart: {came:?}");
        let total: Value = lan.switch.stop();
        assert_eq!((&total["drops"], &total["copies_dropped"]), (&json!({}), &json!({})));
    });
}

/// The sender's role: datagrams of many flows to port 9 of `target`, which discards them.
fn send(target: &str) {
    for _ in 0..FLOWS {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..DATAGRAMS {
            // A refusal of an earlier one is of no interest.
            let _ = socket.send_to(b"datagram", (target, 9));
        }
    }
}

/// The cores that each worker's thread may run on, as the kernel writes them, by the thread's name.
fn cores_of_workers(switch: &Switch) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", switch.id())).unwrap();
    let fields = tasks.map(|task| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        (field("Name:"), field("Cpus_allowed_list:"))
    });
    fields.filter(|(name, _)| name.starts_with("wye-worker-")).collect()
}

fn own_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    line.trim().to_owned()
}

#[test]
fn each_worker_runs_on_the_core_that_the_configuration_names() {
    let test = "queues::each_worker_runs_on_the_core_that_the_configuration_names";
    namespace::run(test, || {
        let own = own_cores();
        let first_two: Option<(u32, u32)> = match own.split_once(['-', ',']) {
            Some((first, _)) if own.contains('-') => first.parse().ok().map(|first: u32| (first, first + 1)),
            _ => None,
        };
        let Some((first, second)) = first_two else { return skip(test, "fewer than two neighbouring cores") };
        let ports = port_table("p1", "tap", "");
        // Not in order, so that a worker that takes the core of its own number is found out.
        let config = format!("[workers]\ncores = [{second}, {first}]\n{ports}");
        let Some(switch) = Switch::start_or_skip(test, &config) else { return };
        let expected = [("wye-worker-0", second), ("wye-worker-1", first)];
        assert_eq!(cores_of_workers(&switch), expected.map(|(name, core)| (name.to_owned(), core.to_string())).into());
        switch.stop();

        // Without `cores` they may run wherever the process may.
        let Some(switch) = Switch::start_or_skip(test, &format!("[workers]\ncount = 2\n{ports}")) else { return };
        let expected = ["wye-worker-0", "wye-worker-1"].map(|name| (name.to_owned(), own.clone()));
        assert_eq!(cores_of_workers(&switch), expected.into());
        switch.stop();
    });
}
