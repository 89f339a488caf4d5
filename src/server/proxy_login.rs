//! Proxy servers on other machines, as their coordinator sees them.
//!
//! In: links with the ALPN of proxy servers, their messages ([`crate::wire::proxy`]). Out: the ticket key to those that prove the password
//! ([`super::proxy_password`]); the list of relays in [`super::relays`]; news for the log ([`ProxyNews`]).
//!
//! A proxy server logs in over a connection that it keeps. Its silence, or the end of the connection, is the end of it for players: QUIC notices within
//! seconds, because the proxy server asks for a short time-out. What it relays goes on without its coordinator.
//!
//! **Guesses.** Each login shows one guess, and is counted before the answer is made: by network, and overall. Keys that have proven the password
//! once are not counted, so that strangers who use up the limit do not keep proxy servers away that were there before.
//!
//! **Where players reach it**: the address that it names (`--public`, or its own global ones), else the one that its packets come from. It has proven
//! the password: that is as much trust as its address needs. A loopback or private address only counts if it is seen in such a network itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Server;
use super::limits::{ControlBudget, Limiter};
use super::proxy_password::{Begun, Between, Proofs, Side, begin};
use super::sessions::Why;
use crate::codes::Code;
use crate::scope::{Network, Scope, scope};
use crate::transport::identity::PublicKey;
use crate::transport::{CloseInfo, CloseReason, LinkId, SyntheticAddress};
use crate::wire::control::FromServer;
use crate::wire::proxy::{LOGIN_EXPORTER_LABEL, LOGIN_TYPE, ToCoordinator, ToProxy};
use crate::wire::{DecodeError, PROTOCOL_VERSION, peek_protocol};

/// How long a login may take: several retransmissions of each of its messages.
const LOGIN_TIME: Duration = Duration::from_secs(5);
/// Logins that are not done, at a time: all proxy servers come back after a restart, and as many strangers try.
const MAX_LOGINS: usize = 128;
/// Logins from one network in [`LOGIN_WINDOW`], right or wrong.
const LOGINS_PER_NETWORK: u32 = 20;
/// Logins of all networks in [`LOGIN_WINDOW`]: 170,000 guesses a day, which no password stands that is in a dictionary, and every other does.
const LOGINS_OVERALL: u32 = 120;
/// The window of both.
const LOGIN_WINDOW: Duration = Duration::from_secs(60);
/// Keys that have proven the password and are not counted.
const MAX_PROVEN: usize = 256;
/// News that wait for the log.
const MAX_NEWS: usize = 64;
/// After a change of the relays nodes are told so late: several proxy servers often come together.
const ANNOUNCE_AFTER: Duration = Duration::from_secs(1);
/// Nodes that are told at a time, and the pause before the next: 10,000 a second.
const ANNOUNCE_AT_A_TIME: usize = 500;
/// See [`ANNOUNCE_AT_A_TIME`].
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);

/// What an administrator wants to know of proxy servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyNews {
    /// One has logged in.
    Joined {
        /// Its key, which names it.
        key: PublicKey,
        /// Where players reach it.
        addresses: Vec<SocketAddr>,
        /// Its version.
        version: String,
        /// How many there are now.
        proxies: usize,
    },
    /// One is gone.
    Left {
        /// Its key.
        key: PublicKey,
        /// Where players reached it.
        addresses: Vec<SocketAddr>,
        /// Why, in words.
        reason: String,
        /// How many there are now.
        proxies: usize,
    },
    /// One was not let in.
    Refused {
        /// Its key.
        key: PublicKey,
        /// Where it is.
        source: SocketAddr,
        /// Why, in words.
        reason: &'static str,
    },
}

enum Stage {
    /// Nothing has come.
    Connected,
    /// Shares are exchanged.
    Shared(Box<Proofs>),
    /// It is one of the relays.
    Admitted,
    /// This side has closed it.
    Closing,
}

