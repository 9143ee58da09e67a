//! The memory port.

use wye::packet::Pool;
use wye::port::memory::{self, Peer};

use crate::conformance::{World, check};

impl World for Peer {
    fn send(&mut self, frame: &[u8]) {
        assert!(Peer::send(self, frame));
    }

    fn recv(&mut self) -> Option<Vec<u8>> {
        Peer::recv(self)
    }
}

#[test]
fn memory_port_keeps_the_contract() {
    let pool = Pool::new(1024, 2048, 128).unwrap();
    let (port, mut peer) = memory::pair(512, &pool);
    check(&pool, Box::new(port.with_packet_len_max(1600)), &mut peer);
}
