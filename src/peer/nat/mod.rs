//! What this node sits behind: finding out (behaviour discovery), and the names for it.
//!
//! | file | what it does |
//! |---|---|
//! | `discovery` | one run: which questions, when, what they come to |
//! | `client` | STUN transactions: what counts as an answer |
//! | `discovery/doors` | whether strangers get in at forwarded ports, and over IPv6 |
//! | `discovery/conclusions` | what the answers of a run come to |
//! | `filtering`, `hairpin`, `lifetime` | the tests that are more than a plain question |
//! | `allocation` | how ports are given, from samples |
//! | `names` | names and words for facts; what two names can do |
//! | this one | runs and requests: commands, sockets, names of servers, results |
//!
//! # How it works
//! In: the game's `detect_nat`, a session with a server that came to stand, changed interfaces, fresh sockets, STUN datagrams, the time. Out:
//! STUN requests, wishes for sockets and for a name's addresses, `NAT_TYPE`, and [`NatReport`], whose facts go to the server.
//!
//! All tests run on *fresh* sockets of the pool: the node's own ones are known to the router already, and its filter is open to
//! the server. The server has a main address, the same IP address with another port, and perhaps another IP address with both ports.
//!
//! | fact | how it is found |
//! |---|---|
//! | mapping by port, by address | one socket asks at all of them; the answers tell how each sees it |
//! | filtering by port, by address | another socket speaks to the main address alone, and asks to be answered from the others |
//! | mapping, where ports are kept | the node's own socket asks everywhere, too, if the server sees another number than it has |
//! | kept ports, step, block | six sockets, 5 ms apart, ask at the main address; twelve more if those show no pattern |
//! | hairpin | two sockets send to each other's outside address |
//! | lifetime | sockets stay silent for various times; another one has an answer sent to each |
//! | forwarded ports | a fresh socket has the server answer there, from an address that the own socket never sent to |
//! | IPv6 firewall | one socket has the server answer another one that has never sent anything |
//! | the other IP version | the node's own socket asks there, with a cookie that proves the address to the server |
//!
//! A fact that the answers do not show stays unknown: with one address nothing is known by address, without fresh sockets nothing of
//! filtering. Silence alone never is a fact.
//!
//! # When
//! A quick run (without hairpin and lifetime) begins by itself as soon as a session stands, again after each reconnect, and after the
//! machine's interfaces changed, or a router forwards a new port; nothing waits for it, and no event tells of it. A server on the machine itself shows nothing and is not asked.
//! `detect_nat` joins a run of the same kind, which then finds out about hairpins, too; one with another server or with lifetimes waits for
//! its end. Runs come one after the other.
//!
//! Timers: `OPEN_TIME`, `RESOLVE_TIME`, and those of `discovery`.

mod allocation;
pub(super) mod client;
mod discovery;
mod filtering;
mod hairpin;
mod lifetime;
mod names;

pub(super) use client::is_plausible;
pub use names::{can_connect, filtering, is_friendly, mapping, name, ports};

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Node;
use super::api::nat::{DetectOptions, MappedPort, NatReport};
use super::api::{Event, Reason, RequestId, SideEffect};
use super::attempts::cancelled;
use super::paths::may_send_to;
use super::requests::Pending;
use super::sockets::LeaseId;
use crate::codes::{Code, NatType};
use crate::engine::{Datagram, SocketName};
use crate::wire::control::AddressProof;
use crate::wire::introduction::NatFacts;
use discovery::{Discovery, FIRST_SAMPLES, Findings, Purpose, Setup, Strangers};

/// Names that are looked up for this part have this bit in their ids, those of the session have not.
pub(super) const NAT_RESOLVE: u32 = 1 << 31;
/// The outside opens sockets at once; a run goes on without them after this.
const OPEN_TIME: Duration = Duration::from_millis(500);
/// As for the session's server.
const RESOLVE_TIME: Duration = Duration::from_secs(10);

