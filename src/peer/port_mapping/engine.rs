//! Asking routers for a port: all protocols at once, renewing, noticing that a router forgot.
//!
//! In: wishes, answers of routers, time, [`Surroundings`] that changed. Out: [`Output`]s. Nothing here knows of the node.
//!
//! Decisions. All protocols are asked at the same time; of each address family the first that is granted counts. What the others grant is kept
//! silently and taken back together with it, never before: most routers keep one table for all their protocols, and taking
//! back what PCP gave would delete the very rule that UPnP reported first. Spares are not renewed; where they are rules of
//! their own they lapse with their lease. A request ends with the first IPv4 port; with an IPv6 pinhole alone only when
//! no IPv4 router is left to answer.
//!
//! A mapping that stands is renewed at half its life. If that is refused or not answered, if the router says that it restarted, or if the
//! machine's addresses changed, every protocol is asked anew; the old address is shown until the new one is known or
//! nobody answered. Then it is lost, which is said once, and sought again from time to time for as long as it is wanted.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::advice;
use crate::codes::{Code, MappingProtocol};
use crate::peer::api::nat::{FailedProtocol, MappedPort, MappingAnswer, MappingFailure, MappingId, MappingOrder};
use crate::peer::api::{Reason, RequestId};

/// Asked for: 10 minutes. A router that restarted without anybody noticing has the port again after half of that, and what a
/// killed game leaves behind is gone soon. Renewing costs one exchange in the home network.
pub const LIFETIME: u32 = 600;
/// A router may give less time, but renewals stay this far apart (RFC 6887, section 11.2.1).
const SHORTEST_RENEWAL: Duration = Duration::from_secs(4);
/// For a renewal, and for asking anew when nobody waits: the router is near and known, but may be busy restarting.
const BACKGROUND_TIME: Duration = Duration::from_secs(5);
/// Bounds of what a game may give as time-out: below, no router can answer; above, no player waits.
const SHORTEST_TIME: Duration = Duration::from_millis(100);
const LONGEST_TIME: Duration = Duration::from_secs(60);
/// The part of a round's time that the outside has: its answers, which say why, shall come before the round ends by itself.
const OUTSIDE_PART: f64 = 0.9;
/// External ports tried after the first was somebody else's. Of random ports a home has few taken: five in a row mean another fault.
const MAX_CONFLICTS: u8 = 5;
/// Where other external ports are chosen: those that no service is expected at.
const OTHER_PORTS: std::ops::RangeInclusive<u16> = 1024..=65535;
/// Waits before a lost mapping is sought again: a router takes half a minute to a few minutes to restart.
const FIRST_RETRY: Duration = Duration::from_secs(15);
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Steps told during a round: four ways to ask, a handful of steps each; more is a fault of the outside.
const MAX_PROGRESS: u32 = 64;

/// What a try needs to know of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The IPv4 socket that others shall reach.
    pub internal_v4: Option<SocketAddr>,
    /// The same for IPv6, with a global address.
    pub internal_v6: Option<SocketAddr>,
    /// Where the server sees the node.
    pub observed: Option<IpAddr>,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For the routers.
    Order(MappingOrder),
    /// A step, for the game.
    Progress {
        /// Of this request.
        request: RequestId,
        /// In words.
        text: String,
    },
    /// A port is forwarded.
    Mapped {
        /// The request that it ends; 0: made anew at another address.
        request: RequestId,
        /// The port.
        port: MappedPort,
    },
    /// No port is forwarded.
    Failed {
        /// The request that it ends; 0: what there was is lost.
        request: RequestId,
        /// Why.
        reason: Reason,
    },
    /// [`PortMapping::ports`] changed.
    Changed,
}

/// The ways to ask: a protocol and an address family.
const WAYS: [(MappingProtocol, bool); 4] = [
    (MappingProtocol::Upnp, false),
    (MappingProtocol::Pcp, false),
    (MappingProtocol::NatPmp, false),
    (MappingProtocol::Pcp, true),
];

/// An order that was not answered yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    id: MappingId,
    conflicts: u8,
    deadline: Instant,
}

/// What a router gave.
#[derive(Debug, Clone, Copy)]
struct Grant {
    external: SocketAddr,
    epoch: Option<u32>,
    granted: Instant,
    renew: Instant,
    /// The round in which it was given or last confirmed.
    round: u32,
}

