//! What players feel, in the lab's virtual time: `cargo bench --profile dev --features lab --bench lab [-- --json FILE]`.
//!
//! Figures follow from the seeds alone, not from the machine. A missed bound is printed, it is no fault; the exit status tells of
//! faults of the benchmark itself.

mod report;

use std::time::Duration;

use lanline::lab::figures::{self, BesideBulk, OPENING_SLACK};
use lanline::lab::scenario::RouterKind;
use report::{Bound, Report};

/// Round trips to the server and between the players, in ms: equal, and either one the longer.
const ROUND_TRIPS: [[u64; 2]; 3] = [[60, 60], [100, 30], [40, 80]];
/// Seeds of the figures with loss.
const LOSSY_SEEDS: u64 = 500;
/// Loss each way.
const LOSS: f64 = 0.1;
/// Seeds of the figures on the slow link.
const LINK_SEEDS: u64 = 10;
/// Ten seconds of play.
const FRAMES: u32 = 625;
/// The first frame of the second second: by then the bulk transfer has found its rate.
const SETTLED: u32 = 63;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn name(kind: &RouterKind) -> &'static str {
    match kind {
        RouterKind::Open => "open",
        RouterKind::FullCone => "full cone",
        RouterKind::AddressRestricted => "address-restricted",
        RouterKind::PortRestricted => "port-restricted",
        _ => "other",
    }
}

/// A direct path for each pair, without loss.
fn opening(report: &mut Report) -> Result<(), String> {
    let [to_server, between] = ROUND_TRIPS[0];
    let bound = to_server + between + OPENING_SLACK.as_millis() as u64;
    println!("direct path after open NAT, R = D = {to_server} ms, no loss; bound R + D + 20 ms");
    for one in RouterKind::EASY {
        for other in RouterKind::EASY {
            let text = format!("{} to {}", name(&one), name(&other));
            let took = figures::opening_time(1, [one.clone(), other], [ms(to_server), ms(between)], 0.0)
                .map_err(|error| format!("{text}: {error}"))?;
            report.figure(&text, milliseconds(took), "ms", Bound::AtMost(bound as f64));
        }
    }
    for [to_server, between] in ROUND_TRIPS {
        let mut worst = Duration::ZERO;
        for one in RouterKind::EASY {
            for other in RouterKind::EASY {
                let took = figures::opening_time(1, [one.clone(), other], [ms(to_server), ms(between)], 0.0)?;
                worst = worst.max(took);
            }
        }
        let bound = ms(to_server + between) + OPENING_SLACK;
        let text = format!("longest of the 16 pairs, R = {to_server}, D = {between} ms");
        report.figure(&text, milliseconds(worst), "ms", Bound::AtMost(milliseconds(bound)));
    }
    Ok(())
}

/// The same where a tenth is lost.
fn opening_with_loss(report: &mut Report) {
    println!("\ndirect path after open NAT, R = D = 60 ms, 10 % lost each way, {LOSSY_SEEDS} seeds");
    let mut times = Vec::new();
    for seed in 0..LOSSY_SEEDS {
        let kinds = [seed as usize % 4, seed as usize / 4 % 4].map(|kind| RouterKind::EASY[kind].clone());
        match figures::opening_time(seed, kinds, [ms(60), ms(60)], LOSS) {
            Ok(took) => {
                if took > ms(1_000) {
                    println!("seed {seed}: {:.0} ms", milliseconds(took));
                }
                times.push(took);
            }
            Err(error) => println!("seed {seed}: {error}"),
        }
    }
    times.sort_unstable();
    let within = times.partition_point(|time| *time <= ms(1_000));
    let share = 100.0 * within as f64 / LOSSY_SEEDS as f64;
    report.figure("share within 1 s", share, "%", Bound::AtLeast(99.0));
    for (text, quantile) in [("median", 0.5), ("99th percentile", 0.99)] {
        let index = ((times.len().max(1) - 1) as f64 * quantile) as usize;
        let time = times.get(index).copied().unwrap_or_default();
        report.figure(text, milliseconds(time), "ms", Bound::None);
    }
}

/// Connecting, counted in round trips: to the server, or between the players.
fn connecting(report: &mut Report) {
    let round_trip = ms(60);
    println!("\nconnect time in round trips (R = D = 60 ms, port-restricted routers)");
    let times = figures::connect_times(1, round_trip, round_trip);
    let trips = |duration: Duration| duration.as_secs_f64() / round_trip.as_secs_f64();
    let server = "to the server";
    report.figure(server, trips(times.server), "R", Bound::None);
    let peer = "to a player over an opened path";
    report.figure(peer, trips(times.peer_opened), "D", Bound::None);
    let first = "to a player without a path, until the first message is there";
    report.figure(first, trips(times.to_first_message), "R or D", Bound::None);
}

/// The link of 20 Mbit/s, 25 ms, 256 kB.
fn slow_link(report: &mut Report) -> Result<(), String> {
    println!(
        "\n50 bytes every 16 ms beside a bulk transfer, 20 Mbit/s, 25 ms, queue of 256 kB, {LINK_SEEDS} seeds of 10 s"
    );
    let results: Vec<BesideBulk> = (0..LINK_SEEDS).map(|seed| figures::beside_bulk(seed, FRAMES)).collect();
    let worst = |quantile, from| {
        let delays = results.iter().map(|result| result.quantile(quantile, from));
        let worst = delays.map(|delay| delay.ok_or("not a single small message arrived beside the bulk"));
        worst
            .collect::<Result<Vec<_>, _>>()
            .map(|delays| milliseconds(delays.into_iter().max().unwrap_or_default()))
    };
    let arrived: usize = results.iter().map(BesideBulk::arrived).sum();
    let sent: u32 = results.iter().map(|result| result.sent).sum();
    let bulk = results.iter().map(|result| result.bulk).fold(f64::INFINITY, f64::min);
    report.figure("one way, p50, worst seed", worst(0.5, 0)?, "ms", Bound::None);
    report.figure("one way, p99, worst seed", worst(0.99, 0)?, "ms", Bound::AtMost(45.0));
    let settled = worst(0.99, SETTLED)?;
    report.figure(
        "the same without the first second of bulk",
        settled,
        "ms",
        Bound::AtMost(45.0),
    );
    report.figure("bulk, worst seed", bulk, "Mbit/s", Bound::AtLeast(17.0));
    let lost = 100.0 * (1.0 - arrived as f64 / f64::from(sent));
    report.figure("small messages not there at the end", lost, "%", Bound::None);
    println!("\nburst of 64 kB on that link with 2 ms of reordering jitter, {LINK_SEEDS} seeds");
    let burst = (0..LINK_SEEDS).map(|seed| figures::jittered_burst(seed, ms(2))).max();
    let burst = milliseconds(burst.unwrap_or_default());
    report.figure("delivered after, worst seed", burst, "ms", Bound::AtMost(150.0));
    Ok(())
}

fn run() -> Result<(), String> {
    let mut report = Report::new("lab")?;
    opening(&mut report)?;
    opening_with_loss(&mut report);
    connecting(&mut report);
    slow_link(&mut report)
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
