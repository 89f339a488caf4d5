//! Ways through other players that stand: what is done when one is doubted, lost, or not needed any more.
//!
//! In: proofs, ends, lost routers, the paths' own doubts, time. Out: paths taken up and away, searches for another router, `ROUTER_REROUTED` by those who
//! call, wishes for a relay. Timers: [`super::TICK`], [`PROBE_INTERVAL`], [`SEEK_INTERVAL`], [`PATIENCE`], [`LOST_TIME`].

use std::time::{Duration, Instant};

use super::super::Node;
use super::HOLD_TIME;
use crate::codes::{Code, PathKind};
use crate::engine::SocketName;
use crate::transport::identity::Guid;
use crate::wire::control::RelayPolicy;

/// A doubted way is probed so often: the probes' series takes longer, but its first three come within.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two searches for another router while a way stays doubted: a search whose first choice fails takes as long.
const SEEK_INTERVAL: Duration = Duration::from_secs(5);
/// So long the target leaves it to the asker to find another router before it asks the server for a relay: a search without a
/// silent player takes less.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long a lost way's path stays behind the route (any verified one is better), so that QUIC sees one change, not two: until the other side has
/// called, or the connection is lost.
const LOST_TIME: Duration = Duration::from_secs(10);

/// A way through another player.
#[derive(Debug)]
pub(super) struct Way {
    pub via: Guid,
    /// Of the session.
    pub number: u32,
    pub introduction: u64,
    /// This node asked for it.
    pub asked: bool,
    /// Whoever is not connected by then does not need it.
    pub until: Instant,
    /// The router forwards no more: since when.
    pub lost: Option<Instant>,
    /// When it was probed last, because the paths are in doubt.
    pub probed: Option<Instant>,
    /// When another router was sought last.
    pub sought: Option<Instant>,
    /// The server was asked for a relay.
    pub fell_back: bool,
}

/// A way that another one took the place of: its router hears of it when what was under way has come.
#[derive(Debug)]
pub(super) struct Left {
    via: Guid,
    number: u32,
    introduction: u64,
}

impl Node {
    /// Through whom the way to that player leads that stands.
    pub(super) fn standing_way(&self, peer: Guid) -> Option<Guid> {
        let way = self.router.ways.get(&peer).filter(|way| way.lost.is_none())?;
        let route = self.route_over(way.number)?;
        let needed = self.link_address(peer) == Some(route) || self.paths.opened_route(peer) == Some(route);
        needed.then_some(way.via)
    }

    /// A way is proven. False: the one that stands is kept (see the module's documentation).
    pub(super) fn take_way(&mut self, now: Instant, peer: Guid, way: Way) -> bool {
        let lower_asked = |asked: bool| asked == (self.guid < peer);
        if let Some(old) = self.router.ways.get(&peer)
            && old.asked != way.asked
            && lower_asked(old.asked)
            && self.standing_way(peer).is_some()
            && !self.is_doubted(now, peer, old)
        {
            self.leave_way(now, way);
            return false;
        }
        self.adopt_routed(now, way.number, HOLD_TIME);
        if let Some(old) = self.router.ways.insert(peer, way) {
            self.leave_way(now, old);
        }
        self.tick_ways(now);
        true
    }

    fn leave_way(&mut self, now: Instant, way: Way) {
        self.retire_routed(now, way.number);
        self.router.left.push(Left {
            via: way.via,
            number: way.number,
            introduction: way.introduction,
        });
        self.tick_ways(now);
    }

    /// A session at a player was proven by the other side.
    pub(in super::super) fn routed_proven(&mut self, now: Instant, number: u32) {
        if let Some(peer) = self.search_of_session(number) {
            return self.search_succeeded(now, peer);
        }
        if self.router.coming.contains_key(&number) {
            return self.coming_proven(now, number);
        }
        let mut ways = self.router.ways.iter_mut();
        if let Some((&peer, way)) = ways.find(|(_, way)| way.number == number && way.lost.is_none()) {
            // It was doubted, and is alive.
            way.probed = None;
            let hold = way.until.saturating_duration_since(now);
            self.adopt_routed(now, number, hold);
            self.stop_asking(now, peer);
        }
    }

    /// A session at a player failed there.
    pub(in super::super) fn routed_failed(&mut self, now: Instant, number: u32) {
        if let Some(peer) = self.search_of_session(number) {
            return self.search_session_failed(now, peer);
        }
        if self.router.coming.contains_key(&number) {
            return self.coming_failed(now, number);
        }
        let found = self.router.ways.iter().find(|(_, way)| way.number == number);
        match found.map(|(peer, way)| (*peer, way.via, way.introduction)) {
            Some((peer, via, introduction)) => {
                self.send_route_ended(via, introduction, Code::NoAnswer);
                self.way_lost(now, peer);
            }
            None => self.end_session(now, number),
        }
    }

    /// The router of a way takes it back, or the other side does not need it.
    pub(super) fn way_ended_by(&mut self, now: Instant, from: Guid, introduction: u64) -> bool {
        let of_it = |via: Guid, named: u64| via == from && named == introduction;
        let before = self.router.left.len();
        self.router.left.retain(|left| !of_it(left.via, left.introduction));
        if self.router.left.len() < before {
            return true;
        }
        let mut ways = self.router.ways.iter();
        let found = ways.find(|(_, way)| of_it(way.via, way.introduction));
        let Some(peer) = found.map(|(peer, _)| *peer) else {
            return false;
        };
        self.way_lost(now, peer);
        true
    }

