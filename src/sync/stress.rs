//! Real threads at full speed and real sizes: what the model checker's small scenes cannot reach. AddressSanitizer runs it
//! as well, and would see a value that is read after it was dropped.

use std::thread;

use super::map::Map;
use super::primitive::{Arc, AtomicBool, Ordering};
use super::qsbr::Domain;
use super::slab::Slab;
use super::snapshot::Snapshot;

const SLOTS: u32 = 64;
/// Four keys per slot, so that slots change hands all the time.
const KEYS: u64 = 4 * SLOTS as u64;

/// A value that can tell whether it is whole: the key, twice, on the heap.
struct Entry {
    key: u64,
    copy: Box<u64>,
}

impl Entry {
    fn new(key: u64) -> Entry {
        Entry { key, copy: Box::new(!key) }
    }

    fn assert_whole(&self) {
        assert_eq!(self.key, !*self.copy, "a torn or freed entry");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        *self.copy = 0;
    }
}

/// Few distinct low bits, so that probes are long.
fn hash(key: u64) -> u64 {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) << 32) | (key % 3)
}

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 33
}

#[test]
fn readers_see_whole_entries_while_the_writer_replaces_them() {
    let domain = Arc::new(Domain::new());
    let (slab, mut entries) = Slab::new(&domain, SLOTS);
    let (map, mut numbers) = Map::new(&domain);
    let generation = Arc::new(Snapshot::new(&domain, Entry::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    // The entry of the last key is never removed, so it must always be found.
    let Ok(fixed) = entries.insert(Entry::new(KEYS)) else { panic!("the slab is empty") };
    numbers.insert(hash(KEYS), fixed, |_| hash(KEYS));

    let readers: Vec<_> = (0..2)
        .map(|id| {
            let mut reader = domain.reader().unwrap();
            let (slab, map) = (slab.clone(), map.clone());
            let (generation, stop) = (generation.clone(), stop.clone());
            thread::spawn(move || {
                let (mut seed, mut found, mut newest) = (id, 0u64, 0);
                loop {
                    let burst = reader.enter();
                    let (view, entries) = (map.view(&burst), slab.view(&burst));
                    let get = |key| {
                        let number = view.find(hash(key), |n| entries.get(n).is_some_and(|e| e.key == key))?;
                        entries.get(number)
                    };
                    let held: Vec<_> = (0..32).filter_map(|_| get(next(&mut seed) % KEYS)).collect();
                    assert_eq!(get(KEYS).map(|e| e.key), Some(KEYS), "an entry that nobody touched is missing");
                    let now = generation.load(&burst);
                    now.assert_whole();
                    assert!(now.key >= newest, "an old snapshot came back");
                    newest = now.key;
                    held.iter().for_each(|entry| entry.assert_whole());
                    found += held.len() as u64;
                    if stop.load(Ordering::Relaxed) {
                        return found;
                    }
                }
            })
        })
        .collect();

    let mut installed = vec![None; KEYS as usize];
    let mut keys = vec![0; SLOTS as usize];
    keys[fixed as usize] = KEYS;
    let mut seed = 99;
    for round in 1..=20_000 {
        let key = next(&mut seed) % KEYS;
        match installed[key as usize].take() {
            Some(number) => {
                assert!(numbers.remove(hash(key), number));
                assert!(entries.remove(number));
            }
            // A full slab is no error here: the readers are just slow to leave.
            None => {
                if let Ok(number) = entries.insert(Entry::new(key)) {
                    keys[number as usize] = key;
                    numbers.insert(hash(key), number, |n| hash(keys[n as usize]));
                    installed[key as usize] = Some(number);
                }
            }
        }
        if round % 64 == 0 {
            generation.publish(Entry::new(round));
            domain.collect();
        }
        if round % 512 == 0 {
            thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let found: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(found > 0, "the readers found nothing to read");
    assert_eq!(domain.collect(), 0);
    entries.reclaim();
    assert_eq!(entries.draining(), 0);
}
