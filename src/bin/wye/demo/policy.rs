//! What a site of the demo decides: a gateway that routes what is addressed to it, and a learning bridge for all else.

use std::sync::Arc;

use wye::datapath::{Answer, Datapath, Install, Miss, UpcallHandler};
use wye::flow::FlowMask;
use wye::flow::action::{Action, Actions, Masked, SetField};
use wye::flow::key::{BaseLine, FRAG_ANY, FRAG_LATER, VLAN_PRESENT};
use wye::gateway::{Bridge, BridgeConfig, PortVlans, VlanId, VlanSet};
use wye::wire::ethernet;

use super::traffic::{Edge, GUEST_VLAN, edge_of, gateway_ip, gateway_mac, mac_of};

/// Port number of the LAN.
pub const LAN: u32 = 1;
/// Port number of the servers.
pub const SERVERS: u32 = 2;
/// Port number of the cable to the other site.
pub const CABLE: u32 = 3;

/// A routed connection is forgotten after so long a silence.
const IDLE_NS: u64 = 1_000_000_000;

/// The upcall handler of one site.
pub struct Policy {
    site: u8,
    other: u8,
    bridge: Arc<Bridge>,
}

impl Policy {
    /// Makes the policy and sets it as the upcall handler of `datapath`.
    ///
    /// # Errors
    /// The bridge's.
    pub fn attach(datapath: &Datapath, site: u8, other: u8) -> Result<Arc<Bridge>, Box<dyn std::error::Error>> {
        let bridge = Bridge::attach(datapath, BridgeConfig::default())?;
        let guests = VlanId::new(GUEST_VLAN).ok_or("the guests' VLAN")?;
        let allowed: VlanSet = [guests].into_iter().collect();
        bridge.set_port(LAN, PortVlans::Trunk { native: Some(VlanId::DEFAULT), allowed: allowed.clone() })?;
        bridge.set_port(SERVERS, PortVlans::Access(VlanId::DEFAULT))?;
        bridge.set_port(CABLE, PortVlans::Trunk { native: None, allowed })?;
        // The bridge made itself the handler; the policy takes its place and asks it.
        datapath.set_upcall_handler(Some(Arc::new(Policy { site, other, bridge: Arc::clone(&bridge) })));
        Ok(bridge)
    }

    /// What becomes of a packet for `dst`, and whether all packets for it are treated alike whatever their connection.
    fn route(&self, dst: [u8; 4]) -> (Actions, bool) {
        let through = |mac: [u8; 6], port: u32| {
            let mut addresses = [0; 12];
            // Destination, then source, as they are on the wire.
            addresses[..6].copy_from_slice(&mac);
            addresses[6..].copy_from_slice(&gateway_mac(self.site));
            let ethernet = SetField::Ethernet(Masked::<[u8; 12]>::full(addresses));
            vec![Action::Set(ethernet), Action::DecTtl, Action::Output(port)]
        };
        match dst {
            [10, site, ..] if site == self.other => (through(gateway_mac(self.other), CABLE), false),
            [10, site, ..] if site == self.site => {
                let port = if edge_of(dst) == Edge::Servers { SERVERS } else { LAN };
                (through(mac_of(dst), port), false)
            }
            _ => (vec![Action::Drop(0)], true),
        }
    }
}

/// Matches what every routed flow matches, and the destination.
fn routed_mask() -> FlowMask {
    let mut mask = FlowMask::default();
    let base = &mut mask.0.base;
    base.in_port = u32::MAX;
    base.recirc_id = u32::MAX;
    base.packet_type_ns = u8::MAX;
    base.eth_dst = [0xff; 6];
    base.eth_type.set(0xffff);
    base.vlan_tci.set(VLAN_PRESENT);
    base.nw_frag = FRAG_ANY | FRAG_LATER;
    base.ipv4_dst = [0xff; 4];
    mask
}

/// Matches one connection.
fn connection_mask() -> FlowMask {
    let mut mask = routed_mask();
    let base = &mut mask.0.base;
    base.ipv4_src = [0xff; 4];
    base.nw_proto = u8::MAX;
    base.tp_src.set(0xffff);
    base.tp_dst.set(0xffff);
    mask
}

impl UpcallHandler for Policy {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        let key: &BaseLine = &miss.key.base;
        let is_tagged = key.vlan_tci.get() & VLAN_PRESENT != 0;
        match key.eth_type.get() {
            _ if is_tagged => self.bridge.miss(miss),
            ethernet::ARP if key.ipv4_dst == gateway_ip(self.site) => Answer::Consumed,
            ethernet::IPV4 if key.eth_dst == gateway_mac(self.site) => {
                let (actions, is_whole) = self.route(key.ipv4_dst);
                let mask = if is_whole { routed_mask() } else { connection_mask() };
                let install = Install { idle_timeout_ns: IDLE_NS, ..Install::with_mask(mask) };
                Answer::Execute { actions, install: Some(install) }
            }
            _ => self.bridge.miss(miss),
        }
    }
}
