//! Verified joins at the host.
//!
//! Joiners connect to the members in parallel; only the change of the list is serial. A joiner that was ready before
//! somebody else got in must reach the newcomer too: it gets START again with the missing ones, unless it had already
//! told that it reaches them (START also names those who join at the same time).

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use rand::Rng;

use super::membership::Claim;
use super::session::Seat;
use super::{Mesh, bounded, reason};
use crate::codes::Code;
use crate::peer::api::{MeshEvent, Reason, RequestId};
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::mesh::{ChangeKind, Member, MemberState, MeshMessage};
use crate::wire::{MAX_MEMBERS, MAX_USER_DATA};

/// START's flag: a join may succeed with unreached members.
pub(super) const FLAG_PARTIAL: u8 = 1;

/// How far a join is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The joiner is connecting.
    Connecting,
    /// The game was asked.
    Asked,
    /// The game said yes, with this data, but the joiner must reach a newcomer first.
    Answered(Bytes),
}

/// A join at the host.
#[derive(Debug)]
pub(super) struct Invitation {
    /// 0 once its terminal event was emitted.
    pub request: RequestId,
    pub deadline: Instant,
    key: PublicKey,
    join: u64,
    /// Of the last START.
    epoch: u64,
    /// The last START was answered.
    ready: bool,
    data: Bytes,
    /// Whom STARTs have named as members.
    offered: BTreeSet<Guid>,
    reached: BTreeSet<Guid>,
    /// Could not be reached, in a session that allows it.
    forgiven: BTreeSet<Guid>,
    stage: Stage,
}

impl Invitation {
    /// True if it has this random name.
    pub fn is(&self, join: u64) -> bool {
        self.join == join
    }

    /// True while the game's answer is awaited.
    pub fn asked(&self) -> bool {
        self.stage == Stage::Asked
    }
}

impl Mesh {
    pub(super) fn start_join(&mut self, now: Instant, request: RequestId, peer: Guid, data: Bytes) {
        let refusal = self.refusal(peer, &data);
        let Some(link) = self.links.get(&peer).filter(|_| refusal.is_none()) else {
            let reason = refusal.unwrap_or_else(|| reason(Code::NotConnected, "there is no connection to that player"));
            self.event(MeshEvent::JoinFailed {
                request,
                peer,
                member: None,
                reason,
            });
            return;
        };
        let invitation = Invitation {
            request,
            deadline: now + self.config.join_time_limit,
            key: link.key,
            join: self.rng.next_u64(),
            epoch: self.session.epoch,
            ready: false,
            data,
            offered: BTreeSet::new(),
            reached: BTreeSet::new(),
            forgiven: BTreeSet::new(),
            stage: Stage::Connecting,
        };
        let joining: Vec<PublicKey> = self.invitations.values().map(|other| other.key).collect();
        self.invitations.insert(peer, invitation);
        self.offer(now, peer, joining);
    }

    /// Why a join cannot start.
    fn refusal(&self, peer: Guid, data: &Bytes) -> Option<Reason> {
        let room = MAX_MEMBERS.min(self.config.max_peers.saturating_add(1));
        Some(if peer == self.own {
            reason(Code::Self_, "a node cannot join itself")
        } else if !self.links.contains_key(&peer) {
            reason(Code::NotConnected, "there is no connection to that player")
        } else if data.len() > MAX_USER_DATA {
            reason(Code::TooLarge, "data for START is larger than 64 KiB")
        } else if !self.is_host() || self.crisis.is_some() {
            reason(Code::WrongState, "only the session's host can start a join")
        } else if !self.joins.is_empty() {
            reason(Code::WrongState, "this node is joining a session itself")
        } else if self.session.has(peer) {
            reason(Code::WrongState, "that player is in the session already")
        } else if self.invitations.contains_key(&peer) {
            reason(Code::AlreadyInProgress, "a join of that player is running")
        } else if self.session.seats.len() + self.invitations.len() >= room {
            reason(Code::Full, "the session is full")
        } else {
            return None;
        })
    }

    /// Sends START with the members that the joiner has not been offered.
    fn offer(&mut self, now: Instant, joiner: Guid, joining: Vec<PublicKey>) {
        let (session, epoch, own) = (self.session.id, self.session.epoch, self.own);
        let relay_policy = self.session.relay_policy;
        let members = self.session.members(now);
        let flags = if self.config.partial { FLAG_PARTIAL } else { 0 };
        let Some(invitation) = self.invitations.get_mut(&joiner) else {
            return;
        };
        let missing = |member: &Member| {
            let guid = member.guid();
            guid != own && !invitation.reached.contains(&guid) && !invitation.forgiven.contains(&guid)
        };
        let members: Vec<Member> = members.into_iter().filter(missing).collect();
        invitation.offered.extend(members.iter().map(Member::guid));
        invitation.epoch = epoch;
        invitation.ready = false;
        let left = invitation.deadline.saturating_duration_since(now).as_millis();
        let start = MeshMessage::JoinStart {
            session,
            join: invitation.join,
            epoch,
            flags,
            time_limit_ms: u32::try_from(left).unwrap_or(u32::MAX),
            members,
            joining,
            data: invitation.data.clone(),
            relay_policy,
        };
        self.send(joiner, start);
    }

