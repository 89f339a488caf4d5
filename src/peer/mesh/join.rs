//! Verified joins at the joiner.
//!
//! START is acted on only from a peer that this node wished to be connected to (whichever side's dial became the connection), and names
//! at most 64 players; another peer is told POLICY, one answer for each START. Auto: the mesh asks for a
//! connection to each; manual: the game connects, and the states follow. When every member is resolved, CAPABLE goes to the host;
//! whenever a state changes after that, it goes again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::membership::Claim;
use super::session::{EPOCH_LIMIT, Session, seats_from};
use super::{JOINER_SLACK, MAX_JOIN_TIME, MAX_RUNNING_JOINS, Mesh, MeshOutput, bounded, reason};
use crate::codes::Code;
use crate::peer::api::{MeshEvent, Reason};
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::{Member, MemberState, MeshMessage, SessionId};
use crate::wire::{MAX_MEMBERS, MAX_USER_DATA};

/// Somebody to reach.
#[derive(Debug)]
struct Target {
    key: PublicKey,
    guid: Guid,
    state: MemberState,
    /// Why it failed.
    text: String,
    /// A member; otherwise somebody who is joining at the same time, for whom CAPABLE does not wait.
    member: bool,
}

/// A join at the joiner.
#[derive(Debug)]
pub(super) struct Join {
    pub host: Guid,
    pub session: SessionId,
    /// The session's: it holds for this node from START on, as it decides how the members may be reached.
    pub relay_policy: RelayPolicy,
    pub deadline: Instant,
    join: u64,
    /// Of the last START.
    epoch: u64,
    capable_sent: bool,
    targets: Vec<Target>,
    /// Lists that came before this node heard that it is in.
    early: BTreeMap<Guid, Claim>,
}

impl Join {
    /// True if it names this player.
    pub fn lists(&self, guid: Guid) -> bool {
        self.targets.iter().any(|target| target.guid == guid)
    }

    /// The random name that its host gave it.
    #[cfg(test)]
    pub fn join_number(&self) -> u64 {
        self.join
    }

    /// Members with states.
    pub fn view(&self) -> Vec<(Guid, MemberState, String)> {
        let members = self.targets.iter().filter(|target| target.member);
        members
            .map(|target| (target.guid, target.state, target.text.clone()))
            .collect()
    }

    /// Keeps a list from somebody who seems to have taken over from the host.
    pub fn early_claim(&mut self, from: Guid, claim: Claim) {
        if claim.host() == from && (self.early.len() < MAX_MEMBERS || self.early.contains_key(&from)) {
            self.early.insert(from, claim);
        }
    }

    fn resolved(&self) -> bool {
        let open = |target: &Target| matches!(target.state, MemberState::Pending | MemberState::Connecting);
        !self.targets.iter().any(|target| target.member && open(target))
    }

    /// Adds whom a START names. False: more than a session holds.
    fn merge(&mut self, own: Guid, members: &[Member], joining: &[PublicKey]) -> bool {
        let named = members
            .iter()
            .map(|member| (member.key, true))
            .chain(joining.iter().map(|key| (*key, false)));
        for (key, member) in named {
            let guid = key.guid();
            if guid == own || guid == self.host {
                return false;
            }
            let count = self.targets.len();
            match self.targets.iter_mut().find(|target| target.guid == guid) {
                Some(target) => {
                    target.member |= member;
                    // Named again because it failed as a fellow joiner: one more try.
                    if member && target.state == MemberState::Failed {
                        target.state = MemberState::Pending;
                    }
                }
                // Members may come and go while a join runs; twice a session's size is more than an honest one needs.
                None if count >= 2 * MAX_MEMBERS => return false,
                None => {
                    let (state, text) = (MemberState::Pending, String::new());
                    self.targets.push(Target {
                        key,
                        guid,
                        state,
                        text,
                        member,
                    });
                }
            }
        }
        true
    }
}

