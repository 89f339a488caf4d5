//! The verbs about relays, without a server and with a real one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{BufRead, BufReader, Harness, PATIENCE};

/// A server on loopback with its relay. Killed when it is dropped.
struct Server {
    child: Child,
    data: PathBuf,
    address: String,
}

impl Server {
    /// `None` if this build has no program.
    fn start(name: &str) -> Option<Self> {
        let data = std::env::temp_dir().join(format!("lanline-relays-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&data).expect("a folder");
        let mut child = Command::new(option_env!("CARGO_BIN_EXE_lanline")?)
            .args(["serve", "--listen", "127.0.0.1", "--port", "0", "--alt-port", "0"])
            .args(["--http", "off", "--gate-port", "off", "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        output.read_line(&mut line).expect("the server is ready");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let address = ready["udp"][0].as_str().expect("an address").to_owned();
        Some(Self { child, data, address })
    }

    /// A player that is at this server.
    fn player(&self, settings: &[&str]) -> Option<(Harness, String)> {
        let mut harness = Harness::start(settings)?;
        let (guid, _) = harness.ready();
        harness.command(format!("connect server={}", self.address).as_bytes());
        event(&mut harness, "SERVER_CONNECTED");
        Some((harness, guid))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn event(harness: &mut Harness, name: &str) -> Value {
    harness.expect(name, |line| line["event"] == name)
}

/// `name`, of the request that the command made.
fn ends_in(harness: &mut Harness, command: &str, name: &str) -> Value {
    let request = harness.command(command.as_bytes())["request"].clone();
    assert_ne!(request, 0, "{command}");
    harness.expect(name, |line| {
        assert!(
            line["request"] != request || line["event"] == name,
            "{command} ended in {line}"
        );
        line["request"] == request
    })
}

/// Asks until the answer fits.
fn becomes(harness: &mut Harness, command: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = harness.command(command.as_bytes());
        if fits(&answer) {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "{command} still answers {answer}");
        harness.command(b"sleep ms=5");
    }
}

/// Player `joiner` connects to `host` and joins; how it was connected.
fn join(host: (&mut Harness, &str), joiner: (&mut Harness, &str)) -> Value {
    let ((host, host_guid), (joiner, guid)) = (host, joiner);
    let connected = ends_in(joiner, &format!("connect_peer peer={host_guid}"), "CONNECTED");
    host.expect("CONNECTED", |line| {
        line["event"] == "CONNECTED" && line["peer"] == *guid
    });
    ends_in(
        host,
        &format!("start_verified_join peer={guid}"),
        "VERIFIED_JOIN_CAPABLE",
    );
    host.command(format!("respond_join peer={guid} accept=1").as_bytes());
    event(joiner, "VERIFIED_JOIN_ACCEPTED");
    connected
}

#[test]
fn without_a_server_each_wish_ends_with_its_own_event() {
    let Some(mut harness) = Harness::start(&["relay=fallback", "router_max=2"]) else {
        return;
    };
    harness.ready();
    let failed = ends_in(&mut harness, "route peer=4711", "ROUTER_FORWARDING_NO_PATH");
    assert!(
        failed["peer"] == "4711" && failed["code"].as_i64() < Some(0) && failed["text"].as_str() > Some(""),
        "{failed}"
    );
    let failed = ends_in(&mut harness, "proxy peer=4711 idle_ms=1000", "PROXY_NO_SERVERS_ONLINE");
    assert_eq!(
        (&failed["peer"], &failed["name"]),
        (&"4711".into(), &"SERVER_LOST".into()),
        "{failed}"
    );
    assert_eq!(harness.command(b"wait event=PROXY_NO_SERVERS_ONLINE")["code"], 0);
    harness.command(b"relay_policy policy=never");
    let failed = ends_in(&mut harness, "proxy peer=4711", "PROXY_NO_SERVERS_ONLINE");
    assert_eq!(failed["name"], "POLICY", "{failed}");
    let answer = harness.command(b"relay_policy session=only");
    assert_eq!(answer["name"], "WRONG_STATE", "{answer}");
    assert!(harness.ends_well());
}

#[test]
fn a_proxy_is_told_of_at_both_ends_and_carries_a_connection() {
    let Some(server) = Server::start("proxy") else { return };
    let (Some((mut a, a_guid)), Some((mut b, b_guid))) = (server.player(&[]), server.player(&["relay=only"])) else {
        return;
    };
    let found = ends_in(
        &mut a,
        &format!("proxy peer={b_guid} idle_ms=60000"),
        "PROXY_FORWARDING_SUCCEEDED",
    );
    let told = event(&mut b, "PROXY_FORWARDING_NOTIFICATION");
    assert_eq!(
        (&found["peer"], &told["peer"]),
        (&b_guid.into(), &a_guid.as_str().into())
    );
    for end in [&found, &told] {
        assert_eq!(
            (&end["path"], &end["address"]),
            (&"proxied".into(), &server.address.as_str().into()),
            "{end}"
        );
    }
    ends_in(&mut a, "proxy peer=4711", "PROXY_RECIPIENT_NOT_CONNECTED");
    let connected = ends_in(&mut b, &format!("connect_peer peer={a_guid}"), "CONNECTED");
    assert_eq!(
        (&connected["path"], &connected["address"]),
        (&"proxied".into(), &server.address.as_str().into()),
        "{connected}"
    );
    let stats = b.command(format!("stats peer={a_guid}").as_bytes());
    assert_eq!(
        (&stats["path"], &stats["address"]),
        (&"proxied".into(), &server.address.as_str().into()),
        "{stats}"
    );
    assert!(a.ends_well() && b.ends_well());
}

#[test]
fn in_a_session_that_is_only_nobody_sees_an_address() {
    let Some(server) = Server::start("only") else { return };
    let players = [
        server.player(&[]),
        server.player(&[]),
        server.player(&[]),
        server.player(&["relay=never"]),
    ];
    let [
        Some((mut a, a_guid)),
        Some((mut b, b_guid)),
        Some((mut c, c_guid)),
        Some((mut d, _)),
    ] = players
    else {
        return;
    };
    a.command(b"relay_policy session=only");
    becomes(&mut a, "relay_policy", |answer| {
        answer["session"] == "only" && answer["effective"] == "only"
    });
    for (joiner, guid) in [(&mut b, &b_guid), (&mut c, &c_guid)] {
        let connected = join((&mut a, &a_guid), (joiner, guid));
        assert_eq!(
            (&connected["path"], &connected["address"]),
            (&"proxied".into(), &server.address.as_str().into()),
            "{connected}"
        );
        let answer = joiner.command(b"relay_policy");
        assert_eq!(
            (&answer["session"], &answer["effective"]),
            (&"only".into(), &"only".into())
        );
    }
    for player in [&mut a, &mut b, &mut c] {
        let answer = player.command(b"participants");
        let list = answer["participants"].as_array().expect("a list");
        assert_eq!(list.len(), 2, "{answer}");
        assert!(list.iter().all(|member| member["path"] == "proxied"), "{answer}");
    }
    let failed = ends_in(&mut d, &format!("connect_peer peer={a_guid}"), "CONNECTION_FAILED");
    assert_eq!(failed["name"], "POLICY", "{failed}");
    // Whoever leaves is free again.
    c.command(b"leave");
    becomes(&mut c, "relay_policy", |answer| answer["effective"] == "fallback");
    assert!(a.ends_well() && b.ends_well() && c.ends_well() && d.ends_well());
}
