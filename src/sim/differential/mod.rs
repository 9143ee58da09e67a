//! The engine beside the oracle: the same rules, the same packets, and everything that can be seen compared.
//!
//! Each case goes through two datapaths, with and without the exact-match cache, at every instruction-set level of this CPU. Used by
//! `tests/differential.rs` with random cases and by the fuzz target `switch` with the fuzzer's.

pub mod generate;

use std::sync::Arc;

use super::oracle::{Oracle, Outcome, Port, Punted, Rule};
use crate::action::bond::BUCKETS;
use crate::datapath::{Answer, Config, Datapath, FlowId, FlowPut, Miss, Punt, Sink, Stats, UpcallHandler, Worker};
use crate::flow::action::{Action, Userspace};
use crate::flow::text::{PortNames, format_flow, format_key};
use crate::packet::{DropReason, Fate, Packet};
use crate::port::{PortEntry, TxBurst};
use crate::time::Nanos;
use crate::wire::simd::Level;

/// The port that all packets come in on.
pub const IN_PORT: u32 = 1;

/// Copies of the packets of one burst that may be on their way: the engine has room for about a thousand, and then drops.
const COPIES_MAX: u64 = 500;

/// Rules, and packets in bursts.
#[derive(Clone, Debug)]
pub struct Case {
    /// Different frames, at least one.
    pub frames: Vec<Vec<u8>>,
    /// Rules that do not overlap.
    pub rules: Vec<Rule>,
    /// Which frame comes, by its number modulo their count, in bursts of at most 256.
    pub bursts: Vec<Vec<u8>>,
    /// Ports share packets, or take them.
    pub shares: bool,
}

/// Ports 1 to 3 carry anything, 4 is down, 5 sends at most 100 bytes, 6 does not exist.
fn ports() -> Vec<Port> {
    let max = 65_535;
    [(1, true, max), (2, true, max), (3, true, max), (4, false, max), (5, true, 100)]
        .map(|(number, up, packet_len_max)| Port { number, up, packet_len_max })
        .to_vec()
}

const BOND: u32 = 7;

/// What both handlers do with a `userspace` action: its first byte says it.
fn punt(request: &Userspace) -> Punted {
    match request.userdata.as_deref() {
        Some([0, ..]) => Punted::Refused,
        Some([1, ..]) => Punted::Actions(vec![Action::Output(3)]),
        Some([2, ..]) => Punted::Actions(vec![Action::PushVlan { tpid: 0x8100, tci: 0x1007 }, Action::Output(2)]),
        _ => Punted::Consumed,
    }
}

struct Handler;

impl UpcallHandler for Handler {
    fn miss(&self, _: Miss<'_>) -> Answer {
        Answer::Drop(DropReason::Miss)
    }

    fn punt(&self, punted: Punt<'_>) -> Answer {
        match punt(punted.request) {
            Punted::Consumed => Answer::Consumed,
            Punted::Refused => Answer::Refuse,
            Punted::Actions(actions) => Answer::Execute { actions, install: None },
        }
    }
}

/// Keeps what was sent, and takes what it may.
struct Net {
    datapath: Datapath,
    shares: bool,
    sent: Vec<(u32, Vec<u8>)>,
}

impl Sink for Net {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        let may_take = !burst.is_shared();
        assert!(may_take || self.shares);
        for i in 0..burst.len() {
            let packet = burst.get(i);
            self.sent.push((port, packet.data().to_vec()));
            if may_take && i % 2 == 0 {
                self.datapath.free(packet);
            }
        }
        (burst.len(), DropReason::TxFull)
    }

    fn shares(&self) -> bool {
        self.shares
    }
}

/// An engine that lives through many cases.
#[derive(Debug)]
struct Engine {
    name: &'static str,
    datapath: Datapath,
    workers: Vec<Worker>,
    now: u64,
}

impl Engine {
    fn new(name: &'static str, cache_entries: usize) -> Self {
        let config = Config { flows_max: 4096, cache_entries, pool_buffers: 4096, seed: Some(1), ..Config::default() };
        let datapath = Datapath::new(config).expect("a datapath for the test");
        for Port { number, up, packet_len_max } in ports() {
            let packet_len_max = packet_len_max as u32;
            datapath.port_add(PortEntry { number, name: format!("p{number}").into(), packet_len_max, up }).unwrap();
        }
        datapath.bond_set(BOND, [2; BUCKETS]);
        datapath.set_upcall_handler(Some(Arc::new(Handler)));
        let levels = [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= Level::of_cpu());
        let workers = levels.map(|level| {
            let mut worker = datapath.worker().expect("a worker for the test");
            worker.set_level(level);
            worker
        });
        let workers = workers.collect();
        Engine { name, datapath, workers, now: 0 }
    }

