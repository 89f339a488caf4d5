//! The grid: every pair of router behaviours, how it connects, and what it must reach.
//!
//! In: a [`Cell`] (two players, what each sits behind), a seed, a loss. Out: a [`Run`]: whether they met, how long that took, what it cost
//! in probes, and what was wrong. [`tally`] makes a row of many runs, [`matrix`] and [`markdown`] show them; benchmark and test share all of
//! it. No share excuses a run that costs more than the budgets of probes (`limits`), or a failure that comes late or does not say why.
//!
//! The classes are RFC 4787's behaviours by what they mean for reaching a player: see [`Class`]. Players have a warm session with a
//! server that has one address, and have found out in the background what they sit behind; nothing else helps them.

mod limits;
mod table;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::figures::{OPENING_SLACK, WARM_AFTER};
use super::probes::{AttemptProbes, HostProbes};
use super::scenario::{RouterKind, Scenario};
use super::{Allocation, Dependence, Link, OwnedEvent, RouterConfig};
use crate::engine::SocketName;
use crate::peer::api::{Command, NatOutcome};
pub use table::{MANY, Row, Tally, markdown, matrix, run_all, tally};

/// What a player sits behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A public address (even seeds), or endpoint-independent mapping and filtering (odd ones).
    O,
    /// Endpoint-independent mapping, address-dependent filtering.
    A,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    P,
    /// Address- and port-dependent mapping and filtering (symmetric); ports are preserved. With odd seeds somebody else behind the same
    /// router has the player's port towards the server already, so that the server sees another one.
    Sp,
    /// Symmetric; ports in sequence, steps of 1 (even seeds) or 2, and [`FOREIGN_PER_SECOND`] mappings of others.
    Ss,
    /// Symmetric; random ports in a block of [`BLOCK`].
    Sb,
    /// Symmetric; random ports of the whole range.
    Sr,
    /// No UDP at all.
    U,
}

/// New mappings that others behind the same router make, in a second.
pub const FOREIGN_PER_SECOND: f64 = 10.0;
/// Ports in a block of a carrier's router.
pub const BLOCK: u16 = 2_048;
/// Round trip of every player to the server, and of players to each other: what times are counted in.
pub const ROUND_TRIP: Duration = Duration::from_millis(60);
/// The loss (each way) of the second half of the grid.
pub const LOSS: f64 = 0.05;
/// Public addresses of a router with a pool of them.
const POOL: u8 = 4;
/// An attempt has ended by then, well or not.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(12);
/// Longest way of two players that are neither symmetric nor behind two routers, without loss: a round trip to the server, one between the
/// players, and what timers and everybody's own work take.
const EASY_LIMIT: Duration = ROUND_TRIP.saturating_mul(2).saturating_add(OPENING_SLACK);
/// What stands in a failure's text between what it says of the own router and of the other one.
const OTHER_SIDE_WORDS: &str = "; the other side's: ";
/// The other side hears of a success so much later at most.
const OTHER_SIDE: Duration = Duration::from_secs(3);

impl Class {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::O,
        Self::A,
        Self::P,
        Self::Sp,
        Self::Ss,
        Self::Sb,
        Self::Sr,
        Self::U,
    ];

    fn kind(self, seed: u64) -> RouterKind {
        match self {
            Self::O if seed.is_multiple_of(2) => RouterKind::Open,
            _ => RouterKind::Custom(self.config(seed)),
        }
    }

    fn config(self, seed: u64) -> RouterConfig {
        match self {
            Self::O => RouterConfig::full_cone(),
            Self::A => RouterConfig::address_restricted(),
            Self::P => RouterConfig::port_restricted(),
            Self::Sp => RouterConfig::symmetric(Allocation::Preserving),
            Self::Ss => RouterConfig::symmetric(Allocation::Sequential {
                step: 1 + (seed % 2) as i16,
                foreign_per_second: FOREIGN_PER_SECOND,
            }),
            Self::Sb => RouterConfig::symmetric(Allocation::RandomInBlock { size: BLOCK }),
            Self::Sr => RouterConfig::symmetric(Allocation::Random),
            Self::U => RouterConfig {
                blocks_udp: true,
                ..RouterConfig::port_restricted()
            },
        }
    }

    fn is_symmetric(self) -> bool {
        matches!(self, Self::Sp | Self::Ss | Self::Sb | Self::Sr)
    }

    /// Reaches, and is reached by, others of the kind with one volley.
    fn is_easy(self) -> bool {
        matches!(self, Self::O | Self::A | Self::P)
    }

    /// What a failure must say of it: one of these.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::O => &["full cone"],
            Self::A => &["address-restricted"],
            Self::P => &["port-restricted"],
            // Most seeds show nothing else.
            Self::Sp => &["symmetric, keeping port numbers", "port-restricted"],
            Self::Ss => &["symmetric, with ports"],
            Self::Sb => &["symmetric, with random ports from"],
            Self::Sr => &["symmetric, with random ports,"],
            Self::U => &[],
        }
    }
}

