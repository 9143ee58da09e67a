//! Flows by attributes.

use std::mem::{MaybeUninit, zeroed};
use std::os::raw::c_void;

use wye_capi::datapath::*;
use wye_capi::flow::*;
use wye_capi::status::*;

use crate::switch::*;

fn bytes<'a>(at: *const c_void, len: u32) -> &'a [u8] {
    // SAFETY: the library described its own copy, in a buffer that outlives the use.
    unsafe { std::slice::from_raw_parts(at.cast(), len as usize) }
}

#[test]
fn a_flow_is_read_as_it_was_written() {
    let world = Fixture::new();
    // Bits outside the mask, and an order of attributes that the library itself does not write.
    let key =
        [attribute(6, &0x88b5u16.to_be_bytes()), attribute(4, &[7; 12]), attribute(3, &1u32.to_ne_bytes())].concat();
    let mask = [attribute(3, &[0xff; 4]), attribute(4, &[0; 12]), attribute(6, &[0xff; 2])].concat();
    assert_eq!(world.put(WYE_PUT_CREATE, 9, &key, &mask, &output(2)), WYE_OK);
    assert_eq!(world.put(WYE_PUT_CREATE, 9, &key, &mask, &output(2)), WYE_E_EXISTS);
    assert_eq!(world.put(WYE_PUT_MODIFY, 8, &key, &mask, &output(2)), WYE_E_NOT_FOUND);
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!(world.put(WYE_PUT_MODIFY, 9, &[], &[], &output(3)), WYE_OK);
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!(world.sent.iter().map(|s| s.port).collect::<Vec<_>>(), [2, 3]);

    let mut buffer = [0u64; 64];
    let (mut len, mut flow) = (8, MaybeUninit::uninit());
    // SAFETY: the buffer is as long as `len` says.
    unsafe {
        let at = buffer.as_mut_ptr().cast();
        let get = |len: &mut usize, flow: &mut MaybeUninit<wye_flow>| {
            wye_flow_get(world.dp(), [9u8; 16].as_ptr(), at, Some(len), Some(flow), None)
        };
        assert_eq!(get(&mut len, &mut flow), WYE_E_NO_SPACE);
        assert_eq!(get(&mut len, &mut flow), WYE_OK);
        let flow = flow.assume_init();
        assert_eq!(bytes(flow.key, flow.key_len), key);
        assert_eq!(bytes(flow.mask, flow.mask_len), mask);
        assert_eq!(bytes(flow.actions, flow.actions_len), output(3));
        assert_eq!((flow.stats.packets, flow.stats.bytes, flow.stats.used_ns), (2, 120, 1_000_000));
        let mut last = MaybeUninit::uninit();
        assert_eq!(wye_flow_del(world.dp(), [9u8; 16].as_ptr(), Some(&mut last), None), WYE_OK);
        assert_eq!(last.assume_init().packets, 2);
        assert_eq!(wye_flow_del(world.dp(), [9u8; 16].as_ptr(), None, None), WYE_E_NOT_FOUND);
    }
    assert_eq!(wye_flow_count(world.dp()), 0);
}

#[test]
fn a_key_finds_the_flow_that_its_packets_would_hit() {
    let world = Fixture::new();
    world.put(WYE_PUT_CREATE, 3, &key(1), &port_mask(), &output(2));
    let mut ufid = [0u8; 16];
    let (hit, miss) = (key(1), key(2));
    // SAFETY: the keys and the identifier are valid.
    unsafe {
        assert_eq!(wye_flow_match(world.dp(), hit.as_ptr().cast(), hit.len(), ufid.as_mut_ptr(), None), WYE_OK);
        assert_eq!(ufid, [3; 16]);
        let status = wye_flow_match(world.dp(), miss.as_ptr().cast(), miss.len(), ufid.as_mut_ptr(), None);
        assert_eq!(status, WYE_E_NOT_FOUND);
    }
}

