use proptest::prelude::*;

use super::*;
use crate::testing::Frame;

const US: [u8; 4] = [192, 0, 2, 1];
const END: [u8; 4] = [198, 51, 100, 7];
const US6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const END6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// An IP packet without its link layer.
fn packet(frame: Frame) -> Vec<u8> {
    frame.build()[14..].to_vec()
}

/// What a router at 203.0.113.9 says about a packet that begins like this.
fn error(quoted: &[u8], mtu: u32) -> Vec<u8> {
    packet(Frame::new().eth([2; 6], [4; 6]).ipv4([203, 0, 113, 9], US).icmp(3, 4, mtu).payload(quoted))
}

fn error6(quoted: &[u8], mtu: u32) -> Vec<u8> {
    packet(Frame::new().eth([2; 6], [4; 6]).ipv6([0x20; 16], US6).icmpv6(2, 0, mtu).payload(quoted))
}

/// A packet of a VXLAN tunnel of ours, `len` bytes long; a frame makes of it what is to be wrong.
fn ours(len: usize) -> Vec<u8> {
    packet(sent().dont_fragment().udp(40_000, 4789).payload(&vec![0; len - 28]))
}

fn sent() -> Frame {
    Frame::new().eth([4; 6], [2; 6]).ipv4(US, END)
}

fn ours6(len: usize) -> Vec<u8> {
    packet(Frame::new().eth([4; 6], [2; 6]).ipv6(US6, END6).udp(40_000, 6081).payload(&vec![0; len - 48]))
}

/// What is told; 0 for what is not believed.
fn told(bytes: &[u8]) -> u32 {
    read(bytes).unwrap().map_or(0, |told| told.mtu)
}

#[test]
fn rfc1191_s4_a_router_says_what_gets_through() {
    let vxlan = TooBig { source: US.into(), remote: END.into(), carrier: (ip::UDP, 4789), len: 1500, mtu: 1400 };
    // RFC 792 asks a router for the header and eight bytes, RFC 1812 for as much as 576 bytes hold.
    for quoted in [&ours(1500)[..28], &ours(1500)[..548]] {
        assert_eq!(read(&error(quoted, 1400)), Some(Some(vxlan)));
    }
    let gre = packet(sent().dont_fragment().proto(ip::GRE).payload(&[0x20, 0, 0x65, 0x58, 0, 0, 0, 9]));
    let gre = [&gre[..2], &1500u16.to_be_bytes(), &gre[4..]].concat();
    assert_eq!(read(&error(&gre, 1400)), Some(Some(TooBig { carrier: (ip::GRE, 0), ..vxlan })));
    let geneve = TooBig { source: US6.into(), remote: END6.into(), carrier: (ip::UDP, 6081), len: 1500, mtu: 1400 };
    assert_eq!(read(&error6(&ours6(1500)[..1000], 1400)), Some(Some(geneve)));
    // The upper half of the word is not the MTU's.
    assert_eq!(told(&error(&ours(1500), 0xabcd_0578)), 1400);
}

#[test]
fn rfc1191_s5_a_router_that_does_not_say_is_taken_for_the_next_kind_of_link() {
    for (len, mtu) in [(9000, 8166), (1500, 1492), (1492, 1006), (1006, 576), (600, 576)] {
        assert_eq!(told(&error(&ours(len), 0)), mtu);
    }
}

#[test]
fn no_way_is_believed_to_be_narrower_than_every_way_is() {
    assert_eq!(told(&error(&ours(1500), 68)), 576);
    assert_eq!(told(&error(&ours(1500), 576)), 576);
    // RFC 8201 §4: must be discarded.
    assert_eq!(told(&error6(&ours6(1500), 1279)), 0);
    assert_eq!(told(&error6(&ours6(1500), 0)), 0);
    assert_eq!(told(&error6(&ours6(1500), 1280)), 1280);
}

