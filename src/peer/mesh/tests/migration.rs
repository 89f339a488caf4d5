//! Leaving, kicking, losing: who is in and who hosts afterwards.

use std::time::Duration;

use super::settle;
use super::simulator::{LOST_TIME, Simulator};
use crate::peer::api::{MeshCommand, MeshEvent};

/// The longest round trip in a simulator whose delays are at most 20 ms, with jitter.
const ROUND_TRIP: Duration = Duration::from_millis(42);

fn gathered(count: usize, seed: u64) -> Simulator {
    let mut simulator = Simulator::new(count, seed, 20);
    simulator.gather(count);
    assert_eq!(simulator.order(0), (0..count).collect::<Vec<_>>());
    simulator.clear_events();
    simulator
}

/// When the last player heard of its new host.
fn last_new_host(simulator: &Simulator) -> Duration {
    let events = simulator.players.iter().flat_map(|player| &player.events);
    let new_host = events.filter(|(_, event)| matches!(event, MeshEvent::NewHost { .. }));
    new_host.map(|(time, _)| *time).max().expect("a new host")
}

#[test]
fn a_killed_host_is_replaced_by_the_next_within_the_lost_time_and_a_round_trip() {
    for seed in 0..50 {
        let mut simulator = gathered(2 + seed as usize % 6, seed);
        let killed = simulator.elapsed();
        simulator.crash(0, false);
        settle(&mut simulator);
        for index in 1..simulator.players.len() {
            assert_eq!(simulator.story(index), ["-0 LOST", "host 1<0"], "seed {seed}");
        }
        let after = last_new_host(&simulator) - killed;
        assert!(after <= LOST_TIME + ROUND_TRIP, "seed {seed}: {after:?}");
    }
}

#[test]
fn host_and_the_next_ones_die_together() {
    for seed in 0..50 {
        let mut simulator = gathered(6, seed);
        let killed = simulator.elapsed();
        for index in 0..3 {
            simulator.crash(index, false);
        }
        settle(&mut simulator);
        for index in 3..6 {
            assert_eq!(
                simulator.story(index),
                ["-0 LOST", "-1 LOST", "-2 LOST", "host 3<0"],
                "seed {seed}"
            );
        }
        let after = last_new_host(&simulator) - killed;
        assert!(after <= LOST_TIME + ROUND_TRIP, "seed {seed}: {after:?}");
    }
}

#[test]
fn a_host_that_leaves_is_replaced_within_a_round_trip_and_is_alone_without_events() {
    let mut simulator = gathered(5, 1);
    let left = simulator.elapsed();
    simulator.command(0, MeshCommand::Leave);
    settle(&mut simulator);
    assert!(last_new_host(&simulator) - left <= ROUND_TRIP);
    for index in 1..5 {
        assert_eq!(simulator.story(index), ["-0 LEFT", "host 1<0"]);
        assert_eq!(simulator.order(index), [1, 2, 3, 4]);
    }
    assert!(simulator.story(0).is_empty());
    assert_eq!(simulator.order(0), [0]);
    assert_eq!(simulator.players[0].links.len(), 4);
}

#[test]
fn host_and_next_leave_in_the_same_moment() {
    let mut simulator = gathered(4, 2);
    simulator.command(1, MeshCommand::Leave);
    simulator.command(0, MeshCommand::Leave);
    settle(&mut simulator);
    assert_eq!(simulator.order(2), [2, 3]);
    assert_eq!(simulator.story(3).last().map(String::as_str), Some("host 2<0"));
}

#[test]
fn leaving_kicking_and_dying_members_are_told_alike_to_all() {
    let mut simulator = gathered(5, 3);
    simulator.command(4, MeshCommand::Leave);
    simulator.run(Duration::from_secs(1));
    let peer = simulator.guid(3);
    simulator.command(
        0,
        MeshCommand::Kick {
            peer,
            text: "cheater".into(),
        },
    );
    simulator.run(Duration::from_secs(1));
    simulator.crash(2, false);
    settle(&mut simulator);
    for index in 0..2 {
        assert_eq!(simulator.story(index), ["-4 LEFT", "-3 KICKED", "-2 LOST"]);
    }
    assert_eq!(simulator.story(3), ["-4 LEFT", "-3 KICKED"]);
    let kicked = simulator.players[3].events.last().map(|(_, event)| event);
    assert!(matches!(kicked, Some(MeshEvent::MemberLeft { reason, .. }) if reason.text == "cheater"));
    assert!(simulator.story(4).is_empty());
    assert_eq!(simulator.order(3), [3]);
    // Whoever was kicked is connected to nobody who heard of it; whoever left is connected still, also to whoever was kicked.
    assert_eq!(simulator.players[3].links.keys().copied().collect::<Vec<_>>(), [4]);
    assert_eq!(
        simulator.players[4].links.keys().copied().collect::<Vec<_>>(),
        [0, 1, 3]
    );
}

