//! How long a verified join may take.

use lanline::codes::Code;
use lanline::lab::OwnedEvent;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::peer::api::{Command, MeshCommand, MeshEvent};

use super::ms;

#[test]
fn a_join_ends_with_the_time_limit_that_the_host_was_given() {
    let mut scenario = Scenario::builder(40)
        .nodes(3, RouterKind::Open)
        .configure_nodes(|number, config| {
            config.join_time_limit = ms(if number == 0 { 3_000 } else { 600_000 });
            // Nobody connects the last one to the member that it has to reach.
            config.join_auto = number != 2;
        })
        .build();
    scenario.connect_all();
    for joiner in 1..3 {
        scenario.connect_pair(joiner, 0);
        let peer = scenario.guids[joiner];
        let begin = scenario.lab.elapsed();
        let data = Vec::new();
        let request = scenario.request(0, |request| {
            Command::Mesh(MeshCommand::StartVerifiedJoin { request, peer, data })
        });
        let start = scenario.expect(joiner, "VERIFIED_JOIN_START", |event| {
            matches!(event, OwnedEvent::Mesh(MeshEvent::JoinStart { .. }))
        });
        // Whom to connect to: nobody for the first, for whom the host is everybody.
        assert!(
            matches!(start.event, OwnedEvent::Mesh(MeshEvent::JoinStart { members, .. }) if members == joiner as u32 - 1),
            "{start:?}"
        );
        let outcome = scenario.outcome(0, request);
        if joiner == 1 {
            let (accept, data) = (true, Vec::new());
            let command = Command::Mesh(MeshCommand::RespondJoin { peer, accept, data });
            scenario.lab.command(scenario.nodes[0], command);
            scenario.expect(1, "VERIFIED_JOIN_ACCEPTED", |event| {
                matches!(event, OwnedEvent::Mesh(MeshEvent::JoinAccepted { members: 2, .. }))
            });
        } else {
            assert!(
                matches!(&outcome, OwnedEvent::Mesh(MeshEvent::JoinFailed { reason, .. }) if reason.code == Code::Timeout),
                "{outcome:?}"
            );
            assert_eq!(scenario.lab.elapsed() - begin, ms(3_000));
        }
    }
}
