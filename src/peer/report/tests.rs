//! Reports of typical homes, and the order of things.

use std::time::Duration;

use serde_json::Value;

use super::findings::*;
use super::players::Class;
use super::text::COLUMNS;
use super::{json, text};
use crate::codes::{Code, MappingProtocol, NatType};
use crate::peer::api::Reason;
use crate::peer::api::nat::{FailedProtocol, MappedPort, MappingFailure, NatReport};
use crate::wire::introduction::NatFacts;

/// A home behind one port-restricted router, with a server that has one address.
fn home() -> Findings {
    Findings {
        nat: NatReport {
            known: true,
            name: Some(NatType::PortRestricted),
            certain: true,
            facts: NatFacts {
                mapping_varies_by_address: Some(false),
                mapping_varies_by_port: Some(false),
                filters_by_address: Some(true),
                filters_by_port: Some(true),
                preserves_port: Some(true),
                hairpin: Some(false),
                ..NatFacts::default()
            },
            public_v4: Some("203.0.113.5:50000".parse().unwrap()),
            untranslated: Some(false),
            udp_blocked: Some(false),
            round_trip: Some(Duration::from_micros(23_400)),
            ..NatReport::default()
        },
        sockets: vec!["0.0.0.0:50000".parse().unwrap(), "[::]:50000".parse().unwrap()],
        local_addresses: vec!["192.168.1.20".parse().unwrap()],
        server: Some(Server {
            host: "play.example.org".to_owned(),
            port: 61_111,
            address: Some("198.51.100.1:61111".parse().unwrap()),
            connected: true,
            tls: false,
        }),
        ..Findings::default()
    }
}

fn failure(protocol: MappingProtocol, why: MappingFailure, text: &str) -> FailedProtocol {
    let text = text.to_owned();
    FailedProtocol { protocol, why, text }
}

fn silent(protocol: MappingProtocol) -> FailedProtocol {
    failure(protocol, MappingFailure::Silent, "no answer in time")
}

fn mapped(external: &str, double_nat: bool) -> Mapping {
    Mapping::Asked {
        ports: vec![MappedPort {
            external: external.parse().unwrap(),
            protocol: MappingProtocol::Upnp,
            double_nat,
            reachable: None,
        }],
        failures: vec![silent(MappingProtocol::Pcp)],
        taken_back: true,
    }
}

fn failed() -> Mapping {
    Mapping::Asked {
        ports: vec![],
        failures: vec![
            silent(MappingProtocol::Upnp),
            failure(
                MappingProtocol::Pcp,
                MappingFailure::Refused,
                "the router turned it down",
            ),
        ],
        taken_back: false,
    }
}

/// The JSON, read; the text, checked for what holds of all.
fn written(findings: &Findings) -> (Value, String) {
    let text = text::write(findings);
    for line in text.lines() {
        assert!(line.chars().count() <= COLUMNS, "{line}");
        assert!(line.is_ascii() && line.trim_end() == line, "{line:?}");
    }
    (serde_json::from_str(&json::write(findings)).unwrap(), text)
}

fn advice_ids(json: &Value) -> Vec<&str> {
    let list = json["advice"].as_array().unwrap();
    list.iter().map(|advice| advice["id"].as_str().unwrap()).collect()
}

fn how<'a>(json: &'a Value, kind: &str) -> &'a str {
    let players = json["players"].as_array().unwrap();
    let player = players.iter().find(|player| player["kind"] == kind).unwrap();
    player["how"].as_str().unwrap_or("null")
}

