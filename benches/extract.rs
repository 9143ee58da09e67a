//! What does parsing cost per packet, by kind of packet, with headers in the nearest cache?
//!
//! `base` is the packet path's entry (untagged IPv4 TCP and UDP); `full` takes the same packets and all others through the general parser.
//! `touch` reads the first byte of each: subtract it. Figures are per packet, bursts of 32.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wye::flow::FlowKey;
use wye::flow::extract::{ExtractOptions, extract, extract_base};
use wye::packet::{Packet, Pool};
use wye::testing::Frame;
use wye::wire::simd::Level;

const BURST: usize = 32;

fn kinds() -> Vec<(&'static str, Frame)> {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    vec![
        ("udp4", Frame::udp4()),
        ("tcp4", Frame::tcp4()),
        ("udp6", Frame::udp6()),
        ("tcp6", Frame::tcp6()),
        ("vlan_udp4", Frame::new().vlan(5).ipv4(a, b).udp(1, 2)),
        ("qinq_udp4", Frame::new().tag(0x88a8, 6).vlan(5).ipv4(a, b).udp(1, 2)),
        ("mpls3_ipv4", Frame::new().mpls(1, 0, 64).mpls(2, 0, 64).mpls(3, 0, 64).ipv4(a, b).udp(1, 2)),
        ("options_udp4", Frame::new().ipv4(a, b).options(&[1; 8]).udp(1, 2)),
        ("fragment4", Frame::new().ipv4(a, b).fragment(64, true).udp(1, 2)),
        ("icmp4", Frame::new().ipv4(a, b).icmp(8, 0, 1)),
        ("sctp4", Frame::new().ipv4(a, b).sctp(1, 2)),
        ("nd6", Frame::new().ipv6([1; 16], [2; 16]).neighbour_solicitation([3; 16])),
        ("arp", Frame::new().arp(1, [2; 6], a, [0; 6], b)),
    ]
}

fn parsing(c: &mut Criterion) {
    let pool = Pool::new(BURST as u32, 2048, 128).expect("a pool for the bench");
    let mut group = c.benchmark_group("extract");
    group.throughput(Throughput::Elements(BURST as u64));
    let level = Level::detected();
    for (name, frame) in kinds() {
        let bytes = frame.pad_to(64).build();
        let mut burst: Vec<Packet> = (0..BURST).map(|_| pool.packet(&bytes).expect("the pool has 32")).collect();
        let mut keys = vec![FlowKey::default(); BURST];
        if name == "udp4" {
            group.bench_function("touch", |b| {
                b.iter(|| black_box(&mut burst).iter_mut().fold(0, |sum, p| sum + usize::from(p.data()[0])))
            });
        }
        if extract_base(&mut burst[0]).is_some() {
            group.bench_function(format!("base/{name}"), |b| {
                b.iter(|| {
                    level.run(
                        #[inline(always)]
                        || {
                            for (p, key) in black_box(&mut burst).iter_mut().zip(&mut keys) {
                                if let Some(line) = extract_base(p) {
                                    key.lines_mut()[0] = line;
                                }
                            }
                        },
                    )
                })
            });
        }
        group.bench_function(format!("full/{name}"), |b| {
            b.iter(|| {
                for (p, key) in black_box(&mut burst).iter_mut().zip(&mut keys) {
                    let _ = black_box(extract(p, None, ExtractOptions::default(), key));
                }
            })
        });
        burst.iter_mut().for_each(|p| pool.free(p));
    }
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
