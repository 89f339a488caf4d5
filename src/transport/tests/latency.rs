//! Delay beside bulk, bursts, loss: what the tuning is for.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::harness::{Wire, World};

/// A megabit as bytes.
const MEGABIT: f64 = 1e6 / 8.0;

struct BesideBulk {
    /// One-way delays of small messages, sorted.
    delays: Vec<Duration>,
    sent: usize,
    /// Megabits a second of bulk delivered.
    bulk: f64,
}

impl BesideBulk {
    fn quantile(&self, quantile: f64) -> Duration {
        self.delays[((self.delays.len() - 1) as f64 * quantile) as usize]
    }
}

/// Bulk in one direction, 50 bytes each 16 ms in the same direction. The first `skip` are not measured.
fn beside_bulk(world: &mut World, mode: SendMode, small: SendMode, skip: Duration, measured: Duration) -> BesideBulk {
    let [a, b] = world.connected();
    let chunk = Bytes::from(vec![7; 32 << 10]);
    let begin = world.now;
    let mut next = begin;
    let mut result = BesideBulk {
        delays: Vec::new(),
        sent: 0,
        bulk: 0.0,
    };
    while world.now < begin + skip + measured {
        while world.ends[0].send_shared(a, 0, mode, chunk.clone()).is_ok() {}
        if world.now >= next {
            let mut message = [0; 50];
            message[..8].copy_from_slice(&(world.time().as_nanos() as u64).to_be_bytes());
            let _ = world.ends[0].send(a, 1, small, &message);
            next += Duration::from_millis(16);
            result.sent += usize::from(world.now >= begin + skip);
        }
        world.step(next);
        let (now, counted) = (world.time(), world.now >= begin + skip);
        while let Some(message) = world.ends[1].next_message(b, true) {
            if message.channel == 0 {
                result.bulk += if counted { message.data.len() as f64 } else { 0.0 };
            } else if counted {
                let sent = u64::from_be_bytes(message.data[..8].try_into().unwrap());
                result.delays.push(now - Duration::from_nanos(sent));
            }
        }
    }
    result.delays.sort();
    result.bulk /= measured.as_secs_f64() * MEGABIT;
    result
}

fn report(name: &str, world: &World, result: &BesideBulk) {
    println!(
        "{name}: seed {} p50 {:?} p99 {:?} max {:?}, {:.1} Mbit/s, {} of {} arrived, dropped {:?} of {:?}",
        world.seed,
        result.quantile(0.5),
        result.quantile(0.99),
        result.quantile(1.0),
        result.bulk,
        result.delays.len(),
        result.sent,
        world.dropped,
        world.sent,
    );
}

#[test]
fn small_messages_beside_bulk_stay_below_45_ms_and_bulk_above_17_mbit() {
    for (mode, small) in [
        (SendMode::Reliable, SendMode::Unreliable),
        (SendMode::ReliableOrdered, SendMode::Unreliable),
        (SendMode::Reliable, SendMode::ReliableOrdered),
        (SendMode::ReliableOrdered, SendMode::Reliable),
    ] {
        let mut world = World::new(1, Wire::bottleneck());
        let result = beside_bulk(&mut world, mode, small, Duration::ZERO, Duration::from_secs(30));
        report("beside bulk", &world, &result);
        assert!(
            result.quantile(0.99) <= Duration::from_millis(45),
            "{:?}",
            result.quantile(0.99)
        );
        assert!(result.bulk >= 17.0, "{}", result.bulk);
        assert!(result.delays.len() as f64 >= 0.99 * result.sent as f64);
    }
}

/// Time until a reliable message of that size is delivered, on an idle link.
fn burst(world: &mut World, size: usize) -> Duration {
    let [a, b] = world.connected();
    world.run(Duration::from_secs(2));
    let begin = world.now;
    let mut rest = size;
    while rest > 0 {
        let part = rest.min(8192);
        world.ends[0].send(a, 0, SendMode::Reliable, &vec![1; part]).unwrap();
        rest -= part;
    }
    let mut received = 0;
    while received < size {
        assert!(
            world.step(begin + Duration::from_secs(10)),
            "seed {}: {received}",
            world.seed
        );
        while let Some(message) = world.ends[1].next_message(b, true) {
            received += message.data.len();
        }
    }
    world.now - begin
}

