//! Which router a node stands behind.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use getifs::{gateway_ipv4_addrs, gateway_ipv6_addrs, interface_ipv4_addrs, interface_ipv6_addrs};

use crate::shell::runtime;

/// Addresses for documentation (RFC 5737, RFC 3849): the way to them is the default route's. Nothing is sent.
const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its inner address.
    pub address: IpAddr,
    /// The interface that leads to it: needed for link-local addresses.
    pub interface: u32,
}

/// The router of the interface that has `internal`, or (`internal` unspecified) of the one that the default route leaves by.
pub async fn find(internal: SocketAddr) -> Result<Gateway, String> {
    // The system's tables are read with system calls that may take their time.
    let found = runtime::blocking(move || -> io::Result<Option<Gateway>> {
        let (own, gateways) = tables(internal.is_ipv6())?;
        let far = if internal.is_ipv6() {
            FAR_V6.into()
        } else {
            FAR_V4.into()
        };
        // An address that the system would choose for the way out; none if there is no way.
        let from = own_address(internal, SocketAddr::new(far, crab_nat::GATEWAY_PORT)).ok();
        Ok(choose(&own, &gateways, from))
    });
    match found.await {
        Some(Ok(Some(gateway))) => Ok(gateway),
        Some(Ok(None)) => Err("the machine has no default gateway".to_owned()),
        Some(Err(error)) => Err(format!("the system does not tell its routes: {error}")),
        None => Err("the system's routes could not be read".to_owned()),
    }
}

/// Addresses with the interface that each belongs to.
type Addresses = Vec<(u32, IpAddr)>;

/// The machine's own addresses, and its routers.
fn tables(ipv6: bool) -> io::Result<(Addresses, Addresses)> {
    Ok(if ipv6 {
        let own = interface_ipv6_addrs()?;
        let own = own.iter().map(|net| (net.index(), net.addr().into())).collect();
        let gateways = gateway_ipv6_addrs()?;
        (
            own,
            gateways
                .iter()
                .map(|found| (found.index(), found.addr().into()))
                .collect(),
        )
    } else {
        let own = interface_ipv4_addrs()?;
        let own = own.iter().map(|net| (net.index(), net.addr().into())).collect();
        let gateways = gateway_ipv4_addrs()?;
        (
            own,
            gateways
                .iter()
                .map(|found| (found.index(), found.addr().into()))
                .collect(),
        )
    })
}

fn choose(own: &[(u32, IpAddr)], gateways: &[(u32, IpAddr)], from: Option<IpAddr>) -> Option<Gateway> {
    let from = from?;
    let (interface, _) = own.iter().find(|(_, ip)| *ip == from)?;
    let (interface, address) = *gateways.iter().find(|(of, _)| of == interface)?;
    Some(Gateway { address, interface })
}

/// The machine's address towards `router`.
pub fn own_address(internal: SocketAddr, router: SocketAddr) -> Result<IpAddr, String> {
    if !internal.ip().is_unspecified() {
        return Ok(internal.ip());
    }
    let asked = UdpSocket::bind(SocketAddr::new(internal.ip(), 0)).and_then(|socket| {
        // Sends nothing: the system only chooses the route.
        socket.connect(router)?;
        socket.local_addr()
    });
    asked
        .map(|address| address.ip())
        .map_err(|error| format!("no route to the router {}: {error}", router.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_that_of_the_sockets_interface() {
        let list = |list: &[(u32, &str)]| -> Addresses {
            list.iter()
                .map(|(interface, ip)| (*interface, ip.parse().unwrap()))
                .collect()
        };
        let own = list(&[(1, "127.0.0.1"), (2, "10.8.0.2"), (3, "192.168.1.5"), (4, "172.17.0.1")]);
        let gateways = list(&[(2, "10.8.0.1"), (3, "192.168.1.1")]);
        let router = |from: &str| choose(&own, &gateways, from.parse().ok()).map(|found| found.address.to_string());
        assert_eq!(router("192.168.1.5").as_deref(), Some("192.168.1.1"));
        assert_eq!(router("10.8.0.2").as_deref(), Some("10.8.0.1"));
        for without in ["127.0.0.1", "172.17.0.1", "10.8.0.3", "none"] {
            assert_eq!(router(without), None, "{without}");
        }
    }
}
