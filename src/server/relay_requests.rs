//! A node asks for a relay to another one, without an attempt to open a direct way.
//!
//! In: RequestRelay: the game wants a proxy, a ticket is running out, or a relay has failed. Out: Relays to both sides, or RelayFailed.
//!
//! A pair that has been introduced before gets its ticket whatever the target's consent has become meanwhile (see [`super::acquaintances`]); for
//! all others consent counts as for introductions. Relays that the asker has tried come last: with one that is still there, another try is worth more
//! than a failure.

use std::time::Instant;

use rand::Rng;

use super::Server;
use super::introduce::{NO_CONSENT, NOT_HERE, NOT_REGISTERED, consents, never_relayed};
use super::relays::idle_time;
use super::sessions::Why;
use crate::codes::Code;
use crate::transport::LinkId;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::{FromServer, RelayPolicy, RelayRoundTrip};
use crate::wire::introduction::RelayIntroduction;

/// What a node asks for.
#[derive(Debug)]
pub(super) struct Wish {
    /// Its number.
    pub request: u32,
    /// With whom.
    pub target: Guid,
    /// Silence in ms after which the relay may forget the two; 0: the server's choice.
    pub idle_ms: u32,
    /// Relays that did not work.
    pub tried: Vec<PublicKey>,
    /// The game asked for it.
    pub announced: bool,
}

impl Server {
    pub(super) fn request_relay(&mut self, now: Instant, link: LinkId, wish: &Wish) {
        self.counters.relay_requests += 1;
        match self.relays_for(now, link, wish) {
            Ok((target_link, for_asker, for_target)) => {
                self.tell(now, target_link, &FromServer::Relays(for_target));
                self.tell(now, link, &FromServer::Relays(for_asker));
                self.transport.hurry(now, target_link);
                self.transport.hurry(now, link);
            }
            Err((code, text)) => {
                self.counters.relay_requests_refused += 1;
                let failed = FromServer::RelayFailed {
                    request: wish.request,
                    target: wish.target,
                    code: code.number(),
                    text: text.to_owned(),
                };
                self.tell(now, link, &failed);
            }
        }
    }

    fn relays_for(
        &mut self,
        now: Instant,
        link: LinkId,
        wish: &Wish,
    ) -> Result<(LinkId, RelayIntroduction, RelayIntroduction), Why> {
        let asker = self.registry.node(link).ok_or(NOT_REGISTERED)?;
        if !self.relay_limits.allow(now, asker.guid, asker.observed.ip()) {
            return Err((
                Code::RateLimited,
                "too many relay requests from this node or its network",
            ));
        }
        if wish.target == asker.guid {
            return Err((Code::Self_, "the target is this node itself"));
        }
        let (target_link, target) = self.registry.find(asker.app, wish.target).ok_or(NOT_HERE)?;
        if !consents(asker, target) && !self.acquaintances.have_met(now, asker, target) {
            return Err(NO_CONSENT);
        }
        let policies = [asker.profile.relay_policy, target.profile.relay_policy];
        if policies.contains(&RelayPolicy::Never) {
            return Err(never_relayed(policies[0]));
        }
        let (asker_key, target_key) = (asker.key, target.key);
        let links = [link, target_link];
        let choice = self
            .relay_for(now, links, &wish.tried)
            .map_err(|without| without.why())?;
        let id = self.random.next_u64();
        let mut secret = [0; 32];
        self.random.fill_bytes(&mut secret);
        let [of_asker, of_target] = self
            .tickets(now, links, &choice, idle_time(wish.idle_ms))
            .ok_or(NOT_HERE)?;
        if let (Some(asker), Some(target)) = (self.registry.node(links[0]), self.registry.node(links[1])) {
            self.acquaintances.met(now, asker, target);
        }
        let for_side = |request, peer, offer| RelayIntroduction {
            id,
            request,
            peer,
            secret,
            relays: vec![offer],
            announced: wish.announced,
        };
        Ok((
            target_link,
            for_side(wish.request, target_key, of_asker),
            for_side(0, asker_key, of_target),
        ))
    }

    /// A node has measured how far relays are.
    pub(super) fn round_trips(&mut self, link: LinkId, round_trips: Vec<RelayRoundTrip>) {
        if let Some(node) = self.registry.node_mut(link) {
            self.counters.round_trip_reports += 1;
            node.round_trips = round_trips.into();
        }
    }
}
