use super::control::any_policy;
use super::*;
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::{ChangeKind, MAX_PROOF, Member, MemberState, MeshMessage};
use crate::wire::{MAX_CONTROL_MESSAGE, MAX_MEMBERS, MAX_TEXT, MAX_USER_DATA};

const SESSION: [u8; 16] = [0x11; 16];

fn member(byte: u8) -> Member {
    Member {
        key: key(byte),
        place: u64::from(byte),
        age_ms: 1000,
    }
}

/// [`member`] on the wire.
const MEMBER_A5: &str =
    "0030 a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5 00000000000000a5 00000000000003e8";

fn golden(message: MeshMessage, digits: &str) {
    assert_golden(&message, digits, MeshMessage::encode, MeshMessage::decode);
}

#[test]
fn golden_bytes_of_joins() {
    let data = Bytes::from_static(b"hi");
    golden(
        MeshMessage::JoinStart {
            session: SESSION,
            join: 2,
            epoch: 3,
            flags: 1,
            time_limit_ms: 30_000,
            members: vec![member(0xa5)],
            joining: vec![key(0x77)],
            data: data.clone(),
            relay_policy: RelayPolicy::Only,
        },
        &format!(
            "10 | 11111111111111111111111111111111 | 0000000000000002 | 0000000000000003 | 01 | 00007530 | 0001 {MEMBER_A5}
            | 0001 7777777777777777777777777777777777777777777777777777777777777777 | 000002 6869 | 02"
        ),
    );
    golden(
        MeshMessage::JoinCapable {
            join: 2,
            epoch: 3,
            results: vec![(Guid(5), MemberState::Connected), (Guid(6), MemberState::Failed)],
            data: data.clone(),
        },
        "11 | 0000000000000002 | 0000000000000003 | 0002 0000000000000005 02 0000000000000006 03 | 000002 6869",
    );
    golden(
        MeshMessage::JoinAccepted {
            session: SESSION,
            join: 2,
            epoch: 4,
            members: vec![member(0xa5)],
            data: data.clone(),
        },
        &format!(
            "12 | 11111111111111111111111111111111 | 0000000000000002 | 0000000000000004 | 0001 {MEMBER_A5} | 000002 6869"
        ),
    );
    golden(
        MeshMessage::JoinRejected { join: 2, data },
        "13 | 0000000000000002 | 000002 6869",
    );
    golden(
        MeshMessage::JoinFailed {
            join: 2,
            code: -123,
            member: Guid(0),
            text: "gone".to_owned(),
        },
        "14 | 0000000000000002 | ffffff85 | 0000000000000000 | 0004 676f6e65",
    );
    golden(
        MeshMessage::JoinProof {
            join: 2,
            step: 1,
            bytes: Bytes::from_static(&[9, 8]),
        },
        "15 | 0000000000000002 | 01 | 000002 0908",
    );
}

#[test]
fn golden_bytes_of_sessions() {
    golden(
        MeshMessage::Membership {
            session: SESSION,
            epoch: 4,
            change: ChangeKind::Kicked,
            subject: Guid(5),
            text: "bye".to_owned(),
            members: vec![member(0xa5)],
        },
        &format!(
            "16 | 11111111111111111111111111111111 | 0000000000000004 | 04 | 0000000000000005 | 0003 627965 | 0001 {MEMBER_A5}"
        ),
    );
    golden(
        MeshMessage::Leave { session: SESSION },
        "17 | 11111111111111111111111111111111",
    );
    golden(
        MeshMessage::Unreachable {
            session: SESSION,
            epoch: 4,
            members: vec![Guid(5)],
        },
        "18 | 11111111111111111111111111111111 | 0000000000000004 | 0001 0000000000000005",
    );
    golden(
        MeshMessage::HostLost {
            session: SESSION,
            epoch: 4,
            host: Guid(5),
            lost: true,
        },
        "19 | 11111111111111111111111111111111 | 0000000000000004 | 0000000000000005 | 01",
    );
    golden(
        MeshMessage::Links {
            session: SESSION,
            links: vec![(Guid(5), 40_000)],
        },
        "1a | 11111111111111111111111111111111 | 0001 0000000000000005 00009c40",
    );
    golden(
        MeshMessage::Meet {
            session: SESSION,
            epoch: 4,
            members: vec![member(0xa5)],
        },
        &format!("1b | 11111111111111111111111111111111 | 0000000000000004 | 0001 {MEMBER_A5}"),
    );
}

