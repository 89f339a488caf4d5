//! The C harness and, through it, the C ABI: bad input, odd bytes, the ends of the line protocol. Runs the harness with
//! sanitizers if it was built (`make sanitized`).

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A bound for a broken run, not a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

#[path = "harness/relays.rs"]
mod relays;

struct Harness {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Harness {
    /// `None`, after saying so, if the harness is not built; with `CI=true` that is a failure.
    fn start(settings: &[&str]) -> Option<Self> {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/examples-c");
        let sanitized = target.join("sanitized/lanline-harness");
        let program = std::env::var_os("LANLINE_HARNESS").map(PathBuf::from);
        let program = program.unwrap_or(if sanitized.is_file() {
            sanitized
        } else {
            target.join("lanline-harness")
        });
        if !program.is_file() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{} is missing",
                program.display()
            );
            // Not through println: the test runner would swallow it.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {} is missing: run `make build` first",
                program.display()
            );
            return None;
        }
        let mut child = Command::new(program)
            // Cargo's own value names the folder of the library of this test build; the harness brings its own.
            .env_remove("LD_LIBRARY_PATH")
            .arg("bind=127.0.0.1:0")
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the harness starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let line = line.expect("output is UTF-8");
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Some(Harness { child, input, lines })
    }

    fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("the input is open");
        input
            .write_all(bytes)
            .and_then(|()| input.flush())
            .expect("the harness reads");
    }

    /// The next line that fits; what comes before is thrown away.
    fn expect(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("waited in vain for {what}"));
            if fits(&line) {
                return line;
            }
        }
    }

    /// Writes one command line and gives its result.
    fn command(&mut self, line: &[u8]) -> Value {
        self.write(line);
        self.write(b"\n");
        self.expect(&String::from_utf8_lossy(line), |answer| answer.get("result").is_some())
    }

    fn ready(&mut self) -> (String, String) {
        let ready = self.expect("READY", |line| line["event"] == "READY");
        let guid = ready["guid"].as_str().expect("a guid is a string").to_owned();
        (guid, ready["key"].as_str().expect("a key is a string").to_owned())
    }

    /// Closes the input, if it still is open, and waits for the end; true if the harness exited with 0.
    fn ends_well(mut self) -> bool {
        drop(self.input.take());
        let deadline = Instant::now() + PATIENCE;
        // The channel ends when the harness closes its output.
        while self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
        {}
        assert!(Instant::now() < deadline, "the harness does not end");
        self.child.wait().expect("the harness can be waited for").success()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bad_commands_are_answered_and_the_harness_goes_on() {
    let Some(mut harness) = Harness::start(&[]) else { return };
    let (guid, key) = harness.ready();
    assert_eq!(key.len(), 64);
    let to_itself = format!("open_nat peer={guid}");
    let route_to_itself = format!("route peer={guid}");
    let proxy_to_itself = format!("proxy peer={guid}");
    let cases: &[(&[u8], &str, &str)] = &[
        (b"frobnicate", "INVALID_ARGUMENT", "frobnicate"),
        (b"\xff\xfe\x01", "INVALID_ARGUMENT", "no such verb"),
        (b"connect", "INVALID_ARGUMENT", "server"),
        (b"connect server", "INVALID_ARGUMENT", "key=value"),
        (b"connect server=\"127.0.0.1:1", "INVALID_ARGUMENT", "quoted"),
        (b"connect server=\"\\x\"", "INVALID_ARGUMENT", "escape"),
        (b"connect server=\"a\"b", "INVALID_ARGUMENT", "space"),
        (b"connect server=127.0.0.1:1 key=12", "INVALID_ARGUMENT", "key"),
        (b"connect server=127.0.0.1:1 colour=red", "INVALID_ARGUMENT", "colour"),
        (b"connect server=\"\"", "INVALID_ARGUMENT", "address"),
        (b"connect server=127.0.0.1:99999", "INVALID_ARGUMENT", "address"),
        (b"open_nat", "INVALID_ARGUMENT", "peer"),
        (b"open_nat peer=0", "INVALID_ARGUMENT", "peer"),
        (b"open_nat peer=18446744073709551616", "INVALID_ARGUMENT", "peer"),
        (b"open_nat peer=18446744073709551615", "INVALID_ARGUMENT", "peer"),
        (to_itself.as_bytes(), "SELF", ""),
        (b"connect_peer", "INVALID_ARGUMENT", "peer or address"),
        (b"connect_peer address=here", "INVALID_ARGUMENT", "address"),
        (b"disconnect peer=5", "NOT_CONNECTED", ""),
        (b"send peer=5 text=x", "NOT_CONNECTED", ""),
        (b"send peer=5 mode=loud text=x", "INVALID_ARGUMENT", "mode"),
        (b"send peer=5 channel=64 text=x", "INVALID_ARGUMENT", "channel"),
        (b"send peer=5 channel=300 text=x", "INVALID_ARGUMENT", "channel"),
        (b"send peer=5 bytes=many", "INVALID_ARGUMENT", "bytes"),
        (b"start_verified_join peer=5", "NOT_CONNECTED", ""),
        (b"respond_join peer=5 accept=2", "INVALID_ARGUMENT", "accept"),
        (b"stats peer=5", "NOT_CONNECTED", ""),
        (b"cancel request=4000000000", "NOT_FOUND", ""),
        (b"wait event=NOTHING_OF_THE_KIND", "INVALID_ARGUMENT", "event"),
        (b"wait event=MESSAGE timeout_ms=1", "TIMEOUT", "MESSAGE"),
        (b"route", "INVALID_ARGUMENT", "peer"),
        (b"route peer=0", "INVALID_ARGUMENT", "peer"),
        (b"route peer=5 idle_ms=1", "INVALID_ARGUMENT", "idle_ms"),
        (route_to_itself.as_bytes(), "SELF", ""),
        (b"proxy", "INVALID_ARGUMENT", "peer"),
        (b"proxy peer=somebody", "INVALID_ARGUMENT", "peer"),
        (b"proxy peer=5 idle_ms=soon", "INVALID_ARGUMENT", "idle_ms"),
        (b"proxy peer=5 idle_ms=600001", "INVALID_ARGUMENT", "idle_ms"),
        (proxy_to_itself.as_bytes(), "SELF", ""),
        (b"relay_policy policy=sometimes", "INVALID_ARGUMENT", "policy"),
        (b"relay_policy session=2", "INVALID_ARGUMENT", "session"),
        (b"relay_policy peer=5", "INVALID_ARGUMENT", "peer"),
        (b"graph", "UNSUPPORTED", "graph"),
        (b"room_list url=http://127.0.0.1/x game=1", "UNSUPPORTED", "room_list"),
    ];
    for (line, name, text) in cases {
        let answer = harness.command(line);
        let shown = String::from_utf8_lossy(line);
        assert_eq!(answer["name"], *name, "{shown}: {answer}");
        assert!(
            answer["code"].as_i64().is_some_and(|code| code < 0),
            "{shown}: {answer}"
        );
        assert!(
            answer["text"].as_str().is_some_and(|words| words.contains(text)),
            "{shown}: {answer}"
        );
    }
    for line in [
        "host",
        "participants",
        "stats",
        "reset_host_calculation",
        "sleep ms=1",
        "  host  ",
        "host\r",
    ] {
        assert_eq!(harness.command(line.as_bytes())["code"], 0, "{line}");
    }
    assert!(harness.ends_well());
}

#[test]
fn a_line_that_is_too_long_is_refused_once() {
    let Some(mut harness) = Harness::start(&[]) else { return };
    harness.ready();
    let mut line = b"connect server=".to_vec();
    line.resize(700 * 1024, b'x');
    assert_eq!(harness.command(&line)["name"], "TOO_LARGE");
    assert_eq!(harness.command(b"host")["result"], "host");
    assert!(harness.ends_well());
}

#[test]
fn the_last_line_needs_no_newline_and_quit_ends() {
    let Some(mut harness) = Harness::start(&[]) else { return };
    harness.ready();
    harness.write(b"host");
    drop(harness.input.take());
    harness.expect("the result of host", |line| line["result"] == "host");
    assert!(harness.ends_well());

    let Some(mut harness) = Harness::start(&[]) else { return };
    harness.ready();
    assert_eq!(harness.command(b"quit\nhost")["result"], "quit");
    assert!(harness.ends_well());
}

#[test]
fn a_wrong_setting_ends_with_2() {
    for setting in [
        "colour=red",
        "relay=sometimes",
        "max_peers=many",
        "router_max=1025",
        "bind",
    ] {
        let Some(mut harness) = Harness::start(&[setting]) else {
            return;
        };
        assert_eq!(harness.child.wait().expect("it ends").code(), Some(2), "{setting}");
    }
}

/// Two harnesses on loopback, connected by address.
fn pair() -> Option<(Harness, String, Harness, String)> {
    // A free port: bound for a moment, then left to the harness.
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("loopback")
        .port();
    let mut a = Harness::start(&[])?;
    let mut b = Harness::start(&[&format!("bind=127.0.0.1:{port}")])?;
    let ((a_guid, _), (b_guid, _)) = (a.ready(), b.ready());
    let asked = a.command(format!("connect_peer peer={b_guid} address=127.0.0.1:{port}").as_bytes());
    let connected = a.expect("CONNECTED", |line| line["event"] == "CONNECTED");
    assert_eq!(
        (&connected["request"], &connected["peer"]),
        (&asked["request"], &Value::from(b_guid.as_str()))
    );
    let passive = b.expect("CONNECTED", |line| line["event"] == "CONNECTED");
    assert_eq!(
        (passive["request"].as_u64(), &passive["peer"]),
        (Some(0), &Value::from(a_guid.as_str()))
    );
    Some((a, a_guid, b, b_guid))
}

#[test]
fn texts_survive_whatever_bytes_they_hold() {
    let Some((mut a, _, mut b, b_guid)) = pair() else {
        return;
    };
    let long = "é".repeat(200);
    let cases: &[(Vec<u8>, String, u64)] = &[
        (b"plain".to_vec(), "plain".into(), 5),
        (
            br#""two words, \"quoted\", \\ and \u0000 \ud83d\ude00""#.to_vec(),
            "two words, \"quoted\", \\ and \0 😀".into(),
            33,
        ),
        (
            b"\xff\xc3\xa9\xed\xa0\x80\xf5".to_vec(),
            "\u{fffd}é\u{fffd}\u{fffd}\u{fffd}\u{fffd}".into(),
            7,
        ),
        (b"\"\\u0007\"".to_vec(), "\u{7}".into(), 1),
        // Cut at 256 bytes; a character that would be split is left out.
        (format!("x{long}").into_bytes(), format!("x{}", "é".repeat(127)), 401),
    ];
    for (sent, text, len) in cases {
        let line = [
            format!("send peer={b_guid} channel=3 mode=reliable text=").as_bytes(),
            sent,
        ]
        .concat();
        assert_eq!(a.command(&line)["code"], 0, "{}", String::from_utf8_lossy(sent));
        let message = b.expect("MESSAGE", |line| line["event"] == "MESSAGE");
        assert_eq!(message["text"], *text);
        assert_eq!(
            (&message["len"], &message["channel"], &message["mode"]),
            (&Value::from(*len), &3.into(), &"reliable".into())
        );
    }
    assert!(a.ends_well() && b.ends_well());
}

#[test]
fn sends_by_number_arrive_in_order_and_a_goodbye_carries_its_words() {
    let Some((mut a, a_guid, mut b, b_guid)) = pair() else {
        return;
    };
    assert_eq!(
        a.command(format!("send peer={b_guid} bytes=1000 count=2000").as_bytes())["sent"],
        2000
    );
    for number in 0..2000 {
        let message = b.expect("MESSAGE", |line| line["event"] == "MESSAGE");
        assert_eq!(message["len"], 1000);
        assert!(
            message["text"]
                .as_str()
                .is_some_and(|text| text.starts_with(&format!("{number:08} "))),
            "{message}"
        );
    }
    assert_eq!(
        a.command(format!("send peer={b_guid} mode=unreliable bytes=65537").as_bytes())["name"],
        "TOO_LARGE"
    );
    assert_eq!(
        a.command(format!("send peer={b_guid} bytes=1048577").as_bytes())["name"],
        "TOO_LARGE"
    );
    assert_eq!(
        a.command(format!("send peer={b_guid} bytes=1048576").as_bytes())["name"],
        "OK"
    );
    assert_eq!(b.expect("MESSAGE", |line| line["event"] == "MESSAGE")["len"], 1 << 20);
    a.command(format!("disconnect peer={b_guid} user_code=7 text=\"so long\"").as_bytes());
    let goodbye = b.expect("DISCONNECTED", |line| line["event"] == "DISCONNECTED");
    assert_eq!(
        (&goodbye["peer"], &goodbye["name"]),
        (&Value::from(a_guid.as_str()), &"CLOSED".into())
    );
    assert_eq!((&goodbye["text"], &goodbye["count"]), (&"so long".into(), &7.into()));
    a.expect("DISCONNECTED", |line| line["event"] == "DISCONNECTED");
    assert!(a.ends_well() && b.ends_well());
}

/// Two connected harnesses, the second a member of the first's session.
fn session() -> Option<(Harness, String, Harness, String)> {
    let (mut joiner, joiner_guid, mut host, host_guid) = pair()?;
    host.command(format!("start_verified_join peer={joiner_guid}").as_bytes());
    let start = joiner.expect("START", |line| line["event"] == "VERIFIED_JOIN_START");
    // Whom to connect to: nobody but the host is there.
    assert_eq!(start["count"], 0);
    host.expect("CAPABLE", |line| line["event"] == "VERIFIED_JOIN_CAPABLE");
    host.command(format!("respond_join peer={joiner_guid} accept=1").as_bytes());
    let accepted = joiner.expect("ACCEPTED", |line| line["event"] == "VERIFIED_JOIN_ACCEPTED");
    assert_eq!(accepted["count"], 2);
    host.expect("MEMBER_JOINED", |line| line["event"] == "MEMBER_JOINED");
    Some((host, host_guid, joiner, joiner_guid))
}

#[test]
fn quitting_and_the_end_of_input_are_told_to_everybody_at_once() {
    for quit in [true, false] {
        let Some((mut host, _, mut joiner, joiner_guid)) = session() else {
            return;
        };
        if quit {
            joiner.command(b"quit");
        }
        assert!(joiner.ends_well());
        // Had nothing been said, both would come after the lost-peer time, with code LOST.
        let left = host.expect("MEMBER_LEFT", |line| line["event"] == "MEMBER_LEFT");
        assert_eq!(
            (&left["peer"], &left["name"]),
            (&Value::from(joiner_guid.as_str()), &"LEFT".into())
        );
        let gone = host.expect("DISCONNECTED", |line| line["event"] == "DISCONNECTED");
        assert_eq!(
            (&gone["peer"], &gone["name"]),
            (&Value::from(joiner_guid.as_str()), &"CLOSED".into())
        );
        assert!(host.ends_well());
    }
}

#[test]
fn a_host_that_quits_hands_over_at_once() {
    let Some((host, host_guid, mut joiner, joiner_guid)) = session() else {
        return;
    };
    assert!(host.ends_well());
    // The first one, with whom it joined, replaced nobody.
    let new = joiner.expect("NEW_HOST", |line| {
        line["event"] == "NEW_HOST" && line["old"] == host_guid.as_str()
    });
    assert_eq!(new["peer"], Value::from(joiner_guid.as_str()));
    let gone = joiner.expect("DISCONNECTED", |line| line["event"] == "DISCONNECTED");
    assert_eq!(gone["name"], "CLOSED");
    assert!(joiner.ends_well());
}

#[test]
fn what_was_sent_before_a_disconnect_or_the_end_arrives() {
    for quit in [false, true] {
        let Some((mut a, _, mut b, b_guid)) = pair() else {
            return;
        };
        let mut commands = format!("send peer={b_guid} bytes=1000 count=500\n");
        commands += &if quit {
            "quit\n".to_owned()
        } else {
            format!("disconnect peer={b_guid}\n")
        };
        a.write(commands.as_bytes());
        for number in 0..500 {
            let line = b.expect("a message", |line| {
                line["event"] == "MESSAGE" || line["event"] == "DISCONNECTED"
            });
            assert_eq!(line["event"], "MESSAGE", "after {number}");
        }
        b.expect("DISCONNECTED", |line| line["event"] == "DISCONNECTED");
        assert!(a.ends_well() && b.ends_well());
    }
}

#[test]
fn the_join_timeout_is_the_settings() {
    // Three on loopback without a server: the last one does not connect to the member that it is told of.
    let port = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        socket.expect("loopback").port()
    };
    let at = port();
    let Some(mut host) = Harness::start(&[&format!("bind=127.0.0.1:{at}"), "join_timeout_ms=1500"]) else {
        return;
    };
    let (host_guid, _) = host.ready();
    let join = |settings: &[&str], host: &mut Harness| {
        let mut joiner = Harness::start(settings).expect("it is built");
        let (guid, _) = joiner.ready();
        joiner.command(format!("connect_peer peer={host_guid} address=127.0.0.1:{at}").as_bytes());
        joiner.expect("CONNECTED", |line| line["event"] == "CONNECTED");
        host.expect("CONNECTED", |line| line["event"] == "CONNECTED");
        host.command(format!("start_verified_join peer={guid}").as_bytes());
        (joiner, guid)
    };
    let (first, guid) = join(&[], &mut host);
    host.expect("CAPABLE", |line| line["event"] == "VERIFIED_JOIN_CAPABLE");
    host.command(format!("respond_join peer={guid} accept=1").as_bytes());
    host.expect("MEMBER_JOINED", |line| line["event"] == "MEMBER_JOINED");
    let (second, _) = join(&["join=manual"], &mut host);
    let failed = host.expect("FAILED", |line| line["event"] == "VERIFIED_JOIN_FAILED");
    assert_eq!(failed["name"], "TIMEOUT");
    assert!(first.ends_well() && second.ends_well() && host.ends_well());
}

