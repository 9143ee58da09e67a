//! `tnl_push(…)`: outer headers in words.
//!
//! ```text
//! tnl_push(tnl_port(6),header(size=50,type=4,eth(dst=…,src=…,dl_type=0x0800),ipv4(src=…,dst=…,proto=17,tos=0,ttl=64,frag=0x4000),
//!     udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x1c8)),out_port(1))
//! ```
//!
//! The words are Open vSwitch's, and leave out what is filled in for each packet: lengths, the identification and the checksum of IPv4.
//! These are zero, as in the headers that Open vSwitch makes. Three forms are Wye's own, so that whatever is in a header reads back as the
//! same bytes: `csum=` behind `frag=` for an IPv4 checksum that is not 0; `proto=` behind `segs(…)` for what follows a segment routing header,
//! which must be told for the header to be of use; and `header(size=…,type=…,raw(…))` with hexadecimal digits for headers that have something
//! else in them, are cut off, or belong to no kind that is known here.

use zerocopy::FromBytes;

use super::super::action::{TUNNEL_HEADER_MAX, TunnelPush};
use super::super::attr::vport_type as vport;
use super::action::hex_bytes;
use super::scan::{Scan, TextError, TextFault};
use super::table::hex;
use super::tunnel::{read_options, write_options};
use super::{Append as _, PortNames};
use crate::wire::{ethernet, ipv4, ipv6, udp};
use std::net::{Ipv4Addr, Ipv6Addr};

/// In the first two bytes of a GRE header: a checksum, a key, a sequence number follow (RFC 2784, RFC 2890).
const GRE_CSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQ: u16 = 0x1000;
/// Protocols of ERSPAN in GRE.
const ERSPAN_1: u16 = 0x88be;
const ERSPAN_2: u16 = 0x22eb;
/// In the second byte of a Geneve header (RFC 8926 §3.4).
const GENEVE_OAM: u8 = 0x80;
const GENEVE_CRITICAL: u8 = 0x40;
const GENEVE_OPTIONS_MAX: usize = 252;
/// The segment routing header's type (RFC 8754), and the length of it without segments.
const ROUTING_SEGMENTS: u8 = 4;
const SEGMENTS_AT: usize = 8;

/// Reads what follows `tnl_push(`.
pub(super) fn read(scan: &mut Scan<'_>) -> Result<TunnelPush, TextError> {
    scan.set_field("tnl_push", "tnl_port");
    scan.need("tnl_port(")?;
    let tnl_port = scan.port()?;
    scan.need(")")?;
    scan.set_field("tnl_push", "header");
    scan.need(",")?;
    scan.need("header(")?;
    scan.need("size=")?;
    let start = scan.at();
    let size = scan.number(TUNNEL_HEADER_MAX as u64)? as usize;
    scan.need(",")?;
    scan.need("type=")?;
    let tnl_type = scan.number(u32::MAX.into())? as u32;
    scan.need(",")?;
    let header = if scan.open("raw") { read_raw(scan)? } else { read_words(scan, tnl_type)? };
    scan.set_field("tnl_push", "header");
    if header.len() != size {
        return Err(scan.error_at(start, TextFault::Expected("the length of the headers that follow")));
    }
    scan.need(")")?;
    scan.set_field("tnl_push", "out_port");
    scan.need(",")?;
    scan.need("out_port(")?;
    let out_port = scan.port()?;
    scan.need(")")?;
    scan.need(")")?;
    scan.set_field("", "");
    Ok(TunnelPush { tnl_port, out_port, tnl_type, header })
}

fn read_raw(scan: &mut Scan<'_>) -> Result<Vec<u8>, TextError> {
    scan.set_field("tnl_push", "raw");
    let start = scan.at();
    let digits = scan.run(|c| c.is_ascii_hexdigit());
    let bytes = hex_bytes(digits).filter(|bytes| bytes.len() <= TUNNEL_HEADER_MAX);
    let bytes = bytes.ok_or_else(|| scan.error_at(start, TextFault::Expected("up to 512 hexadecimal bytes")))?;
    scan.need(")")?;
    Ok(bytes)
}

