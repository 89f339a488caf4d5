//! Ports that a lab's routers forward: what the shell does over the network, the lab does by asking the router's state.

use std::net::SocketAddr;
use std::time::Duration;

use super::router::{Grant, Refusal};
use super::{HostId, Lab, MappingService, RouterId, Translation};
use crate::codes::MappingProtocol;
use crate::peer::api::SideEffectAnswer;
use crate::peer::api::nat::{MappingAnswer, MappingFailure, MappingId, MappingOrder};

impl Lab {
    /// The owner of a router forwards one of its ports by hand; returns the outside address. With two routers in a row both need it:
    /// the outer one forwards to the address that this returned for the inner one.
    pub fn forward_port(&mut self, router: RouterId, port: u16, internal: SocketAddr) -> SocketAddr {
        self.internet.router(router).forward_by_hand(port, internal)
    }

    /// The next router on the way out, and the address of the socket in its LAN.
    fn gateway(&self, host: HostId, internal: SocketAddr) -> Option<(RouterId, SocketAddr)> {
        let fits = |address: &std::net::IpAddr| {
            address.is_ipv4() == internal.is_ipv4() && (internal.ip().is_unspecified() || *address == internal.ip())
        };
        let mut interfaces = self.hosts[host.0].interfaces.iter();
        interfaces.find_map(|(attachment, addresses)| {
            let address = addresses.iter().copied().find(fits)?;
            let router = self.internet.router_of(*attachment)?;
            Some((router, SocketAddr::new(address, internal.port())))
        })
    }

    /// Carries out what an engine wants of its router.
    pub(super) fn order_mapping(&mut self, host: HostId, order: MappingOrder) {
        match order {
            MappingOrder::Map {
                id,
                protocol,
                internal,
                external,
                lifetime,
                timeout,
            } => self.map_port(host, id, protocol, (internal, external, lifetime), timeout),
            MappingOrder::Unmap { id } => {
                if let Some((router, external)) = self.hosts[host.0].forwarded.remove(&id) {
                    self.internet.router(router).unmap_port(external);
                }
            }
        }
    }

    fn map_port(
        &mut self,
        host: HostId,
        id: MappingId,
        protocol: MappingProtocol,
        (internal, external, lifetime): (SocketAddr, u16, u32),
        timeout: Duration,
    ) {
        let mut tell = |delay: Duration, answer| self.answer_after(host, delay, SideEffectAnswer::Mapping(answer));
        let failed = |why, text: &str| MappingAnswer::Failed {
            id,
            why,
            text: text.to_owned(),
        };
        // NAT-PMP knows IPv4 alone; the UPnP of the shell, too.
        if internal.is_ipv6() && protocol != MappingProtocol::Pcp {
            return tell(
                Duration::ZERO,
                failed(MappingFailure::Refused, "this protocol forwards IPv4 only"),
            );
        }
        let Some((router, internal)) = self.gateway(host, internal) else {
            return self.silence(host, id, timeout);
        };
        let config = self.internet.router(router).config();
        let (translation, delay, service) = (
            config.translation,
            config.port_mapping.delay,
            config.port_mapping.service(protocol),
        );
        if translation == Translation::None || service == MappingService::Absent || delay >= timeout {
            return self.silence(host, id, timeout);
        }
        let text = format!("found a router that speaks {}", protocol.name());
        let answer = MappingAnswer::Progress { id, text };
        self.answer_after(host, Duration::ZERO, SideEffectAnswer::Mapping(answer));
        let answer = match service {
            MappingService::Absent | MappingService::Hangs => return,
            MappingService::Refuses => failed(MappingFailure::Refused, "the router refuses (not authorized)"),
            MappingService::NoPublicAddress => {
                failed(MappingFailure::NoPublicAddress, "the router has no public address")
            }
            MappingService::Garbage => failed(MappingFailure::Refused, "the router's answer makes no sense"),
            MappingService::Grants => {
                let time = self.time;
                let state = self.internet.router(router);
                match state.map_port(time, protocol, internal, external, lifetime) {
                    Ok(grant) => self.granted(host, id, router, grant),
                    Err(Refusal::Conflict) => failed(MappingFailure::Conflict, "somebody else has that port"),
                    Err(Refusal::Full) => failed(MappingFailure::Refused, "the router has no port left"),
                }
            }
        };
        self.answer_after(host, delay, SideEffectAnswer::Mapping(answer));
    }

    fn granted(&mut self, host: HostId, id: MappingId, router: RouterId, grant: Grant) -> MappingAnswer {
        self.hosts[host.0].forwarded.insert(id, (router, grant.external));
        MappingAnswer::Granted {
            id,
            external: grant.claimed,
            lifetime: grant.lifetime,
            epoch: grant.epoch,
        }
    }

    /// Nobody answers: that is known when the time is over.
    fn silence(&mut self, host: HostId, id: MappingId, timeout: Duration) {
        let (why, text) = (MappingFailure::Silent, "no router answered".to_owned());
        let answer = MappingAnswer::Failed { id, why, text };
        self.answer_after(host, timeout, SideEffectAnswer::Mapping(answer));
    }
}
