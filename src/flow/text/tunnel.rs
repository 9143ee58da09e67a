//! `tunnel(…)` and `nsh(…)`, whose attributes are nested.

use super::super::attr::{key as k, nsh as n, tunnel as t, vxlan};
use super::super::netlink::{NSH, TUNNEL, VXLAN, nested, put, walk};
use super::Append as _;
use super::key::Lists;
use super::scan::{Scan, TextError, TextFault};
use super::table::{Kind, TUNNEL_FLAGS, hex, write_flags};

const OAM: u32 = 1;
const DF: u32 = 2;
const CSUM: u32 = 4;
const KEY: u32 = 8;

/// The plain fields, in the order in which they are printed.
const FIELDS: [(&str, u16, Kind); 9] = [
    ("tun_id", t::ID, Kind::Hex(8)),
    ("src", t::IPV4_SRC, Kind::Ipv4),
    ("dst", t::IPV4_DST, Kind::Ipv4),
    ("ipv6_src", t::IPV6_SRC, Kind::Ipv6),
    ("ipv6_dst", t::IPV6_DST, Kind::Ipv6),
    ("tos", t::TOS, Kind::Hex(1)),
    ("ttl", t::TTL, Kind::Dec(1)),
    ("tp_src", t::TP_SRC, Kind::Dec(2)),
    ("tp_dst", t::TP_DST, Kind::Dec(2)),
];

/// Flags that are attributes without payload.
const FLAGS: [(u32, u16); 3] = [(DF, t::DONT_FRAGMENT), (CSUM, t::CSUM), (OAM, t::OAM)];

/// Reads what follows `tunnel(`.
pub(super) fn read(scan: &mut Scan<'_>, lists: &mut Lists) -> Result<(), TextError> {
    let mut inner = Lists::default();
    let mut has_id = false;
    scan.set_field("tunnel", "");
    while !scan.eat(")") {
        let here = FIELDS.iter().find(|(name, ..)| {
            let behind = scan.rest().strip_prefix(name);
            behind.is_some_and(|behind| behind.starts_with('='))
        });
        if let Some((name, number, kind)) = here {
            scan.set_field("tunnel", name);
            scan.eat(name);
            scan.need("=")?;
            let (mut value, mut mask) = ([0; 16], [0; 16]);
            let len = kind.len();
            kind.read(scan, &mut value[..len], &mut mask[..len])?;
            has_id |= *number == t::ID;
            inner.put(scan, *number, &value[..len], &mask[..len])?;
        } else if scan.open("vxlan") {
            scan.set_field("tunnel", "vxlan");
            read_gbp(scan, &mut inner)?;
        } else if scan.open("geneve") {
            scan.set_field("tunnel", "geneve");
            read_geneve(scan, &mut inner)?;
        } else if scan.open("erspan") {
            scan.set_field("tunnel", "erspan");
            read_erspan(scan, &mut inner)?;
        } else if scan.open("gtpu") {
            scan.set_field("tunnel", "gtpu");
            let [flags, kind] = read_pair(scan, [("flags", 0xff), ("msgtype", 0xff)])?;
            inner.put(scan, t::GTPU_OPTS, &[flags.0 as u8, kind.0 as u8], &[flags.1 as u8, kind.1 as u8])?;
        } else if scan.open("flags") {
            scan.set_field("tunnel", "flags");
            let all = OAM | DF | CSUM | KEY;
            let signed = scan.rest().starts_with(['+', '-']);
            let (value, mask) = scan.flags(&TUNNEL_FLAGS, all)?;
            scan.need(")")?;
            for (bit, number) in FLAGS {
                if value & bit != 0 {
                    put(&mut inner.key, number, &[]);
                }
                if mask & bit != 0 {
                    put(&mut inner.mask, number, &[]);
                }
            }
            // "key" says that there is an id; usually `tun_id` has said so.
            if !has_id && value & KEY != 0 {
                put(&mut inner.key, t::ID, &[0; 8]);
            }
            if !has_id && signed && mask & KEY != 0 {
                put(&mut inner.mask, t::ID, &[0; 8]);
            }
        } else {
            return scan.expected("a field of it, or )");
        }
        scan.set_field("tunnel", "");
        if !scan.eat(",") && !scan.rest().starts_with(')') {
            return scan.expected(", or )");
        }
    }
    scan.set_field("", "");
    lists.nest(scan, k::TUNNEL, inner)
}

