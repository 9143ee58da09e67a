//! Actions ⇄ text.

use super::super::action::{Action, Actions, HashAlgorithm, Nsh, SetField, Userspace};
use super::super::attr::key as k;
use super::super::netlink::{DEPTH_MAX, KEY, NSH_TLVS_MAX, apart, decode_apart, encode_set, walk};
use super::key::{Lists, read_attribute, read_labels, read_tci, write_attribute, write_label, write_tci};
use super::scan::{Scan, TextError, TextFault};
use super::table::hex;
use super::tunnel::{read_nsh, write_nsh};
use super::{Append as _, PortNames, push, tunnel};
use crate::wire::ethernet;

const MDTYPE_1: u8 = 1;
const MDTYPE_2: u8 = 2;

/// Actions of Open vSwitch that Wye cannot do.
const UNSUPPORTED: [&str; 2] = ["ct", "psample"];

/// Reads a list at the outermost level.
pub(super) fn read(scan: &mut Scan<'_>) -> Result<Actions, TextError> {
    scan.skip_delimiters();
    if scan.rest().is_empty() {
        return scan.expected("an action");
    }
    let mut actions = Actions::new();
    loop {
        scan.skip_delimiters();
        if scan.rest().is_empty() {
            return Ok(actions);
        }
        actions.push(read_action(scan, DEPTH_MAX)?);
        if !scan.rest().is_empty() && !scan.rest().starts_with([',', ' ', '\t', '\r', '\n']) {
            return scan.expected("a comma or the end");
        }
    }
}

/// Reads the list in an action, with its closing parenthesis. `drop` alone is the empty list.
fn read_list(scan: &mut Scan<'_>, depth: usize) -> Result<Actions, TextError> {
    let Some(depth) = depth.checked_sub(1) else { return Err(scan.error(TextFault::TooDeep)) };
    let mut actions = Actions::new();
    if scan.eat("drop)") {
        return Ok(actions);
    }
    loop {
        scan.skip_delimiters();
        if scan.eat(")") {
            return Ok(actions);
        }
        actions.push(read_action(scan, depth)?);
        if !scan.rest().starts_with([')', ',', ' ', '\t', '\r', '\n']) {
            return scan.expected("a comma or )");
        }
    }
}

