//! Which relays there are, which of them two nodes are offered, and the tickets for it.
//!
//! In: the server's own relay, proxy servers that have logged in, with how full they are. Out: for two nodes the best relay that both can reach,
//! and an offer for each side. Nothing is kept for an offer: its ticket says it all, sealed for the relay. An offer is a session of its own.
//!
//! **Which.** The lowest sum of both nodes' round trips to the relay. To the server's own relay that is the round trip of the node's session; to others
//! it is what the node has measured. Relays that one of the two has not measured come after all others, the emptiest first. Left out are those that
//! are full, those that have gone, those that one of the two has no address for, and those that the asker has tried, unless there is nothing else.
//!
//! The key that seals tickets is made from the server's identity and the relay's key, and a ticket's expiry is told on the clock of the wall: a
//! server that restarts takes the tickets that it granted before, so that the pairs it relayed for go on with their next packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::hmac;

use crate::relay::RelayCounters;
use crate::relay::ticket::{Grant, SideKey, TicketKey};
use crate::transport::LinkId;
use crate::transport::identity::{Guid, Identity, PublicKey};
use crate::wire::control::{KnownRelay, MAX_KNOWN_RELAYS, RelayRoundTrip};
use crate::wire::introduction::RelayOffer;

/// How long a ticket is good: a match, and some. Nodes ask for another in time.
pub const TICKET_TIME: Duration = Duration::from_secs(3_600);
/// Silence after which the relay forgets a pair, if the nodes do not say otherwise: several keep-alives of ours. Who comes back shows the ticket
/// again.
pub const IDLE_TIME: Duration = Duration::from_secs(60);
/// The shortest that nodes can ask for: two keep-alives.
pub const MIN_IDLE_TIME: Duration = Duration::from_secs(10);
/// The longest: what a relay keeps at most.
pub const MAX_IDLE_TIME: Duration = Duration::from_secs(600);
/// Payload bytes a second of one side of a pair: some voice and video beside a game, not a file server.
pub const BYTES_PER_SECOND: u32 = 1 << 20;
/// Frames a second of one side: 60 a second with several packets each, and bursts.
pub const FRAMES_PER_SECOND: u32 = 4_000;
/// Most proxy servers of a coordinator: every pair looks at all of them.
pub const MAX_PROXIES: usize = 64;

/// Milliseconds of silence that a ticket grants, for what a node asked; 0: the server's choice.
pub fn idle_time(asked_ms: u32) -> Duration {
    match asked_ms {
        0 => IDLE_TIME,
        asked => Duration::from_millis(asked.into()).clamp(MIN_IDLE_TIME, MAX_IDLE_TIME),
    }
}

/// A proxy server on another machine.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// The session in which it logged in.
    pub link: LinkId,
    /// Where nodes reach it: over IPv4, over IPv6.
    pub addresses: [Option<SocketAddr>; 2],
    /// Sessions that stand, as it last said.
    pub sessions: u64,
    /// Most that it takes.
    pub max_sessions: u64,
    /// Pairs that were offered it since it said so.
    offered: u64,
    key: Arc<TicketKey>,
}

/// What is known of a node's way to relays.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The round trip of its session with the server.
    pub to_server: Option<Duration>,
    /// What it has measured.
    pub measured: &'a [RelayRoundTrip],
    /// It can send over IPv4, over IPv6; neither: only to the server.
    pub versions: [bool; 2],
}

/// A relay for two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its key.
    pub key: PublicKey,
    /// Where each of the two reaches it; `None`: wherever its session with the server goes.
    pub addresses: [Option<SocketAddr>; 2],
}

/// Why there is no relay for two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRelay {
    /// None is there, or none that both can reach.
    None,
    /// All are full.
    Full,
}

/// One side of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The side that asked.
    pub asker: Guid,
    /// The other one.
    pub target: Guid,
}

/// All relays.
pub struct Relays {
    identity: Arc<Identity>,
    own: PublicKey,
    /// `None`: the server relays for nobody itself.
    own_key: Option<TicketKey>,
    proxies: BTreeMap<PublicKey, Proxy>,
    /// A moment, and the clock of the wall then, in milliseconds.
    clock: (Instant, u64),
}

