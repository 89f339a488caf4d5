//! Running introductions, from the moment at which both sides are told of each other until both have said how it ended.
//!
//! In: begin, what the two sides report, lost links, time. Out: [`Notice`]s for the two sides. A pair has at most one
//! attempt, whoever asked. Timers:
//!
//! - The target's reaction is awaited for [`REACTION_TIME`].
//! - The attempt as a whole, and its secret, live for [`VALID_TIME`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::codes::Code;
use crate::transport::LinkId;
use crate::transport::identity::Guid;

/// How long a target may take to acknowledge an introduction. RakNet waits 10 s; its players poll, and a level that loads
/// stops them. Our library answers by itself in the background, so that only the network counts: 5 s are several
/// retransmissions on the worst of links, and a player who waits learns it sooner.
pub const REACTION_TIME: Duration = Duration::from_secs(5);

/// How long an introduction is good for. Punching itself takes seconds; birthday punching over the full range of ports
/// 10 s; the rest is slack for a start under load.
pub const VALID_TIME: Duration = Duration::from_secs(30);

/// Most attempts that a node may have asked for and that are not over: two for every other member of the largest session,
/// because one whose end the other side has not reported yet still counts.
pub const MAX_ATTEMPTS_AS_ASKER: usize = 128;

/// Most attempts in which a node may be the target: several full sessions' worth, so that a few strangers cannot use it up.
pub const MAX_ATTEMPTS_AS_TARGET: usize = 256;

/// Most attempts of a server, at about 250 bytes each.
pub const MAX_ATTEMPTS: usize = 1 << 16;

/// Most times that an attempt's sides are told of new facts and addresses: both sides' discovery ends while it runs, in two steps each, and both may
/// move to another network once.
pub const MAX_UPDATES: u8 = 8;

/// Most forecasts of one side in an attempt: rounds of a second each for as long as punching goes on, and some to spare.
pub const MAX_FORECASTS: u8 = 16;

/// What a side must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The asker's request failed.
    Failed {
        /// The asker.
        link: LinkId,
        /// Its number for the request.
        request: u32,
        /// Whom it was for.
        target: Guid,
        /// Why.
        code: Code,
        /// Why, in words.
        text: &'static str,
    },
    /// The attempt is over for this side.
    Ended {
        /// Who is to be told.
        link: LinkId,
        /// Which attempt.
        introduction: u64,
        /// Why.
        code: Code,
    },
}

/// Why an attempt did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBegun {
    /// The pair has one that runs.
    AlreadyInProgress,
    /// The asker has too many.
    AskerBusy,
    /// The target has too many.
    TargetBusy,
    /// The server has too many.
    ServerBusy,
}

/// One side of an attempt.
#[derive(Debug, Clone, Copy)]
struct Side {
    link: LinkId,
    /// It has said how the attempt ended.
    ended: bool,
    /// Forecasts of it that were passed on.
    forecasts: u8,
}

impl Side {
    fn new(link: LinkId) -> Self {
        Self {
            link,
            ended: false,
            forecasts: 0,
        }
    }
}

#[derive(Debug)]
struct Attempt {
    asker: Side,
    target: Side,
    request: u32,
    target_guid: Guid,
    /// The two shall not learn each other's addresses.
    hidden: bool,
    /// The target showed that it lives.
    reacted: bool,
    /// How often both sides were told of new facts.
    updates: u8,
    expires: Instant,
    /// The moment under which it stands in `deadlines`.
    deadline: Instant,
}

#[derive(Debug, Default)]
struct Involved {
    as_asker: BTreeSet<u64>,
    as_target: BTreeSet<u64>,
}

/// All running introductions.
#[derive(Debug, Default)]
pub struct Introductions {
    attempts: BTreeMap<u64, Attempt>,
    pairs: BTreeMap<(LinkId, LinkId), u64>,
    involved: BTreeMap<LinkId, Involved>,
    deadlines: BTreeSet<(Instant, u64)>,
    notices: VecDeque<Notice>,
}

