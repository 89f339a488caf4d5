//! An introduction by itself: no bytes panic, lists keep their bounds, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::MAX_CANDIDATES;
use lanline::wire::introduction::{Introduction, MAX_FIRST_FLIGHT, MAX_RELAYS, MAX_TICKET};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(introduction) = Introduction::decode(bytes) else { return };
    assert!(introduction.candidates.len() <= MAX_CANDIDATES);
    assert!(introduction.relays.len() <= MAX_RELAYS);
    assert!(introduction.relays.iter().all(|relay| relay.ticket.len() <= MAX_TICKET));
    assert!(introduction.first_flight.len() <= MAX_FIRST_FLIGHT);
    let mut written = Vec::new();
    introduction.encode(&mut written);
    assert_eq!(Introduction::decode(&written), Ok(introduction));
});
