//! One run of the discovery (RFC 5780): which questions, when, and what the answers come to. [`super`] says how the whole works.
//!
//! In: the server's addresses, fresh sockets, datagrams, the time. Out: requests, wishes for more sockets, [`Findings`].
//!
//! Timers. Everything is measured by the shortest round trip that was seen, within [`SHORTEST_TRIP`] and [`LONGEST_TRIP`]:
//! a plain question is repeated after a round trip and a quarter and [`SLACK`]; rounds of the filter test are half a round
//! trip apart; the run ends when nothing is open any more, at the latest 12 round trips and [`LIMIT_SLACK`] after its beginning
//! (1.35 s for 100 ms). A server that has not answered by [`SILENT_LIMIT`] does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::super::api::Reason;
use super::super::paths::may_send_to;
use super::allocation;
use super::client::{Answer, Ask, Client, Heard};
use super::filtering::{self, Filtering, Kind};
use super::hairpin::Hairpin;
use super::lifetime::{self, Lifetime};
use crate::engine::SocketName;
use crate::wire::control::AddressProof;
use crate::wire::introduction::NatFacts;
use crate::wire::stun::{ChangeRequest, Request};
pub use doors::Strangers;
use doors::{Caller, Door};

/// Fresh sockets that every run begins with: five distances between six samples, of which four are left when one is lost. One of the
/// six also tests the filter, and another one the mapping.
pub const FIRST_SAMPLES: u16 = 6;
/// Further ones when those show neither kept ports nor a step: 18 in all show a block, and its extent.
const FURTHER_SAMPLES: u16 = 12;
/// Between the samples: far enough apart that routers with small queues and systems keep their order, close enough that six
/// take 25 ms and twelve 55, in which a busy household opens less than one mapping.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);
/// Places in the order that are left free between the first and the further samples, for what was opened in between.
const PLACES_BETWEEN: usize = 16;
/// What is not a sample waits until the first samples are out, so that it does not come into their order.
const AFTER_SAMPLES: Duration = Duration::from_millis(30);

/// The round trip that is assumed before one was measured.
const GUESSED_TRIP: Duration = Duration::from_millis(100);
/// Nothing is faster than that: a server next door must not be asked eight times within a few milliseconds.
const SHORTEST_TRIP: Duration = Duration::from_millis(50);
/// Nothing is slower: the round trip over a geostationary satellite is 600 ms; repeats that come before its answer do no harm.
const LONGEST_TRIP: Duration = Duration::from_millis(500);
/// What an answer may be late without being lost.
const SLACK: Duration = Duration::from_millis(30);
/// Requests for one answer. At 10 % loss each way the last one is needed once in 100,000 questions.
const MOST_REQUESTS: u8 = 8;
/// Beside 12 round trips, the longest that a run takes.
const LIMIT_SLACK: Duration = Duration::from_millis(150);
const LIMIT_TRIPS: u32 = 12;
/// A server that has not answered at all by then does not: five requests of each of six questions, the last with a second for its
/// answer.
const SILENT_LIMIT: Duration = Duration::from_secs(3);
/// New mappings that all got the same address: that many show that there is only one. Of two addresses one alone would come up
/// with odds of 1 in 32,768.
const SAMPLES_FOR_ONE_ADDRESS: usize = 16;

/// An address of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Main,
    OtherPort,
    OtherAddress,
    OtherBoth,
}

impl Place {
    const OTHERS: [Self; 3] = [Self::OtherPort, Self::OtherAddress, Self::OtherBoth];
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    /// The first mapping of that fresh socket.
    Sample(usize),
    /// How the mapping socket is seen there.
    Mapping(Place),
    /// How the node's own socket is seen there.
    Own(Place),
    /// How the node's socket for the other IP version is seen, or its only one.
    Public,
    Control(u8),
    Changed(Kind),
    /// A request to the outside address of another socket.
    Hairpin,
    /// The first question of a socket of the lifetime test; 0 is the checker, probe n is n + 1.
    LifetimeFirst(usize),
    LifetimeControl(u8),
    LifetimeCheck(u8),
    /// The first question of the socket that knocks at IPv6's door.
    Caller,
    DoorControl(usize, u8),
    Door(usize),
}

/// What further sockets are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// More samples.
    Samples,
    /// The lifetime test.
    Lifetime,
    /// Two IPv6 sockets: one that calls, one that has never sent anything.
    Caller,
}

