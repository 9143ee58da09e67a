//! A running `wye run`, and what it says about itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::namespace;

/// How long anything may take that a loaded machine does in milliseconds when it is idle.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `what` again and again until it has an answer.
pub fn await_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Some(answer) => return answer,
            None => assert!(Instant::now() < until, "in vain: {what}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `is_so`.
pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    await_some(what, || is_so().then_some(()));
}

/// Waits until both sides of `ask`'s answer are the same.
pub fn await_equal<T: PartialEq + std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> (T, T)) {
    let until = Instant::now() + PATIENCE;
    loop {
        let (left, right) = ask();
        if left == right {
            return;
        }
        assert!(Instant::now() < until, "{what}: {left:?} is not {right:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A path for this process alone; the file goes with this.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("wye-run-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What `wye run` ended with.
pub struct End {
    pub status: ExitStatus,
    pub out: String,
    pub errors: Vec<String>,
}

/// A `wye run` that says that it is running.
pub struct Switch {
    child: Child,
    errors: Receiver<String>,
    _config: Scratch,
    pub socket: Scratch,
}

/// The command `wye run` on `config`.
pub fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wye"));
    command.arg("run").arg("--json").arg(config);
    command
}

impl Switch {
    /// Runs a switch with this configuration, to which a control socket is added.
    pub fn start(config: &str) -> Result<Switch, End> {
        let socket = Scratch::new("control");
        Switch::start_at(socket, config)
    }

    /// As [`Switch::start`], with the control socket at `socket`.
    pub fn start_at(socket: Scratch, text: &str) -> Result<Switch, End> {
        let config = Scratch::new("config");
        std::fs::write(&config.0, format!("control = {:?}\n{text}", socket.0)).unwrap();
        let mut child = command(&config.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("wye starts");
        let stderr = child.stderr.take().expect("a pipe");
        let (lines, errors) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let mut said = Vec::new();
        while let Ok(line) = errors.recv_timeout(PATIENCE) {
            if line == "wye: running" {
                return Ok(Switch { child, errors, _config: config, socket });
            }
            said.push(line);
        }
        let mut out = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut out).unwrap();
        Err(End { status: child.wait().unwrap(), out, errors: said })
    }

    /// As [`Switch::start`]; says `SKIP` if a capability or a part of the kernel is missing here.
    pub fn start_or_skip(test: &str, config: &str) -> Option<Switch> {
        match Switch::start(config) {
            Ok(switch) => Some(switch),
            Err(end) if ["CAP_", "CONFIG_"].iter().any(|what| end.errors.join("\n").contains(what)) => {
                namespace::skip(test, &end.errors.join("; "));
                None
            }
            Err(end) => panic!("{}: {:?} {}", end.status, end.errors, end.out),
        }
    }

    /// The switch's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its answer to one request.
    pub fn ask(&self, request: &str) -> Vec<Value> {
        let mut stream = UnixStream::connect(&self.socket.0).expect("the switch answers");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{{\"request\": {request:?}}}").unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let value: Value = serde_json::from_str(&line.unwrap()).expect("an object per line");
            if let Some(end) = value.get("end") {
                assert_eq!(end, lines.len());
                return lines;
            }
            lines.push(value);
        }
        panic!("{request}: no end after {lines:?}");
    }

    /// All counters.
    pub fn stats(&self) -> Value {
        self.ask("stats").pop().expect("one line")
    }

    /// The port called `name`.
    pub fn port(&self, name: &str) -> Value {
        self.ask("ports").into_iter().find(|port| port["name"] == name).expect("a port of this name")
    }

    /// Waits until the port's link is `link`.
    pub fn await_link(&self, name: &str, link: &str) {
        await_that(&format!("{name} is {link}"), || self.port(name)["link"] == link);
    }

    /// Stations as `VLAN address port`.
    pub fn fdb(&self) -> Vec<String> {
        let line = |s: &Value| format!("{} {} {}", s["vlan"], s["mac"].as_str().unwrap(), s["name"].as_str().unwrap());
        self.ask("fdb").iter().map(line).collect()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process.
    pub fn wait(mut self) -> End {
        let mut out = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut out).unwrap();
        let status = self.child.wait().unwrap();
        End { status, out, errors: self.errors.iter().collect() }
    }

    /// Stops the switch as a service manager does. It must end well, take its socket along, and account for every packet: that is
    /// what is returned.
    pub fn stop(self) -> Value {
        self.signal("TERM");
        let socket = self.socket.0.clone();
        let end = self.wait();
        assert!(end.status.success() && end.errors.is_empty(), "{}: {:?}\n{}", end.status, end.errors, end.out);
        assert!(!socket.exists(), "the control socket is left behind");
        let total: Value = serde_json::from_str(&end.out).expect("one object");
        check_accounts(&total);
        total
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number in an object.
pub fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

/// The sum of an object's numbers.
pub fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

/// The sum of one counter over all ports.
pub fn over_ports(total: &Value, name: &str) -> u64 {
    total["ports"].as_array().unwrap().iter().map(|port| number(port, name)).sum()
}

/// Of a switch at rest: what came in is what the ports received and what has a fate, and what was sent is what the ports
/// sent. Nothing is lost without a name.
pub fn check_accounts(total: &Value) {
    let packets_in = number(total, "packets_in");
    assert_eq!(sum(&total["fates"]), packets_in, "fates: {total:#}");
    assert_eq!(sum(&total["drops"]), number(&total["fates"], "dropped"), "reasons: {total:#}");
    let received = packets_in - number(&total["counters"], "injected");
    assert_eq!(over_ports(total, "rx_packets"), received, "received: {total:#}");
    let unsent = unsent(total);
    // Of a packet for several ports of which some refused it, not each refusal is in that sum.
    assert!(
        unsent == 0 || total["copies_dropped"] != json!({}) || unsent <= over_ports(total, "tx_dropped"),
        "{total:#}"
    );
}

/// Packets that ports took and did not send after all: other workers' packets that found no room, and those that were waiting when an
/// interface went.
pub fn unsent(total: &Value) -> u64 {
    let taken = number(&total["fates"], "transmitted") + number(&total["counters"], "copies_transmitted");
    taken.checked_sub(over_ports(total, "tx_packets")).unwrap_or_else(|| panic!("more sent than taken: {total:#}"))
}
