//! Gateways: who answers a datapath's upcalls where no program does, for the underlay, VLANs and VPCs.

use core::ffi::{c_char, c_void};
use core::mem::{MaybeUninit, size_of};
use std::sync::Arc;

use wye::datapath::{Answer, Miss, Punt, Undeliverable, UpcallHandler};
use wye::gateway::underlay::neighbours::NeighbourConfig;
use wye::gateway::underlay::{UnderlayConfig, UnderlayError};
use wye::gateway::{Bridge, BridgeConfig, BridgeError, Domain, Place, PortVlans, Underlay, VlanId, VlanSet, VpcError};
use wye::time::Nanos;

use crate::boundary::{self, Handle, Intent, Sized_, Tag, guarded};
use crate::datapath::{Inner, wye_datapath, wye_expired_fn};
use crate::stats::wye_stats;
use crate::status::{
    Fault, Outcome, WYE_E_EXISTS, WYE_E_FULL, WYE_E_INVALID, WYE_E_NOT_FOUND, WYE_E_RANGE, wye_error, wye_status,
};
use crate::text::{len_of, text_out};
use crate::upcall::Dispatcher;

/// Settings of a gateway. Zero is each field's default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_gateway_config {
    /// `sizeof(struct wye_gateway_config)`.
    pub size: u32,
    /// Stations known at a time, of all VLANs and VPCs; frames for others are flooded. Of half of them each VPC, and the VLANs together, have an even
    /// share for themselves. Default 65,536.
    pub stations_max: u32,
    /// Stations known at a time on one port, or behind one other end of a tunnel, of the VLANs and of each VPC. Default 16,384.
    pub stations_per_port_max: u32,
    /// Frames per second that may be flooded from one port or other end, those of each VPC apart; more are dropped: `storm`. `UINT32_MAX` for no
    /// limit. Default 10,000.
    pub flood_rate: u32,
    /// Frames that may be flooded at once after a pause. Default 1,000.
    pub flood_burst: u32,
    /// Neighbours known at a time. Default 16,384.
    pub neighbours_max: u32,
    /// Packets that wait for one neighbour's answer; the oldest gives way. Default 16.
    pub waiting_max: u32,
    /// Bytes of packets that wait for all neighbours. Default 4,194,304.
    pub waiting_bytes_max: u32,
    /// A station is forgotten after this many ns without a packet. Default 300 s.
    pub aging_ns: u64,
    /// The flows of stations go after this many ns without a packet. Default 10 s.
    pub flow_idle_ns: u64,
}

// SAFETY: `repr(C)`, `size` first; integers.
unsafe impl Sized_ for wye_gateway_config {
    const FIRST: usize = size_of::<wye_gateway_config>();
    const NAME: &'static str = "wye_gateway_config";
}

impl wye_gateway_config {
    const DEFAULT: wye_gateway_config = wye_gateway_config {
        size: size_of::<wye_gateway_config>() as u32,
        stations_max: 0,
        stations_per_port_max: 0,
        flood_rate: 0,
        flood_burst: 0,
        neighbours_max: 0,
        waiting_max: 0,
        waiting_bytes_max: 0,
        aging_ns: 0,
        flow_idle_ns: 0,
    };

    fn bridge(&self) -> BridgeConfig {
        let default = BridgeConfig::default();
        BridgeConfig {
            aging_ns: or(self.aging_ns, default.aging_ns),
            stations_max: or(self.stations_max, default.stations_max),
            stations_per_port_max: or(self.stations_per_port_max, default.stations_per_port_max),
            flood_rate: match self.flood_rate {
                0 => default.flood_rate,
                u32::MAX => 0,
                rate => rate,
            },
            flood_burst: or(self.flood_burst, default.flood_burst),
            flow_idle_ns: or(self.flow_idle_ns, default.flow_idle_ns),
        }
    }

    fn underlay(&self) -> UnderlayConfig {
        let default = NeighbourConfig::default();
        UnderlayConfig {
            neighbours: NeighbourConfig {
                entries_max: or(self.neighbours_max as usize, default.entries_max),
                queue_max: or(self.waiting_max as usize, default.queue_max),
                queue_bytes_max: or(self.waiting_bytes_max as usize, default.queue_bytes_max),
                ..default
            },
        }
    }
}

/// `value`, or `default` for zero.
pub(crate) fn or<T: PartialEq + Default>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

/// The engine's handler while there is a gateway: it answers the upcalls of what is its own, and the [`Dispatcher`] all others.
pub(crate) struct Gate {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) underlay: Arc<Underlay>,
}

