//! This node's sessions at forwarders: the server's relay, proxy servers elsewhere, players that route.
//!
//! In: offers (with introductions, or from a routing player), relay frames, the time. Out: a virtual socket for each session
//! ([`SocketName::Relay`]) with a path behind the player's route, bind frames and probes, wishes for another relay, the `PROXY_…` events.
//!
//! **A session is a socket.** Paths, links and QUIC treat what comes through a forwarder like what comes in at any other socket. Here the
//! frames are put around datagrams and taken off. Frames within frames are dropped.
//!
//! **Order.** The ticket is shown, and data follows at once: the forwarder answers the one and passes the other on. So a connection over a
//! relay takes no longer than its own handshake. To whoever is not connected, a path of an offer counts as verified: the server, or the player
//! that routes, made it for these two. Between two who are connected it is taken into use when the other side has answered through it. One that
//! fails is taken away, and the server is asked for the next relay.
//!
//! **Life.** A session is kept while its path is the best one of a connection (or of a dial), and [`SPARE_TIME`] beyond. Between two who are
//! connected it then *rests*: nothing is sent, but its ticket is kept until it is void, so that it can be bound again when another path dies.
//! A ticket in use is renewed when [`RENEW_PART`] of its time is left; so is one whose forwarder forgot the session. A newer session between
//! the two takes an older one's place when it has proven itself.
//!
//! | file | what it does |
//! |---|---|
//! | `keeping` | sessions of connected players: woken, proven, renewed, at rest |
//! | `session` | one session: ticket, frames, probes |
//! | `proxy` | the game's step-by-step call |
//! | `routed` | sessions at players: no path before the proof |
//! | `measure` | how far the server's relays are |

mod keeping;
mod measure;
mod proxy;
mod routed;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Buf;
use rustc_hash::FxHashMap;

use super::Node;
use super::api::relay::RelayCommand;
use super::paths::{Owner, Path, may_send_to};
use crate::codes::{Code, PathKind};
use crate::engine::{Datagram, SocketName, Transmit};
use crate::transport::SyntheticAddress;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::{RelayPolicy, ToServer};
use crate::wire::introduction::{MAX_RELAYS, RelayIntroduction, RelayOffer};
use crate::wire::probe::{REQUEST_BYTE, RESPONSE_BYTE};
use crate::wire::relay::{BOUND_BYTE, Bound, DATA_BYTE, DATA_HEADER, DataHeader, GONE_BYTE, Gone};
use measure::Measure;
pub(super) use proxy::Proxies;
pub(super) use session::{Between, Hop};
use session::{News, Session};

/// Sessions at a time: the largest session's members twice over, each with one that is being left.
const MAX_SESSIONS: usize = 256;
/// Of them with players who call and are not connected yet: a full session of players joins at a time.
const MAX_CALLERS: usize = 64;
/// Frames of our own that wait for the socket; more than that and the oldest are dropped (all are repeated).
const MAX_QUEUED: usize = 256;
/// How long a session is kept that carries nothing: longer than a direct path takes to prove itself.
const SPARE_TIME: Duration = Duration::from_secs(20);
/// How long a session whose place another one has taken stays open for what is under way.
const RETIRE_TIME: Duration = Duration::from_secs(2);
/// The same while the newer one has not proven itself: some more than a forwarder's silence takes to show.
const REPLACE_TIME: Duration = Duration::from_secs(10);
/// Sessions with a player whose places newer ones have taken: wishes for an introduction are 3 s apart.
const MAX_REPLACED: usize = 3;
/// The part of a ticket's time that is left when another one is asked for, as a divisor: a quarter. The side that asked for the session does
/// it; the other one when half of that is left, should the first have no server.
const RENEW_PART: u32 = 4;
/// Wishes for another relay for one player: not more often than this, so that two sides that fail do not keep the server busy.
const WISH_INTERVAL: Duration = Duration::from_millis(500);
/// How long an answer to such a wish is waited for.
const WISH_TIME: Duration = Duration::from_secs(8);

/// A wish for a relay that the server has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub peer: Guid,
    pub deadline: Instant,
}

