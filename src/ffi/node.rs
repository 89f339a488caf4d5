//! The library as a whole, and nodes: create, destroy, ask.

use std::ffi::c_char;
use std::mem::{offset_of, size_of};
use std::time::Duration;

use super::panic::{guard, guard_value};
use super::{Guid, NodeId, check, events, mesh, nat, peers};
use crate::codes::Code;
use crate::shell;
use crate::shell::failure::Failure;
use crate::shell::options::{self, AcceptFrom, NodeOptions};
use crate::shell::record::{AddressRecord, EventRecord};
use crate::wire::control::RelayPolicy;

/// The version of the layout of structs and the meaning of calls; bindings compare it when they load the library.
pub const ABI_VERSION: u32 = 1;

/// How to set up a node. Fill it with lanline_node_options_init, change what you want, and pass it to
/// lanline_node_create. Texts are UTF-8 with a length; NULL with length 0 is the empty text.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct NodeOptionsRecord {
    /// Bytes of this struct; set by lanline_node_options_init.
    pub struct_size: u32,
    /// Most connected players, 1 to 1024 (default 64). More are refused with LANLINE_FULL.
    pub max_peers: u32,
    /// The game's identifier, 1 to 64 bytes, required. Nodes of other games do not exist for this one.
    pub app: *const c_char,
    /// Widens `app` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub app_high: u32,
    /// Bytes at `app`.
    pub app_len: u32,
    /// Bytes at `bind`.
    pub bind_len: u32,
    /// Where to open the UDP socket: "IP:PORT", "[::]:0"; empty (default): every address, any port.
    pub bind: *const c_char,
    /// Widens `bind` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub bind_high: u32,
    /// File that keeps who this node is; made if it is missing. Empty (default): a fresh identity in memory.
    /// A file that another node uses leaves this one with a fresh identity, and LANLINE_EVENT_NOTICE says so.
    pub identity_file: *const c_char,
    /// Widens `identity_file` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub identity_file_high: u32,
    /// Bytes at `identity_file`.
    pub identity_file_len: u32,
    /// Bytes at `access_key`.
    pub access_key_len: u32,
    /// The server's access key, at most 256 bytes; empty (default): none.
    pub access_key: *const c_char,
    /// Widens `access_key` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub access_key_high: u32,
    /// "IP:PORT" of a port that was forwarded to this node by hand; empty (default): none.
    pub public_address: *const c_char,
    /// Widens `public_address` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub public_address_high: u32,
    /// Bytes at `public_address`.
    pub public_address_len: u32,
    /// A player that is silent for this many milliseconds is lost, 500 to 60000 (default 10000).
    pub lost_peer_timeout_ms: u32,
    /// Pairs of players that this node forwards packets between at the same time, for those who call lanline_route, within
    /// budgets, 0 to 1024 (default 0: it forwards for nobody).
    pub router_max: u32,
    /// Milliseconds for a whole verified join, 1000 to 600000 (default 30000).
    pub join_timeout_ms: u32,
    /// LANLINE_RELAY_…: when packets may go through a proxy server or another player (default LANLINE_RELAY_FALLBACK). The session may have
    /// a policy beside it (lanline_set_session_relay_policy); the stricter of the two holds. lanline_set_relay_policy changes it.
    pub relay_policy: u8,
    /// LANLINE_ACCEPT_…: who may be introduced to this node by the server (default LANLINE_ACCEPT_APP). Introductions only: a player that
    /// knows this node's address can call it without one, as long as routers and firewalls let it through.
    pub accept_from: u8,
    /// 0 (default): the library connects to the members of a join by itself; 1: the game does.
    pub join_manual: u8,
    /// 1: a join may succeed although members could not be reached; 0 (default): it fails.
    pub partial_mesh: u8,
    /// Zero.
    pub reserved0: u32,
    /// Kept for later; must be empty.
    pub session_password: *const c_char,
    /// Widens `session_password` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub session_password_high: u32,
    /// Bytes at `session_password`.
    pub session_password_len: u32,
    /// Zero.
    pub reserved1: u32,
}

/// Sizes that this struct has had, oldest first; a caller compiled against an older header passes an older one.
const NODE_OPTIONS_SIZES: &[usize] = &[size_of::<NodeOptionsRecord>()];

const _: () = {
    assert!(size_of::<NodeOptionsRecord>() == 104);
    assert!(offset_of!(NodeOptionsRecord, app) == 8);
    assert!(offset_of!(NodeOptionsRecord, bind) == 24);
    assert!(offset_of!(NodeOptionsRecord, access_key) == 48);
    assert!(offset_of!(NodeOptionsRecord, relay_policy) == 80);
    assert!(offset_of!(NodeOptionsRecord, session_password) == 88);
};

