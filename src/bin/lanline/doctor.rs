//! `lanline doctor`: what a player sends to support.
//!
//! A node with a fresh identity connects to the server, makes a report, and ends. Without an answer of the server the report is made
//! nevertheless, with what can be told about why.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use lanline::codes::{Code, EventType};
use lanline::peer::api::Command;
use lanline::peer::api::nat::DetectOptions;
use lanline::shell;
use lanline::shell::failure::Failure;
use lanline::shell::options::{self, AcceptFrom, DEFAULT_STUN_PORT, NodeOptions};
use lanline::shell::owned::{self, OwnedEvent};
use lanline::transport::identity::PublicKey;
use lanline::wire::control::RelayPolicy;
use serde_json::{Value, json};

/// Exit code when the server did not answer (there is a report nevertheless), and when there is no report.
const EXIT_TROUBLE: u8 = 1;
/// The server's HTTP port if nothing else is said: that of `lanline serve`.
const DEFAULT_HTTP_PORT: u16 = 8080;
/// A connection over TCP that takes longer is none: three lost packets of it.
const TCP_TIME: Duration = Duration::from_secs(3);
/// Addresses of the server that are tried over TCP.
const MOST_TCP_ADDRESSES: usize = 4;
/// What the report gets at least: a detection whose questions are not answered, and routers that are silent, take some 5 s.
const SHORTEST_REPORT: Duration = Duration::from_secs(15);
/// For closing the session with the server.
const FAREWELL: Duration = Duration::from_millis(200);
/// The game that the node says it plays: servers take every one, and nobody else plays this.
const APP: &str = "lanline-doctor";

/// What the command line says.
#[derive(Args)]
pub struct Arguments {
    /// The server: HOST, HOST:PORT, IP, IP:PORT, [IPV6]:PORT [port: 61111]
    #[arg(long, value_name = "HOST:PORT", value_parser = server)]
    server: (String, u16),
    /// Ask this STUN server (RFC 5780) about routers instead of that one [port: 3478]
    #[arg(long, value_name = "HOST:PORT", value_parser = stun)]
    stun: Option<(String, u16)>,
    /// The key that the server must prove, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = key)]
    key: Option<PublicKey>,
    /// The server's access key
    #[arg(long, value_name = "TEXT", default_value = "")]
    access_key: String,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Do not ask the routers for a port
    #[arg(long)]
    no_map: bool,
    /// Seconds for reaching the server, and for the report (which gets 15 at least)
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// The server's HTTP port, which is looked at when it does not answer over UDP
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_HTTP_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    http_port: u16,
}

fn server(text: &str) -> Result<(String, u16), String> {
    options::host_and_port(text).map_err(|_| "it is not HOST or HOST:PORT".to_owned())
}

fn stun(text: &str) -> Result<(String, u16), String> {
    let (host, port) = server(text)?;
    // Without a port that is the game server's, which a STUN server does not have.
    let said = text.ends_with(&format!(":{port}"));
    Ok((host, if said { port } else { DEFAULT_STUN_PORT }))
}

fn key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex(text).ok_or_else(|| "it is not 64 hexadecimal digits".to_owned())
}

/// Why the server did not answer, as far as can be told.
struct Unreachable {
    code: Code,
    text: String,
    addresses: Result<Vec<SocketAddr>, String>,
    /// Which of them took a connection over TCP at the HTTP port.
    tcp: Vec<SocketAddr>,
    http_port: u16,
}

/// Makes the report and prints it.
pub fn run(arguments: &Arguments) -> ExitCode {
    match make(arguments) {
        Ok((page, reached)) => {
            // A reader that went away has seen enough.
            let _ = io::stdout().lock().write_all(page.as_bytes());
            if reached {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_TROUBLE)
            }
        }
        Err(line) => {
            eprintln!("lanline: {line}");
            ExitCode::from(EXIT_TROUBLE)
        }
    }
}

/// The page to print, and whether the server was reached. An error is one line for a person.
fn make(arguments: &Arguments) -> Result<(String, bool), String> {
    let node = Node::create(arguments).map_err(words)?;
    let limit = Duration::from_secs(arguments.timeout);
    let (host, port) = arguments.server.clone();
    let key = arguments.key;
    let connect = node.ask(|request| Command::ConnectServer {
        request,
        host,
        port,
        key,
    })?;
    let answer = node.wait_for(connect, limit)?;
    let trouble = match answer {
        Some(event) if event.kind == EventType::ServerConnected => None,
        Some(event) => Some(examine(arguments, event.code, event.text)),
        None => {
            let text = format!("it did not answer within {} s", arguments.timeout);
            Some(examine(arguments, Code::Timeout, text))
        }
    };
    let detect = DetectOptions {
        server: arguments.stun.clone(),
        lifetime_up_to: None,
    };
    let map_port = !arguments.no_map;
    let report = node.ask(|request| Command::Report {
        request,
        map_port,
        detect,
    })?;
    let report = node.wait_for(report, limit.max(SHORTEST_REPORT))?;
    drop(node);
    let Some(report) = report else {
        return Err(format!(
            "no report within {} s: try again with --timeout",
            limit.max(SHORTEST_REPORT).as_secs()
        ));
    };
    let page = if arguments.json {
        as_json(&report, trouble.as_ref())
    } else {
        as_text(&report, arguments, trouble.as_ref())
    };
    Ok((page, trouble.is_none()))
}

