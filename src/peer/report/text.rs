//! The report for people: at most 100 columns, plain ASCII, a picture of the way out at the top.

use std::fmt::Write;
use std::net::SocketAddr;

use super::super::nat;
use super::advice::advice;
use super::findings::{Findings, Mapping};
use super::words;
use crate::scope::is_shared;

/// Widest line: terminals and forums' code blocks show as much.
pub const COLUMNS: usize = 100;
/// Where the descriptions begin.
const INDENT: usize = 20;

/// The report as lines of text.
pub fn write(findings: &Findings) -> String {
    let mut out = String::new();
    picture(&mut out, findings);
    facts(&mut out, findings);
    players(&mut out, findings);
    changes(&mut out, findings);
    out
}

/// One station of the way out.
struct Station {
    name: &'static str,
    lines: Vec<String>,
}

fn picture(out: &mut String, findings: &Findings) {
    heading(out, "The way out");
    let stations = stations(findings);
    let line: Vec<&str> = stations.iter().map(|station| station.name).collect();
    let _ = writeln!(out, "  {}", line.join(" -- "));
    out.push('\n');
    for (index, station) in stations.iter().enumerate() {
        if index > 0 {
            let _ = writeln!(out, "       |");
        }
        let empty = String::new();
        item(out, station.name, station.lines.first().unwrap_or(&empty));
        for more in station.lines.iter().skip(1) {
            item(out, if index + 1 < stations.len() { "     |" } else { "" }, more);
        }
    }
}

fn stations(findings: &Findings) -> Vec<Station> {
    let mut stations = vec![computer(findings)];
    let report = &findings.nat;
    if report.untranslated == Some(true) {
        if !findings.firewall_hints().is_empty() {
            let lines = vec![format!("filtering: {}", words::filtering(report))];
            stations.push(Station {
                name: "firewall",
                lines,
            });
        }
    } else {
        stations.extend(routers(findings));
    }
    let internet = match (findings.udp_blocked(), report.public_v6) {
        (Some(true), _) => vec!["no UDP packet gets this far".to_owned()],
        (_, Some(address)) => vec![format!("IPv6: seen as {}", address.ip())],
        (_, None) => vec![],
    };
    stations.push(Station {
        name: "internet",
        lines: internet,
    });
    stations.push(server(findings));
    stations
}

fn computer(findings: &Findings) -> Station {
    let mut lines = match findings.inside() {
        Some(inside) => vec![format!("{}, UDP port {}", inside.ip(), inside.port())],
        None => vec!["no address".to_owned()],
    };
    let shown = findings.inside().map(|inside| inside.ip());
    let others = findings.local_addresses.iter().filter(|ip| Some(**ip) != shown);
    let others: Vec<String> = others.take(3).map(ToString::to_string).collect();
    if !others.is_empty() {
        lines.push(format!("also {}", others.join(", ")));
    }
    Station {
        name: "this computer",
        lines,
    }
}

fn routers(findings: &Findings) -> Vec<Station> {
    let report = &findings.nat;
    let mapped = findings.mapped();
    let mut home = Vec::new();
    if let Some(port) = mapped.iter().find(|port| port.external.is_ipv4()) {
        home.push(format!(
            "outside address {}; forwards UDP port {} ({})",
            port.external.ip(),
            port.external.port(),
            port.protocol.name()
        ));
    }
    let behaviour = [
        format!("mapping: {}", words::mapping(report)),
        format!("filtering: {}", words::filtering(report)),
        format!("ports: {}", words::ports(report)),
    ];
    let double = findings.double_nat() == Some(true);
    let mut stations = Vec::new();
    let shown = report
        .public_v4
        .map(|address| format!("outside address {}", address.ip()));
    if double {
        if home.is_empty() {
            home.push("translates addresses".to_owned());
        }
        stations.push(Station {
            name: "router (home)",
            lines: home,
        });
        let provider = findings.carrier_grade() == Some(true);
        let mut lines: Vec<String> = shown.into_iter().collect();
        lines.push("what both do together:".to_owned());
        lines.extend(behaviour);
        stations.push(Station {
            name: if provider { "router (provider)" } else { "second router" },
            lines,
        });
    } else {
        let mut lines: Vec<String> = if home.is_empty() {
            shown.into_iter().collect()
        } else {
            home
        };
        lines.extend(behaviour);
        let seen = report.untranslated == Some(false) || !mapped.is_empty();
        stations.push(Station {
            name: if seen { "router (home)" } else { "router, if any" },
            lines,
        });
    }
    stations
}