#[test]
fn flows_without_an_identifier_are_known_by_key_and_mask() {
    let world = Fixture::new();
    assert_eq!(world.put(WYE_PUT_CREATE, 0, &key(1), &port_mask(), &output(2)), WYE_OK);
    assert_eq!(world.put(WYE_PUT_CREATE, 0, &key(1), &port_mask(), &output(2)), WYE_E_EXISTS);
    assert_eq!(world.put(WYE_PUT_CREATE | WYE_PUT_MODIFY, 0, &key(1), &port_mask(), &output(3)), WYE_OK);
    assert_eq!(wye_flow_count(world.dp()), 1);
}

#[test]
fn a_walk_returns_each_flow_once_whatever_the_buffer() {
    let world = Fixture::new();
    for port in 1..=50u32 {
        assert_eq!(world.put(WYE_PUT_CREATE, port as u8, &key(port), &port_mask(), &output(2)), WYE_OK);
    }
    for (terse, size) in [(0, 40), (0, 1000), (1, 0)] {
        let mut dump = MaybeUninit::uninit();
        assert_eq!(wye_flow_dump_start(world.dp(), terse, Some(&mut dump), None), WYE_OK);
        let mut seen = vec![];
        let mut buffer = vec![0u64; size / 8];
        // SAFETY: the buffers are as long as they are said to be.
        unsafe {
            let dump = dump.assume_init();
            loop {
                let mut flows: [wye_flow; 7] = zeroed();
                let mut len = buffer.len() * 8;
                let n = wye_flow_dump_next(
                    dump.as_ref(),
                    flows.as_mut_ptr(),
                    7,
                    buffer.as_mut_ptr().cast(),
                    Some(&mut len),
                );
                if n == WYE_E_NO_SPACE {
                    buffer.resize(len.div_ceil(8), 0);
                    continue;
                }
                if n == 0 {
                    break;
                }
                for flow in &flows[..n as usize] {
                    let port = u32::from(flow.ufid[0]);
                    if terse == 0 {
                        assert_eq!(bytes(flow.key, flow.key_len), key(port));
                        assert_eq!(bytes(flow.mask, flow.mask_len), port_mask());
                    }
                    seen.push(port);
                }
            }
            wye_flow_dump_free(dump);
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    }
    let mut removed = MaybeUninit::uninit();
    assert_eq!(wye_flow_flush(world.dp(), Some(&mut removed), None), WYE_OK);
    // SAFETY: written on success.
    assert_eq!((unsafe { removed.assume_init() }, wye_flow_count(world.dp())), (50, 0));
}

#[test]
fn upkeep_removes_flows_whose_time_is_over_and_tells() {
    unsafe extern "C-unwind" fn expired(ctx: *mut c_void, ufid: *const u8, stats: *const wye_flow_stats) {
        // SAFETY: the context is the list; both pointers are valid.
        unsafe { (*ctx.cast::<Vec<(u8, u64)>>()).push((*ufid, (*stats).packets)) };
    }
    let world = Fixture::new();
    // SAFETY: a request is integers and pointers, the pointers are valid.
    unsafe {
        let (key, actions) = (key(1), output(2));
        let mut put: wye_flow_request = zeroed();
        put.size = size_of::<wye_flow_request>() as u32;
        put.flags = WYE_PUT_CREATE;
        put.ufid = [4; 16];
        (put.key, put.key_len) = (key.as_ptr().cast(), key.len() as u32);
        (put.actions, put.actions_len) = (actions.as_ptr().cast(), actions.len() as u32);
        (put.idle_timeout_ns, put.now_ns) = (5_000_000, 1);
        assert_eq!(wye_flow_put(world.dp(), &put, None, None), WYE_OK);
        let mut gone: Vec<(u8, u64)> = vec![];
        let ctx = (&raw mut gone).cast();
        assert_eq!(wye_datapath_upkeep(world.dp(), 4_000_000, 0, Some(expired), ctx, None), WYE_OK);
        assert_eq!(wye_datapath_upkeep(world.dp(), 6_000_000, 0, Some(expired), ctx, None), WYE_OK);
        assert_eq!(gone, [(4, 0)]);
    }
    assert_eq!(wye_flow_count(world.dp()), 0);
}
