//! The player's engine. No IO.
//!
//! | file | what it does |
//! |---|---|
//! | [`api`] | what goes in and comes out |
//! | `rendezvous` | the session with the server |
//! | `tunnel` | the same where UDP is blocked: over a TLS stream, and back |
//! | `attempts`, `punch` | opening ways: asking the server; what to send where, and what to believe |
//! | `paths` | which real path carries a synthetic address's packets |
//! | `dials`, `connections` | wishes to connect; links to players: greeting, limits, ends |
//! | `early` | round trips that introduced players save: greetings with the handshake, first flights with the request |
//! | `delivery` | what a game sends and fetches: messages, events, views |
//! | `incoming` | whose a packet is that came from an address |
//! | `requests` | exactly one terminal event for each request |
//! | [`nat`] | what this node sits behind |
//! | [`port_mapping`] | ports that routers forward |
//! | `sockets` | the pool of further sockets |
//! | `relay_policy` | when packets may go through a relay: this node's wish and its session's |
//! | `relayed` | this node's sessions at forwarders |
//! | `router` | forwarding for others, and being forwarded by them |
//! | `roaming` | paths that die under a living connection |
//! | [`report`] | all of it in one report |
//! | [`mesh`] | the session |
//!
//! This file tells datagrams apart, dispatches commands, and decides in which order things come out. Order of events: everything
//! about a connection's life in the order in which it happened, CONNECTED before the first message of a peer, DISCONNECTED after its
//! last. Messages of several peers take turns.

pub mod api;
pub mod mesh;
pub mod nat;
pub mod report;
pub mod requests;

mod attempts;
mod connections;
mod delivery;
mod dials;
mod early;
mod incoming;
mod paths;
pub mod port_mapping;
mod punch;
mod relay_policy;
mod relayed;
mod rendezvous;
mod roaming;
mod router;
mod sockets;
#[cfg(all(test, feature = "lab"))]
mod tests;
mod tunnel;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ring::digest;
use rustc_hash::FxHashMap;

use crate::codes::Code;
use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::transport::identity::{Guid, PublicKey};
use crate::transport::{CloseInfo, LinkEvent, LinkId, LinkKind, SyntheticAddress, Transport, TransportConfig};
use crate::wire::classify::{Context, Kind, classify};
use crate::wire::control::Consent;
use crate::wire::peer::PeerControl;
use crate::wire::probe::{REQUEST_BYTE, RESPONSE_BYTE};
use crate::wire::relay::{BIND_BYTE, DATA_BYTE, GONE_BYTE};
use api::{Command, Event, NodeConfig, Reason, SideEffect, SideEffectAnswer};
use attempts::Attempts;
use connections::{Link, Peer, Stage};
use dials::Dials;
use incoming::SMALLEST_INITIAL;
use mesh::{Mesh, MeshConfig, MeshOutput};
use nat::{NAT_RESOLVE, Nat};
use paths::{Path, Paths};
use port_mapping::PortMapping;
pub use punch::budget::ProbeCounters;
use relayed::Relayed;
use rendezvous::Rendezvous;
use report::Reports;
use requests::{Pending, Requests};
use roaming::Roaming;
use router::Router;
use sockets::SocketPool;
use tunnel::Tunnels;

/// Longest silence on a link before a keep-alive: routers forget a UDP mapping after 30 s and more.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Keep-alives within the lost-peer time: two may be lost before a peer is.
const KEEP_ALIVES_IN_LOST_TIME: u32 = 4;
/// Links beyond those that `max_peers` needs in both directions: handshakes of strangers, the server, closes on the way.
const SPARE_LINKS: usize = 64;

/// Datagrams that were dropped, by reason.
#[derive(Debug, Default)]
struct Dropped {
    unknown: u64,
    strangers: u64,
    probes: u64,
    unroutable: u64,
}

