//! Path MTUs: how long a packet routers on the way to other ends of tunnels let through (RFC 1191, RFC 8201).
//!
//! A router that has to drop a packet of ours for its length says so by ICMP, and quotes the packet's beginning. Whoever can send to us can claim
//! that. So a message is believed only if what it quotes is a packet that we send: from our address, to another end, with the protocol and
//! ports of its tunnel; if it says what can be; and never below what every way carries. What it says is forgotten after ten minutes, so that
//! a way which has become wider is found out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ahash::AHashMap;
use zerocopy::FromBytes;

use super::messages::{FRAGMENTATION_NEEDED, PACKET_TOO_BIG, icmpv6_of};
use crate::time::Nanos;
use crate::tunnel::template::SOURCE_PORTS;
use crate::wire::{checksum, ethernet, icmp, ip, ipv4, ipv6};

/// Ways that are known to be narrower than their interface's link, at most. The one that would be forgotten first gives way.
pub const PATHS_MAX: usize = 4096;
/// How long that is believed, in ns (RFC 1191 §6.3, RFC 8201 §4: ten minutes are recommended).
const BELIEVED_NS: u64 = 600_000_000_000;
/// How long a way is not believed to be narrower by less than [`STEP`] bytes, in ns.
const FRESH_NS: u64 = 1_000_000_000;
/// The shortest header that a tunnel on the way may add, roughly.
const STEP: u32 = 8;
/// What is not believed of IPv4: every host takes as much (RFC 791 §3.1), and a router that says less costs more than it gains.
const FLOOR_V4: u32 = 576;
/// The shortest MTU of IPv6; less must not be believed (RFC 8201 §4).
const FLOOR_V6: u32 = 1280;
/// MTUs that links have, for routers that do not say theirs (RFC 1191 §7.1).
const PLATEAUS: [u32; 8] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006];

/// What a router said of a packet that was too long for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// Whose packet it was.
    pub source: IpAddr,
    /// Where it was to go.
    pub remote: IpAddr,
    /// Its protocol, and the UDP port that it was for, or 0.
    pub carrier: (u8, u16),
    /// How long it was, as an IP packet.
    pub len: u32,
    /// What gets through.
    pub mtu: u32,
}

/// The ICMP error about a packet's length that the IP packet `bytes` are, to one of our addresses: its quotation and the MTU that it tells.
fn error_of(bytes: &[u8]) -> Option<(IpAddr, &[u8], u32)> {
    match bytes.first()? >> 4 {
        4 => {
            let (header, _) = ipv4::Header::ref_from_prefix(bytes).ok()?;
            let packet = bytes.get(..header.total_len.get().into())?;
            let message = packet.get(header.header_len()..)?;
            let (error, quoted) = icmp::Header::ref_from_prefix(message).ok()?;
            let is_error = header.proto == ip::ICMP
                && header.header_len() >= ipv4::HEADER_LEN
                && !header.is_fragment()
                && (error.kind, error.code) == (icmp::DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED)
                && checksum::of(message) == 0;
            // RFC 1191 §4: the lower half of a word that was unused before.
            is_error.then(|| (Ipv4Addr::from(header.dst).into(), quoted, error.rest.get() & 0xffff))
        }
        6 => {
            let (header, message) = icmpv6_of(bytes)?;
            // RFC 4443 §3.2: the receiver does not look at the code.
            let (head, quoted) = message.split_first_chunk::<8>()?;
            let [PACKET_TOO_BIG, _, _, _, mtu @ ..] = *head else { return None };
            Some((Ipv6Addr::from(header.dst).into(), quoted, u32::from_be_bytes(mtu)))
        }
        _ => None,
    }
}

/// Reads an ICMP error about the length of a packet: `bytes` begin with the IP header. `None` if they are none; `Some(None)` if it cannot be
/// about a tunnel's packet of the host that it is for, or says what cannot be.
pub fn read(bytes: &[u8]) -> Option<Option<TooBig>> {
    let (to, quoted, mtu) = error_of(bytes)?;
    Some(about(quoted, mtu).filter(|error| error.source == to))
}

