//! Tunnels: how `tnl_pop` opens packets, and what `encap` puts in front of them.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};
use std::sync::Arc;

use wye::tunnel::behaviour::Behaviour;
use wye::tunnel::template::{FlowLabel, Inherit};
use wye::tunnel::{Kind, Options, Template, Tunnel, Way};

use crate::boundary::{self, Intent, Sized_, on_datapath};
use crate::datapath::wye_datapath;
use crate::packet::WYE_PORT_NONE;
use crate::status::{Fault, Outcome, WYE_E_EXISTS, WYE_E_NOT_FOUND, wye_error, wye_status};

/// GRE (RFC 2784, RFC 2890). The kinds have the numbers of `OVS_VPORT_TYPE_*`.
pub const WYE_TUNNEL_GRE: u32 = 3;
/// VXLAN (RFC 7348).
pub const WYE_TUNNEL_VXLAN: u32 = 4;
/// Geneve (RFC 8926).
pub const WYE_TUNNEL_GENEVE: u32 = 5;
/// ERSPAN, types II and III.
pub const WYE_TUNNEL_ERSPAN: u32 = 107;
/// ERSPAN under the number that Open vSwitch has for it over IPv6; the same otherwise.
pub const WYE_TUNNEL_IP6ERSPAN: u32 = 108;
/// GRE under the number that Open vSwitch has for it over IPv6; the same otherwise.
pub const WYE_TUNNEL_IP6GRE: u32 = 109;
/// GTP-U (3GPP TS 29.281).
pub const WYE_TUNNEL_GTPU: u32 = 110;
/// Segment routing over IPv6 (RFC 8754, RFC 8986).
pub const WYE_TUNNEL_SRV6: u32 = 112;

/// VXLAN: packets may have the group-policy extension.
pub const WYE_TUNNEL_WITH_GBP: u32 = 1;
/// VXLAN: packets may have the generic-protocol extension.
pub const WYE_TUNNEL_WITH_GPE: u32 = 2;
/// Kinds in UDP: packets over IPv6 must have a UDP checksum.
pub const WYE_TUNNEL_WITH_CHECKSUM6: u32 = 4;
/// Congestion marks go from the inner to the outer header and back, as RFC 6040 says. Without it, the outer header has the mark of `header`, and
/// what is opened stays as it is.
pub const WYE_TUNNEL_WITH_ECN: u32 = 8;
/// SRv6: packets may lack a segment routing header, as those of H.Encaps.Red with one segment do.
pub const WYE_TUNNEL_WITH_REDUCED: u32 = 16;
/// Geneve: packets with a critical option that is none of `known_options` are dropped, `tunnel_option`. Without it, the flows judge.
pub const WYE_TUNNEL_WITH_KNOWN_OPTIONS: u32 = 32;
/// SRv6 with a `behaviour`: a packet for this node that carries something else than what the behaviour takes out comes out as it is (RFC 8986
/// §4.1.1). Without it such packets are dropped.
pub const WYE_TUNNEL_WITH_UPPER_LAYER: u32 = 64;

/// The outer header's DSCP (of the TOS field, or traffic class) is the inner packet's.
pub const WYE_TUNNEL_INHERIT_DSCP: u32 = 1;
/// The outer header's TTL or hop limit is the inner packet's.
pub const WYE_TUNNEL_INHERIT_TTL: u32 = 2;
/// The outer IPv4 header has "don't fragment" if the inner IPv4 header has it, and around IPv6.
pub const WYE_TUNNEL_INHERIT_DF: u32 = 4;

/// As in `header`. For SRv6 its flow label says which: 0 the inner packet's, 1 zero, 2 a hash, as in Open vSwitch.
pub const WYE_TUNNEL_LABEL_OF_HEADER: u32 = 0;
/// The inner packet's flow label; 0 if that is not IPv6.
pub const WYE_TUNNEL_LABEL_OF_INNER: u32 = 1;
/// A hash of the inner packet's flow (RFC 6438).
pub const WYE_TUNNEL_LABEL_OF_HASH: u32 = 2;

