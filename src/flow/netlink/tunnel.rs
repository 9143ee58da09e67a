//! `OVS_KEY_ATTR_TUNNEL`: the outer header's fields, and one kind of options.
//!
//! The kinds share `TunnelLine::opts`; a bit of `flags` says which it is. In a mask the bit of the key's kind goes with
//! its bytes, and the bit of another kind says that a packet with such options does not match. Options that are all zero
//! (GBP, GTP-U) or empty (Geneve) are no options: Open vSwitch cannot tell them apart.

use zerocopy::byteorder::network_endian::{U16, U64};

use super::super::attr::{tunnel as t, vxlan};
use super::super::key::{
    FlowKey, TUNNEL_CSUM, TUNNEL_DF, TUNNEL_ERSPAN, TUNNEL_GBP, TUNNEL_GENEVE, TUNNEL_GTPU, TUNNEL_KEY, TUNNEL_OAM,
    TunnelLine,
};
use super::wire::{CodecError, Fault, Set, TUNNEL, VXLAN, nested, part, put};

/// All kinds of options.
pub(crate) const KINDS: u16 = TUNNEL_GBP | TUNNEL_ERSPAN | TUNNEL_GTPU | TUNNEL_GENEVE;
/// Bytes of Geneve options at most: the header's length field counts 63 words.
pub(crate) const GENEVE_MAX: usize = 252;

const ONE_KIND: &str = "options of another kind are there too";

/// True if the key was in a tunnel, or the mask matches that.
pub(crate) fn is_present(key: &FlowKey) -> bool {
    key.lines()[4..].iter().flatten().any(|&word| word != 0)
}

/// The Geneve options of a key.
pub(crate) fn geneve<'a>(line: &TunnelLine, options: &'a [u8; 256]) -> &'a [u8] {
    let len = if line.flags & TUNNEL_GENEVE != 0 { usize::from(line.opts[0]) * 4 } else { 0 };
    &options[..len.min(GENEVE_MAX)]
}

/// Reads a key. With `complete` it has to have a TTL, as in Open vSwitch.
pub(super) fn decode_key(
    bytes: &[u8],
    complete: bool,
    out: &mut TunnelLine,
    options: &mut [u8; 256],
) -> Result<(), CodecError> {
    let mut set = Set::read(bytes, TUNNEL)?;
    if complete && !set.has(t::TTL) {
        return Err(TUNNEL.error(t::TTL, Fault::Missing));
    }
    outer(&mut set, out)?;
    let mut kind = |number: u16, bit: u16, opts: [u8; 8]| {
        if out.flags & KINDS != 0 {
            return Err(TUNNEL.error(number, Fault::Unexpected(ONE_KIND)));
        }
        out.flags |= bit;
        out.opts = opts;
        Ok(())
    };
    if let Some((id, flags)) = gbp(&mut set)?
        && (id, flags) != ([0; 2], 0)
    {
        kind(t::VXLAN_OPTS, TUNNEL_GBP, [id[0], id[1], flags, 0, 0, 0, 0, 0])?;
    }
    if let Some(payload) = set.take(t::GENEVE_OPTS) {
        check_geneve(payload)?;
        if !payload.is_empty() {
            kind(t::GENEVE_OPTS, TUNNEL_GENEVE, [(payload.len() / 4) as u8, 0, 0, 0, 0, 0, 0, 0])?;
            options[..payload.len()].copy_from_slice(payload);
            clear_reserved(payload, options);
        }
    }
    if let Some(payload) = set.take_array::<12>(t::ERSPAN_OPTS)? {
        match i32::from_ne_bytes(part(&payload, 0)) {
            0 => {}
            version @ (1 | 2) => kind(t::ERSPAN_OPTS, TUNNEL_ERSPAN, erspan(version as u8, version as u8, &payload))?,
            _ => return Err(TUNNEL.error(t::ERSPAN_OPTS, Fault::Invalid("its version is neither 1 nor 2"))),
        }
    }
    if let Some(payload) = set.take_array::<2>(t::GTPU_OPTS)?
        && payload != [0; 2]
    {
        kind(t::GTPU_OPTS, TUNNEL_GTPU, [payload[0], payload[1], 0, 0, 0, 0, 0, 0])?;
    }
    set.finish("it says nothing")
}

