//! Tunnels, packets that cannot be sent through them, and packets that the control side sends.

use std::ffi::CStr;
use std::mem::{MaybeUninit, zeroed};
use std::net::Ipv4Addr;
use std::ptr::null;
use std::time::Duration;

use wye_capi::datapath::*;
use wye_capi::flow::*;
use wye_capi::inject::*;
use wye_capi::packet::*;
use wye_capi::stats::*;
use wye_capi::status::*;
use wye_capi::tunnel::*;
use wye_capi::upcall::*;
use wye_capi::worker::*;

use crate::namespace;
use crate::ports::{open, poll};
use crate::switch::*;

/// The source port of all tunnels here.
const SOURCE_PORT: u16 = 50_000;

/// The library's own action `encap`.
fn encap(tunnel: u32) -> Vec<u8> {
    attribute(wye::flow::attr::action::ENCAP, &tunnel.to_ne_bytes())
}

/// Outer headers of VXLAN with this identifier from 192.0.2.1 to 192.0.2.2, as `header` has them.
fn header(vni: u32) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 8, 0];
    bytes.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    bytes.extend(Ipv4Addr::new(192, 0, 2, 1).octets());
    bytes.extend(Ipv4Addr::new(192, 0, 2, 2).octets());
    bytes.extend([0, 0, 0x12, 0xb5, 0, 0, 0, 0]);
    bytes.extend([8, 0, 0, 0]);
    bytes.extend((vni << 8).to_be_bytes());
    bytes
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// `header` filled in, and `inner` behind it.
fn outer(header: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut bytes = [header, inner].concat();
    let total = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    let sum = internet_checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[34..36].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    bytes[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    bytes
}

/// A VXLAN tunnel with this header to port 2.
fn vxlan(header: &[u8]) -> wye_tunnel_config {
    // SAFETY: integers and pointers.
    let mut config: wye_tunnel_config = unsafe { zeroed() };
    config.size = size_of::<wye_tunnel_config>() as u32;
    config.kind = WYE_TUNNEL_VXLAN;
    (config.header, config.header_len) = (header.as_ptr().cast(), header.len() as u32);
    config.out_port = 2;
    (config.source_port_first, config.source_port_last) = (SOURCE_PORT, SOURCE_PORT);
    config
}

pub fn set(world: Test, number: u32, config: &wye_tunnel_config) -> wye_status {
    // SAFETY: what the config points to is valid.
    unsafe { wye_tunnel_set(world.dp(), number, config, None) }
}

/// The detail of a call that fails.
pub fn detail(call: impl FnOnce(Option<&mut MaybeUninit<*mut wye_error>>) -> wye_status) -> String {
    let mut error = MaybeUninit::uninit();
    assert!(call(Some(&mut error)) < 0, "it did not fail");
    // SAFETY: written, since the call failed.
    unsafe {
        let error = error.assume_init();
        let text = CStr::from_ptr(wye_error_message(error.as_ref())).to_str().unwrap().to_owned();
        wye_error_free(error);
        text
    }
}

/// A flow in words.
fn put_text(world: Test, matched: &CStr, actions: &CStr) {
    // SAFETY: integers and pointers, which are valid.
    unsafe {
        let mut put: wye_flow_request = zeroed();
        put.size = size_of::<wye_flow_request>() as u32;
        put.flags = WYE_PUT_CREATE;
        (put.match_text, put.actions_text) = (matched.as_ptr(), actions.as_ptr());
        assert_eq!(wye_flow_put(world.dp(), &put, None, None), WYE_OK);
    }
}

/// A packet of these bytes.
pub fn packet(in_port: u32, bytes: &[u8]) -> Box<Owned> {
    let mut packet = Owned::new(in_port);
    packet.bytes[64..64 + bytes.len()].copy_from_slice(bytes);
    packet.descriptor.len = bytes.len() as u32;
    packet
}

fn execute(world: Test, bytes: &[u8], actions: &[u8]) -> Box<Owned> {
    let mut packet = packet(1, bytes);
    assert_eq!(world.execute(&mut packet, actions, 0), WYE_OK);
    packet
}

fn is_dropped(packet: &Owned, reason: wye_drop) -> bool {
    packet.is(wye_fate::WYE_FATE_DROPPED) && packet.descriptor.reason == reason as u16
}

/// Ports and bytes of what was sent since.
fn sent(mut world: Test) -> Vec<(u32, Vec<u8>)> {
    world.sent.drain(..).map(|s| (s.port, s.bytes)).collect()
}

#[test]
fn encap_puts_the_headers_of_a_tunnel_in_front_and_tnl_pop_takes_them_off() {
    let world = Fixture::new();
    let header = header(7);
    assert_eq!(set(*world, 5, &vxlan(&header)), WYE_OK);
    execute(*world, &frame(), &encap(5));
    let on_the_wire = outer(&header, &frame());
    assert_eq!(sent(*world), [(2, on_the_wire.clone())]);

    put_text(*world, c"in_port(2)", c"tnl_pop(5)");
    put_text(*world, c"tunnel(tun_id=0x7,src=192.0.2.1,dst=192.0.2.2),in_port(5)", c"3");
    assert_eq!(world.process(&mut [packet(2, &on_the_wire)]), WYE_OK);
    assert_eq!(sent(*world), [(3, frame().to_vec())]);
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"recirculated")), (2, 2, 1));

    assert_eq!(wye_tunnel_del(world.dp(), 5, None), WYE_OK);
    assert_eq!(wye_tunnel_del(world.dp(), 5, None), WYE_E_NOT_FOUND);
    let gone = execute(*world, &frame(), &encap(5));
    assert!(is_dropped(&gone, wye_drop::WYE_DROP_UNKNOWN_TUNNEL));
    assert_eq!(world.process(&mut [packet(2, &on_the_wire)]), WYE_OK);
    assert_eq!((world.packets_in(), world.stat(c"dropped.unknown_tunnel")), (4, 2));
}

