//! Packets of the caller's: a descriptor of somebody's buffer.

use core::ffi::c_void;
use core::ptr::NonNull;

use wye::flow::key::LINE_MISC;
use wye::flow::{Ext, FlowKey};
use wye::packet::buffer::PACKET_LEN_MAX;
use wye::packet::{DropReason, Fate, Owner, Packet, PacketFlags};

/// In `in_port`: the packet came in on no port.
pub const WYE_PORT_NONE: u32 = u32::MAX;
/// A header that the packet lacks, or that was not looked for.
pub const WYE_NO_OFFSET: u16 = u16::MAX;

/// In and out: `rss_hash` is a hash of the 5-tuple.
pub const WYE_PKT_RSS_VALID: u32 = 1;
/// In and out: the receiver verified the checksums.
pub const WYE_PKT_CHECKSUM_GOOD: u32 = 4;
/// Out: the descriptor and its buffer are the library's own (a copy, or a packet that had to move to a bigger buffer), valid until
/// the callback returns. `token` is NULL then.
pub const WYE_PKT_ENGINE: u32 = 0x100;

/// What became of a packet.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wye_fate {
    /// Nothing yet.
    WYE_FATE_NONE = 0,
    /// Sent: by `transmit` itself, or as a copy.
    WYE_FATE_TRANSMITTED = 1,
    /// It went up and ended there.
    WYE_FATE_UPCALL = 2,
    /// It waits for an asynchronous stage.
    WYE_FATE_PARKED = 3,
    /// Handed to the local stack.
    WYE_FATE_DELIVERED = 4,
    /// Dropped; `reason` says why.
    WYE_FATE_DROPPED = 5,
    /// `wye_worker_execute` with `WYE_EXECUTE_KEEP`: the actions are done and the packet is still there.
    WYE_FATE_KEPT = 6,
}

/// Why a packet was dropped. The numbers never change; they index `wye_counters.drops`. Later versions may add some.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wye_drop {
    /// Shorter than an Ethernet header, or longer than its buffer allows.
    WYE_DROP_RX_INVALID = 0,
    /// The flow's action list is empty, or it ends without an output.
    WYE_DROP_NO_OUTPUT = 1,
    /// An explicit `drop` action.
    WYE_DROP_EXPLICIT = 2,
    /// No flow matched and no upcall handler is set.
    WYE_DROP_MISS = 3,
    /// The upcall handler answered "drop".
    WYE_DROP_UPCALL_REFUSED = 4,
    /// The upcall ring was full, or upcalls are disabled just now.
    WYE_DROP_UPCALL_LOST = 5,
    /// Output to a port that does not exist.
    WYE_DROP_INVALID_PORT = 6,
    /// Output to a port that exists but is down or has gone.
    WYE_DROP_PORT_DOWN = 7,
    /// The port's transmit queue took no more.
    WYE_DROP_TX_FULL = 8,
    /// The port cannot send a packet of this length.
    WYE_DROP_TX_TOO_LONG = 9,
    /// A meter's band was exceeded.
    WYE_DROP_METER = 10,
    /// More recirculations than the limit.
    WYE_DROP_RECIRCULATION_LIMIT = 11,
    /// `dec_ttl` of a packet whose TTL or hop limit is 1 or 0.
    WYE_DROP_TTL_EXPIRED = 12,
    /// An action needs a header that the packet lacks, or that is truncated.
    WYE_DROP_ACTION_HEADER = 13,
    /// No buffer was free for a copy.
    WYE_DROP_NO_BUFFER = 14,
    /// No headroom or tailroom is left for a header.
    WYE_DROP_NO_HEADROOM = 15,
    /// `lb_output` to a bond that does not exist or has no member.
    WYE_DROP_INVALID_BOND = 16,
    /// An action that this engine cannot carry out.
    WYE_DROP_UNSUPPORTED_ACTION = 17,
    /// The gateway's policy refused it (unknown VLAN on the port, link-local control frame).
    WYE_DROP_POLICY = 18,
    /// Ingress on a port where it may not be forwarded to any other port.
    WYE_DROP_NO_DESTINATION = 19,
    /// Broadcast, unknown-unicast or multicast flooding exceeded its limit.
    WYE_DROP_STORM = 20,
    /// The engine shuts down or was poisoned by a caught panic.
    WYE_DROP_SHUTDOWN = 21,
    /// A tunnel packet whose outer or tunnel header is cut off, contradicts itself, or has a version or flags that are not in use.
    WYE_DROP_TUNNEL_HEADER = 22,
    /// A tunnel packet whose outer checksum is wrong, or missing where it must not be.
    WYE_DROP_TUNNEL_CHECKSUM = 23,
    /// A fragment of a tunnel packet: it would have to be reassembled first.
    WYE_DROP_TUNNEL_FRAGMENT = 24,
    /// A tunnel packet with an option or extension header that must be understood and is not.
    WYE_DROP_TUNNEL_OPTION = 25,
    /// A tunnel packet marked "congestion experienced" around one whose transport cannot be told.
    WYE_DROP_TUNNEL_ECN = 26,
    /// `tnl_pop` or `encap` with a tunnel that does not exist.
    WYE_DROP_UNKNOWN_TUNNEL = 27,
    /// `encap` into a tunnel whose way is not known.
    WYE_DROP_UNRESOLVED = 28,
    /// `encap` of a packet that is too long for the tunnel's way.
    WYE_DROP_TOO_BIG = 29,
}

