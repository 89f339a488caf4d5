//! Whether strangers get in: ports that are forwarded by hand or by a router, and IPv6.

use std::net::SocketAddr;
use std::time::Duration;

use super::ms;
use crate::codes::MappingProtocol;
use crate::lab::scenario::{RouterKind, Scenario, ScenarioBuilder};
use crate::lab::{Allocation, MappingService, OwnedEvent, PortMappingConfig, RouterConfig, with_seeds};
use crate::peer::Node;
use crate::peer::api::Command;
use crate::peer::api::nat::{DetectOptions, NatReport};
use crate::wire::introduction::CandidateKind;

/// Not the port of the node's socket.
const OTHER: u16 = 7_000;

fn behind(seed: u64, config: RouterConfig) -> ScenarioBuilder {
    Scenario::builder(seed)
        .node(RouterKind::Custom(config))
        .node(RouterKind::Open)
}

fn report_of(scenario: &Scenario) -> NatReport {
    scenario.lab.engine::<Node>(scenario.nodes[0]).nat_report().clone()
}

fn detect(scenario: &mut Scenario) -> NatReport {
    let options = DetectOptions::default();
    let request = scenario.request(0, |request| Command::DetectNat { request, options });
    match scenario.outcome(0, request) {
        OwnedEvent::NatDetected { report, .. } => *report,
        other => panic!("{other:?}"),
    }
}

/// A player who says that this port of the router is forwarded; it is, or not.
fn by_hand(builder: impl Fn() -> ScenarioBuilder, port: u16, forwarded: bool) -> Scenario {
    // The same lab has the same addresses.
    let mut first = builder().build();
    let router = first.routers[0].unwrap();
    let manual = SocketAddr::new(first.lab.public_addresses(router)[0], port);
    let change = move |number, config: &mut crate::peer::api::NodeConfig| {
        config.manual_address = Some(manual).filter(|_| number == 0);
    };
    let mut scenario = builder().configure_nodes(change).build();
    if forwarded {
        let inside = SocketAddr::new(scenario.lab.addresses(scenario.nodes[0])[0], 40_000);
        let router = scenario.routers[0].unwrap();
        assert_eq!(scenario.lab.forward_port(router, port, inside), manual);
    }
    scenario
}

fn connect_with_patience(scenario: &mut Scenario) {
    loop {
        let request = scenario.connect_server(0);
        if let OwnedEvent::ServerConnected { .. } = scenario.outcome(0, request) {
            return;
        }
    }
}

fn routers() -> [RouterConfig; 4] {
    [
        RouterConfig::full_cone(),
        RouterConfig::address_restricted(),
        RouterConfig::port_restricted(),
        RouterConfig::symmetric(Allocation::Random),
    ]
}

#[test]
fn a_port_that_is_forwarded_by_hand_is_open_and_one_that_is_not_is_closed() {
    for config in routers() {
        for addresses in [1, 2] {
            for forwarded in [true, false] {
                let builder = || behind(1, config.clone()).server_addresses(addresses);
                let mut scenario = by_hand(builder, OTHER, forwarded);
                scenario.connect_all();
                let report = detect(&mut scenario);
                let context = format!("{config:?} {addresses} {report:#?}");
                // A forwarded port is that of the socket's own mapping, too: see the next test.
                let provable = !forwarded || addresses == 2 || report.facts.filters_by_port == Some(true);
                assert_eq!(report.manual_open, provable.then_some(forwarded), "{context}");
                assert_eq!(scenario.lab.engine::<Node>(scenario.nodes[0]).nat_report(), &report);
            }
        }
    }
}

#[test]
fn at_the_port_of_the_own_mapping_only_what_proves_it_counts() {
    // The router keeps ports: what is forwarded has the number that the socket's own mapping has.
    for (config, addresses, forwarded, expected) in [
        (RouterConfig::port_restricted(), 1, true, Some(true)),
        (RouterConfig::port_restricted(), 1, false, Some(false)),
        (RouterConfig::port_restricted(), 2, true, Some(true)),
        (RouterConfig::port_restricted(), 2, false, Some(false)),
        (RouterConfig::address_restricted(), 2, true, Some(true)),
        (RouterConfig::address_restricted(), 2, false, Some(false)),
        // From the one address that it has the server gets through the mapping as well.
        (RouterConfig::address_restricted(), 1, true, None),
        (RouterConfig::address_restricted(), 1, false, None),
    ] {
        let builder = || behind(2, config.clone()).server_addresses(addresses);
        let mut scenario = by_hand(builder, 40_000, forwarded);
        scenario.connect_all();
        let report = detect(&mut scenario);
        assert_eq!(
            report.manual_open, expected,
            "{config:?} {addresses} {forwarded} {report:#?}"
        );
    }
}

