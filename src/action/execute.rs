//! The executor: runs a [`Program`] over a group of packets that matched one flow.
//!
//! Packets are named by 16-bit references: below [`EXTRA_BASE`] they are in the batch that came in, from there on in the worker's
//! array of *extras* (copies, and packets that had to move to a bigger buffer). An instruction sees the whole group; packets that an
//! instruction drops leave it.
//!
//! *Who keeps the packet.* The last instruction of a flow's list may consume the packet itself; earlier outputs and clones
//! get copies, unless nothing but outputs follows and the ports share: then all of them send from the one buffer, and the
//! port that may take it comes last. When the list ends and nobody took the packet, its fate is `transmitted` if a copy went out, else dropped.
//!
//! *Bounds.* The extras, the recirculation list and the pool are bounded. When extras run out, what is queued
//! for transmission is sent at once, and if that frees none, the copy is dropped and counted.

mod transmit;
mod tunnels;

use std::sync::Arc;

use self::transmit::Transmit;
use super::bond::BondTable;
use super::program::{Op, Program};
use super::step::Step;
use super::tunnel::Pushed;
use super::{ethernet, hash, mpls, nsh, set_field, ttl, vlan};
use crate::flow::Ext;
use crate::flow::action::{Action, SetField, Userspace};
use crate::flow::extract::{ExtractOptions, extract_whole};
use crate::flow::key::{LINE_OPTIONS, LINE_TUNNEL};
use crate::meter::MeterTable;
use crate::packet::{DropReason, Fate, Owner, Packet, PacketFlags, PoolCache, buffer};
use crate::port::driver::{BURST_MAX, EXTRA_BASE, TxBurst};
use crate::port::table::PortTable;
use crate::time::Nanos;
use crate::tunnel::{Obstacle, Sequences, TunnelTable};

/// How many answers to upcalls may be carried out on a packet within one another.
const ANSWERS_MAX: u8 = 8;

/// The shortest packet that `trunc` makes: an Ethernet header, as in OVS.
const TRUNCATED_MIN: usize = 14;

/// Extra packets that may exist at a time within a burst.
pub const EXTRAS_MAX: usize = 1024;

/// Entries of the worker's table of rarer metadata, number 0 unused.
pub const EXTS_MAX: usize = BURST_MAX + EXTRAS_MAX + 1;

const REFS: usize = EXTRA_BASE as usize + EXTRAS_MAX;
const NONE: u16 = u16::MAX;

/// What the executor needs from outside: ports and the upcall handler.
pub trait Outside {
    /// True if somebody watches: the executor then takes packets one by one and tells of each [`Step`].
    const WATCHED: bool = false;

    /// Something happens to packet `r`.
    fn step(&mut self, r: u16, step: Step<'_>) {
        let _ = (r, step);
    }

    /// Sends the burst to `port`. Returns how many packets were taken from its front, and why the next was not.
    fn transmit(&mut self, port: u32, burst: TxBurst<'_>) -> (usize, DropReason);

    /// True if [`Outside::transmit`] leaves the packets of a [shared](TxBurst::is_shared) burst as they are.
    fn shares(&self) -> bool;

    /// The `userspace` action: `packet` may be changed; `is_copy` tells whether it is one of a packet that goes on. `Err` is the reason that counts as the packet's end if it goes no
    /// further; `Ok` gives actions to carry out on it.
    fn userspace(
        &mut self,
        request: &Arc<Userspace>,
        packet: &mut Packet,
        ext: Option<&Ext>,
        is_copy: bool,
    ) -> Result<Vec<Action>, Fate>;

    /// `encap` with `id` into tunnel `tunnel` cannot be carried out on `packet`, which may be changed. Returns as [`Outside::userspace`].
    fn undeliverable(
        &mut self,
        tunnel: u32,
        id: Option<u32>,
        obstacle: Obstacle,
        packet: &mut Packet,
        ext: Option<&Ext>,
        is_copy: bool,
    ) -> Result<Vec<Action>, Fate>;

    /// A packet with rarer metadata, which it loses here, waits to be sent: it is in a burst of [`Outside::transmit`] to `port` soon.
    fn sends(&mut self, port: u32, packet: &Packet, ext: &Ext);

    /// A packet of the batch with rarer metadata, which it loses here, has met its end unsent.
    fn ends(&mut self, packet: &Packet, ext: &Ext);
}

/// What does not change during a burst.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'b> {
    /// Ports.
    pub ports: &'b PortTable,
    /// Meters.
    pub meters: &'b MeterTable,
    /// Bonds.
    pub bonds: &'b BondTable,
    /// Tunnels.
    pub tunnels: &'b TunnelTable,
    /// The sequence numbers of what goes into tunnels.
    pub sequences: &'b Sequences,
    /// How packets are parsed again where an action needs it.
    pub extract: ExtractOptions,
    /// The time of the burst.
    pub now: Nanos,
}

