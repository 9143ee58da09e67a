//! Every interleaving of small scenes, by the loom model checker: `make loom`.
//!
//! A value's memory is stood in for by a [`Cell`] that loom watches: dropping the value writes it, using the value reads it.
//! A use that no happens-before edge orders before the drop fails the test, even if it came first in this run.
//!
//! Left unproven by all of them: more than `LOOM_MAX_PREEMPTIONS` involuntary switches; more than two readers;
//! the table's and domain's real sizes (loom's are tiny); what a compiler does beyond the memory model.
#![allow(unsafe_code)]

use loom::thread;

use super::counter::Counter;
use super::map::Map;
use super::primitive::{Arc, AtomicUsize, Ordering, UnsafeCell};
use super::qsbr::{Burst, Domain, Reader};
use super::slab::Slab;
use super::snapshot::Snapshot;

/// Memory as loom sees it: true until freed.
struct Cell(UnsafeCell<bool>);

// SAFETY: not needed for soundness here: loom runs one thread at a time and reports each unordered access.
unsafe impl Sync for Cell {}
// SAFETY: as above.
unsafe impl Send for Cell {}

impl Cell {
    fn new() -> Arc<Cell> {
        Arc::new(Cell(UnsafeCell::new(true)))
    }

    fn assert_valid(&self) {
        // SAFETY: loom checks that no write is concurrent.
        assert!(self.0.with(|p| unsafe { *p }), "used after it was freed");
    }
}

/// A value whose destructor frees its [`Cell`].
struct Value(Arc<Cell>);

impl Value {
    fn new() -> Value {
        Value(Cell::new())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: loom checks that no access is concurrent.
        self.0.0.with_mut(|p| unsafe { *p = false });
    }
}

fn in_burst(reader: &mut Reader, f: impl FnOnce(&Burst<'_>)) {
    let burst = reader.enter();
    f(&burst);
    drop(burst);
}

/// Two values, the second of which takes the first's place when `current` becomes 1.
struct Place {
    current: AtomicUsize,
    cells: [Arc<Cell>; 2],
}

impl Place {
    fn new() -> Arc<Place> {
        Arc::new(Place { current: AtomicUsize::new(0), cells: [Cell::new(), Cell::new()] })
    }

    fn replace(&self, domain: &Domain) {
        self.current.store(1, Ordering::Release);
        domain.retire(Box::new(Value(self.cells[0].clone())));
    }

    fn use_current(&self) {
        self.cells[self.current.load(Ordering::Acquire)].assert_valid();
    }
}

/// Unproven: a reader that enters more than twice while a value waits.
#[test]
fn retired_value_outlives_every_burst_that_found_it() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let place = Place::new();
        let mut reader = domain.reader().unwrap();
        let theirs = place.clone();
        let t = thread::spawn(move || {
            in_burst(&mut reader, |_| theirs.use_current());
            in_burst(&mut reader, |_| theirs.use_current());
        });
        place.replace(&domain);
        domain.collect();
        domain.collect();
        t.join().unwrap();
        assert_eq!(domain.collect(), 0);
    });
}

/// Unproven: more than one collector beside the one who retires.
#[test]
fn collector_on_another_thread_frees_nothing_early() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let place = Place::new();
        let mut reader = domain.reader().unwrap();
        let theirs = place.clone();
        let reading = thread::spawn(move || in_burst(&mut reader, |_| theirs.use_current()));
        let shared = domain.clone();
        let collecting = thread::spawn(move || {
            shared.collect();
        });
        place.replace(&domain);
        reading.join().unwrap();
        collecting.join().unwrap();
        assert_eq!(domain.collect(), 0);
    });
}

/// Unproven: a seat that more than two readers take in turn.
#[test]
fn seat_that_changes_hands_protects_both_holders() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let place = Place::new();
        let (theirs, shared) = (place.clone(), domain.clone());
        let t = thread::spawn(move || {
            for _ in 0..2 {
                in_burst(&mut shared.reader().unwrap(), |_| theirs.use_current());
            }
        });
        place.replace(&domain);
        domain.collect();
        t.join().unwrap();
    });
}

/// Unproven: concurrent publishers with a reader between them (see the next test for the publishers alone).
#[test]
fn snapshot_stays_valid_while_new_ones_are_published() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let snapshot = Arc::new(Snapshot::new(&domain, Value::new()));
        let theirs = snapshot.clone();
        let t = thread::spawn(move || {
            in_burst(&mut reader, |burst| {
                let first = theirs.load(burst);
                theirs.load(burst).0.assert_valid();
                first.0.assert_valid();
            });
            in_burst(&mut reader, |burst| theirs.load(burst).0.assert_valid());
        });
        snapshot.publish(Value::new());
        domain.collect();
        snapshot.publish(Value::new());
        domain.collect();
        t.join().unwrap();
    });
}

