//! The report on a player's way to others: what it says behind routers of different kinds, and how wishes for it end.

use lanline::codes::Code;
use lanline::lab::OwnedEvent;
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::peer::api::Command;
use lanline::peer::api::nat::DetectOptions;
use serde_json::Value;

fn report(map_port: bool) -> impl FnOnce(u32) -> Command {
    move |request| Command::Report {
        request,
        map_port,
        detect: DetectOptions::default(),
    }
}

/// Waits for a report's end; its JSON and its text, or why there is none.
fn outcome(scenario: &mut Scenario, request: u32) -> Result<(Value, String), Code> {
    match scenario.outcome(0, request) {
        OwnedEvent::Report {
            reason: Some(reason), ..
        } => Err(reason.code),
        OwnedEvent::Report { json, text, .. } => Ok((serde_json::from_str(&json).unwrap(), text)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_report_names_what_the_router_does() {
    for (seed, kind, class) in [
        (60, RouterKind::Open, "open"),
        (61, RouterKind::AddressRestricted, "address_restricted"),
        (62, RouterKind::PortRestricted, "port_restricted"),
    ] {
        let mut scenario = Scenario::builder(seed).server_addresses(2).node(kind).build();
        scenario.connect_all();
        let request = scenario.request(0, report(false));
        let (json, text) = outcome(&mut scenario, request).unwrap();
        assert_eq!(json["nat"]["class"], class, "{text}");
        assert_eq!(json["udp_blocked"], false, "{text}");
        assert_eq!(json["server"]["connected"], true, "{text}");
        assert!(json["server"]["round_trip_us"].as_u64() > Some(0), "{json}");
        assert_eq!(json["mapping"]["asked"], false);
        assert!(text.contains("-- internet -- server"), "{text}");
    }
}

#[test]
fn each_wish_ends_once_and_those_that_wait_share_a_report() {
    let mut scenario = Scenario::builder(63).node(RouterKind::PortRestricted).build();
    scenario.connect_all();
    let first = scenario.request(0, report(true));
    let others: Vec<u32> = (0..3).map(|_| scenario.request(0, report(false))).collect();
    let node = scenario.nodes[0];
    scenario.lab.command(node, Command::Cancel { request: others[1] });
    assert_eq!(outcome(&mut scenario, others[1]), Err(Code::Cancelled));
    // Nobody in the lab forwards a port: that is told, too.
    let (json, _) = outcome(&mut scenario, first).unwrap();
    assert_eq!(json["mapping"]["asked"], true);
    assert_eq!(json["mapping"]["ports"].as_array().unwrap().len(), 0);
    let shared = [others[0], others[2]].map(|request| outcome(&mut scenario, request).unwrap());
    assert_eq!(shared[0], shared[1]);
    // The report's own questions are its own business.
    let own = |event: &OwnedEvent| {
        matches!(
            event,
            OwnedEvent::NatDetected { .. } | OwnedEvent::PortMapped { .. } | OwnedEvent::PortMappingFailed { .. }
        )
    };
    assert!(scenario.lab.take_event(node, own).is_none());
}

#[test]
fn a_report_that_nobody_wants_any_more_is_not_made() {
    for map_port in [false, true] {
        let mut scenario = Scenario::builder(64).node(RouterKind::PortRestricted).build();
        scenario.connect_all();
        let node = scenario.nodes[0];
        let request = scenario.request(0, report(map_port));
        scenario.lab.command(node, Command::Cancel { request });
        assert_eq!(outcome(&mut scenario, request), Err(Code::Cancelled));
        // The next one is made as if nothing had been.
        let request = scenario.request(0, report(map_port));
        let (json, _) = outcome(&mut scenario, request).unwrap();
        assert_eq!(json["nat"]["class"], "port_restricted");
    }
}

#[test]
fn without_a_server_there_is_a_report_that_says_so() {
    let mut scenario = Scenario::builder(65).node(RouterKind::PortRestricted).build();
    let request = scenario.request(0, report(false));
    let (json, text) = outcome(&mut scenario, request).unwrap();
    assert_eq!(
        (&json["server"], &json["nat"]["type"]),
        (&Value::Null, &"UNKNOWN".into())
    );
    assert!(json["nat"]["problem"]["text"].is_string(), "{json}");
    assert!(text.contains("no session with a server"), "{text}");
}
