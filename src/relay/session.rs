//! One session: two sides, each with an address, its keys, and what of its counters has come.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Dropped;
use super::budget::{Bucket, Moment};
use super::shared::OwnerBudget;
use super::ticket::{DataKey, Grant, same};
use crate::engine::SocketName;
use crate::wire::relay::{DATA_AUTHENTICATED, DataHeader};

/// Counters behind the highest that may still come: what a path can reorder, and two paths in turn.
const WINDOW: u64 = 256;
/// Words of the window.
const WORDS: usize = (WINDOW / 64) as usize;

/// Where a side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The relay's socket.
    pub socket: SocketName,
    /// The address at its other end.
    pub address: SocketAddr,
    /// Which of the machine's addresses that end knows, where the socket is bound to all of them and the shell tells.
    pub local_ip: Option<IpAddr>,
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
    key: DataKey,
    replays: Replays,
    expires: Moment,
}

/// One side.
#[derive(Debug)]
struct Side {
    way: Way,
    owner: Arc<OwnerBudget>,
    bytes: Bucket,
    frames: Bucket,
    current: Keyed,
    /// Frames that were under way when a new ticket was shown.
    previous: Option<Box<Keyed>>,
}

impl Side {
    #[inline]
    fn keyed(&mut self, number: u8) -> Option<&mut Keyed> {
        if self.current.number == number {
            return Some(&mut self.current);
        }
        self.previous
            .as_deref_mut()
            .filter(|previous| previous.number == number)
    }
}

/// A session. About half a kilobyte; [`super`] says what 10,000 of them take.
#[derive(Debug)]
pub struct Session {
    /// The side that did not ask, and the one that did.
    sides: [Option<Side>; 2],
    heard: Moment,
    idle: Duration,
    /// Its place among the sessions of its shard, see [`super::Passage::Forward`].
    pub number: u32,
    /// Frames for a side that is not there yet, with whether the asker sent them.
    pub waiting: VecDeque<(bool, Box<[u8]>)>,
}

impl Session {
    /// One without sides.
    pub fn new(now: Moment, number: u32) -> Self {
        Self {
            sides: [None, None],
            heard: now,
            idle: LONGEST_IDLE,
            number,
            waiting: VecDeque::new(),
        }
    }

    /// A side showed a genuine ticket. One that is no newer than what it showed before only proves that the side lives: a replay must not move it.
    pub fn bind(&mut self, now: Moment, way: Way, grant: &Grant, expires: Moment, owner: Arc<OwnerBudget>) {
        self.heard = now;
        self.idle = self.idle.min(Duration::from_millis(grant.idle_ms.into()));
        let keyed = || Keyed {
            number: grant.key_number,
            key: grant.key.data_key(),
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
                side.previous = Some(Box::new(before));
                side.way = way;
                side.bytes = Bucket::full(grant.bytes_per_second);
                side.frames = Bucket::full(grant.frames_per_second);
            }
            empty => {
                *empty = Some(Side {
                    way,
                    owner,
                    bytes: Bucket::full(grant.bytes_per_second),
                    frames: Bucket::full(grant.frames_per_second),
                    current: keyed(),
                    previous: None,
                });
            }
        }
    }

    /// Checks a frame and notes it; `Some`: why it is not passed on.
    #[inline]
    pub fn receive(
        &mut self,
        now: Moment,
        way: &Way,
        header: &DataHeader,
        authenticated: &[u8; DATA_AUTHENTICATED],
        length: usize,
    ) -> Option<Dropped> {
        let Some(side) = &mut self.sides[usize::from(header.from_asker)] else {
            return Some(Dropped::Forged);
        };
        let moved = side.way != *way;
        let Some(keyed) = side.keyed(header.key_number) else {
            return Some(Dropped::Forged);
        };
        if !same(&keyed.key.data_tag(authenticated), &header.tag) {
            return Some(Dropped::Forged);
        }
        if keyed.expires <= now {
            return Some(Dropped::Expired);
        }
        if !keyed.replays.is_new(header.counter) {
            return Some(Dropped::Replayed);
        }
        if moved && keyed.replays.any && header.counter < keyed.replays.highest {
            return Some(Dropped::WrongSource);
        }
        keyed.replays.note(header.counter);
        if moved {
            side.way = *way;
        }
        self.heard = now;
        let within = side.frames.spend(now, 1) && side.bytes.spend(now, length) && side.owner.spend(now, length);
        (!within).then_some(Dropped::OverBudget)
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
    pub fn ends_at(&self) -> Moment {
        let idle = self.heard.after(self.idle);
        let expires = self.sides.iter().flatten().map(|side| side.current.expires).max();
        expires.map_or(idle, |expires| idle.min(expires))
    }
}

/// Longest idle time that a ticket can grant.
const LONGEST_IDLE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_small() {
        // 10,000 of them have 20 MB, with what finds them and what they share.
        assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
    }
}
