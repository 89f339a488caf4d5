//! A virtual internet in virtual time.
//!
//! A [`Lab`] is networks, routers, links and hosts, each host with one [engine](crate::engine), all in one thread. Time
//! passes only from one happening to the next, so a second of play takes milliseconds; and everything random follows
//! from the lab's seed ([`derive_seed`]), down to the TLS keys ([`crypto`]), so that the same seed gives the same
//! [trace](TraceEntry), byte for byte.
//!
//! | part | what it is |
//! |---|---|
//! | [`Lab`] | builds hosts, drives engines, passes time |
//! | [`Link`], [`LinkDirection`] | delay, jitter, loss, order, duplication, rate and queue |
//! | [`RouterConfig`] | mapping, filtering, port allocation, time-outs, hairpin, forwarded ports |
//! | [`Lab::listen_for_streams`] | TLS streams over TCP, past routers that block UDP |
//! | [`AttemptProbes`] | what one attempt to open a way cost in probes |
//! | [`RawHost`] | a UDP endpoint for tests: records and sends |
//! | [`Scenario`](scenario::Scenario) | a server and players behind routers in a few lines |
//! | [`figures`] | what a game feels, measured: for tests and benchmarks |
//! | [`grid`] | every pair of router behaviours: how it connects, and what it must reach |
//! | [`with_seeds`], [`assert_share_of_seeds`] | many seeds, and the command that replays the one that failed |
//!
//! # How an engine is driven
//! After every input (datagram, deadline, command, answer) it is drained as its contract says: transmits, events, side
//! effects, again while something came out (reading events can free room for transmits), and last its deadline,
//! which comes back as a happening of its own. A deadline in the past is one that comes now. Engines that never settle
//! panic with the seed.
//!
//! The only clock that is read is at the start, because an [`Instant`] cannot be made otherwise; only distances from it
//! are used.

mod agenda;
pub mod crypto;
mod drive;
mod events;
pub mod figures;
mod forwarding;
pub mod grid;
mod host;
mod moves;
mod network;
mod probes;
pub mod proxies;
mod random;
mod router;
pub mod scenario;
mod seeds;
mod trace;
mod tunnels;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use crypto::seeded_provider;
pub use events::{OwnedEvent, RecordedEvent};
pub use host::{HostCounters, LabEngine, Outputs, RawHost, Received, Startup};
pub use network::{AttachmentId, Families, Link, LinkDirection, NetworkId, Prefix, RouterId, half_loss};
pub use probes::{AttemptProbes, HostProbes};
pub use random::derive_seed;
pub use router::{
    Allocation, BurstLimit, Dependence, MappingService, Pooling, PortMappingConfig, RouterConfig, Translation,
};
pub use seeds::{SEED_VARIABLE, assert_share_of_seeds, replay_command, seed_from_environment, with_seeds};
pub use trace::{Captured, DropReason, Fate, Sent, TraceEntry, first_difference};

use crate::codes::SendMode;
use crate::engine::{SocketName, Transmit};
use crate::peer::Node;
use crate::peer::api::{Command, NodeConfig, RequestId};
use crate::server::proxy_server::{ProxyServer, ProxyServerConfig};
use crate::server::{Server, ServerConfig};
use crate::transport::SendError;
use crate::transport::identity::Guid;
use agenda::Agenda;
use crypto::Randomness;
use host::Host;
use network::Internet;
use tunnels::Pipes;

/// A host of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(usize);

/// Two places between which nothing gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// One host.
    Host(HostId),
    /// All hosts of a network, and of those behind routers in it.
    Network(NetworkId),
}

/// Time that resolving a name takes unless the lab is told otherwise.
const DEFAULT_RESOLVE_TIME: Duration = Duration::from_millis(10);

/// A virtual internet.
pub struct Lab {
    seed: u64,
    /// The moment that is virtual time zero.
    start: Instant,
    time: Duration,
    agenda: Agenda,
    internet: Internet,
    hosts: Vec<Host>,
    names: BTreeMap<String, Vec<IpAddr>>,
    resolve_time: Duration,
    pipes: Pipes,
    partitions: Vec<(Party, Party)>,
    one_way_partitions: Vec<(Party, Party)>,
    trace: Option<Vec<TraceEntry>>,
    /// Whole datagrams, while they are captured.
    captured: Option<Vec<Captured>>,
    /// The same of what hosts send.
    sent: Option<Vec<Sent>>,
    /// Probes of each host, while they are counted.
    probes: Option<BTreeMap<HostId, HostProbes>>,
    drops: BTreeMap<DropReason, u64>,
    next_request: RequestId,
    buffer: Vec<u8>,
}

