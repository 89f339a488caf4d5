//! The server comes and goes.

use std::sync::Arc;
use std::time::Duration;

use lanline::codes::{Code, PathKind, SendMode};
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{OwnedEvent, Party};
use lanline::peer::api::{Command, NodeConfig};
use lanline::transport::identity::Identity;

use super::pair;

#[test]
fn a_server_that_restarts_is_found_again() {
    let mut scenario = pair(20, RouterKind::PortRestricted, RouterKind::FullCone).build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.lab.crash(scenario.server);
    for player in 0..2 {
        scenario.expect(player, "SERVER_LOST", |event| {
            matches!(event, OwnedEvent::ServerLost { .. })
        });
    }
    // The connection between the players does not need the server.
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    scenario
        .lab
        .send(sender, peer, 0, SendMode::Reliable, b"alone")
        .unwrap();
    scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));

    scenario.lab.restart(scenario.server);
    for player in 0..2 {
        let back = scenario.expect(player, "SERVER_RECONNECTED", |event| {
            matches!(event, OwnedEvent::ServerReconnected { .. })
        });
        let OwnedEvent::ServerReconnected { key, .. } = back.event else {
            unreachable!()
        };
        assert_eq!(key, scenario.server_key);
    }
}

#[test]
fn a_server_that_restarts_at_once_still_introduces() {
    let mut scenario = pair(21, RouterKind::PortRestricted, RouterKind::FullCone).build();
    scenario.connect_all();
    scenario.lab.restart(scenario.server);
    for player in 0..2 {
        scenario.expect(player, "SERVER_LOST", |event| {
            matches!(event, OwnedEvent::ServerLost { .. })
        });
        scenario.expect(player, "SERVER_RECONNECTED", |event| {
            matches!(event, OwnedEvent::ServerReconnected { .. })
        });
    }
    assert_eq!(scenario.open_nat(0, 1).unwrap().path, PathKind::Direct);
}

#[test]
fn a_server_out_of_reach_comes_back_and_the_session_with_it() {
    let mut scenario = pair(22, RouterKind::PortRestricted, RouterKind::Open).build();
    scenario.connect_all();
    scenario
        .lab
        .partition(Party::Host(scenario.server), Party::Host(scenario.nodes[0]));
    scenario.expect(0, "SERVER_LOST", |event| matches!(event, OwnedEvent::ServerLost { .. }));
    scenario.lab.heal();
    scenario.expect(0, "SERVER_RECONNECTED", |event| {
        matches!(event, OwnedEvent::ServerReconnected { .. })
    });
    assert_eq!(scenario.open_nat(1, 0).unwrap().path, PathKind::Direct);
}

#[test]
fn leaving_the_server_on_purpose_is_no_loss() {
    let mut scenario = Scenario::builder(23).node(RouterKind::Open).build();
    scenario.connect_all();
    let request = scenario.request(0, |request| Command::DisconnectServer { request });
    let event = scenario.outcome(0, request);
    assert!(matches!(event, OwnedEvent::ServerDisconnected { .. }), "{event:?}");
    scenario.lab.run_for(Duration::from_secs(60));
    assert!(scenario.lab.events(scenario.nodes[0]).is_empty());
    scenario.connect_all();
}

#[test]
fn the_newest_of_two_with_one_identity_wins() {
    let twins = |_, config: &mut NodeConfig| {
        config.identity = Arc::new(Identity::from_seed([7; 32]));
    };
    let mut scenario = pair(24, RouterKind::Open, RouterKind::FullCone)
        .configure_nodes(twins)
        .build();
    scenario.connect_server(0);
    scenario.expect(0, "SERVER_CONNECTED", |event| {
        matches!(event, OwnedEvent::ServerConnected { .. })
    });
    scenario.connect_server(1);
    scenario.expect(1, "SERVER_CONNECTED", |event| {
        matches!(event, OwnedEvent::ServerConnected { .. })
    });
    let lost = scenario.expect(0, "SERVER_LOST", |event| matches!(event, OwnedEvent::ServerLost { .. }));
    assert_eq!(lost.event.code(), Some(Code::Replaced));
    // They do not fight for it.
    scenario.lab.run_for(Duration::from_secs(60));
    assert!(
        scenario.lab.events(scenario.nodes[0]).is_empty(),
        "{:?}",
        scenario.lab.events(scenario.nodes[0])
    );
    assert!(
        scenario.lab.events(scenario.nodes[1]).is_empty(),
        "{:?}",
        scenario.lab.events(scenario.nodes[1])
    );
}
