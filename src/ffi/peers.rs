//! Server, paths, connections, messages, figures.

use std::ffi::{c_char, c_void};
use std::mem::size_of;

use super::node::struct_size;
use super::panic::guard;
use super::{Guid, NodeId, RequestId, check};
use crate::codes::{CHANNEL_COUNT, Code, MAX_DISCONNECT_TEXT, MAX_RELIABLE_MESSAGE, MAX_UNRELIABLE_MESSAGE, SendMode};
use crate::peer::api::Command;
use crate::shell;
use crate::shell::failure::Failure;
use crate::shell::node::Node;
use crate::shell::options;
use crate::shell::record::AddressRecord;
use crate::transport::identity::PublicKey;

/// Longest "HOST:PORT": a DNS name has at most 253 bytes.
const MAX_SERVER_ADDRESS: usize = 253 + 6;

/// LANLINE_ALL_PEERS of the header. Not 0, so that a guid that was never set is an error and not a broadcast.
const ALL_PEERS: u64 = u64::MAX;

/// Figures of a connection. Prepare it with lanline_peer_stats_init before the call.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerStatsRecord {
    /// Bytes of this struct; set by lanline_peer_stats_init.
    pub struct_size: u32,
    /// LANLINE_PATH_…
    pub path: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Where packets go.
    pub address: AddressRecord,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u64,
    /// Smallest round-trip time on this path in microseconds.
    pub min_rtt_us: u64,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Bytes in UDP datagrams sent.
    pub bytes_sent: u64,
    /// Bytes in UDP datagrams received.
    pub bytes_received: u64,
    /// Packets that were lost on the way to the player.
    pub packets_lost: u64,
    /// Messages of the game sent.
    pub messages_sent: u64,
    /// Messages of the game received.
    pub messages_received: u64,
    /// Bytes that wait to be sent.
    pub bytes_queued: u64,
    /// Bytes that may be under way unacknowledged.
    pub congestion_window: u64,
    /// Largest UDP payload that the path carries, in bytes.
    pub mtu: u32,
    /// Zero.
    pub reserved1: u32,
}

/// Figures of a node. Prepare it with lanline_node_stats_init before the call.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeStatsRecord {
    /// Bytes of this struct; set by lanline_node_stats_init.
    pub struct_size: u32,
    /// Connected players.
    pub peers: u32,
    /// 1: there is a session with a server.
    pub server_connected: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// The node's address as the server sees it.
    pub observed: AddressRecord,
    /// Datagrams that were nothing for this node.
    pub datagrams_dropped: u64,
    /// Unreliable messages that were dropped because the game did not poll in time.
    pub unreliable_dropped: u64,
    /// Events that wait for lanline_poll.
    pub events_pending: u64,
}

const _: () = {
    assert!(size_of::<PeerStatsRecord>() == 128);
    assert!(size_of::<NodeStatsRecord>() == 64);
};

/// Opens a session with a server, which is kept up until lanline_server_disconnect: lost, it is re-opened
/// by itself. A node has one. For the server that it has a session with, this call ends with the present one's success (or, if another
/// key is wanted, with LANLINE_WRONG_KEY, and the session stays). Another server takes the place of the present one, which is left at once:
/// LANLINE_EVENT_SERVER_DISCONNECTED with request 0.
///
/// @param node the node
/// @param address "HOST", "HOST:PORT", "1.2.3.4:PORT", "[2001:db8::1]:PORT"; the port is 61111 if left out
/// @param address_len bytes at address
/// @param key32 the 32 bytes of the server's public key, which it must prove; NULL: any, and reported as unverified
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_SERVER_CONNECTED or LANLINE_EVENT_SERVER_FAILED; later SERVER_LOST, SERVER_RECONNECTED;
/// SERVER_DISCONNECTED for a session that another server takes the place of.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_server_connect(
    node: NodeId,
    address: *const c_char,
    address_len: u32,
    key32: *const u8,
    request: *mut RequestId,
) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointers.
        let (address, key) = unsafe {
            let key = if key32.is_null() {
                None
            } else {
                Some(PublicKey(key32.cast::<[u8; 32]>().read()))
            };
            (check::text(address, address_len, MAX_SERVER_ADDRESS, "address")?, key)
        };
        let (host, port) = options::host_and_port(address)?;
        // SAFETY: as above.
        unsafe {
            ask(
                node,
                request,
                |_| Ok(()),
                |request| Command::ConnectServer {
                    request,
                    host,
                    port,
                    key,
                },
            )
        }
    })
}

/// Closes the session with the server; connections to players stay.
///
/// @param node the node
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_SERVER_DISCONNECTED.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_server_disconnect(node: NodeId, request: *mut RequestId) -> i32 {
    // SAFETY: the caller vouches for the pointer.
    guard(|| unsafe {
        ask(
            node,
            request,
            |_| Ok(()),
            |request| Command::DisconnectServer { request },
        )
    })
}

