//! The far end of an interface, and two kernels that talk through ports.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wye::packet::{Packet, Pool};
use wye::port::af_packet::{AfPacket, AfPacketConfig};
use wye::port::{Driver, TxBurst};

use crate::conformance::{World, free, receive, transmit};
use crate::namespace::{Host, role};

/// Settings for `interface` that suit tests.
pub fn packet_config(interface: &str) -> AfPacketConfig {
    AfPacketConfig { interface: interface.to_owned(), queues: 1, promiscuous: true, up: true, ring_bytes: 4 << 20 }
}

/// A packet socket at the far end, with a pool of its own.
pub struct Wire {
    driver: AfPacket,
    pool: Arc<Pool>,
    waiting: VecDeque<Vec<u8>>,
}

impl Wire {
    pub fn new(interface: &str) -> Self {
        let pool = Pool::new(1024, 2048, 128).unwrap();
        let driver = AfPacket::open("wire", &packet_config(interface), &pool).unwrap().remove(0);
        Wire { driver, pool, waiting: VecDeque::new() }
    }
}

impl World for Wire {
    fn send(&mut self, frame: &[u8]) {
        assert_eq!(transmit(&self.pool, &mut self.driver, &[frame.to_vec()]), 1);
    }

    fn recv(&mut self) -> Option<Vec<u8>> {
        let mut out: Vec<Packet> = (0..64).map(|_| Packet::gone()).collect();
        let n = self.driver.rx_burst(&mut out);
        for packet in &mut out[..n] {
            self.waiting.push_back(packet.data().to_vec());
            self.pool.free(packet);
        }
        self.waiting.pop_front()
    }
}

/// The sum of RFC 1071 over the parts, which end at even bytes but the last.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A host's kernel sends UDP, which on a veth leaves it with an unfinished checksum; the driver must give a finished one.
pub fn unfinished_checksum_is_completed(host: &str, pool: &Pool, driver: &mut dyn Driver) {
    crate::namespace::ip(&format!("addr add 10.9.0.1/24 dev {host}"));
    crate::namespace::ip(&format!("neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev {host}"));
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.send_to(b"odd number of bytes", "10.9.0.2:7").unwrap();
    let frame = receive(pool, driver, 1).pop().expect("the datagram");
    assert_eq!(frame[12..14], [8, 0]);
    assert!(frame.ends_with(b"odd number of bytes"));
    let l4 = &frame[34..];
    let pseudo = [0, 17, 0, l4.len() as u8];
    assert_eq!(sum(&[&frame[14..34]]), 0xffff, "IPv4 checksum");
    assert_eq!(sum(&[&frame[26..34], &pseudo, l4]), 0xffff, "UDP checksum");
    assert_ne!(frame[40..42], [0, 0], "a checksum was sent");
}

/// Forwards everything between two ports until `is_done`.
pub fn cross(pool: &Pool, a: &mut dyn Driver, b: &mut dyn Driver, mut is_done: impl FnMut() -> bool) {
    let mut batch: Vec<Packet> = (0..64).map(|_| Packet::gone()).collect();
    let mut polls = 0u32;
    loop {
        let mut idle = true;
        for way in 0..2 {
            let (from, to): (&mut dyn Driver, &mut dyn Driver) = if way == 0 { (a, b) } else { (b, a) };
            let n = from.rx_burst(&mut batch);
            if n > 0 {
                idle = false;
                let refs: Vec<u16> = (0..n as u16).collect();
                to.tx_burst(TxBurst::new(&mut batch, &mut [], &refs));
                batch[..n].iter_mut().for_each(|p| free(pool, from, p));
            }
            from.flush();
            to.flush();
        }
        polls += 1;
        if polls.is_multiple_of(256) && is_done() {
            return;
        }
        if idle {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

const BULK: usize = 8 << 20;

fn serve() {
    let listener = TcpListener::bind("10.9.1.1:4000").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    std::io::Read::by_ref(&mut stream).take(BULK as u64).read_to_end(&mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8), "bytes changed on the way");
    stream.write_all(&(bytes.len() as u64).to_be_bytes()).unwrap();
}

fn ask() {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect("10.9.1.1:4000") {
            Ok(stream) => break stream,
            Err(e) => assert!(Instant::now() < deadline, "connect: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let bytes: Vec<u8> = (0..BULK).map(|i| (i % 251) as u8).collect();
    stream.write_all(&bytes).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(u64::from_be_bytes(answer), BULK as u64);
}

/// Two hosts, each behind a veth whose near end (`a1`, `b1`) is one of the ports that `open` makes, move megabytes over TCP with all of
/// Linux's offloads on.
pub fn two_kernels_talk_tcp(test: &str, open: impl FnOnce(&Arc<Pool>) -> Option<[Box<dyn Driver>; 2]>) {
    match role().as_deref() {
        Some("server") => return serve(),
        Some("client") => return ask(),
        _ => {}
    }
    crate::namespace::veth("a0", "a1");
    crate::namespace::veth("b0", "b1");
    let pool = Pool::new(4096, 2048, 128).unwrap();
    let Some([mut a, mut b]) = open(&pool) else { return };
    let (server, client) = (Host::new("a0", "10.9.1.1/24"), Host::new("b0", "10.9.1.2/24"));
    let mut players = [server.play(test, "server"), client.play(test, "client")];
    let begin = Instant::now();
    cross(&pool, &mut *a, &mut *b, || players.iter_mut().all(|p| p.try_wait().unwrap().is_some()));
    eprintln!("{} MiB in {:?}; {:?} {:?}", BULK >> 20, begin.elapsed(), a.stats(), b.stats());
    assert!(players.iter_mut().all(|p| p.wait().unwrap().success()));
    drop((a, b));
    assert_eq!(pool.available(), pool.capacity());
}
