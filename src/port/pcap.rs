//! A port over trace files: plays a capture, once or for ever, and records what is sent.
//!
//! The trace is loaded whole, so that playing costs a copy into a pool buffer and no system call. Packets are played as fast as
//! they are asked for; their timestamps only stamp what is recorded meanwhile, so that a replay gives the same files every time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::driver::{Driver, Link, PortError, PortStats, TxBurst};
use super::trace::{TracePacket, TraceWriter, read_trace};
use crate::packet::{Owner, Packet, Pool, PoolCache, buffer::PACKET_LEN_MAX};

/// Where what is sent is recorded.
pub type Output = Box<dyn Write + Send>;

/// What a pcap port plays and records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcapConfig {
    /// The pcap or pcapng file to play.
    pub read: Option<PathBuf>,
    /// Plays the file again and again instead of once.
    pub looped: bool,
    /// The pcap file to record into; it is overwritten.
    pub write: Option<PathBuf>,
}

/// A port that plays and records.
///
/// *Thread-safety.* Owned by one worker.
pub struct Pcap {
    pool: PoolCache,
    packets: Arc<[TracePacket]>,
    looped: bool,
    next: usize,
    last_ns: Option<u64>,
    writer: Option<TraceWriter<Output>>,
    /// Written since the last `flush`, and still to be handed to the operating system.
    written: bool,
    dirty: bool,
    failed: bool,
    stats: PortStats,
}

impl PcapConfig {
    /// Refuses settings without effect, and the loss of a trace.
    pub(super) fn check(&self, name: &str) -> Result<(), PortError> {
        let setting = |field, reason| Err(PortError::setting(name, field, reason));
        match (&self.read, &self.write) {
            (None, _) if self.looped => setting("looped", "there is no file to read"),
            (None, None) => setting("read", "neither a file to read nor one to write is given"),
            (Some(read), Some(write)) if is_same_file(read, write) => {
                setting("write", "is the file to read, which would be overwritten")
            }
            _ => Ok(()),
        }
    }
}

impl Pcap {
    /// Loads and creates the files that `config` names. `name` is the port's, for messages.
    ///
    /// # Errors
    /// A file that cannot be opened, read or created, or that is no trace of Ethernet packets; settings without effect.
    pub fn open(name: &str, config: &PcapConfig, pool: &Arc<Pool>) -> Result<Self, PortError> {
        config.check(name)?;
        let packets: Vec<TracePacket> = config.read.as_ref().map_or(Ok(Vec::new()), read_trace)?;
        let mut port = Pcap::new(packets.into(), config.looped, pool);
        if let Some(path) = &config.write {
            let cannot = |e| PortError::io(name, format!("cannot create {}", path.display()), e);
            let file = File::create(path).map_err(cannot)?;
            port = port.recording(Box::new(BufWriter::with_capacity(1 << 16, file))).map_err(cannot)?;
        }
        Ok(port)
    }

    /// Plays `packets` from memory.
    pub fn new(packets: Arc<[TracePacket]>, looped: bool, pool: &Arc<Pool>) -> Self {
        Pcap {
            pool: PoolCache::new(pool),
            packets,
            looped,
            next: 0,
            last_ns: None,
            writer: None,
            written: false,
            dirty: false,
            failed: false,
            stats: PortStats::default(),
        }
    }

    /// Records what is sent into `out` as a pcap file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn recording(mut self, out: Output) -> std::io::Result<Self> {
        self.writer = Some(TraceWriter::new(out)?);
        Ok(self)
    }

    /// The time that recorded packets get: that of the trace if there is one, else the system's.
    fn now_ns(&self) -> u64 {
        self.last_ns.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
        })
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

impl Driver for Pcap {
    fn kind(&self) -> &'static str {
        "pcap"
    }

    fn rx_burst(&mut self, out: &mut [Packet]) -> usize {
        let len_max = self.pool.pool().packet_len_max().min(PACKET_LEN_MAX);
        let mut n = 0;
        // At most one round of the trace per burst: a loop of packets that are all too long must end, too.
        for _ in 0..self.packets.len() {
            if n == out.len() || self.is_exhausted() {
                break;
            }
            let from = &self.packets[self.next];
            if from.data.len() > len_max {
                self.stats.rx_dropped += 1;
            } else {
                // A file can wait for a buffer, so nothing is lost.
                let Some(mut packet) = self.pool.alloc(from.data.len()) else { break };
                packet.data_mut().copy_from_slice(&from.data);
                self.stats.count_rx(packet.len());
                self.last_ns = Some(from.timestamp_ns);
                out[n] = packet;
                n += 1;
            }
            self.next += 1;
            if self.looped && self.next == self.packets.len() {
                self.next = 0;
            }
        }
        n
    }

    fn tx_burst(&mut self, mut burst: TxBurst<'_>) -> usize {
        let now_ns = if self.writer.is_some() { self.now_ns() } else { 0 };
        let mut accepted = 0;
        while accepted < burst.len() {
            let packet = burst.get(accepted);
            if packet.owner() != Owner::Gone {
                // Without a file the port is a sink: taking part in the counting is all that it does.
                if let Some(writer) = &mut self.writer {
                    // After an error the file may end inside a record; more would make it unreadable.
                    self.failed = self.failed || writer.write(now_ns, packet.data()).is_err();
                    if self.failed {
                        break;
                    }
                    (self.written, self.dirty) = (true, true);
                }
                self.stats.count_tx(packet.len());
            }
            accepted += 1;
        }
        self.stats.tx_dropped += (burst.len() - accepted) as u64;
        accepted
    }

    fn flush(&mut self) {
        // While packets keep coming the buffer does its work; the first idle poll puts what it holds on disk.
        if self.dirty && !self.written {
            self.dirty = false;
            self.failed = self.failed || self.writer.as_mut().is_some_and(|w| w.flush().is_err());
        }
        self.written = false;
    }

    fn packet_len_max(&self) -> usize {
        PACKET_LEN_MAX
    }

    fn link(&mut self) -> Link {
        if self.failed { Link::Down } else { Link::Up }
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn is_exhausted(&self) -> bool {
        self.next == self.packets.len()
    }
}

