//! One attempt by itself: what is sent, what is believed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ms;
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::peer::punch::budget::{PLAIN_ADDRESSES, PREDICTED_ADDRESSES};
use crate::peer::punch::series::{HOLD_INTERVAL, TIME_LIMIT};
use crate::peer::punch::{HOLD_TIME, LAN_GRACE, Outgoing, Packet, Punch, Purpose, Surroundings, Verdict};
use crate::transport::identity::PublicKey;
use crate::wire::introduction::{BirthdayPermit, Candidate, CandidateKind, Introduction, NatFacts, PortForecast};
use crate::wire::probe::{PADDED_PROBE, PLAIN_PROBE, Probe, ProbeKind};

const PUBLIC: &str = "198.51.100.7:4000";
const LOCAL: &str = "192.168.1.7:4000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn introduction(candidates: &[(CandidateKind, &str)]) -> Introduction {
    Introduction {
        id: 9,
        request: 1,
        peer: PublicKey([1; 32]),
        secret: [2; 32],
        valid_ms: 30_000,
        candidates: candidates
            .iter()
            .map(|(kind, text)| Candidate {
                kind: *kind,
                address: address(text),
            })
            .collect(),
        own_observed: Some(address("203.0.113.1:5000")),
        facts: NatFacts::default(),
        permit: BirthdayPermit::default(),
        relays: Vec::new(),
        first_flight: Bytes::new(),
        own_facts: NatFacts::default(),
    }
}

const AROUND: Surroundings = Surroundings {
    stun: None,
    hold_interval: HOLD_INTERVAL,
};

/// An attempt with its time.
struct Test {
    punch: Punch,
    start: Instant,
    now: Instant,
    random: u64,
}

impl Test {
    fn new(candidates: &[(CandidateKind, &str)]) -> Self {
        let start = Instant::now();
        let only_v4 = |address: SocketAddr| address.is_ipv4().then_some(SocketName::Udp4);
        Self {
            punch: Punch::new(start, &introduction(candidates), true, AROUND, only_v4),
            start,
            now: start,
            random: 0,
        }
    }

    fn due(&mut self) -> Vec<Outgoing> {
        let mut due = Vec::new();
        while let Some(packet) = self.punch.next_packet(self.now, || {
            self.random += 1;
            self.random
        }) {
            match packet {
                Packet::Probe(outgoing) => due.push(outgoing),
                Packet::Sample { .. } => panic!("there is no server"),
            }
        }
        due
    }

    fn at(&mut self, after: Duration) -> &mut Self {
        self.now = self.start + after;
        self
    }

    fn handle(&mut self, source: &str, transaction: u64, kind: ProbeKind, size: usize) -> Option<Outgoing> {
        let probe = Probe {
            introduction: 9,
            from_asker: false,
            transaction,
            kind,
        };
        self.punch
            .handle(self.now, SocketName::Udp4, address(source), &probe, size)
    }

    fn request(&mut self, source: &str, size: usize) -> Option<Outgoing> {
        self.handle(source, 77, ProbeKind::Request, size)
    }

    fn answer(&mut self, outgoing: &Outgoing) {
        let observed = address("203.0.113.1:5000");
        let size = outgoing.padded_to.max(PLAIN_PROBE);
        let source = outgoing.address.to_string();
        self.handle(
            &source,
            outgoing.probe.transaction,
            ProbeKind::Response { observed },
            size,
        );
    }

    fn verdict(&mut self) -> Verdict {
        self.punch.verdict(self.now)
    }

    /// Probes to each address until the attempt is over.
    fn run_to_the_end(&mut self) -> BTreeMap<SocketAddr, usize> {
        let mut sent = BTreeMap::new();
        while self.verdict() == Verdict::Running {
            for outgoing in self.due() {
                *sent.entry(outgoing.address).or_default() += 1;
            }
            let next = self.punch.poll_timeout(self.now).unwrap();
            assert!(
                next > self.now || self.verdict() != Verdict::Running,
                "it does not settle"
            );
            self.now = next.max(self.now);
        }
        sent
    }
}

#[test]
fn every_candidate_is_probed_at_once_and_at_the_known_times() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC), (CandidateKind::Local, LOCAL)]);
    let mut times = Vec::new();
    for step in 0..=300 {
        let count = test.at(ms(step)).due().len();
        (count > 0).then(|| times.push((step, count)));
    }
    assert_eq!(times, [(0, 4), (20, 2), (60, 2), (140, 2), (300, 2)]);
}

