//! Two sides of a session with a real forwarder between them, and those who forge.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::session::{Between, Failure, Hop, News, Session, State};
use crate::codes::PathKind;
use crate::engine::SocketName::Udp4;
use crate::relay::ticket::{Grant, SideKey, TicketKey};
use crate::relay::{Relay, RelayLimits, Verdict};
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::introduction::RelayOffer;
use crate::wire::relay::{Bound, DATA_HEADER, DataHeader, Gone, Refusal};

const SESSION: u64 = 77;
const TICKET_KEY: [u8; 32] = [9; 32];

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn offer(from_asker: bool) -> RelayOffer {
    let secret = [if from_asker { 0x11 } else { 0x22 }; 32];
    let grant = Grant {
        session: SESSION,
        from_asker,
        key_number: 1,
        expires: 60_000,
        owner: Guid(if from_asker { 1 } else { 2 }),
        idle_ms: 30_000,
        bytes_per_second: 0,
        frames_per_second: 0,
        key: SideKey::new(secret),
    };
    RelayOffer {
        address: Some(address(9)),
        key: PublicKey([7; 32]),
        ticket: TicketKey::new(&TICKET_KEY)
            .seal([u8::from(from_asker); 12], &grant)
            .into(),
        valid_ms: 60_000,
        session: SESSION,
        from_asker,
        key_number: 1,
        secret,
        idle_ms: 30_000,
    }
}

fn side(now: Instant, from_asker: bool) -> Session {
    let between = Between {
        peer: PublicKey([u8::from(from_asker); 32]),
        introduction: 5,
        secret: [3; 32],
    };
    let place = (Hop::Address(address(9)), address(9));
    Session::new(now, &between, offer(from_asker), place, PathKind::Proxied)
}

/// Two sides, and the forwarder.
struct World {
    now: Instant,
    relay: Relay,
    sides: [Session; 2],
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            relay: Relay::new(now, TicketKey::new(&TICKET_KEY), RelayLimits::default(), 0),
            sides: [side(now, false), side(now, true)],
        }
    }

    fn due(&mut self, which: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        self.sides[which].next_frame(self.now, || 0x0102_0304, &mut frame);
        frame
    }

    /// The forwarder takes a frame of a side. What it sends on, or answers.
    fn forward(&mut self, from: usize, frame: &mut [u8]) -> Option<Vec<u8>> {
        let source = address(from as u16 + 1);
        match self.relay.handle(self.now, Udp4, source, frame) {
            Verdict::Forward { destination, .. } => {
                assert_eq!(destination, address(2 - from as u16));
                Some(frame.to_vec())
            }
            Verdict::Answer => Some(self.relay.answer().to_vec()),
            _ => None,
        }
    }

    fn bind(&mut self, which: usize) -> News {
        let mut frame = self.due(which);
        let answer = self.forward(which, &mut frame).unwrap();
        let bound = Bound::decode(&answer).unwrap();
        self.sides[which].bound(self.now, &bound, &answer)
    }

    fn bound() -> Self {
        let mut world = Self::new();
        assert_eq!([world.bind(0), world.bind(1)], [News::Bound; 2]);
        world
    }
}

#[test]
fn what_one_side_wraps_the_other_takes_for_genuine_and_nobody_else_does() {
    let mut world = World::bound();
    let mut frames = Vec::new();
    let segment = world.sides[1].wrap(&[1, 2, 3, 4, 5], Some(2), &mut frames);
    assert_eq!(segment, Some(2 + DATA_HEADER));
    let lengths: Vec<usize> = frames.chunks(2 + DATA_HEADER).map(<[u8]>::len).collect();
    assert_eq!(lengths, [30, 30, 29]);
    let mut first = frames[..30].to_vec();
    let (header, _) = DataHeader::decode(&first).unwrap();
    // As it was sent it is for the forwarder alone; a copy that somebody sends back counts at neither side.
    assert!(!world.sides[0].is_genuine(&header, &first));
    assert!(!world.sides[1].is_genuine(&header, &first));
    let on = world.forward(1, &mut first).unwrap();
    let (header, payload) = DataHeader::decode(&on).unwrap();
    assert_eq!(payload, [1, 2]);
    assert!(world.sides[0].is_genuine(&header, &on));
    assert!(!world.sides[1].is_genuine(&header, &on));
    for place in 0..DATA_HEADER {
        let mut forged = on.clone();
        forged[place] ^= 1;
        if let Ok((header, _)) = DataHeader::decode(&forged) {
            assert!(!world.sides[0].is_genuine(&header, &forged), "byte {place}");
        }
    }
}

