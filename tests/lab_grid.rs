//! Every pair of router behaviours connects as [`lanline::lab::grid`] says: few seeds of each cell; `make grid` runs many.
//!
//! A cell that falls below its bound is printed with the seeds that went wrong. To replay one:
//! `LANLINE_LAB_SEED=7 LANLINE_GRID_CELL="P x Sr" cargo test --features lab --test lab_grid`.

use lanline::lab::grid::{self, Cell, LOSS, Row, Technique};
use lanline::lab::seed_from_environment;

/// Names the one cell that is run.
const CELL_VARIABLE: &str = "LANLINE_GRID_CELL";
/// Seeds of each cell, without loss and with it.
const SEEDS: u64 = 20;

fn chosen(cell: &Cell) -> bool {
    std::env::var(CELL_VARIABLE).is_ok_and(|name| name == cell.to_string())
}

fn hold(wanted: impl Fn(&Cell) -> bool) {
    let seeds = match seed_from_environment() {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    let by_name = std::env::var(CELL_VARIABLE).is_ok();
    let mut cells = grid::cells();
    cells.retain(|cell| wanted(cell) && (!by_name || chosen(cell)));
    let rows = grid::run_all(&cells, seeds, |_| {});
    let below: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    for row in &below {
        for (loss, tally) in [(0.0, &row.clean), (LOSS, &row.lossy)] {
            for (seed, reason) in &tally.wrong {
                println!(
                    "{}, loss {loss}, seed {seed}: {reason}; replay: LANLINE_LAB_SEED={seed} {CELL_VARIABLE}=\"{}\" cargo test --features lab --test \
                     lab_grid",
                    row.cell, row.cell
                );
            }
        }
    }
    let names: Vec<String> = below.iter().map(|row| row.cell.to_string()).collect();
    assert!(
        below.is_empty(),
        "below their bound: {names:?}\n{}",
        grid::markdown(&rows)
    );
}

#[test]
fn easy_pairs_connect() {
    hold(|cell| matches!(cell.technique, Technique::Direct | Technique::Punch));
}

#[test]
fn who_has_no_udp_is_told_so() {
    hold(|cell| cell.technique == Technique::Blocked);
}

#[test]
fn ports_that_can_be_foreseen_connect() {
    hold(|cell| {
        matches!(
            cell.technique,
            Technique::GuessPort | Technique::Predict | Technique::PredictBoth
        )
    });
}

#[test]
fn ports_that_must_be_searched_connect() {
    hold(|cell| matches!(cell.technique, Technique::BirthdayInBlock | Technique::Birthday));
}

#[test]
fn what_cannot_connect_says_why_in_time() {
    hold(|cell| cell.technique == Technique::Unreachable);
}
