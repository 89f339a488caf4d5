//! How QUIC is tuned, with the reasons. Measurements: messages a second and latency over a simulated bottleneck.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use ring::{hkdf, hmac};

use super::LinkKind;
use super::congestion::DelayBoundedConfig;
use super::connection_id::{ConnectionIdKey, SeededConnectionIds};
use super::half_open::{self, TokenClock};

/// The port of synthetic addresses: they have none, and QUIC wants one.
pub(super) const SYNTHETIC_PORT: u16 = 1;
/// Most segments in one transmit. From 10 to 16 the system call is amortized; with 32 and more, packets were lost.
pub(super) const MAX_SEGMENTS: usize = 16;
/// Round trip assumed when nobody gave a hint: a lost first packet is repeated after three of these (180 ms).
pub(super) const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(60);
/// Bounds of hints: a repeat every 15 ms is as fast as helps, and a hint above a second is more likely wrong than true.
const ROUND_TRIP_HINTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(1);
/// Handshakes that quinn holds undecided: each is decided at once.
const MAX_UNDECIDED: usize = 16;
/// An incoming handshake from a proven address that takes longer is given up: ten repeats of a lost packet fit.
pub(super) const INCOMING_HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Priority of the control stream.
pub(super) const CONTROL_PRIORITY: i32 = i32::MAX;
/// Priority of ordered streams: before batches, so that a channel's order costs it nothing.
pub(super) const ORDERED_PRIORITY: i32 = 1;
/// Batches that are not acknowledged at a time. At one batch a frame and 60 frames a second this covers half a second of round trip;
/// beyond, batches grow.
pub(super) const MAX_BATCHES: usize = 32;

/// Streams a player may open: control, 64 ordered channels, batches and large messages. Each costs the other side memory while idle.
const PEER_STREAMS: u32 = 1 + 64 + 2 * MAX_BATCHES as u32;
/// Streams to and from a server: control and room for growth (17 kB a connection; 100 streams would be 25 kB).
const SERVER_STREAMS: u32 = 4;
/// Reliable data on its way to a game that does not read: bounds memory a link. At 50 ms it carries 80 MB/s.
pub(super) const RELIABLE_WINDOW: u64 = 4 << 20;
/// The share of the connection's window that reliable messages never take, so that control messages pass while a game does not read.
const CONTROL_RESERVE: u32 = 1 << 20;
/// QUIC's window of the connection.
const PEER_RECEIVE_WINDOW: u32 = RELIABLE_WINDOW as u32 + CONTROL_RESERVE;
/// Of one stream: a channel that is not read must not stop the others.
const PEER_STREAM_WINDOW: u32 = 2 << 20;
/// Reliable data that quinn holds until it is acknowledged.
pub(super) const PEER_SEND_WINDOW: u64 = 4 << 20;
/// Control messages are at most 96 kB; one on its way at a time is enough for a server.
const SERVER_WINDOW: u32 = 128 << 10;
/// Received DATAGRAM frames are taken out after every packet, so that quinn's buffer holds one packet's worth; the frame size that
/// it announces follows from it.
const DATAGRAM_RECEIVE_BUFFER: usize = 64 << 10;
/// Frames handed to quinn ahead: one full transmit (16 × 1,452 bytes with 32 of overhead each). What waits here cannot be packed any more.
const DATAGRAM_SEND_BUFFER: usize = 24 << 10;
/// Out-of-order handshake data: a handshake of ours is below 2 kB.
const CRYPTO_BUFFER: usize = 8 << 10;
/// Packets that may arrive before an earlier one is called lost. Lag simulators and Wi-Fi reorder by milliseconds; with QUIC's 3 a
/// megabyte took 3.5 s instead of 0.36.
const PACKET_THRESHOLD: u32 = 32;
/// The same in time, as a factor of the round trip: 62 ms at 50.
const TIME_THRESHOLD: f32 = 1.25;
/// Packets per acknowledgement, asked of the other side. At saturation acknowledgements cost as much as data; at 20 Mbit/s ten packets
/// are 6 ms, which bounds how long a small message waits for the window to open.
const ACKNOWLEDGE_EVERY: u32 = 10;
/// A gap of so many packets is acknowledged at once, so that what fills it late is not taken for lost meanwhile.
const ACKNOWLEDGE_GAP: u32 = 3;
/// Longest delay of an acknowledgement. It stands in every detection of a loss, and where fewer than ten packets fill the path it
/// stands in every round trip; below a frame's time every packet of a game would be acknowledged by one of its own.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(10);
/// After an urgent control message a ping goes out at these times: its acknowledgement shows a loss within a round and a quarter (see
/// [`TIME_THRESHOLD`]). Waiting for QUIC's probe time-out takes about three round trips on a link that says little, twice as long each time;
/// the third covers a loss of the first repeat on round trips up to about 100 ms.
pub(super) const URGENT_PINGS: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(120),
];
/// Largest packet that is looked for: Ethernet, less IPv6 and UDP headers.
const LARGEST_MTU: u16 = 1452;
/// Half of the way from 1200 to 1452, so that a search is two probes.
const MTU_STEP: u16 = 126;

