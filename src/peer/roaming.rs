//! Paths that die under a living connection: the node moved (another network, another address), a router forgot its mappings, or
//! gave the player another address.
//!
//! In: when each player was last heard and last written to, changes of the machine's interfaces. Out: doubts about a player's paths,
//! sessions at forwarders that are woken, probes to every address that the player is known by, wishes for a fresh introduction, a fresh
//! session with the server. What comes of it are ordinary verified paths: [`super::attempts`] and [`super::relayed`] put them behind the link's
//! route, QUIC goes on, the game hears PATH_CHANGED. What could be better than the path in use is [`search`]'s.
//!
//! Both ends of a connection have a secret that nobody else has (the TLS exporter's, [`SECRET_LABEL`]), so they can probe each
//! other without a server: a player whose new address passes the other's router is found within a round trip. If the other's
//! router filters, its server introduces the two again, so that both open their routers.
//!
//! **In doubt** everything is tried at once, whatever is known of it: what is sent goes over the old path and over a forwarder whose ticket is
//! still good; known addresses are probed; the server introduces the two with tickets for both, so that a side that had noticed nothing takes
//! part. The first path that proves itself is used. With relays at hand a game's packets flow again after [`UNANSWERED`] and a round trip of the
//! forwarder or two.
//!
//! Timers. [`TICK`] while something is under way, [`IDLE_TICK`] otherwise. A path is doubted when what was sent over it has been
//! unanswered for [`UNANSWERED`] (or [`ROUND_TRIPS`] round trips), an idle one when a keep-alive and its time to come back have passed
//! without a packet. The server is asked at once where relays are allowed, else after [`ASK_AFTER`], and again every
//! [`ASK_INTERVAL`], until the player is heard again or the connection is lost (its own time-out). A session with the server that
//! does not answer a ping within [`SERVER_SILENCE`] is opened anew.

mod search;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::Node;
use super::api::Reason;
use super::connections::{Link, Stage};
use crate::codes::{Code, PathKind};
use crate::transport::identity::Guid;
use crate::transport::{LinkId, SyntheticAddress};
use crate::wire::MAX_CANDIDATES;
use crate::wire::control::RelayPolicy;
use crate::wire::introduction::BirthdayPermit;
use crate::wire::introduction::{Candidate, CandidateKind, Introduction, NatFacts};
use search::Search;

/// Label of the TLS exporter whose bytes authenticate the probes between two connected players.
const SECRET_LABEL: &[u8] = b"lanline path secret 1";
/// Label of the exporter whose first bytes name them.
const NAME_LABEL: &[u8] = b"lanline path name 1";

/// How often paths are looked at while something is sent or doubted: finds out soon enough for a game to go on elsewhere within a
/// second and a half.
const TICK: Duration = Duration::from_millis(200);
/// The same while everything is quiet.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Silence after something was sent that wants an answer: acknowledgements come within a round trip and 25 ms; a lost one comes with the
/// next packet. Long enough for a Wi-Fi's hiccup.
const UNANSWERED: Duration = Duration::from_millis(600);
/// On the longest ways a hiccup is taken for a loss sooner than in so many round trips: a player waits no longer.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);
/// The same in round trips, for long ways.
const ROUND_TRIPS: u32 = 3;
/// Shortest time between two looks.
const LEAST_WAIT: Duration = Duration::from_millis(5);
/// Time for the probes to known addresses before the server is troubled, where it can offer nothing but an introduction.
const ASK_AFTER: Duration = Duration::from_millis(250);
/// Time between two wishes for an introduction to the same player: an attempt's first second decides nearly always.
const ASK_INTERVAL: Duration = Duration::from_secs(3);
/// Introductions that are asked for in [`ASK_WINDOW`]: every player of the largest session once. The server allows twice as many, and the game
/// may want some.
const MOST_ASKS: u32 = 64;
/// See [`MOST_ASKS`].
const ASK_WINDOW: Duration = Duration::from_secs(10);
/// Time between two searches that the other side begins by its probes: those can be recorded and sent again.
const SEEK_INTERVAL: Duration = Duration::from_secs(5);
/// Silence of the server after a ping: some round trips, and a lost packet repeated.
const SERVER_SILENCE: Duration = Duration::from_millis(750);
/// The same on a stream: TCP repeats a lost packet after 200 ms at the earliest, then after twice as long, and holds up what follows.
const STREAM_SILENCE: Duration = Duration::from_secs(3);
/// Validity of the secret for addresses that were not known before: the length of a probing series.
const PROBING_TIME: Duration = Duration::from_secs(10);

