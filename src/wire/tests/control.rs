use super::introduction::{SAMPLE_BYTES, any_forecast, any_introduction, any_relay_introduction, largest, sample};
use super::*;
use crate::wire::control::{
    AddressProof, Consent, FromServer, Hello, KnownRelay, MAX_KNOWN_RELAYS, MAX_PROOFS, MAX_STUN_ADDRESSES,
    RelayPolicy, RelayRoundTrip, ToServer, Ways,
};
use crate::wire::introduction::MAX_RELAYS;
use crate::wire::{MAX_APP_ID, MAX_CANDIDATES, MAX_CONTROL_MESSAGE, MAX_TEXT, PROTOCOL_VERSION, peek_protocol};

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        app: "chess".to_owned(),
        access_proof: [0x11; 32],
        incarnation: 0x0807_0605_0403_0201,
        consent: Consent::Session,
        session_tag: [0x22; 16],
        relay_policy: RelayPolicy::Only,
        candidates: vec![Candidate {
            kind: CandidateKind::Manual,
            address: address("192.0.2.9:7777"),
        }],
        facts: NatFacts {
            preserves_port: Some(true),
            filters_by_address: Some(false),
            ..NatFacts::default()
        },
        proofs: vec![AddressProof {
            address: address("[2001:db8::9]:7777"),
            cookie: [0x33; 16],
        }],
    }
}

fn any_proof() -> impl Strategy<Value = AddressProof> {
    (any_address(), any::<[u8; 16]>()).prop_map(|(address, cookie)| AddressProof { address, cookie })
}

#[test]
fn golden_bytes_to_the_server() {
    let golden = |message: ToServer, digits| assert_golden(&message, digits, ToServer::encode, ToServer::decode);
    golden(
        ToServer::Hello(hello()),
        "01 | 0001 | 0005 6368657373 | 1111111111111111111111111111111111111111111111111111111111111111
        | 0807060504030201 | 01 | 22222222222222222222222222222222 | 02 | 0001 0008 04 04 1e61 c0000209
        | 0008 14 10 0000 0000 0000
        | 0001 | 0023 06 1e61 20010db8000000000000000000000009 33333333333333333333333333333333",
    );
    golden(
        ToServer::Update {
            consent: Consent::Nobody,
            session_tag: [0; 16],
            candidates: vec![],
            facts: NatFacts {
                filters_by_port: Some(true),
                ..NatFacts::default()
            },
            proofs: Vec::new(),
            relay_policy: RelayPolicy::Never,
        },
        "02 | 02 | 00000000000000000000000000000000 | 0000 | 0008 08 08 0000 0000 0000 | 0000 | 01",
    );
    golden(
        ToServer::OpenNat {
            request: 7,
            target: Guid(0x0123_4567_89ab_cdef),
            first_flight: Bytes::from_static(b"abc"),
            ways: Ways::Relayed,
        },
        "03 | 00000007 | 0123456789abcdef | 000003 616263 | 02",
    );
    golden(
        ToServer::RequestRelay {
            request: 7,
            target: Guid(0x0123_4567_89ab_cdef),
            idle_ms: 30_000,
            tried: vec![key(0x44)],
            announced: true,
        },
        "08 | 00000007 | 0123456789abcdef | 00007530
        | 0001 4444444444444444444444444444444444444444444444444444444444444444 | 01",
    );
    golden(
        ToServer::RelayRoundTrips {
            round_trips: vec![RelayRoundTrip {
                key: key(0x44),
                microseconds: 25_000,
            }],
        },
        "09 | 0001 0024 4444444444444444444444444444444444444444444444444444444444444444 000061a8",
    );
    golden(
        ToServer::Forecast {
            introduction: 0xff,
            forecast: PortForecast {
                round: 1,
                before: address("192.0.2.1:5000"),
                after: 5002,
                step: -2,
            },
        },
        "07 | 00000000000000ff | 000c 01 04 1388 c0000201 138a fffe",
    );
    golden(
        ToServer::IntroductionReceived {
            introduction: 0xff,
            accepted: true,
        },
        "04 | 00000000000000ff | 01",
    );
    golden(
        ToServer::PunchEnded {
            introduction: 0xff,
            path: 2,
        },
        "05 | 00000000000000ff | 02",
    );
    golden(ToServer::CancelOpenNat { request: 7 }, "06 | 00000007");
}

