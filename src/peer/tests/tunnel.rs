//! The session with a server over a TLS stream: where UDP is blocked, where it comes back, where nothing helps.

use std::time::Duration;

use super::ms;
use crate::codes::Code;
use crate::engine::SocketName;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::{OwnedEvent, Party, RouterConfig};
use crate::peer::Node;
use crate::peer::api::{Command, NatOutcome, RequestId};
use crate::server::Server;
use crate::transport::identity::PublicKey;

const HTTPS: u16 = 443;

fn without_udp() -> RouterKind {
    RouterKind::Custom(RouterConfig::port_restricted().without_udp())
}

/// A player behind a router without UDP, and one with a public address; the server takes streams. Nobody is connected yet.
fn blocked(seed: u64) -> Scenario {
    let builder = Scenario::builder(seed).streams_at(HTTPS);
    builder.node(without_udp()).node(RouterKind::Open).build()
}

fn allow_udp(scenario: &mut Scenario, allowed: bool) {
    let router = scenario.routers[0].unwrap();
    scenario
        .lab
        .change_router(router, |config| config.blocks_udp = !allowed);
}

/// The socket that the session of a player takes.
fn session_socket(scenario: &Scenario, player: usize) -> Option<SocketName> {
    let node = scenario.lab.engine::<Node>(scenario.nodes[player]);
    node.server_hop()
        .filter(|_| node.server_is_up())
        .map(|(socket, _)| socket)
}

fn is_on_stream(scenario: &Scenario) -> bool {
    matches!(session_socket(scenario, 0), Some(SocketName::Tunnel(_)))
}

fn registered(scenario: &Scenario) -> u64 {
    scenario.lab.engine::<Server>(scenario.server).counters().nodes
}

/// What the first player heard of its session since the last time.
fn session_story(scenario: &mut Scenario) -> Vec<&'static str> {
    let events = scenario.lab.take_events(scenario.nodes[0]);
    let word = |event: &OwnedEvent| match event {
        OwnedEvent::ServerConnected { .. } => Some("connected"),
        OwnedEvent::ServerFailed { .. } => Some("failed"),
        OwnedEvent::ServerLost { .. } => Some("lost"),
        OwnedEvent::ServerReconnected { .. } => Some("reconnected"),
        OwnedEvent::ServerDisconnected { .. } => Some("disconnected"),
        _ => None,
    };
    events.iter().filter_map(|recorded| word(&recorded.event)).collect()
}

fn connect_with(scenario: &mut Scenario, key: Option<PublicKey>) -> RequestId {
    let (host, port) = (scenario.server_address.ip().to_string(), scenario.server_address.port());
    scenario.request(0, |request| Command::ConnectServer {
        request,
        host,
        port,
        key,
    })
}

