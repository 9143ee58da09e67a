//! The TAP port.

use std::sync::Arc;

use wye::packet::Pool;
use wye::port::tap::{Tap, TapConfig};
use wye::port::{Driver, Link};

use crate::conformance::{await_link, check, collect, frame, receive, transmit};
use crate::namespace::{self, ip, skip};
use crate::wire::{Wire, unfinished_checksum_is_completed};

fn config(queues: u16) -> TapConfig {
    TapConfig { interface: "wye-tap".to_owned(), queues, mtu: None, up: true }
}

fn open(test: &str, config: &TapConfig, pool: &Arc<Pool>) -> Option<Vec<Tap>> {
    match Tap::open("t0", config, pool) {
        Ok(taps) => Some(taps),
        Err(error) if error.to_string().contains("/dev/net/tun") => {
            skip(test, &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn tap_port_keeps_the_contract() {
    let test = "tap::tap_port_keeps_the_contract";
    namespace::run(test, || {
        let pool = Pool::new(1024, 2048, 128).unwrap();
        let Some(mut taps) = open(test, &config(1), &pool) else { return };
        let mut wire = Wire::new("wye-tap");
        check(&pool, Box::new(taps.remove(0)), &mut wire);
        let gone = std::process::Command::new("ip").args(["link", "show", "wye-tap"]).output().unwrap();
        assert!(!gone.status.success(), "the interface is left behind");
    });
}

#[test]
fn a_host_behind_a_tap_sends_finished_checksums() {
    let test = "tap::a_host_behind_a_tap_sends_finished_checksums";
    namespace::run(test, || {
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut taps) = open(test, &config(1), &pool) else { return };
        unfinished_checksum_is_completed("wye-tap", &pool, &mut taps[0]);
    });
}

#[test]
fn queues_of_a_tap_share_its_traffic() {
    let test = "tap::queues_of_a_tap_share_its_traffic";
    namespace::run(test, || {
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut taps) = open(test, &config(2), &pool) else { return };
        let mut wire = Wire::new("wye-tap");
        for tap in &mut taps {
            assert_eq!(transmit(&pool, tap, &[frame(1, 60)]), 1);
            assert_eq!(collect(tap, &mut wire, 1), [frame(1, 60)]);
        }
        ip("addr add 10.9.0.1/24 dev wye-tap");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev wye-tap");
        for _ in 0..32 {
            let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
            socket.send_to(b"flow", "10.9.0.2:7").unwrap();
        }
        let count = |tap: &mut Tap| {
            let mut out: Vec<_> = (0..64).map(|_| wye::packet::Packet::gone()).collect();
            let n = tap.rx_burst(&mut out);
            out[..n].iter_mut().for_each(|p| pool.free(p));
            n
        };
        assert_eq!(taps.iter_mut().map(count).sum::<usize>(), 32);
    });
}

#[test]
fn a_tap_that_is_deleted_is_gone_and_made_again() {
    let test = "tap::a_tap_that_is_deleted_is_gone_and_made_again";
    namespace::run(test, || {
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut taps) = open(test, &config(1), &pool) else { return };
        let tap = &mut taps[0];
        await_link(tap, Link::Up);
        ip("link set wye-tap down");
        await_link(tap, Link::Down);
        assert_eq!(transmit(&pool, tap, &[frame(1, 60)]), 0);
        ip("link set wye-tap up");
        await_link(tap, Link::Up);
        ip("link del wye-tap");
        assert_eq!(transmit(&pool, tap, &[frame(1, 60), frame(2, 60)]), 0);
        assert_eq!(tap.stats().tx_dropped, 3);
        assert_eq!(tap.poll_fd(), None);
        await_link(tap, Link::Up);
        let mut wire = Wire::new("wye-tap");
        transmit(&pool, tap, &[frame(3, 60)]);
        assert_eq!(collect(tap, &mut wire, 1), [frame(3, 60)]);
    });
}

#[test]
fn frames_longer_than_a_buffer_are_counted() {
    let test = "tap::frames_longer_than_a_buffer_are_counted";
    namespace::run(test, || {
        let pool = Pool::new(512, 1024, 128).unwrap();
        let Some(mut taps) = open(test, &config(1), &pool) else { return };
        let mut wire = Wire::new("wye-tap");
        for (i, len) in [60, 897, 896].into_iter().enumerate() {
            crate::conformance::World::send(&mut wire, &frame(i as u16, len));
        }
        assert_eq!(receive(&pool, &mut taps[0], 2), [frame(0, 60), frame(2, 896)]);
        assert_eq!((taps[0].stats().rx_packets, taps[0].stats().rx_dropped), (2, 1));
        let wrong = Tap::open("t0", &TapConfig { mtu: Some(1500), ..config(1) }, &pool).err().unwrap().to_string();
        assert_eq!(wrong, "t0: mtu: 1500 needs buffers for 1518 bytes");
    });
}

#[test]
fn tap_errors_name_what_is_missing() {
    let test = "tap::tap_errors_name_what_is_missing";
    namespace::run(test, || {
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(_tap) = open(test, &config(1), &pool) else { return };
        let refused = |config: TapConfig| Tap::open("t0", &config, &pool).err().unwrap().to_string();
        assert!(refused(config(1)).contains("another program uses the interface"), "{}", refused(config(1)));
        assert!(refused(TapConfig { interface: "a/b".into(), ..config(1) }).starts_with("t0: interface: \"a/b\""));
        assert!(refused(config(0)).contains("queues"));
        let lo = refused(TapConfig { interface: "lo".into(), ..config(1) });
        assert!(lo.contains("it is no TAP interface"), "{lo}");
        let mtu = refused(TapConfig { interface: "t9".into(), mtu: Some(9), ..config(1) });
        assert!(mtu.starts_with("t0: cannot set the MTU of t9 to 9: the interface allows none such"), "{mtu}");
    });
}
