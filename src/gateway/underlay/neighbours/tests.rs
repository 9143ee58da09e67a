use super::*;
use proptest::prelude::*;

const KEY: NeighbourKey = (1, IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A cache and what it said.
struct Scene {
    cache: Neighbours<Vec<u8>>,
    said: Vec<Event<Vec<u8>>>,
    now: Nanos,
}

impl Scene {
    fn new(config: NeighbourConfig) -> Scene {
        Scene { cache: Neighbours::new(config), said: Vec::new(), now: Nanos(5) }
    }

    fn resolve(&mut self, key: NeighbourKey, waiting: &[u8]) -> Option<[u8; 6]> {
        let waiting = (!waiting.is_empty()).then(|| waiting.to_vec());
        self.cache.resolve(key, self.now, waiting, &mut |event| self.said.push(event))
    }

    fn heard(&mut self, mac: [u8; 6], how: Heard) {
        self.cache.heard(KEY, mac, how, self.now, &mut |event| self.said.push(event));
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + ms * 1_000_000;
        self.cache.tick(self.now, 1000, &mut |event| self.said.push(event));
    }

    fn said(&mut self) -> Vec<Event<Vec<u8>>> {
        core::mem::take(&mut self.said)
    }

    fn state(&self) -> Option<NeighbourState> {
        self.cache.get(KEY).map(|info| info.state)
    }
}

fn all() -> Event<Vec<u8>> {
    Event::Solicit { key: KEY, mac: None }
}

fn one(mac: [u8; 6]) -> Event<Vec<u8>> {
    Event::Solicit { key: KEY, mac: Some(mac) }
}

const ANSWER: Heard = Heard::Answer { overriding: true };

#[test]
fn packets_wait_for_the_answer_and_go_in_order() {
    let mut scene = Scene::new(NeighbourConfig::default());
    assert_eq!(scene.resolve(KEY, b"a"), None);
    assert_eq!(scene.resolve(KEY, b"b"), None);
    assert_eq!(scene.said(), [all()]);
    scene.heard(MAC, ANSWER);
    assert_eq!(scene.said(), [Event::Known { key: KEY, mac: MAC, waiting: vec![b"a".to_vec(), b"b".to_vec()] }]);
    assert_eq!((scene.resolve(KEY, b"c"), scene.state()), (Some(MAC), Some(NeighbourState::Reachable)));
    assert!(scene.said().is_empty());
}

#[test]
fn who_does_not_answer_is_asked_three_times_and_given_up_for_a_while() {
    let mut scene = Scene::new(NeighbourConfig::default());
    scene.resolve(KEY, b"a");
    scene.pass(1000);
    scene.pass(1000);
    assert_eq!(scene.said(), [all(), all(), all()]);
    scene.pass(1000);
    assert_eq!(scene.said(), [Event::Lost { key: KEY, waiting: vec![b"a".to_vec()] }]);
    assert_eq!(scene.state(), Some(NeighbourState::Failed));
    assert_eq!(scene.resolve(KEY, b"b"), None);
    assert!(scene.said().is_empty());
    assert_eq!(scene.cache.stats.overflowed, 1);
    scene.pass(3000);
    scene.resolve(KEY, b"c");
    assert_eq!(scene.said(), [all()]);
}

/// The ms after the first request at which others are sent, looked for every `step` ms, and the one at which the neighbour is given up. A packet
/// begins to wait in ms `wanted`, if it is given.
fn requests(config: NeighbourConfig, step: u64, wanted: Option<u64>) -> (Vec<u64>, u64) {
    let mut scene = Scene::new(config);
    scene.resolve(KEY, if wanted == Some(0) { b"a" } else { &[] });
    assert_eq!(scene.said(), [all()]);
    let mut sent = Vec::new();
    for ms in (step..).step_by(step as usize) {
        scene.pass(step);
        if wanted == Some(ms) {
            scene.resolve(KEY, b"a");
        }
        match &scene.said()[..] {
            [] => {}
            [Event::Solicit { key: KEY, mac: None }] => sent.push(ms),
            [Event::Lost { .. }] => {
                assert_eq!(scene.cache.stats.solicited, 1 + sent.len() as u64);
                return (sent, ms);
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

#[test]
fn a_first_request_that_is_lost_is_repeated_soon_for_who_waits_and_the_others_come_when_they_would_have() {
    let default = NeighbourConfig::default;
    assert_eq!(requests(default(), 1, Some(0)), (vec![50, 150, 350, 1000, 2000], 3000));
    assert_eq!(requests(default(), 1, None), (vec![1000, 2000], 3000));
    // Who looks less often sends less.
    assert_eq!(requests(default(), 100, Some(0)), (vec![100, 200, 400, 1000, 2000], 3000));
    assert_eq!(requests(default(), 1000, Some(0)), (vec![1000, 2000], 3000));
    // A packet that comes later does not wait for the next one.
    assert_eq!(requests(default(), 1, Some(20)), (vec![70, 170, 370, 1000, 2000], 3000));
    assert_eq!(requests(default(), 1, Some(500)), (vec![500, 550, 650, 850, 1000, 2000], 3000));
    assert_eq!(requests(default(), 1, Some(960)), (vec![1000, 1010, 1110, 1310, 2000], 3000));
    assert_eq!(requests(default(), 1, Some(2700)), (vec![1000, 2000, 2700, 2750, 2850], 3000));
    // None is early that would be late.
    let quick = NeighbourConfig { retransmit_ns: 100_000_000, ..default() };
    assert_eq!(requests(quick, 1, Some(0)), (vec![50, 100, 150, 200], 300));
}

#[test]
fn only_the_question_to_all_is_repeated_early() {
    let mut scene = Scene::new(NeighbourConfig::default());
    scene.resolve(KEY, &[]);
    scene.heard(MAC, ANSWER);
    scene.pass(30_000);
    scene.resolve(KEY, &[]);
    scene.said();
    for _ in 0..5_999 {
        scene.pass(1);
    }
    assert_eq!(scene.said(), [one(MAC)]);
    scene.pass(1);
    assert_eq!(scene.said(), [one(MAC)]);
}

#[test]
fn who_did_not_answer_is_asked_anew_when_the_link_comes_up() {
    let mut scene = Scene::new(NeighbourConfig::default());
    let other = (2, KEY.1);
    scene.resolve(other, &[]);
    scene.resolve(KEY, b"a");
    (0..3).for_each(|_| scene.pass(1000));
    assert_eq!(scene.state(), Some(NeighbourState::Failed));
    scene.said();
    let now = scene.now;
    scene.cache.ask_again(1, now, &mut |event| scene.said.push(event));
    assert_eq!((scene.said(), scene.state()), (vec![all()], Some(NeighbourState::Incomplete)));
    assert_eq!(scene.cache.get(other).unwrap().state, NeighbourState::Failed);
    // Packets wait again, and it is given up no sooner than any other.
    scene.resolve(KEY, b"b");
    scene.pass(50);
    assert_eq!(scene.said(), [all()]);
    (0..2).for_each(|_| scene.pass(1000));
    assert_eq!(scene.said(), [all(), all()]);
    scene.heard(MAC, ANSWER);
    assert_eq!(scene.said(), [Event::Known { key: KEY, mac: MAC, waiting: vec![b"b".to_vec()] }]);
    // Of whom something is known nobody asks.
    scene.cache.ask_again(1, now, &mut |event| scene.said.push(event));
    assert!(scene.said().is_empty());
}

#[test]
fn a_neighbour_that_is_used_is_probed_where_it_was() {
    let mut scene = Scene::new(NeighbourConfig::default());
    scene.resolve(KEY, &[]);
    scene.heard(MAC, ANSWER);
    scene.said();
    scene.pass(30_000);
    assert_eq!(scene.state(), Some(NeighbourState::Stale));
    // Nobody uses it, nobody asks.
    scene.pass(600_000);
    assert!(scene.said().is_empty());
    assert_eq!(scene.resolve(KEY, &[]), Some(MAC));
    scene.pass(5_000);
    assert_eq!((scene.said(), scene.resolve(KEY, &[])), (vec![one(MAC)], Some(MAC)));
    scene.pass(1000);
    scene.pass(1000);
    scene.pass(1000);
    assert_eq!(scene.said(), [one(MAC), one(MAC), Event::Lost { key: KEY, waiting: vec![] }]);
}

#[test]
fn traffic_from_it_confirms_it() {
    let mut scene = Scene::new(NeighbourConfig::default());
    scene.resolve(KEY, &[]);
    scene.heard(MAC, ANSWER);
    scene.said();
    scene.pass(30_000);
    scene.resolve(KEY, &[]);
    scene.cache.confirm(KEY, scene.now);
    scene.pass(5_000);
    assert!(scene.said().is_empty());
    assert_eq!(scene.state(), Some(NeighbourState::Reachable));
}

#[test]
fn announcements_change_what_is_known_and_add_nothing() {
    let mut scene = Scene::new(NeighbourConfig::default());
    scene.heard(MAC, Heard::Announcement);
    assert_eq!(scene.state(), None);
    // Who asks us is remembered, but not believed to be reachable.
    scene.heard(MAC, Heard::Question);
    assert_eq!(scene.state(), Some(NeighbourState::Stale));
    scene.heard(OTHER, Heard::Announcement);
    assert_eq!(scene.said().last(), Some(&Event::Known { key: KEY, mac: OTHER, waiting: vec![] }));
    // A second host that answers without override does not take the address over.
    scene.resolve(KEY, &[]);
    scene.heard(MAC, Heard::Answer { overriding: false });
    assert_eq!(scene.cache.get(KEY).unwrap().mac, Some(OTHER));
    for mac in [[1, 0, 0, 0, 0, 1], [0; 6], [0xff; 6]] {
        scene.heard(mac, ANSWER);
        assert_eq!(scene.cache.get(KEY).unwrap().mac, Some(OTHER));
    }
}

#[test]
fn a_configured_address_stays() {
    let mut scene = Scene::new(NeighbourConfig::default());
    scene.resolve(KEY, b"a");
    scene.said();
    let now = scene.now;
    scene.cache.set(KEY, MAC, now, &mut |event| scene.said.push(event));
    assert_eq!(scene.said(), [Event::Known { key: KEY, mac: MAC, waiting: vec![b"a".to_vec()] }]);
    scene.heard(OTHER, ANSWER);
    scene.pass(10_000_000);
    assert_eq!((scene.resolve(KEY, &[]), scene.said()), (Some(MAC), vec![]));
}

#[test]
fn entries_and_waiting_packets_are_bounded() {
    let config = NeighbourConfig { entries_max: 3, queue_max: 2, queue_bytes_max: 10, ..NeighbourConfig::default() };
    let mut scene = Scene::new(config);
    for last in 1..=3 {
        scene.now = scene.now + 1;
        scene.resolve((1, IpAddr::from([10, 0, 0, last])), &[]);
    }
    let two = (1, IpAddr::from([10, 0, 0, 2]));
    for byte in 0..3 {
        scene.now = scene.now + 1;
        scene.resolve(two, &[byte; 4]);
    }
    // The first gave way; more than ten bytes never wait.
    assert_eq!((scene.cache.get(two).unwrap().waiting, scene.cache.stats.overflowed), (2, 1));
    scene.resolve((1, IpAddr::from([10, 0, 0, 3])), &[7; 4]);
    assert_eq!(scene.cache.stats.overflowed, 2);
    scene.resolve((1, IpAddr::from([10, 0, 0, 4])), &[]);
    let left: std::collections::BTreeSet<_> = scene.cache.iter().map(|info| info.key.1.to_string()).collect();
    assert_eq!(left, ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(String::from).into());
    assert_eq!(scene.cache.stats.evicted, 1);
}

proptest! {
    /// Whatever happens in whatever order: bounds hold, books are balanced, and nobody is asked more often than seven times before it is given up.
    #[test]
    fn bounds_hold_whatever_happens(steps in proptest::collection::vec((0u8..7, 0u8..6, any::<u16>()), 0..200)) {
        let config = NeighbourConfig { entries_max: 4, queue_max: 3, queue_bytes_max: 64, ..NeighbourConfig::default() };
        let mut cache: Neighbours<Vec<u8>> = Neighbours::new(config);
        let mut now = Nanos(0);
        let (mut given, mut back) = (0u64, 0u64);
        let mut asked: AHashMap<NeighbourKey, u32> = AHashMap::new();
        for (what, who, much) in steps {
            let key = (u32::from(who & 1), IpAddr::from([10, 0, 0, who]));
            let mut events = Vec::new();
            let mut then = |event| events.push(event);
            match what {
                0..3 => {
                    let known = cache.get(key).is_some_and(|info| info.mac.is_some());
                    given += u64::from(!known);
                    cache.resolve(key, now, Some(vec![1; usize::from(much % 20)]), &mut then);
                }
                3 => cache.heard(key, [2, 0, 0, 0, 0, much as u8], Heard::Answer { overriding: much & 256 != 0 }, now, &mut then),
                4 => cache.heard(key, [2, 0, 0, 0, 0, much as u8], Heard::Question, now, &mut then),
                5 => cache.confirm(key, now),
                _ => {
                    now = now + u64::from(much) * 1_000_000;
                    cache.tick(now, 100, &mut then);
                }
            }
            // It begins anew for whoever was heard of.
            if matches!(what, 3 | 4) || what == 5 && cache.get(key).is_some_and(|info| info.mac.is_some()) {
                asked.remove(&key);
            }
            for event in events {
                match event {
                    Event::Solicit { key, .. } => {
                        let times = asked.entry(key).or_default();
                        *times += 1;
                        prop_assert!(*times <= 7);
                    }
                    Event::Known { key, waiting, .. } | Event::Lost { key, waiting } => {
                        asked.remove(&key);
                        back += waiting.len() as u64;
                    }
                }
            }
            let waiting: usize = cache.iter().map(|info| info.waiting).sum();
            prop_assert!(cache.entries.len() <= 4 && cache.iter().all(|info| info.waiting <= 3));
            prop_assert!(cache.bytes <= 64);
            prop_assert_eq!(given, back + waiting as u64 + cache.stats.overflowed);
            prop_assert_eq!(cache.due.len(), cache.entries.values().filter(|entry| entry.due.is_some()).count());
            prop_assert_eq!(cache.used.len(), cache.entries.len());
        }
    }
}
