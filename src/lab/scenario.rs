//! A server and players behind routers, in a few lines, so that a test reads like a story.
//!
//! ```no_run
//! use lanline::lab::scenario::{RouterKind, Scenario};
//!
//! let mut scenario = Scenario::builder(7)
//!     .node(RouterKind::PortRestricted)
//!     .node(RouterKind::FullCone)
//!     .build();
//! scenario.connect_all();
//! let opened = scenario.open_nat(0, 1).unwrap();
//! println!("open after {:?}", opened.took);
//! scenario.connect_pair(0, 1);
//! ```
//!
//! ```text
//!              node ═LAN═ router ═══ n ═══╗
//!   (open) node ═════════════════════ n ══╬═ internet ══ s ══ server
//!        node ═LAN═╦ router ═══════ n ════╝
//!        node ═LAN═╝
//! ```
//! With a round trip R to the server and D between players behind different routers, n (one way, LAN included) is D/4 and
//! s is R/2 − D/4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::network::Prefix;
use super::{
    Allocation, Families, HostId, Lab, Link, NetworkId, OwnedEvent, RecordedEvent, RouterConfig, RouterId, derive_seed,
    half_loss, seeded_provider,
};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::peer::api::{Command, NodeConfig, RequestId};
use crate::relay::RelayLimits;
use crate::server::{RelayConfig, ServerConfig, ServerSocket};
use crate::transport::identity::{Guid, Identity, PublicKey};
use crate::wire::control::{Consent, RelayPolicy};

/// What a player sits behind.
#[derive(Debug, Clone, PartialEq)]
pub enum RouterKind {
    /// Nothing: a public address.
    Open,
    /// [`RouterConfig::full_cone`]
    FullCone,
    /// [`RouterConfig::address_restricted`]
    AddressRestricted,
    /// [`RouterConfig::port_restricted`]
    PortRestricted,
    /// [`RouterConfig::symmetric`]
    Symmetric(Allocation),
    /// Any router.
    Custom(RouterConfig),
}

impl RouterKind {
    /// The kinds between any two of which a direct path can always be opened.
    pub const EASY: [Self; 4] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
    ];

    fn config(&self) -> Option<RouterConfig> {
        Some(match self {
            Self::Open => return None,
            Self::FullCone => RouterConfig::full_cone(),
            Self::AddressRestricted => RouterConfig::address_restricted(),
            Self::PortRestricted => RouterConfig::port_restricted(),
            Self::Symmetric(allocation) => RouterConfig::symmetric(*allocation),
            Self::Custom(config) => config.clone(),
        })
    }
}

enum Place {
    Behind(RouterKind),
    /// Behind a router whose outside is in the LAN of another one.
    BehindTwo(RouterKind, RouterConfig),
    WithNode(usize),
    /// Behind a router of its own in the LAN of an earlier player's carrier.
    WithCarrierOf(RouterKind, usize),
}

/// A player some hundred kilometres from the server and from the others.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(60);
/// One way between a host of a LAN and the LAN's middle, or its router.
const LAN_LATENCY: Duration = Duration::from_micros(250);
/// The server's ports, as `lanline serve` has them.
const SERVER_PORT: u16 = 61_111;
const SERVER_SECOND_PORT: u16 = 61_112;
/// The server's name, where it has addresses of both IP versions.
const SERVER_NAME: &str = "server.lab";
/// The range of the LAN behind a carrier's router (RFC 6598).
const CARRIER_LAN: Prefix = Prefix::v4(100, 64, 0, 0, 16);
/// Each node has a port of its own, so that a mix-up of nodes of different LANs shows.
const FIRST_NODE_PORT: u16 = 40_000;
/// Time for things that are expected to happen without loss worth mentioning.
const PATIENCE: Duration = Duration::from_secs(60);

type NodeChange = Box<dyn Fn(usize, &mut NodeConfig)>;
type ServerChange = Box<dyn Fn(&mut ServerConfig)>;

/// Describes a [`Scenario`].
pub struct ScenarioBuilder {
    seed: u64,
    server_round_trip: Duration,
    peer_round_trip: Duration,
    loss: f64,
    change_link: fn(&mut Link),
    places: Vec<Place>,
    change_node: NodeChange,
    change_server: ServerChange,
    traced: bool,
    server_addresses: usize,
    families: Families,
    only_ipv4: Vec<usize>,
    max_sockets: Option<u16>,
    tunnel_port: u16,
}

