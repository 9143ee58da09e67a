//! From a packet's bytes and metadata to its [`FlowKey`], parsing once and noting where the headers are.
//!
//! Parsing goes as far as the bytes are valid and stops there without an error, as OVS does: a truncated or nonsensical
//! header leaves its fields zero and its offset [`NONE`]. Only a packet too short for its Ethernet header is refused.
//!
//! [`extract_base`] is the packet path's entry: an untagged IPv4 packet without options or fragmentation, TCP or UDP, takes
//! five loads and a few shifts, all in registers; everything else goes through [`extract`].

use zerocopy::FromZeros;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::ext::Ext;
use super::key::{
    FRAG_ANY, FRAG_LATER, FlowKey, LINE_BASE, LINE_IPV6, LINE_MISC, LINE_NSH, LINE_OPTIONS, LINE_TUNNEL, Line, LineSet,
    TunnelLine, VLAN_PRESENT,
};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::ethernet::{self, ETHERTYPE_MIN, HEADER_LEN};

/// VLAN tags that a key can hold.
pub const VLAN_DEPTH_MAX: u8 = 2;

const PROTO_ICMP: u8 = 1;
const PROTO_IGMP: u8 = 2;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMPV6: u8 = 58;
const PROTO_SCTP: u8 = 132;

/// How far to parse.
#[derive(Clone, Copy, Debug)]
pub struct ExtractOptions {
    /// VLAN tags to take into the key, at most [`VLAN_DEPTH_MAX`]; a further tag's EtherType becomes `eth_type`.
    pub vlan_depth: u8,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        ExtractOptions { vlan_depth: VLAN_DEPTH_MAX }
    }
}

/// Reads big-endian values at an offset; `None` past the end.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    #[inline(always)]
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }
    #[inline(always)]
    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }
    #[inline(always)]
    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }
    #[inline(always)]
    fn has(self, at: usize, n: usize) -> bool {
        at + n <= self.0.len()
    }
    /// Everything before `end`.
    #[inline(always)]
    fn until(self, end: usize) -> Bytes<'a> {
        Bytes(&self.0[..end.min(self.0.len())])
    }
}

/// A key under construction: a line is cleared when it is first written.
struct Key<'k> {
    key: &'k mut FlowKey,
    lines: LineSet,
}

impl Key<'_> {
    #[inline]
    fn ipv6(&mut self) -> &mut super::key::Ipv6Line {
        if self.lines & LINE_IPV6 == 0 {
            self.lines |= LINE_IPV6;
            self.key.ipv6.zero();
        }
        &mut self.key.ipv6
    }
    #[inline]
    fn misc(&mut self) -> &mut super::key::MiscLine {
        if self.lines & LINE_MISC == 0 {
            self.lines |= LINE_MISC;
            self.key.misc.zero();
        }
        &mut self.key.misc
    }
    #[inline]
    fn nsh(&mut self) -> &mut super::key::NshLine {
        if self.lines & LINE_NSH == 0 {
            self.lines |= LINE_NSH;
            self.key.nsh.zero();
        }
        &mut self.key.nsh
    }
}

/// Where the headers are; written back to the packet at the end.
#[derive(Default)]
struct Layers {
    l2_5: Option<usize>,
    l3: Option<usize>,
    l4: Option<usize>,
}

fn offset(at: Option<usize>) -> u16 {
    at.and_then(|at| u16::try_from(at).ok()).unwrap_or(NONE)
}

