//! The forwarder by itself: two nodes, and those who try to abuse it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::ticket::{Grant, SideKey, TICKET_LENGTH, TicketKey};
use super::{
    Dropped, MAX_WAITING, MAX_WAITING_BYTES, Passage, Relay, RelayCounters, RelayLimits, RelayShared, Verdict, Way,
};
use crate::engine::SocketName::{self, Udp4};
use crate::transport::identity::Guid;
use crate::wire::relay::{Bind, Bound, DATA_AUTHENTICATED, DataHeader, GONE_LENGTH, Gone, Refusal};

const CLOCK: u64 = 1_000_000;
const SESSION: u64 = 77;

fn way(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn sealer() -> TicketKey {
    TicketKey::new(&[9; 32])
}

fn grant(from_asker: bool) -> Grant {
    Grant {
        session: SESSION,
        from_asker,
        key_number: 1,
        expires: CLOCK + 60_000,
        owner: Guid(if from_asker { 1 } else { 2 }),
        idle_ms: 30_000,
        bytes_per_second: 0,
        frames_per_second: 0,
        key: SideKey::new([if from_asker { 0x11 } else { 0x22 }; 32]),
    }
}

struct World {
    now: Instant,
    relay: Relay,
    sealer: TicketKey,
    nonce: u8,
}

impl World {
    fn with(limits: RelayLimits) -> Self {
        let [world] = Self::shards(limits);
        world
    }

    /// Several that are shards of one relay.
    fn shards<const COUNT: usize>(limits: RelayLimits) -> [Self; COUNT] {
        let now = Instant::now();
        let shared = Arc::new(RelayShared::new(now, limits));
        shared.set_ticket_key(now, sealer(), CLOCK);
        [(); COUNT].map(|()| Self {
            now,
            relay: Relay::shard(shared.clone()),
            sealer: sealer(),
            nonce: 0,
        })
    }

    fn new() -> Self {
        Self::with(RelayLimits::default())
    }

    /// Both sides bound: the asker at port 1, the other at port 2.
    fn bound() -> Self {
        let mut world = Self::new();
        assert_eq!(world.bind(&grant(true), 1), None);
        assert_eq!(world.bind(&grant(false), 2), None);
        world
    }

    fn bind_frame(&mut self, grant: &Grant) -> Vec<u8> {
        self.nonce += 1;
        let ticket = self.sealer.seal([self.nonce; 12], grant);
        let mut bind = Bind {
            key_number: grant.key_number,
            session: grant.session,
            transaction: 5,
            ticket: &ticket,
            tag: [0; 16],
        };
        let mut frame = Vec::new();
        bind.encode(&mut frame);
        bind.tag = grant.key.bind_tag(&frame[..bind.authenticated_length()]);
        frame.clear();
        bind.encode(&mut frame);
        frame
    }

    /// Shows a ticket; returns the refusal in the answer.
    fn bind(&mut self, grant: &Grant, port: u16) -> Option<Refusal> {
        let mut frame = self.bind_frame(grant);
        assert_eq!(
            self.relay.handle(self.now, Udp4, way(port), &mut frame),
            Verdict::Answer
        );
        let answer = self.relay.answer();
        assert!(answer.len() <= frame.len());
        let bound = Bound::decode(answer).unwrap();
        assert!(grant.key.verify_bound(&answer[..answer.len() - 16], &bound.tag));
        assert_eq!((bound.observed, bound.transaction), (way(port), 5));
        bound.refusal
    }

    fn data(&mut self, from: &Grant, port: u16, counter: u64, payload: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frame = data_frame(from, counter, payload);
        let verdict = self.relay.handle(self.now, Udp4, way(port), &mut frame);
        (verdict, frame)
    }

    fn passes(&mut self, from: &Grant, port: u16, counter: u64) -> bool {
        matches!(self.data(from, port, counter, b"payload").0, Verdict::Forward { .. })
    }
}

fn data_frame(from: &Grant, counter: u64, payload: &[u8]) -> Vec<u8> {
    let header = DataHeader {
        segment_size: 0,
        from_asker: from.from_asker,
        key_number: from.key_number,
        counter,
        session: from.session,
        tag: [0; 8],
    };
    let mut frame = Vec::new();
    header.encode(&mut frame);
    let tag = from.key.data_tag(frame.first_chunk().unwrap());
    frame[DATA_AUTHENTICATED..].copy_from_slice(&tag);
    frame.extend_from_slice(payload);
    frame
}

fn forward(port: u16) -> Verdict {
    Verdict::Forward {
        socket: Udp4,
        destination: way(port),
    }
}

#[test]
fn frames_go_to_the_other_side_with_its_own_tag() {
    let mut world = World::bound();
    let (verdict, frame) = world.data(&grant(true), 1, 1, b"hello");
    assert_eq!(verdict, forward(2));
    let (header, payload) = DataHeader::decode(&frame).unwrap();
    assert_eq!((payload, header.counter, header.from_asker), (&b"hello"[..], 1, true));
    assert_eq!(header.tag, grant(false).key.data_tag(frame.first_chunk().unwrap()));
    assert_eq!(world.data(&grant(false), 2, 1, b"back").0, forward(1));
    assert_eq!(world.relay.counters().forwarded_bytes, 9);
}

#[test]
fn what_is_not_the_senders_own_is_dropped() {
    let mut world = World::bound();
    let mut stranger = grant(true);
    stranger.key = SideKey::new([0x33; 32]);
    assert_eq!(world.data(&stranger, 1, 1, b"x").0, Verdict::Dropped(Dropped::Forged));
    let mut other_key = grant(true);
    other_key.key_number = 2;
    assert_eq!(world.data(&other_key, 1, 1, b"x").0, Verdict::Dropped(Dropped::Forged));
    // The one side cannot speak as the other.
    let mut as_other = grant(true);
    as_other.from_asker = false;
    assert_eq!(world.data(&as_other, 1, 1, b"x").0, Verdict::Dropped(Dropped::Forged));
    assert_eq!(world.relay.counters().forged, 3);
    assert_eq!(world.relay.counters().forwarded, 0);
}

#[test]
fn a_frame_passes_once() {
    let mut world = World::bound();
    for counter in [5, 3, 4, 900] {
        assert!(world.passes(&grant(true), 1, counter), "{counter}");
    }
    for counter in [5, 3, 4, 900] {
        let verdict = world.data(&grant(true), 1, counter, b"payload").0;
        assert_eq!(verdict, Verdict::Dropped(Dropped::Replayed), "{counter}");
    }
}

#[test]
fn a_sender_is_followed_only_upon_a_new_counter() {
    let mut world = World::bound();
    assert!(world.passes(&grant(true), 1, 10));
    let old_from_elsewhere = world.data(&grant(true), 9, 9, b"x").0;
    assert_eq!(old_from_elsewhere, Verdict::Dropped(Dropped::WrongSource));
    assert!(world.passes(&grant(true), 3, 11), "it moved");
    assert_eq!(world.data(&grant(false), 2, 1, b"x").0, forward(3));
    // Its bind frame, recorded and sent again from elsewhere, moves nothing.
    assert_eq!(world.bind(&grant(true), 9), None);
    assert_eq!(world.data(&grant(false), 2, 2, b"x").0, forward(3));
}

#[test]
fn foreign_and_forged_tickets_are_not_answered() {
    let mut world = World::new();
    let good = world.bind_frame(&grant(true));
    // Byte 0 says which frame it is.
    for place in 1..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        if bad == good || place >= 22 + TICKET_LENGTH + 16 {
            continue;
        }
        let verdict = world.relay.handle(world.now, Udp4, way(1), &mut bad);
        // The flags byte says nothing yet, but it is covered by the tag.
        assert!(matches!(verdict, Verdict::Dropped(_)), "byte {place}: {verdict:?}");
    }
    let foreign = TicketKey::new(&[8; 32]).seal([1; 12], &grant(true));
    assert_eq!(sealer().open(&foreign), None);
    assert_eq!(world.relay.counters().sessions, 0);
}

