//! One attempt to open a path: a pure state machine.
//!
//! In: the introduction (candidates, secret, both sides' NAT facts, permit), authenticated probes with where they came from, sockets of the
//! pool, the server's answers to samples, the other side's forecasts, the time. Out: packets to send, wishes for sockets, forecasts for the
//! other side, verified paths, a verdict. It sends to every candidate at once, answers what the other side sends, follows the other side to
//! addresses that nobody named (an address-dependent mapping shows itself that way), does what else the two routers call for, and takes the
//! best path that carried a full-size probe there and back.
//!
//! | file | what it does |
//! |---|---|
//! | this | the attempt: targets, answers, verdict, holding what is open |
//! | [`techniques`] | which technique for which pair: the matrix |
//! | [`series`] | timing |
//! | [`budget`] | limits, counters |
//! | [`rounds`] | samples and fresh mappings of a router that gives ports in sequence |
//! | [`predict`] | the ports that it gave, or will give |
//! | [`birthday`] | many mappings, and the search for one of them |
//!
//! Timers: the probing series ([`series::SERIES`]), the wait for a path inside the own network ([`LAN_GRACE`]), the time limit
//! ([`series::TIME_LIMIT`]), those of the techniques, and, once a path is open and nobody uses it, a probe every so often
//! ([`series::hold_interval`]) for [`HOLD_TIME`], because a router forgets a silent mapping.

pub mod birthday;
pub mod budget;
pub mod predict;
pub mod rounds;
pub mod series;
pub mod techniques;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::paths::{kind_of, may_send_to};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::transport::identity::PublicKey;
use crate::wire::introduction::{BirthdayPermit, CandidateKind, Introduction, NatFacts, PortForecast};
use crate::wire::probe::{PADDED_PROBE, Probe, ProbeKey, ProbeKind};
use crate::wire::stun::TransactionId;
use birthday::{Opener, Prober};
use budget::{OPENER_SOCKETS, PLAIN_ADDRESSES, PREDICTED_ADDRESSES, ProbeCounters, Unanswered};
use rounds::{Rounds, Step};
use series::{
    ANSWER_BURST, ANSWER_REFILL, BESIDE_ROUNDS, BIRTHDAY_TIME_LIMIT, HEARD_FROM, HOLD_RETRY, HOLD_TRIES, SERIES,
    TIME_LIMIT,
};
pub use series::{HOLD_TIME, LAN_GRACE};
use techniques::{Ports, describe, ports, techniques};

/// Probes whose answers are still awaited; older ones are forgotten first.
const MAX_OUTSTANDING: usize = 128;
/// When a predicted address is probed again: for loss, and for a mapping that was made a little later than was thought.
const SHOTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(70), Duration::from_millis(280)];
/// When the addresses around a window are probed: those inside had their chance.
const AROUND_AFTER: Duration = Duration::from_millis(320);

/// A probe that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// From where.
    pub socket: SocketName,
    /// Where to.
    pub address: SocketAddr,
    /// What.
    pub probe: Probe,
    /// Bytes that it is padded to; 0: none.
    pub padded_to: usize,
    /// How far it may go, if not as far as it takes.
    pub time_to_live: Option<u8>,
}

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// To the other side.
    Probe(Outgoing),
    /// A STUN request to the server.
    Sample {
        /// From where.
        socket: SocketName,
        /// Where to.
        server: SocketAddr,
        /// Echoed in the answer.
        transaction: TransactionId,
    },
}

/// What sockets of the pool are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// [`rounds`].
    Rounds,
    /// [`birthday`].
    Birthday,
}

/// What an attempt must know of its own node.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// Where samples are taken: the server's IPv4 STUN.
    pub stun: Option<SocketAddr>,
    /// See [`series::hold_interval`].
    pub hold_interval: Duration,
}

/// A path that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// From where.
    pub socket: SocketName,
    /// Where to.
    pub address: SocketAddr,
    /// Which kind.
    pub kind: PathKind,
    /// Measured.
    pub round_trip: Duration,
}

/// How an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided.
    Running,
    /// This path is open.
    Opened(Verified),
    /// Nothing answered in time.
    Failed,
}

