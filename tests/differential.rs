//! Caches on = caches off = the oracle: random rules, random packets, the whole worker.
//!
//! A *case* is a set of rules that do not overlap, a few packets (valid, mutated or cut off) in bursts, and the comparison of everything that
//! can be seen: each packet's fate, what was sent, each rule's statistics, the worker's counters, the copies' ends. Every case runs through
//! two datapaths (with and without the exact-match cache), at every instruction-set level of this CPU, with ports that share packets and
//! ports that take them.
//!
//! `WYE_DIFFERENTIAL_CASES` sets the number of cases over all tests here; 100,000 by default.

use std::cell::RefCell;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wye::action::bond::BUCKETS;
use wye::datapath::{Answer, Config, Datapath, FlowId, FlowPut, Miss, Punt, Sink, Stats, UpcallHandler, Worker};
use wye::flow::action::{Action, Masked, SetField, Userspace};
use wye::flow::text::{PortNames, format_flow, format_key};
use wye::flow::{FlowKey, FlowMask};
use wye::packet::{DropReason, Fate, Packet};
use wye::port::{PortEntry, TxBurst};
use wye::testing::Frame;
use wye::testing::oracle::{Oracle, Outcome, Port, Punted, Rule, parse};
use wye::time::Nanos;
use wye::wire::simd::Level;

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

/// A stream of numbers; the same seed gives the same ones.
struct Random(u64, u32);

