use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::datapath::{Config, Stats, Worker};
use crate::gateway::VlanSet;
use crate::gateway::sites::Recorder;
use crate::packet::Packet;
use crate::port::PortEntry;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const BROADCAST: [u8; 6] = [0xff; 6];

struct Switch {
    datapath: Datapath,
    bridge: Arc<Bridge>,
    worker: Worker,
    now: Nanos,
    _detach: Detach,
}

/// The datapath holds the bridge and the bridge a handle of the datapath: one of them must let go.
struct Detach(Datapath);

impl Drop for Detach {
    fn drop(&mut self) {
        self.0.set_upcall_handler(None);
    }
}

impl Switch {
    fn new(config: BridgeConfig, ports: &[PortVlans]) -> Self {
        let small = Config { flows_max: 4096, cache_entries: 256, pool_buffers: 512, ..Config::default() };
        let datapath = Datapath::new(small).unwrap();
        let bridge = Bridge::attach(&datapath, config).unwrap();
        for (number, vlans) in (1..).zip(ports) {
            let name = format!("p{number}").into();
            datapath.port_add(PortEntry { number, name, packet_len_max: 1522, up: true }).unwrap();
            bridge.set_port(number, vlans.clone()).unwrap();
        }
        let _detach = Detach(datapath.clone());
        Switch { worker: datapath.worker().unwrap(), datapath, bridge, now: Nanos(SECOND), _detach }
    }

    fn access(config: BridgeConfig, ports: usize) -> Self {
        Switch::new(config, &vec![PortVlans::default(); ports])
    }

    fn send(&mut self, port: u32, frame: &[u8]) -> Result<BTreeMap<u32, Vec<u8>>, DropReason> {
        let before = self.datapath.stats();
        let mut packets: [Packet; 1] = [self.datapath.pool().packet(frame).unwrap()];
        packets[0].in_port = port;
        let mut sent = Recorder::default();
        self.worker.process(&mut packets, self.now, &mut sent);
        self.worker.free(&mut packets, |_| ());
        let after = self.datapath.stats();
        assert_eq!(after.fates(), after.packets_in);
        let count = sent.0.len();
        let sent: BTreeMap<u32, Vec<u8>> = sent.0.into_iter().collect();
        assert_eq!(sent.len(), count, "a port got the frame twice");
        match dropped(&before, &after) {
            Some(reason) => {
                assert!(sent.is_empty());
                Err(reason)
            }
            None => Ok(sent),
        }
    }

    /// An untagged frame; the ports that it left by.
    fn ports(&mut self, port: u32, src: [u8; 6], dst: [u8; 6]) -> Vec<u32> {
        self.send(port, &frame(src, dst, None)).map(|sent| sent.into_keys().collect()).unwrap_or_default()
    }

    fn misses(&self) -> u64 {
        self.datapath.stats().misses
    }

    fn pass(&mut self, ns: u64) {
        self.now = self.now + ns;
        self.bridge.upkeep(self.now);
    }
}

fn dropped(before: &Stats, after: &Stats) -> Option<DropReason> {
    DropReason::ALL.iter().copied().find(|r| after.dropped[r.index()] != before.dropped[r.index()])
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(src: [u8; 6], dst: [u8; 6], tci: Option<u16>) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    if let Some(tci) = tci {
        frame.extend([0x81, 0]);
        frame.extend(tci.to_be_bytes());
    }
    // An EtherType for experiments (IEEE 802), so that nothing behind it is parsed.
    frame.extend([0x88, 0xb5]);
    frame.resize(frame.len() + 46, 0x55);
    frame
}

fn vlan(number: u16) -> VlanId {
    VlanId::new(number).unwrap()
}

fn trunk(native: Option<u16>, allowed: &[u16]) -> PortVlans {
    PortVlans::Trunk { native: native.map(vlan), allowed: allowed.iter().map(|&n| vlan(n)).collect() }
}

