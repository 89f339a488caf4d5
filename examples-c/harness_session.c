/* The harness's verbs for the session (joins, host, members) and for figures. */
#include "harness_call.h"

#include <string.h>

/* Members that a list has room for: the wire's bound. */
#define LIST_MAX 64

void verb_start_verified_join(struct call *call)
{
    lanline_guid target = call_peer(call);
    struct argument words = call_text(call);

    if (call_ready(call))
        call_outcome(call, lanline_join_start(call->harness->node, target, words.value, (uint32_t)words.len, &call->request));
}

void verb_join_list(struct call *call)
{
    static const char *const states[] = {"PENDING", "CONNECTING", "CONNECTED", "FAILED"};
    lanline_join_member members[LIST_MAX];
    lanline_guid host = call_peer(call);
    int32_t count, i;

    if (!call_ready(call))
        return;
    count = lanline_join_members(call->harness->node, host, members, (uint32_t)sizeof members[0], LIST_MAX);
    call_outcome(call, count);
    if (count < 0)
        return;
    json_key(&call->values, "members");
    text_add(&call->values, "[");
    for (i = 0; i < count && i < LIST_MAX; i++) {
        text_format(&call->values, "%s{\"peer\":\"%llu\"", i ? "," : "", (unsigned long long)members[i].peer);
        json_key_string(&call->values, "state", members[i].state < 4 ? states[members[i].state] : "UNKNOWN");
        json_key_string(&call->values, "text", (const char *)members[i].text);
        text_add(&call->values, "}");
    }
    text_add(&call->values, "]");
}

void verb_join_data(struct call *call)
{
    lanline_guid host = call_peer(call);
    struct argument words = call_text(call);

    if (call_ready(call))
        call_outcome(call, lanline_join_data(call->harness->node, host, words.value, (uint32_t)words.len));
}

void verb_respond_join(struct call *call)
{
    lanline_guid joiner = call_peer(call);
    struct argument words = call_text(call);
    uint8_t accept = (uint8_t)call_needed_number(call, "accept", 1);

    if (call_ready(call))
        call_outcome(call, lanline_join_respond(call->harness->node, joiner, accept, words.value, (uint32_t)words.len));
}

/* `host`, `is_host` and `order`, as `host` and `reset_host_calculation` answer. */
static void host_values(struct call *call)
{
    lanline_guid host = 0, order[LIST_MAX + 1];
    int32_t count, i;

    lanline_mesh_host(call->harness->node, &host);
    json_key_id(&call->values, "host", host);
    json_key_number(&call->values, "is_host", host == call->harness->guid ? 1 : 0);
    count = lanline_mesh_order(call->harness->node, order, LIST_MAX + 1);
    json_key(&call->values, "order");
    text_add(&call->values, "[");
    for (i = 0; i < count && i < LIST_MAX + 1; i++)
        text_format(&call->values, "%s\"%llu\"", i ? "," : "", (unsigned long long)order[i]);
    text_add(&call->values, "]");
}

void verb_reset_host_calculation(struct call *call)
{
    if (!call_ready(call))
        return;
    call_outcome(call, lanline_mesh_reset_host_calculation(call->harness->node));
    host_values(call);
}

void verb_host(struct call *call)
{
    if (call_ready(call))
        host_values(call);
}

void verb_participants(struct call *call)
{
    lanline_participant list[LIST_MAX + 1];
    int32_t count, i, printed = 0;

    if (!call_ready(call))
        return;
    count = lanline_mesh_participants(call->harness->node, list, (uint32_t)sizeof list[0], LIST_MAX + 1);
    call_outcome(call, count);
    json_key(&call->values, "participants");
    text_add(&call->values, "[");
    for (i = 0; i < count && i < LIST_MAX + 1; i++) {
        if (list[i].peer == call->harness->guid)
            continue;
        text_format(&call->values, "%s{\"peer\":\"%llu\"", printed++ ? "," : "", (unsigned long long)list[i].peer);
        json_key_string(&call->values, "path", lanline_path_name(list[i].path));
        json_key_number(&call->values, "rtt_us", (int64_t)list[i].rtt_us);
        json_key_number(&call->values, "is_host", list[i].is_host);
        text_add(&call->values, "}");
    }
    text_add(&call->values, "]");
}