#[test]
fn a_home_with_upnp_is_open_to_everybody() {
    let findings = Findings {
        mapping: mapped("203.0.113.5:50000", false),
        ..home()
    };
    let (json, text) = written(&findings);
    assert_eq!(
        (&json["nat"]["type"], &json["nat"]["class"]),
        (&"PORT_RESTRICTED".into(), &"open".into())
    );
    assert_eq!(json["addresses"]["open"], "203.0.113.5:50000");
    assert_eq!(json["mapping"]["ports"][0]["protocol"], "upnp");
    assert_eq!(
        (&json["double_nat"], &json["carrier_grade_nat"]),
        (&false.into(), &false.into())
    );
    assert_eq!(how(&json, "symmetric_random"), "direct");
    assert_eq!(advice_ids(&json), Vec::<&str>::new());
    let expected = "\
The way out
  this computer -- router (home) -- internet -- server

  this computer     192.168.1.20, UDP port 50000
       |
  router (home)     outside address 203.0.113.5; forwards UDP port 50000 (upnp)
       |            mapping: endpoint-independent
       |            filtering: address- and port-dependent
       |            ports: preserved
       |
  internet
       |
  server            play.example.org:61111 (198.51.100.1:61111)
                    23.4 ms there and back

What is known
  NAT type          PORT_RESTRICTED: moderate (port restricted)
  public address    203.0.113.5:50000
  port mapping      203.0.113.5:50000 by upnp (a try: given back)
  double NAT        no
  IPv6              no: this machine has no address for it
  hairpin           no: players in this network meet over their own addresses
  UDP blocked       no

Who reaches this player, and how
  With the forwarded port 203.0.113.5:50000:
  open, or with a forwarded port    directly
  relaxed (address restricted)      directly
  moderate (port restricted)        directly
  strict, keeps port numbers        directly
  strict, ports in sequence         directly
  strict, random ports in a block   directly
  strict, random ports              directly

What to change
  Nothing: players of every kind get through.
";
    assert_eq!(text, expected);
}

#[test]
fn a_home_whose_router_gives_no_port_is_told_to_switch_it_on() {
    let findings = Findings {
        mapping: failed(),
        ..home()
    };
    let (json, text) = written(&findings);
    assert_eq!(json["mapping"]["failures"][1]["protocol"], "pcp");
    assert!(text.contains("pcp: the router turned it down"), "{text}");
    assert_eq!(json["double_nat"], Value::Null, "nobody told");
    assert_eq!((how(&json, "open"), how(&json, "port_restricted")), ("direct", "punch"));
    assert_eq!(
        (how(&json, "symmetric_block"), how(&json, "symmetric_random")),
        ("birthday_in_block", "birthday")
    );
    assert_eq!(advice_ids(&json), ["enable_upnp", "forward_port", "ipv6"]);
    assert!(
        text.contains("forward UDP port 50000 by hand in the router, to 192.168.1.20 port 50000"),
        "{text}"
    );
}

#[test]
fn a_carriers_router_is_noticed_and_only_the_provider_can_help() {
    let findings = Findings {
        mapping: mapped("100.64.3.7:50000", true),
        ..home()
    };
    let (json, text) = written(&findings);
    assert_eq!(
        (&json["double_nat"], &json["carrier_grade_nat"]),
        (&true.into(), &true.into())
    );
    // Strangers do not get through the second router.
    assert_eq!(
        (&json["addresses"]["open"], &json["nat"]["class"]),
        (&Value::Null, &"port_restricted".into())
    );
    assert_eq!(advice_ids(&json), ["public_address", "ipv6"]);
    assert!(
        text.contains("this computer -- router (home) -- router (provider) -- internet -- server"),
        "{text}"
    );
    assert!(
        text.contains("outside address 100.64.3.7; forwards UDP port 50000 (upnp)"),
        "{text}"
    );
    assert!(text.contains("(100.64.3.7)"), "{text}");
    // A second router at home: its address is private, not shared.
    let findings = Findings {
        mapping: mapped("192.168.0.2:50000", true),
        ..home()
    };
    let (json, text) = written(&findings);
    assert_eq!(
        (&json["double_nat"], &json["carrier_grade_nat"]),
        (&true.into(), &Value::Null)
    );
    assert_eq!(advice_ids(&json), ["bridge", "ipv6"]);
    assert!(text.contains("router (home) -- second router -- internet"), "{text}");
}