/// Opens a way to a player at the same server, without connecting: both routers are made to let packets
/// through. Any number may run at once.
///
/// @param node the node
/// @param peer the player's guid
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_NAT_PUNCHTHROUGH_SUCCEEDED, …_FAILED (code LANLINE_SERVER_LOST without a server),
/// LANLINE_EVENT_NAT_TARGET_NOT_CONNECTED, …_UNRESPONSIVE, LANLINE_EVENT_NAT_CONNECTION_TO_TARGET_LOST,
/// LANLINE_EVENT_NAT_ALREADY_IN_PROGRESS; the outcome comes at the other player as well, with request 0.
/// A way that lanline_peer_connect opens by itself raises none of these here, only at the other player.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_open_nat(node: NodeId, peer: Guid, request: *mut RequestId) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        // SAFETY: the caller vouches for the pointer.
        unsafe {
            ask(
                node,
                request,
                |node| node.not_self(peer),
                |request| Command::OpenNat { request, peer },
            )
        }
    })
}

/// Connects to a player: by guid (a way is opened first if there is none), by address (whoever answers), or
/// by both (the address must answer with that guid's key).
///
/// @param node the node
/// @param peer the player's guid; 0 if only the address is known
/// @param address the player's address; NULL if only the guid is known
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_CONNECTED at both ends (request 0 at the other), or LANLINE_EVENT_CONNECTION_FAILED.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_peer_connect(
    node: NodeId,
    peer: Guid,
    address: *const AddressRecord,
    request: *mut RequestId,
) -> i32 {
    guard(|| {
        let peer = if peer == 0 {
            None
        } else {
            Some(check::guid(peer, "peer")?)
        };
        // SAFETY: the caller vouches for the pointers.
        let address = if address.is_null() {
            None
        } else {
            Some(unsafe { check::input(address, "address") }?)
        };
        if peer.is_none() && address.is_none() {
            return Err(Failure::argument(
                "`peer` is 0 and `address` is NULL; at least one must be given",
            ));
        }
        let address = match address {
            Some(record) => Some(options::reachable(record)?),
            None => None,
        };
        // SAFETY: as above.
        unsafe {
            let check = |node: &Node| peer.map_or(Ok(()), |peer| node.not_self(peer));
            ask(node, request, check, |request| Command::ConnectPeer {
                request,
                peer,
                address,
            })
        }
    })
}

/// Closes the connection to a player. Messages sent before are handed over as far as the connection takes them
/// at once.
///
/// @param node the node
/// @param peer the player's guid
/// @param user_code a number of the game's own; the other side finds it in `count`
/// @param text why, for the other side; UTF-8, at most 256 bytes; may be NULL if text_len is 0
/// @param text_len bytes at text
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_CONNECTED, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_DISCONNECTED at both ends.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_peer_disconnect(
    node: NodeId,
    peer: Guid,
    user_code: u32,
    text: *const c_char,
    text_len: u32,
) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        // SAFETY: the caller vouches for the pointer.
        let text = unsafe { check::text(text, text_len, MAX_DISCONNECT_TEXT, "text") }?.to_owned();
        shell::with_node(node, |node| {
            node.connected(peer)?;
            node.command(Command::Disconnect { peer, user_code, text })
        })?;
        Ok(0)
    })
}

/// Sends a message to a connected player, or to all of them. The data is copied; messages of a moment travel
/// together, so many small sends are fine. Reliable messages to all are taken for all or for nobody; unreliable
/// ones are skipped for players whose queue is full.
///
/// @param node the node
/// @param peer the player's guid, or LANLINE_ALL_PEERS
/// @param channel 0 to 63; order and sequence are kept within a channel
/// @param mode LANLINE_SEND_…
/// @param data the message; may be NULL if len is 0
/// @param len bytes at data: at most 1 MiB (1048576) reliable, 64 KiB (65536) unreliable
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_TOO_LARGE; LANLINE_NOT_CONNECTED;
///         LANLINE_QUEUE_FULL (the network is slower than the game: try again after the next poll)
///
/// Events: LANLINE_EVENT_MESSAGE at the receiver.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_send(
    node: NodeId,
    peer: Guid,
    channel: u8,
    mode: u8,
    data: *const c_void,
    len: u32,
) -> i32 {
    guard(|| {
        if channel >= CHANNEL_COUNT {
            return Err(Failure::argument(format!(
                "`channel` is {channel}; 0 to 63 are allowed"
            )));
        }
        let Some(mode) = SendMode::from_number(mode) else {
            return Err(Failure::argument(format!(
                "`mode` is {mode}; 0 to 3 (LANLINE_SEND_…) are known"
            )));
        };
        let limit = match mode {
            SendMode::Unreliable | SendMode::UnreliableSequenced => MAX_UNRELIABLE_MESSAGE,
            SendMode::Reliable | SendMode::ReliableOrdered => MAX_RELIABLE_MESSAGE,
        };
        if len as usize > limit {
            let text = format!(
                "`len` is {len}; a message of mode {} has at most {limit} bytes",
                mode.name()
            );
            return Err(Failure::new(Code::TooLarge, text));
        }
        let peer = if peer == ALL_PEERS {
            None
        } else {
            Some(check::guid(peer, "peer")?)
        };
        // SAFETY: the caller vouches for the pointer.
        let data = unsafe { check::bytes(data, len, limit, "data") }?;
        shell::with_node(node, |node| node.send(peer, channel, mode, data))?;
        Ok(0)
    })
}

