//! [`Scenario`]: a flow table, traffic, and changes in between, decoded from bytes.

use core::cell::Cell;
use std::collections::BTreeMap;

use super::choices::Choices;
use super::flows::{self, Allowed};
use super::frames;
use super::tunnels::{self, TUNNELS};
use crate::datapath::{Answer, Install};
use crate::flow::action::{Action, Actions};
use crate::flow::{FlowKey, FlowMask};
use crate::meter::{Band, MeterConfig, MeterUnit};
use crate::packet::DropReason;
use crate::packet::buffer::PACKET_LEN_MAX;
use crate::sim::oracle::parcel::Parcel;
use crate::sim::oracle::tunnel::Tunnel;
use crate::sim::oracle::tunnel::pop::key_inside;
use crate::testing::packets::Frame;

/// What happens to the switch.
#[derive(Clone, Debug)]
pub enum Event {
    /// A flow is put.
    Put(Box<Put>),
    /// The flow at this place of the oracle's list, modulo its length, is removed.
    Del(usize),
    /// Packets arrive.
    Burst(Vec<Parcel>),
    /// Time goes on, and upkeep is done.
    Wait(u64),
    /// A port goes up or down.
    Port(u32, bool),
    /// Upcalls are turned on or off.
    Upcalls(bool),
    /// A meter is made anew.
    Meter(u32, MeterConfig),
    /// The bond's members: those of its 256 buckets in turn.
    Bond(Vec<u32>),
    /// A tunnel is there from now on, or gone.
    Tunnel(u32, Option<Tunnel>),
    /// Who answers upcalls from now on; nobody without answers.
    Handler(Vec<Reply>),
}

/// A flow to put. The mask gets further bits where it would overlap with another.
#[derive(Clone, Debug)]
pub struct Put {
    /// Identifier.
    pub ufid: Option<u128>,
    /// Key.
    pub key: FlowKey,
    /// Mask.
    pub mask: FlowMask,
    /// Actions.
    pub actions: Actions,
    /// Install it if it is not there.
    pub create: bool,
    /// Change it if it is there.
    pub modify: bool,
    /// Restart its statistics then.
    pub zero_stats: bool,
    /// Take key and mask of the flow at this place instead.
    pub of: Option<usize>,
    /// It goes after so many ms without a packet.
    pub idle_ms: u64,
    /// It goes after so many ms.
    pub hard_ms: u64,
}

/// An answer of the upcall handler.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Carry these out; with the flag, install a flow too, which does the second list if there is one.
    Execute(Actions, bool, Option<Actions>),
    /// Any other.
    Other(Box<Answer>),
}

/// A whole case.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// VLAN tags in a key.
    pub vlan_depth: u8,
    /// Packets have no metadata but their port, so that they can come in through a port.
    pub is_plain: bool,
    /// What happens, in order.
    pub events: Vec<Event>,
}

struct Decoder {
    vlan_depth: u8,
    is_plain: bool,
    /// There are more packets of tunnels than others, and flows that take them out.
    is_tunnelled: bool,
    frames: Vec<Vec<u8>>,
    tunnels: BTreeMap<u32, Tunnel>,
    meter: Cell<u32>,
    events: Vec<Event>,
}

impl Scenario {
    /// Decodes `chunks`; each is one event or one more frame to choose from. The first says what all of them have in common.
    pub fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Scenario {
        let mut chunks = chunks.into_iter();
        let mut c = Choices(chunks.next().unwrap_or_default());
        let (vlan_depth, is_plain) = (c.pick(&[2, 2, 2, 2, 2, 2, 1, 0]), c.once_in(4));
        let inner = vec![
            Frame::udp4().payload(b"wye").build(),
            Frame::tcp4().flags(2).build(),
            Frame::udp6().build(),
            Frame::udp4().payload(&[7; 80]).build(),
        ];
        let is_tunnelled = c.once_in(3);
        let mut decoder = Decoder {
            vlan_depth,
            is_plain,
            is_tunnelled,
            frames: if is_tunnelled { tunnels::frames_at_first(&inner) } else { inner },
            tunnels: tunnels::all_at_first(),
            meter: Cell::new(0),
            events: Vec::new(),
        };
        if is_tunnelled {
            decoder.open_tunnels(&mut c);
        }
        for chunk in chunks {
            decoder.event(&mut Choices(chunk));
        }
        if !decoder.events.iter().any(|event| matches!(event, Event::Burst(_))) {
            decoder.burst(&mut Choices(&[]));
        }
        Scenario { vlan_depth: decoder.vlan_depth, is_plain: decoder.is_plain, events: decoder.events }
    }

