//! Datagrams inside a TLS stream over TCP, for networks that let no UDP through.
//!
//! The stream is TLS 1.3 with the server's Ed25519 key as a raw public key (RFC 7250), ALPN [`ALPN_TUNNEL`]; the client shows no key:
//! the QUIC connection inside proves both. Then, in both directions, one frame after the other:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 2 | length of the datagram, 1 to 1,500 |
//! | 2 | length | a datagram as it would stand in UDP: QUIC, STUN, an own frame |
//!
//! A length of 0 or above 1,500 cannot be skipped with any trust in what follows: it ends the stream. A datagram that is no frame of
//! ours is dropped like one that came by UDP, and ends nothing. The end of the stream inside a frame ends that frame, too.

use super::DecodeError;

/// ALPN of the stream.
pub const ALPN_TUNNEL: &[u8] = b"lanline-tunnel/1";
/// Largest datagram: an Ethernet frame's worth, as the other sockets carry.
pub const MAX_TUNNEL_DATAGRAM: usize = 1_500;
/// Bytes before each datagram.
pub const TUNNEL_HEADER: usize = 2;

/// What stands before a datagram; `None`: no frame can hold it (it is empty, or above [`MAX_TUNNEL_DATAGRAM`]).
pub fn header(datagram: &[u8]) -> Option<[u8; TUNNEL_HEADER]> {
    let fits = (1..=MAX_TUNNEL_DATAGRAM).contains(&datagram.len());
    fits.then(|| (datagram.len() as u16).to_be_bytes())
}

/// Appends a datagram to what is to be written to the stream. False, and nothing is appended: no frame can hold it.
pub fn write_datagram(datagram: &[u8], out: &mut Vec<u8>) -> bool {
    let header = header(datagram);
    if let Some(header) = header {
        out.extend_from_slice(&header);
        out.extend_from_slice(datagram);
    }
    header.is_some()
}

/// The first datagram of what came from the stream and was not taken yet; it and its [`TUNNEL_HEADER`] are to be taken away before the
/// next one is asked for. `None`: more bytes are needed.
///
/// # Errors
/// A length that no frame has: the stream must be ended.
pub fn first_datagram(stream: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let Some((header, rest)) = stream.split_first_chunk::<TUNNEL_HEADER>() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes(*header)) {
        0 => Err(DecodeError::Invalid("tunnel frame")),
        length if length > MAX_TUNNEL_DATAGRAM => Err(DecodeError::TooLong("tunnel frame")),
        length => Ok(rest.get(..length)),
    }
}
