//! The oracle: the switch as a plain list of rules, which says what the engine should have done.
//!
//! One packet at a time is parsed ([`parse`]), compared with every rule in turn, and changed by one action after the other
//! ([`Headers`]) in a vector of bytes. There is no cache, no batch, no buffer and no incremental anything; what the engine does faster must
//! come to the same. *Specification by example* would be its other name: where the engine and this disagree, one of them is wrong, and
//! this one can be read.
//!
//! Not in it: `hash` and what looks at its result (the function is the engine's own affair), `sample` with a share in between, meters that
//! exist, NSH and ND rewriting, tunnels. Those have tests of their own.

mod headers;
mod parse;

use crate::flow::action::{Action, Actions, SetField, Userspace};
use crate::flow::{FlowKey, FlowMask};
use crate::packet::{DropReason, Fate};
pub use headers::Headers;
pub use parse::{Parsed, parse};

/// Recirculations that a packet may have behind it.
pub const RECIRCULATIONS_MAX: u8 = 8;

/// A rule, and how often it matched.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What to match.
    pub key: FlowKey,
    /// Which bits of it.
    pub mask: FlowMask,
    /// What to do.
    pub actions: Actions,
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their TCP flags.
    pub tcp_flags: u16,
}

impl Rule {
    /// A rule that never matched yet.
    pub fn new(key: &FlowKey, mask: &FlowMask, actions: Actions) -> Self {
        Rule { key: key.masked(mask), mask: *mask, actions, packets: 0, bytes: 0, tcp_flags: 0 }
    }

    /// True if some packet could match both rules.
    pub fn overlaps(&self, other: &Rule) -> bool {
        let lines = self.key.lines().iter().zip(other.key.lines());
        let masks = self.mask.0.lines().iter().zip(other.mask.0.lines());
        lines.zip(masks).all(|((a, b), (m, n))| (0..8).all(|i| (a[i] ^ b[i]) & m[i] & n[i] == 0))
    }
}

/// A port.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its number.
    pub number: u32,
    /// It can carry traffic.
    pub up: bool,
    /// The longest packet it sends.
    pub packet_len_max: usize,
}

/// What a handler does with a packet of a `userspace` action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Punted {
    /// Keeps it.
    Consumed,
    /// Refuses it.
    Refused,
    /// Wants these actions carried out.
    Actions(Actions),
}

/// What became of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The packet's own fate.
    pub fate: Fate,
    /// What was sent, in order: port and bytes.
    pub sent: Vec<(u32, Vec<u8>)>,
    /// Copies that were made.
    pub copies: u64,
    /// Fates of the copies.
    pub copy_fates: Vec<Fate>,
}

/// The switch.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Rules; the first that matches counts.
    pub rules: Vec<Rule>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Bonds whose every bucket is the same port: id and port.
    pub bonds: Vec<(u32, u32)>,
    /// The upcall handler for `userspace`.
    pub punt: Option<fn(&Userspace) -> Punted>,
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Packet {
    headers: Headers,
    /// Metadata, in the fields that a key has for it.
    metadata: FlowKey,
    /// The next output sends at most so much.
    trunc: Option<usize>,
    /// A copy of it was made for somebody.
    copied: bool,
    depth: u8,
}

impl Oracle {
    /// Carries one packet to its fate.
    pub fn process(&mut self, bytes: &[u8], in_port: u32) -> Outcome {
        let mut outcome = Outcome { fate: Fate::Undecided, sent: Vec::new(), copies: 0, copy_fates: Vec::new() };
        let mut metadata = FlowKey::default();
        metadata.base.in_port = in_port;
        let headers = Headers::new(bytes.to_vec());
        let packet = Packet { headers, metadata, trunc: None, copied: false, depth: 0 };
        outcome.fate = self.look_up(packet, &mut outcome);
        outcome
    }

