use super::*;
use crate::gateway::sites::{Network, Site, WAN};
use crate::testing::Frame;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const OURS: [u8; 6] = [2, 0, 0, 0, 0xee, 1];

fn site() -> Network {
    Network::new(vec![Site::new(Kind::Vxlan, &["192.0.2.1/24", "2001:db8::1/64"], OURS)])
}

/// What the site sends in answer to a frame from its link.
fn answers(network: &mut Network, frame: &[u8]) -> Vec<Vec<u8>> {
    let now = network.now;
    network.sites[0]
        .send(WAN, frame, now)
        .into_iter()
        .map(|(port, frame)| {
            assert_eq!(port, WAN);
            frame
        })
        .collect()
}

#[test]
fn questions_for_our_addresses_are_answered_and_others_are_not() {
    let mut network = site();
    let ask = |target: [u8; 4]| {
        Frame::new().eth([0xff; 6], HOST).arp(1, HOST, [192, 0, 2, 9], [0; 6], target).pad_to(60).build()
    };
    let reply = Frame::new().eth(HOST, OURS).arp(2, OURS, [192, 0, 2, 1], HOST, [192, 0, 2, 9]).pad_to(60).build();
    assert_eq!(answers(&mut network, &ask([192, 0, 2, 1])), [reply]);
    assert_eq!(answers(&mut network, &ask([192, 0, 2, 3])), Vec::<Vec<u8>>::new());
    let link = Link { src: HOST, vlan: None };
    let (us, them) = ("2001:db8::1".parse().unwrap(), "2001:db8::9".parse().unwrap());
    let asked = answers(&mut network, &messages::nd_solicitation(link, them, us, None));
    assert_eq!(asked, [messages::nd_advertisement(Link { src: OURS, vlan: None }, (OURS, us), Some((HOST, them)))]);
    // Whoever asks us is remembered only if we send to it.
    assert_eq!(network.sites[0].underlay.neighbours(), []);
    let (now, end) = (network.now, Endpoint::new(Kind::Vxlan, them.into()));
    network.sites[0].underlay.endpoint_add(end, now).unwrap();
    answers(&mut network, &messages::nd_solicitation(link, them, us, None));
    let known: Vec<_> = network.sites[0].underlay.neighbours().iter().map(|n| (n.key.1, n.mac)).collect();
    assert_eq!(known, [(them.into(), Some(HOST))]);
    assert_eq!(network.sites[0].underlay.stats().answered, 3);
    // One that claims our address is counted, and not believed.
    let claim = Frame::new().eth([0xff; 6], HOST).arp(1, HOST, [192, 0, 2, 1], [0; 6], [192, 0, 2, 1]).build();
    assert_eq!(answers(&mut network, &claim), Vec::<Vec<u8>>::new());
    assert_eq!(network.sites[0].underlay.stats().conflicts, 1);
}

#[test]
fn what_is_not_for_us_is_dropped_with_a_reason() {
    let mut network = site();
    let policy = |network: &Network| network.sites[0].dropped(DropReason::Policy);
    let to = |mac: [u8; 6], dst: [u8; 4]| Frame::new().eth(mac, HOST).ipv4([192, 0, 2, 9], dst);
    for (n, frame) in (1..).zip([
        to(OURS, [192, 0, 2, 1]).udp(1, 53).build(),
        to(OURS, [192, 0, 2, 7]).icmp(8, 0, 1).build(),
        to([1, 0, 0x5e, 1, 2, 3], [192, 0, 2, 1]).icmp(8, 0, 1).build(),
        to([1, 0, 0x5e, 1, 2, 3], [192, 0, 2, 1]).udp(1, 4789).payload(&[8, 0, 0, 0, 0, 0, 1, 0]).build(),
        to([2, 0, 0, 0, 0, 9], [192, 0, 2, 1]).icmp(8, 0, 1).build(),
        to(OURS, [192, 0, 2, 1]).tcp(1, 2).build(),
        Frame::new().eth(OURS, HOST).vlan(5).ipv4([192, 0, 2, 9], [192, 0, 2, 1]).icmp(8, 0, 1).build(),
        Frame::new().eth(OURS, HOST).ethertype(0x88b5).payload(&[0; 50]).build(),
        Frame::new().eth([0xff; 6], HOST).arp(7, HOST, [192, 0, 2, 9], [0; 6], [192, 0, 2, 1]).build(),
    ]) {
        assert_eq!(answers(&mut network, &frame), Vec::<Vec<u8>>::new());
        assert_eq!(policy(&network), n, "{frame:02x?}");
    }
    let fragment = to(OURS, [192, 0, 2, 1]).proto(17).fragment(100, false).payload(&[0; 40]).build();
    answers(&mut network, &fragment);
    assert_eq!(network.sites[0].dropped(DropReason::TunnelFragment), 1);
    let ping = answers(&mut network, &to(OURS, [192, 0, 2, 1]).icmp(8, 0, 1).payload(&[3; 40]).build());
    assert_eq!((ping.len(), ping[0][34], network.sites[0].underlay.stats().echoes), (1, 0, 1));
}

