//! A node's session with the server.
//!
//! In: link events and control messages of the transport. Out: control messages, closes, registrations, introductions.
//!
//! A link begins without a name: its key is proven, no more. Its first message must be Hello, within [`HELLO_TIME`];
//! Hello is checked in the order of cost and of what a stranger may learn: protocol, limits, access key, app, room. Then
//! the node is registered and hears Welcome. A link that breaks the rules is closed with a code and a text.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::hmac;

use super::candidates::Addresses;
use super::introductions::Notice;
use super::limits::ControlBudget;
use super::registry::{Applicant, Node, Profile, Refusal};
use super::relay_requests::Wish;
use super::{IDLE_TIMEOUT, Server, is_tunnel};
use crate::codes::Code;
use crate::engine::SocketName;
use crate::transport::identity::PublicKey;
use crate::transport::{CloseInfo, LinkEvent, LinkId, LinkKind, SyntheticAddress};
use crate::wire::control::{ACCESS_EXPORTER_LABEL, FromServer, Hello, KnownRelay, MAX_STUN_ADDRESSES, ToServer};
use crate::wire::{DecodeError, MAX_APP_ID, PROTOCOL_VERSION, peek_protocol};

/// How long a link may stay without Hello. A node sends it with its last flight of the handshake: this is many
/// retransmissions.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// A code and a text, for a close or for a failed request.
pub(super) type Why = (Code, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Hello has not come yet.
    Unnamed,
    /// Registered.
    Registered,
    /// This side has closed it; nothing that still comes counts.
    Closing,
}

struct Session {
    address: SyntheticAddress,
    key: PublicKey,
    state: State,
    budget: ControlBudget,
}

/// All links that are connected.
#[derive(Default)]
pub(super) struct Sessions {
    links: BTreeMap<LinkId, Session>,
    /// By when Hello must have come, in order of time.
    hello_deadlines: VecDeque<(Instant, LinkId)>,
}

impl Sessions {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.hello_deadlines.front().map(|(deadline, _)| *deadline)
    }
}

impl Server {
    /// Takes what the transport has to say and tells nodes what follows from it.
    pub(super) fn handle_links(&mut self, now: Instant) {
        // Telling somebody can close a link that does not listen, and a closed link is news for others.
        loop {
            if let Some(event) = self.transport.poll_event() {
                self.handle_link_event(now, event);
            } else if let Some(notice) = self.introductions.poll_notice() {
                self.send_notice(now, notice);
            } else {
                return;
            }
        }
    }

