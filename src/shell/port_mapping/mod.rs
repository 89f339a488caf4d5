//! Carries out [`MappingOrder`]s: asks routers, on the background runtime.
//!
//! Each protocol and IP version of a node has one task at most, which works off one order after the other; a newer order interrupts
//! an older one. Tasks do not keep the node alive: what routers say to a node that is gone is dropped, and what they gave is taken back.
//! Nothing here computes for long: UPnP, whose answers are up to a megabyte of XML from whoever answers first, has threads of its own.

mod gateway;
mod pcp;
mod pinhole;
#[cfg(test)]
mod tests;
mod upnp;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::runtime;
use crate::codes::MappingProtocol;
use crate::peer::api::nat::{MappingAnswer, MappingFailure, MappingId, MappingOrder};

/// For taking a port back: the router is known and near. A game that ends waits no longer than its destroy allows; the rest happens
/// behind its back.
const UNMAP_TIME: Duration = Duration::from_secs(2);

/// Where answers go.
pub type Sink = Arc<dyn Fn(MappingAnswer) + Send + Sync>;

/// What a router is asked.
#[derive(Debug, Clone, Copy)]
struct Wish {
    internal: SocketAddr,
    external: u16,
    lifetime: u32,
    timeout: Duration,
}

/// What a router gave.
#[derive(Debug, Clone, Copy)]
struct Grant {
    external: SocketAddr,
    lifetime: u32,
    epoch: Option<u32>,
}

/// Why a router did not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    why: MappingFailure,
    text: String,
}

impl Refusal {
    fn new(why: MappingFailure, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { why, text }
    }

    fn silent(text: impl Into<String>) -> Self {
        Self::new(MappingFailure::Silent, text)
    }

    fn refused(text: impl Into<String>) -> Self {
        Self::new(MappingFailure::Refused, text)
    }

    fn conflict(text: impl Into<String>) -> Self {
        Self::new(MappingFailure::Conflict, text)
    }

    fn no_public_address() -> Self {
        Self::new(
            MappingFailure::NoPublicAddress,
            "the router has no public address: another router stands before it, or its line is down",
        )
    }
}

/// Tells the game of a step.
type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// One protocol's side: what it remembers between orders.
enum Client {
    Upnp(upnp::Client),
    Pcp(pcp::Client),
    NatPmp(pcp::NatPmpClient),
    Pinhole(pinhole::Client),
}

impl Client {
    fn new(protocol: MappingProtocol, ipv6: bool) -> Self {
        match (protocol, ipv6) {
            (MappingProtocol::Upnp, _) => Self::Upnp(upnp::Client::default()),
            (MappingProtocol::Pcp, false) => Self::Pcp(pcp::Client::default()),
            (MappingProtocol::Pcp, true) => Self::Pinhole(pinhole::Client::default()),
            (MappingProtocol::NatPmp, _) => Self::NatPmp(pcp::NatPmpClient::default()),
        }
    }

    async fn map(&mut self, wish: Wish, progress: Progress) -> Result<Grant, Refusal> {
        match self {
            Self::Upnp(client) => client.map(wish, progress).await,
            Self::Pcp(client) => client.map(wish, progress).await,
            Self::NatPmp(client) => client.map(wish, progress).await,
            Self::Pinhole(client) => client.map(wish, progress).await,
        }
    }

    async fn unmap(&mut self) {
        match self {
            Self::Upnp(client) => client.unmap().await,
            Self::Pcp(client) => client.unmap().await,
            Self::NatPmp(client) => client.unmap().await,
            Self::Pinhole(client) => client.unmap().await,
        }
    }
}

enum Work {
    Map(MappingId, Wish),
    Unmap,
}

/// A protocol and IP version.
struct Lane {
    protocol: MappingProtocol,
    ipv6: bool,
    last_id: MappingId,
    next: Option<Work>,
    /// Its task has it while it runs.
    client: Option<Client>,
    running: bool,
}

/// Everything of one node.
pub struct PortMapper {
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Mutex<Vec<Lane>>,
    /// A newer order has come for a lane.
    news: [Notify; LANES],
    sink: Sink,
}

/// UPnP, PCP, NAT-PMP, and PCP for IPv6.
const LANES: usize = 4;

impl PortMapper {
    /// Answers go to `sink`, from other threads.
    pub fn new(sink: Sink) -> Self {
        let lanes = Mutex::new(Vec::new());
        let news = std::array::from_fn(|_| Notify::new());
        let shared = Arc::new(Shared { lanes, news, sink });
        Self { shared }
    }

