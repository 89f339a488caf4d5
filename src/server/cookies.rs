//! Cookies by which a node proves at which addresses it receives.
//!
//! In: the address that a STUN request came from; later the cookie, shown in the session. Out: the cookie; whether it is right.
//! Nothing is stored: a cookie is a MAC over the address and a time slot ([`crate::wire::stun`] has the bytes), under a secret that
//! lives as long as the process.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use crate::wire::control::AddressProof;
use crate::wire::stun::Cookie;

/// A cookie is good until the end of the slot after its own: for 5 to 10 minutes. Nodes show it within seconds; who gets an address
/// afterwards (another customer of the carrier) shall not inherit its proof for long.
pub const SLOT: Duration = Duration::from_secs(300);

/// Makes and checks cookies.
#[derive(Debug, Clone)]
pub struct Cookies {
    key: hmac::Key,
    started: Instant,
}

impl Cookies {
    /// Under that secret.
    pub fn new(now: Instant, secret: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            started: now,
        }
    }

    /// The cookie of an address.
    pub fn cookie(&self, now: Instant, address: SocketAddr) -> Cookie {
        let tag = hmac::sign(&self.key, &signed(self.slot(now), address));
        let mut cookie = Cookie::default();
        cookie.copy_from_slice(&tag.as_ref()[..size_of::<Cookie>()]);
        cookie
    }

    /// Whether the cookie is that of its address, in this time slot or the one before.
    pub fn proves(&self, now: Instant, proof: &AddressProof) -> bool {
        let slot = self.slot(now);
        [Some(slot), slot.checked_sub(1)].into_iter().flatten().any(|slot| {
            let tag = hmac::sign(&self.key, &signed(slot, proof.address));
            let difference = tag
                .as_ref()
                .iter()
                .zip(&proof.cookie)
                .fold(0, |sum, (left, right)| sum | (left ^ right));
            difference == 0
        })
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() / SLOT.as_secs()
    }
}

/// What is signed: u64 slot, u8 family, IP address (filled up with zeros), u16 port.
fn signed(slot: u64, address: SocketAddr) -> [u8; 27] {
    let mut bytes = [0; 27];
    bytes[..8].copy_from_slice(&slot.to_be_bytes());
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            bytes[8] = 4;
            bytes[9..13].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes[8] = 6;
            bytes[9..25].copy_from_slice(&ip.octets());
        }
    }
    bytes[25..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(address: &str, cookie: Cookie) -> AddressProof {
        AddressProof {
            address: address.parse().unwrap(),
            cookie,
        }
    }

    #[test]
    fn a_cookie_proves_its_own_address_alone() {
        let now = Instant::now();
        let cookies = Cookies::new(now, &[7; 32]);
        for own in ["203.0.113.1:4000", "[2001:db8::1]:4000"] {
            let cookie = cookies.cookie(now, own.parse().unwrap());
            assert!(cookies.proves(now, &proof(own, cookie)));
            for other in [
                "203.0.113.1:4001",
                "203.0.113.2:4000",
                "[2001:db8::2]:4000",
                "[2001:db8::1]:4001",
                "[2001:db8:0:1::1]:4000",
            ] {
                assert!(!cookies.proves(now, &proof(other, cookie)), "{own} as {other}");
            }
            let mut forged = cookie;
            forged[15] ^= 1;
            assert!(!cookies.proves(now, &proof(own, forged)));
            assert!(
                !Cookies::new(now, &[8; 32]).proves(now, &proof(own, cookie)),
                "another server's"
            );
        }
        let cookie = cookies.cookie(now, "203.0.113.1:4000".parse().unwrap());
        assert!(cookies.proves(now, &proof("[::ffff:203.0.113.1]:4000", cookie)));
        assert!(!cookies.proves(now, &proof("203.0.113.1:4000", [0; 16])));
    }

    #[test]
    fn it_expires_with_the_slot_after_its_own() {
        let start = Instant::now();
        let cookies = Cookies::new(start, &[7; 32]);
        let own = "203.0.113.1:4000";
        let made = start + SLOT * 3 + Duration::from_secs(10);
        let proof = proof(own, cookies.cookie(made, own.parse().unwrap()));
        assert!(cookies.proves(start + SLOT * 5 - Duration::from_secs(1), &proof));
        assert!(!cookies.proves(start + SLOT * 5, &proof));
        // Nor does it come from the future.
        assert!(!cookies.proves(start, &proof));
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let now = Instant::now();
        let cookies = Cookies::new(now, &[7; 32]);
        let signed = [&[0; 7][..], &[1, 4, 203, 0, 113, 1], &[0; 12], &4_000_u16.to_be_bytes()].concat();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), &signed);
        let cookie = cookies.cookie(now + SLOT, "203.0.113.1:4000".parse().unwrap());
        assert_eq!(cookie, tag.as_ref()[..16]);
    }
}
