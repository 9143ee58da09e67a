//! `push_nsh`, `pop_nsh`, and setting NSH fields (RFC 8300).

use super::layers::ethertype;
use crate::flow::action::{Masked, Nsh};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::ethernet;
use crate::wire::nsh::{
    FLAGS_MASK, FLAGS_SHIFT, HEADER_LEN, Header, LEN_MAX, MD_TYPE_1, MD_TYPE_2, MD1_LEN, NEXT_ETHERNET, NEXT_IPV4,
    NEXT_IPV6, NEXT_MPLS, NEXT_NSH, TTL_MASK, TTL_SHIFT, VERSION_MASK,
};
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

/// Headroom that [`push`] of `header` needs.
#[inline]
pub fn push_len(header: &Nsh) -> usize {
    HEADER_LEN + header.context.len()
}

/// True if a header of metadata type `md_type` can have `len` bytes; no header of an unknown type can.
#[inline]
fn is_len_of(md_type: u8, len: usize) -> bool {
    match md_type {
        MD_TYPE_1 => len == MD1_LEN,
        MD_TYPE_2 => len >= HEADER_LEN,
        _ => false,
    }
}

/// Puts `header` in front of the packet, with the next protocol that the packet's type asks for; the packet then is a layer-3 one.
///
/// # Errors
/// [`DropReason::ActionHeader`] for a packet of a type that NSH cannot carry or a header that is no valid NSH,
/// [`DropReason::NoHeadroom`] without [`push_len`] bytes of headroom.
#[inline]
pub fn push(packet: &mut Packet, header: &Nsh) -> Result<(), DropReason> {
    let next = if !packet.flags.contains(PacketFlags::LAYER3) {
        NEXT_ETHERNET
    } else {
        match packet.l3_type {
            ethernet::IPV4 => NEXT_IPV4,
            ethernet::IPV6 => NEXT_IPV6,
            ethernet::NSH => NEXT_NSH,
            ethernet::MPLS => NEXT_MPLS,
            _ => return Err(DropReason::ActionHeader),
        }
    };
    let len = push_len(header);
    if len > LEN_MAX || !len.is_multiple_of(4) || !is_len_of(header.mdtype, len) {
        return Err(DropReason::ActionHeader);
    }
    if !packet.push_front(len) {
        return Err(DropReason::NoHeadroom);
    }
    let first = u16::from(header.flags) << FLAGS_SHIFT & FLAGS_MASK
        | u16::from(header.ttl) << TTL_SHIFT & TTL_MASK
        | (len / 4) as u16;
    let fixed = Header {
        version_flags_ttl_len: U16::new(first),
        md_type: header.mdtype,
        next,
        path: U32::new(header.path_hdr),
    };
    if let Some((head, context)) = packet.data_mut().get_mut(..len).and_then(|d| d.split_at_mut_checked(HEADER_LEN)) {
        head.copy_from_slice(fixed.as_bytes());
        context.copy_from_slice(&header.context);
    }
    packet.flags.insert(PacketFlags::LAYER3);
    packet.l3_type = ethernet::NSH;
    (packet.l2_5, packet.l3, packet.l4) = (NONE, 0, NONE);
    Ok(())
}

/// Removes the NSH header at the packet's front; what was inside must be looked up again. Another packet stays as it is, as in OVS.
///
/// # Errors
/// [`DropReason::ActionHeader`] for a malformed header or an unknown next protocol.
#[inline]
pub fn pop(packet: &mut Packet) -> Result<(), DropReason> {
    if !packet.flags.contains(PacketFlags::LAYER3) || packet.l3_type != ethernet::NSH || packet.l3 != 0 {
        return Ok(());
    }
    let (header, _) = Header::ref_from_prefix(packet.data()).map_err(|_| DropReason::ActionHeader)?;
    let (len, next) = (header.header_len(), header.next);
    let l3_type = match next {
        NEXT_ETHERNET => 0,
        NEXT_IPV4 => ethernet::IPV4,
        NEXT_IPV6 => ethernet::IPV6,
        NEXT_NSH => ethernet::NSH,
        NEXT_MPLS => ethernet::MPLS,
        _ => return Err(DropReason::ActionHeader),
    };
    if len < HEADER_LEN || !packet.pop_front(len) {
        return Err(DropReason::ActionHeader);
    }
    if next == NEXT_ETHERNET {
        packet.flags.remove(PacketFlags::LAYER3);
    }
    packet.l3_type = l3_type;
    (packet.l2_5, packet.l3, packet.l4) = (NONE, NONE, NONE);
    Ok(())
}

/// Sets masked fields of the NSH header; the context headers only if the metadata type is 1. A packet without NSH stays as it is.
///
/// # Errors
/// None: the packet path's signature.
#[inline]
pub fn set(
    packet: &mut Packet,
    flags: Masked<u8>,
    ttl: Masked<u8>,
    path_hdr: Masked<u32>,
    context: &Masked<[u8; 16]>,
) -> Result<(), DropReason> {
    if ethertype(packet) != ethernet::NSH {
        return Ok(());
    }
    let l3 = packet.l3 as usize;
    let Some((header, rest)) = packet.data_mut().get_mut(l3..).and_then(|d| Header::mut_from_prefix(d).ok()) else {
        return Ok(());
    };
    let first = header.version_flags_ttl_len.get();
    let len = header.header_len();
    // Extraction takes nothing else for NSH.
    if first & VERSION_MASK != 0 || !is_len_of(header.md_type & 15, len) || len - HEADER_LEN > rest.len() {
        return Ok(());
    }
    let new_flags = u16::from(flags.apply(((first & FLAGS_MASK) >> FLAGS_SHIFT) as u8));
    let new_ttl = u16::from(ttl.apply(((first & TTL_MASK) >> TTL_SHIFT) as u8));
    let kept = first & !(FLAGS_MASK | TTL_MASK);
    header.version_flags_ttl_len.set(kept | new_flags << FLAGS_SHIFT & FLAGS_MASK | new_ttl << TTL_SHIFT & TTL_MASK);
    header.path.set(path_hdr.apply(header.path.get()));
    if header.md_type & 15 == MD_TYPE_1
        && let Some(old) = rest.first_chunk_mut()
    {
        *old = context.apply(*old);
    }
    Ok(())
}
