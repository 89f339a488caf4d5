/*
 * Lanline connects a game's players directly, across whatever routers they sit behind.
 * Generated from src/ffi; do not edit.
 *
 *   lanline_node_options options;
 *   lanline_node_options_init(&options);
 *   options.app = "my-game"; options.app_len = 7;
 *   lanline_node node;
 *   if (lanline_node_create(&options, &node) != LANLINE_OK) ...   (lanline_last_error says why)
 *   once a frame:  while ((n = lanline_poll(node, events, sizeof events[0], 64)) > 0) ...
 *
 * Rules that hold for all calls
 * - Results: 0 is LANLINE_OK, negative numbers are errors (enum lanline_result), positive ones are counts.
 * - After an error, and only then, lanline_last_error gives the reason in words, for the calling thread.
 * - What takes time is asked for with a call and ends in exactly one event that carries its request id.
 * - Everything passed in is copied before the call returns. Texts are UTF-8, pointer and length, no NUL needed.
 * - Nothing is ever to be freed by the caller. There are no callbacks.
 * - Any call may be made from any thread. Only destroy, wait and shutdown_all block, within their time limits.
 * - Pointers must be valid for the lengths given; an output pointer may be NULL only where its description says so.
 */

#ifndef LANLINE_H
#define LANLINE_H

#include <stdint.h>
#include <stddef.h>
#include <string.h>

#ifndef LANLINE_API
#  if defined(LANLINE_STATIC)
#    define LANLINE_API
#  elif defined(_WIN32)
#    ifdef LANLINE_BUILDING
#      define LANLINE_API __declspec(dllexport)
#    else
#      define LANLINE_API __declspec(dllimport)
#    endif
#  elif defined(__GNUC__)
#    define LANLINE_API __attribute__((visibility("default")))
#  else
#    define LANLINE_API
#  endif
#endif

/* Pointers in structs take 8 bytes everywhere. The padding behind them is for little-endian targets. */
#if UINTPTR_MAX == 0xffffffffu
#  define LANLINE_POINTERS_OF_4_BYTES
#endif

/** The version of layouts and meanings that this header describes; compare it with lanline_abi_version(). */
#define LANLINE_ABI_VERSION 1

/** As `peer` of lanline_send: everybody who is connected. No guid: those have 63 bits. */
#define LANLINE_ALL_PEERS UINT64_MAX

/** In `flags` of LANLINE_EVENT_NAT_…: this node asked for it. */
#define LANLINE_FLAG_REQUESTED 1
/** In `flags` of LANLINE_EVENT_SERVER_CONNECTED: the server's key was the one that was asked for. */
#define LANLINE_FLAG_VERIFIED 1

/** In `flags` of LANLINE_EVENT_NAT_TYPE: the facts leave no other name. */
#define LANLINE_FLAG_CERTAIN 1
/** In `flags` of LANLINE_EVENT_NAT_TYPE: players behind most routers reach this node. */
#define LANLINE_FLAG_FRIENDLY 2
/** In `flags` of LANLINE_EVENT_PORT_MAPPED: another router stands before the one that forwards the port. */
#define LANLINE_FLAG_DOUBLE_NAT 1

/** In `flags` of lanline_report: ask the routers for a port, too. */
#define LANLINE_REPORT_MAP_PORT 1

/** What lanline_nat_text describes. */
enum lanline_nat_text_of {
  /** All that is known, in a sentence or two. */
  LANLINE_NAT_TEXT_SUMMARY = 0,
  /** How outside addresses are given. */
  LANLINE_NAT_TEXT_MAPPING = 1,
  /** Whose packets get in. */
  LANLINE_NAT_TEXT_FILTERING = 2,
  /** How the ports of new mappings are chosen. */
  LANLINE_NAT_TEXT_PORTS = 3
};

/** When packets may go through a relay: a proxy server, or another player. */
enum lanline_relay_policy {
  /** Start on a relay at once, move off it when a direct path is open, and back when that one dies. */
  LANLINE_RELAY_FALLBACK = 0,
  /** Directly or not at all. */
  LANLINE_RELAY_NEVER = 1,
  /** Only through relays: players never learn each other's addresses, as none are exchanged. */
  LANLINE_RELAY_ONLY = 2
};

/** Who may be introduced to a node. */
enum lanline_accept_from {
  /** Players of its game who know its guid. */
  LANLINE_ACCEPT_APP = 0,
  /** Players of its session. */
  LANLINE_ACCEPT_SESSION = 1,
  /** Nobody; the node can still ask others. */
  LANLINE_ACCEPT_NOBODY = 2
};

/** How far a joiner is with one member. */
enum lanline_member_state {
  /** Nothing was tried yet. */
  LANLINE_MEMBER_PENDING = 0,
  /** Under way. */
  LANLINE_MEMBER_CONNECTING = 1,
  /** Connected. */
  LANLINE_MEMBER_CONNECTED = 2,
  /** Could not be reached. */
  LANLINE_MEMBER_FAILED = 3
};

/** Structs, for lanline_struct_size. */
enum lanline_struct {
  LANLINE_STRUCT_EVENT = 1,
  LANLINE_STRUCT_ADDRESS = 2,
  LANLINE_STRUCT_NODE_OPTIONS = 3,
  LANLINE_STRUCT_PEER_STATS = 4,
  LANLINE_STRUCT_NODE_STATS = 5,
  LANLINE_STRUCT_PARTICIPANT = 6,
  LANLINE_STRUCT_JOIN_MEMBER = 7,
  LANLINE_STRUCT_NAT_DETECT_OPTIONS = 8,
  LANLINE_STRUCT_NAT_FACTS = 9,
  LANLINE_STRUCT_MANUAL_PORT = 10
};

