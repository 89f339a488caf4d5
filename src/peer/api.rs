//! What goes into a [`Node`](super::Node) and what comes out of it: configuration, commands, events, views.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::codes::{Code, MappingProtocol, PathKind, SendMode};
use crate::engine::SocketName;
use crate::transport::LinkStats;
use crate::transport::identity::{Guid, Identity, PublicKey};
use crate::wire::control::{Consent, RelayPolicy};
use crate::wire::mesh::MemberState;

pub mod nat;
pub mod relay;
use nat::{DetectOptions, MappingAnswer, MappingOrder, NatReport};
use relay::{RelayCommand, RelayEvent};

/// Names a call of the game that ends in one terminal event. 0: nobody asked.
pub type RequestId = u32;

/// How to set up a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Who the node is.
    pub identity: Arc<Identity>,
    /// Everything random in the engine comes from this.
    pub seed: [u8; 32],
    /// TLS primitives.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// The game's identifier: 1 to 64 bytes.
    pub app: String,
    /// The server's access key; empty: none.
    pub access_key: String,
    /// Most connected players.
    pub max_peers: usize,
    /// A peer silent for this long is lost (500 ms to 60 s; default 10 s).
    pub lost_peer_timeout: Duration,
    /// When packets may go through a relay.
    pub relay_policy: RelayPolicy,
    /// Pairs of other players that this node forwards for at a time (RakNet's Router2); 0: none.
    pub router_max: usize,
    /// Who this node may be introduced to.
    pub accept_from: Consent,
    /// Connect to the members of a join by itself.
    pub join_auto: bool,
    /// A join may succeed with unreached members.
    pub partial_mesh: bool,
    /// Time for a whole verified join, as the host of one (1 s to 10 min; default 30 s).
    pub join_time_limit: Duration,
    /// A port forwarded by hand.
    pub manual_address: Option<SocketAddr>,
    /// The sockets there are, with the address each is bound to (port never 0).
    pub sockets: Vec<(SocketName, SocketAddr)>,
    /// Addresses of the machine's interfaces (no loopback, no link-local); LAN candidates are these with the socket's port.
    pub local_addresses: Vec<IpAddr>,
    /// Most further sockets that may be open at once, for birthday punching and for finding out how a router gives ports: a part of
    /// what the system lets a process open. 0: none.
    pub max_sockets: u16,
}

/// What a game asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Open a session with a server: `SERVER_CONNECTED` · `SERVER_FAILED`.
    ConnectServer {
        /// Request.
        request: RequestId,
        /// Name or address.
        host: String,
        /// UDP port.
        port: u16,
        /// The key that the server must prove.
        key: Option<PublicKey>,
    },
    /// Close it: `SERVER_DISCONNECTED`.
    DisconnectServer {
        /// Request.
        request: RequestId,
    },
    /// Open a path: one of the `NAT_…` events.
    OpenNat {
        /// Request.
        request: RequestId,
        /// To whom. Never this node itself (the caller checked).
        peer: Guid,
    },
    /// Connect: `CONNECTED` · `CONNECTION_FAILED`. At least one of `peer` and `address` is there.
    ConnectPeer {
        /// Request.
        request: RequestId,
        /// To whom.
        peer: Option<Guid>,
        /// At which address, without a server's help.
        address: Option<SocketAddr>,
    },
    /// Close a connection: `DISCONNECTED` at both sides.
    Disconnect {
        /// Whose.
        peer: Guid,
        /// The game's own number.
        user_code: u32,
        /// At most 256 bytes.
        text: String,
    },
    /// End a request: its terminal event comes with code CANCELLED.
    Cancel {
        /// Which.
        request: RequestId,
    },
    /// Find out what this node sits behind: `NAT_TYPE`.
    DetectNat {
        /// Request.
        request: RequestId,
        /// How.
        options: DetectOptions,
    },
    /// Have a router forward the node's port: `PORT_MAPPED` · `PORT_MAPPING_FAILED`; on the way `PORT_MAPPING_PROGRESS`.
    MapPort {
        /// Request.
        request: RequestId,
        /// For the first router that answers.
        timeout: Duration,
    },
    /// Find out everything about the way to others: `REPORT`.
    Report {
        /// Request.
        request: RequestId,
        /// Ask the routers for a port, too (it is given back unless the game asked for one).
        map_port: bool,
        /// How to find out about the NAT.
        detect: DetectOptions,
    },
    /// A call that belongs to the mesh.
    Mesh(MeshCommand),
    /// A call about relays.
    Relay(RelayCommand),
}

