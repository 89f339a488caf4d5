//! Changing the list (host) and following it (everybody).
//!
//! The host is the only one that changes the list; each change is one `Membership` message with a newer epoch, and every
//! player derives its events from the difference of the two lists in the same way: who is gone by place, who is new by
//! place, then the new host.
//!
//! A list counts if it comes from the current host. One from another member is a *claim*: it is kept, one per
//! member, until there is evidence that the host is gone (`succession`) or until it is refuted. Whoever lists this node
//! without being its host is told so by `Leave`, so that a player is never in two lists for long. A
//! player that writes as a member and is none any more is told the list without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::session::{EPOCH_LIMIT, Seat, Session, seats_from};
use super::{CUT_OFF_GRACE, Mesh, MeshOutput, ROLL_CALL_LIMIT, TESTIMONY_REPEAT, bounded, random_id, reason};
use crate::codes::Code;
use crate::peer::api::{MeshEvent, Reason};
use crate::transport::identity::Guid;
use crate::wire::mesh::{ChangeKind, Member, MeshMessage, SessionId};

/// A list as somebody announced it.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub epoch: u64,
    pub change: ChangeKind,
    pub subject: Guid,
    pub text: String,
    pub seats: Vec<Seat>,
}

impl Claim {
    /// `None`: not a list.
    pub fn read(
        now: Instant,
        epoch: u64,
        change: ChangeKind,
        subject: Guid,
        text: String,
        members: &[Member],
    ) -> Option<Self> {
        let seats = seats_from(now, members)?;
        (epoch < EPOCH_LIMIT).then_some(Self {
            epoch,
            change,
            subject,
            text: bounded(text),
            seats,
        })
    }

    pub fn lists(&self, guid: Guid) -> bool {
        self.seats.iter().any(|seat| seat.guid == guid)
    }

    pub fn host(&self) -> Guid {
        self.seats[0].guid
    }
}

impl Mesh {
    /// Host (or whoever becomes it): announces a list. `except`: who hears of it in another way.
    pub(super) fn commit(&mut self, now: Instant, claim: Claim, except: Option<Guid>) {
        let mut audience: BTreeSet<Guid> = self.session.others(self.own).map(|seat| seat.guid).collect();
        audience.extend(claim.seats.iter().map(|seat| seat.guid));
        audience.retain(|guid| Some(*guid) != except && *guid != self.own);
        let (epoch, change, subject, text) = (claim.epoch, claim.change, claim.subject, claim.text.clone());
        self.apply(now, claim);
        let session = self.session.id;
        let members = self.session.members(now);
        for to in audience {
            let (text, members) = (text.clone(), members.clone());
            self.send(
                to,
                MeshMessage::Membership {
                    session,
                    epoch,
                    change,
                    subject,
                    text,
                    members,
                },
            );
        }
    }

    /// Host: the present list without somebody.
    fn remove_member(&mut self, now: Instant, guid: Guid, change: ChangeKind, text: String) {
        let seats = self
            .session
            .seats
            .iter()
            .filter(|seat| seat.guid != guid)
            .cloned()
            .collect();
        let claim = Claim {
            epoch: self.session.epoch + 1,
            change,
            subject: guid,
            text: bounded(text),
            seats,
        };
        self.commit(now, claim, None);
    }

    /// Follows a list that names this node: events in the order that all see alike.
    pub(super) fn apply(&mut self, now: Instant, claim: Claim) {
        let old_host = self.session.host();
        let host_left = self.crisis.as_ref().is_some_and(|crisis| crisis.left);
        self.session.epoch = claim.epoch;
        let old = self.session.replace(claim.seats);
        for seat in &old {
            if !self.session.has(seat.guid) {
                let left = if seat.guid == old_host { host_left } else { seat.leaving };
                let why = departure(claim.change, claim.subject == seat.guid, left, &claim.text);
                self.forget_member(seat.guid);
                let kicked = why.code == Code::Kicked;
                self.event(MeshEvent::MemberLeft {
                    member: seat.guid,
                    reason: why.clone(),
                });
                // The host still has to tell it.
                if kicked && !self.is_host() {
                    self.close(seat.guid, why);
                }
            }
        }
        let before: BTreeSet<Guid> = old.iter().map(|seat| seat.guid).collect();
        let new: Vec<Guid> = self.session.seats.iter().map(|seat| seat.guid).collect();
        for member in new.into_iter().filter(|guid| !before.contains(guid)) {
            self.adopt_connection(member);
            self.event(MeshEvent::MemberJoined { member });
        }
        let host = self.session.host();
        if host != old_host {
            self.event(MeshEvent::NewHost {
                host,
                old: Some(old_host),
            });
            self.host_changed(now);
        }
        self.report_unreachable();
    }