/// What is remembered of a player beside its sessions.
#[derive(Debug, Default)]
struct Tried {
    /// Relays that did not work for the two, since the last that did.
    keys: Vec<PublicKey>,
    /// When the server was asked last.
    asked: Option<Instant>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    sessions: BTreeMap<u32, Entry>,
    /// Looked up for each frame.
    by_id: FxHashMap<u64, u32>,
    next_number: u32,
    queue: VecDeque<(u32, Vec<u8>)>,
    tried: BTreeMap<Guid, Tried>,
    asked: BTreeMap<u32, Asked>,
    next_request: u32,
    pub proxies: Proxies,
    pub measure: Measure,
    /// Frames of nobody, and forged ones.
    pub dropped: u64,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    /// Where frames go, as it was last known.
    way: Option<(SocketName, SocketAddr)>,
    route: SyntheticAddress,
    /// When it last was of use.
    used: Instant,
    /// Another one took its place: when it goes.
    retires: Option<Instant>,
    /// When another ticket is asked for.
    renew_at: Instant,
    /// Nothing is sent; see the module's documentation.
    rests: bool,
    /// The forwarder or the way there failed: when it works again, QUIC is to know.
    failed: bool,
}

impl Relayed {
    fn enqueue(&mut self, number: u32, frame: Vec<u8>) {
        if frame.is_empty() {
            return;
        }
        if self.queue.len() >= MAX_QUEUED {
            self.queue.pop_front();
        }
        self.queue.push_back((number, frame));
    }

    /// True if frames wait for the socket.
    pub fn has_frames(&self) -> bool {
        !self.queue.is_empty() || self.measure.has_requests()
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let entries = self.sessions.values().flat_map(|entry| {
            let awake = (!entry.rests).then(|| {
                let spare = Some(entry.used + SPARE_TIME);
                [spare, Some(entry.renew_at), entry.session.poll_timeout()]
            });
            let ends = [Some(entry.session.expires), entry.retires];
            awake.into_iter().flatten().chain(ends).flatten()
        });
        let asked = self.asked.values().map(|asked| asked.deadline);
        entries
            .chain(asked)
            .chain(self.proxies.poll_timeout())
            .chain(self.measure.poll_timeout())
            .min()
    }

    /// The socket and address under which the newest session of that kind with that player brings its datagrams.
    pub fn socket_of(&self, peer: Guid, kind: PathKind) -> Option<(SocketName, SocketAddr)> {
        let of_kind = self.of(peer).filter(|(_, entry)| entry.session.kind == kind).last();
        of_kind.map(|(number, entry)| (SocketName::Relay(number), entry.session.label))
    }

    fn of(&self, peer: Guid) -> impl Iterator<Item = (u32, &Entry)> {
        let of_peer = move |entry: &&Entry| entry.session.peer.guid() == peer && entry.retires.is_none();
        self.sessions
            .iter()
            .filter(move |(_, entry)| of_peer(entry))
            .map(|(number, entry)| (*number, entry))
    }
}

impl Node {
    /// The game's call.
    pub(super) fn relay_command(&mut self, now: Instant, command: RelayCommand) {
        match command {
            RelayCommand::Route { request, peer } => self.route(now, request, peer),
            RelayCommand::Proxy { request, peer, idle } => self.proxy(now, request, peer, idle),
            RelayCommand::SetPolicy(policy) => self.set_relay_policy(policy),
            RelayCommand::SetSessionPolicy(policy) => self.set_session_relay_policy(policy),
        }
    }

    /// Takes an offer up: shows the ticket, and puts a path behind the player's route. Returns the session's number; `None` if there are too
    /// many, or no way to the forwarder.
    pub(super) fn take_offer(
        &mut self,
        now: Instant,
        between: &Between,
        offer: RelayOffer,
        (hop, kind): (Hop, PathKind),
    ) -> Option<u32> {
        if self.relayed.by_id.contains_key(&offer.session) || !self.make_room_for_session(now) {
            return None;
        }
        let way = self.way_of(hop)?;
        let peer = between.peer.guid();
        let number = self.relayed.next_number;
        self.relayed.next_number = number.wrapping_add(1);
        self.replace_sessions(now, peer, kind);
        let mut session = Session::new(now, between, offer, (hop, way.1), kind);
        let connected = self.link_address(peer).is_some();
        if connected {
            session.probe_at_once(now);
        }
        let path = Path {
            socket: SocketName::Relay(number),
            address: way.1,
            kind,
            round_trip: None,
            verified: !connected,
        };
        let route = self.route_for_peer(now, between.peer, path);
        self.relayed.by_id.insert(session.id(), number);
        let entry = Entry {
            renew_at: session.renew_at(),
            session,
            way: Some(way),
            route,
            used: now,
            retires: None,
            rests: false,
            failed: false,
        };
        self.relayed.sessions.insert(number, entry);
        self.feed_if_doubted(now, number);
        self.timers_changed = true;
        self.relayed_timeout(now);
        Some(number)
    }

