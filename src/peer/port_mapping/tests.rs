//! Scripted routers and virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::advice::{is_double_nat, is_public, manual_instructions, mapped_text};
use super::engine::{LIFETIME, Output, PortMapping, Surroundings};
use crate::codes::{Code, MappingProtocol};
use crate::peer::api::nat::{MappedPort, MappingAnswer, MappingFailure, MappingId, MappingOrder, NatReport};
use crate::peer::api::{Reason, RequestId};

const TIMEOUT: Duration = Duration::from_secs(2);
const INNER: &str = "0.0.0.0:51234";
const OUTER: &str = "45.60.1.1:51234";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn cancelled() -> Reason {
    Reason {
        code: Code::Cancelled,
        text: "cancelled".to_owned(),
    }
}

/// The engine with a clock and everything that came out.
struct Bench {
    now: Instant,
    engine: PortMapping,
    orders: Vec<MappingOrder>,
    mapped: Vec<(RequestId, MappedPort)>,
    failed: Vec<(RequestId, Reason)>,
    steps: Vec<(RequestId, String)>,
    changes: usize,
}

impl Bench {
    fn new() -> Self {
        Self::with(Surroundings {
            internal_v4: Some(address(INNER)),
            internal_v6: None,
            observed: None,
        })
    }

    fn with(surroundings: Surroundings) -> Self {
        let mut bench = Self {
            now: Instant::now(),
            engine: PortMapping::new([7; 32]),
            orders: Vec::new(),
            mapped: Vec::new(),
            failed: Vec::new(),
            steps: Vec::new(),
            changes: 0,
        };
        bench.engine.surroundings(surroundings);
        bench
    }

    fn drain(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Order(order) => self.orders.push(order),
                Output::Progress { request, text } => self.steps.push((request, text)),
                Output::Mapped { request, port } => self.mapped.push((request, port)),
                Output::Failed { request, reason } => self.failed.push((request, reason)),
                Output::Changed => self.changes += 1,
            }
        }
    }

    fn ask(&mut self, request: RequestId) {
        self.engine.ask(self.now, request, TIMEOUT);
        self.drain();
    }

    /// Time goes on, timer by timer.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            assert!(at >= self.now || self.engine.poll_timeout() == Some(at));
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    /// The last order for that protocol and family: id and suggested external port.
    fn order(&self, protocol: MappingProtocol, ipv6: bool) -> (MappingId, u16) {
        let fits = |order: &MappingOrder| match order {
            MappingOrder::Map {
                id,
                protocol: asked,
                internal,
                external,
                ..
            } if *asked == protocol && internal.is_ipv6() == ipv6 => Some((*id, *external)),
            _ => None,
        };
        self.orders.iter().rev().find_map(fits).expect("that was asked")
    }

    fn maps(&self) -> usize {
        let is_map = |order: &&MappingOrder| matches!(order, MappingOrder::Map { .. });
        self.orders.iter().filter(is_map).count()
    }

    fn unmapped(&self) -> Vec<MappingId> {
        let id = |order: &MappingOrder| match order {
            MappingOrder::Unmap { id } => Some(*id),
            MappingOrder::Map { .. } => None,
        };
        self.orders.iter().filter_map(id).collect()
    }

    fn answer(&mut self, answer: MappingAnswer) {
        self.engine.answer(self.now, answer);
        self.drain();
    }

    fn grant_with(&mut self, protocol: MappingProtocol, external: &str, lifetime: u32, epoch: Option<u32>) {
        let external = address(external);
        let (id, _) = self.order(protocol, external.is_ipv6());
        self.answer(MappingAnswer::Granted {
            id,
            external,
            lifetime,
            epoch,
        });
    }

    fn grant(&mut self, protocol: MappingProtocol, external: &str) {
        self.grant_with(protocol, external, LIFETIME, None);
    }

    fn refuse(&mut self, protocol: MappingProtocol, why: MappingFailure) {
        let (id, _) = self.order(protocol, false);
        let text = "scripted".to_owned();
        self.answer(MappingAnswer::Failed { id, why, text });
    }

    /// By UPnP alone, everybody else silent.
    fn stands(&mut self) {
        self.ask(1);
        self.grant(Upnp, OUTER);
        self.refuse(Pcp, Silent);
        self.refuse(NatPmp, Silent);
        assert_eq!(self.mapped.len(), 1);
        self.mapped.clear();
        self.orders.clear();
    }

    fn external(&self) -> Option<String> {
        self.engine.ports().first().map(|port| port.external.to_string())
    }
}