/// Reads the mask of `key`.
pub(super) fn decode_mask(
    bytes: &[u8],
    key: &FlowKey,
    out: &mut TunnelLine,
    options: &mut [u8; 256],
) -> Result<(), CodecError> {
    let mut set = Set::read(bytes, TUNNEL)?;
    outer(&mut set, out)?;
    if key.tunnel.flags & TUNNEL_KEY == 0 {
        // That there is none has been matched.
        out.id = U64::ZERO;
    }
    let kind = key.tunnel.flags & KINDS;
    if let Some((id, flags)) = gbp(&mut set)? {
        out.flags |= TUNNEL_GBP;
        if kind == TUNNEL_GBP {
            [out.opts[0], out.opts[1], out.opts[2]] = [id[0], id[1], flags];
        }
    }
    if let Some(payload) = set.take(t::GENEVE_OPTS) {
        let want = geneve(&key.tunnel, &key.options).len();
        if payload.len() != want {
            return Err(TUNNEL.error(t::GENEVE_OPTS, Fault::Length { got: payload.len(), want }));
        }
        out.flags |= TUNNEL_GENEVE;
        if kind == TUNNEL_GENEVE {
            out.opts[0] = 0xff;
            options[..want].copy_from_slice(payload);
            clear_reserved(geneve(&key.tunnel, &key.options), options);
        }
    }
    if let Some(payload) = set.take_array::<12>(t::ERSPAN_OPTS)? {
        out.flags |= TUNNEL_ERSPAN;
        if kind == TUNNEL_ERSPAN {
            let version = if payload[..4] == [0; 4] { 0 } else { 0xff };
            out.opts = erspan(key.tunnel.opts[0], version, &payload);
        }
    }
    if let Some(payload) = set.take_array::<2>(t::GTPU_OPTS)? {
        out.flags |= TUNNEL_GTPU;
        if kind == TUNNEL_GTPU {
            [out.opts[0], out.opts[1]] = payload;
        }
    }
    set.finish("it says nothing")
}

/// What does not depend on the kind of options.
fn outer(set: &mut Set<'_>, out: &mut TunnelLine) -> Result<(), CodecError> {
    if let Some(id) = set.take_array(t::ID)? {
        out.id = U64::from_bytes(id);
        out.flags |= TUNNEL_KEY;
    }
    out.ipv4_src = set.take_array(t::IPV4_SRC)?.unwrap_or_default();
    out.ipv4_dst = set.take_array(t::IPV4_DST)?.unwrap_or_default();
    out.ipv6_src = set.take_array(t::IPV6_SRC)?.unwrap_or_default();
    out.ipv6_dst = set.take_array(t::IPV6_DST)?.unwrap_or_default();
    [out.tos] = set.take_array(t::TOS)?.unwrap_or_default();
    [out.ttl] = set.take_array(t::TTL)?.unwrap_or_default();
    out.tp_src = set.take_array(t::TP_SRC)?.map_or(U16::ZERO, U16::from_bytes);
    out.tp_dst = set.take_array(t::TP_DST)?.map_or(U16::ZERO, U16::from_bytes);
    for (number, bit) in FLAGS {
        if set.take_array::<0>(number)?.is_some() {
            out.flags |= bit;
        }
    }
    set.take(t::PAD);
    Ok(())
}

/// Attributes without a payload.
const FLAGS: [(u16, u16); 3] = [(t::DONT_FRAGMENT, TUNNEL_DF), (t::CSUM, TUNNEL_CSUM), (t::OAM, TUNNEL_OAM)];

