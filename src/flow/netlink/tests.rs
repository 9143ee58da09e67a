use proptest::prelude::*;

use super::super::action::{Action, Masked, SetField, TunnelPush};
use super::super::arbitrary::{actions, differences, flow, mask_of};
use super::super::attr::{action as a, key as k, tunnel as t};
use super::super::key::{FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, TUNNEL_GENEVE, TUNNEL_KEY, VLAN_PRESENT};
use super::tunnel::KINDS;
use super::wire::{nested, put};
use super::*;

proptest! {
    #[test]
    fn keys_and_masks_survive((key, mask) in flow()) {
        let mut bytes = Vec::new();
        encode_key(&key, &mut bytes);
        prop_assert_eq!(decode_key(&bytes).map(|read| differences(&key, &read)), Ok(vec![]));
        let mut again = Vec::new();
        encode_mask(&key, &mask, &mut again);
        prop_assert_eq!(decode_mask(&again, &key).map(|read| differences(&mask.0, &read.0)), Ok(vec![]));
    }

    #[test]
    fn a_masked_key_can_be_written_and_read((key, mask) in flow()) {
        // A flow table may keep keys masked. What they say under the mask must survive.
        if key.tunnel.flags & KINDS != 0 {
            // Half a tunnel option may mean none.
            return Ok(());
        }
        let masked = key.masked(&mask);
        let mut bytes = Vec::new();
        encode_key(&masked, &mut bytes);
        let read = key::decode_key_with(&bytes, false);
        prop_assert_eq!(read.map(|read| differences(&masked, &read.masked(&mask))), Ok(vec![]));
    }

    #[test]
    fn actions_survive(actions in actions()) {
        let mut bytes = Vec::new();
        prop_assert_eq!(encode_actions(&actions, &mut bytes), Ok(()));
        prop_assert_eq!(decode_actions(&bytes), Ok(actions));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), (key, _) in flow()) {
        let _ = decode_key(&bytes);
        let _ = decode_mask(&bytes, &key);
        let _ = decode_actions(&bytes);
    }

    #[test]
    fn damaged_attributes_are_read_or_refused(
        ((key, mask), actions) in (flow(), actions()),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let damage = |mut bytes: Vec<u8>| {
            for (at, value) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        };
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        encode_key(&key, &mut a);
        encode_mask(&key, &mask, &mut b);
        prop_assert_eq!(encode_actions(&actions, &mut c), Ok(()));
        // What is accepted is in the settled form: it survives another round.
        if let Ok(key) = decode_key(&damage(a)) {
            let mut bytes = Vec::new();
            encode_key(&key, &mut bytes);
            prop_assert_eq!(decode_key(&bytes), Ok(key));
        }
        if let Ok(mask) = decode_mask(&damage(b), &key) {
            let mut bytes = Vec::new();
            encode_mask(&key, &mask, &mut bytes);
            prop_assert_eq!(decode_mask(&bytes, &key), Ok(mask));
        }
        if let Ok(actions) = decode_actions(&damage(c)) {
            let mut bytes = Vec::new();
            prop_assert_eq!(encode_actions(&actions, &mut bytes), Ok(()));
            prop_assert_eq!(decode_actions(&bytes), Ok(actions));
        }
    }

    #[test]
    fn an_exact_mask_matches_its_key_and_contains_every_other((key, mask) in flow()) {
        let exact = exact_mask(&key);
        prop_assert!(exact.matches(&key, &key));
        let mut both = exact;
        both.unite(&mask);
        prop_assert_eq!(differences(&exact.0, &both.0), vec![]);
    }
}

/// Attributes from (number, payload).
fn list(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, payload) in attributes {
        put(&mut out, *number, payload);
    }
    out
}

fn key_error(attributes: &[(u16, &[u8])]) -> String {
    decode_key(&list(attributes)).unwrap_err().to_string()
}

