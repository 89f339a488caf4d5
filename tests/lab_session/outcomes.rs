//! Every outcome of opening a way, at both ends; and the failures to connect that need a server.

use std::time::Duration;

use lanline::codes::{Code, PathKind, SendMode};
use lanline::engine::SocketName;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Allocation, OwnedEvent, Party};
use lanline::peer::api::{Command, NatOutcome, RequestId};
use lanline::transport::identity::Guid;
use lanline::wire::control::{Consent, RelayPolicy};

use super::{ms, pair};

fn open(scenario: &mut Scenario, player: usize, peer: Guid) -> RequestId {
    scenario.request(player, |request| Command::OpenNat { request, peer })
}

/// Outcome, code and `sender` of a failure.
fn failure(event: OwnedEvent) -> (NatOutcome, Code, bool) {
    match event {
        OwnedEvent::NatFailed {
            outcome,
            reason,
            sender,
            ..
        } => {
            assert!(!reason.text.is_empty());
            (outcome, reason.code, sender)
        }
        other => panic!("{other:?}"),
    }
}

/// The failure that a player hears of an attempt that `peer` began.
fn failure_at_target(scenario: &mut Scenario, player: usize, peer: Guid) -> (NatOutcome, Code, bool) {
    let about =
        |event: &OwnedEvent| matches!(event, OwnedEvent::NatFailed { peer: other, request: 0, .. } if *other == peer);
    failure(scenario.expect(player, "the failure at the other end", about).event)
}

/// Two connected players whose packets do not reach each other.
fn apart(seed: u64) -> Scenario {
    let mut scenario = pair(seed, RouterKind::PortRestricted, RouterKind::Open)
        .configure_nodes(|_, config| config.relay_policy = RelayPolicy::Never)
        .build();
    scenario.connect_all();
    scenario
        .lab
        .partition(Party::Host(scenario.nodes[0]), Party::Host(scenario.nodes[1]));
    scenario
}

#[test]
fn success_comes_at_both_ends_and_says_who_asked() {
    let mut scenario = pair(50, RouterKind::FullCone, RouterKind::PortRestricted).build();
    scenario.connect_all();
    let (asker, target) = (scenario.guids[0], scenario.guids[1]);
    let request = open(&mut scenario, 0, target);
    let asked = scenario.outcome(0, request);
    assert!(
        matches!(asked, OwnedEvent::NatSucceeded { peer, path: PathKind::Direct, sender: true, .. } if peer == target),
        "{asked:?}"
    );
    let told = scenario.expect(1, "success", |event| matches!(event, OwnedEvent::NatSucceeded { .. }));
    assert!(
        matches!(told.event, OwnedEvent::NatSucceeded { request: 0, peer, path: PathKind::Direct, sender: false, .. } if peer == asker),
        "{told:?}"
    );
    // A way is no connection.
    scenario.lab.run_for(ms(2_000));
    for node in scenario.nodes.clone() {
        assert!(scenario.lab.take_events(node).is_empty());
    }
}

#[test]
fn routers_that_cannot_be_crossed_fail_at_both_ends() {
    let mut scenario = apart(51);
    let (asker, target) = (scenario.guids[0], scenario.guids[1]);
    let request = open(&mut scenario, 0, target);
    assert_eq!(
        failure(scenario.outcome(0, request)),
        (NatOutcome::Failed, Code::NoDirectPath, true)
    );
    assert_eq!(
        failure_at_target(&mut scenario, 1, asker),
        (NatOutcome::Failed, Code::NoDirectPath, false)
    );
}

#[test]
fn a_target_that_was_stopped_is_unresponsive() {
    let mut scenario = apart(52);
    let target = scenario.guids[1];
    // As a stopped process looks from outside: there, and silent.
    scenario.lab.crash(scenario.nodes[1]);
    let request = open(&mut scenario, 0, target);
    assert_eq!(
        failure(scenario.outcome(0, request)),
        (NatOutcome::TargetUnresponsive, Code::TargetUnresponsive, true)
    );
    // Once the server has missed it for long enough it is not there any more.
    scenario.lab.run_for(Duration::from_secs(60));
    let request = open(&mut scenario, 0, target);
    assert_eq!(
        failure(scenario.outcome(0, request)),
        (NatOutcome::TargetNotConnected, Code::TargetNotConnected, true)
    );
}

