//! An AF_XDP socket on an existing interface: packets in shared memory, past the kernel's network stack.
//!
//! Frames that the kernel fills are handed out as packets without a copy ([`Owner::Port`]), with the kernel's 256 bytes in
//! front as headroom, and are sent again without a copy if they leave by the port they came from; other packets are copied
//! into a frame. Where the network driver supports it the card uses the same memory (zero-copy), else the kernel copies.
//!
//! Needs `CAP_NET_RAW`, `CAP_NET_ADMIN` and `CAP_BPF`, and Linux 5.9. One driver per receive queue of the interface; all share one
//! program, which is detached when the last of them is dropped. Two things that AF_XDP cannot see are worth knowing: a card
//! (or veth peer) that strips VLAN tags strips them for good, so switch that off (`ethtool -K … rxvlan off`, on a veth's peer
//! `txvlan off`), and checksums that a virtual link leaves unfinished, which the driver recognises and completes.
//!
//! The folder is one of the crate's rooms for `unsafe`: `ring`, `frames` and `program` wrap it, this file needs only theirs.

mod frames;
mod program;
mod ring;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use libc::c_int;

use super::driver::{Driver, Link, PortError, PortStats, TxBurst};
use super::offload;
use super::sys::{self, Interfaces};
use crate::packet::{Owner, Packet};
use crate::sync::primitive::{self, Mutex};
use crate::wire::ethernet;
use frames::Frames;
use program::Program;
use ring::{Descriptor, Ring, Which};

const SOL_XDP: c_int = 283;
const XDP_STATISTICS: c_int = 7;
const XDP_OPTIONS: c_int = 8;
const BIND_COPY: u16 = 1 << 1;
const BIND_ZERO_COPY: u16 = 1 << 2;
const BIND_NEED_WAKEUP: u16 = 1 << 3;
/// What the kernel leaves free before the data of a received packet.
const HEADROOM: u32 = 256;
/// What an Ethernet frame has beyond the MTU: its header and one VLAN tag.
const FRAME_OVERHEAD: usize = ethernet::HEADER_LEN + 4;
/// System calls at most per [`Driver::flush`]; without zero-copy each sends 32 packets.
const KICKS_MAX: usize = 16;

/// How often, and how long after one another, a queue that is busy is asked for again when a port is opened.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: core::time::Duration = core::time::Duration::from_millis(10);

/// Whether the card shares the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copying {
    /// Zero-copy if the driver has it.
    #[default]
    Auto,
    /// The kernel copies.
    Copy,
    /// Zero-copy or an error.
    ZeroCopy,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// In the driver if it can, else as [`Attach::Generic`].
    #[default]
    Auto,
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// After that, which works on every interface.
    Generic,
}

impl std::str::FromStr for Copying {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Copying::Auto),
            "copy" => Ok(Copying::Copy),
            "zero_copy" => Ok(Copying::ZeroCopy),
            _ => Err("must be auto, copy or zero_copy"),
        }
    }
}

impl std::str::FromStr for Attach {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Attach::Auto),
            "native" => Ok(Attach::Native),
            "generic" => Ok(Attach::Generic),
            _ => Err("must be auto, native or generic"),
        }
    }
}

/// Which interface, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpConfig {
    /// The interface, which must exist.
    pub interface: String,
    /// Receive queues, and so drivers. `None`: all that the interface has; another number is refused, since a queue without a
    /// socket would go past the switch.
    pub queues: Option<u16>,
    /// Receives packets for every address.
    pub promiscuous: bool,
    /// Brings the interface up.
    pub up: bool,
    /// Frames per queue: half of them for receiving, the others to be sent, or out in the engine. A power of two.
    pub frames: u32,
    /// Zero-copy or not.
    pub copying: Copying,
    /// Driver or not.
    pub attach: Attach,
}

/// The program that the queues of one port share, with the number of its interface.
type Shared = Arc<Mutex<Option<(i32, Arc<Program>)>>>;

/// What exists only as long as the interface does. Closed in the order of the fields.
struct Queue {
    rx: Ring<Descriptor>,
    tx: Ring<Descriptor>,
    fill: Ring<u64>,
    completion: Ring<u64>,
    socket: OwnedFd,
    /// A packet socket that holds the interface promiscuous.
    _promiscuous: Option<OwnedFd>,
    _program: Arc<Program>,
    index: i32,
    is_unfinished: bool,
}

