//! Opening ways to peers: requests to the server, introductions, the punches that follow, and what the game hears of them.
//!
//! In: the game's (or a dial's) wish for a way, the server's answers, probes. Out: messages to the server, probes, opened paths, one
//! outcome for each attempt at either side. Two tables: *asks* wait for the server's answer; *runs* are attempts whose introduction
//! came. All run at once.
//!
//! An attempt that only a dial wanted raises no event about the way at its asker: CONNECTED or CONNECTION_FAILED tell how that went.
//! The passive side hears of every attempt, with request 0.
//!
//! Timers: [`ASK_TIME`] for the server's answer, [`RETRY_INTERVAL`] while the server says that an attempt is running which this side
//! does not know (yet, or any more), and those of [`super::punch`].

mod driving;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Node;
use super::api::{Event, NatOutcome, Reason, RequestId};
use super::paths::Path;
use super::punch::budget::{Bucket, Ledger, ProbeCounters};
use super::punch::series::hold_interval;
use super::punch::{Packet, Punch, Purpose, Surroundings};
use super::relayed::Between;
use super::requests::Pending;
use super::sockets::LeaseId;
use crate::codes::{Code, PathKind};
use crate::engine::SocketName;
use crate::transport::identity::Guid;
use crate::wire::control::{Consent, RelayPolicy, ToServer, Ways};
use crate::wire::introduction::{BirthdayPermit, Candidate, Introduction, NatFacts, PortForecast};
use crate::wire::probe::ProbeKey;
use driving::QueuedPacket;

/// The server's answer comes within a round trip; it gives the target 10 s at most before it calls it unresponsive.
const ASK_TIME: Duration = Duration::from_secs(12);
/// See the module's documentation.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Attempts that may run at once: as many as the largest session has members, twice over.
const MAX_ATTEMPTS: usize = 128;
/// Attempts in all, those included whose path is open and held.
const MAX_HELD: usize = 2 * MAX_ATTEMPTS;
/// Probes and answers that wait for the socket; more than that and the newest are dropped.
const MAX_QUEUED: usize = 512;

/// A wish that the server has not answered yet.
#[derive(Debug)]
struct Ask {
    peer: Guid,
    request: RequestId,
    ways: Ways,
    /// The beginning of the connection that is wanted. See [`super::early`].
    first_flight: Bytes,
    deadline: Instant,
    retry_at: Option<Instant>,
}

/// An attempt whose introduction came.
#[derive(Debug)]
struct Run {
    punch: Punch,
    request: RequestId,
    server_request: u32,
    sender: bool,
    ended: bool,
    /// The two are connected, and nobody asked: the game hears of a path that changes, not of the attempt.
    quiet: bool,
    leases: Vec<Lease>,
}

/// Sockets of the pool that an attempt has asked for.
#[derive(Debug)]
struct Lease {
    id: LeaseId,
    purpose: Purpose,
    /// The attempt knows that they are open.
    given: bool,
}

/// All attempts of a node.
#[derive(Debug)]
pub(super) struct Attempts {
    asks: BTreeMap<u32, Ask>,
    runs: BTreeMap<Guid, Run>,
    by_introduction: BTreeMap<u64, Guid>,
    next_request: u32,
    bucket: Bucket,
    starved: bool,
    /// Who was served last: of techniques, and of probes to known addresses.
    served: [Option<Guid>; 2],
    ledger: Ledger,
    pub counters: ProbeCounters,
    pub queue: VecDeque<QueuedPacket>,
    pub dropped: u64,
}

impl Attempts {
    pub fn new(now: Instant) -> Self {
        Self {
            asks: BTreeMap::new(),
            runs: BTreeMap::new(),
            by_introduction: BTreeMap::new(),
            next_request: 1,
            bucket: Bucket::new(now),
            starved: false,
            served: [None; 2],
            ledger: Ledger::default(),
            counters: ProbeCounters::default(),
            queue: VecDeque::new(),
            dropped: 0,
        }
    }

    /// True while an attempt with that peer, in either direction, has not ended.
    pub fn is_running(&self, peer: Guid) -> bool {
        self.runs.get(&peer).is_some_and(|run| !run.ended) || self.asks.values().any(|ask| ask.peer == peer)
    }

    /// True while an attempt with anybody has not ended.
    pub fn are_under_way(&self) -> bool {
        !self.asks.is_empty() || self.runs.values().any(|run| !run.ended)
    }

