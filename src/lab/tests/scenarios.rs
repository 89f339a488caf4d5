//! The internet that a scenario builds.

use super::super::scenario::{RouterKind, Scenario};
use super::*;

/// The round trip of a datagram that the other side echoes.
fn round_trip(scenario: &mut Scenario, from: usize, to: SocketAddr) -> Option<Duration> {
    let host = scenario.nodes[from];
    // Two echoing hosts would go on for ever.
    scenario.lab.start_raw(host);
    scenario.lab.send_raw(host, UDP, to, b"ping");
    scenario.lab.run_until(A_WHILE, |lab| !lab.received(host).is_empty())
}

fn fresh(seed: u64) -> Scenario {
    Scenario::builder(seed)
        .round_trips(ms(60), ms(40))
        .node(RouterKind::Open)
        .node(RouterKind::FullCone)
        .node(RouterKind::FullCone)
        .node_behind_router_of(2)
        .build_raw()
}

#[test]
fn round_trips_are_what_the_scenario_says() {
    for player in 0..4 {
        let mut scenario = fresh(1);
        let server = scenario.server_address;
        assert_eq!(
            round_trip(&mut scenario, player, server),
            Some(ms(60)),
            "player {player}"
        );
    }
    for player in 1..4 {
        let mut scenario = fresh(1);
        let open = scenario.lab.socket_address(scenario.nodes[0], UDP);
        assert_eq!(round_trip(&mut scenario, player, open), Some(ms(40)), "player {player}");
    }
    let mut scenario = fresh(1);
    let neighbour = scenario.lab.socket_address(scenario.nodes[3], UDP);
    assert_eq!(round_trip(&mut scenario, 2, neighbour), Some(ms(1)));
}

#[test]
fn loss_counts_for_a_whole_way() {
    let mut scenario = Scenario::builder(2).node(RouterKind::FullCone).loss(0.1).build_raw();
    let (node, server) = (scenario.nodes[0], scenario.server_address);
    scenario.lab.start_raw(node);
    for _ in 0..4_000 {
        scenario.lab.send_raw(node, UDP, server, b"ping");
    }
    scenario.lab.run_for(A_WHILE);
    let at_server = scenario.lab.take_received(scenario.server).len();
    let back = scenario.lab.take_received(node).len();
    // Standard deviations are 19 and 18; five of them.
    assert!((3_505..3_695).contains(&at_server), "{at_server}");
    let share = back as f64 / at_server as f64;
    assert!((0.875..0.925).contains(&share), "{share}");
}

#[test]
fn players_of_one_router_share_it() {
    let scenario = fresh(3);
    assert_eq!(scenario.routers[0], None);
    assert_eq!(scenario.routers[2], scenario.routers[3]);
    assert_ne!(scenario.routers[1], scenario.routers[2]);
    let mut guids = scenario.guids.clone();
    guids.dedup();
    assert_eq!(guids.len(), 4);
    assert_eq!(scenario.guids, fresh(3).guids);
    assert_ne!(scenario.guids, fresh(4).guids);
}
