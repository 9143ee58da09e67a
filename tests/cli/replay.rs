//! `wye replay`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use wye::port::trace::read_trace;

use crate::{wye, wye_err, wye_ok};

const TRACE: &str = "tests/cli/data/small.pcap";
const FLOWS: &str = "tests/cli/data/flows.txt";

/// A folder of this test's own, with nothing in it, that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wye-replay-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_packet_is_accounted_for_and_each_port_has_its_trace() {
    let scratch = Scratch::new("whole");
    let out = scratch.0.join("out").display().to_string();
    let report = wye_ok(&["replay", TRACE, "--flows", FLOWS, "--out", &out, "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    assert_eq!((number(&report["packets_in"]), number(&report["bytes_in"])), (8, 616));
    let fates: u64 = report["fates"].as_object().unwrap().values().map(number).sum();
    assert_eq!((fates, number(&report["fates"]["transmitted"]), number(&report["fates"]["dropped"])), (8, 4, 4));
    let drops = serde_json::json!({"miss": 1, "no_output": 1, "rx_invalid": 1, "ttl_expired": 1});
    assert_eq!(report["drops"], drops);
    let hits: Vec<_> =
        report["flows"].as_array().unwrap().iter().map(|f| (number(&f["line"]), number(&f["packets"]))).collect();
    assert_eq!(hits, [(2, 2), (3, 1), (4, 1), (5, 2), (6, 2)]);
    assert_eq!(
        fs::read_to_string(format!("{out}/drops.txt")).unwrap(),
        "5 no_output\n6 ttl_expired\n7 miss\n8 rx_invalid\n"
    );
    for port in report["ports"].as_array().unwrap() {
        let file = port["file"].as_str().unwrap();
        let sent = read_trace(file).unwrap();
        assert_eq!(sent.len() as u64, number(&port["packets"]), "{file}");
        assert_eq!(sent.iter().map(|p| p.data.len() as u64).sum::<u64>(), number(&port["bytes"]), "{file}");
    }
    // The VLAN tag is where it belongs.
    let tagged = &read_trace(format!("{out}/port-3.pcap")).unwrap()[0].data;
    assert_eq!(tagged[12..18], [0x81, 0, 0, 5, 8, 0]);
    assert_eq!(scratch.names(), ["out"]);
}

#[test]
fn a_trace_that_is_repeated_counts_so_often_and_is_written_once() {
    let scratch = Scratch::new("repeat");
    let out = scratch.0.join("out").display().to_string();
    let text = wye_ok(&["replay", TRACE, "--flows", FLOWS, "--out", &out, "--repeat", "200"]);
    assert!(text.contains("1,600 packets came in") && text.contains("in the worker"), "{text}");
    assert_eq!(read_trace(format!("{out}/port-2.pcap")).unwrap().len(), 3);
    assert_eq!(fs::read_to_string(format!("{out}/drops.txt")).unwrap().lines().count(), 4);
}

#[test]
fn packets_of_a_meter_beyond_its_rate_are_dropped_with_their_numbers() {
    let scratch = Scratch::new("meter");
    let flows = scratch.file("flows", "meter 3 pps 1 burst 2\nin_port(5), actions:meter(3),2\n");
    let report = wye_ok(&["replay", TRACE, "--flows", &flows, "--in-port", "5", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    // Two by the burst, one more in the second that the trace lasts; the frame that is none never gets there.
    assert_eq!(report["drops"], serde_json::json!({"meter": 4, "rx_invalid": 1}));
}

#[test]
fn errors_name_the_file_and_the_line_and_leave_nothing() {
    let scratch = Scratch::new("errors");
    let bad = scratch.file("bad", "# one\nin_port(1),udp(dts=53), actions:2\n");
    let whole = fs::read(TRACE).unwrap();
    let not_a_trace = scratch.file("not", "hello, world, I am a text");
    let cut = scratch.file("cut.pcap", &whole[..whole.len() - 5]);
    let out = scratch.0.join("out").display().to_string();
    let before = scratch.names();
    for (args, what) in [
        (vec![TRACE, "--flows", &bad, "--out", &out], "bad:2: "),
        (vec![TRACE, "--flows", "/does/not/exist", "--out", &out], "/does/not/exist: No such file"),
        (vec!["/does/not/exist", "--flows", FLOWS, "--out", &out], "/does/not/exist"),
        (vec![&not_a_trace, "--flows", FLOWS, "--out", &out], "not a pcap or pcapng file"),
        (vec![TRACE, "--flows", FLOWS, "--out", scratch.0.to_str().unwrap()], "is not empty"),
        (vec![TRACE, "--flows", FLOWS, "--out", "/proc/nothing/out"], "/proc/nothing/out: "),
        (vec![TRACE, "--flows", FLOWS, "--repeat", "0"], "--repeat"),
        (vec![TRACE, "--flows", FLOWS, "--in-port", "70000"], "--in-port"),
    ] {
        let error = wye_err(&[&["replay"], &args[..]].concat());
        assert!(error.contains(what), "{args:?}: {error}");
        assert_eq!(scratch.names(), before, "{args:?}");
    }
    // A capture that was cut off is played as far as it goes.
    let output = wye(&["replay", &cut, "--flows", FLOWS, "--json"]);
    assert!(output.status.success() && output.stdout.starts_with(b"{\"packets_in\":7,"), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cut.pcap: ends inside the record at byte ") && said.lines().count() == 1, "{said}");
}

#[test]
fn time_goes_on_when_the_trace_begins_again() {
    let scratch = Scratch::new("time");
    let flows = scratch.file("flows", "meter 3 pps 1 burst 2\nin_port(1), actions:meter(3),2\n");
    let once: Value = serde_json::from_str(&wye_ok(&["replay", TRACE, "--flows", &flows, "--json"])).unwrap();
    let ten = wye_ok(&["replay", TRACE, "--flows", &flows, "--json", "--repeat", "10"]);
    let ten: Value = serde_json::from_str(&ten).unwrap();
    let passed = |report: &Value| report["fates"]["transmitted"].as_u64().unwrap();
    // The trace lasts a second and more: each further time lets one packet pass at least.
    assert!(passed(&ten) >= passed(&once) + 9, "{once} {ten}");
}

#[test]
fn who_interrupts_finds_nothing_half_made() {
    let scratch = Scratch::new("interrupt");
    let out = scratch.0.join("out");
    let mut replay = Command::new(env!("CARGO_BIN_EXE_wye"))
        .args(["replay", TRACE, "--flows", FLOWS, "--repeat", "4000000000", "--out"])
        .arg(&out)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while scratch.names().is_empty() {
        assert!(replay.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &replay.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = replay.wait_with_output().unwrap();
    assert_eq!((output.status.code(), scratch.names()), (Some(1), Vec::new()));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "wye: interrupted; nothing was written\n");
}

/// A pcapng file of so many interfaces, with one packet, on the last.
fn pcapng(interfaces: u32) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes(), &len[..], body, &len].concat()
    };
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    section.extend([0xff; 8]);
    let mut file = block(0x0a0d_0d0a, &section);
    (0..interfaces).for_each(|_| file.extend(block(1, &[1, 0, 0, 0, 0, 0, 0, 0])));
    let mut packet: Vec<u8> = [interfaces - 1, 0, 0, 60, 60].iter().flat_map(|n| n.to_le_bytes()).collect();
    packet.extend([0x55; 60]);
    file.extend(block(6, &packet));
    file
}

#[test]
fn a_trace_of_more_interfaces_than_there_are_ports_is_named() {
    let scratch = Scratch::new("interfaces");
    let flows = scratch.file("flows.txt", "in_port(4096), actions:5000\n");
    let trace = |interfaces| scratch.file("t.pcapng", pcapng(interfaces));
    let report = wye_ok(&["replay", &trace(4095), "--flows", &flows, "--in-port", "2", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["packets_in"], &report["fates"]["transmitted"]), (&1.into(), &1.into()));
    let many = trace(4097);
    for (in_port, what) in [
        ("1", "4096: the datapath has its maximum of 4096 ports"),
        ("65000", "65536: port number 65536 is out of range"),
    ] {
        let error = wye_err(&["replay", &many, "--flows", &flows, "--in-port", in_port]);
        assert!(error.contains(&format!("{many}: packets come in on port {what}")), "{error}");
    }
}
