//! Gateways: whose upcalls they answer, what they refuse, and what they leave behind.

use std::ffi::{CStr, CString};
use std::mem::{MaybeUninit, offset_of, zeroed};
use std::ptr::{null, null_mut};

use wye_capi::flow::*;
use wye_capi::gateway::*;
use wye_capi::packet::*;
use wye_capi::stats::*;
use wye_capi::status::*;
use wye_capi::tunnel::*;
use wye_capi::underlay::*;
use wye_capi::vpc::*;
use wye_capi::worker::*;

use crate::switch::*;
use crate::tunnels::{detail, packet, set};

/// The `now_ns` of everything here.
const NOW: u64 = 1_000_000;
const VNI: u32 = 42;
/// The port to the network between the sites.
const WAN: u32 = 2;

fn address(text: &str) -> wye_address {
    let (text, mut address) = (CString::new(text).unwrap(), MaybeUninit::uninit());
    // SAFETY: the text ends with a NUL, the address is written on success.
    unsafe {
        assert_eq!(wye_address_from_text(text.as_ptr(), Some(&mut address), None), WYE_OK);
        address.assume_init()
    }
}

/// A struct that is zero but for its size.
fn sized<T>(set: impl FnOnce(&mut T, u32)) -> T {
    // SAFETY: used for structs of integers and pointers.
    let mut value: T = unsafe { zeroed() };
    set(&mut value, size_of::<T>() as u32);
    value
}

fn interface(port: u32, mac: u8, addresses: &[wye_address]) -> wye_interface {
    sized(|c: &mut wye_interface, size| {
        (c.size, c.port, c.mac) = (size, port, [2, 0, 0, 0, 0, mac]);
        (c.addresses, c.n_addresses) = (addresses.as_ptr(), addresses.len() as u32);
    })
}

fn vpc(listener: u32) -> wye_vpc_config {
    sized(|c: &mut wye_vpc_config, size| (c.size, c.vni, c.listener) = (size, VNI, listener))
}

/// A gateway, freed before its datapath.
struct Gateway(*mut wye_gateway);

impl Drop for Gateway {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { wye_gateway_free(self.0) }
    }
}

impl Gateway {
    fn new(world: Test) -> Gateway {
        let mut gateway = MaybeUninit::uninit();
        // SAFETY: written on success.
        unsafe {
            assert_eq!(wye_gateway_new(world.dp(), null(), Some(&mut gateway), None), WYE_OK);
            Gateway(gateway.assume_init())
        }
    }

    /// With an interface, a listener, and a VPC of port 1 with one other end.
    fn site(world: Test, local: &str, mac: u8, remote: &str) -> Gateway {
        let gateway = Gateway::new(world);
        let addresses = [address(local)];
        // SAFETY: all pointers are valid.
        unsafe {
            assert_eq!(wye_gateway_interface_set(gateway.at(), &interface(WAN, mac, &addresses), NOW, None), WYE_OK);
            let listener = gateway.listen();
            assert_eq!(wye_gateway_vpc_add(gateway.at(), &vpc(listener), None), WYE_OK);
        }
        assert_eq!(wye_gateway_vpc_port_add(gateway.at(), VNI, 1, 0, None), WYE_OK);
        assert_eq!(wye_gateway_vpc_remote_add(gateway.at(), VNI, Some(&address(remote)), NOW, None), WYE_OK);
        gateway
    }

    fn at(&self) -> Option<&wye_gateway> {
        // SAFETY: freed by `Drop` only.
        unsafe { self.0.as_ref() }
    }

    fn listen(&self) -> u32 {
        let mut listener = MaybeUninit::uninit();
        assert_eq!(wye_gateway_listen(self.at(), WYE_TUNNEL_VXLAN, 0, 0, Some(&mut listener), None), WYE_OK);
        // SAFETY: written on success.
        unsafe { listener.assume_init() }
    }

