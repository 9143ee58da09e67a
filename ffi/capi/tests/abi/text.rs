//! Flows and actions as text.

use std::ffi::{CStr, CString};
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};

use wye_capi::flow::*;
use wye_capi::status::*;
use wye_capi::text::*;
use wye_capi::upcall::*;

use crate::switch::*;

fn put(world: Test, match_text: &CStr, actions_text: &CStr) -> Result<(), String> {
    let mut error = MaybeUninit::uninit();
    // SAFETY: the struct is valid, and so are the strings; the error is written when the call fails.
    unsafe {
        let mut put: wye_flow_request = zeroed();
        put.size = size_of::<wye_flow_request>() as u32;
        put.flags = WYE_PUT_CREATE;
        put.match_text = match_text.as_ptr();
        put.actions_text = actions_text.as_ptr();
        if wye_flow_put(world.dp(), &put, None, Some(&mut error)) == WYE_OK {
            return Ok(());
        }
        let error = error.assume_init();
        let message = CStr::from_ptr(wye_error_message(error.as_ref())).to_str().unwrap().to_owned();
        wye_error_free(error);
        Err(message)
    }
}

fn lines(world: Test) -> Vec<String> {
    let (mut dump, mut found) = (MaybeUninit::uninit(), vec![]);
    assert_eq!(wye_flow_dump_start(world.dp(), 0, Some(&mut dump), None), WYE_OK);
    // SAFETY: the dump lives, the buffers are valid for their lengths.
    unsafe {
        let dump = dump.assume_init();
        loop {
            let (mut flows, mut buffer): ([wye_flow; 2], [u64; 128]) = zeroed();
            let n =
                wye_flow_dump_next(dump.as_ref(), flows.as_mut_ptr(), 2, buffer.as_mut_ptr().cast(), Some(&mut 1024));
            if n <= 0 {
                assert_eq!(n, 0);
                break;
            }
            for flow in &flows[..n as usize] {
                let (mut text, mut len) = ([0u8; 512], 512);
                let status =
                    wye_flow_to_text(Some(flow), 3_500_000_000, text.as_mut_ptr().cast(), Some(&mut len), None);
                assert_eq!(status, WYE_OK);
                let line = CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap().to_owned();
                assert_eq!(line.len(), len);
                found.push(line);
            }
        }
        wye_flow_dump_free(dump);
    }
    found
}

#[test]
fn a_flow_by_text_carries_packets_and_reads_back() {
    let world = Fixture::new();
    // Ports may be named; the fixture's are called portN.
    put(*world, c"in_port(port1),eth_type(0x88b5)", c"push_vlan(vid=5,pcp=0),port2").unwrap();
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!((world.sent[0].port, &world.sent[0].bytes[12..16]), (2, &[0x81, 0, 0, 5][..]));
    let line = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x88b5), packets:1, bytes:60, used:3.499s, \
                actions:push_vlan(vid=5,pcp=0),2";
    assert_eq!(lines(*world), [line]);
}

#[test]
fn wrong_text_is_refused_with_its_column_and_installs_nothing() {
    let world = Fixture::new();
    let refused = put(*world, c"in_port(1),eth(src=zz)", c"2").unwrap_err();
    assert!(refused.starts_with("match_text: column 20: eth(src)"), "{refused}");
    let refused = put(*world, c"in_port(1)", c"push_vlan(vid=5000,pcp=0)").unwrap_err();
    assert!(refused.starts_with("actions_text: column"), "{refused}");
    assert_eq!(wye_flow_count(world.dp()), 0);
    // Text beside attributes is one too many.
    // SAFETY: the struct is valid.
    unsafe {
        let mut put: wye_flow_request = zeroed();
        put.size = size_of::<wye_flow_request>() as u32;
        put.flags = WYE_PUT_CREATE;
        let key = key(1);
        (put.key, put.key_len, put.match_text) = (key.as_ptr().cast(), key.len() as u32, c"in_port(1)".as_ptr());
        assert_eq!(wye_flow_put(world.dp(), &put, None, None), WYE_E_INVALID);
    }
}

#[test]
fn an_answer_by_text_installs_the_flow_that_it_names() {
    let mut world = Fixture::new();
    world.answer.verdict = WYE_VERDICT_EXECUTE;
    world.answer.flags = WYE_ANSWER_INSTALL;
    world.answer.actions_text = c"3".as_ptr();
    world.answer.match_text = c"in_port(1)".as_ptr();
    assert_eq!(world.process(&mut [Owned::new(1), Owned::new(1)]), WYE_OK);
    assert_eq!((world.upcalls.len(), world.sent.len(), wye_flow_count(world.dp())), (1, 2, 1));
    // A match that the packet does not have drops it and installs nothing.
    world.answer.match_text = c"in_port(1)".as_ptr();
    assert_eq!(world.process(&mut [Owned::new(2)]), WYE_OK);
    assert_eq!((world.sent.len(), world.released.len(), wye_flow_count(world.dp())), (2, 1, 1));
    assert_eq!((world.packets_in(), world.stat(c"dropped.upcall_refused")), (3, 1));
}

#[test]
fn actions_go_to_text_and_back_and_a_short_buffer_is_told_the_length() {
    let world = Fixture::new();
    let text = c"set(eth(dst=02:00:00:00:00:01)),2";
    let (mut buffer, mut len) = ([0u64; 16], 128);
    let (mut out, mut out_len) = ([0u8; 64], 64);
    // SAFETY: the buffers are valid for their lengths.
    unsafe {
        let mut short = 3;
        assert_eq!(wye_actions_from_text(world.dp(), text.as_ptr(), null_mut(), Some(&mut 0), None), WYE_E_NO_SPACE);
        assert_eq!(
            wye_actions_from_text(world.dp(), text.as_ptr(), buffer.as_mut_ptr().cast(), Some(&mut len), None),
            WYE_OK
        );
        let list = buffer.as_ptr().cast();
        assert_eq!(wye_actions_to_text(list, len, out.as_mut_ptr().cast(), Some(&mut short), None), WYE_E_NO_SPACE);
        assert_eq!(short, CString::from(text).as_bytes_with_nul().len());
        assert_eq!(wye_actions_to_text(list, len, out.as_mut_ptr().cast(), Some(&mut out_len), None), WYE_OK);
        assert_eq!(CStr::from_bytes_until_nul(&out).unwrap(), text);
        assert_eq!(out_len, text.count_bytes());
        assert_eq!(wye_key_to_text(null(), 0, null(), 0, null_mut(), None, None), WYE_E_INVALID);
    }
}
