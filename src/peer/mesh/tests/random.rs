//! Random sessions of 2 to 8 players that join, leave, crash, return, reset and lose links.

use std::time::Duration;

use rand::RngExt;

use super::settle;
use super::simulator::Simulator;
use crate::codes::Code;
use crate::peer::api::{MeshCommand, MeshEvent};

/// For each kind. Enough to meet each pair of things at each other's worst moment many times, and still a matter of seconds.
const SEEDS: u64 = 1000;

#[derive(Clone, Copy, PartialEq)]
enum Wild {
    /// Joins, leaves, resets, crashes after which everything that was sent arrives.
    Calm,
    /// Crashes lose some of what was sent; kicks; closed connections.
    Rough,
    /// Links break as well.
    Broken,
}

fn step(simulator: &mut Simulator, wild: Wild, request: &mut u32) {
    let count = simulator.players.len();
    let index = simulator.rng.random_range(0..count);
    let other = simulator.rng.random_range(0..count);
    match simulator.rng.random_range(0..100) {
        0..20 if index != other => {
            simulator.connect(index, other);
        }
        0..70 => {
            let hosts: Vec<usize> = (0..count)
                .filter(|at| simulator.players[*at].alive && simulator.order(*at)[0] == *at)
                .collect();
            let best = hosts.iter().max_by_key(|at| simulator.order(**at).len()).copied();
            if let Some(host) = best.filter(|host| simulator.players[index].alive && *host != index) {
                simulator.connect(index, host);
                let wait = simulator.rng.random_range(0..600);
                simulator.run(Duration::from_millis(wait));
                if simulator.players[host].alive {
                    *request += 1;
                    simulator.start_join(host, index, *request);
                }
            }
        }
        70..76 if simulator.players[index].alive => simulator.command(index, MeshCommand::Leave),
        76..80 if simulator.players[index].alive => simulator.command(index, MeshCommand::ResetHostCalculation),
        80..86 if simulator.players[index].alive => simulator.crash(index, wild != Wild::Calm),
        86..90 if !simulator.players[index].alive => {
            simulator.restart(index);
        }
        90..93 if wild != Wild::Calm && simulator.players[index].alive => {
            let (peer, text) = (simulator.guid(other), "begone".to_owned());
            simulator.command(index, MeshCommand::Kick { peer, text });
        }
        93..96 if wild != Wild::Calm && simulator.players[index].alive => simulator.disconnect(index, other),
        96..100 if wild == Wild::Broken && index != other => simulator.break_link(index, other),
        _ => {}
    }
}

fn play(seed: u64, wild: Wild) -> Simulator {
    let count = 2 + (seed % 7) as usize;
    let mut simulator = Simulator::new(count, seed, 20 + 40 * (seed % 5));
    simulator.accept = Some(Duration::from_millis(seed % 3 * 100));
    // To see what a seed does: LANLINE_MESH_SEED=seed cargo test …
    if std::env::var("LANLINE_MESH_SEED").is_ok_and(|text| text == seed.to_string()) {
        simulator.start_trace();
    }
    let mut request = 0;
    for _ in 0..60 {
        step(&mut simulator, wild, &mut request);
        let wait = simulator.rng.random_range(0..3);
        let wait = [0, 300, 4000][wait];
        let wait = simulator.rng.random_range(0..=wait);
        simulator.run(Duration::from_millis(wait));
    }
    settle(&mut simulator);
    simulator
}

/// Nobody is thrown out for another reason than a kick.
fn nobody_was_cut_off(simulator: &Simulator) {
    for (index, player) in simulator.players.iter().enumerate() {
        for (time, event) in &player.events {
            if let MeshEvent::MemberLeft { member, reason } = event {
                let lost = *member == player.guid && reason.code == Code::Lost;
                assert!(
                    !lost,
                    "seed {}: {index} was cut off at {time:?}: {}",
                    simulator.seed, reason.text
                );
            }
        }
    }
}

#[test]
fn sessions_with_joins_leaves_and_crashes_agree_and_cut_nobody_off() {
    for seed in 0..SEEDS {
        nobody_was_cut_off(&play(seed, Wild::Calm));
    }
}

#[test]
fn sessions_whose_crashes_lose_messages_agree() {
    for seed in 100_000..100_000 + SEEDS {
        play(seed, Wild::Rough);
    }
}

#[test]
fn sessions_with_broken_links_agree_within_each_part() {
    for seed in 200_000..200_000 + SEEDS {
        play(seed, Wild::Broken);
    }
}
