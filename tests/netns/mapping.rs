//! Ports forwarded by a real router program, miniupnpd, with each of its protocols enabled alone.
//!
//! Nodes run in processes that this program starts of itself inside namespaces.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lanline::codes::{EventType, MappingProtocol};
use lanline::peer::api::Command as NodeCommand;
use lanline::shell;
use lanline::shell::options::{self, NodeOptions};

use crate::network::{Network, Router, run_in};
use crate::players;

/// Set in the processes that this program starts of itself: run [`serve_node`].
const NODE_VARIABLE: &str = "LANLINE_NETNS_NODE";
/// Bounds of a broken run, not measurements: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the game gives routers.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The node's own port, so that two nodes can want the same outside.
const PORT: u16 = 51234;
/// Leases that PCP gives, in seconds: short, so that a renewal is soon.
const LEASE: u32 = 12;

/// A node in a namespace.
struct Player {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Player {
    fn start(namespace: &str) -> Self {
        let own = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(own)
            .args(["--exact", "mapping::serve_node", "--nocapture"])
            .env(NODE_VARIABLE, format!("0.0.0.0:{PORT}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip can be started");
        let output = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once("node: ")
                    && sender.send(said.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        let mut player = Player {
            child,
            lines,
            heard: Vec::new(),
        };
        player.expect(|line| line == "ready");
        player
    }

    fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .expect("the node's process reads");
    }

    fn expect(&mut self, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("waited in vain; heard:\n{}", self.heard.join("\n"));
            };
            self.heard.push(line.clone());
            if fits(&line) {
                return line;
            }
        }
    }

    /// Asks the routers; the protocol and the outside address.
    fn map(&mut self) -> (String, SocketAddr) {
        self.say("map");
        self.mapped()
    }

    fn mapped(&mut self) -> (String, SocketAddr) {
        let line = self.expect(|line| line.starts_with("PORT_MAPP") && !line.starts_with("PORT_MAPPING_PROGRESS"));
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(
            words[0],
            "PORT_MAPPED",
            "{line}; before that:\n{}",
            self.heard.join("\n")
        );
        (words[1].to_owned(), words[2].parse().expect("an address"))
    }

    /// A clean exit.
    fn leave(mut self) {
        self.say("quit");
        self.expect(|line| line == "gone");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other half of [`Player`]: a node that obeys lines (`map`, `connect ADDRESS`, `quit`) and tells its events. As a test of its own: nothing.
#[test]
fn serve_node() {
    let Ok(bind) = std::env::var(NODE_VARIABLE) else { return };
    let id = shell::create(NodeOptions {
        app: "netns-mapping".to_owned(),
        bind,
        identity_file: String::new(),
        access_key: String::new(),
        public_address: None,
        max_peers: options::DEFAULT_MAX_PEERS,
        lost_peer_timeout_ms: options::DEFAULT_LOST_PEER_TIMEOUT_MS,
        join_timeout_ms: options::DEFAULT_JOIN_TIMEOUT_MS,
        router_max: 0,
        relay_policy: Default::default(),
        accept_from: Default::default(),
        join_manual: false,
        partial_mesh: false,
    })
    .expect("a node can be created");
    std::thread::spawn(move || while shell::with_node(id, tell_events).is_ok() {});
    println!("\nnode: ready");
    for line in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let asked = shell::with_node(id, |node| match verb {
            "map" => node.ask(|request| NodeCommand::MapPort {
                request,
                timeout: TIMEOUT,
            }),
            "connect" => node.ask(|request| NodeCommand::ConnectPeer {
                request,
                peer: None,
                address: argument.parse().ok(),
            }),
            _ => Ok(0),
        });
        asked.expect("the node obeys");
        if verb == "quit" {
            break;
        }
    }
    shell::destroy(id, Duration::from_secs(5)).expect("it was alive");
    println!("node: gone");
}

fn tell_events(node: &shell::node::Node) -> Result<(), shell::failure::Failure> {
    node.wait(Duration::from_millis(500))?;
    node.poll(64, |_, event| {
        let name = EventType::from_number(event.r#type).map_or("UNKNOWN", |kind| kind.name());
        let protocol = u8::try_from(event.count).ok().and_then(MappingProtocol::from_number);
        let protocol = protocol.map_or("-", |protocol| protocol.name());
        let address = event
            .address
            .socket_addr()
            .map_or("-".to_owned(), |address| address.to_string());
        let text = match event.text_len {
            0 => &[],
            // SAFETY: the text is lent until the next poll.
            length => unsafe { std::slice::from_raw_parts(event.text.cast::<u8>(), length as usize) },
        };
        let (text, code) = (String::from_utf8_lossy(text), event.code);
        println!("node: {name} {protocol} {address} code={code} {text}");
    })?;
    Ok(())
}

/// miniupnpd in a router's namespace.
pub struct Daemon {
    namespace: String,
    folder: PathBuf,
    child: Child,
}

/// Which protocols the router speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Upnp,
    Pcp,
    NatPmp,
}

impl Speaks {
    pub fn word(self) -> &'static str {
        match self {
            Self::Upnp => "upnp",
            Self::Pcp => "pcp",
            Self::NatPmp => "natpmp",
        }
    }
}

