//! Flows by attributes: `OVS_KEY_ATTR_*` and `OVS_ACTION_ATTR_*`, each a `struct nlattr` in native byte order, padded to 4 bytes; or by text.

use core::ffi::{c_char, c_void};
use core::mem::{MaybeUninit, offset_of, size_of};
use std::sync::{Arc, Mutex};

use ahash::AHashMap;
use wye::datapath::{FlowError, FlowId, FlowInfo, FlowPut, FlowStats};
use wye::flow::netlink::{
    decode_actions, decode_key, decode_mask, encode_actions, encode_key, encode_mask, exact_mask,
};
use wye::flow::{FlowKey, FlowMask};
use wye::time::Nanos;

use crate::boundary::{self, Handle, Intent, Sized_, Tag, on_datapath};
use crate::datapath::{Inner, lock, wye_datapath};
use crate::status::{Fault, Outcome, WYE_E_MATCHED, WYE_E_NO_SPACE, wye_error, wye_status};
use crate::text;

/// Bytes of a flow's identifier.
pub const WYE_UFID_LEN: usize = 16;

/// Install the flow. `WYE_E_EXISTS` if there is one with this identifier, unless `WYE_PUT_MODIFY` is given as well.
pub const WYE_PUT_CREATE: u32 = 1;
/// Change the actions of the flow with this identifier; key and mask of the call are ignored, statistics go on. `WYE_E_NOT_FOUND` if
/// there is none, unless `WYE_PUT_CREATE` is given as well.
pub const WYE_PUT_MODIFY: u32 = 2;
/// With `WYE_PUT_CREATE`: `WYE_E_MATCHED` if a packet with exactly the key of the call would hit an installed flow. Test and installation
/// are one step.
pub const WYE_PUT_UNLESS_MATCHED: u32 = 4;
/// With `WYE_PUT_MODIFY`: the statistics begin anew.
pub const WYE_PUT_ZERO_STATS: u32 = 8;

/// What a flow has counted. The layout is fixed for ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wye_flow_stats {
    /// Packets that matched. A packet that recirculates counts once in each flow.
    pub packets: u64,
    /// Their bytes when they were looked up, Ethernet header and padding included.
    pub bytes: u64,
    /// The `now_ns` of the last one; 0 if there was none.
    pub used_ns: u64,
    /// All TCP flags seen, in host byte order.
    pub tcp_flags: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

impl From<FlowStats> for wye_flow_stats {
    fn from(s: FlowStats) -> Self {
        wye_flow_stats {
            packets: s.packets,
            bytes: s.bytes,
            used_ns: s.used.map_or(0, |t| t.0),
            tcp_flags: s.tcp_flags,
            reserved: [0; 3],
        }
    }
}

/// A flow as it is read. The layout is fixed for ever. The pointers are into the caller's own buffer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_flow {
    /// Identifier.
    pub ufid: [u8; WYE_UFID_LEN],
    /// The key, byte for byte as it was given.
    pub key: *const c_void,
    /// The mask, likewise.
    pub mask: *const c_void,
    /// The actions, likewise.
    pub actions: *const c_void,
    /// Bytes of `key`.
    pub key_len: u32,
    /// Bytes of `mask`.
    pub mask_len: u32,
    /// Bytes of `actions`.
    pub actions_len: u32,
    /// Zero.
    pub reserved: u32,
    /// Statistics so far.
    pub stats: wye_flow_stats,
}

