//! Workers: who carries packets.
//!
//! A call goes through the engine a burst at a time. Inside the engine `transmit` is called; what else the caller must hear (upcalls, packets that
//! are done) is kept until the engine has been left, so that those callbacks may use the worker again.
//!
//! ```text
//!   process ─▶ engine ──▶ transmit        engine left ─▶ release ─▶ upcall ─▶ engine ─▶ … until none waits
//!                 └─────▶ parked upcalls ────────────────────────────▲
//! ```

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::{MaybeUninit, offset_of};
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, TryLockError};

use ahash::AHashMap;
use wye::action::RECIRCULATIONS_MAX;
use wye::datapath::stats::WorkerCounters;
use wye::datapath::{Answer, FlowId, LocalPorts, Sink, Upcall, Worker};
use wye::flow::Ext;
use wye::flow::action::{Action, Actions, Masked, SetField};
use wye::flow::netlink::{decode_actions, encode_key};
use wye::packet::{DropReason, Fate, Owner, Packet, PacketFlags};
use wye::port::TxBurst;
use wye::port::driver::BURST_MAX;
use wye::port::wait::Waiter;
use wye::time::Nanos;

use crate::boundary::{self, Handle, Intent, Sized_, Tag, guarded, panic_message};
use crate::datapath::{Inner, lock, wye_datapath};
use crate::flow::{Put, WYE_PUT_CREATE, WYE_PUT_UNLESS_MATCHED};
use crate::log::{WYE_LOG_ERROR, WYE_LOG_WARN};
use crate::packet::{wye_fate, wye_packet};
use crate::status::{
    Fault, Outcome, WYE_E_BUSY, WYE_E_EXISTS, WYE_E_IO, WYE_E_MATCHED, WYE_E_NOT_FOUND, WYE_E_PANIC, WYE_E_UNSUPPORTED,
    wye_error, wye_status,
};
use crate::turn::{Claim, Turn, Turns};
use crate::upcall::{
    Attributes, Parked, WYE_ANSWER_INSTALL, WYE_VERDICT_DONE, WYE_VERDICT_DROP, WYE_VERDICT_EXECUTE, wye_answer,
    wye_queued_upcall, wye_upcall,
};

/// Upcalls of one worker that may wait at a time; more are dropped: `upcall_refused`.
const PARKED_MAX: usize = 8192;

/// How often a parked miss is looked up again because a flow for it seems to be there.
const RETRIES_MAX: u8 = 3;

/// Sends packets to a port: takes them from the front of the list and returns how many; those behind are dropped (`tx_full`). A packet that was
/// taken is the callee's: if it is the caller's own (no `WYE_PKT_ENGINE`), its descriptor is the very one that was handed in, and the
/// library never touches it or its buffer again. A packet of the library's (`WYE_PKT_ENGINE`) is valid during the call: copy its bytes.
///
/// Called on the worker's thread while the engine is inside a burst: it must not use this worker (`WYE_E_BUSY`); everything else is legal.
pub type wye_transmit_fn =
    Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, port: u32, packets: *mut *mut wye_packet, n: usize) -> usize>;

/// Gives packets of the caller's back that were not transmitted: dropped, consumed by an upcall, or sent as a copy. Their `fate` says
/// what became of them.
///
/// Called on the worker's thread, outside of the engine: everything is legal, also `wye_worker_execute` on this worker.
pub type wye_release_fn =
    Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, packets: *mut *mut wye_packet, n: usize)>;

/// Answers an upcall: fills `answer`, or leaves it alone to drop the packet. May install flows itself.
///
/// Called on the worker's thread, outside of the engine: everything is legal, also `wye_worker_execute` on this worker (its own upcalls wait
/// until this one is answered), but not with the packet of this upcall. A packet that comes up again after its ninth answer is dropped:
/// `recirculation_limit`.
pub type wye_upcall_fn =
    Option<unsafe extern "C-unwind" fn(ctx: *mut c_void, upcall: *const wye_upcall, answer: *mut wye_answer)>;

/// A worker's callbacks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_worker_ops {
    /// `sizeof(struct wye_worker_ops)`.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Sends packets. NULL: every output is a drop (`port_down`).
    pub transmit: wye_transmit_fn,
    /// Takes packets back. NULL: the caller looks at `fate` when the call returns; whatever `transmit` did not take is its own.
    pub release: wye_release_fn,
    /// Answers upcalls. NULL: they go onto the datapath's ring, see `wye_upcall_pop`.
    pub upcall: wye_upcall_fn,
}

// SAFETY: `repr(C)`, `size` first; integers and `Option`s of function pointers.
unsafe impl Sized_ for wye_worker_ops {
    const FIRST: usize = offset_of!(wye_worker_ops, upcall) + size_of::<wye_upcall_fn>();
    const NAME: &'static str = "wye_worker_ops";
}

