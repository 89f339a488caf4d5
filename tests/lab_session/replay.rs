//! The same seed gives the same trace.

use std::time::Duration;

use lanline::codes::SendMode;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{OwnedEvent, TraceEntry, first_difference, with_seeds};
use lanline::peer::api::MeshEvent;

use super::{ms, session};

/// Everybody in a mesh talks to everybody in every mode, from player `first` on.
fn chatter(scenario: &mut Scenario, first: usize, rounds: u8) {
    let players = scenario.nodes.len();
    for number in 0..rounds {
        for from in first..players {
            for to in (first..players).filter(|to| *to != from) {
                let (sender, peer) = (scenario.nodes[from], scenario.guids[to]);
                let mode = SendMode::ALL[usize::from(number) % 4];
                let data = vec![number; 40 * usize::from(number)];
                scenario.lab.send(sender, peer, 1, mode, &data).unwrap();
            }
        }
        scenario.lab.run_for(ms(16));
    }
}

/// What a run left behind: every datagram with a hash of its bytes, and what everybody heard.
struct Story {
    trace: Vec<TraceEntry>,
    events: Vec<String>,
}

/// A mesh of four behind routers of every kind, on links with loss and jitter; they talk, the server restarts, the host dies,
/// the others go on.
fn story(seed: u64) -> Story {
    let mut builder = Scenario::builder(seed);
    for kind in RouterKind::EASY {
        builder = builder.node(kind);
    }
    let builder = builder
        .loss(0.05)
        .links(|link| *link = link.with(|direction| direction.jitter = ms(3)));
    let mut scenario = session::form(builder.traced().build());
    chatter(&mut scenario, 0, 30);
    scenario.lab.restart(scenario.server);
    scenario.lab.crash(scenario.nodes[0]);
    for player in 1..4 {
        scenario.expect(player, "NEW_HOST", |event| {
            matches!(event, OwnedEvent::Mesh(MeshEvent::NewHost { .. }))
        });
    }
    chatter(&mut scenario, 1, 10);
    scenario.lab.run_for(Duration::from_secs(5));
    let nodes = scenario.nodes.clone();
    Story {
        trace: scenario.lab.trace().to_vec(),
        events: nodes
            .iter()
            .map(|node| format!("{:?}", scenario.lab.events(*node)))
            .collect(),
    }
}

#[test]
fn a_session_is_replayed_byte_for_byte_by_its_seed() {
    with_seeds(0..3, |seed| {
        let (one, other) = (story(seed), story(seed));
        assert!(one.trace.len() > 2_000, "{}", one.trace.len());
        if let Some(difference) = first_difference(&one.trace, &other.trace) {
            panic!("seed {seed}: {difference}");
        }
        assert_eq!(one.events, other.events, "seed {seed}");
    });
}

#[test]
fn another_seed_is_another_session() {
    let (one, other) = (story(1), story(2));
    assert!(first_difference(&one.trace, &other.trace).is_some());
    // Not only because the keys differ: the datagrams' times do.
    let times = |story: &Story| story.trace.iter().map(|entry| entry.time).collect::<Vec<_>>();
    assert_ne!(times(&one), times(&other));
}