fn about(quoted: &[u8], mtu: u32) -> Option<TooBig> {
    let (source, remote, len, proto, at): (IpAddr, IpAddr, u32, u8, usize) = match quoted.first()? >> 4 {
        4 => {
            let (header, _) = ipv4::Header::ref_from_prefix(quoted).ok()?;
            // A router splits what may be split; and of a later fragment nothing is known.
            if header.fragment.get() & ipv4::FLAG_DF == 0 || header.is_later_fragment() || header.version_ihl != 0x45 {
                return None;
            }
            let (src, dst) = (Ipv4Addr::from(header.src), Ipv4Addr::from(header.dst));
            (src.into(), dst.into(), header.total_len.get().into(), header.proto, ipv4::HEADER_LEN)
        }
        6 => {
            let (header, _) = ipv6::Header::ref_from_prefix(quoted).ok()?;
            let upper = ipv6::walk(quoted).filter(|upper| !upper.is_later_fragment)?;
            let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
            let len = u32::from(header.payload_len.get()) + ipv6::HEADER_LEN as u32;
            (src.into(), dst.into(), len, upper.proto, upper.at)
        }
        _ => return None,
    };
    // RFC 792: of what is behind the header at least eight bytes are there.
    let begin: &[u8; 8] = quoted.get(at..)?.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([begin[at], begin[at + 1]]);
    let carrier = match proto {
        ip::UDP if (SOURCE_PORTS.0..=SOURCE_PORTS.1).contains(&word(0)) => (ip::UDP, word(2)),
        ip::GRE if word(2) == ethernet::TEB => (ip::GRE, 0),
        _ => return None,
    };
    let mtu = match (remote, mtu) {
        // A router from before RFC 1191.
        (IpAddr::V4(_), 0) => *PLATEAUS.iter().find(|plateau| **plateau < len).unwrap_or(&FLOOR_V4),
        _ if mtu >= len => return None,
        (IpAddr::V4(_), mtu) => mtu.max(FLOOR_V4),
        (IpAddr::V6(_), mtu) if mtu < FLOOR_V6 => return None,
        (IpAddr::V6(_), mtu) => mtu,
    };
    Some(TooBig { source, remote, carrier, len, mtu })
}

/// A way that is narrower than its interface's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The other end.
    pub remote: IpAddr,
    /// The longest IP packet that gets there.
    pub mtu: u32,
    /// When that will be forgotten.
    pub until: Nanos,
}

/// The narrow ways.
#[derive(Debug, Default)]
pub(super) struct Paths {
    entries: AHashMap<IpAddr, (u32, Nanos)>,
    /// By when they are forgotten.
    due: BTreeSet<(Nanos, IpAddr)>,
}

impl Paths {
    /// False if the way to `remote` was told to be narrower a moment ago, and now only by a few bytes more: routers differ by a header at the
    /// least, and a forger could have the tunnels' ways published anew with each byte.
    pub fn takes(&self, remote: IpAddr, mtu: u32, now: Nanos) -> bool {
        let fresh = self.entries.get(&remote).filter(|(_, until)| now + BELIEVED_NS < *until + FRESH_NS);
        fresh.is_none_or(|(known, _)| mtu + STEP <= *known)
    }

    /// What gets through to `remote`, as far as is known.
    pub fn mtu(&self, remote: IpAddr) -> u32 {
        self.entries.get(&remote).map_or(u32::MAX, |(mtu, _)| *mtu)
    }

    /// The way to `remote` has become narrower. Returns who is forgotten for it, with `max` ways known.
    pub fn set(&mut self, remote: IpAddr, mtu: u32, now: Nanos, max: usize) -> Option<IpAddr> {
        let until = now + BELIEVED_NS;
        if let Some((_, old)) = self.entries.insert(remote, (mtu, until)) {
            self.due.remove(&(old, remote));
        }
        self.due.insert((until, remote));
        if self.entries.len() <= max.max(1) {
            return None;
        }
        self.forget_first()
    }

    /// A way whose time is over by `now`, and which is forgotten.
    pub fn expire(&mut self, now: Nanos) -> Option<IpAddr> {
        if self.due.first()?.0 > now {
            return None;
        }
        self.forget_first()
    }

    fn forget_first(&mut self) -> Option<IpAddr> {
        let (_, remote) = self.due.pop_first()?;
        self.entries.remove(&remote);
        Some(remote)
    }

    /// All, in order of their ends.
    pub fn list(&self) -> Vec<PathInfo> {
        let info =
            |(remote, (mtu, until)): (&IpAddr, &(u32, Nanos))| PathInfo { remote: *remote, mtu: *mtu, until: *until };
        let mut all: Vec<PathInfo> = self.entries.iter().map(info).collect();
        all.sort_unstable_by_key(|info| info.remote);
        all
    }
}

#[cfg(test)]
mod tests;
