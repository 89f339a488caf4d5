//! The session's relay policy.

use std::time::Duration;

use super::settle;
use super::simulator::Simulator;
use crate::peer::api::{MeshCommand, MeshEvent};
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::MeshMessage;

const SECOND: Duration = Duration::from_secs(1);

/// Player 0 hosts a session with that policy.
fn hosting(count: usize, seed: u64, policy: RelayPolicy) -> Simulator {
    let mut simulator = Simulator::new(count, seed, 20);
    assert!(simulator.players[0].mesh.set_session_policy(policy));
    simulator
}

fn policies(simulator: &Simulator) -> Vec<RelayPolicy> {
    simulator
        .players
        .iter()
        .map(|player| player.mesh.relay_policy())
        .collect()
}

#[test]
fn of_two_policies_the_stricter_holds_and_opposites_do_not_go_together() {
    use RelayPolicy::{Fallback, Never, Only};
    for policy in [Fallback, Never, Only] {
        assert_eq!(policy.with(policy), Some(policy));
        assert_eq!(
            (policy.with(Fallback), Fallback.with(policy)),
            (Some(policy), Some(policy))
        );
    }
    assert_eq!((Never.with(Only), Only.with(Never)), (None, None));
}

#[test]
fn all_members_follow_it_before_they_connect_to_each_other() {
    let mut simulator = hosting(3, 1, RelayPolicy::Only);
    simulator.gather(3);
    settle(&mut simulator);
    assert_eq!(policies(&simulator), [RelayPolicy::Only; 3]);
    for player in &simulator.players {
        assert_eq!(player.policy, RelayPolicy::Only, "the server was told");
        assert!(player.dialled_by.iter().all(|policy| *policy == RelayPolicy::Only));
    }
    assert_eq!(
        simulator.players[2].dialled_by.len(),
        1,
        "player 2 connected to player 1"
    );
}

#[test]
fn it_outlives_its_host_and_ends_with_the_membership() {
    let mut simulator = hosting(4, 2, RelayPolicy::Never);
    simulator.gather(3);
    simulator.crash(0, false);
    settle(&mut simulator);
    simulator.connect(3, 1);
    simulator.run(SECOND);
    simulator.start_join(1, 3, 9);
    settle(&mut simulator);
    assert_eq!(simulator.order(3), [1, 2, 3]);
    assert_eq!(simulator.players[3].policy, RelayPolicy::Never);
    simulator.command(3, MeshCommand::Leave);
    settle(&mut simulator);
    assert_eq!(simulator.players[3].policy, RelayPolicy::Fallback);
    assert_eq!(policies(&simulator)[1..3], [RelayPolicy::Never; 2]);
}

#[test]
fn a_join_that_fails_takes_its_policy_along() {
    let mut simulator = hosting(2, 3, RelayPolicy::Only);
    simulator.accept = None;
    simulator.connect(1, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 1, 7);
    simulator.run(SECOND);
    assert_eq!(simulator.players[1].policy, RelayPolicy::Only, "from START on");
    let (peer, data) = (simulator.guid(1), Vec::new());
    let accept = false;
    simulator.command(0, MeshCommand::RespondJoin { peer, accept, data });
    settle(&mut simulator);
    assert_eq!(simulator.players[1].policy, RelayPolicy::Fallback);
}