#[test]
fn a_router_without_a_public_address_is_the_inner_one_of_two() {
    let lacking = MappingFailure::NoPublicAddress;
    let mut findings = Findings {
        mapping: Mapping::Asked {
            ports: vec![],
            failures: vec![
                failure(MappingProtocol::Upnp, lacking, "the router has no public address"),
                silent(MappingProtocol::Pcp),
            ],
            taken_back: false,
        },
        ..home()
    };
    let (json, text) = written(&findings);
    // Whose the outer one is was not seen.
    assert_eq!(
        (&json["double_nat"], &json["carrier_grade_nat"]),
        (&true.into(), &Value::Null)
    );
    assert_eq!(advice_ids(&json), ["bridge", "ipv6"]);
    assert!(text.contains("router (home) -- second router -- internet"), "{text}");
    assert!(
        text.contains("yes: the router has no public address of its own"),
        "{text}"
    );
    assert!(text.contains("ask the provider"), "{text}");
    // A carrier's own address, at the machine, says whose.
    findings.local_addresses.push("100.64.3.7".parse().unwrap());
    let (json, _) = written(&findings);
    assert_eq!(json["carrier_grade_nat"], true);
    findings.local_addresses.pop();
    // Its line may be down as well, where nobody on the internet sees this node.
    for seen in [None, Some("192.168.1.20:50000".parse().unwrap())] {
        findings.nat.public_v4 = seen;
        assert_eq!(findings.double_nat(), None, "{seen:?}");
    }
    // An address of the machine's own is not translated, whatever some router says.
    findings.nat.public_v4 = home().nat.public_v4;
    findings.nat.untranslated = Some(true);
    assert_eq!(findings.double_nat(), Some(false));
}

#[test]
fn a_symmetric_router_says_who_gets_through_and_who_does_not() {
    let mut findings = Findings {
        mapping: failed(),
        ..home()
    };
    findings.nat.name = Some(NatType::Symmetric);
    findings.nat.facts.mapping_varies_by_port = Some(true);
    findings.nat.facts.mapping_varies_by_address = None;
    findings.nat.facts.preserves_port = Some(false);
    findings.nat.facts.port_block = Some((40_000, 42_047));
    let (json, text) = written(&findings);
    assert_eq!(json["nat"]["class"], "symmetric_block");
    assert_eq!(json["nat"]["facts"]["mapping_varies_by_address"], Value::Null);
    assert_eq!(json["nat"]["facts"]["port_block"], serde_json::json!([40_000, 42_047]));
    assert_eq!(
        (how(&json, "open"), how(&json, "address_restricted")),
        ("direct", "punch")
    );
    assert_eq!(
        (how(&json, "port_restricted"), how(&json, "symmetric_block")),
        ("birthday_in_block", "relay")
    );
    assert_eq!(advice_ids(&json), ["enable_upnp", "forward_port", "nat_type", "ipv6"]);
    assert!(text.contains("SYMMETRIC: strict (symmetric)"), "{text}");
    assert!(text.contains("ports: block 40000-42047"), "{text}");
}