/** Fields of lanline_event, for lanline_event_field_offset. */
enum lanline_field {
  LANLINE_FIELD_TYPE = 0,
  LANLINE_FIELD_REQUEST = 1,
  LANLINE_FIELD_TIME_US = 2,
  LANLINE_FIELD_PEER = 3,
  LANLINE_FIELD_PEER2 = 4,
  LANLINE_FIELD_CODE = 5,
  LANLINE_FIELD_FLAGS = 6,
  LANLINE_FIELD_CHANNEL = 7,
  LANLINE_FIELD_MODE = 8,
  LANLINE_FIELD_PATH = 9,
  LANLINE_FIELD_PATH_FROM = 10,
  LANLINE_FIELD_COUNT = 11,
  LANLINE_FIELD_ADDRESS = 12,
  LANLINE_FIELD_DATA = 13,
  LANLINE_FIELD_DATA_LEN = 14,
  LANLINE_FIELD_TEXT_LEN = 15,
  LANLINE_FIELD_TEXT = 16,
  LANLINE_FIELD_RESERVED = 17
};
/** Results of calls (0 and -1 … -99) and reasons carried by events (-100 and below). */
enum lanline_result {
  /** It worked. */
  LANLINE_OK = 0,
  /** An argument is NULL, out of range, not UTF-8, or too long; the last error names it. */
  LANLINE_INVALID_ARGUMENT = -1,
  /** The node id is 0, was destroyed, or never existed. */
  LANLINE_INVALID_NODE = -2,
  /** Another thread is polling or waiting on this node. */
  LANLINE_BUSY = -3,
  /** Queues are full; poll and try again next frame. */
  LANLINE_QUEUE_FULL = -4,
  /** There is no connection to that peer (or to a server). */
  LANLINE_NOT_CONNECTED = -5,
  /** The message is larger than its mode allows. */
  LANLINE_TOO_LARGE = -6,
  /** `struct_size` does not belong to any version of that struct. */
  LANLINE_WRONG_SIZE = -7,
  /** This build cannot do that. */
  LANLINE_UNSUPPORTED = -8,
  /** No such peer, request, member or row. */
  LANLINE_NOT_FOUND = -9,
  /** A fault inside the library (a panic was caught). Report it. */
  LANLINE_INTERNAL = -10,
  /** The system refused memory, sockets or threads. */
  LANLINE_OUT_OF_RESOURCES = -11,
  /** A file or socket could not be used; the last error says which and why. */
  LANLINE_IO = -12,
  /** Not possible in the present state (for example not the host). */
  LANLINE_WRONG_STATE = -13,
  /** The target is this node itself. */
  LANLINE_SELF = -14,
  /** Nothing came back in time. */
  LANLINE_NO_ANSWER = -100,
  /** The other side declined. */
  LANLINE_REFUSED = -101,
  /** The other side has as many connections as it allows. */
  LANLINE_FULL = -102,
  /** The other side speaks an incompatible protocol version, or plays another game (app id). */
  LANLINE_INCOMPATIBLE = -103,
  /** The other side holds another key than was expected. */
  LANLINE_WRONG_KEY = -104,
  /** The server wants another access key. */
  LANLINE_WRONG_ACCESS_KEY = -105,
  /** The relay policy of one of the sides forbids it. */
  LANLINE_POLICY = -106,
  /** The game cancelled the request. */
  LANLINE_CANCELLED = -107,
  /** There is no session with a server, or it was lost on the way. */
  LANLINE_SERVER_LOST = -108,
  /** The same identity connected to the server from elsewhere; the newest wins. */
  LANLINE_REPLACED = -109,
  /** It took too long. */
  LANLINE_TIMEOUT = -110,
  /** The target is not connected to this server. */
  LANLINE_TARGET_NOT_CONNECTED = -111,
  /** The target is connected to the server but does not react. */
  LANLINE_TARGET_UNRESPONSIVE = -112,
  /** The target left the server while the attempt was running. */
  LANLINE_TARGET_LOST = -113,
  /** The same attempt is running already. */
  LANLINE_ALREADY_IN_PROGRESS = -114,
  /** The peer went silent for longer than the lost-peer time. */
  LANLINE_LOST = -115,
  /** The connection was closed on purpose, by either side. */
  LANLINE_CLOSED = -116,
  /** The host removed this player, or a player was removed. */
  LANLINE_KICKED = -117,
  /** Too many requests; the text says of which kind. */
  LANLINE_RATE_LIMITED = -118,
  /** The server's name could not be resolved. */
  LANLINE_NAME_NOT_RESOLVED = -119,
  /** No candidate answered: the two routers cannot be crossed directly. */
  LANLINE_NO_DIRECT_PATH = -120,
  /** The host's game turned the join down. */
  LANLINE_REJECTED = -121,
  /** The session's host was lost in the middle. */
  LANLINE_HOST_LOST = -122,
  /** A member of the session could not be reached. */
  LANLINE_MEMBER_UNREACHABLE = -123,
  /** The node was destroyed while the request ran. */
  LANLINE_DESTROYED = -124,
  /** The peer left the session. */
  LANLINE_LEFT = -125,
  /** The other side broke the protocol. */
  LANLINE_PROTOCOL_VIOLATION = -126,
  /** No router answers to UPnP, PCP or NAT-PMP, or none of them gives a port. */
  LANLINE_NO_MAPPING = -127
};

/** Event types of the C ABI. Games ignore types they do not know. */
enum lanline_event_type {
  /** Something inside the library failed beyond repair; the node is dead. Destroy it. */
  LANLINE_EVENT_FATAL = 1,
  /**
   * `count` unreliable messages were dropped: because the game did not poll in time, or (`peer` says whose) because a part of a
   * split one was lost, or the path became too small for one. Packets that the network lost are not in it.
   */
  LANLINE_EVENT_DROPPED = 2,
  /** Something a developer should know; `text` says it. No action needed. */
  LANLINE_EVENT_NOTICE = 3,
  /** What was found out about this machine's way to others: `data` is the report as JSON, `text` the same for people. */
  LANLINE_EVENT_REPORT = 4,
  /** The server accepted this node. `data` is its 32-byte key; `flags` bit 0: the key was verified. */
  LANLINE_EVENT_SERVER_CONNECTED = 10,
  /** The server could not be reached or refused; `code` and `text` say why. */
  LANLINE_EVENT_SERVER_FAILED = 11,
  /** The session with the server ended unasked. Unless `code` is REPLACED, it is being re-opened. */
  LANLINE_EVENT_SERVER_LOST = 12,
  /** The lost session with the server is back. */
  LANLINE_EVENT_SERVER_RECONNECTED = 13,
  /** The session with the server was closed as asked. */
  LANLINE_EVENT_SERVER_DISCONNECTED = 14,
  /** A way to `peer` is open: `path`, `address`; `flags` bit 0: this node asked for it. */
  LANLINE_EVENT_NAT_PUNCHTHROUGH_SUCCEEDED = 20,
  /** No way to `peer` could be opened; `code`, `text`; `flags` bit 0: this node asked for it. */
  LANLINE_EVENT_NAT_PUNCHTHROUGH_FAILED = 21,
  /** `peer` is not at this server. */
  LANLINE_EVENT_NAT_TARGET_NOT_CONNECTED = 22,
  /** `peer` is at this server, but does not react. */
  LANLINE_EVENT_NAT_TARGET_UNRESPONSIVE = 23,
  /** `peer` left the server while the attempt was running. */
  LANLINE_EVENT_NAT_CONNECTION_TO_TARGET_LOST = 24,
  /** An attempt between the same two is running; that one still ends with its own event. */
  LANLINE_EVENT_NAT_ALREADY_IN_PROGRESS = 25,
  /**
   * What is known of this node's NAT: `count` is the type (LANLINE_NAT_TYPE_…), `flags` bit 0: certain, bit 1: friendly (players
   * behind most routers can reach this one), `address` the public address, `text` the facts for people. `code` is not OK if less could be
   * found out than usual, and says why. The facts themselves: lanline_nat_facts_get, lanline_nat_text.
   */
  LANLINE_EVENT_NAT_TYPE = 26,
  /**
   * A router forwards a port to this node: `address` is the external one, `count` the protocol (LANLINE_MAPPING_…), `flags` bit 0:
   * another router stands before that one, so that strangers still do not get through (`text` says so).
   */
  LANLINE_EVENT_PORT_MAPPED = 27,
  /** No router forwards a port; `code` and `text` say why. */
  LANLINE_EVENT_PORT_MAPPING_FAILED = 28,
  /** How far port mapping is; `text` says it. */
  LANLINE_EVENT_PORT_MAPPING_PROGRESS = 29,
  /** `peer` is connected: `path`, `address`. Request 0 at the side that was called. */
  LANLINE_EVENT_CONNECTED = 30,
  /** No connection to `peer`; `code` and `text` say why. */
  LANLINE_EVENT_CONNECTION_FAILED = 31,
  /** The connection to `peer` ended: `code` LOST, CLOSED, KICKED, REFUSED; `count` the number and `text` the words the other side gave. */
  LANLINE_EVENT_DISCONNECTED = 32,
  /** A message: `channel`, `mode`, `data`. */
  LANLINE_EVENT_MESSAGE = 33,
  /** The connection to `peer` moved from `path_from` to `path`; `address` is the new one. */
  LANLINE_EVENT_PATH_CHANGED = 34,
  /**
   * Client: `peer`, the host, named the session's members; `data` from it. `count` members are to be connected to: those that
   * lanline_join_members lists, without the host and this node, so 0 for the first who joins.
   */
  LANLINE_EVENT_VERIFIED_JOIN_START = 40,
  /** Host: `peer` reached everyone; answer with respond_join. `data` from the joiner. */
  LANLINE_EVENT_VERIFIED_JOIN_CAPABLE = 41,
  /** Client: in. `data` from the host; `count` members, the host and this node included. */
  LANLINE_EVENT_VERIFIED_JOIN_ACCEPTED = 42,
  /** Client: the host's game declined. `data` from the host. */
  LANLINE_EVENT_VERIFIED_JOIN_REJECTED = 43,
  /** Either side: the join ended without a decision; `code`, `text`; `peer2` the member that could not be reached. */
  LANLINE_EVENT_VERIFIED_JOIN_FAILED = 44,
  /** `peer` is the session's host now, `peer2` the one before (0: none). */
  LANLINE_EVENT_NEW_HOST = 50,
  /** `peer` is in the session. */
  LANLINE_EVENT_MEMBER_JOINED = 51,
  /** `peer` left the session: `code` LEFT, LOST, KICKED. */
  LANLINE_EVENT_MEMBER_LEFT = 52,
  /** The player `peer2` forwards between this node and `peer`, as this node asked. */
  LANLINE_EVENT_ROUTER_FORWARDING_ESTABLISHED = 60,
  /** No connected player is willing to forward to `peer` and reaches it; `code`, `text`. */
  LANLINE_EVENT_ROUTER_FORWARDING_NO_PATH = 61,
  /** Those that were willing to forward to `peer` failed; `code`, `text`. */
  LANLINE_EVENT_ROUTER_FORWARDING_FAILED = 62,
  /** The player `peer2` forwards between this node and `peer` now: because `peer` asked for it, or because the one before is gone. */
  LANLINE_EVENT_ROUTER_REROUTED = 63,
  /** A proxy server, at `address`, forwards between this node and `peer`, as this node asked. */
  LANLINE_EVENT_PROXY_FORWARDING_SUCCEEDED = 70,
  /** There is no proxy server, none that answers, or none that may be used; `code`, `text`. */
  LANLINE_EVENT_PROXY_NO_SERVERS_ONLINE = 71,
  /** `peer` is not at this server, or does not react; `code`, `text`. */
  LANLINE_EVENT_PROXY_RECIPIENT_NOT_CONNECTED = 72,
  /** Every proxy server has as many pairs as it takes. */
  LANLINE_EVENT_PROXY_ALL_SERVERS_BUSY = 73,
  /** The same wish is running; that one still ends with its own event. */
  LANLINE_EVENT_PROXY_IN_PROGRESS = 74,
  /** A proxy server, at `address`, forwards between this node and `peer`, who asked for it. */
  LANLINE_EVENT_PROXY_FORWARDING_NOTIFICATION = 75
};