    fn stat(&self, name: &CStr) -> u64 {
        let (mut stats, mut value) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: written on success.
        unsafe {
            assert_eq!(wye_gateway_stats(self.at(), Some(&mut stats), None), WYE_OK);
            let stats = stats.assume_init();
            assert_eq!(wye_stats_get(stats.as_ref(), name.as_ptr(), Some(&mut value)), WYE_OK);
            wye_stats_free(stats);
            value.assume_init()
        }
    }

    fn set_port(&self, port: u32, vlan: u16, vlans: &[u16]) -> wye_status {
        // SAFETY: the slice is valid.
        unsafe { wye_gateway_port_set(self.at(), port, vlan, vlans.as_ptr(), vlans.len(), None) }
    }
}

/// A frame of `len` bytes of the local experimental type.
fn frame_of(dst: [u8; 6], src: u8) -> Vec<u8> {
    let mut frame = [&dst[..], &[2, 0, 0, 0, 1, src], &[0x88, 0xb5]].concat();
    frame.resize(60, 0x55);
    frame
}

fn receive(world: Test, port: u32, bytes: &[u8]) -> Box<Owned> {
    let mut packets = [packet(port, bytes)];
    assert_eq!(world.process(&mut packets), WYE_OK);
    let [packet] = packets;
    packet
}

/// What a site sends by itself and has sent: port and frame.
fn taken(mut world: Test) -> Vec<(u32, Vec<u8>)> {
    assert_eq!(wye_worker_poll(world.w(), NOW, None), WYE_OK);
    world.sent.drain(..).map(|seen| (seen.port, seen.bytes)).collect()
}

/// Carries frames between two sites until none is under way; what hosts got: site, port, frame.
fn settle(sites: [Test; 2]) -> Vec<(usize, u32, Vec<u8>)> {
    let mut got = Vec::new();
    for _ in 0..100 {
        let sent = sites.map(taken);
        if sent.iter().all(Vec::is_empty) {
            return got;
        }
        for (site, sent) in sent.into_iter().enumerate() {
            for (port, frame) in sent {
                if port == WAN {
                    receive(sites[1 - site], WAN, &frame);
                } else {
                    got.push((site, port, frame));
                }
            }
        }
    }
    panic!("frames go round for ever");
}

#[test]
fn a_frame_waits_for_the_way_and_crosses_to_the_other_site() {
    let (left, right) = (Fixture::new(), Fixture::new());
    let a = Gateway::site(*left, "192.0.2.1/24", 0xa, "192.0.2.2");
    let b = Gateway::site(*right, "192.0.2.2/24", 0xb, "192.0.2.1");
    let call = frame_of([0xff; 6], 1);
    let packet = receive(*left, 1, &call);
    assert!(packet.is(wye_fate::WYE_FATE_UPCALL), "{}", packet.descriptor.fate);
    assert_eq!(settle([*left, *right]), [(1, 1, call)]);
    let answer = frame_of([2, 0, 0, 0, 1, 1], 2);
    receive(*right, 1, &answer);
    assert_eq!(settle([*left, *right]), [(0, 1, answer.clone())]);
    assert_eq!((a.stat(c"waiting.released"), a.stat(c"stations.learned"), b.stat(c"stations.learned")), (1, 2, 2));
    // From now on flows carry it.
    let misses = right.stat(c"misses");
    receive(*right, 1, &answer);
    assert_eq!(settle([*left, *right]), [(0, 1, answer)]);
    assert_eq!(right.stat(c"misses"), misses);
    assert_eq!((left.upcalls.len(), right.upcalls.len()), (0, 0));
    left.packets_in();
    right.packets_in();
}

