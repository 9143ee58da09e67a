//! `wye bench`.

use serde_json::Value;

use crate::{wye_err, wye_ok};

#[test]
fn bench_lists_each_case_with_what_it_shows() {
    let list = wye_ok(&["bench", "--list"]);
    assert!(list.lines().count() > 10, "{list}");
    for line in list.lines() {
        let (name, about) = line.split_once("  ").expect(line);
        assert!(!name.contains(' ') && !about.trim().is_empty(), "{line}");
    }
    let one = wye_ok(&["bench", "--list", "--case", "rewrite-1k"]);
    assert_eq!((one.lines().count(), one.trim_end().ends_with("dec_ttl: at most 52 cycles")), (1, true), "{one}");
    assert!(!list.contains(": at most 0 cycles"), "{list}");
    let json = wye_ok(&["bench", "--list", "--json", "--case", "l4-1k"]);
    let case: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&case["case"], &case["budget_tsc_cycles"]), (&"l4-1k".into(), &40.0.into()));
}

#[test]
fn bench_prints_one_json_object_per_case_and_line() {
    let out = wye_ok(&["bench", "--json", "--seconds", "0", "--case", "l4-1k", "--case", "rewrite-?k"]);
    let cases: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let names: Vec<_> = cases.iter().map(|c| c["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["l4-1k", "rewrite-1k"]);
    for case in &cases {
        let fields: Vec<_> = case.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = ["case", "core_ghz", "mpps", "ns_per_packet", "spread_pct", "tsc_cycles_per_packet"];
        expected.sort_unstable();
        let mut sorted = fields.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        for field in ["core_ghz", "mpps", "ns_per_packet", "tsc_cycles_per_packet"] {
            assert!(case[field].as_f64().unwrap() > 0.0, "{field} in {case}");
        }
    }
}

#[test]
fn bench_shows_people_a_table_with_the_budget() {
    let out = wye_ok(&["bench", "--seconds", "0", "--case", "l4-1k"]);
    let row = out.lines().find(|l| l.starts_with("l4-1k")).expect("a row for the case");
    assert!(row.contains(" 40 kept") || row.contains(" 40 exceeded"), "{out}");
    assert!(out.lines().all(|l| l.chars().count() <= 80), "{out}");
}

#[test]
fn bench_refuses_patterns_and_times_that_mean_nothing() {
    assert_eq!(wye_err(&["bench", "--case", "nope"]), "wye: no case matches 'nope'; `wye bench --list` names them\n");
    assert!(wye_err(&["bench", "--seconds", "-1"]).contains("--seconds"));
    assert!(wye_err(&["bench", "--seconds", "inf"]).contains("0 to 86400"));
}
