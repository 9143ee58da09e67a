//! The `wye` command-line tool.
//!
//! Each command is a module with its arguments ([`clap::Args`]) and a `run` function; this file only chooses.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a command ends with. An error is printed to standard error as one line, and the process exits with 1.
type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

/// A userspace virtual switch.
#[derive(Debug, Parser)]
#[command(name = "wye", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the whole worker without port I/O.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("wye: {error}");
        ExitCode::FAILURE
    })
}
