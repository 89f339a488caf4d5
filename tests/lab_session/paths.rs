//! Paths that come, go and change under a running game: what was sent reliably arrives once and in order, little of the rest is lost, and the game
//! hears of nothing but PATH_CHANGED.

use std::collections::BTreeSet;
use std::time::Duration;

use lanline::codes::{PathKind, SendMode};
use lanline::lab::scenario::{RouterKind, Scenario, ScenarioBuilder};
use lanline::lab::{Allocation, OwnedEvent, Party, RecordedEvent};
use lanline::peer::Node;
use lanline::transport::SendError;
use lanline::wire::control::RelayPolicy;

use super::{ms, pair};

const SYMMETRIC: RouterKind = RouterKind::Symmetric(Allocation::Random);
/// A game's frame.
const FRAME: Duration = Duration::from_millis(16);
const RELIABLE: u8 = 1;
const UNRELIABLE: u8 = 2;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What one player got of the other.
#[derive(Debug, Default)]
struct Got {
    reliable: u32,
    unreliable: BTreeSet<u32>,
    /// When messages came.
    times: Vec<Duration>,
    others: Vec<RecordedEvent>,
}

/// Two players who send each other a reliable and an unreliable message in each frame.
struct Game {
    scenario: Scenario,
    sent: u32,
    /// Reliable messages that each player's queue took.
    reliable: [u32; 2],
    /// Bytes of a message.
    size: usize,
    got: [Got; 2],
}

impl Game {
    /// Both are connected to the server and to each other, and have had time for a direct path.
    fn begin(builder: ScenarioBuilder) -> Self {
        let mut scenario = builder.build();
        scenario.connect_all();
        scenario.connect_pair(0, 1);
        scenario.lab.run_for(seconds(12));
        for node in scenario.nodes.clone() {
            scenario.lab.take_events(node);
        }
        let got = [Got::default(), Got::default()];
        Self {
            scenario,
            sent: 0,
            reliable: [0; 2],
            size: 40,
            got,
        }
    }

    fn seed(&self) -> u64 {
        self.scenario.lab.seed()
    }

    fn now(&self) -> Duration {
        self.scenario.lab.elapsed()
    }

    fn frame(&mut self) {
        for player in 0..2 {
            let (node, peer) = (self.scenario.nodes[player], self.scenario.guids[1 - player]);
            let mut data = vec![0; self.size];
            data[..4].copy_from_slice(&self.sent.to_be_bytes());
            let lab = &mut self.scenario.lab;
            let _ = lab.send(node, peer, UNRELIABLE, SendMode::Unreliable, &data);
            data[..4].copy_from_slice(&self.reliable[player].to_be_bytes());
            match lab.send(node, peer, RELIABLE, SendMode::ReliableOrdered, &data) {
                Ok(_) => self.reliable[player] += 1,
                // During an outage the queue fills.
                Err(SendError::Full) => {}
                Err(other) => panic!("lab seed {}: {other:?}", lab.seed()),
            }
        }
        self.sent += 1;
        self.scenario.lab.run_for(FRAME);
        self.collect();
    }

    fn collect(&mut self) {
        let seed = self.seed();
        for player in 0..2 {
            let got = &mut self.got[player];
            for recorded in self.scenario.lab.take_events(self.scenario.nodes[player]) {
                let OwnedEvent::Message { channel, data, .. } = &recorded.event else {
                    got.others.push(recorded);
                    continue;
                };
                let number = u32::from_be_bytes(data[..4].try_into().unwrap());
                got.times.push(recorded.time);
                if *channel == RELIABLE {
                    assert_eq!(number, got.reliable, "order at player {player}, lab seed {seed}");
                    got.reliable += 1;
                } else {
                    assert!(got.unreliable.insert(number), "{number} came twice, lab seed {seed}");
                }
            }
        }
    }

    fn play(&mut self, duration: Duration) {
        let end = self.now() + duration;
        while self.now() < end {
            self.frame();
        }
    }

    /// Nothing is sent for that long.
    fn idle(&mut self, duration: Duration) {
        self.scenario.lab.run_for(duration);
        self.collect();
    }

    /// What was sent has arrived by now, and nothing was said but PATH_CHANGED. At most so many unreliable messages were lost each way.
    fn end(&mut self, most_lost: usize) {
        self.idle(seconds(2));
        let seed = self.seed();
        for player in 0..2 {
            let got = &self.got[player];
            assert_eq!(
                got.reliable,
                self.reliable[1 - player],
                "reliable at player {player}, lab seed {seed}"
            );
            let lost = self.sent as usize - got.unreliable.len();
            assert!(
                lost <= most_lost,
                "{lost} unreliable lost at player {player}, lab seed {seed}"
            );
            let bad = got.others.iter().find(|recorded| {
                matches!(
                    recorded.event,
                    OwnedEvent::Disconnected { .. }
                        | OwnedEvent::Connected { .. }
                        | OwnedEvent::NatFailed { .. }
                        | OwnedEvent::NatSucceeded { .. }
                        | OwnedEvent::Relay(_)
                )
            });
            assert!(bad.is_none(), "player {player}, lab seed {seed}: {bad:?}");
        }
    }

