//! Seeds: everything random in a lab is derived from one number.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use ring::digest;

/// A named generator: a newer `rand` must not change old traces.
pub(crate) type Generator = Xoshiro256PlusPlus;

/// The seed of one part of a lab: SHA-256 of the lab's seed, what the part is, and its number. Parts draw from
/// generators of their own, so that traffic on one link does not change the luck of another.
pub fn derive_seed(lab_seed: u64, part: &str, number: u64) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&lab_seed.to_be_bytes());
    context.update(&number.to_be_bytes());
    context.update(part.as_bytes());
    let mut seed = [0; 32];
    seed.copy_from_slice(context.finish().as_ref());
    seed
}

pub(crate) fn generator(lab_seed: u64, part: &str, number: u64) -> Generator {
    Generator::from_seed(derive_seed(lab_seed, part, number))
}
