//! Finishing what a Linux host left to its network card.
//!
//! Virtual links (veth, tap, bridges) carry packets between hosts unfinished, because between kernels nobody minds: layer-4
//! checksums that cover only the pseudo-header, and TCP or UDP packets of up to 64 KiB that a card would have cut. A switch
//! that forwards such packets as they are is blamed for the loss, since every receiver drops them. So the drivers that
//! take packets off such links complete checksums ([`complete`], [`complete_if_partial`]) and cut ([`Segments`]) here.

use crate::wire::checksum::{self, Sum};
use crate::wire::{ethernet, ip, ipv4, ipv6, sctp, tcp, udp};

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

fn put_u16(bytes: &mut [u8], at: usize, n: u16) {
    bytes[at..at + 2].copy_from_slice(&n.to_be_bytes());
}

/// Where the headers of a TCP, UDP or SCTP packet stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    l3: usize,
    is_ipv6: bool,
    l4: usize,
    protocol: u8,
    /// End of the IP packet; Ethernet padding may follow.
    end: usize,
}

/// Finds the headers; `None` for whatever is not an unfragmented, whole IP packet behind at most two VLAN tags. With
/// `is_long` the IP length field is not believed (senders of long packets leave it 0 past 64 KiB) and the frame's end is taken.
fn layout(frame: &[u8], is_long: bool) -> Option<Layout> {
    let mut l3 = ethernet::HEADER_LEN;
    let mut ethertype = u16_at(frame, 12)?;
    for _ in 0..2 {
        if ethernet::is_vlan(ethertype) {
            ethertype = u16_at(frame, l3 + 2)?;
            l3 += 4;
        }
    }
    let bytes = frame.get(l3..)?;
    match (ethertype, bytes.first()? >> 4) {
        (ethernet::IPV4, 4) => {
            let header_len = usize::from(bytes[0] & 15) * 4;
            let total = if is_long { bytes.len() } else { usize::from(u16_at(bytes, 2)?) };
            let is_fragment = u16_at(bytes, 6)? & (ipv4::FLAG_MF | ipv4::FRAGMENT_OFFSET_MASK) != 0;
            let is_whole =
                header_len >= ipv4::HEADER_LEN && header_len <= total && total <= bytes.len() && !is_fragment;
            let protocol = *bytes.get(9)?;
            is_whole.then_some(Layout { l3, is_ipv6: false, l4: l3 + header_len, protocol, end: l3 + total })
        }
        (ethernet::IPV6, 6) => {
            let end = if is_long { bytes.len() } else { ipv6::HEADER_LEN + usize::from(u16_at(bytes, 4)?) };
            let upper = ipv6::walk(bytes.get(..end)?)?;
            // Behind a routing header the pseudo-header has another destination than the packet.
            let is_plain = !upper.is_fragment && !upper.is_routed;
            let (l4, protocol) = (l3 + upper.at, upper.proto);
            is_plain.then_some(Layout { l3, is_ipv6: true, l4, protocol, end: l3 + end })
        }
        _ => None,
    }
}

impl Layout {
    /// The folded sum of the pseudo-header: what a sender leaves in the checksum field for a card to start from.
    fn pseudo_sum(&self, frame: &[u8], l4_len: usize) -> u16 {
        let addresses = if self.is_ipv6 { self.l3 + 8..self.l3 + 40 } else { self.l3 + 12..self.l3 + 20 };
        let sum = Sum::default().bytes(&frame[addresses]).word(self.protocol.into());
        !sum.word((l4_len >> 16) as u16).word(l4_len as u16).finish()
    }
}

/// Completes a checksum whose field, `offset` bytes behind `start`, holds the sum of the pseudo-header: sums everything from
/// `start` on. False, and nothing changes, if the field does not lie in the frame.
pub(super) fn complete(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let at = start + offset;
    if at + 2 > frame.len() {
        return false;
    }
    // SCTP is the one protocol with another kind of checksum, and the one whose checksum is at 8.
    if offset == sctp::CHECKSUM_AT && layout(frame, false).is_some_and(|l| l.protocol == ip::SCTP && l.l4 == start) {
        return complete_sctp(frame, start);
    }
    let checksum = checksum::of(&frame[start..]);
    // Only UDP minds which of the two zeros it is, and only UDP has its checksum at 6.
    let checksum = if offset == udp::CHECKSUM_AT { checksum::udp_sent(checksum) } else { checksum };
    put_u16(frame, at, checksum);
    true
}

