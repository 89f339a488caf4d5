//! The grid of NAT behaviours: `cargo bench --features lab --bench grid -- [SEEDS] [--write FILE] [CELL…]`.
//!
//! Runs every cell (or those named) for that many seeds without loss and as many with it, prints the table, and writes it into a
//! file if told. Fails when a cell stays below its bound.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use lanline::lab::grid::{self, Cell, FOREIGN_PER_SECOND, ROUND_TRIP, Row};

/// Enough for a bound of 99 % to mean something.
const SEEDS: u64 = 200;
/// Seeds that went wrong are shown up to this number a cell.
const SHOWN: usize = 3;

struct Options {
    seeds: u64,
    file: Option<String>,
    cells: Vec<Cell>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seeds: SEEDS,
        file: None,
        cells: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--bench" {
            // Cargo's own word.
        } else if argument == "--write" {
            options.file = Some(arguments.next().ok_or("--write needs a file")?);
        } else if let Ok(seeds) = argument.parse() {
            options.seeds = seeds;
        } else {
            let cell = grid::cells().into_iter().find(|cell| cell.to_string() == argument);
            options
                .cells
                .push(cell.ok_or(format!("no cell is named {argument:?}"))?);
        }
    }
    if options.cells.is_empty() {
        options.cells = grid::cells();
    }
    Ok(options)
}

fn show(row: &Row) {
    let cell = &row.cell;
    let verdict = if row.holds() { "" } else { "  BELOW ITS BOUND" };
    println!(
        "{cell}: {}/{} and {}/{}{verdict}",
        row.clean.right, row.clean.runs, row.lossy.right, row.lossy.runs
    );
    for (loss, tally) in [(0.0, &row.clean), (grid::LOSS, &row.lossy)] {
        for (seed, reason) in tally.wrong.iter().take(SHOWN) {
            println!("    seed {seed}, loss {loss}: {reason}");
        }
    }
}

fn document(rows: &[Row], seeds: u64) -> String {
    let mut out = String::from(INTRODUCTION);
    let _ = writeln!(
        out,
        "Written by `make grid`: {seeds} seeds a cell without loss and {seeds} with 5 % loss each way, in virtual time. A round trip is {} ms, to the \
         server and between players. Behind sequential routers others open {FOREIGN_PER_SECOND} mappings a second. Times are from open NAT until both \
         players have their path, over the runs in which they met; probes are the unanswered ones of the side that sent more, in the worst \
         run.\n",
        ROUND_TRIP.as_millis()
    );
    out.push_str(&grid::markdown(rows));
    out
}

const INTRODUCTION: &str = "# Which routers let players meet

For engineers who want to know what Lanline reaches, and how sure that is.

| class | what it is |
|---|---|
| O | a public address, or endpoint-independent mapping and filtering |
| A | endpoint-independent mapping, address-dependent filtering |
| P | endpoint-independent mapping, address- and port-dependent filtering |
| Sp | symmetric (address- and port-dependent mapping and filtering), ports preserved |
| Ss | symmetric, ports in sequence |
| Sb | symmetric, random ports of a block of 2,048 |
| Sr | symmetric, random ports of the whole range |
| U | UDP blocked |

\"P behind Sb\" has two routers in a row, the second one the provider's. \"With a pool\": the router has four public addresses and keeps to one for each
inside host. The cells that end with a reason have no way that the budgets of probes allow; the share is of runs that met all the same.

";

fn run() -> Result<bool, String> {
    let options = options()?;
    let begin = Instant::now();
    let rows = grid::run_all(&options.cells, 0..options.seeds, show);
    let document = document(&rows, options.seeds);
    println!("\n{document}");
    let runs = 2 * options.seeds * options.cells.len() as u64;
    let each = begin.elapsed().div_f64(runs.max(1) as f64);
    println!(
        "{runs} runs in {:.0} s, {:.1} ms each",
        begin.elapsed().as_secs_f64(),
        milliseconds(each)
    );
    if let Some(file) = &options.file {
        std::fs::write(file, document).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(rows.iter().all(Row::holds))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn main() {
    match run() {
        Ok(true) => {}
        Ok(false) => {
            eprintln!("cells stay below their bound");
            std::process::exit(1);
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    }
}
