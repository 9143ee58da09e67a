//! Headers as they stand on the wire: layouts, constants and checksums. No state, no allocation.
//!
//! A header's struct has alignment 1 and covers the part that is always there; `ref_from_prefix` and `mut_from_prefix` of
//! `zerocopy` give a checked view of it at the start of a slice.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod igmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod nsh;
pub mod sctp;
pub mod simd;
pub mod tcp;
pub mod udp;
pub mod vlan;
