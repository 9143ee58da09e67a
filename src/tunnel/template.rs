//! [`Template`]: ready-made outer headers.

use super::contract::{Carrier, Kind};
use super::ecn;
use super::sequence::Moment;
use crate::packet::buffer::{NONE, PACKET_LEN_MAX};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::checksum::{Sum, pseudo_v4, pseudo_v6, udp_sent};
use crate::wire::{ethernet, ip, ipv4, ipv6, udp, vlan};
use zerocopy::FromBytes;

/// Bytes of outer headers at most.
const HEADER_MAX: usize = crate::flow::action::TUNNEL_HEADER_MAX;

/// UDP source ports of tunnels, unless configured otherwise: Open vSwitch's and Linux's ephemeral range.
pub const SOURCE_PORTS: (u16, u16) = (32_768, 60_999);

/// Which fields of the outer IP header come from the inner packet's. Inner packets that are not IP get the template's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inherit {
    /// The differentiated services code point.
    pub dscp: bool,
    /// The congestion mark (RFC 6040 §4.1).
    pub ecn: bool,
    /// TTL or hop limit.
    pub ttl: bool,
    /// "Don't fragment", from IPv4 to IPv4; an inner IPv6 packet sets it.
    pub df: bool,
}

impl Inherit {
    /// Nothing.
    pub const NONE: Inherit = Inherit { dscp: false, ecn: false, ttl: false, df: false };
}

/// Where the flow label of an outer IPv6 header comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowLabel {
    /// The template.
    #[default]
    Fixed,
    /// The inner packet; 0 if that is not IPv6.
    Inner,
    /// The hash of the inner packet's flow (RFC 6438), so that routers spread the flows of a tunnel over their paths.
    Hash,
}

/// Outer headers, ready but for what differs from packet to packet.
///
/// *Thread-safety.* Shared by all workers.
#[derive(Debug)]
pub struct Template {
    kind: Kind,
    header: Box<[u8]>,
    l3: u16,
    l4: u16,
    is_v6: bool,
    /// The IPv4 header without length and checksum.
    ip_sum: Sum,
    /// The pseudo-header without length, if there is a UDP checksum.
    udp_sum: Option<Sum>,
    /// First source port, and how many there are.
    source_ports: (u16, u32),
    inherit: Inherit,
    /// Where four bytes hold the identifier.
    id_at: Option<u16>,
    label: FlowLabel,
    /// Of headers of the usual kind: untagged IPv4 and UDP without a checksum, at most 64 bytes, and nothing else is to be filled in.
    stamp: Option<Stamp>,
}

/// Why headers were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There are more than [`TUNNEL_HEADER_MAX`](crate::flow::action::TUNNEL_HEADER_MAX) bytes.
    #[error("outer headers take at most {HEADER_MAX} bytes")]
    TooLong,
    /// They are not an Ethernet, an IP, and the kind's own headers.
    #[error("the outer headers lack {0}")]
    Lacks(&'static str),
}

