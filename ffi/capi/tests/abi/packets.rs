//! Packets of the caller's go through without a copy, and come back when they are not sent.

use std::ptr::null_mut;

use wye_capi::flow::*;
use wye_capi::packet::*;
use wye_capi::status::*;
use wye_capi::worker::*;

use crate::switch::*;

#[test]
fn transmit_gets_the_very_descriptor_and_buffer_that_came_in() {
    let world = Fixture::new();
    assert_eq!(world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2)), WYE_OK);
    let mut packets: Vec<_> = (0..300).map(|_| Owned::new(1)).collect();
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert_eq!((world.sent.len(), world.released.len()), (300, 0));
    for (sent, packet) in world.sent.iter().zip(&mut packets) {
        assert_eq!((sent.port, sent.at, sent.is_engines), (2, packet.at(), false));
        assert_eq!((sent.buffer, &sent.bytes[..]), (packet.bytes.as_mut_ptr(), &frame()[..]));
        assert!(packet.is(wye_fate::WYE_FATE_TRANSMITTED));
        assert_eq!(packet.descriptor.token as usize, 0x77);
    }
    assert_eq!((world.packets_in(), world.stat(c"transmitted")), (300, 300));
}

#[test]
fn outputs_before_the_last_get_copies_of_the_engines() {
    let mut world = Fixture::new();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &[output(2), output(3)].concat());
    let mut packets = [Owned::new(1)];
    assert_eq!(world.process(&mut packets), WYE_OK);
    world.sent.sort_by_key(|s| s.port);
    assert_eq!(world.sent.iter().map(|s| (s.port, s.is_engines)).collect::<Vec<_>>(), [(2, true), (3, false)]);
    assert_eq!(world.sent[0].bytes, frame());
    assert_eq!((world.sent[1].at, world.released.len()), (packets[0].at(), 0));
    assert_eq!((world.packets_in(), world.stat(c"copies_transmitted")), (1, 1));
}

#[test]
fn what_is_not_taken_is_released_with_its_fate() {
    let mut world = Fixture::new();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &output(9));
    world.put(WYE_PUT_CREATE, 3, &key(3), &port_mask(), &[]);
    world.takes = 1;
    let mut packets = [Owned::new(1), Owned::new(1), Owned::new(2), Owned::new(3)];
    packets[3].descriptor.len = 0;
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert_eq!((world.sent.len(), world.sent[0].at), (1, packets[0].at()));
    let dropped = wye_fate::WYE_FATE_DROPPED as u16;
    let expected = [
        (packets[1].at(), dropped, wye_drop::WYE_DROP_TX_FULL as u16),
        (packets[2].at(), dropped, wye_drop::WYE_DROP_INVALID_PORT as u16),
        (packets[3].at(), dropped, wye_drop::WYE_DROP_RX_INVALID as u16),
    ];
    assert_eq!(world.released, expected);
    assert_eq!((world.packets_in(), world.stat(c"dropped.tx_full"), world.stat(c"dropped.invalid_port")), (4, 1, 1));
}

#[test]
fn execute_carries_out_actions_without_a_lookup() {
    let world = Fixture::new();
    let mut packet = Owned::new(WYE_PORT_NONE);
    assert_eq!(world.execute(&mut packet, &output(3), 0), WYE_OK);
    assert_eq!((world.sent[0].port, world.sent[0].at), (3, packet.at()));
    assert!(world.upcalls.is_empty() && world.released.is_empty());
    assert_eq!(world.execute(&mut Owned::new(1), &[1, 2, 3], 0), WYE_E_INVALID);
    assert_eq!(world.execute(&mut Owned::new(1), &attribute(0x3000, &[]), 0), WYE_E_UNSUPPORTED);
    assert_eq!(world.packets_in(), 1);
}

#[test]
fn execute_with_keep_leaves_the_packet_with_the_caller() {
    let world = Fixture::new();
    let mut packet = Owned::new(1);
    let vlan = attribute(4, &[0x81, 0, 0x10, 5]);
    assert_eq!(world.execute(&mut packet, &[vlan, output(3)].concat(), WYE_EXECUTE_KEEP), WYE_OK);
    assert!(packet.is(wye_fate::WYE_FATE_KEPT));
    assert_eq!((packet.descriptor.data_ofs, packet.descriptor.len), (60, 64));
    assert!(world.sent[0].is_engines && world.sent[0].bytes.len() == 64 && world.released.is_empty());
    assert_eq!(world.sent[0].bytes[12..16], [0x81, 0, 0, 5]);
    // An explicit drop ends it, but it stays the caller's.
    assert_eq!(world.execute(&mut packet, &attribute(24, &1u32.to_ne_bytes()), WYE_EXECUTE_KEEP), WYE_OK);
    assert!(packet.is(wye_fate::WYE_FATE_DROPPED) && world.released.is_empty());
    assert_eq!(world.execute(&mut packet, &output(3), 64), WYE_E_INVALID);
}

#[test]
fn a_packet_that_is_kept_does_not_move_to_another_buffer() {
    let world = Fixture::new();
    let mut packet = Owned::new(1);
    packet.descriptor.buffer = packet.bytes[64..].as_mut_ptr();
    (packet.descriptor.data_ofs, packet.descriptor.capacity) = (0, 128);
    let vlan = attribute(4, &[0x81, 0, 0x10, 5]);
    // A copy of it does.
    let actions = [attribute(20, &[vlan.clone(), output(2)].concat()), vlan, output(3)].concat();
    assert_eq!(world.execute(&mut packet, &actions, WYE_EXECUTE_KEEP), WYE_OK);
    assert!(packet.is(wye_fate::WYE_FATE_DROPPED));
    assert_eq!(packet.descriptor.reason, wye_drop::WYE_DROP_NO_HEADROOM as u16);
    assert_eq!((packet.descriptor.data_ofs, packet.descriptor.len), (0, 60));
    assert_eq!(world.sent.iter().map(|s| (s.port, s.bytes.len())).collect::<Vec<_>>(), [(2, 64)]);
    assert!(world.released.is_empty());
    assert_eq!((world.packets_in(), world.stat(c"dropped.no_headroom")), (1, 1));
}

#[test]
fn a_packet_without_headroom_is_sent_from_the_engines_buffer_and_released() {
    let world = Fixture::new();
    let mut packet = Owned::new(1);
    packet.descriptor.buffer = packet.bytes[64..].as_mut_ptr();
    (packet.descriptor.data_ofs, packet.descriptor.capacity) = (0, 128);
    let vlan = attribute(4, &[0x81, 0, 0x10, 5]);
    assert_eq!(world.execute(&mut packet, &[vlan, output(3)].concat(), 0), WYE_OK);
    assert!(world.sent[0].is_engines && world.sent[0].bytes.len() == 64);
    assert_eq!(world.released, [(packet.at(), wye_fate::WYE_FATE_TRANSMITTED as u16, 0)]);
    assert_eq!(world.packets_in(), 1);
}

#[test]
fn without_release_the_caller_looks_at_the_fate() {
    let mut world = Fixture::with(wye_worker_ops { release: None, upcall: None, ..ops() });
    let mut packets = [Owned::new(1)];
    packets[0].descriptor.buffer = null_mut();
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert!(packets[0].is(wye_fate::WYE_FATE_DROPPED));
    assert_eq!(world.released.len() + world.sent.len(), 0);
    assert_eq!(world.stat(c"dropped.rx_invalid"), 1);
    world.takes = 0;
}
