//! One session at a forwarder, as one of its two sides has it: the ticket, whether it is bound, what frames are made of.
//!
//! In: an offer, the time, frames of the forwarder. Out: bind frames, probes through the forwarder, data frames, and what became of it
//! ([`State`]). Timers: [`BIND_TIMES`], [`SILENCE`], [`PROBE_TIMES`]; and [`REBIND_INTERVAL`] for a session that stood before: its forwarder may
//! be restarting, and takes the same ticket again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::RENEW_PART;
use crate::codes::PathKind;
use crate::relay::ticket::SideKey;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::introduction::RelayOffer;
use crate::wire::probe::{Probe, ProbeKey, ProbeKind};
use crate::wire::relay::{Bind, Bound, DATA_AUTHENTICATED, DATA_HEADER, DataHeader, Gone, Refusal};

/// When the ticket is shown, after the first time: a lost packet is made up for within a round trip of most ways.
const BIND_TIMES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1_300),
];
/// Without an answer for so long the forwarder is silent: another one is asked for. A second after the last but one repeat.
const SILENCE: Duration = Duration::from_millis(1_800);
/// How often the ticket of a session that stood before is shown to a forwarder that is silent: one that was restarted has the pair back within
/// this and a round trip.
const REBIND_INTERVAL: Duration = Duration::from_millis(400);
/// When the way through the forwarder is probed, counted from the moment at which the ticket is shown, and again from the one at which this
/// side is bound, until an answer comes: the other side may be bound later.
const PROBE_TIMES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(150),
    Duration::from_millis(450),
    Duration::from_millis(1_050),
    Duration::from_millis(2_250),
];
/// A forwarder that says it does not know the session is believed no more often than this.
const GONE_INTERVAL: Duration = Duration::from_secs(1);
/// Of the frames that it may complain about: those that can still be under way.
const GONE_WINDOW: u64 = 4_096;

/// Where the forwarder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Wherever this node's session with its server goes.
    ServerSession,
    /// At that address.
    Address(SocketAddr),
    /// It is a player: wherever the connection with it goes.
    Player(Guid),
}

/// How a session stands with its forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The ticket was shown; since when, how often, and under which number.
    Binding {
        /// Since when.
        since: Instant,
        /// How often.
        shown: usize,
        /// Which answer counts.
        transaction: u64,
    },
    /// The forwarder knows this side.
    Bound,
    /// It does not want to, or says nothing.
    Failed(Failure),
}

/// Why a forwarder is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Silent,
    /// It said why.
    Refused(Refusal),
}

/// What is new after a frame came, or after some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing that others have to know.
    Nothing,
    /// This side is bound.
    Bound,
    /// The other side answered through the forwarder.
    Proven,
    /// It is of no use (any more).
    Failed(Failure),
    /// It stood, and its forwarder says nothing any more. The ticket is shown on.
    Silent,
    /// The forwarder forgot the session, and is shown the ticket again.
    Forgotten,
}

/// Who a session is with, and what authenticates the probes between the two.
#[derive(Debug, Clone)]
pub struct Between {
    /// The other side's key.
    pub peer: PublicKey,
    /// Names the probes.
    pub introduction: u64,
    /// Authenticates them.
    pub secret: [u8; 32],
}

/// Probes through the forwarder that are not answered.
#[derive(Debug)]
struct Probing {
    /// What their times are counted from.
    since: Instant,
    /// How many there were since.
    sent: usize,
    /// The number of each, and when it was sent.
    outstanding: Vec<(u64, Instant)>,
}

impl Probing {
    fn new(since: Instant) -> Self {
        Self {
            since,
            sent: 0,
            outstanding: Vec::new(),
        }
    }

    fn next_at(&self) -> Option<Instant> {
        Some(self.since + *PROBE_TIMES.get(self.sent)?)
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The other side's key.
    pub peer: PublicKey,
    /// Through a proxy server, or through a player.
    pub kind: PathKind,
    /// Where the forwarder is.
    pub hop: Hop,
    /// What the game is told of where that is, and what its path is known by.
    pub label: SocketAddr,
    /// The forwarder's key.
    pub relay: PublicKey,
    /// How it stands.
    pub state: State,
    /// When the ticket is void.
    pub expires: Instant,
    /// For how long it was good.
    pub valid: Duration,
    /// The way to the other side and back, when it has answered.
    pub round_trip: Option<Duration>,
    /// It was bound before.
    stood: bool,
    session: u64,
    from_asker: bool,
    key_number: u8,
    key: SideKey,
    ticket: Bytes,
    counter: u64,
    introduction: u64,
    probe_key: ProbeKey,
    probing: Option<Probing>,
    gone_at: Option<Instant>,
}

impl Session {
    /// Takes an offer up. The ticket is to be shown at once.
    pub fn new(
        now: Instant,
        between: &Between,
        offer: RelayOffer,
        (hop, label): (Hop, SocketAddr),
        kind: PathKind,
    ) -> Self {
        Self {
            peer: between.peer,
            kind,
            hop,
            label,
            relay: offer.key,
            state: State::Binding {
                since: now,
                shown: 0,
                transaction: 0,
            },
            expires: now + Duration::from_millis(offer.valid_ms.into()),
            valid: Duration::from_millis(offer.valid_ms.into()),
            round_trip: None,
            stood: false,
            session: offer.session,
            from_asker: offer.from_asker,
            key_number: offer.key_number,
            key: SideKey::new(offer.secret),
            ticket: offer.ticket,
            counter: 0,
            introduction: between.introduction,
            probe_key: ProbeKey::new(&between.secret),
            probing: None,
            gone_at: None,
        }
    }

