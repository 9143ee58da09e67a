//! A packet's bytes and where its headers are, and the actions that change them.
//!
//! An action goes by what the last lookup saw, as in OVS: positions move with what is pushed and popped, and only recirculation looks
//! again. A header that is not there, or not what it should be, is left alone.

use super::parse::parse;
use crate::flow::FlowKey;
use crate::flow::action::{Action, Masked, SetField};
use crate::packet::DropReason;
use crate::testing::checksums::naive_crc32c;

/// Bytes, and positions in them.
#[derive(Clone, Debug)]
pub struct Headers {
    bytes: Vec<u8>,
    /// The EtherType of what the packet starts with, if that is not an Ethernet header.
    starts_with: Option<u16>,
    mpls: Option<usize>,
    network: Option<usize>,
    transport: Option<usize>,
}

/// A transport header with its data, and what its checksum covers apart from it.
struct Segment {
    proto: u8,
    v6: bool,
    from: usize,
    to: usize,
}

impl Headers {
    /// A frame.
    pub fn new(bytes: Vec<u8>) -> Self {
        Headers { bytes, starts_with: None, mpls: None, network: None, transport: None }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, when they are not needed here any more.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }

    /// Parses the packet; its key without metadata, or `None` for what is no frame.
    pub fn look(&mut self) -> Option<FlowKey> {
        let parsed = parse(&self.bytes, self.starts_with)?;
        (self.mpls, self.network, self.transport) = (parsed.mpls, parsed.network, parsed.transport);
        Some(parsed.key)
    }

    fn insert(&mut self, at: usize, new: &[u8]) {
        self.bytes.splice(at..at, new.iter().copied());
    }

    /// Moves the positions at and behind `from` by what was inserted or removed there.
    fn shift(&mut self, added: isize) {
        for position in [&mut self.mpls, &mut self.network, &mut self.transport] {
            *position = position.and_then(|at| at.checked_add_signed(added));
        }
    }

    /// The EtherType of the network header; `None` if there is none, or a label stack is in front of it.
    fn ethertype(&self) -> Option<u16> {
        let at = self.network.filter(|_| self.mpls.is_none())?;
        match self.starts_with {
            Some(ethertype) if at == 0 => Some(ethertype),
            _ if at >= 14 => Some(u16::from_be_bytes(self.bytes.get(at - 2..at)?.try_into().ok()?)),
            _ => None,
        }
    }

    /// Where a sound IPv4 header begins, and its length.
    fn ipv4(&self) -> Option<(usize, usize)> {
        let at = self.network.filter(|_| self.ethertype() == Some(0x800))?;
        let header = self.bytes.get(at..at + 20)?;
        let len = usize::from(header[0] & 15) * 4;
        (header[0] >> 4 == 4 && len >= 20).then_some((at, len))
    }

    /// Where a sound IPv6 header begins, and where its payload ends.
    fn ipv6(&self) -> Option<(usize, usize)> {
        let at = self.network.filter(|_| self.ethertype() == Some(0x86dd))?;
        let header = self.bytes.get(at..at + 40)?;
        let end = at + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        (header[0] >> 4 == 6 && end <= self.bytes.len()).then_some((at, end))
    }

    fn segment(&self) -> Option<Segment> {
        let from = self.transport?;
        if let Some((at, len)) = self.ipv4() {
            let header = &self.bytes[at..];
            let to = at + usize::from(u16::from_be_bytes([header[2], header[3]]));
            let is_later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
            let fits = from == at + len && from <= to && to <= self.bytes.len();
            return (fits && !is_later).then_some(Segment { proto: header[9], v6: false, from, to });
        }
        let (at, to) = self.ipv6()?;
        let (mut proto, mut here) = (self.bytes[at + 6], at + 40);
        loop {
            let extension = self.bytes[..to].get(here..here + 8);
            let len = match (proto, extension) {
                (0 | 43 | 60 | 135, Some(e)) => 8 * (usize::from(e[1]) + 1),
                (51, Some(e)) => 4 * (usize::from(e[1]) + 2),
                (44, Some(e)) if u16::from_be_bytes([e[2], e[3]]) & 0xfff8 == 0 => 8,
                (0 | 43 | 60 | 135 | 51 | 44, _) => return None,
                _ => break,
            };
            (proto, here) = (extension?[0], here + len);
        }
        (here == from && from <= to).then_some(Segment { proto, v6: true, from, to })
    }

