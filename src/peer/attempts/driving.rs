//! Driving the attempts: what they want sent, the sockets and samples that they need, the paths that they found.
//!
//! In: probes and STUN answers, opened sockets, the time. Out: packets within the node's rate, leases of the pool, forecasts for the
//! server, paths behind the peers' routes, closed sockets. What an attempt sends to addresses that are known goes first; of what is left of
//! the rate, each attempt's techniques take their turn.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::Instant;

use rand::Rng;

use super::super::Node;
use super::super::api::Reason;
use super::super::nat::is_plausible;
use super::super::paths::{Owner, Path};
use super::super::punch::budget::{Bucket, Ledger, ProbeCounters};
use super::super::punch::{HOLD_TIME, Packet, Punch, Verdict, Verified};
use super::{Lease, MAX_QUEUED, Run};
use crate::codes::Code;
use crate::engine::{SocketName, Transmit};
use crate::transport::SyntheticAddress;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::{RelayPolicy, ToServer};
use crate::wire::probe::{Probe, ProbeKey, ProbeKind};
use crate::wire::stun::{Request, Response};
use crate::wire::unmapped;

/// A packet that waits for the socket, with what authenticates a probe.
#[derive(Debug)]
pub(in super::super) struct QueuedPacket {
    pub packet: Packet,
    pub key: ProbeKey,
}

impl Node {
    /// The outside has opened sockets of the pool.
    pub(in super::super) fn attempts_sockets_opened(&mut self, now: Instant) {
        let waits = |run: &Run| run.leases.iter().any(|lease| !lease.given);
        if self.attempts.runs.values().any(waits) {
            self.drive_attempts(now);
        }
    }

    /// Where samples are taken: the server's main address, if the session is over IPv4.
    pub(super) fn stun_server(&self) -> Option<SocketAddr> {
        let route = self.server_links.get(&self.rendezvous.link()?)?;
        let address = self.paths.best(*route)?.address;
        address.is_ipv4().then_some(address)
    }

    /// A STUN answer at that socket; false: to no request of an attempt, or with an address that no server can have seen.
    pub(in super::super) fn sample_answered(
        &mut self,
        now: Instant,
        socket: SocketName,
        source: SocketAddr,
        contents: &[u8],
    ) -> bool {
        let runs = self.attempts.runs.values_mut();
        let mut runs = runs.filter(|run| run.punch.stun_server() == Some(source)).peekable();
        if runs.peek().is_none() {
            return false;
        }
        let Ok(Response::Success {
            transaction, mapped, ..
        }) = Response::decode(contents)
        else {
            return false;
        };
        let mapped = unmapped(mapped);
        if !is_plausible(mapped, source) {
            return false;
        }
        let taken = runs.any(|run| run.punch.sampled(now, socket, &transaction, mapped));
        if taken {
            self.drive_attempts(now);
        }
        taken
    }

    /// Closes sockets of the pool that became paths and are none any more.
    pub(in super::super) fn close_unused_sockets(&mut self) {
        let adopted: Vec<SocketName> = self.pool.adopted().collect();
        for socket in adopted {
            let mut runs = self.attempts.runs.values();
            let heard = runs.any(|run| run.punch.heard_sockets().any(|heard| heard == socket));
            if !heard && !self.paths.uses_socket(socket) {
                self.pool.close(socket);
            }
        }
    }

    /// A connected player probes by the connection's own secret: it sought another path first.
    fn begin_answering_connected(&mut self, now: Instant, from: (SocketName, SocketAddr), contents: &[u8]) {
        if self.effective_relay_policy() == RelayPolicy::Only {
            return;
        }
        let Some((name, (peer, secret))) =
            Probe::peek_introduction(contents).and_then(|name| Some((name, self.roaming.named(name)?)))
        else {
            return;
        };
        // One that runs takes the probe itself; one that has ended does, if it comes from where the player is.
        let under_way = self.attempts.runs.get(&peer).is_some_and(|run| !run.ended);
        let here = self.paths.route_from(from.0, from.1) == self.link_address(peer);
        let held = self.attempts.by_introduction.contains_key(&name);
        if under_way || (held && here) {
            return;
        }
        if matches!(Probe::decode(contents, &ProbeKey::new(&secret)), Ok(probe) if probe.kind == ProbeKind::Request) {
            self.other_side_seeks(now, peer, None);
        }
    }

    /// A datagram that looks like a probe.
    pub(in super::super) fn handle_probe(
        &mut self,
        now: Instant,
        socket: SocketName,
        source: SocketAddr,
        contents: &[u8],
    ) {
        self.begin_answering_connected(now, (socket, source), contents);
        let run = Probe::peek_introduction(contents)
            .and_then(|introduction| self.attempts.by_introduction.get(&introduction))
            .and_then(|peer| self.attempts.runs.get_mut(peer));
        let Some(run) = run else {
            self.dropped.probes += 1;
            return;
        };
        let Ok(probe) = Probe::decode(contents, run.punch.key()) else {
            self.dropped.probes += 1;
            return;
        };
        let answer = run.punch.handle(now, socket, source, &probe, contents.len());
        if run.punch.verified().any(|path| path.address == source) {
            self.attempts.ledger.proven(now, source);
        }
        let key = run.punch.key().clone();
        if let Some(answer) = answer {
            self.attempts.enqueue(Packet::Probe(answer), key);
        }
        self.drive_attempts(now);
    }