/// Unproven: more than two publishers.
#[test]
fn each_of_two_publishers_retires_what_it_replaced() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let snapshot = Arc::new(Snapshot::new(&domain, Value::new()));
        let (theirs, shared) = (snapshot.clone(), domain.clone());
        let t = thread::spawn(move || {
            theirs.publish(Value::new());
            shared.collect();
        });
        snapshot.publish(Value::new());
        domain.collect();
        t.join().unwrap();
        let mut reader = domain.reader().unwrap();
        in_burst(&mut reader, |burst| snapshot.load(burst).0.assert_valid());
    });
}

/// Unproven: slots that are reused more than once, and several slots at a time.
#[test]
fn slab_slot_is_not_reused_under_a_reader() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (slab, mut writer) = Slab::new(&domain, 1);
        assert!(matches!(writer.insert(Value::new()), Ok(0)));
        let theirs = slab.clone();
        let t = thread::spawn(move || {
            for _ in 0..2 {
                in_burst(&mut reader, |burst| {
                    if let Some(value) = theirs.view(burst).get(0) {
                        value.0.assert_valid();
                    }
                });
            }
        });
        assert!(writer.remove(0));
        let second = writer.insert(Value::new());
        if second.is_err() {
            writer.reclaim();
        }
        t.join().unwrap();
        drop((writer, slab));
    });
}

/// Unproven: a writer that is dropped while more than one slot drains.
#[test]
fn slab_writer_may_go_away_while_a_removed_entry_is_read() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (slab, mut writer) = Slab::new(&domain, 1);
        assert!(matches!(writer.insert(Value::new()), Ok(0)));
        let theirs = slab.clone();
        let t = thread::spawn(move || {
            in_burst(&mut reader, |burst| {
                if let Some(value) = theirs.view(burst).get(0) {
                    value.0.assert_valid();
                }
            });
        });
        writer.remove(0);
        drop(writer);
        t.join().unwrap();
        drop(slab);
    });
}

/// A hash whose home bucket is 0 in tables of up to 16 buckets, with a tag of its own.
fn colliding(number: u32) -> u64 {
    u64::from(number + 1) << 32
}

/// Unproven: probes over more than two buckets.
#[test]
fn map_entry_is_found_while_others_come_and_go_on_its_path() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (map, mut writer) = Map::new(&domain);
        // Two buckets of two entries; 2 overflows from its home.
        for number in 0..3 {
            writer.insert(colliding(number), number, colliding);
        }
        let t = thread::spawn(move || {
            in_burst(&mut reader, |burst| {
                assert_eq!(map.view(burst).find(colliding(2), |n| n == 2), Some(2));
            });
        });
        assert!(writer.remove(colliding(0), 0));
        writer.insert(colliding(3), 3, colliding);
        assert!(writer.remove(colliding(1), 1));
        t.join().unwrap();
        assert_eq!(writer.find(colliding(2), |n| n == 2), Some(2));
    });
}

/// Unproven: a table that grows twice within one burst.
#[test]
fn map_entry_is_found_while_the_table_grows() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (map, mut writer) = Map::new(&domain);
        writer.insert(colliding(0), 0, colliding);
        let t = thread::spawn(move || {
            in_burst(&mut reader, |burst| {
                let view = map.view(burst);
                assert_eq!(view.find(colliding(0), |n| n == 0), Some(0));
                let newer = view.find(colliding(1), |n| n == 1);
                assert!(newer.is_none_or(|n| n == 1));
            });
        });
        writer.insert(colliding(1), 1, colliding);
        t.join().unwrap();
    });
}

/// Unproven: nothing else; the map and the slab are only ever joined this way.
#[test]
fn number_found_in_a_map_leads_to_a_filled_slot_or_none() {
    loom::model(|| {
        let domain = Arc::new(Domain::new());
        let mut reader = domain.reader().unwrap();
        let (slab, mut slots) = Slab::new(&domain, 1);
        let (map, mut numbers) = Map::new(&domain);
        let theirs = slab.clone();
        let t = thread::spawn(move || {
            in_burst(&mut reader, |burst| {
                let view = theirs.view(burst);
                if let Some(number) = map.view(burst).find(colliding(0), |n| view.get(n).is_some()) {
                    view.get(number).into_iter().for_each(|value: &Value| value.0.assert_valid());
                }
            });
        });
        let Ok(number) = slots.insert(Value::new()) else { panic!("the slab is empty") };
        numbers.insert(colliding(0), number, colliding);
        assert!(numbers.remove(colliding(0), number));
        assert!(slots.remove(number));
        slots.reclaim();
        t.join().unwrap();
    });
}

/// Unproven: a second writer, which the type's contract excludes.
#[test]
fn counter_never_runs_backwards() {
    loom::model(|| {
        let counter = Arc::new(Counter::default());
        let theirs = counter.clone();
        let t = thread::spawn(move || {
            let first = theirs.get();
            let second = theirs.get();
            assert!(first <= second && second <= 3);
        });
        counter.add(1);
        counter.add(2);
        t.join().unwrap();
        assert_eq!(counter.get(), 3);
    });
}