    /// When another ticket is asked for if this one is in use.
    pub fn renew_at(&self) -> Instant {
        let part = if self.from_asker { RENEW_PART } else { 2 * RENEW_PART };
        self.expires - self.valid / part
    }

    /// This side asked for it.
    pub fn is_asker(&self) -> bool {
        self.from_asker
    }

    /// The session's number at the forwarder.
    pub fn id(&self) -> u64 {
        self.session
    }

    /// Probes at once, not only when this side is bound: the two are playing, and want to know.
    pub fn probe_at_once(&mut self, now: Instant) {
        self.probing = Some(Probing::new(now));
    }

    /// The other side is there. If it was not when it was probed, it is probed again.
    pub fn note_heard(&mut self, now: Instant) {
        if self.state == State::Bound && self.probing.as_ref().is_some_and(|probing| probing.next_at().is_none()) {
            self.probing = Some(Probing::new(now));
        }
    }

    /// Shows the ticket anew, and probes: after a silence, or because the forwarder has forgotten.
    pub fn bind_again(&mut self, now: Instant) {
        self.probing = Some(Probing::new(now));
        self.state = State::Binding {
            since: now,
            shown: 0,
            transaction: 0,
        };
    }

    /// Probes the other side once more.
    pub fn probe_again(&mut self, now: Instant) {
        if self.state == State::Bound {
            self.probing = Some(Probing::new(now));
        }
    }

