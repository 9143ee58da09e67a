use proptest::prelude::*;

use super::super::action::{Action, HashAlgorithm, SetField};
use super::super::arbitrary::{actions, differences, flow};
use super::super::key::{FlowMask, VLAN_PRESENT};
use super::super::netlink::DEPTH_MAX;
use super::*;

const NONE: &PortNames<'static> = &PortNames::NONE;

proptest! {
    #[test]
    fn flows_survive((key, mask) in flow()) {
        let text = format_key(&key, &mask, NONE);
        for empty in ["packet_type()", "encap()"] {
            prop_assert!(!text.contains(empty), "{}", text);
        }
        let read = parse_key(&text, NONE);
        prop_assert!(read.is_ok(), "{text}\n{}", read.unwrap_err());
        let (read_key, read_mask) = read.unwrap();
        prop_assert_eq!(differences(&mask.0, &read_mask.0), vec![], "the mask of {}", text);
        let (want, got) = (key.masked(&mask), read_key.masked(&mask));
        prop_assert_eq!(differences(&want, &got), vec![], "the key of {}", text);
        // And what was read is printed the same.
        prop_assert_eq!(format_key(&read_key, &read_mask, NONE), text);
    }

    #[test]
    fn actions_survive(actions in actions()) {
        let text = format_actions(&actions, NONE);
        let read = parse_actions(&text, NONE);
        prop_assert!(read.is_ok(), "{text}\n{}", read.unwrap_err());
        prop_assert_eq!(read.unwrap(), actions, "{}", text);
    }

    #[test]
    fn whole_lines_survive((key, mask) in flow(), actions in actions()) {
        let line = format_flow(&key, &mask, &actions, NONE);
        let read = parse_flow_line(&line, NONE).map_err(|error| TestCaseError::fail(format!("{line}\n{error}")))?;
        prop_assert_eq!((read.1, &read.2), (mask, &actions));
        let terse = format!("{} {}", format_key(&key, &mask, NONE), format_actions(&actions, NONE));
        let again = parse_flow_line(&terse, NONE).map_err(|error| TestCaseError::fail(format!("{terse}\n{error}")))?;
        prop_assert_eq!(again, read);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        let _ = parse_flow_line(&text, NONE);
        let _ = parse_actions(&text, NONE);
        let _ = parse_flow_file(&text, NONE);
    }

    #[test]
    fn damaged_text_is_read_or_refused(
        ((key, mask), actions) in (flow(), actions()),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[(){}=/,a-f0-9 :+é-]{0,3}"), 1..5),
    ) {
        let mut line: Vec<char> = format_flow(&key, &mask, &actions, NONE).chars().collect();
        for (at, with) in edits {
            let at = at.index(line.len());
            line.splice(at..=at, with.chars());
            line.push(' ');
        }
        let line: String = line.into_iter().collect();
        if let Err(error) = parse_flow_line(&line, NONE) {
            prop_assert!(error.column >= 1 && error.column <= line.chars().count() + 1);
        }
    }
}

/// Reads, prints, and expects `printed`.
fn reprint(text: &str, printed: &str) {
    let (key, mask) = parse_key(text, NONE).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(format_key(&key, &mask, NONE), printed);
}

/// A text that prints as itself.
fn stable(text: &str) {
    reprint(text, text);
}

fn refuse(text: &str) -> String {
    parse_flow_line(text, NONE).unwrap_err().to_string()
}

