//! `lanline doctor` as a program, against a real server on loopback. Routers are not asked here: nothing leaves this machine.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A server with a folder of its own; both are gone at the end.
struct Server {
    child: Child,
    folder: PathBuf,
    address: String,
    key: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lanline-doctor-{}-{number}", std::process::id()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_lanline"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1",
                "--port",
                "0",
                "--alt-port",
                "0",
                "--http",
                "off",
                "--log",
                "off",
            ])
            .args(["--gate-port", "off", "--data", folder.to_str().unwrap()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self {
            child,
            folder,
            address: ready["udp"][0].as_str().unwrap().to_owned(),
            key: ready["key"].as_str().unwrap().to_owned(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn doctor(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_lanline"))
        .arg("doctor")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

#[test]
fn it_reports_in_words_and_in_json() {
    let server = Server::start(&[]);
    let (code, text, errors) = doctor(&["--server", &server.address, "--key", &server.key, "--no-map"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    for part in [
        "this computer",
        "Who reaches this player",
        "What to change",
        &server.address,
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let (code, json, errors) = doctor(&["--server", &server.address, "--no-map", "--json"]);
    assert_eq!(
        (code, errors.as_str(), json.lines().count()),
        (Some(0), "", 1),
        "{json}"
    );
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["unreachable"], Value::Null);
    assert_eq!(
        (&report["server"]["connected"], &report["udp_blocked"]),
        (&true.into(), &false.into())
    );
    assert_eq!(report["server"]["address"], server.address.as_str());
    assert_eq!(report["mapping"]["asked"], false);
    assert_eq!(report["players"].as_array().unwrap().len(), 7);
}

#[test]
fn the_access_key_and_the_servers_key_are_checked() {
    let server = Server::start(&["--access-key", "sesame"]);
    let base = ["--server", &server.address, "--no-map", "--json"];
    let (code, json, _) = doctor(&[&base[..], &["--access-key", "sesame"]].concat());
    assert_eq!(code, Some(0), "{json}");
    for (arguments, name) in [
        (&["--access-key", "open"][..], "WRONG_ACCESS_KEY"),
        (&["--access-key", "sesame", "--key", &"ab".repeat(32)][..], "WRONG_KEY"),
    ] {
        let (code, json, _) = doctor(&[&base[..], arguments].concat());
        let report: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (code, &report["unreachable"]["name"]),
            (Some(1), &name.into()),
            "{json}"
        );
    }
}

#[test]
fn a_server_that_is_silent_over_udp_is_looked_for_over_tcp() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let port = http.local_addr().unwrap().port().to_string();
    let base = ["--server", &address, "--no-map", "--timeout", "2", "--http-port", &port];
    let (code, text, errors) = doctor(&base);
    assert_eq!((code, errors.as_str()), (Some(1), ""), "{text}");
    assert!(
        text.contains("was not reached") && text.contains("Over TCP it answers"),
        "{text}"
    );
    assert!(text.contains("The way out"), "there is a report nevertheless: {text}");
    drop(http);
    let (code, json, _) = doctor(&[&base[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &report["unreachable"]["tcp"]),
        (Some(1), &false.into()),
        "{json}"
    );
    assert_ne!(report["server"]["connected"], true, "{json}");
}

#[test]
fn a_name_that_does_not_resolve_is_said() {
    // A label has at most 63 bytes: the resolver turns this down without asking anybody.
    let name = "a".repeat(64);
    let (code, json, _) = doctor(&["--server", &name, "--no-map", "--json", "--timeout", "15"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &report["unreachable"]["resolved"]),
        (Some(1), &false.into()),
        "{json}"
    );
}

#[test]
fn wrong_flags_are_said_in_one_line() {
    for (arguments, part) in [
        (&[][..], "--server"),
        (&["--server", "a b"][..], "--server"),
        (&["--server", "127.0.0.1:0"][..], "--server"),
        (&["--server", "127.0.0.1", "--key", "12"][..], "--key"),
        (&["--server", "127.0.0.1", "--stun", ":1"][..], "--stun"),
        (&["--server", "127.0.0.1", "--timeout", "0"][..], "--timeout"),
        (&["--server", "127.0.0.1", "--loud"][..], "--loud"),
    ] {
        let (code, text, errors) = doctor(arguments);
        assert_eq!(
            (code, text.as_str(), errors.lines().count()),
            (Some(2), "", 1),
            "{arguments:?}: {errors}"
        );
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
}
