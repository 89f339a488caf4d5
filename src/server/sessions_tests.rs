//! Nodes at a server, over real QUIC without a network: what they hear for what they say. Time is virtual; packets take
//! none.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::introductions::REACTION_TIME;
use super::super::limits::OPEN_NAT_PER_KEY;
use super::super::{ProxyNews, RelayConfig, ServerConfig, ServerSocket};
use super::*;
use crate::engine::{Datagram, Engine, SocketName};
use crate::relay::RelayLimits;
use crate::transport::identity::{Guid, Identity};
use crate::transport::{CloseReason, LinkKind, Transport, TransportConfig};
use crate::wire::control::{Consent, RelayPolicy, Ways};
use crate::wire::introduction::{Candidate, CandidateKind, Introduction, NatFacts};

#[path = "proxy_login_tests.rs"]
mod proxy_login;
#[path = "relay_requests_tests.rs"]
mod relay_requests;
#[path = "tunnel_tests.rs"]
mod tunnel;
#[path = "updates_tests.rs"]
mod updates;

const SERVER_KEY: [u8; 32] = [200; 32];
const PASSWORD: &str = "correct horse";

/// A node that does what a test says.
struct Client {
    transport: Transport,
    server: SyntheticAddress,
    link: LinkId,
    /// The server's, that its packets come in on.
    socket: SocketName,
    real: SocketAddr,
    guid: Guid,
    key: PublicKey,
    kind: LinkKind,
    connected: bool,
    heard: Vec<FromServer>,
    /// What a coordinator said to a proxy server.
    raw: Vec<Bytes>,
    closed: Option<CloseReason>,
}

struct World {
    now: Instant,
    server: Server,
    clients: Vec<Client>,
}

fn world_with(access_key: &str, max_nodes: usize) -> World {
    world_of(access_key, max_nodes, RelayConfig::Own(RelayLimits::default()))
}

fn world_of(access_key: &str, max_nodes: usize, relay: RelayConfig) -> World {
    world_where(access_key, max_nodes, relay, PASSWORD)
}

fn world_without_password() -> World {
    world_where("", 100, RelayConfig::Own(RelayLimits::default()), "")
}

fn world_where(access_key: &str, max_nodes: usize, relay: RelayConfig, password: &str) -> World {
    let now = Instant::now();
    let socket = |name, bound: &str, main| ServerSocket {
        name,
        bound: bound.parse().unwrap(),
        public: None,
        main,
    };
    let config = ServerConfig {
        identity: Arc::new(Identity::from_seed(SERVER_KEY)),
        seed: [1; 32],
        crypto: Arc::new(rustls::crypto::ring::default_provider()),
        access_key: access_key.to_owned(),
        sockets: vec![
            socket(SocketName::Udp4, "198.51.100.1:61111", true),
            socket(SocketName::Listen(0), "198.51.100.1:61112", false),
        ],
        max_nodes,
        relay,
        wall_clock: 0,
        proxy_password: password.to_owned(),
        tunnel_port: 443,
    };
    World {
        now,
        server: Server::new(now, config),
        clients: Vec::new(),
    }
}

fn world() -> World {
    world_with("", 100)
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        app: "game".to_owned(),
        access_proof: [0; 32],
        incarnation: 1,
        consent: Consent::App,
        session_tag: [0; 16],
        relay_policy: RelayPolicy::Fallback,
        candidates: Vec::new(),
        facts: NatFacts::default(),
        proofs: Vec::new(),
    }
}

impl World {
    /// Connects a node, without Hello.
    fn connect(&mut self, key: u8, real: &str) -> usize {
        self.connect_by(SocketName::Udp4, key, real, LinkKind::Server)
    }

    fn connect_as(&mut self, key: u8, real: &str, kind: LinkKind) -> usize {
        self.connect_by(SocketName::Udp4, key, real, kind)
    }

    fn connect_on(&mut self, socket: SocketName, key: u8, real: &str) -> usize {
        self.connect_by(socket, key, real, LinkKind::Server)
    }

