//! A congestion controller that bounds delay.
//!
//! Loss-based controllers fill the bottleneck's queue until it overflows; a game's small messages then stand in that queue (measured:
//! 130 ms at p99 over a 256 kB queue at 20 Mbit/s). This one keeps the queue that it causes near [`TARGET`]:
//!
//! - *Delay.* The queue is the smallest round trip of the last moments less the smallest of the last ten to twenty seconds. Minima,
//!   because jitter and delayed acknowledgements only ever add.
//! - *Start.* The window doubles each round trip (later: grows by a quarter) until a queue shows; then it is set to what the path has been seen to deliver.
//! - *Steady.* Below the target it grows, by a packet a round trip, faster and faster while there is hardly a queue. Above, it is cut by
//!   what is too much, once a round trip.
//! - *Loss* that comes with a queue cuts the window and marks a ceiling under which growth is careful. Loss without a queue is taken for
//!   chance (Wi-Fi, reordering) as long as it is rare.
//! - *Truth of the minimum.* A flow that always keeps some queue never sees the empty path again. So every ten seconds it lets the queue
//!   drain for a round trip. And if cutting again and again does not shrink the queue, then it is somebody else's (or the path became
//!   longer): it is taken for part of the path, so that the flow is not starved.
//! - *A new path* ([`on_new_path`]) begins with a fresh window, whatever is still under way on the old one: quinn counts that as under way on
//!   the new one, and if the old one is dead, nothing would go out until a probe time-out that seconds of silence have made long.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::congestion::{Controller, ControllerFactory};
use quinn_proto::{Connection, RttEstimator};

/// Queueing delay that is aimed at, where round trips do not vary by themselves. A third of a frame at 60 a second; less leaves capacity
/// unused when acknowledgements come in bunches.
const TARGET: Duration = Duration::from_millis(5);
/// Variation of the path (jitter) makes room for so many times itself: minima of few samples stand that much above the minimum of many.
const NOISE_FACTOR: u32 = 3;
/// Most of the queue that is aimed at, however noisy the path.
const MAX_TARGET: Duration = Duration::from_millis(20);
/// The queue may always hold so many packets: at 1 Mbit/s one takes 10 ms.
const QUEUE_PACKETS: u64 = 4;
/// Window at the start. A burst of that size leaves within the first round trip, spread over most of it: on 50 ms that is 13 Mbit/s.
const INITIAL_WINDOW: u64 = 64 << 10;
/// Up to here the window doubles at the start. Too much by as much again is 50 ms of queue at 20 Mbit/s.
const FAST_START: u64 = 128 << 10;
/// Smallest window, in packets.
const MIN_PACKETS: u64 = 4;
/// Largest window: 100 ms at a gigabit. Flow control ends earlier for streams.
const MAX_WINDOW: u64 = 12 << 20;
/// How long a smallest round trip is believed, at least.
const BASE_LIFETIME: Duration = Duration::from_secs(10);
/// Samples that a recent minimum needs before it is acted on.
const MIN_SAMPLES: u32 = 4;
/// How long a ceiling found by loss is remembered.
const CEILING_LIFETIME: Duration = Duration::from_secs(8);
/// Share of lost bytes in a round trip that is taken for chance.
const CHANCE_LOSS: f64 = 0.08;
/// Share of the window that must be lost before a loss that comes with a queue counts as congestion: one packet is no sign.
const CONGESTION_LOSS: f64 = 0.04;
/// What is left of the window after a loss that came with a queue.
const AFTER_LOSS: f64 = 0.75;
/// Growth in a round trip is at most this part of the window,
const MOST_GROWTH: u64 = 12;
/// and at least this part, or a packet.
const LEAST_GROWTH: u64 = 48;
/// What is left after a round trip with more loss than chance explains, but no queue.
const AFTER_HEAVY_LOSS: f64 = 0.85;
/// Cuts in a row that change nothing before the queue is taken for somebody else's.
const FUTILE_CUTS: u32 = 3;
/// A round trip shorter than this counts as this when growth is careful; on a loopback a packet a round trip would be 14 MB/s².
const SLOW_GROWTH_ROUND: Duration = Duration::from_millis(5);

/// The smallest of the last one to two periods.
#[derive(Debug, Clone, Copy)]
struct RecentMinimum {
    since: Instant,
    current: Option<Duration>,
    previous: Option<Duration>,
    current_samples: u32,
    previous_samples: u32,
}

