//! Packets that are too long: for the interface's link, and for what is behind it.

use super::*;
use crate::gateway::underlay::paths::PathInfo;
use crate::testing::packets::join;
use crate::wire::checksum;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xee, 0xfe];

/// Two sites that know host 1 and host 2 of VPC 5001.
fn known(version: u8) -> Network {
    let mut network = two_sites(Kind::Vxlan, version);
    greet(&mut network);
    network
}

fn greet(network: &mut Network) {
    network.send(0, 1, &udp(mac(1), BROADCAST, 10));
    network.send(1, 1, &udp(mac(2), BROADCAST, 10));
    network.crossed.clear();
}

/// An IPv4 packet of `len` bytes that may not be split, from host 1 to host 2.
fn whole(len: usize) -> Vec<u8> {
    let frame = Frame::new().eth(mac(2), mac(1)).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).dont_fragment().udp(1, 2);
    frame.payload(&vec![7; len - 28]).build()
}

fn whole6(len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len - 48).map(|i| i as u8).collect();
    Frame::new().eth(mac(2), mac(1)).ipv6([0xfd; 16], [0xfe; 16]).udp(1, 2).payload(&payload).build()
}

/// What host 1 is told gets through, if nothing else happens with its packet.
fn told(network: &mut Network, frame: &[u8]) -> u32 {
    network.crossed.clear();
    let got = network.send(0, 1, frame);
    let [(0, 1, error)] = &got[..] else { panic!("{got:02x?}") };
    assert_eq!(network.crossed, []);
    if error[12..14] == [8, 0] {
        assert_eq!(error[34..36], [3, 4]);
        u32::from_be_bytes(*error[38..].first_chunk().unwrap())
    } else {
        assert_eq!(error[54..56], [2, 0]);
        u32::from_be_bytes(*error[58..].first_chunk().unwrap())
    }
}

fn arrives(network: &mut Network, frame: &[u8]) -> bool {
    network.send(0, 1, frame) == [(1, 1, frame.to_vec())]
}

/// What a router tells site 0 about the outer packet of `frame`, which is sent.
fn router_says(network: &mut Network, version: u8, frame: &[u8], mtu: u32) -> Vec<u8> {
    network.crossed.clear();
    network.send(0, 1, frame);
    let [(0, outer)] = &network.crossed[..] else { panic!("{:02x?}", network.crossed) };
    about(version, &outer[14..], mtu)
}

fn about(version: u8, outer: &[u8], mtu: u32) -> Vec<u8> {
    let error = Frame::new().eth(wan_mac(1), ROUTER);
    let error = match address(version, 1) {
        IpAddr::V4(us) => error.ipv4([203, 0, 113, 9], us.octets()).icmp(3, 4, mtu).payload(&outer[..28]),
        IpAddr::V6(us) => error.ipv6([0x20; 16], us.octets()).icmpv6(2, 0, mtu).payload(&outer[..1000]),
    };
    error.build()
}

#[test]
fn a_router_that_cannot_carry_an_outer_packet_is_believed_for_ten_minutes() {
    for (version, overhead) in [(4, 20 + 8 + 8 + 14), (6, 40 + 8 + 8 + 14)] {
        let mut network = known(version);
        let longest = whole(1500 - overhead);
        assert!(arrives(&mut network, &longest));
        let error = router_says(&mut network, version, &longest, 1300);
        let policy = network.sites[0].dropped(DropReason::Policy);
        assert_eq!(network.send(0, WAN, &error), []);
        let path = PathInfo { remote: address(version, 2), mtu: 1300, until: network.now + 600 * 1_000_000_000 };
        assert_eq!(network.sites[0].underlay.paths(), [path]);
        // From now on the sender is told, and what it then sends gets through.
        assert_eq!(told(&mut network, &longest), 1300 - overhead as u32);
        assert_eq!(told(&mut network, &whole(1301 - overhead)), 1300 - overhead as u32);
        assert!(arrives(&mut network, &whole(1300 - overhead)));
        // The same again is no news. A still narrower one is.
        network.send(0, WAN, &error);
        let narrower = router_says(&mut network, version, &whole(1300 - overhead), 1290);
        network.send(0, WAN, &narrower);
        assert_eq!(told(&mut network, &longest), 1290 - overhead as u32);
        let stats = network.sites[0].underlay.stats();
        assert_eq!((stats.paths_narrowed, stats.path_errors_ignored, stats.echoes, stats.unsent), (2, 1, 0, 0));
        assert_eq!(network.sites[0].dropped(DropReason::Policy), policy + 1);
        // A tunnel of another VPC to the same end is as narrow, also if it is made later.
        let (listener, vni) = (network.sites[0].listener, Vni::new(6000).unwrap());
        let endpoint = Endpoint { ttl: 9, ..Endpoint::new(Kind::Vxlan, any()) };
        network.sites[0].vpc_of(VpcConfig::new(vni, listener, endpoint), &[(4, None)], &[address(version, 2)]);
        let got = network.send(0, 4, &longest);
        assert_eq!(got.iter().map(|(site, port, _)| (*site, *port)).collect::<Vec<_>>(), [(0, 4)]);
        network.pass(599);
        greet(&mut network);
        assert_eq!(told(&mut network, &longest), 1290 - overhead as u32);
        network.pass(1);
        assert!(arrives(&mut network, &longest));
        assert_eq!(network.sites[0].underlay.paths(), []);
        assert_eq!(network.sites[0].dropped(DropReason::TooBig), 0);
    }
}

