//! Ports that routers forward to this node.

use std::time::{Duration, Instant};

use super::Node;
use super::api::nat::MappingAnswer;
use super::api::{Event, Reason, RequestId};
use super::requests::Pending;
use crate::codes::Code;

impl Node {
    /// The game's call.
    pub(super) fn map_port(&mut self, _now: Instant, request: RequestId, _timeout: Duration) {
        self.requests.begin(request, Pending::MapPort);
        let text = "not yet".to_owned();
        let reason = Reason {
            code: Code::Unsupported,
            text,
        };
        self.requests.end(request);
        self.raise(Event::PortMappingFailed { request, reason });
    }

    /// A router said something.
    pub(super) fn mapping_answer(&mut self, _now: Instant, _answer: MappingAnswer) {}
}
