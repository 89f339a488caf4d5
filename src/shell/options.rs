//! Options of a node, copied and checked.

use std::net::{IpAddr, SocketAddr};

use super::failure::Failure;
use super::record::AddressRecord;
use crate::wire::MAX_APP_ID;
use crate::wire::control::{Consent, RelayPolicy};

/// Who a node may be introduced to.
pub use crate::wire::control::Consent as AcceptFrom;

/// A session is bounded by 64 members; the same for strangers is plenty.
pub const DEFAULT_MAX_PEERS: u32 = 64;
/// What a node's memory is planned for: a connection costs about 25 kB idle.
pub const LARGEST_MAX_PEERS: u32 = 1024;
/// Long enough for a Wi-Fi hiccup, short enough that players do not stare at a frozen opponent.
pub const DEFAULT_LOST_PEER_TIMEOUT_MS: u32 = 10_000;
/// A player who forwards for more pairs than a node has connections is no player but a server.
pub const LARGEST_ROUTER_MAX: u32 = LARGEST_MAX_PEERS;
/// The same bounds as the transport's.
pub const LOST_PEER_TIMEOUT_RANGE_MS: std::ops::RangeInclusive<u32> = 500..=60_000;
/// Time for connecting to all members of a session, punching included.
pub const DEFAULT_JOIN_TIMEOUT_MS: u32 = 30_000;
/// From "on a LAN" to "somebody must click something".
pub const JOIN_TIMEOUT_RANGE_MS: std::ops::RangeInclusive<u32> = 1_000..=600_000;
/// The server's UDP port if an address names none.
pub const DEFAULT_SERVER_PORT: u16 = 61111;

/// Longest name in the DNS, in bytes.
pub const LONGEST_NAME: usize = 253;
/// A STUN server's UDP port if none is named (RFC 8489).
pub const DEFAULT_STUN_PORT: u16 = 3478;

/// How to set up a node, as the game said it.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The game's identifier.
    pub app: String,
    /// "IP:PORT"; empty: every address, any port.
    pub bind: String,
    /// Path of the identity; empty: a fresh one in memory.
    pub identity_file: String,
    /// The server's access key; empty: none.
    pub access_key: String,
    /// A port forwarded by hand.
    pub public_address: Option<SocketAddr>,
    /// Most connected players.
    pub max_peers: u32,
    /// Silence in milliseconds after which a player is lost.
    pub lost_peer_timeout_ms: u32,
    /// Milliseconds for a verified join.
    pub join_timeout_ms: u32,
    /// Pairs to forward for.
    pub router_max: u32,
    /// When packets may go through a relay.
    pub relay_policy: RelayPolicy,
    /// Who this node may be introduced to.
    pub accept_from: Consent,
    /// The game connects to the members of a join.
    pub join_manual: bool,
    /// A join may succeed with unreached members.
    pub partial_mesh: bool,
}

/// Checks the ranges.
pub fn check(options: NodeOptions) -> Result<NodeOptions, Failure> {
    if options.app.is_empty() || options.app.len() > MAX_APP_ID {
        return Err(Failure::argument(
            "`app` must have 1 to 64 bytes: the identifier of the game",
        ));
    }
    range("max_peers", options.max_peers, &(1..=LARGEST_MAX_PEERS))?;
    range(
        "lost_peer_timeout_ms",
        options.lost_peer_timeout_ms,
        &LOST_PEER_TIMEOUT_RANGE_MS,
    )?;
    range("router_max", options.router_max, &(0..=LARGEST_ROUTER_MAX))?;
    range("join_timeout_ms", options.join_timeout_ms, &JOIN_TIMEOUT_RANGE_MS)?;
    bind_addresses(&options.bind)?;
    Ok(options)
}

fn range(name: &str, value: u32, allowed: &std::ops::RangeInclusive<u32>) -> Result<(), Failure> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (first, last) = (allowed.start(), allowed.end());
    Err(Failure::argument(format!(
        "`{name}` is {value}; {first} to {last} are allowed"
    )))
}

/// Reads `bind`: `None` means every address, any port.
pub fn bind_addresses(bind: &str) -> Result<Option<SocketAddr>, Failure> {
    if bind.is_empty() {
        return Ok(None);
    }
    match bind.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(Failure::argument(format!(
            "`bind` is not IP:PORT: \"{bind}\" (port 0: any)"
        ))),
    }
}

/// Reads `public_address`: a real IP and a port.
pub fn public_address(text: &str) -> Result<Option<SocketAddr>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => Ok(Some(address)),
        _ => Err(Failure::argument(format!(
            "`public_address` is not the IP:PORT of a forwarded port: \"{text}\""
        ))),
    }
}

/// An address that packets can be sent to.
pub fn reachable(record: &AddressRecord) -> Result<SocketAddr, Failure> {
    match record.socket_addr() {
        Some(address) if address.port() == 0 => Err(Failure::argument("`address` has port 0")),
        Some(address) if address.ip().is_unspecified() || address.ip().is_multicast() => {
            Err(Failure::argument(format!("`address` cannot be reached: {address}")))
        }
        Some(address) => Ok(address),
        None => Err(Failure::argument(format!(
            "`address` has the family {}; it must be 4 or 6",
            record.family
        ))),
    }
}

/// Reads `HOST`, `HOST:PORT`, `IP`, `IP:PORT`, `[IPV6]:PORT`.
pub fn host_and_port(text: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::argument(format!("`address` is not HOST or HOST:PORT: \"{text}\""));
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(wrong())
        } else {
            Ok((address.ip().to_string(), address.port()))
        };
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok((ip.to_string(), DEFAULT_SERVER_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        None => (text, DEFAULT_SERVER_PORT),
    };
    if !is_name(host) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// Whether that may be the name of a machine.
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || !byte.is_ascii();
    !host.is_empty() && host.len() <= LONGEST_NAME && host.bytes().all(allowed)
}

/// Whether that is an address or may be the name of a machine.
pub fn is_host(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || is_name(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses() {
        let read = |text| host_and_port(text).ok();
        assert_eq!(read("example.org"), Some(("example.org".into(), 61111)));
        assert_eq!(read("example.org:5"), Some(("example.org".into(), 5)));
        assert_eq!(read("1.2.3.4:5"), Some(("1.2.3.4".into(), 5)));
        assert_eq!(read("[2001:db8::1]:5"), Some(("2001:db8::1".into(), 5)));
        assert_eq!(read("2001:db8::1"), Some(("2001:db8::1".into(), 61111)));
        assert_eq!(read("[2001:db8::1]"), Some(("2001:db8::1".into(), 61111)));
        for wrong in [
            "",
            ":",
            ":5",
            "a:0",
            "a:65536",
            "a:b",
            "a b:5",
            "1.2.3.4:0",
            "a:5:6",
            "a/b",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
