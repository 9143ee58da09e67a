//! Ports: where packets come from and go to. [`driver`] is the contract, the other files are its members.

pub mod driver;
pub mod memory;
pub mod pcap;
mod pcapng;
pub mod trace;

pub use driver::{Driver, Link, PortError, PortStats, TxBurst};
pub use trace::{Trace, TracePacket, read_trace};
