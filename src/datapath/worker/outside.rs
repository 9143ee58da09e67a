//! What a burst reaches outside of itself: the sink, the observer, the upcall handler, the ring.

use std::sync::Arc;

use super::Sink;
use super::round::Running;
use crate::action::Program;
use crate::action::execute::Outside;
use crate::action::step::Step;
use crate::datapath::observe::Observer;
use crate::datapath::stats::WorkerCounters;
use crate::datapath::table::FlowPut;
use crate::datapath::upcall::{Answer, Miss, Punt, Undeliverable, Upcall};
use crate::datapath::{Datapath, FlowError, Published};
use crate::flow::action::{Action, Userspace};
use crate::flow::{Ext, FlowKey, extract};
use crate::packet::{DropReason, Fate, Owner, Packet, Pool};
use crate::port::driver::TxBurst;
use crate::time::Nanos;
use crate::tunnel::Obstacle;

/// The executor's outside: the sink, the observer, the handler, the ring.
pub(super) struct Outer<'o, O> {
    pub(super) sink: &'o mut dyn Sink,
    pub(super) observer: &'o mut O,
    pub(super) published: &'o Published,
    pub(super) datapath: &'o Datapath,
    pub(super) counters: &'o WorkerCounters,
    pub(super) now: Nanos,
}

impl<O> Outer<'_, O> {
    /// Puts a packet onto the upcall ring, in a pool buffer; the packet's fate.
    fn queue(&mut self, packet: &mut Packet, key: &FlowKey, request: Option<&Arc<Userspace>>, is_copy: bool) -> Fate {
        let pool = self.datapath.pool();
        let queued = if packet.owner() == Owner::Pool { Some(packet.take()) } else { copy_to(pool, packet) };
        let Some(mut queued) = queued else {
            return Fate::Dropped(DropReason::NoBuffer);
        };
        // The metadata's place is the worker's to free; the key has all of it.
        queued.ext = 0;
        let upcall = Upcall { packet: queued, key: *key, is_copy, request: request.cloned() };
        match self.datapath.shared.upcalls.push(upcall) {
            Ok(()) => Fate::Upcall,
            Err(mut back) => {
                pool.free(&mut back.packet);
                Fate::Dropped(DropReason::UpcallLost)
            }
        }
    }
}

fn copy_to(pool: &Pool, packet: &Packet) -> Option<Packet> {
    let mut copy = pool.packet(packet.data())?;
    copy.copy_metadata(packet);
    copy.ext = 0;
    Some(copy)
}

impl<O: Observer> Outside for Outer<'_, O> {
    const WATCHED: bool = O::STEPS;

    fn step(&mut self, r: u16, step: Step<'_>) {
        self.observer.step(r, step);
    }

    #[inline]
    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason) {
        self.sink.transmit(port, burst)
    }

    #[inline]
    fn shares(&self) -> bool {
        self.sink.shares()
    }

    fn sends(&mut self, port: u32, packet: &Packet, ext: &Ext) {
        self.sink.sends(port, packet, ext);
    }

    fn ends(&mut self, packet: &Packet, ext: &Ext) {
        self.sink.ends(packet, ext);
    }

    fn userspace(
        &mut self,
        request: &Arc<Userspace>,
        packet: &mut Packet,
        ext: Option<&Ext>,
        is_copy: bool,
    ) -> Result<Vec<Action>, Fate> {
        if !self.published.upcalls_enabled {
            return Err(Fate::Dropped(DropReason::UpcallLost));
        }
        let key = extract::extract_whole(packet, ext, self.datapath.shared.extract).map_err(Fate::Dropped)?;
        let Some(handler) = &self.published.handler else {
            return Err(self.queue(packet, &key, Some(request), is_copy));
        };
        match handler.punt(Punt { packet, ext, key: &key, is_copy, request, now: self.now }) {
            Answer::Execute { actions, .. } => Ok(actions),
            Answer::Consumed => Err(Fate::Upcall),
            Answer::Queue => Err(self.queue(packet, &key, Some(request), is_copy)),
            Answer::Refuse => Err(Fate::Dropped(DropReason::UpcallRefused)),
            Answer::Drop(reason) => Err(Fate::Dropped(reason)),
        }
    }

    fn undeliverable(
        &mut self,
        tunnel: u32,
        id: Option<u32>,
        obstacle: Obstacle,
        packet: &mut Packet,
        ext: Option<&Ext>,
        is_copy: bool,
    ) -> Result<Vec<Action>, Fate> {
        let reason = match obstacle {
            Obstacle::Unresolved => DropReason::Unresolved,
            Obstacle::TooBig { .. } => DropReason::TooBig,
        };
        let (Some(handler), true) = (&self.published.handler, self.published.upcalls_enabled) else {
            return Err(Fate::Dropped(reason));
        };
        let key = extract::extract_whole(packet, ext, self.datapath.shared.extract).map_err(Fate::Dropped)?;
        let now = self.now;
        match handler.undeliverable(Undeliverable { packet, ext, key: &key, is_copy, tunnel, id, obstacle, now }) {
            Answer::Execute { actions, .. } => Ok(actions),
            Answer::Consumed => Err(Fate::Upcall),
            Answer::Queue | Answer::Refuse => Err(Fate::Dropped(reason)),
            Answer::Drop(reason) => Err(Fate::Dropped(reason)),
        }
    }
}

/// No flow matches packet `r`: asks the handler.
pub(super) fn miss<O: Observer>(exec: &mut Running<'_, '_, O>, r: u16, key: &FlowKey) {
    let published = exec.outside.published;
    let Some(handler) = &published.handler else {
        return exec.end(r, Fate::Dropped(DropReason::Miss));
    };
    if !published.upcalls_enabled {
        return exec.end(r, Fate::Dropped(DropReason::UpcallLost));
    }
    let now = exec.settings.now;
    let mut packet = exec.packet(r).take();
    // The place of the rarer metadata stays here, also when the handler keeps the packet.
    let place = core::mem::take(&mut packet.ext);
    let ext = exec.executor.ext(place).cloned();
    let is_copy = exec.is_copy(r);
    let answer = handler.miss(Miss { packet: &mut packet, ext: ext.as_ref(), key, is_copy, now });
    packet.ext = place;
    let fate = match answer {
        Answer::Execute { actions, install } => {
            *exec.packet(r) = packet;
            if let Some(install) = install {
                let put = FlowPut {
                    ufid: install.ufid,
                    idle_timeout_ns: install.idle_timeout_ns,
                    hard_timeout_ns: install.hard_timeout_ns,
                    now,
                    ..FlowPut::create(key, &install.mask, install.actions.unwrap_or_else(|| actions.clone()))
                };
                // Another worker may have been faster; then its flow stands.
                match exec.outside.datapath.flow_put(put) {
                    Ok(_) | Err(FlowError::Exists) => {}
                    Err(_) => exec.outside.counters.flows_refused.add(1),
                }
            }
            match Program::compile(&actions) {
                Ok(program) => exec.run(&program, &[r], None),
                Err(_) => exec.end(r, Fate::Dropped(DropReason::UnsupportedAction)),
            }
            return;
        }
        Answer::Consumed => Fate::Upcall,
        Answer::Queue => {
            if let Some(ext) = &ext {
                exec.outside.ends(&packet, ext);
            }
            exec.executor.free_ext(&mut packet);
            exec.outside.queue(&mut packet, key, None, is_copy)
        }
        Answer::Refuse => Fate::Dropped(DropReason::UpcallRefused),
        Answer::Drop(reason) => Fate::Dropped(reason),
    };
    *exec.packet(r) = packet;
    exec.end(r, fate);
}
