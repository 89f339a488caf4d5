//! A session of several players.

use lanline::codes::SendMode;
use lanline::lab::OwnedEvent;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::peer::api::{Command, MeshCommand, MeshEvent};

use super::ms;

/// Makes a session of a scenario's players: the first one hosts, everybody else joins.
pub fn form(mut scenario: Scenario) -> Scenario {
    let players = scenario.nodes.len();
    scenario.connect_all();
    for joiner in 1..players {
        scenario.connect_pair(joiner, 0);
        let (host, peer, data) = (scenario.nodes[0], scenario.guids[joiner], Vec::new());
        let request = scenario.request(0, |request| {
            Command::Mesh(MeshCommand::StartVerifiedJoin { request, peer, data })
        });
        let capable = scenario.outcome(0, request);
        assert!(
            matches!(capable, OwnedEvent::Mesh(MeshEvent::JoinCapable { .. })),
            "{capable:?}"
        );
        let (accept, data) = (true, b"welcome".to_vec());
        scenario
            .lab
            .command(host, Command::Mesh(MeshCommand::RespondJoin { peer, accept, data }));
        scenario.expect(
            joiner,
            "VERIFIED_JOIN_ACCEPTED",
            |event| matches!(event, OwnedEvent::Mesh(MeshEvent::JoinAccepted { data, .. }) if data == b"welcome"),
        );
        for member in (0..players).filter(|member| *member < joiner) {
            scenario.expect(
                member,
                "MEMBER_JOINED",
                |event| matches!(event, OwnedEvent::Mesh(MeshEvent::MemberJoined { member }) if *member == peer),
            );
        }
    }
    scenario
}

#[test]
fn four_players_survive_the_death_of_their_host() {
    let builder = Scenario::builder(25).nodes(4, RouterKind::PortRestricted);
    let mut scenario = form(builder.build());
    scenario.lab.run_for(ms(1_000));
    scenario.lab.crash(scenario.nodes[0]);
    let (dead, heir) = (scenario.guids[0], scenario.guids[1]);
    for player in 1..4 {
        scenario.expect(player, "NEW_HOST", |event| {
            *event
                == OwnedEvent::Mesh(MeshEvent::NewHost {
                    host: heir,
                    old: Some(dead),
                })
        });
    }
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        let (sender, peer) = (scenario.nodes[from], scenario.guids[to]);
        scenario
            .lab
            .send(sender, peer, 0, SendMode::ReliableOrdered, b"go on")
            .unwrap();
        scenario.expect(to, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
    }
}
