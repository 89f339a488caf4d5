//! The session: verified joins, membership, host order. A sub-engine of [`super::Node`]: it hears of connections and
//! mesh messages, and answers with messages to send, peers to connect to, connections to close, and events.
//!
//! A node alone is a session of one and its own host, without any event. Everybody in a session is connected to
//! everybody; the list of members has an epoch and is changed by the host alone.
//!
//! | file | what |
//! |---|---|
//! | `session` | the list: members by place, epoch |
//! | `membership` | changing the list (host) and following it (everybody); leave, kick, cut-off members |
//! | `succession` | the host is lost or leaves: who takes over, and when to believe it |
//! | `invite` | verified joins at the host |
//! | `join` | verified joins at the joiner |
//! | `policy` | the session's relay policy beside the node's own |
//!
//! **Inputs**: [`Mesh::command`], [`Mesh::connected`], [`Mesh::connect_failed`], [`Mesh::disconnected`],
//! [`Mesh::message`], [`Mesh::handle_timeout`]. Messages from one peer arrive in the order in which it sent them;
//! between peers there is no order. A peer that restarted is reported as `disconnected`, then `connected`.
//! **Outputs**: [`Mesh::poll_output`] until `None`, then [`Mesh::poll_timeout`].
//!
//! **Timers.** A join: `join_time_limit` at the host, the limit that START names (and [`JOINER_SLACK`]) at the joiner. A
//! member that reports another as unreachable: [`CUT_OFF_GRACE`]. While the host is lost: testimony repeated every
//! [`TESTIMONY_REPEAT`], given up after [`HOST_LOST_LIMIT`].
//!
//! **Choices that games see.** Events of leaving: whoever leaves by itself gets no event; whoever is kicked or cut off
//! gets `MEMBER_LEFT` naming itself, with the reason; either is then alone again, its own host, without further events. The
//! connections of whoever left or was cut off stay; those of whoever was kicked are closed by the host and the members, with code
//! KICKED and the kick's text at both ends, as soon as they know.
//! `StartVerifiedJoin` with a member fails with WRONG_STATE. A join that was answered with
//! `accept` while somebody else got in is finished without asking again. After CAPABLE ended the request, a
//! later failure of that join is told with request 0. A connection to a member that came up while the join ran counts as
//! made for it, and is closed if the join fails, whether the mesh or the game dialled it.

mod invite;
mod join;
mod membership;
mod policy;
mod session;
mod succession;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::api::{JoinView, MeshCommand, MeshEvent, MeshView, Reason, RequestId};
use crate::codes::Code;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::{MeshMessage, SessionId};
use crate::wire::{MAX_MEMBERS, MAX_TEXT};
use invite::Invitation;
use join::Join;
use membership::Claim;
use session::Session;
use succession::{Crisis, Witness};

/// How long the joiner waits beyond the time that START names: the host's verdict shall come first and name its reason.
pub const JOINER_SLACK: Duration = Duration::from_secs(2);
/// Longest time for a join that a START can ask for: ten minutes, far beyond any sensible setting.
pub const MAX_JOIN_TIME: Duration = Duration::from_secs(600);
/// A member is out of another's reach for this long before the host decides. The default lost-peer time: if the member is
/// dead, the host notices by then.
pub const CUT_OFF_GRACE: Duration = Duration::from_secs(10);
/// While the host is lost, members say again what they see this often, so that somebody whose list is behind hears it.
pub const TESTIMONY_REPEAT: Duration = Duration::from_secs(1);
/// A member that lost the host and heard of no successor for this long is cut off. The largest lost-peer time.
pub const HOST_LOST_LIMIT: Duration = Duration::from_secs(60);
/// A host that was asked this often whether it hosts, and did not say so, is lost. As many repetitions as make the default
/// lost-peer time: a host that still has to hear of its office from a lost predecessor knows by then.
pub const ROLL_CALL_LIMIT: u32 = 10;
/// Most joins that one node takes part in as a joiner at the same time.
pub const MAX_RUNNING_JOINS: usize = 4;
/// Most peers for which data for CAPABLE is kept.
const MAX_JOIN_DATA: usize = MAX_MEMBERS;

/// How to set up a [`Mesh`].
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// This node.
    pub own: PublicKey,
    /// Everything random in it comes from this.
    pub seed: [u8; 32],
    /// Connect to the members of a join by itself.
    pub join_auto: bool,
    /// A join may succeed with unreached members.
    pub partial: bool,
    /// Most connected players, this node not counted.
    pub max_peers: usize,
    /// Time for a whole join.
    pub join_time_limit: Duration,
    /// The node's own relay policy; [`Mesh::set_own_policy`] changes it.
    pub relay_policy: RelayPolicy,
}