#[test]
fn a_target_that_leaves_the_server_meanwhile_is_lost_and_hears_of_the_end_itself() {
    let mut scenario = apart(53);
    let (asker, target) = (scenario.guids[0], scenario.guids[1]);
    let request = open(&mut scenario, 0, target);
    scenario.lab.run_for(ms(300));
    scenario.request(1, |request| Command::DisconnectServer { request });
    assert_eq!(
        failure(scenario.outcome(0, request)),
        (NatOutcome::ConnectionToTargetLost, Code::TargetLost, true)
    );
    let (outcome, _, sender) = failure_at_target(&mut scenario, 1, asker);
    assert_eq!((outcome, sender), (NatOutcome::Failed, false));
}

#[test]
fn an_asker_that_leaves_the_server_meanwhile_is_lost_to_its_target() {
    let mut scenario = apart(54);
    let (asker, target) = (scenario.guids[0], scenario.guids[1]);
    open(&mut scenario, 0, target);
    scenario.lab.run_for(ms(300));
    scenario.lab.crash(scenario.nodes[0]);
    let (outcome, _, sender) = failure_at_target(&mut scenario, 1, asker);
    assert!(!sender);
    assert!(
        matches!(outcome, NatOutcome::Failed | NatOutcome::ConnectionToTargetLost),
        "{outcome:?}"
    );
}

#[test]
fn a_second_wish_is_told_that_the_first_runs_and_the_first_ends_by_itself() {
    let mut scenario = pair(55, RouterKind::PortRestricted, RouterKind::PortRestricted).build();
    scenario.connect_all();
    let other = scenario.guids[1];
    let first = open(&mut scenario, 0, other);
    let second = open(&mut scenario, 0, other);
    assert_eq!(
        failure(scenario.outcome(0, second)),
        (NatOutcome::AlreadyInProgress, Code::AlreadyInProgress, true)
    );
    let ended = scenario.outcome(0, first);
    assert!(matches!(ended, OwnedEvent::NatSucceeded { .. }), "{ended:?}");
    // Both at the same moment: each request has its end, and there is a way for both.
    let mut scenario = pair(56, RouterKind::PortRestricted, RouterKind::PortRestricted).build();
    scenario.connect_all();
    let (one, other) = (scenario.guids[0], scenario.guids[1]);
    let requests = [open(&mut scenario, 0, other), open(&mut scenario, 1, one)];
    let mut opened = 0;
    for (player, request) in requests.into_iter().enumerate() {
        match scenario.outcome(player, request) {
            OwnedEvent::NatSucceeded { .. } => opened += 1,
            event => assert_eq!(failure(event).0, NatOutcome::AlreadyInProgress),
        }
    }
    assert!(opened >= 1);
    scenario.connect_pair(1, 0);
}

#[test]
fn policies_and_consent_decline_with_their_codes() {
    let mut scenario = Scenario::builder(57)
        .nodes(4, RouterKind::Open)
        .configure_nodes(|number, config| match number {
            1 => config.relay_policy = RelayPolicy::Only,
            2 => config.accept_from = Consent::Nobody,
            _ => {}
        })
        .build();
    scenario.connect_all();
    for (asker, target, code) in [(1, 0, Code::Policy), (0, 1, Code::Policy), (0, 2, Code::Refused)] {
        let peer = scenario.guids[target];
        let request = open(&mut scenario, asker, peer);
        assert_eq!(
            failure(scenario.outcome(asker, request)),
            (NatOutcome::Failed, code, true),
            "{asker} to {target}"
        );
        assert!(scenario.lab.take_events(scenario.nodes[target]).is_empty());
    }
    let event = scenario.try_connect_pair(0, 2).unwrap_err();
    assert!(matches!(event, OwnedEvent::ConnectionFailed { .. }), "{event:?}");
    assert_eq!(event.code(), Some(Code::Refused));
    assert!(scenario.lab.take_events(scenario.nodes[2]).is_empty());
    // Who hides has no direct way; a connection, over the relay, it has.
    scenario.connect_pair(1, 0);
    // Who accepts nobody's introduction may still ask for one.
    scenario.connect_pair(2, 3);
}

#[test]
fn each_failure_of_a_way_is_the_failure_of_the_connection_that_waits_for_it() {
    let mut scenario = apart(58);
    let event = scenario.try_connect_pair(0, 1).unwrap_err();
    assert_eq!(event.code(), Some(Code::NoDirectPath));
    let peer = Some(Guid(42));
    let address = None;
    let request = scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::TargetNotConnected));
    let peer = Some(scenario.guids[1]);
    let request = scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    scenario.lab.run_for(ms(200));
    scenario.lab.command(scenario.nodes[0], Command::Cancel { request });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::Cancelled));
}

