//! What is measured. The names are stable: records compare by them.

use std::time::Duration;

use wye::datapath::{Config, Datapath, FlowPut, Worker};
use wye::flow::action::{Action, Masked, SetField};
use wye::flow::{FlowKey, FlowMask};
use wye::port::PortEntry;

use super::measure::{Figure, carry, run};
use super::trace::{Trace, tuple};

/// A case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    flows: u32,
    table: Table,
    actions: fn() -> Vec<Action>,
    cache_entries: usize,
}

/// What is installed.
#[derive(Clone, Copy)]
enum Table {
    /// One flow on the destination port.
    L4,
    /// 1024 flows on the destination's /16, under so many masks.
    Masks(u32),
    /// As `Masks`, and one more flow that matches the whole 5-tuple, so that every connection is told apart.
    MasksAndTuple(u32),
    /// One flow per connection.
    Tuples,
}

fn output() -> Vec<Action> {
    vec![Action::Output(2)]
}

fn two_outputs() -> Vec<Action> {
    vec![Action::Output(2), Action::Output(3)]
}

fn rewrite() -> Vec<Action> {
    let addresses = [2, 0, 0, 0, 0, 0x12, 2, 0, 0, 0, 0, 0x11];
    vec![Action::Set(SetField::Ethernet(Masked::<[u8; 12]>::full(addresses))), Action::DecTtl, Action::Output(2)]
}

fn push_vlan() -> Vec<Action> {
    vec![Action::PushVlan { tpid: 0x8100, tci: 0x1064 }, Action::Output(2)]
}

const CACHE: usize = 1 << 16;

macro_rules! case {
    ($name:literal, $about:literal, $flows:literal, $table:expr) => {
        case!($name, $about, $flows, $table, output, CACHE)
    };
    ($name:literal, $about:literal, $flows:literal, $table:expr, $actions:ident) => {
        case!($name, $about, $flows, $table, $actions, CACHE)
    };
    ($name:literal, $about:literal, $flows:literal, $table:expr, $actions:ident, $cache:expr) => {
        Case { name: $name, about: $about, flows: $flows, table: $table, actions: $actions, cache_entries: $cache }
    };
}

/// All cases.
pub const CASES: &[Case] = &[
    case!("l4-1", "1 L4 megaflow, 1 connection", 1, Table::L4),
    case!("l4-1k", "1 L4 megaflow, 1k connections", 1_000, Table::L4),
    case!("mega1024-1k", "1024 megaflows, 1 mask, 1k connections", 1_000, Table::Masks(1)),
    case!("masks16-1k", "1024 megaflows, 16 masks, 1k connections", 1_000, Table::Masks(16)),
    case!("masks64-1k", "1024 megaflows, 64 masks, 1k connections", 1_000, Table::Masks(64)),
    case!("l4-100k", "1 L4 megaflow, 100k connections", 100_000, Table::L4),
    case!("l4-1m", "1 L4 megaflow, 1M connections", 1_000_000, Table::L4),
    case!("masks1-100k", "1024 megaflows, 1 mask, 100k connections", 100_000, Table::Masks(1)),
    case!("masks4-100k", "1024 megaflows, 4 masks, 100k connections", 100_000, Table::Masks(4)),
    case!("masks16-100k", "1024 megaflows, 16 masks, 100k connections", 100_000, Table::Masks(16)),
    case!("masks64-100k", "1024 megaflows, 64 masks, 100k connections", 100_000, Table::Masks(64)),
    case!("masks64-1m", "1024 megaflows, 64 masks, 1M connections", 1_000_000, Table::Masks(64)),
    case!(
        "told-apart16-100k",
        "as masks16-100k, and a 5-tuple flow that makes every connection differ",
        100_000,
        Table::MasksAndTuple(16),
        output,
        1 << 18
    ),
    case!(
        "told-apart64-100k",
        "as masks64-100k, and a 5-tuple flow that makes every connection differ",
        100_000,
        Table::MasksAndTuple(64),
        output,
        1 << 18
    ),
    case!(
        "told-apart64-1m",
        "as masks64-1m, and a 5-tuple flow that makes every connection differ",
        1_000_000,
        Table::MasksAndTuple(64),
        output,
        1 << 21
    ),
    case!("tuples-1k", "1k megaflows of the 5-tuple", 1_000, Table::Tuples),
    case!("tuples-8k", "8k megaflows of the 5-tuple", 8_000, Table::Tuples),
    case!("tuples-100k", "100k megaflows of the 5-tuple", 100_000, Table::Tuples, output, 1 << 18),
    case!("tuples-1m", "1M megaflows of the 5-tuple", 1_000_000, Table::Tuples, output, 1 << 21),
    case!("nocache-masks1-100k", "masks1-100k without the exact-match cache", 100_000, Table::Masks(1), output, 0),
    case!("nocache-masks16-100k", "masks16-100k without the exact-match cache", 100_000, Table::Masks(16), output, 0),
    case!("nocache-masks64-100k", "masks64-100k without the exact-match cache", 100_000, Table::Masks(64), output, 0),
    case!("rewrite-1k", "l4-1k with set(eth) and dec_ttl", 1_000, Table::L4, rewrite),
    case!("push-vlan-1k", "l4-1k with push_vlan", 1_000, Table::L4, push_vlan),
    case!("output2-1k", "l4-1k with output to two ports", 1_000, Table::L4, two_outputs),
];

