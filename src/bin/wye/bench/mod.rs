//! `wye bench`: the whole worker, without port I/O, over traces in memory.
//!
//! Each burst of 32 packets is copied from the trace into buffers before the clock starts, as a NIC would have put it there, so that
//! each burst begins with what the sender sent. The clock runs around `Worker::process` alone. The sink counts packets and
//! leaves them in place.

pub mod budget;
pub mod cases;
pub mod measure;
pub mod trace;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use cases::CASES;
use cases::Case;
use measure::{Figure, REFERENCE_GHZ};

use budget::Budget;

/// Arguments of `wye bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the cases whose name contains PATTERN or, if it has `*` or `?`, matches it, or is PATTERN after `=`; may be given several
    /// times.
    #[arg(long = "case", value_name = "PATTERN")]
    cases: Vec<String>,
    /// Name the cases instead of running them.
    #[arg(long)]
    list: bool,
    /// Print one JSON object per line and case.
    #[arg(long)]
    json: bool,
    /// Seconds to measure, shared by the chosen cases; setting them up is not counted.
    #[arg(long, value_name = "N", default_value_t = 26.0, value_parser = seconds, allow_negative_numbers = true)]
    seconds: f64,
    /// Carry N packets of each chosen case and measure nothing: for a tool that counts instructions.
    #[arg(long, value_name = "N", conflicts_with_all = ["json", "list"])]
    packets: Option<u64>,
}

/// A number of seconds that is neither negative nor absurd.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=86_400.0).contains(&n) => Ok(n),
        _ => Err("expected a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Runs it.
///
/// # Errors
/// A pattern that no case matches; standard output is closed.
pub fn run(args: Args) -> crate::Outcome {
    if let Some(pattern) = args.cases.iter().find(|p| !CASES.iter().any(|c| picks(p, c.name))) {
        return Err(format!("no case matches '{pattern}'; `wye bench --list` names them").into());
    }
    let chosen: Vec<&Case> =
        CASES.iter().filter(|c| args.cases.is_empty() || args.cases.iter().any(|p| picks(p, c.name))).collect();
    let mut out = std::io::stdout().lock();
    if let Some(packets) = args.packets {
        chosen.iter().for_each(|case| case.carry(packets));
    } else if args.list {
        list(&mut out, &chosen, args.json)?;
    } else {
        measure_all(&mut out, &chosen, &args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--list --json` prints of a case.
#[derive(serde::Serialize)]
struct Listed {
    case: &'static str,
    about: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_tsc_cycles: Option<f64>,
}

fn list(out: &mut impl Write, cases: &[&Case], json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let width = cases.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for case in cases {
        let budget_tsc_cycles = Budget::of(case.name).map(|b| b.cycles(|_| None));
        if json {
            writeln!(
                out,
                "{}",
                serde_json::to_string(&Listed { case: case.name, about: case.about, budget_tsc_cycles })?
            )?;
        } else {
            let budget = budget_tsc_cycles.map_or(String::new(), |cycles| format!(": at most {cycles} cycles"));
            writeln!(out, "{:width$}  {}{budget}", case.name, case.about)?;
        }
    }
    Ok(())
}

fn measure_all(out: &mut impl Write, cases: &[&Case], args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let width = cases.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let progress = Progress::new(!args.json);
    if !args.json {
        let title =
            format!("{:width$}  {:>10} {:>8} {:>8} {:>8}  budget", "case", "cycles/pkt", "ns/pkt", "Mpps", "spread");
        writeln!(out, "{title}\n{}", "─".repeat(title.chars().count()))?;
    }
    let mut figures: Vec<Figure> = Vec::new();
    let mut left = Duration::from_secs_f64(args.seconds);
    for (done, case) in cases.iter().enumerate() {
        progress.show(case, done, cases.len());
        let share = left / (cases.len() - done) as u32;
        let started = Instant::now();
        let figure = case.run(share);
        // What a case does not use, because its windows agreed early, is for those behind it.
        left = left.saturating_sub(started.elapsed().min(share));
        progress.hide();
        let measured = |name: &str| figures.iter().find(|f| f.case == name).map(|f| f.tsc_cycles_per_packet);
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&figure)?)?;
        } else {
            let budget = Budget::of(case.name).map(|b| b.cycles(measured));
            writeln!(out, "{}", row(&figure, width, budget))?;
        }
        out.flush()?;
        figures.push(figure);
    }
    if !args.json {
        writeln!(out, "\n{}", legend(&figures))?;
    }
    Ok(())
}

fn row(figure: &Figure, width: usize, budget: Option<f64>) -> String {
    let cycles = figure.tsc_cycles_per_packet;
    let budget = budget.map_or(String::new(), |budget| {
        let verdict = if cycles <= budget { "kept" } else { "exceeded" };
        format!("{budget:.0} {verdict}")
    });
    let (case, ns, mpps, spread) = (&figure.case, figure.ns_per_packet, figure.mpps, figure.spread_pct);
    format!("{case:width$}  {cycles:>10.1} {ns:>8.2} {mpps:>8.1} {spread:>6.1} %  {budget}").trim_end().to_owned()
}

fn legend(figures: &[Figure]) -> String {
    let clock = figures.iter().map(|f| f.core_ghz).fold(0.0, f64::max);
    format!(
        "64-byte UDP in bursts of {} through the whole worker; no port I/O, one core.\n\
         Cycles are those of a {REFERENCE_GHZ} GHz time stamp counter; the core ran at {clock:.2} GHz.\n\
         Spread: how far the three best windows of a case lie apart.",
        measure::BURST
    )
}

/// Whether `pattern` picks the case `name`.
fn picks(pattern: &str, name: &str) -> bool {
    if let Some(whole) = pattern.strip_prefix('=') {
        return whole == name;
    }
    if pattern.contains(['*', '?']) { glob(pattern.as_bytes(), name.as_bytes()) } else { name.contains(pattern) }
}

/// Shell-like match: `*` is any run of characters, `?` any one. Goes back to the last star only, so time is bounded by the product of
/// the lengths.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The line that says what is being measured just now; only on a terminal.
struct Progress(Option<indicatif::ProgressBar>);

impl Progress {
    fn new(wanted: bool) -> Self {
        let shown = wanted && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Progress(shown.then(indicatif::ProgressBar::new_spinner))
    }

    fn show(&self, case: &Case, done: usize, of: usize) {
        if let Some(bar) = &self.0 {
            bar.set_message(format!("{}/{of}  {}: {}", done + 1, case.name, case.about));
            bar.tick();
        }
    }

    /// Takes the line away, so that the table can grow where it was.
    fn hide(&self) {
        if let Some(bar) = &self.0 {
            bar.set_message("");
            bar.finish_and_clear();
            bar.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_parts_of_a_name_or_globs_over_all_of_it() {
        for (pattern, name, picked) in [
            ("l4", "l4-1k", true),
            ("=l4", "l4-1k", false),
            ("=l4-1k", "l4-1k", true),
            ("1k", "l4-1k", true),
            ("masks*", "nocache-masks1-100k", false),
            ("*masks?-*", "nocache-masks1-100k", true),
            ("*masks?-*", "masks16-100k", false),
            ("l4-??", "l4-1k", true),
            ("l4-*k*", "l4-100k", true),
            ("*", "anything", true),
            ("?", "", false),
        ] {
            assert_eq!(picks(pattern, name), picked, "{pattern} {name}");
        }
    }

    #[test]
    fn names_of_cases_are_unique() {
        let mut names: Vec<_> = CASES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]));
    }
}