#[test]
fn what_a_forger_says_of_ways_is_ignored_and_counted() {
    for version in [4, 6] {
        let mut network = known(version);
        let longest = whole(1420);
        network.send(0, 1, &longest);
        let outer = network.crossed.pop().unwrap().1[14..].to_vec();
        let at = if version == 4 { [16, 22] } else { [24, 42] };
        let changed = |place: usize, value: u8| {
            let mut outer = outer.clone();
            outer[place] ^= value;
            about(version, &outer, 1300)
        };
        let last = if version == 4 { 19 } else { 39 };
        // Longer than the link is.
        let mut too_long = outer.clone();
        too_long[if version == 4 { 2 } else { 4 }] = 0xff;
        let forged = [
            about(version, &too_long, 1300),
            // About a packet to nobody that we send to, to another port, from another address.
            changed(last, 0x40),
            changed(at[0], 0x11),
            changed(at[1], 1),
            changed(at[1] + 1, 1),
            changed(if version == 4 { 15 } else { 23 }, 4),
            // A way that would be wider than the link, or as wide as the packet was long.
            about(version, &outer, 1500),
            about(version, &outer, 9000),
            about(version, &outer, 1420 + if version == 4 { 50 } else { 70 }),
        ];
        let policy = network.sites[0].dropped(DropReason::Policy);
        for (n, frame) in (1..).zip(&forged) {
            assert_eq!(network.send(0, WAN, frame), []);
            assert_eq!(network.sites[0].underlay.stats().path_errors_ignored, n, "{frame:02x?}");
        }
        assert_eq!(network.sites[0].dropped(DropReason::Policy), policy + forged.len() as u64);
        // One whose checksum is wrong is no message at all.
        let mut broken = about(version, &outer, 1300);
        let last = broken.len() - 1;
        broken[last] ^= 1;
        network.send(0, WAN, &broken);
        let stats = network.sites[0].underlay.stats();
        assert_eq!((stats.paths_narrowed, stats.path_errors_ignored), (0, forged.len() as u64));
        assert_eq!(network.sites[0].underlay.paths(), []);
        assert!(arrives(&mut network, &longest));
    }
}

/// The outer packets that crossed, each no longer than `mtu`, put together: the frame that is in them.
fn carried(network: &mut Network, version: u8, frame: &[u8], mtu: usize) -> Vec<u8> {
    network.crossed.clear();
    assert_eq!(network.send(0, 1, frame), []);
    let parts: Vec<Vec<u8>> = network.crossed.iter().map(|(_, frame)| frame.clone()).collect();
    assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 14 + mtu), "{parts:02x?}");
    if version == 4 {
        // Not to be told of: nobody could make it shorter.
        assert!(parts.iter().all(|part| part[20] & 0x40 == 0 && checksum::of(&part[14..34]) == 0));
    }
    let outer = join(&parts, 14);
    assert!(crate::testing::checksums::verify(&outer).is_ok());
    outer[14 + if version == 4 { 36 } else { 56 }..].to_vec()
}

