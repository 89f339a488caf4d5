//! Connections that outlive their paths.

use std::time::Duration;

use super::ms;
use crate::codes::SendMode;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::{Allocation, Dependence, OwnedEvent, RouterConfig};

/// A router that gives another port to each new mapping, whichever the inside port, and keeps one mapping for all destinations.
fn forgetful(filtering: Dependence) -> RouterKind {
    RouterKind::Custom(RouterConfig {
        filtering,
        ..RouterConfig::full_cone().with_allocation(Allocation::Random)
    })
}

fn connected(seed: u64, kinds: [RouterKind; 2]) -> Scenario {
    let [one, other] = kinds;
    let mut scenario = Scenario::builder(seed).node(one).node(other).build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.lab.run_for(ms(3_000));
    for player in 0..2 {
        scenario.lab.take_events(scenario.nodes[player]);
    }
    scenario
}

/// Sends a message each 16 ms both ways for that long; returns the longest time without a message at each side.
fn play(scenario: &mut Scenario, duration: Duration) -> [Duration; 2] {
    let end = scenario.lab.elapsed() + duration;
    let mut last = [scenario.lab.elapsed(); 2];
    let mut longest = [Duration::ZERO; 2];
    while scenario.lab.elapsed() < end {
        for player in 0..2 {
            let other = scenario.guids[1 - player];
            let _ = scenario
                .lab
                .send(scenario.nodes[player], other, 1, SendMode::Unreliable, b"position");
        }
        scenario.lab.run_for(ms(16));
        for player in 0..2 {
            if !scenario.take_messages(player).is_empty() {
                longest[player] = longest[player].max(scenario.lab.elapsed() - last[player]);
                last[player] = scenario.lab.elapsed();
            }
        }
    }
    for player in 0..2 {
        longest[player] = longest[player].max(scenario.lab.elapsed() - last[player]);
    }
    longest
}

fn assert_kept(scenario: &mut Scenario) {
    let seed = scenario.lab.seed();
    for player in 0..2 {
        let events = scenario.lab.take_events(scenario.nodes[player]);
        let bad = events.iter().find(|recorded| {
            matches!(
                recorded.event,
                OwnedEvent::Disconnected { .. } | OwnedEvent::NatFailed { .. } | OwnedEvent::NatSucceeded { .. }
            )
        });
        assert!(bad.is_none(), "player {player}: {bad:?} (lab seed {seed})");
    }
}

#[test]
fn a_connection_outlives_the_reboot_of_a_router() {
    for filtering in [
        Dependence::EndpointIndependent,
        Dependence::Address,
        Dependence::AddressAndPort,
    ] {
        for seed in 0..10 {
            let mut scenario = connected(seed, [forgetful(filtering), forgetful(filtering)]);
            play(&mut scenario, ms(1_000));
            let router = scenario.routers[0].unwrap();
            scenario.lab.reboot_router(router);
            let longest = play(&mut scenario, ms(9_000));
            assert!(
                longest.iter().all(|gap| *gap < ms(2_500)),
                "{filtering:?}: {longest:?} (lab seed {seed})"
            );
            assert_kept(&mut scenario);
        }
    }
}

#[test]
fn an_idle_connection_outlives_the_reboot_of_a_router() {
    for seed in 0..10 {
        let mut scenario = connected(
            seed,
            [forgetful(Dependence::AddressAndPort), RouterKind::PortRestricted],
        );
        let router = scenario.routers[0].unwrap();
        scenario.lab.reboot_router(router);
        scenario.lab.run_for(Duration::from_secs(30));
        assert_kept(&mut scenario);
        let longest = play(&mut scenario, ms(500));
        assert!(
            longest.iter().all(|gap| *gap < ms(200)),
            "{longest:?} (lab seed {seed})"
        );
    }
}

#[test]
fn nothing_is_doubted_while_a_quiet_connection_is_well() {
    let mut scenario = connected(1, [RouterKind::PortRestricted, RouterKind::Open]);
    let before = scenario.lab.counters(scenario.nodes[0]);
    scenario.lab.run_for(Duration::from_secs(60));
    let after = scenario.lab.counters(scenario.nodes[0]);
    let rate = (after.bytes_sent - before.bytes_sent) as f64 / 60.0;
    assert!(rate < 60.0, "{rate} bytes a second");
    assert_kept(&mut scenario);
}
