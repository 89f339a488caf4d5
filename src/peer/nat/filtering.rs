//! Whose packets a router lets in: one socket that speaks to the server's main address alone, and asks to be answered from its other
//! port, and from its other address.
//!
//! In: what is answered and refused, the time. Out: which requests to send. What gets through is a fact at once. Silence is one only
//! after [`ENOUGH`] requests, sent in pairs of rounds in which a plain control question on the same socket was answered: the
//! server answered in those moments, and the way stood. What else could silence an answer (the server's other port is closed by
//! a firewall of its own) is the caller's business.

use std::time::{Duration, Instant};

/// Silent requests beside an answered control question that make a filter. At 10 % loss each way one request or its answer is lost
/// with 19 %; eight in a row, 2 in a million.
pub const ENOUGH: u32 = 8;
/// Rounds at most; each sends one request of each kind that is still sought, every second one the control question. Four
/// answered pairs are enough: of ten pairs that many are answered in 9,994 runs of 10,000 at 10 % loss each way.
const MOST_ROUNDS: u8 = 20;
const PAIRS: usize = MOST_ROUNDS as usize / 2;

/// From where an answer is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The main address' other port.
    Port,
    /// The other address (and port).
    Address,
}

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// A plain question to the server's main address.
    Control {
        /// Comes back with [`Filtering::control_answered`].
        pair: u8,
    },
    /// One to be answered from elsewhere.
    Changed(Kind),
}

/// What became of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    Open,
    /// An answer got through.
    Through,
    /// None did, although the server spoke.
    Silent,
    /// It cannot be known.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Sought {
    verdict: Verdict,
    /// The server has such a place.
    possible: bool,
    sent: [u32; PAIRS],
}

/// The test. Inert until [`Filtering::seek`].
#[derive(Debug)]
pub struct Filtering {
    sought: [Sought; 2],
    controls: [bool; PAIRS],
    round: u8,
    next: Option<Instant>,
    last_sent: Option<Instant>,
}

impl Filtering {
    /// One that seeks nothing yet.
    pub fn new() -> Self {
        let sought = Sought {
            verdict: Verdict::Open,
            possible: false,
            sent: [0; PAIRS],
        };
        Self {
            sought: [sought; 2],
            controls: [false; PAIRS],
            round: 0,
            next: None,
            last_sent: None,
        }
    }

    /// The server has such a place: rounds begin (or go on with it) at `now`.
    pub fn seek(&mut self, now: Instant, kind: Kind) {
        self.sought[kind as usize].possible = true;
        self.next = self.next.or(Some(now));
    }

    /// What is known of a kind.
    pub fn verdict(&self, kind: Kind) -> Verdict {
        match self.sought[kind as usize] {
            Sought { possible: false, .. } => Verdict::Unknown,
            sought => sought.verdict,
        }
    }

    fn settle(&mut self, kind: Kind, verdict: Verdict) {
        let sought = &mut self.sought[kind as usize];
        if sought.verdict == Verdict::Open || verdict == Verdict::Through {
            sought.verdict = verdict;
        }
    }

    /// An answer from that place arrived.
    pub fn through(&mut self, kind: Kind) {
        self.settle(kind, Verdict::Through);
    }

    /// The server cannot answer from there, or answered from somewhere else.
    pub fn cannot(&mut self, kind: Kind) {
        self.settle(kind, Verdict::Unknown);
    }

    /// A control question of that pair of rounds was answered.
    pub fn control_answered(&mut self, pair: u8) {
        if let Some(control) = self.controls.get_mut(usize::from(pair)) {
            *control = true;
        }
    }

    /// Requests of that kind in rounds in which the server spoke.
    fn counted(&self, kind: Kind) -> u32 {
        let pairs = self.sought[kind as usize].sent.iter().zip(self.controls);
        pairs.filter(|(_, answered)| *answered).map(|(sent, _)| sent).sum()
    }

    fn open(&self) -> impl Iterator<Item = Kind> + use<> {
        let open = [Kind::Port, Kind::Address].map(|kind| {
            let sought = self.sought[kind as usize];
            (sought.possible && sought.verdict == Verdict::Open).then_some(kind)
        });
        open.into_iter().flatten()
    }

    /// When [`Filtering::poll`] is to be called next. `patience`: an answer that takes longer is lost.
    pub fn poll_timeout(&self, patience: Duration) -> Option<Instant> {
        self.open().next()?;
        self.next.or(self.last_sent.map(|sent| sent + patience))
    }

