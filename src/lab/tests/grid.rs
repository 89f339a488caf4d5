//! The grid's own arithmetic: names, bounds, tallies.

use std::collections::BTreeSet;

use super::super::grid::{self, Cell, Class, LOSS, MANY, Run, Technique, cells, tally};
use super::*;

fn run(took: u64, wrong: Option<&str>) -> Run {
    Run {
        connected: wrong.is_none(),
        took: ms(took),
        probing: ms(1),
        probes: took as u32,
        wrong: wrong.map(str::to_owned),
        inexcusable: false,
    }
}

#[test]
fn cells_have_names_of_their_own_and_every_pair_is_there() {
    let cells = cells();
    let names: BTreeSet<String> = cells.iter().map(Cell::to_string).collect();
    assert_eq!(names.len(), cells.len());
    assert!(names.iter().all(|name| name.is_ascii()));
    for (index, one) in Class::ALL.into_iter().enumerate() {
        for other in &Class::ALL[index..] {
            assert!(names.contains(&format!("{one:?} x {other:?}")), "{one:?} x {other:?}");
        }
    }
    let bounds = |cell: &Cell| (cell.bound.clean, cell.bound.share(LOSS));
    let easy = |cell: &&Cell| matches!(cell.technique, Technique::Direct | Technique::Punch);
    assert!(cells.iter().filter(easy).all(|cell| bounds(cell) == (1.0, 0.99)));
}

#[test]
fn a_tally_counts_and_sorts() {
    let runs = [run(300, None), run(100, None), run(900, Some("late")), run(200, None)];
    let tally = tally((10..).zip(runs));
    assert_eq!((tally.runs, tally.right, tally.connected), (4, 3, 3));
    assert_eq!(
        (tally.quantile(0.5), tally.quantile(0.99)),
        (Some(ms(200)), Some(ms(300)))
    );
    assert_eq!(tally.wrong, [(12, "late".to_owned())]);
    assert_eq!(tally.probes, 900);
    assert_eq!(grid::tally([]).quantile(0.5), None);
}

#[test]
fn chance_excuses_few_runs_but_not_many_and_never_where_all_must_connect() {
    let of = |wrong: u64, runs: u64| tally((0..runs).map(|seed| (seed, run(1, (seed < wrong).then_some("unlucky")))));
    assert!(of(0, 20).reaches(1.0) && !of(1, 20).reaches(1.0));
    assert!(of(2, 20).reaches(0.98) && !of(3, 20).reaches(0.98));
    assert!(of(4, MANY).reaches(0.98) && !of(5, MANY).reaches(0.98));
}

#[test]
fn the_same_seed_of_a_cell_gives_the_same_run() {
    let cells = cells();
    let cell = cells.iter().find(|cell| cell.to_string() == "A x Sr").unwrap();
    assert_eq!(cell.run(3, LOSS), cell.run(3, LOSS));
    assert!(cell.run(3, 0.0).connected);
}

#[test]
fn no_share_excuses_what_may_never_happen() {
    let cell = cells()
        .into_iter()
        .find(|cell| cell.technique == Technique::PredictBoth);
    let row = |inexcusable| {
        let wrong = Run {
            inexcusable,
            ..run(1, Some("over the budget"))
        };
        let clean = tally((0..20).map(|seed| (seed, if seed == 0 { wrong.clone() } else { run(1, None) })));
        let (cell, lossy) = (cell.clone().unwrap(), tally([(0, run(1, None))]));
        grid::Row { cell, clean, lossy }
    };
    assert!(row(false).holds() && !row(true).holds());
}

#[test]
fn the_table_has_a_line_for_each_cell_and_marks_those_below_their_bound() {
    let cells: Vec<Cell> = cells().into_iter().take(2).collect();
    let rows: Vec<grid::Row> = cells
        .iter()
        .zip([None, Some("unlucky")])
        .map(|(cell, wrong)| grid::Row {
            cell: cell.clone(),
            clean: tally([(0, run(120, wrong))]),
            lossy: tally([(0, run(120, None))]),
        })
        .collect();
    let table = grid::markdown(&rows);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[2].contains("| O × O | direct | 100 % | 2.0 (120 ms) |"),
        "{table}"
    );
    assert!(lines[2].contains("| 100 %, 99 %; 140 ms without loss |"), "{table}");
    assert!(!lines[2].contains("below") && lines[3].contains("**below**"), "{table}");
}

#[test]
fn the_matrix_shows_every_pair_of_classes_once() {
    let row = |cell: Cell| grid::Row {
        clean: tally([(0, run(120, None)), (1, run(120, Some("unlucky")))]),
        lossy: tally([(0, run(120, None))]),
        cell,
    };
    let rows: Vec<grid::Row> = cells().into_iter().map(row).collect();
    let matrix = grid::matrix(&rows);
    let lines: Vec<&str> = matrix.lines().collect();
    assert_eq!(lines.len(), 2 + Class::ALL.len());
    assert!(
        lines[2].starts_with("| **O** | direct<br>50 %, 100 % | direct<br>"),
        "{matrix}"
    );
    assert!(
        lines[6].starts_with("| **Ss** | | | | | predict both<br>50 %"),
        "{matrix}"
    );
    assert_eq!(matrix.matches("<br>").count(), 23);
    assert_eq!(matrix.matches(" – |").count(), 5 + Class::ALL.len());
}