/// The packet stays the caller's, whatever happens: `transmit` gets copies, `release` is not called, the changes that actions made are visible in it. Its
/// fate is `WYE_FATE_KEPT` or `WYE_FATE_DROPPED`. It does not move to another buffer: without headroom for a header that an action pushes it is dropped,
/// `no_headroom`.
pub const WYE_EXECUTE_KEEP: u32 = 1;

/// Carries packets. May move between threads, but one thread at a time uses it; a second one is answered `WYE_E_BUSY`. Between calls it
/// holds nothing: an idle worker delays nobody.
pub struct wye_worker {
    tag: Tag,
    inner: Arc<Inner>,
    turns: Arc<Turns>,
    counters: Arc<WorkerCounters>,
    ops: wye_worker_ops,
    ctx: *mut c_void,
    engine: Mutex<Engine>,
    parked: Mutex<VecDeque<Parked>>,
    is_delivering: AtomicBool,
    /// `retries` of what is being carried.
    retries: AtomicU8,
    /// `answers` of what is being carried.
    answers: AtomicU8,
}

impl Handle for wye_worker {
    const TAG: u64 = u64::from_be_bytes(*b"WyeWorke");
    const NAME: &'static str = "wye_worker";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

thread_local! {
    /// The worker whose engine runs on this thread; the engine's handler has no other way to know.
    static CURRENT: Cell<*const wye_worker> = const { Cell::new(core::ptr::null()) };
}

/// Calls `f` with the worker whose engine runs on this thread.
pub(crate) fn with_current<R>(f: impl FnOnce(&wye_worker) -> Option<R>) -> Option<R> {
    // SAFETY: set by `Current`, which borrows the worker for as long as the pointer stands here.
    unsafe { CURRENT.get().as_ref() }.and_then(f)
}

/// Makes a worker the current one.
struct Current<'a> {
    before: *const wye_worker,
    _worker: &'a wye_worker,
}

impl<'a> Current<'a> {
    fn set(worker: &'a wye_worker) -> Self {
        Current { before: CURRENT.replace(worker), _worker: worker }
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The engine's worker and the arrays that packets pass through.
struct Engine {
    worker: Worker,
    batch: Vec<Packet>,
    views: Box<[wye_packet]>,
    pointers: Box<[*mut wye_packet]>,
    /// See [`Callback`]; here for its memory.
    rare: AHashMap<usize, (u32, [u8; 16])>,
    /// Ports that this worker drives, once there is one.
    ports: Option<Box<LocalPorts>>,
    waiter: Option<Waiter>,
}

/// Packets of the caller's that are done with.
struct Done {
    packets: [*mut wye_packet; BURST_MAX],
    n: usize,
}

impl Done {
    fn new() -> Self {
        Done { packets: [core::ptr::null_mut(); BURST_MAX], n: 0 }
    }

    fn push(&mut self, at: *mut wye_packet) {
        self.packets[self.n] = at;
        self.n += 1;
    }
}

/// What the engine is to do with a burst.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// Look the packets up.
    Process,
    /// Carry out actions.
    Execute(&'a [Action]),
}

/// The engine's sink: the `transmit` callback.
struct Callback<'a> {
    ops: &'a wye_worker_ops,
    ctx: *mut c_void,
    views: &'a mut [wye_packet],
    pointers: &'a mut [*mut wye_packet],
    /// Ports that the worker drives; while it polls them the engine asks them itself.
    ports: Option<&'a mut LocalPorts>,
    /// Of packets of the library's that wait for `transmit`: by buffer, what the engine kept beside their descriptors.
    rare: &'a mut AHashMap<usize, (u32, [u8; 16])>,
    panicked: Option<String>,
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

/// The engine's descriptor of a packet of the caller's.
///
/// # Safety
/// As `wye_packet::describe`.
#[inline]
unsafe fn take_in(worker: &mut Worker, at: *mut wye_packet) -> Packet {
    // SAFETY: this function's contract, twice.
    let (mut packet, w) = unsafe { (wye_packet::describe(at), &*at) };
    if w.is_rare()
        && packet.capacity() != 0
        && let Some(ext) = worker.ext_mut(&mut packet)
    {
        w.give(ext);
    }
    packet
}

impl wye_worker {
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    pub(crate) fn refused(&self) -> (u64, u64) {
        (self.turns.refused.load(Ordering::Relaxed), self.turns.lost.load(Ordering::Relaxed))
    }

    pub(crate) fn retries(&self) -> u8 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(crate) fn answers(&self) -> u8 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Parks an upcall; `None` if this worker has no callback for it.
    pub(crate) fn park(&self, packet: &mut Packet, make: impl FnOnce(&mut Packet) -> Parked) -> Option<Answer> {
        self.ops.upcall?;
        // The engine counts the recirculations of one round; an answer begins another.
        if self.answers() > RECIRCULATIONS_MAX {
            return Some(Answer::Drop(DropReason::RecirculationLimit));
        }
        let mut parked = lock(&self.parked);
        if parked.len() >= PARKED_MAX {
            return Some(Answer::Refuse);
        }
        if packet.owner() != Owner::Port {
            parked.push_back(make(packet));
            return Some(Answer::Consumed);
        }
        // A driver's buffer goes back to it when the poll ends, so a copy waits.
        let Some(mut copy) = self.inner.engine.pool().packet(packet.data()) else {
            return Some(Answer::Drop(DropReason::NoBuffer));
        };
        copy.copy_metadata(packet);
        parked.push_back(make(&mut copy));
        Some(Answer::Consumed)
    }

    /// Runs `f` on the ports that this worker drives, which it gets its first of here.
    pub(crate) fn with_ports<R>(&self, f: impl FnOnce(&mut LocalPorts) -> R) -> Outcome<R> {
        self.with_engine(|engine| f(engine.ports.get_or_insert_with(|| Box::new(LocalPorts::new(&self.inner.engine)))))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// One burst of each port.
    fn poll_ports(&self, engine: &mut Engine, now: Nanos) -> Outcome<usize> {
        let Engine { worker, views, pointers, ports, rare, .. } = engine;
        let Some(ports) = ports else { return Ok(0) };
        let mut sink = Callback { ops: &self.ops, ctx: self.ctx, views, pointers, ports: None, rare, panicked: None };
        let run = catch_unwind(AssertUnwindSafe(|| {
            let carried = worker.poll_beside(ports, now, &mut sink);
            ports.check(&self.inner.engine, now);
            carried
        }));
        match (run, sink.panicked.take()) {
            (Ok(_), Some(message)) => Err(self.poison(&format!("in the callback transmit: {message}"))),
            (Ok(carried), None) => Ok(carried),
            (Err(payload), _) => Err(self.poison(panic_message(&*payload))),
        }
    }

    /// Begins a call that carries packets; refused before it has touched any.
    fn begin(&self) -> Outcome<Turn<'_>> {
        // Nested in `transmit`, that is: else this thread does not have the engine.
        Turn::begin(&self.turns, || matches!(self.engine.try_lock(), Err(TryLockError::WouldBlock)))
    }

    fn with_engine<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> Outcome<R> {
        let _claim = Claim::new(&self.turns)?;
        let mut engine = match self.engine.try_lock() {
            Ok(engine) => engine,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Fault::new(WYE_E_BUSY, "the worker is carrying a burst just now"));
            }
        };
        let _current = Current::set(self);
        Ok(f(&mut engine))
    }