/// Group based policy: the id in network order, and the flags.
fn gbp(set: &mut Set<'_>) -> Result<Option<([u8; 2], u8)>, CodecError> {
    let Some(payload) = set.take(t::VXLAN_OPTS) else { return Ok(None) };
    let mut set = Set::read(payload, VXLAN)?;
    let raw = set.take_u32(vxlan::GBP)?;
    set.finish("it says nothing")?;
    Ok(raw.map(|raw| ((raw as u16).to_be_bytes(), (raw >> 16) as u8)))
}

/// `struct erspan_metadata` of `version` as `opts`. `first` is what becomes the first byte.
///
/// Version 1 has a 32-bit index. Version 2 has in its last two bytes `p ft(5) hwid_upper(2)` and `hwid(4) dir gra(2) o`.
fn erspan(version: u8, first: u8, payload: &[u8; 12]) -> [u8; 8] {
    if version == 1 {
        let index = part::<4>(payload, 4);
        [first, 0, 0, 0, index[0], index[1], index[2], index[3]]
    } else {
        let hwid = (payload[10] & 3) << 4 | payload[11] >> 4;
        [first, payload[11] >> 3 & 1, hwid, 0, 0, 0, 0, 0]
    }
}

/// The options must be a chain of whole ones: class (2), type (1), length in words (5 bits), data.
fn check_geneve(payload: &[u8]) -> Result<(), CodecError> {
    let error = |fault| Err(TUNNEL.error(t::GENEVE_OPTS, fault));
    if payload.len() > GENEVE_MAX || !payload.len().is_multiple_of(4) {
        return error(Fault::LengthRule { got: payload.len(), want: "a multiple of 4 up to 252" });
    }
    let mut rest = payload;
    while let Some(header) = rest.first_chunk::<4>() {
        let len = 4 + usize::from(header[3] & 0x1f) * 4;
        match rest.get(len..) {
            Some(behind) => rest = behind,
            None => return error(Fault::Invalid("an option is longer than what is left")),
        }
    }
    Ok(())
}

/// Clears the three bits of each option's header in `bytes` that mean nothing (RFC 8926 §3.5: ignored on receipt), so that
/// they are not matched. `chain` says where the headers are.
fn clear_reserved(chain: &[u8], bytes: &mut [u8; 256]) {
    let mut at = 0;
    while let (Some(length), Some(byte)) = (chain.get(at + 3), bytes.get_mut(at + 3)) {
        *byte &= 0x1f;
        at += 4 + usize::from(length & 0x1f) * 4;
    }
}

/// Appends what is inside the attribute.
pub(super) fn encode_key(line: &TunnelLine, options: &[u8; 256], out: &mut Vec<u8>) {
    encode_outer(line, out);
    let o = &line.opts;
    if line.flags & TUNNEL_GBP != 0 {
        put_gbp(u32::from(o[2]) << 16 | u32::from(o[0]) << 8 | u32::from(o[1]), out);
    }
    if line.flags & TUNNEL_GENEVE != 0 {
        put(out, t::GENEVE_OPTS, geneve(line, options));
    }
    if line.flags & TUNNEL_ERSPAN != 0 {
        put_erspan(o[0], o[0], o, out);
    }
    if line.flags & TUNNEL_GTPU != 0 {
        put(out, t::GTPU_OPTS, &o[..2]);
    }
}

/// Appends what is inside the attribute of the mask.
pub(super) fn encode_mask(key: &FlowKey, mask: &FlowKey, out: &mut Vec<u8>) {
    let line = &mask.tunnel;
    encode_outer(line, out);
    let kind = key.tunnel.flags & KINDS;
    let o = &line.opts;
    if line.flags & TUNNEL_GBP != 0 {
        let bits = if kind == TUNNEL_GBP { [0, o[2], o[0], o[1]] } else { [0, 0xff, 0xff, 0xff] };
        put_gbp(u32::from_be_bytes(bits), out);
    }
    if line.flags & TUNNEL_GENEVE != 0 {
        put(out, t::GENEVE_OPTS, &mask.options[..geneve(&key.tunnel, &key.options).len()]);
    }
    if line.flags & TUNNEL_ERSPAN != 0 {
        // As the version's mask Open vSwitch accepts only a version.
        match kind == TUNNEL_ERSPAN {
            true => put_erspan(key.tunnel.opts[0], if o[0] == 0 { 0 } else { key.tunnel.opts[0] }, o, out),
            false => put_erspan(1, 1, &[0xff; 8], out),
        }
    }
    if line.flags & TUNNEL_GTPU != 0 {
        put(out, t::GTPU_OPTS, if kind == TUNNEL_GTPU { &o[..2] } else { &[0xff; 2] });
    }
}

