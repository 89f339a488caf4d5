//! The session with the server.
//!
//! In: the game's wish (name or address, port, key), resolved names, link events, the server's messages. Out: dials, the Hello with
//! its access proof, `SERVER_…` events. States: idle → resolving → dialling (one address after the other; streams beside it, see [`super::tunnel`]) →
//! greeting → up; after a
//! loss → waiting → resolving again, for ever.
//!
//! Decisions. A wish for the server that stands is answered at once, with WRONG_KEY if it names another key than the one that was proven
//! (the session stays); a wish waits for a running try only if both accept the same key; one for another server replaces the session, quietly, and what was
//! asked of the old one ends with SERVER_LOST. Without a key the first key that the server proves is pinned for the automatic
//! reconnects: a session never moves to another key behind the game's back; the node keeps trying and says so by a notice. A new
//! wish of the game without a key starts without a pin. A session that a newer node with the same identity took over is not
//! re-opened: two nodes would throw each other out for ever.
//!
//! Timers: [`CONNECT_TIME`], [`NEXT_ADDRESS_TIME`], [`RESOLVE_TIME`], and the waits between reconnects.

mod words;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;

use super::Node;
use super::api::{Event, Reason, RequestId, SideEffect};
use super::attempts::cancelled;
use super::nat::NAT_RESOLVE;
use super::paths::{Owner, Path, kind_of, may_send_to};
use super::requests::Pending;
use crate::codes::Code;
use crate::engine::SocketName;
use crate::transport::identity::PublicKey;
use crate::transport::{CloseInfo, CloseReason, LinkId, SyntheticAddress};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::control::{ACCESS_EXPORTER_LABEL, FromServer, Hello, ToServer};
use crate::wire::introduction::{Candidate, CandidateKind};
use crate::wire::{DecodeError, MAX_CANDIDATES};
use words::access_proof;
pub(super) use words::server_reason;

/// Handshake and greeting with one address: two round trips, with room for four losses in a row.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The same while there is another address to try: a machine with a dead IPv6 route should not wait for long.
const NEXT_ADDRESS_TIME: Duration = Duration::from_secs(2);
/// A system's resolver gives up by itself after 5 to 30 s; a player does so earlier.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Guess for the first packet's round trip: a server on the same continent, doubled.
pub(super) const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Wait before the first reconnect: a server that restarts is back in about that, and losing a packet burst costs no more.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait between reconnects: short enough for a player to sit out, long enough for thousands of nodes to be no flood.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A server that shows itself is dialled at once, but no more often than this: it may be there and refuse.
const HASTE_INTERVAL: Duration = Duration::from_secs(5);

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    key: Option<PublicKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Resolving {
        id: u32,
        deadline: Instant,
    },
    Dialling {
        link: LinkId,
        deadline: Instant,
    },
    /// UDP has come to nothing; streams are still being tried.
    Streams,
    Greeting {
        link: LinkId,
        deadline: Instant,
    },
    Up {
        link: LinkId,
    },
    Waiting {
        until: Instant,
    },
}

/// The session.
#[derive(Debug)]
pub(super) struct Rendezvous {
    target: Option<Target>,
    /// Game requests that wait for it. Empty while reconnecting by itself.
    requests: Vec<RequestId>,
    state: State,
    addresses: VecDeque<SocketAddr>,
    next_resolve: u32,
    pinned: Option<PublicKey>,
    /// The session stood and was lost: failures now lead to another try.
    reconnecting: bool,
    tries: u32,
    /// When a dial was begun before its time.
    hastened: Option<Instant>,
    /// The last failure that a notice told of, so that each is told once.
    noticed: Option<Code>,
    last_failure: Option<Reason>,
    pub key: Option<PublicKey>,
    /// This node's UDP address as the server sees it.
    pub observed: Option<SocketAddr>,
    /// The same, or on a stream the address of that.
    seen: Option<SocketAddr>,
    /// Where the server of the standing session is, if the session goes by UDP.
    pub server_address: Option<SocketAddr>,
    /// Further addresses at which it answers STUN.
    pub stun: Vec<SocketAddr>,
    /// All addresses of the server that was looked up last, of both IP versions, also when no session came of it.
    pub known_addresses: Vec<SocketAddr>,
}

