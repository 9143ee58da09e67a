//! `OVS_KEY_ATTR_*` ⇄ [`FlowKey`] and [`FlowMask`].
//!
//! ```text
//!   metadata … PACKET_TYPE ETHERNET ┌ ETHERTYPE(0x8100) VLAN(tci) ENCAP ┐   once per tag, at most twice
//!                                   └───────────────────────────────────▼
//!                                     ETHERTYPE  network header  transport header
//! ```
//!
//! A mask is written with the attributes that its key has, so both are read by the same functions: `Role` says which it is,
//! and knows the key that decides which attributes belong there.

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::super::attr::{self, key as k};
use super::super::key::{BaseLine, FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, VLAN_PRESENT};
use super::wire::{CodecError, Fault, KEY, MASK, Set, nested, part, put};
use super::{nsh, tunnel};
use crate::wire::ethernet::{self, ARP, DL_TYPE_NONE, ETHERTYPE_MIN, IPV4, IPV6, MPLS, NSH, RARP, is_mpls, is_vlan};

const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMPV6: u8 = 58;
const PROTO_SCTP: u8 = 132;
const FRAG_MASK: u8 = FRAG_ANY | FRAG_LATER;
const MPLS_BOS: u32 = 0x100;
const LABEL_MASK: u32 = 0xf_ffff;

const NOT_HERE: &str = "the packet type, EtherType or protocol of this flow has no such header";
const TRUNCATED: &str = "nothing follows a truncated tag";

/// Reads a flow key.
pub fn decode_key(bytes: &[u8]) -> Result<FlowKey, CodecError> {
    decode_key_with(bytes, true)
}

/// Reads a flow key. Without `complete` the attributes that the key's protocol demands may be missing, as in text, where what
/// is not matched is not written.
pub(crate) fn decode_key_with(bytes: &[u8], complete: bool) -> Result<FlowKey, CodecError> {
    let mut out = FlowKey::default();
    decode(bytes, &Role::Key { complete }, &mut out)?;
    Ok(out)
}

/// Reads the mask that belongs to `key`. An attribute that is absent is not matched.
pub fn decode_mask(bytes: &[u8], key: &FlowKey) -> Result<FlowMask, CodecError> {
    let mut mask = FlowMask::default();
    decode(bytes, &Role::Mask(key), &mut mask.0)?;
    settle(key, &mut mask);
    Ok(mask)
}

/// The mask that matches everything that `key` has: what a flow without a mask means.
pub fn exact_mask(key: &FlowKey) -> FlowMask {
    const FULL16: U16 = U16::new(0xffff);
    let mut mask = FlowMask::default();
    let FlowMask(m) = &mut mask;
    if tunnel::is_present(key) {
        tunnel::exact_mask(key, m);
    }
    let ethernet = key.base.packet_type_ns == 0;
    m.base = BaseLine {
        in_port: u32::MAX,
        recirc_id: u32::MAX,
        eth_type: FULL16,
        ct_zone: u16::MAX,
        dp_hash: u32::MAX,
        ct_mark: u32::MAX,
        skb_mark: u32::MAX,
        ct_state: u8::MAX,
        packet_type_ns: u8::MAX,
        skb_priority: u32::MAX,
        vlan_tpid: FULL16,
        vlan_tci: FULL16,
        ..m.base
    };
    if ethernet {
        m.base.eth_dst = [0xff; 6];
        m.base.eth_src = [0xff; 6];
    }
    if has_tag(key, 0) {
        m.misc.vlan1_tpid = FULL16;
        m.misc.vlan1_tci = FULL16;
    }
    m.misc.ct_label = [0xff; 16];
    match key.base.eth_type.get() {
        ty @ (IPV4 | IPV6) => {
            m.base.nw_proto = u8::MAX;
            m.base.nw_tos = u8::MAX;
            m.base.nw_ttl = u8::MAX;
            m.base.nw_frag = FRAG_MASK;
            if ty == IPV4 {
                m.base.ipv4_src = [0xff; 4];
                m.base.ipv4_dst = [0xff; 4];
            } else {
                m.ipv6.src = [0xff; 16];
                m.ipv6.dst = [0xff; 16];
                m.ipv6.label = U32::new(LABEL_MASK);
            }
            if has_ct_tuple(key) {
                m.misc.ct_orig_proto = u8::MAX;
                m.misc.ct_orig_tp_src = FULL16;
                m.misc.ct_orig_tp_dst = FULL16;
                if ty == IPV4 {
                    m.misc.ct_orig_ipv4_src = [0xff; 4];
                    m.misc.ct_orig_ipv4_dst = [0xff; 4];
                } else {
                    m.nsh.ct_orig_ipv6_src = [0xff; 16];
                    m.nsh.ct_orig_ipv6_dst = [0xff; 16];
                }
            }
        }
        ARP | RARP => {
            m.base.ipv4_src = [0xff; 4];
            m.base.ipv4_dst = [0xff; 4];
            m.base.nw_proto = u8::MAX;
            m.ipv6.arp_sha = [0xff; 6];
            m.ipv6.arp_tha = [0xff; 6];
        }
        ty if is_mpls(ty) => {
            for lse in &mut m.misc.mpls[..label_count(key)] {
                *lse = U32::new(u32::MAX);
            }
        }
        NSH => nsh::exact_mask(key, m),
        _ => {}
    }
    match transport(key) {
        Some(k::ICMP | k::ICMPV6) => {
            m.base.tp_src = U16::new(0xff);
            m.base.tp_dst = U16::new(0xff);
        }
        Some(number) => {
            m.base.tp_src = FULL16;
            m.base.tp_dst = FULL16;
            if number == k::TCP {
                m.base.tcp_flags = U16::new(0xfff);
            }
        }
        None => {}
    }
    if is_nd(key) {
        m.ipv6.nd_target = [0xff; 16];
        m.ipv6.arp_sha = [0xff; 6];
        m.ipv6.arp_tha = [0xff; 6];
        m.misc.nd_reserved = U32::new(u32::MAX);
        m.misc.nd_options_type = u8::MAX;
    }
    mask
}

