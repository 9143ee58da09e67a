//! What the engine is held against: the oracle, and the engine beside it (feature `testing`).

pub mod differential;
pub mod oracle;
