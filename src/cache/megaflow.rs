//! The megaflow table: every installed flow, shared by all workers, read without locks (tuple space search,
//! Srinivasan, Suri and Varghese 1999, as in OVS's `dpcls`).
//!
//! Flows with equal masks form a *subtable*, a hash table over their masked keys. A lookup asks the subtables in turn, most
//! hit first, and the first match wins. Flows that overlap with different actions are the caller's business, as in OVS:
//! which of them wins is unspecified.

use ahash::AHashMap;

use super::hash::LineHasher;
use crate::flow::key::{FlowKey, FlowMask, LINE_BASE, LINE_TUNNEL, LINES, Line, LineSet};
use crate::sync::counter::Counter;
use crate::sync::map::{Map, MapView, MapWriter};
use crate::sync::primitive::Arc;
use crate::sync::qsbr::{Burst, Domain};
use crate::sync::region::Source;
use crate::sync::slab::{Slab, SlabWriter, View};
use crate::sync::snapshot::Snapshot;

/// Distinct masks that may be installed at a time.
pub const MASKS_MAX: usize = 4096;

/// The place of the tunnel line.
const TUNNEL: usize = LINE_TUNNEL.trailing_zeros() as usize;
/// The lines of most packets that came out of a tunnel.
const WITH_TUNNEL: LineSet = LINE_BASE | LINE_TUNNEL;
/// The next: the first 64 bytes of Geneve options.
const LINE_FIRST_OPTIONS: LineSet = LINE_TUNNEL << 1;

/// Packets in one lookup at most.
const CHUNK: usize = 64;

/// A mask, shared by the flows under it.
#[derive(Debug)]
pub struct Mask {
    /// Line 0.
    pub base: Line,
    /// Lines in which any bit is set, and always line 0.
    pub lines: LineSet,
    whole: FlowMask,
}

/// A packet's key as the packet path holds it: line 0 apart, further lines where the packet has them.
#[derive(Clone, Copy, Debug)]
pub struct PacketKey<'k> {
    /// Line 0.
    pub base: &'k Line,
    /// Which lines the packet has; the others count as zero.
    pub lines: LineSet,
    /// Lines 1 and up are read from here where `lines` says so.
    pub more: &'k FlowKey,
}

impl<'k> PacketKey<'k> {
    /// Of a packet every line of whose key counts.
    pub fn whole(key: &'k FlowKey) -> Self {
        PacketKey { base: &key.lines()[0], lines: LineSet::MAX, more: key }
    }

    #[inline]
    fn line(&self, i: usize) -> &Line {
        const ZERO: Line = [0; 8];
        if self.lines & 1 << i != 0 { &self.more.lines()[i] } else { &ZERO }
    }
}

/// An installed flow.
#[derive(Debug)]
pub struct Entry<T> {
    base: Line,
    /// Lines 1 and up, in the order of the mask's bits.
    more: Option<Box<[Line]>>,
    hash: u64,
    mask: Arc<Mask>,
    /// What the flow does.
    pub value: T,
}

impl<T> Entry<T> {
    /// True if the flow matches the packet.
    #[inline(always)]
    pub fn matches(&self, key: PacketKey<'_>) -> bool {
        self.matches_base(key.base) && (self.is_base() || self.matches_further(key))
    }

    /// True if the flow matches the packet as far as line 0 goes.
    #[inline(always)]
    pub fn matches_base(&self, base: &Line) -> bool {
        (0..8).fold(0, |d, i| d | (base[i] & self.mask.base[i]) ^ self.base[i]) == 0
    }

    /// True if the flow looks at line 0 alone.
    #[inline(always)]
    pub fn is_base(&self) -> bool {
        self.more.is_none()
    }

    /// True if the flow matches the packet in the lines behind line 0, of which it looks at the tunnel line, and perhaps the first options
    /// line, alone. `None` if it looks at others, or `lines`, which the packet has, lack one of them.
    #[inline(always)]
    pub fn matches_tunnel(&self, packet: &FlowKey, lines: LineSet) -> Option<bool> {
        let looks_at = self.mask.lines;
        if looks_at & !lines != 0 || looks_at & !LINE_FIRST_OPTIONS != WITH_TUNNEL {
            return None;
        }
        let differs = |line: usize, own: &Line| {
            let (packet, mask) = (&packet.lines()[line], &self.mask.whole.0.lines()[line]);
            (0..8).fold(0, |d, w| d | packet[w] & mask[w] ^ own[w]) != 0
        };
        match self.more.as_deref()? {
            [tunnel] => Some(!differs(TUNNEL, tunnel)),
            [tunnel, options] => Some(!differs(TUNNEL, tunnel) && !differs(TUNNEL + 1, options)),
            _ => None,
        }
    }

