//! TLS primitives whose randomness comes from the lab.
//!
//! The suites are ring's. What draws randomness in a TLS 1.3 handshake is replaced: the hello randoms and session ids
//! ([`SecureRandom`]) and the ephemeral X25519 keys ([`SupportedKxGroup`]). Ed25519 signatures draw none. So the bytes
//! on the wire follow from the seed.
//!
//! rustls asks for randomness through statics, so the source in force is kept per thread: the lab puts an engine's
//! own source there around each call into that engine, and takes it away afterwards. Therefore labs may follow each
//! other, live side by side on one thread, and run on parallel test threads without disturbing each other, and an
//! engine's keys do not depend on what other engines drew. Outside such a call drawing fails
//! ([`GetRandomFailed`]), rather than silently giving bytes that cannot be replayed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::crypto::ring as ring_provider;
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};

/// A source of randomness that rustls can be made to draw from.
#[derive(Clone)]
pub struct Randomness(Rc<RefCell<StdRng>>);

impl Randomness {
    /// The source that follows from `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(Rc::new(RefCell::new(StdRng::from_seed(seed))))
    }

    /// Runs `body` with this source in force on this thread; the one before comes back afterwards, also when `body`
    /// panics.
    pub fn scope<R>(&self, body: impl FnOnce() -> R) -> R {
        struct Restore(Option<Randomness>);
        impl Drop for Restore {
            fn drop(&mut self) {
                IN_FORCE.with_borrow_mut(|in_force| *in_force = self.0.take());
            }
        }
        let _restore = Restore(IN_FORCE.with_borrow_mut(|in_force| in_force.replace(self.clone())));
        body()
    }
}

thread_local! {
    static IN_FORCE: RefCell<Option<Randomness>> = const { RefCell::new(None) };
}

fn fill(buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
    IN_FORCE.with_borrow(|in_force| match in_force {
        Some(source) => {
            source.0.borrow_mut().fill_bytes(buffer);
            Ok(())
        }
        None => Err(GetRandomFailed),
    })
}

#[derive(Debug)]
struct SeededRandom;

impl SecureRandom for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(buffer)
    }
}

#[derive(Debug)]
struct SeededX25519;

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        fill(&mut secret)?;
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Ok(Box::new(KeyExchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct KeyExchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for KeyExchange {
    fn complete(self: Box<Self>, peer_public_key: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let peer: [u8; 32] = peer_public_key.try_into().map_err(|_| invalid())?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446 §7.4.2: an all-zero result must end the handshake.
        if !shared.was_contributory() {
            return Err(invalid());
        }
        Ok(SharedSecret::from(shared.as_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// ring's provider with X25519 and all randomness drawn from the [`Randomness`] in force; AES-128-GCM comes first, the
/// cheapest suite where the processor has AES instructions.
pub fn seeded_provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![&SeededX25519],
        secure_random: &SeededRandom,
        ..ring_provider::default_provider()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw() -> [u8; 16] {
        let mut bytes = [0; 16];
        seeded_provider().secure_random.fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn nothing_is_drawn_outside_a_scope() {
        assert!(seeded_provider().secure_random.fill(&mut [0; 8]).is_err());
        assert!(seeded_provider().kx_groups[0].start().is_err());
    }

    #[test]
    fn the_same_seed_draws_the_same_whatever_others_draw_between() {
        let (first, second, other) = (
            Randomness::new([1; 32]),
            Randomness::new([1; 32]),
            Randomness::new([2; 32]),
        );
        let mut from_first = Vec::new();
        let mut from_second = Vec::new();
        for _ in 0..8 {
            from_first.push(first.scope(draw));
            assert_ne!(other.scope(draw), from_first[from_first.len() - 1]);
            from_second.push(second.scope(|| {
                other.scope(draw);
                draw()
            }));
        }
        assert_eq!(from_first, from_second);
        from_first.dedup();
        assert_eq!(from_first.len(), 8);
    }

    #[test]
    fn a_panic_takes_its_source_with_it() {
        let source = Randomness::new([3; 32]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.scope(|| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert!(seeded_provider().secure_random.fill(&mut [0; 8]).is_err());
    }

    #[test]
    fn key_exchange_agrees_with_ring() {
        let ours = Randomness::new([4; 32]).scope(|| seeded_provider().kx_groups[0].start().unwrap());
        let rings = ring_provider::kx_group::X25519.start().unwrap();
        let (our_public, ring_public) = (ours.pub_key().to_vec(), rings.pub_key().to_vec());
        let our_secret = ours.complete(&ring_public).unwrap();
        let ring_secret = rings.complete(&our_public).unwrap();
        assert_eq!(our_secret.secret_bytes(), ring_secret.secret_bytes());
    }

    #[test]
    fn weak_and_short_key_shares_are_refused() {
        for share in [&[0; 32][..], &[9; 31][..], &[]] {
            let exchange = Randomness::new([5; 32]).scope(|| seeded_provider().kx_groups[0].start().unwrap());
            assert!(exchange.complete(share).is_err());
        }
    }

    /// The first flight of a TLS client: hello random, session id, order of extensions, key share.
    fn client_hello(seed: u8) -> Vec<u8> {
        Randomness::new([seed; 32]).scope(|| {
            let config = rustls::ClientConfig::builder_with_provider(seeded_provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let name = "lanline.example".try_into().unwrap();
            let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
            let mut flight = Vec::new();
            client.write_tls(&mut flight).unwrap();
            flight
        })
    }

    #[test]
    fn client_hellos_follow_from_the_seed() {
        assert_eq!(client_hello(6), client_hello(6));
        assert_ne!(client_hello(6), client_hello(7));
    }
}
