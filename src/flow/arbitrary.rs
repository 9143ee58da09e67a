//! Random flow keys, masks and actions for property tests (feature `testing`): valid ones, in the one form that the codecs
//! bring them into, so that encoding and decoding gives back the same.
//!
//! Values come from small domains about as often as from all of their type, so that flows and packets meet.

mod outer;

pub use outer::tunnel_push;

use proptest::array::{uniform4, uniform6, uniform16};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::action::{Action, Actions, HashAlgorithm, Masked, Nsh, SetField, Userspace};
use super::key::{
    FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, TUNNEL_CSUM, TUNNEL_DF, TUNNEL_ERSPAN, TUNNEL_GBP, TUNNEL_GENEVE,
    TUNNEL_GTPU, TUNNEL_KEY, TUNNEL_OAM, TunnelLine, VLAN_PRESENT,
};
use super::netlink::{exact_mask, has_ct_tuple, settle};
use crate::wire::ethernet;

/// A byte that is often small.
fn byte() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![0..4u8, any::<u8>()]
}

/// A 16-bit number that is often small.
fn short() -> impl Strategy<Value = u16> + Clone {
    prop_oneof![0..4u16, any::<u16>()]
}

/// A 32-bit number that is often small.
fn word() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![0..4u32, any::<u32>()]
}

fn ipv4() -> impl Strategy<Value = [u8; 4]> + Clone {
    prop_oneof![(0..4u8).prop_map(|host| [10, 0, 0, host]), uniform4(any::<u8>())]
}

fn ipv6() -> impl Strategy<Value = [u8; 16]> + Clone {
    let near = (0..4u8).prop_map(|host| {
        let mut address = [0; 16];
        [address[0], address[1], address[15]] = [0xfd, 1, host];
        address
    });
    prop_oneof![near, uniform16(any::<u8>())]
}

fn mac() -> impl Strategy<Value = [u8; 6]> + Clone {
    prop_oneof![(0..4u8).prop_map(|host| [2, 0, 0, 0, 0, host]), uniform6(any::<u8>())]
}

fn tag() -> impl Strategy<Value = (U16, U16)> {
    let tpid = prop_oneof![Just(ethernet::VLAN), Just(ethernet::VLAN_8021AD)];
    (tpid, short()).prop_map(|(tpid, tci)| (U16::new(tpid), U16::new(tci | VLAN_PRESENT)))
}

/// A chain of Geneve options, at least one.
fn geneve() -> impl Strategy<Value = Vec<u8>> {
    let option = (short(), byte(), 0..4u8).prop_flat_map(|(class, kind, words)| {
        vec(any::<u8>(), usize::from(words) * 4).prop_map(move |data| {
            let [high, low] = class.to_be_bytes();
            [&[high, low, kind, words][..], &data].concat()
        })
    });
    vec(option, 1..4).prop_map(|options| options.concat())
}

/// An outer header with at most one kind of options; the bytes are Geneve's.
pub fn tunnel() -> impl Strategy<Value = (TunnelLine, Vec<u8>)> {
    let addresses = prop_oneof![
        (ipv4(), ipv4()).prop_map(|(src, dst)| (src, dst, [0; 16], [0; 16])),
        (ipv6(), ipv6()).prop_map(|(src, dst)| ([0; 4], [0; 4], src, dst)),
    ];
    let options = prop_oneof![
        Just((0, [0; 8], vec![])),
        (1..=u16::MAX, byte())
            .prop_map(|(id, flags)| { (TUNNEL_GBP, [(id >> 8) as u8, id as u8, flags, 0, 0, 0, 0, 0], vec![]) }),
        word().prop_map(|i| {
            let i = i.to_be_bytes();
            (TUNNEL_ERSPAN, [1, 0, 0, 0, i[0], i[1], i[2], i[3]], vec![])
        }),
        (0..2u8, 0..0x40u8).prop_map(|(dir, hwid)| (TUNNEL_ERSPAN, [2, dir, hwid, 0, 0, 0, 0, 0], vec![])),
        (1..=u8::MAX, byte()).prop_map(|(flags, kind)| (TUNNEL_GTPU, [flags, kind, 0, 0, 0, 0, 0, 0], vec![])),
        geneve().prop_map(|bytes| (TUNNEL_GENEVE, [(bytes.len() / 4) as u8, 0, 0, 0, 0, 0, 0, 0], bytes)),
    ];
    let id = proptest::option::of(prop_oneof![0..4u64, any::<u64>()]);
    (addresses, options, id, byte(), byte(), short(), short(), 0..8u8).prop_map(
        |(addresses, options, id, tos, ttl, tp_src, tp_dst, bits)| {
            let mut line = TunnelLine::new_zeroed();
            (line.ipv4_src, line.ipv4_dst, line.ipv6_src, line.ipv6_dst) = addresses;
            line.flags = options.0;
            line.opts = options.1;
            if let Some(id) = id {
                line.id = U64::new(id);
                line.flags |= TUNNEL_KEY;
            }
            for (i, bit) in [TUNNEL_DF, TUNNEL_CSUM, TUNNEL_OAM].into_iter().enumerate() {
                line.flags |= bit * u16::from(bits >> i & 1);
            }
            (line.tos, line.ttl) = (tos, ttl);
            (line.tp_src, line.tp_dst) = (U16::new(tp_src), U16::new(tp_dst));
            (line, options.2)
        },
    )
}

