//! Messages between a node and its server, over one ordered QUIC stream each way.
//!
//! A message is a u8 type and its fields in this order (fields: [`Reader`]; records grow at their end):
//!
//! | node → server | | fields |
//! |---|---|---|
//! | 1 | Hello | u16 protocol, text app (1–64 bytes), 32 bytes access proof, u64 incarnation, u8 consent, 16 bytes session tag, u8 relay policy, candidates, facts, proofs |
//! | 2 | Update | u8 consent, 16 bytes session tag, candidates, facts, proofs, u8 relay policy |
//! | 3 | OpenNat | u32 request, guid target, byte string first flight (≤ 1400), u8 ways |
//! | 4 | IntroductionReceived | u64 introduction, boolean accepted |
//! | 5 | PunchEnded | u64 introduction, u8 path |
//! | 6 | CancelOpenNat | u32 request |
//! | 7 | Forecast | u64 introduction, forecast |
//! | 8 | RequestRelay | u32 request, guid target, u32 idle time in ms, list (≤ 4) of 32-byte keys tried, boolean announced |
//! | 9 | RelayRoundTrips | list (≤ 8) of records: 32 bytes key, u32 microseconds |
//!
//! | server → node | | fields |
//! |---|---|---|
//! | 1 | Welcome | address observed, text version, list (≤ 8) of addresses stun, u32 idle timeout in ms, list (≤ 8) of relays: records of 32 bytes key, optional address; u16 tunnel port |
//! | 2 | Introduction | record: [`super::introduction`] |
//! | 3 | OpenNatFailed | u32 request, guid target, i32 code, text |
//! | 4 | IntroductionEnded | u64 introduction, i32 code |
//! | 5 | IntroductionUpdate | u64 introduction, facts (the other side's), facts (the receiver's), permit, candidates (the other side's) |
//! | 6 | Forecast | u64 introduction, forecast |
//! | 7 | Relays | record: a relay introduction, see [`super::introduction`] |
//! | 8 | RelayFailed | u32 request, guid target, i32 code, text |
//! | 9 | KnownRelays | list (≤ 8) of relays, as in Welcome |
//!
//! Consent: 0 app, 1 session, 2 nobody. Relay policy: 0 fallback, 1 never, 2 only. Ways: 0 direct, 1 any, 2 relayed. Candidates, facts, permit and forecast as in
//! [`super::introduction`]. Proofs: list (≤ 4) of records: address, 16 bytes cookie. Type and protocol of Hello stay where they are in every version ([`super::peek_protocol`]).
//!
//! [`Reader`]: super::Reader

use std::net::SocketAddr;

use bytes::Bytes;

use super::codec::{enum_codec, message_codec, struct_codec};
use super::introduction::{
    BirthdayPermit, Candidate, Introduction, MAX_RELAYS, NatFacts, PortForecast, RelayIntroduction,
};
use super::{DecodeError, MAX_APP_ID, Reader, Writer};
use crate::transport::identity::{Guid, PublicKey};

/// Who a node lets itself be introduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Consent {
    /// Players of its app who know its guid.
    #[default]
    App = 0,
    /// Players that show the same session tag.
    Session = 1,
    /// Nobody (it can still ask others). This, like the others, is about introductions by a server: whoever knows the node's address can
    /// call it without one.
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

impl RelayPolicy {
    /// The stricter of two, of which both hold. `None`: one is the opposite of the other, and nothing is allowed.
    pub fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Fallback, other) => Some(other),
            (own, Self::Fallback) => Some(own),
            (own, other) => (own == other).then_some(own),
        }
    }

    /// As games, settings and texts name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Never => "never",
            Self::Only => "only",
        }
    }
}

/// Which ways to a player are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Ways {
    /// A direct one or none: the call that opens NAT by itself. No relay is offered; a connection that is wished for meanwhile asks for one
    /// ([`ToServer::RequestRelay`]).
    Direct = 0,
    /// A connection: over a relay at once, and directly as soon as that works.
    #[default]
    Any = 1,
    /// Over a relay only: no addresses are exchanged.
    Relayed = 2,
}

/// A relay that a server knows, for nodes to measure the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRelay {
    /// Its key, which names it.
    pub key: PublicKey,
    /// Where it answers STUN. `None`: it is the server itself.
    pub address: Option<SocketAddr>,
}

/// What a node measured of the way to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayRoundTrip {
    /// Which.
    pub key: PublicKey,
    /// Round trip in microseconds.
    pub microseconds: u32,
}

/// Most relays that a server names for measuring.
pub const MAX_KNOWN_RELAYS: usize = 8;

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
    /// Addresses at which the server saw the node beside that of the session. At most [`MAX_PROOFS`].
    pub proofs: Vec<AddressProof>,
}

