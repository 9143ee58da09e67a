//! `wye flows`, `stats`, `ports`, `fdb`: ask a running switch over its control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::Outcome;
use crate::answer::{End, Fdb, Flow, Ports, Refusal, Request, Stats};

/// Arguments of the commands that ask a running switch.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The switch's control socket (`control` in its configuration).
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Print one JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
}

/// How long the switch may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks, and prints the answer.
pub fn run(request: Request, args: &Args) -> Outcome {
    let path = args.socket.display();
    let mut stream = UnixStream::connect(&args.socket).map_err(|e| format!("{path}: no switch answers: {e}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes())?;
    let mut out = std::io::stdout().lock();
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| format!("{path}: {e}"))?;
        if let Ok(Refusal { error }) = serde_json::from_str(&line) {
            return Err(format!("{path}: {error}").into());
        }
        if serde_json::from_str::<End>(&line).is_ok() {
            if !args.json {
                out.write_all(table(request, &lines)?.as_bytes())?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        // Flows are many, and stand for themselves.
        match request {
            _ if args.json => writeln!(out, "{line}")?,
            Request::Flows => writeln!(out, "{}", serde_json::from_str::<Flow>(&line)?.line())?,
            _ => lines.push(line),
        }
    }
    Err(format!("{path}: the switch stopped in the middle of its answer").into())
}

fn table(request: Request, lines: &[String]) -> Result<String, serde_json::Error> {
    fn all<T: DeserializeOwned>(lines: &[String]) -> Result<Vec<T>, serde_json::Error> {
        lines.iter().map(|line| serde_json::from_str(line)).collect()
    }
    Ok(match request {
        Request::Stats => all::<Stats>(lines)?.iter().map(Stats::table).collect(),
        Request::Ports => Ports { ports: all(lines)? }.table(),
        Request::Fdb => Fdb { stations: all(lines)? }.table(),
        Request::Flows => String::new(),
    })
}
