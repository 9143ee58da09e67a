//! What is told is what happened.

use proptest::prelude::*;

use super::super::{Config, Datapath, FlowPut};
use super::*;
use crate::action::Program;
use crate::flow::arbitrary;
use crate::flow::text::{PortNames, format_actions, parse_flow_line};
use crate::meter::{Band, MeterConfig, MeterUnit};
use crate::packet::DropReason::{Explicit, Meter, NoOutput, RxInvalid, TtlExpired};
use crate::port::PortEntry;
use crate::testing::Frame;

const START: Nanos = Nanos(1_000_000_000);

/// A datapath with ports 1 to 4, the flows of `text`, meter 1 that passes nothing and bond 7 over port 3.
fn datapath(text: &str) -> Datapath {
    let config = Config { flows_max: 100, pool_buffers: 64, seed: Some(3), ..Config::default() };
    let datapath = Datapath::new(config).unwrap();
    for number in 1..=4 {
        let name = format!("p{number}").into();
        datapath.port_add(PortEntry { number, name, packet_len_max: 1518, up: true }).unwrap();
    }
    let meter = MeterConfig { unit: MeterUnit::Kbps, bands: vec![Band { rate: 0, burst: 0 }] };
    datapath.meter_set(1, meter, START).unwrap();
    datapath.bond_set(7, [3; 256]);
    for line in text.lines() {
        let (key, mask, actions) = parse_flow_line(line, &PortNames::NONE).unwrap();
        datapath.flow_put(FlowPut::create(&key, &mask, actions)).unwrap();
    }
    datapath
}

fn packet(worker: &mut Worker, bytes: &[u8]) -> Packet {
    let mut packet = worker.pool().alloc(bytes.len()).unwrap();
    packet.data_mut().copy_from_slice(bytes);
    packet.in_port = 1;
    packet
}

/// A 60-byte UDP packet against the flows of `text`; every buffer has to come back.
fn explained(text: &str) -> Explanation {
    let datapath = datapath(text);
    let mut worker = datapath.worker().unwrap();
    let mut packet = packet(&mut worker, &Frame::udp4().payload(&[0; 18]).build());
    let explanation = explain(&mut worker, &mut packet, START).unwrap();
    drop(worker);
    while let Some(mut upcall) = datapath.upcall_pop() {
        datapath.free(&mut upcall.packet);
    }
    assert_eq!(datapath.pool().available(), datapath.pool().capacity());
    explanation
}

fn words(action: &Action) -> String {
    format_actions(&vec![action.clone()], &PortNames::NONE)
}

/// Steps as lines: depth, who, action, notes, and whether the list goes on.
fn lines(steps: &[Taken], depth: usize, out: &mut Vec<String>) {
    for step in steps {
        let text = words(&step.action);
        let goes_on = if step.after.is_some() { "" } else { " /" };
        out.push(format!("{depth} {} {text}{goes_on} {:?}", step.who, step.notes));
        lines(&step.steps, depth + 1, out);
    }
}

#[test]
fn each_instruction_is_told_with_the_packet_before_and_after_it() {
    let text = "in_port(1),eth_type(0x0800) push_vlan(vid=5,pcp=0),recirc(0x9)\n\
                recirc_id(0x9),in_port(1),eth_type(0x8100),vlan(vid=5),encap(eth_type(0x0800)) pop_vlan,2";
    let Explanation { passes, sent, fate, ends } = explained(text);
    assert_eq!((passes.len(), fate, &ends[..]), (2, Fate::Transmitted, &[End::Sent(2)][..]));
    let [push, recirc] = &passes[0].steps[..] else { panic!("{passes:?}") };
    let tagged = push.after.as_ref().unwrap();
    assert_eq!((push.before.bytes.len(), tagged.bytes.len(), &tagged.bytes[12..16]), (60, 64, &[0x81, 0, 0, 5][..]));
    assert_eq!((&push.before.key, push.before.key == tagged.key), (&Some(passes[0].key), false));
    assert_eq!((&recirc.before, &recirc.after), (tagged, &None));
    let [pop, output] = &passes[1].steps[..] else { panic!("{passes:?}") };
    assert_eq!((&pop.before.bytes, pop.before.key), (&tagged.bytes, Some(passes[1].key)));
    assert_eq!(pop.after.as_ref().unwrap().bytes, push.before.bytes);
    assert_eq!(words(&output.action), "2");
    assert_eq!(output.notes, [Note::Queued { who: 0, port: 2, len: 60 }]);
    assert_eq!(sent, [Sent { who: 0, port: 2, bytes: push.before.bytes.clone() }]);
    assert!(passes.iter().all(|pass| pass.tier == Tier::Megaflow && pass.who == 0));
}