/// Appends `key` as attributes: those that Open vSwitch writes, in its order.
pub fn encode_key(key: &FlowKey, out: &mut Vec<u8>) {
    encode(key, key, false, out);
}

/// Appends `mask`, which belongs to `key`, as attributes. What the attributes of `key` cannot express is left out.
pub fn encode_mask(key: &FlowKey, mask: &FlowMask, out: &mut Vec<u8>) {
    encode(key, &mask.0, true, out);
}

/// Brings a mask into the one form that the encoding can express; see the rules in the module's head.
pub(crate) fn settle(key: &FlowKey, mask: &mut FlowMask) {
    const FULL16: U16 = U16::new(0xffff);
    let FlowMask(m) = mask;
    let tag_bits = |tci: U16| match tci.get() {
        0 => U16::new(0xfff | VLAN_PRESENT),
        bits => U16::new(bits | VLAN_PRESENT),
    };
    match (has_tag(key, 0), has_tag(key, 1)) {
        (false, _) => {
            (m.base.vlan_tpid, m.base.vlan_tci) = (FULL16, FULL16);
            (m.misc.vlan1_tpid, m.misc.vlan1_tci) = (U16::ZERO, U16::ZERO);
        }
        (true, false) => {
            m.base.vlan_tci = tag_bits(m.base.vlan_tci);
            (m.misc.vlan1_tpid, m.misc.vlan1_tci) = (FULL16, FULL16);
        }
        (true, true) => {
            m.base.vlan_tci = tag_bits(m.base.vlan_tci);
            m.misc.vlan1_tci = tag_bits(m.misc.vlan1_tci);
        }
    }
    if key.base.packet_type_ns != 0 {
        // Nothing but its EtherType says how to read such a packet.
        m.base.packet_type_ns = u8::MAX;
        m.base.eth_type = FULL16;
    } else if m.base.packet_type_ns != 0 {
        m.base.packet_type_ns = u8::MAX;
    }
    if m.base.nw_frag != 0 {
        m.base.nw_frag = FRAG_MASK;
    }
}

/// True if the key has VLAN tag `level` (0 = outer).
pub(crate) fn has_tag(key: &FlowKey, level: usize) -> bool {
    let outer = key.base.vlan_tci.get() & VLAN_PRESENT != 0;
    outer && (level == 0 || key.misc.vlan1_tci.get() & VLAN_PRESENT != 0)
}

/// The attribute of the transport header that a flow with this key has.
pub(crate) fn transport(key: &FlowKey) -> Option<u16> {
    let v4 = key.base.eth_type.get() == IPV4;
    let v6 = key.base.eth_type.get() == IPV6;
    if !(v4 || v6) || key.base.nw_frag & FRAG_LATER != 0 {
        return None;
    }
    match key.base.nw_proto {
        PROTO_TCP => Some(k::TCP),
        PROTO_UDP => Some(k::UDP),
        PROTO_SCTP => Some(k::SCTP),
        PROTO_ICMP if v4 => Some(k::ICMP),
        PROTO_ICMPV6 if v6 => Some(k::ICMPV6),
        _ => None,
    }
}

