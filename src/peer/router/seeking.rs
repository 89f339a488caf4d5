//! The asker: asks who would forward, chooses, tries one after the other.
//!
//! In: the game's call (or a way that was lost), answers, grants, proofs, time. Out: queries, requests, sessions at routers, one outcome for each
//! request. Timers: [`LEAST_ASK_TIME`] and [`ASK_ROUND_TRIPS`], [`GRANT_TIME`], [`PROOF_TIME`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::Rng;

use super::super::Node;
use super::super::api::relay::{RelayEvent, RouterOutcome};
use super::super::api::{Event, Reason, RequestId};
use super::super::attempts::cancelled;
use super::super::relayed::Between;
use super::super::requests::Pending;
use super::HOLD_TIME;
use super::proof::{Names, OwnShare};
use super::ways::Way;
use crate::codes::Code;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::RelayPolicy;
use crate::wire::introduction::RelayOffer;
use crate::wire::routing::{RouteGrant, RouteMessage, SignedShare};

/// Answers are waited for at least so long: a lost packet is repeated within it on most ways.
const LEAST_ASK_TIME: Duration = Duration::from_millis(400);
/// And at most so long: the others' answers are there.
const LONGEST_ASK_TIME: Duration = Duration::from_secs(2);
/// In between, so many round trips to the farthest of those who are asked: one, and a packet repeated.
const ASK_ROUND_TRIPS: u32 = 4;
/// For the grant, which takes a round trip through the router to the target; a little longer than the router waits for the target's answer.
const GRANT_TIME: Duration = Duration::from_secs(3);
/// For the proof over a granted way: the probes' series takes 2.25 s.
pub(super) const PROOF_TIME: Duration = Duration::from_secs(4);

/// What is being done.
enum Phase {
    /// Who would?
    Asking { until: Instant },
    /// That one shall.
    Requested {
        router: Guid,
        request: u32,
        names: Names,
        own: OwnShare,
        until: Instant,
    },
    /// It does, as far as it says.
    Proving {
        router: Guid,
        introduction: u64,
        number: u32,
        until: Instant,
    },
}

/// A way to one player that is sought.
pub(super) struct Search {
    requests: Vec<RequestId>,
    /// A way through another router was lost.
    again: bool,
    query: u32,
    /// Who has not answered.
    asked: BTreeSet<Guid>,
    /// Who would, the best first: by score, then by name.
    willing: BTreeSet<(u64, Guid)>,
    /// Why the last one failed that was tried.
    failure: Option<Code>,
    phase: Phase,
}

impl Search {
    pub fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::Asking { until } | Phase::Requested { until, .. } | Phase::Proving { until, .. } => *until,
        }
    }

    /// The router that is being tried, with the pair's name there.
    fn tries(&self) -> Option<(Guid, u64)> {
        match &self.phase {
            Phase::Asking { .. } => None,
            Phase::Requested { router, names, .. } => Some((*router, names.introduction)),
            Phase::Proving {
                router, introduction, ..
            } => Some((*router, *introduction)),
        }
    }

    fn session(&self) -> Option<u32> {
        match &self.phase {
            Phase::Proving { number, .. } => Some(*number),
            _ => None,
        }
    }
}

/// The formula of the contract; smaller is better.
fn score(to_router: Duration, router_to_target: Duration, load: u16) -> u64 {
    let round_trips = (to_router + router_to_target).as_micros() as u64;
    round_trips.saturating_mul(u64::from(load) + 1)
}

impl Node {
    /// The game's call.
    pub(in super::super) fn route(&mut self, now: Instant, request: RequestId, peer: Guid) {
        self.requests.begin(request, Pending::Route(peer));
        if self.effective_relay_policy() != RelayPolicy::Fallback {
            let text = "the relay policy of this node or of its session allows no ways through other players";
            let reason = Reason {
                code: Code::Policy,
                text: text.to_owned(),
            };
            return self.route_failed(request, peer, RouterOutcome::Failed, reason);
        }
        if let Some(via) = self.standing_way(peer) {
            return self.route_established(request, peer, via);
        }
        match self.router.searches.get_mut(&peer) {
            Some(search) => search.requests.push(request),
            None => self.seek(now, peer, vec![request], None),
        }
    }

