//! Packets that the control side sends: ARP requests, ICMP errors, what waited for a neighbour.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use std::sync::{Arc, Mutex, Weak};

use wye::datapath::InjectError;
use wye::flow::netlink::decode_actions;
use wye::port::wait::Doorbell;

use crate::boundary::{self, Intent, on_datapath};
use crate::datapath::{lock, wye_datapath};
use crate::status::{Fault, WYE_E_FULL, WYE_E_NO_MEMORY, wye_error, wye_status};

/// The bells of a datapath's workers that may sleep.
///
/// *Thread-safety.* A mutex; packets are injected seldom.
#[derive(Debug, Default)]
pub(crate) struct Bells(Mutex<Vec<Weak<Doorbell>>>);

impl Bells {
    pub(crate) fn add(&self, bell: &Arc<Doorbell>) {
        let mut bells = lock(&self.0);
        bells.retain(|bell| bell.strong_count() != 0);
        bells.push(Arc::downgrade(bell));
    }

    pub(crate) fn ring(&self) {
        lock(&self.0).iter().filter_map(Weak::upgrade).for_each(|bell| bell.ring());
    }
}

impl From<InjectError> for Fault {
    fn from(e: InjectError) -> Self {
        match e {
            InjectError::Actions(e) => e.into(),
            InjectError::Full => Fault::new(WYE_E_FULL, e.to_string()),
            InjectError::NoBuffer(_) => Fault::new(WYE_E_NO_MEMORY, e.to_string()),
            _ => Fault::invalid(e.to_string()),
        }
    }
}

/// Has a worker carry out `actions` on a packet of these bytes that came in on `in_port`, without a lookup: the next worker of the datapath that carries
/// packets, in `wye_worker_process` or `wye_worker_poll`. One that sleeps in `wye_worker_wait` is woken. The packet is copied into a buffer of the
/// datapath's; as many may wait as upcalls may, `upcalls_max`. Actions without an output drop it.
///
/// Any thread, also from a callback. Does not block. `WYE_E_FULL` if too many wait, `WYE_E_NO_MEMORY` without a buffer that is free and large enough,
/// `WYE_E_UNSUPPORTED` (the detail names the action), `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `bytes` is valid for reads of `len` bytes, `actions` of `actions_len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_datapath_inject(
    datapath: Option<&wye_datapath>,
    bytes: *const c_void,
    len: usize,
    in_port: u32,
    actions: *const c_void,
    actions_len: usize,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract, twice.
        let (bytes, actions) =
            unsafe { (boundary::bytes(bytes, len, "bytes")?, boundary::bytes(actions, actions_len, "actions")?) };
        if bytes.is_empty() {
            return Err(Fault::invalid("len: a packet has bytes"));
        }
        let actions = decode_actions(actions).map_err(|e| Fault::from(e).of("actions"))?;
        Ok(inner.engine.inject(bytes, in_port, &actions)?)
    })
}