#[test]
fn tnl_push_brings_its_own_headers() {
    let world = Fixture::new();
    let header = header(9);
    let mut array = header.clone();
    array.resize(512, 0);
    let words = [77, 2, header.len() as u32, WYE_TUNNEL_VXLAN].map(u32::to_ne_bytes).concat();
    let push = attribute(wye::flow::attr::action::TUNNEL_PUSH, &[words, array].concat());
    execute(*world, &frame(), &[push, output(2)].concat());
    let (port, mut bytes) = sent(*world).remove(0);
    // The usual range, and which of it is a matter of the hash.
    let source_port = u16::from_be_bytes([bytes[34], bytes[35]]);
    assert!((32_768..=60_999).contains(&source_port));
    bytes[34..36].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    assert_eq!((port, bytes), (2, outer(&header, &frame())));
}

/// An Ethernet frame around IPv4 with this TOS, fragment field and TTL.
fn ipv4_frame(tos: u8, fragment: u16, ttl: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    bytes.extend([0x45, tos, 0, 46, 0, 0]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([ttl, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = internet_checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes.extend([0, 1, 0, 2, 0, 26, 0, 0]);
    bytes.resize(60, 0);
    bytes
}

#[test]
fn what_the_outer_header_inherits_is_as_configured() {
    const DSCP: u32 = WYE_TUNNEL_INHERIT_DSCP;
    let world = Fixture::new();
    let inner = ipv4_frame(0xb9, 0, 9);
    // Flags, what is inherited, and the outer header's TOS, fragment field and TTL.
    let cases = [
        (0, 0, (0, 0x4000, 64)),
        (0, DSCP, (0xb8, 0x4000, 64)),
        (WYE_TUNNEL_WITH_ECN, 0, (0x01, 0x4000, 64)),
        (WYE_TUNNEL_WITH_ECN, DSCP, (0xb9, 0x4000, 64)),
        (0, WYE_TUNNEL_INHERIT_TTL, (0, 0x4000, 9)),
        (0, WYE_TUNNEL_INHERIT_DF, (0, 0, 64)),
    ];
    for (flags, inherit, (tos, fragment, ttl)) in cases {
        let mut header = header(7);
        let config = wye_tunnel_config { flags, inherit, ..vxlan(&header) };
        assert_eq!(set(*world, 5, &config), WYE_OK);
        execute(*world, &inner, &encap(5));
        (header[15], header[22]) = (tos, ttl);
        header[20..22].copy_from_slice(&u16::to_be_bytes(fragment));
        assert_eq!(sent(*world), [(2, outer(&header, &inner))], "flags {flags}, inherit {inherit}");
    }
    // And back (RFC 6040 §4.2): the outer header's "congestion experienced" goes in.
    let mut marked = header(7);
    marked[15] = 3;
    put_text(*world, c"in_port(2)", c"tnl_pop(5)");
    put_text(*world, c"in_port(5)", c"3");
    for (flags, tos) in [(WYE_TUNNEL_WITH_ECN, 0xbb), (0, 0xb9)] {
        assert_eq!(set(*world, 5, &wye_tunnel_config { flags, ..vxlan(&marked) }), WYE_OK);
        assert_eq!(world.process(&mut [packet(2, &outer(&marked, &inner))]), WYE_OK);
        assert_eq!(sent(*world), [(3, ipv4_frame(tos, 0, 9))]);
    }
}

#[test]
fn flags_say_which_packets_are_opened() {
    let world = Fixture::new();
    put_text(*world, c"in_port(2)", c"tnl_pop(5)");
    put_text(*world, c"in_port(5)", c"3");
    // SAFETY: integers and pointers.
    let mut config: wye_tunnel_config = unsafe { zeroed() };
    config.size = size_of::<wye_tunnel_config>() as u32;
    let fate = |config: &wye_tunnel_config, bytes: &[u8]| {
        assert_eq!(set(*world, 5, config), WYE_OK);
        let mut packets = [packet(2, bytes)];
        assert_eq!(world.process(&mut packets), WYE_OK);
        match sent(*world).pop() {
            Some(sent) => {
                assert_eq!(sent, (3, frame().to_vec()));
                None
            }
            None => Some(packets[0].descriptor.reason),
        }
    };
    let header_of = |own: [u8; 8]| [&header(0)[..42], &own[..]].concat();
    let refused = Some(wye_drop::WYE_DROP_TUNNEL_HEADER as u16);

    // A group policy of 3, and a next protocol of Ethernet.
    let policy = outer(&header_of([0x88, 0, 0, 3, 0, 0, 7, 0]), &frame());
    let next = outer(&header_of([0x0c, 0, 0, 3, 0, 0, 7, 0]), &frame());
    config.kind = WYE_TUNNEL_VXLAN;
    assert_eq!((fate(&config, &policy), fate(&config, &next)), (refused, refused));
    config.flags = WYE_TUNNEL_WITH_GBP;
    assert_eq!((fate(&config, &policy), fate(&config, &next)), (None, refused));
    config.flags = WYE_TUNNEL_WITH_GPE;
    assert_eq!((fate(&config, &policy), fate(&config, &next)), (refused, None));

    // A critical option of class 0x102, type 0x83.
    let mut own = header_of([1, 0x40, 0x65, 0x58, 0, 0, 7, 0]);
    own.extend([1, 2, 0x83, 0]);
    own[36..38].copy_from_slice(&6081u16.to_be_bytes());
    let critical = outer(&own, &frame());
    config.kind = WYE_TUNNEL_GENEVE;
    config.flags = 0;
    assert_eq!(fate(&config, &critical), None);
    config.flags = WYE_TUNNEL_WITH_KNOWN_OPTIONS;
    assert_eq!(fate(&config, &critical), Some(wye_drop::WYE_DROP_TUNNEL_OPTION as u16));
    let known = [(0x102, 0x82), (0x102, 0x83)];
    let known = known.map(|(option_class, option_type)| wye_tunnel_option { option_class, option_type, reserved: 0 });
    (config.known_options, config.n_known_options) = (known.as_ptr(), 1);
    assert_eq!(fate(&config, &critical), Some(wye_drop::WYE_DROP_TUNNEL_OPTION as u16));
    config.n_known_options = 2;
    assert_eq!(fate(&config, &critical), None);
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"dropped.tunnel_option")), (10, 4, 2));
}