impl Rendezvous {
    pub fn new() -> Self {
        Self {
            target: None,
            requests: Vec::new(),
            state: State::Idle,
            addresses: VecDeque::new(),
            next_resolve: 1,
            pinned: None,
            reconnecting: false,
            tries: 0,
            hastened: None,
            noticed: None,
            last_failure: None,
            key: None,
            observed: None,
            seen: None,
            server_address: None,
            stun: Vec::new(),
            known_addresses: Vec::new(),
        }
    }

    /// The link of the session, in whatever state it is.
    pub fn link(&self) -> Option<LinkId> {
        match self.state {
            State::Dialling { link, .. } | State::Greeting { link, .. } | State::Up { link } => Some(link),
            _ => None,
        }
    }

    /// The server that the game named: host and port.
    pub fn server(&self) -> Option<(&str, u16)> {
        self.target.as_ref().map(|target| (target.host.as_str(), target.port))
    }

    /// The key that the present session, or try, accepts; `None`: any.
    pub(super) fn expected_key(&self) -> Option<PublicKey> {
        self.target.as_ref().and_then(|target| target.key).or(self.pinned)
    }

    /// No way has led to the server yet, and at least one is being tried.
    pub fn is_dialling(&self) -> bool {
        matches!(self.state, State::Dialling { .. } | State::Streams)
    }

    /// Streams are all that is being tried.
    pub fn waits_for_streams(&self) -> bool {
        self.state == State::Streams
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Streams | State::Up { .. } => None,
            State::Resolving { deadline, .. } | State::Dialling { deadline, .. } | State::Greeting { deadline, .. } => {
                Some(deadline)
            }
            State::Waiting { until } => Some(until),
        }
    }

    /// The wait before the next try: doubled each time, and spread over its upper half so that the nodes of a server that
    /// restarted do not all come at once.
    fn next_wait(&mut self, random: u64) -> Duration {
        let full = FIRST_WAIT.saturating_mul(1 << self.tries.min(16)).min(LONGEST_WAIT);
        self.tries += 1;
        full / 2 + full.mul_f64(0.5 * (random >> 11) as f64 / (1u64 << 53) as f64)
    }
}

impl Node {
    /// True while a session stands.
    pub(super) fn server_is_up(&self) -> bool {
        matches!(self.rendezvous.state, State::Up { .. })
    }

    /// The game's call.
    pub(super) fn connect_server(
        &mut self,
        now: Instant,
        request: RequestId,
        host: String,
        port: u16,
        key: Option<PublicKey>,
    ) {
        self.requests.begin(request, Pending::Server);
        self.timers_changed = true;
        let host = host
            .trim()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        let same = self
            .rendezvous
            .target
            .as_ref()
            .is_some_and(|target| target.host == host && target.port == port);
        if same && self.server_is_up() {
            return self.server_again(request, key);
        }
        // A dial proves one key at most: whoever wants another one, or any, does not wait for it.
        let same_key = self.rendezvous.expected_key() == key;
        if same && same_key && !matches!(self.rendezvous.state, State::Idle | State::Waiting { .. }) {
            return self.rendezvous.requests.push(request);
        }
        if host.is_empty() || port == 0 {
            let text = "a server needs a name or an address, and a port".to_owned();
            return self.raise_server_failed(
                request,
                Reason {
                    code: Code::InvalidArgument,
                    text,
                },
            );
        }
        let stood = self.server_is_up();
        self.leave_server(now, "another server is connected to instead");
        if stood {
            self.raise(Event::ServerDisconnected { request: 0 });
        }
        self.rendezvous.target = Some(Target { host, port, key });
        self.rendezvous.requests.push(request);
        self.begin_resolving(now);
    }

    /// A wish for the server that this node has a session with. Whoever names another key than the one it proved hears so, and the
    /// session stays.
    fn server_again(&mut self, request: RequestId, key: Option<PublicKey>) {
        if let (Some(wanted), Some(proven)) = (key, self.rendezvous.key)
            && wanted != proven
        {
            let reason = server_reason(CloseReason::WrongKey(proven), true);
            return self.raise_server_failed(request, reason);
        }
        if let Some(target) = &mut self.rendezvous.target {
            target.key = key.or(target.key);
        }
        self.raise_server_connected(request);
    }