    /// Puts a path behind the route of a player: that of its link, of an opened way, or a new one.
    fn route_for_peer(&mut self, now: Instant, peer: PublicKey, path: Path) -> SyntheticAddress {
        let guid = peer.guid();
        let known = self.link_address(guid).or_else(|| self.paths.opened_route(guid));
        let route = match known {
            Some(route) => {
                self.add_path(now, guid, route, path);
                route
            }
            None => {
                let route = self.transport.new_address();
                self.paths.insert(now, route, Owner::Peer(peer), path);
                route
            }
        };
        self.paths.open(guid, route, now + SPARE_TIME);
        route
    }

    /// Where frames for that forwarder go. A router is reached directly, never through another forwarder.
    fn way_of(&self, hop: Hop) -> Option<(SocketName, SocketAddr)> {
        let route = match hop {
            Hop::Address(address) => {
                let socket = match address {
                    SocketAddr::V4(_) => SocketName::Udp4,
                    SocketAddr::V6(_) => SocketName::Udp6,
                };
                let good = may_send_to(address) && self.has_socket(socket);
                return good.then_some((socket, address));
            }
            Hop::ServerSession => self.server_address_of_session()?,
            Hop::Player(router) => self.link_address(router)?,
        };
        let path = self.paths.best(route)?;
        (!matches!(path.socket, SocketName::Relay(_))).then_some((path.socket, path.address))
    }

    /// The relays of an introduction. False if there is none that this node takes.
    pub(super) fn relays_offered(&mut self, now: Instant, between: &Between, offers: Vec<RelayOffer>) -> bool {
        if self.effective_relay_policy() == RelayPolicy::Never {
            return false;
        }
        for offer in offers {
            let hop = offer.address.map_or(Hop::ServerSession, Hop::Address);
            if self.take_offer(now, between, offer, (hop, PathKind::Proxied)).is_some() {
                return true;
            }
        }
        false
    }

    /// The server offers relays for a player, as either side wished.
    pub(super) fn relays_introduced(&mut self, now: Instant, introduction: RelayIntroduction) {
        let peer = introduction.peer.guid();
        let asked = self.relayed.asked.remove(&introduction.request);
        let wanted = asked.is_some_and(|asked| asked.peer == peer);
        if !wanted && (introduction.request != 0 || !self.consents_to_relay(peer)) {
            return;
        }
        let between = Between {
            peer: introduction.peer,
            introduction: introduction.id,
            secret: introduction.secret,
        };
        if !wanted && !self.has_room_for_caller(peer) {
            return;
        }
        let taken = self.relays_offered(now, &between, introduction.relays);
        self.proxy_offered(now, (peer, introduction.request), introduction.announced, taken);
        if taken {
            self.way_opened(now, peer);
        }
    }

    /// The server has no relay for a player.
    pub(super) fn relay_failed(&mut self, now: Instant, request: u32, code: Code, text: String) {
        if let Some(asked) = self.relayed.asked.remove(&request) {
            self.proxy_refused(now, asked.peer, request, code, text);
        }
    }

    /// Asks the server for a relay. Returns the number of the wish.
    pub(super) fn wish_for_relay(&mut self, now: Instant, peer: Guid, idle: Duration, announced: bool) -> Option<u32> {
        if !self.server_is_up() {
            return None;
        }
        self.relayed.next_request = self.relayed.next_request.wrapping_add(1).max(1);
        let request = self.relayed.next_request;
        let tried = self.relayed.tried.entry(peer).or_default();
        tried.asked = Some(now);
        let message = ToServer::RequestRelay {
            request,
            target: peer,
            idle_ms: idle.as_millis().try_into().unwrap_or(u32::MAX),
            tried: tried.keys.clone(),
            announced,
        };
        let deadline = now + WISH_TIME;
        self.relayed.asked.insert(request, Asked { peer, deadline });
        self.send_to_server(&message);
        self.hurry_server(now);
        self.timers_changed = true;
        Some(request)
    }