impl Gate {
    /// True if a tunnel of this number is the gateway's.
    pub(crate) fn owns_tunnel(&self, number: u32) -> bool {
        self.underlay.has_endpoint(number) || self.underlay.listeners().iter().any(|(listener, _)| *listener == number)
    }

    /// A port is of VLANs and VPCs, or an interface, not both.
    pub(crate) fn may_be_interface(&self, port: u32) -> Outcome {
        if self.bridge.owns(port) && !self.underlay.owns(port) {
            return Err(Fault::new(WYE_E_EXISTS, format!("port: {port} is in a VLAN or VPC")));
        }
        Ok(())
    }
}

impl UpcallHandler for Gate {
    fn miss(&self, miss: Miss<'_>) -> Answer {
        let base = &miss.key.base;
        // The gateway recirculates nothing: what comes round is of the program's flows.
        if base.recirc_id == 0 && self.bridge.owns(base.in_port) {
            self.bridge.miss(miss)
        } else {
            Dispatcher.miss(miss)
        }
    }

    /// Only the program's flows hand packets up.
    fn punt(&self, punt: Punt<'_>) -> Answer {
        Dispatcher.punt(punt)
    }

    fn undeliverable(&self, packet: Undeliverable<'_>) -> Answer {
        if self.underlay.has_endpoint(packet.tunnel) {
            self.bridge.undeliverable(packet)
        } else {
            Dispatcher.undeliverable(packet)
        }
    }
}

/// Answers the upcalls of a datapath's ports that were made its own: interfaces with addresses, ports of VLANs, members of VPCs. Packets of all other
/// ports, and all that `userspace` hands up, are the program's as without it.
pub struct wye_gateway {
    tag: Tag,
    inner: Arc<Inner>,
    gate: Arc<Gate>,
}

