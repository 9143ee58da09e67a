//! Packets whose outer headers look like those of the packet before them.
//!
//! Bursts that come out of a tunnel have outer headers that differ in little but lengths, identification, checksum and source port. What of
//! them has to be as it is, and what a flow looks at, is compared with the headers of one packet that was checked in full: bytes under a
//! mask, two vectors of them, instead of field by field.

use super::outer;
use super::{Kind, Options};
use crate::flow::key::{BaseLine, LINE_BASE, LineSet};
use crate::flow::{FlowKey, FlowMask};
use crate::packet::{Packet, PacketFlags};
use crate::wire::{checksum, ethernet, ipv4, udp};

const L3: usize = ethernet::HEADER_LEN;
const L4: usize = L3 + ipv4::HEADER_LEN;
/// Where the tunnel's own header begins.
const OWN: usize = L4 + udp::HEADER_LEN;
/// And where its identifier is.
const ID: usize = OWN + 4;
/// Where Geneve's options begin.
const OPTIONS: usize = OWN + 8;
/// What is compared: the first 32 bytes of the headers and the last 32.
const HALF: usize = 32;
/// Headers at most.
const LEN_MAX: usize = 2 * HALF;

/// Where a packet may begin, so that what is inside begins at an offset of 16 bits.
const OFFSET_MAX: usize = u16::MAX as usize - LEN_MAX;

/// The two halves, which overlap in shorter headers, as words.
type Words = [u64; 8];

/// Outer headers, and in what others may differ from them.
#[derive(Clone, Debug)]
pub struct Alike {
    first: Words,
    /// Bits in which all headers must be like the first's.
    must: Words,
    /// Bits that flows may look at behind the tunnel.
    told: Words,
    /// Bits in which some header was not like the first's.
    differing: Words,
    metadata: [u64; 3],
    /// What all headers say alike: flags of the tunnel line, and the length of options.
    flags: u16,
    opts: [u8; 8],
    /// Length of the headers.
    len: usize,
    /// The lines of a key that they fill.
    lines: LineSet,
}

#[inline(always)]
fn words_of(bytes: &[u8], len: usize) -> Option<Words> {
    let (front, back) = (bytes.first_chunk::<HALF>()?, bytes.get(len.checked_sub(HALF)?..len)?.first_chunk::<HALF>()?);
    let word = |half: &[u8; HALF], i: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&half[8 * i..8 * i + 8]);
        u64::from_ne_bytes(word)
    };
    Some(core::array::from_fn(|i| if i < 4 { word(front, i) } else { word(back, i - 4) }))
}

/// What of a descriptor a flow can look at, and what rules out that the packet is usual.
#[inline(always)]
fn metadata_of(packet: &Packet) -> [u64; 3] {
    [
        u64::from(packet.in_port) | u64::from(packet.recirc_id) << 32,
        u64::from(packet.dp_hash) | u64::from(packet.skb_mark) << 32,
        u64::from(packet.ct_mark) | u64::from(packet.ct_zone) << 32 | u64::from(packet.ct_state) << 48,
    ]
}

impl Default for Alike {
    /// Like no headers.
    fn default() -> Self {
        let none = [0; 8];
        Alike {
            first: none,
            must: none,
            told: none,
            differing: none,
            metadata: [0; 3],
            flags: 0,
            opts: none.map(|_| 0),
            len: 0,
            lines: 0,
        }
    }
}

