use super::*;
use crate::wire::introduction::MAX_TICKET;
use crate::wire::relay::{
    BOUND_LENGTH, Bind, Bound, DATA_AUTHENTICATED, DATA_HEADER, DataHeader, GONE_LENGTH, Gone, MIN_BIND, Refusal,
    RelayFrame,
};
use crate::wire::stun::is_stun;

fn header() -> DataHeader {
    DataHeader {
        segment_size: 1200,
        from_asker: true,
        key_number: 3,
        counter: 0x0102_0304_0506,
        session: 0x1112_1314_1516_1718,
        tag: [0x77; 8],
    }
}

fn bind(ticket: &[u8]) -> Bind<'_> {
    Bind {
        key_number: 3,
        session: 0x1112_1314_1516_1718,
        transaction: 0x2122_2324_2526_2728,
        ticket,
        tag: [0x77; 16],
    }
}

fn bound(refusal: Option<Refusal>) -> Bound {
    Bound {
        observed: address("192.0.2.1:5000"),
        refusal,
        key_number: 3,
        session: 0x1112_1314_1516_1718,
        transaction: 0x2122_2324_2526_2728,
        idle_ms: 30_000,
        bytes_per_second: 65536,
        tag: [0x77; 16],
    }
}

fn gone() -> Gone {
    Gone {
        refusal: Refusal::Expired,
        key_number: 3,
        session: 0x1112_1314_1516_1718,
        counter: 0x0102_0304_0506,
    }
}

fn golden(frame: RelayFrame<'_>, digits: &str) {
    let bytes = encoded(|out| frame.encode(out));
    assert_eq!(to_hex(&bytes), to_hex(&hex(digits)));
    assert_eq!(RelayFrame::decode(&bytes), Ok(frame));
}

#[test]
fn golden_bytes() {
    golden(
        RelayFrame::Data(header(), b"payload"),
        "06 10 04b0 01 03 010203040506 1112131415161718 7777777777777777 | 7061796c6f6164",
    );
    golden(
        RelayFrame::Bind(bind(b"ticket")),
        "07 10 0006 00 03 1112131415161718 2122232425262728 | 7469636b6574 | 77777777777777777777777777777777
        | 0000000000000000000000000000000000000000",
    );
    golden(
        RelayFrame::Bound(bound(None)),
        "08 10 1388 04 c0000201000000000000000000000000 | 00 03 1112131415161718 2122232425262728 | 00007530 00010000
        | 77777777777777777777777777777777",
    );
    golden(
        RelayFrame::Gone(gone()),
        "09 10 02 0000 03 1112131415161718 0000010203040506",
    );
}

#[test]
fn headers_leave_room_for_quic_and_answers_are_no_larger_than_what_they_answer() {
    assert_eq!((DATA_HEADER, DATA_AUTHENTICATED), (28, 20));
    assert_eq!(encoded(|out| header().encode(out)).len(), DATA_HEADER);
    assert_eq!(encoded(|out| bind(b"").encode(out)).len(), MIN_BIND);
    assert_eq!(encoded(|out| bound(None).encode(out)).len(), BOUND_LENGTH);
    assert_eq!(encoded(|out| gone().encode(out)).len(), GONE_LENGTH);
    assert_eq!(
        encoded(|out| bind(&[1; MAX_TICKET]).encode(out)).len(),
        22 + MAX_TICKET + 16
    );
}

#[test]
fn what_a_tag_covers_ends_where_the_tag_begins() {
    let bytes = encoded(|out| header().encode(out));
    assert_eq!(bytes[DATA_AUTHENTICATED..], header().tag);
    let bytes = encoded(|out| bind(b"ticket").encode(out));
    let covered = bind(b"ticket").authenticated_length();
    assert_eq!(bytes[covered..covered + 16], bind(b"").tag);
}