impl Mesh {
    pub(super) fn on_start(&mut self, now: Instant, from: Guid, start: MeshMessage) {
        let MeshMessage::JoinStart {
            session,
            join,
            epoch,
            time_limit_ms,
            members,
            joining,
            data,
            relay_policy,
            ..
        } = start
        else {
            return;
        };
        let fits = members.len() + joining.len() <= MAX_MEMBERS && data.len() <= MAX_USER_DATA && epoch < EPOCH_LIMIT;
        if !fits {
            self.dropped += 1;
            return;
        }
        if let Some(running) = self.joins.get_mut(&from).filter(|running| running.join == join) {
            let same = relay_policy == running.relay_policy;
            if !same || epoch < running.epoch || !running.merge(self.own, &members, &joining) {
                self.dropped += 1;
                return;
            }
            running.epoch = epoch;
            running.capable_sent = false;
            self.work_off(from);
            return;
        }
        if let Some(why) = self.start_refusal(from) {
            self.dropped += u64::from(why.code == Code::Policy);
            self.decline(from, join, why);
            return;
        }
        if let Some(why) = self.opposite_policy(relay_policy) {
            // Its game wished for this host, and shall know as well why it does not get in.
            let link = self.links.get_mut(&from);
            if link.is_some_and(|link| link.declined.replace(relay_policy) != Some(relay_policy)) {
                self.event(MeshEvent::JoinFailed {
                    request: 0,
                    peer: from,
                    member: None,
                    reason: why.clone(),
                });
            }
            self.decline(from, join, why);
            return;
        }
        let limit = Duration::from_millis(time_limit_ms.into()).min(MAX_JOIN_TIME) + JOINER_SLACK;
        let deadline = now + limit;
        let (targets, early) = (Vec::new(), BTreeMap::new());
        let mut new = Join {
            host: from,
            session,
            relay_policy,
            deadline,
            join,
            epoch,
            capable_sent: false,
            targets,
            early,
        };
        if !new.merge(self.own, &members, &joining) {
            self.dropped += 1;
            return;
        }
        self.joins.insert(from, new);
        self.refresh_tag();
        let members = members.len() as u32;
        self.event(MeshEvent::JoinStart {
            host: from,
            members,
            data: data.into(),
        });
        self.work_off(from);
    }

    fn start_refusal(&self, host: Guid) -> Option<Reason> {
        Some(if !self.links.get(&host).is_some_and(|link| link.allowed) {
            reason(
                Code::Policy,
                "the joiner's game did not ask for a connection to this host, so it takes no part in its joins",
            )
        } else if !self.session.is_alone() {
            reason(Code::WrongState, "the joiner is in another session")
        } else if !self.invitations.is_empty() {
            reason(
                Code::WrongState,
                "the joiner is letting others into a session of its own",
            )
        } else if self.joins.contains_key(&host) {
            reason(Code::AlreadyInProgress, "a join of that player is running")
        } else if self.joins.len() >= MAX_RUNNING_JOINS {
            reason(
                Code::RateLimited,
                "the joiner takes part in too many joins at the same time",
            )
        } else {
            return None;
        })
    }

    /// Why a session with that relay policy is none for this node.
    fn opposite_policy(&self, session: RelayPolicy) -> Option<Reason> {
        let own = self.relay_policy();
        own.with(session).is_none().then(|| {
            let text = format!(
                "the session's relay policy is \"{}\", the joiner's \"{}\": no way would be allowed by both",
                session.name(),
                own.name()
            );
            reason(Code::Policy, text)
        })
    }

    /// Tells a host that its START leads to nothing.
    fn decline(&mut self, host: Guid, join: u64, why: Reason) {
        let (code, text) = (why.code.number(), bounded(why.text));
        let member = Guid(0);
        self.send(
            host,
            MeshMessage::JoinFailed {
                join,
                code,
                member,
                text,
            },
        );
    }

    /// Brings what is pending under way.
    fn work_off(&mut self, host: Guid) {
        let Some(join) = self.joins.get_mut(&host) else { return };
        let mut wanted = Vec::new();
        for target in join
            .targets
            .iter_mut()
            .filter(|target| target.state == MemberState::Pending)
        {
            if self.unconfirmed.contains(&target.guid) {
                // It is settled when the connection counts at both sides.
            } else if let Some(link) = self.links.get(&target.guid) {
                settle(target, link.key);
            } else if self.config.join_auto {
                target.state = MemberState::Connecting;
                wanted.push((target.guid, target.key));
            }
        }
        for (guid, peer) in wanted {
            if self.dialing.insert(guid) {
                self.outputs.push_back(MeshOutput::Connect { peer });
            }
        }
        self.report_capable(host);
    }