#[test]
fn upcalls_of_other_ports_and_of_userspace_are_the_programs() {
    let world = Fixture::new();
    let gateway = Gateway::new(*world);
    assert_eq!((gateway.set_port(1, 7, &[]), gateway.set_port(2, 7, &[])), (WYE_OK, WYE_OK));
    receive(*world, 1, &frame());
    assert_eq!((world.upcalls.len(), taken(*world)), (0, vec![(2, frame().to_vec())]));
    receive(*world, 3, &frame());
    assert_eq!(world.upcalls.len(), 1);
    // The program's own flow on a port of the gateway's.
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &userspace());
    receive(*world, 1, &frame());
    assert_eq!((world.upcalls.len(), world.sent.len()), (2, 0));
    // What its flows send round comes back to it.
    world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &attribute(7, &5u32.to_ne_bytes()));
    receive(*world, 2, &frame());
    assert_eq!((world.upcalls.len(), gateway.stat(c"flooded")), (3, 1));
    world.packets_in();
}

#[test]
fn packets_that_the_programs_own_tunnel_cannot_carry_are_the_programs() {
    let world = Fixture::new();
    let _gateway = Gateway::site(*world, "192.0.2.1/24", 0xa, "192.0.2.2");
    let tunnel = sized(|c: &mut wye_tunnel_config, size| (c.size, c.kind) = (size, WYE_TUNNEL_VXLAN));
    assert_eq!(set(*world, 100, &tunnel), WYE_OK);
    world.execute(&mut packet(1, &frame()), &attribute(wye::flow::attr::action::ENCAP, &100u32.to_ne_bytes()), 0);
    assert_eq!(world.upcalls.len(), 1);
    // The gateway's own are out of its reach.
    for number in [1 << 16, 1 << 17] {
        assert_eq!(set(*world, number, &tunnel), WYE_E_EXISTS);
        assert_eq!(wye_tunnel_del(world.dp(), number, None), WYE_E_NOT_FOUND);
    }
}

#[test]
fn a_datapath_has_one_gateway_and_another_after_it() {
    let world = Fixture::new();
    let gateway = Gateway::new(*world);
    let mut second = MaybeUninit::uninit();
    // SAFETY: no config, three times.
    unsafe {
        let refused = detail(|e| wye_gateway_new(world.dp(), null(), Some(&mut second), e));
        assert_eq!(refused, "the datapath has a gateway");
        assert_eq!(wye_gateway_new(world.dp(), null(), Some(&mut second), None), WYE_E_EXISTS);
        drop(gateway);
        assert_eq!(detail(|e| wye_gateway_new(world.dp(), null(), None, e)), "gateway is NULL");
    }
    drop(Gateway::new(*world));
    // SAFETY: legal.
    unsafe { wye_gateway_free(null_mut()) };
}

#[test]
fn a_freed_gateway_leaves_nothing_and_the_program_has_its_ports() {
    let (left, right) = (Fixture::new(), Fixture::new());
    let a = Gateway::site(*left, "192.0.2.1/24", 0xa, "192.0.2.2");
    let _b = Gateway::site(*right, "192.0.2.2/24", 0xb, "192.0.2.1");
    receive(*left, 1, &frame_of([0xff; 6], 1));
    settle([*left, *right]);
    receive(*right, 1, &frame_of([2, 0, 0, 0, 1, 1], 2));
    settle([*left, *right]);
    receive(*left, 1, &frame_of([2, 0, 0, 0, 1, 2], 1));
    settle([*left, *right]);
    left.put(WYE_PUT_CREATE, 1, &key(3), &port_mask(), &output(1));
    assert!(wye_flow_count(left.dp()) > 3);
    drop(a);
    assert_eq!(wye_flow_count(left.dp()), 1);
    for number in [1 << 16, 1 << 17] {
        assert_eq!(wye_tunnel_del(left.dp(), number, None), WYE_E_NOT_FOUND);
    }
    receive(*left, 1, &frame());
    receive(*left, WAN, &frame());
    assert_eq!(left.upcalls.len(), 2);
    // And a new one begins anew.
    let a = Gateway::site(*left, "192.0.2.1/24", 0xa, "192.0.2.2");
    let call = frame_of([0xff; 6], 1);
    receive(*left, 1, &call);
    assert_eq!(settle([*left, *right]), [(1, 1, call)]);
    assert_eq!(a.stat(c"stations.learned"), 1);
}

