//! Greetings that go with the handshake, and first datagrams that travel with the request for an introduction: what stands against them,
//! and what becomes of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{connection_story, ms};
use crate::codes::{Code, PathKind, SendMode};
use crate::engine::{Datagram, Engine, SocketName};
use crate::lab::scenario::{RouterKind, Scenario, node_config};
use crate::lab::{Allocation, OwnedEvent, with_seeds};
use crate::peer::Node;
use crate::peer::api::{Command, Event, RequestId};
use crate::peer::connections::Stage;
use crate::peer::paths::{Owner, Path};
use crate::transport::identity::{Identity, PublicKey};
use crate::transport::{LinkEvent, LinkKind, SyntheticAddress, Transport, TransportConfig};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::peer::{PeerControl, PeerHello};

/// Two players who can meet over a relay alone, and two who can meet directly as well.
fn kinds(seed: u64) -> RouterKind {
    match seed % 2 {
        0 => RouterKind::Symmetric(Allocation::Random),
        _ => RouterKind::Open,
    }
}

fn pair(seed: u64, kind: RouterKind) -> Scenario {
    let mut scenario = Scenario::builder(seed).nodes(2, kind).build();
    scenario.connect_all();
    scenario.lab.run_for(ms(1_000));
    scenario
}

fn connect(scenario: &mut Scenario, player: usize, other: usize) -> RequestId {
    let (peer, address) = (Some(scenario.guids[other]), None);
    scenario.request(player, |request| Command::ConnectPeer { request, peer, address })
}

/// Each can send to the other, and neither has heard of an end or of a second beginning.
fn assert_connected_once(scenario: &mut Scenario, what: &str) {
    for player in [0, 1] {
        let other = scenario.guids[1 - player];
        let sent = scenario
            .lab
            .send(scenario.nodes[player], other, 0, SendMode::ReliableOrdered, b"there");
        assert!(sent.is_ok(), "{what}: player {player}: {sent:?}");
    }
    scenario.lab.run_for(ms(2_000));
    for player in [0, 1] {
        let other = scenario.guids[1 - player];
        let mut story = connection_story(scenario, player, other);
        story.retain(|event| *event != "connected");
        assert_eq!(story, ["message"], "{what}: player {player}");
    }
}

#[test]
fn both_dial_at_once_whatever_the_second_ones_delay() {
    with_seeds(0..2, |seed| {
        for delay in (0..=260).step_by(6) {
            for first in [0, 1] {
                let mut scenario = pair(seed, kinds(seed));
                let one = connect(&mut scenario, first, 1 - first);
                scenario.lab.run_for(ms(delay));
                let begin = scenario.lab.elapsed();
                let other = connect(&mut scenario, 1 - first, first);
                let what = format!("{:?}, {first} first, the other {delay} ms later", kinds(seed));
                for (player, request) in [(first, one), (1 - first, other)] {
                    let outcome = scenario.outcome(player, request);
                    assert!(matches!(outcome, OwnedEvent::Connected { .. }), "{what}: {outcome:?}");
                }
                // Five round trips to the server: the slower of the two has an introduction and a handshake with an extra greeting.
                let took = scenario.lab.elapsed() - begin;
                assert!(took <= ms(300), "{what}: {took:?}");
                scenario.lab.run_for(ms(3_000));
                assert_connected_once(&mut scenario, &what);
            }
        }
    });
}

#[test]
fn a_dial_that_is_cancelled_on_the_way_leaves_nothing_that_keeps_the_other_side_waiting() {
    with_seeds(0..2, |seed| {
        for delay in (0..=170).step_by(10) {
            let mut scenario = pair(seed, kinds(seed));
            let request = connect(&mut scenario, 0, 1);
            scenario.lab.run_for(ms(delay));
            scenario.lab.command(scenario.nodes[0], Command::Cancel { request });
            let outcome = scenario.outcome(0, request);
            if matches!(outcome, OwnedEvent::Connected { .. }) {
                continue;
            }
            let begin = scenario.lab.elapsed();
            let request = connect(&mut scenario, 1, 0);
            let outcome = scenario.outcome(1, request);
            let what = format!("cancelled after {delay} ms");
            assert!(matches!(outcome, OwnedEvent::Connected { .. }), "{what}: {outcome:?}");
            let took = scenario.lab.elapsed() - begin;
            assert!(took <= ms(1_000), "{what}: {took:?}");
        }
    });
}