    /// True if the flow matches the packet in the lines behind line 0.
    #[inline(never)]
    pub fn matches_further(&self, key: PacketKey<'_>) -> bool {
        let mut stored = self.more.iter().flatten();
        (1..LINES).filter(|i| self.mask.lines & 1 << i != 0).all(|i| {
            let (Some(own), mask, packet) = (stored.next(), &self.mask.whole.0.lines()[i], key.line(i)) else {
                return false;
            };
            (0..8).all(|w| packet[w] & mask[w] == own[w])
        })
    }

    /// The flow's key, masked.
    pub fn key(&self) -> FlowKey {
        let mut key = FlowKey::default();
        key.lines_mut()[0] = self.base;
        let mut stored = self.more.iter().flatten();
        for i in (1..LINES).filter(|i| self.mask.lines & 1 << i != 0) {
            if let Some(line) = stored.next() {
                key.lines_mut()[i] = *line;
            }
        }
        key
    }

    /// The flow's mask.
    pub fn mask(&self) -> &FlowMask {
        &self.mask.whole
    }

    /// True if the flow's mask is `mask` itself.
    #[inline(always)]
    pub fn is_under(&self, mask: Option<&FlowMask>) -> bool {
        mask.is_some_and(|mask| core::ptr::eq(mask, &self.mask.whole))
    }
}

/// The flows under one mask.
#[derive(Debug)]
struct Subtable {
    mask: Arc<Mask>,
    map: Arc<Map>,
    /// Written by any worker without a locked instruction: it only orders the subtables, a lost count does not matter.
    hits: Counter,
}

/// What a burst needs beyond the flows themselves.
#[derive(Debug)]
struct Subtables {
    order: Arc<[Arc<Subtable>]>,
    unions: Unions,
}

/// Of each class of packets: the union of the masks of all flows that can match one of them, or more than that.
///
/// Packets are classed by the port that they came in on and by their recirculation id, which nearly every flow names. So one port's flows
/// that look at 5-tuples do not tell packets of other ports apart, nor does what matches outer headers tell inner packets apart.
#[derive(Clone, Debug)]
struct Unions(Box<[Arc<Mask>; CLASSES]>);

/// Classes by low bits of the port and of the recirculation id.
const PORT_CLASSES: usize = 32;
const RECIRC_CLASSES: usize = 4;
const CLASSES: usize = PORT_CLASSES * RECIRC_CLASSES;

/// The class of packets with this word 0 of line 0.
#[inline(always)]
fn class(word: u64) -> usize {
    let (in_port, recirc_id) = if cfg!(target_endian = "little") { (word, word >> 32) } else { (word >> 32, word) };
    in_port as usize % PORT_CLASSES * RECIRC_CLASSES + recirc_id as usize % RECIRC_CLASSES
}

/// The classes of the packets that a flow can match.
fn classes(key: &FlowKey, mask: &FlowMask) -> impl Iterator<Item = usize> {
    let range = |value: u32, mask: u32, n: usize| {
        let value = value as usize % n;
        if mask as usize % n == n - 1 { value..value + 1 } else { 0..n }
    };
    let recirc_ids = range(key.base.recirc_id, mask.0.base.recirc_id, RECIRC_CLASSES);
    range(key.base.in_port, mask.0.base.in_port, PORT_CLASSES)
        .flat_map(move |port| recirc_ids.clone().map(move |recirc_id| port * RECIRC_CLASSES + recirc_id))
}

impl Unions {
    fn new() -> Self {
        let none = Arc::new(Unions::mask_of(FlowMask::default()));
        Unions(Box::new(core::array::from_fn(|_| Arc::clone(&none))))
    }

    /// Packets of different ports or recirculation ids always count as told apart: they may be of different classes.
    fn mask_of(mut union: FlowMask) -> Mask {
        (union.0.base.in_port, union.0.base.recirc_id) = (u32::MAX, u32::MAX);
        Mask::new(union)
    }

    #[inline(always)]
    fn of(&self, word: u64) -> &Mask {
        &self.0[class(word)]
    }

    /// Adds a mask; false if the union has all its bits. Classes in a row that have the same union share it, so that a mask of all classes
    /// does not take a hundred times its size.
    fn widen(&mut self, class: usize, mask: &FlowMask) -> bool {
        let mut union = self.0[class].whole;
        union.unite(mask);
        if union == self.0[class].whole {
            return false;
        }
        let union = Unions::mask_of(union);
        self.0[class] = match class.checked_sub(1).map(|before| &self.0[before]) {
            Some(before) if before.whole == union.whole => Arc::clone(before),
            _ => Arc::new(union),
        };
        true
    }
}