/// Counts that the executor makes beyond the fates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Copies made (clone, output to several ports).
    pub copies: u64,
    /// Copies that a port took.
    pub copies_transmitted: u64,
    /// Copies that ended otherwise, by reason.
    pub copies_dropped: [u64; DropReason::COUNT],
    /// Packets moved to a bigger buffer for want of headroom.
    pub moved: u64,
    /// Recirculations.
    pub recirculated: u64,
}

/// The length of the longest packet of a group, if all its packets are of the batch and none has rarer metadata.
pub type Plain = Option<usize>;

/// A packet that waits to be looked up again.
#[derive(Clone, Copy, Debug)]
pub struct Recirculated {
    /// Which packet.
    pub packet: u16,
    /// How often it has been.
    pub depth: u8,
}

/// The executor's own state. One per worker; nothing in it survives a burst but its memory.
#[derive(Debug)]
pub struct Executor {
    extra: Box<[Packet]>,
    free_extras: Vec<u16>,
    /// For each extra: the packet of the batch that it stands for, [`NONE`] for a copy.
    stands_for: Box<[u16]>,
    exts: Box<[Ext]>,
    free_exts: Vec<u16>,
    fates: [Fate; BURST_MAX],
    /// Packets of the batch that a port took.
    transmitted: usize,
    tx: Transmit,
    recirculated: Vec<Recirculated>,
    /// Packets of the batch that are to be taken out of tunnel `pop_port`, all at once.
    pops: Vec<u16>,
    pop_port: u32,
    /// Answers to upcalls that are being carried out, one within another.
    answers: u8,
    pool: PoolCache,
    random: u64,
    /// What was counted since the owner last took it.
    pub tally: Tally,
}

/// A burst being worked on: the executor, its packets, and the world.
pub struct Exec<'a, O: Outside> {
    /// The executor's state.
    pub executor: &'a mut Executor,
    /// The packets that came in.
    pub batch: &'a mut [Packet],
    /// Ports and upcalls.
    pub outside: &'a mut O,
    /// Configuration and time.
    pub settings: Settings<'a>,
    /// Recirculations that the present group has behind it.
    pub depth: u8,
}

