//! Upcalls: what a packet needs an answer to that no flow has.
//!
//! The engine asks in the middle of a burst. A callback that answered there could not use the worker, as Open vSwitch does when it answers: so
//! the packet is parked, the burst goes on without it, and the callback is called when the engine has been left. Its answer is then
//! carried out on the packet. Upcalls that the answer causes wait behind it.

use core::ffi::{c_char, c_void};
use core::mem::MaybeUninit;
use std::sync::Arc;

use wye::datapath::{Answer, Miss, Punt, Undeliverable, Upcall, UpcallHandler};
use wye::flow::FlowKey;
use wye::flow::action::{Action, Userspace};
use wye::flow::netlink::{encode_actions, encode_key};
use wye::packet::{DropReason, Packet};
use wye::tunnel::Obstacle;

use crate::boundary::{self, Handle, Intent, Tag, on_datapath};
use crate::datapath::{Inner, wye_datapath};
use crate::flow::WYE_UFID_LEN;
use crate::packet::wye_packet;
use crate::status::{Outcome, WYE_E_NOT_FOUND, wye_error, wye_status};
use crate::worker::with_current;

/// No flow matched the packet.
pub const WYE_UPCALL_MISS: u32 = 0;
/// A `userspace` action handed the packet up.
pub const WYE_UPCALL_ACTION: u32 = 1;
/// `encap` cannot send the packet through its tunnel: `obstacle` says why. To be answered with actions, `encap` again once the way is known or
/// the packet shorter, or `WYE_VERDICT_DONE`, for who keeps a copy or sends the sender an error. Dropped, it counts as `unresolved` or `too_big`. Such upcalls
/// never go onto the ring.
pub const WYE_UPCALL_UNDELIVERABLE: u32 = 2;

/// The tunnel's way is not known: no `header`, or `out_port` is `WYE_PORT_NONE`.
pub const WYE_OBSTACLE_UNRESOLVED: u32 = 1;
/// The packet is longer than `inner_max`.
pub const WYE_OBSTACLE_TOO_BIG: u32 = 2;

/// Drop the packet: `upcall_refused`. What an untouched answer says.
pub const WYE_VERDICT_DROP: u32 = 0;
/// Carry out `actions` on the packet.
pub const WYE_VERDICT_EXECUTE: u32 = 1;
/// Nothing more to do, the packet ends here: its fate is `WYE_FATE_UPCALL`.
pub const WYE_VERDICT_DONE: u32 = 2;

/// In `wye_answer.flags`, on a miss: install a flow of the packet's key, `mask` and the actions, unless an installed flow matches by now.
pub const WYE_ANSWER_INSTALL: u32 = 1;

/// An upcall. Everything in it is valid until the callback returns (or the queued upcall is freed).
#[repr(C)]
pub struct wye_upcall {
    /// `WYE_UPCALL_*`. Later versions may add some, for who uses what they are for; the answer to an unknown one is to leave the answer alone.
    pub kind: u32,
    /// Bytes of `key`.
    pub key_len: u32,
    /// Bytes of `action`.
    pub action_len: u32,
    /// Zero.
    pub reserved: u32,
    /// The packet as it is now. The frame's bytes may be changed, and so may, in a descriptor of the caller's, whatever is set when a packet
    /// is handed in.
    pub packet: *mut wye_packet,
    /// The packet's key, as attributes.
    pub key: *const c_void,
    /// The `OVS_ACTION_ATTR_USERSPACE` attribute that handed the packet up; NULL for other kinds.
    pub action: *const c_void,
    /// The `now_ns` of the burst.
    pub now_ns: u64,
    /// `WYE_UPCALL_UNDELIVERABLE`: the tunnel's number.
    pub tunnel: u32,
    /// `WYE_UPCALL_UNDELIVERABLE`: `WYE_OBSTACLE_*`; else 0.
    pub obstacle: u32,
    /// `WYE_OBSTACLE_TOO_BIG`: bytes of the longest packet that gets through, Ethernet header included.
    pub inner_max: u32,
    /// `WYE_UPCALL_UNDELIVERABLE`: 1 if `encap` was told an identifier, `tun_id`; else 0.
    pub has_tun_id: u32,
    /// That identifier.
    pub tun_id: u32,
    /// Zero: room for later versions.
    pub reserved2: [u32; 3],
}

const _: () = assert!(size_of::<wye_upcall>() == 16 + 4 * size_of::<*const c_void>() + 32);