/// The table.
///
/// *Thread-safety.* Readers hold a [`MegaflowView`] per burst. One [`MegaflowWriter`] changes the table.
#[derive(Debug)]
pub struct Megaflows<T: Send + Sync + 'static> {
    flows: Arc<Slab<Entry<T>>>,
    subtables: Arc<Snapshot<Subtables>>,
    hasher: Arc<LineHasher>,
}

impl<T: Send + Sync + 'static> Megaflows<T> {
    /// An empty table for at most `flows_max` flows, and its only writer.
    ///
    /// # Panics
    /// If there is no address space left for it.
    pub fn new(domain: &Arc<Domain>, flows_max: u32, hasher: LineHasher) -> (Self, MegaflowWriter<T>) {
        Self::new_in(&Source::default(), domain, flows_max, hasher).expect("no address space left for a flow table")
    }

    /// As [`new`](Self::new), its flows in memory of `source`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new_in(
        source: &Source,
        domain: &Arc<Domain>,
        flows_max: u32,
        hasher: LineHasher,
    ) -> std::io::Result<(Self, MegaflowWriter<T>)> {
        let (flows, slab) = Slab::new_in(source, domain, flows_max)?;
        let (order, unions) = (Arc::from(Vec::new()), Unions::new());
        let subtables = Arc::new(Snapshot::new(domain, Subtables { order, unions: unions.clone() }));
        let hasher = Arc::new(hasher);
        let table = Megaflows { flows, subtables: Arc::clone(&subtables), hasher: Arc::clone(&hasher) };
        let writer = MegaflowWriter {
            slab,
            masks: AHashMap::new(),
            subtables,
            hasher,
            domain: Arc::clone(domain),
            order: Arc::from(Vec::new()),
            unions,
            stale: [false; CLASSES],
        };
        Ok((table, writer))
    }

    /// The table as the burst sees it.
    #[inline(always)]
    pub fn view<'b>(&'b self, burst: &'b Burst<'_>) -> MegaflowView<'b, T> {
        MegaflowView {
            flows: self.flows.view(burst),
            subtables: self.subtables.load(burst),
            hasher: &self.hasher,
            burst,
        }
    }
}

/// The hash of line `i`, which is not line 0, under `mask`.
#[inline(always)]
fn hash_of_line(hasher: &LineHasher, i: usize, line: &Line, mask: &Mask) -> u64 {
    let mask = &mask.whole.0.lines()[i];
    if i == TUNNEL { hasher.tunnel(line, mask) } else { hasher.line(line, mask) }
}

/// A reader's access for one burst.
#[derive(Debug)]
pub struct MegaflowView<'b, T> {
    flows: View<'b, Entry<T>>,
    subtables: &'b Subtables,
    hasher: &'b LineHasher,
    burst: &'b Burst<'b>,
}

impl<T> Clone for MegaflowView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for MegaflowView<'_, T> {}

