//! Relays in introductions and without one, as nodes hear of them.

use super::super::super::limits::{RELAY_REQUESTS_PER_KEY, TICKETS_PER_KEY};
use super::*;
use crate::transport::identity::PublicKey;
use crate::wire::introduction::{BirthdayPermit, PortForecast, RelayIntroduction};

fn policy(relay_policy: RelayPolicy) -> Hello {
    Hello {
        relay_policy,
        candidates: vec![Candidate {
            kind: CandidateKind::Manual,
            address: "203.0.113.1:7000".parse().unwrap(),
        }],
        facts: NatFacts {
            preserves_port: Some(true),
            ..NatFacts::default()
        },
        ..hello()
    }
}

fn with_relay(relay: RelayConfig) -> World {
    world_of("", 100, relay)
}

fn full() -> RelayConfig {
    RelayConfig::Own(RelayLimits {
        max_sessions: 0,
        ..RelayLimits::default()
    })
}

fn update(relay_policy: RelayPolicy, consent: Consent, port: u16) -> ToServer {
    ToServer::Update {
        consent,
        session_tag: [0; 16],
        candidates: vec![Candidate {
            kind: CandidateKind::Manual,
            address: SocketAddr::from(([203, 0, 113, 1], port)),
        }],
        facts: NatFacts::default(),
        proofs: Vec::new(),
        relay_policy,
    }
}

fn wish(request: u32, target: Guid) -> ToServer {
    ToServer::RequestRelay {
        request,
        target,
        idle_ms: 0,
        tried: Vec::new(),
        announced: false,
    }
}

impl World {
    fn ask_for(&mut self, client: usize, target: usize, ways: Ways) {
        let target = self.clients[target].guid;
        let first_flight = Bytes::from_static(b"flight");
        self.say(
            client,
            ToServer::OpenNat {
                request: 1,
                target,
                first_flight,
                ways,
            },
        );
    }

    fn relays(&mut self, client: usize) -> RelayIntroduction {
        match &mut self.heard(client)[..] {
            [FromServer::Relays(introduction)] => introduction.clone(),
            other => panic!("no relay: {other:?}"),
        }
    }

    /// The code with which a relay was refused.
    fn no_relay(&mut self, client: usize) -> Code {
        match &self.heard(client)[..] {
            [FromServer::RelayFailed { code, text, .. }] => {
                assert!(!text.is_empty());
                Code::from_number(*code).expect("a known code")
            }
            other => panic!("not one failure: {other:?}"),
        }
    }
}

#[test]
fn who_may_be_relayed_is_offered_a_relay_with_the_introduction() {
    use RelayPolicy::{Fallback, Never};
    for (asking, asked, ways, relayed) in [
        (Fallback, Fallback, Ways::Any, true),
        (Fallback, Fallback, Ways::Direct, false),
        (Fallback, Never, Ways::Any, false),
        (Never, Fallback, Ways::Direct, false),
    ] {
        let (mut world, asker, target) = two(policy(asking), policy(asked));
        world.ask_for(asker, target, ways);
        let (told, heard) = (world.introduction(asker), world.introduction(target));
        assert!(!told.candidates.is_empty() && !heard.candidates.is_empty());
        assert_eq!(
            [told.relays.len(), heard.relays.len()],
            [usize::from(relayed); 2],
            "{asking:?} {asked:?} {ways:?}"
        );
        if let ([for_asker], [for_target]) = (&told.relays[..], &heard.relays[..]) {
            assert_eq!((for_asker.session, for_asker.key), (for_target.session, for_target.key));
            assert!(for_asker.from_asker && !for_target.from_asker);
            assert_eq!((for_asker.address, for_asker.idle_ms), (None, 60_000));
            assert!(for_asker.ticket != for_target.ticket && for_asker.secret != for_target.secret);
        }
    }
}

#[test]
fn players_who_hide_learn_nothing_of_each_other_but_a_relay() {
    use RelayPolicy::{Fallback, Only};
    for (asking, asked, ways) in [
        (Only, Fallback, Ways::Relayed),
        (Fallback, Only, Ways::Any),
        (Only, Only, Ways::Any),
        (Fallback, Fallback, Ways::Relayed),
    ] {
        let (mut world, asker, target) = two(policy(asking), policy(asked));
        world.ask_for(asker, target, ways);
        let (told, heard) = (world.introduction(asker), world.introduction(target));
        for introduction in [&told, &heard] {
            assert!(introduction.candidates.is_empty(), "{introduction:?}");
            assert_eq!(introduction.permit, BirthdayPermit::default());
            assert_eq!([introduction.facts, introduction.own_facts], [NatFacts::default(); 2]);
            assert_eq!(introduction.relays.len(), 1);
        }
        assert_eq!(told.relays[0].session, heard.relays[0].session);
        assert_eq!(&heard.first_flight[..], b"flight");
        // Nor later.
        world.say(asker, update(asking, Consent::App, 7_001));
        let forecast = PortForecast {
            round: 0,
            before: "203.0.113.1:4000".parse().unwrap(),
            after: 0,
            step: 1,
        };
        let introduction = told.id;
        world.say(asker, ToServer::Forecast { introduction, forecast });
        assert!(world.heard(target).is_empty() && world.heard(asker).is_empty());
        assert_eq!(world.server.counters().forecasts_refused, 1);
    }
}

