//! Messages between a node and its server, over one ordered QUIC stream each way.
//!
//! A message is a u8 type and its fields in this order (fields: [`Reader`]; records grow at their end):
//!
//! | node → server | | fields |
//! |---|---|---|
//! | 1 | Hello | u16 protocol, text app (1–64 bytes), 32 bytes access proof, u64 incarnation, u8 consent, 16 bytes session tag, u8 relay policy, candidates, facts, proofs |
//! | 2 | Update | u8 consent, 16 bytes session tag, candidates, facts, proofs |
//! | 3 | OpenNat | u32 request, guid target, byte string first flight (≤ 1400) |
//! | 4 | IntroductionReceived | u64 introduction, boolean accepted |
//! | 5 | PunchEnded | u64 introduction, u8 path |
//! | 6 | CancelOpenNat | u32 request |
//! | 7 | Forecast | u64 introduction, forecast |
//!
//! | server → node | | fields |
//! |---|---|---|
//! | 1 | Welcome | address observed, text version, list (≤ 8) of addresses stun, u32 idle timeout in ms |
//! | 2 | Introduction | record: [`super::introduction`] |
//! | 3 | OpenNatFailed | u32 request, guid target, i32 code, text |
//! | 4 | IntroductionEnded | u64 introduction, i32 code |
//! | 5 | IntroductionUpdate | u64 introduction, facts (the other side's), facts (the receiver's), permit, candidates (the other side's) |
//! | 6 | Forecast | u64 introduction, forecast |
//!
//! Consent: 0 app, 1 session, 2 nobody. Relay policy: 0 fallback, 1 never, 2 only. Candidates, facts, permit and forecast as in
//! [`super::introduction`]. Proofs: list (≤ 4) of records: address, 16 bytes cookie. Type and protocol of Hello stay where they are in every version ([`super::peek_protocol`]).
//!
//! [`Reader`]: super::Reader

use std::net::SocketAddr;

use bytes::Bytes;

use super::codec::{enum_codec, message_codec, struct_codec};
use super::introduction::{BirthdayPermit, Candidate, Introduction, NatFacts, PortForecast};
use super::{DecodeError, MAX_APP_ID, Reader, Writer};
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
    /// Where this node's router puts the mapping towards the other side of a running attempt.
    Forecast {
        /// Which attempt.
        introduction: u64,
        /// Where.
        forecast: PortForecast,
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
}

/// Most further STUN addresses of a server: a second port and a second address of both families, and room for growth.
pub const MAX_STUN_ADDRESSES: usize = 8;

enum_codec!(consent: Consent { 0 App, 1 Session, 2 Nobody });
enum_codec!(relay_policy: RelayPolicy { 0 Fallback, 1 Never, 2 Only });

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
    2 Update { consent: consent, session_tag: array, candidates: candidates, facts: facts, proofs: proofs };
    3 OpenNat { request: u32, target: guid, first_flight: first_flight };
    4 IntroductionReceived { introduction: u64, accepted: boolean };
    5 PunchEnded { introduction: u64, path: u8 };
    6 CancelOpenNat { request: u32 };
    7 Forecast { introduction: u64, forecast: forecast };
});

message_codec!(FromServer {
    1 Welcome { observed: address, version: text, stun: stun_addresses, idle_timeout_ms: u32 };
    2 Introduction(introduction);
    3 OpenNatFailed { request: u32, target: guid, code: i32, text: text };
    4 IntroductionEnded { introduction: u64, code: i32 };
    5 IntroductionUpdate { introduction: u64, facts: facts, own_facts: facts, permit: permit, candidates: candidates };
    6 Forecast { introduction: u64, forecast: forecast };
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

    fn introduction(&mut self) -> Result<Introduction, DecodeError> {
        self.record(Introduction::read_fields)
    }
}