#[derive(Debug)]
struct Target {
    socket: SocketName,
    address: SocketAddr,
    kind: PathKind,
    heard: bool,
    small_only: bool,
    next: usize,
    next_at: Option<Instant>,
    round_trip: Option<Duration>,
    answers: u8,
    answers_at: Instant,
}

/// A predicted address.
#[derive(Debug)]
struct Shot {
    socket: SocketName,
    address: SocketAddr,
    sent: usize,
    begins: Instant,
}

impl Shot {
    fn next_at(&self) -> Option<Instant> {
        SHOTS.get(self.sent).map(|after| self.begins + *after)
    }
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    transaction: u64,
    target: usize,
    sent_at: Instant,
    padded: bool,
}

/// One attempt.
#[derive(Debug)]
pub struct Punch {
    introduction: u64,
    peer: PublicKey,
    key: ProbeKey,
    asked: bool,
    started: Instant,
    secret_ends: Instant,
    around: Surroundings,
    facts: NatFacts,
    own_facts: NatFacts,
    named: usize,
    /// The other side's IPv4 address as the server saw it, and with the number that its socket has.
    observed: Option<SocketAddr>,
    guessed: Option<SocketAddr>,
    /// The socket for IPv4.
    main: Option<SocketName>,
    targets: Vec<Target>,
    outstanding: VecDeque<Outstanding>,
    unanswered: Unanswered,
    counters: ProbeCounters,
    rounds: Option<Rounds>,
    /// Rounds have begun, or could not: they do not begin anew.
    rounds_tried: bool,
    /// First packets of the openers fall short.
    low_first: bool,
    opener: Option<Opener>,
    prober: Option<Prober>,
    birthday: bool,
    wishes: VecDeque<(Purpose, u16)>,
    shots: Vec<Shot>,
    predicted: BTreeSet<SocketAddr>,
    /// A probe to an address that is no target (predicted, birthday) has this and the port as its transaction.
    scatter: Option<u64>,
    opened: Option<(Instant, usize)>,
    failed: bool,
    in_use: bool,
    hold_at: Instant,
    hold_missed: u8,
}

impl Punch {
    /// Starts. `asked`: this side asked for the introduction. `socket_for` names the socket for an address's family.
    pub fn new(
        now: Instant,
        introduction: &Introduction,
        asked: bool,
        around: Surroundings,
        socket_for: impl Fn(SocketAddr) -> Option<SocketName>,
    ) -> Self {
        let mut punch = Self {
            introduction: introduction.id,
            peer: introduction.peer,
            key: ProbeKey::new(&introduction.secret),
            asked,
            started: now,
            secret_ends: now + Duration::from_millis(introduction.valid_ms.into()),
            around,
            facts: introduction.facts,
            own_facts: introduction.own_facts,
            named: 0,
            observed: None,
            guessed: None,
            main: None,
            targets: Vec::new(),
            outstanding: VecDeque::new(),
            unanswered: Unanswered::default(),
            counters: ProbeCounters::default(),
            rounds: None,
            rounds_tried: false,
            low_first: false,
            opener: None,
            prober: None,
            birthday: false,
            wishes: VecDeque::new(),
            shots: Vec::new(),
            predicted: BTreeSet::new(),
            scatter: None,
            opened: None,
            failed: false,
            in_use: false,
            hold_at: now,
            hold_missed: 0,
        };
        punch.add_candidates(now, introduction, socket_for);
        punch.choose(now, introduction.facts, introduction.own_facts, introduction.permit);
        punch
    }

    fn add_candidates(
        &mut self,
        now: Instant,
        introduction: &Introduction,
        socket_for: impl Fn(SocketAddr) -> Option<SocketName>,
    ) {
        let loopback_seen = introduction.own_observed.is_some_and(|own| own.ip().is_loopback());
        let own_ip = introduction.own_observed.map(|own| own.ip());
        let observed = |address: &SocketAddr| Some(address.ip()) == own_ip;
        let one_household = introduction
            .candidates
            .iter()
            .any(|candidate| observed(&candidate.address));
        for candidate in &introduction.candidates {
            let address = candidate.address;
            let usable = may_send_to(address) && (loopback_seen || !address.ip().is_loopback());
            let Some(socket) = socket_for(address).filter(|_| usable) else {
                continue;
            };
            // A public address of one of the other's interfaces is the LAN's only for those who share it.
            let kind = match (candidate.kind, address) {
                (CandidateKind::Local, SocketAddr::V4(_)) if !one_household => kind_of(address),
                (CandidateKind::Local, _) => PathKind::Lan,
                _ => kind_of(address),
            };
            if address.is_ipv4() {
                self.main = Some(socket);
                match candidate.kind {
                    CandidateKind::Observed => self.observed = self.observed.or(Some(address)),
                    CandidateKind::Local if kind == PathKind::Direct => self.guessed = Some(address),
                    _ => {}
                }
            }
            self.add_target(now, socket, address, kind, false);
        }
        self.named = self.targets.len();
    }

