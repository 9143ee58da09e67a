//! From bytes to a key, the long way: one header after the other, every length looked at where it matters.
//!
//! This is a second implementation on purpose. It shares no code with `flow::extract`, so that a mistake has to be made twice to
//! go unnoticed.

use zerocopy::byteorder::network_endian::{U16, U32};

use crate::flow::FlowKey;
use crate::flow::key::{FRAG_ANY, FRAG_LATER, VLAN_PRESENT};

/// VLAN tags that are told apart from what follows them.
const VLAN_DEPTH: usize = 2;

/// What a look at a packet found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The fields that come from the bytes; metadata is zero.
    pub key: FlowKey,
    /// Where the label stack begins.
    pub mpls: Option<usize>,
    /// Where the network header begins.
    pub network: Option<usize>,
    /// Where the transport header begins, if the packet has it whole.
    pub transport: Option<usize>,
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let field = bytes.get(at..at + len)?;
    Some(field.iter().fold(0, |n, &byte| n << 8 | u32::from(byte)))
}

fn copy<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Looks at a packet. `starts_with` is the EtherType of a packet without Ethernet header. `None` for a frame too short to be one.
pub fn parse(bytes: &[u8], starts_with: Option<u16>) -> Option<Parsed> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    match starts_with {
        Some(ethertype) => {
            parsed.key.base.packet_type_ns = 1;
            parsed.key.base.eth_type = U16::new(ethertype);
        }
        None => {
            if bytes.len() < 14 {
                return None;
            }
            parsed.key.base.eth_dst = copy(bytes, 0)?;
            parsed.key.base.eth_src = copy(bytes, 6)?;
            at = tags(bytes, &mut parsed.key);
            at = ethertype(bytes, at, &mut parsed.key);
        }
    }
    match parsed.key.base.eth_type.get() {
        0x8847 | 0x8848 => {
            parsed.mpls = Some(at);
            parsed.network = labels(bytes, at, &mut parsed.key);
        }
        kind => {
            parsed.network = Some(at);
            match kind {
                0x0800 => parsed.transport = ipv4(bytes, at, &mut parsed.key),
                0x86dd => parsed.transport = ipv6(bytes, at, &mut parsed.key),
                0x0806 | 0x8035 => arp(bytes, at, &mut parsed.key),
                0x894f => nsh(bytes, at, &mut parsed.key).unwrap_or(()),
                _ => {}
            }
        }
    }
    Some(parsed)
}

/// VLAN tags; returns where the EtherType behind them is. A tag counts only if that EtherType is there as well.
fn tags(bytes: &[u8], key: &mut FlowKey) -> usize {
    for depth in 0..VLAN_DEPTH {
        let at = 12 + 4 * depth;
        let tpid = number(bytes, at, 2);
        if !matches!(tpid, Some(0x8100 | 0x88a8)) || bytes.len() < at + 6 {
            return at;
        }
        let (tpid, tci) = (number(bytes, at, 2).unwrap_or(0) as u16, number(bytes, at + 2, 2).unwrap_or(0) as u16);
        let (tpid, tci) = (U16::new(tpid), U16::new(tci | VLAN_PRESENT));
        if depth == 0 {
            (key.base.vlan_tpid, key.base.vlan_tci) = (tpid, tci);
        } else {
            (key.misc.vlan1_tpid, key.misc.vlan1_tci) = (tpid, tci);
        }
    }
    12 + 4 * VLAN_DEPTH
}

/// The EtherType, if need be behind an LLC and SNAP header; returns where the network header begins.
fn ethertype(bytes: &[u8], at: usize, key: &mut FlowKey) -> usize {
    let kind = number(bytes, at, 2).unwrap_or(0) as u16;
    if kind >= 0x600 {
        key.base.eth_type = U16::new(kind);
        return at + 2;
    }
    if copy::<6>(bytes, at + 2) == Some([0xaa, 0xaa, 3, 0, 0, 0])
        && let Some(kind) = number(bytes, at + 8, 2)
        && kind >= 0x600
    {
        key.base.eth_type = U16::new(kind as u16);
        return at + 10;
    }
    // OVS's number for 802.2 without an EtherType.
    key.base.eth_type = U16::new(0x5ff);
    at + 2
}

/// Up to three label stack entries; returns where the network header begins, if the bottom of the stack was among them.
fn labels(bytes: &[u8], at: usize, key: &mut FlowKey) -> Option<usize> {
    for i in 0..3 {
        let entry = number(bytes, at + 4 * i, 4)?;
        key.misc.mpls[i] = U32::new(entry);
        if entry & 0x100 != 0 {
            return Some(at + 4 * i + 4);
        }
    }
    None
}

fn ipv4(bytes: &[u8], at: usize, key: &mut FlowKey) -> Option<usize> {
    let first = *bytes.get(at)?;
    let header = bytes.get(at..at + 20)?;
    let header_len = usize::from(first & 15) * 4;
    let total = number(header, 2, 2)? as usize;
    if first >> 4 != 4 || header_len < 20 || total < header_len || at + total > bytes.len() {
        return None;
    }
    let base = &mut key.base;
    (base.nw_tos, base.nw_ttl, base.nw_proto) = (header[1], header[8], header[9]);
    (base.ipv4_src, base.ipv4_dst) = (copy(header, 12)?, copy(header, 16)?);
    let fragment = number(header, 6, 2)?;
    if fragment & 0x3fff != 0 {
        base.nw_frag = FRAG_ANY;
    }
    if fragment & 0x1fff != 0 {
        base.nw_frag |= FRAG_LATER;
        return None;
    }
    let proto = header[9];
    transport(&bytes[..at + total], at + header_len, proto, key)
}

