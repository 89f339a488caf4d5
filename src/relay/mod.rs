//! The forwarder's engine: passes datagrams between the two sides of a session, in place. Used by the server (RakNet's UDPProxy) and by
//! players that route for others (Router2). No IO, no clock, and no randomness at all.
//!
//! In: frames ([`crate::wire::relay`]) with where they came from, time. Out: what to do with each ([`Verdict`]): send it on, changed in
//! place; answer; drop. Frames that came before the other side was there come out of [`Relay::poll_waiting`].
//!
//! | file | what it does |
//! |---|---|
//! | [`ticket`] | what a coordinator grants: sealed, so that nodes can only show it; and the keys that it grants |
//! | `session` | two sides: addresses, keys, replay windows |
//! | `budget` | bytes, packets and time of a ticket, and of a node over all its tickets |
//!
//! **Trust.** A session begins when a genuine ticket is shown by who holds its key. Frames are passed on only between the two addresses that
//! did so; each frame carries a tag under its sender's key and a counter that never comes twice. A sender is followed to another
//! address only upon a frame with a counter higher than any before. The relay sees ciphertext: the nodes' QUIC goes through it whole.
//! What is not right is dropped and counted. The only answers are to a bind frame (64 bytes at least, the answer has 63) and to a data frame of a
//! session that is not known (28 bytes at least, the answer has 22): never more than what came.
//!
//! **Bounds.** [`RelayLimits::max_sessions`]; a session has two sides with two keys each at most, and up to [`MAX_WAITING`] waiting frames, all
//! sessions together [`MAX_WAITING_BYTES`]. A session ends when its tickets have expired, or when neither side has sent for its idle time.

mod budget;
mod session;
pub mod ticket;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::engine::SocketName;
use crate::transport::identity::Guid;
use crate::wire::relay::{
    BIND_BYTE, Bind, Bound, DATA_AUTHENTICATED, DATA_BYTE, DATA_HEADER, DataHeader, Gone, Refusal,
};
use budget::OwnerBudget;
use session::{Reception, Session};
use ticket::{Grant, TicketKey};

/// Frames of a session that wait for its other side: a ClientHello of two datagrams, once repeated.
pub const MAX_WAITING: usize = 4;
/// Bytes of all frames that wait: some thousand sessions that begin at the same moment.
pub const MAX_WAITING_BYTES: usize = 4 << 20;
/// Answers a second to data frames of unknown sessions: all sessions of a relay that restarted ask again within a few seconds, and a flood
/// gets no more than this.
pub const GONE_PER_SECOND: u32 = 2_000;

/// How much a relay takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// Most sessions. More are refused with [`Refusal::Full`]; those that stand are not disturbed.
    pub max_sessions: usize,
    /// Payload bytes a second of one node over all its sessions; 0: not limited.
    pub bytes_per_owner: u32,
}

impl Default for RelayLimits {
    /// For the server of a small game: a session costs about 1 kB; a node that talks to a full session of 64 by relay alone has 64 kB/s
    /// for each of them.
    fn default() -> Self {
        Self {
            max_sessions: 16_384,
            bytes_per_owner: 4 << 20,
        }
    }
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Not a frame for a relay, or not well-formed.
    Malformed,
    /// No such session, and no answer (over the rate of answers).
    Unknown,
    /// The tag does not fit: not from who it claims.
    Forged,
    /// Its counter came before.
    Replayed,
    /// From an address that is not the sender's, with an old counter.
    WrongSource,
    /// The ticket's time is over.
    Expired,
    /// Over the budget of its ticket or its sender.
    OverBudget,
    /// The other side is not there, and no more frames can wait.
    NobodyThere,
}

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it, as it now is, from that socket to that address.
    Forward {
        /// The socket to send from.
        socket: SocketName,
        /// Where to.
        destination: SocketAddr,
    },
    /// Send the answer in [`Relay::answer`] back to where it came from.
    Answer,
    /// It waits for the other side ([`Relay::poll_waiting`]).
    Kept,
    /// Nothing.
    Dropped(Dropped),
}

/// Figures of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayCounters {
    /// Sessions that stand.
    pub sessions: u64,
    /// Sessions that began.
    pub begun: u64,
    /// Frames passed on.
    pub forwarded: u64,
    /// Their payload bytes.
    pub forwarded_bytes: u64,
    /// Tickets refused: not genuine, expired, no room.
    pub refused: u64,
    /// Frames dropped as not well-formed or of unknown sessions.
    pub unknown: u64,
    /// Frames dropped because of a wrong tag or source.
    pub forged: u64,
    /// Frames dropped because their counter came before.
    pub replayed: u64,
    /// Frames dropped because they were over a budget.
    pub over_budget: u64,
    /// Frames dropped because the other side was not there.
    pub nobody_there: u64,
}

/// A frame that waited, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The socket to send from.
    pub socket: SocketName,
    /// Where to.
    pub destination: SocketAddr,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A forwarder.
