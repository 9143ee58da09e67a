//! VPCs: networks that several gateways share over tunnels, each with the tunnels' identifier.

use core::mem::{MaybeUninit, offset_of};
use std::net::{IpAddr, Ipv4Addr};

use wye::gateway::underlay::Endpoint;
use wye::gateway::underlay::routes::{MAIN, is_host};
use wye::gateway::{Vni, VpcConfig};
use wye::time::Nanos;
use wye::tunnel::template::Inherit;

use crate::boundary::{self, Intent, Sized_};
use crate::gateway::{on_gateway, or, vlan_of, wye_gateway};
use crate::status::{Fault, Outcome, WYE_E_NOT_FOUND, wye_error, wye_status};
use crate::tunnel::{WYE_TUNNEL_INHERIT_DF, WYE_TUNNEL_INHERIT_DSCP, WYE_TUNNEL_INHERIT_TTL, only};
use crate::underlay::{host, host_or_none, wye_address};

/// Other ends are learned from their packets. Without it, packets of ends that were not added are dropped: `policy`.
pub const WYE_VPC_LEARN: u32 = 1;
/// Questions for addresses (ARP, neighbour discovery) of stations that are known go to them as all others. Without it, they are answered here.
pub const WYE_VPC_NO_SUPPRESS: u32 = 2;
/// Outer packets that are too long are split. Without it, the sender of the inner packet is told, or that is split if it is IPv4 and may be. Only inner
/// packets of IPv6 of up to 1280 bytes, and of IPv4 of up to 68, which every link carries, are sent in split outer ones in any case.
pub const WYE_VPC_FRAGMENT: u32 = 4;
/// Outer packets over IPv4 have a UDP checksum.
pub const WYE_VPC_CHECKSUM: u32 = 8;
/// Outer packets over IPv6 have no UDP checksum (RFC 6935).
pub const WYE_VPC_ZERO_CHECKSUM6: u32 = 16;

/// A VPC. Zero is each field's default but `vni`'s and `listener`'s.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_vpc_config {
    /// `sizeof(struct wye_vpc_config)`.
    pub size: u32,
    /// Its identifier, 24 bits; no other VPC of the gateway has it.
    pub vni: u32,
    /// Where its packets come in: what `wye_gateway_listen` wrote. They leave in tunnels of the same kind, to the same UDP port.
    pub listener: u32,
    /// `WYE_VPC_*`.
    pub flags: u32,
    /// What of the outer header the inner packet decides: `WYE_TUNNEL_INHERIT_*`. Congestion marks are carried along in any case.
    pub inherit: u32,
    /// Our address in outer packets; none for the route's, or else the interface's.
    pub local: wye_address,
    /// The routing table that is asked before the main one; 0 for none.
    pub table: u32,
    /// Other ends at most. Default 1,024.
    pub remotes_max: u32,
    /// Addresses of stations that are known for answers at most. Default 16,384.
    pub bindings_max: u32,
    /// TTL or hop limit of outer packets. Default 64.
    pub ttl: u8,
    /// Differentiated services code point of outer packets, 6 bits.
    pub dscp: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Stations known of it at a time; frames for others are flooded. Default 16,384.
    pub stations_max: u32,
    /// Flows installed for it at a time; beyond that its packets are looked at one by one. Default 65,536.
    pub flows_max: u32,
}

// SAFETY: `repr(C)`, `size` first; integers.
unsafe impl Sized_ for wye_vpc_config {
    const FIRST: usize = offset_of!(wye_vpc_config, stations_max);
    const NAME: &'static str = "wye_vpc_config";
}

fn vni_of(number: u32) -> Outcome<Vni> {
    Vni::new(number).ok_or_else(|| Fault::invalid(format!("vni: {number} has more than 24 bits")))
}

