//! Wye: a zero-copy, lock-free userspace virtual switch engine.
//!
//! The house has floors; a file imports only from below (`tests/floors.rs` reads the sources and keeps it so):
//!
//! ```text
//! 9  bin/wye      command-line tool
//! 8  gateway      policy for users without OVS: bridge, VPCs, routes and neighbours
//! 7  sim          the oracle, and the engine beside it (feature `testing`)
//! 6  datapath     control handle, worker, flow table, upcalls, upkeep, explain
//! 5  action       what is done to packets
//! 4  cache meter  siblings that never import one another
//!    tunnel       outer headers on and off
//! 3  flow port    key, extraction, codecs; port drivers
//! 2  packet       descriptors and pools
//! 1  wire sync    headers; atomics and what is built on them
//! 0  time
//! ```

pub mod action;
pub mod cache;
pub mod datapath;
pub mod flow;
pub mod gateway;
pub mod meter;
pub mod packet;
pub mod port;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
pub mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod tunnel;
pub mod wire;
