use super::*;
use crate::wire::introduction::{
    Introduction, MAX_FIRST_FLIGHT, MAX_RELAYS, MAX_TICKET, RelayIntroduction, RelayOffer,
};
use crate::wire::{MAX_CANDIDATES, Reader, Writer};

/// One of everything.
pub fn sample() -> Introduction {
    Introduction {
        id: 0x0102_0304_0506_0708,
        request: 9,
        peer: key(0x22),
        secret: [0x33; 32],
        valid_ms: 30_000,
        candidates: vec![
            Candidate {
                kind: CandidateKind::Observed,
                address: address("192.0.2.1:5000"),
            },
            Candidate {
                kind: CandidateKind::Local,
                address: address("[2001:db8::1]:5001"),
            },
        ],
        own_observed: Some(address("198.51.100.7:6000")),
        facts: NatFacts {
            mapping_varies_by_address: Some(true),
            mapping_varies_by_port: Some(false),
            port_step: Some(-2),
            port_block: Some((1024, 2047)),
            hairpin: Some(true),
            ..NatFacts::default()
        },
        permit: BirthdayPermit {
            probe_ports: 2048,
            sockets: 64,
        },
        relays: vec![RelayOffer {
            address: Some(address("203.0.113.5:61111")),
            key: key(0x44),
            ticket: Bytes::from_static(&[0x55; 3]),
            valid_ms: 60_000,
            session: 0x0708_090a_0b0c_0d0e,
            from_asker: true,
            key_number: 3,
            secret: [0x77; 32],
            idle_ms: 30_000,
        }],
        first_flight: Bytes::from_static(&[0x66; 2]),
        own_facts: NatFacts {
            filters_by_port: Some(true),
            ..NatFacts::default()
        },
    }
}

/// The fields of [`sample`].
pub const SAMPLE_BYTES: &str = "0102030405060708 | 00000009
    | 2222222222222222222222222222222222222222222222222222222222222222
    | 3333333333333333333333333333333333333333333333333333333333333333 | 00007530
    | 0002 | 0008 02 04 1388 c0000201 | 0014 01 06 1389 20010db8000000000000000000000001
    | 04 1770 c6336407
    | 0008 e3 21 fffe 0400 07ff
    | 0004 0800 0040
    | 0001 | 005f 04 eeb7 cb007105 4444444444444444444444444444444444444444444444444444444444444444 000003 555555 0000ea60
    0708090a0b0c0d0e 01 03 7777777777777777777777777777777777777777777777777777777777777777 00007530
    | 000002 6666 | 0008 08 08 0000 0000 0000";

/// As large as an introduction gets.
pub fn largest() -> Introduction {
    let relay = RelayOffer {
        address: Some(address("[2001:db8::5]:61111")),
        key: key(0x44),
        ticket: Bytes::from(vec![0x55; MAX_TICKET]),
        valid_ms: u32::MAX,
        session: u64::MAX,
        from_asker: true,
        key_number: u8::MAX,
        secret: [0x77; 32],
        idle_ms: u32::MAX,
    };
    Introduction {
        candidates: vec![
            Candidate {
                kind: CandidateKind::Manual,
                address: address("[2001:db8::1]:5001")
            };
            MAX_CANDIDATES
        ],
        relays: vec![relay; MAX_RELAYS],
        first_flight: Bytes::from(vec![0x66; MAX_FIRST_FLIGHT]),
        ..sample()
    }
}

fn any_relay_offer() -> impl Strategy<Value = RelayOffer> {
    let address = proptest::option::of(any_address());
    let rest = any::<(u32, u64, bool, u8, [u8; 32], u32)>();
    (address, any_key(), any_bytes(MAX_TICKET), rest).prop_map(|(address, key, ticket, rest)| {
        let (valid_ms, session, from_asker, key_number, secret, idle_ms) = rest;
        RelayOffer {
            address,
            key,
            ticket,
            valid_ms,
            session,
            from_asker,
            key_number,
            secret,
            idle_ms,
        }
    })
}