#[test]
fn every_bad_field_is_refused_by_name_and_the_old_tunnel_stays() {
    let world = Fixture::new();
    let header = header(7);
    let good = vxlan(&header);
    assert_eq!(set(*world, 5, &good), WYE_OK);
    let known = wye_tunnel_option { option_class: 1, option_type: 2, reserved: 1 };
    let geneve = wye_tunnel_config { kind: WYE_TUNNEL_GENEVE, flags: WYE_TUNNEL_WITH_KNOWN_OPTIONS, ..good };
    let cases = [
        (
            wye_tunnel_config { size: 8, ..good },
            "wye_tunnel_config.size is 8: set it to sizeof(struct wye_tunnel_config)",
        ),
        (wye_tunnel_config { kind: 0, ..good }, "kind: 0 is not known"),
        (wye_tunnel_config { kind: 105, ..good }, "kind: 105 is not known"),
        (wye_tunnel_config { flags: 1 << 31, ..good }, "flags: 0x80000000 is not known"),
        (
            wye_tunnel_config { flags: WYE_TUNNEL_WITH_REDUCED, ..good },
            "flags: WYE_TUNNEL_WITH_REDUCED is for SRv6, not for vxlan",
        ),
        (
            wye_tunnel_config { flags: WYE_TUNNEL_WITH_GBP, ..geneve },
            "flags: WYE_TUNNEL_WITH_GBP is for VXLAN, not for geneve",
        ),
        (
            wye_tunnel_config { flags: WYE_TUNNEL_WITH_CHECKSUM6, kind: WYE_TUNNEL_GRE, ..good },
            "flags: WYE_TUNNEL_WITH_CHECKSUM6 is for VXLAN, Geneve and GTP-U, not for gre",
        ),
        (
            wye_tunnel_config { n_known_options: 1, ..good },
            "n_known_options: must be 0 without WYE_TUNNEL_WITH_KNOWN_OPTIONS",
        ),
        (wye_tunnel_config { n_known_options: 257, ..geneve }, "n_known_options: must be at most 256"),
        (wye_tunnel_config { n_known_options: 1, ..geneve }, "known_options is NULL or misaligned"),
        (
            wye_tunnel_config { n_known_options: 1, known_options: &known, ..geneve },
            "known_options: reserved must be 0",
        ),
        (wye_tunnel_config { header: null(), ..good }, "header is NULL, its length 50"),
        (
            wye_tunnel_config { header_len: 49, ..good },
            "header: the outer headers lack the tunnel's own header, and nothing behind it",
        ),
        (wye_tunnel_config { header_len: 0, ..good }, "header: is needed to send to out_port 2"),
        (
            wye_tunnel_config { kind: WYE_TUNNEL_GRE, ..good },
            "header: the outer headers lack the protocol of the tunnel in the IP header",
        ),
        (wye_tunnel_config { mtu: 36, ..good }, "mtu: 36 leaves no room behind 36 bytes of outer headers"),
        (wye_tunnel_config { source_port_first: 0, ..good }, "source_port_first: must not be 0"),
        (
            wye_tunnel_config { source_port_last: 49_999, ..good },
            "source_port_last: 49999 is below source_port_first, 50000",
        ),
        (wye_tunnel_config { inherit: 8, ..good }, "inherit: 0x8 is not known"),
        (wye_tunnel_config { flow_label: 3, ..good }, "flow_label: 3 is not known"),
        // Also where the way is not known yet.
        (
            wye_tunnel_config { header_len: 49, out_port: WYE_PORT_NONE, ..good },
            "header: the outer headers lack the tunnel's own header, and nothing behind it",
        ),
        (wye_tunnel_config { header_len: 0, out_port: WYE_PORT_NONE, inherit: 8, ..good }, "inherit: 0x8 is not known"),
    ];
    for (config, what) in &cases {
        for number in [5, 6] {
            // SAFETY: what the config points to is valid, or NULL, which is what is tested.
            assert_eq!(detail(|error| unsafe { wye_tunnel_set(world.dp(), number, config, error) }), *what);
        }
        assert_eq!(wye_tunnel_del(world.dp(), 6, None), WYE_E_NOT_FOUND, "{what}");
        execute(*world, &frame(), &encap(5));
        assert_eq!(sent(*world), [(2, outer(&header, &frame()))], "{what}");
    }
    // SAFETY: the config is valid.
    let none = detail(|error| unsafe { wye_tunnel_set(world.dp(), WYE_PORT_NONE, &good, error) });
    assert_eq!(none, "number: WYE_PORT_NONE is no tunnel");
    assert_eq!(world.packets_in(), cases.len() as u64);
}

