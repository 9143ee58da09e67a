use proptest::prelude::*;

use super::*;
use crate::gateway::sites::{Network, Site, WAN, any};
use crate::testing::Frame;
use crate::tunnel::Kind;

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn wan_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xee, n]
}

fn address(version: u8, n: u8) -> IpAddr {
    let text = if version == 4 { format!("192.0.2.{n}") } else { format!("2001:db8::{n}") };
    text.parse().unwrap()
}

/// `n` sites on one link, which know one another.
fn sites(kind: Kind, version: u8, n: u8) -> Vec<Site> {
    let len = if version == 4 { 24 } else { 64 };
    (1..=n).map(|at| Site::new(kind, &[&format!("{}/{len}", address(version, at))], wan_mac(at))).collect()
}

fn others(version: u8, n: u8, own: usize) -> Vec<IpAddr> {
    (1..=n).filter(|at| usize::from(*at) != own + 1).map(|at| address(version, at)).collect()
}

fn udp(from: [u8; 6], to: [u8; 6], len: usize) -> Vec<u8> {
    Frame::new().eth(to, from).ipv4([10, 0, 0, from[5]], [10, 0, 0, to[5]]).udp(1, 2).payload(&vec![7; len]).build()
}

fn two_sites(kind: Kind, version: u8) -> Network {
    let sites = sites(kind, version, 2);
    for (at, site) in sites.iter().enumerate() {
        site.vpc(5001, &[(1, None), (2, Some(100))], &others(version, 2, at));
        site.vpc(5002, &[(3, None), (2, Some(200))], &others(version, 2, at));
    }
    Network::new(sites)
}

/// A frame with an 802.1Q tag put in.
fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

#[test]
fn hosts_of_one_vpc_on_two_sites_are_on_one_link() {
    for (kind, version) in [(Kind::Vxlan, 4), (Kind::Vxlan, 6), (Kind::Geneve, 4), (Kind::Geneve, 6), (Kind::Gre, 4)] {
        let mut network = two_sites(kind, version);
        // Flooded: to the VPC's other port with its tag, and through the tunnel, to the port that has one and to the one that has not.
        let hello = udp(mac(1), BROADCAST, 20);
        let mut got = network.send(0, 1, &hello);
        got.sort_unstable();
        let expected = [(0, 2, tagged(&hello, 100)), (1, 1, hello.clone()), (1, 2, tagged(&hello, 100))];
        assert_eq!(got, expected, "{kind:?} over {version}");
        // The answer goes to where the question came from only.
        let answer = udp(mac(2), mac(1), 30);
        assert_eq!(network.send(1, 2, &tagged(&answer, 100)), [(0, 1, answer)]);
        // From then on flows carry both ways.
        let there = udp(mac(1), mac(2), 50);
        assert_eq!(network.send(0, 1, &there), [(1, 2, tagged(&there, 100))]);
        let misses: Vec<u64> = network.sites.iter().map(|site| site.datapath.stats().misses).collect();
        for _ in 0..3 {
            assert_eq!(network.send(0, 1, &there), [(1, 2, tagged(&there, 100))]);
        }
        assert_eq!(network.sites.iter().map(|site| site.datapath.stats().misses).collect::<Vec<_>>(), misses);
        let stats = network.sites[0].underlay.stats();
        assert_eq!((stats.released, stats.lost, stats.unsent), (0, 0, 0));
    }
}

#[test]
fn gre_without_a_key_is_of_no_vpc() {
    let mut site = sites(Kind::Gre, 4, 1).remove(0);
    site.vpc(0, &[(1, None)], &[address(4, 2)]);
    site.flush(Nanos(1));
    let hello = udp(mac(2), BROADCAST, 20);
    let from_other = |gre: &[u8]| {
        let outer = Frame::new().eth(wan_mac(1), wan_mac(2)).ipv4([192, 0, 2, 2], [192, 0, 2, 1]).proto(47);
        outer.payload(&[gre, &hello].concat()).build()
    };
    let [keyed, keyless] = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 0][..], &[0, 0, 0x65, 0x58]].map(from_other);
    // Before and after there is a flow for those with the key.
    for round in 1..3 {
        assert_eq!(site.send(WAN, &keyless, Nanos(2)), []);
        assert_eq!(site.dropped(DropReason::UnknownVni), round);
        assert_eq!(site.send(WAN, &keyed, Nanos(2)), [(1, hello.clone())]);
    }
}

