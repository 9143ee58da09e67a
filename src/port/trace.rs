//! Packet traces: reading of classic pcap (and, through `pcapng`, of pcapng), and writing of classic pcap.
//!
//! ```text
//! file header   magic u32 │ major u16 │ minor u16 │ zone i32 │ sigfigs u32 │ snaplen u32 │ link type u32
//! record        seconds u32 │ fraction u32 │ captured u32 │ original u32 │ captured bytes
//! ```
//!
//! The magic number tells the byte order and the unit of the fraction. A file may end in the middle of a record, since
//! captures are cut off by signals and full disks: what is whole is read, and [`Trace::truncated_at`] says where it ended.
//! Everything else that is wrong is an error that names the place. [`Trace::parse`] is a pure function: memory is
//! bounded by a small multiple of the file's length, time is linear in it.

use std::io::{Read, Write};
use std::path::Path;

use super::driver::PortError;
use super::pcapng;

/// The longest captured packet that is believed: libpcap's own limit. A longer one means that the file is corrupt.
pub const DATA_LEN_MAX: usize = 262_144;

/// The longest file that [`read_trace`] loads.
pub const FILE_LEN_MAX: u64 = 4 << 30;

/// The only link type that a switch can use.
pub const LINK_TYPE_ETHERNET: u16 = 1;

const MAGIC_US: u32 = 0xa1b2_c3d4;
const MAGIC_NS: u32 = 0xa1b2_3c4d;
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;

/// One captured packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TracePacket {
    /// Nanoseconds since 1970, or since whatever the writer's clock began at.
    pub timestamp_ns: u64,
    /// Number of the interface within its section (pcapng), else 0.
    pub interface: u32,
    /// Length on the wire, which is more than `data` if the capture was cut.
    pub original_len: u32,
    /// The bytes, from the Ethernet header on.
    pub data: Vec<u8>,
}

/// A whole capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The packets, in the order of the file.
    pub packets: Vec<TracePacket>,
    /// Where the last, incomplete record or block begins, if the file does not end cleanly.
    pub truncated_at: Option<u64>,
}

/// What is wrong with a trace, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {fault}")]
pub struct TraceError {
    /// Offset of the header, record or block at fault.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: TraceFault,
}

/// The ways in which a trace can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceFault {
    /// Neither pcap nor pcapng.
    #[error("not a pcap or pcapng file (it begins with {0:02x?})")]
    NotATrace([u8; 4]),
    /// Compressed.
    #[error("the file is compressed with gzip: decompress it first")]
    Gzip,
    /// Too short to have a header.
    #[error("the file ends inside its header")]
    HeaderCut,
    /// A format version from the future, or nonsense.
    #[error("format version {0}.{1} is not supported")]
    Version(u16, u16),
    /// Not Ethernet.
    #[error("link type {0}: only Ethernet (1) is supported")]
    LinkType(u16),
    /// A packet longer than any capture.
    #[error("a captured length of {0} bytes exceeds {DATA_LEN_MAX}")]
    TooLong(u32),
    /// pcapng: the byte-order magic is neither order's.
    #[error("byte-order magic {0:#010x}")]
    ByteOrder(u32),
    /// pcapng: a block length below the minimum or not a multiple of four.
    #[error("block type {block:#x}: length {len}")]
    BlockLength {
        /// The block's type.
        block: u32,
        /// The length that it claims.
        len: u32,
    },
    /// pcapng: the two copies of the block length differ.
    #[error("block type {block:#x}: length {first} at its start, {last} at its end")]
    BlockLengthsDiffer {
        /// The block's type.
        block: u32,
        /// The length at the block's start.
        first: u32,
        /// The length at its end.
        last: u32,
    },
    /// pcapng: fields, options or data do not fit the block.
    #[error("block type {block:#x}: {what} beyond the end of the block")]
    BeyondBlock {
        /// The block's type.
        block: u32,
        /// What does not fit.
        what: &'static str,
    },
    /// pcapng: a packet of an interface that was not described.
    #[error("packet of interface {0}, which no block describes")]
    NoInterface(u32),
}