/// Copies of the packets of one burst that may be on their way: the engine has room for about a thousand, and then drops.
const COPIES_MAX: u64 = 500;

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 16) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.word() % n
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.word() as u8)
    }

    fn mask(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => self.word(),
            _ => u32::MAX,
        }
    }

    fn masked<const N: usize>(&mut self) -> Masked<[u8; N]> {
        let mask: [u8; N] = match self.below(4) {
            0 => [0; N],
            1 => self.bytes(),
            _ => [0xff; N],
        };
        let value: [u8; N] = self.bytes();
        Masked { value: core::array::from_fn(|i| value[i] & mask[i]), mask }
    }

    fn masked8(&mut self) -> Masked<u8> {
        let mask = self.mask() as u8;
        Masked { value: self.word() as u8 & mask, mask }
    }

    fn masked16(&mut self) -> Masked<u16> {
        let mask = self.mask() as u16;
        Masked { value: self.word() as u16 & mask, mask }
    }

    fn masked32(&mut self) -> Masked<u32> {
        let mask = self.mask();
        Masked { value: self.word() & mask, mask }
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frame = Frame::random(&mut || self.word()).build();
        if self.one_in(4) {
            // Somebody on the way, or on purpose.
            for _ in 0..1 + self.below(4) {
                let at = self.below(frame.len().min(60) as u32) as usize;
                frame[at] ^= 1 << self.below(8);
            }
        }
        if self.one_in(8) {
            frame.truncate(1 + self.below(frame.len() as u32) as usize);
        }
        frame
    }

    /// A mask that looks at some words of what is in `key`, and often at parts of them.
    fn flow_mask(&mut self, key: &FlowKey) -> FlowMask {
        let mut mask = FlowMask::default();
        mask.0.base.recirc_id = u32::MAX;
        let share = 1 + self.below(6);
        for (line, words) in mask.0.lines_mut().iter_mut().enumerate() {
            for (i, word) in words.iter_mut().enumerate() {
                // A zero is worth a look too: that is how absence is matched.
                if (key.lines()[line][i] != 0 || self.one_in(16)) && self.one_in(share) {
                    *word |=
                        if self.one_in(3) { u64::from(self.word()) << 32 | u64::from(self.word()) } else { u64::MAX };
                }
            }
        }
        mask
    }

    fn set(&mut self) -> SetField {
        match self.below(11) {
            0 => SetField::SkbMark(self.masked32()),
            1 => SetField::Priority(self.masked32()),
            2 => SetField::Mpls(self.masked32()),
            3 => SetField::Ethernet(self.masked()),
            4 | 5 => {
                SetField::Ipv4 { src: self.masked(), dst: self.masked(), tos: self.masked8(), ttl: self.masked8() }
            }
            6 => SetField::Ipv6 {
                src: self.masked(),
                dst: self.masked(),
                label: self.masked32(),
                tclass: self.masked8(),
                hlimit: self.masked8(),
            },
            7 => SetField::Tcp { src: self.masked16(), dst: self.masked16() },
            8 => SetField::Udp { src: self.masked16(), dst: self.masked16() },
            9 => SetField::Sctp { src: self.masked16(), dst: self.masked16() },
            _ => SetField::Icmp { v6: self.one_in(2), kind: self.masked8(), code: self.masked8() },
        }
    }

    fn actions(&mut self, depth: u32) -> Vec<Action> {
        let n = [0, 1, 1, 1, 2, 2, 3, 4, 5][self.below(9) as usize];
        (0..n).map(|_| self.action(depth)).collect()
    }

    fn action(&mut self, depth: u32) -> Action {
        let nested = if depth == 0 { 17 } else { 21 };
        match self.below(nested) {
            0..5 => {
                let ports = if self.one_in(6) { 6 } else { 3 };
                Action::Output(1 + self.below(ports))
            }
            5..8 => Action::Set(self.set()),
            8 => Action::PushVlan { tpid: [0x8100, 0x88a8][self.below(2) as usize], tci: self.word() as u16 | 0x1000 },
            9 => Action::PopVlan,
            10 => Action::DecTtl,
            11 => Action::PushMpls { lse: self.word(), ethertype: [0x8847, 0x8848, 0x800][self.below(3) as usize] },
            12 => Action::PopMpls { ethertype: [0x800, 0x86dd, 0x8847, 0x6558][self.below(4) as usize] },
            // Always on, so that it ends.
            13 if self.1 < 3 => Action::Recirc(self.1 + 1),
            13 => Action::DecTtl,
            14 => Action::Trunc(1 + self.below(120)),
            15 => match self.below(5) {
                0 => Action::PopEth,
                1 => Action::PushEth { dst: self.bytes(), src: self.bytes() },
                2 => Action::LbOutput(BOND + self.below(2)),
                3 => Action::Meter(9),
                _ => Action::Drop(0),
            },
            16 => Action::Userspace(Userspace { userdata: Some(vec![self.below(4) as u8]), ..Userspace::default() }),
            17 | 18 => Action::Clone(self.actions(depth - 1)),
            19 => Action::Sample {
                probability: if self.one_in(2) { 0 } else { u32::MAX },
                actions: self.actions(depth - 1),
            },
            _ => Action::CheckPktLen {
                len: 50 + self.below(60) as u16,
                if_greater: self.actions(depth - 1),
                if_less_equal: self.actions(depth - 1),
            },
        }
    }
}

/// A case: everything follows from its numbers, and fewer of them make a smaller case.
#[derive(Clone, Debug)]
struct Case {
    /// Different frames.
    frames: Vec<u64>,
    /// Rules.
    rules: Vec<u64>,
    /// Which frame comes, in bursts.
    bursts: Vec<Vec<u8>>,
    /// Ports share, or take.
    shares: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let burst = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 1..6),
        2 => proptest::collection::vec(any::<u8>(), 6..40),
        1 => (any::<u8>(), 1..257usize).prop_map(|(which, n)| vec![which; n]),
    ];
    (
        proptest::collection::vec(any::<u64>(), 1..4),
        proptest::collection::vec(any::<u64>(), 0..7),
        proptest::collection::vec(burst, 1..4),
        any::<bool>(),
    )
        .prop_map(|(frames, rules, bursts, shares)| Case { frames, rules, bursts, shares })
}