/// How a pair connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Technique {
    /// One side is reachable by anybody.
    Direct,
    /// Both send to what the server saw; whoever is heard first shows where it is.
    Punch,
    /// Also to the local port's number at the public address.
    GuessPort,
    /// Also to the ports that the router gives next.
    Predict,
    /// Both sides predict.
    PredictBoth,
    /// One side opens many ports, the other tries many of the block that they are in.
    BirthdayInBlock,
    /// One side opens many ports, the other tries many.
    Birthday,
    /// Nothing: the attempt fails, and says why.
    Unreachable,
    /// Nothing: no packet passes, not even to the server.
    Blocked,
}

impl fmt::Display for Technique {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Direct => "direct",
            Self::Punch => "punch",
            Self::GuessPort => "guess the local port",
            Self::Predict => "predict",
            Self::PredictBoth => "predict both",
            Self::BirthdayInBlock => "birthday in the block",
            Self::Birthday => "birthday",
            Self::Unreachable => "none: fails with its reason",
            Self::Blocked => "none: UDP is blocked",
        })
    }
}

/// What a cell must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Share of runs without loss.
    pub clean: f64,
    /// Share of runs with [`LOSS`].
    pub lossy: f64,
    /// A run only counts if it took no longer, from open NAT.
    pub within: Option<Duration>,
    /// The same, without loss.
    pub clean_within: Option<Duration>,
    /// The same, from the first probe.
    pub probing_within: Option<Duration>,
}

impl Bound {
    const fn shares(clean: f64, lossy: f64) -> Self {
        Self {
            clean,
            lossy,
            within: None,
            clean_within: None,
            probing_within: None,
        }
    }

    /// For that loss.
    pub fn share(&self, loss: f64) -> f64 {
        if loss == 0.0 { self.clean } else { self.lossy }
    }
}

impl Technique {
    fn of(one: Class, other: Class) -> Self {
        use Class::{A, O, P, Sb, Sp, Sr, Ss, U};
        match (one.min(other), one.max(other)) {
            (_, U) => Self::Blocked,
            (O, _) => Self::Direct,
            (A, _) | (P, P) => Self::Punch,
            (P | Sp, Sp) => Self::GuessPort,
            (P | Sp, Ss) => Self::Predict,
            (P | Sp, Sb) => Self::BirthdayInBlock,
            (P | Sp, Sr) => Self::Birthday,
            (Ss, Ss) => Self::PredictBoth,
            _ => Self::Unreachable,
        }
    }

    /// Without loss what theory allows; with loss what was measured, less a little.
    fn bound(self) -> Bound {
        match self {
            Self::Direct | Self::Punch => Bound::shares(1.0, 0.99),
            Self::GuessPort => Bound::shares(0.99, 0.99),
            Self::Predict => Bound::shares(0.98, 0.97),
            Self::PredictBoth => Bound::shares(0.7, 0.7),
            Self::BirthdayInBlock => Bound {
                probing_within: Some(Duration::from_millis(1_500)),
                ..Bound::shares(0.99, 0.97)
            },
            Self::Birthday => Bound {
                within: Some(Duration::from_secs(10)),
                ..Bound::shares(0.98, 0.95)
            },
            // That they end as they must.
            Self::Unreachable | Self::Blocked => Bound::shares(1.0, 1.0),
        }
    }
}

/// What stands around a player's own router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    /// Another router in a row.
    Carrier(Class),
    /// The router has a pool of public addresses, paired with inside ones.
    Pool,
}

/// Whether players share a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    No,
    /// One LAN.
    Lan,
    /// Two homes behind one carrier's router that hairpins.
    Carrier,
}

/// A cell of the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What each player sits behind.
    pub classes: [Class; 2],
    /// How they connect.
    pub technique: Technique,
    /// What they must reach.
    pub bound: Bound,
    around: [Around; 2],
    together: Together,
    /// Further sockets that each system allows, if not as many as usual.
    sockets: Option<u16>,
    /// Symmetric routers map by address alone; the server has two addresses, or it could not be told.
    by_address: bool,
    /// Players have just reached the server: nothing is known of any router yet.
    before_discovery: bool,
}