    /// Where the checksum of a segment that covers a pseudo-header is.
    fn pseudo_checksum(&self) -> Option<(usize, bool)> {
        let segment = self.segment()?;
        let len = segment.to - segment.from;
        match segment.proto {
            6 if len >= 20 => Some((segment.from + 16, false)),
            17 | 136 if len >= 8 => Some((segment.from + 6, true)),
            58 if segment.v6 && len >= 4 => Some((segment.from + 2, false)),
            _ => None,
        }
    }

    /// Changes the checksum at `at` for a change of what it covers.
    fn fix(&mut self, at: usize, is_udp: bool, old: &[u8], new: &[u8]) {
        let checksum = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        if is_udp && checksum == 0 {
            return;
        }
        let mut fixed = rfc1624(checksum, old, new);
        if is_udp && fixed == 0 {
            fixed = 0xffff;
        }
        self.bytes[at..at + 2].copy_from_slice(&fixed.to_be_bytes());
    }

    fn set_ipv4(&mut self, src: Masked<[u8; 4]>, dst: Masked<[u8; 4]>, tos: Masked<u8>, ttl: Masked<u8>) {
        let Some((at, _)) = self.ipv4() else { return };
        let transport = self.pseudo_checksum();
        let old: [u8; 20] = self.bytes[at..at + 20].try_into().unwrap_or_default();
        let mut new = old;
        (new[1], new[8]) = (tos.apply(old[1]), ttl.apply(old[8]));
        new[12..16].copy_from_slice(&src.apply([old[12], old[13], old[14], old[15]]));
        new[16..20].copy_from_slice(&dst.apply([old[16], old[17], old[18], old[19]]));
        self.bytes[at..at + 20].copy_from_slice(&new);
        self.fix(at + 10, false, &old, &new);
        if let Some((checksum, is_udp)) = transport.filter(|_| old[12..] != new[12..]) {
            self.fix(checksum, is_udp, &old[12..], &new[12..]);
        }
    }

    fn set_ipv6(&mut self, src: &Masked<[u8; 16]>, dst: &Masked<[u8; 16]>, label: Masked<u32>, rest: [Masked<u8>; 2]) {
        let Some((at, end)) = self.ipv6() else { return };
        let transport = self.pseudo_checksum();
        let old: [u8; 40] = self.bytes[at..at + 40].try_into().unwrap_or([0; 40]);
        let mut new = old;
        let first = u32::from_be_bytes([old[0], old[1], old[2], old[3]]);
        let class = rest[0].apply((first >> 20) as u8);
        let first = first & 0xf000_0000 | u32::from(class) << 20 | label.apply(first & 0xf_ffff) & 0xf_ffff;
        new[..4].copy_from_slice(&first.to_be_bytes());
        new[7] = rest[1].apply(old[7]);
        for (from, field) in [(8, src), (24, dst)] {
            let mut address = [0; 16];
            address.copy_from_slice(&old[from..from + 16]);
            new[from..from + 16].copy_from_slice(&field.apply(address));
        }
        let is_routed = routed(&self.bytes[at..end]);
        self.bytes[at..at + 40].copy_from_slice(&new);
        // RFC 8200 §8.1: with segments left the checksum covers the last of them, not this destination.
        let covered = if is_routed { 8..24 } else { 8..40 };
        if let Some((checksum, is_udp)) = transport.filter(|_| old[covered.clone()] != new[covered.clone()]) {
            self.fix(checksum, is_udp, &old[covered.clone()], &new[covered]);
        }
    }