#[test]
fn an_expired_ticket_is_refused_and_ends_its_session() {
    let mut world = World::new();
    let late = Grant {
        expires: CLOCK,
        ..grant(true)
    };
    assert_eq!(world.bind(&late, 1), Some(Refusal::Expired));
    let mut world = World::bound();
    world.now += Duration::from_secs(61);
    assert_eq!(
        world.data(&grant(true), 1, 1, b"x").0,
        Verdict::Dropped(Dropped::Expired)
    );
    assert_eq!(
        (world.relay.counters().expired, world.relay.counters().over_budget),
        (1, 0)
    );
    world.relay.handle_timeout(world.now);
    assert_eq!(world.relay.counters().sessions, 0);
}

#[test]
fn a_new_ticket_goes_on_where_the_old_one_ends() {
    let mut world = World::bound();
    assert!(world.passes(&grant(true), 1, 50));
    let renewed = Grant {
        key_number: 2,
        expires: CLOCK + 120_000,
        key: SideKey::new([0x44; 32]),
        ..grant(true)
    };
    assert_eq!(world.bind(&renewed, 1), None);
    assert!(world.passes(&grant(true), 1, 51), "under way when the ticket was shown");
    assert!(world.passes(&renewed, 1, 0), "counters begin anew under a new key");
    // The old one, shown again, brings nothing back.
    assert_eq!(world.bind(&grant(true), 9), None);
    assert_eq!(world.data(&grant(false), 2, 1, b"x").0, forward(1));
    world.now += Duration::from_secs(61);
    assert!(world.passes(&renewed, 1, 1));
}

