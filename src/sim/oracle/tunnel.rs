//! Tunnels: VXLAN, Geneve and GRE, on ([`push`]) and off ([`pop`]), from the RFCs, with every length and checksum computed from scratch.
//!
//! *Left out*: ERSPAN, GTP-U and segment routing; sequence numbers of what is pushed (those of what is popped are ignored, as by the
//! engine); packets that would be longer than an IP packet can be, and packets that no buffer has room for: the oracle has no buffers.

pub mod pop;
pub mod push;

use crate::tunnel::template::{FlowLabel, Inherit, SOURCE_PORTS};
use crate::tunnel::{Kind, Options};

/// A tunnel.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Kind.
    pub kind: Kind,
    /// How its packets are checked.
    pub options: Options,
    /// How packets get into it, if that is known.
    pub way: Option<Way>,
}

/// The way to a tunnel's other end.
#[derive(Clone, Debug)]
pub struct Way {
    /// The outer headers.
    pub headers: Headers,
    /// The port that they leave by.
    pub out_port: u32,
    /// The longest IP packet that gets through.
    pub mtu: u32,
}

/// Outer headers, and what of them differs from packet to packet.
#[derive(Clone, Debug)]
pub struct Headers {
    /// Kind of the tunnel.
    pub kind: Kind,
    /// Ethernet, up to two tags, IPv4 or IPv6 (perhaps with options), what carries the kind, the kind's own header.
    pub bytes: Vec<u8>,
    /// First and last of the source ports.
    pub source_ports: (u16, u16),
    /// What comes from an inner IP header.
    pub inherit: Inherit,
    /// Where the flow label comes from.
    pub label: FlowLabel,
}

impl Headers {
    /// Headers of which nothing comes from the inner packet.
    pub fn new(kind: Kind, bytes: Vec<u8>) -> Headers {
        Headers { kind, bytes, source_ports: SOURCE_PORTS, inherit: Inherit::NONE, label: FlowLabel::Fixed }
    }

    /// By how many bytes the outer IP packet is longer than the inner packet.
    pub fn overhead(&self) -> usize {
        self.bytes.len() - find_ip(&self.bytes, None).map_or(0, |(at, _)| at)
    }
}

/// True if UDP carries the kind; else IP does.
fn is_over_udp(kind: Kind) -> bool {
    match kind {
        Kind::Vxlan | Kind::Geneve => true,
        Kind::Gre | Kind::Ip6Gre => false,
        kind => unreachable!("the oracle knows no tunnels of {kind:?}"),
    }
}

/// Where the IP header of `bytes` is, behind a link layer with up to two tags, and its EtherType.
fn find_ip(bytes: &[u8], layer3: Option<u16>) -> Option<(usize, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut at = if layer3.is_some() { 0 } else { 14 };
    let mut kind = layer3.or_else(|| word(12))?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            (kind, at) = (word(at + 2)?, at + 4);
        }
    }
    matches!(kind, 0x0800 | 0x86dd).then_some((at, kind))
}

/// What a UDP checksum is computed over: RFC 768, RFC 8200 §8.1.
fn pseudo(is_v6: bool, addresses: &[u8], segment: &[u8]) -> Vec<u8> {
    let mut all = addresses.to_vec();
    if is_v6 {
        all.extend((segment.len() as u32).to_be_bytes());
        all.extend([0, 0, 0, 17]);
    } else {
        all.extend([0, 17]);
        all.extend((segment.len() as u16).to_be_bytes());
    }
    all.extend(segment);
    all
}

/// Bits of GRE's first word (RFC 2784 §2.1, RFC 2890 §2): a checksum and a reserved field, a key, a sequence number follow, in this
/// order.
mod gre {
    pub const CHECKSUM: u16 = 0x8000;
    pub const KEY: u16 = 0x2000;
    pub const SEQUENCE: u16 = 0x1000;
}
