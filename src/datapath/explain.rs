//! Why a packet ends as it does: [`explain`] carries one through a worker and keeps each lookup, each action with the packet before
//! and after it, each decision, and every end.
//!
//! It is the engine's own way that is watched, not a copy of it. Only short cuts are left out that treat packets as a group:
//! actions run on one packet at a time, and a program that is nothing but an output runs as a program. What the packet does is
//! real: flows and meters count it, misses go to the upcall handler. Only what would be sent is kept instead. One thing may turn out
//! differently: `sample` draws its random numbers in another order if several copies share a flow.
//!
//! Every step keeps the packet's bytes, so a long list on a long packet takes memory: this is for the control side.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;

use super::observe::{Observer, Tier};
use super::{Sink, Worker};
use crate::action::step::Step;
use crate::flow::action::Action;
use crate::flow::extract::{ExtractOptions, extract_whole};
use crate::flow::{Ext, FlowKey};
use crate::packet::buffer::PACKET_LEN_MAX;
use crate::packet::{DropReason, Fate, Packet, Pool};
use crate::port::TxBurst;
use crate::time::Nanos;

/// The way of one packet. Wherever a `who` is: 0 is the packet, above are its copies in the order in which they were made.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Its lookups, and those of its copies, in order. None if it was refused before the first.
    pub passes: Vec<Pass>,
    /// What was to be sent, in the order of the actions.
    pub sent: Vec<Sent>,
    /// How the packet ended.
    pub fate: Fate,
    /// How everybody ended, by `who`.
    pub ends: Vec<End>,
}

/// A lookup and what followed from it.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Who was looked up.
    pub who: usize,
    /// What was looked up.
    pub key: FlowKey,
    /// Which table knew the flow.
    pub tier: Tier,
    /// The flow's number.
    pub flow: Option<u32>,
    /// What was done, in order.
    pub steps: Vec<Taken>,
    /// What happened outside of all steps.
    pub notes: Vec<Note>,
}

/// An action that was carried out.
#[derive(Clone, Debug)]
pub struct Taken {
    /// On whom.
    pub who: usize,
    /// The action.
    pub action: Action,
    /// The packet before it.
    pub before: Seen,
    /// The packet after it; `None` if its list did not go on with it.
    pub after: Option<Seen>,
    /// Decisions and ends within it, in order.
    pub notes: Vec<Note>,
    /// Actions within it, in order.
    pub steps: Vec<Taken>,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// `sample` is carried out, or not; the packet is longer than `check_pkt_len` says, or not.
    Chose(bool),
    /// A copy was made, and this is its number.
    Copied(usize),
    /// There was no buffer for a copy.
    NotCopied,
    /// The packet moved to a bigger buffer for want of headroom.
    Moved,
    /// `lb_output` chose a port of the bond by the packet's hash.
    Member {
        /// The hash.
        hash: u32,
        /// The port, if there is one.
        port: Option<u32>,
    },
    /// So many bytes went to the upcall handler.
    Handed(usize),
    /// So many bytes are to be sent to the port.
    Queued {
        /// Whose.
        who: usize,
        /// The port.
        port: u32,
        /// How many.
        len: usize,
    },
    /// The packet or copy came to its end other than at a port.
    Ended {
        /// Who did.
        who: usize,
        /// How.
        fate: Fate,
    },
}

/// How the packet or a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This port has taken it.
    Sent(u32),
    /// Otherwise. [`Fate::Transmitted`] is a packet whose list ended after copies of it went out.
    Fate(Fate),
}

/// A packet at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many of them, at the end, `trunc` leaves out when it is sent.
    pub cut: usize,
    /// The key that a lookup would see; `None` if one would refuse the packet.
    pub key: Option<FlowKey>,
}

/// A packet that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Whose it is.
    pub who: usize,
    /// The port.
    pub port: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Carries `packet` through `worker`, as [`Worker::process`] would at `now`, and tells what happened. Nothing is sent. The packet's buffer
/// stays its owner's, or goes back to the worker's pool.
///
/// # Errors
/// There is no memory to look at the packet.
pub fn explain(worker: &mut Worker, packet: &mut Packet, now: Nanos) -> std::io::Result<Explanation> {
    let options = worker.datapath().shared.extract;
    let bench = Pool::new(1, PACKET_LEN_MAX as u32 + 1, 0)?;
    let whos = [(0, 0)].into_iter().collect();
    let ends = vec![End::Fate(Fate::Undecided)];
    let (queued, passes, open) = (Vec::new(), Vec::new(), Vec::new());
    let mut recorder = Recorder { bench, options, whos, ends, queued, passes, open };
    let mut net = Net::default();
    worker.process_observed(core::slice::from_mut(packet), now, &mut net, &mut recorder);
    let fate = worker.fates()[0];
    worker.free(core::slice::from_mut(packet), |_| {});
    let Recorder { passes, ends, queued, .. } = recorder;
    Ok(Explanation { passes, sent: net.in_order_of(&queued), fate, ends })
}

