use proptest::prelude::*;

use super::*;
use crate::testing::Frame;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const LINK: Link = Link { src: OURS, vlan: None };

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x1234, n)
}

#[test]
fn arp_is_written_as_it_is_read() {
    let (ours, theirs) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let request = arp_request(LINK, ours, theirs, None);
    let expected = Frame::new().eth([0xff; 6], OURS).arp(1, OURS, ours.octets(), [0; 6], theirs.octets());
    assert_eq!(request, expected.pad_to(60).build());
    let sender = Sender { ip: ours.into(), mac: Some(OURS) };
    assert_eq!(read_arp(&request[14..]), Some(Message::Question { sender, target: theirs.into() }));
    assert_eq!(arp_request(LINK, ours, theirs, Some(THEIRS))[..6], THEIRS);
    let reply = arp_reply(LINK, (OURS, ours), (THEIRS, theirs));
    let answer =
        Message::Answer { target: ours.into(), mac: Some(OURS), router: false, solicited: true, overriding: true };
    assert_eq!(read_arp(&reply[14..]), Some(answer));
    let announcement = read_arp(&arp_announcement(LINK, ours)[14..]).unwrap();
    assert!(announcement.is_announcement() && !answer.is_announcement());
    let tagged = arp_request(Link { vlan: Some(7), ..LINK }, ours, theirs, None);
    assert_eq!((&tagged[12..18], tagged.len()), (&[0x81, 0, 0, 7, 8, 6][..], 60));
    // Of another protocol; an unknown operation.
    let mut wrong = reply.clone();
    wrong[16] = 9;
    assert_eq!(read_arp(&wrong[14..]), None);
    let mut wrong = reply;
    wrong[21] = 3;
    assert_eq!(read_arp(&wrong[14..]), None);
}

