//! Fragments of IP packets (RFC 791 §2.3, RFC 8200 §4.5), for what is too long for a tunnel's way. The slow path only: a packet becomes several
//! vectors.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::wire::{checksum, ip, ipv4, ipv6};

/// In an option's type: it goes into every fragment (RFC 791 §3.1).
const OPTION_COPIED: u8 = 0x80;
/// Options of one byte: the end of the list, and one that does nothing.
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;

/// Splits the IP packet that `bytes` are into fragments of at most `mtu` bytes. `id` tells the fragments of one IPv6 packet from another's.
///
/// `None` if that cannot be: the header is not right, nothing fits, the packet may not be split (IPv4's DF), or it is a fragment already (IPv6).
pub fn fragments(bytes: &[u8], mtu: usize, id: u32) -> Option<Vec<Vec<u8>>> {
    match bytes.first()? >> 4 {
        4 => fragments_v4(bytes, mtu),
        6 => fragments_v6(bytes, mtu, id),
        _ => None,
    }
}

fn fragments_v4(bytes: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let (header, _) = ipv4::Header::ref_from_prefix(bytes).ok()?;
    let packet = bytes.get(..header.total_len.get().into())?;
    let (head, data) =
        packet.split_at_checked(header.header_len()).filter(|(head, _)| head.len() >= ipv4::HEADER_LEN)?;
    let fragment = header.fragment.get();
    if fragment & ipv4::FLAG_DF != 0 {
        return None;
    }
    let later = head_of_later(head);
    let mut out = Vec::new();
    let mut at = 0;
    while at < data.len() || out.is_empty() {
        let head = if at == 0 { head } else { &later[..] };
        let (room, rest) = (mtu.checked_sub(head.len())?, data.len() - at);
        // All but the last have a multiple of 8 bytes.
        let is_last = rest <= room;
        let take = if is_last { rest } else { room / 8 * 8 };
        if take == 0 && !is_last {
            return None;
        }
        let part = &data[at..at + take];
        let mut one = [head, part].concat();
        let total = one.len() as u16;
        let Ok((h, _)) = ipv4::Header::mut_from_prefix(&mut one) else { return None };
        let offset = (fragment & ipv4::FRAGMENT_OFFSET_MASK) + (at / 8) as u16;
        if offset > ipv4::FRAGMENT_OFFSET_MASK {
            return None;
        }
        let more = if is_last { fragment & ipv4::FLAG_MF } else { ipv4::FLAG_MF };
        h.fragment.set(offset | more);
        h.total_len.set(total);
        h.checksum.set(0);
        let sum = checksum::of(&one[..head.len()]);
        one[10..12].copy_from_slice(&sum.to_be_bytes());
        at += part.len();
        out.push(one);
    }
    Some(out)
}

/// The header of all fragments but the first: with those options only that go into each.
fn head_of_later(head: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = head.split_at(ipv4::HEADER_LEN);
    let mut out = fixed.to_vec();
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest) {
            (OPTION_END, _) => break,
            (OPTION_NOP, _) => 1,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => usize::from(*len),
            _ => break,
        };
        let (option, after) = options.split_at(len);
        if kind & OPTION_COPIED != 0 {
            out.extend_from_slice(option);
        }
        options = after;
    }
    out.resize(out.len().next_multiple_of(4), OPTION_END);
    out[0] = 0x40 | (out.len() / 4) as u8;
    out
}

fn fragments_v6(bytes: &[u8], mtu: usize, id: u32) -> Option<Vec<Vec<u8>>> {
    let (header, _) = ipv6::Header::ref_from_prefix(bytes).ok()?;
    let packet = bytes.get(..ipv6::HEADER_LEN + usize::from(header.payload_len.get()))?;
    let (at, next_at) = unfragmentable(packet)?;
    let (head, data) = packet.split_at(at);
    let next = packet[next_at];
    let room = mtu.checked_sub(at + ipv6::FRAGMENT_LEN)? / 8 * 8;
    if room == 0 || data.is_empty() {
        return None;
    }
    let count = data.len().div_ceil(room).max(1);
    let mut out = Vec::with_capacity(count);
    for (number, part) in data.chunks(room).enumerate() {
        let more = u16::from(number + 1 < count);
        let offset = (number * room) as u16;
        let fragment =
            ipv6::Fragment { next_header: next, reserved: 0, offset_more: U16::new(offset | more), id: U32::new(id) };
        let mut one = [head, fragment.as_bytes(), part].concat();
        one[next_at] = ip::FRAGMENT;
        let payload = (one.len() - ipv6::HEADER_LEN) as u16;
        one[4..6].copy_from_slice(&payload.to_be_bytes());
        out.push(one);
    }
    Some(out)
}

