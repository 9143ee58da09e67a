//! The frames in `tests/golden/tunnels`, which were made by scapy: they open, and the same are pushed.

use super::variants;
use super::*;
use std::collections::BTreeMap;
use std::path::Path;

/// The frames by name.
pub fn frames() -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tunnels/frames.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let frame = |line: &str| {
        let (name, hex) = line.split_once(' ').unwrap();
        (name.to_string(), hex.as_bytes().chunks(2).map(byte).collect())
    };
    text.lines().map(frame).collect()
}

#[test]
fn frames_of_another_maker_open_and_the_same_are_pushed() {
    let mut frames = frames();
    for variant in variants::all() {
        let golden = frames.remove(&variant.name).unwrap_or_else(|| panic!("no golden frame is {}", variant.name));
        assert_eq!(variant.wrapped(), golden, "{}", variant.name);
        let (inner, ext, layer3) = open_bytes(variant.kind, &variant.options, &golden).unwrap();
        assert_eq!((inner, layer3), (variant.inner(), variant.layer3), "{}", variant.name);
        assert_eq!(ext.tunnel, variant.line, "{}", variant.name);
        assert_eq!(&ext.options[..variant.geneve.len()], variant.geneve, "{}", variant.name);
    }
    assert!(frames.is_empty(), "golden frames of no variant: {:?}", frames.keys());
}
