//! The packet-socket port.

use std::process::Command;

use wye::packet::{Packet, Pool};
use wye::port::af_packet::{AfPacket, AfPacketConfig};
use wye::port::{Driver, Link};

use crate::conformance::{World, await_link, check, collect, frame, receive, transmit};
use crate::namespace::{self, ip, veth};
use crate::wire::{Wire, packet_config, two_kernels_talk_tcp, unfinished_checksum_is_completed};

#[test]
fn af_packet_port_keeps_the_contract() {
    namespace::run("af_packet::af_packet_port_keeps_the_contract", || {
        veth("x0", "x1");
        let pool = Pool::new(1024, 2048, 128).unwrap();
        let mut ports = AfPacket::open("p0", &packet_config("x0"), &pool).unwrap();
        let mut wire = Wire::new("x1");
        check(&pool, Box::new(ports.remove(0)), &mut wire);
    });
}

#[test]
fn unfinished_checksums_are_completed() {
    namespace::run("af_packet::unfinished_checksums_are_completed", || {
        veth("x0", "x1");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let mut ports = AfPacket::open("p0", &packet_config("x1"), &pool).unwrap();
        unfinished_checksum_is_completed("x0", &pool, &mut ports[0]);
    });
}

#[test]
fn two_kernels_talk_tcp_through_two_ports() {
    let test = "af_packet::two_kernels_talk_tcp_through_two_ports";
    namespace::run(test, || {
        two_kernels_talk_tcp(test, |pool| {
            let open = |interface: &str| -> Box<dyn Driver> {
                Box::new(AfPacket::open(interface, &packet_config(interface), pool).unwrap().remove(0))
            };
            Some([open("a1"), open("b1")])
        });
    });
}

#[test]
fn what_the_host_sends_on_the_interface_is_not_received() {
    namespace::run("af_packet::what_the_host_sends_on_the_interface_is_not_received", || {
        veth("x0", "x1");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let mut ports = AfPacket::open("p0", &packet_config("x0"), &pool).unwrap();
        ip("addr add 10.9.0.1/24 dev x0");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev x0");
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"not for us", "10.9.0.2:7").unwrap();
        let mut wire = Wire::new("x1");
        wire.send(&frame(1, 60));
        assert_eq!(receive(&pool, &mut ports[0], 1), [frame(1, 60)]);
        assert_eq!(ports[0].rx_burst(&mut [Packet::gone()]), 0);
    });
}

#[test]
fn queues_of_a_packet_port_share_its_traffic() {
    namespace::run("af_packet::queues_of_a_packet_port_share_its_traffic", || {
        veth("x0", "x1");
        let pool = Pool::new(1024, 2048, 128).unwrap();
        let mut ports = AfPacket::open("p0", &AfPacketConfig { queues: 2, ..packet_config("x0") }, &pool).unwrap();
        let mut wire = Wire::new("x1");
        (0..64).for_each(|i| wire.send(&frame(8 * i, 60 + usize::from(i))));
        let until = std::time::Instant::now() + crate::conformance::PATIENCE;
        let mut got = 0;
        while got < 64 && std::time::Instant::now() < until {
            for port in &mut ports {
                let mut out: Vec<_> = (0..64).map(|_| Packet::gone()).collect();
                got += port.rx_burst(&mut out);
                out.iter_mut().for_each(|p| pool.free(p));
            }
        }
        assert_eq!(got, 64);
    });
}

#[test]
fn an_interface_that_vanishes_is_reopened_when_it_is_back() {
    namespace::run("af_packet::an_interface_that_vanishes_is_reopened_when_it_is_back", || {
        veth("x0", "x1");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let mut ports = AfPacket::open("p0", &AfPacketConfig { queues: 2, ..packet_config("x0") }, &pool).unwrap();
        let [port, other] = &mut ports[..] else { unreachable!() };
        await_link(port, Link::Up);
        ip("link set x0 down");
        await_link(port, Link::Down);
        assert_eq!(transmit(&pool, port, &[frame(1, 60)]), 0);
        ip("link set x0 up");
        await_link(port, Link::Up);
        assert_eq!(transmit(&pool, port, &[frame(1, 60)]), 1);
        ip("link del x0");
        assert_eq!(transmit(&pool, port, &[frame(1, 60)]), 0);
        await_link(port, Link::Gone);
        await_link(other, Link::Gone);
        assert_eq!(transmit(&pool, port, &[frame(1, 60)]), 0);
        assert_eq!(port.stats().tx_dropped, 3);
        veth("x0", "x1");
        await_link(port, Link::Up);
        await_link(other, Link::Up);
        let mut wire = Wire::new("x1");
        assert_eq!(transmit(&pool, port, &[frame(2, 60)]), 1);
        assert_eq!(collect(port, &mut wire, 1), [frame(2, 60)]);
    });
}

#[test]
fn a_full_ring_loses_packets_and_counts_them() {
    namespace::run("af_packet::a_full_ring_loses_packets_and_counts_them", || {
        veth("x0", "x1");
        let pool = Pool::new(8192, 2048, 128).unwrap();
        let small = AfPacketConfig { ring_bytes: 1, ..packet_config("x0") };
        let mut ports = AfPacket::open("p0", &small, &pool).unwrap();
        let mut wire = Wire::new("x1");
        let sent = 1000;
        (0..sent).for_each(|i| wire.send(&frame(i, 1500)));
        let stats = ports[0].stats();
        assert!(stats.rx_dropped > 0 && stats.rx_dropped < u64::from(sent), "{stats:?}");
        let got = receive(&pool, &mut ports[0], usize::from(sent) - stats.rx_dropped as usize);
        assert_eq!(got.len() as u64 + ports[0].stats().rx_dropped, u64::from(sent));
    });
}

#[test]
fn af_packet_errors_name_what_is_missing() {
    let test = "af_packet::af_packet_errors_name_what_is_missing";
    namespace::run(test, || {
        let pool = Pool::new(64, 2048, 128).unwrap();
        let refused =
            |interface: &str| AfPacket::open("p0", &packet_config(interface), &pool).err().unwrap().to_string();
        if namespace::role().is_some() {
            let message = refused("lo");
            assert!(message.contains("CAP_NET_RAW is needed"), "{message}");
            return;
        }
        assert!(refused("nowhere").starts_with("p0: there is no interface nowhere: "), "{}", refused("nowhere"));
        let without = Command::new("setpriv")
            .args(["--bounding-set=-net_raw", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("WYE_TEST_ROLE", "without capability")
            .status();
        assert!(without.unwrap().success());
    });
}
