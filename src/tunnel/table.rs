//! The tunnels of a datapath, by the number of the port that their packets come in on.

use super::contract::{Kind, Options};
use crate::sync::primitive::Arc;
use ahash::AHashMap;

/// One tunnel: how its packets are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Kind.
    pub kind: Kind,
    /// How packets are checked.
    pub options: Options,
}

/// All tunnels by port number.
pub type TunnelTable = AHashMap<u32, Arc<Tunnel>>;
