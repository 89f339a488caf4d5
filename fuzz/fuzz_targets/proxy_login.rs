//! Messages between a proxy server and its coordinator: no bytes panic, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::proxy::{ToCoordinator, ToProxy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut written = Vec::new();
    if let Ok(message) = ToCoordinator::decode(bytes) {
        message.encode(&mut written);
        assert_eq!(ToCoordinator::decode(&written), Ok(message));
    }
    written.clear();
    if let Ok(message) = ToProxy::decode(bytes) {
        message.encode(&mut written);
        assert_eq!(ToProxy::decode(&written), Ok(message));
    }
});
