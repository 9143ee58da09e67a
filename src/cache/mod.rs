//! Finding a packet's flow: the per-worker [`exact`] cache in front of the shared [`megaflow`] table.
//!
//! ```text
//!   key ──(AND union of all masks)── hash ──▶ exact: hash → flow number ──▶ compare under the flow's mask ── hit
//!                                                       └── nothing there, or it does not match
//!                                                           megaflow: one hash table per mask, most hit first
//! ```

pub mod exact;
pub mod hash;
pub mod megaflow;
