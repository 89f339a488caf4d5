//! What all shards of a relay share: the ticket key, limits, the count of sessions, and each node's budget over all its sessions.
//!
//! A shard looks here when a session begins or ends. A frame costs no look-up: the session's side holds its owner's [`OwnerBudget`], whose
//! buckets are atomic numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::budget::{BURST_SECONDS, Moment, SharedBucket};
use super::ticket::{Grant, TicketKey};
use super::{GONE_PER_SECOND, MAX_WAITING_BYTES, RelayLimits};
use crate::transport::identity::Guid;

/// Budgets of nodes without sessions that may lie about before they are swept: they are kept until they are full again, so that nobody gets
/// a fresh one by ending a session.
const SPARE_OWNERS: usize = 1_024;

/// What one node may send over all its sessions.
#[derive(Debug)]
pub struct OwnerBudget {
    bytes: SharedBucket,
    frames: SharedBucket,
}

impl OwnerBudget {
    fn new(limits: &RelayLimits) -> Self {
        Self {
            bytes: SharedBucket::full(limits.bytes_per_owner, BURST_SECONDS),
            frames: SharedBucket::full(limits.frames_per_owner, BURST_SECONDS),
        }
    }

    /// Takes a frame with so much payload out of it.
    #[inline]
    pub fn spend(&self, now: Moment, bytes: usize) -> bool {
        self.frames.spend(now, 1) && self.bytes.spend(now, bytes)
    }

    fn is_full(&self, now: Moment) -> bool {
        self.bytes.is_full(now) && self.frames.is_full(now)
    }
}

/// What opens tickets; nothing does at first.
#[derive(Debug, Default)]
struct Tickets {
    key: Option<TicketKey>,
    /// The clock that their expiry is told in: so many milliseconds of it at that moment.
    clock: (Moment, u64),
}

/// Common to all shards of one relay. Cheap to share between threads: what it holds is touched when sessions begin and end.
#[derive(Debug)]
pub struct RelayShared {
    /// When time began.
    pub(super) epoch: Instant,
    tickets: RwLock<Tickets>,
    limits: RelayLimits,
    sessions: AtomicUsize,
    waiting_bytes: AtomicUsize,
    gone: SharedBucket,
    /// A tree: guids are hashes of keys that strangers choose.
    owners: Mutex<BTreeMap<Guid, Arc<OwnerBudget>>>,
}

impl RelayShared {
    /// For a relay without sessions, which opens no ticket before it [has a key](Self::set_ticket_key).
    pub fn new(now: Instant, limits: RelayLimits) -> Self {
        Self {
            epoch: now,
            tickets: RwLock::default(),
            limits,
            sessions: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            gone: SharedBucket::full(GONE_PER_SECOND, 1),
            owners: Mutex::default(),
        }
    }

    /// Another ticket key, and the clock that the tickets' expiry is told in: `ticket_time` milliseconds at `now`. Sessions that stand go on.
    pub fn set_ticket_key(&self, now: Instant, key: TicketKey, ticket_time: u64) {
        *self.tickets.write().unwrap_or_else(PoisonError::into_inner) = Tickets {
            key: Some(key),
            clock: (self.moment(now), ticket_time),
        };
    }

    /// Reads a ticket, and tells when it expires; no moment: it has. `None` if it is not one of ours.
    pub(super) fn open(&self, now: Moment, ticket: &[u8]) -> Option<(Grant, Option<Moment>)> {
        let tickets = self.tickets.read().unwrap_or_else(PoisonError::into_inner);
        let grant = tickets.key.as_ref()?.open(ticket)?;
        let (since, at_that_time) = tickets.clock;
        let time = at_that_time + now.0.saturating_sub(since.0) / 1_000;
        let rest = grant.expires.checked_sub(time).filter(|rest| *rest > 0);
        let expires = rest.map(|rest| now.after(Duration::from_millis(rest)));
        Some((grant, expires))
    }

    /// Most sessions, over all shards.
    pub fn max_sessions(&self) -> usize {
        self.limits.max_sessions
    }

    /// Sessions that stand, over all shards.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// Sessions that stand, of all that it takes: 0 to 1. For choosing among relays.
    pub fn load(&self) -> f64 {
        self.sessions() as f64 / self.limits.max_sessions.max(1) as f64
    }

    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment::of(self.epoch, now)
    }

    /// Takes a place for a session; false: there is none.
    pub(super) fn begin_session(&self) -> bool {
        let more = |sessions: usize| (sessions < self.limits.max_sessions).then_some(sessions + 1);
        self.sessions.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    pub(super) fn end_session(&self) {
        self.sessions.fetch_sub(1, Relaxed);
    }

    /// Takes room for a frame that waits; false: there is none.
    pub(super) fn begin_waiting(&self, bytes: usize) -> bool {
        let more = |waiting: usize| Some(waiting + bytes).filter(|after| *after <= MAX_WAITING_BYTES);
        self.waiting_bytes.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    pub(super) fn end_waiting(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Relaxed)
    }

    /// Whether a data frame of an unknown session may be answered.
    pub(super) fn may_answer(&self, now: Moment) -> bool {
        self.gone.spend(now, 1)
    }

    /// A node's budget.
    pub(super) fn owner(&self, now: Moment, guid: Guid) -> Arc<OwnerBudget> {
        let mut owners = self.owners();
        if owners.len() >= self.limits.max_sessions.saturating_mul(2).saturating_add(SPARE_OWNERS) {
            owners.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_full(now));
        }
        let fresh = || Arc::new(OwnerBudget::new(&self.limits));
        owners.entry(guid).or_insert_with(fresh).clone()
    }

    /// Forgets the budgets that nobody uses and that are full.
    pub(super) fn sweep(&self, now: Moment) {
        let mut owners = self.owners();
        if owners.len() > self.sessions().saturating_mul(2).saturating_add(SPARE_OWNERS) {
            owners.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_full(now));
        }
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<Guid, Arc<OwnerBudget>>> {
        // A map is whole whatever happened to a thread that held it.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
