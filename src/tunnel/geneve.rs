//! Geneve (RFC 8926).

use super::contract::{Opened, Options};
use crate::flow::key::{LINE_OPTIONS, LINE_TUNNEL, LineSet, TUNNEL_GENEVE, TUNNEL_KEY, TUNNEL_OAM, TunnelLine};
use crate::flow::{Ext, FlowKey};
use crate::packet::DropReason;
use crate::wire::ethernet;
use zerocopy::byteorder::network_endian::U64;

/// The UDP port that IANA assigned.
pub const PORT: u16 = 6081;
/// Length of the header without options.
pub const LEN: usize = 8;
/// Bytes of options at most: 63 words.
pub const OPTIONS_MAX: usize = 252;
/// Length of an option's header.
const OPTION_LEN: usize = 4;

/// In the second byte: a control packet.
const O: u8 = 0x80;
/// In the second byte: there are critical options.
const C: u8 = 0x40;
/// In an option's type: critical.
const OPTION_CRITICAL: u8 = 0x80;

/// One option (§3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneveOption<'a> {
    /// Option class.
    pub class: u16,
    /// Type, with the critical bit.
    pub kind: u8,
    /// Data, a multiple of 4 bytes.
    pub data: &'a [u8],
}

/// The options in `bytes`; an error where one is longer than what is left.
pub fn options(mut bytes: &[u8]) -> impl Iterator<Item = Result<GeneveOption<'_>, DropReason>> {
    core::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let option = (|| {
            let (head, rest) = bytes.split_first_chunk::<OPTION_LEN>()?;
            let (data, rest) = rest.split_at_checked(usize::from(head[3] & 0x1f) * 4)?;
            bytes = rest;
            Some(GeneveOption { class: u16::from_be_bytes([head[0], head[1]]), kind: head[2], data })
        })();
        if option.is_none() {
            bytes = &[];
        }
        Some(option.ok_or(DropReason::TunnelHeader))
    })
}

/// See [`Kind::open`](super::Kind::open). Reserved bits are ignored (§3.4).
#[inline(always)]
pub(super) fn open(bytes: &[u8], options: &Options, ext: &mut Ext) -> Result<Opened, DropReason> {
    let head: &[u8; LEN] = bytes.first_chunk().ok_or(DropReason::TunnelHeader)?;
    let options_len = usize::from(head[0] & 0x3f) * 4;
    if head[0] >> 6 != 0 {
        return Err(DropReason::TunnelHeader);
    }
    let layer3 = match u16::from_be_bytes([head[2], head[3]]) {
        ethernet::TEB => None,
        ethertype => Some(ethertype),
    };
    let tunnel = &mut ext.tunnel;
    tunnel.id = U64::new(u64::from_be_bytes(*head) >> 8 & 0xff_ffff);
    tunnel.flags |= TUNNEL_KEY | if head[1] & O != 0 { TUNNEL_OAM } else { 0 };
    if options_len != 0 || head[1] & C != 0 {
        let bytes = bytes.get(LEN..LEN + options_len).ok_or(DropReason::TunnelHeader)?;
        keep_options(bytes, options, ext)?;
    }
    Ok(Opened::new(LEN + options_len, layer3))
}