impl Template {
    /// A template of `header`: Ethernet, up to two VLAN tags, IPv4 or IPv6 (where hop-by-hop and destination options may follow), what
    /// carries the kind, and the kind's own header, in which lengths and checksums do not matter. A UDP checksum that is not 0 is computed
    /// for each packet, and so is what the flags of the kind's own header announce: GRE's checksum, sequence numbers.
    ///
    /// In headers of SRv6 the flow label says where the packets' labels come from, as in Open vSwitch: 0 from the inner packet, 1 that they
    /// are 0, 2 from the flow's hash.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn new(kind: Kind, header: &[u8]) -> Result<Template, TemplateError> {
        if header.len() > HEADER_MAX {
            return Err(TemplateError::TooLong);
        }
        let (l3, ethertype) = ecn::find_ip(header, None).ok_or(TemplateError::Lacks("an IP header"))?;
        let mut header: Box<[u8]> = header.into();
        let carrier = kind.carrier();
        let is_v6 = ethertype == ethernet::IPV6;
        let mut label = FlowLabel::Fixed;
        let bytes = &mut header[l3..];
        let (l4, ip_sum, pseudo) = if is_v6 {
            let (ip, rest) =
                ipv6::Header::mut_from_prefix(bytes).map_err(|_| TemplateError::Lacks("an IPv6 header"))?;
            ip.payload_len.set(0);
            let first = ip.version_class_label.get();
            if first >> 28 != 6 {
                return Err(TemplateError::Lacks("the version 6 of their IPv6 header"));
            }
            if kind == Kind::Srv6 {
                label = match first & ipv6::LABEL_MASK {
                    0 => FlowLabel::Inner,
                    2 => FlowLabel::Hash,
                    _ => FlowLabel::Fixed,
                };
                ip.version_class_label.set(first & !ipv6::LABEL_MASK);
            }
            match carrier.proto() {
                Some(proto) => {
                    let len = len_of_options(rest, ip.next_header, proto)
                        .ok_or(TemplateError::Lacks("the protocol of the tunnel in the IP header"))?;
                    (l3 + ipv6::HEADER_LEN + len, Sum::default(), pseudo_v6(&ip.src, &ip.dst, proto, 0))
                }
                None => (header.len(), Sum::default(), Sum::default()),
            }
        } else {
            let (ip, _) = ipv4::Header::mut_from_prefix(bytes).map_err(|_| TemplateError::Lacks("an IPv4 header"))?;
            if ip.version_ihl != 0x45 {
                return Err(TemplateError::Lacks("an IPv4 header without options"));
            }
            if Some(ip.proto) != carrier.proto() {
                return Err(TemplateError::Lacks("the protocol of the tunnel in the IP header"));
            }
            ip.total_len.set(0);
            ip.checksum.set(0);
            let pseudo = pseudo_v4(ip.src, ip.dst, ip.proto, 0);
            (l3 + ipv4::HEADER_LEN, Sum::default().bytes(&bytes[..ipv4::HEADER_LEN]).folded(), pseudo)
        };
        let mut udp_sum = None;
        let own = match carrier {
            Carrier::Udp => {
                let (udp, rest) = udp::Header::mut_from_prefix(&mut header[l4..])
                    .map_err(|_| TemplateError::Lacks("a UDP header"))?;
                if udp.checksum.get() != 0 {
                    udp_sum = Some(pseudo);
                }
                udp.len.set(0);
                udp.checksum.set(0);
                rest
            }
            Carrier::Ip(_) => &mut header[l4..],
            Carrier::Ipv6 => &mut header[l3..],
        };
        kind.check(own).map_err(TemplateError::Lacks)?;
        let (id_at, own_len) = (kind.id_at(own), own.len());
        let id_at = id_at.map(|at| (header.len() - own_len + at) as u16);
        let (first, last) = SOURCE_PORTS;
        let at = (l3, l4, is_v6, header.len() <= USUAL_MAX, matches!(kind, Kind::Vxlan | Kind::Geneve));
        let is_usual = at == (USUAL_L3, USUAL_L4, false, true, true) && udp_sum.is_none();
        let (len, source_ports) = (header.len(), (first, u32::from(last - first) + 1));
        let stamp = match (header.first_chunk(), header.last_chunk()) {
            (Some(&first), Some(&last)) if is_usual => Some(Stamp { first, last, len, sum: ip_sum, source_ports }),
            _ => None,
        };
        Ok(Template {
            kind,
            header,
            l3: l3 as u16,
            l4: l4 as u16,
            is_v6,
            ip_sum,
            udp_sum,
            source_ports,
            inherit: Inherit::NONE,
            id_at,
            label,
            stamp,
        })
    }

    /// The same with other source ports, from `first` to `last`, both included.
    #[must_use]
    pub fn with_source_ports(mut self, first: u16, last: u16) -> Template {
        self.source_ports = (first.min(last), u32::from(first.abs_diff(last)) + 1);
        self.stamp = self.stamp.map(|stamp| Stamp { source_ports: self.source_ports, ..stamp });
        self
    }

    /// The same with fields that come from the inner packet.
    #[must_use]
    pub fn with_inherit(mut self, inherit: Inherit) -> Template {
        self.inherit = inherit;
        self.stamp = self.stamp.filter(|_| inherit == Inherit::NONE);
        self
    }

    /// The same with flow labels from elsewhere. IPv4 has none.
    #[must_use]
    pub fn with_flow_label(mut self, label: FlowLabel) -> Template {
        self.label = label;
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many bytes the headers take.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.header.len()
    }

    /// By how many bytes the outer IP packet is longer than the inner packet.
    #[inline(always)]
    pub fn overhead(&self) -> usize {
        self.header.len() - self.l3 as usize
    }

    /// Never: there are outer headers.
    pub fn is_empty(&self) -> bool {
        self.header.is_empty()
    }

    /// Puts the headers in front of `packet`, whose own offsets are known. `entropy` is a hash of its flow: it chooses the source port,
    /// or the flow label. `id` takes the place of the template's identifier, see [`Kind::id_bytes`]; a header without one stays without.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`] without [`Template::len`] bytes of it, [`DropReason::TxTooLong`] for a packet that would be longer than
    /// an IP packet can be; nothing is changed then.
    #[inline(always)]
    pub fn push(
        &self,
        packet: &mut Packet,
        entropy: u32,
        id: Option<[u8; 4]>,
        moment: Moment<'_>,
    ) -> Result<(), DropReason> {
        match self.stamp(id) {
            Some(stamp) if stamp.push(packet, entropy) => Ok(()),
            _ => self.push_any(packet, entropy, id, moment),
        }
    }

    /// As [`push`](Self::push), of headers of all kinds.
    pub(super) fn push_any(
        &self,
        packet: &mut Packet,
        entropy: u32,
        id: Option<[u8; 4]>,
        moment: Moment<'_>,
    ) -> Result<(), DropReason> {
        let (len, l3) = (self.header.len(), self.l3 as usize);
        let total = packet.len() + len - l3;
        if total > PACKET_LEN_MAX - l3 {
            return Err(DropReason::TxTooLong);
        }
        let port = source_port(self.source_ports, entropy);
        let inherits = self.inherit != Inherit::NONE || self.label == FlowLabel::Inner;
        let inherited = if inherits { self.inherited(packet) } else { None };
        if !packet.push_front(len) {
            return Err(DropReason::NoHeadroom);
        }
        let (header, inner) = packet.data_mut().split_at_mut(len);
        header.copy_from_slice(&self.header);
        if let Some(id) = id {
            self.place(header, id);
        }
        self.fill(header, inner, total, port, entropy, inherited, moment);
        packet.l2_5 = NONE;
        packet.l3 = self.l3;
        packet.l4 = self.l4;
        packet.flags.remove(PacketFlags::LAYER3);
        packet.flags.remove(PacketFlags::CHECKSUM_GOOD);
        Ok(())
    }

    /// What a burst's packets get, if the headers are of the usual kind.
    #[inline(always)]
    pub fn stamp(&self, id: Option<[u8; 4]>) -> Option<Stamp> {
        let mut stamp = self.stamp?;
        if let (Some(id), Some(at)) = (id, self.id_at) {
            // It stands behind the UDP header, so among the last bytes.
            let at = usize::from(at) + stamp.last.len() - stamp.len;
            *stamp.last.get_mut(at..)?.first_chunk_mut()? = id;
        }
        Some(stamp)
    }

    #[inline(always)]
    fn place(&self, header: &mut [u8], id: [u8; 4]) {
        let at = self.id_at.map_or(usize::MAX, usize::from);
        if let Some(place) = header.get_mut(at..).and_then(|header| header.first_chunk_mut()) {
            *place = id;
        }
    }

    /// Fills in what differs from packet to packet.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all are what differs")]
    fn fill(
        &self,
        header: &mut [u8],
        inner: &[u8],
        total: usize,
        port: u16,
        entropy: u32,
        inherited: Option<Inherited>,
        moment: Moment<'_>,
    ) {
        let (front, segment) = header.split_at_mut(self.l4 as usize);
        let ip = &mut front[self.l3 as usize..];
        if self.is_v6 {
            self.fill_v6(ip, total, entropy, inherited);
        } else {
            self.fill_v4(ip, total, inherited);
        }
        match self.kind.carrier() {
            Carrier::Udp => {
                let Some((udp, own)) = segment.split_first_chunk_mut::<{ udp::HEADER_LEN }>() else { return };
                self.kind.fill(own, inner, moment);
                let len = (total - (self.l4 - self.l3) as usize) as u16;
                udp[..2].copy_from_slice(&port.to_be_bytes());
                udp[4..6].copy_from_slice(&len.to_be_bytes());
                if let Some(pseudo) = self.udp_sum {
                    let sum = pseudo.word(len).both(segment, inner);
                    segment[udp::CHECKSUM_AT..udp::HEADER_LEN].copy_from_slice(&udp_sent(sum.finish()).to_be_bytes());
                }
            }
            Carrier::Ip(_) => self.kind.fill(segment, inner, moment),
            Carrier::Ipv6 => {}
        }
    }

    fn fill_v6(&self, ip: &mut [u8], total: usize, entropy: u32, inherited: Option<Inherited>) {
        let Ok((header, _)) = ipv6::Header::mut_from_prefix(ip) else { return };
        header.payload_len.set((total - ipv6::HEADER_LEN) as u16);
        let mut word = header.version_class_label.get();
        let label = match self.label {
            FlowLabel::Fixed => word,
            FlowLabel::Inner => inherited.map_or(0, |inherited| inherited.label),
            FlowLabel::Hash => entropy,
        };
        word = word & !ipv6::LABEL_MASK | label & ipv6::LABEL_MASK;
        if let Some(inherited) = inherited {
            let class = inherited.tos(self.inherit, (word >> 20) as u8);
            word = word & !(0xff << 20) | u32::from(class) << 20;
            if self.inherit.ttl {
                header.hop_limit = inherited.ttl;
            }
        }
        header.version_class_label.set(word);
    }

    fn fill_v4(&self, ip: &mut [u8], total: usize, inherited: Option<Inherited>) {
        let Ok((header, _)) = ipv4::Header::mut_from_prefix(ip) else { return };
        header.total_len.set(total as u16);
        header.checksum.set(self.ip_sum.finish_with(total as u16));
        let Some(inherited) = inherited else { return };
        header.tos = inherited.tos(self.inherit, header.tos);
        if self.inherit.ttl {
            header.ttl = inherited.ttl;
        }
        if self.inherit.df {
            let flags = header.fragment.get() & !ipv4::FLAG_DF;
            header.fragment.set(flags | if inherited.df { ipv4::FLAG_DF } else { 0 });
        }
        header.checksum.set(0);
        let sum = crate::wire::checksum::of(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// What the inner packet has to say for the outer header; `None` if it is not IP.
    #[inline(never)]
    fn inherited(&self, packet: &Packet) -> Option<Inherited> {
        if packet.l2_5 != NONE || packet.l3 == NONE {
            return None;
        }
        let l3 = packet.l3 as usize;
        let bytes = packet.data();
        let ethertype = match packet.flags.contains(PacketFlags::LAYER3) && l3 == 0 {
            true => packet.l3_type,
            false => u16::from_be_bytes(*bytes.get(l3.checked_sub(2)?..)?.first_chunk()?),
        };
        let tos = |ethertype| ecn::tos_at(bytes, l3, ethertype);
        match ethertype {
            ethernet::IPV4 => {
                let (header, _) = ipv4::Header::ref_from_prefix(&bytes[l3..]).ok()?;
                let df = header.fragment.get() & ipv4::FLAG_DF != 0;
                Some(Inherited { tos: tos(ethertype)?, ttl: header.ttl, df, label: 0 })
            }
            ethernet::IPV6 => {
                let (header, _) = ipv6::Header::ref_from_prefix(&bytes[l3..]).ok()?;
                let label = header.version_class_label.get() & ipv6::LABEL_MASK;
                Some(Inherited { tos: tos(ethertype)?, ttl: header.hop_limit, df: true, label })
            }
            _ => None,
        }
    }
}

/// The longest usual header.
const USUAL_MAX: usize = 64;
const USUAL_L3: usize = ethernet::HEADER_LEN;
const USUAL_L4: usize = USUAL_L3 + ipv4::HEADER_LEN;

/// Headers of the usual kind for the packets of one burst. A copy of its own, so that it stays in registers from packet to packet.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The header's first bytes, and its last: a usual header is copied in two moves that may overlap.
    first: [u8; USUAL_MAX / 2],
    last: [u8; USUAL_MAX / 2],
    len: usize,
    sum: Sum,
    source_ports: (u16, u32),
}