#[test]
fn datapath_and_worker_may_be_freed_before_the_gateway() {
    let world = Fixture::new();
    let gateway = Gateway::site(*world, "192.0.2.1/24", 0xa, "192.0.2.2");
    receive(*world, 1, &frame_of([0xff; 6], 1));
    drop(world);
    assert_eq!(gateway.stat(c"stations.learned"), 1);
    assert_eq!(gateway.set_port(3, 1, &[]), WYE_OK);
}

#[test]
fn upkeep_ages_stations_and_the_programs_flows() {
    let world = Fixture::new();
    let config = sized(|c: &mut wye_gateway_config, size| (c.size, c.aging_ns) = (size, 1_000_000_000));
    let mut gateway = MaybeUninit::uninit();
    // SAFETY: written on success.
    let gateway = unsafe {
        assert_eq!(wye_gateway_new(world.dp(), &config, Some(&mut gateway), None), WYE_OK);
        Gateway(gateway.assume_init())
    };
    assert_eq!((gateway.set_port(1, 7, &[]), gateway.set_port(2, 7, &[])), (WYE_OK, WYE_OK));
    receive(*world, 1, &frame());
    let put = sized(|put: &mut wye_flow_request, size| {
        (put.size, put.flags, put.ufid) = (size, WYE_PUT_CREATE, [9; 16]);
        (put.match_text, put.actions_text) = (c"in_port(3)".as_ptr(), c"1".as_ptr());
        put.idle_timeout_ns = 1;
    });
    unsafe extern "C-unwind" fn expired(ctx: *mut std::ffi::c_void, ufid: *const u8, _: *const wye_flow_stats) {
        // SAFETY: the context of the call below, an identifier of 16 bytes.
        unsafe { (*ctx.cast::<Vec<[u8; 16]>>()).push(ufid.cast::<[u8; 16]>().read()) };
    }
    let mut gone: Vec<[u8; 16]> = Vec::new();
    // SAFETY: all pointers are valid.
    unsafe {
        assert_eq!(wye_flow_put(world.dp(), &put, None, None), WYE_OK);
        let ctx = (&raw mut gone).cast();
        assert_eq!(wye_gateway_upkeep(gateway.at(), 5_000_000_000, Some(expired), ctx, None), WYE_OK);
        assert_eq!(wye_gateway_upkeep(None, 1, None, null_mut(), None), WYE_E_INVALID);
    }
    assert_eq!((gone, gateway.stat(c"stations.aged"), wye_flow_count(world.dp())), (vec![[9; 16]], 1, 0));
}

#[test]
fn vlans_are_kept_apart_and_tags_put_on() {
    let world = Fixture::new();
    let gateway = Gateway::new(*world);
    assert_eq!(
        (gateway.set_port(1, 7, &[]), gateway.set_port(2, 8, &[]), gateway.set_port(3, 0, &[7, 8])),
        (WYE_OK, WYE_OK, WYE_OK)
    );
    receive(*world, 1, &frame());
    let tagged = [&frame()[..12], &[0x81, 0, 0, 7], &frame()[12..]].concat();
    assert_eq!(taken(*world), [(3, tagged)]);
    assert_eq!(wye_gateway_port_del(gateway.at(), 3, None), WYE_OK);
    assert_eq!(detail(|e| wye_gateway_port_del(gateway.at(), 3, e)), "port: 3 is in no VLAN or VPC");
    let bad = |port, vlan, vlans: &[u16]| {
        // SAFETY: the slice is valid.
        detail(|e| unsafe { wye_gateway_port_set(gateway.at(), port, vlan, vlans.as_ptr(), vlans.len(), e) })
    };
    assert_eq!(bad(1, 0, &[]), "vlan: 0 is not from 1 to 4094");
    assert_eq!(bad(1, 4095, &[5]), "vlan: 4095 is not from 1 to 4094");
    assert_eq!(bad(1, 0, &[5, 4095]), "vlans: 4095 is not from 1 to 4094");
    assert_eq!(bad(70_000, 1, &[]), "port number 70000 is out of range (0 to 65535)");
}

