//! The engine beside the [oracle](super::oracle): scenarios decoded from bytes, run on both, and everything compared.
//!
//! `tests/differential.rs` has proptest choose the bytes, the fuzz target `switch` a fuzzer. [`choices`] turns bytes into choices,
//! [`frames`], [`tunnels`] and [`flows`] make traffic and tables of them, [`scenario`] puts these into an order, [`engine`] is a switch
//! under test, and [`rig`] compares.

pub mod choices;
pub mod engine;
pub mod flows;
pub mod frames;
pub mod rig;
pub mod scenario;
mod shown;
pub mod tunnels;

pub use rig::{Report, Rig};
pub use scenario::Scenario;
