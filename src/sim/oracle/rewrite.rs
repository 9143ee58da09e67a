//! What actions do to a packet's bytes. Checksums are computed from scratch, before and after.
//!
//! *A wrong checksum stays as wrong as it was* (the engine updates by RFC 1624, so that a receiver still notices what happened on the way).
//! The oracle measures by how much each checksum is off before a change and puts the right one plus that error there afterwards. This
//! also serves first fragments, whose checksum covers bytes that are elsewhere.

use super::parcel::Parcel;
use super::parse::{self, Chain};
use crate::flow::action::{Masked, SetField};
use crate::packet::DropReason;
use crate::testing::checksums::{naive, naive_crc32c};

/// A checksum, by how much it is off, and what it should be.
struct Check {
    at: usize,
    kind: Kind,
    right: u32,
    error: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The Internet checksum.
    Internet,
    /// The same, sent as all ones for a zero (RFC 768).
    Udp,
    /// CRC32c, least significant byte first.
    Crc,
}

/// The modulus of one's-complement arithmetic with 16 bits.
const ONES: u32 = 0xffff;

impl Check {
    fn new(bytes: &[u8], at: usize, kind: Kind, right: u32) -> Check {
        let error = match kind {
            Kind::Crc => u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) ^ right,
            _ => (u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])) + ONES - right) % ONES,
        };
        Check { at, kind, right, error }
    }

    fn store(&self, bytes: &mut [u8], right: u32) {
        match self.kind {
            Kind::Crc => bytes[self.at..self.at + 4].copy_from_slice(&(right ^ self.error).to_le_bytes()),
            kind => {
                let mut value = ((right + self.error) % ONES) as u16;
                if kind == Kind::Udp && value == 0 {
                    value = 0xffff;
                }
                bytes[self.at..self.at + 2].copy_from_slice(&value.to_be_bytes());
            }
        }
    }
}

/// Every checksum of the packet that is in its place.
fn checks(parcel: &Parcel) -> Vec<Check> {
    let mut checks = Vec::new();
    let bytes = &parcel.bytes;
    if let Some(at) = ipv4_header(parcel) {
        let len = usize::from(bytes[at] & 15) * 4;
        let header = &bytes[at..bytes.len().min(at + len)];
        checks.push(Check::new(bytes, at + 10, Kind::Internet, sum(&[header], at + 10 - at)));
    }
    if let Some(segment) = segment(parcel) {
        let data = &bytes[segment.at..segment.end];
        let pseudo = segment.pseudo.as_slice();
        let (field, kind, pseudo) = match segment.proto {
            6 => (16, Kind::Internet, pseudo),
            17 | 136 if data.len() >= 8 => (6, Kind::Udp, pseudo),
            58 if segment.is_v6 => (2, Kind::Internet, pseudo),
            1 if !segment.is_v6 => (2, Kind::Internet, &[][..]),
            132 => {
                let mut zeroed = data.to_vec();
                zeroed[8..12].fill(0);
                checks.push(Check::new(bytes, segment.at + 8, Kind::Crc, naive_crc32c(&zeroed)));
                return checks;
            }
            _ => return checks,
        };
        let has_none = kind == Kind::Udp && data[field..field + 2] == [0, 0];
        if !has_none {
            checks.push(Check::new(bytes, segment.at + field, kind, sum(&[pseudo, data], pseudo.len() + field)));
        }
    }
    checks
}

/// The checksum over `parts` together, with the two bytes at `field` taken as zero.
fn sum(parts: &[&[u8]], field: usize) -> u32 {
    let mut all = parts.concat();
    all[field..field + 2].fill(0);
    naive(&all).into()
}

/// Changes bytes in place, and the checksums that cover them.
fn change(parcel: &mut Parcel, change: impl FnOnce(&mut [u8])) {
    let before = checks(parcel);
    change(&mut parcel.bytes);
    for (before, now) in before.iter().zip(checks(parcel)) {
        if before.right != now.right {
            before.store(&mut parcel.bytes, now.right);
        }
    }
}

/// A transport header with its data.
struct Segment {
    proto: u8,
    is_v6: bool,
    at: usize,
    end: usize,
    /// The pseudo-header that checksums begin with. A destination that is not the last one counts as zero: whatever it is in truth does not
    /// change.
    pseudo: Vec<u8>,
}