/** How packets reach a peer; the smaller, the better. */
enum lanline_path {
  /** No path. */
  LANLINE_PATH_NONE = 0,
  /** Inside one local network. */
  LANLINE_PATH_LAN = 1,
  /** Directly, across the internet. */
  LANLINE_PATH_DIRECT = 2,
  /** Through another player. */
  LANLINE_PATH_ROUTED = 3,
  /** Through the server. */
  LANLINE_PATH_PROXIED = 4
};

/** How a message travels. */
enum lanline_send_mode {
  /** May be lost, repeated by nobody, and may arrive in any order. */
  LANLINE_SEND_UNRELIABLE = 0,
  /** May be lost; one that arrives after a newer one of its channel is dropped. */
  LANLINE_SEND_UNRELIABLE_SEQUENCED = 1,
  /** Arrives once; a later message does not wait for an earlier one. */
  LANLINE_SEND_RELIABLE = 2,
  /** Arrives once, in the order of sending within its channel. */
  LANLINE_SEND_RELIABLE_ORDERED = 3
};

/** RakNet's names for what a node sits behind. They are for people: what punching decides by are the facts. */
enum lanline_nat_type {
  /** Not known. */
  LANLINE_NAT_TYPE_UNKNOWN = 0,
  /** Open to strangers: a public address without a filter. */
  LANLINE_NAT_TYPE_NONE = 1,
  /** Whoever knows the mapped address gets through. */
  LANLINE_NAT_TYPE_FULL_CONE = 2,
  /** Addresses that were sent to get through. */
  LANLINE_NAT_TYPE_ADDRESS_RESTRICTED = 3,
  /** Addresses with the port that was sent to get through. */
  LANLINE_NAT_TYPE_PORT_RESTRICTED = 4,
  /** Every destination sees another address. */
  LANLINE_NAT_TYPE_SYMMETRIC = 5
};

/** Whether two players can be connected directly. */
enum lanline_connectivity {
  /** Not directly. */
  LANLINE_CONNECTIVITY_NEVER = 0,
  /** It depends on what the names do not tell (how ports are chosen). */
  LANLINE_CONNECTIVITY_MAYBE = 1,
  /** Yes. */
  LANLINE_CONNECTIVITY_YES = 2
};

/** By which protocol a router was asked to forward a port. */
enum lanline_mapping {
  /** UPnP Internet Gateway Device, version 1 or 2. */
  LANLINE_MAPPING_UPNP = 1,
  /** Port Control Protocol (RFC 6887). */
  LANLINE_MAPPING_PCP = 2,
  /** NAT Port Mapping Protocol (RFC 6886). */
  LANLINE_MAPPING_NATPMP = 3
};

/**
 * An IP address and port. 24 bytes.
 */
typedef struct lanline_address {
  /**
   * 4 (IPv4), 6 (IPv6) or 0 (no address).
   */
  uint8_t family;
  /**
   * Zero.
   */
  uint8_t reserved;
  /**
   * UDP port, in the machine's own byte order.
   */
  uint16_t port;
  /**
   * Scope (interface number) of an IPv6 link-local address, else 0.
   */
  uint32_t scope;
  /**
   * The address in network byte order; IPv4 in the first four bytes, the others zero.
   */
  uint8_t ip[16];
} lanline_address;

/**
 * How to set up a node. Fill it with lanline_node_options_init, change what you want, and pass it to
 * lanline_node_create. Texts are UTF-8 with a length; NULL with length 0 is the empty text.
 */
typedef struct lanline_node_options {
  /**
   * Bytes of this struct; set by lanline_node_options_init.
   */
  uint32_t struct_size;
  /**
   * Most connected players, 1 to 1024 (default 64). More are refused with LANLINE_FULL.
   */
  uint32_t max_peers;
  /**
   * The game's identifier, 1 to 64 bytes, required. Nodes of other games do not exist for this one.
   */
  const char *app;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `app` to 8 bytes.
   */
  uint32_t app_high;
#endif
  /**
   * Bytes at `app`.
   */
  uint32_t app_len;
  /**
   * Bytes at `bind`.
   */
  uint32_t bind_len;
  /**
   * Where to open the UDP socket: "IP:PORT", "[::]:0"; empty (default): every address, any port.
   */
  const char *bind;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `bind` to 8 bytes.
   */
  uint32_t bind_high;
#endif
  /**
   * File that keeps who this node is; made if it is missing. Empty (default): a fresh identity in memory.
   * A file that another node uses leaves this one with a fresh identity, and LANLINE_EVENT_NOTICE says so.
   */
  const char *identity_file;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `identity_file` to 8 bytes.
   */
  uint32_t identity_file_high;
#endif
  /**
   * Bytes at `identity_file`.
   */
  uint32_t identity_file_len;
  /**
   * Bytes at `access_key`.
   */
  uint32_t access_key_len;
  /**
   * The server's access key, at most 256 bytes; empty (default): none.
   */
  const char *access_key;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `access_key` to 8 bytes.
   */
  uint32_t access_key_high;
#endif
  /**
   * "IP:PORT" of a port that was forwarded to this node by hand; empty (default): none.
   */
  const char *public_address;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `public_address` to 8 bytes.
   */
  uint32_t public_address_high;
#endif
  /**
   * Bytes at `public_address`.
   */
  uint32_t public_address_len;
  /**
   * A player that is silent for this many milliseconds is lost, 500 to 60000 (default 10000).
   */
  uint32_t lost_peer_timeout_ms;
  /**
   * Pairs of players that this node forwards packets between at the same time, for those who call lanline_route, within
   * budgets, 0 to 1024 (default 0: it forwards for nobody).
   */
  uint32_t router_max;
  /**
   * Milliseconds for a whole verified join, 1000 to 600000 (default 30000).
   */
  uint32_t join_timeout_ms;
  /**
   * LANLINE_RELAY_…: when packets may go through a proxy server or another player (default LANLINE_RELAY_FALLBACK). The session may have
   * a policy beside it (lanline_set_session_relay_policy); the stricter of the two holds. lanline_set_relay_policy changes it.
   */
  uint8_t relay_policy;
  /**
   * LANLINE_ACCEPT_…: who may be introduced to this node by the server (default LANLINE_ACCEPT_APP). Introductions only: a player that
   * knows this node's address can call it without one, as long as routers and firewalls let it through.
   */
  uint8_t accept_from;
  /**
   * 0 (default): the library connects to the members of a join by itself; 1: the game does.
   */
  uint8_t join_manual;
  /**
   * 1: a join may succeed although members could not be reached; 0 (default): it fails.
   */
  uint8_t partial_mesh;
  /**
   * Zero.
   */
  uint32_t reserved0;
  /**
   * Kept for later; must be empty.
   */
  const char *session_password;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `session_password` to 8 bytes.
   */
  uint32_t session_password_high;
#endif
  /**
   * Bytes at `session_password`.
   */
  uint32_t session_password_len;
  /**
   * Zero.
   */
  uint32_t reserved1;
} lanline_node_options;

