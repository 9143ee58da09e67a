//! Flows as the text that `ovs-dpctl dump-flows` prints and `ovs-dpctl add-flow` reads, both ways.
//!
//! ```text
//! recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0,frag=no), actions:2,3
//! ```
//!
//! Text is a notation for the netlink attributes of [`netlink`](super::netlink): reading builds them and decodes
//! them, writing encodes and then spells them out. So both have the same rules, with one relief: text names only what is
//! matched, so attributes that the protocol demands may be absent.
//!
//! What Open vSwitch prints can be read, and what is printed here reads back as the same flow. Where Open vSwitch's own
//! notation loses something, a form that it does not print (but mostly reads) takes its place: `sample=0.0001%`, `drop(3)`,
//! `tos=0` in a tunnel that has to have that, `ipv4(dst=10.0.0.0/8)` on input. Alone in a list, `drop` is what an empty list
//! looks like; at the outermost level it is read as [`Action::Drop`](super::Action::Drop), inside of others as the empty list.
//! Outer headers of `tnl_push` that have no words in Open vSwitch's notation are written as `raw(…)`, and what is wrong with them is the
//! engine's to say. The userdata of `userspace` is always plain bytes.

mod action;
mod key;
mod push;
mod scan;
mod table;
#[cfg(test)]
mod tests;
mod tunnel;

pub use scan::{TextError, TextFault};

use super::action::Actions;
use super::key::{FlowKey, FlowMask};
use scan::Scan;

/// Formatted writing into a String, which cannot fail: `write!` uses this where `std::fmt::Write` is not in scope.
trait Append {
    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>);
}

impl Append for String {
    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>) {
        // A String takes everything, and numbers and strings have nothing to fail with.
        let _ = std::fmt::Write::write_fmt(self, text);
    }
}

/// A flow in text, and a line of a file of them, has at most this many bytes.
pub const TEXT_LEN_MAX: usize = 65_536;

/// Finds a port by its name.
pub type NumberOf<'a> = &'a dyn Fn(&str) -> Option<u32>;
/// Finds the name of a port.
pub type NameOf<'a> = &'a dyn Fn(u32) -> Option<String>;

/// How ports are called. Without names ports are numbers; a port without a name is one too.
#[derive(Clone, Copy, Default)]
pub struct PortNames<'a> {
    number_of: Option<NumberOf<'a>>,
    name_of: Option<NameOf<'a>>,
}

impl<'a> PortNames<'a> {
    /// Numbers only.
    pub const NONE: PortNames<'static> = PortNames { number_of: None, name_of: None };

    /// Names by these functions. A name must not contain a delimiter (`,`, a parenthesis or white space) nor begin with a
    /// digit, or else it cannot be read again.
    pub fn new(number_of: NumberOf<'a>, name_of: NameOf<'a>) -> Self {
        PortNames { number_of: Some(number_of), name_of: Some(name_of) }
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.number_of.and_then(|number_of| number_of(name))
    }

    fn write(&self, port: u32, out: &mut String) {
        match self.name_of.and_then(|name_of| name_of(port)) {
            Some(name) => out.push_str(&name),
            None => out.push_str(&port.to_string()),
        }
    }
}

/// Identity of a flow, 16 bytes as `ovs_u128` has them in memory.
pub type Ufid = [u8; 16];

/// A flow as a line of text has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowText {
    /// What is in front: `ufid:…`.
    pub ufid: Option<Ufid>,
    /// What is matched.
    pub key: FlowKey,
    /// The bits of it that are.
    pub mask: FlowMask,
    /// What is done.
    pub actions: Actions,
}

/// Writes what a flow matches.
pub fn format_key(key: &FlowKey, mask: &FlowMask, names: &PortNames<'_>) -> String {
    let mut out = String::new();
    key::write(key, mask, names, &mut out);
    out
}

/// Reads what a flow matches; an attribute that is absent is not matched, except that a packet is an Ethernet one without a
/// VLAN tag and a `recirc_id` of 0 unless the text says otherwise.
pub fn parse_key(text: &str, names: &PortNames<'_>) -> Result<(FlowKey, FlowMask), TextError> {
    let mut scan = Scan::new(text, names)?;
    scan.ufid()?;
    let flow = key::read(&mut scan)?;
    scan.end()?;
    Ok(flow)
}

/// Writes a list of actions.
pub fn format_actions(actions: &Actions, names: &PortNames<'_>) -> String {
    let mut out = String::new();
    action::write(actions, names, &mut out);
    out
}

/// Reads a list of actions.
pub fn parse_actions(text: &str, names: &PortNames<'_>) -> Result<Actions, TextError> {
    let mut scan = Scan::new(text, names)?;
    let actions = action::read(&mut scan)?;
    scan.end()?;
    Ok(actions)
}

/// Writes a whole flow: `KEY, actions:ACTIONS`.
pub fn format_flow(key: &FlowKey, mask: &FlowMask, actions: &Actions, names: &PortNames<'_>) -> String {
    let mut out = format_key(key, mask, names);
    out.push_str(", actions:");
    action::write(actions, names, &mut out);
    out
}

/// Reads a flow: `KEY, actions:ACTIONS`, `KEY actions=ACTIONS` or `KEY ACTIONS`, perhaps with `ufid:…` in front and with the
/// statistics that `dump-flows` puts between.
pub fn parse_flow_line(text: &str, names: &PortNames<'_>) -> Result<(FlowKey, FlowMask, Actions), TextError> {
    parse_flow(text, names).map(|flow| (flow.key, flow.mask, flow.actions))
}

/// As [`parse_flow_line`], and keeps the UFID.
pub fn parse_flow(text: &str, names: &PortNames<'_>) -> Result<FlowText, TextError> {
    let mut scan = Scan::new(text, names)?;
    let ufid = scan.ufid()?;
    let (key, mask) = key::read(&mut scan)?;
    scan.statistics();
    if !scan.eat("actions:") {
        scan.eat("actions=");
    }
    let actions = action::read(&mut scan)?;
    scan.end()?;
    Ok(FlowText { ufid, key, mask, actions })
}

/// Reads a file of flows, one a line, each with its line number; empty lines and what follows a `#` are comments.
pub fn parse_flow_file(text: &str, names: &PortNames<'_>) -> Result<Vec<(usize, FlowText)>, TextError> {
    let mut flows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        if !line.trim().is_empty() {
            let flow = parse_flow(line, names).map_err(|error| TextError { line: Some(i + 1), ..error })?;
            flows.push((i + 1, flow));
        }
    }
    Ok(flows)
}

/// Writes a UFID as Open vSwitch does: `ufid:` and a UUID.
pub fn format_ufid(ufid: &Ufid) -> String {
    let [a, b, c, d] = scan::ufid_parts(ufid);
    format!("ufid:{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}", b >> 16, b & 0xffff, c >> 16, c & 0xffff)
}
