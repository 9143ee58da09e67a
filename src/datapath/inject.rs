//! Packets that the control side sends: ARP requests, ICMP errors, what waited for a neighbour.

use super::worker::Sink;
use super::{Datapath, Worker};
use crate::action::{CompileError, Program};
use crate::flow::action::Action;
use crate::packet::Packet;
use crate::time::Nanos;

/// Injected packets that a worker carries before those that it was called with.
const AT_ONCE: usize = 32;

/// A packet that waits for a worker, and what it will do to it.
pub(crate) struct Injected {
    pub(super) packet: Packet,
    program: Program,
}

impl core::fmt::Debug for Injected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Injected").field("len", &self.packet.len()).finish_non_exhaustive()
    }
}

/// Why a packet was not injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The pool has no buffer, or none that is large enough.
    #[error("no packet buffer for {0} bytes")]
    NoBuffer(usize),
    /// As many packets as upcalls may wait are waiting already; half as many, of [`Datapath::inject_spare`]'s.
    #[error("too many packets wait to be carried")]
    Full,
    /// The actions cannot be carried out.
    #[error(transparent)]
    Actions(#[from] CompileError),
}

impl Datapath {
    /// Has a worker carry out `actions` on a packet of these `bytes` that comes in on `in_port`, without a lookup. The next worker that carries
    /// packets does so; one that may be asleep is woken by what [`Datapath::set_injected`] set.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn inject(&self, bytes: &[u8], in_port: u32, actions: &[Action]) -> Result<(), InjectError> {
        let program = Program::compile(actions)?;
        let shared = &*self.shared;
        let mut packet = shared.pool.packet(bytes).ok_or(InjectError::NoBuffer(bytes.len()))?;
        packet.in_port = in_port;
        if let Err(mut back) = shared.injected.push(Injected { packet, program }) {
            shared.pool.free(&mut back.packet);
            return Err(InjectError::Full);
        }
        let woken = crate::sync::primitive::lock(&shared.on_inject).clone();
        if let Some(wake) = woken {
            wake();
        }
        Ok(())
    }

    /// As [`Datapath::inject`], for packets that others cause and could cause without end. It leaves half of the places, and half of the pool's
    /// buffers, to [`Datapath::inject`]: about so, since threads that inject at once do not wait for one another.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn inject_spare(&self, bytes: &[u8], in_port: u32, actions: &[Action]) -> Result<(), InjectError> {
        let places = self.shared.injected.capacity().min(self.shared.pool.capacity());
        if self.injected_waiting() >= places / 2 {
            return Err(InjectError::Full);
        }
        self.inject(bytes, in_port, actions)
    }

    /// Injected packets that no worker has carried yet.
    pub fn injected_waiting(&self) -> usize {
        self.shared.injected.len()
    }

    /// Sets what is called after each [`Datapath::inject`], on its thread: it wakes a worker that sleeps while no packets come.
    pub fn set_injected(&self, wake: Option<std::sync::Arc<dyn Fn() + Send + Sync>>) {
        *crate::sync::primitive::lock(&self.shared.on_inject) = wake;
    }
}

impl Worker {
    /// True if injected packets wait.
    #[inline(always)]
    pub(super) fn has_injected(&self) -> bool {
        !self.datapath().shared.injected.is_empty()
    }

    /// Carries injected packets.
    #[cold]
    #[inline(never)]
    pub(super) fn carry_injected(&mut self, now: Nanos, sink: &mut dyn Sink) {
        let datapath = self.datapath().clone();
        for _ in 0..AT_ONCE {
            let Some(Injected { mut packet, program }) = datapath.shared.injected.pop() else { return };
            self.count_injected();
            self.run_program(core::slice::from_mut(&mut packet), &program, now, sink);
            self.free(core::slice::from_mut(&mut packet), |_| {});
        }
    }
}
