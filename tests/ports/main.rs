//! Every port driver against the one contract, and what is particular to each.
//!
//! Tests of real interfaces run in namespaces of their own ([`namespace`]); where that is not allowed they say `SKIP`.

mod af_packet;
mod af_xdp;
mod conformance;
mod memory;
mod namespace;
mod pcap;
mod tap;
mod wire;
