//! What the engine hands out while it carries a burst: the `transmit` callback.

use core::ffi::c_void;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use ahash::AHashMap;
use wye::datapath::{LocalPorts, Sink};
use wye::flow::Ext;
use wye::packet::{DropReason, Fate, Owner, Packet};
use wye::port::TxBurst;

use crate::boundary::panic_message;
use crate::packet::wye_packet;
use crate::worker::wye_worker_ops;

/// The engine's sink: the `transmit` callback.
pub(crate) struct Callback<'a> {
    pub(crate) ops: &'a wye_worker_ops,
    pub(crate) ctx: *mut c_void,
    pub(crate) views: &'a mut [wye_packet],
    pub(crate) pointers: &'a mut [*mut wye_packet],
    /// Ports that the worker drives; while it polls them the engine asks them itself.
    pub(crate) ports: Option<&'a mut LocalPorts>,
    /// Of packets of the library's that wait for `transmit`: by buffer, what the engine kept beside their descriptors.
    pub(crate) rare: &'a mut AHashMap<usize, (u32, [u8; 16])>,
    pub(crate) panicked: Option<String>,
}

/// What is left in a packet of the caller's that goes back to it.
fn leave(packet: &Packet, ext: &Ext) -> bool {
    let Some(at) = wye_packet::of(packet) else { return false };
    // SAFETY: the caller's descriptor that this packet was made from; nobody took it yet.
    unsafe { (*at).take(ext) };
    true
}

impl Sink for Callback<'_> {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        if let Some(ports) = self.ports.as_mut().filter(|ports| ports.reaches(port)) {
            return ports.transmit(port, burst);
        }
        let Some(transmit) = self.ops.transmit else { return (0, DropReason::PortDown) };
        if self.panicked.is_some() {
            return (0, DropReason::Shutdown);
        }
        let n = burst.len();
        let views = self.views.as_mut_ptr();
        for (i, pointer) in self.pointers[..n].iter_mut().enumerate() {
            let packet = burst.get(i);
            *pointer = match wye_packet::of(packet) {
                Some(at) => {
                    // SAFETY: the caller's descriptor that this packet was made from; nobody took it yet.
                    unsafe {
                        wye_packet::write_back(at, packet);
                        (*at).end(Fate::Transmitted);
                    }
                    at
                }
                None => {
                    let mut view = wye_packet::view(packet);
                    if !self.rare.is_empty() {
                        let rare = self.rare.remove(&packet.buffer_ptr().addr());
                        (view.skb_priority, view.ct_label) = rare.unwrap_or_default();
                    }
                    view.end(Fate::Transmitted);
                    // SAFETY: `i < n`, and there are as many views as pointers, of which `..n` exists.
                    unsafe {
                        let at = views.add(i);
                        at.write(view);
                        at
                    }
                }
            };
        }
        let pointers = self.pointers.as_mut_ptr();
        // SAFETY: the callback came with this context; the list has `n` valid descriptors.
        let call = || unsafe { transmit(self.ctx, port, pointers, n) };
        let taken = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(taken) => taken.min(n),
            Err(payload) => {
                // Nobody knows which it took: a leak is better than to give back what somebody else has.
                self.panicked = Some(panic_message(&*payload).to_owned());
                n
            }
        };
        for i in 0..taken {
            let packet = burst.get(i);
            if packet.owner() == Owner::Caller {
                let ext = packet.ext;
                let _ = packet.take();
                // The engine frees this place with the descriptor.
                packet.ext = ext;
            }
        }
        (taken, DropReason::TxFull)
    }

    fn sends(&mut self, port: u32, packet: &Packet, ext: &Ext) {
        let is_driven = self.ports.as_ref().is_some_and(|ports| ports.reaches(port));
        if !leave(packet, ext) && !is_driven && self.ops.transmit.is_some() && self.panicked.is_none() {
            let mut view = wye_packet::EMPTY;
            view.take(ext);
            self.rare.insert(packet.buffer_ptr().addr(), (view.skb_priority, view.ct_label));
        }
    }

    fn ends(&mut self, packet: &Packet, ext: &Ext) {
        leave(packet, ext);
    }
}
