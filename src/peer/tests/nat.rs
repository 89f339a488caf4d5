//! Behaviour discovery: what a node finds out about the router that it sits behind, with the lab's routers and its server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::ms;
use crate::codes::{Code, NatType};
use crate::engine::SocketName;
use crate::lab::scenario::{RouterKind, Scenario, ScenarioBuilder};
use crate::lab::{Allocation, Dependence, Link, OwnedEvent, Pooling, RouterConfig, with_seeds};
use crate::peer::Node;
use crate::peer::api::nat::{DetectOptions, NatReport};
use crate::peer::api::{Command, Reason};

use Dependence::{Address, AddressAndPort, EndpointIndependent};

const DEPENDENCES: [Dependence; 3] = [EndpointIndependent, Address, AddressAndPort];

const SEQUENTIAL: Allocation = Allocation::Sequential {
    step: 2,
    foreign_per_second: 10.0,
};
const BLOCK: Allocation = Allocation::RandomInBlock { size: 2_048 };
const ALLOCATIONS: [Allocation; 4] = [Allocation::Preserving, SEQUENTIAL, BLOCK, Allocation::Random];

fn router(mapping: Dependence, filtering: Dependence, allocation: Allocation) -> RouterConfig {
    RouterConfig {
        mapping,
        filtering,
        ..RouterConfig::full_cone().with_allocation(allocation)
    }
}

fn behind(seed: u64, config: RouterConfig) -> ScenarioBuilder {
    Scenario::builder(seed).node(RouterKind::Custom(config))
}

/// `detect_nat` of player 0: its report, why it is less than usual, and how long it took.
fn detect(scenario: &mut Scenario, options: DetectOptions) -> (NatReport, Option<Reason>, Duration) {
    let begin = scenario.lab.elapsed();
    let request = scenario.request(0, |request| Command::DetectNat { request, options });
    let limit = Duration::from_secs(200);
    let ended = scenario.wait(0, limit, |event| event.ends_request() == Some(request));
    let ended = ended.unwrap_or_else(|| panic!("detect_nat does not end (lab seed {})", scenario.lab.seed()));
    match ended.event {
        OwnedEvent::NatDetected { report, reason, .. } => (*report, reason, ended.time - begin),
        other => panic!("{other:?}"),
    }
}

fn detected(scenario: &mut Scenario) -> NatReport {
    scenario.connect_all();
    detect(scenario, DetectOptions::default()).0
}

/// A fact that may be unknown, but must not be wrong. True if it is unknown.
fn never_wrong<T: PartialEq + std::fmt::Debug>(what: &str, found: Option<T>, truth: T, context: &str) -> bool {
    assert!(
        found.is_none() || found.as_ref() == Some(&truth),
        "{what}: {found:?} instead of {truth:?}; {context}"
    );
    found.is_none()
}

/// Whether a mapping of such a router differs by address, and by port.
fn varies(dependence: Dependence) -> (bool, bool) {
    (dependence >= Address, dependence == AddressAndPort)
}

/// Compares a report with what the router is; returns the number of facts that are unknown although they could be known.
fn check(report: &NatReport, config: &RouterConfig, addresses: usize, context: &str) -> u32 {
    let facts = &report.facts;
    let two = addresses > 1;
    let mut unknown = 0;
    // With kept ports and overloading every destination sees the same number: nothing varies that anyone could notice.
    let (by_address, by_port) = varies(config.mapping);
    let hidden = config.port_overloading;
    unknown += u32::from(never_wrong(
        "mapping by port",
        facts.mapping_varies_by_port,
        by_port && !hidden,
        context,
    ));
    unknown += u32::from(
        two & never_wrong(
            "mapping by address",
            facts.mapping_varies_by_address,
            by_address && !hidden,
            context,
        ),
    );
    let (by_address, by_port) = varies(config.filtering);
    unknown += u32::from(never_wrong("filter by port", facts.filters_by_port, by_port, context));
    unknown += u32::from(two & never_wrong("filter by address", facts.filters_by_address, by_address, context));
    if !two {
        assert_eq!(
            (facts.mapping_varies_by_address, facts.filters_by_address),
            (None, None),
            "{context}"
        );
    }
    let preserves = config.allocation == Allocation::Preserving;
    unknown += u32::from(never_wrong("kept ports", facts.preserves_port, preserves, context));
    match config.allocation {
        Allocation::Sequential { step, .. } => {
            unknown += u32::from(never_wrong("step", facts.port_step, step, context));
            assert_eq!(facts.port_block, None, "{context}");
        }
        Allocation::RandomInBlock { size } => {
            assert_eq!(facts.port_step, None, "{context}");
            let inside = |(first, last): (u16, u16)| first.is_multiple_of(size) && last - first == size - 1;
            unknown += u32::from(never_wrong("block", facts.port_block.map(inside), true, context));
        }
        Allocation::Preserving | Allocation::Random => {
            assert_eq!((facts.port_step, facts.port_block), (None, None), "{context}");
        }
    }
    let symmetric = facts.mapping_varies_by_port == Some(true) || facts.mapping_varies_by_address == Some(true);
    assert_eq!(report.name == Some(NatType::Symmetric), symmetric, "{context}");
    unknown
}