/// The segment that the last look saw.
fn segment(parcel: &Parcel) -> Option<Segment> {
    let at = parcel.marks.transport?;
    let bytes = &parcel.bytes;
    if let Some(ip) = parcel.network(0x0800) {
        let end = ip + usize::from(parcel.u16_at(ip + 2)?);
        let proto = bytes[ip + 9];
        let mut pseudo = bytes[ip + 12..ip + 20].to_vec();
        pseudo.extend([0, proto]);
        pseudo.extend(((end - at) as u16).to_be_bytes());
        return Some(Segment { proto, is_v6: false, at, end, pseudo });
    }
    let (ip, end, chain) = ipv6_header(parcel)?;
    let chain = chain?;
    let mut pseudo = bytes[ip + 8..ip + 24].to_vec();
    pseudo.extend(if chain.is_routed { [0; 16].to_vec() } else { bytes[ip + 24..ip + 40].to_vec() });
    pseudo.extend(((end - at) as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, chain.proto]);
    Some(Segment { proto: chain.proto, is_v6: true, at, end, pseudo })
}

/// An IPv4 header that can be set: the fixed part is there. Lengths that do not fit the packet do not matter for it.
fn ipv4_header(parcel: &Parcel) -> Option<usize> {
    let at = parcel.network(0x0800)?;
    let header = parcel.bytes.get(at..at + 20)?;
    (header[0] >> 4 == 4 && header[0] & 15 >= 5).then_some(at)
}

/// An IPv6 header whose payload is all there: where it begins, where the payload ends, and the chain of headers if that is whole.
fn ipv6_header(parcel: &Parcel) -> Option<(usize, usize, Option<Chain>)> {
    let at = parcel.network(0x86dd)?;
    let rest = &parcel.bytes[at..];
    if rest.len() < 40 || rest[0] >> 4 != 6 {
        return None;
    }
    let len = 40 + usize::from(u16::from_be_bytes([rest[4], rest[5]]));
    let packet = rest.get(..len)?;
    Some((at, at + len, parse::chain(packet)))
}