/**
 * Id of a node; 0 is none. Ids are never pointers: one that is no longer valid is answered with LANLINE_INVALID_NODE.
 */
typedef uint32_t lanline_node;

/**
 * A player: 63 bits derived from its public key, the same for everybody; 0: none.
 */
typedef uint64_t lanline_guid;

/**
 * Something that happened. Exactly 128 bytes, with the same offsets on every target; fields that the
 * type does not name are zero. `data` and `text` are borrowed: they live until the node's next
 * lanline_poll, its lanline_node_destroy, or lanline_shutdown_all, and are never to be freed.
 */
typedef struct lanline_event {
  /**
   * One of LANLINE_EVENT_…; ignore those you do not know.
   */
  uint32_t type;
  /**
   * The request that this event ends; 0: nobody asked.
   */
  uint32_t request;
  /**
   * When the library learned of it: microseconds of the system's monotonic clock.
   */
  uint64_t time_us;
  /**
   * Guid of the player that it is about; 0: none.
   */
  uint64_t peer;
  /**
   * A second player (old host, unreachable member, …); 0: none.
   */
  uint64_t peer2;
  /**
   * LANLINE_OK or the reason, one of LANLINE_…
   */
  int32_t code;
  /**
   * LANLINE_FLAG_…
   */
  uint32_t flags;
  /**
   * Channel of a message.
   */
  uint8_t channel;
  /**
   * LANLINE_SEND_… of a message.
   */
  uint8_t mode;
  /**
   * LANLINE_PATH_…: how packets travel now.
   */
  uint8_t path;
  /**
   * LANLINE_PATH_…: how packets travelled before.
   */
  uint8_t path_from;
  /**
   * A number whose meaning the type tells.
   */
  uint32_t count;
  /**
   * An address whose meaning the type tells.
   */
  struct lanline_address address;
  /**
   * Bytes: a message's payload, a join's data, a server's key; NULL if `data_len` is 0.
   */
  const uint8_t *data;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `data` to 8 bytes.
   */
  uint32_t data_high;
#endif
  /**
   * Bytes at `data`.
   */
  uint32_t data_len;
  /**
   * Bytes at `text`, without the NUL behind them.
   */
  uint32_t text_len;
  /**
   * UTF-8 for a player's developer: what happened and what to do about it; with a NUL behind it; NULL if there is none.
   */
  const char *text;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `text` to 8 bytes.
   */
  uint32_t text_high;
#endif
  /**
   * Zero.
   */
  uint8_t reserved[32];
} lanline_event;

/**
 * Id of something that was asked for, unique within a node; 0: none. Each ends in exactly one event that carries it.
 */
typedef uint32_t lanline_request;

/**
 * Figures of a connection. Prepare it with lanline_peer_stats_init before the call.
 */
typedef struct lanline_peer_stats {
  /**
   * Bytes of this struct; set by lanline_peer_stats_init.
   */
  uint32_t struct_size;
  /**
   * LANLINE_PATH_…
   */
  uint8_t path;
  /**
   * Zero.
   */
  uint8_t reserved[3];
  /**
   * Where packets go.
   */
  struct lanline_address address;
  /**
   * Smoothed round-trip time in microseconds.
   */
  uint64_t rtt_us;
  /**
   * Smallest round-trip time on this path in microseconds.
   */
  uint64_t min_rtt_us;
  /**
   * UDP datagrams sent.
   */
  uint64_t datagrams_sent;
  /**
   * UDP datagrams received.
   */
  uint64_t datagrams_received;
  /**
   * Bytes in UDP datagrams sent.
   */
  uint64_t bytes_sent;
  /**
   * Bytes in UDP datagrams received.
   */
  uint64_t bytes_received;
  /**
   * Packets that were lost on the way to the player.
   */
  uint64_t packets_lost;
  /**
   * Messages of the game sent.
   */
  uint64_t messages_sent;
  /**
   * Messages of the game received.
   */
  uint64_t messages_received;
  /**
   * Bytes that wait to be sent.
   */
  uint64_t bytes_queued;
  /**
   * Bytes that may be under way unacknowledged.
   */
  uint64_t congestion_window;
  /**
   * Largest UDP payload that the path carries, in bytes.
   */
  uint32_t mtu;
  /**
   * Zero.
   */
  uint32_t reserved1;
} lanline_peer_stats;

/**
 * Figures of a node. Prepare it with lanline_node_stats_init before the call.
 */
typedef struct lanline_node_stats {
  /**
   * Bytes of this struct; set by lanline_node_stats_init.
   */
  uint32_t struct_size;
  /**
   * Connected players.
   */
  uint32_t peers;
  /**
   * 1: there is a session with a server.
   */
  uint8_t server_connected;
  /**
   * Zero.
   */
  uint8_t reserved[7];
  /**
   * The node's address as the server sees it.
   */
  struct lanline_address observed;
  /**
   * Datagrams that were nothing for this node.
   */
  uint64_t datagrams_dropped;
  /**
   * Unreliable messages that were dropped because the game did not poll in time.
   */
  uint64_t unreliable_dropped;
  /**
   * Events that wait for lanline_poll.
   */
  uint64_t events_pending;
} lanline_node_stats;

/**
 * A member that a running join has to reach.
 */
typedef struct lanline_join_member {
  /**
   * Its guid.
   */
  uint64_t peer;
  /**
   * LANLINE_MEMBER_…
   */
  uint8_t state;
  /**
   * Zero.
   */
  uint8_t reserved[7];
  /**
   * Why it could not be reached: UTF-8, NUL-terminated, cut to fit.
   */
  char text[112];
} lanline_join_member;

/**
 * Another player of the session.
 */
typedef struct lanline_participant {
  /**
   * Its guid.
   */
  uint64_t peer;
  /**
   * Smoothed round-trip time in microseconds; 0 if it is not connected.
   */
  uint64_t rtt_us;
  /**
   * LANLINE_PATH_…
   */
  uint8_t path;
  /**
   * 1: it is the host.
   */
  uint8_t is_host;
  /**
   * Zero.
   */
  uint8_t reserved[6];
} lanline_participant;

/**
 * How lanline_nat_detect finds out. Prepare it with lanline_nat_detect_options_init.
 */
typedef struct lanline_nat_detect_options {
  /**
   * Bytes of this struct; set by lanline_nat_detect_options_init.
   */
  uint32_t struct_size;
  /**
   * Also find out how long a silent mapping lives, waiting at most for this many milliseconds (up to 600000); 0 (default): do not.
   */
  uint32_t lifetime_up_to_ms;
  /**
   * Another STUN server (RFC 5780) than the node's own one: name or address, UTF-8; NULL (default): the node's own.
   */
  const char *stun_host;
#if defined(LANLINE_POINTERS_OF_4_BYTES)
  /**
   * Widens `stun_host` to 8 bytes.
   */
  uint32_t stun_host_high;
#endif
  /**
   * Bytes at `stun_host`.
   */
  uint32_t stun_host_len;
  /**
   * Its UDP port; 0 (default): 3478.
   */
  uint16_t stun_port;
  /**
   * Zero.
   */
  uint16_t reserved;
} lanline_nat_detect_options;

/**
 * What is known of a node's NAT. Prepare it with lanline_nat_facts_init. Facts are 1 (yes), 0 (no) or -1 (not known); nothing is guessed.
 */
