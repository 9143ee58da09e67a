//! The `wye` command-line tool.
//!
//! Each command is a module with its arguments ([`clap::Args`]) and a `run` function; this file only chooses.

mod answer;
mod bench;
mod client;
mod demo;
mod explain;
mod flowfile;
mod replay;
mod report;
mod run;

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
    /// Run a switch over real interfaces until it is told to stop.
    Run(run::Args),
    /// Show the flows of a running switch.
    Flows(client::Args),
    /// Show the counters of a running switch.
    Stats(client::Args),
    /// Show the ports of a running switch.
    Ports(client::Args),
    /// Show the stations that a running switch has learned.
    Fdb(client::Args),
    /// Watch two sites talk in one process; needs no interface and no privilege.
    Demo(demo::Args),
    /// Carry the packets of a trace through a file of flows, and keep what each port sent.
    Replay(replay::Args),
    /// Tell what a file of flows does to one packet, and why.
    Explain(explain::Args),
    /// Measure the whole worker without port I/O.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Flows(args) => client::run(answer::Request::Flows, &args),
        Command::Stats(args) => client::run(answer::Request::Stats, &args),
        Command::Ports(args) => client::run(answer::Request::Ports, &args),
        Command::Fdb(args) => client::run(answer::Request::Fdb, &args),
        Command::Demo(args) => demo::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Bench(args) => bench::run(args),
    };
    outcome.unwrap_or_else(|error| {
        // Whoever read the output has read enough.
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("wye: {error}");
        ExitCode::FAILURE
    })
}
