//! Connections to players: dials, greetings, limits, which of several links to one player counts, and their end.
//!
//! In: wishes to connect or disconnect, opened ways, link events, greetings. Out: links, `CONNECTED`, `CONNECTION_FAILED`,
//! `DISCONNECTED`, and the mesh's news of who is there. A *dial* is a wish under way (several requests may wait for it); a *link* is
//! one QUIC connection; a *peer* has at most one link that counts, and at most one older one whose last messages the game has
//! not read yet.
//!
//! The greeting. The dialler sends Hello when the handshake has proven both keys; the dialled side accepts (Welcome) or closes with
//! a code. Connected there means: Welcome sent; here: Welcome received. Between players that were introduced the dialled side says Hello as
//! well, with the handshake, and the dialler is connected with that: see [`super::early`].
//!
//! Two links to one player. Both dialled: the link that the lower guid dialled survives. The lower side *parks* a link that comes in while
//! its own dial runs: it is accepted if that dial fails, and closed if it succeeds. The higher side accepts the lower's link and gives up
//! its own. One side dialled twice: the later link gives way before it greets. A player that was restarted (another incarnation), or
//! that calls again although a link stands (so it lost it), replaces its old link: DISCONNECTED, then CONNECTED.
//!
//! Timers: [`GREETING_TIME`], [`PARKED_TIME`]; the dial's own is in [`super::dials`].

use std::time::{Duration, Instant};

use super::Node;
use super::api::{Event, Reason, RequestId};
use super::dials::{Dial, dial_reason};
use super::paths::{FEED_TIME, Owner, Path, Source};
use crate::codes::{Code, MAX_DISCONNECT_TEXT, PathKind};
use crate::engine::SocketName;
use crate::transport::identity::{Guid, PublicKey};
use crate::transport::{CloseInfo, CloseReason, LinkId, SyntheticAddress};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::peer::{PeerControl, PeerHello};

/// From the handshake to the other side's Hello or Welcome: longer than [`super::dials`]'s `DIAL_TIME`, because the other side may have parked this link
/// until a dial of its own has failed.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(7);
/// A link that came in late, after the own one stood, is closed by its dialler within a round trip. If it is still there after this
/// time, the dialler means it.
const PARKED_TIME: Duration = Duration::from_secs(1);
/// Time that a link which is left on purpose has for delivering what the game sent before: a few round trips; a bulk transfer's queue is
/// not waited for.
const FLUSH_TIME: Duration = Duration::from_millis(500);
/// Events that the game has not fetched yet above which no new connection is accepted.
pub(super) const MAX_UNREAD_EVENTS: usize = 1024;
/// Dropped messages are gathered for this long before the game is told: a few events a second at most.
const DROPPED_INTERVAL: Duration = Duration::from_millis(250);
/// Closes a link that another one between the same two makes needless.
pub(super) const SUPERSEDED: Code = Code::Replaced;

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Dialled, but there is no path yet.
    Early,
    /// Dialled; no answer yet.
    Handshake,
    /// Came in; its Hello is awaited.
    AwaitHello,
    /// Came in; this side's Hello was sent before the handshake was done, and the dialler's is awaited.
    Greeted,
    /// Hello sent.
    AwaitWelcome,
    /// Its Hello came while another link between the two is under way.
    Parked,
    /// Accepted on both sides.
    Open,
    /// Over; the game has not read its last messages yet.
    Draining,
    /// Over; only its close is still on the way.
    Closing,
}

/// One QUIC connection to a player.
#[derive(Debug)]
pub(super) struct Link {
    pub address: SyntheticAddress,
    /// Proven, or (before the handshake) expected.
    pub key: Option<PublicKey>,
    guid: Option<Guid>,
    pub dialled: bool,
    /// This node wished for a connection to that player, whichever side's dial became it.
    pub wished: bool,
    pub stage: Stage,
    /// CONNECTED was raised.
    pub raised: bool,
    /// The other side greeted early, and has not heard this side's Hello yet, as far as is known.
    pub unconfirmed: bool,
    /// It stands in the queue of links to read from.
    pub queued: bool,
    pub dial: Option<u64>,
    pub deadline: Option<Instant>,
    pub waiting: Vec<RequestId>,
    pub incarnation: u64,
    pub closed: bool,
    pub ending: Option<(Reason, u32)>,
    /// Unreliable messages dropped and not told yet.
    pub dropped: u64,
}