/// Keeps what is sent, by port.
#[derive(Default)]
struct Net(BTreeMap<u32, VecDeque<Vec<u8>>>);

impl Net {
    /// What was sent, in the order in which it was queued: who, and for which port. A port sends what it gets in order.
    fn in_order_of(mut self, queued: &[(usize, u32)]) -> Vec<Sent> {
        let sent = queued.iter().filter_map(|&(who, port)| {
            let bytes = self.0.get_mut(&port)?.pop_front()?;
            Some(Sent { who, port, bytes })
        });
        sent.collect()
    }
}

impl Sink for Net {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        for i in 0..burst.len() {
            self.0.entry(port).or_default().push_back(burst.get(i).data().to_vec());
        }
        (burst.len(), DropReason::TxFull)
    }
}

struct Recorder {
    /// One buffer, in which packets are parsed without touching them.
    bench: Arc<Pool>,
    options: ExtractOptions,
    /// Who has which reference just now.
    whos: AHashMap<u16, usize>,
    /// How each ended, as far as is known.
    ends: Vec<End>,
    /// Who was queued for which port, in order.
    queued: Vec<(usize, u32)>,
    passes: Vec<Pass>,
    /// Actions that are being carried out, outermost first.
    open: Vec<Taken>,
}

impl Recorder {
    fn who(&self, r: u16) -> usize {
        self.whos.get(&r).copied().unwrap_or(0)
    }

    fn see(&self, packet: &Packet, ext: Option<&Ext>) -> Seen {
        let bytes = packet.data().to_vec();
        let key = self.bench.packet(&bytes).and_then(|mut copy| {
            copy.copy_metadata(packet);
            let key = extract_whole(&mut copy, ext, self.options).ok();
            self.bench.free(&mut copy);
            key
        });
        Seen { bytes, cut: ext.map_or(0, |ext| ext.cut.into()), key }
    }

    fn note(&mut self, r: u16, note: Note) {
        let who = self.who(r);
        match self.open.last_mut() {
            Some(step) => step.notes.push(note),
            None => {
                // A copy that was not looked up again belongs to whoever was.
                let own = self.passes.iter().rposition(|pass| pass.who == who);
                if let Some(pass) = own.or(self.passes.len().checked_sub(1)) {
                    self.passes[pass].notes.push(note);
                }
            }
        }
    }
}

impl Observer for Recorder {
    const STEPS: bool = true;

    fn lookup(&mut self, r: u16, _: &Packet, key: &FlowKey, tier: Tier, flow: Option<u32>) {
        let (who, key) = (self.who(r), *key);
        self.passes.push(Pass { who, key, tier, flow, steps: Vec::new(), notes: Vec::new() });
    }

    fn step(&mut self, r: u16, step: Step<'_>) {
        let who = self.who(r);
        match step {
            Step::Begin { action, packet, ext } => {
                let (action, before) = (action.clone(), self.see(packet, ext));
                let (notes, steps) = (Vec::new(), Vec::new());
                self.open.push(Taken { who, action, before, after: None, notes, steps });
            }
            Step::End { packet } => {
                let Some(mut step) = self.open.pop() else { return };
                step.after = packet.map(|(packet, ext)| self.see(packet, ext));
                let outer = match self.open.last_mut() {
                    Some(outer) => Some(&mut outer.steps),
                    None => self.passes.iter_mut().rfind(|pass| pass.who == step.who).map(|pass| &mut pass.steps),
                };
                if let Some(outer) = outer {
                    outer.push(step);
                }
            }
            Step::Chose(chosen) => self.note(r, Note::Chose(chosen)),
            Step::Copied { copy: None } => self.note(r, Note::NotCopied),
            Step::Copied { copy: Some(copy) } => {
                let number = self.ends.len();
                self.ends.push(End::Fate(Fate::Undecided));
                self.whos.insert(copy, number);
                self.note(r, Note::Copied(number));
            }
            Step::Moved { to } => {
                self.note(r, Note::Moved);
                self.whos.insert(to, who);
            }
            Step::Member { hash, port } => self.note(r, Note::Member { hash, port }),
            Step::Handed { len } => self.note(r, Note::Handed(len)),
            Step::Queued { port, len } => {
                self.ends[who] = End::Sent(port);
                self.queued.push((who, port));
                self.note(r, Note::Queued { who, port, len });
            }
            Step::Ended(fate) => {
                self.ends[who] = End::Fate(fate);
                self.note(r, Note::Ended { who, fate });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
