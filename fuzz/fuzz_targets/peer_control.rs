//! Messages between players, the mesh's included: no bytes panic, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::peer::PeerControl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = PeerControl::decode(bytes) else {
        return;
    };
    let mut written = Vec::new();
    message.encode(&mut written);
    assert_eq!(PeerControl::decode(&written), Ok(message));
});
