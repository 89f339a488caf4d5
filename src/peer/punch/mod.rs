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
//! | [`beside`] | what is done beside the volley |
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

pub mod beside;
pub mod birthday;
pub mod budget;
pub mod predict;
pub mod rounds;
pub mod series;
pub mod techniques;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::paths::{kind_of, may_send_to};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::transport::identity::PublicKey;
use crate::wire::introduction::{Candidate, CandidateKind, Introduction, NatFacts};
use crate::wire::probe::{PADDED_PROBE, Probe, ProbeKey, ProbeKind};
use crate::wire::stun::TransactionId;
use beside::Beside;
use budget::{PLAIN_ADDRESSES, ProbeCounters, Unanswered};
use series::{
    ANSWER_BURST, ANSWER_REFILL, BESIDE_ROUNDS, BIRTHDAY_TIME_LIMIT, HEARD_FROM, HOLD_RETRY, HOLD_TRIES, SERIES,
    TIME_LIMIT,
};
pub use series::{HOLD_TIME, LAN_GRACE};
use techniques::describe;

/// Probes whose answers are still awaited; older ones are forgotten first.
const MAX_OUTSTANDING: usize = 128;
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
    /// A candidate, not only learned from a packet.
    named: bool,
    heard: bool,
    small_only: bool,
    next: usize,
    next_at: Option<Instant>,
    round_trip: Option<Duration>,
    answers: u8,
    answers_at: Instant,
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
    candidates: Vec<Candidate>,
    own_facts: NatFacts,
    own_observed: Option<SocketAddr>,
    targets: Vec<Target>,
    outstanding: VecDeque<Outstanding>,
    unanswered: Unanswered,
    counters: ProbeCounters,
    beside: Beside,
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
            candidates: Vec::new(),
            own_observed: introduction.own_observed,
            own_facts: introduction.own_facts,
            targets: Vec::new(),
            outstanding: VecDeque::new(),
            unanswered: Unanswered::default(),
            counters: ProbeCounters::default(),
            beside: Beside::default(),
            opened: None,
            failed: false,
            in_use: false,
            hold_at: now,
            hold_missed: 0,
        };
        punch.add_candidates(now, introduction.candidates.clone(), socket_for);
        punch.choose(now, introduction.facts, introduction.own_facts, introduction.permit);
        punch
    }

    /// More addresses of the other side became known; those that were known stay.
    pub fn look_at(
        &mut self,
        now: Instant,
        candidates: Vec<Candidate>,
        socket_for: impl Fn(SocketAddr) -> Option<SocketName>,
    ) {
        if self.opened.is_none() && !self.failed && now < self.secret_ends {
            self.add_candidates(now, candidates, socket_for);
        }
    }

    fn add_candidates(
        &mut self,
        now: Instant,
        candidates: Vec<Candidate>,
        socket_for: impl Fn(SocketAddr) -> Option<SocketName>,
    ) {
        let loopback_seen = self.own_observed.is_some_and(|own| own.ip().is_loopback());
        let own_ip = self.own_observed.map(|own| own.ip());
        let observed = |address: &SocketAddr| Some(address.ip()) == own_ip;
        let one_household = candidates.iter().any(|candidate| observed(&candidate.address));
        for candidate in &candidates {
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
                self.beside.name(socket, address, candidate.kind, kind);
            }
            self.add_target(now, socket, address, kind, false);
        }
        self.candidates = candidates;
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
            target.named |= !learned;
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
            named: !learned,
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

    /// The addresses that the introduction named.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// What authenticates its probes.
    pub fn key(&self) -> &ProbeKey {
        &self.key
    }

    /// An address that was named, or learned, for that socket; not one of the many of a search.
    pub fn is_target(&self, socket: SocketName, address: SocketAddr) -> bool {
        self.find(socket, address).is_some()
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
            let foreseen = self.beside.in_rounds().then(|| self.endpoint()).flatten();
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
            if self.beside.scattered(transaction) && now < self.secret_ends && self.opened.is_none() {
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
                self.beside.stop();
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
        let techniques = self.opened.is_none().then(|| self.beside.poll_timeout()).flatten();
        [probes, techniques].into_iter().flatten().chain([own]).min()
    }

    fn time_limit(&self) -> Duration {
        if self.beside.in_birthday() {
            BIRTHDAY_TIME_LIMIT
        } else {
            TIME_LIMIT
        }
    }

    /// Why it failed, in words a player can act upon.
    pub fn failure_text(&self) -> String {
        let heard = self.targets.iter().filter(|target| target.heard).count();
        let named = self.targets.iter().filter(|target| target.named).count();
        let small = self.targets.iter().any(|target| target.small_only);
        let seen = if small {
            "only small packets pass between the two".to_owned()
        } else if heard > 0 {
            format!("the other side was heard from {heard} address(es), but no answer came back")
        } else {
            "none answered".to_owned()
        };
        let searched = match (self.counters.birthday_ports, self.counters.predicted) {
            (0, 0) => String::new(),
            (0, predicted) => format!(", and {predicted} foreseen"),
            (ports, _) => format!(", and {ports} ports"),
        };
        format!(
            "{} addresses tried{searched}, {seen}; this side's router: {}; the other side's: {}. Forward a UDP port by hand or turn UPnP on at \
             either router, or allow a relay.",
            named,
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
