//! A guest: Linux with a kernel of its own under qemu's software emulation, for what the kernel underneath does not have.
//!
//! `tests/guest/build.sh` makes it. Its `eth0` is at the other end of a TAP interface in the test's namespace; it has a shell that runs one
//! command after another.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::namespace::{ip, skip};

/// How long it may take to boot: emulation is slow, and the machine may have other things to do.
const BOOT: Duration = Duration::from_secs(60);
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(30);

/// A running guest.
pub struct Guest {
    qemu: Child,
    lines: Receiver<String>,
}

/// Where the guest's kernel and its files are.
fn directory() -> PathBuf {
    let made = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/guest");
    std::env::var_os("WYE_GUEST").map_or_else(made, PathBuf::from)
}

impl Guest {
    /// Boots one with `eth0` at `interface`, which is made. Says `SKIP` if that is not possible here.
    pub fn start(test: &str, interface: &str) -> Option<Guest> {
        let directory = directory();
        if !directory.join("initramfs").exists() {
            skip(test, "no guest: tests/guest/build.sh makes it");
            return None;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            skip(test, "no TAP interfaces (/dev/net/tun)");
            return None;
        }
        ip(&format!("tuntap add {interface} mode tap"));
        // What a card would be left to do, nobody would do: so there is nothing that the guest may leave to it. Nor does it choose among
        // groups: what the switch has sent is what comes.
        let card = "virtio-net-pci,netdev=wire,mac=02:00:00:00:09:02,romfile=,csum=off,gso=off,guest_csum=off,\
                    guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,ctrl_rx=off,ctrl_vlan=off";
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256"]);
        // qemu 7.2 emulates cmpxchg16b wrongly, and a kernel does without.
        command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max,-cx16"]);
        command.arg("-kernel").arg(directory.join("kernel")).arg("-initrd").arg(directory.join("initramfs"));
        command.args(["-append", "quiet panic=-1 mitigations=off tsc=unstable random.trust_cpu=on"]);
        command.args(["-netdev", &format!("tap,id=wire,ifname={interface},script=no,downscript=no,vnet_hdr=off")]);
        command.args(["-device", card]);
        command.args(["-serial", "null", "-chardev", "stdio,id=shell,signal=off", "-device", "virtio-serial-pci"]);
        command.args(["-device", "virtserialport,chardev=shell"]);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut qemu) = started else {
            skip(test, "no qemu-system-x86_64");
            return None;
        };
        let stdout = qemu.stdout.take().expect("a pipe");
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let guest = Guest { qemu, lines };
        guest.until("@ready", BOOT);
        Some(guest)
    }

    /// The lines up to one that begins with `mark`, and what follows the mark.
    fn until(&self, mark: &str, patience: Duration) -> (String, String) {
        let mut text = Vec::new();
        loop {
            let line = self.lines.recv_timeout(patience).unwrap_or_else(|e| panic!("the guest: {e}; it said {text:?}"));
            if let Some(rest) = line.strip_prefix(mark) {
                return (text.join("\n"), rest.trim().to_owned());
            }
            text.push(line);
        }
    }

    /// Runs a command line in the guest's shell; its status and what it printed.
    pub fn attempt(&mut self, line: &str) -> (bool, String) {
        writeln!(self.qemu.stdin.as_mut().expect("a pipe"), "{line}").expect("the guest runs");
        let (text, status) = self.until("@end", COMMAND);
        (status == "0", text)
    }

    /// Runs a command line that must succeed; what it printed.
    pub fn run(&mut self, line: &str) -> String {
        let (is_good, text) = self.attempt(line);
        assert!(is_good, "the guest: {line}: {text}");
        text
    }

    /// Packets that one of its interfaces received, and sent.
    pub fn counts(&mut self, interface: &str) -> (u64, u64) {
        let text = self.run("cat /proc/net/dev");
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{interface}:"))).unwrap();
        let counts: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        (counts[1], counts[9])
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
