use super::*;
use crate::relay::{Relay, RelayLimits, Verdict};

const V4: [bool; 2] = [true, false];
const V6: [bool; 2] = [false, true];
const ROOM: (u64, u64) = (0, 100);

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn v4(number: u8) -> [Option<SocketAddr>; 2] {
    [Some(SocketAddr::from(([203, 0, 113, number], 61_111))), None]
}

fn millis(ms: u64) -> Option<Duration> {
    Some(Duration::from_millis(ms))
}

fn measured(round_trips: &[(u8, u32)]) -> Vec<RelayRoundTrip> {
    let measured = round_trips.iter().map(|(number, ms)| RelayRoundTrip {
        key: key(*number),
        microseconds: ms * 1_000,
    });
    measured.collect()
}

/// A server that relays itself, or not, with proxies 1 to `proxies`.
fn relays(own: bool, proxies: u8) -> Relays {
    let identity = Arc::new(Identity::from_seed([9; 32]));
    let mut relays = Relays::new(Instant::now(), identity, own, 1_000_000);
    for number in 1..=proxies {
        let joined = relays.proxy_joined(key(number), LinkId(number.into()), v4(number), ROOM);
        assert!(joined.is_some_and(|(_, before)| before.is_none()));
    }
    relays
}

fn own(sessions: u64) -> (RelayCounters, u64) {
    let counters = RelayCounters {
        sessions,
        ..RelayCounters::default()
    };
    (counters, 100)
}

