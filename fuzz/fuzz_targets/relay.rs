//! Relay frames: no bytes panic, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::relay::RelayFrame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = RelayFrame::decode(bytes) else { return };
    let mut written = Vec::new();
    message.encode(&mut written);
    assert_eq!(RelayFrame::decode(&written), Ok(message));
});
