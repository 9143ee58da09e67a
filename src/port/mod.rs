//! Ports: where packets come from and go to.
//!
//! [`driver`] is the contract. Its members are [`memory`] (made in code: [`memory::pair`], [`memory::cable`]), and those that
//! [`open`] makes from a [`PortSpec`]: [`pcap`], [`tap`], [`af_packet`], [`af_xdp`]. To add one: its file, and its lines here.

pub mod af_packet;
pub mod af_xdp;
pub mod driver;
pub mod memory;
mod offload;
pub mod pcap;
mod pcapng;
mod sys;
pub mod table;
pub mod tap;
pub mod trace;
pub mod wait;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

pub use af_xdp::{Attach, Copying};
pub use driver::{Driver, Link, PortError, PortStats, TxBurst};
pub use table::{PortEntry, PortTable};
pub use trace::{Trace, TracePacket, read_trace};

use crate::packet::Pool;

/// The kinds of port that can be opened by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortKind {
    /// Trace files: [`pcap`].
    Pcap,
    /// A TAP interface: [`tap`].
    Tap,
    /// A packet socket on an interface: [`af_packet`].
    AfPacket,
    /// An AF_XDP socket on an interface: [`af_xdp`].
    AfXdp,
}

impl PortKind {
    /// Every kind.
    pub const ALL: &'static [PortKind] = &[PortKind::Pcap, PortKind::Tap, PortKind::AfPacket, PortKind::AfXdp];

    /// The kind's name, as [`Driver::kind`] says it.
    pub const fn name(self) -> &'static str {
        match self {
            PortKind::Pcap => "pcap",
            PortKind::Tap => "tap",
            PortKind::AfPacket => "af_packet",
            PortKind::AfXdp => "af_xdp",
        }
    }

    /// The options that mean something to this kind.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            PortKind::Pcap => &["read", "looped", "write"],
            PortKind::Tap => &["interface", "queues", "mtu", "up"],
            PortKind::AfPacket => &["interface", "queues", "promiscuous", "up", "ring_bytes"],
            PortKind::AfXdp => &["interface", "queues", "promiscuous", "up", "frames", "copying", "attach"],
        }
    }
}

impl core::fmt::Display for PortKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PortKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = PortKind::ALL.iter().find(|kind| kind.name() == name).copied();
        found.ok_or_else(|| format!("{name:?} is no kind of port (pcap, tap, af_packet, af_xdp)"))
    }
}

/// What can be said about a port. `None` is the default that the field names; what a kind does not know must be `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortOptions {
    /// The network interface. Default: the port's name.
    pub interface: Option<String>,
    /// Queues, and so drivers. Default: 1; for AF_XDP as many as the interface has.
    pub queues: Option<u16>,
    /// Sets the interface's MTU. Default: as it is.
    pub mtu: Option<u16>,
    /// Brings the interface up. Default: true.
    pub up: Option<bool>,
    /// Receives packets for every address. Default: true.
    pub promiscuous: Option<bool>,
    /// Bytes of an AF_PACKET receive ring. Default: 8 MiB.
    pub ring_bytes: Option<u32>,
    /// Frames of an AF_XDP queue, a power of two. Default: 4096.
    pub frames: Option<u32>,
    /// AF_XDP: zero-copy or not. Default: if the network driver has it.
    pub copying: Option<Copying>,
    /// AF_XDP: in the network driver or not. Default: if it can.
    pub attach: Option<Attach>,
    /// The trace to play. Default: none.
    pub read: Option<PathBuf>,
    /// Plays the trace for ever. Default: false.
    pub looped: Option<bool>,
    /// The trace to record. Default: none.
    pub write: Option<PathBuf>,
}

