//! What one VPC takes, another does not lack.

use super::*;
use crate::datapath::Stats;

const A: u32 = 5001;
const B: u32 = 5002;

/// Two sites whose VPCs A and B share port 2, by the tags 100 and 200, and the tunnel; ports 1 and 3 are of one of them each.
fn sharing(flows_max: u32, bridge: &BridgeConfig, of_a: impl Fn(VpcConfig) -> VpcConfig) -> Network {
    let datapath = || crate::datapath::Config { flows_max, ..Site::small() };
    let site = |at| Site::with(datapath(), bridge.clone(), Kind::Vxlan, &[&format!("192.0.2.{at}/24")], wan_mac(at));
    let sites: Vec<Site> = (1..=2).map(site).collect();
    for (at, site) in sites.iter().enumerate() {
        let config = VpcConfig::new(Vni::new(A).unwrap(), site.listener, Endpoint::new(Kind::Vxlan, any()));
        site.vpc_of(of_a(config), &[(1, None), (2, Some(100))], &others(4, 2, at));
        site.vpc(B, &[(3, None), (2, Some(200))], &others(4, 2, at));
    }
    Network::new(sites)
}

/// One of many addresses.
fn many(n: u16) -> [u8; 6] {
    let [high, low] = n.to_be_bytes();
    [2, 9, 0, 0, high, low]
}

/// What was counted of packets, and by the bridge.
fn counted(network: &Network, site: usize) -> (Stats, BridgeStats) {
    (network.sites[site].datapath.stats(), network.sites[site].bridge.stats())
}

fn used(network: &Network, site: usize) -> [(u32, u32); 2] {
    let vpcs = network.sites[site].bridge.vpcs();
    [(vpcs[0].stations, vpcs[0].flows), (vpcs[1].stations, vpcs[1].flows)]
}

/// Floods of new addresses in VPC A of site 1: on the port that B shares, and out of the tunnel that B shares.
fn attack(network: &mut Network) {
    network.send(0, 1, &udp(mac(1), BROADCAST, 10));
    let (_, tunnelled) = network.crossed.iter().rfind(|(site, f)| *site == 0 && f.len() > 70).unwrap().clone();
    for n in 0..500 {
        network.send(1, 2, &tagged(&udp(many(n), BROADCAST, 10), 100));
        let mut frame = tunnelled.clone();
        frame[56..62].copy_from_slice(&many(500 + n));
        network.send(1, WAN, &frame);
    }
}

#[test]
fn a_vpc_that_floods_new_addresses_takes_nothing_from_another_on_the_same_port_and_tunnel() {
    let bridge = BridgeConfig {
        stations_max: 60,
        stations_per_port_max: 10,
        flood_rate: 10,
        flood_burst: 4,
        ..BridgeConfig::default()
    };
    let mut network = sharing(4096, &bridge, |config| config);
    attack(&mut network);
    // One station was there before, behind the tunnel.
    assert_eq!(used(&network, 1), [(20, 0), (0, 0)]);
    let before = counted(&network, 1);
    assert_eq!((before.1.learned, before.1.learn_refused), (20, 1001 - 20));
    assert_eq!((before.1.flooded, before.1.storm_dropped), (4 + 4, 1001 - 8));

    // The other VPC does as if nothing was: it floods, learns, and has flows both ways, over the shared port and the shared tunnel.
    let hello = tagged(&udp(mac(1), BROADCAST, 20), 200);
    let mut got = network.send(1, 2, &hello);
    got.sort_unstable();
    let plain = udp(mac(1), BROADCAST, 20);
    assert_eq!(got, [(0, 2, hello.clone()), (0, 3, plain.clone()), (1, 3, plain)]);
    let (there, back) = (udp(mac(2), mac(1), 30), udp(mac(1), mac(2), 30));
    for _ in 0..3 {
        assert_eq!(network.send(0, 3, &there), [(1, 2, tagged(&there, 200))]);
        assert_eq!(network.send(1, 2, &tagged(&back, 200)), [(0, 3, back.clone())]);
    }
    // A flood out of the tunnel is not taken for one of the other VPC's.
    let hello = udp(mac(2), BROADCAST, 20);
    assert_eq!(network.send(0, 3, &hello).len(), 3);
    let after = counted(&network, 1);
    let expected = BridgeStats {
        learned: before.1.learned + 2,
        flooded: before.1.flooded + 2,
        flows_installed: before.1.flows_installed + 2,
        ..before.1
    };
    assert_eq!((after.1, used(&network, 1)), (expected, [(20, 0), (2, 2)]));
    assert_eq!(after.0.dropped, before.0.dropped);
}

