//! How engines are driven, and what can happen to hosts.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::super::{DropReason, Lab, LabEngine, Link, Outputs, OwnedEvent, Party, RouterConfig};
use super::*;
use crate::engine::{Datagram, Engine, Transmit};
use crate::peer::api::{Event, SideEffect, SideEffectAnswer};

/// A small engine that uses the whole contract: it sends "tick" every 100 ms in pairs (as one run of equal datagrams),
/// resolves the names it receives, and tells of all it hears.
struct Ticker {
    target: SocketAddr,
    next: Instant,
    due: u32,
    heard: Vec<String>,
    to_resolve: Vec<String>,
}

const TICK: Duration = Duration::from_millis(100);

impl Ticker {
    fn new(now: Instant, target: SocketAddr) -> Self {
        Self {
            target,
            next: now + TICK,
            due: 0,
            heard: Vec::new(),
            to_resolve: Vec::new(),
        }
    }
}

impl Engine for Ticker {
    fn handle_datagram(&mut self, _now: Instant, datagram: Datagram) {
        let text = |contents: &BytesMut| String::from_utf8_lossy(contents).into_owned();
        match datagram.contents.strip_prefix(b"resolve ") {
            Some(name) => self.to_resolve.push(text(&BytesMut::from(name))),
            None => self.heard.push(text(&datagram.contents)),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.next {
            self.next += TICK;
            self.due += 1;
        }
    }

    fn poll_transmit(&mut self, _now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        assert!(buffer.is_empty());
        self.due = self.due.checked_sub(1)?;
        buffer.extend_from_slice(b"ticktocktick!");
        Some(Transmit {
            socket: UDP,
            destination: self.target,
            ecn: None,
            size: 12,
            segment_size: Some(8),
            time_to_live: None,
        })
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        Some(self.next)
    }
}

impl LabEngine for Ticker {
    fn drain(&mut self, _reliable_room: bool, outputs: &mut Outputs) {
        for text in self.heard.drain(..) {
            outputs.event(Event::Notice { text });
        }
        for (id, host) in (1..).zip(self.to_resolve.drain(..)) {
            outputs.side_effect(SideEffect::Resolve { id, host });
        }
    }

    fn answer(&mut self, _now: Instant, answer: SideEffectAnswer) {
        self.heard.push(format!("{answer:?}"));
    }
}

/// A ticker that sends to a raw host.
fn ticking(seed: u64) -> (Lab, HostId, HostId) {
    let mut lab = Lab::new(seed);
    let internet = lab.internet();
    let listener = raw(&mut lab, "listener", internet, 7);
    let target = lab.socket_address(listener, UDP);
    let ticker = lab.add_host("ticker", internet, Link::internet(LATENCY));
    lab.open_socket(ticker, UDP, "0.0.0.0:9".parse().unwrap());
    lab.start(ticker, move |startup| Ticker::new(startup.now, target));
    (lab, ticker, listener)
}

fn notices(lab: &Lab, host: HostId) -> Vec<(Duration, String)> {
    let notice = |event: &OwnedEvent| match event {
        OwnedEvent::Notice { text } => text.clone(),
        other => panic!("{other:?}"),
    };
    lab.events(host)
        .iter()
        .map(|recorded| (recorded.time, notice(&recorded.event)))
        .collect()
}

#[test]
fn deadlines_are_kept_to_the_nanosecond_and_runs_are_split() {
    let (mut lab, ticker, listener) = ticking(1);
    lab.run_for(ms(1_000));
    let received: Vec<_> = lab
        .received(listener)
        .iter()
        .map(|got| (got.time, got.contents.clone()))
        .collect();
    let expected: Vec<_> = (1..10)
        .flat_map(|tick| {
            let time = tick * TICK + 2 * LATENCY;
            [(time, b"ticktock".to_vec()), (time, b"tick".to_vec())]
        })
        .collect();
    assert_eq!(received, expected);
    // The tenth pair is still under way.
    assert_eq!(lab.counters(ticker).sent, 20);
    assert_eq!(lab.counters(listener).bytes_received, 9 * 12);
    assert_eq!(lab.elapsed(), ms(1_000));
}

#[test]
fn events_carry_the_time_and_can_be_taken() {
    let (mut lab, ticker, listener) = ticking(2);
    let to = lab.socket_address(ticker, UDP);
    lab.run_for(ms(30));
    lab.send_raw(listener, UDP, to, b"hello");
    lab.run_for(ms(100));
    assert_eq!(notices(&lab, ticker), [(ms(50), "hello".to_owned())]);
    assert_eq!(lab.take_events(ticker).len(), 1);
    assert!(lab.events(ticker).is_empty());
}

#[test]
fn names_are_resolved_after_a_while_or_not_at_all() {
    let (mut lab, ticker, listener) = ticking(3);
    lab.set_name("server.example", vec!["20.1.2.3".parse().unwrap()]);
    lab.set_resolve_time(ms(25));
    let to = lab.socket_address(ticker, UDP);
    lab.send_raw(listener, UDP, to, b"resolve server.example");
    lab.send_raw(listener, UDP, to, b"resolve nowhere.example");
    lab.run_for(ms(60));
    let heard = notices(&lab, ticker);
    assert_eq!(
        heard[0],
        (ms(45), "Resolved { id: 1, addresses: Ok([20.1.2.3]) }".to_owned())
    );
    assert_eq!(heard[1].0, ms(45));
    assert!(
        heard[1].1.contains("Err(\"nowhere.example is not known\")"),
        "{heard:?}"
    );
}

#[test]
fn crashed_hosts_are_silent_and_restarted_ones_begin_anew() {
    let (mut lab, ticker, listener) = ticking(4);
    let to = lab.socket_address(ticker, UDP);
    lab.run_for(ms(150));
    lab.crash(ticker);
    assert!(!lab.is_running(ticker));
    lab.send_raw(listener, UDP, to, b"hello");
    lab.run_for(ms(1_000));
    assert_eq!(lab.take_received(listener).len(), 2, "one tick came before");
    assert_eq!(lab.dropped(DropReason::HostDown), 1);
    let restarted = lab.elapsed();
    lab.restart(ticker);
    lab.run_until(A_WHILE, |lab| !lab.received(listener).is_empty())
        .unwrap();
    assert_eq!(lab.received(listener)[0].time, restarted + TICK + 2 * LATENCY);
}

#[test]
fn an_answer_for_an_earlier_incarnation_is_dropped() {
    let (mut lab, ticker, listener) = ticking(5);
    let to = lab.socket_address(ticker, UDP);
    lab.send_raw(listener, UDP, to, b"resolve nowhere.example");
    lab.run_for(ms(25));
    lab.restart(ticker);
    lab.run_for(ms(100));
    assert!(lab.events(ticker).is_empty());
}

#[test]
fn seeds_differ_by_host_and_incarnation() {
    let seeds = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for lab_seed in [1, 1, 2] {
        let mut lab = Lab::new(lab_seed);
        let internet = lab.internet();
        for name in ["one", "two"] {
            let host = lab.add_host(name, internet, Link::default());
            let seeds = seeds.clone();
            lab.start(host, move |startup| {
                seeds.borrow_mut().push(startup.seed);
                Ticker::new(startup.now, SocketAddr::from(([20, 0, 0, 1], 1)))
            });
            lab.restart(host);
        }
    }
    let mut seeds = seeds.take();
    assert_eq!(seeds[..4], seeds[4..8]);
    seeds.drain(..4);
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 8);
}

