//! Masks and actions for the switch under test.

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::choices::Choices;
use super::frames::{ipv4, ipv6, mac, port};
use super::tunnels;
use crate::flow::action::{Action, Actions, HashAlgorithm, Masked, Nsh, SetField, Userspace};
use crate::flow::key::{TUNNEL_CSUM, TUNNEL_GBP, TUNNEL_GENEVE, TUNNEL_KEY, TUNNEL_OAM};
use crate::flow::{FlowKey, FlowMask};
use crate::sim::oracle::parcel::Parcel;

/// Meters that a scenario may have; each is used once, so that what it lets pass does not depend on the order of flows.
pub const METERS: u32 = 8;
/// The bond that exists.
pub const BOND: u32 = 1;
/// In `ct_mark`: bits that hold a packet's number. No flow looks at them.
pub const NUMBER_BITS: u32 = 0xffff;

/// A mask of a few fields of `key`.
pub fn mask(c: &mut Choices<'_>, recirc_id: u32) -> FlowMask {
    let mut mask = FlowMask::default();
    let m = &mut mask.0;
    if !c.once_in(16) {
        m.base.recirc_id = u32::MAX;
    }
    // What comes round again was changed on its way: match it by little.
    let fields = if recirc_id == 0 { c.below(5) } else { c.below(2) };
    for _ in 0..fields {
        field(c, m);
    }
    mask
}

/// A mask of a few fields of the key of a packet that came out of a tunnel.
pub fn mask_inside(c: &mut Choices<'_>) -> FlowMask {
    let mut mask = FlowMask::default();
    let m = &mut mask.0;
    m.base.recirc_id = u32::MAX;
    for _ in 0..c.below(3) {
        tunnel_field(c, m);
    }
    for _ in 0..c.below(3) {
        field(c, m);
    }
    mask
}

fn tunnel_field(c: &mut Choices<'_>, m: &mut FlowKey) {
    let t = &mut m.tunnel;
    match c.below(12) {
        0..3 => t.id.set(u64::MAX),
        3 => prefix(c, &mut t.ipv4_src),
        4 => prefix(c, &mut t.ipv4_dst),
        5 => prefix(c, &mut t.ipv6_src),
        6 => prefix(c, &mut t.ipv6_dst),
        7 => t.flags = c.pick(&[u16::MAX, TUNNEL_KEY, TUNNEL_CSUM, TUNNEL_OAM, TUNNEL_GENEVE, TUNNEL_GBP]),
        8 => (t.tos, t.ttl) = c.pick(&[(0xff, 0), (0, 0xff), (3, 0), (0xfc, 1)]),
        9 => t.tp_src.set(c.pick(&[0xffff, 3])),
        10 => (t.tp_dst, t.opts) = c.pick(&[(U16::MAX_VALUE, [0; 8]), (U16::ZERO, [0xff; 8])]),
        _ => {
            let from = c.pick(&[0, 0, 4, 60, 64, 128, 200]);
            prefix(c, &mut m.options[from..from + 8]);
        }
    }
}

fn prefix(c: &mut Choices<'_>, field: &mut [u8]) {
    let len = field.len();
    match c.below(4) {
        0 => field.fill(0xff),
        1 => field[..len * 3 / 4].fill(0xff),
        2 => field[0] = 0xff,
        _ => field[c.below(len)] |= c.byte(),
    }
}

