//! Flow keys and masks ⇄ text.

use super::super::attr::{self, key as k};
use super::super::key::{FlowKey, FlowMask, VLAN_PRESENT};
use super::super::netlink::{
    AttrName, CodecError, KEY, decode_key_with, decode_mask, encode_key, encode_mask, put, walk,
};
use super::scan::{Scan, TextError, TextFault};
use super::table::{CT_STATE, FLAT, TCP_FLAGS, flat, hex, write_flags};
use super::tunnel::{nest_all, nsh_bytes, read_nsh_key, write_bytes, write_nsh};
use super::{Append as _, PortNames, tunnel};

/// Tags that may be in each other, and one level for what is behind them.
const ENCAP_MAX: usize = 3;
/// Payloads and nests beyond this do not fit into an attribute.
const PAYLOAD_MAX: usize = 0xfff0;

/// Attributes of a key and of its mask, as they are read, and where in the text each of the key's began.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) key: Vec<u8>,
    pub(super) mask: Vec<u8>,
    places: Vec<(u16, usize)>,
    start: usize,
}

impl Lists {
    pub(super) fn put(&mut self, scan: &Scan<'_>, number: u16, value: &[u8], mask: &[u8]) -> Result<(), TextError> {
        if value.len().max(mask.len()) > PAYLOAD_MAX {
            return Err(scan.error(TextFault::TooLong));
        }
        put(&mut self.key, number, value);
        put(&mut self.mask, number, mask);
        self.places.push((number, self.start));
        Ok(())
    }

    pub(super) fn nest(&mut self, scan: &Scan<'_>, number: u16, inner: Lists) -> Result<(), TextError> {
        if !nest_all(&mut self.key, number, &inner.key) || !nest_all(&mut self.mask, number, &inner.mask) {
            return Err(scan.error(TextFault::TooLong));
        }
        self.places.push((number, self.start));
        if number == k::ENCAP {
            self.places.extend(inner.places);
        }
        Ok(())
    }

    /// The error of a decoder, at the place of its attribute.
    fn locate(&self, scan: &Scan<'_>, error: CodecError) -> TextError {
        let number = match error.attr {
            AttrName::Known(name) if name.starts_with("OVS_TUNNEL_KEY") || name.starts_with("OVS_VXLAN") => {
                Some(k::TUNNEL)
            }
            AttrName::Known(name) if name.starts_with("OVS_NSH") => Some(k::NSH),
            AttrName::Known(name) => (0..32).find(|&number| attr::key::name(number) == Some(name)),
            AttrName::Unknown(..) => None,
        };
        let place = self.places.iter().rev().find(|(place, _)| Some(*place) == number);
        let at = place.or(self.places.first()).map_or(0, |(_, at)| *at);
        scan.error_at(at, TextFault::Codec(Box::new(error)))
    }
}

/// Reads attributes up to what is none.
pub(super) fn read(scan: &mut Scan<'_>) -> Result<(FlowKey, FlowMask), TextError> {
    let mut lists = Lists::default();
    loop {
        scan.skip_delimiters();
        if !read_attribute(scan, &mut lists, 0)? {
            break;
        }
    }
    if lists.places.is_empty() && lists.mask.is_empty() {
        return scan.expected("a field of the flow key, such as in_port(1)");
    }
    let key = decode_key_with(&lists.key, false).map_err(|error| lists.locate(scan, error))?;
    let mask = decode_mask(&lists.mask, &key).map_err(|error| lists.locate(scan, error))?;
    Ok((key, mask))
}

