//! Bridge domains: the VLANs of a bridge, and VPCs, each of which is the VXLAN network of its identifier.

use super::vlan::VlanId;

/// A VXLAN (RFC 7348 §5) or Geneve network identifier: 24 bits. VPC and tenant go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// Network `number`, if it has 24 bits.
    pub const fn new(number: u32) -> Option<Vni> {
        if number < 1 << 24 { Some(Vni(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl core::fmt::Display for Vni {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// What no frame leaves: stations of different domains never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A VLAN of this bridge.
    Vlan(VlanId),
    /// A VPC, which other bridges belong to as well.
    Vpc(Vni),
}

/// Where a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Behind a port.
    Port(u32),
    /// Behind another end of a tunnel: the number of its endpoint.
    Remote(u32),
}
