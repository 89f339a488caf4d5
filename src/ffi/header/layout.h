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