#[test]
fn servers_that_are_full_or_none_say_so() {
    let connect = |scenario: &mut Scenario, player, host: String, port| {
        let request = scenario.request(player, |request| Command::ConnectServer {
            request,
            host,
            port,
            key: None,
        });
        scenario.outcome(player, request)
    };
    let mut scenario = Scenario::builder(59)
        .nodes(2, RouterKind::Open)
        .configure_server(|config| config.max_nodes = 1)
        .build();
    let server = scenario.server_address;
    connect(&mut scenario, 0, server.ip().to_string(), server.port());
    let event = connect(&mut scenario, 1, server.ip().to_string(), server.port());
    assert!(matches!(event, OwnedEvent::ServerFailed { .. }), "{event:?}");
    assert_eq!(event.code(), Some(Code::Full));
    // A player is no server.
    let player = scenario.lab.socket_address(scenario.nodes[0], SocketName::Udp4);
    let event = connect(&mut scenario, 1, player.ip().to_string(), player.port());
    assert_eq!(event.code(), Some(Code::Incompatible));
}

#[test]
fn symmetric_routers_meet_open_and_address_restricted_ones() {
    let sequential = Allocation::Sequential {
        step: 1,
        foreign_per_second: 0.0,
    };
    for allocation in [Allocation::Preserving, sequential, Allocation::Random] {
        for kind in [RouterKind::Open, RouterKind::FullCone, RouterKind::AddressRestricted] {
            for asker in [0, 1] {
                let name = format!("{kind:?} and {allocation:?}, asked by {asker}");
                let mut scenario = pair(60, kind.clone(), RouterKind::Symmetric(allocation)).build();
                scenario.connect_all();
                let opened = scenario.open_nat(asker, 1 - asker);
                let opened = opened.unwrap_or_else(|event| panic!("{name}: {event:?}"));
                assert_eq!(opened.path, PathKind::Direct, "{name}");
                scenario.connect_pair(asker, 1 - asker);
                let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
                scenario.lab.send(sender, peer, 0, SendMode::Reliable, b"hi").unwrap();
                scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
            }
        }
    }
}

#[test]
fn a_router_that_forgets_everything_is_survived() {
    for (allocation, moves) in [(Allocation::Preserving, false), (Allocation::Random, true)] {
        let router = RouterKind::Custom(lanline::lab::RouterConfig::port_restricted().with_allocation(allocation));
        let mut scenario = pair(61, router, RouterKind::Open).build();
        scenario.connect_all();
        scenario.connect_pair(0, 1);
        scenario.lab.run_for(ms(3_000));
        let begin = scenario.lab.elapsed();
        scenario.lab.take_events(scenario.nodes[0]);
        scenario.lab.reboot_router(scenario.routers[0].unwrap());
        scenario.lab.run_for(Duration::from_secs(45));
        let events = scenario.lab.take_events(scenario.nodes[0]);
        let at = |wanted: fn(&OwnedEvent) -> bool| {
            let mut found = events.iter().filter(|recorded| wanted(&recorded.event));
            found.next().map(|recorded| recorded.time - begin)
        };
        let server_lost = at(|event| matches!(event, OwnedEvent::ServerLost { .. }));
        let server_back = at(|event| matches!(event, OwnedEvent::ServerReconnected { .. }));
        let peer_lost = at(|event| matches!(event, OwnedEvent::Disconnected { .. }));
        if moves {
            // A keep-alive of 2.5 s stays unanswered, then a ping; the connection to the player goes on over its new address.
            assert!(server_lost.is_some_and(|time| time <= ms(5_000)), "{events:?}");
            assert!(server_back.is_some_and(|time| time <= ms(6_000)), "{events:?}");
            assert_eq!(peer_lost, None, "{events:?}");
        } else {
            assert!(events.is_empty(), "{events:?}");
        }
        // Whatever became of it, the node is at the server, and its connection carries messages.
        let (sender, peer) = (scenario.nodes[1], scenario.guids[0]);
        scenario.lab.send(sender, peer, 0, SendMode::Reliable, b"hi").unwrap();
        scenario.expect(0, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
        let peer = scenario.guids[0];
        let request = open(&mut scenario, 1, peer);
        let outcome = scenario.outcome(1, request);
        assert!(matches!(outcome, OwnedEvent::NatSucceeded { .. }), "{outcome:?}");
    }
}
