//! Tunnels: the outer headers that [`Template`] puts in front of a packet, and that [`open`] checks and takes off.
//!
//! | file | what |
//! |---|---|
//! | [`contract`] | what each kind says of its header, and what the others ask of it |
//! | [`outer`] | the outer IP and UDP headers: checks, lengths, checksums |
//! | [`template`] | ready-made outer headers; per packet only lengths, checksums, ports and sequence numbers are filled in |
//! | [`alike`] | packets whose outer headers look like those of the packet before them |
//! | [`ecn`] | congestion marks between inner and outer header (RFC 6040) |
//! | [`vxlan`], [`geneve`], [`gre`], [`erspan`], [`gtpu`], [`srv6`] | one kind each |
//! | [`behaviour`], [`endpoint`] | what the segments of SRv6 stand for, and what that does to a packet (RFC 8986 §4) |
//! | [`sequence`] | sequence numbers |
//! | [`table`] | the tunnels of a datapath by number |
//!
//! A kind is one file and one line in [`Kind`].

pub mod alike;
pub mod behaviour;
pub mod contract;
pub mod ecn;
pub mod endpoint;
pub mod erspan;
pub mod geneve;
pub mod gre;
pub mod gtpu;
pub mod outer;
pub mod sequence;
pub mod srv6;
pub mod table;
pub mod template;
pub mod vxlan;

pub use alike::Alike;
pub use behaviour::{Behaviour, Flavours};
pub use contract::{Carrier, Kind, Opened, Options};
pub use sequence::{Moment, Sequence, Sequences};
pub use table::{Obstacle, Tunnel, TunnelTable, Way};
pub use template::{Stamp, Template};

use crate::flow::key::{LINE_OPTIONS, LINE_TUNNEL, LineSet};
use crate::flow::{Ext, FlowKey};
use crate::packet::{DropReason, Packet, PacketFlags};

/// Checks a packet's outer headers, whose offsets the packet has, takes them off, and notes in `ext` what they said. What is left is
/// the inner packet, whose offsets are not known; or all of it, if it is a message between the tunnel's ends, such as GTP-U's echo request, or
/// a packet that goes on to its next segment (see [`Behaviour`]).
///
/// `ext` is the packet's own; its tunnel metadata is replaced.
///
/// # Errors
/// The reason for which the kind's RFC has the packet dropped; it is unchanged then, and `ext` says nothing that is of use.
#[inline(always)]
pub fn open(packet: &mut Packet, ext: &mut Ext, kind: Kind, options: &Options) -> Result<(), DropReason> {
    if let (Kind::Srv6, Some(behaviour)) = (kind, options.behaviour) {
        return endpoint::open(packet, ext, behaviour, options);
    }
    let outer = outer::check(packet, &mut ext.tunnel, kind.carrier(), options)?;
    let bytes = packet.data().get(outer.at..outer.end).ok_or(DropReason::TunnelHeader)?;
    ext.lines &= !LINE_OPTIONS;
    let opened = kind.open(bytes, options, ext)?;
    if opened.is_message {
        ext.lines |= LINE_TUNNEL;
        return Ok(());
    }
    take_off(packet, ext, outer.at + opened.len, outer.end - opened.padding, opened.layer3, options)
}

/// Takes off what is in front of `at`, where the inner packet begins, which goes on to `end`.
#[inline(always)]
fn take_off(
    packet: &mut Packet,
    ext: &mut Ext,
    at: usize,
    end: usize,
    layer3: Option<u16>,
    options: &Options,
) -> Result<(), DropReason> {
    if options.ecn {
        ecn::decapsulate(packet, at..end, layer3, ext.tunnel.tos)?;
    }
    ext.lines |= LINE_TUNNEL;
    packet.truncate(end);
    if !packet.pop_front(at) {
        return Err(DropReason::TunnelHeader);
    }
    match layer3 {
        None => packet.flags.remove(PacketFlags::LAYER3),
        Some(ethertype) => {
            packet.flags.insert(PacketFlags::LAYER3);
            packet.l3_type = ethertype;
        }
    }
    // What the receiver knew was of the outer packet.
    packet.flags.remove(PacketFlags::RSS_VALID);
    packet.flags.remove(PacketFlags::CHECKSUM_GOOD);
    Ok(())
}

/// As [`open`] for the most frequent packets: an untagged IPv4 header without options and a UDP header without checksum, VXLAN without
/// extensions or Geneve with up to 64 bytes of options, an inner Ethernet frame. What they said goes to the tunnel line and the first line of
/// options of `key`; returned are these lines' bits. `None`, and the packet is unchanged, for all others, be they right or wrong.
#[inline(always)]
pub fn open_usual(packet: &mut Packet, key: &mut FlowKey, kind: Kind, options: &Options) -> Option<LineSet> {
    let (at, end, lines) = look_usual(packet, key, kind, options)?;
    // Usual too, so that a flow some of whose packets are marked stays in order.
    if options.ecn && ecn::decapsulate(packet, at..end, None, key.tunnel.tos).is_err() {
        return None;
    }
    packet.truncate(end);
    take_off_usual(packet, at).then_some(lines)
}

/// Takes `len` bytes of headers off, behind which an Ethernet frame begins; false, and nothing is changed, if the packet is shorter.
#[inline(always)]
pub fn take_off_usual(packet: &mut Packet, len: usize) -> bool {
    if !packet.pop_front(len) {
        return false;
    }
    packet.flags.remove(PacketFlags::LAYER3);
    packet.flags.remove(PacketFlags::RSS_VALID);
    packet.flags.remove(PacketFlags::CHECKSUM_GOOD);
    true
}

/// Checks what [`open_usual`] takes off. Returned are where the inner frame begins and ends, and the lines of `key` that were filled.
#[inline(always)]
fn look_usual(packet: &Packet, key: &mut FlowKey, kind: Kind, options: &Options) -> Option<(usize, usize, LineSet)> {
    let outer = outer::check_usual(packet, &mut key.tunnel)?;
    let bytes = packet.data().get(outer.at..outer.end)?;
    let (len, lines) = match kind {
        Kind::Vxlan => (vxlan::open_usual(bytes, &mut key.tunnel)?, LINE_TUNNEL),
        Kind::Geneve => geneve::open_usual(bytes, options, key)?,
        _ => return None,
    };
    Some((outer.at + len, outer.end, lines))
}

#[cfg(all(test, not(loom)))]
mod tests;