    /// The changes of paths that a player heard of.
    fn changes(&self, player: usize) -> Vec<PathKind> {
        let kind = |recorded: &RecordedEvent| match recorded.event {
            OwnedEvent::PathChanged { to, .. } => Some(to),
            _ => None,
        };
        self.got[player].others.iter().filter_map(kind).collect()
    }

    /// The path that each player's only connection takes now.
    fn paths(&mut self) -> [PathKind; 2] {
        [0, 1].map(|player| self.view(player).0)
    }

    /// The path of a player's only connection, and the largest packet on it.
    fn view(&mut self, player: usize) -> (PathKind, u16) {
        let node = self.scenario.nodes[player];
        self.scenario.lab.with_engine(node, |engine: &mut Node, now| {
            engine.expire_view();
            let view = engine.take_view(now).unwrap();
            (view.peers[0].path, view.peers[0].stats.mtu)
        })
    }

    fn players(&self) -> [Party; 2] {
        [0, 1].map(|player| Party::Host(self.scenario.nodes[player]))
    }

    fn cut(&mut self) {
        let [one, other] = self.players();
        self.scenario.lab.partition(one, other);
    }

    /// The longest time without a message at a player since then, and when it ended.
    fn longest_gap(&self, player: usize, since: Duration) -> Duration {
        let times = self.got[player].times.iter().filter(|time| **time >= since);
        let mut before = since;
        let mut longest = Duration::ZERO;
        for time in times.copied().chain([self.now()]) {
            longest = longest.max(time - before);
            before = time;
        }
        longest
    }

    fn crash_server(&mut self) {
        self.scenario.lab.crash(self.scenario.server);
    }

    fn restart_server(&mut self) {
        self.scenario.lab.restart(self.scenario.server);
    }
}

fn easy(seed: u64) -> ScenarioBuilder {
    pair(seed, RouterKind::PortRestricted, RouterKind::PortRestricted)
}

#[test]
fn an_upgrade_to_a_direct_path_loses_nothing() {
    for seed in 0..10 {
        let mut scenario = easy(seed).round_trips(ms(80), ms(40)).build();
        scenario.connect_all();
        scenario.connect_pair(0, 1);
        let mut game = Game {
            scenario,
            sent: 0,
            reliable: [0; 2],
            size: 40,
            got: Default::default(),
        };
        game.play(seconds(5));
        assert_eq!(game.paths(), [PathKind::Direct; 2], "lab seed {seed}");
        game.got.iter_mut().for_each(|got| {
            got.others
                .retain(|recorded| matches!(recorded.event, OwnedEvent::Disconnected { .. }));
        });
        game.end(2);
    }
}

#[test]
fn when_the_direct_path_dies_the_game_goes_on_over_the_relay_within_a_second_and_a_half() {
    let mut slowest = Duration::ZERO;
    for round_trip in [20, 60, 120, 200] {
        for seed in 0..5 {
            let mut game = Game::begin(easy(seed).round_trips(ms(round_trip), ms(round_trip)));
            assert_eq!(game.paths(), [PathKind::Direct; 2]);
            game.play(seconds(1));
            game.cut();
            let cut = game.now();
            game.play(seconds(5));
            for player in 0..2 {
                let gap = game.longest_gap(player, cut);
                slowest = slowest.max(gap);
                assert!(gap <= ms(1_500), "{gap:?} at R = {round_trip} ms, lab seed {seed}");
            }
            assert_eq!(game.paths(), [PathKind::Proxied; 2], "lab seed {seed}");
            game.scenario.lab.heal();
            game.play(seconds(40));
            assert_eq!(game.paths(), [PathKind::Direct; 2], "lab seed {seed}");
            // Those of the gap, and a few.
            game.end(1_500 / 16 + 10);
            assert_eq!(
                game.changes(0),
                [PathKind::Proxied, PathKind::Direct],
                "lab seed {seed}"
            );
        }
    }
    println!("longest time without a message: {slowest:?}");
}