    /// What is to be sent now; rounds are `interval` apart.
    pub fn poll(&mut self, now: Instant, interval: Duration, patience: Duration) -> Vec<Send> {
        let enough = self.open().all(|kind| self.counted(kind) >= ENOUGH);
        if self.next.is_some() && (enough || self.round >= MOST_ROUNDS) {
            self.next = None;
        }
        if self.next.is_none() && self.last_sent.is_some_and(|sent| sent + patience <= now) {
            let silent = self.open().map(|kind| (kind, self.counted(kind) >= ENOUGH));
            for (kind, silent) in silent.collect::<Vec<_>>() {
                let verdict = if silent { Verdict::Silent } else { Verdict::Unknown };
                self.settle(kind, verdict);
            }
        }
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let pair = self.round / 2;
        let control = (self.round.is_multiple_of(2)).then_some(Send::Control { pair });
        let kinds: Vec<Kind> = self.open().collect();
        for kind in &kinds {
            self.sought[*kind as usize].sent[usize::from(pair)] += 1;
        }
        self.round += 1;
        self.next = Some(now + interval);
        self.last_sent = Some(now);
        control
            .into_iter()
            .chain(kinds.into_iter().map(Send::Changed))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_millis(150);

    /// Runs the test with answers that come at once; returns how many requests of each kind were sent.
    fn run(
        filtering: &mut Filtering,
        control: impl Fn(u8) -> bool,
        mut changed: impl FnMut(Kind) -> Option<Verdict>,
    ) -> [u32; 2] {
        let start = Instant::now();
        let mut sent = [0; 2];
        filtering.seek(start, Kind::Port);
        filtering.seek(start, Kind::Address);
        while let Some(now) = filtering.poll_timeout(PATIENCE) {
            for send in filtering.poll(now, INTERVAL, PATIENCE) {
                match send {
                    Send::Control { pair } if control(pair) => filtering.control_answered(pair),
                    Send::Control { .. } => {}
                    Send::Changed(kind) => {
                        sent[kind as usize] += 1;
                        match changed(kind) {
                            Some(Verdict::Through) => filtering.through(kind),
                            Some(_) => filtering.cannot(kind),
                            None => {}
                        }
                    }
                }
            }
        }
        sent
    }

    #[test]
    fn silence_beside_answers_is_a_filter() {
        let mut filtering = Filtering::new();
        let sent = run(&mut filtering, |_| true, |_| None);
        assert_eq!(sent, [ENOUGH; 2]);
        assert_eq!(filtering.verdict(Kind::Port), Verdict::Silent);
        assert_eq!(filtering.verdict(Kind::Address), Verdict::Silent);
    }

    #[test]
    fn silence_of_everything_is_no_filter() {
        let mut filtering = Filtering::new();
        let sent = run(&mut filtering, |_| false, |_| None);
        assert_eq!(sent, [u32::from(MOST_ROUNDS); 2]);
        assert_eq!(filtering.verdict(Kind::Port), Verdict::Unknown);
        // A server that falls silent after two pairs has not answered often enough.
        let mut filtering = Filtering::new();
        run(&mut filtering, |pair| pair < 2, |_| None);
        assert_eq!(filtering.verdict(Kind::Port), Verdict::Unknown);
    }

    #[test]
    fn what_gets_through_ends_its_kind_and_a_refusal_too() {
        let mut filtering = Filtering::new();
        let answer = |kind| {
            Some(if kind == Kind::Port {
                Verdict::Through
            } else {
                Verdict::Unknown
            })
        };
        assert_eq!(run(&mut filtering, |_| true, answer), [1, 1]);
        assert_eq!(filtering.verdict(Kind::Port), Verdict::Through);
        assert_eq!(filtering.verdict(Kind::Address), Verdict::Unknown);
        // An answer that comes after all counts.
        filtering.through(Kind::Address);
        assert_eq!(filtering.verdict(Kind::Address), Verdict::Through);
    }

    #[test]
    fn a_place_that_the_server_does_not_have_is_not_sought() {
        let mut filtering = Filtering::new();
        assert_eq!(filtering.poll_timeout(PATIENCE), None);
        let start = Instant::now();
        filtering.seek(start, Kind::Port);
        let sends = filtering.poll(start, INTERVAL, PATIENCE);
        assert_eq!(sends, [Send::Control { pair: 0 }, Send::Changed(Kind::Port)]);
        assert_eq!(filtering.verdict(Kind::Address), Verdict::Unknown);
    }
}
