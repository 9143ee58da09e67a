//! The whole worker beside the oracle, on packets that the fuzzer writes.
//!
//! ```text
//!   control  rules × 8 bytes   then per frame: length, bytes      the rest: which frame comes, in bursts
//! ```
//! The lower bits of the control byte say how many rules there are (0 to 7) and whether ports share. A rule follows from its eight
//! bytes and the frames, so that it meets them.

use std::cell::RefCell;

use wye::sim::differential::{Bench, Case, generate};

const FRAMES_MAX: usize = 4;
const FRAME_LEN_MAX: usize = 160;
const BURST_LEN_MAX: usize = 64;

std::thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

/// Engine and oracle agree.
pub fn run(bytes: &[u8]) {
    let [control, bytes @ ..] = bytes else { return };
    let Some((seeds, mut bytes)) = bytes.split_at_checked(8 * usize::from(control & 7)) else { return };
    let seeds: Vec<u64> = seeds.chunks_exact(8).map(|s| u64::from_le_bytes(s.try_into().expect("eight"))).collect();
    let mut frames = Vec::new();
    while let [len, rest @ ..] = bytes
        && frames.len() < FRAMES_MAX
        && *len > 0
    {
        let len = usize::from(*len).min(FRAME_LEN_MAX).min(rest.len());
        frames.push(rest[..len].to_vec());
        bytes = &rest[len..];
    }
    if frames.is_empty() {
        return;
    }
    let mut bursts: Vec<Vec<u8>> = bytes.chunks(BURST_LEN_MAX).take(3).map(<[u8]>::to_vec).collect();
    if bursts.is_empty() {
        bursts.push((0..frames.len() as u8).collect());
    }
    let rules = generate::rules(&seeds, &frames);
    let case = Case { frames, rules, bursts, shares: control & 8 != 0 };
    BENCH.with_borrow_mut(|bench| bench.check(&case)).unwrap_or_else(|what| panic!("{what}"));
}
