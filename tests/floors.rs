//! Reads the sources and keeps the floors of the house: imports point down, siblings do not know one another, and
//! atomics, locks, threads, clocks and `unsafe` stay in the rooms that are made for them.
//!
//! To add a room, give it a floor in [`FLOORS`]. To make an exception, name the file and the reason in one of the lists below.

use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules by floor; a file imports only from floors below its own.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["time"]),
    (1, &["wire", "sync"]),
    (2, &["packet", "testing"]),
    (3, &["flow", "port", "crypto"]),
    (4, &["cache", "tunnel", "conntrack", "esp", "meter"]),
    (5, &["action"]),
    (6, &["datapath"]),
    // Nothing in the engine uses what is for tests.
    (7, &["sim"]),
    (8, &["gateway"]),
    (9, &["bin"]),
];

/// Imports between rooms of one floor that are allowed. There are none on floor 4.
const SAME_FLOOR: &[(&str, &str)] = &[
    // The prefetch hint.
    ("sync", "wire"),
];

/// Files, without `src/`, in which `unsafe` may be written. A name that ends in `/` is a folder.
const UNSAFE_ROOMS: &[&str] = &[
    "sync/",
    "wire/simd.rs",
    "packet/buffer.rs",
    "packet/pool.rs",
    "port/af_packet.rs",
    "port/af_packet/",
    "port/af_xdp.rs",
    "port/af_xdp/",
    "port/sys.rs",
    "port/sys/",
];

/// Where a clock may be read: time is an argument everywhere else.
const CLOCK_ROOMS: &[&str] = &["bin/", "port/"];

/// Where atomics and locks may be named directly: sync/ makes them, the tool is not model-checked.
const ATOMIC_ROOMS: &[&str] = &["sync/", "bin/"];

/// Where threads may be started.
const THREAD_ROOMS: &[&str] = &["bin/", "gateway/"];

const ATOMICS: &[&str] = &["atomic", "Mutex", "RwLock", "Condvar", "Barrier", "mpsc", "*"];
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "libc::clock_gettime", "libc::gettimeofday"];

/// A source file: its path below `src/` and its text.
struct Source {
    path: String,
    text: String,
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

fn in_rooms(path: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| if room.ends_with('/') { path.starts_with(room) } else { path == *room })
}

/// `text` with comments and the contents of strings and characters turned into blanks; lines stay where they are.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        out[from..to].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    };
    let find = |from: usize, what: &str| text[from..].find(what).map_or(bytes.len(), |at| from + at);
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let end = if rest.starts_with(b"//") {
            find(i, "\n")
        } else if rest.starts_with(b"/*") {
            let (mut depth, mut j) = (1, i + 2);
            while depth > 0 && j < bytes.len() {
                match &bytes[j..] {
                    [b'*', b'/', ..] => (depth, j) = (depth - 1, j + 2),
                    [b'/', b'*', ..] => (depth, j) = (depth + 1, j + 2),
                    _ => j += 1,
                }
            }
            j
        } else if rest.starts_with(b"r\"") || rest.starts_with(b"r#\"") || rest.starts_with(b"r##\"") {
            let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            find(i + 2 + hashes, &close) + close.len()
        } else if rest[0] == b'"' {
            let mut j = i + 1;
            while j < bytes.len() && bytes[j] != b'"' {
                j += if bytes[j] == b'\\' { 2 } else { 1 };
            }
            j + 1
        } else if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || find(i + 1, "'") <= i + 1 + utf8_len(rest)) {
            // A character; a lifetime has no closing quote so near.
            let skip = if rest.get(1) == Some(&b'\\') { 3 } else { 2 };
            find(i + skip, "'") + 1
        } else {
            i += 1;
            continue;
        };
        let end = end.min(bytes.len());
        blank(i, end);
        i = end;
    }
    String::from_utf8(out).expect("only whole characters were blanked")
}

/// Length of the character after the quote that `rest` begins with.
fn utf8_len(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(0..0x80) | None => 1,
        Some(0..0xE0) => 2,
        Some(0..0xF0) => 3,
        Some(_) => 4,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    PathSeparator,
    Mark(char),
}