#[test]
fn a_vpc_that_asks_without_end_does_not_use_up_the_answers_of_another() {
    let mut network = sharing(4096, &BridgeConfig::default(), |config| config);
    let ask = |from: u8| {
        let ask = Frame::new().eth(BROADCAST, mac(from));
        ask.arp(1, mac(from), [10, 0, 0, from], [0; 6], [10, 0, 0, 254]).build()
    };
    for vni in [A, B] {
        let vni = Vni::new(vni).unwrap();
        network.sites[0].bridge.vpc_proxy_set(vni, [10, 0, 0, 254].into(), Some(mac(0xfe))).unwrap();
    }
    for _ in 0..200 {
        network.send(0, 2, &tagged(&ask(1), 100));
    }
    assert_eq!(network.sites[0].bridge.stats().answered_for, 100, "a burst");
    let got = network.send(0, 2, &tagged(&ask(2), 200));
    assert_eq!(got.iter().map(|(site, port, _)| (*site, *port)).collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(network.sites[0].bridge.stats().answered_for, 101);
}

#[test]
fn a_vpc_has_stations_and_flows_up_to_its_own_limits() {
    let limited = |config| VpcConfig { stations_max: 4, flows_max: 5, ..config };
    let mut network = sharing(4096, &BridgeConfig { flood_rate: 0, ..BridgeConfig::default() }, limited);
    for (port, n) in [(1, 1), (1, 2), (2, 3), (2, 4), (1, 5)] {
        let frame = udp(mac(n), BROADCAST, 10);
        network.send(0, port, &if port == 2 { tagged(&frame, 100) } else { frame });
    }
    assert_eq!(network.sites[0].bridge.stats().learn_refused, 1);
    for (from, to) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        let frame = udp(mac(from), mac(to), 10);
        assert_eq!(network.send(0, 1, &frame), [(0, 2, tagged(&frame, 100))]);
    }
    // Four flows of broadcasts were there before.
    let stats = network.sites[0].bridge.stats();
    assert_eq!((stats.flows_installed, stats.flows_refused), (5, 3));
    assert_eq!(used(&network, 0), [(4, 5), (0, 0)]);
    // What had no flow gets one when another has gone.
    for _ in 0..12 {
        network.pass(1);
    }
    assert_eq!(used(&network, 0), [(4, 0), (0, 0)]);
    network.send(0, 1, &udp(mac(2), mac(4), 10));
    assert_eq!(used(&network, 0), [(4, 1), (0, 0)]);
}

#[test]
fn of_what_all_have_together_each_vpc_has_a_share_that_is_its_own() {
    // Three parties, VLANs included: of 24 stations each has 4 for itself, of 30 flows 5; the others are whose they are first.
    let bridge = BridgeConfig { stations_max: 24, flood_rate: 0, ..BridgeConfig::default() };
    let mut network = sharing(32, &bridge, |config| config);
    for n in 0..100 {
        network.send(0, 1, &udp(many(n), BROADCAST, 10));
    }
    for n in 0..100 {
        network.send(0, 1, &udp(many(0), mac(n as u8), 10));
        network.send(0, 2, &tagged(&udp(mac(n as u8), BROADCAST, 10), 100));
    }
    assert_eq!(used(&network, 0)[0], (16, 16));
    for n in 1..10 {
        network.send(0, 3, &udp(mac(n), BROADCAST, 10));
    }
    assert_eq!(used(&network, 0), [(16, 16), (4, 4)]);
    for n in 1..5 {
        network.send(0, 2, &tagged(&udp(mac(10 + n), mac(n), 10), 200));
        network.send(0, 3, &udp(mac(n), mac(1), 10));
    }
    assert_eq!(used(&network, 0), [(16, 16), (4, 4)]);
    assert_eq!(network.sites[0].bridge.stations().len(), 20);
    // A station that goes makes room for one more.
    network.sites[0].bridge.vpc_port_del(Vni::new(B).unwrap(), 3).unwrap();
    assert_eq!(used(&network, 0)[1], (0, 0));
    network.send(0, 2, &tagged(&udp(mac(20), BROADCAST, 10), 200));
    assert_eq!(used(&network, 0)[1], (1, 1));
}

