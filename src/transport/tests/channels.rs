//! What each mode promises, on links that lose and reorder.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::super::*;
use super::harness::{Wire, World, config};
use crate::codes::{CHANNEL_COUNT, Code, MAX_RELIABLE_MESSAGE, MAX_UNRELIABLE_MESSAGE};

const MODES: [SendMode; 4] = [
    SendMode::Unreliable,
    SendMode::UnreliableSequenced,
    SendMode::Reliable,
    SendMode::ReliableOrdered,
];

fn rough(loss: f64) -> Wire {
    Wire {
        loss,
        jitter: Duration::from_millis(15),
        ..Wire::ideal(Duration::from_millis(20))
    }
}

/// A message that says which it is, with bytes that follow from that.
fn numbered(number: u32, size: usize) -> Vec<u8> {
    let mut data = vec![0; size.max(4)];
    StdRng::seed_from_u64(number.into()).fill_bytes(&mut data);
    data[..4].copy_from_slice(&number.to_be_bytes());
    data
}

fn number_of(data: &[u8]) -> u32 {
    u32::from_be_bytes(data[..4].try_into().unwrap())
}

#[test]
fn each_mode_keeps_its_promise_under_loss_and_reordering() {
    for seed in 0..8 {
        let mut world = World::new(seed, rough(0.1));
        let mut random = StdRng::seed_from_u64(seed);
        let [a, b] = world.connected();
        let mut sent = BTreeMap::new();
        let mut received: BTreeMap<(u8, u8), Vec<u32>> = BTreeMap::new();
        for number in 0..2000 {
            let mode = MODES[random.random_range(0..4)];
            let channel = random.random_range(0..3);
            let size = match random.random_range(0..20) {
                0 => random.random_range(0..30_000),
                1..5 => random.random_range(0..3000),
                _ => random.random_range(0..200),
            };
            let data = numbered(number, size);
            let result = if random.random_bool(0.3) {
                world.ends[0].send_shared(a, channel, mode, Bytes::from(data.clone()))
            } else {
                world.ends[0].send(a, channel, mode, &data)
            };
            if result.is_ok() {
                sent.insert(number, (channel, mode, data));
            }
            if number % 10 == 0 {
                world.run(Duration::from_millis(16));
            }
            take(&mut world, b, &sent, &mut received);
        }
        world.run(Duration::from_secs(20));
        take(&mut world, b, &sent, &mut received);
        for channel in 0..3 {
            for mode in MODES {
                check(seed, channel, mode, &sent, &received[&(channel, mode.number())]);
            }
        }
    }
}

type Sent = BTreeMap<u32, (u8, SendMode, Vec<u8>)>;

fn take(world: &mut World, link: LinkId, sent: &Sent, received: &mut BTreeMap<(u8, u8), Vec<u32>>) {
    for (channel, mode, data) in world.messages(1, link, true) {
        let number = number_of(&data);
        assert!(sent[&number] == (channel, mode, data), "seed {}: {number}", world.seed);
        received.entry((channel, mode.number())).or_default().push(number);
    }
}

fn check(seed: u64, channel: u8, mode: SendMode, sent: &Sent, got: &[u32]) {
    let expected: Vec<u32> = sent
        .iter()
        .filter(|(_, message)| message.0 == channel && message.1 == mode)
        .map(|(number, _)| *number)
        .collect();
    let unique: BTreeSet<u32> = got.iter().copied().collect();
    assert_eq!(unique.len(), got.len(), "seed {seed}: {mode:?} arrived twice");
    match mode {
        SendMode::ReliableOrdered => assert!(got == expected, "seed {seed}: channel {channel}"),
        SendMode::Reliable => assert!(unique.into_iter().eq(expected), "seed {seed}: channel {channel}"),
        SendMode::UnreliableSequenced => {
            assert!(got.is_sorted(), "seed {seed}: channel {channel} went back");
            assert!(
                got.len() * 2 > expected.len() && got.len() < expected.len(),
                "seed {seed}"
            );
        }
        SendMode::Unreliable => assert!(
            got.len() * 10 > expected.len() * 7 && got.len() < expected.len(),
            "seed {seed}: {} of {}",
            got.len(),
            expected.len()
        ),
    }
}

