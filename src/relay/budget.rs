//! Budgets: buckets that fill with time, as one number each.
//!
//! A bucket of so many units a second holds what was spent of all that it would ever have let through. At any moment it has let through what
//! the rate gave since the [`Moment`]s began; what was not spent by then is lost, except for a burst. So a bucket that nobody touches
//! fills by itself, a fresh one is a zero, and one that several threads share is one atomic number (the generic cell rate algorithm, told in units
//! instead of times).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Seconds that a budget may be saved up for: a burst after silence, such as a level that is sent at once.
pub const BURST_SECONDS: u32 = 2;

/// Microseconds since the relay began: an [`Instant`] in half the space, the same in all its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// That time after `epoch`.
    #[inline]
    pub fn of(epoch: Instant, now: Instant) -> Self {
        let passed = now.saturating_duration_since(epoch);
        Self(passed.as_secs() * 1_000_000 + u64::from(passed.subsec_micros()))
    }

    /// So much later.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_micros().min(u64::MAX.into()) as u64))
    }

    /// On the clock that `epoch` was read from.
    pub fn instant(self, epoch: Instant) -> Instant {
        epoch + Duration::from_micros(self.0)
    }

    /// What a rate gave until then. In seconds and the rest, so that nothing overflows within a thousand years.
    #[inline]
    fn gave(self, per_second: u32) -> u64 {
        let (seconds, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        seconds * u64::from(per_second) + rest * u64::from(per_second) / 1_000_000
    }
}

/// What has been spent after `units` more; `None`: there are not so many.
#[inline]
fn spend(spent: u64, now: Moment, per_second: u32, burst_seconds: u32, units: usize) -> Option<u64> {
    let gave = now.gave(per_second);
    let after = spent.max(gave) + units as u64;
    (after - gave <= u64::from(per_second) * u64::from(burst_seconds)).then_some(after)
}

/// A rate, 0: not limited, with its bucket.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    per_second: u32,
    spent: u64,
}

impl Bucket {
    /// A full one for that rate.
    pub fn full(per_second: u32) -> Self {
        Self { per_second, spent: 0 }
    }

    /// Takes `units` out; false if there are not so many.
    #[inline]
    pub fn spend(&mut self, now: Moment, units: usize) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let after = spend(self.spent, now, self.per_second, BURST_SECONDS, units);
        self.spent = after.unwrap_or(self.spent);
        after.is_some()
    }
}

/// A bucket that several shards spend from.
#[derive(Debug)]
pub struct SharedBucket {
    per_second: u32,
    burst_seconds: u32,
    spent: AtomicU64,
}

impl SharedBucket {
    /// A full one for that rate; 0: not limited.
    pub fn full(per_second: u32, burst_seconds: u32) -> Self {
        Self {
            per_second,
            burst_seconds,
            spent: AtomicU64::new(0),
        }
    }

    /// Takes `units` out; false if there are not so many.
    #[inline]
    pub fn spend(&self, now: Moment, units: usize) -> bool {
        if self.per_second == 0 {
            return true;
        }
        // One number, of which nothing else depends: no ordering is needed.
        self.spent
            .fetch_update(Relaxed, Relaxed, |spent| {
                spend(spent, now, self.per_second, self.burst_seconds, units)
            })
            .is_ok()
    }

    /// Full by now: forgetting it changes nothing.
    pub fn is_full(&self, now: Moment) -> bool {
        self.spent.load(Relaxed) <= now.gave(self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    #[test]
    fn a_bucket_holds_two_seconds_and_fills_with_time() {
        for begin in [0, 7, 1_000_000_000] {
            let mut bucket = Bucket::full(1_000);
            let mut take = |second: u64, units: usize| bucket.spend(at(begin + second), units);
            assert!(take(0, 1_500) && !take(0, 501) && take(0, 500) && !take(0, 1));
            assert!(take(1, 1_000) && !take(1, 1));
            assert!(take(100, 2_000) && !take(100, 1), "no more is saved up than a burst");
        }
        let mut unlimited = Bucket::full(0);
        assert!(unlimited.spend(at(0), usize::MAX));
    }

    #[test]
    fn the_largest_rate_does_not_overflow() {
        let mut bucket = Bucket::full(u32::MAX);
        let in_a_century = at(3_155_760_000);
        assert!(bucket.spend(in_a_century, 65_507));
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let bucket = SharedBucket::full(1_000, BURST_SECONDS);
        let passed: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| (0..1_000).filter(|_| bucket.spend(at(5), 1)).count()));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 2_000);
        assert!(!bucket.is_full(at(6)) && bucket.is_full(at(7)));
    }
}
