//! From bytes to a flow key: the oracle's own parser, layer by layer, each layer handed the bytes that belong to it.
//!
//! It follows `miniflow_extract` of Open vSwitch in what it takes for valid: a layer that is cut off or nonsensical leaves its fields
//! zero, and what is in front of it stands.

use zerocopy::byteorder::network_endian::{U16, U32};

use super::parcel::Marks;
use crate::flow::FlowKey;
use crate::flow::key::{FRAG_ANY, FRAG_LATER, VLAN_PRESENT};

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    core::array::from_fn(|i| bytes[at + i])
}

/// Writes the fields of `bytes` into `key` and says where the headers are. `layer3` is the EtherType of bytes that begin without an
/// Ethernet header. `None` if there should be an Ethernet header and it is cut off.
pub fn parse(bytes: &[u8], layer3: Option<u16>, vlan_depth: u8, key: &mut FlowKey) -> Option<Marks> {
    let (ethertype, at) = match layer3 {
        Some(ethertype) => {
            key.base.packet_type_ns = 1;
            (ethertype, 0)
        }
        None if bytes.len() < 14 => return None,
        None => ethernet(bytes, vlan_depth, key),
    };
    key.base.eth_type = U16::new(ethertype);
    let mut marks = Marks { labels: None, network: Some((at, ethertype)), transport: None };
    let packet = &bytes[at..];
    match ethertype {
        0x0800 => marks.transport = ipv4(packet, key).map(|behind| at + behind),
        0x86dd => marks.transport = ipv6(packet, key).map(|behind| at + behind),
        0x0806 | 0x8035 => arp(packet, key),
        0x8847 | 0x8848 => {
            labels(packet, key);
            // What is behind the labels is known only to whoever takes them off.
            (marks.labels, marks.network) = (Some(at), None);
        }
        0x894f => nsh(packet, key),
        _ => {}
    }
    Some(marks)
}

/// Addresses, tags and EtherType; returns the EtherType and the length of all of it.
fn ethernet(bytes: &[u8], vlan_depth: u8, key: &mut FlowKey) -> (u16, usize) {
    key.base.eth_dst = array(bytes, 0);
    key.base.eth_src = array(bytes, 6);
    let mut at = 12;
    for tag in 0..vlan_depth {
        let tpid = be16(bytes, at);
        let has_tag_and_type = bytes.len() >= at + 6;
        if !matches!(tpid, 0x8100 | 0x88a8) || !has_tag_and_type {
            break;
        }
        let (tpid, tci) = (U16::new(tpid), U16::new(be16(bytes, at + 2) | VLAN_PRESENT));
        match tag {
            0 => (key.base.vlan_tpid, key.base.vlan_tci) = (tpid, tci),
            _ => (key.misc.vlan1_tpid, key.misc.vlan1_tci) = (tpid, tci),
        }
        at += 4;
    }
    let ethertype = be16(bytes, at);
    at += 2;
    if ethertype >= 0x600 {
        return (ethertype, at);
    }
    // A length: IEEE 802.2, perhaps with SNAP (RFC 1042).
    match &bytes[at..] {
        [0xaa, 0xaa, 3, 0, 0, 0, high, low, ..] if *high >= 6 => (u16::from_be_bytes([*high, *low]), at + 8),
        _ => (0x5ff, at),
    }
}

/// RFC 826, for IPv4 over Ethernet.
fn arp(packet: &[u8], key: &mut FlowKey) {
    if packet.len() < 28 || packet[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    // A key has 8 bits for the opcode.
    key.base.nw_proto = if packet[6] == 0 { packet[7] } else { 0 };
    key.ipv6.arp_sha = array(packet, 8);
    key.base.ipv4_src = array(packet, 14);
    key.ipv6.arp_tha = array(packet, 18);
    key.base.ipv4_dst = array(packet, 24);
}

/// RFC 3032: at most three entries, up to the bottom of the stack.
fn labels(packet: &[u8], key: &mut FlowKey) {
    for (entry, slot) in packet.chunks_exact(4).zip(&mut key.misc.mpls) {
        *slot = U32::new(be32(entry, 0));
        if entry[2] & 1 != 0 {
            break;
        }
    }
}

/// RFC 8300 §2: version 0, metadata type 1 with its four words, or type 2.
fn nsh(packet: &[u8], key: &mut FlowKey) {
    if !is_nsh(packet) {
        return;
    }
    let first = be16(packet, 0);
    key.nsh.flags = (first >> 12 & 3) as u8;
    key.nsh.ttl = (first >> 6 & 63) as u8;
    key.nsh.mdtype = packet[2] & 15;
    key.nsh.np = packet[3];
    key.nsh.path_hdr = U32::new(be32(packet, 4));
    if key.nsh.mdtype == 1 {
        key.nsh.context = core::array::from_fn(|i| U32::new(be32(packet, 8 + 4 * i)));
    }
}

/// True if `packet` begins with an NSH header that can be understood.
pub fn is_nsh(packet: &[u8]) -> bool {
    if packet.len() < 8 {
        return false;
    }
    let len = usize::from(packet[1] & 63) * 4;
    let has_right_len = match packet[2] & 15 {
        1 => len == 24,
        2 => len >= 8,
        _ => false,
    };
    packet[0] >> 6 == 0 && has_right_len && packet.len() >= len
}

/// RFC 791. Returns where the transport header is, if it is there.
fn ipv4(packet: &[u8], key: &mut FlowKey) -> Option<usize> {
    if packet.len() < 20 {
        return None;
    }
    let (header_len, total_len) = (usize::from(packet[0] & 15) * 4, usize::from(be16(packet, 2)));
    if packet[0] >> 4 != 4 || header_len < 20 || total_len < header_len || packet.len() < total_len {
        return None;
    }
    let base = &mut key.base;
    (base.nw_tos, base.nw_ttl, base.nw_proto) = (packet[1], packet[8], packet[9]);
    (base.ipv4_src, base.ipv4_dst) = (array(packet, 12), array(packet, 16));
    let fragment = be16(packet, 6);
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    if offset != 0 {
        base.nw_frag = FRAG_ANY | FRAG_LATER;
        return None;
    }
    if more {
        base.nw_frag = FRAG_ANY;
    }
    // What is behind the total length is padding.
    transport(&packet[header_len..total_len], packet[9], key).then_some(header_len)
}

/// RFC 8200. Returns where the transport header is, if it is there.
fn ipv6(packet: &[u8], key: &mut FlowKey) -> Option<usize> {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return None;
    }
    let packet = packet.get(..40 + usize::from(be16(packet, 4)))?;
    (key.ipv6.src, key.ipv6.dst) = (array(packet, 8), array(packet, 24));
    let chain = chain(packet)?;
    let first = be32(packet, 0);
    key.ipv6.label = U32::new(first & 0xf_ffff);
    key.base.nw_tos = (first >> 20 & 0xff) as u8;
    key.base.nw_ttl = packet[7];
    key.base.nw_frag = match (chain.is_fragment, chain.is_later) {
        (_, true) => FRAG_ANY | FRAG_LATER,
        (true, false) => FRAG_ANY,
        _ => 0,
    };
    key.base.nw_proto = chain.proto;
    (!chain.is_later && transport(&packet[chain.len..], chain.proto, key)).then_some(chain.len)
}

