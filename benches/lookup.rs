//! What does finding a packet's flow cost: in the exact-match cache with 1 to a million flows, in the megaflow table with 1 to 64 subtables?
//!
//! Keys are asked for in a shuffled order, in bursts of 32, hashing included. `cache` is hash, prefetch, entry, and the comparison with the
//! flow; `megaflow` is the table alone, each key's flow lying in a subtable chosen evenly. Figures are per packet.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wye::cache::exact::ExactCache;
use wye::cache::hash::LineHasher;
use wye::cache::megaflow::{Megaflows, PacketKey};
use wye::flow::key::LINE_BASE;
use wye::flow::{FlowKey, FlowMask};
use wye::sync::qsbr::Domain;
use wye::wire::simd::Level;

const BURST: usize = 32;

/// A key of connection `i`.
fn key(i: u32) -> FlowKey {
    let mut key = FlowKey::default();
    key.base.in_port = 1;
    key.base.eth_type.set(0x800);
    key.base.nw_proto = 17;
    key.base.ipv4_src = (0x0a00_0000 + i).to_be_bytes();
    key.base.ipv4_dst = [20, 0, 0, 1];
    key.base.tp_src.set(i as u16);
    key.base.tp_dst.set(53);
    key
}

/// The 5-tuple, without the `which` lowest bits of the destination port and address: 64 masks that differ.
fn mask(which: u32) -> FlowMask {
    let mut mask = FlowMask::default();
    mask.0.base.in_port = u32::MAX;
    mask.0.base.eth_type.set(0xffff);
    mask.0.base.nw_proto = 0xff;
    mask.0.base.ipv4_src = [255; 4];
    mask.0.base.tp_src.set(0xffff);
    mask.0.base.ipv4_dst = (u32::MAX << (which % 8)).to_be_bytes();
    mask.0.base.tp_dst.set(u16::MAX << (which / 8));
    mask
}

fn shuffled(n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    let mut state = 1u64;
    for i in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    order
}

/// A table of `flows` flows, number `i` under mask `i % masks`.
fn table(flows: u32, masks: u32) -> (std::sync::Arc<Domain>, Megaflows<u32>) {
    let domain = std::sync::Arc::new(Domain::new());
    let (table, mut writer) = Megaflows::new(&domain, flows, LineHasher::new(7));
    for i in 0..flows {
        writer.insert(&key(i), &mask(i % masks), i).expect("the flows differ and fit");
    }
    (domain, table)
}

fn exact(c: &mut Criterion) {
    let mut group = c.benchmark_group("cache");
    group.throughput(Throughput::Elements(BURST as u64));
    let level = Level::detected();
    for flows in [1, 1_000, 8_000, 100_000, 1_000_000] {
        let (domain, table) = table(flows, 1);
        let mut reader = domain.reader().expect("the first reader");
        let mut cache = ExactCache::new(2 * flows as usize);
        let keys: Vec<FlowKey> = shuffled(flows.max(BURST as u32)).into_iter().map(|i| key(i % flows)).collect();
        let burst = reader.enter();
        let view = table.view(&burst);
        for key in &keys {
            let packet = PacketKey { base: &key.lines()[0], lines: LINE_BASE, more: key };
            let (found, _) = view.lookup(packet);
            cache.insert(view.cache_hash(packet), found.expect("every key has a flow").0);
        }
        let mut at = 0;
        group.bench_function(flows.to_string(), |b| {
            b.iter(|| {
                let all = keys.len();
                let keys = &keys[at..at + BURST];
                level.run(
                    #[inline(always)]
                    || {
                        let cache = cache.view();
                        let (mut hashes, mut numbers) = ([0; BURST], [0; BURST]);
                        for (hash, key) in hashes.iter_mut().zip(keys) {
                            *hash = view.cache_hash(PacketKey { base: &key.lines()[0], lines: LINE_BASE, more: key });
                            cache.prefetch(*hash);
                        }
                        for (number, hash) in numbers.iter_mut().zip(hashes) {
                            *number = cache.lookup(hash).unwrap_or(u32::MAX);
                            view.prefetch(*number);
                        }
                        let mut hits = 0;
                        for (number, key) in numbers.into_iter().zip(keys) {
                            hits += u32::from(view.flow(number).is_some_and(|f| f.matches_base(&key.lines()[0])));
                        }
                        black_box(hits)
                    },
                );
                at += BURST;
                if at + BURST > all {
                    at = 0;
                }
            })
        });
    }
    group.finish();
}

fn megaflow(c: &mut Criterion) {
    let mut group = c.benchmark_group("megaflow");
    group.throughput(Throughput::Elements(BURST as u64));
    let level = Level::detected();
    for masks in [1, 4, 16, 64] {
        let flows = 8_000;
        let (domain, table) = table(flows, masks);
        let mut reader = domain.reader().expect("the first reader");
        let keys: Vec<FlowKey> = shuffled(flows).into_iter().map(key).collect();
        let burst = reader.enter();
        let view = table.view(&burst);
        let (mut at, mut wanted) = (0, Vec::with_capacity(BURST));
        group.bench_function(format!("{masks}_subtables"), |b| {
            b.iter(|| {
                let keys = &keys[at..at + BURST];
                at = (at + BURST) % flows as usize;
                wanted.clear();
                wanted.extend(0..BURST as u16);
                level.run(
                    #[inline(always)]
                    || {
                        let packet = |i: u16| {
                            let key = &keys[i as usize];
                            PacketKey { base: &key.lines()[0], lines: LINE_BASE, more: key }
                        };
                        black_box(view.lookup_burst(&mut wanted, packet, |_, number, _| {
                            black_box(number);
                        }))
                    },
                );
            })
        });
        assert!(wanted.is_empty(), "every key has a flow");
    }
    group.finish();
}

criterion_group!(benches, exact, megaflow);
criterion_main!(benches);
