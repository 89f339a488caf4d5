//! PCP's MAP request for IPv6 (RFC 6887, section 11): lets UDP through a router's firewall.
//!
//! Written here because a router answers only requests that come from the very address that is to be opened (section 8.4), and the
//! library's socket takes the system's choice, which towards a router's link-local address is a link-local one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crab_nat::pcp::{Nonce, ResultCode};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::gateway::{self, Gateway};
use super::pcp::fresh_nonce;
use super::{Grant, Progress, Refusal, Wish};

const VERSION: u8 = 2;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
/// Header and MAP (sections 7.1 and 11.1); requests and answers have the same size.
const LENGTH: usize = 60;
/// Largest message (section 7).
const MAX_LENGTH: usize = 1100;
/// Until the first repetition, doubled for each further one. Section 8.1.1 has 3 s, for servers far away; a home's router is near.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A router and what it gave.
#[derive(Default)]
pub struct Client {
    nonce: Option<Nonce>,
    granted: Option<(SocketAddr, SocketAddr)>,
}

impl Client {
    pub async fn map(&mut self, wish: Wish, progress: Progress) -> Result<Grant, Refusal> {
        let router = server(gateway::find(wish.internal).await.map_err(Refusal::silent)?);
        let nonce = match self.nonce {
            Some(nonce) => nonce,
            None => *self.nonce.insert(fresh_nonce()?),
        };
        progress(format!(
            "PCP: the router {} is asked to open its IPv6 firewall",
            router.ip()
        ));
        self.granted = Some((router, wish.internal));
        exchange(router, nonce, wish.internal, wish.external, wish.lifetime).await
    }

    pub async fn unmap(&mut self) {
        if let (Some((router, internal)), Some(nonce)) = (self.granted.take(), self.nonce) {
            // It may be gone by itself, and so may the router.
            let _ = exchange(router, nonce, internal, 0, 0).await;
        }
    }
}

fn server(gateway: Gateway) -> SocketAddr {
    match gateway.address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, crab_nat::GATEWAY_PORT, 0, gateway.interface).into()
        }
        ip => SocketAddr::new(ip, crab_nat::GATEWAY_PORT),
    }
}

/// Asks until the router answers; whoever calls ends it. Answers to something else are passed over.
async fn exchange(
    router: SocketAddr,
    nonce: Nonce,
    internal: SocketAddr,
    external: u16,
    lifetime: u32,
) -> Result<Grant, Refusal> {
    let failed = |error: std::io::Error| Refusal::silent(format!("the router cannot be asked: {error}"));
    let socket = UdpSocket::bind(SocketAddr::new(internal.ip(), 0))
        .await
        .map_err(failed)?;
    socket.connect(router).await.map_err(failed)?;
    let request = encode(nonce, internal, external, lifetime);
    let mut wait = FIRST_WAIT;
    loop {
        socket.send(&request).await.map_err(failed)?;
        let answer = timeout(wait, async {
            loop {
                let mut buffer = [0; MAX_LENGTH];
                let length = socket.recv(&mut buffer).await.map_err(failed)?;
                if let Some(answer) = decode(&buffer[..length], nonce, internal.port()) {
                    return answer;
                }
            }
        });
        if let Ok(answer) = answer.await {
            return answer;
        }
        wait *= 2;
    }
}

fn encode(nonce: Nonce, internal: SocketAddr, external: u16, lifetime: u32) -> [u8; LENGTH] {
    let address = match internal.ip() {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    };
    let mut request = [0; LENGTH];
    request[0] = VERSION;
    request[1] = MAP;
    request[4..8].copy_from_slice(&lifetime.to_be_bytes());
    request[8..24].copy_from_slice(&address.octets());
    for (word, value) in nonce.iter().enumerate() {
        request[24 + 4 * word..28 + 4 * word].copy_from_slice(&value.to_be_bytes());
    }
    request[36] = UDP;
    request[40..42].copy_from_slice(&internal.port().to_be_bytes());
    request[42..44].copy_from_slice(&external.to_be_bytes());
    // The rest, no wish for an external address, is ::.
    request
}

