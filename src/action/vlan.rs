//! `push_vlan` and `pop_vlan`.

use super::layers::{lowered, raised};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::ethernet::{HEADER_LEN, is_vlan};
use crate::wire::vlan::{DEI, TAG_LEN};

/// Headroom that [`push`] needs.
pub const LEN: usize = TAG_LEN;

/// Puts a tag behind the Ethernet addresses, in front of any other tag. The DEI bit of `tci` stands for "present" in the action and
/// goes out as 0, as in OVS.
///
/// # Errors
/// [`DropReason::ActionHeader`] for a packet without Ethernet header, [`DropReason::NoHeadroom`] without [`LEN`] bytes of headroom.
#[inline]
pub fn push(packet: &mut Packet, tpid: u16, tci: u16) -> Result<(), DropReason> {
    if packet.flags.contains(PacketFlags::LAYER3) || packet.len() < HEADER_LEN {
        return Err(DropReason::ActionHeader);
    }
    if !packet.push_front(LEN) {
        return Err(DropReason::NoHeadroom);
    }
    if let Some(head) = packet.data_mut().first_chunk_mut::<{ 12 + LEN }>() {
        head.copy_within(LEN.., 0);
        let tag = u32::from(tpid) << 16 | u32::from(tci & !DEI);
        head[12..].copy_from_slice(&tag.to_be_bytes());
    }
    packet.l2_5 = raised(packet.l2_5, LEN as u16);
    packet.l3 = raised(packet.l3, LEN as u16);
    packet.l4 = raised(packet.l4, LEN as u16);
    Ok(())
}

/// Removes the outermost tag; a packet without one stays as it is, as in OVS.
///
/// # Errors
/// None: the packet path's signature.
#[inline]
pub fn pop(packet: &mut Packet) -> Result<(), DropReason> {
    if packet.flags.contains(PacketFlags::LAYER3) {
        return Ok(());
    }
    // With the EtherType behind the tag: a frame that ends in the middle of it has no tag.
    let Some(head) = packet.data_mut().first_chunk_mut::<{ HEADER_LEN + LEN }>() else { return Ok(()) };
    if !is_vlan(u16::from_be_bytes([head[12], head[13]])) {
        return Ok(());
    }
    head.copy_within(..12, LEN);
    if packet.pop_front(LEN) {
        packet.l2_5 = lowered(packet.l2_5, LEN as u16);
        packet.l3 = lowered(packet.l3, LEN as u16);
        packet.l4 = lowered(packet.l4, LEN as u16);
    }
    Ok(())
}