/// A plain question and its repeats.
#[derive(Debug)]
struct Question {
    ask: Ask<Tag>,
    sent: u8,
    /// Next repeat, or when the last one is lost.
    due: Instant,
    answer: Option<Answer>,
    failed: bool,
}

impl Question {
    fn is_open(&self) -> bool {
        self.answer.is_none() && !self.failed
    }
}

/// What a run needs to know.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The server's main address.
    pub server: SocketAddr,
    /// Its further addresses, as far as they are known. Servers name one more themselves (OTHER-ADDRESS).
    pub further: Vec<SocketAddr>,
    /// The node's own socket for the server's IP version, with its bound address: used where fresh sockets are missing.
    pub own: SocketAddr,
    /// Its name.
    pub own_name: SocketName,
    /// How the session's server sees it, if there is a session.
    pub own_observed: Option<SocketAddr>,
    /// Fresh sockets, each with its bound address. None: little can be known.
    pub fresh: Vec<(SocketName, SocketAddr)>,
    /// A socket of the node whose public address is to be asked for at that server address, with a proof.
    pub public: Option<(SocketName, SocketAddr)>,
    /// Addresses of the machine.
    pub local: Vec<IpAddr>,
    /// Where strangers are to knock.
    pub strangers: Strangers,
    /// Find out about hairpins, too.
    pub hairpin: bool,
    /// Find out how long mappings live, up to that.
    pub lifetime: Option<Duration>,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The facts.
    pub facts: NatFacts,
    /// Any server answered.
    pub answered: bool,
    /// The address of the node's socket that was asked for, with the proof if the server gave one.
    pub public: Option<(SocketAddr, Option<AddressProof>)>,
    /// The outside address of a fresh socket of the server's IP version: its IP address is the node's.
    pub seen: Option<SocketAddr>,
    /// No translation.
    pub untranslated: Option<bool>,
    /// Outside and local ports, in order.
    pub samples: Vec<(u16, u16)>,
    /// New mappings get different addresses.
    pub several_addresses: Option<bool>,
    /// As in the report.
    pub lifetime: Option<(Duration, Option<Duration>)>,
    /// Forwarded ports at which it is known whether strangers get in.
    pub doors: Vec<(SocketAddr, bool)>,
    /// Strangers get in over IPv6.
    pub v6_open: Option<bool>,
    /// Shortest round trip to the server.
    pub round_trip: Option<Duration>,
    /// Why less is known than a run can find out, in words.
    pub lack: Option<Reason>,
}

/// One run.
#[derive(Debug)]
pub struct Discovery {
    setup: Setup,
    start: Instant,
    client: Client<Tag>,
    questions: BTreeMap<Tag, Question>,
    /// Fresh sockets in the order of their samples, each with its place.
    fresh: Vec<(SocketName, SocketAddr, usize)>,
    other_port: Option<u16>,
    other_ip: Option<IpAddr>,
    filtering: Filtering,
    hairpin: Hairpin,
    lifetime: Option<Lifetime>,
    lifetime_sockets: Vec<(SocketName, SocketAddr)>,
    doors: Vec<Door>,
    caller: Caller,
    /// Sockets that are wished for.
    wish: Option<(Purpose, u16)>,
    /// A wish that is not answered yet.
    waiting_for: Option<Purpose>,
    /// Whether further samples are needed has been decided.
    further_decided: bool,
    round_trip: Option<Duration>,
}

impl Discovery {
    /// Begins a run. `random` makes the transaction ids: nobody may guess it.
    pub fn new(now: Instant, setup: Setup, random: StdRng) -> Self {
        let is_other = |address: &&SocketAddr| may_send_to(**address) && address.is_ipv4() == setup.server.is_ipv4();
        let others = || setup.further.iter().filter(is_other);
        let other_ip = others().map(SocketAddr::ip).find(|ip| *ip != setup.server.ip());
        let other_port = others().map(SocketAddr::port).find(|port| *port != setup.server.port());
        let mut run = Self {
            start: now,
            client: Client::new(random),
            questions: BTreeMap::new(),
            fresh: Vec::new(),
            other_port,
            other_ip,
            filtering: Filtering::new(),
            hairpin: Hairpin::default(),
            lifetime: None,
            lifetime_sockets: Vec::new(),
            doors: Vec::new(),
            caller: Caller::default(),
            wish: None,
            waiting_for: None,
            further_decided: false,
            round_trip: None,
            setup,
        };
        let fresh = std::mem::take(&mut run.setup.fresh);
        run.add_samples(now, fresh, 0);
        if run.fresh.len() < 2 {
            let (name, server) = (run.setup.own_name, run.setup.server);
            run.question(now, Ask::plain(Tag::Mapping(Place::Main), name, server));
        }
        if let Some((name, server)) = run.setup.public {
            let ask = Ask {
                cookie: true,
                ..Ask::plain(Tag::Public, name, server)
            };
            run.question(now, ask);
        }
        run.advance(now);
        run
    }

