//! What does each header action cost per packet, on a burst of 32 packets of 64 bytes that are in the cache?
//!
//! `baseline` touches each packet's descriptor and first byte and does nothing else: subtract it. Figures are per packet.

#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wye::action::{ethernet, hash, mpls, set_field, ttl, vlan};
use wye::flow::action::{HashAlgorithm, Masked, SetField};
use wye::flow::extract::{ExtractOptions, extract_base};
use wye::meter::{Band, Meter, MeterConfig, MeterUnit};
use wye::packet::{Packet, Pool};
use wye::time::Nanos;
use wye::wire::checksum;

const BURST: usize = 32;

/// Ethernet, IPv4 (TTL 255), UDP with a checksum, 64 bytes.
fn frame() -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 50, 0, 1, 0, 0, 255, 17, 0, 0];
    f.extend([10, 0, 0, 1, 20, 0, 0, 2, 3, 232, 0, 53, 0, 30, 0x12, 0x34]);
    let sum = checksum::of(&f[14..34]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f.resize(64, 0x55);
    f
}

/// Puts the TTL back, or the packets would expire. One store of a width that the next load is served from at once.
#[inline(always)]
fn reset(p: &mut Packet) {
    p.data_mut()[22..26].copy_from_slice(&[255, 17, 0x12, 0x34]);
}

fn leaves(c: &mut Criterion) {
    let pool = Pool::new(BURST as u32, 2048, 128).unwrap();
    let mut burst: Vec<Packet> = (0..BURST).map(|_| pool.packet(&frame()).unwrap()).collect();
    burst.iter_mut().for_each(|p| assert!(extract_base(p).is_some()));
    let mut group = c.benchmark_group("action");
    group.throughput(Throughput::Elements(BURST as u64));
    macro_rules! bench {
        ($name:literal, $p:ident => $body:expr) => {
            group.bench_function($name, |b| {
                b.iter(|| {
                    for $p in black_box(&mut burst[..]).iter_mut() {
                        let _ = black_box($body);
                    }
                })
            });
        };
    }
    let mut n = 0u8;
    let whole = Masked::<[u8; 4]>::full;
    let (none, no_address) = (Masked::<u8>::none(), Masked::<[u8; 4]>::none());
    let addresses = black_box([7u8; 12]);
    bench!("baseline", p => p.data_mut()[0]);
    bench!("set_eth", p => ethernet::set_addresses(p, &addresses));
    bench!("reset", p => reset(p));
    bench!("set_ipv4_ttl", p => {
        n = n.wrapping_add(1);
        set_field::ipv4(p, &no_address, &no_address, none, Masked::<u8>::full(n))
    });
    bench!("dec_ttl", p => { reset(p); ttl::dec_ttl(p) });
    bench!("set_eth+dec_ttl", p => { reset(p); (ethernet::set_addresses(p, &addresses), ttl::dec_ttl(p)) });
    bench!("route", p => { reset(p); ttl::route(p, &addresses) });
    bench!("push_vlan+pop_vlan", p => (vlan::push(p, 0x8100, 0x1005), vlan::pop(p)));
    bench!("push_mpls+pop_mpls", p => (mpls::push(p, 0x1100, 0x8847), mpls::pop(p, 0x0800)));
    let masked = Masked { value: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], mask: [255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] };
    bench!("set_eth_masked", p => ethernet::set_addresses_masked(p, &masked));
    bench!("set_ipv4_addresses", p => {
        n = n.wrapping_add(1);
        set_field::ipv4(p, &whole([1, 2, 3, n]), &whole([4, 5, 6, n]), none, none)
    });
    bench!("set_udp_ports", p => {
        n = n.wrapping_add(1);
        let field = SetField::Udp { src: Masked::<u16>::full(n.into()), dst: Masked::<u16>::full(9) };
        set_field::apply(p, &field)
    });
    bench!("hash_l4_computed", p => {
        p.flags = Default::default();
        hash::dp_hash(p, HashAlgorithm::L4, 1, ExtractOptions::default())
    });
    bench!("hash_sym_l4", p => hash::dp_hash(p, HashAlgorithm::SymL4, 1, ExtractOptions::default()));

    let bands = vec![Band { rate: u32::MAX, burst: u32::MAX }];
    let meter = Meter::new(MeterConfig { unit: MeterUnit::PacketsPerSecond, bands }, Nanos(0)).unwrap();
    let lens = [64u32; BURST];
    let mut now = 0;
    group.bench_function("meter", |b| {
        b.iter_batched(
            || [false; BURST],
            |mut dropped| {
                now += 1000;
                meter.police(Nanos(now), black_box(&lens), &mut dropped)
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
    burst.iter_mut().for_each(|p| pool.free(p));
}

criterion_group!(benches, leaves);
criterion_main!(benches);