/// Extracts `packet`'s key into `key` and sets the packet's header offsets. Returns the lines that were written; the others
/// hold whatever they held before and count as zero (see [`clear_unused`]).
///
/// # Errors
/// [`DropReason::RxInvalid`] for a packet shorter than its Ethernet header.
pub fn extract(
    packet: &mut Packet,
    ext: Option<&Ext>,
    options: ExtractOptions,
    key: &mut FlowKey,
) -> Result<LineSet, DropReason> {
    let mut k = Key { key, lines: LINE_BASE };
    k.key.base.zero();
    metadata(packet, ext, &mut k);
    let mut layers = Layers::default();
    let ethernet = !packet.flags.contains(PacketFlags::LAYER3);
    if ethernet && packet.len() < HEADER_LEN {
        (packet.l2_5, packet.l3, packet.l4) = (NONE, NONE, NONE);
        return Err(DropReason::RxInvalid);
    }
    let bytes = Bytes(packet.data());
    let at = if ethernet {
        link(bytes, options.vlan_depth.min(VLAN_DEPTH_MAX), &mut k)
    } else {
        k.key.base.packet_type_ns = 1;
        k.key.base.eth_type = U16::new(packet.l3_type);
        0
    };
    let ethertype = k.key.base.eth_type.get();
    match ethertype {
        ethernet::IPV4 => {
            layers.l3 = Some(at);
            ipv4(bytes, at, &mut k, &mut layers);
        }
        ethernet::IPV6 => {
            layers.l3 = Some(at);
            ipv6(bytes, at, &mut k, &mut layers);
        }
        ethernet::ARP | ethernet::RARP => {
            layers.l3 = Some(at);
            arp(bytes, at, &mut k);
        }
        ethernet::MPLS | ethernet::MPLS_MULTICAST => {
            layers.l2_5 = Some(at);
            layers.l3 = mpls(bytes, at, &mut k);
        }
        ethernet::NSH => {
            layers.l3 = Some(at);
            nsh(bytes, at, &mut k);
        }
        _ => layers.l3 = Some(at),
    }
    let lines = k.lines;
    packet.l2_5 = offset(layers.l2_5);
    packet.l3 = offset(layers.l3);
    packet.l4 = offset(layers.l4);
    Ok(lines)
}

/// Clears the lines of `key` that are not in `lines`, so that it can be used as a whole.
pub fn clear_unused(key: &mut FlowKey, lines: LineSet) {
    for (i, line) in key.lines_mut().iter_mut().enumerate() {
        if lines & 1 << i == 0 {
            *line = [0; 8];
        }
    }
}

/// The whole key of `packet`, every unused line zero.
///
/// # Errors
/// As [`extract`].
pub fn extract_whole(packet: &mut Packet, ext: Option<&Ext>, options: ExtractOptions) -> Result<FlowKey, DropReason> {
    let mut key = FlowKey::default();
    extract(packet, ext, options, &mut key)?;
    Ok(key)
}

fn metadata(packet: &Packet, ext: Option<&Ext>, k: &mut Key<'_>) {
    let base = &mut k.key.base;
    base.in_port = packet.in_port;
    base.recirc_id = packet.recirc_id;
    base.dp_hash = packet.dp_hash;
    base.skb_mark = packet.skb_mark;
    base.ct_mark = packet.ct_mark;
    base.ct_zone = packet.ct_zone;
    base.ct_state = packet.ct_state;
    let Some(ext) = ext else { return };
    base.skb_priority = ext.skb_priority;
    if ext.lines & LINE_TUNNEL != 0 {
        k.key.tunnel = ext.tunnel;
        k.lines |= LINE_TUNNEL;
    }
    if ext.lines & LINE_OPTIONS != 0 {
        k.key.options = ext.options;
        k.lines |= LINE_OPTIONS;
    }
    if ext.lines & LINE_MISC != 0 {
        k.key.misc = ext.misc;
        k.lines |= LINE_MISC;
    }
    if ext.lines & LINE_NSH != 0 {
        k.key.nsh = ext.nsh;
        k.lines |= LINE_NSH;
    }
}

/// Ethernet header, VLAN tags, EtherType; returns the offset of what follows. The header is known to be complete.
fn link(bytes: Bytes<'_>, vlan_depth: u8, k: &mut Key<'_>) -> usize {
    let base = &mut k.key.base;
    base.eth_dst = bytes.array(0).unwrap_or_default();
    base.eth_src = bytes.array(6).unwrap_or_default();
    let mut at = 12;
    for depth in 0..vlan_depth {
        // The tag and the EtherType behind it must both be there.
        let (Some(tpid), Some(tci), Some(_)) = (bytes.u16(at), bytes.u16(at + 2), bytes.u16(at + 4)) else { break };
        if !ethernet::is_vlan(tpid) {
            break;
        }
        let tci = U16::new(tci | VLAN_PRESENT);
        if depth == 0 {
            k.key.base.vlan_tpid = U16::new(tpid);
            k.key.base.vlan_tci = tci;
        } else {
            let misc = k.misc();
            misc.vlan1_tpid = U16::new(tpid);
            misc.vlan1_tci = tci;
        }
        at += 4;
    }
    let ethertype = bytes.u16(at).unwrap_or_default();
    at += 2;
    let ethertype = if ethertype >= ETHERTYPE_MIN {
        ethertype
    } else {
        // IEEE 802.2 LLC with SNAP and a zero OUI carries an EtherType (RFC 1042).
        match (bytes.array::<6>(at), bytes.u16(at + 6)) {
            (Some([0xaa, 0xaa, 0x03, 0, 0, 0]), Some(t)) if t >= ETHERTYPE_MIN => {
                at += 8;
                t
            }
            _ => ethernet::DL_TYPE_NONE,
        }
    };
    k.key.base.eth_type = U16::new(ethertype);
    at
}