/// Reads an attribute, if one is here.
pub(super) fn read_attribute(scan: &mut Scan<'_>, lists: &mut Lists, depth: usize) -> Result<bool, TextError> {
    lists.start = scan.at();
    if let Some(flat) = FLAT.iter().find(|flat| scan.open(flat.name)) {
        let (value, mask) = flat.read(scan)?;
        lists.put(scan, flat.number, &value, &mask)?;
        return Ok(true);
    }
    for (name, number) in WORDS {
        if scan.open(name) {
            scan.set_field(name, "");
            let (value, mask) = scan.masked_number(u32::MAX.into())?;
            close(scan)?;
            lists.put(scan, number, &(value as u32).to_ne_bytes(), &(mask as u32).to_ne_bytes())?;
            return Ok(true);
        }
    }
    if scan.open("in_port") {
        scan.set_field("in_port", "");
        let port = scan.port()?;
        let mask = if scan.eat("/") { scan.number(u32::MAX.into())? as u32 } else { u32::MAX };
        close(scan)?;
        lists.put(scan, k::IN_PORT, &port.to_ne_bytes(), &mask.to_ne_bytes())?;
    } else if scan.open("ct_state") {
        scan.set_field("ct_state", "");
        let (value, mask) = scan.flags(&CT_STATE, attr::CT_STATE_MASK)?;
        close(scan)?;
        lists.put(scan, k::CT_STATE, &value.to_ne_bytes(), &mask.to_ne_bytes())?;
    } else if scan.open("ct_zone") {
        scan.set_field("ct_zone", "");
        let (value, mask) = scan.masked_number(0xffff)?;
        close(scan)?;
        lists.put(scan, k::CT_ZONE, &(value as u16).to_ne_bytes(), &(mask as u16).to_ne_bytes())?;
    } else if scan.open("ct_label") {
        scan.set_field("ct_label", "");
        let (mut value, mut mask) = ([0; 16], [0xff; 16]);
        scan.bytes(&mut value)?;
        if scan.eat("/") {
            scan.bytes(&mut mask)?;
        }
        close(scan)?;
        lists.put(scan, k::CT_LABELS, &native(value), &native(mask))?;
    } else if scan.open("tcp_flags") {
        scan.set_field("tcp_flags", "");
        let (value, mask) = scan.flags(&TCP_FLAGS, 0xfff)?;
        close(scan)?;
        lists.put(scan, k::TCP_FLAGS, &(value as u16).to_be_bytes(), &(mask as u16).to_be_bytes())?;
    } else if scan.open("eth_type") {
        scan.set_field("eth_type", "");
        let (value, mask) = scan.masked_number(0xffff)?;
        close(scan)?;
        let (value, mask) = ((value as u16).to_be_bytes(), (mask as u16).to_be_bytes());
        if value == [0; 2] {
            // "0/0xffff" is a frame without an EtherType, which has no such attribute in its key.
            put(&mut lists.mask, k::ETHERTYPE, &mask);
        } else {
            lists.put(scan, k::ETHERTYPE, &value, &mask)?;
        }
    } else if scan.open("vlan") {
        read_vlan(scan, lists)?;
    } else if scan.open("mpls") {
        read_mpls(scan, lists)?;
    } else if scan.open("tunnel") {
        tunnel::read(scan, lists)?;
    } else if scan.open("nsh") {
        read_nsh_key(scan, lists)?;
    } else if !scan.rest().starts_with("encap(tunnel=") && scan.open("encap") {
        // Not the action of this name, which may follow without `actions:` in front.
        read_encap(scan, lists, depth)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Attributes that are one number in native byte order.
const WORDS: [(&str, u16); 5] = [
    ("recirc_id", k::RECIRC_ID),
    ("dp_hash", k::DP_HASH),
    ("skb_priority", k::PRIORITY),
    ("skb_mark", k::SKB_MARK),
    ("ct_mark", k::CT_MARK),
];

fn close(scan: &mut Scan<'_>) -> Result<(), TextError> {
    scan.need(")")?;
    scan.set_field("", "");
    Ok(())
}

/// Text has the label as a number, the attribute as a number in native byte order.
fn native(bytes: [u8; 16]) -> [u8; 16] {
    u128::from_be_bytes(bytes).to_ne_bytes()
}

/// Bits in a word: name, how many, and how far up.
type Bits = (&'static str, u32, u32);

const VLAN: [Bits; 3] = [("vid", 12, 0), ("pcp", 3, 13), ("cfi", 1, 12)];
const MPLS: [Bits; 4] = [("label", 20, 12), ("tc", 3, 9), ("ttl", 8, 0), ("bos", 1, 8)];

/// Reads `name=value/mask` into words, if one is here; gives which it was.
fn read_bits(scan: &mut Scan<'_>, of: &'static str, bits: &[Bits]) -> Result<Option<(usize, u32, u32)>, TextError> {
    for (i, (name, width, shift)) in bits.iter().enumerate() {
        if scan.rest().strip_prefix(name).is_some_and(|behind| behind.starts_with('=')) {
            scan.set_field(of, name);
            scan.eat(name);
            scan.need("=")?;
            let (value, mask) = scan.masked_number((1 << width) - 1)?;
            return Ok(Some((i, (value as u32) << shift, (mask as u32) << shift)));
        }
    }
    scan.expected("a field of it, or )")
}

/// Passes over the comma behind a field. True at the closing parenthesis.
fn next_field(scan: &mut Scan<'_>, of: &'static str) -> Result<bool, TextError> {
    scan.set_field(of, "");
    if !scan.eat(",") && !scan.rest().starts_with(')') {
        return scan.expected(", or )");
    }
    let ends = scan.eat(")");
    if ends {
        scan.set_field("", "");
    }
    Ok(ends)
}

/// The fields of `vlan(` and `push_vlan(`; `other` may take one that is unknown.
pub(super) fn read_tci(
    scan: &mut Scan<'_>,
    of: &'static str,
    mut other: impl FnMut(&mut Scan<'_>) -> Result<bool, TextError>,
) -> Result<(u16, u16), TextError> {
    let (mut tci, mut mask) = (VLAN_PRESENT, VLAN_PRESENT);
    scan.set_field(of, "");
    let mut ends = scan.eat(")");
    while !ends {
        if !other(scan)?
            && let Some((which, value, bits)) = read_bits(scan, of, &VLAN)?
        {
            if which == 2 {
                tci &= !VLAN_PRESENT;
                mask &= !VLAN_PRESENT;
            }
            tci |= value as u16;
            mask |= bits as u16;
        }
        ends = next_field(scan, of)?;
    }
    Ok((tci, mask))
}

fn read_vlan(scan: &mut Scan<'_>, lists: &mut Lists) -> Result<(), TextError> {
    let (tci, mask) = read_tci(scan, "vlan", |_| Ok(false))?;
    lists.put(scan, k::VLAN, &tci.to_be_bytes(), &mask.to_be_bytes())
}

/// Label stack entries (value, mask) up to the closing parenthesis; a field that is there already begins the next one.
/// `other` may take a field that is unknown.
pub(super) fn read_labels(
    scan: &mut Scan<'_>,
    of: &'static str,
    mut other: impl FnMut(&mut Scan<'_>) -> Result<bool, TextError>,
) -> Result<Vec<(u32, u32)>, TextError> {
    let mut entries = vec![(0, 0)];
    let mut seen = 0u32;
    scan.set_field(of, "");
    let mut ends = scan.eat(")");
    while !ends {
        if !other(scan)?
            && let Some((which, value, bits)) = read_bits(scan, of, &MPLS)?
        {
            if seen & 1 << which != 0 {
                seen = 0;
                entries.push((0, 0));
            }
            seen |= 1 << which;
            if let Some(last) = entries.last_mut() {
                last.0 |= value;
                last.1 |= bits;
            }
        }
        ends = next_field(scan, of)?;
    }
    Ok(entries)
}

fn read_mpls(scan: &mut Scan<'_>, lists: &mut Lists) -> Result<(), TextError> {
    let entries = read_labels(scan, "mpls", |_| Ok(false))?;
    let value: Vec<u8> = entries.iter().flat_map(|(value, _)| value.to_be_bytes()).collect();
    let mask: Vec<u8> = entries.iter().flat_map(|(_, mask)| mask.to_be_bytes()).collect();
    lists.put(scan, k::MPLS, &value, &mask)
}

fn read_encap(scan: &mut Scan<'_>, lists: &mut Lists, depth: usize) -> Result<(), TextError> {
    if depth + 1 >= ENCAP_MAX {
        return Err(scan.error_at(lists.start, TextFault::TooDeep));
    }
    let mut inner = Lists::default();
    loop {
        scan.skip_delimiters();
        if scan.eat(")") {
            break;
        }
        if !read_attribute(scan, &mut inner, depth + 1)? {
            return scan.expected("a field of the flow key, or )");
        }
    }
    if find(&lists.key, k::VLAN).is_none() {
        // Some tag.
        lists.put(scan, k::VLAN, &VLAN_PRESENT.to_be_bytes(), &VLAN_PRESENT.to_be_bytes())?;
    }
    lists.nest(scan, k::ENCAP, inner)
}

/// The order in which attributes are printed.
const ORDER: [u16; 30] = [
    k::RECIRC_ID,
    k::DP_HASH,
    k::PRIORITY,
    k::TUNNEL,
    k::IN_PORT,
    k::SKB_MARK,
    k::CT_STATE,
    k::CT_ZONE,
    k::CT_MARK,
    k::CT_LABELS,
    k::CT_ORIG_TUPLE_IPV4,
    k::CT_ORIG_TUPLE_IPV6,
    k::PACKET_TYPE,
    k::ETHERNET,
    k::ETHERTYPE,
    k::VLAN,
    k::ENCAP,
    k::IPV4,
    k::IPV6,
    k::ARP,
    k::MPLS,
    k::NSH,
    k::TCP,
    k::TCP_FLAGS,
    k::UDP,
    k::SCTP,
    k::ICMP,
    k::ICMPV6,
    k::ND,
    k::ND_EXTENSIONS,
];

/// Appends what a flow matches.
pub(super) fn write(key: &FlowKey, mask: &FlowMask, names: &PortNames<'_>, out: &mut String) {
    let (mut keys, mut masks) = (Vec::new(), Vec::new());
    encode_key(key, &mut keys);
    encode_mask(key, mask, &mut masks);
    write_list(&keys, &masks, names, out);
}

fn find(list: &[u8], number: u16) -> Option<&[u8]> {
    walk(list, KEY).flatten().find(|attribute| attribute.0 == number).map(|attribute| attribute.1)
}

fn write_list(keys: &[u8], masks: &[u8], names: &PortNames<'_>, out: &mut String) {
    let start = out.len();
    // A truncated tag is known by its EtherType.
    let truncated = find(keys, k::VLAN).is_some_and(|tci| tci == [0; 2]);
    for number in ORDER {
        let Some(mask) = find(masks, number) else { continue };
        if truncated && matches!(number, k::VLAN | k::ENCAP) {
            continue;
        }
        if number == k::ENCAP {
            write_encap(find(keys, number).unwrap_or_default(), mask, names, out);
            continue;
        }
        // Shown in any case: a tag, and what would be matched if it were absent.
        let always = matches!(number, k::TUNNEL | k::RECIRC_ID | k::PACKET_TYPE | k::VLAN);
        let nsh;
        let bits = if number == k::NSH {
            nsh = nsh_bytes(mask);
            &nsh[..]
        } else {
            mask
        };
        if !always && bits.iter().all(|&b| b == 0) {
            continue;
        }
        if out.len() > start {
            out.push(',');
        }
        match find(keys, number) {
            // Said, because a text without it matches Ethernet packets only.
            _ if number == k::PACKET_TYPE && bits == [0; 4] => out.push_str("packet_type(ns=0/0,id=0/0)"),
            Some(value) => write_attribute(number, value, mask, names, out),
            // Matched, but not there: it is zero, except where that is not what absence means.
            None if number == k::ETHERTYPE => {
                write!(out, "eth_type(0/0x{:04x})", be16(mask));
            }
            None if number == k::IN_PORT => write_attribute(number, &attr::PORT_NONE.to_ne_bytes(), mask, names, out),
            None if number == k::TUNNEL => write_attribute(number, &[], mask, names, out),
            None => write_attribute(number, &vec![0; mask.len()], mask, names, out),
        }
    }
}

/// Appends what is matched behind a tag, if anything is. The tag stands before it.
fn write_encap(keys: &[u8], masks: &[u8], names: &PortNames<'_>, out: &mut String) {
    const OPENING: &str = ",encap(";
    let start = out.len();
    out.push_str(OPENING);
    write_list(keys, masks, names, out);
    if out.len() == start + OPENING.len() { out.truncate(start) } else { out.push(')') }
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn ne32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Appends one attribute; value and mask have the length that its number demands.
pub(super) fn write_attribute(number: u16, value: &[u8], mask: &[u8], names: &PortNames<'_>, out: &mut String) {
    if let Some(flat) = flat(number) {
        return flat.write(value, mask, out);
    }
    if let Some((name, _)) = WORDS.iter().find(|(_, word)| *word == number) {
        out.push_str(name);
        out.push('(');
        hex(ne32(value).into(), out);
        if ne32(mask) != u32::MAX {
            out.push('/');
            hex(ne32(mask).into(), out);
        }
        return out.push(')');
    }
    match number {
        k::TUNNEL => return tunnel::write(value, Some(mask), out),
        k::NSH => return write_nsh(&nsh_bytes(value), &nsh_bytes(mask), out),
        k::IN_PORT => {
            out.push_str("in_port(");
            if ne32(mask) == u32::MAX {
                names.write(ne32(value), out);
            } else {
                write!(out, "{}/", ne32(value));
                hex(ne32(mask).into(), out);
            }
        }
        k::CT_STATE => {
            out.push_str("ct_state(");
            // Open vSwitch compares with 32 bits, so that the list of names without signs never comes.
            write_flags(&CT_STATE, ne32(value), ne32(mask), u32::MAX, out);
        }
        k::CT_ZONE => {
            let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u16::from_ne_bytes(*bytes));
            out.push_str("ct_zone(");
            hex(number(value).into(), out);
            if number(mask) != u16::MAX {
                out.push('/');
                hex(number(mask).into(), out);
            }
        }
        k::CT_LABELS => {
            let number = |bytes: &[u8]| native(bytes.try_into().unwrap_or_default());
            out.push_str("ct_label(");
            write_bytes(&number(value), out);
            if mask.iter().any(|&b| b != 0xff) {
                out.push('/');
                write_bytes(&number(mask), out);
            }
        }
        k::TCP_FLAGS => {
            out.push_str("tcp_flags(");
            write_flags(&TCP_FLAGS, be16(value).into(), be16(mask).into(), 0xfff, out);
        }
        k::ETHERTYPE => {
            write!(out, "eth_type(0x{:04x}", be16(value));
            if be16(mask) != u16::MAX {
                write!(out, "/0x{:04x}", be16(mask));
            }
        }
        k::VLAN => {
            out.push_str("vlan(");
            write_tci(be16(value), be16(mask), out);
        }
        k::MPLS => {
            out.push_str("mpls(");
            write_mpls(value, mask, out);
        }
        _ => {}
    }
    out.push(')');
}

/// Appends `vid=…,pcp=…`.
pub(super) fn write_tci(tci: u16, mask: u16, out: &mut String) {
    let start = out.len();
    for (name, value, bits, all) in [("vid", tci & 0xfff, mask & 0xfff, 0xfff), ("pcp", tci >> 13, mask >> 13, 7)] {
        if value != 0 || bits != 0 {
            let comma = if out.len() > start { "," } else { "" };
            write!(out, "{comma}{name}={value}");
            if bits != all {
                write!(out, "/0x{bits:x}");
            }
        }
    }
    if tci & VLAN_PRESENT == 0 {
        out.push_str(if out.len() > start { ",cfi=0" } else { "cfi=0" });
    }
}

/// Appends one label stack entry.
pub(super) fn write_label(lse: u32, out: &mut String) {
    let [label, tc, ttl, bos] = MPLS.map(|(_, width, shift)| lse >> shift & ((1 << width) - 1));
    write!(out, "label={label},tc={tc},ttl={ttl},bos={bos}");
}

fn write_mpls(value: &[u8], mask: &[u8], out: &mut String) {
    let is_exact = value.len() == mask.len() && mask.iter().all(|&b| b == 0xff);
    let entries = value.len().max(mask.len()) / 4;
    let entry = |bytes: &[u8], i: usize| {
        bytes.get(4 * i..4 * i + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    for i in 0..entries {
        if i > 0 {
            out.push(',');
        }
        let lse = entry(value, i);
        if is_exact {
            write_label(lse, out);
            continue;
        }
        let part = |lse: u32| MPLS.map(|(_, width, shift)| lse >> shift & ((1 << width) - 1));
        let ([label, tc, ttl, bos], [label_m, tc_m, ttl_m, bos_m]) = (part(lse), part(entry(mask, i)));
        write!(out, "label={label}/0x{label_m:x},tc={tc}/{tc_m:x},ttl={ttl}/0x{ttl_m:x},bos={bos}/{bos_m:x}");
    }
}