    fn look_up(&mut self, mut packet: Packet, outcome: &mut Outcome) -> Fate {
        let Some(key) = packet.headers.look() else { return Fate::Dropped(DropReason::RxInvalid) };
        let mut whole = FlowMask(key);
        whole.unite(&FlowMask(packet.metadata));
        let key = whole.0;
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.mask.matches(&rule.key, &key)) else {
            return Fate::Dropped(DropReason::Miss);
        };
        rule.packets += 1;
        rule.bytes += packet.headers.bytes().len() as u64;
        rule.tcp_flags |= key.base.tcp_flags.get();
        let actions = rule.actions.clone();
        self.run(packet, &actions, outcome)
    }

    /// Carries out a list on a packet that the list owns; the packet's fate.
    fn run(&mut self, mut packet: Packet, actions: &[Action], outcome: &mut Outcome) -> Fate {
        for (i, action) in actions.iter().enumerate() {
            if let Err(reason) = headers::change(&mut packet.headers, action) {
                return Fate::Dropped(reason);
            }
            match action {
                Action::Set(SetField::SkbMark(mark)) => {
                    packet.metadata.base.skb_mark = mark.apply(packet.metadata.base.skb_mark);
                }
                Action::Set(SetField::Priority(priority)) => {
                    packet.metadata.base.skb_priority = priority.apply(packet.metadata.base.skb_priority);
                }
                Action::Trunc(len) => packet.trunc = Some(*len as usize),
                Action::Drop(_) => return Fate::Dropped(DropReason::Explicit),
                action if !parts_with(action, &packet) => {}
                // The last action has the packet itself; one in between has a copy, and with it what `trunc` asked for.
                action if i + 1 == actions.len() => return self.part(packet, action, outcome),
                action => {
                    let copy = Packet { copied: false, ..packet.clone() };
                    (packet.copied, packet.trunc) = (true, None);
                    outcome.copies += 1;
                    let fate = self.part(copy, action, outcome);
                    outcome.copy_fates.push(fate);
                }
            }
        }
        if packet.copied { Fate::Transmitted } else { Fate::Dropped(DropReason::NoOutput) }
    }

    /// An action that takes the packet away.
    fn part(&mut self, packet: Packet, action: &Action, outcome: &mut Outcome) -> Fate {
        match action {
            Action::Output(port) => self.send(packet, *port, outcome),
            Action::LbOutput(bond) => match self.bonds.iter().find(|(id, _)| id == bond) {
                Some(&(_, port)) => self.send(packet, port, outcome),
                None => Fate::Dropped(DropReason::InvalidBond),
            },
            Action::Recirc(id) => {
                let depth = packet.depth + 1;
                if depth > RECIRCULATIONS_MAX {
                    return Fate::Dropped(DropReason::RecirculationLimit);
                }
                let mut packet = Packet { depth, ..packet };
                packet.metadata.base.recirc_id = *id;
                self.look_up(packet, outcome)
            }
            Action::Clone(actions) | Action::Sample { actions, .. } => self.run(packet, actions, outcome),
            Action::CheckPktLen { len, if_greater, if_less_equal } => {
                let is_greater = packet.headers.bytes().len() > usize::from(*len);
                self.run(packet, if is_greater { if_greater } else { if_less_equal }, outcome)
            }
            Action::Userspace(request) => match self.punt.map(|punt| punt(request)) {
                Some(Punted::Actions(actions)) => self.run(packet, &actions, outcome),
                Some(Punted::Refused) => Fate::Dropped(DropReason::UpcallRefused),
                Some(Punted::Consumed) | None => Fate::Upcall,
            },
            _ => Fate::Dropped(DropReason::UnsupportedAction),
        }
    }

    fn send(&self, mut packet: Packet, port: u32, outcome: &mut Outcome) -> Fate {
        let Some(port) = self.ports.iter().find(|p| p.number == port) else {
            return Fate::Dropped(DropReason::InvalidPort);
        };
        if !port.up {
            return Fate::Dropped(DropReason::PortDown);
        }
        let bytes = packet.headers.take();
        let len = packet.trunc.take().unwrap_or(usize::MAX).min(bytes.len());
        if len > port.packet_len_max {
            return Fate::Dropped(DropReason::TxTooLong);
        }
        outcome.sent.push((port.number, bytes[..len].to_vec()));
        Fate::Transmitted
    }
}

/// True if `action` takes the packet, or a copy of it, somewhere else.
fn parts_with(action: &Action, packet: &Packet) -> bool {
    match action {
        Action::Output(_)
        | Action::LbOutput(_)
        | Action::Recirc(_)
        | Action::Clone(_)
        | Action::CheckPktLen { .. }
        | Action::Userspace(_) => true,
        Action::Sample { probability, .. } => {
            assert!(matches!(*probability, 0 | u32::MAX), "the oracle does not throw dice: {packet:?}");
            *probability == u32::MAX
        }
        _ => false,
    }
}
