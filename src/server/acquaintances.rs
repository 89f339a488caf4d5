//! Who has been introduced to whom, for a while.
//!
//! A pair that plays may need a fresh ticket for a relay when its target's consent has become narrower (a session that is closed to newcomers, a
//! player who takes no more). Consent is about strangers: two who were introduced before, and of whom the target did not decline, get it.
//! That discloses nothing that they do not know already, and each node still decides by itself whether it takes a relay with the other.
//!
//! A pair is kept as 16 bytes of a keyed hash over the game and both keys, so that 65,536 pairs are some 5 MB at most, and nobody can aim for
//! somebody else's entry. The oldest give way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ring::hmac;

use super::registry::{AppId, Node};
use super::relays::TICKET_TIME;

/// How long a pair is remembered after it was last offered a way: as long as the ticket that it then got can be renewed, and as long again for one
/// whose node was away.
const REMEMBERED: Duration = Duration::from_secs(2 * TICKET_TIME.as_secs());

/// Most pairs.
const MAX_PAIRS: usize = 1 << 16;

/// All pairs.
pub struct Acquaintances {
    secret: hmac::Key,
    pairs: BTreeMap<u128, Instant>,
    by_age: BTreeSet<(Instant, u128)>,
}

impl Acquaintances {
    /// Nobody knows anybody yet.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            pairs: BTreeMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    fn pair(&self, one: &Node, other: &Node) -> u128 {
        let AppId(app) = one.app;
        let (lower, upper) = (one.key.min(other.key), one.key.max(other.key));
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&app.to_be_bytes());
        context.update(&lower.0);
        context.update(&upper.0);
        let mut hash = [0; 16];
        hash.copy_from_slice(&context.sign().as_ref()[..16]);
        u128::from_be_bytes(hash)
    }

    /// The two were offered a way to each other.
    pub fn met(&mut self, now: Instant, one: &Node, other: &Node) {
        let pair = self.pair(one, other);
        self.remove(pair);
        while let Some(oldest) = self.by_age.first().copied() {
            if self.pairs.len() < MAX_PAIRS && now.saturating_duration_since(oldest.0) < REMEMBERED {
                break;
            }
            self.remove(oldest.1);
        }
        self.pairs.insert(pair, now);
        self.by_age.insert((now, pair));
    }

    /// One declined the other.
    pub fn declined(&mut self, one: &Node, other: &Node) {
        self.remove(self.pair(one, other));
    }

    /// Whether they have met.
    pub fn have_met(&self, now: Instant, one: &Node, other: &Node) -> bool {
        let met = self.pairs.get(&self.pair(one, other));
        met.is_some_and(|met| now.saturating_duration_since(*met) < REMEMBERED)
    }

    fn remove(&mut self, pair: u128) {
        if let Some(met) = self.pairs.remove(&pair) {
            self.by_age.remove(&(met, pair));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::registry::{Applicant, Profile, Registry};
    use crate::transport::LinkId;
    use crate::transport::identity::PublicKey;

    fn nodes(count: u32) -> Registry {
        let mut registry = Registry::new(count as usize);
        for number in 0..count {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let applicant = Applicant {
                tunnelled: false,
                key: PublicKey(key),
                app: "game",
                observed: "203.0.113.1:4000".parse().unwrap(),
                profile: Profile::default(),
            };
            registry.register(LinkId(number.into()), applicant).unwrap();
        }
        registry
    }

    #[test]
    fn a_pair_is_known_from_either_side_for_a_while_unless_one_declined() {
        let (start, registry) = (Instant::now(), nodes(3));
        let [one, two, three] = [0, 1, 2].map(|number| registry.node(LinkId(number)).unwrap());
        let mut known = Acquaintances::new(&[1; 32]);
        known.met(start, one, two);
        assert!(known.have_met(start, two, one) && !known.have_met(start, one, three));
        let later = start + REMEMBERED - Duration::from_secs(1);
        assert!(known.have_met(later, one, two));
        known.met(later, two, one);
        assert!(known.have_met(start + REMEMBERED, one, two));
        assert!(!known.have_met(later + REMEMBERED, one, two));
        known.declined(one, two);
        assert!(!known.have_met(later, one, two));
        assert!(known.by_age.is_empty());
    }

    #[test]
    fn the_oldest_pairs_give_way() {
        let (start, registry) = (Instant::now(), nodes(400));
        let node = |number| registry.node(LinkId(number)).unwrap();
        let mut known = Acquaintances::new(&[1; 32]);
        let mut count = 0;
        for one in 0..400 {
            for other in 0..one {
                known.met(start + Duration::from_millis(count), node(one), node(other));
                count += 1;
            }
        }
        assert!(count > MAX_PAIRS as u64);
        assert_eq!((known.pairs.len(), known.by_age.len()), (MAX_PAIRS, MAX_PAIRS));
        let now = start + Duration::from_millis(count);
        assert!(!known.have_met(now, node(0), node(1)) && known.have_met(now, node(399), node(398)));
    }
}
