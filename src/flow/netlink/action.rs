//! `OVS_ACTION_ATTR_*` ⇄ [`Actions`].

use super::super::action::{Action, Actions, HashAlgorithm, Nsh, TUNNEL_HEADER_MAX, TunnelPush, Userspace};
use super::super::attr::{self, action as a, check_pkt_len, dec_ttl, nsh as n, sample, userspace};
use super::nsh::{MDTYPE_1, MDTYPE_2};
use super::wire::{
    ACTION, CHECK_PKT_LEN, CodecError, DEC_TTL, Fault, NSH, SAMPLE, Set, USERSPACE, nested, part, put, walk,
};
use super::{DEPTH_MAX, LEN_MAX, set};

/// TLVs of an NSH header at most: 62 words.
pub(crate) const NSH_TLVS_MAX: usize = 248;

/// Reads a list of actions.
pub fn decode_actions(bytes: &[u8]) -> Result<Actions, CodecError> {
    if bytes.len() > LEN_MAX {
        return Err(ACTION.list_error(Fault::TooLong));
    }
    decode_list(bytes, DEPTH_MAX)
}

fn decode_list(bytes: &[u8], depth: usize) -> Result<Actions, CodecError> {
    let mut actions = Actions::new();
    for attribute in walk(bytes, ACTION) {
        let (number, payload) = attribute?;
        actions.push(decode(number, payload, depth)?);
    }
    Ok(actions)
}

fn fixed<const N: usize>(number: u16, payload: &[u8]) -> Result<[u8; N], CodecError> {
    let fault = Fault::Length { got: payload.len(), want: N };
    payload.try_into().map_err(|_| ACTION.error(number, fault))
}

fn decode(number: u16, payload: &[u8], depth: usize) -> Result<Action, CodecError> {
    let word = || fixed(number, payload).map(u32::from_ne_bytes);
    let empty = |action: Action| fixed::<0>(number, payload).map(|_| action);
    let list = |bytes: &[u8]| match depth {
        0 => Err(ACTION.error(number, Fault::TooDeep)),
        depth => decode_list(bytes, depth - 1),
    };
    match number {
        a::OUTPUT => Ok(Action::Output(word()?)),
        a::USERSPACE => decode_userspace(payload).map(Action::Userspace),
        a::SET => set::decode(payload, false).map(Action::Set),
        a::SET_MASKED => set::decode(payload, true).map(Action::Set),
        a::PUSH_VLAN => {
            let bytes: [u8; 4] = fixed(number, payload)?;
            let [tpid, tci] = [part(&bytes, 0), part(&bytes, 2)].map(u16::from_be_bytes);
            Ok(Action::PushVlan { tpid, tci })
        }
        a::POP_VLAN => empty(Action::PopVlan),
        a::SAMPLE => {
            let mut set = Set::read(payload, SAMPLE)?;
            let probability =
                set.take_u32(sample::PROBABILITY)?.ok_or(SAMPLE.error(sample::PROBABILITY, Fault::Missing))?;
            let actions = set.take(sample::ACTIONS).ok_or(SAMPLE.error(sample::ACTIONS, Fault::Missing))?;
            Ok(Action::Sample { probability, actions: list(actions)? })
        }
        a::RECIRC => Ok(Action::Recirc(word()?)),
        a::HASH => {
            let bytes: [u8; 8] = fixed(number, payload)?;
            let algorithm = match u32::from_ne_bytes(part(&bytes, 0)) {
                attr::HASH_ALG_L4 => HashAlgorithm::L4,
                attr::HASH_ALG_SYM_L4 => HashAlgorithm::SymL4,
                _ => {
                    return Err(ACTION.error(number, Fault::Unsupported(" with an algorithm other than L4 and SYM_L4")));
                }
            };
            Ok(Action::Hash { algorithm, basis: u32::from_ne_bytes(part(&bytes, 4)) })
        }
        a::PUSH_MPLS => {
            // The struct has two bytes of padding.
            let bytes: [u8; 8] = fixed(number, payload)?;
            let lse = u32::from_be_bytes(part(&bytes, 0));
            Ok(Action::PushMpls { lse, ethertype: u16::from_be_bytes(part(&bytes, 4)) })
        }
        a::ADD_MPLS => {
            let bytes: [u8; 8] = fixed(number, payload)?;
            Ok(Action::AddMpls {
                lse: u32::from_be_bytes(part(&bytes, 0)),
                ethertype: u16::from_be_bytes(part(&bytes, 4)),
                tun_flags: u16::from_ne_bytes(part(&bytes, 6)),
            })
        }
        a::POP_MPLS => Ok(Action::PopMpls { ethertype: u16::from_be_bytes(fixed(number, payload)?) }),
        a::TRUNC => Ok(Action::Trunc(word()?)),
        a::PUSH_ETH => {
            let bytes: [u8; 12] = fixed(number, payload)?;
            Ok(Action::PushEth { src: part(&bytes, 0), dst: part(&bytes, 6) })
        }
        a::POP_ETH => empty(Action::PopEth),
        a::PUSH_NSH => decode_push_nsh(payload).map(Action::PushNsh),
        a::POP_NSH => empty(Action::PopNsh),
        a::METER => Ok(Action::Meter(word()?)),
        a::CLONE => Ok(Action::Clone(list(payload)?)),
        a::CHECK_PKT_LEN => {
            let mut set = Set::read(payload, CHECK_PKT_LEN)?;
            let missing = |number| CHECK_PKT_LEN.error(number, Fault::Missing);
            let len = set.take_array(check_pkt_len::PKT_LEN)?.ok_or(missing(check_pkt_len::PKT_LEN))?;
            let mut branch = |number| list(set.take(number).ok_or(missing(number))?);
            Ok(Action::CheckPktLen {
                len: u16::from_ne_bytes(len),
                if_greater: branch(check_pkt_len::ACTIONS_IF_GREATER)?,
                if_less_equal: branch(check_pkt_len::ACTIONS_IF_LESS_EQUAL)?,
            })
        }
        a::DEC_TTL => {
            let expired = Set::read(payload, DEC_TTL)?.take(dec_ttl::ACTION).unwrap_or_default();
            match list(expired)?.as_slice() {
                [] | [Action::Drop(_)] => Ok(Action::DecTtl),
                _ => {
                    Err(ACTION.error(number, Fault::Unsupported(" with other actions than drop for an expired packet")))
                }
            }
        }
        a::DROP => Ok(Action::Drop(word()?)),
        a::TUNNEL_PUSH => decode_tunnel_push(payload).map(|push| Action::TunnelPush(Box::new(push))),
        a::TUNNEL_POP => Ok(Action::TunnelPop(word()?)),
        a::ENCAP => match payload.len() {
            4 => Ok(Action::Encap { tunnel: word()?, id: None }),
            _ => {
                let bytes: [u8; 8] = fixed(number, payload)?;
                let [tunnel, id] = [part(&bytes, 0), part(&bytes, 4)].map(u32::from_ne_bytes);
                Ok(Action::Encap { tunnel, id: Some(id) })
            }
        },
        a::LB_OUTPUT => Ok(Action::LbOutput(word()?)),
        _ if a::name(number).is_some() => Err(ACTION.error(number, Fault::Unsupported(""))),
        _ => Err(ACTION.error(number, Fault::Unknown)),
    }
}

