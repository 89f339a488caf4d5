//! Runs with servers that can do less than ours.

use rand::SeedableRng;

use super::*;
use crate::codes::Code;
use crate::wire::stun::{Response, UnknownAttributes};

const TRIP: Duration = Duration::from_millis(40);
const MAIN: &str = "20.0.0.1:3478";
const OTHER: &str = "20.0.0.2:3479";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server without a router before it, and what it cannot do.
#[derive(Debug, Clone, Copy, Default)]
struct Server {
    names_no_other: bool,
    /// Error 420 for CHANGE-REQUEST and RESPONSE-PORT.
    refuses: bool,
    /// Answers such requests as if they were plain.
    ignores: bool,
    /// Nothing arrives from, or at, any but its main address.
    only_main: bool,
}

impl Server {
    /// The answer to a request, with its source and the port that it goes to.
    fn answer(&self, request: &Request, to: SocketAddr, from: SocketAddr) -> Option<(SocketAddr, u16, Response)> {
        let transaction = request.transaction;
        let special = request.response_port.is_some() || request.change != ChangeRequest::default();
        if special && self.refuses {
            let unknown = UnknownAttributes::from_iter([3]);
            return Some((to, from.port(), Response::unknown_attributes(transaction, unknown)));
        }
        let (mut source, other) = (to, address(OTHER));
        if request.change.ip && !self.ignores {
            source.set_ip(other.ip());
        }
        if request.change.port && !self.ignores {
            source.set_port(other.port());
        }
        if self.only_main && (to != address(MAIN) || source != address(MAIN)) {
            return None;
        }
        let response = Response::Success {
            transaction,
            mapped: from,
            origin: Some(source),
            other: (!self.names_no_other).then_some(other),
            cookie: None,
        };
        let port = request.response_port.filter(|_| !self.ignores);
        Some((source, port.unwrap_or(from.port()), response))
    }
}

/// Runs a discovery of a node at a public address with that server; returns what it came to, and how long it took.
fn run(server: Server, lifetime: Option<Duration>) -> (Findings, Duration) {
    let start = Instant::now();
    let ip = "20.1.0.1".parse().unwrap();
    let socket = |number: u16| (SocketName::Birthday(number), SocketAddr::new(ip, 5_000 + number * 7));
    let setup = Setup {
        server: address(MAIN),
        further: Vec::new(),
        own: SocketAddr::new(ip, 4_000),
        own_name: SocketName::Udp4,
        own_observed: None,
        fresh: (0..FIRST_SAMPLES).map(socket).collect(),
        public: None,
        local: Vec::new(),
        strangers: Strangers::default(),
        hairpin: false,
        lifetime,
    };
    let (mut now, mut opened) = (start, FIRST_SAMPLES);
    let mut discovery = Discovery::new(now, setup, StdRng::from_seed([1; 32]));
    let mut under_way: Vec<(Instant, SocketName, SocketAddr, Vec<u8>)> = Vec::new();
    while !discovery.is_over(now) {
        if let Some((purpose, count)) = discovery.take_wish() {
            discovery.add_sockets(now, purpose, (opened..opened + count).map(socket).collect());
            opened += count;
        }
        while let Some((name, to, request)) = discovery.poll_request() {
            let SocketName::Birthday(number) = name else {
                panic!("{name:?}")
            };
            let Some((source, port, response)) = server.answer(&request, to, socket(number).1) else {
                continue;
            };
            let mut bytes = Vec::new();
            response.encode(&mut bytes);
            let receiver = SocketName::Birthday((port - 5_000) / 7);
            under_way.push((now + TRIP, receiver, source, bytes));
        }
        let arrival = under_way.iter().map(|datagram| datagram.0).min();
        let next = arrival
            .into_iter()
            .chain(discovery.poll_timeout())
            .min()
            .expect("something is due");
        assert!(next >= now && next < start + Duration::from_secs(300));
        now = next;
        let (due, later) = under_way.into_iter().partition(|datagram| datagram.0 <= now);
        under_way = later;
        for (_, receiver, source, bytes) in due {
            discovery.handle(now, receiver, source, &bytes);
        }
        discovery.handle_timeout(now);
    }
    (discovery.findings(), now - start)
}

#[test]
fn a_server_that_names_its_other_address_is_all_that_is_needed() {
    let (findings, took) = run(Server::default(), None);
    let expected = NatFacts {
        mapping_varies_by_address: Some(false),
        mapping_varies_by_port: Some(false),
        filters_by_address: Some(false),
        filters_by_port: Some(false),
        preserves_port: Some(true),
        ..NatFacts::default()
    };
    assert_eq!((findings.facts, findings.untranslated), (expected, Some(true)));
    assert_eq!(findings.lack, None);
    assert_eq!(findings.round_trip, Some(TRIP));
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[test]
fn a_server_that_refuses_leaves_the_filter_unknown_and_wastes_no_time() {
    let server = Server {
        refuses: true,
        ..Server::default()
    };
    let (findings, took) = run(server, Some(Duration::from_secs(30)));
    assert_eq!(findings.facts.mapping_varies_by_address, Some(false));
    assert_eq!(
        (findings.facts.filters_by_address, findings.facts.filters_by_port),
        (None, None)
    );
    assert_eq!(findings.lifetime, None);
    assert!(findings.lack.is_some());
    assert!(took < Duration::from_millis(600), "{took:?}");
}

#[test]
fn a_server_that_ignores_what_it_does_not_know_shows_no_filter() {
    let server = Server {
        ignores: true,
        ..Server::default()
    };
    let (findings, _) = run(server, Some(Duration::from_secs(30)));
    assert_eq!(findings.facts.mapping_varies_by_port, Some(false));
    assert_eq!(
        (findings.facts.filters_by_address, findings.facts.filters_by_port),
        (None, None)
    );
    assert_eq!(findings.lifetime, None);
}

#[test]
fn a_server_without_an_other_address_shows_ports_alone() {
    let server = Server {
        names_no_other: true,
        ..Server::default()
    };
    let (findings, _) = run(server, None);
    let expected = NatFacts {
        preserves_port: Some(true),
        ..NatFacts::default()
    };
    assert_eq!(findings.facts, expected);
    assert_eq!(findings.lack.unwrap().code, Code::Unsupported);
}

#[test]
fn a_firewall_at_the_server_is_not_taken_for_a_filter_here() {
    let server = Server {
        only_main: true,
        ..Server::default()
    };
    let (findings, took) = run(server, None);
    let facts = findings.facts;
    assert_eq!((facts.filters_by_address, facts.filters_by_port), (None, None));
    assert_eq!(
        (facts.mapping_varies_by_address, facts.mapping_varies_by_port),
        (None, None)
    );
    assert_eq!(findings.lack.unwrap().code, Code::NoAnswer);
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}

#[test]
fn lifetimes_are_asked_for_after_everything_else() {
    let (findings, took) = run(Server::default(), Some(Duration::from_secs(30)));
    assert_eq!(findings.lifetime, Some((Duration::from_secs(30), None)));
    assert_eq!(findings.facts.filters_by_port, Some(false));
    assert!(
        took >= Duration::from_secs(30) && took < Duration::from_secs(32),
        "{took:?}"
    );
}
