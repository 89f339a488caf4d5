//! What punching may send at most: every number with its reason, and counters that prove it.
//!
//! Whoever is introduced can be made to send packets to addresses that the other side names. So everything that nobody has answered is
//! bounded: for an address (IP and port), for an attempt, for the node.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Packets to an address that has not answered: the series of [`super::series`], shared by all sockets.
pub const PLAIN_PACKETS: u8 = 10;
/// Addresses of one attempt, those learned included: a full list of candidates, and as many again that show themselves.
pub const PLAIN_ADDRESSES: usize = 32;
/// Predicted addresses of one attempt: three rounds of about twenty.
pub const PREDICTED_ADDRESSES: usize = 64;
/// Time between two ports of a birthday attempt: 250 a second. How many there are at most, and how many sockets, is with the permit
/// ([`BirthdayPermit`](crate::wire::introduction::BirthdayPermit)).
pub const BIRTHDAY_INTERVAL: Duration = Duration::from_millis(4);
/// Packets from each socket that opens mappings towards a prober.
pub const OPENER_PACKETS: u8 = 3;
/// Probes a second, for the node as a whole: with [`NODE_BURST`] no second ever sees more than 500.
pub const NODE_RATE: f64 = 350.0;
/// Probes that may leave at once: the first volley to four peers with a full list of candidates each.
pub const NODE_BURST: f64 = 150.0;

/// The most that was sent of each kind, in any attempt of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeCounters {
    /// Packets to one address that had not answered, whatever they were for, 10 at most; those of openers apart.
    pub packets_to_an_address: u32,
    /// Addresses of one attempt, at most 32.
    pub addresses: u32,
    /// Predicted addresses of one attempt, at most 64.
    pub predicted: u32,
    /// Ports of one birthday attempt, at most 2,048 and what the permit says.
    pub birthday_ports: u32,
    /// Birthday probes of one attempt within a second, at most 250.
    pub birthday_in_a_second: u32,
    /// Sockets of one attempt that opened mappings for a birthday, at most 256 and what the permit says.
    pub opener_sockets: u32,
    /// Packets from one of them, at most 3.
    pub opener_packets: u32,
    /// Packets of the node within a second, at most 500. Answers are not among them: those are no larger than what they answer.
    pub in_a_second: u32,
}

impl ProbeCounters {
    /// Takes the larger of each.
    pub fn raise_to(&mut self, other: &Self) {
        let pairs = [
            (&mut self.packets_to_an_address, other.packets_to_an_address),
            (&mut self.addresses, other.addresses),
            (&mut self.predicted, other.predicted),
            (&mut self.birthday_ports, other.birthday_ports),
            (&mut self.birthday_in_a_second, other.birthday_in_a_second),
            (&mut self.opener_sockets, other.opener_sockets),
            (&mut self.opener_packets, other.opener_packets),
            (&mut self.in_a_second, other.in_a_second),
        ];
        for (mine, theirs) in pairs {
            *mine = theirs.max(*mine);
        }
    }
}

/// Packets that went to each address which has not answered.
#[derive(Debug, Default)]
pub struct Unanswered(BTreeMap<SocketAddr, u8>);

impl Unanswered {
    /// Counts one more packet; false: the address has had its share.
    pub fn spend(&mut self, address: SocketAddr, counters: &mut ProbeCounters) -> bool {
        let count = self.0.entry(address).or_default();
        if *count >= PLAIN_PACKETS {
            return false;
        }
        *count += 1;
        counters.packets_to_an_address = counters.packets_to_an_address.max(u32::from(*count));
        true
    }

    /// The ports at that IP address that were sent to.
    pub fn ports_at(&self, ip: IpAddr) -> impl Iterator<Item = u16> + '_ {
        let range = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        self.0.range(range).map(|(address, _)| address.port())
    }
}

/// Time for which the node remembers what it sent to an address: an attempt's. Whoever has it introduced again and again, or sends recorded
/// probes again, gets no more out of it than one attempt gives.
const REMEMBERED: Duration = Duration::from_secs(12);
/// An address that answered a probe of ours is nobody's victim for this long: as long as an opened path is held.
const PROVEN: Duration = Duration::from_secs(60);
/// Packets more to an address from which an authenticated probe came: enough to verify it, should two be lost. Its source may be forged.
const HEARD_PACKETS: u8 = 4;
/// Addresses that are remembered: those of all attempts that can run at once, and learned ones.
const REMEMBERED_ADDRESSES: usize = 8_192;

/// What the node as a whole sent lately to addresses that have not proven that somebody there answers.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<SocketAddr, Remembered>);

#[derive(Debug, Clone, Copy)]
struct Remembered {
    packets: u8,
    since: Instant,
    proven_until: Option<Instant>,
}