    /// Sends CAPABLE when every member is resolved.
    fn report_capable(&mut self, host: Guid) {
        let Some(join) = self.joins.get_mut(&host).filter(|join| join.resolved()) else {
            return;
        };
        join.capable_sent = true;
        // At most a session's worth: members first, as the host decides by them.
        let members = join.targets.iter().filter(|target| target.member);
        let fellows = join.targets.iter().filter(|target| !target.member);
        let results = members
            .chain(fellows)
            .take(MAX_MEMBERS)
            .map(|target| (target.guid, target.state))
            .collect();
        let data = self.join_data.get(&host).cloned().unwrap_or_default();
        let message = MeshMessage::JoinCapable {
            join: join.join,
            epoch: join.epoch,
            results,
            data,
        };
        self.send(host, message);
    }

    /// A connection stands: the joins that wait for it go on.
    pub(super) fn join_peer_connected(&mut self, _now: Instant, peer: Guid, key: PublicKey) {
        self.update_targets(peer, |target| settle(target, key));
    }

    /// A connection could not be made, or ended.
    pub(super) fn join_peer_failed(&mut self, _now: Instant, peer: Guid, why: &Reason) {
        self.update_targets(peer, |target| {
            target.state = MemberState::Failed;
            target.text.clone_from(&why.text);
        });
    }