fn base(mask: &mut FlowMask, key: &mut FlowKey) {
    let (m, k) = (&mut mask.0.base, &mut key.base);
    m.in_port = u32::MAX;
    k.in_port = 1;
    m.recirc_id = u32::MAX;
    m.eth_type.set(0xffff);
    k.eth_type.set(0x800);
    m.nw_frag = 3;
    m.nw_proto = 0xff;
    k.nw_proto = 17;
    m.packet_type_ns = 0xff;
}

impl Case {
    fn install(&self, datapath: &Datapath) {
        let put = |key: &FlowKey, mask: &FlowMask| {
            datapath.flow_put(FlowPut::create(key, mask, (self.actions)())).expect("the case's flows fit the table");
        };
        let (mut mask, mut key) = (FlowMask::default(), FlowKey::default());
        base(&mut mask, &mut key);
        match self.table {
            Table::L4 => {
                mask.0.base.tp_dst.set(0xffff);
                key.base.tp_dst.set(53);
                put(&key, &mask);
            }
            Table::Masks(masks) | Table::MasksAndTuple(masks) => {
                for i in 0..1024u32 {
                    let which = i % 64 % masks;
                    let (prefix, port_bits) = (1 + which / 8, 1 + which % 8);
                    let (mut mask, mut key) = (mask, key);
                    mask.0.base.eth_dst = [0xff; 6];
                    key.base.eth_dst = [2, 0, 0, 0, 0, 2];
                    mask.0.base.ipv4_src = (u32::MAX << (32 - prefix)).to_be_bytes();
                    key.base.ipv4_src = [10, 0, 0, 0];
                    mask.0.base.ipv4_dst = [255, 255, 0, 0];
                    key.base.ipv4_dst = [(20 + i % 64) as u8, (i / 64) as u8, 0, 0];
                    mask.0.base.tp_dst.set(0xffffu16 << (8 - port_bits));
                    key.base.tp_dst.set(53);
                    put(&key, &mask);
                }
                if let Table::MasksAndTuple(_) = self.table {
                    mask.0.base.ipv4_src = [255; 4];
                    mask.0.base.ipv4_dst = [255; 4];
                    mask.0.base.tp_src.set(0xffff);
                    mask.0.base.tp_dst.set(0xffff);
                    key.base.ipv4_src = [192, 0, 2, 1];
                    put(&key, &mask);
                }
            }
            Table::Tuples => {
                mask.0.base.ipv4_src = [255; 4];
                mask.0.base.ipv4_dst = [255; 4];
                mask.0.base.tp_src.set(0xffff);
                mask.0.base.tp_dst.set(0xffff);
                for i in 0..self.flows {
                    let (src, dst, sport, dport) = tuple(i);
                    key.base.ipv4_src = src;
                    key.base.ipv4_dst = dst;
                    key.base.tp_src.set(sport);
                    key.base.tp_dst.set(dport);
                    put(&key, &mask);
                }
            }
        }
    }

    /// Measures the case, in at most about `limit` plus one pass over the trace.
    pub fn run(&self, limit: Duration) -> Figure {
        self.with_worker(|worker, trace| run(self.name, worker, trace, limit))
    }

    /// Carries that many packets, rounded up to whole bursts, without measuring.
    pub fn carry(&self, packets: u64) {
        self.with_worker(|worker, trace| carry(worker, trace, packets));
    }

    fn with_worker<R>(&self, f: impl FnOnce(&mut Worker, &Trace) -> R) -> R {
        let config = Config { cache_entries: self.cache_entries, seed: Some(7), ..Config::default() };
        let datapath = Datapath::new(config).expect("a datapath for the bench");
        for number in 1..=3 {
            let name = format!("p{number}").into();
            datapath
                .port_add(PortEntry { number, name, packet_len_max: 1518, up: true })
                .expect("the bench's ports differ");
        }
        self.install(&datapath);
        let mut worker = datapath.worker().expect("a worker for the bench");
        let figure = f(&mut worker, &Trace::new(self.flows));
        let stats = datapath.stats();
        assert_eq!(stats.transmitted, stats.packets_in, "{}: {:?}", self.name, stats.drops().collect::<Vec<_>>());
        figure
    }
}
