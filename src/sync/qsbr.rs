//! Quiescent-state-based reclamation: when may the writer free what readers might still see?
//!
//! A reader wraps each burst in [`Reader::enter`]; what it finds in published structures stays valid until
//! the [`Burst`] is dropped. The writer unlinks a value first, then hands it to [`Domain::retire`]; the value
//! is dropped by a later [`Domain::collect`] once every reader that was inside a burst at that moment has left it.
//! Neither side ever waits for the other: a reader that stops calling is simply outside.
//!
//! ```text
//!   writer:  unlink x ── epoch 7→8 ── retire(x, 8) ············ collect: all readers ≥ 8 or idle → drop x
//!   reader:      enter(7) ─── may hold x ─── leave (idle)   enter(8) ─── cannot find x
//! ```
//!
//! The one full fence of [`Reader::enter`] is per burst, not per packet.

use super::primitive::{Arc, AtomicU64, Mutex, Ordering, fence, lock};

/// Readers that may exist in one domain at a time.
pub const READERS_MAX: usize = 64;

const FREE: u64 = u64::MAX;
const IDLE: u64 = u64::MAX - 1;

/// One reader's published epoch, alone on its cache line so that readers do not disturb one another.
#[derive(Debug)]
#[repr(align(128))]
struct Seat(AtomicU64);

/// A set of readers and the values that wait for them.
///
/// *Thread-safety.* Seats and the epoch are atomic; the list of retired values is behind a mutex that readers never take.
pub struct Domain {
    epoch: AtomicU64,
    seats: Box<[Seat]>,
    retired: Mutex<Vec<(u64, Box<dyn Send>)>>,
}

impl core::fmt::Debug for Domain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Domain").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Default for Domain {
    fn default() -> Self {
        Domain::new()
    }
}

impl Domain {
    /// An empty domain.
    pub fn new() -> Self {
        let seats = if cfg!(loom) { 2 } else { READERS_MAX };
        Domain {
            epoch: AtomicU64::new(1),
            seats: (0..seats).map(|_| Seat(AtomicU64::new(FREE))).collect(),
            retired: Mutex::new(Vec::new()),
        }
    }

    /// Takes a seat for a new reader; `None` when all [`READERS_MAX`] are taken.
    pub fn reader(self: &Arc<Self>) -> Option<Reader> {
        let seat = self
            .seats
            .iter()
            .position(|s| s.0.compare_exchange(FREE, IDLE, Ordering::AcqRel, Ordering::Relaxed).is_ok())?;
        Some(Reader { domain: Arc::clone(self), seat, _not_sync: core::marker::PhantomData })
    }

    /// Takes over `value`, which readers can no longer find, and drops it when none of them can still hold it.
    pub fn retire(&self, value: Box<dyn Send>) {
        // The unlinking stores come before the new epoch in the total order that `enter`'s fence joins.
        fence(Ordering::SeqCst);
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        lock(&self.retired).push((epoch, value));
    }

    /// Drops every retired value that no reader can hold; returns how many still wait.
    pub fn collect(&self) -> usize {
        let (ready, waiting) = {
            let mut retired = lock(&self.retired);
            if retired.is_empty() {
                return 0;
            }
            // The scan comes after the lock: a value that another thread retired after the scan might be held by a
            // reader that entered after it too.
            let oldest = self.oldest_reader();
            let (ready, kept): (Vec<_>, Vec<_>) = retired.drain(..).partition(|(epoch, _)| *epoch <= oldest);
            *retired = kept;
            (ready, retired.len())
        };
        // Destructors run outside the lock: they may retire more, and collect.
        drop(ready);
        waiting
    }

    /// Begins a grace period; it is over when [`Domain::has_passed`] says so of the returned ticket.
    pub fn ticket(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// True once every reader that was inside a burst when `ticket` was drawn has left that burst.
    pub fn has_passed(&self, ticket: u64) -> bool {
        ticket <= self.oldest_reader()
    }

    /// The lowest epoch that a reader inside a burst has announced (`u64::MAX` when all are idle). Every ticket up to it
    /// that was drawn before this call has passed; of a ticket drawn later it says nothing.
    pub(super) fn oldest_reader(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.seats
            .iter()
            .map(|s| s.0.load(Ordering::Acquire))
            .map(|e| if e >= IDLE { u64::MAX } else { e })
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// A thread's right to read the domain's structures. `Send`, not `Sync`.
#[derive(Debug)]
pub struct Reader {
    domain: Arc<Domain>,
    seat: usize,
    _not_sync: core::marker::PhantomData<core::cell::Cell<()>>,
}

impl Reader {
    /// Enters a burst. Values seen through the returned [`Burst`] stay valid until it is dropped.
    #[inline]
    pub fn enter(&mut self) -> Burst<'_> {
        let seat = &self.domain.seats[self.seat].0;
        let epoch = self.domain.epoch.load(Ordering::Relaxed);
        // Release, so that a writer which reads this epoch instead of the `IDLE` before it still knows that the reads of
        // the burst before are done: a plain store would not carry that on. It costs nothing on x86-64.
        seat.store(epoch, Ordering::Release);
        // Either the writer's scan sees this epoch, or our later loads see what the writer unlinked before it.
        fence(Ordering::SeqCst);
        Burst { reader: self }
    }

    /// The seat's number, below [`READERS_MAX`] and unique among living readers of the domain.
    pub fn seat(&self) -> usize {
        self.seat
    }

    /// The domain that this reader belongs to.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.domain.seats[self.seat].0.store(FREE, Ordering::Release);
    }
}

/// Proof that its thread is inside a burst.
#[derive(Debug)]
pub struct Burst<'r> {
    reader: &'r Reader,
}

impl Burst<'_> {
    /// Asserts that this burst protects what `domain` retires. Without it, a burst of one datapath could be
    /// used to read another's tables while they are being freed.
    ///
    /// # Panics
    /// If it does not: a bug inside this crate.
    #[inline(always)]
    pub fn protects(&self, domain: &Arc<Domain>) {
        assert!(Arc::ptr_eq(&self.reader.domain, domain), "burst of another domain");
    }
}

impl Drop for Burst<'_> {
    #[inline]
    fn drop(&mut self) {
        self.reader.domain.seats[self.reader.seat].0.store(IDLE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Flag(Arc<AtomicU64>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn value_retired_during_a_burst_outlives_it() {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let dropped = Arc::new(AtomicU64::new(0));
        let burst = reader.enter();
        domain.retire(Box::new(Flag(dropped.clone())));
        assert_eq!(domain.collect(), 1);
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        drop(burst);
        assert_eq!(domain.collect(), 0);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn burst_entered_after_retirement_does_not_delay_it() {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        domain.retire(Box::new(()));
        let _burst = reader.enter();
        assert_eq!(domain.collect(), 0);
    }

    #[test]
    fn seats_run_out_and_come_back() {
        let domain = Arc::new(Domain::new());
        let mut all: Vec<_> = (0..READERS_MAX).map(|_| domain.reader().unwrap()).collect();
        assert!(domain.reader().is_none());
        all.pop();
        assert!(domain.reader().is_some());
    }
}
