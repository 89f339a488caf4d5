//! The beginning of a connection over a relay, counted in round trips R between each player and the server, which relays.

use std::time::Duration;

use lanline::codes::{Code, PathKind, SendMode};
use lanline::lab::figures::OPENING_SLACK;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Allocation, OwnedEvent, assert_share_of_seeds};
use lanline::peer::api::Command;
use lanline::wire::control::RelayPolicy;

use super::{ms, pair};

/// What the engines' timers add, and the ways between players and their routers.
const SLACK: Duration = ms(6);

fn symmetric() -> RouterKind {
    RouterKind::Symmetric(Allocation::Random)
}

fn kinds() -> Vec<RouterKind> {
    let mut kinds = RouterKind::EASY.to_vec();
    kinds.push(symmetric());
    kinds
}

fn warm(seed: u64, kinds: [RouterKind; 2], round_trip: Duration, loss: f64) -> Scenario {
    let [one, other] = kinds;
    let mut scenario = pair(seed, one, other)
        .round_trips(round_trip, round_trip)
        .loss(loss)
        .build();
    scenario.connect_all();
    // Discovery and address updates of the sessions' beginnings are over.
    scenario.lab.run_for(ms(3_000));
    scenario
}

/// From the call to the first message at the other side; player 0 calls, and sends as soon as it is connected.
fn first_message(scenario: &mut Scenario) -> Result<(Duration, PathKind), String> {
    let begin = scenario.lab.elapsed();
    let (peer, address) = (Some(scenario.guids[1]), None);
    let request = scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    let OwnedEvent::Connected { path, .. } = scenario.outcome(0, request) else {
        return Err(format!("lab seed {}: not connected", scenario.lab.seed()));
    };
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    let sent = scenario.lab.send(sender, peer, 0, SendMode::ReliableOrdered, b"first");
    sent.map_err(|error| format!("{error:?}"))?;
    let arrived = scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
    Ok((arrived.time - begin, path))
}

#[test]
fn the_first_message_arrives_after_three_round_trips() {
    for round_trip in [20, 60, 100, 200] {
        let round_trip = ms(round_trip);
        for one in kinds() {
            for other in kinds() {
                let mut scenario = warm(1, [one.clone(), other.clone()], round_trip, 0.0);
                let took = first_message(&mut scenario);
                assert!(
                    took.as_ref().is_ok_and(|(took, _)| *took <= 3 * round_trip + SLACK),
                    "{one:?} to {other:?}, R {round_trip:?}: {took:?}"
                );
            }
        }
    }
}

#[test]
fn with_a_twentieth_lost_it_seldom_takes_much_longer() {
    let round_trip = ms(60);
    assert_share_of_seeds(0.95, 0..200, |seed| {
        let all = kinds();
        let chosen = [seed as usize % 5, seed as usize / 5 % 5].map(|kind| all[kind].clone());
        let mut scenario = warm(seed, chosen, round_trip, 0.05);
        match first_message(&mut scenario) {
            Ok((took, _)) if took <= 3 * round_trip + ms(600) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// On an opened way the greeting costs nothing either: the message follows on the handshake.
#[test]
fn over_an_opened_way_the_first_message_takes_a_trip_and_a_half() {
    for round_trip in [20, 60, 200] {
        let round_trip = ms(round_trip);
        for kind in RouterKind::EASY {
            let mut scenario = warm(1, [kind.clone(), kind.clone()], round_trip, 0.0);
            assert!(scenario.open_nat(0, 1).is_ok());
            let took = first_message(&mut scenario);
            let bound = round_trip * 3 / 2 + SLACK;
            assert!(
                took.as_ref().is_ok_and(|(took, _)| *took <= bound),
                "{kind:?}: {took:?}"
            );
        }
    }
}

#[test]
fn a_direct_path_takes_over_as_soon_as_it_is_there() {
    for round_trip in [20, 60, 100, 200] {
        let round_trip = ms(round_trip);
        for one in RouterKind::EASY {
            for other in RouterKind::EASY {
                let mut scenario = warm(1, [one.clone(), other.clone()], round_trip, 0.0);
                let begin = scenario.lab.elapsed();
                let (_, path) = first_message(&mut scenario).unwrap();
                if path == PathKind::Direct {
                    continue;
                }
                let changed = scenario.expect(0, "a direct path", |event| {
                    matches!(
                        event,
                        OwnedEvent::PathChanged {
                            to: PathKind::Direct,
                            ..
                        }
                    )
                });
                // The punch takes R + D, and what follows two more.
                let took = changed.time - begin;
                let bound = 4 * round_trip + OPENING_SLACK;
                assert!(took <= bound, "{one:?} to {other:?}, {round_trip:?}: {took:?}");
            }
        }
    }
}

/// Where either side wants no relay, the first datagram has come for nothing, and everything is as it would be without.
#[test]
fn without_a_relay_the_dial_waits_for_its_direct_way() {
    let round_trip = ms(60);
    for unwilling in [0, 1] {
        for kind in RouterKind::EASY {
            let mut scenario = pair(1, kind.clone(), kind.clone())
                .round_trips(round_trip, round_trip)
                .configure_nodes(move |number, config| {
                    if number == unwilling {
                        config.relay_policy = RelayPolicy::Never;
                    }
                })
                .build();
            scenario.connect_all();
            let (took, path) = first_message(&mut scenario).unwrap();
            assert_eq!(path, PathKind::Direct);
            // Introduction and punch, then the handshake and half a trip.
            assert!(took <= round_trip * 7 / 2 + OPENING_SLACK, "{kind:?}: {took:?}");
        }
        let hard = [symmetric(), symmetric()];
        let [one, other] = hard;
        let mut scenario = pair(1, one, other)
            .configure_nodes(move |number, config| {
                if number == unwilling {
                    config.relay_policy = RelayPolicy::Never;
                }
            })
            .build();
        scenario.connect_all();
        let (peer, address) = (Some(scenario.guids[1]), None);
        let request = scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
        let outcome = scenario.outcome(0, request);
        assert_eq!(outcome.code(), Some(Code::NoDirectPath), "{outcome:?}");
    }
}