    /// The connection to a member is no longer one made for a join.
    pub(super) fn adopt_connection(&mut self, member: Guid) {
        self.fellows.remove(&member);
        if let Some(link) = self.links.get_mut(&member) {
            link.made = false;
        }
    }

    fn forget_member(&mut self, guid: Guid) {
        self.witnesses.remove(&guid);
        self.cut_off
            .retain(|(reporter, about), _| *reporter != guid && *about != guid);
        if let Some(reported) = &mut self.reported {
            reported.remove(&guid);
        }
        self.refuse_claim(guid);
    }

    /// A claim is refuted: whoever made it must not go on listing this node.
    fn refuse_claim(&mut self, from: Guid) {
        if let Some(claim) = self.claims.remove(&from)
            && claim.lists(self.own)
        {
            self.send(
                from,
                MeshMessage::Leave {
                    session: self.session.id,
                },
            );
        }
    }

    /// Everything that depended on who hosted starts anew.
    fn host_changed(&mut self, now: Instant) {
        self.crisis = None;
        self.witnesses.clear();
        self.cut_off.clear();
        self.reported = None;
        self.roll_call_at = None;
        self.roll_calls = 0;
        let host = self.session.host();
        // The new host may have gone on before this node heard that it is host.
        let next = self
            .claims
            .remove(&host)
            .filter(|claim| claim.epoch > self.session.epoch);
        while let Some(from) = self.claims.keys().next().copied() {
            self.refuse_claim(from);
        }
        if host == self.own {
            self.inherit(now);
        } else {
            self.end_all_invitations(reason(Code::WrongState, "this node does not host the session any more"));
            if let Some(claim) = next {
                self.follow_host(now, claim);
            } else if self.session.seats[0].leaving {
                self.host_gone(now, true);
            } else if !self.links.contains_key(&host) {
                self.host_gone(now, false);
            }
        }
    }

    /// A new host looks at its members: the one before may have counted some that this node has lost.
    fn inherit(&mut self, now: Instant) {
        let leaving = self.session.others(self.own).filter(|seat| seat.leaving);
        for guid in leaving.map(|seat| seat.guid).collect::<Vec<_>>() {
            self.remove_member(now, guid, ChangeKind::Left, "it left".into());
        }
        if !self.config.partial {
            let missing = self
                .session
                .others(self.own)
                .filter(|seat| !self.links.contains_key(&seat.guid));
            // It may be connecting still: the grace for members that do not reach each other counts here as well.
            self.cut_off.extend(missing.map(|seat| ((self.own, seat.guid), now)));
        }
    }

    /// A list from the current host.
    fn follow_host(&mut self, now: Instant, claim: Claim) {
        let host = self.session.host();
        let hands_over = matches!(claim.change, ChangeKind::Host | ChangeKind::Order);
        if claim.epoch <= self.session.epoch || (claim.host() != host && !hands_over) {
            self.dropped += 1;
            if claim.subject == self.own && !claim.lists(self.own) {
                // It was handed the session and has not heard of it (or never will, and goes on by itself): ask again.
                self.roll_call_at.get_or_insert(now + TESTIMONY_REPEAT);
            }
        } else if claim.lists(self.own) {
            let epoch = claim.epoch;
            self.roll_call_at = None;
            self.apply(now, claim);
            if self.is_host() {
                self.announce(now);
            } else if self.session.host() != host && self.session.epoch == epoch && self.crisis.is_none() {
                // It has not said itself that it hosts.
                self.roll_call_at = Some(now + TESTIMONY_REPEAT);
            }
        } else {
            self.removed(now, &claim);
        }
    }

    /// A host that was handed the session says so itself: whoever is not in it any more (a player that crashed and came
    /// back unnoticed) answers that.
    fn announce(&mut self, now: Instant) {
        let claim = Claim {
            epoch: self.session.epoch + 1,
            change: ChangeKind::Order,
            subject: self.own,
            text: "it hosts from here on".to_owned(),
            seats: self.session.seats.clone(),
        };
        self.commit(now, claim, None);
    }

    /// This node is not in the list any more.
    pub(super) fn removed(&mut self, now: Instant, claim: &Claim) {
        let why = departure(claim.change, claim.subject == self.own, false, &claim.text);
        self.event(MeshEvent::MemberLeft {
            member: self.own,
            reason: why,
        });
        self.become_alone(now);
    }