fn server(findings: &Findings) -> Station {
    let mut lines = Vec::new();
    match &findings.server {
        None => lines.push("none: no session with a server".to_owned()),
        Some(server) => {
            let name = format!("{}:{}", server.host, server.port);
            let name = match server.address {
                Some(address) if address.to_string() != name && address.ip().to_string() != server.host => {
                    format!("{name} ({address})")
                }
                Some(address) => address.to_string(),
                None => name,
            };
            lines.push(match (server.connected, server.tls) {
                (true, false) => name,
                (true, true) => format!("{name}, over TLS on TCP"),
                (false, _) => format!("{name}: no answer"),
            });
        }
    }
    if let Some(time) = findings.nat.round_trip {
        lines.push(format!("{:.1} ms there and back", time.as_secs_f64() * 1000.0));
    }
    Station { name: "server", lines }
}

fn facts(out: &mut String, findings: &Findings) {
    let report = &findings.nat;
    heading(out, "What is known");
    let (name, certain) = nat::name(report);
    let sure = if certain || !report.known {
        ""
    } else {
        "; as far as can be told"
    };
    item(
        out,
        "NAT type",
        &format!("{}: {}{sure}", name.name(), words::name(report)),
    );
    if let Some(reason) = &findings.detection {
        item(out, "", &format!("not all could be found out: {}", reason.text));
    }
    item(out, "public address", &public(findings));
    mapping(out, findings);
    item(out, "double NAT", &double_nat(findings));
    item(out, "IPv6", findings.ipv6().words());
    let hairpin = yes_no(
        report.facts.hairpin,
        "yes: the public address works from inside, too",
        "no: players in this network meet over their own addresses",
    );
    item(out, "hairpin", hairpin);
    let blocked = yes_no(findings.udp_blocked(), "yes: no packet is answered", "no");
    item(out, "UDP blocked", blocked);
    if let Some((at_least, below)) = report.lifetime {
        let below = below.map_or_else(String::new, |below| format!(", less than {} s", below.as_secs()));
        item(
            out,
            "silent mappings",
            &format!("live at least {} s{below}", at_least.as_secs()),
        );
    }
    for hint in findings.firewall_hints() {
        item(out, "firewall", hint);
    }
}

fn public(findings: &Findings) -> String {
    let addresses = [findings.nat.public_v4, findings.nat.public_v6];
    let known: Vec<String> = addresses.into_iter().flatten().map(shown).collect();
    if known.is_empty() {
        return "not known".to_owned();
    }
    known.join(", ")
}

fn shown(address: SocketAddr) -> String {
    address.to_string()
}