/// What a game asks of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshCommand {
    /// Host: invite a connected peer.
    StartVerifiedJoin {
        /// Request: ends in `VERIFIED_JOIN_CAPABLE` or `VERIFIED_JOIN_FAILED`.
        request: RequestId,
        /// Whom.
        peer: Guid,
        /// Data for START.
        data: Vec<u8>,
    },
    /// Joiner: data that goes with CAPABLE to that host.
    JoinData {
        /// The host.
        peer: Guid,
        /// The data.
        data: Vec<u8>,
    },
    /// Host: the answer to CAPABLE.
    RespondJoin {
        /// The joiner.
        peer: Guid,
        /// In or not.
        accept: bool,
        /// Data for ACCEPTED or REJECTED.
        data: Vec<u8>,
    },
    /// Time in menus shall not count.
    ResetHostCalculation,
    /// Leave the session; connections stay (disconnect ends each that is not wanted any more). A graceful leave is told to everybody.
    Leave,
    /// Host: remove a member. Its connections to the host and to the members are closed with code KICKED and this text.
    Kick {
        /// Whom.
        peer: Guid,
        /// Why.
        text: String,
    },
}

/// A reason with words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub code: Code,
    /// For people: what happened, and what to do about it.
    pub text: String,
}

/// What a game hears. Each variant says which event of the C ABI it becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// `SERVER_CONNECTED`
    ServerConnected {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// The server's key.
        key: PublicKey,
        /// The key is the one that was given.
        verified: bool,
        /// This node's address as the server sees it.
        observed: SocketAddr,
    },
    /// `SERVER_FAILED`
    ServerFailed {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// Why.
        reason: Reason,
    },
    /// `SERVER_LOST`
    ServerLost {
        /// Why.
        reason: Reason,
    },
    /// `SERVER_RECONNECTED`
    ServerReconnected {
        /// The server's key.
        key: PublicKey,
        /// This node's address as the server sees it.
        observed: SocketAddr,
    },
    /// `SERVER_DISCONNECTED`
    ServerDisconnected {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
    },
    /// `NAT_PUNCHTHROUGH_SUCCEEDED`
    NatSucceeded {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// Who.
        peer: Guid,
        /// How packets reach it.
        path: PathKind,
        /// Where it is, or was sought.
        address: SocketAddr,
        /// This node asked.
        sender: bool,
    },
    /// By `outcome`: `NAT_PUNCHTHROUGH_FAILED`, `NAT_TARGET_NOT_CONNECTED`, `NAT_TARGET_UNRESPONSIVE`,
    /// `NAT_CONNECTION_TO_TARGET_LOST`, `NAT_ALREADY_IN_PROGRESS`
    NatFailed {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// Who.
        peer: Guid,
        /// Which failure.
        outcome: NatOutcome,
        /// Why.
        reason: Reason,
        /// This node asked.
        sender: bool,
    },
    /// `CONNECTED`
    Connected {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// Who.
        peer: Guid,
        /// How packets reach it.
        path: PathKind,
        /// Where it is, or was sought.
        address: SocketAddr,
    },
    /// `CONNECTION_FAILED`; `peer` is `None` if only an address was known.
    ConnectionFailed {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// Who.
        peer: Option<Guid>,
        /// Where it is, or was sought.
        address: Option<SocketAddr>,
        /// Why.
        reason: Reason,
    },
    /// `DISCONNECTED`
    Disconnected {
        /// Who.
        peer: Guid,
        /// Why.
        reason: Reason,
        /// The game's own number, of whoever closed.
        user_code: u32,
    },
    /// `MESSAGE`
    Message {
        /// Who.
        peer: Guid,
        /// 0 to 63.
        channel: u8,
        /// As it was sent.
        mode: SendMode,
        /// The payload.
        data: &'a [u8],
    },
    /// `DROPPED`
    Dropped {
        /// Whose messages, or messages to whom.
        peer: Guid,
        /// How many since the last such event of that peer.
        count: u64,
    },
    /// `PATH_CHANGED`
    PathChanged {
        /// Who.
        peer: Guid,
        /// The kind before.
        from: PathKind,
        /// The kind now.
        to: PathKind,
        /// Where it is, or was sought.
        address: SocketAddr,
    },
    /// `NAT_TYPE`
    NatDetected {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// What is known now.
        report: Box<NatReport>,
        /// Why less is known than usual; `None`: all questions were answered.
        reason: Option<Reason>,
    },
    /// `PORT_MAPPED`
    PortMapped {
        /// The request that it ends; 0: nobody asked (the mapping was made anew at another address).
        request: RequestId,
        /// The address at the router.
        external: SocketAddr,
        /// How it was asked for.
        protocol: MappingProtocol,
        /// Another router stands before that one.
        double_nat: bool,
        /// In words.
        text: String,
    },
    /// `PORT_MAPPING_FAILED`
    PortMappingFailed {
        /// The request that it ends; 0: nobody asked (a mapping was lost for good).
        request: RequestId,
        /// Why.
        reason: Reason,
    },
    /// `PORT_MAPPING_PROGRESS`
    PortMappingProgress {
        /// The request that it belongs to; it goes on.
        request: RequestId,
        /// In words.
        text: String,
    },
    /// `REPORT`
    Report {
        /// The request that it ends.
        request: RequestId,
        /// Why there is none: CANCELLED.
        reason: Option<Reason>,
        /// For programs.
        json: String,
        /// For people.
        text: String,
    },
    /// Something of the mesh.
    Mesh(MeshEvent),
    /// Something of relays.
    Relay(RelayEvent),
    /// `NOTICE`
    Notice {
        /// In words.
        text: String,
    },
}