#[test]
fn a_vpc_that_comes_later_has_its_share_of_what_was_full() {
    let bridge = BridgeConfig { stations_max: 24, flood_rate: 0, ..BridgeConfig::default() };
    let mut network = sharing(32, &bridge, |config| config);
    network.sites[0].bridge.vpc_del(Vni::new(B).unwrap()).unwrap();
    for n in 0..100 {
        network.now = network.now + 1;
        network.send(0, 1, &udp(many(n), BROADCAST, 10));
    }
    let of_a = |network: &Network| network.sites[0].bridge.vpcs()[0].stations;
    assert_eq!(of_a(&network), 6 + 12);
    // The two that were silent for longest make room.
    network.sites[0].vpc(B, &[(3, None)], &[]);
    assert_eq!(of_a(&network), 4 + 12);
    let first = network.sites[0].bridge.stations()[0];
    assert_eq!((first.domain, first.mac), (Domain::Vpc(Vni::new(A).unwrap()), many(2)));
    network.send(0, 3, &udp(mac(1), BROADCAST, 10));
    assert_eq!(network.sites[0].bridge.stations().len(), 17);
}

#[test]
fn limits_that_cannot_be_are_refused_by_their_names() {
    let bridge = BridgeConfig { stations_max: 7, ..BridgeConfig::default() };
    let network = sharing(32, &bridge, |config| config);
    let (bridge, listener) = (&network.sites[0].bridge, network.sites[0].listener);
    let good = VpcConfig::new(Vni::new(9).unwrap(), listener, Endpoint::new(Kind::Vxlan, any()));
    let before = bridge.vpcs();
    for (config, says) in [
        (VpcConfig { stations_max: 0, ..good.clone() }, "stations_max: at least 1"),
        (VpcConfig { flows_max: 0, ..good.clone() }, "flows_max: at least 1"),
        (good.clone(), "stations_max: 7 for all are too few for another VPC"),
    ] {
        assert_eq!(bridge.vpc_add(config).unwrap_err().to_string(), says);
        assert_eq!(bridge.vpcs(), before);
    }
    bridge.vpc_del(Vni::new(A).unwrap()).unwrap();
    bridge.vpc_add(good).unwrap();
    let network = sharing(7, &BridgeConfig::default(), |config| config);
    let good = VpcConfig { vni: Vni::new(9).unwrap(), ..network.sites[0].bridge.vpcs()[0].config.clone() };
    let error = network.sites[0].bridge.vpc_add(good).unwrap_err();
    assert_eq!(error, VpcError::NoShare("flows_max", 7));
}

#[test]
fn a_flood_of_answers_and_errors_does_not_displace_what_the_underlay_says() {
    let few = crate::datapath::Config { upcalls_max: 16, ..Site::small() };
    let sites = [Site::with(few, BridgeConfig::default(), Kind::Vxlan, &["192.0.2.1/24"], wan_mac(1))];
    let vni = sites[0].vpc(A, &[(1, None), (2, None)], &[address(4, 2)]);
    let mut network = Network::new(sites.into());
    let (site, now) = (&mut network.sites[0], network.now);
    site.underlay.neighbour_set((WAN, address(4, 2)), wan_mac(2), now).unwrap();
    site.bridge.vpc_proxy_set(vni, [10, 0, 0, 254].into(), Some(mac(0xfe))).unwrap();
    let ask = Frame::new().eth(BROADCAST, mac(1)).arp(1, mac(1), [10, 0, 0, 1], [0; 6], [10, 0, 0, 254]).build();
    let underlay_asks = Frame::new().eth(BROADCAST, wan_mac(2));
    let underlay_asks = underlay_asks.arp(1, wan_mac(2), [192, 0, 2, 2], [0; 6], [192, 0, 2, 1]).build();
    let ping = Frame::new().eth(wan_mac(1), wan_mac(2)).ipv4([192, 0, 2, 2], [192, 0, 2, 1]).icmp(8, 0, 1).build();
    // All in one burst, before which nothing waits and during which nothing leaves.
    let mut frames = vec![(1, ask); 100];
    frames.extend(vec![(WAN, ping); 10]);
    frames.push((WAN, underlay_asks));
    let sent = site.send_burst(&frames, now);
    // Half of the 16 places, and the rest of the questions is flooded; pings are others' as well.
    let bridge = site.bridge.stats();
    assert_eq!((bridge.answered_for, bridge.flooded), (8, 92));
    let underlay = site.underlay.stats();
    assert_eq!((underlay.answered, underlay.echoes, underlay.unsent), (1, 0, 10));
    let answer = messages::arp_reply(
        Link { src: wan_mac(1), vlan: None },
        (wan_mac(1), [192, 0, 2, 1].into()),
        (wan_mac(2), [192, 0, 2, 2].into()),
    );
    assert_eq!(sent.iter().filter(|(_, frame)| *frame == answer).count(), 1);
    assert_eq!(sent.len(), 2 * 92 + 8 + 1);
}