fn failure(scenario: &mut Scenario, request: RequestId) -> (Code, String) {
    match scenario.outcome(0, request) {
        OwnedEvent::ServerFailed { reason, .. } => (reason.code, reason.text),
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn a_player_without_udp_is_registered_over_a_stream() {
    let mut scenario = blocked(1);
    let request = scenario.connect_server(0);
    let outcome = scenario.outcome(0, request);
    let OwnedEvent::ServerConnected { verified, observed, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let router = scenario.routers[0].unwrap();
    assert!(verified);
    assert_eq!(vec![observed.ip()], scenario.lab.public_addresses(router));
    let took = scenario.lab.elapsed();
    assert!((ms(2_000)..ms(2_600)).contains(&took), "{took:?}");
    assert!(is_on_stream(&scenario));
    assert_eq!(
        (registered(&scenario), scenario.lab.stream_count(scenario.server)),
        (1, 1)
    );
    // Of UDP nothing is known but that it is blocked.
    scenario.lab.run_for(Duration::from_secs(30));
    let node = scenario.lab.engine::<Node>(scenario.nodes[0]);
    let report = node.nat_report();
    assert_eq!(
        (report.udp_blocked, report.public_v4, report.known),
        (Some(true), None, false)
    );
    assert!(node.nat_proofs().is_empty());
    assert!(
        node.candidates()
            .iter()
            .all(|candidate| candidate.address.port() != observed.port())
    );
}

#[test]
fn the_report_says_that_udp_is_blocked_and_how_the_server_is_reached() {
    let mut scenario = blocked(16);
    scenario.connect_all();
    let request = scenario.request(0, |request| Command::Report {
        request,
        map_port: false,
        detect: crate::peer::api::nat::DetectOptions::default(),
    });
    let OwnedEvent::Report { json, text, .. } = scenario.outcome(0, request) else {
        panic!("no report")
    };
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["udp_blocked"], &json["server"]["tls"]),
        (&true.into(), &true.into()),
        "{json}"
    );
    assert!(text.contains("over TLS on TCP"), "{text}");
}

#[test]
fn players_are_introduced_to_one_on_a_stream_without_the_address_of_that() {
    let mut scenario = blocked(2);
    scenario.connect_all();
    scenario.lab.run_for(ms(5_000));
    scenario.lab.capture_sent();
    let peer = scenario.guids[0];
    let request = scenario.request(1, |request| Command::OpenNat { request, peer });
    let OwnedEvent::NatFailed { outcome, reason, .. } = scenario.outcome(1, request) else {
        panic!("there is no direct way")
    };
    assert_eq!((outcome, reason.code), (NatOutcome::Failed, Code::NoDirectPath));
    let router = scenario.routers[0].unwrap();
    let outside = scenario.lab.public_addresses(router)[0];
    let sent = scenario.lab.take_sent();
    let own = scenario.nodes[1];
    assert!(
        sent.iter()
            .all(|sent| sent.host != own || sent.destination.ip() != outside)
    );
}

#[test]
fn udp_that_comes_back_takes_the_session_over_and_the_game_hears_nothing() {
    let mut scenario = blocked(3);
    scenario.connect_all();
    session_story(&mut scenario);
    scenario.lab.run_for(Duration::from_secs(130));
    assert!(is_on_stream(&scenario));
    allow_udp(&mut scenario, true);
    scenario.lab.run_for(Duration::from_secs(62));
    assert_eq!(session_socket(&scenario, 0), Some(SocketName::Udp4));
    assert_eq!(registered(&scenario), 2);
    scenario.lab.run_for(Duration::from_secs(10));
    assert_eq!(scenario.lab.stream_count(scenario.server), 0, "the stream is closed");
    assert_eq!(session_story(&mut scenario), [""; 0]);
    // What UDP shows is found out now.
    let node = scenario.lab.engine::<Node>(scenario.nodes[0]);
    assert_eq!(node.nat_report().udp_blocked, Some(false));
    scenario.open_nat(1, 0).unwrap();
}

#[test]
fn a_changed_network_is_looked_at_at_once() {
    let mut scenario = blocked(4);
    scenario.connect_all();
    scenario.lab.run_for(Duration::from_secs(10));
    allow_udp(&mut scenario, true);
    let (host, internet) = (scenario.nodes[0], scenario.lab.internet());
    let link = crate::lab::Link::internet(ms(15));
    scenario
        .lab
        .add_interface(host, internet, link, crate::lab::Families::V4);
    scenario.lab.run_for(ms(1_000));
    assert_eq!(session_socket(&scenario, 0), Some(SocketName::Udp4));
}

#[test]
fn wishes_that_are_open_while_the_session_moves_are_kept() {
    // At every point of the move, which begins with the look after some 65 s.
    for step in 0..40 {
        let mut scenario = blocked(5);
        scenario.connect_all();
        session_story(&mut scenario);
        allow_udp(&mut scenario, true);
        let node = scenario.nodes[0];
        let asked = |lab: &crate::lab::Lab| lab.engine::<Node>(node).tunnels.is_moving();
        scenario.lab.run_until(Duration::from_secs(70), asked).unwrap();
        scenario.lab.run_for(ms(5 * step));
        let peer = scenario.guids[1];
        let request = scenario.request(0, |request| Command::OpenNat { request, peer });
        let outcome = scenario.outcome(0, request);
        assert!(
            matches!(outcome, OwnedEvent::NatSucceeded { .. }),
            "{step}: {outcome:?}"
        );
        scenario.lab.run_for(ms(1_000));
        assert_eq!(session_socket(&scenario, 0), Some(SocketName::Udp4));
        assert_eq!(session_story(&mut scenario), [""; 0], "{step}");
    }
}

#[test]
fn without_a_port_for_streams_the_failure_says_what_was_tried() {
    let mut scenario = Scenario::builder(6).node(without_udp()).build();
    let request = scenario.connect_server(0);
    let (code, text) = failure(&mut scenario, request);
    let udp = scenario.server_address;
    let expected = format!(
        "no UDP answer from {udp}; TCP 443: refused; TCP {}: refused",
        udp.port()
    );
    assert_eq!((code, text), (Code::NoAnswer, expected));
    assert_eq!(scenario.lab.elapsed(), Duration::from_secs(5));
    // Where TCP is blocked, too.
    let router = scenario.routers[0].unwrap();
    scenario.lab.change_router(router, |config| config.blocks_tcp = true);
    let request = scenario.connect_server(0);
    let (code, text) = failure(&mut scenario, request);
    assert_eq!(code, Code::NoAnswer);
    assert!(
        text.ends_with(&format!("TCP 443: no answer; TCP {}: no answer", udp.port())),
        "{text}"
    );
    assert_eq!(scenario.lab.elapsed(), Duration::from_secs(11));
    scenario.lab.run_for(Duration::from_secs(60));
    assert_eq!(session_story(&mut scenario), [""; 0]);
}

#[test]
fn a_server_that_proves_another_key_is_not_spoken_to() {
    let mut scenario = blocked(7);
    let request = connect_with(&mut scenario, Some(PublicKey([0x11; 32])));
    let (code, text) = failure(&mut scenario, request);
    assert_eq!(code, Code::WrongKey);
    assert!(
        text.contains(&format!("TCP 443: another key ({})", scenario.server_key.to_hex())),
        "{text}"
    );
    assert_eq!(registered(&scenario), 0);
}

#[test]
fn the_port_that_was_told_is_tried_where_udp_is_blocked_later() {
    let mut scenario = Scenario::builder(8)
        .streams_at(8_443)
        .node(RouterKind::PortRestricted)
        .build();
    scenario.connect_all();
    assert_eq!(session_socket(&scenario, 0), Some(SocketName::Udp4));
    scenario.lab.run_for(ms(3_000));
    scenario.move_node(0, &without_udp());
    scenario.expect(0, "SERVER_RECONNECTED", |event| {
        matches!(event, OwnedEvent::ServerReconnected { .. })
    });
    assert!(is_on_stream(&scenario));
    assert_eq!(session_story(&mut scenario), ["lost"]);
}

#[test]
fn where_udp_works_no_stream_is_opened() {
    let mut scenario = Scenario::builder(9)
        .streams_at(HTTPS)
        .loss(0.2)
        .node(RouterKind::Open)
        .build();
    scenario.connect_server(0);
    let server = scenario.server;
    let opened = scenario
        .lab
        .run_until(Duration::from_secs(60), |lab| lab.stream_count(server) > 0);
    assert_eq!(opened, None);
    assert_eq!(session_socket(&scenario, 0), Some(SocketName::Udp4));
}

#[test]
fn a_stream_that_breaks_is_a_lost_session_and_comes_back_soon() {
    let mut scenario = blocked(10);
    scenario.connect_all();
    session_story(&mut scenario);
    for _ in 0..3 {
        scenario.lab.run_for(ms(7_000));
        let node = scenario.nodes[0];
        scenario.lab.reset_streams(node);
        scenario.lab.run_for(ms(1_500));
        assert!(is_on_stream(&scenario));
        assert_eq!(session_story(&mut scenario), ["lost", "reconnected"]);
        assert_eq!(registered(&scenario), 2);
    }
}

#[test]
fn a_stream_that_falls_silent_is_noticed() {
    let mut scenario = blocked(11);
    scenario.connect_all();
    session_story(&mut scenario);
    let (node, server) = (Party::Host(scenario.nodes[0]), Party::Host(scenario.server));
    scenario.lab.partition(node, server);
    scenario.lab.run_for(Duration::from_secs(15));
    scenario.lab.heal();
    scenario.lab.run_for(Duration::from_secs(20));
    assert_eq!(session_story(&mut scenario), ["lost", "reconnected"]);
    assert!(is_on_stream(&scenario));
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let mut scenario = blocked(12);
    scenario.connect_all();
    session_story(&mut scenario);
    scenario.lab.run_for(ms(2_000));
    let server = scenario.server;
    scenario.lab.restart(server);
    scenario.lab.run_for(ms(3_000));
    assert_eq!(session_story(&mut scenario), ["lost", "reconnected"]);
    assert!(is_on_stream(&scenario));
}

#[test]
fn nothing_that_comes_by_a_stream_is_taken_for_udp() {
    let mut scenario = blocked(13);
    scenario.connect_all();
    session_story(&mut scenario);
    let (node, server) = (scenario.nodes[0], scenario.server);
    let mut stun = Vec::new();
    crate::wire::stun::Request::new([3; 12]).encode(&mut stun);
    let mut initial = vec![0; 1_200];
    initial[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
    let probe = [4; 53];
    let hostile: [&[u8]; 8] = [
        &[],
        &[0],
        &[0xff; 1_500],
        &stun,
        &initial,
        &probe,
        &[6; 28],
        &[0x40; 60],
    ];
    for _ in 0..50 {
        for bytes in hostile {
            for host in [node, server] {
                for number in scenario.lab.streams(host) {
                    let source = scenario.lab.stream_source(host, number);
                    scenario.lab.inject(host, SocketName::Tunnel(number), source, bytes);
                    scenario.lab.inject(host, SocketName::Tunnel(number + 7), source, bytes);
                    let elsewhere = "203.0.113.200:443".parse().unwrap();
                    scenario.lab.inject(host, SocketName::Tunnel(number), elsewhere, bytes);
                }
            }
        }
    }
    scenario.lab.run_for(Duration::from_secs(20));
    assert!(is_on_stream(&scenario));
    assert_eq!(session_story(&mut scenario), [""; 0]);
    assert_eq!(registered(&scenario), 2);
}

#[test]
fn leaving_the_server_closes_the_stream() {
    let mut scenario = blocked(14);
    scenario.connect_all();
    let request = scenario.request(0, |request| Command::DisconnectServer { request });
    assert!(matches!(
        scenario.outcome(0, request),
        OwnedEvent::ServerDisconnected { .. }
    ));
    scenario.lab.run_for(ms(200));
    assert_eq!(registered(&scenario), 1);
    scenario.lab.run_for(ms(4_000));
    assert_eq!(scenario.lab.stream_count(scenario.server), 0);
    // A wish that is given up while streams are being tried leaves none.
    let request = scenario.connect_server(0);
    scenario.lab.run_for(ms(300));
    assert!(scenario.lab.stream_count(scenario.server) > 0);
    scenario.lab.command(scenario.nodes[0], Command::Cancel { request });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::Cancelled));
    scenario.lab.run_for(ms(500));
    assert_eq!(scenario.lab.stream_count(scenario.server), 0);
}

#[test]
fn a_server_behind_a_stream_that_says_nothing_is_a_failure() {
    let mut scenario = Scenario::builder(15).node(without_udp()).streams_at(HTTPS).build_raw();
    let host = scenario.nodes[0];
    let identity = crate::transport::identity::Identity::from_seed([9; 32]);
    let key = scenario.server_key;
    let config = crate::lab::scenario::node_config(identity);
    scenario.lab.crash(host);
    scenario.lab.start_node(host, config);
    let request = connect_with(&mut scenario, Some(key));
    let (code, text) = failure(&mut scenario, request);
    assert_eq!(code, Code::NoAnswer);
    assert!(text.contains("TCP 443: the server"), "{text}");
    assert_eq!(scenario.lab.stream_count(scenario.server), 0);
}