fn chosen(relays: &Relays, ends: [End<'_>; 2], tried: &[PublicKey]) -> Result<PublicKey, NoRelay> {
    relays.choose(ends, own(0), tried).map(|choice| choice.key)
}

#[test]
fn the_lowest_sum_of_both_round_trips_wins() {
    let relays = relays(true, 3);
    let (one, other) = (
        measured(&[(1, 20), (2, 90), (3, 50)]),
        measured(&[(1, 90), (2, 10), (3, 40)]),
    );
    let end = |measured, to_server| End {
        to_server: millis(to_server),
        measured,
        versions: V4,
    };
    // 3 has 90, 2 has 100, 1 has 110; the server's own 120, then 80.
    assert_eq!(chosen(&relays, [end(&one, 60), end(&other, 60)], &[]), Ok(key(3)));
    assert_eq!(chosen(&relays, [end(&one, 40), end(&other, 40)], &[]), Ok(relays.own));
    let ends = [end(&one, 60), end(&other, 60)];
    assert_eq!(chosen(&relays, ends, &[key(3)]), Ok(key(2)));
    assert_eq!(chosen(&relays, ends, &[key(3), key(2)]), Ok(key(1)));
    assert_eq!(chosen(&relays, ends, &[key(3), key(2), key(1)]), Ok(relays.own));
    // All have been tried and are still there: the best of them once more.
    let all = [key(1), key(2), key(3), relays.own];
    assert_eq!(chosen(&relays, ends, &all), Ok(key(3)));
    // Keys of no relay change nothing.
    assert_eq!(chosen(&relays, ends, &[key(77), PublicKey([0; 32])]), Ok(key(3)));
}

#[test]
fn what_nobody_measured_comes_last_and_the_emptiest_of_it_first() {
    let mut relays = relays(true, 2);
    let half = measured(&[(1, 1), (2, 1)]);
    let end = |measured| End {
        to_server: millis(200),
        measured,
        versions: V4,
    };
    assert_eq!(chosen(&relays, [end(&half), end(&[])], &[]), Ok(relays.own));
    assert!(relays.proxy_load(&key(1), LinkId(1), 50, 100));
    assert_eq!(chosen(&relays, [end(&half), end(&[])], &[relays.own]), Ok(key(2)));
    // What was offered since it said how full it is counts.
    let pair = Pair {
        asker: Guid(1),
        target: Guid(2),
    };
    let choice = Choice {
        key: key(2),
        addresses: [v4(2)[0], v4(2)[0]],
    };
    for _ in 0..60 {
        relays.offer(Instant::now(), &choice, pair, IDLE_TIME, |_| {}).unwrap();
    }
    assert_eq!(chosen(&relays, [end(&half), end(&[])], &[relays.own]), Ok(key(1)));
}

#[test]
fn full_ones_and_those_that_left_are_left_out() {
    let mut relays = relays(false, 2);
    let far = measured(&[(1, 10), (2, 500)]);
    let end = End {
        to_server: millis(10),
        measured: &far,
        versions: V4,
    };
    let ends = [end, end];
    assert_eq!(chosen(&relays, ends, &[]), Ok(key(1)));
    assert!(relays.proxy_load(&key(1), LinkId(1), 100, 100));
    assert_eq!(chosen(&relays, ends, &[]), Ok(key(2)));
    // Rather the full one's neighbour that was tried than none.
    assert_eq!(chosen(&relays, ends, &[key(2)]), Ok(key(2)));
    assert!(relays.proxy_load(&key(2), LinkId(2), 100, 100));
    assert_eq!(chosen(&relays, ends, &[]), Err(NoRelay::Full));
    assert!(relays.proxy_load(&key(1), LinkId(1), 99, 100));
    assert_eq!(chosen(&relays, ends, &[]), Ok(key(1)));
    // An older session of it says nothing any more.
    let (_, before) = relays.proxy_joined(key(1), LinkId(7), v4(1), ROOM).unwrap();
    assert_eq!(before, Some(LinkId(1)));
    assert!(relays.proxy_left(&key(1), LinkId(1)).is_none() && !relays.proxy_load(&key(1), LinkId(1), 1, 1));
    for (number, link) in [(1, 7), (2, 2)] {
        assert!(relays.proxy_left(&key(number), LinkId(link)).is_some());
    }
    assert_eq!(chosen(&relays, ends, &[]), Err(NoRelay::None));
    assert!(!relays.any());
}

#[test]
fn both_must_be_able_to_reach_it() {
    let mut relays = relays(true, 1);
    let six: SocketAddr = "[2001:db8::1]:61111".parse().unwrap();
    relays
        .proxy_joined(key(2), LinkId(2), [v4(2)[0], Some(six)], ROOM)
        .unwrap();
    let end = |versions| End {
        to_server: millis(900),
        measured: &[],
        versions,
    };
    let tried = [relays.own];
    let choose = |versions: [[bool; 2]; 2], tried: &[PublicKey]| relays.choose(versions.map(end), own(0), tried);
    assert_eq!(choose([V4, V6], &tried).unwrap().addresses, [v4(2)[0], Some(six)]);
    assert_eq!(choose([V4, V4], &[relays.own, key(2)]).unwrap().key, key(1));
    // Who has but a stream to the server is relayed there, or not at all.
    let on_stream = [false, false];
    assert_eq!(choose([on_stream, V4], &tried).unwrap().key, relays.own);
    assert_eq!(
        relays
            .known_to(on_stream)
            .iter()
            .map(|known| known.key)
            .collect::<Vec<_>>(),
        [relays.own]
    );
    let known = relays.known_to(V6);
    assert_eq!((known.len(), known[1].address), (2, Some(six)));
}

#[test]
fn the_number_of_proxies_is_bounded() {
    let mut relays = relays(false, 0);
    for number in 0..MAX_PROXIES as u8 {
        assert!(
            relays
                .proxy_joined(key(number), LinkId(number.into()), v4(1), ROOM)
                .is_some()
        );
    }
    assert!(relays.proxy_joined(key(200), LinkId(200), v4(1), ROOM).is_none());
    assert!(relays.proxy_joined(key(0), LinkId(201), v4(1), ROOM).is_some());
    assert_eq!(
        (relays.proxies(), relays.known_to(V4).len()),
        (MAX_PROXIES, MAX_KNOWN_RELAYS)
    );
}

#[test]
fn a_relay_takes_its_own_tickets_and_no_others() {
    let mut relays = relays(true, 1);
    let identity = Identity::from_seed([9; 32]);
    let pair = Pair {
        asker: Guid(1),
        target: Guid(2),
    };
    let (now, mut seed) = (Instant::now(), 0);
    for (relay, other) in [(relays.own, key(1)), (key(1), relays.own)] {
        let choice = Choice {
            key: relay,
            addresses: [None, None],
        };
        let random = |bytes: &mut [u8]| {
            seed += 1;
            bytes.fill(seed);
        };
        let [of_asker, of_target] = relays.offer(now, &choice, pair, IDLE_TIME, random).unwrap();
        assert_eq!(of_asker.session, of_target.session);
        assert!(of_asker.from_asker && !of_target.from_asker && of_asker.secret != of_target.secret);
        let opened = |relay| TicketKey::new(&ticket_key(&identity, &relay)).open(&of_asker.ticket);
        let grant = opened(relay).unwrap();
        assert_eq!(
            (grant.owner, grant.session, grant.idle_ms),
            (Guid(1), of_asker.session, 60_000)
        );
        assert_eq!(opened(other), None);
        // The same key after a restart, on the same clock.
        let frame = bind(&of_asker);
        let mut restarted = Relay::new(
            now,
            TicketKey::new(&ticket_key(&identity, &relay)),
            RelayLimits::default(),
            relays.ticket_time(now),
        );
        let source = "203.0.113.9:4000".parse().unwrap();
        let verdict = restarted.handle(now, crate::engine::SocketName::Udp4, source, &mut frame.clone());
        assert_eq!((verdict, restarted.counters().sessions), (Verdict::Answer, 1));
    }
}

fn bind(offer: &RelayOffer) -> Vec<u8> {
    use crate::wire::relay::Bind;
    let mut bind = Bind {
        key_number: offer.key_number,
        session: offer.session,
        transaction: 1,
        ticket: &offer.ticket,
        tag: [0; 16],
    };
    let mut frame = Vec::new();
    bind.encode(&mut frame);
    bind.tag = SideKey::new(offer.secret).bind_tag(&frame[..bind.authenticated_length()]);
    frame.clear();
    bind.encode(&mut frame);
    frame
}

#[test]
fn idle_times_are_kept_within_bounds() {
    for (asked, granted) in [(0, 60), (1, 10), (9_999, 10), (30_000, 30), (u32::MAX, 600)] {
        assert_eq!(idle_time(asked), Duration::from_secs(granted));
    }
}
