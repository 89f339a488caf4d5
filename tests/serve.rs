//! `lanline serve` as a program: what it prints, what it answers, how it ends.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
#[cfg(target_os = "linux")]
use std::net::Ipv4Addr;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lanline::codes::{Code, EventType};
use lanline::shell;
use lanline::shell::options::{self, AcceptFrom, NodeOptions};
use lanline::shell::owned::{self, OwnedEvent};
use lanline::transport::identity::PublicKey;
use lanline::wire::control::RelayPolicy;
use lanline::wire::stun::{ChangeRequest, Request, Response};
use serde_json::Value;

#[path = "serve/relays.rs"]
mod relays;

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A fresh folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lanline-serve-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lanline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanline"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running server, killed at the latest when it is dropped.
struct Serving {
    child: Child,
    ready: Value,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let mut child = lanline(&[&["serve"], arguments].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            let mut errors = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
            panic!("it did not get ready: {errors}");
        }
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, ready }
    }

    fn address(&self, list: &str) -> SocketAddr {
        self.ready[list][0].as_str().unwrap().parse().unwrap()
    }

    /// Sends a signal and waits; the exit code and what was logged.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut errors = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code(), errors)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a server's STUN; the answer and where it came from.
fn stun(server: SocketAddr, change: ChangeRequest) -> (SocketAddr, SocketAddr, Response) {
    stun_with(server, Request::with_change([9; 12], change))
}

fn stun_with(server: SocketAddr, request: Request) -> (SocketAddr, SocketAddr, Response) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Only so that a failure is one, instead of a test that hangs.
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    socket.send_to(&bytes, server).unwrap();
    let mut buffer = [0; 2_000];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (
        socket.local_addr().unwrap(),
        from,
        Response::decode(&buffer[..length]).unwrap(),
    )
}

/// Runs to the end; must exit with 2 and one line on standard error, which is returned.
fn refused(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = lanline(arguments).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(2), 0), "{arguments:?}: {text}");
    assert_eq!((text.lines().count(), text.ends_with('\n')), (1, true), "{text}");
    text
}

const LOOPBACK: [&str; 4] = ["--listen", "127.0.0.1", "--port", "0"];

#[test]
fn it_gets_ready_answers_stun_on_both_ports_and_ends_cleanly() {
    for signal in ["-TERM", "-INT"] {
        let folder = Folder::new();
        let data = folder.path("data");
        let server = Serving::start(&[&LOOPBACK[..], &["--data", &data]].concat());
        assert_eq!(server.ready["ready"], Value::Bool(true));
        assert_eq!(server.ready["key"].as_str().unwrap().len(), 64);
        for absent in ["http", "gate", "tls"] {
            assert!(server.ready[absent].is_null(), "{absent}");
        }
        let (main, second) = (server.address("udp"), server.address("udp_alt"));
        assert!(main.ip().is_loopback() && main.port() != 0 && second.port() != 0 && second.port() != main.port());
        for (asked, other) in [(main, second), (second, main)] {
            let (own, from, response) = stun_with(asked, Request::new([9; 12]).with_cookie());
            assert_eq!(from, asked);
            let Response::Success {
                mapped,
                origin,
                other: told,
                cookie,
                ..
            } = response
            else {
                panic!("{response:?}")
            };
            assert_eq!((mapped, origin, told), (own, Some(asked), Some(other)));
            assert!(cookie.is_some());
        }
        let (_, from, _) = stun(main, ChangeRequest { ip: false, port: true });
        assert_eq!(from, second);
        let (code, errors) = server.end(signal);
        assert_eq!(code, Some(0), "{errors}");
    }
}

// Elsewhere a machine has one loopback address, until its owner adds others.
#[cfg(target_os = "linux")]
#[test]
fn two_listen_addresses_answer_for_each_other() {
    let folder = Folder::new();
    let data = folder.path("data");
    let arguments = [
        "--listen",
        "127.0.0.1",
        "--listen",
        "127.0.0.2",
        "--port",
        "0",
        "--data",
        &data,
    ];
    let server = Serving::start(&arguments);
    let (main, second) = (server.address("udp"), server.address("udp_alt"));
    let beside: SocketAddr = (Ipv4Addr::new(127, 0, 0, 2), main.port()).into();
    let both: SocketAddr = (Ipv4Addr::new(127, 0, 0, 2), second.port()).into();
    for (ip, port, expected) in [
        (false, false, main),
        (false, true, second),
        (true, false, beside),
        (true, true, both),
    ] {
        let (_, from, response) = stun(main, ChangeRequest { ip, port });
        assert_eq!(from, expected);
        let Response::Success { origin, other, .. } = response else {
            panic!("{response:?}")
        };
        assert_eq!((origin, other), (Some(expected), Some(both)));
    }
}

