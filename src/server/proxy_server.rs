//! The engine of a proxy server on a machine of its own (`lanline serve --relay-only`): relays for the players of a coordinator. No IO.
//!
//! In: datagrams of its sockets, the coordinator's addresses, time. Out: transmits; the next deadline; [`ProxyServerNews`] for the log;
//! [`ProxyServerCounters`].
//!
//! It logs in to the coordinator ([`crate::wire::proxy`]) from its main socket, so that the coordinator sees the address that players are to use, and is
//! handed the key that seals tickets. From then on it relays, answers STUN (by which players measure how far it is), and tells the
//! coordinator how full it is. Nobody registers here.
//!
//! **Without its coordinator** it goes on for the pairs that it has, and for those who come back with a ticket of the same coordinator. It tries to
//! log in again after a moment, ever less often. One that restarts has the same ticket key after its login: the coordinator makes it from its
//! own identity and this server's.
//!
//! **Trust.** The coordinator is whoever knows the password; its key is not known before. Somebody in its place who does not know it gets a proof that
//! tells whether one guess was right, once for each login.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::ServerSocket;
use super::cookies::Cookies;
use super::forwarding::{Forwarding, RelayConfig};
use super::proxy_password::{Begun, Between, Proofs, Side, begin};
use super::reflector::{Outcome, Reflector};
use crate::codes::Code;
use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::relay::RelayCounters;
use crate::relay::ticket::TicketKey;
use crate::scope::{Scope, scope};
use crate::transport::identity::{Identity, PublicKey};
use crate::transport::{
    CloseInfo, CloseReason, LinkEvent, LinkId, LinkKind, SyntheticAddress, Transport, TransportConfig,
};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::classify::{Context, Kind, classify};
use crate::wire::proxy::{LOGIN_EXPORTER_LABEL, MAX_PROXY_ADDRESSES, ToCoordinator, ToProxy};
use crate::wire::relay::{BIND_BYTE, DATA_BYTE};

/// Silence after which either side holds the other for lost: players are offered another relay within that.
pub const SILENCE: Duration = Duration::from_secs(4);
/// Several keep-alives may get lost within [`SILENCE`].
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a login may take after the handshake.
const LOGIN_TIME: Duration = Duration::from_secs(5);
/// How often the coordinator is told how full this server is, if that has changed.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before the first new try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a coordinator that comes back has its proxy servers within that.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// News that wait for the log.
const MAX_NEWS: usize = 64;

/// How to set up a [`ProxyServer`].
#[derive(Debug, Clone)]
pub struct ProxyServerConfig {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Everything random in the engine comes from this.
    pub seed: [u8; 32],
    /// TLS primitives.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// The sockets.
    pub sockets: Vec<ServerSocket>,
    /// Who forwards on these sockets.
    pub relay: RelayConfig,
    /// What the coordinator wants to be shown.
    pub password: String,
    /// The coordinator's addresses, as far as they are known; see [`ProxyServer::set_coordinator`].
    pub coordinator: Vec<SocketAddr>,
}

/// What an administrator wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyServerNews {
    /// The coordinator's name is to be resolved (again), and [`ProxyServer::set_coordinator`] called. The next try is not before that moment.
    WantsAddress,
    /// Logged in.
    Admitted {
        /// Where the coordinator is.
        coordinator: SocketAddr,
        /// Its key.
        key: PublicKey,
        /// This server's address as the coordinator sees it.
        observed: SocketAddr,
    },
    /// Not logged in.
    Failed {
        /// Where the coordinator is, if an address is known.
        coordinator: Option<SocketAddr>,
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
        /// When the next try is made.
        pause: Duration,
    },
    /// The coordinator is gone. Pairs that stand go on.
    Lost {
        /// Where it was.
        coordinator: SocketAddr,
        /// Why, in words.
        reason: String,
        /// When the next try is made.
        pause: Duration,
    },
}

/// Figures, for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProxyServerCounters {
    /// It is logged in now.
    pub admitted: bool,
    /// Logins that were tried.
    pub tries: u64,
    /// Logins that worked.
    pub logins: u64,
    /// STUN answers sent.
    pub stun_answers: u64,
    /// STUN requests over a limit.
    pub stun_limited: u64,
    /// Datagrams that were nothing we know.
    pub dropped: u64,
    /// Figures of the relay.
    pub relay: RelayCounters,
}