#[test]
fn the_largest_messages_arrive_and_larger_ones_are_refused() {
    let mut world = World::new(1, Wire::ideal(Duration::from_millis(5)));
    let [a, b] = world.connected();
    for mode in MODES {
        let limit = match mode {
            SendMode::Unreliable | SendMode::UnreliableSequenced => MAX_UNRELIABLE_MESSAGE,
            SendMode::Reliable | SendMode::ReliableOrdered => MAX_RELIABLE_MESSAGE,
        };
        for shared in [false, true] {
            let data = numbered(9, limit + 1);
            let mut send = |data: &[u8]| match shared {
                true => world.ends[0].send_shared(a, 63, mode, Bytes::copy_from_slice(data)),
                false => world.ends[0].send(a, 63, mode, data),
            };
            assert_eq!(send(&data), Err(SendError::TooLarge));
            assert_eq!(send(&data[..limit]), Ok(()));
            assert_eq!(send(&[]), Ok(()));
            world.run(Duration::from_secs(1));
            let mut found = world.messages(1, b, true);
            found.sort_by_key(|message| message.2.len());
            assert!(
                found == [(63, mode, Vec::new()), (63, mode, data[..limit].to_vec())],
                "{mode:?} {shared}"
            );
        }
    }
    assert_eq!(
        world.ends[0].send(a, CHANNEL_COUNT, SendMode::Reliable, b"x"),
        Err(SendError::NotConnected)
    );
}

#[test]
fn a_game_that_does_not_read_holds_the_sender_within_bounds() {
    for mode in [SendMode::Reliable, SendMode::ReliableOrdered] {
        let mut world = World::new(1, Wire::ideal(Duration::from_millis(5)));
        let [a, b] = world.connected();
        let mut sent = 0;
        let mut settled = (0, 0);
        for round in 0..500 {
            if round == 100 {
                settled = (sent, world.events[0].len());
            }
            while world.ends[0]
                .send(a, (sent % 5) as u8, mode, &numbered(sent, 1000))
                .is_ok()
            {
                sent += 1;
            }
            // Unreliable ones still come through.
            world.ends[0].send(a, 9, SendMode::Unreliable, b"tick").unwrap();
            world.run(Duration::from_millis(10));
            assert_eq!(world.messages(1, b, false).len(), 1);
        }
        // Own queue, quinn's send window, the receiver's window.
        assert!(sent < 13_000, "{sent}");
        assert!(sent > 5_000, "{sent}");
        assert_eq!((sent, world.events[0].len()), settled);
        let control = b"control goes on";
        world.ends[0].send_control(a, control).unwrap();
        world.run(Duration::from_millis(100));
        assert_eq!(world.ends[1].next_control(b).as_deref(), Some(&control[..]));
        let mut received = BTreeSet::new();
        for _ in 0..200 {
            received.extend(world.messages(1, b, true).iter().map(|message| number_of(&message.2)));
            world.run(Duration::from_millis(10));
        }
        assert!(received.into_iter().eq(0..sent));
        assert!(
            world.events[0][settled.1..]
                .iter()
                .any(|event| event.1 == LinkEvent::Writable { link: a })
        );
    }
}

#[test]
fn all_ordered_channels_work_at_once() {
    let mut world = World::new(7, rough(0.05));
    let [a, b] = world.connected();
    for number in 0..20u32 {
        for channel in 0..CHANNEL_COUNT {
            let size = if channel % 16 == 0 { 20_000 } else { 100 };
            while world.ends[0]
                .send(a, channel, SendMode::ReliableOrdered, &numbered(number, size))
                .is_err()
            {
                world.run(Duration::from_millis(10));
            }
        }
    }
    world.run(Duration::from_secs(20));
    let mut next = [0; CHANNEL_COUNT as usize];
    for (channel, _, data) in world.messages(1, b, true) {
        assert_eq!(number_of(&data), next[channel as usize]);
        next[channel as usize] += 1;
    }
    assert_eq!(next, [20; CHANNEL_COUNT as usize]);
}