#[test]
fn the_first_volley_has_a_padded_and_a_plain_probe() {
    let mut sizes: Vec<usize> = Test::new(&[(CandidateKind::Observed, PUBLIC)])
        .due()
        .iter()
        .map(|probe| probe.padded_to)
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, PADDED_PROBE]);
}

#[test]
fn an_address_that_never_answers_gets_ten_packets() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    assert_eq!(test.run_to_the_end().into_values().collect::<Vec<_>>(), [10]);
    assert_eq!(test.verdict(), Verdict::Failed);
    assert_eq!(test.now, test.start + TIME_LIMIT);
    assert!(test.punch.failure_text().contains("none answered"));
}

#[test]
fn a_stranger_that_replays_a_request_draws_no_more_than_that() {
    let mut test = Test::new(&[]);
    for number in 0..1_000 {
        test.request(&format!("198.51.{}.{}:9", number / 250, number % 250 + 1), PADDED_PROBE);
    }
    let sent = test.run_to_the_end();
    assert_eq!(sent.len(), PLAIN_ADDRESSES);
    assert!(sent.values().all(|count| *count <= 10));
}

#[test]
fn answers_are_as_large_as_requests_and_limited() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    assert_eq!(test.request(PUBLIC, PLAIN_PROBE).unwrap().padded_to, PLAIN_PROBE);
    let answers = (0..1_000)
        .filter(|_| test.request(PUBLIC, PADDED_PROBE).is_some())
        .count();
    assert!(answers < 30, "{answers}");
}

#[test]
fn only_a_padded_answer_verifies() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let probes = test.due();
    let (padded, plain) = (probes[0], probes[1]);
    test.at(ms(40)).answer(&plain);
    assert_eq!(test.verdict(), Verdict::Running);
    test.at(ms(50)).answer(&padded);
    let Verdict::Opened(path) = test.verdict() else {
        panic!("not opened")
    };
    assert_eq!(
        (path.address, path.kind, path.round_trip),
        (address(PUBLIC), PathKind::Direct, ms(50))
    );
}

#[test]
fn a_path_for_small_packets_only_is_named_as_such() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let probes = test.due();
    test.at(ms(40)).answer(&probes[1]);
    test.run_to_the_end();
    assert!(
        test.punch.failure_text().contains("small packets"),
        "{}",
        test.punch.failure_text()
    );
}

#[test]
fn a_cut_answer_does_not_verify() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let padded = test.due()[0];
    let observed = address(PUBLIC);
    test.handle(
        PUBLIC,
        padded.probe.transaction,
        ProbeKind::Response { observed },
        PLAIN_PROBE,
    );
    assert_eq!(test.verdict(), Verdict::Running);
}

#[test]
fn an_answer_from_elsewhere_does_not_verify_but_is_followed() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let padded = test.due()[0];
    let observed = address(PUBLIC);
    test.handle(
        "198.51.100.7:4001",
        padded.probe.transaction,
        ProbeKind::Response { observed },
        PADDED_PROBE,
    );
    assert_eq!(test.verdict(), Verdict::Running);
    assert_eq!(test.due()[0].address, address("198.51.100.7:4001"));
}

#[test]
fn own_packets_that_come_back_are_ignored() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let padded = test.due()[0];
    let mut reflected = padded.probe;
    assert!(
        test.punch
            .handle(test.now, SocketName::Udp4, address(PUBLIC), &reflected, PADDED_PROBE)
            .is_none()
    );
    reflected.kind = ProbeKind::Response {
        observed: address(PUBLIC),
    };
    test.punch
        .handle(test.now, SocketName::Udp4, address(PUBLIC), &reflected, PADDED_PROBE);
    assert_eq!(test.verdict(), Verdict::Running);
}

#[test]
fn a_request_from_an_unexpected_address_is_probed_back_at_once() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    test.due();
    test.at(ms(5)).request("198.51.100.7:9999", PADDED_PROBE);
    let due = test.due();
    assert_eq!(due.len(), 1);
    assert_eq!(
        (due[0].address, due[0].padded_to),
        (address("198.51.100.7:9999"), PADDED_PROBE)
    );
    test.at(ms(65)).answer(&due[0]);
    assert!(matches!(test.verdict(), Verdict::Opened(path) if path.address == due[0].address));
}

#[test]
fn a_late_side_is_probed_again_when_it_is_heard() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    for step in 0..3_000 {
        test.at(ms(step)).due();
    }
    test.request(PUBLIC, PADDED_PROBE);
    assert_eq!(test.due().len(), 1);
}

