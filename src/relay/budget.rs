//! Budgets: buckets that fill with time.

use std::time::{Duration, Instant};

/// Seconds that a budget may be saved up for: a burst after silence, such as a level that is sent at once.
const BURST_SECONDS: u64 = 2;

/// A bucket of so many units a second.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// In millionths of a unit.
    level: u64,
    filled: Instant,
}

impl Bucket {
    /// A full one for that rate.
    pub fn full(now: Instant, per_second: u32) -> Self {
        Self {
            level: capacity(per_second),
            filled: now,
        }
    }

    /// Takes `units` out; false if there are not so many.
    #[inline]
    pub fn spend(&mut self, now: Instant, per_second: u32, units: usize) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_micros() as u64;
        if passed > 0 {
            self.filled = now;
            let gained = passed.saturating_mul(per_second.into());
            self.level = self.level.saturating_add(gained).min(capacity(per_second));
        }
        match self.level.checked_sub(units as u64 * 1_000_000) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

fn capacity(per_second: u32) -> u64 {
    u64::from(per_second) * BURST_SECONDS * 1_000_000
}

/// What one node may send over all its sessions.
#[derive(Debug)]
pub struct OwnerBudget {
    bytes: Option<Bucket>,
    last: Instant,
}

impl OwnerBudget {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self { bytes: None, last: now }
    }

    /// Takes a frame's payload out of it.
    pub fn spend(&mut self, now: Instant, per_second: u32, bytes: usize) -> bool {
        self.last = now;
        let bucket = self.bytes.get_or_insert_with(|| Bucket::full(now, per_second));
        bucket.spend(now, per_second, bytes)
    }

    /// Full again by now: forgetting it changes nothing.
    pub fn is_idle(&self, now: Instant) -> bool {
        now > self.last + Duration::from_secs(BURST_SECONDS)
    }
}
