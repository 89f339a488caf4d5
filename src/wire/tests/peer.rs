use super::mesh::any_mesh_message;
use super::*;
use crate::wire::mesh::MeshMessage;
use crate::wire::peer::{PeerControl, PeerHello};
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

#[test]
fn types_that_nobody_uses_are_unknown() {
    assert_eq!(PeerControl::decode(&[]), Err(DecodeError::Truncated));
    for number in [0, 3, 15, 29, 255] {
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

fn any_peer_control() -> impl Strategy<Value = PeerControl> {
    prop_oneof![
        any_hello().prop_map(PeerControl::Hello),
        any_hello().prop_map(PeerControl::Welcome),
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