    /// Carries what is in the engine's batch. Packets of the caller's that are left go to `done`.
    fn carry(&self, engine: &mut Engine, work: Work<'_>, now_ns: u64, keep: bool, done: &mut Done) -> Outcome {
        let Engine { worker, batch, views, pointers, ports, rare, .. } = engine;
        let ports = ports.as_deref_mut();
        let mut sink = Callback { ops: &self.ops, ctx: self.ctx, views, pointers, ports, rare, panicked: None };
        let now = Nanos(now_ns);
        let run = catch_unwind(AssertUnwindSafe(|| match work {
            Work::Process => {
                worker.process(batch, now, &mut sink);
                Ok(())
            }
            Work::Execute(actions) => worker.execute(batch, actions, now, &mut sink),
        }));
        let (fates, outcome) = match run {
            Ok(Ok(())) => (Some(worker.fates()), Ok(())),
            // No packet was touched.
            Ok(Err(e)) => (None, Err(Fault::from(e))),
            Err(payload) => (None, Err(self.poison(panic_message(&*payload)))),
        };
        let outcome = match sink.panicked.take() {
            Some(message) => Err(self.poison(&format!("in the callback transmit: {message}"))),
            None => outcome,
        };
        let otherwise = match &outcome {
            Err(fault) if fault.status != WYE_E_PANIC => Fate::Dropped(DropReason::UnsupportedAction),
            _ => Fate::Dropped(DropReason::Shutdown),
        };
        for (i, packet) in batch.iter_mut().enumerate() {
            let Some(at) = wye_packet::of(packet) else { continue };
            let fate = fates.map_or(otherwise, |fates| fates[i]);
            // SAFETY: the caller's descriptor; nobody took it, or the packet would be gone.
            let w = unsafe {
                if packet.capacity() != 0 {
                    wye_packet::write_back(at, packet);
                }
                &mut *at
            };
            w.end(fate);
            if keep && matches!(fate, Fate::Transmitted | Fate::Dropped(DropReason::NoOutput)) {
                w.fate = wye_fate::WYE_FATE_KEPT as u16;
                w.reason = 0;
            }
            done.push(at);
        }
        // Left over only if no packet was touched.
        batch.iter_mut().for_each(|packet| worker.free_ext(packet));
        worker.free(batch, |_| {});
        batch.clear();
        outcome
    }

    fn poison(&self, message: &str) -> Fault {
        self.inner.poison(message);
        Fault::new(WYE_E_PANIC, format!("a panic was caught: {message}"))
    }

