//! Ports.

use core::ffi::c_char;
use core::mem::{MaybeUninit, size_of};

use wye::packet::buffer::PACKET_LEN_MAX;
use wye::port::PortEntry;

use crate::boundary::{self, Intent, Sized_, on_datapath};
use crate::datapath::wye_datapath;
use crate::status::{Fault, WYE_E_NOT_FOUND, wye_error, wye_status};

/// A port to be added.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_port_config {
    /// `sizeof(struct wye_port_config)`.
    pub size: u32,
    /// Its number, below 65,536.
    pub number: u32,
    /// Its name; NULL for `"portN"`. Copied.
    pub name: *const c_char,
    /// The longest frame that it sends, Ethernet header included; 0 for no limit. A longer one is dropped: `tx_too_long`.
    pub packet_len_max: u32,
    /// Not 0: the port starts down, see `wye_port_set_up`.
    pub down: u32,
}

// SAFETY: `repr(C)`, `size` first; integers and a raw pointer.
unsafe impl Sized_ for wye_port_config {
    const FIRST: usize = size_of::<wye_port_config>();
    const NAME: &'static str = "wye_port_config";
}

fn no_port(number: u32) -> Fault {
    Fault::new(WYE_E_NOT_FOUND, format!("there is no port {number}"))
}

/// Adds a port of the caller's: packets that flows output there go to the `transmit` callback of the worker that carries them. Output to a
/// number that was not added is a drop: `invalid_port`. Packets may come in on any number.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` (number or name), `WYE_E_RANGE`, `WYE_E_FULL`, `WYE_E_INVALID`,
/// `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `config` is NULL or a struct of the size that its first field says, its name NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_port_add(
    datapath: Option<&wye_datapath>,
    config: *const wye_port_config,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract.
        let c = unsafe { boundary::sized(config) }?;
        // SAFETY: as this function's contract.
        let name = unsafe { boundary::text(c.name, "name") }?;
        let packet_len_max = match c.packet_len_max {
            0 => PACKET_LEN_MAX as u32,
            len => len.min(PACKET_LEN_MAX as u32),
        };
        let name = name.map_or_else(|| format!("port{}", c.number).into(), Into::into);
        Ok(inner.engine.port_add(PortEntry { number: c.number, name, packet_len_max, up: c.down == 0 })?)
    })
}

/// Removes a port. Flows that output to it drop their packets from now on: `invalid_port`. A worker that is in a burst may still send to
/// it until `wye_datapath_quiesce` returns.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_port_del(
    datapath: Option<&wye_datapath>,
    number: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        inner.engine.port_del(number).map(drop).ok_or_else(|| no_port(number))
    })
}

/// Marks a port up (not 0) or down. Output to a port that is down is a drop: `port_down`.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_port_set_up(
    datapath: Option<&wye_datapath>,
    number: u32,
    up: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        if inner.engine.port_set_up(number, up != 0) { Ok(()) } else { Err(no_port(number)) }
    })
}