#[test]
fn a_third_host_sees_no_unicast_once_its_station_is_known() {
    let mut switch = Switch::access(BridgeConfig::default(), 3);
    assert_eq!(switch.ports(1, mac(1), BROADCAST), [2, 3]);
    assert_eq!(switch.ports(2, mac(2), mac(1)), [1]);
    assert_eq!(switch.ports(1, mac(1), mac(2)), [2]);
    let misses = switch.misses();
    for _ in 0..10 {
        assert_eq!(switch.ports(2, mac(2), mac(1)), [1]);
        assert_eq!(switch.ports(1, mac(1), mac(2)), [2]);
    }
    assert_eq!((switch.misses(), switch.datapath.flow_count(), switch.datapath.mask_count()), (misses, 2, 1));
}

#[test]
fn a_flood_is_not_cached_so_learning_ends_it() {
    let mut switch = Switch::access(BridgeConfig::default(), 3);
    assert_eq!(switch.ports(1, mac(1), mac(9)), [2, 3]);
    assert_eq!(switch.ports(1, mac(1), mac(9)), [2, 3]);
    assert_eq!(switch.datapath.flow_count(), 0);
    assert_eq!(switch.ports(3, mac(9), mac(1)), [1]);
    assert_eq!(switch.ports(1, mac(1), mac(9)), [3]);
}

#[test]
fn a_station_that_moves_takes_its_flows_with_it() {
    let mut switch = Switch::access(BridgeConfig::default(), 4);
    for (port, own, other) in [(1, 1, 2), (2, 2, 1), (1, 1, 2), (3, 3, 2), (2, 2, 3)] {
        switch.ports(port, mac(own), mac(other));
    }
    assert_eq!(switch.ports(3, mac(3), mac(2)), [2]);
    assert_eq!(switch.datapath.flow_count(), 4);
    assert_eq!(switch.ports(4, mac(2), mac(1)), [1]);
    assert_eq!(switch.datapath.flow_count(), 1, "all four flows from and to the station went, one came");
    assert_eq!((switch.ports(1, mac(1), mac(2)), switch.ports(3, mac(3), mac(2))), (vec![4], vec![4]));
    // Back where it was: its old flow must not have survived, or nobody would notice.
    assert_eq!(switch.ports(2, mac(2), mac(1)), [1]);
    assert_eq!(switch.ports(1, mac(1), mac(2)), [2]);
    assert_eq!(switch.bridge.stats().moved, 2);
}

#[test]
fn nothing_goes_back_to_where_it_came_from() {
    let mut switch = Switch::access(BridgeConfig::default(), 2);
    switch.ports(1, mac(1), BROADCAST);
    assert_eq!(switch.send(1, &frame(mac(2), mac(1), None)), Err(DropReason::NoDestination));
    let mut alone = Switch::access(BridgeConfig::default(), 1);
    assert_eq!(alone.send(1, &frame(mac(2), BROADCAST, None)), Err(DropReason::NoDestination));
}

#[test]
fn control_frames_and_impossible_sources_are_not_forwarded() {
    let mut switch = Switch::access(BridgeConfig { flood_rate: 0, ..BridgeConfig::default() }, 2);
    for last in 0..16 {
        let reserved = [0x01, 0x80, 0xc2, 0, 0, last];
        assert_eq!(switch.send(1, &frame(mac(1), reserved, None)), Err(DropReason::Policy));
    }
    assert_eq!(switch.ports(1, mac(1), [0x01, 0x80, 0xc2, 0, 0, 16]), [2]);
    for source in [BROADCAST, [1, 0, 0x5e, 0, 0, 1], [0; 6]] {
        assert_eq!(switch.send(1, &frame(source, mac(2), None)), Err(DropReason::Policy));
    }
    assert_eq!(switch.bridge.stations().len(), 1);
    assert_eq!(switch.send(7, &frame(mac(1), mac(2), None)), Err(DropReason::Policy), "not a port of the bridge");
}