/// A key with only those fields that `write` writes.
fn part<T: std::fmt::Debug>(
    values: impl Strategy<Value = T>,
    write: impl Fn(&T, &mut FlowKey),
) -> impl Strategy<Value = FlowKey> {
    values.prop_map(move |value| {
        let mut key = FlowKey::default();
        write(&value, &mut key);
        key
    })
}

/// The fields of both keys, which have none in common.
fn join(a: FlowKey, b: FlowKey) -> FlowKey {
    let mut out = FlowMask(a);
    out.unite(&FlowMask(b));
    out.0
}

/// Metadata: in_port, recirculation, marks, connection tracking, VLAN-free.
fn metadata() -> impl Strategy<Value = FlowKey> {
    let ct = (any::<u8>(), short(), word(), uniform16(byte()));
    part((0..4u32, word(), word(), word(), word(), ct), |v, key| {
        let b = &mut key.base;
        (b.in_port, b.recirc_id, b.dp_hash, b.skb_mark, b.skb_priority) = (v.0, v.1, v.2, v.3, v.4);
        (b.ct_state, b.ct_zone, b.ct_mark) = (v.5.0, v.5.1, v.5.2);
        key.misc.ct_label = v.5.3;
    })
}

/// A header with IP's protocol: TCP, UDP, SCTP, ICMP of the right version, or another.
fn transport(v6: bool) -> impl Strategy<Value = FlowKey> {
    let ports = |proto: u8, flags: u16| {
        part((short(), short(), any::<u16>()), move |v, key| {
            key.base.nw_proto = proto;
            (key.base.tp_src, key.base.tp_dst) = (U16::new(v.0), U16::new(v.1));
            key.base.tcp_flags = U16::new(v.2 & flags);
        })
    };
    let icmp = part((byte(), byte()), move |v, key| {
        key.base.nw_proto = if v6 { 58 } else { 1 };
        (key.base.tp_src, key.base.tp_dst) = (U16::new(v.0.into()), U16::new(v.1.into()));
    })
    .prop_filter("ND has fields of its own", |key| !matches!(key.base.tp_src.get(), 135 | 136));
    let nd = part((135..137u16, ipv6(), mac(), mac(), word(), byte()), |v, key| {
        key.base.nw_proto = 58;
        key.base.tp_src = U16::new(v.0);
        (key.ipv6.nd_target, key.ipv6.arp_sha, key.ipv6.arp_tha) = (v.1, v.2, v.3);
        (key.misc.nd_reserved, key.misc.nd_options_type) = (U32::new(v.4), v.5);
    });
    let other = part(Just(if v6 { 1u8 } else { 58 }), |v, key| key.base.nw_proto = *v);
    let last = if v6 { nd.boxed() } else { other.boxed() };
    prop_oneof![3 => ports(6, 0xfff), 3 => ports(17, 0), 1 => ports(132, 0), 1 => icmp, 1 => last]
}

