//! Numbered entries with one writer and lock-free readers: the home of installed flows.
//!
//! An entry is *alive* or not. The writer fills a dead slot and makes it alive; it may fill the slot again only after
//! a grace period has passed since the entry was removed. So a reader inside a burst that finds a slot alive may use its
//! value until the burst ends, and a stale number (from a cache) is harmless: it finds no entry, or a live one
//! whose contents the reader compares anyway.
//!
//! ```text
//!   dead ──insert──▶ alive ──remove──▶ draining ──grace period──▶ dead
//! ```

use core::mem::MaybeUninit;

use super::primitive::{Arc, AtomicU32, Ordering, UnsafeCell};
use super::qsbr::{Burst, Domain};
use super::region::Source;

/// Holds no value. Zero, because fresh memory is.
const DEAD: u32 = 0;
/// Holds a value that readers may find.
const ALIVE: u32 = 1;
/// Holds a value that readers no longer find, but some may still use.
const DRAINING: u32 = 2;

/// A value and its state share a cache line where the value leaves room.
#[repr(C, align(64))]
struct Slot<T> {
    value: UnsafeCell<MaybeUninit<T>>,
    state: AtomicU32,
}

/// A fixed number of slots; memory is taken, some pages at a time, as slots are first used.
///
/// *Thread-safety.* Slot states are atomic; values are immutable while alive (interior atomics excepted).
pub struct Slab<T: Send + Sync + 'static> {
    slots: Slots<T>,
    domain: Arc<Domain>,
}

// SAFETY: values are handed out as `&T` to several threads (needs `T: Sync`) and dropped on the writer's
// thread (needs `T: Send`). The cells are written only by `SlabWriter`, of which one exists per slab.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync + 'static> Sync for Slab<T> {}
// SAFETY: as above; moving the whole slab moves the values.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync + 'static> Send for Slab<T> {}

impl<T: Send + Sync + 'static> core::fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slab").field("capacity", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(not(loom))]
type Slots<T> = super::mapped::Mapped<Slot<T>>;

#[cfg(not(loom))]
#[allow(unsafe_code)]
fn dead_slots<T>(source: &Source, capacity: usize) -> std::io::Result<Slots<T>> {
    // SAFETY: zero bytes are a valid slot: the value is `MaybeUninit`, and the state reads `DEAD`.
    unsafe { Slots::growing_unchecked(source, capacity) }
}

/// Makes the first `count` slots ready before they are used.
#[cfg(not(loom))]
#[inline]
fn make_ready<T>(slots: &Slots<T>, count: u32) {
    slots.make_ready(count as usize);
}

#[cfg(loom)]
type Slots<T> = Box<[Slot<T>]>;

#[cfg(loom)]
fn make_ready<T>(_slots: &Slots<T>, _count: u32) {}

#[cfg(loom)]
fn dead_slots<T>(_source: &Source, capacity: usize) -> std::io::Result<Slots<T>> {
    let dead = |_| Slot { value: UnsafeCell::new(MaybeUninit::uninit()), state: AtomicU32::new(DEAD) };
    Ok((0..capacity).map(dead).collect())
}

impl<T: Send + Sync + 'static> Slab<T> {
    /// A slab of `capacity` dead slots whose readers are those of `domain`, and its only writer.
    ///
    /// # Panics
    /// If there is no address space left for it.
    pub fn new(domain: &Arc<Domain>, capacity: u32) -> (Arc<Self>, SlabWriter<T>) {
        Self::new_in(&Source::default(), domain, capacity).expect("no address space left for a slab")
    }

    /// As [`new`](Self::new), in memory of `source`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new_in(source: &Source, domain: &Arc<Domain>, capacity: u32) -> std::io::Result<(Arc<Self>, SlabWriter<T>)> {
        let slab = Arc::new(Slab { slots: dead_slots(source, capacity as usize)?, domain: Arc::clone(domain) });
        let writer =
            SlabWriter { slab: Arc::clone(&slab), fresh: 0, free: Vec::new(), draining: Default::default(), alive: 0 };
        Ok((slab, writer))
    }

    /// The entries as the burst sees them.
    #[inline(always)]
    pub fn view<'b>(&'b self, burst: &'b Burst<'_>) -> View<'b, T> {
        burst.protects(&self.domain);
        View { slots: &self.slots }
    }

    /// The number of slots, dead and alive.
    pub fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl<T: Send + Sync + 'static> Drop for Slab<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        for slot in self.slots.iter() {
            if slot.state.load(Ordering::Acquire) != DEAD {
                // SAFETY: a slot that is not dead holds an initialised value. Access is exclusive: every reference to a
                // value borrows the slab or its writer, which owns a share of the slab.
                slot.value.with_mut(|v| unsafe { (*v).assume_init_drop() });
            }
        }
    }
}

/// A reader's access for one burst.
#[derive(Debug)]
pub struct View<'b, T> {
    slots: &'b [Slot<T>],
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for View<'_, T> {}

impl<T> core::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Slot")
    }
}

impl<'b, T> View<'b, T> {
    /// The entry numbered `index`, if it is alive. Any number is legal.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn get(self, index: u32) -> Option<&'b T> {
        let slot = self.slots.get(index as usize)?;
        if slot.state.load(Ordering::Acquire) != ALIVE {
            return None;
        }
        // SAFETY: the slot was alive after the burst was entered, so its value is initialised (the acquire load
        // pairs with `insert`'s release store) and is neither dropped nor overwritten before the burst ends:
        // `reclaim` waits for a ticket drawn after the slot left that state. `'b` also borrows the slab itself.
        Some(slot.value.with(|v| unsafe { (*v).assume_init_ref() }))
    }

    /// Asks the CPU to load the entry's first two cache lines.
    #[inline(always)]
    pub fn prefetch(self, index: u32) {
        if let Some(slot) = self.slots.get(index as usize) {
            let first = core::ptr::from_ref(slot).cast::<u8>();
            crate::wire::simd::prefetch(first);
            crate::wire::simd::prefetch(first.wrapping_add(64));
        }
    }
}

