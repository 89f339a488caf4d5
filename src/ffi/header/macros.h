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

