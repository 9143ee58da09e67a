//! `dec_ttl`: decrementing TTL and hop limit.

use super::layers::{ethertype, ipv4_mut, ipv6_mut};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::checksum::update16;
use crate::wire::ethernet;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The end of the link layer and an IPv4 header, in the pieces that are looked at: each is one load.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start {
    /// EtherType, version and header length, TOS.
    kind: [u8; 4],
    _len_id_fragment: [u8; 6],
    /// TTL, protocol, checksum.
    ttl: [u8; 4],
    _addresses: [u8; 8],
}

impl Start {
    /// True for the usual packet: IPv4 without options.
    #[inline(always)]
    fn is_usual(&self) -> bool {
        u32::from_be_bytes(self.kind) >> 8 == (ethernet::IPV4 as u32) << 8 | 0x45
    }

    #[inline(always)]
    fn dec_ttl(&mut self) -> Result<(), DropReason> {
        // As one number: TTL in the lowest byte, then protocol, then the checksum with its bytes swapped.
        let word = u32::from_le_bytes(self.ttl);
        if word & 0xff <= 1 {
            return Err(DropReason::TtlExpired);
        }
        // RFC 1624 for a word that falls by 0x0100 is ~(~HC + 0xfeff): HC + 0x0100 with end-around carry, where 0xffff becomes 0.
        // Swapped, 0x0100 is 1 (RFC 1071 §2(B)).
        let carry = u32::from(word >= 0xfffe_0000) << 16;
        self.ttl = word.wrapping_add(0xffff + carry).to_le_bytes();
        Ok(())
    }
}

/// Decrements the TTL of an IPv4 packet and updates the header checksum, or the hop limit of an IPv6 packet. What is not IP, or
/// malformed, stays as it is.
///
/// # Errors
/// [`DropReason::TtlExpired`] if the value is 1 or 0: it would be forwarded with 0 (RFC 1812 §5.3.1, RFC 8200 §3).
#[inline(always)]
pub fn dec_ttl(packet: &mut Packet) -> Result<(), DropReason> {
    // Without an EtherType in front of the network header the offset is never inside the data.
    let (at, l2_5) = ((packet.l3 as usize).wrapping_sub(2), packet.l2_5);
    if let Some((start, _)) = packet.data_mut().get_mut(at..).and_then(|d| Start::mut_from_prefix(d).ok())
        && start.is_usual()
        && l2_5 == NONE
    {
        return start.dec_ttl();
    }
    dec_ttl_rare(packet)
}

/// What a router does: [`set_addresses`](super::ethernet::set_addresses), then [`dec_ttl`], for the price of little more than one.
///
/// # Errors
/// As [`dec_ttl`].
#[inline(always)]
pub fn route(packet: &mut Packet, addresses: &[u8; 12]) -> Result<(), DropReason> {
    let usual = packet.l3 == ethernet::HEADER_LEN as u16 && packet.l2_5 == NONE;
    if usual
        && !packet.flags.contains(PacketFlags::LAYER3)
        && let Some((link, rest)) = packet.data_mut().split_first_chunk_mut::<12>()
        && let Ok((start, _)) = Start::mut_from_prefix(rest)
        && start.is_usual()
    {
        *link = *addresses;
        return start.dec_ttl();
    }
    super::ethernet::set_addresses(packet, addresses)?;
    dec_ttl_rare(packet)
}

/// IPv6, IPv4 with options, and IP that comes first.
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
