//! Upcalls: what happens to a packet that no flow matches, or that a `userspace` action hands up.
//!
//! Either a handler answers at once, on the worker's thread, or the packet goes onto a bounded ring for another thread.

use std::sync::Arc;

use crate::flow::action::{Actions, Userspace};
use crate::flow::{Ext, FlowKey, FlowMask};
use crate::packet::{DropReason, Packet};
use crate::time::Nanos;
use crate::tunnel::Obstacle;

/// A packet that no flow matched.
#[derive(Debug)]
pub struct Miss<'a> {
    /// The packet. Its bytes may be read and changed.
    pub packet: &'a mut Packet,
    /// Its metadata that the descriptor has no room for.
    pub ext: Option<&'a Ext>,
    /// Its key.
    pub key: &'a FlowKey,
    /// It is a copy that an action made of a packet: its end is in no sum of fates.
    pub is_copy: bool,
    /// The burst's time.
    pub now: Nanos,
}

/// A packet that a `userspace` action hands up.
#[derive(Debug)]
pub struct Punt<'a> {
    /// The packet.
    pub packet: &'a mut Packet,
    /// Its metadata that the descriptor has no room for.
    pub ext: Option<&'a Ext>,
    /// Its key now, after the actions before this one.
    pub key: &'a FlowKey,
    /// As [`Miss::is_copy`].
    pub is_copy: bool,
    /// The action's parameters.
    pub request: &'a Userspace,
    /// The burst's time.
    pub now: Nanos,
}

/// A packet that `encap` cannot send through its tunnel.
#[derive(Debug)]
pub struct Undeliverable<'a> {
    /// The packet.
    pub packet: &'a mut Packet,
    /// Its metadata that the descriptor has no room for.
    pub ext: Option<&'a Ext>,
    /// Its key now, after the actions before this one.
    pub key: &'a FlowKey,
    /// As [`Miss::is_copy`].
    pub is_copy: bool,
    /// The tunnel's number.
    pub tunnel: u32,
    /// Why.
    pub obstacle: Obstacle,
    /// The burst's time.
    pub now: Nanos,
}

/// What the handler wants done.
// One answer per upcall is moved once or twice: a box would cost more than it saves.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// Carry out the actions on the packet; with `install`, on later ones too.
    Execute {
        /// For this packet.
        actions: Actions,
        /// The flow to install.
        install: Option<Install>,
    },
    /// The handler has dealt with the packet: its fate is `upcall`.
    Consumed,
    /// Put the packet onto the ring.
    Queue,
    /// Drop the packet: `upcall_refused`.
    #[default]
    Refuse,
    /// Drop the packet for this reason.
    Drop(DropReason),
}

/// A flow that an upcall handler wants installed.
#[derive(Clone, Debug)]
pub struct Install {
    /// What later packets must share with this one.
    pub mask: FlowMask,
    /// The flow's actions, if they differ from the ones for this packet.
    pub actions: Option<Actions>,
    /// The flow's identifier.
    pub ufid: Option<u128>,
    /// The flow goes after this many ns without a packet; 0 = never.
    pub idle_timeout_ns: u64,
    /// The flow goes after this many ns; 0 = never.
    pub hard_timeout_ns: u64,
}

impl Install {
    /// A flow that stays until it is removed.
    pub fn with_mask(mask: FlowMask) -> Self {
        Install { mask, actions: None, ufid: None, idle_timeout_ns: 0, hard_timeout_ns: 0 }
    }
}

/// Answers upcalls on the workers' threads, several at a time.
///
/// It may use the control handle. It must not call into the worker that is calling it. A handler that was replaced is dropped when no worker uses
/// it any more, by whichever thread changes the datapath next; its destructor may use the control handle as well.
pub trait UpcallHandler: Send + Sync {
    /// A packet missed.
    fn miss(&self, miss: Miss<'_>) -> Answer;

    /// A flow handed a packet up. `install` in the answer is ignored.
    fn punt(&self, punt: Punt<'_>) -> Answer {
        let _ = punt;
        Answer::Queue
    }

    /// A tunnel's way is not known, or too narrow. `install` in the answer is ignored, and the ring is not for such packets. By default
    /// they are dropped: `unresolved`, `too_big`.
    fn undeliverable(&self, packet: Undeliverable<'_>) -> Answer {
        match packet.obstacle {
            Obstacle::Unresolved => Answer::Drop(DropReason::Unresolved),
            Obstacle::TooBig { .. } => Answer::Drop(DropReason::TooBig),
        }
    }
}

/// A packet on the ring.
#[derive(Debug)]
pub struct Upcall {
    /// The packet, in a buffer of the datapath's pool: give it back with [`Datapath::free`](super::Datapath::free) or to a worker's
    /// `execute`.
    pub packet: Packet,
    /// Its key.
    pub key: FlowKey,
    /// As [`Miss::is_copy`].
    pub is_copy: bool,
    /// The action's parameters; `None` for a miss.
    pub request: Option<Arc<Userspace>>,
}
