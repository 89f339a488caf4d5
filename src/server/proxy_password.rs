//! The password of proxy servers, proven without being shown: SPAKE2, bound to the TLS connection. Both sides of it; messages in
//! [`crate::wire::proxy`].
//!
//! In: the password, both sides' keys, what TLS exports, random bytes. Out: shares to exchange, then a proof for each direction. Whoever listens, or
//! speaks with one side without knowing the password, learns whether one guess was right, and no more. A proof is of no use in another
//! connection, nor between other keys.

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use ring::hmac;
use spake2::{Ed25519Group, Identity as Name, Password, Spake2};

use crate::transport::identity::PublicKey;
use crate::wire::proxy::{COORDINATOR_PROOF_LABEL, PROXY_PROOF_LABEL};

/// The connection that a login happens in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    /// What TLS exports for it.
    pub exported: [u8; 32],
    /// The proxy server.
    pub proxy: PublicKey,
    /// The coordinator.
    pub coordinator: PublicKey,
}

/// Which side a proof is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that logs in.
    Proxy,
    /// The one that admits.
    Coordinator,
}

/// What the two shares led to.
pub struct Proofs {
    key: hmac::Key,
    between: Between,
}

impl Proofs {
    fn of(&self, side: Side) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(match side {
            Side::Proxy => PROXY_PROOF_LABEL,
            Side::Coordinator => COORDINATOR_PROOF_LABEL,
        });
        let Between {
            exported,
            proxy,
            coordinator,
        } = &self.between;
        [exported, &proxy.0, &coordinator.0]
            .iter()
            .for_each(|part| context.update(&part[..]));
        context
    }

    /// The coordinator's key.
    pub fn coordinator(&self) -> PublicKey {
        self.between.coordinator
    }

    /// That side's proof.
    pub fn prove(&self, side: Side) -> [u8; 32] {
        let mut proof = [0; 32];
        proof.copy_from_slice(self.of(side).sign().as_ref());
        proof
    }

    /// Whether that is it, in constant time.
    pub fn verify(&self, side: Side, proof: &[u8; 32]) -> bool {
        // Verifying a MAC over what is to be compared compares without telling by the time how much of it is right.
        let expected = self.prove(side);
        hmac::verify(&self.key, proof, hmac::sign(&self.key, &expected).as_ref()).is_ok()
    }
}

/// A login of which the other side's share has not come.
pub struct Begun {
    state: Spake2<Ed25519Group>,
    between: Between,
}

/// Begins as that side. The share is for the other one.
pub fn begin(side: Side, password: &str, between: Between, random: &mut StdRng) -> (Begun, Bytes) {
    let password = Password::new(password);
    let (proxy, coordinator) = (Name::new(&between.proxy.0), Name::new(&between.coordinator.0));
    let (state, share) = match side {
        Side::Proxy => Spake2::start_a_with_rng(&password, &proxy, &coordinator, Adapter(random)),
        Side::Coordinator => Spake2::start_b_with_rng(&password, &proxy, &coordinator, Adapter(random)),
    };
    (Begun { state, between }, Bytes::from(share))
}

impl Begun {
    /// The other side's share has come. `None`: it is none.
    pub fn finish(self, share: &[u8]) -> Option<Proofs> {
        let key = self.state.finish(share).ok()?;
        Some(Proofs {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            between: self.between,
        })
    }
}

/// The engine's randomness, for the version of `rand_core` that `spake2` knows.
struct Adapter<'a>(&'a mut StdRng);

impl rand_core::CryptoRng for Adapter<'_> {}

impl rand_core::RngCore for Adapter<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const BETWEEN: Between = Between {
        exported: [1; 32],
        proxy: PublicKey([2; 32]),
        coordinator: PublicKey([3; 32]),
    };

    fn run(passwords: [&str; 2], betweens: [Between; 2]) -> [Proofs; 2] {
        let mut random = StdRng::from_seed([4; 32]);
        let (proxy, from_proxy) = begin(Side::Proxy, passwords[0], betweens[0], &mut random);
        let (coordinator, from_coordinator) = begin(Side::Coordinator, passwords[1], betweens[1], &mut random);
        [
            proxy.finish(&from_coordinator).unwrap(),
            coordinator.finish(&from_proxy).unwrap(),
        ]
    }

    fn agree([proxy, coordinator]: &[Proofs; 2]) -> [bool; 2] {
        [
            coordinator.verify(Side::Proxy, &proxy.prove(Side::Proxy)),
            proxy.verify(Side::Coordinator, &coordinator.prove(Side::Coordinator)),
        ]
    }

    #[test]
    fn both_prove_the_same_password_in_the_same_connection_and_nothing_else() {
        let same = run(["secret", "secret"], [BETWEEN; 2]);
        assert_eq!(agree(&same), [true; 2]);
        // A proof is not the other side's.
        assert!(!same[1].verify(Side::Proxy, &same[0].prove(Side::Coordinator)));
        assert_eq!(agree(&run(["secret", "Secret"], [BETWEEN; 2])), [false; 2]);
        assert_eq!(agree(&run(["secret", ""], [BETWEEN; 2])), [false; 2]);
        let elsewhere = [
            Between {
                exported: [9; 32],
                ..BETWEEN
            },
            Between {
                proxy: PublicKey([9; 32]),
                ..BETWEEN
            },
            Between {
                coordinator: PublicKey([9; 32]),
                ..BETWEEN
            },
        ];
        for other in elsewhere {
            assert_eq!(agree(&run(["secret", "secret"], [BETWEEN, other])), [false; 2]);
        }
    }

    #[test]
    fn what_is_no_share_is_refused() {
        let mut random = StdRng::from_seed([4; 32]);
        let (_, own) = begin(Side::Proxy, "secret", BETWEEN, &mut random);
        // Reflected, of a wrong length.
        for share in [&own[..], &own[..32], &[], &[0x42; 40]] {
            let (begun, _) = begin(Side::Proxy, "secret", BETWEEN, &mut random);
            assert!(begun.finish(share).is_none(), "{share:?}");
        }
        // About half of all numbers are no point's.
        let refused = (0..64).filter(|first| {
            let mut share = [0; 33];
            (share[0], share[1]) = (0x42, *first);
            let (begun, _) = begin(Side::Proxy, "secret", BETWEEN, &mut random);
            begun.finish(&share).is_none()
        });
        assert!((16..=48).contains(&refused.count()));
    }
}
