//! TLS primitives of the library: those that it uses, and nothing else.
//!
//! Both sides of every connection are Lanline, with Ed25519 keys: X25519, AES-GCM and ChaCha20 are all that a handshake needs. rustls' own list for
//! ring names NIST's curves, RSA and TLS 1.2 as well, and with them their tables and code (a quarter of a megabyte) get into what games ship.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature;
use rustls::SignatureScheme;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, alg_id};
use rustls::sign::SigningKey;

/// The primitives.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: &[&Ed25519],
            mapping: &[(SignatureScheme::ED25519, &[&Ed25519])],
        },
        secure_random: &System,
        key_provider: &NoFiles,
    }
}

/// The system's random numbers.
#[derive(Debug)]
struct System;

impl SecureRandom for System {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
    }
}

/// Keys are identities, made elsewhere; none is ever read from a file of TLS'.
struct NoFiles;

impl fmt::Debug for NoFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NoFiles")
    }
}

impl KeyProvider for NoFiles {
    fn load_private_key(&self, _key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("keys are not read from files".into()))
    }
}

#[derive(Debug)]
struct Ed25519;

impl SignatureVerificationAlgorithm for Ed25519 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        signature::UnparsedPublicKey::new(&signature::ED25519, public_key)
            .verify(message, signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::Identity;

    #[test]
    fn signatures_of_identities_are_checked() {
        let identity = Identity::from_seed([3; 32]);
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let signature = pair.sign(b"words");
        let key = identity.public();
        assert!(Ed25519.verify_signature(&key.0, b"words", signature.as_ref()).is_ok());
        assert!(
            Ed25519
                .verify_signature(&key.0, b"other words", signature.as_ref())
                .is_err()
        );
        assert!(
            Ed25519
                .verify_signature(&[1; 31], b"words", signature.as_ref())
                .is_err()
        );
    }

    #[test]
    fn the_system_gives_random_bytes() {
        let mut twice = [[0_u8; 32]; 2];
        for bytes in &mut twice {
            assert!(System.fill(bytes).is_ok());
        }
        assert_ne!(twice[0], twice[1]);
    }
}
