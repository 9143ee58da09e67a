//! Ports: where packets come from and go to. [`driver`] is the contract, the other files are its members.

pub mod driver;

pub use driver::{Driver, PortError, TxBurst};
