//! `set` of header fields, whole or masked, with every checksum that covers them.
//!
//! Each function changes one header and does nothing to a packet that lacks it, as in OVS. Checksums are changed incrementally
//! (RFC 1624), never recomputed: one that was wrong on arrival is as wrong afterwards, so the receiver still notices. A first fragment holds
//! the transport checksum of its whole datagram and gets the same change; later fragments hold none.

use super::layers::{Segment, adjust, ethertype, ipv4_mut, ipv6_mut, pseudo_checksum_at, segment};
use super::{ethernet as eth, mpls, nsh};
use crate::flow::action::{Masked, SetField};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet};
use crate::wire::checksum::Delta;
use crate::wire::icmpv6::{self, LINK_OPTION_LEN, LinkOption, NEIGHBOUR_LEN, Neighbour};
use crate::wire::{arp as wire_arp, ethernet, icmp as wire_icmp, ip, ipv6 as wire_ipv6, sctp as wire_sctp, tcp, udp};
use zerocopy::FromBytes;

/// Carries out `field` on the packet's bytes. Fields of metadata (priority, marks, hash, recirculation id, tunnel) are not in the
/// bytes and are left to the executor.
///
/// # Errors
/// None today: a header that is not there is not set.
#[inline]
pub fn apply(packet: &mut Packet, field: &SetField) -> Result<(), DropReason> {
    match field {
        SetField::Priority(_)
        | SetField::SkbMark(_)
        | SetField::DpHash(_)
        | SetField::RecircId(_)
        | SetField::Tunnel(_) => {}
        SetField::Ethernet(addresses) => return eth::set_addresses_masked(packet, addresses),
        SetField::Ipv4 { src, dst, tos, ttl } => ipv4(packet, src, dst, *tos, *ttl),
        SetField::Ipv6 { src, dst, label, tclass, hlimit } => ipv6(packet, src, dst, *label, *tclass, *hlimit),
        SetField::Tcp { src, dst } => ports(packet, ip::TCP, *src, *dst),
        SetField::Udp { src, dst } => ports(packet, ip::UDP, *src, *dst),
        SetField::Sctp { src, dst } => sctp(packet, *src, *dst),
        SetField::Icmp { v6, kind, code } => icmp(packet, *v6, *kind, *code),
        SetField::Arp { sip, tip, op, sha, tha } => arp(packet, sip, tip, *op, sha, tha),
        SetField::Nd { target, sll, tll } => nd(packet, target, sll, tll),
        SetField::NdExtensions { reserved, options_type } => nd_extensions(packet, *reserved, *options_type),
        SetField::Mpls(lse) => return mpls::set(packet, *lse),
        SetField::Nsh { flags, ttl, path_hdr, context } => return nsh::set(packet, *flags, *ttl, *path_hdr, context),
    }
    Ok(())
}

/// Sets IPv4 fields and updates the header checksum, and the transport checksum if it covers the addresses.
#[inline]
pub fn ipv4(packet: &mut Packet, src: &Masked<[u8; 4]>, dst: &Masked<[u8; 4]>, tos: Masked<u8>, ttl: Masked<u8>) {
    let l4 = packet.l4;
    let Some((header, _)) = ipv4_mut(packet) else { return };
    if u32::from_ne_bytes(src.mask) | u32::from_ne_bytes(dst.mask) == 0 {
        // What OVS asks for instead of dec_ttl.
        let (new_tos, new_ttl) = (tos.apply(header.tos), ttl.apply(header.ttl));
        let delta = Delta::default()
            .word(header.tos.into(), new_tos.into())
            .word(u16::from(header.ttl) << 8, u16::from(new_ttl) << 8);
        header.checksum.set(delta.apply(header.checksum.get()));
        (header.tos, header.ttl) = (new_tos, new_ttl);
        return;
    }
    let (new_src, new_dst) = (src.apply(header.src), dst.apply(header.dst));
    let addresses = Delta::default()
        .word32(u32::from_be_bytes(header.src), u32::from_be_bytes(new_src))
        .word32(u32::from_be_bytes(header.dst), u32::from_be_bytes(new_dst));
    let readdressed = (header.src, header.dst) != (new_src, new_dst);
    let (new_tos, new_ttl) = (tos.apply(header.tos), ttl.apply(header.ttl));
    if !readdressed && (header.tos, header.ttl) == (new_tos, new_ttl) {
        return;
    }
    // Words as in the header: version and TOS, TTL and protocol. The other half of each stays the same.
    let all =
        addresses.word(header.tos.into(), new_tos.into()).word(u16::from(header.ttl) << 8, u16::from(new_ttl) << 8);
    header.checksum.set(all.apply(header.checksum.get()));
    (header.src, header.dst, header.tos, header.ttl) = (new_src, new_dst, new_tos, new_ttl);
    if readdressed && l4 != NONE {
        readdress(packet, addresses);
    }
}

