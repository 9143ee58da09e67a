//! A TAP interface: the switch is the wire of a network interface of the host.
//!
//! One `read` or `write` per packet, straight from and to the packet's buffer. The kernel gives VLAN tags in the frame and
//! finished checksums, since no offload is asked for. With several queues the kernel spreads flows over them; each queue is a
//! driver of its own. An interface that the driver made goes when the last of its queues is dropped.
//!
//! The interface may be moved to another network namespace, for a container or a test: the switch keeps its end. Whether it is up cannot
//! be seen from outside, so it counts as up there until it refuses a packet.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use libc::c_short;

use super::driver::{Driver, Link, PortError, PortStats, TxBurst};
use super::sys::{self, Interfaces};
use crate::packet::{Owner, Packet, Pool, PoolCache, buffer::PACKET_LEN_MAX};
use crate::wire::ethernet;

const DEVICE: &str = "/dev/net/tun";

/// Which TAP interface, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface; made if there is none of this name.
    pub interface: String,
    /// Queues, and so drivers.
    pub queues: u16,
    /// Sets the interface's MTU.
    pub mtu: Option<u16>,
    /// Brings the interface up.
    pub up: bool,
}

/// One queue of a TAP interface.
///
/// *Thread-safety.* Owned by one worker.
pub struct Tap {
    name: String,
    config: TapConfig,
    pool: PoolCache,
    interfaces: Interfaces,
    /// `None` while the interface has gone.
    tun: Option<File>,
    /// The last refusal was for an interface that is down.
    is_down: bool,
    packet_len_max: usize,
    stats: PortStats,
}

impl TapConfig {
    /// Refuses what could not be opened anywhere, with buffers for packets of `packet_len_max` bytes.
    pub(super) fn check(&self, name: &str, packet_len_max: usize) -> Result<(), PortError> {
        sys::check_interface_name(name, &self.interface)?;
        if !(1..=256).contains(&self.queues) {
            return Err(PortError::setting(name, "queues", format!("{} is not in 1 to 256", self.queues)));
        }
        if let Some(mtu) = self.mtu
            && usize::from(mtu) + FRAME_OVERHEAD > packet_len_max
        {
            let reason = format!("{mtu} needs buffers for {} bytes", usize::from(mtu) + FRAME_OVERHEAD);
            return Err(PortError::setting(name, "mtu", reason));
        }
        Ok(())
    }
}

impl Tap {
    /// Opens all queues. `name` is the port's, for messages.
    ///
    /// # Errors
    /// Says which capability, device or setting is missing.
    pub fn open(name: &str, config: &TapConfig, pool: &Arc<Pool>) -> Result<Vec<Self>, PortError> {
        config.check(name, pool.packet_len_max())?;
        (0..config.queues).map(|_| Tap::open_queue(name, config, pool)).collect()
    }

    fn open_queue(name: &str, config: &TapConfig, pool: &Arc<Pool>) -> Result<Self, PortError> {
        let interfaces = Interfaces::new().map_err(|e| PortError::io(name, "cannot make a socket", e))?;
        let mut tap = Tap {
            name: name.to_owned(),
            config: config.clone(),
            pool: PoolCache::new(pool),
            interfaces,
            tun: None,
            is_down: false,
            packet_len_max: 0,
            stats: PortStats::default(),
        };
        tap.reopen()?;
        Ok(tap)
    }

    fn reopen(&mut self) -> Result<(), PortError> {
        let interface = self.config.interface.as_str();
        let failed = |what: String, e| PortError::io(&self.name, what, e);
        let tun =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).map_err(|e| {
                let what = match e.raw_os_error() {
                    Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => "the kernel has no TUN/TAP driver (CONFIG_TUN)",
                    _ => "access to the TUN/TAP driver is needed",
                };
                failed(format!("cannot open {DEVICE}: {what}"), e)
            })?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if self.config.queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        sys::attach_tun(&tun, interface, flags as c_short).map_err(|e| {
            let what = match e.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => "CAP_NET_ADMIN is needed",
                Some(libc::EBUSY) => "another program uses the interface, or it is no TAP interface",
                Some(libc::EINVAL) => "it is no TAP interface, or was made with another number of queues",
                Some(libc::E2BIG) => "the interface takes no more queues",
                _ => "the kernel refuses",
            };
            failed(format!("cannot attach to TAP interface {interface}: {what}"), e)
        })?;
        if let Some(mtu) = self.config.mtu {
            let set = self.interfaces.set_mtu(interface, mtu);
            set.map_err(|e| {
                let what = match e.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => "CAP_NET_ADMIN is needed",
                    Some(libc::EINVAL) => "the interface allows none such",
                    _ => "the kernel refuses",
                };
                failed(format!("cannot set the MTU of {interface} to {mtu}: {what}"), e)
            })?;
        }
        if self.config.up {
            let up = self.interfaces.bring_up(interface);
            up.map_err(|e| failed(format!("cannot bring {interface} up: CAP_NET_ADMIN is needed"), e))?;
        }
        let mtu =
            self.interfaces.mtu(interface).map_err(|e| failed(format!("cannot read the MTU of {interface}"), e))?;
        self.packet_len_max = (mtu + FRAME_OVERHEAD).min(PACKET_LEN_MAX);
        self.tun = Some(tun);
        Ok(())
    }

    fn note(&mut self, error: &io::Error) {
        // "File descriptor in bad state": the interface was deleted under it.
        if sys::is(error, libc::EBADFD) {
            self.tun = None;
        }
    }
}

