//! Who a node is: an Ed25519 key, and the guid that is derived from it.

use std::fmt;

use ring::digest;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A node's name everywhere: 63 bits, never zero, of the SHA-256 of its public key. Positive in signed
/// 64-bit integers. Names only: wherever trust matters the whole key is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The guid of the node that holds this key: the first eight bytes of the key's SHA-256, big endian, without their
    /// highest bit; 1 in the one case in which that is 0.
    pub fn guid(&self) -> Guid {
        let hash = digest::digest(&digest::SHA256, &self.0);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_ref()[..8]);
        Guid((u64::from_be_bytes(first) & (u64::MAX >> 1)).max(1))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0; 32];
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(key))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

/// A node's secret: the 32-byte Ed25519 seed.
#[derive(Clone)]
pub struct Identity {
    seed: [u8; 32],
    public: PublicKey,
}

impl Identity {
    /// The identity of an Ed25519 seed (RFC 8032). The seed comes from the shell: a file, or OS randomness.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        // Any 32 bytes are a valid Ed25519 seed.
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are an Ed25519 seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self {
            seed,
            public: PublicKey(public),
        }
    }

    /// The seed, for writing it to a file.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The guid.
    pub fn guid(&self) -> Guid {
        self.public.guid()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.public.guid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_positive_and_follow_from_the_key() {
        for byte in 0..=255 {
            let identity = Identity::from_seed([byte; 32]);
            assert!(identity.guid().0 > 0 && identity.guid().0 < 1 << 63);
            assert_eq!(
                PublicKey::from_hex(&identity.public().to_hex()),
                Some(identity.public())
            );
        }
    }

    #[test]
    fn public_key_of_rfc_8032_test_1() {
        let mut seed = [0; 32];
        for (index, pair) in "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
            .as_bytes()
            .chunks(2)
            .enumerate()
        {
            seed[index] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        assert_eq!(
            Identity::from_seed(seed).public().to_hex(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }
}