    /// Sessions of players who call, and are neither connected nor wished for, have a bound of their own: strangers must not use up the room of
    /// those that this node plays with.
    pub(super) fn has_room_for_caller(&self, peer: Guid) -> bool {
        let is_known = |peer: Guid| self.link_address(peer).is_some() || self.dial_waits_for(peer);
        if is_known(peer) {
            return true;
        }
        let callers = self.relayed.sessions.values();
        let callers = callers.filter(|entry| !entry.session.is_asker() && !is_known(entry.session.peer.guid()));
        callers.count() < MAX_CALLERS
    }

    /// Whether a relay for a player who asks for it is welcome.
    fn consents_to_relay(&self, peer: Guid) -> bool {
        self.link_address(peer).is_some() || self.consents_to(peer)
    }

    /// A relay frame. `Some`: the datagram inside, as from the session's socket.
    pub(super) fn unwrap_frame(&mut self, now: Instant, mut datagram: Datagram) -> Option<Datagram> {
        let frame = &datagram.contents[..];
        match frame.first() {
            Some(&DATA_BYTE) => {
                let inside = DataHeader::decode(frame).ok().and_then(|(header, _)| {
                    let number = *self.relayed.by_id.get(&header.session)?;
                    let entry = self.relayed.sessions.get_mut(&number)?;
                    entry.session.is_genuine(&header, frame).then(|| {
                        entry.used = now;
                        entry.session.note_heard(now);
                        (number, entry.session.label)
                    })
                });
                let Some((number, source)) = inside else {
                    self.relayed.dropped += 1;
                    return None;
                };
                self.heard_on_session(now, number);
                let socket = SocketName::Relay(number);
                datagram.contents.advance(DATA_HEADER);
                return Some(Datagram {
                    socket,
                    source,
                    ..datagram
                });
            }
            Some(&BOUND_BYTE) => {
                if let Ok(bound) = Bound::decode(frame) {
                    let contents = datagram.contents.clone();
                    self.with_session(now, bound.session, |session| session.bound(now, &bound, &contents));
                }
            }
            Some(&GONE_BYTE) => {
                if let Ok(gone) = Gone::decode(frame) {
                    self.with_session(now, gone.session, |session| session.gone(now, &gone));
                }
            }
            _ => self.relayed.dropped += 1,
        }
        None
    }

