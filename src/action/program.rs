//! [`Program`]: a flow's actions, compiled once for the packet path.

use std::sync::Arc;

use crate::flow::action::{Action, Actions, HashAlgorithm, Masked, Nsh, SetField, TunnelPush, Userspace};
use crate::tunnel::template::TemplateError;
use crate::tunnel::{Kind, Template};

/// Levels of nesting that actions may have.
pub const NESTING_MAX: usize = 32;

/// One instruction.
#[derive(Debug)]
pub(super) enum Op {
    Output(u32),
    /// Two outputs or more with which a list ends: nothing changes the packet in between.
    Outputs(Box<[u32]>),
    LbOutput(u32),
    Userspace(Arc<Userspace>),
    /// The most frequent rewrite: both Ethernet addresses, all bits.
    SetEthernet([u8; 12]),
    /// `SetEthernet` and `DecTtl`, in either order: what a router does, in one pass over the packets.
    Route {
        addresses: [u8; 12],
        /// As the list has it; neither sees what the other does.
        ttl_first: bool,
    },
    Set(SetField),
    PushVlan {
        tpid: u16,
        tci: u16,
    },
    PopVlan,
    PushMpls {
        lse: u32,
        ethertype: u16,
    },
    AddMpls {
        lse: u32,
        ethertype: u16,
        tun_flags: u16,
    },
    PopMpls {
        ethertype: u16,
    },
    PushEth {
        dst: [u8; 6],
        src: [u8; 6],
    },
    PopEth,
    PushNsh(Nsh),
    PopNsh,
    TunnelPush {
        template: Box<Template>,
        push: Box<TunnelPush>,
    },
    TunnelPop(u32),
    Encap {
        tunnel: u32,
        id: Option<u32>,
    },
    DecTtl,
    Recirc(u32),
    Hash {
        algorithm: HashAlgorithm,
        basis: u32,
    },
    Sample {
        probability: u32,
        then: Program,
    },
    Clone(Program),
    CheckPktLen {
        len: u16,
        greater: Program,
        less_equal: Program,
    },
    Trunc(u32),
    Meter(u32),
    Drop(u32),
}

/// Compiled actions.
///
/// *Thread-safety.* Immutable; shared by all workers.
#[derive(Debug, Default)]
pub struct Program {
    pub(super) ops: Box<[Op]>,
}

/// Why actions were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Lists are nested deeper than [`NESTING_MAX`].
    #[error("actions are nested deeper than {NESTING_MAX} levels")]
    TooDeep,
    /// `tnl_push` of a kind of tunnel that the engine does not know: `OVS_VPORT_TYPE_*`.
    #[error("tnl_push: tunnels of type {0} are unknown")]
    TunnelType(u32),
    /// `tnl_push` of something else than outer headers.
    #[error("tnl_push: {0}")]
    TunnelHeader(#[from] TemplateError),
}

impl Program {
    /// Compiles `actions`.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn compile(actions: &[Action]) -> Result<Program, CompileError> {
        compile(actions, NESTING_MAX)
    }

    /// The tunnel port, if the program does nothing but take packets out of that tunnel.
    #[inline(always)]
    pub fn only_pop(&self) -> Option<u32> {
        match *self.ops {
            [Op::TunnelPop(port)] => Some(port),
            _ => None,
        }
    }

    /// True if the first thing that the program does is to hash the packet's 5-tuple: the packet's own, not a copy's, since the hash is kept
    /// while other actions change the packet.
    #[inline(always)]
    pub fn hashes_first(&self) -> bool {
        matches!(*self.ops, [Op::TunnelPush { .. }, ..] | [Op::Encap { .. }])
    }

    /// The port, if the program does nothing but send the packet there.
    pub fn only_output(&self) -> Option<u32> {
        match *self.ops {
            [Op::Output(port)] => Some(port),
            _ => None,
        }
    }

    /// The actions that the program carries out, instruction by instruction. Compiled again they give the same program.
    pub fn actions(&self) -> Actions {
        self.ops.iter().flat_map(Op::actions).collect()
    }
}

