//! Messages between a proxy server and its coordinator, over one ordered QUIC stream each way, with an ALPN of their own.
//!
//! A message is a u8 type and its fields in this order (fields: [`Reader`]):
//!
//! | proxy server → coordinator | | fields |
//! |---|---|---|
//! | 1 | Login | u16 protocol, byte string share (≤ 64) |
//! | 2 | Proof | 32 bytes proof, list (≤ 4) of addresses, u64 sessions, u64 room, text version |
//! | 3 | Load | u64 sessions, u64 room |
//!
//! | coordinator → proxy server | | fields |
//! |---|---|---|
//! | 1 | Share | byte string share (≤ 64) |
//! | 2 | Admitted | 32 bytes proof, 32 bytes ticket key, u64 ticket time in ms, address observed |
//!
//! The shares are those of SPAKE2 over edwards25519 (the proxy server is A, the coordinator B; their identities there are their 32-byte public
//! keys). From its key K follow the proofs: HMAC-SHA-256 under K over the label [`PROXY_PROOF_LABEL`] or [`COORDINATOR_PROOF_LABEL`], 32 bytes of the
//! TLS exporter (label [`LOGIN_EXPORTER_LABEL`], no context), the proxy server's key and the coordinator's. So a proof holds for one connection
//! between those two, and who listens or guesses learns of a password only whether that one guess was right. The proxy server proves first. A
//! refusal is a close with a code and a text.
//!
//! Type and protocol of Login stay where they are in every version ([`super::peek_protocol`]).
//!
//! [`Reader`]: super::Reader

use std::net::SocketAddr;

use bytes::Bytes;

use super::codec::message_codec;
use super::{DecodeError, Reader, Writer};

/// Label of the TLS exporter whose bytes the proofs cover.
pub const LOGIN_EXPORTER_LABEL: &[u8] = b"lanline proxy login 1";
/// What the proxy server's proof begins with.
pub const PROXY_PROOF_LABEL: &[u8] = b"lanline proxy login 1: proxy server";
/// What the coordinator's proof begins with.
pub const COORDINATOR_PROOF_LABEL: &[u8] = b"lanline proxy login 1: coordinator";

/// Type number of [`ToCoordinator::Login`].
pub const LOGIN_TYPE: u8 = 1;
/// Largest share: those of SPAKE2 over edwards25519 have 33 bytes.
pub const MAX_SHARE: usize = 64;
/// Most addresses of a proxy server: one of each IP version counts.
pub const MAX_PROXY_ADDRESSES: usize = 4;

/// Proxy server to coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToCoordinator {
    /// First message.
    Login {
        /// [`super::PROTOCOL_VERSION`].
        protocol: u16,
        /// SPAKE2's first message.
        share: Bytes,
    },
    /// The answer to [`ToProxy::Share`].
    Proof {
        /// That it knows the password.
        proof: [u8; 32],
        /// Where nodes reach it, as far as it knows. At most [`MAX_PROXY_ADDRESSES`].
        addresses: Vec<SocketAddr>,
        /// Sessions that it has.
        sessions: u64,
        /// Most that it takes.
        room: u64,
        /// Its version, for people.
        version: String,
    },
    /// How full it is now.
    Load {
        /// Sessions that it has.
        sessions: u64,
        /// Most that it takes.
        room: u64,
    },
}

/// Coordinator to proxy server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToProxy {
    /// SPAKE2's second message.
    Share {
        /// It.
        share: Bytes,
    },
    /// It is admitted.
    Admitted {
        /// That the coordinator knows the password, too.
        proof: [u8; 32],
        /// Seals the tickets for this proxy server.
        ticket_key: [u8; 32],
        /// The clock that tickets' expiry is told in, now, in milliseconds.
        ticket_time: u64,
        /// Its address as the coordinator sees it.
        observed: SocketAddr,
    },
}

message_codec!(ToCoordinator {
    1 Login { protocol: u16, share: share };
    2 Proof { proof: array, addresses: proxy_addresses, sessions: u64, room: u64, version: text };
    3 Load { sessions: u64, room: u64 };
});

message_codec!(ToProxy {
    1 Share { share: share };
    2 Admitted { proof: array, ticket_key: array, ticket_time: u64, observed: address };
});

impl Writer<'_> {
    fn share(&mut self, share: &Bytes) {
        self.byte_string(share, MAX_SHARE);
    }

    fn proxy_addresses(&mut self, addresses: &[SocketAddr]) {
        self.list(addresses, MAX_PROXY_ADDRESSES, |writer, address| {
            writer.address(address)
        });
    }
}

impl Reader<'_> {
    fn share(&mut self) -> Result<Bytes, DecodeError> {
        self.owned_bytes(MAX_SHARE, "share")
    }

    fn proxy_addresses(&mut self) -> Result<Vec<SocketAddr>, DecodeError> {
        self.list(MAX_PROXY_ADDRESSES, "proxy addresses", Reader::address)
    }
}
