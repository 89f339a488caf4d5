//! What a game feels on a link of 25 ms and 20 Mbit/s with a queue of 256 kB, in the lab: small messages beside a bulk
//! transfer, and a burst on a link whose jitter reorders.

use std::time::Duration;

use lanline::lab::figures::{beside_bulk, jittered_burst};
use lanline::lab::with_seeds;

/// Ten seconds of play.
const FRAMES: u32 = 625;

#[test]
fn small_messages_pass_a_bulk_transfer() {
    with_seeds(0..10, |seed| {
        let result = beside_bulk(seed, FRAMES);
        let arrived = result.arrived();
        assert!(arrived as u32 > FRAMES * 97 / 100, "{arrived} of {FRAMES} arrived");
        let [p50, p99] = [0.5, 0.99].map(|quantile| result.quantile(quantile, 0).unwrap());
        let rate = result.bulk;
        println!("seed {seed}: bulk {rate:.1} Mbit/s, small messages p50 {p50:?}, p99 {p99:?}");
        assert!(
            p99 <= Duration::from_millis(45),
            "p99 {p99:?} (p50 {p50:?}, bulk {rate:.1} Mbit/s)"
        );
        assert!(rate >= 17.0, "{rate:.1} Mbit/s");
    });
}

#[test]
fn a_burst_survives_jitter_that_reorders() {
    with_seeds(0..10, |seed| {
        let took = jittered_burst(seed, Duration::from_millis(2));
        println!("seed {seed}: {took:?}");
        assert!(took <= Duration::from_millis(150), "{took:?}");
    });
}