#[test]
fn a_full_player_greets_nobody_and_says_so() {
    with_seeds(0..2, |seed| {
        let mut scenario = Scenario::builder(seed)
            .nodes(3, kinds(seed))
            .configure_nodes(|number, config| config.max_peers = if number == 1 { 1 } else { 8 })
            .build();
        scenario.connect_all();
        scenario.connect_pair(2, 1);
        let request = connect(&mut scenario, 0, 1);
        let outcome = scenario.outcome(0, request);
        assert_eq!(outcome.code(), Some(Code::Full), "{outcome:?}");
        let (node, own) = (scenario.guids[1], scenario.guids[0]);
        assert!(connection_story(&mut scenario, 0, node).is_empty());
        assert!(connection_story(&mut scenario, 1, own).is_empty());
    });
}

#[test]
fn two_newcomers_at_once_do_not_share_the_last_place() {
    with_seeds(0..2, |seed| {
        let mut scenario = Scenario::builder(seed)
            .nodes(3, kinds(seed))
            .configure_nodes(|number, config| config.max_peers = if number == 1 { 1 } else { 8 })
            .build();
        scenario.connect_all();
        let requests = [0, 2].map(|player| (player, connect(&mut scenario, player, 1)));
        let outcomes = requests.map(|(player, request)| scenario.outcome(player, request));
        let connected = |event: &&OwnedEvent| matches!(event, OwnedEvent::Connected { .. });
        assert_eq!(outcomes.iter().filter(connected).count(), 1, "{outcomes:?}");
        assert!(
            outcomes.iter().any(|event| event.code() == Some(Code::Full)),
            "{outcomes:?}"
        );
        scenario.lab.run_for(ms(3_000));
        let events = scenario.lab.take_events(scenario.nodes[1]);
        let count = events.iter().filter(|recorded| connected(&&recorded.event)).count();
        assert_eq!(count, 1);
    });
}

#[test]
fn a_player_that_restarts_replaces_its_connection_over_the_relay() {
    with_seeds(0..2, |seed| {
        let mut scenario = pair(seed, kinds(seed));
        scenario.connect_pair(0, 1);
        let first = scenario.guids[0];
        connection_story(&mut scenario, 1, first);
        scenario.lab.restart(scenario.nodes[0]);
        let request = scenario.connect_server(0);
        scenario.outcome(0, request);
        let request = connect(&mut scenario, 0, 1);
        let outcome = scenario.outcome(0, request);
        assert!(matches!(outcome, OwnedEvent::Connected { .. }), "{outcome:?}");
        scenario.lab.run_for(ms(1_000));
        assert_eq!(connection_story(&mut scenario, 1, first), ["disconnected", "connected"]);
        assert_connected_once(&mut scenario, "after the restart");
    });
}

/// A player's whole transport without its node, at the other end of a way that was opened for somebody.
struct Dialler {
    now: Instant,
    node: Node,
    route: SyntheticAddress,
    transport: Transport,
    there: SyntheticAddress,
    source: SocketAddr,
}

const LATENCY: Duration = ms(20);

impl Dialler {
    /// `introduced`: who is expected there.
    fn new(identity: Identity, introduced: PublicKey) -> Self {
        let now = Instant::now();
        let mut config = node_config(Identity::from_seed([7; 32]));
        config.sockets = vec![(SocketName::Udp4, "192.0.2.1:4000".parse().unwrap())];
        config.crypto = Arc::new(rustls::crypto::ring::default_provider());
        let crypto = config.crypto.clone();
        let mut node = Node::new(now, config);
        let source = "198.51.100.9:5000".parse().unwrap();
        let route = node.transport.new_address();
        let path = Path {
            socket: SocketName::Udp4,
            address: source,
            kind: PathKind::Direct,
            round_trip: None,
            verified: true,
        };
        node.paths.insert(now, route, Owner::Peer(introduced), path);
        let mut transport = Transport::new(TransportConfig {
            identity: Arc::new(identity),
            seed: [9; 32],
            crypto,
            accepts: None,
            lost_peer_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            max_links: 4,
        });
        let there = transport.new_address();
        Self {
            now,
            node,
            route,
            transport,
            there,
            source,
        }
    }

    /// One way, both ways at once. Returns the bytes that the node sent.
    fn exchange(&mut self) -> usize {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        loop {
            let mut buffer = Vec::new();
            let Some((_, _, segment)) = self.transport.poll_transmit(self.now, &mut buffer) else {
                break;
            };
            here.extend(buffer.chunks(segment.unwrap_or(buffer.len())).map(BytesMut::from));
        }
        loop {
            let mut buffer = Vec::new();
            let Some(transmit) = self.node.poll_transmit(self.now, &mut buffer) else {
                break;
            };
            there.extend(
                buffer
                    .chunks(transmit.segment_size.unwrap_or(buffer.len()))
                    .map(BytesMut::from),
            );
        }
        let sent = there.iter().map(|packet| packet.len()).sum();
        self.now += LATENCY;
        for contents in here {
            let datagram = Datagram {
                socket: SocketName::Udp4,
                source: self.source,
                destination_ip: None,
                ecn: None,
                contents,
            };
            self.node.handle_datagram(self.now, datagram);
        }
        for contents in there {
            self.transport.handle_datagram(self.now, self.there, None, contents);
        }
        sent
    }

