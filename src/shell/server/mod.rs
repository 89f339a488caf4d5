//! The server's shell: opens what `lanline serve` listens on, keeps the identity, runs the engine.
//!
//! One thread, one loop ([`Shell::run`]): wait until a socket is readable, the engine's deadline has come or the program
//! is to end; hand everything that has arrived to the engine; send what it has to send. Timers are the runtime's, which
//! are good to a millisecond: nothing in a server needs more.
//!
//! Relay frames go past this loop: [`forwarder`](crate::shell::forwarder)'s threads pass them on.

mod engines;
mod identity;
mod own_addresses;
mod return_addresses;
mod sockets;
pub mod tunnel;

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::relay::{RelayLimits, Way};
use crate::server::proxy_server::{ProxyServer, ProxyServerConfig};
use crate::server::{RelayConfig, Server, ServerConfig, ServerSocket};
use crate::shell::forwarder::{Forwarder, ForwarderConfig, ForwarderCounters, Handed};
use crate::shell::udp::{ReceiveBuffer, SendOutcome, UdpSocket};
use crate::transport::identity::{Identity, PublicKey};
use crate::transport::tunnel_tls;
use crate::wire::unmapped;
use engines::{Coordinator, Counters, Engines};
use return_addresses::ReturnAddresses;
use rustls::crypto::CryptoProvider;
use sockets::Role;
use tunnel::Tunnels;

/// Batches that are taken from one socket before what they caused is sent and the others have their turn.
const BATCHES_A_TURN: usize = 8;

/// How long a full socket may hold up the loop before the datagram is dropped (QUIC repeats it).
const BLOCKED_TIME: Duration = Duration::from_millis(10);

/// How long the goodbyes to all nodes may take at the end.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// How often figures are logged (level `debug`).
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What `lanline serve` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses to listen on; empty: all, IPv4 and, if the machine has it, IPv6.
    pub listen: Vec<IpAddr>,
    /// The main port; 0: any free one.
    pub port: u16,
    /// The second port, for NAT behaviour discovery; 0: any free one. `None`: 61112, or another one if that is taken.
    pub alt_port: Option<u16>,
    /// Addresses under which the server is reached from outside; the first of each family counts, or, if there are as many as
    /// listen addresses of the family, each for one of these.
    pub public: Vec<IpAddr>,
    /// Where the identity is kept; `None`: the platform's data folder.
    pub data: Option<PathBuf>,
    /// Access key; empty: none wanted.
    pub access_key: String,
    /// Most registered nodes.
    pub max_nodes: usize,
    /// Relay for players who cannot connect directly.
    pub relay: bool,
    /// What proxy servers on other machines must know to log in; empty: none are taken. Of a proxy server: what it shows.
    pub password: String,
    /// Only relay, for the server of that name (HOST:PORT).
    pub join: Option<String>,
    /// Threads that pass relay frames on; `None`: as many as processors, at most [`MAX_SHARDS`](crate::shell::forwarder::MAX_SHARDS).
    pub relay_threads: Option<usize>,
    /// TCP port for nodes without UDP, on the same addresses; 0: any free one. `None`: there is none.
    pub tls_port: Option<u16>,
}

/// Why a server cannot start: one line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A server with its sockets.
pub struct Shell {
    engine: Engines,
    coordinator: Option<Coordinator>,
    sockets: Vec<UdpSocket>,
    /// TLS streams, if there is a port for them.
    tunnels: Option<Tunnels>,
    /// Each socket for itself, in their order, then the addresses that some stand for.
    roles: Vec<Role>,
    key: PublicKey,
    received: ReceiveBuffer,
    datagrams: Vec<Datagram>,
    payload: Vec<u8>,
    return_addresses: ReturnAddresses,
    blocked_drops: u64,
    forwarder: Option<Forwarder>,
    reported: (Instant, Counters, ForwarderCounters),
}

/// What ended a wait.
enum Wake {
    Stop,
    Work,
    /// The coordinator's name leads there.
    Resolved(Vec<SocketAddr>),
}