fn decode_userspace(payload: &[u8]) -> Result<Userspace, CodecError> {
    let mut set = Set::read(payload, USERSPACE)?;
    let pid = set.take_u32(userspace::PID)?.ok_or(USERSPACE.error(userspace::PID, Fault::Missing))?;
    Ok(Userspace {
        pid,
        userdata: set.take(userspace::USERDATA).map(<[u8]>::to_vec),
        egress_tun_port: set.take_u32(userspace::EGRESS_TUN_PORT)?,
        actions: set.take_array::<0>(userspace::ACTIONS)?.is_some(),
    })
}

/// Reads `struct ovs_action_push_tnl`: four words, then an array of 512 bytes. What stands in the array behind the header is of no use
/// and may be left out.
fn decode_tunnel_push(payload: &[u8]) -> Result<TunnelPush, CodecError> {
    let error = |fault| Err(ACTION.error(a::TUNNEL_PUSH, fault));
    let Some((words, array)) = payload.split_first_chunk::<16>() else {
        return error(Fault::LengthRule { got: payload.len(), want: "16 and the header" });
    };
    let [tnl_port, out_port, len, tnl_type] = core::array::from_fn(|i| u32::from_ne_bytes(part(words, 4 * i)));
    match array.get(..len as usize) {
        Some(header) if array.len() <= TUNNEL_HEADER_MAX => {
            Ok(TunnelPush { tnl_port, out_port, tnl_type, header: header.to_vec() })
        }
        _ => error(Fault::LengthRule { got: payload.len(), want: "16 and the header, which has at most 512 bytes" }),
    }
}

