//! What a node hears when it asks for a way to another one.
//!
//! In: OpenNat of a node. Out: an introduction for each side, or a refusal. What decides:
//!
//! | asked for | both sides' relay policies | introduced |
//! |---|---|---|
//! | direct | one is `only` | no: POLICY |
//! | direct | else | with addresses, without relays |
//! | any | neither is `only` | with addresses, and with a relay unless one is `never` |
//! | any, relayed | one is `only`, or relayed was asked for; none is `never` | **hidden**: a relay and nothing else |
//! | any, relayed | one must be hidden, and one is `never` | no: POLICY |
//!
//! A hidden introduction has no addresses, no facts and no permits, and neither is sent later while it runs: the two never learn from the server
//! where the other one is. Without a relay there is none.

use std::time::Instant;

use bytes::Bytes;
use rand::Rng;

use super::Server;
use super::candidates;
use super::introductions::{NotBegun, VALID_TIME};
use super::permits::permits;
use super::registry::Node;
use super::relays::{Choice, End, IDLE_TIME, NoRelay, Pair};
use super::sessions::{Why, addresses};
use crate::codes::Code;
use crate::engine::SocketName;
use crate::transport::LinkId;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::{Consent, FromServer, RelayPolicy, Ways};
use crate::wire::introduction::{BirthdayPermit, Introduction, NatFacts, RelayOffer};

/// How two nodes may be introduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    /// With their addresses; over a relay, too, or not.
    Open { relayed: bool },
    /// Over a relay only.
    Hidden,
}

impl Server {
    pub(super) fn open_nat(
        &mut self,
        now: Instant,
        link: LinkId,
        (request, target): (u32, Guid),
        first_flight: Bytes,
        ways: Ways,
    ) {
        match self.introduce(now, link, request, target, ways) {
            Ok((target_link, for_asker, mut for_target)) => {
                self.counters.introductions += 1;
                for_target.first_flight = first_flight;
                self.tell(now, target_link, &FromServer::Introduction(for_target));
                self.tell(now, link, &FromServer::Introduction(for_asker));
                // Each waits for its half of the introduction, and probing starts with the later one.
                self.transport.hurry(now, target_link);
                self.transport.hurry(now, link);
            }
            Err((code, text)) => {
                self.counters.introductions_refused += 1;
                let failed = FromServer::OpenNatFailed {
                    request,
                    target,
                    code: code.number(),
                    text: text.to_owned(),
                };
                self.tell(now, link, &failed);
            }
        }
    }

    /// Begins an attempt. Returns the target's link, and what the asker and the target are told.
    fn introduce(
        &mut self,
        now: Instant,
        asker_link: LinkId,
        request: u32,
        guid: Guid,
        ways: Ways,
    ) -> Result<(LinkId, Introduction, Introduction), Why> {
        let asker = self.registry.node(asker_link).ok_or(NOT_REGISTERED)?;
        // Counted first: asking for guids that are not there is asking, too.
        if !self.open_nat_limits.allow(now, asker.guid, asker.observed.ip()) {
            return Err((
                Code::RateLimited,
                "too many open-NAT requests from this node or its network",
            ));
        }
        if guid == asker.guid {
            return Err((Code::Self_, "the target is this node itself"));
        }
        let (target_link, target) = self.registry.find(asker.app, guid).ok_or(NOT_HERE)?;
        if !consents(asker, target) {
            return Err(NO_CONSENT);
        }
        let meeting = meeting(asker.profile.relay_policy, target.profile.relay_policy, ways)?;
        let links = [asker_link, target_link];
        let relay = match meeting {
            Meeting::Open { relayed: false } => None,
            // Without a relay there is still the direct way.
            Meeting::Open { relayed: true } => self.relay_for(now, links, &[]).ok(),
            Meeting::Hidden => Some(self.relay_for(now, links, &[]).map_err(without_relay)?),
        };
        let hidden = meeting == Meeting::Hidden;
        // Two draws in this order, whatever becomes of them: the same seed gives the same run.
        let id = self.random.next_u64();
        let mut secret = [0; 32];
        self.random.fill_bytes(&mut secret);
        self.introductions
            .begin(now, id, (asker_link, request), (target_link, guid), hidden)
            .map_err(|not_begun| match not_begun {
                NotBegun::AlreadyInProgress => (Code::AlreadyInProgress, "an attempt between these two is running"),
                NotBegun::AskerBusy => (Code::RateLimited, "too many open-NAT requests of this node are running"),
                NotBegun::TargetBusy => (Code::RateLimited, "too many players are being introduced to the target"),
                NotBegun::ServerBusy => (Code::RateLimited, "the server has too many introductions running"),
            })?;
        let (mut for_asker, mut for_target) = {
            let (asker, target) = self.both(links).ok_or(NOT_HERE)?;
            (
                introduction(id, secret, request, target, asker, hidden),
                introduction(id, secret, 0, asker, target, hidden),
            )
        };
        if let Some(choice) = relay
            && let Some([of_asker, of_target]) = self.tickets(now, links, &choice, IDLE_TIME)
        {
            for_asker.relays.push(of_asker);
            for_target.relays.push(of_target);
        }
        if let (Some(asker), Some(target)) = (self.registry.node(links[0]), self.registry.node(links[1])) {
            self.acquaintances.met(now, asker, target);
        }
        Ok((target_link, for_asker, for_target))
    }