/// Adds one field, or some of its bits.
fn field(c: &mut Choices<'_>, m: &mut FlowKey) {
    let b = &mut m.base;
    match c.below(36) {
        0..3 => b.in_port = u32::MAX,
        3..6 => b.eth_type.set(0xffff),
        6 => prefix(c, &mut b.eth_src),
        7 => prefix(c, &mut b.eth_dst),
        8 => b.vlan_tci.set(c.pick(&[0xffff, 0x1fff, 0x1000, 0xe000])),
        9 => b.vlan_tpid.set(0xffff),
        10 => b.nw_proto = 0xff,
        11 => b.nw_tos = c.pick(&[0xff, 0xfc, 3]),
        12 => b.nw_ttl = 0xff,
        13 => b.nw_frag = c.pick(&[3, 1, 2]),
        14 => b.tcp_flags.set(c.pick(&[0xfff, 2, 0x12])),
        15 => b.ct_state = 0xff,
        16 => b.ct_zone = 0xffff,
        17 => b.ct_mark = !NUMBER_BITS,
        18 => b.dp_hash = c.pick(&[1, 3, u32::MAX]),
        19 => b.skb_mark = c.pick(&[u32::MAX, 1]),
        20 => b.skb_priority = u32::MAX,
        21 => b.packet_type_ns = 0xff,
        22..25 => prefix(c, &mut b.ipv4_dst),
        25 => prefix(c, &mut b.ipv4_src),
        26 => b.tp_src.set(c.pick(&[0xffff, 3, 0xff00])),
        27 => b.tp_dst.set(c.pick(&[0xffff, 3, 0xff00])),
        28 => prefix(c, &mut m.ipv6.dst),
        29 => prefix(c, &mut m.ipv6.src),
        30 => m.ipv6.label.set(0xf_ffff),
        31 => prefix(c, &mut m.ipv6.nd_target),
        32 => match c.below(3) {
            0 => m.ipv6.arp_sha = [0xff; 6],
            1 => m.ipv6.arp_tha = [0xff; 6],
            _ => (m.misc.nd_reserved, m.misc.nd_options_type) = (U32::new(u32::MAX), 0xff),
        },
        33 => (m.misc.vlan1_tci.as_mut_bytes()).fill(0xff),
        34 => m.misc.mpls[c.below(3)].set(c.pick(&[u32::MAX, 0xffff_f000, 0x100])),
        _ => match c.below(5) {
            0 => m.nsh.np = 0xff,
            1 => m.nsh.path_hdr.set(u32::MAX),
            2 => m.nsh.context[1].set(0xff),
            3 => m.tunnel.as_mut_bytes()[..8].fill(0xff),
            _ => m.options[..8].fill(0xff),
        },
    }
}

/// Makes a mask tell its key from another flow that it overlaps with: adds one bit in which the flow's own mask sees them differ.
/// False if there is none.
pub fn tell_apart(key: &FlowKey, mask: &mut FlowMask, other_key: &FlowKey, other_mask: &FlowMask) -> bool {
    let overlap = key.lines().iter().flatten().zip(other_key.lines().iter().flatten());
    let masks = mask.0.lines().iter().flatten().zip(other_mask.0.lines().iter().flatten());
    if overlap.zip(masks).any(|((a, b), (m, n))| (a ^ b) & m & n != 0) {
        return true;
    }
    let other = other_key.as_bytes().iter().zip(other_mask.0.as_bytes());
    for ((bits, key), (other_key, other_mask)) in mask.0.as_mut_bytes().iter_mut().zip(key.as_bytes()).zip(other) {
        let differing = (key ^ other_key) & other_mask;
        if differing != 0 {
            *bits |= differing;
            return true;
        }
    }
    false
}

/// What actions may be used.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'m> {
    /// The recirculation id of the packets.
    pub recirc_id: u32,
    /// Levels of inner lists.
    pub nesting: u8,
    /// `userspace` and `encap`, which may ask whoever answers upcalls.
    pub upcalls: bool,
    /// The next meter that is not used yet.
    pub meter: Option<&'m core::cell::Cell<u32>>,
}

/// A list of actions.
pub fn actions(c: &mut Choices<'_>, allowed: Allowed<'_>) -> Actions {
    let len = [1, 1, 2, 2, 3, 3, 4, 5, 0][c.below(9)];
    let mut list: Actions = (0..len).map(|_| action(c, allowed)).collect();
    // Most lists lead somewhere.
    if !c.once_in(4) {
        list.push(Action::Output(out(c)));
    }
    // One recirculated copy per list: they multiply.
    let mut copies = 0;
    let last = list.len().saturating_sub(1);
    let mut at = 0;
    list.retain(|action| {
        let is_copy = matches!(action, Action::Recirc(_) | Action::TunnelPop(_)) && at != last;
        at += 1;
        copies += usize::from(is_copy);
        !is_copy || copies == 1
    });
    list
}

/// A port to send to: 1 to 4 exist, 5 is down now and then, 9 does not exist.
fn out(c: &mut Choices<'_>) -> u32 {
    c.pick(&[1, 2, 3, 4, 1, 2, 3, 2, 1, 3, 2, 1, 3, 2, 5, 9])
}