/// Answers with `encap(5)` and notes what the upcalls said.
fn encap_again(mut world: Test, on_upcall: impl Fn(Test, &wye_upcall) + 'static) {
    world.answer_with(encap(5), 0);
    world.on_upcall = Some(Box::new(on_upcall));
}

#[test]
fn a_packet_without_a_way_goes_up_and_its_answer_may_set_the_way() {
    let world = Fixture::new();
    let header = header(7);
    for unresolved in [
        wye_tunnel_config { out_port: WYE_PORT_NONE, ..vxlan(&header) },
        wye_tunnel_config { out_port: 0, header_len: 0, ..vxlan(&header) },
    ] {
        assert_eq!(set(*world, 5, &unresolved), WYE_OK);
        let way = header.clone();
        encap_again(*world, move |world, upcall| {
            let said = (upcall.kind, upcall.tunnel, upcall.obstacle, upcall.inner_max, upcall.reserved2);
            assert_eq!(said, (WYE_UPCALL_UNDELIVERABLE, 5, WYE_OBSTACLE_UNRESOLVED, 0, [0; 3]));
            assert!(upcall.action.is_null() && upcall.action_len == 0);
            // SAFETY: the packet is valid.
            let (len, in_port) = unsafe { ((*upcall.packet).len, (*upcall.packet).in_port) };
            assert_eq!((len, in_port), (60, 1));
            assert_eq!(set(world, 5, &vxlan(&way)), WYE_OK);
        });
        execute(*world, &frame(), &encap(5));
        assert_eq!(sent(*world), [(2, outer(&header, &frame()))]);
    }
    assert_eq!((world.packets_in(), world.stat(c"transmitted"), world.stat(c"upcall")), (2, 2, 0));
    // Key of the inner packet: its Ethernet header.
    assert!(world.upcalls.len() == 2 && world.upcalls[0].1.ends_with(&key(1)[16..]));
}

