//! What is measured. The names are stable: records compare by them.

use std::time::Duration;

use wye::datapath::{Config, Datapath, FlowPut, Worker};
use wye::flow::action::{Action, Masked, SetField, TunnelPush};
use wye::flow::key::{TUNNEL_GENEVE, TUNNEL_KEY, TunnelLine};
use wye::flow::{FlowKey, FlowMask};
use wye::packet::Pool;
use wye::port::PortEntry;
use wye::time::Nanos;
use wye::tunnel::{Kind, Moment, Options, Sequence, Template, Tunnel, geneve, vxlan};
use zerocopy::FromZeros;

use super::measure::{Figure, carry, run};
use super::trace::{FRAME_LEN, Trace, tuple};

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
    len: usize,
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
    /// As `L4`, each packet into a tunnel.
    Push(Kind),
    /// As `Masks(1)`, each flow into one of so many tunnels.
    PushMany(u32),
    /// What arrives is in a tunnel; inside, as `L4`.
    Pop(Kind),
    /// What arrives is in one of so many tunnels, for each of which there is a flow inside.
    PopMany(u32),
}

/// The port that tunnels come out of.
const TUNNEL_PORT: u32 = 9;

/// A Geneve option: class 0x0102, type 1, 4 bytes.
const OPTION: [u8; 8] = [1, 2, 1, 1, 0xde, 0xad, 0xbe, 0xef];

/// Outer headers from 192.0.2.1 to 192.0.2.2 with identifier `id`.
fn outer(kind: Kind, id: u32) -> Vec<u8> {
    let mut line = TunnelLine::new_zeroed();
    line.id.set(u64::from(id));
    let mut header = vec![2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 0x21, 8, 0];
    header.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0, 0]);
    header.extend(kind.port().to_be_bytes());
    header.extend([0; 4]);
    let own = match kind {
        Kind::Vxlan => vxlan::write(&line, false, None, &mut header),
        _ => geneve::write(&line, &OPTION, None, &mut header),
    };
    own.expect("an identifier of 24 bits");
    header
}

