//! Which sockets a server opens.
//!
//! For each listen address one on the main port and one on the second port. Without listen addresses: all of IPv4, and
//! all of IPv6 if the machine has it. The port is the same on every address, also when any free one will do.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Options, StartError, socket_name};
use crate::engine::SocketName;
use crate::server::ServerSocket;
use crate::shell::udp::{SERVER_BUFFER, UdpSocket};

/// The second port when none is asked for.
const DEFAULT_ALT_PORT: u16 = 61_112;

/// Most listen addresses: names of sockets are numbered in 8 bits, two each.
const MAX_LISTEN: usize = 64;

/// Attempts to find a port that is free on every address, when any will do.
const FREE_PORT_ATTEMPTS: usize = 32;

/// A socket and what it is for.
pub type Opened = (UdpSocket, ServerSocket);

/// Opens all of them.
pub fn open(options: &Options) -> Result<Vec<Opened>, StartError> {
    let mut opened = open_port(options, options.port, true, &[])?;
    let names: Vec<SocketName> = opened.iter().map(|(_, role)| role.name).collect();
    // A machine without a second listen address still needs two ports; one that nobody asked for by number must not keep
    // a second server from starting.
    let second = match options.alt_port {
        Some(port) => open_port(options, port, false, &names)?,
        None if options.port == 0 => open_port(options, 0, false, &names)?,
        None => open_port(options, DEFAULT_ALT_PORT, false, &names).or_else(|error| {
            let second = open_port(options, 0, false, &names)?;
            let port = second.first().map_or(0, |(_, role)| role.bound.port());
            tracing::warn!("{error}; using UDP port {port} as the second port instead");
            Ok::<_, StartError>(second)
        })?,
    };
    opened.extend(second);
    Ok(opened)
}

/// Opens one port on every address.
fn open_port(options: &Options, port: u16, main: bool, taken: &[SocketName]) -> Result<Vec<Opened>, StartError> {
    let mut listen = options.listen.clone();
    listen.dedup();
    if listen.len() > MAX_LISTEN {
        return Err(StartError(format!("more than {MAX_LISTEN} listen addresses")));
    }
    let by_default = listen.is_empty();
    if by_default {
        listen = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    let mut attempts = if port == 0 && listen.len() > 1 {
        FREE_PORT_ATTEMPTS
    } else {
        1
    };
    loop {
        attempts -= 1;
        match open_addresses(&listen, by_default, port, main, taken) {
            Ok(mut opened) => {
                for (_, role) in &mut opened {
                    role.public = public_address(options, role.bound);
                }
                return Ok(opened);
            }
            // Any free port, but not this one on every address: the next one.
            Err((_, error)) if attempts > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err((address, error)) => {
                return Err(StartError(match error.kind() {
                    io::ErrorKind::AddrInUse => format!("UDP port {address} is already in use"),
                    _ => format!("cannot listen on UDP {address}: {error}"),
                }));
            }
        }
    }
}

fn open_addresses(
    listen: &[IpAddr],
    by_default: bool,
    mut port: u16,
    main: bool,
    taken: &[SocketName],
) -> Result<Vec<Opened>, (SocketAddr, io::Error)> {
    let mut names = taken.to_vec();
    let mut opened: Vec<Opened> = Vec::new();
    for ip in listen {
        let address = SocketAddr::new(ip.to_canonical(), port);
        let name = socket_name(address, main, &names);
        match UdpSocket::bind(name, address, SERVER_BUFFER) {
            Ok(socket) => {
                let bound = socket.local_address();
                port = bound.port();
                names.push(name);
                opened.push((
                    socket,
                    ServerSocket {
                        name,
                        bound,
                        public: None,
                        main,
                    },
                ));
            }
            Err(error) if by_default && address.is_ipv6() && no_ipv6(&error) => {
                tracing::info!("this machine has no IPv6: {error}");
            }
            Err(error) => return Err((address, error)),
        }
    }
    Ok(opened)
}

/// The machine lacks IPv6 as a whole, or has it without any address.
fn no_ipv6(error: &io::Error) -> bool {
    #[cfg(unix)]
    let unsupported = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT));
    // WSAEAFNOSUPPORT
    #[cfg(not(unix))]
    let unsupported = error.raw_os_error() == Some(10_047);
    unsupported
        || matches!(
            error.kind(),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
        )
}

/// Where the socket is reached from outside: as configured, or where it is bound if that is a public address itself.
fn public_address(options: &Options, bound: SocketAddr) -> Option<SocketAddr> {
    let configured = options
        .public
        .iter()
        .map(|ip| ip.to_canonical())
        .find(|ip| ip.is_ipv4() == bound.is_ipv4());
    configured.map(|ip| SocketAddr::new(ip, bound.port()))
}