/// A node: one player's endpoint.
pub struct Node {
    now: Instant,
    own_key: PublicKey,
    guid: Guid,
    app: String,
    access_key: String,
    incarnation: u64,
    max_peers: usize,
    /// False: the game has not fetched its events for long.
    accepting: bool,
    /// Peers with CONNECTED events that the game has not fetched, and how many.
    unread: BTreeMap<Guid, u32>,
    router_max: usize,
    accept_from: Consent,
    manual_address: Option<SocketAddr>,
    sockets: Vec<(SocketName, SocketAddr)>,
    local_addresses: Vec<IpAddr>,
    session_tag: [u8; 16],

    random: StdRng,
    transport: Transport,
    mesh: Mesh,
    mesh_touched: bool,
    paths: Paths,
    rendezvous: Rendezvous,
    tunnels: Tunnels,
    attempts: Attempts,
    requests: Requests,
    reports: Reports,
    nat: Nat,
    mapping: PortMapping,
    relayed: Relayed,
    router: Router,
    /// Datagrams in frames, before they go out.
    wrapped: Vec<u8>,
    /// What was sent last and goes over a second path as well.
    copied: Copied,
    roaming: Roaming,
    /// Longest silence on a link before a keep-alive.
    keep_alive: Duration,
    pool: SocketPool,

    server_links: BTreeMap<LinkId, SyntheticAddress>,
    links: BTreeMap<LinkId, Link>,
    /// Looked up for each message that is sent; never iterated over without sorting.
    peers: FxHashMap<Guid, Peer>,
    /// Links that are closed as soon as what was sent before is out, with the time by which they are in any case.
    leaving: Vec<(LinkId, CloseInfo, Instant)>,
    dials: Dials,
    next_dial: u64,
    /// Links that may hold messages; the front is next.
    readable: VecDeque<LinkId>,

    lifecycle: VecDeque<Event<'static>>,
    side_effects: VecDeque<SideEffect>,
    scratch: Vec<u8>,
    dropped: Dropped,

    timers_changed: bool,
    deadline: Option<Instant>,
    /// Reading messages made room that the other side must hear of.
    transmit_wanted: bool,
    view_changed: bool,
    view_at: Option<Instant>,
    /// When the game is told of dropped messages.
    dropped_due: Option<Instant>,
}

impl Node {
    /// Sets a node up. It does nothing by itself until a command or a datagram comes.
    pub fn new(now: Instant, config: NodeConfig) -> Self {
        let mut random = StdRng::from_seed(derive(&config.seed, b"node"));
        let own_key = config.identity.public();
        let keep_alive = (config.lost_peer_timeout / KEEP_ALIVES_IN_LOST_TIME).min(LONGEST_KEEP_ALIVE);
        let router = Router::new(
            now,
            config.identity.clone(),
            config.crypto.clone(),
            derive(&config.seed, b"router"),
        );
        let transport = Transport::new(TransportConfig {
            identity: config.identity,
            seed: derive(&config.seed, b"transport"),
            crypto: config.crypto,
            accepts: Some(LinkKind::Peer),
            lost_peer_timeout: config.lost_peer_timeout,
            keep_alive,
            max_links: config.max_peers.saturating_mul(2).saturating_add(SPARE_LINKS),
        });
        let mesh = Mesh::new(
            now,
            MeshConfig {
                own: own_key,
                seed: derive(&config.seed, b"mesh"),
                join_auto: config.join_auto,
                partial: config.partial_mesh,
                max_peers: config.max_peers,
                join_time_limit: config.join_time_limit,
                relay_policy: config.relay_policy,
            },
        );
        Self {
            now,
            own_key,
            guid: own_key.guid(),
            app: config.app,
            access_key: config.access_key,
            incarnation: random.next_u64(),
            max_peers: config.max_peers,
            accepting: true,
            unread: BTreeMap::new(),
            router_max: config.router_max,
            accept_from: config.accept_from,
            manual_address: config.manual_address,
            sockets: config.sockets,
            local_addresses: config.local_addresses,
            session_tag: [0; 16],
            random,
            transport,
            mesh,
            mesh_touched: true,
            paths: Paths::default(),
            rendezvous: Rendezvous::new(),
            tunnels: Tunnels::default(),
            attempts: Attempts::new(now),
            requests: Requests::default(),
            reports: Reports::default(),
            nat: Nat::default(),
            mapping: PortMapping::new(derive(&config.seed, b"mapping")),
            relayed: Relayed::default(),
            router,
            wrapped: Vec::new(),
            copied: Copied::default(),
            roaming: Roaming::default(),
            keep_alive,
            pool: SocketPool::new(config.max_sockets),
            server_links: BTreeMap::new(),
            links: BTreeMap::new(),
            peers: FxHashMap::default(),
            leaving: Vec::new(),
            dials: Dials::new(),
            next_dial: 1,
            readable: VecDeque::new(),
            lifecycle: VecDeque::new(),
            side_effects: VecDeque::new(),
            scratch: Vec::new(),
            dropped: Dropped::default(),
            timers_changed: true,
            deadline: None,
            transmit_wanted: false,
            view_changed: true,
            view_at: None,
            dropped_due: None,
        }
    }