#[test]
fn another_port_of_the_asker_is_answered() {
    let folder = Folder::new();
    let server = Serving::start(&[&LOOPBACK[..], &["--data", &folder.path("data")]].concat());
    let main = server.address("udp");
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut request = Vec::new();
    let port = listener.local_addr().unwrap().port();
    Request::new([8; 12]).with_response_port(port).encode(&mut request);
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.send_to(&request, main).unwrap();
    let mut buffer = [0; 2_000];
    let (length, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!(from, main);
    let Ok(Response::Success { mapped, .. }) = Response::decode(&buffer[..length]) else {
        panic!("no success")
    };
    assert_eq!(mapped, asker.local_addr().unwrap());
}

#[test]
fn by_default_it_listens_on_every_address() {
    let folder = Folder::new();
    let server = Serving::start(&["--port", "0", "--data", &folder.path("data")]);
    let main = server.address("udp");
    assert!(main.ip().is_unspecified());
    // Each address of the machine answers as itself.
    for ip in ["127.0.0.1", "127.0.0.9"] {
        let asked = SocketAddr::new(ip.parse().unwrap(), main.port());
        let (_, from, response) = stun(asked, ChangeRequest::default());
        assert_eq!(from, asked);
        assert!(
            matches!(response, Response::Success { origin, .. } if origin == Some(asked)),
            "{response:?}"
        );
    }
}

#[test]
fn the_identity_outlives_a_restart() {
    let folder = Folder::new();
    let data = folder.path("data");
    let arguments = [&LOOPBACK[..], &["--data", &data]].concat();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let server = Serving::start(&arguments);
        keys.push(server.ready["key"].clone());
        assert_eq!(server.end("-TERM").0, Some(0));
    }
    assert_eq!(keys[0], keys[1]);
    assert_eq!(fs::read(folder.path("data/server.key")).unwrap().len(), 32);
    fs::write(folder.path("data/server.key"), [1; 31]).unwrap();
    let error = refused(&[&["serve"], &arguments[..]].concat());
    assert!(error.contains("server.key") && error.contains("32 bytes"), "{error}");
}

#[test]
fn a_port_in_use_is_said_in_one_line() {
    let folder = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = folder.path("data");
    let error = refused(&["serve", "--listen", "127.0.0.1", "--port", &port, "--data", &data]);
    assert!(error.contains(&port) && error.contains("in use"), "{error}");
    let error = refused(&[
        "serve",
        "--listen",
        "127.0.0.1",
        "--port",
        "0",
        "--alt-port",
        &port,
        "--data",
        &data,
    ]);
    assert!(error.contains(&port) && error.contains("in use"), "{error}");
}

#[test]
fn a_tls_port_in_use_is_said_in_one_line() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = folder.path("data");
    let error = refused(&[&["serve"], &LOOPBACK[..], &["--data", &data, "--tls-port", &port]].concat());
    assert!(
        error.contains("TCP") && error.contains(&port) && error.contains("in use"),
        "{error}"
    );
}

/// A node, destroyed when dropped.
struct Node(u32);

impl Node {
    fn create() -> Self {
        let options = NodeOptions {
            app: "serve-test".into(),
            bind: "127.0.0.1:0".into(),
            identity_file: String::new(),
            access_key: String::new(),
            public_address: None,
            max_peers: 4,
            lost_peer_timeout_ms: options::DEFAULT_LOST_PEER_TIMEOUT_MS,
            join_timeout_ms: options::DEFAULT_JOIN_TIMEOUT_MS,
            router_max: 0,
            relay_policy: RelayPolicy::Fallback,
            accept_from: AcceptFrom::App,
            join_manual: false,
            partial_mesh: false,
        };
        Self(shell::create(options).unwrap())
    }

    fn connect(&self, server: SocketAddr, key: Option<PublicKey>) {
        let command = |request| lanline::peer::api::Command::ConnectServer {
            request,
            host: server.ip().to_string(),
            port: server.port(),
            key,
        };
        shell::with_node(self.0, |node| node.ask(command)).unwrap();
    }

