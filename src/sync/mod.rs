//! The only place of the engine that touches atomics: single-writer tables with lock-free readers.
//!
//! * [`qsbr`] tells when every worker has left the burst in which it could have seen an old value;
//! * [`snapshot`] publishes whole values, [`slab`] publishes numbered entries, [`map`] maps hashes to those numbers;
//! * [`mapped`] is the memory of large tables, which [`region`] gets from the kernel or an embedder;
//! * [`counter`] holds statistics that one thread writes and others read;
//! * [`shared`] reads and writes words that the kernel shares with the process.
//!
//! Atomics come from [`primitive`], which is `std` normally and `loom` under `--cfg loom`.

pub mod counter;
pub mod map;
pub mod mapped;
pub mod primitive;
pub mod qsbr;
#[cfg(all(test, loom))]
mod races;
pub mod region;
pub mod shared;
pub mod slab;
pub mod snapshot;
#[cfg(all(test, not(loom)))]
mod stress;