/// True if the key is that of a neighbour solicitation or advertisement (RFC 4861).
pub(crate) fn is_nd(key: &FlowKey) -> bool {
    transport(key) == Some(k::ICMPV6) && matches!(key.base.tp_src.get(), 135 | 136) && key.base.tp_dst == U16::ZERO
}

/// True if the key has the original tuple of a connection.
pub(crate) fn has_ct_tuple(key: &FlowKey) -> bool {
    let m = &key.misc;
    let any = [m.ct_orig_proto != 0, m.ct_orig_tp_src != U16::ZERO, m.ct_orig_tp_dst != U16::ZERO];
    let v4 = [m.ct_orig_ipv4_src, m.ct_orig_ipv4_dst] != [[0; 4]; 2];
    let v6 = [key.nsh.ct_orig_ipv6_src, key.nsh.ct_orig_ipv6_dst] != [[0; 16]; 2];
    any.contains(&true) || v4 || v6
}

/// Label stack entries in the key: up to and with the bottom of the stack, else those that are not zero; at least one.
pub(crate) fn label_count(key: &FlowKey) -> usize {
    let lses = &key.misc.mpls;
    let bottom = lses.iter().position(|lse| lse.get() & MPLS_BOS != 0);
    let last = bottom.or_else(|| lses.iter().rposition(|lse| lse.get() != 0));
    last.unwrap_or(0) + 1
}

/// What is being read.
enum Role<'a> {
    /// A key.
    Key {
        /// Every attribute that its protocol demands has to be there.
        complete: bool,
    },
    /// The mask of this key.
    Mask(&'a FlowKey),
}

impl<'a> Role<'a> {
    fn is_mask(&self) -> bool {
        matches!(self, Role::Mask(_))
    }

    /// The key that decides which headers there are: what has been read of it so far, or the mask's.
    fn key<'b>(&self, so_far: &'b FlowKey) -> &'b FlowKey
    where
        'a: 'b,
    {
        match self {
            Role::Key { .. } => so_far,
            Role::Mask(key) => key,
        }
    }

    fn set<'b>(&self, bytes: &'b [u8]) -> Result<Set<'b>, CodecError> {
        Set::read(bytes, if self.is_mask() { MASK } else { KEY })
    }

    /// Takes the attribute of a header that `key` has.
    fn header<const N: usize>(&self, set: &mut Set<'_>, number: u16) -> Result<Option<[u8; N]>, CodecError> {
        let payload = set.take_array(number)?;
        if payload.is_none() && matches!(self, Role::Key { complete: true }) {
            return Err(KEY.error(number, Fault::Missing));
        }
        Ok(payload)
    }
}

fn decode(bytes: &[u8], role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    let mut set = role.set(bytes)?;
    let tuple = [k::CT_ORIG_TUPLE_IPV4, k::CT_ORIG_TUPLE_IPV6].into_iter().find(|&number| set.has(number));
    metadata(&mut set, role, out)?;
    if let Some(eth) = set.take_array::<12>(k::ETHERNET)? {
        if role.key(out).base.packet_type_ns != 0 {
            return Err(KEY.error(k::ETHERNET, Fault::Unexpected("OVS_KEY_ATTR_PACKET_TYPE is not that of Ethernet")));
        }
        out.base.eth_src = part(&eth, 0);
        out.base.eth_dst = part(&eth, 6);
    }
    match role {
        Role::Key { complete } => key_tags(set, *complete, role, out)?,
        Role::Mask(key) => mask_tags(set, key, role, out)?,
    }
    let other = match role.key(out).base.eth_type.get() {
        IPV4 => k::CT_ORIG_TUPLE_IPV6,
        IPV6 => k::CT_ORIG_TUPLE_IPV4,
        _ => return Ok(()),
    };
    match tuple == Some(other) {
        true => Err(KEY.error(other, Fault::Unexpected("the packet has the other version of IP"))),
        false => Ok(()),
    }
}

