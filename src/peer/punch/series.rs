//! Timing of an attempt.

use std::time::Duration;

/// Silence before each probe to an address, and whether it is padded to full size. 0, 20, 60, 140, 300 ms, then the gap doubles: two
/// packets at once (a plain one tells a path that only passes small packets from no path), ten in all, as many as may go
/// unanswered to one address.
pub const SERIES: [(u64, bool); 10] = [
    (0, true),
    (0, false),
    (20, true),
    (40, true),
    (80, true),
    (160, true),
    (320, true),
    (640, true),
    (1280, true),
    (2560, true),
];
/// Where an address's series begins when the other side has just been heard there: its router is open already, so no plain one.
pub const HEARD_FROM: usize = 2;
/// Probes of the series that go from the main socket to the other side's address when fresh sockets probe it as well, because their
/// mappings can be foreseen and the main one's cannot: the rest of the address's ten is for those.
pub const BESIDE_ROUNDS: usize = 4;
/// An attempt that has not opened a path by then never will: both series are over, with room for an introduction that came late
/// to the other side.
pub const TIME_LIMIT: Duration = Duration::from_secs(8);
/// The same with a permit for a birthday: 2,048 ports at 250 a second, the openers' half second, and the way there and back. With the
/// introduction's round trip it stays below the 12 s after which a player must know.
pub const BIRTHDAY_TIME_LIMIT: Duration = Duration::from_millis(10_500);
/// A direct path is not taken before this while an address inside the own network may still answer; such an answer takes a few
/// milliseconds.
pub const LAN_GRACE: Duration = Duration::from_millis(25);
/// Time that an opened path is kept although nobody connects over it.
pub const HOLD_TIME: Duration = Duration::from_secs(60);
/// Silence between probes on such a path unless more is known. Routers forget UDP mappings after 30 s and more.
pub const HOLD_INTERVAL: Duration = Duration::from_secs(10);
/// Share of a known mapping lifetime that may pass in silence: two probes may be lost.
const HOLDS_IN_A_LIFETIME: u32 = 3;
/// Shortest and longest silence, whatever lifetime was measured: no flood, and well under 30 s, which other routers on the way may keep.
const HOLD_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(25));
/// Time between repeats when a probe on an open path stays unanswered.
pub const HOLD_RETRY: Duration = Duration::from_secs(1);
/// Unanswered probes in a row after which an opened path is given up.
pub const HOLD_TRIES: u8 = 4;
/// Answers that one address may get at once; a token comes back every [`ANSWER_REFILL`]. Two series and their repeats.
pub const ANSWER_BURST: u8 = 24;
/// See [`ANSWER_BURST`].
pub const ANSWER_REFILL: Duration = Duration::from_millis(250);

/// Silence between probes on an open path, from the least time that the own router is known to keep a silent mapping.
pub fn hold_interval(lifetime: Option<Duration>) -> Duration {
    lifetime.map_or(HOLD_INTERVAL, |lifetime| {
        (lifetime / HOLDS_IN_A_LIFETIME).clamp(HOLD_BOUNDS.0, HOLD_BOUNDS.1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lifetime_is_probed_more_often_and_a_long_one_less() {
        let seconds = Duration::from_secs;
        assert_eq!(hold_interval(None), HOLD_INTERVAL);
        assert!(hold_interval(Some(seconds(20))) < seconds(7));
        assert_eq!(hold_interval(Some(seconds(0))), seconds(2));
        assert_eq!(hold_interval(Some(seconds(600))), seconds(25));
    }
}