fn read_action(scan: &mut Scan<'_>, depth: usize) -> Result<Action, TextError> {
    scan.set_field("", "");
    for (name, action) in [
        ("pop_vlan", Action::PopVlan),
        ("pop_eth", Action::PopEth),
        ("pop_nsh()", Action::PopNsh),
        ("pop_nsh", Action::PopNsh),
        ("dec_ttl(le_1(drop))", Action::DecTtl),
        ("dec_ttl(le_1())", Action::DecTtl),
        ("dec_ttl", Action::DecTtl),
        ("drop", Action::Drop(0)),
    ] {
        if scan.word(name) {
            return Ok(action);
        }
    }
    if let Some((_, make)) = NUMBERS.iter().find(|(name, _)| scan.open(name)) {
        let number = scan.number(u32::MAX.into())? as u32;
        scan.need(")")?;
        return Ok(make(number));
    }
    if scan.open("tnl_pop") {
        let port = scan.port()?;
        scan.need(")")?;
        return Ok(Action::TunnelPop(port));
    }
    if scan.open("tnl_push") {
        return push::read(scan).map(|push| Action::TunnelPush(Box::new(push)));
    }
    if scan.open("encap") {
        scan.need("tunnel=")?;
        let tunnel = scan.number(u32::MAX.into())? as u32;
        let id = match scan.eat(",") {
            true => {
                scan.need("tun_id=")?;
                Some(scan.number(u32::MAX.into())? as u32)
            }
            false => None,
        };
        scan.need(")")?;
        return Ok(Action::Encap { tunnel, id });
    }
    if scan.open("set") {
        let field = read_set(scan)?;
        scan.need(")")?;
        return Ok(Action::Set(field));
    }
    if scan.open("push_vlan") {
        let mut tpid = ethernet::VLAN;
        let (tci, _) = read_tci(scan, "push_vlan", |scan| {
            let here = scan.eat("tpid=");
            if here {
                tpid = scan.number(0xffff)? as u16;
            }
            Ok(here)
        })?;
        return Ok(Action::PushVlan { tpid, tci });
    }
    if scan.open("push_mpls") {
        let (lse, ethertype, _) = read_push_mpls(scan, "push_mpls")?;
        return Ok(Action::PushMpls { lse, ethertype });
    }
    if scan.open("add_mpls") {
        let (lse, ethertype, tun_flags) = read_push_mpls(scan, "add_mpls")?;
        return Ok(Action::AddMpls { lse, ethertype, tun_flags });
    }
    if scan.open("pop_mpls") {
        scan.need("eth_type=")?;
        let ethertype = scan.number(0xffff)? as u16;
        scan.need(")")?;
        return Ok(Action::PopMpls { ethertype });
    }
    if scan.open("push_eth") {
        scan.need("src=")?;
        let src = scan.mac()?;
        scan.need(",")?;
        scan.need("dst=")?;
        let dst = scan.mac()?;
        scan.need(")")?;
        return Ok(Action::PushEth { dst, src });
    }
    if scan.open("push_nsh") {
        return read_push_nsh(scan).map(Action::PushNsh);
    }
    if scan.open("hash") {
        let algorithm = match () {
            () if scan.open("l4") => HashAlgorithm::L4,
            () if scan.open("sym_l4") => HashAlgorithm::SymL4,
            () => return scan.expected("l4( or sym_l4("),
        };
        let basis = scan.number(u32::MAX.into())? as u32;
        scan.need(")")?;
        scan.need(")")?;
        return Ok(Action::Hash { algorithm, basis });
    }
    if scan.open("sample") {
        scan.need("sample=")?;
        let probability = read_percentage(scan)?;
        scan.need(",")?;
        scan.need("actions(")?;
        let actions = read_list(scan, depth)?;
        scan.need(")")?;
        return Ok(Action::Sample { probability, actions });
    }
    if scan.open("clone") {
        return read_list(scan, depth).map(Action::Clone);
    }
    if scan.open("check_pkt_len") {
        scan.need("size=")?;
        let len = scan.number(0xffff)? as u16;
        scan.need(",")?;
        scan.need("gt(")?;
        let if_greater = read_list(scan, depth)?;
        scan.need(",")?;
        scan.need("le(")?;
        let if_less_equal = read_list(scan, depth)?;
        scan.need(")")?;
        return Ok(Action::CheckPktLen { len, if_greater, if_less_equal });
    }
    if scan.open("userspace") {
        return read_userspace(scan).map(Action::Userspace);
    }
    let start = scan.at();
    if scan.word("ct_clear") || UNSUPPORTED.iter().any(|name| scan.open(name)) {
        return Err(scan.error_at(start, TextFault::Unsupported));
    }
    let port = scan.port();
    port.map(Action::Output).map_err(|error| match error.fault {
        TextFault::Expected(_) => scan.error_at(start, TextFault::Expected("an action, or a port's number or name")),
        _ => error,
    })
}