fn push(kind: Kind, id: u32) -> Vec<Action> {
    let push = TunnelPush { tnl_port: TUNNEL_PORT, out_port: 2, tnl_type: kind.number(), header: outer(kind, id) };
    vec![Action::TunnelPush(Box::new(push)), Action::Output(2)]
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
        case!($name, $about, $flows, $table, $actions, $cache, FRAME_LEN)
    };
    ($name:literal, $about:literal, $flows:literal, $table:expr, $actions:ident, $cache:expr, $len:expr) => {
        Case {
            name: $name,
            about: $about,
            flows: $flows,
            table: $table,
            actions: $actions,
            cache_entries: $cache,
            len: $len,
        }
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
    case!("vxlan-encap-1k", "l4-1k into a VXLAN tunnel", 1_000, Table::Push(Kind::Vxlan)),
    case!("vxlan-encap-100k", "l4-100k into a VXLAN tunnel", 100_000, Table::Push(Kind::Vxlan)),
    case!("vxlan-encap-512-1k", "the same, 512 bytes", 1_000, Table::Push(Kind::Vxlan), output, CACHE, 512),
    case!("vxlan-encap-1420-1k", "the same, 1420 bytes", 1_000, Table::Push(Kind::Vxlan), output, CACHE, 1420),
    case!("vxlan-decap-1k", "64 B in VXLAN; inside, l4-1k", 1_000, Table::Pop(Kind::Vxlan)),
    case!("vxlan-decap-100k", "64 B in VXLAN; inside, l4-100k", 100_000, Table::Pop(Kind::Vxlan)),
    case!("vxlan-decap-512-1k", "the same, 512 bytes", 1_000, Table::Pop(Kind::Vxlan), output, CACHE, 512),
    case!("vxlan-decap-1420-1k", "the same, 1420 bytes", 1_000, Table::Pop(Kind::Vxlan), output, CACHE, 1420),
    case!("geneve-encap-1k", "l4-1k into Geneve with one option", 1_000, Table::Push(Kind::Geneve)),
    case!("geneve-decap-1k", "64 B in Geneve with one option; inside, l4-1k", 1_000, Table::Pop(Kind::Geneve)),
    case!("tunnel1-encap-1k", "mega1024-1k, all into one VXLAN tunnel", 1_000, Table::PushMany(1)),
    case!("tunnels1k-encap-1k", "mega1024-1k into 1000 VXLAN tunnels", 1_000, Table::PushMany(1000)),
    case!("tunnel1-decap-1k", "1k connections in one VXLAN tunnel, 1000 flows inside", 1_000, Table::PopMany(1)),
    case!(
        "tunnels1k-decap-1k",
        "1k connections in 1000 VXLAN tunnels, a flow inside each",
        1_000,
        Table::PopMany(1000)
    ),
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
        let put_with = |key: &FlowKey, mask: &FlowMask, actions: Vec<Action>| {
            datapath.flow_put(FlowPut::create(key, mask, actions)).expect("the case's flows fit the table");
        };
        let put = |key: &FlowKey, mask: &FlowMask| put_with(key, mask, (self.actions)());
        let (mut mask, mut key) = (FlowMask::default(), FlowKey::default());
        base(&mut mask, &mut key);
        match self.table {
            Table::L4 => {
                mask.0.base.tp_dst.set(0xffff);
                key.base.tp_dst.set(53);
                put(&key, &mask);
            }
            Table::Push(kind) => {
                mask.0.base.tp_dst.set(0xffff);
                key.base.tp_dst.set(53);
                put_with(&key, &mask, push(kind, 1000));
            }
            Table::Pop(_) | Table::PopMany(_) => self.install_pop(datapath, key, mask),
            Table::Masks(_) | Table::MasksAndTuple(_) | Table::PushMany(_) => {
                let masks = if let Table::Masks(masks) | Table::MasksAndTuple(masks) = self.table { masks } else { 1 };
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
                    match self.table {
                        Table::PushMany(tunnels) => put_with(&key, &mask, push(Kind::Vxlan, 1000 + i % tunnels)),
                        _ => put(&key, &mask),
                    }
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

    /// What takes packets out of tunnels: the flow that matches the outer header, which `key` and `mask` begin, and those inside.
    fn install_pop(&self, datapath: &Datapath, key: FlowKey, mask: FlowMask) {
        let put = |key: &FlowKey, mask: &FlowMask, action: Action| {
            datapath.flow_put(FlowPut::create(key, mask, vec![action])).expect("the case's flows fit the table");
        };
        let kind = if let Table::Pop(kind) = self.table { kind } else { Kind::Vxlan };
        datapath.tunnel_set(TUNNEL_PORT, Tunnel::new(kind, Options::default()));
        let (mut outer_key, mut outer_mask) = (key, mask);
        outer_mask.0.base.ipv4_dst = [255; 4];
        outer_key.base.ipv4_dst = [192, 0, 2, 2];
        outer_mask.0.base.tp_dst.set(0xffff);
        outer_key.base.tp_dst.set(kind.port());
        put(&outer_key, &outer_mask, Action::TunnelPop(TUNNEL_PORT));
        let (mut key, mut mask) = (key, mask);
        key.base.in_port = TUNNEL_PORT;
        (mask.0.tunnel.ipv4_src, mask.0.tunnel.ipv4_dst) = ([255; 4], [255; 4]);
        (key.tunnel.ipv4_src, key.tunnel.ipv4_dst) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        mask.0.tunnel.id.set(u64::MAX);
        mask.0.tunnel.flags = TUNNEL_KEY;
        key.tunnel.flags = TUNNEL_KEY;
        if kind == Kind::Geneve {
            mask.0.tunnel.flags |= TUNNEL_GENEVE;
            key.tunnel.flags |= TUNNEL_GENEVE;
            (mask.0.tunnel.opts[0], key.tunnel.opts[0]) = (0xff, 2);
            mask.0.options[..8].fill(0xff);
            key.options[..8].copy_from_slice(&OPTION);
        }
        mask.0.base.tp_dst.set(0xffff);
        key.base.tp_dst.set(53);
        match self.table {
            Table::PopMany(tunnels) => {
                mask.0.base.ipv4_dst = [255, 255, 0, 0];
                for i in 0..1024u32 {
                    key.tunnel.id.set(u64::from(1000 + i % tunnels));
                    key.base.ipv4_dst = [(20 + i % 64) as u8, (i / 64) as u8, 0, 0];
                    put(&key, &mask, Action::Output(2));
                }
            }
            _ => {
                key.tunnel.id.set(1000);
                put(&key, &mask, Action::Output(2));
            }
        }
    }

    /// What is received of connection `i`.
    fn wrap(&self, pool: &Pool, i: u32, frame: Vec<u8>) -> Vec<u8> {
        let (kind, id) = match self.table {
            Table::Pop(kind) => (kind, 1000),
            Table::PopMany(tunnels) => (Kind::Vxlan, 1000 + i % 1024 % tunnels),
            _ => return frame,
        };
        let header = outer(kind, id);
        let template = Template::new(kind, &header).expect("the bench's headers are right");
        let mut packet = pool.packet(&frame).expect("its only packet");
        let moment = Moment { sequence: &Sequence::default(), now: Nanos(0) };
        template.push(&mut packet, i.wrapping_mul(2_654_435_761), None, moment).expect("the pool's headroom");
        let bytes = packet.data().to_vec();
        pool.free(&mut packet);
        bytes
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
        let pool = Pool::new(1, 2304, 128).expect("a pool for one packet");
        let figure = f(&mut worker, &Trace::new(self.flows, self.len, |i, frame| self.wrap(&pool, i, frame)));
        let stats = datapath.stats();
        assert_eq!(stats.transmitted, stats.packets_in, "{}: {:?}", self.name, stats.drops().collect::<Vec<_>>());
        figure
    }
}
