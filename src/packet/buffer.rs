//! [`Packet`]: a 64-byte descriptor of a buffer that somebody else owns.
//!
//! ```text
//!   buffer ──▶ │ headroom │ data (len bytes)              │ tailroom │
//!              0          offset                offset+len          capacity
//!                         │  l2_5   l3   l4   (offsets from the first data byte, NONE if absent)
//! ```
//!
//! The descriptor fits one cache line, so a burst of 32 packets costs 32 lines and payloads are never touched beyond
//! their headers. Pushing a header moves `offset` down; popping moves it up; payload bytes stay where they are.

use core::ptr::NonNull;

/// An absent header offset.
pub const NONE: u16 = u16::MAX;

/// The longest packet that is accepted, in bytes.
pub const PACKET_LEN_MAX: usize = 65_535;

/// Whose buffer it is, and who frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// The caller's: the engine never frees it. The token is the caller's own.
    Caller = 0,
    /// A [`Pool`](super::Pool)'s: the token is the buffer's number.
    Pool = 1,
    /// A port's memory (an AF_XDP frame, for example): the token is the port's own.
    Port = 2,
    /// Nobody's any more: it was handed on or freed.
    Gone = 3,
}

/// Facts about a packet beyond its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFlags(u8);

impl PacketFlags {
    /// `rss_hash` holds a hash of the packet's 5-tuple.
    pub const RSS_VALID: PacketFlags = PacketFlags(1);
    /// The data begins with a layer-3 header: OVS's packet type `(1, ethertype)`.
    pub const LAYER3: PacketFlags = PacketFlags(2);
    /// The receiver verified the IPv4 header checksum and the layer-4 checksum.
    pub const CHECKSUM_GOOD: PacketFlags = PacketFlags(4);
    /// At least one copy of the packet was handed to a port.
    pub const COPIED_OUT: PacketFlags = PacketFlags(8);
    /// It must not move to another buffer: without headroom for a header it is dropped.
    pub const STAYS: PacketFlags = PacketFlags(16);

    /// True if all of `other` is set.
    #[inline(always)]
    pub const fn contains(self, other: PacketFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets `other`.
    #[inline(always)]
    pub const fn insert(&mut self, other: PacketFlags) {
        self.0 |= other.0;
    }

    /// Clears `other`.
    #[inline(always)]
    pub const fn remove(&mut self, other: PacketFlags) {
        self.0 &= !other.0;
    }

    /// The raw bits, as they cross the C ABI.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From raw bits; unknown ones are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        PacketFlags(bits & 15)
    }
}

/// A packet's descriptor.
///
/// *Thread-safety.* Owned by one thread at a time (`Send`, not `Sync`): whoever holds the descriptor holds the bytes.
///
/// Dropping a descriptor frees nothing: buffers go back to their owner by the worker or the port that consumes them.
/// Forgetting one therefore leaks a buffer, it never frees one twice.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Packet {
    buffer: NonNull<u8>,
    capacity: u32,
    len: u16,
    /// EtherType of what the packet starts with; meaningful only with [`PacketFlags::LAYER3`].
    pub l3_type: u16,
    offset: u16,
    /// Offset of the outermost MPLS label stack entry, or [`NONE`].
    pub l2_5: u16,
    /// Offset of the network header, or [`NONE`].
    pub l3: u16,
    /// Offset of the transport header, or [`NONE`].
    pub l4: u16,
    /// See [`PacketFlags`].
    pub flags: PacketFlags,
    owner: Owner,
    /// Index of this packet's entry in the worker's table of rarer metadata; 0 for none.
    pub ext: u16,
    /// Datapath port that the packet came in on.
    pub in_port: u32,
    /// Recirculation id; 0 on first entry.
    pub recirc_id: u32,
    /// Hash of the 5-tuple as the receiver or the engine computed it; valid with [`PacketFlags::RSS_VALID`].
    pub rss_hash: u32,
    /// Result of the last `hash` action; 0 for none.
    pub dp_hash: u32,
    /// Packet mark (`skb_mark`).
    pub skb_mark: u32,
    /// Connection mark.
    pub ct_mark: u32,
    /// Connection tracking zone.
    pub ct_zone: u16,
    /// Connection tracking state, `OVS_CS_F_*`.
    pub ct_state: u8,
    _reserved: u8,
    token: u64,
}

const _: () = assert!(core::mem::size_of::<Packet>() == 64);

