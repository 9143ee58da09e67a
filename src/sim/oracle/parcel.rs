//! [`Parcel`]: a packet as the oracle holds it, bytes in a vector, and where its headers were when it was last looked at.

use zerocopy::byteorder::network_endian::U32;

use super::parse;
use crate::flow::FlowKey;
use crate::flow::key::TunnelLine;

/// Where headers begin. Actions that set fields go by these: a header that the last look did not see is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The outermost MPLS label stack entry.
    pub labels: Option<usize>,
    /// The network header, and its EtherType. Behind labels it cannot be set.
    pub network: Option<(usize, u16)>,
    /// The transport header. None for later fragments and truncated headers.
    pub transport: Option<usize>,
}

/// A packet.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    /// What is on the wire.
    pub bytes: Vec<u8>,
    /// Without an Ethernet header: the EtherType of what the bytes begin with.
    pub layer3: Option<u16>,
    /// Port of ingress.
    pub in_port: u32,
    /// Recirculation id.
    pub recirc_id: u32,
    /// Result of `hash`.
    pub dp_hash: u32,
    /// Packet mark.
    pub skb_mark: u32,
    /// QoS priority.
    pub skb_priority: u32,
    /// Connection state.
    pub ct_state: u8,
    /// Connection zone.
    pub ct_zone: u16,
    /// Connection mark.
    pub ct_mark: u32,
    /// What `set(tunnel)` or the outer headers said last: header and Geneve options.
    pub tunnel: Option<(TunnelLine, Vec<u8>)>,
    /// The receiver's hash of the 5-tuple, or our own once it was asked for.
    pub five_tuple: Option<u32>,
    /// The receiver has verified the checksums of the outermost headers.
    pub checksums_are_good: bool,
    /// Bytes at the end that the next output leaves out (`trunc`).
    pub cut: usize,
    /// Recirculations so far.
    pub depth: u8,
    /// Where the headers are.
    pub marks: Marks,
    /// Copies of it were made: it counts as sent on when its list ends.
    pub was_copied: bool,
    /// It is a copy: its end is not the end of a packet that came in.
    pub is_copy: bool,
    /// Which packet of the burst it is, or is a copy of.
    pub number: usize,
    /// The flows that it matched, the actions that it was given to, and the branches that it took. Packets of one way stay in order.
    pub path: Vec<u32>,
}

impl Parcel {
    /// Looks at the bytes: sets the marks and returns the key; `None` if the Ethernet header is cut off.
    pub fn look(&mut self, vlan_depth: u8) -> Option<FlowKey> {
        let mut key = FlowKey::default();
        self.write_metadata(&mut key);
        match parse::parse(&self.bytes, self.layer3, vlan_depth, &mut key) {
            Some(marks) => self.marks = marks,
            None => {
                self.marks = Marks::default();
                return None;
            }
        }
        Some(key)
    }

    fn write_metadata(&self, key: &mut FlowKey) {
        let base = &mut key.base;
        (base.in_port, base.recirc_id, base.dp_hash) = (self.in_port, self.recirc_id, self.dp_hash);
        (base.skb_mark, base.skb_priority) = (self.skb_mark, self.skb_priority);
        (base.ct_state, base.ct_zone, base.ct_mark) = (self.ct_state, self.ct_zone, self.ct_mark);
        if let Some((tunnel, options)) = &self.tunnel {
            key.tunnel = *tunnel;
            key.options[..options.len()].copy_from_slice(options);
        }
    }

    /// Puts `new` in front of byte `at`; headers from there on move back.
    pub fn insert(&mut self, at: usize, new: &[u8]) {
        self.bytes.splice(at..at, new.iter().copied());
        let moved = |mark: usize| if mark >= at { mark + new.len() } else { mark };
        self.marks.labels = self.marks.labels.map(moved);
        self.marks.network = self.marks.network.map(|(mark, kind)| (moved(mark), kind));
        self.marks.transport = self.marks.transport.map(moved);
    }

    /// Takes out `n` bytes from `at` on; headers behind them move forward. Those that began in them are gone.
    pub fn remove(&mut self, at: usize, n: usize) {
        self.bytes.drain(at..at + n);
        let moved = |mark: usize| match mark {
            _ if mark <= at => Some(mark).filter(|mark| *mark < at),
            _ if mark < at + n => None,
            _ => Some(mark - n),
        };
        self.marks.labels = self.marks.labels.and_then(moved);
        self.marks.network = self.marks.network.and_then(|(mark, kind)| Some((moved(mark)?, kind)));
        self.marks.transport = self.marks.transport.and_then(moved);
    }

    /// Where the link layer ends: at the label stack, else at the network header.
    pub fn behind_link(&self) -> Option<usize> {
        self.marks.labels.or(self.marks.network.map(|(at, _)| at))
    }

    /// The network header, if it is of `ethertype` and no label stack is in front of it.
    pub fn network(&self, ethertype: u16) -> Option<usize> {
        let (at, kind) = self.marks.network?;
        (self.marks.labels.is_none() && kind == ethertype).then_some(at)
    }

    /// The big-endian number at `at`, if it is there.
    pub fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([*self.bytes.get(at)?, *self.bytes.get(at + 1)?]))
    }

    /// The big-endian number at `at`, if it is there.
    pub fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(U32::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).get())
    }
}