/// Two optional numbers with masks in parentheses that are open already.
fn read_pair(scan: &mut Scan<'_>, names: [(&'static str, u64); 2]) -> Result<[(u64, u64); 2], TextError> {
    let mut out = [(0, 0); 2];
    for ((name, max), slot) in names.iter().zip(&mut out) {
        scan.eat(",");
        if scan.eat(name) {
            scan.need("=")?;
            *slot = scan.masked_number(*max)?;
        }
    }
    scan.need(")")?;
    Ok(out)
}

fn read_gbp(scan: &mut Scan<'_>, inner: &mut Lists) -> Result<(), TextError> {
    scan.need("gbp(")?;
    let [id, flags] = read_pair(scan, [("id", 0xffff), ("flags", 0xff)])?;
    scan.need(")")?;
    let raw = |id: u64, flags: u64| (flags << 16 | id) as u32;
    let mut gbp = Lists::default();
    gbp.put(scan, vxlan::GBP, &raw(id.0, flags.0).to_ne_bytes(), &raw(id.1, flags.1).to_ne_bytes())?;
    inner.nest(scan, t::VXLAN_OPTS, gbp)
}

fn read_geneve(scan: &mut Scan<'_>, inner: &mut Lists) -> Result<(), TextError> {
    let (value, mask) = read_options(scan)?;
    inner.put(scan, t::GENEVE_OPTS, &value, &mask)
}

/// `{class=…,type=…,len=…,DATA/MASK}` for each Geneve option, and the closing parenthesis. Gives value and mask.
pub(super) fn read_options(scan: &mut Scan<'_>) -> Result<(Vec<u8>, Vec<u8>), TextError> {
    let (mut value, mut mask) = (Vec::new(), Vec::new());
    while scan.eat("{") {
        let start = value.len();
        value.extend([0; 4]);
        mask.extend([0; 4]);
        while !scan.eat("}") {
            if scan.eat("class=") {
                Kind::Hex(2).read(scan, &mut value[start..start + 2], &mut mask[start..start + 2])?;
            } else if scan.eat("type=") {
                Kind::Hex(1).read(scan, &mut value[start + 2..start + 3], &mut mask[start + 2..start + 3])?;
            } else if scan.eat("len=") {
                let at = scan.at();
                let len = scan.number(124)? as usize;
                let bits = if scan.eat("/") { scan.number(0xff)? as u8 } else { 0xff };
                if !len.is_multiple_of(4) || value.len() != start + 4 {
                    return Err(scan.error_at(at, TextFault::Expected("one length, a multiple of 4")));
                }
                value[start + 3] = (len / 4) as u8;
                mask[start + 3] = bits & 0x1f;
                value.resize(start + 4 + len, 0);
                mask.resize(start + 4 + len, 0);
            } else if value.len() > start + 4 {
                scan.bytes(&mut value[start + 4..])?;
                mask[start + 4..].fill(0xff);
                if scan.eat("/") {
                    scan.bytes(&mut mask[start + 4..])?;
                }
            } else {
                return scan.expected("class=, type= or len=");
            }
            if !scan.eat(",") && !scan.rest().starts_with('}') {
                return scan.expected(", or }");
            }
        }
    }
    scan.need(")")?;
    Ok((value, mask))
}

fn read_erspan(scan: &mut Scan<'_>, inner: &mut Lists) -> Result<(), TextError> {
    let (mut value, mut mask) = ([0; 12], [0; 12]);
    let version = if scan.eat("ver=") { scan.masked_number(0xff)? } else { (0, 0) };
    value[..4].copy_from_slice(&(version.0 as i32).to_ne_bytes());
    mask[..4].copy_from_slice(&(version.1 as i32).to_ne_bytes());
    scan.eat(",");
    if version.0 == 2 {
        let [dir, hwid] = read_pair(scan, [("dir", 0xff), ("hwid", 0xff)])?;
        for ((dir, hwid), bytes) in [((dir.0, hwid.0), &mut value), ((dir.1, hwid.1), &mut mask)] {
            bytes[10] = (hwid >> 4) as u8 & 3;
            bytes[11] = (hwid << 4) as u8 | (dir as u8 & 1) << 3;
        }
    } else {
        let index = if scan.eat("idx=") { scan.masked_number(u32::MAX.into())? } else { (0, 0) };
        scan.need(")")?;
        value[4..8].copy_from_slice(&(index.0 as u32).to_be_bytes());
        mask[4..8].copy_from_slice(&(index.1 as u32).to_be_bytes());
    }
    inner.put(scan, t::ERSPAN_OPTS, &value, &mask)
}