#[test]
fn a_path_that_dies_in_one_direction_is_left_by_both() {
    for round_trip in [20, 200] {
        for seed in 0..5 {
            let mut game = Game::begin(easy(seed).round_trips(ms(round_trip), ms(round_trip)));
            game.play(seconds(1));
            let [one, other] = game.players();
            game.scenario.lab.partition_one_way(one, other);
            let cut = game.now();
            game.play(seconds(6));
            for player in 0..2 {
                let gap = game.longest_gap(player, cut);
                assert!(
                    gap <= ms(1_500),
                    "{gap:?} at player {player}, R = {round_trip} ms, lab seed {seed}"
                );
            }
            assert_eq!(game.paths(), [PathKind::Proxied; 2], "lab seed {seed}");
            game.end(1_500 / 16 + 10);
        }
    }
}

#[test]
fn an_idle_connection_finds_the_relay_before_it_is_lost() {
    for seed in 0..5 {
        let mut game = Game::begin(easy(seed));
        // The session at the relay is forgotten there by then.
        game.idle(seconds(100));
        game.cut();
        game.idle(seconds(15));
        let since = game.now();
        game.play(seconds(1));
        assert!(game.longest_gap(0, since) <= ms(200), "lab seed {seed}");
        game.end(2);
    }
}

#[test]
fn a_player_that_only_listens_takes_part_when_the_path_dies() {
    for seed in 0..5 {
        let mut game = Game::begin(easy(seed));
        game.idle(seconds(30));
        game.cut();
        let cut = game.now();
        let (node, peer) = (game.scenario.nodes[0], game.scenario.guids[1]);
        let mut first = None;
        for _ in 0..150 {
            let _ = game.scenario.lab.send(node, peer, 5, SendMode::Unreliable, b"position");
            game.scenario.lab.run_for(FRAME);
            let events = game.scenario.lab.take_events(game.scenario.nodes[1]);
            let message = events
                .iter()
                .find(|recorded| matches!(recorded.event, OwnedEvent::Message { .. }));
            first = first.or(message.map(|recorded| recorded.time));
        }
        let took = first.unwrap() - cut;
        assert!(took <= ms(1_500), "{took:?}, lab seed {seed}");
    }
}

#[test]
fn a_path_that_comes_and_goes_is_left_alone_longer_each_time() {
    for seed in 0..3 {
        let mut game = Game::begin(easy(seed));
        for _ in 0..18 {
            game.cut();
            game.play(seconds(1));
            game.scenario.lab.heal();
            game.play(seconds(4));
        }
        let changes = game.changes(0).len().max(game.changes(1).len());
        assert!(changes <= 10, "{changes} changes in 90 s, lab seed {seed}");
        game.scenario.lab.heal();
        game.play(seconds(120));
        assert_eq!(game.paths(), [PathKind::Direct; 2], "lab seed {seed}");
        game.end(18 * 1_000 / 16);
    }
}

#[test]
fn a_relayed_pair_survives_the_restart_of_its_relay() {
    let mut slowest = Duration::ZERO;
    for (down, size) in [(ms(300), 40), (seconds(3), 40)] {
        for seed in 0..4 {
            let mut game = Game::begin(pair(seed, SYMMETRIC, SYMMETRIC));
            assert_eq!(game.paths(), [PathKind::Proxied; 2], "lab seed {seed}");
            game.size = size;
            game.play(seconds(1));
            game.crash_server();
            game.play(down);
            game.restart_server();
            let back = game.now();
            game.play(seconds(8));
            for player in 0..2 {
                let gap = game.longest_gap(player, back);
                slowest = slowest.max(gap);
                assert!(
                    gap <= ms(900),
                    "{gap:?} at player {player}, down {down:?}, lab seed {seed}"
                );
                let reconnected =
                    |recorded: &RecordedEvent| matches!(recorded.event, OwnedEvent::ServerReconnected { .. });
                let at = game.got[player].others.iter().find(|recorded| reconnected(recorded));
                let at = at.map(|recorded| recorded.time - back);
                assert!(
                    at.is_some_and(|at| at <= ms(2_000)),
                    "{at:?}, down {down:?}, lab seed {seed}"
                );
            }
            assert_eq!(game.paths(), [PathKind::Proxied; 2], "lab seed {seed}");
            game.end(down.as_millis() as usize / 16 + 900 / 16);
        }
    }
    println!("longest time without a message after the restart: {slowest:?}");
}

#[test]
fn a_relayed_pair_outlives_an_outage_shorter_than_its_patience() {
    for seed in 0..3 {
        let patient = pair(seed, SYMMETRIC, SYMMETRIC)
            .configure_nodes(|_, config| config.lost_peer_timeout = Duration::from_secs(60));
        let mut game = Game::begin(patient);
        game.play(seconds(1));
        game.crash_server();
        game.play(seconds(30));
        game.restart_server();
        let back = game.now();
        game.play(seconds(8));
        for player in 0..2 {
            let gap = game.longest_gap(player, back);
            assert!(gap <= ms(1_200), "{gap:?}, lab seed {seed}");
        }
        game.end(31_500 / 16);
    }
}

