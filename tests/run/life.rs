//! Beginning and end of `wye run`: what it leaves behind, which is nothing, and what it says if it cannot begin.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::for_every_kind;
use crate::namespace::{self, ip, skip, veth};
use crate::switch::{Scratch, Switch, await_that, check_accounts, command};
use crate::wires::{Panel, far_end, port_table};

for_every_kind!(a_signal_ends_the_switch_and_nothing_is_left, a_killed_switch_is_in_nobodys_way);

/// What the kernel says about an interface; `None` if there is none.
fn interface(name: &str) -> Option<String> {
    let output = Command::new("ip").args(["-details", "link", "show", name]).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn is_clean(kind: &str, name: &str) -> bool {
    match (kind, interface(name)) {
        ("tap", found) => found.is_none(),
        (_, found) => found.is_some_and(|text| !text.contains("xdp") && !text.contains("promiscuity 1")),
    }
}

fn a_signal_ends_the_switch_and_nothing_is_left(test: &str, kind: &str) {
    for signal in ["INT", "TERM"] {
        let Some(panel) = Panel::new(test, kind, "", &[""; 2]) else { return };
        let Panel { switch, wires, ports } = panel;
        // A client that keeps its connection does not keep the switch.
        let idle = UnixStream::connect(&switch.socket.0).unwrap();
        switch.signal(signal);
        let socket = switch.socket.0.clone();
        let end = switch.wait();
        assert_eq!((end.status.code(), end.errors), (Some(0), vec![]), "{signal}");
        check_accounts(&serde_json::from_str(&end.out).expect("a summary"));
        assert!(!socket.exists());
        drop((idle, wires));
        await_that("nothing is left", || ports.iter().all(|port| is_clean(kind, port)));
        if kind != "tap" {
            ports.iter().for_each(|port| ip(&format!("link del {port}")));
        }
    }
}

fn a_killed_switch_is_in_nobodys_way(test: &str, kind: &str) {
    let ports = ["p1", "p2"];
    if kind != "tap" {
        ports.iter().for_each(|port| veth(port, &far_end(kind, port)));
    }
    let tables: String = ports.iter().map(|port| port_table(port, kind, "")).collect();
    let Some(switch) = Switch::start_or_skip(test, &tables) else { return };
    switch.signal("KILL");
    let path = switch.socket.0.clone();
    // The file of a killed switch's socket stays; keep it from being tidied up by the test.
    let aside = Scratch::new("aside");
    std::fs::rename(&path, &aside.0).unwrap();
    assert!(!switch.wait().status.success());
    await_that("nothing is left", || ports.iter().all(|port| is_clean(kind, port)));
    std::fs::rename(&aside.0, &path).unwrap();
    assert!(UnixStream::connect(&path).is_err());
    let switch = Switch::start(&tables).map_err(|end| end.errors).expect("a second start");
    assert_eq!(switch.ask("ports").len(), 2);
    switch.stop();
}

/// Runs `wye run` on a configuration that it must refuse; what it says.
fn refused(text: &str) -> String {
    let config = Scratch::new("refused");
    std::fs::write(&config.0, text).unwrap();
    let output = command(&config.0).output().unwrap();
    let (out, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), out.as_str(), errors.lines().count()), (Some(1), "", 1), "{errors}");
    errors.trim_end().replace(config.0.to_str().unwrap(), "CONFIG")
}

#[test]
fn two_switches_do_not_share_a_control_socket() {
    let test = "life::two_switches_do_not_share_a_control_socket";
    namespace::run(test, || {
        let Some(first) = Switch::start_or_skip(test, &port_table("t1", "tap", "")) else { return };
        let path = first.socket.0.display().to_string();
        let said = refused(&format!("control = {path:?}\n{}", port_table("t2", "tap", "")));
        assert_eq!(said, format!("wye: {path}: another process answers on this control socket"));
        assert!(interface("t2").is_none(), "half a switch is left");
        assert_eq!(first.ask("ports").len(), 1, "the first one still answers");
        // What is no socket is nobody's to remove.
        let file = Scratch::new("file");
        std::fs::write(&file.0, "precious").unwrap();
        let said = refused(&format!("control = {:?}\n{}", file.0, port_table("t2", "tap", "")));
        assert!(said.contains("cannot make the control socket: Address already in use"), "{said}");
        assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "precious");
        first.stop();
    });
}

