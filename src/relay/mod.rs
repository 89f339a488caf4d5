//! The forwarder's engine: passes datagrams between the two sides of a session, in place. Used by the server (RakNet's UDPProxy) and by
//! players that route for others (Router2). No IO, no clock, and no randomness at all.
//!
//! In: frames ([`crate::wire::relay`]) with where they came from, time. Out: what to do with each ([`Verdict`]): send it on, changed in
//! place; answer; drop. Frames that came before the other side was there come out of [`Relay::poll_waiting`].
//!
//! A relay may run as several **shards**, each a [`Relay`] of its own with the sessions whose number leads to it ([`Relay::shard`]). What
//! holds for all of them together is in [`RelayShared`]: the limits, and each node's budget.
//!
//! | file | what it does |
//! |---|---|
//! | [`ticket`] | what a coordinator grants: sealed, so that nodes can only show it; and the keys that it grants |
//! | `session` | two sides: addresses, keys, replay windows |
//! | `budget` | bytes, packets and time of a ticket, and of a node over all its tickets |
//! | `shared` | what shards have in common |
//!
//! **Cost.** A data frame costs one look-up (its session), two tags of SipHash over 20 bytes, and no allocation: little beside what the system
//! takes to receive and send it. A session of two sides takes about 800 bytes with everything that finds it, 10,000 of them 8 MB.
//! `benches/relay` measures both, with the whole process.
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
mod shared;
pub mod ticket;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::engine::SocketName;
use crate::wire::relay::{
    BIND_BYTE, BOUND_LENGTH, Bind, Bound, DATA_AUTHENTICATED, DATA_BYTE, DATA_HEADER, DataHeader, Gone, Refusal,
};
use budget::Moment;
use session::Session;
pub use session::Way;
pub use shared::RelayShared;
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
    /// Most sessions, over all shards. More are refused with [`Refusal::Full`]; those that stand are not disturbed.
    pub max_sessions: usize,
    /// Payload bytes a second of one node over all its sessions; 0: not limited.
    pub bytes_per_owner: u32,
    /// Frames a second of one node over all its sessions; 0: not limited.
    pub frames_per_owner: u32,
}

impl Default for RelayLimits {
    /// For the server of a small game: a session costs about 800 bytes; a node that talks to a full session of 64 by relay alone has 64 kB/s
    /// and 256 frames a second for each of them.
    fn default() -> Self {
        Self {
            max_sessions: 16_384,
            bytes_per_owner: 4 << 20,
            frames_per_owner: 64 * 256,
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

/// As [`Verdict`], for who sends a batch of frames at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Send it, as it now is.
    Forward {
        /// From where to where.
        way: Way,
        /// Small numbers, one for each direction of each session of this shard: frames with the same lane and the same way go one behind the
        /// other, and nothing has to be looked up to find those that go together.
        lane: u32,
    },
    /// As [`Verdict::Answer`].
    Answer,
    /// As [`Verdict::Kept`].
    Kept,
    /// As [`Verdict::Dropped`].
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
    /// Frames dropped because their ticket's time was over.
    pub expired: u64,
    /// Frames dropped because they were over a budget.
    pub over_budget: u64,
    /// Frames dropped because the other side was not there.
    pub nobody_there: u64,
}

/// Adds up shards.
impl AddAssign for RelayCounters {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.begun += other.begun;
        self.forwarded += other.forwarded;
        self.forwarded_bytes += other.forwarded_bytes;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.forged += other.forged;
        self.replayed += other.replayed;
        self.expired += other.expired;
        self.over_budget += other.over_budget;
        self.nobody_there += other.nobody_there;
    }
}

/// A frame that waited, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The socket to send from.
    pub socket: SocketName,
    /// Where to.
    pub destination: SocketAddr,
    /// The machine's address that the receiver knows, see [`Way::local_ip`].
    pub local_ip: Option<IpAddr>,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A forwarder, or one shard of it.
pub struct Relay {
    shared: Arc<RelayShared>,
    /// In boxes: growing moves pointers, not sessions.
    sessions: FxHashMap<u64, Box<Session>>,
    /// Numbers of sessions that ended, to be given again; the next one that nobody had.
    free_numbers: Vec<u32>,
    next_number: u32,
    /// When each session is looked at next.
    deadlines: BTreeSet<(Moment, u64)>,
    ready: VecDeque<Waiting>,
    answer: Vec<u8>,
    counters: RelayCounters,
}

impl Relay {
    /// A relay without sessions. `ticket_time`: the moment `now` on the clock that the tickets' expiry is told in, in milliseconds.
    pub fn new(now: Instant, key: TicketKey, limits: RelayLimits, ticket_time: u64) -> Self {
        let shared = Arc::new(RelayShared::new(now, limits));
        shared.set_ticket_key(now, key, ticket_time);
        Self::shard(shared)
    }

