//! Connection ids that can be recognized without a table.
//!
//! Eight bytes: a random nonce of four, and four of a keyed hash (SipHash-2-4) over it. Whoever holds the key can tell in a few
//! nanoseconds whether an id was given out by this endpoint; anybody else sees random bytes that link nothing. One stray packet in
//! 2³² passes by chance and is then dropped by the table lookup.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Length of every connection id of this endpoint, in bytes.
pub(super) const CONNECTION_ID_LENGTH: usize = 8;
/// Bytes of an id that are random; the rest is the check.
const NONCE_LENGTH: usize = 4;

/// Recognizes connection ids of this endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionIdKey {
    key: [u64; 2],
}

impl ConnectionIdKey {
    pub(super) fn new(bytes: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(bytes);
        Self {
            key: [key as u64, (key >> 64) as u64],
        }
    }

    fn check(&self, nonce: [u8; NONCE_LENGTH]) -> [u8; CONNECTION_ID_LENGTH - NONCE_LENGTH] {
        (siphash_2_4_of_4_bytes(self.key, nonce) as u32).to_le_bytes()
    }

    /// True if the id was made with this key.
    pub(super) fn validate(&self, id: &[u8]) -> bool {
        match id.split_first_chunk::<NONCE_LENGTH>() {
            Some((nonce, check)) => check == self.check(*nonce),
            None => false,
        }
    }

    /// True if a packet with a short header carries an id made with this key.
    pub(super) fn validate_short_header(&self, packet: &[u8]) -> bool {
        packet.len() > CONNECTION_ID_LENGTH
            && packet[0] & 0xc0 == 0x40
            && self.validate(&packet[1..=CONNECTION_ID_LENGTH])
    }
}

/// SipHash-2-4 (Aumasson, Bernstein 2012) of a message of four bytes.
fn siphash_2_4_of_4_bytes(key: [u64; 2], message: [u8; 4]) -> u64 {
    fn round(v: &mut [u64; 4]) {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    }
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    // The last block: the message, padded with zeros, its length in the top byte.
    let block = u64::from(u32::from_le_bytes(message)) | 4 << 56;
    v[3] ^= block;
    round(&mut v);
    round(&mut v);
    v[0] ^= block;
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// Makes connection ids for quinn.
pub(super) struct SeededConnectionIds {
    key: ConnectionIdKey,
    // quinn wants a factory that can be called often; all its generators share one source.
    random: Arc<Mutex<StdRng>>,
}

impl SeededConnectionIds {
    pub(super) fn factory(
        key: ConnectionIdKey,
        seed: [u8; 32],
    ) -> impl Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync + 'static {
        let random = Arc::new(Mutex::new(StdRng::from_seed(seed)));
        move || {
            Box::new(Self {
                key,
                random: random.clone(),
            })
        }
    }
}

impl ConnectionIdGenerator for SeededConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE_LENGTH];
        // Nothing panics while the lock is held, and if it did the generator inside would still be whole.
        self.random
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .fill_bytes(&mut nonce);
        let mut id = [0; CONNECTION_ID_LENGTH];
        id[..NONCE_LENGTH].copy_from_slice(&nonce);
        id[NONCE_LENGTH..].copy_from_slice(&self.key.check(nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.key.validate(id).then_some(()).ok_or(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of_the_reference() -> [u64; 2] {
        [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]
    }

    #[test]
    fn siphash_gives_the_reference_vector_of_four_bytes() {
        let expected = u64::from_le_bytes([0xcf, 0x27, 0x94, 0xe0, 0x27, 0x71, 0x87, 0xb7].map(|byte| byte));
        let got = siphash_2_4_of_4_bytes(key_of_the_reference(), [0, 1, 2, 3]);
        assert!(got == expected || got == expected.swap_bytes(), "{got:x}");
    }

    #[test]
    fn own_ids_are_recognized_and_others_are_not() {
        let key = ConnectionIdKey::new([7; 16]);
        let mut generator = SeededConnectionIds::factory(key, [1; 32])();
        for _ in 0..100 {
            let id = generator.generate_cid();
            assert!(key.validate(&id));
            assert!(!ConnectionIdKey::new([8; 16]).validate(&id));
            let mut packet = vec![0x41];
            packet.extend_from_slice(&id);
            packet.push(0);
            assert!(key.validate_short_header(&packet));
            packet[3] ^= 1;
            assert!(!key.validate_short_header(&packet));
            assert!(!key.validate_short_header(&packet[..8]));
        }
    }
}
