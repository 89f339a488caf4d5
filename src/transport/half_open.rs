//! Incoming handshakes that are not done yet: who may begin one, and what is sent before its source is proven.
//!
//! In: where an Initial came from ([`Origin`]) and whether it shows the token of a Retry. Out: accept, ask for a token (Retry), or drop.
//!
//! A few handshakes at a time are accepted at once, so that connecting usually takes no extra round trip. Beyond, a newcomer has to show
//! with a Retry's token that it receives what is sent to its address: made-up addresses then cost nothing but the Retry. Handshakes from
//! proven addresses have a bound of their own, and one for each network, so that one network cannot lock the others out. Sources that
//! the engine trusts (a way that authenticated probes verified) count towards neither.
//!
//! Until its source is proven, a handshake sends no more bytes than it received ([`Budget`]). Repeats are paid for by the
//! other side's own repeats, which are full-sized.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::hmac;

use super::{LinkKind, SyntheticAddress};
use crate::engine::SocketName;

/// Handshakes from unproven addresses at a time, about 30 kB each; more are asked for a token first. Honest ones take one round trip:
/// at 100 ms this is 640 newcomers a second without a Retry.
pub(super) const MAX_UNPROVEN: usize = 64;
/// Of them from one network. An office or a school behind one address starts a game together.
pub(super) const MAX_UNPROVEN_OF_NETWORK: u16 = 16;
/// Handshakes from addresses that showed a token, at a server: its restart brings thousands of nodes back within seconds.
pub(super) const MAX_PROVEN_SERVER: usize = 1024;
/// The same at a player, whom strangers seldom dial.
pub(super) const MAX_PROVEN_PEER: usize = 128;
/// Of them from one network: 640 a second at 100 ms for a provider's whole /24.
pub(super) const MAX_PROVEN_OF_NETWORK: u16 = 64;
/// Of a trusted source; more count as a stranger's, because a source address can be forged. Both sides dial, and a dial may be repeated.
pub(super) const MAX_TRUSTED_OF_ADDRESS: u16 = 4;
/// Handshakes of trusted sources beyond `max_links`: links of strangers must not lock introduced peers out.
pub(super) const TRUSTED_RESERVE: usize = 32;
/// A handshake from an unproven address that takes longer is given up: four repeats of a lost packet fit.
pub(super) const UNPROVEN_TIME: Duration = Duration::from_secs(3);
/// How long a Retry's token is good: an honest client shows it a round trip later, and repeats it while it dials.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(15);
/// Largest datagram of a handshake, ours and theirs (RFC 9000 §14.1).
const DATAGRAM: u64 = 1200;

/// See [`address_of`](super::Transport::address_of).
pub(super) fn stranger_address(key: &hmac::Key, socket: SocketName, source: SocketAddr) -> SyntheticAddress {
    let mut context = hmac::Context::with_key(key);
    let (kind, number) = match socket {
        SocketName::Udp4 => (0, 0),
        SocketName::Udp6 => (1, 0),
        SocketName::Birthday(number) => (2, number.into()),
        SocketName::Tunnel(number) => (3, number),
        SocketName::Listen(number) => (4, number.into()),
        SocketName::Relay(number) => (5, number),
    };
    context.update(&[kind]);
    context.update(&u32::to_be_bytes(number));
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    context.update(&ip.octets());
    context.update(&source.port().to_be_bytes());
    let mut octets = [0; 16];
    octets.copy_from_slice(&context.sign().as_ref()[..16]);
    octets[0] = 0xfd;
    SyntheticAddress(octets.into())
}

/// What the engine knows of the source of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The source has proven that it receives what is sent there: probes verified it, or a handshake did.
    pub trusted: bool,
    /// The source's address; `None`: no limit by network.
    pub ip: Option<IpAddr>,
    /// Several synthetic addresses lead to that source: a datagram of a connection with another of them counts for it. (Who sent it is proven
    /// by its encryption.)
    pub shared: bool,
}

/// An IPv4 /24 or an IPv6 /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network(u128);

impl Network {
    /// `None` for loopback and private addresses: behind a container's port forwarding all players come from one address, and nobody
    /// on the internet can use them.
    fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() || ip.is_link_local() => None,
            IpAddr::V4(ip) => Some(Self(ip.to_ipv6_mapped().to_bits() >> 8 << 8)),
            IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => None,
            IpAddr::V6(ip) => Some(Self(ip.to_bits() >> 72 << 72)),
        }
    }
}

/// What a handshake was accepted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Unproven(Option<Network>),
    Proven(Option<Network>),
    Trusted,
}