/// What the game's guid leads to.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub current: Option<LinkId>,
    pub draining: Option<LinkId>,
}

impl Node {
    pub(super) fn parked_link(&self, guid: Guid) -> Option<LinkId> {
        let mut links = self.links.iter();
        let found = links.find(|(_, link)| link.stage == Stage::Parked && link.guid() == Some(guid));
        found.map(|(link, _)| *link)
    }

    /// The link to that peer that counts.
    pub(super) fn current_link(&self, peer: Guid) -> Option<LinkId> {
        self.peers.get(&peer).and_then(|peer| peer.current)
    }

    /// The synthetic address of the link to that peer.
    pub(super) fn link_address(&self, peer: Guid) -> Option<SyntheticAddress> {
        let link = self.current_link(peer)?;
        self.links.get(&link).map(|link| link.address)
    }

    /// A handshake is done.
    pub(super) fn link_connected(&mut self, now: Instant, link: LinkId, address: SyntheticAddress, key: PublicKey) {
        self.timers_changed = true;
        match self.links.get_mut(&link) {
            Some(entry) if entry.stage == Stage::Handshake => {
                let introduced = entry.key;
                entry.set_key(Some(key));
                self.dial_connected(now, link, key, introduced);
            }
            Some(entry) if entry.stage == Stage::Greeted && entry.key != Some(key) => {
                self.give_up_greeted(now, link, Code::WrongKey, "another player was introduced here");
            }
            Some(entry) if !entry.dialled => entry.set_key(Some(key)),
            Some(_) => {}
            None => {
                self.paths.link_added(address);
                let mut entry = Link::new(address, false, Stage::AwaitHello, now + GREETING_TIME);
                entry.set_key(Some(key));
                self.links.insert(link, entry);
                if key == self.own_key {
                    self.refuse(now, link, Code::Refused, "a node does not connect to itself");
                } else if self.paths.best(address).is_none() {
                    self.refuse(now, link, Code::NoAnswer, "the handshake took too long");
                }
            }
        }
    }

    pub(super) fn greeting(&self) -> PeerHello {
        PeerHello {
            protocol: PROTOCOL_VERSION,
            app: self.app.clone(),
            incarnation: self.incarnation,
        }
    }

    /// Sends a control message.
    pub(super) fn send_control(&mut self, link: LinkId, message: &PeerControl) {
        self.scratch.clear();
        message.encode(&mut self.scratch);
        // Full: the other side has not read megabytes of control messages; it is as good as lost, and will be.
        let _ = self.transport.send_control(link, &self.scratch);
    }

    /// Closes a link before it counted, without an event.
    pub(super) fn refuse(&mut self, now: Instant, link: LinkId, code: Code, text: &str) {
        let info = CloseInfo {
            code: code.number(),
            user_code: 0,
            text: text.to_owned(),
        };
        self.close_link(now, link, info);
    }

