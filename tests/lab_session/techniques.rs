//! Each technique of punching, between the routers that call for it. The nodes are told what discovery would have found; figures for all pairs,
//! with discovery at work, are the grid's.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lanline::codes::{Code, PathKind, SendMode};
use lanline::engine::SocketName;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Allocation, DropReason, Link, OwnedEvent, Party, assert_share_of_seeds, derive_seed};
use lanline::peer::api::Command;
use lanline::peer::{Node, ProbeCounters};
use lanline::wire::introduction::NatFacts;

use super::ms;

/// Seeds of each test in CI: enough to notice a technique that does not work, not to measure its share.
const SEEDS: u64 = 40;
/// Mappings that others open a second at routers that give ports in sequence.
const FOREIGN: f64 = 10.0;
/// Ports of a carrier's block.
const BLOCK: u16 = 2_048;
/// After this a player knows that there is no direct path.
const LATEST: Duration = Duration::from_secs(12);

/// A router of one class, and what discovery finds out about it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Class {
    /// Filters by address.
    A,
    /// Filters by port.
    P,
    /// Symmetric, keeping port numbers.
    Sp,
    /// In sequence, so far apart.
    Ss(i16),
    /// At random in a block.
    Sb,
    /// At random.
    Sr,
}

impl Class {
    fn router(self) -> RouterKind {
        match self {
            Self::A => RouterKind::AddressRestricted,
            Self::P => RouterKind::PortRestricted,
            Self::Sp => RouterKind::Symmetric(Allocation::Preserving),
            Self::Ss(step) => RouterKind::Symmetric(Allocation::Sequential {
                step,
                foreign_per_second: FOREIGN,
            }),
            Self::Sb => RouterKind::Symmetric(Allocation::RandomInBlock { size: BLOCK }),
            Self::Sr => RouterKind::Symmetric(Allocation::Random),
        }
    }

    /// `port` is one that its router has given.
    fn facts(self, seed: u64, port: u16) -> NatFacts {
        let symmetric = !matches!(self, Self::A | Self::P);
        let facts = NatFacts {
            mapping_varies_by_port: Some(symmetric),
            filters_by_address: Some(true),
            filters_by_port: Some(self != Self::A),
            preserves_port: Some(!matches!(self, Self::Ss(_) | Self::Sb | Self::Sr)),
            ..NatFacts::default()
        };
        match self {
            Self::Ss(step) => NatFacts {
                port_step: Some(step),
                ..facts
            },
            Self::Sb => {
                // Twelve samples, as discovery takes them.
                let first = port / BLOCK * BLOCK;
                let offset = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]) % BLOCK;
                let drawn = derive_seed(seed, "samples of a block", port.into());
                let samples = drawn[..24].chunks(2).map(|pair| first + offset(pair)).chain([port]);
                let (least, most) =
                    samples.fold((u16::MAX, 0), |(least, most), port| (least.min(port), most.max(port)));
                NatFacts {
                    port_block: Some((least, most)),
                    ..facts
                }
            }
            _ => facts,
        }
    }
}

/// What one attempt took.
struct Took {
    time: Duration,
    counters: [ProbeCounters; 2],
}

struct Pair {
    seed: u64,
    classes: [Class; 2],
    loss: f64,
    max_sockets: u16,
}

impl Pair {
    fn new(seed: u64, classes: [Class; 2]) -> Self {
        Self {
            seed,
            classes,
            loss: 0.0,
            max_sockets: 320,
        }
    }

    fn build(&self) -> Scenario {
        let [one, other] = self.classes;
        Scenario::builder(self.seed)
            .node(one.router())
            .node(other.router())
            .loss(self.loss)
            .max_sockets(self.max_sockets)
            .build()
    }

    /// Connects both to the server and lets them know their routers. Gives the addresses that the server sees.
    fn begin(&self, scenario: &mut Scenario) -> [SocketAddr; 2] {
        scenario.connect_all();
        let observed = [0, 1].map(|player| {
            let node = scenario.nodes[player];
            let view = scenario.lab.with_engine(node, |node: &mut Node, now| {
                node.expire_view();
                node.take_view(now)
            });
            view.and_then(|view| view.observed).unwrap()
        });
        for (player, address) in observed.iter().enumerate() {
            let facts = self.classes[player].facts(self.seed, address.port());
            let node = scenario.nodes[player];
            scenario
                .lab
                .with_engine(node, |node: &mut Node, _| node.assume_nat_facts(facts));
        }
        scenario.lab.run_for(ms(2_000));
        observed
    }

    fn scenario(&self) -> Scenario {
        let mut scenario = self.build();
        self.begin(&mut scenario);
        scenario
    }

