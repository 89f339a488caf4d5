//! Whose a datagram is, by where it came from: QUIC packets to their route, STUN answers to who asked.
//!
//! In: a datagram with socket and source. Out: the route that it belongs to (a fresh one for whoever begins a connection), and how far its
//! source is trusted. What belongs to nobody is counted and dropped.

use std::time::Instant;

use super::Node;
use super::paths::{Owner, Path, kind_of};
use crate::engine::{Datagram, SocketName};
use crate::transport::{Origin, SyntheticAddress};
use crate::wire::control::RelayPolicy;

/// Smallest datagram that can begin a QUIC connection, and that every path must carry (RFC 9000, section 14.1).
pub(super) const SMALLEST_INITIAL: usize = 1200;

impl Node {
    /// The route that a QUIC packet belongs to. One that begins a connection may come from anywhere.
    pub(super) fn route_for(&mut self, now: Instant, datagram: &Datagram) -> Option<SyntheticAddress> {
        if let Some(route) = self.paths.route_from(datagram.socket, datagram.source) {
            return Some(route);
        }
        let heard = self.attempts.heard_at(datagram.socket, datagram.source);
        // The other side may send over another of several paths that opened at once: its probes were heard from there.
        let known = heard.map(|(punch, kind)| (punch.peer().guid(), kind));
        if let Some((peer, kind)) = known
            && let Some(route) = self.link_address(peer).or_else(|| Some(self.paths.opened(peer)?.0))
        {
            let path = Path {
                socket: datagram.socket,
                address: datagram.source,
                kind,
                round_trip: None,
                verified: false,
            };
            self.paths.add(route, path);
            return Some(route);
        }
        let hidden =
            self.effective_relay_policy() == RelayPolicy::Only && !matches!(datagram.socket, SocketName::Relay(_));
        if hidden || !begins_connection(&datagram.contents) {
            // A peer that roamed shows a connection id that we gave out. It is followed once probes verify its new address.
            self.dropped.strangers += 1;
            return None;
        }
        let (owner, kind) = match heard {
            Some((punch, kind)) => (Owner::Peer(punch.peer()), kind),
            None => {
                let forwarded = self.kind_of_session(datagram.socket);
                (Owner::Stranger, forwarded.unwrap_or_else(|| kind_of(datagram.source)))
            }
        };
        let path = Path {
            socket: datagram.socket,
            address: datagram.source,
            kind,
            round_trip: None,
            verified: false,
        };
        // A route may still stand under that address although its source went over to another one.
        let known = self.transport.address_of(datagram.socket, datagram.source);
        let route = match self.paths.owner(known) {
            None => known,
            Some(_) => self.transport.new_address(),
        };
        self.paths.insert(now, route, owner, path);
        self.timers_changed = true;
        Some(route)
    }

    /// A STUN datagram. Answers to questions of this node count; it is no server.
    pub(super) fn handle_stun(&mut self, now: Instant, datagram: &Datagram) {
        if !self.udp_answers(now, datagram) && !self.nat_datagram(now, datagram) {
            self.dropped.unknown += 1;
        }
    }

    /// What is known of the source of a packet that may begin a connection. A peer whose authenticated probes were heard from there is trusted:
    /// strangers' handshakes must not keep it out.
    pub(super) fn origin_of(&self, route: SyntheticAddress, datagram: &Datagram) -> Origin {
        let may_begin = datagram.contents.first().is_some_and(|first| first & 0x80 != 0);
        Origin {
            trusted: may_begin && matches!(self.paths.owner(route), Some(Owner::Peer(_))),
            ip: may_begin.then(|| datagram.source.ip()),
            shared: self.paths.is_contested(datagram.socket, datagram.source),
        }
    }
}

/// True for a QUIC version 1 Initial of full size (RFC 9000, section 17.2.2). Version negotiation (version 0) never begins anything.
pub(super) fn begins_connection(packet: &[u8]) -> bool {
    packet.len() >= SMALLEST_INITIAL && packet[0] & 0x80 != 0 && packet[1..5] == [0, 0, 0, 1] && packet[0] & 0x30 == 0
}