    fn set_ports(&mut self, proto: u8, src: Masked<u16>, dst: Masked<u16>) {
        let Some(segment) = self.segment().filter(|s| s.proto == proto) else { return };
        let Segment { from, to, .. } = segment;
        let sound = match proto {
            6 => to - from >= 20 && (20..=to - from).contains(&(usize::from(self.bytes[from + 12] >> 4) * 4)),
            17 => to - from >= 8,
            _ => to - from >= 12,
        };
        if !sound {
            return;
        }
        let before = self.bytes[from..to].to_vec();
        let port = |at: usize, field: Masked<u16>| field.apply(u16::from_be_bytes([before[at], before[at + 1]]));
        self.bytes[from..from + 2].copy_from_slice(&port(0, src).to_be_bytes());
        self.bytes[from + 2..from + 4].copy_from_slice(&port(2, dst).to_be_bytes());
        let (old, new) = (before[..4].to_vec(), self.bytes[from..from + 4].to_vec());
        match proto {
            _ if old == new => {}
            6 => self.fix(from + 16, false, &old, &new),
            17 => self.fix(from + 6, true, &old, &new),
            _ => {
                // CRC32c is linear: it changes by what the right one changes by.
                let crc = |bytes: &[u8]| naive_crc32c(&[&bytes[..8], &[0; 4], &bytes[12..]].concat());
                let change = crc(&before) ^ crc(&self.bytes[from..to]);
                for (i, byte) in change.to_le_bytes().into_iter().enumerate() {
                    self.bytes[from + 8 + i] ^= byte;
                }
            }
        }
    }

    fn set_icmp(&mut self, v6: bool, kind: Masked<u8>, code: Masked<u8>) {
        let proto = if v6 { 58 } else { 1 };
        let Some(segment) = self.segment().filter(|s| s.proto == proto && s.v6 == v6) else { return };
        let from = segment.from;
        if segment.to - from < 8 {
            return;
        }
        let old = [self.bytes[from], self.bytes[from + 1]];
        let new = [kind.apply(old[0]), code.apply(old[1])];
        self.bytes[from..from + 2].copy_from_slice(&new);
        self.fix(from + 2, false, &old, &new);
    }

    fn dec_ttl(&mut self) -> Result<(), DropReason> {
        if let Some((at, _)) = self.ipv4() {
            let old = [self.bytes[at + 8], self.bytes[at + 9]];
            if old[0] <= 1 {
                return Err(DropReason::TtlExpired);
            }
            self.bytes[at + 8] -= 1;
            self.fix(at + 10, false, &old, &[old[0] - 1, old[1]]);
        } else if let Some((at, _)) = self.ipv6() {
            if self.bytes[at + 7] <= 1 {
                return Err(DropReason::TtlExpired);
            }
            self.bytes[at + 7] -= 1;
        }
        Ok(())
    }

    fn push_mpls(&mut self, lse: u32, ethertype: u16) -> Result<(), DropReason> {
        if !matches!(ethertype, 0x8847 | 0x8848) {
            return Ok(());
        }
        let at = self.mpls.or(self.network).filter(|&at| at <= self.bytes.len()).ok_or(DropReason::ActionHeader)?;
        match &mut self.starts_with {
            None if at < 14 => return Err(DropReason::ActionHeader),
            None => self.bytes[at - 2..at].copy_from_slice(&ethertype.to_be_bytes()),
            Some(starts_with) => *starts_with = ethertype,
        }
        self.insert(at, &lse.to_be_bytes());
        self.shift(4);
        self.mpls = Some(at);
        Ok(())
    }

    fn pop_mpls(&mut self, ethertype: u16) -> Result<(), DropReason> {
        let Some(at) = self.mpls else { return Ok(()) };
        let has_link = self.starts_with.is_none();
        if self.bytes.len() < at + 4 || has_link && at < 14 {
            return Err(DropReason::ActionHeader);
        }
        let is_bottom = self.bytes[at + 2] & 1 != 0;
        if has_link {
            self.bytes[at - 2..at].copy_from_slice(&ethertype.to_be_bytes());
        }
        self.bytes.drain(at..at + 4);
        self.shift(-4);
        self.mpls = (!is_bottom).then_some(at);
        if at == 0 {
            self.starts_with = (ethertype != 0x6558).then_some(ethertype);
            // An Ethernet header was taken for a network header.
            if self.starts_with.is_none() && self.network.is_some_and(|at| at < 14) {
                (self.network, self.transport) = (None, None);
            }
        }
        Ok(())
    }

    fn push_vlan(&mut self, tpid: u16, tci: u16) -> Result<(), DropReason> {
        if self.starts_with.is_some() || self.bytes.len() < 14 {
            return Err(DropReason::ActionHeader);
        }
        let tag = [tpid.to_be_bytes(), (tci & !0x1000).to_be_bytes()].concat();
        self.insert(12, &tag);
        self.shift(4);
        Ok(())
    }