    /// The game's call.
    pub(super) fn disconnect_server(&mut self, now: Instant, request: RequestId) {
        self.leave_server(now, "the game disconnected from the server");
        self.rendezvous.known_addresses.clear();
        self.raise(Event::ServerDisconnected { request });
    }

    /// Ends whatever there is with a server, without an event for the session itself.
    pub(super) fn leave_server(&mut self, now: Instant, text: &str) {
        self.timers_changed = true;
        self.view_changed = true;
        self.leave_streams(now);
        if let Some(link) = self.rendezvous.link() {
            let info = CloseInfo {
                code: Code::Closed.number(),
                user_code: 0,
                text: text.to_owned(),
            };
            self.close_link(now, link, info);
        }
        for request in std::mem::take(&mut self.rendezvous.requests) {
            self.raise_server_failed(request, cancelled());
        }
        let next_resolve = self.rendezvous.next_resolve;
        let known_addresses = std::mem::take(&mut self.rendezvous.known_addresses);
        self.rendezvous = Rendezvous {
            next_resolve,
            known_addresses,
            ..Rendezvous::new()
        };
        self.end_asks(now);
    }

    /// The game cancels its wish; the session is given up if nobody else waits for it.
    pub(super) fn cancel_server(&mut self, now: Instant, request: RequestId) {
        self.rendezvous.requests.retain(|waiting| *waiting != request);
        self.raise_server_failed(request, cancelled());
        if self.rendezvous.requests.is_empty() && !self.server_is_up() && !self.rendezvous.reconnecting {
            self.leave_server(now, "cancelled");
        }
    }

