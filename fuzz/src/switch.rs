//! The whole worker beside the oracle. The input is a list of strings of bytes, each with its length in front, as
//! [`Scenario::decode_bytes`] reads it: flows, bursts of packets, and changes in between.

use std::cell::RefCell;
use std::collections::BTreeMap;

use wye::sim::differential::{Rig, Scenario};

/// Longer inputs say nothing new.
const LEN_MAX: usize = 2048;

std::thread_local! {
    /// By VLAN tags in a key.
    static RIGS: RefCell<BTreeMap<u8, Rig>> = const { RefCell::new(BTreeMap::new()) };
}

/// Engine and oracle agree.
pub fn run(bytes: &[u8]) {
    if bytes.len() > LEN_MAX {
        return;
    }
    let scenario = Scenario::decode_bytes(bytes);
    RIGS.with_borrow_mut(|rigs| {
        let rig = rigs.entry(scenario.vlan_depth).or_insert_with(|| Rig::new(scenario.vlan_depth));
        if let Err(what) = rig.run(&scenario) {
            rigs.remove(&scenario.vlan_depth);
            panic!("{what}\n\n{scenario}");
        }
    });
}