    fn pop_vlan(&mut self) {
        if self.starts_with.is_none()
            && self.bytes.len() >= 18
            && matches!(self.bytes[12..14], [0x81, 0] | [0x88, 0xa8])
        {
            self.bytes.drain(12..16);
            self.shift(-4);
        }
    }

    fn push_eth(&mut self, dst: [u8; 6], src: [u8; 6]) -> Result<(), DropReason> {
        let ethertype = self.starts_with.take().ok_or(DropReason::ActionHeader)?;
        self.insert(0, &[&dst[..], &src, &ethertype.to_be_bytes()].concat());
        self.shift(14);
        Ok(())
    }

    fn pop_eth(&mut self) -> Result<(), DropReason> {
        let at = self.mpls.or(self.network).filter(|&at| at >= 14 && at <= self.bytes.len());
        let at = at.filter(|_| self.starts_with.is_none()).ok_or(DropReason::ActionHeader)?;
        self.starts_with = Some(u16::from_be_bytes([self.bytes[at - 2], self.bytes[at - 1]]));
        self.bytes.drain(..at);
        self.shift(-(at as isize));
        Ok(())
    }

    fn set_ethernet(&mut self, addresses: &Masked<[u8; 12]>) {
        if let Some(old) = self.bytes.first_chunk_mut::<12>().filter(|_| self.starts_with.is_none()) {
            *old = addresses.apply(*old);
        }
    }

    fn set_mpls(&mut self, lse: Masked<u32>) {
        if let Some(entry) = self.mpls.and_then(|at| self.bytes.get_mut(at..at + 4)) {
            let old = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            entry.copy_from_slice(&lse.apply(old).to_be_bytes());
        }
    }
}

/// RFC 1624 equation 3, over those words that change.
fn rfc1624(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
    let mut sum = u32::from(!checksum);
    for (old, new) in old.chunks(2).zip(new.chunks(2)).filter(|(old, new)| old != new) {
        sum += u32::from(!word(old)) + u32::from(word(new));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// True if an IPv6 packet has a routing header with segments left.
fn routed(packet: &[u8]) -> bool {
    let (mut next, mut at) = (packet[6], 40);
    while let Some(e) = packet.get(at..at + 8) {
        match next {
            43 if e[3] != 0 => return true,
            0 | 43 | 60 | 135 => at += 8 * (usize::from(e[1]) + 1),
            51 => at += 4 * (usize::from(e[1]) + 2),
            44 if u16::from_be_bytes([e[2], e[3]]) & 0xfff8 == 0 => at += 8,
            _ => return false,
        }
        next = e[0];
    }
    false
}

/// Carries out what `action` does to the bytes, if anything.
pub fn change(packet: &mut Headers, action: &Action) -> Result<(), DropReason> {
    match action {
        Action::PushVlan { tpid, tci } => return packet.push_vlan(*tpid, *tci),
        Action::PopVlan => packet.pop_vlan(),
        Action::PushMpls { lse, ethertype } => return packet.push_mpls(*lse, *ethertype),
        Action::PopMpls { ethertype } => return packet.pop_mpls(*ethertype),
        Action::PushEth { dst, src } => return packet.push_eth(*dst, *src),
        Action::PopEth => return packet.pop_eth(),
        Action::DecTtl => return packet.dec_ttl(),
        Action::Set(SetField::Ethernet(addresses)) => packet.set_ethernet(addresses),
        Action::Set(SetField::Ipv4 { src, dst, tos, ttl }) => packet.set_ipv4(*src, *dst, *tos, *ttl),
        Action::Set(SetField::Ipv6 { src, dst, label, tclass, hlimit }) => {
            packet.set_ipv6(src, dst, *label, [*tclass, *hlimit]);
        }
        Action::Set(SetField::Tcp { src, dst }) => packet.set_ports(6, *src, *dst),
        Action::Set(SetField::Udp { src, dst }) => packet.set_ports(17, *src, *dst),
        Action::Set(SetField::Sctp { src, dst }) => packet.set_ports(132, *src, *dst),
        Action::Set(SetField::Icmp { v6, kind, code }) => packet.set_icmp(*v6, *kind, *code),
        Action::Set(SetField::Mpls(lse)) => packet.set_mpls(*lse),
        _ => {}
    }
    Ok(())
}