#[test]
fn a_switch_that_cannot_begin_says_why_in_one_line_and_leaves_nothing() {
    let test = "life::a_switch_that_cannot_begin_says_why_in_one_line_and_leaves_nothing";
    namespace::run(test, || {
        let tap = port_table("t1", "tap", "");
        for kind in ["af_packet", "af_xdp"] {
            let said = refused(&format!("{tap}{}", port_table("nowhere", kind, "")));
            assert!(said.starts_with("wye: nowhere: there is no interface nowhere: "), "{said}");
            assert!(interface("t1").is_none(), "{kind}: half a switch is left");
        }
        for (text, said) in [
            (format!("{tap}queues = 0"), "wye: CONFIG:5: 0 is not in 1 to 256 (`queues = 0`)"),
            (format!("[workers]\ncuont = 2\n{tap}"), "wye: CONFIG:2: unknown field `cuont`"),
            (format!("{tap}frames = 64\n"), "wye: CONFIG:1: port \"t1\": frames: means nothing to a port of kind tap"),
            (port_table("t1", "af_pakcet", ""), "wye: CONFIG:3: \"af_pakcet\" is no kind of port"),
            (format!("{tap}{tap}"), "wye: CONFIG:5: two ports have the name \"t1\""),
            (
                format!("[workers]\ncores = [1000]\n{tap}"),
                "wye: CONFIG: workers: cores: cannot run on core 1000: Invalid argument",
            ),
            (format!("control = '/nowhere/at/all'\n{tap}"), "wye: /nowhere/at/all: cannot make the control socket: "),
        ] {
            let answer = refused(&text);
            assert!(answer.starts_with(said), "{answer}");
            assert!(interface("t1").is_none(), "{said}: half a switch is left");
        }
        let output = command("/nowhere".as_ref()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("wye: /nowhere: cannot read: No such file"));
    });
}

#[test]
fn without_its_capabilities_a_switch_says_which_are_missing() {
    let test = "life::without_its_capabilities_a_switch_says_which_are_missing";
    namespace::run(test, || {
        if Command::new("setpriv").arg("--version").output().is_err() {
            return skip(test, "no setpriv");
        }
        veth("p1", "w1");
        for (kind, wanted) in [("af_packet", "CAP_NET_RAW"), ("af_xdp", "CAP_NET_"), ("tap", "CAP_NET_ADMIN")] {
            let config = Scratch::new("unprivileged");
            std::fs::write(&config.0, port_table("p1", kind, if kind == "tap" { "interface = 't1'" } else { "" }))
                .unwrap();
            let mut wye = Command::new("setpriv");
            wye.args(["--bounding-set=-all", "--inh-caps=-all", "--", env!("CARGO_BIN_EXE_wye"), "run"]).arg(&config.0);
            let output = wye.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{kind}: {said}");
            assert!(said.starts_with("wye: p1: ") && said.contains(wanted), "{kind}: {said}");
            assert!(is_clean(kind, if kind == "tap" { "t1" } else { "p1" }), "{kind}: something is left");
        }
    });
}

#[test]
fn the_control_socket_answers_nonsense_with_an_error_and_lives_on() {
    let test = "life::the_control_socket_answers_nonsense_with_an_error_and_lives_on";
    namespace::run(test, || {
        let Some(switch) = Switch::start_or_skip(test, &port_table("t1", "tap", "")) else { return };
        use std::io::{BufRead, BufReader};
        let mut stream = UnixStream::connect(&switch.socket.0).unwrap();
        for nonsense in ["", "{}", "{\"request\": \"reboot\"}", "[[[[", "\u{fffd}"] {
            writeln!(stream, "{nonsense}").unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert!(answer["error"].as_str().unwrap().starts_with("not a request"), "{answer}");
        }
        // A request without an end is not read without an end.
        stream.write_all(&[b'x'; 4096]).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert!(line.contains("no request of one line of at most 4096 bytes"), "{line}");
        // Nobody can keep others from asking by holding connections for long; here, not longer than they are held.
        let held: Vec<_> = (0..64).map(|_| UnixStream::connect(&switch.socket.0).unwrap()).collect();
        drop(held);
        await_that("the switch answers again", || {
            let wye = Command::new(env!("CARGO_BIN_EXE_wye"))
                .args(["stats", "--json", "--socket"])
                .arg(&switch.socket.0)
                .output();
            wye.unwrap().status.success()
        });
        switch.stop();
    });
}

#[test]
fn the_socket_of_one_that_listens_no_more_is_replaced() {
    let test = "life::the_socket_of_one_that_listens_no_more_is_replaced";
    namespace::run(test, || {
        let stale = Scratch::new("stale");
        drop(UnixListener::bind(&stale.0).unwrap());
        assert!(stale.0.exists());
        let switch = Switch::start_at(stale, &port_table("t1", "tap", "")).map_err(|end| end.errors).expect("a start");
        assert_eq!(switch.ask("ports").len(), 1);
        switch.stop();
    });
}

#[test]
fn check_opens_nothing() {
    let test = "life::check_opens_nothing";
    namespace::run(test, || {
        let config = Scratch::new("checked");
        std::fs::write(&config.0, port_table("t1", "tap", "")).unwrap();
        let output = command(&config.0).arg("--check").stderr(Stdio::inherit()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}: 1 ports, 1 workers\n", config.0.display()));
        assert!(output.status.success() && interface("t1").is_none());
    });
}