/// All cells: first every pair of classes, then what else stands in the way.
pub fn cells() -> Vec<Cell> {
    use Class::{A, O, P, Sb, Sp, Sr, Ss};
    let mut cells = Vec::new();
    for (index, one) in Class::ALL.into_iter().enumerate() {
        cells.extend(Class::ALL[index..].iter().map(|other| Cell::of(one, *other)));
    }
    for (one, other) in [(O, O), (O, A), (O, P), (A, A), (A, P), (P, P)] {
        let before_discovery = true;
        cells.push(Cell {
            before_discovery,
            ..Cell::of(one, other)
        });
    }
    for one in [P, Sp] {
        let bound = Bound {
            clean: 0.8,
            lossy: 0.75,
            ..Technique::Birthday.bound()
        };
        let sockets = Some(64);
        cells.push(Cell {
            bound,
            sockets,
            ..Cell::of(one, Sr)
        });
    }
    for (one, other) in [(A, Sr), (P, Ss), (P, Sb), (P, Sr)] {
        let by_address = true;
        cells.push(Cell {
            by_address,
            ..Cell::of(one, other)
        });
    }
    for other in [O, A, P, Sp] {
        cells.push(Cell::of(P, other).around(Around::Carrier(P), Around::Nothing));
    }
    cells.push(Cell::of(P, P).around(Around::Carrier(P), Around::Carrier(P)));
    for (other, technique) in [
        (O, Technique::Direct),
        (A, Technique::Punch),
        (P, Technique::BirthdayInBlock),
    ] {
        let cell = Cell::of(P, other).around(Around::Carrier(Sb), Around::Nothing);
        cells.push(Cell {
            technique,
            bound: technique.bound(),
            ..cell
        });
    }
    for (one, other) in [(P, P), (A, Sr), (P, Sp)] {
        cells.push(Cell::of(one, other).around(Around::Pool, Around::Pool));
    }
    for (class, together) in [(P, Together::Lan), (Sr, Together::Lan), (P, Together::Carrier)] {
        let technique = match together {
            Together::Lan => Technique::Direct,
            _ => Technique::Punch,
        };
        cells.push(Cell {
            technique,
            bound: technique.bound(),
            together,
            ..Cell::of(class, class)
        });
    }
    cells
}

impl Cell {
    fn of(one: Class, other: Class) -> Self {
        let technique = Technique::of(one, other);
        let easy = one.is_easy() && other.is_easy();
        Self {
            classes: [one, other],
            technique,
            bound: Bound {
                clean_within: easy.then_some(EASY_LIMIT),
                ..technique.bound()
            },
            around: [Around::Nothing; 2],
            together: Together::No,
            sockets: None,
            by_address: false,
            before_discovery: false,
        }
    }

    fn around(self, one: Around, other: Around) -> Self {
        let around = [one, other];
        // The second router has a link of its own.
        let carrier = around.iter().any(|around| matches!(around, Around::Carrier(_)));
        let bound = Bound {
            clean_within: self.bound.clean_within.filter(|_| !carrier),
            ..self.bound
        };
        Self { around, bound, ..self }
    }

    /// What a player's routers are together.
    fn behaviour(&self, player: usize) -> Class {
        match self.around[player] {
            Around::Carrier(carrier) => carrier.max(self.classes[player]),
            _ => self.classes[player],
        }
    }

    /// Nothing that the budgets allow connects the two.
    fn is_hopeless(&self) -> bool {
        matches!(self.technique, Technique::Unreachable | Technique::Blocked)
    }

    /// The two classes and nothing else.
    fn is_plain(&self) -> bool {
        *self == Self::of(self.classes[0], self.classes[1])
    }

