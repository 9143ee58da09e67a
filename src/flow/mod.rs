//! Flows: what a packet is ([`key`], [`extract`]), what is done to it ([`action`]), and how both are written
//! as OVS netlink attributes ([`netlink`]) and as the text of `ovs-dpctl` ([`text`]).

pub mod action;
#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
pub mod attr;
pub mod ext;
pub mod extract;
pub mod key;
pub mod netlink;
pub mod text;

pub use action::Action;
pub use ext::Ext;
pub use key::{FlowKey, FlowMask, Line};
