//! `push_mpls`, `add_mpls`, `pop_mpls`, and setting the outermost label stack entry.

use super::layers::{lowered, raised};
use crate::flow::action::Masked;
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::ethernet::{self, is_mpls};
use crate::wire::mpls::{BOS, LSE_LEN};

/// Headroom that [`push`] and [`add`] need.
pub const LEN: usize = LSE_LEN;

/// In [`add`]'s flags: the entry goes behind the link layer, `OVS_MPLS_L3_TUNNEL_FLAG_MASK`.
pub const TUNNEL_L3: u16 = 1;

/// Puts a label stack entry behind the link layer, in front of any other. An `ethertype` that is not one of MPLS does nothing, as in OVS.
///
/// # Errors
/// [`DropReason::ActionHeader`] if the packet has no network header, [`DropReason::NoHeadroom`] without [`LEN`] bytes of headroom.
#[inline]
pub fn push(packet: &mut Packet, lse: u32, ethertype: u16) -> Result<(), DropReason> {
    if !is_mpls(ethertype) {
        return Ok(());
    }
    let at = if packet.l2_5 != NONE { packet.l2_5 } else { packet.l3 };
    let stack = usize::from(at);
    if at == NONE || stack > packet.len() || (has_ethernet(packet) && stack < ethernet::HEADER_LEN) {
        return Err(DropReason::ActionHeader);
    }
    if !packet.push_front(LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let link = has_ethernet(packet);
    if let Some(head) = packet.data_mut().get_mut(..stack + LEN) {
        head.copy_within(LEN.., 0);
        head[stack..].copy_from_slice(&lse.to_be_bytes());
        if link {
            head[stack - 2..stack].copy_from_slice(&ethertype.to_be_bytes());
        }
    }
    if !link {
        packet.l3_type = ethertype;
    }
    packet.l2_5 = at;
    packet.l3 = raised(packet.l3, LEN as u16);
    packet.l4 = raised(packet.l4, LEN as u16);
    Ok(())
}

/// `OVS_ACTION_ATTR_ADD_MPLS`: with [`TUNNEL_L3`] as [`push`]; else the entry goes in front of the whole packet, Ethernet header included,
/// which then is a layer-3 one.
///
/// # Errors
/// As [`push`].
#[inline]
pub fn add(packet: &mut Packet, lse: u32, ethertype: u16, tun_flags: u16) -> Result<(), DropReason> {
    if tun_flags & TUNNEL_L3 != 0 || !is_mpls(ethertype) {
        return push(packet, lse, ethertype);
    }
    if !packet.push_front(LEN) {
        return Err(DropReason::NoHeadroom);
    }
    if let Some(head) = packet.data_mut().first_chunk_mut() {
        *head = lse.to_be_bytes();
    }
    packet.flags.insert(PacketFlags::LAYER3);
    packet.l3_type = ethertype;
    packet.l2_5 = 0;
    packet.l3 = raised(packet.l3, LEN as u16);
    packet.l4 = raised(packet.l4, LEN as u16);
    Ok(())
}

/// Removes the outermost label stack entry; `ethertype` is what follows it. A packet without a label stack stays as it is, as in OVS.
///
/// Behind the removed entry only recirculation knows what there is: the network header's offset is right if extraction saw the
/// bottom of the stack.
///
/// # Errors
/// [`DropReason::ActionHeader`] if the entry is truncated.
#[inline]
pub fn pop(packet: &mut Packet, ethertype: u16) -> Result<(), DropReason> {
    if packet.l2_5 == NONE {
        return Ok(());
    }
    let stack = usize::from(packet.l2_5);
    let link = has_ethernet(packet);
    let Some(head) = packet.data_mut().get_mut(..stack + LEN) else { return Err(DropReason::ActionHeader) };
    if link && stack < ethernet::HEADER_LEN {
        return Err(DropReason::ActionHeader);
    }
    // RFC 3032 §2.1: the lowest bit of the third byte.
    let bottom = head[stack + 2] & (BOS >> 8) as u8 != 0;
    if link {
        head[stack - 2..stack].copy_from_slice(&ethertype.to_be_bytes());
    }
    head.copy_within(..stack, LEN);
    if !packet.pop_front(LEN) {
        return Err(DropReason::ActionHeader);
    }
    if bottom {
        packet.l2_5 = NONE;
    }
    packet.l3 = lowered(packet.l3, LEN as u16);
    packet.l4 = lowered(packet.l4, LEN as u16);
    if stack == 0 {
        if ethertype == ethernet::TEB {
            packet.flags.remove(PacketFlags::LAYER3);
            // What was taken for a network header is an Ethernet header, unless `add` has put the entry there just now.
            if usize::from(packet.l3) < ethernet::HEADER_LEN {
                (packet.l3, packet.l4) = (NONE, NONE);
            }
        } else {
            packet.l3_type = ethertype;
        }
    }
    Ok(())
}

/// Sets the masked bits of the outermost label stack entry; a packet without a label stack stays as it is.
///
/// # Errors
/// None: the packet path's signature.
#[inline]
pub fn set(packet: &mut Packet, lse: Masked<u32>) -> Result<(), DropReason> {
    let at = usize::from(packet.l2_5);
    if packet.l2_5 != NONE
        && let Some(entry) = packet.data_mut().get_mut(at..).and_then(|d| d.first_chunk_mut())
    {
        *entry = lse.apply(u32::from_be_bytes(*entry)).to_be_bytes();
    }
    Ok(())
}

#[inline(always)]
fn has_ethernet(packet: &Packet) -> bool {
    !packet.flags.contains(PacketFlags::LAYER3)
}