    /// The address at which the other side's router shows it to this node, unless it gives every destination another port.
    fn endpoint(&self) -> Option<SocketAddr> {
        let same_ip = |guess: &SocketAddr| self.observed.is_none_or(|observed| observed.ip() == guess.ip());
        let guess = self.guessed.filter(same_ip);
        match ports(&self.facts) {
            Ports::Preserving => guess.or(self.observed),
            _ => self.observed.or(guess),
        }
    }

    /// Takes what is known of the two routers, at the beginning or when more became known, and begins what they call for.
    pub fn choose(&mut self, now: Instant, facts: NatFacts, own_facts: NatFacts, permit: BirthdayPermit) {
        (self.facts, self.own_facts) = (facts, own_facts);
        let Some(endpoint) = self.endpoint().filter(|_| self.opened.is_none()) else {
            return;
        };
        let plan = techniques(&own_facts, &facts, permit);
        if let Some((kind, step)) = plan.rounds
            && !self.rounds_tried
            && self.around.stun.is_some()
        {
            self.rounds_tried = true;
            self.rounds = Some(Rounds::new(now, kind, step));
            self.wishes.push_back((Purpose::Rounds, rounds::SOCKETS));
        }
        if self.birthday {
            return;
        }
        if let Some((sockets, low_first)) = plan.open {
            (self.birthday, self.low_first) = (true, low_first);
            self.wishes.push_back((Purpose::Birthday, sockets.min(OPENER_SOCKETS)));
        }
        if let Some((count, block)) = plan.probe {
            self.birthday = true;
            self.prober = Some(Prober::new(now, endpoint.ip(), count, block));
        }
    }

    /// Sockets that are wanted, each wish once. Answered by [`sockets_opened`](Self::sockets_opened).
    pub fn next_wish(&mut self) -> Option<(Purpose, u16)> {
        self.wishes.pop_front()
    }

    /// The sockets are there: as many as could be had, maybe none.
    pub fn sockets_opened(&mut self, now: Instant, purpose: Purpose, sockets: Vec<SocketName>) {
        match (purpose, self.endpoint()) {
            _ if self.opened.is_some() => {}
            (Purpose::Rounds, _) => match &mut self.rounds {
                Some(rounds) if !sockets.is_empty() => rounds.sockets_opened(now, &sockets),
                // Then the main socket's series is all there is.
                _ => self.rounds = None,
            },
            (Purpose::Birthday, Some(endpoint)) => {
                self.opener = Some(Opener::new(now, sockets, endpoint, self.low_first));
            }
            (Purpose::Birthday, None) => {}
        }
    }

    /// Where samples are taken, while there are any.
    pub fn stun_server(&self) -> Option<SocketAddr> {
        self.around.stun.filter(|_| self.rounds.is_some())
    }

    /// An answer of the server's STUN; false: to no request of this attempt.
    pub fn sampled(&mut self, now: Instant, transaction: &TransactionId, mapped: SocketAddr) -> bool {
        let taken = self
            .rounds
            .as_mut()
            .is_some_and(|rounds| rounds.sampled(transaction, mapped));
        if taken {
            self.burst(now);
        }
        taken
    }

    /// What the other side is to be told through the server.
    pub fn next_forecast(&mut self, now: Instant) -> Option<PortForecast> {
        if self.opened.is_some() || self.failed {
            return None;
        }
        self.rounds.as_mut()?.next_forecast(now)
    }

