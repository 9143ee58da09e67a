//! Replays the fuzzer's committed inputs, and small variations of them, without the fuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// The files in `fuzz/FOLDER/TARGET`; none if there is no such folder.
fn inputs(folder: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[track_caller]
fn replay(target: &str, run: fn(&[u8]), path: &Path, bytes: &[u8], how: &str) {
    if catch_unwind(AssertUnwindSafe(|| run(bytes))).is_err() {
        panic!("target {target} failed on {} {how}", path.display());
    }
}

#[test]
fn committed_inputs_hold_in_every_target() {
    for &(target, run) in fuzz::TARGETS {
        let seeds = inputs("corpus", target);
        assert!(!seeds.is_empty(), "target {target} has no seeds in fuzz/corpus");
        for (path, bytes) in seeds.iter().chain(&inputs("regress", target)) {
            replay(target, run, path, bytes, "as it is");
        }
    }
}

#[test]
fn seeds_cut_and_flipped_hold_in_every_target() {
    for &(target, run) in fuzz::TARGETS {
        for (path, bytes) in inputs("corpus", target) {
            // Long seeds are varied at a stride, so that the time does not grow with their square.
            let stride = bytes.len() / 512 + 1;
            for at in (0..bytes.len()).step_by(stride) {
                replay(target, run, &path, &bytes[..at], &format!("cut at byte {at}"));
                for flip in [0x01, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= flip;
                    replay(target, run, &path, &changed, &format!("with byte {at} xor {flip:#x}"));
                }
            }
        }
    }
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target() {
    for folder in ["corpus", "regress"] {
        let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)) else {
            continue;
        };
        for entry in entries.map(|e| e.unwrap()).filter(|e| e.path().is_dir()) {
            let name = entry.file_name().into_string().unwrap();
            assert!(fuzz::TARGETS.iter().any(|(target, _)| *target == name), "fuzz/{folder}/{name} has no target");
        }
    }
}