// SAFETY: the descriptor is the only handle to its bytes within the engine (it is neither `Clone` nor `Copy`), so
// moving it to another thread moves the right to touch them. `from_raw_parts` demands the same of its caller.
#[allow(unsafe_code)]
unsafe impl Send for Packet {}

impl Packet {
    /// Describes `len` bytes at `buffer + offset` in a buffer of `capacity` bytes.
    ///
    /// Returns `None` when the bytes do not lie inside the buffer or `len` exceeds [`PACKET_LEN_MAX`].
    ///
    /// # Safety
    /// `buffer` must be valid for reads and writes of `capacity` bytes, and initialised, for as long as the descriptor is used
    /// (until it is [`Owner::Gone`] or dropped), and nobody else may touch those bytes meanwhile.
    #[allow(unsafe_code)]
    #[inline]
    pub unsafe fn from_raw_parts(
        buffer: NonNull<u8>,
        capacity: u32,
        offset: u16,
        len: u32,
        owner: Owner,
        token: u64,
    ) -> Option<Self> {
        if len as usize > PACKET_LEN_MAX || u64::from(offset) + u64::from(len) > u64::from(capacity) {
            return None;
        }
        Some(Packet {
            buffer,
            capacity,
            len: len as u16,
            l3_type: 0,
            offset,
            l2_5: NONE,
            l3: NONE,
            l4: NONE,
            flags: PacketFlags(0),
            owner,
            ext: 0,
            in_port: 0,
            recirc_id: 0,
            rss_hash: 0,
            dp_hash: 0,
            skb_mark: 0,
            ct_mark: 0,
            token,
            ct_zone: 0,
            ct_state: 0,
            _reserved: 0,
        })
    }

    /// A descriptor of no bytes, already [`Owner::Gone`]: fills arrays.
    pub const fn gone() -> Self {
        Packet {
            buffer: NonNull::dangling(),
            capacity: 0,
            len: 0,
            l3_type: 0,
            offset: 0,
            l2_5: NONE,
            l3: NONE,
            l4: NONE,
            flags: PacketFlags(0),
            owner: Owner::Gone,
            ext: 0,
            in_port: 0,
            recirc_id: 0,
            rss_hash: 0,
            dp_hash: 0,
            skb_mark: 0,
            ct_mark: 0,
            token: 0,
            ct_zone: 0,
            ct_state: 0,
            _reserved: 0,
        }
    }