impl Daemon {
    pub fn start(namespace: &str, speaks: Speaks) -> Self {
        let folder = std::env::temp_dir().join(format!("{namespace}-upnpd"));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let upnp = if speaks == Speaks::Upnp { "yes" } else { "no" };
        let other = if speaks == Speaks::Upnp { "no" } else { "yes" };
        let config = format!(
            "ext_ifname=wan\next_ifname6=wan\nlistening_ip=lan\nhttp_port=0\nenable_upnp={upnp}\nenable_natpmp={other}\nsecure_mode=yes\n\
             system_uptime=no\nmin_lifetime=4\nmax_lifetime={LEASE}\nclean_ruleset_interval=600\n\
             uuid=6c1b2a1e-0f0f-4a63-9c0e-3d2f6ad0b7d1\nupnp_table_name=upnp\nupnp_nat_table_name=upnp\n\
             upnp_forward_chain=forwarded\nupnp_nat_chain=inward\nupnp_nat_postrouting_chain=outward\n\
             allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        );
        std::fs::write(folder.join("config"), config).expect("the configuration can be written");
        run_in(namespace, &["nft", "-f", "-"], &tables(speaks));
        let child = Self::spawn(namespace, &folder);
        Self {
            namespace: namespace.to_owned(),
            folder,
            child,
        }
    }

    fn spawn(namespace: &str, folder: &Path) -> Child {
        let log = std::fs::File::create(folder.join("log")).expect("the log can be written");
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace, "miniupnpd", "-d", "-f"])
            .arg(folder.join("config"))
            .arg("-P")
            .arg(folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log can be written"))
            .stderr(log)
            .spawn()
            .expect("ip can be started");
        // Asked before it listens, the kernel answers in its place that nobody does.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            if log.to_lowercase().contains("listening") {
                return child;
            }
            let over = child.try_wait().is_ok_and(|status| status.is_some()) || Instant::now() >= deadline;
            assert!(!over, "miniupnpd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The router loses its power: no goodbye, and its table is empty afterwards.
    fn restart(&mut self) {
        self.child.kill().expect("the child is ours");
        let _ = self.child.wait();
        for chain in ["inward", "outward", "forwarded"] {
            run_in(&self.namespace, &["nft", "flush", "chain", "inet", "upnp", chain], "");
        }
        self.child = Self::spawn(&self.namespace, &self.folder);
    }

    /// The rules that it has made.
    fn rules(&self) -> String {
        run_in(&self.namespace, &["nft", "list", "table", "inet", "upnp"], "")
    }

    fn forwards(&self, external: u16, to: &str) -> bool {
        let port = format!("dport {external} ");
        let ports = |rules: &str| {
            rules
                .lines()
                .any(|line| line.contains(&port) && line.contains("dnat") && line.contains(to))
        };
        ports(&self.rules())
    }

    pub fn eventually(&self, what: &str, is: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rules = self.rules();
            if is(&rules) {
                return;
            }
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "never: {what}\n{rules}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The chains that miniupnpd fills, and a filter that leaves one protocol only: PCP and NAT-PMP share a port and are told
/// apart by their first byte, the version.
fn tables(speaks: Speaks) -> String {
    let unspoken = match speaks {
        Speaks::Pcp => "udp dport 5351 @th,64,8 0 drop",
        Speaks::NatPmp => "udp dport 5351 @th,64,8 2 drop",
        Speaks::Upnp => "udp dport 5351 drop",
    };
    format!(
        "table inet upnp {{
            chain forwarded {{
            }}
            chain inward {{
            }}
            chain outward {{
            }}
            chain forward {{ type filter hook forward priority filter - 5; policy accept; jump forwarded
            }}
            chain prerouting {{ type nat hook prerouting priority dstnat - 5; jump inward
            }}
            chain postrouting {{ type nat hook postrouting priority srcnat - 5; jump outward
            }}
            chain input {{ type filter hook input priority filter - 5; policy accept;
                iifname \"wan\" udp dport {{ 1900, 5351 }} drop
                {unspoken}
            }}
        }}\n"
    )
}

pub fn obstacle() -> Option<String> {
    players::obstacle().or_else(|| {
        let found = Command::new("miniupnpd")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let missing = "the program `miniupnpd` is missing: scripts/setup-tests installs it";
        found.is_err().then(|| missing.to_owned())
    })
}

/// A port is mapped, reached by a stranger, taken back; a second player gets another one; a restarted router gets it again.
fn story(test: &str, speaks: Speaks) {
    let Some(_turn) = crate::turn(test, obstacle()) else {
        return;
    };
    let mut network = Network::new();
    let home = network.hosts("home", Router::PortRestricted, 2);
    let stranger = network.hosts("stranger", Router::Open, 1).remove(0);
    let mut daemon = Daemon::start(&network.router_namespace("home"), speaks);

    let mut player = Player::start(&home[0]);
    let (protocol, external) = player.map();
    assert_eq!(protocol, speaks.word());
    assert_eq!(external, SocketAddr::new(network.public_address(1), PORT));
    assert!(daemon.forwards(PORT, "192.168.1.2"), "{}", daemon.rules());

    let mut outside = Player::start(&stranger);
    outside.say(&format!("connect {external}"));
    outside.expect(|line| line.starts_with("CONNECTED"));
    player.expect(|line| line.starts_with("CONNECTED"));
    outside.leave();

    // The same outside port is somebody else's now.
    let mut second = Player::start(&home[1]);
    let (protocol, other) = second.map();
    assert_eq!(protocol, speaks.word());
    assert_eq!(other.ip(), external.ip());
    assert_ne!(other.port(), external.port());
    assert!(daemon.forwards(other.port(), "192.168.1.3"), "{}", daemon.rules());
    second.leave();
    daemon.eventually("the second player's port is taken back", |rules| {
        !rules.contains("192.168.1.3")
    });

    daemon.restart();
    if speaks != Speaks::Pcp {
        // The leases are long; a router that restarts takes the cable's other end down as well.
        run_in(&home[0], &["ip", "address", "add", "192.168.1.77/24", "dev", "eth"], "");
    }
    daemon.eventually("the port is mapped again", |rules| rules.contains("192.168.1.2"));
    assert!(daemon.forwards(PORT, "192.168.1.2"), "{}", daemon.rules());

    player.leave();
    daemon.eventually("the port is taken back", |rules| !rules.contains("192.168.1.2"));
}

#[test]
fn upnp_maps_a_port() {
    story("upnp_maps_a_port", Speaks::Upnp);
}

#[test]
fn pcp_maps_a_port() {
    story("pcp_maps_a_port", Speaks::Pcp);
}

#[test]
fn nat_pmp_maps_a_port() {
    story("nat_pmp_maps_a_port", Speaks::NatPmp);
}
