//! What the commands that carry packets say at their end: fates, drops by reason, and which tier answered.

use std::collections::BTreeMap;

use serde::Serialize;
use wye::datapath::Stats;

/// How many packets met each fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fates {
    /// At least one port took the packet or a copy of it.
    pub transmitted: u64,
    /// Queued for, or consumed by, the upcall handler.
    pub upcall: u64,
    /// Waiting for an asynchronous stage.
    pub parked: u64,
    /// Handed to the local stack.
    pub delivered: u64,
    /// Dropped; the reasons are counted apart.
    pub dropped: u64,
}

impl Fates {
    /// The fates in `stats`.
    pub fn of(stats: &Stats) -> Fates {
        let Stats { transmitted, upcall, parked, delivered, .. } = *stats;
        Fates { transmitted, upcall, parked, delivered, dropped: stats.dropped_total() }
    }

    /// Names and counts, in the order of the fields.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        let Fates { transmitted, upcall, parked, delivered, dropped } = *self;
        [
            ("transmitted", transmitted),
            ("upcall", upcall),
            ("parked", parked),
            ("delivered", delivered),
            ("dropped", dropped),
        ]
    }
}

/// Drops by the reason's name; reasons that did not occur are left out.
pub type Drops = BTreeMap<&'static str, u64>;

/// The drops in `stats`.
pub fn drops(stats: &Stats) -> Drops {
    stats.drops().map(|(reason, n)| (reason.name(), n)).collect()
}

/// How many lookups each tier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tiers {
    /// The exact-match cache.
    pub exact: u64,
    /// The megaflow table.
    pub megaflow: u64,
    /// No flow was there: an upcall.
    pub miss: u64,
}

impl Tiers {
    /// The lookups in `stats`.
    pub fn of(stats: &Stats) -> Tiers {
        Tiers { exact: stats.exact_hits, megaflow: stats.megaflow_hits, miss: stats.misses }
    }

    /// Names and shares in percent.
    pub fn shares(&self) -> [(&'static str, f64); 3] {
        let sum = (self.exact + self.megaflow + self.miss).max(1) as f64;
        [("exact cache", self.exact), ("megaflow table", self.megaflow), ("no flow (upcall)", self.miss)]
            .map(|(name, n)| (name, 100.0 * n as f64 / sum))
    }
}

/// `a` and `b` added up, counter by counter.
pub fn sum(stats: impl IntoIterator<Item = Stats>) -> Stats {
    stats.into_iter().fold(Stats::default(), |mut sum, one| {
        sum.merge(&one);
        sum
    })
}

/// Every packet that came in has its one fate; if not, the sentence that says so.
pub fn check(stats: &Stats) -> Result<(), String> {
    let (came_in, fates) = (stats.packets_in, stats.fates());
    if came_in == fates {
        Ok(())
    } else {
        Err(format!("{came_in} packets came in, but {fates} have a fate: this is a bug"))
    }
}

/// `12345678` as `12,345,678`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Packets per second, short.
pub fn rate(packets_per_second: f64) -> String {
    match packets_per_second {
        r if r >= 1e6 => format!("{:.2} M/s", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k/s", r / 1e3),
        r => format!("{r:.0} /s"),
    }
}

/// `reason 12 · other 3`, most frequent first, broken into lines of at most `width` characters.
pub fn drops_in_words(drops: &Drops, width: usize) -> Vec<String> {
    let mut sorted: Vec<_> = drops.iter().collect();
    sorted.sort_by_key(|&(name, n)| (core::cmp::Reverse(*n), *name));
    let mut lines: Vec<String> = Vec::new();
    for (name, n) in sorted {
        let word = format!("{name} {}", grouped(*n));
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + word.len() <= width => {
                line.push_str(" · ");
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (100_000, "100,000")];
        cases.into_iter().for_each(|(n, text)| assert_eq!(grouped(n), text));
    }

    #[test]
    fn drops_are_sorted_by_count_and_wrapped() {
        let drops: Drops = [("storm", 7), ("ttl_expired", 1000), ("policy", 7)].into();
        assert_eq!(drops_in_words(&drops, 80), ["ttl_expired 1,000 · policy 7 · storm 7"]);
        assert_eq!(drops_in_words(&drops, 28), ["ttl_expired 1,000 · policy 7", "storm 7"]);
    }

    #[test]
    fn a_packet_without_a_fate_is_noticed() {
        let mut stats = Stats { packets_in: 3, transmitted: 2, upcall: 1, ..Stats::default() };
        assert_eq!(check(&stats), Ok(()));
        stats.packets_in = 4;
        assert_eq!(check(&stats).unwrap_err(), "4 packets came in, but 3 have a fate: this is a bug");
    }
}