fn action(c: &mut Choices<'_>, allowed: Allowed<'_>) -> Action {
    let inner = |c: &mut Choices<'_>| match allowed.nesting {
        0 => vec![Action::Output(out(c))],
        // Meters of inner lists would see packets in another order.
        nesting => actions(c, Allowed { nesting: nesting - 1, meter: None, ..allowed }),
    };
    match c.below(56) {
        48..51 => Action::TunnelPush(Box::new(tunnels::push(c))),
        51..53 => Action::TunnelPop(tunnels::number(c)),
        53..56 if allowed.upcalls => encap(c),
        0..8 => Action::Output(out(c)),
        8..10 => Action::LbOutput(c.pick(&[BOND, BOND, BOND, 7])),
        10 if allowed.upcalls => {
            let userdata = c.once_in(2).then(|| vec![c.byte()]);
            Action::Userspace(Userspace { pid: 1, userdata, ..Userspace::default() })
        }
        11..23 => Action::Set(set_field(c)),
        23..25 => Action::PushVlan { tpid: c.pick(&[0x8100, 0x88a8]), tci: c.short() | 0x1000 },
        25..27 => Action::PopVlan,
        27 => Action::PushMpls { lse: c.word() & 0xffff_f1ff, ethertype: c.pick(&[0x8847, 0x8848, 0x0800]) },
        28 => Action::AddMpls {
            lse: c.word() & 0xffff_f1ff,
            ethertype: c.pick(&[0x8847, 0x8848]),
            tun_flags: u16::from(c.byte() & 1),
        },
        29..31 => Action::PopMpls { ethertype: c.pick(&[0x0800, 0x86dd, 0x8847, 0x6558]) },
        31 => Action::PushEth { dst: mac(c), src: mac(c) },
        32 => Action::PopEth,
        33 => Action::PushNsh(nsh(c)),
        34 => Action::PopNsh,
        35..37 => Action::DecTtl,
        // Upwards, so that most chains end; now and then round and round.
        37..40 => Action::Recirc(if c.once_in(16) { 1 } else { allowed.recirc_id % 8 + 1 }),
        40 => Action::Hash { algorithm: c.pick(&[HashAlgorithm::L4, HashAlgorithm::SymL4]), basis: c.word() & 3 },
        41 => Action::Sample { probability: c.pick(&[u32::MAX, 0]), actions: inner(c) },
        42 => Action::Clone(inner(c)),
        43 => {
            let len = c.pick(&[60, 42, 0, 100]);
            Action::CheckPktLen { len, if_greater: inner(c), if_less_equal: inner(c) }
        }
        44 => Action::Trunc(c.pick(&[64, 20, 0, 1000])),
        45..47 => match allowed.meter {
            Some(next) if next.get() < METERS => Action::Meter(next.replace(next.get() + 1)),
            _ => Action::Meter(METERS),
        },
        47 if c.once_in(2) => Action::Drop(0),
        _ => Action::DecTtl,
    }
}

/// Actions that put a packet into a tunnel and send it.
pub fn into_tunnel(c: &mut Choices<'_>) -> Actions {
    match c.below(3) {
        0 => vec![Action::TunnelPush(Box::new(tunnels::push(c))), Action::Output(out(c))],
        1 => vec![encap(c), Action::Output(out(c))],
        _ => vec![encap(c)],
    }
}

fn encap(c: &mut Choices<'_>) -> Action {
    let id = c.once_in(2).then(|| if c.once_in(4) { c.word() } else { 1 + u32::from(c.byte() & 3) });
    Action::Encap { tunnel: tunnels::number(c), id }
}

fn nsh(c: &mut Choices<'_>) -> Nsh {
    let mdtype = c.pick(&[1, 2, 1, 3]);
    let context = match mdtype {
        1 if !c.once_in(16) => c.array::<16>().to_vec(),
        _ => vec![1; usize::from(c.byte() & 3) * 4],
    };
    Nsh { flags: c.byte() & 3, ttl: c.byte() & 63, mdtype, np: 0, path_hdr: c.word(), context }
}

/// All bits, none, or some.
fn bits<const N: usize>(c: &mut Choices<'_>, value: [u8; N]) -> Masked<[u8; N]> {
    let mask = match c.below(4) {
        0 | 1 => [0xff; N],
        2 => [0; N],
        _ => c.array(),
    };
    Masked { value: core::array::from_fn(|i| value[i] & mask[i]), mask }
}

fn bits8(c: &mut Choices<'_>, value: u8) -> Masked<u8> {
    let m = bits(c, [value]);
    Masked { value: m.value[0], mask: m.mask[0] }
}