#[test]
fn silence_ends_a_session_and_frames_keep_it() {
    let mut world = World::bound();
    for counter in 1..5 {
        world.now += Duration::from_secs(10);
        assert!(world.passes(&grant(true), 1, counter));
        world.relay.handle_timeout(world.now);
    }
    assert_eq!(world.relay.counters().sessions, 1);
    world.now += Duration::from_secs(31);
    world.relay.handle_timeout(world.now);
    assert_eq!(world.relay.counters().sessions, 0);
    assert_eq!(world.relay.poll_timeout(), None);
}

#[test]
fn a_full_relay_refuses_newcomers_and_keeps_the_others() {
    let mut world = World::with(RelayLimits {
        max_sessions: 1,
        ..RelayLimits::default()
    });
    assert_eq!(world.bind(&grant(true), 1), None);
    let another = Grant {
        session: 78,
        ..grant(true)
    };
    assert_eq!(world.bind(&another, 3), Some(Refusal::Full));
    assert_eq!(world.bind(&grant(false), 2), None);
    assert!(world.passes(&grant(true), 1, 1));
}

#[test]
fn a_sender_over_its_budget_is_held_to_it() {
    let limited = |grant: Grant| Grant {
        bytes_per_second: 1_000,
        frames_per_second: 100,
        ..grant
    };
    let mut world = World::new();
    world.bind(&limited(grant(true)), 1);
    world.bind(&grant(false), 2);
    let passed = (1..100).filter(|counter| {
        let (verdict, _) = world.data(&grant(true), 1, *counter, &[0; 100]);
        matches!(verdict, Verdict::Forward { .. })
    });
    // Two seconds' worth, saved up.
    assert_eq!(passed.count(), 20);
    assert_eq!(world.relay.counters().over_budget, 79);
    world.now += Duration::from_secs(1);
    let passed = (100..200).filter(|counter| {
        let (verdict, _) = world.data(&grant(true), 1, *counter, &[0; 100]);
        matches!(verdict, Verdict::Forward { .. })
    });
    assert_eq!(passed.count(), 10);
    assert!(world.passes(&grant(false), 2, 1), "the other side has its own");
}

#[test]
fn a_node_has_one_budget_for_all_its_sessions() {
    let mut world = World::with(RelayLimits {
        bytes_per_owner: 1_000,
        ..RelayLimits::default()
    });
    let mut passed = 0;
    for session in 0..10 {
        let [asker, other] = [true, false].map(|side| Grant { session, ..grant(side) });
        world.bind(&asker, 1);
        world.bind(&other, 2);
        passed += (1..10)
            .filter(|counter| matches!(world.data(&asker, 1, *counter, &[0; 100]).0, Verdict::Forward { .. }))
            .count();
    }
    assert_eq!(passed, 20);
}

#[test]
fn a_nodes_frames_are_counted_over_all_its_sessions_too() {
    let mut world = World::with(RelayLimits {
        frames_per_owner: 10,
        ..RelayLimits::default()
    });
    let mut passed = 0;
    for session in 0..10 {
        let [asker, other] = [true, false].map(|side| Grant { session, ..grant(side) });
        world.bind(&asker, 1);
        world.bind(&other, 2);
        passed += (1..10).filter(|counter| world.passes(&asker, 1, *counter)).count();
    }
    assert_eq!(passed, 20);
    assert_eq!(world.relay.counters().over_budget, 70);
}