    /// The game cancels; whoever else waits for the same way goes on.
    pub(in super::super) fn cancel_route(&mut self, now: Instant, request: RequestId, peer: Guid) {
        if let Some(search) = self.router.searches.get_mut(&peer) {
            search.requests.retain(|waiting| *waiting != request);
            if search.requests.is_empty() && !search.again {
                self.drop_search(now, peer);
            }
        }
        self.route_failed(request, peer, RouterOutcome::Failed, cancelled());
    }

    /// Gives a search up without a word to the game.
    pub(super) fn drop_search(&mut self, now: Instant, peer: Guid) {
        self.leave_router(now, peer, Code::Cancelled);
        self.router.searches.remove(&peer);
        self.timers_changed = true;
    }

    /// True if a way to that player is being sought.
    pub(super) fn is_seeking(&self, peer: Guid) -> bool {
        self.router.searches.contains_key(&peer)
    }

    /// Stops seeking another way for one that was only doubted, unless one is about to stand.
    pub(super) fn stop_asking(&mut self, now: Instant, peer: Guid) {
        let search = self.router.searches.get(&peer);
        if search.is_some_and(|search| search.requests.is_empty() && matches!(search.phase, Phase::Asking { .. })) {
            self.drop_search(now, peer);
        }
    }

    /// Asks who would forward to that player. `lost`: the router that does not any more.
    pub(super) fn seek(&mut self, now: Instant, peer: Guid, requests: Vec<RequestId>, lost: Option<Guid>) {
        let mut players: Vec<Guid> = self.peers.keys().copied().collect();
        players.sort_unstable();
        players.retain(|player| *player != peer && Some(*player) != lost && self.direct_link(*player).is_some());
        let farthest = players
            .iter()
            .filter_map(|player| Some(self.round_trip_to(self.current_link(*player)?)))
            .max()
            .unwrap_or_default();
        let wait = (farthest * ASK_ROUND_TRIPS).clamp(LEAST_ASK_TIME, LONGEST_ASK_TIME);
        let query = self.router.number();
        for player in &players {
            let target = peer;
            self.send_route(*player, RouteMessage::Query { query, target });
        }
        let search = Search {
            requests,
            again: lost.is_some(),
            query,
            asked: players.into_iter().collect(),
            willing: BTreeSet::new(),
            failure: None,
            phase: Phase::Asking { until: now + wait },
        };
        let nobody = search.asked.is_empty();
        self.router.searches.insert(peer, search);
        self.timers_changed = true;
        if nobody {
            self.try_next(now, peer);
        }
    }

    /// A player said whether it would.
    pub(super) fn answered(&mut self, now: Instant, from: Guid, query: u32, would: Option<(u32, u16)>) {
        let to_router = self.direct_link(from).map(|(link, _)| self.round_trip_to(link));
        let found = self
            .router
            .searches
            .iter_mut()
            .find(|(_, search)| search.query == query);
        let Some((&peer, search)) = found.filter(|(_, search)| search.asked.contains(&from)) else {
            return self.route_message_dropped();
        };
        search.asked.remove(&from);
        if let (Some((round_trip_us, load)), Some(to_router)) = (would, to_router) {
            let score = score(to_router, Duration::from_micros(round_trip_us.into()), load);
            search.willing.insert((score, from));
        }
        if search.asked.is_empty() && matches!(search.phase, Phase::Asking { .. }) {
            self.try_next(now, peer);
        }
    }

    /// Requests the best of those who are left to forward.
    fn try_next(&mut self, now: Instant, peer: Guid) {
        while let Some((_, router)) = self
            .router
            .searches
            .get_mut(&peer)
            .and_then(|search| search.willing.pop_first())
        {
            if self.request_from(now, peer, router) {
                return;
            }
        }
        self.search_failed(now, peer);
    }

    fn request_from(&mut self, now: Instant, peer: Guid, router: Guid) -> bool {
        let Some((_, key)) = self.direct_link(router) else {
            return false;
        };
        let Some(own) = OwnShare::new(&self.router.crypto) else {
            return false;
        };
        let names = Names {
            asker: self.own_key,
            router: key,
            introduction: self.random.next_u64(),
        };
        let request = self.router.number();
        let share = own.request(&self.router.identity, &names, peer);
        let message = RouteMessage::Request {
            request,
            target: peer,
            introduction: names.introduction,
            share,
        };
        self.send_route(router, message);
        if let Some(search) = self.router.searches.get_mut(&peer) {
            let until = now + GRANT_TIME;
            search.phase = Phase::Requested {
                router,
                request,
                names,
                own,
                until,
            };
        }
        self.timers_changed = true;
        true
    }

