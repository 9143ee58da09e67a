//! Policy for users without Open vSwitch: upcall handlers that fill the flow table by themselves.

pub mod bridge;
#[cfg(feature = "cli")]
pub mod config;
pub mod underlay;
pub mod vlan;

pub use bridge::{Bridge, BridgeConfig, BridgeError, BridgeStats, StationInfo};
pub use vlan::{PortVlans, VlanId, VlanSet};
