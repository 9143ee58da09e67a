//! Upcalls: parked, answered outside of the engine, answered from the ring.

use std::mem::MaybeUninit;

use wye_capi::datapath::*;
use wye_capi::flow::*;
use wye_capi::packet::*;
use wye_capi::status::*;
use wye_capi::upcall::*;
use wye_capi::worker::*;

use crate::switch::*;

#[test]
fn a_miss_is_answered_installed_and_then_hit() {
    let mut world = Fixture::new();
    world.answer_with(output(2), WYE_ANSWER_INSTALL);
    let mask = port_mask();
    (world.answer.mask, world.answer.mask_len) = (mask.as_ptr().cast(), mask.len() as u32);
    let mut packets = [Owned::new(1), Owned::new(1), Owned::new(1)];
    assert_eq!(world.process(&mut packets), WYE_OK);
    // The first one's answer installs the flow that the others then hit.
    assert_eq!((world.upcalls.len(), world.sent.len(), world.released.len()), (1, 3, 0));
    assert_eq!(world.upcalls[0].0, WYE_UPCALL_MISS);
    assert_eq!(wye_flow_count(world.dp()), 1);
    assert_eq!((world.packets_in(), world.stat(c"upcall")), (3, 0));
    let mut packets = [Owned::new(1)];
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert_eq!((world.upcalls.len(), world.sent.len()), (1, 4));
    assert_eq!((world.sent[3].at, world.packets_in()), (packets[0].at(), 4));
}

#[test]
fn the_key_of_a_miss_can_be_put_as_it_is() {
    let mut world = Fixture::new();
    world.answer_with(output(2), 0);
    world.on_upcall = Some(Box::new(|world, _| {
        let key = world.upcalls[0].1.clone();
        assert_eq!(world.put(WYE_PUT_CREATE | WYE_PUT_UNLESS_MATCHED, 5, &key, &[], &output(3)), WYE_OK);
        assert_eq!(world.put(WYE_PUT_CREATE | WYE_PUT_UNLESS_MATCHED, 6, &key, &[], &output(3)), WYE_E_MATCHED);
    }));
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    world.on_upcall = None;
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!(world.sent.iter().map(|s| s.port).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(world.upcalls.len(), 1);
}

#[test]
fn the_worker_may_be_used_while_it_answers() {
    let mut world = Fixture::new();
    world.answer_with(output(2), 0);
    world.on_upcall = Some(Box::new(|mut world, _| {
        let mut own = Owned::new(WYE_PORT_NONE);
        assert_eq!(world.execute(&mut own, &[userspace(), output(3)].concat(), WYE_EXECUTE_KEEP), WYE_OK);
        assert_eq!(world.sent.len(), 1);
        world.answer.verdict = WYE_VERDICT_EXECUTE;
    }));
    // The second upcall is the nested one, delivered when the first is done; let it end the recursion.
    let mut packets = [Owned::new(1)];
    let on_upcall = world.on_upcall.take();
    let mut on_upcall = on_upcall.unwrap();
    let mut first = true;
    world.on_upcall = Some(Box::new(move |mut world, upcall| {
        if std::mem::take(&mut first) {
            on_upcall(world, upcall);
        } else {
            assert_eq!(upcall.kind, WYE_UPCALL_ACTION);
            assert!(!upcall.action.is_null() && upcall.action_len == 12);
            world.answer.verdict = WYE_VERDICT_DONE;
        }
    }));
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert_eq!(world.upcalls.len(), 2);
    assert_eq!(world.sent.iter().map(|s| s.port).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(world.packets_in(), 2);
}

#[test]
fn answers_decide_about_the_packet() {
    let mut world = Fixture::new();
    // Untouched: dropped.
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    world.answer.verdict = WYE_VERDICT_DONE;
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    // Actions that cannot be read: dropped.
    world.answer_with(vec![9; 3], 0);
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    world.answer.verdict = 77;
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    let ends: Vec<_> = world.released.iter().map(|(_, fate, reason)| (*fate, *reason)).collect();
    let refused = (wye_fate::WYE_FATE_DROPPED as u16, wye_drop::WYE_DROP_UPCALL_REFUSED as u16);
    assert_eq!(ends, [refused, (wye_fate::WYE_FATE_UPCALL as u16, 0), refused, refused]);
    assert_eq!((world.packets_in(), world.stat(c"dropped.upcall_refused"), world.stat(c"upcall")), (4, 3, 1));
}

#[test]
fn recirculated_packets_and_copies_go_up_and_come_back() {
    let mut world = Fixture::new();
    let recirc = attribute(7, &5u32.to_ne_bytes());
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &[output(3), recirc.clone()].concat());
    world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &[recirc, output(3)].concat());
    world.answer_with(output(2), 0);
    for port in [1, 2] {
        let mut packets = [Owned::new(port)];
        assert_eq!(world.process(&mut packets), WYE_OK);
        assert_eq!(world.upcalls.len() as u32, port);
        let mut ports: Vec<_> = world.sent.drain(..).map(|s| (s.port, s.is_engines)).collect();
        ports.sort_unstable();
        assert_eq!(ports, if port == 1 { [(2, false), (3, true)] } else { [(2, true), (3, false)] });
    }
    // The copy that was answered came in as a packet of its own.
    assert_eq!((world.packets_in(), world.released.len()), (3, 0));
}

