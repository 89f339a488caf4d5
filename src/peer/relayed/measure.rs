//! How far the relays are that the server named.
//!
//! In: the server's list ([`FromServer::Welcome`], [`FromServer::KnownRelays`]), STUN answers, the time. Out: STUN requests, and the round trips for the
//! server, which offers two players the relay with the lowest sum of theirs. In the background, a few packets: [`PACKETS`] for each relay, again every
//! [`INTERVAL`]; a new session with the server (another network) begins anew. What is told is the shortest that was seen: the others had to wait
//! somewhere. A relay that does not answer is left out.
//!
//! [`FromServer::Welcome`]: crate::wire::control::FromServer::Welcome
//! [`FromServer::KnownRelays`]: crate::wire::control::FromServer::KnownRelays

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::Node;
use super::super::nat::client::{Ask, Client, Heard, is_in_reach};
use crate::engine::{Datagram, SocketName};
use crate::transport::identity::PublicKey;
use crate::wire::control::{KnownRelay, MAX_KNOWN_RELAYS, RelayRoundTrip, ToServer};

/// Requests to each relay: two may get lost, or wait behind something.
const PACKETS: u8 = 3;
/// Between two requests to one relay: longer than a burst that they would wait behind.
const SPACING: Duration = Duration::from_millis(200);
/// How long answers are waited for; one that takes longer is no relay to play over.
const PATIENCE: Duration = Duration::from_secs(1);
/// From one measurement to the next: routes change by the hour, and a request costs 96 bytes.
const INTERVAL: Duration = Duration::from_secs(300);
/// The server's list does not begin another measurement sooner than this after the last one began, whatever the server says.
const LEAST_INTERVAL: Duration = Duration::from_secs(10);

/// One relay.
#[derive(Debug)]
struct Measured {
    key: PublicKey,
    socket: SocketName,
    address: SocketAddr,
    shortest: Option<Duration>,
}

/// A measurement that runs.
#[derive(Debug)]
struct Run {
    client: Client<PublicKey>,
    relays: Vec<Measured>,
    /// Requests to each that are out.
    sent: u8,
    /// When the next request goes out, or nothing more is waited for.
    due: Instant,
    /// The server has been told of those that answered.
    told: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(in super::super) struct Measure {
    /// What the server named, as far as this node may send there.
    known: Vec<(PublicKey, SocketAddr)>,
    run: Option<Run>,
    next: Option<Instant>,
    began: Option<Instant>,
}

impl Measure {
    pub fn poll_timeout(&self) -> Option<Instant> {
        let run = self.run.as_ref().map(|run| run.due);
        run.into_iter().chain(self.next).min()
    }

    /// Whether requests wait to be sent.
    pub fn has_requests(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.client.has_requests())
    }

    /// The next request.
    pub fn poll_request(&mut self, buffer: &mut Vec<u8>) -> Option<(SocketName, SocketAddr)> {
        let (socket, destination, request) = self.run.as_mut()?.client.poll_request()?;
        request.encode(buffer);
        Some((socket, destination))
    }
}

impl Run {
    fn ask(&mut self, now: Instant) {
        for relay in &self.relays {
            let ask = Ask::plain(relay.key, relay.socket, relay.address);
            let repeat = self.sent;
            self.client.ask(now, Ask { repeat, ..ask });
        }
        self.sent += 1;
        self.due = now + if self.sent < PACKETS { SPACING } else { PATIENCE };
    }

    fn round_trips(&self) -> Vec<RelayRoundTrip> {
        let answered = self.relays.iter().filter_map(|relay| {
            Some(RelayRoundTrip {
                key: relay.key,
                microseconds: relay.shortest?.as_micros().try_into().unwrap_or(u32::MAX),
            })
        });
        answered.collect()
    }
}

impl Node {
    /// The server's list of relays.
    pub(in super::super) fn relays_known(&mut self, now: Instant, relays: &[KnownRelay]) {
        let server = self.rendezvous.server_address;
        let usable = |relay: &KnownRelay| {
            let address = relay.address?;
            server
                .is_none_or(|server| is_in_reach(address, server))
                .then_some((relay.key, address))
        };
        let known: Vec<_> = relays.iter().filter_map(usable).take(MAX_KNOWN_RELAYS).collect();
        let measure = &mut self.relayed.measure;
        measure.known = known;
        measure.run = None;
        let soonest = measure.began.map_or(now, |began| began + LEAST_INTERVAL);
        measure.next = (!measure.known.is_empty()).then(|| soonest.max(now));
        self.timers_changed = true;
        self.measure_timeout(now);
    }

    /// Begins a measurement, goes on with it, or ends it.
    pub(super) fn measure_timeout(&mut self, now: Instant) {
        if self.relayed.measure.next.is_some_and(|next| next <= now) {
            self.begin_measuring(now);
        }
        let Some(run) = self.relayed.measure.run.as_mut().filter(|run| run.due <= now) else {
            return;
        };
        self.timers_changed = true;
        if run.sent < PACKETS {
            return run.ask(now);
        }
        if let Some(run) = self.relayed.measure.run.take() {
            self.tell_round_trips(&run);
        }
    }

    fn begin_measuring(&mut self, now: Instant) {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        let known = self.relayed.measure.known.clone();
        let relays = known.into_iter().filter_map(|(key, address)| {
            let socket = match address {
                SocketAddr::V4(_) => SocketName::Udp4,
                SocketAddr::V6(_) => SocketName::Udp6,
            };
            self.has_socket(socket).then_some(Measured {
                key,
                socket,
                address,
                shortest: None,
            })
        });
        let mut run = Run {
            client: Client::new(StdRng::from_seed(seed)),
            relays: relays.collect(),
            sent: 0,
            due: now,
            told: false,
        };
        run.ask(now);
        let measure = &mut self.relayed.measure;
        measure.run = Some(run);
        measure.next = Some(now + INTERVAL);
        measure.began = Some(now);
        self.timers_changed = true;
    }

    /// A STUN datagram. True if it was about a relay.
    pub(in super::super) fn relay_measured(&mut self, now: Instant, datagram: &Datagram) -> bool {
        let Some(run) = &mut self.relayed.measure.run else {
            return false;
        };
        match run
            .client
            .handle(now, datagram.socket, datagram.source, &datagram.contents)
        {
            Heard::Foreign => return false,
            Heard::Answer(key, answer) => {
                for relay in run.relays.iter_mut().filter(|relay| relay.key == key) {
                    let before = relay.shortest.unwrap_or(answer.round_trip);
                    relay.shortest = Some(before.min(answer.round_trip));
                }
                // Once all have answered the server hears of it at once; and at the end of what is better.
                let all = run.relays.iter().all(|relay| relay.shortest.is_some());
                if all && !std::mem::replace(&mut run.told, all) {
                    let round_trips = run.round_trips();
                    self.send_to_server(&ToServer::RelayRoundTrips { round_trips });
                }
            }
            _ => {}
        }
        true
    }

    fn tell_round_trips(&mut self, run: &Run) {
        if self.server_is_up() {
            let round_trips = run.round_trips();
            self.send_to_server(&ToServer::RelayRoundTrips { round_trips });
        }
    }
}
