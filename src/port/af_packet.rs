//! A packet socket on an existing interface, receiving through a TPACKET_V3 ring.
//!
//! ```text
//!   ring   │ block 0 │ block 1 │ … each owned by the kernel until it is full or a millisecond old, then ours until given back
//!   block  │ header: status, packets │ packet │ packet │ …
//!   packet │ header: lengths, VLAN tag │ link-level address │ virtio header │ bytes
//! ```
//!
//! Packets are copied out into pool buffers, so that one that is parked never keeps a block (and all packets behind it) from the
//! kernel. The kernel keeps VLAN tags apart: they are put back. It also says which packets were left unfinished for a
//! network card; their checksums are completed and long ones cut (see `offload.rs`). What the host itself sends
//! on the interface is not received. Sending is `sendmmsg`, so a capture on the interface sees it.
//!
//! This is one of the crate's rooms for `unsafe`: the ring (`Ring`) and the call that sends.

use core::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use libc::c_int;
use memmap2::{MmapOptions, MmapRaw};

use super::driver::{Driver, Link, PortError, PortStats, TxBurst};
use super::offload::{self, Segments};
use super::sys::{self, Interfaces};
use crate::packet::{Owner, Packet, Pool, PoolCache, buffer::PACKET_LEN_MAX};
use crate::sync::primitive::{self, Mutex};
use crate::sync::shared;
use crate::wire::ethernet;

/// Which interface, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfPacketConfig {
    /// The interface, which must exist.
    pub interface: String,
    /// Queues, and so drivers: the kernel spreads flows over them.
    pub queues: u16,
    /// Receives packets for every address.
    pub promiscuous: bool,
    /// Brings the interface up.
    pub up: bool,
    /// Bytes of the receive ring of each queue, rounded up to whole blocks of [`BLOCK_LEN`].
    pub ring_bytes: u32,
}

/// Bytes of a block: room for a few of the longest packets.
pub const BLOCK_LEN: usize = 1 << 18;
/// What an Ethernet frame has beyond the MTU: its header and one VLAN tag.
const FRAME_OVERHEAD: usize = ethernet::HEADER_LEN + 4;
/// Milliseconds after which the kernel hands over a block that is not full.
const BLOCK_AGE_MS: u32 = 1;
/// Length of the `virtio_net_hdr` in front of each packet in either direction.
const VIRTIO_LEN: usize = 10;
/// Packets in one system call.
const SEND_CHUNK: usize = 32;

/// Where fields stand in `tpacket_block_desc`.
mod block {
    pub const STATUS: usize = 8;
    pub const PACKETS: usize = 12;
    pub const FIRST: usize = 16;
}

/// Where fields stand in `tpacket3_hdr` and the `sockaddr_ll` behind it.
mod header {
    pub const NEXT: usize = 0;
    pub const CAPTURED: usize = 12;
    pub const LEN: usize = 16;
    pub const STATUS: usize = 20;
    pub const MAC: usize = 24;
    pub const VLAN_TCI: usize = 32;
    pub const VLAN_TPID: usize = 36;
    pub const PACKET_TYPE: usize = 48 + 10;
}

/// Flags and kinds of `virtio_net_hdr` (linux/virtio_net.h).
mod virtio {
    pub const NEEDS_CHECKSUM: u8 = 1;
    pub const GSO_TCPV4: u8 = 1;
    pub const GSO_TCPV6: u8 = 4;
    pub const GSO_UDP_L4: u8 = 5;
    pub const GSO_ECN: u8 = 0x80;
}

/// The receive ring. The kernel owns each block whose status says so; [`Ring::current`] looks only into ours.
struct Ring {
    map: MmapRaw,
    blocks: usize,
    block: usize,
    /// Packets of the current block not yet taken, and where the first of them is. 0 packets: the block is not entered.
    left: u32,
    at: usize,
    /// Packets left behind since the ring was made.
    taken: u64,
}

