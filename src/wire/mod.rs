//! Codecs without state: one file a format, whose doc comment is its specification.
//!
//! Common rules. Integers are big endian. Lists and texts carry a count or length in front and are bounded by a named
//! constant. A decoder reads what it knows and ignores bytes behind it, so that later versions can add fields at the
//! end. A decoder never panics and never allocates more than the bound of what it decodes. Every format has
//! `encode(&self, out: &mut Vec<u8>)`, which appends, and `decode(bytes) -> Result<Self, DecodeError>`.

pub mod classify;
pub mod control;
pub mod introduction;
pub mod mesh;
pub mod peer;
pub mod probe;
pub mod proxy;
pub mod relay;
pub mod routing;
pub mod stun;
pub mod tunnel;

mod codec;
#[cfg(test)]
mod tests;
pub use codec::{DecodeError, Reader, Writer, unmapped};

/// The version of everything Lanline speaks. Two sides talk if theirs are equal; additions at the end of messages and
/// new message types (ignored by who does not know them) do not change it.
pub const PROTOCOL_VERSION: u16 = 1;
/// ALPN of QUIC connections between players.
pub const ALPN_PEER: &[u8] = b"lanline-peer/1";
/// ALPN of QUIC connections to a server.
pub const ALPN_SERVER: &[u8] = b"lanline-server/1";
/// ALPN of QUIC connections of proxy servers to their coordinator.
pub const ALPN_PROXY: &[u8] = b"lanline-proxy/1";

/// The protocol version of a greeting ([`control::ToServer::Hello`], [`peer::PeerControl::Hello`], [`peer::PeerControl::Welcome`])
/// of whatever version: its bytes 1 and 2, which never move. Lets a receiver tell a side of another version (refused as
/// incompatible) from a broken one. `None`: not a greeting.
pub fn peek_protocol(message: &[u8]) -> Option<u16> {
    match *message {
        [1 | 2, high, low, ..] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// Longest app id in bytes.
pub const MAX_APP_ID: usize = 64;
/// Longest text (reasons, versions) in bytes.
pub const MAX_TEXT: usize = 256;
/// Most candidates in one message: 10 local (as RakNet), 2 mapped, 2 observed, 2 by hand.
pub const MAX_CANDIDATES: usize = 16;
/// Most members of a session.
pub const MAX_MEMBERS: usize = 64;
/// Most bytes of user data with a join message.
pub const MAX_USER_DATA: usize = 64 << 10;
/// Largest control message as a whole: user data, 64 members and room for growth.
pub const MAX_CONTROL_MESSAGE: usize = 96 << 10;