#[test]
fn what_open_vswitch_dumps_is_printed_the_same() {
    stable("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)");
    stable(
        "recirc_id(0),in_port(2),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),\
         eth_type(0x0800),ipv4(src=10.0.0.2,dst=10.0.0.0/255.0.0.0,proto=6,tos=0,ttl=64,frag=no),\
         tcp(src=8,dst=80/0xff),tcp_flags(+syn-ack)",
    );
    stable(
        "recirc_id(0x5),dp_hash(0x1/0xf),skb_priority(0x2),in_port(1),skb_mark(0xff/0xff0),ct_state(+est-rel+trk),\
         ct_zone(0x9),ct_mark(0x1/0x1),ct_label(0x1234567890abcdef10/0xffffffffffffffffff),\
         ct_tuple4(src=10.1.1.1,proto=17,tp_dst=53),packet_type(ns=0,id=0),eth_type(0x0800),\
         ipv4(proto=17,frag=no),udp(dst=53)",
    );
    stable(
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x88a8),vlan(vid=100,pcp=0),encap(eth_type(0x8100),\
         vlan(vid=7/0x7),encap(eth_type(0x0806),arp(sip=10.0.0.1,op=1,sha=02:00:00:00:00:01)))",
    );
    stable(
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x86dd),ipv6(src=fe80::1,dst=ff02::/ffff::,label=0x5,\
         proto=58,tclass=0,hlimit=255,frag=no),icmpv6(type=135,code=0),nd(target=fe80::2,sll=02:00:00:00:00:01)",
    );
    stable("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x8847),mpls(label=100,tc=0,ttl=64,bos=1)");
    stable(
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x8847),\
         mpls(label=100/0xfffff,tc=0/0,ttl=0/0x0,bos=0/1,label=3/0x3,tc=0/0,ttl=0/0x0,bos=1/1)",
    );
    stable(
        "recirc_id(0),tunnel(tun_id=0x5,src=1.1.1.1,dst=2.2.2.2,tos=0,ttl=64,tp_dst=6081,\
         geneve({class=0x102,type=0x80,len=4,0xa}{class=0x103,type=0,len=0}),flags(-df-csum+key)),in_port(3),\
         packet_type(ns=0,id=0)",
    );
    stable(
        "recirc_id(0),tunnel(tun_id=0x0,ipv6_src=fd00::1,ttl=64,vxlan(gbp(id=512,flags=0x8)),flags(csum|key)),in_port(3),\
         packet_type(ns=0,id=0)",
    );
    stable("recirc_id(0),tunnel(src=1.1.1.1,erspan(ver=2,dir=1,hwid=0x7)),in_port(3),packet_type(ns=0,id=0)");
    stable("recirc_id(0),tunnel(src=1.1.1.1,gtpu(flags=0x30,msgtype=255)),in_port(3),packet_type(ns=0,id=0)");
    stable(
        "recirc_id(0),in_port(1),packet_type(ns=1,id=0x894f),eth_type(0x894f),\
         nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x1234,si=255,c1=0x11223344,c2=0x0/0xff000000)",
    );
    stable("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0/0xffff)");
}

#[test]
fn what_people_write_is_read() {
    reprint(
        "in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.0/8)",
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0)",
    );
    reprint("in_port(1)", "recirc_id(0),in_port(1),packet_type(ns=0,id=0)");
    reprint("in_port(0x10),eth()", "recirc_id(0),in_port(16),packet_type(ns=0,id=0)");
    reprint(
        "eth_type(2048) ipv4(proto=17) udp(dst=53/0xff)",
        "recirc_id(0),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(proto=17),udp(dst=53/0xff)",
    );
    reprint(
        "eth_type(0x86dd),ipv6(dst=fd00::/8)",
        "recirc_id(0),packet_type(ns=0,id=0),eth_type(0x86dd),ipv6(dst=fd00::/ff00::)",
    );
    reprint("eth_type(0x8100),encap()", "recirc_id(0),packet_type(ns=0,id=0),eth_type(0x8100),vlan()");
    reprint("eth_type(0x8100),vlan(vid=5)", "recirc_id(0),packet_type(ns=0,id=0),eth_type(0x8100),vlan(vid=5)");
}

#[test]
fn a_line_is_key_and_actions_in_any_of_the_usual_forms() {
    let want = parse_flow_line("in_port(1),eth() actions=2,3", NONE).unwrap();
    assert_eq!(want.2, [Action::Output(2), Action::Output(3)]);
    for line in [
        "in_port(1),eth(), actions:2,3",
        "in_port(1),eth() 2,3",
        "in_port(1) eth(),packets:7, bytes:448, used:0.120s, flags:SFP., dp:ovs, actions:2,3",
        "ufid:00000001-0002-0003-0004-000500000006 in_port(1),eth(), packets:0, bytes:0, used:never, actions:2, 3",
    ] {
        assert_eq!(parse_flow_line(line, NONE).as_ref(), Ok(&want), "{line}");
    }
}

#[test]
fn a_ufid_is_kept() {
    let text = "ufid:f2cb1862-cd0d-4a9b-a2a1-0123456789ab";
    let flow = parse_flow(&format!("{text}, in_port(1), actions:drop"), NONE).unwrap();
    assert_eq!(format_ufid(&flow.ufid.unwrap()), text);
    assert!(refuse("ufid:f2cb1862-cd0d-4a9b-a2a1-012345 in_port(1) 1").contains("a UUID is expected"));
}

