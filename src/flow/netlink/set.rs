//! The payload of `OVS_ACTION_ATTR_SET` and `OVS_ACTION_ATTR_SET_MASKED` ⇄ [`SetField`].
//!
//! Both hold one `OVS_KEY_ATTR_*`; in the masked form its payload is the value and behind it a mask of the same size. What
//! is set wholly is written in the plain form, as Open vSwitch does. Protocol and fragment type of an IP header, and the
//! type of an NSH header, cannot be set: the plain form passes over them, the masked one must not have their bits.

use zerocopy::FromZeros;

use super::super::action::{Masked, SetField};
use super::super::attr::{action as a, key as k, nsh as n};
use super::super::key::TunnelLine;
use super::tunnel;
use super::wire::{ACTION, CodecError, Fault, KEY, NSH, Set, nested, part, put, walk};

const LABEL_MASK: u32 = 0xf_ffff;

/// A value and its mask, or a value that is set wholly.
struct Pair<'a> {
    value: &'a [u8],
    mask: Option<&'a [u8]>,
}

impl Pair<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Masked<[u8; N]> {
        let mask: [u8; N] = self.mask.map_or([0xff; N], |mask| part(mask, at));
        let value: [u8; N] = part(self.value, at);
        Masked { value: std::array::from_fn(|i| value[i] & mask[i]), mask }
    }

    fn u8(&self, at: usize) -> Masked<u8> {
        let Masked { value: [value], mask: [mask] } = self.bytes(at);
        Masked { value, mask }
    }

    fn u16(&self, at: usize) -> Masked<u16> {
        let m = self.bytes(at);
        Masked { value: u16::from_be_bytes(m.value), mask: u16::from_be_bytes(m.mask) }
    }

    fn u32(&self, at: usize) -> Masked<u32> {
        let m = self.bytes(at);
        Masked { value: u32::from_be_bytes(m.value), mask: u32::from_be_bytes(m.mask) }
    }

    fn native(&self) -> Masked<u32> {
        let m = self.bytes(0);
        Masked { value: u32::from_ne_bytes(m.value), mask: u32::from_ne_bytes(m.mask) }
    }

    /// Refuses bits of `range` in an explicit mask.
    fn fixed(&self, number: u16, range: std::ops::Range<usize>, why: &'static str) -> Result<(), CodecError> {
        match self.mask {
            Some(mask) if mask[range].iter().any(|&b| b != 0) => Err(KEY.error(number, Fault::Unsupported(why))),
            _ => Ok(()),
        }
    }
}

/// Reads what is inside of SET or (`masked`) SET_MASKED.
pub(super) fn decode(bytes: &[u8], masked: bool) -> Result<SetField, CodecError> {
    let mut attributes = walk(bytes, KEY);
    let (number, payload) = attributes
        .next()
        .unwrap_or_else(|| Err(ACTION.error(set_number(masked), Fault::Unexpected("it sets nothing"))))?;
    if let Some(second) = attributes.next() {
        return Err(KEY.error(second?.0, Fault::Unexpected("a set action has one field")));
    }
    match number {
        k::TUNNEL if masked => Err(KEY.error(number, Fault::Unsupported(" with a mask in a set action"))),
        k::TUNNEL => {
            let mut line = TunnelLine::new_zeroed();
            let mut options = [0; 256];
            tunnel::decode_key(payload, true, &mut line, &mut options)?;
            let options = tunnel::geneve(&line, &options).to_vec();
            Ok(SetField::Tunnel(Box::new((line, options))))
        }
        k::NSH => decode_nsh(payload, masked),
        _ if masked => {
            let half = payload.len() / 2;
            check_len(number, half, payload.len() != 2 * half)?;
            decode_flat(number, &Pair { value: &payload[..half], mask: Some(&payload[half..]) })
        }
        _ => {
            check_len(number, payload.len(), false)?;
            decode_flat(number, &Pair { value: payload, mask: None })
        }
    }
}

/// Reads a field whose value and mask are apart, as text has them; a mask of all ones is the plain form.
pub(crate) fn decode_apart(number: u16, value: &[u8], mask: &[u8]) -> Result<SetField, CodecError> {
    let mut list = Vec::new();
    match number {
        k::TUNNEL => put(&mut list, number, value),
        k::NSH => {
            // The two walks give the same attributes: text writes them together.
            nested(&mut list, number, |list| {
                for (value, mask) in walk(value, NSH).zip(walk(mask, NSH)) {
                    if let (Ok((inner, value)), Ok((_, mask))) = (value, mask) {
                        put(list, inner, &[value, mask].concat());
                    }
                }
            });
        }
        _ => put(&mut list, number, &[value, mask].concat()),
    }
    decode(&list, number != k::TUNNEL)
}

fn set_number(masked: bool) -> u16 {
    if masked { a::SET_MASKED } else { a::SET }
}