    /// Takes a command. Its outcome follows as events; a command with a request id ends in exactly one terminal event.
    pub fn command(&mut self, now: Instant, command: Command) {
        self.now = now;
        self.timers_changed = true;
        match command {
            Command::ConnectServer {
                request,
                host,
                port,
                key,
            } => self.connect_server(now, request, host, port, key),
            Command::DisconnectServer { request } => self.disconnect_server(now, request),
            Command::OpenNat { request, peer } => self.open_nat(now, request, peer),
            Command::ConnectPeer { request, peer, address } => self.connect_peer(now, request, peer, address),
            Command::Disconnect { peer, user_code, text } => self.disconnect(now, peer, user_code, text),
            Command::Cancel { request } => self.cancel(now, request),
            Command::DetectNat { request, options } => self.detect_nat(now, request, options),
            Command::MapPort { request, timeout } => self.map_port(now, request, timeout),
            Command::Report {
                request,
                map_port,
                detect,
            } => self.report(now, request, map_port, detect),
            Command::Mesh(command) => self.mesh_changed().command(now, command),
            Command::Relay(command) => self.relay_command(now, command),
        }
        self.settle(now);
    }

    fn cancel(&mut self, now: Instant, request: api::RequestId) {
        match self.requests.get(request) {
            Some(Pending::Server) => self.cancel_server(now, request),
            Some(Pending::OpenNat(peer)) => self.cancel_open_nat(now, request, peer),
            Some(Pending::Connect) => self.cancel_connect(now, request),
            Some(Pending::DetectNat) => self.cancel_detect_nat(now, request),
            Some(Pending::Report) => self.cancel_report(now, request),
            Some(Pending::MapPort) => self.cancel_map_port(request),
            Some(Pending::Route(peer)) => self.cancel_route(now, request, peer),
            Some(Pending::Proxy(peer)) => self.cancel_proxy(now, request, peer),
            None => {
                self.mesh_changed().cancel(request);
            }
        }
    }

    /// Closes everything: peers and server hear of it with the transmits that follow. For a node that is about to be dropped.
    pub fn shut_down(&mut self, now: Instant) {
        self.now = now;
        let mut peers: Vec<Guid> = self.peers.keys().copied().collect();
        peers.sort_unstable();
        for peer in peers {
            self.disconnect_with(now, peer, Code::Closed, 0, "the player left".to_owned());
        }
        let unfinished = self.links.iter().filter(|(_, link)| link.stage != Stage::Draining);
        let links: Vec<LinkId> = unfinished.map(|(link, _)| *link).collect();
        for link in links {
            let info = CloseInfo {
                code: Code::Closed.number(),
                user_code: 0,
                text: String::new(),
            };
            self.transport.close(now, link, info);
        }
        self.leave_server(now, "the player left");
        self.end_mapping();
        self.settle(now);
    }