    /// The packet's bytes.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `offset + len <= capacity` holds in every constructor and is kept by every method that changes
        // them; the constructor's contract makes those bytes valid, initialised and ours.
        unsafe { core::slice::from_raw_parts(self.buffer.as_ptr().add(self.offset as usize), self.len as usize) }
    }

    /// The packet's bytes, for changing.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `data`; `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.buffer.as_ptr().add(self.offset as usize), self.len as usize) }
    }

    /// The `n` bytes in front of the packet; `None` without so much headroom. They are what was last there: headers that were taken off, if so.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn bytes_before(&self, n: usize) -> Option<&[u8]> {
        let start = self.headroom().checked_sub(n)?;
        // SAFETY: `start + n` is the offset, which lies inside the buffer, all of which is valid, initialised and ours (see `data`).
        Some(unsafe { core::slice::from_raw_parts(self.buffer.as_ptr().add(start), n) })
    }

    /// Asks the CPU to load the second line of the packet's bytes.
    #[inline(always)]
    pub fn prefetch_second(&self) {
        crate::wire::simd::prefetch(self.buffer.as_ptr().wrapping_add(self.offset as usize + 64));
    }

    /// Asks the CPU to load the first line of the packet's bytes.
    #[inline(always)]
    pub fn prefetch(&self) {
        crate::wire::simd::prefetch(self.buffer.as_ptr().wrapping_add(self.offset as usize));
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True for a packet of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free bytes before the data.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        self.offset as usize
    }

    /// Free bytes behind the data.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        (self.capacity - u32::from(self.offset) - u32::from(self.len)) as usize
    }

    /// Start of the buffer (not of the data).
    pub fn buffer_ptr(&self) -> *mut u8 {
        self.buffer.as_ptr()
    }

    /// Size of the buffer in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Grows the packet by `n` bytes at its front. False, and nothing changes, without the headroom or past
    /// [`PACKET_LEN_MAX`]. The new bytes keep whatever the buffer held. Header offsets are not moved.
    #[inline]
    #[must_use]
    pub fn push_front(&mut self, n: usize) -> bool {
        if n > self.offset as usize || self.len as usize + n > PACKET_LEN_MAX {
            return false;
        }
        self.offset -= n as u16;
        self.len += n as u16;
        true
    }

    /// As [`Packet::push_front`]; returns the new bytes.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn push_front_bytes(&mut self, n: usize) -> Option<&mut [u8]> {
        if !self.push_front(n) {
            return None;
        }
        // SAFETY: as `data_mut`; the packet begins with these bytes.
        Some(unsafe { core::slice::from_raw_parts_mut(self.buffer.as_ptr().add(self.offset as usize), n) })
    }

    /// Shrinks the packet by `n` bytes at its front. False, and nothing changes, if it is shorter.
    #[inline]
    #[must_use]
    pub fn pop_front(&mut self, n: usize) -> bool {
        if n > self.len as usize || self.offset as usize + n > u16::MAX as usize {
            return false;
        }
        self.offset += n as u16;
        self.len -= n as u16;
        true
    }

    /// Grows the packet by `n` bytes at its end; false without the tailroom.
    #[inline]
    #[must_use]
    pub fn push_back(&mut self, n: usize) -> bool {
        if n > self.tailroom() || self.len as usize + n > PACKET_LEN_MAX {
            return false;
        }
        self.len += n as u16;
        true
    }

    /// Cuts the packet to at most `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len as usize {
            self.len = len as u16;
        }
    }

    /// Whose buffer it is.
    #[inline(always)]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The owner's token.
    #[inline(always)]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Moves the descriptor out and leaves a [`Packet::gone`] behind: the taker answers for the buffer now.
    #[inline]
    pub fn take(&mut self) -> Packet {
        core::mem::replace(self, Packet::gone())
    }

    /// Marks the buffer as given back: no bytes are described any more.
    #[inline(always)]
    pub(super) fn set_gone(&mut self) {
        // A length and a capacity of 0 keep every accessor inside nothing.
        (self.buffer, self.capacity, self.len, self.offset) = (NonNull::dangling(), 0, 0, 0);
        self.owner = Owner::Gone;
    }

    /// Copies everything that describes the packet except its bytes, buffer and owner.
    #[inline]
    pub fn copy_metadata(&mut self, from: &Packet) {
        self.l3_type = from.l3_type;
        self.l2_5 = from.l2_5;
        self.l3 = from.l3;
        self.l4 = from.l4;
        self.flags = from.flags;
        self.ext = from.ext;
        self.in_port = from.in_port;
        self.recirc_id = from.recirc_id;
        self.rss_hash = from.rss_hash;
        self.dp_hash = from.dp_hash;
        self.skb_mark = from.skb_mark;
        self.ct_mark = from.ct_mark;
        self.ct_zone = from.ct_zone;
        self.ct_state = from.ct_state;
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    #[test]
    fn data_must_lie_inside_the_buffer() {
        let mut bytes = [0u8; 64];
        let p = NonNull::new(bytes.as_mut_ptr()).unwrap();
        // SAFETY: `bytes` outlives the descriptors.
        unsafe {
            assert!(Packet::from_raw_parts(p, 64, 10, 55, Owner::Caller, 0).is_none());
            assert!(Packet::from_raw_parts(p, 64, 10, u32::MAX, Owner::Caller, 0).is_none());
            assert!(Packet::from_raw_parts(p, 64, 10, 54, Owner::Caller, 0).is_some());
        }
    }

    #[test]
    fn headers_move_only_within_the_room() {
        let mut bytes = [7u8; 64];
        let p = NonNull::new(bytes.as_mut_ptr()).unwrap();
        // SAFETY: `bytes` outlives the descriptor.
        let mut packet = unsafe { Packet::from_raw_parts(p, 64, 10, 20, Owner::Caller, 0) }.unwrap();
        assert!(!packet.push_front(11));
        assert!(packet.push_front(10));
        assert_eq!((packet.headroom(), packet.len(), packet.tailroom()), (0, 30, 34));
        assert!(!packet.pop_front(31));
        assert!(packet.pop_front(30));
        assert!(!packet.push_back(35));
        assert!(packet.push_back(34));
        packet.truncate(100);
        assert_eq!(packet.data().len(), 34);
    }
}
