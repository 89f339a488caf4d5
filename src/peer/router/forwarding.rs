//! The router: answers who asks, grants, and passes frames on between the two players of a pair.
//!
//! In: queries, requests, the target's answer, frames, time. Out: grants, ends, frames. The tickets and sessions are those of
//! [`crate::relay`], with a key that this node draws at its start, and small budgets: a player's upload is small, and it is playing itself.
//!
//! Frames count only from the addresses of the pair's own players, as this node's connections with them know those: somebody else's frames are
//! dropped even with a stolen ticket, and nothing is ever sent to an address that a ticket's owner merely claims. The two must be connected
//! directly; when one of them is not any more, the pair ends. Timers: [`OFFER_TIME`], [`IDLE_TIME`], [`LOOK_INTERVAL`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;

use super::super::{Node, derive};
use super::{REQUESTS_PER_WINDOW, Window};
use crate::codes::Code;
use crate::engine::{Datagram, SocketName, Transmit};
use crate::relay::ticket::{Grant, SideKey, TicketKey};
use crate::relay::{Relay, RelayLimits, Verdict};
use crate::transport::identity::Guid;
use crate::wire::relay::{BIND_BYTE, Bind, DataHeader};
use crate::wire::routing::{RouteGrant, RouteMessage, SignedShare};

/// Payload bytes a second of each side of a pair: 1 Mbit/s, several times what a game with two dozen players sends to one of them, and a small part of
/// a household's upload.
pub(super) const BYTES_PER_SECOND: u32 = 128 << 10;
/// Frames a second of each side: a game's 60 ticks, each with messages and acknowledgements, with room for repeats.
pub(super) const FRAMES_PER_SECOND: u32 = 500;
/// Frames that wait for the socket; more than that and the oldest are dropped. A batch of the socket, some times over.
pub(super) const MAX_QUEUED: usize = 128;
/// How long the target may think about an offer: a few round trips, and a packet repeated.
const OFFER_TIME: Duration = Duration::from_secs(2);
/// How long a ticket is good: longer than people play. After it the asker asks again.
const TICKET_TIME: Duration = Duration::from_secs(12 * 60 * 60);
/// A pair without a frame for so long is over: longer than an opened way is held, and than several keep-alives.
const IDLE_TIME: Duration = Duration::from_secs(90);
/// How often pairs are looked at: whether they are idle, and whether their players are still connected directly.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Two players whom this node forwards for.
struct Pair {
    asker: Guid,
    target: Guid,
    introduction: u64,
    request: u32,
    /// The target was asked: what the asker gets when it agrees, and by when.
    offered: Option<(RouteGrant, Instant)>,
    /// When a frame last came.
    used: Instant,
}

impl Pair {
    fn other(&self, side: Guid) -> Guid {
        if side == self.asker { self.target } else { self.asker }
    }

    fn has(&self, player: Guid) -> bool {
        self.asker == player || self.target == player
    }
}

/// All pairs.
pub(in super::super) struct Forwarding {
    /// By session.
    pairs: BTreeMap<u64, Pair>,
    key: TicketKey,
    relay: Relay,
    started: Instant,
    requests: BTreeMap<Guid, Window>,
    queue: VecDeque<(SocketName, SocketAddr, Vec<u8>)>,
    look_at: Option<Instant>,
    /// Frames that were dropped: not from a player of their pair, or because the queue was full.
    pub dropped: u64,
    /// What a test has this node do with frames that it should pass on unchanged; false: it drops the frame.
    #[cfg(test)]
    pub tamper: Option<fn(&mut [u8]) -> bool>,
}