/// What the mesh wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshOutput {
    /// Send to a connected peer.
    Send {
        /// To whom.
        to: Guid,
        /// What.
        message: MeshMessage,
    },
    /// Open a way to this peer and connect to it (its key must match); ends in `connected` or `connect_failed`.
    Connect {
        /// To whom.
        peer: PublicKey,
    },
    /// Close a connection that was made for a join, or to a player that was kicked; the code is told to the other side.
    Disconnect {
        /// Whose.
        peer: Guid,
        /// Why.
        reason: Reason,
    },
    /// Tell the server this session tag (zeros: none).
    SessionTag([u8; 16]),
    /// What [`Mesh::relay_policy`] says has changed: tell the server.
    RelayPolicy,
    /// Tell the game.
    Event(MeshEvent),
}

/// A connection that stands.
#[derive(Debug)]
struct Link {
    key: PublicKey,
    /// This node wished for it (at the game's wish or the mesh's): its other side may ask this node to join.
    allowed: bool,
    /// It was made for a join that has not been decided yet.
    made: bool,
    /// The policy of its session for which the game was told that it does not get in; once for each wish of the game.
    declined: Option<RelayPolicy>,
}

/// The session as one node knows it.
pub struct Mesh {
    config: MeshConfig,
    own: Guid,
    rng: StdRng,
    links: BTreeMap<Guid, Link>,
    /// Of them those that do not count at the other side yet, as far as is known: no join may rest on them.
    unconfirmed: BTreeSet<Guid>,
    /// Connections asked for and not resolved yet.
    dialing: BTreeSet<Guid>,
    session: Session,
    /// Host: running joins by joiner.
    invitations: BTreeMap<Guid, Invitation>,
    /// Joiner: running joins by host.
    joins: BTreeMap<Guid, Join>,
    /// Data for CAPABLE by host.
    join_data: BTreeMap<Guid, Bytes>,
    /// Others that were joining at the same time as this node, and until when the connection to them is kept.
    fellows: BTreeMap<Guid, Instant>,
    /// Host: (who reports, whom it does not reach) since when.
    cut_off: BTreeMap<(Guid, Guid), Instant>,
    /// Member: whom the host was last told to be out of reach; `None`: this host has heard nothing yet.
    reported: Option<BTreeSet<Guid>>,
    /// Member: when to tell a host again that did not know itself as host yet.
    roll_call_at: Option<Instant>,
    /// How often that has been done.
    roll_calls: u32,
    /// The host is lost to this node, or left.
    crisis: Option<Crisis>,
    /// What members say about the host and each other.
    witnesses: BTreeMap<Guid, Witness>,
    /// Lists from members that are not (yet) host in this node's eyes.
    claims: BTreeMap<Guid, Claim>,
    tag: [u8; 16],
    /// The relay policy that the server knows.
    policy_told: RelayPolicy,
    outputs: VecDeque<MeshOutput>,
    dropped: u64,
}