/// What is to be done about an upcall. All zero when the callback gets it, which means: drop the packet. What it points to must stay valid until the
/// next callback of this worker, or until the call that made the upcall returns, whichever is first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_answer {
    /// `WYE_VERDICT_*`.
    pub verdict: u32,
    /// `WYE_ANSWER_*`.
    pub flags: u32,
    /// Actions for the packet, and for the flow unless `flow_actions` is given.
    pub actions: *const c_void,
    /// The flow's actions where they differ from the packet's; NULL else.
    pub flow_actions: *const c_void,
    /// Which of the key's fields the flow matches; NULL with length 0 for all of them.
    pub mask: *const c_void,
    /// Bytes of `actions`.
    pub actions_len: u32,
    /// Bytes of `flow_actions`.
    pub flow_actions_len: u32,
    /// Bytes of `mask`.
    pub mask_len: u32,
    /// Zero.
    pub reserved: u32,
    /// The flow's identifier; all zero: the library makes one.
    pub ufid: [u8; WYE_UFID_LEN],
    /// The flow goes after this many ns without a packet; 0 = never.
    pub idle_timeout_ns: u64,
    /// The flow goes this many ns after the burst's `now_ns`; 0 = never.
    pub hard_timeout_ns: u64,
    /// Actions as text, instead of `actions`; NUL-terminated or NULL.
    pub actions_text: *const c_char,
    /// What the flow matches as text, instead of `mask`: `"in_port(1),eth_type(0x0800)"`; NUL-terminated or NULL. The packet must match it.
    pub match_text: *const c_char,
    /// Zero: room for later versions.
    pub reserved2: [u64; 2],
}

impl wye_answer {
    pub(crate) const EMPTY: wye_answer = wye_answer {
        verdict: WYE_VERDICT_DROP,
        flags: 0,
        actions: core::ptr::null(),
        flow_actions: core::ptr::null(),
        mask: core::ptr::null(),
        actions_len: 0,
        flow_actions_len: 0,
        mask_len: 0,
        reserved: 0,
        ufid: [0; WYE_UFID_LEN],
        idle_timeout_ns: 0,
        hard_timeout_ns: 0,
        actions_text: core::ptr::null(),
        match_text: core::ptr::null(),
        reserved2: [0; 2],
    };
}

/// Why a packet goes up.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// No flow matched it.
    Miss,
    /// The parameters of `userspace`.
    Action(Userspace),
    /// `encap` into this tunnel failed.
    Undeliverable { tunnel: u32, id: Option<u32>, obstacle: Obstacle },
}

impl Cause {
    pub(crate) fn is_miss(&self) -> bool {
        matches!(self, Cause::Miss)
    }

    /// Why the packet is dropped if the answer is to drop it.
    pub(crate) fn refused(&self) -> DropReason {
        match self {
            Cause::Miss | Cause::Action(_) => DropReason::UpcallRefused,
            Cause::Undeliverable { obstacle: Obstacle::Unresolved, .. } => DropReason::Unresolved,
            Cause::Undeliverable { obstacle: Obstacle::TooBig { .. }, .. } => DropReason::TooBig,
        }
    }
}

/// A packet that waits for its answer.
pub(crate) struct Parked {
    pub(crate) packet: Packet,
    pub(crate) key: FlowKey,
    pub(crate) cause: Cause,
    /// How often it has been parked and brought back without an answer, because a flow seemed to be there.
    pub(crate) retries: u8,
    /// How many answers have been carried out on it already.
    pub(crate) answers: u8,
    /// An action made it, so it is in no sum of packets.
    pub(crate) is_copy: bool,
}

/// An upcall's attributes, in buffers that are used again.
#[derive(Default)]
pub(crate) struct Attributes {
    key: Vec<u8>,
    action: Vec<u8>,
}

impl Attributes {
    /// Writes key and action, and describes the upcall.
    pub(crate) fn upcall(
        &mut self,
        packet: *mut wye_packet,
        key: &FlowKey,
        cause: &Cause,
        now_ns: u64,
    ) -> Outcome<wye_upcall> {
        self.key.clear();
        self.action.clear();
        encode_key(key, &mut self.key);
        let kind = match cause {
            Cause::Miss => WYE_UPCALL_MISS,
            Cause::Action(request) => {
                encode_actions(&vec![Action::Userspace(request.clone())], &mut self.action)?;
                WYE_UPCALL_ACTION
            }
            Cause::Undeliverable { .. } => WYE_UPCALL_UNDELIVERABLE,
        };
        let (tunnel, id, obstacle, inner_max) = match *cause {
            Cause::Undeliverable { tunnel, id, obstacle: Obstacle::Unresolved } => {
                (tunnel, id, WYE_OBSTACLE_UNRESOLVED, 0)
            }
            Cause::Undeliverable { tunnel, id, obstacle: Obstacle::TooBig { inner_max } } => {
                (tunnel, id, WYE_OBSTACLE_TOO_BIG, inner_max)
            }
            Cause::Miss | Cause::Action(_) => (0, None, 0, 0),
        };
        let at = |bytes: &Vec<u8>| if bytes.is_empty() { core::ptr::null() } else { bytes.as_ptr().cast() };
        Ok(wye_upcall {
            kind,
            key_len: self.key.len() as u32,
            action_len: self.action.len() as u32,
            reserved: 0,
            packet,
            key: at(&self.key),
            action: at(&self.action),
            now_ns,
            tunnel,
            obstacle,
            inner_max,
            has_tun_id: id.is_some().into(),
            tun_id: id.unwrap_or_default(),
            reserved2: [0; 3],
        })
    }
}

