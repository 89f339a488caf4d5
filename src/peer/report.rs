//! Everything about the way to others, in one report: for the player's support, and for programs.

use std::time::Instant;

use super::Node;
use super::api::{Event, RequestId};
use super::requests::Pending;

impl Node {
    /// The game's call.
    pub(super) fn report(&mut self, _now: Instant, request: RequestId, _map_port: bool) {
        self.requests.begin(request, Pending::Report);
        self.requests.end(request);
        let (json, text) = ("{}".to_owned(), String::new());
        self.raise(Event::Report { request, json, text });
    }
}