/// Building.
impl Lab {
    /// An internet without anybody in it.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            start: Instant::now(),
            time: Duration::ZERO,
            agenda: Agenda::default(),
            internet: Internet::new(seed),
            hosts: Vec::new(),
            names: BTreeMap::new(),
            resolve_time: DEFAULT_RESOLVE_TIME,
            pipes: Pipes::default(),
            partitions: Vec::new(),
            one_way_partitions: Vec::new(),
            trace: None,
            captured: None,
            sent: None,
            probes: None,
            drops: BTreeMap::new(),
            next_request: 1,
            buffer: Vec::new(),
        }
    }

    /// The seed that replays this lab.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network that everything else hangs on.
    pub fn internet(&self) -> NetworkId {
        Internet::ROOT
    }

    /// Puts a router into `outer`, by `link`. Its LAN is [`lan`](Self::lan).
    pub fn add_router(&mut self, outer: NetworkId, config: RouterConfig, link: Link) -> RouterId {
        self.internet.add_router(outer, config, link, None)
    }

    /// As [`add_router`](Self::add_router), with the IPv4 range of its LAN (for example 100.64.0.0/16 of a carrier).
    pub fn add_router_with_lan(&mut self, outer: NetworkId, config: RouterConfig, link: Link, lan: Prefix) -> RouterId {
        self.internet.add_router(outer, config, link, Some(lan))
    }

    /// The network behind a router.
    pub fn lan(&self, router: RouterId) -> NetworkId {
        self.internet.lan_of(router)
    }

    /// A router's outside IPv4 addresses (none if it does not translate).
    pub fn public_addresses(&mut self, router: RouterId) -> Vec<IpAddr> {
        self.internet.router(router).public().to_vec()
    }

    /// Adds a host with one interface, IPv4 only, in `network`. It runs nothing yet.
    pub fn add_host(&mut self, name: &str, network: NetworkId, link: Link) -> HostId {
        self.add_host_with(name, network, link, Families::V4)
    }

    /// Adds a host with one interface in `network`. It runs nothing yet.
    pub fn add_host_with(&mut self, name: &str, network: NetworkId, link: Link, families: Families) -> HostId {
        let host = HostId(self.hosts.len());
        let ports = random::generator(self.seed, "ephemeral ports", host.0 as u64);
        self.hosts.push(Host::new(name, self.randomness(host, 0), ports));
        self.add_interface(host, network, link, families);
        host
    }

    /// Gives a host a further interface. An engine that runs there is told.
    pub fn add_interface(&mut self, host: HostId, network: NetworkId, link: Link, families: Families) {
        let interface = self.internet.attach_host(host, network, link, families);
        self.hosts[host.0].interfaces.push(interface);
        self.tell_addresses(host);
    }

    fn randomness(&self, host: HostId, incarnation: u64) -> Randomness {
        Randomness::new(derive_seed(
            self.seed,
            &format!("tls of incarnation {incarnation}"),
            host.0 as u64,
        ))
    }

    /// Opens a socket, bound to an address of the host or an unspecified one. The port must not be 0.
    pub fn open_socket(&mut self, host: HostId, socket: SocketName, bound: SocketAddr) {
        assert_ne!(bound.port(), 0, "sockets of a lab have a port (seed {})", self.seed);
        let earlier = self.hosts[host.0].sockets.insert(socket, bound);
        assert!(earlier.is_none(), "{socket:?} is open already (seed {})", self.seed);
    }

    /// All addresses of a host.
    pub fn addresses(&self, host: HostId) -> Vec<IpAddr> {
        self.hosts[host.0].addresses().collect()
    }

    /// Where others of the host's own network reach that socket.
    ///
    /// # Panics
    /// If there is no such socket, or no address for it.
    pub fn socket_address(&self, host: HostId, socket: SocketName) -> SocketAddr {
        let host = &self.hosts[host.0];
        let bound = host.sockets[&socket];
        if !bound.ip().is_unspecified() {
            return bound;
        }
        let address = host.addresses().find(|address| address.is_ipv4() == bound.is_ipv4());
        SocketAddr::new(
            address.expect("the host has an address of the socket's family"),
            bound.port(),
        )
    }

    /// Sockets that a host has open.
    pub fn socket_count(&self, host: HostId) -> usize {
        self.hosts[host.0].sockets.len()
    }

    /// Runs an engine on a host: `factory` makes it now, and anew at each [`restart`](Self::restart).
    pub fn start<E: LabEngine>(&mut self, host: HostId, factory: impl Fn(Startup) -> E + 'static) {
        self.hosts[host.0].factory = Some(Box::new(move |startup| Box::new(factory(startup))));
        self.launch(host);
    }

    /// Runs a node. Its sockets and local addresses are the host's; its seed is derived from the lab's.
    pub fn start_node(&mut self, host: HostId, config: NodeConfig) {
        let sockets: Vec<_> = self.hosts[host.0]
            .sockets
            .iter()
            .map(|(name, bound)| (*name, *bound))
            .collect();
        let config = NodeConfig {
            sockets,
            local_addresses: self.addresses(host),
            ..config
        };
        self.start(host, move |startup| {
            let config = NodeConfig {
                seed: startup.seed,
                ..config.clone()
            };
            Node::new(startup.now, config)
        });
    }

    /// Runs a server. Its seed is derived from the lab's, its wall clock is the virtual time; the rest is taken as it is.
    pub fn start_server(&mut self, host: HostId, config: ServerConfig) {
        let start = self.start;
        self.start(host, move |startup| {
            let config = ServerConfig {
                seed: startup.seed,
                wall_clock: startup.now.saturating_duration_since(start).as_millis() as u64,
                ..config.clone()
            };
            Server::new(startup.now, config)
        });
    }

    /// Runs a proxy server. Its seed is derived from the lab's; the rest is taken as it is.
    pub fn start_proxy_server(&mut self, host: HostId, config: ProxyServerConfig) {
        self.start(host, move |startup| {
            let config = ProxyServerConfig {
                seed: startup.seed,
                ..config.clone()
            };
            ProxyServer::new(startup.now, config)
        });
    }

    /// Runs a plain endpoint that records what it receives.
    pub fn start_raw(&mut self, host: HostId) {
        let start = self.start;
        self.start(host, move |_| RawHost::new(start, false));
    }

    /// Runs a plain endpoint that records what it receives and sends it back.
    pub fn start_echo(&mut self, host: HostId) {
        let start = self.start;
        self.start(host, move |_| RawHost::new(start, true));
    }

    /// Makes a name resolvable (an empty list: it resolves to nothing). Names that nobody made resolvable fail.
    pub fn set_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.names.insert(name.to_owned(), addresses);
    }

    /// Sets the time that resolving takes, also if it fails.
    pub fn set_resolve_time(&mut self, time: Duration) {
        self.resolve_time = time;
    }
}