#[test]
fn decisions_and_copies_are_told_where_they_are_made() {
    let text = "in_port(1) clone(lb_output(7),drop(4)),sample(sample=0%,actions(4)),sample(sample=100%,actions(3)),\
                check_pkt_len(size=60,gt(4),le(recirc(0x2))),clone(drop),meter(1),2\n\
                recirc_id(0x2),in_port(1) drop(5)";
    let Explanation { passes, sent, fate, ends } = explained(text);
    let mut told = Vec::new();
    lines(&passes[0].steps, 0, &mut told);
    let member = told.remove(1);
    assert!(member.starts_with("1 1 lb_output(7) [Copied(2), Member { hash: "), "{member}");
    assert!(member.ends_with("port: Some(3) }, Queued { who: 2, port: 3, len: 60 }]"), "{member}");
    let ended = |who, reason| format!("Ended {{ who: {who}, fate: Dropped({reason:?}) }}");
    let expected = [
        "0 0 clone(lb_output(7),drop(4)) [Copied(1)]".to_owned(),
        format!("1 1 drop(4) / [{}]", ended(1, Explicit)),
        "0 0 sample(sample=0.0%,actions(4)) [Chose(false)]".to_owned(),
        "0 0 sample(sample=100.0%,actions(3)) [Chose(true), Copied(3)]".to_owned(),
        "1 3 3 / [Queued { who: 3, port: 3, len: 60 }]".to_owned(),
        "0 0 check_pkt_len(size=60,gt(4),le(recirc(0x2))) [Chose(false), Copied(4)]".to_owned(),
        "1 4 recirc(0x2) / []".to_owned(),
        format!("0 0 clone(drop) [Copied(5), {}]", ended(5, NoOutput)),
        format!("0 0 meter(1) / [{}]", ended(0, Meter)),
    ];
    assert_eq!(told, expected);
    assert_eq!((passes.len(), passes[1].who, passes[1].flow.is_some()), (2, 4, true));
    assert_eq!(passes[1].steps[0].notes, [Note::Ended { who: 4, fate: Fate::Dropped(Explicit) }]);
    assert_eq!((sent.len(), fate), (2, Fate::Dropped(Meter)));
    assert!(sent.iter().all(|sent| sent.port == 3));
    let dropped = |reason| End::Fate(Fate::Dropped(reason));
    let all = [dropped(Meter), dropped(Explicit), End::Sent(3), End::Sent(3), dropped(Explicit), dropped(NoOutput)];
    assert_eq!(ends, all);
}

#[test]
fn what_trunc_cuts_is_told_where_it_is_cut() {
    let text = "in_port(1) trunc(40),lb_output(7),trunc(20),userspace(pid=0),trunc(5),check_pkt_len(size=59,gt(drop),le(1)),2,4";
    let Explanation { passes, sent, ends, .. } = explained(text);
    let cuts: Vec<_> = passes[0].steps.iter().map(|step| (step.before.bytes.len(), step.before.cut)).collect();
    // A copy takes what was cut with it: also the one that nothing is sent of.
    assert_eq!(cuts, [(60, 0), (60, 20), (60, 0), (60, 40), (60, 0), (60, 46), (60, 0), (60, 0)]);
    let lens = passes[0].steps.iter().flat_map(|step| &step.notes).filter_map(|note| match note {
        Note::Queued { port, len, .. } => Some((*port, *len)),
        Note::Handed(len) => Some((0, *len)),
        _ => None,
    });
    assert_eq!(lens.collect::<Vec<_>>(), [(3, 40), (0, 20), (2, 60), (4, 60)]);
    let sent: Vec<_> = sent.iter().map(|sent| (sent.who, sent.port, sent.bytes.len())).collect();
    assert_eq!(sent, [(1, 3, 40), (4, 2, 60), (0, 4, 60)]);
    let dropped = |reason| End::Fate(Fate::Dropped(reason));
    assert_eq!(ends, [End::Sent(4), End::Sent(3), End::Fate(Fate::Upcall), dropped(NoOutput), End::Sent(2)]);
}

