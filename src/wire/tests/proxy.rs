use bytes::Bytes;
use proptest::prelude::*;

use crate::wire::PROTOCOL_VERSION;
use crate::wire::proxy::{MAX_SHARE, ToCoordinator, ToProxy};

fn to_coordinator() -> Vec<ToCoordinator> {
    vec![
        ToCoordinator::Login {
            protocol: PROTOCOL_VERSION,
            share: Bytes::from_static(&[7; MAX_SHARE]),
        },
        ToCoordinator::Proof {
            proof: [1; 32],
            addresses: vec![
                "203.0.113.1:61111".parse().unwrap(),
                "[2001:db8::1]:61111".parse().unwrap(),
            ],
            sessions: 5,
            room: 16_384,
            version: "1.2.3".to_owned(),
        },
        ToCoordinator::Load { sessions: 6, room: 7 },
    ]
}

fn to_proxy() -> Vec<ToProxy> {
    vec![
        ToProxy::Share {
            share: Bytes::from_static(&[8; 33]),
        },
        ToProxy::Admitted {
            proof: [2; 32],
            ticket_key: [3; 32],
            ticket_time: 1 << 40,
            observed: "203.0.113.1:61111".parse().unwrap(),
        },
    ]
}

#[test]
fn messages_survive_and_every_cut_of_them_is_refused() {
    for message in to_coordinator() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(
                ToCoordinator::decode(&bytes[..length]).is_err(),
                "{message:?} at {length}"
            );
        }
        bytes.push(9);
        assert_eq!(ToCoordinator::decode(&bytes), Ok(message));
    }
    for message in to_proxy() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(ToProxy::decode(&bytes[..length]).is_err(), "{message:?} at {length}");
        }
        bytes.push(9);
        assert_eq!(ToProxy::decode(&bytes), Ok(message));
    }
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (ToCoordinator::decode(&bytes), ToProxy::decode(&bytes));
    }
}