#[test]
fn every_mapping_filtering_and_allocation_is_told_apart() {
    for addresses in [1, 2] {
        for mapping in DEPENDENCES {
            for filtering in DEPENDENCES {
                for allocation in ALLOCATIONS {
                    let config = router(mapping, filtering, allocation);
                    let mut scenario = behind(5, config.clone()).server_addresses(addresses).build();
                    let report = detected(&mut scenario);
                    let context = format!("{mapping:?} {filtering:?} {allocation:?} {addresses} {report:#?}");
                    assert_eq!(check(&report, &config, addresses, &context), 0, "{context}");
                    assert_ne!(report.facts.hairpin, Some(true), "{context}");
                    assert_eq!(report.untranslated, Some(false), "{context}");
                }
            }
        }
    }
}

#[test]
fn names_are_the_most_restrictive_ones_that_the_facts_allow() {
    let symmetric = RouterConfig::symmetric(Allocation::Random);
    for (config, addresses, name, certain) in [
        (RouterConfig::full_cone(), 2, NatType::FullCone, true),
        (RouterConfig::address_restricted(), 2, NatType::AddressRestricted, true),
        (RouterConfig::port_restricted(), 2, NatType::PortRestricted, true),
        (symmetric.clone(), 2, NatType::Symmetric, true),
        (RouterConfig::full_cone(), 1, NatType::AddressRestricted, false),
        (RouterConfig::address_restricted(), 1, NatType::AddressRestricted, false),
        (RouterConfig::port_restricted(), 1, NatType::PortRestricted, false),
        (symmetric, 1, NatType::Symmetric, true),
        (RouterConfig::open(), 2, NatType::None, true),
        (RouterConfig::firewall(), 2, NatType::PortRestricted, true),
        (RouterConfig::firewall(), 1, NatType::PortRestricted, true),
    ] {
        let context = format!("{config:?}, {addresses} addresses");
        let mut scenario = behind(6, config).server_addresses(addresses).build();
        let report = detected(&mut scenario);
        assert_eq!(
            (report.name, report.certain),
            (Some(name), certain),
            "{context}: {report:#?}"
        );
    }
    let mut scenario = Scenario::builder(6).node(RouterKind::Open).server_addresses(2).build();
    let report = detected(&mut scenario);
    assert_eq!((report.name, report.untranslated), (Some(NatType::None), Some(true)));
}

/// Connects player 0 to the server, however often it takes.
fn connect_with_patience(scenario: &mut Scenario) {
    loop {
        let request = scenario.connect_server(0);
        if let OwnedEvent::ServerConnected { .. } = scenario.outcome(0, request) {
            return;
        }
    }
}

