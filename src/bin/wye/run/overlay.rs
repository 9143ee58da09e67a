//! Sets up what the configuration says of the underlay and of VPCs.

use std::collections::BTreeMap;

use wye::gateway::config::{GatewayConfig, InterfaceConfig, PortConfig};
use wye::gateway::underlay::{Interface, Listener};
use wye::gateway::{Bridge, Underlay, VpcConfig};
use wye::port::{PortKind, interface_link};
use wye::time::Nanos;
use wye::tunnel::Options;

/// The datapath's clock begins with the switch, and this is before.
const AT_FIRST: Nanos = Nanos(1);
/// What an interface without one of its own gets.
const MTU_DEFAULT: u32 = 1500;

/// Interfaces, routes, neighbours, VPCs. What cannot be is told with the port's name, or the VPC's number.
pub fn set_up(underlay: &Underlay, bridge: &Bridge, config: &GatewayConfig) -> Result<(), Box<dyn std::error::Error>> {
    for port in &config.ports {
        let Some(settings) = &port.interface else { continue };
        let interface = interface(port, settings).map_err(|e| format!("{}: {e}", port.spec.name))?;
        underlay.interface_set(interface, AT_FIRST).map_err(|e| format!("{}: {e}", port.spec.name))?;
    }
    for route in &config.routes {
        let to = route.route.prefix;
        underlay.route_add(route.table, route.route, AT_FIRST).map_err(|e| format!("route to {to}: {e}"))?;
    }
    for neighbour in &config.neighbours {
        let ip = neighbour.key.1;
        underlay.neighbour_set(neighbour.key, neighbour.mac, AT_FIRST).map_err(|e| format!("neighbour {ip}: {e}"))?;
    }
    // VPCs whose tunnels come to the same UDP port share what listens there.
    let mut listeners = BTreeMap::new();
    for vpc in &config.vpcs {
        let vni = vpc.config.vni;
        let failed = |e: &dyn std::fmt::Display| format!("vpc {vni}: {e}");
        let (kind, udp_port) = (vpc.config.endpoint.kind, vpc.config.endpoint.udp_port);
        let at = (kind.number(), udp_port.unwrap_or(kind.port()));
        let listener = match listeners.get(&at) {
            Some(listener) => *listener,
            None => {
                // A bridge understands no options of Geneve.
                let options = Options { ecn: true, known_options: Some(Box::new([])), ..Options::default() };
                let listener = underlay.listen(Listener { kind, udp_port, options }).map_err(|e| failed(&e))?;
                listeners.insert(at, listener);
                listener
            }
        };
        bridge.vpc_add(VpcConfig { listener, ..vpc.config.clone() }).map_err(|e| failed(&e))?;
        for (port, vlan) in &vpc.members {
            bridge.vpc_port_add(vni, *port, *vlan).map_err(|e| failed(&e))?;
        }
        for remote in &vpc.remotes {
            bridge.vpc_remote_add(vni, *remote, AT_FIRST).map_err(|e| failed(&e))?;
        }
        for (ip, mac) in &vpc.proxied {
            bridge.vpc_proxy_set(vni, *ip, Some(*mac)).map_err(|e| failed(&e))?;
        }
    }
    Ok(())
}

/// The interface that a port is: what the configuration leaves open is the network interface's own.
fn interface(port: &PortConfig, settings: &InterfaceConfig) -> Result<Interface, String> {
    let name = port.spec.options.interface.as_deref().unwrap_or(&port.spec.name);
    let own = if port.spec.kind == PortKind::Pcap { None } else { interface_link(name).ok() };
    // Behind a TAP interface is the host, whose address the interface's own is; and a trace has none. So they get one of those that are
    // nobody's (IEEE 802 §8.4, locally administered), by the port's number.
    let [_, _, c, d] = port.number.to_be_bytes();
    let made_up = matches!(port.spec.kind, PortKind::Pcap | PortKind::Tap).then_some([0x02, b'w', b'y', b'e', c, d]);
    let own_mac = own.map(|(mac, _)| mac).filter(|mac| *mac != [0; 6]);
    let mac = settings.mac.or(made_up).or(own_mac).ok_or("mac: the interface has none; say which")?;
    let own_mtu = own.and_then(|(_, mtu)| u32::try_from(mtu).ok());
    Ok(Interface {
        port: port.number,
        mac,
        vlan: settings.vlan,
        mtu: settings.mtu.or(own_mtu).unwrap_or(MTU_DEFAULT),
        addresses: settings.addresses.clone(),
    })
}
