//! What coturn's `turnutils_natdiscovery`, a client of RFC 5780, makes of our server's answers behind each kind of router.

use std::process::{Child, Command, Stdio};

use crate::network::{Network, Router};
use crate::players::{self, Server, Transcript};

const CLIENT: &str = "turnutils_natdiscovery";
const PORT: &str = "61111";

/// Kinds of routers with the words of the client.
const VERDICTS: [(Router, &str, &str); 6] = [
    (
        Router::Open,
        "Endpoint Independent Mapping",
        "Endpoint Independent Filtering",
    ),
    (
        Router::FullCone,
        "Endpoint Independent Mapping",
        "Endpoint Independent Filtering",
    ),
    (
        Router::AddressRestricted,
        "Endpoint Independent Mapping",
        "Address Dependent Filtering",
    ),
    (
        Router::PortRestricted,
        "Endpoint Independent Mapping",
        "Address and Port Dependent Filtering",
    ),
    (
        Router::Symmetric,
        "Address and Port Dependent Mapping",
        "Address and Port Dependent Filtering",
    ),
    (
        Router::Carrier,
        "Endpoint Independent Mapping",
        "Address and Port Dependent Filtering",
    ),
];

fn obstacle() -> Option<String> {
    players::obstacle_with_server().or_else(|| {
        // Without arguments it prints its usage.
        let found = Command::new(CLIENT)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        found
            .is_err()
            .then(|| format!("the program `{CLIENT}` is missing: scripts/setup-tests installs it (package coturn)"))
    })
}

fn start(namespace: &str, arguments: &[&str]) -> Child {
    Command::new("ip")
        .args(["netns", "exec", namespace, CLIENT])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip can be started")
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().expect("the client ends");
    [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat()
}

/// The verdicts: the lines between two rulers that begin with "NAT with" and end with an exclamation mark.
fn verdicts(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("NAT with ")?.strip_suffix('!'))
        .map(str::to_owned)
        .collect()
}

/// Runs the client behind each kind of router at once: it waits for seconds for what is filtered.
fn discover(test: &'static str, listen: &[&str]) {
    let Some(_turn) = crate::turn(test, obstacle()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let namespaces: Vec<String> = VERDICTS
        .iter()
        .map(|(kind, ..)| network.hosts(&format!("{kind:?}").to_lowercase(), *kind, 1).remove(0))
        .collect();
    let _server = Server::start_on(test, &transcript, &network, listen);
    let address = network.server_address();
    let behind_all = |arguments: &[&str]| -> Vec<String> {
        let arguments = [arguments, &["-p", PORT, address]].concat();
        let running: Vec<Child> = namespaces
            .iter()
            .map(|namespace| start(namespace, &arguments))
            .collect();
        running.into_iter().map(output).collect()
    };
    // Filtering first: the address-restricted router lets in whatever address its inside has ever sent to, from whichever port.
    let filterings = behind_all(&["-f"]);
    let mappings = behind_all(&["-m"]);
    // The mapping of one socket is asked about through another one (RESPONSE-PORT), after a second of silence.
    let lifetimes = behind_all(&["-t", "-T", "1"]);
    for (place, (kind, mapping, filtering)) in VERDICTS.into_iter().enumerate() {
        for (text, expected) in [(&filterings[place], filtering), (&mappings[place], mapping)] {
            if verdicts(text) != [expected] {
                transcript.fail(test, &format!("{kind:?} was to be: {expected}\n{text}"));
            }
        }
        let answers = lifetimes[place].matches("RFC 5780 response").count();
        if answers != 2 || lifetimes[place].contains("timeout") {
            let what = format!(
                "{kind:?}: an answer to each of two sockets was expected\n{}",
                lifetimes[place]
            );
            transcript.fail(test, &what);
        }
    }
}

#[test]
fn a_foreign_client_tells_the_routers_apart() {
    let addresses = Network::SERVER_ADDRESSES;
    discover("a_foreign_client_tells_the_routers_apart", &addresses);
}

#[test]
fn listening_on_all_addresses_is_as_good_as_naming_two() {
    discover("listening_on_all_addresses_is_as_good_as_naming_two", &[]);
}

#[test]
fn a_server_with_one_address_does_not_mislead_a_foreign_client() {
    let test = "a_server_with_one_address_does_not_mislead_a_foreign_client";
    let Some(_turn) = crate::turn(test, obstacle()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let host = network.hosts("symmetric", Router::Symmetric, 1).remove(0);
    let _server = Server::start_on(test, &transcript, &network, &Network::SERVER_ADDRESSES[..1]);
    let text = output(start(&host, &["-m", "-f", "-p", PORT, network.server_address()]));
    if !text.contains("UDP reflexive addr") || !verdicts(&text).is_empty() {
        transcript.fail(test, &format!("an address and no verdict were expected\n{text}"));
    }
}