    /// True while links that were left on purpose deliver their last messages and their close: at most half a second.
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Closes what is still being left at once; what has not been delivered is lost.
    pub fn hang_up(&mut self, now: Instant) {
        for (_, _, deadline) in &mut self.leaving {
            *deadline = now;
        }
        self.close_leaving(now);
    }

    /// With false, connections and introductions that others begin are declined (FULL), until it is called with true: for a game that does
    /// not fetch its events. What stands, and what the game asks for itself, goes on.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// An event CONNECTED of that peer waits for the game (once for each such event). Until [`fetched`](Self::fetched) no new connection
    /// that the peer begins is accepted, so that at most one pair of CONNECTED and DISCONNECTED waits for it.
    pub fn unfetched(&mut self, peer: Guid) {
        *self.unread.entry(peer).or_default() += 1;
    }

    /// The game has fetched an event CONNECTED of that peer.
    pub fn fetched(&mut self, peer: Guid) {
        if let Some(count) = self.unread.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.unread.remove(&peer);
            }
        }
    }

    /// The next thing that only the outside can do; answered by [`side_effect_answer`](Self::side_effect_answer).
    pub fn poll_side_effect(&mut self) -> Option<SideEffect> {
        let effects = self.pool.take_effects();
        self.side_effects.extend(effects);
        self.side_effects.pop_front()
    }

    /// Takes the outside's answer to a side effect, or news from it.
    pub fn side_effect_answer(&mut self, now: Instant, answer: SideEffectAnswer) {
        self.now = now;
        match answer {
            SideEffectAnswer::Resolved { id, addresses } if id & NAT_RESOLVE != 0 => {
                self.nat_name_resolved(now, id, addresses);
            }
            SideEffectAnswer::Resolved { id, addresses } => self.name_resolved(now, id, addresses),
            SideEffectAnswer::LocalAddresses(addresses) => {
                if self.local_addresses != addresses {
                    let before = std::mem::replace(&mut self.local_addresses, addresses);
                    self.nat_interfaces_changed(now);
                    self.update_server();
                    self.mapping_moved(now);
                    self.interfaces_changed(now, &before);
                    self.look_for_udp_now(now);
                }
            }
            SideEffectAnswer::SocketsOpened { id, sockets } => {
                self.timers_changed = true;
                self.pool.answered(id, sockets);
                self.nat_sockets_opened(now, id);
                self.attempts_sockets_opened(now);
            }
            SideEffectAnswer::Mapping(answer) => self.mapping_answer(now, answer),
            SideEffectAnswer::TunnelOpened { tunnel } => self.tunnel_opened(now, tunnel),
            SideEffectAnswer::TunnelFailed { tunnel, code, text } => {
                self.tunnel_failed(now, tunnel, Reason { code, text })
            }
            SideEffectAnswer::TunnelClosed { tunnel, text } => self.tunnel_closed(now, tunnel, &text),
        }
        self.settle(now);
    }

    /// The most that punching has sent, of each kind: what proves the budgets.
    pub fn probe_counters(&self) -> ProbeCounters {
        self.attempts.probe_counters()
    }

    /// What a test asks for further sockets.
    #[cfg(test)]
    pub fn pool(&mut self) -> &mut SocketPool {
        &mut self.pool
    }

    /// The machine's addresses as this engine knows them.
    #[cfg(test)]
    pub fn local_addresses(&self) -> &[IpAddr] {
        &self.local_addresses
    }

    fn has_socket(&self, name: SocketName) -> bool {
        self.sockets.iter().any(|(socket, _)| *socket == name)
    }

    /// Queues an event for the game.
    fn raise(&mut self, event: Event<'static>) {
        self.lifecycle.extend(self.reports.keep_own(event));
    }

    /// The mesh, about to be told something.
    fn mesh_changed(&mut self) -> &mut Mesh {
        self.mesh_touched = true;
        self.timers_changed = true;
        self.view_changed = true;
        &mut self.mesh
    }

    /// Works off what the last input led to, until everything is quiet.
    fn settle(&mut self, now: Instant) {
        loop {
            self.drain_link_events(now);
            self.continue_reports(now);
            if !self.mesh_touched {
                return;
            }
            self.pump_mesh(now);
        }
    }

    fn drain_link_events(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                LinkEvent::Readable { link } if self.links.contains_key(&link) => self.link_readable(now, link),
                LinkEvent::Readable { link } => self.server_readable(now, link),
                LinkEvent::Writable { .. } => {}
                LinkEvent::Connected { link, address, key, .. } => {
                    if self.rendezvous.link() == Some(link) {
                        self.server_link_connected(now, link, key);
                    } else if self.server_links.contains_key(&link) {
                        if self.side_link_connected(now, link) {
                            self.server_link_connected(now, link, key);
                        }
                    } else {
                        self.link_connected(now, link, address, key);
                    }
                }
                LinkEvent::Closed { link, reason } => {
                    if let Some(address) = self.server_links.remove(&link) {
                        if self.rendezvous.link() == Some(link) {
                            // A refusal's last words, an introduction just before the end.
                            self.server_readable(now, link);
                        }
                        if self.rendezvous.link() == Some(link) {
                            self.server_link_closed(now, reason);
                        } else {
                            self.side_link_closed(now, link, &reason);
                        }
                        self.paths.link_removed(now, address);
                        self.transport.forget(link);
                        self.timers_changed = true;
                    } else {
                        self.link_closed(now, link, reason);
                    }
                }
            }
        }
    }

    fn link_readable(&mut self, now: Instant, link: LinkId) {
        self.read_control(now, link);
        self.queue_readable(link);
    }

    /// Reads control messages as far as the link's stage allows: a greeting, then, once CONNECTED was raised, the mesh's.
    fn read_control(&mut self, now: Instant, link: LinkId) {
        loop {
            let Some(entry) = self.links.get(&link) else { return };
            let Some(guid) = entry.guid() else { return };
            match entry.stage {
                Stage::AwaitHello | Stage::Greeted | Stage::AwaitWelcome => {
                    let Some(message) = self.transport.next_control(link) else {
                        return;
                    };
                    self.greeted(now, link, &message);
                }
                Stage::Open if entry.raised => {
                    let Some(message) = self.transport.next_control(link) else {
                        return;
                    };
                    match PeerControl::decode(&message) {
                        Ok(PeerControl::Mesh(message)) => self.mesh_changed().message(now, guid, message),
                        Ok(PeerControl::Welcome(_)) if entry.unconfirmed => self.link_confirmed(now, link, guid),
                        Ok(PeerControl::Route(message)) => self.route_message(now, guid, message),
                        // A newer version may say more; a second greeting says nothing.
                        _ => self.dropped.unknown += 1,
                    }
                }
                _ => return,
            }
        }
    }

    /// The game may read from this link.
    fn queue_readable(&mut self, link: LinkId) {
        if let Some(entry) = self.links.get_mut(&link)
            && entry.raised
            && !entry.queued
            && matches!(entry.stage, Stage::Open | Stage::Draining)
        {
            entry.queued = true;
            self.readable.push_back(link);
        }
    }

    /// Carries out what the mesh wants.
    fn pump_mesh(&mut self, now: Instant) {
        self.mesh_touched = false;
        while let Some(output) = self.mesh.poll_output() {
            self.timers_changed = true;
            self.view_changed = true;
            match output {
                MeshOutput::Send { to, message } => {
                    if let Some(link) = self.current_link(to) {
                        self.transmit_wanted = true;
                        self.send_control(link, &PeerControl::Mesh(message));
                    }
                }
                MeshOutput::Connect { peer } => self.connect_for_mesh(now, peer),
                MeshOutput::Disconnect { peer, reason } => self.disconnect_with(now, peer, reason.code, 0, reason.text),
                MeshOutput::SessionTag(tag) => {
                    self.session_tag = tag;
                    self.update_server();
                }
                MeshOutput::RelayPolicy => self.update_server(),
                MeshOutput::Event(event) => self.raise(Event::Mesh(event)),
            }
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let own = [
            self.rendezvous.poll_timeout(),
            self.tunnels.poll_timeout(),
            self.attempts.poll_timeout(now),
            self.nat.poll_timeout(),
            self.connections_deadline(),
            self.paths.poll_timeout(),
            self.mesh.poll_timeout(),
            self.mapping.poll_timeout(),
            self.roaming.poll_timeout(),
            self.relayed.poll_timeout(),
            self.router.poll_timeout(),
            self.dropped_due,
        ];
        own.into_iter().flatten().min()
    }
}

