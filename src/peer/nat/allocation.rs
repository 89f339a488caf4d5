//! How a router gives outside ports to new mappings, from samples: pure functions.
//!
//! In: samples, each the outside address of a fresh socket's first mapping, numbered in the order in which the requests left. Out:
//! whether the local port's number is kept, the step, the block; `None` wherever the samples do not tell.
//!
//! - *Kept*: half of the samples or more have the local port's number. A collision moves a mapping elsewhere. *Not kept*: none has it, or of
//!   many so few as chance explains: one in 64,512 of the whole range, but one in 2,048 of a block that the local ports are in, too.
//! - *Step*: half of the distances between samples that follow each other (three at least) are the same number for each place in
//!   the order, and the others are that number times a few more places: mappings of other machines behind the same router
//!   came between, or requests were lost before it. Only samples whose first request was answered have a place in the order. From eight
//!   distances on one may not fit: the ports start anew at the range's end.
//! - *Block*: the samples stand too close for the whole range by chance (odds of [`CHANCE`]) and do not run in one direction. Carriers give
//!   blocks of a power of two that begin at a multiple of it; where the samples fill half of such a block it is taken to be the one. Otherwise it
//!   is the samples' range, widened on both sides by what is likely to lie beyond them.

use std::net::IpAddr;

/// The fewest distances that agree on a step.
const FEWEST_AGREEING: usize = 3;
/// Distances from which on one may be the jump from the range's end to its beginning.
const ENOUGH_FOR_A_JUMP: usize = 8;
/// Foreign mappings between two samples, 5 ms apart, beyond which a distance proves nothing: 3,000 a second.
const MOST_FOREIGN: i32 = 16;
/// Samples without the local port's number from which on it is not kept.
const FEWEST_MOVED: usize = 3;
/// The same if a sample or two have it: in a narrow block that happens by chance, and no router moves so many that it could keep.
const FEWEST_MOVED_BESIDE_CHANCE: usize = 6;
/// Fewest ports of a block: the odds that they all lie in one half of it are 1 in 2,048.
const FEWEST_IN_A_BLOCK: usize = 12;
/// Fewest distances that show that ports do not run in one direction.
const FEWEST_DISTANCES: usize = 4;
/// Widest block: a quarter of all ports, what some routers use of the range (49,152 to 65,535).
const WIDEST_BLOCK: u16 = 16_384;
/// Ports that mappings get of routers that use all: 1,024 to 65,535.
const ALL_PORTS: f64 = 64_512.0;
/// A wrong block in that many runs behind a router that uses all ports is one too many.
const CHANCE: f64 = 1e-5;
/// A block of a power of two is the one up to this many times the width that the samples suggest: for 16 samples the odds that they
/// fill less of their true block are 3 in a million.
const ALIGNED_FACTOR: f64 = 2.5;
/// Where no aligned block fits, the range is widened by this many mean distances on each side: beyond them lie further ports of the
/// block with odds of e to the power of −6.
const WIDENED_BY: f64 = 6.0;

/// The first mapping of a fresh socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its place in the order.
    pub place: usize,
    /// The outside address.
    pub ip: IpAddr,
    /// The outside port.
    pub outside: u16,
    /// The socket's own port.
    pub local: u16,
    /// The first request was answered: the mapping was made at that place.
    pub in_order: bool,
}

/// What the samples tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allocation {
    /// The local port's number is kept where it can be.
    pub preserves: Option<bool>,
    /// New mappings get numbers this far apart.
    pub step: Option<i16>,
    /// New mappings get numbers from here (first, last).
    pub block: Option<(u16, u16)>,
}

