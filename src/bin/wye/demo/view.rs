//! What the demo shows: a table that is drawn over itself in a terminal, a line now and then elsewhere.

use std::io::Write;

use wye::datapath::Stats;
use wye::datapath::observe::Stage;

use crate::report::{self, Fates, Tiers, grouped, rate};

/// Columns of the terminal that are used.
const WIDTH: usize = 78;
/// Columns of the labels.
const LABEL: usize = 22;
/// Columns of a site.
const COLUMN: usize = 18;

/// One site as of now.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The site's name.
    pub name: &'static str,
    /// Its datapath's counters.
    pub stats: Stats,
    /// Packets per second just now.
    pub rate: f64,
    /// Flows and masks installed.
    pub flows: (u32, usize),
    /// Stations that its bridge knows.
    pub stations: usize,
    /// Packets that it took from the cable.
    pub from_cable: u64,
    /// Nanoseconds per packet and stage.
    pub stages_ns: Option<[f64; Stage::ALL.len()]>,
}

/// The table; `rate_of` says over what time the rate is meant.
pub fn table(rate_of: &str, sites: &[Reading]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut row = |label: &str, cell: &dyn Fn(&Reading) -> String| {
        let mut line = format!("{label:LABEL$}");
        sites.iter().for_each(|site| line.push_str(&format!("{:>COLUMN$}", cell(site))));
        lines.push(line.trim_end().to_owned());
    };
    row("", &|s| s.name.to_owned());
    row("packets in", &|s| grouped(s.stats.packets_in));
    row(rate_of, &|s| rate(s.rate));
    row("  from the other site", &|s| grouped(s.from_cable));
    for (i, (name, _)) in Fates::of(&Stats::default()).named().into_iter().enumerate() {
        // Nothing in the demo parks or delivers: rows of zeros would only hide the others.
        if sites.iter().any(|s| Fates::of(&s.stats).named()[i].1 != 0) {
            row(name, &|s| grouped(Fates::of(&s.stats).named()[i].1));
        }
    }
    row("flows, stations", &|s| format!("{}, {}", grouped(s.flows.0.into()), s.stations));
    for (i, label) in ["found in exact cache", "  in megaflow table", "  not at all (upcall)"].into_iter().enumerate() {
        row(label, &|s| format!("{:.2} %", Tiers::of(&s.stats).shares()[i].1));
    }
    row("ns per packet", &|s| s.stages_ns.map_or(String::new(), |ns| format!("{:.1}", ns.iter().sum::<f64>())));
    for stage in Stage::ALL {
        row(&format!("  {}", stage.name()), &|s| {
            s.stages_ns.map_or_else(|| "–".to_owned(), |ns| format!("{:.1}", ns[stage as usize]))
        });
    }
    let all = report::sum(sites.iter().map(|s| s.stats));
    let drops = report::drops(&all);
    for (i, line) in report::drops_in_words(&drops, WIDTH - 10).into_iter().enumerate() {
        lines.push(format!("{:10}{line}", if i == 0 { "drops" } else { "" }));
    }
    lines
}

/// One line for a log.
pub fn line(seconds: f64, sites: &[Reading]) -> String {
    let mut out = format!("{seconds:4.1} s");
    for site in sites {
        let exact = Tiers::of(&site.stats).shares()[0].1;
        let packets = grouped(site.stats.packets_in);
        let name = site.name.trim_start_matches("site ");
        out.push_str(&format!("  {name} {packets} in, {}, hit {exact:.0} %", rate(site.rate)));
    }
    out
}

/// The line above the table: how far the demo is.
fn headline(done: f64, seconds: f64) -> String {
    let text = format!("two sites in one process, joined by a cable · {:.1} of {seconds:.0} s ", done * seconds);
    let room = WIDTH.saturating_sub(text.chars().count() + 1);
    let filled = (done.clamp(0.0, 1.0) * room as f64).round() as usize;
    format!("{text}{}{}", "━".repeat(filled), "─".repeat(room - filled))
}

/// Draws over what it drew before.
pub struct Screen<W: Write> {
    out: W,
    drawn: usize,
}

impl<W: Write> Screen<W> {
    /// Draws on `out`, a terminal.
    pub fn new(out: W) -> Self {
        Screen { out, drawn: 0 }
    }

    /// Draws the table as of now, with the part that is done, 0 to 1, of so many `seconds`.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&mut self, done: f64, seconds: f64, sites: &[Reading]) -> std::io::Result<()> {
        let mut lines = vec![headline(done, seconds)];
        lines.extend(table("  now", sites));
        self.replace(&lines)
    }

    /// Takes away what was drawn.
    ///
    /// # Errors
    /// The terminal's.
    pub fn clear(&mut self) -> std::io::Result<()> {
        self.replace(&[])
    }

    fn replace(&mut self, lines: &[String]) -> std::io::Result<()> {
        // One write for a whole picture: no half-drawn ones are seen.
        let mut picture = String::new();
        if self.drawn > 0 {
            picture.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in lines {
            picture.push_str(line);
            picture.push_str("\x1b[K\n");
        }
        picture.push_str("\x1b[J");
        self.drawn = lines.len();
        self.out.write_all(picture.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        let mut stats = Stats { packets_in: u64::MAX / 2, transmitted: u64::MAX / 4, ..Stats::default() };
        stats.dropped.fill(u64::MAX / 64);
        stats.exact_hits = 1_000_000;
        let stages_ns = Some([1234.5; Stage::ALL.len()]);
        Reading { name: "site a", stats, rate: 1e9, flows: (1 << 20, 9), stations: 65_536, from_cable: 0, stages_ns }
    }

    #[test]
    fn the_picture_is_no_wider_than_a_small_terminal() {
        let mut big = reading();
        big.stats.packets_in = 999_999_999_999;
        big.stats.transmitted = 1;
        big.stats.dropped.fill(12_345_678);
        let sites = [big.clone(), big];
        for line in table("  now", &sites).iter().chain([&headline(0.5, 5.0), &headline(1.5, 5.0)]) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_picture_is_drawn_over_the_one_before() {
        let mut screen = Screen::new(Vec::new());
        screen.replace(&["one".into(), "two".into()]).unwrap();
        screen.replace(&["three".into()]).unwrap();
        screen.clear().unwrap();
        let drawn = String::from_utf8(screen.out).unwrap();
        assert_eq!(drawn, "one\x1b[K\ntwo\x1b[K\n\x1b[J\x1b[2Athree\x1b[K\n\x1b[J\x1b[1A\x1b[J");
    }
}
