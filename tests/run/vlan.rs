//! VLANs: what an access port, a trunk and a trunk with a native VLAN take in and let out.

use wye::testing::Frame;
use wye::testing::packets::{IP_A, IP_B};

use crate::for_every_kind;
use crate::switch::number;
use crate::wires::Panel;

for_every_kind!(
    access_ports_of_different_vlans_are_isolated_and_a_trunk_has_both_with_tags,
    a_priority_tag_names_no_vlan_and_its_priority_goes_on_into_a_new_tag,
    a_service_tag_is_payload_and_travels_unchanged,
);

const BROADCAST: [u8; 6] = [0xff; 6];

/// The address of station `n`.
fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// A datagram from station `from` to `to`, with whatever `tagged` puts behind the addresses.
fn frame(to: [u8; 6], from: u8, tagged: impl FnOnce(Frame) -> Frame) -> Vec<u8> {
    tagged(Frame::new().eth(to, mac(from))).ipv4(IP_A, IP_B).udp(1000, 2000).payload(b"a datagram in a VLAN").build()
}

fn untagged(to: [u8; 6], from: u8) -> Vec<u8> {
    frame(to, from, |f| f)
}

fn tagged(to: [u8; 6], from: u8, tci: u16) -> Vec<u8> {
    frame(to, from, |f| f.vlan(tci))
}

const NONE: [Vec<u8>; 0] = [];

/// Ports 1 and 2 in VLAN 10, port 3 in VLAN 20, port 4 a trunk of 10 and 20, port 5 a trunk of 20 whose native VLAN is 10.
fn panel(test: &str, kind: &str) -> Option<Panel> {
    let ports = ["access = 10", "access = 10", "access = 20", "trunk = [10, 20]", "trunk = [20]\nnative = 10"];
    Panel::new(test, kind, "", &ports)
}

fn access_ports_of_different_vlans_are_isolated_and_a_trunk_has_both_with_tags(test: &str, kind: &str) {
    let Some(mut panel) = panel(test, kind) else { return };
    // A broadcast goes to its VLAN alone: without a tag to access ports and where the VLAN is native, with one to trunks.
    let shout = untagged(BROADCAST, 1);
    let with_tag = tagged(BROADCAST, 1, 10);
    assert_eq!(panel.try_out(1, &shout), [vec![], vec![shout.clone()], vec![], vec![with_tag], vec![shout]]);
    let shout = untagged(BROADCAST, 3);
    let with_tag = tagged(BROADCAST, 3, 20);
    assert_eq!(panel.try_out(3, &shout), [vec![], vec![], vec![], vec![with_tag.clone()], vec![with_tag.clone()]]);
    // The same from a trunk.
    let with_tag = tagged(BROADCAST, 4, 20);
    let shout = untagged(BROADCAST, 4);
    assert_eq!(panel.try_out(4, &with_tag), [vec![], vec![], vec![shout], vec![], vec![with_tag.clone()]]);
    let shout = untagged(BROADCAST, 5);
    let with_tag = tagged(BROADCAST, 5, 10);
    assert_eq!(panel.try_out(5, &shout), [vec![shout.clone()], vec![shout], vec![], vec![with_tag], vec![]]);
    // What was learned is learned per VLAN: station 3, known in VLAN 20, is unknown in VLAN 10.
    let [there, back] = [tagged(mac(3), 4, 20), untagged(mac(4), 3)];
    assert_eq!(panel.try_out(4, &there), [vec![], vec![], vec![untagged(mac(3), 4)], vec![], vec![]]);
    assert_eq!(panel.try_out(3, &back), [vec![], vec![], vec![], vec![tagged(mac(4), 3, 20)], vec![]]);
    let lost = untagged(mac(3), 1);
    let out = panel.try_out(1, &lost);
    assert_eq!(out, [vec![], vec![lost.clone()], vec![], vec![tagged(mac(3), 1, 10)], vec![lost]]);
    assert_eq!(
        panel.switch.fdb(),
        ["10 02:00:00:00:00:01 p1", "10 02:00:00:00:00:05 p5", "20 02:00:00:00:00:03 p3", "20 02:00:00:00:00:04 p4"]
    );
    // Refused: a tag on an access port, no tag on a trunk without a native VLAN, a VLAN that the trunk does not have.
    for (port, refused) in [
        (1, tagged(mac(2), 1, 10)),
        (4, untagged(BROADCAST, 4)),
        (4, tagged(BROADCAST, 4, 30)),
        (5, tagged(BROADCAST, 5, 10)),
    ] {
        assert_eq!(panel.try_out(port, &refused), [NONE; 5], "{refused:02x?}");
    }
    let total = panel.switch.stop();
    assert_eq!(total["drops"], serde_json::json!({ "policy": 4 }), "{total:#}");
    assert_eq!(number(&total, "packets_in"), 11);
}

