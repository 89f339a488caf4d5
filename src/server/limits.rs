//! How much one key, one address and one network may ask of a server. All numbers of the server's limits stand here.
//!
//! In: a moment and who asks. Out: yes or no. A [`Limiter`] counts in windows that start with the first request after
//! the last one ended, and forgets everything at their end: its memory is bounded by its capacity, whatever arrives.
//! What is over the capacity is turned down: under an attack from that many sources there is nothing better.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::scope::{Network, Scope, scope};
use crate::transport::identity::Guid;

/// STUN answers a second to one address (`nat-techniques`: 20/s) that are larger than their requests, or than 96 bytes. A foreign
/// client asks less than 20 times in all.
pub const STUN_PER_ADDRESS: u32 = 20;
/// The same to one /24 or /56.
pub const STUN_PER_NETWORK: u32 = 200;
/// STUN answers a second to one address that are no larger than their requests, at most 96 bytes: nothing is gained by
/// forging these. A node's full discovery takes about 40; this is ten players behind one address who begin in the same second (or
/// twice that number in the quick discovery after a restart of the server), and 38 kB/s at most.
pub const STUN_PADDED_PER_ADDRESS: u32 = 400;
/// The same to one /24 or /56: ten such households, or a hundred players of a LAN party or a carrier.
pub const STUN_PADDED_PER_NETWORK: u32 = 4_000;
/// The window of all four.
pub const STUN_WINDOW: Duration = Duration::from_secs(1);

/// Registrations of one key in [`REGISTRATION_WINDOW`]: a game that is restarted over and over, or two programs with one
/// identity that replace each other, but not in a tight loop.
pub const REGISTRATIONS_PER_KEY: u32 = 20;
/// Registrations from one network in [`REGISTRATION_WINDOW`]: everyone of a LAN party or behind a carrier's shared
/// address comes back at once after the server was restarted.
pub const REGISTRATIONS_PER_NETWORK: u32 = 2_048;
/// The window of both.
pub const REGISTRATION_WINDOW: Duration = Duration::from_secs(30);

/// Open-NAT requests of one node in [`OPEN_NAT_WINDOW`]: it meets a session of 64 at once, then once more.
pub const OPEN_NAT_PER_KEY: u32 = 128;
/// Open-NAT requests from one network in [`OPEN_NAT_WINDOW`]: four full sessions of a LAN party form at once (64 × 63 / 2
/// pairs each).
pub const OPEN_NAT_PER_NETWORK: u32 = 8_192;
/// The window of both.
pub const OPEN_NAT_WINDOW: Duration = Duration::from_secs(10);

/// Relay requests of one node in [`RELAY_WINDOW`]: all its pairs of a full session lose their relay at once, and the next one fails, too.
pub const RELAY_REQUESTS_PER_KEY: u32 = 128;
/// Relay requests from one network in [`RELAY_WINDOW`]: as open-NAT requests.
pub const RELAY_REQUESTS_PER_NETWORK: u32 = 8_192;
/// The window of both.
pub const RELAY_WINDOW: Duration = Duration::from_secs(10);

/// Pairs of tickets for which one node asks in [`TICKET_WINDOW`], with introductions or without: four full sessions. A ticket costs the server
/// nothing, but each can be made a session of a relay, that stays for a minute.
pub const TICKETS_PER_KEY: u32 = 256;
/// The same from one network: 64 such nodes.
pub const TICKETS_PER_NETWORK: u32 = 16_384;
/// The window of both: the time after which a relay forgets who says nothing.
pub const TICKET_WINDOW: Duration = Duration::from_secs(60);

/// Control messages of one node in [`CONTROL_WINDOW`]: three for each open-NAT request it may make, two for as many that
/// reach it, and updates of its addresses.
pub const CONTROL_MESSAGES: u32 = 1_024;
/// Its window.
pub const CONTROL_WINDOW: Duration = Duration::from_secs(10);

/// Factor for networks with private addresses: a server sees those in its own network, where strangers do not come, or
/// when a container's port forwarding makes all players come from one address.
const PRIVATE_FACTOR: u32 = 16;

/// Entries of a limiter's table, at about 50 bytes each: as many sources as a server of this size has players.
const CAPACITY: usize = 1 << 16;

/// Counts requests of each `K` in windows.
#[derive(Debug)]
pub struct Limiter<K> {
    window: Duration,
    ends: Option<Instant>,
    counts: BTreeMap<K, u32>,
    capacity: usize,
}