impl ScenarioBuilder {
    /// Round trips: of each player to the server, and of players behind different routers to each other (60 ms both unless
    /// set). The latter is at most twice the former.
    pub fn round_trips(mut self, to_server: Duration, between_players: Duration) -> Self {
        assert!(
            between_players <= 2 * to_server,
            "the way between players leads past the server's own link"
        );
        assert!(between_players >= 4 * LAN_LATENCY, "a LAN alone takes longer");
        self.server_round_trip = to_server;
        self.peer_round_trip = between_players;
        self
    }

    /// Loss (0 to 1) of every way through the internet, in each direction: player to server, player to player.
    pub fn loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }

    /// Changes every link to the internet.
    pub fn links(mut self, change: fn(&mut Link)) -> Self {
        self.change_link = change;
        self
    }

    /// Adds a player behind a router of its own.
    pub fn node(mut self, kind: RouterKind) -> Self {
        self.places.push(Place::Behind(kind));
        self
    }

    /// Adds players, each behind a router of its own.
    pub fn nodes(mut self, count: usize, kind: RouterKind) -> Self {
        for _ in 0..count {
            self = self.node(kind.clone());
        }
        self
    }

    /// Adds a player behind two routers in a row: its own one, and a carrier's.
    pub fn node_behind_carrier(mut self, kind: RouterKind, carrier: RouterConfig) -> Self {
        self.places.push(Place::BehindTwo(kind, carrier));
        self
    }

    /// Adds a player behind a router of its own, and the carrier of an earlier player.
    pub fn node_behind_carrier_of(mut self, kind: RouterKind, earlier: usize) -> Self {
        assert!(matches!(self.places.get(earlier), Some(Place::BehindTwo(..))));
        self.places.push(Place::WithCarrierOf(kind, earlier));
        self
    }

    /// The server has that many public IPv4 addresses, each with its main and its second port (1 unless set).
    pub fn server_addresses(mut self, count: usize) -> Self {
        assert!(count >= 1);
        self.server_addresses = count;
        self
    }

    /// Server and players have IPv6 as well, and players know the server by a name. Routers let IPv6 in as their filter says, or
    /// openly ([`RouterConfig::ipv6_open`]).
    pub fn ipv6(mut self) -> Self {
        self.families = Families::Both;
        self
    }

    /// That player has IPv4 alone, whatever the others have.
    pub fn only_ipv4(mut self, player: usize) -> Self {
        self.only_ipv4.push(player);
        self
    }

    /// Further sockets that each player's system allows (320 unless set).
    pub fn max_sockets(mut self, count: u16) -> Self {
        self.max_sockets = Some(count);
        self
    }

    /// The server takes TLS streams on that TCP port.
    pub fn streams_at(mut self, port: u16) -> Self {
        self.tunnel_port = port;
        self
    }

    /// Adds a player behind the same router as an earlier one.
    pub fn node_behind_router_of(mut self, earlier: usize) -> Self {
        assert!(earlier < self.places.len());
        self.places.push(Place::WithNode(earlier));
        self
    }

    /// Changes the configuration of each node, given its number.
    pub fn configure_nodes(mut self, change: impl Fn(usize, &mut NodeConfig) + 'static) -> Self {
        self.change_node = Box::new(change);
        self
    }

    /// Changes the server's configuration.
    pub fn configure_server(mut self, change: impl Fn(&mut ServerConfig) + 'static) -> Self {
        self.change_server = Box::new(change);
        self
    }

    /// Records every datagram from the start.
    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    fn public_link(&self, latency: Duration) -> Link {
        let mut link = Link::internet(latency).with_loss(half_loss(self.loss));
        (self.change_link)(&mut link);
        link
    }

    /// Builds the lab and starts everybody. Nobody is connected to the server yet.
    pub fn build(self) -> Scenario {
        self.build_with(true)
    }

    /// The same internet, with plain hosts that echo in the places of the server and the players.
    pub fn build_raw(self) -> Scenario {
        self.build_with(false)
    }

    fn build_with(self, engines: bool) -> Scenario {
        let mut lab = Lab::new(self.seed);
        if self.traced {
            lab.record_trace();
        }
        let player_latency = self.peer_round_trip / 4;
        let server_link = self.public_link(self.server_round_trip / 2 - player_latency);
        let internet = lab.internet();
        let server = lab.add_host_with("server", internet, server_link, self.families);
        for _ in 1..self.server_addresses {
            lab.add_interface(server, internet, server_link, Families::V4);
        }
        if self.families == Families::Both {
            lab.set_name(SERVER_NAME, lab.addresses(server));
        }
        let server_identity = Arc::new(Identity::from_seed(derive_seed(self.seed, "server identity", 0)));
        let mut scenario = Scenario {
            server_key: server_identity.public(),
            server_address: SocketAddr::new(lab.addresses(server)[0], SERVER_PORT),
            lab,
            server,
            nodes: Vec::new(),
            guids: Vec::new(),
            keys: Vec::new(),
            routers: Vec::new(),
            families: self.families,
            router_link: self.public_link(player_latency - LAN_LATENCY),
            open_link: self.public_link(player_latency),
            carriers: Vec::new(),
        };
        scenario.start_server(server_identity, &self, engines);
        for (number, place) in self.places.iter().enumerate() {
            scenario.add_node(number, place, &self, engines);
        }
        scenario
    }
}