/// Judges samples in the order of their places, and outside ports of further mappings whose place is not known.
pub fn judge(samples: &[Sample], further: &[u16]) -> Allocation {
    let kept = samples.iter().filter(|sample| sample.outside == sample.local).count();
    if kept > 0 && kept * 2 >= samples.len() {
        return Allocation {
            preserves: Some(true),
            ..Allocation::default()
        };
    }
    let moved = samples.len() - kept;
    let by_chance = moved >= FEWEST_MOVED_BESIDE_CHANCE && kept * 4 <= samples.len();
    let preserves = (kept == 0 && moved >= FEWEST_MOVED || by_chance).then_some(false);
    let step = step(samples);
    let block = match step {
        Some(_) => None,
        None => block(samples, further),
    };
    Allocation { preserves, step, block }
}

/// Places and ports between samples that follow each other.
fn distances(samples: &[Sample]) -> Vec<(i32, i32)> {
    let ordered: Vec<&Sample> = samples.iter().filter(|sample| sample.in_order).collect();
    let pairs = ordered.windows(2).filter(|pair| pair[0].ip == pair[1].ip);
    pairs
        .map(|pair| {
            let places = (pair[1].place - pair[0].place) as i32;
            // The shorter way round.
            let ports = pair[1].outside.wrapping_sub(pair[0].outside) as i16;
            (places, i32::from(ports))
        })
        .collect()
}

fn step(samples: &[Sample]) -> Option<i16> {
    let distances = distances(samples);
    let agree = |step: i32| {
        distances
            .iter()
            .filter(|(places, ports)| *ports == step * places)
            .count()
    };
    let fits = |step: i32, (places, ports): &(i32, i32)| {
        ports % step == 0 && (1..=places + MOST_FOREIGN).contains(&(ports / step))
    };
    let candidates = distances
        .iter()
        .filter(|(places, ports)| *ports != 0 && ports % places == 0);
    let step = candidates
        .map(|(places, ports)| ports / places)
        .max_by_key(|step| agree(*step))?;
    let misfits = distances.iter().filter(|distance| !fits(step, distance)).count();
    let allowed = usize::from(distances.len() >= ENOUGH_FOR_A_JUMP);
    let agreeing = agree(step);
    let clear = agreeing >= FEWEST_AGREEING && agreeing * 2 >= distances.len() && misfits <= allowed;
    clear.then(|| i16::try_from(step).ok()).flatten()
}

/// Whether samples run in one direction, but for one jump, or are too few to tell: then they are no random choice, even if no step is
/// clear.
fn runs_one_way(samples: &[Sample]) -> bool {
    let distances = distances(samples);
    let rising = distances.iter().filter(|(_, ports)| *ports > 0).count();
    let falling = distances.iter().filter(|(_, ports)| *ports < 0).count();
    distances.len() < FEWEST_DISTANCES || rising.max(falling) + 1 >= distances.len()
}

