//! Headers as they stand on the wire: layouts, constants and checksums. No state, no allocation.

pub mod ethernet;
pub mod simd;
