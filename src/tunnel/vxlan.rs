//! VXLAN (RFC 7348), with the group-based-policy extension (draft-smith-vxlan-group-policy) and the generic-protocol
//! extension (draft-ietf-nvo3-vxlan-gpe).

use super::contract::{Opened, Options};
use crate::flow::key::{TUNNEL_GBP, TUNNEL_KEY, TunnelLine};
use crate::packet::DropReason;
use crate::wire::ethernet;
use zerocopy::byteorder::network_endian::U64;

/// The UDP port that IANA assigned.
pub const PORT: u16 = 4789;
/// Length of the header.
pub const LEN: usize = 8;

/// In the first word: the identifier is valid.
const I: u32 = 0x0800_0000;
/// The header has a group policy.
const G: u32 = 0x8000_0000;
/// Bits of a group policy: "don't learn", "applied", and the group.
const GBP_BITS: u32 = G | GBP_DONT_LEARN | GBP_APPLIED | 0xffff;
const GBP_DONT_LEARN: u32 = 0x0040_0000;
const GBP_APPLIED: u32 = 0x0008_0000;
/// The header has a next protocol.
const P: u32 = 0x0400_0000;

/// EtherType of what `next` stands for in the generic-protocol extension; `Ok(None)` for Ethernet.
fn next_protocol(next: u8) -> Result<Option<u16>, DropReason> {
    match next {
        1 => Ok(Some(ethernet::IPV4)),
        2 => Ok(Some(ethernet::IPV6)),
        3 => Ok(None),
        4 => Ok(Some(ethernet::NSH)),
        5 => Ok(Some(ethernet::MPLS)),
        _ => Err(DropReason::TunnelHeader),
    }
}

/// See [`Kind::open`](super::Kind::open). Bits that no extension in use explains make a header invalid, as in Linux and Open vSwitch:
/// they may change what the packet means.
#[inline(always)]
pub(super) fn open(bytes: &[u8], options: &Options, tunnel: &mut TunnelLine) -> Result<Opened, DropReason> {
    let head: &[u8; LEN] = bytes.first_chunk().ok_or(DropReason::TunnelHeader)?;
    let word = u64::from_be_bytes(*head);
    // The low byte is reserved.
    tunnel.id = U64::new(word >> 8 & 0xff_ffff);
    tunnel.flags |= TUNNEL_KEY;
    if word >> 32 == u64::from(I) && word & 0xff == 0 {
        return Ok(Opened::new(LEN, None));
    }
    extended(word, options, tunnel)
}

/// [`open`] of a header without extensions; returns its length.
#[inline(always)]
pub(super) fn open_usual(bytes: &[u8], tunnel: &mut TunnelLine) -> Option<usize> {
    let word = u64::from_be_bytes(*bytes.first_chunk::<LEN>()?);
    tunnel.id = U64::new(word >> 8 & 0xff_ffff);
    tunnel.flags = TUNNEL_KEY;
    (word & !(0xff_ffff << 8) == u64::from(I) << 32).then_some(LEN)
}

#[inline(never)]
fn extended(word: u64, options: &Options, tunnel: &mut TunnelLine) -> Result<Opened, DropReason> {
    let mut flags = (word >> 32) as u32;
    if flags & I == 0 || word & 0xff != 0 {
        return Err(DropReason::TunnelHeader);
    }
    flags &= !I;
    let mut layer3 = None;
    if options.gpe && flags & P != 0 {
        layer3 = next_protocol(flags as u8)?;
        flags &= !(P | 0xff);
    } else if options.gbp && flags & G != 0 {
        let [_, policy, id @ ..] = flags.to_be_bytes();
        // What Open vSwitch calls the flags: the two policy bits, where they are in the header.
        let policy = policy & ((GBP_DONT_LEARN | GBP_APPLIED) >> 16) as u8;
        flags &= !GBP_BITS;
        if (id, policy) != ([0; 2], 0) {
            tunnel.flags |= TUNNEL_GBP;
            tunnel.opts = [id[0], id[1], policy, 0, 0, 0, 0, 0];
        }
    }
    if flags != 0 {
        return Err(DropReason::TunnelHeader);
    }
    Ok(Opened::new(LEN, layer3))
}

/// Appends the header for what `tunnel` says. `layer3` is the EtherType of an inner packet without Ethernet header.
///
/// # Errors
/// Why there is no such header.
pub fn write(tunnel: &TunnelLine, gpe: bool, layer3: Option<u16>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let id = tunnel.id.get();
    if id > 0xff_ffff {
        return Err("a VXLAN identifier has 24 bits");
    }
    let mut flags = I;
    if gpe {
        let next = match layer3 {
            None => 3,
            Some(ethernet::IPV4) => 1,
            Some(ethernet::IPV6) => 2,
            Some(ethernet::NSH) => 4,
            Some(ethernet::MPLS) => 5,
            Some(_) => return Err("VXLAN-GPE has no number for this protocol"),
        };
        flags |= P | next;
    } else if layer3.is_some() {
        return Err("VXLAN carries Ethernet frames only, unless it is VXLAN-GPE");
    } else if tunnel.flags & TUNNEL_GBP != 0 {
        let [high, low, policy, ..] = tunnel.opts;
        let policy = u32::from(policy) << 16 & (GBP_DONT_LEARN | GBP_APPLIED);
        flags |= G | policy | u32::from(u16::from_be_bytes([high, low]));
    }
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&((id as u32) << 8).to_be_bytes());
    Ok(())
}