#[test]
fn shards_have_one_limit_of_sessions_and_one_budget_a_node() {
    let mut shards: [World; 2] = World::shards(RelayLimits {
        max_sessions: 4,
        bytes_per_owner: 1_000,
        ..RelayLimits::default()
    });
    let mut passed = 0;
    for session in 0..6 {
        let world = &mut shards[session as usize % 2];
        let [asker, other] = [true, false].map(|side| Grant { session, ..grant(side) });
        let refusal = world.bind(&asker, 1);
        assert_eq!(refusal, (session >= 4).then_some(Refusal::Full), "{session}");
        world.bind(&other, 2);
        passed += (1..10)
            .filter(|counter| matches!(world.data(&asker, 1, *counter, &[0; 100]).0, Verdict::Forward { .. }))
            .count();
    }
    assert_eq!(passed, 20);
    assert_eq!(shards[0].relay.load(), 1.0);
    let mut sum = RelayCounters::default();
    shards.iter().for_each(|world| sum += world.relay.counters());
    assert_eq!((sum.sessions, sum.begun, sum.forwarded, sum.refused), (4, 4, 20, 4));
    // A shard that is no more has no sessions.
    let [first, mut second] = shards;
    drop(first);
    assert_eq!(second.relay.load(), 0.5);
    let fresh = Grant {
        session: 100,
        ..grant(true)
    };
    assert_eq!(second.bind(&fresh, 1), None);
}

#[test]
fn a_node_gets_no_fresh_budget_by_ending_its_sessions() {
    let mut world = World::with(RelayLimits {
        bytes_per_owner: 1_000,
        ..RelayLimits::default()
    });
    let mut passed = 0;
    for _ in 0..3 {
        world.bind(&grant(true), 1);
        world.bind(&grant(false), 2);
        passed += (1..50)
            .filter(|counter| {
                matches!(
                    world.data(&grant(true), 1, *counter, &[0; 100]).0,
                    Verdict::Forward { .. }
                )
            })
            .count();
        world.relay.end(SESSION);
        world.relay.handle_timeout(world.now);
    }
    assert_eq!(passed, 20);
}

#[test]
fn frames_that_wait_have_a_bound_over_all_sessions() {
    let mut world = World::new();
    let payload = vec![0; 60_000];
    let (mut kept, mut session) = (0, 0);
    let dropped = loop {
        session += 1;
        let asker = Grant {
            session,
            owner: Guid(session),
            ..grant(true)
        };
        world.bind(&asker, 1);
        match world.data(&asker, 1, 1, &payload).0 {
            Verdict::Kept => kept += payload.len(),
            verdict => break verdict,
        }
        assert!(kept <= MAX_WAITING_BYTES);
    };
    assert_eq!(dropped, Verdict::Dropped(Dropped::NobodyThere));
    assert!(kept + 2 * payload.len() > MAX_WAITING_BYTES);
    // Whoever ends gives back what waited for it.
    (1..=session).for_each(|session| world.relay.end(session));
    assert_eq!(world.relay.shared.waiting_bytes(), 0);
}

#[test]
fn each_direction_of_a_session_has_a_lane_of_its_own() {
    let mut world = World::new();
    let lane = |world: &mut World, session: u64, from_asker: bool, counter: u64| {
        let from = Grant {
            session,
            ..grant(from_asker)
        };
        let source = Way {
            socket: Udp4,
            address: way(if from_asker { 1 } else { 2 }),
            local_ip: None,
        };
        match world
            .relay
            .pass(world.now, &source, &mut data_frame(&from, counter, b"x"))
        {
            Passage::Forward { lane, .. } => lane,
            other => panic!("{other:?}"),
        }
    };
    let mut lanes = std::collections::BTreeSet::new();
    for session in 0..50 {
        for from_asker in [true, false] {
            world.bind(
                &Grant {
                    session,
                    ..grant(from_asker)
                },
                if from_asker { 1 } else { 2 },
            );
        }
        for from_asker in [true, false] {
            let first = lane(&mut world, session, from_asker, 1);
            assert_eq!(lane(&mut world, session, from_asker, 2), first);
            lanes.insert(first);
        }
    }
    assert_eq!(lanes, (0..100).collect(), "small numbers, each once");
}

#[test]
fn a_side_is_answered_from_the_address_that_it_knows() {
    let mut world = World::new();
    let at = |port: u16, ip: u8| Way {
        socket: Udp4,
        address: way(port),
        local_ip: Some(IpAddr::from([198, 51, 100, ip])),
    };
    for (from_asker, source) in [(true, at(1, 1)), (false, at(2, 2))] {
        let mut frame = world.bind_frame(&grant(from_asker));
        assert_eq!(world.relay.pass(world.now, &source, &mut frame), Passage::Answer);
    }
    let mut pass = |from_asker: bool, source: Way, counter: u64| {
        let mut frame = data_frame(&grant(from_asker), counter, b"x");
        match world.relay.pass(world.now, &source, &mut frame) {
            Passage::Forward { way, .. } => Some(way),
            _ => None,
        }
    };
    assert_eq!(pass(true, at(1, 1), 1), Some(at(2, 2)));
    assert_eq!(pass(false, at(2, 2), 1), Some(at(1, 1)));
    // It goes on at another of the relay's addresses: as a move, only upon a new counter.
    assert_eq!(pass(true, at(1, 3), 3), Some(at(2, 2)));
    assert_eq!(pass(true, at(1, 1), 2), None);
    assert_eq!(pass(false, at(2, 2), 2), Some(at(1, 3)));
}

