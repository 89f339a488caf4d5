//! `lanline demo`: the main job on loopback, told as a story.
//!
//! Starts a server, one hosting player and three joining ones (C programs: `lanline-harness`), lets them join and chat, kills the
//! host, and follows the others as they go on under a new one. Where a connection begins over the server's relay, the story waits for
//! the direct way. Succeeds only if every step happened, and every two players reached each other directly.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A player that is killed is noticed within this time: short, so that the story does not drag.
const LOST_PEER_MS: u32 = 2000;
/// No step takes longer than this unless something is broken: the longest one is noticing the dead host.
const STEP_LIMIT: Duration = Duration::from_secs(6);
/// The direct way takes over within this time: opening one takes ten seconds at the most where it takes long, and a machine's loopback is no
/// such place.
const DIRECT_LIMIT: Duration = Duration::from_secs(12);
/// The contract's bound for a server to end after SIGTERM.
const SERVER_END_LIMIT: Duration = Duration::from_secs(5);
/// Lines shown of what was seen when a step fails.
const SHOWN_LINES: usize = 12;

/// Runs the demo; the transcript goes to standard output.
pub fn run() -> ExitCode {
    let mut story = Story { start: Instant::now() };
    match play(&mut story) {
        Ok(()) => {
            story.tell("The end: everything happened as it should.");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("\nThe demo failed.\n{failure}");
            ExitCode::FAILURE
        }
    }
}

struct Story {
    start: Instant,
}

impl Story {
    fn tell(&mut self, sentence: &str) {
        println!("+{:.3} s  {sentence}", self.start.elapsed().as_secs_f64());
    }
}

/// A child process that writes JSON lines. Killed and reaped when dropped.
struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Came, but nobody asked for it yet.
    waiting: VecDeque<Value>,
    /// The last lines, for the report of a failure.
    seen: VecDeque<String>,
}

