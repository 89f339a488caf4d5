//! The session's relay policy: the host's game gives it to its session before it invites anybody, START carries it, and all members follow
//! it beside their own, whoever hosts. The stricter of the two holds; where they are opposite (`only` and `never`) a join fails.
//!
//! It holds at the joiner from START on: the members are reached by ways that it allows. Connections that stand are not touched.

use super::Mesh;
use super::MeshOutput;
use crate::wire::control::RelayPolicy;

impl Mesh {
    /// What holds for this node: its own policy with its session's and those of the sessions that it is joining.
    pub fn relay_policy(&self) -> RelayPolicy {
        let own = self.config.relay_policy;
        // Opposites are refused wherever one of the two comes in.
        own.with(self.session_policy()).unwrap_or(RelayPolicy::Only)
    }

    /// The part of it that is not this node's own.
    pub(super) fn session_policy(&self) -> RelayPolicy {
        let joins = self.joins.values().map(|join| join.relay_policy);
        joins.fold(self.session.relay_policy, |all, one| {
            all.with(one).unwrap_or(RelayPolicy::Only)
        })
    }

    /// The node's own policy from now on. False, and nothing changes: it is the opposite of the session's.
    pub fn set_own_policy(&mut self, policy: RelayPolicy) -> bool {
        let allowed = policy.with(self.session_policy()).is_some();
        if allowed {
            self.config.relay_policy = policy;
            self.refresh_policy();
        }
        allowed
    }

    /// The session's policy from now on. False, and nothing changes: others are in it or on their way into it and were told otherwise, this
    /// node is joining another session, or it is the opposite of the node's own.
    pub fn set_session_policy(&mut self, policy: RelayPolicy) -> bool {
        let alone = self.session.is_alone() && self.invitations.is_empty() && self.joins.is_empty();
        let allowed = alone && policy.with(self.config.relay_policy).is_some();
        if allowed {
            self.session.relay_policy = policy;
            self.refresh_policy();
        }
        allowed
    }

    /// Says so if another policy holds than the server knows.
    pub(super) fn refresh_policy(&mut self) {
        let policy = self.relay_policy();
        if policy != self.policy_told {
            self.policy_told = policy;
            self.outputs.push_back(MeshOutput::RelayPolicy);
        }
    }
}