    pub(super) fn on_capable(
        &mut self,
        now: Instant,
        from: Guid,
        join: u64,
        epoch: u64,
        results: &[(Guid, MemberState)],
        data: Bytes,
    ) {
        let known = self
            .invitations
            .get_mut(&from)
            .filter(|invitation| invitation.join == join);
        let Some(invitation) = known.filter(|_| results.len() <= MAX_MEMBERS && data.len() <= MAX_USER_DATA) else {
            self.dropped += 1;
            return;
        };
        for (guid, state) in results {
            match state {
                MemberState::Connected => invitation.reached.insert(*guid),
                _ => invitation.reached.remove(guid),
            };
        }
        // An answer to an older START tells whom the joiner reaches, but decides nothing.
        if epoch != invitation.epoch {
            return;
        }
        invitation.ready = true;
        let current: Vec<Guid> = self.session.others(self.own).map(|seat| seat.guid).collect();
        let unreached = |guid: &&Guid| !invitation.reached.contains(guid) && invitation.offered.contains(guid);
        let unreached: Vec<Guid> = current.iter().filter(unreached).copied().collect();
        if self.config.partial {
            invitation.forgiven.extend(unreached);
        } else if let Some(member) = unreached.first().copied() {
            let why = reason(
                Code::MemberUnreachable,
                format!("the joiner could not reach member {member}"),
            );
            self.end_invitation(from, Some(member), why, true);
            return;
        }
        self.advance(now, from, data);
    }

    /// The joiner answered and nobody failed: START again, ask the game, or let it in.
    fn advance(&mut self, now: Instant, joiner: Guid, data: Bytes) {
        if self.lacks_somebody(joiner) {
            self.offer(now, joiner, Vec::new());
            return;
        }
        let Some(invitation) = self.invitations.get_mut(&joiner) else {
            return;
        };
        match &invitation.stage {
            Stage::Connecting => {
                invitation.stage = Stage::Asked;
                let request = std::mem::take(&mut invitation.request);
                self.event(MeshEvent::JoinCapable {
                    request,
                    joiner,
                    data: data.into(),
                });
            }
            Stage::Asked => {}
            Stage::Answered(data) => {
                let data = data.clone();
                self.admit(now, joiner, data);
            }
        }
    }

    /// True if there is a member that the joiner has not reached.
    fn lacks_somebody(&self, joiner: Guid) -> bool {
        let Some(invitation) = self.invitations.get(&joiner) else {
            return false;
        };
        let mut others = self.session.others(self.own);
        others.any(|seat| !invitation.reached.contains(&seat.guid) && !invitation.forgiven.contains(&seat.guid))
    }

    pub(super) fn respond_join(&mut self, now: Instant, joiner: Guid, accept: bool, mut data: Bytes) {
        let complete = !self.lacks_somebody(joiner);
        let known = self.invitations.get_mut(&joiner);
        let Some(invitation) = known.filter(|invitation| invitation.asked()) else {
            return;
        };
        data.truncate(MAX_USER_DATA);
        if !accept {
            let join = invitation.join;
            self.invitations.remove(&joiner);
            self.send(joiner, MeshMessage::JoinRejected { join, data });
        } else if invitation.ready && complete {
            self.admit(now, joiner, data);
        } else {
            invitation.stage = Stage::Answered(data);
        }
    }

    /// The joiner is a member from here on.
    fn admit(&mut self, now: Instant, joiner: Guid, data: Bytes) {
        let Some(invitation) = self.invitations.remove(&joiner) else {
            return;
        };
        let mut seats = self.session.seats.clone();
        let place = self.session.take_place();
        seats.push(Seat {
            key: invitation.key,
            guid: joiner,
            place,
            since: now,
            leaving: false,
        });
        let epoch = self.session.epoch + 1;
        let claim = Claim {
            epoch,
            change: ChangeKind::Joined,
            subject: joiner,
            text: String::new(),
            seats,
        };
        self.commit(now, claim, Some(joiner));
        let session = self.session.id;
        let members = self.session.members(now);
        self.send(
            joiner,
            MeshMessage::JoinAccepted {
                session,
                join: invitation.join,
                epoch,
                members,
                data,
            },
        );
        let lacking =
            |(other, invitation): (&Guid, &Invitation)| (!invitation.reached.contains(&joiner)).then_some(*other);
        let lacking: Vec<Guid> = self.invitations.iter().filter_map(lacking).collect();
        for other in lacking {
            self.offer(now, other, Vec::new());
        }
    }

    /// Ends a join without a decision.
    pub(super) fn end_invitation(&mut self, joiner: Guid, member: Option<Guid>, why: Reason, tell: bool) {
        let Some(invitation) = self.invitations.remove(&joiner) else {
            return;
        };
        if tell {
            let failed = MeshMessage::JoinFailed {
                join: invitation.join,
                code: why.code.number(),
                member: member.unwrap_or(Guid(0)),
                text: bounded(why.text.clone()),
            };
            self.send(joiner, failed);
        }
        let request = invitation.request;
        self.event(MeshEvent::JoinFailed {
            request,
            peer: joiner,
            member,
            reason: why,
        });
    }

    pub(super) fn end_all_invitations(&mut self, why: Reason) {
        while let Some(joiner) = self.invitations.keys().next().copied() {
            self.end_invitation(joiner, None, why.clone(), true);
        }
    }

    pub(super) fn invitations_timeout(&mut self, now: Instant) {
        let due = self
            .invitations
            .iter()
            .filter(|(_, invitation)| invitation.deadline <= now);
        let due: Vec<Guid> = due.map(|(joiner, _)| *joiner).collect();
        for joiner in due {
            let why = reason(Code::Timeout, "the join took longer than its time limit");
            self.end_invitation(joiner, None, why, true);
        }
    }
}