#[test]
fn a_frame_waits_until_the_other_end_has_said_where_it_is() {
    for version in [4, 6] {
        let mut network = two_sites(Kind::Vxlan, version);
        let now = network.now;
        network.sites[0].underlay.neighbour_del((WAN, address(version, 2)), now).unwrap();
        network.crossed.clear();
        let hello = udp(mac(1), BROADCAST, 20);
        assert_eq!(network.send(0, 1, &hello).len(), 3);
        assert_eq!(
            network.crossed.iter().map(|(site, _)| *site).collect::<Vec<_>>(),
            [0, 1, 0],
            "question, answer, frame"
        );
        let stats = network.sites[0].underlay.stats();
        assert_eq!((stats.released, stats.lost, stats.unsent), (1, 0, 0));
    }
}

#[test]
fn a_frame_waits_for_the_other_end_and_a_silent_one_costs_only_itself() {
    let sites = sites(Kind::Vxlan, 4, 1);
    sites[0].vpc(7, &[(1, None), (2, None)], &[address(4, 9)]);
    let mut network = Network::new(sites);
    let hello = udp(mac(1), BROADCAST, 20);
    assert_eq!(network.send(0, 1, &hello), [(0, 2, hello.clone())]);
    assert_eq!(network.sites[0].underlay.neighbours()[0].waiting, 1);
    network.pass(4);
    let stats = network.sites[0].underlay.stats();
    assert_eq!((stats.neighbours.solicited, stats.neighbours.lost, stats.lost), (3, 1, 1));
    assert_eq!(network.send(0, 1, &hello), [(0, 2, hello)]);
    // The first question went out when the end was made; our own address was announced once more.
    assert_eq!(network.crossed.len(), 3, "questions, and no frame");
    assert!(network.crossed.iter().all(|(_, frame)| frame[12..14] == [8, 6]));
}

#[test]
fn questions_are_answered_for_known_stations_and_by_proxy() {
    let mut network = two_sites(Kind::Vxlan, 4);
    let vni = Vni::new(5001).unwrap();
    let ask = |from: u8, target: u8| {
        Frame::new().eth(BROADCAST, mac(from)).arp(1, mac(from), [10, 0, 0, from], [0; 6], [10, 0, 0, target]).build()
    };
    // The first question is flooded; by it all learn who asked.
    assert_eq!(network.send(0, 1, &ask(1, 2)).len(), 3);
    // Now site 1 answers for it, though it is at site 0. The tunnel carries nothing.
    network.crossed.clear();
    let got = network.send(1, 1, &ask(2, 1));
    let answer = messages::arp_reply(
        Link { src: mac(1), vlan: None },
        (mac(1), [10, 0, 0, 1].into()),
        (mac(2), [10, 0, 0, 2].into()),
    );
    assert_eq!(got, [(1, 1, answer)]);
    assert!(network.crossed.is_empty());
    // A gratuitous question is for all.
    assert_eq!(network.send(1, 1, &ask(2, 2)).len(), 3);
    // What nobody has, by proxy, with the tag of who asks.
    network.sites[1].bridge.vpc_proxy_set(vni, [10, 0, 0, 254].into(), Some(mac(0xfe))).unwrap();
    let got = network.send(1, 2, &tagged(&ask(3, 254), 100));
    let answer = messages::arp_reply(
        Link { src: mac(0xfe), vlan: Some(100) },
        (mac(0xfe), [10, 0, 0, 254].into()),
        (mac(3), [10, 0, 0, 3].into()),
    );
    assert_eq!(got, [(1, 2, answer)]);
    assert_eq!(network.sites[1].bridge.stats().answered_for, 2);
    // In another VPC nothing of this is known.
    assert_eq!(network.send(1, 3, &ask(3, 254)).len(), 3);
}

