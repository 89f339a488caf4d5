//! The server's engine: registration, introductions, STUN, limits. No IO.
//!
//! In: datagrams of the server's sockets, time. Out: transmits; the next deadline; [`ServerCounters`].
//!
//! | part | what it does |
//! |---|---|
//! | `addresses` | real addresses and the synthetic ones that QUIC knows |
//! | `sessions` | a node's session with the server: its first message, access key, what it asks for |
//! | `registry` | who is registered, by app and guid |
//! | `introductions` | attempts that run, until both sides have said how they ended |
//! | `updates` | what becomes known while they run |
//! | `permits` | who may open many sockets or probe many ports |
//! | `cookies` | proof that a node receives at an address |
//! | `candidates` | which of a node's addresses another node is told |
//! | `introduce` | who is introduced to whom, and how, by both sides' consent and relay policy |
//! | `relays` | which relays there are, which one two nodes are offered, and the tickets for it |
//! | `relay_requests` | nodes that ask for a relay |
//! | `acquaintances` | who has been introduced to whom |
//! | `forwarding` | the server's own relay |
//! | `proxy_login` | proxy servers on other machines, as their coordinator sees them |
//! | [`proxy_server`] | the engine of such a proxy server |
//! | `proxy_password` | the password between the two |
//! | `reflector` | STUN |
//! | `limits` | how much one key, address and network may ask; all numbers |
//! | `scope` | what kind of network an address belongs to |
//!
//! Datagrams are told apart in the order of [`classify`](crate::wire::classify). On the second port only STUN is answered.
//!
//! **A node on a tunnel** (UDP is blocked where it is; [`SocketName::Tunnel`]) is a node like others, but nobody is told the address of its TCP
//! stream: no packet to it would arrive. That address counts only for whether two players share a local network.
//!
//! **A node whose address changes** (its NAT forgot the mapping, or it moved to another network) opens a new connection,
//! which replaces the old one. Packets of the old connection from the new address are dropped: to follow them, the server
//! would have to prove that they are the node's and not a copy that somebody else sent first.

mod acquaintances;
mod addresses;
mod candidates;
mod cookies;
mod forwarding;
mod introduce;
mod introductions;
mod limits;
mod permits;
mod proxy_login;
mod proxy_password;
pub mod proxy_server;
mod reflector;
mod registry;
mod relay_requests;
mod relays;
mod sessions;
mod updates;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::codes::Code;
use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::relay::RelayCounters;
use crate::relay::ticket::TicketKey;
use crate::transport::identity::Identity;
use crate::transport::{LinkKind, Origin, SyntheticAddress, Transport, TransportConfig};
use crate::wire::classify::{Context, Kind, classify};
use crate::wire::relay::{BIND_BYTE, DATA_BYTE};
use acquaintances::Acquaintances;
use addresses::AddressTable;
use cookies::Cookies;
use forwarding::Forwarding;
pub use forwarding::{OutsideRelay, RelayConfig};
use introductions::Introductions;
use limits::NodeLimits;
use proxy_login::ProxyLogins;
pub use proxy_login::ProxyNews;
use reflector::{Outcome, Reflector};
use registry::Registry;
use relays::Relays;
pub use relays::ticket_key;
use sessions::Sessions;

/// Silence after which a node is forgotten. Nodes keep their NAT's mapping alive several times in that time; most ask
/// for less themselves (the smaller of both sides counts).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Nodes keep their connection alive, not the server: thousands of timers less. This is for one that does not.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Connections beyond the registered nodes: handshakes, and nodes that have not introduced themselves yet. All players of
/// a large server come back within seconds of its restart.
const MAX_UNREGISTERED: usize = 16_384;

/// Smallest datagram that can open a QUIC connection (RFC 9000, section 14.1).
const MIN_INITIAL: usize = 1_200;

/// What a server socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSocket {
    /// Its name.
    pub name: SocketName,
    /// The address it is bound to (may be unspecified; port never 0).
    pub bound: SocketAddr,
    /// The address that others reach it at, if known (`--public`, or a specific bind).
    pub public: Option<SocketAddr>,
    /// False: the second port (STUN only).
    pub main: bool,
}