/// An action made of a number.
type OfNumber = (&'static str, fn(u32) -> Action);

const NUMBERS: [OfNumber; 5] = [
    ("lb_output", Action::LbOutput),
    ("trunc", Action::Trunc),
    ("recirc", Action::Recirc),
    ("meter", Action::Meter),
    ("drop", Action::Drop),
];

fn read_set(scan: &mut Scan<'_>) -> Result<SetField, TextError> {
    let start = scan.at();
    let mut lists = Lists::default();
    if !read_attribute(scan, &mut lists, 0)? {
        return scan.expected("a field to set, such as ipv4(ttl=64)");
    }
    let attributes = (walk(&lists.key, KEY).flatten().next(), walk(&lists.mask, KEY).flatten().next());
    let (Some((number, value)), Some((_, mask))) = attributes else {
        return Err(scan.error_at(start, TextFault::Unsupported));
    };
    decode_apart(number, value, mask).map_err(|error| scan.error_at(start, TextFault::Codec(Box::new(error))))
}

fn read_push_mpls(scan: &mut Scan<'_>, of: &'static str) -> Result<(u32, u16, u16), TextError> {
    let (mut ethertype, mut tun_flags) = (None, 0);
    let start = scan.at();
    let entries = read_labels(scan, of, |scan| {
        if scan.eat("eth_type=") {
            ethertype = Some(scan.number(0xffff)? as u16);
        } else if of == "add_mpls" && scan.eat("tun_flags=") {
            tun_flags = scan.number(0xffff)? as u16;
        } else {
            return Ok(false);
        }
        Ok(true)
    })?;
    let [(lse, _)] = entries.as_slice() else {
        return Err(scan.error_at(start, TextFault::Expected("one label stack entry")));
    };
    match ethertype {
        Some(ethertype) => Ok((*lse, ethertype, tun_flags)),
        None => Err(scan.error_at(start, TextFault::Expected("eth_type="))),
    }
}

fn read_push_nsh(scan: &mut Scan<'_>) -> Result<Nsh, TextError> {
    let start = scan.at();
    let mut value = [0; 24];
    // ttl 63, metadata type 1, next protocol Ethernet, service index 255.
    [value[1], value[2], value[3], value[7]] = [63, MDTYPE_1, 3, 255];
    let mut tlvs = None;
    read_nsh(scan, "push_nsh", &mut value, &mut [0; 24], |scan| {
        if !scan.eat("md2=") {
            return Ok(false);
        }
        // As a row of bytes, not as a number: zeros in front count.
        scan.eat("0x");
        let at = scan.at();
        let digits = scan.run(|c| c.is_ascii_hexdigit());
        let bytes = hex_bytes(digits).filter(|bytes| bytes.len() <= NSH_TLVS_MAX);
        let mut bytes = bytes.ok_or_else(|| scan.error_at(at, TextFault::Expected("up to 248 hexadecimal bytes")))?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        tlvs = Some(bytes);
        Ok(true)
    })?;
    let [flags, ttl, mdtype, np, ..] = value;
    let path_hdr = u32::from_be_bytes([value[4], value[5], value[6], value[7]]);
    let context = match (mdtype, tlvs) {
        (MDTYPE_1, None) => value[8..].to_vec(),
        (MDTYPE_2, tlvs) => tlvs.unwrap_or_default(),
        _ => return Err(scan.error_at(start, TextFault::Expected("mdtype=1 and c1 to c4, or mdtype=2 and md2"))),
    };
    Ok(Nsh { flags, ttl, mdtype, np, path_hdr, context })
}

/// Bytes of two digits each.
pub(super) fn hex_bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?, 16).ok()).collect()
}

/// `50.0%` as a share of 2³² − 1.
fn read_percentage(scan: &mut Scan<'_>) -> Result<u32, TextError> {
    let start = scan.at();
    let number = scan.run(|c| c.is_ascii_digit() || c == '.');
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => {
            scan.need("%")?;
            Ok((f64::from(u32::MAX) * (percent / 100.0)).round() as u32)
        }
        _ => Err(scan.error_at(start, TextFault::Expected("a percentage"))),
    }
}

