//! What is done to packets: a flow's actions compiled to a [`Program`], and the executor that runs it over the packets
//! of a burst that share the flow.
//!
//! | file | what |
//! |---|---|
//! | [`program`] | `Action` list → instructions |
//! | [`execute`] | the executor and the contract with whoever owns ports and upcalls |
//! | `set_field`, `vlan`, `mpls`, `ethernet`, `nsh`, `ttl`, `hash`, `tunnel` | one packet, one header |
//! | [`step`] | what it tells whoever watches it |
//! | [`bond`] | bonds for `lb_output` |
//!
//! An action on a header is one function in one of the leaf files and one line in `execute`.

pub mod bond;
pub mod ethernet;
pub mod execute;
pub mod hash;
mod layers;
pub mod mpls;
pub mod nsh;
pub mod program;
pub mod set_field;
pub mod step;
pub mod ttl;
pub mod tunnel;
pub mod vlan;

pub use program::{CompileError, Program};

/// Times that a packet may be looked up again, as in OVS.
pub const RECIRCULATIONS_MAX: u8 = 8;

#[cfg(all(test, not(loom)))]
mod tests;
