//! The server's engine: registration, introductions, STUN, limits. No IO.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::transport::identity::Identity;

/// What a server socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSocket {
    /// Its name.
    pub name: SocketName,
    /// The address it is bound to (may be unspecified; port never 0).
    pub bound: SocketAddr,
    /// The address that others reach it at, if known (`--public`, or a specific bind).
    pub public: Option<SocketAddr>,
    /// False: the second port (STUN only).
    pub main: bool,
}

/// How to set up a [`Server`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Who the server is.
    pub identity: Arc<Identity>,
    /// Everything random in the engine comes from this.
    pub seed: [u8; 32],
    /// TLS primitives.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// Access key; empty: none wanted.
    pub access_key: String,
    /// The sockets.
    pub sockets: Vec<ServerSocket>,
    /// Most registered nodes.
    pub max_nodes: usize,
}

/// Figures of a server, for logs, metrics and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerCounters {
    /// Nodes registered now.
    pub nodes: u64,
    /// Registrations since the start.
    pub registrations: u64,
    /// Introductions made.
    pub introductions: u64,
    /// Introductions refused, for whatever reason.
    pub introductions_refused: u64,
    /// STUN answers sent.
    pub stun_answers: u64,
    /// STUN requests over a limit.
    pub stun_limited: u64,
    /// Datagrams that were nothing we know.
    pub dropped: u64,
}

/// A server.
pub struct Server {}

#[allow(unused_variables, missing_docs)]
impl Server {
    pub fn new(now: Instant, config: ServerConfig) -> Self {
        unimplemented!()
    }
    pub fn counters(&self) -> ServerCounters {
        unimplemented!()
    }
    /// Closes every session (code CLOSED); drain transmits afterwards.
    pub fn shut_down(&mut self, now: Instant) {
        unimplemented!()
    }
}

#[allow(unused_variables)]
impl Engine for Server {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        unimplemented!()
    }
    fn handle_timeout(&mut self, now: Instant) {
        unimplemented!()
    }
    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        unimplemented!()
    }
    fn poll_timeout(&mut self) -> Option<Instant> {
        unimplemented!()
    }
}