#[test]
fn a_question_out_of_a_tunnel_is_answered_for_stations_of_our_own_ports_only() {
    let sites = sites(Kind::Vxlan, 4, 3);
    for (at, site) in sites.iter().enumerate() {
        site.vpc(9, &[(1, None)], &others(4, 3, at));
    }
    let mut network = Network::new(sites);
    let ask = |from: u8, target: u8| {
        Frame::new().eth(BROADCAST, mac(from)).arp(1, mac(from), [10, 0, 0, from], [0; 6], [10, 0, 0, target]).build()
    };
    // All know the station at site 2.
    network.send(2, 1, &ask(3, 99));
    // Site 1 has forgotten it. Who has it behind its own port answers, and nobody else: that answer would say where it is not.
    network.sites[1].bridge.forget(None);
    let stations = network.sites[1].bridge.stations().len();
    network.send(1, 1, &ask(2, 3));
    let answered: Vec<u64> = network.sites.iter().map(|site| site.bridge.stats().answered_for).collect();
    assert_eq!((stations, answered), (0, vec![0, 0, 1]));
    let there = udp(mac(2), mac(3), 5);
    assert_eq!(network.send(1, 1, &there), [(2, 1, there)]);
}

#[test]
fn a_router_is_spoken_for_as_a_router_or_not_at_all() {
    use std::net::Ipv6Addr;
    let mut network = two_sites(Kind::Vxlan, 4);
    let ip = |n: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
    let link = |n| Link { src: mac(n), vlan: None };
    let question = |from: u8, to: u16| messages::nd_solicitation(link(from), ip(from.into()), ip(to), None);
    // By its question alone it is not known whether it is a router.
    network.send(0, 1, &question(1, 99));
    assert_eq!(network.send(1, 1, &question(2, 1)).len(), 3, "flooded");
    // Its answer says so.
    let of_router = messages::nd_advertisement_for(link(1), (mac(1), ip(1)), (mac(2), ip(2)), true);
    network.send(0, 1, &of_router);
    let answer = messages::nd_advertisement_for(link(1), (mac(1), ip(1)), (mac(2), ip(2)), true);
    assert_eq!(network.send(1, 1, &question(2, 1)), [(1, 1, answer)]);
    // Another question does not take that back, and a probe of the one host is for that host.
    network.send(0, 1, &question(1, 98));
    assert_eq!(network.send(1, 1, &question(2, 1)).len(), 1);
    let probe = messages::nd_solicitation(link(2), ip(2), ip(1), Some(mac(1)));
    assert_eq!(network.send(1, 1, &probe), [(0, 1, probe)]);
}

#[test]
fn a_second_tag_leads_nowhere() {
    let mut network = two_sites(Kind::Vxlan, 4);
    // To port 2, whose frames with tag 200 are of another VPC. A flow for the clean frame is there first.
    network.send(0, 2, &tagged(&udp(mac(2), BROADCAST, 5), 100));
    network.send(0, 1, &udp(mac(1), mac(2), 5));
    let policy = network.sites[0].dropped(DropReason::Policy);
    for (n, outer) in (1..).zip([0, 100]) {
        let port = if outer == 0 { 1 } else { 2 };
        for dst in [mac(1), mac(2), BROADCAST] {
            let frame = tagged(&tagged(&udp(mac(if port == 1 { 1 } else { 2 }), dst, 5), 200), outer);
            assert_eq!(network.send(0, port, &frame), []);
        }
        assert_eq!(network.sites[0].dropped(DropReason::Policy), policy + 3 * n);
    }
}