#[test]
fn partitions_cut_both_directions_until_they_heal() {
    let mut lab = Lab::new(6);
    let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
    let (_, lan) = router(&mut lab, RouterConfig::full_cone());
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    for party in [Party::Host(inside), Party::Network(lan)] {
        lab.partition(Party::Host(one), party);
        assert_eq!(seen(&mut lab, inside, one, UDP), None);
        assert!(!reaches(&mut lab, one, UDP, outside, inside));
        assert!(reaches(&mut lab, other, UDP, outside, inside));
        lab.heal();
        assert!(reaches(&mut lab, one, UDP, outside, inside));
    }
    assert_eq!(lab.dropped(DropReason::Partitioned), 4);
}

#[test]
fn what_nobody_can_receive_is_counted() {
    let mut lab = Lab::new(7);
    let one = observer(&mut lab, "one");
    let internet = lab.internet();
    let sender = raw(&mut lab, "sender", internet, 1);
    send(&mut lab, sender, "20.200.0.1:1".parse().unwrap());
    assert_eq!(lab.dropped(DropReason::NoRoute), 1);
    send(&mut lab, sender, "[2a00::1]:1".parse().unwrap());
    assert_eq!(lab.dropped(DropReason::NoSuchSocket), 1);
    let mut port = lab.socket_address(one, UDP);
    port.set_port(1);
    send(&mut lab, sender, port);
    assert_eq!(lab.dropped(DropReason::NobodyListens), 1);
}

#[test]
fn hosts_reach_themselves_without_the_network() {
    let mut lab = Lab::new(8);
    let one = observer(&mut lab, "one");
    let (own, second) = (lab.socket_address(one, UDP), lab.socket_address(one, SECOND));
    lab.send_raw(one, UDP, second, b"me");
    assert_eq!(
        lab.run_until(A_WHILE, |lab| !lab.received(one).is_empty()),
        Some(Duration::ZERO)
    );
    let received = &lab.received(one)[0];
    assert_eq!((received.socket, received.source), (SECOND, own));
}

#[test]
fn two_interfaces_have_an_address_each_and_the_near_one_is_used() {
    let mut lab = Lab::new(9);
    let one = observer(&mut lab, "one");
    let (_, lan) = router(&mut lab, RouterConfig::full_cone());
    let neighbour = raw(&mut lab, "neighbour", lan, 5000);
    let internet = lab.internet();
    let both = raw(&mut lab, "both", internet, 6000);
    lab.add_interface(both, lan, Link::lan(ms(1)), Default::default());
    let addresses = lab.addresses(both);
    assert_eq!(seen(&mut lab, both, neighbour, UDP).unwrap().ip(), addresses[1]);
    assert_eq!(seen(&mut lab, both, one, UDP).unwrap().ip(), addresses[0]);
}

/// An engine that always wants to be called again, or always has something to say.
struct Restless {
    talks: bool,
}

impl Engine for Restless {
    fn handle_datagram(&mut self, _now: Instant, _datagram: Datagram) {}
    fn handle_timeout(&mut self, _now: Instant) {}
    fn poll_transmit(&mut self, _now: Instant, _buffer: &mut Vec<u8>) -> Option<Transmit> {
        None
    }
    fn poll_timeout(&mut self) -> Option<Instant> {
        // In the past: it stands for now.
        Some(Instant::now() - Duration::from_secs(1))
    }
}

impl LabEngine for Restless {
    fn drain(&mut self, _reliable_room: bool, outputs: &mut Outputs) {
        if self.talks {
            outputs.event(Event::Notice { text: String::new() });
        }
    }
}

#[test]
fn an_engine_that_never_settles_panics_with_the_seed() {
    for talks in [true, false] {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let mut lab = Lab::new(4_711);
            let internet = lab.internet();
            let host = lab.add_host("restless", internet, Link::default());
            lab.start(host, move |_| Restless { talks });
            lab.run_for(ms(1));
        }))
        .unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(
            message.contains("never settles: host restless") && message.contains("4711"),
            "{message}"
        );
    }
}
