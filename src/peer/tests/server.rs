//! The session with the server: names, addresses tried in order, reconnects, what a loss means for attempts.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{ms, players};
use crate::codes::Code;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::{OwnedEvent, Party};
use crate::peer::api::{Command, NatOutcome, RequestId};
use crate::transport::identity::{Guid, PublicKey};

fn connect(scenario: &mut Scenario, host: &str, port: u16) -> RequestId {
    let host = host.to_owned();
    scenario.request(0, |request| Command::ConnectServer {
        request,
        host,
        port,
        key: None,
    })
}

#[test]
fn a_name_leads_to_the_first_address_that_answers() {
    let mut scenario = Scenario::builder(1).node(RouterKind::Open).build();
    let server = scenario.server_address;
    let nobody = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let unusable = "2001:db8::1".parse().unwrap();
    scenario
        .lab
        .set_name("play.example", vec![unusable, nobody, server.ip()]);
    let request = connect(&mut scenario, "Play.Example", server.port());
    let outcome = scenario.outcome(0, request);
    assert!(
        matches!(outcome, OwnedEvent::ServerConnected { verified: false, .. }),
        "{outcome:?}"
    );
    assert!(scenario.lab.elapsed() < Duration::from_secs(3));
}

#[test]
fn names_that_lead_nowhere_fail_with_their_code() {
    let mut scenario = Scenario::builder(2).node(RouterKind::Open).build();
    scenario.lab.set_name("empty.example", Vec::new());
    for name in ["unknown.example", "empty.example"] {
        let request = connect(&mut scenario, name, 61_111);
        assert_eq!(scenario.outcome(0, request).code(), Some(Code::NameNotResolved));
    }
    let request = connect(&mut scenario, "", 61_111);
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::InvalidArgument));
    let request = connect(&mut scenario, "203.0.113.9", 61_111);
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::NoAnswer));
}

#[test]
fn a_second_wish_for_the_same_server_is_answered_at_once_and_another_server_replaces_it() {
    let mut scenario = players(3, 1);
    let server = scenario.server_address;
    let before = scenario.lab.elapsed();
    let request = connect(&mut scenario, &server.ip().to_string(), server.port());
    let outcome = scenario.outcome(0, request);
    assert!(
        matches!(outcome, OwnedEvent::ServerConnected { verified: true, .. }),
        "{outcome:?}"
    );
    assert_eq!(scenario.lab.elapsed(), before);
    let request = connect(&mut scenario, "203.0.113.9", 1);
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::NoAnswer));
    let lost = |event: &OwnedEvent| matches!(event, OwnedEvent::ServerLost { .. });
    assert!(scenario.wait(0, ms(100), lost).is_none(), "it was left on purpose");
}

#[test]
fn cancelling_a_wish_gives_the_server_up() {
    let mut scenario = Scenario::builder(4).node(RouterKind::Open).build();
    let server = scenario.server_address;
    let request = connect(&mut scenario, &server.ip().to_string(), server.port());
    scenario.lab.command(scenario.nodes[0], Command::Cancel { request });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::Cancelled));
    scenario.lab.run_for(ms(5_000));
    assert!(scenario.lab.events(scenario.nodes[0]).is_empty());
}

#[test]
fn reconnects_come_at_growing_distances_for_ever() {
    let mut scenario = players(5, 1);
    scenario.lab.run_for(ms(1_000));
    let (node, server) = (scenario.nodes[0], scenario.server);
    scenario.lab.crash(server);
    scenario.expect(0, "SERVER_LOST", |event| matches!(event, OwnedEvent::ServerLost { .. }));
    scenario.lab.run_for(Duration::from_secs(600));
    assert!(scenario.lab.events(node).is_empty(), "told once");
    let sent = scenario.lab.counters(node).sent;
    scenario.lab.run_for(Duration::from_secs(600));
    let more = scenario.lab.counters(node).sent - sent;
    assert!((40..2_000).contains(&more), "{more} packets in ten minutes");
    scenario.lab.restart(server);
    scenario
        .wait(0, Duration::from_secs(20), |event| {
            matches!(event, OwnedEvent::ServerReconnected { .. })
        })
        .unwrap();
}