fn read_userspace(scan: &mut Scan<'_>) -> Result<Userspace, TextError> {
    scan.set_field("userspace", "pid");
    scan.need("pid=")?;
    let mut out = Userspace { pid: scan.number(u32::MAX.into())? as u32, ..Userspace::default() };
    scan.set_field("userspace", "");
    while !scan.eat(")") {
        scan.need(",")?;
        let at = scan.at();
        if scan.open("userdata") {
            scan.set_field("userspace", "userdata");
            let digits = scan.run(|c| c.is_ascii_hexdigit() || c == ' ').replace(' ', "");
            let bytes = hex_bytes(&digits);
            out.userdata = Some(bytes.ok_or_else(|| scan.error_at(at, TextFault::Expected("hexadecimal bytes")))?);
            scan.need(")")?;
        } else if scan.eat("tunnel_out_port=") {
            scan.set_field("userspace", "tunnel_out_port");
            out.egress_tun_port = Some(scan.port()?);
        } else if scan.word("actions") {
            out.actions = true;
        } else {
            return scan.expected("userdata(…), actions or tunnel_out_port=");
        }
        scan.set_field("userspace", "");
    }
    scan.set_field("", "");
    Ok(out)
}

/// Appends a list of actions; an empty one is `drop`.
pub(super) fn write(actions: &Actions, names: &PortNames<'_>, out: &mut String) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    for (i, action) in actions.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_action(action, names, out);
    }
}

/// Appends a list inside of an action, where `drop` alone is the empty one.
fn write_inner(actions: &Actions, names: &PortNames<'_>, out: &mut String) {
    match actions.as_slice() {
        [Action::Drop(0)] => out.push_str("drop(0)"),
        _ => write(actions, names, out),
    }
}

fn write_action(action: &Action, names: &PortNames<'_>, out: &mut String) {
    match action {
        Action::Output(port) => {
            names.write(*port, out);
        }
        Action::LbOutput(bond) => write!(out, "lb_output({bond})"),
        Action::TunnelPop(port) => {
            out.push_str("tnl_pop(");
            names.write(*port, out);
            out.push(')')
        }
        Action::TunnelPush(push) => push::write(push, names, out),
        Action::Encap { tunnel, id: None } => write!(out, "encap(tunnel={tunnel})"),
        Action::Encap { tunnel, id: Some(id) } => write!(out, "encap(tunnel={tunnel},tun_id={id:#x})"),
        Action::Userspace(userspace) => write_userspace(userspace, names, out),
        Action::Set(field) => {
            out.push_str("set(");
            write_set(field, names, out);
            out.push(')')
        }
        Action::PushVlan { tpid, tci } => {
            out.push_str("push_vlan(");
            if *tpid != ethernet::VLAN {
                write!(out, "tpid=0x{tpid:04x},");
            }
            write_tci(*tci, 0xffff, out);
            out.push(')')
        }
        Action::PopVlan => out.push_str("pop_vlan"),
        Action::PushMpls { lse, ethertype } => {
            out.push_str("push_mpls(");
            write_label(*lse, out);
            write!(out, ",eth_type=0x{ethertype:x})")
        }
        Action::AddMpls { lse, ethertype, tun_flags } => {
            out.push_str("add_mpls(");
            write_label(*lse, out);
            write!(out, ",eth_type=0x{ethertype:x}");
            if *tun_flags != 0 {
                write!(out, ",tun_flags=0x{tun_flags:x}");
            }
            out.push(')')
        }
        Action::PopMpls { ethertype } => write!(out, "pop_mpls(eth_type=0x{ethertype:x})"),
        Action::PushEth { dst, src } => {
            let mac = |mac: &[u8; 6]| mac.map(|b| format!("{b:02x}")).join(":");
            write!(out, "push_eth(src={},dst={})", mac(src), mac(dst))
        }
        Action::PopEth => out.push_str("pop_eth"),
        Action::PushNsh(nsh) => write_push_nsh(nsh, out),
        Action::PopNsh => out.push_str("pop_nsh()"),
        Action::DecTtl => out.push_str("dec_ttl"),
        Action::Recirc(id) => {
            out.push_str("recirc(");
            hex((*id).into(), out);
            out.push(')')
        }
        Action::Hash { algorithm: HashAlgorithm::L4, basis } => write!(out, "hash(l4({basis}))"),
        Action::Hash { algorithm: HashAlgorithm::SymL4, basis } => write!(out, "hash(sym_l4({basis}))"),
        Action::Sample { probability, actions } => {
            out.push_str("sample(sample=");
            write_percentage(*probability, out);
            out.push_str(",actions(");
            write_inner(actions, names, out);
            out.push_str("))")
        }
        Action::Clone(actions) => {
            out.push_str("clone(");
            write_inner(actions, names, out);
            out.push(')')
        }
        Action::CheckPktLen { len, if_greater, if_less_equal } => {
            write!(out, "check_pkt_len(size={len},gt(");
            write_inner(if_greater, names, out);
            out.push_str("),le(");
            write_inner(if_less_equal, names, out);
            out.push_str("))")
        }
        Action::Trunc(len) => write!(out, "trunc({len})"),
        Action::Meter(id) => write!(out, "meter({id})"),
        Action::Drop(0) => out.push_str("drop"),
        Action::Drop(reason) => write!(out, "drop({reason})"),
    };
}

