//! The underlay of a gateway: addresses of our own, the ways to other ends of tunnels, and what is listened for.

use core::ffi::c_char;
use core::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use wye::gateway::underlay::routes::{MAIN, Route};
use wye::gateway::underlay::{Interface, Listener};
use wye::time::Nanos;
use wye::tunnel::{Kind, Options};

use crate::boundary::{self, Intent, Sized_};
use crate::gateway::{on_gateway, or, vlan_of, wye_gateway};
use crate::status::{Fault, Outcome, wye_error, wye_status};
use crate::tunnel::{WYE_TUNNEL_WITH_CHECKSUM6, WYE_TUNNEL_WITH_GBP, WYE_TUNNEL_WITH_GPE, only};

/// Any metric, see `wye_gateway_route_del`.
pub const WYE_METRIC_ANY: u32 = u32::MAX;

/// The MTU of an interface that names none.
const MTU_DEFAULT: u32 = 1500;

/// Addresses that one interface may have.
pub const WYE_ADDRESSES_MAX: usize = 1024;

/// An IP address, with the length of its prefix where it has one. All zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct wye_address {
    /// 4 or 6; 0 for no address.
    pub version: u8,
    /// Bits of the prefix. Not looked at where an address stands alone.
    pub prefix_len: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The address in network byte order. IPv4 has the first four, and zeros behind them.
    pub bytes: [u8; 16],
}

impl wye_address {
    /// The address; `None` if there is none.
    fn optional(&self, name: &str) -> Outcome<Option<IpAddr>> {
        if self.reserved != [0; 2] {
            return Err(Fault::invalid(format!("{name}.reserved: must be 0")));
        }
        match self.version {
            0 if *self == wye_address::default() => Ok(None),
            4 => match self.bytes {
                [a, b, c, d, rest @ ..] if rest == [0; 12] => Ok(Some(Ipv4Addr::new(a, b, c, d).into())),
                _ => Err(Fault::invalid(format!("{name}.bytes: IPv4 has four, zeros are behind them"))),
            },
            6 => Ok(Some(self.bytes.into())),
            other => Err(Fault::invalid(format!("{name}.version: {other} is not 4 or 6"))),
        }
    }

    fn ip(&self, name: &str) -> Outcome<IpAddr> {
        self.optional(name)?.ok_or_else(|| Fault::invalid(format!("{name}: there is no address")))
    }

    fn net(&self, name: &str) -> Outcome<IpNet> {
        let ip = self.ip(name)?;
        IpNet::new(ip, self.prefix_len)
            .map_err(|_| Fault::invalid(format!("{name}.prefix_len: {} is more than {ip} has bits", self.prefix_len)))
    }

    fn of(net: IpNet) -> Self {
        let (version, bytes) = match net.addr() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(ip) => (6, ip.octets()),
        };
        wye_address { version, prefix_len: net.prefix_len(), reserved: [0; 2], bytes }
    }
}

/// An address that must be there.
pub(crate) fn host(address: Option<&wye_address>, name: &str) -> Outcome<IpAddr> {
    address.ok_or_else(|| Fault::invalid(format!("{name} is NULL")))?.ip(name)
}

/// An address that may be missing.
pub(crate) fn host_or_none(address: &wye_address, name: &str) -> Outcome<Option<IpAddr>> {
    address.optional(name)
}

/// Reads an address, `"192.0.2.1"`, or one with a prefix, `"2001:db8::1/64"`; without one, the prefix is the whole address.
///
/// Any thread; does not block. `WYE_E_INVALID`. Since 0.1.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_address_from_text(
    text: *const c_char,
    address: Option<&mut MaybeUninit<wye_address>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        // SAFETY: as this function's contract.
        let text = unsafe { boundary::text(text, "text") }?.ok_or_else(|| Fault::invalid("text is NULL"))?;
        let out = boundary::out(address, "address")?;
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| Fault::invalid(format!("text: {text:?} is no address like \"192.0.2.1/24\"")))?;
        out.write(wye_address::of(net));
        Ok(())
    })
}

