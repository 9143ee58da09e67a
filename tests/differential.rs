//! The engine beside the oracle, on random flow tables and traffic.
//!
//! A case is a scenario: flows, bursts of packets, and changes in between, done to the oracle and to engines with caches on and off, at
//! every instruction-set level of this CPU, through `Worker::process` and `Worker::poll`. Compared are each packet's fate, what was sent of
//! it, the upcall ring, every counter, and the statistics of flows, meters and bonds. In every third scenario most packets are of tunnels.
//!
//! `WYE_DIFFERENTIAL_CASES` says how many cases there are over all tests here. By default they are so many that more than 100,000
//! compare a burst or several: about 210,000 bursts in all, each with four or five engines.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use wye::sim::differential::{Report, Rig, Scenario};

/// Cases without the environment variable.
const CASES: u32 = 101_000;

fn cases() -> u32 {
    std::env::var("WYE_DIFFERENTIAL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES)
}

/// Bytes of a scenario, a chunk for each event: proptest leaves out and simplifies events one by one.
fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..64), 4..20)
}

fn scenario(chunks: &[Vec<u8>]) -> Scenario {
    Scenario::decode(chunks.iter().map(Vec::as_slice))
}

/// A failed case in words, with what it does to engines that have seen nothing before.
fn explain(chunks: &[Vec<u8>], reason: &str) -> String {
    let scenario = scenario(chunks);
    let fresh = match Rig::new(scenario.vlan_depth).run(&scenario) {
        Ok(_) => "Engines that have not run other cases before do not fail.".to_owned(),
        Err(e) => format!("Engines that are fresh say: {e}"),
    };
    format!("{reason}\n\n{scenario}\n{fresh}\n\nchunks: {chunks:?}")
}

fn half() {
    let config =
        Config { cases: cases().div_ceil(2), max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() };
    let rigs: RefCell<BTreeMap<u8, Rig>> = RefCell::default();
    let total: RefCell<(u64, Report)> = RefCell::default();
    let outcome = TestRunner::new(config).run(&chunks(), |chunks| {
        let scenario = scenario(&chunks);
        let mut rigs = rigs.borrow_mut();
        let rig = rigs.entry(scenario.vlan_depth).or_insert_with(|| Rig::new(scenario.vlan_depth));
        let report = rig.run(&scenario).map_err(|e| {
            // What a failure leaves behind is no start for the next case.
            rigs.remove(&scenario.vlan_depth);
            TestCaseError::fail(e)
        })?;
        let mut total = total.borrow_mut();
        total.0 += u64::from(report.bursts > 0);
        total.1.bursts += report.bursts;
        total.1.flows += report.flows;
        total.1.sent += report.sent;
        total.1.punted += report.punted;
        total.1.pushed += report.pushed;
        total.1.popped += report.popped;
        total.1.stats.merge(&report.stats);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, chunks)) => panic!("{}", explain(&chunks, reason.message())),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let (cases, report) = total.into_inner();
    println!("{cases} cases: {report:?}");
    let few = report.pushed.min(report.popped) < cases;
    assert!(cases < 1000 || !few, "hardly anything went through tunnels");
    for (_, rig) in rigs.into_inner() {
        rig.finish().unwrap();
    }
}

// Two tests, so that a machine with several cores runs them side by side.
#[test]
fn caches_on_equal_caches_off_equal_the_oracle_1() {
    half();
}

#[test]
fn caches_on_equal_caches_off_equal_the_oracle_2() {
    half();
}
