//! Ways through other players (RakNet's Router2).

use std::time::Instant;

use super::Node;
use super::api::relay::{RelayEvent, RouterOutcome};
use super::api::{Event, Reason, RequestId};
use super::attempts::cancelled;
use super::requests::Pending;
use crate::codes::Code;
use crate::transport::identity::Guid;

impl Node {
    /// The game's call.
    pub(super) fn route(&mut self, _now: Instant, request: RequestId, peer: Guid) {
        self.requests.begin(request, Pending::Route(peer));
        let text = "no connected player forwards for others".to_owned();
        let reason = Reason {
            code: Code::NoDirectPath,
            text,
        };
        self.route_ended(request, peer, RouterOutcome::NoPath, reason);
    }

    /// The game cancels.
    pub(super) fn cancel_route(&mut self, _now: Instant, request: RequestId, peer: Guid) {
        self.route_ended(request, peer, RouterOutcome::Failed, cancelled());
    }

    fn route_ended(&mut self, request: RequestId, peer: Guid, outcome: RouterOutcome, reason: Reason) {
        if self.requests.end(request) {
            self.raise(Event::Relay(RelayEvent::RouterFailed {
                request,
                peer,
                outcome,
                reason,
            }));
        }
    }
}