fn encode_tunnel_push(push: &TunnelPush, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let len = push.header.len();
    if len > TUNNEL_HEADER_MAX {
        let want = "16 and the header, which has at most 512 bytes";
        return Err(ACTION.error(a::TUNNEL_PUSH, Fault::LengthRule { got: 16 + len, want }));
    }
    nested(out, a::TUNNEL_PUSH, |out| {
        for word in [push.tnl_port, push.out_port, len as u32, push.tnl_type] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&push.header);
        out.resize(out.len() + TUNNEL_HEADER_MAX - len, 0);
    });
    Ok(())
}

fn decode_push_nsh(payload: &[u8]) -> Result<Nsh, CodecError> {
    // Open vSwitch nests OVS_KEY_ATTR_NSH in the action, as in a set action.
    let mut set = Set::read(payload, super::wire::KEY)?;
    let inner = set.take(attr::key::NSH).ok_or(super::wire::KEY.error(attr::key::NSH, Fault::Missing))?;
    set.finish("a push_nsh action has one header")?;
    let mut set = Set::read(inner, NSH)?;
    let base = set.take_array::<8>(n::BASE)?.ok_or(NSH.error(n::BASE, Fault::Missing))?;
    let [flags, ttl, mdtype, np] = part(&base, 0);
    let context = match mdtype {
        MDTYPE_1 => {
            let context = set.take_array::<16>(n::MD1)?.ok_or(NSH.error(n::MD1, Fault::Missing))?;
            context.to_vec()
        }
        MDTYPE_2 => {
            let tlvs = set.take(n::MD2).unwrap_or_default();
            if tlvs.len() > NSH_TLVS_MAX || !tlvs.len().is_multiple_of(4) {
                return Err(NSH.error(n::MD2, Fault::LengthRule { got: tlvs.len(), want: "a multiple of 4 up to 248" }));
            }
            tlvs.to_vec()
        }
        _ => return Err(NSH.error(n::BASE, Fault::Invalid("the metadata type is neither 1 nor 2"))),
    };
    set.finish("it does not belong to the metadata type")?;
    Ok(Nsh { flags, ttl, mdtype, np, path_hdr: u32::from_be_bytes(part(&base, 4)), context })
}