#[test]
fn the_largest_message_fits_and_comes_back() {
    let message = MeshMessage::JoinStart {
        session: SESSION,
        join: u64::MAX,
        epoch: u64::MAX,
        flags: u8::MAX,
        time_limit_ms: u32::MAX,
        members: vec![member(0xa5); MAX_MEMBERS],
        joining: vec![key(0x77); MAX_MEMBERS],
        data: Bytes::from(vec![0x99; MAX_USER_DATA]),
        relay_policy: RelayPolicy::Never,
    };
    let bytes = encoded(|out| message.encode(out));
    assert!(bytes.len() <= MAX_CONTROL_MESSAGE, "{}", bytes.len());
    assert_eq!(MeshMessage::decode(&bytes), Ok(message));
    for length in (0..bytes.len()).step_by(997) {
        assert!(MeshMessage::decode(&bytes[..length]).is_err());
    }
}

#[test]
fn more_than_the_bounds_is_refused() {
    let start = hex("10 | 11111111111111111111111111111111 | 0000000000000002 | 0000000000000003 | 01 | 00007530");
    let members = [&start[..], &hex("0041")].concat();
    assert_eq!(MeshMessage::decode(&members), Err(DecodeError::TooLong("members")));
    let joining = [&start[..], &hex("0000 0041")].concat();
    assert_eq!(MeshMessage::decode(&joining), Err(DecodeError::TooLong("keys")));
    let data = [&start[..], &hex("0000 0000 010001")].concat();
    assert_eq!(MeshMessage::decode(&data), Err(DecodeError::TooLong("user data")));
    let proof = hex("15 | 0000000000000002 | 01 | 000081");
    assert_eq!(MeshMessage::decode(&proof), Err(DecodeError::TooLong("proof")));
}

#[test]
fn values_that_are_not_in_the_tables_are_invalid() {
    let capable = hex("11 | 0000000000000002 | 0000000000000003 | 0001 0000000000000005 04 | 000000");
    assert_eq!(MeshMessage::decode(&capable), Err(DecodeError::Invalid("member_state")));
    let membership =
        hex("16 | 11111111111111111111111111111111 | 0000000000000004 | 08 | 0000000000000005 | 0000 | 0000");
    assert_eq!(
        MeshMessage::decode(&membership),
        Err(DecodeError::Invalid("change_kind"))
    );
    assert_eq!(MeshMessage::decode(&[15]), Err(DecodeError::UnknownType(15)));
}

#[test]
fn a_member_may_grow() {
    let bytes = hex(&format!(
        "1b | 11111111111111111111111111111111 | 0000000000000004 | 0001 {} ffffff",
        MEMBER_A5.replacen("0030", "0033", 1)
    ));
    let meet = MeshMessage::Meet {
        session: SESSION,
        epoch: 4,
        members: vec![member(0xa5)],
    };
    assert_eq!(MeshMessage::decode(&bytes), Ok(meet));
}

fn any_members() -> impl Strategy<Value = Vec<Member>> {
    let member = (any_key(), any::<u64>(), any::<u64>());
    any_list(member.prop_map(|(key, place, age_ms)| Member { key, place, age_ms }), 6)
}

fn any_state() -> impl Strategy<Value = MemberState> {
    prop_oneof![
        Just(MemberState::Pending),
        Just(MemberState::Connecting),
        Just(MemberState::Connected),
        Just(MemberState::Failed),
    ]
}