#[test]
fn rfc2473_s7_1_ipv6_of_1280_bytes_gets_through_any_tunnel_and_less_is_told_to_nobody() {
    for version in [4, 6] {
        let mut network = known(version);
        let mut interface = network.sites[0].underlay.interfaces().remove(0);
        interface.mtu = 1280;
        network.sites[0].underlay.interface_set(interface, network.now).unwrap();
        network.pass(3);
        for len in [1280, 1279, 1231] {
            assert_eq!(carried(&mut network, version, &whole6(len), 1280), whole6(len), "{version} {len}");
        }
        // A flow carries what fits.
        let fits = whole6(if version == 4 { 1230 } else { 1210 });
        assert!(arrives(&mut network, &fits));
        for len in [1281, 1400] {
            assert_eq!(told(&mut network, &whole6(len)), 1280);
        }
        // IPv4 has no such bound.
        assert_eq!(told(&mut network, &whole(1280)), if version == 4 { 1230 } else { 1210 });
        let (bridge, underlay) = (network.sites[0].bridge.stats(), network.sites[0].underlay.stats());
        assert_eq!((bridge.told_too_big, underlay.fragmented, underlay.unsent), (3, 3, 0));
        assert_eq!(network.sites[0].dropped(DropReason::TooBig), 0);
    }
}

#[test]
fn ipv6_of_1280_bytes_gets_through_a_way_that_a_router_told_is_narrow() {
    for (version, mtu) in [(4, 576), (6, 1280)] {
        let mut network = known(version);
        let error = router_says(&mut network, version, &whole(1420), mtu as u32);
        network.send(0, WAN, &error);
        assert_eq!(network.sites[0].underlay.paths()[0].mtu, mtu as u32);
        assert_eq!(carried(&mut network, version, &whole6(1280), mtu), whole6(1280));
        assert_eq!(told(&mut network, &whole6(1281)), 1280);
    }
}

#[test]
fn ipv4_of_68_bytes_gets_through_any_tunnel_and_less_is_told_to_nobody() {
    let mut network = known(4);
    let mut interface = network.sites[0].underlay.interfaces().remove(0);
    interface.mtu = 100;
    network.sites[0].underlay.interface_set(interface, network.now).unwrap();
    network.pass(3);
    assert_eq!(carried(&mut network, 4, &whole(68), 100), whole(68));
    assert_eq!(told(&mut network, &whole(69)), 68);
    // What may be split is, and those of its pieces that do not fit are carried in pieces; only the last one fits.
    network.crossed.clear();
    let got = network.send(0, 1, &udp(mac(1), mac(2), 100));
    assert_eq!(
        got.iter().map(|(site, port, frame)| (*site, *port, frame.len())).collect::<Vec<_>>(),
        [(1, 1, 14 + 32)]
    );
    assert_eq!(network.crossed.len(), 2 * 2 + 1);
    assert!(network.crossed.iter().all(|(_, frame)| frame.len() <= 114));
    let stats = network.sites[0].underlay.stats();
    assert_eq!((stats.fragmented, network.sites[0].dropped(DropReason::TooBig)), (1 + 3, 0));
}

#[test]
fn where_outer_packets_are_split_they_are_as_short_as_the_way_is_narrow() {
    let sites = sites(Kind::Vxlan, 6, 2);
    let endpoint = Endpoint { fragment: true, ..Endpoint::new(Kind::Vxlan, any()) };
    let config = VpcConfig::new(Vni::new(5).unwrap(), sites[0].listener, endpoint);
    sites[0].vpc_of(config, &[(1, None)], &[address(6, 2)]);
    let mut network = Network::new(sites);
    network.send(0, 1, &udp(mac(1), BROADCAST, 10));
    network.crossed.clear();
    network.send(0, 1, &whole(1500));
    let first = network.crossed[0].1.clone();
    assert_eq!((network.crossed.len(), first.len()), (2, 14 + 1496));
    // The router quotes a fragment, whose header is between.
    network.send(0, WAN, &about(6, &first[14..], 1300));
    assert_eq!(network.sites[0].underlay.stats().paths_narrowed, 1);
    assert_eq!(carried(&mut network, 6, &whole(1500), 1300), whole(1500));
}
