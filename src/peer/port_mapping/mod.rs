//! Ports that routers forward to this node.
//!
//! | file | what it does |
//! |---|---|
//! | `engine` | asking, renewing, giving back |
//! | `advice` | what players are told |
//!
//! This file connects the two with the node: mapped addresses become candidates, and what the server must hear is sent. Whether a port that
//! a player forwarded by hand is open is found out by the discovery of NAT behaviour, which says so in
//! [`NatReport::manual_open`](super::api::nat::NatReport::manual_open).

mod advice;
mod engine;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use advice::{ManualPort, is_double_nat, is_public, manual_instructions};
pub(super) use engine::PortMapping;
use engine::{Output, Surroundings};

use super::Node;
use super::api::nat::{FailedProtocol, MappedPort, MappingAnswer, NatReport};
use super::api::{Event, Reason, RequestId, SideEffect};
use super::attempts::cancelled;
use super::requests::Pending;
use crate::codes::Code;
use crate::engine::SocketName;

impl Node {
    /// The game's call.
    pub(super) fn map_port(&mut self, now: Instant, request: RequestId, timeout: Duration) {
        self.requests.begin(request, Pending::MapPort);
        self.mapping.surroundings(self.surroundings());
        self.mapping.ask(now, request, timeout);
        self.pump_mapping();
    }

    /// The game does not wait any more.
    pub(super) fn cancel_map_port(&mut self, request: RequestId) {
        self.mapping.cancel(request, cancelled());
        self.pump_mapping();
    }

    /// Somebody other than the game needs a mapped port for a while, or wants to know which routers give one: asks them as the
    /// game's call does, without an event. Ended by [`Node::give_back_port`].
    pub fn borrow_port(&mut self, now: Instant, timeout: Duration) {
        self.mapping.surroundings(self.surroundings());
        self.mapping.borrow(now, timeout);
        self.pump_mapping();
    }

    /// The end of a [`Node::borrow_port`]: the port is taken back unless the game asked for one.
    pub fn give_back_port(&mut self) {
        self.mapping.give_back();
        self.pump_mapping();
    }

    /// True while routers are being asked; afterwards [`NatReport::mappings`](super::api::nat::NatReport::mappings) and
    /// [`Node::port_mapping_failures`] say what came of it.
    pub fn port_mapping_is_asking(&self) -> bool {
        self.mapping.is_asking()
    }

    /// Why protocols failed that were asked last.
    pub fn port_mapping_failures(&self) -> Vec<FailedProtocol> {
        self.mapping.failures()
    }

    /// A router said something.
    pub(super) fn mapping_answer(&mut self, now: Instant, answer: MappingAnswer) {
        self.mapping.answer(now, answer);
        self.pump_mapping();
    }

    pub(super) fn mapping_timeout(&mut self, now: Instant) {
        if self.mapping.poll_timeout().is_some_and(|at| at <= now) {
            self.mapping.handle_timeout(now);
            self.pump_mapping();
        }
    }

    /// The machine's interfaces changed.
    pub(super) fn mapping_moved(&mut self, now: Instant) {
        self.mapping.surroundings(self.surroundings());
        self.mapping.moved(now);
        self.pump_mapping();
    }

    /// A session with the server stands; `again`: the one before broke, as it does when a router restarts.
    pub(super) fn mapping_observed(&mut self, now: Instant, again: bool) {
        self.mapping.surroundings(self.surroundings());
        if again {
            self.mapping.check(now);
        }
        self.pump_mapping();
    }

    /// Everything is taken back.
    pub(super) fn end_mapping(&mut self) {
        self.mapping.shut_down(&cancelled());
        self.pump_mapping();
    }

    fn surroundings(&self) -> Surroundings {
        let socket = |name| {
            self.sockets
                .iter()
                .find(|(socket, _)| *socket == name)
                .map(|(_, bound)| *bound)
        };
        let global = |ip: &&IpAddr| ip.is_ipv6() && is_public(**ip);
        let v6 = |bound: SocketAddr| match bound.ip() {
            ip if !ip.is_unspecified() => is_public(ip).then_some(bound),
            _ => self
                .local_addresses
                .iter()
                .find(global)
                .map(|ip| SocketAddr::new(*ip, bound.port())),
        };
        Surroundings {
            internal_v4: socket(SocketName::Udp4).filter(|bound| !bound.ip().is_loopback()),
            internal_v6: socket(SocketName::Udp6).and_then(v6),
            observed: self.rendezvous.observed.map(|observed| observed.ip().to_canonical()),
        }
    }

    /// Carries out what the engine wants.
    fn pump_mapping(&mut self) {
        self.timers_changed = true;
        for output in self.mapping.take_outputs() {
            match output {
                Output::Order(order) => self.side_effects.push_back(SideEffect::MapPort(order)),
                Output::Progress { request, text } => self.raise(Event::PortMappingProgress { request, text }),
                Output::Mapped { request, port } => {
                    if self.requests.end(request) {
                        self.raise_mapped(request, port);
                    }
                }
                Output::Failed { request, reason } => {
                    if self.requests.end(request) {
                        let reason = self.with_advice(reason);
                        self.raise(Event::PortMappingFailed { request, reason });
                    }
                }
                Output::Changed => {
                    self.view_changed = true;
                    let ports = self.mapping.ports().to_vec();
                    self.nat_mappings_changed(self.now, ports);
                    self.update_server();
                }
            }
        }
    }

    fn raise_mapped(&mut self, request: RequestId, port: MappedPort) {
        let observed = self.rendezvous.observed.map(|observed| observed.ip().to_canonical());
        self.raise(Event::PortMapped {
            request,
            external: port.external,
            protocol: port.protocol,
            double_nat: port.double_nat,
            text: advice::mapped_text(&port, observed),
        });
    }

    /// What a player can do about it.
    fn with_advice(&self, mut reason: Reason) -> Reason {
        if reason.code == Code::Cancelled {
            return reason;
        }
        let advice = match (self.manual_address, self.nat.report.manual_open) {
            (Some(address), Some(true)) => {
                format!("The port forwarded by hand ({address}) is open: nothing more is needed.")
            }
            (Some(address), Some(false)) => format!(
                "The port forwarded by hand ({address}) is not open: check that it leads to UDP port {} of this machine.",
                self.sockets.first().map_or(0, |(_, bound)| bound.port())
            ),
            (Some(address), None) => format!("The port forwarded by hand ({address}) is used all the same."),
            (None, _) => match self.sockets.first() {
                Some((_, bound)) => {
                    // Why no router gives a port was said: what they gave before does not help.
                    let nothing = NatReport::default();
                    manual_instructions(*bound, &self.local_addresses, &nothing).text
                }
                None => return reason,
            },
        };
        reason.text = format!("{}. {advice}", reason.text.trim_end_matches('.'));
        reason
    }
}