impl PortOptions {
    /// Sets the option called `key` from text, as a configuration or a command line has it. `port` is for messages.
    ///
    /// # Errors
    /// An unknown option, or a value that is none of its.
    pub fn set(&mut self, port: &str, key: &str, value: &str) -> Result<(), PortError> {
        match key {
            "interface" => self.interface = Some(value.to_owned()),
            "queues" => self.queues = Some(parse(port, "queues", value)?),
            "mtu" => self.mtu = Some(parse(port, "mtu", value)?),
            "up" => self.up = Some(parse(port, "up", value)?),
            "promiscuous" => self.promiscuous = Some(parse(port, "promiscuous", value)?),
            "ring_bytes" => self.ring_bytes = Some(parse(port, "ring_bytes", value)?),
            "frames" => self.frames = Some(parse(port, "frames", value)?),
            "copying" => self.copying = Some(parse(port, "copying", value)?),
            "attach" => self.attach = Some(parse(port, "attach", value)?),
            "read" => self.read = Some(value.into()),
            "looped" => self.looped = Some(parse(port, "looped", value)?),
            "write" => self.write = Some(value.into()),
            _ => return Err(PortError::setting(port, "options", format!("there is no option {key:?}"))),
        }
        Ok(())
    }

    /// The options that are given, by name.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("interface", self.interface.is_some()),
            ("queues", self.queues.is_some()),
            ("mtu", self.mtu.is_some()),
            ("up", self.up.is_some()),
            ("promiscuous", self.promiscuous.is_some()),
            ("ring_bytes", self.ring_bytes.is_some()),
            ("frames", self.frames.is_some()),
            ("copying", self.copying.is_some()),
            ("attach", self.attach.is_some()),
            ("read", self.read.is_some()),
            ("looped", self.looped.is_some()),
            ("write", self.write.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
    }
}

fn parse<T: FromStr<Err: core::fmt::Display>>(port: &str, field: &'static str, value: &str) -> Result<T, PortError> {
    value.parse().map_err(|e| PortError::setting(port, field, format!("{value:?}: {e}")))
}

/// Which port is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its kind.
    pub kind: PortKind,
    /// Its name, which messages carry.
    pub name: String,
    /// What else is said about it.
    pub options: PortOptions,
}

/// Opens a port of one queue. Received packets are in buffers of `pool`, except AF_XDP's, which are in its own.
///
/// # Errors
/// Says what is missing (capability, interface, kernel feature, file) or which option makes no sense. Nothing that was made on the
/// way stays behind.
pub fn open(spec: &PortSpec, pool: &Arc<Pool>) -> Result<Box<dyn Driver>, PortError> {
    let mut queues = open_queues(spec, pool)?;
    match (queues.pop(), queues.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => {
            Err(PortError::setting(&spec.name, "queues", format!("{} queues where one is wanted", others + 1)))
        }
    }
}

/// Opens a port, one driver per queue, as [`open`].
///
/// # Errors
/// As [`open`].
pub fn open_queues(spec: &PortSpec, pool: &Arc<Pool>) -> Result<Vec<Box<dyn Driver>>, PortError> {
    let name = &spec.name;
    Ok(match Config::of(spec)? {
        Config::Pcap(config) => vec![Box::new(pcap::Pcap::open(name, &config, pool)?)],
        Config::Tap(config) => boxed(tap::Tap::open(name, &config, pool)?),
        Config::AfPacket(config) => boxed(af_packet::AfPacket::open(name, &config, pool)?),
        Config::AfXdp(config) => boxed(af_xdp::AfXdp::open(name, &config)?),
    })
}

impl PortSpec {
    /// Refuses what [`open`] would refuse on any machine, and opens nothing. `packet_len_max` is the longest packet that a buffer of the
    /// pool takes.
    ///
    /// # Errors
    /// As [`open`].
    pub fn check(&self, packet_len_max: usize) -> Result<(), PortError> {
        match Config::of(self)? {
            Config::Pcap(config) => config.check(&self.name),
            Config::Tap(config) => config.check(&self.name, packet_len_max),
            Config::AfPacket(config) => config.check(&self.name),
            Config::AfXdp(config) => config.check(&self.name),
        }
    }
}

/// What each kind is opened with.
enum Config {
    Pcap(pcap::PcapConfig),
    Tap(tap::TapConfig),
    AfPacket(af_packet::AfPacketConfig),
    AfXdp(af_xdp::AfXdpConfig),
}

