//! Relays: the server's own, and proxy servers that log in to it.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;

use serde_json::Value;

use super::{Folder, LOOPBACK, Serving, refused};

/// Reads what is logged until a line fits.
struct Log(BufReader<ChildStderr>);

impl Log {
    fn of(server: &mut Serving) -> Self {
        Self(BufReader::new(server.child.stderr.take().unwrap()))
    }

    /// The end of the output is the end of the wait: the program has ended.
    fn wait_for(&mut self, parts: &[&str]) {
        let mut log = String::new();
        loop {
            let before = log.len();
            self.0.read_line(&mut log).unwrap();
            let line = &log[before..];
            assert!(!line.is_empty(), "nobody said {parts:?}: {log}");
            if parts.iter().all(|part| line.contains(part)) {
                return;
            }
        }
    }
}

/// A server that takes proxies, or one of these.
fn serving(folder: &Folder, name: &str, flags: &[&str]) -> Serving {
    let data = folder.path(name);
    Serving::start(&[&LOOPBACK[..], &["--alt-port", "0", "--data", &data], flags].concat())
}

#[test]
fn flags_of_relays_that_do_not_fit_are_said_in_one_line() {
    let folder = Folder::new();
    let data = folder.path("data");
    for (flags, parts) in [
        (&["--relay-only"][..], &["--relay-only", "--join"][..]),
        (&["--relay-only", "--password", "a"], &["--relay-only", "--join"]),
        (&["--relay-only", "--join", "127.0.0.1:1"], &["--password"]),
        (&["--join", "127.0.0.1:1"], &["--join", "--relay-only"]),
        (
            &["--join", "127.0.0.1:1", "--password", "a"],
            &["--join", "--relay-only"],
        ),
        (
            &["--relay-only", "--join", "127.0.0.1", "--password", "a"],
            &["--join", "HOST:PORT"],
        ),
        (
            &["--relay-only", "--join", ":1", "--password", "a"],
            &["--join", "HOST:PORT"],
        ),
        (
            &["--relay-only", "--join", "127.0.0.1:0", "--password", "a"],
            &["--join", "HOST:PORT"],
        ),
        (
            &["--relay-only", "--join", "127.0.0.1:70000", "--password", "a"],
            &["--join", "HOST:PORT"],
        ),
        (
            &["--relay-only", "--join", "127.0.0.1:1", "--password", ""],
            &["--password", "empty"],
        ),
        (&["--password", ""], &["--password", "empty"]),
        (
            &[
                "--relay-only",
                "--join",
                "127.0.0.1:1",
                "--password",
                "a",
                "--relay",
                "off",
            ],
            &["--relay off"],
        ),
        (&["--relay", "perhaps"], &["--relay", "perhaps"]),
        (&["--tls-port", "99999"], &["--tls-port"]),
    ] {
        let error = refused(&[&["serve"], &LOOPBACK[..], &["--data", &data], flags].concat());
        assert!(parts.iter().all(|part| error.contains(part)), "{flags:?}: {error}");
    }
}

#[test]
fn a_server_with_and_without_its_relay_gets_ready() {
    let folder = Folder::new();
    for relay in ["on", "off"] {
        let server = serving(&folder, relay, &["--relay", relay]);
        assert_eq!(server.ready["ready"], Value::Bool(true));
        assert!(server.ready["udp"][0].is_string());
        let (code, errors) = server.end("-TERM");
        assert_eq!(code, Some(0));
        assert!(!errors.contains("WARN"), "{errors}");
    }
}

#[test]
fn a_proxy_server_logs_in_with_the_password_and_not_without() {
    let folder = Folder::new();
    let mut coordinator = serving(&folder, "coordinator", &["--password", "open sesame"]);
    let mut log = Log::of(&mut coordinator);
    let join = coordinator.address("udp").to_string();
    let flags = |password| ["--relay-only", "--join", &join, "--password", password].map(str::to_owned);
    let start = |name, password| {
        let flags = flags(password);
        serving(&folder, name, &flags.each_ref().map(String::as_str))
    };
    let mut proxy = start("proxy", "open sesame");
    assert_eq!(proxy.ready["ready"], Value::Bool(true));
    let (key, address) = (
        proxy.ready["key"].as_str().unwrap().to_owned(),
        proxy.address("udp").to_string(),
    );
    Log::of(&mut proxy).wait_for(&["INFO", "logged in to", &join]);
    log.wait_for(&["proxy server", &address, "logged in", &key]);
    let mut stranger = start("stranger", "open barley");
    Log::of(&mut stranger).wait_for(&["WARN", "password"]);
    log.wait_for(&["WARN", "proxy server", "not let in"]);
    // It goes, and the coordinator knows.
    drop(proxy);
    drop(stranger);
    log.wait_for(&["WARN", "proxy server", &address, "is gone"]);
}

/// The coordinator may come later, and a proxy ends while it waits.
#[test]
fn a_proxy_server_without_a_coordinator_is_ready_and_ends_cleanly() {
    let folder = Folder::new();
    let flags = ["--relay-only", "--join", "127.0.0.1:1", "--password", "open sesame"];
    let server = serving(&folder, "data", &flags);
    assert_eq!(server.ready["ready"], Value::Bool(true));
    assert_eq!(server.end("-TERM").0, Some(0));
}