    /// Whether sockets for IPv6 are needed.
    pub fn is_ipv6(&self, purpose: Purpose) -> bool {
        self.setup.server.is_ipv6() || purpose == Purpose::Caller
    }

    /// Hairpins are to be found out about, too.
    pub fn with_hairpin(&mut self, now: Instant) {
        self.setup.hairpin = true;
        self.advance(now);
    }

    fn question(&mut self, due: Instant, ask: Ask<Tag>) {
        let question = Question {
            ask,
            sent: 0,
            due,
            answer: None,
            failed: false,
        };
        self.questions.entry(ask.tag).or_insert(question);
    }

    fn add_samples(&mut self, now: Instant, sockets: Vec<(SocketName, SocketAddr)>, places: usize) {
        for (number, (name, bound)) in sockets.into_iter().enumerate() {
            let index = self.fresh.len();
            self.fresh.push((name, bound, index + places));
            let due = now + SAMPLE_INTERVAL * number as u32;
            self.question(due, Ask::plain(Tag::Sample(index), name, self.setup.server));
        }
    }

    /// Sockets that the run needs now. Answered with [`Discovery::add_sockets`].
    pub fn take_wish(&mut self) -> Option<(Purpose, u16)> {
        self.wish.take()
    }

    /// The sockets of a wish, or none.
    pub fn add_sockets(&mut self, now: Instant, purpose: Purpose, sockets: Vec<(SocketName, SocketAddr)>) {
        if self.waiting_for == Some(purpose) {
            self.waiting_for = None;
        }
        match purpose {
            Purpose::Samples => self.add_samples(now, sockets, PLACES_BETWEEN),
            Purpose::Lifetime => self.begin_lifetime(now, sockets),
            Purpose::Caller => self.begin_call(now, &sockets),
        }
        self.advance(now);
    }

    fn trip(&self) -> Duration {
        self.round_trip
            .unwrap_or(GUESSED_TRIP)
            .clamp(SHORTEST_TRIP, LONGEST_TRIP)
    }

    /// An answer that takes longer is lost.
    fn patience(&self) -> Duration {
        self.trip() * 5 / 4 + SLACK
    }

    /// When the part without the lifetimes ends at the latest.
    fn limit(&self) -> Instant {
        self.start
            + match self.round_trip {
                Some(_) => self.trip() * LIMIT_TRIPS + LIMIT_SLACK,
                None => SILENT_LIMIT,
            }
    }

    fn address(&self, place: Place) -> Option<SocketAddr> {
        let main = self.setup.server;
        Some(match place {
            Place::Main => main,
            Place::OtherPort => SocketAddr::new(main.ip(), self.other_port?),
            Place::OtherAddress => SocketAddr::new(self.other_ip?, main.port()),
            Place::OtherBoth => SocketAddr::new(self.other_ip?, self.other_port?),
        })
    }

    /// The socket whose mappings towards several destinations are compared.
    fn mapping_socket(&self) -> SocketName {
        self.fresh.get(1).map_or(self.setup.own_name, |fresh| fresh.0)
    }

    /// How the server sees the mapping socket at one of its addresses.
    fn mapped_at(&self, place: Place) -> Option<SocketAddr> {
        let tag = match place {
            Place::Main if self.fresh.len() >= 2 => Tag::Sample(1),
            place => Tag::Mapping(place),
        };
        self.answer(tag).map(|answer| answer.mapped)
    }

    fn answer(&self, tag: Tag) -> Option<Answer> {
        self.questions.get(&tag)?.answer
    }