    /// The other side says where its router puts, or has put, the mapping towards this node.
    pub fn forecast_received(&mut self, now: Instant, forecast: PortForecast) {
        let ip = forecast.before.ip();
        let known = self.targets[..self.named]
            .iter()
            .any(|target| target.address.ip() == ip);
        if !known || !may_send_to(forecast.before) || self.opened.is_some() || now >= self.secret_ends {
            return;
        }
        if let (Ports::Sequential(_), Some(rounds)) = (ports(&self.own_facts), &mut self.rounds) {
            rounds.heard(forecast);
            return self.burst(now);
        }
        let Some(socket) = self.main else { return };
        let address = |port| SocketAddr::new(ip, port);
        self.add_shots(now, socket, predict::window(&forecast).into_iter().map(address));
        self.add_shots(
            now + AROUND_AFTER,
            socket,
            predict::around(&forecast).into_iter().map(address),
        );
    }

    fn burst(&mut self, now: Instant) {
        let Some((socket, forecast)) = self.rounds.as_mut().and_then(Rounds::next_burst) else {
            return;
        };
        let ports = predict::burst(self.asked, forecast.before.port(), forecast.step);
        let ip = forecast.before.ip();
        self.add_shots(now, socket, ports.into_iter().map(|port| SocketAddr::new(ip, port)));
    }

    fn add_shots(&mut self, begins: Instant, socket: SocketName, addresses: impl Iterator<Item = SocketAddr>) {
        for address in addresses {
            if self
                .shots
                .iter()
                .any(|shot| shot.address == address && shot.socket == socket)
            {
                continue;
            }
            if !self.predicted.contains(&address) && self.predicted.len() >= PREDICTED_ADDRESSES {
                return;
            }
            self.predicted.insert(address);
            self.counters.predicted = self.predicted.len() as u32;
            self.shots.push(Shot {
                socket,
                address,
                sent: 0,
                begins,
            });
        }
    }

    fn add_target(
        &mut self,
        now: Instant,
        socket: SocketName,
        address: SocketAddr,
        kind: PathKind,
        learned: bool,
    ) -> Option<usize> {
        if let Some(index) = self.find(socket, address) {
            let target = &mut self.targets[index];
            target.kind = target.kind.min(kind);
            return Some(index);
        }
        let new = self.targets.iter().all(|target| target.address != address);
        if self.targets.len() >= PLAIN_ADDRESSES {
            return None;
        }
        self.counters.addresses += u32::from(new);
        self.targets.push(Target {
            socket,
            address,
            kind,
            heard: false,
            small_only: false,
            next: if learned { HEARD_FROM } else { 0 },
            next_at: Some(now),
            round_trip: None,
            answers: ANSWER_BURST,
            answers_at: now,
        });
        Some(self.targets.len() - 1)
    }

    fn find(&self, socket: SocketName, address: SocketAddr) -> Option<usize> {
        let mut targets = self.targets.iter();
        targets.position(|target| target.address == address && target.socket == socket)
    }

    /// Names the attempt.
    pub fn introduction(&self) -> u64 {
        self.introduction
    }

    /// The other side.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// What authenticates its probes.
    pub fn key(&self) -> &ProbeKey {
        &self.key
    }

    /// The kind of path from there, if the other side was heard at that address.
    pub fn heard_at(&self, socket: SocketName, address: SocketAddr) -> Option<PathKind> {
        let target = &self.targets[self.find(socket, address)?];
        target.heard.then_some(target.kind)
    }

    /// A connection over the opened path stands (then its own packets keep the path alive), or does not stand any more.
    pub fn set_in_use(&mut self, now: Instant, in_use: bool) {
        self.in_use = in_use;
        self.hold_at = now + self.around.hold_interval;
        self.hold_missed = 0;
    }

    /// The most that was sent of each kind.
    pub fn counters(&self) -> &ProbeCounters {
        &self.counters
    }