/// A player's paths are doubted.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Instant,
    /// When the server is asked next.
    ask_at: Instant,
}

/// What is known of a connected player beside its link.
#[derive(Debug)]
struct Watched {
    /// Names the probes between the two.
    name: u64,
    secret: [u8; 32],
    /// Addresses that the server named.
    candidates: Vec<Candidate>,
    /// When the game last sent something.
    sent: Option<Instant>,
    /// Since when something that the game sent has been unanswered.
    unanswered: Option<Instant>,
    doubt: Option<Doubt>,
    /// When the other side last began a search.
    sought: Option<Instant>,
    search: Search,
}

impl Watched {
    /// The player was last heard then. What was sent up to then counts as answered.
    fn note_heard(&mut self, heard: Instant) {
        if self.unanswered.is_some_and(|since| since <= heard) {
            // Games send all the time: the first that was sent after that went out soon after it.
            self.unanswered = self.sent.filter(|sent| *sent > heard).map(|_| heard);
        }
    }
}

/// Watches over the paths of all connected players.
#[derive(Debug, Default)]
pub(super) struct Roaming {
    /// Looked up for each message that is sent; never iterated over without sorting.
    watched: FxHashMap<Guid, Watched>,
    by_name: BTreeMap<u64, Guid>,
    tick_at: Option<Instant>,
    /// The server was asked for a sign of life: since when.
    server_pinged: Option<Instant>,
    /// What was known of this side's router when it was last looked at.
    facts: NatFacts,
    /// When the present window of wishes began, and how many there were in it.
    asks: Option<(Instant, u32)>,
}

impl Roaming {
    /// The game sends to that player.
    #[inline]
    pub fn note_sent(&mut self, now: Instant, peer: Guid) -> bool {
        let Some(watched) = self.watched.get_mut(&peer) else {
            return false;
        };
        let first = watched.sent.is_none_or(|sent| now >= sent + TICK);
        watched.sent = Some(now);
        watched.unanswered.get_or_insert(now);
        let sooner = first && self.tick_at.is_none_or(|at| at > now + TICK);
        if sooner {
            self.tick_at = Some(now + TICK);
        }
        sooner
    }

    /// The player whose path probes have that name, with what authenticates them.
    pub fn named(&self, name: u64) -> Option<(Guid, [u8; 32])> {
        let peer = *self.by_name.get(&name)?;
        Some((peer, self.watched.get(&peer)?.secret))
    }

    /// The server named addresses of that player.
    pub fn note_candidates(&mut self, peer: Guid, candidates: &[Candidate]) {
        if let Some(watched) = self.watched.get_mut(&peer) {
            watched.candidates = candidates.to_vec();
        }
    }

    fn peers(&self) -> Vec<Guid> {
        let mut peers: Vec<Guid> = self.watched.keys().copied().collect();
        peers.sort_unstable();
        peers
    }

    /// When something is to be looked at.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tick_at
    }
}

impl Node {
    /// A connection stands: its paths are watched from now on.
    pub(super) fn watch_paths(&mut self, now: Instant, link: LinkId, peer: Guid) {
        let (Some(secret), Some(name)) = (
            self.transport.export_keying_material(link, SECRET_LABEL),
            self.transport.export_keying_material(link, NAME_LABEL),
        ) else {
            return;
        };
        let name = u64::from_be_bytes(name[..8].try_into().unwrap_or_default());
        self.unwatch_paths(peer);
        let watched = Watched {
            name,
            secret,
            candidates: self.attempts.candidates_of(peer),
            sent: None,
            unanswered: None,
            doubt: None,
            sought: None,
            search: Search::of_new_connection(now),
        };
        self.roaming.by_name.insert(name, peer);
        self.roaming.watched.insert(peer, watched);
        self.look_at_paths_by(now + IDLE_TICK);
    }