enum Stage {
    /// The handshake runs.
    Dialling,
    /// This side's share is sent.
    Begun(Box<Begun>),
    /// This side's proof is sent.
    Proven(Box<Proofs>),
    /// Logged in.
    Admitted,
}

/// The connection to the coordinator.
struct Session {
    link: LinkId,
    socket: SocketName,
    coordinator: SocketAddr,
    address: SyntheticAddress,
    stage: Stage,
    /// By when the login must be done; then when the load is told next.
    due: Option<Instant>,
    /// As it was told last.
    load: (u64, u64),
    /// Why this side gave up.
    failure: Option<(Code, &'static str)>,
}

/// A proxy server.
pub struct ProxyServer {
    identity: Arc<Identity>,
    sockets: Vec<ServerSocket>,
    password: String,
    random: StdRng,
    transport: Transport,
    reflector: Reflector,
    relay: RelayConfig,
    /// Nobody, before the first login.
    forwarding: Forwarding,
    ticket_key: Option<[u8; 32]>,
    coordinator: Vec<SocketAddr>,
    session: Option<Session>,
    /// Where the last one's goodbye goes.
    leaving: Option<(SyntheticAddress, SocketName, SocketAddr)>,
    /// When the next try is made.
    next_try: Option<Instant>,
    pause: Duration,
    tries: usize,
    news: Vec<ProxyServerNews>,
    counters: ProxyServerCounters,
    encoded: Vec<u8>,
    shutting_down: bool,
}

impl ProxyServer {
    /// One that is about to log in.
    pub fn new(now: Instant, config: ProxyServerConfig) -> Self {
        let mut random = StdRng::from_seed(config.seed);
        let (mut transport_seed, mut cookie_secret) = ([0; 32], [0; 32]);
        random.fill_bytes(&mut transport_seed);
        random.fill_bytes(&mut cookie_secret);
        let transport = Transport::new(TransportConfig {
            identity: config.identity.clone(),
            seed: transport_seed,
            crypto: config.crypto,
            accepts: None,
            lost_peer_timeout: SILENCE,
            keep_alive: KEEP_ALIVE,
            // The coordinator's, and one that is being closed.
            max_links: 2,
        });
        // Cookies are the coordinator's business; nobody shows these to anybody.
        let cookies = Cookies::new(now, &cookie_secret);
        Self {
            identity: config.identity,
            reflector: Reflector::new(config.sockets.clone(), cookies),
            sockets: config.sockets,
            password: config.password,
            random,
            transport,
            relay: config.relay,
            forwarding: Forwarding::Off,
            ticket_key: None,
            next_try: (!config.coordinator.is_empty()).then_some(now),
            coordinator: config.coordinator,
            session: None,
            leaving: None,
            pause: FIRST_PAUSE,
            tries: 0,
            news: Vec::new(),
            counters: ProxyServerCounters::default(),
            encoded: Vec::new(),
            shutting_down: false,
        }
    }

    /// Where the coordinator is now. The next try goes there; one that runs is not disturbed. The first one waits for this.
    pub fn set_coordinator(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        self.coordinator = addresses;
        if self.counters.tries == 0 && self.session.is_none() && !self.shutting_down {
            self.next_try = Some(now);
        }
    }

    /// The next thing for the log.
    pub fn poll_news(&mut self) -> Option<ProxyServerNews> {
        (!self.news.is_empty()).then(|| self.news.remove(0))
    }

    /// Figures since the start.
    pub fn counters(&self) -> ProxyServerCounters {
        let transport = self.transport.counters();
        let admitted = self.session.as_ref();
        ProxyServerCounters {
            admitted: admitted.is_some_and(|session| matches!(session.stage, Stage::Admitted)),
            dropped: self.counters.dropped + transport.unknown_connection + transport.malformed,
            relay: self.forwarding.counters(),
            ..self.counters
        }
    }