impl<'b, T> MegaflowView<'b, T> {
    /// The union of the masks of all flows that can match packets with this word 0 of line 0, and bits that packets of other ports and
    /// recirculation ids are told apart by.
    #[inline(always)]
    pub fn union_of(self, word: u64) -> &'b Mask {
        self.subtables.unions.of(word)
    }

    /// The hash of the key under the [union](Self::union_of) of masks: equal for packets that no installed flow tells apart.
    #[inline(always)]
    pub fn cache_hash(self, key: PacketKey<'_>) -> u64 {
        let union = self.union_of(key.base[0]);
        let hash = self.hasher.line(key.base, &union.base);
        if union.lines & key.lines & !LINE_BASE == 0 { hash } else { self.cache_hash_further(union, hash, key) }
    }

    /// As [`cache_hash`](Self::cache_hash) of a key that is of line 0 alone, whose union of masks is at hand.
    #[inline(always)]
    pub fn cache_hash_of_base(self, base: &Line, union: &Mask) -> u64 {
        self.hasher.line(base, &union.base)
    }

    /// The hashes of many keys, of the `base` lines and the `lines` behind, in which they are all like `beyond` as far as flows can tell, as
    /// [`cache_hash`](Self::cache_hash) has them if all came in on one port. `f` is called for each in turn.
    #[inline(always)]
    pub fn cache_hashes(self, base: &[Line], beyond: &FlowKey, lines: LineSet, mut f: impl FnMut(usize, u64)) {
        let (union, hasher) = (self.union_of_first(base), self.hasher);
        let counting = union.lines & lines;
        let of = |line: usize| hash_of_line(hasher, line, &beyond.lines()[line], union);
        match (counting & LINE_TUNNEL != 0, counting & LINE_FIRST_OPTIONS != 0) {
            (false, false) => base.iter().enumerate().for_each(|(i, line)| f(i, hasher.line(line, &union.base))),
            (true, false) | (false, true) => {
                let one = if counting & LINE_TUNNEL != 0 { of(TUNNEL) } else { of(TUNNEL + 1) };
                base.iter().enumerate().for_each(|(i, line)| f(i, hasher.join(hasher.line(line, &union.base), one)));
            }
            (true, true) => {
                let (tunnel, options) = (of(TUNNEL), of(TUNNEL + 1));
                let all = |line| hasher.join(hasher.join(hasher.line(line, &union.base), tunnel), options);
                base.iter().enumerate().for_each(|(i, line)| f(i, all(line)));
            }
        }
    }

    /// As [`cache_hashes`](Self::cache_hashes), of keys that differ in the lines behind line 0 too.
    #[inline(always)]
    pub fn cache_hashes_beyond(self, base: &[Line], beyond: &[FlowKey], lines: LineSet, mut f: impl FnMut(usize, u64)) {
        let union = self.union_of_first(base);
        let counting = union.lines & lines & !LINE_BASE;
        for (i, (base, more)) in base.iter().zip(beyond).enumerate() {
            if counting == LINE_TUNNEL {
                let tunnel = hash_of_line(self.hasher, TUNNEL, &more.lines()[TUNNEL], union);
                f(i, self.hasher.join(self.hasher.line(base, &union.base), tunnel));
            } else {
                f(i, self.cache_hash(PacketKey { base, lines, more }));
            }
        }
    }

    #[inline(never)]
    fn cache_hash_further(self, union: &Mask, mut hash: u64, key: PacketKey<'_>) -> u64 {
        for i in 1..LINES {
            if union.lines & key.lines & 1 << i != 0 {
                hash = self.hasher.join(hash, hash_of_line(self.hasher, i, key.line(i), union));
            }
        }
        hash
    }

    #[inline(always)]
    fn union_of_first(self, lines: &[Line]) -> &'b Mask {
        self.union_of(lines.first().map_or(0, |line| line[0]))
    }

    /// True if some installed flow may tell two of these base lines apart.
    #[inline(always)]
    pub fn differ(self, lines: &[Line]) -> bool {
        let Some(first) = lines.first() else { return false };
        let mut differing = [0; 8];
        for line in lines {
            for i in 0..8 {
                differing[i] |= line[i] ^ first[i];
            }
        }
        let union = &self.union_of(first[0]).base;
        (0..8).fold(0, |d, i| d | differing[i] & union[i]) != 0
    }

    /// True if some installed flow may tell two of these keys apart by their tunnel lines or first options lines, as far as they are in
    /// `lines`. All are of the port and recirculation id of the base line `first`.
    #[inline(always)]
    pub fn differ_beyond(self, first: &Line, keys: &[FlowKey], lines: LineSet) -> bool {
        let union = self.union_of(first[0]);
        let counting = union.lines & lines;
        counting & LINE_TUNNEL != 0 && Self::differ_in(union, keys, TUNNEL)
            || counting & LINE_FIRST_OPTIONS != 0 && Self::differ_in(union, keys, TUNNEL + 1)
    }

    #[inline(always)]
    fn differ_in(union: &Mask, keys: &[FlowKey], line: usize) -> bool {
        let Some(first) = keys.first() else { return false };
        let mut differing = [0; 8];
        for key in keys {
            for (i, bits) in differing.iter_mut().enumerate() {
                *bits |= key.lines()[line][i] ^ first.lines()[line][i];
            }
        }
        let union = &union.whole.0.lines()[line];
        (0..8).fold(0, |d, i| d | differing[i] & union[i]) != 0
    }

    /// True if the tunnel line and the first options line of `flow`'s mask have no bit that was in no mask when this view was loaded, as
    /// [`knows_base_of`](Self::knows_base_of).
    #[inline(always)]
    pub fn knows_beyond_of(self, flow: &Entry<T>, base: &Line) -> bool {
        let (union, mask) = (self.union_of(base[0]).whole.0.lines(), flow.mask.whole.0.lines());
        (TUNNEL..TUNNEL + 2).all(|line| (0..8).fold(0, |d, i| d | mask[line][i] & !union[line][i]) == 0)
    }

    /// True if line 0 of `flow`'s mask has no bit that was in no mask, of the flows that can match a packet of line 0 `base`, when this view
    /// was loaded. Of a flow that is newer than the view, neither [`differ`](Self::differ) nor [`cache_hash`](Self::cache_hash) knows which
    /// packets it tells apart.
    #[inline(always)]
    pub fn knows_base_of(self, flow: &Entry<T>, base: &Line) -> bool {
        let union = &self.union_of(base[0]).base;
        (0..8).fold(0, |d, i| d | flow.mask.base[i] & !union[i]) == 0
    }

    /// Flow `number`, if it is alive.
    #[inline(always)]
    pub fn flow(self, number: u32) -> Option<&'b Entry<T>> {
        self.flows.get(number)
    }

    /// Asks the CPU to load flow `number`.
    #[inline(always)]
    pub fn prefetch(self, number: u32) {
        self.flows.prefetch(number);
    }

    /// How many subtables there are.
    pub fn subtables(self) -> usize {
        self.subtables.order.len()
    }

    /// The flow that matches `key`, its number, and how many subtables were asked.
    pub fn lookup(self, key: PacketKey<'_>) -> (Option<(u32, &'b Entry<T>)>, usize) {
        for (asked, subtable) in self.subtables.order.iter().enumerate() {
            let map = subtable.map.view(self.burst);
            if let Some(found) = self.probe(map, subtable.mask.hash(self.hasher, key), key) {
                subtable.hits.add(1);
                return (Some(found), asked + 1);
            }
        }
        (None, self.subtables.order.len())
    }

    #[inline(always)]
    fn probe(self, map: MapView<'_>, hash: u64, key: PacketKey<'_>) -> Option<(u32, &'b Entry<T>)> {
        let mut found = None;
        map.find(hash, |number| {
            found = self.flows.get(number).filter(|flow| flow.matches(key)).map(|flow| (number, flow));
            found.is_some()
        });
        found
    }

    /// Looks up many packets at once: `keys(i)` for each `i` of `wanted`; calls `found(i, number, flow)` for the matches and leaves
    /// the others in `wanted`, in order. Returns the number of subtable probes. All packets are hashed and their buckets
    /// prefetched before the first is probed.
    #[inline(always)]
    pub fn lookup_burst<'k>(
        self,
        wanted: &mut Vec<u16>,
        keys: impl Fn(u16) -> PacketKey<'k>,
        mut found: impl FnMut(u16, u32, &'b Entry<T>),
    ) -> u64 {
        let mut probes = 0;
        let mut hashes = [0u64; CHUNK];
        let mut kept = 0;
        let mut start = 0;
        while start < wanted.len() {
            let mut live = [0u16; CHUNK];
            let count = (wanted.len() - start).min(CHUNK);
            live[..count].copy_from_slice(&wanted[start..start + count]);
            let mut n = count;
            for subtable in self.subtables.order.iter() {
                let map = subtable.map.view(self.burst);
                for j in 0..n {
                    hashes[j] = subtable.mask.hash(self.hasher, keys(live[j]));
                    map.prefetch(hashes[j]);
                }
                probes += n as u64;
                let mut left = 0;
                for j in 0..n {
                    let i = live[j];
                    match self.probe(map, hashes[j], keys(i)) {
                        Some((number, flow)) => found(i, number, flow),
                        None => {
                            live[left] = i;
                            left += 1;
                        }
                    }
                }
                if left != n {
                    subtable.hits.add((n - left) as u64);
                    n = left;
                    if n == 0 {
                        break;
                    }
                }
            }
            wanted[kept..kept + n].copy_from_slice(&live[..n]);
            kept += n;
            start += count;
        }
        wanted.truncate(kept);
        probes
    }
}