/// How to set up a [`Server`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Who the server is.
    pub identity: Arc<Identity>,
    /// Everything random in the engine comes from this.
    pub seed: [u8; 32],
    /// TLS primitives.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// Access key; empty: none wanted.
    pub access_key: String,
    /// The sockets.
    pub sockets: Vec<ServerSocket>,
    /// Most registered nodes.
    pub max_nodes: usize,
    /// Who forwards for players on these sockets.
    pub relay: RelayConfig,
    /// What proxy servers on other machines must know to log in; empty: none are taken.
    pub proxy_password: String,
    /// The present moment in milliseconds since 1970: what tickets' expiry is told in.
    pub wall_clock: u64,
    /// The TCP port at which the outside takes datagrams in TLS streams ([`crate::wire::tunnel`]), which nodes are told; 0: none. The socket of a
    /// stream is [`SocketName::Tunnel`]; its end is told by [`Server::tunnel_closed`].
    pub tunnel_port: u16,
}

/// Figures of a server, for logs, metrics and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerCounters {
    /// Nodes registered now.
    pub nodes: u64,
    /// Registrations since the start.
    pub registrations: u64,
    /// Introductions made.
    pub introductions: u64,
    /// Introductions refused, for whatever reason.
    pub introductions_refused: u64,
    /// STUN answers sent.
    pub stun_answers: u64,
    /// STUN requests over a limit.
    pub stun_limited: u64,
    /// Datagrams that were nothing we know.
    pub dropped: u64,
    /// Registrations refused, for whatever reason.
    pub registrations_refused: u64,
    /// Addresses that nodes claimed to have proven, and had not.
    pub proofs_refused: u64,
    /// Forecasts passed on.
    pub forecasts: u64,
    /// Forecasts not passed on: of no running attempt, too many, or not of the sender's own address.
    pub forecasts_refused: u64,
    /// Requests for a relay.
    pub relay_requests: u64,
    /// Those that were refused, for whatever reason.
    pub relay_requests_refused: u64,
    /// Tickets granted: two for each offer of a relay.
    pub tickets: u64,
    /// Offers that were not made because the asker had had too many.
    pub tickets_refused: u64,
    /// Reports of nodes on how far relays are.
    pub round_trip_reports: u64,
    /// Proxy servers that are logged in now.
    pub proxies: u64,
    /// Logins of proxy servers.
    pub proxy_logins: u64,
    /// Those that were refused, for whatever reason.
    pub proxy_logins_refused: u64,
    /// Proxy servers that left, or went silent.
    pub proxies_lost: u64,
    /// Figures of the relay on the server's own sockets.
    pub relay: RelayCounters,
}

/// A server.
pub struct Server {
    identity: Arc<Identity>,
    sockets: Vec<ServerSocket>,
    tunnel_port: u16,
    access_key: String,
    random: StdRng,
    transport: Transport,
    addresses: AddressTable,
    sessions: Sessions,
    registry: Registry,
    introductions: Introductions,
    reflector: Reflector,
    cookies: Cookies,
    relays: Relays,
    forwarding: Forwarding,
    acquaintances: Acquaintances,
    proxy_logins: ProxyLogins,
    registration_limits: NodeLimits,
    open_nat_limits: NodeLimits,
    relay_limits: NodeLimits,
    ticket_limits: NodeLimits,
    counters: ServerCounters,
    /// Reused for every control message that is sent.
    encoded: Vec<u8>,
    shutting_down: bool,
}

impl Server {
    /// A server without nodes.
    pub fn new(now: Instant, config: ServerConfig) -> Self {
        let mut random = StdRng::from_seed(config.seed);
        let mut transport_seed = [0; 32];
        random.fill_bytes(&mut transport_seed);
        let transport = Transport::new(TransportConfig {
            identity: config.identity.clone(),
            seed: transport_seed,
            crypto: config.crypto,
            accepts: Some(LinkKind::Server),
            lost_peer_timeout: IDLE_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            max_links: config.max_nodes.saturating_add(MAX_UNREGISTERED),
        });
        let identity = &config.identity;
        let ticket_key = TicketKey::new(&relays::ticket_key(identity, &identity.public()));
        let forwarding = Forwarding::new(now, &config.relay, ticket_key, config.wall_clock);
        let relays = Relays::new(now, identity.clone(), forwarding.is_on(), config.wall_clock);
        let mut cookie_secret = [0; 32];
        random.fill_bytes(&mut cookie_secret);
        let cookies = Cookies::new(now, &cookie_secret);
        let mut pair_secret = [0; 32];
        random.fill_bytes(&mut pair_secret);
        Self {
            reflector: Reflector::new(config.sockets.clone(), cookies.clone()),
            cookies,
            relays,
            forwarding,
            acquaintances: Acquaintances::new(&pair_secret),
            proxy_logins: ProxyLogins::new(config.proxy_password),
            identity: config.identity,
            sockets: config.sockets,
            tunnel_port: config.tunnel_port,
            access_key: config.access_key,
            random,
            transport,
            addresses: AddressTable::default(),
            sessions: Sessions::default(),
            registry: Registry::new(config.max_nodes),
            introductions: Introductions::default(),
            registration_limits: NodeLimits::registrations(),
            open_nat_limits: NodeLimits::open_nat(),
            relay_limits: NodeLimits::relay_requests(),
            ticket_limits: NodeLimits::tickets(),
            counters: ServerCounters::default(),
            encoded: Vec::new(),
            shutting_down: false,
        }
    }

