//! What the bridge learns from frames, and what becomes of frames thereafter.

use std::process::Command;

use serde_json::json;
use wye::testing::Frame;
use wye::testing::packets::{IP_A, IP_B};

use crate::for_every_kind;
use crate::namespace;
use crate::switch::{await_that, number};
use crate::wires::Panel;

for_every_kind!(
    a_third_host_sees_floods_but_no_frame_for_a_station_that_is_known,
    a_station_that_moves_is_found_at_its_new_port_at_once,
    beyond_the_limits_stations_are_not_learned_and_their_frames_are_flooded,
);

const BROADCAST: [u8; 6] = [0xff; 6];
const MULTICAST: [u8; 6] = [1, 0, 0x5e, 0, 0, 7];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: u8) -> Vec<u8> {
    Frame::new().eth(to, mac(from)).ipv4(IP_A, IP_B).udp(1000, 2000).payload(b"who is where, the switch knows").build()
}

fn a_third_host_sees_floods_but_no_frame_for_a_station_that_is_known(test: &str, kind: &str) {
    let Some(mut panel) = Panel::new(test, kind, "", &[""; 3]) else { return };
    let unknown = frame(mac(2), 1);
    assert_eq!(panel.try_out(1, &unknown), [vec![], vec![unknown.clone()], vec![unknown]]);
    let reply = frame(mac(1), 2);
    assert_eq!(panel.try_out(2, &reply), [vec![reply], vec![], vec![]]);
    let (there, back) = (frame(mac(2), 1), frame(mac(1), 2));
    for _ in 0..100 {
        panel.send(1, &there);
        panel.send(2, &back);
    }
    assert_eq!(panel.settle(), [vec![back; 100], vec![there; 100], vec![]]);
    for group in [BROADCAST, MULTICAST] {
        let shout = frame(group, 2);
        assert_eq!(panel.try_out(2, &shout), [vec![shout.clone()], vec![], vec![shout]]);
    }
    // For the port that it came from: it is there already.
    assert_eq!(panel.try_out(1, &frame(mac(1), 9)), [vec![], vec![], vec![]] as [Vec<Vec<u8>>; 3]);
    assert_eq!(panel.switch.fdb(), ["1 02:00:00:00:00:01 p1", "1 02:00:00:00:00:02 p2", "1 02:00:00:00:00:09 p1"]);
    let total = panel.switch.stop();
    assert_eq!(total["drops"], json!({ "no_destination": 1 }));
    assert_eq!((number(&total["bridge"], "learned"), number(&total["bridge"], "flooded")), (3, 3));
    assert_eq!((number(&total["fates"], "transmitted"), number(&total, "packets_in")), (204, 205));
    let sent: Vec<_> = total["ports"].as_array().unwrap().iter().map(|p| number(p, "tx_packets")).collect();
    assert_eq!(sent, [103, 101, 3]);
}

fn a_station_that_moves_is_found_at_its_new_port_at_once(test: &str, kind: &str) {
    let Some(mut panel) = Panel::new(test, kind, "", &[""; 3]) else { return };
    let (to_mover, from_mover) = (frame(mac(1), 2), frame(mac(2), 1));
    panel.try_out(2, &frame(BROADCAST, 2));
    for round in 0..4 {
        let (at, other) = if round % 2 == 0 { (1, 3) } else { (3, 1) };
        for _ in 0..3 {
            let out = panel.try_out(at, &from_mover);
            assert_eq!(out, [vec![], vec![from_mover.clone()], vec![]], "round {round}");
            let out = panel.try_out(2, &to_mover);
            assert_eq!((&out[at - 1], &out[other - 1]), (&vec![to_mover.clone()], &vec![]), "round {round}");
        }
        assert_eq!(panel.switch.fdb()[0], format!("1 02:00:00:00:00:01 p{at}"));
    }
    let total = panel.switch.stop();
    assert_eq!((number(&total["bridge"], "learned"), number(&total["bridge"], "moved")), (2, 3));
    assert_eq!(total["drops"], json!({}));
}

fn beyond_the_limits_stations_are_not_learned_and_their_frames_are_flooded(test: &str, kind: &str) {
    let head = "[bridge]\nstations_max = 5\nstations_per_port_max = 3";
    let Some(mut panel) = Panel::new(test, kind, head, &[""; 3]) else { return };
    for n in 1..=5 {
        let shout = frame(BROADCAST, n);
        assert_eq!(panel.try_out(1, &shout), [vec![], vec![shout.clone()], vec![shout]]);
    }
    for n in 6..=9 {
        panel.try_out(2, &frame(BROADCAST, n));
    }
    let known = ["1 02:00:00:00:00:01 p1", "1 02:00:00:00:00:02 p1", "1 02:00:00:00:00:03 p1"];
    assert_eq!(panel.switch.fdb()[..3], known);
    assert_eq!(panel.switch.fdb()[3..], ["1 02:00:00:00:00:06 p2", "1 02:00:00:00:00:07 p2"]);
    // A station on a full port stays where it was believed to be.
    panel.try_out(1, &frame(BROADCAST, 6));
    assert_eq!(panel.switch.fdb()[3], "1 02:00:00:00:00:06 p2");
    // Unknown ones are flooded for, and may talk.
    let unknown = frame(mac(4), 6);
    assert_eq!(panel.try_out(2, &unknown), [vec![unknown.clone()], vec![], vec![unknown]]);
    let from_unknown = frame(mac(6), 4);
    assert_eq!(panel.try_out(1, &from_unknown), [vec![], vec![from_unknown], vec![]]);
    let total = panel.switch.stop();
    assert_eq!((number(&total["bridge"], "learned"), number(&total["bridge"], "learn_refused")), (5, 6));
    assert_eq!(total["drops"], json!({}));
}

#[test]
fn a_station_that_is_silent_is_forgotten_and_one_that_talks_is_not() {
    let test = "learning::a_station_that_is_silent_is_forgotten_and_one_that_talks_is_not";
    namespace::run(test, || {
        let head = "[bridge]\naging_s = 10\nflow_idle_s = 2";
        let Some(mut panel) = Panel::new(test, "af_packet", head, &[""; 2]) else { return };
        panel.try_out(1, &frame(BROADCAST, 1));
        panel.try_out(2, &frame(BROADCAST, 2));
        let begin = std::time::Instant::now();
        while begin.elapsed().as_secs() < 12 {
            panel.try_out(2, &frame(mac(1), 2));
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        assert_eq!(panel.switch.fdb(), ["1 02:00:00:00:00:02 p2"]);
        await_that("idle flows are gone", || panel.switch.ask("flows").is_empty());
        assert_eq!(panel.switch.stop()["bridge"]["aged"], 1);
    });
}

#[test]
fn fdb_shows_vlan_address_port_and_age() {
    let test = "learning::fdb_shows_vlan_address_port_and_age";
    namespace::run(test, || {
        let Some(mut panel) = Panel::new(test, "af_packet", "", &["access = 7"; 2]) else { return };
        panel.try_out(2, &frame(BROADCAST, 0xab));
        let output =
            Command::new(env!("CARGO_BIN_EXE_wye")).arg("fdb").arg("--socket").arg(&panel.switch.socket.0).output();
        let output = output.unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["vlan", "vni", "address", "port", "name", "age"]);
        assert_eq!(words[1][..5], ["7", "-", "02:00:00:00:00:ab", "2", "p2"]);
        assert_eq!((words.len(), words[1].len(), words[1][6]), (2, 7, "s"));
        panel.switch.stop();
    });
}
