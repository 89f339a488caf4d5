//! The host is lost, or leaves: who takes over, and when to believe it.
//!
//! A player whose connection to the host ended is in a *crisis*: it tells all members (`HostLost`, and `Links` with the
//! members that it reaches) and waits. It announces nobody by that alone: the connection may be broken while the
//! host lives. Someone takes over if
//! - the host said to it that it leaves, or more than half of the members that it reaches (itself included, the host
//!   not) have lost the host; and
//! - everybody before it in the order is out of its reach and of everybody's whom it reaches. (If it were enough
//!   that it does not reach them itself, two could take over at the same time.)
//!
//! The others believe a member's claim once they have lost the host themselves, or heard from it that it leaves, or heard of
//! that majority; until then they keep the claim. If instead the host removed the player in crisis, the members answer its
//! testimony with the list without it. So each crisis ends: with a new host, with the old one back, or with being cut off,
//! at the latest after [`HOST_LOST_LIMIT`].

use std::collections::BTreeSet;
use std::time::Instant;

use super::membership::Claim;
use super::session::Seat;
use super::{HOST_LOST_LIMIT, Mesh, TESTIMONY_REPEAT, reason};
use crate::codes::Code;
use crate::peer::api::MeshEvent;
use crate::transport::identity::Guid;
use crate::wire::mesh::{ChangeKind, MeshMessage};

/// This node has no host at the moment.
#[derive(Debug)]
pub(super) struct Crisis {
    /// The host said that it leaves (otherwise it was lost).
    pub left: bool,
    /// When to testify again.
    pub repeat_at: Instant,
    /// When to give up.
    pub limit: Instant,
}

/// What a member last said.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// It has lost the host.
    host_lost: bool,
    /// Whom it reaches.
    links: Option<BTreeSet<Guid>>,
}

impl Witness {
    fn lost(&self, host: Guid) -> bool {
        self.host_lost || self.links.as_ref().is_some_and(|links| !links.contains(&host))
    }
}

impl Mesh {
    /// The host left, or is lost to this node.
    pub(super) fn host_gone(&mut self, now: Instant, left: bool) {
        match &mut self.crisis {
            Some(crisis) => crisis.left |= left,
            None => {
                let (repeat_at, limit) = (now + TESTIMONY_REPEAT, now + HOST_LOST_LIMIT);
                self.crisis = Some(Crisis { left, repeat_at, limit });
                // After a graceful leave all know; the successor's word is on the way.
                if !left {
                    self.testify();
                }
            }
        }
        self.succession(now);
    }

    /// In a crisis: tells all members what this node sees.
    pub(super) fn testify(&mut self) {
        if self.crisis.is_none() {
            return;
        }
        let host = self.session.host();
        let (session, epoch) = (self.session.id, self.session.epoch);
        let reached: Vec<Guid> = self.electorate().map(|seat| seat.guid).collect();
        // The round trip is not known here.
        let links: Vec<(Guid, u32)> = reached.iter().map(|guid| (*guid, 0)).collect();
        for to in reached {
            self.send(
                to,
                MeshMessage::HostLost {
                    session,
                    epoch,
                    host,
                    lost: true,
                },
            );
            self.send(
                to,
                MeshMessage::Links {
                    session,
                    links: links.clone(),
                },
            );
        }
    }

    /// The connection to the host is back: takes the testimony back.
    pub(super) fn testify_regained(&mut self, host: Guid) {
        let (session, epoch) = (self.session.id, self.session.epoch);
        let reached = self
            .session
            .others(self.own)
            .filter(|seat| self.links.contains_key(&seat.guid));
        let links = reached.map(|seat| (seat.guid, 0)).collect();
        self.broadcast(&MeshMessage::HostLost {
            session,
            epoch,
            host,
            lost: false,
        });
        self.broadcast(&MeshMessage::Links { session, links });
    }

    pub(super) fn on_host_lost(&mut self, now: Instant, from: Guid, host: Guid, lost: bool) {
        if host == self.session.host() {
            self.witnesses.entry(from).or_default().host_lost = lost;
            self.succession(now);
        }
    }

    pub(super) fn on_links(&mut self, now: Instant, from: Guid, links: &[(Guid, u32)]) {
        let session = &self.session;
        let links = links
            .iter()
            .map(|(guid, _)| *guid)
            .filter(|guid| session.has(*guid))
            .collect();
        self.witnesses.entry(from).or_default().links = Some(links);
        self.succession(now);
    }