/// Adds a VPC, without ports and without other ends.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS`, `WYE_E_NOT_FOUND` without the listener, `WYE_E_FULL` if the stations or
/// flows of all VPCs have no share for another, `WYE_E_INVALID` (names the field), `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `config` is NULL or a struct of the size that its first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_vpc_add(
    gateway: Option<&wye_gateway>,
    config: *const wye_vpc_config,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        // SAFETY: as this function's contract.
        let c = unsafe { boundary::sized(config) }?;
        let vni = vni_of(c.vni)?;
        let known = WYE_VPC_LEARN | WYE_VPC_NO_SUPPRESS | WYE_VPC_FRAGMENT | WYE_VPC_CHECKSUM | WYE_VPC_ZERO_CHECKSUM6;
        only(c.flags, known, "flags")?;
        only(c.inherit, WYE_TUNNEL_INHERIT_DSCP | WYE_TUNNEL_INHERIT_TTL | WYE_TUNNEL_INHERIT_DF, "inherit")?;
        let local = host_or_none(&c.local, "local")?;
        if local.is_some_and(|local| !is_host(local)) {
            return Err(Fault::invalid("local: not the address of a host"));
        }
        if c.dscp >= 64 {
            return Err(Fault::invalid(format!("dscp: {} has more than 6 bits", c.dscp)));
        }
        if c.reserved != [0; 2] {
            return Err(Fault::invalid("reserved: must be 0"));
        }
        let listener = gate.underlay.listeners().into_iter().find(|(number, _)| *number == c.listener);
        let no_listener = || Fault::new(WYE_E_NOT_FOUND, format!("listener: there is no {}", c.listener));
        let (_, listener) = listener.ok_or_else(no_listener)?;
        let has = |flag| c.flags & flag != 0;
        // The other end is put in for each of them.
        let default = Endpoint::new(listener.kind, IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let endpoint = Endpoint {
            local,
            udp_port: listener.udp_port,
            checksum: has(WYE_VPC_CHECKSUM),
            zero_checksum6: has(WYE_VPC_ZERO_CHECKSUM6),
            ttl: or(c.ttl, default.ttl),
            tos: c.dscp << 2,
            inherit: Inherit {
                dscp: c.inherit & WYE_TUNNEL_INHERIT_DSCP != 0,
                ttl: c.inherit & WYE_TUNNEL_INHERIT_TTL != 0,
                df: c.inherit & WYE_TUNNEL_INHERIT_DF != 0,
                ..default.inherit
            },
            fragment: has(WYE_VPC_FRAGMENT),
            table: or(c.table, MAIN),
            ..default
        };
        let default = VpcConfig::new(vni, c.listener, endpoint);
        Ok(gate.bridge.vpc_add(VpcConfig {
            learn: has(WYE_VPC_LEARN),
            remotes_max: or(c.remotes_max as usize, default.remotes_max),
            suppress: !has(WYE_VPC_NO_SUPPRESS),
            bindings_max: or(c.bindings_max as usize, default.bindings_max),
            stations_max: or(c.stations_max, default.stations_max),
            flows_max: or(c.flows_max, default.flows_max),
            ..default
        })?)
    })
}

/// Removes a VPC, and all that is known in it.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_vpc_del(
    gateway: Option<&wye_gateway>,
    vni: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| Ok(gate.bridge.vpc_del(vni_of(vni)?)?))
}

/// Makes a port a member of a VPC: its frames with a tag of `vlan`, or with `vlan` 0 those without a tag, belong to it. The tag does not leave the port.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` if such frames belong to another, or the port to this one with another tag;
/// `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_vpc_port_add(
    gateway: Option<&wye_gateway>,
    vni: u32,
    port: u32,
    vlan: u16,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        let vlan = if vlan == 0 { None } else { Some(vlan_of(vlan, "vlan")?) };
        Ok(gate.bridge.vpc_port_add(vni_of(vni)?, port, vlan)?)
    })
}

/// Takes a port out of a VPC.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_vpc_port_del(
    gateway: Option<&wye_gateway>,
    vni: u32,
    port: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| Ok(gate.bridge.vpc_port_del(vni_of(vni)?, port)?))
}

/// Adds another end to a VPC, or makes a learned one stay. The way there is looked for at once; packets that come before it is known wait.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS`, `WYE_E_NOT_FOUND`, `WYE_E_FULL`, `WYE_E_INVALID`, `WYE_E_PANIC`,
/// `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_vpc_remote_add(
    gateway: Option<&wye_gateway>,
    vni: u32,
    remote: Option<&wye_address>,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        gate.bridge.vpc_remote_add(vni_of(vni)?, host(remote, "remote")?, Nanos(now_ns))?;
        Ok(())
    })
}

/// Takes another end out of a VPC.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_vpc_remote_del(
    gateway: Option<&wye_gateway>,
    vni: u32,
    remote: Option<&wye_address>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        Ok(gate.bridge.vpc_remote_del(vni_of(vni)?, host(remote, "remote")?)?)
    })
}

/// Has questions for an address in a VPC (ARP, neighbour discovery) answered with `mac`, whoever has it (RFC 1027, RFC 4861 §7.2.8); with NULL no longer.
///
/// Any thread, also from a callback. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `mac` is NULL or valid for reads of 6 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_vpc_proxy_set(
    gateway: Option<&wye_gateway>,
    vni: u32,
    address: Option<&wye_address>,
    mac: *const u8,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        // SAFETY: as this function's contract.
        let mac = if mac.is_null() { None } else { Some(unsafe { boundary::array(mac, "mac") }?) };
        Ok(gate.bridge.vpc_proxy_set(vni_of(vni)?, host(address, "address")?, mac)?)
    })
}