    /// When [`next_frame`](Self::next_frame) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let probe = match self.state {
            State::Failed(_) => None,
            _ => self.probing.as_ref().and_then(Probing::next_at),
        };
        self.bind_at().into_iter().chain(probe).min()
    }

    /// When the ticket is shown next, or the forwarder's silence is acted upon.
    fn bind_at(&self) -> Option<Instant> {
        let State::Binding { since, shown, .. } = self.state else {
            return None;
        };
        let Some(repeat) = shown.checked_sub(1) else {
            return Some(since);
        };
        Some(match (BIND_TIMES.get(repeat), repeat.checked_sub(BIND_TIMES.len())) {
            (Some(time), _) => since + *time,
            (None, Some(beyond)) => since + SILENCE + REBIND_INTERVAL * beyond as u32,
            (None, None) => since + SILENCE,
        })
    }

    /// Writes the frame that is due, if one is. `random` draws.
    pub fn next_frame(&mut self, now: Instant, random: impl FnOnce() -> u64, out: &mut Vec<u8>) -> News {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return News::Nothing;
        }
        if self.bind_at().is_none_or(|at| at > now) {
            self.write_probe(now, random(), out);
            return News::Nothing;
        }
        let State::Binding {
            since,
            shown,
            transaction,
        } = self.state
        else {
            return News::Nothing;
        };
        if shown > BIND_TIMES.len() && !self.stood {
            self.state = State::Failed(Failure::Silent);
            return News::Failed(Failure::Silent);
        }
        // Repeats are the same: whichever is answered, it counts.
        let transaction = if shown == 0 { random() } else { transaction };
        // A session that rested meanwhile does not make up for what it did not send.
        let behind = self
            .bind_at()
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let since = if shown > BIND_TIMES.len() {
            since + behind
        } else {
            since
        };
        self.state = State::Binding {
            since,
            shown: shown + 1,
            transaction,
        };
        self.write_bind(transaction, out);
        if shown == BIND_TIMES.len() + 1 {
            News::Silent
        } else {
            News::Nothing
        }
    }

    fn write_bind(&self, transaction: u64, out: &mut Vec<u8>) {
        let mut bind = Bind {
            key_number: self.key_number,
            session: self.session,
            transaction,
            ticket: &self.ticket,
            tag: [0; 16],
        };
        let start = out.len();
        bind.encode(out);
        let end = start + bind.authenticated_length();
        bind.tag = self.key.bind_tag(&out[start..end]);
        out[end..end + bind.tag.len()].copy_from_slice(&bind.tag);
    }

    fn write_probe(&mut self, now: Instant, transaction: u64, out: &mut Vec<u8>) {
        if let Some(probing) = &mut self.probing {
            probing.sent += 1;
            probing.outstanding.push((transaction, now));
            self.write_own_probe(transaction, ProbeKind::Request, out);
        }
    }

    fn write_own_probe(&mut self, transaction: u64, kind: ProbeKind, out: &mut Vec<u8>) {
        let probe = Probe {
            introduction: self.introduction,
            from_asker: self.from_asker,
            transaction,
            kind,
        };
        let mut payload = Vec::new();
        probe.encode(&self.probe_key, 0, &mut payload);
        self.wrap(&payload, None, out);
    }

    /// Appends `payload` in data frames: one for each segment, so that all are equally long and segmentation offload survives. Returns the
    /// segment size of the whole.
    pub fn wrap(&mut self, payload: &[u8], segment_size: Option<usize>, out: &mut Vec<u8>) -> Option<usize> {
        let segment = segment_size.unwrap_or(payload.len()).max(1);
        for part in payload.chunks(segment) {
            self.counter += 1;
            let start = out.len();
            let header = DataHeader {
                segment_size: 0,
                from_asker: self.from_asker,
                key_number: self.key_number,
                counter: self.counter,
                session: self.session,
                tag: [0; 8],
            };
            header.encode(out);
            if let Some(authenticated) = out[start..].first_chunk::<DATA_AUTHENTICATED>() {
                let tag = self.key.data_tag(authenticated);
                out[start + DATA_AUTHENTICATED..start + DATA_HEADER].copy_from_slice(&tag);
            }
            out.extend_from_slice(part);
        }
        segment_size.map(|segment| segment + DATA_HEADER)
    }

    /// True if the forwarder made that frame for this side.
    pub fn is_genuine(&self, header: &DataHeader, frame: &[u8]) -> bool {
        let Some(authenticated) = frame.first_chunk::<DATA_AUTHENTICATED>() else {
            return false;
        };
        let tag = self.key.data_tag(authenticated);
        let same = tag
            .iter()
            .zip(&header.tag)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0;
        same && header.from_asker != self.from_asker && header.key_number == self.key_number
    }

    /// The answer to a bind frame.
    pub fn bound(&mut self, now: Instant, bound: &Bound, frame: &[u8]) -> News {
        let State::Binding { transaction, shown, .. } = self.state else {
            return News::Nothing;
        };
        let covered = frame.len().min(crate::wire::relay::BOUND_LENGTH) - bound.tag.len();
        if shown == 0
            || bound.transaction != transaction
            || bound.key_number != self.key_number
            || !self.key.verify_bound(&frame[..covered], &bound.tag)
        {
            return News::Nothing;
        }
        match bound.refusal {
            Some(refusal) => {
                self.state = State::Failed(Failure::Refused(refusal));
                News::Failed(Failure::Refused(refusal))
            }
            None => {
                self.state = State::Bound;
                self.stood = true;
                match &mut self.probing {
                    None => self.probing = Some(Probing::new(now)),
                    // The answer to an earlier one may still be on its way, and counts.
                    Some(probing) => (probing.since, probing.sent) = (now + PROBE_TIMES[1], 0),
                }
                News::Bound
            }
        }
    }

    /// The forwarder does not pass a frame on.
    pub fn gone(&mut self, now: Instant, gone: &Gone) -> News {
        let sent = gone.counter <= self.counter && gone.counter + GONE_WINDOW > self.counter;
        let again = self.gone_at.is_some_and(|at| now < at + GONE_INTERVAL);
        if self.state != State::Bound || !sent || again || gone.key_number != self.key_number {
            return News::Nothing;
        }
        self.gone_at = Some(now);
        self.bind_again(now);
        News::Forgotten
    }

    /// A probe that came through the forwarder. Writes the answer, if it wants one.
    pub fn probe(&mut self, now: Instant, contents: &[u8], out: &mut Vec<u8>) -> News {
        let Ok(probe) = Probe::decode(contents, &self.probe_key) else {
            return News::Nothing;
        };
        if probe.introduction != self.introduction || probe.from_asker == self.from_asker {
            return News::Nothing;
        }
        match probe.kind {
            ProbeKind::Request => {
                let observed = self.label;
                self.write_own_probe(probe.transaction, ProbeKind::Response { observed }, out);
                News::Nothing
            }
            ProbeKind::Response { .. } => {
                let outstanding = self.probing.iter().flat_map(|probing| &probing.outstanding);
                let mut answered = outstanding.filter(|(transaction, _)| *transaction == probe.transaction);
                let Some((_, sent)) = answered.next().copied() else {
                    return News::Nothing;
                };
                self.probing = None;
                self.round_trip = Some(now.saturating_duration_since(sent));
                News::Proven
            }
        }
    }
}