    /// True if this node reaches the member and it did not say that it leaves.
    fn reaches(&self, seat: &Seat) -> bool {
        self.links.contains_key(&seat.guid) && !seat.leaving
    }

    /// Members that count for a decision: within reach, without this node and the host.
    fn electorate(&self) -> impl Iterator<Item = &Seat> {
        let host = self.session.host();
        self.session
            .others(self.own)
            .filter(move |seat| seat.guid != host && self.reaches(seat))
    }

    /// True if the host said that it leaves, or most have lost it.
    fn host_is_gone(&self) -> bool {
        if self.crisis.as_ref().is_some_and(|crisis| crisis.left) {
            return true;
        }
        let host = self.session.host();
        let says_lost = |seat: &&Seat| self.witnesses.get(&seat.guid).is_some_and(|witness| witness.lost(host));
        let all = 1 + self.electorate().count();
        let lost = usize::from(self.crisis.is_some()) + self.electorate().filter(says_lost).count();
        2 * lost > all
    }

    /// True if the member cannot take over: it leaves, or nobody within reach reaches it.
    fn out_of_the_question(&self, candidate: &Seat) -> bool {
        if candidate.leaving {
            return true;
        }
        let host = self.session.host();
        let misses = |seat: &Seat| {
            self.witnesses.get(&seat.guid).is_some_and(|witness| {
                witness.lost(host)
                    && witness
                        .links
                        .as_ref()
                        .is_some_and(|links| !links.contains(&candidate.guid))
            })
        };
        !self.links.contains_key(&candidate.guid) && self.electorate().all(misses)
    }

    /// Looks whether the question who hosts can be decided, and decides it.
    pub(super) fn succession(&mut self, now: Instant) {
        if self.is_host() {
            return;
        }
        let gone = self.host_is_gone();
        if self.crisis.is_none() && !gone {
            return;
        }
        let host = self.session.host();
        let mut before = self.session.seats.iter().filter(|seat| seat.guid != host);
        let first_reached = before.clone().find(|seat| seat.guid == self.own || self.reaches(seat));
        let heir = first_reached
            .map(|seat| seat.guid)
            .filter(|guid| self.claims.contains_key(guid));
        if let Some(claim) = heir.and_then(|guid| self.claims.remove(&guid)) {
            self.accept_claim(now, claim);
        } else if gone
            && before
                .by_ref()
                .take_while(|seat| seat.guid != self.own)
                .all(|seat| self.out_of_the_question(seat))
        {
            self.take_over(now);
        }
    }

    fn accept_claim(&mut self, now: Instant, claim: Claim) {
        if claim.lists(self.own) {
            self.apply(now, claim);
        } else {
            self.removed(now, &claim);
        }
    }

    /// This node is next in the order: it goes on with those that it reaches.
    fn take_over(&mut self, now: Instant) {
        let host = self.session.host();
        let stays = |seat: &&Seat| seat.guid == self.own || (seat.guid != host && self.reaches(seat));
        let seats: Vec<Seat> = self.session.seats.iter().filter(stays).cloned().collect();
        let place = seats.first().map_or(0, |seat| seat.place);
        let epoch = self.session.successor_epoch(place);
        let text = "the host before it is gone".to_owned();
        let claim = Claim {
            epoch,
            change: ChangeKind::Host,
            subject: self.own,
            text,
            seats,
        };
        // A host that lives on behind broken connections hears that this node is gone; one that left does not care.
        let left = self.crisis.as_ref().is_some_and(|crisis| crisis.left);
        self.commit(now, claim, left.then_some(host));
    }

    pub(super) fn crisis_timeout(&mut self, now: Instant) {
        let Some(crisis) = &mut self.crisis else { return };
        if now >= crisis.limit {
            self.event(MeshEvent::MemberLeft {
                member: self.own,
                reason: reason(Code::Lost, "the host was lost, and no other player took over"),
            });
            self.broadcast(&MeshMessage::Leave {
                session: self.session.id,
            });
            self.become_alone(now);
        } else if now >= crisis.repeat_at {
            crisis.repeat_at = now + TESTIMONY_REPEAT;
            self.testify();
            self.succession(now);
        }
    }
}