#[test]
fn actions_that_are_joined_for_speed_are_told_one_by_one() {
    let text = "in_port(1),eth_type(0x0800) dec_ttl,set(eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02)),9,2";
    let Explanation { passes, ends, .. } = explained(text);
    let told: Vec<_> = passes[0].steps.iter().map(|step| words(&step.action)).collect();
    assert_eq!(told, ["dec_ttl", "set(eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02))", "9", "2"]);
    let [ttl, eth, nowhere, _] = &passes[0].steps[..] else { panic!("{passes:?}") };
    assert_eq!((ttl.after.as_ref(), eth.after.as_ref()), (Some(&eth.before), Some(&nowhere.before)));
    assert_eq!(
        (ttl.before.bytes[22] - eth.before.bytes[22], eth.before.bytes[..12] == nowhere.before.bytes[..12]),
        (1, false)
    );
    let lost = Fate::Dropped(DropReason::InvalidPort);
    assert_eq!(nowhere.notes, [Note::Copied(1), Note::Ended { who: 1, fate: lost }]);
    assert_eq!(ends, [End::Sent(2), End::Fate(lost)]);
}

#[test]
fn a_packet_without_headroom_is_followed_into_its_new_buffer() {
    let datapath = datapath("in_port(1) push_vlan(vid=5,pcp=0),clone(push_vlan(vid=6,pcp=0),3),2");
    let mut worker = datapath.worker().unwrap();
    let bytes = Frame::udp4().payload(&[7; 1000]).build();
    let mut packet = packet(&mut worker, &bytes[..500]);
    let room = packet.headroom();
    assert!(packet.push_front(room) && packet.push_back(bytes.len() - 500 - room));
    packet.data_mut().copy_from_slice(&bytes);
    let Explanation { passes, fate, ends, .. } = explain(&mut worker, &mut packet, START).unwrap();
    assert_eq!((fate, &ends[..]), (Fate::Transmitted, &[End::Sent(2), End::Sent(3)][..]));
    let [push, clone, output] = &passes[0].steps[..] else { panic!("{passes:?}") };
    assert_eq!(push.notes, [Note::Moved]);
    assert_eq!((&push.after, &clone.after), (&Some(clone.before.clone()), &Some(output.before.clone())));
    assert_eq!((clone.steps[0].who, clone.steps[0].notes.len(), output.who), (1, 0, 0));
}

#[test]
fn the_end_is_told_with_its_reason() {
    let end = |text: &str| {
        let Explanation { passes, sent, fate, ends } = explained(text);
        assert_eq!(ends, [End::Fate(fate)]);
        assert!(sent.is_empty());
        let [pass] = &passes[..] else { panic!("{passes:?}") };
        let notes = pass.steps.last().map_or(&pass.notes, |step| &step.notes).clone();
        (notes, fate)
    };
    let dropped = |reason| {
        let fate = Fate::Dropped(reason);
        (vec![Note::Ended { who: 0, fate }], fate)
    };
    assert_eq!(end("in_port(1) drop(2)"), dropped(Explicit));
    assert_eq!(end("in_port(2) 2"), dropped(DropReason::Miss));
    assert_eq!(end("in_port(1),eth_type(0x0800) set(ipv4(ttl=1)),dec_ttl,2"), dropped(TtlExpired));
    let (notes, fate) = end("in_port(1) pop_vlan");
    assert_eq!((notes, fate), (Vec::new(), Fate::Dropped(NoOutput)));
    let Explanation { passes, .. } = explained("in_port(1) pop_vlan");
    assert_eq!(passes[0].notes, [Note::Ended { who: 0, fate }]);

    let datapath = datapath("in_port(1) 2");
    let mut worker = datapath.worker().unwrap();
    let mut runt = packet(&mut worker, &[0; 13]);
    let Explanation { passes, sent, fate, .. } = explain(&mut worker, &mut runt, START).unwrap();
    assert!(passes.is_empty() && sent.is_empty() && fate == Fate::Dropped(RxInvalid));
}