#[test]
fn who_begins_to_hide_is_not_spoken_of_any_more() {
    let (mut world, asker, target) = two(policy(RelayPolicy::Fallback), policy(RelayPolicy::Fallback));
    world.ask_for(asker, target, Ways::Any);
    let introduction = world.introduction(asker).id;
    world.introduction(target);
    world.say(asker, update(RelayPolicy::Fallback, Consent::App, 7_001));
    assert!(matches!(
        world.heard(target)[..],
        [FromServer::IntroductionUpdate { .. }]
    ));
    world.heard(asker);
    world.say(asker, update(RelayPolicy::Only, Consent::App, 7_002));
    let forecast = PortForecast {
        round: 0,
        before: "203.0.113.1:4000".parse().unwrap(),
        after: 0,
        step: 1,
    };
    world.say(asker, ToServer::Forecast { introduction, forecast });
    assert!(world.heard(target).is_empty());
}

#[test]
fn policies_that_do_not_meet_are_said() {
    use RelayPolicy::{Fallback, Never, Only};
    for (asking, asked, ways, relay, code) in [
        (Fallback, Only, Ways::Direct, RelayConfig::default(), Code::Policy),
        (Only, Fallback, Ways::Direct, RelayConfig::default(), Code::Policy),
        (
            Only,
            Never,
            Ways::Relayed,
            RelayConfig::Own(RelayLimits::default()),
            Code::Policy,
        ),
        (
            Never,
            Only,
            Ways::Any,
            RelayConfig::Own(RelayLimits::default()),
            Code::Policy,
        ),
        // No relay at all.
        (Fallback, Only, Ways::Any, RelayConfig::Off, Code::Policy),
        (Fallback, Only, Ways::Any, full(), Code::Full),
    ] {
        let (mut world, asker, target) = two_in(with_relay(relay), policy(asking), policy(asked));
        world.ask_for(asker, target, ways);
        assert_eq!(world.failed(asker), code, "{asking:?} {asked:?} {ways:?}");
        assert!(world.heard(target).is_empty());
    }
    // Where there is another way, a relay that is full is no reason to fail.
    let (mut world, asker, target) = two_in(with_relay(full()), policy(Fallback), policy(Fallback));
    world.ask_for(asker, target, Ways::Any);
    assert!(world.introduction(asker).relays.is_empty());
}

#[test]
fn a_relay_that_is_asked_for_is_offered_to_both() {
    let (mut world, asker, target) = two(hello(), hello());
    let peer = world.clients[target].guid;
    world.say(
        asker,
        ToServer::RequestRelay {
            request: 9,
            target: peer,
            idle_ms: 30_000,
            // Nonsense that fits the format.
            tried: vec![PublicKey([0; 32]), PublicKey([255; 32])],
            announced: true,
        },
    );
    let (told, heard) = (world.relays(asker), world.relays(target));
    assert_eq!((told.request, heard.request), (9, 0));
    assert_eq!((told.peer.guid(), heard.peer.guid()), (peer, world.clients[asker].guid));
    assert_eq!((told.id, told.secret), (heard.id, heard.secret));
    assert!(told.announced && heard.announced);
    assert_eq!([told.relays.len(), heard.relays.len()], [1, 1]);
    assert_eq!([told.relays[0].idle_ms, heard.relays[0].idle_ms], [30_000; 2]);
    assert!(told.relays[0].from_asker && !heard.relays[0].from_asker);
    // The only relay there is was tried: once more is worth more than a failure.
    let own = told.relays[0].key;
    world.say(
        target,
        ToServer::RequestRelay {
            request: 3,
            target: world.clients[asker].guid,
            idle_ms: 1,
            tried: vec![own],
            announced: false,
        },
    );
    let (told, heard) = (world.relays(target), world.relays(asker));
    assert!(told.relays[0].from_asker && !heard.announced);
    assert_eq!(told.relays[0].idle_ms, 10_000);
    let counters = world.server.counters();
    assert_eq!(
        (
            counters.relay_requests,
            counters.relay_requests_refused,
            counters.tickets
        ),
        (2, 0, 4)
    );
}