#[test]
fn a_packet_that_is_too_long_goes_up_with_the_length_that_is_not() {
    let world = Fixture::new();
    let header = header(7);
    // 36 bytes of headers behind the outer Ethernet header, and 60 of the packet.
    assert_eq!(set(*world, 5, &wye_tunnel_config { mtu: 95, ..vxlan(&header) }), WYE_OK);
    encap_again(*world, |mut world, upcall| {
        let said = (upcall.kind, upcall.tunnel, upcall.obstacle, upcall.inner_max);
        assert_eq!(said, (WYE_UPCALL_UNDELIVERABLE, 5, WYE_OBSTACLE_TOO_BIG, 59));
        world.answer.verdict = WYE_VERDICT_DONE;
    });
    let done = execute(*world, &frame(), &encap(5));
    assert!(done.is(wye_fate::WYE_FATE_UPCALL));
    // What is as long as can be passes, and so it does without a limit.
    execute(*world, &frame()[..59], &encap(5));
    assert_eq!(set(*world, 5, &vxlan(&header)), WYE_OK);
    execute(*world, &frame(), &encap(5));
    assert_eq!(sent(*world), [(2, outer(&header, &frame()[..59])), (2, outer(&header, &frame()))]);
    assert_eq!((world.packets_in(), world.upcalls.len(), world.stat(c"upcall")), (3, 1, 1));
}