use MappingFailure::{Conflict, Refused, Silent};
use MappingProtocol::{NatPmp, Pcp, Upnp};

#[test]
fn all_protocols_are_asked_at_once_and_the_first_counts() {
    let mut bench = Bench::new();
    bench.ask(1);
    assert_eq!(bench.maps(), 3);
    let in_time = |order: &MappingOrder| matches!(order, MappingOrder::Map { timeout, external: 51234, lifetime: LIFETIME, .. } if *timeout < TIMEOUT);
    assert!(bench.orders.iter().all(in_time), "{:?}", bench.orders);
    bench.grant(NatPmp, OUTER);
    let port = MappedPort {
        external: address(OUTER),
        protocol: NatPmp,
        double_nat: false,
        reachable: None,
    };
    assert_eq!(bench.mapped, [(1, port)]);
    assert_eq!(bench.engine.ports(), [port]);
    // What comes later is kept silently: taking it back could delete the same rule.
    bench.grant(Upnp, "45.60.1.1:51235");
    bench.refuse(Pcp, Refused);
    assert_eq!((bench.mapped.len(), bench.failed.len(), bench.changes), (1, 0, 1));
    assert!(bench.unmapped().is_empty());
    assert_eq!(bench.external().as_deref(), Some(OUTER));
    let given: Vec<MappingId> = [Upnp, Pcp, NatPmp]
        .map(|protocol| bench.order(protocol, false).0)
        .to_vec();
    bench.engine.shut_down(&cancelled());
    bench.drain();
    assert_eq!(bench.unmapped(), given);
    assert!(bench.engine.ports().is_empty());
    assert_eq!(bench.engine.poll_timeout(), None);
}

#[test]
fn nobody_answers() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.wait(TIMEOUT - Duration::from_millis(1));
    assert_eq!(bench.failed, []);
    bench.wait(Duration::from_millis(1));
    let (request, reason) = &bench.failed[0];
    assert_eq!((*request, reason.code), (1, Code::NoAnswer));
    for name in ["UPnP", "PCP", "NAT-PMP"] {
        assert!(reason.text.contains(name), "{}", reason.text);
    }
    // Nobody wants it: nothing is tried any more, and what may have been given meanwhile is taken back.
    assert_eq!(bench.unmapped().len(), 3);
    assert_eq!(bench.engine.poll_timeout(), None);
    // A late answer changes nothing.
    bench.grant(Upnp, OUTER);
    assert!(bench.engine.ports().is_empty());
    assert_eq!((bench.mapped.len(), bench.failed.len()), (0, 1));
}

#[test]
fn a_refusal_is_told_as_one() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.refuse(Upnp, Refused);
    bench.refuse(Pcp, Silent);
    assert_eq!(bench.failed, []);
    bench.refuse(NatPmp, Silent);
    assert_eq!(bench.failed[0].1.code, Code::Refused);
    assert!(bench.failed[0].1.text.contains("UPnP: scripted"));
}

#[test]
fn requests_share_a_try_and_each_ends_once() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.ask(2);
    bench.ask(3);
    assert_eq!(bench.maps(), 3);
    let (id, _) = bench.order(Upnp, false);
    let text = "step".to_owned();
    bench.answer(MappingAnswer::Progress { id, text });
    assert_eq!(bench.steps.len(), 3);
    bench.engine.cancel(2, cancelled());
    bench.drain();
    assert_eq!((bench.failed[0].0, bench.failed[0].1.code), (2, Code::Cancelled));
    bench.grant(Upnp, OUTER);
    let ended: Vec<RequestId> = bench.mapped.iter().map(|(request, _)| *request).collect();
    assert_eq!(ended, [1, 3]);
    // One that stands answers at once, without a router.
    let asked = bench.maps();
    bench.ask(4);
    assert_eq!((bench.mapped.last().unwrap().0, bench.maps()), (4, asked));
    bench.wait(Duration::from_secs(10));
    assert_eq!((bench.mapped.len(), bench.failed.len()), (3, 1));
}

#[test]
fn the_last_cancel_takes_everything_back() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.engine.cancel(1, cancelled());
    bench.drain();
    assert_eq!(bench.unmapped().len(), 3);
    assert_eq!(bench.failed.len(), 1);
    bench.engine.cancel(1, cancelled());
    bench.wait(Duration::from_secs(10));
    assert_eq!((bench.failed.len(), bench.maps()), (1, 3));
}

