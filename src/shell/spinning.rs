//! Notices a game thread that polls an empty queue without pause. Such a thread keeps its core busy, and where the game has as many threads
//! as the machine has cores the background thread does not get one until the scheduler's slice is over (3 to 8 ms): what the game waits
//! for so eagerly stands in a socket meanwhile. A poll must neither block nor allocate, so it cannot run the engine; it lets other threads
//! go first instead, which costs nothing where none wants to run.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::clock;

/// The clock is looked at every so many empty polls in a row: its 30 ns, and the 300 ns of letting others go first, are then a few
/// nanoseconds a poll, and a thread that does nothing but poll (10 ns each) still comes here every microsecond.
const EMPTY_POLLS: u32 = 64;
/// So many empty polls within this time are spinning: 16 µs from one to the next. A game with frames takes a second for them.
const WITHIN: Duration = Duration::from_millis(1);

/// What the polls of a node have found.
#[derive(Default)]
pub struct Spinning {
    /// Empty polls in a row, modulo [`EMPTY_POLLS`]. Only one thread polls at a time; if several do, miscounting harms nobody.
    empty: AtomicU32,
    /// When the row began, in the clock's microseconds.
    since_us: AtomicU64,
    /// Polls that were told to let others go first.
    #[cfg(test)]
    told: AtomicU64,
}

impl Spinning {
    /// A poll found nothing. True: let other threads go first.
    #[inline]
    pub fn note_empty(&self) -> bool {
        // Not `fetch_add`: a locked instruction costs as much as the rest of an empty poll.
        let empty = self.empty.load(Ordering::Relaxed).wrapping_add(1);
        self.empty.store(empty, Ordering::Relaxed);
        empty.is_multiple_of(EMPTY_POLLS) && self.is_spinning(clock::now_us())
    }

    /// A poll found something.
    #[inline]
    pub fn note_events(&self) {
        self.empty.store(0, Ordering::Relaxed);
        self.since_us.store(0, Ordering::Relaxed);
    }

    /// Whether the row that ends now was a quick one; the next begins.
    #[cold]
    fn is_spinning(&self, now_us: u64) -> bool {
        let since_us = self.since_us.load(Ordering::Relaxed);
        self.since_us.store(now_us, Ordering::Relaxed);
        let spinning = now_us.saturating_sub(since_us) < WITHIN.as_micros() as u64;
        #[cfg(test)]
        self.told.fetch_add(u64::from(spinning), Ordering::Relaxed);
        spinning
    }

    /// Polls that were told to let others go first.
    #[cfg(test)]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of empty polls, each `row_us` long; how many of them were taken for spinning.
    fn rows(spinning: &Spinning, count: u64, row_us: u64) -> usize {
        let start = 1_000_000;
        (0..count)
            .filter(|row| spinning.is_spinning(start + row * row_us))
            .count()
    }

    #[test]
    fn polls_without_pause_are_noticed_from_the_second_row_on() {
        assert_eq!(rows(&Spinning::default(), 10, 5), 9);
        assert_eq!(rows(&Spinning::default(), 10, WITHIN.as_micros() as u64 - 1), 9);
    }

    #[test]
    fn a_game_with_frames_is_none_even_with_ten_polls_in_each() {
        let frame_us = 1_000_000 / 60;
        for polls_a_frame in [1, 10] {
            let row_us = u64::from(EMPTY_POLLS) * frame_us / polls_a_frame;
            assert_eq!(rows(&Spinning::default(), 100, row_us), 0);
        }
    }

    #[test]
    fn the_clock_is_read_once_a_row_and_events_begin_a_new_one() {
        let spinning = Spinning::default();
        for _ in 0..EMPTY_POLLS - 1 {
            assert!(!spinning.note_empty());
        }
        assert_eq!(spinning.since_us.load(Ordering::Relaxed), 0);
        spinning.note_events();
        for _ in 0..EMPTY_POLLS - 1 {
            assert!(!spinning.note_empty());
        }
        assert_eq!(spinning.since_us.load(Ordering::Relaxed), 0);
        assert!(!spinning.note_empty(), "the first row has no beginning");
        assert!(spinning.since_us.load(Ordering::Relaxed) > 0);
    }
}
