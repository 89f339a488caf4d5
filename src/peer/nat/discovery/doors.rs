//! Where strangers knock: ports that are forwarded to the node's own socket, and IPv6, which no router translates but most guard.
//!
//! In: the forwarded addresses, the answers of the run. Out: requests, and whether strangers get in.
//!
//! **A forwarded port.** A fresh socket asks the server to answer at that port (RESPONSE-PORT), from an address that the node's own socket
//! has never sent to (CHANGE-REQUEST). If it arrives at the own socket, the port is open. RESPONSE-PORT leads to the asker's own IP
//! address: only a port at that address can be tried. Where the port is that of the own socket's mapping, too, and the server has one IP
//! address only, what arrives may have come through that mapping: then it shows an open port only if the filter is known to stop it.
//!
//! **IPv6.** One fresh socket, the *caller*, asks the server to answer another one, which has never sent anything: whatever arrives there
//! came as strangers come. An address without translation has the local port.
//!
//! As with filters, what gets through is a fact, and silence is one beside answered control questions
//! ([`super::filtering`]), if packets from that address of the server reach other sockets.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::super::client::Ask;
use super::super::filtering::{Filtering, Kind, Send, Verdict};
use super::{AFTER_SAMPLES, Discovery, Place, Purpose, Tag};
use crate::engine::SocketName;
use crate::wire::stun::ChangeRequest;

/// The caller, and the one that is called.
const CALLER_SOCKETS: u16 = 2;

/// Where strangers are to knock.
#[derive(Debug, Clone, Default)]
pub struct Strangers {
    /// Outside addresses at which ports are forwarded to the node's own socket, of the server's IP version.
    pub forwarded: Vec<SocketAddr>,
    /// IP addresses that the node's own socket may have sent to.
    pub contacted: Vec<IpAddr>,
    /// How the server sees the node's own socket.
    pub observed: Option<SocketAddr>,
    /// The server's IPv6 address.
    pub ipv6: Option<SocketAddr>,
    /// IPv6 is known to reach it.
    pub ipv6_works: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Forwarded(SocketAddr),
    Ipv6,
}

/// A place at which strangers knock.
#[derive(Debug)]
pub struct Door {
    what: What,
    /// Sends, and hears the control answers.
    checker: SocketName,
    server: SocketAddr,
    change: ChangeRequest,
    /// The address of the server that knocks.
    from: SocketAddr,
    /// The port outside, and the socket behind it.
    port: u16,
    inside: SocketName,
    /// Of one kind alone: [`Kind::Port`].
    pub trial: Filtering,
}

/// The two sockets of the IPv6 test.
#[derive(Debug, Default)]
pub struct Caller {
    asked_for: bool,
    /// The caller and the called, with their bound addresses.
    sockets: Option<[(SocketName, SocketAddr); 2]>,
}

impl Discovery {
    /// Wishes for the sockets of the IPv6 test, once it is known that IPv6 works and the sockets of the samples are there.
    pub(super) fn seek_caller(&mut self) {
        let strangers = &self.setup.strangers;
        let reached = self.answer(Tag::Public).is_some_and(|answer| answer.mapped.is_ipv6());
        let works = self.round_trip.is_some() && (strangers.ipv6_works || self.setup.server.is_ipv6() || reached);
        let free = self.further_decided && self.waiting_for.is_none();
        if strangers.ipv6.is_some() && works && free && !self.caller.asked_for {
            self.caller.asked_for = true;
            self.waiting_for = Some(Purpose::Caller);
            self.wish = Some((Purpose::Caller, CALLER_SOCKETS));
        }
    }

    /// The sockets of the IPv6 test are there, or not.
    pub(super) fn begin_call(&mut self, now: Instant, sockets: &[(SocketName, SocketAddr)]) {
        if let (&[caller, called], Some(server)) = (sockets, self.setup.strangers.ipv6) {
            self.caller.sockets = Some([caller, called]);
            self.question(now, Ask::plain(Tag::Caller, caller.0, server));
        }
    }

    /// The address of the server that strangers come from: as far as possible from the one that the node's own socket speaks to.
    fn stranger(&self) -> Option<(Place, ChangeRequest)> {
        let (ip, port) = (self.other_ip.is_some(), self.other_port.is_some());
        let place = match (ip, port) {
            (true, true) => Place::OtherBoth,
            (true, false) => Place::OtherAddress,
            (false, true) => Place::OtherPort,
            (false, false) => return None,
        };
        Some((place, ChangeRequest { ip, port }))
    }