/// Everything before the Ethernet header.
fn metadata(set: &mut Set<'_>, role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    let is_mask = role.is_mask();
    let absent = |in_mask: u32, in_key: u32| if is_mask { in_mask } else { in_key };
    out.base.recirc_id = set.take_u32(k::RECIRC_ID)?.unwrap_or(absent(u32::MAX, 0));
    out.base.dp_hash = set.take_u32(k::DP_HASH)?.unwrap_or(0);
    out.base.skb_priority = set.take_u32(k::PRIORITY)?.unwrap_or(0);
    out.base.skb_mark = set.take_u32(k::SKB_MARK)?.unwrap_or(0);
    out.base.in_port = set.take_u32(k::IN_PORT)?.unwrap_or(absent(0, attr::PORT_NONE));
    let ct_state = set.take_u32(k::CT_STATE)?.unwrap_or(0);
    if !is_mask && ct_state & !attr::CT_STATE_MASK != 0 {
        return Err(KEY.error(k::CT_STATE, Fault::Unsupported(" beyond its lowest 8 bits")));
    }
    out.base.ct_state = (ct_state & attr::CT_STATE_MASK) as u8;
    out.base.ct_zone = set.take_array(k::CT_ZONE)?.map_or(0, u16::from_ne_bytes);
    out.base.ct_mark = set.take_u32(k::CT_MARK)?.unwrap_or(0);
    out.misc.ct_label = set.take_array(k::CT_LABELS)?.unwrap_or_default();
    if let Some(tuple) = set.take_array::<16>(k::CT_ORIG_TUPLE_IPV4)? {
        if set.has(k::CT_ORIG_TUPLE_IPV6) {
            let fault = Fault::Unexpected("OVS_KEY_ATTR_CT_ORIG_TUPLE_IPV4 is there too");
            return Err(KEY.error(k::CT_ORIG_TUPLE_IPV6, fault));
        }
        out.misc.ct_orig_ipv4_src = part(&tuple, 0);
        out.misc.ct_orig_ipv4_dst = part(&tuple, 4);
        ct_tuple_end(&tuple[8..], out);
    }
    if let Some(tuple) = set.take_array::<40>(k::CT_ORIG_TUPLE_IPV6)? {
        out.nsh.ct_orig_ipv6_src = part(&tuple, 0);
        out.nsh.ct_orig_ipv6_dst = part(&tuple, 16);
        ct_tuple_end(&tuple[32..], out);
    }
    if let Some(payload) = set.take(k::TUNNEL) {
        match role {
            Role::Key { complete } => tunnel::decode_key(payload, *complete, &mut out.tunnel, &mut out.options)?,
            Role::Mask(key) => tunnel::decode_mask(payload, key, &mut out.tunnel, &mut out.options)?,
        }
    }
    let packet_type = set.take_array(k::PACKET_TYPE)?.map(u32::from_be_bytes);
    let (namespace, kind) = packet_type.map_or((0, 0), |v| ((v >> 16) as u16, v as u16));
    match role {
        Role::Key { .. } => match (namespace, kind) {
            (0, 0) => {}
            (1, ETHERTYPE_MIN..) => {
                out.base.packet_type_ns = 1;
                out.base.eth_type = U16::new(kind);
            }
            _ => return Err(KEY.error(k::PACKET_TYPE, Fault::Invalid("neither Ethernet nor an EtherType"))),
        },
        Role::Mask(key) => {
            out.base.packet_type_ns = if packet_type.is_none() || namespace != 0 { 0xff } else { 0 };
            if key.base.packet_type_ns != 0 {
                out.base.eth_type = U16::new(0xffff);
            }
        }
    }
    Ok(())
}

fn ct_tuple_end(tuple: &[u8], out: &mut FlowKey) {
    out.misc.ct_orig_tp_src = U16::from_bytes(part(tuple, 0));
    out.misc.ct_orig_tp_dst = U16::from_bytes(part(tuple, 2));
    out.misc.ct_orig_proto = tuple[4];
}