/// What is known, and the run that finds out more.
#[derive(Debug, Default)]
pub(super) struct Nat {
    pub report: NatReport,
    proofs: Vec<AddressProof>,
    /// The IP address that the facts belong to.
    seen_as: Option<IpAddr>,
    run: Option<Run>,
    waiting: VecDeque<(RequestId, DetectOptions)>,
    background_wanted: bool,
    /// The node's own socket has sent to further addresses of the server, in a run without fresh ones: what comes in from there proves
    /// nothing in this network any more.
    own_asked_further: bool,
    next_resolve: u32,
    dropped: u64,
}

#[derive(Debug)]
struct Run {
    requests: Vec<RequestId>,
    options: DetectOptions,
    /// Nobody asked for it; it goes on without requests.
    background: bool,
    stage: Stage,
    /// Sockets that it has, or has asked for.
    leases: Vec<LeaseId>,
    /// A lease that is not answered yet, what it is for, and until when to wait for it.
    opening: Option<(LeaseId, Purpose, Instant)>,
}

#[derive(Debug)]
enum Stage {
    Resolving {
        id: u32,
        deadline: Instant,
    },
    Opening {
        lease: LeaseId,
        deadline: Instant,
        setup: Box<Setup>,
    },
    Going(Box<Discovery>),
}

impl Nat {
    /// Addresses at which the server saw this node beside that of the session.
    pub fn proofs(&self) -> Vec<AddressProof> {
        self.proofs.clone()
    }

    /// Forged and damaged answers that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.discovery().map_or(0, Discovery::dropped)
    }

    fn discovery(&self) -> Option<&Discovery> {
        match &self.run.as_ref()?.stage {
            Stage::Going(discovery) => Some(discovery),
            _ => None,
        }
    }

    fn discovery_mut(&mut self) -> Option<&mut Discovery> {
        match &mut self.run.as_mut()?.stage {
            Stage::Going(discovery) => Some(discovery),
            _ => None,
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let run = self.run.as_ref()?;
        let opening = run.opening.map(|(_, _, deadline)| deadline);
        let stage = match &run.stage {
            Stage::Resolving { deadline, .. } | Stage::Opening { deadline, .. } => Some(*deadline),
            Stage::Going(discovery) => discovery.poll_timeout(),
        };
        opening.into_iter().chain(stage).min()
    }

    pub fn has_requests(&self) -> bool {
        self.discovery().is_some_and(Discovery::has_requests)
    }

    /// Writes the next request; returns the socket and the destination.
    pub fn poll_request(&mut self, buffer: &mut Vec<u8>) -> Option<(SocketName, SocketAddr)> {
        let (socket, destination, request) = self.discovery_mut()?.poll_request()?;
        request.encode(buffer);
        Some((socket, destination))
    }

    /// The facts of another network are of no use: what routers were asked for stays.
    fn forget(&mut self) {
        let mappings = std::mem::take(&mut self.report.mappings).into_iter();
        self.report = NatReport {
            mappings: mappings
                .map(|port| MappedPort {
                    reachable: None,
                    ..port
                })
                .collect(),
            public_v4: self.report.public_v4,
            public_v6: self.report.public_v6,
            ..NatReport::default()
        };
        self.seen_as = None;
        self.proofs.clear();
    }

    /// Takes what a run came to.
    fn learn(&mut self, findings: &Findings, session_up: bool, manual: Option<SocketAddr>) {
        if !findings.answered {
            self.report.udp_blocked = Some(!session_up);
            return;
        }
        let seen_as = findings.seen.map(|seen| seen.ip());
        if self.seen_as != seen_as && findings.several_addresses != Some(true) {
            self.forget();
        }
        self.seen_as = seen_as;
        let report = &mut self.report;
        report.known = true;
        report.facts = combine(findings.facts, report.facts);
        report.untranslated = findings.untranslated.or(report.untranslated);
        report.several_addresses = findings.several_addresses.or(report.several_addresses);
        report.lifetime = findings.lifetime.or(report.lifetime);
        report.round_trip = findings.round_trip.or(report.round_trip);
        report.udp_blocked = Some(false);
        report.v6_open = findings.v6_open.or(report.v6_open);
        for (address, open) in &findings.doors {
            if manual == Some(*address) {
                report.manual_open = Some(*open);
            }
            for port in report.mappings.iter_mut().filter(|port| port.external == *address) {
                port.reachable = Some(*open);
            }
        }
        if findings.samples.len() >= report.samples.len() || findings.samples.len() >= usize::from(FIRST_SAMPLES) {
            report.samples.clone_from(&findings.samples);
        }
        if let Some((address, _)) = findings.public {
            report.set_public(address);
        }
        let (name, certain) = names::name(report);
        report.name = Some(name);
        report.certain = certain;
    }
}