    fn update_targets(&mut self, peer: Guid, change: impl Fn(&mut Target)) {
        let mut changed = Vec::new();
        for join in self.joins.values_mut() {
            if let Some(target) = join.targets.iter_mut().find(|target| target.guid == peer) {
                let before = target.state;
                change(target);
                if target.state != before && (target.member || join.capable_sent) {
                    changed.push(join.host);
                }
            }
        }
        for host in changed {
            self.report_capable(host);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of the message")]
    pub(super) fn on_accepted(
        &mut self,
        now: Instant,
        from: Guid,
        session: SessionId,
        join: u64,
        epoch: u64,
        members: &[Member],
        data: Bytes,
    ) {
        let matches = self
            .joins
            .get(&from)
            .is_some_and(|running| running.join == join && running.session == session);
        let seats = seats_from(now, members).filter(|_| epoch < EPOCH_LIMIT && data.len() <= MAX_USER_DATA);
        let named = |seat: &super::session::Seat| seat.guid == self.own && seat.key == self.config.own;
        let seats = seats.filter(|seats| seats[0].guid == from && seats.iter().any(named));
        let Some(seats) = seats.filter(|_| matches && self.session.is_alone()) else {
            self.dropped += 1;
            // It gave up, or something else was faster: the host must not go on believing that this node is in.
            if session != self.session.id {
                self.end_join(
                    from,
                    None,
                    reason(Code::WrongState, "this node is in another session"),
                    false,
                );
                self.send(from, MeshMessage::Leave { session });
            }
            return;
        };
        let Some(running) = self.joins.remove(&from) else {
            return;
        };
        self.join_data.remove(&from);
        let count = seats.len() as u32;
        self.session = Session::new(session, running.relay_policy, epoch, seats);
        self.event(MeshEvent::JoinAccepted {
            host: from,
            members: count,
            data: data.into(),
        });
        let others: Vec<Guid> = self.session.others(self.own).map(|seat| seat.guid).collect();
        for member in others {
            self.adopt_connection(member);
            self.event(MeshEvent::MemberJoined { member });
        }
        self.event(MeshEvent::NewHost { host: from, old: None });
        self.settle_in(now, running);
    }

    /// What is left of a join that succeeded.
    fn settle_in(&mut self, now: Instant, running: Join) {
        let why = reason(Code::WrongState, "this node joined another session");
        while let Some(host) = self.joins.keys().next().copied() {
            self.end_join(host, None, why.clone(), true);
        }
        self.end_all_invitations(why);
        let fellows = running
            .targets
            .iter()
            .filter(|target| !target.member && !self.session.has(target.guid));
        let fellows: BTreeSet<Guid> = fellows.map(|target| target.guid).collect();
        self.fellows
            .extend(fellows.iter().map(|guid| (*guid, running.deadline)));
        self.close_unwanted(&running, "it is not in the session any more");
        for (from, claim) in running.early {
            if self.session.has(from) && claim.epoch > self.session.epoch {
                self.claims.insert(from, claim);
            }
        }
        self.report_unreachable();
        self.succession(now);
    }

    /// Closes connections made for a join that nothing else here needs.
    fn close_unwanted(&mut self, join: &Join, text: &str) {
        for target in &join.targets {
            let made = self.links.get(&target.guid).is_some_and(|link| link.made);
            if made && !self.wanted(target.guid) {
                self.close(target.guid, reason(Code::Closed, text));
            }
        }
    }

    pub(super) fn on_rejected(&mut self, from: Guid, join: u64, data: Bytes) {
        if self.joins.get(&from).is_none_or(|running| running.join != join) {
            self.dropped += 1;
        } else if let Some(running) = self.joins.remove(&from) {
            self.event(MeshEvent::JoinRejected {
                host: from,
                data: data.into(),
            });
            self.clean_up(running);
        }
    }

    /// The other side of a join ended it.
    pub(super) fn on_join_failed(&mut self, from: Guid, join: u64, code: i32, member: Guid, text: String) {
        let member = (member != Guid(0)).then_some(member);
        let code = Code::from_number(code).unwrap_or(Code::ProtocolViolation);
        let why = Reason {
            code,
            text: bounded(text),
        };
        if self.joins.get(&from).is_some_and(|running| running.join == join) {
            self.end_join(from, member, why, false);
        } else if self
            .invitations
            .get(&from)
            .is_some_and(|invitation| invitation.is(join))
        {
            self.end_invitation(from, member, why, false);
        } else {
            self.dropped += 1;
        }
    }

    /// Ends a join at the joiner without a decision.
    pub(super) fn end_join(&mut self, host: Guid, member: Option<Guid>, why: Reason, tell: bool) {
        let Some(running) = self.joins.remove(&host) else {
            return;
        };
        if tell {
            let (code, text) = (why.code.number(), bounded(why.text.clone()));
            self.send(
                host,
                MeshMessage::JoinFailed {
                    join: running.join,
                    code,
                    member: Guid(0),
                    text,
                },
            );
        }
        self.event(MeshEvent::JoinFailed {
            request: 0,
            peer: host,
            member,
            reason: why,
        });
        self.clean_up(running);
    }

    fn clean_up(&mut self, running: Join) {
        self.join_data.remove(&running.host);
        self.close_unwanted(&running, "the join that it was made for did not succeed");
        for (from, _) in running.early {
            self.send(
                from,
                MeshMessage::Leave {
                    session: running.session,
                },
            );
        }
    }

    pub(super) fn joins_timeout(&mut self, now: Instant) {
        let due = self.joins.values().filter(|join| join.deadline <= now);
        let due: Vec<Guid> = due.map(|join| join.host).collect();
        for host in due {
            self.end_join(
                host,
                None,
                reason(Code::Timeout, "the join took longer than its time limit"),
                true,
            );
        }
        let due: Vec<Guid> = self
            .fellows
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(fellow, _)| *fellow)
            .collect();
        for fellow in due {
            self.fellows.remove(&fellow);
            if self.links.get(&fellow).is_some_and(|link| link.made) && !self.wanted(fellow) {
                self.close(fellow, reason(Code::Closed, "its join did not succeed"));
            }
        }
    }
}

/// A connection to a target stands; the whole key is compared.
fn settle(target: &mut Target, key: PublicKey) {
    if key == target.key {
        target.state = MemberState::Connected;
        target.text.clear();
    } else {
        target.state = MemberState::Failed;
        target.text = "it holds another key than the host named".to_owned();
    }
}
