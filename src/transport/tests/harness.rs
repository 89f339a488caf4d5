//! Transports joined by simulated links: a rate, a delay, a queue, jitter that reorders, loss. Virtual time, one seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::identity::Identity;
use super::super::*;

/// How packets travel in one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    pub(super) delay: Duration,
    /// Up to so much more, drawn for each packet, so that packets overtake each other.
    pub(super) jitter: Duration,
    /// Bits a second; 0: unlimited.
    pub(super) rate: u64,
    /// Bytes that wait before the rate; more are dropped.
    pub(super) queue: u64,
    pub(super) loss: f64,
}

impl Wire {
    pub(super) fn ideal(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            rate: 0,
            queue: u64::MAX,
            loss: 0.0,
        }
    }

    pub(super) fn bottleneck() -> Self {
        Self {
            rate: 20_000_000,
            queue: 256 << 10,
            ..Self::ideal(Duration::from_millis(25))
        }
    }
}

struct Flight {
    to: usize,
    address: SyntheticAddress,
    contents: Vec<u8>,
}

/// Two transports, A (0) and B (1).
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) ends: [Transport; 2],
    pub(super) wires: [Wire; 2],
    pub(super) cut: bool,
    /// The synthetic address under which each side knows the other.
    pub(super) addresses: [SyntheticAddress; 2],
    pub(super) events: [Vec<(Duration, LinkEvent)>; 2],
    /// Times and sizes of everything sent.
    pub(super) trace: Vec<(Duration, usize, usize)>,
    pub(super) dropped: [u64; 2],
    pub(super) sent: [u64; 2],
    free_at: [Instant; 2],
    flights: BTreeMap<(Instant, u64), Flight>,
    serial: u64,
    random: StdRng,
    pub(super) seed: u64,
}

pub(super) fn config(seed: u8, accepts: Option<LinkKind>) -> TransportConfig {
    TransportConfig {
        identity: Arc::new(Identity::from_seed([seed; 32])),
        seed: [seed; 32],
        crypto: Arc::new(rustls::crypto::ring::default_provider()),
        accepts,
        lost_peer_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(3),
        max_links: 100,
    }
}

impl World {
    pub(super) fn new(seed: u64, wire: Wire) -> Self {
        Self::with(
            seed,
            wire,
            config(1, Some(LinkKind::Peer)),
            config(2, Some(LinkKind::Peer)),
        )
    }

    pub(super) fn with(seed: u64, wire: Wire, a: TransportConfig, b: TransportConfig) -> Self {
        let now = Instant::now();
        let mut ends = [Transport::new(a), Transport::new(b)];
        let addresses = [ends[0].new_address(), ends[1].new_address()];
        Self {
            now,
            start: now,
            ends,
            wires: [wire; 2],
            cut: false,
            addresses,
            events: [Vec::new(), Vec::new()],
            trace: Vec::new(),
            dropped: [0; 2],
            sent: [0; 2],
            free_at: [now; 2],
            flights: BTreeMap::new(),
            serial: 0,
            random: StdRng::seed_from_u64(seed),
            seed,
        }
    }

