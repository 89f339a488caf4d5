//! Messages between a node and its server, over one ordered QUIC stream each way.

use std::net::SocketAddr;

use bytes::Bytes;

use super::introduction::{Candidate, Introduction, NatFacts};
use crate::transport::identity::Guid;

/// Who a node lets itself be introduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Consent {
    /// Players of its app who know its guid.
    #[default]
    App = 0,
    /// Players that show the same session tag.
    Session = 1,
    /// Nobody (it can still ask others).
    Nobody = 2,
}

/// When packets may travel through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RelayPolicy {
    /// Start on it at once, move off it.
    #[default]
    Fallback = 0,
    /// Never: direct or not at all.
    Never = 1,
    /// Only: the players never learn each other's addresses.
    Only = 2,
}

/// The first message of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`super::PROTOCOL_VERSION`].
    pub protocol: u16,
    /// The game's identifier, 1 to [`super::MAX_APP_ID`] bytes of UTF-8.
    pub app: String,
    /// HMAC-SHA-256 with the access key over TLS exporter bytes (label [`ACCESS_EXPORTER_LABEL`], 32 bytes, no context); zeros without an access key.
    pub access_proof: [u8; 32],
    /// Drawn when the node was created: tells a restart from a second connection.
    pub incarnation: u64,
    /// Who this node may be introduced to.
    pub consent: Consent,
    /// Session tag for [`Consent::Session`]; zeros: none.
    pub session_tag: [u8; 16],
    /// The node's relay policy.
    pub relay_policy: RelayPolicy,
    /// Local, mapped and manual addresses. At most `MAX_CANDIDATES`.
    pub candidates: Vec<Candidate>,
    /// What the node knows of its NAT.
    pub facts: NatFacts,
}

/// Label of the TLS exporter whose bytes the access proof covers.
pub const ACCESS_EXPORTER_LABEL: &[u8] = b"lanline access key 1";

/// Node to server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToServer {
    /// First message.
    Hello(Hello),
    /// Replaces what Hello said of candidates, NAT and consent.
    Update {
        /// Who this node may be introduced to.
        consent: Consent,
        /// Session tag; zeros: none.
        session_tag: [u8; 16],
        /// Local, mapped and manual addresses.
        candidates: Vec<Candidate>,
        /// What the node knows of its NAT.
        facts: NatFacts,
    },
    /// Introduce me to `target`.
    OpenNat {
        /// The node's number for this request, echoed in the answer.
        request: u32,
        /// Whom.
        target: Guid,
        /// The first QUIC flight for the target; may be empty.
        first_flight: Bytes,
    },
    /// An introduction arrived (or is refused): the target reacts.
    IntroductionReceived {
        /// Which.
        introduction: u64,
        /// False: this node's game does not want it.
        accepted: bool,
    },
    /// How the attempt ended at this side.
    PunchEnded {
        /// Which.
        introduction: u64,
        /// [`crate::codes::PathKind`] as a number; 0: failed.
        path: u8,
    },
    /// The asker gave up.
    CancelOpenNat {
        /// The request of [`ToServer::OpenNat`].
        request: u32,
    },
}

/// Server to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// The node is registered.
    Welcome {
        /// The node's address as the server sees it.
        observed: SocketAddr,
        /// The server's version, for people.
        version: String,
        /// Further addresses at which this server answers STUN: its second port, its second address.
        stun: Vec<SocketAddr>,
        /// Milliseconds of silence after which the server forgets a node.
        idle_timeout_ms: u32,
    },
    /// Open a path to that node.
    Introduction(Introduction),
    /// The request failed; `code` is a [`crate::codes::Code`] number.
    OpenNatFailed {
        /// The node's number.
        request: u32,
        /// Whom it was for.
        target: Guid,
        /// Why: TARGET_NOT_CONNECTED, TARGET_UNRESPONSIVE, ALREADY_IN_PROGRESS, REFUSED, RATE_LIMITED, POLICY …
        code: i32,
        /// Why, in words.
        text: String,
    },
    /// The other side of a running attempt left the server (code TARGET_LOST) or gave up (CANCELLED).
    IntroductionEnded {
        /// Which.
        introduction: u64,
        /// Why.
        code: i32,
    },
}