    fn connect_by(&mut self, socket: SocketName, key: u8, real: &str, kind: LinkKind) -> usize {
        let identity = Arc::new(Identity::from_seed([key; 32]));
        let mut transport = Transport::new(TransportConfig {
            identity: identity.clone(),
            seed: [self.clients.len() as u8 + 100; 32],
            crypto: Arc::new(rustls::crypto::ring::default_provider()),
            accepts: None,
            lost_peer_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            max_links: 4,
        });
        let server = transport.new_address();
        let expected = Identity::from_seed(SERVER_KEY).public();
        let link = transport.connect(self.now, server, kind, Some(expected), None);
        let real = real.parse().unwrap();
        let guid = identity.guid();
        let (heard, closed, connected) = (Vec::new(), None, false);
        self.clients.push(Client {
            transport,
            server,
            link,
            socket,
            real,
            guid,
            key: identity.public(),
            kind,
            connected,
            raw: Vec::new(),
            heard,
            closed,
        });
        let client = self.clients.len() - 1;
        self.settle();
        assert!(self.clients[client].connected, "{:?}", self.clients[client].closed);
        client
    }

    /// Connects and registers a node.
    fn join(&mut self, key: u8, real: &str, hello: Hello) -> usize {
        let client = self.connect(key, real);
        self.say(client, ToServer::Hello(hello));
        client
    }

    fn say(&mut self, client: usize, message: ToServer) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.say_bytes(client, &bytes);
    }

    fn say_bytes(&mut self, client: usize, bytes: &[u8]) {
        let Client { transport, link, .. } = &mut self.clients[client];
        transport.send_control(*link, bytes).unwrap();
        self.settle();
    }

    fn ask(&mut self, client: usize, request: u32, target: usize) {
        let target = self.clients[target].guid;
        self.say(
            client,
            ToServer::OpenNat {
                request,
                target,
                first_flight: Bytes::from_static(b"flight"),
                ways: Ways::Any,
            },
        );
    }

    /// Carries packets to and fro until there are none.
    fn settle(&mut self) {
        let mut buffer = Vec::new();
        loop {
            let mut quiet = true;
            for client in &mut self.clients {
                loop {
                    buffer.clear();
                    let Some((_, ecn, segment)) = client.transport.poll_transmit(self.now, &mut buffer) else {
                        break;
                    };
                    quiet = false;
                    for part in buffer.chunks(segment.unwrap_or(buffer.len()).max(1)) {
                        let (socket, source) = (client.socket, client.real);
                        let contents = BytesMut::from(part);
                        let datagram = Datagram {
                            socket,
                            source,
                            destination_ip: None,
                            ecn,
                            contents,
                        };
                        self.server.handle_datagram(self.now, datagram);
                    }
                }
            }
            loop {
                buffer.clear();
                let Some(transmit) = self.server.poll_transmit(self.now, &mut buffer) else {
                    break;
                };
                quiet = false;
                assert_eq!(transmit.size, buffer.len());
                for part in buffer.chunks(transmit.segment_size.unwrap_or(buffer.len()).max(1)) {
                    // Two nodes at one address: QUIC drops what is not its own.
                    for client in self
                        .clients
                        .iter_mut()
                        .filter(|client| (client.socket, client.real) == (transmit.socket, transmit.destination))
                    {
                        let (server, contents) = (client.server, BytesMut::from(part));
                        client
                            .transport
                            .handle_datagram(self.now, server, transmit.ecn, contents);
                    }
                }
            }
            self.clients.iter_mut().for_each(Client::listen);
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass, in steps of the engines' own deadlines.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let own = self
                .clients
                .iter_mut()
                .filter_map(|client| client.transport.poll_timeout())
                .min();
            let next = [own, self.server.poll_timeout()]
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            self.server.handle_timeout(self.now);
            for client in &mut self.clients {
                client.transport.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    /// What a node has heard since the last call.
    fn heard(&mut self, client: usize) -> Vec<FromServer> {
        std::mem::take(&mut self.clients[client].heard)
    }

    fn welcomed(&mut self, client: usize) -> bool {
        matches!(self.heard(client)[..], [FromServer::Welcome { .. }])
    }

    /// The code with which the server closed a node's link.
    fn closed(&self, client: usize) -> Option<Code> {
        match &self.clients[client].closed {
            Some(CloseReason::Remote(info)) => {
                assert!(!info.text.is_empty());
                Some(Code::from_number(info.code).expect("a known code"))
            }
            Some(other) => panic!("not closed by the server: {other:?}"),
            None => None,
        }
    }

    /// The code of the one answer to a request.
    fn failed(&mut self, client: usize) -> Code {
        match &self.heard(client)[..] {
            [FromServer::OpenNatFailed { code, text, .. }] => {
                assert!(!text.is_empty());
                Code::from_number(*code).expect("a known code")
            }
            other => panic!("not one failure: {other:?}"),
        }
    }

    /// The one introduction that a node heard.
    fn introduction(&mut self, client: usize) -> Introduction {
        match &mut self.heard(client)[..] {
            [FromServer::Introduction(introduction)] => introduction.clone(),
            other => panic!("not one introduction: {other:?}"),
        }
    }
}

impl Client {
    fn listen(&mut self) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                LinkEvent::Connected { .. } => self.connected = true,
                LinkEvent::Readable { link } => {
                    while let Some(message) = self.transport.next_control(link) {
                        match self.kind {
                            LinkKind::Proxy => self.raw.push(message),
                            _ => self.heard.push(FromServer::decode(&message).unwrap()),
                        }
                    }
                }
                LinkEvent::Writable { .. } => {}
                LinkEvent::Closed { reason, .. } => self.closed = Some(reason),
            }
        }
    }
}