impl Relays {
    /// Without proxies. `own`: the server itself relays. `wall_clock`: the moment `now` in milliseconds since 1970.
    pub fn new(now: Instant, identity: Arc<Identity>, own: bool, wall_clock: u64) -> Self {
        let key = identity.public();
        Self {
            own: key,
            own_key: own.then(|| TicketKey::new(&ticket_key(&identity, &key))),
            identity,
            proxies: BTreeMap::new(),
            clock: (now, wall_clock),
        }
    }

    /// The clock that tickets' expiry is told in, in milliseconds.
    pub fn ticket_time(&self, now: Instant) -> u64 {
        let (since, clock) = self.clock;
        clock + now.saturating_duration_since(since).as_millis() as u64
    }

    /// A proxy server has logged in. Returns the ticket key that it is handed, and the session that it had before; `None`: there are too many.
    pub fn proxy_joined(
        &mut self,
        key: PublicKey,
        link: LinkId,
        addresses: [Option<SocketAddr>; 2],
        (sessions, max_sessions): (u64, u64),
    ) -> Option<([u8; 32], Option<LinkId>)> {
        if self.proxies.len() >= MAX_PROXIES && !self.proxies.contains_key(&key) {
            return None;
        }
        let secret = ticket_key(&self.identity, &key);
        let proxy = Proxy {
            link,
            addresses,
            sessions,
            max_sessions,
            offered: 0,
            key: Arc::new(TicketKey::new(&secret)),
        };
        let before = self.proxies.insert(key, proxy).map(|before| before.link);
        Some((secret, before))
    }

    /// A proxy server says how full it is. False: it has not logged in.
    pub fn proxy_load(&mut self, key: &PublicKey, link: LinkId, sessions: u64, max_sessions: u64) -> bool {
        let Some(proxy) = self.proxies.get_mut(key).filter(|proxy| proxy.link == link) else {
            return false;
        };
        (proxy.sessions, proxy.max_sessions, proxy.offered) = (sessions, max_sessions, 0);
        true
    }

    /// That session of a proxy server is over. `Some`: it was the one that counted.
    pub fn proxy_left(&mut self, key: &PublicKey, link: LinkId) -> Option<Proxy> {
        match self.proxies.get(key) {
            Some(proxy) if proxy.link == link => self.proxies.remove(key),
            _ => None,
        }
    }

    /// How many proxy servers there are.
    pub fn proxies(&self) -> usize {
        self.proxies.len()
    }

    /// Whether there is any relay at all.
    pub fn any(&self) -> bool {
        self.own_key.is_some() || !self.proxies.is_empty()
    }

    /// What a node is told of, for measuring: the emptiest, if there are too many.
    pub fn known_to(&self, versions: [bool; 2]) -> Vec<KnownRelay> {
        let own = self.own_key.as_ref().map(|_| KnownRelay {
            key: self.own,
            address: None,
        });
        let mut proxies: Vec<_> = self
            .proxies
            .iter()
            .filter_map(|(key, proxy)| Some((proxy.load(), *key, reached_at(&proxy.addresses, versions)?)))
            .collect();
        proxies.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let known = proxies.into_iter().map(|(_, key, address)| KnownRelay {
            key,
            address: Some(address),
        });
        own.into_iter().chain(known).take(MAX_KNOWN_RELAYS).collect()
    }