pub struct Relay {
    key: TicketKey,
    limits: RelayLimits,
    sessions: FxHashMap<u64, Session>,
    owners: FxHashMap<Guid, OwnerBudget>,
    /// When each session is looked at next.
    deadlines: BTreeSet<(Instant, u64)>,
    waiting_bytes: usize,
    ready: Vec<Waiting>,
    answer: Vec<u8>,
    gone: (Instant, u32),
    counters: RelayCounters,
    /// The ticket clock: milliseconds of it at that moment.
    clock: (Instant, u64),
}

impl Relay {
    /// A relay without sessions. `ticket_time`: the moment `now` on the clock that the tickets' expiry is told in, in milliseconds.
    pub fn new(now: Instant, key: TicketKey, limits: RelayLimits, ticket_time: u64) -> Self {
        Self {
            key,
            limits,
            sessions: FxHashMap::default(),
            owners: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            waiting_bytes: 0,
            ready: Vec::new(),
            answer: Vec::with_capacity(64),
            gone: (now, 0),
            counters: RelayCounters::default(),
            clock: (now, ticket_time),
        }
    }

    /// Figures since the start.
    pub fn counters(&self) -> RelayCounters {
        RelayCounters {
            sessions: self.sessions.len() as u64,
            ..self.counters
        }
    }

    /// Sessions that stand, of all that it takes: 0 to 1. For choosing among relays.
    pub fn load(&self) -> f64 {
        self.sessions.len() as f64 / self.limits.max_sessions.max(1) as f64
    }

    /// The answer that goes with [`Verdict::Answer`].
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Takes a datagram whose first byte is that of a bind or data frame; changes it in place when it is to be sent on.
    #[inline]
    pub fn handle(&mut self, now: Instant, socket: SocketName, source: SocketAddr, datagram: &mut [u8]) -> Verdict {
        match datagram.first() {
            Some(&DATA_BYTE) => self.data(now, socket, source, datagram),
            Some(&BIND_BYTE) => self.bind(now, socket, source, datagram),
            _ => self.dropped(Dropped::Malformed),
        }
    }

    fn dropped(&mut self, reason: Dropped) -> Verdict {
        let counter = match reason {
            Dropped::Malformed | Dropped::Unknown => &mut self.counters.unknown,
            Dropped::Forged | Dropped::WrongSource => &mut self.counters.forged,
            Dropped::Replayed => &mut self.counters.replayed,
            Dropped::Expired | Dropped::OverBudget => &mut self.counters.over_budget,
            Dropped::NobodyThere => &mut self.counters.nobody_there,
        };
        *counter += 1;
        Verdict::Dropped(reason)
    }

    #[inline]
    fn data(&mut self, now: Instant, socket: SocketName, source: SocketAddr, datagram: &mut [u8]) -> Verdict {
        let Ok((header, payload)) = DataHeader::decode(datagram) else {
            return self.dropped(Dropped::Malformed);
        };
        let length = payload.len();
        let Some(session) = self.sessions.get_mut(&header.session) else {
            return self.unknown_session(now, &header);
        };
        let authenticated: &[u8; DATA_AUTHENTICATED] = match datagram.first_chunk() {
            Some(bytes) => bytes,
            None => return self.dropped(Dropped::Malformed),
        };
        let owner = match session.receive(now, (socket, source), &header, authenticated, length) {
            Reception::Dropped(reason) => return self.dropped(reason),
            Reception::Good { owner } => owner,
        };
        if self.limits.bytes_per_owner > 0 {
            let budget = self.owners.entry(owner).or_insert_with(|| OwnerBudget::new(now));
            if !budget.spend(now, self.limits.bytes_per_owner, length) {
                return self.dropped(Dropped::OverBudget);
            }
        }
        let Some((way, key_number, tag)) = session.way_to_other(&header, authenticated) else {
            return self.keep(header.session, header.from_asker, datagram);
        };
        datagram[5] = key_number;
        datagram[DATA_AUTHENTICATED..DATA_HEADER].copy_from_slice(&tag);
        self.counters.forwarded += 1;
        self.counters.forwarded_bytes += length as u64;
        Verdict::Forward {
            socket: way.0,
            destination: way.1,
        }
    }

    /// A restarted relay says so: the sender shows its ticket again, or asks for another.
    fn unknown_session(&mut self, now: Instant, header: &DataHeader) -> Verdict {
        if now >= self.gone.0 + Duration::from_secs(1) {
            self.gone = (now, 0);
        }
        if self.gone.1 >= GONE_PER_SECOND {
            return self.dropped(Dropped::Unknown);
        }
        self.gone.1 += 1;
        self.counters.unknown += 1;
        self.answer.clear();
        let gone = Gone {
            refusal: Refusal::Unknown,
            key_number: header.key_number,
            session: header.session,
            counter: header.counter,
        };
        gone.encode(&mut self.answer);
        Verdict::Answer
    }

