//! Whether the node's own outside address can be reached from inside: two sockets, each of which sends to the outside address of
//! the other, so that each lets the other in.
//!
//! In: the two sockets with their outside addresses, the time, news that a request came back. Out: which requests to send.
//! Nothing of this reaches the server: what comes back is the request itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::engine::SocketName;

/// Rounds of one request each way. The first of them open the filters, the others pass; on a wireless network one in ten may be lost.
const ROUNDS: u8 = 6;
/// Between them: twice the time that a busy home router takes.
const INTERVAL: Duration = Duration::from_millis(40);

type End = (SocketName, SocketAddr);

/// The test.
#[derive(Debug, Default)]
pub struct Hairpin {
    ends: Option<(End, End)>,
    round: u8,
    next: Option<Instant>,
    came_back: bool,
    over: bool,
}

impl Hairpin {
    /// Begins with these two.
    pub fn begin(&mut self, now: Instant, one: End, other: End) {
        self.ends = Some((one, other));
        self.next = Some(now);
    }

    /// Whether it has begun.
    pub fn is_ready(&self) -> bool {
        self.ends.is_some()
    }

    /// Whether it has begun and goes on.
    pub fn is_running(&self) -> bool {
        self.next.is_some()
    }

    /// A request came back.
    pub fn came_back(&mut self) {
        self.came_back = true;
        self.over = true;
        self.next = None;
    }

    /// `None`: not known (yet).
    pub fn result(&self) -> Option<bool> {
        self.over.then_some(self.came_back)
    }

    /// When [`Hairpin::poll`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Requests to send now, each from one end to the other. A router far away may take as long as the server: what has not come back
    /// a round trip (`trip`) after the last round does not.
    pub fn poll(&mut self, now: Instant, trip: Duration) -> Vec<(End, End)> {
        let Some((one, other)) = self.ends.filter(|_| self.next.is_some_and(|next| next <= now)) else {
            return Vec::new();
        };
        if self.round >= ROUNDS {
            self.next = None;
            self.over = true;
            return Vec::new();
        }
        self.round += 1;
        self.next = Some(now + if self.round < ROUNDS { INTERVAL } else { trip });
        vec![(one, other), (other, one)]
    }
}