/// A request to install or change a flow. Attributes are copied before the function returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_flow_request {
    /// `sizeof(struct wye_flow_request)`.
    pub size: u32,
    /// `WYE_PUT_*`, at least `WYE_PUT_CREATE` or `WYE_PUT_MODIFY`.
    pub flags: u32,
    /// Identifier, the caller's choice. All zero: the library makes one of key and mask.
    pub ufid: [u8; WYE_UFID_LEN],
    /// Key. Bits that the mask does not have do not matter, but are kept for who reads the flow.
    pub key: *const c_void,
    /// Mask; NULL with length 0 to match every field of the key.
    pub mask: *const c_void,
    /// Actions; none drops the packets.
    pub actions: *const c_void,
    /// Bytes of `key`.
    pub key_len: u32,
    /// Bytes of `mask`.
    pub mask_len: u32,
    /// Bytes of `actions`.
    pub actions_len: u32,
    /// Zero.
    pub reserved: u32,
    /// The flow goes after this many ns without a packet; 0 = never. See `wye_datapath_upkeep`.
    pub idle_timeout_ns: u64,
    /// The flow goes this many ns after `now_ns`; 0 = never.
    pub hard_timeout_ns: u64,
    /// The time, where a timeout is given.
    pub now_ns: u64,
    /// Instead of `key` and `mask`: what is matched, as `ovs-dpctl` writes it, `"in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.0/8)"`. NULL: see
    /// `key`. Ports may be given by name.
    pub match_text: *const c_char,
    /// Instead of `actions`: `"push_vlan(vid=5,pcp=0),2"`; `"drop"`. NULL: see `actions`.
    pub actions_text: *const c_char,
}

// SAFETY: `repr(C)`, `size` first; integers and raw pointers.
unsafe impl Sized_ for wye_flow_request {
    const FIRST: usize = offset_of!(wye_flow_request, idle_timeout_ns);
    const NAME: &'static str = "wye_flow_request";
}

/// Attributes of a flow as its owner gave them, in one allocation: key, mask, actions.
#[derive(Clone)]
pub(crate) struct Record {
    bytes: Arc<[u8]>,
    key_len: u32,
    mask_len: u32,
}

impl Record {
    fn new(key: &[u8], mask: &[u8], actions: &[u8]) -> Self {
        Record { bytes: [key, mask, actions].concat().into(), key_len: key.len() as u32, mask_len: mask.len() as u32 }
    }

    /// A flow that came in otherwise (by text), written as attributes.
    fn of(flow: &FlowInfo) -> Outcome<Self> {
        let (mut key, mut mask, mut actions) = (Vec::new(), Vec::new(), Vec::new());
        encode_key(&flow.key, &mut key);
        encode_mask(&flow.key, &flow.mask, &mut mask);
        encode_actions(&flow.actions, &mut actions)?;
        Ok(Record::new(&key, &mask, &actions))
    }

    fn with_actions(&self, actions: &[u8]) -> Self {
        let (key, rest) = self.bytes.split_at(self.key_len as usize);
        Record::new(key, &rest[..self.mask_len as usize], actions)
    }
}

/// All flows' attributes by identifier.
#[derive(Default)]
pub(crate) struct Records {
    by_ufid: AHashMap<u128, Record>,
}

impl Records {
    pub(crate) fn remove(&mut self, ufid: u128) {
        self.by_ufid.remove(&ufid);
    }

    fn get(&self, flow: &FlowInfo) -> Outcome<Record> {
        match self.by_ufid.get(&flow.ufid) {
            Some(record) => Ok(record.clone()),
            None => Record::of(flow),
        }
    }
}

/// What is to be installed, both as bytes and as what they mean.
pub(crate) struct Put<'a> {
    pub(crate) flags: u32,
    pub(crate) ufid: [u8; WYE_UFID_LEN],
    pub(crate) key: &'a [u8],
    pub(crate) mask: &'a [u8],
    /// What key and mask say, if that is known already.
    pub(crate) matched: Option<(FlowKey, FlowMask)>,
    pub(crate) actions: &'a [u8],
    pub(crate) idle_timeout_ns: u64,
    pub(crate) hard_timeout_ns: u64,
    pub(crate) now_ns: u64,
}

fn key_of(bytes: &[u8]) -> Outcome<FlowKey> {
    decode_key(bytes).map_err(|e| Fault::from(e).of("key"))
}