#[test]
fn bursts_on_a_link_that_reorders_are_not_taken_for_loss() {
    for wire in [Wire::ideal(Duration::from_millis(25)), Wire::bottleneck()] {
        for (size, limit) in [(64 << 10, 150), (1 << 20, 600)] {
            for seed in 0..10 {
                let jitter = Duration::from_millis(2);
                let mut world = World::new(seed, Wire { jitter, ..wire });
                let taken = burst(&mut world, size);
                let a = world.link_of(0).unwrap();
                let stats = world.ends[0].stats(a).unwrap();
                println!(
                    "burst of {size} at rate {}: {taken:?}, lost {} window {}",
                    wire.rate, stats.packets_lost, stats.congestion_window
                );
                assert!(taken <= Duration::from_millis(limit), "seed {seed}: {taken:?}");
                // A queue that builds up fast looks like a few late packets.
                assert!(stats.packets_lost <= 16, "seed {seed}: {stats:?}");
            }
        }
    }
}

#[test]
fn random_loss_does_not_collapse_the_rate() {
    for (loss, least) in [(0.01, 15.0), (0.02, 13.0), (0.05, 8.0)] {
        let mut world = World::new(
            4,
            Wire {
                loss,
                ..Wire::bottleneck()
            },
        );
        let result = beside_bulk(
            &mut world,
            SendMode::Reliable,
            SendMode::Unreliable,
            Duration::from_secs(1),
            Duration::from_secs(15),
        );
        report(&format!("loss {loss}"), &world, &result);
        assert!(result.bulk >= least, "{}", result.bulk);
        assert!(
            result.quantile(0.99) <= Duration::from_millis(50),
            "{:?}",
            result.quantile(0.99)
        );
    }
}

#[test]
fn paths_of_every_speed_are_filled_without_a_long_queue() {
    for (rate, delay, queue, least, worst) in [
        (1_000_000, 30, 64 << 10, 0.75, 150),
        (5_000_000, 10, 128 << 10, 4.0, 45),
        (100_000_000, 5, 256 << 10, 80.0, 30),
        (100_000_000, 50, 1 << 20, 75.0, 75),
        (1_000_000_000, 1, 256 << 10, 500.0, 15),
        // Shallow: four milliseconds of queue.
        (50_000_000, 20, 24 << 10, 25.0, 40),
    ] {
        let wire = Wire {
            rate,
            queue,
            ..Wire::ideal(Duration::from_millis(delay))
        };
        let mut world = World::new(4, wire);
        let measured = if rate >= 1_000_000_000 { 2 } else { 8 };
        let result = beside_bulk(
            &mut world,
            SendMode::Reliable,
            SendMode::Unreliable,
            Duration::from_secs(2),
            Duration::from_secs(measured),
        );
        report(&format!("{rate} bit/s, {delay} ms"), &world, &result);
        assert!(result.bulk >= least, "{rate}: {}", result.bulk);
        assert!(
            result.quantile(0.99) <= Duration::from_millis(worst),
            "{rate}: {:?}",
            result.quantile(0.99)
        );
    }
}

#[test]
fn jitter_does_not_starve_a_flow() {
    for (jitter, least) in [(2, 17.0), (5, 17.0), (10, 8.0)] {
        let mut world = World::new(
            4,
            Wire {
                jitter: Duration::from_millis(jitter),
                ..Wire::bottleneck()
            },
        );
        let result = beside_bulk(
            &mut world,
            SendMode::Reliable,
            SendMode::Unreliable,
            Duration::from_secs(1),
            Duration::from_secs(10),
        );
        report(&format!("jitter {jitter}"), &world, &result);
        assert!(result.bulk >= least, "{}", result.bulk);
        assert!(
            result.quantile(0.99) <= Duration::from_millis(45 + jitter),
            "{:?}",
            result.quantile(0.99)
        );
    }
}

#[test]
fn a_longer_path_does_not_starve_a_flow() {
    let mut world = World::new(4, Wire::bottleneck());
    let first = beside_bulk(
        &mut world,
        SendMode::Reliable,
        SendMode::Unreliable,
        Duration::from_secs(1),
        Duration::from_secs(2),
    );
    assert!(first.bulk >= 15.0);
    for wire in &mut world.wires {
        wire.delay += Duration::from_millis(30);
    }
    let [a, b] = [world.link_of(0).unwrap(), world.link_of(1).unwrap()];
    let chunk = Bytes::from(vec![7; 32 << 10]);
    let begin = world.now;
    let mut delivered = 0;
    while world.now < begin + Duration::from_secs(10) {
        while world.ends[0]
            .send_shared(a, 0, SendMode::Reliable, chunk.clone())
            .is_ok()
        {}
        world.step(begin + Duration::from_secs(10));
        while let Some(message) = world.ends[1].next_message(b, true) {
            delivered += message.data.len();
        }
    }
    let rate = delivered as f64 / 10.0 / MEGABIT;
    println!("after the path became longer: {rate:.1} Mbit/s");
    assert!(rate >= 14.0, "{rate}");
}