#[test]
fn ports_have_names() {
    let number_of = |name: &str| match name {
        "veth-1" => Some(1),
        "drop" => Some(9),
        _ => None,
    };
    let name_of = |number: u32| (number == 1).then(|| "veth-1".to_owned());
    let names = &PortNames::new(&number_of, &name_of);
    let (key, mask, actions) = parse_flow_line("in_port(veth-1), actions:veth-1,2", names).unwrap();
    assert_eq!((key.base.in_port, &actions[..]), (1, &[Action::Output(1), Action::Output(2)][..]));
    let text = format_flow(&key, &mask, &actions, names);
    assert_eq!(text, "recirc_id(0),in_port(veth-1),packet_type(ns=0,id=0), actions:veth-1,2");
    // A name of Wye's own wins over a port's.
    assert_eq!(parse_actions("drop", names), Ok(vec![Action::Drop(0)]));
    assert!(parse_actions("veth-2", names).is_err());
}

#[test]
fn a_file_has_comments_and_its_errors_have_lines() {
    let text = "# two flows\n\nin_port(1) 2 # there\n  in_port(2), actions:1\n";
    let flows = parse_flow_file(text, NONE).unwrap();
    assert_eq!(flows.iter().map(|(line, flow)| (*line, flow.actions.len())).collect::<Vec<_>>(), [(3, 1), (4, 1)]);
    let error = parse_flow_file("in_port(1) 2\nin_port(x) 1", NONE).unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 9: in_port: a port's number or name is expected (at \"x) 1\")");
}

#[test]
fn errors_name_the_column_and_the_field() {
    let starts = |text: &str, want: &str| {
        let error = refuse(text);
        assert!(error.starts_with(want), "{error}");
    };
    starts("in_port(1),eth_type(0x800),ipv4(src=10.0.0) 1", "column 37: ipv4(src): an IPv4 address is expected");
    starts("in_port(1),eth_type(0x800),ipv4(ttl=256) 1", "column 37: ipv4(ttl): the number must not be above 0xff");
    starts("in_port(1),eth_type(0x800),ipv4(sauce=1) 1", "column 33: ipv4: a field of it, or ) is expected");
    starts("in_port(1),eth(src=1:2:3:4:5:6,src=1:2:3:4:5:6) 1", "column 32: eth(src): it is there twice");
    starts("in_port(1),eth_type(0x800),tcp(dst=1) 1", "column 28: OVS_KEY_ATTR_TCP is not expected here");
    starts("in_port(1),in_port(2) 1", "column 12: OVS_KEY_ATTR_IN_PORT is there twice");
    starts("in_port(1),ipv4(ttl=1) 1", "column 12: OVS_KEY_ATTR_IPV4 can be matched only together with");
    starts("in_port(1),tunnel(src=1.1.1.1,ttl=x) 1", "column 35: tunnel(ttl): a number is expected");
    starts("1", "column 1: a field of the flow key, such as in_port(1) is expected");
    starts("in_port(1)", "column 11: an action is expected (at the end)");
    starts("in_port(1), actions:ct(commit)", "column 21: it is not supported");
    starts("in_port(1), actions:2,psample(group=1)", "column 23: it is not supported");
    starts(
        "in_port(1), actions:set(ipv4(proto=6))",
        "column 25: OVS_KEY_ATTR_IPV4 is not supported as to the protocol",
    );
    starts("in_port(1), actions:frobnicate", "column 21: an action, or a port's number or name is expected");
    starts("in_port(1) 2é", "column 13: a comma or the end is expected");
}

#[test]
fn actions_are_printed_as_open_vswitch_does() {
    for text in [
        "1,2",
        "drop",
        "set(ipv4(dst=10.0.0.1))",
        "set(eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:00/ff:ff:ff:00:00:00))",
        "set(ipv4(tos=0x4/0xfc,ttl=63))",
        "set(ipv6(label=0x5,tclass=0x3/0x3,hlimit=63))",
        "set(tcp(src=80))",
        "set(udp(dst=53))",
        "set(skb_priority(0x10)),set(skb_mark(0x1/0xf))",
        "set(mpls(label=5,tc=0,ttl=64,bos=1))",
        "set(nsh(ttl=62,spi=0x5,si=254))",
        "set(tunnel(tun_id=0x7b,src=10.0.0.1,dst=10.0.0.2,ttl=64,tp_dst=4789,flags(df|key)))",
        "push_vlan(vid=5,pcp=0),push_vlan(tpid=0x88a8,vid=7,pcp=3),pop_vlan",
        "push_mpls(label=1,tc=0,ttl=64,bos=1,eth_type=0x8847)",
        "add_mpls(label=1,tc=0,ttl=64,bos=1,eth_type=0x8847),pop_mpls(eth_type=0x800)",
        "push_eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),pop_eth",
        "push_nsh(flags=0,ttl=63,mdtype=1,np=4,spi=0x1234,si=255,c1=0x1,c2=0x0,c3=0x0,c4=0x4),pop_nsh()",
        "push_nsh(flags=0,ttl=63,mdtype=2,np=4,spi=0x1234,si=255,md2=0x00010203)",
        "recirc(0x1),hash(l4(0)),hash(sym_l4(7))",
        "sample(sample=50.0%,actions(userspace(pid=0,userdata(010203),actions)))",
        "clone(1,2),clone(drop),3",
        "check_pkt_len(size=1500,gt(drop),le(1))",
        "trunc(100),4,meter(1),lb_output(1),dec_ttl",
        "userspace(pid=7,userdata(0102),tunnel_out_port=4)",
    ] {
        let actions = parse_actions(text, NONE).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(format_actions(&actions, NONE), text);
    }
}

