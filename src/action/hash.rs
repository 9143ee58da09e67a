//! Hashes for `hash`, `lb_output` and whatever else spreads flows: the 5-tuple, and a symmetric one that is equal for both directions.
//!
//! A hash is only ever compared with one made here, so the function is our own: a folded 64-bit multiplication per 8 bytes.
//! What goes into it is what OVS puts in, of later fragments, which have no ports, only addresses and protocol; and of IGMP the message's type.

use zerocopy::IntoBytes;

use crate::flow::FlowKey;
use crate::flow::action::HashAlgorithm;
use crate::flow::extract::{ExtractOptions, extract_whole};
use crate::flow::key::BaseLine;
use crate::packet::{Packet, PacketFlags};
use crate::wire::{ethernet, ip, ipv4};

/// Odd numbers with half their bits set, without pattern: the fractional parts of the golden ratio and of the square root of 3.
const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xbb67_ae85_84ca_a73b;

/// Mixes `word` into `hash`.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word) as u128 * (K0 | 1) as u128;
    (product as u64 ^ (product >> 64) as u64).wrapping_add(K1)
}

#[inline(always)]
const fn finish(hash: u64) -> u32 {
    let hash = mix(hash, K1);
    (hash ^ hash >> 32) as u32
}

#[inline(always)]
fn halves(address: &[u8; 16]) -> [u64; 2] {
    let (low, high) = (address.first_chunk().copied(), address.last_chunk().copied());
    [u64::from_ne_bytes(low.unwrap_or_default()), u64::from_ne_bytes(high.unwrap_or_default())]
}

/// The `hash` action's result for `packet`: the 5-tuple ([`five_tuple`]) mixed with `basis`, or the symmetric hash.
#[inline]
pub fn dp_hash(packet: &mut Packet, algorithm: HashAlgorithm, basis: u32, options: ExtractOptions) -> u32 {
    match algorithm {
        HashAlgorithm::L4 => l4(five_tuple(packet, options), basis),
        HashAlgorithm::SymL4 => {
            // A packet without a key is as good as any other of its kind.
            symmetric_l4(&extract_whole_again(packet, options).unwrap_or_default(), basis)
        }
    }
}

/// A hash of the 5-tuple mixed with the basis of a `hash` action.
#[inline]
pub const fn l4(five_tuple: u32, basis: u32) -> u32 {
    finish(mix(five_tuple as u64, basis as u64))
}

/// The receiver's hash of the packet's 5-tuple, or ours, if the packet has one.
#[inline(always)]
pub fn at_hand(packet: &Packet) -> Option<u32> {
    packet.flags.contains(PacketFlags::RSS_VALID).then_some(packet.rss_hash)
}

/// A hash of the packet's 5-tuple: the receiver's if it is valid, else our own, which is then kept with the packet.
#[inline(always)]
pub fn five_tuple(packet: &mut Packet, options: ExtractOptions) -> u32 {
    if let Some(hash) = at_hand(packet) {
        return hash;
    }
    match usual_five_tuple(packet) {
        Some(hash) => kept(packet, hash),
        None => rarer_five_tuple(packet, options),
    }
}

#[inline(always)]
const fn kept(packet: &mut Packet, hash: u32) -> u32 {
    packet.rss_hash = hash;
    packet.flags.insert(PacketFlags::RSS_VALID);
    hash
}

/// Keeps [`five_tuple`] with a packet of which nothing was changed since extraction found `base`, if it is IPv4.
#[inline(always)]
pub fn keep(packet: &mut Packet, base: &BaseLine) {
    if at_hand(packet).is_none() && base.eth_type.get() == ethernet::IPV4 {
        kept(packet, five_tuple_v4(base));
    }
}

#[inline(never)]
fn rarer_five_tuple(packet: &mut Packet, options: ExtractOptions) -> u32 {
    match extract_whole_again(packet, options) {
        Some(key) => kept(packet, five_tuple_of_key(&key)),
        None => finish(0),
    }
}

/// [`five_tuple_v4`] of untagged IPv4 without options and TCP or UDP, whose headers extraction has found.
#[inline(always)]
fn usual_five_tuple(packet: &Packet) -> Option<u32> {
    const L3: usize = ethernet::HEADER_LEN;
    const L4: usize = L3 + ipv4::HEADER_LEN;
    let h: &[u8; L4 + 4] = packet.data().first_chunk()?;
    // The offsets may be older than `trunc`, which leaves a packet shorter than its IP header says.
    let total_len = usize::from(u16::from_be_bytes([h[16], h[17]]));
    let is_usual = packet.l3 == L3 as u16
        && packet.l4 == L4 as u16
        && !packet.flags.contains(PacketFlags::LAYER3)
        && [h[12], h[13], h[14]] == [8, 0, 0x45]
        && [h[20] & 0x3f, h[21]] == [0; 2]
        && L3 + total_len <= packet.len()
        && (h[23] == ip::UDP || h[23] == ip::TCP && has_tcp_header(packet, L4, total_len));
    if !is_usual {
        return None;
    }
    let addresses = u64::from_ne_bytes([h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33]]);
    let ports = u32::from_ne_bytes([h[34], h[35], h[36], h[37]]);
    Some(of_v4(addresses, u64::from(h[23]) << 32 | u64::from(ports)))
}