#[test]
fn an_undeliverable_packet_that_nobody_answers_is_dropped_for_its_own_reason() {
    let (unresolved, too_big) = (wye_drop::WYE_DROP_UNRESOLVED, wye_drop::WYE_DROP_TOO_BIG);
    for ops in [ops(), wye_worker_ops { upcall: None, ..ops() }] {
        let world = Fixture::with(ops);
        let header = header(7);
        assert_eq!(set(*world, 5, &wye_tunnel_config { out_port: WYE_PORT_NONE, ..vxlan(&header) }), WYE_OK);
        assert_eq!(set(*world, 6, &wye_tunnel_config { mtu: 95, ..vxlan(&header) }), WYE_OK);
        assert!(is_dropped(&execute(*world, &frame(), &encap(5)), unresolved));
        assert!(is_dropped(&execute(*world, &frame(), &encap(6)), too_big));
        // A copy's end is in no sum of packets.
        execute(*world, &frame(), &[encap(5), output(2)].concat());
        assert_eq!(sent(*world), [(2, frame().to_vec())]);
        let mut counters = MaybeUninit::uninit();
        assert_eq!(wye_worker_counters(world.w(), Some(&mut counters)), WYE_OK);
        // SAFETY: written on success.
        let drops = unsafe { counters.assume_init() }.drops;
        let is_asked = ops.upcall.is_some();
        assert_eq!((drops[unresolved as usize], drops[too_big as usize]), (2 - u64::from(is_asked), 1));
        assert_eq!((world.stat(c"dropped.unresolved"), world.stat(c"dropped.too_big")), (1, 1));
        assert_eq!((world.packets_in(), world.stat(c"upcall"), wye_upcalls_waiting(world.dp())), (3, 0, 0));
        assert_eq!(world.upcalls.len(), if is_asked { 3 } else { 0 });
        assert_eq!(world.released.len(), 2);
    }
}

#[test]
fn an_answer_that_never_finds_a_way_comes_to_an_end() {
    let world = Fixture::new();
    let header = header(7);
    assert_eq!(set(*world, 5, &wye_tunnel_config { out_port: WYE_PORT_NONE, ..vxlan(&header) }), WYE_OK);
    encap_again(*world, |_, _| {});
    let packet = execute(*world, &frame(), &encap(5));
    assert!(is_dropped(&packet, wye_drop::WYE_DROP_RECIRCULATION_LIMIT));
    assert_eq!((world.packets_in(), world.upcalls.len()), (1, 9));
}

fn inject(world: Test, bytes: &[u8], actions: &[u8]) -> wye_status {
    // SAFETY: both are valid.
    unsafe {
        wye_datapath_inject(
            world.dp(),
            bytes.as_ptr().cast(),
            bytes.len(),
            1,
            actions.as_ptr().cast(),
            actions.len(),
            None,
        )
    }
}

#[test]
fn an_injected_packet_is_carried_by_the_next_call_even_of_no_packets() {
    let world = Fixture::new();
    let header = header(7);
    assert_eq!(set(*world, 5, &vxlan(&header)), WYE_OK);
    assert_eq!(inject(*world, &frame(), &encap(5)), WYE_OK);
    assert_eq!((world.sent.len(), wye_worker_wait(world.w(), 1, None)), (0, WYE_OK));
    assert_eq!(world.process(&mut []), WYE_OK);
    assert_eq!(sent(*world), [(2, outer(&header, &frame()))]);
    // Before what the call brings, by polling, and to an upcall.
    assert_eq!(inject(*world, &frame(), &output(3)), WYE_OK);
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!(sent(*world), [(3, frame().to_vec()), (2, frame().to_vec())]);
    assert_eq!(inject(*world, &frame(), &userspace()), WYE_OK);
    world.answer_with(output(3), 0);
    assert_eq!((poll(*world), poll(*world)), (1, 0));
    assert_eq!(sent(*world), [(3, frame().to_vec())]);
    assert_eq!((world.upcalls.len(), world.upcalls[0].0), (1, WYE_UPCALL_ACTION));
    assert_eq!(
        (world.packets_in(), world.released.len(), wye_worker_wait(world.w(), 1, None)),
        (4, 0, WYE_E_NOT_FOUND)
    );
}