    /// The next event of one of those kinds.
    fn event(&self, kinds: &[EventType]) -> OwnedEvent {
        loop {
            let events = shell::with_node(self.0, |node| {
                assert!(node.wait(Duration::from_secs(60))?, "nothing happens");
                owned::poll(node)
            });
            let mut events = events.unwrap().into_iter();
            if let Some(event) = events.find(|event| kinds.contains(&event.kind)) {
                return event;
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = shell::destroy(self.0, Duration::from_secs(2));
    }
}

const OUTCOMES: [EventType; 2] = [EventType::ServerConnected, EventType::ServerFailed];

/// Nobody answers UDP on the port that the player was given; TCP with that number is the server's.
#[test]
fn players_whose_udp_gets_no_answer_come_by_tls() {
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Serving::start(&[&LOOPBACK[..], &["--data", &data, "--tls-port", "0"]].concat());
    let tls: SocketAddr = server.ready["tls"].as_str().unwrap().parse().unwrap();
    let key = PublicKey::from_hex(server.ready["key"].as_str().unwrap());
    assert!(key.is_some());
    let players: Vec<Node> = (0..3).map(|_| Node::create()).collect();
    players.iter().for_each(|player| player.connect(tls, key));
    for player in &players {
        let event = player.event(&OUTCOMES);
        assert_eq!(event.kind, EventType::ServerConnected, "{}", event.text);
        assert!(event.address.unwrap().ip().is_loopback());
    }
    // One that wants another key hears whose it is.
    let stranger = Node::create();
    stranger.connect(tls, Some(PublicKey([0x11; 32])));
    let event = stranger.event(&OUTCOMES);
    assert_eq!((event.kind, event.code), (EventType::ServerFailed, Code::WrongKey));
    let words = format!(
        "TCP {}: another key ({})",
        tls.port(),
        server.ready["key"].as_str().unwrap()
    );
    assert!(event.text.contains(&words), "{}", event.text);
    // The server's goodbye comes through the stream, too.
    let (code, errors) = server.end("-TERM");
    assert_eq!(code, Some(0), "{errors}");
    for player in &players {
        let event = player.event(&[EventType::ServerLost]);
        assert_eq!(event.code, Code::Closed, "{}", event.text);
    }
}

#[test]
fn wrong_flags_and_folders_are_said_in_one_line() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "").unwrap();
    let file = folder.path("file");
    for (arguments, part) in [
        (&["serve", "--no-such-flag"][..], "--no-such-flag"),
        (&["serve", "--port", "70000"][..], "--port"),
        (&["serve", "--port"][..], "--port"),
        (&["serve", "--listen", "localhost"][..], "--listen"),
        (
            &["serve", "--listen", "203.0.113.1", "--data", &folder.path("data")][..],
            "203.0.113.1",
        ),
        (&["serve", "--http", "8080"][..], "--http"),
        (&["serve", "--store", "files"][..], "--store"),
        (&["serve", "--relay", "perhaps"][..], "--relay"),
        (&["serve", "--tls-port", "http"][..], "--tls-port"),
        (&["serve", "--log", "loud"][..], "--log"),
        (&["serve", "--data", &file][..], &file),
        (&["serve", "--config", "/no/such/file"][..], "/no/such/file"),
        (&["serve", "--relay-only"][..], "--join"),
        (&["serve", "--relay-only", "--join", "127.0.0.1:1"][..], "--password"),
        (
            &["serve", "--join", "127.0.0.1:1", "--password", "x"][..],
            "--relay-only",
        ),
        (
            &["serve", "--relay-only", "--join", "127.0.0.1", "--password", "x"][..],
            "HOST:PORT",
        ),
        (&["serve", "--password", ""][..], "--password"),
        (&["dance"][..], "dance"),
        (&[][..], "lanline serve"),
    ] {
        let error = refused(arguments);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn a_certificate_that_cannot_be_read_is_said_in_one_line() {
    let folder = Folder::new();
    let (missing, data) = (folder.path("missing.pem"), folder.path("data"));
    for flag in ["--tls-cert", "--tls-key"] {
        for file in [&missing, &folder.path("")] {
            let error = refused(&[&["serve"], &LOOPBACK[..], &["--data", &data, flag, file]].concat());
            assert!(error.contains(flag) && error.contains(file.as_str()), "{error}");
        }
    }
}

#[test]
fn a_configuration_file_has_the_flags_names_and_flags_win() {
    let folder = Folder::new();
    let (config, data) = (folder.path("lanline.conf"), folder.path("data"));
    let text = format!(
        "# a comment\n\nlisten = 127.0.0.1\n listen=127.0.0.2\nport = 70\nalt-port = 0\ndata = {data}\nhttp = off\n"
    );
    fs::write(&config, text).unwrap();
    let server = Serving::start(&["--config", &config, "--port", "0"]);
    assert_eq!(server.ready["udp"].as_array().unwrap().len(), 2);
    assert_eq!(server.address("udp").ip().to_string(), "127.0.0.1");
    drop(server);
    let server = Serving::start(&["--config", &config, "--port", "0", "--listen", "127.0.0.3"]);
    assert_eq!(server.ready["udp"].as_array().unwrap().len(), 1);
    assert_eq!(server.address("udp").ip().to_string(), "127.0.0.3");
    for (line, part) in [
        ("port = many", "port"),
        ("speed = 3", "speed"),
        ("port", "port"),
        ("config = x", "config"),
    ] {
        fs::write(&config, format!("listen = 127.0.0.1\n{line}\n")).unwrap();
        let error = refused(&["serve", "--config", &config]);
        assert!(
            error.contains(&format!("{config}:2")) && error.contains(part),
            "{error}"
        );
    }
}

#[test]
fn what_was_asked_for_and_is_missing_is_said() {
    let folder = Folder::new();
    let data = folder.path("data");
    let asked = ["--http", "127.0.0.1:0", "--gate-port", "6510", "--data", &data];
    let server = Serving::start(&[&LOOPBACK[..], &asked].concat());
    assert!(server.ready["http"].is_null());
    let (_, errors) = server.end("-TERM");
    for flag in ["--http", "--gate-port"] {
        assert!(
            errors.lines().any(|line| line.contains("WARN") && line.contains(flag)),
            "{flag}: {errors}"
        );
    }
    let server = Serving::start(&[&LOOPBACK[..], &["--http", "off", "--relay", "off", "--data", &data]].concat());
    let (_, errors) = server.end("-TERM");
    assert!(!errors.contains("WARN"), "{errors}");
}

#[test]
fn help_and_version_are_printed() {
    for (arguments, part) in [
        (&["--help"][..], "serve"),
        (&["serve", "--help"][..], "--alt-port"),
        (&["--version"][..], "lanline"),
    ] {
        let output = lanline(arguments).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(part));
    }
}

/// Reads what a server logs until a line has that text; the line.
fn logged(errors: &mut impl BufRead, text: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(
            errors.read_line(&mut line).unwrap() > 0,
            "it ended, and never said {text:?}: {all}"
        );
        if line.contains(text) {
            return line;
        }
        all += &line;
    }
}