/// What is wrong with an interface.
fn bad_interface(gateway: &Gateway, c: &wye_interface) -> String {
    // SAFETY: the addresses are valid.
    detail(|e| unsafe { wye_gateway_interface_set(gateway.at(), c, NOW, e) })
}

#[test]
fn bad_interfaces_are_refused_by_field() {
    let world = Fixture::new();
    let gateway = Gateway::new(*world);
    let good = [address("192.0.2.1/24")];
    let of = |change: fn(&mut wye_interface)| {
        let mut c = interface(2, 0xa, &good);
        change(&mut c);
        bad_interface(&gateway, &c)
    };
    assert_eq!(of(|c| c.size = 3), "wye_interface.size is 3: set it to sizeof(struct wye_interface)");
    assert_eq!(of(|c| c.port = 1 << 16), "port: 65536 is out of range (0 to 65535)");
    assert_eq!(of(|c| c.mac[0] = 1), "mac: not the address of a host");
    assert_eq!(of(|c| c.vlan = 4095), "vlan: 4095 is not from 1 to 4094");
    assert_eq!(of(|c| c.mtu = 67), "mtu: 67 is less than 68");
    assert_eq!(of(|c| c.n_addresses = 1025), "n_addresses: must be at most 1024");
    assert_eq!(of(|c| c.addresses = null()), "addresses is NULL or misaligned");
    // SAFETY: no interface.
    let none = detail(|e| unsafe { wye_gateway_interface_set(gateway.at(), null(), NOW, e) });
    assert_eq!(none, "wye_interface is NULL");

    let with = |change: fn(&mut wye_address)| {
        let mut addresses = [good[0], address("192.0.2.9/24")];
        change(&mut addresses[1]);
        bad_interface(&gateway, &interface(2, 0xa, &addresses))
    };
    assert_eq!(with(|a| *a = wye_address::default()), "addresses[1]: there is no address");
    assert_eq!(with(|a| a.version = 5), "addresses[1].version: 5 is not 4 or 6");
    assert_eq!(with(|a| a.version = 0), "addresses[1].version: 0 is not 4 or 6");
    assert_eq!(with(|a| a.prefix_len = 33), "addresses[1].prefix_len: 33 is more than 192.0.2.9 has bits");
    assert_eq!(with(|a| a.prefix_len = 0), "addresses[1].prefix_len: must not be 0");
    assert_eq!(with(|a| a.bytes[4] = 1), "addresses[1].bytes: IPv4 has four, zeros are behind them");
    assert_eq!(with(|a| a.reserved[1] = 1), "addresses[1].reserved: must be 0");
    let twice = with(|a| a.bytes[3] = 1);
    assert_eq!(twice, "address: 192.0.2.1 is not the address of a host, or another interface has it");
    // Nothing came of them.
    assert_eq!(detail(|e| wye_gateway_interface_del(gateway.at(), 2, NOW, e)), "interface: there is none");

    // A port is an interface or in a VLAN.
    assert_eq!(gateway.set_port(2, 1, &[]), WYE_OK);
    assert_eq!(of(|_| ()), "port: 2 is in a VLAN or VPC");
    assert_eq!(wye_gateway_port_del(gateway.at(), 2, None), WYE_OK);
    // SAFETY: the addresses are valid.
    assert_eq!(unsafe { wye_gateway_interface_set(gateway.at(), &interface(2, 0xa, &good), NOW, None) }, WYE_OK);
    assert_eq!(gateway.set_port(2, 1, &[]), WYE_E_EXISTS);
    for text in [c"", c"192.0.2.1/33", c"example", c"::1/129", c"192.0.2.1/24 "] {
        let mut address = MaybeUninit::uninit();
        // SAFETY: the text is one.
        assert_eq!(unsafe { wye_address_from_text(text.as_ptr(), Some(&mut address), None) }, WYE_E_INVALID);
    }
}