/// One packet in the ring.
struct Frame<'a> {
    bytes: &'a [u8],
    len: usize,
    vlan: Option<[u8; 4]>,
    virtio: [u8; VIRTIO_LEN],
    is_outgoing: bool,
}

impl Frame<'_> {
    fn u16(&self, at: usize) -> usize {
        usize::from(u16::from_ne_bytes([self.virtio[at], self.virtio[at + 1]]))
    }

    /// What is to be cut out of a packet that is longer than the link allows.
    fn segments(&self) -> Option<Option<Segments>> {
        let kind = self.virtio[1];
        let is_known = matches!(kind & !virtio::GSO_ECN, virtio::GSO_TCPV4 | virtio::GSO_TCPV6 | virtio::GSO_UDP_L4);
        match kind {
            0 => None,
            _ if !is_known || self.bytes.len() < self.len => Some(None),
            _ => Some(Segments::plan(self.bytes, self.u16(6), self.u16(4), kind & virtio::GSO_ECN != 0)),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

impl Ring {
    fn map(socket: &OwnedFd, blocks: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(blocks * BLOCK_LEN).populate().map_raw(socket)?;
        Ok(Ring { map, blocks, block: 0, left: 0, at: 0, taken: 0 })
    }

    fn status(&self) -> *mut u32 {
        self.map.as_mut_ptr().wrapping_add(self.block * BLOCK_LEN + block::STATUS).cast()
    }

    /// The current block, if the kernel has handed it over.
    #[allow(unsafe_code)]
    fn enter(&mut self) -> bool {
        if self.left > 0 {
            return true;
        }
        // SAFETY: the status word lies in the mapping (`block < blocks`), is aligned because the mapping and BLOCK_LEN are,
        // and is only accessed atomically or, while the block is ours, by nobody else.
        if unsafe { shared::load_acquire(self.status()) } & libc::TP_STATUS_USER == 0 {
            return false;
        }
        let bytes = self.bytes();
        let (packets, first) = (u32_at(bytes, block::PACKETS), u32_at(bytes, block::FIRST));
        self.left = packets.unwrap_or(0);
        self.at = first.unwrap_or(0) as usize;
        if self.left == 0 {
            self.give_back();
        }
        self.left > 0
    }

    /// The block that the kernel has handed over.
    #[allow(unsafe_code)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the block lies in the mapping, which `self` keeps; its status was seen to be ours (`enter` is the only way here,
        // directly or by `left > 0`), so the kernel does not write to it until `give_back`, which needs `&mut self`.
        unsafe { core::slice::from_raw_parts(self.map.as_ptr().add(self.block * BLOCK_LEN), BLOCK_LEN) }
    }

    #[allow(unsafe_code)]
    fn give_back(&mut self) {
        // SAFETY: as in `enter`; no slice of the block is alive, since that would borrow `self`.
        unsafe { shared::store_release(self.status(), libc::TP_STATUS_KERNEL) };
        self.block = (self.block + 1) % self.blocks;
        self.left = 0;
    }

    /// The next packet. Stays the same until [`Ring::advance`].
    fn current(&mut self) -> Option<Frame<'_>> {
        // Empty blocks are handed over only by mistake; at most one round of them is skipped.
        for _ in 0..self.blocks {
            if !self.enter() {
                return None;
            }
            if self.frame().is_some() {
                break;
            }
            // The kernel never writes a packet across its block. If it did, the rest of the block would be unreadable.
            self.give_back();
        }
        if self.left > 0 { self.frame() } else { None }
    }

    fn frame(&self) -> Option<Frame<'_>> {
        let packet = self.bytes().get(self.at..)?;
        let (captured, len) = (u32_at(packet, header::CAPTURED)? as usize, u32_at(packet, header::LEN)? as usize);
        let mac = usize::from(u16_at(packet, header::MAC)?);
        let status = u32_at(packet, header::STATUS)?;
        let vlan = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
            let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                u16_at(packet, header::VLAN_TPID).unwrap_or(ethernet::VLAN)
            } else {
                ethernet::VLAN
            };
            let tci = u32_at(packet, header::VLAN_TCI).unwrap_or(0) as u16;
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
            [a, b, c, d]
        });
        Some(Frame {
            bytes: packet.get(mac..mac.checked_add(captured)?)?,
            len,
            vlan,
            virtio: packet.get(mac.checked_sub(VIRTIO_LEN)?..mac)?.try_into().ok()?,
            is_outgoing: packet.get(header::PACKET_TYPE) == Some(&libc::PACKET_OUTGOING),
        })
    }

    /// Leaves the current packet behind.
    fn advance(&mut self) {
        let next = self.bytes().get(self.at..).and_then(|packet| u32_at(packet, header::NEXT)).unwrap_or(0);
        self.left = self.left.saturating_sub(1);
        self.taken += 1;
        self.at += next as usize;
        if self.left == 0 {
            self.give_back();
        }
    }
}