typedef struct lanline_nat_facts {
  /**
   * Bytes of this struct; set by lanline_nat_facts_init.
   */
  uint32_t struct_size;
  /**
   * LANLINE_NAT_TYPE_…: the most restrictive name that the facts allow.
   */
  uint8_t type;
  /**
   * 1: something was found out; 0: nothing yet, and all below is not known.
   */
  uint8_t known;
  /**
   * 1: the facts leave no other name.
   */
  uint8_t certain;
  /**
   * 1: players behind most routers reach this node.
   */
  uint8_t friendly;
  /**
   * The outside address differs by the destination's address.
   */
  int8_t mapping_varies_by_address;
  /**
   * The outside address differs by the destination's port.
   */
  int8_t mapping_varies_by_port;
  /**
   * Packets from an address that was never sent to are dropped.
   */
  int8_t filters_by_address;
  /**
   * Packets from a port that was never sent to are dropped.
   */
  int8_t filters_by_port;
  /**
   * A new mapping gets the local port's number where it can.
   */
  int8_t preserves_port;
  /**
   * The node's own public address can be reached from inside.
   */
  int8_t hairpin;
  /**
   * The public address is one of the machine's own: no translation.
   */
  int8_t untranslated;
  /**
   * New mappings get different public IP addresses.
   */
  int8_t several_addresses;
  /**
   * No UDP packet was answered, not even by the server.
   */
  int8_t udp_blocked;
  /**
   * Another router stands before the one that forwards a port.
   */
  int8_t double_nat;
  /**
   * 1: `port_step` is known.
   */
  uint8_t port_step_known;
  /**
   * 1: `port_block_first` and `port_block_last` are known.
   */
  uint8_t port_block_known;
  /**
   * New mappings get numbers this far apart.
   */
  int16_t port_step;
  /**
   * First port of the block that new mappings are given from.
   */
  uint16_t port_block_first;
  /**
   * Last port of it.
   */
  uint16_t port_block_last;
  /**
   * LANLINE_MAPPING_…: how `mapped` was asked for; 0: no port is forwarded.
   */
  uint8_t mapped_protocol;
  /**
   * Ports that routers forward to this node.
   */
  uint8_t mapped_count;
  /**
   * A silent mapping lives at least this many milliseconds; 0: not known.
   */
  uint32_t lifetime_at_least_ms;
  /**
   * And less than this many; 0: not known.
   */
  uint32_t lifetime_below_ms;
  /**
   * The port that was forwarded by hand (`public_address` of the node's options) lets strangers in.
   */
  int8_t manual_open;
  /**
   * Strangers get in at `mapped`.
   */
  int8_t mapped_reachable;
  /**
   * Strangers get in over IPv6.
   */
  int8_t v6_open;
  /**
   * Zero.
   */
  uint8_t reserved;
  /**
   * Round trip to the server in microseconds; 0: not known.
   */
  uint64_t round_trip_us;
  /**
   * The node's public IPv4 address; family 0: not known.
   */
  struct lanline_address public_v4;
  /**
   * The IPv6 address at which a server saw the node; family 0: not known.
   */
  struct lanline_address public_v6;
  /**
   * A port that a router forwards to this node, as strangers see it; family 0: none.
   */
  struct lanline_address mapped;
} lanline_nat_facts;

/**
 * What a player has to set in a router to forward a port by hand. Prepare it with lanline_manual_port_init.
 */
typedef struct lanline_manual_port {
  /**
   * Bytes of this struct; set by lanline_manual_port_init.
   */
  uint32_t struct_size;
  /**
   * The port at the router: that of `public_address` if the node has one, else the same as inside.
   */
  uint16_t port;
  /**
   * The IP protocol's number: 17, UDP.
   */
  uint8_t protocol;
  /**
   * 1: the port is the same the next time, because `bind` of the node's options names it. 0: it was given by the system, and forwarding
   * it helps only as long as this node lives.
   */
  uint8_t lasting;
  /**
   * Where to: this computer's address inside its network, with the port; family 0: it has none.
   */
  struct lanline_address internal;
} lanline_manual_port;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes why the last failed call of this thread failed, in words for a developer, UTF-8 with a NUL
 * behind it, cut to fit. Only meaningful directly after a call on the same thread returned a negative number.
 *
 * @param buffer where to; may be NULL if capacity is 0
 * @param capacity bytes at buffer, the NUL included
 * @return the bytes that the whole text needs, without the NUL (at most 512); negative upon bad arguments
 *
 * Thread safety: any thread; each thread has its own text. Since: 0.1
 */
LANLINE_API int32_t lanline_last_error(char *buffer, uint32_t capacity);

/**
 * The name of a result or reason: "OK", "NOT_CONNECTED", …; "UNKNOWN" for a number that is none.
 * Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_result_name(int32_t code);

/**
 * The name of an event type: "CONNECTED", "MESSAGE", …; "UNKNOWN" for a number that is none.
 * Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_event_name(uint32_t type);

/**
 * The name of a path: "none", "lan", "direct", "routed", "proxied"; "UNKNOWN" for a number that is none.
 * Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_path_name(uint8_t path);

/**
 * The name of a send mode: "unreliable", "unreliable_sequenced", "reliable", "reliable_ordered";
 * "UNKNOWN" for a number that is none. Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_mode_name(uint8_t mode);

/**
 * The name of a kind of NAT: "NONE", "FULL_CONE", "ADDRESS_RESTRICTED", "PORT_RESTRICTED", "SYMMETRIC", "UNKNOWN"; "UNKNOWN" for
 * a number that is none, too. Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
const char *lanline_nat_type_name(uint32_t type);

/**
 * The name of what two players can do: "YES", "MAYBE", "NEVER"; "UNKNOWN" for a number that is none.
 * Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_connectivity_name(uint8_t connectivity);

/**
 * The name of a protocol for port mapping: "upnp", "pcp", "natpmp"; "UNKNOWN" for a number that is none.
 * Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_mapping_name(uint32_t protocol);

/**
 * Reads "1.2.3.4:5", "[2001:db8::1]:5", "1.2.3.4" or "2001:db8::1" (port 0). Numbers only: names are
 * resolved by the calls that take them.
 *
 * @param text the address, UTF-8
 * @param len bytes at text
 * @param out where to
 * @return LANLINE_OK, or LANLINE_INVALID_ARGUMENT (text is not an address, something is NULL)
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_address_parse(const char *text, uint32_t len, struct lanline_address *out);

/**
 * Writes an address as "1.2.3.4:5" or "[2001:db8::1]:5", with a NUL behind it, cut to fit; an empty
 * text if its family is 0.
 *
 * @param address the address
 * @param buffer where to; may be NULL if capacity is 0
 * @param capacity bytes at buffer, the NUL included; 64 are always enough
 * @return the bytes that the whole text needs, without the NUL; LANLINE_INVALID_ARGUMENT (NULL, unknown family)
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_address_format(const struct lanline_address *address,
                               char *buffer,
                               uint32_t capacity);

/**
 * The version of layouts and meanings that this library has: compare it with LANLINE_ABI_VERSION of the header.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
uint32_t lanline_abi_version(void);

/**
 * The library's version, "0.1.0". Static text, never NULL, never to be freed.
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API const char *lanline_version(void);

/**
 * For bindings: how many bytes a struct has in this library.
 *
 * @param id LANLINE_STRUCT_…
 * @return its size; 0 for an unknown id
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API uint32_t lanline_struct_size(uint32_t id);

/**
 * For bindings: where a field of lanline_event begins in this library.
 *
 * @param field LANLINE_FIELD_…
 * @return its offset in bytes; UINT32_MAX for an unknown field
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API uint32_t lanline_event_field_offset(uint32_t field);

/**
 * Fills options of `size` bytes with their defaults; lanline_node_options_init calls it with the size that the caller
 * was compiled with. Never writes more than `size` bytes. Does nothing if options is NULL or size is below 4. `app`
 * remains to be set.
 *
 * @param options the options, room for `size` bytes
 * @param size bytes of the caller's lanline_node_options
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
void lanline_node_options_init_sized(struct lanline_node_options *options,
                                     uint32_t size);

/**
 * Creates a node: opens its UDP socket and reads its identity. It talks to nobody before it is told to,
 * but others who know its address can connect to it.
 *
 * @param options what lanline_node_options_init filled; everything is copied
 * @param out receives the node's id
 * @return LANLINE_OK; LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_UNSUPPORTED; LANLINE_IO
 *         (socket or identity file); LANLINE_OUT_OF_RESOURCES (1024 nodes, no thread)
 *
 * Events: LANLINE_EVENT_NOTICE if the identity file is in use elsewhere.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_node_create(const struct lanline_node_options *options, lanline_node *out);

/**
 * Ends a node in the middle of whatever it does: closes its connections, gives the closing messages up to
 * timeout_ms to leave, frees everything. Waits for a poll that is under way; a lanline_wait returns at once.
 * Requests that are outstanding end without an event; borrowed data and text of the node are gone.
 *
 * @param node the node; its id is never valid again
 * @param timeout_ms most milliseconds to block; 0: send the closing messages once and return
 * @return LANLINE_OK; LANLINE_INVALID_NODE
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_node_destroy(lanline_node node, uint32_t timeout_ms);

/**
 * Destroys all nodes of the process, as lanline_node_destroy does, together within timeout_ms. Meant for
 * hosts that reload code (editors) or end. Creating nodes afterwards is fine.
 *
 * @param timeout_ms most milliseconds to block
 * @return how many nodes there were
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_shutdown_all(uint32_t timeout_ms);

/**
 * The node's guid: its name for everybody.
 *
 * @param node the node
 * @param out receives it
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_node_guid(lanline_node node, lanline_guid *out);

/**
 * The node's public key, from which its guid is derived.
 *
 * @param node the node
 * @param key32 receives 32 bytes
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_node_key(lanline_node node, uint8_t *key32);

/**
 * The address that the node's UDP socket is bound to (the IPv4 one if there are two); the IP is
 * unspecified (0.0.0.0, ::) unless `bind` named one.
 *
 * @param node the node
 * @param out receives it
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_node_address(lanline_node node, struct lanline_address *out);

/**
 * Takes up to capacity events, oldest first. Never blocks and never allocates; call it once a frame until it
 * returns less than capacity. Data and text of the events are borrowed: they live until the next poll of this
 * node (which returns them to the library), its destroy, or shutdown.
 *
 * @param node the node
 * @param out room for `capacity` events; may be NULL if capacity is 0
 * @param stride bytes from one event to the next: sizeof(lanline_event)
 * @param capacity most events to take
 * @return how many were taken; LANLINE_INVALID_NODE; LANLINE_BUSY (another thread polls this node);
 *         LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread, one at a time for a node. Since: 0.1
 */