impl Shell {
    /// Opens everything. Must be called inside a tokio runtime with IO and time.
    pub fn open(options: &Options) -> Result<Self, StartError> {
        let file = match options.join {
            None => identity::SERVER,
            Some(_) => identity::PROXY,
        };
        let identity = Arc::new(identity::load_or_create(options.data.as_deref(), file)?);
        let (sockets, roles) = sockets::open(options)?;
        let crypto = Arc::new(crate::shell::crypto::provider());
        let tunnels = open_tunnels(options, &identity, &crypto)?;
        let mut seed = [0; 32];
        SysRng
            .try_fill_bytes(&mut seed)
            .map_err(|error| StartError(format!("the system gives no random numbers: {error}")))?;
        let now = Instant::now();
        let forwarder = match options.relay {
            true => start_forwarder(options, &sockets, &roles),
            false => None,
        };
        let relay = match &forwarder {
            _ if !options.relay => RelayConfig::Off,
            Some(forwarder) => RelayConfig::Outside(Arc::new(forwarder.relay())),
            None => RelayConfig::Own(RelayLimits::default()),
        };
        let open = Opened {
            identity: identity.clone(),
            seed,
            crypto,
            sockets: roles.iter().map(|role| role.socket).collect(),
            relay,
            tunnel_port: tunnels.as_ref().map_or(0, |tunnels| tunnels.addresses()[0].port()),
        };
        let engine = engine(now, options, open);
        let reported = (now, engine.counters(), ForwarderCounters::default());
        let coordinator = options.join.clone().map(|name| {
            let mut coordinator = Coordinator::new(name);
            coordinator.resolve();
            coordinator
        });
        Ok(Self {
            engine,
            coordinator,
            sockets,
            tunnels,
            roles,
            key: identity.public(),
            received: ReceiveBuffer::new(),
            datagrams: Vec::new(),
            payload: Vec::new(),
            return_addresses: ReturnAddresses::default(),
            blocked_drops: 0,
            forwarder,
            reported,
        })
    }

    /// The server's key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The addresses of the main port (`true`) or the second port (`false`), as bound.
    pub fn addresses(&self, main: bool) -> Vec<SocketAddr> {
        self.roles
            .iter()
            .filter(|role| role.socket.main == main && role.ip.is_none())
            .map(|role| role.socket.bound)
            .collect()
    }

