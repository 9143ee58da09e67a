//! `dec_ttl`: decrementing TTL and hop limit.

use super::layers::{ethertype, ipv4_mut, ipv6_mut};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet};
use crate::wire::checksum::update16;
use crate::wire::ethernet;

/// Decrements the TTL of an IPv4 packet and updates the header checksum, or the hop limit of an IPv6 packet. What is not IP, or
/// malformed, stays as it is.
///
/// # Errors
/// [`DropReason::TtlExpired`] if the value is 1 or 0: it would be forwarded with 0 (RFC 1812 §5.3.1, RFC 8200 §3).
#[inline(always)]
pub fn dec_ttl(packet: &mut Packet) -> Result<(), DropReason> {
    // From the EtherType to the checksum; an absent offset or a layer-3 packet's is never inside the data.
    let at = (packet.l3 as usize).wrapping_sub(2);
    let (l2_5, link) = (packet.l2_5, packet.l3 as usize >= ethernet::HEADER_LEN);
    if let Some(h) = packet.data_mut().get_mut(at..).and_then(|d| d.first_chunk_mut::<22>())
        && [h[0], h[1]] == ethernet::IPV4.to_be_bytes()
        && (0x45..0x50).contains(&h[2])
        && l2_5 == NONE
        && link
    {
        if h[10] <= 1 {
            return Err(DropReason::TtlExpired);
        }
        // RFC 1624 with a word that falls by 0x0100: ~m + m' = 0xfeff.
        let sum = u32::from(!u16::from_be_bytes([h[12], h[13]])) + 0xfeff;
        let sum = !((sum + (sum >> 16)) as u16);
        h[10] -= 1;
        [h[12], h[13]] = sum.to_be_bytes();
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