    /// The peer that was heard at that address in a running attempt, with the kind of that path.
    pub fn heard_at(&self, socket: SocketName, source: SocketAddr) -> Option<(&Punch, PathKind)> {
        let mut runs = self.runs.values();
        runs.find_map(|run| Some((&run.punch, run.punch.heard_at(socket, source)?)))
    }

    /// True if the server has introduced that player, and its attempt is not forgotten yet.
    pub fn has_introduction(&self, peer: Guid) -> bool {
        self.runs.contains_key(&peer)
    }

    /// True if all that runs with that player is the search for a direct way, at the game's step-by-step call.
    pub fn is_direct_only(&self, peer: Guid) -> bool {
        let asks = self.asks.values().filter(|ask| ask.peer == peer);
        asks.clone().all(|ask| ask.ways == Ways::Direct)
    }

    /// True while the server has been asked for that player and has not answered.
    pub fn is_asked(&self, peer: Guid) -> bool {
        self.asks.values().any(|ask| ask.peer == peer)
    }

    /// The addresses at which that player was sought last.
    pub fn candidates_of(&self, peer: Guid) -> Vec<Candidate> {
        self.runs
            .get(&peer)
            .map(|run| run.punch.candidates().to_vec())
            .unwrap_or_default()
    }

    /// The most that was sent of each kind, by attempts that run and those that are over.
    pub fn probe_counters(&self) -> ProbeCounters {
        let mut counters = self.counters;
        self.runs
            .values()
            .for_each(|run| counters.raise_to(run.punch.counters()));
        counters
    }

    fn run_of(&mut self, introduction: u64) -> Option<&mut Run> {
        let peer = self.by_introduction.get(&introduction)?;
        self.runs.get_mut(peer).filter(|run| !run.ended)
    }

    fn enqueue(&mut self, packet: Packet, key: ProbeKey) {
        if self.queue.len() < MAX_QUEUED {
            self.queue.push_back(QueuedPacket { packet, key });
        } else {
            self.dropped += 1;
        }
    }

    /// Attempts that have an introduction.
    #[cfg(all(test, feature = "lab"))]
    pub fn introductions(&self) -> Vec<u64> {
        self.by_introduction.keys().copied().collect()
    }

    /// When something is due next.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let asks = self
            .asks
            .values()
            .map(|ask| ask.retry_at.map_or(ask.deadline, |at| at.min(ask.deadline)));
        let runs = self.runs.values().filter_map(|run| run.punch.poll_timeout(now));
        // Out of tokens: whatever is due waits for the next one.
        let floor = if self.starved { now + Bucket::wait() } else { now };
        asks.chain(runs).min().map(|at| at.max(floor))
    }
}

impl Node {
    /// The game's call.
    pub(super) fn open_nat(&mut self, now: Instant, request: RequestId, peer: Guid) {
        self.requests.begin(request, Pending::OpenNat(peer));
        // Also to a player who is connected over a relay: there is no direct way, and will be none.
        let hidden = self.effective_relay_policy() == RelayPolicy::Only;
        if let Some((path, address)) = self.way_to(peer).filter(|_| !hidden) {
            return self.raise_nat_success(request, peer, path, address, true);
        }
        if self.attempts.is_running(peer) {
            let text = "an attempt between the two is running; it ends with an event of its own".to_owned();
            let reason = Reason {
                code: Code::AlreadyInProgress,
                text,
            };
            return self.raise_nat_failure(request, peer, NatOutcome::AlreadyInProgress, reason, true);
        }
        if let Err(reason) = self.ask(now, request, peer) {
            self.raise_nat_failure(request, peer, NatOutcome::Failed, reason, true);
        }
    }

    /// The way to a peer that is connected, or opened and verified.
    fn way_to(&self, peer: Guid) -> Option<(PathKind, SocketAddr)> {
        let path = match self.link_address(peer) {
            Some(address) => self.paths.best(address)?,
            None => self.paths.opened(peer)?.1,
        };
        Some((path.kind, path.address))
    }

    /// Asks the server for an introduction. The attempt's end is reported to the game and to the dials that wait for it.
    pub(super) fn ask(&mut self, now: Instant, request: RequestId, peer: Guid) -> Result<(), Reason> {
        let ways = match self.effective_relay_policy() {
            // The game's step-by-step call is for a direct way; only a dial takes a relay as well.
            RelayPolicy::Only if request != 0 => {
                let text = "this node's relay policy is \"only\": it never shows its address to players".to_owned();
                return Err(Reason {
                    code: Code::Policy,
                    text,
                });
            }
            RelayPolicy::Only => Ways::Relayed,
            RelayPolicy::Never => Ways::Direct,
            RelayPolicy::Fallback if request != 0 => Ways::Direct,
            RelayPolicy::Fallback => Ways::Any,
        };
        self.ask_for(now, request, peer, ways)
    }

