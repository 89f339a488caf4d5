//! Proxy servers at their coordinator, message by message: those that may, and those that may not.

use super::super::super::proxy_password::{Between, Proofs, Side, begin};
use super::super::super::relays::ticket_key;
use super::*;
use crate::transport::identity::PublicKey;
use crate::wire::control::RelayRoundTrip;
use crate::wire::proxy::{LOGIN_EXPORTER_LABEL, ToCoordinator, ToProxy};

const LOAD: (u64, u64) = (0, 100);

impl World {
    fn tell_coordinator(&mut self, proxy: usize, message: &ToCoordinator) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let client = &mut self.clients[proxy];
        let _ = client.transport.send_control(client.link, &bytes);
        self.settle();
    }

    fn coordinators_words(&mut self, proxy: usize) -> Vec<ToProxy> {
        let raw = std::mem::take(&mut self.clients[proxy].raw);
        raw.iter().map(|bytes| ToProxy::decode(bytes).unwrap()).collect()
    }

    /// The first half of a login with that password. `None`: it was refused.
    fn show_share(&mut self, proxy: usize, password: &str) -> Option<(ToCoordinator, Proofs)> {
        let client = &self.clients[proxy];
        let exported = client
            .transport
            .export_keying_material(client.link, LOGIN_EXPORTER_LABEL)?;
        let between = Between {
            exported,
            proxy: client.key,
            coordinator: Identity::from_seed(SERVER_KEY).public(),
        };
        let mut random = StdRng::from_seed([proxy as u8 + 7; 32]);
        let (begun, share) = begin(Side::Proxy, password, between, &mut random);
        let protocol = PROTOCOL_VERSION;
        let login = ToCoordinator::Login { protocol, share };
        self.tell_coordinator(proxy, &login);
        match &self.coordinators_words(proxy)[..] {
            [ToProxy::Share { share }] => Some((login, begun.finish(share).unwrap())),
            _ => None,
        }
    }

    fn login_proof(proofs: &Proofs) -> ToCoordinator {
        ToCoordinator::Proof {
            proof: proofs.prove(Side::Proxy),
            addresses: Vec::new(),
            sessions: LOAD.0,
            room: LOAD.1,
            version: "test".to_owned(),
        }
    }

    /// Logs a proxy server in, or tries to.
    fn log_in(&mut self, key: u8, real: &str, password: &str) -> usize {
        let proxy = self.connect_as(key, real, LinkKind::Proxy);
        if let Some((_, proofs)) = self.show_share(proxy, password) {
            self.tell_coordinator(proxy, &Self::login_proof(&proofs));
            if let [ToProxy::Admitted { proof, .. }] = &self.coordinators_words(proxy)[..] {
                assert!(proofs.verify(Side::Coordinator, proof));
            }
        }
        proxy
    }

    fn proxies(&self) -> u64 {
        self.server.counters().proxies
    }
}