impl NodeOptionsRecord {
    fn defaults() -> Self {
        // SAFETY: all fields are integers and pointers, for which zero bytes are a value.
        let zero: Self = unsafe { std::mem::zeroed() };
        Self {
            struct_size: size_of::<Self>() as u32,
            max_peers: options::DEFAULT_MAX_PEERS,
            lost_peer_timeout_ms: options::DEFAULT_LOST_PEER_TIMEOUT_MS,
            join_timeout_ms: options::DEFAULT_JOIN_TIMEOUT_MS,
            ..zero
        }
    }

    /// Copies and checks everything.
    ///
    /// # Safety
    /// The pointers are valid for their lengths.
    unsafe fn read(&self) -> Result<NodeOptions, Failure> {
        // SAFETY: passed on.
        let text = |pointer, length, limit, name| unsafe { check::text(pointer, length, limit, name) };
        let public_address = text(self.public_address, self.public_address_len, MAX_BIND, "public_address")?;
        let session_password = text(
            self.session_password,
            self.session_password_len,
            MAX_ACCESS_KEY,
            "session_password",
        )?;
        if !session_password.is_empty() {
            return Err(Failure::new(
                Code::Unsupported,
                "`session_password` must be empty: sessions have none yet",
            ));
        }
        options::check(NodeOptions {
            app: text(self.app, self.app_len, crate::wire::MAX_APP_ID, "app")?.to_owned(),
            bind: text(self.bind, self.bind_len, MAX_BIND, "bind")?.to_owned(),
            identity_file: text(self.identity_file, self.identity_file_len, MAX_PATH, "identity_file")?.to_owned(),
            access_key: text(self.access_key, self.access_key_len, MAX_ACCESS_KEY, "access_key")?.to_owned(),
            public_address: options::public_address(public_address)?,
            max_peers: self.max_peers,
            lost_peer_timeout_ms: self.lost_peer_timeout_ms,
            join_timeout_ms: self.join_timeout_ms,
            router_max: self.router_max,
            relay_policy: relay_policy(self.relay_policy.into(), "relay_policy")?,
            accept_from: accept_from(self.accept_from)?,
            join_manual: boolean(self.join_manual, "join_manual")?,
            partial_mesh: boolean(self.partial_mesh, "partial_mesh")?,
        })
    }
}

/// Longest "IP:PORT": an IPv6 address in brackets with scope and port needs 62 bytes.
const MAX_BIND: usize = 80;
/// Longest path: Linux's PATH_MAX.
const MAX_PATH: usize = 4096;
/// Longest access key.
const MAX_ACCESS_KEY: usize = 256;

pub(super) fn relay_policy(value: u32, name: &str) -> Result<RelayPolicy, Failure> {
    match value {
        0 => Ok(RelayPolicy::Fallback),
        1 => Ok(RelayPolicy::Never),
        2 => Ok(RelayPolicy::Only),
        _ => Err(Failure::argument(format!(
            "`{name}` is {value}; 0 to 2 (LANLINE_RELAY_…) are known"
        ))),
    }
}

fn accept_from(value: u8) -> Result<AcceptFrom, Failure> {
    match value {
        0 => Ok(AcceptFrom::App),
        1 => Ok(AcceptFrom::Session),
        2 => Ok(AcceptFrom::Nobody),
        _ => Err(Failure::argument(format!(
            "`accept_from` is {value}; 0 to 2 (LANLINE_ACCEPT_…) are known"
        ))),
    }
}

pub(super) fn boolean(value: u8, name: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::argument(format!("`{name}` is {value}; it must be 0 or 1"))),
    }
}

/// Accepts a `struct_size` that some version of a struct has had.
pub(super) fn struct_size(given: u32, known: &[usize], name: &str) -> Result<usize, Failure> {
    let given = given as usize;
    if known.contains(&given) {
        return Ok(given);
    }
    Err(Failure::new(
        Code::WrongSize,
        format!(
            "`{name}->struct_size` is {given}, but this library knows {known:?}; set it to sizeof (see the header) and \
             check that header and library belong together"
        ),
    ))
}

/// The version of layouts and meanings that this library has: compare it with LANLINE_ABI_VERSION of the header.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_abi_version() -> u32 {
    ABI_VERSION
}

/// The library's version, "0.1.0". Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// For bindings: how many bytes a struct has in this library.
///
/// @param id LANLINE_STRUCT_…
/// @return its size; 0 for an unknown id
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_struct_size(id: u32) -> u32 {
    guard_value(0, || {
        let size = match id {
            1 => size_of::<EventRecord>(),
            2 => size_of::<AddressRecord>(),
            3 => size_of::<NodeOptionsRecord>(),
            4 => size_of::<peers::PeerStatsRecord>(),
            5 => size_of::<peers::NodeStatsRecord>(),
            6 => size_of::<mesh::ParticipantRecord>(),
            7 => size_of::<mesh::JoinMemberRecord>(),
            8 => size_of::<nat::NatDetectOptionsRecord>(),
            9 => size_of::<nat::NatFactsRecord>(),
            10 => size_of::<nat::ManualPortRecord>(),
            _ => 0,
        };
        size as u32
    })
}