/// Types of Geneve options that a tunnel may know.
pub const WYE_TUNNEL_OPTIONS_MAX: usize = 256;

/// A type of Geneve options.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wye_tunnel_option {
    /// Class.
    pub option_class: u16,
    /// Type, critical bit included.
    pub option_type: u8,
    /// Zero.
    pub reserved: u8,
}

/// A tunnel. Zero is each field's default but `kind`'s: a tunnel that is only opened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct wye_tunnel_config {
    /// `sizeof(struct wye_tunnel_config)`.
    pub size: u32,
    /// `WYE_TUNNEL_GRE` to `WYE_TUNNEL_SRV6`.
    pub kind: u32,
    /// `WYE_TUNNEL_WITH_*`.
    pub flags: u32,
    /// Elements of `known_options`, 256 at most.
    pub n_known_options: u32,
    /// With `WYE_TUNNEL_WITH_KNOWN_OPTIONS`: what is understood. Copied.
    pub known_options: *const wye_tunnel_option,
    /// What `encap` puts in front: Ethernet, up to two VLAN tags, IPv4 or IPv6, UDP or what else carries the kind, and the kind's own header, 512 bytes
    /// at most, as in `tnl_push`. Lengths, checksums, source port and sequence numbers are filled in for each packet; a UDP checksum only if the one
    /// that stands here is not 0. Copied.
    pub header: *const c_void,
    /// Bytes of `header`; 0 if the way is not known yet.
    pub header_len: u32,
    /// The port that `encap` sends to; `WYE_PORT_NONE` if the way is not known yet. Without `header` it may be 0 as well.
    pub out_port: u32,
    /// The longest outer IP packet that gets through, in bytes; 0 for no limit.
    pub mtu: u32,
    /// First UDP source port, chosen by a hash of the inner packet's flow. Both 0: 32,768 to 60,999.
    pub source_port_first: u16,
    /// Last UDP source port.
    pub source_port_last: u16,
    /// `WYE_TUNNEL_INHERIT_*`.
    pub inherit: u32,
    /// `WYE_TUNNEL_LABEL_*`; without meaning over IPv4.
    pub flow_label: u32,
    /// SRv6: what `tnl_pop` does, by its number in IANA's registry "SRv6 Endpoint Behaviors": End is 1, End.DX2 21, End.DT46 20, for instance. 0: as Open
    /// vSwitch, the inner packet comes out if no segment is left.
    pub behaviour: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, `size` first; integers and raw pointers.
unsafe impl Sized_ for wye_tunnel_config {
    const FIRST: usize = size_of::<wye_tunnel_config>();
    const NAME: &'static str = "wye_tunnel_config";
}

/// Whether something is for this kind.
type IsFor = fn(Kind) -> bool;

/// Which kinds the flags are for.
const FLAGS: [(u32, &str, IsFor); 7] = [
    (WYE_TUNNEL_WITH_GBP, "GBP is for VXLAN", |kind| kind == Kind::Vxlan),
    (WYE_TUNNEL_WITH_GPE, "GPE is for VXLAN", |kind| kind == Kind::Vxlan),
    (WYE_TUNNEL_WITH_CHECKSUM6, "CHECKSUM6 is for VXLAN, Geneve and GTP-U", |kind| kind.port() != 0),
    (WYE_TUNNEL_WITH_ECN, "", |_| true),
    (WYE_TUNNEL_WITH_REDUCED, "REDUCED is for SRv6", |kind| kind == Kind::Srv6),
    (WYE_TUNNEL_WITH_KNOWN_OPTIONS, "KNOWN_OPTIONS is for Geneve", |kind| kind == Kind::Geneve),
    (WYE_TUNNEL_WITH_UPPER_LAYER, "UPPER_LAYER is for SRv6", |kind| kind == Kind::Srv6),
];

