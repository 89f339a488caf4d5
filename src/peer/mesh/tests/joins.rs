//! Verified joins, one scenario a rule.

use std::time::Duration;

use super::settle;
use super::simulator::Simulator;
use crate::codes::Code;
use crate::peer::api::MeshCommand;
use crate::wire::mesh::MemberState;

const SECOND: Duration = Duration::from_secs(1);

fn respond(simulator: &mut Simulator, host: usize, joiner: usize, accept: bool) {
    let (peer, data) = (simulator.guid(joiner), b"verdict".to_vec());
    simulator.command(host, MeshCommand::RespondJoin { peer, accept, data });
}

#[test]
fn alone_is_host_without_any_event() {
    let mut simulator = Simulator::new(1, 1, 20);
    settle(&mut simulator);
    assert!(simulator.players[0].events.is_empty());
    assert_eq!(simulator.order(0), [0]);
    assert_eq!(simulator.players[0].tag, [0; 16]);
}

#[test]
fn events_of_a_join_come_in_order_with_the_games_data() {
    let mut simulator = Simulator::new(3, 2, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.connect(2, 0);
    simulator.run(SECOND);
    let peer = simulator.guid(0);
    simulator.command(
        2,
        MeshCommand::JoinData {
            peer,
            data: b"hello".to_vec(),
        },
    );
    simulator.start_join(0, 2, 7);
    settle(&mut simulator);
    assert_eq!(simulator.story(0), ["capable 7 2 hello", "+2"]);
    assert_eq!(simulator.story(1), ["+2"]);
    assert_eq!(
        simulator.story(2),
        ["start 0 1 start", "accepted 0 3 yes", "+0", "+1", "host 0<-"]
    );
    assert_eq!(simulator.order(2), [0, 1, 2]);
    let tag = simulator.players[0].tag;
    assert!(tag != [0; 16] && simulator.players.iter().all(|player| player.tag == tag));
}

#[test]
fn a_join_that_cannot_start_fails_at_once_with_its_reason() {
    let mut simulator = Simulator::new(4, 3, 20);
    simulator.start_join(0, 1, 1);
    simulator.start_join(0, 0, 2);
    assert_eq!(simulator.story(0), ["failed 1 1 - NOT_CONNECTED", "failed 2 0 - SELF"]);
    simulator.gather(2);
    simulator.clear_events();
    simulator.connect(2, 1);
    simulator.connect(3, 0);
    simulator.run(SECOND);
    simulator.requests.clear();
    simulator.start_join(1, 2, 11);
    simulator.start_join(0, 1, 12);
    simulator.start_join(0, 3, 13);
    simulator.start_join(0, 3, 14);
    assert_eq!(simulator.story(1), ["failed 11 2 - WRONG_STATE"]);
    assert_eq!(
        simulator.story(0),
        ["failed 12 1 - WRONG_STATE", "failed 14 3 - ALREADY_IN_PROGRESS"]
    );
    settle(&mut simulator);
    assert_eq!(simulator.order(3), [0, 1, 3]);
}

#[test]
fn a_host_whose_start_does_not_count_hears_so_at_once() {
    let mut simulator = Simulator::new(2, 8, 20);
    simulator.connect(0, 1);
    simulator.run(SECOND);
    simulator.start_join(0, 1, 7);
    simulator.run(SECOND);
    assert_eq!(simulator.story(0), ["failed 7 1 - POLICY"]);
    assert!(simulator.story(1).is_empty());
    // From the moment on that its game asks for the connection which stands, it does.
    let host = simulator.guid(0);
    simulator.players[1].mesh.allow(host);
    simulator.start_join(0, 1, 8);
    settle(&mut simulator);
    assert_eq!(simulator.order(1), [0, 1]);
}

#[test]
fn a_full_session_refuses() {
    let mut simulator = Simulator::with(3, 4, 20, |config| config.max_peers = 1);
    simulator.gather(2);
    simulator.clear_events();
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 9);
    assert_eq!(simulator.story(0), ["failed 9 2 - FULL"]);
}

