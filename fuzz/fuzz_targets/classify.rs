//! Telling datagrams apart: no bytes panic, and each kind has the first byte that it must have.
#![no_main]

use lanline::wire::classify::{Context, Kind, classify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&switches, datagram)) = bytes.split_first() else {
        return;
    };
    let context = Context {
        source_is_gate_peer: switches & 1 != 0,
        gate_role_active: switches & 2 != 0,
        knows_connection_id: |rest: &[u8]| rest.len() >= 8 && switches & 4 != 0,
    };
    let first = datagram.first().copied().unwrap_or_default();
    match classify(datagram, context) {
        Kind::Stun => assert!(first < 0x40),
        Kind::OwnFrame(byte) => assert!(byte == first && (4..=15).contains(&byte)),
        Kind::QuicLong | Kind::Gate => assert!(first >= 0x80),
        Kind::QuicShort => assert!((0x40..0x80).contains(&first)),
        Kind::GateRaw => assert!(context.source_is_gate_peer),
        Kind::Unknown => assert!(!context.source_is_gate_peer),
    }
});
