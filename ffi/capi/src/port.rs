//! Ports.

use core::ffi::c_char;
use core::mem::{MaybeUninit, size_of};
use std::sync::Arc;

use wye::packet::buffer::PACKET_LEN_MAX;
use wye::port::{PortEntry, PortKind, PortOptions, PortSpec};

use crate::boundary::{self, Intent, Sized_, guarded, on_datapath};
use crate::datapath::wye_datapath;
use crate::status::{Fault, Outcome, WYE_E_NOT_FOUND, wye_error, wye_status};
use crate::worker::wye_worker;

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
        let name = name.map_or_else(|| format!("port{}", c.number).into(), Into::into);
        Ok(inner.engine.port_add(entry(&c, name))?)
    })
}

/// Opens a port that the library drives and adds it: `kind` is `"tap"`, `"af_packet"`, `"af_xdp"` or `"pcap"`, `options` is NULL or a list,
/// `"interface=eth0,promiscuous=false"`. `worker` receives from it in `wye_worker_poll` and sends to it; `config` as in `wye_port_add`.
///
/// | kind | options |
/// |---|---|
/// | `tap` | `interface` (default: the port's name), `mtu`, `up` |
/// | `af_packet` | `interface`, `promiscuous`, `up`, `ring_bytes` |
/// | `af_xdp` | `interface`, `promiscuous`, `up`, `frames`, `copying` (`auto`, `copy`, `zero_copy`), `attach` (`auto`, `native`, `generic`) |
/// | `pcap` | `read` (a trace to play), `looped`, `write` (a trace to record) |
///
/// The port has one queue, and one worker drives it: for other workers it is a port of the caller's, sent to by `transmit`. When the interface vanishes
/// the port is down, and it comes back with the interface.
///
/// The thread that owns `worker`, not from its callbacks. Makes system calls. `WYE_E_IO`: the detail says what is missing (a capability, the
/// interface, a kernel feature); `WYE_E_INVALID`: it names the option; `WYE_E_BUSY` and all of `wye_port_add`. Nothing stays behind then.
/// Since 0.1.
///
/// # Safety
/// As `wye_port_add`; `kind` and `options` are NULL or NUL-terminated strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_port_open(
    worker: Option<&wye_worker>,
    config: *const wye_port_config,
    kind: *const c_char,
    options: *const c_char,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let worker = boundary::live(worker)?;
        guarded(worker.inner(), Intent::Change, |inner| {
            // SAFETY: as this function's contract.
            let c = unsafe { boundary::sized(config) }?;
            // SAFETY: as this function's contract, three times.
            let (name, kind, options) = unsafe {
                (
                    boundary::text(c.name, "name")?,
                    boundary::text(kind, "kind")?.ok_or_else(|| Fault::invalid("kind is NULL"))?,
                    boundary::text(options, "options")?.unwrap_or_default(),
                )
            };
            let name = name.map_or_else(|| format!("port{}", c.number), Into::into);
            let kind: PortKind = kind.parse().map_err(Fault::invalid)?;
            let mut spec = PortSpec { kind, name: name.clone(), options: PortOptions::default() };
            for option in options.split(',').filter(|option| !option.is_empty()) {
                let (key, value) = option
                    .split_once('=')
                    .ok_or_else(|| Fault::invalid(format!("options: {option:?} is not NAME=VALUE")))?;
                spec.options.set(&name, key, value)?;
            }
            worker.with_ports(|ports| -> Outcome {
                // First the number, which may be taken: then the system has seen nothing yet.
                inner.engine.port_add(entry(&c, name.into()))?;
                let opened = match wye::port::open(&spec, inner.engine.pool()) {
                    Ok(driver) => driver,
                    Err(e) => {
                        inner.engine.port_del(c.number);
                        return Err(e.into());
                    }
                };
                ports.remove(c.number);
                ports.add(c.number, 0, opened);
                Ok(())
            })?
        })
    })
}

/// Closes a port that `wye_port_open` opened for this worker, and removes it.
///
/// The thread that owns `worker`, not from its callbacks. Makes system calls. `WYE_E_NOT_FOUND`, `WYE_E_BUSY`, `WYE_E_INVALID`, `WYE_E_FORKED`.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_port_close(
    worker: Option<&wye_worker>,
    number: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let worker = boundary::live(worker)?;
        guarded(worker.inner(), Intent::Drain, |inner| {
            if !worker.with_ports(|ports| ports.remove(number))? {
                return Err(Fault::new(WYE_E_NOT_FOUND, format!("this worker drives no port {number}")));
            }
            inner.engine.port_del(number);
            Ok(())
        })
    })
}

fn entry(c: &wye_port_config, name: Arc<str>) -> PortEntry {
    let packet_len_max = match c.packet_len_max {
        0 => PACKET_LEN_MAX as u32,
        len => len.min(PACKET_LEN_MAX as u32),
    };
    PortEntry { number: c.number, name, packet_len_max, up: c.down == 0 }
}

/// Removes a port. Flows that output to it drop their packets from now on: `invalid_port`. A worker that is in a burst may still send to
/// it until `wye_datapath_quiesce` returns. For a port of `wye_port_open` there is `wye_port_close`.
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