    /// Figures since the start.
    pub fn counters(&self) -> ServerCounters {
        let transport = self.transport.counters();
        ServerCounters {
            nodes: self.registry.len() as u64,
            proxies: self.relays.proxies() as u64,
            relay: self.forwarding.counters(),
            dropped: self.counters.dropped + transport.unknown_connection + transport.malformed,
            ..self.counters
        }
    }

    /// Closes every session (code CLOSED) and takes no new ones; drain transmits afterwards.
    pub fn shut_down(&mut self, now: Instant) {
        self.shutting_down = true;
        self.close_all(now, Code::Closed, "the server is shutting down");
        let proxies: Vec<_> = self.proxy_logins.links().collect();
        for link in proxies {
            self.close_proxy(now, link, (Code::Closed, "the coordinator is shutting down"));
        }
        self.handle_links(now);
    }

    /// A stream of that number is gone, and with it everybody who came by it: a closed stream says what silence says of UDP, only sooner.
    pub fn tunnel_closed(&mut self, now: Instant, number: u32) {
        let addresses = self.addresses.linked_at(SocketName::Tunnel(number));
        self.close_links_of(now, &addresses);
        self.handle_links(now);
    }

    /// The synthetic address for a QUIC packet, a fresh one if the packet may be of a connection that is new here.
    fn synthetic_address(&mut self, now: Instant, datagram: &Datagram, kind: Kind) -> Option<SyntheticAddress> {
        if let Some(known) = self.addresses.heard(now, datagram.socket, datagram.source) {
            return Some(known);
        }
        // From an unknown address a connection can be opened, by a full-sized Initial, but not go on.
        if kind != Kind::QuicLong || datagram.contents.len() < MIN_INITIAL {
            return None;
        }
        let fresh = self.transport.address_of(datagram.socket, datagram.source);
        self.addresses
            .insert(now, (datagram.socket, datagram.source), datagram.destination_ip, fresh);
        Some(fresh)
    }

    fn handle_quic(&mut self, now: Instant, datagram: Datagram, kind: Kind) {
        let main = is_tunnel(datagram.socket)
            || self
                .sockets
                .iter()
                .any(|socket| socket.name == datagram.socket && socket.main);
        let address = if main {
            self.synthetic_address(now, &datagram, kind)
        } else {
            None
        };
        match address {
            Some(address) => {
                let origin = Origin {
                    trusted: false,
                    ip: Some(datagram.source.ip()),
                    shared: false,
                };
                self.transport
                    .handle_datagram_from(now, address, origin, datagram.ecn, datagram.contents);
            }
            None => self.counters.dropped += 1,
        }
    }
}

/// A TLS stream. Its address is a TCP one: it says nothing of what the node's UDP socket looks like from outside.
fn is_tunnel(socket: SocketName) -> bool {
    matches!(socket, SocketName::Tunnel(_))
}

impl Engine for Server {
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
            kind @ (Kind::QuicLong | Kind::QuicShort) => {
                self.handle_quic(now, datagram, kind);
                self.handle_links(now);
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
        self.addresses.handle_timeout(now);
        self.introductions.handle_timeout(now);
        self.forwarding.handle_timeout(now);
        self.close_silent(now);
        self.proxies_timeout(now);
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
            // An address that was forgotten: a handshake that strangers pushed out of the table.
            let Some((socket, destination)) = self.addresses.real(address) else {
                buffer.clear();
                continue;
            };
            let size = buffer.len();
            return Some(Transmit {
                socket,
                destination,
                ecn,
                size,
                segment_size,
                time_to_live: None,
            });
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let deadlines = [
            self.transport.poll_timeout(),
            self.addresses.poll_timeout(),
            self.introductions.poll_timeout(),
            self.sessions.poll_timeout(),
            self.proxy_logins.poll_timeout(),
            self.forwarding.poll_timeout(),
        ];
        deadlines.into_iter().flatten().min()
    }
}
