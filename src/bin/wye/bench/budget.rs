//! What a case may cost. A budget is a promise about this project, kept beside the cases so that a table shows both.

/// The most that a case may cost, in cycles of a 2.6 GHz time stamp counter per packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many.
    Cycles(f64),
    /// So many more than another case.
    Above(&'static str, f64),
}

const BUDGETS: &[(&str, Budget)] = &[
    ("l4-1k", Budget::Cycles(40.0)),
    ("mega1024-1k", Budget::Cycles(60.0)),
    ("masks1-100k", Budget::Cycles(80.0)),
    ("masks16-100k", Budget::Cycles(95.0)),
    ("masks64-100k", Budget::Cycles(100.0)),
    ("masks64-1m", Budget::Cycles(180.0)),
    ("rewrite-1k", Budget::Above("l4-1k", 12.0)),
    ("push-vlan-1k", Budget::Cycles(50.0)),
    ("output2-1k", Budget::Cycles(90.0)),
    ("vxlan-encap-1k", Budget::Cycles(55.0)),
    ("vxlan-encap-100k", Budget::Cycles(95.0)),
    ("vxlan-decap-1k", Budget::Cycles(75.0)),
    ("vxlan-decap-100k", Budget::Cycles(130.0)),
];

impl Budget {
    /// The budget of the case named `case`, if it has one.
    pub fn of(case: &str) -> Option<Budget> {
        BUDGETS.iter().find(|(name, _)| *name == case).map(|&(_, budget)| budget)
    }

    /// The budget as a number: `measured` gives the cost of another case of this run. Where that case was not run, its own
    /// budget stands for it.
    pub fn cycles(self, measured: impl Fn(&str) -> Option<f64>) -> f64 {
        match self {
            Budget::Cycles(cycles) => cycles,
            Budget::Above(other, more) => {
                let base = measured(other).or_else(|| match Budget::of(other) {
                    Some(Budget::Cycles(cycles)) => Some(cycles),
                    _ => None,
                });
                base.unwrap_or(0.0) + more
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CASES;
    use super::*;

    #[test]
    fn each_budget_is_of_a_case_that_exists_and_a_relative_one_has_a_base() {
        for (name, budget) in BUDGETS {
            assert!(CASES.iter().any(|c| c.name == *name), "{name}");
            if let Budget::Above(other, _) = budget {
                assert!(matches!(Budget::of(other), Some(Budget::Cycles(_))), "{name} is above {other}");
            }
        }
        let rewrite = Budget::of("rewrite-1k").unwrap();
        assert_eq!((rewrite.cycles(|_| Some(30.0)), rewrite.cycles(|_| None)), (42.0, 52.0));
    }
}