impl Mesh {
    /// A session of one.
    pub fn new(now: Instant, config: MeshConfig) -> Self {
        let mut rng = StdRng::from_seed(config.seed);
        let session = Session::alone(now, random_id(&mut rng), config.own);
        Self {
            own: config.own.guid(),
            policy_told: config.relay_policy,
            config,
            rng,
            links: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            dialing: BTreeSet::new(),
            session,
            invitations: BTreeMap::new(),
            joins: BTreeMap::new(),
            join_data: BTreeMap::new(),
            fellows: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            reported: None,
            roll_call_at: None,
            roll_calls: 0,
            crisis: None,
            witnesses: BTreeMap::new(),
            claims: BTreeMap::new(),
            tag: [0; 16],
            outputs: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Takes a command of the game. `Kick`, `RespondJoin` and `JoinData` that do not fit the present state have no effect.
    pub fn command(&mut self, now: Instant, command: MeshCommand) {
        match command {
            MeshCommand::StartVerifiedJoin { request, peer, data } => self.start_join(now, request, peer, data.into()),
            MeshCommand::JoinData { peer, data } => {
                if self.join_data.contains_key(&peer) || self.join_data.len() < MAX_JOIN_DATA {
                    self.join_data.insert(peer, data.into());
                }
            }
            MeshCommand::RespondJoin { peer, accept, data } => self.respond_join(now, peer, accept, data.into()),
            MeshCommand::ResetHostCalculation => self.reset_host_calculation(now),
            MeshCommand::Leave => self.leave(now),
            MeshCommand::Kick { peer, text } => self.kick(now, peer, text),
        }
        self.refresh_tag();
    }

    /// Ends the request of a running join with code CANCELLED. False: there is no such request here.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let found = self
            .invitations
            .iter()
            .find(|(_, invitation)| invitation.request == request && request != 0);
        let Some(joiner) = found.map(|(joiner, _)| *joiner) else {
            return false;
        };
        self.end_invitation(
            joiner,
            None,
            reason(Code::Cancelled, "the game cancelled the join"),
            true,
        );
        self.refresh_tag();
        true
    }

    /// A connection stands. `wished`: this node wished for it (at the game's wish or the mesh's), whichever side's dial became the
    /// connection; such a peer may ask this node to join.
    pub fn connected(&mut self, now: Instant, peer: PublicKey, wished: bool) {
        let guid = peer.guid();
        let asked = self.dialing.remove(&guid);
        let listed = self.joins.values().any(|join| join.host != guid && join.lists(guid));
        let known = self.links.remove(&guid);
        let link = Link {
            key: peer,
            allowed: wished || known.as_ref().is_some_and(|link| link.allowed),
            made: known.map_or(asked || (wished && listed), |link| link.made),
            declined: None,
        };
        self.links.insert(guid, link);
        if asked && !self.wanted(guid) {
            self.close(guid, reason(Code::Closed, "the join that it was made for is over"));
            return;
        }
        self.count_connection(now, guid);
    }

    /// The connection that [`connected`](Self::connected) is about to tell of does not count at the other side yet, as far as is known.
    /// [`confirmed`](Self::confirmed) follows, or [`disconnected`](Self::disconnected).
    pub fn await_confirmation(&mut self, peer: Guid) {
        self.unconfirmed.insert(peer);
    }

    /// The connection counts at both sides.
    pub fn confirmed(&mut self, now: Instant, peer: Guid) {
        if self.unconfirmed.remove(&peer) {
            self.count_connection(now, peer);
        }
    }

    fn count_connection(&mut self, now: Instant, peer: Guid) {
        let Some(link) = self.links.get(&peer).filter(|_| !self.unconfirmed.contains(&peer)) else {
            return;
        };
        let key = link.key;
        self.join_peer_connected(now, peer, key);
        if self.session.has(peer) {
            self.member_reconnected(now, peer);
        }
    }

    /// The game wished for a connection that stands already: from here on that peer may ask this node to join.
    pub fn allow(&mut self, peer: Guid) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.allowed = true;
            link.declined = None;
        }
    }

    /// A connection that the mesh asked for could not be made. (May also be told of connections the game asked for.)
    pub fn connect_failed(&mut self, now: Instant, peer: Guid, reason: Reason) {
        self.dialing.remove(&peer);
        if !self.links.contains_key(&peer) {
            self.join_peer_failed(now, peer, &reason);
        }
    }

    /// A connection ended; the reason's code tells LOST from CLOSED.
    pub fn disconnected(&mut self, now: Instant, peer: Guid, reason: Reason) {
        self.unconfirmed.remove(&peer);
        if self.links.remove(&peer).is_none() {
            return;
        }
        self.fellows.remove(&peer);
        self.join_data.remove(&peer);
        self.end_invitation(peer, None, reason.clone(), false);
        if self.joins.contains_key(&peer) {
            let why = Reason {
                code: Code::HostLost,
                text: format!("the session's host was lost: {}", reason.text),
            };
            self.end_join(peer, None, why, false);
        }
        self.join_peer_failed(now, peer, &reason);
        if self.session.has(peer) {
            self.member_lost(now, peer, &reason);
        }
        self.refresh_tag();
    }

    /// A mesh message from a connected peer.
    pub fn message(&mut self, now: Instant, from: Guid, message: MeshMessage) {
        if !self.links.contains_key(&from) {
            self.dropped += 1;
            return;
        }
        match message {
            start @ MeshMessage::JoinStart { .. } => self.on_start(now, from, start),
            MeshMessage::JoinCapable {
                join,
                epoch,
                results,
                data,
            } => {
                self.on_capable(now, from, join, epoch, &results, data);
            }
            MeshMessage::JoinAccepted {
                session,
                join,
                epoch,
                members,
                data,
            } => {
                self.on_accepted(now, from, session, join, epoch, &members, data);
            }
            MeshMessage::JoinRejected { join, data } => self.on_rejected(from, join, data),
            MeshMessage::JoinFailed {
                join,
                code,
                member,
                text,
            } => self.on_join_failed(from, join, code, member, text),
            MeshMessage::Membership {
                session,
                epoch,
                change,
                subject,
                text,
                members,
            } => {
                let claim = Claim::read(now, epoch, change, subject, text, &members);
                self.on_membership(now, from, session, claim);
            }
            MeshMessage::Leave { session } => self.on_leave(now, from, session),
            MeshMessage::Unreachable {
                session,
                epoch,
                members,
            } => {
                if self.is_from_member(now, from, session) {
                    self.on_unreachable(now, from, epoch, &members);
                }
            }
            MeshMessage::HostLost {
                session, host, lost, ..
            } => {
                if self.is_from_member(now, from, session) {
                    self.on_host_lost(now, from, host, lost);
                }
            }
            MeshMessage::Links { session, links } => {
                if self.is_from_member(now, from, session) {
                    self.on_links(now, from, &links);
                }
            }
            MeshMessage::ResetPlace { session } => {
                if self.is_from_member(now, from, session) {
                    self.on_reset_place(now, from);
                }
            }
            // Passwords and the meeting of halves are not spoken yet.
            MeshMessage::JoinProof { .. } | MeshMessage::Meet { .. } => self.dropped += 1,
        }
        self.refresh_tag();
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.invitations_timeout(now);
        self.joins_timeout(now);
        self.cut_off_timeout(now);
        self.roll_call_timeout(now);
        self.crisis_timeout(now);
        self.refresh_tag();
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let invitations = self.invitations.values().map(|invitation| invitation.deadline);
        let joins = self.joins.values().map(|join| join.deadline);
        let fellows = self.fellows.values().copied();
        let cut_off = self.cut_off.values().map(|since| *since + CUT_OFF_GRACE);
        let crisis = self.crisis.iter().map(|crisis| crisis.repeat_at.min(crisis.limit));
        invitations
            .chain(joins)
            .chain(fellows)
            .chain(cut_off)
            .chain(crisis)
            .chain(self.roll_call_at)
            .min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<MeshOutput> {
        self.outputs.pop_front()
    }

    /// The session as the events so far have told it.
    pub fn view(&self) -> MeshView {
        let joins = self.joins.values().map(|join| JoinView {
            host: join.host,
            members: join.view(),
        });
        let capable = self.invitations.iter().filter(|(_, invitation)| invitation.asked());
        MeshView {
            host: Some(self.session.host()),
            order: self.session.seats.iter().map(|seat| seat.guid).collect(),
            own_relay_policy: self.config.relay_policy,
            session_relay_policy: self.session_policy(),
            inviting: !self.invitations.is_empty(),
            joins: joins.collect(),
            capable: capable.map(|(joiner, _)| *joiner).collect(),
        }
    }

    /// Messages that were dropped because their sender had no right to send them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn is_host(&self) -> bool {
        self.session.host() == self.own
    }

    fn send(&mut self, to: Guid, message: MeshMessage) {
        if self.links.contains_key(&to) {
            self.outputs.push_back(MeshOutput::Send { to, message });
        }
    }

    fn event(&mut self, event: MeshEvent) {
        self.outputs.push_back(MeshOutput::Event(event));
    }

    /// Sends to all other members that are connected.
    fn broadcast(&mut self, message: &MeshMessage) {
        let others: Vec<Guid> = self.session.others(self.own).map(|seat| seat.guid).collect();
        for to in others {
            self.send(to, message.clone());
        }
    }

    /// Closes a connection.
    fn close(&mut self, peer: Guid, reason: Reason) {
        if self.links.remove(&peer).is_some() {
            self.outputs.push_back(MeshOutput::Disconnect { peer, reason });
        }
    }

    /// True if something here needs a connection to this peer.
    fn wanted(&self, peer: Guid) -> bool {
        self.session.has(peer)
            || self.fellows.contains_key(&peer)
            || self.joins.values().any(|join| join.host == peer || join.lists(peer))
    }

    /// Tells the server which session this node may be introduced to (its own, or the one that it is joining), and by which ways.
    fn refresh_tag(&mut self) {
        self.refresh_policy();
        let session = if !self.session.is_alone() || !self.invitations.is_empty() {
            Some(&self.session.id)
        } else {
            self.joins.values().next().map(|join| &join.session)
        };
        let tag = session.map_or([0; 16], session_tag);
        if tag != self.tag {
            self.tag = tag;
            self.outputs.push_back(MeshOutput::SessionTag(tag));
        }
    }
}

/// What a server knows a session by: the first 16 bytes of the SHA-256 of its id.
fn session_tag(session: &SessionId) -> [u8; 16] {
    let hash = ring::digest::digest(&ring::digest::SHA256, session);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash.as_ref()[..16]);
    tag
}

fn random_id(rng: &mut StdRng) -> SessionId {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    id
}

fn reason(code: Code, text: impl Into<String>) -> Reason {
    Reason {
        code,
        text: text.into(),
    }
}

/// Cuts a text to what a message may carry, at a character's boundary.
fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