fn bits16(c: &mut Choices<'_>, value: u16) -> Masked<u16> {
    let m = bits(c, value.to_be_bytes());
    Masked { value: u16::from_be_bytes(m.value), mask: u16::from_be_bytes(m.mask) }
}

fn bits32(c: &mut Choices<'_>, value: u32) -> Masked<u32> {
    let m = bits(c, value.to_be_bytes());
    Masked { value: u32::from_be_bytes(m.value), mask: u32::from_be_bytes(m.mask) }
}

/// The value first, then which bits of it.
macro_rules! some_of {
    ($bits:ident, $c:ident, $value:expr) => {{
        let value = $value;
        $bits($c, value)
    }};
}

fn set_field(c: &mut Choices<'_>) -> SetField {
    match c.below(24) {
        0 => SetField::Priority(some_of!(bits32, c, c.word() & 3)),
        1 => SetField::SkbMark(some_of!(bits32, c, c.word() & 3)),
        2 => SetField::DpHash(some_of!(bits32, c, c.word())),
        3 => SetField::RecircId(some_of!(bits32, c, c.word() & 3)),
        4 => tunnel(c),
        5..8 => {
            let mut both = [0; 12];
            both[..6].copy_from_slice(&mac(c));
            both[6..].copy_from_slice(&mac(c));
            SetField::Ethernet(if c.once_in(2) { bits(c, both) } else { Masked { value: both, mask: [0xff; 12] } })
        }
        8..12 => SetField::Ipv4 {
            src: some_of!(bits, c, ipv4(c)),
            dst: some_of!(bits, c, ipv4(c)),
            tos: some_of!(bits8, c, c.byte()),
            ttl: some_of!(bits8, c, c.byte()),
        },
        12..15 => {
            let label = some_of!(bits32, c, c.word() & 0xf_ffff);
            SetField::Ipv6 {
                src: some_of!(bits, c, ipv6(c)),
                dst: some_of!(bits, c, ipv6(c)),
                label: Masked { value: label.value & 0xf_ffff, mask: label.mask & 0xf_ffff },
                tclass: some_of!(bits8, c, c.byte()),
                hlimit: some_of!(bits8, c, c.byte()),
            }
        }
        15 => SetField::Tcp { src: some_of!(bits16, c, port(c)), dst: some_of!(bits16, c, port(c)) },
        16 => SetField::Udp { src: some_of!(bits16, c, port(c)), dst: some_of!(bits16, c, port(c)) },
        17 => SetField::Sctp { src: some_of!(bits16, c, port(c)), dst: some_of!(bits16, c, port(c)) },
        18 => {
            SetField::Icmp { v6: c.once_in(2), kind: some_of!(bits8, c, c.byte()), code: some_of!(bits8, c, c.byte()) }
        }
        19 => SetField::Arp {
            sip: some_of!(bits, c, ipv4(c)),
            tip: some_of!(bits, c, ipv4(c)),
            op: some_of!(bits16, c, c.short()),
            sha: some_of!(bits, c, mac(c)),
            tha: some_of!(bits, c, mac(c)),
        },
        20 => SetField::Nd {
            target: some_of!(bits, c, ipv6(c)),
            sll: some_of!(bits, c, mac(c)),
            tll: some_of!(bits, c, mac(c)),
        },
        21 => SetField::NdExtensions {
            reserved: some_of!(bits32, c, c.word()),
            options_type: some_of!(bits8, c, c.byte() & 3),
        },
        22 => SetField::Mpls(some_of!(bits32, c, c.word())),
        _ => SetField::Nsh {
            flags: some_of!(bits8, c, c.byte()),
            ttl: some_of!(bits8, c, c.byte()),
            path_hdr: some_of!(bits32, c, c.word()),
            context: some_of!(bits, c, c.array()),
        },
    }
}

fn tunnel(c: &mut Choices<'_>) -> SetField {
    let mut line = FlowKey::default().tunnel;
    line.id.set(u64::from(c.byte() & 3));
    line.ipv4_dst = ipv4(c);
    let options = if c.once_in(2) { c.array::<8>().to_vec() } else { Vec::new() };
    SetField::Tunnel(Box::new((line, options)))
}

/// The key that a flow for `parcel` has.
pub fn key_of(parcel: &Parcel, vlan_depth: u8) -> Option<FlowKey> {
    parcel.clone().look(vlan_depth)
}