#[test]
fn rejected_joiner_gets_the_data_and_keeps_only_the_hosts_connection() {
    let mut simulator = Simulator::new(3, 5, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.accept = None;
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    simulator.run(SECOND);
    assert_eq!(simulator.players[0].mesh.view().capable, [simulator.guid(2)]);
    assert!(simulator.players[2].links.contains_key(&1));
    respond(&mut simulator, 0, 2, false);
    settle(&mut simulator);
    assert_eq!(simulator.story(2), ["start 0 1 start", "rejected 0 verdict"]);
    assert_eq!(simulator.players[2].links.keys().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(simulator.order(0), [0, 1]);
    assert_eq!(simulator.players[2].tag, [0; 16]);
}

#[test]
fn unreachable_member_fails_the_join_and_names_it() {
    let mut simulator = Simulator::new(4, 6, 20);
    simulator.gather(3);
    simulator.clear_events();
    simulator.break_link(1, 3);
    simulator.connect(3, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 3, 7);
    settle(&mut simulator);
    assert_eq!(simulator.story(0), ["failed 7 3 1 MEMBER_UNREACHABLE"]);
    assert_eq!(
        simulator.story(3),
        ["start 0 2 start", "failed 0 0 1 MEMBER_UNREACHABLE"]
    );
    assert_eq!(simulator.players[3].links.keys().copied().collect::<Vec<_>>(), [0]);
}

#[test]
fn partial_session_takes_a_joiner_that_misses_somebody() {
    let mut simulator = Simulator::with(3, 7, 20, |config| config.partial = true);
    simulator.gather(2);
    simulator.break_link(1, 2);
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    simulator.run(Duration::from_secs(60));
    for index in 0..3 {
        assert_eq!(simulator.order(index), [0, 1, 2]);
    }
}

#[test]
fn eight_at_once_get_in_and_reach_each_other_within_twelve_round_trips() {
    let mut simulator = Simulator::new(9, 8, 5);
    for index in 1..9 {
        simulator.connect(index, 0);
    }
    simulator.run(SECOND);
    let start = simulator.elapsed();
    for index in 1..9 {
        simulator.start_join(0, index, index as u32);
    }
    settle(&mut simulator);
    assert_eq!(simulator.order(0).len(), 9);
    let last = simulator.players[1..].iter().flat_map(|player| &player.events);
    let last = last.filter(|(_, event)| matches!(event, crate::peer::api::MeshEvent::JoinAccepted { .. }));
    let last = last.map(|(time, _)| *time - start).max().expect("joins");
    // Every link has a round trip of 10 ms, and jitter of at most 1 ms.
    assert!(
        last <= Duration::from_millis(12 * 11),
        "the last of eight was in after {last:?}"
    );
}

#[test]
fn somebody_who_joins_before_the_answer_is_reached_without_asking_the_game_again() {
    let mut simulator = Simulator::new(4, 9, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.accept = None;
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    simulator.run(SECOND);
    simulator.connect(3, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 3, 8);
    simulator.run(SECOND);
    // 3 gets in and 2 has to reach it: answer in the same moment.
    simulator.break_link(2, 3);
    simulator.broken.clear();
    simulator.disconnect(2, 3);
    respond(&mut simulator, 0, 3, true);
    respond(&mut simulator, 0, 2, true);
    settle(&mut simulator);
    assert_eq!(
        simulator
            .story(0)
            .iter()
            .filter(|line| line.starts_with("capable"))
            .count(),
        2
    );
    assert_eq!(simulator.order(2), simulator.order(3));
    assert_eq!(simulator.order(2).len(), 4);
}

#[test]
fn a_member_that_leaves_during_the_join_does_no_harm() {
    let mut simulator = Simulator::new(4, 10, 20);
    simulator.gather(3);
    simulator.clear_events();
    simulator.break_link(2, 3);
    simulator.connect(3, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 3, 7);
    simulator.run(SECOND);
    simulator.command(2, MeshCommand::Leave);
    settle(&mut simulator);
    assert_eq!(simulator.order(3), [0, 1, 3]);
}

#[test]
fn host_dies_during_the_join() {
    let mut simulator = Simulator::new(3, 11, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.accept = None;
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    simulator.run(SECOND);
    simulator.crash(0, false);
    settle(&mut simulator);
    assert_eq!(simulator.story(2), ["start 0 1 start", "failed 0 0 - HOST_LOST"]);
    assert!(simulator.players[2].links.is_empty());
    assert_eq!(simulator.story(1), ["-0 LOST", "host 1<0"]);
}

#[test]
fn host_that_leaves_or_joiner_that_leaves_ends_the_join_at_both() {
    for leaver in [0, 2] {
        let mut simulator = Simulator::new(3, 12, 20);
        simulator.gather(2);
        simulator.clear_events();
        simulator.accept = None;
        simulator.connect(2, 0);
        simulator.run(SECOND);
        simulator.start_join(0, 2, 7);
        simulator.run(SECOND);
        simulator.command(leaver, MeshCommand::Leave);
        settle(&mut simulator);
        let code = if leaver == 0 { "LEFT" } else { "CANCELLED" };
        assert!(simulator.story(0).contains(&format!("failed 0 2 - {code}")));
        assert!(simulator.story(2).contains(&format!("failed 0 0 - {code}")));
    }
}

#[test]
fn no_join_hangs_for_ever() {
    // Manual, and the game never connects.
    let mut simulator = Simulator::with(3, 13, 20, |config| config.join_auto = false);
    simulator.connect(1, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 1, 1);
    simulator.run(SECOND);
    simulator.clear_events();
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 2);
    simulator.run(SECOND);
    let view = simulator.players[2].mesh.view();
    assert_eq!(
        view.joins[0].members,
        [(simulator.guid(1), MemberState::Pending, String::new())]
    );
    settle(&mut simulator);
    assert_eq!(simulator.story(0), ["failed 2 2 - TIMEOUT"]);
    assert_eq!(simulator.story(2), ["start 0 1 start", "failed 0 0 - TIMEOUT"]);
    // And the game that never answers.
    simulator.accept = None;
    simulator.clear_events();
    simulator.start_join(0, 2, 3);
    simulator.run(SECOND);
    simulator.connect(2, 1);
    settle(&mut simulator);
    assert_eq!(simulator.story(0), ["capable 3 2 ", "failed 0 2 - TIMEOUT"]);
}

#[test]
fn manual_join_follows_the_games_own_connections() {
    let mut simulator = Simulator::with(3, 14, 20, |config| config.join_auto = false);
    simulator.gather(2);
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    simulator.run(SECOND);
    simulator.connect(2, 1);
    settle(&mut simulator);
    assert_eq!(simulator.order(2), [0, 1, 2]);
}

#[test]
fn a_member_of_another_session_refuses() {
    let mut simulator = Simulator::new(3, 15, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.connect(1, 2);
    simulator.run(SECOND);
    simulator.start_join(2, 1, 7);
    settle(&mut simulator);
    assert_eq!(simulator.story(2), ["failed 7 1 - WRONG_STATE"]);
    assert!(simulator.story(1).is_empty());
}

#[test]
fn a_connection_lost_after_capable_still_counts_as_lost() {
    let mut simulator = Simulator::new(3, 16, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.accept = None;
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    simulator.run(SECOND);
    simulator.disconnect(2, 1);
    simulator.run(SECOND);
    assert_eq!(simulator.story(0), ["capable 7 2 ", "failed 0 2 1 MEMBER_UNREACHABLE"]);
}

#[test]
fn cancel_ends_the_request() {
    let mut simulator = Simulator::new(3, 17, 20);
    simulator.gather(2);
    simulator.clear_events();
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    assert!(!simulator.players[0].mesh.cancel(8));
    assert!(simulator.players[0].mesh.cancel(7));
    settle(&mut simulator);
    assert_eq!(simulator.story(0), [format!("failed 7 2 - {}", Code::Cancelled.name())]);
    assert_eq!(simulator.story(2), ["start 0 1 start", "failed 0 0 - CANCELLED"]);
}

#[test]
fn a_crashed_player_that_returns_gets_in_again() {
    let mut simulator = Simulator::new(3, 18, 20);
    simulator.gather(3);
    simulator.crash(2, false);
    simulator.restart(2);
    simulator.connect(2, 0);
    simulator.run(SECOND);
    simulator.start_join(0, 2, 7);
    settle(&mut simulator);
    assert_eq!(simulator.order(2), [0, 1, 2]);
}
