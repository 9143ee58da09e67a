//! Bonds: what the action `lb_output` chooses a port from.

use core::mem::MaybeUninit;

use wye::action::bond::BUCKETS;

use crate::boundary::{self, Intent, on_datapath};
use crate::datapath::wye_datapath;
use crate::status::{Fault, WYE_E_NOT_FOUND, wye_error, wye_status};

/// Hash buckets of a bond.
pub const WYE_BOND_BUCKETS: usize = 256;

const _: () = assert!(WYE_BOND_BUCKETS == BUCKETS);

fn no_bond() -> Fault {
    Fault::new(WYE_E_NOT_FOUND, "no such bond")
}

/// Sets a bond, new or changed as a whole: the port for each bucket of the packets' hash, `WYE_PORT_NONE` for none. Byte counts go on. The ports are
/// copied.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `ports` is NULL or valid for reads of `WYE_BOND_BUCKETS` elements.
/// cbindgen:ptrs-as-arrays=[[ports;256]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_bond_set(
    datapath: Option<&wye_datapath>,
    id: u32,
    ports: *const u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract.
        inner.engine.bond_set(id, unsafe { boundary::array(ports, "ports") }?);
        Ok(())
    })
}

/// Removes a bond. Flows that use it drop their packets: `invalid_bond`.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_bond_del(
    datapath: Option<&wye_datapath>,
    id: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(
        datapath,
        error,
        Intent::Change,
        |inner| {
            if inner.engine.bond_del(id) { Ok(()) } else { Err(no_bond()) }
        },
    )
}

/// Writes the bytes that each bucket has sent since the bond was made.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `bytes` is NULL or valid for writes of `WYE_BOND_BUCKETS` elements.
/// cbindgen:ptrs-as-arrays=[[bytes;256]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_bond_stats(
    datapath: Option<&wye_datapath>,
    id: u32,
    bytes: *mut u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Drain, |inner| {
        // SAFETY: as this function's contract.
        let out = unsafe { boundary::slice_mut(bytes, WYE_BOND_BUCKETS, "bytes") }?;
        let bytes = inner.engine.bond_stats(id).ok_or_else(no_bond)?;
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Ok(())
    })
}