impl<K: Ord> Limiter<K> {
    /// One with an empty table.
    pub fn new(window: Duration) -> Self {
        Self::with_capacity(window, CAPACITY)
    }

    fn with_capacity(window: Duration, capacity: usize) -> Self {
        Self {
            window,
            ends: None,
            counts: BTreeMap::new(),
            capacity,
        }
    }

    /// Counts a request of `key`; true if it is within `limit` for this window.
    pub fn allow(&mut self, now: Instant, key: K, limit: u32) -> bool {
        if self.ends.is_none_or(|ends| now >= ends) {
            self.ends = Some(now + self.window);
            self.counts.clear();
        }
        if self.counts.len() >= self.capacity && !self.counts.contains_key(&key) {
            return false;
        }
        let count = self.counts.entry(key).or_insert(0);
        *count = count.saturating_add(1);
        *count <= limit
    }
}

/// Limits for something that nodes do: by key and by network. Loopback has no limit by network: whoever is on the
/// machine itself need not go through the server to harm it, and tests and benchmarks run thousands of nodes there.
#[derive(Debug)]
pub struct NodeLimits {
    keys: Limiter<Guid>,
    networks: Limiter<Network>,
    per_key: u32,
    per_network: u32,
}

impl NodeLimits {
    /// Limits for registrations.
    pub fn registrations() -> Self {
        Self::new(REGISTRATION_WINDOW, REGISTRATIONS_PER_KEY, REGISTRATIONS_PER_NETWORK)
    }

    /// Limits for open-NAT requests.
    pub fn open_nat() -> Self {
        Self::new(OPEN_NAT_WINDOW, OPEN_NAT_PER_KEY, OPEN_NAT_PER_NETWORK)
    }

    /// Limits for relay requests.
    pub fn relay_requests() -> Self {
        Self::new(RELAY_WINDOW, RELAY_REQUESTS_PER_KEY, RELAY_REQUESTS_PER_NETWORK)
    }

    /// Limits for tickets.
    pub fn tickets() -> Self {
        Self::new(TICKET_WINDOW, TICKETS_PER_KEY, TICKETS_PER_NETWORK)
    }

    fn new(window: Duration, per_key: u32, per_network: u32) -> Self {
        Self {
            keys: Limiter::new(window),
            networks: Limiter::new(window),
            per_key,
            per_network,
        }
    }

    /// Counts one; true if neither limit is exceeded. What the key's own limit turns down does not count against its
    /// network.
    pub fn allow(&mut self, now: Instant, guid: Guid, ip: IpAddr) -> bool {
        if !self.keys.allow(now, guid, self.per_key) {
            return false;
        }
        let limit = match scope(ip) {
            Scope::Loopback => return true,
            Scope::Private => self.per_network * PRIVATE_FACTOR,
            Scope::Global | Scope::Unusable => self.per_network,
        };
        self.networks.allow(now, Network::of(ip), limit)
    }
}

/// Limits for answers to addresses that nothing has proven. They hold for everyone, loopback too.
#[derive(Debug)]
pub struct StunLimits {
    larger: AnswerLimits,
    padded: AnswerLimits,
}

#[derive(Debug)]
struct AnswerLimits {
    addresses: Limiter<IpAddr>,
    networks: Limiter<Network>,
    per_address: u32,
    per_network: u32,
}

impl StunLimits {
    /// With empty tables.
    pub fn new() -> Self {
        let limits = |per_address, per_network| AnswerLimits {
            addresses: Limiter::new(STUN_WINDOW),
            networks: Limiter::new(STUN_WINDOW),
            per_address,
            per_network,
        };
        Self {
            larger: limits(STUN_PER_ADDRESS, STUN_PER_NETWORK),
            padded: limits(STUN_PADDED_PER_ADDRESS, STUN_PADDED_PER_NETWORK),
        }
    }

    /// Counts one answer to `ip`, which is `padded` if it is no larger than its request; true if it may be sent. What the address'
    /// own limit turns down does not count against its network.
    pub fn allow(&mut self, now: Instant, ip: IpAddr, padded: bool) -> bool {
        let limits = if padded { &mut self.padded } else { &mut self.larger };
        limits.addresses.allow(now, ip, limits.per_address)
            && limits.networks.allow(now, Network::of(ip), limits.per_network)
    }
}

/// Counts one node's control messages.
#[derive(Debug, Clone, Copy)]
pub struct ControlBudget {
    ends: Instant,
    used: u32,
}