    /// Where it takes TLS streams.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        self.tunnels.as_ref().map_or(&[], Tunnels::addresses)
    }

    /// Of the sockets that are bound to all addresses, those that the server knows by name: STUN goes by them.
    pub fn known_addresses(&self) -> Vec<IpAddr> {
        self.roles
            .iter()
            .filter(|role| role.socket.main)
            .filter_map(|role| role.ip)
            .collect()
    }

    /// Runs until `stop` is ready, then closes every session.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            self.send_all().await;
            match self.wait(stop.as_mut()).await {
                Wake::Stop => break,
                Wake::Resolved(addresses) => self.coordinator_resolved(addresses),
                Wake::Work => {}
            }
            self.receive();
            self.handle_due();
            self.log_news();
            self.report();
        }
        self.engine.shut_down(Instant::now());
        let goodbyes = async {
            self.send_all().await;
            if let Some(tunnels) = &self.tunnels {
                tunnels.close().await;
            }
        };
        if tokio::time::timeout(GOODBYE_TIME, goodbyes).await.is_err() {
            tracing::warn!("not every node could be told that the server ends");
        }
    }

    /// Waits for a readable socket, the engine's deadline, or the end.
    async fn wait(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Wake {
        // Without a deadline only the report is due some time.
        let deadline = self
            .engine
            .poll_timeout()
            .unwrap_or_else(|| Instant::now() + REPORT_INTERVAL);
        let mut timer = pin!(tokio::time::sleep_until(deadline.into()));
        let mut handed = pin!(async {
            match &self.forwarder {
                Some(forwarder) => forwarder.ready().await,
                None => pending().await,
            }
        });
        poll_fn(|context| {
            if stop.as_mut().poll(context).is_ready() {
                return Poll::Ready(Wake::Stop);
            }
            if let Some(coordinator) = &mut self.coordinator
                && let Poll::Ready(addresses) = coordinator.poll_resolved(context)
            {
                return Poll::Ready(Wake::Resolved(addresses));
            }
            // Every socket is asked, so that each one wakes the next wait.
            let mut ready = timer.as_mut().poll(context).is_ready() | handed.as_mut().poll(context).is_ready();
            for socket in &self.sockets {
                ready |= socket.poll_readable(context).is_ready();
            }
            if let Some(tunnels) = &mut self.tunnels {
                ready |= tunnels.poll_ready(context).is_ready();
            }
            if ready { Poll::Ready(Wake::Work) } else { Poll::Pending }
        })
        .await
    }

    /// Hands what has arrived to the engine.
    fn receive(&mut self) {
        for socket in &mut self.sockets {
            for _ in 0..BATCHES_A_TURN {
                if socket.receive(&mut self.received, &mut self.datagrams) == 0 {
                    break;
                }
            }
        }
        if let Some(forwarder) = &self.forwarder {
            // What the system coalesced with datagrams of this loop.
            let roles = &self.roles;
            self.datagrams.retain(|datagram| {
                // As the forwarder's own sockets tell it: where there is only one address, nobody asks.
                let on_all =
                    |role: &Role| role.socket.name == datagram.socket && role.socket.bound.ip().is_unspecified();
                let way = Way {
                    socket: datagram.socket,
                    address: datagram.source,
                    local_ip: datagram.destination_ip.filter(|_| roles.iter().any(on_all)),
                };
                !forwarder.hand_in(way, &datagram.contents)
            });
            take_handed(forwarder, self.tunnels.as_ref(), &mut self.datagrams);
        }
        let now = Instant::now();
        for mut datagram in self.datagrams.drain(..) {
            match named_role(&self.roles, &datagram) {
                Some(role) => datagram.socket = role.socket.name,
                None => self.return_addresses.note(datagram.source, datagram.destination_ip),
            }
            self.engine.handle_datagram(now, datagram);
        }
        if let Some(tunnels) = &mut self.tunnels {
            for datagram in tunnels.receive() {
                let way = Way {
                    socket: datagram.socket,
                    address: datagram.source,
                    local_ip: None,
                };
                let forwarder = self.forwarder.as_ref();
                if !forwarder.is_some_and(|forwarder| forwarder.hand_in(way, &datagram.contents)) {
                    self.engine.handle_datagram(now, datagram);
                }
            }
            for number in tunnels.take_ended() {
                self.engine.tunnel_closed(now, number);
            }
        }
    }

    fn coordinator_resolved(&mut self, addresses: Vec<SocketAddr>) {
        if let Engines::Proxy(proxy) = &mut self.engine {
            let addresses = addresses.into_iter().map(unmapped);
            proxy.set_coordinator(Instant::now(), addresses.collect());
        }
    }

    fn log_news(&mut self) {
        if self.engine.log_news()
            && let Some(coordinator) = &mut self.coordinator
        {
            coordinator.resolve();
        }
    }

    fn handle_due(&mut self) {
        let now = Instant::now();
        if self.engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.engine.handle_timeout(now);
        }
    }

    /// Sends everything that the engine has to send.
    async fn send_all(&mut self) {
        let now = Instant::now();
        loop {
            self.payload.clear();
            let Some(transmit) = self.engine.poll_transmit(now, &mut self.payload) else {
                return;
            };
            self.send(&transmit).await;
        }
    }

    async fn send(&mut self, transmit: &Transmit) {
        if let (SocketName::Tunnel(number), Some(tunnels)) = (transmit.socket, &self.tunnels) {
            let payload = &self.payload[..transmit.size.min(self.payload.len())];
            return tunnels.send(number, payload, transmit.segment_size);
        }
        let Some(role) = self.roles.iter().find(|role| role.socket.name == transmit.socket) else {
            return;
        };
        let source_ip = match role.socket.bound.ip().is_unspecified() {
            true => self.return_addresses.for_destination(transmit.destination),
            false => role.ip,
        };
        let socket = &mut self.sockets[role.place];
        let mut rest = &self.payload[..transmit.size.min(self.payload.len())];
        while let SendOutcome::Blocked { sent } = socket.send(transmit, rest, source_ip) {
            rest = &rest[sent..];
            let writable = poll_fn(|context| socket.poll_writable(context));
            if !matches!(tokio::time::timeout(BLOCKED_TIME, writable).await, Ok(Ok(()))) {
                self.blocked_drops += 1;
                return;
            }
        }
    }

    fn report(&mut self) {
        let now = Instant::now();
        let (last, before, forwarded_before) = self.reported;
        if now - last < REPORT_INTERVAL {
            return;
        }
        let counters = self.engine.counters();
        let forwarded = self.forwarder.as_ref().map(Forwarder::counters).unwrap_or_default();
        self.reported = (now, counters, forwarded);
        if forwarded != forwarded_before {
            tracing::debug!("relay since the start: {forwarded:?}");
        }
        if counters == before {
            return;
        }
        let socket_errors: u64 = self
            .sockets
            .iter()
            .map(|socket| socket.counters().receive_errors + socket.counters().send_errors)
            .sum();
        log_figures(&counters, (self.blocked_drops, socket_errors));
        let streams = self.tunnels.as_ref().map(Tunnels::counters).unwrap_or_default();
        tracing::debug!(
            streams = streams.open,
            streams_opened = streams.opened,
            streams_refused = streams.refused,
            streams_failed = streams.failed,
            "TLS streams since the start"
        );
    }
}