fn ipv6(bytes: &[u8], at: usize, key: &mut FlowKey) -> Option<usize> {
    let header = bytes.get(at..at + 40)?;
    let first = number(header, 0, 4)?;
    let end = at + 40 + number(header, 4, 2)? as usize;
    if first >> 28 != 6 || end > bytes.len() {
        return None;
    }
    (key.ipv6.src, key.ipv6.dst) = (copy(header, 8)?, copy(header, 24)?);
    key.ipv6.label = U32::new(first & 0xf_ffff);
    (key.base.nw_tos, key.base.nw_ttl) = ((first >> 20) as u8, header[7]);
    let bytes = &bytes[..end];
    let (mut next, mut at, mut frag) = (header[6], at + 40, 0);
    loop {
        let extension = match next {
            0 | 43 | 60 | 135 => (number(bytes, at, 1)? as u8, 8 * (number(bytes, at + 1, 1)? as usize + 1)),
            51 => (number(bytes, at, 1)? as u8, 4 * (number(bytes, at + 1, 1)? as usize + 2)),
            44 => {
                bytes.get(at..at + 8)?;
                let offset = number(bytes, at + 2, 2)?;
                if offset & 0xfff9 != 0 {
                    frag = FRAG_ANY;
                }
                if offset & 0xfff8 != 0 {
                    // What follows is the middle of something: its kind is not told.
                    (key.base.nw_proto, key.base.nw_frag) = (44, FRAG_ANY | FRAG_LATER);
                    return None;
                }
                (number(bytes, at, 1)? as u8, 8)
            }
            _ => break,
        };
        (next, at) = (extension.0, at + extension.1);
    }
    if at > end {
        return None;
    }
    (key.base.nw_proto, key.base.nw_frag) = (next, frag);
    transport(bytes, at, next, key)
}

fn transport(bytes: &[u8], at: usize, proto: u8, key: &mut FlowKey) -> Option<usize> {
    let len = match proto {
        6 => 20,
        17 | 1 | 2 => 8,
        132 => 12,
        58 => 4,
        _ => 0,
    };
    let header = bytes.get(at..at + len)?;
    match proto {
        6 | 17 | 132 => {
            key.base.tp_src = U16::new(number(header, 0, 2)? as u16);
            key.base.tp_dst = U16::new(number(header, 2, 2)? as u16);
            if proto == 6 {
                key.base.tcp_flags = U16::new(number(header, 12, 2)? as u16 & 0xfff);
            }
        }
        1 | 2 | 58 => {
            (key.base.tp_src, key.base.tp_dst) = (U16::new(header[0].into()), U16::new(header[1].into()));
            if proto == 58 && matches!(header[0], 135 | 136) && header[1] == 0 {
                neighbour(bytes, at, key).unwrap_or(());
            }
        }
        _ => {}
    }
    Some(at)
}

/// A neighbour solicitation or advertisement with its link-layer options.
fn neighbour(bytes: &[u8], at: usize, key: &mut FlowKey) -> Option<()> {
    key.misc.nd_reserved = U32::new(number(bytes, at + 4, 4)?);
    key.ipv6.nd_target = copy(bytes, at + 8)?;
    let (mut source, mut target, mut last) = ([0; 6], [0; 6], 0);
    let mut option = at + 24;
    while option + 2 <= bytes.len() {
        let (kind, len) = (bytes[option], 8 * usize::from(bytes[option + 1]));
        let which = match kind {
            1 => Some(&mut source),
            2 => Some(&mut target),
            _ => None,
        };
        let again = len == 8 && which.as_ref().is_some_and(|address| **address != [0; 6]);
        if len == 0 || option + len > bytes.len() || again {
            // A message with a malformed option is taken for none (RFC 4861 §7.1.1); the option types seen so far stay, as in OVS.
            key.ipv6.nd_target = [0; 16];
            key.misc.nd_options_type = last;
            return None;
        }
        if let Some(address) = which.filter(|_| len == 8) {
            *address = copy(bytes, option + 2)?;
            last = kind;
        }
        option += len;
    }
    (key.ipv6.arp_sha, key.ipv6.arp_tha, key.misc.nd_options_type) = (source, target, last);
    Some(())
}

fn arp(bytes: &[u8], at: usize, key: &mut FlowKey) {
    let Some(message) = bytes.get(at..at + 28) else { return };
    if message[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let opcode = u16::from_be_bytes([message[6], message[7]]);
    key.base.nw_proto = if opcode <= 255 { opcode as u8 } else { 0 };
    key.ipv6.arp_sha.copy_from_slice(&message[8..14]);
    key.base.ipv4_src.copy_from_slice(&message[14..18]);
    key.ipv6.arp_tha.copy_from_slice(&message[18..24]);
    key.base.ipv4_dst.copy_from_slice(&message[24..28]);
}

fn nsh(bytes: &[u8], at: usize, key: &mut FlowKey) -> Option<()> {
    let first = number(bytes, at, 2)?;
    let (md_type, next) = (number(bytes, at + 2, 1)? as u8 & 15, number(bytes, at + 3, 1)? as u8);
    let path = number(bytes, at + 4, 4)?;
    let len = 4 * (first & 63) as usize;
    let fits = match md_type {
        1 => len == 24,
        2 => len >= 8,
        _ => false,
    };
    if first >> 14 != 0 || !fits || at + len > bytes.len() {
        return None;
    }
    let line = &mut key.nsh;
    (line.flags, line.ttl) = ((first >> 12 & 3) as u8, (first >> 6 & 63) as u8);
    (line.mdtype, line.np, line.path_hdr) = (md_type, next, U32::new(path));
    if md_type == 1 {
        for i in 0..4 {
            line.context[i] = U32::new(number(bytes, at + 8 + 4 * i, 4)?);
        }
    }
    Some(())
}