/// IPv4 or IPv6 with what is behind it, and perhaps with the original tuple of a connection.
fn ip(v6: bool) -> impl Strategy<Value = FlowKey> {
    let whole = (transport(v6), prop_oneof![4 => Just(0), 1 => Just(FRAG_ANY)]);
    let whole = whole.prop_map(|(key, frag)| (key, frag));
    let later = byte().prop_map(|proto| {
        let mut key = FlowKey::default();
        key.base.nw_proto = proto;
        (key, FRAG_ANY | FRAG_LATER)
    });
    let addresses = (ipv4(), ipv4(), ipv6(), ipv6(), 0..0x10_0000u32);
    let tuple = proptest::option::of((ipv4(), ipv4(), ipv6(), ipv6(), 1..=u8::MAX, short(), short()));
    let values = (prop_oneof![8 => whole, 1 => later], addresses, byte(), byte(), tuple);
    part(values, move |((behind, frag), a, tos, ttl, tuple), key| {
        *key = *behind;
        (key.base.nw_frag, key.base.nw_tos, key.base.nw_ttl) = (*frag, *tos, *ttl);
        if v6 {
            key.base.eth_type = U16::new(ethernet::IPV6);
            (key.ipv6.src, key.ipv6.dst, key.ipv6.label) = (a.2, a.3, U32::new(a.4));
        } else {
            key.base.eth_type = U16::new(ethernet::IPV4);
            (key.base.ipv4_src, key.base.ipv4_dst) = (a.0, a.1);
        }
        if let Some(t) = tuple {
            match v6 {
                true => (key.nsh.ct_orig_ipv6_src, key.nsh.ct_orig_ipv6_dst) = (t.2, t.3),
                false => (key.misc.ct_orig_ipv4_src, key.misc.ct_orig_ipv4_dst) = (t.0, t.1),
            }
            key.misc.ct_orig_proto = t.4;
            (key.misc.ct_orig_tp_src, key.misc.ct_orig_tp_dst) = (U16::new(t.5), U16::new(t.6));
        }
    })
}

/// What is neither IPv4 nor IPv6: ARP, MPLS, NSH, another EtherType.
fn not_ip() -> impl Strategy<Value = FlowKey> {
    let arp = part((ipv4(), ipv4(), byte(), mac(), mac(), any::<bool>()), |v, key| {
        key.base.eth_type = U16::new(if v.5 { ethernet::ARP } else { ethernet::RARP });
        (key.base.ipv4_src, key.base.ipv4_dst, key.base.nw_proto) = (v.0, v.1, v.2);
        (key.ipv6.arp_sha, key.ipv6.arp_tha) = (v.3, v.4);
    });
    let mpls = part((vec(any::<u32>(), 1..4), any::<bool>(), any::<bool>()), |(lses, multicast, bottom), key| {
        key.base.eth_type = U16::new(if *multicast { ethernet::MPLS_MULTICAST } else { ethernet::MPLS });
        for (i, (lse, slot)) in lses.iter().zip(&mut key.misc.mpls).enumerate() {
            // The bottom of the stack is marked in the last label, or lies deeper than the key sees.
            let is_bottom = i + 1 == lses.len() && (lses.len() < 3 || *bottom);
            *slot = U32::new(if is_bottom { lse | 0x100 } else { lse & !0x100 });
        }
    });
    let nsh = part((byte(), byte(), 1..3u8, byte(), any::<u32>(), uniform4(word())), |v, key| {
        key.base.eth_type = U16::new(ethernet::NSH);
        let n = &mut key.nsh;
        (n.flags, n.ttl, n.mdtype, n.np, n.path_hdr) = (v.0, v.1, v.2, v.3, U32::new(v.4));
        if v.2 == 1 {
            n.context = v.5.map(U32::new);
        }
    });
    let known = [0x0800, 0x86dd, 0x0806, 0x8035, 0x8847, 0x8848, 0x894f, 0x8100, 0x88a8];
    let other = part(prop_oneof![Just(0x88cc), 0x600..=u16::MAX], move |ty, key| {
        key.base.eth_type = U16::new(if known.contains(ty) { 0x1234 } else { *ty });
    });
    prop_oneof![3 => arp, 2 => mpls, 1 => nsh, 1 => other]
}

/// Ethernet, up to two tags, and what is behind; or a layer-3 packet.
fn layers() -> impl Strategy<Value = FlowKey> {
    let l3 = prop_oneof![4 => ip(false), 2 => ip(true), 2 => not_ip()].boxed();
    let naked = l3.clone().prop_map(|mut key| {
        key.base.packet_type_ns = 1;
        key
    });
    let special = prop_oneof![Just(ethernet::DL_TYPE_NONE), Just(ethernet::VLAN)];
    let special = part(special, |ty, key| key.base.eth_type = U16::new(*ty));
    let headers = part((mac(), mac(), vec(tag(), 0..3)), |(dst, src, tags), key| {
        (key.base.eth_dst, key.base.eth_src) = (*dst, *src);
        if let Some(tag) = tags.first() {
            (key.base.vlan_tpid, key.base.vlan_tci) = *tag;
        }
        if let Some(tag) = tags.get(1) {
            (key.misc.vlan1_tpid, key.misc.vlan1_tci) = *tag;
        }
    });
    let framed = (headers, prop_oneof![8 => l3, 1 => special]).prop_map(|(eth, key)| join(eth, key));
    prop_oneof![8 => framed, 1 => naked]
}

