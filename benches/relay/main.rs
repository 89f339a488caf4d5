//! What forwarding costs: `cargo bench --profile dev --features program --bench relay [-- --json FILE]`.
//!
//! 100 flows of 120-byte packets go over our relay (the real `lanline serve`), over coturn, over a bare recvmmsg/sendmmsg loop, and over the kernel's
//! own forwarding (nftables), all from the same load generator in the same run, in turns. What counts is packets that came back for each
//! second of processor time of who forwards.
//!
//! | forwarder | the packet of 120 bytes on its way there, and on | processor time |
//! |---|---|---|
//! | our relay, one thread | 148 and 148: header of 28 | the process |
//! | coturn, one relay thread | ChannelData of 124 from clients, 120 to peers; every other flow the other way round | the process |
//! | bare loop | 120 and 120, to 64 destinations in turn | the process |
//! | kernel | 120 and 120, both addresses translated | softirq time of the machine (`/proc/stat`, which samples), since no process does it |
//!
//! A forwarder's time includes what the system does for it on loopback: receiving, sending, and bringing what it sent into the receiver's
//! socket. It does not include what brings packets into its own socket; that is the generator's, in each case.
//! Interleaved: one packet of each flow in turn. Bursts: eight of a flow in one send (UDP_SEGMENT), as QUIC libraries send them; a forwarder that
//! does not ask for coalesced packets gets them one by one. Generator and forwarder have a processor each.

#[path = "../../tests/relay_kit/mod.rs"]
mod relay_kit;
#[path = "../report/mod.rs"]
mod report;

mod forwarders;
mod generator;
mod turn;

use std::time::Duration;

use forwarders::{FLOWS, KERNEL_PORTS, Kernel};
use generator::{BURST, Ends, Flow, Framing, Generator, Load, PAYLOAD, Received};
use report::{Bound, Report};

/// Each kind of work is done so often; medians are told. An odd number.
const ROUNDS: usize = 5;
/// One measurement, and what goes before it unmeasured.
const MEASURED: Duration = Duration::from_millis(1_000);
const WARM_UP: Duration = Duration::from_millis(150);
/// The run at half the load: long enough for a thousandth of loss to be hundreds of packets.
const HALF_LOAD: Duration = Duration::from_secs(3);
/// Packets of the latency measurement, one at a time.
const PINGS: usize = 5_000;
/// Pairs of the memory measurement.
const PAIRS: u16 = 10_000;

/// One measurement.
#[derive(Clone, Copy)]
struct Figure {
    /// Packets that came back, a second of the forwarder's processor time.
    per_cpu_second: f64,
    /// The same a second of time.
    per_second: f64,
    /// Share of processor time that the forwarder used.
    busy: f64,
}

/// Whose processor time counts.
#[derive(Clone, Copy)]
enum Clock {
    Process(u32),
    Softirq,
}

impl Clock {
    /// Seconds so far.
    fn read(self) -> Result<f64, String> {
        match self {
            Self::Process(id) => {
                let tasks = std::fs::read_dir(format!("/proc/{id}/task")).map_err(|error| format!("{id}: {error}"))?;
                let nanoseconds: u64 = tasks
                    .flatten()
                    .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
                    .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
                    .sum();
                Ok(nanoseconds as f64 / 1e9)
            }
            Self::Softirq => {
                let text = std::fs::read_to_string("/proc/stat").map_err(|error| error.to_string())?;
                let line = text.lines().next().unwrap_or_default();
                let ticks = line
                    .split_whitespace()
                    .nth(7)
                    .and_then(|ticks| ticks.parse::<f64>().ok());
                // USER_HZ is 100 on every Linux that this runs on.
                ticks
                    .map(|ticks| ticks / 100.0)
                    .ok_or("no softirq time in /proc/stat".to_owned())
            }
        }
    }
}

