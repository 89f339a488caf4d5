//! How messages stand on the wire, inside QUIC.
//!
//! **Lengths** are little-endian base-128 numbers of one to three bytes: seven bits a byte, the top bit says that another follows.
//!
//! **Streams** are unidirectional. The first byte names the kind:
//!
//! | kind | then | then, again and again |
//! |---|---|---|
//! | 0 control | length, that many bytes of preface: u32 lost-peer time in milliseconds (0: unknown); more may follow | length, message |
//! | 1 ordered | channel (0–63) | length, message |
//! | 2 batch | | channel, length, message |
//!
//! Stream 0 of each direction is the control stream. A channel has one ordered stream, from its first message to the end of the
//! link. A batch holds reliable messages that need not wait for each other's batches: it is written at once, finished at once,
//! and short, so that a lost packet holds up few.
//!
//! **DATAGRAM frames** hold one or more unreliable messages, packed:
//!
//! | bytes | |
//! |---|---|
//! | 1 | bits 0–5 channel, bit 6 sequenced, bit 7 fragment |
//! | 3 | if sequenced: sequence number within the channel, big endian, wraps |
//! | 8 | if fragment: u16 message number, u24 size of the whole message, u24 offset of this part |
//! | 1–3 | length |
//! | … | payload |

pub(super) mod datagram;
pub(super) mod fragments;
pub(super) mod stream;

/// First byte of the control stream.
pub(super) const STREAM_CONTROL: u8 = 0;
/// First byte of a stream of one channel's ordered messages.
pub(super) const STREAM_ORDERED: u8 = 1;
/// First byte of a stream of unordered messages.
pub(super) const STREAM_BATCH: u8 = 2;

/// Most bytes of a length.
pub(super) const MAX_LENGTH_BYTES: usize = 3;
/// Largest length that can be written (2 MiB - 1; messages are at most 1 MiB).
pub(super) const MAX_LENGTH: usize = (1 << 21) - 1;

/// Bytes that a length takes.
#[inline]
pub(super) fn length_size(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

/// A length as bytes; the first `length_size` of them count.
#[inline]
pub(super) fn length_bytes(length: usize) -> ([u8; MAX_LENGTH_BYTES], usize) {
    debug_assert!(length <= MAX_LENGTH);
    match length_size(length) {
        1 => ([length as u8, 0, 0], 1),
        2 => ([length as u8 | 0x80, (length >> 7) as u8, 0], 2),
        _ => (
            [
                length as u8 | 0x80,
                (length >> 7) as u8 | 0x80,
                (length >> 14) as u8 & 0x7f,
            ],
            3,
        ),
    }
}

/// What stands at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// A length and the bytes it took.
    Complete(usize, usize),
    /// More bytes are needed.
    Truncated,
    /// A fourth byte would follow: no length of ours.
    Invalid,
}

/// Reads a length.
#[inline]
pub(super) fn read_length(bytes: &[u8]) -> Length {
    let mut length = 0;
    for (index, &byte) in bytes.iter().take(MAX_LENGTH_BYTES).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Length::Complete(length, index + 1);
        }
    }
    if bytes.len() < MAX_LENGTH_BYTES {
        Length::Truncated
    } else {
        Length::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_survive_at_every_size() {
        for length in [0, 1, 127, 128, 16383, 16384, 65536, 1 << 20, MAX_LENGTH] {
            let (bytes, size) = length_bytes(length);
            assert_eq!(size, length_size(length));
            assert_eq!(read_length(&bytes[..size]), Length::Complete(length, size));
            for cut in 0..size {
                assert_eq!(read_length(&bytes[..cut]), Length::Truncated);
            }
        }
        assert_eq!(read_length(&[0x80, 0x80, 0x80, 1]), Length::Invalid);
    }
}