LANLINE_API
int32_t lanline_poll(lanline_node node,
                     struct lanline_event *out,
                     uint32_t stride,
                     uint32_t capacity);

/**
 * Blocks until there are events for lanline_poll, or the time is over, or the node is destroyed. For servers,
 * tests and tools; a game with a frame loop needs it not.
 *
 * @param node the node
 * @param timeout_ms most milliseconds to block; 0: only look
 * @return 1 if there are events, 0 if the time is over; LANLINE_INVALID_NODE (also if the node is destroyed
 *         meanwhile); LANLINE_BUSY (another thread waits on this node)
 *
 * Thread safety: any thread, one at a time for a node. Since: 0.1
 */
LANLINE_API int32_t lanline_wait(lanline_node node, uint32_t timeout_ms);

/**
 * Opens a session with a server, which is kept up until lanline_server_disconnect: lost, it is re-opened
 * by itself. A node has one. For the server that it has a session with, this call ends with the present one's success (or, if another
 * key is wanted, with LANLINE_WRONG_KEY, and the session stays). Another server takes the place of the present one, which is left at once:
 * LANLINE_EVENT_SERVER_DISCONNECTED with request 0.
 *
 * @param node the node
 * @param address "HOST", "HOST:PORT", "1.2.3.4:PORT", "[2001:db8::1]:PORT"; the port is 61111 if left out
 * @param address_len bytes at address
 * @param key32 the 32 bytes of the server's public key, which it must prove; NULL: any, and reported as unverified
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_SERVER_CONNECTED or LANLINE_EVENT_SERVER_FAILED; later SERVER_LOST, SERVER_RECONNECTED;
 * SERVER_DISCONNECTED for a session that another server takes the place of.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_server_connect(lanline_node node,
                               const char *address,
                               uint32_t address_len,
                               const uint8_t *key32,
                               lanline_request *request);

/**
 * Closes the session with the server; connections to players stay.
 *
 * @param node the node
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_SERVER_DISCONNECTED.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_server_disconnect(lanline_node node, lanline_request *request);

/**
 * Opens a way to a player at the same server, without connecting: both routers are made to let packets
 * through. Any number may run at once.
 *
 * @param node the node
 * @param peer the player's guid
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_NAT_PUNCHTHROUGH_SUCCEEDED, …_FAILED (code LANLINE_SERVER_LOST without a server),
 * LANLINE_EVENT_NAT_TARGET_NOT_CONNECTED, …_UNRESPONSIVE, LANLINE_EVENT_NAT_CONNECTION_TO_TARGET_LOST,
 * LANLINE_EVENT_NAT_ALREADY_IN_PROGRESS; the outcome comes at the other player as well, with request 0.
 * A way that lanline_peer_connect opens by itself raises none of these here, only at the other player.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_open_nat(lanline_node node, lanline_guid peer, lanline_request *request);

/**
 * Connects to a player: by guid (a way is opened first if there is none), by address (whoever answers), or
 * by both (the address must answer with that guid's key).
 *
 * @param node the node
 * @param peer the player's guid; 0 if only the address is known
 * @param address the player's address; NULL if only the guid is known
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_CONNECTED at both ends (request 0 at the other), or LANLINE_EVENT_CONNECTION_FAILED.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_peer_connect(lanline_node node,
                             lanline_guid peer,
                             const struct lanline_address *address,
                             lanline_request *request);

/**
 * Closes the connection to a player. Messages sent before are handed over as far as the connection takes them
 * at once.
 *
 * @param node the node
 * @param peer the player's guid
 * @param user_code a number of the game's own; the other side finds it in `count`
 * @param text why, for the other side; UTF-8, at most 256 bytes; may be NULL if text_len is 0
 * @param text_len bytes at text
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_CONNECTED, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_DISCONNECTED at both ends.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_peer_disconnect(lanline_node node,
                                lanline_guid peer,
                                uint32_t user_code,
                                const char *text,
                                uint32_t text_len);

/**
 * Sends a message to a connected player, or to all of them. The data is copied; messages of a moment travel
 * together, so many small sends are fine. Reliable messages to all are taken for all or for nobody; unreliable
 * ones are skipped for players whose queue is full.
 *
 * @param node the node
 * @param peer the player's guid, or LANLINE_ALL_PEERS
 * @param channel 0 to 63; order and sequence are kept within a channel
 * @param mode LANLINE_SEND_…
 * @param data the message; may be NULL if len is 0
 * @param len bytes at data: at most 1 MiB (1048576) reliable, 64 KiB (65536) unreliable
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_TOO_LARGE; LANLINE_NOT_CONNECTED;
 *         LANLINE_QUEUE_FULL (the network is slower than the game: try again after the next poll)
 *
 * Events: LANLINE_EVENT_MESSAGE at the receiver.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_send(lanline_node node,
                     lanline_guid peer,
                     uint8_t channel,
                     uint8_t mode,
                     const void *data,
                     uint32_t len);

/**
 * Gives up a request: its event comes with code LANLINE_CANCELLED (unless it was just ending by itself).
 *
 * @param node the node
 * @param request what an earlier call gave out
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT (0), LANLINE_NOT_FOUND (it has ended, or never was),
 *         LANLINE_QUEUE_FULL
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_cancel(lanline_node node,
                       lanline_request request);

/**
 * Figures of the connection to a player.
 *
 * @param node the node
 * @param peer the player's guid
 * @param out receives them; its struct_size must be set
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_NOT_CONNECTED
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_peer_stats_get(lanline_node node,
                               lanline_guid peer,
                               struct lanline_peer_stats *out);

/**
 * Figures of the node.
 *
 * @param node the node
 * @param out receives them; its struct_size must be set
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_node_stats_get(lanline_node node, struct lanline_node_stats *out);

/**
 * Host (or whoever is to become it): invites a connected player into the session. The player is told the
 * members, connects to all of them, and reports; the game then answers with lanline_join_respond.
 * The player's game must have asked for the connection itself (lanline_peer_connect, also if it stood already): otherwise the
 * join fails at once with code LANLINE_POLICY.
 *
 * @param node the node
 * @param peer the connected player
 * @param data sent along, at most 64 KiB; may be NULL if len is 0
 * @param len bytes at data
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_NOT_CONNECTED,
 *         LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_VERIFIED_JOIN_CAPABLE or LANLINE_EVENT_VERIFIED_JOIN_FAILED; at the player
 * LANLINE_EVENT_VERIFIED_JOIN_START, then …_ACCEPTED, …_REJECTED or …_FAILED.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_join_start(lanline_node node,
                           lanline_guid peer,
                           const void *data,
                           uint32_t len,
                           lanline_request *request);

/**
 * Joiner: the members that the running join to a host has to reach, and how far that is. The host, to whom the
 * connection stands, and this node are not among them: the first who joins has an empty list.
 *
 * @param node the node
 * @param host who sent LANLINE_EVENT_VERIFIED_JOIN_START
 * @param out room for `capacity` members; may be NULL if capacity is 0
 * @param stride bytes from one to the next: sizeof(lanline_join_member)
 * @param capacity most members to write
 * @return how many there are in all; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_FOUND (no such join)
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_join_members(lanline_node node,
                             lanline_guid host,
                             struct lanline_join_member *out,
                             uint32_t stride,
                             uint32_t capacity);

/**
 * Joiner: sets the data that goes to the host once all members are reached (replacing what was set before).
 *
 * @param node the node
 * @param host who sent LANLINE_EVENT_VERIFIED_JOIN_START
 * @param data at most 64 KiB; may be NULL if len is 0
 * @param len bytes at data
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_FOUND (no such join), LANLINE_QUEUE_FULL
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_join_data(lanline_node node,
                          lanline_guid host,
                          const void *data,
                          uint32_t len);

/**
 * Host: lets a player in that LANLINE_EVENT_VERIFIED_JOIN_CAPABLE named, or turns it down.
 *
 * @param node the node
 * @param peer the player
 * @param accept 1: in; 0: not
 * @param data sent along, at most 64 KiB; may be NULL if len is 0
 * @param len bytes at data
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_NOT_FOUND (no such join waits),
 *         LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_MEMBER_JOINED at everybody, LANLINE_EVENT_VERIFIED_JOIN_ACCEPTED or …_REJECTED at the player.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_join_respond(lanline_node node,
                             lanline_guid peer,
                             uint8_t accept,
                             const void *data,
                             uint32_t len);

/**
 * Starts the session's host order afresh, so that time spent in menus does not count: call it at the same
 * moment of the game on all nodes.
 *
 * @param node the node
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_NEW_HOST if another player hosts now.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_mesh_reset_host_calculation(lanline_node node);

/**
 * The session's host.
 *
 * @param node the node
 * @param out receives its guid: the node's own if it hosts or is alone; 0 if it is not known for the moment
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_mesh_host(lanline_node node, lanline_guid *out);

/**
 * The members of the session in the order in which they host, this node included.
 *
 * @param node the node
 * @param out room for `capacity` guids; may be NULL if capacity is 0
 * @param capacity most guids to write
 * @return how many there are in all; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_mesh_order(lanline_node node, lanline_guid *out, uint32_t capacity);

/**
 * The other members of the session, with how they are reached.
 *
 * @param node the node
 * @param out room for `capacity` participants; may be NULL if capacity is 0
 * @param stride bytes from one to the next: sizeof(lanline_participant)
 * @param capacity most participants to write
 * @return how many there are in all; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_mesh_participants(lanline_node node,
                                  struct lanline_participant *out,
                                  uint32_t stride,
                                  uint32_t capacity);

/**
 * Leaves the session; everybody is told at once. Connections stay: lanline_peer_disconnect ends each that is not wanted any more. The
 * node is alone then and its own host (lanline_mesh_host), without an event, and has no session's relay policy to follow any more. Nothing
 * else happens if it was alone before.
 *
 * @param node the node
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_MEMBER_LEFT at the others.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_mesh_leave(lanline_node node);

/**
 * Host: removes a member from the session. The host and the members end their connections to it.
 *
 * @param node the node, which must be the host
 * @param peer the member
 * @param text why, for everybody; UTF-8, at most 256 bytes; may be NULL if text_len is 0
 * @param text_len bytes at text
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_STATE (not the host), LANLINE_SELF,
 *         LANLINE_NOT_FOUND (no such member), LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_MEMBER_LEFT with code LANLINE_KICKED at everybody, then LANLINE_EVENT_DISCONNECTED with that code and text at both
 * ends of each of its connections to members.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_mesh_kick(lanline_node node,
                          lanline_guid peer,
                          const char *text,
                          uint32_t text_len);

/**
 * Finds out what kind of router the node sits behind, by asking its server (or another STUN server) from fresh sockets. Takes
 * about a second and a half; with `lifetime_up_to_ms`, that long in addition. A quick detection runs by itself after every
 * LANLINE_EVENT_SERVER_CONNECTED, so that connecting does not need this call.
 *
 * @param node the node
 * @param options what lanline_nat_detect_options_init prepared; may be NULL for the defaults
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_NAT_TYPE, also when nothing could be found out (its code says why).
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_nat_detect(lanline_node node,
                           const struct lanline_nat_detect_options *options,
                           lanline_request *request);

/**
 * What is known of the node's NAT now: from the detections that ran until now, and from routers.
 *
 * @param node the node
 * @param out receives it; its struct_size must be set
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API int32_t lanline_nat_facts_get(lanline_node node, struct lanline_nat_facts *out);

/**
 * One of the facts in words, in RFC 4787's terms ("endpoint-independent", "address-and-port-dependent", "unknown", …), UTF-8
 * with a NUL behind it, cut to fit.
 *
 * @param node the node
 * @param which LANLINE_NAT_TEXT_…
 * @param buffer where to; may be NULL if capacity is 0
 * @param capacity bytes at buffer, the NUL included; 256 are always enough
 * @return the bytes that the whole text needs, without the NUL; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_nat_text(lanline_node node,
                         uint32_t which,
                         char *buffer,
                         uint32_t capacity);

/**
 * What two players can do, by the names of their NATs alone: with this library, and by RakNet's table. Players who are connected to a
 * server need not ask: the library knows their facts and does what is possible.
 *
 * @param type_a LANLINE_NAT_TYPE_… of one
 * @param type_b LANLINE_NAT_TYPE_… of the other
 * @param lanline receives LANLINE_CONNECTIVITY_…; may be NULL
 * @param raknet receives 1 if RakNet's CanConnect says yes, else 0; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_nat_can_connect(uint32_t type_a,
                                uint32_t type_b,
                                uint8_t *lanline,
                                uint8_t *raknet);

/**
 * Asks the routers to forward the node's UDP port to it, by UPnP, PCP and NAT-PMP at once; the first that does wins. The mapping is renewed
 * as long as the node lives, and taken back when it is destroyed.
 *
 * @param node the node
 * @param timeout_ms for the first router that answers, at most 60000; 0: 2000
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_PORT_MAPPED or LANLINE_EVENT_PORT_MAPPING_FAILED; on the way LANLINE_EVENT_PORT_MAPPING_PROGRESS. Later, with
 * request 0, PORT_MAPPED when the router gave another port, PORT_MAPPING_FAILED when the mapping was lost.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_port_map(lanline_node node,
                         uint32_t timeout_ms,
                         lanline_request *request);

/**
 * What a player has to set in a router to forward a port by hand, and a text that says it. A port that was forwarded goes into
 * `public_address` of the node's options, with `bind` naming the same port.
 *
 * @param node the node
 * @param out receives it; its struct_size must be set
 * @param buffer receives the text, UTF-8 with a NUL behind it, cut to fit; may be NULL if capacity is 0
 * @param capacity bytes at buffer, the NUL included; 512 are always enough
 * @return the bytes that the whole text needs, without the NUL; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT,
 *         LANLINE_WRONG_SIZE
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_port_manual(lanline_node node,
                            struct lanline_manual_port *out,
                            char *buffer,
                            uint32_t capacity);

/**
 * Finds out everything about the way to others, for a player's support: a full detection, and if wanted what the routers say about a port
 * (which is given back unless lanline_port_map was called as well).
 *
 * @param node the node; without a session with a server, or a STUN server in detect, there is little to say
 * @param flags LANLINE_REPORT_…, or 0
 * @param detect how to detect, from lanline_nat_detect_options_init; may be NULL for the defaults
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_REPORT.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_report(lanline_node node,
                       uint32_t flags,
                       const struct lanline_nat_detect_options *detect,
                       lanline_request *request);

/**
 * Opens a way to a player through another one (RakNet's Router2): the players that this node is connected to are asked, and of those that are
 * willing (`router_max` of their options) the best is taken: the shortest way at the smallest load; if it fails, the next. The router
 * sees nothing but ciphertext. The way is one more for a connection that stands, and is used where there is no better one (on a LAN,
 * directly); without a connection, lanline_peer_connect takes it. Through another player the two sides learn no address of each other,
 * but the router knows both.
 *
 * @param node the node
 * @param peer the player's guid
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_ROUTER_FORWARDING_ESTABLISHED, …_NO_PATH (nobody is willing and reaches the player) or …_FAILED (all who were
 * willing failed, or the request was cancelled); LANLINE_EVENT_ROUTER_REROUTED at the player, and later at both sides whenever another
 * router takes over by itself.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_route(lanline_node node,
                      lanline_guid peer,
                      lanline_request *request);

/**
 * Opens a way to a player at the same server through a proxy server (RakNet's UDPProxy), for those who want it step by step:
 * lanline_peer_connect does so by itself where the relay policy allows it. The proxy sees nothing but ciphertext. The way is one more for a
 * connection that stands, and is used where there is no better one; without a connection, lanline_peer_connect takes it.
 *
 * @param node the node
 * @param peer the player's guid
 * @param idle_ms the proxy may forget the pair after so many milliseconds without a packet, up to 600000 (less than 10000 counts as 10000);
 *        0: the server's choice, a minute. A connection keeps its way up by itself
 * @param request receives the request's id; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_SELF, LANLINE_QUEUE_FULL
 *
 * Events: LANLINE_EVENT_PROXY_FORWARDING_SUCCEEDED; or LANLINE_EVENT_PROXY_NO_SERVERS_ONLINE (code LANLINE_SERVER_LOST: no session with a
 * server; LANLINE_POLICY: a relay policy is LANLINE_RELAY_NEVER; LANLINE_CANCELLED), LANLINE_EVENT_PROXY_RECIPIENT_NOT_CONNECTED,
 * LANLINE_EVENT_PROXY_ALL_SERVERS_BUSY, LANLINE_EVENT_PROXY_IN_PROGRESS. LANLINE_EVENT_PROXY_FORWARDING_NOTIFICATION at the player.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_proxy(lanline_node node,
                      lanline_guid peer,
                      uint32_t idle_ms,
                      lanline_request *request);

/**
 * Changes `relay_policy` of the node's options. Ways that stand stay; new ones are opened by the new policy. With LANLINE_RELAY_ONLY
 * from the beginning (in the options), no player ever learns this node's address.
 *
 * @param node the node
 * @param policy LANLINE_RELAY_…
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL; LANLINE_WRONG_STATE (it is the opposite of the
 *         policy of the session that the node is in or joins: leave that first)
 *
 * Events: LANLINE_EVENT_NOTICE if a session of the opposite policy was joined in this very moment, and the call had no effect.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_set_relay_policy(lanline_node node,
                                 uint32_t policy);

/**
 * Host: gives the session a relay policy, which all who join it follow beside their own, from the beginning of the join until they are out
 * again, whoever hosts. The stricter of the two holds at each; players whose own is the opposite (LANLINE_RELAY_ONLY and
 * LANLINE_RELAY_NEVER) do not get in: LANLINE_EVENT_VERIFIED_JOIN_FAILED with code LANLINE_POLICY. Nobody may have been
 * invited yet, as everybody is told the policy when the join begins. A session has none at first, and a node that leaves a session
 * (also one in which it is alone) begins a new one.
 *
 * @param node the node, alone in its session
 * @param policy LANLINE_RELAY_…; LANLINE_RELAY_FALLBACK: none
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL; LANLINE_WRONG_STATE (others are in the session or
 *         join it, the node joins another one, or it is the opposite of the node's own policy)
 *
 * Events: LANLINE_EVENT_NOTICE if a join began in this very moment, and the call had no effect.
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_set_session_relay_policy(lanline_node node,
                                         uint32_t policy);

/**
 * The relay policies that hold now. A call that changes one shows after a moment.
 *
 * @param node the node
 * @param session receives LANLINE_RELAY_…: what the session asks (or one that the node is joining); may be NULL
 * @param effective receives LANLINE_RELAY_…: the stricter of that and the node's own, by which ways are opened; may be NULL
 * @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
 *
 * Thread safety: any thread. Since: 0.1
 */