#[test]
fn progress_is_bounded() {
    let mut bench = Bench::new();
    bench.ask(1);
    let (id, _) = bench.order(Upnp, false);
    for _ in 0..1000 {
        let text = "step".to_owned();
        bench.answer(MappingAnswer::Progress { id, text });
    }
    assert!(bench.steps.len() <= 64);
}

#[test]
fn a_taken_port_leads_to_others_but_not_for_ever() {
    let mut bench = Bench::new();
    bench.ask(1);
    bench.refuse(Pcp, Silent);
    bench.refuse(NatPmp, Silent);
    let mut tried = vec![bench.order(Upnp, false).1];
    for _ in 0..5 {
        bench.refuse(Upnp, Conflict);
        let (_, port) = bench.order(Upnp, false);
        assert!(!tried.contains(&port) && port >= 1024, "{port} of {tried:?}");
        tried.push(port);
    }
    assert_eq!(bench.failed, []);
    bench.refuse(Upnp, Conflict);
    assert_eq!(bench.failed[0].1.code, Code::Refused);

    let mut bench = Bench::new();
    bench.ask(1);
    bench.refuse(Upnp, Conflict);
    let (_, port) = bench.order(Upnp, false);
    bench.grant(Upnp, &format!("45.60.1.1:{port}"));
    assert_eq!(bench.mapped[0].1.external.port(), port);
}

#[test]
fn absurd_answers_are_refusals() {
    let absurd = [
        (Upnp, "45.60.1.1:0", LIFETIME),
        (Upnp, "0.0.0.0:51234", LIFETIME),
        (Upnp, "0.1.2.3:51234", LIFETIME),
        (Upnp, "224.0.0.1:51234", LIFETIME),
        (Upnp, "255.255.255.255:51234", LIFETIME),
        (Upnp, "127.0.0.1:51234", LIFETIME),
        (Upnp, "169.254.1.1:51234", LIFETIME),
        (Pcp, OUTER, 0),
        (NatPmp, OUTER, 0),
    ];
    for (protocol, external, lifetime) in absurd {
        let mut bench = Bench::new();
        bench.ask(1);
        bench.grant_with(protocol, external, lifetime, None);
        assert!(bench.engine.ports().is_empty(), "{external} {lifetime}");
        assert_eq!(bench.mapped, []);
        bench.wait(TIMEOUT);
        assert_eq!(bench.failed[0].1.code, Code::Refused, "{external} {lifetime}");
        assert!(bench.failed[0].1.text.contains("absurd"), "{}", bench.failed[0].1.text);
        let failures = bench.engine.failures();
        let failed = failures.iter().find(|failed| failed.protocol == protocol);
        // That is how some routers say that they have no address.
        let none = external.starts_with("0.0.0.0:");
        let expected = if none { MappingFailure::NoPublicAddress } else { Refused };
        assert_eq!(failed.map(|failed| failed.why), Some(expected), "{external} {lifetime}");
    }
    // An IPv6 address for an IPv4 socket.
    let mut bench = Bench::new();
    bench.ask(1);
    let (id, _) = bench.order(Upnp, false);
    let external = address("[2001:db8::1]:51234");
    bench.answer(MappingAnswer::Granted {
        id,
        external,
        lifetime: LIFETIME,
        epoch: None,
    });
    assert!(bench.engine.ports().is_empty());
    // The same IPv4 address in IPv6 clothes is none.
    bench.ask(2);
    let (id, _) = bench.order(Pcp, false);
    let external = address("[::ffff:45.60.1.1]:51234");
    bench.answer(MappingAnswer::Granted {
        id,
        external,
        lifetime: LIFETIME,
        epoch: None,
    });
    assert_eq!(bench.external().as_deref(), Some(OUTER));
}

