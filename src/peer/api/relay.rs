//! Relays: what a game asks for step by step, and what it hears. (A connection uses relays by itself, as the node's relay policy says.)

use std::net::SocketAddr;
use std::time::Duration;

use super::{Reason, RequestId};
use crate::transport::identity::Guid;
use crate::wire::control::RelayPolicy;

/// What a game asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayCommand {
    /// Open a way through another player (RakNet's Router2): `ROUTER_FORWARDING_ESTABLISHED` · `ROUTER_FORWARDING_NO_PATH` ·
    /// `ROUTER_FORWARDING_FAILED`.
    Route {
        /// Request.
        request: RequestId,
        /// To whom. Never this node itself (the caller checked).
        peer: Guid,
    },
    /// Open a way through a proxy server (RakNet's UDPProxy): `PROXY_FORWARDING_SUCCEEDED` · one of the other `PROXY_…` events.
    Proxy {
        /// Request.
        request: RequestId,
        /// To whom. Never this node itself (the caller checked).
        peer: Guid,
        /// The proxy may forget the pair after so much silence; zero: the server's choice.
        idle: Duration,
    },
    /// The node's own relay policy from now on. What stands is not changed. The opposite of the session's has no effect.
    SetPolicy(RelayPolicy),
    /// The relay policy of this node's session from now on, for all who will join it. Has no effect unless the node is alone.
    SetSessionPolicy(RelayPolicy),
}

/// What a game hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEvent {
    /// `ROUTER_FORWARDING_ESTABLISHED`
    RouterEstablished {
        /// The request that it ends.
        request: RequestId,
        /// To whom.
        peer: Guid,
        /// Through whom.
        via: Guid,
    },
    /// `ROUTER_FORWARDING_NO_PATH` or `ROUTER_FORWARDING_FAILED`
    RouterFailed {
        /// The request that it ends.
        request: RequestId,
        /// To whom.
        peer: Guid,
        /// Which of the two.
        outcome: RouterOutcome,
        /// Why.
        reason: Reason,
    },
    /// `ROUTER_REROUTED`: at the target when a player begins to forward for the pair, at both sides when another one takes over.
    Rerouted {
        /// The other side of the pair.
        peer: Guid,
        /// Through whom.
        via: Guid,
    },
    /// `PROXY_FORWARDING_SUCCEEDED`
    ProxySucceeded {
        /// The request that it ends.
        request: RequestId,
        /// To whom.
        peer: Guid,
        /// The proxy's address.
        address: SocketAddr,
    },
    /// One of the failures of `proxy`, by `outcome`.
    ProxyFailed {
        /// The request that it ends.
        request: RequestId,
        /// To whom.
        peer: Guid,
        /// Which.
        outcome: ProxyOutcome,
        /// Why.
        reason: Reason,
    },
    /// `PROXY_FORWARDING_NOTIFICATION`: a proxy forwards between this node and a player who asked for it.
    ProxyNotified {
        /// Who asked.
        peer: Guid,
        /// The proxy's address.
        address: SocketAddr,
    },
}

/// Which of the failures of `route` it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouterOutcome {
    /// `ROUTER_FORWARDING_NO_PATH`: no connected player is willing and reaches the target.
    NoPath,
    /// `ROUTER_FORWARDING_FAILED`: those that were willing failed, one after the other, or the game cancelled.
    Failed,
}

/// Which of the failures of `proxy` it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyOutcome {
    /// `PROXY_NO_SERVERS_ONLINE`
    NoServersOnline,
    /// `PROXY_RECIPIENT_NOT_CONNECTED`
    RecipientNotConnected,
    /// `PROXY_ALL_SERVERS_BUSY`
    AllServersBusy,
    /// `PROXY_IN_PROGRESS`
    InProgress,
}

impl RelayEvent {
    /// The request that it ends, if it ends one.
    pub fn ends_request(&self) -> Option<RequestId> {
        match *self {
            Self::RouterEstablished { request, .. }
            | Self::RouterFailed { request, .. }
            | Self::ProxySucceeded { request, .. }
            | Self::ProxyFailed { request, .. } => (request != 0).then_some(request),
            Self::Rerouted { .. } | Self::ProxyNotified { .. } => None,
        }
    }

    /// Why, where it carries a reason.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::RouterFailed { reason, .. } | Self::ProxyFailed { reason, .. } => Some(reason),
            _ => None,
        }
    }
}