/// A node, destroyed when dropped.
struct Node(u32);

impl Node {
    fn create(arguments: &Arguments) -> Result<Self, Failure> {
        shell::create(options::check(NodeOptions {
            app: APP.to_owned(),
            bind: String::new(),
            identity_file: String::new(),
            access_key: arguments.access_key.clone(),
            public_address: None,
            max_peers: 1,
            lost_peer_timeout_ms: options::DEFAULT_LOST_PEER_TIMEOUT_MS,
            join_timeout_ms: options::DEFAULT_JOIN_TIMEOUT_MS,
            router_max: 0,
            relay_policy: RelayPolicy::Never,
            accept_from: AcceptFrom::Nobody,
            join_manual: true,
            partial_mesh: false,
        })?)
        .map(Self)
    }

    fn ask(&self, command: impl FnOnce(u32) -> Command) -> Result<u32, String> {
        shell::with_node(self.0, |node| node.ask(command)).map_err(words)
    }

    /// The event that ends a request; `None`: it did not come in time.
    fn wait_for(&self, request: u32, limit: Duration) -> Result<Option<OwnedEvent>, String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let events = shell::with_node(self.0, |node| {
                node.wait(left)?;
                owned::poll(node)
            });
            for event in events.map_err(words)? {
                match event.kind {
                    EventType::Fatal => return Err(event.text),
                    _ if event.request == request => return Ok(Some(event)),
                    _ => {}
                }
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

fn words(failure: Failure) -> String {
    failure.text.into_owned()
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is gone in any case.
        let _ = shell::destroy(self.0, FAREWELL);
    }
}

/// Looks at a server that did not answer from another side.
fn examine(arguments: &Arguments, code: Code, text: String) -> Unreachable {
    let (host, port) = &arguments.server;
    let addresses: Result<Vec<SocketAddr>, String> = match (host.as_str(), *port).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(error.to_string()),
    };
    // One that answered, only not as hoped, needs no second look.
    let silent = matches!(code, Code::NoAnswer | Code::Timeout);
    let tried = addresses
        .iter()
        .flatten()
        .take(if silent { MOST_TCP_ADDRESSES } else { 0 });
    let ips: Vec<IpAddr> = tried.map(SocketAddr::ip).collect();
    let tcp = ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, arguments.http_port))
        .filter(|address| TcpStream::connect_timeout(address, TCP_TIME).is_ok())
        .collect();
    Unreachable {
        code,
        text,
        addresses,
        tcp,
        http_port: arguments.http_port,
    }
}

impl Unreachable {
    /// What to think of it.
    fn verdict(&self, port: u16) -> String {
        match (&self.addresses, self.code) {
            (Err(why), _) => {
                format!("Its name could not be resolved ({why}): is it spelled right, and is this computer online?")
            }
            (Ok(_), Code::NoAnswer | Code::Timeout) => match self.tcp.first() {
                Some(address) => format!(
                    "Over TCP it answers ({address}), so it is there: either UDP is blocked on the way, or UDP port {port} is not \
                     open at the server."
                ),
                None => format!(
                    "Over TCP (port {}) it does not answer either: the server is down, its address is wrong, or this computer is \
                     offline.",
                    self.http_port
                ),
            },
            _ => "It is there, and turned this computer away.".to_owned(),
        }
    }
}

fn as_json(report: &OwnedEvent, trouble: Option<&Unreachable>) -> String {
    let mut page: Value = serde_json::from_slice(&report.data).unwrap_or_else(|_| json!({}));
    page["unreachable"] = match trouble {
        None => Value::Null,
        Some(trouble) => json!({
            "code": trouble.code.number(),
            "name": trouble.code.name(),
            "text": trouble.text,
            "resolved": trouble.addresses.is_ok(),
            "addresses": trouble.addresses.iter().flatten().map(ToString::to_string).collect::<Vec<_>>(),
            "http_port": trouble.http_port,
            "tcp": !trouble.tcp.is_empty(),
        }),
    };
    format!("{page}\n")
}

fn as_text(report: &OwnedEvent, arguments: &Arguments, trouble: Option<&Unreachable>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!("lanline doctor {version}\n\n");
    if let Some(trouble) = trouble {
        let (host, port) = &arguments.server;
        page.push_str(&format!(
            "The server {host}:{port} was not reached ({}).\nWhat came: {}.\n{}\n\n",
            trouble.code.name(),
            trouble.text.trim_end_matches('.'),
            trouble.verdict(*port)
        ));
    }
    page.push_str(&report.text);
    page
}
