//! UPnP Internet Gateway Device, versions 1 and 2, by igd-next.
//!
//! What strangers in the home network may cost is bounded there: an answer to the search must name its sender's own address, a
//! document has at most a megabyte and 64 levels, a request at most 10 s. Its calls block, so they run in threads of their own, of which the
//! process has few. Whoever calls has its answer in time all the same; a thread that is late finds that out between two requests, and
//! what it was given after that is known and taken back by the next order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use igd_next::{
    AddPortError, Gateway, GatewayIpVersion, GetExternalIpError, PortMappingProtocol, RequestError, SearchError,
    SearchOptions, search_gateway,
};
use parking_lot::Mutex;

use super::gateway::own_address;
use super::{Grant, Progress, Refusal, Wish};
use crate::peer::api::nat::MappingFailure;
use crate::shell::runtime;

/// How the port is named in the router's list.
const DESCRIPTION: &str = "Lanline";
/// The part of the time that the search has; the rest is for asking.
const SEARCH_PART: f64 = 0.95;

/// A router that was found, and what it gave.
struct Memory {
    /// Where searches are sent.
    search: SocketAddr,
    gateway: Option<Gateway>,
    granted: Option<u16>,
}

impl Default for Client {
    fn default() -> Self {
        Self::searching(SearchOptions::default().broadcast_address)
    }
}

/// What is remembered between orders.
pub struct Client {
    memory: Arc<Mutex<Memory>>,
}

/// Tells a thread that nobody waits for it any more.
#[derive(Clone, Default)]
struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    fn check(&self) -> Result<(), Refusal> {
        if self.0.load(Ordering::Acquire) {
            return Err(Refusal::silent("given up"));
        }
        Ok(())
    }
}

/// Says so when whoever waits ends.
struct Waiting(GivenUp);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

impl Client {
    /// One whose searches go to that address.
    pub fn searching(search: SocketAddr) -> Self {
        let memory = Memory {
            search,
            gateway: None,
            granted: None,
        };
        Self {
            memory: Arc::new(Mutex::new(memory)),
        }
    }

    pub async fn map(&mut self, wish: Wish, progress: Progress) -> Result<Grant, Refusal> {
        let (memory, given_up) = (self.memory.clone(), GivenUp::default());
        let _waiting = Waiting(given_up.clone());
        let asking = runtime::blocking(move || memory.lock().map(wish, &progress, &given_up));
        asking
            .await
            .unwrap_or_else(|| Err(Refusal::refused("there is no thread to ask it in")))
    }

    pub async fn unmap(&mut self) {
        let memory = self.memory.clone();
        runtime::blocking(move || memory.lock().unmap()).await;
    }
}

impl Memory {
    fn map(&mut self, wish: Wish, progress: &Progress, given_up: &GivenUp) -> Result<Grant, Refusal> {
        given_up.check()?;
        if let Some(gateway) = self.gateway.clone() {
            match self.ask(&gateway, wish, progress, given_up) {
                Err(refusal) if refusal.why == MappingFailure::Silent => {}
                answer => return answer,
            }
            // It may have restarted, with its services at other ports.
            self.gateway = None;
            given_up.check()?;
        }
        progress("UPnP: searching for a router".to_owned());
        let gateway = search(self.search, wish)?;
        given_up.check()?;
        progress(format!("UPnP: the router {} is asked", gateway.addr.ip()));
        self.gateway = Some(gateway.clone());
        self.ask(&gateway, wish, progress, given_up)
    }

    fn ask(
        &mut self,
        gateway: &Gateway,
        wish: Wish,
        progress: &Progress,
        given_up: &GivenUp,
    ) -> Result<Grant, Refusal> {
        let own = own_address(wish.internal, gateway.addr).map_err(Refusal::refused)?;
        let internal = SocketAddr::new(own, wish.internal.port());
        let address = gateway.get_external_ip().map_err(|error| match error {
            GetExternalIpError::RequestError(RequestError::InvalidResponse(answer)) if names_no_address(&answer) => {
                Refusal::no_public_address()
            }
            GetExternalIpError::RequestError(error) => unanswered(&error),
            error => Refusal::refused(format!("the router does not tell its address: {error}")),
        })?;
        given_up.check()?;
        let (external, lifetime) = match add(gateway, wish.external, internal, wish.lifetime) {
            Err(AddPortError::SamePortValuesRequired) => {
                let port = internal.port();
                progress(format!("UPnP: the router forwards to the same port only: {port}"));
                given_up.check()?;
                (port, add(gateway, port, internal, wish.lifetime))
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
            let _ = gateway.remove_port(PortMappingProtocol::UDP, old);
        }
        Ok(Grant {
            external: SocketAddr::new(address, external),
            lifetime,
            epoch: None,
        })
    }

    fn unmap(&mut self) {
        if let (Some(gateway), Some(port)) = (&self.gateway, self.granted.take()) {
            // It may be gone by itself, and so may the router.
            let _ = gateway.remove_port(PortMappingProtocol::UDP, port);
        }
    }
}

/// Gives the lifetime: 0 where the router knows no leases.
fn add(gateway: &Gateway, external: u16, internal: SocketAddr, lifetime: u32) -> Result<u32, AddPortError> {
    let ask = |lifetime| gateway.add_port(PortMappingProtocol::UDP, external, internal, lifetime, DESCRIPTION);
    match ask(lifetime) {
        Err(AddPortError::OnlyPermanentLeasesSupported) => ask(0).map(|()| 0),
        answer => answer.map(|()| lifetime),
    }
}

/// The first router that answers with something that makes sense. The search is sent for each kind of service, in a packet of its own.
fn search(at: SocketAddr, wish: Wish) -> Result<Gateway, Refusal> {
    let time: Duration = wish.timeout.mul_f64(SEARCH_PART);
    let mut options = SearchOptions::default();
    // The interface of that address is the one that the multicast leaves by.
    options.bind_addr = SocketAddr::new(wish.internal.ip(), 0);
    options.broadcast_address = at;
    if !at.ip().is_multicast() {
        // Who was asked by its very address is known, even on loopback.
        options.allowed_gateway_ips = vec![at.ip()];
    }
    options.timeout = Some(time);
    // Devices are asked one after the other: one that hangs leaves half of the time to the next.
    options.single_search_timeout = Some(time / 2);
    options.gateway_ip_version = GatewayIpVersion::V4;
    search_gateway(options).map_err(|error| match error {
        SearchError::IoError(error) => Refusal::refused(format!("the search could not be sent: {error}")),
        _ => Refusal::silent("no router answered the search in time with a description that can be used"),
    })
}

/// Whether a well-formed answer has no outside address in it. miniupnpd says so when its own is a private one.
fn names_no_address(answer: &str) -> bool {
    let words: String = answer.split_whitespace().collect();
    words.contains("<NewExternalIPAddress></NewExternalIPAddress>") || words.contains("<NewExternalIPAddress/>")
}

/// What it means that a request did not lead to an answer of the service.
fn unanswered(error: &RequestError) -> Refusal {
    match error {
        RequestError::ErrorCode(code, text) => Refusal::refused(format!("the router refused: {text} ({code})")),
        RequestError::UnsupportedAction(action) => Refusal::refused(format!("the router does not know {action}")),
        // Not the answer itself: it may be a page, or a megabyte.
        RequestError::InvalidResponse(_) => Refusal::refused("the router's answer makes no sense"),
        _ => Refusal::silent(format!("the router did not answer: {error}")),
    }
}