/// How an attempt to open a way ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// From the command to the success event of whichever side had it later.
    pub took: Duration,
    /// The path at the side that asked.
    pub path: PathKind,
    /// The other's address at the side that asked.
    pub address: SocketAddr,
}

/// A lab with a server and players. Players are named by their number.
pub struct Scenario {
    /// The lab.
    pub lab: Lab,
    /// The server.
    pub server: HostId,
    /// The server's key.
    pub server_key: PublicKey,
    /// The server's main address.
    pub server_address: SocketAddr,
    /// The players' hosts.
    pub nodes: Vec<HostId>,
    /// The players' names.
    pub guids: Vec<Guid>,
    /// The players' keys.
    pub keys: Vec<PublicKey>,
    /// The players' routers (players in one LAN share one); `None`: a public address.
    pub routers: Vec<Option<RouterId>>,
    families: Families,
    router_link: Link,
    open_link: Link,
    /// The carrier's router of each player, if there is one.
    carriers: Vec<Option<RouterId>>,
}

impl Scenario {
    /// Begins a description.
    pub fn builder(seed: u64) -> ScenarioBuilder {
        ScenarioBuilder {
            seed,
            server_round_trip: DEFAULT_ROUND_TRIP,
            peer_round_trip: DEFAULT_ROUND_TRIP,
            loss: 0.0,
            change_link: |_| {},
            places: Vec::new(),
            change_node: Box::new(|_, _| {}),
            change_server: Box::new(|_| {}),
            traced: false,
            server_addresses: 1,
            families: Families::V4,
            only_ipv4: Vec::new(),
            max_sockets: None,
            tunnel_port: 0,
        }
    }

    /// The sockets that `lanline serve` would open: on all of an IP version, or on each of several addresses.
    fn server_sockets(&self, builder: &ScenarioBuilder) -> Vec<ServerSocket> {
        let addresses = self.lab.addresses(self.server);
        let unspecified = |address: &IpAddr| match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut sockets: Vec<ServerSocket> = Vec::new();
        for (port, main) in [(SERVER_PORT, true), (SERVER_SECOND_PORT, false)] {
            for address in &addresses {
                let first = |name| main && sockets.iter().all(|socket| socket.name != name);
                let name = match address {
                    IpAddr::V4(_) if first(SocketName::Udp4) => SocketName::Udp4,
                    IpAddr::V6(_) if first(SocketName::Udp6) => SocketName::Udp6,
                    _ => {
                        let further = |socket: &&ServerSocket| matches!(socket.name, SocketName::Listen(_));
                        SocketName::Listen(sockets.iter().filter(further).count() as u8)
                    }
                };
                let bound = match builder.server_addresses {
                    1 => unspecified(address),
                    _ => *address,
                };
                sockets.push(ServerSocket {
                    name,
                    bound: SocketAddr::new(bound, port),
                    public: Some(SocketAddr::new(*address, port)),
                    main,
                });
            }
        }
        sockets
    }

    fn start_server(&mut self, identity: Arc<Identity>, builder: &ScenarioBuilder, engines: bool) {
        let sockets = self.server_sockets(builder);
        for socket in &sockets {
            self.lab.open_socket(self.server, socket.name, socket.bound);
        }
        let mut config = ServerConfig {
            identity,
            seed: [0; 32],
            crypto: seeded_provider(),
            access_key: String::new(),
            sockets,
            max_nodes: 10_000,
            relay: RelayConfig::Own(RelayLimits::default()),
            wall_clock: 0,
            proxy_password: super::proxies::PROXY_PASSWORD.to_owned(),
            tunnel_port: builder.tunnel_port,
        };
        (builder.change_server)(&mut config);
        if config.tunnel_port != 0 {
            let key = config.identity.public();
            self.lab.listen_for_streams(self.server, config.tunnel_port, key);
        }
        if engines {
            self.lab.start_server(self.server, config);
        } else {
            self.lab.start_echo(self.server);
        }
    }

