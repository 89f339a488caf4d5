use super::mesh::any_mesh_message;
use super::*;
use crate::wire::introduction::MAX_TICKET;
use crate::wire::mesh::MeshMessage;
use crate::wire::peer::{PeerControl, PeerHello};
use crate::wire::routing::{RouteGrant, RouteMessage, SignedShare};
use crate::wire::{MAX_APP_ID, MAX_CONTROL_MESSAGE, PROTOCOL_VERSION, peek_protocol};

fn hello() -> PeerHello {
    PeerHello {
        protocol: PROTOCOL_VERSION,
        app: "chess".to_owned(),
        incarnation: 0x0102_0304_0506_0708,
    }
}

#[test]
fn golden_bytes() {
    let golden =
        |message: PeerControl, digits| assert_golden(&message, digits, PeerControl::encode, PeerControl::decode);
    golden(
        PeerControl::Hello(hello()),
        "01 | 0001 | 0005 6368657373 | 0102030405060708",
    );
    golden(
        PeerControl::Welcome(hello()),
        "02 | 0001 | 0005 6368657373 | 0102030405060708",
    );
    golden(
        PeerControl::Mesh(MeshMessage::Leave { session: [0x11; 16] }),
        "17 | 11111111111111111111111111111111",
    );
    golden(
        PeerControl::Mesh(MeshMessage::ResetPlace { session: [0x11; 16] }),
        "1c | 11111111111111111111111111111111",
    );
}

fn share() -> SignedShare {
    SignedShare {
        share: [0x33; 32],
        signature: [0x44; 64],
    }
}

fn grant() -> RouteGrant {
    RouteGrant {
        session: 0x1112_1314_1516_1718,
        ticket: Bytes::from_static(b"ticket"),
        valid_ms: 60_000,
        key_number: 1,
        secret: [0x55; 32],
        idle_ms: 30_000,
    }
}

const SHARE: &str = "3333333333333333333333333333333333333333333333333333333333333333 | \
     44444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444";
const GRANT: &str = "003a | 1112131415161718 | 000006 7469636b6574 | 0000ea60 | 01 | \
     5555555555555555555555555555555555555555555555555555555555555555 | 00007530";
const KEY: &str = "6666666666666666666666666666666666666666666666666666666666666666";

#[test]
fn golden_bytes_of_routing() {
    let golden = |message: RouteMessage, digits: &str| {
        assert_golden(
            &PeerControl::Route(message),
            digits,
            PeerControl::encode,
            PeerControl::decode,
        );
    };
    let (query, request, introduction, code) = (7, 8, 0x2122_2324_2526_2728, -5);
    let (target, key) = (Guid(0x0102_0304_0506_0708), PublicKey([0x66; 32]));
    let (share, grant) = (share(), grant());
    golden(
        RouteMessage::Query { query, target },
        "03 | 00000007 | 0102030405060708",
    );
    let (round_trip_us, load) = (20_000, 2);
    golden(
        RouteMessage::Willing {
            query,
            round_trip_us,
            load,
        },
        "04 | 00000007 | 00004e20 | 0002",
    );
    golden(RouteMessage::Unwilling { query, code }, "05 | 00000007 | fffffffb");
    golden(
        RouteMessage::Request {
            request,
            target,
            introduction,
            share,
        },
        &format!("06 | 00000008 | 0102030405060708 | 2122232425262728 | {SHARE}"),
    );
    let asker = key;
    golden(
        RouteMessage::Offer {
            introduction,
            asker,
            share,
            grant: grant.clone(),
        },
        &format!("07 | 2122232425262728 | {KEY} | {SHARE} | {GRANT}"),
    );
    golden(
        RouteMessage::Accept { introduction, share },
        &format!("08 | 2122232425262728 | {SHARE}"),
    );
    golden(
        RouteMessage::Decline { introduction, code },
        "09 | 2122232425262728 | fffffffb",
    );
    let target = key;
    golden(
        RouteMessage::Granted {
            request,
            target,
            share,
            grant,
        },
        &format!("0a | 00000008 | {KEY} | {SHARE} | {GRANT}"),
    );
    golden(RouteMessage::Refused { request, code }, "0b | 00000008 | fffffffb");
    golden(
        RouteMessage::Ended { introduction, code },
        "0c | 2122232425262728 | fffffffb",
    );
}

