//! Other programs read every frame that these tests push, and find nothing wrong. Where they are not installed, that is said and no more.

use super::variants;
use super::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What tshark's list of protocols must say of a kind.
fn protocol(kind: Kind, gpe: bool) -> &'static str {
    match kind {
        // It reads the extension's next protocol, but does not name the header.
        Kind::Vxlan if gpe => ":udp:",
        Kind::Vxlan => ":udp:vxlan:eth:",
        Kind::Geneve => ":udp:geneve:eth:",
        Kind::Gre | Kind::Ip6Gre => ":gre:",
        Kind::Erspan | Kind::Ip6Erspan => ":gre:erspan:eth:",
        Kind::Gtpu => ":udp:gtp:ip",
        Kind::Srv6 => ":ipv6:",
    }
}

/// Writes the frames of all variants to a file beside this test's binary: `target/…/tunnels-TEST.pcap`.
fn write_frames(test: &str) -> PathBuf {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        file.extend(word.to_ne_bytes());
    }
    if cfg!(target_endian = "little") {
        // Major and minor version are two numbers of 16 bits.
        file[4..8].copy_from_slice(&[2, 0, 4, 0]);
    }
    for variant in variants::all() {
        let bytes = variant.wrapped();
        let len = bytes.len() as u32;
        for word in [0, 0, len, len] {
            file.extend(u32::to_ne_bytes(word));
        }
        file.extend(bytes);
    }
    let path = std::env::current_exe().unwrap().with_file_name(format!("tunnels-{test}.pcap"));
    std::fs::write(&path, file).unwrap();
    path
}

/// What a program that is installed says; `None` if it is not.
fn output(command: &mut Command, test: &str) -> Option<Output> {
    match command.output() {
        Ok(output) if output.status.code() != Some(77) => Some(output),
        Ok(_) => {
            eprintln!("SKIP: {test}: scapy is not installed: pip install scapy, or apt-get install python3-scapy");
            None
        }
        Err(error) => {
            eprintln!("SKIP: {test}: {}: {error}: apt-get install tshark", command.get_program().display());
            None
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no programs")]
fn tshark_finds_nothing_wrong_with_any_frame() {
    let path = write_frames("tshark");
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-T", "fields"]);
    // A checksum of 0 over IPv6 is what RFC 6935 allows tunnels.
    for setting in ["ip.check_checksum:TRUE", "udp.check_checksum:TRUE", "udp.ignore_ipv6_zero_checksum:TRUE"] {
        command.args(["-o", setting]);
    }
    for field in ["frame.protocols", "_ws.malformed", "_ws.expert.severity", "_ws.expert.message"] {
        command.args(["-e", field]);
    }
    let Some(output) = output(&mut command, "tshark_finds_nothing_wrong_with_any_frame") else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let variants = variants::all();
    assert_eq!(lines.len(), variants.len(), "{}", String::from_utf8_lossy(&output.stderr));
    for (variant, line) in variants.iter().zip(lines) {
        let (protocols, complaints) = line.split_once('\t').unwrap();
        assert_eq!(complaints.trim(), "", "{}: {line}", variant.name);
        assert!(protocols.contains(protocol(variant.kind, variant.options.gpe)), "{}: {line}", variant.name);
        // The inner packet is found, and read to its end.
        assert!(protocols.ends_with(":udp:data"), "{}: {line}", variant.name);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no programs")]
fn scapy_reads_every_frame_and_would_write_the_same() {
    let path = write_frames("scapy");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tunnels/read.py");
    let mut command = Command::new("python3");
    let Some(output) = output(command.arg(script).arg(path), "scapy_reads_every_frame_and_would_write_the_same") else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.trim(), format!("{} frames", variants::all().len()));
}