impl NatReport {
    fn set_public(&mut self, address: SocketAddr) {
        if address.is_ipv4() {
            self.public_v4 = Some(address);
        } else {
            self.public_v6 = Some(address);
        }
    }
}

/// What is newly known, and what was known before where that says nothing. How ports are given is one fact of three parts: a run that
/// sees no pattern does not contradict one that saw it, as long as both agree on whether the local port is kept. Where it is kept, a mapping
/// that was once seen to vary varies: most sockets have their own number everywhere, and show nothing.
pub(super) fn combine(new: NatFacts, old: NatFacts) -> NatFacts {
    let pattern = new.port_step.is_some() || new.port_block.is_some();
    let contradicts = new.preserves_port.is_some() && new.preserves_port != old.preserves_port;
    let ports = if pattern || contradicts { new } else { old };
    let keeps = new.preserves_port == Some(true) && old.preserves_port == Some(true);
    let varies = |new: Option<bool>, old: Option<bool>| match old {
        Some(true) if keeps => old,
        old => new.or(old),
    };
    NatFacts {
        mapping_varies_by_address: varies(new.mapping_varies_by_address, old.mapping_varies_by_address),
        mapping_varies_by_port: varies(new.mapping_varies_by_port, old.mapping_varies_by_port),
        filters_by_address: new.filters_by_address.or(old.filters_by_address),
        filters_by_port: new.filters_by_port.or(old.filters_by_port),
        preserves_port: new.preserves_port.or(old.preserves_port),
        port_step: ports.port_step,
        port_block: ports.port_block,
        hairpin: new.hairpin.or(old.hairpin),
    }
}

/// Whether one run can answer both.
fn same_run(one: &DetectOptions, other: &DetectOptions) -> bool {
    one == other
}

fn no_answer(text: &str) -> Reason {
    Reason {
        code: Code::NoAnswer,
        text: text.to_owned(),
    }
}

/// For tests and for what shows a node as it is.
impl Node {
    /// What is known of this node's NAT.
    pub fn nat_report(&self) -> &NatReport {
        &self.nat.report
    }

    /// The proofs that the server was, or will be, shown.
    #[cfg(all(test, feature = "lab"))]
    pub(super) fn nat_proofs(&self) -> Vec<AddressProof> {
        self.nat.proofs()
    }
}

/// Commands and news.
impl Node {
    /// Has the node believe that about its NAT, and tell the server: for tests of what follows from it.
    #[cfg(any(test, feature = "lab"))]
    pub fn assume_nat_facts(&mut self, facts: crate::wire::introduction::NatFacts) {
        self.nat.report.facts = facts;
        self.update_server();
    }

    /// The game's call.
    pub(super) fn detect_nat(&mut self, now: Instant, request: RequestId, options: DetectOptions) {
        self.requests.begin(request, Pending::DetectNat);
        match &mut self.nat.run {
            Some(run) if same_run(&run.options, &options) => {
                run.requests.push(request);
                if let Stage::Going(discovery) = &mut run.stage {
                    discovery.with_hairpin(now);
                }
            }
            _ => self.nat.waiting.push_back((request, options)),
        }
        self.advance_nat(now);
    }

