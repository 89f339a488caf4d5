//! Two players who talk without a pause, and what must hold whatever happens to the way between them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::players::{FLOW, Player, Transcript};

/// The pace of a game: 60 times in a second.
const TICK: Duration = Duration::from_millis(16);
/// A way is looked for in the background at growing intervals.
pub const BACKGROUND_PATIENCE: Duration = Duration::from_secs(60);
/// Larger than a datagram, a stream's window at the start, and a relay's batch.
const LARGE: usize = 65_536;
const MODES: [&str; 4] = ["unreliable", "unreliable_sequenced", "reliable", "reliable_ordered"];
/// Numbered messages of each mode have a channel of their own.
const ORDERED_CHANNEL: u32 = 1;
const RELIABLE_CHANNEL: u32 = 2;
const UNRELIABLE_CHANNEL: u32 = 3;

/// What one of the two has heard of the other's numbered messages.
#[derive(Default)]
struct Heard {
    ordered: usize,
    reliable: HashSet<usize>,
    unreliable: HashSet<usize>,
    unreliable_twice: usize,
}

/// Two players and their conversation.
pub struct Pair {
    pub test: &'static str,
    pub transcript: Transcript,
    pub players: [Player; 2],
    said: usize,
    heard: [Heard; 2],
}

impl Pair {
    pub fn new(test: &'static str, transcript: &Transcript, players: [Player; 2]) -> Self {
        Pair {
            test,
            transcript: transcript.clone(),
            players,
            said: 0,
            heard: [Heard::default(), Heard::default()],
        }
    }

    pub fn guid(&self, player: usize) -> String {
        self.players[player].guid.clone()
    }

    pub fn fail(&self, what: &str) -> ! {
        self.transcript.fail(self.test, what)
    }

    /// The first calls the second; what both hear.
    pub fn connect(&mut self) -> [Value; 2] {
        let [one, other] = [self.guid(0), self.guid(1)];
        self.players[0].command(&format!("connect_peer peer={other}"));
        let connected = self.players[0].any_event(&["CONNECTED", "CONNECTION_FAILED"], &other);
        if connected["event"] != "CONNECTED" {
            self.fail(&format!("connect_peer: {connected}"));
        }
        let passive = self.players[1].event("CONNECTED", Some(&one));
        [connected, passive]
    }

    /// The first calls the second; both must be connected over that kind of path.
    pub fn connect_by(&mut self, path: &str) -> [Value; 2] {
        let events = self.connect();
        for event in &events {
            if event["path"] != path {
                self.fail(&format!("a {path} path was expected: {event}"));
            }
        }
        events
    }

    /// Each mode both ways, and a large message.
    pub fn all_modes(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let [from_guid, to_guid] = [self.guid(from), self.guid(to)];
            for mode in MODES {
                self.players[from].command(&format!("send peer={to_guid} mode={mode} text={mode}"));
                self.players[to].message(&from_guid, mode);
            }
        }
        self.large();
    }

    /// A large message both ways, of each mode that cannot lose it.
    pub fn large(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let [from_guid, to_guid] = [self.guid(from), self.guid(to)];
            for mode in ["reliable", "reliable_ordered"] {
                self.players[from].command(&format!("send peer={to_guid} mode={mode} bytes={LARGE}"));
                self.players[to].message_of(&from_guid, mode, LARGE);
            }
        }
    }

    /// One frame of the game: each says three numbered things, and what has come is checked.
    pub fn tick(&mut self) {
        let number = self.said;
        self.said += 1;
        for (from, to) in [(0, 1), (1, 0)] {
            let peer = self.guid(to);
            for (channel, mode) in [
                (ORDERED_CHANNEL, "reliable_ordered"),
                (RELIABLE_CHANNEL, "reliable"),
                (UNRELIABLE_CHANNEL, "unreliable"),
            ] {
                self.players[from].command(&format!(
                    "send peer={peer} channel={channel} mode={mode} text={FLOW}{number}"
                ));
            }
        }
        self.listen();
        std::thread::sleep(TICK);
    }

    pub fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick();
        }
    }

    /// Talks until it is so.
    pub fn talk_until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + BACKGROUND_PATIENCE;
        while !so(self) {
            if Instant::now() > deadline {
                self.fail(&format!("talked in vain until {what}"));
            }
            self.tick();
        }
    }

    /// Talks until both say that their connection takes such a path now.
    pub fn talk_until_path(&mut self, path: &str) {
        self.talk_until(&format!("the path is {path}"), |pair| {
            (0..2).all(|player| pair.stats(player)["path"] == path)
        });
    }

    pub fn stats(&mut self, player: usize) -> Value {
        let peer = self.guid(1 - player);
        self.players[player].command(&format!("stats peer={peer}"))
    }

    /// Everything that was said is heard: nothing reliable was lost, nothing came twice, what is ordered came in order, and nobody lost
    /// anybody.
    pub fn catch_up(&mut self) {
        let deadline = Instant::now() + BACKGROUND_PATIENCE;
        loop {
            self.listen();
            let said = self.said;
            let complete = |heard: &Heard| heard.ordered == said && heard.reliable.len() == said;
            if self.heard.iter().all(complete) {
                break;
            }
            if Instant::now() > deadline {
                self.fail(&format!("not all of {said} messages have come: {}", self.account()));
            }
            for player in &mut self.players {
                player.command("sleep ms=20");
            }
        }
        for player in 0..2 {
            let peer = self.guid(1 - player);
            let lost = |line: &Value| line["event"] == "DISCONNECTED" && line["peer"] == peer;
            if let Some(event) = self.players[player].drain(lost).first() {
                self.fail(&format!("{} lost its connection: {event}", self.players[player].name()));
            }
        }
        self.transcript.add(self.test, &self.account());
    }

    /// The `PATH_CHANGED` events of a player that nobody asked for yet.
    pub fn changes(&mut self, player: usize) -> Vec<Value> {
        self.players[player].drain(|line| line["event"] == "PATH_CHANGED")
    }

    fn account(&self) -> String {
        let account = |heard: &Heard| {
            format!(
                "{} in order, {} reliable, {} unreliable and {} of them twice",
                heard.ordered,
                heard.reliable.len(),
                heard.unreliable.len(),
                heard.unreliable_twice
            )
        };
        let heard = self.heard.each_ref().map(account);
        format!("of {} each: {}; {}", self.said, heard[0], heard[1])
    }

    fn listen(&mut self) {
        for player in 0..2 {
            let messages = self.players[player].drain(is_numbered);
            for message in &messages {
                if let Some(wrong) = self.heard[player].take(message) {
                    self.fail(&format!("{}: {wrong}: {message}", self.players[player].name()));
                }
            }
        }
    }
}

fn number(message: &Value) -> Option<usize> {
    message["text"].as_str()?.strip_prefix(FLOW)?.parse().ok()
}

fn is_numbered(line: &Value) -> bool {
    line["event"] == "MESSAGE" && number(line).is_some()
}

impl Heard {
    /// Notes a message; what is wrong with it, if anything.
    fn take(&mut self, message: &Value) -> Option<&'static str> {
        let number = number(message)?;
        if message["channel"] == ORDERED_CHANNEL {
            self.ordered += 1;
            (number + 1 != self.ordered).then_some("not the next one in order")
        } else if message["channel"] == RELIABLE_CHANNEL {
            (!self.reliable.insert(number)).then_some("a reliable message came twice")
        } else {
            self.unreliable_twice += usize::from(!self.unreliable.insert(number));
            None
        }
    }
}