fn tokens(blanked: &str) -> Vec<(usize, Token)> {
    let mut out = Vec::new();
    for (number, line) in blanked.lines().enumerate() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let len = if word > 0 {
                out.push((number + 1, Token::Word(rest[..word].to_string())));
                word
            } else if rest.starts_with("::") {
                out.push((number + 1, Token::PathSeparator));
                2
            } else {
                if !c.is_whitespace() {
                    out.push((number + 1, Token::Mark(c)));
                }
                c.len_utf8()
            };
            rest = &rest[len..];
        }
    }
    out
}

/// Index behind the group that opens at `open`.
fn behind_group(tokens: &[(usize, Token)], open: usize) -> usize {
    let mut depth = 0;
    for (i, (_, token)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark('}' | ')' | ']') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Removes items under `#[cfg(test)]` and the like; returns the names of modules among them that have files of their own.
fn without_tests(mut tokens: Vec<(usize, Token)>) -> (Vec<(usize, Token)>, Vec<String>) {
    let mut files = Vec::new();
    let mut i = 0;
    while i + 2 < tokens.len() {
        let is_attribute = tokens[i].1 == Token::Mark('#') && tokens[i + 1].1 == Token::Mark('[');
        if !is_attribute {
            i += 1;
            continue;
        }
        let behind = behind_group(&tokens, i + 1);
        let says = |word: &str| tokens[i..behind].iter().any(|(_, t)| *t == Token::Word(word.into()));
        let negated = (i..behind).any(|j| {
            tokens[j].1 == Token::Word("not".into())
                && tokens.get(j + 2).is_some_and(|t| t.1 == Token::Word("test".into()))
        });
        if !(says("cfg") && says("test")) || negated {
            i = behind;
            continue;
        }
        // The item ends with its first brace group, or with a semicolon before one.
        let mut end = behind;
        while end < tokens.len() {
            match tokens[end].1 {
                Token::Mark('{') => {
                    end = behind_group(&tokens, end);
                    break;
                }
                Token::Mark('(' | '[') => end = behind_group(&tokens, end),
                Token::Mark(';') => {
                    if let [.., (_, Token::Word(mod_word)), (_, Token::Word(name))] = &tokens[..end]
                        && mod_word == "mod"
                    {
                        files.push(name.clone());
                    }
                    end += 1;
                    break;
                }
                _ => end += 1,
            }
        }
        tokens.drain(i..end);
    }
    (tokens, files)
}

/// Every path that the tokens write, with the line it begins on; groups like `a::{b, c::d}` give one path each.
fn paths(tokens: &[(usize, Token)]) -> Vec<(usize, Vec<String>)> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if matches!(tokens[i].1, Token::Word(_)) {
            i = path(tokens, i, &[], &mut out);
        } else {
            i += 1;
        }
    }
    out
}

/// Reads one path (or group of them) at `i` behind `prefix`; returns the index behind it.
fn path(tokens: &[(usize, Token)], mut i: usize, prefix: &[String], out: &mut Vec<(usize, Vec<String>)>) -> usize {
    let line = tokens[i].0;
    let mut parts = prefix.to_vec();
    loop {
        match tokens.get(i).map(|t| &t.1) {
            Some(Token::Word(word)) => parts.push(word.clone()),
            Some(Token::Mark('*')) => parts.push("*".into()),
            Some(Token::Mark('{')) => {
                let behind = behind_group(tokens, i);
                i += 1;
                while i + 1 < behind {
                    let begins_path = matches!(tokens[i].1, Token::Word(_) | Token::Mark('*'));
                    i = if begins_path { path(&tokens[..behind - 1], i, &parts, out) } else { i + 1 };
                    // `as name`: the name is no path.
                    if tokens[i.min(behind - 1)].1 == Token::Word("as".into()) {
                        i += 2;
                    }
                }
                return behind;
            }
            _ => break,
        }
        i += 1;
        if tokens.get(i).map(|t| &t.1) != Some(&Token::PathSeparator) {
            break;
        }
        i += 1;
    }
    out.push((line, parts));
    i
}

/// What `sources` do against the rules, one `file:line: what` each.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    let mut test_files = Vec::new();
    let mut kept = Vec::new();
    for source in sources {
        let (tokens, modules) = without_tests(tokens(&blanked(&source.text)));
        let folder = match source.path.rsplit_once('/') {
            Some((folder, "mod.rs" | "main.rs")) => format!("{folder}/"),
            None => String::new(),
            Some(_) => format!("{}/", source.path.trim_end_matches(".rs")),
        };
        for module in modules {
            test_files.push(format!("{folder}{module}.rs"));
            test_files.push(format!("{folder}{module}/mod.rs"));
        }
        kept.push((source.path.as_str(), tokens));
    }
    for (path, tokens) in kept {
        if !test_files.iter().any(|f| f == path) {
            violations_of(path, &tokens, &mut out);
        }
    }
    // One `use` may name a room several times.
    out.dedup();
    out
}

