//! `detect_nat`: what a player learns about each kind of router, from our server and from coturn.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};

/// A router, and what is to be said of it: name, certain, friendly, mapping, filtering, ports.
struct Verdict {
    kind: Router,
    name: &'static str,
    certain: u64,
    friendly: u64,
    mapping: &'static str,
    filtering: &'static str,
    ports: &'static str,
}

const fn verdict(
    kind: Router,
    (name, certain, friendly): (&'static str, u64, u64),
    mapping: &'static str,
    filtering: &'static str,
    ports: &'static str,
) -> Verdict {
    Verdict {
        kind,
        name,
        certain,
        friendly,
        mapping,
        filtering,
        ports,
    }
}

const ANY: &str = "endpoint-independent";
const BY_ADDRESS: &str = "address-dependent";
const BY_PORT: &str = "address- and port-dependent";
const ANY_OR_BY_ADDRESS: &str = "endpoint-independent or address-dependent";

/// Without translation there is no mapping.
const NONE: &str = "none (the address is not translated)";
const LOCAL: &str = "the local ones";

/// Of a server with two addresses.
const TWO: [Verdict; 8] = [
    verdict(Router::Open, ("NONE", 1, 1), NONE, ANY, LOCAL),
    verdict(Router::Firewall, ("PORT_RESTRICTED", 1, 0), NONE, BY_PORT, LOCAL),
    verdict(Router::FullCone, ("FULL_CONE", 1, 1), ANY, ANY, "preserved"),
    verdict(
        Router::AddressRestricted,
        ("ADDRESS_RESTRICTED", 1, 1),
        ANY,
        BY_ADDRESS,
        "preserved",
    ),
    verdict(
        Router::PortRestricted,
        ("PORT_RESTRICTED", 1, 0),
        ANY,
        BY_PORT,
        "preserved",
    ),
    verdict(Router::Carrier, ("PORT_RESTRICTED", 1, 0), ANY, BY_PORT, "preserved"),
    verdict(Router::Symmetric, ("SYMMETRIC", 1, 0), BY_PORT, BY_PORT, "random"),
    verdict(
        Router::SymmetricCarrier,
        ("SYMMETRIC", 1, 0),
        BY_PORT,
        BY_PORT,
        "random",
    ),
];

/// Of a server with one address: what depends on addresses is not known, and no mapping that is kept is called symmetric.
const ONE: [Verdict; 8] = [
    verdict(
        Router::Open,
        ("ADDRESS_RESTRICTED", 0, 1),
        NONE,
        ANY_OR_BY_ADDRESS,
        LOCAL,
    ),
    verdict(Router::Firewall, ("PORT_RESTRICTED", 1, 0), NONE, BY_PORT, LOCAL),
    verdict(
        Router::FullCone,
        ("ADDRESS_RESTRICTED", 0, 1),
        ANY_OR_BY_ADDRESS,
        ANY_OR_BY_ADDRESS,
        "preserved",
    ),
    verdict(
        Router::AddressRestricted,
        ("ADDRESS_RESTRICTED", 0, 1),
        ANY_OR_BY_ADDRESS,
        ANY_OR_BY_ADDRESS,
        "preserved",
    ),
    verdict(
        Router::PortRestricted,
        ("PORT_RESTRICTED", 0, 0),
        ANY_OR_BY_ADDRESS,
        BY_PORT,
        "preserved",
    ),
    verdict(
        Router::Carrier,
        ("PORT_RESTRICTED", 0, 0),
        ANY_OR_BY_ADDRESS,
        BY_PORT,
        "preserved",
    ),
    verdict(Router::Symmetric, ("SYMMETRIC", 1, 0), BY_PORT, BY_PORT, "random"),
    verdict(
        Router::SymmetricCarrier,
        ("SYMMETRIC", 1, 0),
        BY_PORT,
        BY_PORT,
        "random",
    ),
];

/// What differs from what was expected, if anything.
fn compare(verdict: &Verdict, said: &Value, public: &str) -> Option<String> {
    let strings = ["type", "mapping", "filtering", "ports"].map(|key| said[key].as_str().unwrap_or_default());
    let flags = ["certain", "friendly"].map(|key| said[key].as_u64());
    let address = said["public"].as_str().unwrap_or_default();
    let right = strings == [verdict.name, verdict.mapping, verdict.filtering, verdict.ports]
        && flags == [Some(verdict.certain), Some(verdict.friendly)]
        && address.starts_with(&format!("{public}:"));
    let expected = [verdict.name, verdict.mapping, verdict.filtering, verdict.ports];
    (!right).then(|| {
        format!(
            "{:?} was to be {expected:?} certain {} friendly {} at {public}: {said}",
            verdict.kind, verdict.certain, verdict.friendly
        )
    })
}

/// One player behind each kind of router; all ask at once.
fn detect(
    test: &'static str,
    transcript: &Transcript,
    verdicts: &[Verdict],
    start: impl Fn(&str, &str) -> Player,
    network: &mut Network,
    arguments: &str,
) {
    let namespaces: Vec<(String, String)> = verdicts
        .iter()
        .map(|verdict| {
            let label = format!("{:?}", verdict.kind).to_lowercase();
            let host = network.hosts(&label, verdict.kind, 1).remove(0);
            (label, host)
        })
        .collect();
    let mut players: Vec<Player> = namespaces.iter().map(|(label, host)| start(label, host)).collect();
    let requests: Vec<Value> = players
        .iter_mut()
        .map(|player| player.command(&format!("detect_nat{arguments}"))["request"].clone())
        .collect();
    let mut wrong = Vec::new();
    for (place, player) in players.iter_mut().enumerate() {
        let said = player.answer(&["NAT_TYPE"], &requests[place]);
        // Each was connected to the public side in this order.
        let public = network
            .public_address(u32::try_from(place).expect("few") + 1)
            .to_string();
        wrong.extend(compare(&verdicts[place], &said, &public));
    }
    if !wrong.is_empty() {
        transcript.fail(test, &wrong.join("\n"));
    }
}

fn of_our_server(test: &'static str, listen: &[&str], verdicts: &[Verdict]) {
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let _server = Server::start_on(test, &transcript, &network, listen);
    let at = format!("server={}:{}", network.server_address(), players::PORT);
    let start = |label: &str, host: &str| {
        let mut player = Player::start_alone(test, &transcript, label, host, &[]);
        player.command(&format!("connect {at}"));
        player.event("SERVER_CONNECTED", None);
        player
    };
    detect(test, &transcript, verdicts, start, &mut network, "");
}

#[test]
fn a_server_with_two_addresses_tells_each_router() {
    of_our_server(
        "a_server_with_two_addresses_tells_each_router",
        &Network::SERVER_ADDRESSES,
        &TWO,
    );
}

#[test]
fn a_server_with_one_address_says_what_it_can() {
    of_our_server(
        "a_server_with_one_address_says_what_it_can",
        &Network::SERVER_ADDRESSES[..1],
        &ONE,
    );
}

/// coturn, as a STUN server with two addresses.
struct Coturn(Child);

impl Coturn {
    fn start(network: &Network) -> Self {
        let [first, second] = Network::SERVER_ADDRESSES;
        let child = Command::new("ip")
            .args(["netns", "exec", &network.server_namespace(), "turnserver"])
            .args([
                "-n",
                "-z",
                "--no-tls",
                "--no-dtls",
                "--no-cli",
                "-L",
                first,
                "-L",
                second,
            ])
            .args(["--log-file", "stdout", "--pidfile", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ip can be started");
        Self(child)
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn coturn_obstacle() -> Option<String> {
    players::obstacle_with_programs().or_else(|| {
        let found = Command::new("turnserver")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let missing = "the program `turnserver` is missing: scripts/setup-tests installs it (package coturn)";
        found.is_err().then(|| missing.to_owned())
    })
}

/// Without a server of ours: coturn alone says what there is to know.
#[test]
fn coturn_as_server_tells_each_router() {
    let test = "coturn_as_server_tells_each_router";
    let Some(_turn) = crate::turn(test, coturn_obstacle()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let _coturn = Coturn::start(&network);
    let start = |label: &str, host: &str| Player::start_alone(test, &transcript, label, host, &[]);
    let arguments = format!(" stun={}:3478", network.server_address());
    detect(test, &transcript, &TWO, start, &mut network, &arguments);
}
