//! The report for programs. Field names and values are described in docs/DOCTOR.md; they stay.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::api::Reason;
use super::super::api::nat::{FailedProtocol, MappedPort};
use super::super::nat;
use super::advice::advice;
use super::findings::{Findings, Mapping};
use super::words;

/// Goes up when a field changes its meaning; new ones may come at any time.
const FORMAT: u32 = 1;

/// The report as one JSON object.
pub fn write(findings: &Findings) -> String {
    let advice: Vec<Value> = advice(findings)
        .into_iter()
        .map(|advice| json!({ "id": advice.id, "text": advice.text }))
        .collect();
    let players: Vec<Value> = findings
        .ways()
        .into_iter()
        .map(|(kind, way)| json!({ "kind": kind.label(), "how": way.map(|way| way.label()) }))
        .collect();
    let report = json!({
        "format": FORMAT,
        "nat": nat_value(findings),
        "addresses": {
            "inside": text(findings.inside()),
            "local": findings.local_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "public_v4": text(findings.nat.public_v4),
            "public_v6": text(findings.nat.public_v6),
            "manual": text(findings.manual),
            "manual_open": findings.nat.manual_open,
            "open": text(findings.open_port()),
        },
        "mapping": mapping_value(findings),
        "double_nat": findings.double_nat(),
        "carrier_grade_nat": findings.carrier_grade(),
        "ipv6": findings.ipv6().label(),
        "hairpin": findings.nat.facts.hairpin,
        "udp_blocked": findings.udp_blocked(),
        "firewall": findings.firewall_hints(),
        "server": server_value(findings),
        "players": players,
        "advice": advice,
    });
    report.to_string()
}

fn nat_value(findings: &Findings) -> Value {
    let report = &findings.nat;
    let facts = &report.facts;
    let (name, certain) = nat::name(report);
    json!({
        "known": report.known,
        "type": name.name(),
        "certain": certain,
        "friendly": nat::is_friendly(report),
        "class": findings.class().map(|class| class.label()),
        "mapping": words::mapping(report),
        "filtering": words::filtering(report),
        "ports": words::ports(report),
        "facts": {
            "mapping_varies_by_address": facts.mapping_varies_by_address,
            "mapping_varies_by_port": facts.mapping_varies_by_port,
            "filters_by_address": facts.filters_by_address,
            "filters_by_port": facts.filters_by_port,
            "preserves_port": facts.preserves_port,
            "port_step": facts.port_step,
            "port_block": facts.port_block.map(|(first, last)| [first, last]),
            "hairpin": facts.hairpin,
            "untranslated": report.untranslated,
            "several_addresses": report.several_addresses,
        },
        "lifetime": report.lifetime.map(|(at_least, below)| json!({
            "at_least_ms": at_least.as_millis() as u64,
            "below_ms": below.map(|below| below.as_millis() as u64),
        })),
        "samples": report.samples.iter().map(|(outside, local)| json!({ "outside": outside, "local": local })).collect::<Vec<_>>(),
        "problem": findings.detection.as_ref().map(reason),
    })
}

fn mapping_value(findings: &Findings) -> Value {
    let (asked, taken_back, failures) = match &findings.mapping {
        Mapping::NotAsked => (false, false, &[][..]),
        Mapping::Asked {
            failures, taken_back, ..
        } => (true, *taken_back, &failures[..]),
    };
    let port = |port: MappedPort| {
        json!({
            "external": port.external.to_string(),
            "protocol": port.protocol.name(),
            "double_nat": port.double_nat,
            "reachable": port.reachable,
        })
    };
    let failure = |failed: &FailedProtocol| json!({ "protocol": failed.protocol.name(), "text": failed.text });
    json!({
        "asked": asked,
        "ports": findings.mapped().into_iter().map(port).collect::<Vec<_>>(),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        "taken_back": taken_back,
    })
}

fn server_value(findings: &Findings) -> Value {
    let round_trip = findings.nat.round_trip.map(|time| time.as_micros() as u64);
    match &findings.server {
        None => Value::Null,
        Some(server) => json!({
            "host": server.host,
            "port": server.port,
            "address": text(server.address),
            "connected": server.connected,
            "tls": server.tls,
            "round_trip_us": round_trip,
        }),
    }
}

fn reason(reason: &Reason) -> Value {
    json!({ "code": reason.code.number(), "name": reason.code.name(), "text": reason.text })
}

fn text(address: Option<SocketAddr>) -> Option<String> {
    address.map(|address| address.to_string())
}