    fn forwarded_door(&self, outside: SocketAddr) -> Option<Door> {
        let (place, change) = self.stranger()?;
        // With fewer the own socket stands in for fresh ones, and has sent to all addresses of the server.
        let seen_there = |index: &usize| {
            let answer = self.answer(Tag::Sample(*index));
            answer.is_some_and(|answer| answer.mapped.ip() == outside.ip())
        };
        let index = (2..self.fresh.len()).chain([0]).find(seen_there);
        let checker = index.filter(|_| self.fresh.len() >= 2)?;
        Some(Door {
            what: What::Forwarded(outside),
            checker: self.fresh[checker].0,
            server: self.setup.server,
            change,
            from: self.address(place)?,
            port: outside.port(),
            inside: self.setup.own_name,
            trial: Filtering::new(),
        })
    }

    fn ipv6_door(&self) -> Option<Door> {
        let [caller, called] = self.caller.sockets?;
        let server = self.setup.strangers.ipv6?;
        let mapped = self.answer(Tag::Caller)?.mapped;
        let own = caller.1.ip() == mapped.ip() || self.setup.local.contains(&mapped.ip());
        (own && mapped.port() == caller.1.port()).then_some(Door {
            what: What::Ipv6,
            checker: caller.0,
            server,
            change: ChangeRequest::default(),
            from: server,
            port: called.1.port(),
            inside: called.0,
            trial: Filtering::new(),
        })
    }

    fn begin_doors(&mut self, now: Instant) {
        let is_new = |what: &What| self.doors.iter().all(|door| door.what != *what);
        let forwarded = self.setup.strangers.forwarded.iter();
        let forwarded = forwarded.filter(|outside| is_new(&What::Forwarded(**outside)));
        let mut doors: Vec<Door> = forwarded.filter_map(|outside| self.forwarded_door(*outside)).collect();
        if is_new(&What::Ipv6) {
            doors.extend(self.ipv6_door());
        }
        for mut door in doors {
            door.trial.seek(now.max(self.start + AFTER_SAMPLES), Kind::Port);
            self.doors.push(door);
        }
    }

    pub(super) fn send_door_rounds(&mut self, now: Instant) {
        self.begin_doors(now);
        let (interval, patience) = (self.trip() / 2, self.patience());
        for (number, door) in self.doors.iter_mut().enumerate() {
            for send in door.trial.poll(now, interval, patience) {
                let ask = match send {
                    Send::Control { pair } => Ask::plain(Tag::DoorControl(number, pair), door.checker, door.server),
                    Send::Changed(_) => Ask {
                        change: door.change,
                        response_port: Some(door.port),
                        arrives_at: door.inside,
                        arrives_from: door.from,
                        ..Ask::plain(Tag::Door(number), door.checker, door.server)
                    },
                };
                self.client.ask(now, ask);
            }
        }
    }

    pub(super) fn doors_timeout(&self) -> Option<Instant> {
        let patience = self.patience();
        self.doors
            .iter()
            .filter_map(|door| door.trial.poll_timeout(patience))
            .min()
    }

    /// What came in at a forwarded port can have come in there only.
    fn is_conclusive(&self, door: &Door, outside: SocketAddr) -> bool {
        if self.own_asked_further() {
            return false;
        }
        let strangers = &self.setup.strangers;
        let new_ip = door.change.ip && !strangers.contacted.contains(&door.from.ip());
        let other_port = strangers
            .observed
            .is_some_and(|observed| observed.port() != outside.port());
        new_ip || other_port || self.filters(Kind::Port) == Some(true)
    }

    /// The node's own socket has sent to further addresses of the server: those are strangers to it no more.
    pub fn own_asked_further(&self) -> bool {
        self.fresh.len() < 2 || self.questions.keys().any(|tag| matches!(tag, Tag::Own(_)))
    }

    fn is_open(&self, door: &Door) -> Option<bool> {
        match (door.trial.verdict(Kind::Port), door.what) {
            (Verdict::Through, What::Forwarded(outside)) => self.is_conclusive(door, outside).then_some(true),
            (Verdict::Through, What::Ipv6) => Some(true),
            (Verdict::Silent, What::Forwarded(_)) => {
                let (place, _) = self.stranger()?;
                self.mapped_at(place).map(|_| false)
            }
            (Verdict::Silent, What::Ipv6) => Some(false),
            (Verdict::Open | Verdict::Unknown, _) => None,
        }
    }

    /// Forwarded ports of which it is known whether strangers get in.
    pub(super) fn known_doors(&self) -> Vec<(SocketAddr, bool)> {
        let known = self.doors.iter().filter_map(|door| match door.what {
            What::Forwarded(outside) => Some((outside, self.is_open(door)?)),
            What::Ipv6 => None,
        });
        known.collect()
    }

    /// Whether strangers get in over IPv6.
    pub(super) fn v6_open(&self) -> Option<bool> {
        let door = self.doors.iter().find(|door| door.what == What::Ipv6)?;
        self.is_open(door)
    }
}
