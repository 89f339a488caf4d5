/* The harness's events: fetching, printing, remembering. */
#include "harness.h"

#include <stdio.h>
#include <string.h>

void harness_print(struct harness *harness)
{
    text_add(&harness->line, "\n");
    fwrite(harness->line.data, 1, harness->line.len, stdout);
    fflush(stdout);
}

void harness_address(struct text *text, const char *key, const lanline_address *address)
{
    char buffer[80];

    buffer[0] = 0;
    if (address->family && lanline_address_format(address, buffer, sizeof buffer) > 0)
        json_key_string(text, key, buffer);
    else
        text_format(text, ",\"%s\":null", key);
}

static struct remembered_event *remembered_at(struct remembered_events *events, uint32_t index)
{
    return &events->events[(events->first + index) % HARNESS_REMEMBERED];
}

static struct remembered_events *remembered_of(struct harness *harness, uint32_t type)
{
    return type == LANLINE_EVENT_MESSAGE ? &harness->messages : &harness->others;
}

static void remember(struct harness *harness, const lanline_event *event)
{
    struct remembered_events *events = remembered_of(harness, event->type);
    struct remembered_event *at;

    if (events->count == HARNESS_REMEMBERED) {
        events->first = (events->first + 1) % HARNESS_REMEMBERED;
        events->count--;
    }
    at = remembered_at(events, events->count++);
    at->type = event->type;
    at->peer = event->peer;
}

void harness_strike_peers(struct harness *harness)
{
    lanline_peer_stats stats;
    uint32_t i = 0;

    while (i < harness->peer_count) {
        lanline_peer_stats_init(&stats);
        if (lanline_peer_stats_get(harness->node, harness->peers[i], &stats) < 0)
            harness->peers[i] = harness->peers[--harness->peer_count];
        else
            i++;
    }
}

static void note_peer(struct harness *harness, lanline_guid peer)
{
    uint32_t i;

    for (i = 0; i < harness->peer_count; i++) {
        if (harness->peers[i] == peer)
            return;
    }
    if (harness->peer_count == HARNESS_PEERS)
        harness_strike_peers(harness);
    if (harness->peer_count < HARNESS_PEERS)
        harness->peers[harness->peer_count++] = peer;
}

void harness_forget_events(struct harness *harness)
{
    harness->messages.count = 0;
    harness->others.count = 0;
}

int harness_take_event(struct harness *harness, uint32_t type, uint64_t peer)
{
    struct remembered_events *events = remembered_of(harness, type);
    struct remembered_event *event;
    uint32_t i;

    for (i = 0; i < events->count; i++) {
        event = remembered_at(events, i);
        if (event->type != type || (peer && event->peer != peer))
            continue;
        /* Those before it move up by one: the match is mostly among the first. */
        for (; i > 0; i--)
            *remembered_at(events, i) = *remembered_at(events, i - 1);
        events->first = (events->first + 1) % HARNESS_REMEMBERED;
        events->count--;
        return 1;
    }
    return 0;
}

/* A join's data is whatever the game sent; shown as text, as messages are. */
static int text_is_data(uint32_t type)
{
    return type == LANLINE_EVENT_MESSAGE || type == LANLINE_EVENT_VERIFIED_JOIN_START ||
           type == LANLINE_EVENT_VERIFIED_JOIN_CAPABLE || type == LANLINE_EVENT_VERIFIED_JOIN_ACCEPTED ||
           type == LANLINE_EVENT_VERIFIED_JOIN_REJECTED;
}

static void server_values(struct text *out, const lanline_event *event)
{
    uint32_t i;

    json_key(out, "key");
    text_add(out, "\"");
    for (i = 0; i < event->data_len; i++)
        text_format(out, "%02x", ((const unsigned char *)event->data)[i]);
    text_add(out, "\"");
    if (event->type == LANLINE_EVENT_SERVER_CONNECTED)
        json_key_number(out, "verified", event->flags & LANLINE_FLAG_VERIFIED ? 1 : 0);
    harness_address(out, "address", &event->address);
}

