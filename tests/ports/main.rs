//! Every port driver against the one contract, and what is particular to each.

mod conformance;
mod memory;
mod pcap;