/// 100 ms round trip, 10 % loss each way: in time, nothing wrong, and little unknown.
fn lossy(config: &RouterConfig, addresses: usize, seeds: std::ops::Range<u64>) {
    let (mut unknown, mut longest, mut runs) = (0, Duration::ZERO, 0);
    let counts = std::cell::RefCell::new((&mut unknown, &mut longest, &mut runs));
    with_seeds(seeds, |seed| {
        let mut scenario = behind(seed, config.clone())
            .server_addresses(addresses)
            .round_trips(ms(100), ms(100))
            .loss(0.1)
            .build();
        connect_with_patience(&mut scenario);
        // The quick discovery that begins by itself is over: this one is a run of its own.
        scenario.lab.run_for(Duration::from_secs(3));
        let quick = scenario.lab.engine::<Node>(scenario.nodes[0]).nat_report().clone();
        let mut counts = counts.borrow_mut();
        *counts.0 += check(&quick, config, addresses, &format!("quick: {quick:#?}"));
        let (report, _, took) = detect(&mut scenario, DetectOptions::default());
        assert!(took < ms(1_500), "{took:?}");
        *counts.0 += check(&report, config, addresses, &format!("{report:#?}"));
        *counts.1 = (*counts.1).max(took);
        *counts.2 += 1;
    });
    println!(
        "{:?} {:?} {:?}, {addresses} address(es): {unknown} unknown facts in {runs} runs, longest {longest:?}",
        config.mapping, config.filtering, config.allocation
    );
    assert!(unknown * 50 <= runs, "{unknown} unknown facts in {runs} runs");
}

#[test]
fn with_loss_a_full_cone_is_none_the_worse() {
    lossy(&RouterConfig::full_cone(), 2, 0..500);
    lossy(&RouterConfig::full_cone(), 1, 500..600);
}

#[test]
fn with_loss_an_address_restricted_router_is_none_the_worse() {
    lossy(&RouterConfig::address_restricted(), 2, 1_000..1_500);
    lossy(&RouterConfig::address_restricted(), 1, 1_500..1_600);
}

#[test]
fn with_loss_a_port_restricted_router_is_never_called_strict() {
    lossy(&RouterConfig::port_restricted(), 2, 2_000..2_500);
    lossy(&RouterConfig::port_restricted(), 1, 2_500..2_600);
}

#[test]
fn with_loss_steps_are_found() {
    lossy(&RouterConfig::symmetric(SEQUENTIAL), 2, 3_000..3_500);
    lossy(&RouterConfig::symmetric(SEQUENTIAL), 1, 3_500..3_600);
}

#[test]
fn with_loss_blocks_are_found() {
    lossy(&RouterConfig::symmetric(BLOCK), 2, 4_000..4_500);
    lossy(&RouterConfig::symmetric(BLOCK), 1, 4_500..4_600);
}

#[test]
fn with_loss_random_ports_stay_random() {
    lossy(&RouterConfig::symmetric(Allocation::Random), 2, 5_000..5_500);
    lossy(&RouterConfig::symmetric(Allocation::Preserving), 2, 5_500..5_600);
}

#[test]
fn with_loss_nothing_is_wrong_behind_any_router() {
    let mut seed = 6_000;
    for addresses in [1, 2] {
        for mapping in DEPENDENCES {
            for filtering in DEPENDENCES {
                for allocation in ALLOCATIONS {
                    lossy(&router(mapping, filtering, allocation), addresses, seed..seed + 10);
                    seed += 10;
                }
            }
        }
    }
}

#[test]
fn several_public_addresses_are_noticed() {
    let config = RouterConfig {
        public_addresses: 4,
        pooling: Pooling::Arbitrary,
        ..RouterConfig::port_restricted()
    };
    let mut scenario = behind(23, config.clone()).server_addresses(2).build();
    let report = detected(&mut scenario);
    assert_eq!(report.several_addresses, Some(true));
    assert_eq!(check(&report, &config, 2, "several addresses"), 0);
    // One address shows with many samples only.
    let mut scenario = behind(23, RouterConfig::symmetric(Allocation::Random)).build();
    assert_eq!(detected(&mut scenario).several_addresses, Some(false));
}

#[test]
fn a_pattern_that_a_later_run_does_not_see_stays_known() {
    use crate::peer::nat::combine;
    use crate::wire::introduction::NatFacts;
    let ports = |preserves_port, port_step, port_block| NatFacts {
        preserves_port,
        port_step,
        port_block,
        ..NatFacts::default()
    };
    let step = ports(Some(false), Some(2), None);
    assert_eq!(combine(ports(Some(false), None, None), step), step);
    assert_eq!(combine(NatFacts::default(), step), step);
    let block = ports(Some(false), None, Some((4_096, 6_143)));
    assert_eq!(combine(block, step), block);
    let kept = ports(Some(true), None, None);
    assert_eq!(combine(kept, step), kept);
}

