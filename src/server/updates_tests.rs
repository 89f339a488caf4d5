//! Facts, permits, forecasts and proven addresses in attempts, as nodes hear of them.

use super::super::super::cookies::SLOT;
use super::super::super::introductions::{MAX_FORECASTS, MAX_UPDATES};
use super::*;
use crate::wire::control::AddressProof;
use crate::wire::introduction::{BIRTHDAY_PORTS, BIRTHDAY_SOCKETS, BirthdayPermit, PortForecast};
use crate::wire::stun::{Cookie, Request, Response};

const STABLE: NatFacts = NatFacts {
    mapping_varies_by_address: Some(false),
    mapping_varies_by_port: Some(false),
    filters_by_address: Some(true),
    filters_by_port: Some(true),
    preserves_port: Some(true),
    port_step: None,
    port_block: None,
    hairpin: None,
};

const RANDOM: NatFacts = NatFacts {
    mapping_varies_by_address: Some(true),
    mapping_varies_by_port: Some(true),
    preserves_port: Some(false),
    ..STABLE
};

const PROBER: BirthdayPermit = BirthdayPermit {
    probe_ports: BIRTHDAY_PORTS,
    sockets: 0,
};
const OPENER: BirthdayPermit = BirthdayPermit {
    probe_ports: 0,
    sockets: BIRTHDAY_SOCKETS,
};

fn knowing(facts: NatFacts) -> Hello {
    Hello { facts, ..hello() }
}

fn update(facts: NatFacts, proofs: Vec<AddressProof>) -> ToServer {
    ToServer::Update {
        consent: Consent::App,
        session_tag: [0; 16],
        candidates: Vec::new(),
        facts,
        proofs,
        relay_policy: RelayPolicy::Fallback,
    }
}

fn forecast(before: &str) -> PortForecast {
    PortForecast {
        round: 0,
        before: before.parse().unwrap(),
        after: 0,
        step: 1,
    }
}

impl World {
    /// Asks the server's STUN for a cookie, from that address.
    fn cookie(&mut self, from: &str) -> Cookie {
        let mut contents = Vec::new();
        Request::new([3; 12]).with_cookie().encode(&mut contents);
        let datagram = Datagram {
            socket: SocketName::Udp4,
            source: from.parse().unwrap(),
            destination_ip: None,
            ecn: None,
            contents: BytesMut::from(&contents[..]),
        };
        self.server.handle_datagram(self.now, datagram);
        let mut answer = Vec::new();
        self.server.poll_transmit(self.now, &mut answer).expect("an answer");
        match Response::decode(&answer) {
            Ok(Response::Success {
                cookie: Some(cookie), ..
            }) => cookie,
            other => panic!("no cookie: {other:?}"),
        }
    }

    fn proof(&mut self, address: &str) -> AddressProof {
        AddressProof {
            address: address.parse().unwrap(),
            cookie: self.cookie(address),
        }
    }

    /// At which addresses `asker` is told to look for `target`.
    fn told_of(&mut self, asker: usize, target: usize) -> Vec<String> {
        self.ask(asker, 1, target);
        let told = self.introduction(asker);
        self.heard(target);
        for side in [asker, target] {
            let introduction = told.id;
            self.say(side, ToServer::PunchEnded { introduction, path: 0 });
        }
        told.candidates
            .iter()
            .map(|candidate| candidate.address.to_string())
            .collect()
    }
}

#[test]
fn both_sides_are_told_their_roles() {
    let (mut world, asker, target) = two(knowing(STABLE), knowing(RANDOM));
    world.ask(asker, 1, target);
    let (told, heard) = (world.introduction(asker), world.introduction(target));
    assert_eq!((told.own_facts, told.facts, told.permit), (STABLE, RANDOM, PROBER));
    assert_eq!((heard.own_facts, heard.facts, heard.permit), (RANDOM, STABLE, OPENER));
}

#[test]
fn facts_that_come_later_reach_both_sides_once() {
    let (mut world, asker, target) = two(knowing(STABLE), hello());
    world.ask(asker, 1, target);
    let told = world.introduction(asker);
    assert_eq!(told.permit, BirthdayPermit::default());
    let candidates_of_asker = world.introduction(target).candidates;
    let introduction = told.id;
    for _ in 0..3 {
        world.say(target, update(RANDOM, Vec::new()));
    }
    let other_of_asker = told.candidates.clone();
    let other_of_target = candidates_of_asker;
    let to_asker = |facts, own_facts, permit| FromServer::IntroductionUpdate {
        introduction,
        facts,
        own_facts,
        permit,
        candidates: other_of_asker.clone(),
    };
    let to_target = |facts, own_facts, permit| FromServer::IntroductionUpdate {
        introduction,
        facts,
        own_facts,
        permit,
        candidates: other_of_target.clone(),
    };
    assert_eq!(world.heard(asker), [to_asker(RANDOM, STABLE, PROBER)]);
    assert_eq!(world.heard(target), [to_target(STABLE, RANDOM, OPENER)]);
    // Who has ended hears nothing more; the other one still does.
    world.say(asker, ToServer::PunchEnded { introduction, path: 0 });
    world.say(target, update(NatFacts::default(), Vec::new()));
    assert_eq!(world.heard(asker), []);
    let none = BirthdayPermit::default();
    assert_eq!(world.heard(target), [to_target(STABLE, NatFacts::default(), none)]);
    world.say(target, ToServer::PunchEnded { introduction, path: 0 });
    world.say(target, update(RANDOM, Vec::new()));
    assert_eq!(world.heard(target), []);
}