/// A key from the EtherType on.
fn key_tags(mut set: Set<'_>, complete: bool, role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    for level in 0.. {
        let is_l3 = out.base.packet_type_ns != 0;
        let ty = match set.take_array(k::ETHERTYPE)?.map(u16::from_be_bytes) {
            Some(ty) if ty < ETHERTYPE_MIN => {
                return Err(KEY.error(k::ETHERTYPE, Fault::Invalid("below 0x600 it is a length, not an EtherType")));
            }
            Some(ty) if is_l3 && ty != out.base.eth_type.get() => {
                return Err(KEY.error(k::ETHERTYPE, Fault::Invalid("OVS_KEY_ATTR_PACKET_TYPE says something else")));
            }
            Some(ty) => Some(ty),
            None if is_l3 => Some(out.base.eth_type.get()),
            None => None,
        };
        let may_be_tag = level < 2 && !is_l3 && (ty.is_some_and(is_vlan) || !complete && ty.is_none());
        if may_be_tag && (set.has(k::VLAN) || set.has(k::ENCAP)) {
            let tci = role.header(&mut set, k::VLAN)?.map(U16::from_bytes).unwrap_or(U16::new(VLAN_PRESENT));
            let inner = set.take(k::ENCAP);
            if complete && inner.is_none() {
                return Err(KEY.error(k::ENCAP, Fault::Missing));
            }
            let inner = inner.unwrap_or_default();
            if tci != U16::ZERO {
                if tci.get() & VLAN_PRESENT == 0 {
                    return Err(KEY.error(k::VLAN, Fault::Invalid("it is not zero, yet its bit 0x1000 is not set")));
                }
                let ty = U16::new(ty.unwrap_or(0));
                if level == 0 {
                    (out.base.vlan_tpid, out.base.vlan_tci) = (ty, tci);
                } else {
                    (out.misc.vlan1_tpid, out.misc.vlan1_tci) = (ty, tci);
                }
                set.finish("it belongs into OVS_KEY_ATTR_ENCAP")?;
                set = role.set(inner)?;
                continue;
            }
            role.set(inner)?.finish(TRUNCATED)?;
        }
        let guess = || match () {
            () if set.has(k::IPV4) => IPV4,
            () if set.has(k::IPV6) => IPV6,
            () if set.has(k::MPLS) => MPLS,
            () => DL_TYPE_NONE,
        };
        out.base.eth_type = U16::new(ty.unwrap_or_else(guess));
        network(&mut set, role, out)?;
        return set.finish(NOT_HERE);
    }
    Ok(())
}

/// A mask from the EtherType on.
fn mask_tags(mut set: Set<'_>, key: &FlowKey, role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    for level in 0..2 {
        if !has_tag(key, level) {
            break;
        }
        let tpid = set.take_array(k::ETHERTYPE)?.map_or(U16::ZERO, U16::from_bytes);
        let tci = set.take_array(k::VLAN)?.map_or(U16::ZERO, U16::from_bytes);
        if level == 0 {
            (out.base.vlan_tpid, out.base.vlan_tci) = (tpid, tci);
        } else {
            (out.misc.vlan1_tpid, out.misc.vlan1_tci) = (tpid, tci);
        }
        let inner = set.take(k::ENCAP);
        set.finish("it belongs into OVS_KEY_ATTR_ENCAP")?;
        set = role.set(inner.unwrap_or_default())?;
    }
    // "No tag" is matched in any case: `settle`. An empty ENCAP is what goes with a truncated tag.
    let _: Option<[u8; 2]> = set.take_array(k::VLAN)?;
    if let Some(inner) = set.take(k::ENCAP) {
        role.set(inner)?.finish("the key has no such tag")?;
    }
    match set.take_array(k::ETHERTYPE)?.map(U16::from_bytes) {
        Some(bits) if key.base.eth_type.get() < ETHERTYPE_MIN && !matches!(bits.get(), 0 | 0xffff) => {
            return Err(
                MASK.error(k::ETHERTYPE, Fault::Invalid("a frame without an EtherType has no single bits of it"))
            );
        }
        // For a layer-3 packet it is matched in any case.
        Some(bits) if key.base.packet_type_ns == 0 => out.base.eth_type = bits,
        _ => {}
    }
    network(&mut set, role, out)?;
    set.finish(NOT_HERE)
}