#[test]
fn no_frame_is_taken_for_stun() {
    let cookies = u64::from_be_bytes([0x21, 0x12, 0xa4, 0x42, 0x21, 0x12, 0xa4, 0x42]);
    let frames = [
        encoded(|out| {
            DataHeader {
                session: cookies,
                counter: cookies >> 16,
                key_number: 0x21,
                ..header()
            }
            .encode(out)
        }),
        encoded(|out| {
            Bind {
                session: cookies,
                key_number: 0x21,
                ..bind(b"")
            }
            .encode(out)
        }),
        encoded(|out| {
            Bound {
                session: cookies,
                observed: address("33.18.164.66:8466"),
                ..bound(None)
            }
            .encode(out)
        }),
        encoded(|out| {
            Gone {
                session: cookies,
                key_number: 0x21,
                ..gone()
            }
            .encode(out)
        }),
    ];
    assert!(frames.iter().all(|frame| !is_stun(frame)));
}

#[test]
fn broken_frames_are_refused() {
    assert_eq!(RelayFrame::decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(RelayFrame::decode(&[10, 0x10]), Err(DecodeError::UnknownType(10)));
    assert_eq!(
        RelayFrame::decode(&[6, 0x20, 0, 0]),
        Err(DecodeError::Invalid("relay frame version"))
    );
    let mut bytes = encoded(|out| bind(&[1; MAX_TICKET]).encode(out));
    bytes[3] = 129;
    assert_eq!(RelayFrame::decode(&bytes), Err(DecodeError::TooLong("ticket")));
    let short = encoded(|out| bind(b"ticket").encode(out));
    assert_eq!(RelayFrame::decode(&short[..MIN_BIND - 1]), Err(DecodeError::Truncated));
    let mut bytes = encoded(|out| gone().encode(out));
    bytes[2] = 99;
    assert_eq!(RelayFrame::decode(&bytes), Err(DecodeError::Invalid("refusal")));
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::Unknown),
        Just(Refusal::Expired),
        Just(Refusal::Budget),
        Just(Refusal::Full),
        Just(Refusal::Ticket),
    ]
}

proptest! {
    #[test]
    fn every_data_frame_comes_back(
        (segment_size, from_asker, key_number, session, tag) in any::<(u16, bool, u8, u64, [u8; 8])>(),
        counter in 0..1_u64 << 48,
        payload in any_bytes(100),
    ) {
        let frame = RelayFrame::Data(DataHeader { segment_size, from_asker, key_number, counter, session, tag }, &payload);
        let bytes = encoded(|out| frame.encode(out));
        prop_assert_eq!(RelayFrame::decode(&bytes), Ok(frame));
        for length in 0..DATA_HEADER {
            prop_assert_eq!(RelayFrame::decode(&bytes[..length]), Err(DecodeError::Truncated));
        }
    }

    #[test]
    fn every_bind_and_its_answers_come_back(
        (key_number, session, transaction, tag) in any::<(u8, u64, u64, [u8; 16])>(),
        (idle_ms, bytes_per_second) in any::<(u32, u32)>(),
        ticket in any_bytes(MAX_TICKET),
        observed in any_address(),
        refusal in proptest::option::of(any_refusal()),
    ) {
        let bind = Bind { key_number, session, transaction, ticket: &ticket, tag };
        let bound = Bound { observed, refusal, key_number, session, transaction, idle_ms, bytes_per_second, tag };
        let gone = Gone { refusal: refusal.unwrap_or(Refusal::Unknown), key_number, session, counter: transaction };
        for frame in [RelayFrame::Bind(bind), RelayFrame::Bound(bound), RelayFrame::Gone(gone)] {
            let mut bytes = encoded(|out| frame.encode(out));
            prop_assert_eq!(RelayFrame::decode(&bytes), Ok(frame));
            for length in 0..bytes.len() {
                let _ = RelayFrame::decode(&bytes[..length]);
            }
            bytes.extend_from_slice(b"fields of a later version");
            prop_assert_eq!(RelayFrame::decode(&bytes), Ok(frame));
        }
    }

    #[test]
    fn any_bytes_are_harmless(mut bytes in any_bytes(200).prop_map(Vec::from), kind in 5_u8..11) {
        bytes.splice(0..0, [kind, 0x10]);
        let _ = RelayFrame::decode(&bytes);
    }
}