#[test]
fn neighbour_discovery_is_written_as_it_is_read() {
    let solicitation = nd_solicitation(LINK, v6(1), v6(2), None);
    assert_eq!(solicitation[..6], [0x33, 0x33, 0xff, 0x34, 0, 2]);
    let sender = Sender { ip: v6(1).into(), mac: Some(OURS) };
    let question = Message::Question { sender, target: v6(2).into() };
    assert_eq!(read_nd(&solicitation[14..]), Some(question));
    let probe = nd_solicitation(LINK, v6(1), v6(2), Some(THEIRS));
    assert_eq!((&probe[..6], read_nd(&probe[14..])), (&THEIRS[..], Some(question)));
    let advertisement = nd_advertisement(LINK, (OURS, v6(1)), Some((THEIRS, v6(2))));
    let answer =
        Message::Answer { target: v6(1).into(), mac: Some(OURS), router: false, solicited: true, overriding: true };
    assert_eq!((&advertisement[..6], read_nd(&advertisement[14..])), (&THEIRS[..], Some(answer)));
    // What was asked for from one host need not repeat the address; who speaks for a router says that it is one.
    let mut short = advertisement[14..78].to_vec();
    short[5] = 24;
    short[42..44].fill(0);
    let sum = pseudo_v6(short[8..].first_chunk().unwrap(), short[24..].first_chunk().unwrap(), 58, 24);
    let sum = sum.bytes(&short[40..]).finish();
    short[42..44].copy_from_slice(&sum.to_be_bytes());
    let unsaid = Message::Answer { target: v6(1).into(), mac: None, router: false, solicited: true, overriding: true };
    assert_eq!(read_nd(&short), Some(unsaid));
    let of_router = nd_advertisement_for(LINK, (OURS, v6(1)), (THEIRS, v6(2)), true);
    let said =
        Message::Answer { target: v6(1).into(), mac: Some(OURS), router: true, solicited: true, overriding: false };
    assert_eq!(read_nd(&of_router[14..]), Some(said));
    let announcement = nd_advertisement(LINK, (OURS, v6(1)), None);
    assert_eq!(announcement[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert!(read_nd(&announcement[14..]).unwrap().is_announcement());
}

/// RFC 4861 §7.1: what a receiver must discard.
#[test]
fn neighbour_discovery_that_may_be_a_lie_is_not_believed() {
    let good = nd_solicitation(LINK, v6(1), v6(2), None)[14..].to_vec();
    let fixed = |mut bytes: Vec<u8>| {
        let payload = (bytes.len() - 40) as u16;
        bytes[4..6].copy_from_slice(&payload.to_be_bytes());
        bytes[42..44].fill(0);
        let sum = pseudo_v6(bytes[8..].first_chunk().unwrap(), bytes[24..].first_chunk().unwrap(), 58, payload.into());
        let sum = sum.bytes(&bytes[40..]).finish();
        bytes[42..44].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        fixed(bytes)
    };
    assert!(read_nd(&fixed(good.clone())).is_some());
    for (at, value, why) in [
        (7, 254, "hop limit"),
        (41, 1, "code"),
        (48, 0xff, "a group as target"),
        (65, 0, "an option of length 0"),
        (65, 2, "an option behind the end"),
        (8, 0xff, "a group as source"),
    ] {
        assert_eq!(read_nd(&with(at, value)), None, "{why}");
    }
    let mut sum = good.clone();
    sum[43] ^= 1;
    assert_eq!(read_nd(&sum), None);
    assert_eq!(read_nd(&good[..good.len() - 1]), None);
    // Who has no address says no link-layer address, and asks the group.
    let mut nobody = good.clone();
    nobody[8..24].fill(0);
    assert_eq!(read_nd(&fixed(nobody.clone())), None);
    nobody.truncate(64);
    assert!(read_nd(&fixed(nobody.clone())).is_some());
    nobody[24..40].copy_from_slice(&v6(2).octets());
    assert_eq!(read_nd(&fixed(nobody)), None);
    // An answer to all is no answer to a question.
    let mut answer = nd_advertisement(LINK, (OURS, v6(1)), None)[14..].to_vec();
    answer[44] |= 0x40;
    assert_eq!(read_nd(&fixed(answer)), None);
}

#[test]
fn echo_requests_are_answered_and_nothing_else_is() {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let request = |data: &[u8]| Frame::new().eth(OURS, THEIRS).ipv4(a, b).icmp(8, 0, 0x1234_5678).payload(data);
    for data in [&[][..], &[1, 2, 3], &[7; 1000]] {
        let reply = echo_reply(LINK, THEIRS, &request(data).build()[14..]).unwrap();
        let expected = Frame::new().eth(THEIRS, OURS).ipv4(b, a).dont_fragment().id(0).icmp(0, 0, 0x1234_5678);
        assert_eq!(reply, expected.payload(data).pad_to(60).build());
    }
    let request6 = Frame::new().eth(OURS, THEIRS).ipv6([0xfd; 16], [0xfe; 16]).icmpv6(128, 0, 9).payload(&[5; 33]);
    let reply = echo_reply(LINK, THEIRS, &request6.build()[14..]).unwrap();
    let expected = Frame::new().eth(THEIRS, OURS).ipv6([0xfe; 16], [0xfd; 16]).icmpv6(129, 0, 9).payload(&[5; 33]);
    assert_eq!(reply, expected.build());
    for frame in [
        Frame::new().eth(OURS, THEIRS).ipv4(a, b).icmp(0, 0, 1),
        Frame::new().eth(OURS, THEIRS).ipv4([224, 0, 0, 1], b).icmp(8, 0, 1),
        Frame::new().eth(OURS, THEIRS).ipv4(a, [255; 4]).icmp(8, 0, 1),
        Frame::new().eth(OURS, THEIRS).ipv4(a, b).fragment(0, true).icmp(8, 0, 1),
        Frame::udp4(),
        Frame::new().eth(OURS, THEIRS).ipv6([0xfd; 16], [0xff; 16]).icmpv6(128, 0, 9),
    ] {
        assert_eq!(echo_reply(LINK, THEIRS, &frame.build()[14..]), None);
    }
}

/// RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e).
#[test]
fn no_error_answers_an_error_a_group_or_a_later_fragment() {
    let packet = |frame: Frame| frame.payload(&[7; 1400]).build()[14..].to_vec();
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let v4 = || Frame::new().eth(OURS, THEIRS).ipv4(a, b);
    assert!(too_big(&packet(v4().dont_fragment().udp(1, 2)), 1000).is_some());
    assert!(too_big(&packet(v4().dont_fragment().icmp(8, 0, 1)), 1000).is_some());
    for frame in [
        v4().udp(1, 2),
        v4().dont_fragment().icmp(3, 4, 1),
        v4().dont_fragment().icmp(5, 0, 1),
        Frame::new().eth(OURS, THEIRS).ipv4(a, [224, 0, 0, 5]).dont_fragment().udp(1, 2),
        Frame::new().eth(OURS, THEIRS).ipv4([0; 4], b).dont_fragment().udp(1, 2),
        Frame::new().eth(OURS, THEIRS).ipv6([0xfd; 16], [0xfe; 16]).icmpv6(1, 0, 0),
        Frame::new().eth(OURS, THEIRS).ipv6([0xfd; 16], [0xff; 16]).udp(1, 2),
    ] {
        assert_eq!(too_big(&packet(frame), 1000), None);
    }
    let error = too_big(&packet(Frame::new().eth(OURS, THEIRS).ipv6([0xfd; 16], [0xfe; 16]).udp(1, 2)), 1280).unwrap();
    assert_eq!(error.len(), 1280);
    assert!(icmpv6_of(&error).is_some());
    let error = too_big(&packet(v4().dont_fragment().tcp(1, 2)), 1000).unwrap();
    assert_eq!((error.len(), checksum::of(&error[..20]), checksum::of(&error[20..])), (576, 0, 0));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), first in 0u8..255) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let _ = (read_arp(&bytes), read_nd(&bytes), echo_reply(LINK, THEIRS, &bytes), too_big(&bytes, 500));
    }
}