impl RecentMinimum {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            current: None,
            previous: None,
            current_samples: 0,
            previous_samples: 0,
        }
    }

    /// Adds a sample; gives back the minima of two neighbouring periods when one has ended.
    fn add(&mut self, now: Instant, period: Duration, sample: Duration) -> Option<(Duration, Duration)> {
        let mut ended = None;
        let age = now.saturating_duration_since(self.since);
        if age >= period {
            // After a long silence what came before it says nothing.
            let previous = if age < period * 2 { self.current } else { None };
            ended = self.previous.zip(previous);
            self.previous = previous;
            self.previous_samples = if previous.is_some() { self.current_samples } else { 0 };
            self.current = None;
            self.current_samples = 0;
            self.since = now;
        }
        self.current = Some(self.current.map_or(sample, |current| current.min(sample)));
        self.current_samples += 1;
        ended
    }

    fn get(&self) -> Option<Duration> {
        match (self.current, self.previous) {
            (Some(current), Some(previous)) => Some(current.min(previous)),
            (current, previous) => current.or(previous),
        }
    }

    fn samples(&self) -> u32 {
        self.current_samples + self.previous_samples
    }
}

/// Makes controllers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DelayBoundedConfig;

impl ControllerFactory for DelayBoundedConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(DelayBounded::new(now, current_mtu))
    }
}

/// What happened since the round trip under way began.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    acknowledged: u64,
    lost: u64,
    /// The window, not the application, held sending back.
    limited: bool,
}

/// The controller.
#[derive(Debug, Clone)]
pub(super) struct DelayBounded {
    packet: u64,
    window: u64,
    starting: bool,
    base: RecentMinimum,
    recent: RecentMinimum,
    /// The path's smoothed round trip, less the delay of acknowledgements.
    smoothed: Duration,
    /// How much the recent minimum varies from one period to the next.
    noise: Duration,
    round: Round,
    /// Bytes a second of the best recent round trip.
    rate: f64,
    /// Packets that the window grows by in a round trip.
    growth: u64,
    last_cut: Instant,
    /// Nothing that was sent since the last cut has been acknowledged yet.
    cut_unseen: bool,
    futile_cuts: u32,
    queue_at_first_cut: Duration,
    window_at_first_cut: u64,
    ceiling: Option<(u64, Instant)>,
    last_loss: Instant,
    /// Window to come back to when the queue has been drained.
    draining: Option<(u64, Instant)>,
    last_drain: Instant,
    /// When this path was taken into use.
    began: Instant,
    /// Bytes under way, as far as is known; those of [`left_behind`](Self::left_behind) apart.
    in_flight: u64,
    /// Bytes that were under way on the path before. Shared with the copy that [`on_new_path`] is handed.
    left_behind: Arc<AtomicU64>,
}

/// Tells the connection's controller that another path is used from now on, and quinn to forget what it knows of the old one.
pub(super) fn on_new_path(connection: &mut Connection, now: Instant) {
    let copy = |connection: &Connection| {
        let copy = connection.congestion_state().clone_box().into_any();
        copy.downcast::<DelayBounded>().ok()
    };
    let under_way = |before: Box<DelayBounded>| before.in_flight + before.left_behind.load(Ordering::Relaxed);
    let left_behind = copy(connection).map_or(0, under_way);
    connection.path_changed(now);
    if let Some(fresh) = copy(connection) {
        fresh.left_behind.store(left_behind, Ordering::Relaxed);
    }
}