    /// Builds what a player sits behind: its router, its network, its link into that.
    fn place(&mut self, kind: &RouterKind, carrier: Option<RouterId>) -> (Option<RouterId>, NetworkId, Link) {
        let Some(config) = kind.config() else {
            return (None, self.lab.internet(), self.open_link);
        };
        let router = match carrier {
            None => self.lab.add_router(self.lab.internet(), config, self.router_link),
            Some(carrier) => self
                .lab
                .add_router(self.lab.lan(carrier), config, Link::lan(Duration::ZERO)),
        };
        (Some(router), self.lab.lan(router), Link::lan(LAN_LATENCY))
    }

    fn add_node(&mut self, number: usize, place: &Place, builder: &ScenarioBuilder, engines: bool) {
        let carrier = match place {
            Place::BehindTwo(_, carrier) => {
                let (internet, link) = (self.lab.internet(), self.router_link);
                let carrier = carrier.clone();
                Some(self.lab.add_router_with_lan(internet, carrier, link, CARRIER_LAN))
            }
            Place::WithCarrierOf(_, earlier) => self.carriers[*earlier],
            _ => None,
        };
        self.carriers.push(carrier);
        let (router, network, link) = match place {
            Place::Behind(kind) | Place::BehindTwo(kind, _) | Place::WithCarrierOf(kind, _) => {
                self.place(kind, carrier)
            }
            Place::WithNode(earlier) => match self.routers[*earlier] {
                Some(router) => (Some(router), self.lab.lan(router), Link::lan(LAN_LATENCY)),
                None => (None, self.lab.internet(), self.open_link),
            },
        };
        let name = format!("node {number}");
        let families = match builder.only_ipv4.contains(&number) {
            true => Families::V4,
            false => self.families,
        };
        let host = self.lab.add_host_with(&name, network, link, families);
        let port = FIRST_NODE_PORT + number as u16;
        let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        self.lab.open_socket(host, SocketName::Udp4, v4);
        if families == Families::Both {
            let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            self.lab.open_socket(host, SocketName::Udp6, v6);
        }
        let identity = Identity::from_seed(derive_seed(builder.seed, "identity", number as u64));
        let mut config = node_config(identity);
        config.max_sockets = builder.max_sockets.unwrap_or(config.max_sockets);
        (builder.change_node)(number, &mut config);
        self.routers.push(router);
        self.nodes.push(host);
        self.guids.push(config.identity.guid());
        self.keys.push(config.identity.public());
        if engines {
            self.lab.start_node(host, config);
        } else {
            self.lab.start_echo(host);
        }
    }

    /// A player goes somewhere else: behind a new router of that kind, with a new address. Its engine is told.
    pub fn move_node(&mut self, player: usize, kind: &RouterKind) {
        let (router, network, link) = self.place(kind, None);
        self.routers[player] = router;
        self.lab.move_host(self.nodes[player], 0, network, link, self.families);
    }

    /// Gives a command that carries a new request id; returns the id.
    pub fn request(&mut self, player: usize, command: impl FnOnce(RequestId) -> Command) -> RequestId {
        let request = self.lab.next_request();
        self.lab.command(self.nodes[player], command(request));
        request
    }

    /// Tells a player to connect to the server, whose key it knows.
    pub fn connect_server(&mut self, player: usize) -> RequestId {
        let host = match self.families {
            Families::Both => SERVER_NAME.to_owned(),
            _ => self.server_address.ip().to_string(),
        };
        let (port, key) = (SERVER_PORT, Some(self.server_key));
        self.request(player, |request| Command::ConnectServer {
            request,
            host,
            port,
            key,
        })
    }

    /// Connects all players to the server.
    ///
    /// # Panics
    /// If one of them cannot.
    pub fn connect_all(&mut self) {
        for player in 0..self.nodes.len() {
            self.connect_server(player);
        }
        for player in 0..self.nodes.len() {
            self.expect(player, "SERVER_CONNECTED", |event| {
                matches!(event, OwnedEvent::ServerConnected { .. })
            });
        }
    }

    /// Waits for an event of a player and takes it; other events stay. `None` if it does not come within `limit`.
    pub fn wait(
        &mut self,
        player: usize,
        limit: Duration,
        fits: impl Fn(&OwnedEvent) -> bool,
    ) -> Option<RecordedEvent> {
        let node = self.nodes[player];
        // Events that were looked at already are not looked at again.
        let mut looked_at = 0;
        self.lab.run_until(limit, |lab| {
            let events = lab.events(node);
            let found = events[looked_at..].iter().any(|recorded| fits(&recorded.event));
            looked_at = events.len();
            found
        })?;
        self.lab.take_event(node, fits)
    }

