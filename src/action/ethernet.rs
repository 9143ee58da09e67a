//! Ethernet: rewriting addresses, `push_eth`, `pop_eth`.

use super::layers::{lowered, raised, u16_at};
use crate::flow::action::Masked;
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::ethernet::HEADER_LEN;

/// Headroom that [`push`] needs.
pub const LEN: usize = HEADER_LEN;

/// Replaces both addresses (destination, source); a layer-3 packet has none and stays.
///
/// # Errors
/// None: the packet path's signature.
#[inline(always)]
pub fn set_addresses(packet: &mut Packet, addresses: &[u8; 12]) -> Result<(), DropReason> {
    if !packet.flags.contains(PacketFlags::LAYER3)
        && let Some(old) = packet.data_mut().first_chunk_mut()
    {
        *old = *addresses;
    }
    Ok(())
}

/// As [`set_addresses`], for the bits of a mask.
///
/// # Errors
/// None: the packet path's signature.
#[inline]
pub fn set_addresses_masked(packet: &mut Packet, addresses: &Masked<[u8; 12]>) -> Result<(), DropReason> {
    if !packet.flags.contains(PacketFlags::LAYER3)
        && let Some(old) = packet.data_mut().first_chunk_mut()
    {
        *old = addresses.apply(*old);
    }
    Ok(())
}

/// Puts an Ethernet header in front of a layer-3 packet.
///
/// # Errors
/// [`DropReason::ActionHeader`] if there is one already, [`DropReason::NoHeadroom`] without [`LEN`] bytes of headroom.
#[inline]
pub fn push(packet: &mut Packet, dst: [u8; 6], src: [u8; 6]) -> Result<(), DropReason> {
    if !packet.flags.contains(PacketFlags::LAYER3) {
        return Err(DropReason::ActionHeader);
    }
    if !packet.push_front(LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let ethertype = packet.l3_type.to_be_bytes();
    if let Some(header) = packet.data_mut().first_chunk_mut::<LEN>() {
        header[..6].copy_from_slice(&dst);
        header[6..12].copy_from_slice(&src);
        header[12..].copy_from_slice(&ethertype);
    }
    packet.flags.remove(PacketFlags::LAYER3);
    packet.l2_5 = raised(packet.l2_5, LEN as u16);
    packet.l3 = raised(packet.l3, LEN as u16);
    packet.l4 = raised(packet.l4, LEN as u16);
    Ok(())
}

/// Removes the Ethernet header with its VLAN tags: what follows, a label stack or the network header, comes first.
///
/// # Errors
/// [`DropReason::ActionHeader`] if there is no Ethernet header, or what follows it is not known.
#[inline]
pub fn pop(packet: &mut Packet) -> Result<(), DropReason> {
    let at = if packet.l2_5 != NONE { packet.l2_5 } else { packet.l3 };
    if packet.flags.contains(PacketFlags::LAYER3) || at == NONE || usize::from(at) < LEN {
        return Err(DropReason::ActionHeader);
    }
    let ethertype = u16_at(packet.data(), usize::from(at) - 2).ok_or(DropReason::ActionHeader)?;
    if !packet.pop_front(at.into()) {
        return Err(DropReason::ActionHeader);
    }
    packet.flags.insert(PacketFlags::LAYER3);
    packet.l3_type = ethertype;
    packet.l2_5 = lowered(packet.l2_5, at);
    packet.l3 = lowered(packet.l3, at);
    packet.l4 = lowered(packet.l4, at);
    Ok(())
}
