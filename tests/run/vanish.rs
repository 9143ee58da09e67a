//! Ports whose interface goes away while the switch runs, and comes back.

use std::process::Command;

use serde_json::json;
use wye::testing::Frame;
use wye::testing::packets::{IP_A, IP_B};

use crate::for_every_kind;
use crate::namespace::{Host, ip, veth};
use crate::switch::{await_that, check_accounts, number, over_ports, unsent};
use crate::wires::{Panel, Wire, far_end};

for_every_kind!(
    a_port_that_is_set_down_drops_with_its_reason_and_carries_again_when_it_is_up,
    a_port_whose_interface_is_deleted_comes_back_with_one_of_the_same_name,
);

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: u8, id: u16) -> Vec<u8> {
    Frame::new().eth(to, mac(from)).ipv4(IP_A, IP_B).id(id).udp(1000, 2000).payload(b"a datagram").build()
}

/// A switch that knows stations 1, 2 and 3 behind the ports of these numbers.
fn panel(test: &str, kind: &str) -> Option<Panel> {
    let mut panel = Panel::new(test, kind, "", &[""; 3])?;
    (1..=3).for_each(|n| drop(panel.try_out(n, &frame(BROADCAST, n as u8, 0))));
    Some(panel)
}

/// Ports 1 and 3 carry on, whatever port 2 does.
fn check_others(panel: &mut Panel, id: u16) {
    let (there, back) = (frame(mac(3), 1, id), frame(mac(1), 3, id));
    panel.send(1, &there);
    panel.send(3, &back);
    let came = panel.settle();
    assert_eq!((&came[0], &came[2]), (&vec![back], &vec![there]));
}

fn a_port_that_is_set_down_drops_with_its_reason_and_carries_again_when_it_is_up(test: &str, kind: &str) {
    let Some(mut panel) = panel(test, kind) else { return };
    for round in 1..=2 {
        ip("link set p2 down");
        panel.switch.await_link("p2", "down");
        (0..10).for_each(|id| panel.send(1, &frame(mac(2), 1, id)));
        check_others(&mut panel, round);
        // A flood goes where it can.
        let shout = frame(BROADCAST, 1, round);
        assert_eq!(panel.try_out(1, &shout), [vec![], vec![], vec![shout]]);
        let stats = panel.switch.stats();
        assert_eq!(stats["drops"], json!({ "port_down": 10 * round }));
        assert_eq!(stats["copies_dropped"], json!({ "port_down": round }));

        ip("link set p2 up");
        panel.switch.await_link("p2", "up");
        let there = frame(mac(2), 1, 77);
        assert_eq!(panel.try_out(1, &there), [vec![], vec![there], vec![]]);
        let back = frame(mac(1), 2, 77);
        assert_eq!(panel.try_out(2, &back), [vec![back], vec![], vec![]]);
    }
    let total = panel.switch.stop();
    assert_eq!((over_ports(&total, "rx_dropped"), over_ports(&total, "tx_dropped")), (0, 0));
    assert_eq!(
        (total["drops"].clone(), total["copies_dropped"].clone()),
        (json!({ "port_down": 20 }), json!({ "port_down": 2 }))
    );
}

fn a_port_whose_interface_is_deleted_comes_back_with_one_of_the_same_name(test: &str, kind: &str) {
    let Some(mut panel) = panel(test, kind) else { return };
    // Frames for port 2: those of the floods that made the stations known, and so on.
    let mut sent_there = 2;
    for round in 1..=2 {
        let sent = panel.wires[1].sent();
        ip("link del p2");
        // The switch finds out by these, or else by looking.
        (0..10).for_each(|id| panel.send(1, &frame(mac(2), 1, id)));
        sent_there += 11;
        if kind == "tap" {
            // What the switch made it makes again.
            await_that("the interface is back", || {
                Command::new("ip").args(["link", "show", "p2"]).output().unwrap().status.success()
            });
        } else {
            panel.switch.await_link("p2", "gone");
            (0..10).for_each(|id| panel.send(1, &frame(mac(2), 1, id)));
            sent_there += 10;
            check_others(&mut panel, round);
            veth("p2", "w2");
        }
        panel.switch.await_link("p2", "up");
        panel.wires[1] = Wire::new(&far_end(kind, "p2"));
        panel.wires[1].resume(sent, 0);
        await_that("what was sent before has had its fate", || {
            let ports = panel.switch.ask("ports");
            let sent: u64 = panel.wires.iter().map(Wire::sent).sum();
            panel.wires[1].resume_at(number(&ports[1], "tx_packets"));
            ports.iter().map(|port| number(port, "rx_packets")).sum::<u64>() == sent
        });
        let there = frame(mac(2), 1, 77);
        assert_eq!(panel.try_out(1, &there)[1], [there]);
        let back = frame(mac(1), 2, 77);
        assert_eq!(panel.try_out(2, &back)[0], [back]);
        check_others(&mut panel, 100 + round);
    }
    let total = panel.switch.stop();
    let port = &total["ports"][1];
    // Those that the driver had taken already are in the port's counters, the others have their reason.
    let dropped = number(&total["fates"], "dropped");
    assert_eq!(total["drops"], json!({ "port_down": dropped }), "{total:#}");
    assert_eq!(dropped + unsent(&total) + number(port, "tx_packets"), sent_there, "{total:#}");
    if kind != "tap" {
        assert_eq!(dropped + unsent(&total), 40, "{total:#}");
    }
    assert_eq!((number(port, "rx_dropped"), number(port, "rx_errors")), (0, 0));
}

#[test]
fn an_interface_that_is_moved_away_and_back_at_once_is_opened_again() {
    let test = "vanish::an_interface_that_is_moved_away_and_back_at_once_is_opened_again";
    crate::namespace::run(test, || {
        for kind in ["af_packet", "af_xdp"] {
            let Some(mut panel) = panel(test, kind) else { continue };
            let here = std::process::id();
            let elsewhere = Host::start();
            let sent = panel.wires[1].sent();
            ip(&format!("link set p2 netns {}", elsewhere.id()));
            elsewhere.run(&format!("ip link set p2 netns {here}"));
            ip("link set p2 up");
            // The switch may not have looked meanwhile; the interface even has the number that it had.
            panel.wires[1].resume(sent, 0);
            await_that("frames arrive on port 2 again", || {
                panel.wires[1].send(&frame(mac(1), 2, 5));
                std::thread::sleep(std::time::Duration::from_millis(100));
                !panel.wires[0].take().is_empty()
            });
            check_accounts(&panel.switch.stop());
            (1..=3).for_each(|n| ip(&format!("link del p{n}")));
        }
    });
}