/// A 32-byte secret for one purpose, from the seed.
pub(super) fn derive(seed: &[u8; 32], purpose: &str) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let mut secret = [0; 32];
    secret.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
    secret
}

/// The endpoint's configuration and the key that recognizes its connection ids.
pub(super) fn endpoint(seed: &[u8; 32]) -> (EndpointConfig, ConnectionIdKey) {
    let mut key = [0; 16];
    key.copy_from_slice(&derive(seed, "connection id key")[..16]);
    let key = ConnectionIdKey::new(key);
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &derive(seed, "reset key"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .rng_seed(Some(derive(seed, "endpoint")))
        .grease_quic_bit(false)
        .supported_versions(vec![1])
        .cid_generator(SeededConnectionIds::factory(key, derive(seed, "connection ids")));
    (config, key)
}

/// What incoming connections get.
pub(super) fn server(
    seed: &[u8; 32],
    tls: quinn_proto::crypto::rustls::QuicServerConfig,
    transport: TransportConfig,
    clock: Arc<TokenClock>,
) -> quinn_proto::ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&derive(seed, "token key"));
    let mut config = quinn_proto::ServerConfig::new(Arc::new(tls), Arc::new(token_key));
    let mut no_tokens = quinn_proto::ValidationTokenConfig::default();
    no_tokens.sent(0).log(Arc::new(quinn_proto::NoneTokenLog));
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(no_tokens)
        // Which path carries a link is not QUIC's business.
        .migration(false)
        .max_incoming(MAX_UNDECIDED)
        .retry_token_lifetime(half_open::TOKEN_LIFETIME)
        // Incoming connections are decided at once, so that nothing waits in quinn.
        .incoming_buffer_size(0)
        .incoming_buffer_size_total(0)
        .time_source(clock);
    config
}

/// QUIC's parameters for a link.
pub(super) fn transport(
    kind: LinkKind,
    lost_peer_timeout: Duration,
    keep_alive: Duration,
    round_trip: Option<Duration>,
) -> TransportConfig {
    let mut config = TransportConfig::default();
    let (streams, stream_window, window, send_window) = match kind {
        LinkKind::Peer => (PEER_STREAMS, PEER_STREAM_WINDOW, PEER_RECEIVE_WINDOW, PEER_SEND_WINDOW),
        LinkKind::Server | LinkKind::Proxy => (SERVER_STREAMS, SERVER_WINDOW, SERVER_WINDOW, SERVER_WINDOW.into()),
    };
    let round_trip = round_trip
        .unwrap_or(DEFAULT_ROUND_TRIP)
        .clamp(*ROUND_TRIP_HINTS.start(), *ROUND_TRIP_HINTS.end());
    let mut acknowledge = AckFrequencyConfig::default();
    acknowledge
        .ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGE_EVERY))
        .max_ack_delay(Some(ACKNOWLEDGE_WITHIN))
        .reordering_threshold(VarInt::from_u32(ACKNOWLEDGE_GAP));
    // A server looks for no larger packets: it would cost 6 kB each way for each of thousands of nodes that say little.
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(LARGEST_MTU).minimum_change(MTU_STEP);
    let search = kind == LinkKind::Peer;
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(streams))
        .stream_receive_window(VarInt::from_u32(stream_window))
        .receive_window(VarInt::from_u32(window))
        .send_window(send_window)
        // Streams of one rank take turns; ranks decide the rest. Unfair, a stream that has begun blocks those before it in rank.
        .send_fairness(true)
        .max_idle_timeout(IdleTimeout::try_from(lost_peer_timeout).ok())
        .keep_alive_interval(Some(keep_alive))
        .packet_threshold(PACKET_THRESHOLD)
        .time_threshold(TIME_THRESHOLD)
        .initial_rtt(round_trip)
        .ack_frequency_config(Some(acknowledge))
        .mtu_discovery_config(search.then_some(mtu))
        .crypto_buffer_size(CRYPTO_BUFFER)
        .allow_spin(false)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .congestion_controller_factory(Arc::new(DelayBoundedConfig))
        .enable_segmentation_offload(true);
    config
}
