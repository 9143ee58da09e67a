//! What every kind and variant must do, whatever comes from the wire.

use super::endpoint::oracle;
use super::variants::{self, ENTROPY, NOW, SEQUENCE, Variant};
use super::*;
use crate::packet::Packet;
use crate::packet::buffer::PACKET_LEN_MAX;
use crate::wire::{checksum, ethernet, ipv4, ipv6, udp};
use proptest::prelude::*;

/// A place for one packet after the other.
struct Bench {
    pool: std::sync::Arc<Pool>,
}

impl Bench {
    fn new() -> Bench {
        Bench { pool: Pool::new(1, 70_000, 640).unwrap() }
    }

    /// Opens `bytes`, the checksums of which are not looked at if they are `trusted`, and hands on what is left, if anything.
    ///
    /// Nothing is changed of a packet that is dropped; what is left of others was in them; and the fast path, if it does anything, does the
    /// same.
    fn open<R>(
        &self,
        variant: &Variant,
        options: &Options,
        bytes: &[u8],
        trusted: bool,
        f: impl FnOnce(&Packet, &Ext) -> R,
    ) -> Result<R, DropReason> {
        let mut packet = self.pool.packet(bytes).unwrap();
        if extract_whole(&mut packet, None, ExtractOptions::default()).is_err() {
            self.pool.free(&mut packet);
            return Err(DropReason::RxInvalid);
        }
        if trusted {
            packet.flags.insert(PacketFlags::CHECKSUM_GOOD);
        }
        let offsets = (packet.l3, packet.l4);
        let mut ext = Ext::default();
        let result = open(&mut packet, &mut ext, variant.kind, options);
        let left = packet.data().to_vec();
        match result {
            Ok(()) => {
                let allowed = LINE_TUNNEL | if variant.kind == Kind::Geneve { LINE_OPTIONS } else { 0 };
                assert_eq!((ext.lines & LINE_TUNNEL, ext.lines & !allowed), (LINE_TUNNEL, 0));
                let is_inside = bytes.ends_with(&left) || bytes.windows(left.len()).any(|window| window == left);
                assert!(is_inside || options.behaviour.is_some_and(|it| it.flavours().is_some()));
            }
            Err(_) => assert_eq!(left, bytes, "{}: a packet that is dropped is unchanged", variant.name),
        }
        if let Some(behaviour) = options.behaviour.filter(|_| variant.kind == Kind::Srv6) {
            let expected = oracle::open(bytes, behaviour, options.upper_layer);
            let expected = expected.map(|expected| expected.bytes);
            assert_eq!(result.map(|()| left.clone()), expected, "{}", variant.name);
        }
        let handed = result.map(|()| f(&packet, &ext));
        self.pool.free(&mut packet);

        let mut packet = self.pool.packet(bytes).unwrap();
        (packet.l3, packet.l4) = offsets;
        if trusted {
            packet.flags.insert(PacketFlags::CHECKSUM_GOOD);
        }
        let mut key = FlowKey::default();
        if let Some(lines) = open_usual(&mut packet, &mut key, variant.kind, options) {
            assert!(handed.is_ok(), "{}: {:?}", variant.name, result);
            assert_eq!((packet.data(), key.tunnel, lines & LINE_TUNNEL), (&left[..], ext.tunnel, LINE_TUNNEL));
            assert_eq!((lines & LINE_OPTIONS != 0, key.options), (ext.lines & LINE_OPTIONS != 0, ext.options));
        } else {
            assert_eq!(packet.data(), bytes, "{}: the fast path changed what it does not take", variant.name);
        }
        self.pool.free(&mut packet);
        handed
    }
}