#[test]
fn a_packet_that_moved_and_goes_up_is_counted_once() {
    let mut world = Fixture::new();
    let (vlan, recirc) = (attribute(4, &[0x81, 0, 0x10, 5]), attribute(7, &5u32.to_ne_bytes()));
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &[vlan, recirc].concat());
    let cramped = || {
        let mut packet = Owned::new(1);
        packet.descriptor.buffer = packet.bytes[64..].as_mut_ptr();
        (packet.descriptor.data_ofs, packet.descriptor.capacity) = (0, 128);
        [packet]
    };
    world.answer_with(output(2), 0);
    assert_eq!(world.process(&mut cramped()), WYE_OK);
    assert_eq!((world.sent.len(), world.released.len()), (1, 1));
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"upcall")), (1, 1, 0));
    world.answer.verdict = WYE_VERDICT_DROP;
    assert_eq!(world.process(&mut cramped()), WYE_OK);
    assert_eq!((world.packets_in(), world.stat(c"dropped.upcall_refused"), world.stat(c"upcall")), (2, 1, 0));
}

#[test]
fn answers_that_send_a_packet_round_and_round_come_to_an_end() {
    for again in [attribute(7, &5u32.to_ne_bytes()), userspace()] {
        let world = Fixture::new();
        world.answer_with(again, 0);
        let mut packets = [Owned::new(1), Owned::new(1)];
        assert_eq!(world.process(&mut packets), WYE_OK);
        assert_eq!(world.upcalls.len(), 18);
        let limit = (wye_fate::WYE_FATE_DROPPED as u16, wye_drop::WYE_DROP_RECIRCULATION_LIMIT as u16);
        assert_eq!(world.released.iter().map(|(_, fate, reason)| (*fate, *reason)).collect::<Vec<_>>(), [limit; 2]);
        assert_eq!((world.packets_in(), world.stat(c"dropped.recirculation_limit")), (2, 2));
    }
}

#[test]
fn upcalls_that_are_off_are_lost_and_counted() {
    let mut world = Fixture::new();
    assert_eq!(wye_datapath_set_upcalls(world.dp(), 0, None), WYE_OK);
    assert_eq!(wye_datapath_quiesce(world.dp(), 1_000_000_000, None), WYE_OK);
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!((world.upcalls.len(), world.stat(c"dropped.upcall_lost")), (0, 1));
    assert_eq!(wye_datapath_set_upcalls(world.dp(), 1, None), WYE_OK);
    // Turned off while one waits behind another.
    world.on_upcall = Some(Box::new(|world, _| {
        assert_eq!(wye_datapath_set_upcalls(world.dp(), 0, None), WYE_OK);
        assert_eq!(wye_datapath_quiesce(world.dp(), 1, None), WYE_E_BUSY);
    }));
    assert_eq!(world.process(&mut [Owned::new(1), Owned::new(2)]), WYE_OK);
    assert_eq!((world.upcalls.len(), world.stat(c"dropped.upcall_lost"), world.packets_in()), (1, 2, 3));
}

#[test]
fn without_a_callback_upcalls_wait_on_the_ring() {
    let world = Fixture::with(wye_worker_ops { upcall: None, ..ops() });
    let mut packets = [Owned::new(1), Owned::new(2)];
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert_eq!((wye_upcalls_waiting(world.dp()), world.released.len()), (2, 2));
    assert!(packets[0].is(wye_fate::WYE_FATE_UPCALL));
    let pop = || {
        let (mut queued, mut upcall) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        match wye_upcall_pop(world.dp(), Some(&mut queued), Some(&mut upcall), None) {
            // SAFETY: written on success.
            WYE_OK => Ok(unsafe { (queued.assume_init(), upcall.assume_init()) }),
            status => Err(status),
        }
    };
    let (first, upcall) = pop().ok().unwrap();
    // SAFETY: valid until it is answered.
    unsafe {
        assert_eq!((upcall.kind, (*upcall.packet).in_port, (*upcall.packet).len), (WYE_UPCALL_MISS, 1, 60));
        let actions = output(3);
        let mut answer = world.answer;
        answer.verdict = WYE_VERDICT_EXECUTE;
        (answer.actions, answer.actions_len) = (actions.as_ptr().cast(), actions.len() as u32);
        assert_eq!(wye_worker_answer(world.w(), first, Some(&answer), 2, None), WYE_OK);
    }
    assert_eq!((world.sent.len(), world.sent[0].port, &world.sent[0].bytes[..]), (1, 3, &frame()[..]));
    let (second, _) = pop().ok().unwrap();
    assert_eq!(pop().err(), Some(WYE_E_NOT_FOUND));
    // SAFETY: not used any more.
    unsafe { wye_queued_upcall_free(second) };
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"upcall")), (2, 1, 1));
    // A copy on the ring has had its end, so it comes in anew.
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &[userspace(), output(2)].concat());
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"upcall")), (3, 2, 1));
    let (copy, upcall) = pop().ok().unwrap();
    assert_eq!(upcall.kind, WYE_UPCALL_ACTION);
    let actions = output(3);
    let mut answer = world.answer;
    answer.verdict = WYE_VERDICT_EXECUTE;
    (answer.actions, answer.actions_len) = (actions.as_ptr().cast(), actions.len() as u32);
    // SAFETY: the actions are valid, and the upcall is not used any more.
    assert_eq!(unsafe { wye_worker_answer(world.w(), copy, Some(&answer), 2, None) }, WYE_OK);
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"upcall")), (4, 3, 1));
}
