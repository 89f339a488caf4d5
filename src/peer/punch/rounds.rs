//! Rounds of a side whose router gives ports in sequence: fresh samples around a fresh mapping, and what the other side must know of them.
//!
//! In: sockets of the pool, answers of the server's STUN, the time. Out: packets in the order in which the router must see them (a sample, a
//! probe, a sample), a forecast for the other side, and, where both sides' ports must be foreseen, when to send the burst. Each socket is used
//! for one purpose only, so that each packet makes a mapping that the router has not made before. A request that is repeated shows the mapping
//! that its first packet made, so loss costs time, not truth; except where the first was lost before the router: then the next round's
//! samples are right.
//!
//! Timers: rounds begin at [`ROUNDS`]; a request is repeated at [`REPEATS`]; without the second sample the forecast goes out
//! [`WITHOUT_SECOND`] after the round's beginning.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::techniques::RoundKind;
use crate::engine::SocketName;
use crate::wire::introduction::PortForecast;
use crate::wire::stun::TransactionId;

/// When rounds begin. One takes two round trips to the server and two to the other side; the later ones are for loss and for routers that
/// somebody else used at that moment.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(900), Duration::from_millis(2_400)];
/// When a request to the server is repeated, after the first.
const REPEATS: [Duration; 3] = [
    Duration::from_millis(120),
    Duration::from_millis(300),
    Duration::from_millis(600),
];
/// See the module's documentation. Most of the repeats had their chance.
const WITHOUT_SECOND: Duration = Duration::from_millis(500);
/// When the socket of the mapping that is sought sends again: whoever has probed that mapping in vain (its packet was lost, or ours was)
/// has opened its own router for it.
const PROBE_AGAIN: Duration = Duration::from_millis(450);
/// Sockets of one round: two for samples, one for the mapping that is sought.
const SOCKETS_A_ROUND: u16 = 3;
/// Sockets that all rounds need.
pub const SOCKETS: u16 = SOCKETS_A_ROUND * ROUNDS.len() as u16;

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A STUN request.
    Sample(SocketName, TransactionId),
    /// A probe to the other side's address.
    Probe(SocketName),
}

#[derive(Debug)]
struct Sample {
    socket: SocketName,
    transaction: TransactionId,
    sent: usize,
    mapped: Option<SocketAddr>,
}

#[derive(Debug)]
struct Round {
    began: Instant,
    before: Sample,
    middle: SocketName,
    /// Probes that the middle socket has sent.
    probed: u8,
    after: Option<Sample>,
    told: bool,
    /// The other side's forecast was used for a burst.
    burst: bool,
}

/// All rounds of an attempt.
#[derive(Debug)]
pub struct Rounds {
    kind: RoundKind,
    step: i16,
    begin: Instant,
    free: Vec<SocketName>,
    next: usize,
    current: Option<Round>,
    heard: Option<PortForecast>,
}

impl Rounds {
    /// Rounds that wait for their sockets.
    pub fn new(now: Instant, kind: RoundKind, step: i16) -> Self {
        Self {
            kind,
            step,
            begin: now,
            free: Vec::new(),
            next: 0,
            current: None,
            heard: None,
        }
    }

    /// The sockets are there. The first round begins now.
    pub fn sockets_opened(&mut self, now: Instant, sockets: &[SocketName]) {
        self.begin = now;
        self.free = sockets.to_vec();
    }

    fn next_round(&self) -> Option<Instant> {
        let enough = self.free.len() >= usize::from(SOCKETS_A_ROUND);
        let at = ROUNDS.get(self.next).map(|after| self.begin + *after);
        at.filter(|_| enough)
    }