#[test]
fn a_direct_path_waits_for_the_lan_for_a_moment_only() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC), (CandidateKind::Local, LOCAL)]);
    let probes = test.due();
    let to_public = probes
        .iter()
        .find(|probe| probe.address == address(PUBLIC) && probe.padded_to > 0)
        .unwrap();
    test.at(ms(3)).answer(to_public);
    assert_eq!(test.verdict(), Verdict::Running);
    assert!(test.punch.poll_timeout(test.now).unwrap() <= test.start + LAN_GRACE);
    test.at(LAN_GRACE);
    assert!(matches!(test.verdict(), Verdict::Opened(path) if path.kind == PathKind::Direct));
}

#[test]
fn the_lan_is_taken_at_once_and_found_later_as_well() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC), (CandidateKind::Local, LOCAL)]);
    let probes = test.due();
    let to = |text: &str| {
        *probes
            .iter()
            .find(|probe| probe.address == address(text) && probe.padded_to > 0)
            .unwrap()
    };
    test.at(ms(2)).answer(&to(LOCAL));
    assert!(matches!(test.verdict(), Verdict::Opened(path) if path.kind == PathKind::Lan));

    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC), (CandidateKind::Local, LOCAL)]);
    test.due();
    test.at(ms(50)).answer(&to(PUBLIC));
    assert!(matches!(test.verdict(), Verdict::Opened(path) if path.kind == PathKind::Direct));
    let later = test.due();
    assert!(
        later.iter().all(|probe| probe.address == address(LOCAL)),
        "only the better one is still tried"
    );
    test.at(ms(60)).answer(&later[0]);
    assert!(test.punch.verified().any(|path| path.kind == PathKind::Lan));
}

#[test]
fn an_open_path_is_held_for_a_while_and_given_up_when_it_is_silent() {
    for answered in [true, false] {
        let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
        let padded = test.due()[0];
        test.at(ms(50)).answer(&padded);
        assert!(matches!(test.verdict(), Verdict::Opened(_)));
        let (mut probes, mut last) = (0, test.now);
        while !test.punch.is_over(test.now) {
            test.now = test.punch.poll_timeout(test.now).unwrap();
            for probe in test.due() {
                probes += 1;
                assert!(
                    test.now - last < Duration::from_secs(15),
                    "a router would have forgotten it"
                );
                last = test.now;
                if answered {
                    test.answer(&probe);
                }
            }
        }
        if answered {
            assert!((4..=6).contains(&probes), "{probes}");
            assert!(test.now >= test.start + HOLD_TIME);
        } else {
            assert!(test.now < test.start + Duration::from_secs(20));
            assert_eq!(
                test.verdict(),
                Verdict::Opened(path_of(&mut test)),
                "the verdict stands"
            );
        }
    }
}

fn path_of(test: &mut Test) -> crate::peer::punch::Verified {
    test.punch.verified().next().unwrap()
}

#[test]
fn hostile_candidates_are_not_probed() {
    let hostile = [
        "224.0.0.1:5",
        "0.0.0.0:5",
        "255.255.255.255:5",
        "127.0.0.1:5",
        "198.51.100.7:0",
    ];
    let candidates: Vec<_> = hostile.iter().map(|text| (CandidateKind::Local, *text)).collect();
    assert!(Test::new(&candidates).due().is_empty());
}

#[test]
fn a_void_secret_opens_nothing_new() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let padded = test.due()[0];
    test.at(ms(50)).answer(&padded);
    assert!(matches!(test.verdict(), Verdict::Opened(_)));
    test.at(ms(30_000));
    assert!(test.request("198.51.100.8:1", PADDED_PROBE).is_none());
    assert!(test.request(PUBLIC, PADDED_PROBE).is_some(), "what is open stays open");
}

/// A symmetric router that filters by port, and draws its ports.
const DRAWING: NatFacts = NatFacts {
    mapping_varies_by_address: None,
    mapping_varies_by_port: Some(true),
    filters_by_address: Some(true),
    filters_by_port: Some(true),
    preserves_port: Some(false),
    port_step: None,
    port_block: None,
    hairpin: None,
};

/// A router that keeps its mapping and filters by port.
const KEEPING: NatFacts = NatFacts {
    mapping_varies_by_port: Some(false),
    ..DRAWING
};