fn mapping(out: &mut String, findings: &Findings) {
    let ports = findings.mapped();
    let ports: Vec<String> = ports
        .iter()
        .map(|port| {
            let reached = match port.reachable {
                Some(true) => ", open",
                Some(false) => ", but nothing gets in there",
                None => "",
            };
            format!("{} by {}{reached}", port.external, port.protocol.name())
        })
        .collect();
    let words = match &findings.mapping {
        Mapping::NotAsked if ports.is_empty() => "routers were not asked".to_owned(),
        Mapping::Asked { .. } if ports.is_empty() => "none: no router gives a port".to_owned(),
        Mapping::Asked { taken_back: true, .. } => format!("{} (a try: given back)", ports.join(", ")),
        Mapping::NotAsked | Mapping::Asked { .. } => ports.join(", "),
    };
    item(out, "port mapping", &words);
    if let (Mapping::Asked { failures, .. }, true) = (&findings.mapping, ports.is_empty()) {
        for failed in failures {
            item(out, "", &format!("{}: {}", failed.protocol.name(), failed.text));
        }
    }
    if let Some(manual) = findings.manual {
        let open = match findings.nat.manual_open {
            Some(true) => ": open",
            Some(false) => ": not open",
            None => "",
        };
        item(out, "", &format!("by hand: {manual}{open}"));
    }
}

fn double_nat(findings: &Findings) -> String {
    match (findings.double_nat(), findings.carrier_grade()) {
        (Some(true), Some(true)) => {
            let shared = findings.mapped().into_iter().map(|port| port.external.ip());
            let shared = shared
                .chain(findings.local_addresses.iter().copied())
                .find(|ip| is_shared(*ip));
            let shared = shared.map_or_else(String::new, |ip| format!(" ({ip})"));
            format!("yes: the provider has a router of its own before this home{shared}")
        }
        (Some(true), _) if findings.router_lacks_public_address() => {
            "yes: the router has no public address of its own".to_owned()
        }
        (Some(true), _) => "yes: the router's outside address is not what the server sees".to_owned(),
        (Some(false), _) => "no".to_owned(),
        (None, _) => "not known".to_owned(),
    }
}

fn players(out: &mut String, findings: &Findings) {
    heading(out, "Who reaches this player, and how");
    if let Some(open) = findings.open_port() {
        let _ = writeln!(out, "  With the forwarded port {open}:");
    }
    for (kind, way) in findings.ways() {
        let how = way.map_or("not known", |way| way.words());
        let _ = writeln!(out, "  {:<34}{how}", kind.words());
    }
}

fn changes(out: &mut String, findings: &Findings) {
    heading(out, "What to change");
    let advice = advice(findings);
    if advice.is_empty() {
        let all_well = findings.class().is_some();
        let words = if all_well {
            "Nothing: players of every kind get through."
        } else {
            "Not known: too little could be found out."
        };
        let _ = writeln!(out, "  {words}");
    }
    for (index, advice) in advice.iter().enumerate() {
        let number = format!("  {}. ", index + 1);
        wrap(out, &number, 5, &advice.text);
    }
}

fn heading(out: &mut String, text: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{text}");
}

/// A name and what there is to say about it, in columns.
fn item(out: &mut String, name: &str, text: &str) {
    let start = format!("  {name:<width$}", width = INDENT - 2);
    wrap(out, &start, INDENT, text);
}

/// Words behind `start`, broken at [`COLUMNS`]; further lines begin with `indent` blanks. What others wrote (texts of routers) is made
/// printable and cut where it has no blank.
fn wrap(out: &mut String, start: &str, indent: usize, text: &str) {
    let mut line = start.to_owned();
    let mut fresh = true;
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|letter| !letter.is_control()).collect();
        let mut rest = word.as_str();
        while !rest.is_empty() {
            let blank = usize::from(!fresh);
            let used = line.chars().count() + blank;
            let length = rest.chars().count();
            if used + length <= COLUMNS {
                line.push_str(&" "[..blank]);
                line.push_str(rest);
                fresh = false;
                break;
            }
            if fresh {
                let cut = rest.char_indices().nth(COLUMNS - used).map_or(rest.len(), |(at, _)| at);
                line.push_str(&rest[..cut]);
                rest = &rest[cut..];
            }
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            fresh = true;
        }
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn yes_no<'a>(fact: Option<bool>, yes: &'a str, no: &'a str) -> &'a str {
    match fact {
        Some(true) => yes,
        Some(false) => no,
        None => "not known",
    }
}