#[test]
fn types_that_nobody_uses_are_unknown() {
    assert_eq!(PeerControl::decode(&[]), Err(DecodeError::Truncated));
    for number in [0, 13, 15, 29, 255] {
        assert_eq!(
            PeerControl::decode(&[number, 1, 2, 3]),
            Err(DecodeError::UnknownType(number))
        );
    }
    assert_eq!(
        PeerControl::decode(&vec![1; MAX_CONTROL_MESSAGE + 1]),
        Err(DecodeError::TooLong("message"))
    );
}

#[test]
fn the_protocol_of_a_greeting_can_be_read_in_any_version() {
    let bytes = encoded(|out| {
        PeerControl::Welcome(PeerHello {
            protocol: 0x0203,
            ..hello()
        })
        .encode(out)
    });
    assert_eq!(peek_protocol(&bytes), Some(0x0203));
}

fn any_hello() -> impl Strategy<Value = PeerHello> {
    let app = any_text(MAX_APP_ID - 4).prop_map(|text| format!("a{text}"));
    let hello = (any::<u16>(), app, any::<u64>());
    hello.prop_map(|(protocol, app, incarnation)| PeerHello {
        protocol,
        app,
        incarnation,
    })
}

fn any_share() -> impl Strategy<Value = SignedShare> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(share, half)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&half);
        SignedShare { share, signature }
    })
}

fn any_grant() -> impl Strategy<Value = RouteGrant> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u8>(), any::<u32>());
    (numbers, any_bytes(MAX_TICKET), any::<[u8; 32]>()).prop_map(|(numbers, ticket, secret)| {
        let (session, valid_ms, key_number, idle_ms) = numbers;
        RouteGrant {
            session,
            ticket,
            valid_ms,
            key_number,
            secret,
            idle_ms,
        }
    })
}

fn any_route_message() -> impl Strategy<Value = RouteMessage> {
    let numbers = (any::<u32>(), any::<u64>(), any::<i32>(), any::<u16>());
    let names = (1..1_u64 << 63, any::<[u8; 32]>());
    (3_u8..13, numbers, names, any_share(), any_grant()).prop_map(|(number, numbers, names, share, grant)| {
        let (query, introduction, code, load) = numbers;
        let (target, key) = (Guid(names.0), PublicKey(names.1));
        let request = query;
        match number {
            3 => RouteMessage::Query { query, target },
            4 => RouteMessage::Willing {
                query,
                round_trip_us: query,
                load,
            },
            5 => RouteMessage::Unwilling { query, code },
            6 => RouteMessage::Request {
                request,
                target,
                introduction,
                share,
            },
            7 => RouteMessage::Offer {
                introduction,
                asker: key,
                share,
                grant,
            },
            8 => RouteMessage::Accept { introduction, share },
            9 => RouteMessage::Decline { introduction, code },
            10 => RouteMessage::Granted {
                request,
                target: key,
                share,
                grant,
            },
            11 => RouteMessage::Refused { request, code },
            _ => RouteMessage::Ended { introduction, code },
        }
    })
}

fn any_peer_control() -> impl Strategy<Value = PeerControl> {
    prop_oneof![
        any_hello().prop_map(PeerControl::Hello),
        any_hello().prop_map(PeerControl::Welcome),
        any_route_message().prop_map(PeerControl::Route),
        any_mesh_message().prop_map(PeerControl::Mesh),
    ]
}

proptest! {
    #[test]
    fn every_message_comes_back(message in any_peer_control()) {
        assert_format(&message, PeerControl::encode, PeerControl::decode);
    }

    #[test]
    fn any_bytes_are_harmless(number in 0_u8..32, mut bytes in any_bytes(400).prop_map(Vec::from)) {
        bytes.insert(0, number);
        let _ = PeerControl::decode(&bytes);
    }
}