/// Refuses bits of `value` that are none of `known`.
pub(crate) fn only(value: u32, known: u32, name: &str) -> Outcome {
    match value & !known {
        0 => Ok(()),
        unknown => Err(Fault::invalid(format!("{name}: {unknown:#x} is not known"))),
    }
}

/// How packets are checked.
///
/// # Safety
/// `known_options` is valid.
unsafe fn options(c: &wye_tunnel_config, kind: Kind) -> Outcome<Options> {
    only(c.flags, FLAGS.iter().map(|(flag, ..)| flag).sum(), "flags")?;
    if let Some((_, what, _)) = FLAGS.iter().find(|(flag, _, is_for)| c.flags & flag != 0 && !is_for(kind)) {
        return Err(Fault::invalid(format!("flags: WYE_TUNNEL_WITH_{what}, not for {}", kind.name())));
    }
    let has = |flag| c.flags & flag != 0;
    let known_options = if has(WYE_TUNNEL_WITH_KNOWN_OPTIONS) {
        if c.n_known_options as usize > WYE_TUNNEL_OPTIONS_MAX {
            return Err(Fault::invalid(format!("n_known_options: must be at most {WYE_TUNNEL_OPTIONS_MAX}")));
        }
        // SAFETY: this function's contract.
        let known = unsafe { boundary::slice(c.known_options, c.n_known_options as usize, "known_options") }?;
        if known.iter().any(|option| option.reserved != 0) {
            return Err(Fault::invalid("known_options: reserved must be 0"));
        }
        Some(known.iter().map(|option| (option.option_class, option.option_type)).collect())
    } else if c.n_known_options != 0 {
        return Err(Fault::invalid("n_known_options: must be 0 without WYE_TUNNEL_WITH_KNOWN_OPTIONS"));
    } else {
        None
    };
    if c.reserved != 0 {
        return Err(Fault::invalid("reserved: must be 0"));
    }
    let behaviour = match c.behaviour {
        0 => None,
        number => {
            let known = u16::try_from(number).ok().and_then(Behaviour::from_number).filter(|_| kind == Kind::Srv6);
            let unknown = || Fault::invalid(format!("behaviour: {number} is not known of {}", kind.name()));
            Some(known.ok_or_else(unknown)?)
        }
    };
    Ok(Options {
        gbp: has(WYE_TUNNEL_WITH_GBP),
        gpe: has(WYE_TUNNEL_WITH_GPE),
        zero_checksum6: !has(WYE_TUNNEL_WITH_CHECKSUM6),
        ecn: has(WYE_TUNNEL_WITH_ECN),
        known_options,
        reduced: has(WYE_TUNNEL_WITH_REDUCED),
        behaviour,
        upper_layer: has(WYE_TUNNEL_WITH_UPPER_LAYER),
    })
}