#[test]
fn a_lost_batch_does_not_hold_up_the_next() {
    let mut world = World::new(1, Wire::ideal(Duration::from_millis(20)));
    let [a, b] = world.connected();
    world.run(Duration::from_secs(1));
    world.cut = true;
    world.ends[0].send(a, 0, SendMode::Reliable, b"lost").unwrap();
    world.settle();
    world.cut = false;
    world.ends[0].send(a, 0, SendMode::Reliable, b"next").unwrap();
    world.run(Duration::from_millis(21));
    assert_eq!(world.messages(1, b, true), [(0, SendMode::Reliable, b"next".to_vec())]);
    world.run(Duration::from_millis(200));
    assert_eq!(world.messages(1, b, true), [(0, SendMode::Reliable, b"lost".to_vec())]);
}

#[test]
fn messages_that_arrived_before_the_close_can_be_read_after_it() {
    let mut world = World::new(1, Wire::ideal(Duration::from_millis(20)));
    let [a, b] = world.connected();
    for mode in MODES {
        world.ends[0].send(a, 2, mode, &[mode.number(); 3000]).unwrap();
    }
    world.ends[0].send_control(a, b"control").unwrap();
    world.run(Duration::from_millis(50));
    world.ends[0].close(
        world.now,
        a,
        CloseInfo {
            code: Code::Closed.number(),
            user_code: 0,
            text: String::new(),
        },
    );
    assert_eq!(
        world.ends[0].send(a, 0, SendMode::Reliable, b"x"),
        Err(SendError::NotConnected)
    );
    world.run(Duration::from_secs(10));
    assert!(world.closed(1).is_some());
    assert_eq!(world.messages(1, b, true).len(), 4);
    assert_eq!(world.ends[1].next_control(b).as_deref(), Some(&b"control"[..]));
    world.ends[1].forget(b);
    assert!(world.ends[1].next_message(b, true).is_none());
}

#[test]
fn links_to_a_server_carry_control_only() {
    let mut world = World::with(
        1,
        Wire::ideal(Duration::from_millis(5)),
        config(1, None),
        config(2, Some(LinkKind::Server)),
    );
    let a = world.dial(LinkKind::Server, None);
    world.run(Duration::from_millis(100));
    let b = world.link_of(1).unwrap();
    for mode in MODES {
        assert_eq!(world.ends[0].send(a, 0, mode, b"x"), Err(SendError::NotConnected));
    }
    let large = vec![3; crate::wire::MAX_CONTROL_MESSAGE];
    for _ in 0..20 {
        world.ends[1].send_control(b, &large).unwrap();
        world.run(Duration::from_millis(200));
        assert_eq!(world.ends[0].next_control(a).as_deref(), Some(&large[..]));
    }
    assert!(world.ends[0].next_message(a, true).is_none());
}

#[test]
fn unreliable_messages_that_are_not_taken_are_counted_when_dropped() {
    let mut world = World::new(1, Wire::ideal(Duration::from_millis(1)));
    let [a, b] = world.connected();
    let mut sent = 0;
    for _ in 0..100 {
        for _ in 0..50 {
            sent += u64::from(world.ends[0].send(a, 0, SendMode::Unreliable, &[1; 1000]).is_ok());
        }
        world.run(Duration::from_millis(10));
    }
    world.run(Duration::from_millis(100));
    let taken = world.messages(1, b, true).len() as u64;
    let dropped = world.ends[1].take_unreliable_dropped(b);
    assert!(dropped > 1000 && taken > 500, "{taken} {dropped}");
    assert_eq!(taken + dropped, sent);
    assert_eq!(world.ends[1].take_unreliable_dropped(b), 0);
}

#[test]
fn a_path_that_becomes_narrower_again_loses_no_reliable_message() {
    let mut world = World::new(1, Wire::ideal(Duration::from_millis(10)));
    let [a, b] = world.connected();
    world.run(Duration::from_secs(2));
    assert!(world.ends[0].stats(a).unwrap().mtu > 1400);
    for number in 0..300 {
        world.ends[0]
            .send(a, 0, SendMode::Unreliable, &numbered(number, 1300))
            .unwrap();
        world.ends[0]
            .send(a, 1, SendMode::ReliableOrdered, &numbered(number, 1300))
            .unwrap();
        if number == 150 {
            world.ends[0].path_changed(world.now, a);
            assert_eq!(world.ends[0].stats(a).unwrap().mtu, 1200);
        }
        world.run(Duration::from_millis(5));
    }
    world.run(Duration::from_secs(2));
    let ordered = world.messages(1, b, true).into_iter().filter(|message| message.0 == 1);
    assert!(ordered.map(|message| number_of(&message.2)).eq(0..300));
}