/// The one writer of a [`Slab`].
#[derive(Debug)]
pub struct SlabWriter<T: Send + Sync + 'static> {
    slab: Arc<Slab<T>>,
    /// Slots from here on were never used.
    fresh: u32,
    free: Vec<u32>,
    /// Draining slots, with the ticket to wait for, oldest first.
    draining: std::collections::VecDeque<(u64, u32)>,
    alive: u32,
}

impl<T: Send + Sync + 'static> SlabWriter<T> {
    /// Stores `value`; gives it back when every slot is alive or draining.
    #[allow(unsafe_code)]
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if (self.fresh as usize) < self.slab.slots.len() => {
                self.fresh += 1;
                make_ready(&self.slab.slots, self.fresh);
                self.fresh - 1
            }
            None => return Err(value),
        };
        let slot = &self.slab.slots[index as usize];
        // SAFETY: the slot is dead, so no reader has a reference into it or can get one before the store below, and this
        // is the only writer.
        slot.value.with_mut(|v| unsafe { (*v).write(value) });
        slot.state.store(ALIVE, Ordering::Release);
        self.alive += 1;
        Ok(index)
    }

    /// The index that the next `insert` will use, if it will succeed.
    pub fn next_index(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let fresh = ((self.fresh as usize) < self.slab.slots.len()).then_some(self.fresh);
        self.free.last().copied().or(fresh)
    }

    /// Removes entry `index`; returns false if it was not alive. Its value is dropped after a grace period.
    pub fn remove(&mut self, index: u32) -> bool {
        let Some(slot) = self.slab.slots.get(index as usize) else { return false };
        if slot.state.load(Ordering::Relaxed) != ALIVE {
            return false;
        }
        slot.state.store(DRAINING, Ordering::Release);
        self.draining.push_back((self.slab.domain.ticket(), index));
        self.alive -= 1;
        true
    }

    /// The live entry `index`. The writer needs no burst: only it removes.
    #[allow(unsafe_code)]
    pub fn get(&self, index: u32) -> Option<&T> {
        let slot = self.slab.slots.get(index as usize)?;
        if slot.state.load(Ordering::Relaxed) != ALIVE {
            return None;
        }
        // SAFETY: alive, hence initialised; only `remove` and `insert` (both `&mut self`) change that.
        Some(slot.value.with(|v| unsafe { (*v).assume_init_ref() }))
    }

    /// Drops the values whose grace period is over and makes their slots reusable.
    #[allow(unsafe_code)]
    pub fn reclaim(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        // One look at the readers serves all: every ticket in the queue was drawn before it.
        let oldest = self.slab.domain.oldest_reader();
        while let Some(&(_, index)) = self.draining.front().filter(|(ticket, _)| *ticket <= oldest) {
            self.draining.pop_front();
            let slot = &self.slab.slots[index as usize];
            // Dead before the drop, so that a destructor that panics is not run again.
            slot.state.store(DEAD, Ordering::Relaxed);
            // SAFETY: draining since before the ticket, and every burst that could have seen it alive is over.
            slot.value.with_mut(|v| unsafe { (*v).assume_init_drop() });
            self.free.push(index);
        }
    }

    /// Entries alive.
    pub fn len(&self) -> u32 {
        self.alive
    }

    /// True when no entry is alive.
    pub fn is_empty(&self) -> bool {
        self.alive == 0
    }

    /// Numbers that may be alive are below this.
    pub fn high_water(&self) -> u32 {
        self.fresh
    }

    /// Slots that wait for a grace period.
    pub fn draining(&self) -> usize {
        self.draining.len()
    }
}

impl<T: Send + Sync + 'static> Drop for SlabWriter<T> {
    fn drop(&mut self) {
        // What still drains is dropped with the slab, that is, after the last view of it.
        self.reclaim();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn entry_seen_in_a_burst_survives_its_removal() {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (slab, mut writer) = Slab::new(&domain, 1);
        let index = writer.insert(String::from("old")).unwrap();
        {
            let burst = reader.enter();
            let seen = slab.view(&burst).get(index).unwrap();
            assert!(writer.remove(index));
            assert!(slab.view(&burst).get(index).is_none());
            // The only slot is still draining, so the slab is full.
            assert_eq!(writer.insert(String::from("new")), Err(String::from("new")));
            assert_eq!(seen, "old");
        }
        assert_eq!(writer.insert(String::from("new")), Ok(index));
        let burst = reader.enter();
        assert_eq!(slab.view(&burst).get(index).unwrap(), "new");
        drop(burst);
    }

    #[test]
    fn random_operations_agree_with_a_hash_map() {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (slab, mut writer) = Slab::new(&domain, 50);
        let mut model = std::collections::HashMap::new();
        let mut seed = 1u64;
        for step in 0..20_000u64 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let r = (seed >> 33) as u32;
            if r & 1 == 0 {
                match writer.insert(Box::new(step)) {
                    Ok(i) => assert!(model.insert(i, step).is_none()),
                    Err(_) => assert_eq!(model.len(), 50),
                }
            } else {
                let i = (r >> 1) % 60;
                assert_eq!(writer.remove(i), model.remove(&i).is_some());
            }
            assert_eq!(writer.len() as usize, model.len());
        }
        let burst = reader.enter();
        for i in 0..60 {
            assert_eq!(slab.view(&burst).get(i).map(|v| **v), model.get(&i).copied());
        }
        drop(burst);
    }
}