#[test]
fn golden_bytes_from_the_server() {
    let golden =
        |message: FromServer, digits: &str| assert_golden(&message, digits, FromServer::encode, FromServer::decode);
    golden(
        FromServer::Welcome {
            observed: address("192.0.2.1:5000"),
            version: "0.1.0".to_owned(),
            stun: vec![address("192.0.2.2:61112"), address("[2001:db8::2]:61112")],
            idle_timeout_ms: 30_000,
            relays: vec![KnownRelay {
                key: key(0x44),
                address: None,
            }],
            tunnel_port: 443,
        },
        "01 | 04 1388 c0000201 | 0005 302e312e30
        | 0002 04 eeb8 c0000202 06 eeb8 20010db8000000000000000000000002 | 00007530
        | 0001 0021 4444444444444444444444444444444444444444444444444444444444444444 00 | 01bb",
    );
    golden(
        FromServer::RelayFailed {
            request: 7,
            target: Guid(0x0123_4567_89ab_cdef),
            code: -102,
            text: "full".to_owned(),
        },
        "08 | 00000007 | 0123456789abcdef | ffffff9a | 0004 66756c6c",
    );
    golden(
        FromServer::KnownRelays {
            relays: vec![KnownRelay {
                key: PublicKey([0x44; 32]),
                address: None,
            }],
        },
        "09 | 0001 0021 4444444444444444444444444444444444444444444444444444444444444444 00",
    );
    golden(
        FromServer::IntroductionUpdate {
            introduction: 0xff,
            facts: NatFacts {
                port_step: Some(2),
                ..NatFacts::default()
            },
            own_facts: NatFacts::default(),
            permit: BirthdayPermit {
                probe_ports: 2048,
                sockets: 64,
            },
            candidates: Vec::new(),
        },
        "05 | 00000000000000ff | 0008 40 00 0002 0000 0000 | 0008 00 00 0000 0000 0000 | 0004 0800 0040 | 0000",
    );
    golden(
        FromServer::Forecast {
            introduction: 0xff,
            forecast: PortForecast {
                round: 0,
                before: address("192.0.2.1:5000"),
                after: 5000,
                step: 1,
            },
        },
        "06 | 00000000000000ff | 000c 00 04 1388 c0000201 1388 0001",
    );
    golden(
        FromServer::Introduction(sample()),
        &format!("02 | 00fb | {SAMPLE_BYTES}"),
    );
    golden(
        FromServer::OpenNatFailed {
            request: 7,
            target: Guid(5),
            code: -111,
            text: "not here".to_owned(),
        },
        "03 | 00000007 | 0000000000000005 | ffffff91 | 0008 6e6f742068657265",
    );
    golden(
        FromServer::IntroductionEnded {
            introduction: 0xff,
            code: -113,
        },
        "04 | 00000000000000ff | ffffff8f",
    );
}