#[test]
fn with_loss_no_door_is_wrong_and_few_are_unknown() {
    for forwarded in [true, false] {
        let unknown = std::cell::Cell::new(0);
        with_seeds(100..250, |seed| {
            let builder = || {
                behind(seed, RouterConfig::port_restricted())
                    .server_addresses(1 + (seed % 2) as usize)
                    .round_trips(ms(100), ms(100))
                    .loss(0.1)
            };
            let mut scenario = by_hand(builder, OTHER, forwarded);
            connect_with_patience(&mut scenario);
            let found = detect(&mut scenario).manual_open;
            assert!(found.is_none_or(|open| open == forwarded), "{found:?}");
            unknown.set(unknown.get() + u32::from(found.is_none()));
        });
        println!("forwarded {forwarded}: {} of 150 unknown", unknown.get());
        assert!(unknown.get() <= 3, "{}", unknown.get());
    }
}

#[test]
fn nothing_is_said_of_a_port_that_cannot_be_tried() {
    // At another address than the one that is seen.
    let change = |number, config: &mut crate::peer::api::NodeConfig| {
        config.manual_address = Some("20.9.9.9:7000".parse().unwrap()).filter(|_| number == 0);
    };
    let mut scenario = behind(3, RouterConfig::port_restricted())
        .configure_nodes(change)
        .build();
    scenario.connect_all();
    assert_eq!(detect(&mut scenario).manual_open, None);
    // Without fresh sockets.
    for count in [0, 1] {
        let builder = || behind(3, RouterConfig::port_restricted()).max_sockets(count);
        let mut scenario = by_hand(builder, OTHER, true);
        scenario.connect_all();
        assert_eq!(detect(&mut scenario).manual_open, None);
    }
    // By a server with one port.
    let builder = || {
        behind(3, RouterConfig::port_restricted())
            .configure_server(|config| config.sockets.retain(|socket| socket.main))
    };
    let mut scenario = by_hand(builder, OTHER, true);
    scenario.connect_all();
    assert_eq!(detect(&mut scenario).manual_open, None);
}

/// What the other player is told of player 0.
fn candidates(scenario: &mut Scenario) -> Vec<(CandidateKind, SocketAddr)> {
    let node = scenario.nodes[0];
    let list = scenario.lab.with_engine(node, |node: &mut Node, _| node.candidates());
    list.iter()
        .map(|candidate| (candidate.kind, candidate.address))
        .collect()
}

#[test]
fn a_closed_port_is_not_named_to_others_and_an_open_one_makes_friendly() {
    for forwarded in [true, false] {
        let builder = || behind(4, RouterConfig::symmetric(Allocation::Random));
        let mut scenario = by_hand(builder, OTHER, forwarded);
        scenario.connect_all();
        let report = detect(&mut scenario);
        let named = candidates(&mut scenario)
            .iter()
            .any(|(kind, _)| *kind == CandidateKind::Manual);
        assert_eq!((named, crate::peer::nat::is_friendly(&report)), (forwarded, forwarded));
    }
}

fn map_port(scenario: &mut Scenario) {
    let timeout = Duration::from_secs(2);
    let request = scenario.request(0, |request| Command::MapPort { request, timeout });
    let outcome = scenario.outcome(0, request);
    assert!(matches!(outcome, OwnedEvent::PortMapped { .. }), "{outcome:?}");
    scenario.lab.run_for(ms(3_000));
}

fn mapping(config: RouterConfig) -> RouterConfig {
    config.with_port_mapping(PortMappingConfig::only(MappingProtocol::Pcp))
}

#[test]
fn a_port_that_a_router_forwards_is_tried_by_itself() {
    let mut scenario = behind(5, mapping(RouterConfig::port_restricted()))
        .server_addresses(2)
        .build();
    scenario.connect_all();
    map_port(&mut scenario);
    let report = report_of(&scenario);
    assert_eq!(report.mappings.len(), 1, "{report:#?}");
    assert_eq!(report.mappings[0].reachable, Some(true), "{report:#?}");
    assert!(
        candidates(&mut scenario)
            .iter()
            .any(|(kind, _)| *kind == CandidateKind::Mapped)
    );
}

