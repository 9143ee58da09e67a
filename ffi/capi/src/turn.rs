//! Whose turn it is: which thread uses a worker, and whether a call that it was in is over.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::status::{Fault, Outcome, WYE_E_BUSY};

/// What others may know of a worker.
///
/// *Thread-safety.* Atomics.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The thread that uses it, see [`Claim`]; 0 for none.
    user: AtomicUsize,
    /// Calls that this worker is inside of.
    depth: AtomicU32,
    /// How often it has left the outermost one.
    left: AtomicU64,
    /// Upcalls refused, of this worker alone.
    pub(crate) refused: AtomicU64,
    /// Upcalls lost, of this worker alone.
    pub(crate) lost: AtomicU64,
}

impl Turns {
    /// Whether a thread is using the worker.
    pub(crate) fn is_used(&self) -> bool {
        self.user.load(Ordering::SeqCst) != 0
    }

    /// Something to ask `has_passed` with.
    pub(crate) fn ticket(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }

    /// Whether the call that the worker was in when the ticket was drawn, if any, is over.
    pub(crate) fn has_passed(&self, ticket: u64) -> bool {
        self.left.load(Ordering::SeqCst) != ticket || self.depth.load(Ordering::SeqCst) == 0
    }
}

thread_local! {
    /// Calls of workers that this thread is inside of.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// True in a callback of any worker.
pub(crate) fn is_inside_worker() -> bool {
    INSIDE.get() != 0
}

/// This thread uses the worker, callbacks included, and no other may.
pub(crate) struct Claim<'a> {
    user: &'a AtomicUsize,
    /// This thread did not use the worker already: the call is no callback's.
    is_first: bool,
}

impl<'a> Claim<'a> {
    /// Claims the worker for this thread.
    #[inline]
    pub(crate) fn new(turns: &'a Turns) -> Outcome<Self> {
        let user = &turns.user;
        // No two threads that live have this at one address.
        let me = INSIDE.with(|inside| core::ptr::from_ref(inside).addr());
        // Only this thread can have written its own.
        let is_first = user.load(Ordering::Relaxed) != me;
        if is_first && user.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(Fault::new(WYE_E_BUSY, "another thread uses the worker just now"));
        }
        Ok(Claim { user, is_first })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.is_first {
            self.user.store(0, Ordering::Release);
        }
    }
}

/// Marks that a call which carries packets is under way.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    claim: Claim<'a>,
}

impl<'a> Turn<'a> {
    /// Begins a call. `is_carrying` is asked if this thread is inside of another already.
    pub(crate) fn begin(turns: &'a Turns, is_carrying: impl FnOnce() -> bool) -> Outcome<Self> {
        let claim = Claim::new(turns)?;
        if !claim.is_first && is_carrying() {
            return Err(Fault::new(WYE_E_BUSY, "the worker is carrying a burst just now"));
        }
        INSIDE.set(INSIDE.get() + 1);
        turns.depth.fetch_add(1, Ordering::SeqCst);
        Ok(Turn { turns, claim })
    }

    /// Whether this is a call from one of the worker's callbacks.
    pub(crate) fn is_nested(&self) -> bool {
        !self.claim.is_first
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.turns.depth.load(Ordering::Relaxed) == 1 {
            self.turns.left.fetch_add(1, Ordering::SeqCst);
        }
        self.turns.depth.fetch_sub(1, Ordering::SeqCst);
        INSIDE.set(INSIDE.get() - 1);
    }
}
