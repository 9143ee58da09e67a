//! Flow keys, masks and actions as OVS netlink attributes ([`attr`](super::attr)), both ways.
//!
//! Decoding trusts nothing: every length is checked, an attribute that is unknown, repeated, missing or out of place is an
//! error that names it, nesting ends at [`DEPTH_MAX`] and a list at [`LEN_MAX`] bytes. The meaning is that of Open
//! vSwitch's `lib/odp-util.c`. Where the encoding has several forms for one meaning, decoding settles on one of them, so
//! that equal flows have equal keys and masks:
//!
//! - `OVS_KEY_ATTR_PACKET_TYPE` absent means an Ethernet packet, and is compared when it is absent from a mask; so is
//!   `OVS_KEY_ATTR_RECIRC_ID`. The EtherType of a layer-3 packet is compared in any case.
//! - A key without a VLAN tag matches only packets without one: the encoding cannot say "tagged or not". A key with one
//!   tag matches only packets with exactly one.
//! - A truncated tag (`OVS_KEY_ATTR_VLAN` of 0) is a packet without a tag whose EtherType is that of the tag.
//! - Any bit in the mask of `packet_type`'s namespace, of `frag` or of ERSPAN's version means the whole field.
//! - In a mask the bits of a value that the key cannot have (an option of a tunnel that the key lacks) say that it is absent.

mod action;
mod key;
mod nsh;
mod set;
#[cfg(test)]
mod tests;
mod tunnel;
mod wire;

pub(crate) use action::NSH_TLVS_MAX;
pub use action::{decode_actions, encode_actions};
pub(crate) use key::decode_key_with;
pub use key::{decode_key, decode_mask, encode_key, encode_mask, exact_mask};
#[cfg(any(test, feature = "arbitrary"))]
pub(crate) use key::{has_ct_tuple, settle};
pub(crate) use set::{apart, decode_apart, encode as encode_set};
pub use wire::{AttrName, CodecError, Fault};
pub(crate) use wire::{KEY, NSH, TUNNEL, VXLAN, nested, put, walk};

/// Lists of actions may be this deep in each other.
pub const DEPTH_MAX: usize = 16;
/// A list of attributes may have this many bytes.
pub const LEN_MAX: usize = 65_536;
