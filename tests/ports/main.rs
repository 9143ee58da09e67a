//! Every port driver against the one contract, and what is particular to each.
//!
//! Tests of real interfaces run in namespaces of their own ([`namespace`]); where that is not allowed they say `SKIP`.

#[cfg(target_os = "linux")]
mod af_packet;
#[cfg(target_os = "linux")]
mod af_xdp;
mod conformance;
mod memory;
#[cfg(target_os = "linux")]
mod namespace;
mod pcap;
#[cfg(target_os = "linux")]
mod tap;
#[cfg(target_os = "linux")]
mod wire;
