//! Tickets: what a coordinator grants to one side of a pair, sealed for the relay.
//!
//! A node passes its ticket on without being able to read or change it; what it may know of it (the key, the time) the server tells it
//! beside it. Sealed with AES-256-GCM under a key that coordinator and relay share:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 12 | nonce: random, never used twice under one key |
//! | | | sealed: |
//! | 12 | 8 | session |
//! | 20 | 1 | bit 0: the side that asked |
//! | 21 | 1 | key number |
//! | 22 | 8 | expiry, milliseconds of the coordinator's clock |
//! | 30 | 8 | guid of the node, for its budget |
//! | 38 | 4 | idle time in ms |
//! | 42 | 4 | payload bytes a second; 0: not limited |
//! | 46 | 4 | frames a second; 0: not limited |
//! | 50 | 32 | the side's secret |
//! | 82 | 16 | tag |

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use siphasher::sip::SipHasher24;

use crate::transport::identity::Guid;
use crate::wire::introduction::MAX_TICKET;
use crate::wire::relay::DATA_AUTHENTICATED;
use crate::wire::{DecodeError, Reader, Writer};

/// Bytes of a ticket.
pub const TICKET_LENGTH: usize = NONCE_LEN + SEALED + TAG;
/// Bytes that are sealed.
const SEALED: usize = 70;
/// Bytes of AES-GCM's tag.
const TAG: usize = 16;
const _: () = assert!(TICKET_LENGTH <= MAX_TICKET);

/// Makes the tags of data frames: the half of a side's secret that is kept as long as its session.
///
/// SipHash-2-4, a keyed function for short inputs. 64 bits, and a forger has the ticket's lifetime for guesses that are counted.
#[derive(Clone, Copy)]
pub struct DataKey([u64; 2]);

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// The tag of a data frame, over its header before the tag.
    #[inline]
    pub fn data_tag(&self, authenticated: &[u8; DATA_AUTHENTICATED]) -> [u8; 8] {
        let [low, high] = self.0;
        SipHasher24::new_with_keys(low, high).hash(authenticated).to_be_bytes()
    }
}

/// What a side's secret is good for.
#[derive(Clone, PartialEq)]
pub struct SideKey {
    secret: [u8; 32],
}

impl fmt::Debug for SideKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SideKey(…)")
    }
}

impl SideKey {
    /// From the secret that the ticket grants.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// What makes the tags of data frames.
    pub fn data_key(&self) -> DataKey {
        let word = |place: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.secret[place..place + 8]);
            u64::from_le_bytes(bytes)
        };
        DataKey([word(16), word(24)])
    }

    /// The tag of a data frame, over its header before the tag.
    pub fn data_tag(&self, authenticated: &[u8; DATA_AUTHENTICATED]) -> [u8; 8] {
        self.data_key().data_tag(authenticated)
    }

    fn control_key(&self, label: &[u8]) -> hmac::Key {
        // The half that data frames do not use.
        let base = hmac::Key::new(hmac::HMAC_SHA256, &self.secret[..16]);
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&base, label).as_ref())
    }

    /// The tag of a bind frame, over everything before it.
    pub fn bind_tag(&self, authenticated: &[u8]) -> [u8; 16] {
        truncated(&hmac::sign(&self.control_key(b"bind"), authenticated))
    }

    /// Whether that is the tag, in constant time.
    pub fn verify_bind(&self, authenticated: &[u8], tag: &[u8; 16]) -> bool {
        same(&self.bind_tag(authenticated), tag)
    }

    /// The tag of the answer to a bind frame.
    pub fn bound_tag(&self, authenticated: &[u8]) -> [u8; 16] {
        truncated(&hmac::sign(&self.control_key(b"bound"), authenticated))
    }

    /// Whether that is the tag, in constant time.
    pub fn verify_bound(&self, authenticated: &[u8], tag: &[u8; 16]) -> bool {
        same(&self.bound_tag(authenticated), tag)
    }
}

fn truncated(tag: &hmac::Tag) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&tag.as_ref()[..16]);
    short
}

/// Compares without telling by the time how much of it is right.
pub(super) fn same<const LENGTH: usize>(one: &[u8; LENGTH], other: &[u8; LENGTH]) -> bool {
    one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// What a ticket grants to one side.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The pair's session at the relay.
    pub session: u64,
    /// The side that asked for the introduction.
    pub from_asker: bool,
    /// Distinguishes this grant's key from those before.
    pub key_number: u8,
    /// Milliseconds of the coordinator's clock.
    pub expires: u64,
    /// Whose budget it counts against.
    pub owner: Guid,
    /// The session ends after so much silence, in milliseconds.
    pub idle_ms: u32,
    /// Payload bytes a second; 0: not limited.
    pub bytes_per_second: u32,
    /// Frames a second; 0: not limited.
    pub frames_per_second: u32,
    /// Authenticates the side's frames.
    pub key: SideKey,
}

/// What coordinator and relay share. A clone is a reference: every shard has one.
#[derive(Clone)]
pub struct TicketKey(Arc<LessSafeKey>);

impl fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TicketKey(…)")
    }
}

impl TicketKey {
    /// From 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the algorithm's length");
        Self(Arc::new(LessSafeKey::new(key)))
    }

    /// Seals a grant. `nonce` is random and never used twice.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], grant: &Grant) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(TICKET_LENGTH);
        let mut writer = Writer::new(&mut sealed);
        writer.u64(&grant.session);
        writer.array(&[u8::from(grant.from_asker), grant.key_number]);
        writer.u64(&grant.expires);
        writer.u64(&grant.owner.0);
        writer.u32(&grant.idle_ms);
        writer.u32(&grant.bytes_per_second);
        writer.u32(&grant.frames_per_second);
        writer.array(&grant.key.secret);
        debug_assert_eq!(sealed.len(), SEALED);
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .expect("a ticket is far below the algorithm's limit");
        [&nonce, &sealed[..], tag.as_ref()].concat()
    }

    /// Reads a ticket; `None` if it is not one of ours.
    pub fn open(&self, ticket: &[u8]) -> Option<Grant> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() != SEALED + TAG {
            return None;
        }
        let mut plain = [0; SEALED + TAG];
        plain.copy_from_slice(sealed);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::empty(), &mut plain).ok()?;
        read_grant(plain).ok()
    }
}

fn read_grant(plain: &[u8]) -> Result<Grant, DecodeError> {
    let mut reader = Reader::new(plain);
    let session = reader.u64()?;
    let [side, key_number] = reader.array()?;
    Ok(Grant {
        session,
        from_asker: side & 1 != 0,
        key_number,
        expires: reader.u64()?,
        owner: Guid(reader.u64()?),
        idle_ms: reader.u32()?,
        bytes_per_second: reader.u32()?,
        frames_per_second: reader.u32()?,
        key: SideKey::new(reader.array()?),
    })
}
