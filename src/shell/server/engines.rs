//! The two engines that this shell runs: a server, or a proxy server for one. What differs between them is here.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::engine::{Datagram, Engine, Transmit};
use crate::server::proxy_server::{ProxyServer, ProxyServerCounters, ProxyServerNews};
use crate::server::{ProxyNews, Server, ServerCounters};

/// Either engine.
pub enum Engines {
    /// `lanline serve`.
    Server(Box<Server>),
    /// `lanline serve --relay-only`.
    Proxy(Box<ProxyServer>),
}

/// Figures of either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counters {
    /// Of a server.
    Server(ServerCounters),
    /// Of a proxy server.
    Proxy(ProxyServerCounters),
}

impl Engines {
    /// Figures since the start.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Server(server) => Counters::Server(server.counters()),
            Self::Proxy(proxy) => Counters::Proxy(proxy.counters()),
        }
    }

    /// Says goodbye; drain transmits afterwards.
    pub fn shut_down(&mut self, now: Instant) {
        match self {
            Self::Server(server) => server.shut_down(now),
            Self::Proxy(proxy) => proxy.shut_down(now),
        }
    }

    /// A TLS stream has ended. A proxy server takes none.
    pub fn tunnel_closed(&mut self, now: Instant, number: u32) {
        if let Self::Server(server) = self {
            server.tunnel_closed(now, number);
        }
    }

    /// Logs what there is to tell. True: the coordinator's name is to be resolved.
    pub fn log_news(&mut self) -> bool {
        match self {
            Self::Server(server) => {
                while let Some(news) = server.poll_news() {
                    log_of_server(&news);
                }
                false
            }
            Self::Proxy(proxy) => {
                let mut wants_address = false;
                while let Some(news) = proxy.poll_news() {
                    wants_address |= news == ProxyServerNews::WantsAddress;
                    log_of_proxy(&news);
                }
                wants_address
            }
        }
    }
}

fn engine(engines: &mut Engines) -> &mut dyn Engine {
    match engines {
        Engines::Server(server) => &mut **server,
        Engines::Proxy(proxy) => &mut **proxy,
    }
}

impl Engine for Engines {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        engine(self).handle_datagram(now, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        engine(self).handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        engine(self).poll_transmit(now, buffer)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        engine(self).poll_timeout()
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn log_of_server(news: &ProxyNews) {
    match news {
        ProxyNews::Joined {
            key,
            addresses,
            version,
            proxies,
        } => {
            let addresses = list(addresses);
            tracing::info!("proxy server at {addresses} logged in ({proxies} now; version {version}, key {key:?})");
        }
        ProxyNews::Left {
            key,
            addresses,
            reason,
            proxies,
        } => {
            let addresses = list(addresses);
            tracing::warn!("proxy server at {addresses} is gone: {reason} ({proxies} now; key {key:?})");
        }
        ProxyNews::Refused { key, source, reason } => {
            tracing::warn!("proxy server at {source} was not let in: {reason} (key {key:?})");
        }
    }
}

fn log_of_proxy(news: &ProxyServerNews) {
    match news {
        ProxyServerNews::WantsAddress => {}
        ProxyServerNews::Admitted {
            coordinator,
            key,
            observed,
        } => tracing::info!("logged in to {coordinator}, which sees this server at {observed} (its key: {key:?})"),
        ProxyServerNews::Failed {
            coordinator,
            reason,
            pause,
            ..
        } => {
            let at = coordinator.map_or_else(|| "the coordinator".to_owned(), |address| address.to_string());
            tracing::warn!("cannot log in to {at}: {reason}; trying again in {} s", pause.as_secs());
        }
        ProxyServerNews::Lost {
            coordinator,
            reason,
            pause,
        } => tracing::warn!(
            "lost the coordinator at {coordinator}: {reason}; pairs that play go on; trying again in {} s",
            pause.as_secs()
        ),
    }
}

/// The coordinator's name, and its resolution when one is under way.
pub struct Coordinator {
    name: String,
    resolving: Option<JoinHandle<Vec<SocketAddr>>>,
}

impl Coordinator {
    /// `name`: HOST:PORT.
    pub fn new(name: String) -> Self {
        Self { name, resolving: None }
    }

    /// Begins to resolve it.
    pub fn resolve(&mut self) {
        if self.resolving.is_none() {
            let name = self.name.clone();
            self.resolving = Some(tokio::spawn(async move {
                match tokio::net::lookup_host(&name).await {
                    Ok(addresses) => addresses.collect(),
                    Err(error) => {
                        tracing::warn!("cannot resolve {name}: {error}");
                        Vec::new()
                    }
                }
            }));
        }
    }

    /// Ready when it is resolved; never, if nothing is under way.
    pub fn poll_resolved(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Vec<SocketAddr>> {
        let Some(resolving) = &mut self.resolving else {
            return std::task::Poll::Pending;
        };
        let resolved = std::task::ready!(std::pin::Pin::new(resolving).poll(context));
        self.resolving = None;
        // A task that panicked found nothing.
        std::task::Poll::Ready(resolved.unwrap_or_default())
    }
}