    /// The game cancels its wish. A run that nobody waits for any more ends, unless it is one that runs by itself.
    pub(super) fn cancel_detect_nat(&mut self, now: Instant, request: RequestId) {
        self.nat.waiting.retain(|(waiting, _)| *waiting != request);
        if let Some(run) = &mut self.nat.run {
            run.requests.retain(|waiting| *waiting != request);
            if run.requests.is_empty() && !run.background {
                self.end_nat_run();
            }
        }
        self.raise_nat(request, Some(cancelled()));
        self.advance_nat(now);
    }

    /// A session stands.
    pub(super) fn nat_session_up(&mut self, now: Instant, observed: SocketAddr) {
        self.nat.report.set_public(observed);
        let here = self
            .rendezvous
            .server_address
            .is_some_and(|server| server.ip().is_loopback());
        self.nat.background_wanted = !here;
        self.advance_nat(now);
    }

    /// A session stands that says nothing of UDP: whether it is blocked is found out all the same.
    pub(super) fn nat_session_by_stream(&mut self, now: Instant) {
        self.nat.background_wanted = true;
        self.advance_nat(now);
    }

    /// The machine may be in another network: what was found out may be wrong, what is being found out mixes both.
    pub(super) fn nat_interfaces_changed(&mut self, now: Instant) {
        self.nat.forget();
        let ended = self.end_nat_run();
        self.nat.own_asked_further = false;
        if let Some(run) = ended {
            for request in run.requests.into_iter().rev() {
                self.nat.waiting.push_front((request, run.options.clone()));
            }
        }
        let here = self
            .rendezvous
            .server_address
            .is_none_or(|server| server.ip().is_loopback());
        self.nat.background_wanted = !here;
        self.advance_nat(now);
    }

    /// Routers forward other ports than before.
    pub(super) fn nat_mappings_changed(&mut self, now: Instant, mut ports: Vec<MappedPort>) {
        let known = &self.nat.report.mappings;
        for port in &mut ports {
            let same = known.iter().find(|known| known.external == port.external);
            port.reachable = same.and_then(|known| known.reachable);
        }
        self.nat.report.mappings = ports;
        if self.has_untried_port() {
            self.nat.background_wanted = true;
            self.advance_nat(now);
        }
    }

    /// A router forwards a port at the address that the server sees, and it is not known whether strangers get in.
    fn has_untried_port(&self) -> bool {
        let here = self
            .rendezvous
            .server_address
            .is_none_or(|server| server.ip().is_loopback());
        let Some(observed) = self.rendezvous.observed.filter(|_| !here && self.server_is_up()) else {
            return false;
        };
        let untried =
            |port: &MappedPort| port.reachable.is_none() && port.external.ip() == observed.ip().to_canonical();
        self.nat.report.mappings.iter().any(untried)
    }

    /// A run that began by itself finds out whether strangers get in at a port that a router forwards.
    pub(super) fn nat_tries_ports(&self) -> bool {
        self.nat.run.as_ref().is_some_and(|run| run.background) && self.has_untried_port()
    }

    /// The outside's answer.
    pub(super) fn nat_name_resolved(&mut self, now: Instant, id: u32, addresses: Result<Vec<IpAddr>, String>) {
        let Some(run) = &self.nat.run else { return };
        if !matches!(run.stage, Stage::Resolving { id: awaited, .. } if awaited == id) {
            return;
        }
        let Some((host, port)) = run.options.server.clone() else {
            return;
        };
        let found = addresses.and_then(|addresses| match addresses.is_empty() {
            true => Err("it has no addresses".to_owned()),
            false => Ok(addresses),
        });
        match found {
            Ok(addresses) => self.nat_found_server(now, &addresses, port),
            Err(why) => self.fail_nat_run(Reason {
                code: Code::NameNotResolved,
                text: format!("the STUN server's name {host:?} could not be resolved: {why}"),
            }),
        }
        self.advance_nat(now);
    }

