//! The internet that a scenario builds.

use std::net::IpAddr;

use super::super::Allocation;
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

#[test]
fn a_server_has_the_addresses_and_the_players_the_families_that_the_scenario_says() {
    let mut scenario = Scenario::builder(4)
        .server_addresses(2)
        .ipv6()
        .node(RouterKind::PortRestricted)
        .node(RouterKind::Open)
        .build_raw();
    let (server, addresses) = (scenario.server, scenario.lab.addresses(scenario.server));
    let families: Vec<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
    assert_eq!(families, [true, false, true]);
    // Main and second port of each answer, from the very address.
    for player in 0..2 {
        let node = scenario.nodes[player];
        scenario.lab.start_raw(node);
        for address in &addresses {
            for port in [61_111, 61_112] {
                let to = SocketAddr::new(*address, port);
                let socket = if to.is_ipv4() { UDP } else { SocketName::Udp6 };
                scenario.lab.send_raw(node, socket, to, b"ping");
                scenario.lab.run_for(A_WHILE);
                let answers = scenario.lab.take_received(node);
                assert_eq!(answers.len(), 1, "{to}");
                assert_eq!((answers[0].source, answers[0].socket), (to, socket));
            }
        }
    }
    assert_eq!(scenario.lab.counters(server).sent, 12);
}

#[test]
fn players_connect_to_a_server_with_two_addresses_and_both_families() {
    let mut scenario = Scenario::builder(5)
        .server_addresses(2)
        .ipv6()
        .node(RouterKind::PortRestricted)
        .node(RouterKind::FullCone)
        .build();
    scenario.connect_all();
    assert!(scenario.open_nat(0, 1).is_ok());
}

#[test]
fn a_player_behind_a_carrier_is_seen_at_the_outer_address() {
    let carrier = RouterConfig::symmetric(Allocation::RandomInBlock { size: 2_048 });
    let mut scenario = Scenario::builder(6)
        .node_behind_carrier(RouterKind::PortRestricted, carrier)
        .build_raw();
    let (node, server) = (scenario.nodes[0], scenario.server_address);
    assert_eq!(round_trip(&mut scenario, 0, server), Some(ms(60)));
    let inner = scenario.lab.public_addresses(scenario.routers[0].unwrap())[0];
    assert!(inner.to_string().starts_with("100.64."), "{inner}");
    assert_eq!(scenario.lab.counters(node).received, 1);
}

#[test]
fn a_moved_player_is_behind_another_router() {
    let mut scenario = Scenario::builder(7).node(RouterKind::PortRestricted).build_raw();
    let (before, server) = (scenario.routers[0], scenario.server_address);
    scenario.move_node(0, &RouterKind::FullCone);
    assert_ne!(scenario.routers[0], before);
    assert_eq!(round_trip(&mut scenario, 0, server), Some(ms(60)));
}

/// The local ports of sockets that the system chose.
fn open_pool(lab: &mut Lab, host: HostId, count: u16) -> Vec<u16> {
    let sockets = lab.hosts[host.0].open_pool(0, count, false);
    sockets.iter().map(|(_, bound)| bound.port()).collect()
}

#[test]
fn sockets_without_a_wish_get_ports_in_no_order() {
    let mut lab = Lab::new(8);
    let internet = lab.internet();
    let host = lab.add_host("host", internet, Link::default());
    let mut ports: Vec<u16> = open_pool(&mut lab, host, 300);
    let in_order = ports.windows(2).filter(|two| two[1] == two[0] + 1).count();
    assert!(in_order < 5, "{in_order}");
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 300, "each its own");
}
