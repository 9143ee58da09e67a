//! Ports without a device: two bounded lock-free queues, one per direction.
//!
//! [`cable`] joins two switches (or two ports of one), [`pair`] joins a switch to a [`Peer`], the end that a test or a
//! demonstration holds. A buffer that belongs to the receiving side's pool crosses without a copy; any other is copied into it.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::driver::{Driver, Link, PortStats, TxBurst};
use crate::packet::{Owner, Packet, Pool, buffer::PACKET_LEN_MAX};
use crate::sync::primitive::{AtomicU32, Ordering};

/// One direction. Packets in the queue belong to `pool`.
struct Lane {
    queue: ArrayQueue<Packet>,
    pool: Arc<Pool>,
}

impl Lane {
    fn new(capacity: usize, pool: &Arc<Pool>) -> Arc<Self> {
        Arc::new(Lane { queue: ArrayQueue::new(capacity.max(1)), pool: Arc::clone(pool) })
    }

    /// Puts `packet` into the queue, by move if that is allowed and the receiver's pool owns it, else by copy. False when the queue is full or no
    /// buffer is free or large enough; the packet is then untouched.
    fn put(&self, packet: &mut Packet, may_move: bool) -> bool {
        // Each lane has one writer, so room that is seen here is still there below.
        if self.queue.is_full() {
            return false;
        }
        let mut moved = if may_move && self.pool.owns(packet) {
            packet.take()
        } else {
            let Some(copy) = self.pool.packet(packet.data()) else { return false };
            copy
        };
        // What the sender knew about the packet does not travel on a wire.
        moved.copy_metadata(&Packet::gone());
        match self.queue.push(moved) {
            Ok(()) => true,
            Err(mut back) => {
                if packet.owner() == Owner::Gone {
                    *packet = back;
                } else {
                    self.pool.free(&mut back);
                }
                false
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        while let Some(mut packet) = self.queue.pop() {
            self.pool.free(&mut packet);
        }
    }
}

const UP: u32 = 0;
const DOWN: u32 = 1;
const GONE: u32 = 2;

fn decode(link: &AtomicU32) -> Link {
    match link.load(Ordering::Relaxed) {
        UP => Link::Up,
        DOWN => Link::Down,
        _ => Link::Gone,
    }
}

/// A port over two queues.
///
/// *Thread-safety.* Each end may be on a thread of its own.
pub struct Memory {
    rx: Arc<Lane>,
    tx: Arc<Lane>,
    link: Arc<AtomicU32>,
    packet_len_max: usize,
    stats: PortStats,
}

/// The far end of a [`Memory`] port, for whoever plays the outside world.
pub struct Peer {
    to_port: Arc<Lane>,
    from_port: Arc<Lane>,
    link: Arc<AtomicU32>,
}

/// A port and its far end, with room for `capacity` packets each way. All buffers come from `pool`.
pub fn pair(capacity: usize, pool: &Arc<Pool>) -> (Memory, Peer) {
    let (port, far) = cable(capacity, pool, pool);
    (port, Peer { to_port: far.tx, from_port: far.rx, link: far.link })
}

/// Two ports joined by a cable with room for `capacity` packets each way. `pool_a` is the pool of the first port's switch,
/// `pool_b` that of the second's; they may be the same.
pub fn cable(capacity: usize, pool_a: &Arc<Pool>, pool_b: &Arc<Pool>) -> (Memory, Memory) {
    let (to_a, to_b) = (Lane::new(capacity, pool_a), Lane::new(capacity, pool_b));
    let link = Arc::new(AtomicU32::new(UP));
    let end = |rx: &Arc<Lane>, tx: &Arc<Lane>| Memory {
        rx: Arc::clone(rx),
        tx: Arc::clone(tx),
        link: Arc::clone(&link),
        packet_len_max: tx.pool.packet_len_max().min(PACKET_LEN_MAX),
        stats: PortStats::default(),
    };
    (end(&to_a, &to_b), end(&to_b, &to_a))
}

impl Memory {
    /// Makes the port refuse packets longer than `len` bytes, as an interface with a smaller MTU would.
    #[must_use]
    pub fn with_packet_len_max(mut self, len: usize) -> Self {
        self.packet_len_max = self.packet_len_max.min(len);
        self
    }

    fn is_up(&self) -> bool {
        self.link.load(Ordering::Relaxed) == UP
    }
}

impl Driver for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn rx_burst(&mut self, out: &mut [Packet]) -> usize {
        if !self.is_up() {
            return 0;
        }
        let mut n = 0;
        while n < out.len() {
            let Some(packet) = self.rx.queue.pop() else { break };
            self.stats.count_rx(packet.len());
            out[n] = packet;
            n += 1;
        }
        n
    }

    fn tx_burst(&mut self, mut burst: TxBurst<'_>) -> usize {
        let mut accepted = 0;
        let may_move = !burst.is_shared();
        while self.is_up() && accepted < burst.len() {
            let packet = burst.get(accepted);
            let len = packet.len();
            if len > self.packet_len_max {
                self.stats.tx_dropped += 1;
            } else if packet.owner() != Owner::Gone {
                if !self.tx.put(packet, may_move) {
                    break;
                }
                self.stats.count_tx(len);
            }
            accepted += 1;
        }
        self.stats.tx_dropped += (burst.len() - accepted) as u64;
        accepted
    }

    fn packet_len_max(&self) -> usize {
        self.packet_len_max
    }

    fn link(&mut self) -> Link {
        decode(&self.link)
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

impl Peer {
    /// Sends a copy of `bytes` to the port. False when the queue is full, the pool empty or its buffers too small.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.to_port.pool.packet(bytes) {
            Some(mut packet) => {
                let sent = self.to_port.put(&mut packet, true);
                self.to_port.pool.free(&mut packet);
                sent
            }
            None => false,
        }
    }

    /// Sends `packet` itself if it is of the port's pool, else a copy of it, as [`Peer::send`].
    pub fn send_packet(&mut self, packet: &mut Packet) -> bool {
        self.to_port.put(packet, true)
    }

    /// The bytes of the next packet that the port sent.
    pub fn recv(&mut self) -> Option<Vec<u8>> {
        let mut packet = self.recv_packet()?;
        let bytes = packet.data().to_vec();
        self.from_port.pool.free(&mut packet);
        Some(bytes)
    }

    /// The next packet that the port sent; its buffer is the caller's to free.
    pub fn recv_packet(&mut self) -> Option<Packet> {
        self.from_port.queue.pop()
    }

    /// Packets sent to the port that it has not received yet.
    pub fn backlog(&self) -> usize {
        self.to_port.queue.len()
    }

    /// Makes the port's link go down, vanish, or come back.
    pub fn set_link(&self, link: Link) {
        let code = match link {
            Link::Up => UP,
            Link::Down => DOWN,
            Link::Gone => GONE,
        };
        self.link.store(code, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(port: &mut Memory, packets: &mut [Packet]) -> usize {
        let refs: Vec<u16> = (0..packets.len() as u16).collect();
        port.tx_burst(TxBurst::new(packets, &mut [], &refs))
    }

    #[test]
    fn pool_buffers_cross_without_a_copy_and_foreign_ones_by_copy() {
        let (pool_a, pool_b) = (Pool::new(4, 512, 64).unwrap(), Pool::new(4, 512, 64).unwrap());
        let (mut a, mut b) = cable(8, &pool_a, &pool_b);
        let mut packets = [pool_b.packet(b"moved").unwrap(), pool_a.packet(b"copied").unwrap()];
        packets[0].recirc_id = 9;
        let at = packets[0].buffer_ptr();
        assert_eq!(send(&mut a, &mut packets), 2);
        assert_eq!((packets[0].owner(), packets[1].owner()), (Owner::Gone, Owner::Pool));
        pool_a.free(&mut packets[1]);

        let mut out = [Packet::gone(), Packet::gone(), Packet::gone()];
        assert_eq!(b.rx_burst(&mut out), 2);
        assert_eq!((out[0].data(), out[0].buffer_ptr(), out[0].recirc_id), (&b"moved"[..], at, 0));
        assert_eq!(out[1].data(), b"copied");
        out.iter_mut().for_each(|p| pool_b.free(p));
        assert_eq!((pool_a.available(), pool_b.available()), (4, 4));
    }

    #[test]
    fn full_queue_and_empty_pool_refuse_the_rest_of_the_burst() {
        let pool = Pool::new(4, 512, 64).unwrap();
        let (mut port, mut peer) = pair(2, &pool);
        let mut packets: Vec<Packet> = (0..3).map(|i| pool.packet(&[i]).unwrap()).collect();
        assert_eq!(send(&mut port, &mut packets), 2);
        assert_eq!((port.stats().tx_packets, port.stats().tx_dropped), (2, 1));
        assert!(peer.send(b"last buffer"));
        assert!(!peer.send(b"none left"));
        pool.free(&mut packets[2]);
        drop((port, peer));
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn a_port_that_has_gone_carries_nothing_and_comes_back() {
        let pool = Pool::new(4, 512, 64).unwrap();
        let (mut port, mut peer) = pair(2, &pool);
        let mut out = [Packet::gone()];
        assert!(peer.send(b"waits"));
        peer.set_link(Link::Gone);
        assert_eq!((port.link(), port.rx_burst(&mut out)), (Link::Gone, 0));
        let mut packets = [pool.packet(b"x").unwrap()];
        assert_eq!((send(&mut port, &mut packets), port.stats().tx_dropped), (0, 1));
        peer.set_link(Link::Up);
        assert_eq!((port.link(), port.rx_burst(&mut out)), (Link::Up, 1));
        pool.free(&mut out[0]);
        pool.free(&mut packets[0]);
        assert_eq!(pool.available(), 4);
    }
}