/// Appends actions as attributes. On an error, which names the action that is too long for an attribute or nested more
/// deeply than [`decode_actions`] reads, nothing is appended.
pub fn encode_actions(actions: &Actions, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let result = encode_list(actions, DEPTH_MAX, out).and_then(|()| match out.len() - start > LEN_MAX {
        true => Err(ACTION.list_error(Fault::TooLong)),
        false => Ok(()),
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_list(actions: &Actions, depth: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    actions.iter().try_for_each(|action| encode(action, depth, out))
}

fn encode(action: &Action, depth: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    // Appends a nest, and in it the attributes and lists of actions that `fill` asks for.
    let nest = |out: &mut Vec<u8>, number: u16, fill: &dyn Fn(&mut Vec<u8>) -> Result<(), CodecError>| {
        let mut result = Ok(());
        match nested(out, number, |out| result = fill(out)) {
            true => result,
            false => result.and(Err(ACTION.error(number, Fault::TooLong))),
        }
    };
    let list = |out: &mut Vec<u8>, outer: u16, number: u16, actions: &Actions| match depth {
        0 => Err(ACTION.error(outer, Fault::TooDeep)),
        depth => {
            let mut result = Ok(());
            match nested(out, number, |out| result = encode_list(actions, depth - 1, out)) {
                true => result,
                false => result.and(Err(ACTION.error(outer, Fault::TooLong))),
            }
        }
    };
    match action {
        Action::Output(port) => put(out, a::OUTPUT, &port.to_ne_bytes()),
        Action::LbOutput(bond) => put(out, a::LB_OUTPUT, &bond.to_ne_bytes()),
        Action::Userspace(u) => nest(out, a::USERSPACE, &|out| {
            put(out, userspace::PID, &u.pid.to_ne_bytes());
            if let Some(data) = &u.userdata
                && !nested(out, userspace::USERDATA, |out| out.extend_from_slice(data))
            {
                return Err(USERSPACE.error(userspace::USERDATA, Fault::TooLong));
            }
            if let Some(port) = u.egress_tun_port {
                put(out, userspace::EGRESS_TUN_PORT, &port.to_ne_bytes());
            }
            if u.actions {
                put(out, userspace::ACTIONS, &[]);
            }
            Ok(())
        })?,
        Action::Set(field) => {
            let mut masked = false;
            let start = out.len();
            nested(out, a::SET, |out| masked = set::encode(field, out));
            if masked {
                out[start + 2..start + 4].copy_from_slice(&a::SET_MASKED.to_ne_bytes());
            }
        }
        Action::PushVlan { tpid, tci } => put(out, a::PUSH_VLAN, &[tpid.to_be_bytes(), tci.to_be_bytes()].concat()),
        Action::PopVlan => put(out, a::POP_VLAN, &[]),
        Action::PushMpls { lse, ethertype } => {
            put(out, a::PUSH_MPLS, &[&lse.to_be_bytes()[..], &ethertype.to_be_bytes(), &[0; 2]].concat());
        }
        Action::AddMpls { lse, ethertype, tun_flags } => {
            let payload = [&lse.to_be_bytes()[..], &ethertype.to_be_bytes(), &tun_flags.to_ne_bytes()].concat();
            put(out, a::ADD_MPLS, &payload);
        }
        Action::PopMpls { ethertype } => put(out, a::POP_MPLS, &ethertype.to_be_bytes()),
        Action::PushEth { dst, src } => put(out, a::PUSH_ETH, &[*src, *dst].concat()),
        Action::PopEth => put(out, a::POP_ETH, &[]),
        Action::PushNsh(nsh) => encode_push_nsh(nsh, out)?,
        Action::PopNsh => put(out, a::POP_NSH, &[]),
        Action::TunnelPush(push) => encode_tunnel_push(push, out)?,
        Action::TunnelPop(port) => put(out, a::TUNNEL_POP, &port.to_ne_bytes()),
        Action::Encap { tunnel, id } => {
            let words = [Some(*tunnel), *id];
            put(out, a::ENCAP, &words.into_iter().flatten().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>());
        }
        Action::DecTtl => nest(out, a::DEC_TTL, &|out| {
            put(out, dec_ttl::ACTION, &[]);
            Ok(())
        })?,
        Action::Recirc(id) => put(out, a::RECIRC, &id.to_ne_bytes()),
        Action::Hash { algorithm, basis } => {
            let algorithm = match algorithm {
                HashAlgorithm::L4 => attr::HASH_ALG_L4,
                HashAlgorithm::SymL4 => attr::HASH_ALG_SYM_L4,
            };
            put(out, a::HASH, &[algorithm.to_ne_bytes(), basis.to_ne_bytes()].concat());
        }
        Action::Sample { probability, actions } => nest(out, a::SAMPLE, &|out| {
            put(out, sample::PROBABILITY, &probability.to_ne_bytes());
            list(out, a::SAMPLE, sample::ACTIONS, actions)
        })?,
        Action::Clone(actions) => list(out, a::CLONE, a::CLONE, actions)?,
        Action::CheckPktLen { len, if_greater, if_less_equal } => nest(out, a::CHECK_PKT_LEN, &|out| {
            put(out, check_pkt_len::PKT_LEN, &len.to_ne_bytes());
            list(out, a::CHECK_PKT_LEN, check_pkt_len::ACTIONS_IF_GREATER, if_greater)?;
            list(out, a::CHECK_PKT_LEN, check_pkt_len::ACTIONS_IF_LESS_EQUAL, if_less_equal)
        })?,
        Action::Trunc(len) => put(out, a::TRUNC, &len.to_ne_bytes()),
        Action::Meter(id) => put(out, a::METER, &id.to_ne_bytes()),
        Action::Drop(reason) => put(out, a::DROP, &reason.to_ne_bytes()),
    }
    Ok(())
}

fn encode_push_nsh(nsh: &Nsh, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let (number, fits) = match nsh.mdtype {
        MDTYPE_1 => (n::MD1, nsh.context.len() == 16),
        MDTYPE_2 => (n::MD2, nsh.context.len() <= NSH_TLVS_MAX && nsh.context.len().is_multiple_of(4)),
        _ => return Err(NSH.error(n::BASE, Fault::Invalid("the metadata type is neither 1 nor 2"))),
    };
    if !fits {
        let want = "16 for type 1, a multiple of 4 up to 248 for type 2";
        return Err(NSH.error(number, Fault::LengthRule { got: nsh.context.len(), want }));
    }
    nested(out, a::PUSH_NSH, |out| {
        nested(out, attr::key::NSH, |out| {
            let base = [&[nsh.flags, nsh.ttl, nsh.mdtype, nsh.np], &nsh.path_hdr.to_be_bytes()[..]].concat();
            put(out, n::BASE, &base);
            if !nsh.context.is_empty() {
                put(out, number, &nsh.context);
            }
        });
    });
    Ok(())
}