/// A flow key that some packet has.
pub fn flow_key() -> impl Strategy<Value = FlowKey> {
    let tunnel = proptest::option::weighted(
        0.3,
        part(tunnel(), |(line, options), key| {
            key.tunnel = *line;
            key.options[..options.len()].copy_from_slice(options);
        }),
    );
    (metadata(), layers(), tunnel).prop_map(|(metadata, layers, tunnel)| {
        let key = join(metadata, layers);
        tunnel.map_or(key, |tunnel| join(key, tunnel))
    })
}

/// A mask that a flow with this key can have. `seed` selects the bits: 0 = all.
pub fn mask_of(key: &FlowKey, seed: u64) -> FlowMask {
    let exact = exact_mask(key);
    if seed == 0 {
        return exact;
    }
    let mut state = seed;
    // SplitMix64.
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let mut mask = exact;
    for line in mask.0.as_mut_bytes().chunks_mut(64) {
        let style = random() % 4;
        for pair in line.chunks_mut(2) {
            let bits = match (style, random() % 4) {
                (0, _) | (1, 1..) | (2, 0) => [0; 2],
                (3, _) | (1, 0) | (2, 1..3) => [0xff; 2],
                _ => (random() as u16).to_ne_bytes(),
            };
            pair[0] &= bits[0];
            pair[1] &= bits[1];
        }
    }
    // Half an EtherType is nobody's match.
    for (half, all) in [
        (&mut mask.0.base.eth_type, exact.0.base.eth_type),
        (&mut mask.0.base.vlan_tpid, exact.0.base.vlan_tpid),
        (&mut mask.0.misc.vlan1_tpid, exact.0.misc.vlan1_tpid),
    ] {
        if *half != U16::ZERO {
            *half = all;
        }
    }
    complete(key, &exact, &mut mask);
    settle(key, &mut mask);
    mask
}

/// Adds what has to be matched before other fields can be.
fn complete(key: &FlowKey, exact: &FlowMask, mask: &mut FlowMask) {
    let (m, all) = (&mut mask.0, &exact.0);
    m.base.in_port = all.base.in_port;
    let ty = key.base.eth_type.get();
    if key.base.nw_proto == 58 && ty == ethernet::IPV6 {
        if m.misc.nd_reserved != U32::ZERO || m.misc.nd_options_type != 0 {
            (m.base.tp_src, m.base.tp_dst) = (all.base.tp_src, all.base.tp_dst);
        }
        if m.ipv6.nd_target != [0; 16] || [m.ipv6.arp_sha, m.ipv6.arp_tha] != [[0; 6]; 2] {
            m.base.tp_src = all.base.tp_src;
        }
        if m.base.tp_src != all.base.tp_src {
            (m.misc.nd_reserved, m.misc.nd_options_type) = (U32::ZERO, 0);
        }
    }
    if (m.base.tp_src, m.base.tp_dst, m.base.tcp_flags) != (U16::ZERO, U16::ZERO, U16::ZERO) {
        m.base.nw_proto = all.base.nw_proto;
    }
    if m.nsh.context != [U32::ZERO; 4] {
        m.nsh.mdtype = all.nsh.mdtype;
    }
    let b = &m.base;
    let l3 = [b.nw_proto, b.nw_tos, b.nw_ttl, b.nw_frag] != [0; 4]
        || [b.ipv4_src, b.ipv4_dst] != [[0; 4]; 2]
        || [m.ipv6.src, m.ipv6.dst] != [[0; 16]; 2]
        || m.ipv6.label != U32::ZERO
        || [m.ipv6.arp_sha, m.ipv6.arp_tha] != [[0; 6]; 2]
        || m.misc.mpls != [U32::ZERO; 3]
        || [m.nsh.flags, m.nsh.ttl, m.nsh.mdtype, m.nsh.np] != [0; 4]
        || m.nsh.path_hdr != U32::ZERO
        || has_ct_tuple(m);
    if l3 || ty < ethernet::ETHERTYPE_MIN && b.eth_type != U16::ZERO {
        m.base.eth_type = all.base.eth_type;
    }
    let t = &mut m.tunnel;
    if t.id != U64::ZERO {
        t.flags |= TUNNEL_KEY;
    }
    let kind = key.tunnel.flags & (TUNNEL_GBP | TUNNEL_ERSPAN | TUNNEL_GTPU | TUNNEL_GENEVE);
    if t.opts != [0; 8] || m.options != [0; 256] {
        t.flags |= kind;
    }
    match kind & t.flags {
        TUNNEL_GENEVE => t.opts[0] = 0xff,
        TUNNEL_ERSPAN if t.opts[0] != 0 => t.opts[0] = 0xff,
        _ => {}
    }
}

