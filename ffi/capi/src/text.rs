//! Flows as text, in the notation of `ovs-dpctl`, and its conversion to and from attributes.

use core::ffi::{c_char, c_void};
use core::fmt::Write;
use core::mem::MaybeUninit;

use wye::flow::netlink::{
    decode_actions, decode_key, decode_mask, encode_actions, encode_key, encode_mask, exact_mask,
};
use wye::flow::text::{
    PortNames, TextError, TextFault, format_actions, format_key, format_ufid, parse_actions, parse_key,
};
use wye::flow::{FlowKey, FlowMask};
use wye::port::PortTable;

use crate::boundary::{self, Intent, on_datapath};
use crate::datapath::{Inner, wye_datapath};
use crate::flow::{no_space, wye_flow};
use crate::status::{Fault, Outcome, WYE_E_INVALID, WYE_E_UNSUPPORTED, wye_error, wye_status};

impl Fault {
    fn of_text(e: TextError, what: &str) -> Self {
        let status = match &e.fault {
            TextFault::Unsupported => WYE_E_UNSUPPORTED,
            TextFault::Codec(codec) => Fault::from(**codec).status,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, format!("{what}: {e}"))
    }
}

/// Calls `f` with the names of a datapath's ports.
fn with_names<R>(inner: &Inner, f: impl FnOnce(&PortNames<'_>) -> R) -> R {
    let ports = inner.engine.ports();
    let ports: &PortTable = &ports;
    f(&PortNames::new(&|name| ports.iter().find(|p| &*p.name == name).map(|p| p.number), &|_| None))
}

/// What a text matches, and how that is written as attributes.
pub(crate) struct Matched {
    pub(crate) key: FlowKey,
    pub(crate) mask: FlowMask,
    pub(crate) key_bytes: Vec<u8>,
    pub(crate) mask_bytes: Vec<u8>,
}

/// Reads `match_text`, beside which neither key nor mask may be given.
pub(crate) fn read_match(inner: &Inner, text: &str, key: &[u8], mask: &[u8]) -> Outcome<Matched> {
    if !key.is_empty() || !mask.is_empty() {
        return Err(Fault::invalid("match_text: key or mask is given as well"));
    }
    let (key, mask) = with_names(inner, |names| parse_key(text, names)).map_err(|e| Fault::of_text(e, "match_text"))?;
    let (mut key_bytes, mut mask_bytes) = (Vec::new(), Vec::new());
    encode_key(&key, &mut key_bytes);
    encode_mask(&key, &mask, &mut mask_bytes);
    Ok(Matched { key, mask, key_bytes, mask_bytes })
}

/// Reads `actions_text` into attributes, beside which none may be given.
pub(crate) fn read_actions(inner: &Inner, text: &str, actions: &[u8]) -> Outcome<Vec<u8>> {
    if !actions.is_empty() {
        return Err(Fault::invalid("actions_text: actions is given as well"));
    }
    let actions =
        with_names(inner, |names| parse_actions(text, names)).map_err(|e| Fault::of_text(e, "actions_text"))?;
    let mut bytes = Vec::new();
    encode_actions(&actions, &mut bytes)?;
    Ok(bytes)
}

/// Copies `bytes` into the caller's buffer. `*len` is its size before, and what is used or needed of it afterwards.
fn copy_out(bytes: &[u8], buffer: &mut [MaybeUninit<u8>], len: &mut usize) -> Outcome {
    *len = bytes.len();
    let Some(to) = buffer.get_mut(..bytes.len()) else { return Err(no_space(bytes.len())) };
    to.iter_mut().zip(bytes).for_each(|(to, from)| {
        to.write(*from);
    });
    Ok(())
}

/// Copies `text` and a NUL into the caller's buffer. `*len` becomes the length of the text, or the size that is needed.
pub(crate) fn text_out(text: String, buffer: &mut [MaybeUninit<u8>], len: &mut usize) -> Outcome {
    let mut bytes = text.into_bytes();
    bytes.push(0);
    copy_out(&bytes, buffer, len)?;
    *len -= 1;
    Ok(())
}

pub(crate) fn len_of<'a>(len: Option<&'a mut usize>, name: &str) -> Outcome<&'a mut usize> {
    len.ok_or_else(|| Fault::invalid(format!("{name} is NULL")))
}

/// Reads a list of actions from text, `"set(eth(dst=02:00:00:00:00:01)),2"`, and writes it as attributes to `buffer`. `*buffer_len` is the size of the
/// buffer, and afterwards how much of it is used; with `WYE_E_NO_SPACE`, how much is needed.
///
/// Any thread, also from a callback. Does not block. `WYE_E_INVALID` (the detail names the column), `WYE_E_UNSUPPORTED`,
/// `WYE_E_NO_SPACE`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string, `buffer` valid for writes of `*buffer_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_actions_from_text(
    datapath: Option<&wye_datapath>,
    text: *const c_char,
    buffer: *mut c_void,
    buffer_len: Option<&mut usize>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| {
        // SAFETY: as this function's contract.
        let text = unsafe { boundary::text(text, "text") }?.ok_or_else(|| Fault::invalid("text is NULL"))?;
        let len = len_of(buffer_len, "buffer_len")?;
        // SAFETY: as this function's contract.
        let buffer = unsafe { boundary::slice_mut(buffer.cast(), *len, "buffer") }?;
        copy_out(&read_actions(inner, text, &[])?, buffer, len)
    })
}

