//! Programs in namespaces: the server, and players driven through `lanline-harness`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::network::Network;

/// A wait for an event is a bound for a broken run, not a measurement: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked at what other threads write down.
const GLANCE: Duration = Duration::from_millis(10);
/// A killed player is noticed within this time.
const LOST_PEER_MS: u32 = 2500;
/// The server's default port.
pub const PORT: u16 = 61111;

/// How the numbered messages of a conversation begin.
pub const FLOW: &str = "flow-";
/// What a harness answers to each of them.
const SENT: &str = "\"result\":\"send\",\"code\":0,";

/// Everything that was said, by everybody, in order: printed when a test fails.
#[derive(Clone)]
pub struct Transcript {
    start: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Transcript {
    pub fn new() -> Self {
        Transcript {
            start: Instant::now(),
            lines: Arc::default(),
        }
    }

    pub fn add(&self, who: &str, line: &str) {
        let time = self.start.elapsed().as_secs_f64();
        self.lines
            .lock()
            .expect("nobody panics with it")
            .push(format!("{time:8.3} {who:>24} {line}"));
    }

    /// Whether that program said something that fits.
    pub fn has_said(&self, who: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
        let lines = self.lines.lock().expect("nobody panics with it");
        let mark = format!(" {who} ");
        lines
            .iter()
            .filter_map(|line| line.split_once(&mark).map(|(_, said)| said))
            .find(|said| fits(said))
            .map(str::to_owned)
    }

    /// Waits until that program has said something that fits.
    pub fn wait_for(&self, test: &str, who: &str, fits: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.has_said(who, &fits).is_none() {
            if Instant::now() > deadline {
                self.fail(test, &format!("{who} was waited for in vain"));
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Ends the test with the transcript, without the numbered messages of conversations: they are thousands.
    pub fn fail(&self, test: &str, what: &str) -> ! {
        let telling = |line: &&String| !line.contains(FLOW) && !line.contains(SENT);
        let lines = {
            let lines = self.lines.lock().expect("nobody panics with it");
            let lines: Vec<&str> = lines.iter().filter(telling).map(String::as_str).collect();
            lines.join("\n")
        };
        panic!("{what}\n{lines}\nrun it again (as root, after `make build`): cargo test --test netns -- {test}");
    }
}

/// A program that writes lines; killed when dropped.
pub struct Process {
    name: String,
    test: &'static str,
    child: Child,
    lines: Receiver<String>,
    waiting: VecDeque<Value>,
    transcript: Transcript,
}

fn follow(stream: impl Read + Send + 'static, name: String, transcript: Transcript, sender: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            transcript.add(&name, &line);
            if sender.send(line).is_err() {
                break;
            }
        }
    });
}

impl Process {
    fn start(
        test: &'static str,
        transcript: &Transcript,
        name: &str,
        namespace: &str,
        program: PathBuf,
        arguments: &[String],
    ) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            // Cargo's own value names the folder of the library of this test build; the harness brings its own.
            .env_remove("LD_LIBRARY_PATH")
            .arg(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip can be started");
        let (sender, lines) = channel();
        follow(
            child.stdout.take().expect("stdout is piped"),
            name.into(),
            transcript.clone(),
            sender.clone(),
        );
        follow(
            child.stderr.take().expect("stderr is piped"),
            format!("{name} (stderr)"),
            transcript.clone(),
            sender,
        );
        Process {
            name: name.into(),
            test,
            child,
            lines,
            waiting: VecDeque::new(),
            transcript: transcript.clone(),
        }
    }

