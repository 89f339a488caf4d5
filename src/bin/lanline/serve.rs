//! `lanline serve`: runs a server until it is told to end.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use lanline::shell::server::{Options, Shell};
use tracing_subscriber::filter::LevelFilter;

/// The main port when none is given.
const DEFAULT_PORT: u16 = 61_111;

/// Most nodes when nothing is said: they need 1.2 GB at 25 kB each, and a single machine's network is not the limit yet.
const DEFAULT_MAX_NODES: usize = 50_000;

/// What the command line, or the configuration file, says. None is required.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Arguments {
    /// Read settings from this file: lines of `name = value` with the names of these flags; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on this address (repeatable) [default: every address, IPv4 and IPv6]
    #[arg(long, value_name = "IP")]
    listen: Vec<IpAddr>,
    /// UDP port for players; 0: any free one
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Second UDP port, by which players find out what kind of router they are behind; 0: any free one [default: 61112]
    #[arg(long, value_name = "PORT")]
    alt_port: Option<u16>,
    /// The address under which players reach this server, if it is not one of its own (repeatable: one IPv4, one IPv6, or one for
    /// each --listen)
    #[arg(long, value_name = "IP")]
    public: Vec<IpAddr>,
    /// Serve rooms over HTTP there, or `off`
    #[arg(long, value_name = "IP:PORT|off")]
    http: Option<OffOr<SocketAddr>>,
    /// Speak GATE.PUNCH on this UDP port, or `off`
    #[arg(long, value_name = "PORT|off")]
    gate_port: Option<OffOr<u16>>,
    /// Folder for the server's identity [default: the platform's data folder for `lanline`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where rooms are kept: `memory` or `redis://HOST:PORT`
    #[arg(long, value_name = "STORE")]
    store: Option<Store>,
    /// Relay for players who cannot connect directly
    #[arg(long, value_name = "on|off")]
    relay: Option<Switch>,
    /// Threads that pass relayed packets on [default: one for each processor, at most 8]
    #[arg(long, value_name = "N", hide = true)]
    relay_threads: Option<usize>,
    /// Only games that know this text may use the server
    #[arg(long, value_name = "TEXT")]
    access_key: Option<String>,
    /// Certificate chain (PEM)
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Take players over TLS on this TCP port, where UDP is blocked (443 is let through nearly everywhere), or `off` [default: off]
    #[arg(long, value_name = "PORT|off")]
    tls_port: Option<OffOr<u16>>,
    /// Token for the administration pages
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// Most players at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_NODES)]
    max_nodes: usize,
    /// How much to log: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
    /// Only relay, for the players of the server given with --join
    #[arg(long)]
    relay_only: bool,
    /// The server to relay for (with --relay-only)
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// What proxy servers on other machines must know to relay for this server's players; with --relay-only: the password of the server given
    /// with --join
    #[arg(long, value_name = "TEXT", visible_alias = "relay-password")]
    password: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// A value, or `off`.
#[derive(Clone)]
enum OffOr<T> {
    Off,
    On(T),
}

impl<T: FromStr> FromStr for OffOr<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "off" {
            Ok(Self::Off)
        } else {
            text.parse().map(Self::On)
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Store {
    Memory,
    Redis(String),
}

impl FromStr for Store {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "memory" => Ok(Self::Memory),
            _ if text.starts_with("redis://") => Ok(Self::Redis(text.to_owned())),
            _ => Err("it must be `memory` or `redis://HOST:PORT`"),
        }
    }
}

/// Runs the server. An error is one line for a person: the server could not start.
pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(arguments.log)
        .with_target(false)
        .init();
    check_roles(arguments)?;
    check_readable(arguments)?;
    warn_of_what_is_missing(arguments);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let end = end_signal()?;
        let shell = Shell::open(&options(arguments)).map_err(|error| error.to_string())?;
        announce(&shell, arguments.relay_only);
        shell.run(end).await;
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    })
}

/// A proxy server has a server to join, and both know the password.
fn check_roles(arguments: &Arguments) -> Result<(), String> {
    let wrong = |text: &str| Err(text.to_owned());
    if arguments.password.as_ref().is_some_and(String::is_empty) {
        return wrong("--password: it must not be empty");
    }
    match (&arguments.join, arguments.relay_only) {
        (None, true) => wrong("--relay-only: it needs --join HOST:PORT, the server to relay for"),
        (Some(_), false) => wrong("--join: it goes with --relay-only"),
        (None, false) => Ok(()),
        (Some(_), true) if arguments.password.is_none() => {
            wrong("--relay-only: it needs --password TEXT, the password of the server given with --join")
        }
        (Some(_), true) if matches!(arguments.tls_port, Some(OffOr::On(_))) => {
            wrong("--tls-port: players reach the server given with --join over TLS, not a proxy server")
        }
        (Some(_), true) if arguments.relay == Some(Switch::Off) => {
            wrong("--relay off: a proxy server has nothing else to do")
        }
        (Some(server), true) => {
            let (host, port) = server.rsplit_once(':').unwrap_or_default();
            match port.parse::<u16>() {
                Ok(1..) if !host.is_empty() => Ok(()),
                _ => wrong("--join: it must be HOST:PORT"),
            }
        }
    }
}

