//! The stream of a tunnel: no bytes panic, every datagram is within its bounds, and what was read is written so that it reads the same.
#![no_main]

use lanline::wire::tunnel::{MAX_TUNNEL_DATAGRAM, TUNNEL_HEADER, first_datagram, write_datagram};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut stream, mut written) = (bytes, Vec::new());
    while let Ok(Some(datagram)) = first_datagram(stream) {
        assert!((1..=MAX_TUNNEL_DATAGRAM).contains(&datagram.len()));
        assert!(write_datagram(datagram, &mut written));
        stream = &stream[TUNNEL_HEADER + datagram.len()..];
    }
    assert_eq!(written, bytes[..written.len()]);
});
