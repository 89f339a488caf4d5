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
    play_counting(scenario, duration, b"", 0)
}

/// The same; `wanted` messages of that kind come to the first player meanwhile.
fn play_counting(scenario: &mut Scenario, duration: Duration, kind: &[u8], wanted: usize) -> [Duration; 2] {
    let mut counted = 0;
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
            let messages = scenario.take_messages(player);
            let fits = |event: &OwnedEvent| matches!(event, OwnedEvent::Message { data, .. } if data == kind);
            counted += messages.iter().filter(|event| player == 0 && fits(event)).count();
            if !messages.is_empty() {
                longest[player] = longest[player].max(scenario.lab.elapsed() - last[player]);
                last[player] = scenario.lab.elapsed();
            }
        }
    }
    for player in 0..2 {
        longest[player] = longest[player].max(scenario.lab.elapsed() - last[player]);
    }
    assert_eq!(counted, wanted, "reliable messages (lab seed {})", scenario.lab.seed());
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

#[test]
fn a_node_that_changes_its_network_keeps_its_players() {
    let kinds = [
        RouterKind::Open,
        RouterKind::FullCone,
        RouterKind::AddressRestricted,
        RouterKind::PortRestricted,
    ];
    for (from, to) in kinds.iter().zip(kinds.iter().rev()) {
        for other in &kinds {
            let mut scenario = connected(7, [from.clone(), other.clone()]);
            play(&mut scenario, ms(500));
            let (sender, peer) = (scenario.nodes[1], scenario.guids[0]);
            scenario.move_node(0, to);
            for _ in 0..20 {
                scenario
                    .lab
                    .send(sender, peer, 0, SendMode::ReliableOrdered, b"kept")
                    .unwrap();
            }
            let longest = play_counting(&mut scenario, ms(6_000), b"kept", 20);
            let told = format!("{from:?} to {to:?}, the other behind {other:?}: {longest:?}");
            assert!(longest.iter().all(|gap| *gap < ms(2_500)), "{told}");
            assert_kept(&mut scenario);
        }
    }
}

#[test]
fn a_router_with_another_public_address_is_noticed_and_said() {
    for seed in 0..10 {
        let mut scenario = connected(seed, [RouterKind::PortRestricted, RouterKind::PortRestricted]);
        play(&mut scenario, ms(500));
        let router = scenario.routers[0].unwrap();
        scenario.lab.renumber_router(router);
        let longest = play(&mut scenario, ms(6_000));
        assert!(
            longest.iter().all(|gap| *gap < ms(2_500)),
            "{longest:?} (lab seed {seed})"
        );
        let moved = scenario.lab.public_addresses(router)[0];
        scenario.expect(
            1,
            "PATH_CHANGED to the new address",
            |event| matches!(event, OwnedEvent::PathChanged { address, .. } if address.ip() == moved),
        );
        assert_kept(&mut scenario);
    }
}

#[test]
fn a_player_that_is_gone_for_good_is_lost_in_its_time() {
    let mut scenario = connected(3, [RouterKind::PortRestricted, RouterKind::PortRestricted]);
    scenario.lab.crash(scenario.nodes[1]);
    let begin = scenario.lab.elapsed();
    let lost = scenario.expect(0, "DISCONNECTED", |event| {
        matches!(event, OwnedEvent::Disconnected { .. })
    });
    assert!(lost.time - begin <= ms(10_500), "{:?}", lost.time - begin);
}

#[test]
fn path_probes_of_strangers_lead_nowhere() {
    let mut scenario = connected(4, [RouterKind::Open, RouterKind::Open]);
    scenario.lab.capture();
    scenario
        .lab
        .set_connected(scenario.lab.attachment(scenario.nodes[0], 0), false);
    play(&mut scenario, ms(2_000));
    scenario
        .lab
        .set_connected(scenario.lab.attachment(scenario.nodes[0], 0), true);
    play(&mut scenario, ms(2_000));
    let probes: Vec<Vec<u8>> = scenario
        .lab
        .take_captured()
        .iter()
        .filter(|datagram| matches!(datagram.contents.first(), Some(4 | 5)))
        .map(|datagram| datagram.contents.to_vec())
        .collect();
    assert!(!probes.is_empty(), "the two probed each other");
    scenario.lab.take_events(scenario.nodes[0]);
    let stranger = "203.0.113.9:4000".parse().unwrap();
    for mut probe in probes {
        let last = probe.len() - 1;
        probe[last] ^= 1;
        scenario
            .lab
            .inject(scenario.nodes[0], crate::engine::SocketName::Udp4, stranger, &probe);
    }
    let longest = play(&mut scenario, ms(2_000));
    assert!(longest.iter().all(|gap| *gap < ms(200)), "{longest:?}");
    let events = scenario.lab.take_events(scenario.nodes[0]);
    assert!(
        !events
            .iter()
            .any(|recorded| matches!(recorded.event, OwnedEvent::PathChanged { .. })),
        "{events:?}"
    );
}

#[test]
fn path_probes_that_are_sent_again_draw_no_flood_to_a_third_party() {
    let mut scenario = connected(5, [RouterKind::Open, RouterKind::Open]);
    scenario.lab.capture();
    let cable = scenario.lab.attachment(scenario.nodes[0], 0);
    scenario.lab.set_connected(cable, false);
    play(&mut scenario, ms(2_000));
    scenario.lab.set_connected(cable, true);
    play(&mut scenario, ms(2_000));
    let recorded: Vec<Vec<u8>> = scenario
        .lab
        .take_captured()
        .iter()
        .filter(|datagram| datagram.contents.first() == Some(&4) && datagram.host == scenario.nodes[1])
        .map(|datagram| datagram.contents.to_vec())
        .collect();
    assert!(!recorded.is_empty(), "the two probed each other");
    let victim = "203.0.113.9:4000".parse().unwrap();
    scenario.lab.run_for(ms(70_000));
    scenario.lab.capture_sent();
    let (mut received, mut replayed) = (0, 0);
    for round in 0..500 {
        let probe = &recorded[round % recorded.len()];
        received += probe.len();
        replayed += 1;
        scenario
            .lab
            .inject(scenario.nodes[1], crate::engine::SocketName::Udp4, victim, probe);
        scenario.lab.run_for(ms(20));
    }
    let to_victim: Vec<usize> = scenario
        .lab
        .take_sent()
        .iter()
        .filter(|datagram| datagram.destination == victim)
        .map(|datagram| datagram.contents.len())
        .collect();
    let unasked = to_victim.len().saturating_sub(replayed);
    assert!(unasked <= 14, "{unasked} packets more than were received");
    let sent: usize = to_victim.iter().sum();
    assert!(sent <= received + 14 * 1_200, "{sent} bytes for {received}");
    assert_kept(&mut scenario);
}