/// The generator has the first processor, forwarders the second, if there are two.
fn pin(id: i32, processor: usize) {
    // SAFETY: a set of processors is an array of bits, and lives through the call.
    unsafe {
        // Not those that this process may use: that is the first one, after the first call.
        if libc::sysconf(libc::_SC_NPROCESSORS_ONLN) < 2 {
            return;
        }
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(id, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn pin_process(id: u32, processor: usize) {
    for task in std::fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) {
            pin(id, processor);
        }
    }
}

fn measure(ends: &Ends, flows: &mut [Flow], clock: Clock, burst: usize) -> Result<Figure, String> {
    let mut generator = Generator::new(ends, flows);
    let load = |time| Load { burst, rate: 0, time };
    let failed = |error| format!("the load failed: {error}");
    generator.settle(false, &mut Received::default());
    generator.run(load(WARM_UP)).map_err(failed)?;
    let before = clock.read()?;
    let outcome = generator.run(load(MEASURED)).map_err(failed)?;
    let used = (clock.read()? - before).max(1e-3);
    if outcome.received.odd > 0 {
        return Err(format!(
            "{} packets came back that were not sent so",
            outcome.received.odd
        ));
    }
    let packets = outcome.received.packets as f64;
    Ok(Figure {
        per_cpu_second: packets / used,
        per_second: packets / outcome.seconds,
        busy: used / outcome.seconds,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A forwarder in this run.
struct Entry {
    name: &'static str,
    means: Means,
    /// Of interleaved flows and of bursts.
    figures: [Vec<Figure>; 2],
}

enum Means {
    Process { id: u32, flows: Vec<Flow> },
    Kernel(Kernel),
}

impl Entry {
    fn measure(&mut self, ends: &Ends, burst: usize) -> Result<(), String> {
        let figure = match &mut self.means {
            Means::Process { id, flows } => measure(ends, flows, Clock::Process(*id), burst)?,
            Means::Kernel(kernel) => {
                let text = kernel.run_inside(&["--inside".to_owned(), burst.to_string()])?;
                let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                let [per_cpu_second, per_second, busy] = numbers[..] else {
                    return Err(format!("not what was expected from inside: {text}"));
                };
                Figure {
                    per_cpu_second,
                    per_second,
                    busy,
                }
            }
        };
        if std::env::var_os("RELAY_BENCH_VERBOSE").is_some() {
            eprintln!(
                "{} burst {burst}: {:.0}/CPU s, {:.0}/s, {:.0} % busy",
                self.name,
                figure.per_cpu_second,
                figure.per_second,
                100.0 * figure.busy
            );
        }
        self.figures[usize::from(burst > 1)].push(figure);
        Ok(())
    }

    fn median(&self, load: usize, value: impl Fn(&Figure) -> f64) -> f64 {
        median(self.figures[load].iter().map(value).collect())
    }

    fn pings(&mut self, ends: &Ends) -> Result<Vec<f64>, String> {
        let times = match &mut self.means {
            Means::Process { flows, .. } => Generator::new(ends, &mut flows[..1]).ping(PINGS),
            Means::Kernel(kernel) => {
                let text = kernel.run_inside(&["--inside".to_owned(), "0".to_owned()])?;
                return Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect());
            }
        };
        let times = times.map_err(|error| format!("{}: {error}", self.name))?;
        Ok(vec![quantile(&times, 0.5), quantile(&times, 0.99)])
    }
}

/// Microseconds.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |time| *time as f64 / 1e3)
}

/// What runs in the namespace of the load: one measurement over the kernel's router, or (0) its latency.
fn inside(burst: usize) -> Result<(), String> {
    pin(0, 0);
    let ends = Ends::new(KERNEL_PORTS).map_err(|error| format!("no sockets: {error}"))?;
    let mut flows = forwarders::kernel_flows();
    if burst == 0 {
        let times = Generator::new(&ends, &mut flows[..1])
            .ping(PINGS)
            .map_err(|error| error.to_string())?;
        println!("{} {}", quantile(&times, 0.5), quantile(&times, 0.99));
        return Ok(());
    }
    let figure = measure(&ends, &mut flows, Clock::Softirq, burst)?;
    println!("{} {} {}", figure.per_cpu_second, figure.per_second, figure.busy);
    Ok(())
}

/// One socket to the other, without anybody between.
fn direct_pings(ends: &Ends) -> Result<[f64; 2], String> {
    let mut flow = [Flow {
        back: false,
        source: forwarders::address(0, 0),
        destination: std::net::SocketAddrV4::new(forwarders::address(1, 0), ends.port(1)),
        framing: Framing::None,
    }];
    let times = Generator::new(ends, &mut flow)
        .ping(PINGS)
        .map_err(|error| error.to_string())?;
    Ok([quantile(&times, 0.5), quantile(&times, 0.99)])
}

fn memory(id: u32) -> Result<f64, String> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes
        .map(|number| number * 1024.0 / 1e6)
        .ok_or(format!("no VmRSS in {path}"))
}

/// What 10,000 pairs take that all have sent.
fn measure_memory(report: &mut Report) -> Result<(), String> {
    let serving = forwarders::start_server("2")?;
    let ends = Ends::new([0, 0]).map_err(|error| format!("no sockets: {error}"))?;
    let before = memory(serving.child.id())?;
    let relay = forwarders::bind_sessions(&serving, &ends, PAIRS)?;
    for number in 0..PAIRS {
        for end in 0..2 {
            let frame = relay_kit::data_frame(&relay_kit::grant(number.into(), end == 0), 1, &[0xa5; PAYLOAD]);
            let sent = ends.send_from(end, forwarders::address(end as u8, number), relay, &frame);
            sent.map_err(|error| format!("cannot send to the relay: {error}"))?;
            ends.receive(1 - end)
                .map_err(|error| format!("the relay did not forward: {error}"))?;
        }
    }
    let after = memory(serving.child.id())?;
    println!("memory of `lanline serve`, {PAIRS} relayed pairs that have sent both ways");
    report.figure("resident before", before, "MB", Bound::None);
    report.figure("added by the pairs", after - before, "MB", Bound::AtMost(20.0));
    Ok(())
}

fn compare(report: &mut Report, ends: &Ends, entries: &mut [Entry]) -> Result<(), String> {
    for round in 0..ROUNDS {
        for burst in [1, BURST] {
            for place in 0..entries.len() {
                // Each is first, second, … in turn.
                let place = (place + round) % entries.len();
                entries[place].measure(ends, burst)?;
            }
        }
    }
    println!(
        "{FLOWS} flows of {PAYLOAD}-byte packets, saturated, medians of {ROUNDS} rounds: packets for each second of the forwarder's processor time"
    );
    for (load, name) in ["interleaved", "bursts of 8"].into_iter().enumerate() {
        let rate = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name);
            entry.map(|entry| entry.median(load, |figure| figure.per_cpu_second))
        };
        for entry in entries.iter() {
            let value = entry.median(load, |figure| figure.per_cpu_second) / 1e3;
            report.figure(&format!("{name}: {}", entry.name), value, "k/CPU s", Bound::None);
            let through = entry.median(load, |figure| figure.per_second) / 1e3;
            let busy = 100.0 * entry.median(load, |figure| figure.busy);
            report.figure(
                &format!("    went through ({busy:.0} % of a processor)"),
                through,
                "k/s",
                Bound::None,
            );
        }
        let ours = rate(RELAY).unwrap_or(0.0);
        let bounds = [
            ("coturn", [1.3, 2.0][load]),
            ("bare loop", [0.8, 0.0][load]),
            ("kernel", 0.0),
        ];
        for (peer, bound) in bounds {
            let Some(theirs) = rate(peer) else { continue };
            let bound = if bound > 0.0 {
                Bound::AtLeast(bound)
            } else {
                Bound::None
            };
            report.figure(&format!("{name}: our relay / {peer}"), ours / theirs, "x", bound);
        }
    }
    Ok(())
}

