//! Messages of a server to a node, introductions included: no bytes panic, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::control::FromServer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = FromServer::decode(bytes) else { return };
    let mut written = Vec::new();
    message.encode(&mut written);
    assert_eq!(FromServer::decode(&written), Ok(message));
});