/// A byte order, found out at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// The 16-bit number at `at`; `None` beyond the end.
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let field = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self == Order::Little { u16::from_le_bytes(field) } else { u16::from_be_bytes(field) })
    }

    /// The 32-bit number at `at`; `None` beyond the end.
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self == Order::Little { u32::from_le_bytes(field) } else { u32::from_be_bytes(field) })
    }
}

impl Trace {
    /// Reads a capture from memory.
    ///
    /// # Errors
    /// What is wrong and where; a cut tail is no error.
    pub fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
        match recognise(bytes)? {
            Kind::Classic(order, unit_ns) => parse_classic(bytes, order, unit_ns),
            Kind::NextGeneration => pcapng::parse(bytes),
        }
    }
}

enum Kind {
    Classic(Order, u64),
    NextGeneration,
}

fn recognise(bytes: &[u8]) -> Result<Kind, TraceError> {
    let at_start = |fault| TraceError { offset: 0, fault };
    let &[a, b, c, d] = bytes.first_chunk::<4>().ok_or(at_start(TraceFault::HeaderCut))?;
    let little = u32::from_le_bytes([a, b, c, d]);
    match (little, little.swap_bytes()) {
        (MAGIC_US, _) => Ok(Kind::Classic(Order::Little, 1000)),
        (MAGIC_NS, _) => Ok(Kind::Classic(Order::Little, 1)),
        (_, MAGIC_US) => Ok(Kind::Classic(Order::Big, 1000)),
        (_, MAGIC_NS) => Ok(Kind::Classic(Order::Big, 1)),
        (pcapng::SECTION_HEADER, _) => Ok(Kind::NextGeneration),
        _ if [a, b] == [0x1f, 0x8b] => Err(at_start(TraceFault::Gzip)),
        _ => Err(at_start(TraceFault::NotATrace([a, b, c, d]))),
    }
}

fn parse_classic(bytes: &[u8], order: Order, unit_ns: u64) -> Result<Trace, TraceError> {
    let at_start = |fault| TraceError { offset: 0, fault };
    let header = bytes.get(..FILE_HEADER_LEN).ok_or(at_start(TraceFault::HeaderCut))?;
    let field = |at| order.u32(header, at).unwrap_or_default();
    let (major, minor) = (order.u16(header, 4).unwrap_or_default(), order.u16(header, 6).unwrap_or_default());
    // Before 2.3 the two lengths of a record were in the other order; nobody has such files any more.
    if major != 2 || minor < 3 {
        return Err(at_start(TraceFault::Version(major, minor)));
    }
    let link_type = field(20) as u16;
    if link_type != LINK_TYPE_ETHERNET {
        return Err(at_start(TraceFault::LinkType(link_type)));
    }
    // Bit 26 says that the top four bits count the 16-bit words of frame check sequence behind each packet.
    let fcs_len = if field(20) & 1 << 26 != 0 { 2 * (field(20) >> 28) } else { 0 };

    let mut trace = Trace::default();
    let mut at = FILE_HEADER_LEN;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some(header) = rest.get(..RECORD_HEADER_LEN) else {
            trace.truncated_at = Some(at as u64);
            break;
        };
        let field = |at| order.u32(header, at).unwrap_or_default();
        let (seconds, fraction, captured, original_len) = (field(0), field(4), field(8), field(12));
        if captured as usize > DATA_LEN_MAX {
            return Err(TraceError { offset: at as u64, fault: TraceFault::TooLong(captured) });
        }
        let Some(data) = rest.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + captured as usize) else {
            trace.truncated_at = Some(at as u64);
            break;
        };
        let original_len = original_len.saturating_sub(fcs_len);
        let keep = if fcs_len == 0 { data.len() } else { data.len().min(original_len as usize) };
        trace.packets.push(TracePacket {
            timestamp_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit_ns,
            interface: 0,
            original_len,
            data: data[..keep].to_vec(),
        });
        at += RECORD_HEADER_LEN + data.len();
    }
    Ok(trace)
}

