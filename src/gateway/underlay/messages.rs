//! The packets that a gateway itself answers and sends: ARP (RFC 826), neighbour discovery (RFC 4861), ICMP (RFC 792, RFC 4443).
//!
//! All functions are of bytes alone. What comes in is hostile: whatever a receiver must check is checked here, and `None` is the answer to
//! all that is not right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::wire::arp::{self, Arp};
use crate::wire::checksum::{self, Sum, pseudo_v6};
use crate::wire::icmpv6::{
    NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_LEN, NEIGHBOUR_SOLICITATION, Neighbour, OPTION_SOURCE_LINK, OPTION_TARGET_LINK,
};
use crate::wire::{ethernet, icmp, icmpv6, ip, ipv4, ipv6};

/// Group address of all nodes (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The shortest Ethernet frame without its check sequence.
const FRAME_MIN: usize = 60;
/// ICMP "fragmentation needed and DF set".
pub(super) const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMPv6 "packet too big".
pub(super) const PACKET_TOO_BIG: u8 = 2;
/// In an advertisement: the sender is a router.
const ROUTER: u32 = 1 << 31;
/// In an advertisement: it answers a solicitation.
const SOLICITED: u32 = 1 << 30;
/// In an advertisement: it counts against an address that was known.
const OVERRIDE: u32 = 1 << 29;
/// The shortest MTU of IPv6 (RFC 8200 §5): what an ICMPv6 error must not exceed.
pub(super) const MTU_MIN_V6: usize = 1280;
/// What an ICMP error must not exceed (RFC 1812 §4.3.2.3).
const ERROR_MAX_V4: usize = 576;

/// The link layer of a frame that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Source address.
    pub src: [u8; 6],
    /// VLAN number of the tag, if there is to be one.
    pub vlan: Option<u16>,
}