/// Without chance: each `sample` is carried out always or never. In a group of copies it draws action by action, when explained
/// packet by packet. Instead of a `tnl_push` that is refused there is a `drop`.
fn certain(actions: &[Action]) -> Vec<Action> {
    let certain = |action: &Action| match action {
        Action::Sample { probability, actions } => Action::Sample {
            probability: if *probability > u32::MAX / 2 { u32::MAX } else { 0 },
            actions: certain(actions),
        },
        Action::Clone(actions) => Action::Clone(certain(actions)),
        Action::CheckPktLen { len, if_greater, if_less_equal } => {
            Action::CheckPktLen { len: *len, if_greater: certain(if_greater), if_less_equal: certain(if_less_equal) }
        }
        Action::TunnelPush(_) if Program::compile(core::slice::from_ref(action)).is_err() => Action::Drop(0),
        action => action.clone(),
    };
    actions.iter().map(certain).collect()
}

proptest! {
    #[test]
    fn a_packet_that_is_explained_fares_as_one_that_is_not(
        first in arbitrary::actions(), second in arbitrary::actions(), ttl: u8, tag in any::<Option<u16>>(), len in 0usize..200,
    ) {
        let twin = || {
            let datapath = datapath("");
            for (id, actions) in [(0, &first), (1, &second)] {
                let (mut key, mut mask) = (FlowKey::default(), crate::flow::FlowMask::default());
                (key.base.recirc_id, mask.0.base.recirc_id) = (id.min(1), u32::from(id == 0) * u32::MAX);
                datapath.flow_put(FlowPut::create(&key, &mask, certain(actions))).unwrap();
            }
            datapath
        };
        let frame = Frame::new().eth([2; 6], [4; 6]);
        let frame = if let Some(tci) = tag { frame.vlan(tci) } else { frame };
        let bytes = frame.ipv4([10, 0, 0, 1], [10, 0, 0, 2]).ttl(ttl).udp(1, 2).payload(&vec![7; len]).build();

        let watched = twin();
        let mut worker = watched.worker().unwrap();
        let mut packet = self::packet(&mut worker, &bytes);
        let explanation = explain(&mut worker, &mut packet, START).unwrap();
        let (sent, rest): (Vec<End>, Vec<End>) = explanation.ends.iter().partition(|end| matches!(end, End::Sent(_)));
        prop_assert_eq!(sent.len(), explanation.sent.len());
        prop_assert!(!rest.contains(&End::Fate(Fate::Undecided)));
        match explanation.ends[0] {
            End::Sent(_) => prop_assert_eq!(explanation.fate, Fate::Transmitted),
            End::Fate(fate) => prop_assert_eq!(explanation.fate, fate),
        }

        let plain = twin();
        let mut worker = plain.worker().unwrap();
        let mut packet = self::packet(&mut worker, &bytes);
        let mut net = Net::default();
        worker.process(core::slice::from_mut(&mut packet), START, &mut net);

        // Which copies find no buffer any more depends on the order in which they are made, and explained ones go one by one.
        let no_buffer = DropReason::NoBuffer.index();
        prop_assume!(plain.stats().copies_dropped[no_buffer] == 0 && watched.stats().copies_dropped[no_buffer] == 0);
        prop_assert_eq!(explanation.fate, worker.fates()[0]);
        prop_assert_eq!(watched.stats(), plain.stats());
        let mut sent: Vec<_> = net.0.into_iter().flat_map(|(port, all)| all.into_iter().map(move |b| (port, b))).collect();
        let mut told: Vec<_> = explanation.sent.into_iter().map(|sent| (sent.port, sent.bytes)).collect();
        sent.sort();
        told.sort();
        prop_assert_eq!(told, sent);
    }
}
