//! UPnP Internet Gateway Device, versions 1 and 2, by igd-next.
//!
//! What strangers in the home network may cost is bounded there: an answer to the search must name its sender's own address, a
//! document has at most a megabyte and 64 levels. The time is bounded by whoever calls.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, GatewayIpVersion, PortMappingProtocol, RequestError, SearchError, SearchOptions};

use super::gateway::own_address;
use super::{Grant, Progress, Refusal, Wish};

/// How the port is named in the router's list.
const DESCRIPTION: &str = "Lanline";
/// A search is repeated once, after this part of the time: its packets are multicast, which wireless networks lose easily. The first goes on.
const SECOND_SEARCH: f64 = 0.25;
/// Kept for what follows a search that found nothing: saying so.
const SEARCH_PART: f64 = 0.95;

/// A router that was found, and what it gave.
#[derive(Default)]
pub struct Client {
    gateway: Option<Gateway<Tokio>>,
    granted: Option<u16>,
}

impl Client {
    pub async fn map(&mut self, wish: Wish, progress: Progress<'_>) -> Result<Grant, Refusal> {
        if let Some(gateway) = self.gateway.clone() {
            match self.ask(&gateway, wish, progress).await {
                Err(refusal) if refusal.silent => {}
                answer => return answer,
            }
            // It may have restarted, with its services at other ports.
            self.gateway = None;
        }
        progress("UPnP: searching for a router".to_owned());
        let gateway = search(wish).await?;
        progress(format!("UPnP: the router {} is asked", gateway.addr.ip()));
        self.gateway = Some(gateway.clone());
        self.ask(&gateway, wish, progress).await
    }

    async fn ask(&mut self, gateway: &Gateway<Tokio>, wish: Wish, progress: Progress<'_>) -> Result<Grant, Refusal> {
        let own = own_address(wish.internal, gateway.addr).map_err(Refusal::refused)?;
        let internal = SocketAddr::new(own, wish.internal.port());
        let address = match gateway.get_external_ip().await {
            Ok(address) => address,
            Err(igd_next::GetExternalIpError::RequestError(error)) => return Err(unanswered(&error)),
            Err(error) => {
                return Err(Refusal::refused(format!(
                    "the router does not tell its address: {error}"
                )));
            }
        };
        let (external, lifetime) = match add(gateway, wish.external, internal, wish.lifetime).await {
            Err(AddPortError::SamePortValuesRequired) => {
                progress(format!(
                    "UPnP: the router forwards to the same port only: {}",
                    internal.port()
                ));
                let answer = add(gateway, internal.port(), internal, wish.lifetime).await;
                (internal.port(), answer)
            }
            answer => (wish.external, answer),
        };
        let lifetime = lifetime.map_err(|error| match error {
            AddPortError::PortInUse => Refusal::conflict(format!("port {external} is forwarded to somebody else")),
            AddPortError::RequestError(error) => unanswered(&error),
            error => Refusal::refused(error.to_string()),
        })?;
        if let Some(old) = self.granted.replace(external).filter(|old| *old != external) {
            // An older mapping of this node at another port. The router may have forgotten it.
            let _ = gateway.remove_port(PortMappingProtocol::UDP, old).await;
        }
        Ok(Grant {
            external: SocketAddr::new(address, external),
            lifetime,
            epoch: None,
        })
    }

    pub async fn unmap(&mut self) {
        if let (Some(gateway), Some(port)) = (&self.gateway, self.granted.take()) {
            // It may be gone by itself, and so may the router.
            let _ = gateway.remove_port(PortMappingProtocol::UDP, port).await;
        }
    }
}

/// Gives the lifetime: 0 where the router knows no leases.
async fn add(
    gateway: &Gateway<Tokio>,
    external: u16,
    internal: SocketAddr,
    lifetime: u32,
) -> Result<u32, AddPortError> {
    let ask = |lifetime| gateway.add_port(PortMappingProtocol::UDP, external, internal, lifetime, DESCRIPTION);
    match ask(lifetime).await {
        Err(AddPortError::OnlyPermanentLeasesSupported) => ask(0).await.map(|()| 0),
        answer => answer.map(|()| lifetime),
    }
}

/// The first router that answers, of two searches.
async fn search(wish: Wish) -> Result<Gateway<Tokio>, Refusal> {
    let time = wish.timeout.mul_f64(SEARCH_PART);
    let begin = |time: Duration| {
        let mut options = SearchOptions::default();
        // The interface of that address is the one that the multicast leaves by.
        options.bind_addr = SocketAddr::new(wish.internal.ip(), 0);
        options.timeout = Some(time);
        options.single_search_timeout = Some(time);
        options.gateway_ip_version = GatewayIpVersion::V4;
        search_gateway(options)
    };
    let pause = time.mul_f64(SECOND_SEARCH);
    let second = async {
        tokio::time::sleep(pause).await;
        begin(time - pause).await
    };
    first_success(begin(time), second).await.map_err(|error| match error {
        SearchError::IoError(error) => Refusal::refused(format!("the search could not be sent: {error}")),
        _ => Refusal::silent("no router answered the search in time with a description that can be used"),
    })
}

/// What succeeds first; the last failure if nothing does.
async fn first_success<T, E>(
    one: impl Future<Output = Result<T, E>>,
    other: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut one_over, mut other_over) = (false, false);
    std::future::poll_fn(move |context| {
        if !one_over && let Poll::Ready(result) = one.as_mut().poll(context) {
            one_over = true;
            if result.is_ok() || other_over {
                return Poll::Ready(result);
            }
        }
        if !other_over && let Poll::Ready(result) = other.as_mut().poll(context) {
            other_over = true;
            if result.is_ok() || one_over {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

/// What it means that a request did not lead to an answer of the service.
fn unanswered(error: &RequestError) -> Refusal {
    match error {
        RequestError::ErrorCode(code, text) => Refusal::refused(format!("the router refused: {text} ({code})")),
        RequestError::UnsupportedAction(action) => Refusal::refused(format!("the router does not know {action}")),
        RequestError::InvalidResponse(_) | RequestError::Utf8Error(_) => {
            Refusal::refused(format!("the router's answer makes no sense: {error}"))
        }
        _ => Refusal::silent(format!("the router did not answer: {error}")),
    }
}
