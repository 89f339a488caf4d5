//! Links to players: every way to fail, both sides dialling at once, restarts, the order of events.

use std::net::SocketAddr;

use super::{connection_story, ms, players};
use crate::codes::{Code, PathKind, SendMode};
use crate::engine::SocketName;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::{OwnedEvent, with_seeds};
use crate::peer::Node;
use crate::peer::api::{Command, MeshCommand, MeshEvent, RequestId};
use crate::transport::identity::Guid;
use crate::wire::control::RelayPolicy;

fn connect(scenario: &mut Scenario, player: usize, peer: Option<Guid>, address: Option<SocketAddr>) -> RequestId {
    scenario.request(player, |request| Command::ConnectPeer { request, peer, address })
}

fn address_of(scenario: &Scenario, player: usize) -> SocketAddr {
    scenario.lab.socket_address(scenario.nodes[player], SocketName::Udp4)
}

fn failure(scenario: &mut Scenario, player: usize, request: RequestId) -> Code {
    match scenario.outcome(player, request) {
        OwnedEvent::ConnectionFailed { reason, .. } => reason.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_alone_is_enough_and_reports_who_is_there() {
    let mut scenario = Scenario::builder(1).nodes(2, RouterKind::Open).build();
    let address = address_of(&scenario, 1);
    let request = connect(&mut scenario, 0, None, Some(address));
    let OwnedEvent::Connected {
        peer,
        path,
        address: reported,
        ..
    } = scenario.outcome(0, request)
    else {
        panic!("not connected")
    };
    assert_eq!((peer, path, reported), (scenario.guids[1], PathKind::Direct, address));
    let own = scenario.guids[0];
    scenario.expect(
        1,
        "CONNECTED",
        |event| matches!(event, OwnedEvent::Connected { peer, request: 0, .. } if *peer == own),
    );
}

#[test]
fn each_failure_to_connect_has_its_code() {
    let mut scenario = Scenario::builder(2)
        .nodes(4, RouterKind::Open)
        .configure_nodes(|number, config| match number {
            2 => config.relay_policy = RelayPolicy::Only,
            3 => config.app = "another game".into(),
            _ => {}
        })
        .build();
    let (one, third) = (scenario.guids[1], scenario.guids[2]);
    let nowhere = Some(SocketAddr::from(([203, 0, 113, 77], 9)));
    let at_one = Some(address_of(&scenario, 1));
    let at_foreign = Some(address_of(&scenario, 3));
    let own = Some(address_of(&scenario, 0));
    let cases = [
        (0, None, nowhere, Code::NoAnswer),
        (0, Some(third), at_one, Code::WrongKey),
        (0, Some(one), None, Code::ServerLost),
        (0, None, at_foreign, Code::Incompatible),
        (0, None, own, Code::Self_),
        (
            0,
            None,
            Some(SocketAddr::from(([224, 0, 0, 1], 9))),
            Code::InvalidArgument,
        ),
        (2, Some(one), at_one, Code::Policy),
    ];
    for (player, peer, address, code) in cases {
        let request = connect(&mut scenario, player, peer, address);
        assert_eq!(failure(&mut scenario, player, request), code, "{peer:?} {address:?}");
    }
}

#[test]
fn a_connected_peer_answers_every_further_wish_at_once() {
    let mut scenario = players(3, 2);
    scenario.connect_pair(0, 1);
    let peer = scenario.guids[1];
    let before = scenario.lab.elapsed();
    for address in [None, Some(address_of(&scenario, 1))] {
        let request = connect(&mut scenario, 0, Some(peer), address);
        assert!(matches!(scenario.outcome(0, request), OwnedEvent::Connected { .. }));
    }
    let request = scenario.request(0, |request| Command::OpenNat { request, peer });
    assert!(matches!(
        scenario.outcome(0, request),
        OwnedEvent::NatSucceeded { sender: true, .. }
    ));
    assert_eq!(scenario.lab.elapsed(), before);
    let address = Some(address_of(&scenario, 1));
    let request = connect(&mut scenario, 0, None, address);
    assert!(matches!(scenario.outcome(0, request), OwnedEvent::Connected { .. }));
    scenario.lab.run_for(ms(3_000));
    assert!(connection_story(&mut scenario, 0, peer).is_empty());
}

#[test]
fn both_dialling_at_once_end_with_one_connection_and_every_request_answered() {
    with_seeds(0..60, |seed| {
        let mut scenario = players(seed, 2);
        let (first, second) = (scenario.guids[0], scenario.guids[1]);
        let (at_first, at_second) = (Some(address_of(&scenario, 0)), Some(address_of(&scenario, 1)));
        // By guid, by address alone, by both; the second side a little later.
        let by = |guid: Guid, address, kind: u64| match kind % 3 {
            0 => (Some(guid), None),
            1 => (None, address),
            _ => (Some(guid), address),
        };
        let (peer, address) = by(second, at_second, seed);
        let one = [
            connect(&mut scenario, 0, peer, address),
            connect(&mut scenario, 0, Some(second), None),
        ];
        scenario.lab.run_for(ms(seed * 7 % 160));
        let (peer, address) = by(first, at_first, seed / 3);
        let other = [connect(&mut scenario, 1, peer, address)];
        for (player, request) in one
            .map(|request| (0, request))
            .into_iter()
            .chain(other.map(|request| (1, request)))
        {
            let outcome = scenario.outcome(player, request);
            assert!(matches!(outcome, OwnedEvent::Connected { .. }), "{outcome:?}");
        }
        scenario.lab.run_for(ms(9_000));
        for (player, peer) in [(0, second), (1, first)] {
            // What is left of the story holds no end.
            let story = connection_story(&mut scenario, player, peer);
            assert!(story.iter().all(|event| *event == "connected"), "{player}: {story:?}");
            scenario
                .lab
                .send(scenario.nodes[player], peer, 0, SendMode::Reliable, b"there")
                .unwrap();
        }
        scenario.lab.run_for(ms(1_000));
        assert_eq!(
            (scenario.take_messages(0).len(), scenario.take_messages(1).len()),
            (1, 1)
        );
    });
}

#[test]
fn without_wishes_of_its_own_a_side_hears_of_one_connection() {
    with_seeds(0..20, |seed| {
        let mut scenario = players(seed, 2);
        let (first, second) = (scenario.guids[0], scenario.guids[1]);
        connect(&mut scenario, 0, Some(second), None);
        scenario.lab.run_for(ms(3_000));
        assert_eq!(connection_story(&mut scenario, 0, second), ["connected"]);
        assert_eq!(connection_story(&mut scenario, 1, first), ["connected"]);
    });
}

#[test]
fn a_player_that_restarts_under_its_key_replaces_its_old_connection() {
    let mut scenario = players(5, 2);
    scenario.connect_pair(0, 1);
    let (first, second) = (scenario.guids[0], scenario.guids[1]);
    connection_story(&mut scenario, 1, first);
    scenario.lab.restart(scenario.nodes[0]);
    let address = Some(address_of(&scenario, 1));
    let request = connect(&mut scenario, 0, Some(second), address);
    assert!(matches!(scenario.outcome(0, request), OwnedEvent::Connected { .. }));
    scenario.lab.run_for(ms(500));
    assert_eq!(connection_story(&mut scenario, 1, first), ["disconnected", "connected"]);
    scenario
        .lab
        .send(scenario.nodes[1], first, 0, SendMode::Reliable, b"again")
        .unwrap();
    scenario.lab.run_for(ms(500));
    assert_eq!(scenario.take_messages(0).len(), 1);
    // The old one does not end a second time.
    scenario.lab.run_for(ms(20_000));
    assert!(connection_story(&mut scenario, 1, first).is_empty());
}

#[test]
fn the_last_messages_come_before_the_end_even_when_there_was_no_room() {
    let mut scenario = players(6, 2);
    scenario.connect_pair(0, 1);
    let (first, second) = (scenario.guids[0], scenario.guids[1]);
    scenario.lab.take_events(scenario.nodes[1]);
    scenario.lab.set_reliable_room(scenario.nodes[1], false);
    for _ in 0..5 {
        scenario
            .lab
            .send(scenario.nodes[0], second, 0, SendMode::ReliableOrdered, b"last words")
            .unwrap();
    }
    let peer = second;
    let text = "bye".to_owned();
    scenario.lab.command(
        scenario.nodes[0],
        Command::Disconnect {
            peer,
            user_code: 4,
            text,
        },
    );
    scenario.lab.run_for(ms(1_000));
    assert!(connection_story(&mut scenario, 1, first).is_empty());
    // It calls again before the game has read the end of the first connection.
    let request = connect(&mut scenario, 0, Some(second), None);
    let outcome = scenario.outcome(0, request);
    assert!(matches!(outcome, OwnedEvent::Connected { .. }), "{outcome:?}");
    scenario
        .lab
        .send(scenario.nodes[0], second, 0, SendMode::ReliableOrdered, b"first words")
        .unwrap();
    scenario.lab.run_for(ms(1_000));
    scenario.lab.set_reliable_room(scenario.nodes[1], true);
    scenario.lab.run_for(ms(5_000));
    let story = connection_story(&mut scenario, 1, first);
    let expected = [
        "message",
        "message",
        "message",
        "message",
        "message",
        "disconnected",
        "connected",
        "message",
    ];
    assert_eq!(story, expected);
}

#[test]
fn a_cancelled_wish_ends_once_and_leaves_others_alone() {
    let mut scenario = players(7, 2);
    let peer = Some(scenario.guids[1]);
    let [cancelled, kept] = [0; 2].map(|_| connect(&mut scenario, 0, peer, None));
    scenario
        .lab
        .command(scenario.nodes[0], Command::Cancel { request: cancelled });
    assert_eq!(failure(&mut scenario, 0, cancelled), Code::Cancelled);
    assert!(matches!(scenario.outcome(0, kept), OwnedEvent::Connected { .. }));
    scenario
        .lab
        .command(scenario.nodes[0], Command::Cancel { request: kept });
    scenario.lab.run_for(ms(1_000));
    assert!(
        scenario
            .lab
            .events(scenario.nodes[0])
            .iter()
            .all(|event| event.event.ends_request().is_none_or(|request| request == 0))
    );
}

#[test]
fn own_wishes_count_against_the_limit() {
    let mut scenario = Scenario::builder(8)
        .nodes(3, RouterKind::Open)
        .configure_nodes(|number, config| config.max_peers = if number == 0 { 1 } else { 8 })
        .build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    let peer = Some(scenario.guids[2]);
    let request = connect(&mut scenario, 0, peer, None);
    assert_eq!(failure(&mut scenario, 0, request), Code::Full);
    // One leaves: there is room again.
    let leaver = scenario.guids[1];
    let text = String::new();
    scenario.lab.command(
        scenario.nodes[0],
        Command::Disconnect {
            peer: leaver,
            user_code: 0,
            text,
        },
    );
    scenario.connect_pair(0, 2);
}

#[test]
fn a_game_that_fetches_no_events_takes_in_nobody_and_keeps_whom_it_has() {
    let mut scenario = players(9, 4);
    scenario.connect_pair(1, 0);
    let busy = scenario.nodes[0];
    scenario
        .lab
        .with_engine(busy, |node: &mut Node, _| node.set_accepting(false));
    scenario.lab.take_events(busy);
    // By address, and by way of the server.
    let address = Some(address_of(&scenario, 0));
    let peer = Some(scenario.guids[0]);
    let request = connect(&mut scenario, 2, peer, address);
    let OwnedEvent::ConnectionFailed { reason, .. } = scenario.outcome(2, request) else {
        panic!("it was let in")
    };
    assert_eq!(reason.code, Code::Full);
    assert!(reason.text.contains("does not fetch its events"), "{}", reason.text);
    assert!(scenario.open_nat(2, 0).is_err());
    assert!(scenario.lab.events(busy).is_empty(), "{:?}", scenario.lab.events(busy));
    let peer = scenario.guids[0];
    scenario
        .lab
        .send(scenario.nodes[1], peer, 0, SendMode::Reliable, b"still here")
        .unwrap();
    scenario.lab.run_for(ms(500));
    assert_eq!(scenario.take_messages(0).len(), 1);
    // Its own wishes go on, and in the end everybody may come again.
    scenario.connect_pair(0, 3);
    scenario
        .lab
        .with_engine(busy, |node: &mut Node, _| node.set_accepting(true));
    scenario.connect_pair(2, 0);
}

#[test]
fn a_player_that_comes_and_goes_unheard_of_is_let_in_once() {
    let mut scenario = players(10, 2);
    let (first, second) = (scenario.guids[0], scenario.guids[1]);
    let game = scenario.nodes[1];
    scenario.connect_pair(0, 1);
    // The game has not fetched that CONNECTED.
    scenario
        .lab
        .with_engine(game, |node: &mut Node, _| node.unfetched(first));
    scenario.lab.take_events(game);
    let leave = Command::Disconnect {
        peer: second,
        user_code: 0,
        text: String::new(),
    };
    scenario.lab.command(scenario.nodes[0], leave);
    scenario.lab.run_for(ms(500));
    for _ in 0..5 {
        let request = connect(&mut scenario, 0, Some(second), None);
        assert_eq!(failure(&mut scenario, 0, request), Code::Full);
    }
    assert_eq!(connection_story(&mut scenario, 1, first), ["disconnected"]);
    scenario.lab.with_engine(game, |node: &mut Node, _| node.fetched(first));
    scenario.connect_pair(0, 1);
}

#[test]
fn messages_that_arrive_in_part_are_told_as_dropped() {
    let mut scenario = Scenario::builder(11).nodes(2, RouterKind::Open).loss(0.2).build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    let (first, second) = (scenario.guids[0], scenario.guids[1]);
    let large = vec![7; 60_000];
    for _ in 0..40 {
        for data in [&large[..], b"small"] {
            let _ = scenario
                .lab
                .send(scenario.nodes[0], second, 0, SendMode::Unreliable, data);
        }
        scenario.lab.run_for(ms(100));
    }
    scenario.lab.run_for(ms(2_000));
    let events = scenario.lab.take_events(scenario.nodes[1]);
    let counts: Vec<u64> = events
        .iter()
        .filter_map(|recorded| match recorded.event {
            OwnedEvent::Dropped { peer, count } => {
                assert_eq!(peer, first);
                Some(count)
            }
            _ => None,
        })
        .collect();
    let dropped: u64 = counts.iter().sum();
    assert!((10..=40).contains(&dropped), "{dropped} of 40");
    assert!(counts.len() <= 6_000 / 250 && !counts.contains(&0), "{counts:?}");
}

#[test]
fn what_was_sent_before_a_disconnect_arrives() {
    for (size, count) in [(100, 1), (1_000, 200), (100_000, 1)] {
        let mut scenario = players(12, 2);
        scenario.connect_pair(0, 1);
        let (first, second) = (scenario.guids[0], scenario.guids[1]);
        scenario.lab.take_events(scenario.nodes[1]);
        let data = vec![3; size];
        for _ in 0..count {
            scenario
                .lab
                .send(scenario.nodes[0], second, 0, SendMode::ReliableOrdered, &data)
                .unwrap();
        }
        let leave = Command::Disconnect {
            peer: second,
            user_code: 0,
            text: "done".to_owned(),
        };
        scenario.lab.command(scenario.nodes[0], leave);
        scenario.lab.run_for(ms(3_000));
        let story = connection_story(&mut scenario, 1, first);
        assert_eq!(
            story.len(),
            count + 1,
            "{count} messages of {size} bytes: {}",
            story.len()
        );
        assert_eq!(story.last(), Some(&"disconnected"));
    }
}

#[test]
fn a_node_that_shuts_down_is_gone_for_everybody_at_once() {
    let mut scenario = players(13, 3);
    scenario.connect_pair(0, 1);
    let leaver = scenario.guids[0];
    scenario.lab.take_events(scenario.nodes[1]);
    scenario
        .lab
        .with_engine(scenario.nodes[0], |node: &mut Node, now| node.shut_down(now));
    scenario.lab.run_for(ms(100));
    scenario.lab.crash(scenario.nodes[0]);
    let heard = scenario.lab.take_events(scenario.nodes[1]);
    assert!(
        heard.iter().any(|recorded| matches!(
            &recorded.event,
            OwnedEvent::Disconnected { peer, reason, .. } if *peer == leaver && reason.code == Code::Closed
        )),
        "{heard:?}"
    );
    // The server knows as well.
    let request = scenario.request(2, |request| Command::OpenNat { request, peer: leaver });
    assert_eq!(scenario.outcome(2, request).code(), Some(Code::TargetNotConnected));
}

/// Lets a host invite a player who is connected; what the host heard in the end.
fn invite(scenario: &mut Scenario, host: usize, joiner: usize) -> OwnedEvent {
    let peer = scenario.guids[joiner];
    let request = scenario.request(host, |request| {
        Command::Mesh(MeshCommand::StartVerifiedJoin {
            request,
            peer,
            data: Vec::new(),
        })
    });
    scenario.outcome(host, request)
}

fn is_capable(event: &OwnedEvent) -> bool {
    matches!(event, OwnedEvent::Mesh(MeshEvent::JoinCapable { .. }))
}

#[test]
fn a_join_counts_at_whoever_wished_for_the_connection_although_the_others_dial_became_it() {
    for (host, joiner) in [(0, 1), (1, 0)] {
        let mut scenario = players(9, 2);
        let requests = [0, 1].map(|player| {
            let peer = scenario.guids[1 - player];
            (player, connect(&mut scenario, player, Some(peer), None))
        });
        for (player, request) in requests {
            let outcome = scenario.outcome(player, request);
            assert!(matches!(outcome, OwnedEvent::Connected { .. }), "{outcome:?}");
        }
        let outcome = invite(&mut scenario, host, joiner);
        assert!(is_capable(&outcome), "{host} invites: {outcome:?}");
    }
}

#[test]
fn a_join_counts_at_whoever_wished_for_a_connection_that_stood_already() {
    let mut scenario = players(10, 2);
    let (host, joiner) = (0, 1);
    scenario.connect_pair(host, joiner);
    let refused = invite(&mut scenario, host, joiner);
    assert_eq!(refused.code(), Some(Code::Policy), "{refused:?}");
    let peer = scenario.guids[host];
    let request = connect(&mut scenario, joiner, Some(peer), None);
    assert!(matches!(
        scenario.outcome(joiner, request),
        OwnedEvent::Connected { .. }
    ));
    let outcome = invite(&mut scenario, host, joiner);
    assert!(is_capable(&outcome), "{outcome:?}");
}

#[test]
fn whoever_is_kicked_is_disconnected_from_everybody_with_the_kicks_text() {
    let mut scenario = players(11, 3);
    let guids = scenario.guids.clone();
    for joiner in [1, 2] {
        scenario.connect_pair(joiner, 0);
        let outcome = invite(&mut scenario, 0, joiner);
        assert!(is_capable(&outcome), "{outcome:?}");
        let (peer, data) = (guids[joiner], Vec::new());
        let accept = MeshCommand::RespondJoin {
            peer,
            accept: true,
            data,
        };
        scenario.lab.command(scenario.nodes[0], Command::Mesh(accept));
        scenario.lab.run_for(ms(2_000));
    }
    let (peer, text) = (guids[1], "cheater".to_owned());
    let kick = Command::Mesh(MeshCommand::Kick { peer, text });
    scenario.lab.command(scenario.nodes[0], kick);
    scenario.lab.run_for(ms(5_000));
    let ends = |scenario: &mut Scenario, player: usize| {
        let mut ends = Vec::new();
        for recorded in scenario.lab.take_events(scenario.nodes[player]) {
            if let OwnedEvent::Disconnected { peer, reason, .. } = recorded.event {
                ends.push((peer, reason.code, reason.text));
            }
        }
        ends.sort();
        ends
    };
    let end = |player: usize| (guids[player], Code::Kicked, "cheater".to_owned());
    assert_eq!(ends(&mut scenario, 0), [end(1)]);
    assert_eq!(ends(&mut scenario, 2), [end(1)]);
    let mut both = [end(0), end(2)];
    both.sort();
    assert_eq!(ends(&mut scenario, 1), both);
}

#[test]
fn dialling_the_servers_address_fails_at_once_and_the_session_stays() {
    let mut scenario = players(12, 2);
    let peer = scenario.guids[1];
    for guid in [None, Some(peer)] {
        let server = Some(scenario.server_address);
        let request = connect(&mut scenario, 0, guid, server);
        assert_eq!(failure(&mut scenario, 0, request), Code::Incompatible);
    }
    scenario.connect_pair(0, 1);
}

#[test]
fn dialling_a_connected_players_address_for_another_one_fails_and_the_connection_stays() {
    let mut scenario = players(13, 3);
    scenario.connect_pair(0, 1);
    let (there, third, at) = (scenario.guids[1], scenario.guids[2], address_of(&scenario, 1));
    let request = connect(&mut scenario, 0, Some(third), Some(at));
    assert_eq!(failure(&mut scenario, 0, request), Code::WrongKey);
    // Nor does a server live there.
    let request = scenario.request(0, |request| Command::ConnectServer {
        request,
        host: at.ip().to_string(),
        port: at.port(),
        key: None,
    });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::Incompatible));
    scenario
        .lab
        .send(scenario.nodes[0], there, 0, SendMode::Reliable, b"there")
        .unwrap();
    scenario.lab.run_for(ms(12_000));
    let own = scenario.guids[0];
    assert_eq!(connection_story(&mut scenario, 1, own), ["message"]);
    assert!(connection_story(&mut scenario, 0, there).is_empty());
}

#[test]
fn a_way_that_only_a_dial_wanted_raises_no_event_at_its_asker() {
    let mut scenario = players(14, 2);
    let nobody = Guid(7);
    let request = connect(&mut scenario, 0, Some(nobody), None);
    assert_eq!(failure(&mut scenario, 0, request), Code::TargetNotConnected);
    let peer = scenario.guids[1];
    let request = connect(&mut scenario, 0, Some(peer), None);
    assert!(matches!(scenario.outcome(0, request), OwnedEvent::Connected { .. }));
    scenario.lab.run_for(ms(12_000));
    let ways = |scenario: &Scenario, player: usize| {
        let is_way =
            |event: &OwnedEvent| matches!(event, OwnedEvent::NatSucceeded { .. } | OwnedEvent::NatFailed { .. });
        let heard = scenario.lab.events(scenario.nodes[player]);
        heard.iter().filter(|recorded| is_way(&recorded.event)).count()
    };
    assert_eq!((ways(&scenario, 0), ways(&scenario, 1)), (0, 1));
}
