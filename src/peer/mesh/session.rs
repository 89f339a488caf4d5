//! The agreed list: who is in, in which order, at which epoch. Pure data.
//!
//! **Epochs** only ever grow, and no two hosts of one session ever use the same one. The upper 32 bits count changes of
//! the host by loss (the term); the next 16 hold the rank of whoever took over, so that two players who take over in the
//! same term (which only happens when the old host died in the middle of announcing a change) differ; the lower 16
//! count changes of the list.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::transport::identity::{Guid, PublicKey};
use crate::wire::MAX_MEMBERS;
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::{Member, SessionId};

/// Epochs from here on are refused: whatever a host claims, a successor's epoch still fits behind it.
pub(super) const EPOCH_LIMIT: u64 = 1 << 63;
/// Where the term starts within an epoch.
const TERM_SHIFT: u32 = 32;
/// Where the rank of a successor starts within an epoch.
const RANK_SHIFT: u32 = 16;
/// Ranks are 16 bits wide; the lower the place, the higher the rank.
const RANK_MAX: u64 = 0xffff;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    /// Its key.
    pub key: PublicKey,
    /// Its guid (derived once: it costs a hash).
    pub guid: Guid,
    /// Its place: the lowest hosts.
    pub place: u64,
    /// Since when it has been in the session, on this node's clock.
    pub since: Instant,
    /// It said that it leaves; the host has not confirmed yet.
    pub leaving: bool,
}

/// The list.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Its name.
    pub id: SessionId,
    /// Holds for every member beside its own. Never changed once somebody else was invited.
    pub relay_policy: RelayPolicy,
    /// Version of the list.
    pub epoch: u64,
    /// Everybody by place, this node included. Never empty; the first hosts.
    pub seats: Vec<Seat>,
    /// The place that the next member gets. Places are not used twice, so that a returning player is told apart.
    next_place: u64,
}

impl Session {
    /// A session of one.
    pub fn alone(now: Instant, id: SessionId, key: PublicKey) -> Self {
        let seat = Seat {
            key,
            guid: key.guid(),
            place: 0,
            since: now,
            leaving: false,
        };
        Self {
            id,
            relay_policy: RelayPolicy::Fallback,
            epoch: 0,
            seats: vec![seat],
            next_place: 1,
        }
    }

    /// A session as its host described it.
    pub fn new(id: SessionId, relay_policy: RelayPolicy, epoch: u64, seats: Vec<Seat>) -> Self {
        let mut session = Self {
            id,
            relay_policy,
            epoch,
            seats: Vec::new(),
            next_place: 0,
        };
        session.replace(seats);
        session
    }

    /// Puts another list in place of the old one, which it returns. What only this node knows of a member stays.
    pub fn replace(&mut self, mut seats: Vec<Seat>) -> Vec<Seat> {
        for seat in &mut seats {
            if let Some(known) = self.seat(seat.guid).filter(|known| known.place == seat.place) {
                seat.since = known.since;
                seat.leaving = known.leaving;
            }
        }
        let highest = seats.last().map_or(0, |seat| seat.place);
        self.next_place = self.next_place.max(highest.saturating_add(1));
        std::mem::replace(&mut self.seats, seats)
    }

    /// Who hosts.
    pub fn host(&self) -> Guid {
        self.seats[0].guid
    }

    /// A member by guid.
    pub fn seat(&self, guid: Guid) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.guid == guid)
    }

    /// True if it is a member.
    pub fn has(&self, guid: Guid) -> bool {
        self.seat(guid).is_some()
    }

    /// True if there is nobody else.
    pub fn is_alone(&self) -> bool {
        self.seats.len() == 1
    }

    /// All members but `own`, by place.
    pub fn others(&self, own: Guid) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(move |seat| seat.guid != own)
    }

    /// Draws the next place.
    pub fn take_place(&mut self) -> u64 {
        let place = self.next_place;
        self.next_place = self.next_place.saturating_add(1);
        place
    }

    /// The list for a message.
    pub fn members(&self, now: Instant) -> Vec<Member> {
        let member = |seat: &Seat| {
            let age_ms = now.saturating_duration_since(seat.since).as_millis() as u64;
            Member {
                key: seat.key,
                place: seat.place,
                age_ms,
            }
        };
        self.seats.iter().map(member).collect()
    }

    /// The epoch of a list with which the holder of `place` takes over: newer than all of the term before it.
    pub fn successor_epoch(&self, place: u64) -> u64 {
        let term = (self.epoch >> TERM_SHIFT) + 1;
        (term << TERM_SHIFT) | ((RANK_MAX - place.min(RANK_MAX)) << RANK_SHIFT)
    }
}

/// Reads a list from a message. `None`: empty, too long, not in order of place, or somebody is named twice.
pub(super) fn seats_from(now: Instant, members: &[Member]) -> Option<Vec<Seat>> {
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return None;
    }
    let ordered = members.windows(2).all(|pair| pair[0].place < pair[1].place);
    let seats: Vec<Seat> = members
        .iter()
        .map(|member| Seat {
            key: member.key,
            guid: member.guid(),
            place: member.place,
            // The clock may be younger than the session is said to be.
            since: now.checked_sub(Duration::from_millis(member.age_ms)).unwrap_or(now),
            leaving: false,
        })
        .collect();
    let distinct: BTreeSet<Guid> = seats.iter().map(|seat| seat.guid).collect();
    (ordered && distinct.len() == seats.len()).then_some(seats)
}
