//! `wye demo`.

use serde_json::Value;

use crate::{wye_err, wye_ok};

fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

#[test]
fn demo_accounts_for_every_packet_and_names_why_some_were_dropped() {
    let out = wye_ok(&["demo", "--json", "--seconds", "0.5"]);
    assert_eq!(out.lines().count(), 1, "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    for one in [&report, &report["sites"][0], &report["sites"][1]] {
        assert!(one["packets_in"].as_u64().unwrap() > 100, "{one}");
        assert_eq!(sum(&one["fates"]), one["packets_in"].as_u64().unwrap(), "{one}");
        assert_eq!(sum(&one["drops"]), one["fates"]["dropped"].as_u64().unwrap(), "{one}");
        let names: Vec<_> = one["fates"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(["transmitted", "upcall", "parked", "delivered", "dropped"].iter().all(|f| names.contains(f)));
        assert!(["exact", "megaflow", "miss"].iter().all(|t| one["tiers"][t].as_u64().unwrap() > 0), "{one}");
    }
    for reason in ["ttl_expired", "explicit", "policy", "rx_invalid"] {
        assert!(report["drops"][reason].as_u64().unwrap_or(0) > 0, "{reason}: {report}");
    }
    let crossed: u64 = report["sites"].as_array().unwrap().iter().map(|s| s["from_cable"].as_u64().unwrap()).sum();
    assert!(crossed > 0);
}

#[test]
fn demo_prints_lines_and_a_last_table_where_there_is_no_terminal() {
    let out = wye_ok(&["demo", "--seconds", "1.3"]);
    assert!(!out.contains('\x1b') && out.contains("site a") && out.contains("every one has its fate"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn demo_refuses_a_time_that_means_nothing() {
    assert!(wye_err(&["demo", "--seconds", "0"]).contains("0.1 to 86400"));
}
