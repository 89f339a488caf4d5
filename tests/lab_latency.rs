//! What a game feels on a link of 25 ms and 20 Mbit/s with a queue of 256 kB, in the lab: small messages beside a bulk
//! transfer, and a burst on a link whose jitter reorders.

use std::time::Duration;

use lanline::codes::SendMode;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{OwnedEvent, RecordedEvent, with_seeds};
use lanline::transport::SendError;

const RATE: u64 = 20_000_000;
const QUEUE: usize = 256_000;
const ONE_WAY: Duration = Duration::from_millis(25);

/// Two connected players with public addresses; the link of the first one upwards is the bottleneck.
fn bottleneck(seed: u64) -> Scenario {
    let mut scenario = Scenario::builder(seed)
        .nodes(2, RouterKind::Open)
        .round_trips(2 * ONE_WAY, 2 * ONE_WAY)
        .build();
    let sender = scenario.lab.attachment(scenario.nodes[0], 0);
    scenario.lab.change_link(sender, |link| {
        link.up.rate = Some(RATE);
        link.up.queue = QUEUE;
    });
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.lab.run_for(Duration::from_secs(2));
    scenario
}

/// The message's channel, time and bytes.
fn message(recorded: &RecordedEvent) -> Option<(u8, Duration, &[u8])> {
    match &recorded.event {
        OwnedEvent::Message { channel, data, .. } => Some((*channel, recorded.time, data)),
        _ => None,
    }
}

#[test]
fn small_messages_pass_a_bulk_transfer() {
    const BULK: u8 = 1;
    const SMALL: u8 = 2;
    const FRAMES: u32 = 625;
    /// A frame of the link is 40 kB; so a queue without a bound grows to 160 MB, and no further.
    const MOST_A_FRAME: usize = 4;
    const FRAME: Duration = Duration::from_millis(16);
    with_seeds(0..10, |seed| {
        let mut scenario = bottleneck(seed);
        let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
        let begin = scenario.lab.elapsed();
        let bulk = vec![0; 64 << 10];
        for frame in 0..FRAMES {
            let mut small = [0; 50];
            small[..4].copy_from_slice(&frame.to_be_bytes());
            scenario
                .lab
                .send(sender, peer, SMALL, SendMode::Unreliable, &small)
                .unwrap();
            // The queue is kept full; how much it takes is its own business, within reason.
            for _ in 0..MOST_A_FRAME {
                match scenario.lab.send(sender, peer, BULK, SendMode::Reliable, &bulk) {
                    Ok(()) => {}
                    Err(SendError::Full) => break,
                    Err(other) => panic!("{other:?}"),
                }
            }
            scenario.lab.run_for(FRAME);
        }
        let seconds = (FRAMES * FRAME).as_secs_f64();
        let events = scenario.lab.take_events(scenario.nodes[1]);
        let messages: Vec<_> = events.iter().filter_map(message).collect();
        let bulk_bytes: usize = messages
            .iter()
            .filter(|message| message.0 == BULK)
            .map(|message| message.2.len())
            .sum();
        let rate = bulk_bytes as f64 * 8.0 / seconds / 1e6;
        let small = messages.iter().filter(|message| message.0 == SMALL);
        let mut delays: Vec<Duration> = small
            .map(|(_, time, data)| {
                let frame = u32::from_be_bytes(data[..4].try_into().unwrap());
                *time - (begin + frame * FRAME)
            })
            .collect();
        delays.sort_unstable();
        assert!(
            delays.len() as u32 > FRAMES * 97 / 100,
            "{} of {FRAMES} arrived",
            delays.len()
        );
        let (p50, p99) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
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
        let mut scenario = bottleneck(seed);
        let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
        for player in 0..2 {
            let attachment = scenario.lab.attachment(scenario.nodes[player], 0);
            scenario.lab.change_link(attachment, |link| {
                *link = link.with(|direction| {
                    direction.jitter = Duration::from_millis(1);
                    direction.keeps_order = false;
                });
            });
        }
        let begin = scenario.lab.elapsed();
        let burst = vec![0; 64 << 10];
        scenario
            .lab
            .send(sender, peer, 0, SendMode::ReliableOrdered, &burst)
            .unwrap();
        let arrived = scenario.expect(1, "the burst", |event| matches!(event, OwnedEvent::Message { .. }));
        let took = arrived.time - begin;
        println!("seed {seed}: {took:?}");
        assert!(took <= Duration::from_millis(150), "{took:?}");
    });
}