/// Faults and changes at run time.
impl Lab {
    /// The host is gone without a word: its engine is dropped, what was under way to it is lost.
    pub fn crash(&mut self, host: HostId) {
        let state = &mut self.hosts[host.0];
        state.engine = None;
        if let Some(slot) = state.wake.take() {
            self.agenda.remove(slot);
        }
        self.end_streams_of(host);
    }

    /// The host's engine begins anew, with the same configuration, another seed, and the sockets that are open. Events
    /// recorded before stay.
    pub fn restart(&mut self, host: HostId) {
        self.crash(host);
        let incarnation = self.hosts[host.0].incarnation + 1;
        let randomness = self.randomness(host, incarnation);
        let state = &mut self.hosts[host.0];
        state.incarnation = incarnation;
        state.randomness = randomness;
        state.sockets.retain(|name, _| !matches!(name, SocketName::Birthday(_)));
        self.launch(host);
    }

    /// Whether the host runs an engine.
    pub fn is_running(&self, host: HostId) -> bool {
        self.hosts[host.0].engine.is_some()
    }

    /// Nothing gets from one to the other any more, in either direction.
    pub fn partition(&mut self, one: Party, other: Party) {
        self.partitions.push((one, other));
    }

    /// Nothing gets from one to the other any more; the other direction stays as it is.
    pub fn partition_one_way(&mut self, from: Party, to: Party) {
        self.one_way_partitions.push((from, to));
    }

