//! Tests of all formats: golden bytes, so that no format changes by accident; and properties that each format has:
//! what was encoded decodes to the same; a valid message cut anywhere is an error or a message; bytes behind it are
//! ignored; no bytes whatsoever panic.

mod classify;
mod codec;
mod control;
mod introduction;
mod mesh;
mod peer;
mod probe;
mod proxy;
mod relay;
mod stun;
mod tunnel;

use std::fmt::Debug;
use std::net::SocketAddr;

use bytes::Bytes;
use proptest::prelude::*;

use super::DecodeError;
use super::introduction::{BirthdayPermit, Candidate, CandidateKind, NatFacts, PortForecast};
use crate::transport::identity::{Guid, PublicKey};

/// Bytes from hexadecimal digits; white space and `|` are for the reader.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Hexadecimal digits, for messages of failed comparisons.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `encode` appends to an empty buffer, and that it appends.
pub fn encoded(encode: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let (mut empty, mut begun) = (Vec::new(), vec![0xaa, 0xbb]);
    encode(&mut empty);
    encode(&mut begun);
    assert_eq!(begun[..2], [0xaa, 0xbb]);
    assert_eq!(begun[2..], empty);
    empty
}

/// The value encodes to exactly these bytes, and they decode to it.
pub fn assert_golden<T: PartialEq + Debug>(
    value: &T,
    digits: &str,
    encode: impl Fn(&T, &mut Vec<u8>),
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let bytes = encoded(|out| encode(value, out));
    assert_eq!(to_hex(&bytes), to_hex(&hex(digits)), "{value:?}");
    assert_eq!(decode(&bytes).as_ref(), Ok(value));
}

/// The properties of every format that ends where its fields end.
pub fn assert_format<T: PartialEq + Debug>(
    value: &T,
    encode: impl Fn(&T, &mut Vec<u8>),
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let mut bytes = encoded(|out| encode(value, out));
    assert_eq!(decode(&bytes).as_ref(), Ok(value));
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    bytes.extend_from_slice(b"fields of a later version");
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "with bytes behind it");
}

pub fn key(byte: u8) -> PublicKey {
    PublicKey([byte; 32])
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn any_key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey)
}

pub fn any_guid() -> impl Strategy<Value = Guid> {
    (1..1_u64 << 63).prop_map(Guid)
}

/// Addresses as they travel: no scope, not IPv4 in IPv6's clothes.
pub fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
    .prop_map(super::unmapped)
}

pub fn any_bytes(bound: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..=bound).prop_map(Bytes::from)
}

/// Texts within a bound in bytes, of one to four bytes a character.
pub fn any_text(bound: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..=bound / 4).prop_map(String::from_iter)
}

pub fn any_list<T: Debug>(element: impl Strategy<Value = T>, bound: usize) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(element, 0..=bound)
}

pub fn any_candidate() -> impl Strategy<Value = Candidate> {
    let kind = prop_oneof![
        Just(CandidateKind::Local),
        Just(CandidateKind::Observed),
        Just(CandidateKind::Mapped),
        Just(CandidateKind::Manual),
    ];
    (kind, any_address()).prop_map(|(kind, address)| Candidate { kind, address })
}

pub fn any_facts() -> impl Strategy<Value = NatFacts> {
    let booleans = any::<[Option<bool>; 6]>();
    (booleans, any::<Option<i16>>(), any::<Option<(u16, u16)>>()).prop_map(|(booleans, port_step, block)| NatFacts {
        mapping_varies_by_address: booleans[0],
        mapping_varies_by_port: booleans[1],
        filters_by_address: booleans[2],
        filters_by_port: booleans[3],
        preserves_port: booleans[4],
        port_step,
        port_block: block.map(|(one, other)| (one.min(other), one.max(other))),
        hairpin: booleans[5],
    })
}

pub fn any_permit() -> impl Strategy<Value = BirthdayPermit> {
    any::<(u16, u16)>().prop_map(|(probe_ports, sockets)| BirthdayPermit { probe_ports, sockets })
}
