//! What asker and target prove to each other through a router, and the secret that they agree on: the key agreement of
//! [`crate::wire::routing`].
//!
//! In: a pair's names, keys and shares. Out: signed shares, whether one is genuine, the secret. No state but a share that waits for the
//! other one.

use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::NamedGroup;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider};

use crate::transport::identity::{Guid, Identity, PublicKey};
use crate::wire::routing::{ANSWER_LABEL, REQUEST_LABEL, SECRET_LABEL, SignedShare};

/// Who asks whom to be forwarded, and under which name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub asker: PublicKey,
    pub router: PublicKey,
    pub introduction: u64,
}

impl Names {
    fn request(&self, target: Guid, share: &[u8; 32]) -> Vec<u8> {
        let (target, introduction) = (target.0.to_be_bytes(), self.introduction.to_be_bytes());
        let parts: [&[u8]; 6] = [
            REQUEST_LABEL,
            &self.asker.0,
            &self.router.0,
            &target,
            &introduction,
            share,
        ];
        parts.concat()
    }

    fn answer(&self, target: &PublicKey, asked: &[u8; 32], answered: &[u8; 32]) -> Vec<u8> {
        let introduction = self.introduction.to_be_bytes();
        let parts: [&[u8]; 7] = [
            ANSWER_LABEL,
            &self.asker.0,
            &self.router.0,
            &target.0,
            &introduction,
            asked,
            answered,
        ];
        parts.concat()
    }

    /// True if the asker signed that share for that target.
    pub fn is_request(&self, target: Guid, signed: &SignedShare) -> bool {
        verify(&self.asker, &self.request(target, &signed.share), &signed.signature)
    }
}

/// One side's part of the agreement, before the other's is known.
pub struct OwnShare {
    exchange: Box<dyn ActiveKeyExchange>,
    public: [u8; 32],
}

impl OwnShare {
    /// A fresh one; `None`: these primitives know no X25519, or have no randomness.
    pub fn new(crypto: &CryptoProvider) -> Option<Self> {
        let group = crypto
            .kx_groups
            .iter()
            .find(|group| group.name() == NamedGroup::X25519)?;
        let exchange = group.start().ok()?;
        let public = exchange.pub_key().try_into().ok()?;
        Some(Self { exchange, public })
    }

    /// For the asker: what goes to the target.
    pub fn request(&self, identity: &Identity, names: &Names, target: Guid) -> SignedShare {
        sign(identity, &names.request(target, &self.public), self.public)
    }

    /// For the target: what goes back to the asker, and the secret. `None`: the asker's share is none.
    pub fn answer(self, identity: &Identity, names: &Names, asked: &[u8; 32]) -> Option<(SignedShare, [u8; 32])> {
        let text = names.answer(&identity.public(), asked, &self.public);
        let signed = sign(identity, &text, self.public);
        Some((signed, self.agree(asked, &text)?))
    }

    /// For the asker: the secret, if the target's answer is genuine.
    pub fn secret(self, names: &Names, target: &PublicKey, answered: &SignedShare) -> Option<[u8; 32]> {
        let text = names.answer(target, &self.public, &answered.share);
        if !verify(target, &text, &answered.signature) {
            return None;
        }
        self.agree(&answered.share, &text)
    }

    fn agree(self, other: &[u8; 32], text: &[u8]) -> Option<[u8; 32]> {
        let shared = self.exchange.complete(other).ok()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, shared.secret_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(SECRET_LABEL);
        context.update(text);
        context.sign().as_ref().try_into().ok()
    }
}

fn sign(identity: &Identity, text: &[u8], share: [u8; 32]) -> SignedShare {
    let pair = Ed25519KeyPair::from_seed_unchecked(identity.seed()).expect("32 bytes are an Ed25519 seed");
    let mut signature = [0; 64];
    signature.copy_from_slice(pair.sign(text).as_ref());
    SignedShare { share, signature }
}

fn verify(key: &PublicKey, text: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(text, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    fn players() -> (Identity, Identity, Names) {
        let (asker, target) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let names = Names {
            asker: asker.public(),
            router: Identity::from_seed([3; 32]).public(),
            introduction: 7,
        };
        (asker, target, names)
    }

    #[test]
    fn both_sides_agree_and_nobody_else_can_answer() {
        let (asker, target, names) = players();
        let own = OwnShare::new(&provider()).unwrap();
        let request = own.request(&asker, &names, target.guid());
        assert!(names.is_request(target.guid(), &request));
        let other = OwnShare::new(&provider()).unwrap();
        let (answer, secret) = other.answer(&target, &names, &request.share).unwrap();
        assert_eq!(own.secret(&names, &target.public(), &answer), Some(secret));
    }

    #[test]
    fn whatever_is_changed_on_the_way_is_noticed() {
        let (asker, target, names) = players();
        let own = OwnShare::new(&provider()).unwrap();
        let request = own.request(&asker, &names, target.guid());
        // Another router, another target, another share, another player's key.
        let other_router = Names {
            router: target.public(),
            ..names
        };
        assert!(!other_router.is_request(target.guid(), &request));
        assert!(!names.is_request(asker.guid(), &request));
        let mut bent = request;
        bent.share[0] ^= 1;
        assert!(!names.is_request(target.guid(), &bent));
        let router = Identity::from_seed([3; 32]);
        let posing = Names {
            asker: router.public(),
            ..names
        };
        assert!(!posing.is_request(target.guid(), &request));
        // The router answers in the target's place.
        let forged = OwnShare::new(&provider()).unwrap();
        let (answer, _) = forged.answer(&router, &names, &request.share).unwrap();
        assert_eq!(own.secret(&names, &target.public(), &answer), None);
        // The target's answer to another request.
        let own = OwnShare::new(&provider()).unwrap();
        let (answer, _) = OwnShare::new(&provider())
            .unwrap()
            .answer(&target, &names, &request.share)
            .unwrap();
        assert_eq!(own.secret(&names, &target.public(), &answer), None);
    }
}