    /// A fresh session of one. This node closes no connection for that.
    pub(super) fn become_alone(&mut self, now: Instant) {
        while let Some(from) = self.claims.keys().next().copied() {
            self.refuse_claim(from);
        }
        self.session = Session::alone(now, random_id(&mut self.rng), self.config.own);
        self.crisis = None;
        self.witnesses.clear();
        self.cut_off.clear();
        self.reported = None;
        self.roll_call_at = None;
        self.roll_calls = 0;
        self.end_all_invitations(reason(Code::WrongState, "this node is not in the session any more"));
    }

    pub(super) fn on_membership(&mut self, now: Instant, from: Guid, session: SessionId, claim: Option<Claim>) {
        let Some(claim) = claim else {
            self.dropped += 1;
            return;
        };
        if session != self.session.id {
            self.foreign_list(from, session, claim);
        } else if from == self.own {
            self.dropped += 1;
        } else if from == self.session.host() {
            self.follow_host(now, claim);
        } else if !self.session.has(from) {
            self.dropped += 1;
            if claim.lists(self.own) {
                self.send(from, MeshMessage::Leave { session });
            }
        } else if self.is_host() {
            self.refute(now, from, claim);
        } else {
            self.member_list(now, from, claim);
        }
    }

    /// A list of a session that this node is not in: of one that it is joining, or of one that it left.
    fn foreign_list(&mut self, from: Guid, session: SessionId, claim: Claim) {
        match self.joins.values_mut().find(|join| join.session == session) {
            // The host died right after it accepted; its word may still be on the way.
            Some(join) if join.host != from && claim.lists(self.own) => join.early_claim(from, claim),
            Some(_) => self.dropped += 1,
            None => {
                self.dropped += 1;
                if claim.lists(self.own) {
                    self.send(from, MeshMessage::Leave { session });
                }
            }
        }
    }

    /// Host: a member says that it hosts. It has left the session that this node hosts.
    fn refute(&mut self, now: Instant, from: Guid, claim: Claim) {
        self.dropped += 1;
        if claim.epoch <= self.session.epoch || claim.host() != from {
            return;
        }
        if claim.lists(self.own) {
            self.send(
                from,
                MeshMessage::Leave {
                    session: self.session.id,
                },
            );
        }
        self.remove_member(
            now,
            from,
            ChangeKind::Lost,
            "it went on with a session of its own".into(),
        );
    }

    /// A list from a member that is not host here: this node was removed, or the member says that it hosts.
    fn member_list(&mut self, now: Instant, from: Guid, claim: Claim) {
        if claim.epoch <= self.session.epoch {
            self.dropped += 1;
            if claim.host() == from && claim.lists(self.own) {
                self.send(
                    from,
                    MeshMessage::Leave {
                        session: self.session.id,
                    },
                );
            }
            return;
        }
        if claim.host() == from {
            // Newer lists of the same member replace older ones: only the last one counts.
            self.claims.insert(from, claim);
            self.succession(now);
        } else if self.crisis.is_some() && !claim.lists(self.own) {
            self.removed(now, &claim);
        } else {
            self.dropped += 1;
            if claim.subject == self.own && !claim.lists(self.own) {
                // The connection to the host is back, but the host may have removed this node meanwhile: it knows.
                self.roll_call_at.get_or_insert(now + TESTIMONY_REPEAT);
            }
        }
    }

    /// Checks that a message of a session comes from one of its members. A stranger is answered in a way that ends the
    /// misunderstanding; the answer is one message for one.
    pub(super) fn is_from_member(&mut self, now: Instant, from: Guid, session: SessionId) -> bool {
        if session == self.session.id && self.session.has(from) {
            return true;
        }
        self.dropped += 1;
        if session == self.session.id {
            self.send_list(now, from, ChangeKind::Lost, from, "it was cut off from the host");
        } else if self.joins.values().all(|join| join.session != session) {
            self.send(from, MeshMessage::Leave { session });
        }
        false
    }

    /// Tells one player the list as it is.
    fn send_list(&mut self, now: Instant, to: Guid, change: ChangeKind, subject: Guid, text: &str) {
        let (session, epoch, members) = (self.session.id, self.session.epoch, self.session.members(now));
        let text = text.to_owned();
        self.send(
            to,
            MeshMessage::Membership {
                session,
                epoch,
                change,
                subject,
                text,
                members,
            },
        );
    }