impl Node {
    /// Does with a datagram what its kind wants. One inside a relay frame comes here once more, as from its session's socket.
    fn tell_apart(&mut self, now: Instant, datagram: Datagram) {
        if let SocketName::Tunnel(number) = datagram.socket
            && !self.stream_admits(number, &datagram)
        {
            self.dropped.unknown += 1;
            return;
        }
        let context = Context {
            source_is_gate_peer: false,
            gate_role_active: false,
            knows_connection_id: |_: &[u8]| self.transport.knows_connection_id(&datagram.contents),
        };
        match classify(&datagram.contents, context) {
            Kind::OwnFrame(REQUEST_BYTE | RESPONSE_BYTE) => match datagram.socket {
                SocketName::Relay(number) => self.relayed_probe(now, number, &datagram.contents),
                socket => self.handle_probe(now, socket, datagram.source, &datagram.contents),
            },
            Kind::OwnFrame(DATA_BYTE | BIND_BYTE)
                if !matches!(datagram.socket, SocketName::Relay(_)) && self.forwards(&datagram.contents) =>
            {
                self.forward(now, datagram);
            }
            Kind::OwnFrame(DATA_BYTE..=GONE_BYTE) if !matches!(datagram.socket, SocketName::Relay(_)) => {
                if let Some(inside) = self.unwrap_frame(now, datagram) {
                    self.tell_apart(now, inside);
                }
            }
            Kind::QuicLong | Kind::QuicShort => {
                if let Some(route) = self.route_for(now, &datagram) {
                    let origin = self.origin_of(route, &datagram);
                    let heard =
                        self.transport
                            .handle_datagram_from(now, route, origin, datagram.ecn, datagram.contents);
                    self.paths.note_heard(now, heard);
                    self.greet_early(now);
                }
            }
            Kind::Stun if self.sample_answered(now, datagram.socket, datagram.source, &datagram.contents) => {}
            // A forwarder passes on what the other side sends, no STUN.
            Kind::Stun if matches!(datagram.socket, SocketName::Relay(_)) => self.dropped.unknown += 1,
            Kind::Stun if self.relay_measured(now, &datagram) => {}
            Kind::Stun => self.handle_stun(now, &datagram),
            Kind::OwnFrame(_) | Kind::Gate | Kind::GateRaw | Kind::Unknown => self.dropped.unknown += 1,
        }
    }

