//! An engine under test: a datapath with one worker, in one of the ways in which it may be used.

use std::sync::Arc;

use super::flows::NUMBER_BITS;
use crate::datapath::{Answer, Config, Datapath, LocalPorts, Miss, Punt, Sink, Undeliverable, UpcallHandler, Worker};
use crate::flow::FlowKey;
use crate::packet::{DropReason, Fate, Packet, PacketFlags, Pool};
use crate::port::TxBurst;
use crate::port::memory::{Peer, pair};
use crate::port::table::PortEntry;
use crate::sim::oracle::parcel::Parcel;
use crate::sim::oracle::{Policy, Punted};
use crate::time::Nanos;
use crate::wire::simd::Level;

/// What port 4 sends at most.
pub const SHORT: u32 = 200;
/// What the other ports send at most.
pub const LONG: u32 = 4000;
/// Ports 1 to this exist.
pub const PORTS: u32 = 5;

/// Bytes of a buffer.
const BUFFER_LEN: u32 = 4096;
/// Bytes in front of a packet in a buffer of the pool: room for the longest outer headers.
const HEADROOM: u16 = 384;
/// The longest packet that fits a buffer behind the headroom.
pub const LENGTH_MAX: usize = BUFFER_LEN as usize - HEADROOM as usize;

/// How packets get in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `Worker::process`; the sink copies bytes out.
    Copying,
    /// The same; packets for several ports are sent from one buffer.
    Sharing,
    /// The same; the sink keeps the buffers that it may.
    Taking,
    /// `Worker::poll` over memory ports.
    Polling,
}

/// An engine and its setting.
pub struct Engine {
    /// What a message calls it.
    pub name: String,
    /// Its control handle.
    pub datapath: Datapath,
    /// How packets get in and out.
    pub way: Way,
    worker: Worker,
    is_tight: bool,
    ports: Option<(LocalPorts, Vec<Peer>)>,
}

/// A packet that an engine sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Number of the packet in its burst, if that is known.
    pub packet: Option<usize>,
    /// Port.
    pub port: u32,
    /// Bytes.
    pub bytes: Vec<u8>,
}

struct Collector {
    way: Way,
    sent: Vec<Sent>,
    taken: Vec<Packet>,
}

impl Sink for Collector {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        let may_take = self.way == Way::Taking && !burst.is_shared();
        for i in 0..burst.len() {
            let packet = burst.get(i);
            let number = number_of(packet.ct_mark);
            self.sent.push(Sent { packet: number, port, bytes: packet.data().to_vec() });
            if may_take {
                self.taken.push(packet.take());
            }
        }
        (burst.len(), DropReason::TxFull)
    }

    fn shares(&self) -> bool {
        self.way != Way::Copying
    }
}

struct Handler(Arc<dyn Policy + Send + Sync>);

impl UpcallHandler for Handler {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        self.0.miss(miss.key)
    }

    fn punt(&self, punt: Punt<'_>) -> Answer {
        self.0.punt(punt.key, punt.request)
    }

    fn undeliverable(&self, packet: Undeliverable<'_>) -> Answer {
        self.0.undeliverable(packet.key, packet.tunnel, packet.obstacle)
    }
}

impl Engine {
    /// An engine with [`PORTS`] ports.
    pub fn new(way: Way, cache_entries: usize, level: Level, is_tight: bool, vlan_depth: u8) -> Engine {
        let config = Config {
            flows_max: 4096,
            cache_entries,
            pool_buffers: 16_384,
            buffer_len: BUFFER_LEN,
            headroom: HEADROOM,
            upcalls_max: 16_384,
            vlan_depth,
            seed: Some(7),
            ..Config::default()
        };
        let datapath = Datapath::new(config).expect("memory for a datapath");
        for number in 1..=PORTS {
            let packet_len_max = if number == 4 { SHORT } else { LONG };
            let entry = PortEntry { number, name: format!("p{number}").into(), packet_len_max, up: true };
            datapath.port_add(entry).expect("the port is new");
        }
        let mut worker = datapath.worker().expect("memory for a worker");
        worker.set_level(level);
        let ports = (way == Way::Polling).then(|| {
            let mut ports = LocalPorts::new(&datapath);
            ports.set_burst(256);
            let peers = (1..=PORTS).map(|number| {
                let (port, peer) = pair(8192, datapath.pool());
                ports.add(number, 0, Box::new(port));
                peer
            });
            let peers = peers.collect();
            (ports, peers)
        });
        let room = if is_tight { ", no headroom" } else { "" };
        let name = format!("{way:?}, {cache_entries} cache entries, {}{room}", level.name());
        Engine { name, datapath, way, worker, is_tight, ports }
    }

