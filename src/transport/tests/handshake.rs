//! Connecting, refusing, closing.

use std::time::Duration;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::super::*;
use super::harness::{Wire, World, config};
use crate::codes::Code;

fn ideal() -> Wire {
    Wire::ideal(Duration::from_millis(20))
}

fn info(code: Code, user_code: u32, text: &str) -> CloseInfo {
    CloseInfo {
        code: code.number(),
        user_code,
        text: text.to_owned(),
    }
}

#[test]
fn the_expected_key_connects_and_both_sides_know_each_other() {
    let mut world = World::new(1, ideal());
    let [a, b] = world.connected();
    let connected = |link, address, key, dialled| LinkEvent::Connected {
        link,
        address,
        key,
        dialled,
    };
    assert_eq!(
        world.events[0][0].1,
        connected(a, world.addresses[0], world.key(1), true)
    );
    assert_eq!(
        world.events[1][0].1,
        connected(b, world.addresses[1], world.key(0), false)
    );
    // Client after one round trip, server half of one later.
    assert_eq!(world.events[0][0].0, Duration::from_millis(40));
    assert_eq!(world.events[1][0].0, Duration::from_millis(60));
    let exported = world.ends[0].export_keying_material(a, b"label");
    assert!(exported.is_some());
    assert_eq!(exported, world.ends[1].export_keying_material(b, b"label"));
    assert_ne!(exported, world.ends[1].export_keying_material(b, b"other"));
}

#[test]
fn any_key_is_accepted_and_reported_when_none_is_expected() {
    let mut world = World::new(1, ideal());
    world.dial(LinkKind::Peer, None);
    world.run(Duration::from_secs(1));
    let key = world.key(1);
    assert!(matches!(world.events[0][0].1, LinkEvent::Connected { key: found, .. } if found == key));
}

#[test]
fn a_wrong_key_fails_the_handshake_and_nothing_is_heard_at_the_other_side() {
    let mut world = World::new(1, ideal());
    let expected = world.key(0);
    let link = world.dial(LinkKind::Peer, Some(expected));
    world.ends[0].send_control(link, b"for the right one only").unwrap();
    world.run(Duration::from_secs(1));
    let actual = world.key(1);
    assert_eq!(
        world.closed(0).map(|closed| closed.1),
        Some(CloseReason::WrongKey(actual))
    );
    assert!(world.events[1].is_empty(), "{:?}", world.events[1]);
    assert_eq!(world.ends[1].open_links(), 0);
}

#[test]
fn another_kind_of_link_is_incompatible() {
    for (accepts, kind) in [(LinkKind::Server, LinkKind::Peer), (LinkKind::Peer, LinkKind::Server)] {
        let mut world = World::with(1, ideal(), config(1, None), config(2, Some(accepts)));
        world.dial(kind, None);
        world.run(Duration::from_secs(1));
        let (time, reason) = world.closed(0).unwrap();
        assert_eq!(reason, CloseReason::Incompatible);
        assert!(time <= Duration::from_millis(50), "{time:?}");
        assert!(world.events[1].is_empty());
        assert_eq!(world.ends[1].open_links(), 0);
    }
}

#[test]
fn nobody_there_is_no_answer_within_the_lost_peer_time() {
    let mut world = World::with(1, ideal(), config(1, None), config(2, None));
    world.dial(LinkKind::Peer, None);
    world.run(Duration::from_secs(30));
    assert_eq!(world.closed(0), Some((Duration::from_secs(10), CloseReason::NoAnswer)));
    // Nothing accepts there, so nothing answers either.
    assert!(world.trace.iter().all(|entry| entry.1 == 0));
}

#[test]
fn close_codes_and_texts_arrive_in_both_directions() {
    for closer in 0..2 {
        let mut world = World::new(1, ideal());
        let links = world.connected();
        let sent = info(Code::Kicked, 77, "you know why");
        let before = world.time();
        world.ends[closer].close(world.now, links[closer], sent.clone());
        world.run(Duration::from_secs(1));
        assert_eq!(world.closed(closer), Some((before, CloseReason::Local)));
        assert_eq!(
            world.closed(1 - closer),
            Some((before + Duration::from_millis(20), CloseReason::Remote(sent)))
        );
        world.run(Duration::from_secs(5));
        for side in 0..2 {
            assert_eq!(world.ends[side].open_links(), 0);
            world.ends[side].forget(links[side]);
            world.ends[side].poll_timeout();
            assert!(world.ends[side].stats(links[side]).is_none());
            assert!(world.ends[side].links.iter().all(Option::is_none));
            assert_eq!(world.ends[side].timers.len(), 0);
        }
    }
}