#[test]
fn another_ticket_key_is_for_new_tickets_and_sessions_go_on() {
    let mut world = World::bound();
    let other_key = TicketKey::new(&[10; 32]);
    // Its clock stands elsewhere: by the old one all its tickets would have expired.
    world.relay.shared.set_ticket_key(world.now, other_key.clone(), 5);
    assert!(world.passes(&grant(true), 1, 1), "a session that stands");
    let mut old = world.bind_frame(&grant(true));
    let verdict = world.relay.handle(world.now, Udp4, way(1), &mut old);
    assert_eq!(verdict, Verdict::Dropped(Dropped::Forged));
    let fresh = Grant {
        session: 78,
        expires: 1_000,
        ..grant(true)
    };
    world.sealer = other_key;
    assert_eq!(world.bind(&fresh, 1), None);
}

#[test]
fn the_first_frames_wait_for_the_other_side() {
    let mut world = World::new();
    world.bind(&grant(true), 1);
    for counter in 1..=MAX_WAITING as u64 + 2 {
        assert_eq!(world.data(&grant(true), 1, counter, b"early").0, Verdict::Kept);
    }
    assert_eq!(world.relay.poll_waiting(), None);
    world.bind(&grant(false), 2);
    let waited: Vec<_> = std::iter::from_fn(|| world.relay.poll_waiting()).collect();
    let counters: Vec<u64> = waited
        .iter()
        .map(|waiting| DataHeader::decode(&waiting.frame).unwrap().0.counter)
        .collect();
    assert_eq!(counters, [3, 4, 5, 6], "the oldest gave way");
    for waiting in &waited {
        let header = DataHeader::decode(&waiting.frame).unwrap().0;
        assert_eq!(waiting.destination, way(2));
        assert_eq!(
            header.tag,
            grant(false).key.data_tag(waiting.frame.first_chunk().unwrap())
        );
    }
    assert_eq!(world.relay.shared.waiting_bytes(), 0);
}

#[test]
fn a_restarted_relay_says_so_in_fewer_bytes_and_not_too_often() {
    let mut world = World::new();
    let mut answered = 0;
    for counter in 0..3_000 {
        let (verdict, frame) = world.data(&grant(true), 1, counter, b"");
        if verdict == Verdict::Answer {
            answered += 1;
            let gone = Gone::decode(world.relay.answer()).unwrap();
            assert_eq!((gone.refusal, gone.counter), (Refusal::Unknown, counter));
            assert!(world.relay.answer().len() <= frame.len() && world.relay.answer().len() == GONE_LENGTH);
        }
    }
    assert_eq!(answered, 2_000);
}

#[test]
fn a_ticket_comes_back_as_it_was_sealed() {
    let sealed = sealer().seal([1; 12], &grant(true));
    assert_eq!(sealed.len(), TICKET_LENGTH);
    assert_eq!(sealer().open(&sealed), Some(grant(true)));
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(first in 0_u8..16, mut bytes in proptest::collection::vec(any::<u8>(), 0..200), port in 1_u16..5) {
        bytes.insert(0, first);
        let mut world = World::bound();
        let length = bytes.len();
        let verdict = world.relay.handle(world.now, SocketName::Udp6, way(port), &mut bytes);
        let forwarded = matches!(verdict, Verdict::Forward { .. });
        prop_assert!(!forwarded);
        if verdict == Verdict::Answer {
            prop_assert!(world.relay.answer().len() <= length);
        }
    }

    /// Whatever the order: each counter passes at most once, and none that is within the window is refused.
    #[test]
    fn counters_pass_once_in_any_order(counters in proptest::collection::vec(0_u64..600, 1..200)) {
        let mut world = World::bound();
        let mut seen = std::collections::BTreeSet::new();
        let mut highest = 0;
        for counter in counters {
            let passes = world.passes(&grant(true), 1, counter);
            prop_assert!(!(passes && seen.contains(&counter)));
            if counter + 255 >= highest && !seen.contains(&counter) {
                prop_assert!(passes, "{counter} after {highest}");
            }
            seen.insert(counter);
            highest = highest.max(counter);
        }
    }
}