/// Somebody else has the socket's number towards the server: the only sign of a router that maps each destination anew, and keeps numbers.
#[test]
fn a_taken_number_shows_whether_a_router_that_keeps_numbers_is_symmetric() {
    use crate::peer::nat::combine;
    use crate::wire::introduction::NatFacts;
    for (config, varies, name) in [
        (
            RouterConfig::symmetric(Allocation::Preserving),
            true,
            NatType::Symmetric,
        ),
        (RouterConfig::port_restricted(), false, NatType::PortRestricted),
    ] {
        let mut scenario = behind(29, config).build();
        let lan = scenario.lab.lan(scenario.routers[0].unwrap());
        let neighbour = scenario.lab.add_host("neighbour", lan, Link::default());
        let own_port = scenario.lab.socket_address(scenario.nodes[0], SocketName::Udp4).port();
        let bound = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), own_port);
        scenario.lab.open_socket(neighbour, SocketName::Udp4, bound);
        scenario.lab.start_raw(neighbour);
        let server = scenario.server_address;
        scenario.lab.send_raw(neighbour, SocketName::Udp4, server, b"first");
        scenario.lab.run_for(ms(100));
        let report = detected(&mut scenario);
        assert_ne!(report.public_v4.unwrap().port(), own_port);
        let facts = report.facts;
        assert_eq!(facts.preserves_port, Some(true), "{report:#?}");
        assert_eq!(facts.mapping_varies_by_port, Some(varies), "{report:#?}");
        assert_eq!(report.name, Some(name), "{report:#?}");
        // Later runs on sockets whose numbers nobody else has do not undo it.
        let unseen = NatFacts {
            mapping_varies_by_port: Some(false),
            ..facts
        };
        assert_eq!(combine(unseen, facts), facts);
    }
}