impl Alike {
    /// The headers of `packet`, which are noted in `key` as [`open_usual`](super::open_usual) does; `None` if not, or
    /// if they are not of a kind that others are compared with. `outer` is the mask of the flow that matched the packet, `inner` has all bits
    /// that a flow looks at which may match the inner packets.
    pub fn of(
        packet: &Packet,
        key: &mut FlowKey,
        kind: Kind,
        options: &Options,
        outer: &BaseLine,
        inner: &FlowMask,
    ) -> Option<Alike> {
        let (at, end, lines) = super::look_usual(packet, key, kind, options)?;
        let bytes = packet.data();
        // Congestion marks that change nothing inside (RFC 6040 §4.2): not ECT(1), not CE.
        let is_marked = options.ecn && bytes[L3 + 1] & 1 != 0;
        let own_options = bytes.get(OPTIONS..at)?;
        // Bits that the key does not have as they are on the wire.
        let has_reserved = own_options != key.options.get(..own_options.len())?;
        if at > LEN_MAX
            || packet.headroom() > OFFSET_MAX
            || is_marked
            || end != bytes.len()
            || packet.ext != 0
            || !own_options.is_empty() && has_reserved
        {
            return None;
        }
        let (mut must, mut told) = ([0; LEN_MAX], [0; LEN_MAX]);
        must[..6].copy_from_slice(&outer.eth_dst);
        must[6..12].copy_from_slice(&outer.eth_src);
        // EtherType, version and length; no fragment; protocol; no checksum.
        must[12..15].fill(0xff);
        must[15] = outer.nw_tos | u8::from(options.ecn);
        (must[20], must[21], must[22], must[23]) = (0x3f, 0xff, outer.nw_ttl, 0xff);
        must[26..30].copy_from_slice(&outer.ipv4_src);
        must[30..34].copy_from_slice(&outer.ipv4_dst);
        must[34..36].copy_from_slice(&outer.tp_src.to_bytes());
        must[36..38].copy_from_slice(&outer.tp_dst.to_bytes());
        must[40..42].fill(0xff);
        // All of the tunnel's own header but the identifier; of options what their form is.
        must[OWN..ID].fill(0xff);
        must[ID + 3] = if kind == Kind::Vxlan { 0xff } else { 0 };
        let mut option = OPTIONS;
        while option < at {
            must[option..option + 4].fill(0xff);
            option += 4 + usize::from(bytes[option + 3] & 0x1f) * 4;
        }
        let tunnel = &inner.0.tunnel;
        (told[15], told[22]) = (tunnel.tos, tunnel.ttl);
        told[26..30].copy_from_slice(&tunnel.ipv4_src);
        told[30..34].copy_from_slice(&tunnel.ipv4_dst);
        told[34..36].copy_from_slice(&tunnel.tp_src.to_bytes());
        told[36..38].copy_from_slice(&tunnel.tp_dst.to_bytes());
        told[ID..ID + 3].copy_from_slice(&tunnel.id.to_bytes()[5..]);
        told[OPTIONS..at].copy_from_slice(inner.0.options.get(..at - OPTIONS)?);
        Some(Alike {
            first: words_of(bytes, at)?,
            must: words_of(&must, at)?,
            told: words_of(&told, at)?,
            differing: [0; 8],
            metadata: metadata_of(packet),
            flags: key.tunnel.flags,
            opts: key.tunnel.opts,
            len: at,
            lines: LINE_BASE | lines,
        })
    }

    /// True if `packet` is right, is usual, and matches whichever flow the first packet matched. What it differs in is remembered.
    #[inline(always)]
    pub fn take_in(&mut self, packet: &Packet) -> bool {
        let bytes = packet.data();
        let (Some(words), Some(head)) = (words_of(bytes, self.len), bytes.first_chunk::<OWN>()) else { return false };
        let mut differs = 0;
        for (i, word) in words.iter().enumerate() {
            let other = word ^ self.first[i];
            differs |= other & self.must[i];
            self.differing[i] |= other & self.told[i];
        }
        let metadata = metadata_of(packet);
        differs |= (0..3).fold(u64::from(packet.ext), |d, i| d | metadata[i] ^ self.metadata[i]);
        let (total, len) = (u16::from_be_bytes([head[16], head[17]]), u16::from_be_bytes([head[38], head[39]]));
        let (total, len) = (usize::from(total) + L3, usize::from(len) + L4);
        differs == 0
            && (total, len) == (bytes.len(), bytes.len())
            && packet.headroom() <= OFFSET_MAX
            && !packet.flags.contains(PacketFlags::LAYER3)
            && (packet.flags.contains(PacketFlags::CHECKSUM_GOOD)
                || checksum::is_right_v4(head[L3..L4].first_chunk().unwrap_or(&[0; 20])))
    }

    /// True if flows may tell two of the packets apart by what their outer headers said.
    #[inline(always)]
    pub fn tells_apart(&self) -> bool {
        self.differing.iter().fold(0, |d, word| d | word) != 0
    }

    /// Length of the headers.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The lines of a key that the headers fill, and line 0.
    #[inline(always)]
    pub fn lines(&self) -> LineSet {
        self.lines
    }

    /// Writes to the tunnel line and the first line of options of `key` what `head` says, the headers of a packet that was taken in.
    #[inline(always)]
    pub fn write(&self, head: &[u8], key: &mut FlowKey) {
        let Some(usual) = head.first_chunk() else { return };
        outer::write_usual(usual, &mut key.tunnel);
        let mut id = [0; 8];
        id[5..].copy_from_slice(&head[ID..ID + 3]);
        key.tunnel.id = id.into();
        (key.tunnel.flags, key.tunnel.opts) = (self.flags, self.opts);
        if let Some(options) = head.get(OPTIONS..self.len)
            && !options.is_empty()
        {
            key.options[..HALF * 2].fill(0);
            key.options[..options.len()].copy_from_slice(options);
        }
    }
}