fn block(samples: &[Sample], further: &[u16]) -> Option<(u16, u16)> {
    let mut ports: Vec<u16> = samples
        .iter()
        .map(|sample| sample.outside)
        .chain(further.iter().copied())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let (lowest, highest) = (*ports.first()?, *ports.last()?);
    let (count, span) = (ports.len(), highest - lowest);
    // The odds that the smallest and the largest of that many random numbers stand so close.
    let odds = count as f64 * (f64::from(span) / ALL_PORTS).powi(count as i32 - 1);
    if count < FEWEST_IN_A_BLOCK || span >= WIDEST_BLOCK || odds > CHANCE || runs_one_way(samples) {
        return None;
    }
    let count = count as f64;
    let width = f64::from(span) * (count + 1.0) / (count - 1.0);
    // The bits in which they differ, and all below.
    let below = u16::MAX.checked_shr((lowest ^ highest).leading_zeros()).unwrap_or(0);
    if f64::from(below) + 1.0 <= width * ALIGNED_FACTOR {
        return Some((lowest & !below, lowest | below));
    }
    let beyond = (f64::from(span) * WIDENED_BY / count) as u16;
    Some((lowest.saturating_sub(beyond).max(1), highest.saturating_add(beyond)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn sample(place: usize, outside: u16, local: u16) -> Sample {
        Sample {
            place,
            ip: Ipv4Addr::new(20, 0, 0, 1).into(),
            outside,
            local,
            in_order: true,
        }
    }

    /// Samples whose local ports no router keeps.
    fn moved(outsides: &[u16]) -> Vec<Sample> {
        let samples = outsides.iter().enumerate();
        samples.map(|(place, outside)| sample(place, *outside, 7)).collect()
    }

    fn random_ports(seed: u64, first: u16, last: u16, count: usize) -> Vec<u16> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ports = Vec::new();
        while ports.len() < count {
            let port = random.random_range(first..=last);
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    #[test]
    fn nothing_is_known_from_nothing() {
        assert_eq!(judge(&[], &[]), Allocation::default());
        assert_eq!(judge(&moved(&[5_000, 9_000]), &[]), Allocation::default());
    }

    #[test]
    fn a_single_kept_port_tells_and_collisions_do_not_hide_it() {
        let kept = |samples: &[Sample]| judge(samples, &[]).preserves;
        assert_eq!(kept(&[sample(0, 4_000, 4_000)]), Some(true));
        let collided = [
            sample(0, 4_000, 4_000),
            sample(1, 4_102, 4_101),
            sample(2, 4_205, 4_205),
        ];
        assert_eq!(kept(&collided), Some(true));
        assert_eq!(kept(&moved(&[1_024, 30_000])), None);
        assert_eq!(kept(&moved(&[1_024, 30_000, 50_000])), Some(false));
        let chance = [
            sample(0, 4_000, 4_000),
            sample(1, 9, 1),
            sample(2, 8, 2),
            sample(3, 5, 9),
        ];
        assert_eq!(kept(&chance), None);
        let mut chance = moved(&[4_000, 4_100, 4_900, 4_300, 4_250, 4_801, 4_444]);
        assert_eq!(kept(&chance), Some(false));
        chance.push(sample(7, 4_711, 4_711));
        assert_eq!(kept(&chance), Some(false));
    }

    /// The opener of a search is only whoever is known not to keep ports.
    #[test]
    fn a_number_that_fits_by_chance_does_not_hide_a_block() {
        for seed in 0..100 {
            let mut samples = moved(&random_ports(seed, 4_096, 6_143, 18));
            samples[seed as usize % 18].local = samples[seed as usize % 18].outside;
            let expected = Allocation {
                preserves: Some(false),
                step: None,
                block: Some((4_096, 6_143)),
            };
            assert_eq!(judge(&samples, &[]), expected, "seed {seed}");
        }
    }

    #[test]
    fn kept_ports_that_follow_each_other_are_no_sequence() {
        let samples: Vec<Sample> = (0..6)
            .map(|n| sample(n, 50_000 + n as u16, 50_000 + n as u16))
            .collect();
        let expected = Allocation {
            preserves: Some(true),
            ..Allocation::default()
        };
        assert_eq!(judge(&samples, &[]), expected);
    }

    #[test]
    fn a_few_foreign_mappings_do_not_hide_a_step() {
        let samples = moved(&[5_000, 5_002, 5_006, 5_008, 5_010, 5_012]);
        assert_eq!(judge(&samples, &[]).step, Some(2));
        assert_eq!(judge(&samples, &[]).block, None);
        // Falling, with the second sample unanswered.
        let mut samples = moved(&[5_000, 4_999, 4_998, 4_997, 4_996, 4_995]);
        samples.remove(1);
        assert_eq!(judge(&samples, &[]).step, Some(-1));
    }

    #[test]
    fn samples_out_of_order_do_not_make_a_step() {
        let mut samples = moved(&[5_000, 5_001, 5_002, 5_003, 5_004, 5_005]);
        for sample in &mut samples[1..4] {
            sample.in_order = false;
        }
        assert_eq!(judge(&samples, &[]).step, None);
    }

    #[test]
    fn much_foreign_traffic_is_neither_a_step_nor_a_block() {
        let samples = moved(&[5_000, 5_013, 5_031, 5_040, 5_077, 5_090, 5_101, 5_140]);
        let expected = Allocation {
            preserves: Some(false),
            ..Allocation::default()
        };
        assert_eq!(judge(&samples, &[]), expected);
    }

    #[test]
    fn ports_of_different_addresses_are_not_compared() {
        let mut samples = moved(&[5_000, 5_001, 5_002, 5_003]);
        samples[1].ip = Ipv4Addr::new(20, 0, 0, 2).into();
        samples[3].ip = samples[1].ip;
        assert_eq!(judge(&samples, &[]).step, None);
    }

    proptest! {
        #[test]
        fn steps_are_found_also_over_the_end_of_the_range(
            start in 1_024..=u16::MAX, size in 1..=64_i32, falling: bool, lost in 0..3_usize, foreign in proptest::collection::vec(0..20_i32, 17),
        ) {
            let step = if falling { -size } else { size };
            let mut port = i32::from(start);
            let mut samples = Vec::new();
            for (place, foreign) in foreign.iter().enumerate() {
                samples.push(sample(place, port as u16, 7));
                // One gap in ten has a foreign mapping in it.
                let steps = 1 + i32::from(*foreign < 2);
                port = (port - 1_024 + step * steps).rem_euclid(64_512) + 1_024;
            }
            for _ in 0..lost {
                samples.remove(samples.len() / 2);
            }
            let judged = judge(&samples, &[]);
            let noisy = foreign.iter().filter(|foreign| **foreign < 2).count();
            prop_assert_eq!(judged.block, None);
            if noisy <= 4 {
                prop_assert_eq!(judged.step, Some(step as i16));
            } else {
                prop_assert!(judged.step.is_none_or(|found| i32::from(found) == step));
            }
        }

        #[test]
        fn blocks_are_found_wherever_they_begin(seed: u64, bits in 8..=13_u32, begin in 1_024..=57_343_u16, aligned: bool) {
            let size = 1_u16 << bits;
            let first = if aligned { begin / size * size } else { begin };
            let last = first + (size - 1);
            let judged = judge(&moved(&random_ports(seed, first, last, 18)), &[]);
            prop_assert_eq!((judged.preserves, judged.step), (Some(false), None));
            let Some((low, high)) = judged.block else {
                return Err(TestCaseError::fail("no block"));
            };
            let common = i32::from(high.min(last)) - i32::from(low.max(first)) + 1;
            let found = i32::from(high) - i32::from(low) + 1;
            // Of a block that does not begin at a multiple of its size, the larger part may look like one that does.
            prop_assert!(f64::from(common) >= 0.5 * f64::from(size), "{low}-{high} of {first}-{last}");
            prop_assert!(f64::from(found) <= 4.0 * f64::from(size), "{low}-{high} of {first}-{last}");
        }

        #[test]
        fn random_ports_are_neither_kept_nor_a_step_nor_a_block(seed: u64, count in 3..=18_usize) {
            let judged = judge(&moved(&random_ports(seed, 1_024, u16::MAX, count)), &[]);
            let expected = Allocation { preserves: Some(false), ..Allocation::default() };
            prop_assert_eq!(judged, expected);
        }

        #[test]
        fn nothing_panics(ports: Vec<(u16, u16, bool)>, further: Vec<u16>) {
            let samples: Vec<Sample> = ports
                .iter()
                .enumerate()
                .map(|(place, (outside, local, in_order))| Sample { in_order: *in_order, ..sample(place, *outside, *local) })
                .collect();
            let judged = judge(&samples, &further);
            prop_assert!(judged.block.is_none_or(|(first, last)| first <= last));
            prop_assert_ne!(judged.step, Some(0));
        }
    }

    #[test]
    fn an_aligned_block_is_found_exactly() {
        for seed in 0..2_000 {
            let judged = judge(&moved(&random_ports(seed, 4_096, 6_143, 18)), &[]);
            assert_eq!(judged.block, Some((4_096, 6_143)), "seed {seed}");
        }
    }
}
