//! Punch probes: no bytes panic or pass without the key; with the right tag they read the same once written.
#![no_main]

use lanline::wire::probe::{PLAIN_PROBE, Probe, ProbeKey};
use libfuzzer_sys::fuzz_target;

/// Bytes before and behind the tag.
const FIELDS: usize = PLAIN_PROBE - 16;

fuzz_target!(|bytes: &[u8]| {
    let secret = [7; 32];
    let key = ProbeKey::new(&secret);
    let _ = Probe::peek_introduction(bytes);
    if Probe::decode(bytes, &key).is_ok() || bytes.len() < PLAIN_PROBE {
        return;
    }
    // A fuzzer does not guess a tag: give the rest of the decoder its bytes with the right one.
    let mut signed = bytes.to_vec();
    let mut context = ring::hmac::Context::with_key(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret));
    context.update(&bytes[..FIELDS]);
    context.update(&bytes[PLAIN_PROBE..]);
    signed[FIELDS..PLAIN_PROBE].copy_from_slice(&context.sign().as_ref()[..16]);
    let Ok(probe) = Probe::decode(&signed, &key) else {
        return;
    };
    let mut written = Vec::new();
    probe.encode(&key, signed.len(), &mut written);
    assert_eq!(Probe::decode(&written, &key), Ok(probe));
    assert_eq!(written.len(), signed.len());
});
