//! Which router a node stands behind.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use netdev::Interface;

/// A router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its inner address.
    pub address: IpAddr,
    /// The interface that leads to it: needed for link-local addresses.
    pub interface: u32,
}

/// The default gateway of the interface that has `internal`, or of the one that has any (`internal` unspecified).
pub async fn find(internal: SocketAddr) -> Result<Gateway, String> {
    // The system's tables are read with system calls that may take their time.
    let interfaces = tokio::task::spawn_blocking(netdev::get_interfaces);
    let interfaces = interfaces.await.map_err(|error| error.to_string())?;
    choose(&interfaces, internal.ip()).ok_or_else(|| "the machine has no default gateway".to_owned())
}

fn choose(interfaces: &[Interface], internal: IpAddr) -> Option<Gateway> {
    let gateway = |interface: &Interface| {
        let device = interface.gateway.as_ref()?;
        let address = match internal {
            IpAddr::V4(_) => IpAddr::V4(*device.ipv4.first()?),
            IpAddr::V6(_) => IpAddr::V6(*device.ipv6.first()?),
        };
        let interface = interface.index;
        Some(Gateway { address, interface })
    };
    let has = |interface: &&Interface| match internal {
        IpAddr::V4(ip) => interface.ipv4.iter().any(|net| net.addr() == ip),
        IpAddr::V6(ip) => interface.ipv6.iter().any(|net| net.addr() == ip),
    };
    if !internal.is_unspecified() {
        return interfaces.iter().find(has).and_then(gateway);
    }
    let default = interfaces.iter().filter(|interface| interface.default);
    let others = interfaces.iter().filter(|interface| !interface.default);
    default.chain(others).find_map(gateway)
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

    fn interface(index: u32, own: &str, router: Option<&str>, default: bool) -> Interface {
        let mut interface = Interface::dummy();
        interface.index = index;
        interface.default = default;
        interface.ipv4 = vec![own.parse().unwrap()];
        interface.gateway = router.map(|router| {
            let mut device = netdev::NetworkDevice::new();
            device.ipv4.push(router.parse().unwrap());
            device
        });
        interface
    }

    #[test]
    fn the_router_is_that_of_the_sockets_interface() {
        let interfaces = [
            interface(1, "127.0.0.1/8", None, false),
            interface(2, "10.8.0.2/24", Some("10.8.0.1"), false),
            interface(3, "192.168.1.5/24", Some("192.168.1.1"), true),
        ];
        let router =
            |internal: &str| choose(&interfaces, internal.parse().unwrap()).map(|found| found.address.to_string());
        assert_eq!(router("0.0.0.0").as_deref(), Some("192.168.1.1"));
        assert_eq!(router("10.8.0.2").as_deref(), Some("10.8.0.1"));
        assert_eq!(router("127.0.0.1"), None);
        assert_eq!(router("::"), None);
        assert_eq!(choose(&interfaces[..1], "0.0.0.0".parse().unwrap()), None);
    }
}
