//! Sites of VPCs for tests: datapaths with a bridge and an underlay, and the network between them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::bridge::{Bridge, BridgeConfig, VpcConfig};
use super::domain::Vni;
use super::underlay::{Endpoint, Interface, Listener, Underlay, UnderlayConfig};
use crate::datapath::{Config, Datapath, Sink, Worker};
use crate::packet::{DropReason, Packet};
use crate::port::{PortEntry, TxBurst};
use crate::time::Nanos;
use crate::tunnel::{Kind, Options};

/// The port to the network between the sites.
pub const WAN: u32 = 100;
/// Ports of hosts: 1 to this.
pub const PORTS: u32 = 6;
const SECOND: u64 = 1_000_000_000;

/// What was sent: port and frame.
#[derive(Default)]
pub struct Recorder(pub Vec<(u32, Vec<u8>)>);

impl Sink for Recorder {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        (0..burst.len()).for_each(|i| self.0.push((port, burst.get(i).data().to_vec())));
        (burst.len(), DropReason::TxFull)
    }
}

pub struct Site {
    pub datapath: Datapath,
    pub bridge: Arc<Bridge>,
    pub underlay: Arc<Underlay>,
    pub worker: Worker,
    pub listener: u32,
    pub kind: Kind,
}

impl Drop for Site {
    fn drop(&mut self) {
        // The datapath holds the bridge, and the bridge a handle of the datapath.
        self.datapath.set_upcall_handler(None);
    }
}

impl Site {
    pub fn new(kind: Kind, addresses: &[&str], mac: [u8; 6]) -> Site {
        Site::with(Site::small(), BridgeConfig::default(), kind, addresses, mac)
    }

    /// What a test needs of a datapath.
    pub fn small() -> Config {
        Config { flows_max: 4096, cache_entries: 256, pool_buffers: 512, ..Config::default() }
    }

    pub fn with(datapath: Config, config: BridgeConfig, kind: Kind, addresses: &[&str], mac: [u8; 6]) -> Site {
        let datapath = Datapath::new(datapath).unwrap();
        let underlay = Underlay::new(&datapath, UnderlayConfig::default());
        let bridge = Bridge::attach_over(&datapath, config, Some(Arc::clone(&underlay))).unwrap();
        for number in (1..=PORTS).chain([WAN]) {
            let name = format!("p{number}").into();
            datapath.port_add(PortEntry { number, name, packet_len_max: 9000, up: true }).unwrap();
        }
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        underlay.interface_set(Interface { port: WAN, mac, vlan: None, mtu: 1500, addresses }, Nanos(1)).unwrap();
        let options = Options { ecn: true, ..Options::default() };
        let listener = underlay.listen(Listener { kind, udp_port: None, options }).unwrap();
        Site { worker: datapath.worker().unwrap(), datapath, bridge, underlay, listener, kind }
    }

    /// A VPC with members and other ends.
    pub fn vpc(&self, vni: u32, members: &[(u32, Option<u16>)], remotes: &[IpAddr]) -> Vni {
        self.vpc_of(
            VpcConfig::new(Vni::new(vni).unwrap(), self.listener, Endpoint::new(self.kind, any())),
            members,
            remotes,
        )
    }

    pub fn vpc_of(&self, config: VpcConfig, members: &[(u32, Option<u16>)], remotes: &[IpAddr]) -> Vni {
        let vni = config.vni;
        self.bridge.vpc_add(config).unwrap();
        for (port, vlan) in members {
            self.bridge.vpc_port_add(vni, *port, vlan.and_then(super::VlanId::new)).unwrap();
        }
        for remote in remotes {
            self.bridge.vpc_remote_add(vni, *remote, Nanos(1)).unwrap();
        }
        vni
    }

    /// Hands in a frame; what leaves, also of what waited to be sent.
    pub fn send(&mut self, port: u32, frame: &[u8], now: Nanos) -> Vec<(u32, Vec<u8>)> {
        self.send_burst(&[(port, frame.to_vec())], now)
    }

    /// As [`Site::send`], several frames at once.
    pub fn send_burst(&mut self, frames: &[(u32, Vec<u8>)], now: Nanos) -> Vec<(u32, Vec<u8>)> {
        let before = self.datapath.stats();
        let packet = |(port, frame): &(u32, Vec<u8>)| {
            let mut packet = self.datapath.pool().packet(frame).unwrap();
            packet.in_port = *port;
            packet
        };
        let mut packets: Vec<Packet> = frames.iter().map(packet).collect();
        let mut sent = Recorder::default();
        self.worker.process(&mut packets, now, &mut sent);
        self.worker.free(&mut packets, |_| ());
        let mut all = sent.0;
        all.extend(self.flush(now));
        let after = self.datapath.stats();
        assert_eq!(after.fates(), after.packets_in);
        assert!(after.packets_in > before.packets_in);
        all
    }

    /// What waits to be sent.
    pub fn flush(&mut self, now: Nanos) -> Vec<(u32, Vec<u8>)> {
        let mut sent = Recorder::default();
        loop {
            let before = sent.0.len();
            self.worker.process(&mut [], now, &mut sent);
            if sent.0.len() == before {
                return sent.0;
            }
        }
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.datapath.stats().dropped[reason.index()]
    }
}

/// Stands for an address that is put in later.
pub fn any() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

/// Sites on one link.
pub struct Network {
    pub sites: Vec<Site>,
    pub now: Nanos,
    /// What crossed the link: the site that sent it, and the frame.
    pub crossed: Vec<(usize, Vec<u8>)>,
}

impl Network {
    pub fn new(sites: Vec<Site>) -> Network {
        let mut network = Network { sites, now: Nanos(SECOND), crossed: Vec::new() };
        // Announcements.
        network.settle(VecDeque::new());
        network.crossed.clear();
        network
    }

    /// A host of `site` sends; what hosts get: site, port, frame.
    pub fn send(&mut self, site: usize, port: u32, frame: &[u8]) -> Vec<(usize, u32, Vec<u8>)> {
        self.settle([(site, port, frame.to_vec())].into())
    }

    /// Carries frames until none is under way.
    fn settle(&mut self, mut under_way: VecDeque<(usize, u32, Vec<u8>)>) -> Vec<(usize, u32, Vec<u8>)> {
        let mut got = Vec::new();
        for _ in 0..10_000 {
            let (site, sent) = match under_way.pop_front() {
                Some((site, port, frame)) => (site, self.sites[site].send(port, &frame, self.now)),
                None => {
                    let mut flushed = (0..self.sites.len()).map(|site| (site, self.sites[site].flush(self.now)));
                    match flushed.find(|(_, sent)| !sent.is_empty()) {
                        Some(some) => some,
                        None => return got,
                    }
                }
            };
            for (port, frame) in sent {
                if port != WAN {
                    got.push((site, port, frame));
                    continue;
                }
                self.crossed.push((site, frame.clone()));
                under_way.extend(
                    (0..self.sites.len()).filter(|other| *other != site).map(|other| (other, WAN, frame.clone())),
                );
            }
        }
        panic!("frames go round for ever");
    }

    pub fn pass(&mut self, seconds: u64) -> Vec<(usize, u32, Vec<u8>)> {
        let mut got = Vec::new();
        for _ in 0..seconds {
            self.now = self.now + SECOND;
            self.sites.iter().for_each(|site| site.bridge.upkeep(self.now));
            got.extend(self.settle(VecDeque::new()));
        }
        got
    }
}