impl Stamp {
    /// As [`Template::push`]. False, and nothing is changed, without the headroom, or for a packet that would be too long.
    #[inline(always)]
    pub fn push(&self, packet: &mut Packet, entropy: u32) -> bool {
        let total = (packet.len() + self.len - USUAL_L3) as u16;
        match packet.push_front_bytes(self.len) {
            Some(header) if header.len() >= USUAL_L4 + udp::HEADER_LEN => {
                header[..USUAL_MAX / 2].copy_from_slice(&self.first);
                let last = header.len() - USUAL_MAX / 2;
                header[last..].copy_from_slice(&self.last);
                header[16..18].copy_from_slice(&total.to_be_bytes());
                header[24..26].copy_from_slice(&self.sum.finish_with(total).to_be_bytes());
                header[34..36].copy_from_slice(&source_port(self.source_ports, entropy).to_be_bytes());
                header[38..40].copy_from_slice(&(total - ipv4::HEADER_LEN as u16).to_be_bytes());
            }
            _ => return false,
        }
        (packet.l2_5, packet.l3, packet.l4) = (NONE, USUAL_L3 as u16, USUAL_L4 as u16);
        packet.flags.remove(PacketFlags::LAYER3);
        packet.flags.remove(PacketFlags::CHECKSUM_GOOD);
        true
    }
}