    /// The connection is over.
    pub(super) fn unwatch_paths(&mut self, peer: Guid) {
        if let Some(watched) = self.roaming.watched.remove(&peer) {
            self.roaming.by_name.remove(&watched.name);
        }
    }

    fn look_at_paths_by(&mut self, at: Instant) {
        if self.roaming.tick_at.is_none_or(|tick| tick > at) {
            self.roaming.tick_at = Some(at);
            self.timers_changed = true;
        }
    }

    /// The machine's interfaces changed: every path is doubted at once. `before`: the addresses that it had.
    pub(super) fn interfaces_changed(&mut self, now: Instant, before: &[IpAddr]) {
        let moved = before.iter().any(|address| !self.local_addresses.contains(address));
        if moved {
            self.reopen_server_session(now, "the machine's network changed");
        } else {
            self.ping_server(now);
        }
        for peer in self.roaming.peers() {
            if let Some(watched) = self.roaming.watched.get_mut(&peer) {
                watched.search.begin_anew(now);
            }
            if moved {
                self.doubt(now, peer);
            } else {
                self.probe_known_addresses(now, peer);
            }
        }
    }

    /// Looks at all paths, if it is time.
    pub(super) fn roaming_timeout(&mut self, now: Instant) {
        if self.roaming.tick_at.is_none_or(|at| at > now) {
            return;
        }
        self.roaming.tick_at = None;
        self.timers_changed = true;
        self.look_at_server(now);
        self.look_at_facts(now);
        let peers = self.roaming.peers();
        let pinged = self.roaming.server_pinged.map(|_| now + TICK);
        let mut next = pinged.or_else(|| (!peers.is_empty()).then(|| now + IDLE_TICK));
        for peer in peers {
            next = next.into_iter().chain(self.look_at_peer(now, peer)).min();
        }
        if let Some(next) = next {
            self.look_at_paths_by(next.max(now + LEAST_WAIT));
        }
    }

    /// More is known of this side's router: a path that could not be opened may be now.
    fn look_at_facts(&mut self, now: Instant) {
        let facts = self.nat.report.facts;
        if std::mem::replace(&mut self.roaming.facts, facts) != facts {
            for watched in self.roaming.watched.values_mut() {
                watched.search.begin_anew(now);
            }
        }
    }

    /// Returns when the next look is to come if that is soon.
    fn look_at_peer(&mut self, now: Instant, peer: Guid) -> Option<Instant> {
        let link = self.current_link(peer)?;
        let entry = self.links.get(&link).filter(|entry| entry.stage == Stage::Open)?;
        let address = entry.address;
        let heard = self.paths.heard(address)?;
        let round_trip = self
            .transport
            .stats(link)
            .map_or(Duration::ZERO, |stats| stats.round_trip);
        let patience = UNANSWERED.max(round_trip * ROUND_TRIPS).min(LONGEST_PATIENCE);
        let keep_alive = self.keep_alive;
        let watched = self.roaming.watched.get_mut(&peer)?;
        watched.note_heard(heard);
        let silence = now.saturating_duration_since(heard);
        if let Some(doubt) = watched.doubt {
            if heard > doubt.since {
                watched.doubt = None;
                return Some(now + TICK);
            }
            if now >= doubt.ask_at {
                watched.doubt = Some(Doubt {
                    ask_at: now + ASK_INTERVAL,
                    ..doubt
                });
                self.ask_again(now, peer);
            }
            return Some(now + TICK);
        }
        let unanswered = watched.unanswered.map(|since| since + patience);
        let missed = silence >= keep_alive + patience;
        let sending = watched.sent.is_some_and(|sent| now < sent + 2 * TICK);
        if missed || unanswered.is_some_and(|at| at <= now) {
            self.doubt(now, peer);
            return Some(now + TICK);
        }
        self.look_for_better(now, peer, address, round_trip);
        let soon = (sending || silence >= keep_alive).then(|| now + TICK);
        unanswered.into_iter().chain(soon).min()
    }