    /// The first line nobody asked for yet that fits, or the end of the test.
    fn expect(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.waiting.iter().position(&fits) {
            return self.waiting.remove(at).expect("it was just found");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                self.transcript
                    .fail(self.test, &format!("{}: waited in vain for {what}", self.name));
            };
            let Ok(value) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if fits(&value) {
                return value;
            }
            self.waiting.push_back(value);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `lanline serve` in a namespace.
pub struct Server {
    process: Process,
    namespace: String,
    arguments: Vec<String>,
    _data: DataFolder,
}

struct DataFolder(PathBuf);

impl Drop for DataFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Server {
    pub fn start(test: &'static str, transcript: &Transcript, network: &Network) -> Self {
        Self::start_on(test, transcript, network, &[network.server_address()])
    }

    /// Listening on those addresses; none: on all.
    pub fn start_on(test: &'static str, transcript: &Transcript, network: &Network, listen: &[&str]) -> Self {
        let flags: Vec<&str> = listen.iter().flat_map(|address| ["--listen", *address]).collect();
        Self::start_in(test, transcript, "server", &network.server_namespace(), &flags)
    }

    /// On the server's first address, with these flags.
    pub fn start_with(test: &'static str, transcript: &Transcript, network: &Network, flags: &[&str]) -> Self {
        let flags = [&["--listen", network.server_address()], flags].concat();
        Self::start_in(test, transcript, "server", &network.server_namespace(), &flags)
    }

    /// In any namespace.
    pub fn start_in(test: &'static str, transcript: &Transcript, name: &str, namespace: &str, flags: &[&str]) -> Self {
        let data = DataFolder(std::env::temp_dir().join(namespace));
        std::fs::create_dir_all(&data.0).expect("the temporary folder can be written");
        let folder = data.0.display().to_string();
        let always = ["serve", "--http", "off", "--gate-port", "off", "--data", &folder];
        let arguments: Vec<String> = always
            .iter()
            .chain(flags)
            .map(|&argument| argument.to_owned())
            .collect();
        Server {
            process: Self::run(test, transcript, name, namespace, &arguments),
            namespace: namespace.to_owned(),
            arguments,
            _data: data,
        }
    }

    fn run(test: &'static str, transcript: &Transcript, name: &str, namespace: &str, arguments: &[String]) -> Process {
        let mut process = Process::start(test, transcript, name, namespace, server_program(), arguments);
        process.expect("the ready line", |line| line["ready"] == true);
        process
    }

    /// Ends the program with that signal (`-KILL`, `-TERM`); the data folder stays.
    pub fn end(&mut self, signal: &str) {
        self.process
            .transcript
            .add(&self.process.name, &format!("> ({signal})"));
        let id = self.process.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the child is ours");
        self.process.child.wait().expect("the child is ours");
    }

    /// Starts the program that has ended again: the same flags, the same data folder.
    pub fn start_again(&mut self) {
        let Process {
            name, test, transcript, ..
        } = &self.process;
        self.process = Self::run(test, transcript, name, &self.namespace, &self.arguments);
    }
}

/// A player: `lanline-harness` in a namespace.
pub struct Player {
    process: Process,
    /// Its guid in decimal.
    pub guid: String,
}

impl Player {
    /// Starts it and connects it to the server.
    pub fn start(test: &'static str, transcript: &Transcript, network: &Network, name: &str, namespace: &str) -> Self {
        let settings = format!("timeout_ms={LOST_PEER_MS}");
        Self::start_with(test, transcript, network, name, namespace, &[&settings])
    }

    /// The same with settings of its own.
    pub fn start_with(
        test: &'static str,
        transcript: &Transcript,
        network: &Network,
        name: &str,
        namespace: &str,
        settings: &[&str],
    ) -> Self {
        let mut player = Self::start_alone(test, transcript, name, namespace, settings);
        player.command(&format!("connect server={}:{PORT}", network.server_address()));
        player.event("SERVER_CONNECTED", None);
        player
    }

    /// Starts it, without a server.
    pub fn start_alone(
        test: &'static str,
        transcript: &Transcript,
        name: &str,
        namespace: &str,
        settings: &[&str],
    ) -> Self {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut process = Process::start(test, transcript, name, namespace, harness_program(), &settings);
        let ready = process.expect("READY", |line| line["event"] == "READY");
        Player {
            process,
            guid: ready["guid"].as_str().expect("guids are strings").to_owned(),
        }
    }

    pub fn name(&self) -> &str {
        &self.process.name
    }

    /// Sends a command and gives its result, which must be OK.
    pub fn command(&mut self, line: &str) -> Value {
        let verb = line.split(' ').next().expect("split gives at least one part");
        self.process.transcript.add(&self.process.name, &format!("> {line}"));
        let written = self
            .process
            .child
            .stdin
            .as_mut()
            .map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        if !matches!(written, Some(Ok(()))) {
            self.process.transcript.fail(
                self.process.test,
                &format!("{}: cannot write `{line}`", self.process.name),
            );
        }
        let result = self
            .process
            .expect(&format!("the result of `{line}`"), |answer| answer["result"] == verb);
        if result["code"] != 0 {
            self.process.transcript.fail(
                self.process.test,
                &format!("{}: `{line}` answered {result}", self.process.name),
            );
        }
        result
    }

    /// Waits for an event of that name, from that peer if one is named.
    pub fn event(&mut self, name: &str, peer: Option<&str>) -> Value {
        let what = format!("{name} {}", peer.unwrap_or_default());
        self.process.expect(&what, |line| {
            line["event"] == name && peer.is_none_or(|peer| line["peer"] == peer)
        })
    }

    /// Waits for the first of several events that ends that request.
    pub fn answer(&mut self, names: &[&str], request: &Value) -> Value {
        let fits = |line: &Value| line["request"] == *request && names.iter().any(|name| line["event"] == **name);
        self.process
            .expect(&format!("one of {names:?} for request {request}"), fits)
    }

    /// What has come by now, fits, and nobody asked for yet: in the order in which it came.
    pub fn drain(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (fitting, waiting) = std::mem::take(&mut self.process.waiting).into_iter().partition(fits);
        self.process.waiting = waiting;
        Vec::from(fitting)
    }

    /// Whether such an event has come that nobody asked for yet.
    pub fn has_heard(&mut self, name: &str) -> Option<Value> {
        // Its own answer is behind all that was said before.
        self.command("stats");
        self.process.waiting.iter().find(|line| line["event"] == name).cloned()
    }

    /// Waits for the first of several events with that peer that end a request.
    pub fn any_event(&mut self, names: &[&str], peer: &str) -> Value {
        let fits = |line: &Value| line["peer"] == peer && names.iter().any(|name| line["event"] == **name);
        self.process.expect(&format!("one of {names:?} {peer}"), fits)
    }

    /// Waits for a message with that text.
    pub fn message(&mut self, peer: &str, text: &str) {
        let what = format!("the message {text:?} from {peer}");
        self.process.expect(&what, |line| {
            line["event"] == "MESSAGE" && line["peer"] == peer && line["text"] == text
        });
    }

    /// Waits for a message of that length and mode.
    pub fn message_of(&mut self, peer: &str, mode: &str, len: usize) {
        let what = format!("a {mode} message of {len} bytes from {peer}");
        self.process.expect(&what, |line| {
            line["event"] == "MESSAGE" && line["peer"] == peer && line["mode"] == mode && line["len"] == len
        });
    }

    /// Asks for figures about a peer until they fit.
    pub fn stats_become(&mut self, peer: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.command(&format!("stats peer={peer}"));
            if fits(&stats) {
                return stats;
            }
            if Instant::now() > deadline {
                let what = format!("{}: not {what}: {stats}", self.process.name);
                self.process.transcript.fail(self.process.test, &what);
            }
            self.command("sleep ms=20");
        }
    }

    /// Lets the program end by itself: it closes what it has.
    pub fn quit(mut self) {
        self.command("quit");
        let _ = self.process.child.wait();
    }

    /// SIGKILL: no goodbye.
    pub fn kill(mut self) {
        self.process.transcript.add(&self.process.name, "> (SIGKILL)");
        self.process.child.kill().expect("the child is ours");
    }
}

/// Where a program is: named by the environment, or where `make build` leaves it.
fn program(variable: &str, default: &str) -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target").join(default);
    std::env::var_os(variable).map_or_else(built, PathBuf::from)
}

fn harness_program() -> PathBuf {
    program("LANLINE_HARNESS", "examples-c/lanline-harness")
}

pub fn server_program() -> PathBuf {
    program("LANLINE_SERVER", "release/lanline")
}

/// Why networks of namespaces cannot be made here, if they cannot.
pub fn obstacle() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        return Some("network namespaces need root".into());
    }
    for tool in [&["ip", "-Version"], &["nft", "--version"], &["conntrack", "--version"]] {
        let found = Command::new(tool[0])
            .arg(tool[1])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            return Some(format!(
                "the program `{}` is missing: scripts/setup-tests installs it",
                tool[0]
            ));
        }
    }
    None
}

/// The same for tests that start the project's programs.
pub fn obstacle_with_programs() -> Option<String> {
    obstacle_with_server().or_else(|| missing(&harness_program()))
}

/// The same for tests that start the server alone.
pub fn obstacle_with_server() -> Option<String> {
    obstacle().or_else(|| missing(&server_program()))
}

fn missing(program: &Path) -> Option<String> {
    (!program.is_file()).then(|| format!("{} is missing: run `make build` first", program.display()))
}