fn complete_sctp(frame: &mut [u8], start: usize) -> bool {
    let at = start + sctp::CHECKSUM_AT;
    let Some(field) = frame.get_mut(at..at + 4) else { return false };
    field.fill(0);
    let crc = checksum::crc32c(&frame[start..]);
    // RFC 9260 appendix A: least significant byte first.
    frame[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    true
}

/// Completes the checksum of a TCP, UDP or SCTP packet whose field holds exactly what a sender leaves there for a card. True if it
/// did.
///
/// For links that do not tell (AF_XDP on veth). One finished packet in 65 536 looks unfinished; its checksum is computed to
/// what it was already, unless it was wrong. Only headers are read to find out.
pub(super) fn complete_if_partial(frame: &mut [u8]) -> bool {
    let Some(layout) = layout(frame, false) else { return false };
    let offset = match layout.protocol {
        ip::TCP => tcp::CHECKSUM_AT,
        ip::UDP => udp::CHECKSUM_AT,
        ip::SCTP if frame.get(layout.l4 + 8..layout.l4 + 12) == Some(&[0; 4]) && layout.l4 + 12 <= layout.end => {
            return complete_sctp(&mut frame[..layout.end], layout.l4);
        }
        _ => return false,
    };
    let at = layout.l4 + offset;
    let Some(field) = u16_at(&frame[..layout.end], at) else { return false };
    let expected = layout.pseudo_sum(frame, layout.end - layout.l4);
    // Zero and all ones are the same number; but an empty UDP field means that there is no checksum.
    let is_partial = if field == 0 { layout.protocol == ip::TCP && expected == 0xffff } else { field == expected };
    is_partial && complete(&mut frame[..layout.end], layout.l4, offset)
}

/// How a long packet is to be cut into those that it stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments {
    layout: Layout,
    header_len: usize,
    payload_len: usize,
    segment_len: usize,
    is_ecn: bool,
}

impl Segments {
    /// Reads the headers of a TCP or UDP packet whose payload is to be cut every `segment_len` bytes. `l4` is where the sender says
    /// that the layer-4 header is; a packet in which it is elsewhere (a tunnelled one) is refused.
    pub(super) fn plan(frame: &[u8], l4: usize, segment_len: usize, is_ecn: bool) -> Option<Self> {
        let layout = layout(frame, true)?;
        let l4_len = match layout.protocol {
            ip::TCP => usize::from(frame.get(layout.l4 + 12)? >> 4) * 4,
            ip::UDP => 8,
            _ => return None,
        };
        let header_len = layout.l4 + l4_len;
        let minimum = if layout.protocol == ip::TCP { 20 } else { 8 };
        if layout.l4 != l4 || l4_len < minimum || header_len > layout.end || segment_len == 0 {
            return None;
        }
        let payload_len = layout.end - header_len;
        Some(Segments { layout, header_len, payload_len, segment_len, is_ecn })
    }

    /// How many packets it becomes.
    pub(super) fn count(&self) -> usize {
        self.payload_len.div_ceil(self.segment_len).max(1)
    }

    /// Length of packet `i`.
    pub(super) fn len(&self, i: usize) -> usize {
        self.header_len + self.segment_len.min(self.payload_len.saturating_sub(i * self.segment_len))
    }