    /// Gives packets back.
    fn release(&self, done: &mut Done) -> Outcome {
        let n = core::mem::take(&mut done.n);
        let Some(release) = self.ops.release.filter(|_| n != 0) else { return Ok(()) };
        // SAFETY: the callback came with this context; the list has `n` valid descriptors of the caller's.
        let call = || unsafe { release(self.ctx, done.packets.as_mut_ptr(), n) };
        catch_unwind(AssertUnwindSafe(call))
            .map_err(|payload| self.poison(&format!("in the callback release: {}", panic_message(&*payload))))
    }

    /// Delivers the upcalls that wait, unless a call further out is doing so.
    fn deliver(&self, now_ns: u64) -> Outcome {
        if lock(&self.parked).is_empty() || self.is_delivering.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let mut attributes = Attributes::default();
        let mut outcome = Ok(());
        while let Some(parked) = { lock(&self.parked).pop_front() } {
            outcome = match outcome {
                Ok(()) => self.answer(parked, now_ns, &mut attributes),
                // Poisoned: what waits is given back.
                Err(fault) => self.finish(parked, Fate::Dropped(DropReason::Shutdown)).and(Err(fault)),
            };
        }
        self.is_delivering.store(false, Ordering::Relaxed);
        outcome
    }

    /// Ends a parked packet without carrying it any further.
    fn finish(&self, parked: Parked, fate: Fate) -> Outcome {
        let mut done = Done::new();
        let Parked { mut packet, is_copy, .. } = parked;
        match wye_packet::of(&packet) {
            Some(at) => {
                // SAFETY: the caller's descriptor, which was parked: nobody took it.
                unsafe {
                    if packet.capacity() != 0 {
                        wye_packet::write_back(at, &packet);
                    }
                    (*at).end(fate);
                }
                done.push(at);
            }
            None => self.inner.engine.free(&mut packet),
        }
        let count = |mine: &AtomicU64, all: &AtomicU64| {
            mine.fetch_add(1, Ordering::Relaxed);
            all.fetch_add(1, Ordering::Relaxed);
        };
        // A copy's end is in no sum of packets.
        if !is_copy {
            match fate {
                Fate::Dropped(DropReason::UpcallRefused) => {
                    count(&self.turns.refused, &self.inner.corrections.refused);
                }
                Fate::Dropped(DropReason::UpcallLost) => count(&self.turns.lost, &self.inner.corrections.lost),
                _ => {}
            }
        }
        self.release(&mut done)
    }

    /// Brings a parked packet back into the engine.
    fn again(&self, parked: Parked, work: Work<'_>, now_ns: u64) -> Outcome {
        // The engine has counted it as an upcall, a copy as sent.
        if !parked.is_copy {
            let corrections = &self.inner.corrections;
            corrections.again.fetch_add(1, Ordering::Relaxed);
            corrections.again_bytes.fetch_add(parked.packet.len() as u64, Ordering::Relaxed);
        }
        let mut done = Done::new();
        let outcome = self.with_engine(|engine| {
            engine.batch.clear();
            let mut packet = parked.packet;
            let mut ext = Ext::of_key(&parked.key);
            if let Some(at) = wye_packet::of(&packet) {
                // The callback may have changed it. SAFETY: the caller's descriptor, which was parked: nobody took it.
                unsafe { (*at).give(&mut ext) };
            }
            if !ext.is_empty()
                && packet.capacity() != 0
                && let Some(place) = engine.worker.ext_mut(&mut packet)
            {
                *place = ext;
            }
            engine.batch.push(packet);
            self.retries.store(parked.retries + 1, Ordering::Relaxed);
            self.answers.store(parked.answers + u8::from(matches!(work, Work::Execute(_))), Ordering::Relaxed);
            let outcome = self.carry(engine, work, now_ns, false, &mut done);
            self.retries.store(0, Ordering::Relaxed);
            self.answers.store(0, Ordering::Relaxed);
            outcome
        });
        self.release(&mut done).and(outcome?)
    }

