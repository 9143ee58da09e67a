//! The tables of the underlay and of VPCs.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error as _};

use super::{PortConfig, Within};
use crate::gateway::bridge::VpcConfig;
use crate::gateway::domain::Vni;
use crate::gateway::underlay::routes::{MAIN, Route, is_host};
use crate::gateway::underlay::{Endpoint, LISTENERS_BEGIN};
use crate::gateway::vlan::{PortVlans, Tag, VlanId};
use crate::tunnel::Kind;

/// What makes a port an interface of the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Addresses, with the length of the prefix on the link.
    pub addresses: Vec<IpNet>,
    /// Link-layer address; `None` for the network interface's own.
    pub mac: Option<[u8; 6]>,
    /// Tag of its frames.
    pub vlan: Option<VlanId>,
    /// The longest IP packet; `None` for the network interface's own.
    pub mtu: Option<u32>,
}

/// A route, and its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSetting {
    /// Its table.
    pub table: u32,
    /// The route.
    pub route: Route,
}

/// A neighbour that is known for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSetting {
    /// Its port and address.
    pub key: (u32, IpAddr),
    /// Its link-layer address.
    pub mac: [u8; 6],
}

/// A VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcSetting {
    /// Its settings, but for `listener`, which is known when the underlay listens.
    pub config: VpcConfig,
    /// Ports, and the VLAN of their tags.
    pub members: Vec<(u32, Option<VlanId>)>,
    /// Other ends.
    pub remotes: Vec<IpAddr>,
    /// Addresses that are answered for.
    pub proxied: Vec<(IpAddr, [u8; 6])>,
}

/// An address with a prefix length.
#[derive(Debug)]
pub(super) struct Net(pub(super) IpNet);

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Net).map_err(|_| D::Error::custom(format!("{text:?} is no address like \"192.0.2.1/24\"")))
    }
}

/// An IP address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip(IpAddr);

impl<'de> Deserialize<'de> for Ip {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let ip = text.parse().ok().filter(|ip| is_host(*ip));
        ip.map(Ip).ok_or_else(|| D::Error::custom(format!("{text:?} is not the IP address of a host")))
    }
}

/// A link-layer address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
            .collect();
        let mac =
            bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
        mac.map(Mac).ok_or_else(|| D::Error::custom(format!("{text:?} is no address like \"02:00:00:00:00:01\"")))
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteTable {
    to: Net,
    via: Option<Ip>,
    port: Option<String>,
    source: Option<Ip>,
    metric: Option<Within<0, { u32::MAX as u64 }>>,
    table: Option<Within<1, { u32::MAX as u64 }>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NeighbourTable {
    ip: Ip,
    mac: Mac,
    port: Option<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyTable {
    ip: Ip,
    mac: Mac,
}

/// `"vxlan"`, `"geneve"` or `"gre"`.
#[derive(Clone, Copy, Debug)]
struct Tunnelled(Kind);

impl<'de> Deserialize<'de> for Tunnelled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "vxlan" => Ok(Tunnelled(Kind::Vxlan)),
            "geneve" => Ok(Tunnelled(Kind::Geneve)),
            "gre" => Ok(Tunnelled(Kind::Gre)),
            other => Err(D::Error::custom(format!("{other:?} is no kind of tunnel for a VPC (vxlan, geneve, gre)"))),
        }
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VpcTable {
    vni: Within<0, 0xff_ffff>,
    kind: Option<Tunnelled>,
    udp_port: Option<Within<1, 65_535>>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    remotes: Vec<Ip>,
    local: Option<Ip>,
    learn: Option<bool>,
    remotes_max: Option<Within<1, 65_536>>,
    suppress: Option<bool>,
    bindings_max: Option<Within<0, 1_048_576>>,
    stations_max: Option<Within<1, { 1 << 22 }>>,
    flows_max: Option<Within<1, { 1 << 26 }>>,
    fragment: Option<bool>,
    checksum: Option<bool>,
    zero_checksum6: Option<bool>,
    ttl: Option<Within<1, 255>>,
    dscp: Option<Within<0, 63>>,
    inherit_dscp: Option<bool>,
    table: Option<Within<1, { u32::MAX as u64 }>>,
    #[serde(default)]
    proxy: Vec<ProxyTable>,
}

/// The port of this name, which must be an interface.
fn interface<'p>(name: &str, ports: &'p [PortConfig]) -> Result<&'p PortConfig, String> {
    let port = ports.iter().find(|port| port.spec.name == name);
    let port = port.ok_or_else(|| format!("port: there is no port {name:?}"))?;
    if port.interface.is_some() { Ok(port) } else { Err(format!("port: {name:?} has no address")) }
}