fn write_set(field: &SetField, names: &PortNames<'_>, out: &mut String) {
    match (field, apart(field)) {
        (_, Some(apart)) => write_attribute(apart.number, &apart.value, &apart.mask, names, out),
        (SetField::Nsh { flags, ttl, path_hdr, context }, _) => {
            let (mut value, mut mask) = ([0; 24], [0; 24]);
            for (bytes, flags, ttl, path, context) in [
                (&mut value, flags.value, ttl.value, path_hdr.value, context.value),
                (&mut mask, flags.mask, ttl.mask, path_hdr.mask, context.mask),
            ] {
                [bytes[0], bytes[1]] = [flags, ttl];
                bytes[4..8].copy_from_slice(&path.to_be_bytes());
                bytes[8..].copy_from_slice(&context);
            }
            write_nsh(&value, &mask, out);
        }
        (field, None) => {
            let mut list = Vec::new();
            encode_set(field, &mut list);
            for (number, payload) in walk(&list, KEY).flatten() {
                debug_assert_eq!(number, k::TUNNEL);
                tunnel::write(payload, None, out);
            }
        }
    }
}

fn write_push_nsh(nsh: &Nsh, out: &mut String) {
    let Nsh { flags, ttl, mdtype, np, path_hdr, context } = nsh;
    let (spi, si) = (path_hdr >> 8, path_hdr & 0xff);
    write!(out, "push_nsh(flags={flags},ttl={ttl},mdtype={mdtype},np={np},spi=0x{spi:x},si={si}");
    if *mdtype == MDTYPE_1 {
        for (i, word) in context.chunks_exact(4).enumerate() {
            let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
            write!(out, ",c{}=0x{word:x}", i + 1);
        }
    } else {
        out.push_str(",md2=0x");
        for byte in context {
            write!(out, "{byte:02x}");
        }
    }
    out.push(')')
}

/// One digit behind the point, as Open vSwitch, unless that would not be read as the same.
fn write_percentage(probability: u32, out: &mut String) {
    let percent = 100.0 * f64::from(probability) / f64::from(u32::MAX);
    let same = |text: &str| {
        let percent = text.parse::<f64>().unwrap_or(-1.0);
        (f64::from(u32::MAX) * (percent / 100.0)).round() as u32 == probability
    };
    let text = (1..17).map(|digits| format!("{percent:.digits$}")).find(|text| same(text));
    out.push_str(&text.unwrap_or(percent.to_string()));
    out.push('%');
}

fn write_userspace(userspace: &Userspace, names: &PortNames<'_>, out: &mut String) {
    write!(out, "userspace(pid={}", userspace.pid);
    if let Some(data) = &userspace.userdata {
        out.push_str(",userdata(");
        for byte in data {
            write!(out, "{byte:02x}");
        }
        out.push(')');
    }
    if userspace.actions {
        out.push_str(",actions");
    }
    if let Some(port) = userspace.egress_tun_port {
        out.push_str(",tunnel_out_port=");
        names.write(port, out);
    }
    out.push(')')
}