/// What an IPv6 packet's chain of headers leads to.
pub struct Chain {
    /// The first header that is none of an extension; 44 in a later fragment.
    pub proto: u8,
    /// Where it is.
    pub len: usize,
    /// There is a fragment header that is not atomic (RFC 6946).
    pub is_fragment: bool,
    /// The fragment is not the first.
    pub is_later: bool,
    /// A routing header has segments left: the destination address is not the last one.
    pub is_routed: bool,
}

/// Follows the chain of `packet`, which ends with its payload; `None` if it is cut off.
pub fn chain(packet: &[u8]) -> Option<Chain> {
    let mut chain = Chain { proto: packet[6], len: 40, is_fragment: false, is_later: false, is_routed: false };
    loop {
        let rest = &packet[chain.len..];
        let len = match chain.proto {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            // Authentication (RFC 4302 §2.2).
            51 => (usize::from(*rest.get(1)?) + 2) * 4,
            44 => 8,
            _ => return Some(chain),
        };
        let header = rest.get(..len)?;
        match chain.proto {
            43 => chain.is_routed |= header[3] > 0,
            44 => {
                let (offset, more) = (be16(header, 2) >> 3, header[3] & 1 != 0);
                chain.is_fragment |= offset != 0 || more;
                chain.is_later = offset != 0;
            }
            _ => {}
        }
        chain.len += len;
        if chain.is_later {
            return Some(chain);
        }
        chain.proto = header[0];
    }
}

/// Ports, or type and code. False if the header is cut off.
fn transport(segment: &[u8], proto: u8, key: &mut FlowKey) -> bool {
    let header_len = match proto {
        6 => 20,
        17 | 1 | 2 | 58 => 8,
        132 => 12,
        _ => return true,
    };
    if segment.len() < header_len {
        return false;
    }
    match proto {
        // A data offset that points into the header or behind the segment makes all of it worthless.
        6 if !(20..=segment.len()).contains(&(usize::from(segment[12] >> 4) * 4)) => {}
        6 | 17 | 132 => {
            key.base.tp_src = U16::new(be16(segment, 0));
            key.base.tp_dst = U16::new(be16(segment, 2));
            if proto == 6 {
                key.base.tcp_flags = U16::new(be16(segment, 12) & 0xfff);
            }
        }
        _ => {
            key.base.tp_src = U16::new(segment[0].into());
            key.base.tp_dst = U16::new(segment[1].into());
            if proto == 58 && matches!(segment[0], 135 | 136) && segment[1] == 0 {
                neighbour(segment, key);
            }
        }
    }
    true
}

/// RFC 4861 §4.3 and §4.4: solicitation and advertisement.
fn neighbour(message: &[u8], key: &mut FlowKey) {
    key.misc.nd_reserved = U32::new(be32(message, 4));
    if message.len() < 24 {
        return;
    }
    key.ipv6.nd_target = array(message, 8);
    let mut options = &message[24..];
    while options.len() >= 8 {
        let len = usize::from(options[1]) * 8;
        if len == 0 || len > options.len() {
            return;
        }
        if len == 8 && matches!(options[0], 1 | 2) {
            let is_source = options[0] == 1;
            let address = if is_source { &mut key.ipv6.arp_sha } else { &mut key.ipv6.arp_tha };
            if *address != [0; 6] {
                // Two of one kind: who is to be believed?
                (key.ipv6.nd_target, key.ipv6.arp_sha, key.ipv6.arp_tha) = ([0; 16], [0; 6], [0; 6]);
                return;
            }
            *address = array(options, 2);
            if key.misc.nd_options_type == 0 {
                key.misc.nd_options_type = options[0];
            }
        }
        options = &options[len..];
    }
}