fn mask_of(bytes: &[u8], key: &FlowKey) -> Outcome<FlowMask> {
    if bytes.is_empty() {
        return Ok(exact_mask(key));
    }
    decode_mask(bytes, key).map_err(|e| Fault::from(e).of("mask"))
}

/// Installs or changes a flow; the statistics before a change.
pub(crate) fn put(inner: &Inner, put: &Put<'_>) -> Outcome<Option<FlowStats>> {
    const KNOWN: u32 = WYE_PUT_CREATE | WYE_PUT_MODIFY | WYE_PUT_UNLESS_MATCHED | WYE_PUT_ZERO_STATS;
    let has = |flag| put.flags & flag != 0;
    if put.flags & !KNOWN != 0 {
        return Err(Fault::invalid(format!("flags: {:#x} is not known", put.flags & !KNOWN)));
    }
    let actions = decode_actions(put.actions).map_err(|e| Fault::from(e).of("actions"))?;
    let given = (put.ufid != [0; WYE_UFID_LEN]).then(|| u128::from_be_bytes(put.ufid));
    let decoded = || -> Outcome<(FlowKey, FlowMask)> {
        if let Some(matched) = put.matched {
            return Ok(matched);
        }
        let key = key_of(put.key)?;
        let mask = mask_of(put.mask, &key)?;
        Ok((key, mask))
    };
    let mut records = inner.records();
    let existing = match given {
        Some(ufid) => inner.engine.flow_get(FlowId::Ufid(ufid)).ok(),
        None => {
            let (key, mask) = decoded()?;
            inner.engine.flow_get(FlowId::Exactly(&key, &mask)).ok()
        }
    };
    if let Some(flow) = existing {
        if !has(WYE_PUT_MODIFY) {
            return Err(FlowError::Exists.into());
        }
        let record = records.get(&flow)?.with_actions(put.actions);
        let before = inner.engine.flow_put(FlowPut {
            ufid: Some(flow.ufid),
            create: false,
            modify: true,
            zero_stats: has(WYE_PUT_ZERO_STATS),
            ..FlowPut::create(&flow.key, &flow.mask, actions)
        })?;
        records.by_ufid.insert(flow.ufid, record);
        return Ok(before);
    }
    if !has(WYE_PUT_CREATE) {
        let nothing = put.flags & WYE_PUT_MODIFY == 0;
        return Err(if nothing { FlowError::NothingAsked.into() } else { FlowError::NotFound.into() });
    }
    let (key, mask) = decoded()?;
    if has(WYE_PUT_UNLESS_MATCHED) && inner.engine.flow_get(FlowId::Matching(&key)).is_ok() {
        return Err(Fault::new(WYE_E_MATCHED, "an installed flow matches the key"));
    }
    inner.engine.flow_put(FlowPut {
        ufid: given,
        idle_timeout_ns: put.idle_timeout_ns,
        hard_timeout_ns: put.hard_timeout_ns,
        now: Nanos(put.now_ns),
        ..FlowPut::create(&key, &mask, actions)
    })?;
    let ufid = match given {
        Some(ufid) => ufid,
        None => inner.engine.flow_get(FlowId::Exactly(&key, &mask))?.ufid,
    };
    records.by_ufid.insert(ufid, Record::new(put.key, put.mask, put.actions));
    Ok(None)
}

