//! RakNet's UDPProxy for those who ask for it step by step: a way through a proxy server, without a connection yet.
//!
//! In: the game's call, the server's answer, the first probe that comes back through the proxy. Out: exactly one of the `PROXY_…` events at
//! the asker, and PROXY_FORWARDING_NOTIFICATION at the target when the asker's probe has come through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::Node;
use super::super::api::relay::{ProxyOutcome, RelayEvent};
use super::super::api::{Event, Reason, RequestId};
use super::super::attempts::cancelled;
use super::super::requests::Pending;
use super::Relayed;
use super::session::State;
use crate::codes::{Code, PathKind};
use crate::transport::identity::Guid;
use crate::wire::control::RelayPolicy;

/// How long the way through the proxy may take to prove itself once it is offered.
const PROOF_TIME: Duration = Duration::from_secs(8);

/// A wish of the game.
#[derive(Debug)]
struct Wish {
    request: RequestId,
    /// The number at the server.
    asked: u32,
    deadline: Instant,
}

/// The wishes that run, and the notifications that are due.
#[derive(Debug, Default)]
pub(in super::super) struct Proxies {
    wishes: BTreeMap<Guid, Wish>,
    /// Sessions that the other side wished for and has not been heard on.
    notify: BTreeSet<Guid>,
}

impl Proxies {
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wishes.values().map(|wish| wish.deadline).min()
    }
}

impl Node {
    /// The game's call.
    pub(in super::super) fn proxy(&mut self, now: Instant, request: RequestId, peer: Guid, idle: Duration) {
        self.requests.begin(request, Pending::Proxy(peer));
        if self.effective_relay_policy() == RelayPolicy::Never {
            let text = "this node's relay policy is \"never\"";
            return self.proxy_ended(
                request,
                peer,
                ProxyOutcome::NoServersOnline,
                (Code::Policy, text.to_owned()),
            );
        }
        if self.relayed.proxies.wishes.contains_key(&peer) {
            let text = "a proxy for that player is being sought already";
            let why = (Code::AlreadyInProgress, text.to_owned());
            return self.proxy_ended(request, peer, ProxyOutcome::InProgress, why);
        }
        let Some(asked) = self.wish_for_relay(now, peer, idle, true) else {
            let text = "there is no session with a server; connect to one first";
            let why = (Code::ServerLost, text.to_owned());
            return self.proxy_ended(request, peer, ProxyOutcome::NoServersOnline, why);
        };
        let deadline = now + PROOF_TIME;
        let wish = Wish {
            request,
            asked,
            deadline,
        };
        self.relayed.proxies.wishes.insert(peer, wish);
    }

    /// The game cancels.
    pub(in super::super) fn cancel_proxy(&mut self, _now: Instant, request: RequestId, peer: Guid) {
        self.relayed.proxies.wishes.retain(|_, wish| wish.request != request);
        let reason = cancelled();
        self.proxy_ended(request, peer, ProxyOutcome::NoServersOnline, (reason.code, reason.text));
    }

    /// The server offered relays for that player.
    pub(super) fn proxy_offered(&mut self, now: Instant, (peer, request): (Guid, u32), announced: bool, taken: bool) {
        if request == 0 {
            if taken && announced {
                self.relayed.proxies.notify.insert(peer);
            }
            return;
        }
        let Some(wish) = self
            .relayed
            .proxies
            .wishes
            .get_mut(&peer)
            .filter(|wish| wish.asked == request)
        else {
            return;
        };
        wish.deadline = now + PROOF_TIME;
        if !taken {
            let text = "the proxy that the server named cannot be reached from this node's sockets".to_owned();
            self.proxy_refused(now, peer, request, Code::NoAnswer, text);
        }
    }

    /// The server has none.
    pub(super) fn proxy_refused(&mut self, _now: Instant, peer: Guid, asked: u32, code: Code, text: String) {
        let found = self
            .relayed
            .proxies
            .wishes
            .get(&peer)
            .filter(|wish| wish.asked == asked);
        let Some(request) = found.map(|wish| wish.request) else {
            return;
        };
        self.relayed.proxies.wishes.remove(&peer);
        let outcome = match code {
            Code::TargetNotConnected | Code::TargetUnresponsive | Code::TargetLost => {
                ProxyOutcome::RecipientNotConnected
            }
            Code::Full | Code::RateLimited => ProxyOutcome::AllServersBusy,
            Code::AlreadyInProgress => ProxyOutcome::InProgress,
            _ => ProxyOutcome::NoServersOnline,
        };
        self.proxy_ended(request, peer, outcome, (code, text));
    }

    /// The other side answered through the forwarder.
    pub(super) fn proxy_proven(&mut self, _now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, address) = (entry.session.peer.guid(), entry.session.label);
        if entry.session.kind != PathKind::Proxied {
            return;
        }
        if let Some(wish) = self.relayed.proxies.wishes.remove(&peer)
            && self.requests.end(wish.request)
        {
            let request = wish.request;
            self.raise(Event::Relay(RelayEvent::ProxySucceeded { request, peer, address }));
        }
    }

    /// The other side probes through the forwarder.
    pub(super) fn proxy_heard(&mut self, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, address) = (entry.session.peer.guid(), entry.session.label);
        if entry.session.kind == PathKind::Proxied && self.relayed.proxies.notify.remove(&peer) {
            self.raise(Event::Relay(RelayEvent::ProxyNotified { peer, address }));
        }
    }

    /// Wishes whose way did not prove itself in time.
    pub(super) fn proxies_timeout(&mut self, now: Instant) {
        let Relayed { sessions, proxies, .. } = &mut self.relayed;
        proxies
            .notify
            .retain(|peer| sessions.values().any(|entry| entry.session.peer.guid() == *peer));
        let late = |(peer, wish): (&Guid, &Wish)| (wish.deadline <= now).then_some((*peer, wish.asked));
        let late: Vec<(Guid, u32)> = self.relayed.proxies.wishes.iter().filter_map(late).collect();
        for (peer, asked) in late {
            let bound = self
                .relayed
                .of(peer)
                .any(|(_, entry)| entry.session.state == State::Bound);
            let (code, text) = match bound {
                true => (
                    Code::TargetUnresponsive,
                    "the other side did not answer through the proxy",
                ),
                false => (Code::NoAnswer, "no proxy server answered"),
            };
            self.proxy_refused(now, peer, asked, code, text.to_owned());
        }
    }

    fn proxy_ended(&mut self, request: RequestId, peer: Guid, outcome: ProxyOutcome, (code, text): (Code, String)) {
        if self.requests.end(request) {
            let reason = Reason { code, text };
            self.raise(Event::Relay(RelayEvent::ProxyFailed {
                request,
                peer,
                outcome,
                reason,
            }));
        }
    }
}