/// The fields of one header, in their order: `name=value,name=value)`.
struct Fields<'s, 'a> {
    scan: &'s mut Scan<'a>,
    header: &'static str,
    is_first: bool,
}

impl<'s, 'a> Fields<'s, 'a> {
    fn open(scan: &'s mut Scan<'a>, header: &'static str) -> Result<Self, TextError> {
        scan.set_field("tnl_push", header);
        match scan.open(header) {
            true => Ok(Fields { scan, header, is_first: true }),
            false => scan.expected(header),
        }
    }

    fn name(&mut self, name: &'static str) -> Result<&mut Scan<'a>, TextError> {
        self.scan.set_field(self.header, name);
        if !core::mem::take(&mut self.is_first) {
            self.scan.need(",")?;
        }
        self.scan.need(name)?;
        self.scan.need("=")?;
        Ok(self.scan)
    }

    fn number(&mut self, name: &'static str, max: u32) -> Result<u32, TextError> {
        self.name(name)?.number(max.into()).map(|number| number as u32)
    }

    fn byte(&mut self, name: &'static str) -> Result<u8, TextError> {
        self.number(name, 0xff).map(|number| number as u8)
    }

    fn short(&mut self, name: &'static str) -> Result<u16, TextError> {
        self.number(name, 0xffff).map(|number| number as u16)
    }

    fn close(self) -> Result<(), TextError> {
        self.scan.set_field(self.header, "");
        self.scan.need(")")
    }
}

/// Reads the headers one after another, without the parenthesis that closes `header(`.
fn read_words(scan: &mut Scan<'_>, tnl_type: u32) -> Result<Vec<u8>, TextError> {
    let mut out = Vec::with_capacity(128);
    let mut fields = Fields::open(scan, "eth")?;
    out.extend(fields.name("dst")?.mac()?);
    out.extend(fields.name("src")?.mac()?);
    let ethertype = fields.short("dl_type")?;
    fields.close()?;
    out.extend(ethertype.to_be_bytes());
    scan.need(",")?;
    match ethertype {
        ethernet::IPV4 => read_ipv4(scan, &mut out)?,
        ethernet::IPV6 => read_ipv6(scan, &mut out)?,
        _ => return scan.expected("dl_type=0x0800 or dl_type=0x86dd"),
    }
    scan.need(",")?;
    match tnl_type {
        vport::VXLAN => {
            read_udp(scan, &mut out)?;
            let mut fields = Fields::open(scan, "vxlan")?;
            out.extend(fields.number("flags", u32::MAX)?.to_be_bytes());
            out.extend((fields.number("vni", 0xff_ffff)? << 8).to_be_bytes());
            fields.close()?;
        }
        vport::GTPU => {
            read_udp(scan, &mut out)?;
            let mut fields = Fields::open(scan, "gtpu")?;
            out.extend([fields.byte("flags")?, fields.byte("msgtype")?, 0, 0]);
            out.extend(fields.number("teid", u32::MAX)?.to_be_bytes());
            fields.close()?;
        }
        vport::GENEVE => {
            read_udp(scan, &mut out)?;
            read_geneve(scan, &mut out)?;
        }
        vport::GRE | vport::IP6GRE => read_gre(scan, &mut out)?,
        vport::ERSPAN | vport::IP6ERSPAN => read_erspan(scan, &mut out)?,
        vport::SRV6 => read_srv6(scan, &mut out)?,
        _ => return scan.expected("the type of a tunnel that has a form in words, or raw("),
    }
    Ok(out)
}

fn read_ipv4(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "ipv4")?;
    let (src, dst) = (fields.name("src")?.ipv4()?, fields.name("dst")?.ipv4()?);
    let proto = fields.byte("proto")?;
    let (tos, ttl) = (fields.byte("tos")?, fields.byte("ttl")?);
    let [high, low] = fields.short("frag")?.to_be_bytes();
    let sum = if fields.scan.rest().starts_with(',') { fields.short("csum")? } else { 0 };
    fields.close()?;
    out.extend([0x45, tos, 0, 0, 0, 0, high, low, ttl, proto]);
    out.extend(sum.to_be_bytes());
    out.extend([src, dst].as_flattened());
    Ok(())
}