/// Gives up a request: its event comes with code LANLINE_CANCELLED (unless it was just ending by itself).
///
/// @param node the node
/// @param request what an earlier call gave out
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT (0), LANLINE_NOT_FOUND (it has ended, or never was),
///         LANLINE_QUEUE_FULL
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_cancel(node: NodeId, request: RequestId) -> i32 {
    guard(|| {
        if request == 0 {
            return Err(Failure::argument("`request` is 0, which is no request"));
        }
        shell::with_node(node, |node| node.cancel(request))?;
        Ok(0)
    })
}

/// Figures of the connection to a player.
///
/// @param node the node
/// @param peer the player's guid
/// @param out receives them; its struct_size must be set
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_NOT_CONNECTED
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_peer_stats_get(node: NodeId, peer: Guid, out: *mut PeerStatsRecord) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        // SAFETY: the caller vouches for the pointer.
        let size = struct_size(
            *unsafe { check::input(out.cast::<u32>(), "out") }?,
            &[size_of::<PeerStatsRecord>()],
            "out",
        )?;
        let stats = shell::with_node(node, |node| {
            let view = node.view();
            let peer = view
                .peers
                .iter()
                .find(|other| other.peer == peer)
                .ok_or_else(not_connected)?;
            let stats = &peer.stats;
            Ok(PeerStatsRecord {
                struct_size: size as u32,
                path: peer.path.number(),
                address: peer.address.into(),
                rtt_us: stats.round_trip.as_micros() as u64,
                min_rtt_us: stats.min_round_trip.as_micros() as u64,
                datagrams_sent: stats.datagrams_sent,
                datagrams_received: stats.datagrams_received,
                bytes_sent: stats.bytes_sent,
                bytes_received: stats.bytes_received,
                packets_lost: stats.packets_lost,
                messages_sent: stats.messages_sent,
                messages_received: stats.messages_received,
                bytes_queued: stats.bytes_queued,
                congestion_window: stats.congestion_window,
                mtu: stats.mtu.into(),
                ..PeerStatsRecord::default()
            })
        })?;
        // SAFETY: as above; the size was checked.
        *unsafe { check::output(out, "out") }? = stats;
        Ok(0)
    })
}

/// Figures of the node.
///
/// @param node the node
/// @param out receives them; its struct_size must be set
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_stats_get(node: NodeId, out: *mut NodeStatsRecord) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointer.
        let size = struct_size(
            *unsafe { check::input(out.cast::<u32>(), "out") }?,
            &[size_of::<NodeStatsRecord>()],
            "out",
        )?;
        let stats = shell::with_node(node, |node| {
            let view = node.view();
            Ok(NodeStatsRecord {
                struct_size: size as u32,
                peers: view.peers.len() as u32,
                server_connected: view.server_connected.into(),
                observed: view.observed.into(),
                datagrams_dropped: view.dropped_datagrams,
                unreliable_dropped: node.unreliable_dropped(),
                events_pending: node.events_pending() as u64,
                ..NodeStatsRecord::default()
            })
        })?;
        // SAFETY: as above; the size was checked.
        *unsafe { check::output(out, "out") }? = stats;
        Ok(0)
    })
}

/// If `check` has no objection, queues a command with a fresh request id and tells the caller the id.
///
/// # Safety
/// `request` is NULL or valid for a write.
pub(super) unsafe fn ask(
    node: NodeId,
    request: *mut RequestId,
    check: impl FnOnce(&Node) -> Result<(), Failure>,
    command: impl FnOnce(RequestId) -> Command,
) -> Result<i32, Failure> {
    let mut ignored = 0;
    // SAFETY: the caller vouches for the pointer.
    let out = if request.is_null() {
        &mut ignored
    } else {
        unsafe { check::output(request, "request") }?
    };
    *out = 0;
    *out = shell::with_node(node, |node| {
        check(node)?;
        node.ask(command)
    })?;
    Ok(0)
}

pub(super) fn not_connected() -> Failure {
    Failure::new(Code::NotConnected, "`peer` is not connected")
}
