//! Who is refused, and with which code.

use lanline::codes::{Code, SendMode};
use lanline::engine::SocketName;
use lanline::lab::OwnedEvent;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::peer::api::{Command, NatOutcome};

use super::{ms, pair};

#[test]
fn a_server_with_another_key_is_refused() {
    let mut scenario = Scenario::builder(13).node(RouterKind::Open).build();
    let (host, port) = (scenario.server_address.ip().to_string(), scenario.server_address.port());
    let key = Some(scenario.keys[0]);
    let request = scenario.request(0, |request| Command::ConnectServer {
        request,
        host,
        port,
        key,
    });
    let event = scenario.outcome(0, request);
    assert!(matches!(event, OwnedEvent::ServerFailed { .. }), "{event:?}");
    assert_eq!(event.code(), Some(Code::WrongKey));
}

#[test]
fn a_server_without_an_expected_key_is_taken_and_reported_unverified() {
    let mut scenario = Scenario::builder(14).node(RouterKind::Open).build();
    scenario
        .lab
        .set_name("play.example", vec![scenario.server_address.ip()]);
    let port = scenario.server_address.port();
    let host = "play.example".to_owned();
    let request = scenario.request(0, |request| Command::ConnectServer {
        request,
        host,
        port,
        key: None,
    });
    let own_address = scenario.lab.addresses(scenario.nodes[0])[0];
    match scenario.outcome(0, request) {
        OwnedEvent::ServerConnected {
            key,
            verified,
            observed,
            ..
        } => {
            assert_eq!(
                (key, verified, observed.ip()),
                (scenario.server_key, false, own_address)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_way_of_not_reaching_a_server_has_its_code() {
    let attempt = |scenario: &mut Scenario, host: &str, port| {
        let host = host.to_owned();
        let request = scenario.request(0, |request| Command::ConnectServer {
            request,
            host,
            port,
            key: None,
        });
        scenario.outcome(0, request).code()
    };
    let mut scenario = Scenario::builder(15).node(RouterKind::PortRestricted).build();
    assert_eq!(
        attempt(&mut scenario, "nowhere.example", 61_111),
        Some(Code::NameNotResolved)
    );
    assert_eq!(attempt(&mut scenario, "20.255.0.1", 61_111), Some(Code::NoAnswer));

    let mut scenario = Scenario::builder(15)
        .node(RouterKind::PortRestricted)
        .configure_server(|config| config.access_key = "sesame".to_owned())
        .configure_nodes(|_, config| config.access_key = "mustard".to_owned())
        .build();
    let address = scenario.server_address;
    assert_eq!(
        attempt(&mut scenario, &address.ip().to_string(), address.port()),
        Some(Code::WrongAccessKey)
    );
}

#[test]
fn a_right_access_key_is_accepted() {
    let mut scenario = Scenario::builder(16)
        .node(RouterKind::PortRestricted)
        .configure_server(|config| config.access_key = "sesame".to_owned())
        .configure_nodes(|_, config| config.access_key = "sesame".to_owned())
        .build();
    scenario.connect_all();
}

#[test]
fn a_peer_with_another_key_is_refused() {
    let mut scenario = Scenario::builder(17).nodes(3, RouterKind::Open).build();
    let address = scenario.lab.socket_address(scenario.nodes[2], SocketName::Udp4);
    let (peer, address) = (Some(scenario.guids[1]), Some(address));
    let request = scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    let event = scenario.outcome(0, request);
    assert!(matches!(event, OwnedEvent::ConnectionFailed { .. }), "{event:?}");
    assert_eq!(event.code(), Some(Code::WrongKey));

    // Whoever answers is accepted where no guid was named.
    let request = scenario.request(0, |request| Command::ConnectPeer {
        request,
        peer: None,
        address,
    });
    let event = scenario.outcome(0, request);
    assert!(
        matches!(event, OwnedEvent::Connected { peer, .. } if peer == scenario.guids[2]),
        "{event:?}"
    );
}

#[test]
fn players_of_another_game_do_not_exist() {
    let mut scenario = pair(18, RouterKind::Open, RouterKind::Open)
        .configure_nodes(|number, config| config.app = format!("game {number}"))
        .build();
    scenario.connect_all();
    let event = scenario.open_nat(0, 1).unwrap_err();
    assert!(
        matches!(
            event,
            OwnedEvent::NatFailed {
                outcome: NatOutcome::TargetNotConnected,
                ..
            }
        ),
        "{event:?}"
    );
    let address = Some(scenario.lab.socket_address(scenario.nodes[1], SocketName::Udp4));
    let request = scenario.request(0, |request| Command::ConnectPeer {
        request,
        peer: None,
        address,
    });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::Incompatible));
    scenario.lab.run_for(ms(1_000));
    let connected = |event: &OwnedEvent| matches!(event, OwnedEvent::Connected { .. });
    assert!(
        scenario
            .lab
            .events(scenario.nodes[1])
            .iter()
            .all(|recorded| !connected(&recorded.event))
    );
}

#[test]
fn one_more_than_the_limit_is_refused_as_full() {
    let mut scenario = Scenario::builder(19)
        .nodes(3, RouterKind::PortRestricted)
        .configure_nodes(|_, config| config.max_peers = 1)
        .build();
    scenario.connect_all();
    scenario.connect_pair(1, 0);
    let event = scenario.try_connect_pair(2, 0).unwrap_err();
    assert!(matches!(event, OwnedEvent::ConnectionFailed { .. }), "{event:?}");
    assert_eq!(event.code(), Some(Code::Full));
    // The first one stays.
    let (sender, peer) = (scenario.nodes[1], scenario.guids[0]);
    scenario
        .lab
        .send(sender, peer, 0, SendMode::Reliable, b"still here")
        .unwrap();
    scenario.expect(0, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
}
