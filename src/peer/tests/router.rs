//! Players that forward, and lie: forged, replayed and foreign messages, frames that are changed or dropped, bounds.

use super::ms;
use crate::codes::{Code, SendMode};
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::{Allocation, OwnedEvent, with_seeds};
use crate::peer::Node;
use crate::peer::api::Command;
use crate::peer::api::relay::{RelayCommand, RelayEvent, RouterOutcome};
use crate::transport::identity::Guid;
use crate::wire::peer::PeerControl;
use crate::wire::routing::{RouteGrant, RouteMessage, SignedShare};

const SYMMETRIC: RouterKind = RouterKind::Symmetric(Allocation::Random);

/// Players 0 and 1 behind symmetric routers, connected to the others, which have public addresses and forward.
fn friends(seed: u64, routers: usize) -> Scenario {
    let mut scenario = Scenario::builder(seed)
        .nodes(2, SYMMETRIC)
        .nodes(routers, RouterKind::Open)
        .configure_nodes(|player, config| config.router_max = if player >= 2 { 4 } else { 0 })
        .configure_server(|config| config.relay = crate::server::RelayConfig::Off)
        .build();
    scenario.connect_all();
    for router in 2..2 + routers {
        scenario.connect_pair(0, router);
        scenario.connect_pair(1, router);
    }
    scenario.lab.run_for(ms(3_000));
    for node in scenario.nodes.clone() {
        scenario.lab.take_events(node);
    }
    scenario
}

fn engine<R>(scenario: &mut Scenario, player: usize, act: impl FnOnce(&mut Node) -> R) -> R {
    let node = scenario.nodes[player];
    scenario.lab.with_engine(node, |engine: &mut Node, _| act(engine))
}

fn say(scenario: &mut Scenario, from: usize, to: usize, message: RouteMessage) {
    let to = scenario.guids[to];
    engine(scenario, from, |node| {
        let link = node.current_link(to).expect("the two are connected");
        node.transmit_wanted = true;
        node.send_control(link, &PeerControl::Route(message));
    });
}

fn dropped(scenario: &mut Scenario, player: usize) -> u64 {
    engine(scenario, player, |node| node.dropped.unknown)
}

fn outcome(scenario: &mut Scenario) -> Result<Guid, (RouterOutcome, Code)> {
    let peer = scenario.guids[1];
    let request = scenario.request(0, |request| Command::Relay(RelayCommand::Route { request, peer }));
    match scenario.outcome(0, request) {
        OwnedEvent::Relay(RelayEvent::RouterEstablished { via, .. }) => Ok(via),
        OwnedEvent::Relay(RelayEvent::RouterFailed { outcome, reason, .. }) => Err((outcome, reason.code)),
        other => panic!("{other:?}"),
    }
}

fn share() -> SignedShare {
    SignedShare {
        share: [9; 32],
        signature: [7; 64],
    }
}

fn grant(session: u64) -> RouteGrant {
    RouteGrant {
        session,
        ticket: vec![1; 98].into(),
        valid_ms: 60_000,
        key_number: 0,
        secret: [5; 32],
        idle_ms: 60_000,
    }
}

/// Ways that stand, and offers that wait for their proof.
fn state(scenario: &mut Scenario, player: usize) -> (usize, usize) {
    engine(scenario, player, |node| node.ways_and_coming())
}

