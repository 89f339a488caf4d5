//! Meshes in one thread and virtual time: links with delays drawn from a seed, crashes, broken links.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Mesh, MeshConfig, MeshOutput, reason};
use crate::codes::Code;
use crate::peer::api::{MeshCommand, MeshEvent, RequestId};
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::MeshMessage;

/// A silent peer is lost after this long at the latest.
pub const LOST_TIME: Duration = Duration::from_secs(10);
/// A dial without an answer.
pub const DIAL_TIME: Duration = Duration::from_secs(5);

enum Action {
    Deliver {
        from: usize,
        to: usize,
        link: u64,
        message: Box<MeshMessage>,
    },
    Up {
        at: usize,
        peer: usize,
        link: u64,
        dialled: bool,
    },
    Down {
        at: usize,
        peer: usize,
        link: u64,
        code: Code,
    },
    DialFailed {
        at: usize,
        peer: usize,
    },
    Respond {
        at: usize,
        joiner: Guid,
    },
}

/// What the events told about the session.
pub struct Model {
    pub members: BTreeSet<Guid>,
    pub host: Guid,
}

pub struct Player {
    pub mesh: Mesh,
    pub guid: Guid,
    pub key: PublicKey,
    pub alive: bool,
    /// This end of a link to a peer: which link.
    pub links: BTreeMap<usize, u64>,
    pub events: Vec<(Duration, MeshEvent)>,
    pub tag: [u8; 16],
    /// The relay policy as the server was told it last.
    pub policy: RelayPolicy,
    /// What that was whenever the mesh asked for a connection.
    pub dialled_by: Vec<RelayPolicy>,
    pub model: Model,
}

pub struct Simulator {
    pub players: Vec<Player>,
    pub rng: StdRng,
    pub seed: u64,
    start: Instant,
    pub now: Instant,
    queue: BTreeMap<(Instant, u64), Action>,
    sequence: u64,
    /// When the last thing on the way from one to another arrives: nothing overtakes.
    horizon: BTreeMap<(usize, usize), Instant>,
    delay: BTreeMap<(usize, usize), Duration>,
    pub broken: BTreeSet<(usize, usize)>,
    /// Answer to CAPABLE; `None`: the test answers.
    pub accept: Option<Duration>,
    /// Requests of `StartVerifiedJoin`: whose, and how many terminal events there were.
    pub requests: BTreeMap<RequestId, (usize, u32)>,
    /// Messages delivered.
    pub delivered: u64,
    /// Prints everything that happens.
    trace: bool,
}