fn a_priority_tag_names_no_vlan_and_its_priority_goes_on_into_a_new_tag(test: &str, kind: &str) {
    let Some(mut panel) = panel(test, kind) else { return };
    let shout = tagged(BROADCAST, 1, 5 << 13);
    let (without, with) = (untagged(BROADCAST, 1), tagged(BROADCAST, 1, 5 << 13 | 10));
    assert_eq!(panel.try_out(1, &shout), [vec![], vec![without.clone()], vec![], vec![with], vec![without]]);
    // Another priority is another tag, and both flows are right at once.
    let reply = untagged(mac(1), 4);
    let with_tag = tagged(mac(1), 4, 10);
    assert_eq!(panel.try_out(4, &with_tag), [vec![reply], vec![], vec![], vec![], vec![]]);
    for _ in 0..2 {
        for priority in [0, 1, 7] {
            let sent = tagged(mac(4), 1, priority << 13);
            let expected = tagged(mac(4), 1, priority << 13 | 10);
            assert_eq!(panel.try_out(1, &sent), [vec![], vec![], vec![], vec![expected], vec![]], "{priority}");
        }
    }
    // A tag's own priority stays where the tag does, and goes with it where it goes.
    let sent = tagged(mac(3), 4, 6 << 13 | 20);
    let kept = vec![sent.clone()];
    assert_eq!(panel.try_out(4, &sent), [vec![], vec![], vec![untagged(mac(3), 4)], vec![], kept]);
    assert_eq!(panel.switch.stop()["drops"], serde_json::json!({}));
}

fn a_service_tag_is_payload_and_travels_unchanged(test: &str, kind: &str) {
    let Some(mut panel) = panel(test, kind) else { return };
    let double = |to| frame(to, 1, |f| f.tag(0x88a8, 100).vlan(10));
    let shout = double(BROADCAST);
    let pushed = frame(BROADCAST, 1, |f| f.vlan(10).tag(0x88a8, 100).vlan(10));
    assert_eq!(
        panel.try_out(1, &shout),
        [vec![], vec![shout.clone()], vec![], vec![pushed.clone()], vec![shout.clone()]]
    );
    // On the trunk the customer's tag is inside: the outer one decides, and comes off where it is to.
    let reply = frame(mac(1), 4, |f| f.vlan(10).tag(0x88a8, 7).vlan(20));
    let popped = frame(mac(1), 4, |f| f.tag(0x88a8, 7).vlan(20));
    assert_eq!(panel.try_out(4, &reply), [vec![popped], vec![], vec![], vec![], vec![]]);
    // Two 802.1Q tags, the inner one as payload too.
    let two = frame(mac(1), 4, |f| f.vlan(10).vlan(20));
    assert_eq!(panel.try_out(4, &two), [vec![tagged(mac(1), 4, 20)], vec![], vec![], vec![], vec![]]);
    assert_eq!(panel.switch.stop()["drops"], serde_json::json!({}));
}