#[test]
fn bad_routes_neighbours_and_listeners_are_refused_by_field() {
    let world = Fixture::new();
    let gateway = Gateway::site(*world, "192.0.2.1/24", 0xa, "198.51.100.1");
    let route = |change: fn(&mut wye_route)| {
        let mut c = sized(|c: &mut wye_route, size| (c.size, c.port) = (size, WAN));
        (c.prefix, c.via) = (address("198.51.100.0/24"), address("192.0.2.254"));
        change(&mut c);
        c
    };
    let bad = |change| {
        // SAFETY: the route is valid.
        detail(|e| unsafe { wye_gateway_route_add(gateway.at(), &route(change), NOW, e) })
    };
    assert_eq!(bad(|c| c.port = 1), "interface: there is none");
    assert_eq!(bad(|c| c.prefix = address("198.51.100.1/24")), "prefix: bits are set behind its length");
    assert_eq!(bad(|c| c.prefix = wye_address::default()), "prefix: there is no address");
    assert_eq!(bad(|c| c.via = address("224.0.0.1")), "via: not the address of a host");
    assert_eq!(bad(|c| c.via = address("::1")), "via: not an address of the same IP version as the prefix");
    assert_eq!(bad(|c| c.source = address("::1")), "source: not an address of the same IP version as the prefix");
    assert_eq!(bad(|c| c.metric = WYE_METRIC_ANY), "metric: WYE_METRIC_ANY is none");
    // SAFETY: the route is valid.
    let add = || unsafe { wye_gateway_route_add(gateway.at(), &route(|_| ()), NOW, None) };
    let prefix = address("198.51.100.0/24");
    let del = |metric| wye_gateway_route_del(gateway.at(), Some(&prefix), metric, 0, NOW, None);
    assert_eq!(
        (add(), add(), del(1), del(0), del(WYE_METRIC_ANY)),
        (WYE_OK, WYE_E_EXISTS, WYE_E_NOT_FOUND, WYE_OK, WYE_E_NOT_FOUND)
    );

    let other = address("192.0.2.2");
    let neighbour = |port, mac: &[u8; 6]| {
        // SAFETY: six bytes.
        unsafe { wye_gateway_neighbour_set(gateway.at(), port, Some(&other), mac.as_ptr(), NOW, None) }
    };
    let mac = [2, 0, 0, 0, 0, 0xb];
    assert_eq!(
        (neighbour(1, &mac), neighbour(WAN, &[0; 6]), neighbour(WAN, &mac)),
        (WYE_E_NOT_FOUND, WYE_E_INVALID, WYE_OK)
    );
    let forget = || wye_gateway_neighbour_del(gateway.at(), WAN, Some(&other), NOW, None);
    assert_eq!((forget(), forget()), (WYE_OK, WYE_E_NOT_FOUND));

    let listen = |kind, udp_port, flags| {
        let mut number = MaybeUninit::uninit();
        detail(|e| wye_gateway_listen(gateway.at(), kind, udp_port, flags, Some(&mut number), e))
    };
    assert_eq!(listen(WYE_TUNNEL_GRE, 0, 0), "kind: must be WYE_TUNNEL_VXLAN or WYE_TUNNEL_GENEVE");
    assert_eq!(listen(WYE_TUNNEL_VXLAN, 4789, 0), "udp_port: another tunnel is listened for there");
    assert_eq!(listen(WYE_TUNNEL_VXLAN, 1, WYE_TUNNEL_WITH_REDUCED), "flags: 0x10 is not known");
    let of_vxlan = "flags: WYE_TUNNEL_WITH_GBP and WYE_TUNNEL_WITH_GPE are for VXLAN";
    assert_eq!(listen(WYE_TUNNEL_GENEVE, 0, WYE_TUNNEL_WITH_GBP), of_vxlan);
}