#[test]
fn relays_are_refused_with_a_reason() {
    use RelayPolicy::{Fallback, Never};
    let on = || RelayConfig::Own(RelayLimits::default());
    let nobody = Hello {
        consent: Consent::Nobody,
        ..hello()
    };
    let elsewhere = Hello {
        app: "other".to_owned(),
        ..hello()
    };
    for (asking, asked, relay, code) in [
        (hello(), elsewhere, on(), Code::TargetNotConnected),
        (hello(), nobody, on(), Code::Refused),
        (policy(Never), policy(Fallback), on(), Code::Policy),
        (policy(Fallback), policy(Never), on(), Code::Policy),
        (hello(), hello(), RelayConfig::Off, Code::NotFound),
        (hello(), hello(), full(), Code::Full),
    ] {
        let (mut world, asker, target) = two_in(with_relay(relay), asking, asked);
        world.say(asker, wish(1, world.clients[target].guid));
        assert_eq!(world.no_relay(asker), code);
        assert!(world.heard(target).is_empty());
        let counters = world.server.counters();
        assert_eq!((counters.relay_requests_refused, counters.tickets), (1, 0));
    }
    let (mut world, asker, _) = two(hello(), hello());
    world.say(asker, wish(1, world.clients[asker].guid));
    assert_eq!(world.no_relay(asker), Code::Self_);
}

#[test]
fn two_who_know_each_other_get_a_ticket_whatever_became_of_consent() {
    let (mut world, asker, target) = two(hello(), hello());
    world.ask_for(asker, target, Ways::Any);
    let id = world.introduction(asker).id;
    world.introduction(target);
    let received = |accepted| ToServer::IntroductionReceived {
        introduction: id,
        accepted,
    };
    world.say(target, received(true));
    for node in [asker, target] {
        world.say(node, update(RelayPolicy::Fallback, Consent::Nobody, 7_000));
        world.heard(node);
    }
    world.heard(asker);
    for (one, other) in [(asker, target), (target, asker)] {
        world.say(one, wish(2, world.clients[other].guid));
        assert_eq!(
            world.relays(one).relays[0].session,
            world.relays(other).relays[0].session
        );
    }
    // A stranger does not.
    let stranger = world.join(3, "203.0.113.3:4000", hello());
    assert!(world.welcomed(stranger));
    world.say(stranger, wish(1, world.clients[target].guid));
    assert_eq!(world.no_relay(stranger), Code::Refused);
    // Who declined does not know the other.
    world.say(target, received(false));
    world.heard(asker);
    world.say(asker, wish(3, world.clients[target].guid));
    assert_eq!(world.no_relay(asker), Code::Refused);
}

#[test]
fn a_node_that_asks_for_tickets_without_end_gets_its_budget_and_no_more() {
    let (mut world, asker, target) = two(hello(), hello());
    let peer = world.clients[target].guid;
    let (mut granted, mut limited) = (0, 0);
    for request in 0..RELAY_REQUESTS_PER_KEY + 20 {
        world.say(asker, wish(request + 1, peer));
        match &world.heard(asker)[..] {
            [FromServer::Relays(_)] => granted += 1,
            [FromServer::RelayFailed { code, .. }] if *code == Code::RateLimited.number() => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((granted, limited), (RELAY_REQUESTS_PER_KEY, 20));
    // Over a minute it is the budget of tickets.
    for _ in 0..3 {
        world.pass(Duration::from_secs(10));
        for request in 0..RELAY_REQUESTS_PER_KEY {
            world.say(asker, wish(request + 1, peer));
        }
    }
    let refused = world.server.counters().tickets_refused;
    assert_eq!(world.server.counters().tickets, u64::from(2 * TICKETS_PER_KEY));
    assert_eq!(refused, u64::from(4 * RELAY_REQUESTS_PER_KEY - TICKETS_PER_KEY));
    world.heard(asker);
    world.heard(target);
    // Its introductions come without relays; those of others are as before.
    world.ask_for(asker, target, Ways::Any);
    let introduction = world.introduction(asker);
    assert!(introduction.relays.is_empty() && !introduction.candidates.is_empty());
    world.introduction(target);
    let third = world.join(3, "203.0.113.3:4000", hello());
    assert!(world.welcomed(third));
    world.ask_for(third, target, Ways::Any);
    assert_eq!(world.introduction(third).relays.len(), 1);
    // Players of other games are not there, however often they are asked for.
    world.pass(Duration::from_secs(60));
    world.heard(asker);
    world.say(asker, wish(1, Guid(99)));
    assert_eq!(world.no_relay(asker), Code::TargetNotConnected);
}