/// Appends `tunnel(…)`. Without a mask all of the key counts, as in a set action.
pub(super) fn write(key: &[u8], mask: Option<&[u8]>, out: &mut String) {
    let find = |list: &'_ [u8], number: u16| walk(list, TUNNEL).flatten().find(|a| a.0 == number).map(|a| a.1.to_vec());
    // Value and mask of an attribute that either has; without a mask, those of the key.
    let both = |number: u16, zeros: usize| match (find(key, number), mask) {
        (Some(value), None) => Some((value.clone(), vec![0xff; value.len()])),
        (None, None) => None,
        (value, Some(mask)) => {
            let mask = find(mask, number)?;
            Some((value.unwrap_or(vec![0; zeros]), mask))
        }
    };
    out.push_str("tunnel(");
    for (name, number, kind) in FIELDS {
        let Some((value, bits)) = both(number, kind.len()) else { continue };
        // The id's presence counts in any case: "key".
        if number == t::ID && find(key, number).is_none() || number != t::ID && bits.iter().all(|&b| b == 0) {
            continue;
        }
        write!(out, "{name}=");
        match number {
            // Open vSwitch always writes 0x here.
            t::ID if value == [0; 8] => {
                out.push_str("0x");
                kind.write(&value, &bits, out);
            }
            _ => kind.write(&value, &bits, out),
        }
        out.push(',');
    }
    if let Some((value, bits)) = both(t::VXLAN_OPTS, 0) {
        write_gbp(&value, &bits, mask.is_some(), out);
    }
    if let Some((value, bits)) = both(t::GENEVE_OPTS, 0) {
        write_geneve(&value, &bits, out);
    }
    if let Some((value, bits)) = both(t::ERSPAN_OPTS, 12) {
        write_erspan(&value, &bits, out);
    }
    if let Some((value, bits)) = both(t::GTPU_OPTS, 2) {
        out.push_str("gtpu(");
        write_option(
            &[("flags", Kind::Hex(1), &value[..1], &bits[..1]), ("msgtype", Kind::Dec(1), &value[1..], &bits[1..])],
            out,
        );
        out.push_str("),");
    }
    let flags_in = |list: &[u8]| {
        let set = FLAGS.iter().filter(|(_, number)| find(list, *number).is_some());
        let id = if find(list, t::ID).is_some() { KEY } else { 0 };
        set.fold(id, |flags, (bit, _)| flags | bit)
    };
    let (value, all) = (flags_in(key), OAM | DF | CSUM | KEY);
    let bits = mask.map_or(all, flags_in);
    if bits != 0 {
        out.push_str("flags(");
        // `df|csum` does not say that there is no id.
        let style = if bits == all && mask.is_some() && value & KEY == 0 { 0 } else { all };
        write_flags(&TUNNEL_FLAGS, value, bits, if style == 0 { !0 } else { style }, out);
        out.push_str("),");
    }
    chomp(out);
    out.push(')');
}

/// Removes a comma that nothing follows.
fn chomp(out: &mut String) {
    if out.ends_with(',') {
        out.pop();
    }
}

/// As [`write_some`], for options that are none when they are all zero: if nothing but zeros would be printed of options that are
/// there, then the other fields too, with a mask of 0.
fn write_option(fields: &[(&str, Kind, &[u8], &[u8])], out: &mut String) {
    let is_set = |bytes: &[u8]| bytes.iter().any(|&b| b != 0);
    let shows = fields.iter().any(|(_, _, value, mask)| is_set(value) && is_set(mask));
    for (name, kind, value, mask) in fields {
        if is_set(mask) || !shows && is_set(value) {
            out.push_str(name);
            out.push('=');
            kind.write(value, mask, out);
            out.push(',');
        }
    }
    chomp(out);
}