    fn answer(&self, mut parked: Parked, now_ns: u64, attributes: &mut Attributes) -> Outcome {
        if let Some(at) = wye_packet::of(&parked.packet) {
            // SAFETY: the caller's descriptor, which was parked: nobody took it.
            unsafe {
                wye_packet::write_back(at, &parked.packet);
                (*at).take_of_key(&parked.key);
            }
        }
        if self.inner.check(Intent::Change).is_err() {
            return self.finish(parked, Fate::Dropped(DropReason::Shutdown));
        }
        if !self.inner.upcalls_enabled() {
            return self.finish(parked, Fate::Dropped(DropReason::UpcallLost));
        }
        // The packet in front of it may have installed the flow.
        if parked.request.is_none()
            && parked.retries < RETRIES_MAX
            && self.inner.engine.flow_get(FlowId::Matching(&parked.key)).is_ok()
        {
            return self.again(parked, Work::Process, now_ns);
        }
        parked.retries = 0;
        let Some(upcall) = self.ops.upcall else {
            return self.finish(parked, Fate::Dropped(DropReason::UpcallRefused));
        };
        let mut view;
        let at = match wye_packet::of(&parked.packet) {
            Some(at) => at,
            None => {
                view = wye_packet::view_with(&parked.packet, &parked.key);
                &raw mut view
            }
        };
        let description = match attributes.upcall(at, &parked.key, parked.request.as_ref(), now_ns) {
            Ok(description) => description,
            Err(_) => return self.finish(parked, Fate::Dropped(DropReason::UpcallRefused)),
        };
        let mut answer = wye_answer::EMPTY;
        // SAFETY: the callback came with this context; both pointers are valid during the call.
        let call = || unsafe { upcall(self.ctx, &description, &mut answer) };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
            let fault = self.poison(&format!("in the callback upcall: {}", panic_message(&*payload)));
            return self.finish(parked, Fate::Dropped(DropReason::Shutdown)).and(Err(fault));
        }
        if parked.packet.owner() == Owner::Caller {
            // The callback may have changed the descriptor. What only the engine knows stays.
            let copied = parked.packet.flags;
            // SAFETY: the descriptor is valid (contract of `process`), its buffer as well (contract of the callback).
            let mut packet = unsafe { wye_packet::describe(at) };
            packet.flags = PacketFlags::from_bits(packet.flags.bits() | copied.bits());
            parked.packet = packet;
        }
        match answer.verdict {
            WYE_VERDICT_EXECUTE => {
                // SAFETY: the callback's contract: what the answer points to is valid until this call returns.
                match unsafe { self.read(&answer, &parked, now_ns) } {
                    Ok(actions) => self.again(parked, Work::Execute(&actions), now_ns),
                    Err(fault) => {
                        self.inner.log.line(WYE_LOG_WARN, &format!("answer to an upcall: {}", fault.detail));
                        self.finish(parked, Fate::Dropped(DropReason::UpcallRefused))
                    }
                }
            }
            WYE_VERDICT_DONE => self.finish(parked, Fate::Upcall),
            verdict => {
                if verdict != WYE_VERDICT_DROP {
                    self.inner.log.line(WYE_LOG_WARN, &format!("answer to an upcall: no verdict has number {verdict}"));
                }
                self.finish(parked, Fate::Dropped(DropReason::UpcallRefused))
            }
        }
    }

    /// The actions of an answer; installs its flow. A flow that cannot be installed is logged, the packet goes on.
    ///
    /// # Safety
    /// What the answer points to is valid.
    unsafe fn read(&self, answer: &wye_answer, parked: &Parked, now_ns: u64) -> Outcome<Actions> {
        // SAFETY: this function's contract, three times.
        let (actions, flow_actions, mask) = unsafe {
            (
                boundary::bytes(answer.actions, answer.actions_len as usize, "actions")?,
                boundary::bytes(answer.flow_actions, answer.flow_actions_len as usize, "flow_actions")?,
                boundary::bytes(answer.mask, answer.mask_len as usize, "mask")?,
            )
        };
        // SAFETY: as above.
        let by_text = unsafe { boundary::text(answer.actions_text, "actions_text") }?;
        let by_text = by_text.map(|text| crate::text::read_actions(&self.inner, text, actions)).transpose()?;
        let actions = by_text.as_deref().unwrap_or(actions);
        let decoded = decode_actions(actions).map_err(|e| Fault::from(e).of("actions"))?;
        if answer.flags & !WYE_ANSWER_INSTALL != 0 {
            return Err(Fault::new(WYE_E_UNSUPPORTED, "the answer has fields that this library does not know"));
        }
        if answer.flags & WYE_ANSWER_INSTALL != 0 && parked.request.is_none() {
            let mut key = Vec::new();
            encode_key(&parked.key, &mut key);
            // SAFETY: as above.
            let match_text = unsafe { boundary::text(answer.match_text, "match_text") }?;
            let matched = match_text.map(|text| crate::text::read_match(&self.inner, text, &[], mask)).transpose()?;
            if matched.as_ref().is_some_and(|m| !m.mask.matches(&m.key.masked(&m.mask), &parked.key)) {
                return Err(Fault::invalid("match_text: the packet does not match it"));
            }
            let put = Put {
                flags: WYE_PUT_CREATE | WYE_PUT_UNLESS_MATCHED,
                ufid: answer.ufid,
                key: &key,
                mask: matched.as_ref().map_or(mask, |m| &m.mask_bytes),
                matched: matched.as_ref().map(|m| (parked.key, m.mask)),
                actions: if answer.flow_actions.is_null() { actions } else { flow_actions },
                idle_timeout_ns: answer.idle_timeout_ns,
                hard_timeout_ns: answer.hard_timeout_ns,
                now_ns,
            };
            match crate::flow::put(&self.inner, &put) {
                Ok(_) => {}
                // Another worker was faster.
                Err(fault) if matches!(fault.status, WYE_E_EXISTS | WYE_E_MATCHED) => {}
                Err(fault) => self.inner.log.line(WYE_LOG_WARN, &format!("a flow was not installed: {}", fault.detail)),
            }
        }
        Ok(decoded)
    }

    /// Carries a burst of the caller's packets, gives back what is left of it, delivers upcalls.
    ///
    /// # Safety
    /// Each descriptor is valid and stays in place, with its buffer, until it is given back.
    unsafe fn burst(&self, packets: &[*mut wye_packet], work: Work<'_>, now_ns: u64, keep: bool) -> Outcome {
        let mut done = Done::new();
        let outcome = self.with_engine(|engine| {
            engine.batch.clear();
            for &at in packets {
                // SAFETY: this function's contract.
                let mut packet = unsafe { take_in(&mut engine.worker, at) };
                if keep {
                    packet.flags.insert(PacketFlags::STAYS);
                }
                engine.batch.push(packet);
            }
            self.carry(engine, work, now_ns, keep, &mut done)
        })?;
        // Whatever went wrong: what is left is given back, what waits gets its end.
        let released = if keep { Ok(()) } else { self.release(&mut done) };
        let delivered = self.deliver(now_ns);
        outcome.and(released).and(delivered)
    }
}