/// The source port that stands for a flow with hash `entropy`, of a first port and how many there are.
#[inline(always)]
const fn source_port((first, ports): (u16, u32), entropy: u32) -> u16 {
    first + ((entropy as u64 * ports as u64) >> 32) as u16
}

/// Of an inner IP header.
#[derive(Clone, Copy, Debug)]
struct Inherited {
    tos: u8,
    ttl: u8,
    df: bool,
    label: u32,
}

impl Inherited {
    fn tos(self, inherit: Inherit, fixed: u8) -> u8 {
        let dscp = if inherit.dscp { self.tos } else { fixed } & ip::DSCP_MASK;
        let mark = if inherit.ecn { ecn::outer(self.tos) } else { fixed & ecn::MASK };
        dscp | mark
    }
}

/// Length of the hop-by-hop and destination options at the start of `bytes`, the first of which is a header of type `next`, in front of
/// `proto`; `None` if that does not follow. Headers that would have to be computed for each packet, or that change its destination, are
/// none of these.
fn len_of_options(bytes: &[u8], mut next: u8, proto: u8) -> Option<usize> {
    let mut at = 0;
    while next == ip::HOP_BY_HOP || next == ip::DESTINATION_OPTIONS {
        let [following, units] = *bytes.get(at..)?.first_chunk()?;
        at += (usize::from(units) + 1) * 8;
        next = following;
    }
    (next == proto && at <= bytes.len()).then_some(at)
}

/// VLAN tags that headers may have.
const _: () = assert!(HEADER_MAX > ethernet::HEADER_LEN + 2 * vlan::TAG_LEN + ipv6::HEADER_LEN);