    /// The outside has opened sockets, or has failed to.
    pub(super) fn nat_sockets_opened(&mut self, now: Instant, id: LeaseId) {
        let Some(run) = &mut self.nat.run else { return };
        let Some(sockets) = self.pool.opened(id).map(<[_]>::to_vec) else {
            return;
        };
        match &mut run.stage {
            Stage::Opening { lease, setup, .. } if *lease == id => {
                let setup = Setup {
                    fresh: sockets,
                    ..(**setup).clone()
                };
                self.begin_discovery(now, setup);
            }
            Stage::Going(discovery) => {
                if let Some((_, purpose, _)) = run.opening.take_if(|(lease, ..)| *lease == id) {
                    discovery.add_sockets(now, purpose, sockets);
                }
            }
            _ => {}
        }
        self.advance_nat(now);
    }

    /// Takes a STUN datagram; false: it has nothing to do with the discovery.
    pub(super) fn nat_datagram(&mut self, now: Instant, datagram: &Datagram) -> bool {
        let Some(discovery) = self.nat.discovery_mut() else {
            return false;
        };
        let ours = discovery.handle(now, datagram.socket, datagram.source, &datagram.contents);
        if ours {
            self.advance_nat(now);
        }
        ours
    }

    pub(super) fn nat_timeout(&mut self, now: Instant) {
        if self.nat.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let Some(run) = &mut self.nat.run else { return };
        match &mut run.stage {
            Stage::Resolving { .. } => {
                let code = Code::NameNotResolved;
                let text = "the STUN server's name could not be resolved: the resolver did not answer".to_owned();
                self.fail_nat_run(Reason { code, text });
            }
            Stage::Opening { setup, .. } => {
                let setup = (**setup).clone();
                self.begin_discovery(now, setup);
            }
            Stage::Going(discovery) => {
                if let Some((_, purpose, _)) = run.opening.take_if(|(.., deadline)| *deadline <= now) {
                    discovery.add_sockets(now, purpose, Vec::new());
                }
                discovery.handle_timeout(now);
            }
        }
        self.advance_nat(now);
    }
}

/// Runs.
impl Node {
    /// Carries on: sockets that the run wishes for, its end, the next one.
    fn advance_nat(&mut self, now: Instant) {
        self.timers_changed = true;
        loop {
            self.grant_nat_wish(now);
            let over = self.nat.discovery().is_some_and(|discovery| discovery.is_over(now));
            if over {
                self.finish_nat_run();
            }
            if self.nat.run.is_some() || !self.begin_nat_run(now) {
                return;
            }
        }
    }

    /// Sockets for a run that goes on.
    fn grant_nat_wish(&mut self, now: Instant) {
        let Some(run) = &mut self.nat.run else { return };
        let Stage::Going(discovery) = &mut run.stage else {
            return;
        };
        while let Some((purpose, count)) = discovery.take_wish() {
            match self.pool.lease(count, discovery.is_ipv6(purpose)) {
                Some(lease) => {
                    run.leases.push(lease);
                    run.opening = Some((lease, purpose, now + OPEN_TIME));
                }
                None => discovery.add_sockets(now, purpose, Vec::new()),
            }
        }
    }

    /// Begins what waits first; false if nothing does.
    fn begin_nat_run(&mut self, now: Instant) -> bool {
        let background = std::mem::take(&mut self.nat.background_wanted);
        let Some((_, options)) = self.nat.waiting.front().cloned().or(background.then(Default::default)) else {
            return false;
        };
        let mut requests = Vec::new();
        self.nat.waiting.retain(|(request, wanted)| {
            let joins = same_run(wanted, &options);
            if joins {
                requests.push(*request);
            }
            !joins
        });
        let plain = options == DetectOptions::default();
        // One with other options does not stand for the one that was due.
        self.nat.background_wanted = background && !plain;
        self.nat.next_resolve = self.nat.next_resolve.wrapping_add(1) & !NAT_RESOLVE;
        let id = self.nat.next_resolve | NAT_RESOLVE;
        let stage = Stage::Resolving {
            id,
            deadline: now + RESOLVE_TIME,
        };
        let server = options.server.clone();
        self.nat.run = Some(Run {
            requests,
            options,
            background: background && plain,
            stage,
            leases: Vec::new(),
            opening: None,
        });
        match server {
            None => self.nat_use_own_server(now),
            Some((host, port)) => {
                let bare = host.trim().trim_start_matches('[').trim_end_matches(']').to_owned();
                match bare.parse::<IpAddr>() {
                    Ok(ip) => self.nat_found_server(now, &[ip], port),
                    Err(_) => self.side_effects.push_back(SideEffect::Resolve { id, host: bare }),
                }
            }
        }
        true
    }