    /// Sockets on which the other side was heard: they may be, or become, the path of this side or of the other.
    pub fn heard_sockets(&self) -> impl Iterator<Item = SocketName> + '_ {
        let heard = self
            .targets
            .iter()
            .filter(|target| target.heard || target.round_trip.is_some());
        heard.map(|target| target.socket)
    }

    /// The next packet that is due.
    pub fn next_packet(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Packet> {
        let urgent = self.next_urgent(now, &mut random).map(Packet::Probe);
        urgent.or_else(|| self.next_technique(now, &mut random))
    }

    /// The next probe that is due to an address that is known.
    pub fn next_urgent(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Outgoing> {
        if self.failed {
            return None;
        }
        let due = |target: &Target| target.next_at.is_some_and(|at| at <= now);
        while let Some(index) = self.targets.iter().position(due) {
            let foreseen = self.rounds.is_some().then(|| self.endpoint()).flatten();
            let target = &mut self.targets[index];
            let beside = Some(target.address) == foreseen && target.next >= BESIDE_ROUNDS;
            let allowed = target.heard || (!beside && self.unanswered.spend(target.address, &mut self.counters));
            if !allowed {
                target.next_at = None;
                continue;
            }
            let padded = SERIES[target.next].1;
            target.next += 1;
            target.next_at = SERIES
                .get(target.next)
                .map(|(gap, _)| now + Duration::from_millis(*gap));
            return Some(self.request(now, index, padded, random()));
        }
        self.next_hold_probe(now, random)
    }

    /// The next packet of a technique.
    fn next_technique(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Packet> {
        if self.failed || self.opened.is_some() {
            return None;
        }
        if let Some(step) = self
            .rounds
            .as_mut()
            .and_then(|rounds| rounds.next_step(now, &mut random))
        {
            return self.round_step(now, step, random());
        }
        let due = |shot: &Shot| shot.next_at().is_some_and(|at| at <= now);
        if let Some(index) = self.shots.iter().position(due) {
            let shot = &mut self.shots[index];
            shot.sent += 1;
            let (socket, address) = (shot.socket, shot.address);
            return Some(Packet::Probe(self.scattered(socket, address, random)));
        }
        if let Some(opener) = &mut self.opener
            && let Some((socket, address, time_to_live)) = opener.next_packet(now, &mut self.counters)
        {
            let probe = self.scattered(socket, address, random);
            return Some(Packet::Probe(Outgoing { time_to_live, ..probe }));
        }
        let socket = self.main?;
        let address = self
            .prober
            .as_mut()?
            .next_address(now, &mut random, &mut self.counters)?;
        Some(Packet::Probe(self.scattered(socket, address, random)))
    }

    fn round_step(&mut self, now: Instant, step: Step, random: u64) -> Option<Packet> {
        match step {
            Step::Sample(socket, transaction) => self.around.stun.map(|server| Packet::Sample {
                socket,
                server,
                transaction,
            }),
            Step::Probe(socket) => {
                let endpoint = self.endpoint()?;
                let index = self.add_target(now, socket, endpoint, kind_of(endpoint), true)?;
                if !self.targets[index].heard {
                    // Its series begins when the other side is heard.
                    self.targets[index].next_at = None;
                    if !self.unanswered.spend(endpoint, &mut self.counters) {
                        return None;
                    }
                }
                Some(Packet::Probe(self.request(now, index, true, random)))
            }
        }
    }

    /// A small probe to an address that may be nobody's.
    fn scattered(&mut self, socket: SocketName, address: SocketAddr, mut random: impl FnMut() -> u64) -> Outgoing {
        let base = *self.scatter.get_or_insert_with(&mut random);
        Outgoing {
            socket,
            address,
            probe: Probe {
                introduction: self.introduction,
                from_asker: self.asked,
                transaction: base.wrapping_add(address.port().into()),
                kind: ProbeKind::Request,
            },
            padded_to: 0,
            time_to_live: None,
        }
    }

    fn next_hold_probe(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Outgoing> {
        let (opened_at, index) = self.opened?;
        if self.in_use || now < self.hold_at || now >= opened_at + HOLD_TIME {
            return None;
        }
        if self.hold_missed >= HOLD_TRIES {
            self.failed = true;
            return None;
        }
        self.hold_missed += 1;
        self.hold_at = now + HOLD_RETRY;
        Some(self.request(now, index, false, random()))
    }

    fn request(&mut self, now: Instant, index: usize, padded: bool, transaction: u64) -> Outgoing {
        if self.outstanding.len() >= MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding {
            transaction,
            target: index,
            sent_at: now,
            padded,
        });
        Outgoing {
            socket: self.targets[index].socket,
            address: self.targets[index].address,
            probe: Probe {
                introduction: self.introduction,
                from_asker: self.asked,
                transaction,
                kind: ProbeKind::Request,
            },
            padded_to: if padded { PADDED_PROBE } else { 0 },
            time_to_live: None,
        }
    }

    /// Takes an authenticated probe of `size` bytes. Returns the answer to send, never larger than what came in.
    pub fn handle(
        &mut self,
        now: Instant,
        socket: SocketName,
        source: SocketAddr,
        probe: &Probe,
        size: usize,
    ) -> Option<Outgoing> {
        // Our own packets, sent back by whoever is there.
        if probe.from_asker == self.asked || self.failed {
            return None;
        }
        match probe.kind {
            ProbeKind::Request => self.handle_request(now, socket, source, probe, size),
            ProbeKind::Response { .. } => {
                self.handle_response(now, socket, source, probe.transaction, size);
                None
            }
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        socket: SocketName,
        source: SocketAddr,
        probe: &Probe,
        size: usize,
    ) -> Option<Outgoing> {
        let index = match self.find(socket, source) {
            Some(index) => index,
            // The secret is void: only addresses that were part of the attempt are still answered.
            None if now >= self.secret_ends => return None,
            None => self.add_target(now, socket, source, kind_of(source), true)?,
        };
        let opened = self.opened.is_some();
        let target = &mut self.targets[index];
        if now >= self.secret_ends && target.round_trip.is_none() {
            return None;
        }
        // The other side's packets pass: whatever was lost before, one of ours will pass now.
        if !target.heard && target.round_trip.is_none() {
            target.heard = true;
            if !opened || target.kind < PathKind::Direct {
                target.next = target.next.min(HEARD_FROM);
                target.next_at = Some(now);
            }
        }
        target.take_answer(now)?;
        Some(Outgoing {
            socket,
            address: source,
            probe: Probe {
                introduction: self.introduction,
                from_asker: self.asked,
                transaction: probe.transaction,
                kind: ProbeKind::Response { observed: source },
            },
            padded_to: size,
            time_to_live: None,
        })
    }

    fn handle_response(&mut self, now: Instant, socket: SocketName, source: SocketAddr, transaction: u64, size: usize) {
        let Some(position) = self
            .outstanding
            .iter()
            .position(|probe| probe.transaction == transaction)
        else {
            let scattered = |base: u64| transaction.wrapping_sub(base) <= u64::from(u16::MAX);
            if self.scatter.is_some_and(scattered) && now < self.secret_ends && self.opened.is_none() {
                // One of the many was right: now a full-size probe.
                self.add_target(now, socket, source, kind_of(source), true);
            }
            return;
        };
        let probe = self.outstanding[position];
        let target = &mut self.targets[probe.target];
        if target.address != source || target.socket != socket {
            // It was heard, but elsewhere than asked: the way there is still to be found.
            if now < self.secret_ends {
                self.add_target(now, socket, source, kind_of(source), true);
            }
            return;
        }
        self.outstanding.remove(position);
        target.heard = true;
        let held = self.opened.is_some_and(|(_, index)| index == probe.target);
        if held {
            self.hold_missed = 0;
            self.hold_at = now + self.around.hold_interval;
        }
        if !probe.padded || size < PADDED_PROBE {
            target.small_only = target.round_trip.is_none();
            return;
        }
        let round_trip = now - probe.sent_at;
        target.round_trip = Some(target.round_trip.map_or(round_trip, |known| known.min(round_trip)));
        target.small_only = false;
        target.next_at = None;
    }

    /// A handshake proved this path before a probe did.
    pub fn verified_by_connection(
        &mut self,
        now: Instant,
        socket: SocketName,
        address: SocketAddr,
        kind: PathKind,
        round_trip: Duration,
    ) {
        if let Some(index) = self.add_target(now, socket, address, kind, true) {
            let target = &mut self.targets[index];
            target.heard = true;
            target.next_at = None;
            target.round_trip.get_or_insert(round_trip);
        }
    }

    /// Verified paths so far.
    pub fn verified(&self) -> impl Iterator<Item = Verified> + '_ {
        self.targets.iter().filter_map(Target::verified)
    }

    /// Decides. Once opened it stays so, with the path that was best at that moment.
    pub fn verdict(&mut self, now: Instant) -> Verdict {
        if let Some((_, index)) = self.opened {
            return self.targets[index].verified().map_or(Verdict::Failed, Verdict::Opened);
        }
        let verified =
            |(index, target): (usize, &Target)| target.verified().map(|path| (path.kind, path.round_trip, index));
        let best = self.targets.iter().enumerate().filter_map(verified).min();
        match best {
            Some((kind, _, index)) if kind == PathKind::Lan || !self.lan_plausible(now) => {
                self.opened = Some((now, index));
                self.hold_at = now + self.around.hold_interval;
                self.hold_missed = 0;
                self.stop_worse(kind);
                (self.rounds, self.opener, self.prober) = (None, None, None);
                self.shots.clear();
                self.verdict(now)
            }
            _ if self.failed || now >= self.started + self.time_limit() => {
                self.failed = best.is_none();
                if self.failed { Verdict::Failed } else { Verdict::Running }
            }
            _ => Verdict::Running,
        }
    }

    fn lan_plausible(&self, now: Instant) -> bool {
        now < self.started + LAN_GRACE
            && self
                .targets
                .iter()
                .any(|target| target.kind == PathKind::Lan && target.round_trip.is_none() && target.next_at.is_some())
    }

    fn stop_worse(&mut self, kind: PathKind) {
        for target in self.targets.iter_mut().filter(|target| target.kind >= kind) {
            target.next_at = None;
        }
    }

    /// True when nothing more will come of it: failed, or opened and not held any longer.
    pub fn is_over(&self, now: Instant) -> bool {
        let hold_over = |(at, _): (Instant, usize)| now >= at + HOLD_TIME;
        self.failed || self.opened.is_some_and(hold_over)
    }

    /// The next moment at which something is due.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.failed {
            return Some(now);
        }
        let probes = self.targets.iter().filter_map(|target| target.next_at).min();
        let own = match self.opened {
            Some((at, _)) if self.in_use => at + HOLD_TIME,
            Some((at, _)) => self.hold_at.min(at + HOLD_TIME),
            None if now < self.started + LAN_GRACE && self.verified().next().is_some() => self.started + LAN_GRACE,
            None => self.started + self.time_limit(),
        };
        let techniques = self.opened.is_none().then(|| self.technique_timeout()).flatten();
        [probes, techniques].into_iter().flatten().chain([own]).min()
    }

    /// The next moment at which a technique has something to do.
    fn technique_timeout(&self) -> Option<Instant> {
        let shots = self.shots.iter().filter_map(Shot::next_at).min();
        let rounds = self.rounds.as_ref().and_then(Rounds::poll_timeout);
        let opener = self.opener.as_ref().and_then(Opener::poll_timeout);
        let prober = self.prober.as_ref().and_then(Prober::poll_timeout);
        [shots, rounds, opener, prober].into_iter().flatten().min()
    }

    fn time_limit(&self) -> Duration {
        if self.birthday { BIRTHDAY_TIME_LIMIT } else { TIME_LIMIT }
    }

    /// Why it failed, in words a player can act upon.
    pub fn failure_text(&self) -> String {
        let heard = self.targets.iter().filter(|target| target.heard).count();
        let small = self.targets.iter().any(|target| target.small_only);
        let seen = if small {
            "only small packets pass between the two".to_owned()
        } else if heard > 0 {
            format!("the other side was heard from {heard} address(es), but no answer came back")
        } else {
            "none answered".to_owned()
        };
        let searched = match (self.counters.birthday_ports, self.predicted.len()) {
            (0, 0) => String::new(),
            (0, predicted) => format!(", and {predicted} foreseen"),
            (ports, _) => format!(", and {ports} ports"),
        };
        format!(
            "{} addresses tried{searched}, {seen}; this side's router: {}; the other side's: {}. Forward a UDP port by hand or turn UPnP on at \
             either router, or allow a relay.",
            self.named,
            describe(&self.own_facts),
            describe(&self.facts)
        )
    }
}

impl Target {
    fn verified(&self) -> Option<Verified> {
        self.round_trip.map(|round_trip| Verified {
            socket: self.socket,
            address: self.address,
            kind: self.kind,
            round_trip,
        })
    }

    /// Spends one answer; `None` when the address has had its share.
    fn take_answer(&mut self, now: Instant) -> Option<()> {
        let refill = (now - self.answers_at).as_millis() / ANSWER_REFILL.as_millis();
        if refill > 0 {
            self.answers = (u128::from(self.answers) + refill).min(ANSWER_BURST.into()) as u8;
            self.answers_at = now;
        }
        self.answers = self.answers.checked_sub(1)?;
        Some(())
    }
}
