//! Proxy servers of a scenario's server, on machines of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::scenario::Scenario;
use super::{HostId, Link, derive_seed, seeded_provider};
use crate::engine::SocketName;
use crate::relay::RelayLimits;
use crate::server::proxy_server::ProxyServerConfig;
use crate::server::{RelayConfig, ServerSocket};
use crate::transport::identity::Identity;

/// What a scenario's server wants to be shown by proxy servers.
pub const PROXY_PASSWORD: &str = "the lab's proxy servers";
/// Where they relay.
const PROXY_PORT: u16 = 61_111;

impl Scenario {
    /// Adds a proxy server so far (one way) from the middle of the internet, and starts it. `change` changes its configuration.
    pub fn add_proxy(&mut self, latency: Duration, change: impl FnOnce(&mut ProxyServerConfig)) -> HostId {
        let internet = self.lab.internet();
        let host = self.lab.add_host("proxy", internet, Link::internet(latency));
        let bound = SocketAddr::new(self.lab.addresses(host)[0], PROXY_PORT);
        self.lab.open_socket(host, SocketName::Udp4, bound);
        let identity = Identity::from_seed(derive_seed(self.lab.seed(), "proxy identity", host.0 as u64));
        let mut config = ProxyServerConfig {
            identity: Arc::new(identity),
            seed: [0; 32],
            crypto: seeded_provider(),
            sockets: vec![ServerSocket {
                name: SocketName::Udp4,
                bound,
                public: None,
                main: true,
            }],
            relay: RelayConfig::Own(RelayLimits::default()),
            password: PROXY_PASSWORD.to_owned(),
            coordinator: vec![self.server_address],
        };
        change(&mut config);
        self.lab.start_proxy_server(host, config);
        host
    }
}