/// A mask for this key: exact, or any part of that.
pub fn flow_mask(key: FlowKey) -> impl Strategy<Value = FlowMask> {
    prop_oneof![1 => Just(0), 4 => any::<u64>()].prop_map(move |seed| mask_of(&key, seed))
}

/// A key and a mask for it.
pub fn flow() -> impl Strategy<Value = (FlowKey, FlowMask)> {
    (flow_key(), prop_oneof![1 => Just(0), 4 => any::<u64>()]).prop_map(|(key, seed)| (key, mask_of(&key, seed)))
}

fn masked<const N: usize>(value: impl Strategy<Value = [u8; N]>) -> impl Strategy<Value = Masked<[u8; N]>> {
    let mask = vec(any::<u8>(), N).prop_map(|v| <[u8; N]>::try_from(v).unwrap_or([0; N]));
    let mask = prop_oneof![2 => Just([0xff; N]), 1 => Just([0; N]), 1 => mask];
    (value, mask).prop_map(|(value, mask)| Masked { value: std::array::from_fn(|i| value[i] & mask[i]), mask })
}

fn masked8() -> impl Strategy<Value = Masked<u8>> {
    masked(byte().prop_map(|v| [v])).prop_map(|m| Masked { value: m.value[0], mask: m.mask[0] })
}

fn masked16() -> impl Strategy<Value = Masked<u16>> {
    masked(short().prop_map(u16::to_be_bytes))
        .prop_map(|m| Masked { value: u16::from_be_bytes(m.value), mask: u16::from_be_bytes(m.mask) })
}

fn masked32() -> impl Strategy<Value = Masked<u32>> {
    masked(word().prop_map(u32::to_be_bytes))
        .prop_map(|m| Masked { value: u32::from_be_bytes(m.value), mask: u32::from_be_bytes(m.mask) })
}

/// A field to set.
pub fn set_field() -> impl Strategy<Value = SetField> {
    let label = masked32().prop_map(|m| Masked { value: m.value & 0xf_ffff, mask: m.mask & 0xf_ffff });
    let header = (any::<bool>(), masked8(), masked8());
    let ports = (masked16(), masked16());
    let eth = (mac(), mac()).prop_map(|(dst, src)| {
        let mut both = [0; 12];
        both[..6].copy_from_slice(&dst);
        both[6..].copy_from_slice(&src);
        both
    });
    let metadata = (0..4u8, masked32()).prop_map(|(which, v)| match which {
        0 => SetField::Priority(v),
        1 => SetField::SkbMark(v),
        2 => SetField::DpHash(v),
        _ => SetField::RecircId(v),
    });
    let transport = (0..3u8, ports).prop_map(|(which, (src, dst))| match which {
        0 => SetField::Tcp { src, dst },
        1 => SetField::Udp { src, dst },
        _ => SetField::Sctp { src, dst },
    });
    prop_oneof![
        metadata,
        tunnel().prop_map(|t| SetField::Tunnel(Box::new(t))),
        masked(eth).prop_map(SetField::Ethernet),
        (masked(ipv4()), masked(ipv4()), masked8(), masked8()).prop_map(|(src, dst, tos, ttl)| SetField::Ipv4 {
            src,
            dst,
            tos,
            ttl
        }),
        (masked(ipv6()), masked(ipv6()), label, masked8(), masked8())
            .prop_map(|(src, dst, label, tclass, hlimit)| { SetField::Ipv6 { src, dst, label, tclass, hlimit } }),
        transport,
        header.prop_map(|(v6, kind, code)| SetField::Icmp { v6, kind, code }),
        (masked(ipv4()), masked(ipv4()), masked16(), masked(mac()), masked(mac()))
            .prop_map(|(sip, tip, op, sha, tha)| SetField::Arp { sip, tip, op, sha, tha }),
        (masked(ipv6()), masked(mac()), masked(mac())).prop_map(|(target, sll, tll)| SetField::Nd { target, sll, tll }),
        (masked32(), masked8()).prop_map(|(reserved, options_type)| SetField::NdExtensions { reserved, options_type }),
        masked32().prop_map(SetField::Mpls),
        (masked8(), masked8(), masked32(), masked(uniform16(any::<u8>())))
            .prop_map(|(flags, ttl, path_hdr, context)| SetField::Nsh { flags, ttl, path_hdr, context }),
    ]
}

