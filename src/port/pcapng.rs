//! Reading of pcapng captures (draft-ietf-opsawg-pcapng).
//!
//! ```text
//! block      type u32 │ length u32 │ body, padded to four bytes │ length u32 again
//! section    byte-order magic, version; everything up to the next section is in its order
//! interface  link type, snap length, options: the resolution and offset of its timestamps
//! packets    enhanced (with interface and time), simple (neither), obsolete (as enhanced, 16-bit interface)
//! ```
//!
//! Other blocks (names, statistics, secrets, custom ones) are skipped by their length.

use super::trace::{DATA_LEN_MAX, LINK_TYPE_ETHERNET, Order, Trace, TraceError, TraceFault, TracePacket};

/// Block type of a section header; the same in both byte orders.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET_OBSOLETE: u32 = 2;
const PACKET_SIMPLE: u32 = 3;
const PACKET_ENHANCED: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and two lengths.
const BLOCK_LEN_MIN: u32 = 12;
const OPTION_END: u16 = 0;
const OPTION_TS_RESOLUTION: u16 = 9;
const OPTION_TS_OFFSET: u16 = 14;

/// What an interface description says about its packets.
struct Interface {
    link_type: u16,
    snap_len: u32,
    /// `if_tsresol` as it stands in the file.
    resolution: u8,
    offset_s: i64,
}

impl Interface {
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let exponent = u32::from(self.resolution & 0x7f);
        let ticks = u128::from(ticks);
        let ns = if self.resolution & 0x80 != 0 {
            // 64 + 30 bits at most, and the shift is below 128.
            (ticks * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            ticks * 10u128.pow(9 - exponent)
        } else {
            10u128.checked_pow(exponent - 9).map_or(0, |unit| ticks / unit)
        };
        let ns = i128::try_from(ns).unwrap_or(i128::MAX).saturating_add(i128::from(self.offset_s) * 1_000_000_000);
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// One block, and where it stands.
struct Block<'a> {
    kind: u32,
    offset: usize,
    body: &'a [u8],
    order: Order,
}

impl Block<'_> {
    fn fault(&self, fault: TraceFault) -> TraceError {
        TraceError { offset: self.offset as u64, fault }
    }

    fn beyond(&self, what: &'static str) -> TraceError {
        self.fault(TraceFault::BeyondBlock { block: self.kind, what })
    }

    fn u16(&self, at: usize) -> Result<u16, TraceError> {
        self.order.u16(self.body, at).ok_or_else(|| self.beyond("a field"))
    }

    fn u32(&self, at: usize) -> Result<u32, TraceError> {
        self.order.u32(self.body, at).ok_or_else(|| self.beyond("a field"))
    }

    fn interface(&self) -> Result<Interface, TraceError> {
        let (link_type, snap_len) = (self.u16(0)?, self.u32(4)?);
        let mut interface = Interface { link_type, snap_len, resolution: 6, offset_s: 0 };
        let mut at = 8;
        // Each option is at least four bytes long, so this ends. A list without an end mark is legal.
        while at < self.body.len() {
            let (code, len) = (self.u16(at)?, usize::from(self.u16(at + 2)?));
            if code == OPTION_END {
                break;
            }
            let value = self.body.get(at + 4..at + 4 + len).ok_or_else(|| self.beyond("an option"))?;
            match code {
                OPTION_TS_RESOLUTION if len == 1 => interface.resolution = value[0],
                OPTION_TS_OFFSET if len == 8 => {
                    let (a, b) = (u64::from(self.u32(at + 4)?), u64::from(self.u32(at + 8)?));
                    interface.offset_s = if self.order == Order::Little { b << 32 | a } else { a << 32 | b } as i64;
                }
                _ => {}
            }
            at += 4 + len.next_multiple_of(4);
        }
        Ok(interface)
    }