/// The network header, and the transport header behind it.
fn network(set: &mut Set<'_>, role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    let ty = role.key(out).base.eth_type.get();
    let (number, matched) = match ty {
        IPV4 => {
            let Some(ip) = role.header::<12>(set, k::IPV4)? else { return transport_header(set, role, out) };
            out.base.ipv4_src = part(&ip, 0);
            out.base.ipv4_dst = part(&ip, 4);
            ip_common(k::IPV4, &[ip[8], ip[9], ip[10], ip[11]], role, out)?;
            (k::IPV4, ip != [0; 12])
        }
        IPV6 => {
            let Some(ip) = role.header::<40>(set, k::IPV6)? else { return transport_header(set, role, out) };
            out.ipv6.src = part(&ip, 0);
            out.ipv6.dst = part(&ip, 16);
            let label = u32::from_be_bytes(part(&ip, 32));
            if !role.is_mask() && label & !LABEL_MASK != 0 {
                return Err(KEY.error(k::IPV6, Fault::Invalid("its label has more than 20 bits")));
            }
            out.ipv6.label = U32::new(label & LABEL_MASK);
            ip_common(k::IPV6, &[ip[36], ip[37], ip[38], ip[39]], role, out)?;
            (k::IPV6, ip != [0; 40])
        }
        ARP | RARP => {
            let Some(arp) = role.header::<24>(set, k::ARP)? else { return Ok(()) };
            if !role.is_mask() && arp[8] != 0 {
                return Err(KEY.error(k::ARP, Fault::Unsupported(" with an opcode above 255")));
            }
            out.base.ipv4_src = part(&arp, 0);
            out.base.ipv4_dst = part(&arp, 4);
            out.base.nw_proto = arp[9];
            out.ipv6.arp_sha = part(&arp, 10);
            out.ipv6.arp_tha = part(&arp, 16);
            (k::ARP, arp[..22] != [0; 22])
        }
        NSH => {
            let Some(payload) = set.take(k::NSH) else {
                return match role {
                    Role::Key { complete: true } => Err(KEY.error(k::NSH, Fault::Missing)),
                    _ => Ok(()),
                };
            };
            let complete = matches!(role, Role::Key { complete: true });
            nsh::decode(payload, complete, &mut out.nsh)?;
            let n = &out.nsh;
            let fields = [n.flags, n.ttl, n.mdtype, n.np] != [0; 4] || n.path_hdr != U32::ZERO;
            (k::NSH, fields || n.context != [U32::ZERO; 4])
        }
        ty if is_mpls(ty) => (k::MPLS, labels(set, role, out)?),
        _ => return Ok(()),
    };
    if role.is_mask() && matched && out.base.eth_type.get() != 0xffff {
        return Err(MASK.error(number, Fault::Prerequisite("the whole of OVS_KEY_ATTR_ETHERTYPE")));
    }
    transport_header(set, role, out)
}

/// The last four bytes of `struct ovs_key_ipv4` and of `struct ovs_key_ipv6`: protocol, TOS, TTL, fragment type.
fn ip_common(number: u16, bytes: &[u8; 4], role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    out.base.nw_proto = bytes[0];
    out.base.nw_tos = bytes[1];
    out.base.nw_ttl = bytes[2];
    out.base.nw_frag = match (role.is_mask(), bytes[3]) {
        (true, 0) | (false, attr::FRAG_TYPE_NONE) => 0,
        (true, _) | (false, attr::FRAG_TYPE_LATER) => FRAG_MASK,
        (false, attr::FRAG_TYPE_FIRST) => FRAG_ANY,
        _ => return Err(KEY.error(number, Fault::Invalid("its fragment type is above OVS_FRAG_TYPE_LATER"))),
    };
    Ok(())
}

/// The MPLS label stack. True if there was anything but zero.
fn labels(set: &mut Set<'_>, role: &Role<'_>, out: &mut FlowKey) -> Result<bool, CodecError> {
    let Some(payload) = set.take(k::MPLS) else {
        return match role {
            Role::Key { complete: true } => Err(KEY.error(k::MPLS, Fault::Missing)),
            _ => Ok(false),
        };
    };
    if !matches!(payload.len(), 4 | 8 | 12) {
        let fault = Fault::LengthRule { got: payload.len(), want: "4, 8 or 12, one to three labels" };
        return Err(KEY.error(k::MPLS, fault));
    }
    let entries = payload.len() / 4;
    for (i, (lse, bytes)) in out.misc.mpls.iter_mut().zip(payload.chunks_exact(4)).enumerate() {
        *lse = U32::from_bytes(part(bytes, 0));
        if !role.is_mask() && i + 1 < entries && lse.get() & MPLS_BOS != 0 {
            return Err(KEY.error(k::MPLS, Fault::Invalid("labels follow the bottom of the stack")));
        }
    }
    Ok(payload.iter().any(|&b| b != 0))
}

fn transport_header(set: &mut Set<'_>, role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    let key = *role.key(out);
    let Some(number) = transport(&key) else { return Ok(()) };
    if matches!(number, k::ICMP | k::ICMPV6) {
        let [kind, code] = role.header(set, number)?.unwrap_or_default();
        out.base.tp_src = U16::new(kind.into());
        out.base.tp_dst = U16::new(code.into());
    } else {
        let ports: [u8; 4] = role.header(set, number)?.unwrap_or_default();
        out.base.tp_src = U16::from_bytes(part(&ports, 0));
        out.base.tp_dst = U16::from_bytes(part(&ports, 2));
    }
    if number == k::TCP {
        let flags = set.take_array(k::TCP_FLAGS)?.map_or(0, u16::from_be_bytes);
        if !role.is_mask() && flags & 0xf000 != 0 {
            return Err(KEY.error(k::TCP_FLAGS, Fault::Invalid("it has more than 12 bits")));
        }
        out.base.tcp_flags = U16::new(flags & 0xfff);
    }
    if role.is_mask() && out.base.nw_proto != 0xff && (out.base.tp_src, out.base.tp_dst) != (U16::ZERO, U16::ZERO) {
        return Err(MASK.error(number, Fault::Prerequisite("the whole protocol")));
    }
    let key = *role.key(out);
    if is_nd(&key) { neighbour(set, role, out) } else { Ok(()) }
}