#[test]
fn behind_two_routers_a_granted_port_that_nobody_reaches_is_noticed() {
    // The inner router tells the address that the server sees, as if it were its own.
    let build = |claims| {
        let mut config = RouterConfig::port_restricted();
        config.port_mapping = PortMappingConfig {
            claims,
            ..PortMappingConfig::only(MappingProtocol::Pcp)
        };
        let carrier = RouterConfig::port_restricted();
        let mut scenario = Scenario::builder(6)
            .node_behind_carrier(RouterKind::Custom(config), carrier)
            .build();
        scenario.connect_all();
        scenario.lab.run_for(ms(3_000));
        scenario
    };
    let outer = report_of(&build(None)).public_v4.unwrap().ip();
    let mut scenario = build(Some(outer));
    map_port(&mut scenario);
    let report = report_of(&scenario);
    assert_eq!(
        (report.mappings[0].double_nat, report.mappings[0].reachable),
        (false, Some(false)),
        "{report:#?}"
    );
    assert!(!crate::peer::nat::is_friendly(&report));
    assert!(
        candidates(&mut scenario)
            .iter()
            .all(|(kind, _)| *kind != CandidateKind::Mapped)
    );
    // With its true address the second router shows without a try.
    let mut scenario = build(None);
    map_port(&mut scenario);
    let port = report_of(&scenario).mappings[0];
    assert_eq!((port.double_nat, port.reachable), (true, None));
}

#[test]
fn a_report_says_whether_the_port_that_it_tried_is_open() {
    let mut scenario = behind(7, mapping(RouterConfig::port_restricted())).build();
    scenario.connect_all();
    let request = scenario.request(0, |request| Command::Report {
        request,
        map_port: true,
        detect: DetectOptions::default(),
    });
    let OwnedEvent::Report { json, text, .. } = scenario.outcome(0, request) else {
        panic!("no report")
    };
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["mapping"]["ports"][0]["reachable"], true, "{text}");
    assert_eq!(json["mapping"]["taken_back"], true);
    assert!(text.contains("by pcp, open") || text.contains("by PCP, open"), "{text}");
}

#[test]
fn a_report_knows_two_routers_by_the_inner_one_that_has_no_public_address() {
    let mut config = RouterConfig::port_restricted();
    config.port_mapping = PortMappingConfig::default().with(MappingProtocol::Upnp, MappingService::NoPublicAddress);
    let carrier = RouterConfig::port_restricted();
    let mut scenario = Scenario::builder(6)
        .node_behind_carrier(RouterKind::Custom(config), carrier)
        .build();
    scenario.connect_all();
    let request = scenario.request(0, |request| Command::Report {
        request,
        map_port: true,
        detect: DetectOptions::default(),
    });
    let OwnedEvent::Report { json, text, .. } = scenario.outcome(0, request) else {
        panic!("no report")
    };
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["double_nat"], true, "{text}");
    let advised = json["advice"].as_array().unwrap().iter();
    let advised: Vec<_> = advised.filter_map(|advice| advice["id"].as_str()).collect();
    assert!(
        advised.contains(&"bridge") && !advised.contains(&"enable_upnp"),
        "{advised:?}"
    );
}

#[test]
fn ipv6_is_firewalled_or_works_as_the_router_lets_it() {
    for addresses in [1, 2] {
        for (ipv6_open, label) in [(true, "works"), (false, "firewalled")] {
            let config = RouterConfig {
                ipv6_open,
                ..RouterConfig::port_restricted()
            };
            let mut scenario = behind(8, config).ipv6().server_addresses(addresses).build();
            scenario.connect_all();
            let report = detect(&mut scenario);
            assert_eq!(report.v6_open, Some(ipv6_open), "{report:#?}");
            let request = scenario.request(0, |request| Command::Report {
                request,
                map_port: false,
                detect: DetectOptions::default(),
            });
            let OwnedEvent::Report { json, .. } = scenario.outcome(0, request) else {
                panic!("no report")
            };
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["ipv6"], label);
        }
    }
    // Without IPv6 nothing is said of it.
    let mut scenario = behind(8, RouterConfig::port_restricted()).build();
    scenario.connect_all();
    assert_eq!(detect(&mut scenario).v6_open, None);
}

#[test]
fn with_loss_the_firewall_of_ipv6_is_never_wrong() {
    let unknown = std::cell::Cell::new(0);
    with_seeds(300..400, |seed| {
        let ipv6_open = seed % 2 == 0;
        let config = RouterConfig {
            ipv6_open,
            ..RouterConfig::port_restricted()
        };
        let mut scenario = behind(seed, config)
            .ipv6()
            .round_trips(ms(100), ms(100))
            .loss(0.1)
            .build();
        connect_with_patience(&mut scenario);
        let found = detect(&mut scenario).v6_open;
        assert!(found.is_none_or(|open| open == ipv6_open), "{found:?}");
        unknown.set(unknown.get() + u32::from(found.is_none()));
    });
    println!("{} of 100 unknown", unknown.get());
    assert!(unknown.get() <= 20, "{}", unknown.get());
}