/// Installs or changes a flow. On a change, `*before` (may be NULL) gets the statistics until then.
///
/// Borrows everything for the call. Any thread, also from a callback; workers go on meanwhile and see the flow from their next burst
/// on at the latest. Takes the control lock. `WYE_E_INVALID` (the detail names the attribute, or the column of the text), `WYE_E_UNSUPPORTED` (a key field that
/// cannot be matched, an action that cannot be carried out), `WYE_E_EXISTS`, `WYE_E_NOT_FOUND`, `WYE_E_MATCHED`, `WYE_E_FULL`, `WYE_E_PANIC`,
/// `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `put` is NULL or a struct of the size that its first field says, whose pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_put(
    datapath: Option<&wye_datapath>,
    put: *const wye_flow_request,
    before: Option<&mut MaybeUninit<wye_flow_stats>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract.
        let p = unsafe { boundary::sized(put) }?;
        // SAFETY: as this function's contract, three times.
        let (key, mask, actions) = unsafe {
            (
                boundary::bytes(p.key, p.key_len as usize, "key")?,
                boundary::bytes(p.mask, p.mask_len as usize, "mask")?,
                boundary::bytes(p.actions, p.actions_len as usize, "actions")?,
            )
        };
        // SAFETY: as this function's contract, twice.
        let (match_text, actions_text) =
            unsafe { (boundary::text(p.match_text, "match_text")?, boundary::text(p.actions_text, "actions_text")?) };
        let matched = match_text.map(|text| text::read_match(inner, text, key, mask)).transpose()?;
        let by_text = actions_text.map(|text| text::read_actions(inner, text, actions)).transpose()?;
        let stats = self::put(
            inner,
            &Put {
                flags: p.flags,
                ufid: p.ufid,
                key: matched.as_ref().map_or(key, |m| &m.key_bytes),
                mask: matched.as_ref().map_or(mask, |m| &m.mask_bytes),
                matched: matched.as_ref().map(|m| (m.key, m.mask)),
                actions: by_text.as_deref().unwrap_or(actions),
                idle_timeout_ns: p.idle_timeout_ns,
                hard_timeout_ns: p.hard_timeout_ns,
                now_ns: p.now_ns,
            },
        )?;
        if let (Some(before), Some(stats)) = (before, stats) {
            before.write(stats.into());
        }
        Ok(())
    })
}

/// # Safety
/// `ufid` is NULL or valid for reads of `WYE_UFID_LEN` bytes.
unsafe fn ufid_of(ufid: *const u8) -> Outcome<u128> {
    // SAFETY: this function's contract.
    unsafe { boundary::array(ufid, "ufid") }.map(u128::from_be_bytes)
}

/// Removes a flow; `*last` (may be NULL) gets its final statistics. Packets that a worker is carrying just now may still be counted
/// nowhere; none is counted twice.
///
/// Any thread, also from a callback. Takes the control lock, waits for no worker. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`,
/// `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `ufid` is NULL or valid for reads of `WYE_UFID_LEN` bytes.
/// cbindgen:ptrs-as-arrays=[[ufid;16]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_del(
    datapath: Option<&wye_datapath>,
    ufid: *const u8,
    last: Option<&mut MaybeUninit<wye_flow_stats>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract.
        let ufid = unsafe { ufid_of(ufid) }?;
        let mut records = inner.records();
        let flow = inner.engine.flow_del(FlowId::Ufid(ufid))?;
        records.remove(ufid);
        if let Some(last) = last {
            last.write(flow.stats.into());
        }
        Ok(())
    })
}

/// Copies a flow's attributes into `buffer` (`*buffer_len` bytes) and describes them in `*flow`. If the buffer is too small, sets
/// `*buffer_len` to what is needed: `WYE_E_NO_SPACE`.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `ufid` is NULL or valid for reads of `WYE_UFID_LEN` bytes, `buffer` for writes of `*buffer_len` bytes.
/// cbindgen:ptrs-as-arrays=[[ufid;16]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_get(
    datapath: Option<&wye_datapath>,
    ufid: *const u8,
    buffer: *mut c_void,
    buffer_len: Option<&mut usize>,
    flow: Option<&mut MaybeUninit<wye_flow>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| {
        // SAFETY: as this function's contract.
        let ufid = unsafe { ufid_of(ufid) }?;
        let out = boundary::out(flow, "flow")?;
        let len = buffer_len.ok_or_else(|| Fault::invalid("buffer_len is NULL"))?;
        // SAFETY: as this function's contract.
        let buffer = unsafe { boundary::slice_mut(buffer.cast::<MaybeUninit<u8>>(), *len, "buffer") }?;
        let (info, record) = {
            let records = inner.records();
            let info = inner.engine.flow_get(FlowId::Ufid(ufid))?;
            let record = records.get(&info)?;
            (info, record)
        };
        match describe(&info, Some(&record), buffer) {
            Ok((flow, _)) => {
                out.write(flow);
                Ok(())
            }
            Err(needed) => {
                *len = needed;
                Err(no_space(needed))
            }
        }
    })
}