/// Makes a worker. `ops` is copied, `ctx` handed to its callbacks.
///
/// Any thread. Takes the control lock. `WYE_E_FULL`, `WYE_E_NO_MEMORY`, `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since
/// 0.1.
///
/// # Safety
/// `ops` is NULL or a struct of the size that its first field says; its callbacks keep to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_worker_new(
    datapath: Option<&wye_datapath>,
    ops: *const wye_worker_ops,
    ctx: *mut c_void,
    worker: Option<&mut MaybeUninit<*mut wye_worker>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::on_datapath(datapath, error, Intent::Change, |inner| {
        let out = boundary::out(worker, "worker")?;
        // SAFETY: as this function's contract.
        let ops = unsafe { boundary::sized(ops) }?;
        let engine = inner.engine.worker()?;
        let turns = Arc::new(Turns::default());
        inner.add_worker(&turns);
        let worker = wye_worker {
            tag: Tag::live::<wye_worker>(),
            inner: Arc::clone(boundary::live(datapath)?.inner()),
            turns,
            counters: Arc::clone(engine.counters()),
            ops,
            ctx,
            engine: Mutex::new(Engine {
                worker: engine,
                batch: Vec::with_capacity(BURST_MAX),
                views: vec![wye_packet::EMPTY; BURST_MAX].into_boxed_slice(),
                pointers: vec![core::ptr::null_mut(); BURST_MAX].into_boxed_slice(),
                rare: AHashMap::new(),
                ports: None,
                waiter: None,
            }),
            parked: Mutex::default(),
            is_delivering: AtomicBool::new(false),
            retries: AtomicU8::new(0),
            answers: AtomicU8::new(0),
        };
        boundary::give(worker, out);
        Ok(())
    })
}

/// Frees a worker; NULL is legal. Takes the handle. Its counts stay in the datapath's statistics. While a call of the worker is under way, as in
/// its callbacks, it does nothing but write a line to the log.
///
/// The owning thread. Takes the control lock. Since 0.1.
///
/// # Safety
/// `worker` is NULL or came from `wye_worker_new` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_worker_free(worker: *mut wye_worker) {
    // SAFETY: as this function's contract.
    if let Ok(w) = boundary::live(unsafe { worker.as_ref() }) {
        if w.turns.is_used() {
            w.inner.log.line(WYE_LOG_ERROR, "wye_worker_free: the worker is in use, it is not freed");
            return;
        }
        if w.inner.is_forked() {
            return;
        }
    }
    // SAFETY: as this function's contract.
    unsafe { boundary::free(worker) }
}

/// Carries packets to their fates. When it returns, each has one: it was taken by `transmit`, given to `release`, or (without `release`) is the
/// caller's again with its `fate` written. All callbacks for them have been made.
///
/// Borrows the list for the call, and the descriptors and buffers until they are taken or given back; they must stay in place. No packet may
/// be in the list twice. Any number of packets; they are carried in bursts of 256.
///
/// The owning thread; also from `release` and `upcall` of this worker. Takes no lock that another thread can hold for long, makes no system
/// call, does not allocate unless there are upcalls. `WYE_E_INVALID` and `WYE_E_BUSY`: no packet was touched. `WYE_E_PANIC`, `WYE_E_FORKED`: those
/// that were not taken are the caller's again. Since 0.1.
///
/// # Safety
/// `packets` is valid for reads of `n` pointers, each to a valid descriptor whose `capacity` bytes at `buffer` are valid for reads and writes
/// and initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_worker_process(
    worker: Option<&wye_worker>,
    packets: *const *mut wye_packet,
    n: usize,
    now_ns: u64,
) -> wye_status {
    boundary::call(None, || {
        let worker = boundary::live(worker)?;
        // SAFETY: as this function's contract.
        let packets = unsafe { boundary::slice_mut(packets.cast_mut(), n, "packets") }?;
        if packets.iter().any(|at| at.is_null() || !at.is_aligned()) {
            return Err(Fault::invalid("a packet is NULL or misaligned"));
        }
        guarded(&worker.inner, Intent::Change, |_| {
            let _turn = worker.begin()?;
            packets.chunks(BURST_MAX).try_for_each(|chunk| {
                // SAFETY: as this function's contract.
                unsafe { worker.burst(chunk, Work::Process, now_ns, false) }
            })
        })
    })
}