/// The socket and ring of one queue, as long as its interface exists.
struct Queue {
    ring: Ring,
    socket: OwnedFd,
    index: i32,
}

/// Which group the queues of one port form: the interface's number and the group's.
type Group = Arc<primitive::Mutex<Option<(i32, u16)>>>;

/// One queue of a packet socket.
///
/// *Thread-safety.* Owned by one worker.
pub struct AfPacket {
    name: String,
    config: AfPacketConfig,
    group: Group,
    pool: PoolCache,
    interfaces: Interfaces,
    queue: Queue,
    is_gone: bool,
    /// The last refusal was for an interface that is down.
    is_down: bool,
    /// The long packet that is being cut, and how many pieces it has given.
    cutting: Option<(Segments, usize)>,
    packet_len_max: usize,
    stats: PortStats,
    /// What the kernel counted. Reading its counts clears them.
    kernel: Cell<Kernel>,
}

/// What the kernel counted on one socket and its predecessors.
#[derive(Clone, Copy, Debug, Default)]
struct Kernel {
    /// Put into the present ring.
    received: u64,
    /// Dropped because the ring was full.
    dropped: u64,
}

impl AfPacketConfig {
    /// Refuses what could not be opened anywhere.
    pub(super) fn check(&self, name: &str) -> Result<(), PortError> {
        sys::check_interface_name(name, &self.interface)?;
        if !(1..=256).contains(&self.queues) {
            return Err(PortError::setting(name, "queues", format!("{} is not in 1 to 256", self.queues)));
        }
        Ok(())
    }
}

impl AfPacket {
    /// Opens all queues. `name` is the port's, for messages.
    ///
    /// # Errors
    /// Says which capability, interface or setting is missing.
    pub fn open(name: &str, config: &AfPacketConfig, pool: &Arc<Pool>) -> Result<Vec<Self>, PortError> {
        config.check(name)?;
        let group: Group = Arc::new(Mutex::new(None));
        (0..config.queues)
            .map(|_| {
                let interfaces = Interfaces::new().map_err(|e| PortError::io(name, "cannot make a socket", e))?;
                let (queue, mtu) = open_queue(name, config, &interfaces, &group)?;
                Ok(AfPacket {
                    name: name.to_owned(),
                    config: config.clone(),
                    group: Arc::clone(&group),
                    pool: PoolCache::new(pool),
                    interfaces,
                    queue,
                    is_gone: false,
                    is_down: false,
                    cutting: None,
                    packet_len_max: (mtu + FRAME_OVERHEAD).min(PACKET_LEN_MAX),
                    stats: PortStats::default(),
                    kernel: Cell::default(),
                })
            })
            .collect()
    }

    fn read_kernel(&self) -> Kernel {
        // struct tpacket_stats_v3: packets, those dropped included; drops, freezes.
        if let Ok(counts) = sys::get_option::<12>(&self.queue.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS) {
            let count = |at| u64::from(u32_at(&counts, at).unwrap_or(0));
            let Kernel { received, dropped } = self.kernel.get();
            self.kernel
                .set(Kernel { received: received + count(0).saturating_sub(count(4)), dropped: dropped + count(4) });
        }
        self.kernel.get()
    }