impl Handle for wye_gateway {
    const TAG: u64 = u64::from_be_bytes(*b"WyeGatew");
    const NAME: &'static str = "wye_gateway";
    fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl Drop for wye_gateway {
    fn drop(&mut self) {
        if self.inner.is_forked() {
            return;
        }
        let mut slot = self.inner.gate();
        self.inner.engine.set_upcall_handler(Some(Arc::new(Dispatcher)));
        self.gate.bridge.withdraw();
        *slot = None;
    }
}

/// Runs the inside of a function of a gateway's.
pub(crate) fn on_gateway(
    gateway: Option<&wye_gateway>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
    intent: Intent,
    f: impl FnOnce(&Gate) -> Outcome,
) -> wye_status {
    boundary::call(error, || {
        let gateway = boundary::live(gateway)?;
        guarded(&gateway.inner, intent, |_| f(&gateway.gate))
    })
}

impl From<BridgeError> for Fault {
    fn from(e: BridgeError) -> Self {
        let status = match e {
            BridgeError::PortNumber(_) => WYE_E_RANGE,
            BridgeError::Vpc(_) | BridgeError::Interface(_) => WYE_E_EXISTS,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<UnderlayError> for Fault {
    fn from(e: UnderlayError) -> Self {
        use wye::gateway::underlay::routes::RouteError;
        let status = match e {
            UnderlayError::Port(_) => WYE_E_RANGE,
            UnderlayError::TooManyEndpoints | UnderlayError::Route(RouteError::TooMany) => WYE_E_FULL,
            UnderlayError::Listener | UnderlayError::Route(RouteError::Exists(_)) => WYE_E_EXISTS,
            UnderlayError::NotFound(_) => WYE_E_NOT_FOUND,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

impl From<VpcError> for Fault {
    fn from(e: VpcError) -> Self {
        let status = match e {
            VpcError::Underlay(e) => return e.into(),
            VpcError::Exists(_) | VpcError::Vlan(_) => WYE_E_EXISTS,
            VpcError::NotFound(_) => WYE_E_NOT_FOUND,
            VpcError::TooManyRemotes(_) | VpcError::NoShare(..) => WYE_E_FULL,
            _ => WYE_E_INVALID,
        };
        Fault::new(status, e.to_string())
    }
}

/// Makes a gateway of a datapath, which has one at most. It owns no port yet. `config` may be NULL for defaults; it is copied. Numbers of tunnels from
/// 65,536 on are the gateway's from now on; a program's own tunnels have lower ones.
///
/// Any thread. Takes the control lock. `WYE_E_EXISTS` if there is one, `WYE_E_INVALID`, `WYE_E_UNSUPPORTED`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `config` is NULL or points to a struct of the size that its first field says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_new(
    datapath: Option<&wye_datapath>,
    config: *const wye_gateway_config,
    gateway: Option<&mut MaybeUninit<*mut wye_gateway>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::on_datapath(datapath, error, Intent::Change, |inner| {
        let out = boundary::out(gateway, "gateway")?;
        // SAFETY: as this function's contract.
        let c = if config.is_null() { wye_gateway_config::DEFAULT } else { unsafe { boundary::sized(config) }? };
        let mut slot = inner.gate();
        if slot.is_some() {
            return Err(Fault::new(WYE_E_EXISTS, "the datapath has a gateway"));
        }
        let engine = &inner.engine;
        let underlay = Underlay::new(engine, c.underlay());
        let bridge = Bridge::over(engine, c.bridge(), Some(Arc::clone(&underlay)))?;
        let gate = Arc::new(Gate { bridge, underlay });
        engine.set_upcall_handler(Some(Arc::clone(&gate) as Arc<dyn UpcallHandler>));
        *slot = Some(Arc::clone(&gate));
        let inner = Arc::clone(boundary::live(datapath)?.inner());
        boundary::give(wye_gateway { tag: Tag::live::<wye_gateway>(), inner, gate }, out);
        Ok(())
    })
}

/// Frees a gateway; NULL is legal. Takes the handle. Its flows and tunnels go, packets that wait for a neighbour are dropped, and the upcalls of its ports
/// are the program's again. The datapath may have been freed before.
///
/// Any thread, not while another thread is inside a function with this handle. Takes the control lock. Since 0.1.
///
/// # Safety
/// `gateway` is NULL or came from `wye_gateway_new` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_free(gateway: *mut wye_gateway) {
    // SAFETY: as this function's contract.
    unsafe { boundary::free(gateway) }
}

/// The work that packets do not do, the datapath's included: call it several times a second, instead of `wye_datapath_upkeep`. Asks neighbours again,
/// forgets stations that are too old. What it sends waits for a worker, as after `wye_datapath_inject`. `expired` (may be NULL) is told of each flow whose
/// time was over, the gateway's own included.
///
/// Any thread. Takes the gateway's lock, which workers hold to answer an upcall, and the control lock. `WYE_E_INVALID`, `WYE_E_PANIC`,
/// `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `expired` is NULL or may be called with `ctx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_upkeep(
    gateway: Option<&wye_gateway>,
    now_ns: u64,
    expired: wye_expired_fn,
    ctx: *mut c_void,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    boundary::call(error, || {
        let gateway = boundary::live(gateway)?;
        guarded(&gateway.inner, Intent::Change, |inner| {
            let bridge = &gateway.gate.bridge;
            // SAFETY: as this function's contract.
            unsafe { inner.expire(expired, ctx, |tell| bridge.upkeep_telling(Nanos(now_ns), |flow| tell(flow))) };
            Ok(())
        })
    })
}

/// A VLAN by its number.
pub(crate) fn vlan_of(number: u16, name: &str) -> Outcome<VlanId> {
    VlanId::new(number).ok_or_else(|| Fault::invalid(format!("{name}: {number} is not from 1 to 4094")))
}

/// Makes a port one of VLANs, between whose ports the gateway switches frames, or changes it. Without `vlans` (`n_vlans` is 0) its frames have no tag and
/// belong to VLAN `vlan`. With them, those with a tag of one of them belong to that VLAN, and those without one to `vlan`, or to none if that is 0. What
/// was learned of the port is forgotten.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_EXISTS` if the port is an interface, or a VPC has frames with such a tag;
/// `WYE_E_RANGE`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `vlans` is valid for reads of `n_vlans` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_port_set(
    gateway: Option<&wye_gateway>,
    port: u32,
    vlan: u16,
    vlans: *const u16,
    n_vlans: usize,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        // SAFETY: as this function's contract.
        let vlans = unsafe { boundary::slice(vlans, n_vlans, "vlans") }?;
        let of_port = if vlans.is_empty() {
            PortVlans::Access(vlan_of(vlan, "vlan")?)
        } else {
            let native = if vlan == 0 { None } else { Some(vlan_of(vlan, "vlan")?) };
            let allowed = vlans.iter().map(|vlan| vlan_of(*vlan, "vlans")).collect::<Outcome<VlanSet>>()?;
            PortVlans::Trunk { native, allowed }
        };
        Ok(gate.bridge.set_port(port, of_port)?)
    })
}

/// Takes a port out of all VLANs and VPCs; what was learned of it is forgotten.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_port_del(
    gateway: Option<&wye_gateway>,
    port: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Change, |gate| {
        let is_gone = gate.bridge.remove_port(port);
        if is_gone { Ok(()) } else { Err(Fault::new(WYE_E_NOT_FOUND, format!("port: {port} is in no VLAN or VPC"))) }
    })
}