LANLINE_API
int32_t lanline_relay_policy_get(lanline_node node,
                                 uint32_t *session,
                                 uint32_t *effective);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The layout is part of the contract: a compiler that lays structs out differently must not get any further. */
#if defined(__cplusplus) && __cplusplus >= 201103L
#  define LANLINE_ASSERT_LAYOUT(condition, text) static_assert(condition, text)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#  define LANLINE_ASSERT_LAYOUT(condition, text) _Static_assert(condition, text)
#endif
#ifdef LANLINE_ASSERT_LAYOUT
LANLINE_ASSERT_LAYOUT(sizeof(lanline_event) == 128, "lanline_event");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, type) == 0, "lanline_event.type");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, request) == 4, "lanline_event.request");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, time_us) == 8, "lanline_event.time_us");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, peer) == 16, "lanline_event.peer");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, peer2) == 24, "lanline_event.peer2");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, code) == 32, "lanline_event.code");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, flags) == 36, "lanline_event.flags");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, channel) == 40, "lanline_event.channel");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, mode) == 41, "lanline_event.mode");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, path) == 42, "lanline_event.path");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, path_from) == 43, "lanline_event.path_from");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, count) == 44, "lanline_event.count");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, address) == 48, "lanline_event.address");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, data) == 72, "lanline_event.data");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, data_len) == 80, "lanline_event.data_len");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, text_len) == 84, "lanline_event.text_len");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, text) == 88, "lanline_event.text");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_event, reserved) == 96, "lanline_event.reserved");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_address) == 24, "lanline_address");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_node_options) == 104, "lanline_node_options");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_peer_stats) == 128, "lanline_peer_stats");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_node_stats) == 64, "lanline_node_stats");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_participant) == 24, "lanline_participant");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_join_member) == 128, "lanline_join_member");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_nat_detect_options) == 24, "lanline_nat_detect_options");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_nat_detect_options, stun_host_len) == 16, "lanline_nat_detect_options.stun_host_len");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_nat_facts) == 120, "lanline_nat_facts");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_nat_facts, port_step) == 20, "lanline_nat_facts.port_step");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_nat_facts, round_trip_us) == 40, "lanline_nat_facts.round_trip_us");
LANLINE_ASSERT_LAYOUT(offsetof(lanline_nat_facts, mapped) == 96, "lanline_nat_facts.mapped");
LANLINE_ASSERT_LAYOUT(sizeof(lanline_manual_port) == 32, "lanline_manual_port");
#undef LANLINE_ASSERT_LAYOUT
#endif

