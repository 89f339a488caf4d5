//! How long a router remembers a silent mapping: parallel sockets, each silent for another time, each asked after once.
//!
//! In: sockets, answers, the time. Out: requests. Each socket makes a mapping by a plain question to the server and then says nothing.
//! After its wait another socket, the *checker*, asks the server to send an answer to that mapping's port (RESPONSE-PORT). If it
//! arrives, the mapping lived. If [`ENOUGH`] do not, each beside an answered control question of the checker, it is over. A
//! socket is asked after once only, because what comes in may refresh a mapping, too. The first socket is asked after at once: it shows that
//! the server can do it at all.
//!
//! The test ends with the first wait that was too long, so in little more time than the mapping lives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Waits in seconds: routers are found with 20, 30, 60 and 120 s (RFC 4787 wants 120 and more, and allows what is less than that for no
/// port but well-known ones); 15, 25, 45 and 90 s split what lies between.
const WAITS: [u64; 9] = [10, 15, 20, 25, 30, 45, 60, 90, 120];
/// Sockets beside those of the waits: the checker, and the one that is asked after at once.
const FURTHER_SOCKETS: usize = 2;
/// Silent checks that end a mapping: as with filters, 2 in a million at 10 % loss each way.
const ENOUGH: u32 = 8;
/// Checks of one socket at most.
const MOST: u8 = 24;

/// The most sockets that are of use.
pub fn sockets_wanted(limit: Duration) -> u16 {
    (waits(limit).len() + FURTHER_SOCKETS) as u16
}

fn waits(limit: Duration) -> Vec<Duration> {
    let waits = WAITS.iter().map(|seconds| Duration::from_secs(*seconds));
    waits.filter(|wait| *wait <= limit).collect()
}

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// A plain question from the checker.
    Control {
        /// Comes back with [`Lifetime::control_answered`].
        probe: u8,
        /// Likewise.
        round: u8,
    },
    /// A question from the checker, to be answered at that socket's port.
    Check {
        /// Comes back with [`Lifetime::arrived`].
        probe: u8,
        /// The outside address of the mapping.
        mapped: SocketAddr,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its first question is not answered yet.
    Beginning,
    /// Silent since then.
    Silent {
        since: Instant,
        mapped: SocketAddr,
    },
    Alive,
    Dead,
    Unknown,
}

#[derive(Debug)]
struct Probe {
    wait: Duration,
    state: State,
    round: u8,
    next: Option<Instant>,
    /// Rounds whose control question was answered.
    controls: u32,
}

/// The test.
#[derive(Debug)]
pub struct Lifetime {
    probes: Vec<Probe>,
    checker: Option<SocketAddr>,
    over: bool,
}

impl Lifetime {
    /// A test of waits up to `limit` with that many sockets. The first socket is the checker, the others are the probes' (0, 1 …).
    pub fn new(limit: Duration, sockets: usize) -> Self {
        let mut waits = waits(limit);
        let room = sockets.saturating_sub(FURTHER_SOCKETS);
        while waits.len() > room {
            // The shortest go last: that a mapping lives for long is what a keep-alive is sized by.
            let thinned = if waits.len() > 2 { 1 } else { 0 };
            waits.remove(thinned);
        }
        let over = waits.is_empty();
        let probes = std::iter::once(Duration::ZERO).chain(waits).map(|wait| Probe {
            wait,
            state: State::Beginning,
            round: 0,
            next: None,
            controls: 0,
        });
        Self {
            probes: probes.collect(),
            checker: None,
            over,
        }
    }

    /// How many probes there are.
    pub fn probes(&self) -> u8 {
        self.probes.len() as u8
    }

    /// Whether nothing more is to be found out.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The checker's outside address.
    pub fn checker_answered(&mut self, mapped: SocketAddr) {
        self.checker = Some(mapped);
    }

    /// A probe's first question was answered, or (`None`) never was: from now on it is silent.
    pub fn begun(&mut self, now: Instant, probe: u8, mapped: Option<SocketAddr>) {
        if let Some(probe) = self.probes.get_mut(usize::from(probe))
            && probe.state == State::Beginning
        {
            match mapped {
                Some(mapped) => {
                    probe.state = State::Silent { since: now, mapped };
                    probe.next = Some(now + probe.wait);
                }
                None => probe.state = State::Unknown,
            }
        }
        self.conclude();
    }

    /// A control question was answered.
    pub fn control_answered(&mut self, probe: u8) {
        if let Some(probe) = self.probes.get_mut(usize::from(probe)) {
            probe.controls += 1;
        }
    }

    /// A check arrived at the socket that was asked after.
    pub fn arrived(&mut self, probe: u8) {
        if let Some(probe) = self.probes.get_mut(usize::from(probe))
            && matches!(probe.state, State::Silent { .. })
        {
            probe.state = State::Alive;
            probe.next = None;
        }
        self.conclude();
    }

    /// The server cannot do it.
    pub fn cannot(&mut self) {
        self.over = true;
    }

    fn conclude(&mut self) {
        let reference = self.probes[0].state;
        let decided = |probe: &Probe| !matches!(probe.state, State::Beginning | State::Silent { .. });
        self.over |= matches!(reference, State::Dead | State::Unknown)
            || self.probes.iter().any(|probe| probe.state == State::Dead)
            || self.probes.iter().all(decided);
    }