/// `None`: not the answer to that request.
fn decode(answer: &[u8], nonce: Nonce, internal: u16) -> Option<Result<Grant, Refusal>> {
    let [version, opcode, _, code, ..] = *answer else {
        return None;
    };
    if version != VERSION && code == ResultCode::UnsupportedVersion as u8 {
        return Some(Err(Refusal::silent("the router does not speak it")));
    }
    let word = |at: usize| {
        let bytes = answer.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let port = |at: usize| {
        let bytes = answer.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let is_ours = answer.len() >= LENGTH
        && version == VERSION
        && opcode == RESPONSE | MAP
        && [word(24)?, word(28)?, word(32)?] == nonce
        && answer[36] == UDP
        && port(40)? == internal;
    if !is_ours {
        return None;
    }
    if code != ResultCode::Success as u8 {
        let text = match ResultCode::try_from(code) {
            Ok(code) => format!("the router refused: {code}"),
            Err(_) => format!("the router refused with the unknown code {code}"),
        };
        let conflict = code == ResultCode::CannotProvideExternal as u8;
        return Some(Err(if conflict {
            Refusal::conflict(text)
        } else {
            Refusal::refused(text)
        }));
    }
    let address: [u8; 16] = answer.get(44..60)?.try_into().ok()?;
    Some(Ok(Grant {
        external: SocketAddr::new(Ipv6Addr::from(address).into(), port(42)?),
        lifetime: word(4)?,
        epoch: word(8),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::api::nat::MappingFailure;

    const NONCE: Nonce = [1, 2, 3];

    fn answer(code: u8) -> [u8; LENGTH] {
        let mut answer = encode(NONCE, "[2001:db8::5]:4000".parse().unwrap(), 5000, 120);
        answer[1] |= RESPONSE;
        answer[3] = code;
        answer[8..12].copy_from_slice(&77_u32.to_be_bytes());
        answer[44..60].copy_from_slice(&"2001:db8::5".parse::<Ipv6Addr>().unwrap().octets());
        answer
    }

    #[test]
    fn an_answer_is_read() {
        let grant = decode(&answer(0), NONCE, 4000).unwrap().unwrap();
        assert_eq!(grant.external, "[2001:db8::5]:5000".parse().unwrap());
        assert_eq!((grant.lifetime, grant.epoch), (120, Some(77)));
    }

    #[test]
    fn what_answers_something_else_is_passed_over() {
        assert!(decode(&answer(0), [1, 2, 4], 4000).is_none());
        assert!(decode(&answer(0), NONCE, 4001).is_none());
        let whole = answer(0);
        for length in 0..LENGTH {
            assert!(decode(&whole[..length], NONCE, 4000).is_none(), "{length} bytes");
        }
        for (at, value) in [(0, 1), (1, MAP), (1, RESPONSE | 2), (36, 6)] {
            let mut other = whole;
            other[at] = value;
            assert!(decode(&other, NONCE, 4000).is_none(), "byte {at} is {value}");
        }
    }

    #[test]
    fn refusals_say_why() {
        let refusal = |code| decode(&answer(code), NONCE, 4000).unwrap().unwrap_err();
        let why = |code: ResultCode| refusal(code as u8).why;
        assert_eq!(why(ResultCode::CannotProvideExternal), MappingFailure::Conflict);
        assert_eq!(why(ResultCode::NotAuthorized), MappingFailure::Refused);
        assert!(refusal(200).text.contains("200"));
        let natpmp_only = [0, RESPONSE | MAP, 0, 1, 0, 0, 0, 9];
        let refusal = decode(&natpmp_only, NONCE, 4000).unwrap().unwrap_err();
        assert_eq!(refusal.why, MappingFailure::Silent);
    }
}