/// The engine's handler: parks the packet with the worker that is asking, or sends it to the ring if that worker has no callback.
pub(crate) struct Dispatcher;

impl UpcallHandler for Dispatcher {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        let parked = with_current(|worker| {
            worker.park(miss.packet, |at| Parked {
                packet: at.take(),
                key: *miss.key,
                cause: Cause::Miss,
                retries: worker.retries(),
                answers: worker.answers(),
                is_copy: miss.is_copy,
            })
        });
        parked.unwrap_or(Answer::Queue)
    }

    fn punt(&self, punt: Punt<'_>) -> Answer {
        let parked = with_current(|worker| {
            worker.park(punt.packet, |at| Parked {
                packet: at.take(),
                key: *punt.key,
                cause: Cause::Action(punt.request.clone()),
                retries: 0,
                answers: worker.answers(),
                is_copy: punt.is_copy,
            })
        });
        parked.unwrap_or(Answer::Queue)
    }

    fn undeliverable(&self, packet: Undeliverable<'_>) -> Answer {
        let Undeliverable { packet, key, is_copy, tunnel, id, obstacle, .. } = packet;
        let parked = with_current(|worker| {
            worker.park(packet, |at| Parked {
                packet: at.take(),
                key: *key,
                cause: Cause::Undeliverable { tunnel, id, obstacle },
                retries: 0,
                answers: worker.answers(),
                is_copy,
            })
        });
        // Refused, the engine says why.
        parked.unwrap_or(Answer::Refuse)
    }
}

/// Why a packet of the ring went up.
pub(crate) fn cause_of(request: Option<&Userspace>) -> Cause {
    request.map_or(Cause::Miss, |request| Cause::Action(request.clone()))
}

/// An upcall that was taken off the ring. It holds a buffer of the datapath's pool until it is answered or freed.
pub struct wye_queued_upcall {
    tag: Tag,
    inner: Arc<Inner>,
    pub(crate) upcall: Option<Upcall>,
    view: wye_packet,
    attributes: Attributes,
}

impl Handle for wye_queued_upcall {
    const TAG: u64 = u64::from_be_bytes(*b"WyeQueue");
    const NAME: &'static str = "wye_queued_upcall";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl Drop for wye_queued_upcall {
    fn drop(&mut self) {
        if let Some(mut upcall) = self.upcall.take()
            && !self.inner.is_forked()
        {
            self.inner.engine.free(&mut upcall.packet);
        }
    }
}

impl wye_queued_upcall {
    pub(crate) fn is_of(&self, inner: &Inner) -> bool {
        core::ptr::eq(&*self.inner, inner)
    }
}

/// Takes the oldest upcall off the ring: those of workers without an `upcall` callback go there, as long as there is room (else they are
/// dropped: `upcall_lost`). The caller frees `*queued` with `wye_queued_upcall_free` or answers it with `wye_worker_answer`. `*upcall` describes it, until
/// then; its packet's bytes may be read and changed.
///
/// Any thread, also from a callback. Does not block. `WYE_E_NOT_FOUND` if none waits, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_upcall_pop(
    datapath: Option<&wye_datapath>,
    queued: Option<&mut MaybeUninit<*mut wye_queued_upcall>>,
    upcall: Option<&mut MaybeUninit<wye_upcall>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |_| {
        let inner = Arc::clone(boundary::live(datapath)?.inner());
        let out = boundary::out(queued, "queued")?;
        let description = boundary::out(upcall, "upcall")?;
        let Some(popped) = inner.engine.upcall_pop() else {
            return Err(crate::status::Fault::new(WYE_E_NOT_FOUND, "no upcall waits"));
        };
        let mut queued = Box::new(wye_queued_upcall {
            tag: Tag::live::<wye_queued_upcall>(),
            inner,
            view: wye_packet::view_with(&popped.packet, &popped.key),
            attributes: Attributes::default(),
            upcall: Some(popped),
        });
        let this = &mut *queued;
        if let Some(upcall) = &this.upcall {
            let packet = &raw mut this.view;
            let cause = cause_of(upcall.request.as_deref());
            description.write(this.attributes.upcall(packet, &upcall.key, &cause, 0)?);
        }
        out.write(Box::into_raw(queued));
        Ok(())
    })
}

/// Upcalls that wait on the ring; 0 if the handle is none. Any thread, also from a callback; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_upcalls_waiting(datapath: Option<&wye_datapath>) -> usize {
    let mut waiting = 0;
    on_datapath(datapath, None, Intent::Drain, |inner| {
        waiting = inner.engine.upcalls_waiting();
        Ok(())
    });
    waiting
}

/// Frees a queued upcall and its packet; NULL is legal. Any thread; does not block. Since 0.1.
///
/// # Safety
/// `queued` is NULL or came from `wye_upcall_pop` and was neither freed nor answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_queued_upcall_free(queued: *mut wye_queued_upcall) {
    // SAFETY: as this function's contract.
    unsafe { boundary::free(queued) }
}
