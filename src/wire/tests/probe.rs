use super::*;
use crate::wire::probe::{MAX_PROBE, PADDED_PROBE, PLAIN_PROBE, Probe, ProbeKey, ProbeKind};
use crate::wire::stun::is_stun;

fn request() -> Probe {
    Probe {
        introduction: 0x0102_0304_0506_0708,
        from_asker: true,
        transaction: 0x1112_1314_1516_1718,
        kind: ProbeKind::Request,
    }
}

fn response(observed: &str) -> Probe {
    Probe {
        from_asker: false,
        kind: ProbeKind::Response {
            observed: address(observed),
        },
        ..request()
    }
}

fn probe_key() -> ProbeKey {
    ProbeKey::new(&[0x42; 32])
}

fn golden(probe: Probe, padded_to: usize, digits: &str) {
    let encode = |probe: &Probe, out: &mut Vec<u8>| probe.encode(&probe_key(), padded_to, out);
    assert_golden(&probe, digits, encode, |bytes| Probe::decode(bytes, &probe_key()));
}

// The tags are those of Python's hmac module over the same bytes.
#[test]
fn golden_bytes() {
    golden(
        request(),
        0,
        "04 11 0000 00 00000000000000000000000000000000 | 0102030405060708 | 1112131415161718
        | ba0eab57f71bafaf5c07e281458ae113",
    );
    golden(
        response("192.0.2.1:5000"),
        0,
        "05 10 1388 04 c0000201000000000000000000000000 | 0102030405060708 | 1112131415161718
        | 0444fb8ab2b60bce19a2dd7934c2d4cd",
    );
    golden(
        response("[2001:db8::1]:5000"),
        56,
        "05 10 1388 06 20010db8000000000000000000000001 | 0102030405060708 | 1112131415161718
        | 4773c83e78168a945f4aae163b4a2d82 | 000000",
    );
}

#[test]
fn requests_and_responses_are_equally_long() {
    for padded_to in [0, PLAIN_PROBE, 100, PADDED_PROBE, MAX_PROBE, MAX_PROBE + 1] {
        let lengths = [request(), response("192.0.2.1:5000"), response("[2001:db8::1]:5000")]
            .map(|probe| encoded(|out| probe.encode(&probe_key(), padded_to, out)).len());
        assert_eq!(lengths, [padded_to.clamp(PLAIN_PROBE, MAX_PROBE); 3]);
    }
    assert_eq!((PLAIN_PROBE, PADDED_PROBE), (53, 1200));
}

#[test]
fn no_probe_is_taken_for_stun() {
    let probe = Probe {
        introduction: u64::from_be_bytes([0x21, 0x12, 0xa4, 0x42, 0x21, 0x12, 0xa4, 0x42]),
        ..request()
    };
    assert!(!is_stun(&encoded(|out| probe.encode(&probe_key(), 0, out))));
    let probe = response("[2112:a442:2112:a442:2112:a442:2112:a442]:8466");
    assert!(!is_stun(&encoded(|out| probe.encode(&probe_key(), 0, out))));
}

#[test]
fn every_changed_bit_and_every_other_length_is_noticed() {
    let bytes = encoded(|out| response("192.0.2.1:5000").encode(&probe_key(), 60, out));
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Probe::decode(&changed, &probe_key()).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(
            Probe::decode(&bytes[..length], &probe_key()).is_err(),
            "cut at {length}"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Probe::decode(&longer, &probe_key()), Err(DecodeError::Unauthenticated));
    assert_eq!(
        Probe::decode(&bytes, &ProbeKey::new(&[0x43; 32])),
        Err(DecodeError::Unauthenticated)
    );
    assert_eq!(
        Probe::decode(&vec![4; MAX_PROBE + 1], &probe_key()),
        Err(DecodeError::TooLong("probe"))
    );
}

#[test]
fn authenticated_bytes_of_a_later_version_are_ignored() {
    // What stands where the padding begins, made by somebody who has the key.
    let mut bytes = encoded(|out| request().encode(&probe_key(), 60, out));
    bytes[PLAIN_PROBE..].copy_from_slice(b"growing");
    let covered = [&bytes[..37], b"growing"].concat();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[0x42; 32]);
    bytes[37..53].copy_from_slice(&ring::hmac::sign(&key, &covered).as_ref()[..16]);
    assert_eq!(Probe::decode(&bytes, &probe_key()), Ok(request()));
}

#[test]
fn the_introduction_can_be_looked_up_first() {
    let bytes = encoded(|out| request().encode(&probe_key(), 0, out));
    assert_eq!(Probe::peek_introduction(&bytes), Some(request().introduction));
    assert_eq!(Probe::peek_introduction(&bytes[..PLAIN_PROBE - 1]), None);
    assert_eq!(Probe::peek_introduction(&vec![4; MAX_PROBE + 1]), None);
    assert_eq!(Probe::peek_introduction(&[6; 53]), None);
    assert_eq!(Probe::peek_introduction(&[]), None);
}

proptest! {
    #[test]
    fn every_probe_comes_back(
        (introduction, transaction, from_asker) in any::<(u64, u64, bool)>(),
        observed in proptest::option::of(any_address()),
        secret in any::<[u8; 32]>(),
        padded_to in 0..=MAX_PROBE,
    ) {
        let kind = observed.map_or(ProbeKind::Request, |observed| ProbeKind::Response { observed });
        let probe = Probe { introduction, from_asker, transaction, kind };
        let key = ProbeKey::new(&secret);
        let bytes = encoded(|out| probe.encode(&key, padded_to, out));
        prop_assert_eq!(Probe::decode(&bytes, &key), Ok(probe));
        prop_assert_eq!(Probe::peek_introduction(&bytes), Some(introduction));
    }

    #[test]
    fn any_bytes_are_harmless(mut bytes in any_bytes(80).prop_map(Vec::from), kind in 3_u8..7) {
        bytes.insert(0, kind);
        let _ = Probe::peek_introduction(&bytes);
        prop_assert!(Probe::decode(&bytes, &probe_key()).is_err());
    }
}
