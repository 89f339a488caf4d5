//! Which sockets a server opens.
//!
//! For each listen address one on the main port and one on the second port. Without listen addresses: all of IPv4, and
//! all of IPv6 if the machine has it. The port is the same on every address, also when any free one will do.
//!
//! A socket that is bound to all addresses stands for several in the engine: for itself, and for those of the machine's addresses that
//! the server knows by name ([`super::own_addresses`]). Datagrams to and from such an address go by a name of their own. Nothing is
//! bound for them: a second bind on the same port would need the address to be shared, and then two servers could have the same port
//! without noticing. (The forwarder's threads do share the main port, but only behind this bind: [`crate::shell::forwarder`].)

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::own_addresses::{self, InterfaceAddress};
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
type Opened = (UdpSocket, ServerSocket);

/// What a name of the engine stands for.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// What the engine knows.
    pub socket: ServerSocket,
    /// The place of the real socket.
    pub place: usize,
    /// This address of the machine, of a socket that is bound to all; `None`: whatever the socket itself is bound to.
    pub ip: Option<IpAddr>,
}

/// Opens all of them. Gives the sockets, and what they stand for: first each for itself, in the same order.
pub fn open(options: &Options) -> Result<(Vec<UdpSocket>, Vec<Role>), StartError> {
    let (sockets, mut roles): (Vec<UdpSocket>, Vec<Role>) = open_both_ports(options)?
        .into_iter()
        .enumerate()
        .map(|(place, (opened, socket))| {
            (
                opened,
                Role {
                    socket,
                    place,
                    ip: None,
                },
            )
        })
        .unzip();
    roles.extend(named_addresses(&roles, &own_addresses::of_machine()));
    Ok((sockets, roles))
}

/// What the sockets that are bound to all addresses stand for beside themselves. Not those of a family with a `--public` address: the
/// machine's own are not where players reach it.
fn named_addresses(roles: &[Role], machine: &[InterfaceAddress]) -> Vec<Role> {
    let mut names: Vec<SocketName> = roles.iter().map(|role| role.socket.name).collect();
    let mut named = Vec::new();
    for role in roles {
        let ServerSocket {
            bound, public, main, ..
        } = role.socket;
        if !bound.ip().is_unspecified() || public.is_some() {
            continue;
        }
        for ip in own_addresses::choose(machine, bound.is_ipv4()) {
            let bound = SocketAddr::new(ip, bound.port());
            let name = socket_name(bound, main, &names);
            names.push(name);
            let socket = ServerSocket {
                name,
                bound,
                public: None,
                main,
            };
            named.push(Role {
                socket,
                place: role.place,
                ip: Some(ip),
            });
        }
    }
    named
}