    /// Keeps a frame until the other side is there; the oldest gives way.
    fn keep(&mut self, id: u64, from_asker: bool, datagram: &[u8]) -> Verdict {
        let Some(session) = self.sessions.get_mut(&id) else {
            return self.dropped(Dropped::Unknown);
        };
        let replaced = if session.waiting.len() >= MAX_WAITING {
            session.waiting.pop_front().map_or(0, |(_, frame)| frame.len())
        } else {
            0
        };
        self.waiting_bytes -= replaced;
        if self.waiting_bytes + datagram.len() > MAX_WAITING_BYTES {
            return self.dropped(Dropped::NobodyThere);
        }
        self.waiting_bytes += datagram.len();
        session.waiting.push_back((from_asker, datagram.into()));
        if replaced > 0 {
            self.counters.nobody_there += 1;
        }
        Verdict::Kept
    }

    fn ticket_time(&self, now: Instant) -> u64 {
        let (since, time) = self.clock;
        time + now.saturating_duration_since(since).as_millis() as u64
    }

    fn bind(&mut self, now: Instant, socket: SocketName, source: SocketAddr, datagram: &[u8]) -> Verdict {
        let Ok(bind) = Bind::decode(datagram) else {
            return self.dropped(Dropped::Malformed);
        };
        let opened = self.key.open(bind.ticket);
        let time = self.ticket_time(now);
        let Some(grant) = opened.filter(|grant| grant.session == bind.session && grant.key_number == bind.key_number)
        else {
            // Nobody who has a genuine ticket sends this: no answer.
            self.counters.refused += 1;
            return self.dropped(Dropped::Forged);
        };
        if !grant
            .key
            .verify_bind(&datagram[..bind.authenticated_length()], &bind.tag)
        {
            self.counters.refused += 1;
            return self.dropped(Dropped::Forged);
        }
        let refusal = self.admit(now, time, (socket, source), &grant);
        if refusal.is_some() {
            self.counters.refused += 1;
        }
        self.answer.clear();
        let mut bound = Bound {
            observed: source,
            refusal,
            key_number: bind.key_number,
            session: bind.session,
            transaction: bind.transaction,
            idle_ms: grant.idle_ms,
            bytes_per_second: grant.bytes_per_second,
            tag: [0; 16],
        };
        bound.encode(&mut self.answer);
        let unauthenticated = self.answer.len() - bound.tag.len();
        bound.tag = grant.key.bound_tag(&self.answer[..unauthenticated]);
        self.answer[unauthenticated..].copy_from_slice(&bound.tag);
        Verdict::Answer
    }

    /// Takes a side in; `Some`: why not.
    fn admit(&mut self, now: Instant, time: u64, way: (SocketName, SocketAddr), grant: &Grant) -> Option<Refusal> {
        if grant.expires <= time {
            return Some(Refusal::Expired);
        }
        let expires = now + Duration::from_millis(grant.expires - time);
        if !self.sessions.contains_key(&grant.session) {
            if self.sessions.len() >= self.limits.max_sessions {
                return Some(Refusal::Full);
            }
            self.counters.begun += 1;
            self.sessions.insert(grant.session, Session::new(now));
            self.deadlines.insert((now + MIN_LOOK, grant.session));
        }
        let session = self.sessions.get_mut(&grant.session)?;
        session.bind(now, way, grant, expires);
        self.release_waiting(grant.session, grant.from_asker);
        None
    }

    /// The side is there now: what waited for it goes on.
    fn release_waiting(&mut self, id: u64, to_asker: bool) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let (mine, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut session.waiting)
            .into_iter()
            .partition(|(from_asker, _)| *from_asker != to_asker);
        session.waiting = rest.into();
        for (_, frame) in mine {
            self.waiting_bytes -= frame.len();
            let mut frame = frame.into_vec();
            let Ok((header, payload)) = DataHeader::decode(&frame) else {
                continue;
            };
            let length = payload.len();
            let way = frame
                .first_chunk()
                .and_then(|authenticated| session.way_to_other(&header, authenticated));
            let Some((way, key_number, tag)) = way else { continue };
            frame[5] = key_number;
            frame[DATA_AUTHENTICATED..DATA_HEADER].copy_from_slice(&tag);
            self.counters.forwarded += 1;
            self.counters.forwarded_bytes += length as u64;
            self.ready.push(Waiting {
                socket: way.0,
                destination: way.1,
                frame,
            });
        }
    }

    /// The next frame that waited and can go on now.
    pub fn poll_waiting(&mut self) -> Option<Waiting> {
        if self.ready.is_empty() {
            return None;
        }
        Some(self.ready.remove(0))
    }

    /// Ends sessions at once (a ticket's grant was taken back).
    pub fn end(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.waiting_bytes -= session.waiting.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        }
    }

    /// Ends what is idle or expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            match session.ends_at() {
                ends if ends <= now => self.end(id),
                ends => {
                    self.deadlines.insert((ends.max(now + MIN_LOOK), id));
                }
            }
        }
        if self.owners.len() > self.sessions.len().saturating_mul(2) + SPARE_OWNERS {
            self.owners.retain(|_, budget| !budget.is_idle(now));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}

/// A session is not looked at more often than this: ends a second late, but costs nothing.
const MIN_LOOK: Duration = Duration::from_secs(1);
/// Budgets of nodes without sessions that may lie about before they are swept.
const SPARE_OWNERS: usize = 1_024;