/// One queue of an AF_XDP port.
///
/// *Thread-safety.* Owned by one worker. Its packets go back by [`Driver::release`] on the same driver.
pub struct AfXdp {
    name: String,
    config: AfXdpConfig,
    number: u16,
    queues: u16,
    shared: Shared,
    interfaces: Interfaces,
    queue: Option<Queue>,
    frames: Frames,
    packet_len_max: usize,
    stats: PortStats,
    /// The kernel's last answer was that the interface is down.
    is_down: bool,
    /// What sockets of the interface's earlier lives dropped.
    dropped_before: u64,
}

impl AfXdpConfig {
    /// Refuses what could not be opened anywhere.
    pub(super) fn check(&self, name: &str) -> Result<(), PortError> {
        sys::check_interface_name(name, &self.interface)?;
        if !(64..=1 << 20).contains(&self.frames) || !self.frames.is_power_of_two() {
            let reason = format!("{} is not a power of two in 64 to 1048576", self.frames);
            return Err(PortError::setting(name, "frames", reason));
        }
        Ok(())
    }
}

impl AfXdp {
    /// Opens all queues. `name` is the port's, for messages.
    ///
    /// # Errors
    /// Says which capability, interface, kernel feature or setting is missing.
    pub fn open(name: &str, config: &AfXdpConfig) -> Result<Vec<Self>, PortError> {
        let setting = |field, reason: String| PortError::setting(name, field, reason);
        config.check(name)?;
        let interface = config.interface.as_str();
        let interfaces = || Interfaces::new().map_err(|e| PortError::io(name, "cannot make a socket", e));
        let asking = interfaces()?;
        let failed = |what: String| move |e| PortError::io(name, what, e);
        asking.index(interface).map_err(failed(format!("there is no interface {interface}")))?;
        asking.check_ethernet(name, interface)?;
        // Interfaces that cannot be asked have one.
        let queues = asking.receive_queues(interface).unwrap_or(1);
        let queues = u16::try_from(queues).unwrap_or(u16::MAX);
        if let Some(wanted) = config.queues.filter(|wanted| *wanted != queues) {
            let reason = format!(
                "{interface} has {queues} receive queues, not {wanted}: set one or the other (ethtool -L {interface})"
            );
            return Err(setting("queues", reason));
        }
        let mtu = asking.mtu(interface).map_err(failed(format!("cannot read the MTU of {interface}")))?;
        // The kernel takes frames of 2 KiB up to a page.
        let Some(frame_len) = [2048, 4096].into_iter().find(|len| mtu + FRAME_OVERHEAD <= (len - HEADROOM) as usize)
        else {
            let most = 4096 - HEADROOM as usize - FRAME_OVERHEAD;
            return Err(setting("interface", format!("{interface} has an MTU of {mtu}; AF_XDP takes {most} at most")));
        };
        let shared: Shared = Arc::new(Mutex::new(None));
        (0..queues)
            .map(|number| {
                let frames = Frames::new(config.frames, frame_len).map_err(failed("cannot map the frames".into()))?;
                let mut port = AfXdp {
                    name: name.to_owned(),
                    config: config.clone(),
                    number,
                    queues,
                    shared: Arc::clone(&shared),
                    interfaces: interfaces()?,
                    queue: None,
                    frames,
                    packet_len_max: 0,
                    stats: PortStats::default(),
                    is_down: false,
                    dropped_before: 0,
                };
                // A socket that was just closed, or whose process was killed, lets go of its queue a little later.
                let mut tries = 0;
                while let Err(error) = port.reopen() {
                    let is_busy = matches!(&error, PortError::Io { source, .. } if sys::is(source, libc::EBUSY));
                    if !is_busy || tries == BUSY_TRIES {
                        return Err(error);
                    }
                    tries += 1;
                    sys::poll(&mut [], BUSY_PAUSE);
                }
                Ok(port)
            })
            .collect()
    }

