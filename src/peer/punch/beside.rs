//! What an attempt does beside the volley: the pieces of [`super::techniques`] put to work.
//!
//! In: facts and permits, when they come; sockets of the pool; the server's answers to samples; the other side's forecasts. Out: wishes for
//! sockets, forecasts, packets. Nothing here decides whether a path is open: whatever gets through shows itself as a probe or as an answer
//! from an address, and the attempt goes on from there.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::paths::{kind_of, may_send_to};
use super::birthday::{Opener, Prober};
use super::budget::PREDICTED_ADDRESSES;
use super::predict;
use super::rounds::{self, Rounds, Step};
use super::techniques::{Ports, ports, techniques};
use super::{Outgoing, Packet, Punch, Purpose};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::wire::introduction::{BIRTHDAY_SOCKETS, BirthdayPermit, CandidateKind, NatFacts, PortForecast};
use crate::wire::probe::{Probe, ProbeKind};
use crate::wire::stun::TransactionId;

/// When a predicted address is probed again: for loss, and for a mapping that was made a little later than was thought.
const SHOTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(70), Duration::from_millis(280)];
/// When the addresses around a window are probed: those inside had their chance.
const AROUND_AFTER: Duration = Duration::from_millis(320);

/// State of the techniques of one attempt.
#[derive(Debug, Default)]
pub struct Beside {
    /// The other side's IPv4 address as the server saw it, and with the number that its socket has.
    observed: Option<SocketAddr>,
    guessed: Option<SocketAddr>,
    /// The socket for IPv4.
    main: Option<SocketName>,
    rounds: Option<Rounds>,
    /// Rounds have begun, or could not: they do not begin anew.
    rounds_tried: bool,
    /// First packets of the openers fall short.
    low_first: bool,
    opener: Option<Opener>,
    prober: Option<Prober>,
    birthday: bool,
    wishes: VecDeque<(Purpose, u16)>,
    shots: Vec<Shot>,
    predicted: BTreeSet<SocketAddr>,
    /// A probe to an address that is no target (predicted, birthday) has this and the port as its transaction.
    scatter: Option<u64>,
}

/// A predicted address.
#[derive(Debug)]
struct Shot {
    socket: SocketName,
    address: SocketAddr,
    sent: usize,
    begins: Instant,
}

impl Shot {
    fn next_at(&self) -> Option<Instant> {
        SHOTS.get(self.sent).map(|after| self.begins + *after)
    }
}

impl Beside {
    /// An IPv4 candidate of the other side, and the socket for it.
    pub fn name(&mut self, socket: SocketName, address: SocketAddr, kind: CandidateKind, path: PathKind) {
        self.main = Some(socket);
        match kind {
            CandidateKind::Observed => self.observed = self.observed.or(Some(address)),
            CandidateKind::Local if path == PathKind::Direct => self.guessed = Some(address),
            _ => {}
        }
    }

    /// Fresh sockets probe the other side's address as well.
    pub fn in_rounds(&self) -> bool {
        self.rounds.is_some()
    }

    /// Many ports are searched, or opened.
    pub fn in_birthday(&self) -> bool {
        self.birthday
    }

    /// An answer with that transaction belongs to one of the many.
    pub fn scattered(&self, transaction: u64) -> bool {
        let fits = |base: u64| transaction.wrapping_sub(base) <= u64::from(u16::MAX);
        self.scatter.is_some_and(fits)
    }

    /// A path is open.
    pub fn stop(&mut self) {
        (self.rounds, self.opener, self.prober) = (None, None, None);
        self.shots.clear();
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let shots = self.shots.iter().filter_map(Shot::next_at).min();
        let rounds = self.rounds.as_ref().and_then(Rounds::poll_timeout);
        let opener = self.opener.as_ref().and_then(Opener::poll_timeout);
        let prober = self.prober.as_ref().and_then(Prober::poll_timeout);
        [shots, rounds, opener, prober].into_iter().flatten().min()
    }
}

