//! `wye bench`: the whole worker, without port I/O, over traces in memory.
//!
//! Each burst of 32 packets is copied from the trace into buffers before the clock starts, as a NIC would have put it there, so that
//! each burst begins with what the sender sent. The clock runs around `Worker::process` alone. The sink counts packets and
//! leaves them in place.

pub mod cases;
pub mod measure;
pub mod trace;

pub use cases::CASES;