#[test]
fn addresses_that_come_later_reach_the_other_side() {
    let (mut world, asker, target) = two(knowing(STABLE), knowing(STABLE));
    world.ask(asker, 1, target);
    let before = world.introduction(asker).candidates;
    world.heard(target);
    let proof = world.proof("[2a0b:6000::7]:4000");
    world.say(target, update(STABLE, vec![proof]));
    let mut expected = before;
    expected.push(Candidate {
        kind: CandidateKind::Observed,
        address: proof.address,
    });
    match &world.heard(asker)[..] {
        [FromServer::IntroductionUpdate { candidates, .. }] => assert_eq!(*candidates, expected),
        other => panic!("no update: {other:?}"),
    }
}

#[test]
fn a_node_that_changes_its_mind_for_ever_is_not_passed_on_for_ever() {
    let (mut world, asker, target) = two(knowing(STABLE), hello());
    world.ask(asker, 1, target);
    world.heard(asker);
    for number in 1..100 {
        let facts = NatFacts {
            port_step: Some(number),
            ..RANDOM
        };
        world.say(target, update(facts, Vec::new()));
    }
    assert_eq!(world.heard(asker).len(), usize::from(MAX_UPDATES));
}

#[test]
fn forecasts_go_to_the_other_side_of_a_running_attempt() {
    let (mut world, asker, target) = two(hello(), hello());
    let stranger = world.join(3, "203.0.113.3:6000", hello());
    world.heard(stranger);
    world.ask(asker, 1, target);
    let introduction = world.introduction(asker).id;
    world.heard(target);
    let own = forecast("203.0.113.1:7000");
    let say = |world: &mut World, client, introduction, forecast| {
        world.say(client, ToServer::Forecast { introduction, forecast });
    };
    // Another's address, another's attempt, none at all.
    say(&mut world, asker, introduction, forecast("203.0.113.2:7000"));
    say(&mut world, stranger, introduction, forecast("203.0.113.3:7000"));
    say(&mut world, asker, introduction ^ 1, own);
    assert_eq!((world.heard(asker).len(), world.heard(target).len()), (0, 0));
    assert_eq!(world.server.counters().forecasts_refused, 3);
    for _ in 0..100 {
        say(&mut world, asker, introduction, own);
    }
    let passed_on = FromServer::Forecast {
        introduction,
        forecast: own,
    };
    assert_eq!(world.heard(target), vec![passed_on; usize::from(MAX_FORECASTS)]);
    // The other direction has a budget of its own.
    say(&mut world, target, introduction, forecast("203.0.113.2:1"));
    assert_eq!(world.heard(asker).len(), 1);
    assert_eq!(world.server.counters().forecasts, 1 + u64::from(MAX_FORECASTS));
    // An address of the other version, once it is proven.
    let six = forecast("[2001:db8::5]:7000");
    say(&mut world, target, introduction, six);
    assert_eq!(world.heard(asker), []);
    let proof = world.proof("[2001:db8::5]:4000");
    world.say(target, update(NatFacts::default(), vec![proof]));
    say(&mut world, target, introduction, six);
    let heard = world.heard(asker);
    // The proven address itself is news, too.
    assert!(matches!(
        heard[..],
        [FromServer::IntroductionUpdate { .. }, FromServer::Forecast { .. }]
    ));
    world.say(target, ToServer::PunchEnded { introduction, path: 0 });
    say(&mut world, target, introduction, forecast("203.0.113.2:1"));
    assert_eq!(world.heard(asker), []);
}

#[test]
fn a_proven_address_is_told_like_an_observed_one() {
    let (mut world, asker, target) = two(hello(), hello());
    let proof = world.proof("[2001:db8::5]:4000");
    world.say(target, update(NatFacts::default(), vec![proof]));
    let both = ["203.0.113.2:5000", "[2001:db8::5]:4000"];
    assert_eq!(world.told_of(asker, target), both);
}

#[test]
fn proofs_of_others_forged_and_old_ones_count_for_nothing() {
    let (mut world, asker, target) = two(hello(), hello());
    let good = world.proof("[2001:db8::5]:4000");
    let third_party = AddressProof {
        address: "198.18.0.1:53".parse().unwrap(),
        ..good
    };
    let forged = AddressProof {
        cookie: [9; 16],
        ..good
    };
    world.say(target, update(NatFacts::default(), vec![third_party, forged]));
    assert_eq!(world.told_of(asker, target), ["203.0.113.2:5000"]);
    assert_eq!(world.server.counters().proofs_refused, 2);
    // Two slots on, the cookie that was never shown is too old.
    let step = Duration::from_secs(5);
    for _ in 0..2 * SLOT.as_secs() / step.as_secs() {
        world.pass(step);
    }
    world.say(target, update(NatFacts::default(), vec![good]));
    assert_eq!(world.told_of(asker, target), ["203.0.113.2:5000"]);
    assert_eq!(world.server.counters().proofs_refused, 3);
}

#[test]
fn a_proof_that_was_accepted_stays_good_for_the_session() {
    let (mut world, asker, target) = two(hello(), hello());
    let proof = world.proof("[2001:db8::5]:4000");
    world.say(target, update(NatFacts::default(), vec![proof]));
    for _ in 0..130 {
        world.pass(Duration::from_secs(5));
    }
    world.say(target, update(STABLE, vec![proof]));
    assert_eq!(world.told_of(asker, target).len(), 2);
    // Not shown any more: forgotten, and too old to come back.
    world.say(target, update(STABLE, Vec::new()));
    world.say(target, update(STABLE, vec![proof]));
    assert_eq!(world.told_of(asker, target).len(), 1);
    // A new session must prove anew.
    let again = world.join(
        2,
        "203.0.113.2:5001",
        Hello {
            proofs: vec![proof],
            ..hello()
        },
    );
    world.heard(again);
    assert_eq!(world.told_of(asker, again).len(), 1);
}