    fn scenario(&self, seed: u64, loss: f64) -> Scenario {
        let mut builder = Scenario::builder(seed).round_trips(ROUND_TRIP, ROUND_TRIP).loss(loss);
        if self.by_address {
            builder = builder.server_addresses(2);
        }
        if let Some(sockets) = self.sockets {
            builder = builder.max_sockets(sockets);
        }
        for (index, (class, around)) in self.classes.into_iter().zip(self.around).enumerate() {
            let kind = match class.kind(seed) {
                RouterKind::Custom(config) if self.by_address && class.is_symmetric() => {
                    RouterKind::Custom(RouterConfig {
                        mapping: Dependence::Address,
                        ..config
                    })
                }
                kind => kind,
            };
            builder = match (self.together, around) {
                (Together::Lan, _) if index == 1 => builder.node_behind_router_of(0),
                (Together::Carrier, _) if index == 1 => builder.node_behind_carrier_of(kind, 0),
                (Together::Carrier, _) => {
                    builder.node_behind_carrier(kind, RouterConfig::port_restricted().with_hairpin())
                }
                (_, Around::Nothing) => builder.node(kind),
                (_, Around::Carrier(carrier)) => builder.node_behind_carrier(kind, carrier.config(seed)),
                (_, Around::Pool) => builder.node(RouterKind::Custom(RouterConfig {
                    public_addresses: POOL,
                    ..class.config(seed)
                })),
            };
        }
        let mut scenario = builder.build();
        scenario.lab.count_probes();
        for player in 0..2 {
            if self.classes[player] == Class::Sp && seed % 2 == 1 {
                take_port(&mut scenario, player);
            }
        }
        scenario
    }

    /// One attempt. Who asks changes with the seed.
    pub fn run(&self, seed: u64, loss: f64) -> Run {
        let mut scenario = self.scenario(seed, loss);
        let asker = (seed / 2 % 2) as usize;
        let ended = if self.technique == Technique::Blocked {
            self.run_blocked(&mut scenario)
        } else {
            scenario.connect_all();
            if !self.before_discovery {
                scenario.lab.run_for(WARM_AFTER);
            }
            attempt(&mut scenario, asker)
        };
        let hosts: Vec<&HostProbes> = scenario
            .nodes
            .iter()
            .filter_map(|node| scenario.lab.probes(*node))
            .collect();
        let probes = hosts
            .iter()
            .flat_map(|host| host.attempts())
            .map(AttemptProbes::packets);
        let probing = hosts.iter().flat_map(|host| host.attempts()).map(AttemptProbes::took);
        let mut run = Run {
            connected: matches!(ended.way, Way::Open),
            took: ended.took,
            probing: probing.max().unwrap_or_default(),
            probes: probes.max().unwrap_or(0),
            wrong: None,
            inexcusable: false,
        };
        let budget = hosts.iter().find_map(|host| self.over_budget(host));
        let inexcusable = budget.or_else(|| self.judge_failure(&run, &ended.way, asker));
        run.inexcusable = inexcusable.is_some();
        run.wrong = inexcusable.or_else(|| self.judge(&run, ended.way, loss));
        run
    }

    /// Whoever has no UDP does not even reach the server, and is found by nobody.
    fn run_blocked(&self, scenario: &mut Scenario) -> Ended {
        let begin = scenario.lab.elapsed();
        for player in 0..2 {
            let request = scenario.connect_server(player);
            let outcome = scenario.outcome(player, request);
            let connected = matches!(outcome, OwnedEvent::ServerConnected { .. });
            if connected == (self.classes[player] == Class::U) {
                let way = Way::Odd(format!("player {player}: {outcome:?}"));
                let took = scenario.lab.elapsed() - begin;
                return Ended { way, took };
            }
        }
        let reaches_server = (0..2).find(|player| self.classes[*player] != Class::U);
        attempt(scenario, reaches_server.unwrap_or(0))
    }

    /// What the cell must reach and the run did not, if something.
    fn judge(&self, run: &Run, way: Way, loss: f64) -> Option<String> {
        let late = |limit: Option<Duration>, took: Duration| limit.is_some_and(|limit| took > limit);
        let within = match loss {
            0.0 => self.bound.clean_within.or(self.bound.within),
            _ => self.bound.within,
        };
        match (self.technique, way) {
            (_, Way::Odd(text)) => Some(text),
            (Technique::Blocked, Way::Open) => Some("a way was opened".to_owned()),
            // Opened: better than it must be.
            (Technique::Unreachable | Technique::Blocked, _) => None,
            (_, Way::Failed(outcome, text)) => Some(format!("{outcome:?} after {:?}: {text}", run.took)),
            (_, Way::Open) if late(within, run.took) => Some(format!("took {:?}", run.took)),
            (_, Way::Open) if late(self.bound.probing_within, run.probing) => {
                Some(format!("probed for {:?}", run.probing))
            }
            (_, Way::Open) => None,
        }
    }