impl Mask {
    /// All of it.
    pub fn whole(&self) -> &FlowMask {
        &self.whole
    }

    fn new(whole: FlowMask) -> Self {
        Mask { base: whole.0.lines()[0], lines: whole.0.lines_used(), whole }
    }

    #[inline(always)]
    fn hash(&self, hasher: &LineHasher, key: PacketKey<'_>) -> u64 {
        let hash = hasher.line(key.base, &self.base);
        if self.lines == LINE_BASE { hash } else { self.hash_further(hasher, hash, key) }
    }

    #[inline(never)]
    fn hash_further(&self, hasher: &LineHasher, mut hash: u64, key: PacketKey<'_>) -> u64 {
        for i in 1..LINES {
            if self.lines & 1 << i != 0 {
                hash = hasher.join(hash, hash_of_line(hasher, i, key.line(i), self));
            }
        }
        hash
    }
}

/// Why a flow was not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The flow limit is reached (removed flows count until every worker has finished the burst it was in).
    #[error("the flow table is full")]
    Full,
    /// [`MASKS_MAX`] masks are installed.
    #[error("too many different masks")]
    TooManyMasks,
    /// A flow with this key and mask is installed; its number.
    #[error("flow {0} has the same key and mask")]
    Exists(u32),
}

struct MaskState {
    subtable: Arc<Subtable>,
    writer: MapWriter,
    /// How many of the flows can match packets of each class.
    classes: Box<[u32; CLASSES]>,
}