    /// Sends what is due, takes new paths into use, reports what is decided.
    pub(super) fn drive_attempts(&mut self, now: Instant) {
        self.timers_changed = true;
        self.send_due_probes(now);
        let peers: Vec<Guid> = self.attempts.runs.keys().copied().collect();
        for peer in &peers {
            self.supply_sockets(now, *peer);
        }
        self.send_due_probes(now);
        for peer in peers {
            self.drive_run(now, peer);
        }
    }

    /// Probes to known addresses first; of what is left, each attempt's techniques. Attempts take turns: one that came early must not
    /// have all of the node's rate.
    fn send_due_probes(&mut self, now: Instant) {
        let attempts = &mut self.attempts;
        attempts.starved = false;
        for urgent in [true, false] {
            for peer in turns(&attempts.runs, attempts.served[usize::from(urgent)]) {
                let Some(run) = attempts.runs.get_mut(&peer) else {
                    continue;
                };
                let next = |punch: &mut Punch| {
                    if urgent {
                        punch.next_urgent(now, || self.random.next_u64()).map(Packet::Probe)
                    } else {
                        punch.next_packet(now, || self.random.next_u64())
                    }
                };
                let mut gate = Gate {
                    bucket: &mut attempts.bucket,
                    counters: &mut attempts.counters,
                    ledger: &mut attempts.ledger,
                    queue: &mut attempts.queue,
                };
                if !gate.send_due(now, run, next) {
                    attempts.starved = true;
                    return;
                }
                attempts.served[usize::from(urgent)] = Some(peer);
            }
        }
    }

    /// Gets and hands out the sockets that an attempt wants.
    fn supply_sockets(&mut self, now: Instant, peer: Guid) {
        let Some(run) = self.attempts.runs.get_mut(&peer) else {
            return;
        };
        while let Some((purpose, count)) = run.punch.next_wish() {
            match self.pool.lease(count, false) {
                Some(id) => run.leases.push(Lease {
                    id,
                    purpose,
                    given: false,
                }),
                None => run.punch.sockets_opened(now, purpose, Vec::new()),
            }
        }
        for lease in run.leases.iter_mut().filter(|lease| !lease.given) {
            if let Some(sockets) = self.pool.opened(lease.id) {
                lease.given = true;
                let names = sockets.iter().map(|(name, _)| *name).collect();
                run.punch.sockets_opened(now, lease.purpose, names);
            }
        }
    }

    fn drive_run(&mut self, now: Instant, peer: Guid) {
        let unwelcome = self.leaves_direct_path_alone(now, peer);
        let Some(run) = self.attempts.runs.get_mut(&peer) else {
            return;
        };
        match run.punch.verdict(now) {
            Verdict::Running => {
                let introduction = run.punch.introduction();
                if let Some(forecast) = run.punch.next_forecast(now) {
                    let message = ToServer::Forecast { introduction, forecast };
                    self.send_to_server(&message);
                    self.hurry_server(now);
                }
            }
            Verdict::Opened(path) if unwelcome => {
                self.run_opened(now, peer, path);
                self.forget_run(peer);
            }
            Verdict::Opened(path) => {
                self.adopt_paths(now, peer);
                self.run_opened(now, peer, path);
            }
            Verdict::Failed => {
                let reason = Reason {
                    code: Code::NoDirectPath,
                    text: run.punch.failure_text(),
                };
                if run.ended {
                    // An open path that nobody used went silent.
                    self.paths.close(now, peer);
                } else {
                    self.end_run(now, peer, reason, true);
                }
            }
        }
        if self
            .attempts
            .runs
            .get(&peer)
            .is_some_and(|run| run.ended && run.punch.is_over(now))
        {
            self.forget_run(peer);
        }
    }

    /// Puts what was verified behind the peer's route.
    fn adopt_paths(&mut self, now: Instant, peer: Guid) {
        let Some(run) = self.attempts.runs.get(&peer) else {
            return;
        };
        let key = run.punch.peer();
        let verified: Vec<Verified> = run.punch.verified().collect();
        // The other side may have chosen another of several that hit at once: whatever it was heard on stays open.
        for socket in run.punch.heard_sockets() {
            self.pool.adopt(socket);
        }
        for found in verified {
            let path = Path {
                socket: found.socket,
                address: found.address,
                kind: found.kind,
                round_trip: Some(found.round_trip),
                verified: true,
            };
            let known = self.route_of(peer, key, &found);
            // Somebody's handshake is running from there, the peer's own as a rule: it keeps its way until it is done.
            let holder = self.paths.route_from(found.socket, found.address);
            if known.is_some() && holder != known && holder.is_some_and(|holder| self.transport.is_greeting(holder)) {
                continue;
            }
            let address = match known {
                Some(address) => {
                    self.add_path(now, peer, address, path);
                    address
                }
                None => {
                    let address = self.transport.new_address();
                    self.paths.insert(now, address, Owner::Peer(key), path);
                    address
                }
            };
            self.paths.open(peer, address, now + HOLD_TIME);
        }
    }