    /// Takes a datagram; false: it has nothing to do with this run.
    pub fn handle(&mut self, now: Instant, socket: SocketName, source: SocketAddr, contents: &[u8]) -> bool {
        match self.client.handle(now, socket, source, contents) {
            Heard::Foreign => return false,
            Heard::Dropped => return true,
            Heard::Answer(tag, answer) => self.answered(now, tag, answer),
            Heard::Refused(tag, _) => self.refused(now, tag),
            Heard::FromElsewhere(tag) => {
                // For these it is the same as a refusal; everything else goes on.
                if let Tag::Changed(_) | Tag::Door(_) | Tag::LifetimeCheck(_) = tag {
                    self.refused(now, tag);
                }
            }
            Heard::Own(_) => self.hairpin.came_back(),
        }
        self.advance(now);
        true
    }

    fn answered(&mut self, now: Instant, tag: Tag, answer: Answer) {
        self.round_trip = Some(
            self.round_trip
                .map_or(answer.round_trip, |known| known.min(answer.round_trip)),
        );
        match tag {
            Tag::Sample(_) | Tag::Mapping(_) | Tag::Own(_) | Tag::Public | Tag::LifetimeFirst(_) | Tag::Caller => {
                if let Some(question) = self
                    .questions
                    .get_mut(&tag)
                    .filter(|question| question.answer.is_none())
                {
                    question.answer = Some(answer);
                    question.failed = false;
                }
                if let Tag::Sample(_) | Tag::Mapping(Place::Main) = tag
                    && let Some(other) = answer.other
                {
                    let main = self.setup.server;
                    self.other_port = self
                        .other_port
                        .or(Some(other.port()).filter(|port| *port != main.port()));
                    self.other_ip = self.other_ip.or(Some(other.ip()).filter(|ip| *ip != main.ip()));
                }
                if let Tag::LifetimeFirst(number) = tag {
                    self.lifetime_begun(now, number, Some(answer.mapped));
                }
            }
            Tag::Control(pair) => self.filtering.control_answered(pair),
            Tag::Changed(kind) => self.filtering.through(kind),
            Tag::Hairpin => {}
            Tag::LifetimeControl(probe) => self.on_lifetime(|lifetime| lifetime.control_answered(probe)),
            Tag::LifetimeCheck(probe) => self.on_lifetime(|lifetime| lifetime.arrived(probe)),
            Tag::DoorControl(door, pair) => self.doors[door].trial.control_answered(pair),
            Tag::Door(door) => self.doors[door].trial.through(Kind::Port),
        }
    }

    /// The server said that it cannot.
    fn refused(&mut self, now: Instant, tag: Tag) {
        match tag {
            Tag::Changed(kind) => self.filtering.cannot(kind),
            Tag::LifetimeCheck(_) => self.on_lifetime(Lifetime::cannot),
            Tag::Door(door) => self.doors[door].trial.cannot(Kind::Port),
            tag => {
                if let Some(question) = self.questions.get_mut(&tag) {
                    question.failed = true;
                }
                if let Tag::LifetimeFirst(number) = tag {
                    self.lifetime_begun(now, number, None);
                }
            }
        }
    }

    fn on_lifetime(&mut self, change: impl FnOnce(&mut Lifetime)) {
        if let Some(lifetime) = &mut self.lifetime {
            change(lifetime);
        }
    }

    fn lifetime_begun(&mut self, now: Instant, number: usize, mapped: Option<SocketAddr>) {
        self.on_lifetime(|lifetime| match (number.checked_sub(1), mapped) {
            (Some(probe), mapped) => lifetime.begun(now, probe as u8, mapped),
            (None, Some(mapped)) => lifetime.checker_answered(mapped),
            (None, None) => lifetime.cannot(),
        });
    }

    /// Whether everything is found out, or cannot be.
    pub fn is_over(&self, now: Instant) -> bool {
        let lifetime = match (&self.lifetime, self.setup.lifetime) {
            (Some(lifetime), _) => lifetime.is_over(),
            (None, wanted) => wanted.is_none() || self.round_trip.is_none(),
        };
        self.first_part_is_over(now) && lifetime
    }

    /// Whether everything but the lifetimes is.
    fn first_part_is_over(&self, now: Instant) -> bool {
        let patience = self.patience();
        let in_first = |tag: &Tag| !matches!(tag, Tag::LifetimeFirst(_));
        let asked = self
            .questions
            .iter()
            .any(|(tag, question)| in_first(tag) && question.is_open());
        let filters = self.filtering.poll_timeout(patience).is_some();
        let hairpin = self.setup.hairpin && self.hairpin.is_running();
        let doors = self.doors_timeout().is_some();
        let sockets = matches!(self.waiting_for, Some(Purpose::Samples | Purpose::Caller));
        now >= self.limit() || !(asked || filters || doors || hairpin || sockets)
    }

