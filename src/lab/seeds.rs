//! Running a test for many seeds, so that a failure can be replayed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Names the one seed that [`with_seeds`] and [`assert_share_of_seeds`] run, instead of their range.
pub const SEED_VARIABLE: &str = "LANLINE_LAB_SEED";

/// The seed that the environment asks for.
///
/// # Panics
/// If the variable is there and is not a number: a test that silently ran other seeds would mislead.
pub fn seed_from_environment() -> Option<u64> {
    let value = std::env::var(SEED_VARIABLE).ok()?;
    match value.parse() {
        Ok(seed) => Some(seed),
        Err(_) => panic!("{SEED_VARIABLE}={value} is not a number"),
    }
}

/// The command that runs the current test with that seed alone.
pub fn replay_command(seed: u64) -> String {
    // The test harness names each test's thread after the test.
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("");
    format!("{SEED_VARIABLE}={seed} cargo test --features lab {test}")
}

fn run<R>(seed: u64, test: &impl Fn(u64) -> R) -> R {
    match catch_unwind(AssertUnwindSafe(|| test(seed))) {
        Ok(result) => result,
        Err(panic) => {
            eprintln!("failed with seed {seed}; replay: {}", replay_command(seed));
            resume_unwind(panic)
        }
    }
}

/// Runs `test` once for each seed. If one panics, the command that replays it is printed and the panic goes on. With
/// [`SEED_VARIABLE`] in the environment only that seed runs.
pub fn with_seeds(seeds: Range<u64>, test: impl Fn(u64)) {
    match seed_from_environment() {
        Some(seed) => run(seed, &test),
        None => seeds.for_each(|seed| run(seed, &test)),
    }
}

/// Runs `test` once for each seed and wants `Ok` for at least that share (0 to 1) of them; the seeds that failed, their
/// reasons and the command that replays the first are in the panic's message.
pub fn assert_share_of_seeds(share: f64, seeds: Range<u64>, test: impl Fn(u64) -> Result<(), String>) {
    if let Some(seed) = seed_from_environment() {
        if let Err(reason) = run(seed, &test) {
            panic!("seed {seed}: {reason}");
        }
        return;
    }
    let count = seeds.end - seeds.start;
    let failed: Vec<(u64, String)> = seeds
        .filter_map(|seed| run(seed, &test).err().map(|reason| (seed, reason)))
        .collect();
    let reached = 1.0 - failed.len() as f64 / count.max(1) as f64;
    if reached < share {
        panic!(
            "{reached:.3} of {count} seeds instead of {share}; replay the first that failed: {}\n{}",
            replay_command(failed[0].0),
            failed
                .iter()
                .map(|(seed, reason)| format!("  seed {seed}: {reason}\n"))
                .collect::<String>()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_share_that_is_reached_passes_and_one_that_is_not_names_its_seeds() {
        if seed_from_environment().is_some() {
            return;
        }
        let unlucky = |seed| {
            if seed % 10 == 3 {
                Err("unlucky".to_owned())
            } else {
                Ok(())
            }
        };
        assert_share_of_seeds(0.9, 0..20, unlucky);
        let panic = catch_unwind(|| assert_share_of_seeds(0.95, 0..20, unlucky)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(
            message.contains("LANLINE_LAB_SEED=3 cargo test --features lab lab::seeds"),
            "{message}"
        );
        assert!(message.contains("seed 13: unlucky"), "{message}");
    }

    #[test]
    fn every_seed_runs_until_one_panics() {
        if seed_from_environment().is_some() {
            return;
        }
        let ran = RefCell::new(Vec::new());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            with_seeds(5..10, |seed| {
                ran.borrow_mut().push(seed);
                assert_ne!(seed, 7);
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(*ran.borrow(), [5, 6, 7]);
    }
}
