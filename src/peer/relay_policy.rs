//! When packets may go through a relay: the node's own policy, and its session's beside it. Both live in the mesh, which knows the session.

use super::Node;
use super::api::Event;
use crate::wire::control::RelayPolicy;

impl Node {
    /// What holds for this node now: the stricter of its own policy and its session's. Whatever asks for ways to a player goes by this one.
    pub(super) fn effective_relay_policy(&self) -> RelayPolicy {
        self.mesh.relay_policy()
    }

    /// The game's call. It was checked there; a session that was joined meanwhile wins.
    pub(super) fn set_relay_policy(&mut self, policy: RelayPolicy) {
        if !self.mesh_changed().set_own_policy(policy) {
            let text = format!(
                "the relay policy \"{}\" was not taken: it is the opposite of the session's",
                policy.name()
            );
            self.raise(Event::Notice { text });
        }
    }

    /// The game's call. It was checked there; who was invited meanwhile was told otherwise.
    pub(super) fn set_session_relay_policy(&mut self, policy: RelayPolicy) {
        if !self.mesh_changed().set_session_policy(policy) {
            let text = format!(
                "the session's relay policy \"{}\" was not taken: others are in the session or on their way into it, or the node's own \
                 policy is the opposite",
                policy.name()
            );
            self.raise(Event::Notice { text });
        }
    }
}
