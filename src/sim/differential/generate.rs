//! Random frames, masks and actions, and rules that match the frames.

use super::{BOND, IN_PORT};
use crate::flow::action::{Action, Masked, SetField, Userspace};
use crate::flow::{FlowKey, FlowMask};
use crate::sim::oracle::{Rule, parse};
use crate::testing::Frame;

/// A stream of numbers; the same seed gives the same ones.
#[derive(Debug)]
struct Random {
    state: u64,
    /// The recirculation id of the rule that is being made.
    recirc_id: u32,
}

impl Random {
    fn word(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
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
            13 if self.recirc_id < 3 => Action::Recirc(self.recirc_id + 1),
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

/// A frame that follows from `seed`: valid, damaged or cut off.
pub fn frame(seed: u64) -> Vec<u8> {
    Random { state: seed, recirc_id: 0 }.frame()
}

/// Rules that follow from `seeds` and do not overlap. Each is made to match one of `frames`, at its first lookup or after a recirculation.
pub fn rules(seeds: &[u64], frames: &[Vec<u8>]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for &seed in seeds {
        let mut random = Random { state: seed, recirc_id: 0 };
        let frame = &frames[random.below(frames.len() as u32) as usize];
        let mut key = parse(frame, None).unwrap_or_default().key;
        key.base.in_port = IN_PORT;
        random.recirc_id = if random.one_in(2) { 0 } else { random.below(4) };
        key.base.recirc_id = random.recirc_id;
        let mask = random.flow_mask(&key);
        // Round and round, or something else.
        let actions = if random.one_in(50) { vec![Action::Recirc(random.recirc_id)] } else { random.actions(2) };
        let rule = Rule::new(&key, &mask, actions);
        if !rules.iter().any(|other| other.overlaps(&rule)) {
            rules.push(rule);
        }
    }
    rules
}