fn options(arguments: &Arguments) -> Options {
    Options {
        listen: arguments.listen.clone(),
        port: arguments.port,
        alt_port: arguments.alt_port,
        public: arguments.public.clone(),
        data: arguments.data.clone(),
        access_key: arguments.access_key.clone().unwrap_or_default(),
        max_nodes: arguments.max_nodes,
        relay: arguments.relay != Some(Switch::Off),
        password: arguments.password.clone().unwrap_or_default(),
        join: arguments.join.clone(),
        relay_threads: arguments.relay_threads,
        tls_port: match arguments.tls_port {
            Some(OffOr::On(port)) => Some(port),
            Some(OffOr::Off) | None => None,
        },
    }
}

/// Files that are named but cannot be read are a mistake, whether or not this version has a use for them.
fn check_readable(arguments: &Arguments) -> Result<(), String> {
    let files = [("--tls-cert", &arguments.tls_cert), ("--tls-key", &arguments.tls_key)];
    for (flag, file) in files {
        if let Some(file) = file {
            // Opening a folder succeeds, reading it does not.
            std::fs::File::open(file)
                .and_then(|mut file| io::Read::read(&mut file, &mut [0]))
                .map_err(|error| format!("{flag}: cannot read {}: {error}", file.display()))?;
        }
    }
    Ok(())
}

/// What was asked for and is not in this version is said, not ignored in silence.
fn warn_of_what_is_missing(arguments: &Arguments) {
    let missing = [
        (
            "--http",
            matches!(arguments.http, Some(OffOr::On(_))),
            "rooms over HTTP",
        ),
        (
            "--gate-port",
            matches!(arguments.gate_port, Some(OffOr::On(_))),
            "GATE.PUNCH",
        ),
        (
            "--store",
            matches!(arguments.store, Some(Store::Redis(_))),
            "a shared store",
        ),
        ("--tls-cert", arguments.tls_cert.is_some(), "certificates"),
        ("--tls-key", arguments.tls_key.is_some(), "certificates"),
        ("--admin-token", arguments.admin_token.is_some(), "administration pages"),
    ];
    for (flag, asked, what) in missing {
        if asked {
            tracing::warn!("{flag} has no effect: this version of the server does not have {what}");
        }
    }
}

/// One JSON line on standard output. That nobody reads it is no reason not to run.
fn announce(shell: &Shell, relay_only: bool) {
    let texts = |main| {
        shell
            .addresses(main)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let mut line = serde_json::json!({
        "ready": true,
        "key": shell.key().to_hex(),
        "udp": texts(true),
        "udp_alt": texts(false),
        "http": null,
        "gate": null,
        "tls": shell.tls_addresses().first().map(ToString::to_string),
    });
    if relay_only {
        line["relay_only"] = true.into();
    }
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    let known = shell.known_addresses();
    if !known.is_empty() {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        tracing::info!("answers by name from {}", known.join(", "));
    }
    tracing::info!(
        "ready on UDP {}, second port {}",
        texts(true).join(", "),
        texts(false).join(", ")
    );
    let streams: Vec<String> = shell.tls_addresses().iter().map(ToString::to_string).collect();
    if !streams.is_empty() {
        tracing::info!("takes players without UDP on TCP {}", streams.join(", "));
    }
}

/// Ready when the program is asked to end: SIGTERM or SIGINT (Ctrl-C).
#[cfg(unix)]
fn end_signal() -> Result<impl Future<Output = ()>, String> {
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::signal::unix::{SignalKind, signal};

    let open = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut terminate, mut interrupt) = (open(SignalKind::terminate())?, open(SignalKind::interrupt())?);
    Ok(poll_fn(move |context| {
        let asked = terminate.poll_recv(context).is_ready() | interrupt.poll_recv(context).is_ready();
        if asked { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// Ready when the program is asked to end: Ctrl-C.
#[cfg(not(unix))]
fn end_signal() -> Result<impl Future<Output = ()>, String> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