/// What an Ethernet frame has beyond the MTU: its header and one VLAN tag.
const FRAME_OVERHEAD: usize = ethernet::HEADER_LEN + 4;

impl Driver for Tap {
    fn kind(&self) -> &'static str {
        "tap"
    }

    fn rx_burst(&mut self, out: &mut [Packet]) -> usize {
        let len_max = self.pool.pool().packet_len_max().min(PACKET_LEN_MAX);
        let mut n = 0;
        // Packets that are dropped count as tries, so that a burst ends.
        for _ in 0..out.len() {
            let Some(mut tun) = self.tun.as_ref() else { break };
            let Some(mut packet) = self.pool.alloc(len_max) else { break };
            // The kernel cuts what does not fit without a word; a byte beyond the buffer shows it.
            let mut beyond = [0];
            match tun.read_vectored(&mut [IoSliceMut::new(packet.data_mut()), IoSliceMut::new(&mut beyond)]) {
                Ok(len) if len <= len_max => {
                    packet.truncate(len);
                    self.stats.count_rx(len);
                    out[n] = packet;
                    n += 1;
                }
                Ok(_) => {
                    self.stats.rx_dropped += 1;
                    self.pool.free(&mut packet);
                }
                Err(error) => {
                    self.pool.free(&mut packet);
                    self.note(&error);
                    break;
                }
            }
        }
        n
    }

    fn tx_burst(&mut self, mut burst: TxBurst<'_>) -> usize {
        let mut accepted = 0;
        while accepted < burst.len() {
            let Some(mut tun) = self.tun.as_ref() else { break };
            let packet = burst.get(accepted);
            if packet.len() > self.packet_len_max {
                self.stats.tx_dropped += 1;
            } else if packet.owner() != Owner::Gone {
                match tun.write(packet.data()) {
                    Ok(_) => self.stats.count_tx(packet.len()),
                    // Too short for a frame: this packet's fault, not the port's.
                    Err(error) if sys::is(&error, libc::EINVAL) => self.stats.tx_dropped += 1,
                    Err(error) => {
                        self.is_down = sys::is(&error, libc::EIO);
                        self.note(&error);
                        break;
                    }
                }
            }
            accepted += 1;
        }
        self.stats.tx_dropped += (burst.len() - accepted) as u64;
        accepted
    }

    fn packet_len_max(&self) -> usize {
        self.packet_len_max
    }

    fn link(&mut self) -> Link {
        // A renamed interface is followed, so that its flags and MTU are asked for under the right name.
        match self.tun.as_ref().map(sys::tun_interface) {
            Some(Ok(name)) => self.config.interface = name,
            _ => self.tun = None,
        }
        if self.tun.is_none() && self.reopen().is_err() {
            return Link::Gone;
        }
        let interface = self.config.interface.as_str();
        if let Ok(mtu) = self.interfaces.mtu(interface) {
            self.packet_len_max = (mtu + FRAME_OVERHEAD).min(PACKET_LEN_MAX);
        }
        match self.interfaces.is_running(interface) {
            Ok(true) => Link::Up,
            // There is one, as was seen above, so it was moved to another network namespace, where it cannot be asked.
            Err(error) if sys::is(&error, libc::ENODEV) => Link::Up,
            _ => Link::Down,
        }
    }

    fn refused_as_down(&self) -> bool {
        self.is_down || self.tun.is_none()
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn poll_fd(&self) -> Option<i32> {
        self.tun.as_ref().map(AsRawFd::as_raw_fd)
    }
}
