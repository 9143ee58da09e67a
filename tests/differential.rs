//! Caches on = caches off = the oracle: random rules, random packets, the whole worker.
//!
//! A *case* is a set of rules that do not overlap, a few packets (valid, damaged or cut off) in bursts, and the comparison of everything that
//! can be seen: each packet's fate, what was sent, each rule's statistics, the worker's counters, the copies' ends. See
//! `src/sim/differential`.
//!
//! `WYE_DIFFERENTIAL_CASES` sets the number of cases over all tests here; 100,000 by default.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wye::sim::differential::{Bench, Case, generate};

/// What a case follows from: numbers, fewer of which make a smaller case.
#[derive(Clone, Debug)]
struct Seeds {
    frames: Vec<u64>,
    rules: Vec<u64>,
    bursts: Vec<Vec<u8>>,
    shares: bool,
}

fn seeds() -> impl Strategy<Value = Seeds> {
    let burst = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 1..6),
        2 => proptest::collection::vec(any::<u8>(), 6..40),
        1 => (any::<u8>(), 1..257usize).prop_map(|(which, n)| vec![which; n]),
    ];
    (
        proptest::collection::vec(any::<u64>(), 1..4),
        proptest::collection::vec(any::<u64>(), 0..7),
        proptest::collection::vec(burst, 1..4),
        any::<bool>(),
    )
        .prop_map(|(frames, rules, bursts, shares)| Seeds { frames, rules, bursts, shares })
}

impl Seeds {
    fn case(self) -> Case {
        let frames: Vec<Vec<u8>> = self.frames.iter().map(|&seed| generate::frame(seed)).collect();
        let rules = generate::rules(&self.rules, &frames);
        Case { frames, rules, bursts: self.bursts, shares: self.shares }
    }
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

/// A quarter of the cases.
fn quarter() {
    let cases = std::env::var("WYE_DIFFERENTIAL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000u32);
    let config = ProptestConfig { cases: cases.div_ceil(4), failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&seeds(), |seeds| BENCH.with_borrow_mut(|bench| bench.check(&seeds.case())).map_err(TestCaseError::fail))
        .unwrap_or_else(|e| panic!("{e}"));
}

// Four tests, so that a machine with several cores runs them side by side.
#[test]
fn caches_on_and_off_and_the_oracle_agree_1() {
    quarter();
}

#[test]
fn caches_on_and_off_and_the_oracle_agree_2() {
    quarter();
}

#[test]
fn caches_on_and_off_and_the_oracle_agree_3() {
    quarter();
}

#[test]
fn caches_on_and_off_and_the_oracle_agree_4() {
    quarter();
}
