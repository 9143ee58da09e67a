//! For tests and benchmarks: frames built layer by layer, and a checker of everything in them that can be checked.
//!
//! Compiled for this crate's own tests, and for others with the feature `testing`. Nothing here is fast or meant for hostile input,
//! but [`checksums`] never panics: tests hand it what their subject made.

pub mod checksums;
pub mod packets;

pub use packets::Frame;