#[test]
fn a_flood_beyond_the_limit_is_a_storm_and_unicast_goes_on() {
    let config = BridgeConfig { flood_rate: 100, flood_burst: 5, ..BridgeConfig::default() };
    let mut switch = Switch::access(config, 3);
    switch.ports(2, mac(2), mac(1));
    let floods = (0..20).filter(|_| switch.send(1, &frame(mac(1), BROADCAST, None)).is_ok()).count();
    assert_eq!(floods, 5);
    assert_eq!(switch.send(1, &frame(mac(1), mac(9), None)), Err(DropReason::Storm));
    assert_eq!(switch.ports(1, mac(1), mac(2)), [2]);
    assert_eq!(switch.ports(3, mac(3), BROADCAST), [1, 2], "another port has its own limit");
    switch.pass(SECOND / 10);
    let floods = (0..20).filter(|_| switch.send(1, &frame(mac(1), BROADCAST, None)).is_ok()).count();
    assert_eq!(floods, 5, "the bucket holds no more than a burst");
    switch.pass(20 * MS);
    let floods = (0..20).filter(|_| switch.send(1, &frame(mac(1), BROADCAST, None)).is_ok()).count();
    assert_eq!(floods, 2);
    assert_eq!(switch.bridge.stats().storm_dropped, 15 + 1 + 15 + 18);
}

#[test]
fn without_a_storm_limit_group_frames_have_flows_that_follow_the_ports() {
    let config = BridgeConfig { flood_rate: 0, ..BridgeConfig::default() };
    let mut switch = Switch::access(config, 3);
    assert_eq!(switch.ports(1, mac(1), BROADCAST), [2, 3]);
    let misses = switch.misses();
    assert_eq!(switch.ports(1, mac(1), BROADCAST), [2, 3]);
    assert_eq!(switch.misses(), misses);
    switch.bridge.remove_port(3);
    assert_eq!(switch.ports(1, mac(1), BROADCAST), [2]);
    switch.bridge.set_port(3, PortVlans::default()).unwrap();
    assert_eq!(switch.ports(1, mac(1), BROADCAST), [2, 3]);
    // The source's own flow must go when it moves, or a move back would not be seen.
    assert_eq!(switch.ports(2, mac(1), BROADCAST), [1, 3]);
    assert_eq!(switch.ports(1, mac(1), BROADCAST), [2, 3]);
    assert_eq!(switch.bridge.stations()[0].place, Place::Port(1));
}

#[test]
fn silent_stations_age_out_and_those_whose_packets_hit_flows_do_not() {
    let config = BridgeConfig { aging_ns: 30 * SECOND, flow_idle_ns: 10 * SECOND, ..BridgeConfig::default() };
    let mut switch = Switch::access(config, 3);
    switch.ports(1, mac(1), BROADCAST);
    switch.ports(2, mac(2), mac(1));
    switch.ports(1, mac(1), mac(2));
    for _ in 0..20 {
        assert_eq!(switch.ports(1, mac(1), mac(2)), if switch.now.0 < 31 * SECOND { vec![2] } else { vec![2, 3] });
        switch.pass(5 * SECOND);
    }
    let stations = switch.bridge.stations();
    assert_eq!(stations.iter().map(|s| s.mac).collect::<Vec<_>>(), [mac(1)]);
    assert_eq!(stations[0].seen, switch.now - 5 * SECOND);
    assert_eq!((switch.bridge.stats().aged, switch.datapath.flow_count()), (1, 0));
}