pub fn any_relay_introduction() -> impl Strategy<Value = RelayIntroduction> {
    let head = (any::<(u64, u32, [u8; 32], bool)>(), any_key());
    (head, any_list(any_relay_offer(), MAX_RELAYS)).prop_map(|(((id, request, secret, announced), peer), relays)| {
        RelayIntroduction {
            id,
            request,
            peer,
            secret,
            relays,
            announced,
        }
    })
}

pub fn any_introduction() -> impl Strategy<Value = Introduction> {
    (
        (any::<u64>(), any::<u32>(), any_key(), any::<[u8; 32]>(), any::<u32>()),
        any_list(any_candidate(), MAX_CANDIDATES),
        proptest::option::of(any_address()),
        (any_facts(), any_facts(), any_permit()),
        any_list(any_relay_offer(), MAX_RELAYS),
        any_bytes(40),
    )
        .prop_map(
            |(
                (id, request, peer, secret, valid_ms),
                candidates,
                own_observed,
                (facts, own_facts, permit),
                relays,
                first_flight,
            )| {
                Introduction {
                    id,
                    request,
                    peer,
                    secret,
                    valid_ms,
                    candidates,
                    own_observed,
                    facts,
                    permit,
                    relays,
                    first_flight,
                    own_facts,
                }
            },
        )
}

#[test]
fn golden_bytes() {
    assert_golden(&sample(), SAMPLE_BYTES, Introduction::encode, Introduction::decode);
}

#[test]
fn the_largest_one_comes_back() {
    assert_format(&largest(), Introduction::encode, Introduction::decode);
}

#[test]
fn candidates_of_unknown_kinds_are_left_out_and_longer_ones_are_read() {
    let bytes = hex("0003 | 0003 63 0102 | 000a 02 04 1388 c0000201 ffff | 0000");
    // The last record is empty: too short even for a kind.
    assert_eq!(Reader::new(&bytes).candidates(), Err(DecodeError::Truncated));
    let bytes = hex("0002 | 0003 63 0102 | 000a 02 04 1388 c0000201 ffff");
    let known = Candidate {
        kind: CandidateKind::Observed,
        address: address("192.0.2.1:5000"),
    };
    assert_eq!(Reader::new(&bytes).candidates(), Ok(vec![known]));
}

#[test]
fn more_than_the_bound_is_refused() {
    let too_many = hex("0011");
    assert_eq!(
        Reader::new(&too_many).candidates(),
        Err(DecodeError::TooLong("candidates"))
    );
    let too_long = hex("000579");
    assert_eq!(
        Reader::new(&too_long).first_flight(),
        Err(DecodeError::TooLong("first flight"))
    );
}

pub fn any_forecast() -> impl Strategy<Value = PortForecast> {
    (any::<u8>(), any_address(), any::<u16>(), any::<i16>()).prop_map(|(round, before, after, step)| PortForecast {
        round,
        before,
        after,
        step: if step == 0 { 1 } else { step },
    })
}

#[test]
fn a_forecast_without_a_step_is_refused() {
    let bytes = hex("000c | 01 | 04 1388 c0000201 | 1389 | 0000");
    assert_eq!(Reader::new(&bytes).forecast(), Err(DecodeError::Invalid("port step")));
}

#[test]
fn a_port_block_has_its_ends_in_order() {
    assert_eq!(
        Reader::new(&hex("0008 80 00 0000 0002 0001")).facts(),
        Err(DecodeError::Invalid("port block"))
    );
    let swapped = NatFacts {
        port_block: Some((2, 1)),
        ..NatFacts::default()
    };
    let bytes = encoded(|out| Writer::new(out).facts(&swapped));
    assert_eq!(Reader::new(&bytes).facts(), Ok(NatFacts::default()));
}

proptest! {
    #[test]
    fn every_introduction_comes_back(introduction in any_introduction()) {
        assert_format(&introduction, Introduction::encode, Introduction::decode);
    }

    #[test]
    fn any_bytes_are_harmless(bytes in any_bytes(600)) {
        let _ = Introduction::decode(&bytes);
    }
}