    /// The addresses of the server that the options name.
    fn nat_found_server(&mut self, now: Instant, addresses: &[IpAddr], port: u16) {
        let addresses = addresses.iter().map(|ip| SocketAddr::new(ip.to_canonical(), port));
        let usable: Vec<SocketAddr> = addresses
            .filter(|address| may_send_to(*address) && self.own_socket(*address).is_some())
            .collect();
        // Translation is what IPv4 has.
        let Some(server) = usable.iter().find(|address| address.is_ipv4()).or(usable.first()) else {
            return self.fail_nat_run(no_answer(
                "no socket of this node can reach any of the STUN server's addresses",
            ));
        };
        let public = self.own_socket(*server).map(|(name, _)| (name, *server));
        self.open_nat_sockets(now, *server, Vec::new(), public);
    }

    /// The server of the session, or the one that was tried last.
    fn nat_use_own_server(&mut self, now: Instant) {
        let session = self.rendezvous.server_address;
        let known = session
            .into_iter()
            .chain(self.rendezvous.known_addresses.iter().copied());
        let usable: Vec<SocketAddr> = known.filter(|address| self.own_socket(*address).is_some()).collect();
        let of = |ipv4: bool| usable.iter().copied().find(|address| address.is_ipv4() == ipv4);
        let Some(server) = of(true).or(of(false)) else {
            let text = "there is no server to ask: connect to one first, or name a STUN server".to_owned();
            let code = Code::ServerLost;
            return self.fail_nat_run(Reason { code, text });
        };
        let further = self.rendezvous.stun.clone();
        // The session shows the address of one IP version; the other one's has to be asked for, at an address that the server's name
        // has or that the server told.
        let sought = match session {
            // A server that was given as an address names the other ones itself.
            Some(session) => of(!session.is_ipv4()).or_else(|| {
                let named = self.rendezvous.stun.iter().copied();
                named
                    .filter(|address| may_send_to(*address) && self.own_socket(*address).is_some())
                    .find(|address| address.is_ipv4() != session.is_ipv4())
            }),
            None => Some(server),
        };
        let public = sought.and_then(|address| Some((self.own_socket(address)?.0, address)));
        self.open_nat_sockets(now, server, further, public);
    }

    /// The node's socket of the IP version of an address.
    fn own_socket(&self, address: SocketAddr) -> Option<(SocketName, SocketAddr)> {
        let name = if address.is_ipv4() {
            SocketName::Udp4
        } else {
            SocketName::Udp6
        };
        self.sockets.iter().copied().find(|(socket, _)| *socket == name)
    }

    fn open_nat_sockets(
        &mut self,
        now: Instant,
        server: SocketAddr,
        further: Vec<SocketAddr>,
        public: Option<(SocketName, SocketAddr)>,
    ) {
        let strangers = self.strangers(server, public);
        let (Some((own_name, own)), Some(run)) = (self.own_socket(server), &mut self.nat.run) else {
            return;
        };
        let setup = Setup {
            server,
            further,
            own,
            own_name,
            own_observed: self.rendezvous.observed,
            fresh: Vec::new(),
            public,
            local: self.local_addresses.clone(),
            strangers,
            hairpin: !run.requests.is_empty(),
            lifetime: run.options.lifetime_up_to,
        };
        match self.pool.lease(FIRST_SAMPLES, server.is_ipv6()) {
            Some(lease) => {
                run.leases.push(lease);
                run.stage = Stage::Opening {
                    lease,
                    deadline: now + OPEN_TIME,
                    setup: Box::new(setup),
                };
            }
            None => self.begin_discovery(now, setup),
        }
    }