#[derive(Debug)]
struct Way {
    protocol: MappingProtocol,
    ipv6: bool,
    asked: Option<Asked>,
    grant: Option<Grant>,
    /// The last order by this way that may have left something at a router.
    last_id: Option<MappingId>,
    failure: Option<(MappingFailure, String)>,
}

/// The engine.
#[derive(Debug)]
pub struct PortMapping {
    random: StdRng,
    next_id: MappingId,
    surroundings: Surroundings,
    ways: [Way; WAYS.len()],
    /// Which way counts, for IPv4 and IPv6.
    chosen: [Option<usize>; 2],
    ports: Vec<MappedPort>,
    waiting: Vec<(RequestId, Instant)>,
    /// A request of the game succeeded: the port is kept.
    wanted: bool,
    /// Others that need it for a while.
    borrowers: u32,
    /// All ways are being asked until then.
    round: Option<Instant>,
    rounds: u32,
    progress: u32,
    retry: Option<Instant>,
    retries: u32,
    outputs: Vec<Output>,
}

impl PortMapping {
    /// Nothing is mapped. `seed`: for external ports in place of taken ones.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            random: StdRng::from_seed(seed),
            next_id: 1,
            surroundings: Surroundings::default(),
            ways: WAYS.map(|(protocol, ipv6)| Way {
                protocol,
                ipv6,
                asked: None,
                grant: None,
                last_id: None,
                failure: None,
            }),
            chosen: [None; 2],
            ports: Vec::new(),
            waiting: Vec::new(),
            wanted: false,
            borrowers: 0,
            round: None,
            rounds: 0,
            progress: 0,
            retry: None,
            retries: 0,
            outputs: Vec::new(),
        }
    }

    /// Ports that routers forward now: at most one of each address family.
    pub fn ports(&self) -> &[MappedPort] {
        &self.ports
    }

    /// What is to be done and said, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// True while routers are being asked.
    pub fn is_asking(&self) -> bool {
        self.round.is_some()
    }

    /// What the ways said that failed in the last round.
    pub fn failures(&self) -> Vec<FailedProtocol> {
        let failed = |way: &Way| {
            let (why, text) = way.failure.clone()?;
            let protocol = way.protocol;
            Some(FailedProtocol { protocol, why, text })
        };
        self.ways.iter().filter_map(failed).collect()
    }

    /// A request of the game. A port that stands ends it at once; a running round is shared.
    pub fn ask(&mut self, now: Instant, request: RequestId, timeout: Duration) {
        let timeout = timeout.clamp(SHORTEST_TIME, LONGEST_TIME);
        self.waiting.push((request, now + timeout));
        if self.round.is_none() && self.ports.is_empty() {
            self.begin_round(now, timeout, None);
        }
        self.settle(now);
    }

    /// Somebody other than the game needs the port for a while, as one request.
    pub fn borrow(&mut self, now: Instant, timeout: Duration) {
        self.borrowers += 1;
        if self.round.is_none() && self.ports.is_empty() {
            self.begin_round(now, timeout.clamp(SHORTEST_TIME, LONGEST_TIME), None);
        }
        self.settle(now);
    }

    /// The end of a [`borrow`](Self::borrow).
    pub fn give_back(&mut self) {
        self.borrowers = self.borrowers.saturating_sub(1);
        self.withdraw_if_unwanted();
    }

    /// The game does not want that request's end any more.
    pub fn cancel(&mut self, request: RequestId, reason: Reason) {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != request);
        if self.waiting.len() < before {
            self.outputs.push(Output::Failed { request, reason });
            self.withdraw_if_unwanted();
        }
    }

    /// The node ends: everything is taken back.
    pub fn shut_down(&mut self, reason: &Reason) {
        for (request, _) in std::mem::take(&mut self.waiting) {
            let reason = reason.clone();
            self.outputs.push(Output::Failed { request, reason });
        }
        (self.wanted, self.borrowers) = (false, 0);
        self.withdraw_if_unwanted();
    }

    /// The node's sockets and addresses, as they are now.
    pub fn surroundings(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
        self.publish();
    }

    /// The machine's interfaces changed: everything is mapped anew.
    pub fn moved(&mut self, now: Instant) {
        if let Some(deadline) = self.round {
            self.begin_round(now, deadline.saturating_duration_since(now).max(SHORTEST_TIME), None);
        } else if self.is_wanted() {
            self.begin_round(now, BACKGROUND_TIME, None);
        }
        self.settle(now);
    }

    /// Something happened that comes with a router's restart (the session with the server broke): what stands is renewed at once.
    pub fn check(&mut self, now: Instant) {
        for way in self.chosen.into_iter().flatten() {
            if let Some(grant) = &mut self.ways[way].grant {
                grant.renew = grant.renew.min(now.max(grant.granted + SHORTEST_RENEWAL));
            }
        }
        if let Some(retry) = &mut self.retry {
            *retry = (*retry).min(now);
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted || self.borrowers > 0 || !self.waiting.is_empty()
    }

    fn withdraw_if_unwanted(&mut self) {
        if self.is_wanted() {
            return;
        }
        for way in &mut self.ways {
            way.asked = None;
            way.grant = None;
            if let Some(id) = way.last_id.take() {
                self.outputs.push(Output::Order(MappingOrder::Unmap { id }));
            }
        }
        (self.round, self.retry, self.retries) = (None, None, 0);
        self.chosen = [None; 2];
        self.publish();
    }

    /// Asks by every way that the node's sockets allow, but by the one that has just answered.
    fn begin_round(&mut self, now: Instant, time: Duration, answered: Option<usize>) {
        self.rounds = self.rounds.wrapping_add(1);
        self.round = Some(now + time);
        (self.retry, self.progress) = (None, 0);
        for way in 0..self.ways.len() {
            self.ways[way].asked = None;
            self.ways[way].failure = None;
            let before = self.ways[way].grant.map(|grant| grant.external.port());
            if let Some(internal) = self.internal(way).filter(|_| answered != Some(way)) {
                self.order(now, way, before.unwrap_or(internal.port()), 0, now + time);
            }
        }
    }

    fn internal(&self, way: usize) -> Option<SocketAddr> {
        if self.ways[way].ipv6 {
            self.surroundings.internal_v6
        } else {
            self.surroundings.internal_v4
        }
    }

    fn order(&mut self, now: Instant, way: usize, external: u16, conflicts: u8, deadline: Instant) {
        let Some(internal) = self.internal(way) else { return };
        let id = self.next_id;
        self.next_id = id.wrapping_add(1).max(1);
        self.ways[way].asked = Some(Asked {
            id,
            conflicts,
            deadline,
        });
        self.ways[way].last_id = Some(id);
        self.outputs.push(Output::Order(MappingOrder::Map {
            id,
            protocol: self.ways[way].protocol,
            internal,
            external,
            lifetime: LIFETIME,
            timeout: deadline.saturating_duration_since(now).mul_f64(OUTSIDE_PART),
        }));
    }

    fn asked(&self, id: MappingId) -> Option<usize> {
        let is_it = |way: &Way| way.asked.is_some_and(|asked| asked.id == id);
        self.ways.iter().position(is_it)
    }

    /// A router said something. What belongs to an order that is over, or never was, changes nothing.
    pub fn answer(&mut self, now: Instant, answer: MappingAnswer) {
        match answer {
            MappingAnswer::Progress { id, text } => {
                if self.asked(id).is_some() && self.round.is_some() && self.progress < MAX_PROGRESS {
                    self.progress += 1;
                    for (request, _) in &self.waiting {
                        let (request, text) = (*request, text.clone());
                        self.outputs.push(Output::Progress { request, text });
                    }
                }
            }
            MappingAnswer::Granted {
                id,
                external,
                lifetime,
                epoch,
            } => {
                if let Some(way) = self.asked(id) {
                    self.granted(now, way, external, lifetime, epoch);
                }
            }
            MappingAnswer::Failed { id, why, text } => {
                if let Some(way) = self.asked(id) {
                    self.failed(now, way, why, text);
                }
            }
        }
        self.settle(now);
    }

    fn granted(&mut self, now: Instant, way: usize, external: SocketAddr, lifetime: u32, epoch: Option<u32>) {
        let external = SocketAddr::new(external.ip().to_canonical(), external.port());
        let entry = &mut self.ways[way];
        if let Some(absurd) = absurdity(entry.protocol, entry.ipv6, external, lifetime) {
            // Not taken back by itself: it may be the same rule as another protocol's, which makes sense.
            let text = format!("the router's answer is absurd: {absurd}");
            // 0.0.0.0 is how some say that they have none.
            let why = if external.is_ipv4() && external.ip().is_unspecified() {
                MappingFailure::NoPublicAddress
            } else {
                MappingFailure::Refused
            };
            return self.failed(now, way, why, text);
        }
        entry.asked = None;
        let before = entry.grant;
        let seconds = if lifetime == 0 {
            LIFETIME
        } else {
            lifetime.min(LIFETIME)
        };
        entry.grant = Some(Grant {
            external,
            epoch,
            granted: now,
            renew: now + (Duration::from_secs(seconds.into()) / 2).max(SHORTEST_RENEWAL),
            round: self.rounds,
        });
        let restarted = before.is_some_and(|before| forgot(now, &before, epoch));
        let family = usize::from(entry.ipv6);
        let current = self.chosen[family].and_then(|chosen| self.ways[chosen].grant);
        if current.is_none_or(|grant| grant.round != self.rounds) {
            self.chosen[family] = Some(way);
        }
        if restarted && self.round.is_none() {
            // This one is there again; what the others gave is not.
            self.begin_round(now, BACKGROUND_TIME, Some(way));
            if let Some(grant) = &mut self.ways[way].grant {
                grant.round = self.rounds;
            }
        }
        self.publish();
        (self.retry, self.retries) = (None, 0);
    }

    fn failed(&mut self, now: Instant, way: usize, why: MappingFailure, text: String) {
        let Some(asked) = self.ways[way].asked.take() else {
            return;
        };
        if why == MappingFailure::Conflict && asked.conflicts < MAX_CONFLICTS && now < asked.deadline {
            let external = self.random.random_range(OTHER_PORTS);
            return self.order(now, way, external, asked.conflicts + 1, asked.deadline);
        }
        self.ways[way].failure = Some((why, text));
        if self.round.is_none() {
            // A renewal.
            self.begin_round(now, BACKGROUND_TIME, None);
        }
    }

    /// When time matters next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.ways.iter().filter_map(|way| way.asked).map(|asked| asked.deadline);
        let waiting = self.waiting.iter().map(|(_, deadline)| *deadline);
        let renewals = self.chosen.iter().flatten().filter_map(|way| self.renewal_of(*way));
        let rest = [self.round, self.retry].into_iter().flatten();
        asked.chain(waiting).chain(renewals).chain(rest).min()
    }

    fn renewal_of(&self, way: usize) -> Option<Instant> {
        let way = &self.ways[way];
        let free = self.round.is_none() && way.asked.is_none();
        way.grant.filter(|_| free).map(|grant| grant.renew)
    }

    /// Time went on.
    pub fn handle_timeout(&mut self, now: Instant) {
        for way in 0..self.ways.len() {
            if self.ways[way].asked.is_some_and(|asked| asked.deadline <= now) {
                self.failed(now, way, MappingFailure::Silent, "no answer in time".to_owned());
            }
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.begin_round(now, BACKGROUND_TIME, None);
        }
        for way in self.chosen.into_iter().flatten() {
            if self.renewal_of(way).is_some_and(|at| at <= now)
                && let Some(grant) = self.ways[way].grant
            {
                self.order(now, way, grant.external.port(), 0, now + BACKGROUND_TIME);
            }
        }
        self.settle(now);
    }

    /// Ends what can be ended.
    fn settle(&mut self, now: Instant) {
        let unanswered = self.ways.iter().any(|way| way.asked.is_some());
        let over = self.round.is_some_and(|deadline| deadline <= now || !unanswered);
        if over {
            self.end_round();
        }
        let best = self.ports.first().copied();
        let all = self.round.is_none();
        if let Some(port) = best.filter(|port| all || port.external.is_ipv4() || !self.ipv4_may_come()) {
            for (request, _) in std::mem::take(&mut self.waiting) {
                self.wanted = true;
                self.outputs.push(Output::Mapped { request, port });
            }
        }
        let late = |(_, deadline): &(RequestId, Instant)| all || *deadline <= now;
        let (late, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(late);
        self.waiting = waiting;
        for (request, _) in Vec::<(RequestId, Instant)>::into_iter(late) {
            let output = match best {
                Some(port) => {
                    self.wanted = true;
                    Output::Mapped { request, port }
                }
                None => Output::Failed {
                    request,
                    reason: self.reason(),
                },
            };
            self.outputs.push(output);
        }
        if over {
            self.withdraw_if_unwanted();
            if self.is_wanted() && self.ports.is_empty() {
                let wait = FIRST_RETRY * (1 << self.retries.min(8));
                self.retries += 1;
                self.retry = Some(now + wait.min(LONGEST_RETRY));
            }
        } else if self.round.is_some() && !self.is_wanted() {
            self.withdraw_if_unwanted();
        }
    }

    fn ipv4_may_come(&self) -> bool {
        self.ways.iter().any(|way| !way.ipv6 && way.asked.is_some())
    }

    /// Nobody is left to answer: what this round did not confirm is gone.
    fn end_round(&mut self) {
        self.round = None;
        for way in &mut self.ways {
            if way.asked.take().is_some() {
                way.failure = Some((MappingFailure::Silent, "no answer in time".to_owned()));
            }
            if way.grant.is_some_and(|grant| grant.round != self.rounds) {
                way.grant = None;
            }
        }
        let had = !self.ports.is_empty();
        for chosen in &mut self.chosen {
            *chosen = chosen.filter(|way| self.ways[*way].grant.is_some());
        }
        self.publish();
        if had && self.ports.is_empty() && self.wanted {
            let mut reason = self.reason();
            reason.code = Code::Lost;
            reason.text = format!(
                "the router does not forward the port any more; it is asked again. {}",
                reason.text
            );
            self.outputs.push(Output::Failed { request: 0, reason });
        }
    }

    /// Puts what counts where everybody finds it, IPv4 first.
    fn publish(&mut self) {
        let observed = self.surroundings.observed;
        let port = |way: &usize| {
            let (way, grant) = (&self.ways[*way], self.ways[*way].grant?);
            Some(MappedPort {
                external: grant.external,
                protocol: way.protocol,
                double_nat: advice::is_double_nat(grant.external.ip(), observed),
                reachable: None,
            })
        };
        let ports: Vec<MappedPort> = self.chosen.iter().flatten().filter_map(port).collect();
        if ports == self.ports {
            return;
        }
        for port in &ports {
            let same_family = |old: &&MappedPort| old.external.is_ipv4() == port.external.is_ipv4();
            let old = self.ports.iter().find(same_family);
            let again = old.map_or(self.retries > 0, |old| old.external != port.external);
            if again && self.wanted && self.waiting.is_empty() {
                let (request, port) = (0, *port);
                self.outputs.push(Output::Mapped { request, port });
            }
        }
        self.ports = ports;
        self.outputs.push(Output::Changed);
    }

    /// Why there is no port.
    fn reason(&self) -> Reason {
        let mut parts = Vec::new();
        let mut all_silent = true;
        for way in &self.ways {
            let Some((why, text)) = &way.failure else { continue };
            all_silent &= *why == MappingFailure::Silent;
            let family = if way.ipv6 { " for IPv6" } else { "" };
            parts.push(format!("{}{family}: {text}", advice::protocol_name(way.protocol)));
        }
        if parts.is_empty() {
            return match (self.surroundings.internal_v4, self.surroundings.internal_v6) {
                (None, None) => Reason {
                    code: Code::Unsupported,
                    text: "no router can forward a port to this node: its sockets are bound to loopback addresses"
                        .to_owned(),
                },
                _ => Reason {
                    code: Code::NoAnswer,
                    text: "no router answered in time".to_owned(),
                },
            };
        }
        Reason {
            code: if all_silent { Code::NoAnswer } else { Code::Refused },
            text: format!("no router forwards the port ({})", parts.join("; ")),
        }
    }
}