/// What to do with an Initial.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept(Class),
    Retry,
    Drop,
}

/// The handshakes that run.
pub(super) struct HalfOpen {
    max_proven: usize,
    unproven: usize,
    proven: usize,
    /// Unproven and proven ones of each network that has any.
    networks: BTreeMap<Network, [u16; 2]>,
    trusted: BTreeMap<SyntheticAddress, u16>,
}

impl HalfOpen {
    pub(super) fn new(accepts: Option<LinkKind>) -> Self {
        Self {
            max_proven: match accepts {
                Some(LinkKind::Server) => MAX_PROVEN_SERVER,
                _ => MAX_PROVEN_PEER,
            },
            unproven: 0,
            proven: 0,
            networks: BTreeMap::new(),
            trusted: BTreeMap::new(),
        }
    }

    /// What to do with an Initial. `settled`: links that are no incoming handshakes.
    pub(super) fn judge(
        &self,
        address: SyntheticAddress,
        origin: Origin,
        shows_token: bool,
        settled: usize,
        max_links: usize,
    ) -> Verdict {
        if origin.trusted
            && self.trusted.get(&address).copied().unwrap_or(0) < MAX_TRUSTED_OF_ADDRESS
            && settled + self.trusted.len() < max_links.saturating_add(TRUSTED_RESERVE)
        {
            return Verdict::Accept(Class::Trusted);
        }
        if settled >= max_links {
            return Verdict::Drop;
        }
        let network = origin.ip.and_then(Network::of);
        let of_network = network.and_then(|network| self.networks.get(&network));
        let [unproven, proven] = of_network.copied().unwrap_or_default();
        if shows_token {
            if self.proven < self.max_proven && proven < MAX_PROVEN_OF_NETWORK {
                return Verdict::Accept(Class::Proven(network));
            }
            return Verdict::Drop;
        }
        if self.unproven < MAX_UNPROVEN && unproven < MAX_UNPROVEN_OF_NETWORK {
            return Verdict::Accept(Class::Unproven(network));
        }
        Verdict::Retry
    }

    /// A handshake began.
    pub(super) fn add(&mut self, address: SyntheticAddress, class: Class) {
        match class {
            Class::Unproven(network) => {
                self.unproven += 1;
                self.count_network(network, 0);
            }
            Class::Proven(network) => {
                self.proven += 1;
                self.count_network(network, 1);
            }
            Class::Trusted => *self.trusted.entry(address).or_default() += 1,
        }
    }

    fn count_network(&mut self, network: Option<Network>, which: usize) {
        if let Some(network) = network {
            self.networks.entry(network).or_default()[which] += 1;
        }
    }

    /// A handshake ended, one way or the other.
    pub(super) fn remove(&mut self, address: SyntheticAddress, class: Class) {
        match class {
            Class::Unproven(network) => {
                self.unproven -= 1;
                self.forget_network(network, 0);
            }
            Class::Proven(network) => {
                self.proven -= 1;
                self.forget_network(network, 1);
            }
            Class::Trusted => {
                if let Some(count) = self.trusted.get_mut(&address) {
                    *count -= 1;
                    if *count == 0 {
                        self.trusted.remove(&address);
                    }
                }
            }
        }
    }

    fn forget_network(&mut self, network: Option<Network>, which: usize) {
        if let Some(network) = network
            && let Some(counts) = self.networks.get_mut(&network)
        {
            counts[which] -= 1;
            if *counts == [0, 0] {
                self.networks.remove(&network);
            }
        }
    }

    /// Nothing is counted any more.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.unproven + self.proven + self.trusted.len() + self.networks.len() == 0
    }
}

/// Bytes in and out of a link whose other side is not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Budget {
    /// Full datagrams that may be sent now.
    pub(super) fn datagrams(self) -> usize {
        (self.received.saturating_sub(self.sent) / DATAGRAM) as usize
    }
}

/// The engine's time for quinn's tokens: what has passed since the first call.
#[derive(Debug, Default)]
pub(super) struct TokenClock(Mutex<Option<(Instant, Duration)>>);

impl TokenClock {
    /// Time passed.
    pub(super) fn set(&self, now: Instant) {
        if let Ok(mut time) = self.0.lock() {
            let (start, _) = time.unwrap_or((now, Duration::ZERO));
            *time = Some((start, now.saturating_duration_since(start)));
        }
    }
}

impl quinn_proto::TimeSource for TokenClock {
    fn now(&self) -> SystemTime {
        let passed = self.0.lock().ok().and_then(|time| *time);
        UNIX_EPOCH + passed.map_or(Duration::ZERO, |(_, passed)| passed)
    }
}