#[test]
fn a_proxy_server_that_knows_the_password_is_handed_its_ticket_key() {
    let mut world = world();
    let node = world.join(1, "203.0.113.1:4000", hello());
    assert!(world.welcomed(node));
    let proxy = world.connect_as(50, "198.51.100.50:61111", LinkKind::Proxy);
    let (_, proofs) = world.show_share(proxy, PASSWORD).unwrap();
    world.tell_coordinator(proxy, &World::login_proof(&proofs));
    let key = world.clients[proxy].key;
    match &world.coordinators_words(proxy)[..] {
        [
            ToProxy::Admitted {
                proof,
                ticket_key: handed,
                observed,
                ..
            },
        ] => {
            assert!(proofs.verify(Side::Coordinator, proof));
            assert_eq!(*handed, ticket_key(&Identity::from_seed(SERVER_KEY), &key));
            assert_eq!(*observed, world.clients[proxy].real);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((world.proxies(), world.server.counters().proxy_logins), (1, 1));
    // Those who are here hear of it soon, those who come at once.
    world.pass(Duration::from_secs(2));
    let known = |relays: &[KnownRelay]| relays.iter().any(|relay| relay.key == key && relay.address.is_some());
    match &world.heard(node)[..] {
        [FromServer::KnownRelays { relays }] => assert!(known(relays) && relays.len() == 2),
        other => panic!("{other:?}"),
    }
    let later = world.join(2, "203.0.113.2:4000", hello());
    assert!(matches!(&world.heard(later)[..], [FromServer::Welcome { relays, .. }] if known(relays)));
    // Gone, it is not spoken of.
    let (now, client) = (world.now, &mut world.clients[proxy]);
    let info = CloseInfo {
        code: Code::Closed.number(),
        user_code: 0,
        text: "maintenance".to_owned(),
    };
    client.transport.close(now, client.link, info);
    world.pass(Duration::from_secs(2));
    assert!(matches!(&world.heard(node)[..], [FromServer::KnownRelays { relays }] if !known(relays)));
    let news: Vec<ProxyNews> = std::iter::from_fn(|| world.server.poll_news()).collect();
    assert!(matches!(&news[..], [ProxyNews::Joined { .. }, ProxyNews::Left { reason, .. }] if reason == "maintenance"));
}

#[test]
fn whoever_may_not_log_in_is_refused_with_a_reason() {
    let mut world = world();
    let wrong = world.log_in(50, "198.51.100.50:61111", "correct house");
    assert_eq!(world.closed(wrong), Some(Code::WrongAccessKey));
    let own = world.log_in(SERVER_KEY[0], "198.51.100.51:61111", PASSWORD);
    assert_eq!(world.closed(own), Some(Code::Refused));
    let other_version = world.connect_as(52, "198.51.100.52:61111", LinkKind::Proxy);
    let login = ToCoordinator::Login {
        protocol: PROTOCOL_VERSION + 1,
        share: Bytes::new(),
    };
    world.tell_coordinator(other_version, &login);
    assert_eq!(world.closed(other_version), Some(Code::Incompatible));
    // Out of turn.
    let proof = ToCoordinator::Proof {
        proof: [0; 32],
        addresses: Vec::new(),
        sessions: 0,
        room: 1,
        version: String::new(),
    };
    for message in [ToCoordinator::Load { sessions: 0, room: 9 }, proof] {
        let proxy = world.connect_as(53, "198.51.100.53:61111", LinkKind::Proxy);
        world.tell_coordinator(proxy, &message);
        assert_eq!(world.closed(proxy), Some(Code::ProtocolViolation));
    }
    // Nothing.
    let silent = world.connect_as(54, "198.51.100.54:61111", LinkKind::Proxy);
    world.pass(Duration::from_secs(6));
    world.settle();
    assert_eq!(world.closed(silent), Some(Code::Timeout));
    // A node is no proxy server, and a proxy server no node.
    let node = world.connect(1, "203.0.113.1:4000");
    world.tell_coordinator(node, &ToCoordinator::Load { sessions: 0, room: 9 });
    assert_eq!(world.closed(node), Some(Code::ProtocolViolation));
    let proxy = world.connect_as(55, "198.51.100.55:61111", LinkKind::Proxy);
    world.say(proxy, ToServer::Hello(hello()));
    assert_eq!(world.closed(proxy), Some(Code::ProtocolViolation));
    assert_eq!((world.proxies(), world.server.counters().nodes), (0, 0));
    assert!(world.server.counters().proxy_logins_refused >= 7);
}

#[test]
fn a_login_that_was_recorded_is_worth_nothing_in_another_connection() {
    let mut world = world();
    let proxy = world.connect_as(50, "198.51.100.50:61111", LinkKind::Proxy);
    let (login, proofs) = world.show_share(proxy, PASSWORD).unwrap();
    let proof = World::login_proof(&proofs);
    world.tell_coordinator(proxy, &proof);
    assert_eq!(world.proxies(), 1);
    // By somebody else, and by itself.
    for key in [66, 50] {
        let again = world.connect_as(key, "198.51.100.66:61111", LinkKind::Proxy);
        world.tell_coordinator(again, &login);
        world.tell_coordinator(again, &proof);
        assert_eq!(world.closed(again), Some(Code::WrongAccessKey));
    }
    assert_eq!(world.proxies(), 1);
}

#[test]
fn guesses_are_counted_and_those_who_proved_it_once_still_get_in() {
    let mut world = world();
    let genuine = world.log_in(50, "198.51.100.50:61111", PASSWORD);
    assert_eq!((world.closed(genuine), world.proxies()), (None, 1));
    let mut codes = Vec::new();
    for guess in 0..25 {
        let stranger = world.log_in(70, "198.51.100.70:61111", &format!("guess {guess}"));
        codes.push(world.closed(stranger).unwrap());
    }
    // One place of the network's twenty was the genuine one's.
    assert!(codes[..19].iter().all(|code| *code == Code::WrongAccessKey));
    assert!(codes[19..].iter().all(|code| *code == Code::RateLimited));
    let right = world.log_in(71, "198.51.100.71:61111", PASSWORD);
    assert_eq!(world.closed(right), Some(Code::RateLimited));
    let again = world.log_in(50, "198.51.100.50:61112", PASSWORD);
    assert_eq!(
        (world.closed(again), world.closed(genuine)),
        (None, Some(Code::Replaced))
    );
    assert_eq!(world.proxies(), 1);
    world.pass(Duration::from_secs(61));
    let right = world.log_in(71, "198.51.100.71:61111", PASSWORD);
    assert_eq!(world.closed(right), None);
}

#[test]
fn without_a_password_no_proxy_server_is_taken() {
    let mut world = world_without_password();
    for password in ["", PASSWORD] {
        let proxy = world.log_in(50, "198.51.100.50:61111", password);
        assert_eq!(world.closed(proxy), Some(Code::Refused));
    }
}

#[test]
fn two_players_are_offered_the_lowest_sum_then_the_next() {
    let (mut world, asker, target) = two(hello(), hello());
    let near = world.log_in(50, "198.51.100.50:61111", PASSWORD);
    let far = world.log_in(51, "198.51.100.51:61111", PASSWORD);
    let keys = [near, far].map(|proxy| world.clients[proxy].key);
    world.pass(Duration::from_secs(2));
    let report = |near, far| ToServer::RelayRoundTrips {
        round_trips: [(keys[0], near), (keys[1], far)]
            .map(|(key, microseconds)| RelayRoundTrip { key, microseconds })
            .to_vec(),
    };
    // The session's own round trip is next to nothing here: the server's own relay would win. It has been tried.
    let own = Identity::from_seed(SERVER_KEY).public();
    world.say(asker, report(10_000, 40_000));
    world.say(target, report(50_000, 30_000));
    world.heard(asker);
    world.heard(target);
    let offered = |world: &mut World, tried: &[PublicKey]| {
        let target_guid = world.clients[target].guid;
        world.say(
            asker,
            ToServer::RequestRelay {
                request: 1,
                target: target_guid,
                idle_ms: 0,
                tried: tried.to_vec(),
                announced: false,
            },
        );
        let of_target = world.heard(target);
        match (&world.heard(asker)[..], &of_target[..]) {
            ([FromServer::Relays(told)], [FromServer::Relays(heard)]) => {
                assert_eq!(told.relays[0].key, heard.relays[0].key);
                (told.relays[0].key, told.relays[0].address)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(offered(&mut world, &[own]), (keys[0], Some(world_address(50))));
    assert_eq!(offered(&mut world, &[own, keys[0]]).0, keys[1]);
    world.tell_coordinator(
        near,
        &ToCoordinator::Load {
            sessions: 100,
            room: 100,
        },
    );
    assert_eq!(offered(&mut world, &[own]).0, keys[1]);
    world.tell_coordinator(near, &ToCoordinator::Load { sessions: 3, room: 100 });
    assert_eq!(offered(&mut world, &[own]).0, keys[0]);
}

fn world_address(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 61_111))
}