impl<O: Outside> core::fmt::Debug for Exec<'_, O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Exec").field("batch", &self.batch.len()).field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor that makes copies in buffers of `pool`; `seed` starts the random numbers of `sample`.
    pub fn new(pool: PoolCache, seed: u64) -> Self {
        Executor {
            extra: (0..EXTRAS_MAX).map(|_| Packet::gone()).collect(),
            free_extras: (EXTRA_BASE..REFS as u16).rev().collect(),
            stands_for: vec![NONE; EXTRAS_MAX].into_boxed_slice(),
            exts: vec![Ext::default(); EXTS_MAX].into_boxed_slice(),
            free_exts: (1..EXTS_MAX as u16).rev().collect(),
            fates: [Fate::Undecided; BURST_MAX],
            transmitted: 0,
            tx: Transmit::new(),
            recirculated: Vec::with_capacity(REFS),
            pops: Vec::with_capacity(BURST_MAX),
            pop_port: 0,
            answers: 0,
            pool,
            random: seed | 1,
            tally: Tally::default(),
        }
    }

    /// Prepares for a batch of `n` packets.
    #[inline(always)]
    pub fn begin(&mut self, n: usize) {
        self.fates[..n].fill(Fate::Undecided);
        self.transmitted = 0;
        self.tx.begin();
    }

    /// Packets of the batch whose fate is `transmitted`.
    #[inline(always)]
    pub fn transmitted(&self) -> usize {
        self.transmitted
    }

    /// The fates of the batch's packets.
    #[inline]
    pub fn fates(&self) -> &[Fate; BURST_MAX] {
        &self.fates
    }

    /// The pool that copies come from.
    pub fn pool(&mut self) -> &mut PoolCache {
        &mut self.pool
    }

    /// The rarer metadata that a packet names by its `ext`.
    #[inline]
    pub fn ext(&self, index: u16) -> Option<&Ext> {
        (index != 0).then(|| &self.exts[index as usize])
    }

    /// The packet's rarer metadata, made empty if it had none; `None` if the table is full.
    pub fn ext_mut(&mut self, packet: &mut Packet) -> Option<&mut Ext> {
        if packet.ext == 0 {
            packet.ext = self.free_exts.pop()?;
            self.exts[packet.ext as usize].clear();
        }
        Some(&mut self.exts[packet.ext as usize])
    }

    /// Releases the packet's rarer metadata.
    #[inline]
    pub fn free_ext(&mut self, packet: &mut Packet) {
        if packet.ext != 0 {
            self.free_exts.push(core::mem::take(&mut packet.ext));
        }
    }

    /// Takes a packet that waits for another lookup.
    pub fn pop_recirculated(&mut self) -> Option<Recirculated> {
        self.recirculated.pop()
    }

    /// Moves the packets that wait for another lookup to `out`, in order.
    pub fn take_recirculated(&mut self, out: &mut Vec<Recirculated>) {
        out.append(&mut self.recirculated);
    }

    /// Puts off taking `group`, plain packets of the batch, out of tunnel `port`; false if others wait that are of another.
    #[inline(always)]
    pub fn defer_pop(&mut self, port: u32, group: &[u16]) -> bool {
        if !self.pops.is_empty() && self.pop_port != port {
            return false;
        }
        self.pop_port = port;
        self.pops.extend_from_slice(group);
        true
    }

    /// The tunnel port that packets wait to be taken out of, and how many they are.
    #[inline(always)]
    pub fn deferred_pops(&self) -> Option<(u32, usize)> {
        (!self.pops.is_empty()).then_some((self.pop_port, self.pops.len()))
    }

    /// Moves the packets that wait to be taken out of a tunnel to the front of `refs`; returns how many they are.
    #[inline(always)]
    pub fn take_pops(&mut self, refs: &mut [u16; BURST_MAX]) -> usize {
        let n = self.pops.len().min(BURST_MAX);
        refs[..n].copy_from_slice(&self.pops[..n]);
        self.pops.clear();
        n
    }

    #[inline(always)]
    fn random(&mut self) -> u32 {
        // xorshift64*: `sample` needs fairness, not secrecy.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// Finds the headers of a packet from which others were taken off, so that further actions change them rightly, checksums included.
#[inline(never)]
fn look_again(packet: &mut Packet, extract: ExtractOptions) {
    // One that is cut off has no headers any more.
    let _ = extract_whole(packet, None, extract);
}

impl<O: Outside> Exec<'_, O> {
    /// Packet `r`.
    #[inline(always)]
    pub fn packet(&mut self, r: u16) -> &mut Packet {
        if r < EXTRA_BASE { &mut self.batch[r as usize] } else { &mut self.executor.extra[(r - EXTRA_BASE) as usize] }
    }

    /// Packet `r`, and its rarer metadata if it has any; else what it says is void.
    #[inline(always)]
    pub fn packet_and_ext(&mut self, r: u16) -> (&mut Packet, &Ext) {
        let Executor { extra, exts, .. } = &mut *self.executor;
        let packet = if r < EXTRA_BASE { &mut self.batch[r as usize] } else { &mut extra[(r - EXTRA_BASE) as usize] };
        let ext = &exts[packet.ext as usize];
        (packet, ext)
    }

    /// Frees packet `r`'s rarer metadata.
    #[inline(always)]
    pub fn free_ext(&mut self, r: u16) {
        let ext = core::mem::take(&mut self.packet(r).ext);
        if ext != 0 {
            self.executor.free_exts.push(ext);
        }
    }

    /// The packet of the batch whose fate `r` decides; `None` for a copy.
    #[inline(always)]
    fn stands_for(&self, r: u16) -> Option<usize> {
        let original = if r < EXTRA_BASE { r } else { self.executor.stands_for[(r - EXTRA_BASE) as usize] };
        (original != NONE).then_some(original as usize)
    }

    /// Runs `program` over `group` and ends the packets that it leaves over. `plain` is the length of the longest packet if all are of
    /// the batch and none has rarer metadata, as far as the caller knows.
    #[inline]
    pub fn run(&mut self, program: &Program, group: &[u16], plain: Plain) {
        let mut refs = [0u16; BURST_MAX];
        for chunk in group.chunks(if O::WATCHED { 1 } else { BURST_MAX }) {
            refs[..chunk.len()].copy_from_slice(chunk);
            self.list(program, &mut refs[..chunk.len()], plain);
        }
    }

    /// Runs a list that owns its packets: whatever is left at its end ends here.
    fn list(&mut self, program: &Program, group: &mut [u16], mut plain: Plain) {
        let mut n = group.len();
        for (i, op) in program.ops.iter().enumerate() {
            let last = i + 1 == program.ops.len();
            let live = &mut group[..n];
            if live.is_empty() {
                return;
            }
            n = if O::WATCHED {
                self.watched_op(op, live, last, &mut plain)
            } else {
                self.op(op, live, last, &mut plain)
            };
        }
        for &r in &group[..n] {
            self.end_of_list(r);
        }
    }

    /// As `op`, action by action, and tells of each. The group is one packet: somebody watches.
    #[cold]
    fn watched_op(&mut self, op: &Op, group: &mut [u16], last: bool, plain: &mut Plain) -> usize {
        let actions = op.actions();
        let [action] = &actions[..] else {
            // Joined for speed.
            for (i, action) in actions.iter().enumerate() {
                // A single one is not nested deeper than where it comes from.
                let Ok(alone) = Program::compile(core::slice::from_ref(action)) else { continue };
                if self.watched_op(&alone.ops[0], group, last && i + 1 == actions.len(), plain) == 0 {
                    return 0;
                }
            }
            return group.len();
        };
        debug_assert_eq!(group.len(), 1);
        let r = group[0];
        let (packet, ext, outside) = self.watched(r);
        outside.step(r, Step::Begin { action, packet, ext });
        let left = self.op(op, group, last, plain);
        let r = if left == 0 { r } else { group[0] };
        let (packet, ext, outside) = self.watched(r);
        outside.step(r, Step::End { packet: (left != 0).then_some((packet, ext)) });
        left
    }

    /// Packet `r`, its rarer metadata, and who may be told of it.
    pub fn watched(&mut self, r: u16) -> (&Packet, Option<&Ext>, &mut O) {
        let Executor { extra, exts, .. } = &*self.executor;
        let packet = if r < EXTRA_BASE { &self.batch[r as usize] } else { &extra[(r - EXTRA_BASE) as usize] };
        let ext = (packet.ext != 0).then(|| &exts[packet.ext as usize]);
        (packet, ext, self.outside)
    }

    /// Runs one instruction; returns how many packets are left, moved to the group's front, and keeps `plain` true.
    #[inline(always)]
    fn op(&mut self, op: &Op, group: &mut [u16], last: bool, plain: &mut Plain) -> usize {
        match op {
            Op::Output(port) if last => {
                match *plain {
                    Some(longest) => self.output_plain(*port, group, longest),
                    None => self.output(*port, group),
                }
                0
            }
            Op::Route { addresses, .. } => self.each(group, |_, p| ttl::route(p, addresses)),
            Op::PushVlan { tpid, tci } => self.push(group, vlan::LEN, plain, |p| vlan::push(p, *tpid, *tci)),
            Op::Outputs(ports) => {
                self.outputs(ports, group, *plain);
                0
            }
            _ => self.rarer_op(op, group, last, plain),
        }
    }

    #[inline(never)]
    fn rarer_op(&mut self, op: &Op, group: &mut [u16], last: bool, plain: &mut Plain) -> usize {
        let extract = self.settings.extract;
        match op {
            Op::Output(port) => self.with_copies(group, |exec, copies| exec.output(*port, copies)),
            Op::Clone(then) if last => {
                self.list(then, group, *plain);
                return 0;
            }
            Op::Clone(then) => self.with_copies(group, |exec, copies| exec.list(then, copies, None)),
            Op::Recirc(id) => {
                if last {
                    self.recirculate(*id, group);
                    return 0;
                }
                self.with_copies(group, |exec, copies| exec.recirculate(*id, copies));
            }
            Op::SetEthernet(addresses) => {
                return self.each(group, |_, p| ethernet::set_addresses(p, addresses));
            }
            Op::DecTtl => return self.each(group, |_, p| ttl::dec_ttl(p)),
            Op::Set(field) => return self.set(field, group, plain),
            Op::PopVlan => {
                return self.each(group, |_, p| {
                    vlan::pop(p)?;
                    // It was a tag that extraction does not reach: what it saw behind the first is gone.
                    if p.l3 < ethernet::LEN as u16 && !p.flags.contains(PacketFlags::LAYER3) {
                        look_again(p, extract);
                    }
                    Ok(())
                });
            }
            Op::PushMpls { lse, ethertype } => {
                return self.push(group, mpls::LEN, plain, |p| mpls::push(p, *lse, *ethertype));
            }
            Op::AddMpls { lse, ethertype, tun_flags } => {
                return self.push(group, mpls::LEN, plain, |p| mpls::add(p, *lse, *ethertype, *tun_flags));
            }
            Op::PopMpls { ethertype } => {
                let follows = crate::wire::ethernet::is_mpls(*ethertype);
                return self.each(group, |_, p| {
                    let had_labels = p.l2_5 != buffer::NONE;
                    mpls::pop(p, *ethertype)?;
                    // Under the last label is what extraction could not see.
                    if had_labels && (p.l2_5 == buffer::NONE || !follows) {
                        look_again(p, extract);
                    }
                    Ok(())
                });
            }
            Op::PushEth { dst, src } => {
                return self.push(group, crate::wire::ethernet::HEADER_LEN, plain, |p| ethernet::push(p, *dst, *src));
            }
            Op::PopEth => return self.each(group, |_, p| ethernet::pop(p)),
            Op::PushNsh(header) => {
                return self.push(group, nsh::push_len(header), plain, |p| nsh::push(p, header));
            }
            Op::PopNsh => {
                return self.each(group, |_, p| {
                    nsh::pop(p)?;
                    if p.l3 == buffer::NONE {
                        look_again(p, extract);
                    }
                    Ok(())
                });
            }
            Op::TunnelPush { template, push } => {
                let (out_port, moment) = (push.out_port, self.moment(push.tnl_port));
                return self.tunnel_push(template, Pushed { out_port, id: None, moment }, group, plain);
            }
            Op::Encap { tunnel, id } => {
                if last {
                    self.encap(*tunnel, *id, group, *plain);
                    return 0;
                }
                self.with_copies(group, |exec, copies| exec.encap(*tunnel, *id, copies, None));
            }
            Op::TunnelPop(port) => {
                if last {
                    self.tunnel_pop(*port, group);
                    return 0;
                }
                self.with_copies(group, |exec, copies| exec.tunnel_pop(*port, copies));
            }
            Op::Hash { algorithm, basis } => {
                return self.each(group, |_, p| {
                    p.dp_hash = hash::dp_hash(p, *algorithm, *basis, extract);
                    Ok(())
                });
            }
            Op::Trunc(len) => {
                *plain = None;
                return self.each(group, |executor, p| {
                    let cut = p.len().saturating_sub((*len as usize).max(TRUNCATED_MIN));
                    // A packet's length fits 16 bits.
                    executor.ext_mut(p).ok_or(DropReason::NoBuffer)?.cut = cut as u16;
                    Ok(())
                });
            }
            Op::Meter(id) => return self.meter(*id, group),
            Op::LbOutput(bond) => {
                if last {
                    self.lb_output(*bond, group);
                    return 0;
                }
                self.with_copies(group, |exec, copies| exec.lb_output(*bond, copies));
            }
            Op::Sample { probability, then } => {
                let (mut chosen, mut rest) = ([0u16; BURST_MAX], [0u16; BURST_MAX]);
                let (mut n, mut m) = (0, 0);
                for &r in group.iter() {
                    if *probability == u32::MAX || self.executor.random() < *probability {
                        chosen[n] = r;
                        n += 1;
                    } else {
                        rest[m] = r;
                        m += 1;
                    }
                }
                if O::WATCHED {
                    group.iter().for_each(|&r| self.outside.step(r, Step::Chose(n != 0)));
                }
                if !last {
                    self.with_copies(&chosen[..n], |exec, copies| exec.list(then, copies, None));
                    return group.len();
                }
                self.list(then, &mut chosen[..n], *plain);
                group[..m].copy_from_slice(&rest[..m]);
                return m;
            }
            Op::CheckPktLen { len, greater, less_equal } => {
                let (mut long, mut short) = ([0u16; BURST_MAX], [0u16; BURST_MAX]);
                let (mut n, mut m) = (0, 0);
                for &r in group.iter() {
                    if self.packet(r).len() > usize::from(*len) {
                        long[n] = r;
                        n += 1;
                    } else {
                        short[m] = r;
                        m += 1;
                    }
                }
                if O::WATCHED {
                    group.iter().for_each(|&r| self.outside.step(r, Step::Chose(n != 0)));
                }
                if last {
                    self.list(greater, &mut long[..n], *plain);
                    self.list(less_equal, &mut short[..m], *plain);
                    return 0;
                }
                self.with_copies(&long[..n], |exec, copies| exec.list(greater, copies, None));
                self.with_copies(&short[..m], |exec, copies| exec.list(less_equal, copies, None));
            }
            Op::Userspace(request) => {
                if last {
                    self.userspace(request, group);
                    return 0;
                }
                self.with_copies(group, |exec, copies| exec.userspace(request, copies));
            }
            Op::Drop(_) => {
                for &r in group.iter() {
                    self.end(r, Fate::Dropped(DropReason::Explicit));
                }
                return 0;
            }
            // In `op`.
            Op::Outputs(_) | Op::Route { .. } | Op::PushVlan { .. } => {}
        }
        group.len()
    }

    /// Calls `f` for each packet; those for which it fails are dropped with its reason.
    #[inline(always)]
    fn each(
        &mut self,
        group: &mut [u16],
        mut f: impl FnMut(&mut Executor, &mut Packet) -> Result<(), DropReason>,
    ) -> usize {
        // The usual group: packets of the batch, none of which fails.
        let mut done = 0;
        for &r in group.iter() {
            // The batch ends before `EXTRA_BASE`.
            let Some(packet) = self.batch.get_mut(r as usize) else { break };
            if let Err(reason) = f(self.executor, packet) {
                self.end(r, Fate::Dropped(reason));
                return self.each_from(group, done, done + 1, f);
            }
            done += 1;
        }
        if done == group.len() { done } else { self.each_from(group, done, done, f) }
    }

    /// `each`, from packet `next` on, of a group whose first `kept` packets are kept.
    #[cold]
    #[inline(never)]
    fn each_from(
        &mut self,
        group: &mut [u16],
        mut kept: usize,
        next: usize,
        mut f: impl FnMut(&mut Executor, &mut Packet) -> Result<(), DropReason>,
    ) -> usize {
        for i in next..group.len() {
            let r = group[i];
            // Taken out, so that `f` may have the executor as well.
            let mut packet = self.packet(r).take();
            let result = f(self.executor, &mut packet);
            *self.packet(r) = packet;
            match result {
                Ok(()) => {
                    group[kept] = r;
                    kept += 1;
                }
                Err(reason) => self.end(r, Fate::Dropped(reason)),
            }
        }
        kept
    }

    /// As `each`, for an instruction that needs `room` bytes of headroom.
    #[inline(always)]
    fn push(
        &mut self,
        group: &mut [u16],
        room: usize,
        plain: &mut Plain,
        mut f: impl FnMut(&mut Packet) -> Result<(), DropReason>,
    ) -> usize {
        if let Some(longest) = plain {
            *longest += room;
        }
        let mut least = usize::MAX;
        for &r in group.iter() {
            least = least.min(self.packet(r).headroom());
        }
        if least < room {
            *plain = None;
            for r in group.iter_mut() {
                if self.packet(*r).headroom() < room {
                    *r = self.move_to_pool(*r);
                }
            }
        }
        self.each(group, |_, p| f(p))
    }

    /// Moves packet `r` to a pool buffer with headroom; returns its new reference, or the old one if there is no buffer or the packet
    /// stays (the instruction then finds no headroom and drops it).
    #[cold]
    fn move_to_pool(&mut self, r: u16) -> u16 {
        if self.packet(r).flags.contains(PacketFlags::STAYS) {
            return r;
        }
        let original = self.stands_for(r).map_or(NONE, |o| o as u16);
        let Some(moved) = self.copy(r) else { return r };
        // It is the packet itself, not a copy, and it knows whether it was copied.
        self.packet(moved).flags = self.packet(r).flags;
        self.executor.stands_for[(moved - EXTRA_BASE) as usize] = original;
        self.executor.tally.moved += 1;
        if O::WATCHED {
            self.outside.step(r, Step::Moved { to: moved });
        }
        // A copy's old place is freed; a packet of the batch stays where it is for its owner to free.
        let ext = core::mem::take(&mut self.packet(r).ext);
        if ext != 0 {
            self.executor.free_exts.push(ext);
        }
        if r >= EXTRA_BASE {
            self.free_extra(r);
        }
        moved
    }

    /// Copies packet `r` with its metadata into an extra; `None` without a buffer or a place for it.
    fn copy(&mut self, r: u16) -> Option<u16> {
        if self.executor.free_extras.is_empty() {
            self.flush();
        }
        let place = self.executor.free_extras.pop()?;
        let len = self.packet(r).len();
        let Some(mut copy) = self.executor.pool.alloc(len) else {
            self.executor.free_extras.push(place);
            return None;
        };
        let from =
            if r < EXTRA_BASE { &self.batch[r as usize] } else { &self.executor.extra[(r - EXTRA_BASE) as usize] };
        copy.data_mut().copy_from_slice(from.data());
        copy.copy_metadata(from);
        copy.flags.remove(PacketFlags::COPIED_OUT);
        copy.flags.remove(PacketFlags::STAYS);
        if copy.ext != 0 {
            let Some(ext) = self.executor.free_exts.pop() else {
                copy.ext = 0;
                self.executor.pool.free(&mut copy);
                self.executor.free_extras.push(place);
                return None;
            };
            self.executor.exts[ext as usize] = self.executor.exts[copy.ext as usize].clone();
            copy.ext = ext;
        }
        let at = (place - EXTRA_BASE) as usize;
        self.executor.stands_for[at] = NONE;
        self.executor.extra[at] = copy;
        Some(place)
    }

    /// Copies each packet of `group` and passes the copies to `f`. Packets that could not be copied are counted.
    fn with_copies(&mut self, group: &[u16], f: impl FnOnce(&mut Self, &mut [u16])) {
        let mut copies = [0u16; BURST_MAX];
        let mut n = 0;
        for &r in group {
            let copy = self.copy(r);
            if O::WATCHED {
                self.outside.step(r, Step::Copied { copy });
            }
            match copy {
                Some(copy) => {
                    copies[n] = copy;
                    n += 1;
                    self.executor.tally.copies += 1;
                    // What becomes of the copy is its own affair; the packet counts as sent on.
                    let packet = self.packet(r);
                    packet.flags.insert(PacketFlags::COPIED_OUT);
                    let ext = packet.ext;
                    if ext != 0 {
                        // `trunc` was for the copy.
                        self.executor.exts[ext as usize].cut = 0;
                    }
                }
                None => {
                    self.executor.tally.copies += 1;
                    self.executor.tally.copies_dropped[DropReason::NoBuffer.index()] += 1;
                }
            }
        }
        f(self, &mut copies[..n]);
    }

    /// Leaves out what `trunc` said: the packet is about to be sent or handed up.
    #[inline(always)]
    fn cut(&mut self, r: u16) {
        let ext = self.packet(r).ext;
        if ext != 0 {
            let cut = core::mem::take(&mut self.executor.exts[ext as usize].cut);
            let packet = self.packet(r);
            packet.truncate(packet.len().saturating_sub(cut.into()));
        }
    }

    /// As `cut`, of a packet whose hash counts: it is that of the flow, which the headers do not show any more when their lengths go beyond
    /// the packet's end.
    #[inline(always)]
    fn hash_and_cut(&mut self, r: u16) {
        let ext = self.packet(r).ext;
        if ext != 0 && self.executor.exts[ext as usize].cut != 0 {
            let extract = self.settings.extract;
            hash::five_tuple(self.packet(r), extract);
            self.cut(r);
        }
    }

    #[inline(always)]
    fn free_extra(&mut self, r: u16) {
        let Executor { extra, free_exts, free_extras, pool, .. } = &mut *self.executor;
        let packet = &mut extra[(r - EXTRA_BASE) as usize];
        if packet.ext != 0 {
            free_exts.push(core::mem::take(&mut packet.ext));
        }
        pool.free(packet);
        free_extras.push(r);
    }

    /// True for a copy of a packet that goes on, or whose fate is decided elsewhere.
    pub fn is_copy(&self, r: u16) -> bool {
        self.stands_for(r).is_none()
    }

    /// Decides a packet's fate and frees it if it is an extra.
    pub fn end(&mut self, r: u16, fate: Fate) {
        if O::WATCHED {
            self.outside.step(r, Step::Ended(fate));
        }
        self.settle(r, fate);
    }

    /// As [`Exec::end`], of which nobody needs to be told.
    #[inline(always)]
    fn settle(&mut self, r: u16, fate: Fate) {
        match self.stands_for(r) {
            Some(original) => {
                self.executor.fates[original] = fate;
                self.executor.transmitted += usize::from(fate == Fate::Transmitted);
            }
            None => match fate {
                Fate::Dropped(reason) => self.executor.tally.copies_dropped[reason.index()] += 1,
                _ => self.executor.tally.copies_transmitted += 1,
            },
        }
        if r >= EXTRA_BASE {
            self.free_extra(r);
        } else {
            let packet = &mut self.batch[r as usize];
            if packet.ext != 0 {
                if packet.owner() != Owner::Gone {
                    self.outside.ends(packet, &self.executor.exts[packet.ext as usize]);
                }
                self.executor.free_ext(packet);
            }
        }
    }

    fn end_of_list(&mut self, r: u16) {
        let copied = self.packet(r).flags.contains(PacketFlags::COPIED_OUT);
        self.end(r, if copied { Fate::Transmitted } else { Fate::Dropped(DropReason::NoOutput) });
    }

    fn recirculate(&mut self, id: u32, group: &[u16]) {
        let depth = self.depth + 1;
        for &r in group {
            if depth > super::RECIRCULATIONS_MAX {
                self.end(r, Fate::Dropped(DropReason::RecirculationLimit));
                continue;
            }
            self.packet(r).recirc_id = id;
            self.executor.tally.recirculated += 1;
            self.executor.recirculated.push(Recirculated { packet: r, depth });
        }
    }

    fn end_all(&mut self, group: &[u16], reason: DropReason) {
        group.iter().for_each(|&r| self.end(r, Fate::Dropped(reason)));
    }

    fn lb_output(&mut self, bond: u32, group: &[u16]) {
        let settings = self.settings;
        let bond = settings.bonds.get(&bond);
        for &r in group {
            self.hash_and_cut(r);
            let packet = self.packet(r);
            let hash = hash::five_tuple(packet, settings.extract);
            let member = bond.and_then(|bond| bond.select(hash, packet.len()));
            if O::WATCHED {
                self.outside.step(r, Step::Member { hash, port: member });
            }
            match member {
                Some(port) => self.output(port, &[r]),
                None => self.end(r, Fate::Dropped(DropReason::InvalidBond)),
            }
        }
    }

    fn meter(&mut self, id: u32, group: &mut [u16]) -> usize {
        let settings = self.settings;
        let Some(meter) = settings.meters.get(id) else { return group.len() };
        let mut lens = [0u32; BURST_MAX];
        for (len, &r) in lens.iter_mut().zip(group.iter()) {
            *len = self.packet(r).len() as u32;
        }
        let mut refused = [false; BURST_MAX];
        meter.police(settings.now, &lens[..group.len()], &mut refused[..group.len()]);
        let mut kept = 0;
        for i in 0..group.len() {
            if refused[i] {
                self.end(group[i], Fate::Dropped(DropReason::Meter));
            } else {
                group[kept] = group[i];
                kept += 1;
            }
        }
        kept
    }

    fn userspace(&mut self, request: &Arc<Userspace>, group: &[u16]) {
        for &r in group {
            self.cut(r);
            if O::WATCHED {
                let len = self.packet(r).len();
                self.outside.step(r, Step::Handed { len });
            }
            self.hand_up(r, |outside, packet, ext, is_copy| outside.userspace(request, packet, ext, is_copy));
        }
    }

    /// Hands packet `r` to `ask`, and does to it what that answers.
    fn hand_up(
        &mut self,
        r: u16,
        ask: impl FnOnce(&mut O, &mut Packet, Option<&Ext>, bool) -> Result<Vec<Action>, Fate>,
    ) {
        let mut packet = self.packet(r).take();
        // The place of the rarer metadata stays here, also when the packet does not.
        let place = core::mem::take(&mut packet.ext);
        let ext = self.executor.ext(place).cloned();
        let is_copy = self.is_copy(r);
        let answer = ask(self.outside, &mut packet, ext.as_ref(), is_copy);
        packet.ext = place;
        *self.packet(r) = packet;
        match answer.map(|actions| Program::compile(&actions)) {
            // An answer that hands the packet up again, and so on.
            Ok(Ok(_)) if self.executor.answers >= ANSWERS_MAX => {
                self.end(r, Fate::Dropped(DropReason::RecirculationLimit));
            }
            Ok(Ok(program)) => {
                self.executor.answers += 1;
                self.list(&program, &mut [r], None);
                self.executor.answers -= 1;
            }
            Ok(Err(_)) => self.end(r, Fate::Dropped(DropReason::UnsupportedAction)),
            Err(fate) => self.end(r, fate),
        }
    }

    fn set(&mut self, field: &SetField, group: &mut [u16], plain: &mut Plain) -> usize {
        if matches!(field, SetField::Priority(_) | SetField::Tunnel(_)) {
            *plain = None;
        }
        match field {
            SetField::SkbMark(m) => self.each(group, |_, p| {
                p.skb_mark = m.apply(p.skb_mark);
                Ok(())
            }),
            SetField::DpHash(m) => self.each(group, |_, p| {
                p.dp_hash = m.apply(p.dp_hash);
                Ok(())
            }),
            SetField::RecircId(m) => self.each(group, |_, p| {
                p.recirc_id = m.apply(p.recirc_id);
                Ok(())
            }),
            SetField::Priority(m) => self.each(group, |executor, p| {
                let ext = executor.ext_mut(p).ok_or(DropReason::NoBuffer)?;
                ext.skb_priority = m.apply(ext.skb_priority);
                Ok(())
            }),
            SetField::Tunnel(tunnel) => self.each(group, |executor, p| {
                let ext = executor.ext_mut(p).ok_or(DropReason::NoBuffer)?;
                ext.tunnel = tunnel.0;
                ext.options = [0; 256];
                let n = tunnel.1.len().min(ext.options.len());
                ext.options[..n].copy_from_slice(&tunnel.1[..n]);
                ext.lines |= LINE_TUNNEL | if n > 0 { LINE_OPTIONS } else { 0 };
                Ok(())
            }),
            field => self.each(group, |_, p| set_field::apply(p, field)),
        }
    }

    /// The whole key of packet `r`.
    ///
    /// # Errors
    /// As [`extract_whole`].
    pub fn key(&mut self, r: u16) -> Result<crate::flow::FlowKey, DropReason> {
        let extract = self.settings.extract;
        let mut packet = self.packet(r).take();
        let ext = self.executor.ext(packet.ext);
        let key = extract_whole(&mut packet, ext, extract);
        *self.packet(r) = packet;
        key
    }

    /// Frees every buffer of a pool that is still in the batch, for a caller whose packets are the engine's own.
    pub fn free_batch(&mut self, mut release: impl FnMut(&mut Packet)) {
        for packet in self.batch.iter_mut() {
            match packet.owner() {
                Owner::Pool => self.executor.pool.free(packet),
                Owner::Port => release(packet),
                Owner::Caller | Owner::Gone => {}
            }
        }
    }
}