struct Login {
    address: SyntheticAddress,
    key: PublicKey,
    stage: Stage,
    budget: ControlBudget,
}

/// All links of proxy servers.
pub(super) struct ProxyLogins {
    password: String,
    links: BTreeMap<LinkId, Login>,
    deadlines: VecDeque<(Instant, LinkId)>,
    networks: Limiter<Network>,
    overall: Limiter<()>,
    proven: VecDeque<PublicKey>,
    news: VecDeque<ProxyNews>,
    announcing: Option<Announcing>,
}

/// Nodes are being told of the relays.
#[derive(Debug, Clone, Copy)]
struct Announcing {
    due: Instant,
    /// The last one that was told.
    after: Option<LinkId>,
    /// There was another change meanwhile.
    again: bool,
}

impl ProxyLogins {
    /// `password`: empty, no proxy server is let in.
    pub fn new(password: String) -> Self {
        Self {
            password,
            links: BTreeMap::new(),
            deadlines: VecDeque::new(),
            networks: Limiter::new(LOGIN_WINDOW),
            overall: Limiter::new(LOGIN_WINDOW),
            proven: VecDeque::new(),
            news: VecDeque::new(),
            announcing: None,
        }
    }

    pub fn has(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    pub fn links(&self) -> impl Iterator<Item = LinkId> {
        self.links.keys().copied()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.front().map(|(deadline, _)| *deadline);
        let announcing = self.announcing.map(|announcing| announcing.due);
        deadline.into_iter().chain(announcing).min()
    }

    pub fn poll_news(&mut self) -> Option<ProxyNews> {
        self.news.pop_front()
    }

    fn tell(&mut self, news: ProxyNews) {
        if self.news.len() >= MAX_NEWS {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    fn note_proven(&mut self, key: PublicKey) {
        self.proven.retain(|known| *known != key);
        if self.proven.len() >= MAX_PROVEN {
            self.proven.pop_front();
        }
        self.proven.push_back(key);
    }

    fn relays_changed(&mut self, now: Instant) {
        match &mut self.announcing {
            Some(announcing) => announcing.again |= announcing.after.is_some(),
            none => {
                *none = Some(Announcing {
                    due: now + ANNOUNCE_AFTER,
                    after: None,
                    again: false,
                });
            }
        }
    }
}

impl Server {
    /// The next thing for the log.
    pub fn poll_news(&mut self) -> Option<ProxyNews> {
        self.proxy_logins.poll_news()
    }

    pub(super) fn proxy_connected(&mut self, now: Instant, link: LinkId, address: SyntheticAddress, key: PublicKey) {
        self.addresses.link_opened(address);
        let open = self.proxy_logins.links.values();
        let unfinished = open.filter(|login| !matches!(login.stage, Stage::Admitted)).count();
        let login = Login {
            address,
            key,
            stage: Stage::Connected,
            budget: ControlBudget::new(now),
        };
        self.proxy_logins.links.insert(link, login);
        self.proxy_logins.deadlines.push_back((now + LOGIN_TIME, link));
        if self.shutting_down {
            self.close_proxy(now, link, (Code::Closed, "the coordinator is shutting down"));
        } else if unfinished >= MAX_LOGINS {
            self.refuse_proxy(
                now,
                link,
                (Code::RateLimited, "too many logins of proxy servers are running"),
            );
        }
    }

    pub(super) fn proxy_closed(&mut self, now: Instant, link: LinkId, reason: &CloseReason) {
        let words = match reason {
            CloseReason::Remote(info) if info.text.is_empty() => "it closed the connection".to_owned(),
            CloseReason::Remote(info) => info.text.clone(),
            CloseReason::TimedOut | CloseReason::NoAnswer => "it is silent".to_owned(),
            other => format!("{other:?}"),
        };
        self.transport.forget(link);
        if let Some(login) = self.proxy_logins.links.remove(&link) {
            self.addresses.link_closed(now, login.address);
            self.proxy_gone(now, &login.key, link, words);
        }
    }

    /// The list of relays is without it.
    fn proxy_gone(&mut self, now: Instant, key: &PublicKey, link: LinkId, reason: String) {
        let Some(proxy) = self.relays.proxy_left(key, link) else {
            return;
        };
        self.counters.proxies_lost += 1;
        let proxies = self.relays.proxies();
        self.proxy_logins.tell(ProxyNews::Left {
            key: *key,
            addresses: proxy.addresses.into_iter().flatten().collect(),
            reason,
            proxies,
        });
        self.proxy_logins.relays_changed(now);
    }

    pub(super) fn close_proxy(&mut self, now: Instant, link: LinkId, (code, text): Why) {
        let Some(login) = self.proxy_logins.links.get_mut(&link) else {
            return;
        };
        if matches!(login.stage, Stage::Closing) {
            return;
        }
        login.stage = Stage::Closing;
        let key = login.key;
        self.proxy_gone(now, &key, link, text.to_owned());
        let info = CloseInfo {
            code: code.number(),
            user_code: 0,
            text: text.to_owned(),
        };
        self.transport.close(now, link, info);
    }

    fn refuse_proxy(&mut self, now: Instant, link: LinkId, why: Why) {
        self.counters.proxy_logins_refused += 1;
        let login = self.proxy_logins.links.get(&link);
        let found = login.and_then(|login| Some((login.key, self.addresses.real(login.address)?.1)));
        if let Some((key, source)) = found {
            let reason = why.1;
            self.proxy_logins.tell(ProxyNews::Refused { key, source, reason });
        }
        self.close_proxy(now, link, why);
    }

    /// Closes logins that take too long, and tells nodes of relays.
    pub(super) fn proxies_timeout(&mut self, now: Instant) {
        while let Some((deadline, link)) = self.proxy_logins.deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.proxy_logins.deadlines.pop_front();
            let login = self.proxy_logins.links.get(&link);
            if login.is_some_and(|login| !matches!(login.stage, Stage::Admitted | Stage::Closing)) {
                self.refuse_proxy(now, link, (Code::Timeout, "the login took too long"));
            }
        }
        self.announce_relays(now);
    }

    /// The next nodes hear which relays there are.
    fn announce_relays(&mut self, now: Instant) {
        let Some(announcing) = self.proxy_logins.announcing.filter(|announcing| announcing.due <= now) else {
            return;
        };
        let links = self.registry.links_after(announcing.after, ANNOUNCE_AT_A_TIME);
        for link in &links {
            let relays = self.relays_known_to(*link);
            self.tell(now, *link, &FromServer::KnownRelays { relays });
        }
        let done = links.len() < ANNOUNCE_AT_A_TIME;
        self.proxy_logins.announcing = match (done, announcing.again) {
            (false, again) => Some(Announcing {
                due: now + ANNOUNCE_PAUSE,
                after: links.last().copied(),
                again,
            }),
            (true, true) => Some(Announcing {
                due: now + ANNOUNCE_AFTER,
                after: None,
                again: false,
            }),
            (true, false) => None,
        };
    }

    pub(super) fn read_proxy(&mut self, now: Instant, link: LinkId) {
        loop {
            let login = self.proxy_logins.links.get_mut(&link);
            let Some(login) = login.filter(|login| !matches!(login.stage, Stage::Closing)) else {
                return;
            };
            let Some(message) = self.transport.next_control(link) else {
                return;
            };
            if !login.budget.allow(now) {
                return self.refuse_proxy(now, link, (Code::RateLimited, "too many control messages"));
            }
            // Only Login has its protocol there.
            let other_version = matches!(login.stage, Stage::Connected)
                && message.first() == Some(&LOGIN_TYPE)
                && peek_protocol(&message).is_some_and(|protocol| protocol != PROTOCOL_VERSION);
            let result = match ToCoordinator::decode(&message) {
                _ if other_version => Err((
                    Code::Incompatible,
                    "the coordinator speaks another version of the protocol: update it, or the proxy server",
                )),
                Ok(message) => self.proxy_message(now, link, message),
                // A later version's.
                Err(DecodeError::UnknownType(_)) => Ok(()),
                Err(_) => Err((Code::ProtocolViolation, "a malformed message")),
            };
            if let Err(why) = result {
                return self.refuse_proxy(now, link, why);
            }
        }
    }

    fn proxy_message(&mut self, now: Instant, link: LinkId, message: ToCoordinator) -> Result<(), Why> {
        let out_of_turn = (Code::ProtocolViolation, "a message out of turn");
        let login = self.proxy_logins.links.get_mut(&link).ok_or(out_of_turn)?;
        let key = login.key;
        match (std::mem::replace(&mut login.stage, Stage::Closing), message) {
            (Stage::Connected, ToCoordinator::Login { share, .. }) => {
                login.stage = Stage::Connected;
                let proofs = self.proxy_share(now, link, &share)?;
                self.proxy_stage(link, Stage::Shared(Box::new(proofs)));
            }
            (
                Stage::Shared(proofs),
                ToCoordinator::Proof {
                    proof,
                    addresses,
                    sessions,
                    room,
                    version,
                },
            ) => {
                login.stage = Stage::Connected;
                if !proofs.verify(Side::Proxy, &proof) {
                    return Err((Code::WrongAccessKey, "the password is wrong"));
                }
                self.proxy_logins.note_proven(key);
                self.proxy_admitted(now, link, (&addresses, version), (sessions, room), &proofs)?;
                self.proxy_stage(link, Stage::Admitted);
            }
            (Stage::Admitted, ToCoordinator::Load { sessions, room }) => {
                login.stage = Stage::Admitted;
                self.relays.proxy_load(&key, link, sessions, room);
            }
            (stage, _) => {
                login.stage = stage;
                return Err(out_of_turn);
            }
        }
        Ok(())
    }

    fn proxy_stage(&mut self, link: LinkId, stage: Stage) {
        let login = self.proxy_logins.links.get_mut(&link);
        if let Some(login) = login.filter(|login| !matches!(login.stage, Stage::Closing)) {
            login.stage = stage;
        }
    }

    /// A guess: counted, then answered.
    fn proxy_share(&mut self, now: Instant, link: LinkId, share: &Bytes) -> Result<Proofs, Why> {
        let gone = (Code::Internal, "the connection is gone");
        let logins = &mut self.proxy_logins;
        if logins.password.is_empty() {
            return Err((
                Code::Refused,
                "this server takes no proxy servers: start it with --password",
            ));
        }
        let login = logins.links.get(&link).ok_or(gone)?;
        let (key, own) = (login.key, self.identity.public());
        if key == own {
            let text = "the proxy server has the coordinator's own identity: give it another --data folder";
            return Err((Code::Refused, text));
        }
        let source = self.addresses.real(login.address).ok_or(gone)?.1;
        // The network first: what it turns down does not count overall.
        let counted = logins.proven.contains(&key)
            || (logins.networks.allow(now, Network::of(source.ip()), LOGINS_PER_NETWORK)
                && logins.overall.allow(now, (), LOGINS_OVERALL));
        if !counted {
            return Err((Code::RateLimited, "too many logins of proxy servers: wait a minute"));
        }
        let exported = self
            .transport
            .export_keying_material(link, LOGIN_EXPORTER_LABEL)
            .ok_or(gone)?;
        let between = Between {
            exported,
            proxy: key,
            coordinator: own,
        };
        let (begun, own_share): (Begun, _) = begin(Side::Coordinator, &logins.password, between, &mut self.random);
        let proofs = begun
            .finish(share)
            .ok_or((Code::ProtocolViolation, "a malformed share"))?;
        self.tell_proxy(now, link, &ToProxy::Share { share: own_share });
        Ok(proofs)
    }

    fn proxy_admitted(
        &mut self,
        now: Instant,
        link: LinkId,
        (told, version): (&[SocketAddr], String),
        load: (u64, u64),
        proofs: &Proofs,
    ) -> Result<(), Why> {
        let gone = (Code::Internal, "the connection is gone");
        let login = self.proxy_logins.links.get(&link).ok_or(gone)?;
        let key = login.key;
        let observed = self.addresses.real(login.address).ok_or(gone)?.1;
        let addresses = reached_at(told, observed);
        let (ticket_key, before) = self
            .relays
            .proxy_joined(key, link, addresses, load)
            .ok_or((Code::Full, "this server has as many proxy servers as it takes"))?;
        self.counters.proxy_logins += 1;
        let admitted = ToProxy::Admitted {
            proof: proofs.prove(Side::Coordinator),
            ticket_key,
            ticket_time: self.relays.ticket_time(now),
            observed,
        };
        self.tell_proxy(now, link, &admitted);
        if let Some(before) = before {
            self.close_proxy(now, before, (Code::Replaced, "the same proxy server logged in again"));
        }
        let addresses: Vec<SocketAddr> = addresses.into_iter().flatten().collect();
        let proxies = self.relays.proxies();
        self.proxy_logins.tell(ProxyNews::Joined {
            key,
            addresses,
            version,
            proxies,
        });
        self.proxy_logins.relays_changed(now);
        Ok(())
    }

    fn tell_proxy(&mut self, now: Instant, link: LinkId, message: &ToProxy) {
        self.encoded.clear();
        message.encode(&mut self.encoded);
        if self.transport.send_control(link, &self.encoded).is_err() {
            self.close_proxy(
                now,
                link,
                (Code::QueueFull, "the proxy server does not read what it is sent"),
            );
        }
    }
}

/// Where players reach a proxy server that names these addresses and is seen at that one: for each IP version.
fn reached_at(told: &[SocketAddr], observed: SocketAddr) -> [Option<SocketAddr>; 2] {
    let observed = SocketAddr::new(observed.ip().to_canonical(), observed.port());
    let beyond = |scope: Scope| matches!(scope, Scope::Global);
    let usable = |address: &SocketAddr| {
        let near = match scope(address.ip()) {
            Scope::Unusable => false,
            Scope::Loopback => scope(observed.ip()) == Scope::Loopback,
            Scope::Private => !beyond(scope(observed.ip())),
            Scope::Global => true,
        };
        near && address.port() != 0
    };
    let named = told
        .iter()
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
        .filter(usable);
    [true, false].map(|v4| named.clone().chain([observed]).find(|address| address.is_ipv4() == v4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_server_is_reached_where_it_says_if_that_can_be() {
        for (told, observed, expected) in [
            (&[][..], "203.0.113.1:5", [Some("203.0.113.1:5"), None]),
            (&["198.51.100.7:9"], "203.0.113.1:5", [Some("198.51.100.7:9"), None]),
            (
                &["10.0.0.1:9", "[2001:db8::1]:9"],
                "203.0.113.1:5",
                [Some("203.0.113.1:5"), Some("[2001:db8::1]:9")],
            ),
            (&["10.0.0.1:9"], "10.0.0.7:5", [Some("10.0.0.1:9"), None]),
            (
                &["127.0.0.1:9", "224.0.0.1:9", "203.0.113.9:0"],
                "203.0.113.1:5",
                [Some("203.0.113.1:5"), None],
            ),
            (&["127.0.0.1:9"], "127.0.0.1:5", [Some("127.0.0.1:9"), None]),
            (&[], "[::ffff:203.0.113.1]:5", [Some("203.0.113.1:5"), None]),
        ] {
            let told: Vec<SocketAddr> = told.iter().map(|address| address.parse().unwrap()).collect();
            let expected = expected.map(|address| address.map(|address| address.parse().unwrap()));
            assert_eq!(
                reached_at(&told, observed.parse().unwrap()),
                expected,
                "{told:?} {observed}"
            );
        }
    }
}
