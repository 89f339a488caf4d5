//! Ways through other players (RakNet's Router2). A node can have three parts in it, in different pairs at the same time:
//!
//! | file | part |
//! |---|---|
//! | `seeking` | the *asker*: asks all directly connected players, chooses, tries one after the other |
//! | `invited` | the *target*: a player forwards to this node |
//! | `forwarding` | the *router*: answers, grants, forwards frames |
//! | `ways` | at asker and target: the ways that stand, doubts about them, and their end |
//! | `proof` | what asker and target prove to each other through the router |
//!
//! In: the game's call, the messages of [`crate::wire::routing`], proofs and failures of sessions ([`super::relayed`]), lost links, time.
//! Out: those messages, sessions and paths, the `ROUTER_…` events, and frames that are passed on.
//!
//! ```text
//! asker            router            target
//!   │ ── Query ──────▶│                 │     to all that are directly connected
//!   │ ◀── Willing ────│                 │     lowest (round trip there + from there) × (load + 1)
//!   │ ── Request ────▶│ ── Offer ──────▶│     shows its ticket at once
//!   │ ◀── Granted ────│ ◀── Accept ─────│
//!   │ ══ probes in frames ═════════════▶│     ROUTER_FORWARDING_ESTABLISHED · ROUTER_REROUTED
//! ```
//!
//! **Choice.** Asked are players that are connected directly (never over a forwarder, so frames are never within frames). Whoever is silent for
//! the time to ask is not waited for. When one fails (refuses, is silent, no proof comes) the next is tried. Nobody willing: NO_PATH,
//! also when nobody is connected. All failed: FAILED with the last one's code.
//!
//! **Trust.** The router is a player like any other and may lie. It must neither read nor change what the two say, nor take anybody's path:
//! - Asker and target agree on a secret by a key agreement that both sign with their identities and that names the router (`proof`). The
//!   router passes the shares on and cannot replace them. The probes over the way are made with that secret, so a proof is the other
//!   side's word, and that of nobody else. It makes no difference whether the two are connected: nothing depends on a state that the two may
//!   see differently for a moment. What the target's key is, the asker checks against the guid that the game named, or the whole key of the
//!   connection; the target, likewise.
//! - Before the proof nothing leads over the way: no path stands behind any route, none is retired, no opened way is replaced. A recorded request
//!   that is offered again leads to a fresh share of the target, so to a secret that nobody has.
//! - After it the way is a path like others: lan and direct beat it. A router that stops forwarding then is noticed as any dead path is.
//! - The two's QUIC goes through it whole, with their own keys.
//! - Messages count only from whom they can come: grants from the router that was asked, ends from the router of that very pair, answers from
//!   the target of that very pair. Others are dropped and counted.
//!
//! **Consent.** A target that is not connected to the asker accepts as for introductions: `accept_from` app: from any player of the game; session: from
//! members of its session; nobody: never. Nor does a node whose relay policy is `never`, or `only`: a router is a player, and with `only` players
//! never learn each other's addresses. Both make `route` fail with code POLICY. Neither keeps a node from forwarding for others: that is
//! `router_max` alone.
//!
//! **Life.** Whoever has a way and is not connected has [`HOLD_TIME`] to connect. When the router leaves, takes the pair back, fails or goes silent, the asker
//! seeks another one by itself; both ends hear ROUTER_REROUTED when that one is proven. Nobody left: the path goes away, and the server is asked for
//! a relay, if the node's policy allows that. When both sides asked, the way that the lower guid asked for stays.
//!
//! **Bounds.** Searches: one for each player, as many as the game asks for. At the target: [`MAX_COMING`] unproven sessions, and
//! [`OFFERS_PER_WINDOW`] offers of one player in [`WINDOW`]. At the router: `router_max` pairs, [`REQUESTS_PER_WINDOW`] requests of one player,
//! bytes and frames of a pair, and a queue that drops its oldest (`forwarding`).

mod forwarding;
mod invited;
mod proof;
mod seeking;
mod ways;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;