fn any_change() -> impl Strategy<Value = ChangeKind> {
    prop_oneof![
        Just(ChangeKind::Joined),
        Just(ChangeKind::Left),
        Just(ChangeKind::Lost),
        Just(ChangeKind::Kicked),
        Just(ChangeKind::Host),
        Just(ChangeKind::Order),
        Just(ChangeKind::Merged),
    ]
}

fn any_join_message() -> impl Strategy<Value = MeshMessage> {
    let ids = any::<([u8; 16], u64, u64)>();
    let start = (
        ids,
        any::<(u8, u32)>(),
        any_members(),
        any_list(any_key(), 4),
        any_bytes(60),
        any_policy(),
    );
    prop_oneof![
        start.prop_map(
            |((session, join, epoch), (flags, time_limit_ms), members, joining, data, relay_policy)| {
                MeshMessage::JoinStart {
                    session,
                    join,
                    epoch,
                    flags,
                    time_limit_ms,
                    members,
                    joining,
                    data,
                    relay_policy,
                }
            }
        ),
        (
            any::<(u64, u64)>(),
            any_list((any_guid(), any_state()), MAX_MEMBERS),
            any_bytes(60)
        )
            .prop_map(|((join, epoch), results, data)| MeshMessage::JoinCapable {
                join,
                epoch,
                results,
                data
            }),
        (any::<([u8; 16], u64, u64)>(), any_members(), any_bytes(60)).prop_map(
            |((session, join, epoch), members, data)| MeshMessage::JoinAccepted {
                session,
                join,
                epoch,
                members,
                data
            }
        ),
        (any::<u64>(), any_bytes(60)).prop_map(|(join, data)| MeshMessage::JoinRejected { join, data }),
        (any::<(u64, i32)>(), 0..1_u64 << 63, any_text(MAX_TEXT)).prop_map(|((join, code), member, text)| {
            MeshMessage::JoinFailed {
                join,
                code,
                member: Guid(member),
                text,
            }
        }),
        (any::<(u64, u8)>(), any_bytes(MAX_PROOF)).prop_map(|((join, step), bytes)| MeshMessage::JoinProof {
            join,
            step,
            bytes
        }),
    ]
}

fn any_session_message() -> impl Strategy<Value = MeshMessage> {
    let ids = any::<([u8; 16], u64)>();
    prop_oneof![
        (ids, any_change(), 0..1_u64 << 63, any_text(MAX_TEXT), any_members()).prop_map(
            |((session, epoch), change, subject, text, members)| MeshMessage::Membership {
                session,
                epoch,
                change,
                subject: Guid(subject),
                text,
                members,
            }
        ),
        any::<[u8; 16]>().prop_map(|session| MeshMessage::Leave { session }),
        (ids, any_list(any_guid(), MAX_MEMBERS)).prop_map(|((session, epoch), members)| MeshMessage::Unreachable {
            session,
            epoch,
            members
        }),
        (ids, any_guid(), any::<bool>()).prop_map(|((session, epoch), host, lost)| MeshMessage::HostLost {
            session,
            epoch,
            host,
            lost
        }),
        (any::<[u8; 16]>(), any_list((any_guid(), any::<u32>()), MAX_MEMBERS))
            .prop_map(|(session, links)| MeshMessage::Links { session, links }),
        (ids, any_members()).prop_map(|((session, epoch), members)| MeshMessage::Meet {
            session,
            epoch,
            members
        }),
    ]
}

pub fn any_mesh_message() -> impl Strategy<Value = MeshMessage> {
    prop_oneof![any_join_message(), any_session_message()]
}

proptest! {
    #[test]
    fn every_message_comes_back(message in any_mesh_message()) {
        assert_format(&message, MeshMessage::encode, MeshMessage::decode);
    }

    #[test]
    fn one_wrong_byte_is_harmless(message in any_mesh_message(), place in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encoded(|out| message.encode(out));
        let place = place.index(bytes.len());
        bytes[place] = value;
        let _ = MeshMessage::decode(&bytes);
    }
}