    /// What goes to a path: through a forwarder in frames.
    fn along(&mut self, path: Path, transmit: Transmit, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let transmit = Transmit {
            socket: path.socket,
            destination: path.address,
            ..transmit
        };
        match path.socket {
            SocketName::Relay(number) => self.wrap_for(number, transmit, buffer),
            _ => Some(transmit),
        }
    }

    /// Sends what was sent last over the second path.
    fn send_copy(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (path, transmit) = self.copied.path.take()?;
        buffer.extend_from_slice(&self.copied.contents);
        let sent = self.along(path, transmit, buffer);
        if sent.is_none() {
            buffer.clear();
        }
        sent
    }
}

/// A datagram (or a run of them) that goes over a second path as well.
#[derive(Default)]
struct Copied {
    /// The path, and what to send; `None`: nothing waits. The contents' memory stays for the next one.
    path: Option<(Path, Transmit)>,
    contents: Vec<u8>,
}

impl Copied {
    /// Larger datagrams than every path carries are not copied: they may be QUIC's search for the largest size, whose answer must say something
    /// of the best path alone.
    fn keep(&mut self, path: Path, transmit: Transmit, contents: &[u8]) {
        if transmit.segment_size.unwrap_or(contents.len()) > SMALLEST_INITIAL {
            return;
        }
        self.contents.clear();
        self.contents.extend_from_slice(contents);
        self.path = Some((path, transmit));
    }
}