    /// One shard of a relay. All frames of a session must come to the same one.
    pub fn shard(shared: Arc<RelayShared>) -> Self {
        Self {
            shared,
            sessions: FxHashMap::default(),
            free_numbers: Vec::new(),
            next_number: 0,
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            answer: Vec::with_capacity(ANSWER_LENGTH),
            counters: RelayCounters::default(),
        }
    }

    /// Figures since the start; of a shard, its own.
    pub fn counters(&self) -> RelayCounters {
        RelayCounters {
            sessions: self.sessions.len() as u64,
            ..self.counters
        }
    }

    /// Sessions that stand, of all that it takes: 0 to 1. For choosing among relays.
    pub fn load(&self) -> f64 {
        self.shared.load()
    }

    /// The answer that goes with [`Verdict::Answer`]: never longer than the frame.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Takes a datagram whose first byte is that of a bind or data frame; changes it in place when it is to be sent on.
    #[inline]
    pub fn handle(&mut self, now: Instant, socket: SocketName, source: SocketAddr, datagram: &mut [u8]) -> Verdict {
        let way = Way {
            socket,
            address: source,
            local_ip: None,
        };
        match self.pass(now, &way, datagram) {
            Passage::Forward { way, .. } => Verdict::Forward {
                socket: way.socket,
                destination: way.address,
            },
            Passage::Answer => Verdict::Answer,
            Passage::Kept => Verdict::Kept,
            Passage::Dropped(reason) => Verdict::Dropped(reason),
        }
    }

    /// As [`handle`](Self::handle), with the machine's own address, and for batches.
    #[inline]
    pub fn pass(&mut self, now: Instant, source: &Way, datagram: &mut [u8]) -> Passage {
        let now = self.shared.moment(now);
        match datagram.first() {
            Some(&DATA_BYTE) => self.data(now, source, datagram),
            Some(&BIND_BYTE) => self.bind(now, source, datagram),
            _ => self.dropped(Dropped::Malformed),
        }
    }

    #[cold]
    fn dropped(&mut self, reason: Dropped) -> Passage {
        let counter = match reason {
            Dropped::Malformed | Dropped::Unknown => &mut self.counters.unknown,
            Dropped::Forged | Dropped::WrongSource => &mut self.counters.forged,
            Dropped::Replayed => &mut self.counters.replayed,
            Dropped::Expired => &mut self.counters.expired,
            Dropped::OverBudget => &mut self.counters.over_budget,
            Dropped::NobodyThere => &mut self.counters.nobody_there,
        };
        *counter += 1;
        Passage::Dropped(reason)
    }

    #[inline]
    fn data(&mut self, now: Moment, source: &Way, datagram: &mut [u8]) -> Passage {
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
        if let Some(reason) = session.receive(now, source, &header, authenticated, length) {
            return self.dropped(reason);
        }
        let Some((way, key_number, tag)) = session.way_to_other(&header, authenticated) else {
            return self.keep(header.session, header.from_asker, datagram);
        };
        let lane = session.number * 2 + u32::from(header.from_asker);
        datagram[5] = key_number;
        datagram[DATA_AUTHENTICATED..DATA_HEADER].copy_from_slice(&tag);
        self.counters.forwarded += 1;
        self.counters.forwarded_bytes += length as u64;
        Passage::Forward { way, lane }
    }

    /// A restarted relay says so: the sender shows its ticket again, or asks for another.
    #[cold]
    fn unknown_session(&mut self, now: Moment, header: &DataHeader) -> Passage {
        if !self.shared.may_answer(now) {
            return self.dropped(Dropped::Unknown);
        }
        self.counters.unknown += 1;
        self.answer.clear();
        let gone = Gone {
            refusal: Refusal::Unknown,
            key_number: header.key_number,
            session: header.session,
            counter: header.counter,
        };
        gone.encode(&mut self.answer);
        Passage::Answer
    }