#[test]
fn only_the_host_kicks() {
    let mut simulator = gathered(3, 4);
    let peer = simulator.guid(2);
    simulator.command(
        1,
        MeshCommand::Kick {
            peer,
            text: String::new(),
        },
    );
    settle(&mut simulator);
    assert_eq!(simulator.order(2), [0, 1, 2]);
}

#[test]
fn who_loses_only_its_own_link_to_the_host_announces_nobody_and_is_told() {
    for (seed, count) in [(5, 3), (6, 4), (7, 6)] {
        for cut in 1..count {
            let mut simulator = gathered(count, seed);
            simulator.break_link(0, cut);
            settle(&mut simulator);
            for index in (0..count).filter(|index| *index != cut) {
                assert_eq!(
                    simulator.story(index),
                    [format!("-{cut} LOST")],
                    "seed {seed} cut {cut}"
                );
            }
            assert_eq!(simulator.story(cut), [format!("-{cut} LOST")], "seed {seed} cut {cut}");
        }
    }
}

#[test]
fn a_host_cut_off_from_all_is_replaced_and_goes_on_alone() {
    let mut simulator = gathered(4, 8);
    for index in 1..4 {
        simulator.break_link(0, index);
    }
    settle(&mut simulator);
    assert_eq!(simulator.order(0), [0]);
    for index in 1..4 {
        assert_eq!(simulator.order(index), [1, 2, 3]);
        assert_eq!(simulator.story(index), ["-0 LOST", "host 1<0"]);
    }
}

#[test]
fn two_halves_keep_a_host_each() {
    let mut simulator = gathered(6, 9);
    for left in [0, 2, 4] {
        for right in [1, 3, 5] {
            simulator.break_link(left, right);
        }
    }
    settle(&mut simulator);
    assert_eq!(simulator.order(2), [0, 2, 4]);
    assert_eq!(simulator.order(5), [1, 3, 5]);
}

#[test]
fn members_that_lose_each_other_are_resolved_one_way_for_everybody() {
    let mut simulator = gathered(5, 10);
    simulator.break_link(1, 3);
    settle(&mut simulator);
    for index in [0, 1, 2, 4] {
        assert_eq!(simulator.story(index), ["-3 LOST"]);
    }
    assert_eq!(simulator.story(3), ["-3 LOST"]);
}

#[test]
fn members_whose_connection_breaks_but_can_be_made_again_stay() {
    let mut simulator = gathered(4, 11);
    simulator.disconnect(1, 3);
    settle(&mut simulator);
    assert_eq!(simulator.order(0), [0, 1, 2, 3]);
    assert!(simulator.players[1].links.contains_key(&3));
}

#[test]
fn the_next_in_order_that_is_out_of_reach_of_some_only_is_not_overtaken() {
    // 1 is next; 2 does not reach it, 3 does. The host dies before it decides.
    let mut simulator = gathered(4, 12);
    simulator.break_link(1, 2);
    simulator.run(Duration::from_secs(9));
    simulator.crash(0, false);
    settle(&mut simulator);
    assert_eq!(simulator.order(3), [1, 3]);
    assert_eq!(simulator.order(2), [2]);
}

#[test]
fn reset_host_calculation_moves_to_the_end_of_the_order() {
    let mut simulator = gathered(4, 13);
    simulator.command(1, MeshCommand::ResetHostCalculation);
    simulator.run(Duration::from_secs(1));
    assert_eq!(simulator.order(3), [0, 2, 3, 1]);
    simulator.command(0, MeshCommand::ResetHostCalculation);
    settle(&mut simulator);
    for index in 0..4 {
        assert_eq!(simulator.order(index), [2, 3, 1, 0]);
        assert_eq!(simulator.story(index), ["host 2<0"]);
    }
}

#[test]
fn the_next_host_goes_on_letting_players_in() {
    let mut simulator = Simulator::new(4, 14, 20);
    simulator.gather(3);
    simulator.crash(0, false);
    simulator.run(Duration::from_secs(20));
    simulator.connect(3, 1);
    simulator.run(Duration::from_secs(1));
    simulator.start_join(1, 3, 9);
    settle(&mut simulator);
    assert_eq!(simulator.order(3), [1, 2, 3]);
}

#[test]
fn idle_sessions_send_nothing() {
    let mut simulator = gathered(8, 15);
    let before = simulator.delivered;
    settle(&mut simulator);
    assert_eq!(simulator.delivered, before);
}