    /// The same for ways of a certain kind.
    pub(super) fn ask_for(&mut self, now: Instant, request: RequestId, peer: Guid, ways: Ways) -> Result<(), Reason> {
        if !self.server_is_up() {
            let text = "there is no session with a server; connect to one first".to_owned();
            return Err(Reason {
                code: Code::ServerLost,
                text,
            });
        }
        if self.attempts.asks.len() >= MAX_ATTEMPTS {
            let text = format!("{MAX_ATTEMPTS} attempts are running; wait until some have ended");
            return Err(Reason {
                code: Code::RateLimited,
                text,
            });
        }
        let server_request = self.attempts.next_request;
        self.attempts.next_request = server_request.wrapping_add(1).max(1);
        let first_flight = match ways {
            Ways::Direct => Bytes::new(),
            Ways::Any | Ways::Relayed => self.first_flight_to(now, peer),
        };
        let ask = Ask {
            peer,
            request,
            ways,
            first_flight,
            deadline: now + ASK_TIME,
            retry_at: None,
        };
        self.attempts.asks.insert(server_request, ask);
        self.send_open_nat(now, server_request);
        Ok(())
    }

    fn send_open_nat(&mut self, now: Instant, request: u32) {
        if self.asks_wait_for_move() {
            return;
        }
        let Some(ask) = self.attempts.asks.get(&request) else {
            return;
        };
        let message = ToServer::OpenNat {
            request,
            target: ask.peer,
            first_flight: ask.first_flight.clone(),
            ways: ask.ways,
        };
        self.send_to_server(&message);
        self.hurry_server(now);
    }

    /// The server introduces a peer.
    pub(super) fn introduced(&mut self, now: Instant, mut introduction: Introduction) {
        let peer = introduction.peer_guid();
        let ask = match introduction.request {
            0 => None,
            asked => self.attempts.asks.remove(&asked).filter(|ask| ask.peer == peer),
        };
        let accepted = ask.is_some() || (introduction.request == 0 && self.consents_to(peer));
        self.send_to_server(&ToServer::IntroductionReceived {
            introduction: introduction.id,
            accepted,
        });
        if !accepted {
            return;
        }
        let between = Between {
            peer: introduction.peer,
            introduction: introduction.id,
            secret: introduction.secret,
        };
        if !introduction.relays.is_empty() {
            self.early_introduced(now, introduction.peer);
        }
        let mut relays = std::mem::take(&mut introduction.relays);
        if ask.is_none() && !self.has_room_for_caller(peer) {
            relays.clear();
        }
        let nobody_named = introduction.candidates.is_empty();
        introduction.candidates = self.sought_again(now, peer, introduction.candidates, !relays.is_empty());
        let relayed = self.relays_offered(now, &between, relays);
        if !relayed {
            self.early_not_relayed(now, peer);
        } else if ask.is_none() {
            self.first_flight_arrived(now, peer, &std::mem::take(&mut introduction.first_flight));
        }
        if self.effective_relay_policy() == RelayPolicy::Only || (relayed && nobody_named) {
            return self.introduced_to_relay_only(now, peer, introduction.id, relayed);
        }
        let (v4, v6) = (self.has_socket(SocketName::Udp4), self.has_socket(SocketName::Udp6));
        let around = self.punch_surroundings();
        let punch = Punch::new(now, &introduction, ask.is_some(), around, |address| {
            socket_for(address, v4, v6)
        });
        let mut run = Run {
            punch,
            request: ask.as_ref().map_or(0, |ask| ask.request),
            server_request: introduction.request,
            sender: ask.is_some(),
            ended: false,
            quiet: self.link_address(peer).is_some(),
            leases: Vec::new(),
        };
        if let Some(previous) = self.attempts.runs.remove(&peer) {
            self.attempts.by_introduction.remove(&previous.punch.introduction());
            self.attempts.counters.raise_to(previous.punch.counters());
            previous.leases.iter().for_each(|lease| self.pool.release(lease.id));
            // The same attempt goes on under a newer introduction.
            if !previous.ended && run.request == 0 {
                (run.request, run.sender) = (previous.request, previous.sender);
                run.server_request = previous.server_request;
            }
        }
        run.punch.set_in_use(now, self.link_address(peer).is_some());
        self.attempts.by_introduction.insert(introduction.id, peer);
        self.attempts.runs.insert(peer, run);
        if relayed {
            self.way_opened(now, peer);
        }
        self.drive_attempts(now);
    }