impl DelayBounded {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            packet: mtu.into(),
            window: INITIAL_WINDOW,
            starting: true,
            base: RecentMinimum::new(now),
            recent: RecentMinimum::new(now),
            smoothed: Duration::MAX,
            noise: Duration::ZERO,
            round: Round {
                began: now,
                acknowledged: 0,
                lost: 0,
                limited: false,
            },
            rate: 0.0,
            growth: 1,
            last_cut: now,
            cut_unseen: false,
            futile_cuts: 0,
            queue_at_first_cut: Duration::ZERO,
            window_at_first_cut: 0,
            ceiling: None,
            last_loss: now,
            draining: None,
            last_drain: now,
            began: now,
            in_flight: 0,
            left_behind: Arc::default(),
        }
    }

    /// So much of it is under way no longer.
    fn forget_left_behind(&mut self, bytes: u64) {
        let left = self.left_behind.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left_behind.store(left, Ordering::Relaxed);
    }

    fn min_window(&self) -> u64 {
        MIN_PACKETS * self.packet
    }

    fn set_window(&mut self, window: u64) {
        self.window = window.clamp(self.min_window(), MAX_WINDOW);
    }

    fn base(&self) -> Duration {
        self.base.get().unwrap_or_default()
    }

    /// The queue as the last moments show it.
    fn queue(&self) -> Option<Duration> {
        if self.recent.samples() < MIN_SAMPLES {
            return None;
        }
        // With few packets under way every acknowledgement is a delayed one; the smoothed value knows by how much.
        let recent = self.recent.get()?.min(self.smoothed);
        Some(recent.saturating_sub(self.base()))
    }

    /// What the queue may be: [`TARGET`], more on a noisy path, a few packets on a slow one.
    fn target(&self) -> Duration {
        let target = (TARGET + self.noise * NOISE_FACTOR).min(MAX_TARGET);
        if self.rate <= 0.0 {
            return target;
        }
        target.max(Duration::from_secs_f64(
            ((QUEUE_PACKETS * self.packet) as f64 / self.rate).min(1.0),
        ))
    }

    /// What a cut leaves of the queue.
    fn after_cut(&self) -> Duration {
        self.target() * 2 / 5
    }

    fn ceiling(&self, now: Instant) -> Option<u64> {
        self.ceiling
            .filter(|ceiling| now.saturating_duration_since(ceiling.1) < CEILING_LIFETIME)
            .map(|ceiling| ceiling.0)
    }

    /// Bytes that the path holds without a queue, as far as was seen.
    fn delivered_window(&self) -> f64 {
        self.rate * self.base().as_secs_f64()
    }

    fn end_start(&mut self, now: Instant) {
        self.starting = false;
        let seen = self.rate.max(self.rate_of_round(now));
        let window = seen * (self.base() + self.after_cut()).as_secs_f64();
        // What was seen includes moments in which the path was not full yet. Too much is put right by an exact cut a round trip later,
        // too little would take many.
        self.set_window((window as u64).max(self.window / 2).min(self.window));
        self.note_cut(now);
    }

    fn note_cut(&mut self, now: Instant) {
        self.last_cut = now;
        self.cut_unseen = true;
        self.growth = self.least_growth();
    }

    fn least_growth(&self) -> u64 {
        (self.window / (LEAST_GROWTH * self.packet)).max(1)
    }

    fn rate_of_round(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.round.began);
        // A piece of a round trip that is too short says more about bunching than about the path.
        if elapsed < self.base() / 2 || elapsed.is_zero() {
            return 0.0;
        }
        self.round.acknowledged as f64 / elapsed.as_secs_f64()
    }

    fn grow(&mut self, now: Instant, bytes: u64) {
        let near_ceiling = self
            .ceiling(now)
            .is_some_and(|ceiling| self.window + self.window / 10 >= ceiling);
        let growth = if near_ceiling { 1 } else { self.growth };
        let mut increase = (growth * self.packet) as f64 * bytes as f64 / self.window as f64;
        if near_ceiling && self.base() < SLOW_GROWTH_ROUND {
            increase *= self.base().as_secs_f64() / SLOW_GROWTH_ROUND.as_secs_f64();
        }
        self.set_window(self.window + increase.max(1.0) as u64);
    }

    fn cut(&mut self, now: Instant, queue: Duration) {
        let base = self.base();
        let kept = (base + self.after_cut()).as_secs_f64() / (base + queue).as_secs_f64();
        self.note_cut(now);
        if self.futile_cuts == 0 {
            self.queue_at_first_cut = queue;
            self.window_at_first_cut = self.window;
        }
        self.futile_cuts += 1;
        if self.futile_cuts > FUTILE_CUTS && queue * 4 > self.queue_at_first_cut * 3 {
            let others = self.recent.get().unwrap_or(base).saturating_sub(self.after_cut());
            self.base = RecentMinimum::new(now);
            self.base.add(now, BASE_LIFETIME, others);
            self.futile_cuts = 0;
            self.set_window(self.window_at_first_cut);
            return;
        }
        self.set_window((self.window as f64 * kept.max(0.5)) as u64);
    }

    fn end_round(&mut self, now: Instant) {
        let rate = self.rate_of_round(now);
        // The best rate fades, so that a path that became slower is noticed within a second or so.
        self.rate = rate.max(self.rate * 0.95);
        let total = self.round.acknowledged + self.round.lost;
        let heavy_loss = total > 0 && self.round.lost as f64 > CHANCE_LOSS * total as f64;
        if heavy_loss {
            self.starting = false;
            self.growth = self.least_growth();
            let kept = (self.window as f64 * AFTER_HEAVY_LOSS).max(self.delivered_window().min(self.window as f64));
            self.set_window(kept as u64);
        }
        if self.round.limited && !self.starting {
            match self.queue() {
                Some(queue) if queue < self.target() / 2 => {
                    self.growth = (self.growth * 2).min((self.window / (MOST_GROWTH * self.packet)).max(1));
                }
                _ => self.growth = self.least_growth(),
            }
        }
        self.round = Round {
            began: now,
            acknowledged: 0,
            lost: 0,
            limited: false,
        };
        self.drain_if_due(now);
    }

    /// Lets the queue empty now and then, to see the path without it.
    fn drain_if_due(&mut self, now: Instant) {
        if self.starting || now.saturating_duration_since(self.last_drain) < BASE_LIFETIME {
            return;
        }
        let Some(queue) = self.queue() else { return };
        self.last_drain = now;
        if queue < self.after_cut() {
            return;
        }
        let base = self.base();
        let empty = self.window as f64 * base.as_secs_f64() / (base + queue).as_secs_f64();
        self.draining = Some((self.window, now));
        self.set_window((empty * 0.75) as u64);
    }
}