impl Forwarding {
    pub fn new(now: Instant, seed: &[u8; 32]) -> Self {
        let key = derive(seed, b"tickets");
        // The number of sessions is bounded by the pairs: frames of no pair never get here.
        let limits = RelayLimits {
            max_sessions: usize::from(u16::MAX),
            bytes_per_owner: 0,
            frames_per_owner: 0,
        };
        Self {
            pairs: BTreeMap::new(),
            key: TicketKey::new(&key),
            relay: Relay::new(now, TicketKey::new(&key), limits, 0),
            started: now,
            requests: BTreeMap::new(),
            queue: VecDeque::new(),
            look_at: None,
            dropped: 0,
            #[cfg(test)]
            tamper: None,
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let offers = self.pairs.values().filter_map(|pair| Some(pair.offered.as_ref()?.1));
        offers.chain(self.relay.poll_timeout()).chain(self.look_at).min()
    }

    /// True while frames wait for the socket.
    pub fn has_frames(&self) -> bool {
        !self.queue.is_empty()
    }

    /// True if that session is one of the pairs'.
    pub fn has(&self, session: u64) -> bool {
        self.pairs.contains_key(&session)
    }

    /// Pairs there are.
    #[cfg(test)]
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    fn named(&self, introduction: u64) -> Option<u64> {
        let mut pairs = self.pairs.iter();
        let found = pairs.find(|(_, pair)| pair.introduction == introduction);
        found.map(|(session, _)| *session)
    }

    fn enqueue(&mut self, socket: SocketName, destination: SocketAddr, frame: Vec<u8>) {
        if self.queue.len() >= MAX_QUEUED {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back((socket, destination, frame));
    }

    /// A grant for one side.
    fn grant(
        &self,
        now: Instant,
        (session, from_asker): (u64, bool),
        owner: Guid,
        random: &mut impl Rng,
    ) -> RouteGrant {
        let (mut secret, mut nonce) = ([0; 32], [0; 12]);
        random.fill_bytes(&mut secret);
        random.fill_bytes(&mut nonce);
        let key_number = 0;
        let clock = now.saturating_duration_since(self.started) + TICKET_TIME;
        let grant = Grant {
            session,
            from_asker,
            key_number,
            expires: clock.as_millis() as u64,
            owner,
            idle_ms: IDLE_TIME.as_millis() as u32,
            bytes_per_second: BYTES_PER_SECOND,
            frames_per_second: FRAMES_PER_SECOND,
            key: SideKey::new(secret),
        };
        RouteGrant {
            session,
            ticket: self.key.seal(nonce, &grant).into(),
            valid_ms: TICKET_TIME.as_millis() as u32,
            key_number,
            secret,
            idle_ms: grant.idle_ms,
        }
    }
}

/// The session that a bind or data frame names.
fn session_of(frame: &[u8]) -> Option<u64> {
    match frame.first() {
        Some(&BIND_BYTE) => Bind::decode(frame).ok().map(|bind| bind.session),
        _ => DataHeader::decode(frame).ok().map(|(header, _)| header.session),
    }
}

impl Node {
    /// Whether this node forwards from one player to another: the round trip to the target, and the pairs that it forwards for already.
    fn may_forward(&self, asker: Guid, target: Guid) -> Result<(Duration, u16), Code> {
        let pairs = self.router.forwarding.pairs.values();
        // The asker asks anew for the same pair: that takes no further place.
        let others = pairs
            .filter(|pair| (pair.asker, pair.target) != (asker, target))
            .count();
        if self.router_max == 0 || target == self.guid || target == asker {
            return Err(Code::Refused);
        }
        if others >= self.router_max {
            return Err(Code::Full);
        }
        self.direct_link(asker).ok_or(Code::NoDirectPath)?;
        let (link, _) = self.direct_link(target).ok_or(Code::TargetNotConnected)?;
        Ok((self.round_trip_to(link), others.try_into().unwrap_or(u16::MAX)))
    }

    /// Would this node?
    pub(super) fn queried(&mut self, from: Guid, query: u32, target: Guid) {
        let answer = match self.may_forward(from, target) {
            Ok((round_trip, load)) => RouteMessage::Willing {
                query,
                round_trip_us: round_trip.as_micros().try_into().unwrap_or(u32::MAX),
                load,
            },
            Err(code) => RouteMessage::Unwilling {
                query,
                code: code.number(),
            },
        };
        self.send_route(from, answer);
    }

    /// It shall.
    pub(super) fn requested(
        &mut self,
        now: Instant,
        from: Guid,
        (request, target): (u32, Guid),
        introduction: u64,
        share: SignedShare,
    ) {
        if let Err(code) = self.begin_pair(now, from, (request, target), introduction, share) {
            let code = code.number();
            self.send_route(from, RouteMessage::Refused { request, code });
        }
    }

    fn begin_pair(
        &mut self,
        now: Instant,
        asker: Guid,
        (request, target): (u32, Guid),
        introduction: u64,
        share: SignedShare,
    ) -> Result<(), Code> {
        if !Window::admit(&mut self.router.forwarding.requests, now, asker, REQUESTS_PER_WINDOW) {
            return Err(Code::RateLimited);
        }
        self.may_forward(asker, target)?;
        let (_, key) = self.direct_link(asker).ok_or(Code::NoDirectPath)?;
        if self.router.forwarding.named(introduction).is_some() {
            return Err(Code::Refused);
        }
        self.end_pairs(Code::Replaced, |pair| pair.asker == asker && pair.target == target);
        let session = self.random.next_u64();
        let forwarding = &mut self.router.forwarding;
        let for_asker = forwarding.grant(now, (session, true), asker, &mut self.random);
        let for_target = forwarding.grant(now, (session, false), target, &mut self.random);
        let pair = Pair {
            asker,
            target,
            introduction,
            request,
            offered: Some((for_asker, now + OFFER_TIME)),
            used: now,
        };
        forwarding.pairs.insert(session, pair);
        forwarding.look_at.get_or_insert(now + LOOK_INTERVAL);
        let offer = RouteMessage::Offer {
            introduction,
            asker: key,
            share,
            grant: for_target,
        };
        self.send_route(target, offer);
        self.timers_changed = true;
        Ok(())
    }

    /// The pair that waits for that target's answer.
    fn offered_to(&self, target: Guid, introduction: u64) -> Option<u64> {
        let session = self.router.forwarding.named(introduction)?;
        let pair = self.router.forwarding.pairs.get(&session)?;
        (pair.target == target && pair.offered.is_some()).then_some(session)
    }

    /// The target agrees.
    pub(super) fn accepted(&mut self, now: Instant, from: Guid, introduction: u64, share: SignedShare) {
        let session = self.offered_to(from, introduction);
        let key = self.direct_link(from).map(|(_, key)| key);
        let pair = session.and_then(|session| self.router.forwarding.pairs.get_mut(&session));
        let (Some(pair), Some(target)) = (pair, key) else {
            return self.route_message_dropped();
        };
        let Some((grant, _)) = pair.offered.take() else { return };
        pair.used = now;
        let (asker, request) = (pair.asker, pair.request);
        let granted = RouteMessage::Granted {
            request,
            target,
            share,
            grant,
        };
        self.send_route(asker, granted);
    }

    /// The target does not.
    pub(super) fn declined(&mut self, from: Guid, introduction: u64, code: i32) {
        let Some(session) = self.offered_to(from, introduction) else {
            return self.route_message_dropped();
        };
        if let Some(pair) = self.take_pair(session) {
            let request = pair.request;
            self.send_route(pair.asker, RouteMessage::Refused { request, code });
        }
    }

    fn take_pair(&mut self, session: u64) -> Option<Pair> {
        self.router.forwarding.relay.end(session);
        self.timers_changed = true;
        self.router.forwarding.pairs.remove(&session)
    }

    /// A side does not need it any more. False: that is no pair of this player's.
    pub(super) fn pair_ended_by(&mut self, _now: Instant, from: Guid, introduction: u64, code: i32) -> bool {
        let Some(session) = self.router.forwarding.named(introduction) else {
            return false;
        };
        if !self
            .router
            .forwarding
            .pairs
            .get(&session)
            .is_some_and(|pair| pair.has(from))
        {
            return false;
        }
        if let Some(pair) = self.take_pair(session) {
            self.send_route(pair.other(from), RouteMessage::Ended { introduction, code });
        }
        true
    }

    /// Takes pairs back; both sides hear of it.
    fn end_pairs(&mut self, code: Code, fits: impl Fn(&Pair) -> bool) {
        let ending = |(session, pair): (&u64, &Pair)| fits(pair).then_some(*session);
        let sessions: Vec<u64> = self.router.forwarding.pairs.iter().filter_map(ending).collect();
        for session in sessions {
            if let Some(pair) = self.take_pair(session) {
                self.send_route_ended(pair.asker, pair.introduction, code);
                self.send_route_ended(pair.target, pair.introduction, code);
            }
        }
    }

    /// A player is connected no more.
    pub(super) fn pairs_of_gone(&mut self, gone: Guid) {
        self.router.forwarding.requests.remove(&gone);
        self.end_pairs(Code::TargetLost, |pair| pair.has(gone));
    }

    /// Offers without an answer; pairs that are idle, or whose players are not connected directly any more.
    pub(super) fn forwarding_timeout(&mut self, now: Instant) {
        self.router.forwarding.relay.handle_timeout(now);
        let late = |pair: &Pair| pair.offered.as_ref().is_some_and(|(_, until)| *until <= now);
        self.end_pairs(Code::TargetUnresponsive, late);
        if self.router.forwarding.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.end_pairs(Code::Timeout, |pair| pair.used + IDLE_TIME <= now);
        let pairs = self.router.forwarding.pairs.values();
        let mut players: Vec<Guid> = pairs.flat_map(|pair| [pair.asker, pair.target]).collect();
        players.retain(|player| self.direct_link(*player).is_none());
        self.end_pairs(Code::NoDirectPath, |pair| {
            players.iter().any(|player| pair.has(*player))
        });
        let forwarding = &mut self.router.forwarding;
        forwarding.look_at = (!forwarding.pairs.is_empty()).then_some(now + LOOK_INTERVAL);
        self.timers_changed = true;
    }

    /// True if a bind or data frame belongs to a pair that this node forwards for.
    pub(in super::super) fn forwards(&self, frame: &[u8]) -> bool {
        !self.router.forwarding.pairs.is_empty()
            && session_of(frame).is_some_and(|session| self.router.forwarding.has(session))
    }

    /// Passes a frame of a pair on.
    pub(in super::super) fn forward(&mut self, now: Instant, mut datagram: Datagram) {
        let session = session_of(&datagram.contents);
        let Some((session, pair)) =
            session.and_then(|session| Some((session, self.router.forwarding.pairs.get(&session)?)))
        else {
            return;
        };
        let route = self.paths.route_from(datagram.socket, datagram.source);
        let sides = [pair.asker, pair.target].map(|player| self.link_address(player));
        let offered = pair.offered.is_some();
        let forwarding = &mut self.router.forwarding;
        if route.is_none() || !sides.contains(&route) {
            forwarding.dropped += 1;
            return;
        }
        let contents = &mut datagram.contents[..];
        match forwarding.relay.handle(now, datagram.socket, datagram.source, contents) {
            Verdict::Forward { socket, destination } => {
                #[cfg(test)]
                if forwarding.tamper.is_some_and(|tamper| !tamper(contents)) {
                    return;
                }
                let frame = datagram.contents.to_vec();
                forwarding.enqueue(socket, destination, frame);
            }
            Verdict::Answer => {
                let answer = forwarding.relay.answer().to_vec();
                forwarding.enqueue(datagram.socket, datagram.source, answer);
            }
            Verdict::Kept => {}
            Verdict::Dropped(_) => return,
        }
        while let Some(waiting) = forwarding.relay.poll_waiting() {
            forwarding.enqueue(waiting.socket, waiting.destination, waiting.frame);
        }
        // Before the target has agreed, what it sends does not make the pair live longer.
        if !offered && let Some(pair) = forwarding.pairs.get_mut(&session) {
            pair.used = now;
        }
    }

    /// The next frame that is passed on.
    pub(in super::super) fn next_forwarded_frame(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (socket, destination, frame) = self.router.forwarding.queue.pop_front()?;
        buffer.extend_from_slice(&frame);
        Some(Transmit {
            socket,
            destination,
            ecn: None,
            size: frame.len(),
            segment_size: None,
            time_to_live: None,
        })
    }
}