#[test]
fn bad_vpcs_are_refused_by_field() {
    let world = Fixture::new();
    let gateway = Gateway::site(*world, "192.0.2.1/24", 0xa, "192.0.2.2");
    let bad = |change: fn(&mut wye_vpc_config)| {
        let mut c = vpc(1 << 16);
        c.vni = 43;
        change(&mut c);
        // SAFETY: the config is valid.
        detail(|e| unsafe { wye_gateway_vpc_add(gateway.at(), &c, e) })
    };
    assert_eq!(bad(|c| c.vni = 1 << 24), "vni: 16777216 has more than 24 bits");
    assert_eq!(bad(|c| c.vni = VNI), "vni: there is one already");
    assert_eq!(bad(|c| c.listener = 0), "listener: there is no 0");
    assert_eq!(bad(|c| c.flags = 32), "flags: 0x20 is not known");
    assert_eq!(bad(|c| c.inherit = 8), "inherit: 0x8 is not known");
    assert_eq!(bad(|c| c.local = address("224.0.0.1")), "local: not the address of a host");
    assert_eq!(bad(|c| c.local.version = 7), "local.version: 7 is not 4 or 6");
    assert_eq!(bad(|c| c.dscp = 64), "dscp: 64 has more than 6 bits");
    assert_eq!(bad(|c| c.reserved[0] = 1), "reserved: must be 0");
    assert_eq!(bad(|c| c.size = 55), "wye_vpc_config.size is 55: set it to sizeof(struct wye_vpc_config)");
    assert_eq!(wye_gateway_vpc_del(gateway.at(), 43, None), WYE_E_NOT_FOUND, "nothing stays behind");

    let port_add = |vni, port, vlan| wye_gateway_vpc_port_add(gateway.at(), vni, port, vlan, None);
    assert_eq!(
        (port_add(43, 3, 0), port_add(VNI, 1, 0), port_add(VNI, 1, 9)),
        (WYE_E_NOT_FOUND, WYE_E_EXISTS, WYE_E_EXISTS)
    );
    assert_eq!(
        (port_add(VNI, WAN, 0), port_add(VNI, 3, 4095), port_add(VNI, 1 << 16, 0)),
        (WYE_E_INVALID, WYE_E_INVALID, WYE_E_INVALID)
    );
    assert_eq!((gateway.set_port(3, 7, &[]), port_add(VNI, 3, 0), port_add(VNI, 3, 9)), (WYE_OK, WYE_E_EXISTS, WYE_OK));
    assert_eq!(gateway.set_port(1, 7, &[]), WYE_E_EXISTS);
    let port_del = |port| wye_gateway_vpc_port_del(gateway.at(), VNI, port, None);
    assert_eq!((port_del(3), port_del(3)), (WYE_OK, WYE_E_NOT_FOUND));

    let remote_add = |ip: &str| wye_gateway_vpc_remote_add(gateway.at(), VNI, Some(&address(ip)), NOW, None);
    assert_eq!(
        (remote_add("192.0.2.2"), remote_add("224.0.0.1"), remote_add("192.0.2.3")),
        (WYE_E_EXISTS, WYE_E_INVALID, WYE_OK)
    );
    let remote_del = |ip: &str| wye_gateway_vpc_remote_del(gateway.at(), VNI, Some(&address(ip)), None);
    assert_eq!((remote_del("192.0.2.3"), remote_del("192.0.2.3")), (WYE_OK, WYE_E_NOT_FOUND));
    assert_eq!(wye_gateway_vpc_remote_add(gateway.at(), VNI, None, NOW, None), WYE_E_INVALID);

    let mac = [2u8, 0, 0, 0, 0, 9];
    let proxy = |ip: &str, mac: *const u8| {
        // SAFETY: NULL or six bytes.
        unsafe { wye_gateway_vpc_proxy_set(gateway.at(), VNI, Some(&address(ip)), mac, None) }
    };
    assert_eq!(
        (proxy("224.0.0.1", mac.as_ptr()), proxy("10.0.0.9", [1u8; 6].as_ptr())),
        (WYE_E_INVALID, WYE_E_INVALID)
    );
    assert_eq!((proxy("10.0.0.9", null()), proxy("10.0.0.9", mac.as_ptr())), (WYE_E_NOT_FOUND, WYE_OK));
    // A host that asks gets the answer that was configured.
    let mut question = frame_of([0xff; 6], 1);
    question[12..42]
        .copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
    taken(*world);
    receive(*world, 1, &question);
    let mut answer = [&[2, 0, 0, 0, 1, 1][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac, &[10, 0, 0, 9]].concat();
    answer.extend([2, 0, 0, 0, 1, 1, 10, 0, 0, 1]);
    answer.resize(60, 0);
    assert_eq!(taken(*world), [(1, answer)]);
    assert_eq!((gateway.stat(c"vpc.answered_for"), proxy("10.0.0.9", null())), (1, WYE_OK));
}

#[test]
fn a_vpc_has_limits_of_its_own_and_an_older_header_has_the_default() {
    let world = Fixture::new();
    let gateway = Gateway::site(*world, "192.0.2.1/24", 0xa, "192.0.2.2");
    let limited = sized(|c: &mut wye_vpc_config, size| {
        (c.size, c.vni, c.listener, c.stations_max) = (size, 43, 1 << 16, 2);
    });
    let mut older = vpc(1 << 16);
    // What it is behind its size is not read.
    (older.size, older.vni, older.stations_max) = (offset_of!(wye_vpc_config, stations_max) as u32, 44, 1);
    for (config, port) in [(limited, 3), (older, 4)] {
        // SAFETY: the config is valid.
        assert_eq!(unsafe { wye_gateway_vpc_add(gateway.at(), &config, None) }, WYE_OK);
        assert_eq!(wye_gateway_vpc_port_add(gateway.at(), config.vni, port, 0, None), WYE_OK);
        for from in 1..=5 {
            receive(*world, port, &frame_of([0xff; 6], from));
        }
    }
    assert_eq!((gateway.stat(c"stations.learned"), gateway.stat(c"stations.refused")), (2 + 5, 3));
}

#[test]
fn a_removed_vpc_takes_its_ports_along() {
    let world = Fixture::new();
    let gateway = Gateway::site(*world, "192.0.2.1/24", 0xa, "192.0.2.2");
    assert_eq!(wye_gateway_vpc_del(gateway.at(), VNI, None), WYE_OK);
    receive(*world, 1, &frame());
    assert_eq!(world.upcalls.len(), 1, "port 1 is the program's again");
    assert_eq!(wye_gateway_interface_del(gateway.at(), WAN, NOW, None), WYE_OK);
    receive(*world, WAN, &frame());
    assert_eq!(world.upcalls.len(), 2);
}

#[test]
fn a_gateway_says_in_words_what_it_knows() {
    let (left, right) = (Fixture::new(), Fixture::new());
    let a = Gateway::site(*left, "192.0.2.1/24", 0xa, "192.0.2.2");
    let _b = Gateway::site(*right, "192.0.2.2/24", 0xb, "192.0.2.1");
    receive(*left, 1, &frame_of([0xff; 6], 1));
    settle([*left, *right]);
    let (mut text, mut len) = ([0u8; 1024], 10);
    let mut write = |len: &mut usize| {
        // SAFETY: the buffer is as long as that, or longer.
        unsafe { wye_gateway_to_text(a.at(), text.as_mut_ptr().cast(), Some(len), None) }
    };
    assert_eq!(write(&mut len), WYE_E_NO_SPACE);
    let needed = len;
    assert_eq!((write(&mut len), len), (WYE_OK, needed - 1));
    let expected = "interface port 2 mac 02:00:00:00:00:0a mtu 1500 192.0.2.1/24\n\
        route 192.0.2.0/24 port 2 source 192.0.2.1 metric 0 table 254\n\
        neighbour 192.0.2.2 port 2 mac 02:00:00:00:00:0b reachable waiting 0\n\
        vpc 42 listener 65536 bindings 0 stations 1 flows 0\n\
        vpc 42 port 1\n\
        vpc 42 remote 192.0.2.2 configured stations 0\n\
        station vpc 42 02:00:00:00:01:01 port 1\n";
    assert_eq!(CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap(), expected);
}
