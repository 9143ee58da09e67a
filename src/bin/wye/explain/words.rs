//! What was seen of a packet, in words.

use wye::datapath::explain::{Note, Pass, Seen, Taken};
use wye::datapath::observe::Tier;
use wye::flow::FlowKey;
use wye::flow::action::Action;
use wye::flow::netlink::exact_mask;
use wye::flow::text::{PortNames, format_actions, format_key};
use wye::packet::Fate;

use super::Step;

/// What followed from a lookup.
pub(super) fn steps(pass: &Pass) -> Vec<Step> {
    let mut out = Vec::new();
    tell(&pass.steps, 0, &mut out);
    // That a miss is a drop is said by the fate.
    if pass.tier != Tier::Miss {
        tell_ends(&pass.notes, 0, &mut out);
    }
    out
}

/// The number of a copy; the packet itself has none.
pub(super) fn copy(who: usize) -> Option<usize> {
    (who != 0).then_some(who)
}

fn name(who: usize) -> String {
    copy(who).map_or_else(|| "the packet".to_owned(), |copy| format!("copy {copy}"))
}

fn tell(steps: &[Taken], depth: usize, out: &mut Vec<Step>) {
    for step in steps {
        let action = match &step.action {
            Action::Clone(_) => "clone".to_owned(),
            Action::Sample { .. } => "sample".to_owned(),
            Action::CheckPktLen { .. } => "check_pkt_len".to_owned(),
            action => format_actions(&vec![action.clone()], &PortNames::NONE),
        };
        out.push(Step { depth, copy: copy(step.who), action, effect: effect(step) });
        tell(&step.steps, depth + 1, out);
        let has_list = matches!(step.action, Action::Clone(_) | Action::Sample { .. } | Action::CheckPktLen { .. });
        if has_list || !step.steps.is_empty() {
            tell_ends(&step.notes, depth + 1, out);
        }
    }
}

/// Ends of lists that did not come from an action.
fn tell_ends(notes: &[Note], depth: usize, out: &mut Vec<Step>) {
    for note in notes {
        if let Note::Ended { who, fate } = *note {
            out.push(Step { depth, copy: copy(who), action: "end".to_owned(), effect: end(who, fate) });
        }
    }
}

fn end(who: usize, fate: Fate) -> String {
    let who = name(who);
    match fate {
        Fate::Dropped(reason) => format!("drops {who}: {}", reason.name()),
        Fate::Transmitted => format!("ends {who}, copies of which went on"),
        Fate::Upcall => format!("queues {who} for the upcall handler"),
        Fate::Parked => format!("parks {who}"),
        Fate::Delivered => format!("delivers {who} to the caller"),
        Fate::Undecided => format!("leaves {who} undecided"),
    }
}

/// What an action did.
fn effect(step: &Taken) -> String {
    let len = step.before.bytes.len();
    let mut parts = Vec::new();
    // On whom the actions inside are carried out.
    let on = step.notes.iter().find_map(|note| match note {
        Note::Copied(copy) => Some(name(*copy)),
        Note::NotCopied => Some("no copy, for want of a buffer".to_owned()),
        _ => None,
    });
    match &step.action {
        Action::Clone(_) => parts.push(format!("on {}:", on.unwrap_or_else(|| name(step.who)))),
        Action::Sample { probability, .. } => {
            let percent = f64::from(*probability) * 100.0 / f64::from(u32::MAX);
            parts.push(match step.notes.contains(&Note::Chose(true)) {
                true => format!("chosen, at {percent:.3} %: on {}:", on.unwrap_or_else(|| name(step.who))),
                false => format!("not chosen, at {percent:.3} %"),
            });
        }
        Action::CheckPktLen { len: limit, .. } => {
            let what = if step.notes.contains(&Note::Chose(true)) { "more than" } else { "at most" };
            let on = on.map_or(String::new(), |on| format!(" on {on}:"));
            parts.push(format!("{len} bytes are {what} {limit}:{on}"));
        }
        Action::Trunc(_) => match &step.after {
            Some(after) if after.cut == 0 => parts.push(format!("cuts nothing off {len} bytes")),
            Some(after) => parts.push(format!("what is sent next is {} of {len} bytes", len - after.cut)),
            None => {}
        },
        Action::Meter(_) if step.after.is_some() => parts.push(format!("lets {} pass", name(step.who))),
        Action::Recirc(id) => {
            let who = on.unwrap_or_else(|| name(step.who));
            if !step.notes.iter().any(|note| matches!(note, Note::Ended { .. } | Note::NotCopied)) {
                parts.push(format!("has {who} looked up again with recirc_id {id:#x}"));
            }
        }
        Action::TunnelPop(port) => {
            let who = on.unwrap_or_else(|| name(step.who));
            if !step.notes.iter().any(|note| matches!(note, Note::Ended { .. } | Note::NotCopied)) {
                parts.push(format!("takes {who} out of the tunnel, and has it looked up again as one of port {port}"));
            }
        }
        Action::Encap { .. } | Action::Output(_) | Action::LbOutput(_) | Action::Userspace(_) | Action::Drop(_) => {}
        _ => parts.extend(step.after.as_ref().map(|after| difference(&step.before, after))),
    }
    let has_list = matches!(step.action, Action::Clone(_) | Action::Sample { .. } | Action::CheckPktLen { .. });
    let notes = step.notes.iter().filter(|note| !has_list || **note == Note::Moved);
    parts.extend(notes.filter_map(|note| in_words(step, note)));
    parts.join("; ")
}