fn nsh() -> impl Strategy<Value = Nsh> {
    let context = prop_oneof![
        uniform16(any::<u8>()).prop_map(|c| (1, c.to_vec())),
        vec(uniform4(any::<u8>()), 0..8).prop_map(|words| (2, words.concat())),
    ];
    (0..16u8, 0..64u8, byte(), any::<u32>(), context).prop_map(|(flags, ttl, np, path_hdr, (mdtype, context))| Nsh {
        flags,
        ttl,
        mdtype,
        np,
        path_hdr,
        context,
    })
}

fn leaf_action() -> impl Strategy<Value = Action> {
    let algorithm = prop_oneof![Just(HashAlgorithm::L4), Just(HashAlgorithm::SymL4)];
    let mpls = || prop_oneof![Just(ethernet::MPLS), Just(ethernet::MPLS_MULTICAST)];
    let userdata = proptest::option::of(vec(any::<u8>(), 0..64));
    let userspace = (word(), userdata, proptest::option::of(0..4u32), any::<bool>());
    prop_oneof![
        6 => (0..4u32).prop_map(Action::Output),
        4 => set_field().prop_map(Action::Set),
        1 => word().prop_map(Action::LbOutput),
        2 => tunnel_push().prop_map(|push| Action::TunnelPush(Box::new(push))),
        1 => (0..4u32).prop_map(Action::TunnelPop),
        1 => (0..4u32, any::<Option<u32>>()).prop_map(|(tunnel, id)| Action::Encap { tunnel, id }),
        1 => userspace.prop_map(|(pid, userdata, egress_tun_port, actions)| {
            Action::Userspace(Userspace { pid, userdata, egress_tun_port, actions })
        }),
        1 => tag().prop_map(|(tpid, tci)| Action::PushVlan { tpid: tpid.get(), tci: tci.get() }),
        1 => Just(Action::PopVlan),
        1 => (any::<u32>(), mpls()).prop_map(|(lse, ethertype)| Action::PushMpls { lse, ethertype }),
        1 => (any::<u32>(), mpls(), 0..2u16)
            .prop_map(|(lse, ethertype, tun_flags)| Action::AddMpls { lse, ethertype, tun_flags }),
        1 => short().prop_map(|ethertype| Action::PopMpls { ethertype }),
        1 => (mac(), mac()).prop_map(|(dst, src)| Action::PushEth { dst, src }),
        1 => Just(Action::PopEth),
        1 => nsh().prop_map(Action::PushNsh),
        1 => Just(Action::PopNsh),
        1 => Just(Action::DecTtl),
        1 => word().prop_map(Action::Recirc),
        1 => (algorithm, word()).prop_map(|(algorithm, basis)| Action::Hash { algorithm, basis }),
        1 => any::<u32>().prop_map(Action::Trunc),
        1 => word().prop_map(Action::Meter),
        1 => (0..4u32).prop_map(Action::Drop),
    ]
}

/// A list of actions that is not empty; lists in it may be.
pub fn actions() -> impl Strategy<Value = Actions> {
    let action = leaf_action().prop_recursive(3, 24, 4, |inner| {
        let list = vec(inner, 0..4);
        prop_oneof![
            (word(), list.clone()).prop_map(|(probability, actions)| Action::Sample { probability, actions }),
            list.clone().prop_map(Action::Clone),
            (short(), list.clone(), list).prop_map(|(len, if_greater, if_less_equal)| Action::CheckPktLen {
                len,
                if_greater,
                if_less_equal
            }),
        ]
    });
    vec(action, 1..6)
}

/// Where two keys or masks differ, in a form that a person can read: (offset, one, other) of each byte.
pub fn differences(one: &FlowKey, other: &FlowKey) -> Vec<(usize, u8, u8)> {
    let bytes = one.as_bytes().iter().zip(other.as_bytes()).enumerate();
    bytes.filter(|(_, (a, b))| a != b).map(|(at, (a, b))| (at, *a, *b)).collect()
}