/// Two registered nodes that have heard Welcome.
fn two(first: Hello, second: Hello) -> (World, usize, usize) {
    two_in(world(), first, second)
}

fn two_in(mut world: World, first: Hello, second: Hello) -> (World, usize, usize) {
    let first = world.join(1, "203.0.113.1:4000", first);
    let second = world.join(2, "203.0.113.2:5000", second);
    assert!(world.welcomed(first) && world.welcomed(second));
    (world, first, second)
}

#[test]
fn a_node_is_welcomed_with_its_address_and_the_second_port() {
    let mut world = world();
    let client = world.join(1, "203.0.113.1:4000", hello());
    let heard = world.heard(client);
    let [
        FromServer::Welcome {
            observed,
            stun,
            idle_timeout_ms,
            ..
        },
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(*observed, "203.0.113.1:4000".parse().unwrap());
    assert_eq!(stun[..], ["198.51.100.1:61112".parse().unwrap()]);
    assert_eq!(*idle_timeout_ms, 30_000);
    assert_eq!(
        (world.server.counters().nodes, world.server.counters().registrations),
        (1, 1)
    );
}

#[test]
fn without_hello_a_link_is_closed_after_five_seconds() {
    let mut world = world();
    let client = world.connect(1, "203.0.113.1:4000");
    world.pass(HELLO_TIME - Duration::from_millis(1));
    assert_eq!(world.closed(client), None);
    world.pass(Duration::from_millis(1));
    world.settle();
    assert_eq!(world.closed(client), Some(Code::ProtocolViolation));
    assert_eq!(world.server.counters().registrations_refused, 1);
}

#[test]
fn first_messages_that_are_no_hello_of_this_version_are_refused() {
    let mut other_version = Vec::new();
    ToServer::Hello(Hello {
        protocol: PROTOCOL_VERSION + 1,
        ..hello()
    })
    .encode(&mut other_version);
    let mut no_hello = Vec::new();
    ToServer::CancelOpenNat { request: 1 }.encode(&mut no_hello);
    let mut world = world();
    for (bytes, code) in [
        (other_version, Code::Incompatible),
        (no_hello, Code::ProtocolViolation),
        (vec![1], Code::ProtocolViolation),
        (vec![0xee; 3], Code::ProtocolViolation),
    ] {
        let client = world.connect(1, "203.0.113.1:4000");
        world.say_bytes(client, &bytes);
        assert_eq!(world.closed(client), Some(code));
    }
    assert_eq!(world.server.counters().nodes, 0);
}

#[test]
fn an_access_key_is_proven_over_the_connection() {
    let mut world = world_with("secret", 100);
    for (text, admitted) in [("secret", true), ("Secret", false), ("", false)] {
        let client = world.connect(1, "203.0.113.1:4000");
        let Client { transport, link, .. } = &world.clients[client];
        let exported = transport.export_keying_material(*link, ACCESS_EXPORTER_LABEL).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let mut access_proof = [0; 32];
        access_proof.copy_from_slice(hmac::sign(&key, &exported).as_ref());
        world.say(
            client,
            ToServer::Hello(Hello {
                access_proof,
                ..hello()
            }),
        );
        assert_eq!(world.welcomed(client), admitted);
        assert_eq!(world.closed(client), (!admitted).then_some(Code::WrongAccessKey));
    }
}

#[test]
fn the_same_identity_again_replaces_the_older_session() {
    let (mut world, first, second) = two(hello(), hello());
    let again = world.join(1, "203.0.113.9:4000", hello());
    assert!(world.welcomed(again));
    assert_eq!(world.closed(first), Some(Code::Replaced));
    assert_eq!(world.server.counters().nodes, 2);
    // It is found where it is now, also when the older link is long gone.
    world.pass(Duration::from_secs(20));
    world.ask(second, 1, again);
    assert_eq!(
        world.introduction(second).candidates[0].address,
        "203.0.113.9:4000".parse().unwrap()
    );
    // In another game the same identity is somebody else.
    let elsewhere = world.join(
        1,
        "203.0.113.9:4001",
        Hello {
            app: "other".to_owned(),
            ..hello()
        },
    );
    assert!(world.welcomed(elsewhere));
    assert_eq!(world.closed(again), None);
}

#[test]
fn a_full_server_says_so() {
    let mut world = world_with("", 1);
    world.join(1, "203.0.113.1:4000", hello());
    let second = world.join(2, "203.0.113.2:4000", hello());
    assert_eq!(world.closed(second), Some(Code::Full));
}

#[test]
fn both_sides_of_an_introduction_are_told_of_each_other() {
    let candidates = vec![
        Candidate {
            kind: CandidateKind::Local,
            address: "192.168.1.5:4000".parse().unwrap(),
        },
        Candidate {
            kind: CandidateKind::Manual,
            address: "203.0.113.1:7000".parse().unwrap(),
        },
    ];
    let facts = NatFacts {
        preserves_port: Some(true),
        ..NatFacts::default()
    };
    let (mut world, asker, target) = two(
        Hello {
            candidates,
            facts,
            ..hello()
        },
        hello(),
    );
    world.ask(asker, 7, target);
    let (told, heard) = (world.introduction(asker), world.introduction(target));
    assert_eq!((told.id, told.secret, told.valid_ms), (heard.id, heard.secret, 30_000));
    assert_eq!((told.request, heard.request), (7, 0));
    assert_eq!(
        (told.peer_guid(), heard.peer_guid()),
        (world.clients[target].guid, world.clients[asker].guid)
    );
    assert_eq!(told.own_observed, Some("203.0.113.1:4000".parse().unwrap()));
    let addresses = |introduction: &Introduction| {
        introduction
            .candidates
            .iter()
            .map(|candidate| candidate.address.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&told), ["203.0.113.2:5000"]);
    assert_eq!(addresses(&heard), ["203.0.113.1:4000", "203.0.113.1:7000"]);
    assert_eq!((told.facts, heard.facts), (NatFacts::default(), facts));
    assert_eq!(
        (&told.first_flight[..], &heard.first_flight[..]),
        (&b""[..], &b"flight"[..])
    );
    // A second one between the two, from either side, while this one runs.
    world.ask(asker, 8, target);
    assert_eq!(world.failed(asker), Code::AlreadyInProgress);
    world.ask(target, 1, asker);
    assert_eq!(world.failed(target), Code::AlreadyInProgress);
    // Both have said how it ended: the next one is another.
    for client in [asker, target] {
        world.say(
            client,
            ToServer::PunchEnded {
                introduction: told.id,
                path: 2,
            },
        );
    }
    world.ask(target, 2, asker);
    let next = world.introduction(target);
    assert!(next.id != told.id && next.secret != told.secret);
    let counters = world.server.counters();
    assert_eq!((counters.introductions, counters.introductions_refused), (2, 2));
}

#[test]
fn who_is_not_there_or_not_willing_is_not_introduced() {
    let session = |tag: u8| Hello {
        consent: Consent::Session,
        session_tag: [tag; 16],
        ..hello()
    };
    let tagged = |tag: u8| Hello {
        session_tag: [tag; 16],
        ..hello()
    };
    let cases = [
        (
            hello(),
            Hello {
                app: "other".to_owned(),
                ..hello()
            },
            Some(Code::TargetNotConnected),
        ),
        (
            hello(),
            Hello {
                consent: Consent::Nobody,
                ..hello()
            },
            Some(Code::Refused),
        ),
        (
            Hello {
                consent: Consent::Nobody,
                ..hello()
            },
            hello(),
            None,
        ),
        (tagged(1), session(1), None),
        (tagged(2), session(1), Some(Code::Refused)),
        (tagged(0), session(0), Some(Code::Refused)),
    ];
    for (number, (asking, asked, expected)) in cases.into_iter().enumerate() {
        let (mut world, asker, target) = two(asking, asked);
        world.ask(asker, 1, target);
        match expected {
            Some(code) => assert_eq!(
                (world.failed(asker), world.heard(target).len()),
                (code, 0),
                "case {number}"
            ),
            None => assert_eq!(
                world.introduction(asker).id,
                world.introduction(target).id,
                "case {number}"
            ),
        }
    }
    let (mut world, node, _) = two(hello(), hello());
    world.ask(node, 1, node);
    assert_eq!(world.failed(node), Code::Self_);
    world.say(
        node,
        ToServer::OpenNat {
            request: 2,
            target: Guid(99),
            first_flight: Bytes::new(),
            ways: Ways::Any,
        },
    );
    assert_eq!(world.failed(node), Code::TargetNotConnected);
}

#[test]
fn consent_can_be_changed() {
    let (mut world, asker, target) = two(hello(), hello());
    let nobody = ToServer::Update {
        consent: Consent::Nobody,
        session_tag: [0; 16],
        candidates: Vec::new(),
        facts: NatFacts::default(),
        proofs: Vec::new(),
        relay_policy: RelayPolicy::Fallback,
    };
    world.say(target, nobody);
    world.ask(asker, 1, target);
    assert_eq!(world.failed(asker), Code::Refused);
}

#[test]
fn a_target_that_says_nothing_is_unresponsive() {
    let (mut world, asker, target) = two(hello(), hello());
    world.ask(asker, 1, target);
    let id = world.introduction(asker).id;
    world.introduction(target);
    world.pass(REACTION_TIME);
    assert_eq!(world.failed(asker), Code::TargetUnresponsive);
    let ended = FromServer::IntroductionEnded {
        introduction: id,
        code: Code::Timeout.number(),
    };
    assert_eq!(world.heard(target), [ended]);
}

#[test]
fn a_side_that_leaves_is_lost_to_the_other() {
    for leaver in [0, 1] {
        let (mut world, asker, target) = two(hello(), hello());
        world.ask(asker, 1, target);
        let id = world.introduction(asker).id;
        world.say(
            target,
            ToServer::IntroductionReceived {
                introduction: id,
                accepted: true,
            },
        );
        world.heard(target);
        let info = CloseInfo {
            code: Code::Closed.number(),
            user_code: 0,
            text: String::new(),
        };
        let (now, client) = (world.now, &mut world.clients[leaver]);
        client.transport.close(now, client.link, info);
        world.settle();
        if leaver == asker {
            let ended = FromServer::IntroductionEnded {
                introduction: id,
                code: Code::TargetLost.number(),
            };
            assert_eq!(world.heard(target), [ended]);
        } else {
            assert_eq!(world.failed(asker), Code::TargetLost);
        }
        assert_eq!(world.server.counters().nodes, 1);
    }
}

#[test]
fn a_node_may_not_ask_without_end() {
    let (mut world, asker, _) = two(hello(), hello());
    let mut codes = Vec::new();
    for request in 0..OPEN_NAT_PER_KEY + 1 {
        world.say(
            asker,
            ToServer::OpenNat {
                request,
                target: Guid(99),
                first_flight: Bytes::new(),
                ways: Ways::Any,
            },
        );
        codes.push(world.failed(asker));
    }
    assert_eq!(codes.pop(), Some(Code::RateLimited));
    assert!(codes.iter().all(|code| *code == Code::TargetNotConnected));
    // Whatever it goes on to say: some time it is enough.
    for request in 0..1_000 {
        if world.closed(asker).is_some() {
            break;
        }
        let Client { transport, link, .. } = &mut world.clients[asker];
        let mut bytes = Vec::new();
        ToServer::CancelOpenNat { request }.encode(&mut bytes);
        let _ = transport.send_control(*link, &bytes);
        world.settle();
    }
    assert_eq!(world.closed(asker), Some(Code::RateLimited));
}

#[test]
fn rules_broken_later_close_the_session_and_unknown_messages_do_not() {
    let mut second_hello = Vec::new();
    ToServer::Hello(hello()).encode(&mut second_hello);
    for (bytes, code) in [
        (vec![250, 1, 2, 3], None),
        (vec![3, 0], Some(Code::ProtocolViolation)),
        (second_hello, Some(Code::ProtocolViolation)),
    ] {
        let (mut world, node, _) = two(hello(), hello());
        world.say_bytes(node, &bytes);
        assert_eq!(world.closed(node), code);
        assert_eq!(world.server.counters().nodes, if code.is_some() { 1 } else { 2 });
    }
}

#[test]
fn shutting_down_tells_everybody() {
    let (mut world, first, second) = two(hello(), hello());
    let unnamed = world.connect(3, "203.0.113.3:4000");
    world.server.shut_down(world.now);
    world.settle();
    for client in [first, second, unnamed] {
        assert_eq!(world.closed(client), Some(Code::Closed));
    }
    assert_eq!(world.server.counters().nodes, 0);
}

#[test]
fn a_silent_node_is_forgotten() {
    let (mut world, first, _) = two(hello(), hello());
    // Its packets get lost from now on.
    world.clients.remove(first);
    world.pass(IDLE_TIMEOUT + Duration::from_secs(1));
    assert_eq!(world.server.counters().nodes, 1);
}

#[test]
fn whatever_strangers_send_is_counted_and_dropped() {
    let (mut world, first, _) = two(hello(), hello());
    let seed = 42;
    let mut random = StdRng::seed_from_u64(seed);
    let mut answered = Vec::new();
    for number in 0..3_000_u32 {
        let mut bytes = vec![0; (random.next_u32() % 1_500) as usize];
        random.fill_bytes(&mut bytes);
        // Half of them look like QUIC with a version that is spoken here, full-sized every fourth time.
        if number % 2 == 0 && bytes.len() > 20 {
            bytes[0] |= 0xc0;
            bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
        }
        let source = SocketAddr::from(([198, 18, (number >> 8) as u8, number as u8], 9));
        let (socket, contents) = (SocketName::Udp4, BytesMut::from(&bytes[..]));
        let datagram = Datagram {
            socket,
            source,
            destination_ip: None,
            ecn: None,
            contents,
        };
        world.server.handle_datagram(world.now, datagram);
        let mut buffer = Vec::new();
        while let Some(transmit) = world.server.poll_transmit(world.now, &mut buffer) {
            assert!(
                transmit.size <= bytes.len(),
                "seed {seed}, datagram {number}: an answer larger than its cause"
            );
            answered.push(transmit.destination);
            buffer.clear();
        }
    }
    assert!(world.server.counters().dropped > 1_000);
    // Nothing of it touched those who are there.
    world.ask(first, 1, 1);
    assert!(matches!(world.heard(first)[..], [FromServer::Introduction(_)]));
}

#[test]
fn packets_of_a_known_connection_from_elsewhere_change_nothing() {
    let (mut world, node, _) = two(hello(), hello());
    let mut bytes = Vec::new();
    ToServer::CancelOpenNat { request: 1 }.encode(&mut bytes);
    let client = &mut world.clients[node];
    client.transport.send_control(client.link, &bytes).unwrap();
    let mut buffer = Vec::new();
    client
        .transport
        .poll_transmit(world.now, &mut buffer)
        .expect("a packet");
    let source = "198.18.0.1:1".parse().unwrap();
    let contents = BytesMut::from(&buffer[..]);
    let datagram = Datagram {
        socket: SocketName::Udp4,
        source,
        destination_ip: None,
        ecn: None,
        contents,
    };
    let before = world.server.counters().dropped;
    world.server.handle_datagram(world.now, datagram);
    assert_eq!(world.server.counters().dropped, before + 1);
    assert!(world.server.poll_transmit(world.now, &mut Vec::new()).is_none());
}