/// Counters that `wye_counters.drops` has room for: reasons that later versions add find theirs there.
pub const WYE_DROPS_MAX: usize = 64;

/// One packet: a descriptor of a buffer, and what is known about the packet beside its bytes. Clear it (`memset`), then set at least
/// `buffer`, `capacity`, `data_ofs`, `len` and `in_port`.
///
/// Whoever holds the descriptor holds the bytes. The library changes them where actions say so, moves `data_ofs` and `len` when headers
/// come and go, and never moves the payload. The layout is fixed for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_packet {
    /// First byte of the buffer.
    pub buffer: *mut u8,
    /// The caller's; the library only carries it. NULL in the library's own packets.
    pub token: *mut c_void,
    /// Bytes in the buffer.
    pub capacity: u32,
    /// Where the frame begins = headroom.
    pub data_ofs: u32,
    /// Bytes of the frame, without FCS, with padding. At most 65,535.
    pub len: u32,
    /// Port of ingress, `WYE_PORT_NONE` for none.
    pub in_port: u32,
    /// What the bytes begin with: 0 = Ethernet; 1 << 16 | EtherType = that header, as in OpenFlow.
    pub packet_type: u32,
    /// Recirculation id, 0 for a packet that was just received.
    pub recirc_id: u32,
    /// Result of the last `hash` action.
    pub dp_hash: u32,
    /// Hash of the 5-tuple, if `flags` says so.
    pub rss_hash: u32,
    /// Packet mark.
    pub skb_mark: u32,
    /// QoS priority (`skb_priority` of a key).
    pub skb_priority: u32,
    /// `WYE_PKT_*`; others must be clear.
    pub flags: u32,
    /// Connection mark.
    pub ct_mark: u32,
    /// Connection tracking zone.
    pub ct_zone: u16,
    /// Connection tracking state, `OVS_CS_F_*`; 0 for an untracked packet.
    pub ct_state: u8,
    /// Zero.
    pub reserved: u8,
    /// Out: the outermost MPLS label stack entry, from `data_ofs` on; `WYE_NO_OFFSET` for none.
    pub l2_5_ofs: u16,
    /// Out: the network header, likewise.
    pub l3_ofs: u16,
    /// Out: the transport header, likewise.
    pub l4_ofs: u16,
    /// Out: `enum wye_fate`.
    pub fate: u16,
    /// Out: `enum wye_drop`, if `fate` is `WYE_FATE_DROPPED`.
    pub reason: u16,
    /// Zero.
    pub reserved2: u16,
    /// Connection label, in the byte order of `OVS_KEY_ATTR_CT_LABELS`.
    pub ct_label: [u8; 16],
    /// Zero: room for later versions.
    pub reserved3: [u64; 4],
}

impl wye_packet {
    pub(crate) const EMPTY: wye_packet = wye_packet {
        buffer: core::ptr::null_mut(),
        token: core::ptr::null_mut(),
        capacity: 0,
        data_ofs: 0,
        len: 0,
        in_port: 0,
        packet_type: 0,
        recirc_id: 0,
        dp_hash: 0,
        rss_hash: 0,
        skb_mark: 0,
        skb_priority: 0,
        flags: 0,
        ct_mark: 0,
        ct_zone: 0,
        ct_state: 0,
        reserved: 0,
        l2_5_ofs: 0,
        l3_ofs: 0,
        l4_ofs: 0,
        fate: 0,
        reason: 0,
        reserved2: 0,
        ct_label: [0; 16],
        reserved3: [0; 4],
    };