impl Controller for DelayBounded {
    fn on_sent(&mut self, _now: Instant, bytes: u64, _last_packet_number: u64) {
        self.in_flight += bytes;
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        if sent < self.began {
            // It went over the path before.
            self.forget_left_behind(bytes);
            return;
        }
        let sample = now.saturating_duration_since(sent);
        self.smoothed = rtt.get();
        self.base.add(now, BASE_LIFETIME, sample);
        let period = (self.smoothed.min(Duration::from_secs(1)) / 4).max(Duration::from_millis(1));
        if self.cut_unseen && sent > self.last_cut {
            // From here on samples show what the cut has done.
            self.cut_unseen = false;
            self.recent = RecentMinimum::new(now);
        }
        if let Some((before, after)) = self.recent.add(now, period, sample) {
            self.noise = (self.noise * 7 + before.abs_diff(after)) / 8;
        }
        self.round.acknowledged += bytes;
        self.round.limited |= !app_limited;

        if let Some((window, began)) = self.draining {
            if sent > began {
                self.draining = None;
                self.set_window(window);
                self.note_cut(now);
            }
        } else if self.starting {
            if !app_limited {
                // The queue shows a round trip after it was caused, so that doubling goes twice too far: from where that would hurt on,
                // the window grows by a quarter.
                let share = if self.window < FAST_START { 1 } else { 4 };
                self.set_window(self.window + bytes / share);
            }
        } else if !app_limited && sent > self.last_cut && self.queue().is_none_or(|queue| queue < self.target()) {
            self.grow(now, bytes);
        }
        if sent > self.round.began {
            // Two round trips on, all of that has been acknowledged or was lost.
            if self.round.began > self.began {
                self.forget_left_behind(u64::MAX);
            }
            self.end_round(now);
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest_acknowledged: Option<u64>) {
        self.in_flight = in_flight.saturating_sub(self.left_behind.load(Ordering::Relaxed));
        let Some(queue) = self.queue() else { return };
        if self.starting {
            // The smoothed value lags behind by several acknowledgements; meanwhile the window would double. A little less than the target
            // ends the start: what is seen now was caused a round trip ago. (Half of it ends the start on jitter of 2 ms already.)
            let recent = self.recent.get().unwrap_or_default();
            if !app_limited && recent.saturating_sub(self.base()) > self.target() * 3 / 4 {
                self.end_start(now);
            }
            return;
        }
        if self.draining.is_some() || app_limited {
            return;
        }
        if queue <= self.target() {
            self.futile_cuts = 0;
            return;
        }
        if !self.cut_unseen {
            self.cut(now, queue);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if sent < self.began {
            // What the path before has lost says nothing of this one.
            self.forget_left_behind(lost_bytes);
            return;
        }
        self.round.lost += lost_bytes;
        if is_persistent_congestion {
            // Nothing came through for several round trips: whatever was known of the path is old.
            self.set_window(self.window.min(INITIAL_WINDOW) / 2);
            self.note_cut(now);
            self.last_loss = now;
            return;
        }
        if sent <= self.last_loss {
            return;
        }
        let queue = self.queue().unwrap_or_default();
        let base = self.base();
        let sign_of_queue = self.after_cut().min((base / 2).max(Duration::from_micros(500)));
        let many = self.round.lost as f64 > (self.window as f64 * CONGESTION_LOSS).max((2 * self.packet) as f64);
        if lost_bytes > 0 && !(many && queue >= sign_of_queue) {
            return;
        }
        self.last_loss = now;
        self.note_cut(now);
        self.starting = false;
        self.ceiling = Some((self.window, now));
        let kept = (self.window as f64 * AFTER_LOSS).max(self.delivered_window().min(self.window as f64 * 0.95));
        self.set_window(kept as u64);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet = new_mtu.into();
        self.set_window(self.window);
    }

    fn window(&self) -> u64 {
        self.window + self.left_behind.load(Ordering::Relaxed)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
