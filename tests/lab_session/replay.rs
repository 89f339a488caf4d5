//! The same seed gives the same trace.

use std::time::Duration;

use lanline::codes::SendMode;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{TraceEntry, first_difference, with_seeds};

use super::ms;

/// A story with loss, jitter, routers, messages and a crash.
fn story(seed: u64) -> Vec<TraceEntry> {
    let mut scenario = Scenario::builder(seed)
        .node(RouterKind::PortRestricted)
        .node(RouterKind::FullCone)
        .node_behind_router_of(1)
        .loss(0.05)
        .links(|link| *link = link.with(|direction| direction.jitter = ms(3)))
        .traced()
        .build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.connect_pair(1, 2);
    for number in 0..50_u8 {
        for (from, to) in [(0, 1), (1, 2), (2, 1)] {
            let (sender, peer) = (scenario.nodes[from], scenario.guids[to]);
            let mode = SendMode::ALL[usize::from(number) % 4];
            scenario
                .lab
                .send(sender, peer, 1, mode, &vec![number; 40 * usize::from(number)])
                .unwrap();
        }
        scenario.lab.run_for(ms(16));
    }
    scenario.lab.restart(scenario.server);
    scenario.lab.crash(scenario.nodes[2]);
    scenario.lab.run_for(Duration::from_secs(20));
    scenario.lab.trace().to_vec()
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    with_seeds(0..3, |seed| {
        let trace = story(seed);
        assert!(trace.len() > 500, "{}", trace.len());
        if let Some(difference) = first_difference(&trace, &story(seed)) {
            panic!("seed {seed}: {difference}");
        }
    });
    assert!(first_difference(&story(1), &story(2)).is_some());
}