fn ipv4(bytes: Bytes<'_>, at: usize, k: &mut Key<'_>, layers: &mut Layers) {
    let Some(h) = bytes.array::<20>(at) else { return };
    let header_len = usize::from(h[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    // RFC 791: anything else is not a header that lengths and offsets could be taken from.
    if h[0] >> 4 != 4 || header_len < 20 || total_len < header_len || !bytes.has(at, total_len) {
        return;
    }
    let base = &mut k.key.base;
    base.ipv4_src = [h[12], h[13], h[14], h[15]];
    base.ipv4_dst = [h[16], h[17], h[18], h[19]];
    base.nw_proto = h[9];
    base.nw_tos = h[1];
    base.nw_ttl = h[8];
    let frag = u16::from_be_bytes([h[6], h[7]]);
    if frag & 0x3fff != 0 {
        base.nw_frag = FRAG_ANY | if frag & 0x1fff != 0 { FRAG_LATER } else { 0 };
    }
    // What lies behind the total length is padding.
    transport(bytes.until(at + total_len), at + header_len, h[9], k, layers);
}

fn ipv6(bytes: Bytes<'_>, at: usize, k: &mut Key<'_>, layers: &mut Layers) {
    let Some(h) = bytes.array::<40>(at) else { return };
    let payload_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if h[0] >> 4 != 6 || !bytes.has(at + 40, payload_len) {
        return;
    }
    let bytes = bytes.until(at + 40 + payload_len);
    let line = k.ipv6();
    line.src.copy_from_slice(&h[8..24]);
    line.dst.copy_from_slice(&h[24..40]);
    // A header that is cut off makes all that is not an address worthless, as in OVS.
    let Some((proto, frag, l4)) = ipv6_extensions(bytes, at + 40, h[6]) else {
        return;
    };
    let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
    k.ipv6().label = U32::new(first & 0xf_ffff);
    k.key.base.nw_tos = (first >> 20) as u8;
    k.key.base.nw_ttl = h[7];
    k.key.base.nw_proto = proto;
    k.key.base.nw_frag = frag;
    transport(bytes, l4, proto, k, layers);
}

/// Walks the extension headers (RFC 8200 §4) and returns protocol, fragment bits and the offset of what follows; `None` if one
/// is cut off. The walk is bounded by the packet's length: each header takes 8 bytes or more.
fn ipv6_extensions(bytes: Bytes<'_>, mut at: usize, mut next: u8) -> Option<(u8, u8, usize)> {
    let mut frag = 0;
    loop {
        match next {
            // Hop-by-hop, routing, destination options. Mobility (RFC 6275) ends the chain, as in OVS: nothing follows it.
            0 | 43 | 60 => {
                let [following, len] = bytes.array::<2>(at)?;
                next = following;
                at += (usize::from(len) + 1) * 8;
            }
            // Authentication header: length in units of 4 bytes, minus 2 (RFC 4302 §2.2).
            51 => {
                let [following, len] = bytes.array::<2>(at)?;
                next = following;
                at += (usize::from(len) + 2) * 4;
            }
            44 => {
                let h = bytes.array::<8>(at)?;
                next = h[0];
                at += 8;
                let offset_and_more = u16::from_be_bytes([h[2], h[3]]);
                // An atomic fragment (RFC 6946) is not fragmented.
                if offset_and_more & 0xfff9 != 0 {
                    frag = FRAG_ANY;
                    if offset_and_more & 0xfff8 != 0 {
                        return Some((44, FRAG_ANY | FRAG_LATER, at));
                    }
                }
            }
            _ => return (at <= bytes.0.len()).then_some((next, frag, at)),
        }
    }
}

fn transport(bytes: Bytes<'_>, at: usize, proto: u8, k: &mut Key<'_>, layers: &mut Layers) {
    if k.key.base.nw_frag & FRAG_LATER != 0 {
        return;
    }
    let needed = match proto {
        PROTO_TCP => 20,
        PROTO_UDP | PROTO_ICMP | PROTO_IGMP | PROTO_ICMPV6 => 8,
        PROTO_SCTP => 12,
        _ => 0,
    };
    if !bytes.has(at, needed) {
        return;
    }
    layers.l4 = Some(at);
    let base = &mut k.key.base;
    match proto {
        // A data offset into the fixed header or behind the packet makes all of the header worthless, as in OVS.
        PROTO_TCP if !has_tcp_header(bytes, at) => {}
        PROTO_TCP | PROTO_UDP | PROTO_SCTP => {
            base.tp_src = U16::new(bytes.u16(at).unwrap_or_default());
            base.tp_dst = U16::new(bytes.u16(at + 2).unwrap_or_default());
            if proto == PROTO_TCP {
                base.tcp_flags = U16::new(bytes.u16(at + 12).unwrap_or_default() & 0xfff);
            }
        }
        PROTO_ICMP | PROTO_IGMP | PROTO_ICMPV6 => {
            let (kind, code) = (bytes.u8(at).unwrap_or_default(), bytes.u8(at + 1).unwrap_or_default());
            base.tp_src = U16::new(kind.into());
            base.tp_dst = U16::new(code.into());
            // RFC 4861 §4.3, §4.4: neighbour solicitation and advertisement.
            if proto == PROTO_ICMPV6 && code == 0 && (kind == 135 || kind == 136) {
                neighbour_discovery(bytes, at, k);
            }
        }
        _ => {}
    }
}

/// True if the data offset at `at` is that of a TCP header which is all there.
fn has_tcp_header(bytes: Bytes<'_>, at: usize) -> bool {
    let len = usize::from(bytes.u8(at + 12).unwrap_or(0) >> 4) * 4;
    len >= 20 && bytes.has(at, len)
}

fn neighbour_discovery(bytes: Bytes<'_>, at: usize, k: &mut Key<'_>) {
    let Some(reserved) = bytes.array::<4>(at + 4) else { return };
    k.misc().nd_reserved = U32::from_bytes(reserved);
    let Some(target) = bytes.array::<16>(at + 8) else { return };
    k.ipv6().nd_target = target;
    let mut option = at + 24;
    // Each option takes 8 bytes or more, or ends the walk. What was read before a malformed one stands, as in OVS.
    while bytes.has(option, 8) {
        let [kind, units] = bytes.array::<2>(option).unwrap_or_default();
        let len = usize::from(units) * 8;
        if len == 0 || !bytes.has(option, len) {
            return;
        }
        if len == 8 && (kind == 1 || kind == 2) {
            let address = bytes.array::<6>(option + 2).unwrap_or_default();
            let line = k.ipv6();
            let field = if kind == 1 { &mut line.arp_sha } else { &mut line.arp_tha };
            if *field != [0; 6] {
                // Two of one kind: neither is to be believed.
                (line.nd_target, line.arp_sha, line.arp_tha) = ([0; 16], [0; 6], [0; 6]);
                return;
            }
            *field = address;
            let misc = k.misc();
            if misc.nd_options_type == 0 {
                misc.nd_options_type = kind;
            }
        }
        option += len;
    }
}

fn arp(bytes: Bytes<'_>, at: usize, k: &mut Key<'_>) {
    let Some(h) = bytes.array::<28>(at) else { return };
    // Ethernet and IPv4 only (RFC 826).
    if h[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let base = &mut k.key.base;
    let opcode = u16::from_be_bytes([h[6], h[7]]);
    base.nw_proto = u8::try_from(opcode).unwrap_or(0);
    base.ipv4_src = [h[14], h[15], h[16], h[17]];
    base.ipv4_dst = [h[24], h[25], h[26], h[27]];
    let line = k.ipv6();
    line.arp_sha.copy_from_slice(&h[8..14]);
    line.arp_tha.copy_from_slice(&h[18..24]);
}

/// Up to three label stack entries; returns the offset behind the bottom of the stack if it is among them.
fn mpls(bytes: Bytes<'_>, at: usize, k: &mut Key<'_>) -> Option<usize> {
    for i in 0..3 {
        let lse = U32::from_bytes(bytes.array::<4>(at + 4 * i)?);
        k.misc().mpls[i] = lse;
        if lse.get() & 0x100 != 0 {
            return Some(at + 4 * (i + 1));
        }
    }
    None
}

fn nsh(bytes: Bytes<'_>, at: usize, k: &mut Key<'_>) {
    let Some(h) = bytes.array::<8>(at) else { return };
    // RFC 8300 §2.2: version 0, length in units of 4 bytes.
    let first = u16::from_be_bytes([h[0], h[1]]);
    let len = usize::from(first & 0x3f) * 4;
    let mdtype = h[2] & 15;
    let right_len = match mdtype {
        1 => len == 24,
        2 => len >= 8,
        _ => false,
    };
    if first >> 14 != 0 || !right_len || !bytes.has(at, len) {
        return;
    }
    let line = k.nsh();
    line.flags = ((first >> 12) & 3) as u8;
    line.ttl = ((first >> 6) & 63) as u8;
    line.mdtype = mdtype;
    line.np = h[3];
    line.path_hdr = U32::from_bytes([h[4], h[5], h[6], h[7]]);
    if mdtype == 1 {
        for i in 0..4 {
            line.context[i] = U32::from_bytes(bytes.array(at + 8 + 4 * i).unwrap_or_default());
        }
    }
}

#[inline(always)]
fn load64(bytes: &[u8; 42], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

/// Extracts the base line of the most frequent kind of packet; `None` when it is of another kind, and then nothing was changed.
///
/// The line is the same as [`extract`] would write, which a property test asserts.
#[inline(always)]
pub fn extract_base(packet: &mut Packet) -> Option<Line> {
    if packet.ext != 0 { None } else { base_line(packet) }
}

/// As [`extract_base`] for a packet whose rarer metadata, `ext`, is of a tunnel alone: writes the tunnel's line to `tunnel` too.
#[inline(always)]
pub fn extract_base_and_tunnel(packet: &mut Packet, ext: &Ext, tunnel: &mut TunnelLine) -> Option<Line> {
    if ext.lines != LINE_TUNNEL {
        return None;
    }
    let mut line = base_line(packet)?;
    line[7] |= u64::from(ext.skb_priority) << 32;
    *tunnel = ext.tunnel;
    Some(line)
}

#[inline(always)]
fn base_line(packet: &mut Packet) -> Option<Line> {
    if cfg!(target_endian = "big") || packet.flags.contains(PacketFlags::LAYER3) {
        return None;
    }
    let data = packet.data();
    // Ethernet, IPv4 without options, and 8 bytes of transport header.
    let h: &[u8; 42] = data.first_chunk()?;
    // EtherType, version and header length, in one comparison; then fragments.
    let head = load64(h, 8);
    // Bytes 12..15 of the frame: 08 00 45.
    if head >> 32 & 0xff_ffff != 0x45_0008 || u16::from_le_bytes([h[20], h[21]]) & 0xff3f != 0 {
        return None;
    }
    let total_len = usize::from(u16::from_be_bytes([h[16], h[17]]));
    let proto = h[23];
    let tcp_flags = match proto {
        PROTO_UDP if total_len >= 28 => 0,
        // The data offset in units of 4 bytes, as the TCP header's length must fit between 20 bytes and the packet's end.
        PROTO_TCP if data.len() >= 54 && data[46] >= 0x50 && 20 + usize::from(data[46] >> 4) * 4 <= total_len => {
            u64::from(data[46] & 15) | u64::from(data[47]) << 8
        }
        _ => return None,
    };
    if data.len() - 14 < total_len {
        return None;
    }
    let ttl_tos = u64::from(h[15]) << 8 | u64::from(h[22]) << 16;
    let line = [
        u64::from(packet.in_port) | u64::from(packet.recirc_id) << 32,
        load64(h, 0),
        // Source address and EtherType; no VLAN tag.
        head & 0xffff_ffff_ffff,
        u64::from(proto) | ttl_tos | tcp_flags << 32 | u64::from(packet.ct_zone) << 48,
        load64(h, 26),
        u64::from(u32::from_le_bytes([h[34], h[35], h[36], h[37]])) | u64::from(packet.dp_hash) << 32,
        u64::from(packet.ct_mark) | u64::from(packet.skb_mark) << 32,
        u64::from(packet.ct_state) << 16,
    ];
    packet.l2_5 = NONE;
    packet.l3 = 14;
    packet.l4 = 34;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Pool;
    use crate::testing::Frame;
    use proptest::prelude::*;

    fn frame(proto: u8, l4: &[u8], frag: u16) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0x10, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0];
        f.extend([10, 0, 0, 1, 20, 0, 0, 2]);
        f.extend(l4);
        let total = (f.len() - 14) as u16;
        f[16..18].copy_from_slice(&total.to_be_bytes());
        f[20..22].copy_from_slice(&frag.to_be_bytes());
        f
    }

    fn key_of(bytes: &[u8]) -> (FlowKey, u16, u16, u16) {
        let pool = Pool::new(1, 70_000, 64).unwrap();
        let mut p = pool.packet(bytes).unwrap();
        let key = extract_whole(&mut p, None, ExtractOptions::default()).unwrap();
        let at = (p.l2_5, p.l3, p.l4);
        pool.free(&mut p);
        (key, at.0, at.1, at.2)
    }

    #[test]
    fn udp_packet_has_its_five_tuple() {
        let (key, l2_5, l3, l4) = key_of(&frame(17, &[0x12, 0x34, 0, 53, 0, 8, 0, 0], 0));
        assert_eq!(key.base.ipv4_src, [10, 0, 0, 1]);
        assert_eq!((key.base.tp_src.get(), key.base.tp_dst.get()), (0x1234, 53));
        assert_eq!((key.base.nw_proto, key.base.nw_tos, key.base.nw_ttl), (17, 0x10, 64));
        assert_eq!((l2_5, l3, l4), (NONE, 14, 34));
    }

    #[test]
    fn later_fragment_has_no_ports() {
        let (key, .., l4) = key_of(&frame(17, &[0x12, 0x34, 0, 53, 0, 8, 0, 0], 0x2001));
        assert_eq!(key.base.nw_frag, FRAG_ANY | FRAG_LATER);
        assert_eq!((key.base.tp_src.get(), l4), (0, NONE));
    }

    #[test]
    fn total_length_beyond_the_packet_leaves_only_the_link_layer() {
        let mut f = frame(17, &[0; 8], 0);
        f[17] += 1;
        let (key, ..) = key_of(&f);
        assert_eq!((key.base.eth_type.get(), key.base.nw_proto), (ethernet::IPV4, 0));
    }

    #[test]
    fn tcp_header_whose_length_does_not_fit_shows_no_ports() {
        let mut l4 = [0u8; 24];
        (l4[1], l4[3], l4[13]) = (1, 2, 0x12);
        // In units of 4 bytes, of which there are 6.
        for (len, is_there) in [(0, false), (4, false), (5, true), (6, true), (7, false), (15, false)] {
            l4[12] = len << 4;
            let (key, .., l4) = key_of(&frame(6, &l4, 0));
            let expected = if is_there { (1, 2, 0x12) } else { (0, 0, 0) };
            let base = &key.base;
            assert_eq!((base.tp_src.get(), base.tp_dst.get(), base.tcp_flags.get()), expected, "{len}");
            assert_eq!((base.nw_proto, l4), (6, 34));
        }
    }

    #[test]
    fn icmpv6_header_has_eight_bytes() {
        let whole = Frame::new().eth([2; 6], [4; 6]).ipv6([1; 16], [2; 16]).icmpv6(1, 3, 0).build();
        assert_eq!((key_of(&whole).0.base.tp_src.get(), key_of(&whole).0.base.tp_dst.get()), (1, 3));
        let mut cut = whole[..whole.len() - 1].to_vec();
        cut[19] -= 1;
        let (key, .., l4) = key_of(&cut);
        assert_eq!((key.base.nw_proto, key.base.tp_src.get(), key.base.tp_dst.get(), l4), (58, 0, 0, NONE));
    }

    #[test]
    fn ipv6_whose_chain_is_cut_off_shows_only_addresses() {
        let mut f = Frame::udp6().tos(0x28).label(0x12345).build();
        f[20] = 60;
        f[55] = 200;
        let (key, ..) = key_of(&f);
        assert_eq!((&key.ipv6.src[..], &key.ipv6.dst[..]), (&f[22..38], &f[38..54]));
        assert_eq!((key.ipv6.label.get(), key.base.nw_tos, key.base.nw_ttl, key.base.nw_proto), (0, 0, 0, 0));
    }

    #[test]
    fn mobility_header_ends_the_chain() {
        let mut f = Frame::udp6().build();
        f[20] = 135;
        let (key, ..) = key_of(&f);
        assert_eq!((key.base.nw_proto, key.base.tp_src.get(), key.base.tp_dst.get()), (135, 0, 0));
    }

    #[test]
    fn neighbour_options_count_up_to_the_first_that_is_malformed_and_the_first_kind_is_told() {
        let with = |options: &[(u8, [u8; 6])]| {
            let message = Frame::new().eth([2; 6], [4; 6]).ipv6([1; 16], [2; 16]).neighbour_solicitation([3; 16]);
            options.iter().fold(message, |message, (kind, address)| message.link_option(*kind, *address)).build()
        };
        let told = |f: &[u8]| {
            let (key, ..) = key_of(f);
            (key.ipv6.nd_target, key.ipv6.arp_sha, key.ipv6.arp_tha, key.misc.nd_options_type)
        };
        let both = with(&[(2, [6; 6]), (1, [5; 6])]);
        assert_eq!(told(&both), ([3; 16], [5; 6], [6; 6], 2));
        let mut malformed = both.clone();
        let last = malformed.len() - 8;
        malformed[last + 1] = 0;
        assert_eq!(told(&malformed), ([3; 16], [0; 6], [6; 6], 2));
        // Two of one kind: who is to be believed?
        assert_eq!(told(&with(&[(1, [5; 6]), (1, [7; 6])])), ([0; 16], [0; 6], [0; 6], 1));
    }

    #[test]
    fn short_frame_is_refused() {
        let pool = Pool::new(1, 256, 64).unwrap();
        let mut p = pool.packet(&[0; 13]).unwrap();
        assert_eq!(extract_whole(&mut p, None, ExtractOptions::default()), Err(DropReason::RxInvalid));
        pool.free(&mut p);
    }

    proptest! {
        #[test]
        fn fast_path_agrees_with_the_full_parser(
            proto in prop_oneof![Just(6u8), Just(17u8), any::<u8>()],
            l4 in proptest::collection::vec(any::<u8>(), 0..40),
            frag in prop_oneof![Just(0u16), Just(0x4000), any::<u16>()],
            flips in proptest::collection::vec((0usize..60, any::<u8>()), 0..3),
            meta in any::<[u32; 6]>(),
        ) {
            let mut f = frame(proto, &l4, frag);
            for (at, v) in flips {
                if let Some(b) = f.get_mut(at) { *b = v; }
            }
            let pool = Pool::new(1, 2048, 64).unwrap();
            let mut p = pool.packet(&f).unwrap();
            (p.in_port, p.recirc_id, p.dp_hash) = (meta[0], meta[1], meta[2]);
            (p.skb_mark, p.ct_mark, p.ct_zone, p.ct_state) = (meta[3], meta[4], meta[5] as u16, (meta[5] >> 16) as u8);
            let fast = extract_base(&mut p);
            let offsets = (p.l2_5, p.l3, p.l4);
            let whole = extract_whole(&mut p, None, ExtractOptions::default()).unwrap();
            if let Some(line) = fast {
                prop_assert_eq!(line, whole.lines()[0]);
                prop_assert_eq!(whole.lines_used(), LINE_BASE);
                prop_assert_eq!(offsets, (p.l2_5, p.l3, p.l4));
            }
            pool.free(&mut p);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 14..200), ethertype in 0usize..7) {
            let mut bytes = bytes;
            let types = [0x0800u16, 0x86dd, 0x0806, 0x8847, 0x894f, 0x8100, 0x0010];
            bytes[12..14].copy_from_slice(&types[ethertype].to_be_bytes());
            let (_, l2_5, l3, l4) = key_of(&bytes);
            for at in [l2_5, l3, l4] {
                prop_assert!(at == NONE || usize::from(at) <= bytes.len());
            }
        }
    }
}
