//! The figures that a game feels, measured in the lab: what tests hold to a bound, benchmarks print.
//!
//! In: a seed and what to vary. Out: times and rates of one run, in virtual time. Nothing here judges.

use std::time::Duration;

use super::scenario::{RouterKind, Scenario};
use super::{OwnedEvent, RecordedEvent};
use crate::codes::{PathKind, SendMode};
use crate::peer::api::Command;
use crate::transport::SendError;

/// Longest direct path after open NAT without loss: a round trip to the server, one between the players, and this for
/// timers and for everybody's own work.
pub const OPENING_SLACK: Duration = Duration::from_millis(20);
/// Time after which everything of a server session's handshake is over.
pub(super) const WARM_AFTER: Duration = Duration::from_secs(2);

/// The bottleneck of [`beside_bulk`] and [`jittered_burst`]: bits a second.
pub const RATE: u64 = 20_000_000;
/// Bytes that may wait at it.
pub const QUEUE: usize = 256_000;
/// One way between the players.
pub const ONE_WAY: Duration = Duration::from_millis(25);
/// Bytes of the burst.
pub const BURST: usize = 64 << 10;

/// One small message a frame, beside bulk.
pub const FRAME: Duration = Duration::from_millis(16);
const BULK_CHANNEL: u8 = 1;
const SMALL_CHANNEL: u8 = 2;
const BULK_MESSAGE: usize = 64 << 10;
/// The link carries 40 kB in a frame: so many messages keep it busy, and a queue without a bound would still grow to no
/// more than 16 MB a second.
const MOST_BULK_A_FRAME: usize = 4;

/// Two players with a warm server session.
fn warm_pair(seed: u64, kinds: [RouterKind; 2], round_trips: [Duration; 2], loss: f64) -> Scenario {
    let [one, other] = kinds;
    let [to_server, between_players] = round_trips;
    let mut scenario = Scenario::builder(seed)
        .node(one)
        .node(other)
        .round_trips(to_server, between_players)
        .loss(loss)
        .build();
    scenario.connect_all();
    scenario.lab.run_for(WARM_AFTER);
    scenario
}

/// Time from open NAT until both players have their direct path, with round trips to the server and between the players,
/// and a loss (0 to 1) each way.
///
/// # Errors
/// What came instead of a direct path.
pub fn opening_time(
    seed: u64,
    kinds: [RouterKind; 2],
    round_trips: [Duration; 2],
    loss: f64,
) -> Result<Duration, String> {
    match warm_pair(seed, kinds, round_trips, loss).open_nat(0, 1) {
        Ok(opened) if opened.path == PathKind::Direct => Ok(opened.took),
        other => Err(format!("{other:?}")),
    }
}

/// Times of connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTimes {
    /// From the command to `SERVER_CONNECTED`.
    pub server: Duration,
    /// From the command to `CONNECTED` at the side that asked, over a path that is open.
    pub peer_opened: Duration,
    /// From the command, without a path, to the first reliable message at the other side.
    pub to_first_message: Duration,
}

/// Measures them, between port-restricted routers.
pub fn connect_times(seed: u64, to_server: Duration, between_players: Duration) -> ConnectTimes {
    let kinds = || [RouterKind::PortRestricted, RouterKind::PortRestricted];
    let round_trips = [to_server, between_players];

    let mut scenario = Scenario::builder(seed)
        .nodes(2, RouterKind::PortRestricted)
        .round_trips(to_server, between_players)
        .build();
    let begin = scenario.lab.elapsed();
    let request = scenario.connect_server(0);
    let connected = scenario.expect(0, "SERVER_CONNECTED", |event| event.ends_request() == Some(request));
    let server = connected.time - begin;

    let mut scenario = warm_pair(seed, kinds(), round_trips, 0.0);
    let opened = scenario.open_nat(0, 1);
    assert!(opened.is_ok(), "lab seed {seed}: {opened:?}");
    let peer_opened = connect(&mut scenario);

    let mut scenario = warm_pair(seed, kinds(), round_trips, 0.0);
    let begin = scenario.lab.elapsed();
    connect(&mut scenario);
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    let sent = scenario.lab.send(sender, peer, 0, SendMode::ReliableOrdered, b"first");
    assert!(sent.is_ok(), "lab seed {seed}: {sent:?}");
    let to_first_message = expect_message(&mut scenario) - begin;
    ConnectTimes {
        server,
        peer_opened,
        to_first_message,
    }
}

/// Player 0 connects to player 1; the time until it knows.
fn connect(scenario: &mut Scenario) -> Duration {
    let begin = scenario.lab.elapsed();
    let (peer, address) = (Some(scenario.guids[1]), None);
    let request = scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    let ended = scenario.expect(0, "CONNECTED", |event| event.ends_request() == Some(request));
    let seed = scenario.lab.seed();
    assert!(
        matches!(ended.event, OwnedEvent::Connected { .. }),
        "lab seed {seed}: {ended:?}"
    );
    ended.time - begin
}

