//! Why a session with a server did not come about, or ended, in codes and words; and the proof that the access key is known.

use ring::hmac;

use crate::codes::Code;
use crate::peer::api::Reason;
use crate::transport::CloseReason;

/// HMAC-SHA-256 with the access key over bytes that only this TLS session has.
pub fn access_proof(access_key: &str, exported: &[u8; 32]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, access_key.as_bytes());
    let mut proof = [0; 32];
    proof.copy_from_slice(hmac::sign(&key, exported).as_ref());
    proof
}

/// What the end of a link means. `was_up`: the session stood.
pub fn server_reason(reason: CloseReason, was_up: bool) -> Reason {
    let (code, text) = match reason {
        CloseReason::TimedOut if was_up => (Code::Lost, "the server went silent".to_owned()),
        CloseReason::TimedOut | CloseReason::NoAnswer => (Code::NoAnswer, "the server did not answer".to_owned()),
        CloseReason::Local => (Code::Closed, "closed by this node".to_owned()),
        CloseReason::Remote(info) => {
            let code = Code::from_number(info.code).filter(|code| code.number() <= Code::NoAnswer.number());
            (
                code.unwrap_or(if was_up { Code::Closed } else { Code::Refused }),
                info.text,
            )
        }
        CloseReason::WrongKey(key) => (
            Code::WrongKey,
            format!("the server proved another key: {}", key.to_hex()),
        ),
        CloseReason::Incompatible => (
            Code::Incompatible,
            "the server speaks another protocol version".to_owned(),
        ),
        CloseReason::ProtocolViolation(text) if was_up => (Code::ProtocolViolation, text),
        CloseReason::ProtocolViolation(text) => (Code::Incompatible, format!("that is no Lanline server: {text}")),
    };
    Reason { code, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::CloseInfo;
    use crate::transport::identity::PublicKey;

    #[test]
    fn each_way_to_be_turned_away_has_its_code() {
        let remote = |code: i32| {
            CloseReason::Remote(CloseInfo {
                code,
                user_code: 0,
                text: String::new(),
            })
        };
        for code in [
            Code::Refused,
            Code::Full,
            Code::Incompatible,
            Code::WrongAccessKey,
            Code::RateLimited,
        ] {
            assert_eq!(server_reason(remote(code.number()), false).code, code);
        }
        // A number that this version does not know, or that no server may give, is a refusal all the same.
        for number in [-9_999, 0, 7, Code::Busy.number()] {
            assert_eq!(server_reason(remote(number), false).code, Code::Refused);
            assert_eq!(server_reason(remote(number), true).code, Code::Closed);
        }
        assert_eq!(server_reason(CloseReason::NoAnswer, false).code, Code::NoAnswer);
        assert_eq!(server_reason(CloseReason::Incompatible, false).code, Code::Incompatible);
        assert_eq!(
            server_reason(CloseReason::WrongKey(PublicKey([1; 32])), false).code,
            Code::WrongKey
        );
    }

    #[test]
    fn an_access_proof_depends_on_key_and_session() {
        assert_ne!(access_proof("a", &[0; 32]), access_proof("b", &[0; 32]));
        assert_ne!(access_proof("a", &[0; 32]), access_proof("a", &[1; 32]));
    }
}