#[test]
fn it_is_renewed_at_half_its_life() {
    for (protocol, lifetime, half) in [
        (Upnp, LIFETIME, 300),
        (Upnp, 0, 300),
        (Pcp, u32::MAX, 300),
        (Pcp, 120, 60),
        (NatPmp, 1, 4),
    ] {
        let mut bench = Bench::new();
        bench.ask(1);
        bench.grant_with(protocol, OUTER, lifetime, None);
        for other in [Upnp, Pcp, NatPmp].into_iter().filter(|other| *other != protocol) {
            bench.refuse(other, Silent);
        }
        bench.orders.clear();
        for _ in 0..3 {
            bench.wait(Duration::from_secs(half - 1));
            assert_eq!(bench.maps(), 0, "{protocol:?} {lifetime}");
            bench.wait(Duration::from_secs(1));
            assert_eq!(bench.maps(), 1, "{protocol:?} {lifetime}");
            assert_eq!(bench.order(protocol, false).1, 51234);
            bench.grant_with(protocol, OUTER, lifetime, None);
            bench.orders.clear();
        }
        // Nothing that the game would have to hear of.
        assert_eq!((bench.mapped.len(), bench.failed.len(), bench.changes), (1, 0, 1));
    }
}

#[test]
fn a_refused_renewal_maps_anew_by_all_protocols() {
    let mut bench = Bench::new();
    bench.stands();
    bench.wait(Duration::from_secs(300));
    assert_eq!(bench.maps(), 1);
    bench.refuse(Upnp, Refused);
    assert_eq!(bench.maps(), 4);
    assert_eq!(bench.external().as_deref(), Some(OUTER));
    bench.grant(Pcp, "45.60.1.1:6000");
    assert_eq!(bench.mapped.len(), 1);
    assert_eq!((bench.mapped[0].0, bench.mapped[0].1.external.port()), (0, 6000));
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.external().as_deref(), Some("45.60.1.1:6000"));
    assert_eq!(bench.failed, []);
}

#[test]
fn a_lost_mapping_is_said_once_and_sought_until_the_router_is_back() {
    let mut bench = Bench::new();
    bench.stands();
    bench.wait(Duration::from_secs(2000));
    assert_eq!(bench.external(), None);
    assert_eq!(bench.failed.len(), 1, "{:?}", bench.failed);
    assert_eq!((bench.failed[0].0, bench.failed[0].1.code), (0, Code::Lost));
    // At 15 s, doubled, at most every 5 minutes: not a flood, and no end.
    let rounds = bench.maps() / 3;
    assert!((6..15).contains(&rounds), "{rounds}");
    let asked = bench.maps();
    bench.wait(Duration::from_secs(310));
    assert!(bench.maps() > asked);
    bench.engine.check(bench.now);
    bench.wait(Duration::ZERO);
    bench.grant(Upnp, OUTER);
    assert_eq!((bench.mapped.len(), bench.mapped[0].0), (1, 0));
    assert_eq!(bench.external().as_deref(), Some(OUTER));
    bench.wait(Duration::from_secs(290));
    assert_eq!(bench.failed.len(), 1);
}

#[test]
fn a_router_whose_clock_went_back_is_asked_anew_by_all_protocols() {
    // Epoch when granted, and at the renewal 300 s later.
    for (before, after, restarted) in [
        (1000, 1300, false),
        (1000, 1299, false),
        (1000, 0, true),
        (1000, 998, true),
        (1000, 1000, true),
        (1000, u32::MAX, true),
        (u32::MAX, 299, true),
        (0, 300, false),
    ] {
        let mut bench = Bench::new();
        bench.ask(1);
        bench.grant_with(Pcp, OUTER, LIFETIME, Some(before));
        bench.refuse(Upnp, Silent);
        bench.refuse(NatPmp, Silent);
        bench.orders.clear();
        bench.wait(Duration::from_secs(300));
        assert_eq!(bench.maps(), 1);
        bench.grant_with(Pcp, OUTER, LIFETIME, Some(after));
        // The renewal made it anew; UPnP and NAT-PMP are asked again.
        let asked = if restarted { 3 } else { 1 };
        assert_eq!(bench.maps(), asked, "{before} {after}");
        bench.wait(Duration::from_secs(10));
        assert_eq!(bench.external().as_deref(), Some(OUTER));
        assert_eq!((bench.mapped.len(), bench.failed.len()), (1, 0));
    }
}

#[test]
fn a_broken_session_has_the_mapping_checked_at_once() {
    let mut bench = Bench::new();
    bench.stands();
    bench.engine.check(bench.now);
    bench.wait(Duration::from_secs(3));
    // Renewals stay apart.
    assert_eq!(bench.maps(), 0);
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.maps(), 1);
    bench.grant(Upnp, OUTER);
    assert_eq!(bench.mapped, []);
}