use super::Node;
use super::connections::Stage;
use crate::codes::{Code, PathKind};
use crate::transport::LinkId;
use crate::transport::identity::{Guid, Identity, PublicKey};
use crate::wire::peer::PeerControl;
use crate::wire::routing::RouteMessage;
use forwarding::Forwarding;
use invited::Coming;
use seeking::Search;
use ways::{Left, Way};

/// Time to connect after a way was opened, as after punching.
const HOLD_TIME: Duration = Duration::from_secs(60);
/// Most sessions at a time that others asked for and that are not proven: every player of the largest session.
const MAX_COMING: usize = 64;
/// How long offers and requests are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Offers of one player within [`WINDOW`]: it may forward for a whole session that begins at one moment. Each costs this node a signature, a
/// verification and a key agreement, about 200 µs in all.
const OFFERS_PER_WINDOW: u32 = 64;
/// Requests of one player to forward within [`WINDOW`]: fewer than offers, so that one asker cannot use up what a target takes from this
/// node.
const REQUESTS_PER_WINDOW: u32 = 16;
/// How often ways are looked at: as often as roaming looks at paths.
const TICK: Duration = Duration::from_millis(200);

/// So many within [`WINDOW`].
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    count: u32,
}

impl Window {
    /// Counts one for `peer`; false: that was too many.
    fn admit(windows: &mut BTreeMap<Guid, Self>, now: Instant, peer: Guid, most: u32) -> bool {
        let window = windows.entry(peer).or_insert(Self { since: now, count: 0 });
        if now >= window.since + WINDOW {
            *window = Self { since: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        window.count <= most
    }
}

/// All of it.
pub(super) struct Router {
    identity: Arc<Identity>,
    crypto: Arc<CryptoProvider>,
    /// By the player to whom a way is sought.
    searches: BTreeMap<Guid, Search>,
    next_number: u32,
    /// Sessions that others asked for and that are not proven, by number.
    coming: BTreeMap<u32, Coming>,
    offers: BTreeMap<Guid, Window>,
    /// By the player to whom they lead.
    ways: BTreeMap<Guid, Way>,
    /// Ways that others took the place of.
    left: Vec<Left>,
    pub(super) forwarding: Forwarding,
    tick_at: Option<Instant>,
    /// For tests: every message that comes.
    #[cfg(test)]
    pub(super) heard: Option<Vec<RouteMessage>>,
}

impl Router {
    pub fn new(now: Instant, identity: Arc<Identity>, crypto: Arc<CryptoProvider>, seed: [u8; 32]) -> Self {
        Self {
            identity,
            crypto,
            searches: BTreeMap::new(),
            next_number: 0,
            coming: BTreeMap::new(),
            offers: BTreeMap::new(),
            ways: BTreeMap::new(),
            left: Vec::new(),
            forwarding: Forwarding::new(now, &seed),
            tick_at: None,
            #[cfg(test)]
            heard: None,
        }
    }

    fn number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let searches = self.searches.values().map(Search::deadline);
        let coming = self.coming.values().map(|coming| coming.until);
        searches
            .chain(coming)
            .chain(self.forwarding.poll_timeout())
            .chain(self.tick_at)
            .min()
    }
}

impl Node {
    /// A message about ways through other players.
    pub(super) fn route_message(&mut self, now: Instant, from: Guid, message: RouteMessage) {
        self.timers_changed = true;
        #[cfg(test)]
        if let Some(heard) = &mut self.router.heard {
            heard.push(message.clone());
        }
        match message {
            RouteMessage::Query { query, target } => self.queried(from, query, target),
            RouteMessage::Willing {
                query,
                round_trip_us,
                load,
            } => self.answered(now, from, query, Some((round_trip_us, load))),
            RouteMessage::Unwilling { query, .. } => self.answered(now, from, query, None),
            RouteMessage::Request {
                request,
                target,
                introduction,
                share,
            } => self.requested(now, from, (request, target), introduction, share),
            RouteMessage::Offer {
                introduction,
                asker,
                share,
                grant,
            } => self.offered(now, from, (introduction, asker, share), grant),
            RouteMessage::Accept { introduction, share } => self.accepted(now, from, introduction, share),
            RouteMessage::Decline { introduction, code } => self.declined(from, introduction, code),
            RouteMessage::Granted {
                request,
                target,
                share,
                grant,
            } => self.granted(now, from, request, (target, share, grant)),
            RouteMessage::Refused { request, code } => self.refused(now, from, request, code),
            RouteMessage::Ended { introduction, code } => self.route_ended_by(now, from, introduction, code),
        }
    }