    /// That player's paths may be dead.
    fn doubt(&mut self, now: Instant, peer: Guid) {
        let Some(address) = self.link_address(peer) else { return };
        let relays = self.effective_relay_policy() != RelayPolicy::Never;
        let Some(watched) = self.roaming.watched.get_mut(&peer) else {
            return;
        };
        let ask_at = now + if relays { ASK_INTERVAL } else { ASK_AFTER };
        watched.doubt = Some(Doubt { since: now, ask_at });
        self.paths.doubt(address);
        self.wake_sessions(now, peer);
        if relays {
            self.ask_again(now, peer);
        }
        self.probe_known_addresses(now, peer);
        self.ping_server(now);
        self.look_at_paths_by(now + TICK);
    }

    /// The player probes by the connection's own secret: it doubts the path, so this side does as well. Otherwise it would go on sending
    /// to where the player is no more, as long as it hears it. `over`: the same of one that sends over a forwarder of that kind.
    pub(super) fn other_side_seeks(&mut self, now: Instant, peer: Guid, over: Option<PathKind>) {
        let Some(address) = self.link_address(peer) else { return };
        let Some(watched) = self.roaming.watched.get_mut(&peer) else {
            return;
        };
        if watched.sought.is_some_and(|sought| now < sought + SEEK_INTERVAL) {
            return;
        }
        watched.sought = Some(now);
        let lost_better = over.is_some_and(|kind| self.paths.best(address).is_some_and(|best| best.kind < kind));
        if self.is_relayed(address) && !lost_better {
            // It looks for a direct path, as this side does; or it has lost the forwarder, and this side will notice.
            self.paths.doubt_direct(address);
        } else {
            self.paths.doubt(address);
            self.wake_sessions(now, peer);
        }
        self.probe_known_addresses(now, peer);
    }

    /// True if packets for that route go through a forwarder.
    fn is_relayed(&self, address: SyntheticAddress) -> bool {
        self.paths
            .best(address)
            .is_some_and(|best| best.kind > PathKind::Direct)
    }

    /// The server introduces a player anew. One that is connected has lost the way, or the other side has: none of its paths is certain,
    /// and all of them are tried with the addresses that the server named. Without `relays` two who play over a forwarder only look for a
    /// direct path. Returns the addresses to try.
    pub(super) fn sought_again(
        &mut self,
        now: Instant,
        peer: Guid,
        mut candidates: Vec<Candidate>,
        relays: bool,
    ) -> Vec<Candidate> {
        if let Some(address) = self.link_address(peer) {
            self.roaming.note_candidates(peer, &candidates);
            let dialled = self.dialled(peer);
            if let Some(watched) = self.roaming.watched.get_mut(&peer) {
                watched.search.introduced(now, dialled);
            }
            if !relays && self.is_relayed(address) {
                self.paths.doubt_direct(address);
            } else {
                self.paths.doubt(address);
                self.wake_sessions(now, peer);
            }
            add_distinct(&mut candidates, self.path_addresses(address));
        }
        candidates
    }

    fn path_addresses(&self, address: SyntheticAddress) -> Vec<Candidate> {
        let kind = CandidateKind::Observed;
        let addresses = self.paths.addresses(address);
        addresses.map(|address| Candidate { kind, address }).collect()
    }

    /// Probes every address that the player is known by, authenticated by the connection's own secret.
    fn probe_known_addresses(&mut self, now: Instant, peer: Guid) {
        let Some(address) = self.link_address(peer) else { return };
        let Some(watched) = self.roaming.watched.get(&peer) else {
            return;
        };
        let mut candidates = self.path_addresses(address);
        add_distinct(&mut candidates, watched.candidates.clone());
        self.probe_connected(now, peer, candidates);
    }

    /// Starts probing a connected player, unless an attempt with it runs.
    fn probe_connected(&mut self, now: Instant, peer: Guid, candidates: Vec<Candidate>) {
        // Who shows its address to nobody sends nothing from it either.
        if self.effective_relay_policy() == RelayPolicy::Only {
            return;
        }
        let Some(link) = self.current_link(peer) else { return };
        let Some((key, dialled)) = self
            .links
            .get(&link)
            .and_then(|entry| Some((entry.key?, entry.dialled)))
        else {
            return;
        };
        let Some(watched) = self.roaming.watched.get(&peer) else {
            return;
        };
        let introduction = Introduction {
            id: watched.name,
            request: 0,
            peer: key,
            secret: watched.secret,
            valid_ms: PROBING_TIME.as_millis() as u32,
            candidates,
            own_observed: self.rendezvous.observed,
            facts: NatFacts::default(),
            permit: BirthdayPermit::default(),
            relays: Vec::new(),
            first_flight: bytes::Bytes::new(),
            own_facts: NatFacts::default(),
        };
        self.begin_probing_connected(now, &introduction, dialled);
    }

