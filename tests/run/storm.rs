//! Too much of everything: loops, floods, and tables that are full.

use std::time::{Duration, Instant};

use serde_json::json;
use wye::testing::Frame;
use wye::testing::packets::{IP_A, IP_B};

use crate::for_every_kind;
use crate::namespace::{ip, veth};
use crate::switch::{Switch, await_that, check_accounts, number, over_ports};
use crate::wires::{Panel, Wire, port_table};

for_every_kind!(
    floods_beyond_the_limit_are_dropped_and_known_stations_do_not_suffer,
    a_full_flow_table_costs_speed_and_no_packet,
);

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    Frame::new().eth(to, from).ipv4(IP_A, IP_B).udp(1000, 2000).payload(b"one of many").build()
}

fn floods_beyond_the_limit_are_dropped_and_known_stations_do_not_suffer(test: &str, kind: &str) {
    // One a second: nothing comes back while the test runs but what the burst allows.
    let head = "[bridge]\nstorm_pps = 1\nstorm_burst = 5";
    let Some(mut panel) = Panel::new(test, kind, head, &[""; 3]) else { return };
    let begin = Instant::now();
    let (one, two) = (frame(mac(2), mac(1)), frame(mac(1), mac(2)));
    panel.try_out(2, &frame(BROADCAST, mac(2)));
    (0..100).for_each(|_| panel.send(1, &frame(BROADCAST, mac(1))));
    panel.settle();
    for _ in 0..100 {
        panel.send(1, &one);
        panel.send(2, &two);
    }
    assert_eq!(panel.settle(), [vec![two; 100], vec![one; 100], vec![]]);
    let total = panel.switch.stop();
    let storm = number(&total["drops"], "storm");
    let allowed = 5 + begin.elapsed().as_secs() + 1;
    assert!((100 - allowed..=95).contains(&storm), "{total:#}");
    assert_eq!(total["drops"], json!({ "storm": storm }));
    assert_eq!((&total["bridge"]["storm_dropped"], number(&total["bridge"], "flooded")), (&json!(storm), 101 - storm));
}

fn a_full_flow_table_costs_speed_and_no_packet(test: &str, kind: &str) {
    let Some(mut panel) = Panel::new(test, kind, "[datapath]\nflows_max = 4", &[""; 2]) else { return };
    let many = 1..=20u8;
    many.clone().for_each(|n| panel.send(1, &frame(BROADCAST, mac(n))));
    panel.send(2, &frame(BROADCAST, mac(99)));
    panel.settle();
    let sent: Vec<_> = many.clone().map(|n| frame(mac(n), mac(99))).collect();
    for round in 0..3 {
        sent.iter().for_each(|f| panel.send(2, f));
        let mut came = panel.settle();
        // Packets of one flow stay in order, those of different flows need not.
        came[0].sort_unstable();
        assert_eq!(came, [sent.clone(), vec![]], "round {round}");
    }
    let stats = panel.switch.stats();
    assert_eq!((number(&stats, "flows"), panel.switch.ask("flows").len()), (4, 4));
    assert_eq!((&stats["bridge"]["flows_installed"], &stats["bridge"]["flows_refused"]), (&json!(4), &json!(48)));
    assert_eq!(panel.switch.stop()["drops"], json!({}));
}

/// A cable from the switch to itself: every broadcast would go round for ever, and at every turn to everybody.
#[test]
fn a_loop_does_not_take_the_switch_away_from_its_hosts() {
    let test = "storm::a_loop_does_not_take_the_switch_away_from_its_hosts";
    crate::namespace::run(test, || {
        for kind in ["af_packet", "af_xdp"] {
            veth("p1", "w1");
            veth("p2", "w2");
            veth("p3", "p4");
            let tables: String = ["p1", "p2", "p3", "p4"].iter().map(|port| port_table(port, kind, "")).collect();
            let head = "[bridge]\nstorm_pps = 1000\nstorm_burst = 100\n";
            let Some(switch) = Switch::start_or_skip(test, &format!("{head}{tables}")) else { return };
            ["p1", "p2", "p3", "p4"].iter().for_each(|port| switch.await_link(port, "up"));
            let (mut one, mut two) = (Wire::new("w1"), Wire::new("w2"));
            for _ in 0..100 {
                one.send(&frame(BROADCAST, mac(1)));
                two.send(&frame(BROADCAST, mac(2)));
            }
            // One that is dropped goes round no more, so a fast loop ends by itself.
            await_that("frames go round", || switch.stats()["drops"]["storm"].as_u64() > Some(0));
            // The limit holds: what each of the hosts gets is what the two looped ports may flood.
            let (before, begin) = (number(&switch.stats()["bridge"], "flooded"), Instant::now());
            std::thread::sleep(Duration::from_secs(1));
            let flooded = number(&switch.stats()["bridge"], "flooded") - before;
            let seconds = begin.elapsed().as_secs_f64();
            assert!(flooded as f64 <= 2.0 * (1000.0 * seconds + 100.0), "{flooded} in {seconds} s");
            // The cable is taken out, and all is as before.
            ip("link set p3 down");
            switch.await_link("p3", "down");
            switch.await_link("p4", "down");
            // Nobody looked at what came meanwhile: new wires.
            (one, two) = (Wire::new("w1"), Wire::new("w2"));
            let settle = |wire: &mut Wire| {
                let mut last = (u64::MAX, Instant::now());
                while last.1.elapsed() < Duration::from_millis(300) {
                    let came = wire.look();
                    last = if came == last.0 { last } else { (came, Instant::now()) };
                }
                wire.take();
            };
            settle(&mut one);
            settle(&mut two);
            one.send(&frame(BROADCAST, mac(1)));
            two.send(&frame(mac(1), mac(2)));
            let (there, back) = (frame(mac(2), mac(1)), frame(mac(1), mac(2)));
            await_that("station 1 is where it is", || {
                switch.fdb() == ["1 02:00:00:00:00:01 p1", "1 02:00:00:00:00:02 p2"]
            });
            one.take();
            two.take();
            one.send(&there);
            two.send(&back);
            // A late frame of the loop may come along with theirs.
            let (mut reached_one, mut reached_two) = (false, false);
            await_that("stations meet again", || {
                reached_one |= one.take().contains(&back);
                reached_two |= two.take().contains(&there);
                reached_one && reached_two
            });
            let total = switch.stop();
            assert!(number(&total["bridge"], "moved") > 0);
            // Without a carrier the kernel says that there is no room, until the switch has looked at the link.
            let known = ["storm", "port_down", "tx_full", "no_destination"];
            let drops = total["drops"].as_object().unwrap();
            assert!(drops.keys().all(|reason| known.contains(&reason.as_str())), "{total:#}");
            check_accounts(&total);
            assert_eq!(over_ports(&total, "rx_errors"), 0);
            ["p1", "p2", "p3"].iter().for_each(|port| ip(&format!("link del {port}")));
        }
    });
}