    /// A pair's end: as its router, its asker or its target.
    fn route_ended_by(&mut self, now: Instant, from: Guid, introduction: u64, code: i32) {
        let known = self.pair_ended_by(now, from, introduction, code)
            || self.attempt_ended_by(now, from, introduction, code)
            || self.coming_ended_by(now, from, introduction)
            || self.way_ended_by(now, from, introduction);
        if !known {
            self.route_message_dropped();
        }
    }

    /// A message that this player had no business to send, or that came too late.
    fn route_message_dropped(&mut self) {
        self.dropped.unknown += 1;
    }

    fn send_route(&mut self, to: Guid, message: RouteMessage) {
        if let Some(link) = self.current_link(to) {
            self.transmit_wanted = true;
            self.send_control(link, &PeerControl::Route(message));
        }
    }

    fn send_route_ended(&mut self, to: Guid, introduction: u64, code: Code) {
        let code = code.number();
        self.send_route(to, RouteMessage::Ended { introduction, code });
    }

    /// The link to a player that is connected, and not over a forwarder.
    fn direct_link(&self, peer: Guid) -> Option<(LinkId, PublicKey)> {
        let link = self.current_link(peer)?;
        let entry = self.links.get(&link)?;
        let direct = self.paths.best(entry.address)?.kind <= PathKind::Direct;
        (entry.stage == Stage::Open && entry.raised && direct).then_some((link, entry.key?))
    }

    fn round_trip_to(&self, link: LinkId) -> Duration {
        self.transport
            .stats(link)
            .map_or(Duration::ZERO, |stats| stats.round_trip)
    }

    /// True if that key may be the one of a player: of the connection with it, or at least of its guid.
    fn is_key_of(&self, peer: Guid, key: PublicKey) -> bool {
        let linked = self
            .current_link(peer)
            .and_then(|link| self.links.get(&link))
            .and_then(|entry| entry.key);
        key.guid() == peer && linked.is_none_or(|linked| linked == key)
    }

    /// Ways that stand, and sessions that others asked for and that are not proven.
    #[cfg(test)]
    pub(super) fn ways_and_coming(&self) -> (usize, usize) {
        (self.router.ways.len(), self.router.coming.len())
    }

    /// What the pair of the only way is called.
    #[cfg(test)]
    pub(super) fn way_introduction(&self) -> u64 {
        self.router.ways.values().next().map_or(0, |way| way.introduction)
    }

    /// The connection with a player is over.
    pub(super) fn router_peer_gone(&mut self, now: Instant, peer: Guid) {
        self.timers_changed = true;
        self.pairs_of_gone(peer);
        self.router.offers.remove(&peer);
        self.search_without(now, peer);
        self.coming_without(now, peer);
        self.ways_without(now, peer);
    }

    /// Does what is due.
    pub(super) fn router_timeout(&mut self, now: Instant) {
        self.searches_timeout(now);
        self.coming_timeout(now);
        self.forwarding_timeout(now);
        if self.router.tick_at.is_some_and(|at| at <= now) {
            self.router.tick_at = None;
            self.look_at_ways(now);
            self.tick_ways(now);
        }
    }

    /// Ways are looked at as long as there are any.
    fn tick_ways(&mut self, now: Instant) {
        let any = !self.router.ways.is_empty() || !self.router.left.is_empty();
        if any && self.router.tick_at.is_none() {
            self.router.tick_at = Some(now + TICK);
            self.timers_changed = true;
        }
    }
}