    fn events(&mut self) -> Vec<LinkEvent> {
        std::iter::from_fn(|| self.transport.poll_event()).collect()
    }

    fn events_of_node(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.node.poll_event(true) {
            told.push(match event {
                Event::Connected { .. } => "connected".to_owned(),
                Event::Message { .. } => "message".to_owned(),
                other => format!("{other:?}"),
            });
        }
        told
    }

    fn stages(&self) -> Vec<Stage> {
        self.node.links.values().map(|link| link.stage).collect()
    }

    fn hello() -> Vec<u8> {
        let mut bytes = Vec::new();
        PeerControl::Hello(PeerHello {
            protocol: PROTOCOL_VERSION,
            app: "lab".to_owned(),
            incarnation: 5,
        })
        .encode(&mut bytes);
        bytes
    }
}

#[test]
fn the_greeting_comes_with_the_handshake_and_the_message_with_the_diallers_hello() {
    let dialler = Identity::from_seed([8; 32]);
    let key = dialler.public();
    let mut world = Dialler::new(dialler, key);
    let link = world
        .transport
        .connect(world.now, world.there, LinkKind::Peer, None, Some(ms(40)));
    world.exchange();
    assert_eq!(world.stages(), [Stage::Greeted]);
    assert!(world.events_of_node().is_empty());
    // No more than three times what came in, before the other side has proven that it receives anything.
    assert!(world.exchange() <= 3 * 1_200);
    assert!(matches!(
        world.events()[..],
        [LinkEvent::Connected { .. }, LinkEvent::Readable { .. }]
    ));
    let greeting = world.transport.next_control(link).unwrap();
    assert!(matches!(PeerControl::decode(&greeting), Ok(PeerControl::Hello(_))));
    world.transport.send_control(link, &Dialler::hello()).unwrap();
    let mut outgoing = world.transport.outgoing(link).unwrap();
    outgoing.send(0, SendMode::ReliableOrdered, b"first").unwrap();
    world.exchange();
    assert_eq!(world.events_of_node(), ["connected", "message"]);
    world.exchange();
    let confirmation = world.transport.next_control(link).unwrap();
    assert!(matches!(
        PeerControl::decode(&confirmation),
        Ok(PeerControl::Welcome(_))
    ));
}

#[test]
fn another_key_behind_an_introduced_way_is_refused_and_nothing_of_it_is_heard() {
    let expected = Identity::from_seed([8; 32]).public();
    let mut world = Dialler::new(Identity::from_seed([66; 32]), expected);
    let link = world
        .transport
        .connect(world.now, world.there, LinkKind::Peer, None, Some(ms(40)));
    world.exchange();
    assert_eq!(world.stages(), [Stage::Greeted]);
    world.exchange();
    world.transport.send_control(link, &Dialler::hello()).unwrap();
    let mut outgoing = world.transport.outgoing(link).unwrap();
    outgoing.send(0, SendMode::ReliableOrdered, b"first").unwrap();
    world.exchange();
    assert!(world.stages().is_empty());
    world.exchange();
    assert!(world.events_of_node().is_empty());
    let told = world.events();
    let refused = |event: &LinkEvent| match event {
        LinkEvent::Closed { reason, .. } => format!("{reason:?}").contains("another player was introduced here"),
        _ => false,
    };
    assert!(told.iter().any(refused), "{told:?}");
    assert_eq!(world.node.current_link(expected.guid()), None);
}

#[test]
fn a_link_that_was_greeted_early_and_never_says_hello_frees_its_place() {
    let dialler = Identity::from_seed([8; 32]);
    let (key, guid) = (dialler.public(), dialler.guid());
    let mut world = Dialler::new(dialler, key);
    world
        .transport
        .connect(world.now, world.there, LinkKind::Peer, None, Some(ms(40)));
    world.exchange();
    assert_eq!(world.node.connected_or_dialling(None), 1);
    assert!(world.node.greeted_link(guid).is_some());
    for _ in 0..100 {
        world.now += ms(200);
        world.node.handle_timeout(world.now);
        while world.node.poll_transmit(world.now, &mut Vec::new()).is_some() {}
    }
    assert_eq!(world.node.connected_or_dialling(None), 0);
    assert!(world.stages().is_empty());
    assert!(world.events_of_node().is_empty());
    assert!(!world.node.paths.is_in_use(world.route));
}
