//! Sessions at players that forward: unlike a relay of the server's, one is nobody's path before the other side has proven itself over it.
//!
//! In: what [`super::super::router`] decides. Out: sessions, their paths. Until the proof a session has a socket and sends its frames, but no route
//! leads over it, so it disturbs no path that there is.

use std::time::{Duration, Instant};

use super::super::Node;
use super::super::paths::{Owner, Path};
use super::{Between, Entry, Hop, News, RETIRE_TIME, SPARE_TIME, Session};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::transport::SyntheticAddress;
use crate::transport::identity::Guid;
use crate::wire::introduction::RelayOffer;

impl Node {
    /// Shows the ticket that a player granted. Returns the session's number; `None` if there are too many, or no way to that player.
    pub(in super::super) fn take_routed(
        &mut self,
        now: Instant,
        between: &Between,
        offer: RelayOffer,
        router: Guid,
    ) -> Option<u32> {
        if self.relayed.by_id.contains_key(&offer.session) || !self.make_room_for_session(now) {
            return None;
        }
        let hop = Hop::Player(router);
        let way = self.way_of(hop)?;
        let number = self.relayed.next_number;
        self.relayed.next_number = number.wrapping_add(1);
        let session = Session::new(now, between, offer, (hop, way.1), PathKind::Routed);
        self.relayed.by_id.insert(session.id(), number);
        // A player's ticket is not renewed by the server: the router is asked again when it ends.
        let renew_at = session.expires;
        let entry = Entry {
            session,
            way: Some(way),
            // Leads nowhere until the other side is proven.
            route: self.transport.new_address(),
            used: now,
            retires: None,
            renew_at,
            rests: false,
            failed: false,
        };
        self.relayed.sessions.insert(number, entry);
        self.timers_changed = true;
        self.relayed_timeout(now);
        Some(number)
    }

    /// The other side has proven itself over that session: it becomes a path of that player. Whoever is not connected yet has `hold` to
    /// connect.
    pub(in super::super) fn adopt_routed(&mut self, now: Instant, number: u32, hold: Duration) {
        let (Some(path), Some(entry)) = (self.path_of(number), self.relayed.sessions.get(&number)) else {
            return;
        };
        let key = entry.session.peer;
        let peer = key.guid();
        // The player's own handshake may have come first, and has a route by itself.
        if self.link_address(peer).is_none()
            && let Some(route) = self.paths.route_from(path.socket, path.address)
            && self.paths.owner(route) == Some(Owner::Stranger)
        {
            self.paths.prove(route, Owner::Peer(key));
            self.paths.open(peer, route, now + hold);
        }
        let route = self.route_for_peer(now, key, path);
        self.paths.open(peer, route, now + hold);
        let own = path.socket;
        let in_use = self.paths.best(route).is_some_and(|best| best.socket == own);
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            entry.route = route;
            entry.used = entry.used.max((now + hold).checked_sub(SPARE_TIME).unwrap_or(now));
            if std::mem::take(&mut entry.failed) && in_use {
                self.path_works_again(now, route);
            }
        }
        self.timers_changed = true;
    }

    /// The way over that session is in doubt, or lost: any that is verified is better.
    pub(in super::super) fn demote_routed(&mut self, now: Instant, number: u32) {
        let (Some(path), Some(entry)) = (self.path_of(number), self.relayed.sessions.get(&number)) else {
            return;
        };
        let (peer, route) = (entry.session.peer.guid(), entry.route);
        if self.paths.route_from(path.socket, path.address) == Some(route) {
            let path = Path {
                verified: false,
                ..path
            };
            self.add_path(now, peer, route, path);
        }
    }

    /// Another session took its place: it goes when what is under way has come.
    pub(in super::super) fn retire_routed(&mut self, now: Instant, number: u32) {
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            entry.retires.get_or_insert(now + RETIRE_TIME);
            self.timers_changed = true;
        }
    }

    /// Probes the way over that session once more, from the start of the series.
    pub(in super::super) fn probe_routed(&mut self, now: Instant, number: u32) {
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            entry.session.probe_again(now);
            self.relayed_timeout(now);
        }
    }

    /// The route that this session is a path of, if it is one.
    pub(in super::super) fn route_over(&self, number: u32) -> Option<SyntheticAddress> {
        let entry = self.relayed.sessions.get(&number)?;
        let source = (SocketName::Relay(number), entry.session.label);
        let route = self.paths.route_from(source.0, source.1)?;
        (route == entry.route).then_some(route)
    }

    /// True if that session's path is one that has proven itself since it was last doubted.
    pub(in super::super) fn is_verified_over(&self, number: u32) -> bool {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return false;
        };
        let source = (SocketName::Relay(number), entry.session.label);
        self.paths.is_verified(entry.route, source)
    }

    /// What became of a session at a player. Proof and failure are the router's business.
    pub(super) fn routed_news(&mut self, now: Instant, number: u32, news: News) {
        match news {
            News::Proven => self.routed_proven(now, number),
            News::Failed(_) | News::Silent => self.routed_failed(now, number),
            News::Nothing | News::Bound | News::Forgotten => {}
        }
    }

    /// What kind of path a socket makes by itself, if it is a session's.
    pub(in super::super) fn kind_of_session(&self, socket: SocketName) -> Option<PathKind> {
        let SocketName::Relay(number) = socket else { return None };
        self.relayed.sessions.get(&number).map(|entry| entry.session.kind)
    }

    /// True while there is such a session.
    pub(in super::super) fn has_session(&self, number: u32) -> bool {
        self.relayed.sessions.contains_key(&number)
    }
}
