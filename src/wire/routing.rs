//! Messages about ways through other players (RakNet's Router2), between connected players: types 3–12 of [`super::peer`].
//!
//! Three players: the *asker* wants a way to the *target*; the *router* is connected to both and forwards. What the messages do is in
//! `peer::router`.
//!
//! | type | | from → to | fields |
//! |---|---|---|---|
//! | 3 | Query | asker → router | u32 query, guid target |
//! | 4 | Willing | router → asker | u32 query, u32 round trip to the target in µs, u16 pairs that it forwards for already |
//! | 5 | Unwilling | router → asker | u32 query, i32 code |
//! | 6 | Request | asker → router | u32 request, guid target, u64 introduction, share, signature |
//! | 7 | Offer | router → target | u64 introduction, key of the asker, its share, its signature, grant |
//! | 8 | Accept | target → router | u64 introduction, share, signature |
//! | 9 | Decline | target → router | u64 introduction, i32 code |
//! | 10 | Granted | router → asker | u32 request, key of the target, its share, its signature, grant |
//! | 11 | Refused | router → asker | u32 request, i32 code |
//! | 12 | Ended | any side of a pair → the router; router → either side | u64 introduction, i32 code |
//!
//! | field | |
//! |---|---|
//! | introduction | random, drawn by the asker: names the pair in these messages, and its probes |
//! | share | 32 bytes: an X25519 public key (RFC 7748), used once |
//! | signature | 64 bytes: Ed25519 (RFC 8032) by the player whose share it is, see below |
//! | grant | record: u64 session, byte string (≤ 128) ticket, u32 its validity in ms, u8 key number, 32 bytes the secret that the ticket grants to the receiver, u32 idle time in ms |
//! | code | a number of [`crate::codes::Code`] |
//!
//! Signed are, one after the other (all of fixed length):
//!
//! | | |
//! |---|---|
//! | by the asker | the text `lanline route request 1`, key of the asker, key of the router, guid of the target, introduction, share of the asker |
//! | by the target | the text `lanline route answer 1`, key of the asker, key of the router, key of the target, introduction, share of the asker, share of the target |
//!
//! The secret of the probes between asker and target is HMAC-SHA256, keyed with the X25519 secret of the two shares, of the text `lanline route
//! secret 1` followed by everything that the target signed. The router cannot know it.

use std::fmt;

use bytes::Bytes;

use super::codec::{message_codec, struct_codec};
use super::introduction::MAX_TICKET;
use super::{DecodeError, Reader, Writer};
use crate::transport::identity::{Guid, PublicKey};

/// What stands before that which the asker signs.
pub const REQUEST_LABEL: &[u8] = b"lanline route request 1";
/// What stands before that which the target signs.
pub const ANSWER_LABEL: &[u8] = b"lanline route answer 1";
/// What stands before that from which the probes' secret is made.
pub const SECRET_LABEL: &[u8] = b"lanline route secret 1";

/// A share of a key agreement, with the signature of the player whose it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignedShare {
    /// An X25519 public key.
    pub share: [u8; 32],
    /// Ed25519, over what the module's documentation says.
    pub signature: [u8; 64],
}

impl fmt::Debug for SignedShare {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SignedShare({:02x}{:02x}…)", self.share[0], self.share[1])
    }
}

/// What a router grants to one side of a pair.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteGrant {
    /// The pair's session at the router.
    pub session: u64,
    /// What to show to the router. At most [`MAX_TICKET`] bytes.
    pub ticket: Bytes,
    /// Milliseconds for which the ticket is good.
    pub valid_ms: u32,
    /// Which of the session's keys the ticket grants.
    pub key_number: u8,
    /// What the ticket grants: authenticates the receiver's frames.
    pub secret: [u8; 32],
    /// Milliseconds of silence after which the router ends the session.
    pub idle_ms: u32,
}

