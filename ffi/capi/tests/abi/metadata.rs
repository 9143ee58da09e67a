//! What a packet has beside its bytes and beside the engine's descriptor: QoS priority and connection label, in and out.

use wye_capi::flow::*;
use wye_capi::packet::*;
use wye_capi::status::*;
use wye_capi::worker::*;

use crate::switch::*;

/// `OVS_KEY_ATTR_PRIORITY`.
fn priority(value: u32) -> Vec<u8> {
    attribute(2, &value.to_ne_bytes())
}

/// `OVS_KEY_ATTR_CT_LABELS`.
fn label(value: [u8; 16]) -> Vec<u8> {
    attribute(25, &value)
}

/// `OVS_ACTION_ATTR_SET`.
fn set(key: &[u8]) -> Vec<u8> {
    attribute(3, key)
}

/// `OVS_ACTION_ATTR_RECIRC`.
fn recirc(id: u32) -> Vec<u8> {
    attribute(7, &id.to_ne_bytes())
}

const LABEL: [u8; 16] = [9; 16];

fn with_priority(priority: u32) -> Box<Owned> {
    let mut packet = Owned::new(1);
    packet.descriptor.skb_priority = priority;
    packet
}

#[test]
fn flows_match_the_priority_and_label_that_a_packet_brings() {
    let world = Fixture::new();
    let put = |ufid, more: Vec<u8>, port| {
        let (key, mask) = ([key(1), more.clone()].concat(), [port_mask(), vec_of_ones(&more)].concat());
        assert_eq!(world.put(WYE_PUT_CREATE, ufid, &key, &mask, &output(port)), WYE_OK);
    };
    put(1, [priority(7), label(LABEL)].concat(), 2);
    put(2, [priority(7), label([0; 16])].concat(), 3);
    put(3, [priority(0), label([0; 16])].concat(), 1);
    let mut packets = [with_priority(7), with_priority(7), with_priority(0), with_priority(8)];
    packets[0].descriptor.ct_label = LABEL;
    assert_eq!(world.process(&mut packets), WYE_OK);
    let mut sent: Vec<_> = world.sent.iter().map(|s| (s.port, s.at, s.priority, s.label)).collect();
    sent.sort_by_key(|s| s.0);
    let at: Vec<_> = packets.iter_mut().map(|p| p.at()).collect();
    assert_eq!(sent, [(1, at[2], 0, [0; 16]), (2, at[0], 7, LABEL), (3, at[1], 7, [0; 16])]);
    // Nothing matches the last, and the answer to its upcall is to drop it.
    let (dropped, refused) = (wye_fate::WYE_FATE_DROPPED as u16, wye_drop::WYE_DROP_UPCALL_REFUSED as u16);
    assert_eq!(world.released, [(at[3], dropped, refused)]);
    assert_eq!((world.packets_in(), world.stat(c"dropped.rx_invalid")), (4, 0));
}

/// Attributes of the same kinds and lengths with all bits set.
fn vec_of_ones(attributes: &[u8]) -> Vec<u8> {
    let mut out = attributes.to_vec();
    let mut at = 0;
    while at < out.len() {
        let len = u16::from_ne_bytes([out[at], out[at + 1]]) as usize;
        out[at + 4..at + len].fill(0xff);
        at += len.next_multiple_of(4);
    }
    out
}

#[test]
fn actions_set_the_priority_of_packets_and_copies() {
    let world = Fixture::new();
    let actions = [set(&priority(9)), output(2), set(&priority(10)), output(3)].concat();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &actions);
    let mut packets = [with_priority(0), with_priority(4)];
    assert_eq!(world.process(&mut packets), WYE_OK);
    let of_port = |port| -> Vec<_> {
        let on_port = world.sent.iter().filter(|s| s.port == port);
        on_port.map(|s| (s.is_engines, s.priority)).collect()
    };
    assert_eq!(of_port(2), [(true, 9), (true, 9)]);
    assert_eq!(of_port(3), [(false, 10), (false, 10)]);
    assert_eq!(packets.map(|p| p.descriptor.skb_priority), [10, 10]);
    // A copy without it that comes next does not inherit it.
    world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &[output(2), set(&priority(1)), output(3)].concat());
    let mut plain = [Owned::new(2)];
    assert_eq!(world.process(&mut plain), WYE_OK);
    assert_eq!(of_port(2)[2], (true, 0));
    assert_eq!(world.packets_in(), 3);
}

#[test]
fn a_packet_that_is_given_back_or_kept_shows_what_actions_set() {
    let world = Fixture::new();
    let mut dropped = with_priority(3);
    assert_eq!(world.execute(&mut dropped, &set(&priority(5)), 0), WYE_OK);
    assert_eq!((dropped.is(wye_fate::WYE_FATE_DROPPED), dropped.descriptor.skb_priority), (true, 5));
    let mut kept = with_priority(3);
    kept.descriptor.ct_label = LABEL;
    assert_eq!(world.execute(&mut kept, &set(&priority(0)), WYE_EXECUTE_KEEP), WYE_OK);
    let shown = (kept.is(wye_fate::WYE_FATE_KEPT), kept.descriptor.skb_priority, kept.descriptor.ct_label);
    assert_eq!(shown, (true, 0, LABEL));
    // Refused actions leave all as it was, and nothing behind.
    for _ in 0..2000 {
        let mut untouched = with_priority(3);
        assert_eq!(world.execute(&mut untouched, &attribute(99, &[]), 0), WYE_E_UNSUPPORTED);
        assert_eq!(untouched.descriptor.skb_priority, 3);
    }
    let mut packets: Vec<_> = (0..300).map(|_| with_priority(6)).collect();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert!(world.sent.len() == 300 && world.sent.iter().all(|s| s.priority == 6));
}

#[test]
fn an_upcall_shows_the_priority_and_its_answer_goes_on_with_it() {
    let mut world = Fixture::new();
    world.answer_with(output(3), 0);
    world.on_upcall = Some(Box::new(|_, upcall| {
        // SAFETY: the packet is valid and, being the caller's, may be changed.
        let packet = unsafe { &mut *upcall.packet };
        assert_eq!((packet.skb_priority, packet.ct_label), (5, LABEL));
        packet.skb_priority = 6;
    }));
    let mut packet = with_priority(5);
    packet.descriptor.ct_label = LABEL;
    assert_eq!(world.process(&mut [packet]), WYE_OK);
    let key = &world.upcalls[0].1;
    assert!(key.windows(8).any(|w| w == priority(5)) && key.windows(20).any(|w| w == label(LABEL)), "{key:?}");
    assert_eq!((world.sent[0].priority, world.sent[0].label), (6, LABEL));
    assert_eq!(world.packets_in(), 1);
}

#[test]
fn a_priority_that_an_action_set_is_still_there_after_an_upcall_and_a_recirculation() {
    let world = Fixture::new();
    world.answer_with(recirc(8), 0);
    let actions = [set(&priority(11)), userspace()].concat();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &actions);
    let again = [attribute(20, &8u32.to_ne_bytes()), key(1)[8..].to_vec(), priority(11)].concat();
    let mask = [port_mask(), vec_of_ones(&priority(0))].concat();
    assert_eq!(world.put(WYE_PUT_CREATE, 2, &again, &mask, &output(2)), WYE_OK);
    assert_eq!(world.process(&mut [with_priority(0)]), WYE_OK);
    assert_eq!(world.sent.iter().map(|s| (s.port, s.priority)).collect::<Vec<_>>(), [(2, 11)]);
    assert_eq!((world.packets_in(), world.upcalls.len()), (1, 1));
}