#[test]
fn other_interfaces_have_it_mapped_anew() {
    let mut bench = Bench::new();
    bench.stands();
    bench.engine.moved(bench.now);
    bench.drain();
    assert_eq!(bench.maps(), 3);
    bench.grant(NatPmp, "99.1.1.1:51234");
    assert_eq!((bench.mapped.len(), bench.mapped[0].0), (1, 0));
    assert_eq!(bench.external().as_deref(), Some("99.1.1.1:51234"));
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.external().as_deref(), Some("99.1.1.1:51234"));

    // In the middle of a try it begins again; what was asked before does not count any more.
    let mut bench = Bench::new();
    bench.ask(1);
    let (old, _) = bench.order(Upnp, false);
    bench.engine.moved(bench.now);
    bench.drain();
    assert_eq!(bench.maps(), 6);
    bench.answer(MappingAnswer::Granted {
        id: old,
        external: address(OUTER),
        lifetime: LIFETIME,
        epoch: None,
    });
    assert_eq!(bench.mapped, []);
    bench.grant(Upnp, "99.1.1.1:51234");
    assert_eq!(bench.mapped.len(), 1);

    // Nobody wants a port: nobody is asked.
    let mut bench = Bench::new();
    bench.engine.moved(bench.now);
    bench.drain();
    assert_eq!((bench.maps(), bench.engine.poll_timeout()), (0, None));
}

fn both_families() -> Bench {
    Bench::with(Surroundings {
        internal_v4: Some(address(INNER)),
        internal_v6: Some(address("[2001:db8::5]:51234")),
        observed: None,
    })
}

#[test]
fn an_ipv6_pinhole_alone_counts_when_no_ipv4_router_is_left() {
    let mut bench = both_families();
    bench.ask(1);
    assert_eq!(bench.maps(), 4);
    bench.grant(Pcp, "[2001:db8::5]:51234");
    assert_eq!(bench.mapped, []);
    assert_eq!(bench.external().as_deref(), Some("[2001:db8::5]:51234"));
    bench.wait(TIMEOUT);
    assert_eq!(bench.mapped.len(), 1);
    assert!(bench.mapped[0].1.external.is_ipv6());

    let mut bench = both_families();
    bench.ask(1);
    bench.grant(Pcp, "[2001:db8::5]:51234");
    bench.grant(Upnp, OUTER);
    assert_eq!(bench.mapped[0].1.external, address(OUTER));
    let ports: Vec<String> = bench
        .engine
        .ports()
        .iter()
        .map(|port| port.external.to_string())
        .collect();
    assert_eq!(ports, [OUTER, "[2001:db8::5]:51234"]);
    bench.wait(Duration::from_secs(299));
    bench.orders.clear();
    // Both are renewed.
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.maps(), 2);
}

#[test]
fn a_borrowed_port_is_given_back_unless_the_game_wants_it() {
    let mut bench = Bench::new();
    bench.engine.borrow(bench.now, TIMEOUT);
    bench.drain();
    bench.grant(Upnp, OUTER);
    assert!(bench.engine.is_asking());
    bench.wait(TIMEOUT);
    assert!(!bench.engine.is_asking());
    assert_eq!(bench.engine.failures().len(), 2);
    assert_eq!(bench.mapped, []);
    bench.engine.give_back();
    bench.drain();
    assert_eq!(bench.unmapped().len(), 3);

    let mut bench = Bench::new();
    bench.engine.borrow(bench.now, TIMEOUT);
    bench.ask(1);
    bench.grant(Upnp, OUTER);
    bench.engine.give_back();
    bench.drain();
    assert!(bench.unmapped().is_empty());
    assert_eq!(bench.mapped.len(), 1);
}

#[test]
fn a_node_on_loopback_asks_nobody() {
    let mut bench = Bench::with(Surroundings::default());
    bench.ask(1);
    assert_eq!(bench.maps(), 0);
    assert_eq!((bench.failed[0].0, bench.failed[0].1.code), (1, Code::Unsupported));
}

