//! Headers that actions put on and take off: VLAN tags, labels, Ethernet, NSH.
//!
//! What is put on moves the headers behind it. What is uncovered (behind the last label, inside NSH, in a tag that the parser did not
//! reach) is looked at anew.

use super::parcel::{Marks, Parcel};
use crate::flow::action::Nsh;
use crate::packet::DropReason;

/// The outcome of an action on one packet.
pub type Done = Result<(), DropReason>;

/// A tag behind the addresses. The bit that says "present" in the action goes out as 0.
///
/// # Errors
/// Without an Ethernet header.
pub fn push_vlan(parcel: &mut Parcel, tpid: u16, tci: u16) -> Done {
    if parcel.layer3.is_some() || parcel.bytes.len() < 14 {
        return Err(DropReason::ActionHeader);
    }
    let tag = u32::from(tpid) << 16 | u32::from(tci & 0xefff);
    parcel.insert(12, &tag.to_be_bytes());
    Ok(())
}

/// Takes off the outermost tag; without one nothing happens.
pub fn pop_vlan(parcel: &mut Parcel, vlan_depth: u8) {
    let is_tagged = parcel.layer3.is_none() && matches!(parcel.u16_at(12), Some(0x8100 | 0x88a8));
    if is_tagged && parcel.bytes.len() >= 18 {
        parcel.remove(12, 4);
        if parcel.behind_link().is_none() {
            parcel.look(vlan_depth);
        }
    }
}

/// Writes the type of what follows the link layer, which ends at `at`.
fn set_ethertype(parcel: &mut Parcel, at: usize, ethertype: u16) {
    match &mut parcel.layer3 {
        Some(kind) => *kind = ethertype,
        None => parcel.bytes[at - 2..at].copy_from_slice(&ethertype.to_be_bytes()),
    }
}

/// A label stack entry behind the link layer. An EtherType that is none of MPLS: nothing happens.
///
/// # Errors
/// There is no place for it.
pub fn push_mpls(parcel: &mut Parcel, lse: u32, ethertype: u16) -> Done {
    if !matches!(ethertype, 0x8847 | 0x8848) {
        return Ok(());
    }
    let at = parcel.behind_link().ok_or(DropReason::ActionHeader)?;
    set_ethertype(parcel, at, ethertype);
    parcel.insert(at, &lse.to_be_bytes());
    parcel.marks.labels = Some(at);
    Ok(())
}

/// With bit 0 of `flags` as [`push_mpls`]; else the entry goes in front of everything.
///
/// # Errors
/// As [`push_mpls`].
pub fn add_mpls(parcel: &mut Parcel, lse: u32, ethertype: u16, flags: u16) -> Done {
    if flags & 1 != 0 || !matches!(ethertype, 0x8847 | 0x8848) {
        return push_mpls(parcel, lse, ethertype);
    }
    parcel.insert(0, &lse.to_be_bytes());
    parcel.layer3 = Some(ethertype);
    parcel.marks.labels = Some(0);
    Ok(())
}

/// Takes off the outermost entry; without labels nothing happens.
///
/// # Errors
/// The entry is cut off.
pub fn pop_mpls(parcel: &mut Parcel, ethertype: u16, vlan_depth: u8) -> Done {
    let Some(at) = parcel.marks.labels else { return Ok(()) };
    if parcel.bytes.len() < at + 4 {
        return Err(DropReason::ActionHeader);
    }
    set_ethertype(parcel, at, ethertype);
    parcel.bytes.drain(at..at + 4);
    // Transparent Ethernet bridging: what was inside is a frame.
    if at == 0 && ethertype == 0x6558 {
        parcel.layer3 = None;
    }
    parcel.look(vlan_depth);
    Ok(())
}

/// An Ethernet header in front of a packet without one.
///
/// # Errors
/// It has one.
pub fn push_eth(parcel: &mut Parcel, dst: [u8; 6], src: [u8; 6]) -> Done {
    let ethertype = parcel.layer3.take().ok_or(DropReason::ActionHeader)?;
    parcel.insert(0, &[&dst[..], &src, &ethertype.to_be_bytes()].concat());
    Ok(())
}

/// Takes off the Ethernet header and its tags.
///
/// # Errors
/// There is none, or it is cut off.
pub fn pop_eth(parcel: &mut Parcel) -> Done {
    let at = parcel.behind_link().ok_or(DropReason::ActionHeader)?;
    if parcel.layer3.is_some() {
        return Err(DropReason::ActionHeader);
    }
    parcel.layer3 = parcel.u16_at(at - 2);
    // Nothing of what is marked is among the bytes that go.
    parcel.bytes.drain(..at);
    let Marks { labels, network, transport } = parcel.marks;
    let network = network.map(|(mark, kind)| (mark - at, kind));
    parcel.marks = Marks { labels: labels.map(|m| m - at), network, transport: transport.map(|m| m - at) };
    Ok(())
}

/// An NSH header in front of everything, with the next protocol that the packet is.
///
/// # Errors
/// NSH cannot carry it, or the header is none.
pub fn push_nsh(parcel: &mut Parcel, nsh: &Nsh) -> Done {
    let next = match parcel.layer3 {
        None => 3,
        Some(0x0800) => 1,
        Some(0x86dd) => 2,
        Some(0x894f) => 4,
        Some(0x8847) => 5,
        Some(_) => return Err(DropReason::ActionHeader),
    };
    let len = 8 + nsh.context.len();
    let has_right_len = match nsh.mdtype {
        1 => len == 24,
        2 => len.is_multiple_of(4) && len <= 252,
        _ => false,
    };
    if !has_right_len {
        return Err(DropReason::ActionHeader);
    }
    let first = u16::from(nsh.flags & 3) << 12 | u16::from(nsh.ttl & 63) << 6 | (len / 4) as u16;
    let mut header = first.to_be_bytes().to_vec();
    header.extend([nsh.mdtype, next]);
    header.extend(nsh.path_hdr.to_be_bytes());
    header.extend(&nsh.context);
    parcel.insert(0, &header);
    parcel.layer3 = Some(0x894f);
    parcel.marks = Marks { labels: None, network: Some((0, 0x894f)), transport: None };
    Ok(())
}

/// Takes off the NSH header at the front; another packet stays as it is.
///
/// # Errors
/// It is cut off, or what is inside is unknown.
pub fn pop_nsh(parcel: &mut Parcel, vlan_depth: u8) -> Done {
    if parcel.layer3 != Some(0x894f) {
        return Ok(());
    }
    let header = parcel.bytes.get(..8).ok_or(DropReason::ActionHeader)?;
    let len = usize::from(header[1] & 63) * 4;
    let inside = match header[3] {
        1 => Some(0x0800),
        2 => Some(0x86dd),
        3 => None,
        4 => Some(0x894f),
        5 => Some(0x8847),
        _ => return Err(DropReason::ActionHeader),
    };
    if len < 8 || len > parcel.bytes.len() {
        return Err(DropReason::ActionHeader);
    }
    parcel.bytes.drain(..len);
    parcel.layer3 = inside;
    parcel.look(vlan_depth);
    Ok(())
}