    fn run(&mut self, case: &Case, expected: &Expected) -> Result<(), String> {
        for which in 0..self.workers.len() {
            let name = format!("{}, level {which}", self.name);
            self.datapath.flow_flush();
            for rule in &case.rules {
                let put = FlowPut::create(&rule.key, &rule.mask, rule.actions.clone());
                self.datapath.flow_put(put).map_err(|e| format!("{name}: {e}"))?;
            }
            let before = self.datapath.stats();
            let mut sink = Net { datapath: self.datapath.clone(), shares: case.shares, sent: Vec::new() };
            let mut expected_outcomes = expected.outcomes.iter();
            for burst in &expected.bursts {
                self.now += 1000;
                let pool = Arc::clone(self.datapath.pool());
                let mut packets: Vec<Packet> = burst
                    .iter()
                    .map(|&which| pool.packet(&case.frames[usize::from(which) % case.frames.len()]).expect("a buffer"))
                    .collect();
                packets.iter_mut().for_each(|p| p.in_port = IN_PORT);
                let worker = &mut self.workers[which];
                worker.process(&mut packets, Nanos(self.now), &mut sink);
                for (i, fate) in worker.fates()[..packets.len()].iter().enumerate() {
                    let outcome = expected_outcomes.next().expect("one per packet");
                    if *fate != outcome.fate {
                        return Err(format!("{name}: packet {i}: {fate:?}, expected {:?}", outcome.fate));
                    }
                }
                worker.free(&mut packets, |_| panic!("no port owns a buffer here"));
            }
            sink.sent.sort_unstable();
            if sink.sent != expected.sent {
                return Err(format!("{name}: sent {}\nexpected {}", show(&sink.sent), show(&expected.sent)));
            }
            let after = self.datapath.stats();
            let delta = |of: fn(&Stats) -> u64| of(&after) - of(&before);
            let counted = Counted {
                packets_in: delta(|s| s.packets_in),
                fates: delta(Stats::fates),
                copies: delta(|s| s.copies),
                copies_transmitted: delta(|s| s.copies_transmitted),
                copies_dropped: delta(|s| s.copies_dropped.iter().sum()),
            };
            if counted != expected.counted {
                return Err(format!("{name}: {counted:?}, expected {:?}", expected.counted));
            }
            for rule in &expected.rules {
                let info = self.datapath.flow_get(FlowId::Exactly(&rule.key, &rule.mask)).map_err(|e| e.to_string())?;
                let found = (info.stats.packets, info.stats.bytes, info.stats.tcp_flags);
                if found != (rule.packets, rule.bytes, rule.tcp_flags) {
                    return Err(format!(
                        "{name}: rule {}: {found:?}, expected {:?}",
                        format_key(&rule.key, &rule.mask, &PortNames::default()),
                        (rule.packets, rule.bytes, rule.tcp_flags)
                    ));
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Counted {
    packets_in: u64,
    fates: u64,
    copies: u64,
    copies_transmitted: u64,
    copies_dropped: u64,
}

/// What the oracle says about a case.
struct Expected {
    /// The case's bursts, without the packets that would make too many copies.
    bursts: Vec<Vec<u8>>,
    outcomes: Vec<Outcome>,
    sent: Vec<(u32, Vec<u8>)>,
    counted: Counted,
    rules: Vec<Rule>,
}

impl Expected {
    fn of(case: &Case) -> Self {
        let mut oracle = Oracle { rules: case.rules.clone(), ports: ports(), bonds: vec![(BOND, 2)], punt: Some(punt) };
        let mut outcomes: Vec<Outcome> = Vec::new();
        let bursts = case.bursts.iter().map(|burst| {
            let mut copies = 0;
            let mut fits = |which: &u8| {
                let before = oracle.rules.clone();
                let outcome = oracle.process(&case.frames[usize::from(*which) % case.frames.len()], IN_PORT);
                if copies + outcome.copies > COPIES_MAX {
                    oracle.rules = before;
                    return false;
                }
                copies += outcome.copies;
                outcomes.push(outcome);
                true
            };
            burst.iter().copied().filter(|which| fits(which)).collect()
        });
        let bursts = bursts.collect();
        let mut sent: Vec<_> = outcomes.iter().flat_map(|o| o.sent.iter().cloned()).collect();
        sent.sort_unstable();
        let fates = || outcomes.iter().flat_map(|o| &o.copy_fates);
        let counted = Counted {
            packets_in: outcomes.len() as u64,
            fates: outcomes.len() as u64,
            copies: outcomes.iter().map(|o| o.copies).sum(),
            copies_transmitted: fates().filter(|f| !matches!(f, Fate::Dropped(_))).count() as u64,
            copies_dropped: fates().filter(|f| matches!(f, Fate::Dropped(_))).count() as u64,
        };
        Expected { bursts, outcomes, sent, counted, rules: oracle.rules }
    }
}

/// Engines that live through many cases.
#[derive(Debug)]
pub struct Bench([Engine; 2]);

impl Default for Bench {
    fn default() -> Self {
        Bench([Engine::new("cache on", 256), Engine::new("cache off", 0)])
    }
}

impl Bench {
    /// Runs a case.
    ///
    /// # Errors
    /// What the engine did otherwise than the oracle, with the case.
    pub fn check(&mut self, case: &Case) -> Result<(), String> {
        let expected = Expected::of(case);
        self.0.iter_mut().try_for_each(|engine| engine.run(case, &expected)).map_err(|what| {
            let frames: String = case.frames.iter().map(|f| format!("\n  {}", hex(f))).collect();
            let rules = case.rules.iter().map(|r| format_flow(&r.key, &r.mask, &r.actions, &PortNames::default()));
            let rules: String = rules.map(|rule| format!("\n  {rule}")).collect();
            format!("{what}\nframes:{frames}\nrules:{rules}\nbursts: {:?}, shares: {}", case.bursts, case.shares)
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn show(sent: &[(u32, Vec<u8>)]) -> String {
    sent.iter().take(20).map(|(port, bytes)| format!("\n  port {port}: {}", hex(bytes))).collect()
}
