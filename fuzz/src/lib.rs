//! What is fuzzed: one function of bytes for each edge that strangers can reach, in a file of its name.
//!
//! The fuzzer calls them through `fuzz/targets/`, and `tests/fuzz_replay.rs` replays the committed inputs through them
//! without a nightly toolchain. To add a target: its file here, its line in [`TARGETS`], its entry in `fuzz/Cargo.toml` and
//! `fuzz/targets/`, and a few seeds in `fuzz/corpus/`. An input that failed once goes to `fuzz/regress/` under a name that
//! says what was wrong.

pub mod config;
pub mod extract;
pub mod netlink;
pub mod switch;
pub mod text;
pub mod trace;
pub mod tunnel;

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("config", config::run),
    ("extract", extract::run),
    ("netlink", netlink::run),
    ("switch", switch::run),
    ("text", text::run),
    ("trace", trace::run),
    ("tunnel", tunnel::run),
];
