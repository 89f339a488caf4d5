//! Datagrams that nobody meant: noise, recorded ones again, cut, bent and mixed, at a player and at the server, from a stranger and under
//! the addresses of those who talk to them. Counted, dropped, no panic, no answer beyond the bounds; and those who talk go on.

use std::net::SocketAddr;

use lanline::codes::SendMode;
use lanline::engine::SocketName;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Captured, HostId, Link, OwnedEvent, with_seeds};
use lanline::peer::Node;

use super::ms;

/// QUIC answers an address that it has not validated with at most three times what came from there (RFC 9000, section 8.1).
const MOST_ANSWERED: u64 = 3;

/// A small generator: tests need no better one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Everything that two players and their server say to each other while they meet and talk.
fn recorded(seed: u64) -> (Scenario, Vec<Captured>) {
    let mut scenario = Scenario::builder(seed).nodes(3, RouterKind::Open).build();
    scenario.lab.capture();
    scenario.connect_all();
    scenario.open_nat(0, 1).unwrap();
    scenario.connect_pair(0, 1);
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    for mode in SendMode::ALL {
        scenario.lab.send(sender, peer, 0, *mode, &[1; 5_000]).unwrap();
        scenario.lab.run_for(ms(100));
    }
    scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
    let captured = scenario.lab.take_captured();
    assert!(captured.len() > 50, "{}", captured.len());
    (scenario, captured)
}

/// A datagram made of recorded ones.
fn bent(random: &mut Random, captured: &[Captured]) -> Vec<u8> {
    let mut bytes = captured[random.below(captured.len())].contents.to_vec();
    match random.below(6) {
        // As it was.
        0 => {}
        1 => bytes.truncate(random.below(bytes.len())),
        2 => {
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        // The head of one and the tail of another.
        3 => {
            let other = &captured[random.below(captured.len())].contents;
            bytes.truncate(random.below(bytes.len()));
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        // The first bytes decide who looks at it.
        4 => {
            for byte in bytes.iter_mut().take(1 + random.below(24)) {
                *byte = random.next() as u8;
            }
        }
        _ => {
            bytes.resize(random.below(1_500), 0);
            for byte in &mut bytes {
                *byte = random.next() as u8;
            }
        }
    }
    bytes
}

fn still_talk(scenario: &mut Scenario) {
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    scenario.take_messages(1);
    scenario
        .lab
        .send(sender, peer, 0, SendMode::Reliable, b"still here")
        .unwrap();
    scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
    // The server introduces, and who comes honestly is let in.
    scenario.connect_pair(2, 0);
    for node in scenario.nodes.clone() {
        for recorded in scenario.lab.take_events(node) {
            let unasked = matches!(
                recorded.event,
                OwnedEvent::ServerLost { .. } | OwnedEvent::Disconnected { .. } | OwnedEvent::Dropped { .. }
            );
            assert!(!unasked, "{recorded:?}");
        }
    }
}

fn stranger(scenario: &mut Scenario) -> HostId {
    let internet = scenario.lab.internet();
    let host = scenario.lab.add_host("stranger", internet, Link::internet(ms(5)));
    let bound = SocketAddr::from(([0, 0, 0, 0], 666));
    scenario.lab.open_socket(host, SocketName::Udp4, bound);
    scenario.lab.start_raw(host);
    host
}

/// Datagrams that a connected player has dropped.
fn dropped(scenario: &mut Scenario, player: usize) -> u64 {
    let node = scenario.nodes[player];
    let view = scenario
        .lab
        .with_engine(node, |node: &mut Node, now| node.take_view(now));
    view.expect("figures are older than a moment").dropped_datagrams
}

#[test]
fn what_a_stranger_throws_at_players_and_servers_is_hardly_answered() {
    with_seeds(0..4, |seed| {
        let (mut scenario, captured) = recorded(seed);
        let host = stranger(&mut scenario);
        let player = scenario.lab.socket_address(scenario.nodes[0], SocketName::Udp4);
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let dropped_before = dropped(&mut scenario, 0);
        for target in [player, scenario.server_address] {
            let before = scenario.lab.counters(host);
            for _ in 0..1_500 {
                let bytes = bent(&mut random, &captured);
                scenario.lab.send_raw(host, SocketName::Udp4, target, &bytes);
                scenario.lab.run_for(ms(1));
            }
            scenario.lab.run_for(ms(20_000));
            let after = scenario.lab.counters(host);
            let (sent, received) = (
                after.bytes_sent - before.bytes_sent,
                after.bytes_received - before.bytes_received,
            );
            assert!(
                received <= MOST_ANSWERED * sent,
                "seed {seed}, {target}: {received} bytes for {sent}"
            );
            assert!(
                after.received - before.received < 1_500,
                "seed {seed}, {target}: {} answers",
                after.received - before.received
            );
        }
        let counted = dropped(&mut scenario, 0) - dropped_before;
        // What looks like the beginning of a connection is counted where that ends: not at all if it is whole.
        assert!((700..=1_500).contains(&counted), "seed {seed}: {counted} counted");
        still_talk(&mut scenario);
    });
}

#[test]
fn what_comes_under_a_friends_address_breaks_nothing() {
    with_seeds(0..4, |seed| {
        let (mut scenario, captured) = recorded(seed);
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for host in [scenario.nodes[0], scenario.nodes[1], scenario.server] {
            let friends: Vec<SocketAddr> = captured
                .iter()
                .filter(|one| one.host == host)
                .map(|one| one.source)
                .collect();
            assert!(!friends.is_empty());
            let before = scenario.lab.counters(host);
            let mut injected = 0;
            for _ in 0..1_500 {
                let bytes = bent(&mut random, &captured);
                let source = friends[random.below(friends.len())];
                injected += bytes.len() as u64;
                scenario.lab.inject(host, SocketName::Udp4, source, &bytes);
                scenario.lab.run_for(ms(1));
            }
            scenario.lab.run_for(ms(20_000));
            let sent = scenario.lab.counters(host).bytes_sent - before.bytes_sent;
            assert!(
                sent <= MOST_ANSWERED * injected,
                "seed {seed}: {sent} bytes for {injected}"
            );
        }
        still_talk(&mut scenario);
    });
}