/// Carries what the ports that this worker drives have received (`wye_port_open`): one burst of each, to its packets' fates. `*carried` (may be
/// NULL) gets how many packets there were. Output to a port that this worker does not drive goes to `transmit`.
///
/// The owning thread, not from its own callbacks. System calls are the port drivers' only. Sees to it now and then that links that came
/// or went are noticed. `WYE_E_INVALID`, `WYE_E_BUSY`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_worker_poll(
    worker: Option<&wye_worker>,
    now_ns: u64,
    carried: Option<&mut MaybeUninit<usize>>,
) -> wye_status {
    boundary::call(None, || {
        let worker = boundary::live(worker)?;
        guarded(&worker.inner, Intent::Change, |_| {
            let turn = worker.begin()?;
            if turn.is_nested() {
                return Err(Fault::new(WYE_E_BUSY, "the worker is in a callback just now"));
            }
            let polled = worker.with_engine(|engine| worker.poll_ports(engine, Nanos(now_ns)))?;
            let delivered = worker.deliver(now_ns);
            let n = polled?;
            delivered?;
            if let Some(carried) = carried {
                carried.write(n);
            }
            Ok(())
        })
    })
}

/// Sleeps until a port of this worker has something to receive, or `timeout_ns` are over; for workers that do not spin. Both are `WYE_OK`.
/// `WYE_E_NOT_FOUND` if no port of this worker will ever receive again: the traces that they played are over, or there are none.
///
/// The owning thread, not from its own callbacks. Blocks. `WYE_E_IO`, `WYE_E_INVALID`, `WYE_E_BUSY`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_worker_wait(
    worker: Option<&wye_worker>,
    timeout_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let worker = boundary::live(worker)?;
        worker.inner.check(Intent::Change)?;
        worker.with_engine(|engine| {
            let Engine { ports, waiter, .. } = engine;
            let Some(ports) = ports.as_deref().filter(|ports| !ports.is_exhausted()) else {
                return Err(Fault::new(WYE_E_NOT_FOUND, "no port of this worker will ever receive again"));
            };
            if ports.must_be_polled() {
                return Ok(());
            }
            if waiter.is_none() {
                *waiter = Some(Waiter::new().map_err(|e| Fault::new(WYE_E_IO, format!("a pipe: {e}")))?);
            }
            if let Some(waiter) = waiter {
                waiter.wait(ports.poll_fds(), Duration::from_nanos(timeout_ns), || ports.is_idle());
            }
            Ok(())
        })?
    })
}

/// Carries out actions on a packet without looking it up first: what a controller sends out, the answer to a queued upcall. `flags` may be
/// `WYE_EXECUTE_KEEP`; otherwise as `wye_worker_process` for one packet.
///
/// The owning thread; also from `release` and `upcall` of this worker. Does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED` (the detail names
/// the action) and `WYE_E_BUSY`: the packet was not touched. `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// As `wye_worker_process`; `actions` is valid for reads of `actions_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_worker_execute(
    worker: Option<&wye_worker>,
    packet: *mut wye_packet,
    actions: *const c_void,
    actions_len: usize,
    flags: u32,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let worker = boundary::live(worker)?;
        if packet.is_null() || !packet.is_aligned() {
            return Err(Fault::invalid("packet is NULL or misaligned"));
        }
        if flags & !WYE_EXECUTE_KEEP != 0 {
            return Err(Fault::invalid(format!("flags: {:#x} is not known", flags & !WYE_EXECUTE_KEEP)));
        }
        // SAFETY: as this function's contract.
        let actions = unsafe { boundary::bytes(actions, actions_len, "actions") }?;
        let mut actions = decode_actions(actions).map_err(|e| Fault::from(e).of("actions"))?;
        let keep = flags & WYE_EXECUTE_KEEP != 0;
        if keep {
            // Only the last action may consume the packet: let that be one that does nothing.
            actions.push(Action::Set(SetField::SkbMark(Masked::<u32>::none())));
        }
        guarded(&worker.inner, Intent::Change, |_| {
            let _turn = worker.begin()?;
            // SAFETY: as this function's contract.
            unsafe { worker.burst(&[packet], Work::Execute(&actions), now_ns, keep) }
        })
    })
}

