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
    out.push_str(&grid::matrix(rows));
    out.push_str(CLASSES);
    let _ = writeln!(
        out,
        "## Every pair in figures\n\n\
         Written by `make grid`: {seeds} seeds a pair without loss and {seeds} with 5 % loss each way, in virtual time. Times are from open NAT until both \
         players know their path, in round trips of {} ms (to the server, and between players), over the runs in which they met. The bound is what the \
         success must reach without loss and with it. Probes are the unanswered ones of the side that sent more, in the worst run.\n",
        ROUND_TRIP.as_millis()
    );
    out.push_str(&grid::markdown(rows));
    let _ = writeln!(
        out,
        "\nBehind sequential routers others open {FOREIGN_PER_SECOND} mappings a second. In every other seed O is a full cone instead of a public address, \
         and somebody else behind Sp has the player's port towards the server already. \"P behind Sb\" has two routers in a row, the second one the \
         provider's. \"With a pool\": the router has four public addresses and keeps to one for each inside host. \"Mapping by address\": the symmetric \
         router gives another port for another address only. \"Before discovery\": the players have just reached the server, and nothing is known of \
         their routers. Players may have 256 sockets for a search, or as many as the pair says."
    );
    out
}

const INTRODUCTION: &str = "# Which routers let players meet

What a player sits behind decides how others reach it. Here is every pair of routers: how Lanline connects them, and in how many of 100 cases,
without packet loss and with 5 % of it each way. What two routers allow at all is reached; a pair without a way (–) hears so within 12 s, with both
routers' behaviours named. A port opened by UPnP, PCP, NAT-PMP or by hand, or IPv6, turns whatever is behind it into O.

";

const CLASSES: &str = "
| class | the router | who has it |
|---|---|---|
| O | none, or one that lets everybody in once a port is open (full cone) | servers, forwarded ports |
| A | one port for all; lets in whoever was sent to, from any port (address-restricted) | some home routers |
| P | one port for all; lets in exact addresses only (port-restricted) | most home routers |
| Sp | another port for each destination (symmetric), but the socket's own number where it is free | Linux and BSD firewalls |
| Ss | symmetric, ports in sequence | older home and office routers |
| Sb | symmetric, random ports of a block of 2,048 | providers (CGN), mobile networks |
| Sr | symmetric, random ports of the whole range | strict firewalls, clouds |
| U | UDP blocked | some offices |

| how | |
|---|---|
| direct | one side is reached by anybody |
| punch | both send at once, to where the server saw the other; whoever is heard shows where it is |
| guess | the same with the number that the other's socket has |
| predict | one side samples what its router gives just before and just after; the other tries what lies between |
| predict both | both sample, and both send to where the other is about to be |
| block, birthday | one side opens 64 or 256 ports, the other tries up to 2,048 of the block or of all, 250 a second |

What all of it may cost in packets, and that it never costs more, is counted from outside in every run: 10 packets to an address that does not answer, 32
addresses named or heard, 64 foreseen, 2,048 searched at 250 a second, 256 sockets (64 behind a provider's router) with 3 packets each, 500 packets a
second for a node.

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
