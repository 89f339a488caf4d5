//! What is measured: our relay, coturn, the bare loop, the kernel. Each passes 100 flows on.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lanline::wire::relay::{Bound, DATA_HEADER};

use crate::generator::{Ends, Flow, Framing};
use crate::relay_kit::{Serving, bind_frame, data_frame, grant};
use crate::turn;

pub const FLOWS: u16 = 100;

/// Ends that are at addresses 127.1.x.y and 127.2.x.y.
pub fn address(end: u8, number: u16) -> Ipv4Addr {
    let number = number + 1;
    Ipv4Addr::new(127, 1 + end, (number >> 8) as u8, number as u8)
}

/// A process that is killed in the end.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Our program, one thread for forwarding.
pub fn start_server(threads: &str) -> Result<Serving, String> {
    let program =
        std::env::var_os("LANLINE_SERVER").map_or_else(|| PathBuf::from("target/release/lanline"), PathBuf::from);
    let arguments = [
        "--listen",
        "127.0.0.1",
        "--port",
        "0",
        "--alt-port",
        "0",
        "--log",
        "error",
        "--relay-threads",
        threads,
    ];
    Serving::start(&program, &arguments).map_err(|error| format!("{error} (`make build` builds it)"))
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4, String> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err("the server listens on IPv6 alone".to_owned()),
    }
}

/// Binds sessions at a relay, some at a time, from both ends.
pub fn bind_sessions(serving: &Serving, ends: &Ends, sessions: u16) -> Result<SocketAddrV4, String> {
    let key = serving.ticket_key();
    let relay = serving
        .addresses()
        .first()
        .copied()
        .ok_or("the server listens nowhere")?;
    let relay = v4(relay)?;
    for number in 0..sessions {
        for end in 0..2 {
            let frame = bind_frame(&key, &grant(number.into(), end == 0));
            let sent = ends.send_from(end, address(end as u8, number), relay, &frame);
            sent.map_err(|error| format!("cannot send to the relay: {error}"))?;
            let answer = ends
                .receive(end)
                .map_err(|error| format!("the relay does not answer: {error}"))?;
            match Bound::decode(&answer) {
                Ok(Bound { refusal: None, .. }) => {}
                other => return Err(format!("the relay refused: {other:?}")),
            }
        }
    }
    Ok(relay)
}

/// Flows over our relay, every other one back.
pub fn relay_flows(serving: &Serving, ends: &Ends) -> Result<Vec<Flow>, String> {
    let relay = bind_sessions(serving, ends, FLOWS)?;
    let flow = |number: u16| {
        let back = number % 2 == 1;
        let grant = grant(number.into(), !back);
        let mut header = [0; DATA_HEADER];
        header.copy_from_slice(&data_frame(&grant, 0, b""));
        Flow {
            back,
            source: address(u8::from(back), number),
            destination: relay,
            framing: Framing::Relay {
                header,
                key: grant.key.data_key(),
                counter: 0,
            },
        }
    };
    Ok((0..FLOWS).map(flow).collect())
}

/// Debian's coturn with one relay thread, and flows over it: channel data from clients, every other flow from peers to them.
pub fn start_coturn(ends: &Ends) -> Result<(Running, u32, Vec<Flow>), String> {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .map_err(|error| format!("no free port: {error}"))?
        .port();
    let arguments = [
        "-n",
        "--no-auth",
        "--no-tls",
        "--no-dtls",
        "--no-tcp",
        "--no-tcp-relay",
        "--no-cli",
        "--allow-loopback-peers",
        "--log-file",
        "/dev/null",
        "--pidfile",
        "/dev/null",
        "--userdb",
        "/dev/null/none",
        "-L",
        "127.0.0.1",
        "-E",
        "127.0.0.1",
        "-m",
        "1",
        "-p",
    ];
    let child = Command::new("turnserver")
        .args(arguments)
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("no coturn: {error}"))?;
    let running = Running(child);
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut flows = Vec::new();
    for number in 0..FLOWS {
        let (client, peer) = (address(0, number), SocketAddrV4::new(address(1, number), ends.port(1)));
        let channel = 0x4000 + number;
        let mut allocated = turn::allocate(ends, number, client, server, channel, peer);
        // It takes a moment until it listens.
        let begin = Instant::now();
        while number == 0 && allocated.is_err() && begin.elapsed() < Duration::from_secs(5) {
            allocated = turn::allocate(ends, number, client, server, channel, peer);
        }
        let relayed = allocated?;
        flows.push(if number % 2 == 0 {
            Flow {
                back: false,
                source: client,
                destination: server,
                framing: Framing::Channel(channel),
            }
        } else {
            Flow {
                back: true,
                source: *peer.ip(),
                destination: relayed,
                framing: Framing::None,
            }
        });
    }
    let id = running.0.id();
    Ok((running, id, flows))
}