    /// Puts a new socket in the place of one whose interface has gone. What was received by the old one and not taken is lost.
    fn replace(&mut self, queue: Queue, mtu: usize) {
        let Kernel { received, dropped } = self.read_kernel();
        self.stats.rx_dropped += received.saturating_sub(self.queue.ring.taken);
        self.kernel.set(Kernel { received: 0, dropped });
        self.queue = queue;
        self.cutting = None;
        self.packet_len_max = (mtu + FRAME_OVERHEAD).min(PACKET_LEN_MAX);
        self.is_gone = false;
    }
}

fn open_queue(
    name: &str,
    config: &AfPacketConfig,
    interfaces: &Interfaces,
    group: &Group,
) -> Result<(Queue, usize), PortError> {
    let interface = config.interface.as_str();
    let failed = |what: String| move |e| PortError::io(name, what, e);
    let index = interfaces.index(interface).map_err(failed(format!("there is no interface {interface}")))?;
    interfaces.check_ethernet(name, interface)?;
    // Protocol 0: nothing is received before the ring is there and the socket bound.
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(|e| {
        let what = match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "CAP_NET_RAW is needed",
            Some(libc::EAFNOSUPPORT) => "the kernel has no packet sockets (CONFIG_PACKET)",
            _ => "the kernel refuses",
        };
        PortError::io(name, format!("cannot make a packet socket: {what}"), e)
    })?;
    let option = |option: c_int, value: c_int, what: &str| {
        let set = sys::set_int_option(&socket, libc::SOL_PACKET, option, value);
        set.map_err(failed(format!("the kernel does not support {what}")))
    };
    option(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V3 as c_int, "TPACKET_V3 (Linux 3.2)")?;
    option(libc::PACKET_VNET_HDR, 1, "PACKET_VNET_HDR on a ring (Linux 4.6)")?;
    option(libc::PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING (Linux 4.20)")?;

    let blocks = (config.ring_bytes as usize).div_ceil(BLOCK_LEN).clamp(2, 1 << 12);
    // struct tpacket_req3. The frame size means little in version 3, but the products must agree.
    let frames = (blocks * BLOCK_LEN / 2048) as u32;
    let request = [BLOCK_LEN as u32, blocks as u32, 2048, frames, BLOCK_AGE_MS, 0, 0].map(u32::to_ne_bytes).concat();
    let what = || format!("cannot have a ring of {} bytes: less memory, or a smaller ring_bytes", blocks * BLOCK_LEN);
    sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request).map_err(failed(what()))?;
    let ring = Ring::map(&socket, blocks).map_err(failed(what()))?;

    if config.up {
        let up = interfaces.bring_up(interface);
        up.map_err(failed(format!("cannot bring {interface} up: CAP_NET_ADMIN is needed")))?;
    }
    // struct sockaddr_ll
    let protocol = (libc::ETH_P_ALL as u16).to_be_bytes();
    let mut address = [0u8; 20];
    address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&protocol);
    address[4..8].copy_from_slice(&index.to_ne_bytes());
    sys::bind(&socket, &address).map_err(failed(format!("cannot bind to {interface}")))?;
    if config.promiscuous {
        sys::join_promiscuous(&socket, index).map_err(failed(format!("cannot make {interface} promiscuous")))?;
    }
    if config.queues > 1 {
        join(&socket, index, group).map_err(failed(format!("cannot spread {interface} over queues (Linux 4.12)")))?;
    }
    let mtu = interfaces.mtu(interface).map_err(failed(format!("cannot read the MTU of {interface}")))?;
    Ok((Queue { ring, socket, index }, mtu))
}

