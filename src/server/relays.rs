//! The server's own relay, and the offers that introductions carry.
//!
//! In: relay frames of the server's sockets; pairs that are introduced. Out: frames that go on, answers, offers for both sides of a pair.
//! Nothing is kept for an offer: its ticket says it all, sealed for the relay. An offer is a session of its own.
//!
//! The key that seals tickets is made from the server's identity, and a ticket's expiry is told on the clock of the wall: a server that
//! restarts takes the tickets that it granted before, so that the pairs it relayed for go on with their next packet.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ring::hmac;

use crate::engine::{Datagram, SocketName, Transmit};
use crate::relay::ticket::{Grant, SideKey, TicketKey};
use crate::relay::{Relay, RelayCounters, RelayLimits, Verdict};
use crate::transport::identity::{Guid, Identity, PublicKey};
use crate::wire::introduction::RelayOffer;

/// How long a ticket is good: a match, and some. Nodes ask for another in time.
pub const TICKET_TIME: Duration = Duration::from_secs(3_600);
/// Silence after which the relay forgets a pair: several keep-alives of ours. Who comes back shows the ticket again.
pub const IDLE_TIME: Duration = Duration::from_secs(60);
/// Payload bytes a second of one side of a pair: some voice and video beside a game, not a file server.
pub const BYTES_PER_SECOND: u32 = 1 << 20;
/// Frames a second of one side: 60 a second with several packets each, and bursts.
pub const FRAMES_PER_SECOND: u32 = 4_000;
/// Frames that wait for the socket; more than that and the oldest are dropped.
const MAX_QUEUED: usize = 1_024;

/// The relay with what belongs to it.
pub struct Relays {
    own: PublicKey,
    key: TicketKey,
    relay: Option<Relay>,
    /// The moment `0` on the clock of the wall, in milliseconds.
    clock: (Instant, u64),
    queue: VecDeque<(SocketName, SocketAddr, BytesMut)>,
    overflowed: u64,
}

/// One side of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The side that asked.
    pub asker: Guid,
    /// The other one.
    pub target: Guid,
}

impl Relays {
    /// `limits`: `None`, this server relays for nobody. `wall_clock`: the moment `now` in milliseconds since 1970.
    pub fn new(now: Instant, identity: &Identity, limits: Option<RelayLimits>, wall_clock: u64) -> Self {
        let own = identity.public();
        let key = || ticket_key(identity, &own);
        Self {
            own,
            key: key(),
            relay: limits.map(|limits| Relay::new(now, key(), limits, wall_clock)),
            clock: (now, wall_clock),
            queue: VecDeque::new(),
            overflowed: 0,
        }
    }

    /// Figures of the relay.
    pub fn counters(&self) -> RelayCounters {
        self.relay.as_ref().map(Relay::counters).unwrap_or_default()
    }

    /// An offer for each side, the asker's first; `None`: there is no relay. `random` draws.
    pub fn offer(&self, now: Instant, pair: Pair, mut random: impl FnMut(&mut [u8])) -> Option<[RelayOffer; 2]> {
        self.relay.as_ref()?;
        let mut session = [0; 8];
        random(&mut session);
        let session = u64::from_be_bytes(session);
        let (since, clock) = self.clock;
        let expires = clock + (now.saturating_duration_since(since) + TICKET_TIME).as_millis() as u64;
        Some([(pair.asker, true), (pair.target, false)].map(|(owner, from_asker)| {
            let (mut secret, mut nonce) = ([0; 32], [0; 12]);
            random(&mut secret);
            random(&mut nonce);
            let grant = Grant {
                session,
                from_asker,
                key_number: 0,
                expires,
                owner,
                idle_ms: IDLE_TIME.as_millis() as u32,
                bytes_per_second: BYTES_PER_SECOND,
                frames_per_second: FRAMES_PER_SECOND,
                key: SideKey::new(secret),
            };
            RelayOffer {
                address: None,
                key: self.own,
                ticket: Bytes::from(self.key.seal(nonce, &grant)),
                valid_ms: TICKET_TIME.as_millis() as u32,
                session,
                from_asker,
                key_number: 0,
                secret,
                idle_ms: grant.idle_ms,
            }
        }))
    }

    /// A datagram whose first byte is that of a bind or data frame. False if there is nobody to take it.
    pub fn handle(&mut self, now: Instant, mut datagram: Datagram) -> bool {
        let Some(relay) = &mut self.relay else { return false };
        let source = (datagram.socket, datagram.source);
        match relay.handle(now, source.0, source.1, &mut datagram.contents) {
            Verdict::Forward { socket, destination } => self.enqueue(socket, destination, datagram.contents),
            Verdict::Answer => {
                let answer = BytesMut::from(relay.answer());
                self.enqueue(source.0, source.1, answer);
            }
            Verdict::Kept => {}
            Verdict::Dropped(_) => return false,
        }
        while let Some(waited) = self.relay.as_mut().and_then(Relay::poll_waiting) {
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

    /// The next frame to send.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (socket, destination, frame) = self.queue.pop_front()?;
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

    /// When the relay wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.relay.as_ref().and_then(Relay::poll_timeout)
    }

    /// Ends what is idle or expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(relay) = &mut self.relay {
            relay.handle_timeout(now);
        }
    }
}

/// The key of tickets for the relay with that key: the same whenever the coordinator is `identity`.
pub fn ticket_key(identity: &Identity, relay: &PublicKey) -> TicketKey {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, identity.seed());
    let mut context = hmac::Context::with_key(&secret);
    context.update(b"lanline relay tickets 1");
    context.update(&relay.0);
    let mut key = [0; 32];
    key.copy_from_slice(context.sign().as_ref());
    TicketKey::new(&key)
}
