//! The contract of a port driver.
//!
//! A driver receives into a slice of descriptors and transmits a burst of them. It allocates nothing per packet, never
//! blocks in `rx_burst` and `tx_burst`, and counts what it drops. Who owns a buffer is in its descriptor
//! ([`Owner`]): a driver that copies the bytes out leaves the descriptor as it found it; a driver that keeps
//! the buffer (to free it when the hardware is done) takes the descriptor with [`Packet::take`].
//!
//! Buffers with [`Owner::Port`] go back through [`Driver::release`] of the port that made them. Buffers with [`Owner::Pool`]
//! come from the pool that the driver was opened with.
//!
//! *Interfaces that vanish.* A driver whose interface has gone receives nothing and accepts nothing. It reopens the interface
//! in [`Driver::link`], which its owner calls now and then (a second apart is plenty) and which is the only place where a driver
//! retries: the packet path never does.

use crate::packet::{Owner, Packet};

/// Packets in one burst at most, everywhere in the engine.
pub const BURST_MAX: usize = 256;

/// What went wrong with a port. Each message names the port or setting and what is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// A system call failed.
    #[error("{port}: {what}: {source}")]
    Io {
        /// The port's name.
        port: String,
        /// What was attempted, and what it needs (capability, interface, kernel feature).
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A setting makes no sense.
    #[error("{port}: {field}: {reason}")]
    Setting {
        /// The port's name.
        port: String,
        /// The setting.
        field: &'static str,
        /// Why it was refused.
        reason: String,
    },
    /// A file is not what it should be.
    #[error("{port}: {reason}")]
    Format {
        /// The port's or file's name.
        port: String,
        /// What is wrong, and where.
        reason: String,
    },
}

impl PortError {
    /// A failed system call: `what` says what was attempted and what it needs.
    pub fn io(port: &str, what: impl Into<String>, source: std::io::Error) -> Self {
        PortError::Io { port: port.to_owned(), what: what.into(), source }
    }

    /// A setting that makes no sense.
    pub fn setting(port: &str, field: &'static str, reason: impl Into<String>) -> Self {
        PortError::Setting { port: port.to_owned(), field, reason: reason.into() }
    }
}

/// What a port counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets that arrived but were lost before the engine saw them (ring full, no buffer, too long).
    pub rx_dropped: u64,
    /// Packets that were malformed at the port's own level.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that the port would not take: those that `tx_burst` did not accept, and those that it skipped. Also those that it accepted
    /// and still had when the interface went; they are no longer in `tx_packets` then.
    pub tx_dropped: u64,
}

impl PortStats {
    /// Counts one received packet.
    pub fn count_rx(&mut self, bytes: usize) {
        self.rx_packets += 1;
        self.rx_bytes += bytes as u64;
    }

    /// Counts one sent packet.
    pub fn count_tx(&mut self, bytes: usize) {
        self.tx_packets += 1;
        self.tx_bytes += bytes as u64;
    }
}

/// Whether a port can carry traffic just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It can.
    Up,
    /// It is there but not up.
    Down,
    /// The interface behind it has gone; the driver reopens it when it comes back.
    Gone,
}

/// A burst of packets on their way out: references into the arrays that hold them.
#[derive(Debug)]
pub struct TxBurst<'a> {
    batch: &'a mut [Packet],
    extra: &'a mut [Packet],
    refs: &'a [u16],
}

/// References from here on are into the second array.
pub const EXTRA_BASE: u16 = BURST_MAX as u16;

impl<'a> TxBurst<'a> {
    /// A burst of the packets that `refs` names: numbers below [`EXTRA_BASE`] in `batch`, the others in `extra`.
    pub fn new(batch: &'a mut [Packet], extra: &'a mut [Packet], refs: &'a [u16]) -> Self {
        TxBurst { batch, extra, refs }
    }

    /// Packets in the burst.
    #[inline]
    pub fn len(&self) -> usize {
        self.refs.len()
    }

    /// True for a burst of nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// Packet `i` of the burst.
    ///
    /// # Panics
    /// If `i` is not below [`TxBurst::len`].
    #[inline]
    pub fn get(&mut self, i: usize) -> &mut Packet {
        let r = self.refs[i];
        if r < EXTRA_BASE { &mut self.batch[r as usize] } else { &mut self.extra[(r - EXTRA_BASE) as usize] }
    }
}

/// A port.
///
/// *Thread-safety.* Owned by one worker (`Send`). A device with several queues is one driver per queue.
pub trait Driver: Send {
    /// Short name of the kind of port: `memory`, `pcap`, `tap`, …
    fn kind(&self) -> &'static str;

    /// Receives at most `out.len()` packets into the front of `out`, whose descriptors are [`Owner::Gone`], and returns how
    /// many. Sets each packet's length and owner, and the RSS hash where the device gives one; not its `in_port`.
    fn rx_burst(&mut self, out: &mut [Packet]) -> usize;

    /// Sends packets from the front of the burst and returns how many were accepted. Those behind are the caller's to count and
    /// drop. Of the accepted ones, a descriptor that is not [`Owner::Gone`] afterwards was copied and is the caller's to free.
    ///
    /// The burst names no packet twice, and the driver may take each: who still needs one sends a copy. A packet that is
    /// longer than [`Driver::packet_len_max`] is the caller's mistake: it is skipped (accepted, not sent, counted in
    /// [`PortStats::tx_dropped`]); so is a descriptor that is [`Owner::Gone`] already, uncounted.
    fn tx_burst(&mut self, burst: TxBurst<'_>) -> usize;

    /// Takes back a buffer that this driver handed out with [`Owner::Port`].
    fn release(&mut self, packet: &mut Packet) {
        debug_assert_ne!(packet.owner(), Owner::Port, "a driver that hands out its own buffers takes them back");
    }

    /// Flushes what `tx_burst` deferred, and reclaims what the device has finished with. Called once per poll.
    fn flush(&mut self) {}

    /// The largest packet that can be sent, Ethernet header included. Changes only in [`Driver::link`].
    fn packet_len_max(&self) -> usize;

    /// Whether the port can carry traffic; tries to reopen an interface that had gone. Makes system calls: not for the packet
    /// path.
    fn link(&mut self) -> Link {
        Link::Up
    }

    /// True if the last packets that [`Driver::tx_burst`] did not accept were refused because the interface is down or has gone, not for
    /// want of room. Makes no system call; what is true now only [`Driver::link`] knows.
    fn refused_as_down(&self) -> bool {
        false
    }

    /// The statistics so far. May make a system call.
    fn stats(&self) -> PortStats;

    /// A file descriptor to wait on for received packets, if the port has one.
    fn poll_fd(&self) -> Option<i32> {
        None
    }

    /// True when no packet will ever be received again (a trace that was played once).
    fn is_exhausted(&self) -> bool {
        false
    }
}
