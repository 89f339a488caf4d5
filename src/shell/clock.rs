//! The one clock of the process: events carry microseconds of the system's monotonic clock.

use std::sync::OnceLock;
use std::time::Instant;

/// A moment, and what the monotonic clock showed then.
fn epoch() -> &'static (Instant, u64) {
    static EPOCH: OnceLock<(Instant, u64)> = OnceLock::new();
    EPOCH.get_or_init(|| (Instant::now(), monotonic_us()))
}

/// `instant` in microseconds. On Unix this is `CLOCK_MONOTONIC`, so that times of several processes of one machine can be
/// compared; elsewhere it counts from the library's first use.
pub fn microseconds(instant: Instant) -> u64 {
    let (epoch, shown) = epoch();
    match instant.checked_duration_since(*epoch) {
        Some(since) => shown + since.as_micros() as u64,
        None => shown.saturating_sub(epoch.duration_since(instant).as_micros() as u64),
    }
}

/// This moment in microseconds.
pub fn now_us() -> u64 {
    microseconds(Instant::now())
}

#[cfg(unix)]
fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(not(unix))]
fn monotonic_us() -> u64 {
    0
}