    /// The two may know each other over a relay only: there is nothing to punch.
    fn introduced_to_relay_only(&mut self, now: Instant, peer: Guid, introduction: u64, relayed: bool) {
        let path = if relayed { PathKind::Proxied } else { PathKind::None };
        self.send_to_server(&ToServer::PunchEnded {
            introduction,
            path: path.number(),
        });
        if relayed {
            return self.way_opened(now, peer);
        }
        let code = Code::Policy;
        let text = "one of the two shows its address to nobody, and the server offers no relay".to_owned();
        self.no_way(now, peer, Reason { code, text });
    }

    /// What an attempt needs to know of this node.
    fn punch_surroundings(&self) -> Surroundings {
        Surroundings {
            stun: self.stun_server(),
            hold_interval: hold_interval(self.nat.report.lifetime.map(|(least, _)| least)),
        }
    }

    /// Probes a connected player by the connection's own secret, unless an attempt with it is under way.
    pub(super) fn begin_probing_connected(&mut self, now: Instant, introduction: &Introduction, asked: bool) {
        let peer = introduction.peer_guid();
        if self.attempts.runs.get(&peer).is_some_and(|run| !run.ended) || self.attempts.runs.len() >= MAX_HELD {
            return;
        }
        self.forget_run(peer);
        let (v4, v6) = (self.has_socket(SocketName::Udp4), self.has_socket(SocketName::Udp6));
        let around = self.punch_surroundings();
        let mut punch = Punch::new(now, introduction, asked, around, |address| socket_for(address, v4, v6));
        punch.set_in_use(now, true);
        let run = Run {
            punch,
            request: 0,
            server_request: 0,
            sender: asked,
            ended: false,
            quiet: true,
            leases: Vec::new(),
        };
        self.attempts.by_introduction.insert(introduction.id, peer);
        self.attempts.runs.insert(peer, run);
        self.drive_attempts(now);
    }

    pub(super) fn consents_to(&self, peer: Guid) -> bool {
        let running = self.attempts.runs.values().filter(|run| !run.ended).count();
        self.accepting
            && self.accept_from != Consent::Nobody
            && running < MAX_ATTEMPTS
            && self.attempts.runs.len() < MAX_HELD
            && peer != self.guid
    }

    /// The server cannot, or will not, introduce; or the target did not react, or declined.
    pub(super) fn open_nat_failed(&mut self, now: Instant, request: u32, reason: Reason) {
        if let Some(ask) = self.attempts.asks.get_mut(&request) {
            // The other side asked at the same moment (its introduction is here or on its way), or an attempt has just ended here and
            // not yet there. Whoever only wants a way waits for it.
            let (peer, game_request) = (ask.peer, ask.request);
            if reason.code == Code::AlreadyInProgress && game_request == 0 {
                ask.retry_at = Some(now + RETRY_INTERVAL);
                return;
            }
            self.attempts.asks.remove(&request);
            return self.attempt_failed(now, game_request, peer, reason, true);
        }
        let mut runs = self.attempts.runs.iter();
        let Some((&peer, _)) = runs.find(|(_, run)| run.server_request == request && !run.ended && run.sender) else {
            return;
        };
        self.end_run(now, peer, reason, false);
    }

    /// The server says that the other side is gone or gave up.
    pub(super) fn introduction_ended(&mut self, now: Instant, introduction: u64, code: Code) {
        let Some(&peer) = self.attempts.by_introduction.get(&introduction) else {
            return;
        };
        if let Some(link) = self.greeted_link(peer).filter(|_| code == Code::Cancelled) {
            // Its dialler is gone, and the relay leads nowhere.
            self.paths.close(now, peer);
            self.give_up_greeted(now, link, code, "");
        }
        if self.attempts.runs.get(&peer).is_none_or(|run| run.ended) {
            return;
        }
        // That the other side does not want any more says nothing of this side's wish.
        if code == Code::Cancelled && self.dial_waits_for(peer) && !self.attempts.is_asked(peer) {
            let _ = self.ask(now, 0, peer);
        }
        let text = match code {
            Code::TargetLost => "the other side left the server while the attempt was running",
            Code::Cancelled => "the other side cancelled the attempt",
            _ => "the server ended the attempt",
        };
        let reason = Reason {
            code,
            text: text.to_owned(),
        };
        self.end_run(now, peer, reason, false);
    }