#[test]
fn what_cannot_be_about_a_packet_of_ours_is_not_believed() {
    let udp = |frame: Frame| packet(frame.udp(40_000, 4789).payload(&[0; 1472]));
    let mut long_header = ours(1500);
    long_header[0] = 0x46;
    for quoted in [
        // To be split, not to be told of.
        udp(sent()),
        // A later fragment.
        packet(sent().dont_fragment().proto(ip::UDP).fragment(100, false).payload(&[0; 1400])),
        // From somebody else than the one who is told.
        udp(Frame::new().eth([4; 6], [2; 6]).ipv4([192, 0, 2, 9], END).dont_fragment()),
        // From a port, and of a protocol, and of a kind of GRE that no tunnel of ours has.
        packet(sent().dont_fragment().udp(53, 4789).payload(&[0; 1472])),
        packet(sent().dont_fragment().tcp(40_000, 4789).payload(&[0; 1400])),
        packet(sent().dont_fragment().proto(ip::GRE).payload(&[0, 0, 8, 0, 0, 0, 0, 0])),
        // Cut off.
        ours(1500)[..27].to_vec(),
        ours(1500)[..10].to_vec(),
        Vec::new(),
        long_header,
        // Of the other IP version.
        ours6(1500),
        // No longer than what gets through.
        ours(1400),
    ] {
        assert_eq!(read(&error(&quoted, 1400)), Some(None), "{quoted:02x?}");
    }
    assert_eq!(read(&error6(&ours6(1400), 1400)), Some(None));
    assert_eq!(read(&error6(&ours(1500), 1400)), Some(None));
}

#[test]
fn other_messages_are_none_of_these() {
    let good = error(&ours(1500), 1400);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        read(&bytes)
    };
    // A bad checksum, another type, another code, another protocol, a fragment.
    for (at, value) in [(30, 7), (20, 11), (21, 3), (9, ip::UDP), (6, 0x20)] {
        assert_eq!(changed(at, value), None);
    }
    assert_eq!(read(&good[..good.len() - 1]), None);
    assert_eq!(read(&ours(100)), None);
    assert_eq!(read(&[]), None);
}

proptest! {
    /// What is read of arbitrary quotations is within bounds; a checksum that is right gets them past the first check.
    #[test]
    fn any_quotation_is_read_or_refused(
        v6: bool, mtu: u32, len in 0usize..100, changes in proptest::collection::vec((0usize..60, any::<u8>()), 0..4),
    ) {
        let mut quoted = if v6 { ours6(1500) } else { ours(1500) };
        for (at, value) in changes {
            quoted[at] = value;
        }
        quoted.truncate(len);
        let bytes = if v6 { error6(&quoted, mtu) } else { error(&quoted, mtu) };
        let told = read(&bytes);
        prop_assert!(told.is_some());
        if let Some(Some(told)) = told {
            let floor = if told.remote.is_ipv4() { 576 } else { 1280 };
            prop_assert!(told.mtu >= floor);
            prop_assert_eq!(told.source, if v6 { IpAddr::from(US6) } else { IpAddr::from(US) });
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        read(&bytes);
    }
}

#[test]
fn ways_are_forgotten_after_ten_minutes_and_are_no_more_than_there_may_be() {
    const SECOND: u64 = 1_000_000_000;
    let mut paths = Paths::default();
    let end = |n: u8| IpAddr::from([198, 51, 100, n]);
    let at = |seconds: u64| Nanos(seconds * SECOND);
    for n in 1..=3 {
        assert_eq!(paths.set(end(n), 1400, at(n.into()), 3), None);
    }
    // What is told again counts from then on.
    assert_eq!(paths.set(end(1), 1300, at(10), 3), None);
    assert_eq!(paths.set(end(4), 600, at(11), 3), Some(end(2)));
    assert_eq!([1, 2, 3, 4].map(|n| paths.mtu(end(n))), [1300, u32::MAX, 1400, 600]);
    assert_eq!((paths.expire(at(602)), paths.expire(at(603)), paths.expire(at(603))), (None, Some(end(3)), None));
    let left =
        [(1, 1300, 610), (4, 600, 611)].map(|(n, mtu, until)| PathInfo { remote: end(n), mtu, until: at(until) });
    assert_eq!(paths.list(), left);
    assert_eq!((paths.entries.len(), paths.due.len()), (2, 2));
}