    /// Asks the server to introduce the two again.
    fn ask_again(&mut self, now: Instant, peer: Guid) {
        let (since, count) = self
            .roaming
            .asks
            .filter(|(since, _)| now < *since + ASK_WINDOW)
            .unwrap_or((now, 0));
        if count >= MOST_ASKS {
            return;
        }
        // While an attempt between the two runs, the server introduces nobody anew, but it offers relays.
        let relays = self.effective_relay_policy() != RelayPolicy::Never;
        let has_one = self.relayed.socket_of(peer, PathKind::Proxied).is_some();
        if relays && !has_one && self.attempts.is_running(peer) {
            self.roaming.asks = Some((since, count + 1));
            self.wish_for_relay(now, peer, Duration::ZERO, false);
        }
        if !self.attempts.is_asked(peer) {
            self.roaming.asks = Some((since, count + 1));
            // Without a server, or with the policy "only", the known addresses are all there is.
            let _ = self.ask(now, 0, peer);
        }
        self.ping_server(now);
    }

    /// The path that a player's packets take did not work, and does again: QUIC begins anew on it, because its own repeats have become rare
    /// meanwhile.
    pub(super) fn path_works_again(&mut self, now: Instant, address: SyntheticAddress) {
        let on_it = |(link, entry): (&LinkId, &Link)| (entry.address == address).then_some(*link);
        let links: Vec<LinkId> = self.links.iter().filter_map(on_it).collect();
        for link in links {
            self.transport.path_changed(now, link);
        }
    }

    /// Asks the server for a sign of life.
    pub(super) fn ping_server(&mut self, now: Instant) {
        if self.server_is_up() && self.roaming.server_pinged.is_none() {
            self.roaming.server_pinged = Some(now);
            self.hurry_server(now);
            self.look_at_paths_by(now + TICK);
        }
    }

    /// Whether the server showed a sign of life; one that did not is connected to anew.
    fn look_at_server(&mut self, now: Instant) {
        let Some(since) = self.roaming.server_pinged else {
            return;
        };
        let heard = self
            .server_address_of_session()
            .and_then(|address| self.paths.heard(address));
        if !self.server_is_up() || heard.is_some_and(|heard| heard > since) {
            self.roaming.server_pinged = None;
        } else if now >= since + self.server_silence() {
            self.reopen_server_session(now, "the server does not answer at this node's address any more");
        }
    }

    fn server_silence(&self) -> Duration {
        if self.is_on_stream() {
            STREAM_SILENCE
        } else {
            SERVER_SILENCE
        }
    }

    /// The session with the server stands again: whoever is doubted is asked for at once.
    pub(super) fn server_is_back(&mut self, now: Instant) {
        for watched in self.roaming.watched.values_mut() {
            if let Some(doubt) = &mut watched.doubt {
                doubt.ask_at = now;
            }
        }
        self.look_at_paths_by(now);
    }

    /// The wish for an introduction to a doubted player failed.
    pub(super) fn ask_sooner(&mut self, now: Instant, peer: Guid) {
        if let Some(doubt) = self
            .roaming
            .watched
            .get_mut(&peer)
            .and_then(|watched| watched.doubt.as_mut())
        {
            doubt.ask_at = doubt.ask_at.min(now + ASK_AFTER);
        }
    }

    fn reopen_server_session(&mut self, now: Instant, why: &str) {
        self.roaming.server_pinged = None;
        let reason = Reason {
            code: Code::Lost,
            text: why.to_owned(),
        };
        self.server_session_over(now, reason);
    }
}

fn add_distinct(candidates: &mut Vec<Candidate>, more: Vec<Candidate>) {
    for candidate in more {
        if candidates.len() < MAX_CANDIDATES && candidates.iter().all(|known| known.address != candidate.address) {
            candidates.push(candidate);
        }
    }
}