    /// True if the card uses the frames without the kernel copying.
    pub fn is_zero_copy(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| {
            sys::get_option::<4>(&queue.socket, SOL_XDP, XDP_OPTIONS)
                .is_ok_and(|flags| u32::from_ne_bytes(flags) & 1 != 0)
        })
    }

    /// The program of this port on interface number `index`, attached by the first queue that asks.
    fn program(&self, index: i32) -> Result<Arc<Program>, PortError> {
        let mut shared = primitive::lock(&self.shared);
        if let Some((of, program)) = &*shared
            && *of == index
        {
            return Ok(Arc::clone(program));
        }
        let interface = self.config.interface.as_str();
        let program = Program::attach(index, self.queues.into(), self.config.attach).map_err(|refused| {
            let why = match refused.source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => "CAP_BPF and CAP_NET_ADMIN are needed",
                Some(libc::EBUSY) => "another XDP program is attached",
                Some(libc::EOPNOTSUPP) => "its driver has no native XDP; try attach = generic",
                Some(libc::ERANGE) => "its MTU is too large for native XDP; try attach = generic",
                Some(libc::EINVAL | libc::ENOSYS) => {
                    "Linux 5.9 with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS is needed"
                }
                _ => "the kernel refuses",
            };
            PortError::io(&self.name, format!("{interface}: {}: {why}", refused.what), refused.source)
        })?;
        let program = Arc::new(program);
        *shared = Some((index, Arc::clone(&program)));
        Ok(program)
    }

    fn reopen(&mut self) -> Result<(), PortError> {
        // The kernel lets go of the frames first.
        self.close();
        let (name, interface) = (self.name.clone(), self.config.interface.clone());
        let (name, interface) = (name.as_str(), interface.as_str());
        let failed = |what: String| move |e| PortError::io(name, what, e);
        let index = self.interfaces.index(interface).map_err(failed(format!("there is no interface {interface}")))?;
        if self.config.up {
            let up = self.interfaces.bring_up(interface);
            up.map_err(failed(format!("cannot bring {interface} up: CAP_NET_ADMIN is needed")))?;
        }
        let mtu = self.interfaces.mtu(interface).map_err(failed(format!("cannot read the MTU of {interface}")))?;
        let socket = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(|e| {
            let why = match e.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => "CAP_NET_RAW is needed",
                Some(libc::EAFNOSUPPORT) => "the kernel has none (CONFIG_XDP_SOCKETS)",
                _ => "the kernel refuses",
            };
            PortError::io(name, format!("cannot make an AF_XDP socket: {why}"), e)
        })?;
        self.frames.register(&socket).map_err(|e| {
            let bytes = u64::from(self.config.frames) * u64::from(self.frames.frame_len());
            let why = match e.raw_os_error() {
                Some(libc::ENOBUFS) => "the limit of locked memory (RLIMIT_MEMLOCK) is lower: raise it, use fewer frames, or give CAP_IPC_LOCK",
                _ => "the kernel refuses",
            };
            PortError::io(name, format!("cannot use {bytes} bytes of frames per queue: {why}"), e)
        })?;
        let len = self.config.frames / 2;
        let ring = || failed(format!("cannot make rings of {len} entries (frames / 2)"));
        // The completion ring must hold what the transmit ring does; the kernel never finds it full then.
        let fill = Ring::new(&socket, Which::Fill, len).map_err(ring())?;
        let completion = Ring::new(&socket, Which::Completion, len).map_err(ring())?;
        let rx = Ring::new(&socket, Which::Rx, len).map_err(ring())?;
        let tx = Ring::new(&socket, Which::Tx, len).map_err(ring())?;

        let program = self.program(index)?;
        let mode = match self.config.copying {
            Copying::Auto => 0,
            Copying::Copy => BIND_COPY,
            Copying::ZeroCopy => BIND_ZERO_COPY,
        };
        // struct sockaddr_xdp: family, flags, interface, queue, shared socket.
        let mut address = [0u8; 16];
        address[..2].copy_from_slice(&(libc::AF_XDP as u16).to_ne_bytes());
        address[2..4].copy_from_slice(&(mode | BIND_NEED_WAKEUP).to_ne_bytes());
        address[4..8].copy_from_slice(&index.to_ne_bytes());
        address[8..12].copy_from_slice(&u32::from(self.number).to_ne_bytes());
        sys::bind(&socket, &address).map_err(|e| {
            let why = match e.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => "CAP_NET_RAW is needed",
                Some(libc::EBUSY) => "another socket has it, or is just being closed",
                Some(libc::EOPNOTSUPP) => "its driver has no zero-copy; try copying = auto",
                Some(libc::EINVAL) => "there is no such queue",
                Some(libc::ENETDOWN) => "the interface is down",
                _ => "the kernel refuses",
            };
            PortError::io(name, format!("cannot bind to queue {} of {interface}: {why}", self.number), e)
        })?;
        let steer = program.steer(self.number.into(), &socket);
        steer.map_err(failed(format!("cannot steer queue {} of {interface} to its socket", self.number)))?;
        let promiscuous = match self.config.promiscuous && self.number == 0 {
            true => {
                Some(sys::promiscuous_socket(index).map_err(failed(format!("cannot make {interface} promiscuous")))?)
            }
            false => None,
        };
        // Only links between kernels carry unfinished checksums; on a wire there are none.
        let driver = self.interfaces.driver_name(interface).unwrap_or_default();
        let is_unfinished = matches!(driver.as_str(), "veth" | "tun" | "bridge" | "virtio_net" | "netkit");

        self.packet_len_max = (mtu + FRAME_OVERHEAD).min((self.frames.frame_len() - HEADROOM) as usize);
        self.queue = Some(Queue {
            rx,
            tx,
            fill,
            completion,
            socket,
            _promiscuous: promiscuous,
            _program: program,
            index,
            is_unfinished,
        });
        self.refill();
        Ok(())
    }

    /// Closes the socket, if there is one, and takes all frames back that no packet describes.
    fn close(&mut self) {
        if let Some(mut queue) = self.queue.take() {
            let (dropped, _) = kernel_dropped(&queue.socket);
            self.dropped_before += dropped;
            // Received already, but nobody will take them any more.
            while queue.rx.take().is_some() {
                self.dropped_before += 1;
            }
            // Taken to be sent, but the kernel never did.
            for descriptor in queue.tx.unconsumed() {
                self.stats.tx_packets -= 1;
                self.stats.tx_bytes -= u64::from(descriptor.len);
                self.stats.tx_dropped += 1;
            }
        }
        self.frames.reclaim_all();
    }

    /// Gives free frames to the kernel to receive into; keeps some for packets that are copied to be sent.
    fn refill(&mut self) {
        let Some(queue) = &mut self.queue else { return };
        let reserve = self.config.frames as usize / 8;
        let mut given = false;
        while self.frames.free() > reserve && queue.fill.room() > 0 {
            let Some(address) = self.frames.take_free() else { break };
            given |= queue.fill.put(address);
        }
        if given {
            queue.fill.submit();
        }
    }

    /// Takes back frames that were sent.
    fn reclaim(&mut self) {
        let Some(queue) = &mut self.queue else { return };
        let mut any = false;
        while let Some(address) = queue.completion.take() {
            self.frames.put_free(address);
            any = true;
        }
        if any {
            queue.completion.finish();
        }
    }

    /// Wakes the kernel until it has taken what is to be sent, or takes no more.
    fn kick(&mut self) {
        let Some(queue) = &mut self.queue else { return };
        let mut before = queue.tx.outstanding();
        for _ in 0..KICKS_MAX {
            if before == 0 || !queue.tx.needs_wakeup() {
                return;
            }
            let answer = sys::wake_sender(&queue.socket);
            self.is_down = answer.as_ref().is_err_and(sys::is_interface_lost);
            let after = queue.tx.outstanding();
            if after == before || answer.is_err_and(|e| !is_transient(&e)) {
                return;
            }
            before = after;
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    [libc::EAGAIN, libc::EBUSY, libc::ENOBUFS].iter().any(|code| sys::is(error, *code))
}

/// What the kernel dropped for want of frames or room, and descriptors that it found invalid.
fn kernel_dropped(socket: &OwnedFd) -> (u64, u64) {
    // struct xdp_statistics: dropped, invalid rx descriptors, invalid tx descriptors, rx ring full, and two more.
    let counts = sys::get_option::<48>(socket, SOL_XDP, XDP_STATISTICS).unwrap_or([0; 48]);
    let count = |i: usize| u64::from_ne_bytes(core::array::from_fn(|b| counts[8 * i + b]));
    (count(0) + count(3), count(1))
}

impl Driver for AfXdp {
    fn kind(&self) -> &'static str {
        "af_xdp"
    }

    fn rx_burst(&mut self, out: &mut [Packet]) -> usize {
        let Some(queue) = &mut self.queue else { return 0 };
        let mut n = 0;
        let mut taken = false;
        while n < out.len() {
            let Some(descriptor) = queue.rx.take() else { break };
            taken = true;
            match self.frames.packet(descriptor.address, descriptor.len) {
                Some(mut packet) => {
                    if queue.is_unfinished {
                        offload::complete_if_partial(packet.data_mut());
                    }
                    self.stats.count_rx(packet.len());
                    out[n] = packet;
                    n += 1;
                }
                None => self.stats.rx_errors += 1,
            }
        }
        if taken {
            queue.rx.finish();
        } else if queue.fill.needs_wakeup() {
            sys::wake_receiver(&queue.socket);
        }
        self.refill();
        n
    }

    fn tx_burst(&mut self, mut burst: TxBurst<'_>) -> usize {
        self.reclaim();
        let may_take = !burst.is_shared();
        let mut accepted = 0;
        let mut has_kicked = false;
        // What the ring takes while the interface is down would be sent late or never.
        while !self.is_down && accepted < burst.len() {
            let Some(queue) = &mut self.queue else { break };
            let packet = burst.get(accepted);
            let len = packet.len();
            if len > self.packet_len_max {
                self.stats.tx_dropped += 1;
                accepted += 1;
                continue;
            }
            if packet.owner() == Owner::Gone {
                accepted += 1;
                continue;
            }
            let is_own = may_take && self.frames.owns(packet);
            if queue.tx.room() == 0 || !is_own && self.frames.free() == 0 {
                if has_kicked {
                    break;
                }
                has_kicked = true;
                queue.tx.submit();
                self.kick();
                self.reclaim();
                continue;
            }
            let address = if is_own {
                self.frames.take_back(packet)
            } else {
                // There is a free frame, as seen above, and the length fits it.
                let Some(address) = self.frames.take_free() else { break };
                let Some(mut copy) = self.frames.packet(address + u64::from(HEADROOM), len as u32) else { break };
                copy.data_mut().copy_from_slice(packet.data());
                self.frames.take_back(&mut copy)
            };
            queue.tx.put(Descriptor { address, len: len as u32, options: 0 });
            self.stats.count_tx(len);
            accepted += 1;
        }
        if let Some(queue) = &mut self.queue {
            queue.tx.submit();
        }
        self.stats.tx_dropped += (burst.len() - accepted) as u64;
        accepted
    }

    fn release(&mut self, packet: &mut Packet) {
        if self.frames.owns(packet) {
            let address = self.frames.take_back(packet);
            self.frames.put_free(address);
        }
    }

    fn flush(&mut self) {
        self.kick();
        self.reclaim();
        self.refill();
    }

    fn packet_len_max(&self) -> usize {
        self.packet_len_max
    }

    fn link(&mut self) -> Link {
        let interface = self.config.interface.as_str();
        let index = self.interfaces.index(interface).ok();
        // The socket loses an interface for good even if one of the same name and number is back at once.
        let is_bound = |queue: &Queue| !sys::wake_sender(&queue.socket).is_err_and(|e| sys::is(&e, libc::ENXIO));
        if index.is_none() || index != self.queue.as_ref().filter(|queue| is_bound(queue)).map(|queue| queue.index) {
            // Without an interface the socket is dead; what it held is counted.
            self.close();
            if index.is_none() || self.reopen().is_err() {
                return Link::Gone;
            }
        }
        let interface = self.config.interface.as_str();
        if let Ok(mtu) = self.interfaces.mtu(interface) {
            self.packet_len_max = (mtu + FRAME_OVERHEAD).min((self.frames.frame_len() - HEADROOM) as usize);
        }
        match self.interfaces.is_running(interface) {
            Ok(true) => {
                self.is_down = false;
                Link::Up
            }
            _ => Link::Down,
        }
    }

    fn refused_as_down(&self) -> bool {
        self.is_down || self.queue.is_none()
    }

    fn stats(&self) -> PortStats {
        let (dropped, invalid) = self.queue.as_ref().map_or((0, 0), |queue| kernel_dropped(&queue.socket));
        let rx_dropped = self.stats.rx_dropped + self.dropped_before + dropped;
        PortStats { rx_dropped, rx_errors: self.stats.rx_errors + invalid, ..self.stats }
    }

    fn poll_fd(&self) -> Option<i32> {
        self.queue.as_ref().map(|queue| queue.socket.as_raw_fd())
    }
}