fn forecast(ip: &str, before: u16, after: u16) -> PortForecast {
    PortForecast {
        round: 0,
        before: address(&format!("{ip}:{before}")),
        after,
        step: 1,
    }
}

#[test]
fn a_forecast_is_probed_between_its_samples_first() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    test.due();
    test.at(ms(100));
    test.due();
    test.punch
        .forecast_received(test.now, forecast("198.51.100.7", 6_000, 6_003));
    let ports: Vec<u16> = test.due().iter().map(|probe| probe.address.port()).collect();
    assert_eq!(ports, [6_001, 6_002]);
}

#[test]
fn forecasts_beyond_the_budget_are_not_followed() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    for number in 0..16 {
        test.punch.forecast_received(
            test.now,
            forecast("198.51.100.7", 6_000 + 100 * number, 6_020 + 100 * number),
        );
    }
    let mut sent = test.run_to_the_end();
    sent.remove(&address(PUBLIC));
    assert_eq!(sent.len(), PREDICTED_ADDRESSES);
    assert!(sent.values().all(|count| *count <= 3), "{sent:?}");
    assert_eq!(test.punch.counters().predicted as usize, PREDICTED_ADDRESSES);
}

/// Probes cannot be aimed at third parties by foreseeing their addresses.
#[test]
fn a_forecast_for_somebody_elses_address_is_ignored() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    for ip in ["203.0.113.77", "127.0.0.1", "224.0.0.1", "0.0.0.0"] {
        test.punch.forecast_received(test.now, forecast(ip, 6_000, 6_003));
    }
    assert_eq!(test.run_to_the_end().len(), 1);
}

#[test]
fn absurd_forecasts_are_followed_within_the_budget_and_to_real_ports_only() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    for (before, after, step) in [
        (1, 1, 0),
        (1, 0, 0),
        (65_535, 1, i16::MAX),
        (1_024, 65_535, i16::MIN),
        (80, 443, 1),
    ] {
        let absurd = PortForecast {
            step,
            ..forecast("198.51.100.7", before, after)
        };
        for round in 0..=u8::MAX {
            test.punch.forecast_received(test.now, PortForecast { round, ..absurd });
        }
    }
    // Nobody can be sent to port 0.
    test.punch.forecast_received(test.now, forecast("198.51.100.7", 0, 9));
    let mut sent = test.run_to_the_end();
    sent.remove(&address(PUBLIC));
    assert!(sent.len() <= PREDICTED_ADDRESSES, "{}", sent.len());
    assert!(
        sent.iter().all(|(to, count)| to.port() >= 1_024 && *count <= 3),
        "{sent:?}"
    );
}

#[test]
fn a_victim_that_is_named_sixteen_times_gets_ten_packets() {
    let kinds = [
        CandidateKind::Local,
        CandidateKind::Observed,
        CandidateKind::Mapped,
        CandidateKind::Manual,
    ];
    let same: Vec<_> = (0..16).map(|number| (kinds[number % 4], PUBLIC)).collect();
    let sent = Test::new(&same).run_to_the_end();
    assert_eq!(sent, BTreeMap::from([(address(PUBLIC), 10)]));
    // Its ports are addresses of their own, and as many as a list has.
    let texts: Vec<String> = (0..16)
        .map(|number| format!("198.51.100.7:{}", 5_000 + number))
        .collect();
    let ports: Vec<_> = texts
        .iter()
        .map(|text| (CandidateKind::Observed, text.as_str()))
        .collect();
    let sent = Test::new(&ports).run_to_the_end();
    assert!(
        sent.len() <= PLAIN_ADDRESSES && sent.values().all(|count| *count <= 10),
        "{sent:?}"
    );
}

#[test]
fn a_flood_of_updates_begins_each_technique_once() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let permits = [(64, 0), (0, 2_048), (u16::MAX, u16::MAX), (0, 0)]
        .map(|(sockets, probe_ports)| BirthdayPermit { probe_ports, sockets });
    let stepping = NatFacts {
        port_step: Some(1),
        ..DRAWING
    };
    let facts = [KEEPING, DRAWING, stepping, NatFacts::default()];
    let mut wishes = Vec::new();
    for number in 0..10_000 {
        let (other, own) = (facts[number % 4], facts[number / 4 % 4]);
        test.punch.choose(test.now, other, own, permits[number / 16 % 4]);
        wishes.extend(std::iter::from_fn(|| test.punch.next_wish()));
    }
    assert!(wishes.len() <= 2, "{wishes:?}");
    assert!(wishes.iter().all(|(_, count)| *count <= 256), "{wishes:?}");
    let sent = test.run_to_the_end();
    let counters = test.punch.counters();
    assert!(
        counters.birthday_ports <= 2_048 && counters.birthday_in_a_second <= 250,
        "{counters:?}"
    );
    assert!(sent.keys().all(|to| to.ip() == address(PUBLIC).ip()));
}