/// Which of the failures of open NAT it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatOutcome {
    /// `NAT_PUNCHTHROUGH_FAILED`
    Failed,
    /// `NAT_TARGET_NOT_CONNECTED`
    TargetNotConnected,
    /// `NAT_TARGET_UNRESPONSIVE`
    TargetUnresponsive,
    /// `NAT_CONNECTION_TO_TARGET_LOST`
    ConnectionToTargetLost,
    /// `NAT_ALREADY_IN_PROGRESS`
    AlreadyInProgress,
}

/// What a game hears of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// `VERIFIED_JOIN_START` at the joiner.
    JoinStart {
        /// The host.
        host: Guid,
        /// Members to connect to, those of [`JoinView`]: host and joiner are not counted, so 0 for the first joiner.
        members: u32,
        /// The other game's data.
        data: Vec<u8>,
    },
    /// `VERIFIED_JOIN_CAPABLE` at the host; ends the request of `StartVerifiedJoin`.
    JoinCapable {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// Who joins.
        joiner: Guid,
        /// The other game's data.
        data: Vec<u8>,
    },
    /// `VERIFIED_JOIN_ACCEPTED` at the joiner.
    JoinAccepted {
        /// The host.
        host: Guid,
        /// Members, host and joiner included.
        members: u32,
        /// The other game's data.
        data: Vec<u8>,
    },
    /// `VERIFIED_JOIN_REJECTED` at the joiner.
    JoinRejected {
        /// The host.
        host: Guid,
        /// The other game's data.
        data: Vec<u8>,
    },
    /// `VERIFIED_JOIN_FAILED` at either side; `member`: who could not be reached.
    JoinFailed {
        /// The request that it ends; 0: nobody asked.
        request: RequestId,
        /// The other side of the join.
        peer: Guid,
        /// Which member.
        member: Option<Guid>,
        /// Why.
        reason: Reason,
    },
    /// `NEW_HOST`
    NewHost {
        /// The host.
        host: Guid,
        /// The one before.
        old: Option<Guid>,
    },
    /// `MEMBER_JOINED`
    MemberJoined {
        /// Which member.
        member: Guid,
    },
    /// `MEMBER_LEFT`
    MemberLeft {
        /// Which member.
        member: Guid,
        /// Why.
        reason: Reason,
    },
}