#[test]
fn a_public_address_behind_a_firewall_is_told_from_a_router() {
    let mut findings = home();
    findings.nat.untranslated = Some(true);
    findings.local_addresses = vec!["203.0.113.5".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    findings.nat.public_v6 = Some("[2001:db8::7]:50000".parse().unwrap());
    let (json, text) = written(&findings);
    assert_eq!(json["double_nat"], false);
    assert_eq!(json["firewall"].as_array().unwrap().len(), 1);
    assert_eq!(advice_ids(&json), ["local_firewall", "ipv6_firewall"]);
    assert!(
        text.contains("this computer -- firewall -- internet -- server"),
        "{text}"
    );
    assert_eq!(json["nat"]["mapping"], "none (the address is not translated)");
    // Without the filter there is nothing between.
    findings.nat.name = Some(NatType::None);
    findings.nat.facts.filters_by_address = Some(false);
    findings.nat.facts.filters_by_port = Some(false);
    let (json, text) = written(&findings);
    assert!(text.contains("this computer -- internet -- server"), "{text}");
    assert_eq!((how(&json, "symmetric_random"), advice_ids(&json).len()), ("direct", 0));
}

#[test]
fn blocked_udp_is_the_only_thing_to_change() {
    let findings = Findings {
        nat: NatReport {
            known: true,
            udp_blocked: Some(true),
            ..NatReport::default()
        },
        detection: Some(Reason {
            code: Code::NoAnswer,
            text: "no answer came".to_owned(),
        }),
        server: None,
        mapping: failed(),
        ..home()
    };
    let (json, text) = written(&findings);
    assert_eq!((&json["udp_blocked"], &json["server"]), (&true.into(), &Value::Null));
    assert_eq!(advice_ids(&json), ["allow_udp"]);
    assert_eq!(how(&json, "open"), "relay");
    assert_eq!(json["nat"]["problem"]["name"], "NO_ANSWER");
    assert!(text.contains("no UDP packet gets this far"), "{text}");
}

#[test]
fn what_is_not_known_is_null_and_said_so() {
    let (json, text) = written(&Findings::default());
    for field in ["double_nat", "carrier_grade_nat", "hairpin", "udp_blocked", "server"] {
        assert_eq!(json[field], Value::Null, "{field}");
    }
    assert_eq!(
        (&json["nat"]["type"], &json["nat"]["class"]),
        (&"UNKNOWN".into(), &Value::Null)
    );
    assert_eq!(how(&json, "open"), "null");
    assert!(
        text.contains("UNKNOWN: not known") && text.contains("too little could be found out"),
        "{text}"
    );
}

#[test]
fn a_port_forwarded_by_hand_counts_as_open() {
    let findings = Findings {
        manual: Some("203.0.113.5:7000".parse().unwrap()),
        ..home()
    };
    assert_eq!(findings.class(), Some(Class::Open));
    let (json, text) = written(&findings);
    assert_eq!(json["addresses"]["manual"], "203.0.113.5:7000");
    assert!(text.contains("by hand: 203.0.113.5:7000"), "{text}");
}

#[test]
fn ipv6_is_judged_by_what_was_seen() {
    let mut findings = home();
    assert_eq!(findings.ipv6(), Ipv6::No);
    findings.local_addresses.push("fd00::1".parse().unwrap());
    assert_eq!(findings.ipv6(), Ipv6::No, "valid only inside");
    findings.local_addresses.push("2a02:db8::1".parse().unwrap());
    assert_eq!(findings.ipv6(), Ipv6::Unknown);
    findings.nat.public_v6 = Some("[2a02:db8::1]:50000".parse().unwrap());
    assert_eq!(findings.ipv6(), Ipv6::Outgoing);
    findings.nat.public_v4 = None;
    assert_eq!(findings.ipv6(), Ipv6::Firewalled);
    findings.mapping = mapped("[2a02:db8::1]:50000", false);
    assert_eq!(findings.ipv6(), Ipv6::Works);
}

#[test]
fn texts_of_others_stay_within_the_page() {
    let findings = Findings {
        mapping: Mapping::Asked {
            ports: vec![],
            failures: vec![
                failure(
                    MappingProtocol::Upnp,
                    MappingFailure::Refused,
                    &format!("the router said \u{1b}[31m{} and\r\nmore", "x".repeat(500)),
                ),
                failure(MappingProtocol::Pcp, MappingFailure::Refused, "\"quoted\"\u{0}"),
            ],
            taken_back: false,
        },
        ..home()
    };
    let (json, text) = written(&findings);
    assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    assert_eq!(json["mapping"]["failures"][1]["text"], "\"quoted\"\u{0}");
}