    fn with_session(&mut self, now: Instant, id: u64, act: impl FnOnce(&mut Session) -> News) {
        let Some(number) = self.relayed.by_id.get(&id).copied() else {
            self.relayed.dropped += 1;
            return;
        };
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            let news = act(&mut entry.session);
            self.relay_news(now, number, news);
            self.relayed_timeout(now);
        }
    }

    /// A probe that came through a forwarder.
    pub(super) fn relayed_probe(&mut self, now: Instant, number: u32, contents: &[u8]) {
        let Some(entry) = self.relayed.sessions.get_mut(&number) else {
            return;
        };
        let mut answer = Vec::new();
        let news = entry.session.probe(now, contents, &mut answer);
        let asked_by_other = matches!(contents.first(), Some(&REQUEST_BYTE)) && !answer.is_empty();
        debug_assert!(matches!(contents.first(), Some(&(REQUEST_BYTE | RESPONSE_BYTE))));
        self.relayed.enqueue(number, answer);
        if asked_by_other {
            self.proxy_heard(number);
        }
        self.relay_news(now, number, news);
    }

    fn relay_news(&mut self, now: Instant, number: u32, news: News) {
        self.timers_changed = true;
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, route) = (entry.session.peer.guid(), entry.route);
        let (relay, kind) = (entry.session.relay, entry.session.kind);
        if kind == PathKind::Routed {
            return self.routed_news(now, number, news);
        }
        match news {
            News::Nothing => {}
            News::Bound => {
                self.relayed.tried.remove(&peer);
                self.forwarder_is_back(now, number);
            }
            News::Proven => {
                self.session_proven(now, number, route);
                self.proxy_proven(now, number);
            }
            News::Forgotten => self.forwarder_forgot(now, number),
            News::Silent => self.wish_for_another(now, peer, relay, kind),
            News::Failed(_) => {
                self.end_session(now, number);
                self.wish_for_another(now, peer, relay, kind);
            }
        }
    }

    /// That relay is of no use to the two: the server is asked for the next one.
    fn wish_for_another(&mut self, now: Instant, peer: Guid, relay: PublicKey, kind: PathKind) {
        let tried = self.relayed.tried.entry(peer).or_default();
        if tried.keys.len() >= MAX_RELAYS {
            tried.keys.remove(0);
        }
        if !tried.keys.contains(&relay) {
            tried.keys.push(relay);
        }
        let recently = tried.asked.is_some_and(|asked| now < asked + WISH_INTERVAL);
        if kind == PathKind::Proxied && !recently {
            self.wish_for_relay(now, peer, Duration::ZERO, false);
        }
    }

    fn path_of(&self, number: u32) -> Option<Path> {
        let session = &self.relayed.sessions.get(&number)?.session;
        Some(Path {
            socket: SocketName::Relay(number),
            address: session.label,
            kind: session.kind,
            round_trip: session.round_trip,
            verified: true,
        })
    }

    /// Forgets a session, and takes its path away.
    pub(super) fn end_session(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.remove(&number) else {
            return;
        };
        self.relayed.by_id.remove(&entry.session.id());
        self.relayed.queue.retain(|(queued, _)| *queued != number);
        let source = (SocketName::Relay(number), entry.session.label);
        self.take_path(now, entry.session.peer.guid(), entry.route, source);
        self.timers_changed = true;
    }

    /// Sends what is due, ends what is not wanted any more.
    pub(super) fn relayed_timeout(&mut self, now: Instant) {
        let numbers: Vec<u32> = self.relayed.sessions.keys().copied().collect();
        for number in numbers {
            self.look_at_session(now, number);
        }
        let late: Vec<u32> = self
            .relayed
            .asked
            .iter()
            .filter(|(_, asked)| asked.deadline <= now)
            .map(|(request, _)| *request)
            .collect();
        for request in late {
            self.relay_failed(
                now,
                request,
                Code::Timeout,
                "the server did not answer in time".to_owned(),
            );
        }
        // What is remembered of players lasts as long as there is something to remember it for.
        let Relayed {
            sessions, asked, tried, ..
        } = &mut self.relayed;
        tried.retain(|peer, tried| {
            let has_session = sessions.values().any(|entry| entry.session.peer.guid() == *peer);
            let is_fresh = tried.asked.is_some_and(|asked| now < asked + WISH_TIME);
            has_session || is_fresh || asked.values().any(|asked| asked.peer == *peer)
        });
        self.proxies_timeout(now);
        self.measure_timeout(now);
    }

    /// The next frame of our own.
    pub(super) fn next_relay_frame(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        while let Some((number, frame)) = self.relayed.queue.pop_front() {
            let Some((socket, destination)) = self.way_of_session(number) else {
                continue;
            };
            buffer.extend_from_slice(&frame);
            return Some(Transmit {
                socket,
                destination,
                ecn: None,
                size: frame.len(),
                segment_size: None,
                time_to_live: None,
            });
        }
        let (socket, destination) = self.relayed.measure.poll_request(buffer)?;
        Some(Transmit {
            socket,
            destination,
            ecn: None,
            size: buffer.len(),
            segment_size: None,
            time_to_live: None,
        })
    }

    /// Where a session's frames go now.
    fn way_of_session(&mut self, number: u32) -> Option<(SocketName, SocketAddr)> {
        let hop = self.relayed.sessions.get(&number)?.session.hop;
        let way = self.way_of(hop);
        let entry = self.relayed.sessions.get_mut(&number)?;
        if way.is_some() {
            entry.way = way;
        }
        entry.way
    }

    /// Puts the frames of a session around what stands in `buffer`. `None`: there is no such session any more.
    pub(super) fn wrap_for(&mut self, number: u32, transmit: Transmit, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (socket, destination) = self.way_of_session(number)?;
        let entry = self.relayed.sessions.get_mut(&number)?;
        self.wrapped.clear();
        let segment_size = entry.session.wrap(buffer, transmit.segment_size, &mut self.wrapped);
        std::mem::swap(buffer, &mut self.wrapped);
        Some(Transmit {
            socket,
            destination,
            size: buffer.len(),
            segment_size,
            ..transmit
        })
    }
}