    /// The route that a verified path belongs behind: that of the link, or of a way opened before, or the one that stands for this very
    /// address.
    fn route_of(&mut self, peer: Guid, key: PublicKey, found: &Verified) -> Option<SyntheticAddress> {
        let linked = self.link_address(peer);
        if let Some(address) = linked.or_else(|| Some(self.paths.opened(peer)?.0)) {
            return Some(address);
        }
        let route = self.paths.route_from(found.socket, found.address)?;
        if self.paths.owner(route) == Some(Owner::Stranger) {
            // It is the peer's own: it dialled, or was dialled, before its address was verified.
            self.paths.prove(route, Owner::Peer(key));
        }
        (self.paths.owner(route) == Some(Owner::Peer(key))).then_some(route)
    }

    fn run_opened(&mut self, now: Instant, peer: Guid, path: Verified) {
        let Some(run) = self.attempts.runs.get_mut(&peer).filter(|run| !run.ended) else {
            return;
        };
        run.ended = true;
        run.leases.drain(..).for_each(|lease| self.pool.release(lease.id));
        let (request, sender, introduction) = (run.request, run.sender, run.punch.introduction());
        let quiet = run.quiet && request == 0;
        self.send_to_server(&ToServer::PunchEnded {
            introduction,
            path: path.kind.number(),
        });
        if !quiet {
            self.raise_nat_success(request, peer, path.kind, path.address, sender);
        }
        self.way_opened(now, peer);
    }
}

/// The attempts, beginning behind the one that was served last.
fn turns(runs: &BTreeMap<Guid, Run>, served: Option<Guid>) -> Vec<Guid> {
    let after = served.map_or(Bound::Unbounded, Bound::Excluded);
    let until = served.map_or(Bound::Excluded(Guid(0)), Bound::Included);
    let later = runs.range((after, Bound::Unbounded)).map(|(peer, _)| *peer);
    let earlier = runs.range((Bound::Unbounded, until)).map(|(peer, _)| *peer);
    later.chain(earlier).collect()
}

/// What all packets of attempts go through.
struct Gate<'a> {
    bucket: &'a mut Bucket,
    counters: &'a mut ProbeCounters,
    ledger: &'a mut Ledger,
    queue: &'a mut VecDeque<QueuedPacket>,
}

impl Gate<'_> {
    /// Queues what is due of one attempt; false: the node has had its share.
    fn send_due(&mut self, now: Instant, run: &mut Run, mut next: impl FnMut(&mut Punch) -> Option<Packet>) -> bool {
        while run.punch.poll_timeout(now).is_some_and(|at| at <= now) {
            // Looked at before the packet is made: one that is not sent must not count as sent.
            if !self.bucket.has_token(now) {
                return false;
            }
            let Some(packet) = next(&mut run.punch) else {
                break;
            };
            if !self.passes(now, &run.punch, &packet) {
                continue;
            }
            self.bucket.spend(now, self.counters);
            if self.queue.len() < MAX_QUEUED {
                let key = run.punch.key().clone();
                self.queue.push_back(QueuedPacket { packet, key });
            }
        }
        true
    }

    /// Addresses that the other side named, or sent from, are remembered beyond the attempt. What a birthday opens and searches the server
    /// has permitted for this attempt.
    fn passes(&mut self, now: Instant, punch: &Punch, packet: &Packet) -> bool {
        match packet {
            Packet::Probe(probe) if punch.is_target(probe.socket, probe.address) => {
                let heard = punch.heard_at(probe.socket, probe.address).is_some();
                self.ledger.spend(now, probe.address, heard)
            }
            _ => true,
        }
    }
}

impl QueuedPacket {
    /// Writes the datagram; says where it goes.
    pub fn write(&self, buffer: &mut Vec<u8>) -> Transmit {
        let (socket, destination, time_to_live) = match &self.packet {
            Packet::Probe(probe) => {
                probe.probe.encode(&self.key, probe.padded_to, buffer);
                (probe.socket, probe.address, probe.time_to_live)
            }
            Packet::Sample {
                socket,
                server,
                transaction,
            } => {
                Request::new(*transaction).encode(buffer);
                (*socket, *server, None)
            }
        };
        Transmit {
            socket,
            destination,
            ecn: None,
            size: buffer.len(),
            segment_size: None,
            time_to_live,
        }
    }
}