    /// The next moment for [`Discovery::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let open = self.questions.values().filter(|question| question.is_open());
        let first = [
            self.filtering.poll_timeout(self.patience()),
            self.doors_timeout(),
            self.hairpin.poll_timeout(),
            Some(self.limit()).filter(|_| self.lifetime.is_none() && self.waiting_for != Some(Purpose::Lifetime)),
            Some(self.further_at()).filter(|_| !self.further_decided && self.round_trip.is_some()),
            self.lifetime.as_ref().and_then(Lifetime::poll_timeout),
        ];
        first
            .into_iter()
            .flatten()
            .chain(open.map(|question| question.due))
            .min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// The next request to send.
    pub fn poll_request(&mut self) -> Option<(SocketName, SocketAddr, Request)> {
        self.client.poll_request()
    }

    /// Whether requests wait to be sent.
    pub fn has_requests(&self) -> bool {
        self.client.has_requests()
    }

    /// Forged and damaged answers.
    pub fn dropped(&self) -> u64 {
        self.client.dropped()
    }

    fn advance(&mut self, now: Instant) {
        self.seek_others(now);
        self.send_questions(now);
        self.send_filter_rounds(now);
        self.decide_further(now);
        self.seek_caller();
        self.send_door_rounds(now);
        self.send_hairpins(now);
        if self.lifetime.is_none()
            && self.waiting_for.is_none()
            && let Some(limit) = self.setup.lifetime
            && self.round_trip.is_some()
            && self.first_part_is_over(now)
        {
            self.waiting_for = Some(Purpose::Lifetime);
            self.wish = Some((Purpose::Lifetime, lifetime::sockets_wanted(limit)));
        }
        self.send_lifetime_checks(now);
    }

    /// Asks at the server's other addresses as soon as they are known and the first samples are out.
    fn seek_others(&mut self, now: Instant) {
        let begin = now.max(self.start + AFTER_SAMPLES);
        let socket = self.mapping_socket();
        for place in Place::OTHERS {
            if let Some(address) = self.address(place)
                && !self.questions.contains_key(&Tag::Mapping(place))
            {
                self.question(begin, Ask::plain(Tag::Mapping(place), socket, address));
            }
        }
        if self.fresh.is_empty() {
            return;
        }
        if self.other_port.is_some() {
            self.filtering.seek(begin, Kind::Port);
        }
        if self.other_ip.is_some() {
            self.filtering.seek(begin, Kind::Address);
        }
    }

    fn send_questions(&mut self, now: Instant) {
        let (patience, measured) = (self.patience(), self.round_trip.is_some());
        let mut given_up = Vec::new();
        for (tag, question) in &mut self.questions {
            if !question.is_open() || question.due > now {
                continue;
            }
            if question.sent >= MOST_REQUESTS {
                question.failed = true;
                given_up.push(*tag);
                continue;
            }
            let ask = Ask {
                repeat: question.sent,
                ..question.ask
            };
            self.client.ask(now, ask);
            // A server that nothing is known of gets more time with each repeat.
            let wait = if measured {
                patience
            } else {
                patience * (1 << question.sent)
            };
            question.sent += 1;
            question.due = now + wait;
        }
        for tag in given_up {
            if let Tag::LifetimeFirst(number) = tag {
                self.lifetime_begun(now, number, None);
            }
        }
    }

    fn send_filter_rounds(&mut self, now: Instant) {
        let (interval, patience) = (self.trip() / 2, self.patience());
        let Some((socket, ..)) = self.fresh.first().copied() else {
            return;
        };
        let server = self.setup.server;
        for send in self.filtering.poll(now, interval, patience) {
            let ask = match send {
                filtering::Send::Control { pair } => Ask::plain(Tag::Control(pair), socket, server),
                filtering::Send::Changed(kind) => {
                    let change = ChangeRequest {
                        ip: kind == Kind::Address,
                        port: self.other_port.is_some(),
                    };
                    let ip = self.other_ip.filter(|_| change.ip).unwrap_or(server.ip());
                    let port = self.other_port.unwrap_or(server.port());
                    Ask {
                        change,
                        arrives_from: SocketAddr::new(ip, port),
                        ..Ask::plain(Tag::Changed(kind), socket, server)
                    }
                }
            };
            self.client.ask(now, ask);
        }
    }

    /// When the first samples are judged at the latest: the first repeats of lost ones are answered by then.
    fn further_at(&self) -> Instant {
        self.start + self.trip() * 3
    }