impl ControlBudget {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self {
            ends: now + CONTROL_WINDOW,
            used: 0,
        }
    }

    /// Counts a message; true if it is within the limit.
    pub fn allow(&mut self, now: Instant) -> bool {
        if now >= self.ends {
            *self = Self::new(now);
        }
        self.used = self.used.saturating_add(1);
        self.used <= CONTROL_MESSAGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(mut attempt: impl FnMut() -> bool, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(attempt())).sum()
    }

    #[test]
    fn a_window_grants_its_limit_and_the_next_one_again() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Duration::from_secs(1));
        assert_eq!(granted(|| limiter.allow(start, 1, 5), 50), 5);
        assert_eq!(granted(|| limiter.allow(start, 2, 5), 3), 3);
        let later = start + Duration::from_millis(999);
        assert_eq!(granted(|| limiter.allow(later, 1, 5), 50), 0);
        let next = start + Duration::from_secs(1);
        assert_eq!(granted(|| limiter.allow(next, 1, 5), 50), 5);
    }

    #[test]
    fn a_full_table_turns_strangers_down_and_keeps_those_it_knows() {
        let start = Instant::now();
        let mut limiter = Limiter::with_capacity(Duration::from_secs(1), 4);
        for key in 0..4 {
            assert!(limiter.allow(start, key, 2));
        }
        assert!(!limiter.allow(start, 4, 2));
        assert!(limiter.allow(start, 3, 2));
        assert_eq!(limiter.counts.len(), 4);
        assert!(limiter.allow(start + Duration::from_secs(1), 4, 2));
    }

    #[test]
    fn stun_is_limited_by_address_and_by_network() {
        let start = Instant::now();
        for (padded, per_address, per_network) in [
            (false, STUN_PER_ADDRESS, STUN_PER_NETWORK),
            (true, STUN_PADDED_PER_ADDRESS, STUN_PADDED_PER_NETWORK),
        ] {
            let mut limits = StunLimits::new();
            let address = |last: u8| IpAddr::from([203, 0, 113, last]);
            assert_eq!(granted(|| limits.allow(start, address(1), padded), 1_000), per_address);
            let mut others = 0;
            for last in 2..=255 {
                others += granted(|| limits.allow(start, address(last), padded), per_address / 4);
            }
            assert_eq!(others, per_network - per_address);
            assert!(limits.allow(start, IpAddr::from([203, 0, 114, 1]), padded));
            let loopback = IpAddr::from([127, 0, 0, 1]);
            assert_eq!(granted(|| limits.allow(start, loopback, padded), 1_000), per_address);
            // The one kind does not use up the other.
            assert!(limits.allow(start, address(1), !padded));
        }
    }

    #[test]
    fn ten_thousand_nodes_of_the_machine_itself_may_register_at_once() {
        let start = Instant::now();
        let mut limits = NodeLimits::registrations();
        let ip = IpAddr::from([127, 0, 0, 1]);
        assert!((0..10_000).all(|node| limits.allow(start, Guid(node + 1), ip)));
        // One key is limited even there.
        assert_eq!(
            granted(|| limits.allow(start, Guid(1), ip), 100),
            REGISTRATIONS_PER_KEY - 1
        );
    }

    #[test]
    fn networks_are_limited_private_ones_later() {
        let start = Instant::now();
        let mut limits = NodeLimits::open_nat();
        let mut guid = 0;
        let mut count = |ip: [u8; 4], tries: u32| {
            granted(
                || {
                    guid += 1;
                    limits.allow(start, Guid(guid), IpAddr::from(ip))
                },
                tries,
            )
        };
        assert_eq!(count([203, 0, 113, 1], OPEN_NAT_PER_NETWORK + 50), OPEN_NAT_PER_NETWORK);
        assert_eq!(count([203, 0, 113, 200], 5), 0);
        assert_eq!(
            count([192, 168, 0, 1], OPEN_NAT_PER_NETWORK + 50),
            OPEN_NAT_PER_NETWORK + 50
        );
    }

    #[test]
    fn a_node_has_a_budget_of_control_messages() {
        let start = Instant::now();
        let mut budget = ControlBudget::new(start);
        assert_eq!(granted(|| budget.allow(start), CONTROL_MESSAGES + 10), CONTROL_MESSAGES);
        assert!(budget.allow(start + CONTROL_WINDOW));
    }
}