impl Engine for Node {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        self.now = now;
        self.tell_apart(now, datagram);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.transport.handle_timeout(now);
        self.settle(now);
        if self.deadline.is_some_and(|at| at <= now) {
            self.timers_changed = true;
            self.rendezvous_timeout(now);
            self.tunnels_timeout(now);
            self.attempts_timeout(now);
            self.nat_timeout(now);
            self.connections_timeout(now);
            self.dropped_timeout(now);
            self.roaming_timeout(now);
            self.relayed_timeout(now);
            self.router_timeout(now);
            self.paths.sweep(now);
            self.mapping_timeout(now);
            self.close_unused_sockets();
            if self.mesh.poll_timeout().is_some_and(|at| at <= now) {
                self.mesh_changed().handle_timeout(now);
            }
        }
        self.settle(now);
    }

    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.now = now;
        if let Some(queued) = self.attempts.queue.pop_front() {
            return Some(queued.write(buffer));
        }
        if let Some(transmit) = self.next_relay_frame(buffer) {
            return Some(transmit);
        }
        if let Some(transmit) = self.next_forwarded_frame(buffer) {
            return Some(transmit);
        }
        if let Some(request) = self.tunnels.poll_request(buffer) {
            return Some(request);
        }
        if let Some((socket, destination)) = self.nat.poll_request(buffer) {
            return Some(Transmit {
                socket,
                destination,
                ecn: None,
                size: buffer.len(),
                segment_size: None,
                time_to_live: None,
            });
        }
        if let Some(transmit) = self.send_copy(buffer) {
            return Some(transmit);
        }
        loop {
            while let Some((address, ecn, segment_size)) = self.transport.poll_transmit(now, buffer) {
                if let Some((path, fed)) = self.paths.ways(now, address) {
                    let transmit = Transmit {
                        socket: path.socket,
                        destination: path.address,
                        ecn,
                        size: buffer.len(),
                        segment_size,
                        time_to_live: None,
                    };
                    if let Some(fed) = fed {
                        self.copied.keep(fed, transmit, buffer);
                    }
                    if let Some(transmit) = self.along(path, transmit, buffer) {
                        return Some(transmit);
                    }
                }
                self.dropped.unroutable += 1;
                buffer.clear();
            }
            if !self.close_leaving(now) {
                break;
            }
        }
        self.transmit_wanted = false;
        None
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        if self.transmit_wanted
            || !self.attempts.queue.is_empty()
            || self.relayed.has_frames()
            || self.router.forwarding.has_frames()
            || self.copied.path.is_some()
            || self.nat.has_requests()
            || self.tunnels.has_requests()
        {
            return Some(self.now);
        }
        if self.timers_changed {
            self.timers_changed = false;
            self.deadline = self.next_deadline(self.now);
        }
        [self.deadline, self.transport.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// A seed of its own for each part.
fn derive(seed: &[u8; 32], label: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(seed);
    context.update(label);
    let mut derived = [0; 32];
    derived.copy_from_slice(context.finish().as_ref());
    derived
}