/// [`open`] of a header with few options, all of which are understood, in front of an Ethernet frame; returns its length, and the lines of the
/// key that it filled.
#[inline(always)]
pub(super) fn open_usual(bytes: &[u8], known: &Options, key: &mut FlowKey) -> Option<(usize, LineSet)> {
    let head: &[u8; LEN] = bytes.first_chunk()?;
    let [words, bits, high, low, ..] = *head;
    let len = usize::from(words & 0x3f) * 4;
    if words & 0xc0 != 0 || bits & (O | C) != 0 || u16::from_be_bytes([high, low]) != ethernet::TEB {
        return None;
    }
    key.tunnel.id = U64::new(u64::from_be_bytes(*head) >> 8 & 0xff_ffff);
    key.tunnel.flags = TUNNEL_KEY;
    if len == 0 {
        return Some((LEN, LINE_TUNNEL));
    }
    let data = bytes.get(LEN..LEN + len)?;
    let line = key.options.first_chunk_mut::<USUAL_OPTIONS>()?;
    *line = [0; USUAL_OPTIONS];
    line.get_mut(..len)?.copy_from_slice(data);
    let mut at = 0;
    while at < len {
        // A critical option makes its header critical too, so that there is none here unless a sender lies.
        let [.., kind, size] = *line.get(at..)?.first_chunk::<OPTION_LEN>()?;
        if kind & OPTION_CRITICAL != 0 && known.known_options.is_some() {
            return None;
        }
        line[at + 3] = size & 0x1f;
        at += OPTION_LEN + usize::from(size & 0x1f) * 4;
    }
    if at > len {
        return None;
    }
    key.tunnel.flags |= TUNNEL_GENEVE;
    key.tunnel.opts[0] = words & 0x3f;
    Some((LEN + len, LINE_TUNNEL | LINE_FIRST_OPTIONS))
}

/// Bytes of options that fit the first of their lines.
const USUAL_OPTIONS: usize = 64;
/// That line's bit.
const LINE_FIRST_OPTIONS: LineSet = LINE_OPTIONS & LINE_OPTIONS.wrapping_neg();

#[inline(always)]
fn keep_options(bytes: &[u8], known: &Options, ext: &mut Ext) -> Result<(), DropReason> {
    for option in options(bytes) {
        let option = option?;
        if let Some(known) = &known.known_options
            && option.kind & OPTION_CRITICAL != 0
            && !known.contains(&(option.class, option.kind))
        {
            return Err(DropReason::TunnelOption);
        }
    }
    if bytes.is_empty() {
        return Ok(());
    }
    ext.tunnel.flags |= TUNNEL_GENEVE;
    ext.tunnel.opts = [(bytes.len() / 4) as u8, 0, 0, 0, 0, 0, 0, 0];
    // Behind them is nothing: a key of fewer options must not show those of an earlier packet.
    ext.options = [0; 256];
    ext.options[..bytes.len()].copy_from_slice(bytes);
    clear_reserved(&mut ext.options[..bytes.len()]);
    ext.lines |= LINE_OPTIONS;
    Ok(())
}

/// Clears the reserved bits in front of each option's length: they are no part of what a flow matches.
fn clear_reserved(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(len) = bytes.get_mut(at + 3) {
        *len &= 0x1f;
        at += OPTION_LEN + usize::from(*len) * 4;
    }
}

/// Appends the header for what `tunnel` says, with `data` as options. `layer3` is the EtherType of an inner packet without Ethernet
/// header.
///
/// # Errors
/// Why there is no such header.
pub fn write(tunnel: &TunnelLine, data: &[u8], layer3: Option<u16>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let id = tunnel.id.get();
    if id > 0xff_ffff {
        return Err("a Geneve identifier has 24 bits");
    }
    if data.len() > OPTIONS_MAX || !data.len().is_multiple_of(4) {
        return Err("Geneve options take a multiple of 4 bytes, at most 252");
    }
    let mut critical = 0;
    for option in options(data) {
        let option = option.map_err(|_| "the Geneve options are cut off")?;
        if option.kind & OPTION_CRITICAL != 0 {
            critical = C;
        }
    }
    let control = if tunnel.flags & TUNNEL_OAM != 0 { O } else { 0 };
    let [high, low] = layer3.unwrap_or(ethernet::TEB).to_be_bytes();
    out.extend_from_slice(&[(data.len() / 4) as u8, control | critical, high, low]);
    out.extend_from_slice(&((id as u32) << 8).to_be_bytes());
    out.extend_from_slice(data);
    Ok(())
}