fn half_load(report: &mut Report, ends: &Ends, entries: &mut [Entry]) -> Result<(), String> {
    for (load, name, burst) in [(0, "interleaved", 1), (1, "bursts of 8", BURST)] {
        let rate = (entries[0].median(load, |figure| figure.per_second) / 2.0) as u64;
        println!("{name}: at {} k/s, half of what went through our relay", rate / 1_000);
        for entry in entries.iter_mut() {
            let Means::Process { flows, .. } = &mut entry.means else {
                continue;
            };
            let mut generator = Generator::new(ends, flows);
            let load = Load {
                burst,
                rate,
                time: HALF_LOAD,
            };
            generator.settle(false, &mut Received::default());
            let mut outcome = generator
                .run(load)
                .map_err(|error| format!("the load failed: {error}"))?;
            let lost = 100.0 * (1.0 - outcome.received.packets as f64 / outcome.sent as f64);
            let bound = if entry.name == RELAY {
                Bound::AtMost(0.1)
            } else {
                Bound::None
            };
            report.figure(&format!("    {}: lost", entry.name), lost, "%", bound);
            outcome.received.times.sort_unstable();
            for (share, quantile_name) in [(0.5, "p50"), (0.99, "p99")] {
                let value = quantile(&outcome.received.times, share);
                report.figure(
                    &format!("    {}: from end to end, {quantile_name}", entry.name),
                    value,
                    "us",
                    Bound::None,
                );
            }
        }
    }
    Ok(())
}