fn log_figures(counters: &Counters, (blocked_drops, socket_errors): (u64, u64)) {
    let relay = match counters {
        Counters::Server(counters) => {
            tracing::debug!(
                nodes = counters.nodes,
                registrations = counters.registrations,
                registrations_refused = counters.registrations_refused,
                introductions = counters.introductions,
                introductions_refused = counters.introductions_refused,
                stun_answers = counters.stun_answers,
                stun_limited = counters.stun_limited,
                proofs_refused = counters.proofs_refused,
                forecasts = counters.forecasts,
                forecasts_refused = counters.forecasts_refused,
                relay_requests = counters.relay_requests,
                relay_requests_refused = counters.relay_requests_refused,
                tickets = counters.tickets,
                tickets_refused = counters.tickets_refused,
                round_trip_reports = counters.round_trip_reports,
                dropped = counters.dropped,
                blocked_drops,
                socket_errors,
                "figures since the start"
            );
            tracing::debug!(
                proxies = counters.proxies,
                proxy_logins = counters.proxy_logins,
                proxy_logins_refused = counters.proxy_logins_refused,
                proxies_lost = counters.proxies_lost,
                "proxy servers since the start"
            );
            counters.relay
        }
        Counters::Proxy(counters) => {
            tracing::debug!(
                admitted = counters.admitted,
                tries = counters.tries,
                logins = counters.logins,
                stun_answers = counters.stun_answers,
                stun_limited = counters.stun_limited,
                dropped = counters.dropped,
                blocked_drops,
                socket_errors,
                "figures since the start"
            );
            counters.relay
        }
    };
    tracing::debug!(
        sessions = relay.sessions,
        begun = relay.begun,
        forwarded = relay.forwarded,
        forwarded_bytes = relay.forwarded_bytes,
        refused = relay.refused,
        unknown = relay.unknown,
        forged = relay.forged,
        replayed = relay.replayed,
        over_budget = relay.over_budget,
        nobody_there = relay.nobody_there,
        "relayed since the start"
    );
}

/// What an engine is made of beside the options.
struct Opened {
    identity: Arc<Identity>,
    seed: [u8; 32],
    crypto: Arc<CryptoProvider>,
    sockets: Vec<ServerSocket>,
    relay: RelayConfig,
    tunnel_port: u16,
}