fn pair(one: LinkId, other: LinkId) -> (LinkId, LinkId) {
    (one.min(other), one.max(other))
}

impl Introductions {
    /// Begins an attempt under a fresh random id; the caller tells both sides. `hidden`: neither side is told anything of the other one while it
    /// runs.
    pub fn begin(
        &mut self,
        now: Instant,
        id: u64,
        (asker, request): (LinkId, u32),
        (target, target_guid): (LinkId, Guid),
        hidden: bool,
    ) -> Result<(), NotBegun> {
        if let Some(running) = self.pairs.get(&pair(asker, target)).copied() {
            // For a side that has reported its end nothing is in progress any more: it may ask anew.
            if !self.has_ended_for(running, asker) {
                return Err(NotBegun::AlreadyInProgress);
            }
            self.remove(running);
        }
        let count = |link: LinkId, of: fn(&Involved) -> usize| self.involved.get(&link).map_or(0, of);
        if count(asker, |involved| involved.as_asker.len()) >= MAX_ATTEMPTS_AS_ASKER {
            return Err(NotBegun::AskerBusy);
        }
        if count(target, |involved| involved.as_target.len()) >= MAX_ATTEMPTS_AS_TARGET {
            return Err(NotBegun::TargetBusy);
        }
        if self.attempts.len() >= MAX_ATTEMPTS || self.attempts.contains_key(&id) {
            return Err(NotBegun::ServerBusy);
        }
        let deadline = now + REACTION_TIME;
        let attempt = Attempt {
            asker: Side::new(asker),
            target: Side::new(target),
            request,
            target_guid,
            hidden,
            reacted: false,
            updates: 0,
            expires: now + VALID_TIME,
            deadline,
        };
        self.attempts.insert(id, attempt);
        self.pairs.insert(pair(asker, target), id);
        self.involved.entry(asker).or_default().as_asker.insert(id);
        self.involved.entry(target).or_default().as_target.insert(id);
        self.deadlines.insert((deadline, id));
        Ok(())
    }

    fn has_ended_for(&self, id: u64, link: LinkId) -> bool {
        self.attempts.get(&id).is_none_or(|attempt| {
            [attempt.asker, attempt.target]
                .iter()
                .any(|side| side.link == link && side.ended)
        })
    }

    /// The asker's link and the target's.
    pub fn sides(&self, id: u64) -> Option<[LinkId; 2]> {
        let attempt = self.attempts.get(&id)?;
        Some([attempt.asker.link, attempt.target.link])
    }