#[test]
fn control_messages_queued_before_the_handshake_arrive_in_order() {
    let mut world = World::new(
        3,
        Wire {
            loss: 0.1,
            jitter: Duration::from_millis(5),
            ..ideal()
        },
    );
    let link = world.dial(LinkKind::Peer, None);
    let mut expected = Vec::new();
    for size in [0, 1, 100, 5000, crate::wire::MAX_CONTROL_MESSAGE] {
        let message = vec![size as u8; size];
        world.ends[0].send_control(link, &message).unwrap();
        expected.push(message);
    }
    let too_large = vec![0; crate::wire::MAX_CONTROL_MESSAGE + 1];
    assert_eq!(world.ends[0].send_control(link, &too_large), Err(SendError::TooLarge));
    world.run(Duration::from_secs(5));
    let b = world.link_of(1).unwrap();
    let mut found = Vec::new();
    while let Some(message) = world.ends[1].next_control(b) {
        found.push(message.to_vec());
    }
    assert!(found == expected);
}

#[test]
fn connecting_survives_loss() {
    for seed in 0..30 {
        let mut world = World::new(seed, Wire { loss: 0.2, ..ideal() });
        world.connected();
    }
}

#[test]
fn a_dead_peer_is_noticed_in_time_with_and_without_traffic() {
    for traffic in [false, true] {
        let mut world = World::new(1, ideal());
        let [a, b] = world.connected();
        world.run(Duration::from_secs(7));
        let died = world.time();
        world.cut = true;
        for _ in 0..1500 {
            if traffic {
                let _ = world.ends[0].send(a, 0, SendMode::Reliable, b"hello?");
                let _ = world.ends[1].send(b, 0, SendMode::Unreliable, b"hello?");
            }
            world.run(Duration::from_millis(10));
        }
        for side in 0..2 {
            let (time, reason) = world.closed(side).unwrap();
            assert_eq!(reason, CloseReason::TimedOut);
            assert!(time - died <= Duration::from_millis(10_050), "{:?}", time - died);
        }
    }
}

#[test]
fn the_smaller_lost_peer_time_counts_at_both_sides() {
    let mut impatient = config(2, Some(LinkKind::Peer));
    impatient.lost_peer_timeout = Duration::from_secs(2);
    impatient.keep_alive = Duration::from_millis(500);
    let mut world = World::with(1, ideal(), config(1, None), impatient);
    let [a, _] = world.connected();
    world.run(Duration::from_secs(20));
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
    let died = world.time();
    world.cut = true;
    for _ in 0..500 {
        let _ = world.ends[0].send(a, 0, SendMode::Reliable, b"hello?");
        world.run(Duration::from_millis(10));
    }
    for side in 0..2 {
        let (time, reason) = world.closed(side).unwrap();
        assert_eq!(reason, CloseReason::TimedOut);
        assert!(time - died <= Duration::from_millis(2050), "{:?}", time - died);
    }
}

#[test]
fn idle_links_live_on() {
    let mut world = World::new(1, ideal());
    world.connected();
    world.run(Duration::from_secs(120));
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
}

#[test]
fn above_max_links_nothing_is_answered() {
    let mut full = config(2, Some(LinkKind::Peer));
    full.max_links = 1;
    let mut world = World::with(1, ideal(), config(1, None), full);
    world.connected();
    let address = world.addresses[0];
    let sent_before = world.sent[1];
    world.run(Duration::from_millis(200));
    let quiet = world.sent[1];
    world.ends[0].connect(world.now, address, LinkKind::Peer, None, None);
    world.run(Duration::from_millis(500));
    assert!(world.ends[1].counters().refused_full > 0);
    assert_eq!(world.sent[1], quiet, "{sent_before}");
}