/// Makes the socket a member of the port's fanout group, or the first of a new one.
fn join(socket: &OwnedFd, index: i32, group: &Group) -> io::Result<()> {
    let mode = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    let join = |id: u16, mode: u32| {
        sys::set_option(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &(u32::from(id) | mode << 16).to_ne_bytes())
    };
    let mut group = primitive::lock(group);
    // A group whose interface went has another number than the one that came back.
    if let Some((of, id)) = *group
        && of == index
        && join(id, mode).is_ok()
    {
        return Ok(());
    }
    join(0, mode | libc::PACKET_FANOUT_FLAG_UNIQUEID)?;
    let answer = u32::from_ne_bytes(sys::get_option(socket, libc::SOL_PACKET, libc::PACKET_FANOUT)?);
    *group = Some((index, answer as u16));
    Ok(())
}

/// Sends the packets of `burst` that `which` numbers, [`SEND_CHUNK`] at most, and returns how many from the front were sent.
#[allow(unsafe_code)]
fn send(socket: &OwnedFd, burst: &mut TxBurst<'_>, which: &[usize]) -> io::Result<usize> {
    // No offload is asked for: an empty virtio header in front of each.
    static VIRTIO: [u8; VIRTIO_LEN] = [0; VIRTIO_LEN];
    let header = libc::iovec { iov_base: (&raw const VIRTIO).cast_mut().cast(), iov_len: VIRTIO_LEN };
    let mut parts = [header; 2 * SEND_CHUNK];
    // SAFETY: an mmsghdr is plain numbers and pointers, for which zero is a value.
    let mut messages: [libc::mmsghdr; SEND_CHUNK] = unsafe { core::mem::zeroed() };
    let count = which.len().min(SEND_CHUNK);
    for (i, number) in which[..count].iter().enumerate() {
        let data = burst.get(*number).data();
        parts[2 * i + 1] = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    }
    let parts: *mut libc::iovec = parts.as_mut_ptr();
    for (i, message) in messages[..count].iter_mut().enumerate() {
        message.msg_hdr.msg_iov = parts.wrapping_add(2 * i);
        message.msg_hdr.msg_iovlen = 2;
    }
    // SAFETY: the first `count` messages each name two parts of the array above; each part is either the static header or a
    // packet's bytes, which stay valid and unchanged because `burst` is borrowed throughout. The kernel only reads
    // them. Both arrays outlive the call.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT as _) };
    Ok(sys::check(sent)? as usize)
}

