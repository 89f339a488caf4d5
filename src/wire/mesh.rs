//! Messages of a session: verified joins, membership, host order.
//!
//! A session is a list of members with an epoch, changed only by its host. Each member has a place; the lowest place
//! hosts. Members tell the host whom they lost; the host decides for everybody.
//!
//! A message is a u8 type and its fields in this order (fields: [`Reader`]). It travels among the messages of
//! [`super::peer`], whose numbers below 16 are taken.
//!
//! | type | | fields |
//! |---|---|---|
//! | 16 | JoinStart | session, u64 join, u64 epoch, u8 flags, u32 time limit in ms, members, list (≤ 64) of keys joining, data, u8 relay policy |
//! | 17 | JoinCapable | u64 join, u64 epoch, list (≤ 64) of (guid, u8 state), data |
//! | 18 | JoinAccepted | session, u64 join, u64 epoch, members, data |
//! | 19 | JoinRejected | u64 join, data |
//! | 20 | JoinFailed | u64 join, i32 code, optional guid, text |
//! | 21 | JoinProof | u64 join, u8 step, byte string (≤ 128) |
//! | 22 | Membership | session, u64 epoch, u8 change, optional guid subject, text, members |
//! | 23 | Leave | session |
//! | 24 | Unreachable | session, u64 epoch, list (≤ 64) of guids |
//! | 25 | HostLost | session, u64 epoch, guid host, boolean lost |
//! | 26 | Links | session, list (≤ 64) of (guid, u32 round trip in µs) |
//! | 27 | Meet | session, u64 epoch, members |
//! | 28 | ResetPlace | session |
//!
//! *session*: 16 bytes. *members*: list (≤ 64) of records: 32 bytes key, u64 place, u64 age in ms. *data*: byte string (≤ 64 KiB).
//! *epoch*: version of the member list; the larger one is newer. Its upper 32 bits are the term (one more whenever the host was lost and
//! another took over), the next 16 the rank of whoever took over (0xffff less its place; 0 in term 0), the lower 16 count changes within the
//! term: every change of the list, also a hand-over, adds one to the whole. An epoch with the top bit set is refused.
//! *relay policy*: the session's own, as in [`super::control`]; it holds from the first START on.
//! States: 0 pending, 1 connecting, 2 connected, 3 failed. Changes: 1 joined, 2 left, 3 lost, 4 kicked, 5 host, 6 order, 7 merged.
//! A value that is not in these tables makes the message invalid; a later version that needs another one sends another message.
//!
//! [`Reader`]: super::Reader

use bytes::Bytes;

use super::codec::{enum_codec, message_codec, struct_codec};
use super::control::RelayPolicy;
use super::{DecodeError, MAX_MEMBERS, MAX_USER_DATA, Reader, Writer};
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
        /// What holds for all members beside their own policies: for connecting to them already.
        relay_policy: RelayPolicy,
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
        /// Term, rank, counter (see the module): one more with each change by one host, a new term with each lost host.
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

enum_codec!(member_state: MemberState { 0 Pending, 1 Connecting, 2 Connected, 3 Failed });
enum_codec!(change_kind: ChangeKind { 1 Joined, 2 Left, 3 Lost, 4 Kicked, 5 Host, 6 Order, 7 Merged });

struct_codec!(Member {
    key: key,
    place: u64,
    age_ms: u64
});

message_codec!(MeshMessage {
    16 JoinStart {
        session: array, join: u64, epoch: u64, flags: u8, time_limit_ms: u32, members: members, joining: keys, data: user_data,
        relay_policy: relay_policy,
    };
    17 JoinCapable { join: u64, epoch: u64, results: results, data: user_data };
    18 JoinAccepted { session: array, join: u64, epoch: u64, members: members, data: user_data };
    19 JoinRejected { join: u64, data: user_data };
    20 JoinFailed { join: u64, code: i32, member: optional_guid, text: text };
    21 JoinProof { join: u64, step: u8, bytes: proof };
    22 Membership {
        session: array, epoch: u64, change: change_kind, subject: optional_guid, text: text, members: members,
    };
    23 Leave { session: array };
    24 Unreachable { session: array, epoch: u64, members: guids };
    25 HostLost { session: array, epoch: u64, host: guid, lost: boolean };
    26 Links { session: array, links: links };
    27 Meet { session: array, epoch: u64, members: members };
    28 ResetPlace { session: array };
});

impl Writer<'_> {
    fn members(&mut self, members: &[Member]) {
        self.list(members, MAX_MEMBERS, |writer, member| {
            writer.record(|writer| member.write_fields(writer))
        });
    }

    fn keys(&mut self, keys: &[PublicKey]) {
        self.list(keys, MAX_MEMBERS, |writer, key| writer.key(key));
    }

    fn guids(&mut self, guids: &[Guid]) {
        self.list(guids, MAX_MEMBERS, |writer, guid| writer.guid(guid));
    }

    fn results(&mut self, results: &[(Guid, MemberState)]) {
        self.list(results, MAX_MEMBERS, |writer, (guid, state)| {
            writer.guid(guid);
            writer.member_state(state);
        });
    }

    fn links(&mut self, links: &[(Guid, u32)]) {
        self.list(links, MAX_MEMBERS, |writer, (guid, round_trip)| {
            writer.guid(guid);
            writer.u32(round_trip);
        });
    }

    fn user_data(&mut self, data: &Bytes) {
        self.byte_string(data, MAX_USER_DATA);
    }

    fn proof(&mut self, proof: &Bytes) {
        self.byte_string(proof, MAX_PROOF);
    }
}

impl Reader<'_> {
    fn members(&mut self) -> Result<Vec<Member>, DecodeError> {
        self.list(MAX_MEMBERS, "members", |reader| reader.record(Member::read_fields))
    }

    fn keys(&mut self) -> Result<Vec<PublicKey>, DecodeError> {
        self.list(MAX_MEMBERS, "keys", Reader::key)
    }

    fn guids(&mut self) -> Result<Vec<Guid>, DecodeError> {
        self.list(MAX_MEMBERS, "guids", Reader::guid)
    }

    fn results(&mut self) -> Result<Vec<(Guid, MemberState)>, DecodeError> {
        self.list(MAX_MEMBERS, "results", |reader| {
            Ok((reader.guid()?, reader.member_state()?))
        })
    }

    fn links(&mut self) -> Result<Vec<(Guid, u32)>, DecodeError> {
        self.list(MAX_MEMBERS, "links", |reader| Ok((reader.guid()?, reader.u32()?)))
    }

    fn user_data(&mut self) -> Result<Bytes, DecodeError> {
        self.owned_bytes(MAX_USER_DATA, "user data")
    }

    fn proof(&mut self) -> Result<Bytes, DecodeError> {
        self.owned_bytes(MAX_PROOF, "proof")
    }
}
