//! What goes in and comes out about NATs and port mapping.

use std::net::SocketAddr;
use std::time::Duration;

use crate::codes::{MappingProtocol, NatType};
use crate::wire::introduction::NatFacts;

/// How to find out what a node sits behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetectOptions {
    /// Ask this STUN server (RFC 5780) instead of the node's own one. Name or address, and port.
    pub server: Option<(String, u16)>,
    /// Also find out how long a silent mapping lives, waiting at most for this long.
    pub lifetime_up_to: Option<Duration>,
}

/// What is known of a node's NAT, and of the ports that routers forward to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatReport {
    /// The address of a port that was forwarded by hand, as the game named it.
    pub manual: Option<SocketAddr>,
    /// False: nothing has been found out yet.
    pub known: bool,
    /// The name that the facts allow: the most restrictive one.
    pub name: Option<NatType>,
    /// The facts leave no other name.
    pub certain: bool,
    /// What was observed.
    pub facts: NatFacts,
    /// The public IPv4 address of the node's socket.
    pub public_v4: Option<SocketAddr>,
    /// The IPv6 address at which a server saw the node.
    pub public_v6: Option<SocketAddr>,
    /// The IPv4 address that the server sees is one of the machine's own: no translation.
    pub untranslated: Option<bool>,
    /// A silent mapping lives at least (and, if the second is there, less than) this long.
    pub lifetime: Option<(Duration, Option<Duration>)>,
    /// Outside ports of new mappings, in the order in which they were made, with the local port of each.
    pub samples: Vec<(u16, u16)>,
    /// New mappings get different public IP addresses.
    pub several_addresses: Option<bool>,
    /// No answer to any UDP packet came, not even from the server.
    pub udp_blocked: Option<bool>,
    /// Round trip to the server.
    pub round_trip: Option<Duration>,
    /// Ports that routers forward: at most one of each IP version, IPv4 first.
    pub mappings: Vec<MappedPort>,
    /// The port that was forwarded by hand lets strangers in; `None`: there is none, or it could not be found out.
    pub manual_open: Option<bool>,
    /// Strangers reach this machine's sockets over IPv6; `Some(false)`: a firewall keeps them out. `None`: not known.
    pub v6_open: Option<bool>,
}

/// A port that a router forwards to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedPort {
    /// The address at the router.
    pub external: SocketAddr,
    /// How it was asked for.
    pub protocol: MappingProtocol,
    /// The router's address is not what the server sees: another router stands before it.
    pub double_nat: bool,
    /// Strangers were seen to get in there, or (although the server's answers arrived elsewhere) not to. `None`: not tried, or not
    /// known; only an address at which the server sees this node can be tried.
    pub reachable: Option<bool>,
}

impl MappedPort {
    /// As far as is known, strangers get in there.
    pub fn is_good(&self) -> bool {
        !self.double_nat && self.reachable != Some(false)
    }
}

/// Names a try at mapping a port; chosen by the engine.
pub type MappingId = u32;

/// What routers are to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingOrder {
    /// Find a router that speaks this protocol and have it forward `external` (or another port) to `internal`. Answered with
    /// [`MappingAnswer::Granted`] or [`MappingAnswer::Failed`] within `timeout`. An order for a protocol and IP version that an older one was
    /// for renews, moves or makes anew what that gave, and takes its place; an older one that is not answered yet is not answered any more.
    Map {
        /// Echoed in the answers.
        id: MappingId,
        /// By which protocol.
        protocol: MappingProtocol,
        /// The node's socket (the address may be unspecified).
        internal: SocketAddr,
        /// The external port to suggest.
        external: u16,
        /// For how long, in seconds.
        lifetime: u32,
        /// When to give up.
        timeout: Duration,
    },
    /// Take back what [`MappingOrder::Map`] with that id gave, or is about to give, and what older orders for the same protocol and IP
    /// version left. Not answered.
    Unmap {
        /// Which.
        id: MappingId,
    },
}

/// Why no router forwards a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingFailure {
    /// Somebody else has that external port: another one may be free.
    Conflict,
    /// Nobody speaks the protocol.
    Silent,
    /// The router has no public address of its own: another router stands before it, or its line is down.
    NoPublicAddress,
    /// A router turned it down, or what it answered cannot be used.
    Refused,
}

/// A protocol by which no port is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedProtocol {
    /// Which.
    pub protocol: MappingProtocol,
    /// Why.
    pub why: MappingFailure,
    /// In words.
    pub text: String,
}

/// What a router said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingAnswer {
    /// A step on the way, in words.
    Progress {
        /// Which.
        id: MappingId,
        /// In words.
        text: String,
    },
    /// The port is forwarded.
    Granted {
        /// Which.
        id: MappingId,
        /// The router's address and the port there.
        external: SocketAddr,
        /// Seconds until it ends unless it is renewed; 0: it does not end by itself.
        lifetime: u32,
        /// Changes when the router was restarted (PCP and NAT-PMP count seconds); `None`: not told.
        epoch: Option<u32>,
    },
    /// Nobody forwards the port.
    Failed {
        /// Which.
        id: MappingId,
        /// Why.
        why: MappingFailure,
        /// In words.
        text: String,
    },
}