/// For bindings: where a field of lanline_event begins in this library.
///
/// @param field LANLINE_FIELD_…
/// @return its offset in bytes; UINT32_MAX for an unknown field
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_event_field_offset(field: u32) -> u32 {
    guard_value(u32::MAX, || {
        events::FIELD_OFFSETS
            .get(field as usize)
            .map_or(u32::MAX, |offset| *offset as u32)
    })
}

/// Fills options of `size` bytes with their defaults; lanline_node_options_init calls it with the size that the caller
/// was compiled with. Never writes more than `size` bytes. Does nothing if options is NULL or size is below 4. `app`
/// remains to be set.
///
/// @param options the options, room for `size` bytes
/// @param size bytes of the caller's lanline_node_options
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_options_init_sized(options: *mut NodeOptionsRecord, size: u32) {
    guard_value((), || {
        // Nothing else may be written through a pointer that is NULL or not aligned.
        let all = size as usize;
        if options.is_null() || !options.is_aligned() || all < size_of::<u32>() {
            return;
        }
        let mut defaults = NodeOptionsRecord::defaults();
        // Sizes that the library does not know are refused by lanline_node_create.
        defaults.struct_size = size;
        let known = all.min(size_of::<NodeOptionsRecord>());
        // SAFETY: the caller vouches for `size` bytes, and `known` is not more than either struct has.
        unsafe {
            options.cast::<u8>().write_bytes(0, all);
            std::ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), options.cast::<u8>(), known);
        }
    })
}

/// Creates a node: opens its UDP socket and reads its identity. It talks to nobody before it is told to,
/// but others who know its address can connect to it.
///
/// @param options what lanline_node_options_init filled; everything is copied
/// @param out receives the node's id
/// @return LANLINE_OK; LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_UNSUPPORTED; LANLINE_IO
///         (socket or identity file); LANLINE_OUT_OF_RESOURCES (1024 nodes, no thread)
///
/// Events: LANLINE_EVENT_NOTICE if the identity file is in use elsewhere.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_create(options: *const NodeOptionsRecord, out: *mut NodeId) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointers.
        let (options, out) = unsafe {
            (
                check::input(options.cast::<u32>(), "options")?,
                check::output(out, "out")?,
            )
        };
        *out = 0;
        struct_size(*options, NODE_OPTIONS_SIZES, "options")?;
        // SAFETY: `struct_size` says that the whole struct is there.
        let options =
            unsafe { check::input(std::ptr::from_ref(options).cast::<NodeOptionsRecord>(), "options")?.read() }?;
        *out = shell::create(options)?;
        Ok(0)
    })
}

/// Ends a node in the middle of whatever it does: closes its connections, gives the closing messages up to
/// timeout_ms to leave, frees everything. Waits for a poll that is under way; a lanline_wait returns at once.
/// Requests that are outstanding end without an event; borrowed data and text of the node are gone.
///
/// @param node the node; its id is never valid again
/// @param timeout_ms most milliseconds to block; 0: send the closing messages once and return
/// @return LANLINE_OK; LANLINE_INVALID_NODE
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_destroy(node: NodeId, timeout_ms: u32) -> i32 {
    guard(|| shell::destroy(node, Duration::from_millis(timeout_ms.into())).map(|()| 0))
}

/// Destroys all nodes of the process, as lanline_node_destroy does, together within timeout_ms. Meant for
/// hosts that reload code (editors) or end. Creating nodes afterwards is fine.
///
/// @param timeout_ms most milliseconds to block
/// @return how many nodes there were
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_shutdown_all(timeout_ms: u32) -> i32 {
    guard(|| Ok(shell::shutdown_all(Duration::from_millis(timeout_ms.into())) as i32))
}

/// The node's guid: its name for everybody.
///
/// @param node the node
/// @param out receives it
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_guid(node: NodeId, out: *mut Guid) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { check::output(out, "out") }?;
        *out = shell::with_node(node, |node| Ok(node.guid().0))?;
        Ok(0)
    })
}

/// The node's public key, from which its guid is derived.
///
/// @param node the node
/// @param key32 receives 32 bytes
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_key(node: NodeId, key32: *mut u8) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for 32 bytes.
        let out = unsafe { check::output(key32.cast::<[u8; 32]>(), "key32") }?;
        *out = shell::with_node(node, |node| Ok(node.key().0))?;
        Ok(0)
    })
}

/// The address that the node's UDP socket is bound to (the IPv4 one if there are two); the IP is
/// unspecified (0.0.0.0, ::) unless `bind` named one.
///
/// @param node the node
/// @param out receives it
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_node_address(node: NodeId, out: *mut AddressRecord) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { check::output(out, "out") }?;
        *out = shell::with_node(node, |node| Ok(node.local_address().into()))?;
        Ok(0)
    })
}