#[test]
fn waiting_for_the_later_of_two_events_keeps_the_earlier() {
    let Some((mut a, _, mut b, b_guid)) = pair() else {
        return;
    };
    a.command(format!("disconnect peer={b_guid}").as_bytes());
    // CONNECTED came before DISCONNECTED and is still there afterwards; each is used up by its own wait.
    for (event, name) in [
        ("DISCONNECTED", "OK"),
        ("CONNECTED", "OK"),
        ("CONNECTED", "TIMEOUT"),
        ("DISCONNECTED", "TIMEOUT"),
    ] {
        let timeout = if name == "OK" { 20_000 } else { 0 };
        let answer = b.command(format!("wait event={event} timeout_ms={timeout}").as_bytes());
        assert_eq!(answer["name"], name, "{event}");
    }
    assert!(a.ends_well() && b.ends_well());
}

#[test]
fn figures_of_all_players_are_sums() {
    let Some((mut a, _, mut b, b_guid)) = pair() else {
        return;
    };
    a.command(format!("send peer={b_guid} bytes=10 count=5").as_bytes());
    for _ in 0..5 {
        b.expect("MESSAGE", |line| line["event"] == "MESSAGE");
    }
    let stats = b.command(b"stats");
    assert_eq!(
        (&stats["peers"], &stats["received"], &stats["sent"], &stats["path"]),
        (&1.into(), &5.into(), &0.into(), &"none".into()),
        "{stats}"
    );
    assert!(stats["rtt_us"].is_number() && stats["lost"].is_number(), "{stats}");
    assert!(
        stats["events_pending"].is_number() && stats["datagrams_dropped"].is_number(),
        "{stats}"
    );
    assert!(a.ends_well() && b.ends_well());
}