#[test]
fn garbage_is_counted_and_never_answered() {
    let mut world = World::new(1, ideal());
    let [a, _] = world.connected();
    world.run(Duration::from_secs(1));
    let mut random = StdRng::seed_from_u64(5);
    let address = world.addresses[1];
    let mut id = [0; 9];
    id[0] = 0x40;
    for round in 0..3000 {
        let mut packet = vec![0; random.random_range(0..1500)];
        random.fill_bytes(&mut packet);
        if let Some(first) = packet.first_mut() {
            // Short headers, long headers of our version, anything.
            match round % 3 {
                0 => *first = 0x40 | (*first & 0x3f),
                1 => *first |= 0xc0,
                _ => {}
            }
        }
        if round % 3 == 1 && packet.len() > 5 {
            packet[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        let before = world.sent[1];
        let may_be_answered = packet.len() >= 1200 && packet[0] & 0x80 != 0;
        world.ends[1].handle_datagram(world.now, address, None, BytesMut::from(&packet[..]));
        world.settle();
        assert!(may_be_answered || world.sent[1] == before);
    }
    let counters = world.ends[1].counters();
    assert!(
        counters.unknown_connection > 500 && counters.malformed > 100,
        "{counters:?}"
    );
    world.ends[0].send(a, 0, SendMode::Reliable, b"still there").unwrap();
    world.run(Duration::from_secs(1));
    let b = world.link_of(1).unwrap();
    assert_eq!(world.messages(1, b, true).len(), 1);
}

#[test]
fn packets_of_a_forgotten_link_are_not_answered_although_their_ids_are_known() {
    let mut world = World::new(1, ideal());
    let links = world.connected();
    world.ends[0].send(links[0], 0, SendMode::Reliable, b"x").unwrap();
    let mut packet = Vec::new();
    world.ends[0].poll_transmit(world.now, &mut packet).unwrap();
    assert!(world.ends[1].knows_connection_id(&packet));
    assert!(!world.ends[0].knows_connection_id(&packet));
    world.ends[1].close(world.now, links[1], info(Code::Closed, 0, ""));
    world.run(Duration::from_secs(10));
    world.ends[1].forget(links[1]);
    let before = (world.sent[1], world.ends[1].counters().unknown_connection);
    // Larger than any reset would be.
    packet.resize(1300, 7);
    let address = world.addresses[1];
    world.ends[1].handle_datagram(world.now, address, None, BytesMut::from(&packet[..]));
    world.settle();
    assert_eq!(
        (world.sent[1], world.ends[1].counters().unknown_connection),
        (before.0, before.1 + 1)
    );
}

#[test]
fn handshakes_that_stay_half_open_are_given_up() {
    let mut world = World::new(1, ideal());
    for _ in 0..20 {
        let address = world.ends[0].new_address();
        world.ends[0].connect(world.now, address, LinkKind::Peer, None, None);
    }
    // B hears the first packets and never again anything.
    world.run(Duration::from_millis(30));
    assert_eq!(world.ends[1].open_links(), 20);
    world.cut = true;
    world.run(Duration::from_secs(25));
    assert_eq!((world.ends[1].open_links(), world.ends[1].incoming_handshakes), (0, 0));
    assert!(world.events[1].is_empty());
    assert!(world.ends[1].links.iter().all(Option::is_none));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let wire = Wire {
            loss: 0.05,
            jitter: Duration::from_millis(3),
            ..Wire::bottleneck()
        };
        let mut world = World::new(seed, wire);
        let [a, b] = world.connected();
        for round in 0..200u32 {
            let _ = world.ends[0].send(a, 1, SendMode::Unreliable, &[0; 90]);
            let _ = world.ends[0].send(a, 2, SendMode::ReliableOrdered, &vec![1; (round * 37 % 5000) as usize]);
            let _ = world.ends[1].send(b, 3, SendMode::Reliable, &vec![1; (round * 11 % 900) as usize]);
            world.run(Duration::from_millis(16));
            world.messages(0, a, true);
            world.messages(1, b, true);
        }
        (world.trace, world.events)
    };
    let (trace, events) = run(9);
    assert!(trace.len() > 500);
    let again = run(9);
    assert!((trace.clone(), events) == again);
    assert!(trace != run(10).0);
}
