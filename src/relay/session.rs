//! One session: two sides, each with an address, its keys, and what of its counters has come.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Dropped;
use super::budget::Bucket;
use super::ticket::{Grant, SideKey, same};
use crate::engine::SocketName;
use crate::transport::identity::Guid;
use crate::wire::relay::{DATA_AUTHENTICATED, DataHeader};

/// Counters behind the highest that may still come: what a path can reorder, and two paths in turn.
const WINDOW: u64 = 256;
/// Words of the window.
const WORDS: usize = (WINDOW / 64) as usize;

/// A socket and the address at its other end.
pub type Way = (SocketName, SocketAddr);

/// What became of a frame.
pub enum Reception {
    /// It is what it claims to be.
    Good {
        /// Whose budget it counts against.
        owner: Guid,
    },
    /// It is not.
    Dropped(Dropped),
}

/// Which counters have come (RFC 6479's window, without its ring).
#[derive(Debug, Clone, Copy, Default)]
struct Replays {
    highest: u64,
    seen: [u64; WORDS],
    any: bool,
}

impl Replays {
    /// True if that counter has not come. Nothing is noted.
    #[inline]
    fn is_new(&self, counter: u64) -> bool {
        if !self.any || counter > self.highest {
            return true;
        }
        let age = self.highest - counter;
        age < WINDOW && self.seen[(age / 64) as usize] & (1 << (age % 64)) == 0
    }

    #[inline]
    fn note(&mut self, counter: u64) {
        if !self.any || counter > self.highest {
            let shift = if self.any { counter - self.highest } else { WINDOW };
            self.shift(shift);
            self.highest = counter;
            self.any = true;
            self.seen[0] |= 1;
        } else {
            let age = self.highest - counter;
            if age < WINDOW {
                self.seen[(age / 64) as usize] |= 1 << (age % 64);
            }
        }
    }

    fn shift(&mut self, by: u64) {
        if by >= WINDOW {
            self.seen = [0; WORDS];
            return;
        }
        let (words, bits) = ((by / 64) as usize, by % 64);
        for index in (0..WORDS).rev() {
            let low = index.checked_sub(words).map_or(0, |from| self.seen[from] << bits);
            let carry = match index.checked_sub(words + 1) {
                Some(from) if bits > 0 => self.seen[from] >> (64 - bits),
                _ => 0,
            };
            self.seen[index] = low | carry;
        }
    }
}

/// A key with what came under it.
#[derive(Debug)]
struct Keyed {
    number: u8,
    key: SideKey,
    replays: Replays,
    expires: Instant,
}

/// One side.
#[derive(Debug)]
struct Side {
    way: Way,
    owner: Guid,
    current: Keyed,
    /// Frames that were under way when a new ticket was shown.
    previous: Option<Keyed>,
    bytes: Option<(u32, Bucket)>,
    frames: Option<(u32, Bucket)>,
}

impl Side {
    fn keyed(&mut self, number: u8) -> Option<&mut Keyed> {
        if self.current.number == number {
            return Some(&mut self.current);
        }
        self.previous.as_mut().filter(|previous| previous.number == number)
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The side that did not ask, and the one that did.
    sides: [Option<Side>; 2],
    heard: Instant,
    idle: Duration,
    /// Frames for a side that is not there yet, with whether the asker sent them.
    pub waiting: VecDeque<(bool, Box<[u8]>)>,
}

impl Session {
    /// One without sides.
    pub fn new(now: Instant) -> Self {
        Self {
            sides: [None, None],
            heard: now,
            idle: Duration::MAX,
            waiting: VecDeque::new(),
        }
    }

    /// A side showed a genuine ticket. One that is no newer than what it showed before only proves that the side lives: a replay must not move it.
    pub fn bind(&mut self, now: Instant, way: Way, grant: &Grant, expires: Instant) {
        self.heard = now;
        self.idle = self.idle.min(Duration::from_millis(grant.idle_ms.into()));
        let limit = |per_second: u32| (per_second > 0).then(|| (per_second, Bucket::full(now, per_second)));
        let keyed = || Keyed {
            number: grant.key_number,
            key: grant.key.clone(),
            replays: Replays::default(),
            expires,
        };
        match &mut self.sides[usize::from(grant.from_asker)] {
            Some(side) if side.current.number == grant.key_number || side.current.expires >= expires => {
                // Bind frames have no counter. Before the first data frame the side may still correct its address (it asks again from where
                // its router moved it); after that only a data frame moves it.
                if side.current.number == grant.key_number && !side.current.replays.any {
                    side.way = way;
                }
            }
            Some(side) => {
                let before = std::mem::replace(&mut side.current, keyed());
                side.previous = Some(before);
                side.way = way;
                side.bytes = limit(grant.bytes_per_second);
                side.frames = limit(grant.frames_per_second);
            }
            empty => {
                *empty = Some(Side {
                    way,
                    owner: grant.owner,
                    current: keyed(),
                    previous: None,
                    bytes: limit(grant.bytes_per_second),
                    frames: limit(grant.frames_per_second),
                });
            }
        }
    }

    /// Checks a frame and notes it.
    #[inline]
    pub fn receive(
        &mut self,
        now: Instant,
        way: Way,
        header: &DataHeader,
        authenticated: &[u8; DATA_AUTHENTICATED],
        length: usize,
    ) -> Reception {
        let Some(side) = &mut self.sides[usize::from(header.from_asker)] else {
            return Reception::Dropped(Dropped::Forged);
        };
        let moved = side.way != way;
        let Some(keyed) = side.keyed(header.key_number) else {
            return Reception::Dropped(Dropped::Forged);
        };
        if !same(&keyed.key.data_tag(authenticated), &header.tag) {
            return Reception::Dropped(Dropped::Forged);
        }
        if keyed.expires <= now {
            return Reception::Dropped(Dropped::Expired);
        }
        if !keyed.replays.is_new(header.counter) {
            return Reception::Dropped(Dropped::Replayed);
        }
        if moved && keyed.replays.any && header.counter < keyed.replays.highest {
            return Reception::Dropped(Dropped::WrongSource);
        }
        keyed.replays.note(header.counter);
        if moved {
            side.way = way;
        }
        self.heard = now;
        let within = |limit: &mut Option<(u32, Bucket)>, units: usize| {
            limit
                .as_mut()
                .is_none_or(|(per_second, bucket)| bucket.spend(now, *per_second, units))
        };
        if !within(&mut side.frames, 1) || !within(&mut side.bytes, length) {
            return Reception::Dropped(Dropped::OverBudget);
        }
        Reception::Good { owner: side.owner }
    }

    /// Where a frame goes on to, with the key number and the tag that it gets; `None`: the other side is not there.
    #[inline]
    pub fn way_to_other(
        &self,
        header: &DataHeader,
        authenticated: &[u8; DATA_AUTHENTICATED],
    ) -> Option<(Way, u8, [u8; 8])> {
        let side = self.sides[usize::from(!header.from_asker)].as_ref()?;
        let mut as_sent = *authenticated;
        as_sent[5] = side.current.number;
        Some((side.way, side.current.number, side.current.key.data_tag(&as_sent)))
    }

    /// When it is over unless something comes.
    pub fn ends_at(&self) -> Instant {
        let idle = self.heard + self.idle.min(LONGEST_IDLE);
        let expires = self.sides.iter().flatten().map(|side| side.current.expires).max();
        expires.map_or(idle, |expires| idle.min(expires))
    }
}

/// Longest idle time that a ticket can grant.
const LONGEST_IDLE: Duration = Duration::from_secs(600);