/// True if the TCP header at `l4` of an IPv4 packet without options is one whose ports extraction believes.
#[inline(always)]
fn has_tcp_header(packet: &Packet, l4: usize, total_len: usize) -> bool {
    let len = packet.data().get(l4 + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    len >= 20 && ipv4::HEADER_LEN + len <= total_len
}

/// One multiplication for both words: it is made for each packet that goes into a tunnel.
#[inline(always)]
const fn of_v4(addresses: u64, protocol_and_ports: u64) -> u32 {
    let product = (addresses ^ K0) as u128 * (protocol_and_ports ^ K1) as u128;
    let hash = product as u64 ^ (product >> 64) as u64;
    (hash ^ hash >> 32) as u32
}

/// The key of a packet in the middle of its actions: its header offsets are set again, metadata does not matter here.
fn extract_whole_again(packet: &mut Packet, options: ExtractOptions) -> Option<FlowKey> {
    let offsets = (packet.l2_5, packet.l3, packet.l4);
    let key = extract_whole(packet, None, options).ok();
    (packet.l2_5, packet.l3, packet.l4) = offsets;
    key
}

/// [`five_tuple`]'s own hash, of a key.
#[inline]
pub fn five_tuple_of_key(key: &FlowKey) -> u32 {
    let base = &key.base;
    match base.eth_type.get() {
        ethernet::IPV4 | ethernet::ARP => five_tuple_v4(base),
        ethernet::IPV6 => {
            let [a, b] = halves(&key.ipv6.src);
            let [c, d] = halves(&key.ipv6.dst);
            finish(mix(mix(mix(mix(mix(0, a), b), c), d), protocol_and_ports(base)))
        }
        _ => finish(0),
    }
}

#[inline(always)]
fn five_tuple_v4(base: &BaseLine) -> u32 {
    let [[a, b, c, d], [e, f, g, h]] = [base.ipv4_src, base.ipv4_dst];
    of_v4(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), protocol_and_ports(base))
}

/// Of protocols without ports, what the key has in their place: nothing, or the type of a message.
#[inline(always)]
fn protocol_and_ports(base: &BaseLine) -> u64 {
    let [[a, b], [c, d]] = [base.tp_src.to_bytes(), base.tp_dst.to_bytes()];
    u64::from(base.nw_proto) << 32 | u64::from(u32::from_ne_bytes([a, b, c, d]))
}

