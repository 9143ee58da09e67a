//! Ports over interfaces that the library drives, in network namespaces.

use std::ffi::CString;
use std::time::{Duration, Instant};

use wye::packet::{Packet, Pool};
use wye::port::af_packet::{AfPacket, AfPacketConfig};
use wye::port::{Driver, TxBurst};
use wye_capi::flow::*;
use wye_capi::packet::*;
use wye_capi::port::*;
use wye_capi::status::*;

use crate::namespace;
use crate::ports::{open, open_saying, poll};
use crate::switch::*;

/// Polls until `n` packets have come in.
fn await_packets(world: Test, n: usize) {
    let until = Instant::now() + Duration::from_secs(10);
    let mut came = 0;
    while came < n {
        came += poll(world);
        assert!(Instant::now() < until, "{came} of {n} packets came");
    }
    assert_eq!((came, poll(world)), (n, 0));
}

/// Waits until the far end has `n` frames.
fn await_frames(far: &mut AfPacket, pool: &Pool, n: usize) -> Vec<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut frames = Vec::new();
    while frames.len() < n {
        let mut out: Vec<Packet> = (0..64).map(|_| Packet::gone()).collect();
        let came = far.rx_burst(&mut out);
        for packet in &mut out[..came] {
            frames.push(packet.data().to_vec());
            pool.free(packet);
        }
        assert!(Instant::now() < until, "{} of {n} frames came", frames.len());
    }
    frames
}

/// A port of kind `kind` on an interface: from the interface to the caller, from the caller to the interface, misses, and the end.
fn carries_packets(test: &str, kind: &str) {
    namespace::run(test, || {
        let world = Fixture::new();
        let is_tap = kind == "tap";
        let far_end = if is_tap { "p1" } else { "w1" };
        if !is_tap {
            namespace::veth("p1", "w1");
        }
        let (kind, options) = (CString::new(kind).unwrap(), c"interface=p1");
        let status = open_saying(*world, 10, &kind, options, |detail| {
            let is_missing = ["CAP_", "CONFIG_", "/dev/net/tun"].iter().any(|what| detail.contains(what));
            assert!(is_missing, "{detail}");
            namespace::skip(test, detail);
        });
        if status != WYE_OK {
            return;
        }
        let pool = Pool::new(512, 2048, 128).unwrap();
        let config = AfPacketConfig {
            interface: far_end.to_owned(),
            queues: 1,
            promiscuous: true,
            up: true,
            ring_bytes: 4 << 20,
        };
        let mut far = AfPacket::open("far", &config, &pool).unwrap().remove(0);
        let mut send = |n: usize| {
            for _ in 0..n {
                let mut batch = [pool.packet(&frame()).unwrap()];
                assert_eq!(far.tx_burst(TxBurst::new(&mut batch, &mut [], &[0])), 1);
                pool.free(&mut batch[0]);
            }
        };

        // Misses go to the callback, once each, and count once.
        world.answer_with(output(3), 0);
        send(3);
        await_packets(*world, 3);
        assert_eq!((world.upcalls.len(), world.sent.len(), world.packets_in()), (3, 3, 3));
        assert!(world.sent.iter().all(|s| s.port == 3 && s.bytes == frame() && s.is_engines));

        // To the interface again and to the caller's port 2.
        world.put(WYE_PUT_CREATE, 1, &key(10), &port_mask(), &[output(10), output(2)].concat());
        send(5);
        await_packets(*world, 5);
        assert_eq!(world.sent.iter().filter(|s| s.port == 2 && s.bytes == frame()).count(), 5);
        // A packet of the caller's.
        let mut packet = Owned::new(1);
        assert_eq!(world.execute(&mut packet, &output(10), 0), WYE_OK);
        assert!(packet.is(wye_fate::WYE_FATE_TRANSMITTED));
        poll(*world);
        assert_eq!(await_frames(&mut far, &pool, 6), vec![frame().to_vec(); 6]);
        assert_eq!((world.packets_in(), world.stat(c"upcall")), (9, 0));

        // The number is taken, and so is the interface of a tap.
        assert_eq!(open(*world, 10, &kind, options), WYE_E_EXISTS);
        assert_eq!(wye_port_close(world.w(), 10, None), WYE_OK);
        let is_there = std::path::Path::new("/proc/sys/net/ipv4/conf/p1").exists();
        assert_eq!(is_there, !is_tap);
        // Output to it has a name now.
        let mut packet = Owned::new(1);
        assert_eq!(world.execute(&mut packet, &output(10), 0), WYE_OK);
        assert_eq!(world.stat(c"dropped.invalid_port"), 1);
        // And it can be opened again.
        assert_eq!(open(*world, 10, &kind, options), WYE_OK);
        assert_eq!(wye_port_close(world.w(), 10, None), WYE_OK);
    });
}

#[test]
fn a_tap_port_carries_packets() {
    carries_packets("interfaces::a_tap_port_carries_packets", "tap");
}

#[test]
fn an_af_packet_port_carries_packets() {
    carries_packets("interfaces::an_af_packet_port_carries_packets", "af_packet");
}

#[test]
fn an_af_xdp_port_carries_packets() {
    carries_packets("interfaces::an_af_xdp_port_carries_packets", "af_xdp");
}

#[test]
fn an_interface_that_is_not_there_is_named_and_leaves_nothing_behind() {
    let test = "interfaces::an_interface_that_is_not_there_is_named_and_leaves_nothing_behind";
    namespace::run(test, || {
        let world = Fixture::new();
        for kind in [c"af_packet", c"af_xdp"] {
            let mut detail = String::new();
            let status = open_saying(*world, 10, kind, c"interface=nowhere", |said| detail = said.to_owned());
            assert_eq!(status, WYE_E_IO);
            assert!(detail.contains("nowhere"), "{detail}");
            assert_eq!(wye_port_del(world.dp(), 10, None), WYE_E_NOT_FOUND);
        }
    });
}