/* What each kind of event has beyond the fields that all have. */
static void special_values(struct harness *harness, struct text *out, const lanline_event *event)
{
    switch (event->type) {
    case LANLINE_EVENT_DROPPED:
    case LANLINE_EVENT_DISCONNECTED:
        json_key_number(out, "count", event->count);
        break;
    case LANLINE_EVENT_SERVER_CONNECTED:
    case LANLINE_EVENT_SERVER_RECONNECTED:
        server_values(out, event);
        break;
    case LANLINE_EVENT_NAT_PUNCHTHROUGH_SUCCEEDED:
    case LANLINE_EVENT_NAT_PUNCHTHROUGH_FAILED:
    case LANLINE_EVENT_NAT_TARGET_NOT_CONNECTED:
    case LANLINE_EVENT_NAT_TARGET_UNRESPONSIVE:
    case LANLINE_EVENT_NAT_CONNECTION_TO_TARGET_LOST:
    case LANLINE_EVENT_NAT_ALREADY_IN_PROGRESS:
        json_key_string(out, "path", lanline_path_name(event->path));
        harness_address(out, "address", &event->address);
        json_key_number(out, "sender", event->flags & LANLINE_FLAG_REQUESTED ? 1 : 0);
        break;
    case LANLINE_EVENT_NAT_TYPE:
    case LANLINE_EVENT_PORT_MAPPED:
    case LANLINE_EVENT_REPORT:
        harness_nat_values(harness, out, event);
        break;
    case LANLINE_EVENT_CONNECTED:
        json_key_string(out, "path", lanline_path_name(event->path));
        harness_address(out, "address", &event->address);
        break;
    case LANLINE_EVENT_CONNECTION_FAILED:
        harness_address(out, "address", &event->address);
        break;
    case LANLINE_EVENT_ROUTER_FORWARDING_ESTABLISHED:
    case LANLINE_EVENT_ROUTER_REROUTED:
        json_key_id(out, "via", event->peer2);
        json_key_string(out, "path", lanline_path_name(event->path));
        break;
    case LANLINE_EVENT_PROXY_FORWARDING_SUCCEEDED:
    case LANLINE_EVENT_PROXY_FORWARDING_NOTIFICATION:
        json_key_string(out, "path", lanline_path_name(event->path));
        harness_address(out, "address", &event->address);
        break;
    case LANLINE_EVENT_PATH_CHANGED:
        json_key_string(out, "from", lanline_path_name(event->path_from));
        json_key_string(out, "to", lanline_path_name(event->path));
        harness_address(out, "address", &event->address);
        break;
    case LANLINE_EVENT_MESSAGE:
        json_key_number(out, "channel", event->channel);
        json_key_string(out, "mode", lanline_mode_name(event->mode));
        json_key_number(out, "len", event->data_len);
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_START:
    case LANLINE_EVENT_VERIFIED_JOIN_CAPABLE:
    case LANLINE_EVENT_VERIFIED_JOIN_ACCEPTED:
    case LANLINE_EVENT_VERIFIED_JOIN_REJECTED:
        json_key_number(out, "count", event->count);
        json_key_number(out, "len", event->data_len);
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_FAILED:
        json_key_id(out, "member", event->peer2);
        break;
    case LANLINE_EVENT_NEW_HOST:
        json_key_id(out, "old", event->peer2);
        break;
    default:
        break;
    }
}

static void print_event(struct harness *harness, const lanline_event *event)
{
    struct text *out = &harness->line;
    const char *name = lanline_event_name(event->type);

    text_clear(out);
    text_add(out, "{\"event\":");
    json_string(out, name, strlen(name));
    text_format(out, ",\"time_us\":%llu,\"request\":%lu", (unsigned long long)event->time_us, (unsigned long)event->request);
    json_key_id(out, "peer", event->peer);
    json_key_number(out, "code", event->code);
    json_key_string(out, "name", lanline_result_name(event->code));
    json_key(out, "text");
    if (text_is_data(event->type))
        json_string_cut(out, (const char *)event->data, event->data_len, HARNESS_TEXT_LIMIT);
    else
        json_string(out, (const char *)event->text, event->text_len);
    special_values(harness, out, event);
    text_add(out, "}");
    harness_print(harness);
}

int harness_drain_events(struct harness *harness)
{
    lanline_event events[HARNESS_BATCH];
    int32_t count, i;
    int total = 0;

    do {
        count = lanline_poll(harness->node, events, (uint32_t)sizeof events[0], HARNESS_BATCH);
        for (i = 0; i < count; i++) {
            print_event(harness, &events[i]);
            remember(harness, &events[i]);
            if (events[i].type == LANLINE_EVENT_CONNECTED)
                note_peer(harness, events[i].peer);
        }
        if (count > 0)
            total += count;
    } while (count == HARNESS_BATCH);
    return total;
}

int harness_pump(struct harness *harness, uint32_t timeout_ms)
{
    harness_wait(harness, timeout_ms);
    return harness_drain_events(harness);
}