fn read_ipv6(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "ipv6")?;
    let (src, dst) = (fields.name("src")?.ipv6()?, fields.name("dst")?.ipv6()?);
    let label = fields.number("label", 0xf_ffff)?;
    let proto = fields.byte("proto")?;
    let class = u32::from(fields.byte("tclass")?);
    let hop_limit = fields.byte("hlimit")?;
    fields.close()?;
    out.extend((6 << 28 | class << 20 | label).to_be_bytes());
    out.extend([0, 0, proto, hop_limit]);
    out.extend([src, dst].as_flattened());
    Ok(())
}

fn read_udp(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "udp")?;
    for number in [fields.short("src")?, fields.short("dst")?, 0, fields.short("csum")?] {
        out.extend(number.to_be_bytes());
    }
    fields.close()?;
    scan.need(",")
}

fn read_geneve(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "geneve")?;
    let mut bits = 0;
    for (word, bit) in [("oam,", GENEVE_OAM), ("crit,", GENEVE_CRITICAL)] {
        if fields.scan.eat(word) {
            bits |= bit;
        }
    }
    let vni = fields.number("vni", 0xff_ffff)?;
    let mut options = Vec::new();
    if fields.scan.eat(",") {
        fields.scan.set_field("geneve", "options");
        fields.scan.need("options(")?;
        let start = fields.scan.at();
        let text = fields.scan.rest();
        (options, _) = read_options(fields.scan)?;
        if options.len() > GENEVE_OPTIONS_MAX {
            return Err(fields.scan.error_at(start, TextFault::Expected("options of at most 252 bytes")));
        }
        if let Some(at) = text[..fields.scan.at() - start].find('/') {
            return Err(fields.scan.error_at(start + at, TextFault::Expected("a value without a mask")));
        }
    }
    fields.close()?;
    out.extend([(options.len() / 4) as u8, bits]);
    out.extend(ethernet::TEB.to_be_bytes());
    out.extend((vni << 8).to_be_bytes());
    out.extend(options);
    Ok(())
}

fn read_gre(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "gre")?;
    fields.scan.need("(")?;
    let flags = fields.short("flags")?;
    out.extend(flags.to_be_bytes());
    out.extend(fields.short("proto")?.to_be_bytes());
    fields.scan.need(")")?;
    if flags & GRE_CSUM != 0 {
        out.extend(fields.short("csum")?.to_be_bytes());
        out.extend([0; 2]);
    }
    if flags & GRE_KEY != 0 {
        out.extend(fields.number("key", u32::MAX)?.to_be_bytes());
    }
    if flags & GRE_SEQ != 0 {
        out.extend(fields.number("seq", u32::MAX)?.to_be_bytes());
    }
    fields.close()
}

fn read_erspan(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "erspan")?;
    let start = fields.scan.at();
    let version = fields.byte("ver")?;
    let protocol = match version {
        1 => ERSPAN_1,
        2 => ERSPAN_2,
        _ => return Err(fields.scan.error_at(start, TextFault::Expected("ver=1 or ver=2"))),
    };
    for number in [GRE_SEQ, protocol, 0, 0, u16::from(version) << 12, fields.number("sid", 0x3ff)? as u16] {
        out.extend(number.to_be_bytes());
    }
    if version == 1 {
        out.extend(fields.number("idx", u32::MAX)?.to_be_bytes());
    } else {
        let (dir, hwid) = (fields.number("dir", 1)? as u16, fields.number("hwid", 0x3f)? as u16);
        out.extend([0; 6]);
        out.extend((hwid << 4 | dir << 3).to_be_bytes());
    }
    fields.close()
}

