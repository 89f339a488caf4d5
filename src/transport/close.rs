//! What travels with a close, and what quinn's reasons mean to us.
//!
//! On the wire a close on purpose is a QUIC application close: the error code is the [`crate::codes::Code`] number without its sign,
//! the reason phrase one byte of version (1), the game's own number (u32), and up to 256 bytes of UTF-8. Later versions may put more
//! behind a zero byte; this one shows what stands before it.

use bytes::Bytes;
use quinn_proto::{ApplicationClose, ConnectionClose, ConnectionError, TransportErrorCode, VarInt};

use super::{CloseInfo, CloseReason};
use crate::codes::{Code, MAX_DISCONNECT_TEXT};

const REASON_VERSION: u8 = 1;
/// Bytes of a reason before its text.
const REASON_HEADER: usize = 5;
/// The TLS alerts (RFC 8446 §6.2) that mean another version, not another party.
const ALERT_PROTOCOL_VERSION: u8 = 70;
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// At most so many bytes of a text, cut between characters.
fn truncated(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The error code and reason phrase of a close on purpose.
pub(super) fn encode(info: &CloseInfo) -> (VarInt, Bytes) {
    let text = truncated(&info.text, MAX_DISCONNECT_TEXT);
    let mut reason = Vec::with_capacity(REASON_HEADER + text.len());
    reason.push(REASON_VERSION);
    reason.extend_from_slice(&info.user_code.to_be_bytes());
    reason.extend_from_slice(text.as_bytes());
    (VarInt::from_u32(info.code.unsigned_abs()), reason.into())
}

fn decode(close: &ApplicationClose) -> CloseInfo {
    let code = i32::try_from(close.error_code.into_inner()).map_or(Code::Closed.number(), |code| -code);
    let (user_code, text) = match close.reason.split_first() {
        Some((&version, rest)) if version >= REASON_VERSION && rest.len() >= 4 => {
            let user_code = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let text = rest[4..].split(|&byte| byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            (user_code, truncated(&text, MAX_DISCONNECT_TEXT).to_owned())
        }
        _ => (0, String::new()),
    };
    CloseInfo { code, user_code, text }
}

fn is_incompatible(code: TransportErrorCode) -> bool {
    code == TransportErrorCode::crypto(ALERT_NO_APPLICATION_PROTOCOL)
        || code == TransportErrorCode::crypto(ALERT_PROTOCOL_VERSION)
}

fn of_remote_transport_close(close: &ConnectionClose) -> CloseReason {
    let info = |code: Code| {
        CloseReason::Remote(CloseInfo {
            code: code.number(),
            user_code: 0,
            text: String::new(),
        })
    };
    match close.error_code {
        code if is_incompatible(code) => CloseReason::Incompatible,
        TransportErrorCode::CONNECTION_REFUSED => info(Code::Refused),
        // The application closed while the handshake ran; QUIC hides its reason then.
        TransportErrorCode::APPLICATION_ERROR | TransportErrorCode::NO_ERROR => info(Code::Closed),
        _ => CloseReason::ProtocolViolation(truncated(&close.to_string(), MAX_DISCONNECT_TEXT).to_owned()),
    }
}

/// What the end of a connection means. `connected`: the handshake had been done.
pub(super) fn reason_of(error: &ConnectionError, connected: bool) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason::Remote(decode(close)),
        ConnectionError::ConnectionClosed(close) => of_remote_transport_close(close),
        ConnectionError::VersionMismatch => CloseReason::Incompatible,
        ConnectionError::TransportError(error) if is_incompatible(error.code) => CloseReason::Incompatible,
        // Nobody of ours sends stateless resets; one can only mean that the other side is gone.
        ConnectionError::TimedOut | ConnectionError::Reset if connected => CloseReason::TimedOut,
        ConnectionError::TimedOut | ConnectionError::Reset => CloseReason::NoAnswer,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            CloseReason::ProtocolViolation(truncated(&error.to_string(), MAX_DISCONNECT_TEXT).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(info: &CloseInfo) -> CloseInfo {
        let (error_code, reason) = encode(info);
        decode(&ApplicationClose { error_code, reason })
    }

    #[test]
    fn close_info_survives_the_wire() {
        let info = CloseInfo {
            code: Code::Kicked.number(),
            user_code: u32::MAX,
            text: "Grüße".into(),
        };
        assert_eq!(round_trip(&info), info);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let info = CloseInfo {
            code: 0,
            user_code: 0,
            text: "ü".repeat(200) + "x",
        };
        assert_eq!(round_trip(&info).text, "ü".repeat(128));
    }

    #[test]
    fn reasons_of_strangers_decode_to_something() {
        for reason in [
            &b""[..],
            b"\x01",
            b"\x01\0\0\0",
            b"\0abcdefgh",
            b"\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let info = decode(&ApplicationClose {
                error_code: VarInt::MAX,
                reason: Bytes::copy_from_slice(reason),
            });
            assert_eq!(info.code, Code::Closed.number());
            assert!(info.text.len() <= MAX_DISCONNECT_TEXT);
        }
    }
}