const ETH: (u16, &[u8]) = (k::ETHERNET, &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
const IP: (u16, &[u8]) = (k::ETHERTYPE, &[8, 0]);
const UDP_IN_IP: (u16, &[u8]) = (k::IPV4, &[10, 0, 0, 1, 10, 0, 0, 2, 17, 0, 64, 0]);

#[test]
fn a_kernel_style_key_is_that_of_an_ethernet_packet() {
    let port = 7u32.to_ne_bytes();
    let bytes = list(&[(k::IN_PORT, &port), ETH, IP, UDP_IN_IP, (k::UDP, &[0, 53, 0, 99])]);
    let key = decode_key(&bytes).unwrap();
    assert_eq!((key.base.in_port, key.base.packet_type_ns), (7, 0));
    assert_eq!((key.base.eth_src, key.base.eth_dst), ([1; 6], [2; 6]));
    assert_eq!((key.base.eth_type.get(), key.base.nw_proto, key.base.nw_ttl), (0x800, 17, 64));
    assert_eq!((key.base.tp_src.get(), key.base.tp_dst.get()), (53, 99));
}

#[test]
fn a_key_without_a_port_has_none() {
    assert_eq!(decode_key(&list(&[ETH])).unwrap().base.in_port, u32::MAX);
}

#[test]
fn errors_name_the_attribute_and_the_fault() {
    assert_eq!(key_error(&[(k::IPV4, &[0; 3])]), "OVS_KEY_ATTR_IPV4 has 3 bytes, but should have 12");
    assert_eq!(key_error(&[ETH, ETH]), "OVS_KEY_ATTR_ETHERNET is there twice");
    assert_eq!(key_error(&[(77, &[])]), "OVS_KEY_ATTR_77 is not known");
    assert_eq!(key_error(&[ETH, IP]), "OVS_KEY_ATTR_IPV4 is missing");
    assert_eq!(key_error(&[ETH, IP, UDP_IN_IP]), "OVS_KEY_ATTR_UDP is missing");
    let wrong = key_error(&[ETH, IP, UDP_IN_IP, (k::UDP, &[0; 4]), (k::TCP, &[0; 4])]);
    assert!(wrong.starts_with("OVS_KEY_ATTR_TCP is not expected here"), "{wrong}");
    let mut bytes = list(&[ETH]);
    bytes.extend([9; 3]);
    assert_eq!(
        decode_key(&bytes).unwrap_err().to_string(),
        "OVS_KEY_ATTR_ETHERNET is followed by 3 bytes that are no attribute"
    );
    let state = 0x100u32.to_ne_bytes();
    assert!(key_error(&[(k::CT_STATE, &state)]).starts_with("OVS_KEY_ATTR_CT_STATE is not supported"));
}

#[test]
fn an_8023_frame_has_no_ethertype_in_the_key_and_all_ones_in_the_mask() {
    let key = decode_key(&list(&[ETH])).unwrap();
    assert_eq!(key.base.eth_type.get(), 0x5ff);
    let mask = decode_mask(&list(&[(k::ETHERTYPE, &[0xff, 0xff])]), &key).unwrap();
    assert_eq!(mask.0.base.eth_type.get(), 0xffff);
    assert!(decode_mask(&list(&[(k::ETHERTYPE, &[0xff, 0])]), &key).is_err());
}

#[test]
fn two_tags_are_nested_and_a_third_is_an_ethertype() {
    let mut innermost = Vec::new();
    put(&mut innermost, k::ETHERTYPE, &[0x81, 0]);
    let mut inner = Vec::new();
    put(&mut inner, k::ETHERTYPE, &[0x81, 0]);
    put(&mut inner, k::VLAN, &[0x10, 2]);
    put(&mut inner, k::ENCAP, &innermost);
    let bytes = list(&[ETH, (k::ETHERTYPE, &[0x88, 0xa8]), (k::VLAN, &[0x10, 1]), (k::ENCAP, &inner)]);
    let key = decode_key(&bytes).unwrap();
    assert_eq!((key.base.vlan_tpid.get(), key.base.vlan_tci.get()), (0x88a8, 0x1001));
    assert_eq!((key.misc.vlan1_tpid.get(), key.misc.vlan1_tci.get()), (0x8100, 0x1002));
    assert_eq!(key.base.eth_type.get(), 0x8100);
}

#[test]
fn a_tag_needs_its_present_bit_and_a_truncated_one_is_none() {
    let vlan = (k::ETHERTYPE, &[0x81, 0][..]);
    let error = key_error(&[ETH, vlan, (k::VLAN, &[0, 1]), (k::ENCAP, &[])]);
    assert!(error.starts_with("OVS_KEY_ATTR_VLAN has a value that is not allowed"), "{error}");
    let key = decode_key(&list(&[ETH, vlan, (k::VLAN, &[0, 0]), (k::ENCAP, &[])])).unwrap();
    assert_eq!((key.base.vlan_tci.get(), key.base.eth_type.get()), (0, 0x8100));
}

#[test]
fn a_mask_without_a_vlan_matches_no_tag() {
    let key = decode_key(&list(&[ETH])).unwrap();
    let mask = decode_mask(&[], &key).unwrap();
    assert_eq!(mask.0.base.vlan_tci.get(), 0xffff);
    let mut tagged = key;
    tagged.base.vlan_tci = (VLAN_PRESENT | 5).into();
    assert!(mask.matches(&key, &key) && !mask.matches(&key, &tagged));
    // A flow for one tag does not match packets with two, and a zero mask still says "tagged, this id".
    let mask = decode_mask(&[], &tagged).unwrap();
    assert_eq!(mask.0.base.vlan_tci.get(), 0x1fff);
    let mut twice = tagged;
    twice.misc.vlan1_tci = (VLAN_PRESENT | 6).into();
    assert!(!mask.matches(&tagged, &twice));
}

#[test]
fn an_absent_attribute_in_a_mask_matches_everything_but_recirc_id_and_packet_type() {
    let key = decode_key(&list(&[ETH, IP, UDP_IN_IP, (k::UDP, &[0; 4])])).unwrap();
    let mut want = FlowMask::default();
    want.0.base.recirc_id = u32::MAX;
    want.0.base.packet_type_ns = 0xff;
    want.0.base.vlan_tci = 0xffff.into();
    want.0.base.vlan_tpid = 0xffff.into();
    assert_eq!(decode_mask(&[], &key), Ok(want));
}

#[test]
fn matching_a_header_needs_what_says_that_it_is_there() {
    let key = decode_key(&list(&[ETH, IP, UDP_IN_IP, (k::UDP, &[0; 4])])).unwrap();
    let error = |attributes: &[(u16, &[u8])]| decode_mask(&list(attributes), &key).unwrap_err().to_string();
    let any_proto = (k::IPV4, &[255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]);
    assert!(error(&[any_proto]).contains("only together with the whole of OVS_KEY_ATTR_ETHERTYPE"));
    let full = (k::ETHERTYPE, &[0xff, 0xff][..]);
    assert!(error(&[full, any_proto, (k::UDP, &[0, 0, 255, 255])]).contains("only together with the whole protocol"));
}

#[test]
fn fragment_types_are_an_enumeration() {
    let frag = |kind| decode_key(&list(&[ETH, IP, (k::IPV4, &[0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, kind])]));
    assert_eq!(frag(0).unwrap().base.nw_frag, 0);
    assert_eq!(frag(1).unwrap().base.nw_frag, FRAG_ANY);
    assert_eq!(frag(2).unwrap().base.nw_frag, FRAG_ANY | FRAG_LATER);
    assert!(frag(3).is_err());
}

#[test]
fn a_layer_3_packet_says_so() {
    let key = decode_key(&list(&[(k::PACKET_TYPE, &[0, 1, 8, 0]), UDP_IN_IP, (k::UDP, &[0; 4])])).unwrap();
    assert_eq!((key.base.packet_type_ns, key.base.eth_type.get()), (1, 0x800));
    assert!(decode_key(&list(&[(k::PACKET_TYPE, &[0, 1, 8, 0]), ETH, UDP_IN_IP])).is_err());
    assert!(decode_key(&list(&[(k::PACKET_TYPE, &[0, 1, 8, 0]), (k::ETHERTYPE, &[0x86, 0xdd])])).is_err());
    assert!(decode_key(&list(&[(k::PACKET_TYPE, &[0, 2, 0, 0])])).is_err());
}

#[test]
fn labels_end_with_the_bottom_of_the_stack() {
    let mpls = |stack: &[u8]| decode_key(&list(&[ETH, (k::ETHERTYPE, &[0x88, 0x47]), (k::MPLS, stack)]));
    assert!(mpls(&[0, 0, 1, 0]).is_ok());
    assert!(mpls(&[0, 0, 1, 0, 0, 0, 1, 0]).is_err());
    assert!(mpls(&[]).is_err());
    assert!(mpls(&[0; 16]).is_err());
}

fn with_tunnel(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let inner = list(attributes);
    list(&[(k::TUNNEL, &inner), ETH])
}

#[test]
fn a_geneve_tunnel_keeps_its_options_and_their_mask() {
    let option = [1, 2, 0x80, 1, 9, 9, 9, 9];
    let ends = [(t::ID, &[0, 0, 0, 0, 0, 0, 0, 5][..]), (t::IPV4_DST, &[1, 2, 3, 4]), (t::TTL, &[64])];
    let bytes = with_tunnel(&[&ends[..], &[(t::GENEVE_OPTS, &option)]].concat());
    let key = decode_key(&bytes).unwrap();
    assert_eq!(key.tunnel.flags, TUNNEL_KEY | TUNNEL_GENEVE);
    assert_eq!((key.tunnel.id.get(), key.tunnel.opts[0]), (5, 2));
    assert_eq!(key.options[..8], option);
    let mask = decode_mask(&with_tunnel(&[(t::GENEVE_OPTS, &[0xff; 8])]), &key).unwrap();
    assert_eq!((mask.0.tunnel.opts[0], mask.0.options[7], mask.0.options[8]), (0xff, 0xff, 0));
    assert!(decode_mask(&with_tunnel(&[(t::GENEVE_OPTS, &[0xff; 4])]), &key).is_err());
    let cut = with_tunnel(&[&ends[..], &[(t::GENEVE_OPTS, &[1, 2, 0x80, 5, 0, 0, 0, 0])]].concat());
    assert!(decode_key(&cut).unwrap_err().to_string().starts_with("OVS_TUNNEL_KEY_ATTR_GENEVE_OPTS"));
    assert_eq!(decode_key(&with_tunnel(&[])).unwrap_err().to_string(), "OVS_TUNNEL_KEY_ATTR_TTL is missing");
}

#[test]
fn set_is_masked_only_when_it_has_to_be() {
    let kind = |field| {
        let mut out = Vec::new();
        encode_actions(&vec![Action::Set(field)], &mut out).unwrap();
        u16::from_ne_bytes([out[2], out[3]])
    };
    let full = Masked::<u16>::full(7);
    assert_eq!(kind(SetField::Tcp { src: full, dst: full }), a::SET);
    assert_eq!(kind(SetField::Tcp { src: full, dst: Masked::<u16>::none() }), a::SET_MASKED);
    // Protocol and fragment type are never set.
    let all = Masked::<[u8; 4]>::full([1, 2, 3, 4]);
    let ip = SetField::Ipv4 { src: all, dst: all, tos: Masked::<u8>::full(1), ttl: Masked::<u8>::full(2) };
    assert_eq!(kind(ip), a::SET_MASKED);
}

#[test]
fn actions_that_wye_lacks_are_named() {
    let error = |number| decode_actions(&list(&[(number, &[])])).unwrap_err().to_string();
    assert_eq!(error(a::CT), "OVS_ACTION_ATTR_CT is not supported");
    assert_eq!(error(a::TUNNEL_PUSH), "OVS_ACTION_ATTR_TUNNEL_PUSH has 0 bytes, but should have 16 and the header");
    assert_eq!(error(999), "OVS_ACTION_ATTR_999 is not known");
    assert_eq!(error(a::OUTPUT), "OVS_ACTION_ATTR_OUTPUT has 0 bytes, but should have 4");
    let tcp_proto = [[0u8; 12], [0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0]].concat();
    let set = list(&[(k::IPV4, &tcp_proto)]);
    let error = decode_actions(&list(&[(a::SET_MASKED, &set)])).unwrap_err().to_string();
    assert_eq!(error, "OVS_KEY_ATTR_IPV4 is not supported as to the protocol in a set action");
}

#[test]
fn headers_to_push_must_be_in_their_array() {
    let push = |len: u32, array: &[u8]| {
        let words = [6, 1, len, 4].map(u32::to_ne_bytes).concat();
        decode_actions(&list(&[(a::TUNNEL_PUSH, &[&words, array].concat())]))
    };
    let header = vec![7; 50];
    let right =
        Action::TunnelPush(Box::new(TunnelPush { tnl_port: 6, out_port: 1, tnl_type: 4, header: header.clone() }));
    // The array may be short; what stands behind the header is of no use.
    for array in [header.clone(), [&header[..], &[9; 462]].concat()] {
        assert_eq!(push(50, &array), Ok(vec![right.clone()]));
    }
    for (len, array) in [(51, &header[..]), (u32::MAX, &[0; 512]), (50, &[0; 513])] {
        assert!(push(len, array).unwrap_err().to_string().contains("at most 512 bytes"));
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let deep = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            let mut outer = Vec::new();
            nested(&mut outer, a::CLONE, |out| out.extend_from_slice(&bytes));
            bytes = outer;
        }
        decode_actions(&bytes)
    };
    let fits = deep(DEPTH_MAX).unwrap();
    assert!(deep(DEPTH_MAX + 1).unwrap_err().to_string().contains("nested more than 16 levels"));
    let mut out = vec![1];
    assert!(encode_actions(&vec![Action::Clone(fits)], &mut out).is_err());
    assert_eq!(out, [1]);
    assert!(decode_actions(&vec![0; LEN_MAX + 4]).is_err());
    assert!(encode_actions(&vec![Action::PopVlan; LEN_MAX / 4 + 1], &mut out).is_err());
    assert!(encode_actions(&vec![Action::Clone(vec![Action::PopVlan; LEN_MAX / 4])], &mut out).is_err());
}

#[test]
fn wildcards_survive_for_the_simplest_flow() {
    let key = FlowKey::default();
    let mask = mask_of(&key, 1);
    let mut bytes = Vec::new();
    encode_mask(&key, &mask, &mut bytes);
    assert_eq!(decode_mask(&bytes, &key), Ok(mask));
}