/// The length of a field that can be set.
fn flat_len(number: u16) -> Option<usize> {
    Some(match number {
        k::PRIORITY | k::SKB_MARK | k::DP_HASH | k::RECIRC_ID | k::TCP | k::UDP | k::SCTP | k::MPLS => 4,
        k::ICMP | k::ICMPV6 => 2,
        k::ETHERNET | k::IPV4 => 12,
        k::IPV6 => 40,
        k::ARP => 24,
        k::ND => 28,
        k::ND_EXTENSIONS => 8,
        _ => return None,
    })
}

fn check_len(number: u16, got: usize, odd: bool) -> Result<(), CodecError> {
    match flat_len(number) {
        Some(want) if want != got || odd => Err(KEY.error(number, Fault::Length { got, want })),
        Some(_) => Ok(()),
        None => Err(KEY.error(number, Fault::Unsupported(" in a set action"))),
    }
}

fn decode_flat(number: u16, p: &Pair<'_>) -> Result<SetField, CodecError> {
    Ok(match number {
        k::PRIORITY => SetField::Priority(p.native()),
        k::SKB_MARK => SetField::SkbMark(p.native()),
        k::DP_HASH => SetField::DpHash(p.native()),
        k::RECIRC_ID => SetField::RecircId(p.native()),
        k::ETHERNET => {
            // On the wire of a packet the destination comes first, in the attribute the source.
            let (src, dst) = (p.bytes::<6>(0), p.bytes::<6>(6));
            let join = |a: [u8; 6], b: [u8; 6]| part(&[a, b].concat(), 0);
            SetField::Ethernet(Masked { value: join(dst.value, src.value), mask: join(dst.mask, src.mask) })
        }
        k::IPV4 => {
            p.fixed(number, 8..9, " as to the protocol in a set action")?;
            p.fixed(number, 11..12, " as to the fragment type in a set action")?;
            SetField::Ipv4 { src: p.bytes(0), dst: p.bytes(4), tos: p.u8(9), ttl: p.u8(10) }
        }
        k::IPV6 => {
            p.fixed(number, 36..37, " as to the protocol in a set action")?;
            p.fixed(number, 39..40, " as to the fragment type in a set action")?;
            let label = p.u32(32);
            let label = Masked { value: label.value & LABEL_MASK, mask: label.mask & LABEL_MASK };
            SetField::Ipv6 { src: p.bytes(0), dst: p.bytes(16), label, tclass: p.u8(37), hlimit: p.u8(38) }
        }
        k::TCP => SetField::Tcp { src: p.u16(0), dst: p.u16(2) },
        k::UDP => SetField::Udp { src: p.u16(0), dst: p.u16(2) },
        k::SCTP => SetField::Sctp { src: p.u16(0), dst: p.u16(2) },
        k::ICMP | k::ICMPV6 => SetField::Icmp { v6: number == k::ICMPV6, kind: p.u8(0), code: p.u8(1) },
        k::ARP => SetField::Arp { sip: p.bytes(0), tip: p.bytes(4), op: p.u16(8), sha: p.bytes(10), tha: p.bytes(16) },
        k::ND => SetField::Nd { target: p.bytes(0), sll: p.bytes(16), tll: p.bytes(22) },
        k::ND_EXTENSIONS => SetField::NdExtensions { reserved: p.u32(0), options_type: p.u8(4) },
        k::MPLS => SetField::Mpls(p.u32(0)),
        _ => return Err(KEY.error(number, Fault::Unsupported(" in a set action"))),
    })
}

fn decode_nsh(bytes: &[u8], masked: bool) -> Result<SetField, CodecError> {
    let mut set = Set::read(bytes, NSH)?;
    let base = set.take(n::BASE);
    let md1 = set.take(n::MD1);
    set.finish("metadata of type 2 cannot be set")?;
    let check = |number: u16, payload: &[u8], len: usize| {
        let want = if masked { 2 * len } else { len };
        match payload.len() == want {
            true => Ok(()),
            false => Err(NSH.error(number, Fault::Length { got: payload.len(), want })),
        }
    };
    let (mut flags, mut ttl, mut path_hdr, mut context) =
        (Masked::<u8>::none(), Masked::<u8>::none(), Masked::<u32>::none(), Masked::<[u8; 16]>::none());
    if let Some(payload) = base {
        check(n::BASE, payload, 8)?;
        let p = Pair { value: &payload[..8], mask: masked.then(|| &payload[8..]) };
        p.fixed(k::NSH, 2..4, " as to the metadata type and next protocol in a set action")?;
        (flags, ttl, path_hdr) = (p.u8(0), p.u8(1), p.u32(4));
    }
    if let Some(payload) = md1 {
        check(n::MD1, payload, 16)?;
        context = Pair { value: &payload[..16], mask: masked.then(|| &payload[16..]) }.bytes(0);
    }
    Ok(SetField::Nsh { flags, ttl, path_hdr, context })
}

/// Value and mask as the attribute has them.
#[derive(Default)]
pub(crate) struct Apart {
    pub(crate) number: u16,
    pub(crate) value: Vec<u8>,
    pub(crate) mask: Vec<u8>,
}

