//! Requests of the game that have not ended yet. In: a request begins, something ends it. Out: whether its terminal event may be
//! raised: exactly one for each, whatever happens in which order.

use std::collections::BTreeMap;

use super::api::RequestId;
use crate::transport::identity::Guid;

/// From here on the numbers are the engine's own: it asks its parts the same way as a game does, and keeps their answers. A shell gives games
/// smaller ones.
pub const FIRST_OWN: RequestId = RequestId::MAX - 15;

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// A session with a server.
    Server,
    /// A way to that peer.
    OpenNat(Guid),
    /// A connection; which one is the dials' business.
    Connect,
    /// What the node sits behind.
    DetectNat,
    /// A port at a router.
    MapPort,
    /// The report.
    Report,
    /// A way to that peer through another player.
    Route(Guid),
    /// A way to that peer through a proxy server.
    Proxy(Guid),
}

/// The table. As large as what the game asked for and has not got yet.
#[derive(Debug, Default)]
pub struct Requests {
    pending: BTreeMap<RequestId, Pending>,
}

impl Requests {
    /// A request begins.
    pub fn begin(&mut self, request: RequestId, pending: Pending) {
        if request != 0 {
            self.pending.insert(request, pending);
        }
    }

    /// A request ends. False if it has ended before: then nothing more may be said about it. 0 (nobody asked) always may.
    pub fn end(&mut self, request: RequestId) -> bool {
        request == 0 || self.pending.remove(&request).is_some()
    }

    /// What a request waits for.
    pub fn get(&self, request: RequestId) -> Option<Pending> {
        self.pending.get(&request).copied()
    }
}
