//! Verified joins and the session.

use std::ffi::{c_char, c_void};
use std::mem::size_of;

use super::node::boolean;
use super::panic::guard;
use super::peers::ask;
use super::{Guid, NodeId, RequestId, check};
use crate::codes::{Code, PathKind};
use crate::peer::api::{Command, MeshCommand, View};
use crate::shell;
use crate::shell::failure::Failure;
use crate::shell::node::Node;
use crate::wire::{MAX_TEXT, MAX_USER_DATA};

/// Another player of the session.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ParticipantRecord {
    /// Its guid.
    pub peer: u64,
    /// Smoothed round-trip time in microseconds; 0 if it is not connected.
    pub rtt_us: u64,
    /// LANLINE_PATH_…
    pub path: u8,
    /// 1: it is the host.
    pub is_host: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// A member that a running join has to reach.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct JoinMemberRecord {
    /// Its guid.
    pub peer: u64,
    /// LANLINE_MEMBER_…
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// Why it could not be reached: UTF-8, NUL-terminated, cut to fit.
    pub text: [c_char; 112],
}

const _: () = {
    assert!(size_of::<ParticipantRecord>() == 24);
    assert!(size_of::<JoinMemberRecord>() == 128);
};

/// Host (or whoever is to become it): invites a connected player into the session. The player is told the
/// members, connects to all of them, and reports; the game then answers with lanline_join_respond.
/// The player's game must have asked for the connection itself (lanline_peer_connect, also if it stood already): otherwise the
/// join fails at once with code LANLINE_POLICY.
///
/// @param node the node
/// @param peer the connected player
/// @param data sent along, at most 64 KiB; may be NULL if len is 0
/// @param len bytes at data
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_NOT_CONNECTED,
///         LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_VERIFIED_JOIN_CAPABLE or LANLINE_EVENT_VERIFIED_JOIN_FAILED; at the player
/// LANLINE_EVENT_VERIFIED_JOIN_START, then …_ACCEPTED, …_REJECTED or …_FAILED.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_join_start(
    node: NodeId,
    peer: Guid,
    data: *const c_void,
    len: u32,
    request: *mut RequestId,
) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        // SAFETY: the caller vouches for the pointers.
        unsafe {
            let data = check::bytes(data, len, MAX_USER_DATA, "data")?.to_vec();
            let check = |node: &Node| node.not_self(peer).and_then(|()| node.connected(peer));
            ask(node, request, check, |request| {
                Command::Mesh(MeshCommand::StartVerifiedJoin { request, peer, data })
            })
        }
    })
}

/// Joiner: the members that the running join to a host has to reach, and how far that is. The host, to whom the
/// connection stands, and this node are not among them: the first who joins has an empty list.
///
/// @param node the node
/// @param host who sent LANLINE_EVENT_VERIFIED_JOIN_START
/// @param out room for `capacity` members; may be NULL if capacity is 0
/// @param stride bytes from one to the next: sizeof(lanline_join_member)
/// @param capacity most members to write
/// @return how many there are in all; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_FOUND (no such join)
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_join_members(
    node: NodeId,
    host: Guid,
    out: *mut JoinMemberRecord,
    stride: u32,
    capacity: u32,
) -> i32 {
    guard(|| {
        let host = check::guid(host, "host")?;
        check::list(out, stride, capacity, size_of::<JoinMemberRecord>())?;
        shell::with_node(node, |node| {
            let view = node.view();
            let join = view
                .mesh
                .joins
                .iter()
                .find(|join| join.host == host)
                .ok_or_else(|| no_join("host"))?;
            let members = join.members.iter().map(|(peer, state, text)| JoinMemberRecord {
                peer: peer.0,
                state: *state as u8,
                reserved: [0; 7],
                text: fixed_text(text),
            });
            // SAFETY: the caller vouches for the room.
            Ok(unsafe { check::write_list(out, stride, capacity, members) })
        })
    })
}

/// Joiner: sets the data that goes to the host once all members are reached (replacing what was set before).
///
/// @param node the node
/// @param host who sent LANLINE_EVENT_VERIFIED_JOIN_START
/// @param data at most 64 KiB; may be NULL if len is 0
/// @param len bytes at data
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_FOUND (no such join), LANLINE_QUEUE_FULL
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_join_data(node: NodeId, host: Guid, data: *const c_void, len: u32) -> i32 {
    guard(|| {
        let peer = check::guid(host, "host")?;
        // SAFETY: the caller vouches for the pointer.
        let data = unsafe { check::bytes(data, len, MAX_USER_DATA, "data") }?.to_vec();
        command(node, |view, _| {
            if !view.mesh.joins.iter().any(|join| join.host == peer) {
                return Err(no_join("host"));
            }
            Ok(MeshCommand::JoinData { peer, data })
        })
    })
}

/// Host: lets a player in that LANLINE_EVENT_VERIFIED_JOIN_CAPABLE named, or turns it down.
///
/// @param node the node
/// @param peer the player
/// @param accept 1: in; 0: not
/// @param data sent along, at most 64 KiB; may be NULL if len is 0
/// @param len bytes at data
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_FOUND (no such join waits),
///         LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_MEMBER_JOINED at everybody, LANLINE_EVENT_VERIFIED_JOIN_ACCEPTED or …_REJECTED at the player.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_join_respond(
    node: NodeId,
    peer: Guid,
    accept: u8,
    data: *const c_void,
    len: u32,
) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        let accept = boolean(accept, "accept")?;
        // SAFETY: the caller vouches for the pointer.
        let data = unsafe { check::bytes(data, len, MAX_USER_DATA, "data") }?.to_vec();
        command(node, |view, _| {
            if !view.mesh.capable.contains(&peer) {
                return Err(no_join("peer"));
            }
            Ok(MeshCommand::RespondJoin { peer, accept, data })
        })
    })
}