    /// The best relay for two nodes. `own`: figures of the server's own. `tried`: what the asker found not to work.
    pub fn choose(
        &self,
        ends: [End<'_>; 2],
        own: (RelayCounters, u64),
        tried: &[PublicKey],
    ) -> Result<Choice, NoRelay> {
        let mut there = false;
        let mut found: Option<(bool, Rank, Choice)> = None;
        for (rank, full, choice) in self.reachable(ends, own) {
            there = true;
            if full {
                continue;
            }
            let tried = tried.contains(&choice.key);
            if found
                .as_ref()
                .is_none_or(|(others_tried, others, _)| (tried, rank) < (*others_tried, *others))
            {
                found = Some((tried, rank, choice));
            }
        }
        match found {
            Some((_, _, choice)) => Ok(choice),
            None if there => Err(NoRelay::Full),
            None => Err(NoRelay::None),
        }
    }

    /// Every relay that both can reach, with its rank and whether it is full.
    fn reachable(
        &self,
        ends: [End<'_>; 2],
        (own, own_room): (RelayCounters, u64),
    ) -> impl Iterator<Item = (Rank, bool, Choice)> {
        let of_own = self.own_key.as_ref().map(|_| {
            let rank = Rank::new(ends.map(|end| end.to_server), true, own.sessions, own_room);
            let choice = Choice {
                key: self.own,
                addresses: [None, None],
            };
            (rank, own.sessions >= own_room, choice)
        });
        let of_proxies = self.proxies.iter().filter_map(move |(key, proxy)| {
            let [asker, target] = ends.map(|end| reached_at(&proxy.addresses, end.versions));
            let choice = Choice {
                key: *key,
                addresses: [Some(asker?), Some(target?)],
            };
            let rank = Rank::new(
                ends.map(|end| end.measured(key)),
                false,
                proxy.taken(),
                proxy.max_sessions,
            );
            Some((rank, proxy.taken() >= proxy.max_sessions, choice))
        });
        of_own.into_iter().chain(of_proxies)
    }

    /// An offer of that relay for each side, the asker's first. `random` draws.
    pub fn offer(
        &mut self,
        now: Instant,
        choice: &Choice,
        pair: Pair,
        idle: Duration,
        mut random: impl FnMut(&mut [u8]),
    ) -> Option<[RelayOffer; 2]> {
        let expires = self.ticket_time(now) + TICKET_TIME.as_millis() as u64;
        let sealing = match self.proxies.get_mut(&choice.key) {
            Some(proxy) => {
                proxy.offered += 1;
                &*proxy.key
            }
            None if choice.key == self.own => self.own_key.as_ref()?,
            None => return None,
        };
        let mut session = [0; 8];
        random(&mut session);
        let session = u64::from_be_bytes(session);
        let [of_asker, of_target] = choice.addresses;
        let sides = [(pair.asker, true, of_asker), (pair.target, false, of_target)];
        Some(sides.map(|(owner, from_asker, address)| {
            let (mut secret, mut nonce) = ([0; 32], [0; 12]);
            random(&mut secret);
            random(&mut nonce);
            let grant = Grant {
                session,
                from_asker,
                key_number: 0,
                expires,
                owner,
                idle_ms: idle.as_millis() as u32,
                bytes_per_second: BYTES_PER_SECOND,
                frames_per_second: FRAMES_PER_SECOND,
                key: SideKey::new(secret),
            };
            RelayOffer {
                address,
                key: choice.key,
                ticket: Bytes::from(sealing.seal(nonce, &grant)),
                valid_ms: TICKET_TIME.as_millis() as u32,
                session,
                from_asker,
                key_number: 0,
                secret,
                idle_ms: grant.idle_ms,
            }
        }))
    }
}

impl Proxy {
    /// Sessions that it has, and may have by now.
    fn taken(&self) -> u64 {
        self.sessions.saturating_add(self.offered)
    }

    fn load(&self) -> f64 {
        load(self.taken(), self.max_sessions)
    }
}

impl End<'_> {
    fn measured(&self, key: &PublicKey) -> Option<Duration> {
        let found = self.measured.iter().find(|round_trip| round_trip.key == *key)?;
        Some(Duration::from_micros(found.microseconds.into()))
    }
}

/// The lower, the better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Rank {
    /// Both have measured it: the sum.
    Known(Duration),
    /// Not measured: proxies after the server's own, then by load.
    Unknown(bool, f64),
}

impl Rank {
    fn new(round_trips: [Option<Duration>; 2], own: bool, sessions: u64, room: u64) -> Self {
        match round_trips {
            [Some(one), Some(other)] => Self::Known(one + other),
            _ => Self::Unknown(!own, load(sessions, room)),
        }
    }
}

fn load(sessions: u64, room: u64) -> f64 {
    sessions as f64 / room.max(1) as f64
}

/// Where a node that can send over these versions of IP reaches a relay.
fn reached_at(addresses: &[Option<SocketAddr>; 2], versions: [bool; 2]) -> Option<SocketAddr> {
    let usable = addresses.iter().zip(versions);
    usable.filter(|(_, can)| *can).find_map(|(address, _)| *address)
}

/// The key of tickets for the relay with that key: the same whenever the coordinator is `identity`.
pub fn ticket_key(identity: &Identity, relay: &PublicKey) -> [u8; 32] {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, identity.seed());
    let mut context = hmac::Context::with_key(&secret);
    context.update(b"lanline relay tickets 1");
    context.update(&relay.0);
    let mut key = [0; 32];
    key.copy_from_slice(context.sign().as_ref());
    key
}

#[cfg(test)]
#[path = "relays_tests.rs"]
mod tests;