    /// As [`decode`](Self::decode), of one string of bytes: each chunk has its length in front.
    pub fn decode_bytes(mut bytes: &[u8]) -> Scenario {
        let chunks = core::iter::from_fn(|| {
            let (len, rest) = bytes.split_first()?;
            let (chunk, rest) = rest.split_at(usize::from(*len).min(rest.len()));
            bytes = rest;
            Some(chunk)
        });
        Scenario::decode(chunks)
    }
}

impl Decoder {
    fn event(&mut self, c: &mut Choices<'_>) {
        match c.below(32) {
            24..28 => self.frames.push(tunnels::frame(c, 2)),
            28..31 => self.put_out_of_tunnel(c),
            31 => {
                let (number, tunnel) = (tunnels::number(c), tunnels::tunnel(c));
                match &tunnel {
                    Some(tunnel) => self.tunnels.insert(number, tunnel.clone()),
                    None => self.tunnels.remove(&number),
                };
                self.events.push(Event::Tunnel(number, tunnel));
            }
            0..5 if self.is_tunnelled && c.once_in(2) => self.frames.push(tunnels::frame(c, 2)),
            0..5 => self.frames.push(frames::frame(c)),
            5..12 => self.put(c),
            12..18 => self.burst(c),
            18 => self.events.push(Event::Wait(c.pick(&[1, 10, 100, 1000, 5000]))),
            19 => self.events.push(Event::Del(c.below(16))),
            20 => self.change(c),
            21 => self.handler(c),
            22 => {
                let bands = (0..c.below(4)).map(|_| Band { rate: c.byte().into(), burst: c.byte().into() }).collect();
                let unit = c.pick(&[MeterUnit::PacketsPerSecond, MeterUnit::Kbps]);
                self.events.push(Event::Meter(c.below(flows::METERS as usize) as u32, MeterConfig { unit, bands }));
            }
            _ => match c.below(4) {
                0 => self.events.push(Event::Port(c.pick(&[5, 5, 3]), c.once_in(2))),
                1 => self.events.push(Event::Upcalls(!c.once_in(3))),
                _ => {
                    let members = (0..1 + c.below(4)).map(|_| c.pick(&[1, 2, 3, 4, u32::MAX, 9])).collect();
                    self.events.push(Event::Bond(members));
                }
            },
        }
    }