#[test]
fn a_sender_is_told_what_is_too_long_for_the_tunnel() {
    let mut network = two_sites(Kind::Vxlan, 4);
    network.send(1, 1, &udp(mac(2), BROADCAST, 10));
    network.send(0, 1, &udp(mac(1), mac(2), 10));
    // 1500 less IPv4, UDP, VXLAN and the inner Ethernet header.
    let fits = udp(mac(1), mac(2), 1450 - 28);
    assert_eq!(network.send(0, 1, &fits), [(1, 1, fits)]);
    // Without DF the packet comes in pieces.
    let long = udp(mac(1), mac(2), 1500 - 28);
    let got = network.send(0, 1, &long);
    assert_eq!(got.iter().map(|(site, port, _)| (*site, *port)).collect::<Vec<_>>(), [(1, 1), (1, 1)]);
    assert!(got.iter().all(|(.., frame)| frame.len() <= 1464));
    let total: usize = got.iter().map(|(.., frame)| frame.len() - 34).sum();
    assert_eq!(total, 1500 - 20);
    // With DF its sender is told.
    let mut df = Frame::new().eth(mac(2), mac(1)).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).dont_fragment().udp(1, 2);
    df = df.payload(&[7; 1472]);
    let got = network.send(0, 1, &df.build());
    let [(0, 1, error)] = &got[..] else { panic!("{got:?}") };
    assert_eq!(error[..14], [&mac(1)[..], &mac(2), &[8, 0]].concat());
    assert_eq!(error[26..34], [10, 0, 0, 2, 10, 0, 0, 1]);
    assert_eq!((error[34], error[35], u16::from_be_bytes([error[40], error[41]])), (3, 4, 1450));
    assert_eq!(network.sites[0].bridge.stats().told_too_big, 1);
    // So is one of IPv6, with a tag where there was one.
    let v6 = Frame::new().eth(mac(2), mac(3)).ipv6([0xfd; 16], [0xfe; 16]).udp(1, 2).payload(&[7; 1452]);
    network.send(0, 2, &tagged(&udp(mac(3), mac(2), 5), 100));
    let got = network.send(0, 2, &tagged(&v6.build(), 100));
    let [(0, 2, error)] = &got[..] else { panic!("{got:?}") };
    assert_eq!(error[12..18], [0x81, 0, 0, 100, 0x86, 0xdd]);
    assert_eq!((error[58], u32::from_be_bytes(*error[62..].first_chunk().unwrap())), (2, 1450));
    assert_eq!(network.sites[0].dropped(DropReason::TooBig), 0);
}

#[test]
fn outer_packets_are_split_where_that_is_wanted() {
    for version in [4, 6] {
        let sites = sites(Kind::Vxlan, version, 2);
        let config = VpcConfig::new(
            Vni::new(5).unwrap(),
            sites[0].listener,
            Endpoint { fragment: true, ..Endpoint::new(Kind::Vxlan, any()) },
        );
        sites[0].vpc_of(config, &[(1, None)], &[address(version, 2)]);
        let mut network = Network::new(sites);
        network.send(0, 1, &udp(mac(1), BROADCAST, 10));
        network.crossed.clear();
        assert_eq!(network.send(0, 1, &udp(mac(1), BROADCAST, 1600)), []);
        assert_eq!(network.crossed.len(), 2, "{version}");
        assert!(network.crossed.iter().all(|(_, frame)| frame.len() <= 1514));
        // Nobody puts them together here, and says so.
        assert_eq!(network.sites[1].dropped(DropReason::TunnelFragment), 2);
    }
}