    /// More became known of the two NATs.
    pub(super) fn introduction_updated(
        &mut self,
        now: Instant,
        introduction: u64,
        (facts, own_facts, permit): (NatFacts, NatFacts, BirthdayPermit),
        candidates: Vec<Candidate>,
    ) {
        let (v4, v6) = (self.has_socket(SocketName::Udp4), self.has_socket(SocketName::Udp6));
        if let Some(run) = self.attempts.run_of(introduction) {
            run.punch
                .look_at(now, candidates, |address| socket_for(address, v4, v6));
            run.punch.choose(now, facts, own_facts, permit);
            self.drive_attempts(now);
        }
    }

    /// The other side says where its router puts the mapping towards this node.
    pub(super) fn forecast_received(&mut self, now: Instant, introduction: u64, forecast: PortForecast) {
        if let Some(run) = self.attempts.run_of(introduction) {
            run.punch.forecast_received(now, forecast);
            self.drive_attempts(now);
        }
    }

    /// The session goes on over another connection, by which the server knows nothing of what was asked.
    pub(super) fn repeat_asks(&mut self, now: Instant) {
        let open = self.attempts.asks.iter().filter(|(_, ask)| ask.retry_at.is_none());
        let asks: Vec<u32> = open.map(|(number, _)| *number).collect();
        for number in asks {
            self.send_open_nat(now, number);
        }
    }

    /// Without its server: whoever has no introduction yet will not get one.
    pub(super) fn end_asks(&mut self, now: Instant) {
        for (_, ask) in std::mem::take(&mut self.attempts.asks) {
            let text = "the session with the server was lost before the introduction came".to_owned();
            let reason = Reason {
                code: Code::ServerLost,
                text,
            };
            self.attempt_failed(now, ask.request, ask.peer, reason, true);
        }
    }

    /// The game cancels its request; whoever else waits for the same attempt goes on.
    pub(super) fn cancel_open_nat(&mut self, now: Instant, request: RequestId, peer: Guid) {
        let reason = cancelled();
        let waited_for = self.dial_waits_for(peer);
        let asked = self
            .attempts
            .asks
            .iter()
            .find(|(_, ask)| ask.request == request)
            .map(|(number, _)| *number);
        if waited_for {
            if let Some(ask) = asked.and_then(|number| self.attempts.asks.get_mut(&number)) {
                ask.request = 0;
            }
            if let Some(run) = self.attempts.runs.get_mut(&peer).filter(|run| run.request == request) {
                run.request = 0;
            }
            return self.raise_nat_failure(request, peer, NatOutcome::Failed, reason, true);
        }
        if let Some(number) = asked {
            self.attempts.asks.remove(&number);
            self.send_to_server(&ToServer::CancelOpenNat { request: number });
            return self.attempt_failed(now, request, peer, reason, true);
        }
        if let Some(run) = self.attempts.runs.get(&peer)
            && run.request == request
            && !run.ended
        {
            let number = run.server_request;
            self.send_to_server(&ToServer::CancelOpenNat { request: number });
            return self.end_run(now, peer, reason, true);
        }
        self.raise_nat_failure(request, peer, NatOutcome::Failed, reason, true);
    }

    /// Gives up an attempt that only a dial wanted, when that dial is gone.
    pub(super) fn abandon_attempt(&mut self, peer: Guid) {
        let found = self
            .attempts
            .asks
            .iter()
            .find(|(_, ask)| ask.peer == peer && ask.request == 0);
        if let Some(number) = found.map(|(number, _)| *number) {
            self.attempts.asks.remove(&number);
            self.send_to_server(&ToServer::CancelOpenNat { request: number });
        }
    }

    /// A connection to the peer stands: that is a way, and it needs no probes to stay open.
    pub(super) fn attempt_connected(&mut self, now: Instant, peer: Guid, path: Path) {
        // Over a forwarder the two are connected, and go on looking for a direct way.
        if path.kind > PathKind::Direct {
            return;
        }
        if let Some(run) = self.attempts.runs.get_mut(&peer) {
            run.punch.set_in_use(now, true);
            if !run.ended {
                let round_trip = path.round_trip.unwrap_or_default();
                run.punch
                    .verified_by_connection(now, path.socket, path.address, path.kind, round_trip);
                self.drive_attempts(now);
            }
        }
    }

    /// The connection to the peer is gone.
    pub(super) fn attempt_disconnected(&mut self, now: Instant, peer: Guid) {
        if self.attempts.runs.get(&peer).is_some_and(|run| run.ended) {
            self.forget_run(peer);
            self.paths.close(now, peer);
        }
    }