/// A port with addresses of our own. Zero is each field's default but `port`'s, `mac`'s and those of the addresses.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_interface {
    /// `sizeof(struct wye_interface)`.
    pub size: u32,
    /// The datapath's port.
    pub port: u32,
    /// Our link-layer address there.
    pub mac: [u8; 6],
    /// Frames have a tag of this VLAN; 0 for none.
    pub vlan: u16,
    /// The longest IP packet that the link carries, in bytes. Default 1,500.
    pub mtu: u32,
    /// Elements of `addresses`.
    pub n_addresses: u32,
    /// Our addresses, with the length of the prefix that is on the link. Copied.
    pub addresses: *const wye_address,
}

// SAFETY: `repr(C)`, `size` first; integers and a raw pointer.
unsafe impl Sized_ for wye_interface {
    const FIRST: usize = size_of::<wye_interface>();
    const NAME: &'static str = "wye_interface";
}

/// A way to a prefix.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_route {
    /// `sizeof(struct wye_route)`.
    pub size: u32,
    /// The interface that it leaves by.
    pub port: u32,
    /// Where it leads; `prefix_len` counts.
    pub prefix: wye_address,
    /// The next hop; none if the prefix is on the link.
    pub via: wye_address,
    /// Which of our addresses packets have that choose none; may be none.
    pub source: wye_address,
    /// Of several routes for a prefix, the one with the lowest counts.
    pub metric: u32,
    /// The table; 0 for the main one, 254.
    pub table: u32,
}

// SAFETY: `repr(C)`, `size` first; integers.
unsafe impl Sized_ for wye_route {
    const FIRST: usize = size_of::<wye_route>();
    const NAME: &'static str = "wye_route";
}

/// Makes a port an interface, or changes it. Its packets are for us or for nobody: ARP, neighbour discovery and pings for our addresses are answered, packets
/// of tunnels that are listened for are taken out of them, all else is dropped: `policy`. The prefixes become routes. The addresses are announced.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID` and `WYE_E_RANGE` name the field, and nothing is changed; `WYE_E_EXISTS` if the
/// port is in a VLAN or VPC, `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `interface` is NULL or a struct of the size that its first field says; `addresses` is valid for reads of `n_addresses` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_interface_set(
    gateway: Option<&wye_gateway>,
    interface: *const wye_interface,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        // SAFETY: as this function's contract.
        let c = unsafe { boundary::sized(interface) }?;
        if c.n_addresses as usize > WYE_ADDRESSES_MAX {
            return Err(Fault::invalid(format!("n_addresses: must be at most {WYE_ADDRESSES_MAX}")));
        }
        // SAFETY: as this function's contract.
        let addresses = unsafe { boundary::slice(c.addresses, c.n_addresses as usize, "addresses") }?;
        let address = |(at, address): (usize, &wye_address)| match address.net(&format!("addresses[{at}]"))? {
            // Left out, most likely: everything would be on the link.
            net if net.prefix_len() == 0 => Err(Fault::invalid(format!("addresses[{at}].prefix_len: must not be 0"))),
            net => Ok(net),
        };
        let addresses = addresses.iter().enumerate().map(address).collect::<Outcome<Vec<_>>>()?;
        let vlan = if c.vlan == 0 { None } else { Some(vlan_of(c.vlan, "vlan")?) };
        let (port, mac, mtu) = (c.port, c.mac, or(c.mtu, MTU_DEFAULT));
        gate.may_be_interface(port)?;
        Ok(gate.underlay.interface_set(Interface { port, mac, vlan, mtu, addresses }, Nanos(now_ns))?)
    })
}

/// Takes a port's addresses away, its neighbours, and all routes over it.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_interface_del(
    gateway: Option<&wye_gateway>,
    port: u32,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| Ok(gate.underlay.interface_del(port, Nanos(now_ns))?))
}

/// Adds a route over an interface; tunnels whose way it is take it at once.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` for a prefix and metric that the table has, `WYE_E_NOT_FOUND` without the
/// interface, `WYE_E_FULL`, `WYE_E_UNSUPPORTED`, `WYE_E_INVALID` (names the field), `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `route` is NULL or a struct of the size that its first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_route_add(
    gateway: Option<&wye_gateway>,
    route: *const wye_route,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        // SAFETY: as this function's contract.
        let c = unsafe { boundary::sized(route) }?;
        if c.metric == WYE_METRIC_ANY {
            return Err(Fault::invalid("metric: WYE_METRIC_ANY is none"));
        }
        let route = Route {
            prefix: c.prefix.net("prefix")?,
            via: c.via.optional("via")?,
            port: c.port,
            source: c.source.optional("source")?,
            metric: c.metric,
        };
        Ok(gate.underlay.route_add(or(c.table, MAIN), route, Nanos(now_ns))?)
    })
}

