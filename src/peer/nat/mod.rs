//! What this node sits behind: finding out, and the names for it.

mod names;

pub use names::{can_connect, is_friendly, name};

use std::time::Instant;

use super::Node;
use super::api::nat::{DetectOptions, NatReport};
use super::api::{Event, Reason, RequestId};
use super::requests::Pending;
use crate::codes::Code;
use crate::wire::control::AddressProof;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Nat {
    pub report: NatReport,
}

impl Nat {
    /// Addresses at which the server saw this node beside that of the session.
    pub fn proofs(&self) -> Vec<AddressProof> {
        Vec::new()
    }
}

impl Node {
    /// The game's call.
    pub(super) fn detect_nat(&mut self, _now: Instant, request: RequestId, _options: DetectOptions) {
        self.requests.begin(request, Pending::DetectNat);
        let text = "not yet".to_owned();
        let reason = Some(Reason {
            code: Code::Unsupported,
            text,
        });
        self.requests.end(request);
        let report = Box::new(self.nat.report.clone());
        self.raise(Event::NatDetected {
            request,
            report,
            reason,
        });
    }
}