    /// Sets who answers upcalls.
    pub fn set_policy(&self, policy: Option<Arc<dyn Policy + Send + Sync>>) {
        self.datapath.set_upcall_handler(policy.map(|policy| Arc::new(Handler(policy)) as Arc<dyn UpcallHandler>));
    }

    /// Carries a burst; returns the fates, unless the way hides them, and what was sent.
    pub fn process(&mut self, parcels: &[Parcel], now: Nanos) -> (Option<Vec<Fate>>, Vec<Sent>) {
        if let Some((ports, peers)) = &mut self.ports {
            for parcel in parcels {
                assert!(peers[parcel.in_port as usize - 1].send(&parcel.bytes), "the port takes a burst");
            }
            self.worker.poll(ports, now);
            let mut sent = Vec::new();
            for (port, peer) in (1..).zip(peers) {
                sent.extend(core::iter::from_fn(|| peer.recv()).map(|bytes| Sent { packet: None, port, bytes }));
            }
            return (None, sent);
        }
        let pool = Arc::clone(self.datapath.pool());
        let mut packets: Vec<Packet> = parcels.iter().map(|parcel| packet(&pool, parcel, self.is_tight)).collect();
        let mut sink = Collector { way: self.way, sent: Vec::new(), taken: Vec::new() };
        self.worker.process(&mut packets, now, &mut sink);
        let fates = self.worker.fates()[..parcels.len()].to_vec();
        self.worker.free(&mut packets, |_| {});
        sink.taken.iter_mut().for_each(|packet| pool.free(packet));
        (Some(fates), sink.sent)
    }

    /// Empties the upcall ring.
    pub fn punted(&self) -> Vec<Punted> {
        let punted = core::iter::from_fn(|| {
            let mut upcall = self.datapath.upcall_pop()?;
            let bytes = upcall.packet.data().to_vec();
            self.datapath.free(&mut upcall.packet);
            let request = upcall.request.as_deref().cloned();
            Some(Punted { bytes, key: Box::new(upcall.key), request })
        });
        punted.collect()
    }

    /// Buffers of the pool that are in use though nothing is on its way. Stocks of workers and ports do not count.
    pub fn buffers_missing(self) -> usize {
        let Engine { datapath, worker, ports, .. } = self;
        drop((worker, ports));
        datapath.pool().capacity() - datapath.pool().available()
    }
}

/// The number of a packet, by its connection mark. What went into or out of a tunnel has none.
pub fn number_of(ct_mark: u32) -> Option<usize> {
    (ct_mark & NUMBER_BITS).checked_sub(1).map(|number| number as usize)
}

/// `parcel` in a buffer of the pool; without any headroom left if `is_tight`.
fn packet(pool: &Pool, parcel: &Parcel, is_tight: bool) -> Packet {
    let Parcel { bytes, .. } = parcel;
    let mut packet = pool.alloc(bytes.len()).expect("the pool is larger than any burst");
    if is_tight {
        assert!(packet.push_front(packet.headroom()));
        packet.truncate(bytes.len());
    }
    packet.data_mut().copy_from_slice(bytes);
    if let Some(ethertype) = parcel.layer3 {
        packet.flags.insert(PacketFlags::LAYER3);
        packet.l3_type = ethertype;
    }
    if parcel.checksums_are_good {
        packet.flags.insert(PacketFlags::CHECKSUM_GOOD);
    }
    if let Some(hash) = parcel.five_tuple {
        packet.flags.insert(PacketFlags::RSS_VALID);
        packet.rss_hash = hash;
    }
    (packet.in_port, packet.recirc_id, packet.dp_hash) = (parcel.in_port, parcel.recirc_id, parcel.dp_hash);
    (packet.skb_mark, packet.ct_mark) = (parcel.skb_mark, parcel.ct_mark);
    (packet.ct_state, packet.ct_zone) = (parcel.ct_state, parcel.ct_zone);
    packet
}

/// `key` without the packet's number.
pub fn without_number(key: &FlowKey) -> FlowKey {
    let mut key = *key;
    key.base.ct_mark &= !NUMBER_BITS;
    key
}
