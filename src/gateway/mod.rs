//! Policy for users without Open vSwitch: upcall handlers that fill the flow table by themselves.

pub mod bridge;
#[cfg(feature = "cli")]
pub mod config;
pub mod domain;
#[cfg(test)]
pub(crate) mod sites;
pub mod underlay;
pub mod vlan;

pub use bridge::{Bridge, BridgeConfig, BridgeError, BridgeStats, StationInfo, VpcConfig, VpcError, VpcInfo};
pub use domain::{Domain, Place, Vni};
pub use underlay::Underlay;
pub use vlan::{PortVlans, VlanId, VlanSet};
