use proptest::prelude::*;

use super::super::super::action::Action;
use super::super::super::arbitrary::tunnel_push;
use super::super::{format_actions, parse_actions};
use super::*;

const NONE: &PortNames<'static> = &PortNames::NONE;
const V4: &str = "eth(dst=02:00:00:00:00:02,src=02:00:00:00:00:01,dl_type=0x0800),\
                  ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=0x4000),";
const V4_GRE: &str = "eth(dst=02:00:00:00:00:02,src=02:00:00:00:00:01,dl_type=0x0800),\
                      ipv4(src=10.0.0.1,dst=10.0.0.2,proto=47,tos=0x3,ttl=64,frag=0x0),";
const V6: &str = "eth(dst=02:00:00:00:00:02,src=02:00:00:00:00:01,dl_type=0x86dd),\
                  ipv6(src=fd00::1,dst=fd00::2,label=0,proto=17,tclass=0x0,hlimit=64),";

fn push(tnl_type: u32, size: usize, headers: &str) -> String {
    format!("tnl_push(tnl_port(6),header(size={size},type={tnl_type},{headers}),out_port(1))")
}

fn parse(text: &str) -> TunnelPush {
    match parse_actions(text, NONE).unwrap_or_else(|error| panic!("{text}\n{error}")).remove(0) {
        Action::TunnelPush(push) => *push,
        other => panic!("{other:?}"),
    }
}

/// Is printed as it was read.
fn stable(tnl_type: u32, size: usize, headers: &str) -> TunnelPush {
    let text = push(tnl_type, size, headers);
    let read = parse(&text);
    assert_eq!(format_actions(&vec![Action::TunnelPush(Box::new(read.clone()))], NONE), text);
    assert_eq!((read.tnl_port, read.out_port, read.tnl_type, read.header.len()), (6, 1, tnl_type, size));
    read
}