/// Appends the fields with any bit in their mask, with commas between.
fn write_some(fields: &[(&str, Kind, &[u8], &[u8])], out: &mut String) {
    for (name, kind, value, mask) in fields {
        if mask.iter().any(|&b| b != 0) {
            out.push_str(name);
            out.push('=');
            kind.write(value, mask, out);
            out.push(',');
        }
    }
    chomp(out);
}

fn write_gbp(key: &[u8], mask: &[u8], is_masked: bool, out: &mut String) {
    let raw = |list: &[u8]| {
        let gbp = walk(list, VXLAN).flatten().find(|a| a.0 == vxlan::GBP);
        gbp.and_then(|(_, raw)| raw.try_into().ok()).map_or([0; 4], |raw| u32::from_ne_bytes(raw).to_be_bytes())
    };
    let (value, mask) = (raw(key), if is_masked { raw(mask) } else { [0xff; 4] });
    out.push_str("vxlan(gbp(");
    write_option(
        &[("id", Kind::Dec(2), &value[2..], &mask[2..]), ("flags", Kind::Hex(1), &value[1..2], &mask[1..2])],
        out,
    );
    out.push_str(")),");
}

fn write_geneve(value: &[u8], mask: &[u8], out: &mut String) {
    out.push_str("geneve(");
    write_options(value, mask, out);
    out.push_str("),");
}

/// Appends Geneve options, up to one that is cut off.
pub(super) fn write_options(value: &[u8], mask: &[u8], out: &mut String) {
    let mut at = 0;
    while let (Some(header), Some(bits)) = (value.get(at..at + 4), mask.get(at..at + 4)) {
        let len = usize::from(header[3] & 0x1f) * 4;
        let (Some(data), Some(data_mask)) = (value.get(at + 4..at + 4 + len), mask.get(at + 4..at + 4 + len)) else {
            break;
        };
        out.push('{');
        let class = ("class", Kind::Hex(2), &header[..2], &bits[..2]);
        let kind = ("type", Kind::Hex(1), &header[2..3], &bits[2..3]);
        let start = out.len();
        write_some(&[class, kind], out);
        let comma = if out.len() > start { "," } else { "" };
        // The length is needed to read the data, also where it is not matched.
        write!(out, "{comma}len={len}");
        if bits[3] & 0x1f != 0x1f {
            out.push('/');
            hex(u64::from(bits[3] & 0x1f), out);
        }
        if data_mask.iter().any(|&b| b != 0) {
            out.push(',');
            write_bytes(data, out);
            if data_mask.iter().any(|&b| b != 0xff) {
                out.push('/');
                write_bytes(data_mask, out);
            }
        }
        out.push('}');
        at += 4 + len;
    }
}

fn write_erspan(value: &[u8], mask: &[u8], out: &mut String) {
    let version = value[..4].try_into().map_or(0, i32::from_ne_bytes);
    write!(out, "erspan(ver={version}");
    if mask[..4] == [0; 4] {
        out.push_str("/0");
    }
    out.push(',');
    match version {
        1 => write_some(&[("idx", Kind::Hex(4), &value[4..8], &mask[4..8])], out),
        2 => {
            let parts = |bytes: &[u8]| ([bytes[11] >> 3 & 1], [(bytes[10] & 3) << 4 | bytes[11] >> 4]);
            let ((dir, hwid), (dir_mask, hwid_mask)) = (parts(value), parts(mask));
            // All bits that there are is all.
            let dir_mask = [if dir_mask[0] == 1 { 0xff } else { 0 }];
            let hwid_mask = [if hwid_mask[0] == 0x3f { 0xff } else { hwid_mask[0] }];
            write_some(&[("dir", Kind::Dec(1), &dir, &dir_mask), ("hwid", Kind::Hex(1), &hwid, &hwid_mask)], out);
        }
        _ => {}
    }
    chomp(out);
    out.push_str("),");
}

/// Appends bytes as one hexadecimal number.
pub(super) fn write_bytes(bytes: &[u8], out: &mut String) {
    let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    match digits.trim_start_matches('0') {
        "" => out.push('0'),
        digits => out.extend(["0x", digits]),
    }
}

