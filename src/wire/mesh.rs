//! Messages of a session: verified joins, membership, host order.
//!
//! A session is a list of members with an epoch, changed only by its host. Each member has a place; the lowest place
//! hosts. Members tell the host whom they lost; the host decides for everybody.

use bytes::Bytes;

use crate::transport::identity::{Guid, PublicKey};

/// Names a session. Random; known to its members and those invited. Its first 16 hash bytes serve as session tag at the server.
pub type SessionId = [u8; 16];

/// One member of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its key.
    pub key: PublicKey,
    /// Its place in the host order: the lowest hosts. Given by the host at acceptance, unique within a session.
    pub place: u64,
    /// Milliseconds it has been in the session when the message was made.
    pub age_ms: u64,
}

impl Member {
    /// Its guid.
    pub fn guid(&self) -> Guid {
        self.key.guid()
    }
}

/// How far a joiner is with one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MemberState {
    /// Nothing tried yet.
    Pending = 0,
    /// Under way.
    Connecting = 1,
    /// Connected.
    Connected = 2,
    /// Could not be reached.
    Failed = 3,
}

/// Why the membership changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChangeKind {
    /// `subject` joined.
    Joined = 1,
    /// `subject` left by itself.
    Left = 2,
    /// `subject` was lost.
    Lost = 3,
    /// `subject` was removed by the host.
    Kicked = 4,
    /// `subject` is the new host (the old one was lost, left, or handed over).
    Host = 5,
    /// The order changed (reset of the host calculation).
    Order = 6,
    /// Two halves of a session met again.
    Merged = 7,
}

/// One step of the session-password proof (SPAKE2), opaque here.
pub const MAX_PROOF: usize = 128;

/// A message between members, or between a host and a joiner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshMessage {
    /// Host → joiner: connect to these. Sent again with only the missing ones when somebody joined meanwhile.
    JoinStart {
        /// The session.
        session: SessionId,
        /// Names this join; random.
        join: u64,
        /// Epoch of the member list.
        epoch: u64,
        /// Bit 0: a join may succeed with unreached members. Bit 1: a password proof is needed.
        flags: u8,
        /// Milliseconds for the whole join.
        time_limit_ms: u32,
        /// Members to reach, without host and joiner. At most `MAX_MEMBERS`.
        members: Vec<Member>,
        /// Others who are joining at the same time.
        joining: Vec<PublicKey>,
        /// The host game's data.
        data: Bytes,
    },
    /// Joiner → host: done with the list.
    JoinCapable {
        /// Which join.
        join: u64,
        /// Epoch of the list that was worked off.
        epoch: u64,
        /// What became of each member.
        results: Vec<(Guid, MemberState)>,
        /// The joining game's data.
        data: Bytes,
    },
    /// Host → joiner: in.
    JoinAccepted {
        /// The session.
        session: SessionId,
        /// Which join.
        join: u64,
        /// Epoch in which the joiner is a member.
        epoch: u64,
        /// Everybody, host and joiner included, by place.
        members: Vec<Member>,
        /// The host game's data.
        data: Bytes,
    },
    /// Host → joiner: the game declined.
    JoinRejected {
        /// Which join.
        join: u64,
        /// The host game's data.
        data: Bytes,
    },
    /// Either way: the join is over without a decision.
    JoinFailed {
        /// Which join.
        join: u64,
        /// A [`crate::codes::Code`] number.
        code: i32,
        /// The member that could not be reached; 0: none.
        member: Guid,
        /// In words.
        text: String,
    },
    /// Password proof, either way.
    JoinProof {
        /// Which join.
        join: u64,
        /// 0, 1, 2 …
        step: u8,
        /// Opaque; at most [`MAX_PROOF`] bytes.
        bytes: Bytes,
    },
    /// Host → members: the list as it is now.
    Membership {
        /// The session.
        session: SessionId,
        /// Grows by one with each change.
        epoch: u64,
        /// What changed.
        change: ChangeKind,
        /// Whom it concerns.
        subject: Guid,
        /// Why, in words (a kick's reason).
        text: String,
        /// Everybody, by place.
        members: Vec<Member>,
    },
    /// Member → everybody: it leaves on purpose.
    Leave {
        /// The session.
        session: SessionId,
    },
    /// Member → host: these members are out of its reach.
    Unreachable {
        /// The session.
        session: SessionId,
        /// Epoch that the sender has.
        epoch: u64,
        /// Whom it lost.
        members: Vec<Guid>,
    },
    /// Member → members: it lost the host, or (`lost` false) has it still.
    HostLost {
        /// The session.
        session: SessionId,
        /// Epoch that the sender has.
        epoch: u64,
        /// Which host.
        host: Guid,
        /// Whether it is lost to the sender.
        lost: bool,
    },
    /// Member → members: whom it is connected to, and how far they are.
    Links {
        /// The session.
        session: SessionId,
        /// Peer and smoothed round trip in microseconds.
        links: Vec<(Guid, u32)>,
    },
    /// Between halves of a split session that met again: what each half is.
    Meet {
        /// The session.
        session: SessionId,
        /// Epoch of the sender's half.
        epoch: u64,
        /// Everybody in the sender's half, by place.
        members: Vec<Member>,
    },
    /// Member → host: its time in the session starts anew; the host moves it to the end of the order.
    ResetPlace {
        /// The session.
        session: SessionId,
    },
}