/* Inline, so that the size is the one that the caller was compiled with, whatever library is loaded. */
#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L)
#  define LANLINE_INLINE static inline
#elif defined(__GNUC__) || defined(_MSC_VER)
#  define LANLINE_INLINE static __inline
#else
#  define LANLINE_INLINE static
#endif

/** Fills options with their defaults. `app` remains to be set. */
LANLINE_INLINE void lanline_node_options_init(lanline_node_options *options)
{
  lanline_node_options_init_sized(options, (uint32_t)sizeof *options);
}

/** Prepares figures for lanline_peer_stats_get. */
LANLINE_INLINE void lanline_peer_stats_init(lanline_peer_stats *stats)
{
  memset(stats, 0, sizeof *stats);
  stats->struct_size = (uint32_t)sizeof *stats;
}

/** Prepares figures for lanline_node_stats_get. */
LANLINE_INLINE void lanline_node_stats_init(lanline_node_stats *stats)
{
  memset(stats, 0, sizeof *stats);
  stats->struct_size = (uint32_t)sizeof *stats;
}

/** Prepares options for lanline_nat_detect and lanline_report: their defaults. */
LANLINE_INLINE void lanline_nat_detect_options_init(lanline_nat_detect_options *options)
{
  memset(options, 0, sizeof *options);
  options->struct_size = (uint32_t)sizeof *options;
}

/** Prepares facts for lanline_nat_facts_get. */
LANLINE_INLINE void lanline_nat_facts_init(lanline_nat_facts *facts)
{
  memset(facts, 0, sizeof *facts);
  facts->struct_size = (uint32_t)sizeof *facts;
}

/** Prepares what lanline_port_manual fills. */
LANLINE_INLINE void lanline_manual_port_init(lanline_manual_port *port)
{
  memset(port, 0, sizeof *port);
  port->struct_size = (uint32_t)sizeof *port;
}

#endif /* LANLINE_H */