fn violations_of(path: &str, tokens: &[(usize, Token)], out: &mut Vec<String>) {
    let room = path.split(['/', '.']).next().unwrap_or_default();
    let here = if room == "lib" { Some(u8::MAX) } else { floor(room) };
    let mut report = |line: usize, what: String| out.push(format!("src/{path}:{line}: {what}"));
    let Some(here) = here else {
        report(1, format!("the room `{room}` has no floor: give it one in tests/floors.rs"));
        return;
    };
    let depth = path.split('/').count() - usize::from(path.ends_with("/mod.rs"));

    for (line, parts) in paths(tokens) {
        let supers = parts.iter().take_while(|p| *p == "super").count();
        let target = match parts[0].as_str() {
            "crate" => parts.get(1),
            // Enough `super`s to come out at the crate's root.
            "super" if room != "bin" && supers >= depth => parts.get(supers),
            _ => None,
        };
        if let Some(target) = target.filter(|t| *t != room && room != "lib" && room != "bin") {
            match floor(target) {
                Some(there) if there > here => report(
                    line,
                    format!("`{room}` (floor {here}) imports `{target}` (floor {there}): imports point down"),
                ),
                Some(there) if there == here && !SAME_FLOOR.contains(&(room, target)) => report(
                    line,
                    format!("`{room}` imports its sibling `{target}`: rooms of floor {here} do not know one another"),
                ),
                Some(_) => {}
                // `super` in an inline module stays inside its file.
                None if parts[0] == "super" => {}
                None => report(line, format!("`crate::{target}` is in no room: import it from where it lives")),
            }
        }

        let whole = parts.join("::");
        let std_sync = ["std::sync::", "core::sync::"].iter().find_map(|p| whole.strip_prefix(p));
        if let Some(item) = std_sync.and_then(|rest| rest.split("::").next())
            && ATOMICS.contains(&item)
            && !in_rooms(path, ATOMIC_ROOMS)
        {
            report(line, format!("`{whole}`: atomics and locks come from `crate::sync`"));
        }
        let is_thread = whole == "std::thread" || whole.starts_with("std::thread::") && !whole.ends_with("::panicking");
        if is_thread && !in_rooms(path, THREAD_ROOMS) {
            report(line, format!("`{whole}`: the engine starts no thread"));
        }
        if CLOCKS.iter().any(|clock| whole.ends_with(clock)) && !in_rooms(path, CLOCK_ROOMS) {
            report(line, format!("`{whole}`: time is an argument, clocks are read only at the edges"));
        }
    }

    for (i, (line, token)) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let is_macro = tokens.get(i + 1).is_some_and(|t| t.1 == Token::Mark('!'));
        if is_macro && (word == "todo" || word == "unimplemented") {
            report(*line, format!("`{word}!`: finish it or leave it out"));
        }
        if word == "unsafe" && !in_rooms(path, UNSAFE_ROOMS) {
            report(*line, "`unsafe` outside the rooms that are made for it".into());
        }
    }
}

fn collect(folder: &Path, root: &Path, out: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, root, out);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            let path = entry.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            out.push(Source { path, text: fs::read_to_string(&entry).unwrap() });
        }
    }
}

#[test]
fn sources_keep_the_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    assert!(sources.len() > 10, "the sources are not where this test looks");
    let found = violations(&sources);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// The violations of one planted file.
fn planted(path: &str, text: &str) -> Vec<String> {
    violations(&[Source { path: path.into(), text: text.into() }])
}

#[track_caller]
fn assert_found(path: &str, text: &str, what: &str) {
    let found = planted(path, text);
    assert!(found.len() == 1 && found[0].contains(what), "expected one `{what}`, found {found:?}");
}