impl Config {
    fn of(spec: &PortSpec) -> Result<Config, PortError> {
        let PortSpec { kind, name, options } = spec;
        if let Some(foreign) = options.given().find(|option| !kind.options().contains(option)) {
            return Err(PortError::setting(name, foreign, format!("means nothing to a port of kind {kind}")));
        }
        let interface = options.interface.clone().unwrap_or_else(|| name.clone());
        let (up, promiscuous) = (options.up.unwrap_or(true), options.promiscuous.unwrap_or(true));
        Ok(match kind {
            PortKind::Pcap => {
                let (read, write) = (options.read.clone(), options.write.clone());
                Config::Pcap(pcap::PcapConfig { read, looped: options.looped.unwrap_or(false), write })
            }
            PortKind::Tap => {
                Config::Tap(tap::TapConfig { interface, queues: options.queues.unwrap_or(1), mtu: options.mtu, up })
            }
            PortKind::AfPacket => {
                let queues = options.queues.unwrap_or(1);
                let ring_bytes = options.ring_bytes.unwrap_or(8 << 20);
                Config::AfPacket(af_packet::AfPacketConfig { interface, queues, promiscuous, up, ring_bytes })
            }
            PortKind::AfXdp => Config::AfXdp(af_xdp::AfXdpConfig {
                interface,
                queues: options.queues,
                promiscuous,
                up,
                frames: options.frames.unwrap_or(4096),
                copying: options.copying.unwrap_or_default(),
                attach: options.attach.unwrap_or_default(),
            }),
        })
    }
}

fn boxed<D: Driver + 'static>(drivers: Vec<D>) -> Vec<Box<dyn Driver>> {
    drivers.into_iter().map(|driver| -> Box<dyn Driver> { Box::new(driver) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: PortKind, options: &[(&str, &str)]) -> String {
        let mut spec = PortSpec { kind, name: "p0".to_owned(), options: PortOptions::default() };
        let set = options.iter().try_for_each(|(key, value)| spec.options.set("p0", key, value));
        let pool = Pool::new(64, 2048, 128).unwrap();
        set.and_then(|()| open(&spec, &pool).map(drop)).expect_err("a wrong specification").to_string()
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in PortKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        assert!("dpdk".parse::<PortKind>().unwrap_err().contains("af_xdp"));
    }

    #[test]
    fn every_option_can_be_set_and_is_known_to_some_kind() {
        let values = [
            ("interface", "eth0"),
            ("queues", "2"),
            ("mtu", "1500"),
            ("up", "true"),
            ("promiscuous", "false"),
            ("ring_bytes", "65536"),
            ("frames", "64"),
            ("copying", "zero_copy"),
            ("attach", "generic"),
            ("read", "in.pcap"),
            ("looped", "true"),
            ("write", "out.pcap"),
        ];
        for (key, value) in values {
            let mut options = PortOptions::default();
            options.set("p0", key, value).unwrap();
            assert_eq!(options.given().collect::<Vec<_>>(), [key]);
            assert!(PortKind::ALL.iter().any(|kind| kind.options().contains(&key)), "{key}");
        }
        assert_eq!(
            PortKind::ALL.iter().flat_map(|k| k.options()).filter(|o| !values.iter().any(|v| v.0 == **o)).count(),
            0
        );
    }

    #[test]
    fn wrong_options_are_named() {
        assert_eq!(refused(PortKind::Pcap, &[("mtu", "9")]), "p0: mtu: means nothing to a port of kind pcap");
        assert_eq!(refused(PortKind::Tap, &[("speed", "9")]), "p0: options: there is no option \"speed\"");
        assert!(refused(PortKind::Tap, &[("mtu", "-1")]).starts_with("p0: mtu: \"-1\": invalid digit"));
        assert!(refused(PortKind::AfXdp, &[("attach", "hw")]).contains("auto, native or generic"));
        assert!(refused(PortKind::AfXdp, &[("copying", "hw")]).contains("auto, copy or zero_copy"));
        assert!(
            refused(PortKind::AfPacket, &[("interface", "no-such-if")]).contains("there is no interface no-such-if")
        );
    }

    #[test]
    fn a_spec_opens_the_driver_of_its_kind() {
        let path = std::env::temp_dir().join(format!("wye-open-{}.pcap", std::process::id()));
        let options = PortOptions { write: Some(path.clone()), ..PortOptions::default() };
        let pool = Pool::new(64, 2048, 128).unwrap();
        let port = open(&PortSpec { kind: PortKind::Pcap, name: "p0".to_owned(), options }, &pool).unwrap();
        assert_eq!(port.kind(), PortKind::Pcap.name());
        drop(port);
        assert!(read_trace(&path).unwrap().is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
