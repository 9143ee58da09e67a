//! `dec_ttl`: decrementing TTL and hop limit.

use super::layers::{ethertype, ipv4_mut, ipv6_mut};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet};
use crate::wire::checksum::update16;
use crate::wire::ethernet;

/// EtherType, version and header length of the usual packet, as the upper three bytes.
const IPV4_WITHOUT_OPTIONS: u32 = (ethernet::IPV4 as u32) << 16 | 0x4500;

/// Decrements the TTL of an IPv4 packet and updates the header checksum, or the hop limit of an IPv6 packet. What is not IP, or
/// malformed, stays as it is.
///
/// # Errors
/// [`DropReason::TtlExpired`] if the value is 1 or 0: it would be forwarded with 0 (RFC 1812 §5.3.1, RFC 8200 §3).
#[inline(always)]
pub fn dec_ttl(packet: &mut Packet) -> Result<(), DropReason> {
    // From the EtherType to the end of the header; without an EtherType in front of it the offset is never inside the data.
    let (at, l2_5) = ((packet.l3 as usize).wrapping_sub(2), packet.l2_5);
    if let Some(h) = packet.data_mut().get_mut(at..).and_then(|d| d.first_chunk_mut::<22>())
        && u32::from_be_bytes([h[0], h[1], h[2], 0]) == IPV4_WITHOUT_OPTIONS
        && l2_5 == NONE
    {
        // As one number: TTL in the lowest byte, then protocol, then the checksum with its bytes swapped.
        let word = u32::from_le_bytes([h[10], h[11], h[12], h[13]]);
        if word & 0xff <= 1 {
            return Err(DropReason::TtlExpired);
        }
        // RFC 1624 for a word that falls by 0x0100 is ~(~HC + 0xfeff): HC + 0x0100 with end-around carry, where 0xffff becomes 0. Swapped,
        // 0x0100 is 1 (RFC 1071 §2(B)).
        let carry = u32::from(word >= 0xfffe_0000) << 16;
        let word = word.wrapping_add(0xffff + carry);
        [h[10], h[11], h[12], h[13]] = word.to_le_bytes();
        return Ok(());
    }
    dec_ttl_rare(packet)
}

/// Everything but IPv4 behind Ethernet.
#[inline(never)]
fn dec_ttl_rare(packet: &mut Packet) -> Result<(), DropReason> {
    match ethertype(packet) {
        ethernet::IPV6 => {
            // Byte 7 is the hop limit.
            if let Some(hop_limit) = ipv6_mut(packet).and_then(|h| h.get_mut(7)) {
                if *hop_limit <= 1 {
                    return Err(DropReason::TtlExpired);
                }
                *hop_limit -= 1;
            }
        }
        ethernet::IPV4 => {
            if let Some((header, _)) = ipv4_mut(packet) {
                if header.ttl <= 1 {
                    return Err(DropReason::TtlExpired);
                }
                let word = u16::from_be_bytes([header.ttl, header.proto]);
                header.checksum.set(update16(header.checksum.get(), word, word - 0x100));
                header.ttl -= 1;
            }
        }
        _ => {}
    }
    Ok(())
}