#[test]
fn a_packet_that_cannot_be_injected_leaves_nothing_behind() {
    let world = Fixture::new();
    let refusal = |bytes: &[u8], actions: &[u8]| {
        // SAFETY: both are valid.
        detail(|error| unsafe {
            let (at, len) = (bytes.as_ptr().cast(), bytes.len());
            wye_datapath_inject(world.dp(), at, len, 1, actions.as_ptr().cast(), actions.len(), error)
        })
    };
    assert_eq!(refusal(&[], &output(2)), "len: a packet has bytes");
    assert_eq!(refusal(&frame(), &[9; 3]), "actions: list of actions is followed by 3 bytes that are no attribute");
    assert_eq!(inject(*world, &frame(), &attribute(99, &[])), WYE_E_UNSUPPORTED);
    assert_eq!(inject(*world, &[0; 65_537], &output(2)), WYE_E_INVALID);
    assert_eq!(refusal(&[0; 9000], &output(2)), "no packet buffer for 9000 bytes");
    // As many as there are buffers.
    for _ in 0..1024 {
        assert_eq!(inject(*world, &frame(), &output(2)), WYE_OK);
    }
    assert_eq!(inject(*world, &frame(), &output(2)), WYE_E_NO_MEMORY);
    for _ in 0..1024 / 32 {
        assert_eq!(world.process(&mut []), WYE_OK);
    }
    assert_eq!((world.sent.len(), world.packets_in()), (1024, 1024));
    assert_eq!(world.process(&mut []), WYE_OK);
    assert_eq!(world.packets_in(), 1024);

    // SAFETY: a config is integers and pointers, and the datapath is freed once, with what waits.
    unsafe {
        let mut config: wye_datapath_config = zeroed();
        config.size = size_of::<wye_datapath_config>() as u32;
        (config.flows_max, config.pool_buffers, config.upcalls_max) = (16, 64, 2);
        let mut datapath = MaybeUninit::uninit();
        assert_eq!(wye_datapath_new(&config, Some(&mut datapath), None), WYE_OK);
        let datapath = datapath.assume_init();
        let inject = || wye_datapath_inject(datapath.as_ref(), frame().as_ptr().cast(), 60, 1, null(), 0, None);
        assert_eq!([inject(), inject(), inject()], [WYE_OK, WYE_OK, WYE_E_FULL]);
        wye_datapath_free(datapath);
    }
}

#[test]
fn an_injected_packet_wakes_a_worker_that_waits() {
    const LONG: Duration = Duration::from_secs(30);
    let test = "tunnels::an_injected_packet_wakes_a_worker_that_waits";
    namespace::run(test, || {
        let world = Fixture::new();
        if open(*world, 10, c"tap", c"interface=p1") != WYE_OK {
            return namespace::skip(test, "no tap");
        }
        let began = std::time::Instant::now();
        let datapath = world.dp().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                let (bytes, actions) = (frame(), output(3));
                // SAFETY: both are valid.
                let status = unsafe {
                    wye_datapath_inject(
                        Some(datapath),
                        bytes.as_ptr().cast(),
                        bytes.len(),
                        1,
                        actions.as_ptr().cast(),
                        actions.len(),
                        None,
                    )
                };
                assert_eq!(status, WYE_OK);
            });
            // The interface itself may have something to say.
            while world.sent.is_empty() {
                assert_eq!(wye_worker_wait(world.w(), LONG.as_nanos() as u64, None), WYE_OK);
                poll(*world);
            }
        });
        assert!(began.elapsed() < LONG, "nobody woke it");
        assert_eq!(sent(*world), [(3, frame().to_vec())]);
    });
}