fn read_srv6(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut fields = Fields::open(scan, "srv6")?;
    let start = fields.scan.at();
    let left = fields.byte("segments_left")?;
    fields.scan.set_field("srv6", "segs");
    fields.scan.need(",")?;
    fields.scan.need("segs(")?;
    let mut segments = vec![fields.scan.ipv6()?];
    while fields.scan.eat(",") {
        segments.push(fields.scan.ipv6()?);
    }
    fields.scan.need(")")?;
    let last = segments.len() - 1;
    if last != usize::from(left) || (2 * segments.len()) > 0xff {
        return Err(fields.scan.error_at(start, TextFault::Expected("one segment more than are left")));
    }
    let proto = if fields.scan.rest().starts_with(",proto=") { fields.byte("proto")? } else { 0 };
    fields.close()?;
    out.extend([proto, (2 * segments.len()) as u8, ROUTING_SEGMENTS, left, left, 0, 0, 0]);
    // RFC 8754 §2: the list is in reverse order.
    segments.reverse();
    out.extend(segments.as_flattened());
    Ok(())
}

/// Appends `tnl_push(…)`.
pub(super) fn write(push: &TunnelPush, names: &PortNames<'_>, out: &mut String) {
    out.push_str("tnl_push(tnl_port(");
    names.write(push.tnl_port, out);
    write!(out, "),header(size={},type={},", push.header.len(), push.tnl_type);
    let mut words = String::new();
    match write_words(push.tnl_type, &push.header, &mut words) {
        Some(()) if reads_back(&words, push) => out.push_str(&words),
        _ => {
            out.push_str("raw(");
            push.header.iter().for_each(|byte| write!(out, "{byte:02x}"));
            out.push(')');
        }
    }
    out.push_str("),out_port(");
    names.write(push.out_port, out);
    out.push_str("))");
}

/// True if `words` say all of the headers.
fn reads_back(words: &str, push: &TunnelPush) -> bool {
    let scan = Scan::new(words, &PortNames::NONE);
    let header = scan.and_then(|mut scan| {
        let header = read_words(&mut scan, push.tnl_type)?;
        scan.end().map(|()| header)
    });
    header.is_ok_and(|header| header == push.header)
}

/// Appends the headers one after another; `None` if they are cut off or of a kind that has no words.
fn write_words(tnl_type: u32, header: &[u8], out: &mut String) -> Option<()> {
    let (dst, rest) = header.split_first_chunk::<6>()?;
    let (src, rest) = rest.split_first_chunk::<6>()?;
    let (ethertype, rest) = rest.split_first_chunk::<2>()?;
    let ethertype = u16::from_be_bytes(*ethertype);
    let mac = |mac: &[u8; 6]| mac.map(|b| format!("{b:02x}")).join(":");
    write!(out, "eth(dst={},src={},dl_type=0x{ethertype:04x}),", mac(dst), mac(src));
    let rest = match ethertype {
        ethernet::IPV4 => {
            let (ip, rest) = ipv4::Header::ref_from_prefix(rest).ok()?;
            let (src, dst) = (Ipv4Addr::from(ip.src), Ipv4Addr::from(ip.dst));
            write!(out, "ipv4(src={src},dst={dst},proto={},tos=", ip.proto);
            hex(ip.tos.into(), out);
            write!(out, ",ttl={},frag={:#x}", ip.ttl, ip.fragment.get());
            if ip.checksum.get() != 0 {
                write!(out, ",csum={:#x}", ip.checksum.get());
            }
            out.push_str("),");
            rest
        }
        ethernet::IPV6 => {
            let (ip, rest) = ipv6::Header::ref_from_prefix(rest).ok()?;
            let (src, dst) = (Ipv6Addr::from(ip.src), Ipv6Addr::from(ip.dst));
            let word = ip.version_class_label.get();
            write!(out, "ipv6(src={src},dst={dst},label={},proto={},", word & 0xf_ffff, ip.next_header);
            write!(out, "tclass={:#x},hlimit={}),", word >> 20 & 0xff, ip.hop_limit);
            rest
        }
        _ => return None,
    };
    match tnl_type {
        vport::VXLAN => {
            let (flags, vni) = first_words(write_udp(rest, out)?)?;
            write!(out, "vxlan(flags={flags:#x},vni={:#x})", vni >> 8);
        }
        vport::GTPU => {
            let (first, teid) = first_words(write_udp(rest, out)?)?;
            write!(out, "gtpu(flags={:#x},msgtype={},teid={teid:#x})", first >> 24, first >> 16 & 0xff);
        }
        vport::GENEVE => {
            let rest = write_udp(rest, out)?;
            let (first, vni) = first_words(rest)?;
            out.push_str("geneve(");
            for (word, bit) in [("oam,", GENEVE_OAM), ("crit,", GENEVE_CRITICAL)] {
                if first >> 16 & u32::from(bit) != 0 {
                    out.push_str(word);
                }
            }
            write!(out, "vni={:#x}", vni >> 8);
            let options = &rest[8..];
            if !options.is_empty() {
                out.push_str(",options(");
                write_options(options, &vec![0xff; options.len()], out);
                out.push(')');
            }
            out.push(')');
        }
        vport::GRE | vport::IP6GRE => write_gre(rest, out)?,
        vport::ERSPAN | vport::IP6ERSPAN => write_erspan(rest, out)?,
        vport::SRV6 => write_srv6(rest, out)?,
        _ => return None,
    }
    Some(())
}

