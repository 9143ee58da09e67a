//! Packets as descriptors of somebody's buffer, the pools that buffers come from, and what becomes of a packet.

pub mod buffer;
pub mod fate;
pub mod pool;

pub use buffer::{Owner, Packet, PacketFlags};
pub use fate::{DropReason, Fate};
pub use pool::{Pool, PoolCache};