    fn handle_link_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Connected { link, address, key, .. } => match self.transport.kind(link) {
                Some(LinkKind::Proxy) => self.proxy_connected(now, link, address, key),
                _ => self.link_connected(now, link, address, key),
            },
            LinkEvent::Readable { link } if self.proxy_logins.has(link) => self.read_proxy(now, link),
            LinkEvent::Readable { link } => self.read_control(now, link),
            LinkEvent::Writable { .. } => {}
            LinkEvent::Closed { link, reason } if self.proxy_logins.has(link) => self.proxy_closed(now, link, &reason),
            LinkEvent::Closed { link, .. } => self.link_closed(now, link),
        }
    }

    /// Closes links whose Hello did not come in time.
    pub(super) fn close_silent(&mut self, now: Instant) {
        while let Some((deadline, link)) = self.sessions.hello_deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.sessions.hello_deadlines.pop_front();
            if self
                .sessions
                .links
                .get(&link)
                .is_some_and(|session| session.state == State::Unnamed)
            {
                self.refuse(now, link, (Code::ProtocolViolation, "no Hello came in time"));
            }
        }
    }

    /// Closes every link.
    pub(super) fn close_all(&mut self, now: Instant, code: Code, text: &'static str) {
        let links: Vec<LinkId> = self.sessions.links.keys().copied().collect();
        for link in links {
            self.close(now, link, (code, text));
        }
    }

    /// Closes every link at those addresses.
    pub(super) fn close_links_of(&mut self, now: Instant, addresses: &[SyntheticAddress]) {
        if addresses.is_empty() {
            return;
        }
        let here = self
            .sessions
            .links
            .iter()
            .filter(|(_, session)| addresses.contains(&session.address));
        let links: Vec<LinkId> = here.map(|(link, _)| *link).collect();
        for link in links {
            self.close(now, link, (Code::Lost, "the stream that carried the session has ended"));
        }
    }

    fn link_connected(&mut self, now: Instant, link: LinkId, address: SyntheticAddress, key: PublicKey) {
        self.addresses.link_opened(address);
        let session = Session {
            address,
            key,
            state: State::Unnamed,
            budget: ControlBudget::new(now),
        };
        self.sessions.links.insert(link, session);
        if self.shutting_down {
            self.close(now, link, (Code::Closed, "the server is shutting down"));
        } else {
            self.sessions.hello_deadlines.push_back((now + HELLO_TIME, link));
        }
    }

    fn link_closed(&mut self, now: Instant, link: LinkId) {
        self.transport.forget(link);
        if let Some(session) = self.sessions.links.remove(&link) {
            self.addresses.link_closed(now, session.address);
        }
        self.unregister(link);
    }

    /// The link's node can no longer be found, and its introductions end.
    fn unregister(&mut self, link: LinkId) {
        self.registry.remove(link);
        self.introductions.link_closed(link);
    }

    fn close(&mut self, now: Instant, link: LinkId, (code, text): Why) {
        let Some(session) = self.sessions.links.get_mut(&link) else {
            return;
        };
        if session.state == State::Closing {
            return;
        }
        session.state = State::Closing;
        self.unregister(link);
        self.transport.close(
            now,
            link,
            CloseInfo {
                code: code.number(),
                user_code: 0,
                text: text.to_owned(),
            },
        );
    }

    /// As [`close`](Self::close), for a node that was not let in.
    fn refuse(&mut self, now: Instant, link: LinkId, why: Why) {
        self.counters.registrations_refused += 1;
        self.close(now, link, why);
    }

    fn read_control(&mut self, now: Instant, link: LinkId) {
        loop {
            let Some(session) = self
                .sessions
                .links
                .get_mut(&link)
                .filter(|session| session.state != State::Closing)
            else {
                return;
            };
            let Some(message) = self.transport.next_control(link) else {
                return;
            };
            if !session.budget.allow(now) {
                return self.close(now, link, (Code::RateLimited, "too many control messages"));
            }
            if session.state == State::Unnamed {
                self.first_message(now, link, &message);
            } else {
                self.message(now, link, &message);
            }
        }
    }

    fn first_message(&mut self, now: Instant, link: LinkId, message: &Bytes) {
        // Where the protocol stands never changes, whatever else a Hello of another version holds.
        if peek_protocol(message).is_some_and(|protocol| protocol != PROTOCOL_VERSION) {
            let why = "the server speaks another version of the protocol: update the game, or the server";
            return self.refuse(now, link, (Code::Incompatible, why));
        }
        let result = match ToServer::decode(message) {
            Ok(ToServer::Hello(hello)) => self.register(now, link, hello),
            _ => Err((Code::ProtocolViolation, "the first message was no valid Hello")),
        };
        if let Err(why) = result {
            self.refuse(now, link, why);
        }
    }

    fn register(&mut self, now: Instant, link: LinkId, hello: Hello) -> Result<(), Why> {
        let gone = (Code::Internal, "the connection is gone");
        let session = self.sessions.links.get(&link).ok_or(gone)?;
        let (key, address) = (session.key, session.address);
        let (socket, observed) = self.addresses.real(address).ok_or(gone)?;
        if !self.registration_limits.allow(now, key.guid(), observed.ip()) {
            return Err((
                Code::RateLimited,
                "too many registrations with this identity or from this network",
            ));
        }
        if !self.access_key.is_empty() && !self.access_proven(link, &hello) {
            return Err((Code::WrongAccessKey, "this server wants another access key"));
        }
        if hello.app.is_empty() || hello.app.len() > MAX_APP_ID {
            return Err((Code::InvalidArgument, "the app id must have 1 to 64 bytes"));
        }
        let profile = Profile {
            consent: hello.consent,
            session_tag: hello.session_tag,
            candidates: hello.candidates.into(),
            facts: hello.facts,
            proofs: self.proven(now, link, hello.proofs),
            relay_policy: hello.relay_policy,
        };
        let applicant = Applicant {
            key,
            app: &hello.app,
            observed,
            tunnelled: is_tunnel(socket),
            profile,
        };
        let replaced = self
            .registry
            .register(link, applicant)
            .map_err(|refusal| match refusal {
                Refusal::Full => (Code::Full, "this server has as many players as it takes"),
                Refusal::GuidTaken => (Code::Refused, "another key with the same guid is registered"),
            })?;
        if let Some(older) = replaced {
            self.close(now, older, (Code::Replaced, "the same identity connected again"));
        }
        if let Some(session) = self.sessions.links.get_mut(&link) {
            session.state = State::Registered;
        }
        self.counters.registrations += 1;
        let mut stun = self
            .reflector
            .other_addresses(socket, observed.ip(), self.addresses.local_ip(address));
        stun.truncate(MAX_STUN_ADDRESSES);
        let welcome = FromServer::Welcome {
            observed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stun,
            idle_timeout_ms: IDLE_TIMEOUT.as_millis() as u32,
            relays: self.relays_known_to(link),
            tunnel_port: self.tunnel_port,
        };
        self.tell(now, link, &welcome);
        Ok(())
    }

    /// In constant time.
    fn access_proven(&self, link: LinkId, hello: &Hello) -> bool {
        let Some(exported) = self.transport.export_keying_material(link, ACCESS_EXPORTER_LABEL) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.access_key.as_bytes());
        hmac::verify(&key, &exported, &hello.access_proof).is_ok()
    }

    fn message(&mut self, now: Instant, link: LinkId, message: &Bytes) {
        match ToServer::decode(message) {
            Ok(ToServer::Update {
                consent,
                session_tag,
                candidates,
                facts,
                proofs,
                relay_policy,
            }) => {
                let profile = Profile {
                    consent,
                    session_tag,
                    candidates: candidates.into(),
                    facts,
                    proofs: self.proven(now, link, proofs),
                    relay_policy,
                };
                self.update(now, link, profile);
            }
            Ok(ToServer::OpenNat {
                request,
                target,
                first_flight,
                ways,
            }) => {
                self.open_nat(now, link, (request, target), first_flight, ways);
            }
            Ok(ToServer::IntroductionReceived { introduction, accepted }) => {
                self.introduction_received(link, introduction, accepted);
            }
            Ok(ToServer::PunchEnded { introduction, path }) => self.introductions.ended(link, introduction, path != 0),
            Ok(ToServer::CancelOpenNat { request }) => self.introductions.cancel(link, request),
            Ok(ToServer::Forecast { introduction, forecast }) => self.forecast(now, link, introduction, forecast),
            Ok(ToServer::RequestRelay {
                request,
                target,
                idle_ms,
                tried,
                announced,
            }) => {
                let wish = Wish {
                    request,
                    target,
                    idle_ms,
                    tried,
                    announced,
                };
                self.request_relay(now, link, &wish);
            }
            Ok(ToServer::RelayRoundTrips { round_trips }) => self.round_trips(link, round_trips),
            Ok(ToServer::Hello(_)) => self.close(now, link, (Code::ProtocolViolation, "a second Hello")),
            // A later version's; what it needs an answer to it would not send to this one.
            Err(DecodeError::UnknownType(_)) => {}
            Err(_) => self.close(now, link, (Code::ProtocolViolation, "a malformed control message")),
        }
    }

    fn introduction_received(&mut self, link: LinkId, introduction: u64, accepted: bool) {
        let sides = self.introductions.sides(introduction);
        if !accepted
            && let Some([asker, target]) = sides.filter(|[_, target]| *target == link)
            && let (Some(asker), Some(target)) = (self.registry.node(asker), self.registry.node(target))
        {
            self.acquaintances.declined(asker, target);
        }
        self.introductions.received(link, introduction, accepted);
    }

    /// The socket that a link's node came by.
    pub(super) fn socket_of(&self, link: LinkId) -> Option<SocketName> {
        let session = self.sessions.links.get(&link)?;
        Some(self.addresses.real(session.address)?.0)
    }

    /// The relays that a node is told of.
    pub(super) fn relays_known_to(&self, link: LinkId) -> Vec<KnownRelay> {
        let versions = self.registry.node(link).map(|node| self.versions(link, node));
        self.relays.known_to(versions.unwrap_or_default())
    }

    fn send_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Failed {
                link,
                request,
                target,
                code,
                text,
            } => {
                let (code, text) = (code.number(), text.to_owned());
                self.tell(
                    now,
                    link,
                    &FromServer::OpenNatFailed {
                        request,
                        target,
                        code,
                        text,
                    },
                );
            }
            Notice::Ended {
                link,
                introduction,
                code,
            } => {
                self.tell(
                    now,
                    link,
                    &FromServer::IntroductionEnded {
                        introduction,
                        code: code.number(),
                    },
                );
            }
        }
    }

    /// Sends a control message. A node that lets them pile up does not read them: it is closed.
    pub(super) fn tell(&mut self, now: Instant, link: LinkId, message: &FromServer) {
        let listening = self
            .sessions
            .links
            .get(&link)
            .is_some_and(|session| session.state == State::Registered);
        if !listening {
            return;
        }
        self.encoded.clear();
        message.encode(&mut self.encoded);
        if self.transport.send_control(link, &self.encoded).is_err() {
            self.close(now, link, (Code::QueueFull, "the node does not read what it is sent"));
        }
    }
}

/// What decides who is told of which of the node's addresses.
pub(super) fn addresses(node: &Node) -> Addresses<'_> {
    Addresses {
        observed: node.observed,
        tunnelled: node.tunnelled,
        proofs: &node.profile.proofs,
        claimed: &node.profile.candidates,
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