    /// Takes its leave of the coordinator; drain transmits afterwards.
    pub fn shut_down(&mut self, now: Instant) {
        self.shutting_down = true;
        self.next_try = None;
        if let Some(session) = &self.session {
            let info = CloseInfo {
                code: Code::Closed.number(),
                user_code: 0,
                text: "the proxy server is shutting down".to_owned(),
            };
            self.transport.close(now, session.link, info);
        }
        self.handle_links(now);
    }

    fn tell_outside(&mut self, news: ProxyServerNews) {
        if self.news.len() >= MAX_NEWS {
            self.news.remove(0);
        }
        self.news.push(news);
    }

    /// Dials the coordinator, at its addresses in turn.
    fn try_coordinator(&mut self, now: Instant) {
        let reachable: Vec<(SocketName, SocketAddr)> = self
            .coordinator
            .iter()
            .filter_map(|address| Some((self.socket_for(*address)?, *address)))
            .collect();
        self.counters.tries += 1;
        let Some((socket, coordinator)) = reachable.get(self.tries % reachable.len().max(1)).copied() else {
            let reason = match self.coordinator.is_empty() {
                true => "no address of the coordinator is known",
                false => "no socket of this server reaches the coordinator's addresses",
            };
            return self.failed(now, None, (Code::NameNotResolved, reason.to_owned()));
        };
        self.tries += 1;
        let address = self.transport.new_address();
        let link = self.transport.connect(now, address, LinkKind::Proxy, None, None);
        self.session = Some(Session {
            link,
            socket,
            coordinator,
            address,
            stage: Stage::Dialling,
            due: None,
            load: (0, 0),
            failure: None,
        });
    }

    fn socket_for(&self, address: SocketAddr) -> Option<SocketName> {
        let fits = |socket: &&ServerSocket| socket.main && socket.bound.is_ipv4() == address.is_ipv4();
        self.sockets.iter().find(fits).map(|socket| socket.name)
    }

    fn failed(&mut self, now: Instant, coordinator: Option<SocketAddr>, (code, reason): (Code, String)) {
        let pause = self.try_later(now);
        self.tell_outside(ProxyServerNews::Failed {
            coordinator,
            code,
            reason,
            pause,
        });
    }

    fn try_later(&mut self, now: Instant) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        if !self.shutting_down {
            self.next_try = Some(now + pause);
            self.tell_outside(ProxyServerNews::WantsAddress);
        }
        pause
    }

