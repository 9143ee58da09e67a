//! Wires: the far ends of a switch's interfaces in the hands of a test, which sends and sees whole frames.

use std::collections::VecDeque;
use std::sync::Arc;

use wye::packet::{Packet, Pool};
use wye::port::af_packet::{AfPacket, AfPacketConfig};
use wye::port::{Driver, TxBurst};

use crate::namespace::veth;
use crate::switch::{Switch, await_that, number};

/// A packet socket at the far end.
pub struct Wire {
    driver: AfPacket,
    pool: Arc<Pool>,
    waiting: VecDeque<Vec<u8>>,
    /// Frames that came since the wire is there.
    pub came: u64,
    /// Frames that a wire in this one's place had sent.
    sent_before: u64,
}

impl Wire {
    /// At `interface`, in the test's namespace.
    pub fn new(interface: &str) -> Self {
        let pool = Pool::new(8192, 2048, 128).unwrap();
        let config = AfPacketConfig {
            interface: interface.to_owned(),
            queues: 1,
            promiscuous: true,
            up: true,
            ring_bytes: 8 << 20,
        };
        let driver = AfPacket::open("wire", &config, &pool).unwrap().remove(0);
        Wire { driver, pool, waiting: VecDeque::new(), came: 0, sent_before: 0 }
    }

    /// `came` frames that the port sent did not come here.
    pub fn resume_at(&mut self, came: u64) {
        self.came = came;
    }

    /// Puts a frame on the wire.
    pub fn send(&mut self, frame: &[u8]) {
        let mut batch = [self.pool.packet(frame).expect("the pool is large enough")];
        assert_eq!(self.driver.tx_burst(TxBurst::new(&mut batch, &mut [], &[0])), 1);
        self.pool.free(&mut batch[0]);
        let stats = self.driver.stats();
        assert_eq!(stats.tx_dropped, 0, "the wire takes the frame");
    }

    /// Frames that this wire was given to send.
    pub fn sent(&self) -> u64 {
        self.sent_before + self.driver.stats().tx_packets
    }

    /// This wire takes the place of one that had sent `sent` frames and to which the port had sent `came`.
    pub fn resume(&mut self, sent: u64, came: u64) {
        (self.sent_before, self.came) = (sent - self.driver.stats().tx_packets, came);
    }

    /// Looks whether frames came, and returns how many did since the wire is there.
    pub fn look(&mut self) -> u64 {
        let mut out: Vec<Packet> = (0..64).map(|_| Packet::gone()).collect();
        let n = self.driver.rx_burst(&mut out);
        for packet in &mut out[..n] {
            self.waiting.push_back(packet.data().to_vec());
            self.pool.free(packet);
        }
        self.came += n as u64;
        assert_eq!(self.driver.stats().rx_dropped, 0, "the wire keeps up");
        self.came
    }

    /// The frames that came and were not taken yet.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        while self.look() > 0 && self.driver_has_more() {}
        self.waiting.drain(..).collect()
    }

    fn driver_has_more(&mut self) -> bool {
        let before = self.came;
        self.look() > before
    }
}

/// A switch of which every port ends in a wire.
pub struct Panel {
    pub switch: Switch,
    pub wires: Vec<Wire>,
    /// Port names, which are interface names too.
    pub ports: Vec<String>,
}

/// The `[[port]]` table of port `name`; `lines` is what else is in it.
pub fn port_table(name: &str, kind: &str, lines: &str) -> String {
    format!("[[port]]\nname = {name:?}\nkind = {kind:?}\n{lines}\n")
}

impl Panel {
    /// A switch with one port, `p1` and so on, for each of `ports`, which are further lines of its table; `head` is what stands before
    /// them in the configuration.
    pub fn new(test: &str, kind: &str, head: &str, ports: &[&str]) -> Option<Panel> {
        let names: Vec<String> = (1..=ports.len()).map(|i| format!("p{i}")).collect();
        if kind != "tap" {
            names.iter().for_each(|name| veth(name, &far_end(kind, name)));
        }
        let tables = names.iter().zip(ports).map(|(name, lines)| port_table(name, kind, lines));
        let switch = Switch::start_or_skip(test, &format!("{head}\n{}", tables.collect::<String>()))?;
        names.iter().for_each(|name| switch.await_link(name, "up"));
        let wires = names.iter().map(|name| Wire::new(&far_end(kind, name))).collect();
        Some(Panel { switch, wires, ports: names })
    }

    /// Sends `frame` into port `at`, counted from 1.
    pub fn send(&mut self, at: usize, frame: &[u8]) {
        self.wires[at - 1].send(frame);
    }

    /// Waits until the switch has done its work: all that was sent has come in, and all that went out has come. Returns what came
    /// on each wire since the last time.
    pub fn settle(&mut self) -> Vec<Vec<Vec<u8>>> {
        let sent: u64 = self.wires.iter().map(Wire::sent).sum();
        await_that("every frame has come in", || {
            self.switch.ask("ports").iter().map(|port| number(port, "rx_packets")).sum::<u64>() == sent
        });
        let switch = &self.switch;
        for (wire, name) in self.wires.iter_mut().zip(&self.ports) {
            await_that("every frame has gone out", || wire.look() == number(&switch.port(name), "tx_packets"));
        }
        self.wires.iter_mut().map(Wire::take).collect()
    }

    /// Sends `frame` into port `at` and returns what comes on each wire.
    pub fn try_out(&mut self, at: usize, frame: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.send(at, frame);
        self.settle()
    }
}

/// The interface at the other end of port `name`: of a TAP interface the kernel itself.
pub fn far_end(kind: &str, name: &str) -> String {
    if kind == "tap" { name.to_owned() } else { name.replace('p', "w") }
}