/// The bare loop, and flows into it.
pub fn start_bare_loop(ends: &Ends) -> Result<(Running, u32, Vec<Flow>), String> {
    let program = std::env::temp_dir().join(format!("lanline-bare-loop-{}", std::process::id()));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/relay/bare_loop.c");
    let status = Command::new(&compiler)
        .args(["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o"])
        .arg(&program)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(format!("{compiler} cannot build the bare loop"));
    }
    let child = Command::new(&program)
        .arg(ends.port(1).to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("cannot start the bare loop: {error}"))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let _ = std::fs::remove_file(&program);
    let (id, running) = (child.id(), Running(child));
    let port: u16 = line
        .trim()
        .parse()
        .map_err(|_| "the bare loop did not get ready".to_owned())?;
    let flow = |number: u16| Flow {
        back: false,
        source: address(0, number),
        destination: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        framing: Framing::None,
    };
    Ok((running, id, (0..FLOWS).map(flow).collect()))
}

/// Two namespaces: one for the load, one whose kernel translates addresses, as a router for 100 flows does.
pub struct Kernel {
    load: String,
    router: String,
}

/// Where the load's ends are inside.
pub const KERNEL_PORTS: [u16; 2] = [40_001, 40_002];

impl Kernel {
    pub fn start() -> Result<Self, String> {
        let id = std::process::id();
        let kernel = Self {
            load: format!("lanline-load-{id}"),
            router: format!("lanline-router-{id}"),
        };
        let Self { load, router } = &kernel;
        run(&["ip", "netns", "add", load])?;
        run(&["ip", "netns", "add", router])?;
        run(&[
            "ip", "-n", load, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", router,
        ])?;
        for (space, device, own) in [(load, "out", "10.98.0.1/30"), (router, "in", "10.98.0.2/30")] {
            run(&["ip", "-n", space, "address", "add", own, "dev", device])?;
            run(&["ip", "-n", space, "link", "set", device, "up"])?;
            run(&["ip", "-n", space, "link", "set", "lo", "up"])?;
        }
        run(&["ip", "-n", load, "route", "add", "local", "10.99.0.0/16", "dev", "lo"])?;
        run(&["ip", "-n", router, "route", "add", "10.99.0.0/16", "via", "10.98.0.1"])?;
        run(&[
            "ip",
            "netns",
            "exec",
            router,
            "sysctl",
            "-q",
            "-w",
            "net.ipv4.ip_forward=1",
        ])?;
        let elements: Vec<String> = (0..FLOWS)
            .map(|number| format!("{} : {}", kernel_address(1, number), kernel_address(2, number)))
            .collect();
        let rules = format!(
            "table ip relay {{
                map ends {{
                    type ipv4_addr : ipv4_addr
                    elements = {{ {} }}
                }}
                chain arriving {{
                    type nat hook prerouting priority dstnat;
                    udp dport {} dnat to ip saddr map @ends
                }}
                chain leaving {{
                    type nat hook postrouting priority srcnat;
                    masquerade
                }}
            }}",
            elements.join(", "),
            KERNEL_PORTS[1]
        );
        let mut nft = Command::new("ip")
            .args(["netns", "exec", router, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no nft: {error}"))?;
        if let Some(mut input) = nft.stdin.take() {
            let _ = input.write_all(rules.as_bytes());
        }
        match nft.wait() {
            Ok(status) if status.success() => Ok(kernel),
            _ => Err("nft refused the rules".to_owned()),
        }
    }

    /// Runs this program inside, with those arguments; what it printed.
    pub fn run_inside(&self, arguments: &[String]) -> Result<String, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let output = Command::new("ip")
            .args(["netns", "exec", &self.load])
            .arg(own)
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run inside: {error}"))?;
        if !output.status.success() {
            return Err("the run over the kernel's router failed".to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        for space in [&self.load, &self.router] {
            let _ = run(&["ip", "netns", "delete", space]);
        }
    }
}

fn kernel_address(end: u8, number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, end, number as u8 + 1)
}

/// Flows over the kernel's router, for the process inside.
pub fn kernel_flows() -> Vec<Flow> {
    let router = Ipv4Addr::new(10, 98, 0, 2);
    let flow = |number: u16| Flow {
        back: false,
        source: kernel_address(1, number),
        destination: SocketAddrV4::new(router, KERNEL_PORTS[1]),
        framing: Framing::None,
    };
    (0..FLOWS).map(flow).collect()
}

fn run(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0]).args(&command[1..]).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{}: {}",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{}: {error}", command.join(" "))),
    }
}