    /// Decides whether further samples are needed.
    fn decide_further(&mut self, now: Instant) {
        let open = (0..self.fresh.len()).any(|index| self.questions[&Tag::Sample(index)].is_open());
        if self.further_decided || self.round_trip.is_none() || (open && now < self.further_at()) {
            return;
        }
        let judged = allocation::judge(&self.samples(), &[]);
        let clear = judged.preserves == Some(true) || judged.step.is_some() || self.untranslated() == Some(true);
        self.further_decided = true;
        if !clear && self.fresh.len() >= usize::from(FIRST_SAMPLES) {
            self.waiting_for = Some(Purpose::Samples);
            self.wish = Some((Purpose::Samples, FURTHER_SAMPLES));
        }
        if judged.preserves == Some(true) {
            self.ask_own_socket(now);
        }
    }

    /// A router that keeps numbers shows fresh sockets everywhere alike, whether it maps each destination anew or not. It betrays itself
    /// where a number was taken: the node's own socket has another one towards the server, and may have its own one elsewhere.
    fn ask_own_socket(&mut self, now: Instant) {
        let own = self.setup.own;
        let moved = self
            .setup
            .own_observed
            .is_some_and(|seen| seen.is_ipv4() == own.is_ipv4() && seen.port() != own.port());
        // With fewer fresh sockets it is the one that the mapping is found out with.
        // A number that is forwarded to it is no betrayal, and what the own socket has sent to is no stranger there any more.
        let forwarded = self.setup.strangers.forwarded.iter();
        let explained = forwarded
            .filter_map(|outside| Some(outside.port() == self.setup.own_observed?.port()))
            .any(|same| same);
        if !moved || explained || self.fresh.len() < 2 {
            return;
        }
        for place in Place::OTHERS.into_iter().chain([Place::Main]) {
            if let Some(address) = self.address(place) {
                self.question(now, Ask::plain(Tag::Own(place), self.setup.own_name, address));
            }
        }
    }

    fn send_hairpins(&mut self, now: Instant) {
        if !self.setup.hairpin {
            return;
        }
        if !self.hairpin.is_ready() && (now >= self.further_at() || self.further_decided) {
            // Not the socket of the filter test, if there are others.
            let indices = (0..self.fresh.len()).rev();
            let mut answered =
                indices.filter_map(|index| Some((self.fresh[index].0, self.answer(Tag::Sample(index))?.mapped)));
            if let (Some(one), Some(other)) = (answered.next(), answered.next()) {
                self.hairpin.begin(now, one, other);
            }
        }
        for (from, to) in self.hairpin.poll(now, self.trip()) {
            let ask = Ask {
                arrives_at: to.0,
                arrives_from: from.1,
                ..Ask::plain(Tag::Hairpin, from.0, to.1)
            };
            self.client.ask(now, ask);
        }
    }

    fn begin_lifetime(&mut self, now: Instant, sockets: Vec<(SocketName, SocketAddr)>) {
        let Some(limit) = self.setup.lifetime else { return };
        let test = Lifetime::new(limit, sockets.len());
        if !test.is_over() {
            for (number, (name, _)) in sockets.iter().enumerate().take(usize::from(test.probes()) + 1) {
                let due = now + SAMPLE_INTERVAL * number as u32;
                self.question(due, Ask::plain(Tag::LifetimeFirst(number), *name, self.setup.server));
            }
        }
        self.lifetime_sockets = sockets;
        self.lifetime = Some(test);
    }

    fn send_lifetime_checks(&mut self, now: Instant) {
        let (interval, patience) = (self.trip() / 2, self.patience());
        let Some(lifetime) = &mut self.lifetime else { return };
        let server = self.setup.server;
        for send in lifetime.poll(now, interval, patience) {
            let checker = self.lifetime_sockets[0].0;
            let ask = match send {
                lifetime::Send::Control { probe, .. } => Ask::plain(Tag::LifetimeControl(probe), checker, server),
                lifetime::Send::Check { probe, mapped } => Ask {
                    response_port: Some(mapped.port()),
                    arrives_at: self.lifetime_sockets[usize::from(probe) + 1].0,
                    ..Ask::plain(Tag::LifetimeCheck(probe), checker, server)
                },
            };
            self.client.ask(now, ask);
        }
    }
}

mod conclusions;
mod doors;
#[cfg(test)]
mod tests;