/// When player 1 has its message.
fn expect_message(scenario: &mut Scenario) -> Duration {
    let arrived = scenario.expect(1, "a message", |event| matches!(event, OwnedEvent::Message { .. }));
    arrived.time
}

/// Two connected players with public addresses; the link of the first one upwards is the bottleneck.
pub fn bottleneck(seed: u64) -> Scenario {
    let mut scenario = Scenario::builder(seed)
        .nodes(2, RouterKind::Open)
        .round_trips(2 * ONE_WAY, 2 * ONE_WAY)
        .build();
    let sender = scenario.lab.attachment(scenario.nodes[0], 0);
    scenario.lab.change_link(sender, |link| {
        link.up.rate = Some(RATE);
        link.up.queue = QUEUE;
    });
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.lab.run_for(WARM_AFTER);
    scenario
}

/// What passed beside a bulk transfer.
#[derive(Debug, Clone, PartialEq)]
pub struct BesideBulk {
    /// One-way delays of the small messages that arrived, in the order of sending.
    by_frame: Vec<(u32, Duration)>,
    /// Small messages that were sent.
    pub sent: u32,
    /// Bulk delivered, Mbit/s, its beginning included.
    pub bulk: f64,
}

impl BesideBulk {
    /// How many small messages arrived.
    pub fn arrived(&self) -> usize {
        self.by_frame.len()
    }

    /// The delay that this share (0 to 1) of the messages does not exceed, of those that were sent from this frame on (0: all).
    /// `None` if not one arrived.
    pub fn quantile(&self, quantile: f64, from: u32) -> Option<Duration> {
        let counted = self.by_frame.iter().filter(|(frame, _)| *frame >= from);
        let mut delays: Vec<Duration> = counted.map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        let last = delays.len().checked_sub(1)?;
        delays.get((last as f64 * quantile).round() as usize).copied()
    }
}

/// An unreliable message of 50 bytes each [`FRAME`], for so many frames, beside a reliable bulk transfer, over the
/// [`bottleneck`].
pub fn beside_bulk(seed: u64, frames: u32) -> BesideBulk {
    let mut scenario = bottleneck(seed);
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    let begin = scenario.lab.elapsed();
    let bulk = vec![0; BULK_MESSAGE];
    for frame in 0..frames {
        let mut small = [0; 50];
        small[..4].copy_from_slice(&frame.to_be_bytes());
        let sent = scenario
            .lab
            .send(sender, peer, SMALL_CHANNEL, SendMode::Unreliable, &small);
        assert!(sent.is_ok(), "lab seed {seed}: {sent:?}");
        for _ in 0..MOST_BULK_A_FRAME {
            let sent = scenario.lab.send(sender, peer, BULK_CHANNEL, SendMode::Reliable, &bulk);
            if sent == Err(SendError::Full) {
                break;
            }
            assert!(sent.is_ok(), "lab seed {seed}: {sent:?}");
        }
        scenario.lab.run_for(FRAME);
    }
    let events = scenario.lab.take_events(scenario.nodes[1]);
    let mut by_frame: Vec<_> = events.iter().filter_map(|event| small_delay(event, begin)).collect();
    by_frame.sort_unstable();
    let bulk_bytes: usize = events.iter().map(bulk_length).sum();
    BesideBulk {
        by_frame,
        sent: frames,
        bulk: bulk_bytes as f64 * 8.0 / (frames * FRAME).as_secs_f64() / 1e6,
    }
}

/// The frame number that a small message begins with, and how long it was under way.
fn small_delay(recorded: &RecordedEvent, begin: Duration) -> Option<(u32, Duration)> {
    match &recorded.event {
        OwnedEvent::Message {
            channel: SMALL_CHANNEL,
            data,
            ..
        } => {
            let frame = u32::from_be_bytes(data.first_chunk().copied()?);
            Some((frame, recorded.time - (begin + frame * FRAME)))
        }
        _ => None,
    }
}

fn bulk_length(recorded: &RecordedEvent) -> usize {
    match &recorded.event {
        OwnedEvent::Message {
            channel: BULK_CHANNEL,
            data,
            ..
        } => data.len(),
        _ => 0,
    }
}

/// Time until a reliable message of [`BURST`] bytes is delivered over the [`bottleneck`], with so much jitter (one way,
/// all links together) that it reorders.
pub fn jittered_burst(seed: u64, jitter: Duration) -> Duration {
    let mut scenario = bottleneck(seed);
    for player in 0..2 {
        let attachment = scenario.lab.attachment(scenario.nodes[player], 0);
        scenario.lab.change_link(attachment, |link| {
            *link = link.with(|direction| {
                direction.jitter = jitter / 2;
                direction.keeps_order = false;
            });
        });
    }
    let begin = scenario.lab.elapsed();
    let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
    let sent = scenario
        .lab
        .send(sender, peer, 0, SendMode::ReliableOrdered, &vec![0; BURST]);
    assert!(sent.is_ok(), "lab seed {seed}: {sent:?}");
    expect_message(&mut scenario) - begin
}