#[test]
fn facts_that_come_late_begin_what_they_call_for() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    assert_eq!(test.punch.next_wish(), None);
    test.at(ms(500));
    test.due();
    let sockets = BirthdayPermit {
        probe_ports: 0,
        sockets: 64,
    };
    for _ in 0..2 {
        test.punch.choose(test.now, KEEPING, DRAWING, sockets);
    }
    assert_eq!(test.punch.next_wish(), Some((Purpose::Birthday, 64)));
    assert_eq!(test.punch.next_wish(), None, "each wish comes once");
    let names: Vec<_> = (0..64).map(SocketName::Birthday).collect();
    test.punch.sockets_opened(test.now, Purpose::Birthday, names);
    let mut from = BTreeMap::new();
    while test.verdict() == Verdict::Running {
        for probe in test.due() {
            *from.entry(probe.socket).or_insert(0) += 1;
            assert_eq!(probe.address, address(PUBLIC));
        }
        test.now = test.punch.poll_timeout(test.now).unwrap();
    }
    assert_eq!(from.remove(&SocketName::Udp4), Some(8), "two had been sent before");
    assert_eq!(from.len(), 64);
    assert!(from.values().all(|count| *count == 3), "{from:?}");
}

#[test]
fn without_a_permit_no_port_is_searched() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let none = BirthdayPermit::default();
    test.punch.choose(test.now, DRAWING, KEEPING, none);
    test.punch.choose(test.now, KEEPING, DRAWING, none);
    assert_eq!(test.punch.next_wish(), None);
    assert_eq!(test.run_to_the_end().len(), 1);
}

/// The ports that the other side named have their own series.
#[test]
fn a_search_leaves_out_what_is_probed_anyway() {
    let block = NatFacts {
        port_block: Some((3_900, 4_100)),
        ..DRAWING
    };
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let permit = BirthdayPermit {
        probe_ports: 2_048,
        sockets: 0,
    };
    test.punch.choose(test.now, block, KEEPING, permit);
    let sent = test.run_to_the_end();
    assert_eq!(sent.len(), 2_049);
    assert_eq!(sent.values().max(), Some(&10), "{:?}", test.punch.counters());
    assert_eq!(test.punch.counters().packets_to_an_address, 10);
}

#[test]
fn foreseen_addresses_share_the_ten_packets_of_those_that_were_named() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    test.punch
        .forecast_received(test.now, forecast("198.51.100.7", 3_998, 4_003));
    let sent = test.run_to_the_end();
    assert!(sent.values().all(|count| *count <= 10), "{sent:?}");
    assert_eq!(sent[&address(PUBLIC)], 10);
}

#[test]
fn an_answer_to_one_of_many_probes_is_followed_by_a_full_size_one() {
    let mut test = Test::new(&[(CandidateKind::Observed, PUBLIC)]);
    let permit = BirthdayPermit {
        probe_ports: 2_048,
        sockets: 0,
    };
    test.punch.choose(test.now, DRAWING, KEEPING, permit);
    let found = loop {
        test.now = test.punch.poll_timeout(test.now).unwrap();
        let due = test.due();
        if let Some(probe) = due.iter().find(|probe| probe.address != address(PUBLIC)) {
            break *probe;
        }
    };
    assert_eq!(found.padded_to, 0);
    // Somebody who does not know the transaction is not followed.
    let observed = address("203.0.113.1:5000");
    let invented = found.probe.transaction.wrapping_add(1 << 20);
    test.handle(
        "198.51.100.7:77",
        invented,
        ProbeKind::Response { observed },
        PLAIN_PROBE,
    );
    assert!(
        test.due()
            .iter()
            .all(|probe| probe.address != address("198.51.100.7:77"))
    );
    test.now += ms(2);
    test.answer(&found);
    let probe = test.due()[0];
    assert_eq!((probe.address, probe.padded_to), (found.address, PADDED_PROBE));
    test.answer(&probe);
    assert!(matches!(test.verdict(), Verdict::Opened(path) if path.address == found.address));
    test.now += ms(100);
    assert!(test.due().is_empty(), "the search is over");
}