    /// Closes a link (a server's as well); nothing more is heard of it.
    pub(super) fn close_link(&mut self, now: Instant, link: LinkId, info: CloseInfo) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.stage = Stage::Closing;
            entry.deadline = None;
        }
        self.transport.close(now, link, info);
    }

    /// The first control message of a link.
    pub(super) fn greeted(&mut self, now: Instant, link: LinkId, message: &[u8]) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let Some(key) = entry.key else { return };
        let hello = match (PeerControl::decode(message), entry.stage) {
            (Ok(PeerControl::Hello(hello)), Stage::AwaitHello | Stage::Greeted)
            | (Ok(PeerControl::Welcome(hello)), Stage::AwaitWelcome) => hello,
            (Ok(PeerControl::Hello(hello)), Stage::AwaitWelcome) => {
                entry.unconfirmed = true;
                hello
            }
            _ => {
                let other_version =
                    crate::wire::peek_protocol(message).is_some_and(|protocol| protocol != PROTOCOL_VERSION);
                let code = if other_version {
                    Code::Incompatible
                } else {
                    Code::ProtocolViolation
                };
                return self.greeting_failed(now, link, code, "the greeting could not be read");
            }
        };
        entry.incarnation = hello.incarnation;
        // Whoever dialled has been accepted by now, and whoever greeted has accepted.
        let (dialled, greeted) = (entry.dialled, entry.stage == Stage::Greeted);
        if hello.protocol != PROTOCOL_VERSION {
            let text = format!("protocol version {} meets {PROTOCOL_VERSION}", hello.protocol);
            return self.greeting_failed(now, link, Code::Incompatible, &text);
        }
        if hello.app != self.app {
            return self.greeting_failed(now, link, Code::Incompatible, "the other side plays another game");
        }
        if greeted {
            let welcome = PeerControl::Welcome(self.greeting());
            self.send_control(link, &welcome);
        }
        if dialled || greeted {
            return self.open(now, link);
        }
        match self.rival(key.guid(), hello.incarnation) {
            Rival::None => self.accept(now, link),
            // One that would be declined replaces nothing.
            Rival::Replaced(_) if !self.accepting || self.unread.contains_key(&key.guid()) => self.accept(now, link),
            Rival::Replaced(old) => {
                let text = "the player came back over a new connection".to_owned();
                let info = CloseInfo {
                    code: SUPERSEDED.number(),
                    user_code: 0,
                    text: text.clone(),
                };
                self.transport.close(now, old, info);
                self.end_link(now, old, Reason { code: Code::Lost, text }, 0);
                self.accept(now, link);
            }
            Rival::Park(deadline) => {
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.stage = Stage::Parked;
                    entry.deadline = deadline.map(|time| now + time);
                }
            }
        }
    }

    fn greeting_failed(&mut self, now: Instant, link: LinkId, code: Code, text: &str) {
        let Some(entry) = self.links.get(&link) else { return };
        if entry.stage == Stage::Greeted {
            return self.give_up_greeted(now, link, code, text);
        }
        let dial = entry.dial;
        self.refuse(now, link, code, text);
        if let Some(number) = dial {
            let text = text.to_owned();
            self.dial_failed(now, number, Reason { code, text });
        }
    }

    /// What stands against a link that comes in. See the module's documentation.
    fn rival(&self, guid: Guid, incarnation: u64) -> Rival {
        let lower = self.guid < guid;
        if let Some((link, entry)) = self
            .current_link(guid)
            .and_then(|link| Some((link, self.links.get(&link)?)))
        {
            return if lower && entry.dialled && entry.incarnation == incarnation {
                Rival::Park(Some(PARKED_TIME))
            } else {
                Rival::Replaced(link)
            };
        }
        let dialling = self
            .dials
            .values()
            .any(|dial| dial.guid == Some(guid) && dial.link.is_some());
        if lower && dialling {
            Rival::Park(None)
        } else {
            Rival::None
        }
    }

    /// Accepts a link that came in, if there is room.
    pub(super) fn accept(&mut self, now: Instant, link: LinkId) {
        let Some(guid) = self.links.get(&link).and_then(Link::guid) else {
            return;
        };
        if let Some(text) = self.no_room_for(guid) {
            self.refuse(now, link, Code::Full, text);
            // Those whose own link failed, so that only this one was left.
            let unlinked = |dial: &Dial| dial.guid == Some(guid) && dial.link.is_none();
            let numbers: Vec<u64> = self
                .dials
                .iter()
                .filter(|(_, dial)| unlinked(dial))
                .map(|(number, _)| *number)
                .collect();
            for number in numbers {
                let text = format!("the player called as well, and was told: {text}");
                self.dial_failed(now, number, Reason { code: Code::Full, text });
            }
            return;
        }
        let welcome = PeerControl::Welcome(self.greeting());
        self.send_control(link, &welcome);
        self.open(now, link);
    }

    /// Why a connection that this peer began is declined, in words for it.
    pub(super) fn no_room_for(&self, guid: Guid) -> Option<&'static str> {
        if self.connected_or_dialling(Some(guid)) >= self.max_peers {
            Some("this player has as many connections as it allows")
        } else if !self.accepting || self.lifecycle.len() >= MAX_UNREAD_EVENTS {
            Some("this player's game does not fetch its events and takes in nobody meanwhile")
        } else if self.unread.contains_key(&guid) {
            Some("this player's game has not heard of the last connection yet")
        } else {
            None
        }
    }

    /// From now on this is the peer's link.
    pub(super) fn open(&mut self, now: Instant, link: LinkId) {
        self.timers_changed = true;
        self.view_changed = true;
        let Some(entry) = self.links.get_mut(&link) else { return };
        let (Some(key), address) = (entry.key, entry.address) else {
            return;
        };
        entry.stage = Stage::Open;
        entry.deadline = None;
        let guid = key.guid();
        self.give_known_kind(address);
        self.paths.prove(address, Owner::Peer(key));
        self.peers.entry(guid).or_default().current = Some(link);
        self.satisfy_dials(now, guid, link);
        self.watch_paths(now, link, guid);
        if let Some(path) = self.paths.best(address).copied() {
            self.attempt_connected(now, guid, path);
        }
        if self.peers.get(&guid).is_some_and(|peer| peer.draining.is_none()) {
            self.raise_connected(now, link);
        }
    }

    /// A link over an address that punching learned, but that no probe has verified yet, has the kind that punching gave it.
    fn give_known_kind(&mut self, address: SyntheticAddress) {
        let Some(path) = self.paths.best(address).copied() else {
            return;
        };
        if let Some((_, kind)) = self.attempts.heard_at(path.socket, path.address)
            && kind != path.kind
        {
            self.paths.add(address, Path { kind, ..path });
        }
    }

    fn raise_connected(&mut self, now: Instant, link: LinkId) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.raised = true;
        let (key, wished, unconfirmed) = (entry.key, entry.wished, entry.unconfirmed);
        let mut waiting = std::mem::take(&mut entry.waiting);
        waiting.retain(|request| *request != 0 && self.requests.get(*request).is_some());
        if waiting.is_empty() {
            waiting.push(0);
        }
        for request in waiting {
            self.raise_connected_event(link, request);
        }
        if let Some(key) = key {
            if unconfirmed {
                self.mesh_changed().await_confirmation(key.guid());
            }
            self.mesh_changed().connected(now, key, wished);
        }
        self.read_control(now, link);
        self.queue_readable(link);
    }

    pub(super) fn raise_connected_event(&mut self, link: LinkId, request: RequestId) {
        let Some(entry) = self.links.get(&link) else { return };
        let Some(path) = self.paths.best(entry.address) else {
            return;
        };
        let (path, address) = (path.kind, path.address);
        if let Some(peer) = entry.guid()
            && self.requests.end(request)
        {
            self.raise(Event::Connected {
                request,
                peer,
                path,
                address,
            });
        }
    }

    /// The game's call.
    pub(super) fn disconnect(&mut self, now: Instant, peer: Guid, user_code: u32, text: String) {
        self.disconnect_with(now, peer, Code::Closed, user_code, text);
        let wanted: Vec<u64> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.guid == Some(peer))
            .map(|(number, _)| *number)
            .collect();
        for number in wanted {
            self.abort_dial(now, number);
        }
    }

    /// Closes the connection to a peer with a code and words. For the game it is over at once; the close itself follows what was sent
    /// before.
    pub(super) fn disconnect_with(&mut self, now: Instant, peer: Guid, code: Code, user_code: u32, mut text: String) {
        let Some(link) = self.current_link(peer) else { return };
        shorten(&mut text);
        let info = CloseInfo {
            code: code.number(),
            user_code,
            text: text.clone(),
        };
        self.leaving.push((link, info, now + FLUSH_TIME));
        self.transmit_wanted = true;
        self.end_link(now, link, Reason { code, text }, user_code);
    }

    /// Closes links that were left on purpose and whose last messages have arrived by now. True if there was one.
    pub(super) fn close_leaving(&mut self, now: Instant) -> bool {
        if self.leaving.is_empty() {
            return false;
        }
        let transport = &mut self.transport;
        let before = self.leaving.len();
        self.leaving.retain(|(link, info, deadline)| {
            let waits = now < *deadline && !transport.is_delivered(*link);
            if !waits {
                transport.close(now, *link, info.clone());
            }
            waits
        });
        self.timers_changed = true;
        self.settle(now);
        self.leaving.len() < before
    }

    /// The transport closed a link.
    pub(super) fn link_closed(&mut self, now: Instant, link: LinkId, reason: CloseReason) {
        self.timers_changed = true;
        let Some(entry) = self.links.get_mut(&link) else {
            return self.transport.forget(link);
        };
        entry.closed = true;
        let (stage, dial) = (entry.stage, entry.dial);
        match stage {
            Stage::Open => {
                let (reason, user_code) = disconnect_reason(reason);
                self.end_link(now, link, reason, user_code);
            }
            Stage::Draining => {}
            Stage::Closing | Stage::AwaitHello | Stage::Parked | Stage::Early => self.forget_link(now, link),
            Stage::Greeted => {
                let guid = entry.guid();
                self.forget_link(now, link);
                if let Some(guid) = guid {
                    self.dial_after_greeting(now, guid);
                }
            }
            Stage::Handshake | Stage::AwaitWelcome => {
                self.forget_link(now, link);
                if let Some(number) = dial {
                    self.dial_failed(now, number, dial_reason(reason));
                }
            }
        }
    }

    /// An open link is over: its last messages first, then DISCONNECTED.
    fn end_link(&mut self, now: Instant, link: LinkId, reason: Reason, user_code: u32) {
        self.timers_changed = true;
        self.view_changed = true;
        self.read_control(now, link);
        let Some(entry) = self.links.get_mut(&link) else { return };
        let Some(guid) = entry.guid() else { return };
        let raised = entry.raised;
        let waiting = std::mem::take(&mut entry.waiting);
        entry.stage = if raised { Stage::Draining } else { Stage::Closing };
        entry.ending = Some((reason.clone(), user_code));
        let closed = entry.closed;
        let peer = self.peers.entry(guid).or_default();
        peer.current = None;
        self.unwatch_paths(guid);
        self.router_peer_gone(now, guid);
        let peer = self.peers.entry(guid).or_default();
        if !raised {
            if peer.draining.is_none() {
                self.peers.remove(&guid);
            }
            for request in waiting {
                self.raise_connection_failed(request, Some(guid), None, reason.clone());
            }
            if closed {
                self.forget_link(now, link);
            }
            return;
        }
        peer.draining = Some(link);
        self.queue_readable(link);
        self.mesh_changed().disconnected(now, guid, reason);
        self.attempt_disconnected(now, guid);
    }

    /// The last message of a link that is over was read.
    pub(super) fn drained(&mut self, link: LinkId) {
        let now = self.now;
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.stage = Stage::Closing;
        let closed = entry.closed;
        let (Some(guid), Some((reason, user_code))) = (entry.guid(), entry.ending.take()) else {
            return;
        };
        self.note_dropped(link);
        self.tell_dropped(link);
        if closed {
            self.forget_link(now, link);
        }
        self.raise(Event::Disconnected {
            peer: guid,
            reason,
            user_code,
        });
        let Some(peer) = self.peers.get_mut(&guid) else { return };
        peer.draining = None;
        match peer.current {
            Some(current) => self.raise_connected(now, current),
            None => {
                self.peers.remove(&guid);
            }
        }
    }

    /// Notes what the transport dropped on that link; the game hears of it within [`DROPPED_INTERVAL`].
    pub(super) fn note_dropped(&mut self, link: LinkId) {
        let count = self.transport.take_unreliable_dropped(link);
        if count > 0
            && let Some(entry) = self.links.get_mut(&link)
        {
            entry.dropped += count;
            if self.dropped_due.is_none() {
                self.dropped_due = Some(self.now + DROPPED_INTERVAL);
                self.timers_changed = true;
            }
        }
    }

    fn tell_dropped(&mut self, link: LinkId) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if entry.dropped > 0
            && entry.raised
            && let Some(peer) = entry.guid()
        {
            let count = std::mem::take(&mut entry.dropped);
            self.raise(Event::Dropped { peer, count });
        }
    }

    /// Tells of dropped messages when it is time. A game that does not fetch its events gets one event more a peer, not one each time.
    pub(super) fn dropped_timeout(&mut self, now: Instant) {
        if self.dropped_due.is_none_or(|at| at > now) {
            return;
        }
        self.dropped_due = None;
        self.timers_changed = true;
        if !self.accepting {
            self.dropped_due = Some(now + DROPPED_INTERVAL);
            return;
        }
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.dropped > 0)
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            self.tell_dropped(link);
        }
    }

    fn forget_link(&mut self, now: Instant, link: LinkId) {
        if let Some(entry) = self.links.remove(&link) {
            self.paths.link_removed(now, entry.address);
        }
        self.transport.forget(link);
        self.timers_changed = true;
    }

    /// Puts a path behind a route; tells QUIC and the game if the route's best path is another one now.
    pub(super) fn add_path(&mut self, now: Instant, peer: Guid, address: SyntheticAddress, path: Path) {
        let before = self.paths.best(address).copied();
        if self.paths.add(address, path) {
            self.best_path_changed(now, peer, address, before);
        }
        self.paths.feed_no_longer_than(address, now + FEED_TIME);
    }

    /// Takes a path away from a route, as [`add_path`](Self::add_path) puts it there.
    pub(super) fn take_path(&mut self, now: Instant, peer: Guid, address: SyntheticAddress, source: Source) {
        let before = self.paths.best(address).copied();
        if self.paths.take(address, source) {
            self.best_path_changed(now, peer, address, before);
        }
    }

    /// Another session at the same forwarder is the same path, for QUIC and for the game.
    pub(super) fn best_path_changed(
        &mut self,
        now: Instant,
        peer: Guid,
        address: SyntheticAddress,
        before: Option<Path>,
    ) {
        let Some(best) = self.paths.best(address).copied() else {
            return;
        };
        let relayed = |path: &Path| matches!(path.socket, SocketName::Relay(_)).then_some((path.kind, path.address));
        if before.is_some_and(|before| relayed(&before).is_some() && relayed(&before) == relayed(&best)) {
            return;
        }
        if let Some(before) = before {
            let until = now + FEED_TIME;
            self.paths.feed_too(address, (before.socket, before.address), until);
            self.note_change_of_kind(now, peer, before.kind, best.kind);
        }
        let before = before.map_or(PathKind::None, |before| before.kind);
        let on_it = |(link, entry): (&LinkId, &Link)| {
            (entry.address == address && entry.stage != Stage::Closing)
                .then_some((*link, entry.raised && entry.stage == Stage::Open))
        };
        let links: Vec<_> = self.links.iter().filter_map(on_it).collect();
        for (link, raised) in links {
            self.transport.path_changed(now, link);
            if raised {
                let event = Event::PathChanged {
                    peer,
                    from: before,
                    to: best.kind,
                    address: best.address,
                };
                self.raise(event);
            }
        }
        self.view_changed = true;
    }

    /// Links that waited too long.
    pub(super) fn connections_timeout(&mut self, now: Instant) {
        self.close_leaving(now);
        let due = |link: &Link| link.deadline.is_some_and(|at| at <= now);
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| due(link))
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            let Some(entry) = self.links.get_mut(&link) else {
                continue;
            };
            entry.deadline = None;
            let (stage, dial, guid) = (entry.stage, entry.dial, entry.guid());
            match stage {
                Stage::Parked => self.unpark(now, link, guid),
                Stage::AwaitHello => self.refuse(now, link, Code::NoAnswer, "no greeting came"),
                Stage::Greeted => self.give_up_greeted(now, link, Code::NoAnswer, "no greeting came"),
                Stage::Early => {
                    if let Some(number) = dial {
                        self.drop_early(now, number);
                    }
                }
                Stage::Handshake | Stage::AwaitWelcome => {
                    self.refuse(now, link, Code::NoAnswer, "");
                    if let Some(number) = dial {
                        let text = "no answer came from that address".to_owned();
                        let code = Code::NoAnswer;
                        self.dial_failed(now, number, Reason { code, text });
                    }
                }
                Stage::Open | Stage::Draining | Stage::Closing => {}
            }
        }
    }

    /// The other side did not close its link although ours stood: it has lost ours.
    fn unpark(&mut self, now: Instant, link: LinkId, guid: Option<Guid>) {
        let Some(guid) = guid else { return };
        let welcome = self.accepting && !self.unread.contains_key(&guid);
        if let Some(old) = self.current_link(guid).filter(|_| welcome) {
            let text = "the player came back over a new connection".to_owned();
            let info = CloseInfo {
                code: SUPERSEDED.number(),
                user_code: 0,
                text: text.clone(),
            };
            self.transport.close(now, old, info);
            self.end_link(now, old, Reason { code: Code::Lost, text }, 0);
        }
        self.accept(now, link);
    }

    /// When a link's time is up next.
    pub(super) fn connections_deadline(&self) -> Option<Instant> {
        let flushes = self.leaving.iter().map(|(_, _, deadline)| *deadline);
        self.links
            .values()
            .filter_map(|link| link.deadline)
            .chain(flushes)
            .min()
    }
}