    /// The player to whom that router was requested to forward.
    fn requested_from(&self, router: Guid, number: u32) -> Option<Guid> {
        let fits = |search: &Search| {
            matches!(&search.phase, Phase::Requested { router: asked, request, .. }
                if *asked == router && *request == number)
        };
        let mut searches = self.router.searches.iter();
        searches.find(|(_, search)| fits(search)).map(|(peer, _)| *peer)
    }

    /// A router grants what was requested.
    pub(super) fn granted(
        &mut self,
        now: Instant,
        from: Guid,
        request: u32,
        (target, share, grant): (PublicKey, SignedShare, RouteGrant),
    ) {
        let Some(peer) = self.requested_from(from, request) else {
            return self.route_message_dropped();
        };
        let fits = self.is_key_of(peer, target);
        let Some(search) = self.router.searches.get_mut(&peer) else {
            return;
        };
        let asking = Phase::Asking { until: now };
        let Phase::Requested { names, own, .. } = std::mem::replace(&mut search.phase, asking) else {
            return;
        };
        let secret = own.secret(&names, &target, &share).filter(|_| fits);
        let introduction = names.introduction;
        let number = secret.and_then(|secret| {
            let between = Between {
                peer: target,
                introduction,
                secret,
            };
            self.take_routed(now, &between, offer(&grant, names.router, true), from)
        });
        let Some(number) = number else {
            if secret.is_none() {
                self.route_message_dropped();
            }
            self.send_route_ended(from, introduction, Code::Refused);
            return self.attempt_failed_at(now, peer, Code::WrongKey);
        };
        if let Some(search) = self.router.searches.get_mut(&peer) {
            search.phase = Phase::Proving {
                router: from,
                introduction,
                number,
                until: now + PROOF_TIME,
            };
        }
        self.timers_changed = true;
    }

    /// A router, or the target, does not want to.
    pub(super) fn refused(&mut self, now: Instant, from: Guid, request: u32, code: i32) {
        match self.requested_from(from, request) {
            Some(peer) => self.attempt_failed_at(now, peer, Code::from_number(code).unwrap_or(Code::Refused)),
            None => self.route_message_dropped(),
        }
    }

    /// The router that is being tried takes its word back.
    pub(super) fn attempt_ended_by(&mut self, now: Instant, from: Guid, introduction: u64, code: i32) -> bool {
        let mut searches = self.router.searches.iter();
        let found = searches.find(|(_, search)| search.tries() == Some((from, introduction)));
        let Some(peer) = found.map(|(peer, _)| *peer) else {
            return false;
        };
        self.end_own_session(now, peer);
        self.attempt_failed_at(now, peer, Code::from_number(code).unwrap_or(Code::Refused));
        true
    }

    fn end_own_session(&mut self, now: Instant, peer: Guid) {
        if let Some(number) = self.router.searches.get(&peer).and_then(Search::session) {
            self.end_session(now, number);
        }
    }

    /// Tells the router that is being tried that it is not needed.
    fn leave_router(&mut self, now: Instant, peer: Guid, code: Code) {
        self.end_own_session(now, peer);
        if let Some((router, introduction)) = self.router.searches.get(&peer).and_then(Search::tries) {
            self.send_route_ended(router, introduction, code);
        }
    }

    /// The one that is being tried is of no use; the next one.
    fn attempt_failed_at(&mut self, now: Instant, peer: Guid, code: Code) {
        if let Some(search) = self.router.searches.get_mut(&peer) {
            search.failure = Some(code);
            search.phase = Phase::Asking { until: now };
            self.try_next(now, peer);
        }
    }

    /// The search whose session that is.
    pub(super) fn search_of_session(&self, number: u32) -> Option<Guid> {
        let mut searches = self.router.searches.iter();
        let found = searches.find(|(_, search)| search.session() == Some(number));
        found.map(|(peer, _)| *peer)
    }

    /// The session that is being tried failed at its router.
    pub(super) fn search_session_failed(&mut self, now: Instant, peer: Guid) {
        self.leave_router(now, peer, Code::NoAnswer);
        self.attempt_failed_at(now, peer, Code::NoAnswer);
    }