/// The one writer of a [`Megaflows`] table.
pub struct MegaflowWriter<T: Send + Sync + 'static> {
    slab: SlabWriter<Entry<T>>,
    masks: AHashMap<FlowMask, MaskState>,
    /// What is published.
    order: Arc<[Arc<Subtable>]>,
    unions: Unions,
    /// Classes whose union may have bits that no flow needs any more. That costs nothing but hits in the cache, so it is mended now and
    /// then: a union is made anew from all masks.
    stale: [bool; CLASSES],
    subtables: Arc<Snapshot<Subtables>>,
    hasher: Arc<LineHasher>,
    domain: Arc<Domain>,
}

impl<T: Send + Sync + 'static> core::fmt::Debug for MegaflowWriter<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MegaflowWriter").field("flows", &self.slab.len()).field("masks", &self.masks.len()).finish()
    }
}

impl<T: Send + Sync + 'static> MegaflowWriter<T> {
    /// Installs a flow and returns its number. `key` is masked here.
    ///
    /// # Errors
    /// See [`InsertError`]; nothing is changed then.
    pub fn insert(&mut self, key: &FlowKey, mask: &FlowMask, value: T) -> Result<u32, InsertError> {
        let key = key.masked(mask);
        if let Some(number) = self.find(&key, mask) {
            return Err(InsertError::Exists(number));
        }
        if !self.masks.contains_key(mask) && self.masks.len() >= MASKS_MAX {
            return Err(InsertError::TooManyMasks);
        }
        let new_mask = match self.masks.get(mask) {
            Some(_) => None,
            None => Some(Arc::new(Mask::new(*mask))),
        };
        let shared = new_mask.clone().or_else(|| self.masks.get(mask).map(|m| Arc::clone(&m.subtable.mask)));
        let Some(shared) = shared else { return Err(InsertError::TooManyMasks) };
        let hash = shared.hash(&self.hasher, PacketKey::whole(&key));
        let further: Box<[Line]> = (1..LINES).filter(|i| shared.lines & 1 << i != 0).map(|i| key.lines()[i]).collect();
        let entry = Entry {
            base: key.lines()[0],
            more: (!further.is_empty()).then_some(further),
            hash,
            mask: Arc::clone(&shared),
            value,
        };
        let number = self.slab.insert(entry).map_err(|_| InsertError::Full)?;
        let mut changed = new_mask.is_some();
        if changed {
            let (map, writer) = Map::new(&self.domain);
            let subtable = Arc::new(Subtable { mask: shared, map, hits: Counter::default() });
            self.order = self.order.iter().cloned().chain([Arc::clone(&subtable)]).collect();
            self.masks.insert(*mask, MaskState { subtable, writer, classes: Box::new([0; CLASSES]) });
        }
        if let Some(state) = self.masks.get_mut(mask) {
            for class in classes(&key, mask) {
                state.classes[class] += 1;
                if state.classes[class] == 1 {
                    changed |= self.unions.widen(class, mask);
                }
            }
        }
        // Before the flow can be found.
        if changed {
            self.publish();
        }
        let slab = &self.slab;
        if let Some(state) = self.masks.get_mut(mask) {
            state.writer.insert(hash, number, |n| slab.get(n).map_or(0, |flow| flow.hash));
        }
        Ok(number)
    }

    /// The number that the next installed flow will have, if there is room for one.
    pub fn next_number(&mut self) -> Option<u32> {
        self.slab.next_index()
    }

    /// Removes flow `number`; false if it is not installed.
    pub fn remove(&mut self, number: u32) -> bool {
        let Some(flow) = self.slab.get(number) else { return false };
        let (hash, mask, key) = (flow.hash, Arc::clone(&flow.mask), flow.key());
        if let Some(state) = self.masks.get_mut(&mask.whole) {
            state.writer.remove(hash, number);
            for class in classes(&key, &mask.whole) {
                state.classes[class] -= 1;
                self.stale[class] |= state.classes[class] == 0;
            }
            if state.writer.is_empty() {
                self.masks.remove(&mask.whole);
                self.order = self.order.iter().filter(|s| !Arc::ptr_eq(&s.mask, &mask)).cloned().collect();
                self.publish();
            }
        }
        self.slab.remove(number)
    }

    /// The number of the flow with exactly this key and mask.
    pub fn find(&self, key: &FlowKey, mask: &FlowMask) -> Option<u32> {
        let key = key.masked(mask);
        let state = self.masks.get(mask)?;
        let hash = state.subtable.mask.hash(&self.hasher, PacketKey::whole(&key));
        state.writer.find(hash, |n| self.slab.get(n).is_some_and(|flow| flow.matches(PacketKey::whole(&key))))
    }

    /// The number of a flow that matches this packet key.
    pub fn lookup(&self, key: &FlowKey) -> Option<u32> {
        self.order.iter().find_map(|subtable| {
            let state = self.masks.get(&subtable.mask.whole)?;
            let hash = subtable.mask.hash(&self.hasher, PacketKey::whole(key));
            state.writer.find(hash, |n| self.slab.get(n).is_some_and(|flow| flow.matches(PacketKey::whole(key))))
        })
    }

    /// Flow `number`.
    pub fn get(&self, number: u32) -> Option<&Entry<T>> {
        self.slab.get(number)
    }

    /// Installed flows.
    pub fn len(&self) -> u32 {
        self.slab.len()
    }

    /// True when no flow is installed.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Different masks in use.
    pub fn masks(&self) -> usize {
        self.masks.len()
    }

    /// All flow numbers that may be in use are below this.
    pub fn high_water(&self) -> u32 {
        self.slab.high_water()
    }

    /// Frees the flows that no worker can see any more. What else was replaced is for [`Domain::collect`].
    pub fn reclaim(&mut self) {
        self.slab.reclaim();
    }

    /// Puts the subtables with the most hits since the last call first. Returns true if the order changed.
    pub fn sort_by_hits(&mut self) -> bool {
        let mut hits: Vec<(u64, Arc<Subtable>)> = self.order.iter().map(|s| (s.hits.get(), Arc::clone(s))).collect();
        hits.sort_by_key(|(hits, _)| core::cmp::Reverse(*hits));
        self.order.iter().for_each(|s| s.hits.set(0));
        let changed = hits.iter().zip(self.order.iter()).any(|((_, a), b)| !Arc::ptr_eq(a, b));
        let narrowed = self.narrow();
        if changed {
            self.order = hits.into_iter().map(|(_, s)| s).collect();
        }
        if changed || narrowed {
            self.publish();
        }
        changed
    }

    /// Makes the stale unions anew; false if there are none.
    fn narrow(&mut self) -> bool {
        let stale: Vec<usize> = (0..CLASSES).filter(|&class| core::mem::take(&mut self.stale[class])).collect();
        for &class in &stale {
            let mut union = FlowMask::default();
            let masks = self.masks.iter().filter(|(_, state)| state.classes[class] != 0);
            masks.for_each(|(mask, _)| union.unite(mask));
            self.unions.0[class] = Arc::new(Unions::mask_of(union));
        }
        !stale.is_empty()
    }

    fn publish(&self) {
        self.subtables.publish(Subtables { order: Arc::clone(&self.order), unions: self.unions.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask_of(bits: u8) -> FlowMask {
        let mut mask = FlowMask::default();
        mask.0.base.in_port = u32::MAX;
        if bits & 1 != 0 {
            mask.0.base.ipv4_dst = [255, 255, 0, 0];
        }
        if bits & 2 != 0 {
            mask.0.base.tp_dst.set(0xffff);
        }
        if bits & 4 != 0 {
            mask.0.ipv6.label.set(0xff);
        }
        if bits & 8 != 0 {
            mask.0.tunnel.id.set(0xffff);
        }
        mask
    }

    fn key_of(port: u8, dst: u8, tp: u8, label: u8, id: u8) -> FlowKey {
        let mut key = FlowKey::default();
        key.base.in_port = port.into();
        key.base.ipv4_dst = [dst, 1, 2, 3];
        key.base.tp_dst.set(tp.into());
        key.ipv6.label.set(label.into());
        key.tunnel.id.set(id.into());
        key
    }

    fn table() -> (Arc<Domain>, Megaflows<()>, MegaflowWriter<()>) {
        let domain = Arc::new(Domain::new());
        let (table, writer) = Megaflows::new(&domain, 40, LineHasher::new(9));
        (domain, table, writer)
    }

    #[test]
    fn flows_of_another_port_do_not_tell_packets_apart_and_flows_of_any_port_do() {
        let (domain, table, mut writer) = table();
        let mut reader = domain.reader().unwrap();
        let hash_of = |reader: &mut crate::sync::qsbr::Reader, dst| {
            let burst = reader.enter();
            table.view(&burst).cache_hash(PacketKey::whole(&key_of(1, dst, 0, 0, 0)))
        };
        writer.insert(&key_of(1, 0, 0, 0, 0), &mask_of(0), ()).unwrap();
        writer.insert(&key_of(2, 7, 0, 0, 0), &mask_of(1), ()).unwrap();
        assert_eq!(hash_of(&mut reader, 7), hash_of(&mut reader, 8));
        let mut any_port = mask_of(1);
        any_port.0.base.in_port = 0;
        let number = writer.insert(&key_of(0, 9, 0, 0, 0), &any_port, ()).unwrap();
        assert_ne!(hash_of(&mut reader, 7), hash_of(&mut reader, 8));
        // A mask that went is forgotten when the table is put in order.
        assert!(writer.remove(number));
        writer.sort_by_hits();
        assert_eq!(hash_of(&mut reader, 7), hash_of(&mut reader, 8));
        // What was replaced waits in the domain and knows it.
        assert_eq!(domain.collect(), 0);
    }

    #[test]
    fn classes_of_a_flow_are_those_of_all_packets_that_it_can_match() {
        for (port, port_mask) in [(0, 0), (5, u32::MAX), (5, 31), (5, 7)] {
            for (recirc_id, recirc_mask) in [(0, 0), (6, u32::MAX), (6, 1)] {
                let (mut key, mut mask) = (FlowKey::default(), FlowMask::default());
                (mask.0.base.in_port, mask.0.base.recirc_id) = (port_mask, recirc_mask);
                (key.base.in_port, key.base.recirc_id) = (port & port_mask, recirc_id & recirc_mask);
                let of_flow: Vec<usize> = classes(&key, &mask).collect();
                for (in_port, recirc_id) in (0..100).flat_map(|p| (0..20).map(move |r| (p, r))) {
                    let mut packet = FlowKey::default();
                    (packet.base.in_port, packet.base.recirc_id) = (in_port, recirc_id);
                    let of_packet = class(packet.lines()[0][0]);
                    assert!(!mask.matches(&key, &packet) || of_flow.contains(&of_packet), "{in_port} {recirc_id}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_linear_list(
            steps in proptest::collection::vec((0u8..4, 0u8..16, 0u8..2, 0u8..3, 0u8..3, 0u8..2, 0u8..2), 1..120)
        ) {
            let domain = Arc::new(Domain::new());
            let mut reader = domain.reader().unwrap();
            let (table, mut writer) = Megaflows::new(&domain, 40, LineHasher::new(9));
            let mut model: Vec<(u32, FlowKey, FlowMask)> = Vec::new();
            for (op, mask, port, dst, tp, label, id) in steps {
                let (mask, key) = (mask_of(mask), key_of(port, dst, tp, label, id));
                let masked = key.masked(&mask);
                let at = model.iter().position(|(_, k, m)| *k == masked && *m == mask);
                match op {
                    0 | 1 => match (writer.insert(&key, &mask, ()), at) {
                        (Ok(n), None) => model.push((n, masked, mask)),
                        (Err(InsertError::Exists(n)), Some(at)) => prop_assert_eq!(n, model[at].0),
                        (Err(InsertError::Full), None) => prop_assert_eq!(model.len(), 40),
                        (other, _) => prop_assert!(false, "{:?}", other),
                    },
                    2 => {
                        prop_assert_eq!(writer.find(&key, &mask), at.map(|at| model[at].0));
                        if let Some(at) = at {
                            let (n, ..) = model.swap_remove(at);
                            prop_assert!(writer.remove(n));
                            prop_assert!(!writer.remove(n));
                        }
                    }
                    _ => { writer.sort_by_hits(); }
                }
                let burst = reader.enter();
                let view = table.view(&burst);
                let packet = PacketKey::whole(&key);
                let expected: Vec<u32> =
                    model.iter().filter(|(_, k, m)| m.matches(k, &key)).map(|(n, ..)| *n).collect();
                let one = view.lookup(packet).0.map(|(n, _)| n);
                prop_assert_eq!(one.is_some(), !expected.is_empty());
                for number in &expected {
                    let flow = view.flow(*number).unwrap();
                    prop_assert!(view.knows_base_of(flow, packet.base) && view.knows_beyond_of(flow, packet.base));
                }
                prop_assert!(one.is_none_or(|n| expected.contains(&n)));
                let mut wanted = vec![0u16, 1];
                let mut many = Vec::new();
                view.lookup_burst(&mut wanted, |_| packet, |_, n, _| many.push(n));
                prop_assert_eq!(many.len() + wanted.len(), 2);
                prop_assert!(many.iter().all(|n| expected.contains(n)));
                prop_assert_eq!(wanted.is_empty(), !expected.is_empty());
            }
            prop_assert_eq!(writer.len() as usize, model.len());
            // What was replaced waits in the domain and knows it: without this neither would ever go.
            prop_assert_eq!(domain.collect(), 0);
        }
    }
}