impl Punch {
    /// The address at which the other side's router shows it to this node, unless it gives every destination another port.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        let same_ip = |guess: &SocketAddr| self.beside.observed.is_none_or(|observed| observed.ip() == guess.ip());
        let guess = self.beside.guessed.filter(same_ip);
        match ports(&self.facts) {
            Ports::Preserving => guess.or(self.beside.observed),
            _ => self.beside.observed.or(guess),
        }
    }

    /// Takes what is known of the two routers, at the beginning or when more became known, and begins what they call for.
    pub fn choose(&mut self, now: Instant, facts: NatFacts, own_facts: NatFacts, permit: BirthdayPermit) {
        (self.facts, self.own_facts) = (facts, own_facts);
        let Some(endpoint) = self.endpoint().filter(|_| self.opened.is_none()) else {
            return;
        };
        let plan = techniques(&own_facts, &facts, permit);
        if let Some((kind, step)) = plan.rounds
            && !self.beside.rounds_tried
            && self.around.stun.is_some()
        {
            self.beside.rounds_tried = true;
            self.beside.rounds = Some(Rounds::new(now, kind, step));
            self.beside.wishes.push_back((Purpose::Rounds, rounds::SOCKETS));
        }
        if self.beside.birthday {
            return;
        }
        if let Some((sockets, low_first)) = plan.open {
            (self.beside.birthday, self.beside.low_first) = (true, low_first);
            self.beside
                .wishes
                .push_back((Purpose::Birthday, sockets.min(BIRTHDAY_SOCKETS)));
        }
        if let Some((count, block)) = plan.probe {
            self.beside.birthday = true;
            self.beside.prober = Some(Prober::new(now, endpoint.ip(), count, block));
        }
    }

    /// Sockets that are wanted, each wish once. Answered by [`sockets_opened`](Self::sockets_opened).
    pub fn next_wish(&mut self) -> Option<(Purpose, u16)> {
        self.beside.wishes.pop_front()
    }

    /// The sockets are there: as many as could be had, maybe none.
    pub fn sockets_opened(&mut self, now: Instant, purpose: Purpose, sockets: Vec<SocketName>) {
        match (purpose, self.endpoint()) {
            _ if self.opened.is_some() => {}
            (Purpose::Rounds, _) => match &mut self.beside.rounds {
                Some(rounds) if !sockets.is_empty() => rounds.sockets_opened(now, &sockets),
                // Then the main socket's series is all there is.
                _ => self.beside.rounds = None,
            },
            (Purpose::Birthday, Some(endpoint)) => {
                self.beside.opener = Some(Opener::new(now, sockets, endpoint, self.beside.low_first));
            }
            (Purpose::Birthday, None) => {}
        }
    }

    /// Where samples are taken, while there are any.
    pub fn stun_server(&self) -> Option<SocketAddr> {
        self.around.stun.filter(|_| self.beside.rounds.is_some())
    }

    /// An answer of the server's STUN at that socket; false: to no request of this attempt.
    pub fn sampled(
        &mut self,
        now: Instant,
        socket: SocketName,
        transaction: &TransactionId,
        mapped: SocketAddr,
    ) -> bool {
        let taken = self
            .beside
            .rounds
            .as_mut()
            .is_some_and(|rounds| rounds.sampled(socket, transaction, mapped));
        if taken {
            self.burst(now);
        }
        taken
    }

    /// What the other side is to be told through the server.
    pub fn next_forecast(&mut self, now: Instant) -> Option<PortForecast> {
        if self.opened.is_some() || self.failed {
            return None;
        }
        self.beside.rounds.as_mut()?.next_forecast(now)
    }

    /// The other side says where its router puts, or has put, the mapping towards this node.
    pub fn forecast_received(&mut self, now: Instant, forecast: PortForecast) {
        let ip = forecast.before.ip();
        let mut named = self.targets.iter().filter(|target| target.named);
        let known = named.any(|target| target.address.ip() == ip);
        if !known || !may_send_to(forecast.before) || self.opened.is_some() || now >= self.secret_ends {
            return;
        }
        if let (Ports::Sequential(_), Some(rounds)) = (ports(&self.own_facts), &mut self.beside.rounds) {
            rounds.heard(forecast);
            return self.burst(now);
        }
        let Some(socket) = self.beside.main else { return };
        let address = |port| SocketAddr::new(ip, port);
        self.add_shots(now, socket, predict::window(&forecast).into_iter().map(address));
        self.add_shots(
            now + AROUND_AFTER,
            socket,
            predict::around(&forecast).into_iter().map(address),
        );
    }

    fn burst(&mut self, now: Instant) {
        let Some((socket, forecast)) = self.beside.rounds.as_mut().and_then(Rounds::next_burst) else {
            return;
        };
        let ports = predict::burst(self.asked, forecast.before.port(), forecast.step);
        let ip = forecast.before.ip();
        self.add_shots(now, socket, ports.into_iter().map(|port| SocketAddr::new(ip, port)));
    }

    fn add_shots(&mut self, begins: Instant, socket: SocketName, addresses: impl Iterator<Item = SocketAddr>) {
        for address in addresses {
            if self
                .beside
                .shots
                .iter()
                .any(|shot| shot.address == address && shot.socket == socket)
            {
                continue;
            }
            if !self.beside.predicted.contains(&address) && self.beside.predicted.len() >= PREDICTED_ADDRESSES {
                return;
            }
            self.beside.predicted.insert(address);
            self.counters.predicted = self.beside.predicted.len() as u32;
            self.beside.shots.push(Shot {
                socket,
                address,
                sent: 0,
                begins,
            });
        }
    }

    /// The next packet of a technique.
    pub(super) fn next_technique(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Packet> {
        if self.failed || self.opened.is_some() {
            return None;
        }
        if let Some(step) = self
            .beside
            .rounds
            .as_mut()
            .and_then(|rounds| rounds.next_step(now, &mut random))
        {
            return self.round_step(now, step, random());
        }
        let due = |shot: &Shot| shot.next_at().is_some_and(|at| at <= now);
        while let Some(index) = self.beside.shots.iter().position(due) {
            let shot = &mut self.beside.shots[index];
            shot.sent += 1;
            let (socket, address) = (shot.socket, shot.address);
            if self.unanswered.spend(address, &mut self.counters) {
                return Some(Packet::Probe(self.scattered(socket, address, random)));
            }
        }
        if let Some(opener) = &mut self.beside.opener
            && let Some((socket, address, time_to_live)) = opener.next_packet(now, &mut self.counters)
        {
            let probe = self.scattered(socket, address, random);
            return Some(Packet::Probe(Outgoing { time_to_live, ..probe }));
        }
        let (socket, unanswered) = (self.beside.main?, &self.unanswered);
        let address = self.beside.prober.as_mut()?.next_address(
            now,
            |ip| unanswered.ports_at(ip),
            &mut random,
            &mut self.counters,
        )?;
        let allowed = self.unanswered.spend(address, &mut self.counters);
        allowed.then(|| Packet::Probe(self.scattered(socket, address, random)))
    }

    fn round_step(&mut self, now: Instant, step: Step, random: u64) -> Option<Packet> {
        match step {
            Step::Sample(socket, transaction) => self.around.stun.map(|server| Packet::Sample {
                socket,
                server,
                transaction,
            }),
            Step::Probe(socket) => {
                let endpoint = self.endpoint()?;
                let index = self.add_target(now, socket, endpoint, kind_of(endpoint), true)?;
                if !self.targets[index].heard {
                    // Its series begins when the other side is heard.
                    self.targets[index].next_at = None;
                    if !self.unanswered.spend(endpoint, &mut self.counters) {
                        return None;
                    }
                }
                Some(Packet::Probe(self.request(now, index, true, random)))
            }
        }
    }

    /// A small probe to an address that may be nobody's.
    fn scattered(&mut self, socket: SocketName, address: SocketAddr, mut random: impl FnMut() -> u64) -> Outgoing {
        let base = *self.beside.scatter.get_or_insert_with(&mut random);
        Outgoing {
            socket,
            address,
            probe: Probe {
                introduction: self.introduction,
                from_asker: self.asked,
                transaction: base.wrapping_add(address.port().into()),
                kind: ProbeKind::Request,
            },
            padded_to: 0,
            time_to_live: None,
        }
    }
}