#[test]
fn a_proxy_server_logs_in_to_its_coordinator_and_leaves() {
    let folder = Folder::new();
    let data = folder.path("data");
    let data = ["--data", &data];
    let mut coordinator = Serving::start(&[&LOOPBACK[..], &data, &["--password", "correct horse"]].concat());
    assert_eq!(coordinator.ready.get("relay_only"), None);
    let mut log = BufReader::new(coordinator.child.stderr.take().unwrap());
    let address = coordinator.address("udp").to_string();
    let join = ["--relay-only", "--join", &address];

    // The same folder: a proxy server beside its coordinator is somebody else.
    let right = [&LOOPBACK[..], &data, &join, &["--password", "correct horse"]].concat();
    let mut proxy = Serving::start(&right);
    assert_eq!(proxy.ready["relay_only"], Value::Bool(true));
    assert!(proxy.ready["key"] != coordinator.ready["key"]);
    let line = logged(&mut log, "logged in");
    assert!(line.contains(&proxy.address("udp").to_string()), "{line}");
    let mut own_log = BufReader::new(proxy.child.stderr.take().unwrap());
    logged(&mut own_log, "logged in to");
    // It answers STUN, by which players measure how far it is.
    let (asked_from, from, response) = stun(proxy.address("udp"), ChangeRequest::default());
    assert_eq!(from, proxy.address("udp"));
    assert!(matches!(response, Response::Success { mapped, .. } if mapped == asked_from));

    let other = folder.path("other");
    let wrong = [
        &LOOPBACK[..],
        &["--data", &other],
        &join,
        &["--password", "battery staple"],
    ]
    .concat();
    let mut stranger = Serving::start(&wrong);
    let mut strangers_log = BufReader::new(stranger.child.stderr.take().unwrap());
    let line = logged(&mut strangers_log, "cannot log in");
    assert!(line.contains("the password is wrong"), "{line}");
    logged(&mut log, "was not let in: the password is wrong");

    let id = proxy.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(proxy.child.wait().unwrap().code(), Some(0));
    let line = logged(&mut log, "is gone");
    assert!(line.contains("the proxy server is shutting down"), "{line}");
}

#[test]
fn a_proxy_server_without_a_coordinator_says_so_and_ends_in_time() {
    let folder = Folder::new();
    // A port that nobody has: bound, and let go.
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let data = folder.path("data");
    let join = [
        "--data",
        &data,
        "--relay-only",
        "--join",
        &nobody,
        "--relay-password",
        "x",
    ];
    let mut proxy = Serving::start(&[&LOOPBACK[..], &join].concat());
    let mut log = BufReader::new(proxy.child.stderr.take().unwrap());
    let line = logged(&mut log, "cannot log in");
    assert!(line.contains("no answer") && line.contains("trying again"), "{line}");
    let id = proxy.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(proxy.child.wait().unwrap().code(), Some(0));
}