/// Reads what a gateway has counted, for `wye_stats_next` and `wye_stats_get`: `stations.*`, `flows.*`, `neighbours.*` and so on.
///
/// Any thread, also from a callback. Does not block for long. `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_gateway_stats(
    gateway: Option<&wye_gateway>,
    stats: Option<&mut MaybeUninit<*mut wye_stats>>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Drain, |gate| {
        let out = boundary::out(stats, "stats")?;
        boundary::give(wye_stats::of_gateway(gate.bridge.stats(), gate.underlay.stats()), out);
        Ok(())
    })
}

/// A link-layer address as people write it.
struct Mac([u8; 6]);

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Gate {
    /// What it knows, a line each.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for interface in self.underlay.interfaces() {
            let addresses: String = interface.addresses.iter().map(|address| format!(" {address}")).collect();
            let vlan = interface.vlan.map_or(String::new(), |vlan| format!(" vlan {vlan}"));
            let mac = Mac(interface.mac);
            lines.push(format!("interface port {} mac {mac}{vlan} mtu {}{addresses}", interface.port, interface.mtu));
        }
        for (table, route) in self.underlay.routes() {
            let via = route.via.map_or(String::new(), |via| format!(" via {via}"));
            let source = route.source.map_or(String::new(), |source| format!(" source {source}"));
            let (prefix, port, metric) = (route.prefix, route.port, route.metric);
            lines.push(format!("route {prefix}{via} port {port}{source} metric {metric} table {table}"));
        }
        for neighbour in self.underlay.neighbours() {
            let ((port, ip), waiting) = (neighbour.key, neighbour.waiting);
            let mac = neighbour.mac.map_or(String::new(), |mac| format!(" mac {}", Mac(mac)));
            let state = format!("{:?}", neighbour.state).to_lowercase();
            lines.push(format!("neighbour {ip} port {port}{mac} {state} waiting {waiting}"));
        }
        for path in self.underlay.paths() {
            lines.push(format!("path {} mtu {}", path.remote, path.mtu));
        }
        for vpc in self.bridge.vpcs() {
            let vni = vpc.config.vni;
            let (listener, bindings, stations, flows) = (vpc.config.listener, vpc.bindings, vpc.stations, vpc.flows);
            lines.push(format!("vpc {vni} listener {listener} bindings {bindings} stations {stations} flows {flows}"));
            for (port, vlan) in vpc.members {
                let vlan = vlan.map_or(String::new(), |vlan| format!(" vlan {vlan}"));
                lines.push(format!("vpc {vni} port {port}{vlan}"));
            }
            for (ip, _, is_static, stations) in vpc.remotes {
                let how = if is_static { "configured" } else { "learned" };
                lines.push(format!("vpc {vni} remote {ip} {how} stations {stations}"));
            }
        }
        for station in self.bridge.stations() {
            let domain = match station.domain {
                Domain::Vlan(vlan) => format!("vlan {vlan}"),
                Domain::Vpc(vni) => format!("vpc {vni}"),
            };
            let place = match station.place {
                Place::Port(port) => format!("port {port}"),
                Place::Remote(endpoint) => format!("tunnel {endpoint}"),
            };
            lines.push(format!("station {domain} {} {place}", Mac(station.mac)));
        }
        lines
    }
}

/// Writes what a gateway knows, for people: interfaces, routes, neighbours, VPCs and stations, a line each. Later versions may write more. `*text_len` is
/// the size of the buffer `text`, and afterwards the length of the text without its NUL; with `WYE_E_NO_SPACE`, the size that is needed.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NO_SPACE`, `WYE_E_INVALID`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `text` is valid for writes of `*text_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_gateway_to_text(
    gateway: Option<&wye_gateway>,
    text: *mut c_char,
    text_len: Option<&mut usize>,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_gateway(gateway, error, Intent::Drain, |gate| {
        let len = len_of(text_len, "text_len")?;
        // SAFETY: as this function's contract.
        let buffer = unsafe { boundary::slice_mut(text.cast(), *len, "text") }?;
        text_out(gate.lines().iter().map(|line| format!("{line}\n")).collect(), buffer, len)
    })
}