    /// Opens a way, and checks the budgets whatever came of it.
    fn open(&self) -> Result<Took, String> {
        let mut scenario = self.scenario();
        let begin = scenario.lab.elapsed();
        let opened = scenario.open_nat(0, 1);
        let took = scenario.lab.elapsed() - begin;
        let counters = [0, 1].map(|player| scenario.lab.engine::<Node>(scenario.nodes[player]).probe_counters());
        for counters in &counters {
            assert_budgets(counters);
        }
        match opened {
            Ok(opened) => {
                assert_eq!(opened.path, PathKind::Direct);
                // A way is one only if a connection goes over it, whoever begins. (A handshake may fail of loss.)
                if self.loss == 0.0 {
                    let asker = (self.seed % 2) as usize;
                    scenario.connect_pair(asker, 1 - asker);
                }
                Ok(Took {
                    time: opened.took,
                    counters,
                })
            }
            Err(OwnedEvent::NatFailed { reason, .. }) => {
                assert!(took <= LATEST, "{took:?}");
                assert_eq!(reason.code, Code::NoDirectPath);
                Err(reason.text)
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn assert_budgets(counters: &ProbeCounters) {
    let within = counters.packets_to_an_address <= 10
        && counters.addresses <= 32
        && counters.predicted <= 64
        && counters.birthday_ports <= 2_048
        && counters.birthday_in_a_second <= 250
        && counters.opener_sockets <= 256
        && counters.opener_packets <= 3
        && counters.in_a_second <= 500;
    assert!(within, "{counters:?}");
}

/// The share of seeds that open, both ways round, within that time.
fn assert_opens(share: f64, classes: [Class; 2], loss: f64, within: Duration, max_sockets: u16) {
    for classes in [classes, [classes[1], classes[0]]] {
        assert_share_of_seeds(share, 0..SEEDS, |seed| {
            let pair = Pair {
                loss,
                max_sockets,
                ..Pair::new(seed, classes)
            };
            let took = pair.open().map_err(|reason| format!("{classes:?}: {reason}"))?;
            match took.time <= within {
                true => Ok(()),
                false => Err(format!("{classes:?}: {:?}, {:?}", took.time, took.counters)),
            }
        });
    }
}

#[test]
fn one_that_filters_by_address_meets_every_symmetric_router() {
    for symmetric in [Class::Sp, Class::Ss(1), Class::Sb, Class::Sr] {
        assert_opens(1.0, [Class::A, symmetric], 0.0, ms(300), 320);
        assert_opens(0.95, [Class::A, symmetric], 0.05, ms(2_000), 320);
    }
}

#[test]
fn a_symmetric_router_that_keeps_ports_is_met_at_its_sockets_number() {
    for other in [Class::P, Class::Sp] {
        assert_opens(0.99, [Class::Sp, other], 0.0, ms(140), 320);
        assert_opens(0.95, [Class::Sp, other], 0.05, ms(2_000), 320);
    }
}

#[test]
fn ports_in_sequence_are_foreseen_from_samples_around_the_mapping() {
    for (other, step) in [(Class::P, 1), (Class::Sp, 2), (Class::P, -1)] {
        assert_opens(0.98, [Class::Ss(step), other], 0.0, ms(500), 320);
        assert_opens(0.95, [Class::Ss(step), other], 0.05, ms(4_000), 320);
    }
}

#[test]
fn two_that_give_ports_in_sequence_meet_in_their_bursts() {
    assert_opens(0.9, [Class::Ss(1), Class::Ss(1)], 0.0, ms(4_000), 320);
    assert_opens(0.9, [Class::Ss(2), Class::Ss(-1)], 0.05, ms(8_000), 320);
}

#[test]
fn a_carriers_block_is_searched_in_a_moment() {
    for other in [Class::P, Class::Sp] {
        // An introduction, the openers' start, 1.5 s of probing.
        assert_opens(0.99, [other, Class::Sb], 0.0, ms(60 + 520 + 1_500 + 180), 320);
    }
}

#[test]
fn the_full_range_is_searched_within_ten_seconds() {
    assert_opens(0.97, [Class::P, Class::Sr], 0.0, ms(10_500), 320);
    assert_opens(0.97, [Class::Sp, Class::Sr], 0.05, ms(10_500), 320);
}

#[test]
fn few_sockets_find_each_other_mostly() {
    assert_opens(0.75, [Class::P, Class::Sr], 0.0, ms(10_500), 64);
}

#[test]
fn what_cannot_be_reached_ends_in_time_and_names_both_behaviours() {
    for classes in [
        [Class::Ss(1), Class::Sb],
        [Class::Sr, Class::Ss(1)],
        [Class::Sb, Class::Sr],
        [Class::Sr, Class::Sr],
    ] {
        let reason = Pair::new(1, classes).open().err();
        let reason = reason.unwrap_or_else(|| panic!("{classes:?} opened"));
        let words = |class| match class {
            Class::Ss(_) => "symmetric, with ports 1 apart, filtering by port",
            Class::Sb => "symmetric, with random ports from",
            _ => "symmetric, with random ports, filtering by port",
        };
        for class in classes {
            assert!(reason.contains(words(class)), "{classes:?}: {reason}");
        }
    }
}

/// Nothing passes between the two while the first samples are fresh.
#[test]
fn a_later_round_makes_good_what_the_first_missed() {
    for classes in [[Class::Ss(1), Class::P], [Class::Ss(1), Class::Ss(1)]] {
        let mut scenario = Pair::new(3, classes).scenario();
        let (one, other) = (Party::Host(scenario.nodes[0]), Party::Host(scenario.nodes[1]));
        let peer = scenario.guids[1];
        scenario.lab.partition(one, other);
        let request = scenario.request(0, |request| Command::OpenNat { request, peer });
        scenario.lab.run_for(ms(900));
        scenario.lab.heal();
        let outcome = scenario.outcome(0, request);
        assert!(matches!(outcome, OwnedEvent::NatSucceeded { .. }), "{outcome:?}");
    }
}

/// Another machine of the household had the socket's number towards the server first: the server sees another one, everybody else the
/// socket's own.
#[test]
fn a_number_that_only_the_server_sees_misleads_nobody() {
    for (asker, target) in [(0, 1), (1, 0)] {
        let pair = Pair::new(5, [Class::Sp, Class::P]);
        let mut scenario = pair.build();
        let lan = scenario.lab.lan(scenario.routers[0].unwrap());
        let neighbour = scenario.lab.add_host("neighbour", lan, Link::lan(ms(1)));
        let own_port = scenario.lab.socket_address(scenario.nodes[0], SocketName::Udp4).port();
        let bound = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), own_port);
        scenario.lab.open_socket(neighbour, SocketName::Udp4, bound);
        scenario.lab.start_raw(neighbour);
        let server = scenario.server_address;
        scenario.lab.send_raw(neighbour, SocketName::Udp4, server, b"first");
        scenario.lab.run_for(ms(100));
        let observed = pair.begin(&mut scenario);
        assert_ne!(observed[0].port(), own_port);
        let opened = scenario.open_nat(asker, target).unwrap();
        assert!(opened.took <= ms(140), "{:?}", opened.took);
    }
}

/// The first packets of the openers die between the routers, unless a second router may stand in their way.
#[test]
fn openers_knock_at_their_own_router_first() {
    for (class, short) in [(Class::Sr, 256), (Class::Sb, 0)] {
        let mut scenario = Pair::new(6, [Class::P, class]).scenario();
        scenario.open_nat(0, 1).unwrap();
        assert_eq!(scenario.lab.dropped(DropReason::HopLimit), short, "{class:?}");
    }
}

/// Sockets are the system's: those that did not become the path are closed at once, and that one with the connection.
#[test]
fn sockets_live_no_longer_than_what_they_are_for() {
    for classes in [[Class::P, Class::Sb], [Class::Sb, Class::Sp], [Class::Ss(1), Class::P]] {
        let mut scenario = Pair::new(4, classes).scenario();
        let opened = scenario.open_nat(0, 1);
        assert!(opened.is_ok(), "{opened:?}");
        scenario.connect_pair(0, 1);
        let open = |scenario: &Scenario| [0, 1].map(|player| scenario.lab.socket_count(scenario.nodes[player]));
        let beside_main: usize = open(&scenario).iter().map(|count| count - 1).sum();
        assert!((1..=3).contains(&beside_main), "{classes:?}: {beside_main}");
        // Longer than a silent path would be held: the connection is one that is used.
        scenario.lab.run_for(Duration::from_secs(90));
        let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
        scenario.lab.send(sender, peer, 0, SendMode::Reliable, b"hi").unwrap();
        scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
        let text = String::new();
        let disconnect = Command::Disconnect {
            peer,
            user_code: 0,
            text,
        };
        scenario.lab.command(sender, disconnect);
        scenario.lab.run_for(Duration::from_secs(70));
        assert_eq!(open(&scenario), [1, 1], "{classes:?}");
    }
}

/// One of the opener's ports was the local one by chance in the first; in the others the two sides chose different ones of several sockets that
/// were hit at once, and packets were lost.
#[test]
fn what_birthday_punching_opened_carries_a_connection() {
    for (allocation, seed) in [
        (Allocation::RandomInBlock { size: BLOCK }, 78),
        (Allocation::RandomInBlock { size: BLOCK }, 60),
        (Allocation::RandomInBlock { size: BLOCK }, 227),
        (Allocation::Random, 104),
        (Allocation::Random, 368),
    ] {
        let mut scenario = Scenario::builder(seed)
            .loss(0.05)
            .node(RouterKind::Symmetric(allocation))
            .node(RouterKind::PortRestricted)
            .build();
        scenario.connect_all();
        scenario.lab.run_for(ms(2_000));
        let opened = scenario.open_nat(0, 1);
        assert!(opened.is_ok(), "{opened:?} (lab seed {seed})");
        scenario.connect_pair(0, 1);
    }
}
