//! Ports: where packets come from and go to. [`driver`] is the contract, the other files are its members.

#[cfg(target_os = "linux")]
pub mod af_packet;
#[cfg(target_os = "linux")]
pub mod af_xdp;
pub mod driver;
pub mod memory;
#[cfg(target_os = "linux")]
mod offload;
pub mod pcap;
mod pcapng;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
pub mod tap;
pub mod trace;

pub use driver::{Driver, Link, PortError, PortStats, TxBurst};
pub use trace::{Trace, TracePacket, read_trace};