impl Op {
    /// The actions that the instruction stands for, in their order.
    pub(super) fn actions(&self) -> Actions {
        let set_ethernet = |addresses: &[u8; 12]| Action::Set(SetField::Ethernet(Masked::<[u8; 12]>::full(*addresses)));
        vec![match self {
            Op::Output(port) => Action::Output(*port),
            Op::Outputs(ports) => return ports.iter().map(|&port| Action::Output(port)).collect(),
            Op::LbOutput(bond) => Action::LbOutput(*bond),
            Op::Userspace(u) => Action::Userspace((**u).clone()),
            Op::SetEthernet(addresses) => set_ethernet(addresses),
            Op::Route { addresses, ttl_first: false } => return vec![set_ethernet(addresses), Action::DecTtl],
            Op::Route { addresses, ttl_first: true } => return vec![Action::DecTtl, set_ethernet(addresses)],
            Op::Set(field) => Action::Set(field.clone()),
            Op::PushVlan { tpid, tci } => Action::PushVlan { tpid: *tpid, tci: *tci },
            Op::PopVlan => Action::PopVlan,
            Op::PushMpls { lse, ethertype } => Action::PushMpls { lse: *lse, ethertype: *ethertype },
            Op::AddMpls { lse, ethertype, tun_flags } => {
                Action::AddMpls { lse: *lse, ethertype: *ethertype, tun_flags: *tun_flags }
            }
            Op::PopMpls { ethertype } => Action::PopMpls { ethertype: *ethertype },
            Op::PushEth { dst, src } => Action::PushEth { dst: *dst, src: *src },
            Op::PopEth => Action::PopEth,
            Op::PushNsh(nsh) => Action::PushNsh(nsh.clone()),
            Op::PopNsh => Action::PopNsh,
            Op::TunnelPush { push, .. } => Action::TunnelPush(push.clone()),
            Op::TunnelPop(port) => Action::TunnelPop(*port),
            Op::Encap { tunnel, id } => Action::Encap { tunnel: *tunnel, id: *id },
            Op::DecTtl => Action::DecTtl,
            Op::Recirc(id) => Action::Recirc(*id),
            Op::Hash { algorithm, basis } => Action::Hash { algorithm: *algorithm, basis: *basis },
            Op::Sample { probability, then } => Action::Sample { probability: *probability, actions: then.actions() },
            Op::Clone(then) => Action::Clone(then.actions()),
            Op::CheckPktLen { len, greater, less_equal } => {
                Action::CheckPktLen { len: *len, if_greater: greater.actions(), if_less_equal: less_equal.actions() }
            }
            Op::Trunc(len) => Action::Trunc(*len),
            Op::Meter(id) => Action::Meter(*id),
            Op::Drop(code) => Action::Drop(*code),
        }]
    }
}

