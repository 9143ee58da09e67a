//! The AF_XDP port.

use std::process::Command;

use wye::packet::{Owner, Packet, Pool};
use wye::port::af_xdp::{AfXdp, AfXdpConfig, Attach, Copying};
use wye::port::driver::BURST_MAX;
use wye::port::{Driver, Link, TxBurst};

use crate::conformance::{PATIENCE, World, await_link, check, collect, frame, receive, transmit};
use crate::namespace::{self, ip, skip, veth};
use crate::wire::{Wire, two_kernels_talk_tcp, unfinished_checksum_is_completed};

fn config(interface: &str) -> AfXdpConfig {
    AfXdpConfig {
        interface: interface.to_owned(),
        queues: Some(1),
        promiscuous: true,
        up: true,
        frames: 4096,
        copying: Copying::Auto,
        attach: Attach::Auto,
    }
}

/// Opens the port, or says why that is not possible here (in a user namespace, or without the kernel's support).
fn open(test: &str, config: &AfXdpConfig) -> Option<Vec<AfXdp>> {
    match AfXdp::open("x", config) {
        Ok(ports) => Some(ports),
        Err(error) if ["CAP_", "CONFIG_"].iter().any(|what| error.to_string().contains(what)) => {
            skip(test, &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn has_program(interface: &str) -> bool {
    let output = Command::new("ip").args(["-details", "link", "show", interface]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("xdp")
}

#[test]
fn af_xdp_port_keeps_the_contract() {
    let test = "af_xdp::af_xdp_port_keeps_the_contract";
    namespace::run(test, || {
        for attach in [Attach::Native, Attach::Generic] {
            veth("x0", "x1");
            let pool = Pool::new(1024, 2048, 128).unwrap();
            let Some(mut ports) = open(test, &AfXdpConfig { attach, ..config("x0") }) else { return };
            assert!(has_program("x0"));
            let mut wire = Wire::new("x1");
            check(&pool, Box::new(ports.remove(0)), &mut wire);
            assert!(!has_program("x0"), "the program is left behind");
            ip("link del x0");
        }
    });
}

#[test]
fn frames_are_handed_out_and_sent_again_without_a_copy_and_none_is_lost() {
    let test = "af_xdp::frames_are_handed_out_and_sent_again_without_a_copy_and_none_is_lost";
    namespace::run(test, || {
        veth("x0", "x1");
        let Some(mut ports) = open(test, &AfXdpConfig { frames: 1024, ..config("x0") }) else { return };
        let port = &mut ports[0];
        let mut wire = Wire::new("x1");
        let mut out: Vec<Packet> = (0..BURST_MAX).map(|_| Packet::gone()).collect();
        // Every frame goes round several times.
        for round in 0..64u16 {
            let sent: Vec<_> = (0..64).map(|i| frame(i ^ round, 60 + usize::from(i))).collect();
            sent.iter().for_each(|f| wire.send(f));
            let until = std::time::Instant::now() + PATIENCE;
            let mut n = 0;
            while n < sent.len() && std::time::Instant::now() < until {
                n += port.rx_burst(&mut out[n..]);
            }
            assert_eq!(n, sent.len(), "round {round}");
            assert!(out[..n].iter().all(|p| p.owner() == Owner::Port && p.headroom() == 256));
            // Every fourth is dropped by the engine, the others go back where they came from, with a header in front.
            let mut expected = Vec::new();
            let mut refs = Vec::new();
            for (i, packet) in out[..n].iter_mut().enumerate() {
                if i % 4 == 0 {
                    port.release(packet);
                } else {
                    assert!(packet.push_front(4));
                    expected.push(packet.data().to_vec());
                    refs.push(i as u16);
                }
            }
            assert_eq!(port.tx_burst(TxBurst::new(&mut out, &mut [], &refs)), refs.len());
            assert!(out.iter().all(|p| p.owner() == Owner::Gone), "taken, not copied");
            port.flush();
            assert_eq!(collect(port, &mut wire, expected.len()), expected, "round {round}");
        }
        let stats = port.stats();
        assert_eq!((stats.rx_packets, stats.tx_packets), (64 * 64, 64 * 48));
        assert_eq!((stats.rx_dropped, stats.rx_errors, stats.tx_dropped), (0, 0, 0));
    });
}

#[test]
fn unfinished_checksums_are_completed() {
    let test = "af_xdp::unfinished_checksums_are_completed";
    namespace::run(test, || {
        veth("x0", "x1");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut ports) = open(test, &config("x1")) else { return };
        unfinished_checksum_is_completed("x0", &pool, &mut ports[0]);
    });
}

#[test]
fn two_kernels_talk_tcp_through_two_ports() {
    let test = "af_xdp::two_kernels_talk_tcp_through_two_ports";
    namespace::run(test, || {
        two_kernels_talk_tcp(test, |_| {
            let open = |interface: &str| -> Option<Box<dyn Driver>> {
                Some(Box::new(open(test, &config(interface))?.remove(0)))
            };
            Some([open("a1")?, open("b1")?])
        });
    });
}

#[test]
fn each_queue_is_a_driver_and_all_share_the_program() {
    let test = "af_xdp::each_queue_is_a_driver_and_all_share_the_program";
    namespace::run(test, || {
        ip("link add x0 numrxqueues 2 numtxqueues 2 type veth peer name x1 numrxqueues 2 numtxqueues 2");
        ip("link set x1 up");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut ports) = open(test, &AfXdpConfig { queues: None, ..config("x0") }) else { return };
        let mut wire = Wire::new("x1");
        for port in &mut ports {
            assert_eq!(transmit(&pool, port, &[frame(1, 60)]), 1);
            assert_eq!(collect(port, &mut wire, 1), [frame(1, 60)]);
        }
        (0..32).for_each(|i| wire.send(&frame(8 * i, 60)));
        let until = std::time::Instant::now() + PATIENCE;
        let mut got = 0;
        while got < 32 && std::time::Instant::now() < until {
            for port in &mut ports {
                let mut out: Vec<_> = (0..64).map(|_| Packet::gone()).collect();
                got += port.rx_burst(&mut out);
                out.iter_mut().for_each(|p| port.release(p));
            }
        }
        assert_eq!(got, 32);
        drop(ports.pop());
        assert!(has_program("x0"), "the other queue still uses it");
        drop(ports);
        assert!(!has_program("x0"));
    });
}

#[test]
fn an_interface_that_vanishes_is_reopened_when_it_is_back() {
    let test = "af_xdp::an_interface_that_vanishes_is_reopened_when_it_is_back";
    namespace::run(test, || {
        veth("x0", "x1");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut ports) = open(test, &config("x0")) else { return };
        let port = &mut ports[0];
        await_link(port, Link::Up);
        ip("link set x0 down");
        await_link(port, Link::Down);
        ip("link set x0 up");
        await_link(port, Link::Up);
        // A packet that is out all the while keeps its bytes, and its frame comes home.
        let mut wire = Wire::new("x1");
        wire.send(&frame(3, 60));
        let mut out = [Packet::gone()];
        let until = std::time::Instant::now() + PATIENCE;
        while port.rx_burst(&mut out) == 0 {
            assert!(std::time::Instant::now() < until);
        }
        ip("link del x0");
        await_link(port, Link::Gone);
        assert_eq!(transmit(&pool, port, &[frame(1, 60)]), 0);
        assert_eq!((port.stats().tx_dropped, port.poll_fd()), (1, None));
        veth("x0", "x1");
        await_link(port, Link::Up);
        assert_eq!(out[0].data(), frame(3, 60));
        port.release(&mut out[0]);
        let mut wire = Wire::new("x1");
        for i in 0..3 {
            assert_eq!(transmit(&pool, port, &[frame(i, 60)]), 1);
            assert_eq!(collect(port, &mut wire, 1), [frame(i, 60)]);
            wire.send(&frame(i, 99));
            assert_eq!(receive(&pool, port, 1), [frame(i, 99)]);
        }
    });
}

#[test]
fn packets_that_find_no_frame_are_counted() {
    let test = "af_xdp::packets_that_find_no_frame_are_counted";
    namespace::run(test, || {
        veth("x0", "x1");
        let pool = Pool::new(512, 2048, 128).unwrap();
        let Some(mut ports) = open(test, &AfXdpConfig { frames: 64, ..config("x0") }) else { return };
        let mut wire = Wire::new("x1");
        (0..200).for_each(|i| wire.send(&frame(i, 60)));
        let got = receive(&pool, &mut ports[0], 32).len() as u64;
        let until = std::time::Instant::now() + PATIENCE;
        while got + ports[0].stats().rx_dropped < 200 && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!((got, ports[0].stats().rx_dropped), (32, 168));
    });
}

#[test]
fn af_xdp_errors_name_what_is_missing() {
    let test = "af_xdp::af_xdp_errors_name_what_is_missing";
    namespace::run(test, || {
        let refused = |config: AfXdpConfig| AfXdp::open("x", &config).err().expect("an error").to_string();
        match namespace::role().as_deref() {
            Some("no net_raw") => return assert!(refused(config("x0")).contains("CAP_NET_RAW is needed")),
            Some("no bpf") => return assert!(refused(config("x0")).contains("CAP_BPF and CAP_NET_ADMIN are needed")),
            Some("no ipc_lock") => {
                let many = refused(AfXdpConfig { frames: 1 << 16, ..config("x0") });
                return assert!(many.contains("RLIMIT_MEMLOCK") && many.contains("134217728 bytes"), "{many}");
            }
            _ => {}
        }
        veth("x0", "x1");
        let Some(port) = open(test, &config("x0")) else { return };
        let busy = refused(config("x0"));
        assert!(busy.contains("another XDP program is attached"), "{busy}");
        drop(port);
        assert!(refused(config("nowhere")).starts_with("x: there is no interface nowhere"));
        let queues = refused(AfXdpConfig { queues: Some(3), ..config("x0") });
        assert!(queues.starts_with("x: queues: x0 has 1 receive queues, not 3"), "{queues}");
        let zero_copy = refused(AfXdpConfig { copying: Copying::ZeroCopy, ..config("x0") });
        assert!(zero_copy.contains("its driver has no zero-copy"), "{zero_copy}");
        assert!(!has_program("x0"), "a failure leaves a program behind");
        assert!(refused(AfXdpConfig { frames: 100, ..config("x0") }).contains("power of two"));
        ip("link set x0 mtu 9000");
        assert!(refused(config("x0")).contains("MTU of 9000"));
        ip("link set x0 mtu 1500");

        for (role, capabilities) in
            [("no net_raw", "-net_raw"), ("no bpf", "-bpf,-sys_admin"), ("no ipc_lock", "-ipc_lock,-sys_resource")]
        {
            let output = Command::new("setpriv")
                .arg(format!("--bounding-set={capabilities}"))
                .args(["--", "sh", "-c", "ulimit -l 8192; exec \"$0\" --exact \"$1\""])
                .arg(std::env::current_exe().unwrap())
                .arg(test)
                .env("WYE_TEST_ROLE", role)
                .output()
                .unwrap();
            assert!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stdout));
        }
    });
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let test = "af_xdp::a_killed_process_leaves_nothing_behind";
    namespace::run(test, || {
        if namespace::role().is_some() {
            let _port = open(test, &config("x0"));
            std::thread::sleep(PATIENCE);
            return;
        }
        veth("x0", "x1");
        let Some(port) = open(test, &config("x0")) else { return };
        drop(port);
        let mut holder = Command::new(std::env::current_exe().unwrap());
        holder.args(["--exact", test]).env("WYE_TEST_ROLE", "holder").stdout(std::process::Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let until = std::time::Instant::now() + PATIENCE;
        let wait_for = |wanted: bool| {
            while has_program("x0") != wanted {
                assert!(std::time::Instant::now() < until, "program attached: {}", !wanted);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        wait_for(true);
        holder.kill().unwrap();
        holder.wait().unwrap();
        wait_for(false);
    });
}