    /// The packet of interface `number` with `captured` bytes from `at` on.
    fn packet(
        &self,
        interfaces: &[Interface],
        number: u32,
        ticks: Option<u64>,
        (at, captured, original_len): (usize, u32, u32),
    ) -> Result<TracePacket, TraceError> {
        let interface = interfaces.get(number as usize).ok_or_else(|| self.fault(TraceFault::NoInterface(number)))?;
        if interface.link_type != LINK_TYPE_ETHERNET {
            return Err(self.fault(TraceFault::LinkType(interface.link_type)));
        }
        if captured as usize > DATA_LEN_MAX {
            return Err(self.fault(TraceFault::TooLong(captured)));
        }
        let data = self.body.get(at..at + captured as usize).ok_or_else(|| self.beyond("packet data"))?.to_vec();
        let timestamp_ns = ticks.map_or(0, |ticks| interface.nanoseconds(ticks));
        Ok(TracePacket { timestamp_ns, interface: number, original_len, data })
    }
}

/// Reads a capture that begins with a section header.
pub(super) fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
    let mut trace = Trace::default();
    let mut interfaces = Vec::new();
    let mut order = Order::Little;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let error = |fault| TraceError { offset: at as u64, fault };
        let cut = |trace: Trace| {
            if at == 0 {
                Err(error(TraceFault::HeaderCut))
            } else {
                Ok(Trace { truncated_at: Some(at as u64), ..trace })
            }
        };
        // A section header is the one block whose order is in its body.
        if rest.starts_with(&SECTION_HEADER.to_le_bytes()) {
            let Some(magic) = Order::Little.u32(rest, 8) else { return cut(trace) };
            order = match magic {
                BYTE_ORDER_MAGIC => Order::Little,
                _ if magic.swap_bytes() == BYTE_ORDER_MAGIC => Order::Big,
                _ => return Err(error(TraceFault::ByteOrder(magic))),
            };
        }
        let (Some(kind), Some(len)) = (order.u32(rest, 0), order.u32(rest, 4)) else { return cut(trace) };
        if len < BLOCK_LEN_MIN || len % 4 != 0 {
            return Err(error(TraceFault::BlockLength { block: kind, len }));
        }
        let Some(whole) = rest.get(..len as usize) else { return cut(trace) };
        let last = order.u32(whole, whole.len() - 4).unwrap_or_default();
        if last != len {
            return Err(error(TraceFault::BlockLengthsDiffer { block: kind, first: len, last }));
        }
        let block = Block { kind, offset: at, body: &whole[8..whole.len() - 4], order };
        match kind {
            SECTION_HEADER => {
                let (major, minor) = (block.u16(4)?, block.u16(6)?);
                if major != 1 {
                    return Err(error(TraceFault::Version(major, minor)));
                }
                interfaces.clear();
            }
            INTERFACE => interfaces.push(block.interface()?),
            PACKET_ENHANCED => {
                let ticks = u64::from(block.u32(4)?) << 32 | u64::from(block.u32(8)?);
                let lens = (20, block.u32(12)?, block.u32(16)?);
                trace.packets.push(block.packet(&interfaces, block.u32(0)?, Some(ticks), lens)?);
            }
            PACKET_SIMPLE => {
                let original_len = block.u32(0)?;
                let snap_len = interfaces.first().map_or(0, |i: &Interface| i.snap_len);
                let captured = if snap_len == 0 { original_len } else { original_len.min(snap_len) };
                trace.packets.push(block.packet(&interfaces, 0, None, (4, captured, original_len))?);
            }
            PACKET_OBSOLETE => {
                let ticks = u64::from(block.u32(4)?) << 32 | u64::from(block.u32(8)?);
                let lens = (20, block.u32(12)?, block.u32(16)?);
                trace.packets.push(block.packet(&interfaces, u32::from(block.u16(0)?), Some(ticks), lens)?);
            }
            _ => {}
        }
        at += len as usize;
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Builds files in either order.
    struct File {
        big: bool,
        bytes: Vec<u8>,
    }

    impl File {
        fn new(big: bool) -> Self {
            let mut file = File { big, bytes: Vec::new() };
            let body = [&file.u32(BYTE_ORDER_MAGIC)[..], &file.u16(1), &file.u16(0), &[0xff; 8]].concat();
            file.block(SECTION_HEADER, &body);
            file
        }

        fn u16(&self, n: u16) -> [u8; 2] {
            if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
        }

        fn u32(&self, n: u32) -> [u8; 4] {
            if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
        }

        fn block(&mut self, kind: u32, body: &[u8]) {
            let padded = body.len().next_multiple_of(4);
            let len = self.u32((padded + 12) as u32);
            let kind = self.u32(kind);
            self.bytes.extend(kind);
            self.bytes.extend(len);
            self.bytes.extend(body);
            self.bytes.resize(self.bytes.len() + padded - body.len(), 0);
            self.bytes.extend(len);
        }

        fn interface(&mut self, link: u16, snap_len: u32, options: &[(u16, &[u8])]) {
            let mut body = [&self.u16(link)[..], &[0, 0], &self.u32(snap_len)].concat();
            for (code, value) in options {
                body.extend([&self.u16(*code)[..], &self.u16(value.len() as u16), value].concat());
                body.resize(body.len().next_multiple_of(4), 0);
            }
            self.block(INTERFACE, &body);
        }

        fn enhanced(&mut self, interface: u32, ticks: u64, data: &[u8]) {
            let len = data.len() as u32;
            let fields = [interface, (ticks >> 32) as u32, ticks as u32, len, len + 1].map(|n| self.u32(n)).concat();
            self.block(PACKET_ENHANCED, &[&fields[..], data].concat());
        }
    }

    #[test]
    fn packets_of_every_kind_of_block_are_read_in_both_orders() {
        for big in [false, true] {
            let mut file = File::new(big);
            file.interface(1, 4, &[]);
            let offset = if big { 2i64.to_be_bytes() } else { 2i64.to_le_bytes() };
            file.interface(1, 0, &[(2, b"eth0"), (OPTION_TS_RESOLUTION, &[9]), (OPTION_TS_OFFSET, &offset), (0, b"")]);
            file.block(0xbad, b"custom");
            file.enhanced(0, 5, b"abcde");
            file.enhanced(1, 1 << 33, b"fg");
            let simple = [&file.u32(9)[..], b"hijk"].concat();
            file.block(PACKET_SIMPLE, &simple);
            let obsolete =
                [&file.u16(1)[..], &[0, 0], &[0; 4], &file.u32(7), &file.u32(1), &file.u32(1), b"l"].concat();
            file.block(PACKET_OBSOLETE, &obsolete);
            let trace = parse(&file.bytes).unwrap();
            let read: Vec<_> = trace
                .packets
                .iter()
                .map(|p| (p.interface, p.timestamp_ns, p.original_len, std::str::from_utf8(&p.data).unwrap()))
                .collect();
            let expected = [
                (0, 5000, 6, "abcde"),
                (1, (1 << 33) + 2_000_000_000, 3, "fg"),
                (0, 0, 9, "hijk"),
                (1, 2_000_000_007, 1, "l"),
            ];
            assert_eq!((read.as_slice(), trace.truncated_at), (&expected[..], None));
        }
    }

    #[test]
    fn a_new_section_changes_the_order_and_forgets_the_interfaces() {
        let mut file = File::new(false);
        file.interface(1, 0, &[]);
        file.enhanced(0, 1, b"a");
        let mut second = File::new(true);
        second.interface(1, 0, &[]);
        second.enhanced(0, 1, b"b");
        let at = file.bytes.len();
        file.bytes.extend(&second.bytes);
        assert_eq!(parse(&file.bytes).unwrap().packets.len(), 2);
        file.bytes.truncate(at);
        file.bytes.extend(File::new(true).bytes);
        file.big = true;
        file.enhanced(0, 1, b"c");
        assert_eq!(parse(&file.bytes).unwrap_err().fault, TraceFault::NoInterface(0));
    }

    #[test]
    fn errors_name_the_block_and_its_offset() {
        let mut file = File::new(false);
        file.interface(113, 0, &[]);
        let at = file.bytes.len();
        file.enhanced(0, 0, b"x");
        assert_eq!(
            parse(&file.bytes).unwrap_err().to_string(),
            format!("byte {at}: link type 113: only Ethernet (1) is supported")
        );
        let mut wrong = file.bytes.clone();
        *wrong.last_mut().unwrap() = 1;
        assert!(matches!(parse(&wrong).unwrap_err().fault, TraceFault::BlockLengthsDiffer { block: 6, .. }));
        wrong = file.bytes.clone();
        wrong[at + 4] = 13;
        assert_eq!(parse(&wrong).unwrap_err().to_string(), format!("byte {at}: block type 0x6: length 13"));
        wrong = File::new(false).bytes;
        wrong[8] = 0;
        assert!(matches!(parse(&wrong).unwrap_err().fault, TraceFault::ByteOrder(_)));

        let mut file = File::new(false);
        file.interface(1, 0, &[]);
        let fields = [0, 0, 0, 99, 99].map(u32::to_le_bytes).concat();
        file.block(PACKET_ENHANCED, &fields);
        assert!(parse(&file.bytes).unwrap_err().to_string().ends_with("packet data beyond the end of the block"));
        let mut file = File::new(false);
        file.interface(1, 0, &[(9, &[0; 40])]);
        let len = file.bytes.len();
        file.bytes[len - 4 - 40 - 2] = 200;
        assert!(parse(&file.bytes).unwrap_err().to_string().ends_with("an option beyond the end of the block"));
    }

    #[test]
    fn every_cut_of_the_tail_leaves_the_whole_blocks() {
        let mut file = File::new(false);
        file.interface(1, 0, &[]);
        file.enhanced(0, 0, b"first");
        let second = file.bytes.len();
        file.enhanced(0, 0, b"second");
        for cut in second + 1..file.bytes.len() {
            let trace = parse(&file.bytes[..cut]).unwrap();
            assert_eq!((trace.packets.len(), trace.truncated_at), (1, Some(second as u64)));
        }
        for cut in 4..28 {
            assert_eq!(parse(&file.bytes[..cut]).unwrap_err().fault, TraceFault::HeaderCut);
        }
    }

    #[test]
    fn every_resolution_is_taken_without_overflow() {
        for resolution in 0..=255 {
            for offset_s in [0, i64::MIN, i64::MAX] {
                let interface = Interface { link_type: 1, snap_len: 0, resolution, offset_s };
                let _ = (interface.nanoseconds(0), interface.nanoseconds(u64::MAX));
            }
        }
        let ns =
            |resolution, ticks| Interface { link_type: 1, snap_len: 0, resolution, offset_s: 0 }.nanoseconds(ticks);
        assert_eq!((ns(0, 3), ns(12, 7_999), ns(0x80 | 1, 3)), (3_000_000_000, 7, 1_500_000_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)))]

        #[test]
        fn damaged_files_never_panic(big: bool, hits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
            let mut file = File::new(big);
            file.interface(1, 64, &[(9, &[6]), (0, b"")]);
            file.enhanced(0, 1, b"packet");
            let simple = [&file.u32(3)[..], b"abc"].concat();
            file.block(PACKET_SIMPLE, &simple);
            for (at, value) in hits {
                let at = at % file.bytes.len();
                file.bytes[at] = value;
            }
            if let Ok(trace) = Trace::parse(&file.bytes) {
                prop_assert!(trace.packets.iter().map(|p| p.data.len()).sum::<usize>() <= file.bytes.len());
            }
        }
    }
}