    /// Writes packet `i` of `frame`, from which this plan was made, into `out`, which has the length that [`Segments::len`] says.
    pub(super) fn write(&self, frame: &[u8], i: usize, out: &mut [u8]) {
        let Layout { l3, is_ipv6, l4, protocol, .. } = self.layout;
        let from = self.header_len + i * self.segment_len;
        let payload_len = out.len() - self.header_len;
        out[..self.header_len].copy_from_slice(&frame[..self.header_len]);
        out[self.header_len..].copy_from_slice(&frame[from..from + payload_len]);

        if is_ipv6 {
            put_u16(out, l3 + 4, (out.len() - l3 - 40) as u16);
        } else {
            let id = u16::from_be_bytes([out[l3 + 4], out[l3 + 5]]).wrapping_add(i as u16);
            put_u16(out, l3 + 2, (out.len() - l3) as u16);
            put_u16(out, l3 + 4, id);
            put_u16(out, l3 + 10, 0);
            let checksum = checksum::of(&out[l3..l4]);
            put_u16(out, l3 + 10, checksum);
        }

        let offset = if protocol == ip::TCP {
            let [a, b, c, d] = [out[l4 + 4], out[l4 + 5], out[l4 + 6], out[l4 + 7]];
            let sequence = u32::from_be_bytes([a, b, c, d]).wrapping_add((i * self.segment_len) as u32);
            out[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
            let (is_first, is_last) = (i == 0, i + 1 == self.count());
            if !is_last {
                out[l4 + 13] &= !0x09; // FIN and PSH belong to the end of the data.
            }
            if self.is_ecn && !is_first {
                out[l4 + 13] &= !0x80; // RFC 3168 §6.1.2: CWR is said once.
            }
            tcp::CHECKSUM_AT
        } else {
            put_u16(out, l4 + 4, (out.len() - l4) as u16);
            udp::CHECKSUM_AT
        };
        let pseudo = self.layout.pseudo_sum(out, out.len() - l4);
        put_u16(out, l4 + offset, pseudo);
        complete(out, l4, offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet as a sender leaves it for a card: the checksum field holds the sum of the pseudo-header.
    fn unfinished(is_ipv6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut l4 = vec![0x30, 0x39, 0, 80];
        match protocol {
            ip::TCP => l4.extend([0, 0, 1, 0, 0, 0, 0, 7, 0x60, 0x99, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]),
            ip::UDP => l4.extend([((8 + payload.len()) >> 8) as u8, (8 + payload.len()) as u8, 0, 0]),
            _ => l4.extend([0; 8]),
        }
        l4.extend(payload);
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if is_ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, (l4.len() >> 8) as u8, l4.len() as u8, protocol, 64]);
            frame.extend((0..32).map(|i| i * 7));
        } else {
            let len = 20 + l4.len();
            frame.extend([8, 0, 0x45, 0, (len >> 8) as u8, len as u8, 1, 2, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = checksum::of(&frame[14..34]);
            put_u16(&mut frame, 24, checksum);
        }
        frame.extend(&l4);
        let layout = layout(&frame, false).unwrap();
        let pseudo = layout.pseudo_sum(&frame, l4.len());
        match protocol {
            ip::TCP => put_u16(&mut frame, layout.l4 + tcp::CHECKSUM_AT, pseudo),
            ip::UDP => put_u16(&mut frame, layout.l4 + udp::CHECKSUM_AT, pseudo),
            _ => {}
        }
        frame
    }

    /// What a receiver computes: pseudo-header and everything, which must be zero.
    fn is_correct(frame: &[u8]) -> bool {
        let layout = layout(frame, false).unwrap();
        let l4 = &frame[layout.l4..layout.end];
        let ip_is_correct = layout.is_ipv6 || checksum::of(&frame[layout.l3..layout.l4]) == 0;
        ip_is_correct && Sum::default().word(layout.pseudo_sum(frame, l4.len())).bytes(l4).finish() == 0
    }

    #[test]
    fn an_unfinished_sctp_packet_gets_its_crc() {
        let mut frame = unfinished(false, ip::SCTP, b"chunk of data");
        assert!(complete_if_partial(&mut frame));
        let sent: [u8; 4] = frame[42..46].try_into().unwrap();
        frame[42..46].fill(0);
        assert_eq!(u32::from_le_bytes(sent), checksum::crc32c(&frame[34..]));
    }

    #[test]
    fn udp_without_checksum_and_fragments_are_left_alone() {
        let mut frame = unfinished(false, ip::UDP, b"payload");
        put_u16(&mut frame, 40, 0);
        assert!(!complete_if_partial(&mut frame));
        let mut frame = unfinished(false, ip::UDP, b"payload");
        frame[20] = 0x20;
        assert!(!complete_if_partial(&mut frame));
    }

    #[test]
    fn segments_add_up_to_the_long_packet() {
        for is_ipv6 in [false, true] {
            for protocol in [ip::TCP, ip::UDP] {
                let payload: Vec<u8> = (0..3001u32).map(|i| i as u8).collect();
                let frame = unfinished(is_ipv6, protocol, &payload);
                let l4 = layout(&frame, false).unwrap().l4;
                let plan = Segments::plan(&frame, l4, 1000, true).unwrap();
                assert_eq!(plan.count(), 4);
                let mut joined = Vec::new();
                for i in 0..4 {
                    let mut out = vec![0; plan.len(i)];
                    plan.write(&frame, i, &mut out);
                    assert!(is_correct(&out), "IPv6 {is_ipv6}, protocol {protocol}, segment {i}");
                    if protocol == ip::TCP {
                        let sequence = u32::from_be_bytes(out[l4 + 4..l4 + 8].try_into().unwrap());
                        assert_eq!(sequence, 256 + 1000 * i as u32);
                        let flags = [0x90, 0x10, 0x10, 0x19][i];
                        assert_eq!(out[l4 + 13], flags, "segment {i}");
                    }
                    joined.extend_from_slice(&out[plan.header_len..]);
                }
                assert_eq!(joined, payload);
                assert!(Segments::plan(&frame, l4 + 2, 1000, false).is_none());
                assert!(Segments::plan(&frame, l4, 0, false).is_none());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)))]

        #[test]
        fn unfinished_packets_become_correct_and_stay_so(
            is_ipv6: bool, tcp: bool, padding in 0usize..9, payload in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            let mut frame = unfinished(is_ipv6, if tcp { ip::TCP } else { ip::UDP }, &payload);
            let len = frame.len();
            frame.resize(len + padding, 0x55);
            prop_assert!(complete_if_partial(&mut frame));
            prop_assert!(is_correct(&frame));
            let finished = frame.clone();
            complete_if_partial(&mut frame);
            prop_assert_eq!(&frame, &finished);
        }

        #[test]
        fn arbitrary_frames_never_panic(
            start in proptest::sample::select(vec![vec![8u8, 0, 0x45], vec![0x86, 0xdd, 0x60], vec![0x81, 0, 0, 1, 8, 0, 0x46]]),
            rest in proptest::collection::vec(any::<u8>(), 0..90), at in 0usize..120, offset in 0usize..40, segment_len in 0usize..99
        ) {
            let mut frame = vec![0; 12];
            frame.extend(start);
            frame.extend(rest);
            complete_if_partial(&mut frame);
            complete(&mut frame, at, offset);
            for l4 in 0..frame.len() {
                if let Some(plan) = Segments::plan(&frame, l4, segment_len, true) {
                    for i in 0..plan.count() {
                        plan.write(&frame, i, &mut vec![0; plan.len(i)]);
                    }
                }
            }
        }
    }
}
