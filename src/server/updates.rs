//! What becomes known while attempts run: facts of a node's NAT, its addresses, and where its router will put the next mapping.
//!
//! In: Update and Forecast of a node. Out: IntroductionUpdate to both sides of its attempts; the forecast to the other side. Both
//! are bounded for each attempt, because one message here becomes several. In an attempt whose sides shall not learn each other's addresses nothing is
//! passed on; nor in any other, from the moment at which one of the two hides its address.

use std::time::Instant;

use super::Server;
use super::candidates::for_introduction;
use super::permits::permits;
use super::registry::{Node, Profile};
use super::sessions::addresses;
use crate::transport::LinkId;
use crate::wire::control::{AddressProof, FromServer, RelayPolicy};
use crate::wire::introduction::PortForecast;

impl Server {
    /// The addresses that a node has proven: those whose cookie is right now, and those that were accepted in this session
    /// and are shown again (as the address of the session itself, they are believed as long as it lasts).
    pub(super) fn proven(&mut self, now: Instant, link: LinkId, shown: Vec<AddressProof>) -> Box<[AddressProof]> {
        let known = self.registry.node(link).map_or(&[][..], |node| &node.profile.proofs);
        let before = shown.len();
        let proven: Box<[AddressProof]> = shown
            .into_iter()
            .filter(|proof| known.contains(proof) || self.cookies.proves(now, proof))
            .collect();
        self.counters.proofs_refused += (before - proven.len()) as u64;
        proven
    }

    /// A node says anew what it knows of itself.
    pub(super) fn update(&mut self, now: Instant, link: LinkId, profile: Profile) {
        let Some(node) = self.registry.node_mut(link) else {
            return;
        };
        let known = |profile: &Profile| (profile.facts, profile.candidates.clone(), profile.proofs.clone());
        let changed = known(&node.profile) != known(&profile);
        node.profile = profile;
        if !changed {
            return;
        }
        for (introduction, side, other) in self.introductions.whom_to_update(link) {
            let (Some(node), Some(peer)) = (self.registry.node(side), self.registry.node(other)) else {
                continue;
            };
            if hides(node) || hides(peer) {
                continue;
            }
            let (own_facts, facts) = (node.profile.facts, peer.profile.facts);
            let (permit, _) = permits(&own_facts, &facts);
            let candidates = for_introduction(addresses(peer), addresses(node));
            let message = FromServer::IntroductionUpdate {
                introduction,
                facts,
                own_facts,
                permit,
                candidates,
            };
            self.tell(now, side, &message);
            self.transport.hurry(now, side);
        }
    }

    /// A node foretells where its router puts the mapping towards the other side. It can speak for addresses at which it was seen
    /// only: that of its session, and those that it has proven.
    pub(super) fn forecast(&mut self, now: Instant, link: LinkId, introduction: u64, forecast: PortForecast) {
        let own = self
            .registry
            .node(link)
            .is_some_and(|node| node.is_seen_at(forecast.before.ip()));
        let hidden = self.introductions.sides(introduction).is_some_and(|sides| {
            let mut sides = sides.iter().filter_map(|side| self.registry.node(*side));
            sides.any(hides)
        });
        let other = match own && !hidden {
            true => self.introductions.other_side_of_forecast(link, introduction),
            false => None,
        };
        let Some(other) = other else {
            self.counters.forecasts_refused += 1;
            return;
        };
        self.counters.forecasts += 1;
        self.tell(now, other, &FromServer::Forecast { introduction, forecast });
        // The port that it names is the next one only for a moment.
        self.transport.hurry(now, other);
    }
}

/// Others must not learn its address.
fn hides(node: &Node) -> bool {
    node.profile.relay_policy == RelayPolicy::Only
}