    /// The nodes of two links.
    pub(super) fn both(&self, [one, other]: [LinkId; 2]) -> Option<(&Node, &Node)> {
        Some((self.registry.node(one)?, self.registry.node(other)?))
    }

    /// The best relay for two nodes, and a place in the asker's budget of tickets. The asker's link first.
    pub(super) fn relay_for(
        &mut self,
        now: Instant,
        links: [LinkId; 2],
        tried: &[PublicKey],
    ) -> Result<Choice, WithoutRelay> {
        let ends = links.map(|link| self.end(link).ok_or(WithoutRelay::None));
        let [asker, target] = ends;
        let own = (self.forwarding.counters(), self.forwarding.max_sessions());
        let choice = self
            .relays
            .choose([asker?, target?], own, tried)
            .map_err(|none| match none {
                NoRelay::None if self.relays.any() => WithoutRelay::Unreachable,
                NoRelay::None => WithoutRelay::None,
                NoRelay::Full => WithoutRelay::Full,
            })?;
        let asker = self.registry.node(links[0]).ok_or(WithoutRelay::None)?;
        if !self.ticket_limits.allow(now, asker.guid, asker.observed.ip()) {
            self.counters.tickets_refused += 1;
            return Err(WithoutRelay::TooMany);
        }
        Ok(choice)
    }

    /// What is known of a node's way to relays.
    pub(super) fn end(&self, link: LinkId) -> Option<End<'_>> {
        let node = self.registry.node(link)?;
        Some(End {
            to_server: self.transport.stats(link).map(|stats| stats.round_trip),
            measured: &node.round_trips,
            versions: self.versions(link, node),
        })
    }

    /// Whether a node can send over IPv4, over IPv6. By a TLS stream it reaches the server alone.
    pub(super) fn versions(&self, link: LinkId, node: &Node) -> [bool; 2] {
        if matches!(self.socket_of(link), None | Some(SocketName::Tunnel(_))) {
            return [false, false];
        }
        let proven = node.profile.proofs.iter().map(|proof| proof.address);
        let seen = || std::iter::once(node.observed).chain(proven.clone());
        [
            seen().any(|address| address.ip().to_canonical().is_ipv4()),
            seen().any(|address| address.ip().to_canonical().is_ipv6()),
        ]
    }

    /// Seals a ticket for each of two nodes.
    pub(super) fn tickets(
        &mut self,
        now: Instant,
        [asker, target]: [LinkId; 2],
        choice: &Choice,
        idle: std::time::Duration,
    ) -> Option<[RelayOffer; 2]> {
        let pair = Pair {
            asker: self.registry.node(asker)?.guid,
            target: self.registry.node(target)?.guid,
        };
        let random = |bytes: &mut [u8]| self.random.fill_bytes(bytes);
        let offers = self.relays.offer(now, choice, pair, idle, random)?;
        self.counters.tickets += 2;
        Some(offers)
    }
}

/// Why two nodes get no relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithoutRelay {
    /// There is none.
    None,
    /// There are some, none of which both can reach.
    Unreachable,
    /// All are full.
    Full,
    /// The asker has had too many tickets.
    TooMany,
}

impl WithoutRelay {
    /// For the side that asked.
    pub(super) fn why(self) -> Why {
        match self {
            Self::None => (Code::NotFound, "no relay is online at this server"),
            Self::Unreachable => (Code::NotFound, "no relay is online that both players can reach"),
            Self::Full => (Code::Full, "all relays are full"),
            Self::TooMany => (
                Code::RateLimited,
                "too many relay tickets for this node or its network; wait a minute",
            ),
        }
    }
}