    pub(super) fn time(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn key(&self, side: usize) -> PublicKey {
        self.ends[side].config.identity.public()
    }

    /// Dials from A to B.
    pub(super) fn dial(&mut self, kind: LinkKind, expected: Option<PublicKey>) -> LinkId {
        let address = self.addresses[0];
        self.ends[0].connect(self.now, address, kind, expected, Some(self.wires[0].delay * 2))
    }

    /// Dials and waits until both sides are connected.
    pub(super) fn connected(&mut self) -> [LinkId; 2] {
        let expected = self.key(1);
        let a = self.dial(LinkKind::Peer, Some(expected));
        let deadline = self.now + Duration::from_secs(20);
        while self.now < deadline {
            self.step(deadline);
            if let (Some(_), Some(b)) = (self.link_of(0), self.link_of(1)) {
                return [a, b];
            }
        }
        panic!("seed {}: not connected: {:?}", self.seed, self.events);
    }

    /// The link of a side's first `Connected`.
    pub(super) fn link_of(&self, side: usize) -> Option<LinkId> {
        self.events[side].iter().find_map(|(_, event)| match event {
            LinkEvent::Connected { link, .. } => Some(*link),
            _ => None,
        })
    }

    pub(super) fn closed(&self, side: usize) -> Option<(Duration, CloseReason)> {
        self.events[side].iter().find_map(|(time, event)| match event {
            LinkEvent::Closed { reason, .. } => Some((*time, reason.clone())),
            _ => None,
        })
    }

    /// Everything that happens at this moment.
    pub(super) fn settle(&mut self) {
        let mut buffer = Vec::new();
        for side in 0..2 {
            loop {
                buffer.clear();
                let Some((_, _, segment)) = self.ends[side].poll_transmit(self.now, &mut buffer) else {
                    break;
                };
                assert!(!buffer.is_empty() && buffer.len() < 65536);
                for packet in buffer.chunks(segment.unwrap_or(buffer.len())) {
                    self.transmit(side, packet);
                }
            }
            while let Some(event) = self.ends[side].poll_event() {
                let time = self.now - self.start;
                self.events[side].push((time, event));
            }
        }
    }

    fn transmit(&mut self, from: usize, packet: &[u8]) {
        let wire = self.wires[from];
        self.trace.push((self.time(), from, packet.len()));
        self.sent[from] += 1;
        let lost = wire.loss > 0.0 && self.random.random_bool(wire.loss);
        let mut leaves = self.now;
        if wire.rate > 0 {
            let begin = self.free_at[from].max(self.now);
            let waiting = (begin - self.now).as_secs_f64() * wire.rate as f64 / 8.0;
            if waiting + packet.len() as f64 > wire.queue as f64 {
                self.dropped[from] += 1;
                return;
            }
            // 28 bytes of IPv4 and UDP.
            leaves = begin + Duration::from_secs_f64((packet.len() + 28) as f64 * 8.0 / wire.rate as f64);
            self.free_at[from] = leaves;
        }
        if lost || self.cut {
            self.dropped[from] += 1;
            return;
        }
        let jitter = match wire.jitter.as_micros() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_micros(self.random.random_range(0..=most)),
        };
        self.serial += 1;
        self.flights.insert(
            (leaves + wire.delay + jitter, self.serial),
            Flight {
                to: 1 - from,
                address: self.addresses[1 - from],
                contents: packet.to_vec(),
            },
        );
    }

    /// Goes on to the next thing that happens, at most to `limit`. False: `limit` was reached.
    pub(super) fn step(&mut self, limit: Instant) -> bool {
        self.settle();
        let mut next = limit;
        if let Some(((time, _), _)) = self.flights.first_key_value() {
            next = next.min(*time);
        }
        for end in &mut self.ends {
            if let Some(time) = end.poll_timeout() {
                next = next.min(time);
            }
        }
        self.now = next.max(self.now);
        while let Some(entry) = self.flights.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let flight = entry.remove();
            let contents = BytesMut::from(&flight.contents[..]);
            self.ends[flight.to].handle_datagram(self.now, flight.address, None, contents);
        }
        for end in &mut self.ends {
            if end.poll_timeout().is_some_and(|time| time <= self.now) {
                end.handle_timeout(self.now);
            }
        }
        self.settle();
        self.now < limit
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let limit = self.now + duration;
        while self.step(limit) {}
    }

    /// Takes all messages that a side has.
    pub(super) fn messages(&mut self, side: usize, link: LinkId, room: bool) -> Vec<(u8, SendMode, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some(message) = self.ends[side].next_message(link, room) {
            messages.push((message.channel, message.mode, message.data.to_vec()));
        }
        messages
    }
}