#[test]
fn tags_are_added_and_removed_as_the_ports_want_them() {
    let mut switch = Switch::new(
        BridgeConfig::default(),
        &[PortVlans::Access(vlan(10)), PortVlans::Access(vlan(20)), trunk(Some(10), &[20, 30]), trunk(None, &[10, 20])],
    );
    let f = |tci| frame(mac(1), BROADCAST, tci);
    // VLAN 10: native on port 3, tagged on port 4. The priority of the tag stays with it.
    assert_eq!(switch.send(1, &f(None)).unwrap(), BTreeMap::from([(3, f(None)), (4, f(Some(10)))]));
    assert_eq!(switch.send(4, &f(Some(0x600a))).unwrap(), BTreeMap::from([(1, f(None)), (3, f(None))]));
    assert_eq!(switch.send(3, &f(Some(0xa014))).unwrap(), BTreeMap::from([(2, f(None)), (4, f(Some(0xa014)))]));
    // A priority tag is no VLAN tag, but its priority survives.
    assert_eq!(switch.send(1, &f(Some(0xe000))).unwrap(), BTreeMap::from([(3, f(None)), (4, f(Some(0xe00a)))]));
    assert_eq!(switch.send(1, &f(Some(10))), Err(DropReason::Policy), "a tag on an access port");
    assert_eq!(switch.send(4, &f(None)), Err(DropReason::Policy), "no tag, no native VLAN");
    assert_eq!(switch.send(4, &f(Some(30))), Err(DropReason::Policy), "not allowed");
    assert_eq!(switch.send(3, &f(Some(10))), Err(DropReason::Policy), "native VLAN with a tag");
    assert_eq!(switch.send(3, &f(Some(30))), Err(DropReason::NoDestination));
}

#[test]
fn one_address_in_two_vlans_is_two_stations() {
    let mut switch = Switch::new(
        BridgeConfig::default(),
        &[PortVlans::Access(vlan(10)), PortVlans::Access(vlan(20)), trunk(None, &[10, 20])],
    );
    switch.send(1, &frame(mac(1), BROADCAST, None)).unwrap();
    switch.send(2, &frame(mac(1), BROADCAST, None)).unwrap();
    for (number, port) in [(10, 1), (20, 2), (10, 1)] {
        let sent = switch.send(3, &frame(mac(3), mac(1), Some(number))).unwrap();
        assert_eq!(sent, BTreeMap::from([(port, frame(mac(3), mac(1), None))]));
    }
    assert_eq!((switch.bridge.stations().len(), switch.bridge.stats().moved), (4, 0));
}

#[test]
fn a_service_tag_is_payload() {
    let mut switch =
        Switch::new(BridgeConfig::default(), &[PortVlans::default(), trunk(None, &[1]), PortVlans::default()]);
    let service = |number: u16, src, dst| {
        let mut frame = frame(src, dst, Some(number));
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame
    };
    switch.send(2, &frame(mac(2), BROADCAST, Some(1))).unwrap();
    for number in [5, 6] {
        let inner = service(number, mac(1), mac(2));
        let mut outer = inner[..12].to_vec();
        outer.extend([0x81, 0, 0, 1]);
        outer.extend(&inner[12..]);
        assert_eq!(switch.send(1, &inner).unwrap(), BTreeMap::from([(2, outer)]));
    }
    assert_eq!(switch.datapath.flow_count(), 1, "one flow for all service tags");
}

#[test]
fn stations_beyond_a_limit_are_flooded_to_and_cannot_take_a_place() {
    let config = BridgeConfig { stations_max: 3, stations_per_port_max: 2, ..BridgeConfig::default() };
    let mut switch = Switch::access(config, 3);
    for n in 1..=5 {
        switch.ports(1, mac(n), BROADCAST);
    }
    switch.ports(2, mac(9), BROADCAST);
    assert_eq!(switch.bridge.stations().iter().map(|s| s.mac).collect::<Vec<_>>(), [mac(1), mac(2), mac(9)]);
    assert_eq!(switch.ports(3, mac(10), mac(3)), [1, 2]);
    assert_eq!(switch.ports(1, mac(9), BROADCAST), [2, 3]);
    assert_eq!(switch.ports(3, mac(10), mac(9)), [2], "a full port does not attract others' stations");
    assert_eq!(switch.datapath.flow_count(), 0, "no flow depends on a station that is not known");
    assert_eq!(switch.bridge.stats().learn_refused, 3 + 1 + 1 + 1);
    assert_eq!(switch.bridge.forget(Some(1)), 2);
    switch.ports(1, mac(4), BROADCAST);
    assert_eq!(switch.bridge.stations().len(), 2);
}

