//! The C ABI as C calls it: raw pointers, callbacks, structs of any size.

mod flows;
mod gateway;
mod interfaces;
mod memory;
mod metadata;
mod misuse;
// Of what the tests of the ports need, these need a part.
#[allow(dead_code)]
#[path = "../../../../tests/ports/namespace.rs"]
mod namespace;
mod packets;
mod ports;
mod switch;
mod text;
mod tunnels;
mod upcalls;