fn compile(actions: &[Action], depth: usize) -> Result<Program, CompileError> {
    let depth = depth.checked_sub(1).ok_or(CompileError::TooDeep)?;
    let ops = actions.iter().map(|action| -> Result<Op, CompileError> {
        Ok(match action {
            Action::Output(port) => Op::Output(*port),
            Action::LbOutput(bond) => Op::LbOutput(*bond),
            Action::Userspace(u) => Op::Userspace(Arc::new(u.clone())),
            Action::Set(SetField::Ethernet(m)) if m.mask == [0xff; 12] => Op::SetEthernet(m.value),
            Action::Set(field) => Op::Set(field.clone()),
            Action::PushVlan { tpid, tci } => Op::PushVlan { tpid: *tpid, tci: *tci },
            Action::PopVlan => Op::PopVlan,
            Action::PushMpls { lse, ethertype } => Op::PushMpls { lse: *lse, ethertype: *ethertype },
            Action::AddMpls { lse, ethertype, tun_flags } => {
                Op::AddMpls { lse: *lse, ethertype: *ethertype, tun_flags: *tun_flags }
            }
            Action::PopMpls { ethertype } => Op::PopMpls { ethertype: *ethertype },
            Action::PushEth { dst, src } => Op::PushEth { dst: *dst, src: *src },
            Action::PopEth => Op::PopEth,
            Action::PushNsh(nsh) => Op::PushNsh(nsh.clone()),
            Action::PopNsh => Op::PopNsh,
            Action::TunnelPush(push) => {
                let TunnelPush { tnl_type, header, .. } = &**push;
                let kind = Kind::from_number(*tnl_type).ok_or(CompileError::TunnelType(*tnl_type))?;
                Op::TunnelPush { template: Box::new(Template::new(kind, header)?), push: push.clone() }
            }
            Action::TunnelPop(port) => Op::TunnelPop(*port),
            Action::Encap { tunnel, id } => Op::Encap { tunnel: *tunnel, id: *id },
            Action::DecTtl => Op::DecTtl,
            Action::Recirc(id) => Op::Recirc(*id),
            Action::Hash { algorithm, basis } => Op::Hash { algorithm: *algorithm, basis: *basis },
            Action::Sample { probability, actions } => {
                Op::Sample { probability: *probability, then: compile(actions, depth)? }
            }
            Action::Clone(actions) => Op::Clone(compile(actions, depth)?),
            Action::CheckPktLen { len, if_greater, if_less_equal } => Op::CheckPktLen {
                len: *len,
                greater: compile(if_greater, depth)?,
                less_equal: compile(if_less_equal, depth)?,
            },
            Action::Trunc(len) => Op::Trunc(*len),
            Action::Meter(id) => Op::Meter(*id),
            Action::Drop(code) => Op::Drop(*code),
        })
    });
    let mut ops: Vec<Op> = ops.collect::<Result<_, _>>()?;
    let mut i = 1;
    while i < ops.len() {
        if let (Op::SetEthernet(addresses), Op::DecTtl) | (Op::DecTtl, Op::SetEthernet(addresses)) =
            (&ops[i - 1], &ops[i])
        {
            let ttl_first = matches!(ops[i], Op::SetEthernet(_));
            ops[i - 1] = Op::Route { addresses: *addresses, ttl_first };
            ops.remove(i);
        }
        i += 1;
    }
    let others = ops.iter().rposition(|op| !matches!(op, Op::Output(_))).map_or(0, |last| last + 1);
    if ops.len() - others >= 2 {
        let ports = ops.drain(others..).filter_map(|op| if let Op::Output(port) = op { Some(port) } else { None });
        let ports = ports.collect();
        ops.push(Op::Outputs(ports));
    }
    Ok(Program { ops: ops.into_boxed_slice() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::arbitrary;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_programs_actions_give_the_same_program(actions in arbitrary::actions()) {
            let program = match Program::compile(&actions) {
                Err(CompileError::TunnelType(_) | CompileError::TunnelHeader(_)) => return Ok(()),
                program => program.unwrap(),
            };
            let again = Program::compile(&program.actions()).unwrap();
            prop_assert_eq!(format!("{program:?}"), format!("{again:?}"));
        }
    }

    #[test]
    fn actions_that_were_joined_come_apart_in_their_order() {
        let eth = Action::Set(SetField::Ethernet(Masked::<[u8; 12]>::full([7; 12])));
        for actions in [
            vec![eth.clone(), Action::DecTtl, Action::Output(1), Action::Output(2)],
            vec![Action::DecTtl, eth.clone(), Action::Output(1)],
            vec![eth, Action::PopVlan, Action::DecTtl, Action::Clone(vec![Action::Drop(3)])],
        ] {
            assert_eq!(Program::compile(&actions).unwrap().actions(), actions);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut actions = vec![Action::Output(1)];
        for _ in 0..NESTING_MAX - 1 {
            actions = vec![Action::Clone(actions)];
        }
        assert!(Program::compile(&actions).is_ok());
        assert_eq!(Program::compile(&[Action::Clone(actions)]).unwrap_err(), CompileError::TooDeep);
    }

    #[test]
    fn single_output_is_recognised() {
        assert_eq!(Program::compile(&[Action::Output(3)]).unwrap().only_output(), Some(3));
        assert_eq!(Program::compile(&[Action::Output(3), Action::Output(4)]).unwrap().only_output(), None);
        assert_eq!(Program::compile(&[]).unwrap().only_output(), None);
    }
}