/// What neighbour discovery adds to ICMPv6.
fn neighbour(set: &mut Set<'_>, role: &Role<'_>, out: &mut FlowKey) -> Result<(), CodecError> {
    let full = U16::new(0xff);
    if let Some(nd) = role.header::<28>(set, k::ND)? {
        out.ipv6.nd_target = part(&nd, 0);
        out.ipv6.arp_sha = part(&nd, 16);
        out.ipv6.arp_tha = part(&nd, 22);
        if role.is_mask() && nd != [0; 28] && out.base.tp_src != full {
            return Err(MASK.error(k::ND, Fault::Prerequisite("the whole ICMPv6 type")));
        }
    }
    if let Some(ext) = set.take_array::<8>(k::ND_EXTENSIONS)? {
        out.misc.nd_reserved = U32::from_bytes(part(&ext, 0));
        out.misc.nd_options_type = ext[4];
        if role.is_mask() && ext[..5] != [0; 5] && (out.base.tp_src, out.base.tp_dst) != (full, full) {
            return Err(MASK.error(k::ND_EXTENSIONS, Fault::Prerequisite("the whole ICMPv6 type and code")));
        }
    }
    Ok(())
}

fn encode(key: &FlowKey, data: &FlowKey, is_mask: bool, out: &mut Vec<u8>) {
    let b = &data.base;
    put(out, k::RECIRC_ID, &b.recirc_id.to_ne_bytes());
    put(out, k::DP_HASH, &b.dp_hash.to_ne_bytes());
    put(out, k::PRIORITY, &b.skb_priority.to_ne_bytes());
    if tunnel::is_present(data) {
        nested(out, k::TUNNEL, |out| match is_mask {
            false => tunnel::encode_key(&data.tunnel, &data.options, out),
            true => tunnel::encode_mask(key, data, out),
        });
    }
    if is_mask || b.in_port != attr::PORT_NONE {
        put(out, k::IN_PORT, &b.in_port.to_ne_bytes());
    }
    put(out, k::SKB_MARK, &b.skb_mark.to_ne_bytes());
    put(out, k::CT_STATE, &u32::from(b.ct_state).to_ne_bytes());
    put(out, k::CT_ZONE, &b.ct_zone.to_ne_bytes());
    put(out, k::CT_MARK, &b.ct_mark.to_ne_bytes());
    put(out, k::CT_LABELS, &data.misc.ct_label);
    encode_ct_tuple(key, data, out);
    let packet_type = match (is_mask, key.base.packet_type_ns) {
        (false, 0) => 0,
        (false, ns) => u32::from(ns) << 16 | u32::from(b.eth_type.get()),
        (true, _) if b.packet_type_ns == 0 => 0,
        (true, _) => u32::MAX,
    };
    put(out, k::PACKET_TYPE, &packet_type.to_be_bytes());
    if key.base.packet_type_ns == 0 {
        let mut eth = [0; 12];
        eth[..6].copy_from_slice(&b.eth_src);
        eth[6..].copy_from_slice(&b.eth_dst);
        put(out, k::ETHERNET, &eth);
        encode_tags(0, key, data, is_mask, out);
    } else {
        encode_network(key, data, is_mask, out);
    }
}

fn encode_ct_tuple(key: &FlowKey, data: &FlowKey, out: &mut Vec<u8>) {
    if !has_ct_tuple(key) && !has_ct_tuple(data) {
        return;
    }
    let m = &data.misc;
    let mut end = [0; 8];
    end[..2].copy_from_slice(m.ct_orig_tp_src.as_bytes());
    end[2..4].copy_from_slice(m.ct_orig_tp_dst.as_bytes());
    end[4] = m.ct_orig_proto;
    let v6_addresses = [key.nsh.ct_orig_ipv6_src, key.nsh.ct_orig_ipv6_dst] != [[0; 16]; 2];
    let ty = key.base.eth_type.get();
    if ty == IPV6 || ty != IPV4 && v6_addresses {
        let tuple = [&data.nsh.ct_orig_ipv6_src[..], &data.nsh.ct_orig_ipv6_dst, &end].concat();
        put(out, k::CT_ORIG_TUPLE_IPV6, &tuple);
    } else {
        put(out, k::CT_ORIG_TUPLE_IPV4, &[&m.ct_orig_ipv4_src[..], &m.ct_orig_ipv4_dst, &end].concat());
    }
}