impl Drop for Pcap {
    fn drop(&mut self) {
        if let Some(writer) = &mut self.writer {
            // Nobody is left to hear of a failure; `link` told of those before.
            let _ = writer.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(lens: &[usize]) -> Arc<[TracePacket]> {
        let packet = |(i, len): (usize, &usize)| TracePacket {
            timestamp_ns: i as u64,
            data: vec![i as u8; *len],
            ..TracePacket::default()
        };
        lens.iter().enumerate().map(packet).collect()
    }

    fn play(port: &mut Pcap, pool: &Pool, n: usize) -> Vec<u8> {
        let mut out: Vec<Packet> = (0..n).map(|_| Packet::gone()).collect();
        let n = port.rx_burst(&mut out);
        out[..n]
            .iter_mut()
            .map(|p| {
                let first = p.data()[0];
                pool.free(p);
                first
            })
            .collect()
    }

    #[test]
    fn a_trace_is_played_once_or_for_ever() {
        let pool = Pool::new(64, 512, 64).unwrap();
        let mut once = Pcap::new(packets(&[60, 60, 60]), false, &pool);
        assert_eq!(play(&mut once, &pool, 2), [0, 1]);
        assert!(!once.is_exhausted());
        assert_eq!(play(&mut once, &pool, 2), [2]);
        assert!(once.is_exhausted());
        assert!(play(&mut once, &pool, 2).is_empty());

        let mut looped = Pcap::new(packets(&[60, 60, 60]), true, &pool);
        let played: Vec<u8> = (0..4).flat_map(|_| play(&mut looped, &pool, 2)).collect();
        assert_eq!(played, [0, 1, 2, 0, 1, 2, 0, 1]);
        assert!(!looped.is_exhausted());
        assert!(Pcap::new(packets(&[]), true, &pool).is_exhausted());
    }

    #[test]
    fn packets_too_long_for_a_buffer_are_counted_and_end_no_loop() {
        let pool = Pool::new(8, 512, 64).unwrap();
        let mut port = Pcap::new(packets(&[60, 449, 60]), false, &pool);
        assert_eq!(play(&mut port, &pool, 8), [0, 2]);
        assert_eq!((port.stats().rx_packets, port.stats().rx_dropped), (2, 1));
        let mut hopeless = Pcap::new(packets(&[449, 449]), true, &pool);
        assert!(play(&mut hopeless, &pool, 8).is_empty());
        assert_eq!(hopeless.stats().rx_dropped, 2);
    }

    #[test]
    fn an_empty_pool_delays_packets_and_loses_none() {
        let pool = Pool::new(2, 512, 64).unwrap();
        let mut port = Pcap::new(packets(&[60, 60, 60]), false, &pool);
        let mut out = [Packet::gone(), Packet::gone(), Packet::gone()];
        assert_eq!(port.rx_burst(&mut out), 2);
        out.iter_mut().for_each(|p| pool.free(p));
        assert_eq!(play(&mut port, &pool, 3), [2]);
        assert_eq!(port.stats().rx_dropped, 0);
    }

    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| std::io::Error::other("disk full"))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_takes_the_link_down_and_counts_what_is_lost() {
        let pool = Pool::new(8, 512, 64).unwrap();
        let mut port = Pcap::new(packets(&[]), false, &pool).recording(Box::new(Full(24 + 2 * 76))).unwrap();
        let mut batch: Vec<Packet> = (0..4).map(|_| pool.packet(&[1; 60]).unwrap()).collect();
        assert_eq!(port.tx_burst(TxBurst::new(&mut batch, &mut [], &[0, 1, 2, 3])), 2);
        assert_eq!((port.stats().tx_packets, port.stats().tx_dropped, port.link()), (2, 2, Link::Down));
        batch.iter_mut().for_each(|p| pool.free(p));
    }
}