#[test]
fn without_relay_and_direct_path_a_player_is_lost_in_its_time() {
    let mut game = Game::begin(easy(1));
    game.cut();
    game.crash_server();
    let begin = game.now();
    let lost = game.scenario.expect(0, "DISCONNECTED", |event| {
        matches!(event, OwnedEvent::Disconnected { .. })
    });
    assert!(lost.time - begin <= ms(10_500), "{:?}", lost.time - begin);
}

#[test]
fn the_direct_path_does_not_notice_that_the_server_restarts() {
    let mut game = Game::begin(easy(2));
    game.play(seconds(1));
    game.crash_server();
    let since = game.now();
    game.play(seconds(2));
    game.restart_server();
    game.play(seconds(10));
    assert!(game.longest_gap(0, since) <= ms(100));
    assert_eq!(game.changes(0), []);
    game.end(0);
}

#[test]
fn a_relayed_player_whose_router_forgets_or_who_moves_is_followed() {
    for seed in 0..4 {
        let mut game = Game::begin(pair(seed, SYMMETRIC, SYMMETRIC));
        game.play(seconds(1));
        let router = game.scenario.routers[0].unwrap();
        game.scenario.lab.reboot_router(router);
        let since = game.now();
        game.play(seconds(5));
        let gap = game.longest_gap(0, since).max(game.longest_gap(1, since));
        assert!(gap <= ms(300), "reboot: {gap:?}, lab seed {seed}");
        game.scenario.move_node(1, &SYMMETRIC);
        let since = game.now();
        game.play(seconds(8));
        let gap = game.longest_gap(0, since).max(game.longest_gap(1, since));
        assert!(gap <= ms(1_500), "move: {gap:?}, lab seed {seed}");
        game.end(1_800 / 16);
    }
}

#[test]
fn tickets_are_renewed_before_they_are_void() {
    let mut game = Game::begin(pair(3, SYMMETRIC, SYMMETRIC));
    for _ in 0..30 {
        game.idle(seconds(300));
        let since = game.now();
        game.play(ms(500));
        assert!(game.longest_gap(0, since) <= ms(150), "after {:?}", game.now());
    }
    assert_eq!(game.paths(), [PathKind::Proxied; 2]);
    assert_eq!(game.changes(0), []);
    game.end(0);
}

#[test]
fn packets_on_a_relayed_path_leave_room_for_its_frames() {
    for (link, expected) in [(1_500, 1_300..=1_444), (1_320, 1_200..=1_264)] {
        let links = move |builder: ScenarioBuilder| match link {
            1_500 => builder,
            _ => builder.links(|link| {
                *link = link.with(|direction| direction.mtu = 1_320);
            }),
        };
        let mut game = Game::begin(links(pair(1, SYMMETRIC, SYMMETRIC)));
        game.size = 1_100;
        game.play(seconds(5));
        for player in 0..2 {
            let (path, mtu) = game.view(player);
            assert_eq!(path, PathKind::Proxied);
            assert!(expected.contains(&mtu), "{mtu} at links of {link}");
        }
        let (node, peer) = (game.scenario.nodes[0], game.scenario.guids[1]);
        let large = vec![9; 100_000];
        let _ = game.scenario.lab.send(node, peer, 7, SendMode::ReliableOrdered, &large);
        let came = |event: &OwnedEvent| matches!(event, OwnedEvent::Message { data, .. } if data.len() == 100_000);
        game.scenario.expect(1, "100 kB", came);
        game.end(0);
        // The same pair on a direct path has the full size.
        let mut direct = Game::begin(easy(1));
        direct.play(seconds(3));
        assert!(direct.view(0).1 > 1_444);
        direct.cut();
        direct.play(seconds(5));
        let (path, mtu) = direct.view(0);
        assert_eq!(path, PathKind::Proxied);
        assert!((1_200..=1_444).contains(&mtu), "{mtu} after the fall back");
    }
}

#[test]
fn without_relays_a_dead_path_is_a_dead_path() {
    let never = |_: usize, config: &mut lanline::peer::api::NodeConfig| config.relay_policy = RelayPolicy::Never;
    let mut game = Game::begin(easy(4).configure_nodes(never));
    game.play(seconds(1));
    game.cut();
    game.play(seconds(5));
    assert_eq!(game.changes(0), []);
    game.scenario.lab.heal();
    game.play(seconds(5));
    game.end(9_000 / 16);
}