#[test]
fn a_full_flow_table_slows_but_does_not_stop() {
    let mut switch = Switch::access(BridgeConfig::default(), 2);
    for n in 0..70 {
        for m in 0..70 {
            let (a, b) = ([2, 1, 0, 0, 0, n], [2, 2, 0, 0, 0, m]);
            switch.ports(1, a, b);
            assert_eq!(switch.ports(2, b, a), [1]);
            assert_eq!(switch.ports(1, a, b), [2]);
        }
    }
    assert_eq!(switch.datapath.flow_count(), 4096);
    assert!(switch.bridge.stats().flows_refused > 0);
    assert_eq!(switch.bridge.forget(None), 140);
    assert_eq!(switch.datapath.flow_count(), 0);
}

#[test]
fn the_bridge_does_not_keep_its_datapath() {
    let switch = Switch::access(BridgeConfig::default(), 2);
    let (weak, bridge) = (switch.datapath.downgrade(), Arc::clone(&switch.bridge));
    drop(switch);
    assert!(weak.upgrade().is_none());
    bridge.upkeep(Nanos(1));
    assert_eq!(Arc::strong_count(&bridge), 1);
}

/// The bridge as a list of rules, without flows.
struct Model {
    config: BridgeConfig,
    ports: Vec<PortVlans>,
    stations: BTreeMap<(VlanId, [u8; 6]), (u32, Nanos)>,
    swept_at: Nanos,
}

impl Model {
    fn send(
        &mut self,
        port: u32,
        src: [u8; 6],
        dst: [u8; 6],
        tci: Option<u16>,
        now: Nanos,
    ) -> Result<BTreeMap<u32, Vec<u8>>, DropReason> {
        if dst[..5] == [0x01, 0x80, 0xc2, 0, 0] && dst[5] < 16 || src[0] & 1 == 1 {
            return Err(DropReason::Policy);
        }
        let (number, pcp) = (tci.map_or(0, |t| t & 0xfff), tci.map_or(0, |t| t & 0xe000));
        let member = match &self.ports[port as usize - 1] {
            PortVlans::Access(own) if number == 0 => Some(*own),
            PortVlans::Access(_) => None,
            PortVlans::Trunk { native, .. } if number == 0 => *native,
            PortVlans::Trunk { allowed, .. } => VlanId::new(number).filter(|v| allowed.contains(*v)),
        };
        let vlan = member.ok_or(DropReason::Policy)?;
        let on_port = self.stations.values().filter(|s| s.0 == port).count();
        let known = self.stations.get(&(vlan, src)).map(|s| s.0);
        let may = match known {
            Some(at) if at == port => true,
            Some(_) => on_port < self.config.stations_per_port_max as usize,
            None => {
                on_port < self.config.stations_per_port_max as usize
                    && self.stations.len() < self.config.stations_max as usize
            }
        };
        if may {
            self.stations.insert((vlan, src), (port, now));
        }
        let target = if dst[0] & 1 == 1 { None } else { self.stations.get(&(vlan, dst)).map(|s| s.0) };
        let mut sent = BTreeMap::new();
        for (out, vlans) in (1..).zip(&self.ports) {
            let tagged = match vlans {
                PortVlans::Access(own) if *own == vlan => false,
                PortVlans::Trunk { native: Some(native), .. } if *native == vlan => false,
                PortVlans::Trunk { allowed, .. } if allowed.contains(vlan) => true,
                _ => continue,
            };
            if out != port && target.is_none_or(|t| t == out) {
                sent.insert(out, frame(src, dst, tagged.then_some(pcp | vlan.number())));
            }
        }
        if sent.is_empty() { Err(DropReason::NoDestination) } else { Ok(sent) }
    }