#[test]
fn messages_that_nobody_asked_for_change_nothing() {
    with_seeds(0..4, |seed| {
        let mut scenario = friends(seed, 2);
        let via = outcome(&mut scenario).unwrap();
        let liar = if via == scenario.guids[2] { 3 } else { 2 };
        scenario.connect_pair(0, 1);
        let before = [0, 1].map(|player| state(&mut scenario, player));
        let introduction = engine(&mut scenario, 0, |node| node.way_introduction());
        let (key, target) = (scenario.keys[1], scenario.guids[1]);
        for player in [0, 1] {
            let dropped_before = dropped(&mut scenario, player);
            let code = Code::Closed.number();
            let forged = [
                RouteMessage::Ended { introduction, code },
                RouteMessage::Granted {
                    request: 1,
                    target: key,
                    share: share(),
                    grant: grant(1),
                },
                RouteMessage::Granted {
                    request: 2,
                    target: key,
                    share: share(),
                    grant: grant(2),
                },
                RouteMessage::Refused { request: 2, code },
                RouteMessage::Willing {
                    query: 1,
                    round_trip_us: 0,
                    load: 0,
                },
                RouteMessage::Accept {
                    introduction,
                    share: share(),
                },
                RouteMessage::Decline { introduction, code },
                RouteMessage::Offer {
                    introduction,
                    asker: scenario.keys[1 - player],
                    share: share(),
                    grant: grant(3),
                },
            ];
            let count = forged.len() as u64;
            for message in forged {
                say(&mut scenario, liar, player, message);
            }
            scenario.lab.run_for(ms(1_000));
            assert_eq!(
                dropped(&mut scenario, player) - dropped_before,
                count,
                "player {player}"
            );
        }
        // Nor at the router: the liar is no side of that pair.
        let router = 5 - liar;
        let linked = engine(&mut scenario, liar, |node| node.current_link(via).is_some());
        assert!(!linked, "player {router} and {liar} are strangers to each other");
        assert_eq!([0, 1].map(|player| state(&mut scenario, player)), before);
        for player in [0, 1] {
            let events = scenario.lab.take_events(scenario.nodes[player]);
            let told = events.iter().find(|recorded| {
                matches!(
                    recorded.event,
                    OwnedEvent::PathChanged { .. } | OwnedEvent::Disconnected { .. }
                )
            });
            assert!(told.is_none(), "{told:?}");
        }
        let node = scenario.nodes[0];
        scenario
            .lab
            .send(node, target, 0, SendMode::Reliable, b"still here")
            .unwrap();
        scenario.expect(1, "the message", |event| matches!(event, OwnedEvent::Message { .. }));
    });
}

#[test]
fn a_request_that_is_offered_again_leads_nowhere() {
    // Player 2 forwards honestly once, then offers the recorded request again, with tickets of its own and whatever probes it can make.
    let mut scenario = friends(3, 1);
    engine(&mut scenario, 1, |node| node.router.heard = Some(Vec::new()));
    assert_eq!(outcome(&mut scenario), Ok(scenario.guids[2]));
    scenario.connect_pair(0, 1);
    let heard = engine(&mut scenario, 1, |node| node.router.heard.take()).unwrap();
    let [
        RouteMessage::Offer {
            introduction,
            asker,
            share,
            ..
        },
    ] = heard[..]
    else {
        panic!("{heard:?}");
    };
    let (ways, _) = state(&mut scenario, 1);
    for session in 100..200 {
        let message = RouteMessage::Offer {
            introduction,
            asker,
            share,
            grant: grant(session),
        };
        say(&mut scenario, 2, 1, message);
    }
    scenario.lab.run_for(ms(500));
    // As many as one player may offer within ten seconds, unproven, and no way among them.
    let (now, coming) = state(&mut scenario, 1);
    assert_eq!(now, ways);
    assert!((1..=64).contains(&coming), "{coming}");
    let node = scenario.nodes[0];
    let peer = scenario.guids[1];
    scenario
        .lab
        .send(node, peer, 0, SendMode::Reliable, b"undisturbed")
        .unwrap();
    scenario.expect(1, "the message", |event| matches!(event, OwnedEvent::Message { .. }));
    scenario.lab.run_for(ms(10_000));
    assert_eq!(state(&mut scenario, 1), (1, 0));
    let rerouted = |event: &OwnedEvent| matches!(event, OwnedEvent::Relay(RelayEvent::Rerouted { .. }));
    let told = scenario.lab.take_events(scenario.nodes[1]);
    assert_eq!(told.iter().filter(|recorded| rerouted(&recorded.event)).count(), 1);
}

#[test]
fn a_router_cannot_put_itself_in_the_targets_place() {
    let mut scenario = friends(4, 1);
    engine(&mut scenario, 2, |node| node.router.heard = Some(Vec::new()));
    // It answers the request before the target can: with its own key, or with the target's key and a share that it made itself.
    let (own, target) = (scenario.keys[2], scenario.keys[1]);
    for key in [own, target] {
        let before = dropped(&mut scenario, 0);
        let peer = scenario.guids[1];
        let request = scenario.request(0, |request| Command::Relay(RelayCommand::Route { request, peer }));
        let heard = |node: &mut Node| {
            let mut heard = node.router.heard.as_mut().expect("it records").drain(..);
            heard.find_map(|message| match message {
                RouteMessage::Request { request, .. } => Some(request),
                _ => None,
            })
        };
        let mut asked = None;
        while asked.is_none() {
            scenario.lab.run_for(ms(5));
            asked = engine(&mut scenario, 2, heard);
        }
        let message = RouteMessage::Granted {
            request: asked.unwrap(),
            target: key,
            share: share(),
            grant: grant(1),
        };
        say(&mut scenario, 2, 0, message);
        let ended = scenario.outcome(0, request);
        assert_eq!(ended.code(), Some(Code::WrongKey), "{ended:?}");
        assert!(dropped(&mut scenario, 0) > before);
        scenario.lab.run_for(ms(6_000));
        assert_eq!(state(&mut scenario, 0), (0, 0));
        assert_eq!(state(&mut scenario, 1), (0, 0));
    }
    assert_eq!(outcome(&mut scenario), Ok(scenario.guids[2]));
}