#[test]
fn the_special_cases_of_actions() {
    let one = |text: &str| parse_actions(text, NONE).unwrap().remove(0);
    assert_eq!(one("hash(sym_l4(0x10))"), Action::Hash { algorithm: HashAlgorithm::SymL4, basis: 16 });
    assert_eq!(one("dec_ttl(le_1(drop))"), Action::DecTtl);
    assert_eq!(one("push_vlan(vid=5,pcp=1,cfi=0)"), Action::PushVlan { tpid: 0x8100, tci: 0x2005 });
    assert_eq!(one("push_vlan(vid=5)"), Action::PushVlan { tpid: 0x8100, tci: VLAN_PRESENT | 5 });
    assert!(matches!(one("set(tcp())"), Action::Set(SetField::Tcp { src, .. }) if src.mask == 0));
    assert_eq!(format_actions(&vec![], NONE), "drop");
    assert_eq!(one("drop"), Action::Drop(0));
    assert_eq!(one("clone(drop)"), Action::Clone(vec![]));
    assert_eq!(one("clone(drop(0))"), Action::Clone(vec![Action::Drop(0)]));
    let rare = vec![Action::Sample { probability: 1, actions: vec![Action::Output(1)] }];
    assert_eq!(parse_actions(&format_actions(&rare, NONE), NONE), Ok(rare));
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |levels: usize| format!("{}1{}", "clone(".repeat(levels), ")".repeat(levels));
    assert!(parse_actions(&deep(DEPTH_MAX), NONE).is_ok());
    let error = parse_actions(&deep(DEPTH_MAX + 1), NONE).unwrap_err();
    assert_eq!(error.fault, TextFault::TooDeep);
    let encap = format!("{}{}", "encap(".repeat(40), ")".repeat(40));
    assert_eq!(parse_key(&encap, NONE).unwrap_err().fault, TextFault::TooDeep);
    assert_eq!(parse_key(&" ".repeat(TEXT_LEN_MAX + 1), NONE).unwrap_err().fault, TextFault::TooLong);
    let options = format!("tunnel(geneve({}))", "{len=124}".repeat(5000));
    assert_eq!(parse_key(&options, NONE).unwrap_err().fault, TextFault::TooLong);
    let labels = format!("eth_type(0x8847),mpls({})", "ttl=1,".repeat(9000));
    assert!(parse_key(&labels, NONE).is_err());
}

#[test]
fn a_mask_without_fields_prints_and_reads() {
    let any = "recirc_id(0/0),packet_type(ns=0/0,id=0/0)";
    let (key, mask) = parse_key(any, NONE).unwrap();
    assert_eq!((mask.0.base.recirc_id, mask.0.base.packet_type_ns), (0, 0));
    assert_eq!(format_key(&key, &mask, NONE), any);
    // What used to be printed for it is still read.
    assert_eq!(parse_key("recirc_id(0/0),packet_type()", NONE), Ok((key, mask)));
    // Tags are there whether or not anything of them is matched.
    let (key, _) = parse_key("eth_type(0x88a8),vlan(vid=1),encap(eth_type(0x8100),vlan(vid=2),encap())", NONE).unwrap();
    let text = format_key(&key, &FlowMask::default(), NONE);
    assert_eq!(text, format!("{any},vlan(vid=1/0x0),encap(vlan(vid=2/0x0))"));
    assert_eq!(parse_key(&text, NONE).unwrap().0.masked(&FlowMask::default()), FlowKey::default());
    let wide = FlowMask::default();
    assert!(parse_key(&format_key(&key, &wide, NONE), NONE).is_ok());
}