pub(crate) fn no_space(needed: usize) -> Fault {
    Fault::new(WYE_E_NO_SPACE, format!("the buffer needs {needed} bytes"))
}

/// Writes a flow's attributes to the front of `buffer`; the flow, and the bytes used. Fails with the bytes needed.
fn describe(
    info: &FlowInfo,
    record: Option<&Record>,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<(wye_flow, usize), usize> {
    let mut flow = wye_flow {
        ufid: info.ufid.to_be_bytes(),
        key: core::ptr::null(),
        mask: core::ptr::null(),
        actions: core::ptr::null(),
        key_len: 0,
        mask_len: 0,
        actions_len: 0,
        reserved: 0,
        stats: info.stats.into(),
    };
    let Some(record) = record else { return Ok((flow, 0)) };
    // Attributes are read as `struct nlattr`, so each list begins at a multiple of 4 from an aligned buffer's start.
    let (key_len, mask_len) = (record.key_len as usize, record.mask_len as usize);
    let actions_len = record.bytes.len() - key_len - mask_len;
    let mask_at = key_len.next_multiple_of(4);
    let actions_at = mask_at + mask_len.next_multiple_of(4);
    // So that the next flow in the same buffer is aligned as well.
    let needed = (actions_at + actions_len).next_multiple_of(8);
    if buffer.len() < needed {
        return Err(needed);
    }
    let mut copy = |at: usize, from: &[u8]| {
        let to = &mut buffer[at..at + from.len()];
        to.iter_mut().zip(from).for_each(|(to, from)| {
            to.write(*from);
        });
        to.as_ptr().cast::<c_void>()
    };
    flow.key = copy(0, &record.bytes[..key_len]);
    flow.mask = copy(mask_at, &record.bytes[key_len..key_len + mask_len]);
    flow.actions = copy(actions_at, &record.bytes[key_len + mask_len..]);
    flow.key_len = key_len as u32;
    flow.mask_len = mask_len as u32;
    flow.actions_len = actions_len as u32;
    Ok((flow, needed))
}

/// Which flow a packet with exactly this key would hit: writes its identifier.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `key` is valid for reads of `key_len` bytes, `ufid` for writes of `WYE_UFID_LEN`.
/// cbindgen:ptrs-as-arrays=[[ufid;16]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_match(
    datapath: Option<&wye_datapath>,
    key: *const c_void,
    key_len: usize,
    ufid: *mut u8,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| {
        // SAFETY: as this function's contract.
        let key = key_of(unsafe { boundary::bytes(key, key_len, "key") }?)?;
        // SAFETY: as this function's contract.
        let out = unsafe { boundary::slice_mut(ufid, WYE_UFID_LEN, "ufid") }?;
        out.copy_from_slice(&inner.engine.flow_get(FlowId::Matching(&key))?.ufid.to_be_bytes());
        Ok(())
    })
}

/// Removes all flows; `*removed` (may be NULL) gets their number.
///
/// Any thread, also from a callback. Takes the control lock, waits for no worker. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_flow_flush(
    datapath: Option<&wye_datapath>,
    removed: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        let mut records = inner.records();
        let n = inner.engine.flow_flush();
        records.by_ufid.clear();
        if let Some(removed) = removed {
            removed.write(n);
        }
        Ok(())
    })
}