    /// The target has proven itself over the way.
    pub(super) fn search_succeeded(&mut self, now: Instant, peer: Guid) {
        let Some(search) = self.router.searches.remove(&peer) else {
            return;
        };
        let Phase::Proving {
            router,
            introduction,
            number,
            ..
        } = search.phase
        else {
            return;
        };
        let way = Way {
            via: router,
            number,
            introduction,
            asked: true,
            until: now + HOLD_TIME,
            lost: None,
            probed: None,
            sought: None,
            fell_back: false,
        };
        let taken = self.take_way(now, peer, way);
        let via = if taken {
            router
        } else {
            self.standing_way(peer).unwrap_or(router)
        };
        for request in search.requests {
            self.route_established(request, peer, via);
        }
        if search.again && taken {
            self.raise(Event::Relay(RelayEvent::Rerouted { peer, via }));
        }
        self.way_opened(now, peer);
    }

    /// Nobody is left to try.
    fn search_failed(&mut self, now: Instant, peer: Guid) {
        let Some(search) = self.router.searches.remove(&peer) else {
            return;
        };
        self.timers_changed = true;
        // The other side may have sought a way at the same moment, and found one.
        let found = self.standing_way(peer);
        for request in search.requests {
            match (found, search.failure) {
                (Some(via), _) => self.route_established(request, peer, via),
                (None, Some(code)) => {
                    let text = "those players who would forward could not, one after the other".to_owned();
                    self.route_failed(request, peer, RouterOutcome::Failed, Reason { code, text });
                }
                (None, None) => {
                    let text = "no connected player forwards to that one".to_owned();
                    let code = Code::NoDirectPath;
                    self.route_failed(request, peer, RouterOutcome::NoPath, Reason { code, text });
                }
            }
        }
        if search.again && found.is_none() {
            self.fall_back(now, peer);
        }
    }

    /// That player is connected no more: it will not answer, nor forward.
    pub(super) fn search_without(&mut self, now: Instant, gone: Guid) {
        let peers: Vec<Guid> = self.router.searches.keys().copied().collect();
        for peer in peers {
            let Some(search) = self.router.searches.get_mut(&peer) else {
                continue;
            };
            search.willing.retain(|(_, router)| *router != gone);
            let awaited = search.asked.remove(&gone) && search.asked.is_empty();
            if search.tries().is_some_and(|(router, _)| router == gone) {
                self.end_own_session(now, peer);
                self.attempt_failed_at(now, peer, Code::Lost);
            } else if awaited && matches!(search.phase, Phase::Asking { .. }) {
                self.try_next(now, peer);
            }
        }
    }

    /// Whoever was silent for too long.
    pub(super) fn searches_timeout(&mut self, now: Instant) {
        let due = |(peer, search): (&Guid, &Search)| (search.deadline() <= now).then_some(*peer);
        let due: Vec<Guid> = self.router.searches.iter().filter_map(due).collect();
        for peer in due {
            match self.router.searches.get(&peer).map(|search| &search.phase) {
                Some(Phase::Asking { .. }) => self.try_next(now, peer),
                Some(Phase::Requested { .. }) => {
                    self.leave_router(now, peer, Code::Timeout);
                    self.attempt_failed_at(now, peer, Code::NoAnswer);
                }
                Some(Phase::Proving { .. }) => {
                    self.leave_router(now, peer, Code::Timeout);
                    self.attempt_failed_at(now, peer, Code::TargetUnresponsive);
                }
                None => {}
            }
        }
    }

    fn route_established(&mut self, request: RequestId, peer: Guid, via: Guid) {
        if self.requests.end(request) {
            self.raise(Event::Relay(RelayEvent::RouterEstablished { request, peer, via }));
        }
    }

    fn route_failed(&mut self, request: RequestId, peer: Guid, outcome: RouterOutcome, reason: Reason) {
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

/// A grant as sessions know it.
pub(super) fn offer(grant: &RouteGrant, router: PublicKey, from_asker: bool) -> RelayOffer {
    RelayOffer {
        address: None,
        key: router,
        ticket: grant.ticket.clone(),
        valid_ms: grant.valid_ms,
        session: grant.session,
        from_asker,
        key_number: grant.key_number,
        secret: grant.secret,
        idle_ms: grant.idle_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_router_counts_as_farther_away() {
        let milliseconds = Duration::from_millis;
        let near = score(milliseconds(10), milliseconds(20), 1);
        let far = score(milliseconds(20), milliseconds(39), 0);
        assert!(far < near);
        assert_eq!(score(milliseconds(10), milliseconds(20), 2), 90_000);
        // What a liar says overflows nothing.
        assert!(
            score(
                Duration::from_secs(60),
                Duration::from_micros(u32::MAX.into()),
                u16::MAX
            ) > near
        );
    }
}