impl Case {
    fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.iter().map(|&seed| Random(seed, 0).frame()).collect()
    }

    /// Rules that do not overlap. Each is made to match one of the frames, at its first lookup or after a recirculation.
    fn rules(&self, frames: &[Vec<u8>]) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        for &seed in &self.rules {
            let mut random = Random(seed, 0);
            let frame = &frames[random.below(frames.len() as u32) as usize];
            let mut key = parse(frame, None).unwrap_or_default().key;
            key.base.in_port = 1;
            random.1 = if random.one_in(2) { 0 } else { random.below(4) };
            key.base.recirc_id = random.1;
            let mask = random.flow_mask(&key);
            // Round and round, or something else.
            let actions = if random.one_in(50) { vec![Action::Recirc(random.1)] } else { random.actions(2) };
            let rule = Rule::new(&key, &mask, actions);
            if !rules.iter().any(|other| other.overlaps(&rule)) {
                rules.push(rule);
            }
        }
        rules
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

    fn run(&mut self, case: &Case, frames: &[Vec<u8>], rules: &[Rule], expected: &Expected) -> Result<(), String> {
        for which in 0..self.workers.len() {
            let name = format!("{}, level {which}", self.name);
            self.datapath.flow_flush();
            for rule in rules {
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
                    .map(|&which| pool.packet(&frames[usize::from(which) % frames.len()]).expect("a buffer"))
                    .collect();
                packets.iter_mut().for_each(|p| p.in_port = 1);
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
    fn of(case: &Case, frames: &[Vec<u8>], rules: &[Rule]) -> Self {
        let mut oracle = Oracle { rules: rules.to_vec(), ports: ports(), bonds: vec![(BOND, 2)], punt: Some(punt) };
        let mut outcomes: Vec<Outcome> = Vec::new();
        let bursts = case.bursts.iter().map(|burst| {
            let mut copies = 0;
            let mut fits = |which: &u8| {
                let before = oracle.rules.clone();
                let outcome = oracle.process(&frames[usize::from(*which) % frames.len()], 1);
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn show(sent: &[(u32, Vec<u8>)]) -> String {
    sent.iter().take(20).map(|(port, bytes)| format!("\n  port {port}: {}", hex(bytes))).collect()
}

thread_local! {
    static ENGINES: RefCell<[Engine; 2]> = RefCell::new([Engine::new("cache on", 256), Engine::new("cache off", 0)]);
}

fn check(case: &Case) -> Result<(), String> {
    let frames = case.frames();
    let rules = case.rules(&frames);
    let expected = Expected::of(case, &frames, &rules);
    let outcome = ENGINES.with_borrow_mut(|engines| {
        engines.iter_mut().try_for_each(|engine| engine.run(case, &frames, &rules, &expected))
    });
    outcome.map_err(|what| {
        let frames: String = frames.iter().map(|f| format!("\n  {}", hex(f))).collect();
        let rules: String = rules
            .iter()
            .map(|r| format!("\n  {}", format_flow(&r.key, &r.mask, &r.actions, &PortNames::default())))
            .collect();
        format!("{what}\nframes:{frames}\nrules:{rules}\nbursts: {:?}, shares: {}", case.bursts, case.shares)
    })
}

/// A quarter of the cases.
fn quarter() {
    let cases = std::env::var("WYE_DIFFERENTIAL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000u32);
    let config = ProptestConfig { cases: cases.div_ceil(4), failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&case(), |case| check(&case).map_err(TestCaseError::fail))
        .unwrap_or_else(|e| panic!("{e}"));
}

// Four tests, so that a machine with several cores runs them side by side.
#[test]
fn caches_on_and_off_and_the_oracle_agree_1() {
    quarter();
}

#[test]
fn caches_on_and_off_and_the_oracle_agree_2() {
    quarter();
}

#[test]
fn caches_on_and_off_and_the_oracle_agree_3() {
    quarter();
}

#[test]
fn caches_on_and_off_and_the_oracle_agree_4() {
    quarter();
}
