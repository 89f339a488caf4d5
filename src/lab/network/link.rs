//! The cable between a host or router and its network: delay, loss, order, rate.
//!
//! A datagram enters one end, and leaves the other end once, twice or never. In order: it is dropped if it is larger
//! than the MTU or the queue is full; it waits for those before it and for its own transmission (if the link has a rate);
//! it may be lost on the wire; it travels for the latency plus jitter.

use std::time::Duration;

use rand::RngExt;

use super::super::random::Generator;
use super::super::trace::DropReason;

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkDirection {
    /// Time on the wire.
    pub latency: Duration,
    /// Each datagram travels longer by a random time from zero to this.
    pub jitter: Duration,
    /// Jitter alone does not let a datagram overtake another.
    pub keeps_order: bool,
    /// Probability (0 to 1) that a datagram is lost.
    pub loss: f64,
    /// Probability (0 to 1) that a datagram is held back by [`reordering_delay`](Self::reordering_delay) while others pass it.
    pub reordering: f64,
    /// See [`reordering`](Self::reordering).
    pub reordering_delay: Duration,
    /// Probability (0 to 1) that a datagram arrives twice.
    pub duplication: f64,
    /// Bits per second, IP and UDP headers included; `None`: no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for transmission; what comes then is dropped. Counts only with a rate.
    pub queue: usize,
    /// Largest IP packet in bytes, headers included; larger ones are dropped silently.
    pub mtu: usize,
}

impl Default for LinkDirection {
    /// A perfect cable: no delay, no loss, no limit but Ethernet's 1500 bytes.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            keeps_order: true,
            loss: 0.0,
            reordering: 0.0,
            reordering_delay: Duration::ZERO,
            duplication: 0.0,
            rate: None,
            queue: usize::MAX,
            mtu: 1500,
        }
    }
}

/// Both directions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// From the host or router into its network.
    pub up: LinkDirection,
    /// From the network to the host or router.
    pub down: LinkDirection,
    /// Further routers on the way (they count for the time to live, nothing else).
    pub hops: u8,
}

/// Routers between an attachment and the middle of the internet, so that two hosts are 8 hops apart: a low time to live
/// can pass one's own router and end before the other's.
const INTERNET_HOPS: u8 = 4;

impl Link {
    /// A link with that one-way latency in each direction, inside a building.
    pub fn lan(latency: Duration) -> Self {
        Self::default().with(|direction| direction.latency = latency)
    }

    /// A link to the internet with that one-way latency in each direction.
    pub fn internet(latency: Duration) -> Self {
        Self {
            hops: INTERNET_HOPS,
            ..Self::lan(latency)
        }
    }

    /// Changes both directions alike.
    pub fn with(mut self, mut change: impl FnMut(&mut LinkDirection)) -> Self {
        change(&mut self.up);
        change(&mut self.down);
        self
    }

    /// The same link with that probability of loss in each direction.
    pub fn with_loss(self, loss: f64) -> Self {
        self.with(|direction| direction.loss = loss)
    }
}

/// The loss of one of two links in a row that together lose `loss` (0 to 1).
pub fn half_loss(loss: f64) -> f64 {
    1.0 - (1.0 - loss).sqrt()
}

/// What became of a datagram on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    Dropped(DropReason),
    Arrives { at: Duration, doubled: bool },
}

/// A direction with what is under way on it.
pub(super) struct LinkState {
    pub(super) direction: LinkDirection,
    generator: Generator,
    /// When the last bit of what is queued will have left.
    free_at: Duration,
    last_arrival: Duration,
}

impl LinkState {
    pub(super) fn new(direction: LinkDirection, generator: Generator) -> Self {
        Self {
            direction,
            generator,
            free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
        }
    }

    /// Puts an IP packet of `bytes` on the link.
    pub(super) fn cross(&mut self, now: Duration, bytes: usize) -> Crossing {
        let direction = self.direction;
        // Always the same number of draws, so that changing one property leaves the luck of the others alone.
        let [lost, jitter, held_back, doubled]: [f64; 4] = std::array::from_fn(|_| self.generator.random());
        if bytes > direction.mtu {
            return Crossing::Dropped(DropReason::TooLarge);
        }
        let mut leaves = now;
        if let Some(rate) = direction.rate {
            let waiting = self.free_at.saturating_sub(now);
            let queued = waiting.as_secs_f64() * rate as f64 / 8.0;
            if queued + bytes as f64 > direction.queue as f64 {
                return Crossing::Dropped(DropReason::QueueFull);
            }
            let transmission = Duration::from_nanos((bytes as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1));
            leaves = self.free_at.max(now) + transmission;
            self.free_at = leaves;
        }
        if lost < direction.loss {
            return Crossing::Dropped(DropReason::Lost);
        }
        let arrival = leaves + direction.latency;
        let mut at = arrival + direction.jitter.mul_f64(jitter);
        if held_back < direction.reordering {
            at += direction.reordering_delay;
        } else if direction.keeps_order {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        Crossing::Arrives {
            at,
            doubled: doubled < direction.duplication,
        }
    }
}