    /// Keeps a frame until the other side is there; the oldest gives way.
    #[cold]
    fn keep(&mut self, id: u64, from_asker: bool, datagram: &[u8]) -> Passage {
        let Some(session) = self.sessions.get_mut(&id) else {
            return self.dropped(Dropped::Unknown);
        };
        if session.waiting.len() >= MAX_WAITING
            && let Some((_, oldest)) = session.waiting.pop_front()
        {
            self.shared.end_waiting(oldest.len());
            self.counters.nobody_there += 1;
        }
        if !self.shared.begin_waiting(datagram.len()) {
            return self.dropped(Dropped::NobodyThere);
        }
        session.waiting.push_back((from_asker, datagram.into()));
        Passage::Kept
    }

    fn bind(&mut self, now: Moment, source: &Way, datagram: &[u8]) -> Passage {
        let Ok(bind) = Bind::decode(datagram) else {
            return self.dropped(Dropped::Malformed);
        };
        let opened = self.shared.open(now, bind.ticket).filter(|(grant, _)| {
            grant.session == bind.session
                && grant.key_number == bind.key_number
                && grant
                    .key
                    .verify_bind(&datagram[..bind.authenticated_length()], &bind.tag)
        });
        let Some((grant, expires)) = opened else {
            // Nobody who has a genuine ticket sends this: no answer.
            self.counters.refused += 1;
            return self.dropped(Dropped::Forged);
        };
        let refusal = match expires {
            Some(expires) => self.admit(now, source, &grant, expires),
            None => Some(Refusal::Expired),
        };
        if refusal.is_some() {
            self.counters.refused += 1;
        }
        self.answer.clear();
        let mut bound = Bound {
            observed: source.address,
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
        Passage::Answer
    }

    /// Takes a side in; `Some`: why not.
    fn admit(&mut self, now: Moment, source: &Way, grant: &Grant, expires: Moment) -> Option<Refusal> {
        if !self.sessions.contains_key(&grant.session) {
            if !self.shared.begin_session() {
                return Some(Refusal::Full);
            }
            let number = self.free_numbers.pop().unwrap_or_else(|| {
                self.next_number += 1;
                self.next_number - 1
            });
            self.counters.begun += 1;
            self.sessions.insert(grant.session, Box::new(Session::new(now, number)));
            self.deadlines.insert((now.after(MIN_LOOK), grant.session));
        }
        let owner = self.shared.owner(now, grant.owner);
        let session = self.sessions.get_mut(&grant.session)?;
        session.bind(now, *source, grant, expires, owner);
        if !session.waiting.is_empty() {
            self.release_waiting(grant.session, grant.from_asker);
        }
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
            self.shared.end_waiting(frame.len());
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
            self.ready.push_back(Waiting {
                socket: way.socket,
                destination: way.address,
                local_ip: way.local_ip,
                frame,
            });
        }
    }

    /// The next frame that waited and can go on now.
    pub fn poll_waiting(&mut self) -> Option<Waiting> {
        self.ready.pop_front()
    }

    /// Ends a session at once (a ticket's grant was taken back).
    pub fn end(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.shared.end_session();
            let waiting = session.waiting.iter().map(|(_, frame)| frame.len()).sum();
            self.shared.end_waiting(waiting);
            self.free_numbers.push(session.number);
        }
    }

    /// Ends what is idle or expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.shared.moment(now);
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            match session.ends_at() {
                ends if ends <= now => self.end(id),
                ends => {
                    self.deadlines.insert((ends.max(now.after(MIN_LOOK)), id));
                }
            }
        }
        self.shared.sweep(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| at.instant(self.shared.epoch))
    }
}

/// A shard that goes gives its places back.
impl Drop for Relay {
    fn drop(&mut self) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            self.end(id);
        }
    }
}

/// A session is not looked at more often than this: ends a second late, but costs nothing.
const MIN_LOOK: Duration = Duration::from_secs(1);
/// Room for the longest answer.
const ANSWER_LENGTH: usize = BOUND_LENGTH;
