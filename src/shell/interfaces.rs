//! Addresses of the machine's interfaces, for LAN candidates, and news of them, for connections that follow a player from
//! one network to the next.
//!
//! Linux tells when an address comes or goes ([`follow`]); elsewhere each node looks once a second.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::interface_changes::Changes;
use super::table;

/// How often a node looks whether the interfaces changed if nobody tells: often enough that a player who changes the network
/// does not see the game stand still for long. A look takes some 50 µs, and one serves all nodes.
const REFRESH: Duration = Duration::from_secs(1);

/// The same if the system tells: only in case that something was missed.
const REFRESH_WHEN_TOLD: Duration = Duration::from_secs(5);

/// After news of the system this long is waited before the next is heard: a change of the network is a row of them, and a machine
/// that starts and stops containers all the time shall cost ten looks a second at most.
const PAUSE: Duration = Duration::from_millis(100);

/// Most addresses of a machine that are of use; more are only noise in candidates.
const MAX_ADDRESSES: usize = 32;

/// The answer of the system is shared by all nodes of the process for this long: half of [`REFRESH`], so that a change is
/// noticed after one and a half of it at the latest.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// Addresses of documentation (RFC 5737, RFC 3849): nobody has them, so they stand for the internet at large.
const SOMEWHERE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SOMEWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

static LAST: Mutex<Option<(Instant, Vec<IpAddr>)>> = Mutex::new(None);

/// The system tells of changes.
static TOLD: AtomicBool = AtomicBool::new(false);

/// After how long a node is to look at the interfaces again by itself.
pub fn refresh() -> Duration {
    if TOLD.load(Ordering::Relaxed) {
        REFRESH_WHEN_TOLD
    } else {
        REFRESH
    }
}

/// Tells all nodes when the machine's addresses change, where the system says so. Runs for the life of the process, once.
pub async fn follow() {
    let Ok(changes) = Changes::subscribe() else { return };
    TOLD.store(true, Ordering::Relaxed);
    let mut known = of_machine();
    while changes.next().await.is_ok() {
        *LAST.lock() = None;
        let found = of_machine();
        if found != known {
            known = found;
            for node in table::ids().into_iter().filter_map(table::look_up) {
                node.interfaces_changed();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    TOLD.store(false, Ordering::Relaxed);
}

/// Addresses under which a node that is bound to `bound` may be reached inside its local network. No loopback and no
/// link-local ones, unless the node is bound to exactly such an address.
pub fn addresses(bound: &[SocketAddr]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in bound {
        let ip = address.ip();
        if !ip.is_unspecified() {
            found.push(ip);
            continue;
        }
        found.extend(of_machine().into_iter().filter(|other| other.is_ipv4() == ip.is_ipv4()));
    }
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    found
}

fn of_machine() -> Vec<IpAddr> {
    let mut last = LAST.lock();
    if let Some((when, addresses)) = &*last
        && when.elapsed() < SHARED_FOR
    {
        return addresses.clone();
    }
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| is_useful(*ip))
        .collect();
    // The order of the system changes; the order of candidates shall not.
    addresses.sort();
    addresses.dedup();
    // Where packets to the internet leave from comes first: bridges of containers and machines inside this one are of less use.
    for (from, to) in [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), SOMEWHERE_V4),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), SOMEWHERE_V6),
    ] {
        if let Some(position) = outgoing(from, to).and_then(|ip| addresses.iter().position(|other| *other == ip)) {
            addresses[..=position].rotate_right(1);
        }
    }
    *last = Some((Instant::now(), addresses.clone()));
    addresses
}

/// The address from which packets to `to` would leave. Connecting a UDP socket looks up the route and sends nothing.
fn outgoing(from: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn is_useful(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_is_the_only_candidate() {
        assert_eq!(
            addresses(&["127.0.0.1:5".parse().unwrap()]),
            ["127.0.0.1".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn loopback_and_link_local_are_no_candidates_of_a_node_bound_to_all() {
        let all = addresses(&["0.0.0.0:5".parse().unwrap(), "[::]:5".parse().unwrap()]);
        assert!(all.iter().all(|ip| is_useful(*ip)), "{all:?}");
        for useless in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1"] {
            assert!(!is_useful(useless.parse().unwrap()), "{useless}");
        }
    }
}