#[test]
fn a_ticket_is_shown_until_the_forwarder_answers_and_it_is_given_up_when_silent() {
    let mut world = World::new();
    let (mut shown, mut failed) = (Vec::new(), None);
    let begin = world.now;
    while failed.is_none() {
        let at = world.sides[1].poll_timeout().unwrap();
        world.now = at;
        let mut frame = Vec::new();
        match world.sides[1].next_frame(at, || 1, &mut frame) {
            News::Failed(failure) => failed = Some((at - begin, failure)),
            _ => shown.push((at - begin).as_millis()),
        }
    }
    assert_eq!(shown, [0, 100, 300, 700, 1_300]);
    assert_eq!(failed, Some((ms(1_800), Failure::Silent)));
    assert_eq!(world.sides[1].poll_timeout(), None);
}

#[test]
fn only_the_forwarder_says_that_a_side_is_bound() {
    let mut world = World::new();
    let mut frame = world.due(1);
    let answer = world.forward(1, &mut frame).unwrap();
    for place in 0..answer.len() {
        let mut forged = answer.clone();
        forged[place] ^= 1;
        if let Ok(bound) = Bound::decode(&forged) {
            let news = world.sides[1].bound(world.now, &bound, &forged);
            assert_eq!(news, News::Nothing, "byte {place}");
        }
    }
    let bound = Bound::decode(&answer).unwrap();
    assert_eq!(world.sides[0].bound(world.now, &bound, &answer), News::Nothing);
    assert_eq!(world.sides[1].bound(world.now, &bound, &answer), News::Bound);
    // The same answer once more is no news.
    assert_eq!(world.sides[1].bound(world.now, &bound, &answer), News::Nothing);
}

#[test]
fn a_forwarder_that_forgot_is_shown_the_ticket_again_but_not_at_anybodys_word() {
    let mut world = World::bound();
    let mut frame = Vec::new();
    world.sides[1].wrap(b"hello", None, &mut frame);
    let gone = |counter, key_number| Gone {
        refusal: Refusal::Unknown,
        key_number,
        session: SESSION,
        counter,
    };
    // A counter that was not sent yet, and another key's.
    assert_eq!(world.sides[1].gone(world.now, &gone(2, 1)), News::Nothing);
    assert_eq!(world.sides[1].gone(world.now, &gone(1, 0)), News::Nothing);
    // It restarted.
    world.relay = Relay::new(world.now, TicketKey::new(&TICKET_KEY), RelayLimits::default(), 0);
    let answer = world.forward(1, &mut frame).unwrap();
    let told = Gone::decode(&answer).unwrap();
    assert_eq!(world.sides[1].gone(world.now, &told), News::Forgotten);
    assert_eq!(world.bind(1), News::Bound);
    // Somebody who saw the frame says it again and again.
    assert_eq!(world.sides[1].gone(world.now, &told), News::Nothing);
    world.now += ms(1_000);
    assert_eq!(world.sides[1].gone(world.now, &told), News::Forgotten);
}

#[test]
fn probes_prove_the_way_through_and_measure_it() {
    let mut world = World::bound();
    let mut probe = world.due(1);
    let through = world.forward(1, &mut probe).unwrap();
    let (_, contents) = DataHeader::decode(&through).unwrap();
    let mut answer = Vec::new();
    assert_eq!(world.sides[0].probe(world.now, contents, &mut answer), News::Nothing);
    let back = world.forward(0, &mut answer).unwrap();
    let (_, contents) = DataHeader::decode(&back).unwrap();
    let mut nothing = Vec::new();
    // A side does not take its own word back.
    assert_eq!(world.sides[0].probe(world.now, contents, &mut nothing), News::Nothing);
    world.now += ms(40);
    assert_eq!(world.sides[1].probe(world.now, contents, &mut nothing), News::Proven);
    assert_eq!(world.sides[1].round_trip, Some(ms(40)));
    assert_eq!(world.sides[1].probe(world.now, contents, &mut nothing), News::Nothing);
    assert!(nothing.is_empty());
}

#[test]
fn a_refusal_ends_it_with_its_reason() {
    let mut world = World::new();
    let limits = RelayLimits {
        max_sessions: 0,
        ..RelayLimits::default()
    };
    world.relay = Relay::new(world.now, TicketKey::new(&TICKET_KEY), limits, 0);
    let failure = Failure::Refused(Refusal::Full);
    assert_eq!(world.bind(1), News::Failed(failure));
    assert_eq!(world.sides[1].state, State::Failed(failure));
}