/// An address at which the server's STUN saw a node, with the cookie that its answer held: whoever has the cookie received at that
/// address. So a node that speaks with the server over IPv4 proves its IPv6 address, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressProof {
    /// The address.
    pub address: SocketAddr,
    /// [`crate::wire::stun`]'s cookie.
    pub cookie: [u8; 16],
}

/// Most proven addresses of a node: one of the other IP version, and room for a second interface of each.
pub const MAX_PROOFS: usize = 4;

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
        /// Addresses at which the server saw the node beside that of the session. At most [`MAX_PROOFS`].
        proofs: Vec<AddressProof>,
        /// The node's relay policy now: its own, and that of the session that it is in.
        relay_policy: RelayPolicy,
    },
    /// Introduce me to `target`.
    OpenNat {
        /// The node's number for this request, echoed in the answer.
        request: u32,
        /// Whom.
        target: Guid,
        /// The first QUIC flight for the target; may be empty.
        first_flight: Bytes,
        /// Which ways.
        ways: Ways,
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
    /// Where this node's router puts the mapping towards the other side of a running attempt.
    Forecast {
        /// Which attempt.
        introduction: u64,
        /// Where.
        forecast: PortForecast,
    },
    /// Offer this node and `target` a relay: the game asked for one, the last ticket is about to expire, or the relays `tried` are silent or
    /// have no room. Answered by [`FromServer::Relays`] at both sides, or [`FromServer::RelayFailed`].
    RequestRelay {
        /// The node's number for this request, echoed in the answer; not 0.
        request: u32,
        /// With whom.
        target: Guid,
        /// Milliseconds of silence after which the relay may forget the pair; 0: the server's choice.
        idle_ms: u32,
        /// Relays that did not work. At most [`MAX_RELAYS`].
        tried: Vec<PublicKey>,
        /// The game asked for it by name.
        announced: bool,
    },
    /// How far the relays are that [`FromServer::Welcome`] named. Replaces what was said before.
    RelayRoundTrips {
        /// At most [`MAX_KNOWN_RELAYS`].
        round_trips: Vec<RelayRoundTrip>,
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
        /// Further addresses at which this server answers STUN, of those that it has, in this order: the second port of the
        /// address that the node uses; the second address; its second port; then addresses of the other IP version (first ports,
        /// then second ports), where a node can prove its own address of that version. An address names itself: of the same IP as the
        /// session's or another one, of the same version or the other one. At most [`MAX_STUN_ADDRESSES`].
        stun: Vec<SocketAddr>,
        /// Milliseconds of silence after which the server forgets a node.
        idle_timeout_ms: u32,
        /// Relays that the node may be offered. At most [`MAX_KNOWN_RELAYS`].
        relays: Vec<KnownRelay>,
        /// The TCP port at which this server takes datagrams in a TLS stream ([`super::tunnel`]); 0: none.
        tunnel_port: u16,
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
    /// More became known of the NATs or the addresses of a running attempt.
    IntroductionUpdate {
        /// Which attempt.
        introduction: u64,
        /// What the server knows of the other side's NAT.
        facts: NatFacts,
        /// What it knows of the receiver's.
        own_facts: NatFacts,
        /// Permission for birthday probing.
        permit: BirthdayPermit,
        /// Where the other side may be reached: all that is known now.
        candidates: Vec<Candidate>,
    },
    /// The other side's [`ToServer::Forecast`].
    Forecast {
        /// Which attempt.
        introduction: u64,
        /// Where.
        forecast: PortForecast,
    },
    /// Relays for a pair: the answer to [`ToServer::RequestRelay`], and what its other side hears.
    Relays(RelayIntroduction),
    /// There is no relay for that pair; `code` is a [`crate::codes::Code`] number.
    RelayFailed {
        /// The node's number.
        request: u32,
        /// Whom it was for.
        target: Guid,
        /// Why: TARGET_NOT_CONNECTED, FULL (all relays are), NOT_FOUND (there is none), POLICY, REFUSED, RATE_LIMITED …
        code: i32,
        /// Why, in words.
        text: String,
    },
    /// The relays that the node may be offered have changed since [`FromServer::Welcome`].
    KnownRelays {
        /// At most [`MAX_KNOWN_RELAYS`].
        relays: Vec<KnownRelay>,
    },
}

/// Most further STUN addresses of a server: a second port and a second address of both families, and room for growth.
pub const MAX_STUN_ADDRESSES: usize = 8;

enum_codec!(consent: Consent { 0 App, 1 Session, 2 Nobody });
enum_codec!(relay_policy: RelayPolicy { 0 Fallback, 1 Never, 2 Only });
enum_codec!(ways: Ways { 0 Direct, 1 Any, 2 Relayed });

struct_codec!(KnownRelay {
    key: key,
    address: optional_address,
});
struct_codec!(RelayRoundTrip {
    key: key,
    microseconds: u32,
});

struct_codec!(Hello {
    protocol: u16,
    app: app_id,
    access_proof: array,
    incarnation: u64,
    consent: consent,
    session_tag: array,
    relay_policy: relay_policy,
    candidates: candidates,
    facts: facts,
    proofs: proofs,
});

struct_codec!(AddressProof {
    address: address,
    cookie: array,
});

message_codec!(ToServer {
    1 Hello(hello);
    2 Update { consent: consent, session_tag: array, candidates: candidates, facts: facts, proofs: proofs, relay_policy: relay_policy };
    3 OpenNat { request: u32, target: guid, first_flight: first_flight, ways: ways };
    4 IntroductionReceived { introduction: u64, accepted: boolean };
    5 PunchEnded { introduction: u64, path: u8 };
    6 CancelOpenNat { request: u32 };
    7 Forecast { introduction: u64, forecast: forecast };
    8 RequestRelay { request: u32, target: guid, idle_ms: u32, tried: relay_keys, announced: boolean };
    9 RelayRoundTrips { round_trips: round_trips };
});

message_codec!(FromServer {
    1 Welcome { observed: address, version: text, stun: stun_addresses, idle_timeout_ms: u32, relays: known_relays, tunnel_port: u16 };
    2 Introduction(introduction);
    3 OpenNatFailed { request: u32, target: guid, code: i32, text: text };
    4 IntroductionEnded { introduction: u64, code: i32 };
    5 IntroductionUpdate { introduction: u64, facts: facts, own_facts: facts, permit: permit, candidates: candidates };
    6 Forecast { introduction: u64, forecast: forecast };
    7 Relays(relay_introduction);
    8 RelayFailed { request: u32, target: guid, code: i32, text: text };
    9 KnownRelays { relays: known_relays };
});

impl Writer<'_> {
    pub(super) fn app_id(&mut self, app: &str) {
        debug_assert!(
            (1..=MAX_APP_ID).contains(&app.len()),
            "an app id of {} bytes",
            app.len()
        );
        self.text_of(app, MAX_APP_ID);
    }

    fn hello(&mut self, hello: &Hello) {
        hello.write_fields(self);
    }

    fn proofs(&mut self, proofs: &[AddressProof]) {
        self.list(proofs, MAX_PROOFS, |writer, proof| {
            writer.record(|writer| proof.write_fields(writer))
        });
    }

    fn stun_addresses(&mut self, addresses: &[SocketAddr]) {
        self.list(addresses, MAX_STUN_ADDRESSES, |writer, address| writer.address(address));
    }

    fn relay_keys(&mut self, keys: &[PublicKey]) {
        self.list(keys, MAX_RELAYS, |writer, key| writer.key(key));
    }

    fn round_trips(&mut self, round_trips: &[RelayRoundTrip]) {
        self.list(round_trips, MAX_KNOWN_RELAYS, |writer, round_trip| {
            writer.record(|writer| round_trip.write_fields(writer))
        });
    }

    fn known_relays(&mut self, relays: &[KnownRelay]) {
        self.list(relays, MAX_KNOWN_RELAYS, |writer, relay| {
            writer.record(|writer| relay.write_fields(writer))
        });
    }

    fn introduction(&mut self, introduction: &Introduction) {
        self.record(|writer| introduction.write_fields(writer));
    }
}