void verb_leave(struct call *call)
{
    if (call_ready(call))
        call_outcome(call, lanline_mesh_leave(call->harness->node));
}

void verb_kick(struct call *call)
{
    lanline_guid target = call_peer(call);
    struct argument words = call_text(call);

    if (call_ready(call))
        call_outcome(call, lanline_mesh_kick(call->harness->node, target, words.value, (uint32_t)words.len));
}

static void peer_stats(struct call *call, lanline_guid target)
{
    lanline_peer_stats stats;
    struct text *out = &call->values;

    lanline_peer_stats_init(&stats);
    call_outcome(call, lanline_peer_stats_get(call->harness->node, target, &stats));
    if (call->code < 0)
        return;
    json_key_number(out, "rtt_us", (int64_t)stats.rtt_us);
    json_key_number(out, "min_rtt_us", (int64_t)stats.min_rtt_us);
    json_key_string(out, "path", lanline_path_name(stats.path));
    harness_address(out, "address", &stats.address);
    json_key_number(out, "sent", (int64_t)stats.messages_sent);
    json_key_number(out, "received", (int64_t)stats.messages_received);
    json_key_number(out, "lost", (int64_t)stats.packets_lost);
    json_key_number(out, "datagrams_sent", (int64_t)stats.datagrams_sent);
    json_key_number(out, "datagrams_received", (int64_t)stats.datagrams_received);
    json_key_number(out, "bytes_sent", (int64_t)stats.bytes_sent);
    json_key_number(out, "bytes_received", (int64_t)stats.bytes_received);
    json_key_number(out, "bytes_queued", (int64_t)stats.bytes_queued);
    json_key_number(out, "congestion_window", (int64_t)stats.congestion_window);
    json_key_number(out, "mtu", stats.mtu);
}

/* Sums over all players who are connected now. No player, no round-trip time and no path: 0 and "none". */
static void summed_stats(struct call *call)
{
    lanline_peer_stats stats;
    uint64_t sent = 0, received = 0, lost = 0;
    uint32_t i;

    harness_strike_peers(call->harness);
    for (i = 0; i < call->harness->peer_count; i++) {
        lanline_peer_stats_init(&stats);
        /* One who has just gone has no figures any more. */
        if (lanline_peer_stats_get(call->harness->node, call->harness->peers[i], &stats) < 0)
            continue;
        sent += stats.messages_sent;
        received += stats.messages_received;
        lost += stats.packets_lost;
    }
    json_key_number(&call->values, "rtt_us", 0);
    json_key_string(&call->values, "path", lanline_path_name(LANLINE_PATH_NONE));
    json_key_number(&call->values, "sent", (int64_t)sent);
    json_key_number(&call->values, "received", (int64_t)received);
    json_key_number(&call->values, "lost", (int64_t)lost);
}

static void node_stats(struct call *call)
{
    lanline_node_stats stats;
    struct text *out = &call->values;

    lanline_node_stats_init(&stats);
    call_outcome(call, lanline_node_stats_get(call->harness->node, &stats));
    if (call->code < 0)
        return;
    summed_stats(call);
    json_key_number(out, "peers", stats.peers);
    json_key_number(out, "server_connected", stats.server_connected);
    harness_address(out, "observed", &stats.observed);
    json_key_number(out, "datagrams_dropped", (int64_t)stats.datagrams_dropped);
    json_key_number(out, "unreliable_dropped", (int64_t)stats.unreliable_dropped);
    json_key_number(out, "events_pending", (int64_t)stats.events_pending);
}

void verb_stats(struct call *call)
{
    lanline_guid target = call_optional(call, "peer") ? call_peer(call) : 0;

    if (!call_ready(call))
        return;
    if (target)
        peer_stats(call, target);
    else
        node_stats(call);
}