impl Apart {
    fn new(number: u16) -> Self {
        Apart { number, ..Apart::default() }
    }

    fn bytes<const N: usize>(mut self, field: Masked<[u8; N]>) -> Self {
        self.value.extend(field.value.iter().zip(field.mask).map(|(v, m)| v & m));
        self.mask.extend(field.mask);
        self
    }

    fn u8(self, f: Masked<u8>) -> Self {
        self.bytes(Masked { value: [f.value], mask: [f.mask] })
    }

    fn u16(self, f: Masked<u16>) -> Self {
        self.bytes(Masked { value: f.value.to_be_bytes(), mask: f.mask.to_be_bytes() })
    }

    fn u32(self, f: Masked<u32>) -> Self {
        self.bytes(Masked { value: f.value.to_be_bytes(), mask: f.mask.to_be_bytes() })
    }

    fn native(self, f: Masked<u32>) -> Self {
        self.bytes(Masked { value: f.value.to_ne_bytes(), mask: f.mask.to_ne_bytes() })
    }

    fn zeros<const N: usize>(self) -> Self {
        self.bytes(Masked::<[u8; N]>::none())
    }
}

/// Splits a field into value and mask. None for a tunnel and NSH, which are nested.
pub(crate) fn apart(field: &SetField) -> Option<Apart> {
    Some(match *field {
        SetField::Priority(v) => Apart::new(k::PRIORITY).native(v),
        SetField::SkbMark(v) => Apart::new(k::SKB_MARK).native(v),
        SetField::DpHash(v) => Apart::new(k::DP_HASH).native(v),
        SetField::RecircId(v) => Apart::new(k::RECIRC_ID).native(v),
        SetField::Ethernet(Masked { value, mask }) => {
            let half = |at| Masked { value: part::<6>(&value, at), mask: part(&mask, at) };
            Apart::new(k::ETHERNET).bytes(half(6)).bytes(half(0))
        }
        SetField::Ipv4 { src, dst, tos, ttl } => {
            Apart::new(k::IPV4).bytes(src).bytes(dst).zeros::<1>().u8(tos).u8(ttl).zeros::<1>()
        }
        SetField::Ipv6 { src, dst, label, tclass, hlimit } => {
            let label = Masked { value: label.value & LABEL_MASK, mask: label.mask & LABEL_MASK };
            let head = Apart::new(k::IPV6).bytes(src).bytes(dst).u32(label);
            head.zeros::<1>().u8(tclass).u8(hlimit).zeros::<1>()
        }
        SetField::Tcp { src, dst } => Apart::new(k::TCP).u16(src).u16(dst),
        SetField::Udp { src, dst } => Apart::new(k::UDP).u16(src).u16(dst),
        SetField::Sctp { src, dst } => Apart::new(k::SCTP).u16(src).u16(dst),
        SetField::Icmp { v6, kind, code } => Apart::new(if v6 { k::ICMPV6 } else { k::ICMP }).u8(kind).u8(code),
        SetField::Arp { sip, tip, op, sha, tha } => {
            Apart::new(k::ARP).bytes(sip).bytes(tip).u16(op).bytes(sha).bytes(tha).zeros::<2>()
        }
        SetField::Nd { target, sll, tll } => Apart::new(k::ND).bytes(target).bytes(sll).bytes(tll),
        SetField::NdExtensions { reserved, options_type } => {
            Apart::new(k::ND_EXTENSIONS).u32(reserved).u8(options_type).zeros::<3>()
        }
        SetField::Mpls(lse) => Apart::new(k::MPLS).u32(lse),
        SetField::Tunnel(_) | SetField::Nsh { .. } => return None,
    })
}

/// Appends what is inside of the action; true if it is the masked form.
pub(crate) fn encode(field: &SetField, out: &mut Vec<u8>) -> bool {
    match field {
        SetField::Tunnel(tunnel) => {
            let (line, geneve) = &**tunnel;
            let mut options = [0; 256];
            let len = geneve.len().min(tunnel::GENEVE_MAX);
            options[..len].copy_from_slice(&geneve[..len]);
            nested(out, k::TUNNEL, |out| tunnel::encode_key(line, &options, out));
            false
        }
        SetField::Nsh { flags, ttl, path_hdr, context } => {
            let base = Apart::new(n::BASE).u8(*flags).u8(*ttl).zeros::<2>().u32(*path_hdr);
            let md1 = Apart::new(n::MD1).bytes(*context);
            nested(out, k::NSH, |out| {
                put(out, n::BASE, &[base.value, base.mask].concat());
                if context.mask != [0; 16] {
                    put(out, n::MD1, &[md1.value, md1.mask].concat());
                }
            });
            true
        }
        flat => {
            let Apart { number, value, mask } = apart(flat).unwrap_or_default();
            let masked = mask.iter().any(|&bits| bits != 0xff);
            put(out, number, &if masked { [value, mask].concat() } else { value });
            masked
        }
    }
}