impl Reader<'_> {
    pub(super) fn app_id(&mut self) -> Result<String, DecodeError> {
        match self.text_of(MAX_APP_ID, "app id")? {
            app if app.is_empty() => Err(DecodeError::Invalid("app id")),
            app => Ok(app),
        }
    }

    fn hello(&mut self) -> Result<Hello, DecodeError> {
        Hello::read_fields(self)
    }

    fn proofs(&mut self) -> Result<Vec<AddressProof>, DecodeError> {
        self.list(MAX_PROOFS, "proofs", |reader| reader.record(AddressProof::read_fields))
    }

    fn stun_addresses(&mut self) -> Result<Vec<SocketAddr>, DecodeError> {
        self.list(MAX_STUN_ADDRESSES, "STUN addresses", Reader::address)
    }

    fn relay_keys(&mut self) -> Result<Vec<PublicKey>, DecodeError> {
        self.list(MAX_RELAYS, "relays tried", Reader::key)
    }

    fn round_trips(&mut self) -> Result<Vec<RelayRoundTrip>, DecodeError> {
        self.list(MAX_KNOWN_RELAYS, "round trips", |reader| {
            reader.record(RelayRoundTrip::read_fields)
        })
    }

    fn known_relays(&mut self) -> Result<Vec<KnownRelay>, DecodeError> {
        self.list(MAX_KNOWN_RELAYS, "relays", |reader| {
            reader.record(KnownRelay::read_fields)
        })
    }

    fn introduction(&mut self) -> Result<Introduction, DecodeError> {
        self.record(Introduction::read_fields)
    }
}