#[test]
fn changed_and_dropped_frames_are_a_bad_line_at_most() {
    with_seeds(0..4, |seed| {
        let mut scenario = friends(seed, 2);
        // Whatever passes through either is bent in its payload: no proof comes, and no way is taken.
        for router in [2, 3] {
            engine(&mut scenario, router, |node| {
                node.router.forwarding.tamper = Some(|frame| {
                    if let Some(last) = frame.last_mut() {
                        *last ^= 1;
                    }
                    true
                });
            });
        }
        let failed = outcome(&mut scenario);
        assert_eq!(failed, Err((RouterOutcome::Failed, Code::TargetUnresponsive)));
        for player in [0, 1] {
            assert_eq!(state(&mut scenario, player), (0, 0));
        }
        // An honest one that begins to drop everything later: the other takes over.
        for router in [2, 3] {
            engine(&mut scenario, router, |node| node.router.forwarding.tamper = None);
        }
        scenario.lab.run_for(ms(12_000));
        let via = outcome(&mut scenario).unwrap();
        scenario.connect_pair(0, 1);
        let first = if via == scenario.guids[2] { 2 } else { 3 };
        engine(&mut scenario, first, |node| {
            node.router.forwarding.tamper = Some(|_| false)
        });
        let (node, peer) = (scenario.nodes[0], scenario.guids[1]);
        for _ in 0..100 {
            scenario
                .lab
                .send(node, peer, 0, SendMode::Reliable, b"through")
                .unwrap();
            scenario.lab.run_for(ms(50));
        }
        scenario.lab.run_for(ms(3_000));
        assert_eq!(scenario.take_messages(1).len(), 100);
        let next = scenario.guids[5 - first];
        for player in [0, 1] {
            scenario.expect(
                player,
                "ROUTER_REROUTED",
                |event| matches!(event, OwnedEvent::Relay(RelayEvent::Rerouted { via, .. }) if *via == next),
            );
        }
    });
}

#[test]
fn frames_count_only_from_the_pairs_own_players() {
    let mut scenario = friends(5, 1);
    outcome(&mut scenario).unwrap();
    scenario.connect_pair(0, 1);
    scenario.lab.run_for(ms(1_000));
    scenario.lab.capture_sent();
    let (node, peer) = (scenario.nodes[0], scenario.guids[1]);
    scenario.lab.send(node, peer, 0, SendMode::Reliable, b"secret").unwrap();
    scenario.lab.run_for(ms(500));
    let sent = scenario.lab.take_sent();
    let frame = sent
        .iter()
        .find(|sent| sent.host == node && sent.contents.first() == Some(&6));
    let frame = frame.expect("a frame went out").contents.clone();
    // The router passes on what it cannot read.
    assert!(!frame.windows(6).any(|window| window == b"secret"));
    let before = engine(&mut scenario, 2, |node| node.router.forwarding.dropped);
    let router = scenario.nodes[2];
    for port in 0..50 {
        let source = std::net::SocketAddr::from(([203, 0, 113, 7], 1_000 + port));
        scenario
            .lab
            .inject(router, crate::engine::SocketName::Udp4, source, &frame);
    }
    scenario.lab.run_for(ms(200));
    let after = engine(&mut scenario, 2, |node| node.router.forwarding.dropped);
    assert_eq!(after - before, 50);
}

#[test]
fn a_player_gets_no_more_requests_than_its_share() {
    let mut scenario = friends(6, 1);
    let target = scenario.guids[1];
    for request in 0..200 {
        let message = RouteMessage::Request {
            request,
            target,
            introduction: u64::from(request),
            share: share(),
        };
        say(&mut scenario, 0, 2, message);
    }
    scenario.lab.run_for(ms(50));
    assert!(engine(&mut scenario, 2, |node| node.router.forwarding.pairs()) <= 1);
    scenario.lab.run_for(ms(5_000));
    // None was signed by the asker, so the target took none of them.
    assert_eq!(state(&mut scenario, 1), (0, 0));
    assert_eq!(engine(&mut scenario, 2, |node| node.router.forwarding.pairs()), 0);
    scenario.lab.run_for(ms(10_000));
    assert_eq!(outcome(&mut scenario), Ok(scenario.guids[2]));
}