/// What stands against a link that comes in.
enum Rival {
    None,
    Replaced(LinkId),
    Park(Option<Duration>),
}

impl Link {
    pub fn new(address: SyntheticAddress, dialled: bool, stage: Stage, deadline: Instant) -> Self {
        Self {
            address,
            key: None,
            guid: None,
            dialled,
            wished: dialled,
            stage,
            raised: false,
            unconfirmed: false,
            queued: false,
            dial: None,
            deadline: Some(deadline),
            waiting: Vec::new(),
            incarnation: 0,
            closed: false,
            ending: None,
            dropped: 0,
        }
    }

    /// Who is at the other end, as far as is known (before the handshake: who is expected).
    pub fn guid(&self) -> Option<Guid> {
        self.guid
    }

    pub fn set_key(&mut self, key: Option<PublicKey>) {
        self.key = key;
        self.guid = key.map(|key| key.guid());
    }
}

/// Cuts a text to what a close can carry, between characters.
fn shorten(text: &mut String) {
    let end = (0..=text.len().min(MAX_DISCONNECT_TEXT))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// Why a connection ended, as the game hears it.
fn disconnect_reason(reason: CloseReason) -> (Reason, u32) {
    let (code, text, user_code) = match reason {
        CloseReason::Remote(info) => {
            let code = Code::from_number(info.code).filter(|code| code.number() <= Code::NoAnswer.number());
            (code.unwrap_or(Code::Closed), info.text, info.user_code)
        }
        CloseReason::TimedOut | CloseReason::NoAnswer => (Code::Lost, "the player went silent".to_owned(), 0),
        CloseReason::Local => (Code::Closed, String::new(), 0),
        CloseReason::ProtocolViolation(text) => (Code::ProtocolViolation, text, 0),
        CloseReason::WrongKey(_) | CloseReason::Incompatible => (Code::ProtocolViolation, String::new(), 0),
    };
    (Reason { code, text }, user_code)
}