    /// As [`wait`](Self::wait), with much patience.
    ///
    /// # Panics
    /// With what did happen instead, if it does not come.
    pub fn expect(&mut self, player: usize, what: &str, fits: impl Fn(&OwnedEvent) -> bool) -> RecordedEvent {
        match self.wait(player, PATIENCE, fits) {
            Some(event) => event,
            None => panic!(
                "player {player} waited {PATIENCE:?} for {what} (lab seed {}); instead: {:#?}",
                self.lab.seed(),
                self.lab.events(self.nodes[player])
            ),
        }
    }

    /// Waits for the event that ends a request of that player.
    ///
    /// # Panics
    /// If it does not come.
    pub fn outcome(&mut self, player: usize, request: RequestId) -> OwnedEvent {
        self.expect(player, "the end of its request", |event| {
            event.ends_request() == Some(request)
        })
        .event
    }

    /// Opens a way and waits until both sides know.
    ///
    /// # Errors
    /// The event with which it ended otherwise at the side that asked.
    pub fn open_nat(&mut self, asker: usize, target: usize) -> Result<Opened, OwnedEvent> {
        let begin = self.lab.elapsed();
        let peer = self.guids[target];
        let request = self.request(asker, |request| Command::OpenNat { request, peer });
        let ended = self.expect(asker, "the end of open NAT", |event| {
            event.ends_request() == Some(request)
        });
        let OwnedEvent::NatSucceeded { path, address, .. } = ended.event else {
            return Err(ended.event);
        };
        let own = self.guids[asker];
        let at_target = self.expect(
            target,
            "the other end's success",
            |event| matches!(event, OwnedEvent::NatSucceeded { peer, sender: false, .. } if *peer == own),
        );
        Ok(Opened {
            took: ended.time.max(at_target.time) - begin,
            path,
            address,
        })
    }

    /// Connects a player to another (which opens a way first, if there is none); waits until both sides know.
    ///
    /// # Errors
    /// The event with which it ended otherwise at the side that asked.
    pub fn try_connect_pair(&mut self, asker: usize, target: usize) -> Result<(), OwnedEvent> {
        let peer = Some(self.guids[target]);
        let address = None;
        let request = self.request(asker, |request| Command::ConnectPeer { request, peer, address });
        match self.outcome(asker, request) {
            OwnedEvent::Connected { .. } => {}
            other => return Err(other),
        }
        let own = self.guids[asker];
        self.expect(
            target,
            "the other end's CONNECTED",
            |event| matches!(event, OwnedEvent::Connected { peer, .. } if *peer == own),
        );
        Ok(())
    }

    /// As [`try_connect_pair`](Self::try_connect_pair).
    ///
    /// # Panics
    /// If they cannot connect.
    pub fn connect_pair(&mut self, asker: usize, target: usize) {
        if let Err(event) = self.try_connect_pair(asker, target) {
            panic!(
                "{asker} could not connect to {target} (lab seed {}): {event:?}",
                self.lab.seed()
            );
        }
    }

    /// All messages that a player has received, taken.
    pub fn take_messages(&mut self, player: usize) -> Vec<OwnedEvent> {
        let node = self.nodes[player];
        let is_message = |event: &OwnedEvent| matches!(event, OwnedEvent::Message { .. });
        std::iter::from_fn(|| self.lab.take_event(node, is_message))
            .map(|recorded| recorded.event)
            .collect()
    }
}

/// A configuration as the shell would make it for a game that sets nothing. Sockets, local addresses and seed are filled in
/// by [`Lab::start_node`].
pub fn node_config(identity: Identity) -> NodeConfig {
    NodeConfig {
        identity: Arc::new(identity),
        seed: [0; 32],
        crypto: seeded_provider(),
        app: "lab".to_owned(),
        access_key: String::new(),
        max_peers: 64,
        lost_peer_timeout: Duration::from_secs(10),
        relay_policy: RelayPolicy::default(),
        router_max: 0,
        accept_from: Consent::default(),
        join_auto: true,
        partial_mesh: false,
        join_time_limit: Duration::from_secs(30),
        manual_address: None,
        sockets: Vec::new(),
        max_sockets: 320,
        local_addresses: Vec::new(),
    }
}
