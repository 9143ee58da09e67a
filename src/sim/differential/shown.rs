//! A scenario in words, for whoever has to find out why it failed.

use core::fmt::{Display, Formatter, Result};

use super::rig::hex;
use super::scenario::{Event, Put, Reply, Scenario};
use crate::flow::action::Actions;
use crate::flow::text::{PortNames, format_actions, format_flow};
use crate::sim::oracle::parcel::Parcel;

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let plain = if self.is_plain { ", also polled" } else { "" };
        writeln!(f, "keys with {} VLAN tags{plain}", self.vlan_depth)?;
        for (at, event) in self.events.iter().enumerate() {
            write!(f, "event {at}: {event}")?;
        }
        Ok(())
    }
}

fn actions(list: &Actions) -> String {
    format_actions(list, &PortNames::NONE)
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Event::Put(put) => write!(f, "{put}"),
            Event::Del(at) => writeln!(f, "remove flow {at} of those that are there"),
            Event::Burst(parcels) => {
                writeln!(f, "{} packets", parcels.len())?;
                let mut rest: Vec<(usize, &Parcel)> = parcels.iter().enumerate().collect();
                while let Some(&(_, first)) = rest.first() {
                    let (same, others) = rest.into_iter().partition(|(_, parcel)| alike(parcel, first));
                    rest = others;
                    numbers(f, &same)?;
                    metadata(f, first)?;
                    writeln!(f, ": {}", hex(&first.bytes))?;
                }
                Ok(())
            }
            Event::Wait(ms) => writeln!(f, "{ms} ms later, upkeep"),
            Event::Port(number, is_up) => writeln!(f, "port {number} goes {}", if *is_up { "up" } else { "down" }),
            Event::Upcalls(true) => writeln!(f, "upcalls on"),
            Event::Upcalls(false) => writeln!(f, "upcalls off"),
            Event::Meter(id, config) => writeln!(f, "meter {id}: {config:?}"),
            Event::Bond(members) => writeln!(f, "bond members {members:?}"),
            Event::Tunnel(number, None) => writeln!(f, "no tunnel {number}"),
            Event::Tunnel(number, Some(tunnel)) => {
                writeln!(f, "tunnel {number}: {:?}, {:?}", tunnel.kind, tunnel.options)?;
                let Some(way) = &tunnel.way else { return Ok(()) };
                let (headers, bytes) = (&way.headers, hex(&way.headers.bytes));
                let of_inner = (headers.inherit, headers.label, headers.source_ports);
                writeln!(f, "  out of port {}, mtu {}, {of_inner:?}: {bytes}", way.out_port, way.mtu)
            }
            Event::Handler(replies) if replies.is_empty() => writeln!(f, "no upcall handler"),
            Event::Handler(replies) => {
                writeln!(f, "an upcall handler")?;
                replies.iter().try_for_each(|reply| writeln!(f, "  {reply}"))
            }
        }
    }
}

/// The places of packets that are all the same.
fn numbers(f: &mut Formatter<'_>, same: &Vec<(usize, &Parcel)>) -> Result {
    let some: Vec<String> = same.iter().take(8).map(|(number, _)| number.to_string()).collect();
    let more = if same.len() > some.len() { format!(" … {} in all", same.len()) } else { String::new() };
    write!(f, "  {}{more}", some.join(" "))
}

fn alike(a: &Parcel, b: &Parcel) -> bool {
    let of = |p: &Parcel| {
        let metadata = (p.in_port, p.recirc_id, p.dp_hash, p.skb_mark, p.ct_mark, p.ct_state, p.ct_zone);
        (metadata, p.layer3, p.five_tuple, p.checksums_are_good, p.bytes.clone())
    };
    of(a) == of(b)
}

fn metadata(f: &mut Formatter<'_>, p: &Parcel) -> Result {
    write!(f, " on port {}", p.in_port)?;
    if let Some(kind) = p.layer3 {
        write!(f, ", without link layer, {kind:#06x}")?;
    }
    if let Some(hash) = p.five_tuple {
        write!(f, ", RSS hash {hash:#x}")?;
    }
    if p.checksums_are_good {
        write!(f, ", checksums verified")?;
    }
    let numbers = [
        ("recirc_id", p.recirc_id),
        ("dp_hash", p.dp_hash),
        ("skb_mark", p.skb_mark),
        ("ct_mark", p.ct_mark),
        ("ct_state", p.ct_state.into()),
        ("ct_zone", p.ct_zone.into()),
    ];
    numbers.iter().filter(|(_, n)| *n != 0).try_for_each(|(name, n)| write!(f, ", {name} {n:#x}"))
}

impl Display for Put {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut how = String::new();
        let flags = [(self.create, " create"), (self.modify, " modify"), (self.zero_stats, " zero")];
        flags.iter().filter(|(is_set, _)| *is_set).for_each(|(_, name)| how.push_str(name));
        if let Some(ufid) = self.ufid {
            how += &format!(" ufid {ufid}");
        }
        if self.idle_ms | self.hard_ms != 0 {
            how += &format!(" idle {} ms hard {} ms", self.idle_ms, self.hard_ms);
        }
        match self.of {
            Some(at) => writeln!(
                f,
                "put{how}, flow {at} of those that are there, else the empty one: {}",
                actions(&self.actions)
            ),
            None => {
                writeln!(f, "put{how}\n  {}", format_flow(&self.key, &self.mask, &self.actions, &PortNames::NONE))
            }
        }
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Reply::Execute(list, install, others) => {
                write!(f, "{}", actions(list))?;
                if *install {
                    let same = "the same".to_owned();
                    write!(f, ", and a flow that does {}", others.as_ref().map_or(same, actions))?;
                }
                Ok(())
            }
            Reply::Other(answer) => write!(f, "{answer:?}"),
        }
    }
}