/// Why an answer cannot be meant, if it cannot.
fn absurdity(protocol: MappingProtocol, ipv6: bool, external: SocketAddr, lifetime: u32) -> Option<&'static str> {
    if external.port() == 0 {
        return Some("port 0");
    }
    if external.is_ipv6() != ipv6 {
        return Some("an address of the other IP version");
    }
    // "Does not end by itself" is UPnP's; in the other protocols a lifetime of 0 is an end.
    if lifetime == 0 && protocol != MappingProtocol::Upnp {
        return Some("it ends at once");
    }
    let useless = match external.ip() {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0 || ip.is_multicast() || ip.octets()[0] >= 240 || ip.is_loopback() || ip.is_link_local()
        }
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip.is_unicast_link_local(),
    };
    useless.then_some("it has no outside address (is its own connection up?)")
}

/// The router lost its table since `before`: its clock went back, or does not go as ours does (RFC 6887, section 8.5).
fn forgot(now: Instant, before: &Grant, epoch: Option<u32>) -> bool {
    let (Some(old), Some(new)) = (before.epoch, epoch) else {
        return false;
    };
    let (old, new) = (u64::from(old), u64::from(new));
    if new + 1 < old {
        return true;
    }
    let (server, client) = (new.saturating_sub(old), now.duration_since(before.granted).as_secs());
    client + 2 < server - server / 16 || server + 2 < client - client / 16
}