impl Driver for AfPacket {
    fn kind(&self) -> &'static str {
        "af_packet"
    }

    fn rx_burst(&mut self, out: &mut [Packet]) -> usize {
        let AfPacket { queue, pool, cutting, stats, .. } = self;
        let ring = &mut queue.ring;
        let len_max = pool.pool().packet_len_max().min(PACKET_LEN_MAX);
        let mut n = 0;
        // Frames that give no packet are bounded, too: the kernel fills the ring as fast as it is emptied.
        for _ in 0..4 * out.len() {
            if n == out.len() {
                break;
            }
            let Some(frame) = ring.current() else { break };
            if frame.is_outgoing {
                ring.advance();
                continue;
            }
            let tag_len = frame.vlan.map_or(0, |_| 4);
            if cutting.is_none() {
                match frame.segments() {
                    Some(Some(plan)) => *cutting = Some((plan, 0)),
                    Some(None) => {
                        stats.rx_dropped += 1;
                        ring.advance();
                        continue;
                    }
                    None => {}
                }
            }
            let len = cutting.as_ref().map_or(frame.len, |(plan, i)| plan.len(*i));
            let is_whole = cutting.is_some() || frame.bytes.len() == frame.len;
            if len + tag_len > len_max || len < ethernet::HEADER_LEN || !is_whole {
                stats.rx_dropped += 1;
            } else {
                // Without a buffer the packet stays in the ring; when that is full the kernel counts what it drops.
                let Some(mut packet) = pool.alloc(len + tag_len) else { break };
                let bytes = &mut packet.data_mut()[tag_len..];
                match &*cutting {
                    Some((plan, i)) => plan.write(frame.bytes, *i, bytes),
                    None => {
                        bytes.copy_from_slice(frame.bytes);
                        if frame.virtio[0] & virtio::NEEDS_CHECKSUM != 0 {
                            offload::complete(bytes, frame.u16(6), frame.u16(8));
                        }
                    }
                }
                if let Some(tag) = frame.vlan {
                    let bytes = packet.data_mut();
                    bytes.copy_within(4..16, 0);
                    bytes[12..16].copy_from_slice(&tag);
                }
                stats.count_rx(packet.len());
                out[n] = packet;
                n += 1;
            }
            *cutting = cutting.take().map(|(plan, i)| (plan, i + 1)).filter(|(plan, i)| *i < plan.count());
            if cutting.is_none() {
                ring.advance();
            }
        }
        n
    }

    fn tx_burst(&mut self, mut burst: TxBurst<'_>) -> usize {
        let mut accepted = 0;
        let mut is_retry = false;
        'burst: while !self.is_gone && accepted < burst.len() {
            // The next packets that can be sent, and those between them that cannot.
            let mut which = [0; SEND_CHUNK];
            let (mut count, mut end) = (0, accepted);
            while end < burst.len() && count < SEND_CHUNK {
                let packet = burst.get(end);
                if packet.len() <= self.packet_len_max && packet.owner() != Owner::Gone {
                    which[count] = end;
                    count += 1;
                } else if packet.len() > self.packet_len_max {
                    self.stats.tx_dropped += 1;
                }
                end += 1;
            }
            let mut which = &which[..count];
            while !which.is_empty() {
                match send(&self.queue.socket, &mut burst, which) {
                    Ok(sent) => {
                        for number in &which[..sent] {
                            self.stats.count_tx(burst.get(*number).len());
                        }
                        which = &which[sent..];
                    }
                    // This packet's fault: too long for its kind, for example.
                    Err(e) if sys::is(&e, libc::EMSGSIZE) || sys::is(&e, libc::EINVAL) => {
                        self.stats.tx_dropped += 1;
                        which = &which[1..];
                    }
                    // The socket remembers once that the interface was down, though it may be up again.
                    Err(e) if sys::is(&e, libc::ENETDOWN) && !is_retry => is_retry = true,
                    Err(error) => {
                        self.is_down = sys::is_interface_lost(&error);
                        // Those that cannot be sent behind this one were counted above; they count as refused instead.
                        let behind = which[0];
                        for number in behind..end {
                            self.stats.tx_dropped -= u64::from(burst.get(number).len() > self.packet_len_max);
                        }
                        accepted = behind;
                        break 'burst;
                    }
                }
            }
            accepted = end;
        }
        self.stats.tx_dropped += (burst.len() - accepted) as u64;
        accepted
    }

    fn packet_len_max(&self) -> usize {
        self.packet_len_max
    }

    fn link(&mut self) -> Link {
        let interface = self.config.interface.as_str();
        // The socket loses an interface for good even if one of the same name and number is back at once.
        let is_bound = sys::bound_interface(&self.queue.socket).ok() == Some(self.queue.index);
        if !is_bound || self.interfaces.index(interface).ok() != Some(self.queue.index) {
            self.is_gone = true;
            let Ok((queue, mtu)) = open_queue(&self.name, &self.config, &self.interfaces, &self.group) else {
                return Link::Gone;
            };
            self.replace(queue, mtu);
        }
        let interface = self.config.interface.as_str();
        if let Ok(mtu) = self.interfaces.mtu(interface) {
            self.packet_len_max = (mtu + FRAME_OVERHEAD).min(PACKET_LEN_MAX);
        }
        match self.interfaces.is_running(interface) {
            Ok(true) => Link::Up,
            _ => Link::Down,
        }
    }

    fn refused_as_down(&self) -> bool {
        self.is_down || self.is_gone
    }

    fn stats(&self) -> PortStats {
        PortStats { rx_dropped: self.stats.rx_dropped + self.read_kernel().dropped, ..self.stats }
    }

    fn poll_fd(&self) -> Option<i32> {
        Some(self.queue.socket.as_raw_fd())
    }
}
