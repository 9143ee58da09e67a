//! The C ABI as C calls it: raw pointers, callbacks, structs of any size.

mod flows;
mod memory;
mod misuse;
mod packets;
mod ports;
mod switch;
mod text;
mod upcalls;