    /// How long a silent mapping lives at least, and less than how long; `None`: not known.
    pub fn result(&self) -> Option<(Duration, Option<Duration>)> {
        if self.probes[0].state != State::Alive {
            return None;
        }
        let waits = |state: State| {
            let probes = self.probes.iter().filter(move |probe| probe.state == state);
            probes.map(|probe| probe.wait)
        };
        let dead = waits(State::Dead).min();
        let alive = waits(State::Alive)
            .filter(|wait| dead.is_none_or(|dead| *wait < dead))
            .max()?;
        (dead.is_some() || alive > Duration::ZERO).then_some((alive, dead))
    }

    /// When [`Lifetime::poll`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over || self.checker.is_none() {
            return None;
        }
        self.probes.iter().filter_map(|probe| probe.next).min()
    }

    /// What is to be sent now; checks of one probe are `interval` apart, an answer that takes longer than `patience` is lost.
    pub fn poll(&mut self, now: Instant, interval: Duration, patience: Duration) -> Vec<Send> {
        let mut sends = Vec::new();
        let Some(checker) = self.checker.filter(|_| !self.over) else {
            return sends;
        };
        for (number, probe) in self.probes.iter_mut().enumerate() {
            let State::Silent { mapped, .. } = probe.state else {
                continue;
            };
            if probe.next.is_none_or(|next| next > now) {
                continue;
            }
            // What is sent to the checker's IP address proves nothing about another one.
            if mapped.ip() != checker.ip() {
                probe.state = State::Unknown;
            } else if probe.controls >= ENOUGH || probe.round > MOST {
                probe.state = if probe.controls >= ENOUGH {
                    State::Dead
                } else {
                    State::Unknown
                };
            } else if probe.round < MOST {
                let (number, round) = (number as u8, probe.round);
                sends.push(Send::Control { probe: number, round });
                sends.push(Send::Check { probe: number, mapped });
            }
            probe.round += 1;
            let enough_sent = probe.round >= MOST || u32::from(probe.round) >= ENOUGH && probe.controls + 1 >= ENOUGH;
            probe.next = Some(now + if enough_sent { patience } else { interval });
        }
        self.conclude();
        sends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_millis(200);

    /// A router that forgets after `lives`, seen through a test with that limit and that many sockets.
    fn found(lives: Duration, limit: u64, sockets: usize, server_can: bool) -> Option<(u64, Option<u64>)> {
        let start = Instant::now();
        let mut test = Lifetime::new(Duration::from_secs(limit), sockets);
        let mapped: SocketAddr = "20.0.0.1:4000".parse().unwrap();
        test.checker_answered(mapped);
        for probe in 0..test.probes() {
            test.begun(start, probe, Some(mapped));
        }
        let mut sent = 0;
        while let Some(now) = test.poll_timeout() {
            for send in test.poll(now, INTERVAL, PATIENCE) {
                sent += 1;
                assert!(sent < 1_000, "it does not end");
                match send {
                    Send::Control { probe, .. } => test.control_answered(probe),
                    Send::Check { .. } if !server_can => test.cannot(),
                    Send::Check { probe, .. } if now - start < lives => test.arrived(probe),
                    Send::Check { .. } => {}
                }
            }
        }
        assert!(test.is_over());
        test.result()
            .map(|(least, less)| (least.as_secs(), less.map(|less| less.as_secs())))
    }

    #[test]
    fn the_waits_around_the_truth_are_found() {
        let all = usize::from(sockets_wanted(Duration::from_secs(120)));
        for (lives, limit, expected) in [
            (20, 120, Some((15, Some(20)))),
            (30, 120, Some((25, Some(30)))),
            (60, 120, Some((45, Some(60)))),
            (300, 120, Some((120, None))),
            (300, 30, Some((30, None))),
            (5, 120, Some((0, Some(10)))),
            (30, 9, None),
        ] {
            assert_eq!(
                found(Duration::from_secs(lives), limit, all, true),
                expected,
                "{lives} s, up to {limit} s"
            );
        }
    }

    #[test]
    fn few_sockets_tell_less_and_nothing_wrong() {
        assert_eq!(found(Duration::from_secs(60), 120, 4, true), Some((10, Some(120))));
        assert_eq!(found(Duration::from_secs(60), 120, 3, true), Some((0, Some(120))));
        assert_eq!(found(Duration::from_secs(60), 120, 2, true), None);
        assert_eq!(found(Duration::from_secs(60), 120, 0, true), None);
    }

    #[test]
    fn a_server_that_cannot_leaves_it_unknown() {
        assert_eq!(found(Duration::from_secs(60), 120, 11, false), None);
    }

    #[test]
    fn nothing_is_told_of_another_address_or_without_control_answers() {
        let start = Instant::now();
        let mut test = Lifetime::new(Duration::from_secs(120), 11);
        test.checker_answered("20.0.0.1:4000".parse().unwrap());
        for probe in 0..test.probes() {
            test.begun(start, probe, Some("20.0.0.2:4000".parse().unwrap()));
        }
        assert!(test.poll(start, INTERVAL, PATIENCE).is_empty());
        assert!(test.is_over() && test.result().is_none());

        let mut silent = Lifetime::new(Duration::from_secs(120), 11);
        silent.checker_answered("20.0.0.1:4000".parse().unwrap());
        silent.begun(start, 0, Some("20.0.0.1:4001".parse().unwrap()));
        while let Some(now) = silent.poll_timeout() {
            silent.poll(now, INTERVAL, PATIENCE);
        }
        assert!(silent.is_over() && silent.result().is_none());
    }
}