fn encode_outer(line: &TunnelLine, out: &mut Vec<u8>) {
    if line.flags & TUNNEL_KEY != 0 || line.id != U64::ZERO {
        put(out, t::ID, &line.id.to_bytes());
    }
    let mut put_some = |number: u16, payload: &[u8]| {
        if payload.iter().any(|&b| b != 0) {
            put(out, number, payload);
        }
    };
    put_some(t::IPV4_SRC, &line.ipv4_src);
    put_some(t::IPV4_DST, &line.ipv4_dst);
    put_some(t::IPV6_SRC, &line.ipv6_src);
    put_some(t::IPV6_DST, &line.ipv6_dst);
    put_some(t::TOS, &[line.tos]);
    put(out, t::TTL, &[line.ttl]);
    for (number, bit) in FLAGS {
        if line.flags & bit != 0 {
            put(out, number, &[]);
        }
    }
    if line.tp_src != U16::ZERO {
        put(out, t::TP_SRC, &line.tp_src.to_bytes());
    }
    if line.tp_dst != U16::ZERO {
        put(out, t::TP_DST, &line.tp_dst.to_bytes());
    }
}

fn put_gbp(raw: u32, out: &mut Vec<u8>) {
    nested(out, t::VXLAN_OPTS, |out| put(out, vxlan::GBP, &raw.to_ne_bytes()));
}

fn put_erspan(version: u8, first: u8, opts: &[u8; 8], out: &mut Vec<u8>) {
    let mut payload = [0; 12];
    payload[..4].copy_from_slice(&i32::from(first).to_ne_bytes());
    if version == 1 {
        payload[4..8].copy_from_slice(&opts[4..]);
    } else {
        payload[10] = opts[2] >> 4 & 3;
        payload[11] = opts[2] << 4 | (opts[1] & 1) << 3;
    }
    put(out, t::ERSPAN_OPTS, &payload);
}

/// Matches all of the outer header, the key's options, and that there are no others.
pub(super) fn exact_mask(key: &FlowKey, mask: &mut FlowKey) {
    let (line, m) = (&key.tunnel, &mut mask.tunnel);
    m.flags = TUNNEL_DF | TUNNEL_CSUM | TUNNEL_OAM | KINDS;
    if line.flags & TUNNEL_KEY != 0 {
        m.flags |= TUNNEL_KEY;
        m.id = U64::new(u64::MAX);
    }
    (m.ipv4_src, m.ipv4_dst) = ([0xff; 4], [0xff; 4]);
    (m.ipv6_src, m.ipv6_dst) = ([0xff; 16], [0xff; 16]);
    (m.tos, m.ttl) = (0xff, 0xff);
    (m.tp_src, m.tp_dst) = (U16::new(0xffff), U16::new(0xffff));
    match line.flags & KINDS {
        TUNNEL_GBP => m.opts = [0xff, 0xff, 0xff, 0, 0, 0, 0, 0],
        TUNNEL_GENEVE => {
            m.opts = [0xff, 0, 0, 0, 0, 0, 0, 0];
            let geneve = geneve(line, &key.options);
            mask.options[..geneve.len()].fill(0xff);
            clear_reserved(geneve, &mut mask.options);
        }
        TUNNEL_ERSPAN if line.opts[0] == 1 => m.opts = [0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        TUNNEL_ERSPAN => m.opts = [0xff, 1, 0x3f, 0, 0, 0, 0, 0],
        TUNNEL_GTPU => m.opts = [0xff, 0xff, 0, 0, 0, 0, 0, 0],
        _ => {}
    }
}