fn open_both_ports(options: &Options) -> Result<Vec<Opened>, StartError> {
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

/// The addresses to listen on, and whether nobody chose them.
pub(super) fn listen_addresses(options: &Options) -> (Vec<IpAddr>, bool) {
    let mut listen = options.listen.clone();
    listen.dedup();
    let by_default = listen.is_empty();
    if by_default {
        listen = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    (listen, by_default)
}

/// Opens one port on every address.
fn open_port(options: &Options, port: u16, main: bool, taken: &[SocketName]) -> Result<Vec<Opened>, StartError> {
    let (listen, by_default) = listen_addresses(options);
    if listen.len() > MAX_LISTEN {
        return Err(StartError(format!("more than {MAX_LISTEN} listen addresses")));
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
                let bound: Vec<SocketAddr> = opened.iter().map(|(_, role)| role.bound).collect();
                for (_, role) in &mut opened {
                    role.public = public_address(options, &bound, role.bound);
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
pub(super) fn no_ipv6(error: &io::Error) -> bool {
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

/// Where the socket is reached from outside. As many public addresses as listen addresses of a family: each has its own, in order;
/// else the first one of the family holds for all.
fn public_address(options: &Options, all: &[SocketAddr], bound: SocketAddr) -> Option<SocketAddr> {
    let of_family = |ip: IpAddr| ip.is_ipv4() == bound.is_ipv4();
    let public: Vec<IpAddr> = options
        .public
        .iter()
        .map(|ip| ip.to_canonical())
        .filter(|ip| of_family(*ip))
        .collect();
    let mut listening = all.iter().filter(|other| of_family(other.ip()));
    let paired = public.len() == listening.clone().count();
    let place = listening.position(|other| *other == bound).filter(|_| paired);
    let ip = public.get(place.unwrap_or(0))?;
    Some(SocketAddr::new(*ip, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: SocketName, bound: &str, public: Option<&str>, place: usize) -> Role {
        let socket = ServerSocket {
            name,
            bound: bound.parse().unwrap(),
            public: public.map(|public| public.parse().unwrap()),
            main: !bound.ends_with('2'),
        };
        Role {
            socket,
            place,
            ip: None,
        }
    }

    #[test]
    fn a_socket_on_all_addresses_stands_for_the_known_ones() {
        let machine: Vec<InterfaceAddress> = ["203.0.113.1", "203.0.113.2", "2001:db8::1"]
            .map(|ip| ("eth0".to_owned(), ip.parse().unwrap()))
            .into();
        let all = |public| {
            [
                role(SocketName::Udp4, "0.0.0.0:61111", public, 0),
                role(SocketName::Udp6, "[::]:61111", None, 1),
                role(SocketName::Listen(0), "0.0.0.0:61112", public, 2),
                role(SocketName::Listen(1), "[::]:61112", None, 3),
            ]
        };
        let named: Vec<(String, usize, bool)> = named_addresses(&all(None), &machine)
            .iter()
            .map(|role| (role.socket.bound.to_string(), role.place, role.socket.main))
            .collect();
        let expected = [
            ("203.0.113.1:61111", 0, true),
            ("203.0.113.2:61111", 0, true),
            ("[2001:db8::1]:61111", 1, true),
            ("203.0.113.1:61112", 2, false),
            ("203.0.113.2:61112", 2, false),
            ("[2001:db8::1]:61112", 3, false),
        ];
        assert_eq!(
            named,
            expected.map(|(bound, place, main)| (bound.to_owned(), place, main))
        );
        let mut names: Vec<SocketName> = named_addresses(&all(None), &machine)
            .iter()
            .chain(&all(None))
            .map(|role| role.socket.name)
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 10, "every name once");
        // Reached at another address: its own are of no use to players.
        assert_eq!(named_addresses(&all(Some("192.0.2.5:61111")), &machine).len(), 2);
        let specific = [role(SocketName::Udp4, "203.0.113.1:61111", None, 0)];
        assert_eq!(named_addresses(&specific, &machine).len(), 0);
    }

    #[test]
    fn public_addresses_go_with_listen_addresses_in_order() {
        let options = |public: &[&str]| Options {
            listen: Vec::new(),
            port: 0,
            alt_port: None,
            public: public.iter().map(|ip| ip.parse().unwrap()).collect(),
            data: None,
            access_key: String::new(),
            max_nodes: 1,
            relay: false,
            relay_threads: None,
            tls_port: None,
            password: String::new(),
            join: None,
        };
        let bound = ["10.0.0.1:5", "10.0.0.2:5", "[fd00::1]:5"].map(|address| address.parse().unwrap());
        let told = |public: &[&str]| {
            bound.map(|address| public_address(&options(public), &bound, address).map(|address| address.to_string()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told(&[]), [None, None, None]);
        assert_eq!(
            told(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
            [some("192.0.2.1:5"), some("192.0.2.2:5"), some("[2001:db8::1]:5")]
        );
        assert_eq!(told(&["192.0.2.1"]), [some("192.0.2.1:5"), some("192.0.2.1:5"), None]);
    }
}