/// Starts the session's host order afresh, so that time spent in menus does not count: call it at the same
/// moment of the game on all nodes.
///
/// @param node the node
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_NEW_HOST if another player hosts now.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mesh_reset_host_calculation(node: NodeId) -> i32 {
    guard(|| command(node, |_, _| Ok(MeshCommand::ResetHostCalculation)))
}

/// The session's host.
///
/// @param node the node
/// @param out receives its guid: the node's own if it hosts or is alone; 0 if it is not known for the moment
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mesh_host(node: NodeId, out: *mut Guid) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { check::output(out, "out") }?;
        *out = shell::with_node(node, |node| Ok(node.view().mesh.host.map_or(0, |host| host.0)))?;
        Ok(0)
    })
}

/// The members of the session in the order in which they host, this node included.
///
/// @param node the node
/// @param out room for `capacity` guids; may be NULL if capacity is 0
/// @param capacity most guids to write
/// @return how many there are in all; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mesh_order(node: NodeId, out: *mut Guid, capacity: u32) -> i32 {
    guard(|| {
        let stride = size_of::<Guid>() as u32;
        check::list(out, stride, capacity, size_of::<Guid>())?;
        shell::with_node(node, |node| {
            let view = node.view();
            // SAFETY: the caller vouches for the room.
            Ok(unsafe { check::write_list(out, stride, capacity, view.mesh.order.iter().map(|guid| guid.0)) })
        })
    })
}

/// The other members of the session, with how they are reached.
///
/// @param node the node
/// @param out room for `capacity` participants; may be NULL if capacity is 0
/// @param stride bytes from one to the next: sizeof(lanline_participant)
/// @param capacity most participants to write
/// @return how many there are in all; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mesh_participants(
    node: NodeId,
    out: *mut ParticipantRecord,
    stride: u32,
    capacity: u32,
) -> i32 {
    guard(|| {
        check::list(out, stride, capacity, size_of::<ParticipantRecord>())?;
        shell::with_node(node, |node| {
            let view = node.view();
            let others: Vec<_> = view.mesh.order.iter().filter(|peer| **peer != node.guid()).collect();
            let participants = others.into_iter().map(|peer| {
                let link = view.peers.iter().find(|link| link.peer == *peer);
                ParticipantRecord {
                    peer: peer.0,
                    rtt_us: link.map_or(0, |link| link.stats.round_trip.as_micros() as u64),
                    path: link.map_or(PathKind::None, |link| link.path).number(),
                    is_host: (view.mesh.host == Some(*peer)).into(),
                    reserved: [0; 6],
                }
            });
            // SAFETY: the caller vouches for the room.
            Ok(unsafe { check::write_list(out, stride, capacity, participants) })
        })
    })
}

/// Leaves the session; everybody is told at once. Connections stay: lanline_peer_disconnect ends each that is not wanted any more. The
/// node is alone then and its own host (lanline_mesh_host), without an event, and has no session's relay policy to follow any more. Nothing
/// else happens if it was alone before.
///
/// @param node the node
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_MEMBER_LEFT at the others.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mesh_leave(node: NodeId) -> i32 {
    guard(|| command(node, |_, _| Ok(MeshCommand::Leave)))
}

/// Host: removes a member from the session. The host and the members end their connections to it.
///
/// @param node the node, which must be the host
/// @param peer the member
/// @param text why, for everybody; UTF-8, at most 256 bytes; may be NULL if text_len is 0
/// @param text_len bytes at text
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_STATE (not the host), LANLINE_SELF,
///         LANLINE_NOT_FOUND (no such member), LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_MEMBER_LEFT with code LANLINE_KICKED at everybody, then LANLINE_EVENT_DISCONNECTED with that code and text at both
/// ends of each of its connections to members.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mesh_kick(node: NodeId, peer: Guid, text: *const c_char, text_len: u32) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        // SAFETY: the caller vouches for the pointer.
        let text = unsafe { check::text(text, text_len, MAX_TEXT, "text") }?.to_owned();
        command(node, |view, node| {
            node.not_self(peer)?;
            if view.mesh.host != Some(node.guid()) {
                return Err(Failure::new(Code::WrongState, "this node is not the session's host"));
            }
            if !view.mesh.order.contains(&peer) {
                return Err(Failure::new(Code::NotFound, "`peer` is not a member of the session"));
            }
            Ok(MeshCommand::Kick { peer, text })
        })
    })
}

fn command(node: NodeId, make: impl FnOnce(&View, &Node) -> Result<MeshCommand, Failure>) -> Result<i32, Failure> {
    shell::with_node(node, |node| node.command(Command::Mesh(make(&node.view(), node)?)))?;
    Ok(0)
}

fn no_join(argument: &str) -> Failure {
    Failure::new(Code::NotFound, format!("there is no such join with `{argument}`"))
}

fn fixed_text(text: &str) -> [c_char; 112] {
    let mut fixed = [0; 112];
    for (to, from) in fixed.iter_mut().zip(check::cut(text, 111).bytes()) {
        *to = from as c_char;
    }
    fixed
}
