use proptest::prelude::*;

use super::*;
use crate::wire::tunnel::{MAX_TUNNEL_DATAGRAM, TUNNEL_HEADER, first_datagram, write_datagram};

/// All datagrams of a stream, and how many bytes are left.
fn all(mut stream: &[u8]) -> Result<(Vec<Vec<u8>>, usize), DecodeError> {
    let mut found = Vec::new();
    while let Some(datagram) = first_datagram(stream)? {
        found.push(datagram.to_vec());
        stream = &stream[TUNNEL_HEADER + datagram.len()..];
    }
    Ok((found, stream.len()))
}

#[test]
fn golden_bytes() {
    let bytes = encoded(|out| assert!(write_datagram(b"abc", out)));
    assert_eq!(to_hex(&bytes), "0003616263");
    assert_eq!(first_datagram(&bytes), Ok(Some(&b"abc"[..])));
    for short in 0..bytes.len() {
        assert_eq!(first_datagram(&bytes[..short]), Ok(None));
    }
}

#[test]
fn lengths_without_a_frame_end_the_stream() {
    assert_eq!(first_datagram(&[0, 0, 9]), Err(DecodeError::Invalid("tunnel frame")));
    for length in [MAX_TUNNEL_DATAGRAM + 1, 16_384, usize::from(u16::MAX)] {
        let header = (length as u16).to_be_bytes();
        assert_eq!(first_datagram(&header), Err(DecodeError::TooLong("tunnel frame")));
    }
    let largest = (MAX_TUNNEL_DATAGRAM as u16).to_be_bytes();
    assert_eq!(first_datagram(&largest), Ok(None));
}

#[test]
fn what_no_frame_can_hold_is_not_written() {
    let mut out = vec![7];
    for length in [0, MAX_TUNNEL_DATAGRAM + 1, 70_000] {
        assert!(!write_datagram(&vec![1; length], &mut out));
    }
    assert_eq!(out, [7]);
    assert!(write_datagram(&[1; MAX_TUNNEL_DATAGRAM], &mut out));
    assert_eq!(out.len(), 1 + TUNNEL_HEADER + MAX_TUNNEL_DATAGRAM);
}

proptest! {
    #[test]
    fn datagrams_survive_any_cut_of_the_stream(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..400), 0..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let stream = encoded(|out| datagrams.iter().for_each(|datagram| assert!(write_datagram(datagram, out))));
        let cut = cut.index(stream.len() + 1);
        let (mut found, left) = all(&stream[..cut]).unwrap();
        let (rest, nothing) = all(&stream[cut - left..]).unwrap();
        found.extend(rest);
        prop_assert_eq!(nothing, 0);
        prop_assert_eq!(found, datagrams);
    }

    #[test]
    fn no_bytes_panic(stream in proptest::collection::vec(any::<u8>(), 0..5_000)) {
        if let Ok((found, left)) = all(&stream) {
            prop_assert!(left < TUNNEL_HEADER + MAX_TUNNEL_DATAGRAM);
            prop_assert!(found.iter().all(|datagram| (1..=MAX_TUNNEL_DATAGRAM).contains(&datagram.len())));
        }
    }
}