#[test]
fn the_verbs_about_nats_answer_as_they_should() {
    // Bound to loopback: no router is asked for anything.
    let Some(mut harness) = Harness::start(&["public=203.0.113.5:7000"]) else {
        return;
    };
    harness.ready();
    for (a, b, lanline, raknet) in [
        ("NONE", "SYMMETRIC", "YES", 1),
        ("ADDRESS_RESTRICTED", "SYMMETRIC", "YES", 1),
        ("PORT_RESTRICTED", "SYMMETRIC", "MAYBE", 0),
        ("SYMMETRIC", "SYMMETRIC", "MAYBE", 0),
        ("UNKNOWN", "NONE", "MAYBE", 0),
    ] {
        let answer = harness.command(format!("can_connect a={a} b={b}").as_bytes());
        assert_eq!(
            (&answer["lanline"], &answer["raknet"]),
            (&lanline.into(), &raknet.into()),
            "{answer}"
        );
    }
    for wrong in [
        "can_connect a=NONE",
        "can_connect a=none b=NONE",
        "detect_nat stun=host:0",
        "detect_nat stun=host:x",
        "detect_nat stun=",
        "detect_nat lifetime_ms=600001",
        "open_upnp timeout_ms=60001",
        "report map=2",
        "manual_port port=1",
    ] {
        // An empty server is none: the node's own is asked.
        let expected = if wrong == "detect_nat stun=" {
            "OK"
        } else {
            "INVALID_ARGUMENT"
        };
        assert_eq!(harness.command(wrong.as_bytes())["name"], expected, "{wrong}");
    }
    let port = harness.command(b"manual_port");
    assert_eq!(
        (&port["protocol"], &port["lasting"]),
        (&"UDP".into(), &0.into()),
        "{port}"
    );
    // At the router it is the port that was named as forwarded; inside it is the socket's.
    assert_eq!(port["port"], 7000, "{port}");
    let internal = port["internal"].as_str().expect("an address");
    assert!(
        internal.starts_with("127.0.0.1:") && !internal.ends_with(":7000"),
        "{port}"
    );
    assert!(!port["text"].as_str().expect("a text").is_empty());
    for stun in ["", " stun=127.0.0.1:9", " stun=[::1]:9", " lifetime_ms=1000"] {
        let request = harness.command(format!("detect_nat{stun}").as_bytes())["request"].clone();
        let event = harness.expect("NAT_TYPE", |line| {
            line["event"] == "NAT_TYPE" && line["request"] == request
        });
        let facts = (&event["type"], &event["certain"], &event["friendly"], &event["public"]);
        assert_eq!(
            facts,
            (&"UNKNOWN".into(), &0.into(), &0.into(), &Value::Null),
            "{event}"
        );
        assert_eq!(
            [&event["mapping"], &event["filtering"], &event["ports"]],
            ["unknown"; 3],
            "{event}"
        );
        assert!(
            event["code"].as_i64() < Some(0) && event["text"].as_str() > Some(""),
            "{event}"
        );
    }
    let request = harness.command(b"open_upnp timeout_ms=100")["request"].clone();
    let event = harness.expect("the end", |line| line["event"] == "PORT_MAPPING_FAILED");
    assert_eq!(
        (&event["request"], &event["name"]),
        (&request, &"UNSUPPORTED".into()),
        "{event}"
    );
    let request = harness.command(b"report map=0")["request"].clone();
    let event = harness.expect("REPORT", |line| line["event"] == "REPORT");
    assert_eq!(
        (&event["request"], &event["report"]["format"]),
        (&request, &1.into()),
        "{event}"
    );
    assert_eq!(event["report"]["addresses"]["manual"], "203.0.113.5:7000");
    assert!(harness.ends_well());
}
