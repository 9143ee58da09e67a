//! Echoes of every size.

use std::net::{IpAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::namespace::{Host, role};
use crate::switch::PATIENCE;

/// Bytes of an ICMP echo's header.
const HEADER: usize = 8;

/// Has `host` send echoes of every size up to `size_max` to `target`, one after another: each comes back as it was. `test` is the calling
/// test, which begins with [`plays`].
pub fn sweep(test: &str, host: &Host, target: &str, size_max: usize) {
    let status = host.play(test, &format!("sweep {target} {size_max}")).wait().unwrap();
    assert!(status.success(), "echoes to {target}: {status}");
}

/// True if this process is the sender, which has done its work then.
pub fn plays() -> bool {
    let Some(role) = role() else { return false };
    let words: Vec<&str> = role.split_whitespace().collect();
    let ["sweep", target, size_max] = words[..] else { return false };
    send(target.parse().unwrap(), size_max.parse().unwrap());
    true
}

fn send(target: IpAddr, size_max: usize) {
    let (family, protocol, request, reply) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let socket: UdpSocket = socket(family, SocketType::DGRAM, Some(protocol)).unwrap().into();
    socket.connect((target, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut back = vec![0; HEADER + size_max + 1];
    for size in 0..=size_max {
        let [high, low] = (size as u16).to_be_bytes();
        let mut echo = vec![request, 0, 0, 0, 0, 0, high, low];
        echo.extend((0..size).map(|at| (at * 7 + size) as u8));
        socket.send(&echo).unwrap_or_else(|e| panic!("{size} bytes to {target}: {e}"));
        let len = socket.recv(&mut back).unwrap_or_else(|e| panic!("{size} bytes from {target}: {e}"));
        assert_eq!((back[0], &back[6..8], len), (reply, &echo[6..8], echo.len()), "{size} bytes from {target}");
        assert_eq!(back[HEADER..len], echo[HEADER..], "{size} bytes from {target}");
    }
}
