//! What attempts to open a way cost: probes, counted from outside, where no engine can forget one.
//!
//! In: every datagram that a host sends or receives. Out: for each attempt how many addresses it sent requests to, from how many
//! sockets, how many to each; and the busiest second of the host. Answers are not counted: they are never larger than what they answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::SocketName;
use crate::wire::probe::{PADDED_PROBE, PLAIN_PROBE, REQUEST_BYTE, RESPONSE_BYTE};

/// Where the number of the introduction stands in a probe.
const INTRODUCTION: std::ops::Range<usize> = 21..29;
/// Rates are of probes in this time.
const SECOND: Duration = Duration::from_secs(1);

/// The probes of one host.
#[derive(Debug, Clone, Default)]
pub struct HostProbes {
    attempts: BTreeMap<u64, AttemptProbes>,
    recent: VecDeque<Duration>,
    busiest: usize,
}

/// Requests of one attempt to addresses that had not been heard of when they were sent.
#[derive(Debug, Clone, Default)]
pub struct AttemptProbes {
    sent: BTreeMap<(SocketName, SocketAddr), Sent>,
    heard: BTreeSet<SocketAddr>,
    first: Option<Duration>,
    last: Duration,
}

/// What went from one socket to one address.
#[derive(Debug, Clone, Copy)]
struct Sent {
    count: u32,
    first: Duration,
    /// The first one was small: the address was searched or foreseen. What is named or heard is begun with a padded one.
    searched: bool,
    /// Any one was padded.
    padded: bool,
}

impl AttemptProbes {
    fn of_pool(&self) -> impl Iterator<Item = (&(SocketName, SocketAddr), &Sent)> {
        let is_pool = |name| matches!(name, SocketName::Birthday(_));
        self.sent.iter().filter(move |((name, _), _)| is_pool(*name))
    }

    fn of_own(&self, pool_too: bool) -> impl Iterator<Item = (SocketAddr, &Sent)> {
        let counts = move |name| pool_too || !matches!(name, SocketName::Birthday(_));
        let sent = self.sent.iter().filter(move |((name, _), _)| counts(*name));
        sent.map(|((_, address), sent)| (*address, sent))
    }

    /// Requests to each address (IP and port), from the node's own sockets alone or from all.
    fn by_address(&self, pool_too: bool) -> BTreeMap<SocketAddr, u32> {
        let mut by_address = BTreeMap::new();
        for (address, sent) in self.of_own(pool_too) {
            *by_address.entry(address).or_default() += sent.count;
        }
        by_address
    }

    /// Requests in all.
    pub fn packets(&self) -> u32 {
        self.sent.values().map(|sent| sent.count).sum()
    }

    /// Addresses (IP and port) that the node's own sockets, or with `pool_too` all sockets, sent to.
    pub fn addresses(&self, pool_too: bool) -> usize {
        self.by_address(pool_too).len()
    }

    /// Most requests to one of those addresses.
    pub fn most_to_an_address(&self, pool_too: bool) -> u32 {
        self.by_address(pool_too).into_values().max().unwrap_or(0)
    }

    /// Addresses that were named or showed themselves: those that full-size requests went to.
    pub fn plain_addresses(&self) -> usize {
        let plain = self.of_own(true).filter(|(_, sent)| sent.padded);
        plain.map(|(address, _)| address).collect::<BTreeSet<_>>().len()
    }

    /// Addresses that were foreseen or searched: those where a small request was the first. From the node's own sockets, or from all.
    pub fn searched_addresses(&self, pool_too: bool) -> usize {
        self.searched(pool_too).len()
    }

    /// Most of these within any second.
    pub fn busiest_second_of_search(&self, pool_too: bool) -> usize {
        let mut times: Vec<Duration> = self.searched(pool_too).into_values().collect();
        times.sort_unstable();
        let (mut recent, mut busiest) = (VecDeque::new(), 0);
        for time in times {
            count_within_a_second(&mut recent, &mut busiest, time);
        }
        busiest
    }

    /// With the time of the first request to each.
    fn searched(&self, pool_too: bool) -> BTreeMap<SocketAddr, Duration> {
        let mut first = BTreeMap::new();
        for (address, sent) in self.of_own(pool_too).filter(|(_, sent)| sent.searched) {
            let time = first.entry(address).or_insert(sent.first);
            *time = sent.first.min(*time);
        }
        first
    }

    /// Sockets of the pool that sent.
    pub fn pool_sockets(&self) -> usize {
        let names: BTreeSet<SocketName> = self.of_pool().map(|((name, _), _)| *name).collect();
        names.len()
    }

    /// Most requests from one socket of the pool, to whatever addresses.
    pub fn most_from_a_pool_socket(&self) -> u32 {
        let mut by_socket: BTreeMap<SocketName, u32> = BTreeMap::new();
        for ((name, _), sent) in self.of_pool() {
            *by_socket.entry(*name).or_default() += sent.count;
        }
        by_socket.into_values().max().unwrap_or(0)
    }

    /// From the first request to the last.
    pub fn took(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| self.last - first)
    }
}

impl HostProbes {
    /// By introduction.
    pub fn attempts(&self) -> impl Iterator<Item = &AttemptProbes> {
        self.attempts.values()
    }

    /// Most requests within any second, of all attempts together.
    pub fn busiest_second(&self) -> usize {
        self.busiest
    }

    pub(super) fn sent(&mut self, now: Duration, socket: SocketName, destination: SocketAddr, contents: &[u8]) {
        let Some(introduction) = introduction(contents).filter(|_| contents[0] == REQUEST_BYTE) else {
            return;
        };
        let attempt = self.attempts.entry(introduction).or_default();
        if attempt.heard.contains(&destination) {
            return;
        }
        let padded = contents.len() >= PADDED_PROBE;
        let sent = attempt.sent.entry((socket, destination)).or_insert(Sent {
            count: 0,
            first: now,
            searched: !padded,
            padded,
        });
        sent.count += 1;
        sent.padded |= padded;
        attempt.first.get_or_insert(now);
        attempt.last = now;
        count_within_a_second(&mut self.recent, &mut self.busiest, now);
    }

    pub(super) fn received(&mut self, source: SocketAddr, contents: &[u8]) {
        if let Some(introduction) = introduction(contents) {
            self.attempts.entry(introduction).or_default().heard.insert(source);
        }
    }
}

fn count_within_a_second(recent: &mut VecDeque<Duration>, busiest: &mut usize, now: Duration) {
    while recent.front().is_some_and(|time| *time + SECOND <= now) {
        recent.pop_front();
    }
    recent.push_back(now);
    *busiest = (*busiest).max(recent.len());
}

/// The attempt that a datagram belongs to, if it is a probe.
fn introduction(contents: &[u8]) -> Option<u64> {
    let is_probe = contents.len() >= PLAIN_PROBE && matches!(contents[0], REQUEST_BYTE | RESPONSE_BYTE);
    let bytes = contents.get(INTRODUCTION).filter(|_| is_probe)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