    pub(super) fn on_leave(&mut self, now: Instant, from: Guid, session: SessionId) {
        if session != self.session.id || !self.session.has(from) {
            self.dropped += 1;
        } else if self.is_host() {
            self.remove_member(now, from, ChangeKind::Left, "it left".into());
        } else if from == self.session.host() {
            self.host_gone(now, true);
        } else {
            // The host tells everybody. Until then it does not count for the succession. Said again (in answer to a
            // testimony that was on the way) it changes nothing.
            let seat = self
                .session
                .seats
                .iter_mut()
                .find(|seat| seat.guid == from && !seat.leaving);
            let Some(seat) = seat else { return };
            seat.leaving = true;
            self.refuse_claim(from);
            self.testify();
            self.succession(now);
        }
    }

    /// The game leaves. Running joins end as well.
    pub(super) fn leave(&mut self, now: Instant) {
        let why = reason(Code::Cancelled, "this node gave the join up");
        let hosts: Vec<Guid> = self.joins.keys().copied().collect();
        for host in hosts {
            self.end_join(host, None, why.clone(), true);
        }
        self.end_all_invitations(reason(Code::Left, "the host left the session"));
        self.broadcast(&MeshMessage::Leave {
            session: self.session.id,
        });
        self.claims.clear();
        self.become_alone(now);
    }

    pub(super) fn kick(&mut self, now: Instant, peer: Guid, text: String) {
        if self.is_host() && peer != self.own && self.session.has(peer) {
            self.remove_member(now, peer, ChangeKind::Kicked, text.clone());
            self.close(peer, reason(Code::Kicked, bounded(text)));
        }
    }

    pub(super) fn reset_host_calculation(&mut self, now: Instant) {
        let (session, host) = (self.session.id, self.session.host());
        if self.is_host() {
            self.on_reset_place(now, self.own);
        } else {
            self.send(host, MeshMessage::ResetPlace { session });
        }
    }

    /// Host: a member's time in the session starts anew: it goes to the end of the order.
    pub(super) fn on_reset_place(&mut self, now: Instant, from: Guid) {
        if !self.is_host() {
            self.dropped += 1;
            return;
        }
        let mut seats = self.session.seats.clone();
        let Some(index) = seats.iter().position(|seat| seat.guid == from) else {
            return;
        };
        let mut seat = seats.remove(index);
        seat.place = self.session.take_place();
        seat.since = now;
        seats.push(seat);
        let text = "its time in the session starts anew".into();
        let claim = Claim {
            epoch: self.session.epoch + 1,
            change: ChangeKind::Order,
            subject: from,
            text,
            seats,
        };
        self.commit(now, claim, None);
    }

    /// The connection to a member ended.
    pub(super) fn member_lost(&mut self, now: Instant, peer: Guid, why: &Reason) {
        if self.is_host() {
            let change = if why.code == Code::Closed {
                ChangeKind::Left
            } else {
                ChangeKind::Lost
            };
            self.remove_member(now, peer, change, why.text.clone());
        } else if peer == self.session.host() && why.code == Code::Kicked {
            // Its list did not get through before.
            self.event(MeshEvent::MemberLeft {
                member: self.own,
                reason: why.clone(),
            });
            self.become_alone(now);
        } else if peer == self.session.host() {
            self.host_gone(now, false);
        } else {
            self.refuse_claim(peer);
            // A member that heard of the kick before this node did: calling it again would be of no use.
            self.report_unreachable_except((why.code == Code::Kicked).then_some(peer));
            self.testify();
            self.succession(now);
        }
    }

    /// A connection to a member stands again (or at last).
    pub(super) fn member_reconnected(&mut self, now: Instant, peer: Guid) {
        self.adopt_connection(peer);
        if self.is_host() {
            self.cut_off.remove(&(self.own, peer));
            return;
        }
        if peer == self.session.host() && self.crisis.as_ref().is_some_and(|crisis| !crisis.left) {
            self.crisis = None;
            self.testify_regained(peer);
            self.reported = None;
            // The host has most likely removed this node meanwhile: the report below makes it say so.
        }
        self.report_unreachable();
        self.testify();
        self.succession(now);
    }

    /// Member: the host was handed the session by another, or does not count this node. Asked again and again until it
    /// announces itself or says that this node is out; if it never does, it is no host.
    pub(super) fn roll_call_timeout(&mut self, now: Instant) {
        if self.roll_call_at.is_some_and(|at| at <= now) {
            self.roll_calls += 1;
            if self.roll_calls > ROLL_CALL_LIMIT {
                self.roll_call_at = None;
                self.host_gone(now, false);
            } else {
                self.roll_call_at = Some(now + TESTIMONY_REPEAT);
                self.reported = None;
                self.report_unreachable();
            }
        }
    }

    /// Member: tells the host whom this node does not reach, if that changed. A new host hears it in any case: if it does not
    /// count this node as a member (it may have been handed the session while it had lost the host before), it says so.
    pub(super) fn report_unreachable(&mut self) {
        self.report_unreachable_except(None);
    }