/// What only the outside can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideEffect {
    /// Resolve a name to addresses, A and AAAA.
    Resolve {
        /// Echoed in the answer.
        id: u32,
        /// The name (literals never come here).
        host: String,
    },
    /// Open UDP sockets on ports of the system's choice, named `Birthday(first)` to `Birthday(first + count - 1)`. Answered at once, with
    /// those that could be opened.
    OpenSockets {
        /// Echoed in the answer.
        id: u32,
        /// The number of the first.
        first: u16,
        /// How many.
        count: u16,
        /// IPv6 instead of IPv4.
        ipv6: bool,
    },
    /// Close sockets that [`SideEffect::OpenSockets`] opened.
    CloseSockets(Vec<SocketName>),
    /// Ask routers to forward a port, renew that, or take it back.
    MapPort(MappingOrder),
    /// Open a TLS stream over TCP ([`crate::wire::tunnel`]) to a server; it becomes the socket [`SocketName::Tunnel`] of that number. Answered by
    /// `TunnelOpened` or `TunnelFailed`; after the former, by `TunnelClosed` when it ends.
    OpenTunnel {
        /// Its number; never used before.
        tunnel: u32,
        /// The server's TCP address.
        address: SocketAddr,
        /// The key that the server must prove; `None`: any.
        key: Option<PublicKey>,
    },
    /// Close a stream, or give it up. What was sent before goes out first.
    CloseTunnel {
        /// Its number.
        tunnel: u32,
    },
}

/// The outside's answer to a [`SideEffect`], or news from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideEffectAnswer {
    /// Addresses of a name, or why there are none.
    Resolved {
        /// From [`SideEffect::Resolve`].
        id: u32,
        /// In order of preference.
        addresses: Result<Vec<IpAddr>, String>,
    },
    /// The machine's interfaces changed.
    LocalAddresses(Vec<IpAddr>),
    /// Sockets that were opened.
    SocketsOpened {
        /// From [`SideEffect::OpenSockets`].
        id: u32,
        /// Each with the address it is bound to (port never 0). May be fewer than asked for, or none.
        sockets: Vec<(SocketName, SocketAddr)>,
    },
    /// What a router said.
    Mapping(MappingAnswer),
    /// A stream stands.
    TunnelOpened {
        /// From [`SideEffect::OpenTunnel`].
        tunnel: u32,
    },
    /// A stream could not be opened.
    TunnelFailed {
        /// From [`SideEffect::OpenTunnel`].
        tunnel: u32,
        /// WRONG_KEY, or NO_ANSWER for everything that a network can do.
        code: Code,
        /// A few words: "refused", "no answer".
        text: String,
    },
    /// A stream that stood has ended.
    TunnelClosed {
        /// From [`SideEffect::OpenTunnel`].
        tunnel: u32,
        /// A few words.
        text: String,
    },
}

/// What accessor calls (stats, participants, host …) show: a snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Connected peers.
    pub peers: Vec<PeerView>,
    /// The session.
    pub mesh: MeshView,
    /// Server session: connected or not.
    pub server_connected: bool,
    /// The node's address as the server sees it.
    pub observed: Option<SocketAddr>,
    /// Datagrams dropped, by reason, for `stats`.
    pub dropped_datagrams: u64,
    /// What is known of this node's NAT and mapped ports.
    pub nat: NatReport,
}

/// A connected peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerView {
    /// Who.
    pub peer: Guid,
    /// How packets reach it.
    pub path: PathKind,
    /// Where they go.
    pub address: SocketAddr,
    /// Figures.
    pub stats: LinkStats,
}

/// The session as this node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshView {
    /// The host; `None`: unknown for the moment. Alone: this node.
    pub host: Option<Guid>,
    /// Everybody in host order, this node included.
    pub order: Vec<Guid>,
    /// The node's own relay policy.
    pub own_relay_policy: RelayPolicy,
    /// What its session (and sessions that it is joining) ask beside it.
    pub session_relay_policy: RelayPolicy,
    /// Joins run at this node as their host.
    pub inviting: bool,
    /// Running joins at the joiner: each with its host and the members to reach, host and joiner not among them.
    pub joins: Vec<JoinView>,
    /// Joins at the host that wait for the game's answer.
    pub capable: Vec<Guid>,
}

impl MeshView {
    /// What holds: the node's own relay policy with its session's, which is never the opposite.
    pub fn relay_policy(&self) -> RelayPolicy {
        let both = self.own_relay_policy.with(self.session_relay_policy);
        both.unwrap_or(RelayPolicy::Only)
    }
}

/// A running join as the joiner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinView {
    /// The host that sent START.
    pub host: Guid,
    /// Members with state and text (why it failed).
    pub members: Vec<(Guid, MemberState, String)>,
}