    /// Ends every [`partition`](Self::partition).
    pub fn heal(&mut self) {
        self.partitions.clear();
        self.one_way_partitions.clear();
    }

    /// The attachment of a host's interface, in the order in which they were added.
    pub fn attachment(&self, host: HostId, interface: usize) -> AttachmentId {
        self.hosts[host.0].interfaces[interface].0
    }

    /// The attachment of a router's outside.
    pub fn outside(&self, router: RouterId) -> AttachmentId {
        self.internet.outside_of(router)
    }

    /// Changes a link; what is under way on it stays as it was.
    pub fn change_link(&mut self, attachment: AttachmentId, change: impl FnOnce(&mut Link)) {
        self.internet.change_link(attachment, change);
    }

    /// Plugs a cable out or in.
    pub fn set_connected(&mut self, attachment: AttachmentId, connected: bool) {
        self.internet.set_connected(attachment, connected);
    }

    /// Changes how a router behaves; mappings stay. (The number of outside addresses and the translation cannot change.)
    pub fn change_router(&mut self, router: RouterId, change: impl FnOnce(&mut RouterConfig)) {
        let state = self.internet.router(router);
        let mut config = state.config().clone();
        change(&mut config);
        state.set_config(config);
    }

    /// The router forgets its mappings and what programs had forwarded. What was forwarded by hand stays.
    pub fn reboot_router(&mut self, router: RouterId) {
        let time = self.time;
        self.internet.router(router).reboot(time);
    }

    /// Mappings of a router that are alive.
    pub fn mapping_count(&mut self, router: RouterId) -> usize {
        let time = self.time;
        self.internet.router(router).mapping_count(time)
    }

    /// With `false` a node's reliable messages stay in it, as when its game does not poll; senders are held back.
    pub fn set_reliable_room(&mut self, host: HostId, reliable_room: bool) {
        self.hosts[host.0].reliable_room = reliable_room;
        if reliable_room {
            self.drive(host);
        }
    }
}

/// Input from the game or the test.
impl Lab {
    /// A request id that this lab has not given out before.
    pub fn next_request(&mut self) -> RequestId {
        self.next_request += 1;
        self.next_request - 1
    }

    /// Gives a command to a node.
    pub fn command(&mut self, node: HostId, command: Command) {
        self.with_engine(node, |node: &mut Node, now| node.command(now, command));
    }

    /// Sends a message from a node. Packets leave at once.
    ///
    /// # Errors
    /// Those of [`Node::send`].
    pub fn send(
        &mut self,
        node: HostId,
        peer: Guid,
        channel: u8,
        mode: SendMode,
        data: &[u8],
    ) -> Result<(), SendError> {
        self.with_engine(node, |node: &mut Node, now| node.send(now, peer, channel, mode, data))
    }

    /// Sends a datagram from a raw host.
    pub fn send_raw(&mut self, host: HostId, socket: SocketName, destination: SocketAddr, contents: &[u8]) {
        self.send_raw_with(host, socket, destination, contents, None);
    }

    /// Sends a datagram from a raw host with a time to live.
    pub fn send_raw_with(
        &mut self,
        host: HostId,
        socket: SocketName,
        destination: SocketAddr,
        contents: &[u8],
        time_to_live: Option<u8>,
    ) {
        let transmit = Transmit {
            socket,
            destination,
            ecn: None,
            size: contents.len(),
            segment_size: None,
            time_to_live,
        };
        self.with_engine(host, |raw: &mut RawHost, _| raw.send(transmit, contents));
    }

    /// Ends a server in order: its sessions are closed, then it is gone.
    pub fn shut_down_server(&mut self, host: HostId) {
        self.with_engine(host, |server: &mut Server, now| server.shut_down(now));
        self.crash(host);
    }