#[test]
fn double_nat_is_noticed_whenever_it_becomes_known() {
    let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    for (external, observed, double) in [
        ("45.60.1.1", None, false),
        ("45.60.1.1", ip("45.60.1.1"), false),
        ("45.60.1.1", ip("45.60.1.2"), true),
        // A server in the home, and one that is reached by IPv6, see nothing of it.
        ("45.60.1.1", ip("192.168.1.2"), false),
        ("45.60.1.1", ip("2001:db8::5"), false),
        ("192.168.0.2", None, true),
        ("10.0.0.1", ip("45.60.1.1"), true),
        ("100.64.3.4", None, true),
        ("100.128.3.4", None, false),
        ("2001:db8::5", ip("45.60.1.1"), false),
    ] {
        let external = external.parse().unwrap();
        assert_eq!(is_double_nat(external, observed), double, "{external} {observed:?}");
    }
    let mut bench = Bench::new();
    bench.stands();
    assert!(!bench.engine.ports()[0].double_nat);
    bench.engine.surroundings(Surroundings {
        internal_v4: Some(address(INNER)),
        internal_v6: None,
        observed: ip("45.60.9.9"),
    });
    bench.drain();
    assert!(bench.engine.ports()[0].double_nat);
    // The address is the same: no event, but others see it.
    assert_eq!((bench.mapped.len(), bench.changes), (0, 2));
}

#[test]
fn the_texts_say_what_to_do() {
    let port = |external: &str, double_nat| MappedPort {
        external: address(external),
        protocol: Upnp,
        double_nat,
        reachable: None,
    };
    let text = mapped_text(&port("192.168.0.2:51234", true), None);
    assert!(text.contains("bridge mode") && text.contains("192.168.0.2"), "{text}");
    let text = mapped_text(&port("45.60.1.1:51234", true), Some("45.60.9.9".parse().unwrap()));
    assert!(text.contains("45.60.9.9"), "{text}");
    let text = mapped_text(&port(OUTER, false), None);
    assert!(text.contains(OUTER) && !text.contains("another"), "{text}");

    let interfaces: Vec<IpAddr> = ["2001:db8::5", "192.168.1.5"].map(|ip| ip.parse().unwrap()).to_vec();
    let with = |mappings: &[MappedPort]| NatReport {
        mappings: mappings.to_vec(),
        ..NatReport::default()
    };
    let manual = manual_instructions(address(INNER), &interfaces, &with(&[]));
    assert_eq!(
        (manual.port, manual.internal),
        (51234, Some(address("192.168.1.5:51234")))
    );
    assert!(
        manual.text.contains("Forward UDP port 51234 to 192.168.1.5"),
        "{}",
        manual.text
    );
    let named = NatReport {
        manual: Some(address("45.60.1.2:4444")),
        ..NatReport::default()
    };
    let named = manual_instructions(address(INNER), &interfaces, &named);
    assert_eq!(named.port, 4444);
    assert!(
        named.text.contains("Forward UDP port 4444 to 192.168.1.5 port 51234"),
        "{}",
        named.text
    );
    let mapped = manual_instructions(address(INNER), &interfaces, &with(&[port(OUTER, false)]));
    assert!(mapped.text.contains("Nothing needs to be done"), "{}", mapped.text);
    let double = manual_instructions(address(INNER), &interfaces, &with(&[port("10.0.0.2:51234", true)]));
    assert!(double.text.contains("behind another one"), "{}", double.text);
    let closed = NatReport {
        manual_open: Some(false),
        ..NatReport::default()
    };
    let closed = manual_instructions(address(INNER), &interfaces, &closed);
    assert!(
        closed
            .text
            .starts_with("The port that was forwarded by hand is not open. Forward"),
        "{}",
        closed.text
    );
    let open = NatReport {
        manual_open: Some(true),
        ..NatReport::default()
    };
    let open = manual_instructions(address(INNER), &interfaces, &open);
    assert!(open.text.contains("Nothing needs to be done"), "{}", open.text);
    let public = manual_instructions(address("0.0.0.0:51234"), &["45.60.1.9".parse().unwrap()], &with(&[]));
    assert!(public.text.contains("firewall"), "{}", public.text);
    let none = manual_instructions(address("127.0.0.1:51234"), &interfaces, &with(&[]));
    assert_eq!(none.internal, None);
    let bound = manual_instructions(address("10.1.1.1:51234"), &interfaces, &with(&[]));
    assert_eq!(bound.internal, Some(address("10.1.1.1:51234")));
}

#[test]
fn public_addresses_are_told_apart() {
    for (ip, public) in [
        ("45.60.1.1", true),
        ("172.15.0.1", true),
        ("172.16.0.1", false),
        ("100.63.0.1", true),
        ("100.127.255.255", false),
        ("224.0.0.1", false),
        ("0.0.0.0", false),
        ("2001:db8::1", true),
        ("fd00::1", false),
        ("fe80::1", false),
        ("::ffff:10.0.0.1", false),
    ] {
        assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
    }
}