    fn begin_resolving(&mut self, now: Instant) {
        let Some(target) = &self.rendezvous.target else { return };
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            return self.resolved(now, Ok(vec![ip]));
        }
        let (id, host) = (self.rendezvous.next_resolve, target.host.clone());
        self.rendezvous.next_resolve = id.wrapping_add(1) & !NAT_RESOLVE;
        self.rendezvous.state = State::Resolving {
            id,
            deadline: now + RESOLVE_TIME,
        };
        self.side_effects.push_back(SideEffect::Resolve { id, host });
    }

    /// The outside's answer.
    pub(super) fn name_resolved(&mut self, now: Instant, id: u32, addresses: Result<Vec<IpAddr>, String>) {
        if matches!(self.rendezvous.state, State::Resolving { id: awaited, .. } if awaited == id) {
            self.resolved(now, addresses);
        }
    }

    fn resolved(&mut self, now: Instant, addresses: Result<Vec<IpAddr>, String>) {
        self.timers_changed = true;
        let Some(target) = &self.rendezvous.target else { return };
        let (host, port) = (target.host.clone(), target.port);
        let (v4, v6) = (self.has_socket(SocketName::Udp4), self.has_socket(SocketName::Udp6));
        let found = match addresses {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => return self.name_not_resolved(now, &host, "it has no addresses"),
            Err(text) => return self.name_not_resolved(now, &host, &text),
        };
        self.rendezvous.addresses = found
            .into_iter()
            .map(|ip| SocketAddr::new(ip.to_canonical(), port))
            .filter(|address| may_send_to(*address) && if address.is_ipv4() { v4 } else { v6 })
            .take(MAX_ADDRESSES)
            .collect();
        self.rendezvous.known_addresses = self.rendezvous.addresses.iter().copied().collect();
        self.rendezvous.last_failure = None;
        self.udp_is_tried(now);
        self.dial_next_address(now);
    }

    fn name_not_resolved(&mut self, now: Instant, host: &str, why: &str) {
        let text = format!("the server's name {host:?} could not be resolved: {why}");
        let code = Code::NameNotResolved;
        self.server_attempt_failed(now, Reason { code, text });
    }

    fn dial_next_address(&mut self, now: Instant) {
        self.timers_changed = true;
        let Some(address) = self.rendezvous.addresses.pop_front() else {
            let reason = self.rendezvous.last_failure.take().unwrap_or_else(|| Reason {
                code: Code::NoAnswer,
                text: "no socket of this node can reach any of the server's addresses".to_owned(),
            });
            return self.server_attempt_failed(now, reason);
        };
        let Some(synthetic) = self.server_route(now, address) else {
            let code = Code::Incompatible;
            let text = format!("{address} is a connected player's address, not a server's");
            self.rendezvous.last_failure = Some(Reason { code, text });
            return self.dial_next_address(now);
        };
        let link = self.dial_server(now, synthetic);
        let time = if self.rendezvous.addresses.is_empty() {
            CONNECT_TIME
        } else {
            NEXT_ADDRESS_TIME
        };
        let deadline = now + time;
        self.rendezvous.state = State::Dialling { link, deadline };
    }

    /// The route to a server at that address. The one that an older session's close still needs serves the new session as well. `None`: a
    /// player is connected over it.
    pub(super) fn server_route(&mut self, now: Instant, address: SocketAddr) -> Option<SyntheticAddress> {
        let socket = if address.is_ipv4() {
            SocketName::Udp4
        } else {
            SocketName::Udp6
        };
        let known = self.paths.route_from(socket, address);
        if let Some(known) = known.filter(|route| self.paths.is_in_use(*route)) {
            return match self.paths.owner(known) {
                Some(Owner::Peer(_)) => None,
                _ => Some(known),
            };
        }
        let synthetic = self.transport.new_address();
        let path = Path {
            socket,
            address,
            kind: kind_of(address),
            round_trip: None,
            verified: false,
        };
        self.paths.insert(now, synthetic, Owner::Server, path);
        Some(synthetic)
    }

    /// The handshake is done: who this is, and that it knows the access key.
    pub(super) fn server_link_connected(&mut self, now: Instant, link: LinkId, key: PublicKey) {
        self.timers_changed = true;
        self.rendezvous.key = Some(key);
        self.rendezvous.addresses.clear();
        self.server_way_chosen(now);
        if let Some(address) = self.server_links.get(&link) {
            self.paths.prove(*address, Owner::Server);
        }
        self.rendezvous.state = State::Greeting {
            link,
            deadline: now + CONNECT_TIME,
        };
        self.say_hello(link);
    }

    /// The first message of a session.
    pub(super) fn say_hello(&mut self, link: LinkId) {
        let access_proof = match self.transport.export_keying_material(link, ACCESS_EXPORTER_LABEL) {
            Some(bytes) if !self.access_key.is_empty() => access_proof(&self.access_key, &bytes),
            _ => [0; 32],
        };
        let hello = ToServer::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            app: self.app.clone(),
            access_proof,
            incarnation: self.incarnation,
            consent: self.accept_from,
            session_tag: self.session_tag,
            relay_policy: self.effective_relay_policy(),
            candidates: self.candidates(),
            facts: self.nat.report.facts,
            proofs: self.nat.proofs(),
        });
        self.write_to_server(link, &hello);
    }

    /// The addresses of this node that it knows itself.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        if let Some(address) = self.manual_address
            && self.nat.report.manual_open != Some(false)
        {
            candidates.push(Candidate {
                kind: CandidateKind::Manual,
                address,
            });
        }
        // Behind a second router nobody reaches the first one's address.
        let reachable = self.nat.report.mappings.iter().filter(|port| port.is_good());
        candidates.extend(reachable.map(|port| Candidate {
            kind: CandidateKind::Mapped,
            address: port.external,
        }));
        for (socket, bound) in &self.sockets {
            if !matches!(socket, SocketName::Udp4 | SocketName::Udp6) {
                continue;
            }
            let family = |ip: &&IpAddr| ip.is_ipv4() == bound.is_ipv4() && !ip.is_loopback();
            let every = bound.ip().is_unspecified();
            let interfaces = self.local_addresses.iter().filter(|_| every);
            let own = Some(&bound.ip()).filter(|_| !every).copied();
            candidates.extend(interfaces.chain(own.iter()).filter(family).map(|ip| Candidate {
                kind: CandidateKind::Local,
                address: SocketAddr::new(*ip, bound.port()),
            }));
        }
        candidates.truncate(MAX_CANDIDATES - 1);
        candidates.extend(self.port_guess());
        candidates
    }

    /// A symmetric router that keeps port numbers shows the socket's own one to most others, but may have had to show the server another.
    fn port_guess(&self) -> Option<Candidate> {
        let (observed, facts) = (self.rendezvous.observed?, &self.nat.report.facts);
        let (_, bound) = self.sockets.iter().find(|(name, _)| *name == SocketName::Udp4)?;
        let guess = SocketAddr::new(observed.ip(), bound.port());
        // A symmetric one that keeps numbers looks like one that keeps its mapping.
        let keeps = facts.preserves_port == Some(true);
        (observed.is_ipv4() && guess != observed && keeps).then_some(Candidate {
            kind: CandidateKind::Local,
            address: guess,
        })
    }

    /// Something arrived from the server.
    pub(super) fn server_readable(&mut self, now: Instant, link: LinkId) {
        if self.rendezvous.link() != Some(link) {
            return self.side_link_readable(now, link);
        }
        while let Some(message) = self.transport.next_control(link) {
            match FromServer::decode(&message) {
                Ok(message) => self.server_message(now, message),
                // A newer server may say more than this version knows.
                Err(DecodeError::UnknownType(_)) => {}
                Err(_) => {
                    let text = "the server sent a message that cannot be decoded".to_owned();
                    let info = CloseInfo {
                        code: Code::ProtocolViolation.number(),
                        user_code: 0,
                        text: text.clone(),
                    };
                    self.close_link(now, link, info);
                    let code = Code::ProtocolViolation;
                    return self.server_link_over(now, Reason { code, text });
                }
            }
            if self.rendezvous.link() != Some(link) {
                return;
            }
        }
    }

    fn server_message(&mut self, now: Instant, message: FromServer) {
        match message {
            FromServer::Welcome {
                observed,
                stun,
                relays,
                tunnel_port,
                ..
            } => {
                self.welcomed(now, observed, stun, tunnel_port);
                self.relays_known(now, &relays);
            }
            // Nothing counts before the server has accepted this node.
            _ if !self.server_is_up() => {}
            FromServer::Introduction(introduction) => self.introduced(now, introduction),
            FromServer::OpenNatFailed {
                request, code, text, ..
            } => {
                let code = Code::from_number(code).unwrap_or(Code::Refused);
                self.open_nat_failed(now, request, Reason { code, text });
            }
            FromServer::IntroductionEnded { introduction, code } => {
                let code = Code::from_number(code).unwrap_or(Code::TargetLost);
                self.introduction_ended(now, introduction, code);
            }
            FromServer::IntroductionUpdate {
                introduction,
                facts,
                own_facts,
                permit,
                candidates,
            } => self.introduction_updated(now, introduction, (facts, own_facts, permit), candidates),
            FromServer::Forecast { introduction, forecast } => self.forecast_received(now, introduction, forecast),
            FromServer::KnownRelays { relays } => self.relays_known(now, &relays),
            FromServer::Relays(introduction) => self.relays_introduced(now, introduction),
            FromServer::RelayFailed {
                request, code, text, ..
            } => {
                let code = Code::from_number(code).unwrap_or(Code::Refused);
                self.relay_failed(now, request, code, text);
            }
        }
    }

    /// The session goes on over another link, which the server has just welcomed.
    pub(super) fn session_moves(&mut self, now: Instant, link: LinkId, welcome: FromServer) {
        let deadline = now + CONNECT_TIME;
        self.rendezvous.state = State::Greeting { link, deadline };
        if let Some(address) = self.server_links.get(&link) {
            self.paths.prove(*address, Owner::Server);
        }
        self.server_message(now, welcome);
    }

    fn welcomed(&mut self, now: Instant, seen: SocketAddr, stun: Vec<SocketAddr>, tunnel_port: u16) {
        let State::Greeting { link, .. } = self.rendezvous.state else {
            return;
        };
        self.session_has_way(now);
        // A stream shows nothing of UDP.
        let by_udp = !self.is_on_stream();
        self.rendezvous.server_address = self.server_hop().map(|(_, address)| address).filter(|_| by_udp);
        self.rendezvous.stun = stun;
        if let Some(target) = &self.rendezvous.target {
            self.tunnels.note_port(&target.host, target.port, tunnel_port);
        }
        self.timers_changed = true;
        self.view_changed = true;
        let rendezvous = &mut self.rendezvous;
        rendezvous.state = State::Up { link };
        rendezvous.observed = Some(seen).filter(|_| by_udp);
        rendezvous.seen = Some(seen);
        rendezvous.pinned = rendezvous.key;
        rendezvous.tries = 0;
        rendezvous.noticed = None;
        rendezvous.addresses.clear();
        let requests = std::mem::take(&mut rendezvous.requests);
        let reconnected = std::mem::replace(&mut rendezvous.reconnecting, false);
        self.server_is_back(self.now);
        for request in requests {
            self.raise_server_connected(request);
        }
        if reconnected && let Some(key) = self.rendezvous.key {
            self.raise(Event::ServerReconnected { key, observed: seen });
        }
        self.mapping_observed(now, reconnected);
        match self.rendezvous.observed {
            Some(observed) => self.nat_session_up(now, observed),
            None => self.nat_session_by_stream(now),
        }
    }

    /// The session's link closed.
    pub(super) fn server_link_closed(&mut self, now: Instant, reason: CloseReason) {
        if self.session_is_moving(&reason) {
            return;
        }
        let reason = server_reason(reason, matches!(self.rendezvous.state, State::Up { .. }));
        self.server_link_over(now, reason);
    }

    /// The session is given up although the server did not end it, and opened anew.
    pub(super) fn server_session_over(&mut self, now: Instant, reason: Reason) {
        let (State::Up { link } | State::Greeting { link, .. }) = self.rendezvous.state else {
            return;
        };
        let info = CloseInfo {
            code: Code::Closed.number(),
            user_code: 0,
            text: reason.text.clone(),
        };
        self.close_link(now, link, info);
        self.server_link_over(now, reason);
    }

    /// The synthetic address of the session with the server.
    pub(super) fn server_address_of_session(&self) -> Option<SyntheticAddress> {
        self.server_links.get(&self.rendezvous.link()?).copied()
    }

    fn server_link_over(&mut self, now: Instant, reason: Reason) {
        self.timers_changed = true;
        self.view_changed = true;
        if !self.server_is_up() {
            self.rendezvous.last_failure = Some(reason.clone());
            // Another address may lead to a server that is better disposed only if this one did not answer at all.
            if reason.code == Code::NoAnswer && !self.rendezvous.addresses.is_empty() {
                return self.dial_next_address(now);
            }
            return self.udp_failed(now, reason);
        }
        self.rendezvous.observed = None;
        self.rendezvous.seen = None;
        self.rendezvous.server_address = None;
        self.leave_streams(now);
        if reason.code == Code::Replaced {
            self.rendezvous.state = State::Idle;
            self.leave_server(now, "replaced");
        } else {
            self.rendezvous.reconnecting = true;
            self.wait_for_reconnect(now);
        }
        self.raise(Event::ServerLost { reason });
        self.end_asks(now);
    }

    /// No UDP address has led to the server. Silence ends nothing while streams are being tried; everything else is an answer.
    fn udp_failed(&mut self, now: Instant, reason: Reason) {
        if reason.code == Code::NoAnswer && self.streams_go_on(now) {
            self.rendezvous.state = State::Streams;
            return;
        }
        let reason = self.no_way_to_server(reason);
        self.server_attempt_failed(now, reason);
    }

    pub(super) fn server_attempt_failed(&mut self, now: Instant, reason: Reason) {
        self.timers_changed = true;
        self.leave_streams(now);
        for request in std::mem::take(&mut self.rendezvous.requests) {
            self.raise_server_failed(request, reason.clone());
        }
        if !self.rendezvous.reconnecting {
            self.rendezvous.state = State::Idle;
            return self.leave_server(now, "failed");
        }
        let expected = matches!(reason.code, Code::NoAnswer | Code::NameNotResolved);
        if !expected && self.rendezvous.noticed != Some(reason.code) {
            self.rendezvous.noticed = Some(reason.code);
            let text = format!(
                "the server cannot be reconnected ({}): {}; trying on",
                reason.code.name(),
                reason.text
            );
            self.raise(Event::Notice { text });
        }
        self.wait_for_reconnect(now);
    }

    /// Something shows that the server is there, although there is no session: it is dialled at once, not when the wait is over or QUIC repeats
    /// itself.
    pub(super) fn server_lives(&mut self, now: Instant) {
        let waits = match self.rendezvous.state {
            State::Waiting { until } => until > now,
            State::Dialling { .. } => true,
            _ => false,
        };
        let lately = self
            .rendezvous
            .hastened
            .is_some_and(|hastened| now < hastened + HASTE_INTERVAL);
        if !waits || lately || !self.rendezvous.reconnecting {
            return;
        }
        self.rendezvous.hastened = Some(now);
        self.timers_changed = true;
        if let Some(link) = self.rendezvous.link() {
            let info = CloseInfo {
                code: Code::NoAnswer.number(),
                user_code: 0,
                text: String::new(),
            };
            self.close_link(now, link, info);
        }
        self.rendezvous.addresses.clear();
        self.begin_resolving(now);
    }

    fn wait_for_reconnect(&mut self, now: Instant) {
        let wait = self.rendezvous.next_wait(self.random.next_u64());
        self.rendezvous.addresses.clear();
        self.rendezvous.state = State::Waiting { until: now + wait };
    }

    pub(super) fn rendezvous_timeout(&mut self, now: Instant) {
        if self.rendezvous.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self.rendezvous.state {
            State::Idle | State::Streams | State::Up { .. } => {}
            State::Waiting { .. } => self.begin_resolving(now),
            State::Resolving { .. } => {
                let host = self
                    .rendezvous
                    .target
                    .as_ref()
                    .map_or(String::new(), |target| target.host.clone());
                self.name_not_resolved(now, &host, "the resolver did not answer");
            }
            State::Dialling { link, .. } | State::Greeting { link, .. } => {
                let info = CloseInfo {
                    code: Code::NoAnswer.number(),
                    user_code: 0,
                    text: String::new(),
                };
                self.close_link(now, link, info);
                let text = "the server did not answer in time".to_owned();
                let code = Code::NoAnswer;
                self.server_link_over(now, Reason { code, text });
            }
        }
    }

    /// What the server should know changed.
    pub(super) fn update_server(&mut self) {
        let update = ToServer::Update {
            consent: self.accept_from,
            session_tag: self.session_tag,
            candidates: self.candidates(),
            facts: self.nat.report.facts,
            proofs: self.nat.proofs(),
            relay_policy: self.effective_relay_policy(),
        };
        self.send_to_server(&update);
    }

    /// Sends if the session stands; what the server must hear of an older session it knows by that session's end.
    pub(super) fn send_to_server(&mut self, message: &ToServer) {
        if let State::Up { link } = self.rendezvous.state {
            self.write_to_server(link, message);
        }
    }

    /// What was written to the server last is urgent.
    pub(super) fn hurry_server(&mut self, now: Instant) {
        if let State::Up { link } = self.rendezvous.state {
            self.transport.hurry(now, link);
        }
    }

    fn write_to_server(&mut self, link: LinkId, message: &ToServer) {
        self.scratch.clear();
        message.encode(&mut self.scratch);
        // Full: thousands of messages unread. The server answers none of them: requests end by their own time limits.
        let _ = self.transport.send_control(link, &self.scratch);
    }

    fn raise_server_connected(&mut self, request: RequestId) {
        let (Some(key), Some(observed)) = (self.rendezvous.key, self.rendezvous.seen) else {
            return;
        };
        let verified = self
            .rendezvous
            .target
            .as_ref()
            .is_some_and(|target| target.key == Some(key));
        if self.requests.end(request) {
            self.raise(Event::ServerConnected {
                request,
                key,
                verified,
                observed,
            });
        }
    }

    fn raise_server_failed(&mut self, request: RequestId, reason: Reason) {
        if self.requests.end(request) {
            self.raise(Event::ServerFailed { request, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_are_spread() {
        let mut rendezvous = Rendezvous::new();
        assert_eq!(rendezvous.next_wait(0), FIRST_WAIT / 2);
        assert!(rendezvous.next_wait(u64::MAX) > FIRST_WAIT);
        for _ in 0..100 {
            let wait = rendezvous.next_wait(1 << 63);
            assert!(wait <= LONGEST_WAIT);
        }
        assert_eq!(rendezvous.next_wait(0), LONGEST_WAIT / 2);
    }
}
