//! The target: a connected player forwards for somebody who asked it to.
//!
//! In: offers, proofs, time. Out: accepted sessions without a path, until the asker has proven itself over one. Timer: [`PROOF_TIME`].

use std::time::Instant;

use super::super::Node;
use super::super::api::Event;
use super::super::api::relay::RelayEvent;
use super::super::relayed::Between;
use super::proof::{Names, OwnShare};
use super::seeking::{PROOF_TIME, offer};
use super::ways::Way;
use super::{HOLD_TIME, MAX_COMING, OFFERS_PER_WINDOW, Window};
use crate::codes::Code;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::{Consent, RelayPolicy};
use crate::wire::routing::{RouteGrant, RouteMessage, SignedShare};

/// A session that somebody asked for and that is not proven.
pub(super) struct Coming {
    peer: Guid,
    via: Guid,
    introduction: u64,
    pub until: Instant,
}

impl Node {
    /// A player forwards for somebody.
    pub(super) fn offered(
        &mut self,
        now: Instant,
        from: Guid,
        (introduction, asker, share): (u64, PublicKey, SignedShare),
        grant: RouteGrant,
    ) {
        match self.accept_offer(now, from, (introduction, asker, share), &grant) {
            Ok(share) => self.send_route(from, RouteMessage::Accept { introduction, share }),
            Err(code) => {
                let code = code.number();
                self.send_route(from, RouteMessage::Decline { introduction, code });
            }
        }
    }

    fn accept_offer(
        &mut self,
        now: Instant,
        from: Guid,
        (introduction, asker, share): (u64, PublicKey, SignedShare),
        grant: &RouteGrant,
    ) -> Result<SignedShare, Code> {
        if !Window::admit(&mut self.router.offers, now, from, OFFERS_PER_WINDOW)
            || self.router.coming.len() >= MAX_COMING
        {
            return Err(Code::RateLimited);
        }
        let (_, router) = self.direct_link(from).ok_or(Code::NoDirectPath)?;
        self.admits_route_from(from, asker)?;
        let names = Names {
            asker,
            router,
            introduction,
        };
        if !names.is_request(self.guid, &share) {
            self.route_message_dropped();
            return Err(Code::WrongKey);
        }
        let own = OwnShare::new(&self.router.crypto).ok_or(Code::Unsupported)?;
        let agreed = own.answer(&self.router.identity, &names, &share.share);
        let (answer, secret) = agreed.ok_or(Code::WrongKey)?;
        let between = Between {
            peer: asker,
            introduction,
            secret,
        };
        // A number that this node forwards under itself would lead its frames astray.
        if self.router.forwarding.has(grant.session) {
            return Err(Code::Refused);
        }
        let number = self
            .take_routed(now, &between, offer(grant, router, false), from)
            .ok_or(Code::Full)?;
        let coming = Coming {
            peer: asker.guid(),
            via: from,
            introduction,
            until: now + PROOF_TIME,
        };
        self.router.coming.insert(number, coming);
        self.timers_changed = true;
        Ok(answer)
    }

    /// Whether a way from that player through a connected one is welcome: as introductions are.
    fn admits_route_from(&self, router: Guid, asker: PublicKey) -> Result<(), Code> {
        let peer = asker.guid();
        if self.effective_relay_policy() != RelayPolicy::Fallback {
            return Err(Code::Policy);
        }
        if peer == self.guid || peer == router || !self.is_key_of(peer, asker) {
            return Err(Code::WrongKey);
        }
        if self.link_address(peer).is_some() {
            return Ok(());
        }
        let welcome = match self.accept_from {
            Consent::App => true,
            Consent::Session => self.mesh.view().order.contains(&peer),
            Consent::Nobody => false,
        };
        if !welcome {
            return Err(Code::Refused);
        }
        if self.accepting { Ok(()) } else { Err(Code::Full) }
    }

    /// The asker has proven itself over the way.
    pub(super) fn coming_proven(&mut self, now: Instant, number: u32) {
        let Some(coming) = self.router.coming.remove(&number) else {
            return;
        };
        let (peer, via) = (coming.peer, coming.via);
        let way = Way {
            via,
            number,
            introduction: coming.introduction,
            asked: false,
            until: now + HOLD_TIME,
            lost: None,
            probed: None,
            sought: None,
            fell_back: false,
        };
        if self.take_way(now, peer, way) {
            self.raise(Event::Relay(RelayEvent::Rerouted { peer, via }));
            self.way_opened(now, peer);
        }
    }

    /// The session failed at its router.
    pub(super) fn coming_failed(&mut self, now: Instant, number: u32) {
        if let Some(coming) = self.router.coming.remove(&number) {
            self.end_session(now, number);
            self.send_route_ended(coming.via, coming.introduction, Code::NoAnswer);
        }
    }

    /// The router takes its offer back.
    pub(super) fn coming_ended_by(&mut self, now: Instant, from: Guid, introduction: u64) -> bool {
        let mut all = self.router.coming.iter();
        let found = all.find(|(_, coming)| coming.via == from && coming.introduction == introduction);
        let Some(number) = found.map(|(number, _)| *number) else {
            return false;
        };
        self.router.coming.remove(&number);
        self.end_session(now, number);
        true
    }

    /// That player is connected no more.
    pub(super) fn coming_without(&mut self, now: Instant, gone: Guid) {
        let through = |(number, coming): (&u32, &Coming)| (coming.via == gone).then_some(*number);
        let numbers: Vec<u32> = self.router.coming.iter().filter_map(through).collect();
        for number in numbers {
            self.router.coming.remove(&number);
            self.end_session(now, number);
        }
    }

    /// Sessions over which no proof came.
    pub(super) fn coming_timeout(&mut self, now: Instant) {
        let late = |(number, coming): (&u32, &Coming)| (coming.until <= now).then_some(*number);
        let numbers: Vec<u32> = self.router.coming.iter().filter_map(late).collect();
        for number in numbers {
            self.coming_failed(now, number);
        }
    }
}