/// The first two words of `bytes`.
fn first_words(bytes: &[u8]) -> Option<(u32, u32)> {
    let word = u64::from_be_bytes(*bytes.first_chunk()?);
    Some(((word >> 32) as u32, word as u32))
}

/// Returns what is behind the UDP header.
fn write_udp<'a>(bytes: &'a [u8], out: &mut String) -> Option<&'a [u8]> {
    let (udp, rest) = udp::Header::ref_from_prefix(bytes).ok()?;
    write!(out, "udp(src={},dst={},csum={:#x}),", udp.src, udp.dst, udp.checksum.get());
    Some(rest)
}

fn write_gre(bytes: &[u8], out: &mut String) -> Option<()> {
    let (first, mut rest) = bytes.split_first_chunk::<4>()?;
    let (flags, proto) = (u16::from_be_bytes([first[0], first[1]]), u16::from_be_bytes([first[2], first[3]]));
    write!(out, "gre((flags={flags:#x},proto={proto:#x})");
    for (bit, name) in [(GRE_CSUM, "csum"), (GRE_KEY, "key"), (GRE_SEQ, "seq")] {
        if flags & bit != 0 {
            let (word, behind) = rest.split_first_chunk::<4>()?;
            let word = u32::from_be_bytes(*word);
            write!(out, ",{name}={:#x}", if bit == GRE_CSUM { word >> 16 } else { word });
            rest = behind;
        }
    }
    out.push(')');
    Some(())
}

fn write_erspan(bytes: &[u8], out: &mut String) -> Option<()> {
    let (first, word) = first_words(bytes.get(8..)?)?;
    let (version, sid) = (first >> 28, first & 0x3ff);
    write!(out, "erspan(ver={version},sid={sid:#x},");
    if version == 1 {
        write!(out, "idx={word:#x})");
    } else {
        let bits = u16::from_be_bytes(*bytes.get(18..)?.first_chunk()?);
        write!(out, "dir={},hwid={:#x})", bits >> 3 & 1, bits >> 4 & 0x3f);
    }
    Some(())
}

fn write_srv6(bytes: &[u8], out: &mut String) -> Option<()> {
    write!(out, "srv6(segments_left={},segs(", bytes.get(3)?);
    let (segments, _) = bytes.get(SEGMENTS_AT..)?.as_chunks::<16>();
    for (i, segment) in segments.iter().rev().enumerate() {
        write!(out, "{}{}", if i > 0 { "," } else { "" }, Ipv6Addr::from(*segment));
    }
    out.push(')');
    if bytes[0] != 0 {
        write!(out, ",proto={}", bytes[0]);
    }
    out.push(')');
    Some(())
}

#[cfg(test)]
mod tests;
