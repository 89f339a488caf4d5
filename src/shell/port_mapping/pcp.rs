//! PCP (RFC 6887) and NAT-PMP (RFC 6886) for IPv4, by `crab_nat`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::pcp::{BaseMapRequest, DropMappingRange, Nonce};
use crab_nat::{GatewayAddress, InternetProtocol, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp};

use super::gateway::{self, own_address};
use super::{Grant, Progress, Refusal, Wish};

/// Requests are repeated after 250 ms, doubled each time (RFC 6886, section 3.1), for as long as whoever calls allows.
const TIMES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 9,
    max_retry_timeout: None,
};

/// A PCP router and what it gave.
#[derive(Default)]
pub struct Client {
    /// The same in all requests of this node: a mapping belongs to whoever knows it.
    nonce: Option<Nonce>,
    granted: Option<(GatewayAddress, IpAddr, NonZeroU16)>,
}

impl Client {
    pub async fn map(&mut self, wish: Wish, progress: Progress) -> Result<Grant, Refusal> {
        let (gateway, client) = router(wish).await?;
        let nonce = match self.nonce {
            Some(nonce) => nonce,
            None => *self.nonce.insert(fresh_nonce()?),
        };
        let port = inner_port(wish)?;
        progress(format!("PCP: the router {} is asked", IpAddr::from(gateway)));
        let base = BaseMapRequest::new(gateway, client, InternetProtocol::Udp, port);
        // From here on it may have been given, whatever is heard of it.
        self.granted = Some((gateway, client, port));
        let mapping = pcp::port_mapping(base, Some(nonce), None, options(wish))
            .await
            .map_err(pcp_refusal)?;
        let PortMappingType::Pcp { external_ip, .. } = mapping.mapping_type() else {
            return Err(Refusal::refused("the router answered by another protocol"));
        };
        Ok(Grant {
            external: SocketAddr::new(external_ip, mapping.external_port().get()),
            lifetime: mapping.lifetime(),
            epoch: Some(mapping.gateway_epoch()),
        })
    }

    pub async fn unmap(&mut self) {
        if let (Some((gateway, client, internal_port)), Some(nonce)) = (self.granted.take(), self.nonce) {
            let protocol = InternetProtocol::Udp;
            let what = DropMappingRange::Single {
                protocol,
                internal_port,
            };
            // It may be gone by itself, and so may the router.
            let _ = pcp::try_drop_mapping(gateway, client, nonce, what, Some(TIMES)).await;
        }
    }
}

/// A NAT-PMP router and what it gave.
#[derive(Default)]
pub struct NatPmpClient {
    granted: Option<(GatewayAddress, NonZeroU16)>,
}

impl NatPmpClient {
    pub async fn map(&mut self, wish: Wish, progress: Progress) -> Result<Grant, Refusal> {
        let (gateway, _) = router(wish).await?;
        let port = inner_port(wish)?;
        progress(format!("NAT-PMP: the router {} is asked", IpAddr::from(gateway)));
        let address = natpmp::external_address(gateway, Some(TIMES))
            .await
            .map_err(natpmp_refusal)?;
        self.granted = Some((gateway, port));
        let asked = natpmp::port_mapping(gateway, InternetProtocol::Udp, port, options(wish));
        let mapping = asked.await.map_err(natpmp_refusal)?;
        Ok(Grant {
            external: SocketAddr::new(address.into(), mapping.external_port().get()),
            lifetime: mapping.lifetime(),
            epoch: Some(mapping.gateway_epoch()),
        })
    }

    pub async fn unmap(&mut self) {
        if let Some((gateway, port)) = self.granted.take() {
            let _ = natpmp::try_drop_mapping(gateway, InternetProtocol::Udp, Some(port), Some(TIMES)).await;
        }
    }
}

/// The router, and the machine's address towards it.
async fn router(wish: Wish) -> Result<(GatewayAddress, IpAddr), Refusal> {
    let router = gateway::find(wish.internal).await.map_err(Refusal::silent)?.address;
    let client =
        own_address(wish.internal, SocketAddr::new(router, crab_nat::GATEWAY_PORT)).map_err(Refusal::refused)?;
    Ok((GatewayAddress::from(router), client))
}

fn inner_port(wish: Wish) -> Result<NonZeroU16, Refusal> {
    NonZeroU16::new(wish.internal.port()).ok_or_else(|| Refusal::refused("the node has no port"))
}

fn options(wish: Wish) -> PortMappingOptions {
    PortMappingOptions {
        external_port: NonZeroU16::new(wish.external),
        lifetime_seconds: Some(wish.lifetime),
        timeout_config: Some(TIMES),
    }
}

/// A number that nobody guesses.
pub fn fresh_nonce() -> Result<Nonce, Refusal> {
    let seed = crate::shell::identity_file::random_seed().map_err(|failure| Refusal::refused(failure.text))?;
    let word = |at: usize| u32::from_be_bytes([seed[at], seed[at + 1], seed[at + 2], seed[at + 3]]);
    Ok([word(0), word(4), word(8)])
}

fn pcp_refusal(failure: pcp::Failure) -> Refusal {
    let text = failure.to_string();
    match failure {
        pcp::Failure::Timeout => Refusal::silent("the router did not answer"),
        pcp::Failure::Socket(error) => Refusal::silent(unreachable(&error)),
        pcp::Failure::UnsupportedVersion(_) | pcp::Failure::UnsupportedOpcode => {
            Refusal::silent("the router does not speak it")
        }
        // "For example, has not yet obtained an external IP address" (RFC 6887, section 7.4).
        pcp::Failure::NetworkFailure(_) => Refusal::no_public_address(),
        pcp::Failure::CannotProvideExternal(_) => Refusal::conflict(text),
        _ => Refusal::refused(text),
    }
}

fn natpmp_refusal(failure: natpmp::Failure) -> Refusal {
    let text = failure.to_string();
    match failure {
        natpmp::Failure::Timeout => Refusal::silent("the router did not answer"),
        natpmp::Failure::Socket(error) => Refusal::silent(unreachable(&error)),
        // RFC 6886, section 3.5; miniupnpd says so when its own address is a private one.
        natpmp::Failure::NetworkFailure => Refusal::no_public_address(),
        natpmp::Failure::UnsupportedVersion(_) => Refusal::silent("the router does not speak it"),
        _ => Refusal::refused(text),
    }
}

fn unreachable(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        return "the router does not speak it".to_owned();
    }
    format!("the router cannot be asked: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::api::nat::MappingFailure;

    #[test]
    fn reasons_are_told_apart() {
        for (failure, why) in [
            (pcp::Failure::Timeout, MappingFailure::Silent),
            (pcp::Failure::UnsupportedOpcode, MappingFailure::Silent),
            (pcp::Failure::CannotProvideExternal(9), MappingFailure::Conflict),
            (pcp::Failure::NetworkFailure(9), MappingFailure::NoPublicAddress),
            (pcp::Failure::NotAuthorized(9), MappingFailure::Refused),
        ] {
            assert_eq!(pcp_refusal(failure).why, why);
        }
        for (failure, why) in [
            (natpmp::Failure::Timeout, MappingFailure::Silent),
            (natpmp::Failure::NetworkFailure, MappingFailure::NoPublicAddress),
            (natpmp::Failure::NotAuthorized, MappingFailure::Refused),
        ] {
            assert_eq!(natpmp_refusal(failure).why, why);
        }
    }
}