/// Answers an upcall that was taken off the ring, as the callback would, and frees it. `answer->actions` are carried out by this worker.
/// The packet's fate was `upcall` when it went onto the ring; in the statistics, what is carried out now takes the place of that.
///
/// The owning thread; also from `release` and `upcall` of this worker. Takes `queued`, whatever it answers, unless that is `WYE_E_INVALID`.
/// `WYE_E_BUSY`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `queued` came from `wye_upcall_pop` of this worker's datapath and was neither freed nor answered; `answer` and what it points to are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_worker_answer(
    worker: Option<&wye_worker>,
    queued: *mut wye_queued_upcall,
    answer: Option<&wye_answer>,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let worker = boundary::live(worker)?;
        let answer = answer.ok_or_else(|| Fault::invalid("answer is NULL"))?;
        // SAFETY: as this function's contract; nobody else has the handle.
        let entry = unsafe { queued.as_mut() };
        boundary::live(entry.as_deref())?;
        let Some(entry) = entry.filter(|entry| entry.is_of(&worker.inner)) else {
            return Err(Fault::invalid("the upcall is of another datapath"));
        };
        let mut upcall = entry.upcall.take();
        // SAFETY: as this function's contract.
        unsafe { boundary::free(queued) };
        let answered = guarded(&worker.inner, Intent::Change, |_| {
            let _turn = worker.begin()?;
            let Some(Upcall { packet, key, is_copy, request }) = upcall.take() else { return Ok(()) };
            let request = request.as_deref().cloned();
            let parked = Parked { packet, key, request, retries: 0, answers: 0, is_copy };
            let outcome = match answer.verdict {
                // SAFETY: as this function's contract.
                WYE_VERDICT_EXECUTE => match unsafe { worker.read(answer, &parked, now_ns) } {
                    Ok(actions) => worker.again(parked, Work::Execute(&actions), now_ns),
                    Err(fault) => worker.finish(parked, Fate::Dropped(DropReason::UpcallRefused)).and(Err(fault)),
                },
                _ => worker.finish(parked, Fate::Upcall),
            };
            outcome.and(worker.deliver(now_ns))
        });
        // Refused before it was looked at: poisoned, or busy.
        if let Some(mut upcall) = upcall.filter(|_| !worker.inner.is_forked()) {
            worker.inner.engine.free(&mut upcall.packet);
        }
        answered
    })
}

#[cfg(test)]
mod tests {
    use core::ptr::null_mut;

    use super::*;
    use crate::datapath::{wye_datapath_config, wye_datapath_free, wye_datapath_new};
    use crate::status::WYE_OK;
    use crate::upcall::wye_upcall_pop;

    #[test]
    fn upcalls_that_a_poisoned_datapath_does_not_answer_give_their_buffers_back() {
        // SAFETY: the structs are integers and pointers, what is written on success is used then, and each thing is freed once.
        unsafe {
            let mut config: wye_datapath_config = core::mem::zeroed();
            config.size = size_of::<wye_datapath_config>() as u32;
            (config.flows_max, config.pool_buffers) = (16, 64);
            let (mut datapath, mut worker) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            assert_eq!(wye_datapath_new(&config, Some(&mut datapath), None), WYE_OK);
            let datapath = datapath.assume_init();
            let mut ops: wye_worker_ops = core::mem::zeroed();
            ops.size = size_of::<wye_worker_ops>() as u32;
            assert_eq!(wye_worker_new(datapath.as_ref(), &ops, null_mut(), Some(&mut worker), None), WYE_OK);
            let worker = worker.assume_init();
            let inner = &(&*worker).inner;
            let pool = inner.engine.pool();
            let before = pool.available();
            for _ in 0..3 {
                let mut bytes = [0u8; 64];
                let mut packet = wye_packet { buffer: bytes.as_mut_ptr(), capacity: 64, len: 64, ..wye_packet::EMPTY };
                let list = [&raw mut packet];
                assert_eq!(wye_worker_process(worker.as_ref(), list.as_ptr(), 1, 1), WYE_OK);
            }
            assert_eq!(pool.available(), before - 3);
            inner.poison("a test");
            for left in [2, 1, 0] {
                let (mut queued, mut upcall) = (MaybeUninit::uninit(), MaybeUninit::uninit());
                assert_eq!(wye_upcall_pop(datapath.as_ref(), Some(&mut queued), Some(&mut upcall), None), WYE_OK);
                let answer = wye_answer { verdict: WYE_VERDICT_EXECUTE, ..wye_answer::EMPTY };
                let status = wye_worker_answer(worker.as_ref(), queued.assume_init(), Some(&answer), 2, None);
                assert_eq!((status, pool.available()), (WYE_E_PANIC, before - left));
            }
            let (mut queued, mut upcall) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            let none = wye_upcall_pop(datapath.as_ref(), Some(&mut queued), Some(&mut upcall), None);
            assert_eq!(none, WYE_E_NOT_FOUND);
            wye_worker_free(worker);
            wye_datapath_free(datapath);
        }
    }
}