    /// Calls a host's engine, then drains it.
    ///
    /// # Panics
    /// If the host runs no engine, or one of another type.
    pub fn with_engine<E: LabEngine, R>(&mut self, host: HostId, call: impl FnOnce(&mut E, Instant) -> R) -> R {
        let now = self.now();
        let seed = self.seed;
        let state = &mut self.hosts[host.0];
        let Some(engine) = state.engine.as_deref_mut() else {
            panic!("host {} is not running (lab seed {seed})", state.name);
        };
        let engine = (engine as &mut dyn std::any::Any).downcast_mut::<E>();
        let engine = engine.expect("the host runs another kind of engine");
        let result = state.randomness.scope(|| call(engine, now));
        self.drive(host);
        result
    }
}

/// What has happened.
impl Lab {
    /// A host's engine.
    ///
    /// # Panics
    /// If the host runs no engine, or one of another type.
    pub fn engine<E: LabEngine>(&self, host: HostId) -> &E {
        let engine = self.hosts[host.0].engine.as_deref().expect("the host is running");
        let engine = (engine as &dyn std::any::Any).downcast_ref::<E>();
        engine.expect("the host runs another kind of engine")
    }

    /// Events of a node that were not taken yet, in order.
    pub fn events(&self, node: HostId) -> &[RecordedEvent] {
        &self.hosts[node.0].events
    }

    /// Takes a node's events.
    pub fn take_events(&mut self, node: HostId) -> Vec<RecordedEvent> {
        std::mem::take(&mut self.hosts[node.0].events)
    }

    /// Takes the first of a node's events that fits; the others stay.
    pub fn take_event(&mut self, node: HostId, mut fits: impl FnMut(&OwnedEvent) -> bool) -> Option<RecordedEvent> {
        let events = &mut self.hosts[node.0].events;
        let index = events.iter().position(|recorded| fits(&recorded.event))?;
        Some(events.remove(index))
    }

    /// What a raw host received and was not taken yet.
    pub fn received(&self, host: HostId) -> &[Received] {
        self.engine::<RawHost>(host).received()
    }

    /// Takes what a raw host received.
    pub fn take_received(&mut self, host: HostId) -> Vec<Received> {
        self.with_engine(host, |raw: &mut RawHost, _| raw.take_received())
    }

    /// A host's name.
    pub fn name(&self, host: HostId) -> &str {
        &self.hosts[host.0].name
    }

    /// Datagrams of a host.
    pub fn counters(&self, host: HostId) -> HostCounters {
        self.hosts[host.0].counters
    }

    /// Datagrams that ended on the way for that reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(&reason).copied().unwrap_or(0)
    }

    /// All reasons for which datagrams ended, with their numbers.
    pub fn drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }

    /// Keeps every datagram that is delivered from now on, whole.
    pub fn capture(&mut self) {
        self.captured.get_or_insert_default();
    }

    /// What was captured; nothing is from now on.
    pub fn take_captured(&mut self) -> Vec<Captured> {
        self.captured.take().unwrap_or_default()
    }

    /// Keeps every datagram that a host sends from now on, whole.
    pub fn capture_sent(&mut self) {
        self.sent.get_or_insert_default();
    }

    /// What hosts have sent; nothing is kept from now on.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        self.sent.take().unwrap_or_default()
    }

    /// Counts the probes of every host from now on.
    pub fn count_probes(&mut self) {
        self.probes.get_or_insert_default();
    }

    /// The probes of a host since they are counted; `None`: it has sent and received none.
    pub fn probes(&self, host: HostId) -> Option<&HostProbes> {
        self.probes.as_ref()?.get(&host)
    }

    /// Gives a host a datagram as if it had come from any address.
    pub fn inject(&mut self, host: HostId, socket: SocketName, source: SocketAddr, contents: &[u8]) {
        self.inject_into(host, socket, source, contents);
    }

    /// Records every datagram from now on.
    pub fn record_trace(&mut self) {
        self.trace.get_or_insert_default();
    }

    /// What was recorded.
    pub fn trace(&self) -> &[TraceEntry] {
        self.trace.as_deref().unwrap_or(&[])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the lab that was running had seed {}, at {:?}", self.seed, self.time);
        }
    }
}