impl Process {
    fn start(name: &str, program: &Path, arguments: &[String]) -> Result<Self, String> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name}: cannot start {}: {error}", program.display()))?;
        let (sender, lines) = channel();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let input = child.stdin.take();
        Ok(Self {
            name: name.into(),
            child,
            input,
            lines,
            waiting: VecDeque::new(),
            seen: VecDeque::new(),
        })
    }

    /// The first line that has not been asked for yet and fits.
    fn expect(&mut self, step: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, String> {
        self.expect_within(STEP_LIMIT, step, fits)
    }

    fn expect_within(&mut self, limit: Duration, step: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, String> {
        if let Some(at) = self.waiting.iter().position(&fits) {
            return Ok(self.waiting.remove(at).unwrap_or_default());
        }
        let deadline = Instant::now() + limit;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.remember(&line);
                    // What is not JSON is a log line of the server: kept for the report only.
                    let Ok(value) = serde_json::from_str::<Value>(&line) else {
                        continue;
                    };
                    if fits(&value) {
                        return Ok(value);
                    }
                    self.waiting.push_back(value);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.report(step, &format!("did not happen within {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.report(step, "the program ended")),
            }
        }
    }

    fn remember(&mut self, line: &str) {
        if self.seen.len() == SHOWN_LINES {
            self.seen.pop_front();
        }
        self.seen.push_back(line.to_owned());
    }

    fn report(&self, step: &str, what: &str) -> String {
        let mut report = format!("step: {step}\nwhat went wrong: {what}\nwhat {} said last:\n", self.name);
        if self.seen.is_empty() {
            report.push_str("  (nothing)\n");
        }
        for line in &self.seen {
            report.push_str(&format!("  {line}\n"));
        }
        report
    }

    /// An event of that name from (or about) that player.
    fn event(&mut self, step: &str, name: &str, peer: &str) -> Result<Value, String> {
        self.expect(step, |line| {
            line["event"] == name && (peer.is_empty() || line["peer"] == peer)
        })
    }

    /// Sends a command and takes its result, which must be OK.
    fn command(&mut self, step: &str, line: &str) -> Result<Value, String> {
        let verb = line.split(' ').next().unwrap_or_default();
        let written = match &mut self.input {
            Some(input) => writeln!(input, "{line}").and_then(|()| input.flush()),
            None => Ok(()),
        };
        if let Err(error) = written {
            return Err(self.report(step, &format!("cannot write `{line}` to {}: {error}", self.name)));
        }
        let result = self.expect(step, |answer| answer["result"] == verb)?;
        if result["code"] == 0 {
            Ok(result)
        } else {
            Err(self.report(step, &format!("`{line}` answered {result}")))
        }
    }

    /// Waits for the process to end by itself.
    fn ended(&mut self, step: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.report(step, &format!("it ended with {status}"))),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return Err(self.report(step, "it does not end")),
                Err(error) => return Err(self.report(step, &error.to_string())),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for the server's identity, gone when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Player {
    process: Process,
    guid: String,
}

impl Player {
    fn name(&self) -> String {
        self.process.name.clone()
    }
}

fn play(story: &mut Story) -> Result<(), String> {
    let harness = find_harness()?;
    let folder = Folder(std::env::temp_dir().join(format!("lanline-demo-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).map_err(|error| format!("cannot make {}: {error}", folder.0.display()))?;
    let (mut server, address) = start_server(story, &folder.0)?;

    let mut players = Vec::new();
    for name in ["Alice", "Bob", "Carol", "Dave"] {
        players.push(start_player(name, &harness, &address)?);
    }
    story.tell("Alice, Bob, Carol and Dave are at the server, each in a program of their own.");

    players[0]
        .process
        .command("Alice opens a session", "reset_host_calculation")?;
    story.tell("Alice opens a session; she is its host.");
    for joiner in 1..players.len() {
        join(story, &mut players, joiner)?;
    }
    chat(
        story,
        &mut players,
        &["hello", "hi Alice", "nice castle", "who brought the dragon?"],
    )?;

    let mut alice = players.remove(0);
    alice
        .process
        .child
        .kill()
        .map_err(|error| format!("cannot kill Alice's program: {error}"))?;
    let killed = Instant::now();
    story.tell("Alice's program is killed (SIGKILL): not a word of goodbye.");
    host_change(story, &mut players, &alice, killed)?;
    chat(story, &mut players, &["I'll take over", "phew", "on we go"])?;

    for player in &mut players {
        let step = format!("{} leaves", player.name());
        player.process.command(&step, "quit")?;
        player.process.ended(&step, STEP_LIMIT)?;
    }
    stop_server(&mut server)?;
    story.tell("Bob, Carol and Dave leave; the server is shut down.");
    Ok(())
}

/// The C program that plays the players: named by `LANLINE_HARNESS`, or beside this program, or where `make build` puts it.
fn find_harness() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("LANLINE_HARNESS") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program's own path: {error}"))?;
    let beside = own.with_file_name("lanline-harness");
    let built = own.ancestors().map(|folder| folder.join("examples-c/lanline-harness"));
    std::iter::once(beside).chain(built).find(|path| path.is_file()).ok_or_else(|| {
        "lanline-harness is not there: run `make build` first, or name it by the environment variable LANLINE_HARNESS".into()
    })
}

fn start_server(story: &mut Story, data: &Path) -> Result<(Process, String), String> {
    let step = "the server starts";
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program's own path: {error}"))?;
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1",
        "--port",
        "0",
        "--alt-port",
        "0",
        "--http",
        "off",
        "--gate-port",
        "off",
    ];
    let mut arguments: Vec<String> = arguments.map(String::from).to_vec();
    arguments.extend(["--data".into(), data.display().to_string()]);
    let mut server = Process::start("the server", &own, &arguments)?;
    let ready = server.expect(step, |line| line["ready"] == true)?;
    let address = ready["udp"][0]
        .as_str()
        .ok_or_else(|| server.report(step, "its ready line names no UDP address"))?
        .to_owned();
    story.tell(&format!("A server is ready at {address}."));
    Ok((server, address))
}

fn stop_server(server: &mut Process) -> Result<(), String> {
    let step = "the server ends after SIGTERM";
    // The program `kill`: sending a signal is no part of the standard library.
    let sent = Command::new("kill")
        .args(["-TERM", &server.child.id().to_string()])
        .status();
    match sent {
        Ok(status) if status.success() => server.ended(step, SERVER_END_LIMIT),
        // Without that program the server is ended with this one.
        _ => Ok(()),
    }
}

fn start_player(name: &str, harness: &Path, server: &str) -> Result<Player, String> {
    let settings = ["app=lanline-demo".to_owned(), format!("timeout_ms={LOST_PEER_MS}")];
    let mut process = Process::start(name, harness, &settings)?;
    let ready = process.event(&format!("{name}'s program starts"), "READY", "")?;
    let guid = ready["guid"].as_str().unwrap_or_default().to_owned();
    let step = format!("{name} connects to the server");
    process.command(&step, &format!("connect server={server}"))?;
    process.expect(&step, |line| line["event"] == "SERVER_CONNECTED")?;
    Ok(Player { process, guid })
}

/// Player number `joiner` connects to the host and joins; those before it are in already.
fn join(story: &mut Story, players: &mut [Player], joiner: usize) -> Result<(), String> {
    let (host, name) = (players[0].guid.clone(), players[joiner].name());
    let guid = players[joiner].guid.clone();

    let step = format!("{name} connects to Alice");
    players[joiner]
        .process
        .command(&step, &format!("connect_peer peer={host}"))?;
    players[0].process.event(&step, "CONNECTED", &guid)?;
    reach(story, players, joiner, 0)?;

    let step = format!("{name} joins");
    players[0].process.command(
        &step,
        &format!("start_verified_join peer={guid} text=\"the red castle\""),
    )?;
    players[joiner].process.event(&step, "VERIFIED_JOIN_START", &host)?;
    players[0].process.event(&step, "VERIFIED_JOIN_CAPABLE", &guid)?;
    players[0]
        .process
        .command(&step, &format!("respond_join peer={guid} accept=1 text=\"come in\""))?;
    players[joiner].process.event(&step, "VERIFIED_JOIN_ACCEPTED", &host)?;
    for member in &mut players[..joiner] {
        member.process.event(
            &format!("{} hears that {name} joined", member.name()),
            "MEMBER_JOINED",
            &guid,
        )?;
    }
    let host_step = format!("{name} is told who the host is");
    players[joiner].process.event(&host_step, "NEW_HOST", &host)?;
    // The library connected to the other members by itself.
    for member in 1..joiner {
        reach(story, players, joiner, member)?;
    }
    let others = if joiner == 1 { "Alice" } else { "every other player" };
    story.tell(&format!(
        "{name} has reached {others} and is accepted; everybody is told."
    ));
    Ok(())
}

/// One player is connected to another: over which way, and if that is a relay, that the direct one follows.
fn reach(story: &mut Story, players: &mut [Player], from: usize, to: usize) -> Result<(), String> {
    let (name, other) = (players[from].name(), players[to].name());
    let (peer, process) = (players[to].guid.clone(), &mut players[from].process);
    let is_direct = |path: &Value| path == "direct" || path == "lan";
    let step = format!("{name} is connected to {other}");
    let connected = process.event(&step, "CONNECTED", &peer)?;
    let path = connected["path"].as_str().unwrap_or("?");
    if is_direct(&connected["path"]) {
        story.tell(&format!("{name} connects to {other} (path: {path})."));
        return Ok(());
    }
    story.tell(&format!(
        "{name} connects to {other} (path: {path}, through the server's relay: they can play while a direct way is opened)."
    ));
    let step = format!("{name} reaches {other} directly");
    let changed = process.expect_within(DIRECT_LIMIT, &step, |line| {
        line["event"] == "PATH_CHANGED" && line["peer"] == *peer && is_direct(&line["to"])
    })?;
    story.tell(&format!(
        "{name} and {other} have a direct way now (path: {}); the relay is not needed any more.",
        changed["to"].as_str().unwrap_or("?")
    ));
    Ok(())
}

/// Everybody says something, and everybody else must hear it.
fn chat(story: &mut Story, players: &mut [Player], words: &[&str]) -> Result<(), String> {
    for (speaker, said) in words.iter().enumerate() {
        let (name, guid) = (players[speaker].name(), players[speaker].guid.clone());
        let step = format!("{name} says: {said}");
        players[speaker]
            .process
            .command(&step, &format!("send peer=all text=\"{said}\""))?;
        for (listener, player) in players.iter_mut().enumerate() {
            if listener == speaker {
                continue;
            }
            let heard = format!("{} hears {name}: {said}", player.name());
            player.process.expect(&heard, |line| {
                line["event"] == "MESSAGE" && line["peer"] == *guid && line["text"] == *said
            })?;
            story.tell(&heard);
        }
    }
    Ok(())
}

/// The host is dead: the others notice, and agree on the next one.
fn host_change(story: &mut Story, players: &mut [Player], dead: &Player, killed: Instant) -> Result<(), String> {
    let (next, next_name) = (players[0].guid.clone(), players[0].name());
    for player in players.iter_mut() {
        let name = player.name();
        player.process.event(
            &format!("{name} notices that {} is gone", dead.name()),
            "DISCONNECTED",
            &dead.guid,
        )?;
        story.tell(&format!("{name} notices that {} is gone.", dead.name()));
        let step = format!("{name} is told that {next_name} is the host now");
        let news = player
            .process
            .expect(&step, |line| line["event"] == "NEW_HOST" && line["old"] == *dead.guid)?;
        if news["peer"] != *next {
            return Err(player.process.report(&step, &format!("another host was named: {news}")));
        }
        let who = if player.guid == next {
            "is the host now".to_owned()
        } else {
            format!("hears that {next_name} is the host now")
        };
        story.tell(&format!("{name} {who}."));
    }
    story.tell(&format!(
        "From the kill to the new host everywhere: {:.1} s.",
        killed.elapsed().as_secs_f64()
    ));
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A player whose program says these lines and ends.
    fn saying(lines: &str) -> Player {
        let arguments = ["-c".to_owned(), format!("printf '%s\\n' {lines}")];
        let process = Process::start("Bob", Path::new("sh"), &arguments).expect("a shell");
        Player {
            process,
            guid: "1".to_owned(),
        }
    }

    fn reached(lines: &str) -> Result<(), String> {
        let mut story = Story { start: Instant::now() };
        let mut players = [saying(lines), saying("")];
        reach(&mut story, &mut players, 0, 1)
    }

    #[test]
    fn a_connection_that_stays_on_the_relay_is_no_success() {
        let direct = r#"'{"event":"CONNECTED","peer":"1","path":"direct"}'"#;
        let proxied = r#"'{"event":"CONNECTED","peer":"1","path":"proxied"}'"#;
        let moved = r#"'{"event":"PATH_CHANGED","peer":"1","from":"proxied","to":"lan"}'"#;
        let routed = r#"'{"event":"PATH_CHANGED","peer":"1","from":"proxied","to":"routed"}'"#;
        let other = r#"'{"event":"PATH_CHANGED","peer":"2","from":"proxied","to":"lan"}'"#;
        assert_eq!(reached(direct), Ok(()));
        assert_eq!(reached(&format!("{proxied} {routed} {moved}")), Ok(()));
        let failure = reached(&format!("{proxied} {routed} {other}")).expect_err("no direct way");
        assert!(failure.contains("reaches Bob directly"), "{failure}");
    }
}