    fn forget_run(&mut self, peer: Guid) {
        if let Some(run) = self.attempts.runs.remove(&peer) {
            self.attempts.by_introduction.remove(&run.punch.introduction());
            self.attempts.counters.raise_to(run.punch.counters());
            run.leases.iter().for_each(|lease| self.pool.release(lease.id));
            self.close_unused_sockets();
        }
    }

    /// Ends an attempt that has not been decided. `tell`: the server does not know yet.
    fn end_run(&mut self, now: Instant, peer: Guid, reason: Reason, tell: bool) {
        let Some(run) = self.attempts.runs.get(&peer) else {
            return;
        };
        let (request, sender, introduction) = (run.request, run.sender, run.punch.introduction());
        let quiet = run.quiet && request == 0;
        self.forget_run(peer);
        if tell {
            self.send_to_server(&ToServer::PunchEnded { introduction, path: 0 });
        }
        if quiet {
            return;
        }
        self.attempt_failed(now, request, peer, reason, sender);
    }

    fn attempt_failed(&mut self, now: Instant, request: RequestId, peer: Guid, reason: Reason, sender: bool) {
        let outcome = match reason.code {
            Code::TargetNotConnected => NatOutcome::TargetNotConnected,
            Code::TargetUnresponsive => NatOutcome::TargetUnresponsive,
            Code::TargetLost => NatOutcome::ConnectionToTargetLost,
            Code::AlreadyInProgress => NatOutcome::AlreadyInProgress,
            _ => NatOutcome::Failed,
        };
        // What will not be otherwise in a moment is asked for again in its time.
        if sender && request == 0 && matches!(reason.code, Code::TargetLost | Code::TargetUnresponsive) {
            self.ask_sooner(now, peer);
        }
        let another_runs = self.attempts.is_running(peer);
        self.raise_nat_failure(request, peer, outcome, reason.clone(), sender);
        if !another_runs {
            self.no_way(now, peer, reason);
        }
    }

    fn raise_nat_success(&mut self, request: RequestId, peer: Guid, path: PathKind, address: SocketAddr, sender: bool) {
        let dial_only = sender && request == 0;
        if !dial_only && self.requests.end(request) {
            self.raise(Event::NatSucceeded {
                request,
                peer,
                path,
                address,
                sender,
            });
        }
    }

    fn raise_nat_failure(&mut self, request: RequestId, peer: Guid, outcome: NatOutcome, reason: Reason, sender: bool) {
        let dial_only = sender && request == 0;
        if !dial_only && self.requests.end(request) {
            self.raise(Event::NatFailed {
                request,
                peer,
                outcome,
                reason,
                sender,
            });
        }
    }

    /// Asks that waited too long, or are to be repeated.
    pub(super) fn attempts_timeout(&mut self, now: Instant) {
        let due = |ask: &Ask| ask.deadline <= now || ask.retry_at.is_some_and(|at| at <= now);
        let numbers: Vec<u32> = self
            .attempts
            .asks
            .iter()
            .filter(|(_, ask)| due(ask))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let Some(ask) = self.attempts.asks.get_mut(&number) else {
                continue;
            };
            let (peer, request) = (ask.peer, ask.request);
            if ask.deadline <= now {
                let code = if ask.retry_at.is_some() {
                    Code::AlreadyInProgress
                } else {
                    Code::Timeout
                };
                self.attempts.asks.remove(&number);
                self.send_to_server(&ToServer::CancelOpenNat { request: number });
                let text = "the server did not introduce the two in time".to_owned();
                self.attempt_failed(now, request, peer, Reason { code, text }, true);
            } else if self.attempts.runs.get(&peer).is_some_and(|run| !run.ended) {
                // The other side's attempt is the one to wait for.
                self.attempts.asks.remove(&number);
            } else {
                ask.retry_at = None;
                self.send_open_nat(now, number);
            }
        }
        self.drive_attempts(now);
    }
}

fn socket_for(address: SocketAddr, v4: bool, v6: bool) -> Option<SocketName> {
    match address {
        SocketAddr::V4(_) => v4.then_some(SocketName::Udp4),
        SocketAddr::V6(_) => v6.then_some(SocketName::Udp6),
    }
}

/// The game does not want it any more.
pub(super) fn cancelled() -> Reason {
    Reason {
        code: Code::Cancelled,
        text: "cancelled by the game".to_owned(),
    }
}