    /// A failure comes in time, and one to punch names what stands in the way at both sides.
    fn judge_failure(&self, run: &Run, way: &Way, asker: usize) -> Option<String> {
        let Way::Failed(outcome, text) = way else { return None };
        if run.took > ATTEMPT_LIMIT {
            return Some(format!("failed only after {:?}", run.took));
        }
        if self.technique == Technique::Blocked {
            return None;
        }
        if *outcome != NatOutcome::Failed {
            return Some(format!("{outcome:?}: {text}"));
        }
        let (own, other) = text.split_once(OTHER_SIDE_WORDS).unwrap_or((text, ""));
        let named = |class: Class, part: &str| class.words().iter().any(|words| part.contains(words));
        let both = named(self.behaviour(asker), own) && named(self.behaviour(1 - asker), other);
        (!both).then(|| format!("the failure does not name both behaviours: {text}"))
    }
}

impl fmt::Display for Cell {
    /// In ASCII, so that it can be typed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |index: usize| {
            let class = self.classes[index];
            match self.around[index] {
                Around::Nothing => format!("{class:?}"),
                Around::Carrier(carrier) => format!("{class:?} behind {carrier:?}"),
                Around::Pool => format!("{class:?} with a pool"),
            }
        };
        write!(formatter, "{} x {}", side(0), side(1))?;
        match self.together {
            Together::No => {}
            Together::Lan => formatter.write_str(", one LAN")?,
            Together::Carrier => formatter.write_str(", homes of one carrier")?,
        }
        if self.by_address {
            formatter.write_str(", mapping by address")?;
        }
        if self.before_discovery {
            formatter.write_str(", before discovery")?;
        }
        match self.sockets {
            Some(sockets) => write!(formatter, ", {sockets} sockets"),
            None => Ok(()),
        }
    }
}

/// Somebody else in a player's LAN talks to the server, from the same port.
fn take_port(scenario: &mut Scenario, player: usize) {
    let Some(router) = scenario.routers[player] else {
        return;
    };
    let (lan, name) = (scenario.lab.lan(router), SocketName::Udp4);
    let port = scenario.lab.socket_address(scenario.nodes[player], name).port();
    let neighbour = scenario.lab.add_host("neighbour", lan, Link::default());
    let bound = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    scenario.lab.open_socket(neighbour, name, bound);
    scenario.lab.start_raw(neighbour);
    let server = scenario.server_address;
    scenario.lab.send_raw(neighbour, name, server, b"somebody else");
    scenario.lab.run_for(ROUND_TRIP);
}

/// What an attempt came to.
enum Way {
    Open,
    Failed(NatOutcome, String),
    /// Something that no attempt may come to.
    Odd(String),
}

struct Ended {
    way: Way,
    took: Duration,
}

/// One player opens a way to the other one; both must know.
fn attempt(scenario: &mut Scenario, asker: usize) -> Ended {
    let (own, peer) = (scenario.guids[asker], scenario.guids[1 - asker]);
    let begin = scenario.lab.elapsed();
    let request = scenario.request(asker, |request| Command::OpenNat { request, peer });
    let ended = scenario.wait(asker, 2 * ATTEMPT_LIMIT, |event| event.ends_request() == Some(request));
    let mut took = scenario.lab.elapsed() - begin;
    let way = match ended.map(|recorded| recorded.event) {
        Some(OwnedEvent::NatSucceeded { .. }) => {
            let other = scenario.wait(
                1 - asker,
                OTHER_SIDE,
                |event| matches!(event, OwnedEvent::NatSucceeded { peer, sender: false, .. } if *peer == own),
            );
            took = other
                .as_ref()
                .map_or(took, |other| took.max(other.time.saturating_sub(begin)));
            match other {
                Some(_) => Way::Open,
                None => Way::Odd("the other side did not hear of the way".to_owned()),
            }
        }
        Some(OwnedEvent::NatFailed { outcome, reason, .. }) => Way::Failed(outcome, reason.text),
        other => Way::Odd(format!("the attempt ended with {other:?}")),
    };
    Ended { way, took }
}

/// What one seed of one cell gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// They met.
    pub connected: bool,
    /// From open NAT until both knew, or until it failed.
    pub took: Duration,
    /// From the first probe to the last that went to an address not heard of.
    pub probing: Duration,
    /// Unanswered probes of the side that sent more.
    pub probes: u32,
    /// Why it does not count as what the cell must reach.
    pub wrong: Option<String>,
    /// It may not happen in any run: a budget was broken, or a failure came late or did not say why.
    pub inexcusable: bool,
}