/// Updates the transport checksum for a change of addresses.
fn readdress(packet: &mut Packet, addresses: Delta) {
    if let Some(Segment { proto, v6, bytes }) = segment(packet)
        && let Some(at) = pseudo_checksum_at(proto, v6, bytes.len())
    {
        adjust(bytes, at, proto, addresses);
    }
}

/// Sets IPv6 fields and updates the transport checksum for a change of addresses. Behind a routing header with segments left the
/// destination is not the one that the checksum covers (RFC 8200 §8.1), so that its change does not count.
#[inline]
pub fn ipv6(
    packet: &mut Packet,
    src: &Masked<[u8; 16]>,
    dst: &Masked<[u8; 16]>,
    label: Masked<u32>,
    tclass: Masked<u8>,
    hlimit: Masked<u8>,
) {
    let l4 = packet.l4;
    let Some(bytes) = ipv6_mut(packet) else { return };
    let is_routed = || wire_ipv6::walk(bytes).is_some_and(|upper| upper.is_routed);
    let Some(head) = bytes.first_chunk::<{ wire_ipv6::HEADER_LEN }>() else { return };
    let Ok((header, _)) = wire_ipv6::Header::ref_from_prefix(head) else { return };
    let (new_src, new_dst) = (src.apply(header.src), dst.apply(header.dst));
    let mut addresses = Delta::default();
    let mut covered = false;
    if new_src != header.src {
        addresses = addresses.bytes(&header.src, &new_src);
        covered = true;
    }
    if new_dst != header.dst && !is_routed() {
        addresses = addresses.bytes(&header.dst, &new_dst);
        covered = true;
    }
    let word = header.version_class_label.get();
    let new_label = label.apply(word & wire_ipv6::LABEL_MASK) & wire_ipv6::LABEL_MASK;
    let new_class = tclass.apply((word >> 20) as u8);
    let new_hop_limit = hlimit.apply(header.hop_limit);
    if let Ok((header, _)) = wire_ipv6::Header::mut_from_prefix(bytes) {
        (header.src, header.dst, header.hop_limit) = (new_src, new_dst, new_hop_limit);
        header.version_class_label.set(word & 0xf000_0000 | u32::from(new_class) << 20 | new_label);
    }
    if covered && l4 != NONE {
        readdress(packet, addresses);
    }
}

/// Sets the ports of a TCP or UDP header and updates its checksum.
#[inline]
pub fn ports(packet: &mut Packet, proto: u8, src: Masked<u16>, dst: Masked<u16>) {
    let Some(segment) = segment(packet).filter(|s| s.proto == proto) else { return };
    let at = match proto {
        ip::TCP => {
            let Ok((header, _)) = tcp::Header::ref_from_prefix(segment.bytes) else { return };
            if !(tcp::HEADER_LEN..=segment.bytes.len()).contains(&header.header_len()) {
                return;
            }
            tcp::CHECKSUM_AT
        }
        _ if segment.bytes.len() < udp::HEADER_LEN => return,
        _ => udp::CHECKSUM_AT,
    };
    let Some(old) = segment.bytes.first_chunk::<4>().copied() else { return };
    let new = new_ports(old, src, dst);
    if new != old {
        segment.bytes[..4].copy_from_slice(&new);
        let delta = Delta::default().word32(u32::from_be_bytes(old), u32::from_be_bytes(new));
        adjust(segment.bytes, at, proto, delta);
    }
}

#[inline(always)]
fn new_ports(old: [u8; 4], src: Masked<u16>, dst: Masked<u16>) -> [u8; 4] {
    let old = u32::from_be_bytes(old);
    let (src, dst) = (src.apply((old >> 16) as u16), dst.apply(old as u16));
    (u32::from(src) << 16 | u32::from(dst)).to_be_bytes()
}

/// Sets the ports of an SCTP header. The CRC32c changes by as much as the right one does, so a wrong one stays wrong. In a first fragment it
/// covers bytes that are elsewhere and cannot be updated: it ends up wrong, as in OVS.
#[inline]
pub fn sctp(packet: &mut Packet, src: Masked<u16>, dst: Masked<u16>) {
    let Some(segment) = segment(packet).filter(|s| s.proto == ip::SCTP) else { return };
    let (Some(before), Some(old)) = (wire_sctp::checksum(segment.bytes), segment.bytes.first_chunk::<4>().copied())
    else {
        return;
    };
    let new = new_ports(old, src, dst);
    if new == old {
        return;
    }
    segment.bytes[..4].copy_from_slice(&new);
    let after = wire_sctp::checksum(segment.bytes).unwrap_or(before);
    if let Ok((header, _)) = wire_sctp::Header::mut_from_prefix(segment.bytes) {
        header.checksum.set(header.checksum.get() ^ before ^ after);
    }
}

