//! A whole value that the control side replaces and workers read without a lock.

use super::primitive::{Arc, AtomicPtr, Ordering};
use super::qsbr::{Burst, Domain};

/// A published value. Readers see one version for as long as they hold the reference, at most one burst.
///
/// *Thread-safety.* The pointer is atomic; the value behind it is immutable. Several writers may publish at
/// once (the last one wins), though the engine serialises them.
pub struct Snapshot<T: Send + Sync + 'static> {
    current: AtomicPtr<T>,
    domain: Arc<Domain>,
}

impl<T: Send + Sync + 'static> Snapshot<T> {
    /// Publishes `value` to the readers of `domain`.
    pub fn new(domain: &Arc<Domain>, value: T) -> Self {
        Snapshot { current: AtomicPtr::new(Box::into_raw(Box::new(value))), domain: Arc::clone(domain) }
    }

    /// The version current now, valid for the burst.
    ///
    /// # Panics
    /// If `burst` belongs to another domain (a bug of the caller inside this crate).
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn load<'b>(&'b self, burst: &'b Burst<'_>) -> &'b T {
        burst.protects(&self.domain);
        // SAFETY: `current` always comes from `Box::into_raw` and is freed only through `Domain::retire`
        // after `publish` replaced it, or in `drop`, which has exclusive access. The burst was entered before
        // this load, so a retirement that follows waits until the burst is dropped, which `'b` outlives.
        // The assertion above makes the burst one that this snapshot's domain waits for.
        unsafe { &*self.current.load(Ordering::Acquire) }
    }

    /// Replaces the value; the old one is dropped by a [`Domain::collect`] after which no reader can hold it. Whoever holds a lock that
    /// its destructor might ask for collects when the lock is released.
    #[allow(unsafe_code)]
    pub fn publish(&self, value: T) {
        let old = self.current.swap(Box::into_raw(Box::new(value)), Ordering::AcqRel);
        // SAFETY: `old` came from `Box::into_raw` and was taken out of `current` just now, so nobody else
        // can free it; readers that still use it are waited for by `retire`.
        self.domain.retire(unsafe { Box::from_raw(old) });
    }
}

impl<T: Send + Sync + 'static> Drop for Snapshot<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: exclusive access; `load` borrows `self`, so no reference from it is alive.
        drop(unsafe { Box::from_raw(current) });
    }
}

impl<T: Send + Sync + 'static> core::fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Snapshot")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reader_keeps_its_version_for_the_burst() {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let snapshot = Snapshot::new(&domain, vec![1]);
        let burst = reader.enter();
        let old = snapshot.load(&burst);
        snapshot.publish(vec![2]);
        assert_eq!(old, &[1]);
        assert_eq!(snapshot.load(&burst), &[2]);
        drop(burst);
        assert_eq!(domain.collect(), 0);
    }
}
