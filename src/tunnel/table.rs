//! The tunnels of a datapath, by the number of the port that their packets come in on.

use super::contract::{Kind, Options};
use super::template::Template;
use crate::sync::primitive::Arc;
use ahash::AHashMap;

/// One tunnel: how its packets are opened, and how packets get into it.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Kind.
    pub kind: Kind,
    /// How packets are checked.
    pub options: Options,
    /// The way to the other end; `None` as long as it is not known (no route, no address of the next hop), or for a tunnel that is only opened.
    pub way: Option<Arc<Way>>,
}

impl Tunnel {
    /// A tunnel that is only opened.
    pub fn new(kind: Kind, options: Options) -> Tunnel {
        Tunnel { kind, options, way: None }
    }
}

/// What `encap` does.
#[derive(Debug)]
pub struct Way {
    /// The outer headers.
    pub template: Template,
    /// The port that the outer packets leave by.
    pub out_port: u32,
    /// The longest outer IP packet that gets through.
    pub mtu: u32,
}

/// Why `encap` cannot be carried out on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The tunnel's way is not known.
    Unresolved,
    /// The packet is longer than this, Ethernet header included, which is what gets through.
    TooBig {
        /// Bytes.
        inner_max: u32,
    },
}

/// All tunnels by port number.
pub type TunnelTable = AHashMap<u32, Arc<Tunnel>>;