/// The two may meet over a relay only, and there is none.
fn without_relay(without: WithoutRelay) -> Why {
    match without {
        WithoutRelay::None | WithoutRelay::Unreachable => (
            Code::Policy,
            "one of the two players shows its address to nobody (relay policy `only`), and no relay is online that both can reach",
        ),
        WithoutRelay::Full | WithoutRelay::TooMany => without.why(),
    }
}

pub(super) const NOT_REGISTERED: Why = (Code::NotConnected, "not registered");
pub(super) const NOT_HERE: Why = (
    Code::TargetNotConnected,
    "the other player is not connected to this server",
);
pub(super) const NO_CONSENT: Why = (
    Code::Refused,
    "the other player does not accept introductions from this one",
);

/// Whether the target lets itself be introduced to that one.
pub(super) fn consents(asker: &Node, target: &Node) -> bool {
    match target.profile.consent {
        Consent::App => true,
        Consent::Session => {
            target.profile.session_tag != [0; 16] && target.profile.session_tag == asker.profile.session_tag
        }
        Consent::Nobody => false,
    }
}

/// How both sides' policies let the two meet.
fn meeting(asker: RelayPolicy, target: RelayPolicy, ways: Ways) -> Result<Meeting, Why> {
    let (hides_asker, hides_target) = (asker == RelayPolicy::Only, target == RelayPolicy::Only);
    let never = [asker, target].contains(&RelayPolicy::Never);
    match ways {
        Ways::Direct if hides_asker => Err((
            Code::Policy,
            "this player's relay policy is `only`, so that there is no direct way: connect to the other player, over a relay",
        )),
        Ways::Direct if hides_target => Err((
            Code::Policy,
            "the other player's relay policy is `only`, so that there is no direct way: connect to it, over a relay",
        )),
        Ways::Direct => Ok(Meeting::Open { relayed: false }),
        Ways::Any if !hides_asker && !hides_target => Ok(Meeting::Open { relayed: !never }),
        Ways::Any | Ways::Relayed if never => Err(never_relayed(asker)),
        Ways::Any | Ways::Relayed => Ok(Meeting::Hidden),
    }
}

/// A relay is the only way, and one of the two takes none.
pub(super) fn never_relayed(asker: RelayPolicy) -> Why {
    let text = match asker {
        RelayPolicy::Never => "this player's relay policy is `never`",
        RelayPolicy::Fallback | RelayPolicy::Only => "the other player's relay policy is `never`",
    };
    (Code::Policy, text)
}

/// What `receiver` is told of `peer`.
fn introduction(id: u64, secret: [u8; 32], request: u32, peer: &Node, receiver: &Node, hidden: bool) -> Introduction {
    let open = |facts: NatFacts| if hidden { NatFacts::default() } else { facts };
    let (candidates, permit) = match hidden {
        true => (Vec::new(), BirthdayPermit::default()),
        false => (
            candidates::for_introduction(addresses(peer), addresses(receiver)),
            permits(&receiver.profile.facts, &peer.profile.facts).0,
        ),
    };
    Introduction {
        id,
        request,
        peer: peer.key,
        secret,
        valid_ms: VALID_TIME.as_millis() as u32,
        candidates,
        own_observed: Some(receiver.observed).filter(|_| !receiver.tunnelled),
        facts: open(peer.profile.facts),
        permit,
        relays: Vec::new(),
        first_flight: Bytes::new(),
        own_facts: open(receiver.profile.facts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_decide_how_two_meet() {
        use RelayPolicy::{Fallback, Never, Only};
        let (open, relayed) = (
            Ok(Meeting::Open { relayed: false }),
            Ok(Meeting::Open { relayed: true }),
        );
        let (hidden, no) = (Ok(Meeting::Hidden), Err(Code::Policy));
        for (asker, target, expected) in [
            (Fallback, Fallback, [open, relayed, hidden]),
            (Fallback, Never, [open, open, no]),
            (Never, Never, [open, open, no]),
            (Fallback, Only, [no, hidden, hidden]),
            (Only, Only, [no, hidden, hidden]),
            (Only, Never, [no, no, no]),
        ] {
            for (one, other) in [(asker, target), (target, asker)] {
                let met = [Ways::Direct, Ways::Any, Ways::Relayed]
                    .map(|ways| meeting(one, other, ways).map_err(|(code, _)| code));
                assert_eq!(met, expected, "{one:?} and {other:?}");
            }
        }
    }
}