fn encode_tags(level: usize, key: &FlowKey, data: &FlowKey, is_mask: bool, out: &mut Vec<u8>) {
    if level < 2 && has_tag(key, level) {
        let (tpid, tci) = match level {
            0 => (data.base.vlan_tpid, data.base.vlan_tci),
            _ => (data.misc.vlan1_tpid, data.misc.vlan1_tci),
        };
        if is_mask || tpid != U16::ZERO {
            put(out, k::ETHERTYPE, tpid.as_bytes());
        }
        put(out, k::VLAN, tci.as_bytes());
        nested(out, k::ENCAP, |out| encode_tags(level + 1, key, data, is_mask, out));
    } else if level == 0 && is_vlan(key.base.eth_type.get()) {
        // A truncated tag, as Open vSwitch writes it.
        put(out, k::ETHERTYPE, data.base.eth_type.as_bytes());
        put(out, k::VLAN, &[0; 2]);
        put(out, k::ENCAP, &[]);
    } else {
        encode_network(key, data, is_mask, out);
    }
}

fn encode_network(key: &FlowKey, data: &FlowKey, is_mask: bool, out: &mut Vec<u8>) {
    let b = &data.base;
    let ty = key.base.eth_type.get();
    // 802.3 without an EtherType: no attribute in the key; in the mask all ones say that it is matched.
    if ty >= ETHERTYPE_MIN || is_mask && b.eth_type != U16::ZERO {
        put(out, k::ETHERTYPE, b.eth_type.as_bytes());
    }
    let frag = match (is_mask, b.nw_frag) {
        (true, 0) => 0,
        (true, _) => 0xff,
        (false, bits) if bits & FRAG_ANY == 0 => attr::FRAG_TYPE_NONE,
        (false, bits) if bits & FRAG_LATER == 0 => attr::FRAG_TYPE_FIRST,
        (false, _) => attr::FRAG_TYPE_LATER,
    };
    let common = [b.nw_proto, b.nw_tos, b.nw_ttl, frag];
    match ty {
        IPV4 => put(out, k::IPV4, &[&b.ipv4_src[..], &b.ipv4_dst, &common].concat()),
        IPV6 => {
            let ip = &data.ipv6;
            put(out, k::IPV6, &[&ip.src[..], &ip.dst, ip.label.as_bytes(), &common].concat());
        }
        ARP | RARP => {
            let op = if is_mask && b.nw_proto == 0xff { [0xff; 2] } else { [0, b.nw_proto] };
            let hw = [data.ipv6.arp_sha, data.ipv6.arp_tha];
            put(out, k::ARP, &[&b.ipv4_src[..], &b.ipv4_dst, &op, &hw[0], &hw[1], &[0; 2]].concat());
        }
        NSH => nsh::encode(&data.nsh, is_mask, out),
        ty if is_mpls(ty) => {
            let masked = data.misc.mpls.iter().rposition(|lse| lse.get() != 0).map_or(0, |last| last + 1);
            let entries = if is_mask { label_count(key).max(masked) } else { label_count(key) };
            put(out, k::MPLS, data.misc.mpls[..entries].as_bytes());
        }
        _ => {}
    }
    let Some(number) = transport(key) else { return };
    if matches!(number, k::ICMP | k::ICMPV6) {
        put(out, number, &[b.tp_src.get() as u8, b.tp_dst.get() as u8]);
    } else {
        put(out, number, &[b.tp_src.as_bytes(), b.tp_dst.as_bytes()].concat());
    }
    if number == k::TCP && b.tcp_flags != U16::ZERO {
        put(out, k::TCP_FLAGS, b.tcp_flags.as_bytes());
    }
    if is_nd(key) && (!is_mask || b.tp_src == U16::new(0xff)) {
        let (ip, misc) = (&data.ipv6, &data.misc);
        put(out, k::ND, &[&ip.nd_target[..], &ip.arp_sha, &ip.arp_tha].concat());
        if misc.nd_reserved != U32::ZERO || misc.nd_options_type != 0 {
            put(out, k::ND_EXTENSIONS, &[misc.nd_reserved.as_bytes(), &[misc.nd_options_type, 0, 0, 0]].concat());
        }
    }
}

const _: () = assert!(ethernet::ETHERTYPE_MIN > DL_TYPE_NONE);
