//! Punch probes: small authenticated datagrams that open and verify paths.

use std::net::SocketAddr;

/// A probe asks, its answer echoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// "Do you hear me here?"
    Request,
    /// "I do; I saw you at `observed`."
    Response {
        /// The address that the request came from, as the answerer saw it.
        observed: SocketAddr,
    },
}

/// One probe, decoded and authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// [`super::introduction::Introduction::id`].
    pub introduction: u64,
    /// True if the sender is the side that asked for the introduction (tells reflected packets from real ones).
    pub from_asker: bool,
    /// Random; echoed by the response.
    pub transaction: u64,
    /// Request or response.
    pub kind: ProbeKind,
}