impl Remembered {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + REMEMBERED && self.proven_until.is_none_or(|until| now >= until)
    }
}

impl Ledger {
    /// Counts one more packet; false: the address has had its share for now. `heard`: an authenticated probe came from there.
    pub fn spend(&mut self, now: Instant, address: SocketAddr, heard: bool) -> bool {
        if self.0.len() >= REMEMBERED_ADDRESSES && !self.0.contains_key(&address) {
            self.0.retain(|_, remembered| !remembered.is_over(now));
            if self.0.len() >= REMEMBERED_ADDRESSES {
                return false;
            }
        }
        let fresh = Remembered {
            packets: 0,
            since: now,
            proven_until: None,
        };
        let remembered = self.0.entry(address).or_insert(fresh);
        if remembered.is_over(now) {
            *remembered = fresh;
        }
        if remembered.proven_until.is_some_and(|until| now < until) {
            return true;
        }
        let share = PLAIN_PACKETS + if heard { HEARD_PACKETS } else { 0 };
        if remembered.packets >= share {
            return false;
        }
        remembered.packets += 1;
        true
    }

    /// A probe of ours was answered from there.
    pub fn proven(&mut self, now: Instant, address: SocketAddr) {
        if let Some(remembered) = self.0.get_mut(&address) {
            remembered.proven_until = Some(now + PROVEN);
        }
    }
}

/// How many there were within the last second.
#[derive(Debug, Default)]
pub struct SecondWindow(VecDeque<Instant>);

impl SecondWindow {
    /// Counts one more; says how many there were within a second.
    pub fn count(&mut self, now: Instant) -> u32 {
        const SECOND: Duration = Duration::from_secs(1);
        while self.0.front().is_some_and(|at| *at + SECOND <= now) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() as u32
    }
}

/// Holds the node's probing to its rate.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    filled_at: Instant,
    window: SecondWindow,
}

impl Bucket {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self {
            tokens: NODE_BURST,
            filled_at: now,
            window: SecondWindow::default(),
        }
    }

    /// Whether a probe may leave now.
    pub fn has_token(&mut self, now: Instant) -> bool {
        let elapsed = (now - self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * NODE_RATE).min(NODE_BURST);
        self.filled_at = now;
        self.tokens >= 1.0
    }

    /// A probe leaves.
    pub fn spend(&mut self, now: Instant, counters: &mut ProbeCounters) {
        self.tokens -= 1.0;
        counters.in_a_second = counters.in_a_second.max(self.window.count(now));
    }

    /// Time until the next token, when there is none.
    pub fn wait() -> Duration {
        Duration::from_secs_f64(1.0 / NODE_RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_ever_sees_more_than_five_hundred_probes() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let mut counters = ProbeCounters::default();
        for step in 0..50_000 {
            let now = start + Duration::from_micros(100 * step);
            while bucket.has_token(now) {
                bucket.spend(now, &mut counters);
            }
        }
        assert!((490..=500).contains(&counters.in_a_second), "{counters:?}");
    }

    #[test]
    fn an_address_gets_no_more_from_one_attempt_after_the_other() {
        let (start, mut ledger) = (Instant::now(), Ledger::default());
        let victim: SocketAddr = "198.51.100.7:1".parse().unwrap();
        let sent = |ledger: &mut Ledger, heard| {
            let tries = (0..1_200).filter(|step| ledger.spend(start + Duration::from_millis(10 * step), victim, heard));
            tries.count()
        };
        assert_eq!(sent(&mut ledger, false), 10);
        assert_eq!(
            sent(&mut ledger, true),
            4,
            "heard by then, perhaps from a forged source"
        );
        ledger.proven(start, victim);
        assert_eq!(sent(&mut ledger, false), 1_200, "somebody answers there");
        let later = start + PROVEN + REMEMBERED;
        let again = (0..100).filter(|_| ledger.spend(later, victim, false)).count();
        assert_eq!(again, 10);
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let (now, mut ledger) = (Instant::now(), Ledger::default());
        let address = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 9));
        let count = (0..20_000)
            .filter(|number| ledger.spend(now, address(*number), false))
            .count();
        assert_eq!(count, REMEMBERED_ADDRESSES);
        assert!(ledger.spend(now + REMEMBERED, address(30_000), false));
    }

    #[test]
    fn an_address_gets_ten_packets_whatever_socket_sends_them() {
        let (mut unanswered, mut counters) = (Unanswered::default(), ProbeCounters::default());
        let one = "198.51.100.7:1".parse().unwrap();
        let sent = (0..100).filter(|_| unanswered.spend(one, &mut counters)).count();
        assert_eq!((sent, counters.packets_to_an_address), (10, 10));
        assert!(unanswered.spend("198.51.100.7:2".parse().unwrap(), &mut counters));
    }
}