impl Link {
    /// The header of a frame to `dst`.
    pub fn header(self, dst: [u8; 6], ethertype: u16) -> Vec<u8> {
        let mut frame = [dst, self.src].concat();
        if let Some(vlan) = self.vlan {
            frame.extend(ethernet::VLAN.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    fn frame(self, dst: [u8; 6], ethertype: u16, payload: &[&[u8]]) -> Vec<u8> {
        let mut frame = self.header(dst, ethertype);
        payload.iter().for_each(|part| frame.extend_from_slice(part));
        if frame.len() < FRAME_MIN {
            frame.resize(FRAME_MIN, 0);
        }
        frame
    }
}

/// Who asks for, or tells, a link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its IP address; unspecified if it only looks whether an address is free (RFC 5227 §2.1.1, RFC 4862 §5.4).
    pub ip: IpAddr,
    /// Its link-layer address; `None` where a message does not have to say it.
    pub mac: Option<[u8; 6]>,
}

/// A message of ARP or of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`?
    Question {
        /// Who wants to know.
        sender: Sender,
        /// Of whom.
        target: IpAddr,
    },
    /// `target` is at `mac`.
    Answer {
        /// Whose address.
        target: IpAddr,
        /// What it is, if it is said.
        mac: Option<[u8; 6]>,
        /// It is a router.
        router: bool,
        /// It was asked for by the receiver.
        solicited: bool,
        /// It counts against an address that was known.
        overriding: bool,
    },
}

impl Message {
    /// True for a message by which a host tells all others its own address: a gratuitous ARP request or reply (RFC 5227 §3), an unsolicited
    /// advertisement.
    pub fn is_announcement(&self) -> bool {
        match self {
            Message::Question { sender, target } => sender.ip == *target,
            Message::Answer { solicited, .. } => !solicited,
        }
    }
}

/// An ARP message (`bytes` begin behind the Ethernet header).
pub fn read_arp(bytes: &[u8]) -> Option<Message> {
    let (arp, _) = Arp::ref_from_prefix(bytes).ok()?;
    if !arp.is_ipv4_over_ethernet() {
        return None;
    }
    let [sip, tip] = [arp.sip, arp.tip].map(|address| IpAddr::from(Ipv4Addr::from(address)));
    match arp.op.get() {
        arp::REQUEST => Some(Message::Question { sender: Sender { ip: sip, mac: Some(arp.sha) }, target: tip }),
        // The sender tells its own address; a reply to itself is gratuitous.
        arp::REPLY => Some(Message::Answer {
            target: sip,
            mac: Some(arp.sha),
            router: false,
            solicited: sip != tip,
            overriding: true,
        }),
        _ => None,
    }
}

/// An ARP request for `target`: to all, or to the host that had it at `mac`.
pub fn arp_request(link: Link, sender: Ipv4Addr, target: Ipv4Addr, mac: Option<[u8; 6]>) -> Vec<u8> {
    let arp = arp_of(arp::REQUEST, (link.src, sender), ([0; 6], target));
    link.frame(mac.unwrap_or([0xff; 6]), ethernet::ARP, &[arp.as_bytes()])
}

/// The ARP reply that tells `to`, at the address behind it, that `ip` is at `mac`.
pub fn arp_reply(link: Link, (mac, ip): ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    link.frame(to.0, ethernet::ARP, &[arp_of(arp::REPLY, (mac, ip), to).as_bytes()])
}

/// A gratuitous ARP request (RFC 5227 §3: an announcement): all hosts that know `ip` learn that it is at the link's own address.
pub fn arp_announcement(link: Link, ip: Ipv4Addr) -> Vec<u8> {
    link.frame([0xff; 6], ethernet::ARP, &[arp_of(arp::REQUEST, (link.src, ip), ([0; 6], ip)).as_bytes()])
}

fn arp_of(op: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Arp {
    Arp {
        hardware: U16::new(1),
        protocol: U16::new(ethernet::IPV4),
        hardware_len: 6,
        protocol_len: 4,
        op: U16::new(op),
        sha: sender.0,
        sip: sender.1.octets(),
        tha: target.0,
        tip: target.1.octets(),
    }
}

/// The IPv6 packet that `bytes` begin with, without what is behind it; its header and its ICMPv6 message, whose checksum is right.
pub(super) fn icmpv6_of(bytes: &[u8]) -> Option<(&ipv6::Header, &[u8])> {
    let (header, rest) = ipv6::Header::ref_from_prefix(bytes).ok()?;
    let message = rest.get(..header.payload_len.get().into())?;
    let sum = pseudo_v6(&header.src, &header.dst, ip::ICMPV6, message.len() as u32).bytes(message);
    (header.version_class_label.get() >> 28 == 6 && header.next_header == ip::ICMPV6 && sum.finish() == 0)
        .then_some((header, message))
}

/// A message of neighbour discovery (`bytes` begin with the IPv6 header), if a receiver may believe it (RFC 4861 §7.1).
pub fn read_nd(bytes: &[u8]) -> Option<Message> {
    let (header, message) = icmpv6_of(bytes)?;
    let (nd, options) = Neighbour::ref_from_prefix(message).ok()?;
    let target = Ipv6Addr::from(nd.target);
    // Whoever can reach the link from outside cannot keep the hop limit at 255.
    if header.hop_limit != 255 || nd.header.code != 0 || target.is_multicast() {
        return None;
    }
    let link = |wanted| link_option(options, wanted);
    let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
    match nd.header.kind {
        NEIGHBOUR_SOLICITATION => {
            let mac = link(OPTION_SOURCE_LINK)?;
            // Who has no address yet says no link-layer address, and asks the target's group.
            let is_probe = src.is_unspecified();
            if src.is_multicast() || is_probe && (mac.is_some() || dst != solicited_node(target)) {
                return None;
            }
            Some(Message::Question { sender: Sender { ip: src.into(), mac }, target: target.into() })
        }
        NEIGHBOUR_ADVERTISEMENT => {
            let flags = nd.reserved.get();
            let solicited = flags & SOLICITED != 0;
            if dst.is_multicast() && solicited {
                return None;
            }
            let mac = link(OPTION_TARGET_LINK)?;
            let (router, overriding) = (flags & ROUTER != 0, flags & OVERRIDE != 0);
            Some(Message::Answer { target: target.into(), mac, router, solicited, overriding })
        }
        _ => None,
    }
}

/// The link-layer address that an option of type `wanted` has, if there is one; `None` where the options are not well-formed.
fn link_option(mut options: &[u8], wanted: u8) -> Option<Option<[u8; 6]>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        // RFC 4861 §4.6: a length of 0 makes the whole message void.
        if units == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if kind == wanted && units == 1 {
            found = found.or(option[2..].first_chunk().copied());
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The group that `address` listens to for questions (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// A neighbour solicitation for `target`: to its group, or to the host that had it at `mac`.
pub fn nd_solicitation(link: Link, sender: Ipv6Addr, target: Ipv6Addr, mac: Option<[u8; 6]>) -> Vec<u8> {
    let group = solicited_node(target);
    let (to, mac) = mac.map_or((group, group_mac(group)), |mac| (target, mac));
    nd(link, mac, (sender, to), (NEIGHBOUR_SOLICITATION, 0, target), (OPTION_SOURCE_LINK, link.src))
}

/// The advertisement that tells `to`, at the address behind it, that `ip` is at `mac`. Without `to` it tells all: that answers one who has no
/// address yet, and announces a new one.
pub fn nd_advertisement(link: Link, (mac, ip): ([u8; 6], Ipv6Addr), to: Option<([u8; 6], Ipv6Addr)>) -> Vec<u8> {
    let flags = OVERRIDE | if to.is_some() { SOLICITED } else { 0 };
    let (to_mac, to) = to.unwrap_or((group_mac(ALL_NODES), ALL_NODES));
    nd(link, to_mac, (ip, to), (NEIGHBOUR_ADVERTISEMENT, flags, ip), (OPTION_TARGET_LINK, mac))
}

/// The advertisement by which somebody else tells `to` that `ip`, a router or not, is at `mac`. It does not count against what the host itself
/// says (RFC 4861 §7.2.8).
pub fn nd_advertisement_for(
    link: Link,
    (mac, ip): ([u8; 6], Ipv6Addr),
    (to_mac, to): ([u8; 6], Ipv6Addr),
    router: bool,
) -> Vec<u8> {
    let flags = SOLICITED | if router { ROUTER } else { 0 };
    nd(link, to_mac, (ip, to), (NEIGHBOUR_ADVERTISEMENT, flags, ip), (OPTION_TARGET_LINK, mac))
}

fn nd(
    link: Link,
    mac: [u8; 6],
    (src, dst): (Ipv6Addr, Ipv6Addr),
    (kind, flags, target): (u8, u32, Ipv6Addr),
    (option, address): (u8, [u8; 6]),
) -> Vec<u8> {
    let header = icmpv6::Header { kind, code: 0, checksum: U16::ZERO };
    let mut message = [0; NEIGHBOUR_LEN + icmpv6::LINK_OPTION_LEN];
    let nd = Neighbour { header, reserved: U32::new(flags), target: target.octets() };
    message[..NEIGHBOUR_LEN].copy_from_slice(nd.as_bytes());
    message[NEIGHBOUR_LEN..].copy_from_slice(icmpv6::LinkOption { kind: option, units: 1, address }.as_bytes());
    link.frame(mac, ethernet::IPV6, &[&ipv6_of(src, dst, &mut message, 255), &message])
}

/// The IPv6 header in front of an ICMPv6 message, which gets its checksum.
fn ipv6_of(src: Ipv6Addr, dst: Ipv6Addr, message: &mut [u8], hop_limit: u8) -> [u8; ipv6::HEADER_LEN] {
    let header = ipv6::Header {
        version_class_label: U32::new(6 << 28),
        payload_len: U16::new(message.len() as u16),
        next_header: ip::ICMPV6,
        hop_limit,
        src: src.octets(),
        dst: dst.octets(),
    };
    message[icmpv6::CHECKSUM_AT..][..2].fill(0);
    let sum = pseudo_v6(&header.src, &header.dst, ip::ICMPV6, message.len() as u32).bytes(message);
    message[icmpv6::CHECKSUM_AT..][..2].copy_from_slice(&sum.finish().to_be_bytes());
    zerocopy::transmute!(header)
}

/// The reply to the echo request in the IP packet that `bytes` begin with, as a frame to `mac`; `None` if it is none, or one that nobody
/// answers: to or from a group, or a fragment.
pub fn echo_reply(link: Link, mac: [u8; 6], bytes: &[u8]) -> Option<Vec<u8>> {
    match bytes.first()? >> 4 {
        4 => {
            let (header, _) = ipv4::Header::ref_from_prefix(bytes).ok()?;
            let packet = bytes.get(..header.total_len.get().into())?;
            let message = packet.get(header.header_len()..)?;
            let (request, data) = icmp::Header::ref_from_prefix(message).ok()?;
            let is_answered = header.proto == ip::ICMP
                && header.header_len() >= ipv4::HEADER_LEN
                && !header.is_fragment()
                && is_host(header.src.into())
                && is_host(header.dst.into())
                && (request.kind, request.code) == (icmp::ECHO_REQUEST, 0)
                && checksum::of(message) == 0;
            if !is_answered {
                return None;
            }
            let mut reply = icmp::Header { kind: icmp::ECHO_REPLY, checksum: U16::ZERO, ..*request };
            reply.checksum.set(Sum::default().bytes(reply.as_bytes()).bytes(data).finish());
            let ip = ipv4_of(header.dst, header.src, message.len());
            Some(link.frame(mac, ethernet::IPV4, &[ip.as_bytes(), reply.as_bytes(), data]))
        }
        6 => {
            let (header, message) = icmpv6_of(bytes)?;
            let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
            if message.len() < 8
                || message[..2] != [icmpv6::ECHO_REQUEST, 0]
                || !is_host(src.into())
                || !is_host(dst.into())
            {
                return None;
            }
            let mut reply = message.to_vec();
            reply[0] = icmpv6::ECHO_REPLY;
            let ip = ipv6_of(dst, src, &mut reply, 64);
            Some(link.frame(mac, ethernet::IPV6, &[&ip, &reply]))
        }
        _ => None,
    }
}

/// The header in front of `len` bytes of ICMP.
fn ipv4_of(src: [u8; 4], dst: [u8; 4], len: usize) -> ipv4::Header {
    let mut header = ipv4::Header {
        version_ihl: 0x45,
        tos: 0,
        total_len: U16::new((ipv4::HEADER_LEN + len) as u16),
        id: U16::ZERO,
        fragment: U16::new(ipv4::FLAG_DF),
        ttl: 64,
        proto: ip::ICMP,
        checksum: U16::ZERO,
        src,
        dst,
    };
    header.checksum.set(checksum::of(header.as_bytes()));
    header
}

/// True for an address that a single host may have.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_unspecified() && !a.is_multicast() && !a.is_broadcast() && a.octets()[0] != 0,
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_multicast(),
    }
}

/// The ICMP error that tells the sender of a packet that at most `mtu` bytes get through: "fragmentation needed" (RFC 1191 §4), "packet too
/// big" (RFC 4443 §3.2). `bytes` begin with the IP header; the answer does so too. Its source is the packet's own destination: what a switch
/// between two hosts of one network has no address for, both know. `None` where no error may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4), or
/// where the sender allows fragments.
pub fn too_big(bytes: &[u8], mtu: u32) -> Option<Vec<u8>> {
    match bytes.first()? >> 4 {
        4 => {
            let (header, _) = ipv4::Header::ref_from_prefix(bytes).ok()?;
            let len = header.header_len();
            let is_error = header.proto == ip::ICMP && bytes.get(len).is_none_or(|kind| !is_icmp_query(*kind));
            let may_answer = len >= ipv4::HEADER_LEN
                && header.fragment.get() & ipv4::FLAG_DF != 0
                && !header.is_later_fragment()
                && is_host(header.src.into())
                && is_host(header.dst.into())
                && !is_error;
            if !may_answer {
                return None;
            }
            let quoted = &bytes[..bytes.len().min(ERROR_MAX_V4 - ipv4::HEADER_LEN - icmp::HEADER_LEN)];
            let mut error = icmp::Header {
                kind: icmp::DESTINATION_UNREACHABLE,
                code: FRAGMENTATION_NEEDED,
                checksum: U16::ZERO,
                rest: U32::new(mtu & 0xffff),
            };
            error.checksum.set(Sum::default().bytes(error.as_bytes()).bytes(quoted).finish());
            let ip = ipv4_of(header.dst, header.src, icmp::HEADER_LEN + quoted.len());
            Some([ip.as_bytes(), error.as_bytes(), quoted].concat())
        }
        6 => {
            let (header, _) = ipv6::Header::ref_from_prefix(bytes).ok()?;
            let upper = ipv6::walk(bytes)?;
            // Informational messages have the upper bit of their type.
            let is_error = upper.proto == ip::ICMPV6 && bytes.get(upper.at).is_none_or(|kind| kind & 0x80 == 0);
            let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
            if is_error || upper.is_later_fragment || !is_host(src.into()) || !is_host(dst.into()) {
                return None;
            }
            let quoted = &bytes[..bytes.len().min(MTU_MIN_V6 - ipv6::HEADER_LEN - 8)];
            let mut message = vec![PACKET_TOO_BIG, 0, 0, 0];
            message.extend(mtu.to_be_bytes());
            message.extend_from_slice(quoted);
            let ip = ipv6_of(dst, src, &mut message, 64);
            Some([&ip[..], &message].concat())
        }
        _ => None,
    }
}

/// True for ICMP messages that are no errors.
const fn is_icmp_query(kind: u8) -> bool {
    // Echo, router discovery, timestamp, information, address mask, extended echo.
    matches!(kind, 0 | 8..=10 | 13..=18 | 42 | 43)
}

#[cfg(test)]
mod tests;