    /// The next packet. Those of a round's beginning come in the order that matters.
    pub fn next_step(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Option<Step> {
        if self.next_round().is_some_and(|at| at <= now) {
            self.begin_round(now, &mut random);
        }
        let kind = self.kind;
        let round = self.current.as_mut()?;
        let age = now - round.began;
        if let Some(step) = round.before.due(age) {
            return Some(step);
        }
        if kind == RoundKind::Burst {
            return None;
        }
        if round.probed == 0 || (round.probed == 1 && age >= PROBE_AGAIN) {
            round.probed += 1;
            return Some(Step::Probe(round.middle));
        }
        round.after.as_mut()?.due(age)
    }

    fn begin_round(&mut self, now: Instant, mut random: impl FnMut() -> u64) {
        let mut sockets = self.free.drain(..usize::from(SOCKETS_A_ROUND));
        let mut sample = || {
            let mut transaction = [0; 12];
            transaction[..8].copy_from_slice(&random().to_be_bytes());
            transaction[8..].copy_from_slice(&random().to_be_bytes()[..4]);
            transaction
        };
        let mut make = |socket| Sample {
            socket,
            transaction: sample(),
            sent: 0,
            mapped: None,
        };
        let (Some(first), Some(middle), Some(last)) = (sockets.next(), sockets.next(), sockets.next()) else {
            return;
        };
        let after = (self.kind == RoundKind::Window).then(|| make(last));
        self.current = Some(Round {
            began: now,
            before: make(first),
            middle,
            probed: 0,
            after,
            told: false,
            burst: false,
        });
        drop(sockets);
        self.next += 1;
    }

    /// An answer of the server at that socket; false: to no request of these. The first one counts.
    pub fn sampled(&mut self, socket: SocketName, transaction: &TransactionId, mapped: SocketAddr) -> bool {
        let Some(round) = self.current.as_mut() else {
            return false;
        };
        let samples = [Some(&mut round.before), round.after.as_mut()];
        let found = samples
            .into_iter()
            .flatten()
            .find(|sample| sample.transaction == *transaction && sample.socket == socket);
        if let Some(sample) = found {
            sample.mapped.get_or_insert(mapped);
            return true;
        }
        false
    }

    /// What the other side is to be told, once.
    pub fn next_forecast(&mut self, now: Instant) -> Option<PortForecast> {
        let number = self.next.checked_sub(1)? as u8;
        let round = self.current.as_mut().filter(|round| !round.told)?;
        let before = round.before.mapped?;
        let after = match &round.after {
            None => before.port(),
            Some(sample) => match sample.mapped {
                Some(after) => after.port(),
                None if now >= round.began + WITHOUT_SECOND => before.port(),
                None => return None,
            },
        };
        round.told = true;
        Some(PortForecast {
            round: number,
            before,
            after,
            step: self.step,
        })
    }

    /// The other side, whose router gives ports in sequence as well, has taken its sample.
    pub fn heard(&mut self, forecast: PortForecast) {
        self.heard = Some(forecast);
    }

    /// The burst that is to be sent now: from which socket, and the other side's forecast of the same round.
    pub fn next_burst(&mut self) -> Option<(SocketName, PortForecast)> {
        let number = self.next.checked_sub(1)? as u8;
        let forecast = self.heard.filter(|forecast| forecast.round == number)?;
        let ready = |round: &&mut Round| round.before.mapped.is_some() && !round.burst;
        let round = self.current.as_mut().filter(ready)?;
        if self.kind != RoundKind::Burst {
            return None;
        }
        round.burst = true;
        Some((round.middle, forecast))
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let current = self.current.as_ref().map(|round| {
            let samples = [Some(&round.before), round.after.as_ref()];
            let repeats = samples.into_iter().flatten().filter_map(Sample::next_at);
            let probe = (self.kind == RoundKind::Window && round.probed < 2).then_some(PROBE_AGAIN);
            let tell =
                (!round.told && round.after.is_some() && round.before.mapped.is_some()).then_some(WITHOUT_SECOND);
            let due = repeats.chain(probe).chain(tell).min();
            due.map(|after| round.began + after)
        });
        current.flatten().into_iter().chain(self.next_round()).min()
    }
}

impl Sample {
    /// Time after the round's beginning at which it is (again) asked for.
    fn next_at(&self) -> Option<Duration> {
        match self.sent {
            _ if self.mapped.is_some() => None,
            0 => Some(Duration::ZERO),
            sent => REPEATS.get(sent - 1).copied(),
        }
    }

    fn due(&mut self, age: Duration) -> Option<Step> {
        self.next_at().filter(|at| *at <= age)?;
        self.sent += 1;
        Some(Step::Sample(self.socket, self.transaction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_answer_to_the_very_request_is_a_sample() {
        let now = Instant::now();
        let mut rounds = Rounds::new(now, RoundKind::Window, 1);
        let sockets: Vec<SocketName> = (0..SOCKETS).map(SocketName::Birthday).collect();
        rounds.sockets_opened(now, &sockets);
        let (mut number, mut samples) = (0, Vec::new());
        while let Some(step) = rounds.next_step(now, || {
            number += 1;
            number
        }) {
            if let Step::Sample(socket, transaction) = step {
                samples.push((socket, transaction));
            }
        }
        let [(first, before), (last, after)] = samples[..] else {
            panic!("{samples:?}")
        };
        let mapped = |port: u16| SocketAddr::from(([20, 0, 7, 1], port));
        // Another socket's, nobody's, one bit off.
        let mut bent = before;
        bent[11] ^= 1;
        assert!(!rounds.sampled(last, &before, mapped(9)));
        assert!(!rounds.sampled(SocketName::Udp4, &before, mapped(9)));
        assert!(!rounds.sampled(first, &bent, mapped(9)));
        assert!(!rounds.sampled(first, &[0; 12], mapped(9)));
        assert_eq!(rounds.next_forecast(now + WITHOUT_SECOND), None);
        assert!(rounds.sampled(first, &before, mapped(5_000)));
        assert!(rounds.sampled(last, &after, mapped(5_002)));
        // Whoever saw the request and is late moves nothing.
        rounds.sampled(first, &before, mapped(9));
        let forecast = rounds.next_forecast(now).unwrap();
        assert_eq!((forecast.before, forecast.after), (mapped(5_000), 5_002));
    }
}