/// Flows installed; 0 if the handle is none.
///
/// Any thread, also from a callback. Takes the control lock for an instant. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_flow_count(datapath: Option<&wye_datapath>) -> u32 {
    let mut count = 0;
    on_datapath(datapath, None, Intent::Drain, |inner| {
        count = inner.engine.flow_count();
        Ok(())
    });
    count
}

/// A walk over all flows. A flow that is there during the whole walk is returned exactly once, one that comes or goes meanwhile at most
/// once. Several threads may share one walk: each call takes the next flows for itself.
pub struct wye_flow_dump {
    tag: Tag,
    inner: Arc<Inner>,
    terse: bool,
    cursor: Mutex<u32>,
}

impl Handle for wye_flow_dump {
    const TAG: u64 = u64::from_be_bytes(*b"WyeFlowD");
    const NAME: &'static str = "wye_flow_dump";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

/// Begins a walk over all flows. With `terse` not 0, only identifiers and statistics are returned.
///
/// Any thread, also from a callback. Does not block. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_flow_dump_start(
    datapath: Option<&wye_datapath>,
    terse: u32,
    dump: Option<&mut MaybeUninit<*mut wye_flow_dump>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |_| {
        let out = boundary::out(dump, "dump")?;
        let inner = Arc::clone(boundary::live(datapath)?.inner());
        let dump = wye_flow_dump { tag: Tag::live::<wye_flow_dump>(), inner, terse: terse != 0, cursor: Mutex::new(0) };
        boundary::give(dump, out);
        Ok(())
    })
}

/// Takes the next flows, `flows_max` at most, copying their attributes into `buffer` (`*buffer_len` bytes, aligned to 4). Returns how many; 0
/// at the end; `WYE_E_NO_SPACE`, with `*buffer_len` set to what the next flow needs, if the buffer does not hold one.
///
/// Any thread, several at a time. Takes the control lock. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `flows` is valid for writes of `flows_max` elements, `buffer` of `*buffer_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_dump_next(
    dump: Option<&wye_flow_dump>,
    flows: *mut wye_flow,
    flows_max: u32,
    buffer: *mut c_void,
    buffer_len: Option<&mut usize>,
) -> i32 {
    let mut n = 0;
    let status = boundary::call(None, || {
        let dump = boundary::live(dump)?;
        dump.inner.check(Intent::Drain)?;
        let len = buffer_len.ok_or_else(|| Fault::invalid("buffer_len is NULL"))?;
        // SAFETY: as this function's contract, twice.
        let (flows, mut buffer) = unsafe {
            (
                boundary::slice_mut(flows.cast::<MaybeUninit<wye_flow>>(), flows_max as usize, "flows")?,
                boundary::slice_mut(buffer.cast::<MaybeUninit<u8>>(), *len, "buffer")?,
            )
        };
        let mut cursor = lock(&dump.cursor);
        for out in flows {
            let mut next = *cursor;
            let (info, record) = {
                let records = dump.inner.records();
                let Some(info) = dump.inner.engine.flow_next(&mut next) else { break };
                let record = if dump.terse { None } else { Some(records.get(&info)?) };
                (info, record)
            };
            match describe(&info, record.as_ref(), buffer) {
                Ok((flow, used)) => {
                    out.write(flow);
                    buffer = &mut buffer[used..];
                }
                Err(needed) if n == 0 => {
                    *len = needed;
                    return Err(no_space(needed));
                }
                Err(_) => break,
            }
            *cursor = next;
            n += 1;
        }
        Ok(())
    });
    if status < 0 { status } else { n }
}

/// Ends a walk; NULL is legal. Takes the handle. Any thread; does not block. Since 0.1.
///
/// # Safety
/// `dump` is NULL or came from `wye_flow_dump_start` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_flow_dump_free(dump: *mut wye_flow_dump) {
    // SAFETY: as this function's contract.
    unsafe { boundary::free(dump) }
}

const _: () = assert!(size_of::<wye_flow_stats>() == 32);