    /// Begins to carry out an order.
    pub fn order(&self, order: MappingOrder) {
        let mut lanes = self.shared.lanes.lock();
        let (lane, work) = match order {
            MappingOrder::Map {
                id,
                protocol,
                internal,
                external,
                lifetime,
                timeout,
            } => {
                let Some(lane) = lane_of(&mut lanes, protocol, internal.is_ipv6()) else {
                    return;
                };
                lanes[lane].last_id = id;
                let wish = Wish {
                    internal,
                    external,
                    lifetime,
                    timeout,
                };
                (lane, Work::Map(id, wish))
            }
            MappingOrder::Unmap { id } => {
                let Some(lane) = lanes.iter().position(|lane| lane.last_id == id) else {
                    return;
                };
                (lane, Work::Unmap)
            }
        };
        self.shared.begin(&mut lanes, lane, work);
    }

    /// Nothing is being asked or taken back.
    pub fn is_idle(&self) -> bool {
        self.shared.lanes.lock().iter().all(|lane| !lane.running)
    }
}

impl Drop for PortMapper {
    /// Whatever routers gave is taken back.
    fn drop(&mut self) {
        let mut lanes = self.shared.lanes.lock();
        for lane in 0..lanes.len() {
            self.shared.begin(&mut lanes, lane, Work::Unmap);
        }
    }
}

/// The place of a lane; a new one if it is the first order for it.
fn lane_of(lanes: &mut Vec<Lane>, protocol: MappingProtocol, ipv6: bool) -> Option<usize> {
    let known = lanes
        .iter()
        .position(|lane| lane.protocol == protocol && lane.ipv6 == ipv6);
    if known.is_none() && lanes.len() < LANES {
        lanes.push(Lane {
            protocol,
            ipv6,
            last_id: 0,
            next: None,
            client: Some(Client::new(protocol, ipv6)),
            running: false,
        });
        return Some(lanes.len() - 1);
    }
    known
}

impl Shared {
    fn begin(self: &Arc<Self>, lanes: &mut [Lane], lane: usize, work: Work) {
        let entry = &mut lanes[lane];
        entry.next = Some(work);
        if entry.running {
            return self.news[lane].notify_one();
        }
        let Some(client) = entry.client.take() else { return };
        entry.running = true;
        if !runtime::spawn(work_off(self.clone(), lane, client)) {
            // A forked process has no background thread, and no node either.
            entry.running = false;
        }
    }

    fn has_news(&self, lane: usize) -> bool {
        self.lanes.lock()[lane].next.is_some()
    }
}

/// A lane's task: one order after the other until there is none.
async fn work_off(shared: Arc<Shared>, lane: usize, mut client: Client) {
    loop {
        let work = {
            let mut lanes = shared.lanes.lock();
            match lanes[lane].next.take() {
                Some(work) => work,
                None => {
                    lanes[lane].client = Some(client);
                    lanes[lane].running = false;
                    return;
                }
            }
        };
        match work {
            Work::Map(id, wish) => {
                if let Some(answer) = map(&shared, lane, &mut client, id, wish).await {
                    (shared.sink)(answer);
                }
            }
            Work::Unmap => {
                // Who does not answer within that time has the lease's end.
                let _ = timeout(UNMAP_TIME, client.unmap()).await;
            }
        }
    }
}

/// `None`: interrupted by a newer order.
async fn map(shared: &Shared, lane: usize, client: &mut Client, id: MappingId, wish: Wish) -> Option<MappingAnswer> {
    let sink = shared.sink.clone();
    let progress = Arc::new(move |text| sink(MappingAnswer::Progress { id, text }));
    let asking = timeout(wish.timeout, client.map(wish, progress));
    let interrupted = async {
        while !shared.has_news(lane) {
            shared.news[lane].notified().await;
        }
    };
    let answer = match first(asking, interrupted).await? {
        Ok(Ok(grant)) => MappingAnswer::Granted {
            id,
            external: grant.external,
            lifetime: grant.lifetime,
            epoch: grant.epoch,
        },
        Ok(Err(Refusal { why, text })) => MappingAnswer::Failed { id, why, text },
        Err(_) => MappingAnswer::Failed {
            id,
            why: MappingFailure::Silent,
            text: "no usable answer in time".to_owned(),
        },
    };
    Some(answer)
}

/// What `wanted` comes to, unless `end` is there before.
async fn first<R>(wanted: impl Future<Output = R>, end: impl Future<Output = ()>) -> Option<R> {
    let (mut wanted, mut end) = (pin!(wanted), pin!(end));
    std::future::poll_fn(move |context| {
        if let Poll::Ready(result) = wanted.as_mut().poll(context) {
            return Poll::Ready(Some(result));
        }
        end.as_mut().poll(context).map(|()| None)
    })
    .await
}