#[test]
fn upward_import_is_found_however_it_is_written() {
    assert_found(
        "wire/ipv4.rs",
        "\nuse crate::packet::Packet;",
        "src/wire/ipv4.rs:2: `wire` (floor 1) imports `packet`",
    );
    assert_found("wire/ipv4.rs", "use crate::{time::Nanos, packet::{self, Packet as P}};", "imports `packet`");
    assert_found("wire/ipv4.rs", "fn f() { super::super::flow::key::f() }", "imports `flow`");
    assert_found("wire/mod.rs", "use super::flow;", "imports `flow`");
    assert_found("time.rs", "use super::wire::simd;", "imports `wire`");
    assert_found("flow/key.rs", "impl Key { fn f(p: &crate::action::Program) {} }", "imports `action`");
    assert_found("flow/key.rs", "use crate::Wye;", "`crate::Wye` is in no room");
    assert_found("attic/mod.rs", "", "the room `attic` has no floor");
}

#[test]
fn sibling_import_is_found() {
    assert_found("cache/emc.rs", "use crate::meter::Meter;", "imports its sibling `meter`");
    assert_found("port/tap.rs", "use crate::flow::key::FlowKey;", "imports its sibling `flow`");
}

#[test]
fn atomics_locks_and_threads_are_found_outside_their_rooms() {
    assert_found("datapath/worker.rs", "use std::sync::atomic::AtomicU64;", "atomics and locks");
    assert_found("datapath/worker.rs", "use std::sync::{Arc, atomic::{AtomicU64}};", "atomics and locks");
    assert_found("cache/emc.rs", "static X: core::sync::atomic::AtomicU8 = 0;", "atomics and locks");
    assert_found("gateway/mod.rs", "use std::sync::Mutex;", "atomics and locks");
    assert_found("datapath/mod.rs", "fn f() { std::thread::spawn(f); }", "starts no thread");
}

#[test]
fn clocks_unsafe_and_unfinished_code_are_found() {
    assert_found("datapath/mod.rs", "use std::time::Instant; fn f() { Instant::now(); }", "time is an argument");
    assert_found("action/set.rs", "fn f() { unsafe { g() } }", "`unsafe` outside");
    assert_found("bin/wye/main.rs", "fn f() { todo!() }", "`todo!`");
    assert_found("port/tap.rs", "fn f() { unimplemented!(\"x\") }", "`unimplemented!`");
}

#[test]
fn what_the_rules_allow_is_let_through() {
    let fine = [
        ("datapath/mod.rs", "use crate::{sync::primitive::Mutex, action::Program}; use super::super::time::Nanos;"),
        (
            "cache/emc.rs",
            "//! See [`x`](crate::action::X) unsafe std::thread::spawn\n/* todo!() /* unsafe */ */ use std::sync::Arc;",
        ),
        (
            "cache/emc.rs",
            "const X: &str = \"unsafe \\\" todo!()\"; const Y: &str = r#\"\"unsafe\"#; const Z: char = '\"'; fn f<'a>() {}",
        ),
        ("cache/emc.rs", "#[cfg(test)] mod tests { use crate::action::X; use std::thread; fn f() { unsafe {} } }"),
        ("cache/emc.rs", "#[cfg(all(test, not(loom)))]\n#[allow(x)]\nmod tests { use crate::action::X; }"),
        ("sync/map.rs", "use crate::wire::simd; use std::sync::atomic::AtomicU64; unsafe impl Sync for X {}"),
        ("bin/wye/main.rs", "use std::{thread, time::Instant}; fn f() { Instant::now(); }"),
        ("lib.rs", "pub use crate::gateway::Gateway; pub mod flow;"),
        ("cache/emc.rs", "mod inner { use super::Entry; } #[allow(unsafe_code)] fn f() {}"),
    ];
    for (path, text) in fine {
        assert_eq!(planted(path, text), [""; 0], "{text}");
    }
}

#[test]
fn code_behind_a_test_module_is_still_read() {
    assert_found("cache/emc.rs", "#[cfg(test)] mod tests { fn f() {} } use crate::action::X;", "imports `action`");
    assert_found("cache/emc.rs", "#[cfg(not(test))] use crate::action::X;", "imports `action`");
}

#[test]
fn files_of_test_modules_are_not_read() {
    let sources = [
        Source { path: "sync/mod.rs".into(), text: "#[cfg(all(test, loom))]\nmod races;".into() },
        Source { path: "sync/races.rs".into(), text: "use crate::action::X;".into() },
        Source { path: "flow/key.rs".into(), text: "#[cfg(test)] mod tests;".into() },
        Source { path: "flow/key/tests.rs".into(), text: "use std::thread;".into() },
    ];
    assert_eq!(violations(&sources), [""; 0]);
}