    /// The engine's descriptor of this packet, whose token leads back here. If the frame does not lie in the buffer, is too long, or has
    /// metadata that the engine cannot take in, it describes no bytes at all, which the engine counts as `rx_invalid`.
    ///
    /// # Safety
    /// `at` points to a descriptor that outlives the engine's, whose buffer is valid for reads and writes and initialised, and
    /// which nobody else touches meanwhile.
    #[inline]
    pub(crate) unsafe fn describe(at: *mut wye_packet) -> Packet {
        // SAFETY: this function's contract.
        if let Some(packet) = unsafe { Self::try_describe(at) } {
            return packet;
        }
        let token = at.expose_provenance() as u64;
        // SAFETY: a buffer of no bytes is valid wherever it is.
        let nothing = unsafe { Packet::from_raw_parts(NonNull::dangling(), 0, 0, 0, Owner::Caller, token) };
        nothing.unwrap_or(Packet::gone())
    }

    /// As `describe`.
    ///
    /// # Safety
    /// As `describe`.
    #[inline]
    unsafe fn try_describe(at: *mut wye_packet) -> Option<Packet> {
        // SAFETY: this function's contract.
        let w = unsafe { &*at };
        // The engine counts headroom in 16 bits: what is further in front is left out of its view.
        let hidden = w.data_ofs.saturating_sub(u32::from(u16::MAX));
        let capacity = w.capacity.checked_sub(hidden)?;
        let known = WYE_PKT_RSS_VALID | WYE_PKT_CHECKSUM_GOOD;
        if w.flags & !known != 0 {
            return None;
        }
        let layer3 = match w.packet_type >> 16 {
            0 => false,
            1 => true,
            _ => return None,
        };
        // SAFETY: `hidden <= data_ofs`; if that lies beyond the buffer, the pointer is never used, since the check of offset, length and
        // capacity below fails.
        let buffer = NonNull::new(w.buffer.wrapping_add(hidden as usize)).filter(|_| !w.buffer.is_null())?;
        let offset = (w.data_ofs - hidden) as u16;
        let token = at.expose_provenance() as u64;
        // SAFETY: the contract, less the hidden bytes at the front.
        let mut packet = unsafe { Packet::from_raw_parts(buffer, capacity, offset, w.len, Owner::Caller, token) }?;
        packet.in_port = w.in_port;
        packet.recirc_id = w.recirc_id;
        packet.dp_hash = w.dp_hash;
        packet.rss_hash = w.rss_hash;
        packet.skb_mark = w.skb_mark;
        packet.ct_mark = w.ct_mark;
        packet.ct_zone = w.ct_zone;
        packet.ct_state = w.ct_state;
        packet.flags = PacketFlags::from_bits(w.flags as u8);
        if layer3 {
            packet.flags.insert(PacketFlags::LAYER3);
            packet.l3_type = w.packet_type as u16;
        }
        Some(packet)
    }

    /// What the engine keeps beside its descriptors: QoS priority and connection label.
    #[inline]
    pub(crate) fn is_rare(&self) -> bool {
        self.skb_priority != 0 || self.ct_label != [0; 16]
    }

    /// Gives the engine what it keeps beside its descriptors.
    pub(crate) fn give(&self, ext: &mut Ext) {
        ext.skb_priority = self.skb_priority;
        ext.misc.ct_label = self.ct_label;
        if self.ct_label != [0; 16] {
            ext.lines |= LINE_MISC;
        }
    }

    /// Takes over what the engine kept beside its descriptor.
    pub(crate) fn take(&mut self, ext: &Ext) {
        self.skb_priority = ext.skb_priority;
        self.ct_label = if ext.lines & LINE_MISC != 0 { ext.misc.ct_label } else { [0; 16] };
    }

    /// As `take`, for a packet with this key.
    pub(crate) fn take_of_key(&mut self, key: &FlowKey) {
        self.skb_priority = key.base.skb_priority;
        self.ct_label = key.misc.ct_label;
    }

    /// The caller's descriptor that the engine's stands for.
    #[inline]
    pub(crate) fn of(packet: &Packet) -> Option<*mut wye_packet> {
        (packet.owner() == Owner::Caller).then(|| core::ptr::with_exposed_provenance_mut(packet.token() as usize))
    }

