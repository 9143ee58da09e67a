//! Ports that the library drives.

use std::ffi::{CStr, CString};
use std::mem::{MaybeUninit, zeroed};
use std::ptr::null;

use wye::port::trace::TraceWriter;
use wye_capi::flow::*;
use wye_capi::port::*;
use wye_capi::status::*;
use wye_capi::upcall::*;
use wye_capi::worker::*;

use crate::switch::*;

pub fn open(world: Test, number: u32, kind: &CStr, options: &CStr) -> wye_status {
    open_saying(world, number, kind, options, |_| {})
}

/// As `open`; an error's detail goes to `say`.
pub fn open_saying(world: Test, number: u32, kind: &CStr, options: &CStr, say: impl FnOnce(&str)) -> wye_status {
    // SAFETY: the struct and the strings are valid, and the error is there and freed if there is one.
    unsafe {
        let mut port: wye_port_config = zeroed();
        port.size = size_of::<wye_port_config>() as u32;
        port.number = number;
        let mut error = MaybeUninit::new(std::ptr::null_mut());
        let status = wye_port_open(world.w(), &port, kind.as_ptr(), options.as_ptr(), Some(&mut error));
        let error = error.assume_init();
        if status != WYE_OK {
            say(CStr::from_ptr(wye_error_message(error.as_ref())).to_str().unwrap());
        }
        wye_error_free(error);
        status
    }
}

pub fn poll(world: Test) -> usize {
    let mut carried = MaybeUninit::uninit();
    assert_eq!(wye_worker_poll(world.w(), 1_000_000, Some(&mut carried)), WYE_OK);
    // SAFETY: written on success.
    unsafe { carried.assume_init() }
}

/// A trace of `n` frames, and a place for what a port sends.
fn traces(name: &str, n: usize) -> (std::path::PathBuf, CString) {
    let dir = std::env::temp_dir().join(format!("wye-abi-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (read, write) = (dir.join("in.pcap"), dir.join("out.pcap"));
    let mut trace = TraceWriter::new(std::fs::File::create(&read).unwrap()).unwrap();
    (0..n).for_each(|i| trace.write(i as u64, &frame()).unwrap());
    trace.flush().unwrap();
    let options = CString::new(format!("read={},write={}", read.display(), write.display())).unwrap();
    (dir, options)
}

#[test]
fn a_polled_port_reaches_ports_of_the_library_and_of_the_caller() {
    let world = Fixture::new();
    let (dir, options) = traces("poll", 5);
    assert_eq!(open(*world, 10, c"pcap", &options), WYE_OK);
    // To the caller's port 2, and back out of its own.
    world.put(WYE_PUT_CREATE, 1, &key(10), &port_mask(), &[output(10), output(2)].concat());
    // A packet of the caller's goes to the library's port, and is given back when it is copied out.
    world.put(WYE_PUT_CREATE, 2, &key(1), &port_mask(), &output(10));
    assert_eq!((poll(*world), poll(*world)), (5, 0));
    assert_eq!(world.sent.iter().filter(|s| s.port == 2 && s.bytes == frame()).count(), 5);
    let mut packet = Owned::new(1);
    assert_eq!(world.execute(&mut packet, &output(10), 0), WYE_OK);
    assert_eq!(world.released.len(), 1);
    assert_eq!(world.packets_in(), 6);
    assert_eq!(wye_worker_wait(world.w(), 1, None), WYE_E_NOT_FOUND);
    assert_eq!(wye_port_close(world.w(), 10, None), WYE_OK);
    assert_eq!(wye_port_close(world.w(), 10, None), WYE_E_NOT_FOUND);
    assert_eq!(wye_port_del(world.dp(), 10, None), WYE_E_NOT_FOUND);
    assert_eq!(wye::port::read_trace(dir.join("out.pcap")).unwrap().len(), 6);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn misses_of_polled_packets_are_answered_after_the_burst() {
    let mut world = Fixture::new();
    let (dir, options) = traces("miss", 3);
    assert_eq!(open(*world, 10, c"pcap", &options), WYE_OK);
    world.answer_with(output(3), WYE_ANSWER_INSTALL);
    assert_eq!(poll(*world), 3);
    assert_eq!((world.upcalls.len(), world.sent.len(), wye_flow_count(world.dp())), (1, 3, 1));
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"upcall")), (3, 3, 0));
    // Refused.
    assert_eq!(wye_port_close(world.w(), 10, None), WYE_OK);
    assert_eq!(wye_flow_flush(world.dp(), None, None), WYE_OK);
    assert_eq!(open(*world, 10, c"pcap", &options), WYE_OK);
    world.answer.verdict = WYE_VERDICT_DROP;
    assert_eq!(poll(*world), 3);
    assert_eq!((world.packets_in(), world.stat(c"dropped.upcall_refused"), world.stat(c"upcall")), (6, 3, 0));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_cannot_be_opened_leaves_nothing_behind() {
    let world = Fixture::new();
    assert_eq!(open(*world, 10, c"dpdk", c""), WYE_E_INVALID);
    assert_eq!(open(*world, 10, c"pcap", c"mtu=9"), WYE_E_INVALID);
    assert_eq!(open(*world, 10, c"pcap", c"read"), WYE_E_INVALID);
    assert!(open(*world, 10, c"pcap", c"read=/no/such/file") < 0);
    assert_eq!(open(*world, 1, c"pcap", c""), WYE_E_EXISTS);
    assert_eq!(wye_port_del(world.dp(), 10, None), WYE_E_NOT_FOUND);
    assert_eq!(wye_worker_poll(world.w(), 1, None), WYE_OK);
    assert_eq!(wye_worker_poll(None, 1, None), WYE_E_INVALID);
    // SAFETY: NULL is what is tested.
    assert_eq!(unsafe { wye_port_open(world.w(), null(), null(), null(), None) }, WYE_E_INVALID);
}
