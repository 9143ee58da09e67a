//! `wye explain`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{wye_err, wye_ok};

const TRACE: &str = "tests/cli/data/small.pcap";
const FLOWS: &str = "tests/cli/data/flows.txt";

fn explain(args: &[&str]) -> String {
    wye_ok(&[&["explain"], args, &["--flows", FLOWS]].concat())
}

/// `wye`, not started yet, whose output is kept.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wye"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A file of flows that goes when it is dropped.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("wye-explain-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn each_action_is_told_with_what_it_changed() {
    let text = explain(&[TRACE]);
    let expected = "\
60 bytes from port 1

lookup 1: in_port(1),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(src=10.0.0.1,dst=20.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=4660,dst=53)
  megaflow table: tests/cli/data/flows.txt:2
  recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(dst=20.0.0.0/255.0.0.0,proto=17),udp(dst=53), actions:set(eth(dst=02:00:00:00:00:12)),dec_ttl,2
  - set(eth(dst=02:00:00:00:00:12)): eth: dst=02:00:00:00:00:02 becomes dst=02:00:00:00:00:12
  - dec_ttl: ipv4: ttl=64 becomes ttl=63
  - 2: sends 60 bytes to port 2

sent to port 2: 60 bytes: 020000000012020000000001080045000024000100003f115dc60a0000011400000212340035001014a27175657374696f6e00000000000000000000
fate: transmitted
";
    assert_eq!(text, expected);
}