    /// Takes over what the engine knows of the packet, except the buffer.
    #[inline]
    fn update(&mut self, packet: &Packet) {
        self.len = packet.len() as u32;
        self.in_port = packet.in_port;
        self.recirc_id = packet.recirc_id;
        self.dp_hash = packet.dp_hash;
        self.rss_hash = packet.rss_hash;
        self.skb_mark = packet.skb_mark;
        self.ct_mark = packet.ct_mark;
        self.ct_zone = packet.ct_zone;
        self.ct_state = packet.ct_state;
        self.l2_5_ofs = packet.l2_5;
        self.l3_ofs = packet.l3;
        self.l4_ofs = packet.l4;
        self.flags = u32::from(packet.flags.bits()) & (WYE_PKT_RSS_VALID | WYE_PKT_CHECKSUM_GOOD);
        self.packet_type =
            if packet.flags.contains(PacketFlags::LAYER3) { 1 << 16 | u32::from(packet.l3_type) } else { 0 };
    }

    /// Writes the engine's view back to the caller's descriptor.
    ///
    /// # Safety
    /// `at` is the descriptor that `packet` was made from, and still the library's to write.
    #[inline]
    pub(crate) unsafe fn write_back(at: *mut wye_packet, packet: &Packet) {
        // SAFETY: this function's contract.
        let w = unsafe { &mut *at };
        let start = packet.buffer_ptr() as usize + packet.headroom();
        w.data_ofs = (start - w.buffer as usize) as u32;
        w.update(packet);
    }

    /// Describes one of the engine's own packets for a callback.
    #[inline]
    pub(crate) fn view(packet: &Packet) -> Self {
        let mut w = wye_packet {
            buffer: packet.buffer_ptr(),
            capacity: packet.capacity() as u32,
            data_ofs: packet.headroom() as u32,
            ..wye_packet::EMPTY
        };
        w.update(packet);
        w.flags |= WYE_PKT_ENGINE;
        w
    }

    /// As `view`, of a packet with this key.
    pub(crate) fn view_with(packet: &Packet, key: &FlowKey) -> Self {
        let mut w = Self::view(packet);
        w.take_of_key(key);
        w
    }

    /// Writes a packet's end.
    #[inline]
    pub(crate) fn end(&mut self, fate: Fate) {
        let (fate, reason) = numbers(fate);
        self.fate = fate as u16;
        self.reason = reason;
    }
}

fn numbers(fate: Fate) -> (wye_fate, u16) {
    match fate {
        Fate::Undecided => (wye_fate::WYE_FATE_NONE, 0),
        Fate::Transmitted => (wye_fate::WYE_FATE_TRANSMITTED, 0),
        Fate::Upcall => (wye_fate::WYE_FATE_UPCALL, 0),
        Fate::Parked => (wye_fate::WYE_FATE_PARKED, 0),
        Fate::Delivered => (wye_fate::WYE_FATE_DELIVERED, 0),
        Fate::Dropped(reason) => (wye_fate::WYE_FATE_DROPPED, reason.index() as u16),
    }
}

/// The reason's name, which is also its counter's: `"no_output"`; NULL for a number that is none. The string is static.
///
/// Any thread; does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_drop_name(reason: u16) -> *const core::ffi::c_char {
    NAMES.get(usize::from(reason)).map_or(core::ptr::null(), |name| name.as_ptr().cast())
}

const _: () =
    assert!(PACKET_LEN_MAX == 65_535 && DropReason::COUNT <= WYE_DROPS_MAX && NAMES.len() == DropReason::COUNT);

