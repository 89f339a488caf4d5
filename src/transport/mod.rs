//! QUIC over paths that somebody else chooses: identities, channels, congestion. No IO.

pub mod identity;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::EcnCodepoint;

use crate::codes::SendMode;
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
    /// Which kinds of links may come in. A player accepts `Peer`, a server accepts `Server`.
    pub accepts: Option<LinkKind>,
    /// A peer that is silent for this long is lost. Both sides' smaller value counts.
    pub lost_peer_timeout: Duration,
    /// Silence after which a keep-alive goes out (paths need it; well under a NAT's 30 s, and under a third of the lost-peer time).
    pub keep_alive: Duration,
    /// Most links, of both directions, handshakes included.
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
    /// Handshakes turned down because `max_links` was reached.
    pub refused_full: u64,
    /// Undecodable.
    pub malformed: u64,
}

/// One QUIC endpoint and its links.
///
/// Drained like an engine: [`poll_transmit`](Self::poll_transmit), [`poll_event`](Self::poll_event),
/// [`poll_timeout`](Self::poll_timeout).
pub struct Transport {
    _config: TransportConfig,
}

#[allow(unused_variables, missing_docs)]
impl Transport {
    pub fn new(config: TransportConfig) -> Self {
        Self { _config: config }
    }

    /// Draws a fresh synthetic address.
    pub fn new_address(&mut self) -> SyntheticAddress {
        unimplemented!()
    }

    /// Dials. `expected`: the key that the other side must prove; `None` accepts any and reports it. `initial_round_trip`: an estimate, so
    /// that a lost first packet is repeated soon. Ends in [`LinkEvent::Connected`] or [`LinkEvent::Closed`].
    pub fn connect(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        kind: LinkKind,
        expected: Option<PublicKey>,
        initial_round_trip: Option<Duration>,
    ) -> LinkId {
        unimplemented!()
    }

    /// Takes a QUIC packet that came over a path of `address`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        ecn: Option<EcnCodepoint>,
        contents: BytesMut,
    ) {
        unimplemented!()
    }

    /// True if the packet (first bits 01) carries a connection id that this endpoint gave out; it does not say for which link.
    pub fn knows_connection_id(&self, packet: &[u8]) -> bool {
        unimplemented!()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        unimplemented!()
    }

    /// Appends the next packets to `buffer`; returns where they go, the ECN mark, and the segment size if there are several.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> Option<(SyntheticAddress, Option<EcnCodepoint>, Option<usize>)> {
        unimplemented!()
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        unimplemented!()
    }

    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        unimplemented!()
    }

    /// Queues a game message. Small ones are packed together and leave with the next `poll_transmit`.
    pub fn send(&mut self, link: LinkId, channel: u8, mode: SendMode, data: &[u8]) -> Result<(), SendError> {
        unimplemented!()
    }

    /// As [`send`](Self::send) for data that is already shared: large reliable messages are not copied again.
    pub fn send_shared(&mut self, link: LinkId, channel: u8, mode: SendMode, data: Bytes) -> Result<(), SendError> {
        unimplemented!()
    }

    /// Queues a control message (ordered, reliable; at most [`crate::wire::MAX_CONTROL_MESSAGE`] bytes). May be called from the moment of `connect`.
    pub fn send_control(&mut self, link: LinkId, message: &[u8]) -> Result<(), SendError> {
        unimplemented!()
    }

    /// The next control message.
    pub fn next_control(&mut self, link: LinkId) -> Option<Bytes> {
        unimplemented!()
    }

    /// The next game message. With `reliable_room` false only unreliable ones are taken out: reliable ones stay, and flow control holds the sender.
    pub fn next_message(&mut self, link: LinkId, reliable_room: bool) -> Option<Message<'_>> {
        unimplemented!()
    }

    /// True if [`next_message`](Self::next_message) would return one.
    pub fn has_message(&self, link: LinkId, reliable_room: bool) -> bool {
        unimplemented!()
    }

    /// Closes on purpose. [`LinkEvent::Closed`] with [`CloseReason::Local`] follows.
    pub fn close(&mut self, now: Instant, link: LinkId, info: CloseInfo) {
        unimplemented!()
    }

    /// Drops what is left of a closed link.
    pub fn forget(&mut self, link: LinkId) {
        unimplemented!()
    }

    /// The link's packets now take a truly different path: congestion, round trip and MTU start afresh.
    pub fn path_changed(&mut self, now: Instant, link: LinkId) {
        unimplemented!()
    }

    pub fn stats(&self, link: LinkId) -> Option<LinkStats> {
        unimplemented!()
    }

    pub fn counters(&self) -> TransportCounters {
        unimplemented!()
    }

    /// TLS exporter bytes of a connected link (RFC 8446 §7.5): the same at both ends, and nowhere else.
    pub fn export_keying_material(&self, link: LinkId, label: &[u8]) -> Option<[u8; 32]> {
        unimplemented!()
    }

    /// Links that are not closed.
    pub fn open_links(&self) -> usize {
        unimplemented!()
    }
}
