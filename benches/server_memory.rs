//! What an idle node costs a server: `cargo bench --profile dev --features lab --bench server_memory [-- --json FILE]`.
//!
//! Starts the real program `lanline serve` on loopback (the one that LANLINE_SERVER names, else target/release/lanline), registers
//! nodes with it, lets them idle, and reads from /proc how much the server has grown. The nodes are the engines that games run,
//! each with a key and an address of its own (127.1.x.y), all in this process over one socket.
//!
//! It ends by itself: whatever takes longer than its limit is a fault, and the server is killed.

mod report;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanline::engine::{Datagram, Engine, SocketName};
use lanline::lab::scenario::node_config;
use lanline::peer::Node;
use lanline::peer::api::{Command, Event, NodeConfig};
use lanline::shell::udp::{ReceiveBuffer, SERVER_BUFFER, SendOutcome, UdpSocket};
use lanline::transport::identity::Identity;
use report::{Bound, Report};

const NODES: usize = 10_000;
/// Nodes that register at the same time: what they send fits into any kernel's receive buffer (208 KiB by default).
const AT_ONCE: usize = 64;
/// Time for everybody to register: two handshakes of both sides on one slow processor are a few milliseconds.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(150);
/// Idling: every node's keep-alive comes at least once.
const IDLE: Duration = Duration::from_secs(12);
/// Time for the program to get ready or to end.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);
const MEGABYTE: f64 = 1e6;

/// The running program; killed when it is dropped.
struct Serving {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

impl Serving {
    fn start() -> Result<Self, String> {
        let program =
            std::env::var_os("LANLINE_SERVER").map_or_else(|| PathBuf::from("target/release/lanline"), PathBuf::from);
        let name = program.display().to_string();
        let data = std::env::temp_dir().join(format!("lanline-server-memory-{}", std::process::id()));
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1",
            "--port",
            "0",
            "--alt-port",
            "0",
            "--log",
            "error",
        ];
        let mut child = Program::new(&program)
            .args(arguments)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name} (`make build` builds it): {error}"))?;
        let output = child.stdout.take();
        let mut serving = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            data,
        };
        let mut line = String::new();
        let read = output.map(|output| BufReader::new(output).read_line(&mut line));
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let address = ready["udp"][0].as_str().and_then(|text| text.parse().ok());
        serving.address = address.ok_or_else(|| format!("{name} did not get ready: {read:?} {line}"))?;
        Ok(serving)
    }

    /// Its memory in bytes: resident now, and at most so far.
    fn memory(&self) -> Result<(u64, u64), String> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            number
                .map(|kilobytes| kilobytes * 1024)
                .ok_or_else(|| format!("no {name} in {path}"))
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// The nodes, one socket, and when which one wants to be called.
struct Players {
    socket: UdpSocket,
    buffer: ReceiveBuffer,
    datagrams: Vec<Datagram>,
    payload: Vec<u8>,
    nodes: Vec<Node>,
    /// The deadline of each node that is in `due`.
    deadlines: Vec<Option<Instant>>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    server: SocketAddr,
    registered: usize,
}

/// Node `number`'s address.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (number >> 8) as u8, number as u8)
}

