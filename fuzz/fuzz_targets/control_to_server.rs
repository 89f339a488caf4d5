//! Messages of a node to its server: no bytes panic, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::control::ToServer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = ToServer::decode(bytes) else { return };
    let mut written = Vec::new();
    message.encode(&mut written);
    assert_eq!(ToServer::decode(&written), Ok(message));
});