#[test]
fn a_lost_server_ends_what_has_no_introduction_and_nothing_else() {
    let mut scenario = players(6, 3);
    scenario.lab.run_for(ms(1_000));
    scenario
        .lab
        .partition(Party::Host(scenario.nodes[1]), Party::Host(scenario.nodes[0]));
    let peer = scenario.guids[1];
    let introduced = scenario.request(0, |request| Command::OpenNat { request, peer });
    scenario.lab.run_for(ms(200));
    let peer = scenario.guids[2];
    let asked = scenario.request(0, |request| Command::OpenNat { request, peer });
    let request = scenario.lab.next_request();
    scenario
        .lab
        .command(scenario.nodes[0], Command::DisconnectServer { request });
    let OwnedEvent::NatFailed { outcome, reason, .. } = scenario.outcome(0, asked) else {
        panic!("not failed")
    };
    assert_eq!((outcome, reason.code), (NatOutcome::Failed, Code::ServerLost));
    assert!(matches!(
        scenario.outcome(0, request),
        OwnedEvent::ServerDisconnected { .. }
    ));
    let OwnedEvent::NatFailed { outcome, reason, .. } = scenario.outcome(0, introduced) else {
        panic!("not failed")
    };
    assert_eq!((outcome, reason.code), (NatOutcome::Failed, Code::NoDirectPath));
}

/// What one wish for the server led to. `None`: any key will do.
fn connect_with(scenario: &mut Scenario, key: Option<PublicKey>) -> RequestId {
    let (host, port) = (scenario.server_address.ip().to_string(), scenario.server_address.port());
    scenario.request(0, |request| Command::ConnectServer {
        request,
        host,
        port,
        key,
    })
}

#[test]
fn a_wrong_key_for_the_session_that_stands_is_told_at_once_and_ends_nothing() {
    let mut scenario = players(21, 1);
    let before = scenario.lab.elapsed();
    let request = connect_with(&mut scenario, Some(PublicKey([0x11; 32])));
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::WrongKey));
    assert_eq!(scenario.lab.elapsed(), before);
    let peer = Guid(7);
    let request = scenario.request(0, |request| Command::OpenNat { request, peer });
    assert_eq!(scenario.outcome(0, request).code(), Some(Code::TargetNotConnected));
    let key = Some(scenario.server_key);
    let request = connect_with(&mut scenario, key);
    let outcome = scenario.outcome(0, request);
    assert!(
        matches!(outcome, OwnedEvent::ServerConnected { verified: true, .. }),
        "{outcome:?}"
    );
}

#[test]
fn a_wish_without_a_key_does_not_share_the_fate_of_a_dial_with_a_wrong_one() {
    let mut scenario = Scenario::builder(22).node(RouterKind::Open).build();
    let wrong = connect_with(&mut scenario, Some(PublicKey([0x11; 32])));
    scenario.lab.run_for(ms(20));
    let any = connect_with(&mut scenario, None);
    assert_eq!(scenario.outcome(0, wrong).code(), Some(Code::Cancelled));
    let outcome = scenario.outcome(0, any);
    assert!(matches!(outcome, OwnedEvent::ServerConnected { .. }), "{outcome:?}");
}

#[test]
fn a_server_that_was_left_can_be_connected_to_again_at_once() {
    let mut scenario = players(23, 1);
    scenario.request(0, |request| Command::DisconnectServer { request });
    let wrong = connect_with(&mut scenario, Some(PublicKey([0x11; 32])));
    assert_eq!(scenario.outcome(0, wrong).code(), Some(Code::WrongKey));
    let any = connect_with(&mut scenario, None);
    let outcome = scenario.outcome(0, any);
    assert!(matches!(outcome, OwnedEvent::ServerConnected { .. }), "{outcome:?}");
}

#[test]
fn a_session_that_another_server_takes_the_place_of_ends_with_a_word() {
    let mut scenario = players(9, 1);
    scenario.lab.take_events(scenario.nodes[0]);
    let request = connect(&mut scenario, "203.0.113.77", 0);
    assert!(matches!(scenario.outcome(0, request), OwnedEvent::ServerFailed { .. }));
    let events = scenario.lab.take_events(scenario.nodes[0]);
    assert!(events.is_empty(), "a wish that cannot be costs nothing: {events:?}");
    let request = connect(&mut scenario, "203.0.113.77", 61_111);
    scenario.expect(0, "SERVER_DISCONNECTED", |event| {
        matches!(event, OwnedEvent::ServerDisconnected { request: 0 })
    });
    assert!(matches!(scenario.outcome(0, request), OwnedEvent::ServerFailed { .. }));
}