/// A note on an action without a list of its own.
fn in_words(step: &Taken, note: &Note) -> Option<String> {
    let len = step.before.bytes.len();
    let bytes = |sent: usize| if sent < len { format!("{sent} of {len} bytes") } else { format!("{sent} bytes") };
    Some(match *note {
        Note::Chose(_) | Note::Copied(_) => return None,
        Note::NotCopied => "finds no buffer for a copy".to_owned(),
        Note::Moved => "needs a buffer with more headroom".to_owned(),
        Note::Member { hash, port: Some(port) } => format!("hash {hash:#x} chooses port {port}"),
        Note::Member { hash, port: None } => format!("there is no port for hash {hash:#x}"),
        Note::Handed(sent) => format!("hands up {}", bytes(sent)),
        Note::Queued { who, port, len } if who == step.who => format!("sends {} to port {port}", bytes(len)),
        Note::Queued { who, port, len } => format!("sends {}, {}, to port {port}", name(who), bytes(len)),
        // What the handler answered is carried out, and the end stands below.
        Note::Ended { .. } if !step.steps.is_empty() => return None,
        Note::Ended { who, fate } => end(who, fate),
    })
}

/// What an action changed, attribute by attribute as a lookup would see them.
fn difference(before: &Seen, after: &Seen) -> String {
    let mut changes = Vec::new();
    if before.bytes.len() != after.bytes.len() {
        changes.push(format!("{} bytes become {}", before.bytes.len(), after.bytes.len()));
    }
    let texts = [before, after].map(|seen| {
        let key = seen.key.unwrap_or_default();
        attributes(&format_key(&key, &exact_mask(&key), &PortNames::NONE))
    });
    for attribute in texts[1].iter().filter(|a| !texts[0].contains(a)) {
        let name = attribute.split('(').next().unwrap_or_default();
        match texts[0].iter().find(|a| a.split('(').next() == Some(name)) {
            Some(old) => changes.push(format!("{name}: {}", fields_changed(old, attribute))),
            None => changes.push(format!("now has {attribute}")),
        }
    }
    if changes.is_empty() {
        let same = before.bytes == after.bytes;
        changes.push(if same { "changes nothing" } else { "changes bytes that no key has" }.to_owned());
    }
    changes.join("; ")
}

/// `ttl=64 becomes ttl=63`: those fields of an attribute that differ, or all of it.
fn fields_changed(old: &str, new: &str) -> String {
    let fields = |text: &str| {
        let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        attributes(inner.unwrap_or(text))
    };
    let (old, new) = (fields(old), fields(new));
    if old.len() != new.len() {
        return format!("{} becomes {}", old.join(","), new.join(","));
    }
    let changed: Vec<_> = old.iter().zip(&new).filter(|(old, new)| old != new).collect();
    let side = |pick: fn(&(&String, &String)) -> String| changed.iter().map(pick).collect::<Vec<_>>().join(",");
    format!("{} becomes {}", side(|pair| pair.0.clone()), side(|pair| pair.1.clone()))
}

/// What a packet's key says, without metadata that is not there.
pub(super) fn key(key: &FlowKey) -> String {
    let text = format_key(key, &exact_mask(key), &PortNames::NONE);
    let absent = [
        "recirc_id(0)",
        "dp_hash(0)",
        "skb_priority(0)",
        "skb_mark(0)",
        "ct_state(-new-est-rel-rpl-inv-trk-snat-dnat)",
        "ct_zone(0)",
        "ct_mark(0)",
        "ct_label(0)",
        "packet_type(ns=0,id=0)",
    ];
    let attributes = attributes(&text).into_iter().filter(|attribute| !absent.contains(&attribute.as_str()));
    attributes.collect::<Vec<_>>().join(",")
}

/// The attributes of a key in text: split at commas outside of parentheses.
fn attributes(text: &str) -> Vec<String> {
    let (mut depth, mut out) = (0usize, vec![String::new()]);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}