#[test]
fn recirculation_and_branches_are_followed() {
    let report: Value = serde_json::from_str(&explain(&[TRACE, "--packet", "4", "--json"])).unwrap();
    let lookups = report["lookups"].as_array().unwrap();
    assert_eq!(lookups.iter().map(|l| l["line"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(lookups[1]["steps"][0]["effect"], "62 bytes are at most 100:");
    assert_eq!((&lookups[1]["steps"][1]["action"], &lookups[1]["steps"][1]["depth"]), (&"2".into(), &1.into()));
    assert_eq!((&report["fate"], &report["sent"][0]["port"]), (&"transmitted".into(), &2.into()));
    assert!(report.get("reason").is_none());
}

#[test]
fn a_drop_is_told_at_the_action_that_did_it() {
    let text = explain(&[TRACE, "--packet", "6"]);
    assert!(text.contains("- dec_ttl: drops the packet: ttl_expired") && !text.contains("sends"), "{text}");
    assert!(text.ends_with("fate: dropped: ttl_expired\n"), "{text}");
    assert!(explain(&[TRACE, "--packet", "7"]).contains("no flow matches\n\nfate: dropped: miss"));
    assert!(explain(&[TRACE, "--packet", "8"]).contains("fate: dropped: rx_invalid"));
}

const DECISIONS: &[u8] = b"\
meter 1 pps 1000 burst 10
bond 7 3
in_port(1), actions:trunc(40),lb_output(7),clone(drop),clone(dec_ttl,9),sample(sample=100%,actions(recirc(0x5))),\
sample(sample=0%,actions(2)),check_pkt_len(size=59,gt(2,4),le(3)),trunc(20),userspace(pid=0),meter(1),meter(2),2
recirc_id(0x5),in_port(1), actions:push_vlan(vid=5,pcp=0)
meter 2 kbps 0
";

const STEPS: &str = "  - trunc(40): what is sent next is 40 of 60 bytes
  - lb_output(7): hash 0x27e04e0 chooses port 3; sends copy 1, 40 of 60 bytes, to port 3
  - clone: on copy 2:
    - end: drops copy 2: no_output
  - clone: on copy 3:
    - dec_ttl: ipv4: ttl=64 becomes ttl=63
    - 9: sends 60 bytes to port 9
  - sample: chosen, at 100.000 %: on copy 4:
    - recirc(0x5): has copy 4 looked up again with recirc_id 0x5
  - sample: not chosen, at 0.000 %
  - check_pkt_len: 60 bytes are more than 59: on copy 5:
    - 2: sends copy 6, 60 bytes, to port 2
    - 4: sends 60 bytes to port 4
  - trunc(20): what is sent next is 20 of 60 bytes
  - userspace(pid=0): hands up 20 of 60 bytes; queues copy 7 for the upcall handler
  - meter(1): lets the packet pass
  - meter(2): drops the packet: meter
  - push_vlan(vid=5,pcp=0): 60 bytes become 64; \
    eth_type: 0x0800 becomes 0x8100; now has vlan(vid=5,pcp=0); \
    now has encap(eth_type(0x0800),ipv4(src=10.0.0.1,dst=20.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=4660,dst=53))
  - end: drops copy 4: no_output";

const ENDS: &str = "\
port 3: 40
sent to port 9: 60
sent to port 2: 60
sent to port 4: 60
copy 1: transmitted to port 3
copy 2: dropped: no_output
copy 3: transmitted to port 9
copy 4: dropped: no_output
copy 5: transmitted to port 4
copy 6: transmitted to port 2
copy 7: upcall
fate: dropped: meter";

#[test]
fn decisions_copies_and_ends_are_told() {
    let flows = File::new("decisions", DECISIONS);
    let text = wye_ok(&["explain", TRACE, "--flows", flows.name()]);
    let steps: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("- ")).collect();
    assert_eq!(steps.join("\n"), STEPS, "{text}");
    assert!(text.contains("\nlookup 2, copy 4: recirc_id(0x5),in_port(1),"), "{text}");
    let (_, ends) = text.split_once("\nsent to ").unwrap();
    let ends: Vec<&str> =
        ends.lines().map(|line| line.rsplit_once(" bytes: ").map_or(line, |(what, _)| what)).collect();
    assert_eq!(ends.join("\n"), ENDS, "{text}");
}

/// Into a tunnel and out of it at once, and into another.
const TUNNELS: &str = "\
tunnel 77 vxlan
tunnel 9 vxlan 192.0.2.1 192.0.2.2 port 3 mtu 1500
in_port(1), actions:tnl_push(tnl_port(77),header(size=50,type=4,eth(dst=02:00:00:00:00:02,src=02:00:00:00:00:01,dl_type=0x0800),\
ipv4(src=192.0.2.1,dst=192.0.2.2,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=4789,csum=0x0),\
vxlan(flags=0x8000000,vni=0x1389)),out_port(5)),tnl_pop(77)
tunnel(tun_id=0x1389),in_port(77), actions:encap(tunnel=9,tun_id=0x7)
";

#[test]
fn outer_headers_are_told_when_they_come_and_go() {
    let flows = File::new("tunnels", TUNNELS.as_bytes());
    let text = wye_ok(&["explain", TRACE, "--flows", flows.name()]);
    for part in [
        "60 bytes become 110; in_port: 1 becomes 5; ipv4: src=10.0.0.1,dst=20.0.0.2 becomes src=192.0.2.1,dst=192.0.2.2;",
        "- tnl_pop(77): takes the packet out of the tunnel, and has it looked up again as one of port 77\n",
        "\nlookup 2: tunnel(tun_id=0x1389,src=192.0.2.1,dst=192.0.2.2,",
        "- encap(tunnel=9,tun_id=0x7): sends 110 bytes to port 3\n",
        "fate: transmitted\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn what_is_wrong_with_the_flows_is_told_in_one_form() {
    let same = "in_port(1), actions:2\nin_port(1),eth(), actions:3\n";
    for (text, line, what) in [
        (&b"# one\nin_port(1), actions:clone(meter(4)),2\n"[..], 2, "meter(4): no line of the file defines meter 4"),
        (same.as_bytes(), 2, "the flow exists"),
        (b"meter 1 pps 5\nmeter 1000000 pps 5\n", 2, "meter 1000000: meter id 1000000 is not below "),
        (b"# one\n\nin_port(1), actions:2 # caf\xe9\n", 3, "not UTF-8"),
        (b"in_port(1), actions:frobnicate\n", 1, "column 21: an action"),
    ] {
        let flows = File::new("wrong", text);
        for command in ["explain", "replay"] {
            let error = wye_err(&[command, TRACE, "--flows", flows.name()]);
            assert!(error.contains(&format!("{}:{line}: {what}", flows.name())), "{error}");
        }
    }
}

#[test]
fn a_packet_may_be_typed() {
    let hex = "ff:ff:ff:ff:ff:ff 02:00:00:00:00:01 0806 0001080006040001 020000000001 0a000001 000000000000 0a000009";
    let text = explain(&[hex]);
    assert!(text.contains("42 bytes from port 1") && text.contains("flows.txt:4"), "{text}");
    assert_eq!(text.matches("sent to port").count(), 2);
}

#[test]
fn what_is_no_packet_is_refused() {
    for (args, what) in [
        (vec![TRACE, "--packet", "9"], "has 8 packets, not 9"),
        (vec![TRACE, "--packet", "0"], "--packet"),
        (vec!["abc"], "not an even number of hexadecimal digits"),
        (vec!["/does/not/exist"], "/does/not/exist"),
    ] {
        let error = wye_err(&[&["explain"], &args[..], &["--flows", FLOWS]].concat());
        assert!(error.contains(what), "{args:?}: {error}");
    }
}

#[test]
fn a_packet_may_come_through_a_pipe() {
    let mut child = command(&["explain", "-", "--flows", FLOWS]).stdin(Stdio::piped()).spawn().unwrap();
    let hex = "ffffffffffff 020000000001 0806\n0001080006040001 020000000001 0a000001 000000000000 0a000009\n";
    child.stdin.take().unwrap().write_all(hex.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let compact: String = hex.chars().filter(|c| !c.is_whitespace()).collect();
    assert_eq!(crate::text(&output.stdout), explain(&[&compact]));
    let nothing = command(&["explain", "-", "--flows", FLOWS]).stdin(Stdio::null()).output().unwrap();
    assert!(!nothing.status.success() && nothing.stdout.is_empty());
    assert_eq!(crate::text(&nothing.stderr), "wye: the packet: standard input is empty\n");
}

#[test]
fn every_port_number_can_be_explained() {
    let flows = File::new("ports", b"in_port(65535), actions:dec_ttl,0,65535\n");
    let report = wye_ok(&["explain", TRACE, "--in-port", "65535", "--flows", flows.name(), "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let effects: Vec<_> =
        report["lookups"][0]["steps"].as_array().unwrap().iter().map(|s| s["effect"].as_str().unwrap()).collect();
    assert_eq!(
        effects,
        ["ipv4: ttl=64 becomes ttl=63", "sends copy 1, 60 bytes, to port 0", "sends 60 bytes to port 65535"]
    );
    let mut ports: Vec<_> = report["sent"].as_array().unwrap().iter().map(|s| s["port"].as_u64().unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [0, 65535]);
}

#[test]
fn the_json_object_has_these_fields() {
    let fields = |value: &Value| {
        let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names.join(" ")
    };
    let sent: Value = serde_json::from_str(&explain(&[TRACE, "--json"])).unwrap();
    assert_eq!(fields(&sent), "bytes copies fate hex in_port lookups sent");
    assert_eq!(fields(&sent["lookups"][0]), "flow key line steps tier");
    assert_eq!(fields(&sent["lookups"][0]["steps"][0]), "action depth effect");
    assert_eq!(fields(&sent["sent"][0]), "bytes hex port");
    let missed: Value = serde_json::from_str(&explain(&[TRACE, "--packet", "7", "--json"])).unwrap();
    assert_eq!(fields(&missed), "bytes copies fate hex in_port lookups reason sent");
    assert_eq!(fields(&missed["lookups"][0]), "key steps tier");
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    for args in [&["bench", "--list"][..], &["explain", TRACE, "--flows", FLOWS], &["replay", TRACE, "--flows", FLOWS]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(args).stdout(writer).spawn().unwrap().wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}