    fn upkeep(&mut self, now: Nanos) {
        if now.since(self.swept_at) >= SWEEP_NS {
            self.swept_at = now;
            self.stations.retain(|_, (_, seen)| now.since(*seen) < self.config.aging_ns);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send { port: u32, src: u8, dst: u8, tci: Option<u16> },
    Pass { ms: u64 },
    Forget { port: u32 },
    Change { port: u32, vlans: usize },
}

fn vlans(n: usize) -> PortVlans {
    match n {
        0 => PortVlans::Access(vlan(1)),
        1 => PortVlans::Access(vlan(2)),
        2 => trunk(None, &[1, 2]),
        3 => trunk(Some(1), &[2, 3]),
        _ => PortVlans::Trunk { native: Some(vlan(2)), allowed: VlanSet::all() },
    }
}

fn address(n: u8) -> [u8; 6] {
    match n {
        0 => BROADCAST,
        1 => [1, 0, 0x5e, 1, 2, 3],
        2 => [0x01, 0x80, 0xc2, 0, 0, 2],
        n => mac(n),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tci = prop_oneof![
        3 => Just(None),
        4 => (prop_oneof![Just(0u16), Just(0x6000)], 0u16..4).prop_map(|(pcp, vlan)| Some(pcp | vlan)),
    ];
    let send = (1u32..5, 3u8..8, 0u8..9, tci).prop_map(|(port, src, dst, tci)| Step::Send { port, src, dst, tci });
    let step = prop_oneof![
        40 => send,
        4 => prop_oneof![Just(1u64), Just(900), Just(5_000), Just(12_000), Just(31_000)].prop_map(|ms| Step::Pass { ms }),
        1 => (1u32..5).prop_map(|port| Step::Forget { port }),
        1 => (1u32..5, 0usize..5).prop_map(|(port, vlans)| Step::Change { port, vlans }),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened before, a frame goes where the list of rules says, with flows, caches and ages in between.
    #[test]
    fn the_bridge_is_its_model(kinds in prop::collection::vec(0usize..5, 4), steps in steps(), flood_rate in prop_oneof![Just(0u32), Just(1_000_000_000)]) {
        let config = BridgeConfig {
            aging_ns: 30 * SECOND,
            stations_max: 7,
            stations_per_port_max: 4,
            flood_rate,
            flood_burst: 1_000_000,
            flow_idle_ns: 10 * SECOND,
        };
        let ports: Vec<PortVlans> = kinds.into_iter().map(vlans).collect();
        let mut switch = Switch::new(config.clone(), &ports);
        let mut model = Model { config, ports, stations: BTreeMap::new(), swept_at: Nanos(0) };
        for step in steps {
            match step {
                Step::Send { port, src, dst, tci } => {
                    let (src, dst) = (address(src), address(dst));
                    let expected = model.send(port, src, dst, tci, switch.now);
                    prop_assert_eq!(switch.send(port, &frame(src, dst, tci)), expected);
                }
                Step::Pass { ms } => {
                    switch.pass(ms * MS);
                    model.upkeep(switch.now);
                }
                Step::Forget { port } => {
                    switch.bridge.forget(Some(port));
                    model.stations.retain(|_, (at, _)| *at != port);
                }
                Step::Change { port, vlans: kind } => {
                    switch.bridge.set_port(port, vlans(kind)).unwrap();
                    model.ports[port as usize - 1] = vlans(kind);
                    model.stations.retain(|_, (at, _)| *at != port);
                }
            }
            let known: Vec<StationInfo> = switch.bridge.stations();
            let info = |(&(vlan, mac), &(port, seen)): (&(VlanId, [u8; 6]), &(u32, Nanos))| StationInfo {
                domain: Domain::Vlan(vlan),
                mac,
                place: Place::Port(port),
                seen,
            };
            let expected: Vec<StationInfo> = model.stations.iter().map(info).collect();
            prop_assert_eq!(known, expected);
        }
        drop(switch.worker);
        prop_assert_eq!(switch.datapath.pool().available(), switch.datapath.pool().capacity());
    }
}