/// The frame with what is behind its IP header exchanged, and the IP and UDP lengths and the IP checksum right.
fn with_rest(variant: &Variant, frame: &[u8], rest: &[u8]) -> Vec<u8> {
    let l4 = ethernet::HEADER_LEN + if variant.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let mut bytes = [&frame[..l4], rest].concat();
    if variant.v6 {
        bytes[18..20].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    } else {
        let total = (rest.len() + ipv4::HEADER_LEN) as u16;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        bytes[24..26].fill(0);
        let sum = checksum::of(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    if variant.kind.carrier() == Carrier::Udp && rest.len() >= udp::HEADER_LEN {
        bytes[l4 + 4..l4 + 6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    }
    bytes
}

fn rest(variant: &Variant, frame: &[u8]) -> Vec<u8> {
    frame[ethernet::HEADER_LEN + if variant.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }..].to_vec()
}

#[test]
fn what_is_pushed_opens_to_the_inner_packet_and_to_what_it_was_written_from() {
    let bench = Bench::new();
    let mut names = std::collections::HashSet::new();
    for variant in variants::all_and_behaviours() {
        let bytes = variant.wrapped();
        checksums::verify(&bytes).unwrap_or_else(|error| panic!("{}: {error}", variant.name));
        assert_eq!(bytes.len(), variant.header.len() + variant.inner().len());
        let opened = bench.open(&variant, &variant.options, &bytes, false, |packet, ext| {
            assert_eq!(packet.data(), variant.inner(), "{}", variant.name);
            assert_eq!(ext.tunnel, variant.line, "{}", variant.name);
            assert_eq!(&ext.options[..variant.geneve.len()], variant.geneve, "{}", variant.name);
            assert_eq!(ext.options[variant.geneve.len()..], [0; 256][variant.geneve.len()..], "{}", variant.name);
            let layer3 = packet.flags.contains(PacketFlags::LAYER3).then_some(packet.l3_type);
            assert_eq!(layer3, variant.layer3, "{}", variant.name);
        });
        assert_eq!(opened, Ok(()), "{}", variant.name);
        assert!(names.insert(variant.name.clone()), "two variants are {}", variant.name);
    }
    for kind in Kind::ALL {
        assert!(variants::all().iter().any(|variant| variant.kind == *kind), "{kind:?} has no variant");
    }
}

#[test]
fn packets_that_are_cut_off_anywhere_are_dropped_or_end_there() {
    let bench = Bench::new();
    for variant in variants::all_and_behaviours() {
        let bytes = variant.wrapped();
        // The lengths still say what they said.
        for len in 0..bytes.len() {
            let opened = bench.open(&variant, &variant.options, &bytes[..len], true, |_, _| ());
            assert!(opened.is_err(), "{} of {len} bytes", variant.name);
        }
        // The outer lengths say how much is left.
        let whole = rest(&variant, &bytes);
        for len in 0..whole.len() {
            let cut = with_rest(&variant, &bytes, &whole[..len]);
            let opened = bench.open(&variant, &variant.options, &cut, true, |packet, ext| {
                assert_eq!(ext.tunnel, variant.line);
                packet.data().to_vec()
            });
            match opened {
                Ok(left) => assert!(cut.len() >= variant.header.len() && variant.inner().starts_with(&left)),
                // GRE's checksum and GTP-U's length are of the packet as it was.
                Err(_) => assert!(
                    cut.len() < variant.header.len() || variant.sum || variant.kind == Kind::Gtpu,
                    "{} of {len} bytes",
                    variant.name
                ),
            }
        }
    }
}

#[test]
fn every_other_byte_opens_or_is_dropped_and_checksums_see_it() {
    let bench = Bench::new();
    for variant in variants::all_and_behaviours() {
        let mut bytes = variant.wrapped();
        let own = variant.own_at();
        let is_first = !variant.v6 || variant.kind == Kind::Srv6;
        let covered = if variant.kind.carrier() == Carrier::Udp { own - 4 } else { own };
        for at in 12..variant.header.len() {
            let right = bytes[at];
            // All values in the tunnel's own header over IPv4; else, where the headers are the same, one bit more or less.
            for value in (0..=255)
                .filter(|value| *value != right && (is_first && at >= own || (value ^ right).count_ones() == 1))
            {
                bytes[at] = value;
                let opened = bench.open(&variant, &variant.options, &bytes, false, |_, _| ());
                // Not under the checksum: the flag that says there is one, and the field, which may come to say that there is none.
                let flag_or_field = match variant.kind.carrier() {
                    Carrier::Udp => (own - 2..own).contains(&at),
                    _ => at == own,
                };
                if variant.sum && at >= covered && !flag_or_field {
                    assert!(opened.is_err(), "{} with {value:02x} at {at}", variant.name);
                }
            }
            bytes[at] = right;
        }
    }
}

#[test]
fn sequence_numbers_and_times_are_each_packets_own() {
    let pool = Pool::new(1, 4096, 640).unwrap();
    for variant in variants::all_and_behaviours() {
        let (template, sequence) = (variant.template(), Sequence::starting(SEQUENCE));
        let packets: Vec<Vec<u8>> = (0..3)
            .map(|i| {
                let mut packet = pool.packet(&variant.inner()).unwrap();
                let now = Nanos(NOW.0 + i * 1_000_000);
                template.push(&mut packet, ENTROPY, None, Moment { sequence: &sequence, now }).unwrap();
                let bytes = packet.data().to_vec();
                pool.free(&mut packet);
                bytes
            })
            .collect();
        assert_eq!(packets[0], variant.wrapped());
        let has_sequence = variant.name.contains("seq") || variant.name.starts_with("erspan");
        assert_eq!(sequence.next(), SEQUENCE + if has_sequence { 3 } else { 0 }, "{}", variant.name);
        if !has_sequence {
            assert_eq!(packets[0], packets[2]);
            continue;
        }
        let own = variant.own_at();
        let at = match variant.kind {
            Kind::Gtpu => own + 8,
            Kind::Erspan | Kind::Ip6Erspan => own + 6,
            _ => variant.header.len() - 2,
        };
        for (packet, number) in packets.iter().zip(SEQUENCE as u16..) {
            assert_eq!(packet[at..at + 2], number.to_be_bytes(), "{}", variant.name);
        }
        if variant.name.starts_with("erspan-3") {
            let ticks = |i: usize| u32::from_be_bytes(*packets[i][own + 12..].first_chunk().unwrap());
            assert_eq!((ticks(0), ticks(1), ticks(2)), (123_456_789, 123_456_799, 123_456_809));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_behind_outer_headers_open_or_are_dropped(
        which in any::<prop::sample::Index>(),
        keep in 0usize..60,
        random in proptest::collection::vec(any::<u8>(), 0..150),
        changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..4),
        options in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        trusted in any::<bool>(),
    ) {
        let variants = variants::all_and_behaviours();
        let variant = which.get(&variants);
        let (gbp, gpe, zero_checksum6, ecn, knows, reduced) = options;
        let known_options = knows.then(|| Box::from([(0x0102, 0x80)]));
        let options = Options { gbp, gpe, zero_checksum6, known_options, reduced, ..variant.options.clone() };
        let frame = variant.wrapped();
        let mut rest = rest(variant, &frame);
        rest.truncate(keep.max(if variant.kind.carrier() == Carrier::Udp { 8 } else { 0 }));
        rest.extend(random);
        for (at, value) in changes {
            if let Some(byte) = rest.get_mut(at) {
                *byte = value;
            }
        }
        let bytes = with_rest(variant, &frame, &rest);
        let bench = Bench::new();
        let first = bench.open(variant, &options, &bytes, trusted, |packet, _| packet.data().to_vec());
        // With marks of congestion the inner packet changes in its mark alone, if anything.
        if ecn {
            let (pool, options) = (&bench.pool, Options { ecn, ..options });
            let mut packet = pool.packet(&bytes).unwrap();
            extract_whole(&mut packet, None, ExtractOptions::default()).unwrap();
            if trusted {
                packet.flags.insert(PacketFlags::CHECKSUM_GOOD);
            }
            let result = open(&mut packet, &mut Ext::default(), variant.kind, &options);
            prop_assert_eq!(result.is_ok(), first.is_ok());
            if let Ok(left) = first {
                prop_assert_eq!(packet.data(), &left[..]);
            }
            pool.free(&mut packet);
        }
    }
}

#[test]
fn a_stamp_makes_the_same_packets_as_the_way_of_all_kinds() {
    let pool = Pool::new(2, 70_000, 640).unwrap();
    let sequence = Sequence::starting(SEQUENCE);
    let moment = Moment { sequence: &sequence, now: NOW };
    let mut stamped = 0;
    for variant in variants::all_and_behaviours() {
        let ids = [None, Some(variant.kind.id_bytes(0x12_3456))];
        let templates = [variant.template(), variant.template().with_source_ports(7, 9)];
        for (id, template) in ids.iter().flat_map(|&id| templates.iter().map(move |template| (id, template))) {
            let Some(stamp) = template.stamp(id) else { continue };
            stamped += 1;
            let longest = PACKET_LEN_MAX - template.len();
            for (len, entropy) in [(14, 0), (60, u32::MAX), (1_500, ENTROPY), (longest, 1 << 31), (longest + 1, 1)] {
                let mut packets = [(); 2].map(|()| pool.packet(&vec![0x5a; len]).unwrap());
                let pushed = template.push_any(&mut packets[0], entropy, id, moment);
                assert_eq!(pushed, if len > longest { Err(DropReason::TxTooLong) } else { Ok(()) }, "{}", variant.name);
                assert_eq!(stamp.push(&mut packets[1], entropy), pushed.is_ok(), "{} of {len} bytes", variant.name);
                let facts = packets.each_ref().map(|p| (p.data().to_vec(), p.l2_5, p.l3, p.l4, p.flags));
                assert_eq!(facts[0], facts[1], "{}", variant.name);
                packets.iter_mut().for_each(|packet| pool.free(packet));
            }
            let mut without_room = pool.packet(&[1; 60]).unwrap();
            assert!(without_room.push_front(640 - template.len() + 1));
            assert!(!stamp.push(&mut without_room, ENTROPY));
            assert_eq!(template.push(&mut without_room, ENTROPY, id, moment), Err(DropReason::NoHeadroom));
            pool.free(&mut without_room);
        }
        let inherit = Inherit { ecn: true, ..Inherit::NONE };
        assert!(variant.template().with_inherit(inherit).stamp(None).is_none(), "{}", variant.name);
    }
    assert!(stamped >= 8, "VXLAN and Geneve over IPv4 are stamped");
}