/// The interface on whose link `ip` is.
fn link_of(ip: IpAddr, ports: &[PortConfig]) -> Option<&PortConfig> {
    let has = |port: &&PortConfig| {
        port.interface.iter().flat_map(|interface| &interface.addresses).any(|address| address.contains(&ip))
    };
    ports.iter().find(has)
}

pub(super) fn route(table: RouteTable, ports: &[PortConfig]) -> Result<RouteSetting, String> {
    let via = table.via.map(|via| via.0);
    let port = match (&table.port, via) {
        (Some(name), _) => interface(name, ports)?,
        (None, Some(via)) => link_of(via, ports).ok_or_else(|| format!("via: {via} is on no interface's link"))?,
        (None, None) => return Err("one of via and port is needed".to_owned()),
    };
    let route = Route {
        prefix: table.to.0,
        via,
        port: port.number,
        source: table.source.map(|source| source.0),
        metric: super::or(table.metric, 0),
    };
    // In tables of its own: what is wrong with a route is wrong with it alone.
    crate::gateway::underlay::routes::Routes::default().add(MAIN, route).map_err(|e| e.to_string())?;
    Ok(RouteSetting { table: super::or(table.table, MAIN), route })
}

pub(super) fn neighbour(table: NeighbourTable, ports: &[PortConfig]) -> Result<NeighbourSetting, String> {
    let ip = table.ip.0;
    let port = match &table.port {
        Some(name) => interface(name, ports)?,
        None => link_of(ip, ports).ok_or_else(|| format!("ip: {ip} is on no interface's link"))?,
    };
    Ok(NeighbourSetting { key: (port.number, ip), mac: table.mac.0 })
}

/// A VPC, with its number for messages.
pub(super) fn vpc(
    table: VpcTable,
    ports: &mut [PortConfig],
    others: &[VpcSetting],
) -> (u32, Result<VpcSetting, String>) {
    let number = super::or(Some(table.vni), 0);
    (number, checked(table, number, ports, others))
}

