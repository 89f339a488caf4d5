//! One attempt to open a path: a pure state machine.
//!
//! In: the introduction (candidates, secret), authenticated probes with where they came from, the time. Out: probes to send,
//! verified paths, a verdict. It sends to every candidate at once, answers what the other side sends, follows the other side to
//! addresses that nobody named (an address-dependent mapping shows itself that way), and takes the best path that carried a
//! full-size probe there and back.
//!
//! Timers: the probing series (`SERIES`), the wait for a path inside the own network ([`LAN_GRACE`]), the time limit
//! ([`TIME_LIMIT`]), and, once a path is open and nobody uses it, a probe every [`HOLD_INTERVAL`] for [`HOLD_TIME`], because a router
//! forgets a silent mapping.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::paths::{kind_of, may_send_to};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::transport::identity::PublicKey;
use crate::wire::introduction::{Candidate, CandidateKind, Introduction, NatFacts};
use crate::wire::probe::{PADDED_PROBE, Probe, ProbeKey, ProbeKind};

/// Silence before each probe to an address, and whether it is padded to full size. 0, 20, 60, 140, 300 ms, then the gap doubles: two
/// packets at once (a plain one tells a path that only passes small packets from no path), ten in all, as many as may go
/// unanswered to one address.
const SERIES: [(u64, bool); 10] = [
    (0, true),
    (0, false),
    (20, true),
    (40, true),
    (80, true),
    (160, true),
    (320, true),
    (640, true),
    (1280, true),
    (2560, true),
];
/// Where an address's series begins when the other side has just been heard there: its router is open already, so no plain one.
const HEARD_FROM: usize = 2;
/// Most addresses of one attempt, those learned included.
pub const MAX_TARGETS: usize = 32;
/// An attempt that has not opened a path by then never will: both series are over, with room for an introduction that came late
/// to the other side.
pub const TIME_LIMIT: Duration = Duration::from_secs(8);
/// A direct path is not taken before this while an address inside the own network may still answer; such an answer takes a few
/// milliseconds.
pub const LAN_GRACE: Duration = Duration::from_millis(25);
/// Time that an opened path is kept although nobody connects over it.
pub const HOLD_TIME: Duration = Duration::from_secs(60);
/// Silence between probes on such a path. Routers forget UDP mappings after 30 s and more.
const HOLD_INTERVAL: Duration = Duration::from_secs(10);
/// Time between repeats when a probe on an open path stays unanswered.
const HOLD_RETRY: Duration = Duration::from_secs(1);
/// Unanswered probes in a row after which an opened path is given up.
const HOLD_TRIES: u8 = 4;
/// Answers that one address may get at once; a token comes back every [`ANSWER_REFILL`]. Two series and their repeats.
const ANSWER_BURST: u8 = 24;
/// See [`ANSWER_BURST`].
const ANSWER_REFILL: Duration = Duration::from_millis(250);
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
    facts: NatFacts,
    candidates: Vec<Candidate>,
    named: usize,
    targets: Vec<Target>,
    outstanding: VecDeque<Outstanding>,
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
        socket_for: impl Fn(SocketAddr) -> Option<SocketName>,
    ) -> Self {
        let mut punch = Self {
            introduction: introduction.id,
            peer: introduction.peer,
            key: ProbeKey::new(&introduction.secret),
            asked,
            started: now,
            secret_ends: now + Duration::from_millis(introduction.valid_ms.into()),
            facts: introduction.facts,
            candidates: introduction.candidates.clone(),
            named: 0,
            targets: Vec::new(),
            outstanding: VecDeque::new(),
            opened: None,
            failed: false,
            in_use: false,
            hold_at: now,
            hold_missed: 0,
        };
        for candidate in &introduction.candidates {
            let loopback_seen = introduction.own_observed.is_some_and(|own| own.ip().is_loopback());
            let usable = may_send_to(candidate.address) && (loopback_seen || !candidate.address.ip().is_loopback());
            if let Some(socket) = socket_for(candidate.address)
                && usable
            {
                let kind = match candidate.kind {
                    CandidateKind::Local => PathKind::Lan,
                    _ => kind_of(candidate.address),
                };
                punch.add_target(now, socket, candidate.address, kind, false);
            }
        }
        punch.named = punch.targets.len();
        punch
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
        if self.targets.len() >= MAX_TARGETS {
            return None;
        }
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

    /// The addresses that the introduction named.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
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
        self.hold_at = now + HOLD_INTERVAL;
        self.hold_missed = 0;
    }

    /// The next probe that is due.
    pub fn next_probe(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Outgoing> {
        if self.failed {
            return None;
        }
        let due = |target: &Target| target.next_at.is_some_and(|at| at <= now);
        if let Some(index) = self.targets.iter().position(due) {
            let target = &mut self.targets[index];
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
        })
    }

    fn handle_response(&mut self, now: Instant, socket: SocketName, source: SocketAddr, transaction: u64, size: usize) {
        let Some(position) = self
            .outstanding
            .iter()
            .position(|probe| probe.transaction == transaction)
        else {
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
            self.hold_at = now + HOLD_INTERVAL;
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
                self.hold_at = now + HOLD_INTERVAL;
                self.hold_missed = 0;
                self.stop_worse(kind);
                self.verdict(now)
            }
            _ if self.failed || now >= self.started + TIME_LIMIT => {
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
            None => self.started + TIME_LIMIT,
        };
        Some(probes.map_or(own, |probe| probe.min(own)))
    }

    /// Why it failed, in words a player can act upon.
    pub fn failure_text(&self) -> String {
        let heard = self.targets.iter().filter(|target| target.heard).count();
        let small = self.targets.iter().any(|target| target.small_only);
        let known = match (self.facts.mapping_varies_by_address, self.facts.mapping_varies_by_port) {
            (Some(true), _) | (_, Some(true)) => "the other side's router is symmetric",
            (Some(false), _) => "the other side's router keeps its mapping",
            _ => "nothing is known of the other side's router",
        };
        let seen = if small {
            "only small packets pass between the two".to_owned()
        } else if heard > 0 {
            format!("the other side was heard from {heard} address(es), but no answer came back")
        } else {
            "none answered".to_owned()
        };
        format!(
            "{} addresses tried, {seen}; {known}. Forward a UDP port by hand or turn UPnP on at either router, or allow a relay.",
            self.named
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