impl fmt::Debug for RouteGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret and the ticket: this goes into logs of failing tests.
        let mut shown = formatter.debug_struct("RouteGrant");
        shown.field("session", &self.session).field("valid_ms", &self.valid_ms);
        shown.finish_non_exhaustive()
    }
}

/// Asker, router, target: see the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteMessage {
    /// Would the router forward to that player?
    Query {
        /// Echoed.
        query: u32,
        /// To whom.
        target: Guid,
    },
    /// It would.
    Willing {
        /// From the query.
        query: u32,
        /// Microseconds from the router to the target and back.
        round_trip_us: u32,
        /// Pairs that it forwards for already.
        load: u16,
    },
    /// It would not.
    Unwilling {
        /// From the query.
        query: u32,
        /// Why: a [`crate::codes::Code`] number.
        code: i32,
    },
    /// It shall.
    Request {
        /// Echoed.
        request: u32,
        /// To whom.
        target: Guid,
        /// Names the pair.
        introduction: u64,
        /// The asker's.
        share: SignedShare,
    },
    /// A player wants to be forwarded to the receiver.
    Offer {
        /// Names the pair.
        introduction: u64,
        /// The asker.
        asker: PublicKey,
        /// The asker's.
        share: SignedShare,
        /// What the router grants to the receiver.
        grant: RouteGrant,
    },
    /// The target agrees.
    Accept {
        /// Names the pair.
        introduction: u64,
        /// The target's.
        share: SignedShare,
    },
    /// The target does not.
    Decline {
        /// Names the pair.
        introduction: u64,
        /// Why: a [`crate::codes::Code`] number.
        code: i32,
    },
    /// The router forwards from now on.
    Granted {
        /// From the request.
        request: u32,
        /// The target.
        target: PublicKey,
        /// The target's.
        share: SignedShare,
        /// What the router grants to the receiver.
        grant: RouteGrant,
    },
    /// The router, or the target, does not want to.
    Refused {
        /// From the request.
        request: u32,
        /// Why: a [`crate::codes::Code`] number.
        code: i32,
    },
    /// The pair is forwarded for no more: a side does not need it, or the router takes it back.
    Ended {
        /// Names the pair.
        introduction: u64,
        /// Why: a [`crate::codes::Code`] number.
        code: i32,
    },
}

struct_codec!(SignedShare {
    share: array,
    signature: array
});
struct_codec!(RouteGrant {
    session: u64,
    ticket: route_ticket,
    valid_ms: u32,
    key_number: u8,
    secret: array,
    idle_ms: u32,
});

message_codec!(RouteMessage {
    3 Query { query: u32, target: guid };
    4 Willing { query: u32, round_trip_us: u32, load: u16 };
    5 Unwilling { query: u32, code: i32 };
    6 Request { request: u32, target: guid, introduction: u64, share: signed_share };
    7 Offer { introduction: u64, asker: key, share: signed_share, grant: route_grant };
    8 Accept { introduction: u64, share: signed_share };
    9 Decline { introduction: u64, code: i32 };
    10 Granted { request: u32, target: key, share: signed_share, grant: route_grant };
    11 Refused { request: u32, code: i32 };
    12 Ended { introduction: u64, code: i32 };
});

impl Writer<'_> {
    fn signed_share(&mut self, share: &SignedShare) {
        share.write_fields(self);
    }

    fn route_grant(&mut self, grant: &RouteGrant) {
        self.record(|writer| grant.write_fields(writer));
    }

    fn route_ticket(&mut self, ticket: &Bytes) {
        self.byte_string(ticket, MAX_TICKET);
    }
}

impl Reader<'_> {
    fn signed_share(&mut self) -> Result<SignedShare, DecodeError> {
        SignedShare::read_fields(self)
    }

    fn route_grant(&mut self) -> Result<RouteGrant, DecodeError> {
        self.record(RouteGrant::read_fields)
    }

    fn route_ticket(&mut self) -> Result<Bytes, DecodeError> {
        self.owned_bytes(MAX_TICKET, "ticket")
    }
}