fn latency(report: &mut Report, ends: &Ends, entries: &mut [Entry]) -> Result<(), String> {
    let direct = direct_pings(ends)?;
    println!(
        "one packet at a time, from end to end: above {:.1} us (p50) and {:.1} us (p99) without a forwarder",
        direct[0], direct[1]
    );
    for entry in entries.iter_mut() {
        let times = entry.pings(ends)?;
        for ((time, direct), name) in times.iter().zip(direct).zip(["p50", "p99"]) {
            report.figure(
                &format!("    {} adds, {name}", entry.name),
                time - direct,
                "us",
                Bound::None,
            );
        }
    }
    Ok(())
}

const RELAY: &str = "our relay";

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, burst] = &arguments[..]
        && first == "--inside"
    {
        return inside(burst.parse().unwrap_or(1));
    }
    let mut report = Report::new("relay")?;
    pin(0, 0);
    let ends = Ends::new([0, 0]).map_err(|error| format!("no sockets: {error}"))?;
    let serving = forwarders::start_server("1")?;
    let process = |name, id, flows| {
        pin_process(id, 1);
        Entry {
            name,
            means: Means::Process { id, flows },
            figures: Default::default(),
        }
    };
    let flows = forwarders::relay_flows(&serving, &ends)?;
    let mut entries = vec![process(RELAY, serving.child.id(), flows)];
    let mut running = Vec::new();
    for (name, start) in [
        ("coturn", forwarders::start_coturn as fn(&Ends) -> _),
        ("bare loop", forwarders::start_bare_loop),
    ] {
        match start(&ends) {
            Ok((process_running, id, flows)) => {
                running.push(process_running);
                entries.push(process(name, id, flows));
            }
            Err(error) => println!("left out: {name}: {error} (scripts/setup-tests installs what is missing)"),
        }
    }
    match Kernel::start() {
        Ok(kernel) => entries.push(Entry {
            name: "kernel",
            means: Means::Kernel(kernel),
            figures: Default::default(),
        }),
        Err(error) => println!("left out: kernel: {error} (it needs root, ip and nft)"),
    }
    compare(&mut report, &ends, &mut entries)?;
    half_load(&mut report, &ends, &mut entries)?;
    latency(&mut report, &ends, &mut entries)?;
    drop((entries, running, serving));
    measure_memory(&mut report)
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