/// The number of the node that a datagram is for.
fn number(destination: Option<IpAddr>) -> Option<usize> {
    match destination? {
        IpAddr::V4(address) => match address.octets() {
            [127, 1, high, low] => Some(usize::from(high) << 8 | usize::from(low)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

impl Players {
    fn new(server: SocketAddr) -> Result<Self, String> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind(SocketName::Udp4, any, SERVER_BUFFER);
        Ok(Self {
            socket: socket.map_err(|error| format!("cannot open a socket: {error}"))?,
            buffer: ReceiveBuffer::new(),
            datagrams: Vec::new(),
            payload: Vec::new(),
            nodes: Vec::with_capacity(NODES),
            deadlines: Vec::with_capacity(NODES),
            due: BinaryHeap::new(),
            server,
            registered: 0,
        })
    }

    /// One more, that registers.
    fn add(&mut self, crypto: &Arc<rustls::crypto::CryptoProvider>) -> Result<(), String> {
        let index = self.nodes.len();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
        let bound = SocketAddr::new(address(index).into(), self.socket.local_address().port());
        let mut node = Node::new(
            Instant::now(),
            NodeConfig {
                seed,
                crypto: crypto.clone(),
                sockets: vec![(SocketName::Udp4, bound)],
                local_addresses: vec![bound.ip()],
                max_sockets: 0,
                ..node_config(Identity::from_seed(seed))
            },
        );
        let (host, port, key) = (self.server.ip().to_string(), self.server.port(), None);
        let request = 1;
        node.command(
            Instant::now(),
            Command::ConnectServer {
                request,
                host,
                port,
                key,
            },
        );
        self.nodes.push(node);
        self.deadlines.push(None);
        self.drain(index)
    }

    /// Takes everything that a node has to say.
    fn drain(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        loop {
            self.payload.clear();
            let Some(transmit) = node.poll_transmit(Instant::now(), &mut self.payload) else {
                break;
            };
            let payload = &self.payload[..transmit.size];
            let source = Some(address(index).into());
            // A full buffer is loss, which QUIC mends.
            let (SendOutcome::Done | SendOutcome::Blocked { .. }) = self.socket.send(&transmit, payload, source);
        }
        while let Some(event) = node.poll_event(true) {
            match event {
                Event::ServerConnected { .. } => self.registered += 1,
                Event::Notice { .. } => {}
                other => return Err(format!("node {index}: {other:?}")),
            }
        }
        let deadline = node.poll_timeout();
        if deadline != self.deadlines[index] {
            self.deadlines[index] = deadline;
            self.due.extend(deadline.map(|deadline| Reverse((deadline, index))));
        }
        Ok(())
    }

    /// Waits for datagrams or the next deadline, at most until `end`, and handles them.
    async fn turn(&mut self, end: Instant) -> Result<(), String> {
        let next = self.due.peek().map_or(end, |Reverse((deadline, _))| end.min(*deadline));
        let socket = &self.socket;
        // Either way it goes on: what has come is looked at, whatever woke it.
        let _ = tokio::time::timeout_at(next.into(), poll_fn(|context| socket.poll_readable(context))).await;
        self.socket.receive(&mut self.buffer, &mut self.datagrams);
        let mut datagrams = std::mem::take(&mut self.datagrams);
        for datagram in datagrams.drain(..) {
            if let Some(index) = number(datagram.destination_ip).filter(|index| *index < self.nodes.len()) {
                self.nodes[index].handle_datagram(Instant::now(), datagram);
                self.drain(index)?;
            }
        }
        self.datagrams = datagrams;
        let now = Instant::now();
        while let Some(Reverse((deadline, index))) = self.due.peek().copied()
            && deadline <= now
        {
            self.due.pop();
            // An entry whose node has another deadline by now is an old one.
            if self.deadlines[index] == Some(deadline) {
                self.deadlines[index] = None;
                self.nodes[index].handle_timeout(now);
                self.drain(index)?;
            }
        }
        Ok(())
    }

    async fn register(&mut self) -> Result<(), String> {
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let end = Instant::now() + REGISTRATION_LIMIT;
        while self.registered < NODES {
            while self.nodes.len() < NODES && self.nodes.len() < self.registered + AT_ONCE {
                self.add(&crypto)?;
            }
            if Instant::now() >= end {
                return Err(format!("only {} nodes within {REGISTRATION_LIMIT:?}", self.registered));
            }
            self.turn(end).await?;
        }
        Ok(())
    }

    async fn idle(&mut self) -> Result<(), String> {
        let end = Instant::now() + IDLE;
        while Instant::now() < end {
            self.turn(end).await?;
        }
        Ok(())
    }
}

async fn measure(report: &mut Report) -> Result<(), String> {
    let serving = Serving::start()?;
    let (before, _) = serving.memory()?;
    let mut players = Players::new(serving.address)?;
    let begin = Instant::now();
    players.register().await?;
    let took = begin.elapsed();
    let (fresh, _) = serving.memory()?;
    players.idle().await?;
    let (after, most) = serving.memory()?;
    println!("memory of `lanline serve`, {NODES} nodes registered over loopback");
    let megabytes = |bytes: u64| bytes as f64 / MEGABYTE;
    report.figure("resident before", megabytes(before), "MB", Bound::None);
    report.figure(
        "resident when the last one has registered",
        megabytes(fresh),
        "MB",
        Bound::None,
    );
    let idle = "resident with all of them idle";
    report.figure(idle, megabytes(after), "MB", Bound::AtMost(250.0));
    report.figure("most at any time", megabytes(most), "MB", Bound::None);
    let each = after.saturating_sub(before) as f64 / NODES as f64 / 1e3;
    report.figure("an idle node", each, "kB", Bound::None);
    report.figure("time until all were registered", took.as_secs_f64(), "s", Bound::None);
    Ok(())
}

fn run() -> Result<(), String> {
    let mut report = Report::new("server_memory")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let limit = REGISTRATION_LIMIT + IDLE + PROGRAM_LIMIT;
    runtime.block_on(async {
        match tokio::time::timeout(limit, measure(&mut report)).await {
            Ok(result) => result,
            Err(_) => Err(format!("not done within {limit:?}")),
        }
    })
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