proptest! {
    #[test]
    fn headers_survive(push in tunnel_push()) {
        let action = Action::TunnelPush(Box::new(push));
        let text = format_actions(&vec![action.clone()], NONE);
        let read = parse_actions(&text, NONE);
        prop_assert!(read.is_ok(), "{text}\n{}", read.unwrap_err());
        prop_assert_eq!(read.unwrap(), [action], "{}", text);
    }

    #[test]
    fn damaged_headers_are_read_or_refused(
        push in tunnel_push(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[(){}=/,a-f0-9 :.é-]{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = format_actions(&vec![Action::TunnelPush(Box::new(push))], NONE).chars().collect();
        for (at, with) in edits {
            let at = at.index(text.len());
            text.splice(at..=at, with.chars());
            text.push(' ');
        }
        let text: String = text.into_iter().collect();
        match parse_actions(&text, NONE) {
            Err(error) => prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1),
            // What was read after all is printed so that it reads back.
            Ok(actions) => prop_assert_eq!(parse_actions(&format_actions(&actions, NONE), NONE), Ok(actions)),
        }
    }
}

#[test]
fn every_kind_is_written_as_open_vswitch_does() {
    let udp = |port: u16| format!("udp(src=0,dst={port},csum=0x0),");
    stable(4, 50, &format!("{V4}{}vxlan(flags=0x8000000,vni=0x1c8)", udp(4789)));
    stable(4, 50, &format!("{V4}{}vxlan(flags=0xc000003,vni=0x159)", udp(4789)));
    stable(4, 70, &format!("{V6}udp(src=0,dst=4789,csum=0xffff),vxlan(flags=0x8000000,vni=0x0)"));
    stable(5, 50, &format!("{V4}{}geneve(vni=0x1c7)", udp(6081)));
    stable(5, 70, &format!("{V6}{}geneve(oam,vni=0x1c7)", udp(6081)));
    let option = "{class=0xffff,type=0x80,len=4,0xa}";
    stable(5, 58, &format!("{V4}{}geneve(crit,vni=0x1c7,options({option}))", udp(6081)));
    let options = format!("{option}{{class=0x102,type=0,len=0}}{{class=0x102,type=0x7,len=8,0x1000000000}}");
    stable(5, 74, &format!("{V4}{}geneve(oam,crit,vni=0x1c7,options({options}))", udp(6081)));
    stable(3, 38, &format!("{V4_GRE}gre((flags=0x0,proto=0x6558))"));
    stable(3, 42, &format!("{V4_GRE}gre((flags=0x2000,proto=0x6558),key=0x1e241)"));
    stable(3, 50, &format!("{V4_GRE}gre((flags=0xb000,proto=0x800),csum=0x0,key=0x1e241,seq=0x7)"));
    stable(109, 66, &format!("{V6}gre((flags=0xa000,proto=0x6558),csum=0x1,key=0x0)"));
    stable(107, 50, &format!("{V4_GRE}erspan(ver=1,sid=0x7b,idx=0x3)"));
    stable(108, 74, &format!("{V6}erspan(ver=2,sid=0x237,dir=1,hwid=0x7)"));
    stable(110, 50, &format!("{V4}{}gtpu(flags=0x30,msgtype=255,teid=0x7b)", udp(2152)));
    stable(112, 78, &format!("{V6}srv6(segments_left=0,segs(fd00::9))"));
    stable(112, 110, &format!("{V6}srv6(segments_left=2,segs(fd00::7,fd00::8,fd00::9))"));
}

/// The bytes are those of RFC 791, 768 and 7348, with zeros for what is filled in for each packet.
#[test]
fn the_words_stand_for_these_bytes() {
    let vxlan = stable(4, 50, &format!("{V4}udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x1c8)"));
    let expected = [
        &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..],
        &[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
        &[0, 0, 0x12, 0xb5, 0, 0, 0, 0],
        &[8, 0, 0, 0, 0, 1, 0xc8, 0],
    ];
    assert_eq!(vxlan.header, expected.concat());
    // RFC 8754 §2: the first segment to visit is the last of the list.
    let srv6 = stable(112, 94, &format!("{V6}srv6(segments_left=1,segs(fd00::8,fd00::9))")).header;
    assert_eq!(srv6[54..62], [0, 4, 4, 1, 1, 0, 0, 0]);
    assert_eq!((srv6[77], srv6[93]), (9, 8));
    // RFC 8754 §2: it begins with the type of what follows.
    let srv6 = stable(112, 78, &format!("{V6}srv6(segments_left=0,segs(fd00::9),proto=41)")).header;
    assert_eq!(srv6[54..62], [41, 2, 4, 0, 0, 0, 0, 0]);
    // ERSPAN type III: version 2, session, and behind timestamp and group hardware id and direction.
    let erspan = stable(108, 74, &format!("{V6}erspan(ver=2,sid=0x237,dir=1,hwid=0x17)")).header;
    assert_eq!(erspan[54..62], [0x10, 0, 0x22, 0xeb, 0, 0, 0, 0]);
    assert_eq!(erspan[62..], [0x20, 0, 2, 0x37, 0, 0, 0, 0, 0, 0, 0x01, 0x78]);
}

#[test]
fn what_the_words_cannot_say_is_raw() {
    let right = parse(&push(4, 50, &format!("{V4}udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x1c8)")));
    let written = |push: &TunnelPush| {
        let text = format_actions(&vec![Action::TunnelPush(Box::new(push.clone()))], NONE);
        assert_eq!(parse(&text), *push, "{text}");
        text
    };
    // IPv4 options, a length, an identification; the reserved byte behind the VNI; something behind; a header that is cut off.
    for (at, byte) in [(14, 0x46), (17, 1), (19, 1), (38, 8), (49, 1)] {
        let mut push = right.clone();
        push.header[at] = byte;
        assert!(written(&push).contains("header(size=50,type=4,raw(020000000002"), "{at}");
    }
    for len in [0, 13, 14, 33, 41, 49, 51] {
        let mut push = right.clone();
        push.header.resize(len, 0);
        assert!(written(&push).contains(&format!("header(size={len},type=4,raw(")));
    }
    // A type that has no words.
    assert!(written(&TunnelPush { tnl_type: 111, ..right.clone() }).contains("type=111,raw("));
    // Open vSwitch's own reader fills in a checksum of IPv4; that is Wye's word for it.
    let mut push = right.clone();
    push.header[24..26].copy_from_slice(&[0x26, 0xb6]);
    assert!(written(&push).contains("ttl=64,frag=0x4000,csum=0x26b6),udp("));
}

#[test]
fn ports_have_names() {
    let names = ["br0", "vxlan_sys_4789"];
    let number_of = |name: &str| names.iter().position(|n| *n == name).map(|n| n as u32 + 1);
    let name_of = |number: u32| names.get((number as usize).checked_sub(1)?).map(|name| (*name).to_owned());
    let names = &PortNames::new(&number_of, &name_of);
    let vxlan = format!("{V4}udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x1c8)");
    let text = format!(
        "tnl_push(tnl_port(vxlan_sys_4789),header(size=50,type=4,{vxlan}),out_port(br0)),tnl_pop(vxlan_sys_4789),tnl_pop(7)"
    );
    let actions = parse_actions(&text, names).unwrap();
    assert!(matches!(&actions[0], Action::TunnelPush(push) if (push.tnl_port, push.out_port) == (2, 1)));
    assert_eq!(actions[1..], [Action::TunnelPop(2), Action::TunnelPop(7)]);
    assert_eq!(format_actions(&actions, names), text);
    assert!(parse_actions("tnl_pop(vxlan_sys_1)", names).unwrap_err().to_string().contains("a port's number or name"));
}

#[test]
fn errors_name_the_place_and_the_field() {
    let refused = |tnl_type, size, headers: &str, want: &str| {
        let text = push(tnl_type, size, headers);
        let error = parse_actions(&text, NONE).unwrap_err().to_string();
        assert!(error.contains(want), "{text}\n{error}");
    };
    let udp = "udp(src=0,dst=4789,csum=0x0),";
    refused(4, 51, &format!("{V4}{udp}vxlan(flags=0x8000000,vni=0x1)"), "column 34: tnl_push(header): the length of");
    refused(4, 513, "", "column 34: tnl_push(header): the number must not be above 0x200");
    refused(
        4,
        50,
        &format!("{V4}{udp}vxlan(flags=0x8000000,vni=0x1000000)"),
        "vxlan(vni): the number must not be above",
    );
    refused(4, 50, &format!("{V4}{udp}vxlan(flags=0x8000000)"), "vxlan(vni): , is expected (at \")),out_port(1))\")");
    refused(4, 50, &format!("{V4}{udp}geneve(vni=1)"), "tnl_push(vxlan): vxlan is expected");
    refused(4, 50, &format!("{V4}vxlan(flags=0,vni=0)"), "tnl_push(udp): udp is expected");
    refused(7, 50, &format!("{V4}{udp}vxlan(flags=0,vni=0)"), "the type of a tunnel that has a form in words, or raw(");
    let arp = "eth(dst=02:00:00:00:00:02,src=02:00:00:00:00:01,dl_type=0x0806),";
    refused(4, 50, arp, "eth: dl_type=0x0800 or dl_type=0x86dd is expected");
    refused(4, 50, "eth(src=02:00:00:00:00:02)", "eth(dst): dst is expected");
    refused(4, 50, &V4.replace("ttl=64", "ttl=256"), "ipv4(ttl): the number must not be above 0xff");
    refused(4, 50, &V6.replace("label=0", "label=0x100000"), "ipv6(label): the number must not be above 0xfffff");
    let option = format!("{V4}{udp}geneve(vni=1,options({{class=1,type=2,len=4,5/6}}))");
    refused(5, 58, &option, "geneve(options): a value without a mask is expected (at \"/6}))");
    let many = format!("{V4}{udp}geneve(vni=1,options({}))", "{class=1,type=2,len=124}".repeat(2));
    refused(5, 306, &many, "geneve(options): options of at most 252 bytes is expected");
    refused(3, 42, &format!("{V4_GRE}gre((flags=0x2000,proto=0x6558))"), "gre(key): , is expected");
    refused(107, 50, &format!("{V4_GRE}erspan(ver=3,sid=0,idx=0)"), "ver=1 or ver=2 is expected");
    refused(
        107,
        50,
        &format!("{V4_GRE}erspan(ver=1,sid=0x400,idx=0)"),
        "erspan(sid): the number must not be above 0x3ff",
    );
    refused(112, 94, &format!("{V6}srv6(segments_left=2,segs(fd00::7,fd00::8))"), "one segment more than are left");
    refused(112, 94, &format!("{V6}srv6(segments_left=1,segs(fd00::7,fd00::8),x)"), "srv6: ) is expected");
    refused(112, 78, &format!("{V6}srv6(segments_left=0,segs(fd00::7),proto=256)"), "srv6(proto): the number must not");
    refused(4, 2, "raw(01020)", "tnl_push(raw): up to 512 hexadecimal bytes is expected");
    let text = "tnl_push(tnl_port(x),header(size=0,type=4,raw()),out_port(1))";
    assert!(parse_actions(text, NONE).unwrap_err().to_string().starts_with("column 19: tnl_push(tnl_port): a port's"));
}
