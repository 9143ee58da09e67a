//! The pcap port.

use std::path::PathBuf;

use wye::packet::Pool;
use wye::port::pcap::{Pcap, PcapConfig};
use wye::port::trace::TraceWriter;
use wye::port::{Driver, read_trace};

use crate::conformance::{World, check, frame, receive, transmit};

/// A directory that is removed at the end, also by a panic.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wye-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The frames to play are in a file already; what was recorded is read as the file grows.
struct Files {
    recorded: PathBuf,
    seen: usize,
}

impl World for Files {
    fn send(&mut self, _: &[u8]) {}

    fn recv(&mut self) -> Option<Vec<u8>> {
        let packet = read_trace(&self.recorded).unwrap().into_iter().nth(self.seen)?;
        self.seen += 1;
        Some(packet.data)
    }

    fn both_ways(&self) -> bool {
        false
    }
}

#[test]
fn pcap_port_keeps_the_contract() {
    let scratch = Scratch::new("contract");
    let lens = [60, 61, 64, 127, 128, 590, 1024, 1513, 1514];
    let mut writer = TraceWriter::new(std::fs::File::create(scratch.path("in.pcap")).unwrap()).unwrap();
    (0..256u16).for_each(|i| writer.write(u64::from(i), &frame(i, lens[i as usize % lens.len()])).unwrap());
    drop(writer);
    let config =
        PcapConfig { read: Some(scratch.path("in.pcap")), looped: false, write: Some(scratch.path("out.pcap")) };
    let pool = Pool::new(1024, 2048, 128).unwrap();
    let port = Pcap::open("p0", &config, &pool).unwrap();
    check(&pool, Box::new(port), &mut Files { recorded: scratch.path("out.pcap"), seen: 0 });
}

#[test]
fn a_replay_records_the_times_of_its_trace() {
    let scratch = Scratch::new("times");
    let mut writer = TraceWriter::new(std::fs::File::create(scratch.path("in.pcap")).unwrap()).unwrap();
    writer.write(123_456_789_012, &frame(0, 60)).unwrap();
    drop(writer);
    let pool = Pool::new(512, 2048, 128).unwrap();
    let (read, write) = (Some(scratch.path("in.pcap")), Some(scratch.path("out.pcap")));
    let mut port = Pcap::open("p0", &PcapConfig { read, looped: false, write }, &pool).unwrap();
    receive(&pool, &mut port, 1);
    transmit(&pool, &mut port, &[frame(7, 60)]);
    assert!(port.is_exhausted());
    drop(port);
    assert_eq!(read_trace(scratch.path("out.pcap")).unwrap()[0].timestamp_ns, 123_456_789_012);
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let scratch = Scratch::new("errors");
    let pool = Pool::new(64, 2048, 128).unwrap();
    let open = |read: Option<PathBuf>, write: Option<PathBuf>, looped| {
        let config = PcapConfig { read, looped, write };
        Pcap::open("p0", &config, &pool).err().expect("an error").to_string()
    };
    let missing = scratch.path("missing.pcap");
    let message = open(Some(missing.clone()), None, false);
    assert!(message.starts_with(&format!("{}: cannot open the trace", missing.display())), "{message}");
    std::fs::write(scratch.path("text"), "plain text").unwrap();
    assert!(open(Some(scratch.path("text")), None, false).contains("byte 0: not a pcap or pcapng file"));
    assert!(open(Some("/dev/zero".into()), None, false).contains("not a pcap"));
    assert!(open(None, None, false).contains("neither a file to read nor one to write"));
    assert!(open(None, Some(scratch.path("x/y.pcap")), false).contains("cannot create"));
    TraceWriter::new(std::fs::File::create(scratch.path("in.pcap")).unwrap()).unwrap();
    let same = Some(scratch.path("in.pcap"));
    assert!(open(same.clone(), same, false).contains("overwritten"));
}