#[test]
fn a_quick_discovery_runs_by_itself_and_raises_no_event() {
    let mut scenario = behind(7, RouterConfig::port_restricted()).server_addresses(2).build();
    scenario.connect_all();
    let found = scenario.lab.run_until(ms(1_500), |lab| {
        let node = lab.engine::<Node>(scenario.nodes[0]);
        node.nat_report().name == Some(NatType::PortRestricted)
    });
    assert!(found.is_some());
    let report = scenario.lab.engine::<Node>(scenario.nodes[0]).nat_report();
    assert_eq!(report.facts.hairpin, None);
    assert!(report.public_v4.is_some());
    scenario.lab.run_for(Duration::from_secs(3));
    let events = scenario.lab.events(scenario.nodes[0]);
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn several_requests_each_get_their_event() {
    let mut scenario = behind(8, RouterConfig::port_restricted()).build();
    scenario.connect_all();
    let options = DetectOptions::default;
    let requests: Vec<_> = (0..3)
        .map(|_| {
            scenario.request(0, |request| Command::DetectNat {
                request,
                options: options(),
            })
        })
        .collect();
    // One that cannot share their run.
    let lifetime_up_to = Some(Duration::from_secs(10));
    let other = scenario.request(0, |request| Command::DetectNat {
        request,
        options: DetectOptions {
            lifetime_up_to,
            ..options()
        },
    });
    for request in requests.into_iter().chain([other]) {
        let outcome = scenario.outcome(0, request);
        assert!(
            matches!(outcome, OwnedEvent::NatDetected { reason: None, .. }),
            "{outcome:?}"
        );
    }
    // A request that joins the quick discovery finds out about hairpins, too.
    let report = scenario.lab.engine::<Node>(scenario.nodes[0]).nat_report();
    assert_eq!(report.facts.hairpin, Some(false));
}

#[test]
fn without_a_server_the_event_says_what_to_do() {
    let mut scenario = behind(9, RouterConfig::full_cone()).build();
    let (report, reason, _) = detect(&mut scenario, DetectOptions::default());
    assert_eq!((report.name, report.known), (Some(NatType::Unknown), false));
    let reason = reason.unwrap();
    assert_eq!(reason.code, Code::ServerLost);
    assert!(reason.text.contains("connect"));
}

#[test]
fn a_cancelled_request_ends_at_once_and_the_node_goes_on() {
    let mut scenario = behind(10, RouterConfig::full_cone()).server_addresses(2).build();
    scenario.connect_all();
    scenario.lab.run_for(Duration::from_secs(3));
    let options = DetectOptions::default;
    let request = scenario.request(0, |request| Command::DetectNat {
        request,
        options: options(),
    });
    scenario.lab.run_for(ms(20));
    scenario.request(0, |_| Command::Cancel { request });
    let ended = scenario
        .wait(0, ms(1), |event| event.ends_request() == Some(request))
        .unwrap();
    assert!(
        matches!(&ended.event, OwnedEvent::NatDetected { reason: Some(reason), .. } if reason.code == Code::Cancelled)
    );
    let (report, ..) = detect(&mut scenario, options());
    assert_eq!(report.name, Some(NatType::FullCone));
    assert!(
        scenario
            .lab
            .take_event(scenario.nodes[0], |event| event.ends_request() == Some(request))
            .is_none()
    );
}

#[test]
fn blocked_udp_is_told_from_a_silent_server() {
    let config = RouterConfig {
        blocks_udp: true,
        ..RouterConfig::full_cone()
    };
    let mut scenario = behind(11, config).build();
    let request = scenario.connect_server(0);
    let failed = scenario.outcome(0, request);
    assert!(matches!(failed, OwnedEvent::ServerFailed { .. }));
    let (report, reason, took) = detect(&mut scenario, DetectOptions::default());
    assert_eq!(reason.unwrap().code, Code::NoAnswer);
    assert_eq!(report.udp_blocked, Some(true));
    assert_eq!(report.name, Some(NatType::Unknown));
    assert!(took <= ms(4_000), "{took:?}");

    // With a session UDP is not blocked, whatever a STUN server does.
    let mut scenario = behind(11, RouterConfig::full_cone()).node(RouterKind::Open).build();
    scenario.connect_all();
    let silent = scenario.lab.addresses(scenario.nodes[1])[0].to_string();
    let options = DetectOptions {
        server: Some((silent, 9)),
        ..DetectOptions::default()
    };
    let (report, reason, _) = detect(&mut scenario, options);
    assert_eq!(reason.unwrap().code, Code::NoAnswer);
    assert_eq!(report.udp_blocked, Some(false));
}

#[test]
fn a_named_stun_server_is_looked_up_and_asked_without_a_session() {
    let mut scenario = behind(12, RouterConfig::address_restricted())
        .server_addresses(2)
        .build();
    let ip = scenario.server_address.ip();
    scenario.lab.set_name("stun.example", vec![ip]);
    let named = |host: &str| DetectOptions {
        server: Some((host.to_owned(), 61_111)),
        ..DetectOptions::default()
    };
    let (report, reason, _) = detect(&mut scenario, named("stun.example"));
    assert_eq!(reason, None);
    assert_eq!((report.name, report.certain), (Some(NatType::AddressRestricted), true));
    assert!(report.public_v4.is_some());
    let (_, reason, _) = detect(&mut scenario, named("nowhere.example"));
    assert_eq!(reason.unwrap().code, Code::NameNotResolved);
    let (report, reason, _) = detect(&mut scenario, named(&ip.to_string()));
    assert_eq!((report.name, reason), (Some(NatType::AddressRestricted), None));
}

#[test]
fn two_routers_in_a_row_are_what_both_together_do() {
    for (inner, outer, name) in [
        (RouterConfig::full_cone(), RouterConfig::full_cone(), NatType::FullCone),
        (
            RouterConfig::full_cone(),
            RouterConfig::port_restricted(),
            NatType::PortRestricted,
        ),
        (
            RouterConfig::address_restricted(),
            RouterConfig::full_cone(),
            NatType::AddressRestricted,
        ),
        (
            RouterConfig::full_cone(),
            RouterConfig::symmetric(BLOCK),
            NatType::Symmetric,
        ),
        (
            RouterConfig::symmetric(Allocation::Random),
            RouterConfig::full_cone(),
            NatType::Symmetric,
        ),
    ] {
        let context = format!("{inner:?} {outer:?}");
        let mut scenario = Scenario::builder(13)
            .server_addresses(2)
            .node_behind_carrier(RouterKind::Custom(inner), outer)
            .build();
        let report = detected(&mut scenario);
        assert_eq!(
            (report.name, report.certain),
            (Some(name), true),
            "{context} {report:#?}"
        );
    }
}

#[test]
fn hairpins_are_noticed() {
    for config in [
        RouterConfig::full_cone(),
        RouterConfig::address_restricted(),
        RouterConfig::port_restricted(),
    ] {
        let mut scenario = behind(14, config.clone().with_hairpin()).build();
        assert_eq!(detected(&mut scenario).facts.hairpin, Some(true), "{config:?}");
        let mut scenario = behind(14, config.clone()).build();
        assert_eq!(detected(&mut scenario).facts.hairpin, Some(false), "{config:?}");
    }
    // Through a mapping that varies nobody can tell by these addresses.
    let mut scenario = behind(14, RouterConfig::symmetric(Allocation::Random)).build();
    assert_eq!(detected(&mut scenario).facts.hairpin, None);
}

#[test]
fn lifetimes_of_20_30_and_60_seconds_are_found() {
    let options = || DetectOptions {
        lifetime_up_to: Some(Duration::from_secs(120)),
        ..DetectOptions::default()
    };
    for (seconds, loss, least, less) in [
        (20, 0.0, 15, 20),
        (30, 0.1, 25, 30),
        (60, 0.0, 45, 60),
        (60, 0.1, 45, 60),
    ] {
        for config in [
            RouterConfig::port_restricted(),
            RouterConfig::symmetric(Allocation::Random),
        ] {
            let config = config.with_timeout(Duration::from_secs(seconds));
            let mut scenario = behind(15, config).loss(loss).build();
            connect_with_patience(&mut scenario);
            let (report, reason, took) = detect(&mut scenario, options());
            let expected = (Duration::from_secs(least), Some(Duration::from_secs(less)));
            assert_eq!(report.lifetime, Some(expected), "{seconds} s");
            assert_eq!(reason, None);
            assert!(took < Duration::from_secs(seconds + 10), "{took:?}");
        }
    }
}

#[test]
fn a_lifetime_beyond_the_limit_is_known_to_be_at_least_that() {
    let config = RouterConfig::port_restricted().with_timeout(Duration::from_secs(300));
    let mut scenario = behind(16, config).build();
    scenario.connect_all();
    let options = DetectOptions {
        lifetime_up_to: Some(Duration::from_secs(20)),
        ..DetectOptions::default()
    };
    let (report, ..) = detect(&mut scenario, options);
    assert_eq!(report.lifetime, Some((Duration::from_secs(20), None)));
}

#[test]
fn few_sockets_tell_less_and_nothing_wrong() {
    for count in 0..=8 {
        for config in [
            RouterConfig::full_cone(),
            RouterConfig::port_restricted(),
            RouterConfig::symmetric(SEQUENTIAL),
            RouterConfig::symmetric(BLOCK),
            RouterConfig::symmetric(Allocation::Random),
        ] {
            let mut scenario = behind(17, config.clone())
                .server_addresses(2)
                .max_sockets(count)
                .build();
            scenario.connect_all();
            let (report, reason, _) = detect(&mut scenario, DetectOptions::default());
            let context = format!("{count} sockets, {config:?}, {report:#?}");
            check(&report, &config, 2, &context);
            // The mapping can be compared with the node's own socket.
            assert!(report.facts.mapping_varies_by_port.is_some(), "{context}");
            assert_eq!(report.facts.filters_by_port.is_some(), count > 0, "{context}");
            assert_eq!(reason.is_some(), count == 0, "{context}");
        }
    }
}

#[test]
fn a_server_with_one_port_leaves_unknown_what_it_cannot_show() {
    let mut scenario = behind(18, RouterConfig::port_restricted())
        .configure_server(|config| config.sockets.retain(|socket| socket.main))
        .build();
    scenario.connect_all();
    let (report, reason, _) = detect(&mut scenario, DetectOptions::default());
    assert_eq!(report.name, Some(NatType::Unknown));
    assert_eq!(report.facts.filters_by_port, None);
    assert_eq!(report.facts.preserves_port, Some(true));
    assert_eq!(reason.unwrap().code, Code::Unsupported);
}

#[test]
fn sockets_are_closed_when_a_run_ends() {
    let mut scenario = behind(19, RouterConfig::symmetric(Allocation::Random))
        .max_sockets(20)
        .build();
    scenario.connect_all();
    for _ in 0..4 {
        let (report, ..) = detect(&mut scenario, DetectOptions::default());
        assert_eq!(report.samples.len(), 18);
    }
}

#[test]
fn what_was_known_of_another_network_is_forgotten() {
    let mut scenario = behind(20, RouterConfig::full_cone()).server_addresses(2).build();
    let report = detected(&mut scenario);
    assert_eq!(report.name, Some(NatType::FullCone));
    let router = scenario.routers[0].unwrap();
    scenario
        .lab
        .change_router(router, |config| config.filtering = AddressAndPort);
    let local: Vec<_> = vec!["192.168.9.9".parse().unwrap()];
    let now = scenario.lab.now();
    scenario.lab.with_engine(scenario.nodes[0], |node: &mut Node, _| {
        let answer = crate::peer::api::SideEffectAnswer::LocalAddresses(local);
        node.side_effect_answer(now, answer);
        assert_eq!(node.nat_report().name, None);
    });
    scenario.lab.run_for(Duration::from_secs(2));
    let node = scenario.lab.engine::<Node>(scenario.nodes[0]);
    assert_eq!(node.nat_report().name, Some(NatType::PortRestricted));
}

#[test]
fn both_ip_versions_are_seen_and_proven() {
    let mut scenario = behind(21, RouterConfig::port_restricted()).ipv6().build();
    scenario.connect_all();
    scenario.lab.run_for(Duration::from_secs(2));
    let report = scenario.lab.engine::<Node>(scenario.nodes[0]).nat_report();
    assert!(report.public_v4.is_some_and(|address| address.is_ipv4()), "{report:#?}");
    assert!(report.public_v6.is_some_and(|address| address.is_ipv6()), "{report:#?}");
    let proofs = scenario.lab.engine::<Node>(scenario.nodes[0]).nat_proofs();
    assert_eq!(proofs.len(), 1);
    assert!([report.public_v4, report.public_v6].contains(&Some(proofs[0].address)));
}

#[test]
fn forged_answers_change_nothing_and_are_counted() {
    use crate::wire::stun::{Response, is_stun, peek_transaction};
    let mut scenario = behind(22, RouterConfig::port_restricted()).server_addresses(2).build();
    scenario.connect_all();
    scenario.lab.run_for(Duration::from_secs(3));
    scenario.lab.capture();
    let options = DetectOptions::default();
    let request = scenario.request(0, |request| Command::DetectNat { request, options });
    scenario.lab.run_for(ms(35));
    // Somebody saw the requests at the server, and answers from elsewhere, to every socket, before the server's answers arrive.
    let node = scenario.nodes[0];
    let captured = scenario.lab.take_captured();
    let requests: Vec<_> = captured.iter().filter(|datagram| is_stun(&datagram.contents)).collect();
    assert!(!requests.is_empty());
    let mapped: SocketAddr = "20.9.9.9:999".parse().unwrap();
    let forger: SocketAddr = "20.9.9.9:61111".parse().unwrap();
    for datagram in requests {
        let response = Response::Success {
            transaction: peek_transaction(&datagram.contents).unwrap(),
            mapped,
            origin: None,
            other: Some(forger),
            cookie: None,
        };
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        for number in 0..40 {
            scenario
                .lab
                .inject(node, crate::engine::SocketName::Birthday(number), forger, &bytes);
        }
    }
    let outcome = scenario.outcome(0, request);
    let OwnedEvent::NatDetected { report, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(report.name, Some(NatType::PortRestricted));
    assert_ne!(report.public_v4, Some(mapped));
    assert!(report.samples.iter().all(|sample| sample.0 != mapped.port()));
    let now = scenario.lab.now();
    let view = scenario.lab.with_engine(node, |node: &mut Node, _| {
        node.expire_view();
        node.take_view(now).unwrap()
    });
    assert!(view.dropped_datagrams >= 40, "{}", view.dropped_datagrams);
}
