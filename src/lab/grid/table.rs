//! Many runs of a cell, and what is shown of them.
//!
//! In: runs. Out: tallies and rows that hold or do not; the matrix and the table, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Cell, Class, LOSS, ROUND_TRIP, Run, Technique};

/// Many runs of one cell with one loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Of these as they must be.
    pub right: u64,
    /// Of these where the players met.
    pub connected: u64,
    /// Times of those, sorted.
    times: Vec<Duration>,
    /// Most unanswered probes of one side.
    pub probes: u32,
    /// Runs that no share excuses.
    pub inexcusable: u64,
    /// Seeds that went wrong, and how.
    pub wrong: Vec<(u64, String)>,
}

impl Tally {
    /// The time that this share of the runs in which the players met did not exceed.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let index = (self.times.len().max(1) - 1) as f64 * quantile;
        self.times.get(index.ceil() as usize).copied()
    }

    /// Share of runs that are as they must be.
    pub fn share(&self) -> f64 {
        self.right as f64 / self.runs.max(1) as f64
    }

    /// Share of runs in which the players met.
    fn met(&self) -> f64 {
        self.connected as f64 / self.runs.max(1) as f64
    }

    /// Never less than `bound` of many seeds; of few ones so many less as chance explains (three standard deviations).
    pub fn reaches(&self, bound: f64) -> bool {
        let runs = self.runs as f64;
        let expected = runs * (1.0 - bound);
        let by_chance = 3.0 * (runs * bound * (1.0 - bound)).sqrt();
        let slack = if self.runs >= MANY { 0.0 } else { by_chance };
        (self.runs - self.right) as f64 <= expected + slack + 1e-9
    }
}

/// From so many seeds on a share is held to its bound without allowance for chance.
pub const MANY: u64 = 200;

/// Sums runs up, each with its seed.
pub fn tally(runs: impl IntoIterator<Item = (u64, Run)>) -> Tally {
    let mut tally = Tally {
        runs: 0,
        right: 0,
        connected: 0,
        times: Vec::new(),
        probes: 0,
        inexcusable: 0,
        wrong: Vec::new(),
    };
    for (seed, run) in runs {
        tally.runs += 1;
        tally.right += u64::from(run.wrong.is_none());
        tally.probes = tally.probes.max(run.probes);
        tally.inexcusable += u64::from(run.inexcusable);
        if run.connected {
            tally.connected += 1;
            tally.times.push(run.took);
        }
        tally.wrong.extend(run.wrong.map(|text| (seed, text)));
    }
    tally.times.sort_unstable();
    tally
}

/// A cell with what it reached without and with loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which.
    pub cell: Cell,
    /// Without loss.
    pub clean: Tally,
    /// With [`LOSS`].
    pub lossy: Tally,
}

/// Runs cells for those seeds, on all cores; `done` hears of each row as it comes, in any order.
pub fn run_all(cells: &[Cell], seeds: std::ops::Range<u64>, done: impl Fn(&Row) + Sync) -> Vec<Row> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let rows = std::sync::Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(index) else {
                return;
            };
            let tally = |loss| tally(seeds.clone().map(|seed| (seed, cell.run(seed, loss))));
            let row = Row {
                cell: cell.clone(),
                clean: tally(0.0),
                lossy: tally(LOSS),
            };
            done(&row);
            rows.lock()
                .unwrap_or_else(|broken| broken.into_inner())
                .push((index, row));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(|broken| broken.into_inner());
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

impl Row {
    /// Both halves reach their bound, and nothing happened that must not.
    pub fn holds(&self) -> bool {
        let inexcusable = self.clean.inexcusable + self.lossy.inexcusable;
        inexcusable == 0 && self.clean.reaches(self.cell.bound.clean) && self.lossy.reaches(self.cell.bound.lossy)
    }
}

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent.fract().abs() < 1e-9 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

fn time(time: Option<Duration>) -> String {
    time.map_or("–".to_owned(), |time| {
        let trips = time.as_secs_f64() / ROUND_TRIP.as_secs_f64();
        format!("{trips:.1} ({} ms)", time.as_millis())
    })
}

/// Short for a matrix.
fn word(technique: Technique) -> &'static str {
    match technique {
        Technique::Direct => "direct",
        Technique::Punch => "punch",
        Technique::GuessPort => "guess",
        Technique::Predict => "predict",
        Technique::PredictBoth => "predict both",
        Technique::BirthdayInBlock => "block",
        Technique::Birthday => "birthday",
        Technique::Unreachable | Technique::Blocked => "–",
    }
}

/// Pairs of classes: how, and the share of runs in which players met, without loss and with it.
pub fn matrix(rows: &[Row]) -> String {
    let mut out = String::from("| |");
    for class in Class::ALL {
        let _ = write!(out, " {class:?} |");
    }
    let _ = write!(out, "\n|---|{}\n", "---|".repeat(Class::ALL.len()));
    for one in Class::ALL {
        let _ = write!(out, "| **{one:?}** |");
        for other in Class::ALL {
            let row = rows
                .iter()
                .find(|row| row.cell.is_plain() && row.cell.classes == [one, other]);
            match row {
                Some(row) if !row.cell.is_hopeless() => {
                    let (clean, lossy) = (percent(row.clean.met()), percent(row.lossy.met()));
                    let _ = write!(out, " {}<br>{clean}, {lossy} |", word(row.cell.technique));
                }
                Some(row) => {
                    let _ = write!(out, " {} |", word(row.cell.technique));
                }
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    out
}

fn bound(row: &Row) -> String {
    let bound = &row.cell.bound;
    if row.cell.is_hopeless() {
        return "says why within 12 s".to_owned();
    }
    let mut out = format!("{}, {}", percent(bound.clean), percent(bound.lossy));
    if let Some(limit) = bound.within {
        let _ = write!(out, " within {} s", limit.as_secs_f64());
    }
    if let Some(limit) = bound.clean_within {
        let _ = write!(out, "; {} ms without loss", limit.as_millis());
    }
    if let Some(limit) = bound.probing_within {
        let _ = write!(out, " within {} s of probing", limit.as_secs_f64());
    }
    out
}

/// The rows as a table; times in round trips and milliseconds.
pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "| pair | how | success | median | p99 | with 5 % loss | median | p99 | bound | probes |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (cell, clean, lossy) = (&row.cell, &row.clean, &row.lossy);
        let share = |tally: &Tally| match cell.is_hopeless() {
            true if tally.right == tally.runs => percent(tally.met()),
            true => format!("{}; {} end as they must", percent(tally.met()), percent(tally.share())),
            false => percent(tally.share()),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {}{} | {} |",
            cell.to_string().replace(" x ", " × "),
            cell.technique,
            share(clean),
            time(clean.quantile(0.5)),
            time(clean.quantile(0.99)),
            share(lossy),
            time(lossy.quantile(0.5)),
            time(lossy.quantile(0.99)),
            bound(row),
            if row.holds() { "" } else { " **below**" },
            clean.probes.max(lossy.probes),
        );
    }
    out
}