/// Removes the route for `prefix` with this metric; with `WYE_METRIC_ANY`, the one with the lowest. `table` is 0 for the main one.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_route_del(
    gateway: Option<&wye_gateway>,
    prefix: Option<&wye_address>,
    metric: u32,
    table: u32,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        let prefix = prefix.ok_or_else(|| Fault::invalid("prefix is NULL"))?.net("prefix")?;
        let metric = (metric != WYE_METRIC_ANY).then_some(metric);
        gate.underlay.route_del(or(table, MAIN), prefix, metric, Nanos(now_ns))?;
        Ok(())
    })
}

/// Sets a neighbour's link-layer address, which is then never asked for.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `mac` is NULL or valid for reads of 6 bytes.
/// cbindgen:ptrs-as-arrays=[[mac;6]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_neighbour_set(
    gateway: Option<&wye_gateway>,
    port: u32,
    address: Option<&wye_address>,
    mac: *const u8,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        let ip = host(address, "address")?;
        // SAFETY: as this function's contract.
        let mac = unsafe { boundary::array(mac, "mac") }?;
        if !gate.underlay.has_interface(port) {
            return Err(Fault::new(crate::status::WYE_E_NOT_FOUND, format!("port: {port} is no interface")));
        }
        Ok(gate.underlay.neighbour_set((port, ip), mac, Nanos(now_ns))?)
    })
}

/// Forgets a neighbour, set or learned; it is asked for when it is needed.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_neighbour_del(
    gateway: Option<&wye_gateway>,
    port: u32,
    address: Option<&wye_address>,
    now_ns: u64,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        Ok(gate.underlay.neighbour_del((port, host(address, "address")?), Nanos(now_ns))?)
    })
}

/// Has packets of tunnels that come to our addresses taken out: `kind` is `WYE_TUNNEL_VXLAN` or `WYE_TUNNEL_GENEVE`, `udp_port` 0 for the kind's own (4789,
/// 6081), `flags` of `WYE_TUNNEL_WITH_GBP`, `WYE_TUNNEL_WITH_GPE` (VXLAN) and `WYE_TUNNEL_WITH_CHECKSUM6`. Congestion marks come out as RFC 6040 says.
/// `*listener` gets the number that VPCs name. It stays until the gateway is freed.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` if the UDP port is listened to, `WYE_E_INVALID` (names the field),
/// `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_listen(
    gateway: Option<&wye_gateway>,
    kind: u32,
    udp_port: u16,
    flags: u32,
    listener: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        let out = boundary::out(listener, "listener")?;
        let kind = Kind::from_number(kind).filter(|kind| matches!(kind, Kind::Vxlan | Kind::Geneve));
        let kind = kind.ok_or_else(|| Fault::invalid("kind: must be WYE_TUNNEL_VXLAN or WYE_TUNNEL_GENEVE"))?;
        let of_vxlan = WYE_TUNNEL_WITH_GBP | WYE_TUNNEL_WITH_GPE;
        only(flags, of_vxlan | WYE_TUNNEL_WITH_CHECKSUM6, "flags")?;
        if kind != Kind::Vxlan && flags & of_vxlan != 0 {
            return Err(Fault::invalid("flags: WYE_TUNNEL_WITH_GBP and WYE_TUNNEL_WITH_GPE are for VXLAN"));
        }
        let options = Options {
            gbp: flags & WYE_TUNNEL_WITH_GBP != 0,
            gpe: flags & WYE_TUNNEL_WITH_GPE != 0,
            zero_checksum6: flags & WYE_TUNNEL_WITH_CHECKSUM6 == 0,
            ecn: true,
            // A bridge understands no options of Geneve.
            known_options: Some(Box::new([])),
            ..Options::default()
        };
        let udp_port = (udp_port != 0).then_some(udp_port);
        out.write(gate.underlay.listen(Listener { kind, udp_port, options })?);
        Ok(())
    })
}