    /// The connection with that player is over: ways through it are lost, and one to it is kept for nobody.
    pub(super) fn ways_without(&mut self, now: Instant, gone: Guid) {
        if let Some(way) = self.router.ways.get_mut(&gone) {
            way.until = now;
        }
        let through = |(peer, way): (&Guid, &Way)| (way.via == gone).then_some(*peer);
        let peers: Vec<Guid> = self.router.ways.iter().filter_map(through).collect();
        for peer in peers {
            self.way_lost(now, peer);
        }
        self.router.left.retain(|left| left.via != gone);
    }

    /// Nobody forwards there any more. The asker seeks another router, the target waits for it.
    fn way_lost(&mut self, now: Instant, peer: Guid) {
        let Some(way) = self.router.ways.get_mut(&peer).filter(|way| way.lost.is_none()) else {
            return;
        };
        way.lost = Some(now);
        let (number, via, asked) = (way.number, way.via, way.asked);
        self.demote_routed(now, number);
        if asked && self.wants_way(now, peer) {
            self.seek_again(now, peer, via);
        }
        self.tick_ways(now);
    }

    fn seek_again(&mut self, now: Instant, peer: Guid, lost: Guid) {
        if let Some(way) = self.router.ways.get_mut(&peer) {
            way.sought = Some(now);
        }
        if !self.is_seeking(peer) {
            self.seek(now, peer, Vec::new(), Some(lost));
        }
    }

    /// True if a way to that player through another one is better than what there is.
    fn wants_way(&self, now: Instant, peer: Guid) -> bool {
        let Some(route) = self.link_address(peer) else {
            return self.router.ways.get(&peer).is_some_and(|way| now < way.until);
        };
        let best = self.paths.best(route);
        best.is_none_or(|best| !best.verified || best.kind > PathKind::Direct)
    }

    /// No other router was found: the server may have a relay.
    pub(super) fn fall_back(&mut self, now: Instant, peer: Guid) {
        let connected = self.link_address(peer);
        let has_path = connected
            .and_then(|route| self.paths.best(route))
            .is_some_and(|best| best.verified);
        let Some(way) = self.router.ways.get_mut(&peer).filter(|way| !way.fell_back) else {
            return;
        };
        way.fell_back = true;
        if connected.is_some() && !has_path && self.effective_relay_policy() == RelayPolicy::Fallback {
            self.wish_for_relay(now, peer, Duration::ZERO, false);
        }
    }

    /// True if the connection needs that way, and nobody knows whether it still leads anywhere.
    fn is_doubted(&self, now: Instant, peer: Guid, way: &Way) -> bool {
        let route = self.route_over(way.number);
        route.is_some_and(|route| self.paths.is_in_use(route))
            && !self.is_verified_over(way.number)
            && self.wants_way(now, peer)
    }

    /// Looks at all ways.
    pub(super) fn look_at_ways(&mut self, now: Instant) {
        let peers: Vec<Guid> = self.router.ways.keys().copied().collect();
        for peer in peers {
            self.look_at_way(now, peer);
        }
        let (over, left): (Vec<Left>, Vec<Left>) = std::mem::take(&mut self.router.left)
            .into_iter()
            .partition(|left| !self.has_session(left.number));
        self.router.left = left;
        for left in over {
            self.send_route_ended(left.via, left.introduction, Code::Closed);
        }
    }

    fn look_at_way(&mut self, now: Instant, peer: Guid) {
        let Some(way) = self.router.ways.get(&peer) else { return };
        let (via, number, asked, lost) = (way.via, way.number, way.asked, way.lost);
        if !self.has_session(number) {
            // Nobody used it, or its ticket's time was over.
            self.send_route_ended(via, way.introduction, Code::Closed);
            let wanted = asked && lost.is_none() && self.link_address(peer).is_some() && self.wants_way(now, peer);
            self.router.ways.remove(&peer);
            if wanted {
                self.seek(now, peer, Vec::new(), Some(self.guid));
            }
            return;
        }
        if let Some(since) = lost {
            return self.look_at_lost_way(now, peer, since);
        }
        if !self.is_doubted(now, peer, way) {
            return;
        }
        if way.probed.is_none_or(|at| now >= at + PROBE_INTERVAL) {
            if let Some(way) = self.router.ways.get_mut(&peer) {
                way.probed = Some(now);
            }
            self.probe_routed(now, number);
        }
        let sought = self.router.ways.get(&peer).and_then(|way| way.sought);
        if asked && sought.is_none_or(|at| now >= at + SEEK_INTERVAL) {
            if let Some(way) = self.router.ways.get_mut(&peer) {
                way.fell_back = false;
            }
            self.seek_again(now, peer, via);
        }
    }

    fn look_at_lost_way(&mut self, now: Instant, peer: Guid, since: Instant) {
        let Some(way) = self.router.ways.get(&peer) else { return };
        let number = way.number;
        let used = self
            .route_over(number)
            .and_then(|route| self.paths.best(route))
            .is_some_and(|best| best.socket == SocketName::Relay(number));
        if !self.is_seeking(peer) && (!used || now >= since + LOST_TIME) {
            self.end_session(now, number);
            self.router.ways.remove(&peer);
        } else if now >= since + PATIENCE && !self.is_seeking(peer) {
            self.fall_back(now, peer);
        }
    }
}