/// Writes a list of actions as text to `text`. `*text_len` is the size of that buffer, and afterwards the length of the text without its
/// NUL; with `WYE_E_NO_SPACE`, the size that is needed.
///
/// Any thread; does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_NO_SPACE`. Since 0.1.
///
/// # Safety
/// `actions` is valid for reads of `actions_len` bytes, `text` for writes of `*text_len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_actions_to_text(
    actions: *const c_void,
    actions_len: usize,
    text: *mut c_char,
    text_len: Option<&mut usize>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        // SAFETY: as this function's contract.
        let actions = decode_actions(unsafe { boundary::bytes(actions, actions_len, "actions") }?)?;
        let len = len_of(text_len, "text_len")?;
        // SAFETY: as this function's contract.
        let buffer = unsafe { boundary::slice_mut(text.cast(), *len, "text") }?;
        text_out(format_actions(&actions, &PortNames::NONE), buffer, len)
    })
}

/// Writes a key and its mask as text: `"in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0)"`. A mask of length 0 stands for every field of
/// the key, as in an upcall's. `text` and `text_len` as in `wye_actions_to_text`.
///
/// Any thread; does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_NO_SPACE`. Since 0.1.
///
/// # Safety
/// `key` and `mask` are valid for reads of their lengths, `text` for writes of `*text_len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_key_to_text(
    key: *const c_void,
    key_len: usize,
    mask: *const c_void,
    mask_len: usize,
    text: *mut c_char,
    text_len: Option<&mut usize>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        // SAFETY: as this function's contract, twice.
        let (key, mask) = unsafe { (boundary::bytes(key, key_len, "key")?, boundary::bytes(mask, mask_len, "mask")?) };
        let len = len_of(text_len, "text_len")?;
        // SAFETY: as this function's contract.
        let buffer = unsafe { boundary::slice_mut(text.cast(), *len, "text") }?;
        text_out(match_text(key, mask)?, buffer, len)
    })
}

fn match_text(key: &[u8], mask: &[u8]) -> Outcome<String> {
    let key = decode_key(key).map_err(|e| Fault::from(e).of("key"))?;
    let mask = match mask {
        [] => exact_mask(&key),
        mask => decode_mask(mask, &key).map_err(|e| Fault::from(e).of("mask"))?,
    };
    Ok(format_key(&key, &mask, &PortNames::NONE))
}

/// Writes a flow as a line of `ovs-dpctl dump-flows`: match, packets, bytes, the time since the last packet at `now_ns`, TCP flags, actions. A
/// flow without attributes (of a terse walk) begins with its identifier instead. `text` and `text_len` as in `wye_actions_to_text`.
///
/// Any thread; does not block. `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_NO_SPACE`. Since 0.1.
///
/// # Safety
/// What `flow` points to is valid for its lengths, `text` for writes of `*text_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_to_text(
    flow: Option<&wye_flow>,
    now_ns: u64,
    text: *mut c_char,
    text_len: Option<&mut usize>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let flow = flow.ok_or_else(|| Fault::invalid("flow is NULL"))?;
        // SAFETY: as this function's contract, three times.
        let (key, mask, actions) = unsafe {
            (
                boundary::bytes(flow.key, flow.key_len as usize, "key")?,
                boundary::bytes(flow.mask, flow.mask_len as usize, "mask")?,
                boundary::bytes(flow.actions, flow.actions_len as usize, "actions")?,
            )
        };
        let len = len_of(text_len, "text_len")?;
        // SAFETY: as this function's contract.
        let buffer = unsafe { boundary::slice_mut(text.cast(), *len, "text") }?;
        let is_terse = key.is_empty();
        let mut line = if is_terse { format_ufid(&flow.ufid) } else { match_text(key, mask)? };
        let s = &flow.stats;
        let _ = write!(line, ", packets:{}, bytes:{}, used:", s.packets, s.bytes);
        let _ = match s.used_ns {
            0 => write!(line, "never"),
            used => write!(line, "{:.3}s", now_ns.saturating_sub(used) as f64 / 1e9),
        };
        if s.tcp_flags != 0 {
            line.push_str(", flags:");
            line.extend("FSRP.UEC".chars().enumerate().filter(|(i, _)| s.tcp_flags >> i & 1 != 0).map(|(_, c)| c));
        }
        if !is_terse {
            let actions = decode_actions(actions).map_err(|e| Fault::from(e).of("actions"))?;
            let _ = write!(line, ", actions:{}", format_actions(&actions, &PortNames::NONE));
        }
        text_out(line, buffer, len)
    })
}