    fn handle_links(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                LinkEvent::Connected { link, key, .. } if self.is_current(link) => self.connected(now, link, key),
                LinkEvent::Readable { link } if self.is_current(link) => self.read(now, link),
                LinkEvent::Closed { link, reason } => {
                    self.transport.forget(link);
                    if self.is_current(link) {
                        self.closed(now, reason);
                    }
                }
                _ => {}
            }
        }
    }

    fn is_current(&self, link: LinkId) -> bool {
        self.session.as_ref().is_some_and(|session| session.link == link)
    }

    fn connected(&mut self, now: Instant, link: LinkId, key: PublicKey) {
        let Some(exported) = self.transport.export_keying_material(link, LOGIN_EXPORTER_LABEL) else {
            return self.give_up(now, (Code::Internal, "TLS exports nothing"));
        };
        let between = Between {
            exported,
            proxy: self.identity.public(),
            coordinator: key,
        };
        let (begun, share) = begin(Side::Proxy, &self.password, between, &mut self.random);
        if let Some(session) = &mut self.session {
            session.stage = Stage::Begun(Box::new(begun));
            session.due = Some(now + LOGIN_TIME);
        }
        let protocol = PROTOCOL_VERSION;
        self.say(&ToCoordinator::Login { protocol, share });
    }

    fn say(&mut self, message: &ToCoordinator) {
        if let Some(session) = &self.session {
            self.encoded.clear();
            message.encode(&mut self.encoded);
            // One that does not read any more is lost soon.
            let _ = self.transport.send_control(session.link, &self.encoded);
        }
    }

    fn way_of(&self, address: SyntheticAddress) -> Option<(SocketName, SocketAddr)> {
        let session = self.session.as_ref();
        let ways = session.map(|session| (session.address, session.socket, session.coordinator));
        let found = ways.into_iter().chain(self.leaving).find(|way| way.0 == address);
        found.map(|(_, socket, coordinator)| (socket, coordinator))
    }

    fn give_up(&mut self, now: Instant, (code, text): (Code, &'static str)) {
        if let Some(session) = &mut self.session {
            session.failure = Some((code, text));
            let info = CloseInfo {
                code: code.number(),
                user_code: 0,
                text: text.to_owned(),
            };
            self.transport.close(now, session.link, info);
        }
    }

    fn read(&mut self, now: Instant, link: LinkId) {
        while let Some(message) = self.transport.next_control(link) {
            let Some(session) = self.session.as_mut().filter(|session| session.failure.is_none()) else {
                return;
            };
            let stage = std::mem::replace(&mut session.stage, Stage::Dialling);
            match (stage, ToProxy::decode(&message)) {
                (Stage::Begun(begun), Ok(ToProxy::Share { share })) => match begun.finish(&share) {
                    Some(proofs) => self.prove(proofs),
                    None => {
                        return self.give_up(now, (Code::ProtocolViolation, "the coordinator sent a malformed share"));
                    }
                },
                (Stage::Proven(proofs), Ok(message @ ToProxy::Admitted { .. })) => self.admitted(now, &proofs, message),
                (Stage::Admitted, _) => session.stage = Stage::Admitted,
                _ => return self.give_up(now, (Code::ProtocolViolation, "the coordinator sent what is no answer")),
            }
        }
    }

    fn prove(&mut self, proofs: Proofs) {
        let load = self.load();
        let message = ToCoordinator::Proof {
            proof: proofs.prove(Side::Proxy),
            addresses: self.addresses(),
            sessions: load.0,
            room: load.1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        if let Some(session) = &mut self.session {
            session.load = load;
            session.stage = Stage::Proven(Box::new(proofs));
        }
        self.say(&message);
    }

    /// Where players may reach this server: what its administrator named, else its own global addresses.
    fn addresses(&self) -> Vec<SocketAddr> {
        let main = self.sockets.iter().filter(|socket| socket.main);
        let named = main.clone().filter_map(|socket| socket.public);
        let own = main
            .map(|socket| socket.bound)
            .filter(|bound| !bound.ip().is_unspecified() && scope(bound.ip()) != Scope::Unusable);
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in named.chain(own) {
            if addresses.len() < MAX_PROXY_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn load(&self) -> (u64, u64) {
        match (&self.forwarding, &self.relay) {
            // Not begun: as much room as there will be.
            (Forwarding::Off, RelayConfig::Own(limits)) => (0, limits.max_sessions as u64),
            (Forwarding::Off, RelayConfig::Outside(outside)) => (outside.counters().sessions, outside.max_sessions()),
            (forwarding, _) => (forwarding.counters().sessions, forwarding.max_sessions()),
        }
    }

    fn admitted(&mut self, now: Instant, proofs: &Proofs, message: ToProxy) {
        let ToProxy::Admitted {
            proof,
            ticket_key,
            ticket_time,
            observed,
        } = message
        else {
            return;
        };
        if !proofs.verify(Side::Coordinator, &proof) {
            let text = "the coordinator does not know the password";
            return self.give_up(now, (Code::WrongAccessKey, text));
        }
        let key = proofs.coordinator();
        // The same coordinator again: the pairs that stand are not touched.
        if self.ticket_key != Some(ticket_key) {
            self.ticket_key = Some(ticket_key);
            self.forwarding = Forwarding::new(now, &self.relay, TicketKey::new(&ticket_key), ticket_time);
        }
        self.counters.logins += 1;
        self.pause = FIRST_PAUSE;
        if let Some(session) = &mut self.session {
            session.stage = Stage::Admitted;
            session.due = Some(now + LOAD_INTERVAL);
            let coordinator = session.coordinator;
            self.tell_outside(ProxyServerNews::Admitted {
                coordinator,
                key,
                observed,
            });
        }
    }

    fn closed(&mut self, now: Instant, reason: CloseReason) {
        let Some(session) = self.session.take() else { return };
        let coordinator = session.coordinator;
        self.leaving = Some((session.address, session.socket, coordinator));
        let (code, words) = match (session.failure, reason) {
            (Some((code, text)), _) => (code, text.to_owned()),
            (None, CloseReason::Remote(info)) => {
                let code = Code::from_number(info.code).unwrap_or(Code::Refused);
                (code, info.text)
            }
            (None, CloseReason::NoAnswer) => (Code::NoAnswer, "no answer".to_owned()),
            (None, CloseReason::TimedOut) => (Code::Lost, "it is silent".to_owned()),
            (None, CloseReason::Incompatible) => {
                let text = "it takes no proxy servers, or speaks another version of the protocol";
                (Code::Incompatible, text.to_owned())
            }
            (None, CloseReason::Local) => (Code::Closed, "this server ends".to_owned()),
            (None, other) => (Code::ProtocolViolation, format!("{other:?}")),
        };
        if matches!(session.stage, Stage::Admitted) {
            let pause = self.try_later(now);
            self.tell_outside(ProxyServerNews::Lost {
                coordinator,
                reason: words,
                pause,
            });
        } else {
            if code == Code::WrongAccessKey {
                // Every try is a guess that the coordinator counts, and does not get better.
                self.pause = LONGEST_PAUSE;
            }
            self.failed(now, Some(coordinator), (code, words));
        }
    }

    /// The login's time is over, or the coordinator is to hear how full this server is.
    fn session_due(&mut self, now: Instant) {
        let load = self.load();
        let Some(session) = &mut self.session else { return };
        if session.due.is_none_or(|due| due > now) {
            return;
        }
        if !matches!(session.stage, Stage::Admitted) {
            session.due = None;
            return self.give_up(now, (Code::Timeout, "the login took too long"));
        }
        session.due = Some(now + LOAD_INTERVAL);
        // Also when it is the same: the coordinator counts the tickets since the last one, and those that nobody used must not fill this relay.
        session.load = load;
        let (sessions, room) = load;
        self.say(&ToCoordinator::Load { sessions, room });
    }
}

impl Engine for ProxyServer {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        let context = Context {
            source_is_gate_peer: false,
            gate_role_active: false,
            knows_connection_id: |_: &[u8]| self.transport.knows_connection_id(&datagram.contents),
        };
        match classify(&datagram.contents, context) {
            Kind::Stun => match self.reflector.handle(now, &datagram) {
                Outcome::Answered => self.counters.stun_answers += 1,
                Outcome::Limited => self.counters.stun_limited += 1,
                Outcome::Invalid => self.counters.dropped += 1,
            },
            Kind::QuicLong | Kind::QuicShort => {
                let session = self.session.as_ref();
                match session.filter(|session| session.coordinator == datagram.source) {
                    Some(session) => {
                        let address = session.address;
                        self.transport
                            .handle_datagram(now, address, datagram.ecn, datagram.contents);
                        self.handle_links(now);
                    }
                    None => self.counters.dropped += 1,
                }
            }
            Kind::OwnFrame(BIND_BYTE | DATA_BYTE) => {
                if !self.forwarding.handle(now, datagram) {
                    self.counters.dropped += 1;
                }
            }
            Kind::OwnFrame(_) | Kind::Gate | Kind::GateRaw | Kind::Unknown => self.counters.dropped += 1,
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        self.handle_links(now);
        self.forwarding.handle_timeout(now);
        if self.next_try.is_some_and(|at| at <= now) {
            self.next_try = None;
            self.try_coordinator(now);
        }
        self.session_due(now);
        self.handle_links(now);
    }

    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self.forwarding.poll_transmit(buffer) {
            return Some(transmit);
        }
        if let Some(transmit) = self.reflector.poll_transmit(buffer) {
            return Some(transmit);
        }
        loop {
            let (address, ecn, segment_size) = self.transport.poll_transmit(now, buffer)?;
            let Some(way) = self.way_of(address) else {
                buffer.clear();
                continue;
            };
            return Some(Transmit {
                socket: way.0,
                destination: way.1,
                ecn,
                size: buffer.len(),
                segment_size,
                time_to_live: None,
            });
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let due = self.session.as_ref().and_then(|session| session.due);
        let deadlines = [
            self.transport.poll_timeout(),
            self.forwarding.poll_timeout(),
            self.next_try,
            due,
        ];
        deadlines.into_iter().flatten().min()
    }
}