#[test]
fn an_opposite_policy_fails_the_join_with_words_at_both_sides() {
    for (session, own) in [
        (RelayPolicy::Only, RelayPolicy::Never),
        (RelayPolicy::Never, RelayPolicy::Only),
    ] {
        let mut simulator = hosting(2, 4, session);
        assert!(simulator.players[1].mesh.set_own_policy(own));
        simulator.connect(1, 0);
        simulator.run(SECOND);
        simulator.start_join(0, 1, 7);
        settle(&mut simulator);
        assert_eq!(simulator.story(0), ["failed 7 1 - POLICY"]);
        assert_eq!(simulator.story(1), ["failed 0 0 - POLICY"]);
        for player in &simulator.players {
            let Some((_, MeshEvent::JoinFailed { reason, .. })) = player.events.first() else {
                panic!("{:?}", player.events)
            };
            let named = format!(
                "the session's relay policy is \"{}\", the joiner's \"{}\"",
                session.name(),
                own.name()
            );
            assert!(reason.text.contains(&named), "{}", reason.text);
        }
        assert_eq!(simulator.players[1].mesh.relay_policy(), own);
        // Asked again and again, its game hears of it once more only after it wished for the connection once more.
        for request in 8..12 {
            simulator.start_join(0, 1, request);
            simulator.run(SECOND);
        }
        assert_eq!((simulator.story(0).len(), simulator.story(1).len()), (5, 1));
        let host = simulator.guid(0);
        simulator.players[1].mesh.allow(host);
        simulator.start_join(0, 1, 12);
        settle(&mut simulator);
        assert_eq!((simulator.story(0).len(), simulator.story(1).len()), (6, 2));
    }
}

#[test]
fn sessions_of_opposite_policies_are_not_joined_at_the_same_time() {
    let mut simulator = hosting(3, 5, RelayPolicy::Only);
    assert!(simulator.players[1].mesh.set_session_policy(RelayPolicy::Never));
    simulator.accept = None;
    for (host, request) in [(0, 7), (1, 8)] {
        simulator.connect(2, host);
        simulator.run(SECOND);
        simulator.start_join(host, 2, request);
        simulator.run(SECOND);
    }
    assert_eq!(simulator.story(0), ["capable 7 2 "]);
    assert_eq!(simulator.story(1), ["failed 8 2 - POLICY"]);
    assert_eq!(simulator.players[2].mesh.relay_policy(), RelayPolicy::Only);
}

#[test]
fn it_is_set_before_anybody_is_invited() {
    let mut simulator = Simulator::new(3, 6, 20);
    simulator.accept = None;
    simulator.connect(1, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 1, 7);
    assert!(
        !simulator.players[0].mesh.set_session_policy(RelayPolicy::Only),
        "invited"
    );
    simulator.run(SECOND);
    assert!(
        !simulator.players[1].mesh.set_session_policy(RelayPolicy::Only),
        "joining"
    );
    let (peer, data) = (simulator.guid(1), Vec::new());
    let accept = true;
    simulator.command(0, MeshCommand::RespondJoin { peer, accept, data });
    settle(&mut simulator);
    for player in [0, 1] {
        assert!(
            !simulator.players[player].mesh.set_session_policy(RelayPolicy::Only),
            "a member"
        );
    }
    assert_eq!(policies(&simulator), [RelayPolicy::Fallback; 3]);
    // The node's own may change at any time, unless it is the opposite.
    let mut simulator = hosting(2, 7, RelayPolicy::Only);
    simulator.gather(2);
    for (policy, taken) in [
        (RelayPolicy::Never, false),
        (RelayPolicy::Only, true),
        (RelayPolicy::Fallback, true),
    ] {
        assert_eq!(simulator.players[1].mesh.set_own_policy(policy), taken);
        assert_eq!(simulator.players[1].mesh.relay_policy(), RelayPolicy::Only);
    }
}

#[test]
fn a_host_that_changes_its_word_during_a_join_is_not_heard() {
    let mut simulator = hosting(2, 8, RelayPolicy::Only);
    simulator.accept = None;
    simulator.connect(1, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 1, 7);
    simulator.run(SECOND);
    let (host, now) = (simulator.guid(0), simulator.now);
    let mesh = &mut simulator.players[1].mesh;
    let (join, dropped) = (mesh.joins[&host].join_number(), mesh.dropped());
    let again = MeshMessage::JoinStart {
        session: mesh.joins[&host].session,
        join,
        epoch: 1,
        flags: 0,
        time_limit_ms: 1000,
        members: Vec::new(),
        joining: Vec::new(),
        data: Default::default(),
        relay_policy: RelayPolicy::Fallback,
    };
    mesh.message(now, host, again);
    assert_eq!(mesh.dropped(), dropped + 1);
    assert_eq!(mesh.relay_policy(), RelayPolicy::Only);
}
