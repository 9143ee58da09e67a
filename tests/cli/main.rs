//! The command-line tool, run as a user runs it: what it prints, what it writes, and what it exits with.

mod bench;
mod demo;
mod explain;
mod replay;
mod run;

use std::process::{Command, Output};

/// Runs `wye` and waits for its end.
fn wye(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wye")).args(args).output().expect("wye starts")
}

/// Runs `wye`, which must succeed and say nothing on standard error; what it printed.
fn wye_ok(args: &[&str]) -> String {
    let output = wye(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && err.is_empty(), "wye {args:?}: {}\n{out}\n{err}", output.status);
    out
}

/// Runs `wye`, which must fail without a panic and print nothing; its one line of error.
fn wye_err(args: &[&str]) -> String {
    let output = wye(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        matches!(output.status.code(), Some(1 | 2)) && out.is_empty(),
        "wye {args:?}: {}\n{out}\n{err}",
        output.status
    );
    err
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("wye prints UTF-8")
}