/// How packets get into the tunnel; `None` if that is not known yet. Fields that are no use then must be right as well.
///
/// # Safety
/// `header` is valid.
unsafe fn way(c: &wye_tunnel_config, kind: Kind) -> Outcome<Option<Arc<Way>>> {
    only(c.inherit, WYE_TUNNEL_INHERIT_DSCP | WYE_TUNNEL_INHERIT_TTL | WYE_TUNNEL_INHERIT_DF, "inherit")?;
    let inherit = Inherit {
        dscp: c.inherit & WYE_TUNNEL_INHERIT_DSCP != 0,
        ecn: c.flags & WYE_TUNNEL_WITH_ECN != 0,
        ttl: c.inherit & WYE_TUNNEL_INHERIT_TTL != 0,
        df: c.inherit & WYE_TUNNEL_INHERIT_DF != 0,
    };
    let label = match c.flow_label {
        WYE_TUNNEL_LABEL_OF_HEADER => None,
        WYE_TUNNEL_LABEL_OF_INNER => Some(FlowLabel::Inner),
        WYE_TUNNEL_LABEL_OF_HASH => Some(FlowLabel::Hash),
        other => return Err(Fault::invalid(format!("flow_label: {other} is not known"))),
    };
    let source_ports = match (c.source_port_first, c.source_port_last) {
        (0, 0) => None,
        (0, _) => return Err(Fault::invalid("source_port_first: must not be 0")),
        (first, last) if last < first => {
            return Err(Fault::invalid(format!("source_port_last: {last} is below source_port_first, {first}")));
        }
        both => Some(both),
    };
    if c.header_len == 0 {
        return match c.out_port {
            0 | WYE_PORT_NONE => Ok(None),
            port => Err(Fault::invalid(format!("header: is needed to send to out_port {port}"))),
        };
    }
    // SAFETY: this function's contract.
    let header = unsafe { boundary::bytes(c.header, c.header_len as usize, "header") }?;
    let template = Template::new(kind, header).map_err(|e| Fault::invalid(format!("header: {e}")))?;
    let mut template = template.with_inherit(inherit);
    if let Some((first, last)) = source_ports {
        template = template.with_source_ports(first, last);
    }
    if let Some(label) = label {
        template = template.with_flow_label(label);
    }
    let overhead = template.overhead();
    if c.mtu != 0 && c.mtu as usize <= overhead {
        return Err(Fault::invalid(format!("mtu: {} leaves no room behind {overhead} bytes of outer headers", c.mtu)));
    }
    let mtu = if c.mtu == 0 { u32::MAX } else { c.mtu };
    let way = Way { template, out_port: c.out_port, mtu };
    Ok((c.out_port != WYE_PORT_NONE).then(|| Arc::new(way)))
}

/// Sets a tunnel, new or instead of the old one. Its number is what `tnl_pop` and `encap` name; packets that `tnl_pop` takes out of it come in on the port
/// of this number, which need not exist: nothing is output to it. `tnl_push` brings its own headers and needs no tunnel.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_INVALID` names the field, and the old tunnel stays. `WYE_E_EXISTS` if the number is one
/// of a gateway's tunnels. `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
///
/// # Safety
/// `config` is NULL or a struct of the size that its first field says; `known_options` is valid for reads of `n_known_options` elements and `header` of
/// `header_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wye_tunnel_set(
    datapath: Option<&wye_datapath>,
    number: u32,
    config: *const wye_tunnel_config,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        // SAFETY: as this function's contract.
        let c = unsafe { boundary::sized(config) }?;
        if number == WYE_PORT_NONE {
            return Err(Fault::invalid("number: WYE_PORT_NONE is no tunnel"));
        }
        if inner.gate().as_ref().is_some_and(|gate| gate.owns_tunnel(number)) {
            return Err(Fault::new(WYE_E_EXISTS, format!("number: {number} is a tunnel of the gateway's")));
        }
        let kind = Kind::from_number(c.kind).ok_or_else(|| Fault::invalid(format!("kind: {} is not known", c.kind)))?;
        // SAFETY: as this function's contract, twice.
        let (options, way) = unsafe { (options(&c, kind)?, way(&c, kind)?) };
        inner.engine.tunnel_set(number, Tunnel { kind, options, way });
        Ok(())
    })
}

/// Removes a tunnel. Flows that use it drop their packets: `unknown_tunnel`.
///
/// Any thread, also from a callback. Takes the control lock. `WYE_E_NOT_FOUND`, `WYE_E_INVALID`, `WYE_E_PANIC`, `WYE_E_FORKED`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn wye_tunnel_del(
    datapath: Option<&wye_datapath>,
    number: u32,
    error: Option<&mut MaybeUninit<*mut wye_error>>,
) -> wye_status {
    on_datapath(datapath, error, Intent::Change, |inner| {
        let is_gateways = inner.gate().as_ref().is_some_and(|gate| gate.owns_tunnel(number));
        let is_gone = !is_gateways && inner.engine.tunnel_del(number);
        if is_gone { Ok(()) } else { Err(Fault::new(WYE_E_NOT_FOUND, format!("there is no tunnel {number}"))) }
    })
}