/// `field = (field & !mask) | (value & mask)`, bit by bit.
fn masked(field: &mut [u8], value: &[u8], mask: &[u8]) {
    for ((field, value), mask) in field.iter_mut().zip(value).zip(mask) {
        *field = *field & !mask | value & mask;
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, m: &Masked<[u8; N]>) {
    masked(&mut bytes[at..at + N], &m.value, &m.mask);
}

fn put8(bytes: &mut [u8], at: usize, m: Masked<u8>) {
    masked(&mut bytes[at..at + 1], &[m.value], &[m.mask]);
}

fn put16(bytes: &mut [u8], at: usize, m: Masked<u16>) {
    masked(&mut bytes[at..at + 2], &m.value.to_be_bytes(), &m.mask.to_be_bytes());
}

fn put32(bytes: &mut [u8], at: usize, m: Masked<u32>) {
    masked(&mut bytes[at..at + 4], &m.value.to_be_bytes(), &m.mask.to_be_bytes());
}

/// `set` of fields in the packet. A header that is not there is not set.
pub fn set(parcel: &mut Parcel, field: &SetField) {
    match field {
        SetField::Ethernet(addresses) if parcel.layer3.is_none() && parcel.bytes.len() >= 12 => {
            put(&mut parcel.bytes, 0, addresses);
        }
        SetField::Ipv4 { src, dst, tos, ttl } => {
            let Some(at) = ipv4_header(parcel) else { return };
            change(parcel, |bytes| {
                put8(bytes, at + 1, *tos);
                put8(bytes, at + 8, *ttl);
                put(bytes, at + 12, src);
                put(bytes, at + 16, dst);
            });
        }
        SetField::Ipv6 { src, dst, label, tclass, hlimit } => {
            let Some((at, ..)) = ipv6_header(parcel) else { return };
            let word = |m: &Masked<u32>, bits: u32| Masked { value: m.value & bits, mask: m.mask & bits };
            let class = Masked { value: u32::from(tclass.value) << 20, mask: u32::from(tclass.mask) << 20 };
            change(parcel, |bytes| {
                put32(bytes, at, word(label, 0xf_ffff));
                put32(bytes, at, class);
                put8(bytes, at + 7, *hlimit);
                put(bytes, at + 8, src);
                put(bytes, at + 24, dst);
            });
        }
        SetField::Tcp { src, dst } => ports(parcel, 6, *src, *dst),
        SetField::Udp { src, dst } => ports(parcel, 17, *src, *dst),
        SetField::Sctp { src, dst } => ports(parcel, 132, *src, *dst),
        SetField::Icmp { v6, kind, code } => {
            let proto = if *v6 { 58 } else { 1 };
            let Some(segment) = segment(parcel).filter(|s| (s.proto, s.is_v6) == (proto, *v6)) else { return };
            change(parcel, |bytes| {
                put8(bytes, segment.at, *kind);
                put8(bytes, segment.at + 1, *code);
            });
        }
        SetField::Arp { sip, tip, op, sha, tha } => {
            let Some(at) = parcel.network(0x0806).or(parcel.network(0x8035)) else { return };
            if parcel.bytes.len() < at + 28 || parcel.bytes[at..at + 6] != [0, 1, 8, 0, 6, 4] {
                return;
            }
            put16(&mut parcel.bytes, at + 6, *op);
            put(&mut parcel.bytes, at + 8, sha);
            put(&mut parcel.bytes, at + 14, sip);
            put(&mut parcel.bytes, at + 18, tha);
            put(&mut parcel.bytes, at + 24, tip);
        }
        SetField::Nd { target, sll, tll } => {
            let Some(segment) = neighbour(parcel) else { return };
            change(parcel, |bytes| {
                put(bytes, segment.at + 8, target);
                link_address(&mut bytes[segment.at + 24..segment.end], sll, tll);
            });
        }
        SetField::NdExtensions { reserved, options_type } => {
            let Some(segment) = neighbour(parcel) else { return };
            change(parcel, |bytes| {
                put32(bytes, segment.at + 4, *reserved);
                if segment.end - segment.at >= 24 + 8 {
                    put8(bytes, segment.at + 24, *options_type);
                }
            });
        }
        SetField::Mpls(lse) => {
            if let Some(at) = parcel.marks.labels.filter(|at| parcel.bytes.len() >= at + 4) {
                put32(&mut parcel.bytes, at, *lse);
            }
        }
        SetField::Nsh { flags, ttl, path_hdr, context } => {
            let Some(at) = parcel.network(0x894f).filter(|at| parse::is_nsh(&parcel.bytes[*at..])) else { return };
            let bytes = &mut parcel.bytes;
            let first = |m: &Masked<u8>, shift: u32, bits: u16| Masked {
                value: u16::from(m.value) << shift & bits,
                mask: u16::from(m.mask) << shift & bits,
            };
            put16(bytes, at, first(flags, 12, 0x3000));
            put16(bytes, at, first(ttl, 6, 0x0fc0));
            put32(bytes, at + 4, *path_hdr);
            if bytes[at + 2] & 15 == 1 {
                put(bytes, at + 8, context);
            }
        }
        // Metadata, see `actions`.
        _ => {}
    }
}

/// Sets the ports of a header that shows them: a TCP header with a nonsensical data offset does not.
fn ports(parcel: &mut Parcel, proto: u8, src: Masked<u16>, dst: Masked<u16>) {
    let Some(segment) = segment(parcel).filter(|s| s.proto == proto) else { return };
    let offset = usize::from(parcel.bytes[segment.at..segment.end].get(12).map_or(0, |b| b >> 4)) * 4;
    if proto == 6 && !(20..=segment.end - segment.at).contains(&offset) {
        return;
    }
    change(parcel, |bytes| {
        put16(bytes, segment.at, src);
        put16(bytes, segment.at + 2, dst);
    });
}

/// A whole neighbour solicitation or advertisement.
fn neighbour(parcel: &Parcel) -> Option<Segment> {
    let segment = segment(parcel).filter(|s| s.is_v6 && s.proto == 58)?;
    let message = &parcel.bytes[segment.at..segment.end];
    (message.len() >= 24 && matches!(message[0], 135 | 136) && message[1] == 0).then_some(segment)
}

/// Sets the address in the first link-layer address option: a message can have one.
fn link_address(mut options: &mut [u8], sll: &Masked<[u8; 6]>, tll: &Masked<[u8; 6]>) {
    while options.len() >= 8 && options[1] != 0 {
        match (options[0], options[1]) {
            (1, 1) => return put(options, 2, sll),
            (2, 1) => return put(options, 2, tll),
            (_, units) => {
                let len = (usize::from(units) * 8).min(options.len());
                options = &mut options[len..];
            }
        }
    }
}

/// Decrements TTL or hop limit; what is not IP stays as it is.
///
/// # Errors
/// [`DropReason::TtlExpired`] if it is 1 or 0.
pub fn dec_ttl(parcel: &mut Parcel) -> Result<(), DropReason> {
    let at = match (ipv4_header(parcel), ipv6_header(parcel)) {
        (Some(at), _) => at + 8,
        (_, Some((at, ..))) => at + 7,
        _ => return Ok(()),
    };
    if parcel.bytes[at] <= 1 {
        return Err(DropReason::TtlExpired);
    }
    change(parcel, |bytes| bytes[at] -= 1);
    Ok(())
}