    /// A packet with one of the frames, perhaps a little changed.
    fn arrival(&self, c: &mut Choices<'_>) -> Parcel {
        let mut bytes = self.frames[c.below(self.frames.len())].clone();
        let mut parcel = Parcel { in_port: c.pick(&[1, 1, 1, 2, 2, 3, 4]), ..Parcel::default() };
        match c.below(16) {
            15 => {
                let at = c.below(64);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= c.byte();
                }
            }
            14 => bytes.truncate(c.below(80)),
            // The link layer stays off: a packet that begins with its network header.
            13 if !self.is_plain && bytes.len() >= 14 => {
                let key = flows::key_of(&Parcel { bytes: bytes.clone(), ..Parcel::default() }, self.vlan_depth);
                parcel.layer3 = key.map(|key| key.base.eth_type.get());
                bytes.drain(..14);
            }
            12 if !self.is_plain => {
                (parcel.ct_state, parcel.ct_zone) = (c.byte() & 3, u16::from(c.byte() & 1));
                (parcel.skb_mark, parcel.ct_mark) = (u32::from(c.byte() & 3), u32::from(c.byte() & 3) << 16);
                parcel.dp_hash = u32::from(c.byte() & 3);
            }
            11 if !self.is_plain => parcel.five_tuple = Some(c.word()),
            8 if !self.is_plain => parcel.checksums_are_good = true,
            10 if !self.is_plain => parcel.recirc_id = u32::from(c.byte() & 3),
            9 => bytes.extend(vec![0; 300].iter().take(PACKET_LEN_MAX - bytes.len())),
            _ => {}
        }
        parcel.bytes = bytes;
        parcel
    }

    fn burst(&mut self, c: &mut Choices<'_>) {
        let len = c.pick(&[1, 1, 2, 2, 3, 4, 4, 6, 8, 8, 12, 16, 33, 40, 70, 256]);
        let mut kinds: Vec<Parcel> = (0..1 + c.below(6)).map(|_| self.arrival(c)).collect();
        if self.is_plain {
            kinds.sort_by_key(|kind| kind.in_port);
        }
        let mut burst: Vec<Parcel> = kinds.iter().cycle().take(len).cloned().collect();
        if self.is_tunnelled && c.once_in(2) {
            // Numbers that stay in the packets, at their ends, so that what comes out of a tunnel can be told apart. UDP checksums are
            // wrong then, but the receiver may say that they are right.
            for (number, parcel) in burst.iter_mut().enumerate() {
                parcel.checksums_are_good = !self.is_plain;
                if parcel.bytes.len() >= 60
                    && let Some(end) = parcel.bytes.last_chunk_mut()
                {
                    *end = (number as u16).to_be_bytes();
                }
            }
        }
        if self.is_plain {
            // Ports are polled one after another.
            burst.sort_by_key(|parcel| parcel.in_port);
        }
        self.events.push(Event::Burst(burst));
    }

    fn put(&mut self, c: &mut Choices<'_>) {
        let mut parcel = self.arrival(c);
        parcel.recirc_id = c.pick(&[0, 0, 0, 0, 1, 1, 2, 3]);
        let Some(key) = flows::key_of(&parcel, self.vlan_depth) else { return };
        let mut mask = flows::mask(c, parcel.recirc_id);
        let meter = (parcel.recirc_id == 0 && mask.0.base.recirc_id != 0).then_some(&self.meter);
        let meters = self.meter.get();
        let allowed = Allowed { recirc_id: parcel.recirc_id, nesting: 2, upcalls: true, meter };
        let mut actions = flows::actions(c, allowed);
        if self.is_tunnelled && c.once_in(3) {
            actions.extend(flows::into_tunnel(c));
        }
        if self.meter.get() != meters {
            // What comes out of a tunnel would be metered in another order.
            mask.0.base.in_port = u32::MAX;
        }
        self.put_flow(c, key, mask, actions);
    }

    /// Flows that take the packets of the first frames out of their tunnels, and nested ones likewise, and flows for what comes
    /// out.
    fn open_tunnels(&mut self, c: &mut Choices<'_>) {
        for (number, frame) in TUNNELS.zip(self.frames.clone()) {
            let parcel = Parcel { bytes: frame, ..Parcel::default() };
            let mut mask = FlowMask::default();
            if !c.once_in(4)
                && let Some(key) = flows::key_of(&parcel, self.vlan_depth)
            {
                mask.0.base.nw_proto = 0xff;
                mask.0.base.eth_type.set(0xffff);
                mask.0.base.tp_dst.set(0xffff);
                self.put_flow(&mut Choices(&[]), key, mask, vec![Action::TunnelPop(number)]);
            }
            let tunnel = self.tunnels.get(&number);
            if !c.once_in(4)
                && let Some(key) = tunnel.and_then(|tunnel| key_inside(&parcel, tunnel, number, self.vlan_depth))
            {
                let mut mask = flows::mask_inside(c);
                mask.0.base.in_port = u32::MAX;
                let allowed = Allowed { recirc_id: 0, nesting: 1, upcalls: true, meter: None };
                let actions = flows::actions(c, allowed);
                self.put_flow(&mut Choices(&[]), key, mask, actions);
            }
        }
    }

    /// A flow that takes packets out of a tunnel, or one for what then comes out.
    fn put_out_of_tunnel(&mut self, c: &mut Choices<'_>) {
        let parcel = self.arrival(c);
        let number = tunnels::number(c);
        let allowed = Allowed { recirc_id: 0, nesting: 1, upcalls: true, meter: None };
        let inside = self.tunnels.get(&number).and_then(|tunnel| key_inside(&parcel, tunnel, number, self.vlan_depth));
        let (key, mask, actions) = match (inside, c.below(4)) {
            (Some(key), 0..3) => {
                let mut mask = flows::mask_inside(c);
                if !c.once_in(4) {
                    mask.0.base.in_port = u32::MAX;
                }
                (key, mask, flows::actions(c, allowed))
            }
            _ => {
                let Some(key) = flows::key_of(&parcel, self.vlan_depth) else { return };
                let mut actions = vec![Action::TunnelPop(number)];
                if c.once_in(4) {
                    actions = flows::actions(c, allowed);
                    actions.push(Action::TunnelPop(number));
                }
                (key, flows::mask(c, 0), actions)
            }
        };
        self.put_flow(c, key, mask, actions);
    }

    fn put_flow(&mut self, c: &mut Choices<'_>, key: FlowKey, mask: FlowMask, actions: Actions) {
        let ufid = c.once_in(3).then(|| u128::from(c.byte() & 15));
        let (idle_ms, hard_ms) = (c.pick(&[0, 0, 0, 10, 1000]), c.pick(&[0, 0, 0, 0, 1000]));
        let put = Put {
            ufid,
            key,
            mask,
            actions,
            create: true,
            modify: c.once_in(4),
            zero_stats: false,
            of: None,
            idle_ms,
            hard_ms,
        };
        self.events.push(Event::Put(Box::new(put)));
    }

    /// Other actions for a flow that is there, or one that is not.
    fn change(&mut self, c: &mut Choices<'_>) {
        let of = c.below(16);
        let allowed = Allowed { recirc_id: 7, nesting: 2, upcalls: true, meter: None };
        let actions = flows::actions(c, allowed);
        self.events.push(Event::Put(Box::new(Put {
            ufid: c.once_in(4).then(|| u128::from(c.byte() & 15)),
            key: FlowKey::default(),
            mask: FlowMask::default(),
            actions,
            create: c.once_in(8),
            modify: !c.once_in(8),
            zero_stats: c.once_in(3),
            of: Some(of),
            idle_ms: 0,
            hard_ms: 0,
        })));
    }

    fn handler(&mut self, c: &mut Choices<'_>) {
        let replies = (0..c.below(4)).map(|_| {
            let allowed = Allowed { recirc_id: 7, nesting: 1, upcalls: false, meter: None };
            match c.below(10) {
                0..4 => Reply::Execute(flows::actions(c, allowed), true, None),
                4 => Reply::Execute(flows::actions(c, allowed), true, Some(flows::actions(c, allowed))),
                5 => Reply::Execute(flows::actions(c, allowed), false, None),
                6 => Reply::Other(Box::new(Answer::Consumed)),
                7 => Reply::Other(Box::new(Answer::Queue)),
                8 => Reply::Other(Box::new(Answer::Refuse)),
                _ => Reply::Other(Box::new(Answer::Drop(DropReason::Policy))),
            }
        });
        let replies = replies.collect();
        self.events.push(Event::Handler(replies));
    }
}

impl Reply {
    /// As the handler's answer, for a flow that is installed under `mask`.
    pub fn answer(&self, mask: &FlowMask) -> Answer {
        match self {
            Reply::Execute(actions, install, others) => Answer::Execute {
                actions: actions.clone(),
                install: install.then(|| Install { actions: others.clone(), ..Install::with_mask(*mask) }),
            },
            Reply::Other(answer) => (**answer).clone(),
        }
    }
}