    /// The target acknowledges an introduction, or turns it down.
    pub fn received(&mut self, link: LinkId, id: u64, accepted: bool) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        if attempt.asker.link == link {
            // That the asker acknowledges says nothing of the target. That it declines: it gave up in the meantime.
            if !accepted {
                self.end_target(id, Code::Cancelled);
                self.remove(id);
            }
        } else if attempt.target.link == link {
            if accepted {
                self.target_reacted(id);
            } else {
                self.fail_asker(
                    id,
                    Code::Refused,
                    "the other player's game does not want to be introduced now",
                );
                self.remove(id);
            }
        }
    }

    /// A side says how the attempt ended for it.
    pub fn ended(&mut self, link: LinkId, id: u64, succeeded: bool) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let by_target = attempt.target.link == link;
        if by_target {
            attempt.target.ended = true;
        } else if attempt.asker.link == link {
            attempt.asker.ended = true;
        } else {
            return;
        }
        if attempt.asker.ended && attempt.target.ended {
            self.remove(id);
        } else if by_target || succeeded {
            // A way that the asker verified was answered by the target.
            self.target_reacted(id);
        }
    }

    /// The facts or the addresses of a node have changed. Gives who is to be told so: the attempt, the side, and the other side.
    pub fn whom_to_update(&mut self, link: LinkId) -> Vec<(u64, LinkId, LinkId)> {
        let Some(involved) = self.involved.get(&link) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for id in involved.as_asker.iter().chain(&involved.as_target) {
            let Some(attempt) = self
                .attempts
                .get_mut(id)
                .filter(|attempt| !attempt.hidden && attempt.updates < MAX_UPDATES)
            else {
                continue;
            };
            attempt.updates += 1;
            for (side, other) in [(attempt.asker, attempt.target), (attempt.target, attempt.asker)] {
                if !side.ended {
                    told.push((*id, side.link, other.link));
                }
            }
        }
        told
    }

    /// A side foretells a port. Gives the other side, if it is to hear of that.
    pub fn other_side_of_forecast(&mut self, link: LinkId, id: u64) -> Option<LinkId> {
        let attempt = self.attempts.get_mut(&id)?;
        let (side, other) = if attempt.asker.link == link {
            (&mut attempt.asker, attempt.target)
        } else if attempt.target.link == link {
            (&mut attempt.target, attempt.asker)
        } else {
            return None;
        };
        if attempt.hidden || side.ended || other.ended || side.forecasts >= MAX_FORECASTS {
            return None;
        }
        side.forecasts += 1;
        Some(other.link)
    }

    /// The asker gives up.
    pub fn cancel(&mut self, link: LinkId, request: u32) {
        let Some(involved) = self.involved.get(&link) else {
            return;
        };
        let asked = involved.as_asker.iter().copied();
        let found: Vec<u64> = asked
            .filter(|id| self.attempts.get(id).is_some_and(|attempt| attempt.request == request))
            .collect();
        for id in found {
            self.end_target(id, Code::Cancelled);
            self.remove(id);
        }
    }

    /// A node's link is over: the other sides of its attempts are told.
    pub fn link_closed(&mut self, link: LinkId) {
        let Some(involved) = self.involved.get(&link) else {
            return;
        };
        let (asked, aimed) = (involved.as_asker.clone(), involved.as_target.clone());
        for id in asked {
            self.end_target(id, Code::TargetLost);
            self.remove(id);
        }
        for id in aimed {
            self.fail_asker(
                id,
                Code::TargetLost,
                "the other player left the server while the way was being opened",
            );
            self.remove(id);
        }
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            let unanswered = self.attempts.get(&id).is_some_and(|attempt| !attempt.reacted);
            if unanswered {
                self.fail_asker(
                    id,
                    Code::TargetUnresponsive,
                    "the other player is at the server but does not react",
                );
                self.end_target(id, Code::Timeout);
            }
            self.deadlines.remove(&(deadline, id));
            self.remove(id);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next thing that a side must be told.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn target_reacted(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if !attempt.reacted {
            attempt.reacted = true;
            self.deadlines.remove(&(attempt.deadline, id));
            attempt.deadline = attempt.expires;
            self.deadlines.insert((attempt.deadline, id));
        }
    }

    fn fail_asker(&mut self, id: u64, code: Code, text: &'static str) {
        let Some(attempt) = self.attempts.get(&id).filter(|attempt| !attempt.asker.ended) else {
            return;
        };
        self.notices.push_back(Notice::Failed {
            link: attempt.asker.link,
            request: attempt.request,
            target: attempt.target_guid,
            code,
            text,
        });
    }

    fn end_target(&mut self, id: u64, code: Code) {
        let Some(attempt) = self.attempts.get(&id).filter(|attempt| !attempt.target.ended) else {
            return;
        };
        self.notices.push_back(Notice::Ended {
            link: attempt.target.link,
            introduction: id,
            code,
        });
    }

    fn remove(&mut self, id: u64) {
        let Some(attempt) = self.attempts.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(attempt.deadline, id));
        self.pairs.remove(&pair(attempt.asker.link, attempt.target.link));
        for link in [attempt.asker.link, attempt.target.link] {
            let Some(involved) = self.involved.get_mut(&link) else {
                continue;
            };
            involved.as_asker.remove(&id);
            involved.as_target.remove(&id);
            if involved.as_asker.is_empty() && involved.as_target.is_empty() {
                self.involved.remove(&link);
            }
        }
    }
}

#[cfg(test)]
#[path = "introductions_tests.rs"]
mod tests;
