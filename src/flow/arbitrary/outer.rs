//! Outer headers of `tnl_push`.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{geneve, ipv4, ipv6, mac, short, word};
use crate::flow::action::{TUNNEL_HEADER_MAX, TunnelPush};
use crate::flow::attr::vport_type as vport;
use crate::wire::{ethernet, ip};

/// The protocol that the IP header has, the type, and the bytes behind the IP header. `true`: needs IPv6.
type Inner = (u8, u32, Vec<u8>, bool);

/// A UDP header without length, and what is behind it.
fn udp(port: u16, behind: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let csum = prop_oneof![Just(0u16), Just(0xffff)];
    (prop_oneof![Just(0u16), short()], prop_oneof![4 => Just(port), 1 => short()], csum, behind).prop_map(
        |(src, dst, csum, behind)| {
            let head = [src, dst, 0, csum].map(u16::to_be_bytes);
            [head.as_flattened(), &behind].concat()
        },
    )
}

fn vxlan() -> impl Strategy<Value = Inner> {
    let flags = prop_oneof![3 => Just(0x0800_0000), 1 => Just(0x8800_0200), 1 => Just(0x0c00_0003)];
    let header = (flags, word()).prop_map(|(flags, vni): (u32, u32)| [flags, vni << 8].map(u32::to_be_bytes).concat());
    udp(4789, header).prop_map(|bytes| (ip::UDP, vport::VXLAN, bytes, false))
}

fn geneve_header() -> impl Strategy<Value = Inner> {
    let options = prop_oneof![1 => Just(vec![]), 2 => geneve()];
    let header = (options, any::<bool>(), word()).prop_map(|(options, is_oam, vni)| {
        let is_critical = options.get(2).is_some_and(|kind| kind & 0x80 != 0);
        let bits = if is_oam { 0x80 } else { 0 } | if is_critical { 0x40 } else { 0 };
        let head = [(options.len() / 4) as u8, bits, 0x65, 0x58];
        [&head[..], &(vni << 8).to_be_bytes(), &options].concat()
    });
    udp(6081, header).prop_map(|bytes| (ip::UDP, vport::GENEVE, bytes, false))
}

fn gtpu() -> impl Strategy<Value = Inner> {
    let header = (prop_oneof![Just(0x30u8), Just(0x34)], word())
        .prop_map(|(flags, teid)| [&[flags, 255, 0, 0][..], &teid.to_be_bytes()].concat());
    udp(2152, header).prop_map(|bytes| (ip::UDP, vport::GTPU, bytes, false))
}

fn gre() -> impl Strategy<Value = Inner> {
    let parts = (any::<u16>(), word(), word());
    let proto = prop_oneof![Just(ethernet::TEB), Just(ethernet::IPV4), Just(ethernet::IPV6)];
    (0..8u16, proto, parts, any::<bool>()).prop_map(|(bits, proto, (csum, key, seq), is_v6)| {
        let flags = (bits & 4) << 13 | (bits & 3) << 12;
        let mut out = [flags, proto].map(u16::to_be_bytes).concat();
        for (bit, value) in [(4, u32::from(csum) << 16), (2, key), (1, seq)] {
            if bits & bit != 0 {
                out.extend(value.to_be_bytes());
            }
        }
        (ip::GRE, if is_v6 { vport::IP6GRE } else { vport::GRE }, out, is_v6)
    })
}

fn erspan() -> impl Strategy<Value = Inner> {
    (0..0x400u16, any::<Option<u32>>(), 0..0x40u16, 0..2u16, any::<bool>()).prop_map(
        |(sid, index, hwid, dir, is_v6)| {
            let (version, protocol) = if index.is_some() { (1u16, 0x88beu16) } else { (2, 0x22eb) };
            let mut out = [0x1000, protocol, 0, 0, version << 12, sid].map(u16::to_be_bytes).concat();
            match index {
                Some(index) => out.extend(index.to_be_bytes()),
                None => out.extend([0, 0, 0, hwid << 4 | dir << 3].map(u16::to_be_bytes).as_flattened()),
            }
            (ip::GRE, if is_v6 { vport::IP6ERSPAN } else { vport::ERSPAN }, out, is_v6)
        },
    )
}

fn srv6() -> impl Strategy<Value = Inner> {
    vec(ipv6(), 1..6).prop_map(|segments| {
        let last = segments.len() as u8 - 1;
        let head = [0, 2 * (last + 1), 4, last, last, 0, 0, 0];
        (ip::ROUTING, vport::SRV6, [&head[..], segments.as_flattened()].concat(), true)
    })
}

/// Headers of a kind that Open vSwitch has, as it makes them; rarely with a byte changed, or with any bytes at all.
pub fn tunnel_push() -> impl Strategy<Value = TunnelPush> {
    let inner = prop_oneof![3 => vxlan(), 3 => geneve_header(), 1 => gtpu(), 2 => gre(), 1 => erspan(), 1 => srv6()];
    let addresses = (mac(), mac(), ipv4(), ipv4(), ipv6(), ipv6());
    let fields = (any::<u8>(), any::<u8>(), any::<bool>(), 0..0x10_0000u32);
    let right = (inner, any::<bool>(), addresses, fields).prop_map(|((proto, kind, inner, needs_v6), v6, a, f)| {
        let (tos, ttl, df, label) = f;
        // Types that begin with `IP6` are for IPv6, others of that kind for IPv4.
        let is_v6 = needs_v6 || v6 && proto == ip::UDP;
        let ethertype = if is_v6 { ethernet::IPV6 } else { ethernet::IPV4 };
        let mut out = [&a.0[..], &a.1, &ethertype.to_be_bytes()].concat();
        if is_v6 {
            out.extend((6 << 28 | u32::from(tos) << 20 | label).to_be_bytes());
            out.extend([0, 0, proto, ttl]);
            out.extend([a.4, a.5].as_flattened());
        } else {
            out.extend([0x45, tos, 0, 0, 0, 0, if df { 0x40 } else { 0 }, 0, ttl, proto, 0, 0]);
            out.extend([a.2, a.3].as_flattened());
        }
        out.extend(inner);
        (kind, out)
    });
    let changed =
        (right, any::<Option<(prop::sample::Index, u8)>>(), 0..8u8).prop_map(|((kind, mut header), change, n)| {
            if let (Some((at, byte)), 0) = (change, n) {
                let at = at.index(header.len());
                header[at] = byte;
            }
            (kind, header)
        });
    let any_bytes = (word(), vec(any::<u8>(), 0..=TUNNEL_HEADER_MAX));
    (prop_oneof![12 => changed, 1 => any_bytes], 0..4u32, 0..4u32)
        .prop_map(|((tnl_type, header), tnl_port, out_port)| TunnelPush { tnl_port, out_port, tnl_type, header })
}
