//! QUIC over paths that somebody else chooses: identities, channels, congestion. No IO.
//!
//! In: datagrams (each with the synthetic address whose path brought it), the time, messages to send. Out: datagrams, messages,
//! [`LinkEvent`]s, and the next deadline. One quinn-proto endpoint plays both parts, client and server.
//!
//! | file | what |
//! |---|---|
//! | `tls` | raw Ed25519 keys on both sides, the expected one checked inside the handshake |
//! | [`tunnel_tls`] | the same keys for TLS over TCP ([`crate::wire::tunnel`]) |
//! | `connection_id` | ids that are recognized without a table |
//! | `config` | how QUIC is tuned, and why |
//! | `congestion` | the controller that keeps queues short |
//! | `framing` | how messages stand in streams and DATAGRAM frames |
//! | `control`, `reliable`, `unreliable` | the queues between messages and QUIC |
//! | `endpoint` | [`Transport`]: the endpoint, its links, what has to be done for which |
//! | `half_open` | which incoming handshakes are accepted, and what is sent before their source is proven |
//! | `link` | a connection with its queues |
//! | `messages` | game messages in and out of links |
//! | `close` | what travels with a close, and what QUIC's reasons mean |
//! | `timers` | when which link wants to be called |
//!
//! Timers: QUIC's own (loss, acknowledgement, pacing, keep-alive, idle), and one more a link: silence for the lost-peer time ends it,
//! whatever is being sent. Links that have nothing to do cost nothing: what has changed stands in lists.
//!
//! Packets of unknown connections are never answered. The only answers to strangers are QUIC's version negotiation, a Retry, and the refusal
//! of a handshake, and only to datagrams of at least 1200 bytes, which they are smaller than; a handshake itself sends no more than it received
//! until the source is proven.

mod close;
mod config;
mod congestion;
mod connection_id;
mod control;
mod endpoint;
mod framing;
mod half_open;
pub mod identity;
mod link;
mod messages;
mod reliable;
#[cfg(test)]
mod tests;
mod timers;
mod tls;
pub mod tunnel_tls;
mod unreliable;

pub use endpoint::Transport;
pub use half_open::Origin;
pub use messages::{Outgoing, TakenMessage};

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::codes::SendMode;
use crate::wire::{ALPN_PEER, ALPN_PROXY, ALPN_SERVER};
use identity::{Identity, PublicKey};

/// The synthetic address under which QUIC knows the other side of a link: a unique local address (fd00::/8) with random host
/// bits, so that peers cannot guess it. Which real path carries its packets is `peer::paths`' business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyntheticAddress(pub Ipv6Addr);

/// A connection of this endpoint. Never reused within the life of a [`Transport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a link is for; decides ALPN, stream limits, windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Between two players: control stream, 64 channels.
    Peer,
    /// Between a node and a server: control stream only; small, because a server holds thousands.
    Server,
    /// Between a proxy server and its coordinator, which takes them beside links of nodes: as `Server`.
    Proxy,
}

impl LinkKind {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peer => ALPN_PEER,
            Self::Server => ALPN_SERVER,
            Self::Proxy => ALPN_PROXY,
        }
    }

    /// The kinds that come in where that kind is accepted.
    fn accepted(self) -> &'static [LinkKind] {
        match self {
            Self::Peer => &[Self::Peer],
            Self::Server => &[Self::Server, Self::Proxy],
            Self::Proxy => &[Self::Proxy],
        }
    }
}

/// How to set up a [`Transport`].
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Who this endpoint is.
    pub identity: Arc<Identity>,
    /// Everything random in the engine comes from this.
    pub seed: [u8; 32],
    /// TLS primitives: ring's in the shell, a seeded one in the lab.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// Which kinds of links may come in. A player accepts `Peer`, a server accepts `Server` (and with it `Proxy`).
    pub accepts: Option<LinkKind>,
    /// A peer that is silent for this long is lost. Both sides' smaller value counts.
    pub lost_peer_timeout: Duration,
    /// Silence after which a keep-alive goes out (paths need it; well under a NAT's 30 s, and under a third of the lost-peer time).
    pub keep_alive: Duration,
    /// Most links, of both directions, handshakes of ours included. Incoming handshakes have bounds of their own (see `half_open`), and a few
    /// links beyond this are kept for sources that the engine trusts.
    pub max_links: usize,
}

/// What happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The handshake is done and the other side's key is proven. For a link that came in this is the first that is heard of it.
    Connected {
        /// Which.
        link: LinkId,
        /// The synthetic address it talks to.
        address: SyntheticAddress,
        /// The proven key of the other side.
        key: PublicKey,
        /// True if this side dialled.
        dialled: bool,
    },
    /// There is something for [`Transport::next_control`] or [`Transport::next_message`].
    Readable {
        /// Which.
        link: LinkId,
    },
    /// There is room again after [`SendError::Full`].
    Writable {
        /// Which.
        link: LinkId,
    },
    /// The link is over. What had arrived before can still be read until [`Transport::forget`].
    Closed {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// This side closed it.
    Local,
    /// The other side closed it, with these.
    Remote(CloseInfo),
    /// Silence for longer than the lost-peer time.
    TimedOut,
    /// No answer to the handshake in time.
    NoAnswer,
    /// The other side proved another key than the one that was expected.
    WrongKey(PublicKey),
    /// The other side speaks another version (QUIC version or ALPN).
    Incompatible,
    /// The other side broke QUIC, TLS or our framing.
    ProtocolViolation(String),
}

/// What travels with a close on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseInfo {
    /// A [`crate::codes::Code`] number: CLOSED, KICKED, REFUSED, FULL, INCOMPATIBLE, REPLACED …
    pub code: i32,
    /// The game's own number.
    pub user_code: u32,
    /// At most [`crate::codes::MAX_DISCONNECT_TEXT`] bytes of UTF-8.
    pub text: String,
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The link's queue for this kind of message is full; [`LinkEvent::Writable`] follows when there is room.
    Full,
    /// No such link, or it is not connected.
    NotConnected,
    /// Larger than the mode allows.
    TooLarge,
}

/// A received game message, borrowed until the next call.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// 0 to 63.
    pub channel: u8,
    /// The mode it was sent with.
    pub mode: SendMode,
    /// The payload.
    pub data: &'a [u8],
}

/// Figures of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Smoothed round trip.
    pub round_trip: Duration,
    /// Smallest round trip seen on this path.
    pub min_round_trip: Duration,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// QUIC packets declared lost.
    pub packets_lost: u64,
    /// Game messages sent.
    pub messages_sent: u64,
    /// Game messages received.
    pub messages_received: u64,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Largest UDP payload the path carries, in bytes.
    pub mtu: u16,
    /// Bytes waiting in this side's queues.
    pub bytes_queued: u64,
}

/// Datagrams that were not for any link, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransportCounters {
    /// No link with that connection id.
    pub unknown_connection: u64,
    /// Handshakes turned down because `max_links`, or a bound of handshakes from proven addresses, was reached.
    pub refused_full: u64,
    /// Handshakes that were asked to prove their address first.
    pub retries: u64,
    /// Undecodable.
    pub malformed: u64,
}