#[test]
fn unknown_types_are_told_apart_from_broken_messages() {
    assert_eq!(ToServer::decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(ToServer::decode(&[0]), Err(DecodeError::UnknownType(0)));
    assert_eq!(ToServer::decode(&[99, 1, 2]), Err(DecodeError::UnknownType(99)));
    assert_eq!(FromServer::decode(&[200]), Err(DecodeError::UnknownType(200)));
    assert_eq!(
        ToServer::decode(&vec![6; MAX_CONTROL_MESSAGE + 1]),
        Err(DecodeError::TooLong("message"))
    );
}

#[test]
fn an_app_id_has_1_to_64_bytes() {
    let mut bytes = encoded(|out| ToServer::Hello(hello()).encode(out));
    bytes[3..5].copy_from_slice(&[0, 0]);
    assert_eq!(ToServer::decode(&bytes), Err(DecodeError::Invalid("app id")));
    bytes[3..5].copy_from_slice(&[0, 65]);
    assert_eq!(ToServer::decode(&bytes), Err(DecodeError::TooLong("app id")));
}

#[test]
fn the_protocol_of_a_greeting_can_be_read_in_any_version() {
    let bytes = encoded(|out| ToServer::Hello(hello()).encode(out));
    assert_eq!(peek_protocol(&bytes), Some(PROTOCOL_VERSION));
    assert_eq!(peek_protocol(&[1, 0x12, 0x34]), Some(0x1234));
    assert_eq!(peek_protocol(&[1, 0x12]), None);
    assert_eq!(peek_protocol(&[6, 0, 0, 0, 7]), None);
}

#[test]
fn an_introduction_may_grow_inside_its_message() {
    let mut inner = encoded(|out| sample().encode(out));
    inner.extend_from_slice(b"fields of a later version");
    let grown = [&[2][..], &(inner.len() as u16).to_be_bytes(), &inner].concat();
    assert_eq!(FromServer::decode(&grown), Ok(FromServer::Introduction(sample())));
}

#[test]
fn the_largest_messages_come_back() {
    let introduction = FromServer::Introduction(largest());
    assert_format(&introduction, FromServer::encode, FromServer::decode);
    let hello = ToServer::Hello(Hello {
        app: "a".repeat(MAX_APP_ID),
        candidates: vec![
            Candidate {
                kind: CandidateKind::Local,
                address: address("[2001:db8::1]:5001")
            };
            MAX_CANDIDATES
        ],
        ..hello()
    });
    assert_format(&hello, ToServer::encode, ToServer::decode);
}

#[test]
fn texts_over_the_bound_are_cut_so_that_the_other_side_can_read_them() {
    let message = FromServer::OpenNatFailed {
        request: 1,
        target: Guid(5),
        code: -111,
        text: "é".repeat(MAX_TEXT),
    };
    let bytes = encoded(|out| message.encode(out));
    let cut = FromServer::OpenNatFailed {
        request: 1,
        target: Guid(5),
        code: -111,
        text: "é".repeat(MAX_TEXT / 2),
    };
    assert_eq!(FromServer::decode(&bytes), Ok(cut));
}

/// What Hello and Update have in common: consent, session tag, candidates, facts.
fn any_standing() -> impl Strategy<Value = (Consent, [u8; 16], Vec<Candidate>, NatFacts, Vec<AddressProof>)> {
    let consent = prop_oneof![Just(Consent::App), Just(Consent::Session), Just(Consent::Nobody)];
    (
        consent,
        any::<[u8; 16]>(),
        any_list(any_candidate(), MAX_CANDIDATES),
        any_facts(),
        any_list(any_proof(), MAX_PROOFS),
    )
}

pub fn any_policy() -> impl Strategy<Value = RelayPolicy> {
    prop_oneof![
        Just(RelayPolicy::Fallback),
        Just(RelayPolicy::Never),
        Just(RelayPolicy::Only)
    ]
}

fn any_ways() -> impl Strategy<Value = Ways> {
    prop_oneof![Just(Ways::Direct), Just(Ways::Any), Just(Ways::Relayed)]
}

fn any_known_relay() -> impl Strategy<Value = KnownRelay> {
    (any_key(), proptest::option::of(any_address())).prop_map(|(key, address)| KnownRelay { key, address })
}

fn any_to_server() -> impl Strategy<Value = ToServer> {
    let policy = any_policy();
    let app = any_text(MAX_APP_ID - 4).prop_map(|text| format!("a{text}"));
    let hello = (
        any::<u16>(),
        app,
        any::<[u8; 32]>(),
        any::<u64>(),
        policy,
        any_standing(),
    );
    prop_oneof![
        hello.prop_map(|(protocol, app, access_proof, incarnation, relay_policy, standing)| {
            let (consent, session_tag, candidates, facts, proofs) = standing;
            ToServer::Hello(Hello {
                protocol,
                app,
                access_proof,
                incarnation,
                consent,
                session_tag,
                relay_policy,
                candidates,
                facts,
                proofs,
            })
        }),
        (any_standing(), any_policy()).prop_map(|(standing, relay_policy)| {
            let (consent, session_tag, candidates, facts, proofs) = standing;
            ToServer::Update {
                consent,
                session_tag,
                candidates,
                facts,
                proofs,
                relay_policy,
            }
        }),
        (any::<u32>(), any_guid(), any_bytes(50), any_ways()).prop_map(|(request, target, first_flight, ways)| {
            ToServer::OpenNat {
                request,
                target,
                first_flight,
                ways,
            }
        }),
        (any::<(u32, u32, bool)>(), any_guid(), any_list(any_key(), MAX_RELAYS)).prop_map(
            |((request, idle_ms, announced), target, tried)| ToServer::RequestRelay {
                request,
                target,
                idle_ms,
                tried,
                announced
            }
        ),
        any_list((any_key(), any::<u32>()), MAX_KNOWN_RELAYS).prop_map(|list| ToServer::RelayRoundTrips {
            round_trips: list
                .into_iter()
                .map(|(key, microseconds)| RelayRoundTrip { key, microseconds })
                .collect(),
        }),
        any::<(u64, bool)>()
            .prop_map(|(introduction, accepted)| ToServer::IntroductionReceived { introduction, accepted }),
        any::<(u64, u8)>().prop_map(|(introduction, path)| ToServer::PunchEnded { introduction, path }),
        any::<u32>().prop_map(|request| ToServer::CancelOpenNat { request }),
        (any::<u64>(), any_forecast())
            .prop_map(|(introduction, forecast)| ToServer::Forecast { introduction, forecast }),
    ]
}

fn any_from_server() -> impl Strategy<Value = FromServer> {
    prop_oneof![
        (
            any_address(),
            any_text(MAX_TEXT),
            any_list(any_address(), MAX_STUN_ADDRESSES),
            any::<u32>(),
            any_list(any_known_relay(), MAX_KNOWN_RELAYS),
            any::<u16>()
        )
            .prop_map(
                |(observed, version, stun, idle_timeout_ms, relays, tunnel_port)| FromServer::Welcome {
                    observed,
                    version,
                    stun,
                    idle_timeout_ms,
                    relays,
                    tunnel_port
                }
            ),
        any_list(any_known_relay(), MAX_KNOWN_RELAYS).prop_map(|relays| FromServer::KnownRelays { relays }),
        any_relay_introduction().prop_map(FromServer::Relays),
        (any::<u32>(), any_guid(), any::<i32>(), any_text(MAX_TEXT)).prop_map(|(request, target, code, text)| {
            FromServer::RelayFailed {
                request,
                target,
                code,
                text,
            }
        }),
        any_introduction().prop_map(FromServer::Introduction),
        (any::<u32>(), any_guid(), any::<i32>(), any_text(MAX_TEXT)).prop_map(|(request, target, code, text)| {
            FromServer::OpenNatFailed {
                request,
                target,
                code,
                text,
            }
        }),
        any::<(u64, i32)>().prop_map(|(introduction, code)| FromServer::IntroductionEnded { introduction, code }),
        (
            any::<u64>(),
            any_facts(),
            any_facts(),
            any_permit(),
            any_list(any_candidate(), MAX_CANDIDATES)
        )
            .prop_map(|(introduction, facts, own_facts, permit, candidates)| {
                FromServer::IntroductionUpdate {
                    introduction,
                    facts,
                    own_facts,
                    permit,
                    candidates,
                }
            }),
        (any::<u64>(), any_forecast())
            .prop_map(|(introduction, forecast)| FromServer::Forecast { introduction, forecast }),
    ]
}

proptest! {
    #[test]
    fn every_message_to_the_server_comes_back(message in any_to_server()) {
        assert_format(&message, ToServer::encode, ToServer::decode);
    }

    #[test]
    fn every_message_from_the_server_comes_back(message in any_from_server()) {
        assert_format(&message, FromServer::encode, FromServer::decode);
    }

    #[test]
    fn any_bytes_are_harmless(number in 0_u8..11, mut bytes in any_bytes(400).prop_map(Vec::from)) {
        bytes.insert(0, number);
        let _ = (ToServer::decode(&bytes), FromServer::decode(&bytes));
    }

    #[test]
    fn one_wrong_byte_is_harmless(message in any_from_server(), place in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encoded(|out| message.encode(out));
        let place = place.index(bytes.len());
        bytes[place] = value;
        let _ = FromServer::decode(&bytes);
    }
}