/// Where the part ends that every fragment has in front (hop-by-hop options, a routing header and what is before it), and where its last "next
/// header" is. `None` for a packet that is a fragment.
fn unfragmentable(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut next_at, mut at) = (6, ipv6::HEADER_LEN);
    let mut end = (at, next_at);
    loop {
        let next = *packet.get(next_at)?;
        match next {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DESTINATION_OPTIONS => {
                let units = *packet.get(at + 1)?;
                next_at = at;
                at += (usize::from(units) + 1) * 8;
                if at > packet.len() {
                    return None;
                }
                // Destination options in front of a routing header are for every hop of it; behind it, for the destination only.
                if next != ip::DESTINATION_OPTIONS {
                    end = (at, next_at);
                }
            }
            ip::FRAGMENT => return None,
            _ => return Some(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Frame;
    use proptest::prelude::*;

    /// Puts fragments together again, as RFC 815 does.
    fn together(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut data = Vec::new();
        for part in parts {
            let (at, offset, more) = if part[0] >> 4 == 4 {
                let f = u16::from_be_bytes([part[6], part[7]]);
                (usize::from(part[0] & 15) * 4, usize::from(f & 0x1fff) * 8, f & 0x2000 != 0)
            } else {
                let (at, _) = unfragmentable_of_fragment(part);
                let f = u16::from_be_bytes([part[at + 2], part[at + 3]]);
                (at + 8, usize::from(f & 0xfff8), f & 1 != 0)
            };
            assert_eq!((data.len(), more), (offset, !core::ptr::eq(part, parts.last().unwrap())));
            data.extend_from_slice(&part[at..]);
        }
        data
    }

    /// Where the fragment header is.
    fn unfragmentable_of_fragment(part: &[u8]) -> (usize, u8) {
        let (mut next, mut at) = (part[6], 40);
        while next != ip::FRAGMENT {
            (next, at) = (part[at], at + (usize::from(part[at + 1]) + 1) * 8);
        }
        (at, part[at])
    }

    proptest! {
        #[test]
        fn fragments_fit_and_give_the_packet_again(len in 0usize..5000, mtu in 0usize..2000, v6: bool, options: bool) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let frame = if v6 { Frame::udp6() } else { Frame::udp4() };
            let mut packet = frame.payload(&payload).build()[14..].to_vec();
            let mut head = if v6 { 40 } else { 20 };
            if options && v6 {
                let next = packet[6];
                packet[6] = ip::HOP_BY_HOP;
                packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
                let payload = (packet.len() - 40) as u16;
                packet[4..6].copy_from_slice(&payload.to_be_bytes());
                head += 8;
            } else if options {
                // Router alert is copied, a timestamp is not.
                packet.splice(20..20, [0x94, 4, 0, 0, 0x44, 4, 5, 0]);
                packet[0] = 0x47;
                let total = packet.len() as u16;
                packet[2..4].copy_from_slice(&total.to_be_bytes());
                head += 8;
            }
            if !v6 {
                packet[6] = 0;
            }
            let data = packet[head..].to_vec();
            match fragments(&packet, mtu, 77) {
                Some(parts) => {
                    prop_assert!(parts.iter().all(|part| part.len() <= mtu));
                    prop_assert_eq!(together(&parts), data);
                    if !v6 {
                        for part in &parts {
                            let len = usize::from(part[0] & 15) * 4;
                            prop_assert_eq!(checksum::of(&part[..len]), 0);
                            prop_assert_eq!(usize::from(u16::from_be_bytes([part[2], part[3]])), part.len());
                            prop_assert!(!options || len == 24 || core::ptr::eq(part, &parts[0]));
                        }
                    }
                }
                None => {
                    let least = head + if v6 { 16 } else { 8 };
                    prop_assert!(mtu < least);
                }
            }
        }

        #[test]
        fn any_bytes_are_split_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), mtu in 0usize..100) {
            if let Some(parts) = fragments(&bytes, mtu, 1) {
                prop_assert!(parts.iter().all(|part| part.len() <= mtu));
            }
        }
    }

    #[test]
    fn what_may_not_be_split_is_not() {
        let mut packet = Frame::udp4().payload(&[1; 2000]).build()[14..].to_vec();
        packet[6] = 0x40;
        assert_eq!(fragments(&packet, 1500, 0), None);
        assert_eq!(fragments(&[], 1500, 0), None);
    }
}
