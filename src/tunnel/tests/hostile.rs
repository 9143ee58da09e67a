//! Headers that lie, and headers that are rare but right, kind by kind.

use super::variants::{self, V6, Variant};
use super::*;
use crate::tunnel::template::FlowLabel;
use crate::wire::{checksum, ethernet, ip};

const HEADER: Option<DropReason> = Some(DropReason::TunnelHeader);
const OPTION: Option<DropReason> = Some(DropReason::TunnelOption);

fn variant(name: &str) -> Variant {
    variants::all().into_iter().find(|variant| variant.name == name).unwrap()
}

/// Why a variant's packet is dropped after `change`, whose bytes begin with the tunnel's own header.
fn reason(name: &str, change: impl FnOnce(&mut [u8])) -> Option<DropReason> {
    let variant = variant(name);
    let mut bytes = variant.wrapped();
    change(&mut bytes[variant.own_at()..]);
    open_bytes(variant.kind, &variant.options, &bytes).err()
}

/// Opens what follows the outer headers of a variant but its own one: `own`, with lengths that are right.
fn open_own(name: &str, own: &[u8]) -> Result<(Vec<u8>, Ext, Option<u16>), DropReason> {
    let variant = variant(name);
    let at = variant.own_at();
    let mut bytes = [&variant.header[..at], own].concat();
    let total = (bytes.len() - 14) as u16;
    if variant.v6 {
        bytes[18..20].copy_from_slice(&(total - 40).to_be_bytes());
    } else {
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        bytes[24..26].fill(0);
        let sum = checksum::of(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    if variant.kind.carrier() == Carrier::Udp {
        bytes[at - 4..at - 2].copy_from_slice(&(own.len() as u16 + 8).to_be_bytes());
    }
    open_bytes(variant.kind, &variant.options, &bytes)
}

#[test]
fn rfc2784_s2_3_gre_with_bits_that_change_its_meaning_is_dropped_and_others_are_ignored() {
    for bit in 0..16 {
        let flipped = reason("gre-ipv4", |own| own[bit / 8] ^= 0x80 >> (bit % 8));
        let expected = match bit {
            // Four bytes more are taken to be the checksum, and it is wrong.
            0 => Some(DropReason::TunnelChecksum),
            1 | 4 | 5 | 13.. => HEADER,
            // Key and sequence number are in the way of the inner frame; reserved bits are not looked at.
            _ => None,
        };
        assert_eq!(flipped, expected, "bit {bit}");
    }
    // A protocol type that is no EtherType.
    assert_eq!(reason("gre-ipv4", |own| own[2..4].copy_from_slice(&[5, 0xff])), HEADER);
    // Any EtherType may be inside.
    let (inner, _, layer3) = open_own("gre-ipv4", &[0, 0, 0x88, 0x47, 1, 2, 3]).unwrap();
    assert_eq!((inner, layer3), (vec![1, 2, 3], Some(ethernet::MPLS)));
}

#[test]
fn erspan_that_contradicts_itself_is_dropped() {
    for name in ["erspan-2-ipv4", "erspan-3-ipv6"] {
        // Without a sequence number it is type I, which has no header; checksum and key are not in use.
        assert_eq!(reason(name, |own| own[0] = 0), HEADER);
        assert_eq!(reason(name, |own| own[0] |= 0x80), HEADER);
        assert_eq!(reason(name, |own| own[0] |= 0x20), HEADER);
        // A version that is not that of the EtherType, and another EtherType.
        assert_eq!(reason(name, |own| own[8] ^= 0x30), HEADER);
        assert_eq!(reason(name, |own| own[8] ^= 0x40), HEADER);
        assert_eq!(reason(name, |own| own[3] ^= 1), HEADER);
        // VLAN, class, and what else says how the mirrored frame came.
        assert_eq!(reason(name, |own| (own[8], own[9], own[10]) = (own[8] | 0xf, 0xff, own[10] | 0xfc)), None);
    }
    // The bits in front of type II's index are reserved.
    let variant = variant("erspan-2-ipv4");
    let mut bytes = variant.wrapped();
    bytes[variant.own_at() + 12] = 0xff;
    bytes[variant.own_at() + 13] |= 0xf0;
    assert_eq!(open_bytes(variant.kind, &variant.options, &bytes).unwrap().1.tunnel, variant.line);
}

#[test]
fn erspan_type_3_may_have_a_subheader_and_may_carry_ip_alone() {
    let mut own = variant("erspan-3-ipv4").header.split_off(34);
    let frame = Frame::udp4().build();
    own[19] |= 1;
    let with_subheader = [&own[..], &[9; 8], &frame].concat();
    assert_eq!(open_own("erspan-3-ipv4", &with_subheader).unwrap().0, frame);
    assert_eq!(open_own("erspan-3-ipv4", &with_subheader[..27]).err(), HEADER);
    own[19] &= !1;
    own[18] |= 2 << 2;
    let (inner, _, layer3) = open_own("erspan-3-ipv4", &[&own[..], &frame[14..]].concat()).unwrap();
    assert_eq!((&inner[..], layer3), (&frame[14..], Some(ethernet::IPV4)));
    assert_eq!(open_own("erspan-3-ipv4", &[&own[..], &[0x50]].concat()).err(), HEADER);
    own[18] |= 1 << 2;
    assert_eq!(open_own("erspan-3-ipv4", &[&own[..], &frame].concat()).err(), HEADER);
}

/// A GTP-U packet with these flags, this type, and `rest` behind the TEID, in front of `inner`.
fn gtpu_of(flags: u8, kind: u8, rest: &[u8], inner: &[u8]) -> Vec<u8> {
    let [high, low] = ((rest.len() + inner.len()) as u16).to_be_bytes();
    [&[flags, kind, high, low, 1, 2, 3, 4], rest, inner].concat()
}

#[test]
fn gtpu_extension_headers_are_walked_to_their_end() {
    let inner = variants::inner(Some(ethernet::IPV4));
    let of = |flags: u8, rest: &[u8]| {
        open_own("gtpu-of-0800-ipv4", &gtpu_of(flags, 255, rest, &inner)).map(|(left, ..)| {
            assert_eq!(left, inner);
        })
    };
    assert_eq!(of(0x34, &[0, 0, 0, 0]), Ok(()));
    // A PDU session container, and what need not be understood.
    assert_eq!(of(0x34, &[0, 0, 0, 0x85, 1, 0, 9, 0]), Ok(()));
    assert_eq!(of(0x34, &[0, 0, 0, 0x40, 1, 8, 0x68, 0x85, 2, 0, 9, 0, 0, 0, 0, 0x20, 1, 7, 0, 0]), Ok(()));
    // What must be understood, and is not (§5.2.1).
    assert_eq!(of(0x34, &[0, 0, 0, 0xc0, 1, 0, 9, 0]).err(), OPTION);
    assert_eq!(of(0x34, &[0, 0, 0, 0x85, 1, 0, 9, 0x84, 1, 0, 0, 0]).err(), OPTION);
    // Without E the type means nothing (§5.1), whatever S and PN say.
    assert_eq!(of(0x32, &[0, 0, 0, 0xc0]), Ok(()));
    assert_eq!(of(0x31, &[0, 0, 0, 0xc0]), Ok(()));
    // A length of nothing; one that goes behind the packet.
    assert_eq!(of(0x34, &[0, 0, 0, 0x85, 0, 0, 9, 0]).err(), HEADER);
    assert_eq!(of(0x34, &[0, 0, 0, 0x85, 255, 0, 9, 0]).err(), HEADER);
    // The longest chain that a packet can have ends.
    let mut chain = vec![0, 0, 0, 0x20];
    chain.extend([1, 0, 0, 0x20].repeat(10_000));
    assert_eq!(of(0x34, &chain).err(), HEADER);
    *chain.last_mut().unwrap() = 0;
    assert_eq!(of(0x34, &chain), Ok(()));
    // Spare bits are ignored; other versions, and GTP', are not GTP-U.
    assert_eq!(of(0x38, &[]), Ok(()));
    assert_eq!(of(0x50, &[]).err(), HEADER);
    assert_eq!(of(0x20, &[]).err(), HEADER);
}

#[test]
fn gtpu_lengths_that_lie_are_dropped_and_bytes_behind_are_padding() {
    let inner = variants::inner(Some(ethernet::IPV6));
    let mut own = gtpu_of(0x30, 255, &[], &inner);
    own.extend([9; 5]);
    let (left, ext, layer3) = open_own("gtpu-of-86dd-ipv6", &own).unwrap();
    assert_eq!((left, layer3), (inner, Some(ethernet::IPV6)));
    assert_eq!((ext.tunnel.id.get(), ext.tunnel.opts), (0x0102_0304, [0x30, 255, 0, 0, 0, 0, 0, 0]));
    own[3] += 6;
    assert_eq!(open_own("gtpu-of-86dd-ipv6", &own).err(), HEADER);
    // Neither IPv4 nor IPv6, and nothing at all.
    assert_eq!(open_own("gtpu-of-86dd-ipv6", &gtpu_of(0x30, 255, &[], &[0x50, 0])).err(), HEADER);
    assert_eq!(open_own("gtpu-of-86dd-ipv6", &gtpu_of(0x30, 255, &[], &[])).err(), HEADER);
}

#[test]
fn gtpu_messages_of_the_tunnels_ends_stay_whole() {
    for (kind, rest) in
        [(1, &[0, 5, 0, 0][..]), (2, &[0, 5, 0, 0, 14, 0]), (26, &[0, 0, 0, 0, 16, 0, 0, 0, 9]), (254, &[0; 4])]
    {
        let own = gtpu_of(0x32, kind, rest, &[]);
        let (left, ext, layer3) = open_own("gtpu-of-0800-ipv4", &own).unwrap();
        assert!(left.ends_with(&own) && left.len() == 42 + own.len());
        assert_eq!((layer3, ext.lines), (None, LINE_TUNNEL));
        assert_eq!((ext.tunnel.opts[..2].to_vec(), ext.tunnel.id.get()), (vec![0x32, kind], 0x0102_0304));
        // One that is cut off is none.
        assert_eq!(open_own("gtpu-of-0800-ipv4", &own[..own.len() - 1]).err(), HEADER);
    }
}

#[test]
fn rfc8754_s4_3_segment_routing_headers_that_lie_are_dropped() {
    let name = "srv6-three-of-0800-ipv6";
    // Behind the IPv6 header: next, length, type, left, last entry.
    assert_eq!(reason(name, |own| own[40] = ip::IPV6), None);
    assert_eq!(reason(name, |own| own[40] = ip::UDP), HEADER);
    assert_eq!(reason(name, |own| own[41] = 5), HEADER);
    assert_eq!(reason(name, |own| own[41] = 200), HEADER);
    for other in [0, 2, 3, 255] {
        assert_eq!(reason(name, |own| own[42] = other), HEADER, "routing type {other}");
    }
    // Segments that are left: in the list, one more than that, and beyond.
    for left in [1, 3, 4, 255] {
        assert_eq!(reason(name, |own| own[43] = left), HEADER, "{left} segments left");
    }
    // More segments than the header is long. Fewer: what is behind them is read as TLVs, which these addresses are not.
    assert_eq!(reason(name, |own| own[44] = 3), HEADER);
    assert_eq!(reason(name, |own| own[44] = 255), HEADER);
    assert_eq!(reason(name, |own| own[44] = 1), HEADER);
    // Flags and tag are for the nodes on the way.
    assert_eq!(reason(name, |own| own[45..48].fill(0xff)), None);
    // Without such a header only where that is configured.
    let variant = variant("srv6-reduced-of-0800-ipv6");
    assert_eq!(open_bytes(Kind::Srv6, &Options::default(), &variant.wrapped()).err(), HEADER);
    // IPv4 has no routing header.
    let bytes = Frame::new().eth([1; 6], [2; 6]).ipv4([1; 4], [2; 4]).proto(ip::ROUTING).payload(&[0; 64]).build();
    assert_eq!(open_bytes(Kind::Srv6, &Options::default(), &bytes).err(), HEADER);
}

/// A segment routing header of one segment with `tlvs`, in front of an IPv4 packet.
fn srh(tlvs: &[u8]) -> Vec<u8> {
    let mut header = vec![ip::IPIP, (2 + tlvs.len() / 8) as u8, 4, 0, 0, 0, 0, 0];
    header.extend(V6[1]);
    header.extend(tlvs);
    header
}

#[test]
fn segment_routing_headers_may_have_tlvs_and_other_extension_headers_in_front() {
    let inner = variants::inner(Some(ethernet::IPV4));
    let of = |next: u8, chain: &[u8]| {
        let variant = variant("srv6-of-0800-ipv6");
        let mut own = [&variant.header[14..54], chain, &inner].concat();
        own[6] = next;
        open_own("srv6-of-0800-ipv6", &own).map(|(left, _, layer3)| {
            assert_eq!((left, layer3), (inner.clone(), Some(ethernet::IPV4)));
        })
    };
    assert_eq!(of(ip::ROUTING, &srh(&[])), Ok(()));
    // Padding of one byte, padding of many, and a TLV that nobody knows.
    assert_eq!(of(ip::ROUTING, &srh(&[0; 8])), Ok(()));
    assert_eq!(of(ip::ROUTING, &srh(&[4, 6, 0, 0, 0, 0, 0, 0])), Ok(()));
    assert_eq!(of(ip::ROUTING, &srh(&[0xfe, 1, 7, 4, 3, 0, 0, 0])), Ok(()));
    // Cut off in its value, and behind its type.
    assert_eq!(of(ip::ROUTING, &srh(&[4, 7, 0, 0, 0, 0, 0, 0])).err(), HEADER);
    assert_eq!(of(ip::ROUTING, &srh(&[4, 5, 0, 0, 0, 0, 0, 4])).err(), HEADER);
    let hop_by_hop = [ip::ROUTING, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(of(ip::HOP_BY_HOP, &[&hop_by_hop[..], &srh(&[])].concat()), Ok(()));
    assert_eq!(of(ip::DESTINATION_OPTIONS, &[&hop_by_hop[..], &srh(&[])].concat()), Ok(()));
    let first_fragment = [&[ip::ROUTING, 0, 0, 1, 0, 0, 0, 9][..], &srh(&[])].concat();
    assert_eq!(of(ip::FRAGMENT, &first_fragment).err(), Some(DropReason::TunnelFragment));
    let authenticated = [&[ip::ROUTING, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1][..], &srh(&[])].concat();
    assert_eq!(of(ip::AH, &authenticated).err(), HEADER);
}

#[test]
fn flow_labels_are_the_templates_the_inner_packets_or_the_hashs() {
    let headers = |label: u32| {
        let mut header = variant("srv6-of-86dd-ipv6").header;
        header[16..18].copy_from_slice(&(label as u16).to_be_bytes());
        header
    };
    let label = |template: &Template, layer3: u16, inner: &[u8]| {
        let bytes = variants::push_from(template, inner, Some(layer3));
        u32::from_be_bytes([bytes[14], bytes[15], bytes[16], bytes[17]])
    };
    let inner6 =
        Frame::new().eth([0; 6], [0; 6]).ipv6([1; 16], [2; 16]).label(0xa_bcde).udp(1, 2).build().split_off(14);
    let inner4 = variants::inner(Some(ethernet::IPV4));
    let of = |template: &Template| (label(template, ethernet::IPV6, &inner6), label(template, ethernet::IPV4, &inner4));
    // As Open vSwitch names them in SRv6's headers.
    let version = 0x6000_0000;
    assert_eq!(of(&Template::new(Kind::Srv6, &headers(0)).unwrap()), (version | 0xa_bcde, version));
    assert_eq!(of(&Template::new(Kind::Srv6, &headers(1)).unwrap()), (version, version));
    assert_eq!(of(&Template::new(Kind::Srv6, &headers(2)).unwrap()), (version | 0x01234, version | 0x01234));
    // Other kinds' labels are the template's, unless that is asked for.
    let mut gre = variant("gre-of-86dd-ipv6").header;
    gre[16..18].copy_from_slice(&[0x56, 0x78]);
    let template = |label| Template::new(Kind::Ip6Gre, &gre).unwrap().with_flow_label(label);
    assert_eq!(of(&template(FlowLabel::Fixed)), (version | 0x5678, version | 0x5678));
    assert_eq!(of(&template(FlowLabel::Hash)), (version | 0x01234, version | 0x01234));
    assert_eq!(of(&template(FlowLabel::Inner)), (version | 0xa_bcde, version));
}

#[test]
fn outer_ipv6_headers_may_have_options() {
    let inner = variants::inner(None);
    for name in ["gre-key-seq-ipv6-checksum", "vxlan-ipv6-checksum", "geneve-options-ipv6"] {
        let mut variant = variant(name);
        // The limit of encapsulations (RFC 2473 §4.1.1) and padding.
        let limit = [variant.header[20], 0, 4, 1, 4, 1, 1, 0];
        variant.header[20] = ip::DESTINATION_OPTIONS;
        variant.header.splice(54..54, limit);
        let bytes = variant.wrapped();
        checksums::verify(&bytes).unwrap();
        assert_eq!(bytes[18..20], ((bytes.len() - 54) as u16).to_be_bytes());
        let (left, ext, _) = open_bytes(variant.kind, &variant.options, &bytes).unwrap();
        assert_eq!((left, ext.tunnel), (inner.clone(), variant.line), "{name}");
        // A routing header would change the destination, a fragment header the packet.
        for next in [ip::ROUTING, ip::FRAGMENT, ip::AH] {
            variant.header[20] = next;
            let error = Template::new(variant.kind, &variant.header).unwrap_err().to_string();
            assert_eq!(error, "the outer headers lack the protocol of the tunnel in the IP header");
        }
    }
}

#[test]
fn headers_that_a_kind_cannot_fill_in_are_refused() {
    let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>, usize)| {
        let mut variant = variant(name);
        let at = variant.own_at();
        change(&mut variant.header, at);
        Template::new(variant.kind, &variant.header).unwrap_err().to_string()
    };
    let version = "the outer headers lack a GRE header of version 0";
    assert_eq!(refused("gre-ipv4", &|header, at| header[at + 1] = 1), version);
    assert_eq!(refused("gre-ipv4", &|header, at| header.truncate(at + 3)), version);
    let fields = "the outer headers lack the fields that the GRE flags announce, and no others";
    assert_eq!(refused("gre-key-ipv6", &|header, at| header.truncate(at + 7)), fields);
    assert_eq!(refused("gre-key-ipv6", &|header, _| header.push(0)), fields);
    let erspan = "the outer headers lack a GRE header with a sequence number and an ERSPAN header of version 1 or 2";
    assert_eq!(refused("erspan-3-ipv4", &|header, at| header.truncate(at + 19)), erspan);
    assert_eq!(refused("erspan-2-ipv4", &|header, at| header[at + 8] = 0x20), erspan);
    assert_eq!(refused("erspan-2-ipv4", &|header, _| header.push(0)), erspan);
    let gtpu = "the outer headers lack a GTP-U header of version 1 with the fields and extensions that it announces, and no others";
    assert_eq!(refused("gtpu-of-0800-ipv4", &|header, at| header[at] = 0x32), gtpu);
    assert_eq!(refused("gtpu-of-0800-ipv4", &|header, at| header[at] = 0x50), gtpu);
    assert_eq!(refused("gtpu-qfi-of-0800-ipv4", &|header, at| header.truncate(at + 15)), gtpu);
    assert_eq!(refused("gtpu-qfi-of-0800-ipv4", &|header, at| header[at + 12] = 2), gtpu);
    let srv6 = "the outer headers lack a segment routing header, or none, in front of an IP packet";
    assert_eq!(refused("srv6-of-0800-ipv6", &|header, at| header[at + 43] = 2), srv6);
    assert_eq!(refused("srv6-of-0800-ipv6", &|header, _| header.push(0)), srv6);
    assert_eq!(refused("srv6-of-0800-ipv6", &|header, _| header.truncate(70)), srv6);
}

#[test]
fn headers_that_there_cannot_be_are_not_written() {
    let mut line = TunnelLine::new_zeroed();
    let mut out = Vec::new();
    line.id.set(1 << 32);
    assert_eq!(gre::write(&line, false, None, &mut out), Err("a GRE key has 32 bits"));
    assert_eq!(gtpu::write(&line, false, None, &mut out), Err("a TEID has 32 bits"));
    assert_eq!(erspan::write(&line, &mut out), Err("an ERSPAN session has 10 bits"));
    line.id.set(0x3ff);
    assert_eq!(gre::write(&line, false, Some(5), &mut out), Err("GRE names its payload by an EtherType"));
    assert_eq!(erspan::write(&line, &mut out), Err("ERSPAN has the versions 1 and 2"));
    line.opts = [1, 0, 0, 0, 0, 0x10, 0, 0];
    assert_eq!(erspan::write(&line, &mut out), Err("an ERSPAN index has 20 bits"));
    line.opts = [2, 0, 0x40, 0, 0, 0, 0, 0];
    assert_eq!(erspan::write(&line, &mut out), Err("an ERSPAN direction has 1 bit, a hardware id 6"));
    let container = Some(gtpu::Container { is_uplink: false, qfi: 64 });
    assert_eq!(gtpu::write(&line, false, container, &mut out), Err("a QoS flow identifier has 6 bits"));
    let segments = [[0; 16]; srv6::SEGMENTS_MAX + 1];
    let too_many = "a segment routing header lists at most 127 segments";
    assert_eq!(srv6::write(&segments, 0, ethernet::IPV4, &mut out), Err(too_many));
    let left = "more segments are left than there are";
    assert_eq!(srv6::write(&segments[..1], 2, ethernet::IPV4, &mut out), Err(left));
    assert_eq!(srv6::write(&[], 0, ethernet::ARP, &mut out), Err("SRv6 carries IPv4 and IPv6 only"));
    assert!(out.is_empty());
}
