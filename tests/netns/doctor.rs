//! `lanline doctor`, as an ordinary user behind several routers.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::mapping::{self, Daemon, Speaks};
use crate::network::{Network, Router};
use crate::players::{self, Server, Transcript};

/// Debian's user and group `nobody`/`nogroup`.
const NOBODY: &str = "65534";

/// A copy of the program where every user can read it.
struct Program(PathBuf);

impl Program {
    fn copy(network: &Network) -> Self {
        let copy = std::env::temp_dir().join(format!("{}-doctor", network.server_namespace()));
        std::fs::copy(players::server_program(), &copy).expect("the temporary folder can be written");
        Self(copy)
    }

    fn start(&self, network: &Network, namespace: &str, arguments: &[&str]) -> std::process::Child {
        let server = network.server_address();
        Command::new("ip")
            .args(["netns", "exec", namespace, "setpriv", "--clear-groups"])
            .args(["--reuid", NOBODY, "--regid", NOBODY])
            .arg(&self.0)
            .args(["doctor", "--server", server, "--timeout", "5"])
            .args(arguments)
            .env_remove("HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip can be started")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A home, what its report must say, and words that its text must hold.
struct Case {
    label: &'static str,
    router: Router,
    maps: Option<Speaks>,
    exit: i32,
    says: &'static [(&'static str, &'static str)],
    words: &'static [&'static str],
}

/// Values as JSON, at JSON pointers.
const CASES: [Case; 5] = [
    Case {
        label: "plain",
        router: Router::PortRestricted,
        maps: None,
        exit: 0,
        says: &[
            ("/nat/type", "\"PORT_RESTRICTED\""),
            ("/nat/certain", "true"),
            ("/nat/friendly", "false"),
            ("/mapping/asked", "true"),
            ("/mapping/ports", "[]"),
            // Only a router that gives a port tells its own outside address.
            ("/double_nat", "null"),
            ("/udp_blocked", "false"),
            ("/server/connected", "true"),
            ("/unreachable", "null"),
        ],
        words: &["PORT_RESTRICTED"],
    },
    Case {
        label: "upnp",
        router: Router::PortRestricted,
        maps: Some(Speaks::Upnp),
        exit: 0,
        says: &[
            ("/nat/type", "\"PORT_RESTRICTED\""),
            ("/nat/friendly", "true"),
            ("/mapping/ports/0/protocol", "\"upnp\""),
            ("/mapping/ports/0/double_nat", "false"),
            ("/double_nat", "false"),
            ("/udp_blocked", "false"),
        ],
        words: &["forwards UDP port", "players of every kind get through"],
    },
    Case {
        label: "carrier",
        router: Router::Carrier,
        maps: Some(Speaks::Upnp),
        exit: 0,
        says: &[
            ("/nat/type", "\"PORT_RESTRICTED\""),
            ("/nat/friendly", "false"),
            // miniupnpd without a public address gives no ports, and an empty one for its own.
            ("/mapping/ports", "[]"),
            ("/mapping/failures/0/protocol", "\"upnp\""),
            (
                "/mapping/failures/0/text",
                "\"the router has no public address: another router stands before it, or its line is down\"",
            ),
            ("/double_nat", "true"),
            ("/advice/0/id", "\"bridge\""),
            ("/udp_blocked", "false"),
        ],
        words: &["another router stands before it", "has no public address of its own"],
    },
    Case {
        label: "inner",
        router: Router::Carrier,
        maps: Some(Speaks::NatPmp),
        exit: 0,
        says: &[
            ("/mapping/ports", "[]"),
            ("/double_nat", "true"),
            ("/advice/0/id", "\"bridge\""),
        ],
        words: &["natpmp: the router has no public address"],
    },
    Case {
        label: "blocked",
        router: Router::UdpBlocked,
        maps: None,
        exit: 1,
        says: &[
            ("/udp_blocked", "true"),
            ("/server", "null"),
            ("/unreachable/name", "\"NO_ANSWER\""),
        ],
        words: &["not reached"],
    },
];

fn check(case: &Case, json: &Output, text: &Output) -> Vec<String> {
    let mut wrong = Vec::new();
    for (form, output) in [("--json", json), ("text", text)] {
        if output.status.code() != Some(case.exit) || !output.stderr.is_empty() {
            let error = String::from_utf8_lossy(&output.stderr);
            wrong.push(format!("{form}: ended with {}: {error}", output.status));
        }
    }
    let report: Value = serde_json::from_slice(&json.stdout).unwrap_or_default();
    for (pointer, expected) in case.says {
        let found = report.pointer(pointer).map(Value::to_string).unwrap_or_default();
        if found != *expected {
            wrong.push(format!("{pointer}: {expected} was expected, not {found:?}"));
        }
    }
    let page = String::from_utf8_lossy(&text.stdout);
    for word in case.words {
        if !page.contains(word) {
            wrong.push(format!("the text lacks {word:?}"));
        }
    }
    // For a terminal, and for pasting into a mail.
    for line in page.lines().filter(|line| line.chars().count() > 120) {
        wrong.push(format!("too long a line: {line}"));
    }
    if !wrong.is_empty() {
        wrong.push(format!("{report:#}\n{page}"));
    }
    wrong
}

fn obstacle() -> Option<String> {
    players::obstacle_with_programs().or_else(mapping::obstacle)
}

#[test]
fn an_ordinary_user_gets_a_right_report() {
    let test = "an_ordinary_user_gets_a_right_report";
    let Some(_turn) = crate::turn(test, obstacle()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let homes = CASES
        .each_ref()
        .map(|case| network.hosts(case.label, case.router, 1).remove(0));
    let _daemons: Vec<Daemon> = CASES
        .iter()
        .filter_map(|case| Some(Daemon::start(&network.router_namespace(case.label), case.maps?)))
        .collect();
    let _server = Server::start_on(test, &transcript, &network, &Network::SERVER_ADDRESSES);
    let program = Program::copy(&network);
    let run = |arguments: &[&str]| -> Vec<Output> {
        let running = homes.each_ref().map(|home| program.start(&network, home, arguments));
        running
            .map(|child| child.wait_with_output().expect("the doctor ends"))
            .into()
    };
    let (json, text) = (run(&["--json"]), run(&[]));
    let mut wrong = Vec::new();
    for (place, case) in CASES.iter().enumerate() {
        let found = check(case, &json[place], &text[place]);
        if !found.is_empty() {
            wrong.push(format!("{}: {}", case.label, found.join("\n")));
        }
    }
    if !wrong.is_empty() {
        transcript.fail(test, &wrong.join("\n"));
    }
}