    /// The same; `except` is not dialled.
    fn report_unreachable_except(&mut self, except: Option<Guid>) {
        let host = self.session.host();
        if host == self.own || !self.links.contains_key(&host) {
            return;
        }
        let others = self.session.others(self.own).map(|seat| seat.guid);
        let missing: BTreeSet<Guid> = others.filter(|guid| !self.links.contains_key(guid)).collect();
        if self.reported.as_ref() != Some(&missing) {
            self.dial_missing(&missing, except);
            let members = missing.iter().copied().collect();
            self.reported = Some(missing);
            let message = MeshMessage::Unreachable {
                session: self.session.id,
                epoch: self.session.epoch,
                members,
            };
            self.send(host, message);
        }
    }

    /// Tries once more to reach members whose connection ended (a player that returned is still held for connected by others
    /// for a while). As in a join, the later one dials.
    fn dial_missing(&mut self, missing: &BTreeSet<Guid>, except: Option<Guid>) {
        if !self.config.join_auto {
            return;
        }
        let before = self.session.seats.iter().take_while(|seat| seat.guid != self.own);
        let fresh = before.filter(|seat| {
            missing.contains(&seat.guid)
                && Some(seat.guid) != except
                && !self
                    .reported
                    .as_ref()
                    .is_some_and(|reported| reported.contains(&seat.guid))
        });
        for peer in fresh.map(|seat| seat.key).collect::<Vec<_>>() {
            if self.dialing.insert(peer.guid()) {
                self.outputs.push_back(MeshOutput::Connect { peer });
            }
        }
    }

    /// Host: what a member does not reach. Each report replaces the one before it.
    pub(super) fn on_unreachable(&mut self, now: Instant, from: Guid, epoch: u64, members: &[Guid]) {
        if !self.is_host() {
            if epoch < self.session.epoch {
                // It was out of reach while this node handed the session over, and still takes it for the host.
                self.send_list(
                    now,
                    from,
                    ChangeKind::Order,
                    self.session.host(),
                    "another player hosts",
                );
            } else {
                self.dropped += 1;
            }
            return;
        }
        let session = &self.session;
        let about: BTreeSet<Guid> = members
            .iter()
            .copied()
            .filter(|guid| *guid != from && *guid != self.own && session.has(*guid))
            .collect();
        self.cut_off
            .retain(|(reporter, guid), _| *reporter != from || about.contains(guid));
        if !self.config.partial {
            for guid in about {
                self.cut_off.entry((from, guid)).or_insert(now);
            }
        }
    }

    /// Host: decides about members that do not reach each other although the host reaches both.
    pub(super) fn cut_off_timeout(&mut self, now: Instant) {
        while self.is_host() && self.cut_off.values().any(|since| *since + CUT_OFF_GRACE <= now) {
            let Some(worst) = self.most_cut_off(now) else { return };
            let text = "it did not reach all members; the host decided".to_owned();
            self.remove_member(now, worst, ChangeKind::Lost, text);
        }
    }

    /// Who has the most broken connections; of several the one that came last. A report that the other side does not
    /// confirm counts against the reporter alone, so that nobody can have others removed.
    fn most_cut_off(&self, now: Instant) -> Option<Guid> {
        let mut blame: BTreeMap<Guid, u32> = BTreeMap::new();
        let is_due = |since: &Instant| *since + CUT_OFF_GRACE <= now;
        for ((reporter, about), _) in self.cut_off.iter().filter(|(_, since)| is_due(since)) {
            let blamed = if *reporter == self.own { about } else { reporter };
            *blame.entry(*blamed).or_default() += 1;
            if self
                .cut_off
                .get(&(*about, *reporter))
                .is_some_and(|since| !is_due(since))
            {
                *blame.entry(*about).or_default() += 1;
            }
        }
        let rank = |(guid, count): (Guid, u32)| self.session.seat(guid).map(|seat| (count, seat.place, guid));
        blame.into_iter().filter_map(rank).max().map(|worst| worst.2)
    }
}

/// What `MEMBER_LEFT` says.
fn departure(change: ChangeKind, is_subject: bool, left: bool, text: &str) -> Reason {
    match change {
        ChangeKind::Kicked if is_subject => reason(Code::Kicked, text),
        ChangeKind::Left if is_subject => reason(Code::Left, text),
        ChangeKind::Lost if is_subject => reason(Code::Lost, text),
        _ if left => reason(Code::Left, "it left"),
        _ => reason(Code::Lost, "it was lost"),
    }
}