const NAMES: [&str; 30] = [
    "rx_invalid\0",
    "no_output\0",
    "explicit\0",
    "miss\0",
    "upcall_refused\0",
    "upcall_lost\0",
    "invalid_port\0",
    "port_down\0",
    "tx_full\0",
    "tx_too_long\0",
    "meter\0",
    "recirculation_limit\0",
    "ttl_expired\0",
    "action_header\0",
    "no_buffer\0",
    "no_headroom\0",
    "invalid_bond\0",
    "unsupported_action\0",
    "policy\0",
    "no_destination\0",
    "storm\0",
    "shutdown\0",
    "tunnel_header\0",
    "tunnel_checksum\0",
    "tunnel_fragment\0",
    "tunnel_option\0",
    "tunnel_ecn\0",
    "unknown_tunnel\0",
    "unresolved\0",
    "too_big\0",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_the_header_are_the_engines() {
        let here = [
            wye_drop::WYE_DROP_RX_INVALID,
            wye_drop::WYE_DROP_NO_OUTPUT,
            wye_drop::WYE_DROP_EXPLICIT,
            wye_drop::WYE_DROP_MISS,
            wye_drop::WYE_DROP_UPCALL_REFUSED,
            wye_drop::WYE_DROP_UPCALL_LOST,
            wye_drop::WYE_DROP_INVALID_PORT,
            wye_drop::WYE_DROP_PORT_DOWN,
            wye_drop::WYE_DROP_TX_FULL,
            wye_drop::WYE_DROP_TX_TOO_LONG,
            wye_drop::WYE_DROP_METER,
            wye_drop::WYE_DROP_RECIRCULATION_LIMIT,
            wye_drop::WYE_DROP_TTL_EXPIRED,
            wye_drop::WYE_DROP_ACTION_HEADER,
            wye_drop::WYE_DROP_NO_BUFFER,
            wye_drop::WYE_DROP_NO_HEADROOM,
            wye_drop::WYE_DROP_INVALID_BOND,
            wye_drop::WYE_DROP_UNSUPPORTED_ACTION,
            wye_drop::WYE_DROP_POLICY,
            wye_drop::WYE_DROP_NO_DESTINATION,
            wye_drop::WYE_DROP_STORM,
            wye_drop::WYE_DROP_SHUTDOWN,
            wye_drop::WYE_DROP_TUNNEL_HEADER,
            wye_drop::WYE_DROP_TUNNEL_CHECKSUM,
            wye_drop::WYE_DROP_TUNNEL_FRAGMENT,
            wye_drop::WYE_DROP_TUNNEL_OPTION,
            wye_drop::WYE_DROP_TUNNEL_ECN,
            wye_drop::WYE_DROP_UNKNOWN_TUNNEL,
            wye_drop::WYE_DROP_UNRESOLVED,
            wye_drop::WYE_DROP_TOO_BIG,
        ];
        assert_eq!(here.len(), DropReason::COUNT);
        for (here, engine) in here.iter().zip(DropReason::ALL) {
            assert_eq!(*here as usize, engine.index());
            assert_eq!(format!("{here:?}").to_lowercase(), format!("wye_drop_{engine}"));
            assert_eq!(NAMES[engine.index()], format!("{engine}\0"));
        }
    }

    #[test]
    fn frames_outside_their_buffer_are_not_described() {
        let mut bytes = [0u8; 128];
        let good = wye_packet { buffer: bytes.as_mut_ptr(), capacity: 128, data_ofs: 64, len: 60, ..wye_packet::EMPTY };
        let is_described = |mut w: wye_packet| {
            // SAFETY: `bytes` outlives the descriptor, or the buffer is not valid and must not be described.
            unsafe { wye_packet::describe(&mut w) }.capacity() != 0
        };
        assert!(is_described(good));
        assert!(!is_described(wye_packet { buffer: core::ptr::null_mut(), ..good }));
        assert!(!is_described(wye_packet { len: 65, ..good }));
        assert!(!is_described(wye_packet { data_ofs: u32::MAX, ..good }));
        assert!(!is_described(wye_packet { capacity: 0, ..good }));
        assert!(!is_described(wye_packet { packet_type: 2 << 16, ..good }));
        assert!(!is_described(wye_packet { flags: WYE_PKT_ENGINE, ..good }));
    }

    #[test]
    fn headroom_beyond_16_bits_is_hidden_and_comes_back() {
        let mut bytes = vec![0u8; 100_000];
        let mut w = wye_packet {
            buffer: bytes.as_mut_ptr(),
            capacity: 100_000,
            data_ofs: 90_000,
            len: 60,
            ..wye_packet::EMPTY
        };
        // SAFETY: `bytes` outlives the descriptor.
        unsafe {
            let at = &raw mut w;
            let mut packet = wye_packet::describe(at);
            assert_eq!((packet.headroom(), packet.len()), (65_535, 60));
            assert!(packet.push_front(4));
            wye_packet::write_back(at, &packet);
        }
        assert_eq!((w.data_ofs, w.len), (89_996, 64));
    }
}