fn checked(table: VpcTable, number: u32, ports: &[PortConfig], others: &[VpcSetting]) -> Result<VpcSetting, String> {
    let vni = Vni::new(number).ok_or("vni: it has 24 bits")?;
    if others.iter().any(|other| other.config.vni == vni) {
        return Err("vni: another VPC has it".to_owned());
    }
    if !ports.iter().any(|port| port.interface.is_some()) {
        return Err("no port has an address for tunnels to come to".to_owned());
    }
    let (local, remotes): (_, Vec<IpAddr>) =
        (table.local.map(|ip| ip.0), table.remotes.iter().map(|ip| ip.0).collect());
    let all = ports.iter().flat_map(|port| &port.interface).flat_map(|interface| &interface.addresses);
    let ours: Vec<IpAddr> = all.map(IpNet::addr).collect();
    if let Some(local) = local.filter(|local| !ours.contains(local)) {
        return Err(format!("local: {local} is no port's address"));
    }
    for (at, remote) in remotes.iter().enumerate() {
        if ours.contains(remote) {
            return Err(format!("remotes: {remote} is an address of ours"));
        }
        if remotes[..at].contains(remote) {
            return Err(format!("remotes: {remote} is there twice"));
        }
        if local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
            return Err(format!("remotes: {remote} is not of local's IP version"));
        }
    }
    let mut members: Vec<(u32, Option<VlanId>)> = Vec::new();
    for text in &table.members {
        let (port, vlan) = member(text, ports)?;
        let is_taken = |vpc: &VpcSetting| vpc.members.contains(&(port.number, vlan));
        if members.iter().any(|(number, _)| *number == port.number) || others.iter().any(is_taken) {
            return Err(format!("members: {text:?} is a member already"));
        }
        if port.interface.is_some() {
            return Err(format!("members: {text:?} is an interface of the underlay"));
        }
        let tag = if vlan.is_some() { Tag::Vlan } else { Tag::None };
        let is_bridged = |vlans: &PortVlans| vlans.classify(tag, vlan.map_or(0, VlanId::number)).is_some();
        if port.vlans.as_ref().is_some_and(is_bridged) {
            return Err(format!("members: frames of {text:?} belong to a VLAN of that port"));
        }
        members.push((port.number, vlan));
    }
    let kind = table.kind.map_or(Kind::Vxlan, |kind| kind.0);
    if kind == Kind::Gre && (table.udp_port.is_some() || table.zero_checksum6.is_some()) {
        return Err("udp_port and zero_checksum6 mean nothing to gre".to_owned());
    }
    // The other end is put in for each of them.
    let default = Endpoint::new(kind, IpAddr::from([0, 0, 0, 0]));
    let endpoint = Endpoint {
        local,
        udp_port: table.udp_port.map(|port| port.to(u16::MAX)),
        checksum: table.checksum.unwrap_or(default.checksum),
        zero_checksum6: table.zero_checksum6.unwrap_or(default.zero_checksum6),
        ttl: super::or(table.ttl, default.ttl),
        tos: super::or::<0, 63, u8>(table.dscp, 0) << 2,
        inherit: crate::tunnel::template::Inherit { dscp: table.inherit_dscp.unwrap_or(false), ..default.inherit },
        fragment: table.fragment.unwrap_or(default.fragment),
        table: super::or(table.table, default.table),
        ..default
    };
    let default = VpcConfig::new(vni, LISTENERS_BEGIN, endpoint);
    let config = VpcConfig {
        learn: table.learn.unwrap_or(default.learn),
        remotes_max: super::or(table.remotes_max, default.remotes_max),
        suppress: table.suppress.unwrap_or(default.suppress),
        bindings_max: super::or(table.bindings_max, default.bindings_max),
        stations_max: super::or(table.stations_max, default.stations_max),
        flows_max: super::or(table.flows_max, default.flows_max),
        ..default
    };
    if remotes.len() > config.remotes_max {
        return Err(format!("remotes: more than remotes_max, {}", config.remotes_max));
    }
    let proxied = table.proxy.iter().map(|proxy| (proxy.ip.0, proxy.mac.0)).collect();
    Ok(VpcSetting { config, members, remotes, proxied })
}

/// `"port"`, or `"port.100"` for its frames with the tag of VLAN 100.
fn member<'p>(text: &str, ports: &'p [PortConfig]) -> Result<(&'p PortConfig, Option<VlanId>), String> {
    let named = |name: &str| ports.iter().find(|port| port.spec.name == name);
    // A port's own name may have a dot.
    if let Some(port) = named(text) {
        return Ok((port, None));
    }
    let tagged = text.rsplit_once('.').and_then(|(name, vlan)| Some((named(name)?, vlan)));
    let (port, vlan) = tagged.ok_or_else(|| format!("members: there is no port {text:?}"))?;
    match vlan.parse().ok().and_then(VlanId::new) {
        Some(vlan) => Ok((port, Some(vlan))),
        None => Err(format!("members: {vlan:?} in {text:?} is no VLAN from 1 to 4094")),
    }
}

/// Ports that say nothing of VLANs are access ports of the usual one, unless they have another part to play, or there is a file of flows.
pub(super) fn settle(ports: &mut [PortConfig], vpcs: &[VpcSetting], has_flows: bool) {
    if has_flows {
        return;
    }
    for port in ports {
        let is_member = vpcs.iter().flat_map(|vpc| &vpc.members).any(|(number, _)| *number == port.number);
        if port.vlans.is_none() && port.interface.is_none() && !is_member {
            port.vlans = Some(PortVlans::default());
        }
    }
}
