//! The server's own relay: frames that come to its sockets and go on.
//!
//! In: bind and data frames, with where they came from. Out: frames that go on, answers. Where the shell forwards on threads of its own, the engine
//! never sees a frame, and knows of that relay only how full it is ([`OutsideRelay`]).

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use crate::engine::{Datagram, SocketName, Transmit};
use crate::relay::ticket::TicketKey;
use crate::relay::{Relay, RelayCounters, RelayLimits, Verdict};

/// Frames that wait for the socket; more than that and the oldest are dropped.
const MAX_QUEUED: usize = 1_024;

/// A relay that somebody else runs with this server's ticket key, on the server's sockets.
pub trait OutsideRelay: fmt::Debug + Send + Sync {
    /// Its figures now.
    fn counters(&self) -> RelayCounters;
    /// Most sessions that it takes.
    fn max_sessions(&self) -> u64;
    /// Another ticket key, and the clock that the tickets' expiry is told in: `ticket_time` milliseconds at `now`. Only a proxy server is handed
    /// another one, when it has logged in; sessions that stand go on.
    fn set_ticket_key(&self, now: Instant, key: TicketKey, ticket_time: u64);
}

/// Who forwards on this server's sockets.
#[derive(Debug, Clone, Default)]
pub enum RelayConfig {
    /// Nobody.
    #[default]
    Off,
    /// The engine itself, within these limits.
    Own(RelayLimits),
    /// Somebody else: relay frames do not reach the engine.
    Outside(Arc<dyn OutsideRelay>),
}

/// A relay on this server's sockets.
pub enum Forwarding {
    /// None.
    Off,
    /// The engine's.
    Own(Box<OwnRelay>),
    /// Somebody else's.
    Outside(Arc<dyn OutsideRelay>),
}

impl Forwarding {
    /// As configured. `key` and `ticket_time` as in [`Relay::new`].
    pub fn new(now: Instant, config: &RelayConfig, key: TicketKey, ticket_time: u64) -> Self {
        match config {
            RelayConfig::Off => Self::Off,
            RelayConfig::Own(limits) => Self::Own(Box::new(OwnRelay {
                relay: Relay::new(now, key, *limits, ticket_time),
                max_sessions: limits.max_sessions as u64,
                queue: VecDeque::new(),
                overflowed: 0,
            })),
            RelayConfig::Outside(outside) => {
                outside.set_ticket_key(now, key, ticket_time);
                Self::Outside(outside.clone())
            }
        }
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Its figures.
    pub fn counters(&self) -> RelayCounters {
        match self {
            Self::Off => RelayCounters::default(),
            Self::Own(own) => own.relay.counters(),
            Self::Outside(outside) => outside.counters(),
        }
    }

    /// Most sessions that it takes.
    pub fn max_sessions(&self) -> u64 {
        match self {
            Self::Off => 0,
            Self::Own(own) => own.max_sessions,
            Self::Outside(outside) => outside.max_sessions(),
        }
    }

    /// A datagram whose first byte is that of a bind or data frame. False if nobody took it.
    pub fn handle(&mut self, now: Instant, datagram: Datagram) -> bool {
        match self {
            Self::Own(own) => own.handle(now, datagram),
            Self::Off | Self::Outside(_) => false,
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let Self::Own(own) = self else { return None };
        let (socket, destination, frame) = own.queue.pop_front()?;
        buffer.extend_from_slice(&frame);
        Some(Transmit {
            socket,
            destination,
            ecn: None,
            size: frame.len(),
            segment_size: None,
            time_to_live: None,
        })
    }

    /// When it wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Own(own) => own.relay.poll_timeout(),
            Self::Off | Self::Outside(_) => None,
        }
    }

    /// Ends what is idle or expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Self::Own(own) = self {
            own.relay.handle_timeout(now);
        }
    }
}

/// The engine's own relay.
pub struct OwnRelay {
    relay: Relay,
    max_sessions: u64,
    queue: VecDeque<(SocketName, SocketAddr, BytesMut)>,
    overflowed: u64,
}

impl OwnRelay {
    fn handle(&mut self, now: Instant, mut datagram: Datagram) -> bool {
        let source = (datagram.socket, datagram.source);
        match self.relay.handle(now, source.0, source.1, &mut datagram.contents) {
            Verdict::Forward { socket, destination } => self.enqueue(socket, destination, datagram.contents),
            Verdict::Answer => {
                let answer = BytesMut::from(self.relay.answer());
                self.enqueue(source.0, source.1, answer);
            }
            Verdict::Kept => {}
            Verdict::Dropped(_) => return false,
        }
        while let Some(waited) = self.relay.poll_waiting() {
            self.enqueue(waited.socket, waited.destination, BytesMut::from(&waited.frame[..]));
        }
        true
    }

    fn enqueue(&mut self, socket: SocketName, destination: SocketAddr, frame: BytesMut) {
        if self.queue.len() >= MAX_QUEUED {
            self.queue.pop_front();
            self.overflowed += 1;
        }
        self.queue.push_back((socket, destination, frame));
    }
}