/// The fields of NSH: name, bytes in base or context, spelling, whether the 24 bits of the path are meant.
const NSH_FIELDS: [(&str, usize, Kind); 10] = [
    ("flags", 0, Kind::Dec(1)),
    ("ttl", 1, Kind::Dec(1)),
    ("mdtype", 2, Kind::Dec(1)),
    ("np", 3, Kind::Dec(1)),
    ("spi", 4, Kind::Word),
    ("si", 7, Kind::Dec(1)),
    ("c1", 8, Kind::Word),
    ("c2", 12, Kind::Word),
    ("c3", 16, Kind::Word),
    ("c4", 20, Kind::Word),
];

/// Base (8 bytes) and context (16 bytes) of an NSH header.
pub(super) type NshBytes = [u8; 24];

/// Reads the fields of `nsh(…)` or `push_nsh(…)` up to the closing parenthesis. `other` may take a field that is unknown.
pub(super) fn read_nsh(
    scan: &mut Scan<'_>,
    name: &'static str,
    value: &mut NshBytes,
    mask: &mut NshBytes,
    mut other: impl FnMut(&mut Scan<'_>) -> Result<bool, TextError>,
) -> Result<(), TextError> {
    scan.set_field(name, "");
    while !scan.eat(")") {
        let here = NSH_FIELDS.iter().find(|(field, ..)| {
            let behind = scan.rest().strip_prefix(field);
            behind.is_some_and(|behind| behind.starts_with('='))
        });
        match here {
            Some((field, at, kind)) => {
                scan.set_field(name, field);
                scan.eat(field);
                scan.need("=")?;
                if *field == "spi" {
                    // 24 bits; a full mask may be written with 32.
                    let spi = scan.number(0xff_ffff)?;
                    let bits = if scan.eat("/") { scan.number(u32::MAX.into())? } else { 0xff_ffff };
                    value[4..7].copy_from_slice(&(spi as u32).to_be_bytes()[1..]);
                    mask[4..7].copy_from_slice(&(bits as u32).to_be_bytes()[1..]);
                } else {
                    let range = *at..*at + kind.len();
                    kind.read(scan, &mut value[range.clone()], &mut mask[range])?;
                }
            }
            None if other(scan)? => {}
            None => return scan.expected("a field of it, or )"),
        }
        scan.set_field(name, "");
        if !scan.eat(",") && !scan.rest().starts_with(')') {
            return scan.expected(", or )");
        }
    }
    scan.set_field("", "");
    Ok(())
}

/// Reads what follows `nsh(`.
pub(super) fn read_nsh_key(scan: &mut Scan<'_>, lists: &mut Lists) -> Result<(), TextError> {
    let (mut value, mut mask) = ([0; 24], [0; 24]);
    read_nsh(scan, "nsh", &mut value, &mut mask, |_| Ok(false))?;
    let mut inner = Lists::default();
    inner.put(scan, n::BASE, &value[..8], &mask[..8])?;
    inner.put(scan, n::MD1, &value[8..], &mask[8..])?;
    lists.nest(scan, k::NSH, inner)
}

/// Gathers base and context from nested attributes.
pub(super) fn nsh_bytes(list: &[u8]) -> NshBytes {
    let mut out = [0; 24];
    for (number, payload) in walk(list, NSH).flatten() {
        match (number, payload.len()) {
            (n::BASE, 8) => out[..8].copy_from_slice(payload),
            (n::MD1, 16) => out[8..].copy_from_slice(payload),
            _ => {}
        }
    }
    out
}

/// Appends `nsh(…)`.
pub(super) fn write_nsh(value: &NshBytes, mask: &NshBytes, out: &mut String) {
    out.push_str("nsh(");
    for (name, at, kind) in NSH_FIELDS {
        let len = if name == "spi" { 3 } else { kind.len() };
        let (v, m) = (&value[at..at + len], &mask[at..at + len]);
        if m.iter().all(|&b| b == 0) {
            continue;
        }
        out.push_str(name);
        out.push('=');
        let is_exact = m.iter().all(|&b| b == 0xff);
        match (kind, is_exact) {
            (Kind::Dec(_), false) => write!(out, "0x{:02x}/0x{:02x}", v[0], m[0]),
            _ => {
                kind.write(v, m, out);
            }
        };
        out.push(',');
    }
    chomp(out);
    out.push(')');
}

/// Appends a nest of attributes; text is too short for one that is too long.
pub(super) fn nest_all(out: &mut Vec<u8>, number: u16, inner: &[u8]) -> bool {
    nested(out, number, |out| out.extend_from_slice(inner))
}
