//! Ways through proxy servers and through other players, and when they may be taken.

use std::time::Duration;

use super::node::relay_policy;
use super::panic::guard;
use super::peers::ask;
use super::{Guid, NodeId, RequestId, check};
use crate::codes::Code;
use crate::peer::api::relay::RelayCommand;
use crate::peer::api::{Command, MeshView};
use crate::shell;
use crate::shell::failure::Failure;
use crate::wire::control::RelayPolicy;

/// Longest silence that a game can ask a proxy to bear: ten minutes, the most that proxies grant.
const LONGEST_IDLE_MS: u32 = 600_000;

/// Opens a way to a player through another one (RakNet's Router2): the players that this node is connected to are asked, and of those that are
/// willing (`router_max` of their options) the best is taken: the shortest way at the smallest load; if it fails, the next. The router
/// sees nothing but ciphertext. The way is one more for a connection that stands, and is used where there is no better one (on a LAN,
/// directly); without a connection, lanline_peer_connect takes it. Through another player the two sides learn no address of each other,
/// but the router knows both.
///
/// @param node the node
/// @param peer the player's guid
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_ROUTER_FORWARDING_ESTABLISHED, …_NO_PATH (nobody is willing and reaches the player) or …_FAILED (all who were
/// willing failed, or the request was cancelled); LANLINE_EVENT_ROUTER_REROUTED at the player, and later at both sides whenever another
/// router takes over by itself.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_route(node: NodeId, peer: Guid, request: *mut RequestId) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        // SAFETY: the caller vouches for the pointer.
        unsafe {
            ask(
                node,
                request,
                |node| node.not_self(peer),
                |request| Command::Relay(RelayCommand::Route { request, peer }),
            )
        }
    })
}

/// Opens a way to a player at the same server through a proxy server (RakNet's UDPProxy), for those who want it step by step:
/// lanline_peer_connect does so by itself where the relay policy allows it. The proxy sees nothing but ciphertext. The way is one more for a
/// connection that stands, and is used where there is no better one; without a connection, lanline_peer_connect takes it.
///
/// @param node the node
/// @param peer the player's guid
/// @param idle_ms the proxy may forget the pair after so many milliseconds without a packet, up to 600000 (less than 10000 counts as 10000);
///        0: the server's choice, a minute. A connection keeps its way up by itself
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_PROXY_FORWARDING_SUCCEEDED; or LANLINE_EVENT_PROXY_NO_SERVERS_ONLINE (code LANLINE_SERVER_LOST: no session with a
/// server; LANLINE_POLICY: a relay policy is LANLINE_RELAY_NEVER; LANLINE_CANCELLED), LANLINE_EVENT_PROXY_RECIPIENT_NOT_CONNECTED,
/// LANLINE_EVENT_PROXY_ALL_SERVERS_BUSY, LANLINE_EVENT_PROXY_IN_PROGRESS. LANLINE_EVENT_PROXY_FORWARDING_NOTIFICATION at the player.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_proxy(node: NodeId, peer: Guid, idle_ms: u32, request: *mut RequestId) -> i32 {
    guard(|| {
        let peer = check::guid(peer, "peer")?;
        if idle_ms > LONGEST_IDLE_MS {
            return Err(Failure::argument(format!(
                "`idle_ms` is {idle_ms}; at most {LONGEST_IDLE_MS} are allowed"
            )));
        }
        let idle = Duration::from_millis(idle_ms.into());
        // SAFETY: the caller vouches for the pointer.
        unsafe {
            ask(
                node,
                request,
                |node| node.not_self(peer),
                |request| Command::Relay(RelayCommand::Proxy { request, peer, idle }),
            )
        }
    })
}

/// Changes `relay_policy` of the node's options. Ways that stand stay; new ones are opened by the new policy. With LANLINE_RELAY_ONLY
/// from the beginning (in the options), no player ever learns this node's address.
///
/// @param node the node
/// @param policy LANLINE_RELAY_…
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL; LANLINE_WRONG_STATE (it is the opposite of the
///         policy of the session that the node is in or joins: leave that first)
///
/// Events: LANLINE_EVENT_NOTICE if a session of the opposite policy was joined in this very moment, and the call had no effect.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_set_relay_policy(node: NodeId, policy: u32) -> i32 {
    guard(|| {
        let policy = relay_policy(policy, "policy")?;
        set_policy(node, RelayCommand::SetPolicy(policy), |view| {
            not_opposite(policy, view.session_relay_policy, "the session's")
        })
    })
}

/// Host: gives the session a relay policy, which all who join it follow beside their own, from the beginning of the join until they are out
/// again, whoever hosts. The stricter of the two holds at each; players whose own is the opposite (LANLINE_RELAY_ONLY and
/// LANLINE_RELAY_NEVER) do not get in: LANLINE_EVENT_VERIFIED_JOIN_FAILED with code LANLINE_POLICY. Nobody may have been
/// invited yet, as everybody is told the policy when the join begins. A session has none at first, and a node that leaves a session
/// (also one in which it is alone) begins a new one.
///
/// @param node the node, alone in its session
/// @param policy LANLINE_RELAY_…; LANLINE_RELAY_FALLBACK: none
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL; LANLINE_WRONG_STATE (others are in the session or
///         join it, the node joins another one, or it is the opposite of the node's own policy)
///
/// Events: LANLINE_EVENT_NOTICE if a join began in this very moment, and the call had no effect.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_set_session_relay_policy(node: NodeId, policy: u32) -> i32 {
    guard(|| {
        let policy = relay_policy(policy, "policy")?;
        set_policy(node, RelayCommand::SetSessionPolicy(policy), |view| {
            if view.order.len() > 1 || view.inviting || !view.joins.is_empty() {
                let text = "`policy` can be set only before anybody is invited into the session, and not while joining another one";
                return Err(Failure::new(Code::WrongState, text));
            }
            not_opposite(policy, view.own_relay_policy, "the node's own")
        })
    })
}

/// The relay policies that hold now. A call that changes one shows after a moment.
///
/// @param node the node
/// @param session receives LANLINE_RELAY_…: what the session asks (or one that the node is joining); may be NULL
/// @param effective receives LANLINE_RELAY_…: the stricter of that and the node's own, by which ways are opened; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_relay_policy_get(node: NodeId, session: *mut u32, effective: *mut u32) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointers.
        let (session, effective) = unsafe {
            let out = |pointer: *mut u32, name| (!pointer.is_null()).then(|| check::output(pointer, name)).transpose();
            (out(session, "session")?, out(effective, "effective")?)
        };
        let view = shell::with_node(node, |node| Ok(node.view()))?;
        if let Some(session) = session {
            *session = view.mesh.session_relay_policy as u32;
        }
        if let Some(effective) = effective {
            *effective = view.mesh.relay_policy() as u32;
        }
        Ok(0)
    })
}

fn set_policy(
    node: NodeId,
    command: RelayCommand,
    check: impl FnOnce(&MeshView) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    shell::with_node(node, |node| {
        check(&node.view().mesh)?;
        node.command(Command::Relay(command))
    })?;
    Ok(0)
}

fn not_opposite(policy: RelayPolicy, other: RelayPolicy, whose: &str) -> Result<(), Failure> {
    if policy.with(other).is_some() {
        return Ok(());
    }
    let text = format!(
        "`policy` is \"{}\", {whose} \"{}\": nothing would be allowed by both",
        policy.name(),
        other.name()
    );
    Err(Failure::new(Code::WrongState, text))
}