    /// Where strangers are to knock in a run with that server.
    fn strangers(&self, server: SocketAddr, public: Option<(SocketName, SocketAddr)>) -> Strangers {
        let session = self.rendezvous.server_address;
        let known: Vec<SocketAddr> = session
            .into_iter()
            .chain(self.rendezvous.known_addresses.iter().copied())
            .chain(public.map(|(_, address)| address))
            .chain([server])
            .collect();
        let observed = self
            .rendezvous
            .observed
            .map(|observed| SocketAddr::new(observed.ip().to_canonical(), observed.port()));
        let mapped = self.nat.report.mappings.iter().map(|port| port.external);
        let forwarded = self.manual_address.into_iter().chain(mapped);
        let usable = |address: &SocketAddr| {
            let same_version = address.is_ipv4() == server.is_ipv4();
            same_version && !self.nat.own_asked_further
        };
        // A server that the options name has an IPv6 address of its own, or none.
        let own_server = session == Some(server) || self.rendezvous.known_addresses.contains(&server);
        let is_v6 = |address: &&SocketAddr| address.is_ipv6() && (own_server || **address == server);
        Strangers {
            forwarded: forwarded.filter(usable).collect(),
            observed: observed.filter(|observed| observed.is_ipv4() == server.is_ipv4()),
            ipv6: known
                .iter()
                .find(is_v6)
                .copied()
                .filter(|address| self.own_socket(*address).is_some()),
            ipv6_works: own_server && session.is_some_and(|session| session.is_ipv6()),
            contacted: known.iter().map(SocketAddr::ip).collect(),
        }
    }

    fn begin_discovery(&mut self, now: Instant, setup: Setup) {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        if let Some(run) = &mut self.nat.run {
            let setup = Setup {
                hairpin: !run.requests.is_empty(),
                ..setup
            };
            let discovery = Discovery::new(now, setup, StdRng::from_seed(seed));
            run.stage = Stage::Going(Box::new(discovery));
        }
    }

    /// Ends the run without a word; its sockets are closed.
    fn end_nat_run(&mut self) -> Option<Run> {
        self.nat.dropped = self.nat.dropped();
        self.nat.own_asked_further |= self.nat.discovery().is_some_and(Discovery::own_asked_further);
        let run = self.nat.run.take()?;
        for lease in &run.leases {
            self.pool.release(*lease);
        }
        Some(run)
    }

    /// The run cannot even begin.
    fn fail_nat_run(&mut self, reason: Reason) {
        let Some(run) = self.end_nat_run() else { return };
        for request in run.requests {
            self.raise_nat(request, Some(reason.clone()));
        }
    }

    /// The run is over: what it came to is known from now on, here and at the server.
    fn finish_nat_run(&mut self) {
        let Some(findings) = self.nat.discovery().map(Discovery::findings) else {
            return;
        };
        let Some(run) = self.end_nat_run() else { return };
        self.view_changed = true;
        let known = |nat: &Nat| {
            let report = &nat.report;
            (report.facts, nat.proofs(), report.manual_open, report.mappings.clone())
        };
        let before = known(&self.nat);
        let by_udp = self.server_is_up() && !self.is_on_stream();
        self.nat.learn(&findings, by_udp, self.manual_address);
        // A stranger's cookie proves nothing to the node's own server.
        if run.options.server.is_none()
            && let Some((_, proof)) = findings.public
        {
            self.nat.proofs = proof.into_iter().collect();
        }
        if before != known(&self.nat) {
            self.update_server();
        }
        for request in run.requests {
            self.raise_nat(request, findings.lack.clone());
        }
    }

    /// The event that ends a request.
    fn raise_nat(&mut self, request: RequestId, reason: Option<Reason>) {
        if !self.requests.end(request) {
            return;
        }
        let mut report = Box::new(self.nat.report.clone());
        if report.name.is_none() {
            report.name = Some(NatType::Unknown);
            report.certain = false;
        }
        self.raise(Event::NatDetected {
            request,
            report,
            reason,
        });
    }
}