/// Loads a pcap or pcapng file. An incomplete last record is left out.
///
/// # Errors
/// The kernel's, or what is wrong with the file and where.
pub fn read_trace(path: impl AsRef<Path>) -> Result<Vec<TracePacket>, PortError> {
    load_trace(path).map(|trace| trace.packets)
}

/// As [`read_trace`], and says whether the file ends cleanly.
///
/// # Errors
/// As [`read_trace`].
pub fn load_trace(path: impl AsRef<Path>) -> Result<Trace, PortError> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let io = |what: &str, e| PortError::io(&name, what, e);
    let wrong = |reason: String| PortError::Format { port: name.clone(), reason };
    let mut file = std::fs::File::open(path).map_err(|e| io("cannot open the trace", e))?;
    // The magic number is looked at first, so that a device or a huge file of something else is refused at once.
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(4).read_to_end(&mut bytes).map_err(|e| io("cannot read the trace", e))?;
    recognise(&bytes).map_err(|e| wrong(e.to_string()))?;
    let rest = FILE_LEN_MAX - bytes.len() as u64;
    file.take(rest + 1).read_to_end(&mut bytes).map_err(|e| io("cannot read the trace", e))?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(wrong(format!("longer than {FILE_LEN_MAX} bytes")));
    }
    Trace::parse(&bytes).map_err(|e| wrong(e.to_string()))
}

