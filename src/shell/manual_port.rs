//! What a player has to set in a router to forward a port by hand.

use std::net::SocketAddr;

use super::interfaces;

/// A port to be forwarded by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManualPort {
    /// Inside and outside.
    pub port: u16,
    /// It is the same the next time.
    pub lasting: bool,
    /// This computer inside its network; `None`: it has no address there.
    pub internal: Option<SocketAddr>,
}

impl ManualPort {
    /// For a node whose first socket is bound to `local`; `lasting` if the game chose its port.
    pub fn of(local: SocketAddr, lasting: bool) -> Self {
        let port = local.port();
        let same = |ip: &std::net::IpAddr| ip.is_ipv4() == local.is_ipv4();
        let ip = interfaces::addresses(&[local]).into_iter().find(same);
        Self {
            port,
            lasting,
            internal: ip.map(|ip| SocketAddr::new(ip, port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_the_socket() {
        let local = "127.0.0.1:7000".parse().unwrap();
        let found = ManualPort::of(local, true);
        assert_eq!((found.port, found.lasting, found.internal), (7000, true, Some(local)));
    }
}