#[test]
fn ways_follow_routes_and_neighbours() {
    let network = site();
    let (underlay, now) = (&network.sites[0].underlay, network.now);
    let far: IpAddr = [198, 51, 100, 7].into();
    let number = underlay.endpoint_add(Endpoint::new(Kind::Vxlan, far), now).unwrap();
    let is_known = || underlay.endpoints()[0].2;
    assert!(!is_known(), "no route");
    let route = |via: u8, metric| Route {
        prefix: "198.51.100.0/24".parse().unwrap(),
        via: Some([192, 0, 2, via].into()),
        port: WAN,
        source: None,
        metric,
    };
    underlay.route_add(MAIN, route(254, 10), now).unwrap();
    assert!(!is_known(), "no neighbour");
    underlay.neighbour_set((WAN, [192, 0, 2, 254].into()), HOST, now).unwrap();
    assert!(is_known());
    // A better route leads to a neighbour that is not known.
    underlay.route_add(MAIN, route(253, 5), now).unwrap();
    assert!(!is_known());
    underlay.route_del(MAIN, route(253, 5).prefix, Some(5), now).unwrap();
    assert!(is_known());
    underlay.interface_del(WAN, now).unwrap();
    assert!(!is_known());
    underlay.endpoint_del(number).unwrap();
    assert_eq!(underlay.endpoint_del(number), Err(UnderlayError::NotFound("endpoint")));
}

#[test]
fn settings_that_cannot_be_are_refused_by_their_names() {
    let network = site();
    let (underlay, now) = (&network.sites[0].underlay, network.now);
    let before = underlay.interfaces();
    let good = Interface { port: 3, mac: HOST, vlan: None, mtu: 1500, addresses: vec!["10.0.0.1/8".parse().unwrap()] };
    for (interface, says) in [
        (Interface { port: 65_536, ..good.clone() }, "port: 65536 is out of range"),
        (Interface { mac: [0xff; 6], ..good.clone() }, "mac: "),
        (Interface { mac: [0; 6], ..good.clone() }, "mac: "),
        (Interface { mtu: 67, ..good.clone() }, "mtu: 67"),
        (Interface { addresses: vec!["192.0.2.1/8".parse().unwrap()], ..good.clone() }, "address: 192.0.2.1"),
        (Interface { addresses: vec!["224.0.0.1/8".parse().unwrap()], ..good.clone() }, "address: 224.0.0.1"),
    ] {
        let error = underlay.interface_set(interface, now).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
        assert_eq!(underlay.interfaces(), before);
    }
    let endpoint = Endpoint::new(Kind::Vxlan, [192, 0, 2, 9].into());
    for (endpoint, says) in [
        (Endpoint { kind: Kind::Gtpu, ..endpoint.clone() }, "kind: gtpu"),
        (Endpoint { remote: [224, 0, 0, 1].into(), ..endpoint.clone() }, "remote: "),
        (Endpoint { local: Some("::1".parse().unwrap()), ..endpoint.clone() }, "local: "),
    ] {
        let error = underlay.endpoint_add(endpoint, now).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
        assert_eq!(underlay.endpoints(), []);
    }
    let again = Listener { kind: Kind::Vxlan, udp_port: Some(4789), options: Options::default() };
    assert_eq!(underlay.listen(again), Err(UnderlayError::Listener));
    let route = Route { prefix: "10.0.0.0/8".parse().unwrap(), via: None, port: 5, source: None, metric: 0 };
    assert_eq!(underlay.route_add(MAIN, route, now), Err(UnderlayError::NotFound("interface")));
    assert_eq!(underlay.neighbour_set((WAN, [10, 0, 0, 1].into()), [1; 6], now), Err(UnderlayError::Mac));
}

#[test]
fn an_address_is_announced_twice_and_again_when_it_is_set() {
    let mut network = site();
    network.crossed.clear();
    network.pass(3);
    let announced: Vec<Vec<u8>> = network.crossed.iter().map(|(_, frame)| frame.clone()).collect();
    let link = Link { src: OURS, vlan: None };
    let expected = [
        messages::arp_announcement(link, [192, 0, 2, 1].into()),
        messages::nd_advertisement(link, (OURS, "2001:db8::1".parse().unwrap()), None),
    ];
    assert_eq!(announced, expected);
    network.crossed.clear();
    network.pass(10);
    assert_eq!(network.crossed, []);
}

#[test]
fn what_was_sent_while_the_link_was_down_is_sent_again_when_it_comes_up() {
    let mut network = site();
    let (now, end) = (network.now, Endpoint::new(Kind::Vxlan, [192, 0, 2, 9].into()));
    network.sites[0].datapath.port_set_up(WAN, false);
    network.pass(3);
    network.sites[0].underlay.endpoint_add(end, now).unwrap();
    network.crossed.clear();
    network.pass(4);
    assert_eq!(network.crossed, []);
    let states = |network: &Network| network.sites[0].underlay.neighbours().iter().map(|n| n.state).collect::<Vec<_>>();
    assert_eq!(states(&network), [neighbours::NeighbourState::Failed]);
    network.sites[0].datapath.port_set_up(WAN, true);
    network.pass(1);
    let link = Link { src: OURS, vlan: None };
    let announced = [
        messages::arp_announcement(link, [192, 0, 2, 1].into()),
        messages::nd_advertisement(link, (OURS, "2001:db8::1".parse().unwrap()), None),
    ];
    let asked = messages::arp_request(link, [192, 0, 2, 1].into(), [192, 0, 2, 9].into(), None);
    let sent: Vec<Vec<u8>> = network.crossed.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(sent, [&announced[..], std::slice::from_ref(&asked)].concat());
    let reply = messages::arp_reply(
        Link { src: HOST, vlan: None },
        (HOST, [192, 0, 2, 9].into()),
        (OURS, [192, 0, 2, 1].into()),
    );
    assert_eq!(answers(&mut network, &reply), Vec::<Vec<u8>>::new());
    assert!(network.sites[0].underlay.endpoints()[0].2, "its way is known");
    // Once more, as when an address is set; then there is silence.
    network.crossed.clear();
    network.pass(10);
    let sent: Vec<Vec<u8>> = network.crossed.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(sent, announced);
}