/// Writes a classic pcap file with nanoseconds.
#[derive(Debug)]
pub struct TraceWriter<W: Write> {
    out: W,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W) -> std::io::Result<Self> {
        let mut header = [0; FILE_HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC_NS.to_le_bytes());
        header[4..6].copy_from_slice(&2u16.to_le_bytes());
        header[6..8].copy_from_slice(&4u16.to_le_bytes());
        header[16..20].copy_from_slice(&(DATA_LEN_MAX as u32).to_le_bytes());
        header[20..24].copy_from_slice(&u32::from(LINK_TYPE_ETHERNET).to_le_bytes());
        out.write_all(&header)?;
        Ok(TraceWriter { out })
    }

    /// Appends a packet; of one longer than [`DATA_LEN_MAX`], its beginning. Times past the year 2106 are written as that.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&mut self, timestamp_ns: u64, data: &[u8]) -> std::io::Result<()> {
        let captured = &data[..data.len().min(DATA_LEN_MAX)];
        let seconds = u32::try_from(timestamp_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let mut header = [0; RECORD_HEADER_LEN];
        header[..4].copy_from_slice(&seconds.to_le_bytes());
        header[4..8].copy_from_slice(&((timestamp_ns % 1_000_000_000) as u32).to_le_bytes());
        header[8..12].copy_from_slice(&(captured.len() as u32).to_le_bytes());
        header[12..].copy_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(captured)
    }

    /// Hands what is buffered to the operating system.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file in either order, from the fields.
    fn classic(big: bool, magic: u32, link: u32, records: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let put = |out: &mut Vec<u8>, n: u32| out.extend(if big { n.to_be_bytes() } else { n.to_le_bytes() });
        let mut out = Vec::new();
        put(&mut out, magic);
        out.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        [0, 0, 65535, link].into_iter().for_each(|n| put(&mut out, n));
        for (seconds, fraction, data) in records {
            [*seconds, *fraction, data.len() as u32, data.len() as u32].into_iter().for_each(|n| put(&mut out, n));
            out.extend(*data);
        }
        out
    }

    #[test]
    fn both_byte_orders_and_both_units_read_alike() {
        for big in [false, true] {
            for (magic, fraction) in [(MAGIC_US, 5), (MAGIC_NS, 5000)] {
                let trace = Trace::parse(&classic(big, magic, 1, &[(1, fraction, b"abc"), (2, 0, b"")])).unwrap();
                assert_eq!(trace.truncated_at, None);
                assert_eq!(trace.packets.len(), 2);
                let first =
                    TracePacket { timestamp_ns: 1_000_005_000, interface: 0, original_len: 3, data: b"abc".to_vec() };
                assert_eq!(trace.packets[0], first);
                assert_eq!(trace.packets[1].timestamp_ns, 2_000_000_000);
            }
        }
    }

    #[test]
    fn every_cut_of_the_tail_leaves_the_whole_records() {
        let file = classic(false, MAGIC_US, 1, &[(1, 0, b"first"), (2, 0, b"second")]);
        let second = FILE_HEADER_LEN + RECORD_HEADER_LEN + 5;
        for cut in second + 1..file.len() {
            let trace = Trace::parse(&file[..cut]).unwrap();
            assert_eq!((trace.packets.len(), trace.truncated_at), (1, Some(second as u64)), "cut at {cut}");
        }
        for cut in 0..FILE_HEADER_LEN {
            assert_eq!(Trace::parse(&file[..cut]).unwrap_err().fault, TraceFault::HeaderCut);
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let error = |bytes: &[u8]| Trace::parse(bytes).unwrap_err().to_string();
        assert_eq!(error(&classic(true, MAGIC_US, 101, &[])), "byte 0: link type 101: only Ethernet (1) is supported");
        let mut file = classic(false, MAGIC_US, 1, &[(1, 0, b"abc")]);
        file.extend([0; 8]);
        file.extend(u32::MAX.to_le_bytes());
        file.extend([0; 4]);
        assert_eq!(error(&file), "byte 43: a captured length of 4294967295 bytes exceeds 262144");
        assert_eq!(error(&[0x1f, 0x8b, 8, 0]), "byte 0: the file is compressed with gzip: decompress it first");
        assert_eq!(error(b"GIF89a"), "byte 0: not a pcap or pcapng file (it begins with [47, 49, 46, 38])");
        file[4] = 1;
        assert_eq!(error(&file), "byte 0: format version 1.4 is not supported");
    }

    #[test]
    fn frame_check_sequences_are_left_off() {
        // Two 16-bit words behind each packet; the second one's was cut with it.
        let mut file = classic(false, MAGIC_US, 1 | 1 << 26 | 2 << 28, &[(1, 0, b"dataFCS!"), (2, 0, b"da")]);
        let at = file.len() - 2 - 4;
        file[at] = 8;
        let trace = Trace::parse(&file).unwrap();
        assert_eq!((&trace.packets[0].data[..], trace.packets[0].original_len), (&b"data"[..], 4));
        assert_eq!((&trace.packets[1].data[..], trace.packets[1].original_len), (&b"da"[..], 4));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)))]

        #[test]
        fn what_is_written_is_read_back(
            packets in proptest::collection::vec((0u64..u64::from(u32::MAX) * 1_000_000_000, proptest::collection::vec(any::<u8>(), 0..99)), 0..20)
        ) {
            let mut writer = TraceWriter::new(Vec::new()).unwrap();
            for (at, data) in &packets {
                writer.write(*at, data).unwrap();
            }
            let trace = Trace::parse(&writer.into_inner()).unwrap();
            let read: Vec<_> = trace.packets.into_iter().map(|p| (p.timestamp_ns, p.data)).collect();
            prop_assert_eq!(read, packets);
        }

        #[test]
        fn arbitrary_bytes_behind_a_header_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), big: bool) {
            let mut file = classic(big, MAGIC_NS, 1, &[(0, 0, b"x")]);
            file.extend(&bytes);
            if let Ok(trace) = Trace::parse(&file) {
                prop_assert!(trace.packets.iter().map(|p| p.data.len() + RECORD_HEADER_LEN).sum::<usize>() <= file.len());
            }
            let _ = Trace::parse(&bytes);
        }
    }
}