/// The same for both directions of a connection. Ports count for TCP and SCTP only and never for fragments, as in OVS: a UDP datagram
/// that is fragmented must not leave its flow's path. What is not IP is hashed by its link layer.
#[inline]
pub fn symmetric_l4(key: &FlowKey, basis: u32) -> u32 {
    let base = &key.base;
    let mut hash = u64::from(basis);
    match base.eth_type.get() {
        ethernet::IPV4 => {
            hash = mix(hash, u64::from(u32::from_ne_bytes(base.ipv4_src) ^ u32::from_ne_bytes(base.ipv4_dst)));
        }
        ethernet::IPV6 => {
            let ([a, b], [c, d]) = (halves(&key.ipv6.src), halves(&key.ipv6.dst));
            hash = mix(mix(hash, a ^ c), b ^ d);
        }
        ethertype => {
            let mut addresses = [0u8; 8];
            for (i, byte) in addresses[..6].iter_mut().enumerate() {
                *byte = base.eth_src[i] ^ base.eth_dst[i];
            }
            addresses[6..].copy_from_slice(ethertype.as_bytes());
            let vlan = base.vlan_tci.get() & crate::wire::vlan::VID_MASK;
            let vlan1 = key.misc.vlan1_tci.get() & crate::wire::vlan::VID_MASK;
            return finish(mix(mix(hash, u64::from_ne_bytes(addresses)), u64::from(vlan) << 16 | u64::from(vlan1)));
        }
    }
    let ports = match base.nw_proto {
        ip::TCP | ip::SCTP if base.nw_frag == 0 => base.tp_src.get() ^ base.tp_dst.get(),
        _ => 0,
    };
    finish(mix(hash, u64::from(base.nw_proto) << 32 | u64::from(ports)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Pool;
    use crate::testing::Frame;
    use crate::testing::packets::{IP_A, IP_B, IP6_A, IP6_B, MAC_A, MAC_B};

    fn both(frame: Frame) -> (u32, u32) {
        let pool = Pool::new(1, 2048, 64).unwrap();
        let mut p = pool.packet(&frame.build()).unwrap();
        let out = (
            dp_hash(&mut p, HashAlgorithm::L4, 7, ExtractOptions::default()),
            dp_hash(&mut p, HashAlgorithm::SymL4, 7, ExtractOptions::default()),
        );
        pool.free(&mut p);
        out
    }

    #[test]
    fn symmetric_hash_is_the_same_for_both_directions() {
        let pairs = [
            (
                Frame::new().eth(MAC_B, MAC_A).ipv4(IP_A, IP_B).tcp(1, 2),
                Frame::new().eth(MAC_A, MAC_B).ipv4(IP_B, IP_A).tcp(2, 1),
            ),
            (
                Frame::new().eth(MAC_B, MAC_A).ipv6(IP6_A, IP6_B).sctp(1, 2),
                Frame::new().eth(MAC_A, MAC_B).ipv6(IP6_B, IP6_A).sctp(2, 1),
            ),
            (
                Frame::new().eth(MAC_B, MAC_A).vlan(3).payload(&[1]),
                Frame::new().eth(MAC_A, MAC_B).vlan(3).payload(&[2]),
            ),
        ];
        for (there, back) in pairs {
            let (there, back) = (both(there), both(back));
            assert_eq!(there.1, back.1);
        }
    }

    #[test]
    fn five_tuple_hash_tells_directions_ports_and_protocols_apart() {
        let frames = [
            Frame::udp4(),
            Frame::tcp4(),
            Frame::new().eth(MAC_A, MAC_B).ipv4(IP_B, IP_A).udp(2000, 1000),
            Frame::new().eth(MAC_A, MAC_B).ipv4(IP_A, IP_B).udp(1000, 2001),
            Frame::udp6(),
            Frame::tcp6(),
        ];
        let hashes: std::collections::HashSet<u32> = frames.into_iter().map(|f| both(f).0).collect();
        assert_eq!(hashes.len(), 6);
    }

    proptest::proptest! {
        #[test]
        fn hash_straight_from_the_bytes_is_that_of_the_key(
            tcp in proptest::bool::ANY,
            flips in proptest::collection::vec((12usize..56, 0u8..=255), 0..3),
            cut in proptest::option::of(14usize..60),
        ) {
            let mut bytes = if tcp { Frame::tcp4() } else { Frame::udp4() }.payload(&[1; 9]).build();
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            let pool = Pool::new(1, 2048, 64).unwrap();
            let mut p = pool.packet(&bytes).unwrap();
            let options = ExtractOptions::default();
            let mut key = extract_whole(&mut p, None, options).unwrap();
            if let Some(cut) = cut.filter(|cut| *cut < p.len()) {
                p.truncate(cut);
                key = extract_whole_again(&mut p, options).unwrap();
            }
            proptest::prop_assert_eq!(five_tuple(&mut p, options), five_tuple_of_key(&key));
            pool.free(&mut p);
        }
    }

    #[test]
    fn receivers_hash_is_used_and_ours_is_kept() {
        let pool = Pool::new(1, 2048, 64).unwrap();
        let mut p = pool.packet(&Frame::udp4().build()).unwrap();
        let own = five_tuple(&mut p, ExtractOptions::default());
        assert_eq!((own, true), (p.rss_hash, p.flags.contains(PacketFlags::RSS_VALID)));
        p.rss_hash = 5;
        assert_eq!(five_tuple(&mut p, ExtractOptions::default()), 5);
        // With another basis the buckets differ.
        let with = |p: &mut Packet, basis| dp_hash(p, HashAlgorithm::L4, basis, ExtractOptions::default());
        assert_ne!(with(&mut p, 1), with(&mut p, 2));
        pool.free(&mut p);
    }

    #[test]
    fn buckets_fill_evenly() {
        // Flows that differ in one thing, or in two, as they come in practice; buckets by the low bits, and as source ports are chosen.
        type Flow = fn(u32) -> (u32, u32, u32);
        let flows: [Flow; 4] = [
            |i| (0x0a00_0000 + i / 100, 0, (i % 100) << 16),
            |i| (0x0a00_0000, 0xc0a8_0001, i),
            |i| (0x0a00_0000, 0xc0a8_0000 + i, 0x1000_0050),
            |i| (0x0a00_0000 + i / 160, 0xc0a8_0000 + i % 160, 0x0050_1000),
        ];
        for (which, flow) in flows.into_iter().enumerate() {
            let mut counts = [[0u32; 256]; 2];
            for i in 0..25_600u32 {
                let (src, dst, ports) = flow(i);
                let mut key = FlowKey::default();
                key.base.eth_type.set(ethernet::IPV4);
                key.base.nw_proto = ip::UDP;
                (key.base.ipv4_src, key.base.ipv4_dst) = (src.to_be_bytes(), dst.to_be_bytes());
                key.base.tp_src.set((ports >> 16) as u16);
                key.base.tp_dst.set(ports as u16);
                let hash = five_tuple_of_key(&key);
                counts[0][hash as usize % 256] += 1;
                counts[1][(hash >> 24) as usize] += 1;
            }
            // 100 expected; 6 standard deviations.
            let even = counts.as_flattened().iter().all(|count| (40..160).contains(count));
            assert!(even, "{which}: {counts:?}");
        }
    }
}