/// Sets type and code of an ICMP or ICMPv6 header and updates its checksum.
#[inline]
pub fn icmp(packet: &mut Packet, v6: bool, kind: Masked<u8>, code: Masked<u8>) {
    let proto = if v6 { ip::ICMPV6 } else { ip::ICMP };
    let Some(segment) = segment(packet).filter(|s| s.proto == proto && s.v6 == v6) else { return };
    if let Ok((header, _)) = wire_icmp::Header::mut_from_prefix(segment.bytes) {
        let old = [header.kind, header.code];
        (header.kind, header.code) = (kind.apply(header.kind), code.apply(header.code));
        let new = [header.kind, header.code];
        if new != old {
            header.checksum.set(Delta::default().bytes(&old, &new).apply(header.checksum.get()));
        }
    }
}

/// Sets the fields of an ARP or RARP packet for IPv4 over Ethernet.
#[inline]
pub fn arp(
    packet: &mut Packet,
    sip: &Masked<[u8; 4]>,
    tip: &Masked<[u8; 4]>,
    op: Masked<u16>,
    sha: &Masked<[u8; 6]>,
    tha: &Masked<[u8; 6]>,
) {
    if !matches!(ethertype(packet), ethernet::ARP | ethernet::RARP) {
        return;
    }
    let l3 = packet.l3 as usize;
    let bytes = packet.data_mut().get_mut(l3..);
    if let Some((arp, _)) = bytes.and_then(|b| wire_arp::Arp::mut_from_prefix(b).ok())
        && arp.is_ipv4_over_ethernet()
    {
        arp.sip = sip.apply(arp.sip);
        arp.tip = tip.apply(arp.tip);
        arp.op.set(op.apply(arp.op.get()));
        arp.sha = sha.apply(arp.sha);
        arp.tha = tha.apply(arp.tha);
    }
}

/// The segment of a neighbour solicitation or advertisement.
#[inline(always)]
fn neighbour(packet: &mut Packet) -> Option<&mut [u8]> {
    let Segment { proto, v6, bytes } = segment(packet)?;
    let (kind, code) = (*bytes.first()?, *bytes.get(1)?);
    let is_neighbour = matches!(kind, icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT);
    (v6 && proto == ip::ICMPV6 && is_neighbour && code == 0 && bytes.len() >= NEIGHBOUR_LEN).then_some(bytes)
}

/// Sets the target of a neighbour message and the address in the first link-layer option, if it has one of that kind, and updates the
/// checksum. Options of a solicitation are source, those of an advertisement target addresses.
#[inline]
pub fn nd(packet: &mut Packet, target: &Masked<[u8; 16]>, sll: &Masked<[u8; 6]>, tll: &Masked<[u8; 6]>) {
    let Some(bytes) = neighbour(packet) else { return };
    let Some((head, mut options)) = bytes.split_at_mut_checked(NEIGHBOUR_LEN) else { return };
    let Ok((message, _)) = Neighbour::mut_from_prefix(head) else { return };
    let new = target.apply(message.target);
    let mut delta = Delta::default().bytes(&message.target, &new);
    let mut changed = new != message.target;
    message.target = new;
    // Each option takes 8 bytes or more, or ends the walk.
    while let Ok((option, _)) = LinkOption::mut_from_prefix(&mut *options) {
        let address = match (option.units, option.kind) {
            (0, _) => break,
            (1, icmpv6::OPTION_SOURCE_LINK) => sll,
            (1, icmpv6::OPTION_TARGET_LINK) => tll,
            (units, _) => {
                let len = usize::from(units) * LINK_OPTION_LEN;
                let Some(rest) = options.get_mut(len..) else { break };
                options = rest;
                continue;
            }
        };
        let new = address.apply(option.address);
        delta = delta.bytes(&option.address, &new);
        changed |= new != option.address;
        option.address = new;
        break;
    }
    if changed {
        message.header.checksum.set(delta.apply(message.header.checksum.get()));
    }
}

/// Sets the reserved word of a neighbour message and the type of its first option, if it has one, and updates the checksum.
#[inline]
pub fn nd_extensions(packet: &mut Packet, reserved: Masked<u32>, options_type: Masked<u8>) {
    let Some(bytes) = neighbour(packet) else { return };
    let Some((head, options)) = bytes.split_at_mut_checked(NEIGHBOUR_LEN) else { return };
    let Ok((message, _)) = Neighbour::mut_from_prefix(head) else { return };
    let old = message.reserved.get();
    let new = reserved.apply(old);
    let mut delta = Delta::default().word32(old, new);
    let mut changed = new != old;
    message.reserved.set(new);
    if let Ok((option, _)) = LinkOption::mut_from_prefix(options) {
        let new = options_type.apply(option.kind);
        // The upper half of a word.
        delta = delta.word(u16::from(option.kind) << 8, u16::from(new) << 8);
        changed |= new != option.kind;
        option.kind = new;
    }
    if changed {
        message.header.checksum.set(delta.apply(message.header.checksum.get()));
    }
}
