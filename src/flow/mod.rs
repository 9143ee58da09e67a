//! Flows: what a packet is ([`key`], [`extract`]), what is done to it ([`action`]), and how both are written
//! as OVS netlink attributes ([`netlink`]) and as the text of `ovs-dpctl` ([`text`]).

pub mod action;
pub mod key;

pub use action::Action;
pub use key::{FlowKey, FlowMask, Line};
