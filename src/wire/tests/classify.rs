use super::*;
use crate::wire::classify::{Context, GATE_HEADER, Kind, OWN_FRAMES, QUIC_VERSIONS, classify};
use crate::wire::probe::{Probe, ProbeKey, ProbeKind};
use crate::wire::stun::Request;

/// A connection id that "we know".
const OURS: [u8; 4] = [0xc0, 0xff, 0xee, 0x01];

fn stranger() -> Context<impl Fn(&[u8]) -> bool> {
    Context {
        source_is_gate_peer: false,
        gate_role_active: false,
        knows_connection_id: |rest: &[u8]| rest.starts_with(&OURS),
    }
}

/// What a datagram is: from a stranger, while a GATE role is active, and from a peer in the GATE table.
fn kinds(digits: &str) -> [Kind; 3] {
    let bytes = hex(digits);
    [
        classify(&bytes, stranger()),
        classify(
            &bytes,
            Context {
                gate_role_active: true,
                ..stranger()
            },
        ),
        classify(
            &bytes,
            Context {
                gate_role_active: true,
                source_is_gate_peer: true,
                ..stranger()
            },
        ),
    ]
}

#[test]
fn the_order_holds() {
    use Kind::*;
    let table: &[(&str, &str, [Kind; 3])] = &[
        (
            "STUN request",
            "0001 0000 2112a442 000000000000000000000000",
            [Stun, Stun, Stun],
        ),
        (
            "STUN response",
            "0101 0000 2112a442 000000000000000000000000",
            [Stun, Stun, Stun],
        ),
        (
            "STUN before own frames",
            "0801 0000 2112a442 000000000000000000000000",
            [Stun, Stun, Stun],
        ),
        (
            "STUN too short",
            "0001 0000 2112a442 0000000000000000000000",
            [Unknown, Unknown, GateRaw],
        ),
        (
            "STUN of RFC 3489, no cookie",
            "0001 0000 2112a443 000000000000000000000000",
            [Unknown, Unknown, GateRaw],
        ),
        (
            "cookie behind a top bit",
            "8001 0000 2112a442 000000000000000000000000",
            [Unknown, Unknown, GateRaw],
        ),
        ("own frame, lowest", "04", [OwnFrame(4), OwnFrame(4), GateRaw]),
        ("own frame, highest", "0f 0102", [OwnFrame(15), OwnFrame(15), GateRaw]),
        ("below own frames", "03 0102", [Unknown, Unknown, GateRaw]),
        ("above own frames", "10 0102", [Unknown, Unknown, GateRaw]),
        (
            "QUIC version 1",
            "c3 00000001 08 0102030405060708",
            [QuicLong, QuicLong, GateRaw],
        ),
        (
            "version negotiation",
            "80 00000000 08 0102030405060708",
            [QuicLong, QuicLong, GateRaw],
        ),
        (
            "QUIC version 2",
            "d3 6b3343cf 08 0102030405060708",
            [Unknown, Unknown, GateRaw],
        ),
        (
            "greased QUIC version",
            "c3 1a2a3a4a 08 0102030405060708",
            [Unknown, Unknown, GateRaw],
        ),
        ("QUIC too short", "c3 00000001", [Unknown, Unknown, GateRaw]),
        (
            "QUIC of ours, short",
            "41 c0ffee01 0102",
            [QuicShort, QuicShort, GateRaw],
        ),
        ("QUIC of others, short", "41 c0ffee02 0102", [Unknown, Unknown, GateRaw]),
        (
            "connection id without fixed bit",
            "21 c0ffee01 0102",
            [Unknown, Unknown, GateRaw],
        ),
        (
            "knock with header",
            "dec0adde 0c000000 01000000 fd",
            [Unknown, Gate, GateRaw],
        ),
        (
            "registration",
            "dec0adde 0c000000 05000000 7265670a00",
            [Unknown, Gate, GateRaw],
        ),
        ("empty payload", "dec0adde 0c000000 00000000", [Unknown, Gate, GateRaw]),
        (
            "payload longer than it says",
            "dec0adde 0c000000 01000000 fd00",
            [Unknown, Gate, GateRaw],
        ),
        (
            "payload shorter than it says",
            "dec0adde 0c000000 02000000 fd",
            [Unknown, Unknown, GateRaw],
        ),
        (
            "absurd payload length",
            "dec0adde 0c000000 ffffffff fd",
            [Unknown, Unknown, GateRaw],
        ),
        ("header cut", "dec0adde 0c000000 010000", [Unknown, Unknown, GateRaw]),
        (
            "another header length",
            "dec0adde 0d000000 01000000 fd",
            [Unknown, Unknown, GateRaw],
        ),
        ("lone data request", "fb", [Unknown, Gate, GateRaw]),
        ("lone welcome", "fc", [Unknown, Gate, GateRaw]),
        ("lone knock", "fd", [Unknown, Gate, GateRaw]),
        ("lone data", "fa", [Unknown, Unknown, GateRaw]),
        ("lone not found", "fe", [Unknown, Unknown, GateRaw]),
        ("two knocks", "fdfd", [Unknown, Unknown, GateRaw]),
        ("registration without header", "7265670a", [Unknown, Unknown, GateRaw]),
        ("nothing", "", [Unknown, Unknown, GateRaw]),
    ];
    for (name, digits, expected) in table {
        assert_eq!(kinds(digits), *expected, "{name}");
    }
}

#[test]
fn gamemakers_header_looks_like_a_long_header_of_no_quic_version() {
    assert_ne!(GATE_HEADER[0] & 0x80, 0);
    let version = u32::from_be_bytes([GATE_HEADER[1], GATE_HEADER[2], GATE_HEADER[3], GATE_HEADER[4]]);
    assert_eq!(version, 0xc0ad_de0c);
    assert!(!QUIC_VERSIONS.contains(&version));
}

#[test]
fn what_we_write_is_told_apart_as_what_it_is() {
    let stun = encoded(|out| Request::new([7; 12]).encode(out));
    assert_eq!(classify(&stun, stranger()), Kind::Stun);
    let probe = Probe {
        introduction: 1,
        from_asker: true,
        transaction: 2,
        kind: ProbeKind::Request,
    };
    let probe = encoded(|out| probe.encode(&ProbeKey::new(&[1; 32]), 0, out));
    assert_eq!(classify(&probe, stranger()), Kind::OwnFrame(4));
    assert_eq!(OWN_FRAMES, 4..=15);
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(bytes in any_bytes(40), gate_role_active: bool, source_is_gate_peer: bool) {
        let kind = classify(&bytes, Context { source_is_gate_peer, gate_role_active, ..stranger() });
        // Only rules 1 and 2 look beyond the first byte's class.
        let first = bytes.first().copied().unwrap_or_default();
        match kind {
            Kind::Stun => prop_assert!(first < 0x40),
            Kind::OwnFrame(byte) => prop_assert!(byte == first && OWN_FRAMES.contains(&byte)),
            Kind::QuicLong => prop_assert!(first >= 0x80),
            Kind::Gate => prop_assert!(first >= 0x80 && gate_role_active),
            Kind::QuicShort => prop_assert!((0x40..0x80).contains(&first)),
            Kind::GateRaw => prop_assert!(source_is_gate_peer),
            Kind::Unknown => prop_assert!(!source_is_gate_peer),
        }
    }
}