/// A message in short.
fn brief(message: &MeshMessage) -> String {
    match message {
        MeshMessage::Membership {
            epoch,
            change,
            subject,
            members,
            ..
        } => {
            format!(
                "Membership epoch {epoch:#x} {change:?} {subject}, {} members",
                members.len()
            )
        }
        MeshMessage::JoinAccepted { epoch, members, .. } => format!("JoinAccepted {epoch:#x}, {}", members.len()),
        MeshMessage::JoinStart {
            epoch,
            members,
            joining,
            ..
        } => {
            format!(
                "JoinStart {epoch:#x}, {} members, {} joining",
                members.len(),
                joining.len()
            )
        }
        MeshMessage::Leave { session } => format!("Leave {:02x}{:02x}", session[0], session[1]),
        other => format!("{other:?}").chars().take(300).collect(),
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Simulator {
    pub fn new(count: usize, seed: u64, max_delay_ms: u64) -> Self {
        Self::with(count, seed, max_delay_ms, |_| {})
    }

    pub fn with(count: usize, seed: u64, max_delay_ms: u64, change: impl Fn(&mut MeshConfig)) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let player = |index: usize| {
            let key = PublicKey([index as u8 + 1; 32]);
            let mut config = MeshConfig {
                own: key,
                seed: [index as u8 ^ seed as u8; 32],
                join_auto: true,
                partial: false,
                max_peers: 64,
                join_time_limit: Duration::from_secs(30),
                relay_policy: RelayPolicy::Fallback,
            };
            change(&mut config);
            let model = Model {
                members: BTreeSet::from([key.guid()]),
                host: key.guid(),
            };
            let (links, events) = (BTreeMap::new(), Vec::new());
            let mesh = Mesh::new(now, config);
            Player {
                mesh,
                guid: key.guid(),
                key,
                alive: true,
                links,
                events,
                tag: [0; 16],
                policy: RelayPolicy::Fallback,
                dialled_by: Vec::new(),
                model,
            }
        };
        let mut delay = BTreeMap::new();
        for a in 0..count {
            for b in a..count {
                let low = max_delay_ms.min(5);
                delay.insert((a, b), Duration::from_millis(rng.random_range(low..=max_delay_ms)));
            }
        }
        Self {
            players: (0..count).map(player).collect(),
            rng,
            seed,
            start: now,
            now,
            queue: BTreeMap::new(),
            sequence: 0,
            horizon: BTreeMap::new(),
            delay,
            broken: BTreeSet::new(),
            accept: Some(Duration::ZERO),
            requests: BTreeMap::new(),
            delivered: 0,
            trace: false,
        }
    }

    pub fn guid(&self, index: usize) -> Guid {
        self.players[index].guid
    }

    pub fn index(&self, guid: Guid) -> usize {
        self.players
            .iter()
            .position(|player| player.guid == guid)
            .expect("a player")
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn push(&mut self, at: Instant, action: Action) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), action);
    }

    /// When something sent now arrives, behind everything sent before.
    fn arrival(&mut self, from: usize, to: usize) -> Instant {
        let jitter = Duration::from_micros(self.rng.random_range(0..500));
        let at = self.now + self.delay[&pair(from, to)] + jitter;
        let horizon = self.horizon.entry((from, to)).or_insert(at);
        *horizon = at.max(*horizon);
        *horizon
    }

    /// Prints everything from here on.
    pub fn start_trace(&mut self) {
        self.trace = true;
        for (index, player) in self.players.iter().enumerate() {
            println!("map {index} {}", player.guid);
        }
    }

    /// The game at one player connects to another.
    pub fn connect(&mut self, from: usize, to: usize) {
        if !self.players[from].alive || self.players[from].links.contains_key(&to) {
            return;
        }
        if !self.players[to].alive || self.broken.contains(&pair(from, to)) {
            let at = self.now + DIAL_TIME;
            self.push(at, Action::DialFailed { at: from, peer: to });
            return;
        }
        self.sequence += 1;
        let link = self.sequence;
        let there = self.arrival(from, to);
        let back = there + self.delay[&pair(from, to)];
        self.push(
            there,
            Action::Up {
                at: to,
                peer: from,
                link,
                dialled: false,
            },
        );
        self.push(
            back,
            Action::Up {
                at: from,
                peer: to,
                link,
                dialled: true,
            },
        );
    }

    /// All connect to player 0 and are let in one after the other.
    pub fn gather(&mut self, count: usize) {
        for index in 1..count {
            self.connect(index, 0);
            self.run(Duration::from_secs(2));
            self.start_join(0, index, index as u32);
            self.run(Duration::from_secs(5));
        }
    }

    pub fn start_join(&mut self, host: usize, joiner: usize, request: RequestId) {
        self.requests.insert(request, (host, 0));
        let peer = self.guid(joiner);
        self.command(
            host,
            MeshCommand::StartVerifiedJoin {
                request,
                peer,
                data: b"start".to_vec(),
            },
        );
    }

    pub fn command(&mut self, index: usize, command: MeshCommand) {
        self.note(|| format!("{index} command {command:?}"));
        let leave = command == MeshCommand::Leave;
        let player = &mut self.players[index];
        player.mesh.command(self.now, command);
        if leave {
            player.model = Model {
                members: BTreeSet::from([player.guid]),
                host: player.guid,
            };
        }
        self.drain(index);
    }

    /// Gone without a word; what is on the way may be lost from some moment on.
    pub fn crash(&mut self, index: usize, lose_some: bool) {
        self.note(|| format!("{index} crashes"));
        self.players[index].alive = false;
        // Its requests end with it.
        self.requests.retain(|_, (owner, ends)| *owner != index || *ends != 0);
        self.players[index].links.clear();
        let peers = self.players.iter().enumerate();
        let peers = peers.filter_map(|(peer, player)| Some((peer, *player.links.get(&index)?)));
        let peers: Vec<(usize, u64)> = peers.collect();
        self.queue.retain(|_, action| {
            !matches!(action, Action::Up { at, peer, dialled: false, .. } if *peer == index || *at == index)
        });
        for (peer, link) in peers {
            let cut = self.now + Duration::from_millis(self.rng.random_range(0..200));
            if lose_some {
                self.queue.retain(|(at, _), action| {
                    !matches!(action, Action::Deliver { from, to, .. } if *from == index && *to == peer && *at > cut)
                });
            }
            self.lose(peer, index, link);
        }
    }

    fn lose(&mut self, at: usize, peer: usize, link: u64) {
        let early = Duration::from_millis(self.rng.random_range(0..2500));
        let when = self.now + LOST_TIME - early;
        self.push(
            when,
            Action::Down {
                at,
                peer,
                link,
                code: Code::Lost,
            },
        );
    }

    /// Nothing passes between two any more.
    pub fn break_link(&mut self, a: usize, b: usize) {
        self.note(|| format!("{a} and {b} are cut"));
        self.broken.insert(pair(a, b));
        for (at, peer) in [(a, b), (b, a)] {
            if let Some(link) = self.players[at].links.get(&peer).copied() {
                self.lose(at, peer, link);
            }
        }
        self.queue
            .retain(|_, action| !matches!(action, Action::Deliver { from, to, .. } if pair(*from, *to) == pair(a, b)));
    }

    /// A game closes a connection.
    pub fn disconnect(&mut self, from: usize, to: usize) {
        self.close(from, to, Code::Closed);
    }

    fn close(&mut self, from: usize, to: usize, code: Code) {
        let Some(link) = self.players[from].links.remove(&to) else {
            return;
        };
        let peer = self.guid(to);
        self.players[from]
            .mesh
            .disconnected(self.now, peer, reason(code, "closed"));
        if self.players[to].links.get(&from) == Some(&link) {
            let at = self.arrival(from, to);
            self.push(
                at,
                Action::Down {
                    at: to,
                    peer: from,
                    link,
                    code,
                },
            );
        }
        self.drain(from);
    }

    /// A crashed player returns with the same identity and nothing else.
    pub fn restart(&mut self, index: usize) {
        let config = self.players[index].mesh.config.clone();
        let player = &mut self.players[index];
        let seed = self.rng.random();
        player.mesh = Mesh::new(self.now, MeshConfig { seed, ..config });
        player.alive = true;
        player.model = Model {
            members: BTreeSet::from([player.guid]),
            host: player.guid,
        };
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = self
                .players
                .iter()
                .filter(|player| player.alive)
                .filter_map(|player| player.mesh.poll_timeout());
            let timer = timer.min();
            let action = self.queue.keys().next().map(|key| key.0);
            let Some(next) = timer.into_iter().chain(action).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if action == Some(next) {
                let (_, action) = self.queue.pop_first().expect("an action");
                self.act(action);
            } else {
                for index in 0..self.players.len() {
                    let due = self.players[index].mesh.poll_timeout().is_some_and(|at| at <= self.now);
                    if self.players[index].alive && due {
                        self.players[index].mesh.handle_timeout(self.now);
                        let again = self.players[index].mesh.poll_timeout();
                        assert!(
                            again.is_none_or(|at| at > self.now),
                            "seed {}: a timer does not move on",
                            self.seed
                        );
                        self.drain(index);
                    }
                }
            }
            self.check_always();
        }
        self.now = end;
    }

    fn note(&self, text: impl Fn() -> String) {
        if self.trace {
            println!("{:>12?} {}", self.elapsed(), text());
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Deliver {
                from,
                to,
                link,
                message,
            } => {
                if self.players[to].alive && self.players[to].links.get(&from) == Some(&link) {
                    self.delivered += 1;
                    self.note(|| format!("{to} hears from {from}: {}", brief(&message)));
                    let guid = self.guid(from);
                    self.players[to].mesh.message(self.now, guid, *message);
                    self.drain(to);
                }
            }
            Action::Up {
                at,
                peer,
                link,
                dialled,
            } => self.link_up(at, peer, link, dialled),
            Action::Down { at, peer, link, code } => {
                if self.players[at].alive && self.players[at].links.get(&peer) == Some(&link) {
                    self.players[at].links.remove(&peer);
                    let guid = self.guid(peer);
                    self.note(|| format!("{at} loses {peer}: {}", code.name()));
                    self.players[at].mesh.disconnected(self.now, guid, reason(code, "gone"));
                    self.drain(at);
                }
            }
            Action::DialFailed { at, peer } => {
                if self.players[at].alive {
                    let guid = self.guid(peer);
                    self.players[at]
                        .mesh
                        .connect_failed(self.now, guid, reason(Code::NoAnswer, "no answer"));
                    self.drain(at);
                }
            }
            Action::Respond { at, joiner } => {
                if self.players[at].alive {
                    self.command(
                        at,
                        MeshCommand::RespondJoin {
                            peer: joiner,
                            accept: true,
                            data: b"yes".to_vec(),
                        },
                    );
                }
            }
        }
    }

    fn link_up(&mut self, at: usize, peer: usize, link: u64, dialled: bool) {
        if !self.players[at].alive {
            return;
        }
        // The dialling side: the other one died or hung up in between.
        let broken = self.broken.contains(&pair(at, peer));
        if broken && !dialled {
            return;
        }
        let gone = dialled && (broken || self.players[peer].links.get(&at) != Some(&link));
        if gone && self.players[peer].links.get(&at) == Some(&link) {
            self.lose(peer, at, link);
        }
        if gone {
            if !self.players[at].links.contains_key(&peer) {
                self.act(Action::DialFailed { at, peer });
            }
            return;
        }
        let (key, guid) = (self.players[peer].key, self.guid(peer));
        if let Some(old) = self.players[at].links.get(&peer).copied() {
            let stale = self.players[peer].links.get(&at) != Some(&old);
            if !stale && !dialled {
                // Both dialled: the first connection stays.
                return;
            }
            self.players[at]
                .mesh
                .disconnected(self.now, guid, reason(Code::Lost, "replaced"));
        }
        self.note(|| format!("{at} is connected to {peer}, dialled {dialled}"));
        self.players[at].links.insert(peer, link);
        self.players[at].mesh.connected(self.now, key, dialled);
        self.drain(at);
        if !dialled && !self.players[peer].alive {
            self.lose(at, peer, link);
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.players[index].mesh.poll_output() {
            match output {
                MeshOutput::Send { to, message } => self.transmit(index, self.index(to), message),
                MeshOutput::Connect { peer } => {
                    let policy = self.players[index].policy;
                    self.players[index].dialled_by.push(policy);
                    self.connect(index, self.index(peer.guid()));
                }
                MeshOutput::Disconnect { peer, reason } => self.close(index, self.index(peer), reason.code),
                MeshOutput::SessionTag(tag) => self.players[index].tag = tag,
                MeshOutput::RelayPolicy => self.players[index].policy = self.players[index].mesh.relay_policy(),
                MeshOutput::Event(event) => self.on_event(index, event),
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, message: MeshMessage) {
        let Some(link) = self.players[from].links.get(&to).copied() else {
            panic!(
                "seed {}: {message:?} from {from} to {to}, who is not connected",
                self.seed
            );
        };
        if !self.broken.contains(&pair(from, to)) {
            let at = self.arrival(from, to);
            self.push(
                at,
                Action::Deliver {
                    from,
                    to,
                    link,
                    message: Box::new(message),
                },
            );
        }
    }

    fn on_event(&mut self, index: usize, event: MeshEvent) {
        let (seed, elapsed) = (self.seed, self.elapsed());
        let player = &mut self.players[index];
        let (own, model) = (player.guid, &mut player.model);
        match &event {
            MeshEvent::JoinAccepted { .. } => assert_eq!(model.members.len(), 1, "seed {seed}: in twice"),
            MeshEvent::MemberJoined { member } => assert!(model.members.insert(*member), "seed {seed}: joined twice"),
            MeshEvent::MemberLeft { member, .. } if *member == own => {
                *model = Model {
                    members: BTreeSet::from([own]),
                    host: own,
                };
            }
            MeshEvent::MemberLeft { member, .. } => assert!(model.members.remove(member), "seed {seed}: left twice"),
            MeshEvent::NewHost { host, old } => {
                assert!(model.members.contains(host), "seed {seed}: a stranger hosts");
                match old {
                    Some(old) => assert!(*old == model.host && host != old, "seed {seed}: told twice"),
                    None => assert_eq!(model.host, own, "seed {seed}: a host before"),
                }
                model.host = *host;
            }
            MeshEvent::JoinCapable { request, joiner, .. } => {
                self.ended(*request);
                if let Some(after) = self.accept {
                    let (at, joiner) = (self.now + after, *joiner);
                    self.push(at, Action::Respond { at: index, joiner });
                }
            }
            MeshEvent::JoinFailed { request, .. } if *request != 0 => self.ended(*request),
            _ => {}
        }
        self.players[index].events.push((elapsed, event));
        self.note(|| format!("{index} event {:?}", self.story(index).last()));
    }

    fn ended(&mut self, request: RequestId) {
        let seed = self.seed;
        let known = self.requests.get_mut(&request);
        known
            .unwrap_or_else(|| panic!("seed {seed}: request {request} was not made"))
            .1 += 1;
    }

    /// What must hold at every moment.
    fn check_always(&self) {
        let mut hosts = BTreeSet::new();
        for player in self.players.iter().filter(|player| player.alive) {
            let view = player.mesh.view();
            let members: BTreeSet<Guid> = view.order.iter().copied().collect();
            let now = self.elapsed();
            assert_eq!(
                members, player.model.members,
                "seed {} at {now:?}: view against events",
                self.seed
            );
            assert_eq!(
                view.host,
                Some(player.model.host),
                "seed {} at {now:?}: host against events",
                self.seed
            );
            let session = &player.mesh.session;
            if session.host() == player.guid {
                assert!(
                    hosts.insert((session.id, session.epoch)),
                    "seed {}: two hosts in one epoch",
                    self.seed
                );
            }
        }
    }

    /// What must hold when nothing has happened for long.
    pub fn check_quiet(&self) {
        let seed = self.seed;
        for (index, player) in self.players.iter().enumerate().filter(|(_, player)| player.alive) {
            let mesh = &player.mesh;
            assert!(mesh.crisis.is_none(), "seed {seed}: {index} is in a crisis");
            assert!(mesh.claims.is_empty(), "seed {seed}: {index} keeps claims");
            assert!(
                mesh.joins.is_empty() && mesh.invitations.is_empty(),
                "seed {seed}: {index} has a join running"
            );
            assert!(
                mesh.dialing.is_empty() && mesh.fellows.is_empty(),
                "seed {seed}: {index} has dials running"
            );
            assert!(mesh.cut_off.is_empty(), "seed {seed}: {index} keeps reports");
            assert!(
                mesh.links.values().all(|link| !link.made),
                "seed {seed}: {index} keeps a connection of a join"
            );
            for other in mesh.session.others(player.guid) {
                let there = self.index(other.guid);
                let peer = &self.players[there];
                assert!(peer.alive, "seed {seed}: {index} counts {there}, who is dead");
                assert!(
                    player.links.contains_key(&there),
                    "seed {seed}: {index} does not reach {there}"
                );
                let (mine, theirs) = (&mesh.session, &peer.mesh.session);
                assert_eq!(
                    (mine.id, mine.epoch),
                    (theirs.id, theirs.epoch),
                    "seed {seed}: {index} and {there} differ"
                );
                assert_eq!(
                    mesh.view().order,
                    peer.mesh.view().order,
                    "seed {seed}: {index} and {there} differ"
                );
            }
        }
        for (request, (_, ends)) in &self.requests {
            assert_eq!(*ends, 1, "seed {seed}: request {request} ended {ends} times");
        }
    }

    /// Indexes of a player's session in host order.
    pub fn order(&self, index: usize) -> Vec<usize> {
        self.players[index]
            .mesh
            .view()
            .order
            .iter()
            .map(|guid| self.index(*guid))
            .collect()
    }

    /// Forgets events so far.
    pub fn clear_events(&mut self) {
        for player in &mut self.players {
            player.events.clear();
        }
    }

    /// A player's events in short: `+2` joined, `-2 LOST` left, `host 1<0`, and join events by name.
    pub fn story(&self, index: usize) -> Vec<String> {
        let name = |guid: &Guid| self.index(*guid).to_string();
        let line = |(_, event): &(Duration, MeshEvent)| match event {
            MeshEvent::JoinStart { host, members, data } => {
                format!("start {} {members} {}", name(host), String::from_utf8_lossy(data))
            }
            MeshEvent::JoinCapable { request, joiner, data } => {
                format!("capable {request} {} {}", name(joiner), String::from_utf8_lossy(data))
            }
            MeshEvent::JoinAccepted { host, members, data } => {
                format!("accepted {} {members} {}", name(host), String::from_utf8_lossy(data))
            }
            MeshEvent::JoinRejected { host, data } => {
                format!("rejected {} {}", name(host), String::from_utf8_lossy(data))
            }
            MeshEvent::JoinFailed {
                request,
                peer,
                member,
                reason,
            } => {
                let member = member.as_ref().map_or("-".to_owned(), name);
                format!("failed {request} {} {member} {}", name(peer), reason.code.name())
            }
            MeshEvent::NewHost { host, old } => {
                format!("host {}<{}", name(host), old.as_ref().map_or("-".to_owned(), name))
            }
            MeshEvent::MemberJoined { member } => format!("+{}", name(member)),
            MeshEvent::MemberLeft { member, reason } => format!("-{} {}", name(member), reason.code.name()),
        };
        self.players[index].events.iter().map(line).collect()
    }
}