#[test]
fn other_ends_are_learned_where_that_is_wanted_and_go_with_their_stations() {
    let sites = sites(Kind::Vxlan, 4, 3);
    let vni = Vni::new(9).unwrap();
    let config = |site: &Site| VpcConfig {
        learn: true,
        ..VpcConfig::new(vni, site.listener, Endpoint::new(Kind::Vxlan, any()))
    };
    // Site 0 is known to the others, and learns who they are.
    sites[0].vpc_of(config(&sites[0]), &[(1, None)], &[]);
    sites[1].vpc(9, &[(1, None)], &[address(4, 1)]);
    sites[2].vpc(9, &[(1, None)], &[address(4, 1)]);
    let mut network = Network::new(sites);
    assert_eq!(network.send(0, 1, &udp(mac(1), BROADCAST, 10)), []);
    assert_eq!(network.send(1, 1, &udp(mac(2), BROADCAST, 10)).len(), 1);
    assert_eq!(network.send(2, 1, &udp(mac(3), BROADCAST, 10)).len(), 1);
    // Now floods reach both. From one tunnel nothing goes into another.
    assert_eq!(network.send(0, 1, &udp(mac(1), BROADCAST, 10)).len(), 2);
    let remotes = |network: &Network| network.sites[0].bridge.vpcs()[0].remotes.clone();
    assert_eq!(
        remotes(&network).iter().map(|r| (r.0, r.2, r.3)).collect::<Vec<_>>(),
        [(address(4, 2), false, 1), (address(4, 3), false, 1)]
    );
    // A site that knows only one other does not take frames from a third.
    let policy = network.sites[1].dropped(DropReason::Policy);
    let frame = network.crossed.iter().rfind(|(site, f)| *site == 2 && f.len() > 60).unwrap().1.clone();
    let mut stray = frame;
    stray[..6].copy_from_slice(&wan_mac(2));
    stray[33] = 2;
    stray[24..26].fill(0);
    let sum = crate::wire::checksum::of(&stray[14..34]);
    stray[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(network.send(1, WAN, &stray), []);
    assert_eq!(network.sites[1].dropped(DropReason::Policy), policy + 1);
    network.pass(302);
    assert_eq!(remotes(&network), []);
    assert_eq!(network.sites[0].underlay.endpoints(), []);
    assert_eq!(network.sites[0].bridge.stats().remotes_learned, 2);
}

#[test]
fn unknown_networks_and_inner_tags_are_refused() {
    let mut network = two_sites(Kind::Vxlan, 4);
    network.send(0, 1, &udp(mac(1), BROADCAST, 20));
    let (_, good) = network.crossed.iter().rfind(|(site, f)| *site == 0 && f.len() > 70).unwrap().clone();
    let mut other = good.clone();
    other[46..49].copy_from_slice(&[0, 0, 1]);
    assert_eq!(network.send(1, WAN, &other), []);
    assert_eq!(network.sites[1].dropped(DropReason::UnknownVni), 1);
    let policy = network.sites[1].dropped(DropReason::Policy);
    let mut inner = good;
    inner[62..64].copy_from_slice(&[0x81, 0]);
    inner[64..66].copy_from_slice(&[0, 5]);
    assert_eq!(network.send(1, WAN, &inner), []);
    assert_eq!(network.sites[1].dropped(DropReason::Policy), policy + 1);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let sites = sites(Kind::Vxlan, 4, 1);
    let site = &sites[0];
    let vlan = |n| VlanId::new(n);
    let vni = site.vpc(1, &[(1, None)], &[address(4, 7)]);
    let two = site.vpc(2, &[], &[]);
    let bridge = &site.bridge;
    let again = bridge.vpcs()[0].config.clone();
    assert_eq!(bridge.vpc_add(again), Err(VpcError::Exists("vni")));
    assert_eq!(bridge.vpc_port_add(two, 1, None), Err(VpcError::Exists("port")));
    assert_eq!(bridge.vpc_port_add(vni, 1, vlan(5)), Err(VpcError::Exists("port")));
    assert_eq!(bridge.vpc_port_add(two, WAN, None), Err(VpcError::Port(WAN)));
    assert_eq!(bridge.vpc_port_add(two, 70_000, None), Err(VpcError::Port(70_000)));
    assert_eq!(bridge.vpc_remote_add(vni, address(4, 7), Nanos(1)), Err(VpcError::Exists("remote")));
    let group = bridge.vpc_remote_add(vni, [224, 0, 0, 1].into(), Nanos(1));
    assert_eq!(group, Err(VpcError::Underlay(UnderlayError::End("remote"))));
    assert_eq!(bridge.vpc_remote_del(vni, address(4, 8)), Err(VpcError::NotFound("remote")));
    assert_eq!(bridge.vpc_proxy_set(vni, [10, 0, 0, 1].into(), Some(BROADCAST)), Err(VpcError::Address("mac")));
    // A frame belongs to a VLAN or to a VPC.
    assert_eq!(bridge.set_port(1, PortVlans::default()), Err(BridgeError::Vpc(1)));
    bridge.set_port(2, PortVlans::default()).unwrap();
    assert_eq!(bridge.vpc_port_add(two, 2, None), Err(VpcError::Vlan(2)));
    bridge.vpc_port_add(two, 2, vlan(5)).unwrap();
    assert_eq!(bridge.set_port(WAN, PortVlans::default()), Err(BridgeError::Interface(WAN)));
    bridge.vpc_del(vni).unwrap();
    bridge.vpc_del(two).unwrap();
    assert_eq!((bridge.vpcs(), site.underlay.endpoints()), (vec![], vec![]));
    assert_eq!(bridge.vpc_del(vni), Err(VpcError::NotFound("vni")));
}

/// A step of the isolation property.
#[derive(Clone, Debug)]
enum Step {
    Send { site: usize, port: u32, vlan: Option<u16>, src: u8, dst: u8 },
    Ask { site: usize, port: u32, vlan: Option<u16>, src: u8, dst: u8 },
    Pass(u64),
    Leave { site: usize, port: u32 },
    Join { site: usize, vpc: u8, port: u32, vlan: Option<u16> },
}

fn step() -> impl Strategy<Value = Step> {
    let vlan = || proptest::option::of(prop_oneof![Just(100u16), Just(200)]);
    let station = || prop_oneof![0u8..6, Just(0xff)];
    prop_oneof![
        8 => (0usize..3, 1u32..5, vlan(), 0u8..6, station()).prop_map(|(site, port, vlan, src, dst)| Step::Send { site, port, vlan, src, dst }),
        3 => (0usize..3, 1u32..5, vlan(), 0u8..6, 0u8..6).prop_map(|(site, port, vlan, src, dst)| Step::Ask { site, port, vlan, src, dst }),
        1 => (1u64..400).prop_map(Step::Pass),
        1 => (0usize..3, 1u32..5).prop_map(|(site, port)| Step::Leave { site, port }),
        2 => (0usize..3, 0u8..3, 1u32..5, vlan()).prop_map(|(site, vpc, port, vlan)| Step::Join { site, vpc, port, vlan }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// Stations of all VPCs have the same few addresses, so that nothing but the VPC tells them apart.
    #[test]
    fn no_frame_of_a_vpc_reaches_another(steps in proptest::collection::vec(step(), 1..60), learn: bool) {
        let sites = sites(Kind::Vxlan, 4, 3);
        let vnis = [Vni::new(0).unwrap(), Vni::new(77).unwrap(), Vni::new(0xff_ffff).unwrap()];
        // Which VPC the frames of a port belong to.
        let mut members: BTreeMap<(usize, u32, u16), Vni> = BTreeMap::new();
        for (at, site) in sites.iter().enumerate() {
            for vni in vnis {
                let config = VpcConfig { learn, ..VpcConfig::new(vni, site.listener, Endpoint::new(Kind::Vxlan, any())) };
                let remotes = if learn && at > 0 { vec![address(4, 1)] } else { others(4, 3, at) };
                site.vpc_of(config, &[], &remotes);
            }
        }
        let mut network = Network::new(sites);
        for step in steps {
            let (site, port, vlan, frame) = match step {
                Step::Send { site, port, vlan, src, dst } => {
                    let dst = if dst == 0xff { BROADCAST } else { mac(dst) };
                    (site, port, vlan, udp(mac(src), dst, 20))
                }
                Step::Ask { site, port, vlan, src, dst } => {
                    let ask = Frame::new().eth(BROADCAST, mac(src));
                    (site, port, vlan, ask.arp(1, mac(src), [10, 0, 0, src], [0; 6], [10, 0, 0, dst]).build())
                }
                Step::Pass(seconds) => {
                    prop_assert_eq!(network.pass(seconds), []);
                    continue;
                }
                Step::Leave { site, port } => {
                    let of: Vec<_> = members.iter().filter(|(key, _)| key.0 == site && key.1 == port).map(|(k, v)| (*k, *v)).collect();
                    for (key, vni) in of {
                        network.sites[site].bridge.vpc_port_del(vni, port).unwrap();
                        members.remove(&key);
                    }
                    continue;
                }
                Step::Join { site, vpc, port, vlan } => {
                    let vni = vnis[usize::from(vpc)];
                    if network.sites[site].bridge.vpc_port_add(vni, port, vlan.and_then(VlanId::new)).is_ok() {
                        prop_assert_eq!(members.insert((site, port, vlan.unwrap_or(0)), vni), None);
                    }
                    continue;
                }
            };
            network.crossed.clear();
            let sent = vlan.map_or_else(|| frame.clone(), |vlan| tagged(&frame, vlan));
            let got = network.send(site, port, &sent);
            let own = members.get(&(site, port, vlan.unwrap_or(0))).copied();
            for (at, port, frame) in got {
                let vlan = if frame[12..14] == [0x81, 0] { u16::from_be_bytes([frame[14], frame[15]]) } else { 0 };
                prop_assert_eq!(members.get(&(at, port, vlan)).copied(), own);
                prop_assert!(own.is_some());
            }
            // On the wire too every tunnel packet has the sender's network, and no other.
            for (_, frame) in &network.crossed {
                let is_tunnel = frame[12..14] == [8, 0] && frame[23] == 17;
                if is_tunnel {
                    let vni = u32::from_be_bytes([0, frame[46], frame[47], frame[48]]);
                    prop_assert_eq!(Some(vni), own.map(Vni::number));
                }
            }
        }
        for site in &mut network.sites {
            prop_assert_eq!(site.datapath.stats().fates(), site.datapath.stats().packets_in);
        }
    }
}

mod limits;
mod mtu;

#[test]
fn a_bridge_owns_what_it_was_given() {
    let network = two_sites(Kind::Vxlan, 4);
    let bridge = &network.sites[0].bridge;
    let owned = |bridge: &Bridge| {
        let numbers = (0..=WAN).chain([PORT_NUMBER_END, PORT_NUMBER_END + 1, u32::MAX]);
        numbers.filter(|port| bridge.owns(*port)).collect::<Vec<u32>>()
    };
    assert_eq!(owned(bridge), [1, 2, 3, WAN, PORT_NUMBER_END]);
    bridge.set_port(4, PortVlans::default()).unwrap();
    bridge.vpc_port_del(Vni::new(5001).unwrap(), 2).unwrap();
    assert_eq!(owned(bridge), [1, 2, 3, 4, WAN, PORT_NUMBER_END], "port 2 is a member of another VPC still");
    bridge.vpc_del(Vni::new(5002).unwrap()).unwrap();
    assert_eq!(owned(bridge), [1, 4, WAN, PORT_NUMBER_END]);
    bridge.withdraw();
    assert_eq!(owned(bridge), []);
}

#[test]
fn a_bridge_that_withdraws_leaves_no_flow_and_no_tunnel() {
    let mut network = two_sites(Kind::Vxlan, 4);
    for (site, from, to) in [(0, 1, 4), (1, 4, 1), (0, 1, 4)] {
        network.send(site, 1, &udp(mac(from), mac(to), 20));
    }
    let site = &network.sites[0];
    assert!(site.datapath.flow_count() >= 3);
    site.bridge.withdraw();
    assert_eq!((site.datapath.flow_count(), site.underlay.endpoints().len(), site.bridge.vpcs().len()), (0, 0, 0));
    assert!((PORT_NUMBER_END..1 << 18).all(|number| !site.datapath.tunnel_del(number)));
}

#[test]
fn tunnels_end_at_an_address_for_as_long_as_it_is_ours() {
    let mut network = two_sites(Kind::Vxlan, 4);
    let hello = udp(mac(1), BROADCAST, 20);
    let arrives = |network: &mut Network| network.send(0, 1, &hello).iter().any(|(site, ..)| *site == 1);
    assert!(arrives(&mut network));
    let mut interface = network.sites[1].underlay.interfaces().remove(0);
    let before = interface.addresses.clone();
    interface.addresses = vec!["192.0.2.77/24".parse().unwrap()];
    network.sites[1].underlay.interface_set(interface.clone(), network.now).unwrap();
    assert!(!arrives(&mut network), "by the flow of the address before");
    assert_eq!(network.sites[1].dropped(DropReason::Policy), 1);
    interface.addresses = before;
    network.sites[1].underlay.interface_set(interface, network.now).unwrap();
    assert!(arrives(&mut network));
    network.sites[1].underlay.interface_del(WAN, network.now).unwrap();
    assert!(!arrives(&mut network));
}