/// The engine that the options ask for.
fn engine(now: Instant, options: &Options, opened: Opened) -> Engines {
    let Opened {
        identity,
        seed,
        crypto,
        sockets,
        relay,
        tunnel_port,
    } = opened;
    if options.join.is_some() {
        let config = ProxyServerConfig {
            identity,
            seed,
            crypto,
            sockets,
            relay,
            password: options.password.clone(),
            coordinator: Vec::new(),
        };
        return Engines::Proxy(Box::new(ProxyServer::new(now, config)));
    }
    let config = ServerConfig {
        identity,
        seed,
        crypto,
        access_key: options.access_key.clone(),
        sockets,
        max_nodes: options.max_nodes,
        relay,
        proxy_password: options.password.clone(),
        wall_clock: wall_clock(),
        tunnel_port,
    };
    Engines::Server(Box::new(Server::new(now, config)))
}

/// Milliseconds since 1970. A clock that is wrong only makes tickets of before a restart void, or good for longer.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Starts the threads that pass relay frames on. A system that cannot is no reason not to run: the engine does it then.
fn start_forwarder(options: &Options, sockets: &[UdpSocket], roles: &[Role]) -> Option<Forwarder> {
    let config = ForwarderConfig {
        limits: RelayLimits::default(),
        shards: options.relay_threads,
    };
    let main: Vec<&UdpSocket> = sockets
        .iter()
        .zip(roles)
        .filter(|(_, role)| role.socket.main)
        .map(|(socket, _)| socket)
        .collect();
    Forwarder::start(&config, &main)
        .inspect_err(|error| tracing::info!("relay frames have no threads of their own: {error}"))
        .ok()
}

/// Takes over datagrams that came to a forwarder's socket and are this loop's, and frames for nodes that come by a stream.
fn take_handed(forwarder: &Forwarder, tunnels: Option<&Tunnels>, datagrams: &mut Vec<Datagram>) {
    forwarder.take(|handed, contents| match handed {
        Handed::Stray(way) => datagrams.push(Datagram {
            socket: way.socket,
            source: way.address,
            destination_ip: way.local_ip,
            ecn: None,
            contents: BytesMut::from(contents),
        }),
        Handed::ToTunnel(way) => {
            if let (SocketName::Tunnel(number), Some(tunnels)) = (way.socket, tunnels) {
                tunnels.send(number, contents, None);
            }
        }
    });
}

/// Listens for TLS streams on the addresses that UDP has.
fn open_tunnels(
    options: &Options,
    identity: &Identity,
    crypto: &CryptoProvider,
) -> Result<Option<Tunnels>, StartError> {
    let Some(port) = options.tls_port else {
        return Ok(None);
    };
    let tls = tunnel_tls::server(identity, crypto).map_err(|error| StartError(format!("no TLS: {error}")))?;
    let (listen, by_default) = sockets::listen_addresses(options);
    let tunnels = Tunnels::open(&listen, port, &tls, by_default).map_err(|(address, error)| {
        StartError(match error.kind() {
            io::ErrorKind::AddrInUse => format!("TCP port {address} is already in use"),
            io::ErrorKind::PermissionDenied => format!(
                "cannot listen on TCP {address}: {error} (ports below 1024 need root or the capability CAP_NET_BIND_SERVICE)"
            ),
            _ => format!("cannot listen on TCP {address}: {error}"),
        })
    })?;
    Ok(Some(tunnels))
}

/// The address that a datagram was sent to, if the server knows it by name and the socket stands for it.
fn named_role<'a>(roles: &'a [Role], datagram: &Datagram) -> Option<&'a Role> {
    let ip = datagram.destination_ip?;
    roles
        .iter()
        .find(|role| role.ip == Some(ip) && roles[role.place].socket.name == datagram.socket)
}

/// The names of a server's sockets, in the order in which they are opened: the first of each family on the main port has
/// that family's name, the others are numbered.
fn socket_name(address: SocketAddr, main: bool, taken: &[SocketName]) -> SocketName {
    let first = if address.is_ipv4() {
        SocketName::Udp4
    } else {
        SocketName::Udp6
    };
    if main && !taken.contains(&first) {
        return first;
    }
    let numbered = taken
        .iter()
        .filter(|name| matches!(name, SocketName::Listen(_)))
        .count();
    // `sockets::open` opens fewer than 256, with all that they stand for.
    SocketName::Listen(numbered as u8)
}
