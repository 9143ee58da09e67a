//! The pcap and pcapng readers.

use wye::port::trace::{DATA_LEN_MAX, Trace, TraceWriter};

/// Whatever is read fits its bounds, and reads the same after it was written again.
pub fn run(bytes: &[u8]) {
    let Ok(trace) = Trace::parse(bytes) else { return };
    let total: usize = trace.packets.iter().map(|p| p.data.len()).sum();
    assert!(total <= bytes.len(), "packets hold more bytes than the file");
    assert!(trace.packets.iter().all(|p| p.data.len() <= DATA_LEN_MAX));
    assert!(trace.truncated_at.is_none_or(|at| at <= bytes.len() as u64));

    let mut writer = TraceWriter::new(Vec::new()).expect("memory takes everything");
    for packet in &trace.packets {
        writer.write(packet.timestamp_ns, &packet.data).expect("memory takes everything");
    }
    let again = Trace::parse(&writer.into_inner()).expect("our own file is readable");
    assert_eq!(again.truncated_at, None);
    assert!(again.packets.iter().map(|p| &p.data).eq(trace.packets.iter().map(|p| &p.data)));
}
