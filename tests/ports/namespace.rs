//! Tests that need network interfaces run in a network namespace of their own, in a process of their own: the namespace, and
//! every interface in it, ends with the process, however that ends.

use std::process::{Child, Command, Stdio};

const MARK: &str = "WYE_TEST_NAMESPACE";

/// Seconds after which such a test is stopped.
const LIMIT_S: u32 = 60;

/// Seconds after which a host is stopped that its test has left behind.
const HOST_LIMIT_S: &str = "600";

/// Runs `body` in a fresh namespace. `test` is the calling test's full name, by which it is run again there. Says so and returns
/// where that is not allowed.
pub fn run(test: &str, body: impl FnOnce()) {
    run_within(LIMIT_S, test, body);
}

/// As [`run`], with another limit in seconds.
pub fn run_within(limit_s: u32, test: &str, body: impl FnOnce()) {
    if std::env::var(MARK).as_deref() == Ok(test) {
        // Hosts would chat about IPv6 on every new interface.
        for which in ["default", "all"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").ok();
        }
        return body();
    }
    let root = ["--net"];
    let user = ["--map-root-user", "--net"];
    let can = |args: &[&str]| {
        let try_out = Command::new("unshare").args(args).arg("true").stderr(Stdio::null()).status();
        try_out.is_ok_and(|status| status.success())
    };
    let args = if can(&root) {
        &root[..]
    } else if can(&user) {
        &user[..]
    } else {
        return skip(test, "neither root nor user namespaces");
    };
    if Command::new("ip").arg("-V").output().is_err() {
        return skip(test, "no `ip` command (iproute2)");
    }
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &limit_s.to_string(), "unshare"]).args(args).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(MARK, test);
    let output = command.output().expect("coreutils' timeout");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    errors.lines().filter(|line| line.starts_with("SKIP")).for_each(|line| eprintln!("{line}"));
    assert!(output.status.success(), "{test} in its namespace: {}\n{text}\n{errors}", output.status);
    assert!(text.contains("1 passed"), "{test}: is this its full name?\n{text}");
}

/// Says that a test could not run here.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIP: {test}: {why}");
}

/// Runs `ip` with the words of `args`.
pub fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes two interfaces that are joined, and brings them up. One queue each, without offloads that the test does not know of.
pub fn veth(a: &str, b: &str) {
    ip(&format!("link add {a} type veth peer name {b}"));
    ip(&format!("link set {a} up"));
    ip(&format!("link set {b} up"));
}

/// A host: a process with a network namespace of its own.
pub struct Host(Child);

impl Host {
    /// A new host without interfaces.
    pub fn start() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", HOST_LIMIT_S]).spawn().unwrap();
        let host = Host(child);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", host.0.id())).unwrap() == own {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        host
    }

    /// The process that keeps the host's namespace.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Moves `interface` into a new host and gives it `address` there.
    pub fn new(interface: &str, address: &str) -> Self {
        let host = Host::start();
        ip(&format!("link set {interface} netns {}", host.id()));
        host.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        host.run(&format!("ip addr add {address} dev {interface}"));
        host.run(&format!("ip link set {interface} up"));
        host
    }

    /// A command to be run on the host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", &format!("--target={}", self.0.id()), program]);
        command
    }

    /// Runs a command on the host; what it printed.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let output = self.command(words.next().unwrap()).args(words).output().unwrap();
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {}\n{text}\n{errors}", output.status);
        text.into_owned()
    }

    /// Runs this test's program again on the host in the role of `role`; see [`role`].
    pub fn play(&self, test: &str, role: &str) -> Child {
        let mut command = self.command(std::env::current_exe().unwrap().to_str().unwrap());
        command.args(["--exact", test, "--nocapture"]).env("WYE_TEST_ROLE", role).env(MARK, test);
        command.spawn().unwrap()
    }
}

/// The role that [`Host::play`] gave this process.
pub fn role() -> Option<String> {
    std::env::var("WYE_TEST_ROLE").ok()
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
