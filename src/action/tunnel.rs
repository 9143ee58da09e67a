//! `tnl_push` and `tnl_pop`.

use super::hash;
use crate::flow::extract::ExtractOptions;
use crate::flow::key::{LINE_OPTIONS, LINE_TUNNEL, LineSet};
use crate::flow::{Ext, FlowKey};
use crate::packet::buffer::NONE;
use crate::packet::{DropReason, Packet};
use crate::tunnel::{Kind, Moment, Options, Stamp, Template, Tunnel};

/// What [`push`] puts into the headers and the packet beside the template's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Pushed<'s> {
    /// The port that the packet is of from now on.
    pub out_port: u32,
    /// Takes the place of the template's identifier.
    pub id: Option<[u8; 4]>,
    /// Sequence numbers and time.
    pub moment: Moment<'s>,
}

/// Puts ready-made outer headers in front. The packet then is one of port `out_port`, and its metadata begins anew, as in OVS.
///
/// # Errors
/// As [`Template::push`].
#[inline(always)]
pub fn push(
    packet: &mut Packet,
    template: &Template,
    Pushed { out_port, id, moment }: Pushed<'_>,
    options: ExtractOptions,
) -> Result<(), DropReason> {
    let hash = hash::five_tuple(packet, options);
    template.push(packet, hash, id, moment)?;
    arrive(packet, out_port);
    Ok(())
}

/// As [`push`] with what a burst's packets have in common. False, and nothing is changed, for a packet without a hash, or one that does not
/// take the headers.
#[inline(always)]
pub fn push_usual(packet: &mut Packet, stamp: &Stamp, out_port: u32) -> bool {
    let pushed = match hash::at_hand(packet) {
        Some(hash) => stamp.push(packet, hash),
        None => false,
    };
    if pushed {
        arrive(packet, out_port);
    }
    pushed
}

/// Takes the outer headers off, or does what else a segment of SRv6 stands for; `ext` is the packet's own. What is left came in on `port`,
/// and of the other metadata it has only what the outer headers said, as in OVS.
///
/// # Errors
/// As [`open`](crate::tunnel::open); also if labels are in front.
#[inline(always)]
pub fn pop(packet: &mut Packet, ext: &mut Ext, tunnel: &Tunnel, port: u32) -> Result<(), DropReason> {
    // Behind labels that an action put in front are headers that extraction found, but the packet is not IP any more.
    if packet.l2_5 != NONE {
        return Err(DropReason::TunnelHeader);
    }
    crate::tunnel::open(packet, ext, tunnel.kind, &tunnel.options)?;
    ext.skb_priority = 0;
    ext.lines &= LINE_TUNNEL | LINE_OPTIONS;
    arrive(packet, port);
    Ok(())
}

/// As [`pop`] for the most frequent packets, as they were received; the metadata goes to `key`, and returned is which of its lines. `None`,
/// and nothing is changed, for others.
#[inline(always)]
pub fn pop_usual(packet: &mut Packet, key: &mut FlowKey, kind: Kind, options: &Options, port: u32) -> Option<LineSet> {
    let lines = crate::tunnel::open_usual(packet, key, kind, options)?;
    arrive(packet, port);
    Some(lines)
}

/// As [`pop_usual`] for a packet whose outer headers, of `len` bytes, were found to be usual and are known.
#[inline(always)]
pub fn pop_known(packet: &mut Packet, len: usize, port: u32) {
    let taken = crate::tunnel::take_off_usual(packet, len);
    debug_assert!(taken, "the headers were looked at");
    arrive(packet, port);
}

/// The packet is one of `port` now.
#[inline(always)]
fn arrive(packet: &mut Packet, port: u32) {
    (packet.in_port, packet.recirc_id, packet.dp_hash, packet.skb_mark) = (port, 0, 0, 0);
    forget_connection(packet);
}

#[inline(always)]
fn forget_connection(packet: &mut Packet) {
    (packet.ct_state, packet.ct_zone, packet.ct_mark) = (0, 0, 0);
}
